//! What a PUBLISH asks of a queue: by user properties, or in its topic.

use super::*;

const REFUSED: ReasonCode = ReasonCode::ImplementationSpecificError;

#[test]
fn a_queue_is_asked_only_for_what_it_can_do() {
    in_mqtt_5(
        |_| (),
        |mut world| {
            let p = world.connect("p").go();
            let a = world.connect("a").go();
            world.subscribe(a, "$queue/jobs", 1);
            world.subscribe(a, "jobs", 1);
            for qos in 1..=2 {
                for (name, text) in [
                    ("delay", "tomorrow"),
                    ("at", "2026-11-23"),
                    ("priority", "10"),
                    ("group", ""),
                    ("dedup-id", ""),
                    ("settles", "x"),
                    ("receipt", "1"),
                ] {
                    let asked = [Property::UserProperty((name, text))];
                    let id = world.send_with(p, ("$queue/jobs", "m"), qos, false, &asked);
                    assert_eq!(world.receive(p), [Got::Refused(id, REFUSED)], "{name}");
                }
                assert_eq!(world.messages(a), []);
            }
            // To others the names mean nothing.
            let asked = [Property::UserProperty(("priority", "high"))];
            let id = world.send_with(p, ("jobs", "m"), 1, false, &asked);
            assert_eq!(world.receive(p), [Got::Puback(id)]);
            assert_eq!(world.messages(a).len(), 2);
        },
    );
}

#[test]
fn a_topic_says_what_properties_would() {
    in_each_version(|mut world| {
        let p = world.connect("p").go();
        world.version = Version::V5;
        let a = world.connect("a").go();
        world.subscribe(a, "$queue/jobs/#", 1);
        let topic = "$queue/$with/priority=7&group=a%2Fb&response=replies%2Fp&delay=0/jobs/x";
        world.publish(p, topic, "m", 1);
        let job = world.work(a);
        assert_eq!((&*job.topic, &*job.payload), ("$queue/jobs/x", "m"));
        let said = |name: &str, text: &str| format!("UserProperty(({name:?}, {text:?}))");
        for expected in [
            said("priority", "7"),
            said("group", "a/b"),
            said("delay", "0"),
        ] {
            assert!(job.properties.contains(&expected), "{:?}", job.properties);
        }
        let response = job
            .properties
            .iter()
            .find(|shown| shown.starts_with("ResponseTopic"));
        assert!(response.is_some_and(|shown| shown.contains("replies/p")));
    });
}

#[test]
fn a_topic_that_says_nothing_sensible_is_refused() {
    for topic in [
        "$queue/$with/priority=10/jobs",
        "$queue/$with/prio=1/jobs",
        "$queue/$with/priority=1/$jobs",
        "$queue/$with/receipt=1/jobs",
        "$queue/$with/priority=1",
        "$settles/x/jobs",
        "$settles/1/$settles/2/jobs",
        "$settles",
        "$settles/1/$SYS/x",
    ] {
        in_each_version(|mut world| {
            let p = world.connect("p").go();
            let id = world.send_publish(p, topic, "m", 1, false);
            match world.version {
                Version::V5 => assert!(
                    matches!(world.receive(p)[..], [Got::Refused(answered, _)] if answered == id)
                ),
                _ => assert!(!world.is_open(p), "{topic}"),
            }
            assert_eq!(world.counts().refused_messages, 1);
        });
    }
}

/// Case E52 of docs/security.md.
#[test]
fn a_will_is_no_result_and_asks_for_nothing_in_its_topic() {
    in_each_version(|mut world| {
        for topic in ["$settles/1/x", "$queue/$with/priority=1/jobs"] {
            let reason = world.connect("a").will(topic, "m", 1, false).refused();
            assert_eq!(reason, ReasonCode::TopicNameInvalid, "{topic}");
        }
    });
}

#[test]
fn an_alias_stands_for_no_shorter_topic() {
    in_mqtt_5(
        |config| config.limits.topic_bytes_max = 64,
        |mut world| {
            let p = world.connect("p").go();
            let topic = format!("$queue/$with/priority=1&group={}/jobs", "g".repeat(40));
            let alias = [Property::TopicAlias(NonZeroU16::MIN)];
            for topic in [&*topic, ""] {
                let id = world.send_with(p, (topic, "m"), 1, false, &alias);
                let reason = ReasonCode::TopicNameInvalid;
                assert_eq!(world.receive(p), [Got::Refused(id, reason)]);
            }
        },
    );
}

/// What PUBACK or PUBREC tells.
fn told(world: &mut World, client: C) -> Vec<String> {
    let stream = &mut world.clients[client.0].stream;
    let (packet, len) = decode(stream, Version::V5, usize::MAX).unwrap().unwrap();
    let (Packet::Puback(ack) | Packet::Pubrec(ack)) = packet else {
        panic!("{packet:?}");
    };
    assert_eq!(ack.reason, ReasonCode::Success);
    let told = shown(ack.properties.iter());
    stream.drain(..len);
    told
}

#[test]
fn who_stores_a_job_is_told_its_message_id() {
    in_mqtt_5(
        |_| (),
        |mut world| {
            let p = world.connect("p").go();
            let a = world.connect("a").clean(false).go();
            world.subscribe(a, "$queue/jobs", 1);
            world.subscribe(a, "news", 1);
            for qos in 1..=2 {
                for topic in ["$queue/jobs", "jobs"] {
                    world.send_publish(p, topic, "m", qos, false);
                    let told = told(&mut world, p);
                    let job = world.work(a);
                    assert_eq!(told.len(), 1);
                    assert!(told[0].starts_with("UserProperty((\"message-id\", "));
                    assert!(job.properties.contains(&told[0]), "{:?}", job.properties);
                }
                // Subscribers alone are told none either.
                world.send_publish(p, "news", "m", qos, false);
                assert_eq!(told(&mut world, p), Vec::<String>::new());
                world.work(a);
            }
        },
    );
}

#[test]
fn who_wants_few_words_is_told_no_message_id() {
    for property in [
        Property::RequestProblemInformation(false),
        Property::MaximumPacketSize(std::num::NonZeroU32::new(16).unwrap()),
    ] {
        in_mqtt_5(
            |_| (),
            |mut world| {
                let p = world.connect("p").property(property).go();
                world.send_publish(p, "$queue/jobs", "m", 1, false);
                assert_eq!(told(&mut world, p), Vec::<String>::new());
            },
        );
    }
}
