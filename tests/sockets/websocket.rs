//! MQTT over WebSocket: MQTT.js and paho, and frames by hand.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rotamq::Broker;
use rotamq::config::{Config, Listener, Protocol};

use crate::certificates::Authority;
use crate::clients::{
    MQTTJS, MQTTJS_5, Options, Over, PAHO, PAHO_5, PAHO_31, Version, broker_with,
};
use crate::raw::{self, Raw, packet, publish, text};
use crate::tls::{listener, tcp};
use crate::wait::until;

/// A broker whose second listener is for WebSocket.
fn broker(change: impl FnOnce(&mut Config)) -> (Broker, SocketAddr) {
    let broker = broker_with(|config| {
        let mut listener = Listener::new("127.0.0.1:0".parse().unwrap());
        listener.protocol = Protocol::WebSocket;
        config.listeners.push(listener);
        change(config);
    });
    let address = tcp(&broker, 1);
    (broker, address)
}

#[test]
fn clients_that_we_did_not_write_speak_websocket_with_tls_and_without() {
    let authority = Authority::new("websocket");
    let (broker, plain) = broker(|config| {
        let mut secure = listener(&authority.server("server"));
        secure.protocol = Protocol::WebSocket;
        config.listeners.push(secure);
    });
    let secure = tcp(&broker, 2);
    for (address, ca) in [(plain, None), (secure, Some(authority.ca()))] {
        let over = Over {
            ca,
            websocket: true,
            ..Over::default()
        };
        for peer in [MQTTJS, MQTTJS_5, PAHO, PAHO_5, PAHO_31] {
            let options = |id| Options::clean(address, id).over(&over);
            let mut subscriber = peer.open(options("subscriber"));
            assert_eq!(subscriber.subscribe(&["t"], 2), [2]);
            let mut publisher = peer.open(options("publisher"));
            // Beyond one frame of the broker's, and several packets in one.
            let large = "x".repeat(500_000);
            publisher.publish("t", large.as_bytes(), 2, false);
            assert!(subscriber.receive().text() == large, "{peer:?}");
            for number in 0..50 {
                publisher.publish("t", number.to_string().as_bytes(), 1, false);
            }
            for number in 0..50 {
                assert_eq!(subscriber.receive().text(), number.to_string(), "{peer:?}");
            }
            PAHO.publish(broker.address(), "t", "from TCP", 1, false);
            assert_eq!(subscriber.receive().text(), "from TCP", "{peer:?}");
            subscriber.disconnect();
            publisher.disconnect();
        }
    }
}

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n";

/// The head of the answer to a request, and what came behind it.
fn ask(stream: &mut (impl Read + Write), request: &str) -> (String, Vec<u8>) {
    // It may be closed before the last byte of a long one.
    _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).unwrap_or(0);
        answer.extend_from_slice(&buffer[..count]);
        let end = answer.windows(4).position(|end| end == b"\r\n\r\n");
        if let Some(end) = end {
            let rest = answer.split_off(end + 4);
            return (String::from_utf8(answer).unwrap(), rest);
        }
        assert!(count > 0, "there is no answer: {answer:?}");
    }
}

/// A client of frames.
pub struct Framed<S = TcpStream> {
    stream: S,
    was_reset: bool,
    begun: Vec<u8>,
}

/// A frame of a client: its first byte, and the payload, masked.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    let mask = [0x37, 0xFA, 0x21, 0x3D];
    frame.extend_from_slice(&mask);
    frame.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    frame
}

pub const BINARY: u8 = 0x82;
const TEXT: u8 = 0x81;
pub const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;

impl Framed {
    pub fn open(address: SocketAddr) -> Framed {
        Framed::over(Raw::open(address).stream)
    }

    /// With a clean session, its CONNACK read.
    fn connect(address: SocketAddr) -> Framed {
        let mut client = Framed::open(address);
        client.send(&frame(
            BINARY,
            &raw::connect(Version::V311, "framed", true, 0),
        ));
        assert_eq!(client.next(), Some((BINARY, vec![0x20, 2, 0, 0])));
        client
    }
}

impl<S: Read + Write> Framed<S> {
    /// Upgraded.
    pub fn over(mut stream: S) -> Framed<S> {
        let (answer, begun) = ask(&mut stream, &format!("{REQUEST}\r\n"));
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        Framed::behind(stream, begun)
    }

