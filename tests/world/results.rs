//! A member publishes the result of a job, and settles it by that.

use super::*;

const REFUSED: ReasonCode = ReasonCode::ImplementationSpecificError;

/// How a client says which delivery its result is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Named {
    /// `$settles/PACKET-ID/TOPIC`
    InTopic,
    /// `$queue/$with/settles=packet:PACKET-ID/T`
    With,
    /// User property `settles`: `packet:PACKET-ID`
    PacketId,
    /// User property `settles`: the message id.
    MessageId,
}

const WAYS: [Named; 4] = [
    Named::InTopic,
    Named::With,
    Named::PacketId,
    Named::MessageId,
];

/// Those that the version and the topic allow.
fn ways(version: Version, topic: &str) -> impl Iterator<Item = Named> {
    let to_queue = topic.starts_with("$queue/");
    WAYS.into_iter().filter(move |way| match way {
        Named::InTopic => true,
        Named::With => to_queue,
        Named::PacketId | Named::MessageId => version == Version::V5,
    })
}

/// The user property of that name.
fn told<'a>(job: &'a Message, name: &str) -> &'a str {
    let before = format!("UserProperty(({name:?}, \"");
    let mut shown = job.properties.iter();
    let value = shown.find_map(|shown| shown.strip_prefix(&before));
    value
        .and_then(|rest| rest.strip_suffix("\"))"))
        .expect(name)
}

/// Sends the result of a job; the packet id.
fn bring(world: &mut World, client: C, way: Named, job: &Message, topic: &str, qos: u8) -> u16 {
    let result = format!("result of {}", job.payload);
    let settles = match way {
        Named::InTopic => {
            let topic = format!("$settles/{}/{topic}", job.id);
            return world.send_publish(client, &topic, &result, qos, false);
        }
        Named::With => {
            let name = topic.strip_prefix("$queue/").expect("a queue");
            let topic = format!("$queue/$with/settles=packet:{}/{name}", job.id);
            return world.send_publish(client, &topic, &result, qos, false);
        }
        Named::PacketId => format!("packet:{}", job.id),
        Named::MessageId => told(job, "message-id").to_owned(),
    };
    let settles = [Property::UserProperty(("settles", &settles))];
    world.send_with(client, (topic, &result), qos, false, &settles)
}

/// It is answered as a PUBLISH that was taken is.
fn is_taken(world: &mut World, client: C, qos: u8, id: u16) {
    match qos {
        0 => {}
        1 => world.expect(client, Got::Puback(id)),
        _ => {
            world.expect(client, Got::Pubrec(id));
            world.send(client, &pubrel(id));
            world.expect(client, Got::Pubcomp(id));
        }
    }
}

/// It is refused for good: in words where there are some.
fn is_refused(world: &mut World, client: C, id: u16, why: &str) {
    if world.version != Version::V5 {
        assert!(!world.is_open(client), "{why}");
        return;
    }
    let stream = &world.clients[client.0].stream;
    let packet = decode(stream, Version::V5, usize::MAX).expect("a packet");
    let Some((Packet::Puback(ack) | Packet::Pubrec(ack), _)) = packet else {
        panic!("{packet:?}");
    };
    let said = shown(ack.properties.iter());
    assert!(said.iter().any(|said| said.contains(why)), "{said:?}");
    assert_eq!(world.take(client), Some(Got::Refused(id, REFUSED)));
}

fn member(world: &mut World, id: &str, queue: &str, qos: u8) -> C {
    let member = world.connect(id).clean(false).go();
    world.subscribe(member, queue, qos);
    member
}

/// The only thing that came.
fn one(world: &mut World, client: C) -> Message {
    let mut messages = world.messages(client);
    assert_eq!(messages.len(), 1, "{messages:?}");
    messages.remove(0)
}

/// The job that a member has in hand, which is put in for it.
fn in_hand(world: &mut World, member: C, payload: &str) -> Message {
    let p = world.connect("p").go();
    world.publish(p, "$queue/jobs", payload, 1);
    world.disconnect(p);
    one(world, member)
}

