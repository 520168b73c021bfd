//! Mount points: clients of a listener see the topics below one prefix, without
//! it, and nothing else; whichever way a message takes.

use std::path::Path;

use rotamq::access::rules::Rules;
use rotamq::config::Source;

use super::*;

const SITE: Option<&str> = Some("site1/");

/// Clients connect by a listener with that mount point from now on.
fn by(world: &mut World, mount: Option<&str>) {
    world.listener.mount_point = mount.map(str::to_owned);
}

/// One client below the mount point, and one who sees all.
fn in_and_out(world: &mut World) -> (C, C) {
    by(world, SITE);
    let inside = world.connect("inside").clean(false).go();
    by(world, None);
    let outside = world.connect("outside").clean(false).go();
    (inside, outside)
}

/// Topics and payloads of all that has come, which is acknowledged.
fn seen(world: &mut World, client: C) -> Vec<(String, String)> {
    let messages = world.messages(client);
    for message in &messages {
        world.acknowledge(client, message);
    }
    let messages = messages.into_iter();
    messages.map(|one| (one.topic, one.payload)).collect()
}

fn one(topic: &str, payload: &str) -> Vec<(String, String)> {
    vec![(topic.to_owned(), payload.to_owned())]
}

#[test]
fn live_messages_cross_the_mount_point() {
    in_each_version(|mut world| {
        by(&mut world, Some("site2/"));
        let other = world.connect("other").go();
        world.subscribe(other, "#", 1);
        let (inside, outside) = in_and_out(&mut world);
        for client in [inside, outside] {
            world.subscribe(client, "#", 2);
        }
        for qos in 0..=2 {
            world.publish(inside, "t/1", "from inside", qos);
            assert_eq!(seen(&mut world, inside), one("t/1", "from inside"));
            assert_eq!(seen(&mut world, outside), one("site1/t/1", "from inside"));
            world.publish(outside, "site1/t/2", "from outside", qos);
            assert_eq!(seen(&mut world, inside), one("t/2", "from outside"));
            assert_eq!(seen(&mut world, outside).len(), 1);
        }
        // What is next to it, or begins with $ there, is not in it.
        for topic in ["t/1", "site1", "site1/", "site1/$SYS/x", "site10/t"] {
            world.publish(outside, topic, "elsewhere", 1);
            assert_eq!(seen(&mut world, outside), one(topic, "elsewhere"));
        }
        assert_eq!(seen(&mut world, inside), []);
        assert_eq!(seen(&mut world, other), []);
        world.unsubscribe(inside, "#");
        world.publish(inside, "t/1", "m", 1);
        assert_eq!(seen(&mut world, inside), []);
    });
}

/// Those without mount point share what is encoded for one of them; the others
/// get their own.
#[test]
fn many_get_the_same_message_each_as_it_sees_it() {
    in_each_version(|mut world| {
        let mut receivers = Vec::new();
        for mount in [None, SITE, None, Some("site1/a/"), SITE, None] {
            by(&mut world, mount);
            let id = format!("r{}", receivers.len());
            let client = world.connect(&id).go();
            world.subscribe(client, "#", 1);
            receivers.push((client, &"site1/a/b"[mount.map_or(0, str::len)..]));
        }
        by(&mut world, Some("site1/a/"));
        let p = world.connect("p").go();
        for qos in 0..=1 {
            world.publish(p, "b", "m", qos);
            for (client, topic) in &receivers {
                assert_eq!(seen(&mut world, *client), one(topic, "m"));
            }
        }
    });
}

