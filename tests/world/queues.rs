//! What jobs may ask for, and what queues may be set to: which job comes first,
//! which belong together, when they come, and when they go.

use super::*;
use rotamq::config::{Dispatch, LastValue, Overflow};

pub(super) fn configured(
    name: &'static str,
    change: impl Fn(&mut QueueSettings),
) -> impl Fn(&mut Config) {
    move |config: &mut Config| {
        let mut settings = queue(name);
        change(&mut settings);
        config.queue.push(settings);
    }
}

pub(super) fn jobs(change: impl Fn(&mut QueueSettings)) -> impl Fn(&mut Config) {
    configured("jobs", change)
}

fn nothing(_: &mut Config) {}

/// Puts in a job that asks for this, and is taken.
pub(super) fn put(world: &mut World, client: C, to: (&str, &str), asks: &[(&str, &str)]) {
    let asks: Vec<Property<'_>> = asks.iter().copied().map(Property::UserProperty).collect();
    let id = world.send_with(client, to, 1, false, &asks);
    world.expect(client, Got::Puback(id));
}

/// Into `jobs`, in this order.
pub(super) fn put_all(world: &mut World, client: C, all: &[(&str, &[(&str, &str)])]) {
    for (payload, asks) in all {
        put(world, client, ("$queue/jobs", payload), asks);
    }
}

pub(super) fn member(world: &mut World, id: &str, queue: &str) -> C {
    let member = world.connect(id).clean(false).go();
    world.subscribe(member, &format!("$queue/{queue}"), 1);
    member
}

/// Makes a queue whose name has wildcards: who comes first to a topic makes
/// one of that name.
pub(super) fn create(world: &mut World, name: &str) {
    let maker = world.connect("maker").go();
    world.subscribe(maker, &format!("$queue/{name}"), 1);
    world.disconnect(maker);
}

