//! Enhanced authentication over a socket, however the bytes come.

use std::sync::Arc;

use rotamq::authentication::{Authenticated, Conversation, Method, Step};
use rotamq::config::Config;
use rotamq::message::Identity;

use crate::bytes::wire;
use crate::clients::Version;
use crate::raw::{self, Raw};
use crate::wait::until;

/// Asks for one more than the number that the client says, three times.
pub struct Counting;

impl Method for Counting {
    fn name(&self) -> &str {
        "COUNT"
    }

    fn begin(&self) -> Box<dyn Conversation> {
        Box::new(Count(0))
    }
}

struct Count(u8);

impl Conversation for Count {
    fn step(&mut self, _: &Identity, data: &[u8]) -> Step {
        if data != [self.0] {
            return Step::Reject;
        }
        self.0 += 1;
        match self.0 {
            4 => Step::Accept {
                who: Authenticated::as_user("counter"),
                data: Vec::new(),
            },
            next => Step::Ask(vec![next]),
        }
    }
}

fn broker() -> rotamq::Broker {
    let mut config = Config::default();
    config.http.address = None;
    config.listeners[0].address = "127.0.0.1:0".parse().unwrap();
    config.store.ephemeral = true;
    config.allow_anonymous = false;
    rotamq::Broker::start_with(config, vec![Arc::new(Counting)]).unwrap()
}

/// CONNECT of the client `c` with the method and a 0.
pub const CONNECT: &[u8] =
    b"\x10\x1a\x00\x04MQTT\x05\x02\x00\x00\x0c\x15\x00\x05COUNT\x16\x00\x01\x00\x00\x01c";

pub fn auth(reason: u8, number: u8) -> Vec<u8> {
    let mut bytes = b"\xf0\x0e\x18\x0c\x15\x00\x05COUNT\x16\x00\x01".to_vec();
    bytes[2] = reason;
    bytes.push(number);
    bytes
}

#[test]
fn a_client_counts_its_way_in() {
    let broker = broker();
    for split in [false, true] {
        let mut raw = Raw::open(broker.address());
        let send = |raw: &mut Raw, bytes: &[u8]| match split {
            true => bytes.iter().for_each(|byte| raw.send(&[*byte])),
            false => raw.send(bytes),
        };
        send(&mut raw, CONNECT);
        for number in 1..=3 {
            assert_eq!(raw.packet(), auth(0x18, number));
            let mut bytes = auth(0x18, number);
            if number == 3 {
                bytes.extend(b"\xc0\x00"); // What comes behind it is not lost.
            }
            send(&mut raw, &bytes);
        }
        let connack = raw.packet();
        assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:x?}");
        assert_eq!(raw.packet(), b"\xd0\x00");
        // Again, on the connection as it is.
        send(&mut raw, &auth(0x19, 0));
        for number in 1..=3 {
            assert_eq!(raw.packet(), auth(0x18, number));
            send(&mut raw, &auth(0x18, number));
        }
        assert_eq!(raw.packet(), b"\xf0\x0a\x00\x08\x15\x00\x05COUNT");
    }
    broker.stop();
}

/// Each version has its words for it, and is closed after them.
#[test]
fn whoever_is_nobody_is_told_and_closed() {
    let broker = broker();
    for (connect, connack) in [
        (
            &b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c"[..],
            &b"\x20\x02\x00\x05"[..],
        ),
        (
            b"\x10\x10\x00\x04MQTT\x04\x82\x00\x00\x00\x01c\x00\x01u",
            b"\x20\x02\x00\x04",
        ),
        (
            b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01c",
            b"\x20\x21\x00\x87",
        ),
        (
            b"\x10\x11\x00\x04MQTT\x05\x42\x00\x00\x00\x00\x01c\x00\x01p",
            b"\x20\x21\x00\x86",
        ),
    ] {
        let mut raw = Raw::open(broker.address());
        raw.send(connect);
        assert!(raw.packet().starts_with(connack), "{connect:x?}");
        assert_eq!(raw.read(), None);
    }
    assert_eq!(broker.sessions_len(), 0);
    assert_eq!(broker.counts().connections_refused, 4);
    broker.stop();
}

#[test]
fn whoever_counts_wrong_is_told_and_closed() {
    let broker = broker();
    for (answer, reason) in [
        (auth(0x18, 7), 0x87),
        (b"\xc0\x00".to_vec(), 0x82),
        (b"\xf0\x00".to_vec(), 0x82),
        (b"\xff\x00".to_vec(), 0x81),
    ] {
        let mut raw = Raw::open(broker.address());
        raw.send(CONNECT);
        assert_eq!(raw.packet(), auth(0x18, 1));
        raw.send(&answer);
        let connack = raw.packet();
        assert_eq!((connack[0], connack[3]), (0x20, reason), "{connack:x?}");
        assert_eq!(raw.read(), None);
    }
    assert_eq!(broker.sessions_len(), 0);
    broker.stop();
}

/// A method with a fault.
struct Faulty;

impl Method for Faulty {
    fn name(&self) -> &str {
        "FAULTY"
    }

    fn begin(&self) -> Box<dyn Conversation> {
        Box::new(Faulty)
    }
}

impl Conversation for Faulty {
    fn step(&mut self, _: &Identity, data: &[u8]) -> Step {
        assert_ne!(data, b"!", "the fault");
        Step::Accept {
            who: Authenticated::as_user("faulty"),
            data: Vec::new(),
        }
    }
}

/// C16: a fault while a packet is handled, or a CONNECT, ends that connection; its
/// thread serves all others as before, and its session is left in order.
#[test]
fn a_panic_closes_the_connection_that_it_happens_on() {
    let mut config = Config::default();
    config.http.address = None;
    config.listeners[0].address = "127.0.0.1:0".parse().unwrap();
    config.store.ephemeral = true;
    config.allow_anonymous = true;
    config.threads = 1;
    let broker = rotamq::Broker::start_with(config, vec![Arc::new(Faulty)]).unwrap();
    let mut canary = Raw::connect(broker.address(), Version::V311, "canary");
    canary.send(&raw::subscribe(1, "wills", 0));
    assert_eq!(canary.packet(), [0x90, 3, 0, 1, 0]);
    let connect = |data: &str| {
        let text = format!(
            "10 # N 06 0000 0D 15 0006 'FAULTY' 16 0001 '{data}' 0001 'f' 00 0005 'wills' 0004 'gone'"
        );
        wire(&text, rotamq::protocol::Version::V5)
    };
    for _ in 0..3 {
        let mut refused = Raw::open(broker.address());
        refused.send(&connect("!"));
        assert_eq!(refused.read(), None);

        let mut client = Raw::open(broker.address());
        client.send(&connect("?"));
        assert_eq!(client.packet()[3], 0);
        client.send(&[0xC0, 0]);
        let again = "F0 # 19 0D 15 0006 'FAULTY' 16 0001 '!'";
        client.send(&wire(again, rotamq::protocol::Version::V5));
        assert!(
            client
                .until_closed()
                .iter()
                .all(|packet| packet == &[0xD0, 0])
        );
        assert_eq!(canary.packet(), raw::publish("wills", b"gone", 0, 0));
        assert!(canary.fence().is_empty());
    }
    until("they are gone", || broker.connections_len() == 1);
    assert_eq!(broker.sessions_len(), 1);
    broker.stop();
}