#[test]
fn what_waits_is_retained_or_put_off_does_too() {
    in_each_version(|mut world| {
        let (inside, outside) = in_and_out(&mut world);
        world.publish_with(inside, "kept", "by inside", 1, true);
        world.publish_with(outside, "site1/kept/2", "by outside", 1, true);
        world.publish_with(outside, "kept", "elsewhere", 1, true);
        world.publish(inside, "$delayed/10/later", "in time", 1);
        world.publish(outside, "$delayed/10/site1/later", "in time too", 1);
        world.subscribe(inside, "#", 1);
        let mut kept = seen(&mut world, inside);
        kept.sort();
        let of = |topic: &str, payload: &str| one(topic, payload).remove(0);
        let both = [of("kept", "by inside"), of("kept/2", "by outside")];
        assert_eq!(kept, both);
        // It is away, and comes back by the same mount point.
        world.drop(inside);
        world.advance(secs(11));
        if world.disk.is_some() {
            world.restart();
        }
        by(&mut world, SITE);
        let (inside, present) = world.connect("inside").clean(false).go_present();
        assert_eq!(present, world.tells_present());
        let both = [of("later", "in time"), of("later", "in time too")];
        assert_eq!(seen(&mut world, inside), both);
    });
}

#[test]
fn wills_do_too() {
    in_each_version(|mut world| {
        let (inside, outside) = in_and_out(&mut world);
        world.subscribe(inside, "will/+", 1);
        world.subscribe(outside, "site1/will/+", 1);
        world.subscribe(inside, "$queue/wills", 1);
        by(&mut world, SITE);
        for (id, topic) in [("a", "will/a"), ("b", "$queue/wills")] {
            let dying = world.connect(id).will(topic, id, 1, false).go();
            world.drop(dying);
        }
        let all = seen(&mut world, inside);
        assert_eq!(all[0], ("will/a".to_owned(), "a".to_owned()));
        assert_eq!(all[1], ("$queue/wills".to_owned(), "b".to_owned()));
        assert_eq!(seen(&mut world, outside), one("site1/will/a", "a"));
        let refused = world.connect("c").will("$SYS/x", "m", 1, false).refused();
        assert_eq!(refused, ReasonCode::TopicNameInvalid);
    });
}

#[test]
fn queues_and_groups_are_one_on_both_sides() {
    in_each_version(|mut world| {
        let (inside, outside) = in_and_out(&mut world);
        world.subscribe(inside, "$queue/jobs", 1);
        world.publish(outside, "$queue/site1/jobs", "for inside", 1);
        assert_eq!(seen(&mut world, inside), one("$queue/jobs", "for inside"));
        world.publish(inside, "$queue/$with/priority=9/jobs", "urgent", 1);
        let jobs = world.messages(inside);
        assert_eq!(jobs[0].topic, "$queue/jobs");
        if world.version == Version::V5 {
            // What the queue tells is as the member knows it.
            let told = jobs[0].properties.join(" ");
            assert!(told.contains("(\"queue\", \"jobs\")"), "{told}");
            assert!(told.contains("(\"topic\", \"jobs\")"), "{told}");
        }
        // It goes back, and to the other side of the same queue.
        world.control(inside, "nack", &jobs[0].id.to_string());
        world.unsubscribe(inside, "$queue/jobs");
        world.subscribe(outside, "$queue/site1/jobs", 1);
        world.advance(secs(2));
        let again = world.messages(outside).remove(0);
        assert_eq!(&*again.topic, "$queue/site1/jobs");
        // Its result goes inside.
        world.subscribe(inside, "results", 1);
        let topic = format!("$settles/{}/site1/results", again.id);
        world.publish(outside, &topic, "done", 1);
        assert_eq!(seen(&mut world, inside), one("results", "done"));
        world.unsubscribe(outside, "$queue/site1/jobs");

        // And by a member inside, both ways round.
        world.subscribe(inside, "$queue/jobs", 1);
        world.subscribe(outside, "site1/results", 1);
        world.publish(outside, "site1/jobs", "by its topic", 1);
        let job = world.messages(inside).remove(0);
        assert_eq!(
            (&*job.topic, &*job.payload),
            ("$queue/jobs", "by its topic")
        );
        world.publish(inside, &format!("$settles/{}/results", job.id), "done", 1);
        assert_eq!(seen(&mut world, outside), one("site1/results", "done"));
        assert_eq!(seen(&mut world, inside), one("results", "done"));

        // A share group is the same group.
        world.subscribe(inside, "$share/g/shared/+", 1);
        world.subscribe(outside, "$share/g/site1/shared/+", 1);
        for payload in ["1", "2"] {
            world.publish(outside, "site1/shared/t", payload, 1);
        }
        let (of_inside, of_outside) = (seen(&mut world, inside), seen(&mut world, outside));
        assert_eq!((of_inside.len(), of_outside.len()), (1, 1));
        assert_eq!(of_inside[0].0, "shared/t");
        assert_eq!(of_outside[0].0, "site1/shared/t");
        let jobs = world.core.subscriptions_len();
        world.unsubscribe(inside, "$share/g/shared/+");
        assert_eq!(world.core.subscriptions_len(), jobs);
    });
}