/// Takes all that is in a queue, one after the other, for as long as some
/// comes.
pub(super) fn drain(world: &mut World, name: &str) -> Vec<String> {
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

// ---- which comes first

#[test]
fn the_highest_priority_comes_first() {
    in_mqtt_5(nothing, |mut world| {
        let p = world.connect("p").go();
        for (payload, priority) in [
            ("low", "0"),
            ("first of 5", "5"),
            ("high", "9"),
            ("second of 5", "5"),
        ] {
            put(
                &mut world,
                p,
                ("$queue/jobs", payload),
                &[("priority", priority)],
            );
        }
        put(&mut world, p, ("$queue/jobs", "says none: 4"), &[]);
        let expected = ["high", "first of 5", "second of 5", "says none: 4", "low"];
        assert_eq!(drain(&mut world, "jobs"), expected);
    });
}

/// Of one message each queue makes what it is set to.
#[test]
fn a_queue_has_a_priority_for_jobs_that_say_none() {
    let configure = |config: &mut Config| {
        for (name, priority) in [("low", 1), ("high", 8)] {
            configured(name, |queue| {
                queue.filters = vec!["both".into()];
                queue.priority = priority;
            })(config);
        }
    };
    in_mqtt_5(configure, |mut world| {
        let p = world.connect("p").go();
        put(&mut world, p, ("both", "says none"), &[]);
        put(&mut world, p, ("both", "says 5"), &[("priority", "5")]);
        assert_eq!(drain(&mut world, "low"), ["says 5", "says none"]);
        assert_eq!(drain(&mut world, "high"), ["says none", "says 5"]);
    });
}

#[test]
fn a_job_that_came_back_stands_before_younger_ones_of_its_priority() {
    in_mqtt_5(jobs(|queue| queue.prefetch = 1), |mut world| {
        let a = member(&mut world, "a", "jobs");
        let p = world.connect("p").go();
        let five: &[(&str, &str)] = &[("priority", "5")];
        put_all(&mut world, p, &[("0", five), ("1", five)]);
        assert_eq!(world.payloads(a), ["0"]);
        put_all(&mut world, p, &[("urgent", &[("priority", "6")])]);
        world.disconnect(a);
        assert_eq!(drain(&mut world, "jobs"), ["urgent", "0", "1"]);
    });
}

#[test]
fn the_member_with_the_fewest_jobs_is_the_next() {
    let configure = jobs(|queue| queue.dispatch = Dispatch::LeastInflight);
    in_each_version_with(configure, |mut world| {
        let [a, b] = ["a", "b"].map(|id| member(&mut world, id, "jobs"));
        let p = world.connect("p").go();
        for n in 0..4 {
            world.publish(p, "$queue/jobs", &n.to_string(), 1);
        }
        let of_a = world.messages(a);
        assert_eq!((of_a.len(), world.messages(b).len()), (2, 2));
        of_a.iter().for_each(|job| world.acknowledge(a, job));
        for n in 4..7 {
            world.publish(p, "$queue/jobs", &n.to_string(), 1);
        }
        let (of_a, of_b) = (world.messages(a).len(), world.messages(b).len());
        assert!(of_a >= 2 && of_a + of_b == 3, "{of_a} and {of_b}");
    });
}

// ---- what belongs together

#[test]
fn jobs_of_a_group_come_in_order_and_one_at_a_time() {
    in_mqtt_5(nothing, |mut world| {
        let [a, b] = ["a", "b"].map(|id| member(&mut world, id, "jobs"));
        let p = world.connect("p").go();
        let (x, y): (&[_], &[_]) = (&[("group", "x")], &[("group", "y")]);
        put_all(
            &mut world,
            p,
            &[("x0", x), ("x1", x), ("y0", y), ("x2", x), ("none", &[])],
        );
        let (of_a, of_b) = (world.messages(a), world.messages(b));
        let payloads = |all: &[Message]| -> Vec<String> {
            all.iter().map(|message| message.payload.clone()).collect()
        };
        assert_eq!(payloads(&of_a), ["x0", "none"]);
        assert_eq!(payloads(&of_b), ["y0"]);
        // To who had the group last, though it is the other's turn.
        world.acknowledge(a, &of_a[0]);
        assert_eq!(world.receive(b), []);
        let next = world.messages(a).remove(0);
        assert_eq!(next.payload, "x1");
        // A group that is through begins anew.
        world.acknowledge(b, &of_b[0]);
        put_all(&mut world, p, &[("y1", y)]);
        assert_eq!(world.work(b).payload, "y1");
        world.acknowledge(a, &next);
        assert_eq!(world.work(a).payload, "x2");
        assert_eq!((world.receive(a), world.receive(b)), (vec![], vec![]));
    });
}

/// Whatever becomes of a job of a group, the next one does not come before it.
#[test]
fn a_group_stays_in_order_through_refusal_and_loss() {
    type Story = fn(&mut World, C, &Message) -> Duration;
    let ways: [(&str, Story); 6] = [
        ("refused", |world, a, job| {
            world.control(a, "nack", &job.id.to_string());
            secs(1)
        }),
        ("refused, with a delay", |world, a, job| {
            world.control(a, "nack", &format!("{} 30", job.id));
            secs(30)
        }),
        ("refused, to come at once", |world, a, job| {
            world.control(a, "nack", &format!("{} 0", job.id));
            secs(0)
        }),
        ("late", |world, _, _| {
            world.advance(secs(60) + TICK);
            secs(1)
        }),
        ("lost", |world, a, _| {
            world.drop(a);
            secs(0)
        }),
        ("left", |world, a, _| {
            world.disconnect(a);
            secs(0)
        }),
    ];
    let configure = configured("jobs/#", |queue| queue.group_level = 2);
    for (way, end) in ways {
        in_each_version_with(&configure, |mut world| {
            let a = member(&mut world, "a", "jobs/#");
            let p = world.connect("p").go();
            for n in 0..3 {
                world.publish(p, "$queue/jobs/x", &format!("x{n}"), 1);
            }
            let first = world.messages(a).remove(0);
            assert_eq!(first.payload, "x0");
            let after = end(&mut world, a, &first);
            let b = member(&mut world, "b", "jobs/#");
            world.publish(p, "$queue/jobs/y", "y0", 1);
            // Others are not kept waiting.
            if !world.is_open(a) || !after.is_zero() {
                let came = [world.payloads(a), world.payloads(b)].concat();
                assert!(came.contains(&"y0".into()), "{way}: {came:?}");
                assert!(!came.contains(&"x1".into()), "{way}: {came:?}");
                if !after.is_zero() {
                    assert_eq!(came, ["y0"], "{way}");
                    world.advance(after + TICK);
                }
            }
            for client in [a, b] {
                if world.is_open(client) {
                    world.receive(client);
                    world.disconnect(client);
                }
            }
            let mut came = drain(&mut world, "jobs/#");
            came.retain(|payload| payload != "y0");
            assert_eq!(came, ["x0", "x1", "x2"], "{way}");
        });
    }
}

/// A job that is dead, or that its member can never do, is out of the way.
#[test]
fn a_group_goes_on_when_one_of_its_jobs_is_given_up() {
    let configure = configured("jobs/#", |queue| {
        queue.group_level = 2;
        queue.deliveries_max = 2;
        queue.backoff_min = Duration::ZERO;
    });
    in_each_version_with(configure, |mut world| {
        let a = member(&mut world, "a", "jobs/#");
        let p = world.connect("p").go();
        for n in 0..3 {
            world.publish(p, "$queue/jobs/x", &n.to_string(), 1);
        }
        for _ in 0..2 {
            let job = world.messages(a).remove(0);
            assert_eq!(job.payload, "0");
            world.control(a, "nack", &job.id.to_string());
        }
        let job = world.messages(a).remove(0);
        assert_eq!(job.payload, "1");
        world.control(a, "reject", &job.id.to_string());
        assert_eq!(world.work(a).payload, "2");
        assert_eq!(drain(&mut world, "$dead/jobs/#"), ["0", "1"]);
    });
}

#[test]
fn a_level_of_the_topic_is_the_group() {
    let configure = configured("orders/#", |queue| queue.group_level = 2);
    in_each_version_with(configure, |mut world| {
        let a = member(&mut world, "a", "orders/#");
        let p = world.connect("p").go();
        // By either way of putting in; what has no such level is in none.
        for topic in [
            "$queue/orders/eu/1",
            "orders/eu/2",
            "$queue/orders/us/3",
            "orders/us/4",
            "$queue/orders",
            "orders",
        ] {
            world.publish(p, topic, topic, 1);
        }
        let mut got = world.messages(a);
        let payloads: Vec<_> = got.iter().map(|job| &*job.payload).collect();
        let expected = [
            "$queue/orders/eu/1",
            "$queue/orders/us/3",
            "$queue/orders",
            "orders",
        ];
        assert_eq!(payloads, expected);
        world.acknowledge(a, &got.remove(1));
        assert_eq!(world.work(a).payload, "orders/us/4");
        world.acknowledge(a, &got.remove(0));
        assert_eq!(world.work(a).payload, "orders/eu/2");
    });
}

#[test]
fn a_property_says_another_group_than_the_topic() {
    let configure = configured("orders/#", |queue| queue.group_level = 2);
    in_mqtt_5(configure, |mut world| {
        let a = member(&mut world, "a", "orders/#");
        let p = world.connect("p").go();
        put(&mut world, p, ("orders/eu/1", "1"), &[]);
        put(&mut world, p, ("orders/eu/1", "2"), &[("group", "own")]);
        put(&mut world, p, ("orders/us/1", "3"), &[("group", "eu")]);
        assert_eq!(world.payloads(a), ["1", "2"]);
    });
}

/// Who has put in a thousand keeps nobody waiting who has put in two.
#[test]
fn fair_groups_take_turns() {
    let configure = configured("work/#", |queue| {
        queue.group_level = 2;
        queue.fair = true;
        queue.prefetch = 4;
    });
    in_each_version_with(configure, |mut world| {
        create(&mut world, "work/#");
        let p = world.connect("p").go();
        for (tenant, count) in [("a", 4), ("b", 2), ("c", 3)] {
            for n in 0..count {
                let topic = format!("$queue/work/{tenant}");
                world.publish(p, &topic, &format!("{tenant}{n}"), 1);
            }
        }
        // And several of one may be in hand at a time.
        let a = member(&mut world, "a", "work/#");
        assert_eq!(world.payloads(a), ["a0", "b0", "c0", "a1"]);
        let b = member(&mut world, "b", "work/#");
        assert_eq!(world.payloads(b), ["b1", "c1", "a2", "c2"]);
        assert_eq!(drain(&mut world, "work/#"), ["a3"]);
    });
}

#[test]
fn fair_groups_take_turns_within_a_priority() {
    let configure = jobs(|queue| queue.fair = true);
    in_mqtt_5(configure, |mut world| {
        let p = world.connect("p").go();
        let ask = |group, priority| [("group", group), ("priority", priority)];
        for (payload, asks) in [
            ("a0", ask("a", "5")),
            ("a1", ask("a", "5")),
            ("b low", ask("b", "1")),
            ("b0", ask("b", "5")),
            ("a low", ask("a", "1")),
        ] {
            put(&mut world, p, ("$queue/jobs", payload), &asks);
        }
        put_all(&mut world, p, &[("none", &[("priority", "5")])]);
        let expected = ["a0", "b0", "none", "a1", "b low", "a low"];
        assert_eq!(drain(&mut world, "jobs"), expected);
    });
}

// ---- when they come

#[test]
fn a_job_comes_at_its_time() {
    in_mqtt_5(nothing, |mut world| {
        let a = member(&mut world, "a", "jobs");
        let p = world.connect("p").go();
        // It is the first second of 1970.
        for (payload, asks) in [
            ("in 10", &[("delay", "10")][..]),
            ("at 21", &[("at", "21")]),
            ("at 31", &[("at", "1970-01-01T00:00:31Z")]),
            // The later one counts.
            ("in 40", &[("delay", "40"), ("at", "3")]),
            ("at 51", &[("delay", "5"), ("at", "51")]),
            ("now", &[("at", "0"), ("delay", "0")]),
        ] {
            put(&mut world, p, ("$queue/jobs", payload), asks);
        }
        assert_eq!(world.work(a).payload, "now");
        for expected in ["in 10", "at 21", "at 31", "in 40", "at 51"] {
            world.advance(secs(10) - TICK);
            assert_eq!(world.receive(a), []);
            world.advance(TICK);
            world.advance(TICK);
            assert_eq!(world.work(a).payload, expected);
            world.now = Time::ZERO + Duration::from_secs((world.now.as_micros()) / 1_000_000);
        }
        assert_eq!(world.receive(a), []);
    });
}

/// When it is due it stands where it was put in.
#[test]
fn a_delayed_job_has_its_place_when_it_is_due() {
    in_mqtt_5(nothing, |mut world| {
        let p = world.connect("p").go();
        put_all(
            &mut world,
            p,
            &[
                ("0", &[]),
                ("delayed", &[("delay", "10")]),
                ("1", &[]),
                ("urgent", &[("delay", "10"), ("priority", "9")]),
            ],
        );
        world.advance(secs(5));
        assert_eq!(drain(&mut world, "jobs"), ["0", "1"]);
        put_all(&mut world, p, &[("2", &[]), ("3", &[])]);
        world.advance(secs(6));
        assert_eq!(drain(&mut world, "jobs"), ["urgent", "delayed", "2", "3"]);
    });
}

/// Its group does not wait for it.
#[test]
fn a_delayed_job_is_in_its_group_when_it_is_due() {
    in_mqtt_5(nothing, |mut world| {
        let p = world.connect("p").go();
        let group = ("group", "g");
        put_all(
            &mut world,
            p,
            &[
                ("delayed", &[group, ("delay", "10")]),
                ("0", &[group]),
                ("1", &[group]),
            ],
        );
        let a = member(&mut world, "a", "jobs");
        let first = world.messages(a).remove(0);
        assert_eq!(first.payload, "0");
        world.advance(secs(11));
        assert_eq!(world.receive(a), [], "one is in hand");
        world.acknowledge(a, &first);
        assert_eq!(world.work(a).payload, "delayed");
        assert_eq!(world.work(a).payload, "1");
    });
}

// ---- when they go

#[test]
fn jobs_wait_no_longer_than_the_queue_lets_them() {
    for dead_letter_expired in [false, true] {
        let configure = jobs(|queue| {
            queue.ttl = Some(secs(10));
            queue.dead_letter_expired = dead_letter_expired;
            queue.prefetch = 1;
        });
        in_each_version_with(configure, |mut world| {
            let a = member(&mut world, "a", "jobs");
            let p = world.connect("p").go();
            for n in 0..3 {
                world.publish(p, "$queue/jobs", &n.to_string(), 1);
            }
            let in_hand = world.messages(a).remove(0);
            world.advance(secs(9));
            world.publish(p, "$queue/jobs", "young", 1);
            world.advance(secs(2));
            let (expired, dead) = match dead_letter_expired {
                false => (2, 0),
                true => (0, 2),
            };
            let counts = world.counts();
            assert_eq!(
                (counts.dropped_expired, counts.dead_letters),
                (expired, dead)
            );
            // What is in hand has time, until it comes back.
            world.acknowledge(a, &in_hand);
            let young = world.messages(a).remove(0);
            assert_eq!(young.payload, "young");
            world.advance(secs(20));
            world.disconnect(a);
            assert_eq!(drain(&mut world, "jobs"), [""; 0]);
            let dead = drain(&mut world, "$dead/jobs");
            match dead_letter_expired {
                false => assert_eq!(dead, [""; 0]),
                true => assert_eq!(dead, ["1", "2", "young"]),
            }
        });
    }
}

/// The sooner of the two counts, also for what is not due yet; dead letters
/// expire no more.
#[test]
fn what_expires_may_be_a_dead_letter() {
    let configure = jobs(|queue| {
        queue.ttl = Some(secs(100));
        queue.dead_letter_expired = true;
    });
    in_mqtt_5(configure, |mut world| {
        let p = world.connect("p").go();
        let expiry = Property::MessageExpiryInterval;
        let delay = user("delay", "50");
        world.send_with(p, ("$queue/jobs", "5"), 1, false, &[expiry(5)]);
        world.send_with(p, ("$queue/jobs", "200"), 1, false, &[expiry(200)]);
        world.send_with(
            p,
            ("$queue/jobs", "delayed"),
            1,
            false,
            &[expiry(20), delay],
        );
        for (after, dead) in [(4, 0), (2, 1), (15, 2), (78, 2), (2, 3)] {
            world.advance(secs(after));
            assert_eq!(world.counts().dead_letters, dead);
        }
        assert_eq!(drain(&mut world, "jobs"), [""; 0]);
        world.advance(secs(1000));
        assert_eq!(drain(&mut world, "$dead/jobs"), ["5", "delayed", "200"]);
    });
}

fn user(name: &'static str, value: &'static str) -> Property<'static> {
    Property::UserProperty((name, value))
}

