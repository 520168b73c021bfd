//! Bytes to packets.
//!
//! Copies no text and no payload; only a list of filters or of reason codes
//! is allocated. Until the whole packet is there only its fixed header is
//! looked at, so that feeding byte by byte costs no more than the bytes. What
//! can be refused early is: a reserved type or flag at the first byte, a
//! packet that is too large at its length.

use std::fmt;

use crate::message::Qos;

use super::cursor::{Cursor, Varint, check_text, not_minimal};
use super::packet::*;
use super::property;

/// Why bytes are refused; the connection they came on is to be closed
/// [MQTT-4.8.0-1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// 0x81, 0x82, 0x84 or 0x95.
    pub reason: ReasonCode,
    /// What was wrong with them, as a clause.
    pub what: &'static str,
    /// The version in which a CONNACK tells the client why, before the close;
    /// `None`: close without one. Only [`decode_connect`] gives one.
    pub connack: Option<Version>,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (reason 0x{:02X})", self.what, self.reason as u8)
    }
}

impl std::error::Error for DecodeError {}

impl DecodeError {
    /// The bytes are no packet of MQTT.
    #[cold]
    pub(super) fn malformed(what: &'static str) -> DecodeError {
        DecodeError {
            reason: ReasonCode::MalformedPacket,
            what,
            connack: None,
        }
    }

    /// They are one, with a value or in a place that is forbidden.
    #[cold]
    pub(super) fn protocol(what: &'static str) -> DecodeError {
        DecodeError {
            reason: ReasonCode::ProtocolError,
            what,
            connack: None,
        }
    }

    /// A malformed CONNECT of 3.1 and 3.1.1 is closed without a CONNACK
    /// [MQTT-3.1.4-1]; MQTT 5 has reason codes for it.
    fn told_in(self, version: Version) -> DecodeError {
        DecodeError {
            connack: (version == Version::V5).then_some(version),
            ..self
        }
    }
}

/// Reads the packet that `bytes` begin with, of an agreed version.
///
/// `Ok(None)`: it is incomplete. Otherwise the packet and how many bytes it
/// took. `packet_bytes_max` bounds the whole packet, its fixed header
/// included. Which packets a client or a server may send is not asked here,
/// nor whether a topic is a valid name or filter.
#[inline]
pub fn decode<'a>(
    bytes: &'a [u8],
    version: Version,
    packet_bytes_max: usize,
) -> Result<Option<(Packet<'a>, usize)>, DecodeError> {
    let Some(&first) = bytes.first() else {
        return Ok(None);
    };
    let packet_type = check_first(first, version)?;
    let Some(header) = Header::read(bytes, packet_bytes_max)? else {
        return Ok(None);
    };
    if version == Version::V5 && !header.is_minimal {
        return Err(not_minimal()); // [MQTT-1.5.5-1]
    }
    let Some(body) = header.body(bytes) else {
        return Ok(None);
    };
    let body = Cursor::new(body);
    let packet = match packet_type {
        PacketType::Will => return Err(reserved_type()),
        PacketType::Connect => Packet::Connect(connect_again(body)?),
        PacketType::Connack => Packet::Connack(connack(body, version)?),
        PacketType::Publish => Packet::Publish(publish(first, body, version)?),
        PacketType::Puback => Packet::Puback(ack(packet_type, body, version)?),
        PacketType::Pubrec => Packet::Pubrec(ack(packet_type, body, version)?),
        PacketType::Pubrel => Packet::Pubrel(ack(packet_type, body, version)?),
        PacketType::Pubcomp => Packet::Pubcomp(ack(packet_type, body, version)?),
        PacketType::Subscribe => Packet::Subscribe(subscribe(body, version)?),
        PacketType::Suback => Packet::Suback(suback(body, version)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(unsubscribe(body, version)?),
        PacketType::Unsuback => Packet::Unsuback(unsuback(body, version)?),
        PacketType::Pingreq => body.end().map(|()| Packet::Pingreq)?,
        PacketType::Pingresp => body.end().map(|()| Packet::Pingresp)?,
        PacketType::Disconnect => Packet::Disconnect(disconnect(body, version)?),
        PacketType::Auth => Packet::Auth(auth(body)?),
    };
    Ok(Some((packet, header.packet_bytes)))
}

/// Reads the first packet of a connection, which is a CONNECT [MQTT-3.1.0-1]
/// and says which version the others have.
///
/// `Ok(None)`: it is incomplete. Another packet is refused at its first byte.
/// What a CONNACK can still tell the client is in [`DecodeError::connack`].
pub fn decode_connect<'a>(
    bytes: &'a [u8],
    packet_bytes_max: usize,
) -> Result<Option<(Connect<'a>, usize)>, DecodeError> {
    let Some(&first) = bytes.first() else {
        return Ok(None);
    };
    if first != 0x10 {
        return Err(DecodeError::protocol(
            "the first packet of the connection is not a CONNECT",
        ));
    }
    let Some(header) = Header::read(bytes, packet_bytes_max)? else {
        return Ok(None);
    };
    let Some(body) = header.body(bytes) else {
        return Ok(None);
    };
    let mut body = Cursor::new(body);
    let version = protocol_version(&mut body)?;
    if version == Version::V5 && !header.is_minimal {
        return Err(not_minimal().told_in(version)); // [MQTT-1.5.5-1]
    }
    let connect = connect(version, body).map_err(|error| error.told_in(version))?;
    Ok(Some((connect, header.packet_bytes)))
}

