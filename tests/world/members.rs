//! Work queues from the side of those who take jobs: turns, settling, and what
//! becomes of jobs that nobody settles.

use super::*;
use rotamq::config::{MemberSettings, Undecided};

fn configured(name: &'static str, change: impl Fn(&mut QueueSettings)) -> impl Fn(&mut Config) {
    move |config: &mut Config| {
        let mut settings = queue(name);
        change(&mut settings);
        config.queue.push(settings);
    }
}

fn members<const N: usize>(world: &mut World, ids: [&str; N], qos: u8) -> [C; N] {
    ids.map(|id| {
        let member = world.connect(id).clean(false).go();
        world.subscribe(member, "$queue/jobs", qos);
        member
    })
}

/// A publisher, and as many jobs, numbered from 0.
fn put(world: &mut World, count: usize) -> C {
    let p = world.connect("p").go();
    for n in 0..count {
        world.publish(p, "$queue/jobs", &n.to_string(), 1);
    }
    p
}

#[test]
fn members_take_turns() {
    in_each_version(|mut world| {
        for qos in 0..=2 {
            let three = members(&mut world, ["a", "b", "c"], qos);
            put(&mut world, 9);
            for (first, member) in three.into_iter().enumerate() {
                let jobs = world.messages(member);
                let payloads: Vec<&str> = jobs.iter().map(|m| &*m.payload).collect();
                let expected: Vec<String> = (first..9).step_by(3).map(|n| n.to_string()).collect();
                assert_eq!(payloads, expected);
                for job in &jobs {
                    assert_eq!(
                        (&*job.topic, job.qos, job.retain),
                        ("$queue/jobs", qos, false)
                    );
                    world.acknowledge(member, job);
                }
            }
            for member in three {
                world.unsubscribe(member, "$queue/jobs");
                world.disconnect(member);
            }
        }
    });
}

#[test]
fn clean_members_are_granted_qos_1_at_most() {
    let mut world = World::new();
    let a = world.connect("a").go();
    assert_eq!(world.try_subscribe(a, &[("$queue/jobs", 2)]), [1]);
    let mut world = World::with(configured("jobs", |queue| queue.qos0_members = false));
    let a = world.connect("a").go();
    assert_eq!(world.try_subscribe(a, &[("$queue/jobs", 0)]), [0x80]);
    world.subscribe(a, "$queue/jobs", 1);
}

#[test]
fn a_member_holds_no_more_than_its_prefetch() {
    let configure = configured("jobs", |queue| {
        queue.prefetch = 3;
        queue.members.push(MemberSettings {
            client: "big*".into(),
            prefetch: Some(5),
            ack_timeout: None,
        });
    });
    in_each_version_with(configure, |mut world| {
        put(&mut world, 20);
        for (id, prefetch) in [("small", 3), ("big-1", 5)] {
            for qos in 1..=2 {
                let [member] = members(&mut world, [id], qos);
                let jobs = world.messages(member);
                assert_eq!(jobs.len(), prefetch);
                world.acknowledge(member, &jobs[0]);
                assert_eq!(world.messages(member).len(), 1);
                world.connect(id).go();
            }
        }
    });
}

#[test]
fn a_member_of_qos_0_gets_as_much_as_it_reads() {
    in_each_version(|mut world| {
        let p = put(&mut world, 0);
        let [a] = members(&mut world, ["a"], 0);
        world.clog(a, true);
        for n in 0..100 {
            world.publish(p, "$queue/jobs", &n.to_string(), 1);
        }
        let [b] = members(&mut world, ["b"], 0);
        let taken = world.payloads(b).len();
        assert!(taken >= 100 - 2 * 16, "{taken} went past who does not read");
        // What it never got goes to the next.
        world.drop(a);
        let rest = world.payloads(b).len();
        assert!(rest > 0 && rest + taken >= 100 - 16);
    });
}

