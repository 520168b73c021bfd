//! MQTT 5 at its edges: what one client asks for costs no other, and what is
//! agreed anew holds anew.

use super::*;
use rotamq::config::{SessionFull, Undecided};
use rotamq::protocol::RetainHandling;

fn world(configure: impl FnOnce(&mut Config)) -> World {
    let mut world = World::with(configure);
    world.version = Version::V5;
    world
}

fn largest(bytes: u32) -> Property<'static> {
    Property::MaximumPacketSize(bytes.try_into().expect("not 0"))
}

fn one_at_a_time() -> Property<'static> {
    Property::ReceiveMaximum(packet_id(1))
}

fn subscribe_with_user_property(
    world: &mut World,
    client: C,
    filter: &str,
    user: (&str, &str),
) -> Vec<u8> {
    let id = world.next_id(client);
    let mut properties = PropertiesBuf::new();
    properties.push(Property::UserProperty(user));
    let packet = Packet::Subscribe(Subscribe {
        packet_id: packet_id(id),
        properties: properties.as_properties(),
        filters: vec![(filter, SubscribeOptions::new(Qos::AtLeastOnce))],
    });
    world.send(client, &packet);
    match world.take(client) {
        Some(Got::Suback(_, codes)) => codes,
        other => panic!("{other:?}"),
    }
}

// ---- members whose clients take small packets only

#[test]
fn a_member_of_small_packets_costs_the_others_nothing() {
    for exclusive in [false, true] {
        let mut world = world(|config| {
            let queue = QueueSettings {
                exclusive,
                ..queue("jobs")
            };
            config.queue.push(queue);
        });
        let p = world.connect("p").go();
        let large = "x".repeat(100);
        for _ in 0..500 {
            world.publish(p, "$queue/jobs", &large, 1);
        }
        let small = world.connect("small").property(largest(60)).go();
        world.subscribe(small, "$queue/jobs", 1);
        let good = world.connect("good").go();
        world.subscribe(good, "$queue/jobs", 1);
        world.advance(secs(2));
        // As fast as it works, with none put off, and each for the first time.
        let mut done = 0;
        while let Some(Got::Publish(job)) = world.take(good) {
            assert!(
                job.properties
                    .contains(&shown([Property::UserProperty(("delivery", "1"))])[0])
            );
            world.acknowledge(good, &job);
            done += 1;
        }
        assert_eq!(done, 500, "exclusive: {exclusive}");
        assert_eq!(world.counts().dropped_too_large, 0);
    }
}

#[test]
fn a_group_gives_what_is_too_large_for_one_to_another() {
    let mut world = world(|_| ());
    let p = world.connect("p").go();
    let small = world.connect("small").property(largest(60)).go();
    let good = world
        .connect("good")
        .property(Property::ReceiveMaximum(packet_id(10)))
        .go();
    for member in [small, good] {
        world.subscribe(member, "$share/g/t", 1);
    }
    for _ in 0..100 {
        world.publish(p, "t", &"x".repeat(100), 1);
    }
    let mut got = 0;
    while let Some(Got::Publish(message)) = world.take(good) {
        world.acknowledge(good, &message);
        got += 1;
    }
    assert_eq!(got, 100);
    // Alone it is as if it had been sent.
    world.disconnect(good);
    world.publish(p, "t", &"x".repeat(100), 1);
    world.publish(p, "t", "m", 1);
    world.advance(secs(2));
    assert_eq!(world.payloads(small), ["m"]);
    let counts = world.counts();
    assert_eq!(counts.dropped_group + counts.dropped_too_large, 1);
}

#[test]
fn what_no_longer_fits_takes_no_place_in_the_window() {
    for list in ["$queue/jobs", "$share/g/s", "s"] {
        let mut world = world(|_| ());
        let p = world.connect("p").go();
        let a = world.connect("a").clean(false).go();
        world.subscribe(a, list, 2);
        world.subscribe(a, "t", 1);
        let topic = if list == "$queue/jobs" { list } else { "s" };
        world.publish(p, topic, &"x".repeat(300), 2);
        assert_eq!(world.messages(a).len(), 1);
        world.drop(a);
        let connecting = world.connect("a").clean(false).property(largest(100));
        let a = connecting.property(one_at_a_time()).go();
        world.publish(p, "t", "m", 1);
        assert_eq!(world.payloads(a), ["m"], "{list}");
    }
}

#[test]
fn what_somebody_else_has_by_now_is_not_sent_again() {
    let mut world = world(|config| {
        config.queue.push(QueueSettings {
            undecided: Undecided::Redeliver,
            undecided_after: secs(10),
            ..queue("jobs")
        });
    });
    let p = world.connect("p").go();
    let a = world.connect("a").clean(false).go();
    world.subscribe(a, "$queue/jobs", 2);
    for payload in ["1", "2"] {
        world.publish(p, "$queue/jobs", payload, 1);
    }
    assert_eq!(world.messages(a).len(), 2);
    world.drop(a);
    let a = world
        .connect("a")
        .clean(false)
        .property(one_at_a_time())
        .go();
    let first = world.messages(a).remove(0);
    let b = world.connect("b").clean(false).go();
    world.subscribe(b, "$queue/jobs", 2);
    world.advance(secs(20));
    assert_eq!(world.payloads(b), ["1", "2"]);
    world.send(a, &pubrec(first.id));
    world.receive(a);
    world.send(a, &pubcomp(first.id));
    let got = world.receive(a);
    assert!(matches!(got[..], [Got::Pubrel(_)]), "{got:?}");
}

