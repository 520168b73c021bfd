//! What jobs ask for, and what they went through, outlives the broker: order,
//! groups, times, failures, and what replaced or pushed out what.

use super::*;
use crate::world::queues::{configured, create, drain, jobs, member, put, put_all};
use rotamq::config::LastValue;
use std::collections::BTreeMap;

fn sync(world: &World) {
    world.core.store().commit(true).expect("the disk is well");
}

/// The broker goes; the next one starts so much later.
fn end_for(world: &mut World, end: &dyn Fn(&mut World), away: Duration) {
    sync(world);
    world.now = world.now + away;
    end(world);
}

// ---- order

#[test]
fn priorities_come_in_order_after_a_start() {
    through_each_end_in_5(
        |_| (),
        |mut world, end| {
            let p = world.connect("p").go();
            let (low, high): (&[_], &[_]) = (&[("priority", "1")], &[("priority", "9")]);
            put_all(
                &mut world,
                p,
                &[("l0", low), ("0", &[]), ("h0", high), ("l1", low)],
            );
            end_for(&mut world, end, secs(0));
            let p = world.connect("p").go();
            put_all(&mut world, p, &[("h1", high), ("l2", low), ("1", &[])]);
            // Of another priority than any before.
            put_all(&mut world, p, &[("m", &[("priority", "6")])]);
            end_for(&mut world, end, secs(0));
            let expected = ["h0", "h1", "m", "0", "1", "l0", "l1", "l2"];
            assert_eq!(drain(&mut world, "jobs"), expected);
        },
    );
}

#[test]
fn a_group_goes_on_in_order_after_a_start() {
    let configure = configured("jobs/#", |queue| queue.group_level = 2);
    through_each_end_with(configure, |mut world, end| {
        create(&mut world, "jobs/#");
        let p = world.connect("p").go();
        for n in 0..3 {
            for group in ["x", "y"] {
                let topic = format!("$queue/jobs/{group}");
                world.publish(p, &topic, &format!("{group}{n}"), 1);
            }
        }
        let a = member(&mut world, "a", "jobs/#");
        let got = world.messages(a);
        assert_eq!(got.len(), 2);
        // One is done, the other rests, and its group does.
        world.acknowledge(a, &got[1]);
        assert_eq!(world.work(a).payload, "y1");
        assert_eq!(world.messages(a)[0].payload, "y2");
        world.control(a, "nack", &format!("{} 100", got[0].id));
        assert_eq!(world.receive(a), []);
        end_for(&mut world, end, secs(0));
        let p = world.connect("p").go();
        world.publish(p, "$queue/jobs/x", "x3", 1);
        world.publish(p, "$queue/jobs/y", "y3", 1);
        let b = member(&mut world, "b", "jobs/#");
        assert_eq!(world.work(b).payload, "y2");
        assert_eq!(world.work(b).payload, "y3");
        assert_eq!(world.receive(b), []);
        world.disconnect(b);
        end_for(&mut world, end, secs(50));
        assert_eq!(drain(&mut world, "jobs/#"), [""; 0]);
        end_for(&mut world, end, secs(60));
        world.advance(TICK);
        assert_eq!(drain(&mut world, "jobs/#"), ["x0", "x1", "x2", "x3"]);
    });
}

/// What a session has at QoS 2 is with it, and its group waits.
#[test]
fn a_group_waits_for_its_job_in_hand_at_qos_2() {
    let configure = configured("jobs/#", |queue| queue.group_level = 2);
    through_each_end_with(configure, |mut world, end| {
        let a = world.connect("a").clean(false).go();
        world.subscribe(a, "$queue/jobs/#", 2);
        let p = world.connect("p").go();
        for n in 0..3 {
            world.publish(p, "$queue/jobs/x", &n.to_string(), 1);
        }
        let job = world.messages(a).remove(0);
        assert_eq!(job.payload, "0");
        end_for(&mut world, end, secs(0));
        let b = member(&mut world, "b", "jobs/#");
        assert_eq!(world.receive(b), []);
        let a = world.back("a");
        assert_eq!(world.messages(a), [again(&job)]);
        world.send(a, &pubrec(job.id));
        world.expect(a, Got::Pubrel(job.id));
        // To whoever's turn it is.
        let mut came = [world.payloads(a), world.payloads(b)].concat();
        assert_eq!(came.pop(), Some("1".into()));
        assert!(came.is_empty());
    });
}

