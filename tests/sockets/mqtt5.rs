//! What MQTT 5 has more, from client to client.

use std::collections::HashMap;

use crate::clients::{
    Client, Ended, Extra, FIVES, GMQTT_5, Library, MOSQUITTO_5, MQTTJS_5, Options, PAHO, PAHO_5,
    PEERS, Peer, RUMQTTC_5, Subscription, Version, broker, broker_with,
};
use crate::wait::until;

/// Everything that the publisher of a message may say.
fn all_that_can_be_said() -> Extra {
    Extra {
        format: Some(1),
        expiry_secs: Some(3600),
        content_type: Some("text/plain".to_owned()),
        response_topic: Some("reply/to".to_owned()),
        correlation: Some("number-7".to_owned()),
        user: pairs(&[("z", "1"), ("z", "2"), ("a", "3")]),
        ..Extra::default()
    }
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    pairs.iter().map(owned).collect()
}

/// What is left of it after a while: less time, and the same else.
fn assert_same(mut extra: Extra, sent: &Extra, who: &str) {
    if let (Some(left), Some(sent)) = (&mut extra.expiry_secs, sent.expiry_secs) {
        assert!(*left <= sent && *left > 0, "{who}: {left}");
        *left = sent;
    }
    assert_eq!(extra, *sent, "{who}");
}

/// From each library to each, and none to clients that speak 3.1.1.
#[test]
fn properties_come_as_they_were_sent_and_user_properties_in_their_order() {
    let broker = broker();
    let address = broker.address();
    let mut subscribers: Vec<_> = PEERS
        .into_iter()
        .enumerate()
        .map(|(index, peer)| {
            let id = format!("subscriber {index}");
            (peer, peer.subscriber(address, &id, "said/+", 1))
        })
        .collect();
    for publishing in PEERS {
        let mut publisher = publishing.connect(address, "publisher");
        let mut extra = match publishing.version {
            Version::V5 => all_that_can_be_said(),
            _ => Extra::default(),
        };
        // MQTT.js keeps user properties by their names.
        let in_between = publishing.version == Version::V5 && publishing.library != Library::MqttJs;
        for topic in ["said/1", "said/2"] {
            if in_between && topic == "said/2" {
                extra.user = pairs(&[("z", "1"), ("a", "3"), ("z", "2"), ("a", "3")]);
            }
            publisher.publish_with(topic, b"words", 1, false, &extra);
            for (receiving, subscriber) in &mut subscribers {
                let who = format!("{publishing:?} to {receiving:?}");
                let mut message = subscriber.receive();
                assert_eq!((&*message.topic, message.text()), (topic, "words"), "{who}");
                let mut sent = match receiving.version {
                    Version::V5 => extra.clone(),
                    _ => Extra::default(),
                };
                if receiving.library == Library::MqttJs {
                    message.extra.user.sort_by(|one, other| one.0.cmp(&other.0));
                    sent.user.sort_by(|one, other| one.0.cmp(&other.0));
                }
                assert_same(message.extra, &sent, &who);
            }
        }
        publisher.disconnect();
    }
}

#[test]
fn a_request_is_answered_where_it_asks_to_be() {
    let broker = broker();
    let address = broker.address();
    for (asking, answering) in [
        (PAHO_5, MQTTJS_5),
        (MQTTJS_5, GMQTT_5),
        (GMQTT_5, RUMQTTC_5),
        (RUMQTTC_5, PAHO_5),
    ] {
        let mut answerer = answering.subscriber(address, "answerer", "ask/time", 1);
        let mut asker = asking.subscriber(address, "asker", "answers/asker", 1);
        let question = Extra {
            response_topic: Some("answers/asker".to_owned()),
            correlation: Some("question-1".to_owned()),
            ..Extra::default()
        };
        asker.publish_with("ask/time", b"what time is it?", 1, false, &question);
        let asked = answerer.receive();
        let answer = Extra {
            correlation: asked.extra.correlation.clone(),
            ..Extra::default()
        };
        let to = asked.extra.response_topic.expect("it says where to");
        answerer.publish_with(&to, b"noon", 1, false, &answer);
        let answered = asker.receive();
        assert_eq!(answered.text(), "noon", "{asking:?}");
        assert_same(answered.extra, &answer, &format!("{asking:?}"));
        asker.disconnect();
        answerer.disconnect();
    }
}

