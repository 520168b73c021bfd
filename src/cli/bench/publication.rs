//! The PUBLISH packets that the tool sends: encoded once, patched in place.
//!
//! Owns the time stamp in the payload and the packet identifiers. Sends
//! nothing itself.

use std::num::NonZeroU16;
use std::time::Duration;

use super::asks::Asks;
use super::digits::{Digits, zeros};
use super::frame::{Frame, PUBACK, PUBCOMP, PUBREC, PUBREL};
use crate::message::{PacketId, Qos};
use crate::protocol::{PropertiesBuf, Property, PublishHead, Version, encode_publish_head};

/// The first eight bytes of every payload: when and by which publisher; or
/// which of its messages it is.
///
/// 44 bits of time in steps of 16 ns, which last for three days, or of a
/// count, and 20 bits of the publisher's number.
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

    /// The publisher's message of this number, below 2^44.
    pub fn numbered(number: u64, publisher: usize) -> Stamp {
        debug_assert!(publisher < Stamp::PUBLISHERS_MAX);
        Stamp(number << Stamp::PUBLISHER_BITS | publisher as u64)
    }

    /// `None`: the payload is too short to be one of the tool's.
    pub fn of(payload: &[u8]) -> Option<Stamp> {
        let bytes = payload.first_chunk()?;
        Some(Stamp(u64::from_be_bytes(*bytes)))
    }

    /// As a payload begins with it.
    pub fn to_bytes(self) -> [u8; Stamp::BYTES] {
        self.0.to_be_bytes()
    }

    pub fn publisher(self) -> usize {
        (self.0 & (Stamp::PUBLISHERS_MAX as u64 - 1)) as usize
    }

    /// What [`Stamp::numbered`] was given.
    pub fn number(self) -> u64 {
        self.0 >> Stamp::PUBLISHER_BITS
    }

    /// How old it is, to 16 ns; 0 for one of the future.
    pub fn age_ns(self, now: Duration) -> u64 {
        let at_ns = (self.0 >> Stamp::PUBLISHER_BITS) * Stamp::STEP_NS;
        (now.as_nanos() as u64).saturating_sub(at_ns)
    }
}

/// What all messages of a run have alike.
#[derive(Clone, Debug)]
pub struct Form {
    pub version: Version,
    pub qos: Qos,
    /// At least [`Stamp::BYTES`].
    pub payload_bytes: usize,
    /// Of MQTT 5; without a topic alias.
    pub properties: PropertiesBuf,
    /// Of their queue, where they go to one.
    pub asks: Asks,
    /// After its first message a publisher names its topic by [`TOPIC_ALIAS`].
    pub topic_alias: bool,
}

/// Of each publisher's one topic.
const TOPIC_ALIAS: NonZeroU16 = NonZeroU16::MIN;

/// The PUBLISH of one topic, or of several in turns, ready to be copied.
#[derive(Clone, Debug)]
pub struct Template {
    frame: Vec<u8>,
    /// Where the packet identifier stands; `None` at QoS 0.
    packet_id_at: Option<usize>,
    payload_at: usize,
    /// They go on with each message.
    digits: Vec<Digits>,
    /// What takes its place once it was sent, as it has named the topic.
    next: Option<Box<Template>>,
}

impl Template {
    pub fn new(topic: &str, form: &Form) -> Template {
        let spelled = form.asks.in_topic(topic, form.version);
        let topic = spelled.as_deref().unwrap_or(topic);
        let mut properties = form.asks.in_properties(&form.properties, form.version);
        let mut template = Template::plain(topic, form, &properties);
        if form.topic_alias {
            properties.push(Property::TopicAlias(TOPIC_ALIAS));
            template = Template::plain(topic, form, &properties);
            let next = Template::plain("", form, &properties); // 3.3.2.3.4
            template.next = Some(Box::new(next));
        }
        template
    }

    fn plain(topic: &str, form: &Form, properties: &PropertiesBuf) -> Template {
        let head = PublishHead {
            dup: false,
            qos: form.qos,
            retain: false,
            topic_prefix: "",
            topic: topic.as_bytes(),
            packet_id: (form.qos > Qos::AtMostOnce).then_some(PacketId::MIN),
            properties: [properties.as_properties().as_bytes(), b"", b""],
            payload_len: form.payload_bytes.max(Stamp::BYTES),
        };
        let mut frame = Vec::new();
        let packet_id_at = encode_publish_head(&head, form.version, &mut frame);
        let payload_at = frame.len();
        let digits = form.asks.digits(&frame);
        frame.resize(payload_at + head.payload_len, b'.');
        Template {
            digits,
            frame,
            packet_id_at,
            payload_at,
            next: None,
        }
    }

