//! MQTT 5: what clients agree on with the broker, and what goes along with
//! their messages.

use super::*;
use rotamq::config::Redirect;

const NONE: [Property<'static>; 0] = [];

fn nothing(_: &mut Config) {}

fn user(name: &'static str, value: &'static str) -> Property<'static> {
    Property::UserProperty((name, value))
}

fn id(number: u32) -> Property<'static> {
    Property::SubscriptionIdentifier(rotamq::message::SubscriptionId::new(number).expect("one"))
}

fn alias(number: u16) -> Property<'static> {
    Property::TopicAlias(packet_id(number))
}

/// The payloads and properties of what came.
fn came(world: &mut World, client: C) -> Vec<(String, Vec<String>)> {
    let messages = world.messages(client).into_iter();
    messages
        .map(|message| (message.payload, message.properties))
        .collect()
}

fn message<'a>(
    payload: &str,
    properties: impl IntoIterator<Item = Property<'a>>,
) -> (String, Vec<String>) {
    (payload.to_owned(), shown(properties))
}

/// The raw packets that a client has got.
fn raw(world: &mut World, client: C) -> Vec<u8> {
    std::mem::take(&mut world.clients[client.0].stream)
}

// ---- what is passed on

#[test]
fn what_a_message_carries_reaches_whoever_can_read_it() {
    let carried = [
        Property::PayloadFormatIndicator(true),
        user("b", "1"),
        Property::ContentType("text/plain"),
        user("a", "2"),
        Property::CorrelationData(b"\x00\xff"),
        user("b", "3"),
    ];
    for qos in 0..=2 {
        for retain in [false, true] {
            let mut world = World::new();
            world.version = Version::V5;
            let p = world.connect("p").go();
            let a = world.connect("a").go();
            world.subscribe(a, "t", 2);
            // Of an older version, and one that is away.
            world.version = Version::V3_1_1;
            let old = world.connect("old").go();
            world.subscribe(old, "t", 2);
            world.version = Version::V5;
            let away = world.connect("away").clean(false).go();
            world.subscribe(away, "t", 2);
            world.drop(away);
            world.send_with(p, ("t", "m"), qos, retain, &carried);
            assert_eq!(came(&mut world, a), [message("m", carried)]);
            assert_eq!(came(&mut world, old), [message("m", NONE)]);
            let away = world.connect("away").clean(false).go();
            let kept = [message("m", carried)];
            assert_eq!(came(&mut world, away), kept[usize::from(qos == 0)..]);
            let late = world.connect("late").go();
            world.subscribe(late, "t", 2);
            assert_eq!(came(&mut world, late), kept[usize::from(!retain)..]);
        }
    }
}

#[test]
fn a_message_lives_no_longer_than_its_publisher_says() {
    in_mqtt_5(nothing, |mut world| {
        let p = world.connect("p").go();
        let expiry = Property::MessageExpiryInterval;
        let a = world.connect("a").go();
        let away = world.connect("away").clean(false).go();
        for client in [a, away] {
            world.subscribe(client, "t/#", 1);
        }
        world.drop(away);
        for secs in [0, 1, 10, 20] {
            let payload = secs.to_string();
            world.send_with(
                p,
                (&format!("t/{secs}"), &payload),
                1,
                true,
                &[expiry(secs)],
            );
            // Who is there gets it at once, with all of its time.
            assert_eq!(came(&mut world, a), [message(&payload, [expiry(secs)])]);
        }
        world.publish_with(p, "t/ever", "ever", 1, true);
        assert_eq!(came(&mut world, a), [message("ever", NONE)]);
        assert_eq!(world.core.retained_len(), 5);
        world.advance(Duration::from_millis(10_500));
        // What has expired is no longer kept, whether or not anybody asks.
        assert_eq!(world.core.retained_len(), 2);
        let left = [message("20", [expiry(10)]), message("ever", NONE)];
        let away = world.connect("away").clean(false).go();
        assert_eq!(came(&mut world, away), left);
        let late = world.connect("late").go();
        world.subscribe(late, "t/#", 1);
        assert_eq!(came(&mut world, late), left);
        // 3 in the store, 3 that waited in the session.
        assert_eq!(world.counts().dropped_expired, 6);
        // The last of them, too.
        world.advance(secs(60));
        assert_eq!(world.core.retained_len(), 1);
    });
}

/// Case D11 of docs/security.md.
#[test]
fn what_is_under_way_to_a_client_expires_no_more() {
    for qos in [1, 2] {
        in_mqtt_5(nothing, |mut world| {
            let p = world.connect("p").go();
            let a = world.connect("a").clean(false).go();
            world.subscribe(a, "t", 2);
            let expiry = [Property::MessageExpiryInterval(10)];
            world.send_with(p, ("t", "m"), qos, false, &expiry);
            let first = world.messages(a).remove(0);
            world.drop(a);
            world.advance(secs(60));
            let a = world.connect("a").clean(false).go();
            let again = world.messages(a).remove(0);
            assert_eq!((again.id, again.dup), (first.id, true));
            world.acknowledge(a, &again);
        });
    }
}