#[test]
fn a_lost_members_jobs_go_to_the_next_in_their_order() {
    in_each_version(|mut world| {
        let [a] = members(&mut world, ["a"], 1);
        put(&mut world, 4);
        let jobs = world.messages(a);
        let [b] = members(&mut world, ["b"], 1);
        world.acknowledge(a, &jobs[2]);
        world.drop(a);
        assert_eq!(world.payloads(b), ["0", "1", "3"]);
        // They are nothing to the one that comes back.
        let a = world.connect("a").clean(false).go();
        assert_eq!(world.receive(a), []);
        world.send(a, &puback(jobs[0].id));
        // From one that leaves they come at once again.
        world.disconnect(b);
        assert_eq!(world.payloads(a), ["0", "1", "3"]);
    });
}

/// Any of those that a lost member had may be what ended it: after the second
/// time they rest, and go alone.
#[test]
fn what_was_lost_twice_comes_alone_and_later() {
    in_each_version(|mut world| {
        put(&mut world, 3);
        for member in ["a", "b"] {
            let [member] = members(&mut world, [member], 1);
            assert_eq!(world.payloads(member), ["0", "1", "2"]);
            world.drop(member);
        }
        let [c] = members(&mut world, ["c"], 1);
        // Its second failure: between half and all of two seconds.
        world.advance(secs(1) - TICK);
        assert_eq!(world.receive(c), []);
        world.advance(secs(1) + TICK * 2);
        let first = world.messages(c);
        assert_eq!(first.len(), 1);
        // Nothing goes to who has one of them, but to others.
        let p = world.connect("p").go();
        world.publish(p, "$queue/jobs", "new", 1);
        assert_eq!(world.receive(c), []);
        let [d] = members(&mut world, ["d"], 1);
        let second = world.messages(d);
        assert_eq!(second.len(), 1);
        let mut came: Vec<String> = [&first[0], &second[0]]
            .map(|job| job.payload.clone())
            .into();
        world.acknowledge(c, &first[0]);
        let third = world.messages(c);
        assert_eq!(third.len(), 1);
        came.push(third[0].payload.clone());
        came.sort();
        assert_eq!(came, ["0", "1", "2"]);
        world.acknowledge(d, &second[0]);
        assert_eq!(world.payloads(d), ["new"]);
    });
}

/// Of three in a row its member knows nothing any more: others are asked for a
/// while.
#[test]
fn a_member_that_lets_three_jobs_time_out_rests() {
    for count in 2..=4 {
        in_each_version(|mut world| {
            let [a] = members(&mut world, ["a"], 1);
            let p = put(&mut world, count);
            assert_eq!(world.payloads(a).len(), count);
            world.advance(secs(60) + TICK);
            world.publish(p, "$queue/jobs", "new", 1);
            match count {
                2 => assert_eq!(world.payloads(a), ["new"]),
                _ => assert_eq!(world.receive(a), []),
            }
            // Nobody else is there.
            world.advance(secs(1) - TICK * 3);
            let came = world.payloads(a);
            assert!(count == 2 || came.is_empty(), "{came:?}");
            world.advance(TICK * 4);
            let came = world.payloads(a).len();
            assert!(count == 2 || came == count + 1);
        });
    }
}

/// While a job of that kind is the first, a busy member gets nothing more
/// until its hands are empty.
#[test]
fn who_is_to_have_a_job_alone_is_through_with_the_others_first() {
    in_each_version(|mut world| {
        put(&mut world, 1);
        for member in ["a", "b"] {
            let [member] = members(&mut world, [member], 1);
            assert_eq!(world.payloads(member), ["0"]);
            world.drop(member);
        }
        let [c, d] = members(&mut world, ["c", "d"], 1);
        let p = world.connect("p").go();
        for n in 1..=4 {
            world.publish(p, "$queue/jobs", &n.to_string(), 1);
        }
        let (of_c, of_d) = (world.messages(c), world.messages(d));
        assert_eq!((of_c.len(), of_d.len()), (2, 2));
        world.advance(secs(2) + TICK);
        assert_eq!((world.receive(c), world.receive(d)), (vec![], vec![]));
        world.publish(p, "$queue/jobs", "5", 1);
        let (c_has, d_has) = (world.payloads(c), world.payloads(d));
        let (drained, its, other) = match c_has.is_empty() {
            true => (c, of_c, d_has),
            false => (d, of_d, c_has),
        };
        assert_eq!(other, ["5"], "the others go on");
        world.acknowledge(drained, &its[0]);
        assert_eq!(world.receive(drained), []);
        world.acknowledge(drained, &its[1]);
        assert_eq!(world.payloads(drained), ["0"]);
    });
}

