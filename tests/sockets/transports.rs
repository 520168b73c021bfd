//! What no client should send, over every transport as over TCP.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use rotamq::config::{Address, Listener, Protocol};
use rotamq::protocol::Version;
use tokio_rustls::rustls::StreamOwned;

use crate::bad_input::{Canary, play};
use crate::certificates::Authority;
use crate::clients::broker_with;
use crate::hostile;
use crate::raw::Raw;
use crate::tls::{client, listener, tcp};
use crate::wait::{DEADLINE, until};
use crate::websocket::Unframed;

/// Bytes both ways, whatever carries them.
trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// Ten rows of the table, of all kinds.
const SAMPLE: [&str; 10] = [
    "a remaining length of five bytes",
    "a properties length of five bytes",
    "a topic longer than the packet",
    "CONNACK",
    "type 0",
    "no client id, and a session that is to stay",
    "a second CONNECT",
    "another first packet of 256 MiB",
    "65,535 levels",
    "half a share group",
];

/// Ten rows of the table by TLS, WebSocket, both, a Unix socket and behind a PROXY
/// header: A01, A02, A08, A10, A11, B01, B07, B08, C01, H01.
#[test]
fn hostile_bytes_at_every_entrance() {
    let authority = Authority::new("transports");
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("transports.sock");
    let broker = broker_with(|config| {
        let plain = || Listener::new("127.0.0.1:0".parse().unwrap());
        let encrypted = || listener(&authority.server("server"));
        config.listeners.push(encrypted());
        for mut websocket in [plain(), encrypted()] {
            websocket.protocol = Protocol::WebSocket;
            config.listeners.push(websocket);
        }
        let mut proxied = plain();
        proxied.proxy_trusted = vec!["127.0.0.1".parse().unwrap()];
        config.listeners.push(proxied);
        (config.listeners).push(Listener::new(Address::Unix(path.clone())));
    });
    let open = |index: usize| Raw::open(tcp(&broker, index)).stream;
    let encrypted = |index: usize| StreamOwned::new(client(&authority), open(index));
    let proxied = || {
        let mut stream = open(4);
        stream
            .write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 1883\r\n")
            .unwrap();
        stream
    };
    let unix = || {
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    };
    type Entrance<'a> = (&'a str, &'a dyn Fn() -> Box<dyn Stream>);
    let entrances: [Entrance<'_>; 5] = [
        ("TLS", &|| Box::new(encrypted(1))),
        ("WebSocket", &|| Box::new(Unframed::over(open(2)))),
        ("secure WebSocket", &|| {
            Box::new(Unframed::over(encrypted(3)))
        }),
        ("PROXY", &|| Box::new(proxied())),
        ("Unix socket", &|| Box::new(unix())),
    ];
    let mut canary = Canary::new(&broker);
    let mut complaints = Vec::new();
    for (entrance, open) in entrances {
        for (case, version) in hostile::cases() {
            if !SAMPLE.contains(&case.name) {
                continue;
            }
            for piece_len in [usize::MAX, 1] {
                if piece_len > 1 || case.bytes(version).len() < 1000 {
                    let complaint = play(Raw::over(open()), &case, version, piece_len);
                    complaints.extend(complaint.map(|what| format!("{entrance}: {what}")));
                }
            }
        }
        // What came before a violation is handled, and what came behind it is not.
        let mut client = Raw::over(open());
        let (ping, violation) = ([0xC0, 0], [0xF0, 0]);
        let connect = hostile::connect(Version::V3_1_1);
        client.send(&[&connect[..], &ping, &violation, &ping].concat());
        let answers = [vec![0x20, 2, 0, 0], vec![0xD0, 0]];
        assert_eq!(client.until_closed(), answers, "{entrance}");
        canary.sing();
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    until("they are gone", || broker.connections_len() == 2);
    assert_eq!(broker.sessions_len(), 2);
}