#[test]
fn a_result_is_routed_and_settles_its_job() {
    in_each_version(|mut world| {
        let version = world.version;
        let s = world.connect("s").go();
        world.subscribe(s, "results", 1);
        let r = member(&mut world, "r", "$queue/results", 1);
        for (topic, to, granted) in [("results", s, 1), ("$queue/results", r, 1), ("none", s, 1)] {
            for way in ways(version, topic) {
                for (job_qos, qos) in [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)] {
                    let w = member(&mut world, "w", "$queue/jobs", job_qos);
                    let job = in_hand(&mut world, w, "1");
                    let id = bring(&mut world, w, way, &job, topic, qos);
                    is_taken(&mut world, w, qos, id);
                    if topic != "none" {
                        let result = world.take(to);
                        let Some(Got::Publish(result)) = result else {
                            panic!("{result:?}");
                        };
                        assert_eq!(result.payload, "result of 1");
                        let to_queue = topic.starts_with('$');
                        let expected = if to_queue { granted } else { qos.min(granted) };
                        assert_eq!((&*result.topic, result.qos), (topic, expected));
                        world.acknowledge(to, &result);
                    }
                    // The other settlement only frees the packet id.
                    world.acknowledge(w, &job);
                    let again = in_hand(&mut world, w, "2");
                    assert_ne!(again.id, job.id);
                    world.acknowledge(w, &again);
                    world.drop(w);
                    let b = member(&mut world, "b", "$queue/jobs", 1);
                    assert_eq!(world.messages(b), [], "{way:?}");
                    world.unsubscribe(b, "$queue/jobs");
                    world.disconnect(b);
                    // Its session ends.
                    let w = world.connect("w").go();
                    world.disconnect(w);
                }
            }
        }
    });
}

#[test]
fn a_result_that_nobody_can_take_now_leaves_the_job_in_hand() {
    let full = |config: &mut Config| {
        config.queue.push(QueueSettings {
            messages_max: 1,
            filters: vec!["copies".into()],
            ..queue("results")
        });
    };
    in_each_version_with(full, |mut world| {
        let version = world.version;
        for topic in ["$queue/results", "copies"] {
            for way in ways(version, topic) {
                for (job_qos, qos) in [(1, 1), (1, 2), (2, 1)] {
                    let w = member(&mut world, "w", "$queue/jobs", job_qos);
                    let job = in_hand(&mut world, w, "1");
                    let p = world.connect("p").go();
                    world.publish(p, "$queue/results", "earlier", 1);
                    let mut id = bring(&mut world, w, way, &job, topic, qos);
                    let refused = Got::Refused(id, ReasonCode::QuotaExceeded);
                    let is_told = version == Version::V5;
                    match is_told {
                        true => assert_eq!(world.receive(w), [refused]),
                        // Held back.
                        false => assert_eq!(world.receive(w), []),
                    }
                    let r = member(&mut world, "r", "$queue/results", 1);
                    assert_eq!(world.work(r).payload, "earlier");
                    if is_told {
                        id = bring(&mut world, w, way, &job, topic, qos);
                    }
                    is_taken(&mut world, w, qos, id);
                    assert_eq!(world.work(r).payload, "result of 1");
                    world.unsubscribe(r, "$queue/results");
                    world.drop(w);
                    let b = member(&mut world, "b", "$queue/jobs", 1);
                    assert_eq!(world.messages(b), []);
                    world.unsubscribe(b, "$queue/jobs");
                    let w = world.connect("w").go();
                    world.disconnect(w);
                }
            }
        }
    });
}

#[test]
fn a_result_of_qos_0_that_is_lost_leaves_the_job_in_hand() {
    let full = |config: &mut Config| {
        config.queue.push(QueueSettings {
            messages_max: 1,
            filters: vec!["copies".into()],
            ..queue("results")
        });
    };
    in_each_version_with(full, |mut world| {
        let w = member(&mut world, "w", "$queue/jobs", 1);
        let job = in_hand(&mut world, w, "1");
        let p = world.connect("p").go();
        world.publish(p, "copies", "earlier", 1);
        for topic in ["$queue/results", "copies"] {
            let before = world.counts().dropped_queue_full;
            bring(&mut world, w, Named::InTopic, &job, topic, 0);
            assert_eq!(world.counts().dropped_queue_full, before + 1);
        }
        world.drop(w);
        let b = member(&mut world, "b", "$queue/jobs", 1);
        assert_eq!(world.payloads(b), ["1"]);
    });
}

#[test]
fn a_result_that_is_refused_for_good_leaves_the_job_in_hand() {
    in_mqtt_5(
        |_| (),
        |mut world| {
            let w = member(&mut world, "w", "$queue/jobs", 1);
            let job = in_hand(&mut world, w, "1");
            for (topic, reason) in [
                ("$SYS/x", ReasonCode::NotAuthorized),
                ("$share/g/x", ReasonCode::TopicNameInvalid),
                ("$queue/$nack", ReasonCode::TopicNameInvalid),
            ] {
                let id = bring(&mut world, w, Named::InTopic, &job, topic, 1);
                assert_eq!(world.receive(w), [Got::Refused(id, reason)]);
            }
            let id = bring(&mut world, w, Named::InTopic, &job, "results", 1);
            assert_eq!(world.receive(w), [Got::Puback(id)]);
        },
    );
}