#[test]
fn dead_letters_are_those_of_the_mount_point() {
    in_each_version(|mut world| {
        let (inside, outside) = in_and_out(&mut world);
        world.subscribe(inside, "$queue/jobs", 1);
        world.publish(outside, "site1/jobs", "bad", 1);
        let job = world.messages(inside).remove(0);
        world.control(inside, "reject", &job.id.to_string());
        world.subscribe(inside, "$queue/$dead/jobs", 1);
        let letter = world.messages(inside).remove(0);
        assert_eq!((&*letter.topic, &*letter.payload), ("jobs", "bad"));
        if world.version == Version::V5 {
            let told = letter.properties.join(" ");
            assert!(told.contains("(\"queue\", \"$dead/jobs\")"), "{told}");
        }
    });
}

/// A queue that is fed from elsewhere brings nothing of that inside.
#[test]
fn jobs_of_other_topics_stay_outside() {
    let settings = QueueSettings {
        filters: vec!["elsewhere/#".to_owned()],
        ..queue("site1/jobs")
    };
    in_each_version_with(
        |config| config.queue.push(settings.clone()),
        |mut world| {
            let (inside, outside) = in_and_out(&mut world);
            world.subscribe(inside, "$queue/jobs", 1);
            world.publish(outside, "elsewhere/1", "not for inside", 1);
            world.publish(outside, "site1/jobs", "for inside", 1);
            assert_eq!(seen(&mut world, inside), one("$queue/jobs", "for inside"));
            world.subscribe(outside, "$queue/site1/jobs", 1);
            world.advance(secs(60));
            let all = seen(&mut world, outside);
            assert_eq!(all, one("$queue/elsewhere/1", "not for inside"));
        },
    );
}

/// Requests and responses work inside one mount point, and with a service
/// outside; who is inside is not asked to answer where it cannot.
#[test]
fn response_topics_cross_it() {
    in_mqtt_5(
        |_| (),
        |mut world| {
            let (inside, outside) = in_and_out(&mut world);
            by(&mut world, SITE);
            let service = world.connect("service").go();
            world.subscribe(service, "ask/#", 1);
            world.subscribe(outside, "site1/ask/#", 1);
            world.subscribe(inside, "answer", 1);
            let response = |topic| Property::ResponseTopic(topic_name(topic));
            let user = Property::UserProperty(("kept", "as it is"));
            let asks = [user, response("answer"), Property::CorrelationData(b"1")];
            let id = world.send_with(inside, ("ask/1", "?"), 1, false, &asks);
            world.expect(inside, Got::Puback(id));
            let asked = world.messages(service).remove(0);
            assert_eq!(asked.properties, shown(asks));
            let mut full = asks;
            full[1] = response("site1/answer");
            let asked = world.messages(outside).remove(0);
            assert_eq!(asked.properties, shown(full));
            world.publish(service, "answer", "by inside", 1);
            world.publish(outside, "site1/answer", "by outside", 1);
            let answers = seen(&mut world, inside);
            let answers: Vec<_> = answers
                .iter()
                .map(|(topic, text)| (&**topic, &**text))
                .collect();
            assert_eq!(answers, [("answer", "by inside"), ("answer", "by outside")]);

            // From outside: to a topic below, and to another.
            for (topic, seen) in [("site1/answer", Some("answer")), ("other", None)] {
                let asks = [response(topic), user];
                let id = world.send_with(outside, ("site1/ask/2", "?"), 1, false, &asks);
                world.expect(outside, Got::Puback(id));
                let asked = world.messages(service).remove(0);
                let expected = seen.map(response).into_iter().chain([user]);
                assert_eq!(asked.properties, shown(expected));
                world.messages(outside);
            }
            // What is no topic below is none to answer to.
            let id = world.send_with(inside, ("ask/3", "?"), 1, false, &[response("$SYS/x")]);
            let refused = Got::Refused(id, ReasonCode::TopicNameInvalid);
            world.expect(inside, refused);
            // A receipt is an answer too.
            let wishes = [response("answer"), Property::UserProperty(("receipt", "1"))];
            let id = world.send_with(inside, ("$queue/jobs", "job"), 1, false, &wishes);
            world.expect(inside, Got::Puback(id));
            world.subscribe(service, "$queue/jobs", 1);
            assert_eq!(seen(&mut world, service).len(), 1);
            let receipt = seen(&mut world, inside).remove(0);
            assert_eq!(receipt.0, "answer");
            assert!(receipt.1.contains("\"outcome\":\"done\""), "{}", receipt.1);
        },
    );
}

