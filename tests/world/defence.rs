//! Who connects too often, too many of one user, and little memory.

use super::*;
use rotamq::broker::Shedding;

fn connects(max: u32) -> impl Fn(&mut Config) {
    move |config: &mut Config| {
        let ban = &mut config.authentication.ban;
        ban.connects_per_client_max = max;
        ban.connects_within = secs(10);
        ban.lasts = secs(60);
    }
}

/// F10: two clients take the session from each other; the ban leaves it with
/// one of them.
#[test]
fn who_fights_for_a_session_is_banned_and_who_has_it_keeps_it() {
    in_each_version_with(connects(6), |mut world| {
        world.who = user("ann");
        let mut last = None;
        for _ in 0..6 {
            last = Some(world.connect("x").clean(false).go());
        }
        let last = last.unwrap();
        for _ in 0..3 {
            let reason = world.connect("x").clean(false).refused();
            assert_eq!(reason, ReasonCode::Banned);
        }
        world.send(last, &Packet::Pingreq);
        assert_eq!(world.receive(last), [Got::Pingresp]);
        let counts = world.counts();
        assert_eq!((counts.bans, counts.refused_flapping), (1, 3));
        assert_eq!(counts.connections_refused, 3);
        assert_eq!(counts.sessions_taken_over, 5);
        // Others are not meant: another client, and another user's.
        world.connect("y").go();
        world.drop(last);
        world.advance(secs(60));
        world.connect("x").clean(false).go();
    });
}

/// A stranger who uses up a device's identifier shuts out nobody but itself.
#[test]
fn another_user_bans_nobody_but_itself() {
    in_each_version_with(connects(3), |mut world| {
        world.who = user("eve");
        for _ in 0..3 {
            let eve = world.connect("x").go();
            world.disconnect(eve);
        }
        assert_eq!(world.connect("x").refused(), ReasonCode::Banned);
        world.who = user("ann");
        let ann = world.connect("x").go();
        assert!(world.is_open(ann));
        // What is refused for another reason is not counted.
        world.who = user("bob");
        for _ in 0..6 {
            let reason = world.connect("x").refused();
            assert_eq!(reason, ReasonCode::ClientIdentifierNotValid);
        }
        world.drop(ann);
        world.who = user("ann");
        world.connect("x").go();
    });
}

/// A device for which there is no place now is not one that comes too often; and
/// a session whose client does not get in stays as it is.
#[test]
fn who_finds_no_place_is_not_banned_and_loses_nothing() {
    let configure = |config: &mut Config| {
        connects(3)(config);
        config.limits.connections_per_user_max = 1;
    };
    in_each_version_with(configure, |mut world| {
        world.who = user("ann");
        let second = world.connect("second").clean(false).go();
        world.drop(second);
        let first = world.connect("first").go();
        for clean in [true, false, true, false, true] {
            let reason = world.connect("second").clean(clean).refused();
            assert_eq!(reason, ReasonCode::QuotaExceeded);
        }
        assert_eq!(world.core.sessions_len(), 2);
        // Who takes its own session over needs no other place.
        let again = world.connect("first").go();
        assert!(!world.is_open(first) && world.is_open(again));
        let reason = world.connect("second").clean(false).refused();
        assert_eq!(reason, ReasonCode::QuotaExceeded);
        world.disconnect(again);
        world.connect("second").clean(false).go();
    });
}

/// Who leaves its identifier to the broker is another client each time.
#[test]
fn identifiers_that_the_broker_makes_up_are_nobodys() {
    let mut world = World::with(connects(1));
    for _ in 0..100 {
        world.connect("").go();
    }
    assert_eq!(world.counts().refused_flapping, 0);
}

/// C14: what a connection that was taken over leaves behind is nothing.
#[test]
fn a_hundred_thousand_take_overs() {
    let mut world = World::with(connects(0));
    let mut client = world.connect("x").clean(false).go();
    for _ in 1..100_000 {
        let next = world.connect("x").clean(false).go();
        assert_eq!(world.closed(client), Some(ReasonCode::SessionTakenOver));
        client = next;
        world.clients.drain(..client.0);
        client = C(0);
    }
    assert_eq!(world.counts().sessions_taken_over, 99_999);
    assert_eq!(world.core.sessions_len(), 1);
    assert!(world.timers() <= 1, "{} timers", world.timers());
}

fn per_user(max: u32) -> impl Fn(&mut Config) {
    move |config: &mut Config| config.limits.connections_per_user_max = max
}