    /// Upgraded already; what came behind the answer to that.
    fn behind(stream: S, begun: Vec<u8>) -> Framed<S> {
        Framed {
            stream,
            was_reset: false,
            begun,
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn fill(&mut self, len: usize) -> bool {
        while self.begun.len() < len {
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(count @ 1..) => self.begun.extend_from_slice(&buffer[..count]),
                Ok(0) => return false,
                Err(error) if raw::is_reset(&error) => {
                    self.was_reset = true;
                    return false;
                }
                Err(error) => panic!("the broker neither says anything nor closes: {error}"),
            }
        }
        true
    }

    /// The next frame of the broker's; `None`: it has closed the connection.
    pub fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        if !self.fill(2) {
            return None;
        }
        let (head, len) = match self.begun[1] {
            126 => {
                assert!(self.fill(4));
                (
                    4,
                    usize::from(u16::from_be_bytes([self.begun[2], self.begun[3]])),
                )
            }
            127 => {
                assert!(self.fill(10));
                let len: [u8; 8] = self.begun[2..10].try_into().unwrap();
                (10, u64::from_be_bytes(len) as usize)
            }
            len => (2, usize::from(len)),
        };
        assert!(self.fill(head + len), "a frame is cut off");
        let rest = self.begun.split_off(head + len);
        let frame = std::mem::replace(&mut self.begun, rest);
        Some((frame[0], frame[head..].to_vec()))
    }

    /// The connection ends with a Close frame of that code, and nothing else.
    fn closed_with(&mut self, code: u16) {
        assert_eq!(self.next(), Some((CLOSE, code.to_be_bytes().to_vec())));
        assert_eq!(self.next(), None);
    }

    /// What was sent before is handled, and the session lives.
    fn fence(&mut self) {
        self.send(&frame(BINARY, &[0xC0, 0]));
        assert_eq!(self.next(), Some((BINARY, vec![0xD0, 0])));
    }
}

/// The stream of bytes that frames carry: each write is one.
pub struct Unframed<S> {
    framed: Framed<S>,
    came: Vec<u8>,
}

impl<S: Read + Write> Unframed<S> {
    pub fn over(stream: S) -> Unframed<S> {
        Unframed {
            framed: Framed::over(stream),
            came: Vec::new(),
        }
    }
}

impl<S: Read + Write> Read for Unframed<S> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.came.is_empty() {
            match self.framed.next() {
                Some((BINARY, payload)) => self.came = payload,
                Some((CLOSE, _)) => {}
                Some(other) => panic!("nobody asked for {other:?}"),
                None if self.framed.was_reset => return Err(ErrorKind::ConnectionReset.into()),
                None => return Ok(0),
            }
        }
        let count = self.came.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.came[..count]);
        self.came.drain(..count);
        Ok(count)
    }
}

impl<S: Read + Write> Write for Unframed<S> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.framed.stream.write_all(&frame(BINARY, bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.framed.stream.flush()
    }
}

/// The answer to the example of RFC 6455 is the one that it says; J01:
/// compression is not agreed to, whoever asks for it.
#[test]
fn an_upgrade_is_granted_without_compression() {
    let (_broker, address) = broker(|_| ());
    for more in [
        "",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
        "Origin: https://anywhere.example\r\n",
    ] {
        let mut stream = Raw::open(address).stream;
        let (answer, _) = ask(&mut stream, &format!("{REQUEST}{more}\r\n"));
        assert_eq!(
            answer,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
        );
    }
}