// ---- members

/// Case M07 of docs/security.md.
#[test]
fn user_properties_mean_something_to_queues_alone() {
    let mut world = world(|_| ());
    let a = world.connect("a").go();
    for user in [("prefetch", "auto"), ("ack-timeout", "10 minutes")] {
        assert_eq!(subscribe_with_user_property(&mut world, a, "t", user), [1]);
        assert_eq!(
            subscribe_with_user_property(&mut world, a, "$queue/q", user),
            [0x80]
        );
    }
}

/// Case C25 of docs/security.md.
#[test]
fn an_ack_timeout_of_0_is_none() {
    let mut world = world(|_| ());
    let p = world.connect("p").go();
    let members = [world.connect("a").go(), world.connect("b").go()];
    for member in members {
        let never = ("ack-timeout", "0");
        let codes = subscribe_with_user_property(&mut world, member, "$queue/jobs", never);
        assert_eq!(codes, [1]);
    }
    world.publish(p, "$queue/jobs", "m", 1);
    world.advance(secs(1000));
    let got = members.map(|member| world.messages(member).len());
    assert_eq!(got, [1, 0]);
}

#[test]
fn a_member_that_will_not_be_back_gets_no_qos_2() {
    let mut world = world(|_| ());
    let p = world.connect("p").go();
    let a = world.connect("a").clean(false).go();
    world.subscribe(a, "$queue/jobs", 2);
    world.drop(a);
    let connecting = world.connect("a").clean(false);
    let a = connecting.property(Property::SessionExpiryInterval(0)).go();
    world.publish(p, "$queue/jobs", "m", 1);
    assert_eq!(world.messages(a)[0].qos, 1);
    world.drop(a);
    assert_eq!(world.counts().dead_letters, 0);
}

#[test]
fn dead_letters_do_not_expire() {
    let mut world = world(|_| ());
    let p = world.connect("p").go();
    let a = world.connect("a").go();
    world.subscribe(a, "$queue/jobs", 1);
    let expiry = [Property::MessageExpiryInterval(5)];
    world.send_with(p, ("$queue/jobs", "m"), 1, false, &expiry);
    let job = world.messages(a).remove(0);
    world.advance(secs(10));
    world.control(a, "reject", &job.id.to_string());
    world.advance(secs(10));
    let b = world.connect("b").go();
    world.subscribe(b, "$queue/$dead/jobs", 1);
    assert_eq!(world.payloads(b), ["m"]);
    assert_eq!(world.counts().dropped_expired, 0);
}

// ---- sessions

#[test]
fn identifiers_count_for_what_a_session_may_keep() {
    let mut world = world(|config| config.limits.session_bytes_max = 1 << 20);
    let a = world.connect("a").clean(false).go();
    let options = SubscribeOptions::new(Qos::AtLeastOnce);
    for bits in 0..1024_u32 {
        let level = |bit: u32| if bits >> bit & 1 == 0 { "a" } else { "+" };
        let levels: Vec<&str> = (0..10).map(level).collect();
        world.subscribe_with(a, &levels.join("/"), options, 200_000_000 + bits);
    }
    world.drop(a);
    let p = world.connect("p").go();
    // 5 KiB of identifiers each.
    for _ in 0..300 {
        world.publish(p, "a/a/a/a/a/a/a/a/a/a", "m", 1);
    }
    assert_eq!(world.counts().sessions_overflowed, 1);
}

/// Case D11 of docs/security.md.
#[test]
fn what_has_expired_stops_no_publisher() {
    let mut world = world(|config| {
        config.session.full = SessionFull::Refuse;
        config.limits.session_messages_max = 2;
    });
    let a = world.connect("a").clean(false).go();
    world.subscribe(a, "t", 1);
    world.drop(a);
    let p = world.connect("p").go();
    for _ in 0..2 {
        world.send_with(
            p,
            ("t", "m"),
            1,
            false,
            &[Property::MessageExpiryInterval(1)],
        );
    }
    world.receive(p);
    world.advance(secs(3600));
    world.publish(p, "t", "m", 1);
    assert_eq!(world.counts().dropped_expired, 2);
}

#[test]
fn a_full_session_does_not_stop_what_it_would_not_get() {
    let mut world = world(|config| {
        config.session.full = SessionFull::Refuse;
        config.limits.session_messages_max = 1;
        config.limits.inflight_max = 1;
    });
    let a = world.connect("a").go();
    let no_local = SubscribeOptions {
        no_local: true,
        ..SubscribeOptions::new(Qos::AtLeastOnce)
    };
    world.subscribe_with(a, "t", no_local, 0);
    let p = world.connect("p").go();
    world.publish(p, "t", "1", 1);
    world.publish(p, "t", "2", 1);
    world.receive(a);
    world.publish(a, "t", "own", 1);
}

