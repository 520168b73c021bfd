//! What no client should send, over every transport as over TCP.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rotamq::config::{Address, Listener, Protocol};
use tokio_rustls::rustls::StreamOwned;

use crate::bad_input::strangers;
use crate::certificates::Authority;
use crate::clients::{PAHO, Version, broker_with};
use crate::raw::{Raw, packet};
use crate::tls::{client, listener, tcp};
use crate::wait::{DEADLINE, until};
use crate::websocket::{BINARY, CLOSE, Framed, frame};

/// All that comes until the broker closes.
fn until_closed(stream: &mut impl Read) -> Vec<u8> {
    let mut came = Vec::new();
    match stream.read_to_end(&mut came) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("not closed: {error}"),
        _ => came,
    }
}

/// A01, A10, A11, A13, A14, B01, B02, B04, B07, B22 and others of their kind:
/// closed, with a CONNACK that refuses if there is one to be had.
#[test]
fn strangers_are_shown_the_door_at_every_entrance() {
    let authority = Authority::new("transports");
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("transports.sock");
    let broker = broker_with(|config| {
        config.listeners.push(listener(&authority.server("server")));
        let mut websocket = Listener::new("127.0.0.1:0".parse().unwrap());
        websocket.protocol = Protocol::WebSocket;
        config.listeners.push(websocket);
        config
            .listeners
            .push(Listener::new(Address::Unix(path.clone())));
    });
    let (encrypted, framed) = (tcp(&broker, 1), tcp(&broker, 2));
    let mut canary = PAHO.subscriber(broker.address(), "canary", "canary", 1);
    let sessions = broker.sessions_len();
    for version in [Version::V31, Version::V311] {
        for (what, bytes) in strangers(version) {
            let mut tls = StreamOwned::new(client(&authority), Raw::open(encrypted).stream);
            tls.write_all(&bytes).unwrap();
            let by_tls = until_closed(&mut tls);

            let mut unix = UnixStream::connect(&path).unwrap();
            unix.set_read_timeout(Some(DEADLINE)).unwrap();
            // It may be closed before the last byte.
            _ = unix.write_all(&bytes);
            let by_unix = until_closed(&mut unix);

            let mut websocket = Framed::open(framed);
            websocket.send(&frame(BINARY, &bytes));
            let frames: Vec<_> = std::iter::from_fn(|| websocket.next()).collect();
            let (last, first) = frames.split_last().unwrap_or_else(|| panic!("{what}"));
            assert_eq!(last.0, CLOSE, "{what}");
            let by_websocket = first
                .iter()
                .flat_map(|(_, payload)| payload.clone())
                .collect();

            for answer in [by_tls, by_unix, by_websocket] {
                let is_refusal = answer.len() == 4 && answer[..3] == [0x20, 2, 0] && answer[3] > 0;
                assert!(
                    answer.is_empty() || is_refusal,
                    "{version:?}, {what}: {answer:?}"
                );
            }
        }
    }
    PAHO.publish(broker.address(), "canary", "sings", 1, false);
    assert_eq!(canary.receive().text(), "sings");
    until("they are gone", || broker.connections_len() == 1);
    assert_eq!(broker.sessions_len(), sessions);
}

/// Packets that break the rules after CONNACK end a connection everywhere, with
/// what came before them handled.
#[test]
fn violations_end_a_connection_at_every_entrance() {
    let (ping, violation) = ([0xC0, 0], packet(0xF0, b""));
    let authority = Authority::new("violations");
    let broker = broker_with(|config| {
        config.listeners.push(listener(&authority.server("server")));
        let mut websocket = Listener::new("127.0.0.1:0".parse().unwrap());
        websocket.protocol = Protocol::WebSocket;
        config.listeners.push(websocket);
    });
    let connect = crate::raw::connect(Version::V311, "violator", true, 0);
    let all = [&connect[..], &ping, &violation, &ping].concat();
    let answers = [0x20, 2, 0, 0, 0xD0, 0];
    let mut tls = StreamOwned::new(client(&authority), Raw::open(tcp(&broker, 1)).stream);
    tls.write_all(&all).unwrap();
    assert_eq!(until_closed(&mut tls), answers);
    let mut websocket = Framed::open(tcp(&broker, 2));
    websocket.send(&frame(BINARY, &all));
    let frames = std::iter::from_fn(|| websocket.next()).filter(|(first, _)| *first == BINARY);
    let came: Vec<u8> = frames.flat_map(|(_, payload)| payload).collect();
    assert_eq!(came, answers);
}
