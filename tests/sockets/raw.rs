//! A client of bytes: for what no library would send.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::clients::Version;
use crate::wait::DEADLINE;

pub struct Raw<S = TcpStream> {
    pub stream: S,
    /// Closed with bytes of the client's unread: what was said before may be lost.
    pub was_reset: bool,
    // Read, and not yet a whole packet.
    begun: Vec<u8>,
}

impl Raw {
    /// Connected, and silent.
    pub fn open(address: SocketAddr) -> Raw {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Raw::over(stream)
    }

    /// With a clean session, its CONNACK read.
    pub fn connect(address: SocketAddr, version: Version, id: &str) -> Raw {
        let mut raw = Raw::open(address);
        raw.send(&connect(version, id, true, 0));
        assert_eq!(raw.packet(), [0x20, 2, 0, 0], "{version:?}");
        raw
    }
}

impl<S: Read + Write> Raw<S> {
    pub fn over(stream: S) -> Raw<S> {
        Raw {
            stream,
            was_reset: false,
            begun: Vec::new(),
        }
    }

    /// In pieces of so many bytes; the broker may close before the last.
    pub fn send_in_pieces(&mut self, bytes: &[u8], len: usize) {
        for piece in bytes.chunks(len) {
            if self.stream.write_all(piece).is_err() {
                return;
            }
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next packet.
    pub fn packet(&mut self) -> Vec<u8> {
        self.read().expect("the connection goes on")
    }

    /// The next packet; `None`: the broker has closed the connection.
    pub fn read(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(len) = packet_len(&self.begun) {
                let rest = self.begun.split_off(len);
                return Some(std::mem::replace(&mut self.begun, rest));
            }
            let mut buffer = [0; 16 << 10];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.begun.extend_from_slice(&buffer[..count]),
                Err(error) if is_reset(&error) => {
                    self.was_reset = true;
                    return None;
                }
                Err(error) => panic!("the broker neither says anything nor closes: {error}"),
            }
        }
    }

    /// What comes until the broker closes the connection.
    pub fn until_closed(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.read()).collect()
    }

    /// Everything sent so far is handled when this returns; what came before
    /// the answer.
    pub fn fence(&mut self) -> Vec<Vec<u8>> {
        self.send(&[0xC0, 0]);
        let mut before = Vec::new();
        loop {
            match self.packet() {
                packet if packet == [0xD0, 0] => return before,
                packet => before.push(packet),
            }
        }
    }
}

/// Closed before all was read that the client had sent; TLS finds it out when it
/// has something to say to what it reads.
pub fn is_reset(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

fn packet_len(bytes: &[u8]) -> Option<usize> {
    let mut len = 0;
    for (at, byte) in bytes.iter().skip(1).take(4).enumerate() {
        len |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            let whole = 2 + at + len;
            return (bytes.len() >= whole).then_some(whole);
        }
    }
    None
}

/// A packet of that first byte.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut len = body.len();
    loop {
        let more = if len > 0x7F { 0x80 } else { 0 };
        packet.push((len & 0x7F) as u8 | more);
        len >>= 7;
        if len == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

/// A string with its length.
pub fn text(text: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = text.as_ref();
    let len = u16::try_from(bytes.len()).expect("MQTT has no longer strings");
    [&len.to_be_bytes()[..], bytes].concat()
}

pub fn connect(version: Version, id: &str, clean: bool, keep_alive_secs: u16) -> Vec<u8> {
    connect_flags(
        version,
        if clean { 2 } else { 0 },
        keep_alive_secs,
        &text(id),
    )
}

/// CONNECT with these flags and this payload.
pub fn connect_flags(version: Version, flags: u8, keep_alive_secs: u16, payload: &[u8]) -> Vec<u8> {
    let (name, level) = match version {
        Version::V31 => ("MQIsdp", 3),
        Version::V311 => ("MQTT", 4),
        Version::V5 => unimplemented!("here are no properties; conformance/ has them"),
    };
    let keep_alive = keep_alive_secs.to_be_bytes();
    packet(
        0x10,
        &[&text(name)[..], &[level, flags], &keep_alive, payload].concat(),
    )
}

/// `packet_id` is used at QoS 1 and 2.
pub fn publish(topic: &str, payload: &[u8], qos: u8, packet_id: u16) -> Vec<u8> {
    let id = packet_id.to_be_bytes();
    let id = if qos > 0 { &id[..] } else { &[] };
    packet(0x30 | qos << 1, &[&text(topic)[..], id, payload].concat())
}

pub fn subscribe(packet_id: u16, filter: &str, qos: u8) -> Vec<u8> {
    packet(
        0x82,
        &[&packet_id.to_be_bytes()[..], &text(filter), &[qos]].concat(),
    )
}