#[test]
fn jobs_expire_while_they_wait() {
    in_mqtt_5(nothing, |mut world| {
        let p = world.connect("p").go();
        for secs in [5, 50] {
            let expiry = [Property::MessageExpiryInterval(secs)];
            world.send_with(p, ("$queue/jobs", &secs.to_string()), 1, false, &expiry);
        }
        world.advance(secs(6));
        assert_eq!(world.counts().dropped_expired, 1);
        let a = world.connect("a").go();
        world.subscribe(a, "$queue/jobs", 1);
        let job = world.messages(a).remove(0);
        assert_eq!(job.payload, "50");
        assert_eq!(
            job.properties[0],
            shown([Property::MessageExpiryInterval(44)])[0]
        );
    });
}

// ---- subscriptions

#[test]
fn one_copy_has_the_identifiers_of_all_that_match() {
    in_mqtt_5(nothing, |mut world| {
        let a = world.connect("a").go();
        let options = SubscribeOptions::new(Qos::AtMostOnce);
        for (filter, number) in [("t", 1), ("#", 268_435_455), ("+", 0), ("u", 3)] {
            world.subscribe_with(a, filter, options, number);
        }
        let got = |world: &mut World, topic| {
            world.publish(a, topic, "m", 1);
            let mut messages = came(world, a);
            assert_eq!(messages.len(), 1, "once");
            messages[0].1.sort();
            messages.remove(0).1
        };
        assert_eq!(got(&mut world, "t"), shown([id(1), id(268_435_455)]));
        assert_eq!(got(&mut world, "x/y"), shown([id(268_435_455)]));
        // The last SUBSCRIBE counts.
        world.subscribe_with(a, "t", options, 7);
        world.subscribe_with(a, "#", options, 0);
        assert_eq!(got(&mut world, "t"), shown([id(7)]));
        assert_eq!(got(&mut world, "x/y"), shown(NONE));
        // Retained messages, groups and queues have them too.
        world.unsubscribe(a, "t");
        world.unsubscribe(a, "#");
        world.unsubscribe(a, "+");
        world.publish_with(a, "r", "kept", 1, true);
        world.subscribe_with(a, "r", options, 9);
        assert_eq!(came(&mut world, a), [message("kept", [id(9)])]);
        world.subscribe_with(a, "$share/g/s", options, 10);
        world.publish(a, "s", "shared", 1);
        assert_eq!(came(&mut world, a), [message("shared", [id(10)])]);
        world.subscribe_with(a, "$queue/q", options, 11);
        world.publish(a, "$queue/q", "job", 1);
        assert_eq!(came(&mut world, a)[0].1[0], shown([id(11)])[0]);
    });
}

#[test]
fn who_wants_no_local_gets_nothing_of_its_own() {
    in_mqtt_5(nothing, |mut world| {
        let no_local = SubscribeOptions {
            no_local: true,
            ..SubscribeOptions::new(Qos::AtLeastOnce)
        };
        let options = SubscribeOptions::new(Qos::AtMostOnce);
        let a = world.connect("a").go();
        let b = world.connect("b").go();
        world.subscribe_with(a, "t/+", no_local, 1);
        world.publish(a, "t/1", "own", 1);
        world.publish(b, "t/1", "other", 1);
        assert_eq!(came(&mut world, a), [message("other", [id(1)])]);
        // Another subscription lets it through, as that has it.
        world.subscribe_with(a, "t/#", options, 2);
        world.publish(a, "t/1", "own", 1);
        let own = world.messages(a).remove(0);
        assert_eq!((own.qos, own.properties), (0, shown([id(2)])));
        world.publish(b, "t/1", "other", 1);
        let other = world.messages(a).remove(0);
        assert_eq!((other.qos, other.properties.len()), (1, 2));
        // The same for what is retained.
        world.unsubscribe(a, "t/#");
        world.publish_with(a, "t/own", "own", 1, true);
        world.publish_with(b, "t/other", "other", 1, true);
        world.messages(a);
        world.subscribe_with(a, "t/+", no_local, 0);
        assert_eq!(world.payloads(a), ["other"]);
        // A queue has no such thing.
        let refused = Packet::Subscribe(Subscribe {
            packet_id: packet_id(99),
            properties: Properties::EMPTY,
            filters: vec![("$queue/jobs", no_local)],
        });
        world.send(a, &refused);
        assert_eq!(world.receive(a), [Got::Suback(99, vec![0x80])]);
    });
}