// ---- when there is no room

#[test]
fn a_full_queue_may_refuse() {
    in_mqtt_5(jobs(|queue| queue.messages_max = 2), |mut world| {
        let p = world.connect("p").go();
        for n in 0..2 {
            world.publish(p, "$queue/jobs", &n.to_string(), 1);
        }
        for qos in 1..=2 {
            let id = world.send_publish(p, "$queue/jobs", "refused", qos, false);
            let refused = Got::Refused(id, ReasonCode::QuotaExceeded);
            assert_eq!(world.receive(p), [refused]);
        }
        assert_eq!(drain(&mut world, "jobs"), ["0", "1"]);
    });
}

/// The publisher is told that its message was taken, as it was.
#[test]
fn in_a_full_queue_the_oldest_may_give_way() {
    for overflow in [Overflow::DropOldest, Overflow::DeadLetterOldest] {
        let configure = jobs(|queue| {
            queue.overflow = overflow;
            queue.messages_max = 3;
            queue.prefetch = 1;
        });
        in_each_version_with(configure, |mut world| {
            let a = member(&mut world, "a", "jobs");
            let p = world.connect("p").go();
            for n in 0..6 {
                world.publish(p, "$queue/jobs", &n.to_string(), n % 3);
            }
            // One is in hand, and stays.
            let in_hand = world.messages(a).remove(0);
            assert_eq!(in_hand.payload, "0");
            world.acknowledge(a, &in_hand);
            assert_eq!(world.work(a).payload, "4");
            assert_eq!(world.work(a).payload, "5");
            let dead = drain(&mut world, "$dead/jobs");
            match overflow {
                Overflow::DeadLetterOldest => assert_eq!(dead, ["1", "2", "3"]),
                _ => assert_eq!(dead, [""; 0]),
            }
        });
    }
}

