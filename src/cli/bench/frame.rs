//! Cuts what a broker sends into frames, and finds in a PUBLISH or an
//! acknowledgement the few fields that a load generator needs.
//!
//! The broker's own codec checks every byte of a packet. Here a packet costs
//! a few nanoseconds and is believed, but never read beyond its end.

/// PUBACK, as it stands in the first byte of a packet.
pub const PUBACK: u8 = 0x40;
pub const PUBREC: u8 = 0x50;
pub const PUBREL: u8 = 0x62;
pub const PUBCOMP: u8 = 0x70;
pub const PINGREQ: [u8; 2] = [0xC0, 0];
pub const PINGRESP: [u8; 2] = [0xD0, 0];
pub const DISCONNECT: [u8; 2] = [0xE0, 0];

/// One packet, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    Publish {
        qos: u8,
        /// 0 at QoS 0.
        packet_id: u16,
        payload: &'a [u8],
    },
    /// PUBACK, PUBREC, PUBREL or PUBCOMP: `kind` is its first byte.
    Ack { kind: u8, packet_id: u16 },
    /// Any other packet, whole; also one of those four that says no (MQTT 5).
    Other(&'a [u8]),
}

/// Cuts one connection's stream; keeps what is left of an incomplete frame.
#[derive(Default)]
pub struct Scanner {
    tail: Vec<u8>,
}

impl Scanner {
    /// Gives each frame that `input` completes to `take`, in order, until it
    /// fails. `properties`: whether packets have them (MQTT 5).
    pub fn scan(
        &mut self,
        mut input: &[u8],
        properties: bool,
        mut take: impl FnMut(Frame<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        while !self.tail.is_empty() {
            // As long as the length is unknown, a byte at a time.
            let missing = frame_bytes(&self.tail)?.map_or(1, |bytes| bytes - self.tail.len());
            let (now, later) = input.split_at(missing.min(input.len()));
            self.tail.extend_from_slice(now);
            input = later;
            if now.len() < missing {
                return Ok(());
            }
            if frame_bytes(&self.tail)? == Some(self.tail.len()) {
                take(parse(&self.tail, properties)?)?;
                self.tail.clear();
            }
        }
        while let Some(bytes) = frame_bytes(input)? {
            let Some((frame, rest)) = input.split_at_checked(bytes) else {
                break;
            };
            take(parse(frame, properties)?)?;
            input = rest;
        }
        self.tail.extend_from_slice(input);
        Ok(())
    }
}

/// How long the frame is that `input` begins with; `None`: too early to say.
fn frame_bytes(input: &[u8]) -> Result<Option<usize>, String> {
    let Some(rest) = input.get(1..) else {
        return Ok(None);
    };
    Ok(variable_integer(rest)?.map(|(value, bytes)| 1 + bytes + value))
}

/// A variable byte integer (2.2.3) and how many bytes it takes.
fn variable_integer(input: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let mut value = 0;
    for (at, byte) in input.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((value, at + 1)));
        }
    }
    if input.len() >= 4 {
        return Err("the broker sent a packet whose length takes more than 4 bytes".into());
    }
    Ok(None)
}

/// The fields of a whole frame.
fn parse(frame: &[u8], properties: bool) -> Result<Frame<'_>, String> {
    let fields = match frame[0] & 0xF0 {
        0x30 => parse_publish(frame, properties),
        0x40..=0x70 => parse_ack(frame),
        _ => Some(Frame::Other(frame)),
    };
    fields.ok_or_else(|| {
        format!(
            "the broker sent a packet (first byte {:#04x}) that is too short for its fields",
            frame[0]
        )
    })
}

fn parse_publish(frame: &[u8], properties: bool) -> Option<Frame<'_>> {
    let qos = frame[0] >> 1 & 3;
    let body = body(frame)?;
    let topic_bytes = usize::from(u16_at(body, 0)?);
    let mut rest = body.get(2 + topic_bytes..)?;
    let mut packet_id = 0;
    if qos > 0 {
        packet_id = u16_at(rest, 0)?;
        rest = &rest[2..];
    }
    if properties {
        let (value, bytes) = variable_integer(rest).ok()??;
        rest = rest.get(bytes + value..)?;
    }
    Some(Frame::Publish {
        qos,
        packet_id,
        payload: rest,
    })
}

fn parse_ack(frame: &[u8]) -> Option<Frame<'_>> {
    let body = body(frame)?;
    let packet_id = u16_at(body, 0)?;
    // A reason that is left out is success (3.4.2.1).
    Some(match body.get(2) {
        Some(0x80..) => Frame::Other(frame),
        _ => Frame::Ack {
            kind: frame[0],
            packet_id,
        },
    })
}

