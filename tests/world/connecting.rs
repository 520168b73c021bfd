//! Connections and their sessions: coming, going, taking over.

use super::*;

#[test]
fn a_client_comes_and_goes_and_nothing_is_left() {
    in_each_version(|mut world| {
        let a = world.connect("a").go();
        world.subscribe(a, "t", 1);
        world.send(a, &Packet::Pingreq);
        assert_eq!(world.receive(a), [Got::Pingresp]);
        world.disconnect(a);
        assert_eq!(
            (world.core.sessions_len(), world.core.subscriptions_len()),
            (0, 0)
        );
        assert!(!world.connect("a").clean(false).go_present().1);
    });
}

#[test]
fn a_session_waits_for_its_client() {
    in_each_version(|mut world| {
        let a = world.connect("a").clean(false).go();
        world.subscribe(a, "t", 1);
        world.drop(a);
        let b = world.connect("b").go();
        world.publish(b, "t", "away", 1);
        world.publish(b, "t", "lost", 0);
        assert_eq!(world.counts().dropped_absent, 1);
        let (a, present) = world.connect("a").clean(false).go_present();
        assert_eq!(present, world.tells_present());
        assert_eq!(world.work(a).payload, "away");
        world.publish(b, "t", "here", 1);
        assert_eq!(world.work(a).payload, "here");
        // A clean session discards what is there, and leaves nothing behind.
        world.disconnect(a);
        let (a, present) = world.connect("a").clean(true).go_present();
        assert!(!present);
        world.publish(b, "t", "nobody", 1);
        assert_eq!(world.receive(a), []);
        world.disconnect(a);
        assert!(!world.connect("a").clean(false).go_present().1);
    });
}

#[test]
fn the_session_of_a_client_that_stays_away_ends() {
    let configure = |config: &mut Config| config.session.expiry_default = secs(600);
    in_each_version_with(configure, |mut world| {
        let a = world.connect("a").clean(false).go();
        world.subscribe(a, "t", 1);
        world.drop(a);
        world.advance(secs(599));
        // Each absence counts anew.
        let (a, present) = world.connect("a").clean(false).go_present();
        assert_eq!(present, world.tells_present());
        world.advance(secs(10_000));
        world.drop(a);
        world.advance(secs(600) - TICK);
        assert_eq!(world.core.sessions_len(), 1);
        world.advance(TICK * 2);
        assert_eq!(
            (world.core.sessions_len(), world.core.subscriptions_len()),
            (0, 0)
        );
        assert_eq!(world.counts().sessions_expired, 1);
        assert!(!world.connect("a").clean(false).go_present().1);
    });
}

/// Case F05 of docs/security.md.
#[test]
fn a_second_connection_takes_over() {
    in_each_version(|mut world| {
        for (first_clean, second_clean) in
            [(true, true), (true, false), (false, true), (false, false)]
        {
            let taken = world.counts().sessions_taken_over;
            let first = world.connect("a").clean(first_clean).go();
            world.subscribe(first, "t", 1);
            let (second, present) = world.connect("a").clean(second_clean).go_present();
            assert_eq!(world.closed(first), Some(ReasonCode::SessionTakenOver));
            let resumed = !first_clean && !second_clean;
            assert_eq!(present, resumed && world.tells_present());
            assert_eq!(world.core.sessions_len(), 1);
            assert_eq!(world.counts().sessions_taken_over, taken + 1);
            assert!(world.is_open(second));
            let b = world.connect("b").go();
            world.publish(b, "t", "m", 1);
            assert_eq!(world.receive(second).len(), usize::from(resumed));
            world.disconnect(b);
            world.disconnect(second);
            let last = world.connect("a").clean(true).go();
            world.disconnect(last);
            assert_eq!(world.core.sessions_len(), 0);
        }
    });
}

