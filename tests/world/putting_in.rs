//! Work queues from the side of those who put jobs in: what feeds a queue, and
//! what happens when it is full.

use super::*;

/// A broker with a queue `jobs` of so many messages.
fn with_room_for(messages_max: usize) -> impl Fn(&mut Config) {
    move |config: &mut Config| {
        config.queue.push(QueueSettings {
            messages_max,
            ..queue("jobs")
        });
    }
}

/// Takes all that is in a queue, one after the other.
fn drain(world: &mut World, name: &str) -> Vec<String> {
    let worker = world.connect("drain").go();
    world.subscribe(worker, &format!("$queue/{name}"), 1);
    let mut came = Vec::new();
    while let Some(Got::Publish(message)) = world.take(worker) {
        world.acknowledge(worker, &message);
        came.push(message.payload);
    }
    world.disconnect(worker);
    came
}

#[test]
fn a_producer_may_come_first() {
    in_each_version(|mut world| {
        let p = world.connect("p").go();
        for qos in 0..=2 {
            world.publish(p, "$queue/jobs", &qos.to_string(), qos);
        }
        world.disconnect(p);
        assert_eq!(drain(&mut world, "jobs"), ["0", "1", "2"]);
    });
}

/// `$queue/T` goes into every queue whose name matches T and to nobody else;
/// T goes to ordinary subscribers and into those queues.
#[test]
fn both_ways_of_putting_in() {
    in_each_version(|mut world| {
        let p = world.connect("p").go();
        let watcher = world.connect("watcher").go();
        world.subscribe(watcher, "#", 0);
        for name in ["orders/eu/new", "orders/+/new", "other"] {
            world.subscribe(p, &format!("$queue/{name}"), 1);
            world.unsubscribe(p, &format!("$queue/{name}"));
        }
        world.publish(p, "$queue/orders/eu/new", "direct", 1);
        assert_eq!(world.receive(watcher), []);
        world.publish(p, "orders/eu/new", "copy", 1);
        assert_eq!(world.payloads(watcher), ["copy"]);
        world.publish(p, "orders/us/new", "copy us", 1);
        assert_eq!(drain(&mut world, "orders/eu/new"), ["direct", "copy"]);
        assert_eq!(
            drain(&mut world, "orders/+/new"),
            ["direct", "copy", "copy us"]
        );
        assert_eq!(drain(&mut world, "other"), [""; 0]);
    });
}

#[test]
fn a_queue_may_be_fed_by_filters_of_its_own() {
    let mut world = World::with(|config| {
        config.queue.push(QueueSettings {
            filters: vec!["a/+".into(), "b/#".into()],
            ..queue("jobs")
        });
    });
    let p = world.connect("p").go();
    for topic in ["a/1", "b", "b/2/3", "c", "$queue/a/9", "$queue/jobs"] {
        world.publish(p, topic, topic, 1);
    }
    let came = drain(&mut world, "jobs");
    assert_eq!(came, ["a/1", "b", "b/2/3", "$queue/a/9", "$queue/jobs"]);
}

#[test]
fn a_member_sees_the_topic_that_its_queue_is_set_to() {
    let mut world = World::with(|config| {
        config.queue.push(QueueSettings {
            topic: rotamq::config::QueueTopic::Original,
            filters: vec!["o/+".into()],
            ..queue("original")
        });
    });
    let a = world.connect("a").go();
    world.subscribe(a, "$queue/original", 0);
    world.subscribe(a, "$queue/q/+", 0);
    let put = ["o/1", "$queue/o/2", "$queue/original", "q/3", "$queue/q/4"];
    for topic in put {
        world.publish(a, topic, "m", 1);
    }
    let topics: Vec<String> = world.messages(a).into_iter().map(|m| m.topic).collect();
    assert_eq!(
        topics,
        ["o/1", "o/2", "original", "$queue/q/3", "$queue/q/4"]
    );
}