/// A29, H08: an alias stands for what was said, each way; the topic is checked
/// as it is meant.
#[test]
fn aliases_stand_for_what_goes_over_the_wire() {
    in_mqtt_5(
        |_| (),
        |mut world| {
            by(&mut world, SITE);
            let max = Property::TopicAliasMaximum(5);
            let a = world.connect("a").property(max).go();
            world.subscribe(a, "#", 1);
            let p = world.connect("p").go();
            by(&mut world, None);
            let outside = world.connect("outside").go();
            let alias = |number| Property::TopicAlias(packet_id(number));
            for (topic, number, meant) in [
                ("sensors/1", 1, "sensors/1"),
                ("", 1, "sensors/1"),
                ("$queue/jobs", 2, ""),
                ("", 2, ""),
                ("sensors/2", 1, "sensors/2"),
                ("", 1, "sensors/2"),
            ] {
                let id = world.send_with(p, (topic, "m"), 1, false, &[alias(number)]);
                world.expect(p, Got::Puback(id));
                let messages = world.messages(a);
                assert_eq!(messages.len(), usize::from(!meant.is_empty()), "{topic}");
                for message in messages {
                    world.acknowledge(a, &message);
                    // The first time by its name, then by its alias.
                    let is_known = message.topic.is_empty();
                    assert!(is_known || message.topic == meant, "{message:?}");
                    let told = message.properties.join(" ");
                    assert!(told.contains("TopicAlias("), "{told}");
                }
            }
            // From outside the same topic goes by the same alias.
            world.publish(outside, "site1/sensors/2", "m", 1);
            assert_eq!(seen(&mut world, a), one("", "m"));
        },
    );
}

/// H08: what has become too long or too deep by the mount point is refused, and
/// what is none below it.
#[test]
fn topics_are_checked_as_they_are_meant() {
    let configure = |config: &mut Config| {
        config.limits.topic_bytes_max = 16;
        config.limits.topic_levels_max = 4;
    };
    in_each_version_with(configure, |mut world| {
        by(&mut world, SITE);
        let refused = [
            "eleven-byte",
            "a/b/c/d",
            "$SYS/x",
            "$CONTROL/rotamq/v1",
            "$other",
            "$share/g/t",
            "$queue/eleven-byte",
            "$queue/",
            "$delayed/1/$queue/",
            "$delayed/1/$SYS/x",
            "$settles/1/$SYS/x",
            "$delayed/1/eleven-byte",
        ];
        for topic in refused {
            let p = world.connect("p").go();
            let id = world.send_publish(p, topic, "m", 1, false);
            match world.version {
                Version::V5 => {
                    let reason = ReasonCode::TopicNameInvalid;
                    world.expect(p, Got::Refused(id, reason));
                }
                _ => {
                    let reason = world.closed(p);
                    assert_eq!(reason, Some(ReasonCode::TopicNameInvalid), "{topic}");
                }
            }
        }
        let a = world.connect("a").go();
        for filter in [
            "eleven-byte",
            "+/b/c/d",
            "$SYS/#",
            "$CONTROL/#",
            "$share/g/$SYS/#",
            "$share/g/eleven-byte",
            "$queue/eleven-byte",
            "$queue/$SYS/x",
        ] {
            let refused = world.try_subscribe(a, &[(filter, 1)]);
            assert_eq!(refused, [0x80], "{filter}");
            world.unsubscribe(a, filter);
        }
        assert_eq!(world.core.subscriptions_len(), 0);
        world.publish(a, "ten--bytes", "m", 1);
        world.publish(a, "a/b/c", "m", 1);
    });
}

