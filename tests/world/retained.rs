//! Retained messages: set, replaced, cleared, and sent to whoever subscribes.

use super::*;

#[test]
fn the_last_message_of_a_topic_is_kept_for_who_comes_later() {
    in_each_version(|mut world| {
        let p = world.connect("p").go();
        for (topic, payload, qos) in [("a/b", "old", 2), ("a/b", "new", 1), ("a/c", "zero", 0)] {
            world.publish_with(p, topic, payload, qos, true);
        }
        world.publish(p, "a/b", "not retained", 1);
        let a = world.connect("a").go();
        world.subscribe(a, "a/+", 2);
        let got = world.messages(a);
        let seen: Vec<_> = (got.iter())
            .map(|m| (&*m.topic, &*m.payload, m.qos, m.retain, m.dup))
            .collect();
        let expected = [
            ("a/b", "new", 1, true, false),
            ("a/c", "zero", 0, true, false),
        ];
        assert_eq!(seen, expected);
        world.acknowledge(a, &got[0]);
        // Who is subscribed already gets it as any other message.
        world.publish_with(p, "a/b", "newer", 0, true);
        assert!(!world.messages(a)[0].retain);
        // Subscribing again sends it again; another filter too.
        world.subscribe(a, "a/+", 0);
        assert_eq!(world.payloads(a), ["newer", "zero"]);
        world.subscribe(a, "#", 0);
        assert_eq!(world.payloads(a), ["newer", "zero"]);
        // An empty one clears, and is delivered.
        world.publish_with(p, "a/b", "", 1, true);
        assert_eq!(world.payloads(a), [""]);
        assert_eq!(world.core.retained_len(), 1);
        let b = world.connect("b").go();
        world.subscribe(b, "a/b", 1);
        assert_eq!(world.receive(b), []);
        // A client that goes takes nothing with it.
        world.disconnect(p);
        world.subscribe(b, "a/c", 0);
        assert_eq!(world.payloads(b), ["zero"]);
    });
}

#[test]
fn groups_and_queues_get_no_retained_messages() {
    let mut world = World::new();
    let a = world.connect("a").go();
    world.publish_with(a, "t", "m", 1, true);
    for filter in ["$share/g/t", "$queue/t"] {
        world.subscribe(a, filter, 1);
    }
    assert_eq!(world.receive(a), []);
    // A retain flag means nothing to a queue.
    world.publish_with(a, "$queue/t", "job", 1, true);
    assert!(!world.messages(a)[0].retain);
    assert_eq!(world.core.retained_len(), 1);
}

/// More than a page, more than the window, with the connection lost in the
/// middle: each comes, in order.
/// Cases C04 and H05 of docs/security.md.
#[test]
fn a_long_backlog_is_sent_as_the_client_acknowledges() {
    const TOPICS: usize = 700;
    let configure = |config: &mut Config| {
        config.limits.inflight_max = 10;
        config.limits.session_messages_max = 5;
    };
    in_each_version_with(configure, |mut world| {
        let p = world.connect("p").go();
        for n in 0..TOPICS {
            world.publish_with(p, &format!("t/{n:04}"), "m", 1, true);
        }
        let mut a = world.connect("a").clean(false).go();
        world.subscribe(a, "t/+", 1);
        let mut came = Vec::new();
        let mut live = 0;
        while came.len() < TOPICS {
            let messages = world.messages(a);
            assert!(!messages.is_empty() && messages.len() <= 11);
            for message in &messages[..messages.len().div_ceil(2)] {
                world.acknowledge(a, message);
                match message.retain {
                    true => came.push(message.topic.clone()),
                    false => live += 1,
                }
            }
            if came.len() % 3 == 0 {
                world.publish(p, "t/live", "m", 1);
            }
            world.drop(a);
            a = world.connect("a").clean(false).go();
        }
        let expected: Vec<String> = (0..TOPICS).map(|n| format!("t/{n:04}")).collect();
        assert_eq!(came, expected);
        assert!(live > 0);
        assert_eq!(world.counts().sessions_overflowed, 0);
    });
}

