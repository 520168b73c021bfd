//! Bytes that no client should send: the connection is closed, and nobody else
//! notices.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rotamq::Broker;

use crate::clients::{Client, PAHO, RUMQTTC, Version, broker, broker_with};
use crate::hostile::{self, Case, When};
use crate::raw::{self, Raw, packet, publish, text};
use crate::wait::until;

/// A publisher and a subscriber who must not be disturbed.
pub struct Canary {
    publisher: Box<dyn Client>,
    subscriber: Box<dyn Client>,
    count: u32,
}

impl Canary {
    pub fn new(broker: &Broker) -> Canary {
        let address = broker.address();
        Canary {
            publisher: RUMQTTC.connect(address, "canary publisher"),
            subscriber: PAHO.subscriber(address, "canary subscriber", "canary/#", 2),
            count: 0,
        }
    }

    pub fn sing(&mut self) {
        self.count += 1;
        let song = self.count.to_string();
        let qos = (self.count % 3) as u8;
        self.publisher
            .publish("canary/1", song.as_bytes(), qos, false);
        let heard = self.subscriber.receive();
        assert_eq!((heard.text(), heard.qos), (&*song, qos));
    }
}

/// A row of the table on a connection of its own, in pieces of so many bytes;
/// what is wrong with what comes of it.
pub fn play<S: Read + Write>(
    mut client: Raw<S>,
    case: &Case,
    version: rotamq::protocol::Version,
    piece_len: usize,
) -> Option<String> {
    if case.when == When::Later {
        client.send(&hostile::connect(version));
        let connack = client.packet();
        assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:02X?}");
    }
    let mut bytes = case.bytes(version);
    if case.closes() {
        // Byte by byte it would come after the end.
        if piece_len >= bytes.len() {
            bytes.extend(hostile::smuggled(version));
        }
        client.send_in_pieces(&bytes, piece_len);
        let said = client.until_closed().concat();
        return match said.is_empty() && client.was_reset {
            true => None,
            false => case.complaint(version, &said),
        };
    }
    // The connection goes on, and nothing else comes.
    client.send_in_pieces(&bytes, piece_len);
    client.send_in_pieces(&[0xC0, 0, 0xE0, 0], piece_len);
    let said = client.until_closed().concat();
    match said.strip_suffix(&[0xD0, 0]) {
        Some(answer) => case.complaint(version, answer),
        None => Some(format!(
            "{}: it is closed, {said:02X?}",
            case.title(version)
        )),
    }
}

/// Every row of the table over TCP, in one write and byte by byte.
#[test]
fn hostile_bytes_over_tcp() {
    let broker = broker();
    let mut canary = Canary::new(&broker);
    let state = || {
        [
            broker.sessions_len(),
            broker.subscriptions_len(),
            broker.retained_len(),
        ]
    };
    let before = state();
    let mut complaints = Vec::new();
    for (case, version) in hostile::cases() {
        for piece_len in [usize::MAX, 1] {
            if piece_len > 1 || case.bytes(version).len() < 1000 {
                let client = Raw::open(broker.address());
                complaints.extend(play(client, &case, version, piece_len));
            }
        }
        canary.sing();
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    until("they are gone", || broker.connections_len() == 2);
    assert_eq!(state(), before);
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

/// Case B05 of docs/security.md.
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
/// Case C01 of docs/security.md.
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

/// Case C02 of docs/security.md.
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

/// Case C51 of docs/security.md.
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