/// Each refusal has a status and a sentence; B19 among them: another path.
/// Case J50 of docs/security.md.
#[test]
fn other_requests_are_refused() {
    let (broker, address) = broker(|config| {
        config.listeners[1].websocket.origins = vec!["https://app.example".to_owned()];
    });
    let without = |header: &str| {
        let lines = REQUEST
            .split_inclusive("\r\n")
            .filter(|line| !line.starts_with(header));
        format!("{}\r\n", lines.collect::<String>())
    };
    let with = |more: &str| format!("{REQUEST}{more}\r\n");
    let long = format!("Cookie: {}\r\n", "x".repeat(9000));
    for (request, status, word) in [
        (with("Origin: https://APP.example\r\n"), "101", ""),
        (
            "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
            "400",
            "connect by WebSocket, at /mqtt",
        ),
        (
            with("").replace("GET", "POST"),
            "400",
            "connect by WebSocket",
        ),
        (
            with("").replace("HTTP/1.1", "HTTP/1.0"),
            "400",
            "connect by WebSocket",
        ),
        (without("Upgrade"), "400", "connect by WebSocket"),
        (without("Connection"), "400", "connect by WebSocket"),
        (with("").replace("/mqtt", "/other"), "404", "at /mqtt"),
        (with("").replace("/mqtt", "/mqtt/"), "404", "at /mqtt"),
        (with("").replace("/mqtt", "/mqtt?token=1"), "101", ""),
        (
            with("Origin: https://app.example.evil\r\n"),
            "403",
            "websocket_origins",
        ),
        (with("Origin: null\r\n"), "403", "websocket_origins"),
        (
            with("Origin: https://app.example\r\nOrigin: https://evil\r\n"),
            "400",
            "twice",
        ),
        (without("Sec-WebSocket-Version"), "426", "13"),
        (with("").replace("Version: 13", "Version: 8"), "426", "13"),
        (without("Sec-WebSocket-Key"), "400", "Sec-WebSocket-Key"),
        (
            with("").replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ=="),
            "400",
            "Sec-WebSocket-Key",
        ),
        (
            without("Sec-WebSocket-Protocol"),
            "400",
            "Sec-WebSocket-Protocol",
        ),
        (
            with("").replace(": mqtt", ": chat"),
            "400",
            "Sec-WebSocket-Protocol",
        ),
        (
            with("").replace(": mqtt", ": chat, mqtt"),
            "101",
            "Protocol: mqtt\r\n",
        ),
        (
            with("").replace(": mqtt", ": mqttv3.1"),
            "101",
            "Protocol: mqttv3.1\r\n",
        ),
        ("GET \u{e4}\r\n\r\n".to_owned(), "400", "no HTTP"),
        ("\u{10}\u{c}\0\u{4}MQTT".to_owned(), "400", "no HTTP"),
        // J07: as much as there may be, and no more is read.
        (with(&long), "431", "8192"),
        (with(&"X: y\r\n".repeat(100)), "431", "64"),
        ("A".repeat(8 << 20), "431", "8192"),
    ] {
        let mut stream = Raw::open(address).stream;
        let (head, mut rest) = ask(&mut stream, &request);
        let begin = &request[..request.len().min(200)];
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{begin}: {head}"
        );
        if status != "101" {
            _ = stream.read_to_end(&mut rest);
        }
        let all = head + &String::from_utf8_lossy(&rest);
        assert!(all.contains(word), "{begin}: {all}");
    }
    until("they are gone", || broker.connections_len() == 0);
}

/// J05: MQTT's bytes in frames of any size, an upgrade in pieces, a CONNECT
/// right behind it.
#[test]
fn packets_are_split_and_joined_in_any_way() {
    let (_broker, address) = broker(|_| ());
    let packets = [
        raw::connect(Version::V311, "split", true, 0),
        raw::subscribe(1, "t", 1),
        publish("t", b"one", 1, 1),
        publish("t", &[b'x'; 300], 0, 0),
        vec![0xC0, 0],
    ]
    .concat();
    let answers = [
        &[0x20, 2, 0, 0][..],
        &[0x90, 3, 0, 1, 1],
        &[0x40, 2, 0, 1],
        &packet(0x32, &[&text("t")[..], &[0, 1], b"one"].concat()),
        &publish("t", &[b'x'; 300], 0, 0),
        &[0xD0, 0],
    ];
    let expected: usize = answers.iter().map(|answer| answer.len()).sum();
    for (frame_len, is_message, write_len) in [
        (1, false, usize::MAX),
        (1, true, 1),
        (7, true, 5),
        (usize::MAX, false, usize::MAX),
        (usize::MAX, false, 1),
        (usize::MAX, false, 100),
    ] {
        let pieces: Vec<&[u8]> = packets.chunks(frame_len.min(packets.len())).collect();
        let last = pieces.len() - 1;
        let frames = pieces
            .iter()
            .enumerate()
            .map(|(index, piece)| match is_message {
                false => frame(BINARY, piece),
                // One message in many frames, with a Ping in between.
                true => {
                    let opcode = if index == 0 { 2 } else { 0 };
                    let fin = if index == last { 0x80 } else { 0 };
                    let ping = if index == 3 {
                        frame(PING, b"?")
                    } else {
                        Vec::new()
                    };
                    [frame(fin | opcode, piece), ping].concat()
                }
            });
        let sent = [
            format!("{REQUEST}\r\n").into_bytes(),
            frames.collect::<Vec<_>>().concat(),
        ]
        .concat();
        let stream = Raw::open(address).stream;
        for piece in sent.chunks(write_len.min(sent.len())) {
            (&stream).write_all(piece).unwrap();
        }
        let mut stream = stream;
        let (_, begun) = ask(&mut stream, "");
        let mut client = Framed::behind(stream, begun);
        let mut came = Vec::new();
        let mut pongs = 0;
        while came.len() < expected {
            match client.next() {
                Some((BINARY, payload)) => came.extend(payload),
                Some((PONG, payload)) => {
                    assert_eq!(payload, b"?");
                    pongs += 1;
                }
                other => panic!("{frame_len} {write_len}: {other:?}"),
            }
        }
        assert_eq!(pongs, usize::from(is_message));
        for answer in answers {
            // Without the packet id that the broker chose.
            let begin = &answer[..answer.len().min(5)];
            let found = came.windows(begin.len()).any(|window| window == begin);
            assert!(
                found,
                "{frame_len} {write_len}: {answer:?} is not in {came:?}"
            );
        }
    }
}