/// C25: at 1 and at more.
#[test]
fn a_user_has_no_more_connections_than_allowed() {
    for max in [1, 2, 5] {
        in_each_version_with(per_user(max), |mut world| {
            world.who = user("ann");
            let mut open: Vec<C> = (0..max)
                .map(|n| world.connect(&format!("a{n}")).clean(n % 2 == 0).go())
                .collect();
            for clean in [true, false] {
                let reason = world.connect("more").clean(clean).refused();
                assert_eq!(reason, ReasonCode::QuotaExceeded);
            }
            assert_eq!(world.counts().refused_user_full, 2);
            // A client that comes again takes its own place.
            let again = world.connect("a0").go();
            assert_eq!(world.closed(open[0]), Some(ReasonCode::SessionTakenOver));
            open[0] = again;
            assert_eq!(world.connect("more").refused(), ReasonCode::QuotaExceeded);
            // Others have their own, and nobody has any.
            world.who = user("ben");
            world.connect("b").go();
            world.who = Authenticated::ANONYMOUS;
            for n in 0..=max {
                world.connect(&format!("n{n}")).go();
            }
            // Each way to leave gives one back.
            world.who = user("ann");
            world.disconnect(open[0]);
            open[0] = world.connect("other").clean(false).go();
            world.drop(open[0]);
            open[0] = world.connect("other").clean(false).go();
            assert_eq!(world.connect("more").refused(), ReasonCode::QuotaExceeded);
            for client in open {
                world.drop(client);
            }
            for n in 0..max {
                world.connect(&format!("new{n}")).go();
            }
            assert_eq!(world.connect("more").refused(), ReasonCode::QuotaExceeded);
        });
    }
    let mut world = World::with(per_user(0));
    world.who = user("ann");
    for n in 0..100 {
        world.connect(&format!("a{n}")).go();
    }
}

/// A session that is full ends with its connection: the place is free.
#[test]
fn a_session_that_ends_gives_its_place_back() {
    let mut world = World::with(|config| {
        config.limits.connections_per_user_max = 1;
        config.limits.session_messages_max = 1;
        config.limits.inflight_max = 1;
    });
    let p = world.connect("p").go();
    world.who = user("ann");
    for _ in 0..3 {
        let a = world.connect("a").go();
        world.subscribe(a, "t", 1);
        for _ in 0..3 {
            world.publish(p, "t", "m", 1);
        }
        assert_eq!(world.closed(a), Some(ReasonCode::QuotaExceeded));
    }
}

/// C19: what is shed first, who is spared, and that it ends by itself.
#[test]
fn with_little_memory_newcomers_are_refused() {
    let configure = |config: &mut Config| config.limits.memory_bytes_max = Some(1000);
    in_each_version_with(configure, |mut world| {
        let a = world.connect("a").clean(false).go();
        world.subscribe(a, "t", 1);
        world.drop(a);
        let p = world.connect("p").go();
        world.core.note_memory(900, world.now);
        assert_eq!(world.core.memory().shedding(), Shedding::Newcomers);
        assert_eq!(world.connect("new").refused(), ReasonCode::ServerBusy);
        world.publish(p, "t", "kept", 1);
        world.core.note_memory(1000, world.now);
        assert!(world.core.memory().is_slowing());
        assert_eq!(world.connect("new").refused(), ReasonCode::ServerBusy);
        assert_eq!(world.counts().refused_memory, 2);
        // Who has a session comes for what waits, and frees it.
        let a = world.connect("a").clean(false).go();
        assert_eq!(world.work(a).payload, "kept");
        world.core.note_memory(899, world.now);
        assert_eq!(world.connect("new").refused(), ReasonCode::ServerBusy);
        world.core.note_memory(849, world.now);
        world.connect("new").go();
    });
}

/// Who finds this server short of memory is sent to the other one, if there is.
#[test]
fn with_little_memory_newcomers_are_referred_elsewhere() {
    let mut world = World::with(|config| {
        config.limits.memory_bytes_max = Some(1);
        config.session.server_reference = "other:1883".to_owned();
    });
    world.core.note_memory(1, world.now);
    assert_eq!(world.connect("new").refused(), ReasonCode::UseAnotherServer);
}

/// Whoever adds a way to be refused counts it: none is found by subtraction.
#[test]
fn each_refused_connection_has_a_reason() {
    let configure = |config: &mut Config| config.limits.connections_per_user_max = 1;
    in_each_version_with(configure, |mut world| {
        world.who = user("ann");
        world.connect("a").go();
        world.connect("b").refused();
        world.connect("$broker").refused();
        let counts = world.counts();
        let of = (counts.refused_user_full, counts.refused_other);
        assert_eq!((counts.connections_refused, of), (2, (1, 1)));
    });
}
