//! The PUBLISH packets that the tool sends: encoded once, patched in place.
//!
//! Owns the time stamp in the payload and the packet identifiers. Sends
//! nothing itself.

use std::time::Duration;

use super::frame::{Frame, PUBACK, PUBCOMP, PUBREC, PUBREL};
use crate::message::{PacketId, Qos};
use crate::protocol::{self, Packet, Properties, Publish, Version};

/// The first eight bytes of every payload: when and by which publisher.
///
/// 44 bits of time in steps of 16 ns, which last for three days, and 20 bits
/// of the publisher's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(u64);

impl Stamp {
    pub const BYTES: usize = 8;
    pub const PUBLISHERS_MAX: usize = 1 << Stamp::PUBLISHER_BITS;
    const PUBLISHER_BITS: u32 = 20;
    const STEP_NS: u64 = 16;

    /// `at`: since the start of the run.
    pub fn new(at: Duration, publisher: usize) -> Stamp {
        debug_assert!(publisher < Stamp::PUBLISHERS_MAX);
        let steps = at.as_nanos() as u64 / Stamp::STEP_NS;
        Stamp(steps << Stamp::PUBLISHER_BITS | publisher as u64)
    }

    /// `None`: the payload is too short to be one of the tool's.
    pub fn of(payload: &[u8]) -> Option<Stamp> {
        let bytes = payload.first_chunk()?;
        Some(Stamp(u64::from_be_bytes(*bytes)))
    }

    pub fn publisher(self) -> usize {
        (self.0 & (Stamp::PUBLISHERS_MAX as u64 - 1)) as usize
    }

    /// How old it is, to 16 ns; 0 for one of the future.
    pub fn age_ns(self, now: Duration) -> u64 {
        let at_ns = (self.0 >> Stamp::PUBLISHER_BITS) * Stamp::STEP_NS;
        (now.as_nanos() as u64).saturating_sub(at_ns)
    }
}

/// A PUBLISH of one topic, size and QoS, ready to be copied.
pub struct Template {
    frame: Vec<u8>,
    /// Where the packet identifier stands; `None` at QoS 0.
    packet_id_at: Option<usize>,
    payload_at: usize,
}

impl Template {
    /// `payload_bytes`: at least [`Stamp::BYTES`].
    pub fn new(topic: &str, payload_bytes: usize, qos: Qos, version: Version) -> Template {
        let payload = vec![b'.'; payload_bytes.max(Stamp::BYTES)];
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic,
            packet_id: (qos > Qos::AtMostOnce).then_some(PacketId::MIN),
            properties: Properties::EMPTY,
            payload: &payload,
        };
        let mut frame = Vec::new();
        protocol::encode(&Packet::Publish(publish), version, &mut frame);
        let payload_at = frame.len() - payload.len();
        // In MQTT 5 the length of the properties, one zero, stands between.
        let gap_bytes = usize::from(version == Version::V5);
        Template {
            packet_id_at: (qos > Qos::AtMostOnce).then(|| payload_at - gap_bytes - 2),
            payload_at,
            frame,
        }
    }

    pub fn frame_bytes(&self) -> usize {
        self.frame.len()
    }

    /// Appends the packet; `packet_id` is not looked at at QoS 0.
    pub fn append(&self, stamp: Stamp, packet_id: u16, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.frame);
        let packet = &mut out[start..];
        packet[self.payload_at..][..Stamp::BYTES].copy_from_slice(&stamp.0.to_be_bytes());
        if let Some(at) = self.packet_id_at {
            packet[at..at + 2].copy_from_slice(&packet_id.to_be_bytes());
        }
    }
}

/// The packet identifiers of one publisher: which are in use, and what
/// frees them.
pub struct PacketIds {
    busy: Box<[u64]>,
    next: u16,
    in_use: u16,
    in_use_max: u16,
}

impl PacketIds {
    /// `in_use_max`: the broker's Receive Maximum, 65,535 before MQTT 5.
    pub fn new(in_use_max: u16) -> PacketIds {
        PacketIds {
            busy: vec![0; 1 << 10].into_boxed_slice(),
            next: 1,
            in_use: 0,
            in_use_max,
        }
    }

    pub fn in_use(&self) -> usize {
        usize::from(self.in_use)
    }

    /// The next one; `None` until more are acknowledged.
    pub fn take(&mut self) -> Option<u16> {
        let (word, bit) = place(self.next);
        if self.in_use >= self.in_use_max || self.busy[word] & bit != 0 {
            return None;
        }
        self.busy[word] |= bit;
        self.in_use += 1;
        let id = self.next;
        self.next = self.next.checked_add(1).unwrap_or(1);
        Some(id)
    }

    /// Handles an acknowledgement: appends a PUBREL that it asks for, frees
    /// the identifier where it is the last one. Fails at a refusal, and at
    /// one that answers nothing.
    pub fn handle_ack(&mut self, ack: &Frame<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        let &Frame::Ack {
            kind,
            packet_id,
            reason,
        } = ack
        else {
            return Ok(());
        };
        if reason >= 0x80 {
            return Err(format!(
                "the broker refused a PUBLISH with reason {reason:#04x}"
            ));
        }
        let (word, bit) = place(packet_id);
        if self.busy[word] & bit == 0 {
            return Err(format!(
                "the broker acknowledged packet identifier {packet_id}, which is not in use"
            ));
        }
        match kind {
            PUBREC => append_ack(PUBREL, packet_id, out), // [MQTT-4.3.3-1]
            PUBACK | PUBCOMP => {
                self.busy[word] &= !bit;
                self.in_use -= 1;
            }
            _ => return Err("the broker sent a PUBREL to a publisher".into()),
        }
        Ok(())
    }
}