/// What comes first meanwhile it gets first: nothing stands still for the one
/// that goes alone.
#[test]
fn a_job_that_comes_before_one_that_goes_alone_is_not_kept_waiting() {
    in_mqtt_5(
        |_| (),
        |mut world| {
            let p = put(&mut world, 1);
            for member in ["a", "b"] {
                let [member] = members(&mut world, [member], 1);
                assert_eq!(world.payloads(member), ["0"]);
                world.drop(member);
            }
            let [c] = members(&mut world, ["c"], 1);
            world.publish(p, "$queue/jobs", "1", 1);
            let in_hand = world.messages(c).remove(0);
            world.advance(secs(2) + TICK);
            assert_eq!(world.receive(c), []);
            let urgent = [Property::UserProperty(("priority", "9"))];
            world.send_with(p, ("$queue/jobs", "urgent"), 1, false, &urgent);
            assert_eq!(world.receive(c), []);
            world.acknowledge(c, &in_hand);
            assert_eq!(world.work(c).payload, "urgent");
            assert_eq!(world.work(c).payload, "0");
        },
    );
}

/// Losing its connections is no failure of a job if the broker did it, or if
/// the member said that it goes.
#[test]
fn whoever_goes_in_order_or_is_taken_over_fails_nothing() {
    let configure = configured("jobs", |queue| queue.deliveries_max = 1);
    in_each_version_with(configure, |mut world| {
        put(&mut world, 1);
        for _ in 0..3 {
            let [a] = members(&mut world, ["a"], 1);
            assert_eq!(world.payloads(a), ["0"]);
            let [a] = members(&mut world, ["a"], 1);
            assert_eq!(world.payloads(a), ["0"]);
            world.disconnect(a);
        }
        let [a] = members(&mut world, ["a"], 1);
        assert_eq!(world.payloads(a), ["0"]);
        world.drop(a);
        assert_eq!(world.counts().dead_letters, 1);
    });
}

/// It leaves with jobs in hand; they are its own until the connection ends.
#[test]
fn a_member_that_unsubscribes_keeps_what_it_has_until_it_goes() {
    in_each_version(|mut world| {
        for clean in [true, false] {
            for qos in 0..=1 {
                let a = world.connect("a").clean(clean).go();
                world.subscribe(a, "$queue/jobs", qos);
                world.clog(a, qos == 0);
                let p = put(&mut world, 3);
                let first = world.messages(a).into_iter().next();
                let id = world.next_id(a);
                world.send(a, &unsubscribe(id, &["$queue/jobs"]));
                world.publish(p, "$queue/jobs", "3", 1);
                let b = world.connect("b").go();
                world.subscribe(b, "$queue/jobs", 1);
                let mut expected = vec!["1", "2"];
                match first {
                    Some(first) => world.acknowledge(a, &first),
                    // Whether QoS 0 was written, the clogged one cannot say.
                    None => expected = vec![],
                }
                assert_eq!(world.work(b).payload, "3");
                world.drop(a);
                let came = world.messages(b);
                let payloads: Vec<&str> = came.iter().map(|m| &*m.payload).collect();
                match qos {
                    0 => assert!(payloads.len() <= 3),
                    _ => assert_eq!(payloads, expected),
                }
                for message in &came {
                    world.acknowledge(b, message);
                }
                world.disconnect(b);
                world.disconnect(p);
                world.connect("a").go();
            }
        }
    });
}

#[test]
fn a_job_that_is_not_settled_in_time_goes_to_the_next() {
    in_each_version(|mut world| {
        let [a] = members(&mut world, ["a"], 1);
        put(&mut world, 1);
        let late = world.messages(a).remove(0);
        let [b] = members(&mut world, ["b"], 1);
        // It failed: it rests for half a second to a whole one.
        world.advance(secs(60) + secs(1) / 2 - TICK);
        assert_eq!(world.receive(b), []);
        world.advance(secs(1) / 2 + TICK * 2);
        let job = world.messages(b).remove(0);
        assert_eq!((&*job.payload, job.dup), ("0", false));
        // A late PUBACK only frees the id; the other's counts.
        world.send(a, &puback(late.id));
        world.drop(b);
        assert_eq!(world.messages(a).len(), 1);
    });
}

