//! Recordings of packets: what is in them, and how large they become.

use serde_json::{Value, json};

use super::*;
use rotamq::broker::recording::{NotStarted, RecordingView, Request, State, What, Why};

const KIB: usize = 1 << 10;

fn of(what: What) -> Request {
    Request {
        what,
        lasts: secs(60),
        packets_max: 1000,
        bytes_max: None,
        payload_bytes_max: 0,
    }
}

fn client(id: &str) -> What {
    What::Client(id.into())
}

fn topic(filter: &str) -> What {
    What::Topic(filter.into())
}

impl World {
    fn try_record(&mut self, request: Request) -> Result<RecordingView, NotStarted> {
        self.core.start_recording(request, self.now)
    }

    fn record(&mut self, what: What) -> u64 {
        self.try_record(of(what)).expect("there is room").id
    }

    fn recording(&self, id: u64) -> Option<RecordingView> {
        self.core.recordings().get(id, self.now)
    }

    /// Its state, why it is so, its packets and those that it missed.
    fn how_it_is(&self, id: u64) -> (State, Option<Why>, usize, u64) {
        let view = self.recording(id).expect("it is there");
        (view.state, view.why, view.packets, view.missed)
    }

    fn packets(&self, id: u64) -> Vec<Value> {
        let packets = self.core.recordings().packets(id, 0, usize::MAX);
        let packets = packets.expect("it is there").into_iter();
        packets
            .map(|packet| serde_json::to_value(packet).expect("JSON"))
            .collect()
    }

    /// As in `in CONNECT`.
    fn types(&self, id: u64) -> Vec<String> {
        self.packets(id).iter().map(kind).collect()
    }

    /// And of one client only.
    fn types_of(&self, id: u64, client: &str) -> Vec<String> {
        let all = self.packets(id);
        let own = all.iter().filter(|packet| packet["client"] == client);
        own.map(kind).collect()
    }
}

fn kind(packet: &Value) -> String {
    let text = |key: &str| packet[key].as_str().expect(key).to_owned();
    text("direction") + " " + &text("packet")
}

// ---- what is in them

#[test]
fn all_packets_of_a_client_are_there_in_order() {
    in_each_version(|mut world| {
        let id = world.record(client("c"));
        let mut connecting = world.connect("c").will("w", "gone", 1, false);
        connecting.connect.user_name = Some("name");
        connecting.connect.password = Some(b"a-secret");
        let c = connecting.go();
        let other = world.connect("other").go();
        world.subscribe(c, "t", 2);
        for qos in 0..=2 {
            world.publish(c, "elsewhere", "m", qos);
        }
        world.publish(other, "t", "m", 2);
        world.work(c);
        world.unsubscribe(c, "t");
        world.send(c, &Packet::Pingreq);
        world.disconnect(c);
        let types = [
            "in CONNECT",
            "out CONNACK",
            "in SUBSCRIBE",
            "out SUBACK",
            "in PUBLISH",
            "in PUBLISH",
            "out PUBACK",
            "in PUBLISH",
            "out PUBREC",
            "in PUBREL",
            "out PUBCOMP",
            "out PUBLISH",
            "in PUBREC",
            "out PUBREL",
            "in PUBCOMP",
            "in UNSUBSCRIBE",
            "out UNSUBACK",
            "in PINGREQ",
            "out PINGRESP",
            "in DISCONNECT",
        ];
        assert_eq!(world.types(id), types);
        let packets = world.packets(id);
        for (number, packet) in (1..).zip(&packets) {
            assert_eq!(packet["number"], number);
            assert_eq!(packet["client"], "c");
            assert_eq!(packet["address"], "127.0.0.1:50000");
            assert_eq!(packet["at_us"], world.now.as_micros());
        }
        let connect = &packets[0];
        assert_eq!(connect["user_name"], "name");
        assert_eq!(connect["has_password"], true);
        assert_eq!(connect["clean_start"], true);
        assert_eq!(connect["will"]["topic"], "w");
        assert_eq!(connect["will"]["payload_bytes"], 4);
        assert_eq!(packets[1]["reason_name"], "success");
        assert_eq!(packets[2]["filters"][0]["filter"], "t");
        assert_eq!(packets[2]["filters"][0]["qos"], 2);
        assert_eq!(packets[3]["reasons"], json!([2]));
        assert_eq!(packets[7]["topic"], "elsewhere");
        assert_eq!(packets[7]["qos"], 2);
        assert_eq!(packets[7]["payload_bytes"], 1);
        assert_eq!(packets[7]["packet_id"], packets[8]["packet_id"]);
        let all = Value::from(packets).to_string();
        for not_asked_for in ["a-secret", "gone", "\"payload\"", "payload_base64"] {
            assert!(!all.contains(not_asked_for), "{not_asked_for} in {all}");
        }
    });
}