#[test]
fn fair_turns_go_on_after_a_start() {
    let configure = configured("work/#", |queue| {
        queue.group_level = 2;
        queue.fair = true;
    });
    through_each_end_with(configure, |mut world, end| {
        create(&mut world, "work/#");
        let p = world.connect("p").go();
        for (tenant, count) in [("a", 4), ("b", 2)] {
            for n in 0..count {
                let topic = format!("$queue/work/{tenant}");
                world.publish(p, &topic, &format!("{tenant}{n}"), 1);
            }
        }
        end_for(&mut world, end, secs(0));
        let expected = ["a0", "b0", "a1", "b1", "a2", "a3"];
        assert_eq!(drain(&mut world, "work/#"), expected);
    });
}

/// Far more than is in memory: of three priorities, a third of them in groups.
#[test]
fn a_deep_queue_is_read_in_the_order_of_its_jobs() {
    const COUNT: usize = 5000;
    const GROUPS: [&str; 5] = ["g0", "g1", "g2", "g3", "g4"];
    const PRIORITIES: [&str; 3] = ["1", "4", "8"];
    let asks = |n: usize| {
        let mut asks = vec![("priority", PRIORITIES[n / 2 % 3])];
        if n.is_multiple_of(3) {
            asks.push(("group", GROUPS[n / 3 % 5]));
        }
        asks
    };
    for moves in [false, true] {
        let mut world = World::new().stored(&Twin::new());
        world.version = Version::V5;
        let p = world.connect("p").go();
        for n in 0..COUNT {
            if n == COUNT / 2 {
                world.restart();
            }
            let p = match world.is_open(p) {
                true => p,
                false => world.connect("p").go(),
            };
            put(&mut world, p, ("$queue/jobs", &n.to_string()), &asks(n));
        }
        if moves {
            world.move_all();
        }
        world.restart();
        // Of each group the first; then the highest priority, and the oldest.
        let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let mut ready = std::collections::BTreeSet::new();
        let place = |n: usize| (std::cmp::Reverse(asks(n)[0].1), n);
        for n in (0..COUNT).rev() {
            match asks(n).get(1) {
                Some((_, group)) => groups.entry(group).or_default().push(n),
                None => _ = ready.insert(place(n)),
            }
        }
        ready.extend(groups.values_mut().map(|of| place(of.pop().expect("some"))));
        let worker = world.connect("worker").go();
        let mut properties = PropertiesBuf::new();
        properties.push(Property::UserProperty(("prefetch", "1")));
        let packet = Packet::Subscribe(Subscribe {
            packet_id: packet_id(9),
            properties: properties.as_properties(),
            filters: vec![("$queue/jobs", SubscribeOptions::new(qos_of(1)))],
        });
        world.send(worker, &packet);
        world.expect(worker, Got::Suback(9, vec![1]));
        for done in 0..COUNT {
            let (_, expected) = ready.pop_first().expect("as many as were put in");
            let job = world.messages(worker).remove(0);
            assert_eq!(job.payload, expected.to_string(), "after {done}");
            if let Some((_, group)) = asks(expected).get(1) {
                ready.extend(groups.get_mut(group).and_then(Vec::pop).map(place));
            }
            world.acknowledge(worker, &job);
        }
        assert_eq!(world.receive(worker), []);
    }
}

// ---- times

#[test]
fn what_is_put_off_comes_at_its_time_also_if_nobody_is_there_then() {
    through_each_end_in_5(
        |_| (),
        |mut world, end| {
            let p = world.connect("p").go();
            // It is the first second of 1970.
            for (payload, asks) in [
                ("in 100", [("delay", "100")]),
                ("at 301", [("at", "301")]),
                ("in 20", [("delay", "20")]),
                ("now", [("delay", "0")]),
                ("urgent, in 20", [("delay", "20")]),
            ] {
                let urgent = ("priority", "9");
                let all = [asks[0], urgent];
                let asks = match payload.starts_with("urgent") {
                    true => &all[..],
                    false => &asks[..],
                };
                put(&mut world, p, ("$queue/jobs", payload), asks);
            }
            end_for(&mut world, end, secs(10));
            assert_eq!(drain(&mut world, "jobs"), ["now"]);
            // Two are due while it is away.
            end_for(&mut world, end, secs(30));
            world.advance(TICK);
            let a = member(&mut world, "a", "jobs");
            assert_eq!(world.work(a).payload, "urgent, in 20");
            assert_eq!(world.work(a).payload, "in 20");
            world.advance(secs(59));
            assert_eq!(world.receive(a), []);
            world.advance(secs(2));
            let in_hand = world.messages(a).remove(0);
            assert_eq!(in_hand.payload, "in 100");
            // It was due: it is anybody's now.
            end_for(&mut world, end, secs(10));
            assert_eq!(drain(&mut world, "jobs"), ["in 100"]);
            end_for(&mut world, end, secs(0));
            let a = world.back("a");
            assert_eq!(world.receive(a), []);
            world.advance(secs(300));
            assert_eq!(world.work(a).payload, "at 301");
        },
    );
}