/// [MQTT-4.4.0-1] It is never sent again under its id on the same connection.
#[test]
fn a_late_puback_counts_while_nobody_else_has_the_job() {
    in_each_version_with(
        |config| {
            configured("jobs", |queue| queue.prefetch = 1)(config);
            config.limits.inflight_max = 1;
        },
        |mut world| {
            let [a] = members(&mut world, ["a"], 1);
            put(&mut world, 1);
            let job = world.messages(a).remove(0);
            world.advance(secs(61));
            assert_eq!(world.receive(a), [], "its window is full of the one");
            world.send(a, &puback(job.id));
            world.advance(secs(61));
            assert_eq!(world.receive(a), []);
            let [b] = members(&mut world, ["b"], 1);
            assert_eq!(world.receive(b), []);
        },
    );
}

#[test]
fn the_same_member_gets_a_late_job_under_another_id() {
    let mut world = World::new();
    let [a] = members(&mut world, ["a"], 1);
    put(&mut world, 1);
    let first = world.messages(a).remove(0);
    world.advance(secs(61));
    let second = world.messages(a).remove(0);
    assert!(second.id != first.id && !second.dup);
    world.send(a, &puback(first.id));
    world.send(a, &puback(second.id));
    world.drop(a);
    let [b] = members(&mut world, ["b"], 1);
    assert_eq!(world.receive(b), []);
}

#[test]
fn a_window_full_of_what_timed_out_ends_the_connection() {
    let configure = |config: &mut Config| config.limits.inflight_max = 3;
    in_each_version_with(configure, |mut world| {
        let [a] = members(&mut world, ["a"], 1);
        put(&mut world, 3);
        let jobs = world.messages(a);
        world.advance(secs(61));
        world.advance(secs(58));
        // One answer is enough to go on.
        world.send(a, &puback(jobs[0].id));
        assert!(world.is_open(a));
        let mut waited = secs(0);
        while world.is_open(a) && waited < secs(400) {
            world.advance(secs(1));
            waited += secs(1);
        }
        assert_eq!(world.closed(a), Some(ReasonCode::ReceiveMaximumExceeded));
        assert!(waited > secs(60));
    });
}

#[test]
fn refusing_rejecting_and_extending() {
    in_each_version(|mut world| {
        let [a] = members(&mut world, ["a"], 1);
        let p = put(&mut world, 1);
        // To the next, after a rest: there is only one.
        let job = world.messages(a).remove(0);
        world.control(a, "nack", &job.id.to_string());
        world.advance(secs(1) / 2 - TICK);
        assert_eq!(world.receive(a), []);
        world.advance(secs(1) / 2 + TICK * 2);
        let again = world.messages(a).remove(0);
        assert_eq!((&*again.payload, again.dup), ("0", false));
        assert_ne!(again.id, job.id);
        // The first settlement wins.
        world.send(a, &puback(job.id));
        world.control(a, "reject", &job.id.to_string());
        // After a while.
        world.control(a, "nack", &format!("{} 30", again.id));
        world.advance(secs(30) - TICK);
        assert_eq!(world.receive(a), []);
        world.advance(TICK * 2);
        let third = world.messages(a).remove(0);
        // It takes longer.
        world.advance(secs(50));
        world.control(a, "extend", &third.id.to_string());
        world.advance(secs(50));
        world.control(a, "extend", &format!("{} 200", third.id));
        world.advance(secs(199));
        assert_eq!(world.receive(a), []);
        // Never.
        world.control(a, "reject", &third.id.to_string());
        assert_eq!(world.counts().dead_letters, 1);
        world.subscribe(p, "$queue/$dead/jobs", 1);
        let dead = world.work(p);
        assert_eq!((&*dead.payload, &*dead.topic), ("0", "jobs"));
        assert_eq!(world.receive(a), []);
    });
}

