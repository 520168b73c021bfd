//! Packets on the wire, as the suite writes and reads them.
//!
//! A packet is a kind and named fields, so that cases, comparisons and
//! messages to the reader all use the names of one table, [`fields_of`].
//! Nothing here comes from the broker's own codec: a fault of that one cannot
//! hide behind the same fault in this.

use std::collections::BTreeMap;
use std::fmt;

use crate::property::{self, Entry, Property, Wanted};

/// The two wire formats: MQTT 3.1 and 3.1.1 share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V3,
    V5,
}

/// The kinds of packets, by their number on the wire (2.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Connect = 1,
    Connack,
    Publish,
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
    Subscribe,
    Suback,
    Unsubscribe,
    Unsuback,
    Pingreq,
    Pingresp,
    Disconnect,
    Auth,
}

const KINDS: [(Kind, &str); 15] = [
    (Kind::Connect, "CONNECT"),
    (Kind::Connack, "CONNACK"),
    (Kind::Publish, "PUBLISH"),
    (Kind::Puback, "PUBACK"),
    (Kind::Pubrec, "PUBREC"),
    (Kind::Pubrel, "PUBREL"),
    (Kind::Pubcomp, "PUBCOMP"),
    (Kind::Subscribe, "SUBSCRIBE"),
    (Kind::Suback, "SUBACK"),
    (Kind::Unsubscribe, "UNSUBSCRIBE"),
    (Kind::Unsuback, "UNSUBACK"),
    (Kind::Pingreq, "PINGREQ"),
    (Kind::Pingresp, "PINGRESP"),
    (Kind::Disconnect, "DISCONNECT"),
    (Kind::Auth, "AUTH"),
];

impl Kind {
    pub fn named(name: &str) -> Option<Kind> {
        let (kind, _) = KINDS.iter().find(|(_, known)| *known == name)?;
        Some(*kind)
    }

    fn from_bits(bits: u8) -> Option<Kind> {
        let (kind, _) = KINDS.iter().find(|(kind, _)| *kind as u8 == bits)?;
        Some(*kind)
    }

    /// The flags that the fixed header of every kind but PUBLISH has (2.2.2).
    fn header_flags(self) -> u8 {
        match self {
            Kind::Pubrel | Kind::Subscribe | Kind::Unsubscribe => 0b0010,
            _ => 0,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(KINDS[*self as usize - 1].1)
    }
}

/// The type of a field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Flag,
    Number,
    Bytes,
    /// A reason or return code; where one is expected, perhaps one of several.
    Code,
    /// The codes of SUBACK and UNSUBACK.
    Codes,
    /// Filters with the QoS, or options, asked for.
    Requests,
    /// Filters alone.
    Filters,
    /// Properties of MQTT 5.
    Properties,
}

/// The fields of a packet, in the order of the wire where they have one.
pub fn fields_of(kind: Kind) -> &'static [(&'static str, Shape)] {
    use Shape::*;
    match kind {
        Kind::Connect => &[
            ("protocol_name", Bytes),
            ("protocol_level", Number),
            ("flags", Number),
            ("clean_session", Flag),
            ("clean_start", Flag),
            ("keep_alive", Number),
            ("properties", Properties),
            ("client_id", Bytes),
            ("will_properties", Properties),
            ("will_topic", Bytes),
            ("will_payload", Bytes),
            ("will_qos", Number),
            ("will_retain", Flag),
            ("user_name", Bytes),
            ("password", Bytes),
        ],
        Kind::Connack => &[
            ("session_present", Flag),
            ("code", Code),
            ("properties", Properties),
        ],
        Kind::Publish => &[
            ("dup", Flag),
            ("qos", Number),
            ("retain", Flag),
            ("topic", Bytes),
            ("packet_id", Number),
            ("properties", Properties),
            ("payload", Bytes),
        ],
        Kind::Puback | Kind::Pubrec | Kind::Pubrel | Kind::Pubcomp => &[
            ("packet_id", Number),
            ("code", Code),
            ("properties", Properties),
        ],
        Kind::Subscribe => &[
            ("packet_id", Number),
            ("properties", Properties),
            ("filters", Requests),
        ],
        Kind::Suback | Kind::Unsuback => &[
            ("packet_id", Number),
            ("properties", Properties),
            ("codes", Codes),
        ],
        Kind::Unsubscribe => &[
            ("packet_id", Number),
            ("properties", Properties),
            ("filters", Filters),
        ],
        Kind::Pingreq | Kind::Pingresp => &[],
        Kind::Disconnect | Kind::Auth => &[("code", Code), ("properties", Properties)],
    }
}

