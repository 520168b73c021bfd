//! What hostile clients cost: memory in proportion to what they send, and none
//! of it kept. In counts, as [`crate::work`] has them.

use crate::bytes::wire;
use crate::hostile;
use crate::work::{Allocated, allocated, held_bytes};

use super::hostile::Bytes;
use super::*;

/// A20, B01, B04: what a length only claims takes no memory, before CONNECT and
/// after it.
#[test]
fn what_is_only_claimed_is_not_allocated() {
    for text in [
        "10 FF FF FF 7F",
        "30 FF FF FF 7F",
        "10 80 80 04 0004 'MQTT' 05",
    ] {
        let bytes = wire(text, Version::V5);
        for bytes_max in [1 << 16, usize::MAX] {
            let (_, cost) = allocated(|| decode_connect(&bytes, bytes_max));
            assert_eq!(cost, Allocated::default(), "{text}");
            let (_, cost) = allocated(|| decode(&bytes, Version::V5, bytes_max));
            assert_eq!(cost, Allocated::default(), "{text}");
        }
    }
    let mut world = World::new();
    let mut bytes = Bytes::default();
    bytes.feed(&mut world, &hostile::connect(Version::V5));
    let before = held_bytes();
    bytes.feed(&mut world, &[0x30, 0xFF, 0xFF, 0x3F]);
    assert!(held_bytes() - before < 1024);
}

/// A user property: a byte for its kind, two lengths, a letter and a digit.
const USER_PROPERTY: &str = "26 0001 'k' 0001 'v' ";

/// The length of so many bytes as properties have it.
fn varint(len: usize) -> String {
    match len {
        ..0x80 => format!("{len:02X}"),
        0x80..0x4000 => format!("{:02X}{:02X}", len & 0x7F | 0x80, len >> 7),
        _ => format!(
            "{:02X}{:02X}{:02X}",
            len & 0x7F | 0x80,
            len >> 7 & 0x7F | 0x80,
            len >> 14
        ),
    }
}

/// What it costs to have a connection handle this, whatever comes of it.
fn cost(world: &mut World, packet: &[u8]) -> Allocated {
    let mut bytes = Bytes::default();
    if packet[0] != 0x10 {
        bytes.feed(world, &hostile::connect(Version::V5));
    }
    let ((), cost) = allocated(|| bytes.feed(world, packet));
    bytes.close(world);
    cost
}

/// A19, C01: twice as much of anything costs twice as much, whatever it is.
/// Case C52 of docs/security.md.
#[test]
fn twice_as_much_costs_twice_as_much() {
    type Packet = fn(usize) -> String;
    let packets: [(&str, usize, Packet); 9] = [
        ("user properties of a CONNECT", 4_000, |count| {
            let properties = USER_PROPERTY.repeat(count);
            format!(
                "10 # N 02 0000 {} {properties} 0002 'c1'",
                varint(7 * count)
            )
        }),
        ("user properties of a will", 4_000, |count| {
            let properties = USER_PROPERTY.repeat(count);
            let len = varint(7 * count);
            format!("10 # N 06 0000 00 0002 'c1' {len} {properties} 0001 'w' 0000")
        }),
        ("user properties of a PUBLISH", 60_000, |count| {
            let properties = USER_PROPERTY.repeat(count);
            format!(
                "32 # 0006 'canary' 0001 {} {properties} 'x'",
                varint(7 * count)
            )
        }),
        ("user properties of a PUBLISH to a queue", 60_000, |count| {
            let properties = USER_PROPERTY.repeat(count);
            format!(
                "32 # 0008 '$queue/q' 0001 {} {properties} 'x'",
                varint(7 * count)
            )
        }),
        ("user properties of a SUBSCRIBE", 60_000, |count| {
            let properties = USER_PROPERTY.repeat(count);
            format!("82 # 0001 {} {properties} 0001 't' 00", varint(7 * count))
        }),
        ("the same filter", 30_000, |count| {
            format!("82 # 0001 00 {}", "0001 't' 00 ".repeat(count))
        }),
        ("filters that are not there", 30_000, |count| {
            format!("A2 # 0001 00 {}", "0001 't' ".repeat(count))
        }),
        ("levels of a filter", 30_000, |count| {
            format!("82 # 0001 00 {count:04X} '/'*{count} 00")
        }),
        ("levels of a topic", 30_000, |count| {
            format!("32 # {count:04X} '/'*{count} 0001 00 'x'")
        }),
    ];
    for (what, count, packet) in packets {
        let mut world = World::with(|config| {
            config.limits.topic_levels_max = 65_535;
            config.limits.topic_bytes_max = 65_535;
        });
        world.version = Version::V5;
        let listener = world.connect("listener").go();
        world.subscribe(listener, "canary", 0);
        let [one, two] = [count, 2 * count].map(|count| {
            let bytes = wire(&packet(count), Version::V5);
            cost(&mut world, &bytes); // The first may make what is kept.
            world.receive(listener);
            cost(&mut world, &bytes)
        });
        assert!(one.bytes > 0, "{what}");
        let is_fair = two.bytes <= 2 * one.bytes + 4096 && two.times <= 2 * one.times + 16;
        assert!(is_fair, "{what}: {one:?}, twice as many {two:?}");
    }
}