#[test]
fn retained_messages_come_as_the_subscription_asks() {
    use rotamq::protocol::RetainHandling::{DoNotSend, Send, SendIfNew};
    in_mqtt_5(nothing, |mut world| {
        let p = world.connect("p").go();
        world.publish_with(p, "t", "kept", 1, true);
        let a = world.connect("a").clean(false).go();
        for (retain_handling, times) in [(SendIfNew, [1, 0]), (Send, [1, 1]), (DoNotSend, [0, 0])] {
            for retain_as_published in [false, true] {
                let options = SubscribeOptions {
                    retain_handling,
                    retain_as_published,
                    ..SubscribeOptions::new(Qos::AtLeastOnce)
                };
                for expected in times {
                    world.subscribe_with(a, "t", options, 0);
                    let messages = world.messages(a);
                    assert_eq!(messages.len(), expected, "{retain_handling:?}");
                    assert!(messages.iter().all(|message| message.retain));
                }
                for retain in [false, true] {
                    world.publish_with(p, "t", "kept", 1, retain);
                    let message = world.messages(a).remove(0);
                    assert_eq!(message.retain, retain && retain_as_published);
                    world.acknowledge(a, &message);
                }
                world.unsubscribe(a, "t");
            }
        }
    });
}

// ---- topic aliases

#[test]
fn a_client_may_say_a_topic_once() {
    in_mqtt_5(nothing, |mut world| {
        let p = world.connect("p").go();
        let a = world.connect("a").go();
        world.subscribe(a, "#", 1);
        for (topic, number) in [
            ("x/1", 1),
            ("", 1),
            ("y", 32),
            ("", 32),
            ("", 1),
            ("z", 1),
            ("", 1),
        ] {
            world.send_with(p, (topic, "m"), 1, false, &[alias(number), user("k", "v")]);
        }
        let messages = world.messages(a);
        let topics: Vec<&str> = messages.iter().map(|message| &*message.topic).collect();
        assert_eq!(topics, ["x/1", "x/1", "y", "y", "x/1", "z", "z"]);
        for message in &messages {
            assert_eq!(message.properties, shown([user("k", "v")]));
        }
        // Another connection has aliases of its own.
        let q = world.connect("p").go();
        world.send_with(q, ("", "m"), 1, false, &[alias(1)]);
        assert_eq!(world.closed(q), Some(ReasonCode::ProtocolError));
        let q = world.connect("q").go();
        world.send_with(q, ("t", "m"), 1, false, &[alias(33)]);
        assert_eq!(world.told(q), Some(ReasonCode::TopicAliasInvalid));
    });
}

#[test]
fn the_broker_says_a_topic_once_to_whoever_takes_aliases() {
    in_mqtt_5(nothing, |mut world| {
        let p = world.connect("p").go();
        let a = (world.connect("a").clean(false))
            .property(Property::TopicAliasMaximum(1))
            .go();
        world.subscribe(a, "#", 1);
        raw(&mut world, a);
        let topic = "a/rather/long/topic";
        for (_, expected) in [(1, (topic, 1)), (2, ("", 1)), (3, ("", 1))] {
            world.publish(p, topic, "m", 1);
            let bytes = raw(&mut world, a);
            let (packet, _) = decode(&bytes, Version::V5, usize::MAX).unwrap().unwrap();
            let Packet::Publish(publish) = packet else {
                panic!("{packet:?}");
            };
            let properties = shown(publish.properties.iter());
            assert_eq!(
                (publish.topic, properties),
                (expected.0, shown([alias(expected.1)]))
            );
        }
        // A short one is sent as it is; so is all that is sent again.
        world.publish(p, "abc", "m", 1);
        assert_eq!(world.messages(a)[0].topic, "abc");
        world.drop(a);
        let a = world.connect("a").clean(false).go();
        let topics: Vec<String> = world.messages(a).into_iter().map(|m| m.topic).collect();
        assert_eq!(topics, [topic, topic, topic, "abc"]);
    });
}

// ---- limits of a client

#[test]
fn no_more_is_under_way_than_the_client_takes() {
    in_mqtt_5(nothing, |mut world| {
        let p = world.connect("p").go();
        let a = world
            .connect("a")
            .property(Property::ReceiveMaximum(packet_id(2)))
            .go();
        world.subscribe(a, "t", 2);
        for n in 0..4 {
            world.publish(p, "t", &n.to_string(), 1 + n % 2);
        }
        world.publish(p, "t", "0", 0);
        let mut got = world.messages(a);
        assert_eq!(got.iter().filter(|message| message.qos > 0).count(), 2);
        assert_eq!(got.pop().unwrap().qos, 0);
        // PUBREC is not the end of it.
        world.send(a, &pubrec(got[1].id));
        assert_eq!(world.receive(a), [Got::Pubrel(got[1].id)]);
        world.send(a, &pubcomp(got[1].id));
        assert_eq!(world.messages(a).len(), 1);
        // A refusal is.
        let refusal = Ack {
            reason: ReasonCode::NotAuthorized,
            ..Ack::new(packet_id(got[0].id))
        };
        world.send(a, &Packet::Puback(refusal));
        let last = world.messages(a);
        let refusal = Ack {
            reason: ReasonCode::NotAuthorized,
            ..Ack::new(packet_id(last[0].id))
        };
        world.send(a, &Packet::Pubrec(refusal));
        assert_eq!(world.receive(a), [], "no PUBREL");
    });
}