    /// Of so many topics, numbers below `prefix`, in an order that comes to all
    /// of them evenly and leaps. Not for a topic alias.
    pub fn of_topics(prefix: &str, topics: u32, form: &Form) -> Template {
        let number = zeros(topics);
        let mut template = Template::plain(&format!("{prefix}{number}"), form, &form.properties);
        let mut windows = template.frame.windows(prefix.len());
        let at = windows
            .position(|bytes| bytes == prefix.as_bytes())
            .expect("the topic is in the packet");
        let digits = Digits::new(at + prefix.len(), topics).leaping();
        template.digits.push(digits);
        template
    }

    /// Of several publishers each begins elsewhere in the round of what
    /// messages ask of their queue.
    pub fn begin_at_part(&mut self, part: usize, parts: usize) {
        for digits in &mut self.digits {
            digits.advance_by_part(part, parts, &mut self.frame);
        }
        if let Some(next) = &mut self.next {
            next.begin_at_part(part, parts);
        }
    }

    pub fn qos(&self) -> u8 {
        self.frame[0] >> 1 & 3
    }

    /// Whether the topic is named once only, and that is still to come.
    pub fn sets_topic_alias(&self) -> bool {
        self.next.is_some()
    }

    /// Of the longest packet that [`Template::append`] makes.
    pub fn frame_bytes(&self) -> usize {
        self.frame.len()
    }

    /// Appends the packet; `packet_id` is not looked at at QoS 0.
    pub fn append(&mut self, stamp: Stamp, packet_id: u16, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.frame);
        let packet = &mut out[start..];
        packet[self.payload_at..][..Stamp::BYTES].copy_from_slice(&stamp.to_bytes());
        if let Some(at) = self.packet_id_at {
            packet[at..at + 2].copy_from_slice(&packet_id.to_be_bytes());
        }
        if let Some(next) = self.next.take() {
            *self = *next;
        }
        for digits in &mut self.digits {
            digits.advance(&mut self.frame);
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
    /// the identifier where it is the last one. Fails at one that answers
    /// nothing.
    pub fn handle_ack(&mut self, ack: &Frame<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        let &Frame::Ack { kind, packet_id } = ack else {
            return Ok(());
        };
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
    use crate::protocol::{Packet, decode};

    #[test]
    fn a_stamp_tells_when_and_by_whom() {
        let at = Duration::from_secs(86_400) + Duration::from_nanos(160);
        let stamp = Stamp::new(at, Stamp::PUBLISHERS_MAX - 1);
        assert_eq!(stamp.publisher(), Stamp::PUBLISHERS_MAX - 1);
        assert_eq!(stamp.age_ns(at + Duration::from_micros(7)), 7000);
        assert_eq!(stamp.age_ns(Duration::ZERO), 0);
        assert_eq!(Stamp::of(&[1, 2, 3, 4, 5, 6, 7]), None);
        let stamp = Stamp::numbered(1 << 43, 5);
        assert_eq!((stamp.number(), stamp.publisher()), (1 << 43, 5));
    }

    /// A topic's packets of one form, decoded again: topic, packet
    /// identifier, and properties. Whatever is alike in all is checked.
    fn packets(form: &Form, ids: &[u16]) -> Vec<(String, Option<PacketId>, PropertiesBuf)> {
        packets_to("bench/1", form, ids)
    }

    fn packets_to(
        topic: &str,
        form: &Form,
        ids: &[u16],
    ) -> Vec<(String, Option<PacketId>, PropertiesBuf)> {
        let mut template = Template::new(topic, form);
        let frame_bytes_max = template.frame_bytes();
        let stamp = Stamp::new(Duration::from_secs(1), 7);
        let mut out = vec![0xAA; 3];
        ids.iter()
            .for_each(|id| template.append(stamp, *id, &mut out));
        let mut rest = &out[3..];
        let mut seen = Vec::new();
        while let Some((packet, bytes)) = decode(rest, form.version, frame_bytes_max).unwrap() {
            let Packet::Publish(publish) = packet else {
                panic!("{packet:?}");
            };
            assert_eq!(publish.qos, form.qos);
            assert_eq!(publish.payload.len(), form.payload_bytes);
            assert_eq!(Stamp::of(publish.payload), Some(stamp));
            assert!(publish.payload[Stamp::BYTES..].iter().all(|b| *b == b'.'));
            let mut properties = PropertiesBuf::new();
            publish.properties.iter().for_each(|property| {
                properties.push(property);
            });
            seen.push((publish.topic.to_owned(), publish.packet_id, properties));
            rest = &rest[bytes..];
        }
        assert!(rest.is_empty());
        seen
    }

    #[test]
    fn patches_the_stamp_and_the_packet_identifier_alone() {
        for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
            for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
                let mut form = Form {
                    version,
                    qos,
                    payload_bytes: 200,
                    properties: PropertiesBuf::new(),
                    asks: Asks::default(),
                    topic_alias: false,
                };
                if version == Version::V5 {
                    form.properties
                        .push(Property::MessageExpiryInterval(7))
                        .push(Property::UserProperty(("a", &"b".repeat(200))));
                }
                let expected = [0x1234, 0x4321].map(|id| {
                    let id = (qos > Qos::AtMostOnce).then(|| PacketId::new(id).unwrap());
                    ("bench/1".to_owned(), id, form.properties.clone())
                });
                assert_eq!(packets(&form, &[0x1234, 0x4321]), expected, "{version:?}");
            }
        }
    }