#[test]
fn who_is_refused_is_recorded_with_what_it_is_told() {
    let one_session = |config: &mut Config| config.limits.sessions_max = 1;
    in_each_version_with(one_session, |mut world| {
        let id = world.record(client("c"));
        world.connect("first").go();
        let reason = world.connect("c").refused();
        assert_eq!(reason, ReasonCode::QuotaExceeded);
        assert_eq!(world.types(id), ["in CONNECT", "out CONNACK"]);
        assert_ne!(world.packets(id)[1]["reason"], 0);
    });
}

#[test]
fn the_last_word_to_a_client_is_recorded() {
    in_mqtt_5(
        |_| (),
        |mut world| {
            let c = world.connect("c").go();
            let id = world.record(client("c"));
            world.send(c, &Packet::Pingresp);
            assert_eq!(world.types(id), ["in PINGRESP", "out DISCONNECT"]);
            let packets = world.packets(id);
            assert_eq!(packets[1]["reason_name"], "protocol-error");
            assert!(packets[1]["properties"][0]["name"] == "reason-string");
        },
    );
}

#[test]
fn what_cannot_be_read_is_recorded_as_such() {
    in_each_version(|mut world| {
        let c = world.connect("c").go();
        let id = world.record(client("c"));
        let (done, handled) = world.handle_bytes(c, &[0xC0, 0, 0x36, 0], usize::MAX);
        assert_eq!(done, 2);
        world.go_on(c, handled);
        let types = world.types(id);
        assert_eq!(types[..2], ["in PINGREQ", "in malformed"]);
        assert_eq!(world.packets(id)[1]["error"], "the QoS is 3");
    });
}