/// What the old connection had sent before it learnt of its end is nothing to
/// the new one.
/// Case F05 of docs/security.md.
#[test]
fn a_connection_that_was_taken_over_changes_nothing() {
    in_each_version(|mut world| {
        for clean in [true, false] {
            let first = world.connect("a").clean(clean).go();
            let b = world.connect("b").go();
            world.subscribe(first, "t", 1);
            world.publish(b, "t", "m", 1);
            let [message] = &world.messages(first)[..] else {
                panic!("one message");
            };
            let id = message.id;
            // The new one is there; the old one has not looked yet.
            let link = world.connect("a").clean(clean).unseen();
            let settled = id.to_string();
            let late = [
                subscribe(7, &[("late", 1), ("$queue/late", 1), ("$share/g/late", 1)]),
                unsubscribe(8, &["t"]),
                puback(id),
                pubrec(id),
                pubcomp(id),
                publish("$queue/$nack", &settled, 1, 9),
            ];
            let before = world.core.subscriptions_len();
            world.handle(first, &late).expect("nothing to complain of");
            assert_eq!(world.core.subscriptions_len(), before);
            world.turn(first, true);
            assert_eq!(world.closed(first), Some(ReasonCode::SessionTakenOver));
            assert_eq!(world.receive(first), [], "its answers go nowhere");
            let second = world.add(link);
            let mut got = world.receive(second);
            let present = !clean && world.tells_present();
            assert_eq!(got.remove(0), Got::Connack(present, ReasonCode::Success));
            match clean {
                true => assert_eq!(got, []),
                false => assert_eq!(
                    got,
                    [Got::Publish(Message {
                        dup: true,
                        ..message.clone()
                    })],
                ),
            }
            world.publish(b, "late", "m", 1);
            assert_eq!(world.receive(second), []);
            world.disconnect(second);
            let last = world.connect("a").go();
            world.disconnect(last);
            world.disconnect(b);
        }
    });
}

/// Case C22 of docs/security.md.
#[test]
fn keep_alive_ends_a_connection_after_one_and_a_half_times() {
    in_each_version(|mut world| {
        let a = world
            .connect("a")
            .keep_alive(10)
            .will("w", "lost", 0, false)
            .go();
        let b = world.connect("b").go();
        world.subscribe(b, "w", 0);
        world.advance(secs(14));
        world.send(a, &Packet::Pingreq);
        world.advance(secs(15) - Duration::from_micros(1));
        assert!(world.is_open(a), "never early");
        world.advance(TICK + Duration::from_micros(1));
        assert_eq!(world.closed(a), Some(ReasonCode::KeepAliveTimeout));
        assert_eq!(world.payloads(b), ["lost"]);
        // Without keep alive nothing is asked for.
        world.advance(secs(10_000_000));
        assert!(world.is_open(b));
    });
}

/// Case C22 of docs/security.md.
#[test]
fn a_long_keep_alive_is_kept_too() {
    let mut world = World::new();
    let a = world.connect("a").keep_alive(u16::MAX).go();
    world.advance(secs(98_302));
    assert!(world.is_open(a));
    world.advance(secs(1));
    assert_eq!(world.closed(a), Some(ReasonCode::KeepAliveTimeout));
}

#[test]
fn any_packet_keeps_a_connection_alive() {
    let mut world = World::new();
    let a = world.connect("a").keep_alive(10).go();
    let packets = [
        Packet::Pingreq,
        publish("t", "m", 0, 0),
        publish("t", "m", 1, 1),
        subscribe(1, &[("t", 0)]),
        puback(77),
        pubrel(78),
    ];
    for packet in packets {
        world.advance(secs(14));
        world.send(a, &packet);
    }
    world.advance(secs(14));
    assert!(world.is_open(a));
}

/// Case B07 of docs/security.md.
#[test]
fn a_client_without_an_id_gets_one() {
    let mut world = World::new();
    let first = world.connect("").go();
    let second = world.connect("").go();
    assert!(world.is_open(first) && world.is_open(second));
    assert_eq!(world.core.sessions_len(), 2);
    let reason = world.connect("").clean(false).refused();
    assert_eq!(reason, ReasonCode::ClientIdentifierNotValid);
    world.version = Version::V3_1;
    let reason = world.connect("").refused();
    assert_eq!(reason, ReasonCode::ClientIdentifierNotValid);
}

/// Case B08 of docs/security.md.
#[test]
fn a_second_connect_ends_the_connection() {
    in_each_version(|mut world| {
        let a = world.connect("a").will("w", "will", 0, false).go();
        let b = world.connect("b").go();
        world.subscribe(b, "w", 0);
        let again = world.connect("a").packet();
        world.send(a, &again);
        assert_eq!(world.closed(a), Some(ReasonCode::ProtocolError));
        assert_eq!(world.payloads(b), ["will"]);
    });
}

/// A device that reconnects all day leaves no timers behind but for a while.
/// Case C14 of docs/security.md.
#[test]
fn connecting_again_and_again_costs_nothing() {
    let mut world = World::new();
    for round in 0..2_000 {
        let a = world
            .connect("a")
            .clean(round % 7 == 0)
            .keep_alive(3600)
            .go();
        world.subscribe(a, "t", 1);
        world.advance(secs(1));
        match round % 2 {
            0 => world.drop(a),
            _ => world.disconnect(a),
        }
        assert!(world.timers() < 200, "{} timers", world.timers());
    }
    let a = world.connect("a").go();
    world.disconnect(a);
    assert_eq!(
        (world.core.sessions_len(), world.core.subscriptions_len()),
        (0, 0)
    );
}
