//! Share groups: each message to one member, for as long as there is one.

use super::*;

#[test]
fn each_message_goes_to_one_member_in_turn() {
    in_each_version(|mut world| {
        for qos in 0..=2 {
            let members = ["a", "b", "c"].map(|id| {
                let member = world.connect(id).go();
                world.subscribe(member, "$share/g/t/+", qos);
                member
            });
            let p = world.connect("p").go();
            let single = world.connect("single").go();
            world.subscribe(single, "t/#", 0);
            for n in 0..9 {
                world.publish(p, "t/x", &n.to_string(), 2);
            }
            for (first, member) in members.into_iter().enumerate() {
                let messages = world.messages(member);
                let payloads: Vec<&str> = messages.iter().map(|m| &*m.payload).collect();
                let expected: Vec<String> = (first..9).step_by(3).map(|n| n.to_string()).collect();
                assert_eq!(payloads, expected);
                assert!(messages.iter().all(|m| m.qos == qos && m.topic == "t/x"));
                for message in &messages {
                    world.acknowledge(member, message);
                }
            }
            members.iter().for_each(|member| world.disconnect(*member));
            assert_eq!(world.messages(single).len(), 9);
            world.disconnect(single);
            world.disconnect(p);
            assert_eq!(world.core.subscriptions_len(), 0);
        }
    });
}

/// Case E22 of docs/security.md.
#[test]
fn groups_and_filters_are_told_apart() {
    let mut world = World::new();
    let a = world.connect("a").go();
    for filter in ["$share/g/t", "$share/h/t", "$share/g/+", "t"] {
        world.subscribe(a, filter, 1);
    }
    world.publish(a, "t", "m", 0);
    assert_eq!(world.payloads(a).len(), 4);
    world.unsubscribe(a, "$share/g/t");
    world.publish(a, "t", "m", 0);
    assert_eq!(world.payloads(a).len(), 3);
}

#[test]
fn what_a_lost_member_had_not_acknowledged_goes_to_the_next() {
    in_each_version(|mut world| {
        for clean in [true, false] {
            let a = world.connect("a").clean(clean).go();
            let b = world.connect("b").go();
            let p = world.connect("p").go();
            for member in [a, b] {
                world.subscribe(member, "$share/g/t", 1);
            }
            for n in 0..4 {
                world.publish(p, "t", &n.to_string(), 1);
            }
            assert_eq!(world.work(a).payload, "0");
            assert_eq!(world.payloads(b), ["1", "3"]);
            world.drop(a);
            assert_eq!(world.payloads(b), ["2"]);
            // It does not come again to the one that lost it.
            let a = world.connect("a").clean(clean).go();
            assert_eq!(world.receive(a), []);
            for client in [a, b, p] {
                world.disconnect(client);
            }
            world.connect("a").go();
        }
    });
}

#[test]
fn nothing_waits_behind_an_absent_member_and_messages_wait_for_one() {
    in_each_version(|mut world| {
        let a = world.connect("a").clean(false).go();
        let b = world.connect("b").clean(false).go();
        let p = world.connect("p").go();
        for member in [a, b] {
            world.subscribe(member, "$share/g/t", 1);
        }
        world.drop(a);
        for n in 0..3 {
            world.publish(p, "t", &n.to_string(), 1);
        }
        for n in 0..3 {
            assert_eq!(world.work(b).payload, n.to_string());
        }
        world.drop(b);
        world.publish(p, "t", "waits", 1);
        world.publish(p, "t", "does not", 0);
        assert_eq!(world.counts().dropped_group, 1);
        let b = world.connect("b").clean(false).go();
        assert_eq!(world.work(b).payload, "waits");
    });
}

/// Case H02 of docs/security.md.
#[test]
fn a_group_ends_with_its_last_member() {
    let ends: [fn(&mut World, C); 3] = [
        |world, a| world.unsubscribe(a, "$share/g/t"),
        |world, a| world.disconnect(a),
        |world, a| {
            world.drop(a);
            world.advance(secs(8 * 24 * 60 * 60));
        },
    ];
    for (clean, end) in [(false, ends[0]), (true, ends[1]), (false, ends[2])] {
        let mut world = World::new();
        let a = world.connect("a").clean(clean).go();
        world.subscribe(a, "$share/g/t", 1);
        end(&mut world, a);
        assert_eq!(world.core.subscriptions_len(), 0);
        let p = world.connect("p").go();
        world.publish(p, "t", "nobody", 1);
        let b = world.connect("b").go();
        world.subscribe(b, "$share/g/t", 1);
        assert_eq!(world.receive(b), []);
    }
}

/// [MQTT-4.8.2-4], [MQTT-4.8.2-5]
#[test]
fn qos_2_stays_with_its_member() {
    in_each_version(|mut world| {
        let a = world.connect("a").clean(false).go();
        let b = world.connect("b").go();
        world.subscribe(a, "$share/g/t", 2);
        world.publish(b, "t", "mine", 2);
        let [message] = &world.messages(a)[..] else {
            panic!("one message");
        };
        world.subscribe(b, "$share/g/t", 2);
        world.drop(a);
        assert_eq!(world.receive(b), []);
        let a = world.connect("a").clean(false).go();
        let again = world.messages(a);
        assert_eq!((again[0].id, again[0].dup), (message.id, true));
        world.disconnect(a);
        // Its session ends: nobody else gets it.
        let a = world.connect("a").go();
        assert_eq!((world.receive(a), world.receive(b)), (vec![], vec![]));
        assert_eq!(world.counts().dropped_group, 1);
    });
}