#[test]
fn what_is_sent_again_keeps_within_what_the_client_takes_now() {
    in_mqtt_5(nothing, |mut world| {
        let p = world.connect("p").go();
        let a = world.connect("a").clean(false).go();
        world.subscribe(a, "t", 2);
        for n in 0..6 {
            world.publish(p, "t", &n.to_string(), 1 + n % 2);
        }
        let first = world.messages(a);
        world.send(a, &pubrec(first[1].id));
        world.drop(a);
        let take_two = Property::ReceiveMaximum(packet_id(2));
        let a = (world.connect("a").clean(false)).property(take_two).go();
        // One waits for its PUBCOMP, and takes a place.
        let mut got = world.receive(a);
        assert_eq!(got.pop(), Some(Got::Pubrel(first[1].id)));
        let expected = [0, 2, 3, 4, 5].map(|at| Message {
            dup: true,
            ..first[at].clone()
        });
        assert_eq!(got, [Got::Publish(expected[0].clone())]);
        // An answer from before, to what has not been sent again yet.
        world.send(a, &puback(expected[3].id));
        assert_eq!(world.receive(a), []);
        world.publish(p, "t", "new", 1);
        world.send(a, &pubcomp(first[1].id));
        world.send(a, &puback(expected[0].id));
        let two = world.messages(a);
        assert_eq!(two, expected[1..3]);
        two.iter().for_each(|message| world.acknowledge(a, message));
        let rest = world.messages(a);
        assert_eq!(rest[0], expected[4]);
        assert_eq!((&*rest[1].payload, rest[1].dup), ("new", false));
        assert_eq!(rest.len(), 2);
    });
}

/// Case C54 of docs/security.md.
#[test]
fn no_more_qos_2_is_under_way_to_the_broker_than_it_takes() {
    in_mqtt_5(
        |config| config.limits.receive_max = 3,
        |mut world| {
            let p = world.connect("p").go();
            for id in 1..=3 {
                world.send(p, &publish("t", "m", 2, id));
            }
            // One that comes again is no other.
            world.send(p, &duplicate(publish("t", "m", 2, 3)));
            assert!(world.is_open(p));
            world.send(p, &pubrel(3));
            world.send(p, &publish("t", "m", 2, 4));
            assert!(world.is_open(p));
            world.send(p, &publish("t", "m", 2, 5));
            assert_eq!(world.told(p), Some(ReasonCode::ReceiveMaximumExceeded));
        },
    );
}

/// Case A34 of docs/security.md.
#[test]
fn what_is_too_large_for_one_client_is_skipped_for_that_one() {
    for qos in 0..=2 {
        in_mqtt_5(nothing, |mut world| {
            let p = world.connect("p").go();
            let all = world.connect("all").go();
            let small = (world.connect("small").clean(false))
                .property(Property::MaximumPacketSize(30.try_into().unwrap()))
                .go();
            for client in [all, small] {
                world.subscribe(client, "t", qos);
            }
            // The head takes 6 bytes at QoS 0, 8 above.
            let fits = "x".repeat(if qos == 0 { 24 } else { 22 });
            let large = format!("{fits}x");
            world.publish(p, "t", &fits, qos);
            world.publish(p, "t", &large, qos);
            world.publish(p, "t", "after", qos);
            assert_eq!(world.payloads(all).len(), 3);
            let got = world.messages(small);
            let payloads: Vec<&str> = got.iter().map(|message| &*message.payload).collect();
            assert_eq!(payloads, [&*fits, "after"]);
            assert_eq!(world.counts().dropped_too_large, 1);
            got.iter()
                .for_each(|message| world.acknowledge(small, message));
            // It counts as sent: it does not come later either.
            world.drop(small);
            let small = world.connect("small").clean(false).go();
            assert_eq!(world.receive(small), []);
        });
    }
}