/// J04: a frame without payload says nothing.
#[test]
fn empty_frames_are_ignored() {
    let (_broker, address) = broker(|_| ());
    let mut client = Framed::open(address);
    client.send(&frame(BINARY, b""));
    client.send(&frame(
        BINARY,
        &raw::connect(Version::V311, "empty", true, 0),
    ));
    assert_eq!(client.next(), Some((BINARY, vec![0x20, 2, 0, 0])));
    // In the middle of a packet, and as parts of a message.
    client.send(&[frame(BINARY, &[0xC0]), frame(BINARY, b""), frame(0x02, b"")].concat());
    client.send(&[frame(0x00, b""), frame(0x80, &[0])].concat());
    assert_eq!(client.next(), Some((BINARY, vec![0xD0, 0])));
    client.fence();
}

/// J01, J02, J05: each with its code, before CONNECT and after, in one write and
/// byte by byte.
#[test]
fn frames_that_must_not_come_are_closed_with_their_code() {
    let (broker, address) = broker(|config| config.limits.packet_bytes_max = 100_000);
    let unmasked = [&[BINARY, 2][..], &[0xC0, 0]].concat();
    let endless = |len: u64| [&[BINARY, 0x80 | 127][..], &len.to_be_bytes(), &[0; 4]].concat();
    let cases = [
        ("text", frame(TEXT, b"hello"), 1003_u16),
        ("empty text", frame(TEXT, b""), 1003),
        ("unmasked", unmasked, 1002),
        ("compressed (J01)", frame(0xC2, &[0xC0, 0]), 1002),
        ("another reserved bit", frame(0x92, &[0xC0, 0]), 1002),
        ("an unknown opcode", frame(0x83, b""), 1002),
        ("an unknown control frame", frame(0x8B, b""), 1002),
        ("a continuation of nothing", frame(0x80, b"x"), 1002),
        (
            "a message in a message",
            [frame(0x02, b""), frame(BINARY, b"")].concat(),
            1002,
        ),
        ("a Ping in pieces", frame(0x09, b"?"), 1002),
        ("a Ping of 126 bytes", frame(PING, &[0; 126]), 1002),
        ("a frame beyond its limit (J02)", endless(100_006), 1009),
        ("a frame of 2^63 bytes (J02)", endless(1 << 63), 1009),
        ("a frame of 2^64 - 1 bytes (J02)", endless(u64::MAX), 1009),
        ("pings without end", frame(PING, b"?").repeat(1000), 1008),
        ("pongs without end", frame(PONG, b"").repeat(1000), 1008),
        ("Close of a byte", frame(CLOSE, &[3]), 1002),
        (
            "Close of a reserved code",
            frame(CLOSE, &1005_u16.to_be_bytes()),
            1002,
        ),
        (
            "Close for a reason that is no text",
            frame(CLOSE, b"\x03\xE8\xFF"),
            1007,
        ),
        ("Close", frame(CLOSE, &1001_u16.to_be_bytes()), 1001),
        ("Close without a code", frame(CLOSE, b""), 1000),
    ];
    for is_admitted in [false, true] {
        for (what, bytes, code) in &cases {
            for by_byte in [false, true] {
                let mut client = match is_admitted {
                    false => Framed::open(address),
                    true => Framed::connect(address),
                };
                for piece in bytes.chunks(if by_byte { 1 } else { bytes.len() }) {
                    // It may be closed before the last byte.
                    if client.stream.write_all(piece).is_err() {
                        break;
                    }
                }
                // Bytes that come after the end may reset the connection.
                let last = std::iter::from_fn(|| client.next())
                    .filter(|(first, _)| *first != PONG)
                    .last();
                let is_reset = bytes.len() > 100 && last.is_none();
                let expected = Some((CLOSE, code.to_be_bytes().to_vec()));
                assert!(is_reset || last == expected, "{what}, {by_byte}: {last:?}");
            }
        }
    }
    until("they are gone", || broker.connections_len() == 0);
}