/// What follows the fixed header.
fn body(frame: &[u8]) -> Option<&[u8]> {
    let (_, bytes) = variable_integer(&frame[1..]).ok()??;
    frame.get(1 + bytes..)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One stream of every kind of frame, a PUBLISH of 200 bytes among them.
    fn stream() -> (Vec<u8>, Vec<String>) {
        let mut bytes = vec![0x20, 2, 0, 0];
        bytes.extend([0x30, 6, 0, 1, b't', 1, 2, 3]);
        bytes.extend([0x32, 0xC8, 1, 0, 2, b'a', b'b', 0x12, 0x34]);
        bytes.extend([7; 194]);
        bytes.extend([
            0x40, 2, 0, 9, 0x50, 2, 0, 10, 0x62, 2, 0, 11, 0x70, 2, 0, 12,
        ]);
        bytes.extend(PINGRESP);
        let long = [7; 194];
        let expected = [
            Frame::Other(&[0x20, 2, 0, 0]),
            Frame::Publish {
                qos: 0,
                packet_id: 0,
                payload: &[1, 2, 3],
            },
            Frame::Publish {
                qos: 1,
                packet_id: 0x1234,
                payload: &long,
            },
            ack(PUBACK, 9),
            ack(PUBREC, 10),
            ack(PUBREL, 11),
            ack(PUBCOMP, 12),
            Frame::Other(&PINGRESP),
        ];
        (bytes, expected.iter().map(|f| format!("{f:?}")).collect())
    }

    fn ack(kind: u8, packet_id: u16) -> Frame<'static> {
        Frame::Ack { kind, packet_id }
    }

    fn scan_in_pieces(bytes: &[u8], piece_bytes: usize, properties: bool) -> Vec<String> {
        let mut scanner = Scanner::default();
        let mut seen = Vec::new();
        for piece in bytes.chunks(piece_bytes) {
            scanner
                .scan(piece, properties, |frame| {
                    seen.push(format!("{frame:?}"));
                    Ok(())
                })
                .unwrap();
        }
        assert!(scanner.tail.is_empty(), "{:?} is left", scanner.tail);
        seen
    }

    #[test]
    fn finds_the_same_frames_however_the_stream_is_cut() {
        let (bytes, expected) = stream();
        for piece_bytes in 1..=bytes.len() {
            assert_eq!(
                scan_in_pieces(&bytes, piece_bytes, false),
                expected,
                "in pieces of {piece_bytes}"
            );
        }
    }

    #[test]
    fn skips_properties_and_reads_reasons_in_mqtt_5() {
        let bytes = [
            0x32, 10, 0, 1, b't', 0, 1, 2, 0x01, 1, 8, 9, // payload format 1
            0x32, 10, 0, 0, 0, 2, 3, 0x23, 0, 1, 8, 9, // topic alias 1, no topic
            0x40, 3, 0, 1, 0x97, 0x40, 2, 0, 2, 0x40, 4, 0, 3, 0x10, 0,
        ];
        let expected = [
            Frame::Publish {
                qos: 1,
                packet_id: 1,
                payload: &[8, 9],
            },
            Frame::Publish {
                qos: 1,
                packet_id: 2,
                payload: &[8, 9],
            },
            Frame::Other(&[0x40, 3, 0, 1, 0x97]),
            ack(PUBACK, 2),
            ack(PUBACK, 3),
        ];
        let expected: Vec<String> = expected.iter().map(|f| format!("{f:?}")).collect();
        assert_eq!(scan_in_pieces(&bytes, bytes.len(), true), expected);
        assert_eq!(scan_in_pieces(&bytes, 1, true), expected);
    }

    #[test]
    fn refuses_what_is_too_short_for_its_fields() {
        let cases: [(&[u8], bool); 6] = [
            (&[0x30, 1, 0], false),
            (&[0x30, 3, 0, 2, b'a'], false),
            (&[0x32, 4, 0, 1, b'a', 0], false),
            (&[0x30, 4, 0, 1, b'a', 5], true),
            (&[0x40, 1, 0], false),
            (&[0x30, 0x80, 0x80, 0x80, 0x80], false),
        ];
        for (bytes, properties) in cases {
            let result = Scanner::default().scan(bytes, properties, |_| Ok(()));
            assert!(result.is_err(), "{bytes:?} was taken");
        }
    }
}