/// At QoS 2 it stays with its member like any other.
#[test]
fn what_was_put_off_and_is_in_hand_at_qos_2_stays_there() {
    through_each_end_in_5(
        |_| (),
        |mut world, end| {
            let a = world.connect("a").clean(false).go();
            world.subscribe(a, "$queue/jobs", 2);
            let p = world.connect("p").go();
            put(&mut world, p, ("$queue/jobs", "m"), &[("delay", "10")]);
            world.advance(secs(11));
            let job = world.messages(a).remove(0);
            for _ in 0..2 {
                end_for(&mut world, end, secs(1));
                assert_eq!(drain(&mut world, "jobs"), [""; 0]);
                let a = world.back("a");
                assert_eq!(world.messages(a), [again(&job)]);
            }
            let a = world.back("a");
            world.receive(a);
            world.send(a, &pubrec(job.id));
            world.expect(a, Got::Pubrel(job.id));
            world.send(a, &pubcomp(job.id));
            end_for(&mut world, end, secs(0));
            world.back("a");
            assert_eq!(drain(&mut world, "$dead/jobs"), [""; 0]);
        },
    );
}

#[test]
fn what_waited_too_long_is_gone_after_a_start() {
    for dead_letter_expired in [false, true] {
        let configure = jobs(|queue| {
            queue.ttl = Some(secs(100));
            queue.dead_letter_expired = dead_letter_expired;
        });
        through_each_end_with(configure, |mut world, end| {
            let p = world.connect("p").go();
            world.publish(p, "$queue/jobs", "old", 1);
            world.advance(secs(60));
            world.publish(p, "$queue/jobs", "young", 1);
            end_for(&mut world, end, secs(50));
            world.advance(TICK);
            let dead = u64::from(dead_letter_expired);
            assert_eq!(world.counts().dead_letters, dead);
            assert_eq!(drain(&mut world, "jobs"), ["young"]);
            end_for(&mut world, end, secs(1000));
            let dead = drain(&mut world, "$dead/jobs");
            match dead_letter_expired {
                false => assert_eq!(dead, [""; 0]),
                true => assert_eq!(dead, ["old"]),
            }
        });
    }
}

// ---- failures

#[test]
fn failures_are_counted_on_after_a_start() {
    let configure = jobs(|queue| queue.deliveries_max = 3);
    through_each_end_with(configure, |mut world, end| {
        let p = world.connect("p").go();
        world.publish(p, "$queue/jobs", "m", 1);
        for failures in 1..=3 {
            let a = member(&mut world, "a", "jobs");
            let job = world.messages(a).remove(0);
            world.control(a, "nack", &format!("{} 0", job.id));
            if failures < 3 {
                // What the broker itself breaks off is no failure.
                assert_eq!(world.messages(a).len(), 1);
            }
            end_for(&mut world, end, secs(0));
        }
        assert_eq!(drain(&mut world, "jobs"), [""; 0]);
        assert_eq!(drain(&mut world, "$dead/jobs"), ["m"]);
    });
}

#[test]
fn deliveries_are_counted_on_after_a_start() {
    let configure = jobs(|queue| queue.deliveries_max = 5);
    through_each_end_in_5(configure, |mut world, end| {
        let p = world.connect("p").go();
        world.publish(p, "$queue/jobs", "m", 1);
        for delivery in ["1", "2", "3", "4"] {
            let a = member(&mut world, "a", "jobs");
            let job = world.messages(a).remove(0);
            let told = shown([Property::UserProperty(("delivery", delivery))]);
            assert!(job.properties.contains(&told[0]), "{job:?}");
            world.control(a, "nack", &format!("{} 10", job.id));
            end_for(&mut world, end, secs(10));
            world.advance(TICK);
        }
        let a = member(&mut world, "a", "jobs");
        let job = world.messages(a).remove(0);
        world.refuse(a, &job, ReasonCode::UnspecifiedError, &[]);
        assert_eq!(world.counts().dead_letters, 1);
    });
}