/// What the fixed header says but for its first byte (2.2.3).
struct Header {
    /// How many bytes the fixed header takes.
    bytes: usize,
    /// How many bytes the packet takes, fixed header included.
    packet_bytes: usize,
    /// Whether the remaining length has its shortest form. Only MQTT 5 asks
    /// for that; 3.1 and 3.1.1 do not, and clients that pad it exist.
    is_minimal: bool,
}

impl Header {
    #[inline]
    fn read(bytes: &[u8], packet_bytes_max: usize) -> Result<Option<Header>, DecodeError> {
        let Some(length) = Varint::read(&bytes[1..])? else {
            return Ok(None);
        };
        let header = Header {
            bytes: 1 + length.size_bytes,
            packet_bytes: 1 + length.size_bytes + length.value as usize,
            is_minimal: length.is_minimal(),
        };
        if header.packet_bytes > packet_bytes_max {
            return Err(DecodeError {
                reason: ReasonCode::PacketTooLarge,
                what: "the packet is larger than packet_bytes_max",
                connack: None,
            });
        }
        Ok(Some(header))
    }

    /// `None`: it is not all there yet.
    fn body<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        bytes.get(self.bytes..self.packet_bytes)
    }
}

/// The packet type of a first byte whose flags are right (2.2.2).
#[inline]
fn check_first(first: u8, version: Version) -> Result<PacketType, DecodeError> {
    let flags = first & 0x0F;
    let packet_type = PacketType::from_bits(first >> 4);
    let right = match packet_type {
        PacketType::Will => return Err(reserved_type()),
        PacketType::Auth if version != Version::V5 => return Err(reserved_type()),
        PacketType::Publish => {
            if flags & 0b0110 == 0b0110 {
                return Err(DecodeError::malformed("the QoS is 3")); // [MQTT-3.3.1-4]
            }
            // A sender sets no DUP at QoS 0 [MQTT-3.3.1-2], so a receiver that
            // sees it sees a violation, and closes [MQTT-4.8.0-1]; newer
            // mosquittos do too, 2.0.11 does not look. MQTT 3.1 only says that
            // the flag applies to QoS above 0: there it is ignored.
            flags & 0b1110 != 0b1000 || version == Version::V3_1
        }
        // [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1]. MQTT 3.1 marks
        // these with DUP when they are sent again.
        PacketType::Pubrel | PacketType::Subscribe | PacketType::Unsubscribe => {
            flags == 0b0010 || flags == 0b1010 && version == Version::V3_1
        }
        _ => flags == 0,
    };
    if !right {
        return Err(DecodeError::malformed(
            "the flags of the first byte are not those of its packet type", // [MQTT-2.2.2-2]
        ));
    }
    Ok(packet_type)
}

#[cold]
fn reserved_type() -> DecodeError {
    DecodeError::malformed("the packet type is reserved")
}