/// Case H50 of docs/security.md.
#[test]
fn which_names_a_queue_may_have() {
    let configure = |config: &mut Config| {
        config.limits.queues_max = 2;
        config.queue.push(queue("+/configured"));
    };
    in_each_version_with(configure, |mut world| {
        let a = world.connect("a").go();
        let refused = ["+", "#", "$x", "$nack"].map(|name| format!("$queue/{name}"));
        for name in &refused {
            assert_eq!(world.try_subscribe(a, &[(name, 1)]), [0x80], "{name}");
        }
        // Share groups take no place of queues.
        for n in 0..5 {
            world.subscribe(a, &format!("$share/g{n}/t"), 1);
        }
        world.subscribe(a, "$queue/+/configured", 1);
        world.subscribe(a, "$queue/jobs", 1);
        assert_eq!(world.try_subscribe(a, &[("$queue/more", 1)]), [0x80]);
        world.publish(a, "$queue/jobs", "m", 1);
        let id = world.send_publish(a, "$queue/more", "m", 1, false);
        match world.version {
            Version::V5 => world.expect(a, Got::Refused(id, ReasonCode::QuotaExceeded)),
            _ => assert_eq!(world.closed(a), Some(ReasonCode::QuotaExceeded)),
        }
    });
    for topic in [
        "$queue",
        "$queue/$x",
        "$share/g/t",
        "$dead/t",
        "$queue/$dead/t",
    ] {
        let mut world = World::new();
        let a = world.connect("a").go();
        world.send_publish(a, topic, "m", 1, false);
        assert_eq!(
            world.closed(a),
            Some(ReasonCode::TopicNameInvalid),
            "{topic}"
        );
    }
}

#[test]
fn queues_that_must_be_configured() {
    let mut world = World::with(|config| {
        config.queues.auto_create = false;
        config.queue.push(queue("jobs/+"));
    });
    let a = world.connect("a").go();
    assert_eq!(world.try_subscribe(a, &[("$queue/other", 1)]), [0x80]);
    world.subscribe(a, "$queue/jobs/1", 1);
    world.publish(a, "$queue/jobs/2", "m", 1);
    world.send_publish(a, "$queue/other", "m", 1, false);
    assert_eq!(world.closed(a), Some(ReasonCode::NotAuthorized));
}

/// Case C50 of docs/security.md.
#[test]
fn a_queue_that_nobody_uses_goes() {
    let day = secs(24 * 60 * 60);
    let configure = |config: &mut Config| config.queue.push(queue("configured"));
    let mut world = World::with(configure);
    let p = world.connect("p").go();
    for topic in ["$queue/jobs", "$queue/configured"] {
        world.publish(p, topic, "m", 1);
    }
    world.advance(day * 6);
    world.publish(p, "$queue/jobs", "m", 1);
    world.advance(day * 6);
    assert_eq!(world.core.subscriptions_len(), 2);
    // A copy of what others get is no use of it.
    world.publish(p, "jobs", "m", 1);
    world.advance(day * 2);
    assert_eq!(world.core.subscriptions_len(), 1);
    assert_eq!(world.counts().dropped_queue_deleted, 3);
    // A member keeps it, also while away.
    let a = world.connect("a").clean(false).go();
    world.subscribe(a, "$queue/jobs", 1);
    world.drop(a);
    world.advance(day * 6);
    world.connect("a").clean(false).go();
    world.advance(day * 30);
    assert_eq!(world.core.subscriptions_len(), 2);
    world.connect("a").clean(true).go();
    world.advance(day * 8);
    assert_eq!(world.core.subscriptions_len(), 1);
    assert_eq!(drain(&mut world, "configured"), ["m"]);
}

// ---- a full queue

/// Case C08 of docs/security.md.
#[test]
fn a_full_queue_holds_a_publish_back_and_nothing_else() {
    for max in [1, 2, 5] {
        where_publishers_are_held_back(with_room_for(max), |mut world| {
            let p = world.connect("p").go();
            let a = world.connect("a").go();
            world.subscribe(a, "t", 0);
            for n in 0..max {
                world.publish(p, "$queue/jobs", &n.to_string(), 1);
            }
            // Held: with all that is published behind it, in order.
            let first = world.send_publish(p, "$queue/jobs", "first", 1, false);
            let second = world.send_publish(p, "t", "second", 2, false);
            world.send_publish(p, "t", "third", 0, false);
            let fourth = world.send_publish(p, "$queue/jobs", "fourth", 2, false);
            assert_eq!((world.receive(p), world.receive(a)), (vec![], vec![]));
            // Not held: all other packets.
            world.send_all(p, &[Packet::Pingreq, subscribe(9, &[("u", 0)])]);
            assert_eq!(world.receive(p), [Got::Pingresp, Got::Suback(9, vec![0])]);
            // Others go on.
            let other = world.connect("other").go();
            world.publish(other, "t", "other", 1);
            assert_eq!(world.payloads(a), ["other"]);
            // Room for one.
            let worker = world.connect("w").go();
            world.subscribe(worker, "$queue/jobs", 1);
            let jobs = world.messages(worker);
            assert_eq!(jobs.len(), max);
            world.acknowledge(worker, &jobs[0]);
            assert_eq!(world.receive(p), [Got::Puback(first), Got::Pubrec(second)]);
            assert_eq!(world.payloads(a), ["second", "third"]);
            let job = world.messages(worker).pop().unwrap();
            assert_eq!(job.payload, "first");
            world.acknowledge(worker, &job);
            assert_eq!(world.receive(p), [Got::Pubrec(fourth)]);
            assert_eq!(world.payloads(worker), ["fourth"]);
            // It goes straight on.
            world.publish(p, "t", "free", 1);
        });
    }
}

