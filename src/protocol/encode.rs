//! Packets to bytes.
//!
//! Appends to a buffer that the caller owns and reuses. What an older version
//! does not know is left out: properties, reason codes, AUTH.

use crate::message::{PacketId, Qos};

use super::cursor::varint_size_bytes;
use super::packet::*;

/// Appends a whole packet.
///
/// Before MQTT 5 properties are left out, reason codes become return codes or
/// 0x80, and an AUTH, which does not exist there, appends nothing.
///
/// # Panics
///
/// If a string or binary field has more than 65,535 bytes, or the packet more
/// than [`REMAINING_BYTES_MAX`]: whatever was decoded, or bounded by the
/// configuration, has not.
pub fn encode(packet: &Packet<'_>, version: Version, out: &mut Vec<u8>) {
    match packet {
        Packet::Connect(connect) => put_connect(connect, out),
        Packet::Connack(connack) => framed(0x20, out, |out| {
            // [MQTT-3.2.2-4], in MQTT 5 [MQTT-3.2.2-6]; not in 3.1.
            let session_present = connack.session_present
                && connack.reason == ReasonCode::Success
                && version != Version::V3_1;
            out.push(session_present.into());
            out.push(connack.reason.to_wire(PacketType::Connack, version));
            put_properties(connack.properties, version, out);
        }),
        Packet::Publish(publish) => {
            let head = PublishHead {
                dup: publish.dup,
                qos: publish.qos,
                retain: publish.retain,
                topic_prefix: "",
                topic: publish.topic.as_bytes(),
                packet_id: publish.packet_id,
                properties: [publish.properties.as_bytes()],
                payload_len: publish.payload.len(),
            };
            encode_publish_head(&head, version, out);
            out.extend_from_slice(publish.payload);
        }
        Packet::Puback(ack) => put_ack(AckKind::Puback, ack, version, out),
        Packet::Pubrec(ack) => put_ack(AckKind::Pubrec, ack, version, out),
        Packet::Pubrel(ack) => put_ack(AckKind::Pubrel, ack, version, out),
        Packet::Pubcomp(ack) => put_ack(AckKind::Pubcomp, ack, version, out),
        Packet::Subscribe(subscribe) => framed(0x82, out, |out| {
            put_packet_id(subscribe.packet_id, out);
            put_properties(subscribe.properties, version, out);
            for &(filter, options) in &subscribe.filters {
                put_binary(filter.as_bytes(), out);
                out.push(subscribe_options(options, version));
            }
        }),
        Packet::Suback(suback) => framed(0x90, out, |out| {
            put_packet_id(suback.packet_id, out);
            put_properties(suback.properties, version, out);
            let reasons = suback.reasons.iter();
            out.extend(reasons.map(|reason| reason.to_wire(PacketType::Suback, version)));
        }),
        Packet::Unsubscribe(unsubscribe) => framed(0xA2, out, |out| {
            put_packet_id(unsubscribe.packet_id, out);
            put_properties(unsubscribe.properties, version, out);
            for filter in &unsubscribe.filters {
                put_binary(filter.as_bytes(), out);
            }
        }),
        Packet::Unsuback(unsuback) => framed(0xB0, out, |out| {
            put_packet_id(unsuback.packet_id, out);
            put_properties(unsuback.properties, version, out);
            if version == Version::V5 {
                out.extend(unsuback.reasons.iter().map(|&reason| reason as u8));
            }
        }),
        Packet::Pingreq => out.extend_from_slice(&[0xC0, 0]),
        Packet::Pingresp => out.extend_from_slice(&[0xD0, 0]),
        Packet::Disconnect(disconnect) => framed(0xE0, out, |out| {
            put_outcome(disconnect.reason, disconnect.properties, version, out);
        }),
        Packet::Auth(auth) if version == Version::V5 => framed(0xF0, out, |out| {
            if auth.reason != ReasonCode::Success || !auth.properties.is_empty() {
                out.push(auth.reason as u8);
                put_properties(auth.properties, version, out);
            }
        }),
        Packet::Auth(_) => {}
    }
}