/// Whatever is done in a round leaves nothing, however many rounds there are.
fn leaves_nothing(what: &str, mut world: World, mut round: impl FnMut(&mut World, usize)) {
    const ROUNDS: usize = 200;
    let mut held = [0; 6];
    for (part, held) in held.iter_mut().enumerate() {
        for at in 0..ROUNDS {
            round(&mut world, part * ROUNDS + at);
            world.clients.clear();
        }
        // Until also a queue that nobody uses is gone.
        world.advance(secs(8 * 24 * 60 * 60));
        let left = [world.core.sessions_len(), world.core.subscriptions_len()];
        assert_eq!(left, [0, 0], "{what}");
        *held = held_bytes();
    }
    // Tables grow by leaps, and seldom; what leaks grows all the time, by a
    // pointer a round at least.
    let grown = held.windows(2).map(|held| held[1] - held[0]).min();
    assert!(
        grown < Some((ROUNDS * size_of::<usize>()) as isize),
        "{what}: {held:?} bytes after {ROUNDS} rounds each"
    );
}

fn quick(config: &mut Config) {
    config.session.expiry_default = secs(60);
    config.limits.session_messages_max = 10;
    // Full after the first rounds.
    config.limits.match_cache_bytes_max = 16 << 10;
}

/// A16: what a CONNECT has said before it is refused is forgotten.
#[test]
fn refused_connects_leave_nothing() {
    for text in [
        "10 # N 06 003C 00 0002 'c1' 0C 03 0002 'ct' 18 00000001 11 00000005 0001 'w' 0000",
        "10 # N 06 003C 05 26 0000 0000 0002 'c1' 05 11 00000005 0001 'w' 0000",
        "10 # N 06 003C 00 0002 'c1' 00 0006 '$SYS/x' 0003 'abc'",
        "10 # N 06 003C 00 0002 'c1' 00 0008 'canary/#' 0003 'abc'",
    ] {
        let bytes = wire(text, Version::V5);
        leaves_nothing(text, World::new(), |world, _| {
            let mut connection = Bytes::default();
            connection.feed(world, &bytes);
            assert!(connection.is_closed());
        });
    }
}

/// C14, G07: connections that are taken over, or lost, with their wills.
#[test]
fn storms_of_take_overs_and_wills_leave_nothing() {
    leaves_nothing("take-overs", World::with(quick), |world, round| {
        for _ in 0..3 {
            let clean = round % 2 == 0;
            let a = world
                .connect("a")
                .clean(clean)
                .will("w", "will", 1, false)
                .go();
            world.subscribe(a, "t", 1);
        }
        let last = world.connect("a").go();
        world.disconnect(last);
    });
    leaves_nothing("wills", World::with(quick), |world, round| {
        let id = format!("client {}", round % 7);
        let a = world
            .connect(&id)
            .will("w", &"x".repeat(1000), 1, true)
            .go();
        world.drop(a);
        let a = world.connect("a").go();
        world.publish_with(a, "w", "", 1, true);
        world.disconnect(a);
    });
}

/// C02, D14, E22, H02: subscriptions of all kinds, again and again, by members
/// that go all at once.
#[test]
fn storms_of_subscriptions_leave_nothing() {
    leaves_nothing("subscriptions", World::with(quick), |world, round| {
        let members: Vec<C> = (0..5)
            .map(|n| world.connect(&format!("m{n}")).go())
            .collect();
        for member in &members {
            let own = format!("own/{round}/{}", member.0);
            for filter in ["t", "t/#", "$share/g/t", "$share/h/t/+", "$queue/q", &own] {
                world.subscribe(*member, filter, 1);
                world.subscribe(*member, filter, 0);
            }
        }
        world.publish(members[0], "t", "m", 1);
        for (index, member) in members.into_iter().enumerate() {
            match index % 2 {
                0 => world.drop(member),
                _ => world.disconnect(member),
            }
        }
        assert_eq!(world.core.subscriptions_len(), 1, "but the queue's");
    });
    leaves_nothing("pending messages", World::with(quick), |world, _| {
        let [a, p] = ["a", "p"].map(|id| world.connect(id).go());
        world.subscribe(a, "t", 2);
        for qos in [1, 2, 1, 2] {
            world.publish(p, "t", "m", qos);
        }
        world.subscribe(a, "t", 0);
        world.publish(p, "t", "m", 2);
        world.drop(a);
        world.disconnect(p);
    });
}

