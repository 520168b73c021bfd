//! What one client may take, at each limit and one beyond.

use super::*;
use rotamq::config::SessionFull;

fn inflight(max: u16) -> impl Fn(&mut Config) {
    move |config: &mut Config| config.limits.inflight_max = max
}

/// Case D13 of docs/security.md.
#[test]
fn the_window_holds_what_inflight_max_says() {
    for max in [1, 2, 100] {
        in_each_version_with(inflight(max), |mut world| {
            let a = world.connect("a").go();
            let b = world.connect("b").go();
            world.subscribe(a, "t", 2);
            for n in 0..max + 1 {
                world.publish(b, "t", &n.to_string(), 1 + (n % 2) as u8);
            }
            // QoS 0 takes no place in it.
            world.publish(b, "t", "zero", 0);
            let mut came = world.messages(a);
            assert_eq!(came.pop().unwrap().payload, "zero");
            assert_eq!(came.len(), usize::from(max));
            // At QoS 2 the place is free with PUBCOMP, not before.
            let first = &came[0];
            match first.qos {
                1 => world.send(a, &puback(first.id)),
                _ => {
                    world.send(a, &pubrec(first.id));
                    assert_eq!(world.receive(a), [Got::Pubrel(first.id)]);
                    world.send(a, &pubcomp(first.id));
                }
            }
            assert_eq!(world.payloads(a), [max.to_string()]);
        });
    }
}

/// Messages for an absent client, up to what may wait and one more.
fn fill(world: &mut World, count: usize) -> C {
    let a = world
        .connect("a")
        .clean(false)
        .will("w", "will", 0, false)
        .go();
    world.subscribe(a, "t", 1);
    world.disconnect(a);
    let p = world.connect("p").go();
    for n in 0..count {
        world.send_publish(p, "t", &n.to_string(), 1, false);
    }
    p
}

fn waiting(max: usize, full: SessionFull) -> impl Fn(&mut Config) {
    move |config: &mut Config| {
        config.limits.session_messages_max = max;
        config.session.full = full;
    }
}

/// Case C08 of docs/security.md.
#[test]
fn a_full_session_ends() {
    for max in [1, 2, 10] {
        in_each_version_with(waiting(max, SessionFull::End), |mut world| {
            let p = fill(&mut world, max);
            assert_eq!(world.core.sessions_len(), 2);
            world.publish(p, "t", "one more", 1);
            assert_eq!(world.core.sessions_len(), 1);
            let counts = world.counts();
            assert_eq!(counts.sessions_overflowed, 1);
            assert_eq!(counts.dropped_session_ended as usize, max);
            let (a, present) = world.connect("a").clean(false).go_present();
            assert!(!present);
            assert_eq!(world.receive(a), []);
        });
    }
}

#[test]
fn a_full_session_ends_with_its_connection() {
    let mut world = World::with(|config| {
        config.limits.session_messages_max = 1;
        config.limits.inflight_max = 1;
    });
    let b = world.connect("b").go();
    world.subscribe(b, "w", 0);
    for clean in [true, false] {
        let a = world
            .connect("a")
            .clean(clean)
            .will("w", "will", 0, false)
            .go();
        world.subscribe(a, "t", 1);
        for n in 0..2 {
            world.publish(b, "t", &n.to_string(), 1);
        }
        assert!(world.is_open(a));
        world.publish(b, "t", "2", 1);
        assert_eq!(world.closed(a), Some(ReasonCode::QuotaExceeded));
        assert_eq!(world.payloads(b), ["will"]);
        assert_eq!(
            (world.core.sessions_len(), world.core.subscriptions_len()),
            (1, 1)
        );
    }
}

#[test]
fn a_full_session_drops_its_oldest_where_it_is_told_to() {
    for max in [1, 2, 10] {
        in_each_version_with(waiting(max, SessionFull::DropOldest), |mut world| {
            fill(&mut world, max + 3);
            assert_eq!(world.counts().dropped_oldest, 3);
            let a = world.connect("a").clean(false).go();
            let expected: Vec<String> = (3..max + 3).map(|n| n.to_string()).collect();
            assert_eq!(world.payloads(a), expected);
        });
    }
}