/// Cases E16 and H50 of docs/security.md.
#[test]
fn what_control_topics_do_not_take() {
    for (topic, payload) in [
        ("$queue/$nack", ""),
        ("$queue/$nack", "0"),
        ("$queue/$reject", "1 2 3"),
        ("$queue/$extend", "65536"),
        ("$queue/$other", "1"),
    ] {
        let mut world = World::new();
        let a = world.connect("a").go();
        world.send_publish(a, topic, payload, 1, false);
        assert!(!world.is_open(a), "{topic} {payload}");
    }
    // An id that is none of its jobs is nothing.
    let mut world = World::new();
    let [a, b] = members(&mut world, ["a", "b"], 1);
    world.subscribe(a, "t", 1);
    put(&mut world, 1);
    world.publish(b, "t", "m", 1);
    let got = world.messages(a);
    let (job, message) = (&got[0], &got[1]);
    world.control(a, "nack", &message.id.to_string());
    world.control(b, "nack", &job.id.to_string());
    assert_eq!((world.receive(a), world.receive(b)), (vec![], vec![]));
}

/// A year is the longest, at whatever moment of the clock it begins.
#[test]
fn a_job_is_put_off_for_a_year_at_most() {
    for what in ["nack", "extend"] {
        for now in [0, 1_000_000, u64::MAX / 2, u64::MAX - 1] {
            let mut world = World::new();
            world.now = Time::from_micros(now);
            let [a] = members(&mut world, ["a"], 1);
            put(&mut world, 1);
            let Some(Got::Publish(job)) = world.take(a) else {
                panic!("the member gets its job");
            };
            world.control(a, what, &format!("{} 31536000", job.id));
            world.send_publish(
                a,
                &format!("$queue/${what}"),
                &format!("{} 31536001", job.id),
                1,
                false,
            );
            assert!(!world.is_open(a), "{what} at {now}");
        }
    }
}

#[test]
fn dead_letters_wait_in_a_queue_of_their_own() {
    let mut world = World::new();
    let [a] = members(&mut world, ["a"], 1);
    put(&mut world, 3);
    for job in world.messages(a) {
        world.control(a, "reject", &job.id.to_string());
    }
    let b = world.connect("b").go();
    world.subscribe(b, "$queue/$dead/jobs", 1);
    let dead = world.messages(b);
    assert_eq!(dead.len(), 3);
    // There are no dead letters of dead letters: it comes again after a while.
    world.control(b, "reject", &dead[0].id.to_string());
    assert_eq!(world.receive(b), []);
    world.advance(secs(2));
    assert_eq!(world.payloads(b), ["0"]);
    assert_eq!(world.counts().dead_letters, 3);
}

/// They stay in their queue and take its room, so that it fills up instead of
/// the memory.
#[test]
fn a_full_dead_letter_queue_sets_them_aside() {
    let configure = |config: &mut Config| {
        for (name, messages_max) in [("$dead/jobs", 2), ("jobs", 4)] {
            config.queue.push(QueueSettings {
                messages_max,
                ..queue(name)
            });
        }
    };
    where_publishers_are_held_back(configure, |mut world| {
        let [a] = members(&mut world, ["a"], 1);
        let p = world.connect("p").go();
        let mut taken = 0;
        for n in 0..8 {
            let id = world.send_publish(p, "$queue/jobs", &n.to_string(), 1, false);
            taken += usize::from(world.has_got(p, &Got::Puback(id)));
            for job in world.messages(a) {
                world.control(a, "reject", &job.id.to_string());
            }
        }
        assert_eq!(
            (taken, world.counts().dead_letters),
            (6, 2),
            "2 dead, 4 set aside"
        );
        let b = world.connect("b").go();
        world.subscribe(b, "$queue/$dead/jobs", 1);
        let mut dead = Vec::new();
        for _ in 0..8 {
            while let Some(Got::Publish(letter)) = world.take(b) {
                world.acknowledge(b, &letter);
                dead.push(letter.payload);
            }
            for job in world.messages(a) {
                world.control(a, "reject", &job.id.to_string());
            }
            world.advance(secs(2));
        }
        let expected: Vec<String> = (0..8).map(|n| n.to_string()).collect();
        assert_eq!(dead, expected);
        assert_eq!(world.receive(p).len(), 2, "those that were held back");
    });
}