/// C10, C11: what waits for clients that stay away, or is not finished, goes with
/// their sessions.
#[test]
fn sessions_that_expire_leave_nothing() {
    leaves_nothing("absent clients", World::with(quick), |world, round| {
        let p = world.connect("p").go();
        let payload = "x".repeat(1000);
        for n in 0..3 {
            let a = world.connect(&format!("away {n}")).clean(false).go();
            world.subscribe(a, "t", 2);
            world.publish(p, "t", &payload, 2);
            world.drop(a);
        }
        // Beyond what a session may have, which ends it.
        for n in 0..8 + round % 5 {
            world.publish(p, "t", &payload, 1 + (n % 2) as u8);
        }
        // Received, and never released.
        world.send_publish(p, "t", &payload, 2, false);
        world.drop(p);
        world.advance(secs(60) + TICK);
        assert_eq!(world.core.sessions_len(), 0);
    });
}

/// H07: topics that are retained and cleared, and such that only pass.
/// Case C55 of docs/security.md.
#[test]
fn topics_that_were_used_once_leave_nothing() {
    leaves_nothing("retained topics", World::with(quick), |world, round| {
        let p = world.connect("p").go();
        for n in 0..5 {
            let topic = format!("r/{round}/{n}");
            world.publish_with(p, &topic, "m", 1, true);
            world.publish_with(p, &topic, "", 1, true);
        }
        world.disconnect(p);
        assert_eq!(world.core.retained_len(), 0);
    });
}

/// C50: queues that a client makes by asking for them, and then does not use.
#[test]
fn queues_that_nobody_uses_leave_nothing() {
    leaves_nothing("queues", World::with(quick), |world, round| {
        let a = world.connect("a").go();
        for n in 0..3 {
            world.subscribe(a, &format!("$queue/{round}-{n}"), 1);
        }
        world.disconnect(a);
    });
}

/// C13: two clients that do anything at any time, and leave.
#[test]
fn random_conversations_leave_nothing() {
    use super::random::Random;
    let mut random = Random(13);
    leaves_nothing("random", World::with(quick), move |world, _| {
        for _ in 0..40 {
            let id = random.of(&["a", "b"]);
            let open = |world: &World| -> Vec<C> {
                let all = (0..world.clients.len()).map(C);
                all.filter(|client| world.is_open(*client)).collect()
            };
            if open(world).len() < 2 || random.one_in(8) {
                world.version = random.of(&VERSIONS);
                let clean = random.one_in(2);
                world
                    .connect(id)
                    .clean(clean)
                    .will("t", "will", 1, false)
                    .go();
                continue;
            }
            let client = random.of(&open(world));
            // What is undecided at QoS 2 would wait for a person.
            let (filter, qos_max) =
                random.of(&[("t", 2), ("#", 2), ("$share/g/t", 1), ("$queue/q", 1)]);
            let topic = random.of(&["t", "u", "$queue/q"]);
            let id = 1 + random.below(4) as u16;
            match random.below(9) {
                0 => world.send(
                    client,
                    &subscribe(id, &[(filter, random.below(qos_max + 1) as u8)]),
                ),
                1 => world.send(client, &unsubscribe(id, &[filter])),
                2 => world.send(client, &publish(topic, "m", 0, 0)),
                3 => world.send(client, &publish(topic, "m", 1, id)),
                4 => world.send(client, &publish(topic, "m", 2, id)),
                5 => world.send(client, &pubrel(id)),
                6 => {
                    for got in world.receive(client) {
                        if let Got::Publish(message) = got
                            && message.qos == 1
                            && world.is_open(client)
                        {
                            world.send(client, &puback(message.id));
                        }
                    }
                }
                7 => world.drop(client),
                _ => world.disconnect(client),
            }
        }
        for id in ["a", "b"] {
            let last = world.connect(id).go();
            world.disconnect(last);
        }
        let p = world.connect("p").go();
        world.subscribe(p, "$queue/q", 1);
        while let Some(Got::Publish(job)) = world.take(p) {
            world.acknowledge(p, &job);
        }
        world.disconnect(p);
    });
}