/// A member that unsubscribed is gone when its connection is, and what it had
/// in hand goes to the next.
#[test]
fn what_a_member_that_left_still_had_is_not_lost_with_it() {
    for clean in [true, false] {
        let mut world = World::new();
        let a = world.connect("a").clean(clean).go();
        let b = world.connect("b").go();
        world.subscribe(a, "$share/g/t", 1);
        world.publish(b, "t", "m", 1);
        assert_eq!(world.messages(a).len(), 1);
        world.subscribe(b, "$share/g/t", 1);
        world.unsubscribe(a, "$share/g/t");
        assert_eq!(world.receive(b), []);
        world.drop(a);
        assert_eq!(world.payloads(b), ["m"]);
    }
}

/// A full window does not keep a member's share from the others.
#[test]
fn a_member_without_room_is_passed_over() {
    let mut world = World::with(|config| config.limits.inflight_max = 2);
    let a = world.connect("a").go();
    let b = world.connect("b").go();
    for member in [a, b] {
        world.subscribe(member, "$share/g/t", 1);
    }
    for n in 0..8 {
        world.publish(b, "t", &n.to_string(), 1);
        while let Some(Got::Publish(message)) = world.take(b) {
            world.acknowledge(b, &message);
        }
    }
    let held = world.messages(a);
    assert_eq!(held.len(), 2);
    world.publish(b, "t", "8", 1);
    assert_eq!(world.work(b).payload, "8");
    world.acknowledge(a, &held[0]);
    world.publish(b, "t", "9", 1);
    assert_eq!(world.work(b).payload, "9");
    world.publish(b, "t", "10", 1);
    assert_eq!(world.payloads(a), ["10"]);
}

#[test]
fn a_member_gives_a_message_back_or_rejects_it() {
    in_each_version(|mut world| {
        let [a, b] = ["a", "b"].map(|id| world.connect(id).go());
        let p = world.connect("p").go();
        for member in [a, b] {
            world.subscribe(member, "$share/g/t", 1);
        }
        world.publish(p, "t", "0", 1);
        let held = world.messages(a).remove(0);
        world.control(a, "nack", &format!("{} 30", held.id));
        world.acknowledge(a, &held);
        assert_eq!(world.payloads(b), [""; 0]);
        world.advance(secs(31));
        assert_eq!(world.payloads(b), ["0"]);
        world.publish(p, "t", "1", 1);
        let held = world.messages(a).remove(0);
        world.control(a, "reject", &held.id.to_string());
        assert_eq!(world.counts().dropped_group, 1);
        world.drop(a);
        assert_eq!(world.payloads(b), [""; 0]);
    });
}

/// A member that unsubscribed still says what is to become of what it has.
#[test]
fn who_left_a_group_gives_a_message_back_or_rejects_it() {
    in_each_version(|mut world| {
        let [a, b, p] = ["a", "b", "p"].map(|id| world.connect(id).go());
        for member in [a, b] {
            world.subscribe(member, "$share/g/t", 1);
        }
        for n in 0..6 {
            world.publish(p, "t", &n.to_string(), 1);
        }
        let held = world.messages(a);
        assert_eq!(world.payloads(b), ["1", "3", "5"]);
        world.unsubscribe(a, "$share/g/t");
        world.control(a, "reject", &held[0].id.to_string());
        assert_eq!(world.counts().dropped_group, 1);
        world.control(a, "nack", &format!("{} 30", held[1].id));
        assert_eq!(world.payloads(b), [""; 0]);
        world.advance(secs(31));
        assert_eq!(world.payloads(b), ["2"]);
        world.drop(b);
        // The group is gone with its last member.
        world.drop(a);
        assert_eq!(world.counts().dropped_group, 6);
    });
}

/// A later QoS 1 message does not take the window's last place from one of
/// QoS 0, which needs none.
#[test]
fn qos_0_is_not_overtaken() {
    let mut world = World::with(|config| config.limits.inflight_max = 1);
    let [a, p] = ["a", "p"].map(|id| world.connect(id).go());
    world.subscribe(a, "$share/g/t", 1);
    world.send_all(p, &[publish("t", "0", 0, 0), publish("t", "1", 1, 1)]);
    assert_eq!(world.payloads(a), ["0", "1"]);
    assert_eq!(world.counts().dropped_group, 0);
}

/// What members hold of a group takes nothing of what their sessions may keep.
#[test]
fn what_a_member_holds_of_a_group_is_not_its_sessions() {
    let policies = [
        rotamq::config::SessionFull::End,
        rotamq::config::SessionFull::DropOldest,
        rotamq::config::SessionFull::Refuse,
    ];
    for full in policies {
        let mut world = World::with(|config| {
            config.limits.session_bytes_max = 4096;
            config.session.full = full;
        });
        let [a, p] = ["a", "p"].map(|id| world.connect(id).go());
        world.subscribe(a, "$share/g/t", 1);
        world.subscribe(a, "own", 1);
        let large = "x".repeat(1500);
        for topic in ["t", "t", "own"] {
            world.publish(p, topic, &large, 1);
        }
        assert_eq!(world.messages(a).len(), 3, "{full:?}");
        assert!(world.is_open(a));
    }
}

/// What a member has and did not acknowledge counts against its session's
/// limit in bytes, and no other member's.
#[test]
fn what_members_hold_is_bounded_in_bytes() {
    let mut world = World::with(|config| config.limits.session_bytes_max = 4096);
    let [a, p] = ["a", "p"].map(|id| world.connect(id).go());
    world.subscribe(a, "$share/g/t", 1);
    let large = "x".repeat(1500);
    for _ in 0..8 {
        world.publish(p, "t", &large, 1);
    }
    // Two in its hands, and two in the group.
    assert_eq!(world.counts().dropped_group, 4);
    assert_eq!(world.messages(a).len(), 4);
}