#[test]
fn qos_2_is_delivered_once() {
    in_each_version(|mut world| {
        let [a, b] = members(&mut world, ["a", "b"], 2);
        put(&mut world, 1);
        let job = world.messages(a).remove(0);
        // It waits for this member's session, as long as that may take.
        world.drop(a);
        world.advance(secs(3600));
        assert_eq!(world.receive(b), []);
        let a = world.connect("a").clean(false).go();
        let again = world.messages(a).remove(0);
        assert_eq!(
            (again.id, again.dup, &*again.topic),
            (job.id, true, "$queue/jobs")
        );
        world.send(a, &pubrec(job.id));
        assert_eq!(world.receive(a), [Got::Pubrel(job.id)]);
        // Done; the rest is between the two.
        world.drop(a);
        let a = world.connect("a").clean(false).go();
        assert_eq!(world.receive(a), [Got::Pubrel(job.id)]);
        world.connect("a").go();
        assert_eq!((world.receive(b), world.counts().dead_letters), (vec![], 0));
    });
}

#[test]
fn qos_2_that_was_never_written_goes_to_the_next() {
    in_each_version(|mut world| {
        let [a] = members(&mut world, ["a"], 2);
        let p = put(&mut world, 0);
        world.clog(a, true);
        for n in 0..4 {
            world.publish(p, "$queue/jobs", &n.to_string(), 1);
        }
        // The first of them may be on its way; the others are not.
        let [b] = members(&mut world, ["b"], 2);
        world.drop(a);
        assert_eq!(world.payloads(b), ["1", "2", "3"]);
        // If the session ends nobody knows whether it has the first.
        world.connect("a").go();
        assert_eq!(world.counts().dead_letters, 1);
    });
}

#[test]
fn what_nobody_knows_the_fate_of_is_for_a_person_to_decide() {
    const HOUR: Duration = secs(60 * 60);
    type End = fn(&mut World);
    let ends: [(Duration, End); 3] = [
        (HOUR * 100, |world| {
            world.connect("a").go();
        }),
        (HOUR, |world| world.advance(HOUR + TICK)),
        (HOUR * 100, |world| world.advance(HOUR * 24 + TICK)),
    ];
    for undecided in [Undecided::DeadLetter, Undecided::Redeliver] {
        for (expiry, end) in ends {
            let configure = |config: &mut Config| {
                configured("jobs", |queue| queue.undecided = undecided)(config);
                config.session.expiry_default = expiry;
            };
            in_each_version_with(configure, |mut world| {
                let [a, b] = members(&mut world, ["a", "b"], 2);
                put(&mut world, 1);
                assert_eq!(world.messages(a).len(), 1);
                world.drop(a);
                end(&mut world);
                let came = world.messages(b).len();
                match undecided {
                    Undecided::DeadLetter => {
                        assert_eq!((came, world.counts().dead_letters), (0, 1));
                    }
                    Undecided::Redeliver => {
                        assert_eq!((came, world.counts().dead_letters), (1, 0));
                    }
                }
            });
        }
    }
}

/// A QoS 2 job that somebody else may have by now is not sent to its first
/// member again: that gets the release of the id alone.
#[test]
fn a_refused_qos_2_job_does_not_come_again_on_resuming() {
    in_each_version(|mut world| {
        let [a, b] = members(&mut world, ["a", "b"], 2);
        put(&mut world, 1);
        let job = world.messages(a).remove(0);
        world.control(a, "nack", &format!("{} 0", job.id));
        assert_eq!(world.messages(b).len(), 1);
        world.drop(a);
        let a = world.connect("a").clean(false).go();
        assert_eq!(world.receive(a), [Got::Pubrel(job.id)]);
        world.send(a, &pubcomp(job.id));
        world.drop(a);
        let a = world.connect("a").clean(false).go();
        assert_eq!(world.receive(a), []);
    });
}