/// QoS 0 has no window: what the client does not read is not sent.
#[test]
fn a_backlog_larger_than_the_outbox_loses_nothing() {
    let mut world = World::with(|config| config.limits.outbox_bytes_max = 1 << 20);
    let p = world.connect("p").go();
    let large = "x".repeat(100_000);
    for n in 0..60 {
        world.publish_with(p, &format!("t/{n:02}"), &large, 0, true);
    }
    let a = world.connect("a").go();
    world.clog(a, true);
    world.send(a, &subscribe(1, &[("t/#", 0)]));
    world.clog(a, false);
    let topics: Vec<String> = (world.receive(a).into_iter())
        .filter_map(|got| match got {
            Got::Publish(message) => Some(message.topic),
            _ => None,
        })
        .collect();
    let expected: Vec<String> = (0..60).map(|n| format!("t/{n:02}")).collect();
    assert_eq!(topics, expected);
    assert_eq!(world.counts().dropped_slow, 0);
}

#[test]
fn a_backlog_ends_with_its_subscription() {
    let mut world = World::with(|config| config.limits.inflight_max = 1);
    let a = world.connect("a").go();
    for n in 0..10 {
        world.publish_with(a, &format!("t/{n}"), "m", 1, true);
    }
    world.subscribe(a, "t/+", 1);
    let first = world.messages(a);
    assert_eq!(first.len(), 1);
    world.unsubscribe(a, "t/+");
    world.acknowledge(a, &first[0]);
    assert_eq!(world.receive(a), []);
}

/// A client with a full window subscribes to the same again and again: what is
/// kept for it stays one backlog.
/// Case C04 of docs/security.md.
#[test]
fn subscribing_again_and_again_keeps_one_backlog() {
    let mut world = World::with(|config| config.limits.inflight_max = 1);
    let a = world.connect("a").go();
    world.publish_with(a, "t/1", "m", 1, true);
    world.publish_with(a, "t/2", "m", 1, true);
    let same = [("t/+", 1); 1000];
    for _ in 0..50 {
        assert_eq!(world.try_subscribe(a, &same), [1; 1000]);
    }
    let mut came = 0;
    while let Some(Got::Publish(message)) = world.take(a) {
        world.acknowledge(a, &message);
        came += 1;
    }
    assert!(came <= 4, "{came} messages of 50,000 backlogs");
    assert_eq!(world.core.subscriptions_len(), 1);
}

/// Case C51 of docs/security.md.
#[test]
fn there_are_no_more_retained_messages_than_allowed() {
    let mut world = World::with(|config| config.limits.retained_messages_max = 2);
    let a = world.connect("a").go();
    world.publish_with(a, "1", "m", 1, true);
    world.publish_with(a, "2", "m", 1, true);
    world.publish_with(a, "2", "n", 1, true);
    world.send_publish(a, "3", "m", 1, true);
    assert_eq!(world.closed(a), Some(ReasonCode::QuotaExceeded));
    assert_eq!(
        (world.core.retained_len(), world.counts().refused_messages),
        (2, 1)
    );
    let a = world.connect("a").go();
    world.publish_with(a, "1", "", 1, true);
    world.publish_with(a, "3", "m", 1, true);
}

/// A PUBLISH that a queue holds back has not been retained either.
#[test]
fn what_is_held_back_is_not_retained_yet() {
    let mut world = World::with(|config| {
        config.queue.push(QueueSettings {
            messages_max: 1,
            ..queue("t")
        });
    });
    let p = world.connect("p").go();
    world.publish_with(p, "t", "first", 1, true);
    let held = world.send_publish(p, "t", "second", 1, true);
    let a = world.connect("a").go();
    world.subscribe(a, "t", 0);
    assert_eq!(world.payloads(a), ["first"]);
    world.subscribe(a, "$queue/t", 1);
    world.work(a);
    assert!(world.has_got(p, &Got::Puback(held)));
    assert_eq!(world.payloads(a), ["second", "second"]);
    world.subscribe(a, "t", 0);
    assert_eq!(world.payloads(a), ["second"]);
}