/// A field's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Flag(bool),
    Number(u16),
    Bytes(Vec<u8>),
    Codes(Vec<u8>),
    Requests(Vec<(Vec<u8>, u8)>),
    Filters(Vec<Vec<u8>>),
    Properties(Vec<Entry>),
    /// Of a packet that is expected: one of these codes.
    OneOf(Vec<u8>),
    /// Of a packet that is expected.
    Wanted(Vec<(&'static Property, Wanted)>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Flag(flag) => write!(f, "{flag}"),
            Value::Number(number) => write!(f, "{number}"),
            Value::Bytes(bytes) => f.write_str(&readable(bytes)),
            Value::Codes(codes) => write!(f, "{codes:02x?}"),
            Value::Requests(requests) => {
                let texts: Vec<String> = requests
                    .iter()
                    .map(|(filter, qos)| format!("{} at {qos}", readable(filter)))
                    .collect();
                write!(f, "[{}]", texts.join(", "))
            }
            Value::Filters(filters) => {
                let texts: Vec<String> = filters.iter().map(|filter| readable(filter)).collect();
                write!(f, "[{}]", texts.join(", "))
            }
            Value::Properties(properties) => f.write_str(&property::written(properties)),
            Value::OneOf(codes) => write!(f, "one of {codes:02x?}"),
            Value::Wanted(wanted) => {
                let texts: Vec<String> = wanted
                    .iter()
                    .map(|(property, wanted)| format!("{}={wanted}", property.name))
                    .collect();
                write!(f, "{{{}}}", texts.join(", "))
            }
        }
    }
}

/// Bytes as a person reads them: text if it is some, shortened if it is long.
pub fn readable(bytes: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 80;
    let (shown, rest) = bytes.split_at(bytes.len().min(SHOWN_BYTES_MAX));
    let mut text = match std::str::from_utf8(shown) {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("bytes {}", hex(shown)),
    };
    if !rest.is_empty() {
        text.push_str(&format!("... ({} bytes in all)", bytes.len()));
    }
    text
}

pub fn hex(bytes: &[u8]) -> String {
    let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(" ")
}

/// A packet: its kind, and those of its fields that are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub kind: Kind,
    pub fields: BTreeMap<&'static str, Value>,
}

impl Packet {
    pub fn new(kind: Kind) -> Packet {
        Packet {
            kind,
            fields: BTreeMap::new(),
        }
    }

    pub fn with(mut self, name: &'static str, value: Value) -> Packet {
        self.fields.insert(name, value);
        self
    }