/// The payload leaves a few bytes less than a message takes, and more than it
/// takes to hold it back.
#[test]
fn a_publish_that_nearly_fits_is_held_back_too() {
    for bytes_max in 1024..1424 {
        let mut world = World::with(|config| {
            config.queue.push(QueueSettings {
                bytes_max,
                ..queue("jobs")
            });
        });
        let p = world.connect("p").go();
        let payload = "x".repeat(500);
        world.publish(p, "$queue/jobs", &payload, 1);
        let second = world.send_publish(p, "$queue/jobs", &payload, 1, false);
        let fits = world.has_got(p, &Got::Puback(second));
        let jobs = drain(&mut world, "jobs");
        assert_eq!(jobs.len(), 2);
        assert!(fits || world.has_got(p, &Got::Puback(second)));
    }
}

#[test]
fn a_full_queue_drops_qos_0_alone() {
    let mut world = World::with(with_room_for(1));
    let p = world.connect("p").go();
    let a = world.connect("a").go();
    world.subscribe(a, "jobs", 0);
    world.subscribe(a, "$share/g/jobs", 0);
    world.publish(p, "jobs", "1", 0);
    assert_eq!(world.payloads(a), ["1", "1"]);
    // Who else gets it, gets it.
    world.publish(p, "jobs", "2", 0);
    world.publish(p, "$queue/jobs", "3", 0);
    assert_eq!(world.payloads(a), ["2", "2"]);
    assert_eq!(world.counts().dropped_queue_full, 2);
    assert_eq!(drain(&mut world, "jobs"), ["1"]);
}

#[test]
fn all_queues_take_a_message_or_none() {
    where_publishers_are_held_back(with_room_for(1), |mut world| {
        let p = world.connect("p").go();
        let a = world.connect("a").go();
        for name in ["jobs", "jobs/#"] {
            world.subscribe(a, &format!("$queue/{name}"), 1);
            world.unsubscribe(a, &format!("$queue/{name}"));
        }
        world.publish(p, "jobs", "1", 1);
        world.subscribe(a, "jobs", 1);
        let held = world.send_publish(p, "jobs", "2", 1, false);
        assert_eq!((world.receive(p), world.receive(a)), (vec![], vec![]));
        assert_eq!(drain(&mut world, "jobs/#"), ["1"]);
        assert_eq!(world.receive(p), [], "one of them is full still");
        assert_eq!(drain(&mut world, "jobs"), ["1", "2"]);
        assert_eq!(world.receive(p), [Got::Puback(held)]);
        assert_eq!(drain(&mut world, "jobs/#"), ["2"]);
        assert_eq!(world.payloads(a), ["2"]);
    });
}

#[test]
fn several_publishers_wait_in_turn() {
    where_publishers_are_held_back(with_room_for(1), |mut world| {
        let p = world.connect("p").go();
        world.publish(p, "$queue/jobs", "0", 1);
        let waiting: Vec<(C, u16)> = (1..=5)
            .map(|n| {
                let client = world.connect(&format!("p{n}")).go();
                let id = world.send_publish(client, "$queue/jobs", &n.to_string(), 1, false);
                (client, id)
            })
            .collect();
        let worker = world.connect("w").go();
        world.subscribe(worker, "$queue/jobs", 1);
        for n in 0..=5 {
            assert_eq!(world.work(worker).payload, n.to_string());
        }
        for (client, id) in waiting {
            assert_eq!(world.receive(client), [Got::Puback(id)]);
        }
    });
}