/// The most that a packet may have after its fixed header, 256 MiB less a
/// byte (2.2.3).
pub const REMAINING_BYTES_MAX: usize = 268_435_455;

/// All of a PUBLISH before its payload.
///
/// The broker encodes it once for many receivers; between those at QoS 1 or 2
/// only the packet identifier is patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishHead<'a, const PIECES: usize> {
    /// Left out at QoS 0 [MQTT-3.3.1-2].
    pub dup: bool,
    pub qos: Qos,
    pub retain: bool,
    /// Goes before the topic: `""` or `"$queue/"`.
    pub topic_prefix: &'static str,
    /// With the prefix at most 65,535 bytes.
    pub topic: &'a [u8],
    /// `None` at QoS 1 or 2: two zero bytes, to be patched. Left out at QoS 0.
    pub packet_id: Option<PacketId>,
    /// As on the wire, without the length, in pieces that stand one behind
    /// the other: the message's own, and what holds now or for one receiver.
    /// Left out before MQTT 5.
    pub properties: [&'a [u8]; PIECES],
    pub payload_len: usize,
}

impl<const PIECES: usize> PublishHead<'_, PIECES> {
    /// What the whole packet takes, its payload included.
    pub fn packet_bytes(&self, version: Version) -> usize {
        let remaining = self.remaining_bytes(version);
        1 + varint_size_bytes(remaining) + remaining
    }

    #[inline]
    fn remaining_bytes(&self, version: Version) -> usize {
        let mut remaining = 2 + self.topic_prefix.len() + self.topic.len() + self.payload_len;
        if self.qos != Qos::AtMostOnce {
            remaining += 2;
        }
        if version == Version::V5 {
            let properties_len = self.properties_len();
            remaining += varint_size_bytes(properties_len) + properties_len;
        }
        remaining
    }

    #[inline]
    fn properties_len(&self) -> usize {
        self.properties.iter().map(|piece| piece.len()).sum()
    }
}

/// Appends a PUBLISH's head, and tells at which index of `out` the two bytes
/// of its packet identifier are; at QoS 0 there are none.
///
/// # Panics
///
/// As [`encode`].
#[inline]
pub fn encode_publish_head<const PIECES: usize>(
    head: &PublishHead<'_, PIECES>,
    version: Version,
    out: &mut Vec<u8>,
) -> Option<usize> {
    let has_packet_id = head.qos != Qos::AtMostOnce;
    let remaining = head.remaining_bytes(version);
    // The fixed header takes five bytes at most.
    out.reserve(5 + remaining - head.payload_len);
    let flags =
        u8::from(head.dup && has_packet_id) << 3 | (head.qos as u8) << 1 | u8::from(head.retain);
    out.push(0x30 | flags);
    put_varint(remaining, out);
    put_len(head.topic_prefix.len() + head.topic.len(), out);
    out.extend_from_slice(head.topic_prefix.as_bytes());
    out.extend_from_slice(head.topic);
    let packet_id_at = has_packet_id.then_some(out.len());
    if has_packet_id {
        let packet_id = head.packet_id.map_or(0, PacketId::get);
        out.extend_from_slice(&packet_id.to_be_bytes());
    }
    if version == Version::V5 {
        put_varint(head.properties_len(), out);
        for piece in head.properties {
            out.extend_from_slice(piece);
        }
    }
    packet_id_at
}

/// Which of the four acknowledgements, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AckKind {
    Puback = 0x40,
    Pubrec = 0x50,
    Pubrel = 0x62,
    Pubcomp = 0x70,
}

/// Appends an acknowledgement without properties. Before MQTT 5 its reason is
/// left out.
#[inline]
pub fn encode_ack(
    kind: AckKind,
    packet_id: PacketId,
    reason: ReasonCode,
    version: Version,
    out: &mut Vec<u8>,
) {
    let [high, low] = packet_id.get().to_be_bytes();
    if version == Version::V5 && reason != ReasonCode::Success {
        out.extend_from_slice(&[kind as u8, 3, high, low, reason as u8]);
    } else {
        out.extend_from_slice(&[kind as u8, 2, high, low]);
    }
}