/// The second time it is lost it rests, and goes alone, whatever becomes of
/// the broker meanwhile.
#[test]
fn a_job_that_was_lost_goes_alone_after_a_start() {
    through_each_end(|mut world, end| {
        let p = world.connect("p").go();
        world.publish(p, "$queue/jobs", "0", 1);
        let a = member(&mut world, "a", "jobs");
        assert_eq!(world.payloads(a), ["0"]);
        world.drop(a);
        end_for(&mut world, end, secs(0));
        let a = member(&mut world, "a", "jobs");
        assert_eq!(world.payloads(a), ["0"]);
        // That is no failure; but then it is one again.
        end_for(&mut world, end, secs(0));
        let a = member(&mut world, "a", "jobs");
        assert_eq!(world.payloads(a), ["0"]);
        world.drop(a);
        end_for(&mut world, end, secs(0));
        let a = member(&mut world, "a", "jobs");
        assert_eq!(world.receive(a), []);
        world.advance(secs(2) + TICK);
        let alone = world.messages(a).remove(0);
        assert_eq!(alone.payload, "0");
        end_for(&mut world, end, secs(0));
        let p = world.connect("p").go();
        world.publish(p, "$queue/jobs", "1", 1);
        let a = member(&mut world, "a", "jobs");
        assert_eq!(world.work(a).payload, "0");
        assert_eq!(world.work(a).payload, "1");
    });
}

// ---- what replaces, and what gives way

#[test]
fn last_values_replace_one_another_over_a_start() {
    let configure = configured("state/#", |queue| queue.last_value = LastValue::Topic);
    through_each_end_with(configure, |mut world, end| {
        create(&mut world, "state/#");
        let p = world.connect("p").go();
        let put = |world: &mut World, p, topic: &str, payload: &str| {
            world.publish(p, &format!("$queue/state/{topic}"), payload, 1);
        };
        for (topic, payload) in [("x", "x0"), ("y", "y0"), ("z", "z0"), ("x", "x1")] {
            put(&mut world, p, topic, payload);
        }
        let a = member(&mut world, "a", "state/#");
        assert_eq!(world.payloads(a), ["y0", "z0", "x1"]);
        // While it is in hand the newer one waits; the broker goes, and both do.
        put(&mut world, p, "y", "y1");
        end_for(&mut world, end, secs(0));
        let p = world.connect("p").go();
        put(&mut world, p, "z", "z1");
        end_for(&mut world, end, secs(0));
        assert_eq!(drain(&mut world, "state/#"), ["x1", "y1", "z1"]);
    });
}

#[test]
fn last_values_by_property_replace_one_another_over_a_start() {
    let configure = jobs(|queue| queue.last_value = LastValue::Property("device".into()));
    through_each_end_in_5(configure, |mut world, end| {
        let p = world.connect("p").go();
        let (x, y): (&[_], &[_]) = (&[("device", "x")], &[("device", "y")]);
        put_all(&mut world, p, &[("x0", x), ("y0", y), ("none", &[])]);
        end_for(&mut world, end, secs(0));
        let p = world.connect("p").go();
        put_all(&mut world, p, &[("x1", x), ("none", &[])]);
        end_for(&mut world, end, secs(0));
        let expected = ["y0", "none", "x1", "none"];
        assert_eq!(drain(&mut world, "jobs"), expected);
    });
}

#[test]
fn what_gave_way_stays_away_after_a_start() {
    for overflow in [Overflow::DropOldest, Overflow::DeadLetterOldest] {
        let configure = jobs(|queue| {
            queue.overflow = overflow;
            queue.messages_max = 3;
        });
        through_each_end_with(configure, |mut world, end| {
            let p = world.connect("p").go();
            for n in 0..5 {
                world.publish(p, "$queue/jobs", &n.to_string(), 1);
            }
            end_for(&mut world, end, secs(0));
            let p = world.connect("p").go();
            world.publish(p, "$queue/jobs", "5", 1);
            end_for(&mut world, end, secs(0));
            assert_eq!(drain(&mut world, "jobs"), ["3", "4", "5"]);
            let dead = drain(&mut world, "$dead/jobs");
            match overflow {
                Overflow::DeadLetterOldest => assert_eq!(dead, ["0", "1", "2"]),
                _ => assert_eq!(dead, [""; 0]),
            }
        });
    }
}
