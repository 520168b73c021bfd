//! Work queues and share groups outlive the broker, and each job keeps what
//! was settled.

use super::*;

pub(super) fn payloads_of(world: &mut World, queue: &str) -> Vec<String> {
    let drain = world.connect("drain").go();
    world.subscribe(drain, queue, 1);
    let mut payloads = Vec::new();
    loop {
        let page = world.messages(drain);
        if page.is_empty() {
            world.disconnect(drain);
            return payloads;
        }
        for message in page {
            world.send(drain, &puback(message.id));
            payloads.push(message.payload);
        }
    }
}

fn fill(world: &mut World, queue: &str, jobs: std::ops::Range<usize>) {
    let p = world.connect("p").go();
    for job in jobs {
        world.publish(p, queue, &job.to_string(), (job % 3) as u8);
    }
    world.disconnect(p);
    world.core.store().commit(true).expect("the disk is well");
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[test]
fn a_queue_made_on_the_fly_is_there_again_with_its_jobs_in_order() {
    through_each_end(|mut world, end| {
        fill(&mut world, "$queue/q/1", 0..6);
        end(&mut world);
        fill(&mut world, "$queue/q/1", 6..9);
        // By its name, which is a filter.
        let p = world.connect("p").go();
        world.publish(p, "q/1", "9", 1);
        end(&mut world);
        assert_eq!(payloads_of(&mut world, "$queue/q/1"), numbers(0..10));
        end(&mut world);
        assert_eq!(payloads_of(&mut world, "$queue/q/1"), [""; 0]);
    });
}

#[test]
fn a_deep_queue_keeps_its_order() {
    let mut world = World::new().stored(&Twin::new());
    fill(&mut world, "$queue/q", 0..6000);
    world.restart();
    fill(&mut world, "$queue/q", 6000..8000);
    world.move_all();
    let worker = world.connect("worker").go();
    world.subscribe(worker, "$queue/q", 1);
    for message in world.messages(worker) {
        world.send(worker, &puback(message.id));
    }
    world.receive(worker);
    world.restart();
    // 16 were done, and 16 in hand.
    assert_eq!(payloads_of(&mut world, "$queue/q"), numbers(16..8000));
}

#[test]
fn a_message_for_queues_and_sessions_is_for_all_of_them() {
    let configure = |config: &mut Config| {
        for name in ["a", "b"] {
            config.queue.push(QueueSettings {
                filters: vec!["both/#".into()],
                ..queue(name)
            });
        }
    };
    through_each_end_with(configure, |mut world, end| {
        let s = world.connect("s").clean(false).go();
        world.subscribe(s, "both/+", 2);
        world.disconnect(s);
        fill(&mut world, "both/1", 0..4);
        end(&mut world);
        for queue in ["$queue/a", "$queue/b"] {
            assert_eq!(payloads_of(&mut world, queue), numbers(0..4));
        }
        let s = world.back("s");
        assert_eq!(world.payloads(s), ["1", "2"]);
    });
}

#[test]
fn jobs_in_hand_at_qos_1_are_somebody_elses_after_the_start() {
    through_each_end_in_5(
        |_| (),
        |mut world, end| {
            let a = world.connect("a").clean(false).go();
            world.subscribe(a, "$queue/q", 1);
            fill(&mut world, "$queue/q", 0..4);
            let got = world.messages(a);
            assert_eq!(got.len(), 4);
            world.send(a, &puback(got[1].id));
            world.core.store().commit(true).expect("the disk is well");
            end(&mut world);
            let b = world.connect("b").go();
            world.subscribe(b, "$queue/q", 1);
            let came = world.messages(b);
            let payloads: Vec<_> = came.iter().map(|message| &*message.payload).collect();
            assert_eq!(payloads, ["0", "2", "3"]);
            for message in &came {
                let told = (message.properties)
                    .iter()
                    .any(|property| property == r#"UserProperty(("delivery", "2"))"#);
                assert!(told && !message.dup, "{message:?}");
            }
            // Its member is one still.
            world.disconnect(b);
            let a = world.back("a");
            assert_eq!(world.payloads(a), ["0", "2", "3"]);
        },
    );
}

#[test]
fn a_job_in_hand_at_qos_2_waits_for_its_members_session() {
    through_each_end(|mut world, end| {
        let a = world.connect("a").clean(false).go();
        world.subscribe(a, "$queue/q", 2);
        fill(&mut world, "$queue/q", 0..4);
        let got = world.messages(a);
        assert_eq!(got.len(), 4);
        // Done, and PUBREL has come; done, and it has not been looked at.
        world.send(a, &pubrec(got[0].id));
        world.expect(a, Got::Pubrel(got[0].id));
        world.send(a, &pubcomp(got[0].id));
        world.send(a, &pubrec(got[1].id));
        for _ in 0..2 {
            end(&mut world);
            assert_eq!(payloads_of(&mut world, "$queue/q"), [""; 0]);
            let a = world.back("a");
            let mut came = world.receive(a);
            came.retain(|got| !matches!(got, Got::Pubrel(_)));
            let expected = [2, 3].map(|at: usize| Got::Publish(again(&got[at])));
            assert_eq!(came, expected);
        }
        let a = world.back("a");
        world.receive(a);
        fill(&mut world, "$queue/q", 4..5);
        let new = world.messages(a).remove(0);
        assert!(got[1..].iter().all(|message| message.id != new.id));
        world.acknowledge(a, &new);
        world.send(a, &pubcomp(got[1].id));
        for at in [2, 3] {
            world.send(a, &pubrec(got[at].id));
            world.expect(a, Got::Pubrel(got[at].id));
            world.send(a, &pubcomp(got[at].id));
        }
        end(&mut world);
        let a = world.back("a");
        assert_eq!(world.receive(a), []);
        world.disconnect(a);
        for queue in ["$queue/q", "$queue/$dead/q"] {
            assert_eq!(payloads_of(&mut world, queue), [""; 0]);
        }
    });
}

#[test]
fn the_id_of_a_job_that_was_refused_stays_taken() {
    through_each_end(|mut world, end| {
        let a = world.connect("a").clean(false).go();
        world.subscribe(a, "$queue/q", 2);
        fill(&mut world, "$queue/q", 0..2);
        let got = world.messages(a);
        world.control(a, "reject", &got[0].id.to_string());
        end(&mut world);
        let a = world.back("a");
        let pubrel = Got::Pubrel(got[0].id);
        assert_eq!(world.receive(a), [Got::Publish(again(&got[1])), pubrel]);
        fill(&mut world, "$queue/q", 2..3);
        let new = world.messages(a).remove(0);
        assert!(got.iter().all(|message| message.id != new.id));
        world.send(a, &pubcomp(got[0].id));
        end(&mut world);
        let a = world.back("a");
        let expected = [&got[1], &new].map(|message| Got::Publish(again(message)));
        assert_eq!(world.receive(a), expected);
        world.control(a, "nack", &format!("{} 0", got[1].id));
        world.connect("a").clean(true).go();
        for queue in ["$queue/q", "$queue/$dead/q"] {
            payloads_of(&mut world, queue);
        }
        // The queues alone.
        assert_eq!(world.stored_len(), (2, 0));
    });
}

#[test]
fn a_job_whose_member_is_gone_for_good_is_undecided() {
    for redeliver in [false, true] {
        let configure = |config: &mut Config| {
            config.queue.push(QueueSettings {
                undecided: match redeliver {
                    true => rotamq::config::Undecided::Redeliver,
                    false => rotamq::config::Undecided::DeadLetter,
                },
                ..queue("q")
            });
        };
        through_each_end_with(configure, |mut world, end| {
            let a = world.connect("a").clean(false).go();
            world.subscribe(a, "$queue/q", 2);
            fill(&mut world, "$queue/q", 0..3);
            let got = world.messages(a);
            world.send(a, &pubrec(got[2].id));
            end(&mut world);
            world.connect("a").clean(true).go();
            end(&mut world);
            let (jobs, dead) = match redeliver {
                true => (numbers(0..2), vec![]),
                false => (vec![], numbers(0..2)),
            };
            assert_eq!(payloads_of(&mut world, "$queue/q"), jobs);
            assert_eq!(payloads_of(&mut world, "$queue/$dead/q"), dead);
        });
    }
}

#[test]
fn a_member_that_expires_while_the_broker_is_away_leaves_its_jobs_undecided() {
    through_each_end_in_5(
        |_| (),
        |mut world, end| {
            let expiry = Property::SessionExpiryInterval(100);
            let a = world.connect("a").clean(false).property(expiry).go();
            world.subscribe(a, "$queue/q", 2);
            fill(&mut world, "$queue/q", 0..2);
            world.drop(a);
            end(&mut world);
            world.now = world.now + secs(200);
            end(&mut world);
            world.advance(secs(1));
            assert_eq!(payloads_of(&mut world, "$queue/$dead/q"), numbers(0..2));
            end(&mut world);
            assert_eq!(payloads_of(&mut world, "$queue/$dead/q"), [""; 0]);
        },
    );
}

#[test]
fn a_job_given_to_a_member_of_qos_0_is_as_good_as_done() {
    through_each_end(|mut world, end| {
        let a = world.connect("a").clean(false).go();
        world.subscribe(a, "$queue/q", 0);
        fill(&mut world, "$queue/q", 0..3);
        assert_eq!(world.payloads(a), numbers(0..3));
        end(&mut world);
        assert_eq!(payloads_of(&mut world, "$queue/q"), [""; 0]);
    });
}

#[test]
fn a_job_that_was_put_off_comes_at_its_time() {
    through_each_end(|mut world, end| {
        let a = world.connect("a").go();
        world.subscribe(a, "$queue/q", 1);
        fill(&mut world, "$queue/q", 0..3);
        let got = world.messages(a);
        world.control(a, "nack", &format!("{} 100", got[0].id));
        world.control(a, "nack", &format!("{} 300", got[1].id));
        world.core.store().commit(true).expect("the disk is well");
        end(&mut world);
        let b = world.connect("b").go();
        world.subscribe(b, "$queue/q", 1);
        assert_eq!(world.work(b).payload, "2");
        world.advance(secs(98));
        assert_eq!(world.receive(b), []);
        world.advance(secs(4));
        assert_eq!(world.work(b).payload, "0");
        end(&mut world);
        world.now = world.now + secs(300);
        end(&mut world);
        assert_eq!(payloads_of(&mut world, "$queue/q"), ["1"]);
    });
}

#[test]
fn a_dead_letter_is_in_its_queue_and_nowhere_else() {
    through_each_end(|mut world, end| {
        let a = world.connect("a").go();
        world.subscribe(a, "$queue/q", 1);
        fill(&mut world, "$queue/q", 0..3);
        let got = world.messages(a);
        for at in [0, 2] {
            world.control(a, "reject", &got[at].id.to_string());
        }
        world.core.store().commit(true).expect("the disk is well");
        end(&mut world);
        assert_eq!(payloads_of(&mut world, "$queue/q"), ["1"]);
        assert_eq!(payloads_of(&mut world, "$queue/$dead/q"), ["0", "2"]);
        end(&mut world);
        for queue in ["$queue/q", "$queue/$dead/q"] {
            assert_eq!(payloads_of(&mut world, queue), [""; 0]);
        }
    });
}

#[test]
fn a_job_expires_also_while_the_broker_is_away() {
    through_each_end_in_5(
        |_| (),
        |mut world, end| {
            let p = world.connect("p").go();
            for (payload, expiry) in [("short", 10), ("long", 1000)] {
                let expiry = Property::MessageExpiryInterval(expiry);
                world.send_with(p, ("$queue/q", payload), 1, false, &[expiry]);
            }
            end(&mut world);
            world.now = world.now + secs(100);
            assert_eq!(payloads_of(&mut world, "$queue/q"), ["long"]);
        },
    );
}

#[test]
fn a_member_is_one_again_as_it_asked_to_be() {
    through_each_end_in_5(
        |_| (),
        |mut world, end| {
            let a = world.connect("a").clean(false).go();
            let mut properties = PropertiesBuf::new();
            properties.push(Property::UserProperty(("prefetch", "2")));
            properties.push(Property::UserProperty(("ack-timeout", "100")));
            world.send(
                a,
                &Packet::Subscribe(Subscribe {
                    packet_id: packet_id(9),
                    properties: properties.as_properties(),
                    filters: vec![("$queue/q", SubscribeOptions::new(qos_of(1)))],
                }),
            );
            world.expect(a, Got::Suback(9, vec![1]));
            end(&mut world);
            fill(&mut world, "$queue/q", 0..5);
            let a = world.back("a");
            assert_eq!(world.payloads(a), ["0", "1"]);
            world.advance(secs(99));
            assert_eq!(world.receive(a), []);
            world.advance(secs(2));
            let mut again = world.payloads(a);
            again.sort();
            assert_eq!(again.len(), 2);
        },
    );
}

#[test]
fn a_share_group_waits_with_its_members() {
    through_each_end(|mut world, end| {
        for id in ["a", "b"] {
            let client = world.connect(id).clean(false).go();
            world.subscribe(client, "$share/g/t/+", 2);
            world.disconnect(client);
        }
        let p = world.connect("p").go();
        for number in 0..6 {
            world.publish(p, "t/1", &number.to_string(), 1 + number % 2);
        }
        end(&mut world);
        let a = world.back("a");
        let got = world.messages(a);
        assert_eq!(got.len(), 6);
        // 0 and 1 are done; of the others those of QoS 2 are its own.
        world.acknowledge(a, &got[0]);
        world.acknowledge(a, &got[1]);
        world.core.store().commit(true).expect("the disk is well");
        end(&mut world);
        let b = world.back("b");
        let mut came = world.payloads(b);
        came.sort();
        assert_eq!(came, ["2", "4"]);
        let a = world.back("a");
        let came = world.messages(a);
        assert_eq!(came, [again(&got[3]), again(&got[5])]);
    });
}

/// Nothing that a clean session has in hand is stored, until somebody joined
/// for whom it has to be.
#[test]
fn what_a_clean_member_gives_back_is_stored_for_one_that_stays() {
    through_each_end(|mut world, end| {
        let [a, p] = ["a", "p"].map(|id| world.connect(id).go());
        world.subscribe(a, "$share/g/t", 1);
        for number in numbers(0..3) {
            world.publish(p, "t", &number, 1);
        }
        assert_eq!(world.messages(a).len(), 3);
        let b = world.connect("b").clean(false).go();
        world.subscribe(b, "$share/g/t", 1);
        world.disconnect(b);
        world.publish(p, "t", "3", 1);
        world.drop(a);
        end(&mut world);
        let b = world.connect("b").clean(false).go();
        let mut payloads = world.payloads(b);
        payloads.sort();
        assert_eq!(payloads, numbers(0..4));
    });
}

#[test]
fn what_a_clean_member_rejects_is_not_stored_for_one_that_stays() {
    through_each_end(|mut world, end| {
        let [a, p] = ["a", "p"].map(|id| world.connect(id).go());
        world.subscribe(a, "$share/g/t", 1);
        for number in numbers(0..2) {
            world.publish(p, "t", &number, 1);
        }
        let held = world.messages(a);
        let b = world.connect("b").clean(false).go();
        world.subscribe(b, "$share/g/t", 1);
        world.disconnect(b);
        world.control(a, "reject", &held[0].id.to_string());
        assert_eq!(world.counts().dropped_group, 1);
        world.control(a, "nack", &format!("{} 30", held[1].id));
        world.disconnect(a);
        end(&mut world);
        let b = world.connect("b").clean(false).go();
        assert_eq!(world.payloads(b), [""; 0]);
        world.advance(secs(31));
        assert_eq!(world.payloads(b), ["1"]);
    });
}

#[test]
fn a_share_group_goes_with_its_last_member() {
    through_each_end(|mut world, end| {
        for id in ["a", "b"] {
            let client = world.connect(id).clean(false).go();
            world.subscribe(client, "$share/g/t", 1);
            world.disconnect(client);
        }
        let p = world.connect("p").go();
        world.publish(p, "t", "m", 1);
        world.connect("a").clean(true).go();
        end(&mut world);
        let b = world.back("b");
        assert_eq!(world.messages(b).len(), 1);
        world.unsubscribe(b, "$share/g/t");
        end(&mut world);
        world.connect("b").clean(true).go();
        assert_eq!(world.stored_len(), (0, 0));
        end(&mut world);
        assert_eq!(world.stored_len(), (0, 0));
    });
}

#[test]
fn a_queue_that_nobody_uses_goes_at_its_time() {
    let day = secs(24 * 60 * 60);
    through_each_end(|mut world, end| {
        fill(&mut world, "$queue/q", 0..3);
        world.advance(day * 3);
        end(&mut world);
        // Nobody could use it meanwhile: its time starts anew.
        world.advance(day * 6);
        assert_eq!(world.stored_len().1, 1);
        world.advance(day * 2);
        assert_eq!(world.stored_len(), (0, 0));
        // Nobody waited for that: it may have to be done again.
        end(&mut world);
        world.advance(day * 8);
        assert_eq!(world.stored_len(), (0, 0));
    });
}

#[test]
fn more_jobs_may_rest_than_are_in_memory_meanwhile() {
    let configure = |config: &mut Config| {
        config.limits.inflight_max = 2000;
        config.queues.default.prefetch = 2000;
    };
    let mut world = World::with(configure).stored(&Twin::new());
    const JOBS: usize = 1500;
    fill(&mut world, "$queue/q", 0..JOBS);
    let worker = world.connect("worker").go();
    world.subscribe(worker, "$queue/q", 1);
    for message in world.messages(worker) {
        world.control(worker, "nack", &format!("{} 60", message.id));
    }
    world.receive(worker);
    world.disconnect(worker);
    assert_eq!(world.state("q"), [0, 0, JOBS as u64, 0]);
    world.advance(secs(61));
    assert_eq!(world.state("q"), [JOBS as u64, 0, 0, 0]);
    assert_eq!(payloads_of(&mut world, "$queue/q"), numbers(0..JOBS));
    assert_eq!(world.state("q"), [0; 4]);
    assert_eq!(world.counts().lost_damaged, 0);
}