/// J02: before CONNECT a message has 64 KiB, after it as much as a packet; in
/// one frame or in many.
#[test]
fn a_message_has_a_limit_that_connect_raises() {
    let (_broker, address) = broker(|config| config.limits.packet_bytes_max = 200_000);
    let head = |first: u8, len: usize| frame(first, &vec![0; len])[..14].to_vec();
    for (is_admitted, limit) in [(false, 65_536 + 5), (true, 200_000 + 5)] {
        let open = || match is_admitted {
            false => Framed::open(address),
            true => Framed::connect(address),
        };
        let mut client = open();
        client.send(&head(BINARY, limit + 1));
        client.closed_with(1009);
        // The beginning of a packet that goes on in the next frame.
        let first = if is_admitted { 0x30 } else { 0x10 };
        let mut client = open();
        client.send(&frame(0x02, &packet(first, &[0; 60_000])[..1000]));
        client.send(&head(0x00, limit + 1 - 1000));
        client.closed_with(1009);
    }
    let mut client = Framed::connect(address);
    let largest = publish("t", &[0; 200_000 - 9], 1, 1);
    assert_eq!(largest.len(), 200_000);
    client.send(&frame(BINARY, &largest));
    assert_eq!(client.next(), Some((BINARY, vec![0x40, 2, 0, 1])));
}

/// A page that a browser on this machine shows is not who sits at it.
/// Case J50 of docs/security.md.
#[test]
fn pages_of_a_browser_do_not_steer_queues() {
    let (_broker, address) = broker(|_| ());
    let request = br#"{"op":"create","queue":"made","answer_to":"answer"}"#;
    for (origin, may) in [("", true), ("Origin: https://evil.example\r\n", false)] {
        let mut stream = Raw::open(address).stream;
        let (_, begun) = ask(&mut stream, &format!("{REQUEST}{origin}\r\n"));
        let mut client = Framed::behind(stream, begun);
        for (packet, answer) in [
            (
                raw::connect(Version::V311, "page", true, 0),
                vec![0x20, 2, 0, 0],
            ),
            (raw::subscribe(1, "answer", 0), vec![0x90, 3, 0, 1, 0]),
        ] {
            client.send(&frame(BINARY, &packet));
            assert_eq!(client.next(), Some((BINARY, answer)));
        }
        client.send(&frame(
            BINARY,
            &publish("$CONTROL/rotamq/v1", request, 0, 0),
        ));
        client.send(&frame(BINARY, &[0xC0, 0]));
        let mut came = Vec::new();
        while let Some((BINARY, payload)) = client.next() {
            came.extend(payload);
            if came.ends_with(&[0xD0, 0]) {
                break;
            }
        }
        let is_answered = came.windows(6).any(|window| window == b"answer");
        assert_eq!(is_answered, may, "{origin}: {came:?}");
    }
}

/// B05: an upgrade that dribbles has no more time than one that does not come.
#[test]
fn an_upgrade_has_to_come_in_time() {
    let (broker, address) = broker(|config| {
        config.limits.connect_timeout = Duration::from_millis(300);
    });
    let mut silent = Raw::open(address);
    let mut upgraded = Framed::open(address);
    let mut dribbling = Raw::open(address).stream;
    dribbling
        .set_read_timeout(Some(Duration::from_millis(5)))
        .unwrap();
    let sent = REQUEST.bytes().take_while(|byte| {
        dribbling.write_all(&[*byte]).is_ok() && !matches!(dribbling.read(&mut [0]), Ok(0))
    });
    assert!(sent.count() < REQUEST.len(), "closed before it was whole");
    assert!(silent.until_closed().is_empty());
    assert_eq!(
        upgraded.next(),
        Some((CLOSE, 1000_u16.to_be_bytes().to_vec()))
    );
    assert_eq!(upgraded.next(), None);
    until("they are gone", || broker.connections_len() == 0);
}