#[test]
fn the_first_settlement_wins() {
    in_each_version(|mut world| {
        for way in ways(world.version, "$queue/results").collect::<Vec<_>>() {
            let w = member(&mut world, "w", "$queue/jobs", 1);
            let job = in_hand(&mut world, w, "1");
            let id = bring(&mut world, w, way, &job, "$queue/results", 1);
            is_taken(&mut world, w, 1, id);
            let id = bring(&mut world, w, way, &job, "$queue/results", 1);
            is_refused(&mut world, w, id, "was settled before");

            let w = member(&mut world, "w", "$queue/jobs", 1);
            let job = in_hand(&mut world, w, "2");
            world.control(w, "reject", &job.id.to_string());
            let id = bring(&mut world, w, way, &job, "$queue/results", 1);
            is_refused(&mut world, w, id, "was settled before");

            let w = member(&mut world, "w", "$queue/jobs", 1);
            let job = in_hand(&mut world, w, "3");
            world.acknowledge(w, &job);
            let id = bring(&mut world, w, way, &job, "$queue/results", 1);
            is_refused(&mut world, w, id, "it was acknowledged");
            let r = member(&mut world, "r", "$queue/results", 1);
            assert_eq!(world.payloads(r), ["result of 1"]);
            world.connect("r").go();
            world.connect("w").go();
            let r = world.connect("r").go();
            world.subscribe(r, "$queue/results", 1);
            assert_eq!(world.work(r).payload, "result of 1");
            world.disconnect(r);
        }
    });
}

/// Case E51 of docs/security.md.
#[test]
fn who_has_no_such_delivery_settles_none() {
    in_each_version(|mut world| {
        let w = member(&mut world, "w", "$queue/jobs", 1);
        let job = in_hand(&mut world, w, "1");
        for way in ways(world.version, "results").collect::<Vec<_>>() {
            for qos in 1..=2 {
                let x = world.connect("x").go();
                let id = bring(&mut world, x, way, &job, "results", qos);
                is_refused(&mut world, x, id, "no such delivery");
            }
        }
        world.acknowledge(w, &job);
        world.drop(w);
        let b = member(&mut world, "b", "$queue/jobs", 1);
        assert_eq!(world.messages(b), []);
    });
}

/// Case E51 of docs/security.md.
#[test]
fn a_job_that_somebody_else_has_by_now_is_not_settled() {
    in_each_version(|mut world| {
        for way in ways(world.version, "results").collect::<Vec<_>>() {
            let w = member(&mut world, "w", "$queue/jobs", 1);
            let job = in_hand(&mut world, w, "1");
            let b = member(&mut world, "b", "$queue/jobs", 1);
            world.advance(secs(61));
            let taken = one(&mut world, b);
            let id = bring(&mut world, w, way, &job, "results", 1);
            is_refused(&mut world, w, id, "somebody else has it by now");
            world.acknowledge(b, &taken);
            world.unsubscribe(b, "$queue/jobs");
            world.connect("w").go();
        }
    });
}

/// Case E51 of docs/security.md.
#[test]
fn a_delivery_of_an_earlier_connection_is_not_settled() {
    in_each_version(|mut world| {
        for way in ways(world.version, "results").collect::<Vec<_>>() {
            let w = member(&mut world, "w", "$queue/jobs", 1);
            let job = in_hand(&mut world, w, "1");
            // Taken over: the same job comes as another delivery.
            let w = world.connect("w").clean(false).go();
            let again = one(&mut world, w);
            assert_ne!(again.id, job.id);
            let id = bring(&mut world, w, way, &job, "results", 1);
            if way == Named::MessageId {
                is_taken(&mut world, w, 1, id);
            } else {
                is_refused(&mut world, w, id, "no such delivery");
                let b = member(&mut world, "b", "$queue/jobs", 1);
                world.connect("w").go();
                assert_eq!(world.work(b).payload, "1");
                world.unsubscribe(b, "$queue/jobs");
            }
            world.connect("w").go();
        }
    });
}

