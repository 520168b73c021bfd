//! What waits until it is stored, and what does not.

use super::*;

/// What a client sends, with what it has done before, and what it gets.
type Case = (&'static str, fn(&mut World, C), fn(&mut World, C) -> Got);

fn nothing(_: &mut World, _: C) {}

fn world() -> World {
    let mut world = World::new().stored(&Twin::new());
    let keeper = world.connect("keeper").clean(false).go();
    world.subscribe(keeper, "kept/#", 2);
    world.subscribe(keeper, "$share/g/shared", 2);
    world.disconnect(keeper);
    let clean = world.connect("clean").go();
    world.subscribe(clean, "clean/#", 2);
    world
}

/// A client's turn: what comes before the commit, and what comes after it.
fn before_and_after(world: &mut World, client: C, turn: impl FnOnce(&mut World)) -> [Vec<Got>; 2] {
    world.receive(client);
    world.commits = Commits::ByHand;
    turn(world);
    let before = world.receive(client);
    world.commit().expect("the disk is well");
    let after = world.receive(client);
    world.commits = Commits::AtOnce;
    [before, after]
}

const SENDS: [Case; 14] = [
    (
        "PUBACK, a message of an absent session",
        nothing,
        |world, a| Got::Puback(world.send_publish(a, "kept/1", "m", 1, false)),
    ),
    (
        "PUBREC, a message of an absent session",
        nothing,
        |world, a| Got::Pubrec(world.send_publish(a, "kept/1", "m", 2, false)),
    ),
    ("PUBACK, a message of a share group", nothing, |world, a| {
        Got::Puback(world.send_publish(a, "shared", "m", 1, false))
    }),
    ("PUBACK, retained", nothing, |world, a| {
        Got::Puback(world.send_publish(a, "r", "m", 1, true))
    }),
    ("PUBREC, retained", nothing, |world, a| {
        Got::Pubrec(world.send_publish(a, "r", "m", 2, true))
    }),
    (
        "PUBACK, retained no more",
        |world, a| world.publish_with(a, "r", "m", 1, true),
        |world, a| Got::Puback(world.send_publish(a, "r", "", 1, true)),
    ),
    (
        "PUBACK, retained no more since just now",
        |world, a| world.publish_with(a, "r", "m", 1, true),
        |world, a| {
            world.send_publish(a, "r", "", 0, true);
            Got::Puback(world.send_publish(a, "r", "", 1, true))
        },
    ),
    (
        "PUBACK, a job, and the queue for it",
        nothing,
        |world, a| Got::Puback(world.send_publish(a, "$queue/new", "m", 1, false)),
    ),
    (
        "PUBREC, a job",
        |world, a| world.publish(a, "$queue/jobs", "m", 1),
        |world, a| Got::Pubrec(world.send_publish(a, "$queue/jobs", "m", 2, false)),
    ),
    ("SUBACK", nothing, |world, a| {
        world.send(a, &subscribe(7, &[("a/b", 0)]));
        Got::Suback(7, vec![0])
    }),
    ("SUBACK of a share group", nothing, |world, a| {
        world.send(a, &subscribe(7, &[("$share/h/b", 2)]));
        Got::Suback(7, vec![2])
    }),
    ("SUBACK of a queue", nothing, |world, a| {
        world.send(a, &subscribe(7, &[("$queue/other", 2)]));
        Got::Suback(7, vec![2])
    }),
    (
        "UNSUBACK",
        |world, a| world.subscribe(a, "a/b", 1),
        |world, a| {
            world.send(a, &unsubscribe(7, &["a/b"]));
            Got::Unsuback(7)
        },
    ),
    (
        "UNSUBACK of a queue",
        |world, a| world.subscribe(a, "$queue/other", 1),
        |world, a| {
            world.send(a, &unsubscribe(7, &["$queue/other"]));
            Got::Unsuback(7)
        },
    ),
];

/// Case K01 of docs/security.md.
#[test]
fn an_acknowledgement_waits_until_all_is_stored_that_it_speaks_of() {
    for version in VERSIONS {
        for (what, prepare, send) in SENDS {
            let mut world = world();
            world.version = version;
            let a = world.connect("a").clean(false).go();
            prepare(&mut world, a);
            let mut expected = None;
            let got = before_and_after(&mut world, a, |world| expected = Some(send(world, a)));
            assert_eq!(got, [vec![], vec![expected.unwrap()]], "{what}");
        }
    }
}

#[test]
fn what_a_receiver_stores_the_publisher_waits_for_also_if_its_own_session_is_none() {
    for (what, prepare, send) in &SENDS[..8] {
        let mut world = world();
        let a = world.connect("a").go();
        prepare(&mut world, a);
        let mut expected = None;
        let got = before_and_after(&mut world, a, |world| expected = Some(send(world, a)));
        assert_eq!(got, [vec![], vec![expected.unwrap()]], "{what}");
    }
}

#[test]
fn connack_waits_where_a_session_begins_or_ends() {
    for version in VERSIONS {
        let mut world = world();
        world.version = version;
        let tells = world.tells_present();
        let connack = |present| vec![Got::Connack(present, ReasonCode::Success)];
        for (clean, present) in [(false, false), (false, true), (true, false)] {
            world.commits = Commits::ByHand;
            let link = world.connect("a").clean(clean).unseen();
            let a = world.add(link);
            assert_eq!(world.receive(a), [], "{clean}");
            world.commit().expect("the disk is well");
            assert_eq!(world.receive(a), connack(present && tells));
            world.commits = Commits::AtOnce;
            world.drop(a);
        }
        // There is nothing any more, and nothing new.
        world.commits = Commits::ByHand;
        let link = world.connect("a").clean(true).unseen();
        let a = world.add(link);
        assert_eq!(world.receive(a), connack(false));
        world.drop(a);
        // Nor is there for the second of these, but what is over is not yet.
        world.commits = Commits::AtOnce;
        world.connect("a").clean(false).go();
        world.commits = Commits::ByHand;
        for _ in 0..2 {
            let link = world.connect("a").clean(true).unseen();
            let a = world.add(link);
            assert_eq!(world.receive(a), []);
            world.drop(a);
        }
        world.commit().expect("the disk is well");
        let link = world.connect("a").clean(true).unseen();
        let a = world.add(link);
        assert_eq!(world.receive(a), connack(false));
    }
}

#[test]
fn what_needs_no_disk_does_not_wait_for_it() {
    for version in VERSIONS {
        let mut world = world();
        world.version = version;
        world.commits = Commits::ByHand;
        let operations = world.disk().operations();
        let a = world.connect("a").go();
        let b = world.connect("b").go();
        world.subscribe(b, "t/+", 2);
        world.subscribe(b, "$share/g2/s", 2);
        for topic in ["t/1", "s"] {
            for qos in 0..3 {
                world.publish(a, topic, "m", qos);
                assert_eq!(world.work(b).qos, qos);
            }
        }
        world.unsubscribe(b, "t/+");
        world.send(b, &Packet::Pingreq);
        world.expect(b, Got::Pingresp);
        // Sessions do not keep what is of QoS 0.
        let publisher = world.connect("p").go();
        world.publish(publisher, "kept/0", "m", 0);
        world.publish(publisher, "nobody", "m", 2);
        assert!(!world.core.store().commit(true).expect("the disk is well"));
        assert_eq!(world.disk().operations(), operations);
    }
}

#[test]
fn a_clean_session_gets_at_once_what_others_wait_for() {
    let mut world = world();
    let p = world.connect("p").go();
    let clean = world.connect("c").go();
    world.subscribe(clean, "kept/#", 1);
    let keeper = world.back("keeper");
    world.commits = Commits::ByHand;
    let id = world.send_publish(p, "kept/1", "m", 1, false);
    let other = world.send_publish(p, "clean/1", "m", 1, false);
    assert_eq!(world.payloads(clean), ["m"]);
    assert_eq!(world.receive(keeper), []);
    // In the order of the PUBLISHes, also what has nothing to wait for.
    assert_eq!(world.receive(p), []);
    world.commit().expect("the disk is well");
    assert_eq!(world.payloads(keeper), ["m"]);
    assert_eq!(world.receive(p), [Got::Puback(id), Got::Puback(other)]);
}

#[test]
fn a_delivery_that_has_to_be_known_later_waits() {
    for version in VERSIONS {
        for (filter, qos, topic) in [
            ("t", 1, "t"),
            ("t", 2, "t"),
            ("$queue/q", 1, "$queue/q"),
            ("$queue/q", 2, "$queue/q"),
            ("$queue/q", 0, "$queue/q"),
            ("$share/g3/t", 2, "t"),
        ] {
            let mut world = world();
            world.version = version;
            let a = world.connect("a").clean(false).go();
            world.subscribe(a, filter, qos);
            let p = world.connect("p").go();
            let got = before_and_after(&mut world, a, |world| {
                world.send_publish(p, topic, "m", 2, false);
            });
            assert_eq!(got[0], [], "{filter} {qos}");
            assert!(matches!(&got[1][..], [Got::Publish(message)] if message.qos == qos));
        }
    }
}

#[test]
fn pubrel_waits_for_what_pubrec_said() {
    for filter in ["t", "$queue/t"] {
        let mut world = world();
        let a = world.connect("a").clean(false).go();
        world.subscribe(a, filter, 2);
        let p = world.connect("p").go();
        world.publish(p, filter, "m", 2);
        let message = world.messages(a).remove(0);
        let id = message.id;
        let got = before_and_after(&mut world, a, |world| world.send(a, &pubrec(id)));
        assert_eq!(got, [vec![], vec![Got::Pubrel(id)]]);
    }
}

#[test]
fn a_queue_may_ask_for_less_and_a_listener_for_more() {
    for (general, of_queue, of_listener, kept_by_cut, kept_by_kill) in [
        (Durability::Synced, None, None, true, true),
        (
            Durability::Synced,
            Some(Durability::Flushed),
            None,
            false,
            true,
        ),
        (
            Durability::Synced,
            Some(Durability::Memory),
            None,
            false,
            false,
        ),
        (Durability::Memory, None, None, false, false),
        (
            Durability::Memory,
            Some(Durability::Synced),
            None,
            true,
            true,
        ),
        (
            Durability::Memory,
            None,
            Some(Durability::Synced),
            true,
            true,
        ),
        (Durability::Flushed, None, None, false, true),
        (
            Durability::Flushed,
            None,
            Some(Durability::Synced),
            true,
            true,
        ),
        (
            Durability::Flushed,
            Some(Durability::Memory),
            None,
            false,
            false,
        ),
        (
            Durability::Synced,
            Some(Durability::Memory),
            Some(Durability::Flushed),
            false,
            true,
        ),
    ] {
        let case = (general, of_queue, of_listener);
        let configure = |config: &mut Config| {
            config.store.durability = general;
            config.queue.push(QueueSettings {
                durability: of_queue,
                ..queue("q")
            });
        };
        for (kill, kept) in [(false, kept_by_cut), (true, kept_by_kill)] {
            let mut world = World::with(configure).stored(&Twin::new());
            // The queue itself is there for long.
            world.core.store().commit(true).expect("the disk is well");
            world.listener.durability = of_listener;
            let p = world.connect("p").go();
            world.commits = Commits::ByHand;
            let id = world.send_publish(p, "$queue/q", "m", 1, false);
            let waits = kept_by_kill;
            assert_eq!(world.receive(p).is_empty(), waits, "{case:?}");
            world.commit().expect("the disk is well");
            if waits {
                assert_eq!(world.receive(p), [Got::Puback(id)], "{case:?}");
            }
            world.commits = Commits::AtOnce;
            let disk = match kill {
                true => world.disk().kill(),
                false => world.disk().cut(),
            };
            world.restart_as(&disk);
            world.listener.durability = None;
            let a = world.connect("a").go();
            world.subscribe(a, "$queue/q", 1);
            assert_eq!(world.payloads(a).len(), usize::from(kept), "{case:?}");
        }
    }
}

#[test]
fn what_is_only_handed_to_the_system_is_synced_with_the_next_round() {
    let mut world = World::with(|config| config.store.durability = Durability::Flushed);
    world = world.stored(&Twin::new());
    let p = world.connect("p").go();
    world.publish(p, "$queue/q", "m", 1);
    world.core.store().commit(true).expect("the disk is well");
    world.restart();
    let a = world.connect("a").go();
    world.subscribe(a, "$queue/q", 1);
    assert_eq!(world.payloads(a), ["m"]);
}

/// Case K05 of docs/security.md.
#[test]
fn after_a_failed_write_nothing_is_acknowledged() {
    use rotamq::store::twin::Fault;
    for fault in [Fault::Failed, Fault::Full] {
        // The write, or the sync behind it.
        for nth in 1..=2 {
            for (what, prepare, send) in SENDS {
                let mut world = world();
                let a = world.connect("a").clean(false).go();
                prepare(&mut world, a);
                world.commits = Commits::ByHand;
                world.disk().fail_at(nth, fault);
                send(&mut world, a);
                let failed = world.commit().expect_err(what);
                assert_eq!(world.core.store().failure(), Some(failed));
                for _ in 0..3 {
                    assert!(world.core.store().commit(true).is_err());
                    send(&mut world, a);
                    assert!(world.commit().is_err());
                }
                world.drive();
                assert_eq!(world.receive(a), [], "{what}, {fault:?} at {nth}");
            }
        }
    }
}

/// Case K51 of docs/security.md.
#[test]
fn a_disk_that_is_nearly_full_refuses_what_would_be_stored_and_settling_works_on() {
    let mut world = World::new();
    world.version = Version::V5;
    world = world.stored(&Twin::new());
    let worker = world.connect("worker").clean(false).go();
    world.subscribe(worker, "$queue/q", 2);
    world.subscribe(worker, "t", 1);
    let clean = world.connect("clean").go();
    world.subscribe(clean, "c", 2);
    let p = world.connect("p").go();
    world.publish(p, "$queue/q", "job", 1);
    world.publish(p, "t", "m", 1);
    world.disk().set_free_bytes(FREE_BYTES_MIN - 1);
    world.core.store().watch_free();
    for (topic, retain) in [
        ("$queue/q", false),
        ("t", false),
        ("r", true),
        ("$queue/new", false),
    ] {
        for qos in 1..3 {
            let id = world.send_publish(p, topic, "late", qos, retain);
            let refused = Got::Refused(id, ReasonCode::QuotaExceeded);
            assert_eq!(world.receive(p), [refused], "{topic} {qos}");
        }
    }
    world.publish(p, "c", "m", 2);
    assert_eq!(world.work(clean).payload, "m");
    for _ in 0..2 {
        world.work(worker);
    }
    world.unsubscribe(worker, "t");
    world.disk().set_free_bytes(FREE_BYTES_MIN * 2);
    world.core.store().watch_free();
    world.publish(p, "$queue/q", "after", 2);
    assert_eq!(world.work(worker).payload, "after");
    world.restart();
    let worker = world.back("worker");
    assert_eq!(world.receive(worker), []);
}

#[test]
fn a_client_that_is_back_gets_what_is_there_also_while_more_comes() {
    let mut world = world();
    let p = world.connect("p").go();
    for n in 0..3 {
        world.publish(p, "kept/1", &n.to_string(), 1);
    }
    world.commits = Commits::ByHand;
    let (_, (connect, properties)) = world.connect("keeper").clean(false).parts();
    let keeper = world
        .try_connect(&connect, &properties)
        .expect("it is accepted");
    world.core.store().commit(false).expect("the disk is well");
    // Not stored when the session is looked after.
    for n in 3..5 {
        world.send_publish(p, "kept/1", &n.to_string(), 1, false);
    }
    world.drive();
    world.commit().expect("the disk is well");
    let got = world.receive(keeper);
    assert_eq!(got.len(), 1 + 5, "CONNACK and all messages: {got:?}");
}