    #[test]
    fn names_the_topic_once_and_then_its_alias() {
        let mut form = Form {
            version: Version::V5,
            qos: Qos::AtLeastOnce,
            payload_bytes: 64,
            properties: PropertiesBuf::new(),
            asks: Asks::default(),
            topic_alias: true,
        };
        form.properties.push(Property::UserProperty(("a", "b")));
        let mut properties = form.properties.clone();
        properties.push(Property::TopicAlias(TOPIC_ALIAS));
        let expected = [("bench/1", 1), ("", 2), ("", 3)].map(|(topic, id)| {
            let id = PacketId::new(id).unwrap();
            (topic.to_owned(), Some(id), properties.clone())
        });
        assert_eq!(packets(&form, &[1, 2, 3]), expected);
    }

    #[test]
    fn goes_through_many_topics() {
        for (version, qos) in [
            (Version::V3_1_1, Qos::AtMostOnce),
            (Version::V5, Qos::AtLeastOnce),
        ] {
            let form = Form {
                version,
                qos,
                payload_bytes: 8,
                properties: PropertiesBuf::new(),
                asks: Asks::default(),
                topic_alias: false,
            };
            let mut template = Template::of_topics("bench/1/", 11, &form);
            template.begin_at_part(1, 11);
            let mut out = Vec::new();
            let mut topics = Vec::new();
            for id in 1..=11 {
                out.clear();
                template.append(Stamp::new(Duration::ZERO, 0), id, &mut out);
                let decoded = decode(&out, version, template.frame_bytes()).unwrap();
                let Some((Packet::Publish(publish), _)) = decoded else {
                    panic!("{decoded:?}");
                };
                topics.push(publish.topic.to_owned());
            }
            assert_eq!(topics[..3], ["bench/1/06", "bench/1/01", "bench/1/07"]);
            topics.sort();
            let all = (0..11).map(|number| format!("bench/1/{number:02}"));
            assert!(topics.into_iter().eq(all));
        }
    }

    #[test]
    fn what_is_asked_goes_on_from_message_to_message() {
        let form = |version, topic_alias| Form {
            version,
            qos: Qos::AtLeastOnce,
            payload_bytes: 64,
            properties: PropertiesBuf::new(),
            asks: Asks {
                groups: Some(11),
                ..Asks::default()
            },
            topic_alias,
        };
        let groups = ["00", "01", "02"];
        for topic_alias in [false, true] {
            let sent = packets_to("$queue/a", &form(Version::V5, topic_alias), &[1, 2, 3]);
            for ((_, _, properties), group) in sent.into_iter().zip(groups) {
                let first = properties.as_properties().iter().next();
                assert_eq!(first, Some(Property::UserProperty(("group", group))));
            }
        }
        let sent = packets_to("$queue/a", &form(Version::V3_1_1, false), &[1, 2, 3]);
        let topics = sent.into_iter().map(|(topic, ..)| topic);
        assert!(topics.eq(groups.map(|group| format!("$queue/$with/group={group}/a"))));
    }

    fn ack(kind: u8, packet_id: u16) -> Frame<'static> {
        Frame::Ack { kind, packet_id }
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
