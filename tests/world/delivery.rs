//! Messages from publisher to subscriber, at each QoS, in every state in
//! which a connection can be lost.

use super::*;

#[test]
fn each_qos_from_end_to_end() {
    in_each_version(|mut world| {
        for published in 0..=2 {
            for granted in 0..=2 {
                let a = world.connect("a").go();
                let b = world.connect("b").go();
                let topic = format!("t/{published}{granted}");
                world.subscribe(a, &format!("+/{published}{granted}"), granted);
                world.publish_with(b, &topic, "m", published, true);
                let [message] = &world.messages(a)[..] else {
                    panic!("one message");
                };
                assert_eq!((&message.topic, &*message.payload), (&topic, "m"));
                assert_eq!(message.qos, published.min(granted));
                assert_eq!(message.id > 0, message.qos > 0);
                assert!(!message.dup && !message.retain);
                world.acknowledge(a, message);
                assert_eq!((world.receive(a), world.receive(b)), (vec![], vec![]));
                world.disconnect(a);
                world.disconnect(b);
            }
        }
    });
}

#[test]
fn overlapping_subscriptions_bring_a_message_once_at_the_highest_qos() {
    let mut world = World::new();
    let a = world.connect("a").go();
    for (filter, qos) in [("#", 0), ("t/+", 2), ("t/x", 1)] {
        world.subscribe(a, filter, qos);
    }
    world.publish(a, "t/x", "m", 2);
    let messages = world.messages(a);
    assert_eq!(messages.iter().map(|m| m.qos).collect::<Vec<_>>(), [2]);
    world.unsubscribe(a, "t/+");
    world.acknowledge(a, &messages[0]);
    world.publish(a, "t/x", "m", 2);
    assert_eq!(world.messages(a)[0].qos, 1);
}

#[test]
fn each_filter_of_a_subscribe_is_answered_for_itself() {
    in_each_version(|mut world| {
        let a = world.connect("a").go();
        let filters = [
            ("a", 0),
            ("b", 1),
            ("$share/g", 1),
            ("$share/+/t", 1),
            ("$queue/", 1),
            ("$queue/+", 1),
            ("$queue/$x", 1),
            ("$share/g/$queue/x", 1),
            ("c", 2),
        ];
        let codes = world.try_subscribe(a, &filters);
        let bad = 0x80;
        assert_eq!(codes, [0, 1, bad, bad, bad, bad, bad, bad, 2]);
        for topic in ["a", "b", "c"] {
            world.publish(a, topic, "m", 2);
        }
        let qos: Vec<u8> = world.messages(a).iter().map(|m| m.qos).collect();
        assert_eq!(qos, [0, 1, 2]);
        // What is not there is answered all the same.
        world.unsubscribe(a, "nothing");
        world.unsubscribe(a, "$queue/nothing");
        world.unsubscribe(a, "$share/nothing/t");
    });
}

/// In flight at QoS 1: sent again with DUP, the same id, in the same order,
/// until it is acknowledged, before what waited.
#[test]
fn what_was_not_acknowledged_comes_again() {
    let configure = |config: &mut Config| config.limits.inflight_max = 3;
    in_each_version_with(configure, |mut world| {
        let mut a = world.connect("a").clean(false).go();
        let b = world.connect("b").go();
        world.subscribe(a, "t", 1);
        for payload in ["0", "1", "2", "3", "4"] {
            world.publish(b, "t", payload, 1);
        }
        let first = world.messages(a);
        assert_eq!(first.len(), 3, "the window is full");
        world.acknowledge(a, &first[1]);
        let third = world.messages(a);
        assert_eq!(third.len(), 1, "and filled again");
        let in_flight = [&first[0], &first[2], &third[0]];
        for _ in 0..3 {
            world.drop(a);
            a = world.connect("a").clean(false).go();
            let again = world.messages(a);
            for (again, before) in again.iter().zip(in_flight) {
                let expected = Message {
                    dup: true,
                    ..before.clone()
                };
                assert_eq!(*again, expected);
            }
            assert_eq!(again.len(), 3);
        }
        for message in in_flight {
            world.acknowledge(a, message);
        }
        let last = world.messages(a);
        assert_eq!(last[0].payload, "4");
        assert!(!last[0].dup);
        world.acknowledge(a, &last[0]);
        world.drop(a);
        a = world.connect("a").clean(false).go();
        assert_eq!(world.receive(a), []);
    });
}