#[test]
fn a_job_that_is_too_large_for_one_member_goes_to_another() {
    in_mqtt_5(nothing, |mut world| {
        let p = world.connect("p").go();
        let small = world
            .connect("small")
            .property(Property::MaximumPacketSize(200.try_into().unwrap()))
            .go();
        world.subscribe(small, "$queue/jobs", 1);
        let large = "x".repeat(200);
        world.publish(p, "$queue/jobs", &large, 1);
        world.publish(p, "$queue/jobs", "small", 1);
        assert_eq!(world.payloads(small), ["small"]);
        let all = world.connect("all").go();
        world.subscribe(all, "$queue/jobs", 1);
        world.advance(secs(2));
        assert_eq!(world.payloads(all), [large]);
    });
}

// ---- queues

/// Case M07 of docs/security.md.
#[test]
fn a_member_is_told_about_its_job() {
    in_mqtt_5(nothing, |mut world| {
        let a = world.connect("a").go();
        world.subscribe(a, "$queue/orders/+", 1);
        world.send_with(
            a,
            ("orders/7", "m"),
            1,
            false,
            &[user("mine", "1"), user("queue", "x")],
        );
        world
            .receive(a)
            .retain(|got| !matches!(got, Got::Puback(_)));
        world.drop(a);
        let b = world.connect("b").go();
        world.subscribe(b, "$queue/orders/+", 1);
        let job = world.messages(b).remove(0);
        let names = [
            "mine",
            "queue",
            "queue",
            "delivery",
            "enqueued-at",
            "message-id",
            "topic",
        ];
        for (property, name) in job.properties.iter().zip(names) {
            assert!(property.contains(&format!("{name:?}")), "{property}");
        }
        assert_eq!(job.properties[2], shown([user("queue", "orders/+")])[0]);
        assert_eq!(job.properties[3], shown([user("delivery", "2")])[0]);
        assert_eq!(job.properties[4], shown([user("enqueued-at", "1000")])[0]);
        assert_eq!(job.properties[6], shown([user("topic", "orders/7")])[0]);
    });
}

#[test]
fn a_member_refuses_by_its_acknowledgement() {
    // The reason, the delay asked for, and how many milliseconds it takes, at
    // least and at most; `None`: it is dead.
    let rest = Some((500, 1000));
    let cases = [
        (ReasonCode::UnspecifiedError, None, rest),
        (
            ReasonCode::ImplementationSpecificError,
            Some("30"),
            Some((30_000, 30_000)),
        ),
        (ReasonCode::UnspecifiedError, Some("0"), Some((0, 0))),
        (ReasonCode::UnspecifiedError, Some("nonsense"), rest),
        // To the next at once, and it asks for no delay.
        (ReasonCode::QuotaExceeded, Some("30"), Some((0, 0))),
        (ReasonCode::PayloadFormatInvalid, None, None),
        (ReasonCode::TopicNameInvalid, None, None),
    ];
    for qos in [1, 2] {
        for (reason, delay, after) in cases {
            in_mqtt_5(nothing, |mut world| {
                let a = world.connect("a").clean(false).go();
                let b = world.connect("b").clean(false).go();
                for client in [a, b] {
                    world.subscribe(client, "$queue/jobs", qos);
                }
                world.publish(b, "$queue/jobs", "m", 1);
                let job = world.messages(a).remove(0);
                let delay = delay.map(|delay| Property::UserProperty(("delay", delay)));
                world.refuse(a, &job, reason, delay.as_slice());
                assert_eq!(world.receive(a), []);
                match after {
                    None => assert_eq!(world.counts().dead_letters, 1),
                    Some((_, 0)) => assert_eq!(world.payloads(b), ["m"]),
                    Some((least, most)) => {
                        let least = Duration::from_millis(least) - TICK;
                        world.advance(least);
                        assert_eq!(world.receive(b), []);
                        world.advance(Duration::from_millis(most) - least + TICK * 2);
                        assert_eq!(world.payloads(b), ["m"]);
                    }
                }
            });
        }
    }
}

/// A member that is busy is left alone for a second, then two, then four, until
/// it has done a job.
#[test]
fn a_busy_member_rests() {
    for qos in [1, 2] {
        in_mqtt_5(nothing, |mut world| {
            let a = world.connect("a").clean(false).go();
            world.subscribe(a, "$queue/jobs", qos);
            let p = world.connect("p").go();
            world.publish(p, "$queue/jobs", "m", 1);
            let mut job = world.messages(a).remove(0);
            let mut pause = secs(1);
            for _ in 0..8 {
                world.refuse(a, &job, ReasonCode::QuotaExceeded, &[]);
                assert_eq!(world.receive(a), []);
                world.advance(pause - TICK);
                assert_eq!(world.receive(a), []);
                world.advance(TICK * 2);
                job = world.messages(a).remove(0);
                pause = (pause * 2).min(secs(64));
            }
            // It is no failure of the job, however often.
            assert_eq!(world.counts().dead_letters, 0);
            world.acknowledge(a, &job);
            world.publish(p, "$queue/jobs", "m", 1);
            world.publish(p, "$queue/jobs", "n", 1);
            let two = world.messages(a);
            world.refuse(a, &two[0], ReasonCode::QuotaExceeded, &[]);
            world.advance(TICK);
            assert_eq!(world.receive(a), []);
            // Who does a job is not busy any more.
            world.acknowledge(a, &two[1]);
            assert_eq!(world.payloads(a), ["m"]);
        });
    }
}