    /// A flag that was left out is not set.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.fields.get(name), Some(Value::Flag(true)))
    }

    pub fn number(&self, name: &str) -> Option<u16> {
        match self.fields.get(name)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        match self.fields.get(name)? {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub fn packet_id(&self) -> Option<u16> {
        self.number("packet_id")
    }

    /// The reason or return code; one that was left out is 0.
    pub fn code(&self) -> u16 {
        self.number("code").unwrap_or(0)
    }

    /// Its properties; none if it has none, or bytes in their place.
    pub fn properties(&self) -> &[Entry] {
        match self.fields.get("properties") {
            Some(Value::Properties(properties)) => properties,
            _ => &[],
        }
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        for (name, _) in fields_of(self.kind) {
            match self.fields.get(name) {
                // Flags that are not set, and what is empty, go without saying.
                None | Some(Value::Flag(false)) => {}
                Some(Value::Properties(properties)) if properties.is_empty() => {}
                Some(Value::Wanted(wanted)) if wanted.is_empty() => {}
                Some(Value::Number(code)) if *name == "code" => write!(f, " code={code:#04x}")?,
                Some(value) => write!(f, " {name}={value}")?,
            }
        }
        Ok(())
    }
}

/// The first byte and the body of a packet; for the remaining length between
/// them see [`frame`]. Writes what it is told, valid or not.
pub fn encode(packet: &Packet, version: Version) -> (u8, Vec<u8>) {
    let mut first = (packet.kind as u8) << 4 | packet.kind.header_flags();
    let mut body = Vec::new();
    match packet.kind {
        Kind::Connect => encode_connect(packet, &mut body),
        Kind::Connack => {
            body.push(u8::from(packet.flag("session_present")));
            body.push(packet.code() as u8);
            put_properties(packet, "properties", version, &mut body);
        }
        Kind::Publish => {
            first |= u8::from(packet.flag("dup")) << 3
                | (packet.number("qos").unwrap_or(0) as u8 & 3) << 1
                | u8::from(packet.flag("retain"));
            put_string(packet.bytes("topic").unwrap_or_default(), &mut body);
            put_packet_id(packet, &mut body);
            put_properties(packet, "properties", version, &mut body);
            body.extend(packet.bytes("payload").unwrap_or_default());
        }
        Kind::Subscribe | Kind::Unsubscribe | Kind::Suback | Kind::Unsuback => {
            put_packet_id(packet, &mut body);
            put_properties(packet, "properties", version, &mut body);
            put_list(packet, &mut body);
        }
        // These may end after each of their fields.
        _ => {
            put_packet_id(packet, &mut body);
            let has_properties = packet.fields.contains_key("properties");
            if version == Version::V5 && (has_properties || packet.fields.contains_key("code")) {
                body.push(packet.code() as u8);
            }
            if has_properties {
                put_properties(packet, "properties", version, &mut body);
            }
        }
    }
    (first, body)
}

fn put_packet_id(packet: &Packet, body: &mut Vec<u8>) {
    if let Some(packet_id) = packet.packet_id() {
        body.extend(packet_id.to_be_bytes());
    }
}

/// Properties as they are, or bytes in their place, behind their length.
fn put_properties(packet: &Packet, name: &str, version: Version, body: &mut Vec<u8>) {
    if version == Version::V3 {
        return;
    }
    match packet.fields.get(name) {
        Some(Value::Properties(properties)) => property::encode(properties, body),
        Some(Value::Bytes(bytes)) => {
            property::put_variable(bytes.len() as u32, body);
            body.extend(bytes);
        }
        _ => body.push(0), // [MQTT-2.2.2-1]
    }
}

fn put_list(packet: &Packet, body: &mut Vec<u8>) {
    for value in packet.fields.values() {
        match value {
            Value::Codes(codes) => body.extend(codes),
            Value::Requests(requests) => {
                for (filter, options) in requests {
                    put_string(filter, body);
                    body.push(*options);
                }
            }
            Value::Filters(filters) => {
                for filter in filters {
                    put_string(filter, body);
                }
            }
            _ => {}
        }
    }
}

fn encode_connect(packet: &Packet, body: &mut Vec<u8>) {
    let level = packet.number("protocol_level").unwrap_or(4);
    let version = match level {
        5 => Version::V5,
        _ => Version::V3,
    };
    put_string(packet.bytes("protocol_name").unwrap_or(b"MQTT"), body);
    body.push(level as u8);
    let has = |name| packet.fields.contains_key(name);
    let will = has("will_topic") || has("will_payload");
    let flags = u8::from(packet.flag("clean_session")) << 1
        | u8::from(will) << 2
        | (packet.number("will_qos").unwrap_or(0) as u8 & 3) << 3
        | u8::from(packet.flag("will_retain")) << 5
        | u8::from(has("password")) << 6
        | u8::from(has("user_name")) << 7;
    body.push(packet.number("flags").map_or(flags, |flags| flags as u8));
    body.extend(packet.number("keep_alive").unwrap_or(0).to_be_bytes());
    put_properties(packet, "properties", version, body);
    // [MQTT-3.1.3-1]
    for name in [
        "client_id",
        "will_topic",
        "will_payload",
        "user_name",
        "password",
    ] {
        if will && name == "will_topic" {
            put_properties(packet, "will_properties", version, body);
        }
        if let Some(bytes) = packet.bytes(name) {
            put_string(bytes, body);
        } else if will && name == "will_payload" {
            put_string(b"", body);
        }
    }
}

/// A string, or binary data, behind its length (1.5.3).
pub fn put_string(bytes: &[u8], body: &mut Vec<u8>) {
    let length = u16::try_from(bytes.len()).expect("cases keep strings below 64 KiB");
    body.extend(length.to_be_bytes());
    body.extend(bytes);
}

/// First byte, remaining length (2.2.3), body.
pub fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    property::put_variable(body.len() as u32, &mut bytes);
    bytes.extend(body);
    bytes
}