/// A session's topics are those of its mount point; elsewhere it is nobody's,
/// not even to be ended.
#[test]
fn a_session_is_of_its_mount_point() {
    in_each_version(|mut world| {
        by(&mut world, SITE);
        let a = world.connect("a").clean(false).go();
        world.subscribe(a, "t", 1);
        let (inside, _) = in_and_out(&mut world);
        let refuse = |world: &mut World| {
            for mount in [None, Some("site2/"), Some("site1/t/")] {
                by(world, mount);
                for clean in [false, true] {
                    let reason = world.connect("a").clean(clean).refused();
                    assert_eq!(reason, ReasonCode::ClientIdentifierNotValid);
                }
            }
            by(world, SITE);
        };
        refuse(&mut world);
        world.publish(inside, "t", "there", 1);
        assert_eq!(seen(&mut world, a), one("t", "there"));
        world.drop(a);
        refuse(&mut world);
        world.publish(inside, "t", "away", 1);
        if world.disk.is_some() {
            world.restart();
            refuse(&mut world);
        }
        let a = world.connect("a").clean(false).go();
        assert_eq!(seen(&mut world, a), one("t", "away"));
        // Its owner ends it; then the name is free.
        let a = world.connect("a").go();
        world.disconnect(a);
        by(&mut world, None);
        world.connect("a").go();
    });
}

/// Rules are about topics as they are.
#[test]
fn rights_are_asked_for_the_whole_topic() {
    in_each_version(|mut world| {
        let acl = "topic readwrite site1/open/#\ntopic readwrite $queue/site1/open/jobs\n\
                   topic readwrite closed/#\n";
        let source = Source {
            path: Path::new("acl").into(),
            text: acl.to_owned(),
        };
        let rules = Rules::parse(Some(&source), None).expect("they are valid");
        let now = world.now;
        world.core.set_rules(&mut world.worker, rules, now);
        let (inside, outside) = in_and_out(&mut world);
        world.subscribe(inside, "#", 1);
        world.subscribe(inside, "$queue/open/jobs", 1);
        assert!(world.try_subscribe(inside, &[("closed/#", 1)])[0] >= 0x80);
        world.publish(outside, "site1/open/t", "m", 1);
        assert_eq!(seen(&mut world, inside), one("open/t", "m"));
        world.publish(inside, "open/t", "m", 1);
        assert_eq!(seen(&mut world, inside), one("open/t", "m"));
        world.publish(outside, "closed/t", "m", 1);
        assert_eq!(seen(&mut world, inside), []);
        let id = world.send_publish(inside, "closed/t", "m", 1, false);
        match world.version {
            Version::V5 => world.expect(inside, Got::Refused(id, ReasonCode::NotAuthorized)),
            _ => assert_eq!(world.closed(inside), Some(ReasonCode::NotAuthorized)),
        }
    });
}

/// What a member had in hand is told in the same words by the next broker.
#[test]
fn a_job_in_hand_comes_again_as_it_came() {
    in_mqtt_5(
        |_| (),
        |mut world| {
            if world.disk.is_none() {
                return;
            }
            let (inside, outside) = in_and_out(&mut world);
            world.subscribe(inside, "$queue/jobs", 2);
            world.publish(outside, "$queue/site1/jobs", "job", 2);
            let job = world.messages(inside).remove(0);
            world.restart();
            by(&mut world, SITE);
            let inside = world.connect("inside").clean(false).go();
            let again = world.messages(inside).remove(0);
            let expected = Message { dup: true, ..job };
            assert_eq!(again, expected);
            world.acknowledge(inside, &again);
        },
    );
}