/// The four packets of QoS 2 towards a client, with the connection lost after
/// each.
#[test]
fn qos_2_to_a_client_is_taken_up_where_it_was() {
    in_each_version(|mut world| {
        let b = world.connect("b").go();
        for lost_after in 0..=3 {
            let mut a = world.connect("a").clean(false).go();
            world.subscribe(a, "t", 2);
            if lost_after == 0 {
                world.drop(a); // before PUBLISH
            }
            world.publish(b, "t", "m", 2);
            let mut dup = false;
            if lost_after == 1 {
                let sent = world.messages(a);
                assert!(!sent[0].dup);
                world.drop(a);
                dup = true;
            }
            if lost_after <= 1 {
                a = world.connect("a").clean(false).go();
            }
            let [message] = &world.messages(a)[..] else {
                panic!("one message");
            };
            assert_eq!(
                (message.qos, message.dup),
                (2, dup),
                "lost after {lost_after}"
            );
            let id = message.id;
            world.send(a, &pubrec(id));
            world.expect(a, Got::Pubrel(id));
            for _ in 0..lost_after - 1 {
                world.drop(a);
                a = world.connect("a").clean(false).go();
                assert_eq!(world.receive(a), [Got::Pubrel(id)], "and no PUBLISH");
            }
            // A PUBREC that was on its way twice.
            world.send(a, &pubrec(id));
            world.expect(a, Got::Pubrel(id));
            world.send(a, &pubcomp(id));
            world.drop(a);
            a = world.connect("a").clean(false).go();
            assert_eq!(world.receive(a), []);
            world.disconnect(a);
        }
    });
}

/// Case D01 of docs/security.md.
#[test]
fn qos_2_from_a_client_is_routed_once() {
    in_each_version(|mut world| {
        let a = world.connect("a").go();
        world.subscribe(a, "t", 0);
        let mut b = world.connect("b").clean(false).go();
        world.send(b, &publish("t", "once", 2, 5));
        assert_eq!(world.receive(b), [Got::Pubrec(5)]);
        for _ in 0..2 {
            world.send(b, &duplicate(publish("t", "once", 2, 5)));
            assert_eq!(world.receive(b), [Got::Pubrec(5)]);
            world.drop(b);
            b = world.connect("b").clean(false).go();
        }
        assert_eq!(world.payloads(a), ["once"]);
        // Once released, the id is a new message's.
        world.send(b, &pubrel(5));
        assert_eq!(world.receive(b), [Got::Pubcomp(5)]);
        world.send(b, &pubrel(5));
        assert_eq!(
            world.receive(b),
            [Got::Pubcomp(5)],
            "also when it is unknown"
        );
        world.send(b, &publish("t", "new", 2, 5));
        assert_eq!(world.receive(b), [Got::Pubrec(5)]);
        assert_eq!(world.payloads(a), ["new"]);
        // A clean session remembers no ids.
        world.disconnect(b);
        b = world.connect("b").go();
        world.send(b, &duplicate(publish("t", "clean", 2, 5)));
        assert_eq!(world.payloads(a), ["clean"]);
    });
}

#[test]
fn answers_come_in_the_order_of_what_they_answer() {
    in_each_version(|mut world| {
        let a = world.connect("a").go();
        world.send_all(
            a,
            &[
                publish("t", "m", 1, 9),
                subscribe(3, &[("t", 0)]),
                publish("t", "m", 2, 8),
                Packet::Pingreq,
                publish("t", "m", 1, 7),
                unsubscribe(4, &["t"]),
                pubrel(8),
            ],
        );
        let mut got = world.receive(a);
        got.retain(|got| !matches!(got, Got::Publish(_)));
        let expected = [
            Got::Puback(9),
            Got::Suback(3, vec![0]),
            Got::Pubrec(8),
            Got::Pingresp,
            Got::Puback(7),
            Got::Unsuback(4),
            Got::Pubcomp(8),
        ];
        assert_eq!(got, expected);
    });
}

/// Whoever writes them out can count them: a client that sends much and reads
/// nothing is not read from any more.
#[test]
fn all_that_is_said_to_a_packet_is_among_its_answers() {
    let mut world = World::new();
    let a = world.connect("a").go();
    let packets = [
        subscribe(1, &[("t", 1), ("$queue/jobs", 1), ("$share/g/t", 1)]),
        unsubscribe(2, &["t", "$queue/jobs"]),
        Packet::Pingreq,
        publish("t", "m", 1, 3),
    ];
    for packet in packets {
        world.handle(a, &[packet]).expect("valid");
        assert!(!world.worker.answers.is_empty());
        world.turn(a, true);
    }
}

