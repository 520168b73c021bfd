//! A message with an id that a queue has seen is not put in a second time.

use super::*;

fn with_id(world: &mut World, client: C, topic: &str, id: &str) {
    let asked = [Property::UserProperty(("dedup-id", id))];
    let packet_id = world.send_with(client, (topic, id), 1, false, &asked);
    world.expect(client, Got::Puback(packet_id));
}

fn for_both(config: &mut Config) {
    for name in ["a", "b"] {
        config.queue.push(QueueSettings {
            filters: vec!["both".into()],
            dedup_window: secs(60),
            ..queue(name)
        });
    }
}

fn left(world: &mut World, queue: &str) -> Vec<String> {
    let drain = world.connect("drain").go();
    world.subscribe(drain, queue, 1);
    let mut left = Vec::new();
    while let Some(Got::Publish(job)) = world.take(drain) {
        world.acknowledge(drain, &job);
        left.push(job.payload);
    }
    world.disconnect(drain);
    left
}

#[test]
fn a_second_one_is_acknowledged_and_not_stored() {
    in_mqtt_5(for_both, |mut world| {
        let p = world.connect("p").go();
        for id in ["1", "2", "1", "1", "2", "3"] {
            with_id(&mut world, p, "$queue/a", id);
        }
        // Each queue remembers for itself.
        with_id(&mut world, p, "both", "1");
        assert_eq!(left(&mut world, "$queue/a"), ["1", "2", "3"]);
        assert_eq!(left(&mut world, "$queue/b"), ["1"]);
        // Done or not; but not for ever.
        with_id(&mut world, p, "$queue/a", "1");
        assert_eq!(left(&mut world, "$queue/a"), [""; 0]);
        world.advance(secs(61));
        with_id(&mut world, p, "$queue/a", "1");
        assert_eq!(left(&mut world, "$queue/a"), ["1"]);
    });
}

#[test]
fn what_was_seen_is_known_after_a_restart_as_long_as_before() {
    let mut world = World::with(for_both).stored(&Twin::new());
    world.version = Version::V5;
    let p = world.connect("p").go();
    with_id(&mut world, p, "$queue/a", "1");
    assert_eq!(left(&mut world, "$queue/a"), ["1"]);
    world.advance(secs(30));
    world.restart();
    let p = world.connect("p").go();
    with_id(&mut world, p, "$queue/a", "1");
    with_id(&mut world, p, "$queue/a", "2");
    assert_eq!(left(&mut world, "$queue/a"), ["2"]);
    world.advance(secs(31));
    world.restart();
    let p = world.connect("p").go();
    with_id(&mut world, p, "$queue/a", "1");
    with_id(&mut world, p, "$queue/a", "2");
    assert_eq!(left(&mut world, "$queue/a"), ["1"]);
}

#[test]
fn a_message_that_is_too_long_is_refused_for_good_and_whole() {
    let configure = |config: &mut Config| {
        for_both(config);
        config.queue[1].message_bytes_max = 3;
    };
    in_mqtt_5(configure, |mut world| {
        let p = world.connect("p").go();
        let id = world.send_publish(p, "both", "four", 1, false);
        assert_eq!(
            world.receive(p),
            [Got::Refused(id, ReasonCode::QuotaExceeded)]
        );
        assert_eq!(left(&mut world, "$queue/a"), [""; 0]);
        world.publish(p, "both", "abc", 1);
        assert_eq!(left(&mut world, "$queue/a"), ["abc"]);
        assert_eq!(left(&mut world, "$queue/b"), ["abc"]);
    });
}