#[test]
fn a_late_result_counts_while_nobody_else_has_the_job() {
    in_each_version(|mut world| {
        let w = member(&mut world, "w", "$queue/jobs", 1);
        let job = in_hand(&mut world, w, "1");
        world.unsubscribe(w, "$queue/jobs");
        world.advance(secs(61));
        let id = bring(&mut world, w, Named::InTopic, &job, "results", 1);
        is_taken(&mut world, w, 1, id);
        let b = member(&mut world, "b", "$queue/jobs", 1);
        assert_eq!(world.messages(b), []);
        // Timed out, and back with the same client: this one counts.
        let job = in_hand(&mut world, b, "2");
        world.advance(secs(61));
        let again = one(&mut world, b);
        let way = match world.version {
            Version::V5 => Named::MessageId,
            _ => Named::InTopic,
        };
        let id = bring(&mut world, b, way, &again, "results", 1);
        is_taken(&mut world, b, 1, id);
        let id = bring(&mut world, b, Named::InTopic, &job, "results", 1);
        is_refused(&mut world, b, id, "was settled before");
    });
}

#[test]
fn a_message_in_hand_from_two_queues_is_named_by_its_packet_id() {
    let two = |config: &mut Config| {
        for name in ["one", "two"] {
            config.queue.push(QueueSettings {
                filters: vec!["both".into()],
                ..queue(name)
            });
        }
    };
    in_mqtt_5(two, |mut world| {
        let w = member(&mut world, "w", "$queue/one", 1);
        world.subscribe(w, "$queue/two", 1);
        let p = world.connect("p").go();
        world.publish(p, "both", "1", 1);
        let jobs = world.messages(w);
        let id = bring(&mut world, w, Named::MessageId, &jobs[0], "results", 1);
        is_refused(&mut world, w, id, "from several queues");
        for job in &jobs {
            let id = bring(&mut world, w, Named::PacketId, job, "results", 1);
            is_taken(&mut world, w, 1, id);
        }
        let id = bring(&mut world, w, Named::MessageId, &jobs[0], "results", 1);
        is_refused(&mut world, w, id, "was settled before");
    });
}

#[test]
fn what_a_share_group_gave_is_not_settled_by_a_result() {
    in_each_version(|mut world| {
        let w = world.connect("w").go();
        world.subscribe(w, "$share/g/t", 1);
        let p = world.connect("p").go();
        world.publish(p, "t", "1", 1);
        let job = one(&mut world, w);
        let id = bring(&mut world, w, Named::InTopic, &job, "results", 1);
        is_refused(&mut world, w, id, "came from a share group");
    });
}

#[test]
fn a_result_with_properties_in_its_topic_keeps_them() {
    in_each_version(|mut world| {
        let w = member(&mut world, "w", "$queue/jobs", 1);
        let job = in_hand(&mut world, w, "1");
        let topic = "$queue/$with/priority=7/results";
        let id = bring(&mut world, w, Named::InTopic, &job, topic, 2);
        is_taken(&mut world, w, 2, id);
        world.version = Version::V5;
        let r = member(&mut world, "r", "$queue/results", 1);
        let result = world.work(r);
        assert_eq!(told(&result, "priority"), "7");
        assert!(
            !result
                .properties
                .iter()
                .any(|shown| shown.contains("settles"))
        );
    });
}

#[test]
fn a_result_that_was_held_back_for_too_long_is_not_taken() {
    let slow = |config: &mut Config| {
        config.queue.push(QueueSettings {
            messages_max: 1,
            ..queue("results")
        });
        config.queue.push(QueueSettings {
            ack_timeout: Some(secs(5)),
            ..queue("jobs")
        });
    };
    where_publishers_are_held_back(slow, |mut world| {
        let w = member(&mut world, "w", "$queue/jobs", 1);
        let job = in_hand(&mut world, w, "1");
        let p = world.connect("p").go();
        world.publish(p, "$queue/results", "earlier", 1);
        bring(&mut world, w, Named::InTopic, &job, "$queue/results", 1);
        let b = member(&mut world, "b", "$queue/jobs", 1);
        world.advance(secs(6));
        let taken = one(&mut world, b);
        assert!(world.is_open(w));
        let r = member(&mut world, "r", "$queue/results", 1);
        assert_eq!(world.work(r).payload, "earlier");
        assert!(!world.is_open(w));
        assert_eq!(world.messages(r), []);
        let id = bring(&mut world, b, Named::InTopic, &taken, "$queue/results", 1);
        is_taken(&mut world, b, 1, id);
        assert_eq!(world.payloads(r), ["result of 1"]);
    });
}
