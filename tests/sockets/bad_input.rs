//! Bytes that no client should send: the connection is closed, and nobody else
//! notices.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rotamq::Broker;

use crate::clients::{Client, PAHO, RUMQTTC, Version, broker, broker_with};
use crate::raw::{self, Raw, packet, publish, text};
use crate::wait::until;

/// A publisher and a subscriber who must not be disturbed.
struct Canary {
    publisher: Box<dyn Client>,
    subscriber: Box<dyn Client>,
    count: u32,
}

impl Canary {
    fn new(broker: &Broker) -> Canary {
        let address = broker.address();
        Canary {
            publisher: RUMQTTC.connect(address, "canary publisher"),
            subscriber: PAHO.subscriber(address, "canary subscriber", "canary/#", 2),
            count: 0,
        }
    }

    fn sing(&mut self) {
        self.count += 1;
        let song = self.count.to_string();
        let qos = (self.count % 3) as u8;
        self.publisher
            .publish("canary/1", song.as_bytes(), qos, false);
        let heard = self.subscriber.receive();
        assert_eq!((heard.text(), heard.qos), (&*song, qos));
    }
}

/// Before CONNECT is accepted, and what may be answered: nothing, or a CONNACK.
pub fn strangers(version: Version) -> Vec<(&'static str, Vec<u8>)> {
    let connect = |flags, payload: &[u8]| raw::connect_flags(version, flags, 0, payload);
    let name_and_level = |name: &str, level: u8| {
        packet(
            0x10,
            &[&text(name)[..], &[level, 2, 0, 0], &text("c")].concat(),
        )
    };
    // MQTT 3.1 says that these are not used.
    let strict = match version {
        Version::V31 => None,
        _ => Some(("the reserved flag", connect(0x03, &text("c")))),
    };
    let mut huge = vec![0x30, 0xFF, 0xFF, 0xFF, 0x7F];
    huge.extend([0; 100]);
    let mut strangers = vec![
        ("not a CONNECT, of 256 MiB", huge),
        (
            "a remaining length of five bytes",
            vec![0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
        ),
        ("a CONNECT of 256 MiB", vec![0x10, 0xFF, 0xFF, 0xFF, 0x7F]),
        ("a CONNECT beyond its limit", vec![0x10, 0x81, 0x80, 0x04]),
        ("PUBACK", vec![0x40, 2, 0, 1]),
        ("PINGREQ", vec![0xC0, 0]),
        ("DISCONNECT", vec![0xE0, 0]),
        ("PUBLISH", publish("canary/1", b"no", 1, 1)),
        ("a reserved type", vec![0x00, 0]),
        ("the other reserved type", vec![0xF0, 0]),
        ("CONNECT with flags", vec![0x1F, 2, 0, 0]),
        ("an empty CONNECT", vec![0x10, 0]),
        (
            "HTTP",
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        ),
        (
            "TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        ),
        ("another protocol", name_and_level("MQTX", 4)),
        ("NUL in the protocol's name", name_and_level("MQTT\0", 4)),
        ("an unknown level", name_and_level("MQTT", 6)),
        ("level 0", name_and_level("MQTT", 0)),
        ("a mixed level", name_and_level("MQIsdp", 4)),
        (
            "a will of QoS 3",
            connect(0x1E, &[text("c"), text("t"), text("p")].concat()),
        ),
        ("a will's QoS without a will", connect(0x0A, &text("c"))),
        ("a retained will without a will", connect(0x22, &text("c"))),
        (
            "a will to a filter",
            connect(0x06, &[text("c"), text("a/#"), text("p")].concat()),
        ),
        (
            "a will without payload",
            connect(0x06, &[text("c"), text("t")].concat()),
        ),
        (
            "a password without a user",
            connect(0x42, &[text("c"), text("p")].concat()),
        ),
        (
            "bytes behind the last field",
            connect(0x02, &[text("c"), vec![0]].concat()),
        ),
        ("a client id cut short", connect(0x02, &[0, 9, b'c'])),
        (
            "a client id that is no UTF-8",
            connect(0x02, &text(b"\xC3\x28")),
        ),
        ("NUL in the client id", connect(0x02, &text("a\0b"))),
        (
            "a surrogate in the client id",
            connect(0x02, &text(b"\xED\xA0\x80")),
        ),
        ("no client id, and not clean", connect(0x00, &text(""))),
    ];
    strangers.extend(strict);
    strangers
}

/// After CONNACK: nothing is answered.
fn violations(version: Version) -> Vec<(&'static str, Vec<u8>)> {
    let subscribe = |rest: &[u8]| packet(0x82, &[&[0, 1][..], rest].concat());
    let filter = |filter: &[u8], qos: u8| [text(filter), vec![qos]].concat();
    // MQTT 3.1 does not mind.
    let strict = match version {
        Version::V31 => None,
        _ => Some(("PUBLISH of QoS 0 with DUP", packet(0x38, &text("t")))),
    };
    let mut violations = vec![
        (
            "a second CONNECT",
            raw::connect(Version::V311, "violator", true, 0),
        ),
        ("CONNACK", vec![0x20, 2, 0, 0]),
        ("SUBACK", vec![0x90, 3, 0, 1, 0]),
        ("UNSUBACK", vec![0xB0, 2, 0, 1]),
        ("PINGRESP", vec![0xD0, 0]),
        ("a reserved type", vec![0x00, 0]),
        ("AUTH", vec![0xF0, 0]),
        (
            "a remaining length of five bytes",
            vec![0x30, 0x80, 0x80, 0x80, 0x80, 0x01],
        ),
        ("more than packet_bytes_max", vec![0x30, 0x81, 0x80, 0x40]),
        (
            "PUBLISH of QoS 3",
            packet(0x36, &[&text("t")[..], &[0, 1]].concat()),
        ),
        ("PUBLISH without a topic", packet(0x30, &[])),
        ("PUBLISH to an empty topic", publish("", b"x", 0, 0)),
        ("PUBLISH to +", publish("canary/+", b"x", 0, 0)),
        ("PUBLISH to #", publish("canary/#", b"x", 1, 1)),
        (
            "PUBLISH to a topic with NUL",
            publish("canary/\0", b"x", 0, 0),
        ),
        ("PUBLISH to no UTF-8", packet(0x30, &text(b"\xFF"))),
        (
            "PUBLISH to an overlong slash",
            packet(0x30, &text(b"canary\xC0\xAF1")),
        ),
        (
            "PUBLISH whose topic is longer than it",
            vec![0x30, 3, 0xFF, 0xFF, b'a'],
        ),
        ("PUBLISH with packet id 0", publish("canary/1", b"x", 1, 0)),
        ("PUBLISH without packet id", packet(0x32, &text("canary/1"))),
        (
            "PUBLISH to a topic of 65,535 levels",
            publish(&"/".repeat(65_534), b"x", 0, 0),
        ),
        (
            "PUBLISH to $share/",
            publish("$share/group/canary/1", b"x", 1, 1),
        ),
        (
            "PUBLISH to a queue with a wildcard",
            publish("$queue/+", b"x", 1, 1),
        ),
        (
            "PUBLISH to an unknown control topic",
            publish("$queue/$other", b"x", 1, 1),
        ),
        (
            "PUBLISH that settles nonsense",
            publish("$queue/$nack", b"\xFF", 1, 1),
        ),
        ("PUBACK without id", vec![0x40, 0]),
        ("PUBACK with id 0", vec![0x40, 2, 0, 0]),
        ("PUBACK with flags", vec![0x42, 2, 0, 1]),
        ("PUBREL without its flags", vec![0x60, 2, 0, 1]),
        ("PUBREC with id 0", vec![0x50, 2, 0, 0]),
        ("PUBCOMP of 3 bytes", vec![0x70, 3, 0, 1, 0]),
        (
            "SUBSCRIBE without its flags",
            packet(0x80, &[&[0, 1][..], &filter(b"t", 0)].concat()),
        ),
        (
            "SUBSCRIBE with id 0",
            packet(0x82, &[&[0, 0][..], &filter(b"t", 0)].concat()),
        ),
        ("SUBSCRIBE to nothing", subscribe(&[])),
        ("SUBSCRIBE at QoS 3", subscribe(&filter(b"canary/#", 3))),
        (
            "SUBSCRIBE with reserved bits",
            subscribe(&filter(b"canary/#", 4)),
        ),
        ("SUBSCRIBE without QoS", subscribe(&text("canary/#"))),
        ("SUBSCRIBE to an empty filter", subscribe(&filter(b"", 0))),
        (
            "SUBSCRIBE to a filter with NUL",
            subscribe(&filter(b"canary/\0", 0)),
        ),
        ("SUBSCRIBE to no UTF-8", subscribe(&filter(b"\xC3\x28", 0))),
        ("SUBSCRIBE to #/a", subscribe(&filter(b"#/a", 0))),
        ("SUBSCRIBE to a+", subscribe(&filter(b"a+", 0))),
        (
            "a good filter and a bad one",
            subscribe(&[filter(b"canary/#", 0), filter(b"a#", 0)].concat()),
        ),
        ("UNSUBSCRIBE from nothing", packet(0xA2, &[0, 1])),
        (
            "UNSUBSCRIBE without its flags",
            packet(0xA0, &[&[0, 1][..], &text("t")].concat()),
        ),
        ("PINGREQ with a body", vec![0xC0, 1, 0]),
        ("DISCONNECT with flags", vec![0xE1, 0]),
        ("DISCONNECT with a body", vec![0xE0, 1, 0]),
    ];
    violations.extend(strict);
    violations
}

/// In one write, and byte by byte.
fn send(client: &mut Raw, bytes: &[u8], by_byte: bool) {
    let pieces = bytes.chunks(if by_byte { 1 } else { bytes.len() });
    for piece in pieces {
        // The broker may have closed before the last byte.
        if client.stream.write_all(piece).is_err() {
            return;
        }
    }
}

#[test]
fn strangers_are_shown_the_door() {
    let broker = broker();
    let mut canary = Canary::new(&broker);
    let sessions = broker.sessions_len();
    for version in [Version::V31, Version::V311] {
        for (what, bytes) in strangers(version) {
            for by_byte in [false, true] {
                let mut client = Raw::open(broker.address());
                send(&mut client, &bytes, by_byte);
                let answers = client.until_closed();
                let refusal = |answer: &Vec<u8>| answer[..3] == [0x20, 2, 0] && answer[3] > 0;
                let refused = answers.len() <= 1 && answers.iter().all(refusal);
                assert!(refused, "{version:?}, {what}: {answers:?}");
                canary.sing();
            }
        }
    }
    until("they are gone", || broker.connections_len() == 2);
    assert_eq!(broker.sessions_len(), sessions);
}

#[test]
fn who_breaks_the_rules_is_closed() {
    let broker = broker();
    let mut canary = Canary::new(&broker);
    let subscriptions = broker.subscriptions_len();
    for version in [Version::V31, Version::V311] {
        for (what, bytes) in violations(version) {
            for by_byte in [false, bytes.len() < 1000] {
                let mut client = Raw::connect(broker.address(), version, "violator");
                send(&mut client, &bytes, by_byte);
                let answers = client.until_closed();
                assert!(answers.is_empty(), "{version:?}, {what}: {answers:?}");
                canary.sing();
            }
        }
    }
    until("they are gone", || broker.connections_len() == 2);
    assert_eq!(broker.sessions_len(), 2);
    assert_eq!(broker.subscriptions_len(), subscriptions);
    assert_eq!(broker.retained_len(), 0);
}

/// What came before a violation counts, what comes behind it does not.
#[test]
fn the_packets_before_a_violation_are_handled_and_those_behind_it_not() {
    let broker = broker();
    let mut canary = Canary::new(&broker);
    for version in [Version::V31, Version::V311] {
        let mut client = Raw::connect(broker.address(), version, "violator");
        let before = publish("canary/before", b"yes", 1, 1);
        let behind = publish("canary/behind", b"no", 1, 2);
        client.send(&[&before[..], &[0xF0, 0], &behind].concat());
        assert_eq!(client.until_closed(), [[0x40, 2, 0, 1]]);
        assert_eq!(canary.subscriber.receive().text(), "yes");
        canary.sing();
    }
}

#[test]
fn a_connect_has_to_come_in_time_however_slowly_it_is_sent() {
    let broker = broker_with(|config| {
        config.limits.connect_timeout = Duration::from_millis(300);
    });
    let address = broker.address();
    let mut canary = Canary::new(&broker);
    for version in [Version::V31, Version::V311] {
        let long_id = "x".repeat(1000);
        let connect = raw::connect(version, &long_id, true, 0);
        let mut silent = Raw::open(address);
        let mut half = Raw::open(address);
        half.send(&connect[..connect.len() / 2]);
        let mut dribbling = Raw::open(address);
        let dribbled = dribble(&mut dribbling.stream, &connect);
        assert!(dribbled < connect.len(), "closed before it was whole");
        assert!(silent.until_closed().is_empty());
        assert!(half.until_closed().is_empty());
        canary.sing();
    }
    until("they are gone", || broker.connections_len() == 2);
}

/// A byte every few milliseconds, until the broker has enough; how many were
/// sent.
fn dribble(stream: &mut TcpStream, bytes: &[u8]) -> usize {
    let between = Duration::from_millis(5);
    stream.set_read_timeout(Some(between)).unwrap();
    for (sent, byte) in bytes.iter().enumerate() {
        if stream.write_all(&[*byte]).is_err() {
            return sent;
        }
        match stream.read(&mut [0]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => return sent,
        }
    }
    bytes.len()
}

/// The most levels that there can be, where they are allowed; and the default,
/// where they are not.
#[test]
fn topics_of_65_thousand_levels() {
    let deep = broker_with(|config| {
        config.limits.topic_bytes_max = 65_528;
        config.limits.topic_levels_max = 65_535;
    });
    let topic = "/".repeat(65_526);
    let mut canary = Canary::new(&deep);
    for version in [Version::V31, Version::V311] {
        let mut client = Raw::connect(deep.address(), version, "deep");
        for filter in [&*topic, &*format!("{topic}#"), &*"+/".repeat(32_764), "#"] {
            client.send(&raw::subscribe(1, filter, 1));
            assert!(
                client.fence().contains(&vec![0x90, 3, 0, 1, 1]),
                "it is granted"
            );
        }
        let mut retained = publish(&topic, b"deep", 1, 7);
        retained[0] |= 1;
        client.send(&retained);
        let came = client.fence();
        let first: Vec<u8> = came.iter().map(|packet| packet[0]).collect();
        assert!(first == [0x32, 0x40] || first == [0x40, 0x32], "{first:?}");
        assert_eq!(deep.retained_len(), 1);
        let mut cleared = publish(&topic, b"", 0, 0);
        cleared[0] |= 1;
        client.send(&cleared);
        assert_eq!(client.fence().len(), 1);
        assert_eq!(deep.retained_len(), 0);
        client.send(&publish(
            &format!("$queue/{}", "/".repeat(65_528)),
            b"job",
            1,
            8,
        ));
        assert_eq!(client.packet(), [0x40, 2, 0, 8]);
        canary.sing();
    }

    let shallow = broker();
    let mut client = Raw::connect(shallow.address(), Version::V311, "deep");
    for filter in [
        topic.clone(),
        "+/".repeat(200),
        format!("$queue/{}", "a/".repeat(200)),
    ] {
        client.send(&raw::subscribe(1, &filter, 1));
        assert_eq!(client.packet(), [0x90, 3, 0, 1, 0x80], "it is not granted");
    }
    client.send(&packet(0xA2, &[&[0, 2][..], &text(&topic)].concat()));
    assert_eq!(client.packet(), [0xB0, 2, 0, 2]);
    assert_eq!(shallow.subscriptions_len(), 0);
}

#[test]
fn a_client_beyond_its_subscriptions_keeps_those_it_has() {
    let broker = broker_with(|config| config.limits.subscriptions_per_client_max = 10);
    let mut client = Raw::connect(broker.address(), Version::V311, "greedy");
    for number in 0..20_u8 {
        client.send(&raw::subscribe(1, &format!("filter/{number}"), 0));
        let granted = if number < 10 { 0 } else { 0x80 };
        assert_eq!(client.packet(), [0x90, 3, 0, 1, granted]);
    }
    // One that it has, at another QoS.
    client.send(&raw::subscribe(1, "filter/3", 1));
    assert_eq!(client.packet(), [0x90, 3, 0, 1, 1]);
    assert_eq!(broker.subscriptions_len(), 10);
}

#[test]
fn connections_beyond_the_limit_are_closed_and_the_others_go_on() {
    let broker = broker_with(|config| config.limits.connections_max = 12);
    let mut canary = Canary::new(&broker);
    let held: Vec<Raw> = (0..10)
        .map(|number| Raw::connect(broker.address(), Version::V311, &format!("held {number}")))
        .collect();
    for _ in 0..20 {
        let mut beyond = Raw::open(broker.address());
        _ = beyond
            .stream
            .write_all(&raw::connect(Version::V311, "beyond", true, 0));
        assert!(beyond.until_closed().is_empty());
    }
    canary.sing();
    drop(held);
    until("there is room again", || broker.connections_len() == 2);
    Raw::connect(broker.address(), Version::V311, "welcome");
    canary.sing();
}