/// Case D14 of docs/security.md.
#[test]
fn what_waits_for_a_subscription_comes_as_that_is_now() {
    let mut world = world(|config| config.limits.inflight_max = 1);
    let p = world.connect("p").go();
    for topic in ["r/1", "r/2", "r/3"] {
        world.publish_with(p, topic, topic, 1, true);
    }
    let a = world.connect("a").go();
    let options = SubscribeOptions::new(Qos::AtLeastOnce);
    world.subscribe_with(a, "r/#", options, 1);
    let first = world.messages(a).remove(0);
    let replaced = SubscribeOptions {
        retain_handling: RetainHandling::SendIfNew,
        ..SubscribeOptions::new(Qos::AtMostOnce)
    };
    world.subscribe_with(a, "r/#", replaced, 2);
    world.acknowledge(a, &first);
    let id = rotamq::message::SubscriptionId::new(2).unwrap();
    let messages = world.messages(a);
    assert_eq!(messages.len(), 2);
    for message in messages {
        let properties = shown([Property::SubscriptionIdentifier(id)]);
        assert_eq!((message.qos, message.properties), (0, properties));
    }
}

#[test]
fn receive_maximum_begins_anew_with_each_connection() {
    let mut world = world(|config| config.limits.receive_max = 3);
    // Of an older version, which has none.
    world.version = Version::V3_1_1;
    let a = world.connect("a").clean(false).go();
    for id in 100..110 {
        world.send(a, &publish("t", "m", 2, id));
    }
    world.drop(a);
    world.version = Version::V5;
    for round in 0..3 {
        let a = world.connect("a").clean(false).go();
        for n in 1..=2 {
            world.send(a, &publish("t", "m", 2, round * 2 + n));
        }
        // One that comes again counts too.
        world.send(a, &duplicate(publish("t", "m", 2, 100 + round)));
        assert!(world.is_open(a));
        world.send(a, &pubrel(100 + round));
        world.send(a, &pubrel(109 - round)); // not of this connection
        world.send(a, &publish("t", "m", 2, 50 + round));
        assert!(world.is_open(a));
        world.send(a, &publish("t", "m", 2, 60));
        assert_eq!(world.told(a), Some(ReasonCode::ReceiveMaximumExceeded));
    }
}

#[test]
fn nothing_is_said_before_connack() {
    let mut world = world(|_| ());
    let link = world.connect("a").unseen();
    world.connect("a").go();
    let a = world.add(link);
    let stream = &world.clients[a.0].stream;
    assert!(stream.is_empty() || stream[0] == 0x20, "{stream:02x?}");
}

#[test]
fn who_asked_to_stay_may_say_so_again_though_it_may_not() {
    let mut world = world(|config| config.session.expiry_max = Duration::ZERO);
    let expiry = Property::SessionExpiryInterval;
    let a = world.connect("a").property(expiry(100)).go();
    let mut properties = PropertiesBuf::new();
    properties.push(expiry(10));
    let goodbye = Packet::Disconnect(Disconnect {
        reason: ReasonCode::Success,
        properties: properties.as_properties(),
    });
    world.send(a, &goodbye);
    assert_eq!(world.stop(a), Some(&Stop::Disconnect));
    assert_eq!(world.core.sessions_len(), 0);
}

// ---- the broker's own

#[test]
fn retained_messages_that_expire_need_one_timer() {
    let mut world = world(|_| ());
    let p = world.connect("p").go();
    let expiry = |secs| [Property::MessageExpiryInterval(secs)];
    world.send_with(p, ("long", "m"), 0, true, &expiry(1_000_000));
    for _ in 0..100 {
        world.send_with(p, ("short", "m"), 0, true, &expiry(5));
        world.advance(secs(10));
    }
    assert_eq!(world.core.retained_len(), 1);
    assert!(world.timers() < 10, "{} timers", world.timers());
}

#[test]
fn each_refusal_counts_once() {
    for version in VERSIONS {
        let mut world = world(|config| config.limits.retained_messages_max = 1);
        world.version = version;
        let p = world.connect("p").go();
        world.publish_with(p, "a", "m", 1, true);
        world.send_publish(p, "b", "m", 1, true);
        assert_eq!(world.counts().refused_messages, 1);
        let a = world.connect("a").will("w", "gone", 1, true).go();
        world.drop(a);
        assert_eq!(world.counts().refused_messages, 2);
    }
}

/// Case A51 of docs/security.md.
#[test]
fn an_alias_of_a_topic_that_is_too_long_stays_too_long() {
    let mut world = world(|config| config.limits.topic_bytes_max = 100);
    let p = world.connect("p").go();
    let alias = [Property::TopicAlias(packet_id(1))];
    for topic in ["é".repeat(30_000), String::new()] {
        let id = world.send_with(p, (&topic, "m"), 1, false, &alias);
        let reason = ReasonCode::TopicNameInvalid;
        assert_eq!(world.receive(p), [Got::Refused(id, reason)]);
    }
}