/// Case D08 of docs/security.md.
#[test]
fn an_answer_of_the_wrong_kind_ends_the_connection() {
    let mut world = World::new();
    for (qos, answer) in [(1, pubrec as fn(u16) -> Packet<'static>), (2, puback)] {
        let a = world.connect("a").go();
        world.subscribe(a, "t", qos);
        world.publish(a, "t", "m", qos);
        let id = world.messages(a)[0].id;
        world.send(a, &answer(id));
        assert_eq!(world.closed(a), Some(ReasonCode::ProtocolError));
    }
    // What nobody waits for is nothing.
    let a = world.connect("a").go();
    for packet in [puback(1), pubcomp(1)] {
        world.send(a, &packet);
    }
    assert_eq!(world.receive(a), []);
    world.send(a, &pubrec(1));
    assert_eq!(world.receive(a), [Got::Pubrel(1)]);
}

/// Ids go round: an acknowledgement that comes late means nothing else.
/// Case D04 of docs/security.md.
#[test]
fn packet_ids_go_round_and_pass_over_those_in_use() {
    let mut world = World::new();
    let mut a = world.connect("a").clean(false).go();
    world.subscribe(a, "t", 1);
    world.publish(a, "t", "stuck", 1);
    let stuck = world.messages(a)[0].id;
    let mut last = stuck;
    for round in 0..70_000_u32 {
        world.publish(a, "t", "m", 1);
        let message = world.work(a);
        assert!(message.id != stuck && message.id != last);
        last = message.id;
        if round == 1000 {
            world.drop(a);
            a = world.connect("a").clean(false).go();
            assert_eq!(world.messages(a)[0].id, stuck);
        }
    }
    world.send(a, &puback(stuck));
}

#[test]
fn a_resumed_session_goes_on_with_its_packet_ids() {
    let mut world = World::new();
    let a = world.connect("a").clean(false).go();
    world.subscribe(a, "t", 1);
    world.publish(a, "t", "m", 1);
    let first = world.work(a).id;
    world.drop(a);
    let a = world.connect("a").clean(false).go();
    world.publish(a, "t", "m", 1);
    assert_eq!(world.work(a).id, first % u16::MAX + 1);
    // A new session of the same client begins somewhere else.
    let a = world.connect("a").go();
    world.subscribe(a, "t", 1);
    world.publish(a, "t", "m", 1);
    assert_ne!(world.work(a).id, first % u16::MAX + 2);
}

/// Messages of one topic and QoS keep their order, whatever the window does.
#[test]
fn the_order_of_a_publisher_is_kept() {
    let configure = |config: &mut Config| config.limits.inflight_max = 4;
    in_each_version_with(configure, |mut world| {
        let mut a = world.connect("a").clean(false).go();
        let b = world.connect("b").go();
        world.subscribe(a, "t", 2);
        let mut came = Vec::new();
        for round in 0..60 {
            if round == 20 {
                while let Some(Got::Publish(message)) = world.take(a) {
                    came.push(message.payload.clone());
                    world.acknowledge(a, &message);
                }
                world.drop(a);
            }
            if round == 40 {
                a = world.connect("a").clean(false).go();
            }
            world.publish(b, "t", &round.to_string(), 1 + round % 2);
            if !(20..40).contains(&round) && round % 3 == 0 {
                for message in world.messages(a) {
                    came.push(message.payload.clone());
                    world.acknowledge(a, &message);
                }
            }
        }
        while let Some(Got::Publish(message)) = world.take(a) {
            came.push(message.payload.clone());
            world.acknowledge(a, &message);
        }
        let expected: Vec<String> = (0..60).map(|round: u32| round.to_string()).collect();
        assert_eq!(came, expected);
    });
}

#[test]
fn a_large_message_is_shared_and_arrives_whole() {
    let mut world = World::new();
    let a = world.connect("a").clean(false).go();
    let b = world.connect("b").go();
    world.subscribe(a, "t", 1);
    world.subscribe(b, "t", 0);
    for len in [1023, 1024, 1025, 300_000] {
        let payload = "x".repeat(len);
        world.publish(a, "t", &payload, 1);
        assert_eq!(world.messages(b)[0].payload, payload);
        assert_eq!(world.work(a).payload, payload);
    }
}

#[test]
fn a_batch_wakes_each_receiver_once() {
    let mut world = World::new();
    let idle: Vec<C> = ["a", "b", "c"]
        .iter()
        .map(|id| {
            let client = world.connect(id).go();
            world.subscribe(client, "t/#", 1);
            client
        })
        .collect();
    let elsewhere = world.connect("d").go();
    world.subscribe(elsewhere, "u", 1);
    let b = world.connect("p").go();
    let before: Vec<usize> = idle.iter().map(|client| world.wakes(*client)).collect();
    let batch: Vec<Packet<'_>> = (1..=10).map(|id| publish("t/x", "m", 1, id)).collect();
    world.send_all(b, &batch);
    for (client, before) in idle.iter().zip(before) {
        assert_eq!(world.wakes(*client), before + 1);
        assert_eq!(world.messages(*client).len(), 10);
    }
    assert_eq!(world.wakes(elsewhere), 0);
}

/// D07: acknowledgements of what was never sent, or was acknowledged before, make
/// no room for more than the client takes.
#[test]
fn acknowledgements_of_nothing_make_no_room() {
    let configure = |config: &mut Config| config.limits.inflight_max = 2;
    in_each_version_with(configure, |mut world| {
        let a = world.connect("a").go();
        let p = world.connect("p").go();
        world.subscribe(a, "t", 1);
        for n in 0..6 {
            world.publish(p, "t", &n.to_string(), 1);
        }
        let first = world.messages(a);
        assert_eq!(first.len(), 2);
        for id in [500, 501, 65_535] {
            for stray in [puback(id), pubcomp(id), pubrec(id), puback(id)] {
                world.send(a, &stray);
            }
        }
        let came = world.receive(a);
        assert!(
            came.iter().all(|got| matches!(got, Got::Pubrel(_))),
            "{came:?}"
        );
        // One place, however often it is given back.
        for _ in 0..5 {
            world.send(a, &puback(first[0].id));
        }
        assert_eq!(world.payloads(a), ["2"]);
        assert!(world.is_open(a));
    });
}