#[test]
fn the_lowest_priority_gives_way_first() {
    let configure = jobs(|queue| {
        queue.overflow = Overflow::DropOldest;
        queue.messages_max = 3;
    });
    in_mqtt_5(configure, |mut world| {
        let p = world.connect("p").go();
        put_all(
            &mut world,
            p,
            &[
                ("high", &[("priority", "9")]),
                ("low", &[("priority", "1")]),
                ("young low", &[("priority", "1")]),
                ("0", &[]),
                ("1", &[]),
                ("2", &[]),
                // Whatever it is itself.
                ("lowest", &[("priority", "0")]),
            ],
        );
        assert_eq!(drain(&mut world, "jobs"), ["high", "2", "lowest"]);
    });
}

/// What members have in hand gives way to nothing.
#[test]
fn where_nothing_waits_nothing_can_give_way() {
    let configure = jobs(|queue| {
        queue.overflow = Overflow::DropOldest;
        queue.messages_max = 2;
    });
    in_each_version_with(configure, |mut world| {
        let a = member(&mut world, "a", "jobs");
        let p = world.connect("p").go();
        for n in 0..2 {
            world.publish(p, "$queue/jobs", &n.to_string(), 1);
        }
        let in_hand = world.messages(a);
        let id = world.send_publish(p, "$queue/jobs", "2", 1, false);
        match world.version {
            Version::V5 => {
                let refused = Got::Refused(id, ReasonCode::QuotaExceeded);
                assert_eq!(world.receive(p), [refused]);
            }
            _ => {
                assert_eq!(world.receive(p), []);
                world.acknowledge(a, &in_hand[0]);
                assert_eq!(world.receive(p), [Got::Puback(id)]);
                assert_eq!(world.payloads(a), ["2"]);
            }
        }
    });
}