/// Whoever is first in the line and goes, in whatever way, leaves the others
/// their turn.
#[test]
fn a_waiting_publisher_that_goes_strands_nobody() {
    let ends: [fn(&mut World, C); 6] = [
        |world, p| world.drop(p),
        |world, p| world.disconnect(p),
        |world, p| {
            // The session is there again, and holds nothing.
            world.drop(p);
            world.connect("p1").clean(false).go();
        },
        |world, _| {
            world.connect("p1").clean(false).go();
        },
        |world, _| {
            world.connect("p1").clean(true).go();
        },
        |world, p| {
            // Its next PUBLISH is none.
            world.send_publish(p, "+", "m", 1, false);
        },
    ];
    for (which, end) in ends.into_iter().enumerate() {
        let mut world = World::with(with_room_for(1));
        let p = world.connect("p").go();
        world.publish(p, "$queue/jobs", "0", 1);
        let first = world.connect("p1").clean(false).go();
        world.send_publish(first, "$queue/jobs", "1", 1, false);
        let second = world.connect("p2").go();
        let id = world.send_publish(second, "$queue/jobs", "2", 1, false);
        end(&mut world, first);
        let worker = world.connect("w").go();
        world.subscribe(worker, "$queue/jobs", 1);
        assert_eq!(world.work(worker).payload, "0");
        let held_first = which == 5;
        if held_first {
            assert_eq!(world.work(worker).payload, "1");
        }
        assert!(world.has_got(second, &Got::Puback(id)), "end {which}");
        assert_eq!(world.work(worker).payload, "2");
    }
}

/// The first in the line finds another queue full: the next in line gets the
/// room that it leaves.
#[test]
fn a_publisher_that_waits_for_another_queue_leaves_the_line() {
    let mut world = World::with(|config| {
        for name in ["a", "b"] {
            config.queue.push(QueueSettings {
                messages_max: 1,
                filters: vec![name.into(), "both".into()],
                ..queue(name)
            });
        }
    });
    let p = world.connect("p").go();
    world.publish(p, "$queue/a", "0", 1);
    let both = world.connect("p1").go();
    world.send_publish(both, "both", "1", 1, false);
    let one = world.connect("p2").go();
    let id = world.send_publish(one, "$queue/a", "2", 1, false);
    world.publish(p, "$queue/b", "0", 1);
    let worker = world.connect("w").go();
    world.subscribe(worker, "$queue/a", 1);
    assert_eq!(world.work(worker).payload, "0");
    assert!(world.has_got(one, &Got::Puback(id)));
}

/// Case C53 of docs/security.md.
#[test]
fn what_is_held_back_for_too_long_costs_the_connection() {
    let configure = |config: &mut Config| {
        with_room_for(1)(config);
        config.limits.held_timeout = secs(10);
    };
    where_publishers_are_held_back(configure, |mut world| {
        let p = world.connect("p").will("w", "will", 0, false).go();
        let a = world.connect("a").go();
        world.subscribe(a, "w", 0);
        for n in 0..3 {
            world.send_publish(p, "$queue/jobs", &n.to_string(), 1, false);
        }
        assert_eq!(world.receive(p).len(), 1);
        world.advance(secs(9));
        // Each has its own ten seconds.
        let worker = world.connect("w").go();
        world.subscribe(worker, "$queue/jobs", 1);
        world.work(worker);
        assert_eq!(world.receive(p).len(), 1);
        world.advance(secs(10) - TICK);
        assert!(world.is_open(p));
        world.advance(TICK * 2);
        assert_eq!(world.closed(p), Some(ReasonCode::QuotaExceeded));
        assert_eq!(world.payloads(a), ["will"]);
        assert_eq!(world.work(worker).payload, "1");
        assert_eq!(world.receive(worker), []);
    });
}

/// Case C53 of docs/security.md.
#[test]
fn no_more_is_held_back_than_allowed() {
    let configure = |config: &mut Config| {
        with_room_for(1)(config);
        config.limits.held_bytes_max = 10_000;
    };
    let mut world = World::with(configure);
    let p = world.connect("p").go();
    let payload = "x".repeat(1000);
    let mut held = 0;
    while world.is_open(p) {
        world.send_publish(p, "$queue/jobs", &payload, 1, false);
        held += 1;
    }
    assert!((9..=11).contains(&held), "{held} PUBLISHes of 1000 bytes");
    assert_eq!(world.closed(p), Some(ReasonCode::QuotaExceeded));
}

/// A PUBLISH is refused whole: no queue has what could not be retained.
#[test]
fn what_cannot_be_retained_is_in_no_queue() {
    let mut world = World::with(|config| config.limits.retained_messages_max = 1);
    let member = world.connect("member").go();
    world.subscribe(member, "$queue/t/+", 0);
    let p = world.connect("p").go();
    world.send_publish(p, "t/1", "kept", 1, true);
    world.send_publish(p, "t/2", "refused", 1, true);
    assert_eq!(world.closed(p), Some(ReasonCode::QuotaExceeded));
    let came = world.messages(member).into_iter().map(|m| m.payload);
    assert_eq!(came.collect::<Vec<_>>(), ["kept"]);
}