/// Where the first packet in `bytes` ends and where its body begins; `None`
/// while that cannot be told.
pub fn find_frame(bytes: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let mut length = 0;
    for (place, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            if *byte == 0 && place > 0 {
                return Err("a remaining length in more bytes than it needs (2.2.3)".into());
            }
            let body_at = place + 2;
            let end = body_at + length;
            return Ok((bytes.len() >= end).then_some((body_at, end)));
        }
    }
    if bytes.len() > 4 {
        return Err("a remaining length of more than four bytes (2.2.3)".into());
    }
    Ok(None)
}

/// Reads a packet that the broker sent; the error says what is wrong with it.
pub fn decode(first: u8, body: &[u8], version: Version) -> Result<Packet, String> {
    let Some(kind) = Kind::from_bits(first >> 4) else {
        return Err(format!("a packet of the forbidden type {}", first >> 4));
    };
    if kind != Kind::Publish && first & 0x0F != kind.header_flags() {
        return Err(format!(
            "{kind} with the header flags {:04b} [MQTT-2.2.2-1; of 5: MQTT-2.1.3-1]",
            first & 0x0F
        ));
    }
    let mut rest = Cursor { kind, rest: body };
    let packet = match kind {
        Kind::Publish => decode_publish(first, &mut rest, version)?,
        Kind::Connect | Kind::Subscribe | Kind::Unsubscribe | Kind::Pingreq => {
            return Err(format!("{kind}, which only a client sends (2.2.1)"));
        }
        Kind::Disconnect | Kind::Auth if version == Version::V3 => {
            return Err(format!("{kind}, which a broker never sends (2.2.1)"));
        }
        _ => match version {
            Version::V3 => decode_v3(&mut rest)?,
            Version::V5 => decode_v5(&mut rest)?,
        },
    };
    if !rest.rest.is_empty() {
        return Err(format!("{kind} with {} bytes too many", rest.rest.len()));
    }
    property::check(kind, packet.properties())?;
    Ok(packet)
}

/// What is no PUBLISH, in MQTT 3.1 and 3.1.1.
fn decode_v3(rest: &mut Cursor<'_>) -> Result<Packet, String> {
    let packet = Packet::new(rest.kind);
    Ok(match rest.kind {
        Kind::Connack => {
            let packet = decode_connack_flags(rest)?;
            let code = rest.byte()?;
            if code > 5 {
                return Err(format!("CONNACK with the reserved code {code} (3.2.2.3)"));
            }
            packet.with("code", Value::Number(code.into()))
        }
        Kind::Puback | Kind::Pubrec | Kind::Pubrel | Kind::Pubcomp => packet
            .with("packet_id", Value::Number(rest.packet_id()?))
            .with("code", Value::Number(0)),
        Kind::Unsuback => packet.with("packet_id", Value::Number(rest.packet_id()?)),
        Kind::Suback => {
            let packet = packet.with("packet_id", Value::Number(rest.packet_id()?));
            let codes = std::mem::take(&mut rest.rest).to_vec();
            if let Some(code) = codes.iter().find(|code| ![0, 1, 2, 0x80].contains(code)) {
                return Err(format!("SUBACK with the code {code:02x} [MQTT-3.9.3-2]"));
            }
            packet.with("codes", Value::Codes(codes))
        }
        _ => packet,
    })
}

/// What is no PUBLISH, in MQTT 5.
fn decode_v5(rest: &mut Cursor<'_>) -> Result<Packet, String> {
    let kind = rest.kind;
    let mut packet = Packet::new(kind);
    match kind {
        Kind::Connack => {
            packet = decode_connack_flags(rest)?;
            let code = rest.byte()?;
            property::check_code(kind, code)?;
            let properties = property::decode(rest)?;
            Ok(packet
                .with("code", Value::Number(code.into()))
                .with("properties", Value::Properties(properties)))
        }
        Kind::Suback | Kind::Unsuback => {
            packet = packet.with("packet_id", Value::Number(rest.packet_id()?));
            let properties = property::decode(rest)?;
            let codes = std::mem::take(&mut rest.rest).to_vec();
            for code in &codes {
                property::check_code(kind, *code)?;
            }
            Ok(packet
                .with("properties", Value::Properties(properties))
                .with("codes", Value::Codes(codes)))
        }
        Kind::Pingresp => Ok(packet),
        // These may end after each of their fields (3.4.2.1).
        _ => {
            if !matches!(kind, Kind::Disconnect | Kind::Auth) {
                packet = packet.with("packet_id", Value::Number(rest.packet_id()?));
            }
            let code = match rest.rest.is_empty() {
                true => 0,
                false => rest.byte()?,
            };
            property::check_code(kind, code)?;
            let properties = match rest.rest.is_empty() {
                true => Vec::new(),
                false => property::decode(rest)?,
            };
            Ok(packet
                .with("code", Value::Number(code.into()))
                .with("properties", Value::Properties(properties)))
        }
    }
}