/// The receiver's answer to a PUBLISH or PUBREL, if it asks for one.
pub fn append_answer(frame: &Frame<'_>, out: &mut Vec<u8>) {
    match *frame {
        Frame::Publish {
            qos: 1, packet_id, ..
        } => append_ack(PUBACK, packet_id, out), // [MQTT-4.3.2-2]
        Frame::Publish {
            qos: 2, packet_id, ..
        } => append_ack(PUBREC, packet_id, out), // [MQTT-4.3.3-2]
        Frame::Ack {
            kind: PUBREL,
            packet_id,
            ..
        } => append_ack(PUBCOMP, packet_id, out), // [MQTT-4.3.3-2]
        _ => {}
    }
}

/// The short form, which all versions share.
fn append_ack(kind: u8, packet_id: u16, out: &mut Vec<u8>) {
    let [high, low] = packet_id.to_be_bytes();
    out.extend_from_slice(&[kind, 2, high, low]);
}

fn place(packet_id: u16) -> (usize, u64) {
    (usize::from(packet_id >> 6), 1 << (packet_id & 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_tells_when_and_by_whom() {
        let at = Duration::from_secs(86_400) + Duration::from_nanos(160);
        let stamp = Stamp::new(at, Stamp::PUBLISHERS_MAX - 1);
        assert_eq!(stamp.publisher(), Stamp::PUBLISHERS_MAX - 1);
        assert_eq!(stamp.age_ns(at + Duration::from_micros(7)), 7000);
        assert_eq!(stamp.age_ns(Duration::ZERO), 0);
        assert_eq!(Stamp::of(&[1, 2, 3, 4, 5, 6, 7]), None);
    }

    #[test]
    fn patches_the_stamp_and_the_packet_identifier_alone() {
        for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
            for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
                let template = Template::new("bench/1", 200, qos, version);
                let stamp = Stamp::new(Duration::from_secs(1), 7);
                let mut out = vec![0xAA; 3];
                template.append(stamp, 0x1234, &mut out);
                template.append(stamp, 0x4321, &mut out);
                let mut rest = &out[3..];
                for id in [0x1234, 0x4321] {
                    let (packet, bytes) = protocol::decode(rest, version, usize::MAX)
                        .unwrap()
                        .unwrap();
                    let Packet::Publish(publish) = packet else {
                        panic!("{packet:?}");
                    };
                    let id = (qos > Qos::AtMostOnce).then(|| PacketId::new(id).unwrap());
                    assert_eq!((publish.topic, publish.qos), ("bench/1", qos));
                    assert_eq!(publish.packet_id, id, "{version:?} {qos:?}");
                    assert_eq!(publish.payload.len(), 200);
                    assert_eq!(Stamp::of(publish.payload), Some(stamp));
                    assert!(publish.payload[Stamp::BYTES..].iter().all(|b| *b == b'.'));
                    rest = &rest[bytes..];
                }
                assert!(rest.is_empty());
            }
        }
    }

    fn ack(kind: u8, packet_id: u16) -> Frame<'static> {
        Frame::Ack {
            kind,
            packet_id,
            reason: 0,
        }
    }

    #[test]
    fn a_packet_identifier_is_free_after_its_last_acknowledgement() {
        let mut ids = PacketIds::new(2);
        let mut out = Vec::new();
        assert_eq!(
            (ids.take(), ids.take(), ids.take()),
            (Some(1), Some(2), None)
        );
        ids.handle_ack(&ack(PUBACK, 1), &mut out).unwrap();
        assert_eq!(ids.take(), Some(3));
        ids.handle_ack(&ack(PUBREC, 2), &mut out).unwrap();
        assert_eq!((ids.take(), out.as_slice()), (None, &[PUBREL, 2, 0, 2][..]));
        ids.handle_ack(&ack(PUBCOMP, 2), &mut out).unwrap();
        assert_eq!((ids.take(), ids.in_use()), (Some(4), 2));
        assert!(ids.handle_ack(&ack(PUBACK, 1), &mut out).is_err());
    }

    #[test]
    fn packet_identifiers_go_round_and_leave_out_zero_and_the_busy_one() {
        let mut ids = PacketIds::new(u16::MAX);
        let mut out = Vec::new();
        assert_eq!(ids.take(), Some(1));
        for id in 2..=u16::MAX {
            assert_eq!(ids.take(), Some(id));
            ids.handle_ack(&ack(PUBACK, id), &mut out).unwrap();
        }
        assert_eq!(ids.take(), None, "1 is still in use");
        ids.handle_ack(&ack(PUBACK, 1), &mut out).unwrap();
        assert_eq!(ids.take(), Some(1));
    }

    #[test]
    fn answers_what_asks_for_an_answer() {
        let publish = |qos| Frame::Publish {
            qos,
            packet_id: 5,
            payload: &[],
        };
        let cases: [(Frame<'_>, &[u8]); 5] = [
            (publish(0), &[]),
            (publish(1), &[PUBACK, 2, 0, 5]),
            (publish(2), &[PUBREC, 2, 0, 5]),
            (ack(PUBREL, 5), &[PUBCOMP, 2, 0, 5]),
            (ack(PUBACK, 5), &[]),
        ];
        for (frame, expected) in cases {
            let mut out = Vec::new();
            append_answer(&frame, &mut out);
            assert_eq!(out, expected, "{frame:?}");
        }
    }
}