/// Its jobs go to others, whom they find at once.
#[test]
fn while_one_member_rests_the_others_get_its_jobs() {
    in_mqtt_5(nothing, |mut world| {
        let [a, b] = ["a", "b"].map(|id| {
            let member = world.connect(id).go();
            world.subscribe(member, "$queue/jobs", 1);
            member
        });
        let p = world.connect("p").go();
        world.publish(p, "$queue/jobs", "0", 1);
        let job = world.messages(a).remove(0);
        world.refuse(a, &job, ReasonCode::QuotaExceeded, &[]);
        for n in 1..4 {
            world.publish(p, "$queue/jobs", &n.to_string(), 1);
        }
        assert_eq!(world.payloads(b), ["0", "1", "2", "3"]);
        assert_eq!(world.receive(a), []);
        world.advance(secs(1) + TICK);
        world.publish(p, "$queue/jobs", "4", 1);
        world.publish(p, "$queue/jobs", "5", 1);
        assert_eq!(world.messages(a).len(), 1);
    });
}

#[test]
fn members_of_a_group_discard_what_they_refuse() {
    in_mqtt_5(nothing, |mut world| {
        let a = world.connect("a").go();
        let b = world.connect("b").go();
        for client in [a, b] {
            world.subscribe(client, "$share/g/t", 1);
        }
        let p = world.connect("p").go();
        world.publish(p, "t", "m", 1);
        let message = world.messages(a).remove(0);
        let refusal = Ack {
            reason: ReasonCode::UnspecifiedError,
            ..Ack::new(packet_id(message.id))
        };
        world.send(a, &Packet::Puback(refusal));
        world.drop(a);
        world.advance(secs(60));
        assert_eq!(world.receive(b), []);
        assert_eq!(world.counts().dropped_group, 1);
    });
}

#[test]
fn a_member_says_how_much_it_takes() {
    in_mqtt_5(nothing, |mut world| {
        let p = world.connect("p").go();
        for n in 0..5 {
            world.publish(p, "$queue/jobs", &n.to_string(), 1);
        }
        let a = world.connect("a").go();
        let subscribe = |world: &mut World, name, value, code| {
            let mut properties = PropertiesBuf::new();
            properties.push(Property::UserProperty((name, value)));
            let packet = Packet::Subscribe(Subscribe {
                packet_id: packet_id(9),
                properties: properties.as_properties(),
                filters: vec![("$queue/jobs", SubscribeOptions::new(Qos::AtLeastOnce))],
            });
            world.send(a, &packet);
            let got = world.take(a);
            assert_eq!(got, Some(Got::Suback(9, vec![code])), "{name} {value}");
        };
        for wrong in ["", "0", "x", "65536", "-1"] {
            subscribe(&mut world, "prefetch", wrong, 0x80);
        }
        subscribe(&mut world, "ack-timeout", "soon", 0x80);
        subscribe(&mut world, "prefetch", "2", 1);
        assert_eq!(world.payloads(a), ["0", "1"]);
    });
}

// ---- refusals

#[test]
fn a_refused_publish_is_answered_and_nothing_else_suffers() {
    in_mqtt_5(
        |config| config.session.check_payload_format = true,
        |mut world| {
            let p = world.connect("p").go();
            for qos in [1, 2] {
                for (topic, reason) in [
                    ("$SYS/x", ReasonCode::NotAuthorized),
                    ("$share/g/x", ReasonCode::TopicNameInvalid),
                    ("$queue/$x", ReasonCode::TopicNameInvalid),
                ] {
                    let id = world.send_publish(p, topic, "m", qos, false);
                    assert_eq!(world.receive(p), [Got::Refused(id, reason)]);
                }
                // The id is free again: it is no duplicate.
                world.publish(p, "t", "m", qos);
            }
            assert_eq!(world.counts().refused_messages, 6);
            world.send_publish(p, "$SYS/x", "m", 0, false);
            assert_eq!(world.receive(p), []);
            let says_text = [Property::PayloadFormatIndicator(true)];
            let mut properties = PropertiesBuf::new();
            properties.push(says_text[0]);
            let publish = |payload, id| {
                Packet::Publish(Publish {
                    dup: false,
                    qos: Qos::AtLeastOnce,
                    retain: false,
                    topic: "t",
                    packet_id: Some(packet_id(id)),
                    properties: properties.as_properties(),
                    payload,
                })
            };
            world.send_all(p, &[publish(b"\xff", 1), publish("é".as_bytes(), 2)]);
            let reason = ReasonCode::PayloadFormatInvalid;
            assert_eq!(world.receive(p), [Got::Refused(1, reason), Got::Puback(2)]);
        },
    );
}