fn decode_connack_flags(rest: &mut Cursor<'_>) -> Result<Packet, String> {
    let flags = rest.byte()?;
    if flags > 1 {
        return Err(format!("CONNACK with the flags {flags:02x} (3.2.2.1)"));
    }
    Ok(Packet::new(Kind::Connack).with("session_present", Value::Flag(flags == 1)))
}

fn decode_publish(first: u8, rest: &mut Cursor<'_>, version: Version) -> Result<Packet, String> {
    let (dup, qos, retain) = (first & 8 != 0, first >> 1 & 3, first & 1 != 0);
    if qos == 3 {
        return Err("PUBLISH with QoS 3 [MQTT-3.3.1-4]".into());
    }
    if dup && qos == 0 {
        return Err("PUBLISH with DUP at QoS 0 [MQTT-3.3.1-2]".into());
    }
    let topic = rest.text()?;
    let text = String::from_utf8_lossy(topic);
    // In MQTT 5 an alias may stand for it.
    let may_be_empty = version == Version::V5;
    if (text.is_empty() && !may_be_empty) || text.contains(['+', '#']) {
        return Err(format!("PUBLISH to {text:?}, no topic name (4.7)"));
    }
    let mut packet = Packet::new(Kind::Publish)
        .with("dup", Value::Flag(dup))
        .with("qos", Value::Number(qos.into()))
        .with("retain", Value::Flag(retain))
        .with("topic", Value::Bytes(topic.to_vec()));
    if qos > 0 {
        packet = packet.with("packet_id", Value::Number(rest.packet_id()?));
    }
    if version == Version::V5 {
        let properties = property::decode(rest)?;
        if let Some(property::Value::Bytes(topic)) = property::find(&properties, "response_topic")
            && (topic.is_empty() || topic.contains(&b'+') || topic.contains(&b'#'))
        {
            return Err(format!(
                "PUBLISH with the response topic {} [MQTT-3.3.2-14]",
                readable(topic)
            ));
        }
        packet = packet.with("properties", Value::Properties(properties));
    }
    let payload = std::mem::take(&mut rest.rest);
    Ok(packet.with("payload", Value::Bytes(payload.to_vec())))
}

/// What of a body is still to be read.
pub struct Cursor<'a> {
    pub kind: Kind,
    pub rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(format!("{} that ends in the middle", self.kind));
        };
        self.rest = rest;
        Ok(taken)
    }

    pub fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    pub fn number(&mut self) -> Result<u16, String> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub fn long(&mut self) -> Result<u32, String> {
        let high = u32::from(self.number()?);
        Ok(high << 16 | u32::from(self.number()?))
    }

    /// A variable byte integer (1.5.5).
    pub fn variable(&mut self) -> Result<u32, String> {
        let mut number = 0;
        for place in 0..4 {
            let byte = self.byte()?;
            number |= u32::from(byte & 0x7F) << (7 * place);
            if byte & 0x80 == 0 {
                return match byte == 0 && place > 0 {
                    true => Err(format!(
                        "{} with a number in more bytes than it needs [MQTT-1.5.5-1]",
                        self.kind
                    )),
                    false => Ok(number),
                };
            }
        }
        Err(format!(
            "{} with a number of more than four bytes (1.5.5)",
            self.kind
        ))
    }

    /// Bytes behind their length.
    pub fn string(&mut self) -> Result<&'a [u8], String> {
        let length = self.number()?;
        self.take(length.into())
    }

    /// As [`Cursor::string`], but UTF-8 and without U+0000 (1.5.3; in 5, 1.5.4).
    pub fn text(&mut self) -> Result<&'a [u8], String> {
        let bytes = self.string()?;
        match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => Ok(bytes),
            _ => Err(format!(
                "{} with {}, which is no text [MQTT-1.5.3-1, -2; of 5: MQTT-1.5.4-1, -2]",
                self.kind,
                readable(bytes)
            )),
        }
    }

    fn packet_id(&mut self) -> Result<u16, String> {
        match self.number()? {
            0 => Err(format!("{} with the packet id 0 (2.3.1)", self.kind)),
            packet_id => Ok(packet_id),
        }
    }
}