#[test]
fn users_and_addresses_are_recorded_with_all_their_clients() {
    in_each_version(|mut world| {
        let user_id = world.record(What::User("u".into()));
        let here = world.record(What::Address(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        let there = world.record(What::Address(IpAddr::from([192, 0, 2, 1])));
        world.who = user("u");
        let one = world.connect("one").go();
        world.who = Authenticated::ANONYMOUS;
        let two = world.connect("two").go();
        for client in [one, two] {
            world.send(client, &Packet::Pingreq);
        }
        // Until it was found out whose it is, it was whose it said: nobody's.
        assert_eq!(world.types_of(user_id, "one").len(), 3);
        assert_eq!(world.types_of(user_id, "two").len(), 0);
        assert_eq!(world.packets(user_id)[0]["user"], "u");
        assert_eq!(world.types(here).len(), 8);
        assert_eq!(world.types(there).len(), 0);
    });
}

#[test]
fn a_topic_is_recorded_with_what_acknowledges_its_messages() {
    in_each_version(|mut world| {
        let (p, s) = (world.connect("p").go(), world.connect("s").go());
        world.subscribe(s, "#", 2);
        let id = world.record(topic("a/+"));
        for qos in 0..=2 {
            world.publish(p, "a/1", "m", qos);
            world.publish(p, "b/1", "m", qos);
            while let Some(Got::Publish(message)) = world.take(s) {
                world.acknowledge(s, &message);
            }
        }
        let published = [
            "in PUBLISH",
            "in PUBLISH",
            "out PUBACK",
            "in PUBLISH",
            "out PUBREC",
            "in PUBREL",
            "out PUBCOMP",
        ];
        assert_eq!(world.types_of(id, "p"), published);
        let delivered = [
            "out PUBLISH",
            "out PUBLISH",
            "in PUBACK",
            "out PUBLISH",
            "in PUBREC",
            "out PUBREL",
            "in PUBCOMP",
        ];
        assert_eq!(world.types_of(id, "s"), delivered);
        let packets = world.packets(id);
        let topics = packets.iter().filter_map(|packet| packet["topic"].as_str());
        assert!(topics.eq(["a/1"; 6]));
    });
}

#[test]
fn a_topic_is_recorded_through_a_queue_and_a_group() {
    in_each_version(|mut world| {
        let (p, w) = (world.connect("p").go(), world.connect("w").go());
        world.subscribe(w, "$queue/jobs/1", 1);
        world.subscribe(w, "$share/g/jobs/+", 1);
        let all = world.record(topic("jobs/1"));
        let queue = world.record(topic("$queue/jobs/1"));
        world.publish(p, "$queue/jobs/1", "m", 1);
        world.work(w);
        assert_eq!(world.types_of(all, "p"), ["in PUBLISH", "out PUBACK"]);
        assert_eq!(world.types_of(all, "w"), ["out PUBLISH", "in PUBACK"]);
        assert_eq!(world.types(all), world.types(queue));
        world.publish(p, "jobs/1", "m", 1);
        world.work(w);
        world.work(w);
        let twice = ["out PUBLISH", "in PUBACK", "out PUBLISH", "in PUBACK"];
        let mut later = world.types_of(all, "w").split_off(2);
        later.sort_by_key(|kind| kind.contains("ACK"));
        let mut twice = twice.to_vec();
        twice.sort_by_key(|kind| kind.contains("ACK"));
        assert_eq!(later, twice);
    });
}

#[test]
fn a_topic_is_recorded_where_an_alias_stands_for_it() {
    let alias = || Property::TopicAlias(NonZeroU16::MIN);
    in_mqtt_5(
        |_| (),
        |mut world| {
            let (p, s) = (
                world.connect("p").go(),
                world
                    .connect("s")
                    .property(Property::TopicAliasMaximum(5))
                    .go(),
            );
            world.subscribe(s, "#", 0);
            world.send_with(p, ("some/topic", "1"), 0, false, &[alias()]);
            // Both aliases are set before it begins.
            let id = world.record(topic("some/+"));
            world.send_with(p, ("", "2"), 0, false, &[alias()]);
            for packet in world.packets(id) {
                assert_eq!(packet["topic"], "some/topic", "{packet}");
                assert_eq!(packet["by_alias"], true);
            }
            assert_eq!(world.types_of(id, "p"), ["in PUBLISH"]);
            assert_eq!(world.types_of(id, "s"), ["out PUBLISH"]);
            // And within one read.
            let mut properties = PropertiesBuf::new();
            properties.push(alias());
            let publish = |topic| {
                Packet::Publish(Publish {
                    dup: false,
                    qos: Qos::AtMostOnce,
                    retain: false,
                    topic,
                    packet_id: None,
                    properties: properties.as_properties(),
                    payload: b"3",
                })
            };
            world.send_all(p, &[publish("other/topic"), publish("")]);
            assert_eq!(world.types_of(id, "p").len(), 1);
            world.send_all(p, &[publish("some/other"), publish("")]);
            let packets = world.packets(id);
            let topics = packets.iter().filter_map(|packet| packet["topic"].as_str());
            let topics: Vec<&str> = topics.skip(2).collect();
            assert_eq!(topics, ["some/other"; 4]);
        },
    );
}

#[test]
fn below_a_mount_point_a_topic_is_the_whole_one() {
    in_each_version(|mut world| {
        world.listener.mount_point = Some("site/".to_owned());
        let inside = world.connect("inside").go();
        world.listener.mount_point = None;
        let outside = world.connect("outside").go();
        world.subscribe(inside, "t", 0);
        let whole = world.record(topic("site/t"));
        let seen = world.record(topic("t"));
        world.publish(inside, "t", "m", 0);
        world.publish(outside, "site/t", "m", 0);
        assert_eq!(world.types_of(whole, "inside").len(), 3);
        assert_eq!(world.types_of(whole, "outside").len(), 1);
        assert_eq!(world.types(seen).len(), 0);
    });
}

#[test]
fn no_secret_of_an_authentication_is_recorded() {
    let mut world = World::new();
    world.version = Version::V5;
    let id = world.record(client("c"));
    let mut properties = PropertiesBuf::new();
    properties.push(Property::AuthenticationMethod("SCRAM-SHA-256"));
    properties.push(Property::AuthenticationData(b"a-proof"));
    let connect = Connect {
        properties: properties.as_properties(),
        ..match world.connect("c").packet() {
            Packet::Connect(connect) => connect,
            _ => panic!("it is a CONNECT"),
        }
    };
    let mut bytes = Vec::new();
    encode(&Packet::Connect(connect.clone()), Version::V5, &mut bytes);
    world.tell_connecting(&connect, Direction::In, &bytes);
    for direction in [Direction::Out, Direction::In] {
        let mut bytes = Vec::new();
        let auth = rotamq::protocol::Auth {
            reason: ReasonCode::ContinueAuthentication,
            properties: properties.as_properties(),
        };
        encode(&Packet::Auth(auth), Version::V5, &mut bytes);
        world.tell_connecting(&connect, direction, &bytes);
    }
    assert_eq!(world.types(id), ["in CONNECT", "out AUTH", "in AUTH"]);
    for packet in world.packets(id) {
        let method = json!({"name": "authentication-method", "value": "SCRAM-SHA-256"});
        let data = json!({"name": "authentication-data", "value": null});
        assert_eq!(packet["properties"], json!([method, data]));
    }
}

#[test]
fn as_much_of_a_payload_is_there_as_was_asked_for() {
    in_each_version(|mut world| {
        let ids = [0, 4, 100].map(|payload_bytes_max| {
            let request = Request {
                payload_bytes_max,
                ..of(client("c"))
            };
            world.try_record(request).expect("there is room").id
        });
        let c = world.connect("c").will("w", "farewell", 0, false).go();
        world.publish(c, "t", "héé", 0);
        let odd = Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            topic: "t",
            packet_id: None,
            properties: Properties::EMPTY,
            payload: &[0, 1, 2, 3, 4],
        };
        world.send(c, &Packet::Publish(odd));
        let expected = [
            [Value::Null, Value::Null, Value::Null],
            [json!("fare"), json!("hé"), json!("AAECAw==")],
            [json!("farewell"), json!("héé"), json!("AAECAwQ=")],
        ];
        for (id, [will, text, bytes]) in ids.into_iter().zip(expected) {
            let packets = world.packets(id);
            assert_eq!(packets[0]["will"]["payload"], will);
            assert_eq!(packets[0]["will"]["payload_bytes"], 8);
            assert_eq!(packets[2]["payload"], text);
            assert_eq!(packets[2]["payload_bytes"], 5);
            assert_eq!(packets[3]["payload_base64"], bytes);
            assert_eq!(packets[3]["payload_bytes"], 5);
        }
    });
}

/// Large payloads are shared, and not in one piece with what is before them.
#[test]
fn large_messages_and_many_of_them_are_recorded_whole() {
    in_each_version(|mut world| {
        let (p, s) = (world.connect("p").go(), world.connect("s").go());
        world.subscribe(s, "#", 1);
        let request = Request {
            payload_bytes_max: 5000,
            ..of(client("s"))
        };
        let id = world.try_record(request).expect("there is room").id;
        world.clog(s, true);
        let payloads = [1, 5000, 3, 4000, 2].map(|len| "x".repeat(len));
        for payload in payloads.iter().cycle().take(50) {
            world.publish(p, "t", payload, 1);
        }
        assert_eq!(world.types(id), [""; 0]);
        world.clog(s, false);
        let packets = world.packets(id);
        assert_eq!(packets.len(), 50);
        for (packet, payload) in packets.iter().zip(payloads.iter().cycle()) {
            assert_eq!(packet["payload"], **payload);
        }
    });
}

/// When it may be said, not when it was put together.
#[test]
fn what_waits_for_the_disk_is_recorded_when_it_goes_out() {
    for version in VERSIONS {
        let mut world = World::new().stored(&Twin::new());
        world.version = version;
        let s = world.connect("s").clean(false).go();
        world.subscribe(s, "t", 1);
        world.disconnect(s);
        let p = world.connect("p").go();
        world.commits = Commits::ByHand;
        let id = world.record(client("p"));
        let before = world.now;
        world.send_publish(p, "t", "m", 1, false);
        world.advance(secs(1));
        assert_eq!(world.types(id), ["in PUBLISH"]);
        world.commit().expect("the disk is well");
        assert_eq!(world.types(id), ["in PUBLISH", "out PUBACK"]);
        let packets = world.packets(id);
        assert_eq!(packets[0]["at_us"], before.as_micros());
        assert_eq!(packets[1]["at_us"], world.now.as_micros());
    }
}

// ---- their bounds

#[test]
fn a_recording_ends_when_its_time_is_over_and_is_forgotten_later() {
    in_each_version(|mut world| {
        let c = world.connect("c").go();
        let id = world.record(client("c"));
        assert!(world.core.recordings().is_on());
        world.send(c, &Packet::Pingreq);
        world.advance(secs(60) - TICK);
        assert_eq!(world.how_it_is(id), (State::Recording, None, 2, 0));
        world.advance(TICK);
        assert_eq!(world.how_it_is(id), (State::Ended, Some(Why::Time), 2, 0));
        world.send(c, &Packet::Pingreq);
        world.advance(TICK);
        assert!(!world.core.recordings().is_on());
        assert_eq!(world.how_it_is(id), (State::Ended, Some(Why::Time), 2, 0));
        world.advance(secs(3600) + TICK);
        assert_eq!(world.recording(id), None);
        assert_eq!(world.timers(), 0);
    });
}

#[test]
fn a_recording_is_stopped_and_forgotten_by_hand() {
    in_each_version(|mut world| {
        let c = world.connect("c").go();
        let id = world.record(client("c"));
        world.send(c, &Packet::Pingreq);
        let stopped = world.core.recordings().stop(id, world.now);
        let stopped = stopped.expect("it is there");
        assert_eq!((stopped.state, stopped.packets), (State::Ended, 2));
        assert!(!world.core.recordings().is_on());
        world.send(c, &Packet::Pingreq);
        assert_eq!(
            world.how_it_is(id),
            (State::Ended, Some(Why::Stopped), 2, 0)
        );
        assert!(world.core.recordings().forget(id, world.now));
        assert!(!world.core.recordings().forget(id, world.now));
        assert_eq!(world.recording(id), None);
        assert_eq!(world.core.recordings().packets(id, 0, 1), None);
        assert_eq!(world.core.recordings().stop(id, world.now), None);
    });
}

#[test]
fn what_finds_no_room_is_counted() {
    in_each_version(|mut world| {
        let few = Request {
            packets_max: 3,
            ..of(client("c"))
        };
        let small = Request {
            bytes_max: Some(2 * KIB),
            payload_bytes_max: KIB,
            ..of(client("c"))
        };
        let c = world.connect("c").go();
        let few = world.try_record(few).expect("there is room").id;
        let small = world.try_record(small).expect("there is room").id;
        for _ in 0..2 {
            world.publish(c, "t", &"x".repeat(KIB), 1);
        }
        assert_eq!(
            world.how_it_is(few),
            (State::Full, Some(Why::Packets), 3, 1)
        );
        // A PUBLISH, its PUBACK, and no second PUBLISH of that size.
        assert_eq!(
            world.how_it_is(small),
            (State::Full, Some(Why::Bytes), 2, 2)
        );
        let view = world.recording(small).expect("it is there");
        assert!(view.bytes > KIB && view.bytes <= 2 * KIB, "{}", view.bytes);
        world.advance(secs(60) + TICK);
        assert_eq!(
            world.how_it_is(few),
            (State::Ended, Some(Why::Packets), 3, 1)
        );
    });
}

#[test]
fn there_are_few_at_once_and_those_that_are_over_make_room() {
    let mut world = World::with(|config| config.limits.traces_bytes_max = 80 * KIB);
    let full = |result: Result<RecordingView, NotStarted>| match result {
        Err(NotStarted::Full(why)) => why,
        other => panic!("there is no room, and not {other:?}"),
    };
    let ids: Vec<u64> = (0..8)
        .map(|number| world.record(client(&number.to_string())))
        .collect();
    assert!(full(world.try_record(of(client("9")))).contains("there are 8"));
    // The second one is over; it stays until another one begins.
    world.core.recordings().stop(ids[1], world.now);
    assert_eq!(world.core.recordings().list(world.now).len(), 8);
    let larger = Request {
        bytes_max: Some(30 * KIB),
        ..of(client("larger"))
    };
    assert!(full(world.try_record(larger.clone())).contains("leave 10240 bytes"));
    assert!(
        world.recording(ids[1]).is_some(),
        "what was in vain cost nothing"
    );
    world.record(client("9"));
    assert_eq!(world.recording(ids[1]), None);
    for id in &ids[2..5] {
        world.core.recordings().stop(*id, world.now);
    }
    world.try_record(larger).expect("there is room now");
    assert_eq!(world.recording(ids[2]), None);
    assert!(world.recording(ids[3]).is_some());
}

#[test]
fn there_is_as_much_room_as_is_set_now() {
    let mut world = World::with(|config| config.limits.traces_bytes_max = 0);
    assert!(world.try_record(of(client("c"))).is_err());
    world.reconfigure(|config| config.limits.traces_bytes_max = 80 * KIB);
    let first = world.record(client("c"));
    assert_eq!(
        world.recording(first).expect("it is there").bytes_max,
        10 * KIB
    );
    // What goes on stays, though there is no room for it any more.
    world.reconfigure(|config| config.limits.traces_bytes_max = 8 * KIB);
    assert!(world.recording(first).is_some());
    match world.try_record(of(client("d"))) {
        Err(NotStarted::Full(why)) => assert!(why.contains("leave 0 bytes"), "{why}"),
        other => panic!("there is no room, and not {other:?}"),
    }
    world.core.recordings().stop(first, world.now);
    world.record(client("d"));
}

/// What it takes to look out for acknowledgements is part of what it may take.
#[test]
fn what_is_looked_out_for_takes_room_until_the_end() {
    let mut world = World::new();
    let small = Request {
        bytes_max: Some(16 * KIB),
        ..of(topic("t"))
    };
    let (p, s) = (world.connect("p").go(), world.connect("s").go());
    world.subscribe(s, "t", 1);
    let empty = world.try_record(small.clone()).expect("there is room").id;
    for _ in 0..10 {
        world.publish(p, "t", "m", 1);
    }
    let running = world.recording(empty).expect("it is there");
    world.core.recordings().stop(empty, world.now);
    let over = world.recording(empty).expect("it is there");
    assert_eq!(running.packets, over.packets);
    assert!(over.bytes < running.bytes, "{running:?} {over:?}");
    // It is full by that too, and says so.
    let full = world.try_record(small).expect("there is room").id;
    for _ in 0..500 {
        world.publish(p, "t", "m", 1);
    }
    let view = world.recording(full).expect("it is there");
    assert_eq!(view.why, Some(Why::Bytes));
    assert!(view.bytes <= 16 * KIB && view.missed > 0, "{view:?}");
}

#[test]
fn what_is_no_recording_is_refused_with_what_would_be_one() {
    let mut world = World::new();
    let invalid = |world: &mut World, request| match world.try_record(request) {
        Err(NotStarted::Invalid(why)) => why,
        other => panic!("it is none, and not {other:?}"),
    };
    let wrong = of(topic("a/#/b"));
    assert!(invalid(&mut world, wrong).contains("\"a/#/b\" is no topic filter: # stands alone"));
    let lasts = Request {
        lasts: secs(3601),
        ..of(client("c"))
    };
    assert!(invalid(&mut world, lasts).contains("1 to 3600 seconds"));
    for packets_max in [0, 100_001] {
        let packets = Request {
            packets_max,
            ..of(client("c"))
        };
        assert!(invalid(&mut world, packets).contains("1 to 100000 packets"));
    }
    for bytes_max in [0, 65 << 20] {
        let bytes = Request {
            bytes_max: Some(bytes_max),
            ..of(client("c"))
        };
        assert!(invalid(&mut world, bytes).contains("1 to 67108864 bytes"));
    }
    assert!(invalid(&mut world, of(client(""))).contains("not empty"));
    let mut none = World::with(|config| config.limits.traces_bytes_max = 0);
    assert!(invalid(&mut none, of(client("c"))).contains("limits.traces_bytes_max is 0"));
}

#[test]
fn packets_are_read_in_pages() {
    let mut world = World::new();
    let c = world.connect("c").go();
    let id = world.record(client("c"));
    for _ in 0..3 {
        world.send(c, &Packet::Pingreq);
    }
    let page = |after, limit| -> Vec<u64> {
        let packets = world.core.recordings().packets(id, after, limit);
        let packets = packets.expect("it is there").into_iter();
        packets.map(|packet| packet.number).collect()
    };
    assert_eq!(page(0, 2), [1, 2]);
    assert_eq!(page(2, 10), [3, 4, 5, 6]);
    assert_eq!(page(6, 10), [0; 0]);
    assert_eq!(page(u64::MAX, 10), [0; 0]);
}