/// The publisher waits, and others do not.
/// Case C08 of docs/security.md.
#[test]
fn a_full_session_holds_the_publisher_back_where_it_is_told_to() {
    for max in [1, 2, 10] {
        where_publishers_are_held_back(waiting(max, SessionFull::Refuse), |mut world| {
            let b = world.connect("b").go();
            world.subscribe(b, "t", 0);
            let p = fill(&mut world, max + 1);
            assert_eq!(world.payloads(b).len(), max, "by all or by none");
            assert_eq!(world.receive(p).len(), max);
            world.send(p, &Packet::Pingreq);
            assert_eq!(world.receive(p), [Got::Pingresp]);
            world.advance(secs(5));
            assert_eq!(world.receive(p), []);
            let a = world.connect("a").clean(false).go();
            world.advance(secs(1));
            assert_eq!(world.receive(p).len(), 1);
            assert_eq!(world.payloads(a).len(), max + 1);
            assert_eq!(world.payloads(b), [max.to_string()]);
            assert_eq!(world.counts().sessions_overflowed, 0);
        });
    }
}

#[test]
fn a_session_that_stays_full_costs_the_held_publisher_its_connection() {
    let mut world = World::with(waiting(1, SessionFull::Refuse));
    let p = fill(&mut world, 2);
    world.advance(secs(10) - TICK);
    assert!(world.is_open(p));
    world.advance(TICK * 2);
    assert_eq!(world.closed(p), Some(ReasonCode::QuotaExceeded));
}

#[test]
fn a_session_keeps_no_more_bytes_than_allowed() {
    const BYTES: usize = 64 << 10;
    for away in [true, false] {
        let mut world = World::with(|config| config.limits.session_bytes_max = BYTES);
        let a = world.connect("a").clean(false).go();
        world.subscribe(a, "t", 1);
        if away {
            world.drop(a);
        }
        let p = world.connect("p").go();
        // Fewer than inflight_max: what is in flight counts too.
        let payload = "x".repeat(10_000);
        for _ in 0..6 {
            world.publish(p, "t", &payload, 1);
        }
        assert_eq!(world.counts().sessions_overflowed, 0);
        world.publish(p, "t", &payload, 1);
        assert_eq!(world.counts().sessions_overflowed, 1, "away: {away}");
    }
}

/// What is acknowledged is given back, whichever way a message and a session
/// go: the account is even after any number of rounds.
#[test]
fn the_account_of_bytes_does_not_drift() {
    let mut world = World::with(|config| {
        config.limits.session_bytes_max = 4 << 10;
        config.limits.inflight_max = 2;
    });
    let p = world.connect("p").go();
    let payload = "x".repeat(300);
    let mut a = world.connect("a").clean(false).go();
    world.subscribe(a, "t", 2);
    world.subscribe(a, "$queue/jobs", 2);
    for round in 0..100 {
        for qos in [1, 2] {
            world.publish(p, "t", &payload, qos);
        }
        world.publish(p, "$queue/jobs", &payload, 1);
        while let Some(Got::Publish(message)) = world.take(a) {
            world.acknowledge(a, &message);
        }
        if round % 3 == 0 {
            // The first is on its way, the second was never written.
            world.clog(a, true);
            world.publish(p, "$queue/jobs", &payload, 1);
            world.publish(p, "$queue/jobs", &payload, 1);
            world.drop(a);
            a = world.connect("a").clean(false).go();
        }
    }
    assert_eq!(world.counts().sessions_overflowed, 0);
}

/// Case C02 of docs/security.md.
#[test]
fn a_client_has_no_more_subscriptions_than_allowed() {
    let mut world = World::with(|config| config.limits.subscriptions_per_client_max = 3);
    let a = world.connect("a").go();
    let filters = [("1", 0), ("$queue/2", 0), ("$share/g/3", 0), ("4", 0)];
    assert_eq!(world.try_subscribe(a, &filters), [0, 0, 0, 0x80]);
    assert_eq!(
        world.try_subscribe(a, &[("$share/h/5", 1), ("$queue/6", 1)]),
        [0x80; 2]
    );
    // Those that are there may be changed.
    let again = [("1", 1), ("$queue/2", 1), ("$share/g/3", 1)];
    assert_eq!(world.try_subscribe(a, &again), [1, 1, 1]);
    world.unsubscribe(a, "1");
    world.subscribe(a, "4", 0);
    // Others have a count of their own.
    let b = world.connect("b").go();
    assert_eq!(world.try_subscribe(b, &filters), [0, 0, 0, 0x80]);
}