/// mosquitto's own client for request and response.
#[test]
fn mosquitto_rr_gets_its_answer() {
    let broker = broker();
    let address = broker.address();
    for peer in FIVES {
        let mut answerer = peer.subscriber(address, "answerer", "ask", 1);
        let asker = crate::clients::mosquitto_command("mosquitto_rr", Version::V5, address)
            .args([
                "-t",
                "ask",
                "-e",
                "answers/rr",
                "-m",
                "how many?",
                "-q",
                "1",
            ])
            .args(["-D", "publish", "correlation-data", "rr-1", "-F", "%p %D"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let asked = answerer.receive();
        assert_eq!(asked.text(), "how many?", "{peer:?}");
        let answer = Extra {
            correlation: asked.extra.correlation,
            ..Extra::default()
        };
        let to = asked.extra.response_topic.expect("it says where to");
        answerer.publish_with(&to, b"seven", 1, false, &answer);
        let output = asker.wait_with_output().unwrap();
        let answered = String::from_utf8_lossy(&output.stdout);
        assert_eq!(answered.trim_end(), "seven rr-1", "{peer:?}");
        answerer.disconnect();
    }
}

/// In a session and retained: what expired comes no more, what did not says how
/// long it has left.
#[test]
fn a_message_that_expired_comes_no_more() {
    let broker = broker();
    let address = broker.address();
    let lasting = |secs| Extra {
        expiry_secs: Some(secs),
        ..Extra::default()
    };
    let open = |peer: Peer| peer.open(Options::persistent(address, &format!("{peer:?}")));
    for peer in FIVES {
        let mut device = open(peer);
        device.subscribe(&["news"], 1);
        device.disconnect();
    }
    let mut publisher = PAHO_5.connect(address, "publisher");
    publisher.publish_with("news", b"short", 1, false, &lasting(1));
    publisher.publish_with("news", b"long", 1, false, &lasting(1000));
    publisher.publish_with("kept/short", b"short", 1, true, &lasting(2));
    publisher.publish_with("kept/long", b"long", 1, true, &lasting(1000));
    let mut watcher = PAHO_5.connect(address, "watcher");
    until("the retained message has expired", || {
        watcher.subscribe(&["kept/+", "fence"], 0);
        publisher.publish("fence", b"", 0, false);
        let mut comes_still = false;
        loop {
            let message = watcher.receive();
            if message.topic == "fence" {
                return !comes_still;
            }
            comes_still |= message.text() == "short";
        }
    });
    for peer in FIVES {
        let mut device = open(peer);
        for filter in ["news", "kept/#"] {
            if filter != "news" {
                device.subscribe(&[filter], 1);
            }
            let message = device.receive();
            assert_eq!(message.text(), "long", "{peer:?}");
            let left = message.extra.expiry_secs.expect("it says how long it has");
            assert!(left < 1000 && left > 0, "{peer:?}: {left}");
        }
        device.disconnect();
    }
}

#[test]
fn a_session_lives_as_long_as_its_client_asked() {
    let broker = broker();
    let address = broker.address();
    for peer in FIVES {
        let open = |id: &str, secs: u32| {
            let mut options = Options::persistent(address, id);
            options.session_expiry_secs = Some(secs);
            peer.open(options)
        };
        let mut device = open("device", 3600);
        assert_eq!(device.session_present(), Some(false), "{peer:?}");
        device.subscribe(&["to/device"], 1);
        device.kill();
        // The last word counts.
        open("brief", 3600).kill();
        open("brief", 1).kill();
        until("both are gone", || broker.connections_len() == 0);
        PAHO.publish(address, "to/device", "it waited", 1, false);
        let mut device = open("device", 0);
        assert_eq!(device.session_present(), Some(true), "{peer:?}");
        assert_eq!(device.receive().text(), "it waited", "{peer:?}");
        device.kill();
        until("the other session has expired too", || {
            broker.sessions_len() == 0
        });
        for id in ["device", "brief"] {
            let client = open(id, 0);
            assert_eq!(client.session_present(), Some(false), "{peer:?} {id}");
            client.disconnect();
        }
        until("both have ended", || broker.sessions_len() == 0);
    }
}

/// A DISCONNECT may end it sooner than CONNECT said.
#[test]
fn a_session_lives_as_long_as_its_client_says_on_leaving() {
    let broker = broker();
    let address = broker.address();
    for peer in [PAHO_5, MQTTJS_5, GMQTT_5] {
        let mut options = Options::persistent(address, "device");
        options.session_expiry_secs = Some(3600);
        peer.open(options.clone()).disconnect();
        until("it is gone", || broker.connections_len() == 0);
        assert_eq!(broker.sessions_len(), 1, "{peer:?}");
        let device = peer.open(options);
        assert_eq!(device.session_present(), Some(true), "{peer:?}");
        device.disconnect_with(0);
        until("its session has ended", || broker.sessions_len() == 0);
    }
}

#[test]
fn a_will_waits_for_its_delay_or_for_its_clients_return() {
    let broker = broker();
    let address = broker.address();
    std::thread::scope(|scope| {
        for peer in FIVES {
            scope.spawn(move || {
                let topic = format!("wills/{:?}", peer.library);
                let mut watcher = PAHO.subscriber(address, &format!("{topic} watcher"), &topic, 1);
                let open = |who: &str, delay_secs: u32, session_secs: u32| {
                    let options = Options::persistent(address, &format!("{topic} {who}"));
                    let mut options = options.will(&topic, who, 1, false);
                    options.session_expiry_secs = Some(session_secs);
                    options.will.as_mut().expect("it has one").delay_secs = delay_secs;
                    peer.open(options)
                };
                open("stays away", 1, 3600).kill();
                assert_eq!(watcher.receive().text(), "stays away", "{peer:?}");
                // It waits no longer than the session lives [MQTT-3.1.2-8].
                open("ends", 3600, 1).kill();
                assert_eq!(watcher.receive().text(), "ends", "{peer:?}");
                // Had it not been taken back, it would come with the session's end.
                open("returns", 3600, 3600).kill();
                let returned = open("returns", 3600, 3600);
                assert_eq!(returned.session_present(), Some(true), "{peer:?}");
                returned.disconnect();
                PAHO.connect(address, &format!("{topic} returns"))
                    .disconnect();
                watcher.publish(&topic, b"fence", 1, false);
                assert_eq!(watcher.receive().text(), "fence", "{peer:?}");
                watcher.disconnect();
            });
        }
    });
}

#[test]
fn a_message_names_the_subscriptions_that_it_comes_by() {
    let broker = broker();
    let address = broker.address();
    let by = |id| Subscription {
        qos: 1,
        id,
        ..Subscription::default()
    };
    let mut publisher = PAHO.connect(address, "publisher");
    for peer in FIVES {
        let mut subscriber = peer.connect(address, "subscriber");
        assert_eq!(subscriber.subscribe_with(&["by/+/x"], &by(Some(7))), [1]);
        assert_eq!(
            subscriber.subscribe_with(&["by/1/#"], &by(Some(268_435_455))),
            [1]
        );
        assert_eq!(subscriber.subscribe_with(&["by/3/+"], &by(None)), [1]);
        for (topic, ids) in [
            ("by/1/x", &[7, 268_435_455][..]),
            ("by/2/x", &[7]),
            ("by/1/y", &[268_435_455]),
            ("by/3/y", &[]),
        ] {
            publisher.publish(topic, b"", 1, false);
            let mut message = subscriber.receive();
            assert_eq!(message.topic, topic, "{peer:?}");
            message.extra.ids.sort_unstable();
            assert_eq!(message.extra.ids, ids, "{peer:?} {topic}");
        }
        subscriber.disconnect();
    }
}

#[test]
fn no_local_keeps_a_clients_own_messages_from_it() {
    let broker = broker();
    let address = broker.address();
    for peer in FIVES {
        let mut client = peer.connect(address, "client");
        let not_mine = Subscription {
            qos: 1,
            no_local: true,
            ..Subscription::default()
        };
        assert_eq!(client.subscribe_with(&["room"], &not_mine), [1]);
        client.publish("room", b"mine", 1, false);
        PAHO.publish(address, "room", "another's", 1, false);
        assert_eq!(client.receive().text(), "another's", "{peer:?}");
        // It comes all the same by another subscription.
        assert_eq!(client.subscribe(&["+"], 0), [0]);
        client.publish("room", b"mine again", 1, false);
        assert_eq!(client.receive().text(), "mine again", "{peer:?}");
        client.disconnect();
    }
}

#[test]
fn retained_messages_come_as_the_subscription_says() {
    let broker = broker();
    let address = broker.address();
    let mut publisher = PAHO.connect(address, "publisher");
    publisher.publish("kept", b"kept", 1, true);
    for peer in FIVES {
        let mut client = peer.connect(address, "client");
        let subscribe = |client: &mut Box<dyn Client>, retain_handling, retain_as_published| {
            let how = Subscription {
                qos: 1,
                retain_handling,
                retain_as_published,
                ..Subscription::default()
            };
            assert_eq!(client.subscribe_with(&["kept"], &how), [1], "{peer:?}");
        };
        let mut fence = |client: &mut Box<dyn Client>, text: &str, retain: bool| {
            publisher.publish("kept", text.as_bytes(), 1, true);
            let message = client.receive();
            assert_eq!((message.text(), message.retain), (text, retain), "{peer:?}");
        };
        subscribe(&mut client, 2, false);
        fence(&mut client, "not on subscribing", false);
        subscribe(&mut client, 1, true);
        fence(&mut client, "not to an old subscription", true);
        subscribe(&mut client, 0, true);
        let message = client.receive();
        assert_eq!(message.text(), "not to an old subscription", "{peer:?}");
        assert!(message.retain, "{peer:?}");
        client.unsubscribe("kept");
        subscribe(&mut client, 1, false);
        let message = client.receive();
        assert_eq!(message.text(), "not to an old subscription", "{peer:?}");
        assert!(message.retain, "{peer:?}: to a new one");
        client.disconnect();
    }
}

/// Towards the broker, by hand and by MQTT.js itself; and from the broker to
/// those that allow it.
#[test]
fn topic_aliases_stand_for_their_topics_both_ways() {
    let broker = broker();
    let address = broker.address();
    let mut subscribers: Vec<_> = FIVES
        .into_iter()
        .map(|peer| {
            let mut options = Options::clean(address, &format!("{peer:?}"));
            // paho leaves it to its user to know what an alias stands for.
            options.topic_alias_maximum = (peer != PAHO_5).then_some(2);
            let mut client = peer.open(options);
            client.subscribe(&["a/rather/long/topic/#"], 1);
            (peer, client)
        })
        .collect();
    let mut expect = |topic: &str, text: &str| {
        for (peer, subscriber) in &mut subscribers {
            let message = subscriber.receive();
            assert_eq!((&*message.topic, message.text()), (topic, text), "{peer:?}");
        }
    };
    let topics = ["1", "2", "3"].map(|last| format!("a/rather/long/topic/{last}"));
    for peer in [PAHO_5, RUMQTTC_5, MQTTJS_5, GMQTT_5] {
        let mut publisher = peer.connect(address, "publisher");
        let alias = |alias| Extra {
            alias: Some(alias),
            ..Extra::default()
        };
        let most = publisher.connack().topic_alias_maximum;
        assert!(most.is_some_and(|most| most >= 2), "{peer:?}: {most:?}");
        // The second use of an alias gives it another topic.
        for (number, (topic, use_of)) in [(&topics[0], 1), (&topics[1], 2), (&topics[2], 1)]
            .into_iter()
            .enumerate()
        {
            publisher.publish_with(topic, b"named", 1, false, &alias(use_of));
            expect(topic, "named");
            if peer == PAHO_5 || peer == RUMQTTC_5 {
                let text = number.to_string();
                publisher.publish_with("", text.as_bytes(), 1, false, &alias(use_of));
                expect(topic, &text);
            }
        }
        publisher.disconnect();
    }
    let mut options = Options::clean(address, "assigns");
    options.assign_aliases = true;
    let mut publisher = MQTTJS_5.open(options);
    for round in ["first", "second", "third"] {
        for topic in &topics {
            publisher.publish(topic, round.as_bytes(), 1, false);
            expect(topic, round);
        }
    }
    publisher.disconnect();
}

#[test]
fn no_more_are_under_way_than_the_client_takes() {
    let broker = broker();
    let address = broker.address();
    for peer in [PAHO_5, RUMQTTC_5] {
        let mut options = Options::clean(address, "narrow").manual();
        options.receive_maximum = Some(3);
        let mut narrow = peer.open(options);
        narrow.subscribe(&["narrow"], 1);
        let mut publisher = PAHO.connect(address, "publisher");
        for number in 0..10 {
            publisher.publish("narrow", number.to_string().as_bytes(), 1, false);
        }
        let mut held = Vec::new();
        for number in 0..10 {
            while held.len() < 3 && held.len() + number < 10 {
                held.push(narrow.receive());
            }
            // What had been sent by now would be there.
            narrow.subscribe(&["nothing"], 0);
            assert_eq!(narrow.waiting(), 0, "{peer:?}");
            let oldest = held.remove(0);
            assert_eq!(oldest.text(), number.to_string(), "{peer:?}");
            narrow.acknowledge(&oldest);
        }
        publisher.disconnect();
        narrow.disconnect();
    }
}

#[test]
fn what_is_too_large_for_a_client_is_left_out_for_it_alone() {
    let broker = broker_with(|config| config.limits.packet_bytes_max = 5000);
    let address = broker.address();
    let mut publisher = PAHO.connect(address, "publisher");
    for peer in FIVES {
        let mut options = Options::clean(address, "small");
        options.packet_bytes_max = Some(200);
        let mut small = peer.open(options);
        assert_eq!(small.connack().packet_bytes_max, Some(5000), "{peer:?}");
        small.subscribe(&["sizes"], 1);
        let mut large = peer.subscriber(address, "large", "sizes", 1);
        let texts = ["before", &"x".repeat(200), "after"];
        for text in texts {
            publisher.publish("sizes", text.as_bytes(), 1, false);
        }
        for text in texts {
            assert_eq!(large.receive().text(), text, "{peer:?}");
            if text.len() < 200 {
                assert_eq!(small.receive().text(), text, "{peer:?}");
            }
        }
        small.disconnect();
        large.disconnect();
    }
}

#[test]
fn a_client_without_an_id_is_given_one() {
    let broker = broker();
    let address = broker.address();
    // gmqtt makes one up by itself.
    for peer in [PAHO_5, MQTTJS_5] {
        let first = peer.connect(address, "");
        let second = peer.connect(address, "");
        let [one, other] = [&first, &second].map(|client| client.connack().assigned_id);
        assert!(one.as_ref().is_some_and(|id| !id.is_empty()), "{peer:?}");
        assert_ne!(one, other, "{peer:?}");
        // It is its name from now on: another takes its place with it.
        let mut first = first;
        let third = peer.connect(address, &one.expect("it has one"));
        assert_eq!(first.closed().reason, Some(0x8E), "{peer:?}");
        second.disconnect();
        third.disconnect();
    }
}

#[test]
fn a_client_is_told_why_its_connection_ends() {
    for peer in FIVES {
        let broker = broker();
        let mut older = peer.connect(broker.address(), "device");
        let mut younger = PAHO.connect(broker.address(), "device");
        let ended = older.closed();
        assert_eq!(ended.reason, Some(0x8E), "{peer:?}: session taken over");
        let told = ended.why.is_some_and(|why| why.contains("client id"));
        assert!(told || peer == GMQTT_5, "{peer:?}");
        let mut other = peer.connect(broker.address(), "other");
        broker.stop();
        let ended = other.closed();
        assert_eq!(ended.reason, Some(0x8B), "{peer:?}: server shutting down");
        assert!(ended.why.is_some() || peer == GMQTT_5, "{peer:?}");
        let ended = younger.closed();
        assert_eq!(ended, Ended::default(), "3.1.1 has no word for it");
    }
}

#[test]
fn a_refusal_says_why() {
    let broker = broker_with(|config| {
        config.limits.topic_levels_max = 4;
        config.limits.sessions_max = 2;
    });
    let address = broker.address();
    for peer in FIVES {
        let mut client = peer.connect(address, "client");
        // Topic Filter invalid; what stands beside it is granted.
        assert_eq!(
            client.subscribe(&["1/2/3/4/5", "1/2/3/4"], 1),
            [0x8F, 1],
            "{peer:?}"
        );
        let one_more = PAHO.connect(address, "one more");
        for refused in [PAHO_5, MQTTJS_5, GMQTT_5] {
            let ended = refused.refused(&Options::clean(address, "too many"));
            assert_eq!(ended.reason, Some(0x97), "{refused:?}");
            assert!(ended.why.is_some() || refused != PAHO_5);
        }
        one_more.disconnect();
        until("it is gone", || broker.connections_len() == 1);
        client.disconnect();
        until("both are gone", || broker.connections_len() == 0);
    }
    for peer in [PAHO_5, MQTTJS_5] {
        let mut client = peer.connect(address, "client");
        // paho sends PUBREL for what PUBREC refused, and tells of PUBCOMP's reason.
        let most = if peer == PAHO_5 { 1 } else { 2 };
        for qos in 1..=most {
            let reason = client.publish_with("1/2/3/4/5", b"", qos, false, &Extra::default());
            assert_eq!(reason, 0x90, "{peer:?}, QoS {qos}");
        }
        client.publish("1/2/3/4", b"it goes on", 1, false);
        client.disconnect();
        until("it is gone", || broker.connections_len() == 0);
    }
}

/// What a member of MQTT 5 is told of a job, and what its producer said.
#[test]
fn a_job_says_where_it_comes_from() {
    let broker = broker();
    let address = broker.address();
    let mut workers = FIVES.map(|peer| {
        let name = format!("told/{:?}/+", peer.library);
        let worker = peer.subscriber(address, &name, &format!("$queue/{name}"), 1);
        (peer, name, worker)
    });
    for producing in [MOSQUITTO_5, PAHO_5, RUMQTTC_5, MQTTJS_5, GMQTT_5, PAHO] {
        let mut producer = producing.connect(address, "producer");
        let said = match producing.version {
            Version::V5 => all_that_can_be_said(),
            _ => Extra::default(),
        };
        for (peer, name, worker) in &mut workers {
            let who = format!("{producing:?} to {peer:?}");
            let topic = name.replace('+', "1");
            let queued = format!("$queue/{topic}");
            let mut ids = Vec::new();
            for way in [&topic, &queued] {
                producer.publish_with(way, b"job", 1, false, &said);
                let mut job = worker.receive();
                assert_eq!(job.topic, queued, "{who}");
                let about = ["queue", "delivery", "topic", "message-id", "enqueued-at"];
                let about = about.map(|name| {
                    let value = job.extra.user(name);
                    value.unwrap_or_else(|| panic!("{who}: {name}")).to_owned()
                });
                assert_eq!(
                    about[..3],
                    [name.clone(), "1".to_owned(), topic.clone()],
                    "{who}"
                );
                ids.push(about[3].clone());
                assert!(!about[4].is_empty(), "{who}");
                // The producer's come before them, in their order.
                job.extra.user.truncate(said.user.len());
                assert_same(job.extra, &said, &who);
            }
            assert_ne!(ids[0], ids[1], "each job has its own");
        }
        producer.disconnect();
    }
}

/// Members that answer with a reason code, beside one of 3.1.1.
#[test]
fn a_member_refuses_a_job_by_its_reason_code() {
    let broker = broker();
    let address = broker.address();
    for (refusing, other) in [(GMQTT_5, PAHO), (MQTTJS_5, PAHO_5)] {
        let mut producer = PAHO_5.connect(address, "producer");
        let mut person = PAHO_5.subscriber(address, "person", "$queue/$dead/refused", 1);
        let mut options = Options::clean(address, "refusing");
        options.answers = HashMap::from([
            ("busy".to_owned(), 0x97),
            ("cannot work".to_owned(), 0x99),
            ("failed".to_owned(), 0x80),
        ]);
        let mut refuser = refusing.open(options);
        assert_eq!(refuser.subscribe(&["$queue/refused"], 1), [1]);

        // What cannot be done at all goes to nobody else.
        producer.publish("$queue/refused", b"cannot work", 1, false);
        assert_eq!(refuser.receive().text(), "cannot work", "{refusing:?}");
        let dead = person.receive();
        assert_eq!(
            (&*dead.topic, dead.text()),
            ("refused", "cannot work"),
            "{refusing:?}"
        );

        // They take turns, so that the first of two jobs or the second comes to
        // one that refuses it; and it is done by the other. Who is busy gets
        // nothing for a while, so that this is the last.
        let mut worker = other.subscriber(address, "worker", "$queue/refused", 1);
        for job in ["failed", "busy"] {
            for _ in 0..2 {
                producer.publish("$queue/refused", job.as_bytes(), 1, false);
            }
            // It may have had the second one of the others too.
            while refuser.receive().text() != job {}
            let counts = [worker.receive(), worker.receive()].map(|done| {
                assert_eq!(done.text(), job, "{refusing:?}");
                let count = done
                    .extra
                    .user("delivery")
                    .map(|count| count.parse().unwrap());
                count.unwrap_or(2)
            });
            let most: u32 = counts.into_iter().max().expect("there are two");
            assert!(most >= 2, "{refusing:?}: {counts:?}");
        }
        for client in [refuser, worker, producer, person] {
            client.disconnect();
        }
    }
}

#[test]
fn a_full_queue_refuses_with_a_reason_code() {
    let broker = broker_with(|config| config.queues.default.messages_max = 2);
    let address = broker.address();
    for peer in [PAHO_5, RUMQTTC_5, MQTTJS_5] {
        let topic = format!("$queue/full/{:?}", peer.library);
        let mut producer = peer.connect(address, "producer");
        let mut publish =
            || producer.publish_with(&topic, &[b'x'; 400], 1, false, &Extra::default());
        assert_eq!([publish(), publish()], [0, 0], "{peer:?}: there is room");
        assert_eq!(publish(), 0x97, "{peer:?}");
        let mut worker = PAHO.subscriber(address, "worker", &topic, 1);
        for _ in 0..2 {
            assert_eq!(worker.receive().payload.len(), 400);
        }
        producer.disconnect();
        worker.disconnect();
    }
}