#[test]
fn only_the_longest_standing_member_of_an_exclusive_queue_works() {
    let configure = configured("jobs", |queue| {
        queue.exclusive = true;
        queue.prefetch = 1;
    });
    in_each_version_with(configure, |mut world| {
        let [a, b] = members(&mut world, ["a", "b"], 1);
        put(&mut world, 4);
        assert_eq!(world.work(a).payload, "0");
        assert_eq!(world.receive(b), []);
        world.drop(a);
        assert_eq!(world.work(b).payload, "1");
        // The first one stands behind when it comes back.
        let a = world.connect("a").clean(false).go();
        assert_eq!(world.receive(a), []);
        assert_eq!(world.work(b).payload, "2");
        world.unsubscribe(b, "$queue/jobs");
        world.disconnect(b);
        assert_eq!(world.work(a).payload, "3");
    });
}

#[test]
fn settings_are_found_by_pattern() {
    let configure = |config: &mut Config| {
        for (name, prefetch) in [("jobs/a", 1), ("jobs/+", 2), ("other/#", 3)] {
            config.queue.push(QueueSettings {
                prefetch,
                ..queue(name)
            });
        }
        config.queues.default.prefetch = 4;
    };
    let mut world = World::with(configure);
    let a = world.connect("a").go();
    for (name, prefetch) in [("jobs/a", 1), ("jobs/b", 2), ("other/x/y", 3), ("else", 4)] {
        for _ in 0..6 {
            world.publish(a, &format!("$queue/{name}"), "m", 1);
        }
        world.subscribe(a, &format!("$queue/{name}"), 1);
        assert_eq!(world.messages(a).len(), prefetch, "{name}");
    }
}

#[test]
fn a_member_may_have_an_ack_timeout_of_its_own() {
    let configure = configured("jobs", |queue| {
        for (client, ack_timeout) in [("slow", Duration::MAX), ("fast", secs(5))] {
            queue.members.push(MemberSettings {
                client: client.into(),
                prefetch: None,
                ack_timeout: Some(ack_timeout),
            });
        }
    });
    let mut world = World::with(configure);
    let [fast, slow] = members(&mut world, ["fast", "slow"], 1);
    put(&mut world, 2);
    assert_eq!(world.payloads(fast), ["0"]);
    assert_eq!(world.payloads(slow), ["1"]);
    world.advance(secs(6));
    assert_eq!(world.payloads(slow), ["0"]);
    world.advance(secs(100_000));
    assert_eq!(world.receive(fast), []);
}

/// The room of a window is the queue's as soon as there is any, whoever took
/// it before.
#[test]
fn a_member_without_room_is_told_when_there_is_some() {
    let configure = |config: &mut Config| config.limits.inflight_max = 2;
    in_each_version_with(configure, |mut world| {
        let [a] = members(&mut world, ["a"], 1);
        world.subscribe(a, "t", 1);
        world.publish(a, "t", "0", 1);
        world.publish(a, "t", "1", 1);
        put(&mut world, 2);
        let messages = world.messages(a);
        assert_eq!(messages.len(), 2, "none is a job");
        world.acknowledge(a, &messages[1]);
        assert_eq!(world.messages(a)[0].topic, "$queue/jobs");
        world.acknowledge(a, &messages[0]);
        assert_eq!(world.messages(a)[0].topic, "$queue/jobs");
    });
}

/// A member of very many queues, with no room for any of their jobs.
#[test]
fn one_member_of_many_queues_costs_no_more_for_it() {
    const QUEUES: usize = 3000;
    let mut world = World::with(|config| config.limits.inflight_max = 1);
    let a = world.connect("a").go();
    for n in 0..QUEUES {
        world.subscribe(a, &format!("$queue/{n}"), 1);
        world.publish(a, &format!("$queue/{n}"), "m", 1);
    }
    let mut topics = std::collections::BTreeSet::new();
    while let Some(Got::Publish(message)) = world.take(a) {
        world.acknowledge(a, &message);
        assert!(topics.insert(message.topic), "each queue has its turn");
    }
    assert_eq!(topics.len(), QUEUES);
}