/// Case C51 of docs/security.md.
#[test]
fn there_are_no_more_sessions_than_allowed() {
    let mut world = World::with(|config| config.limits.sessions_max = 2);
    let a = world.connect("a").clean(false).go();
    world.drop(a);
    world.connect("b").go();
    assert_eq!(world.connect("c").refused(), ReasonCode::QuotaExceeded);
    world.connect("a").clean(false).go();
    let b = world.connect("b").go();
    world.disconnect(b);
    world.connect("c").go();
}

/// Case F07 of docs/security.md.
#[test]
fn topics_and_client_ids_have_limits() {
    let mut world = World::with(|config| {
        config.limits.topic_bytes_max = 20;
        config.limits.topic_levels_max = 3;
        config.limits.client_id_bytes_max = 30;
    });
    world.connect(&"c".repeat(30)).go();
    let reason = world.connect(&"c".repeat(31)).refused();
    assert_eq!(reason, ReasonCode::ClientIdentifierNotValid);
    let (long, longer) = ("t".repeat(20), "t".repeat(21));
    for (topic, fits) in [
        (&*long, true),
        (&*longer, false),
        ("a/b/c", true),
        ("a/b/c/d", false),
    ] {
        let a = world.connect("a").go();
        let codes = world.try_subscribe(a, &[(topic, 1)]);
        assert_eq!(codes, [if fits { 1 } else { 0x80 }]);
        world.send_publish(a, topic, "m", 1, false);
        assert_eq!(world.is_open(a), fits);
    }
}

/// Case C07 of docs/security.md.
#[test]
fn who_does_not_read_loses_qos_0_and_only_that() {
    in_each_version_with(
        |config| config.limits.outbox_bytes_max = 10_000,
        |mut world| {
            let slow = world.connect("slow").go();
            let other = world.connect("other").go();
            let p = world.connect("p").go();
            world.subscribe(slow, "t", 1);
            world.subscribe(other, "t", 1);
            world.clog(slow, true);
            let payload = "x".repeat(1000);
            for _ in 0..50 {
                world.publish(p, "t", &payload, 0);
            }
            world.publish(p, "t", "last", 1);
            let dropped = world.counts().dropped_slow as usize;
            assert!((25..45).contains(&dropped), "{dropped} dropped");
            assert_eq!(world.messages(other).len(), 51);
            world.clog(slow, false);
            let came = world.payloads(slow);
            assert_eq!(came.len(), 51 - dropped);
            assert_eq!(came.last().unwrap(), "last");
        },
    );
}

/// A session that neither reads nor acknowledges, at QoS 1: others go on.
/// Case C05 of docs/security.md.
#[test]
fn who_does_not_read_costs_no_more_than_allowed() {
    let mut world = World::with(waiting(1000, SessionFull::End));
    let slow = world.connect("slow").go();
    let other = world.connect("other").go();
    let p = world.connect("p").go();
    world.subscribe(slow, "t", 1);
    world.subscribe(other, "t", 1);
    world.clog(slow, true);
    for n in 0..1200 {
        world.publish(p, "t", &n.to_string(), 1);
        assert_eq!(world.work(other).payload, n.to_string());
    }
    assert_eq!(world.closed(slow), Some(ReasonCode::QuotaExceeded));
    assert_eq!(world.core.sessions_len(), 2);
}

/// C07: a client that does not read loses messages, and no answer.
#[test]
fn answers_come_however_full_the_outbox_is() {
    let configure = |config: &mut Config| config.limits.outbox_bytes_max = 10_000;
    in_each_version_with(configure, |mut world| {
        let slow = world.connect("slow").go();
        let p = world.connect("p").go();
        world.subscribe(slow, "t", 1);
        world.clog(slow, true);
        let payload = "x".repeat(1000);
        for _ in 0..50 {
            world.publish(p, "t", &payload, 0);
        }
        let dropped = world.counts().dropped_slow;
        assert!(dropped > 0);
        let asked = [
            subscribe(7, &[("u", 1)]),
            unsubscribe(8, &["u"]),
            publish("v", "m", 1, 9),
            publish("v", "m", 2, 10),
            Packet::Pingreq,
        ];
        for packet in &asked {
            world.send(slow, packet);
        }
        world.clog(slow, false);
        for answer in [
            Got::Suback(7, vec![1]),
            Got::Unsuback(8),
            Got::Puback(9),
            Got::Pubrec(10),
            Got::Pingresp,
        ] {
            world.expect(slow, answer);
        }
        assert_eq!(world.messages(slow).len() as u64, 50 - dropped);
    });
}