/// What is larger than the whole queue drops nothing.
#[test]
fn what_never_fits_makes_no_room() {
    let configure = jobs(|queue| {
        queue.overflow = Overflow::DropOldest;
        queue.bytes_max = 4096;
    });
    in_mqtt_5(configure, |mut world| {
        let p = world.connect("p").go();
        world.publish(p, "$queue/jobs", "0", 1);
        let large = "x".repeat(5000);
        let id = world.send_publish(p, "$queue/jobs", &large, 1, false);
        assert_eq!(
            world.receive(p),
            [Got::Refused(id, ReasonCode::QuotaExceeded)]
        );
        let half = "x".repeat(2500);
        world.publish(p, "$queue/jobs", &half, 1);
        world.publish(p, "$queue/jobs", &half, 1);
        assert_eq!(drain(&mut world, "jobs"), [half]);
    });
}

// ---- what replaces what

#[test]
fn the_last_value_of_a_topic_replaces_the_one_that_waits() {
    let configure = configured("state/#", |queue| {
        queue.last_value = LastValue::Topic;
        queue.prefetch = 1;
        queue.backoff_min = Duration::ZERO;
    });
    in_each_version_with(configure, |mut world| {
        create(&mut world, "state/#");
        let p = world.connect("p").go();
        for (topic, payload) in [
            ("x", "x0"),
            ("y", "y0"),
            ("x", "x1"),
            ("y", "y1"),
            ("x", "x2"),
        ] {
            world.publish(p, &format!("$queue/state/{topic}"), payload, 1);
        }
        let a = member(&mut world, "a", "state/#");
        // It stands where the new one was put in.
        let y = world.messages(a).remove(0);
        assert_eq!(y.payload, "y1");
        // What is in hand is left alone.
        world.publish(p, "state/y", "y2", 1);
        world.acknowledge(a, &y);
        let x = world.messages(a).remove(0);
        assert_eq!(x.payload, "x2");
        // And comes back only if there is no newer one.
        world.control(a, "nack", &x.id.to_string());
        let x = world.messages(a).remove(0);
        assert_eq!(x.payload, "x2");
        world.publish(p, "state/x", "x3", 1);
        world.control(a, "nack", &x.id.to_string());
        assert_eq!(world.work(a).payload, "y2");
        assert_eq!(world.work(a).payload, "x3");
        assert_eq!(world.receive(a), []);
    });
}