fn put_connect(connect: &Connect<'_>, out: &mut Vec<u8>) {
    let version = connect.version;
    framed(0x10, out, |out| {
        let (name, level): (&[u8], u8) = match version {
            Version::V3_1 => (b"MQIsdp", 3),
            Version::V3_1_1 => (b"MQTT", 4),
            Version::V5 => (b"MQTT", 5),
        };
        put_binary(name, out);
        out.push(level);
        let mut flags = u8::from(connect.clean_start) << 1
            | u8::from(connect.password.is_some()) << 6
            | u8::from(connect.user_name.is_some()) << 7;
        if let Some(will) = &connect.will {
            flags |= 1 << 2 | (will.qos as u8) << 3 | u8::from(will.retain) << 5;
        }
        out.push(flags);
        out.extend_from_slice(&connect.keep_alive_secs.to_be_bytes());
        put_properties(connect.properties, version, out);
        put_binary(connect.client_id.as_bytes(), out);
        if let Some(will) = &connect.will {
            put_properties(will.properties, version, out);
            put_binary(will.topic.as_bytes(), out);
            put_binary(will.payload, out);
        }
        if let Some(user_name) = connect.user_name {
            put_binary(user_name.as_bytes(), out);
        }
        if let Some(password) = connect.password {
            put_binary(password, out);
        }
    });
}

fn put_ack(kind: AckKind, ack: &Ack<'_>, version: Version, out: &mut Vec<u8>) {
    if ack.properties.is_empty() {
        return encode_ack(kind, ack.packet_id, ack.reason, version, out);
    }
    framed(kind as u8, out, |out| {
        put_packet_id(ack.packet_id, out);
        put_outcome(ack.reason, ack.properties, version, out);
    });
}

/// A reason and its properties, of which what says nothing is left out.
fn put_outcome(
    reason: ReasonCode,
    properties: Properties<'_>,
    version: Version,
    out: &mut Vec<u8>,
) {
    if version != Version::V5 {
        return;
    }
    if !properties.is_empty() {
        out.push(reason as u8);
        put_properties(properties, version, out);
    } else if reason != ReasonCode::Success {
        out.push(reason as u8);
    }
}

fn subscribe_options(options: SubscribeOptions, version: Version) -> u8 {
    let qos = options.qos as u8;
    if version != Version::V5 {
        return qos;
    }
    qos | u8::from(options.no_local) << 2
        | u8::from(options.retain_as_published) << 3
        | (options.retain_handling as u8) << 4
}

/// A packet whose length is known once its body is there.
fn framed(first: u8, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    // One byte is enough for the length of nearly all; the few others are
    // moved by what it takes more.
    out.extend_from_slice(&[first, 0]);
    let body_at = out.len();
    body(out);
    let remaining = out.len() - body_at;
    if remaining < 0x80 {
        out[body_at - 1] = remaining as u8;
        return;
    }
    let mut length = Vec::with_capacity(4);
    put_varint(remaining, &mut length);
    out.splice(body_at - 1..body_at, length);
}

fn put_packet_id(packet_id: PacketId, out: &mut Vec<u8>) {
    out.extend_from_slice(&packet_id.get().to_be_bytes());
}

fn put_properties(properties: Properties<'_>, version: Version, out: &mut Vec<u8>) {
    if version == Version::V5 {
        put_varint(properties.as_bytes().len(), out);
        out.extend_from_slice(properties.as_bytes());
    }
}

pub(super) fn put_binary(bytes: &[u8], out: &mut Vec<u8>) {
    put_len(bytes.len(), out);
    out.extend_from_slice(bytes);
}

#[inline]
fn put_len(len: usize, out: &mut Vec<u8>) {
    let len = u16::try_from(len).expect("a field is longer than 65,535 bytes");
    out.extend_from_slice(&len.to_be_bytes());
}

#[inline]
pub(super) fn put_varint(mut value: usize, out: &mut Vec<u8>) {
    assert!(
        value <= REMAINING_BYTES_MAX,
        "a packet is 256 MiB or longer"
    );
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