#[test]
fn who_wants_no_words_gets_none() {
    for wants_words in [true, false] {
        in_mqtt_5(nothing, |mut world| {
            let p = (world.connect("p"))
                .property(Property::RequestProblemInformation(wants_words))
                .go();
            world.send(p, &publish("$SYS/x", "m", 1, 1));
            world.send(p, &subscribe(2, &[("$share/g", 0)]));
            world.send(p, &publish("+", "m", 0, 0));
            let bytes = raw(&mut world, p);
            let mut rest = &bytes[..];
            let mut reasons = 0;
            while let Some((packet, len)) = decode(rest, Version::V5, usize::MAX).unwrap() {
                rest = &rest[len..];
                let properties = match &packet {
                    Packet::Puback(ack) => ack.properties,
                    Packet::Suback(suback) => suback.properties,
                    Packet::Disconnect(disconnect) => disconnect.properties,
                    other => panic!("{other:?}"),
                };
                let strings = (properties.iter()).filter(
                    |property| matches!(property, Property::ReasonString(why) if !why.is_empty()),
                );
                assert_eq!(strings.count(), usize::from(wants_words), "{packet:?}");
                reasons += 1;
            }
            assert_eq!(reasons, 3);
        });
    }
}

#[test]
fn words_that_do_not_fit_are_left_out() {
    in_mqtt_5(nothing, |mut world| {
        // CONNACK takes 17 bytes.
        let p = (world.connect("p"))
            .property(Property::MaximumPacketSize(20.try_into().unwrap()))
            .go();
        world.send(p, &publish("$SYS/x", "m", 1, 1));
        let reason = ReasonCode::NotAuthorized;
        assert_eq!(world.receive(p), [Got::Refused(1, reason)]);
        world.send(p, &publish("+", "m", 0, 0));
        assert_eq!(world.told(p), Some(ReasonCode::MalformedPacket));
        let too_small =
            (world.connect("q")).property(Property::MaximumPacketSize(10.try_into().unwrap()));
        assert_eq!(too_small.refused(), ReasonCode::PacketTooLarge);
    });
}

#[test]
fn clients_are_sent_where_they_are_served() {
    for (redirect, reason) in [
        (Redirect::Overflow, None),
        (Redirect::Temporarily, Some(ReasonCode::UseAnotherServer)),
        (Redirect::Permanently, Some(ReasonCode::ServerMoved)),
    ] {
        for reference in ["", "other:1883"] {
            let configure = |config: &mut Config| {
                config.session.server_reference = reference.to_owned();
                config.session.redirect = redirect;
                config.limits.sessions_max = 1;
            };
            in_each_version_with(configure, |mut world| {
                match reason.filter(|_| !reference.is_empty()) {
                    Some(reason) => assert_eq!(world.connect("a").refused(), reason),
                    None => {
                        world.connect("a").go();
                        let full = world.connect("b").refused();
                        let expected = match reference {
                            "" => ReasonCode::QuotaExceeded,
                            _ => ReasonCode::UseAnotherServer,
                        };
                        assert_eq!(full, expected);
                    }
                }
            });
        }
    }
}

// ---- wills

#[test]
fn a_will_waits_for_its_client() {
    in_mqtt_5(nothing, |mut world| {
        let watcher = world.connect("watcher").go();
        world.subscribe(watcher, "w", 1);
        let mut properties = PropertiesBuf::new();
        for property in [
            Property::WillDelayInterval(10),
            Property::MessageExpiryInterval(20),
            user("a", "b"),
        ] {
            properties.push(property);
        }
        let will = Will {
            topic: "w",
            payload: b"gone",
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: properties.as_properties(),
        };
        let go = |world: &mut World, expiry_secs| {
            let mut connecting = world.connect("a").clean(false);
            connecting.connect.will = Some(will.clone());
            connecting
                .property(Property::SessionExpiryInterval(expiry_secs))
                .go()
        };
        let published = [message(
            "gone",
            [user("a", "b"), Property::MessageExpiryInterval(20)],
        )];
        // Back in time.
        let a = go(&mut world, 100);
        world.drop(a);
        world.advance(secs(9));
        let a = go(&mut world, 100);
        world.advance(secs(60));
        assert_eq!(came(&mut world, watcher), []);
        // Too late.
        world.drop(a);
        world.advance(secs(10) - TICK);
        assert_eq!(came(&mut world, watcher), []);
        world.advance(TICK * 2);
        assert_eq!(came(&mut world, watcher), published);
        // The session ends before, by time or by a clean start.
        let a = go(&mut world, 3);
        world.drop(a);
        world.advance(secs(3) + TICK);
        assert_eq!(came(&mut world, watcher), published);
        let a = go(&mut world, 100);
        world.drop(a);
        world.connect("a").go();
        assert_eq!(came(&mut world, watcher), published);
        // A take-over that goes on with the session [MQTT-3.1.3-9].
        go(&mut world, 100);
        let a = go(&mut world, 100);
        world.advance(secs(60));
        assert_eq!(came(&mut world, watcher), []);
        // DISCONNECT takes it away, unless it says otherwise.
        let goodbye = |reason| {
            Packet::Disconnect(Disconnect {
                reason,
                properties: Properties::EMPTY,
            })
        };
        world.send(a, &goodbye(ReasonCode::Success));
        world.advance(secs(60));
        assert_eq!(came(&mut world, watcher), []);
        let a = go(&mut world, 100);
        world.send(a, &goodbye(ReasonCode::DisconnectWithWill));
        world.advance(secs(11));
        assert_eq!(came(&mut world, watcher), published);
    });
}