#[test]
fn a_property_may_be_what_a_job_replaces_another_by() {
    let configure = jobs(|queue| queue.last_value = LastValue::Property("device".into()));
    in_mqtt_5(configure, |mut world| {
        let p = world.connect("p").go();
        let (x, y): (&[_], &[_]) = (&[("device", "x")], &[("device", "y")]);
        put_all(
            &mut world,
            p,
            &[
                ("x0", x),
                ("none 0", &[]),
                ("y0", y),
                ("x1", x),
                ("none 1", &[("Device", "x")]),
                // Also one that is not due, and one that is not due yet.
                ("y1", &[("device", "y"), ("delay", "10")]),
            ],
        );
        assert_eq!(drain(&mut world, "jobs"), ["none 0", "x1", "none 1"]);
        put_all(&mut world, p, &[("y2", y)]);
        assert_eq!(drain(&mut world, "jobs"), ["y2"]);
        world.advance(secs(20));
        assert_eq!(drain(&mut world, "jobs"), [""; 0]);
    });
}
/// None of two queues loses anything for a message that the other refuses.
#[test]
fn what_another_queue_refuses_makes_no_room() {
    let configure = |config: &mut Config| {
        for (name, overflow) in [("a", Overflow::DropOldest), ("b", Overflow::Reject)] {
            configured(name, |queue| {
                queue.filters = vec!["both".into()];
                queue.messages_max = 1;
                queue.overflow = overflow;
            })(config);
        }
    };
    in_mqtt_5(configure, |mut world| {
        let p = world.connect("p").go();
        world.publish(p, "both", "0", 1);
        let id = world.send_publish(p, "both", "1", 1, false);
        assert_eq!(
            world.receive(p),
            [Got::Refused(id, ReasonCode::QuotaExceeded)]
        );
        assert_eq!(drain(&mut world, "a"), ["0"]);
        assert_eq!(drain(&mut world, "b"), ["0"]);
    });
}