/// A CONNECT where a version has been agreed: no CONNACK answers it.
fn connect_again(mut body: Cursor<'_>) -> Result<Connect<'_>, DecodeError> {
    let read = protocol_version(&mut body).and_then(|version| connect(version, body));
    read.map_err(|error| DecodeError {
        connack: None,
        ..error
    })
}

/// Protocol name and level (3.1.2.1, 3.1.2.2).
fn protocol_version(body: &mut Cursor<'_>) -> Result<Version, DecodeError> {
    let name = body.binary()?;
    if name != b"MQTT" && name != b"MQIsdp" {
        // [MQTT-3.1.2-1]: it is no MQTT client, a CONNACK tells it nothing.
        return Err(DecodeError {
            reason: ReasonCode::UnsupportedProtocolVersion,
            what: "the protocol name is neither MQTT nor MQIsdp",
            connack: None,
        });
    }
    match (name, body.u8()?) {
        (b"MQIsdp", 3) => Ok(Version::V3_1),
        (b"MQTT", 4) => Ok(Version::V3_1_1),
        (b"MQTT", 5) => Ok(Version::V5),
        // [MQTT-3.1.2-2]: refused in the form that 3.1.1 demands and 5 leaves
        // open. Mosquitto's bridges set the level's top bit, and come again
        // without it once they are refused.
        _ => Err(DecodeError {
            reason: ReasonCode::UnsupportedProtocolVersion,
            what: "the protocol level is not one of 3 (MQIsdp), 4 and 5 (MQTT)",
            connack: Some(Version::V3_1_1),
        }),
    }
}

/// What follows the protocol level.
fn connect(version: Version, mut body: Cursor<'_>) -> Result<Connect<'_>, DecodeError> {
    let flags = body.u8()?;
    let flag = |bit: u8| flags & 1 << bit != 0;
    // MQTT 3.1 calls the bit unused, without asking for a 0.
    if flag(0) && version != Version::V3_1 {
        return Err(DecodeError::malformed("a CONNECT's reserved flag is set")); // [MQTT-3.1.2-3]
    }
    let (has_will, has_user_name, has_password) = (flag(2), flag(7), flag(6));
    let will_qos = Qos::from_bits(flags >> 3 & 0b11)
        .ok_or_else(|| DecodeError::malformed("the will's QoS is 3"))?; // [MQTT-3.1.2-14]
    let will_retain = flag(5);
    if !has_will && (will_retain || will_qos != Qos::AtMostOnce) {
        // [MQTT-3.1.2-13], [MQTT-3.1.2-15]
        return Err(DecodeError::malformed(
            "a CONNECT without a will has the will's QoS or retain flag",
        ));
    }
    if has_password && !has_user_name && version != Version::V5 {
        // [MQTT-3.1.2-22]; MQTT 5 allows it, for tokens.
        return Err(DecodeError::malformed(
            "a CONNECT has a password but no user name",
        ));
    }
    let keep_alive_secs = body.u16()?;
    let properties = properties(PacketType::Connect, &mut body, version)?;
    // MQTT 3.1 allows 1 to 23 characters. Longer ones harm nobody and are
    // common, so they are accepted; what an empty one means is not told here.
    let client_id = body.text()?;
    let will = if has_will {
        let properties = self::properties(PacketType::Will, &mut body, version)?;
        Some(Will {
            properties,
            topic: body.text()?,
            payload: body.binary()?,
            qos: will_qos,
            retain: will_retain,
        })
    } else {
        None
    };
    // In MQTT 3.1 the remaining length goes before these flags: the fields
    // may be missing at the end although the flags are set.
    let is_there =
        |flag: bool, body: &Cursor<'_>| flag && !(version == Version::V3_1 && body.is_empty());
    let user_name = match is_there(has_user_name, &body) {
        true => Some(body.text()?),
        false => None,
    };
    let password = match is_there(has_password, &body) {
        true => Some(body.binary()?),
        false => None,
    };
    body.end()?;
    Ok(Connect {
        version,
        clean_start: flag(1),
        keep_alive_secs,
        properties,
        client_id,
        will,
        user_name,
        password,
    })
}

fn connack(mut body: Cursor<'_>, version: Version) -> Result<Connack<'_>, DecodeError> {
    let flags = body.u8()?;
    // MQTT 3.1 has no Session Present; the byte is unused there.
    if flags > 1 && version != Version::V3_1 {
        return Err(DecodeError::malformed("a CONNACK's reserved flag is set")); // 3.2.2.1; in MQTT 5 [MQTT-3.2.2-1]
    }
    let session_present = flags == 1 && version != Version::V3_1;
    let reason = ReasonCode::from_wire(body.u8()?, PacketType::Connack, version)?;
    if session_present && reason != ReasonCode::Success {
        // [MQTT-3.2.2-4], in MQTT 5 [MQTT-3.2.2-6]
        return Err(DecodeError::protocol(
            "a CONNACK refuses, and says that a session is present",
        ));
    }
    let properties = properties(PacketType::Connack, &mut body, version)?;
    body.end()?;
    Ok(Connack {
        session_present,
        reason,
        properties,
    })
}

#[inline]
fn publish(first: u8, mut body: Cursor<'_>, version: Version) -> Result<Publish<'_>, DecodeError> {
    let qos = match first >> 1 & 0b11 {
        0 => Qos::AtMostOnce,
        1 => Qos::AtLeastOnce,
        _ => Qos::ExactlyOnce, // check_first refused 3.
    };
    let topic = check_text(body.binary()?)?;
    let packet_id = match qos {
        Qos::AtMostOnce => None,
        _ => Some(body.packet_id()?), // [MQTT-2.3.1-1]
    };
    let mut properties = Properties::EMPTY;
    if version == Version::V5 {
        let count = body.varint()?;
        properties.bytes = body.bytes(count as usize)?;
        let seen = property::check(properties.bytes, PacketType::Publish)?;
        if topic.is_empty() && !seen.topic_alias() {
            return Err(DecodeError::protocol(
                "a PUBLISH has neither a topic nor a topic alias",
            ));
        }
    }
    Ok(Publish {
        dup: first & 0b1000 != 0 && qos != Qos::AtMostOnce,
        qos,
        retain: first & 1 != 0,
        topic,
        packet_id,
        properties,
        payload: body.rest(),
    })
}

#[inline]
fn ack(
    packet_type: PacketType,
    mut body: Cursor<'_>,
    version: Version,
) -> Result<Ack<'_>, DecodeError> {
    let mut ack = Ack::new(body.packet_id()?);
    if version == Version::V5 && !body.is_empty() {
        ack.reason = ReasonCode::from_wire(body.u8()?, packet_type, version)?;
        // The length of the properties may be left out (3.4.2.2.1).
        if !body.is_empty() {
            ack.properties = properties(packet_type, &mut body, version)?;
        }
    }
    body.end()?;
    Ok(ack)
}

fn subscribe(mut body: Cursor<'_>, version: Version) -> Result<Subscribe<'_>, DecodeError> {
    let packet_id = body.packet_id()?;
    let properties = properties(PacketType::Subscribe, &mut body, version)?;
    let filters = list(body, |body| {
        let filter = body.text()?;
        let options = subscribe_options(body.u8()?, version)?;
        if options.no_local && filter.starts_with("$share/") {
            return Err(DecodeError::protocol(
                "a shared subscription asks for No Local", // [MQTT-3.8.3-4]
            ));
        }
        Ok((filter, options))
    })?;
    Ok(Subscribe {
        packet_id,
        properties,
        filters,
    })
}

/// The byte after a filter (3.8.3; in MQTT 5 3.8.3.1).
fn subscribe_options(byte: u8, version: Version) -> Result<SubscribeOptions, DecodeError> {
    let reserved = match version {
        Version::V5 => 0b1100_0000, // [MQTT-3.8.3-5]
        _ => 0b1111_1100,           // [MQTT-3-8.3-4]
    };
    if byte & reserved != 0 {
        return Err(DecodeError::malformed(
            "a subscription's reserved bits are set",
        ));
    }
    let qos = Qos::from_bits(byte & 0b11)
        .ok_or_else(|| DecodeError::malformed("a subscription's QoS is 3"))?;
    let retain_handling = match byte >> 4 {
        0 => RetainHandling::Send,
        1 => RetainHandling::SendIfNew,
        2 => RetainHandling::DoNotSend,
        _ => {
            return Err(DecodeError::protocol(
                "a subscription's Retain Handling is 3",
            ));
        }
    };
    Ok(SubscribeOptions {
        qos,
        no_local: byte & 1 << 2 != 0,
        retain_as_published: byte & 1 << 3 != 0,
        retain_handling,
    })
}

fn suback(mut body: Cursor<'_>, version: Version) -> Result<Suback<'_>, DecodeError> {
    let packet_id = body.packet_id()?;
    let properties = properties(PacketType::Suback, &mut body, version)?;
    let reasons = list(body, |body| {
        ReasonCode::from_wire(body.u8()?, PacketType::Suback, version)
    })?;
    Ok(Suback {
        packet_id,
        properties,
        reasons,
    })
}

fn unsubscribe(mut body: Cursor<'_>, version: Version) -> Result<Unsubscribe<'_>, DecodeError> {
    let packet_id = body.packet_id()?;
    let properties = properties(PacketType::Unsubscribe, &mut body, version)?;
    let filters = list(body, Cursor::text)?;
    Ok(Unsubscribe {
        packet_id,
        properties,
        filters,
    })
}

fn unsuback(mut body: Cursor<'_>, version: Version) -> Result<Unsuback<'_>, DecodeError> {
    let packet_id = body.packet_id()?;
    let properties = properties(PacketType::Unsuback, &mut body, version)?;
    let reasons = if version == Version::V5 {
        list(body, |body| {
            ReasonCode::from_wire(body.u8()?, PacketType::Unsuback, version)
        })?
    } else {
        body.end()?;
        Vec::new()
    };
    Ok(Unsuback {
        packet_id,
        properties,
        reasons,
    })
}

/// The items up to the body's end, of which there is at least one
/// [MQTT-3.8.3-3] [MQTT-3.10.3-2].
fn list<'a, T>(
    mut body: Cursor<'a>,
    mut item: impl FnMut(&mut Cursor<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let mut items = vec![];
    if body.is_empty() {
        return Err(DecodeError::protocol(
            "the packet's list, of filters or of reason codes, is empty",
        ));
    }
    while !body.is_empty() {
        items.push(item(&mut body)?);
    }
    Ok(items)
}

fn disconnect(mut body: Cursor<'_>, version: Version) -> Result<Disconnect<'_>, DecodeError> {
    let mut disconnect = Disconnect {
        reason: ReasonCode::Success,
        properties: Properties::EMPTY,
    };
    if version == Version::V5 && !body.is_empty() {
        disconnect.reason = ReasonCode::from_wire(body.u8()?, PacketType::Disconnect, version)?;
        // The length of the properties may be left out (3.14.2.2.1).
        if !body.is_empty() {
            disconnect.properties = properties(PacketType::Disconnect, &mut body, version)?;
        }
    }
    body.end()?;
    Ok(disconnect)
}

fn auth(mut body: Cursor<'_>) -> Result<Auth<'_>, DecodeError> {
    // Success without properties may be left out (3.15.2.1).
    if body.is_empty() {
        return Ok(Auth {
            reason: ReasonCode::Success,
            properties: Properties::EMPTY,
        });
    }
    let reason = ReasonCode::from_wire(body.u8()?, PacketType::Auth, Version::V5)?;
    let count = body.varint()?;
    let bytes = body.bytes(count as usize)?;
    body.end()?;
    if !property::check(bytes, PacketType::Auth)?.authentication_method() {
        return Err(DecodeError::protocol(
            "an AUTH has no authentication method", // 3.15.2.2.2
        ));
    }
    Ok(Auth {
        reason,
        properties: Properties { bytes },
    })
}

/// The properties that stand here, with their length before them; none before
/// MQTT 5.
#[inline]
fn properties<'a>(
    packet_type: PacketType,
    body: &mut Cursor<'a>,
    version: Version,
) -> Result<Properties<'a>, DecodeError> {
    if version != Version::V5 {
        return Ok(Properties::EMPTY);
    }
    let count = body.varint()?;
    Properties::parse(body.bytes(count as usize)?, packet_type)
}