// ---- CONNACK

/// What CONNACK says beyond yes.
fn connack(world: &mut World, connect: impl FnOnce(&mut World) -> C) -> Vec<String> {
    let client = connect(world);
    let bytes = raw(world, client);
    let (packet, _) = decode(&bytes, Version::V5, usize::MAX).unwrap().unwrap();
    let Packet::Connack(connack) = packet else {
        panic!("{packet:?}");
    };
    assert_eq!(connack.reason, ReasonCode::Success);
    shown(connack.properties.iter())
}

fn accepted(connecting: Connecting<'_, '_>) -> C {
    let (world, connect) = connecting.parts();
    (world.try_connect(&connect.0, &connect.1)).expect("accepted")
}

#[test]
fn connack_says_what_was_agreed() {
    let configure = |config: &mut Config| {
        config.session.expiry_max = secs(100);
        config.session.keep_alive_secs_max = NonZeroU16::new(60);
        config.limits.packet_bytes_max = 1000;
    };
    in_mqtt_5(configure, |mut world| {
        let always = [
            Property::ReceiveMaximum(packet_id(1024)),
            Property::MaximumPacketSize(1000.try_into().unwrap()),
            Property::TopicAliasMaximum(32),
        ];
        let expiry = Property::SessionExpiryInterval;
        let said = connack(&mut world, |world| {
            accepted(world.connect("a").keep_alive(60))
        });
        assert_eq!(said, shown(always));
        let said = connack(&mut world, |world| {
            let asked = world.connect("a").keep_alive(60).property(expiry(100));
            accepted(asked.property(Property::RequestResponseInformation(true)))
        });
        let response = Property::ResponseInformation("response/a");
        assert_eq!(said, shown(always.into_iter().chain([response])));
        for asked in [101, u32::MAX] {
            for keep_alive in [0, 61] {
                let said = connack(&mut world, |world| {
                    let connecting = world.connect("a").keep_alive(keep_alive);
                    accepted(connecting.property(expiry(asked)))
                });
                let first = [expiry(100)].into_iter().chain(always);
                let all = first.chain([Property::ServerKeepAlive(60)]);
                assert_eq!(said, shown(all));
            }
        }
        // The client id that the broker made up, unlike all others.
        let first = connack(&mut world, |world| {
            accepted(world.connect("").keep_alive(1))
        });
        let second = connack(&mut world, |world| {
            accepted(world.connect("").keep_alive(1))
        });
        assert!(
            first[2].starts_with("AssignedClientIdentifier(\"auto-"),
            "{first:?}"
        );
        assert_ne!(first[2], second[2]);
    });
}

#[test]
fn the_keep_alive_of_the_server_counts() {
    let configure = |config: &mut Config| {
        config.session.keep_alive_secs_max = NonZeroU16::new(60);
    };
    in_mqtt_5(configure, |mut world| {
        let a = world.connect("a").keep_alive(0).go();
        world.advance(secs(90) - TICK);
        assert!(world.is_open(a));
        world.advance(TICK * 2);
        assert_eq!(world.told(a), Some(ReasonCode::KeepAliveTimeout));
    });
}

// ---- both versions

#[test]
fn the_core_asks_for_the_version_in_one_place() {
    let src = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = ["session", "router", "queue", "broker"]
        .map(|name| src.join(name))
        .to_vec();
    let mut naming = Vec::new();
    while let Some(folder) = folders.pop() {
        // Not each of them exists.
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            // Those of settings are other versions.
            if text.replace("Versions", "").contains("Version") {
                naming.push(path.strip_prefix(&src).unwrap().to_owned());
            }
        }
    }
    // UnsupportedProtocolVersion would be one, too.
    assert_eq!(naming, [std::path::Path::new("session/terms.rs")]);
}
