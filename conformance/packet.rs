//! Packets on the wire, as the suite writes and reads them.
//!
//! A packet is a kind and named fields, so that cases, comparisons and
//! messages to the reader all use the names of one table, [`fields_of`].
//! Nothing here comes from the broker's own codec: a fault of that one cannot
//! hide behind the same fault in this.

use std::collections::BTreeMap;
use std::fmt;

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
}

const KINDS: [(Kind, &str); 14] = [
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
    /// SUBACK's codes.
    Codes,
    /// Filters with the QoS asked for.
    Requests,
    /// Filters alone.
    Filters,
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
            ("keep_alive", Number),
            ("client_id", Bytes),
            ("will_topic", Bytes),
            ("will_payload", Bytes),
            ("will_qos", Number),
            ("will_retain", Flag),
            ("user_name", Bytes),
            ("password", Bytes),
        ],
        Kind::Connack => &[("session_present", Flag), ("code", Number)],
        Kind::Publish => &[
            ("dup", Flag),
            ("qos", Number),
            ("retain", Flag),
            ("topic", Bytes),
            ("packet_id", Number),
            ("payload", Bytes),
        ],
        Kind::Puback | Kind::Pubrec | Kind::Pubrel | Kind::Pubcomp | Kind::Unsuback => {
            &[("packet_id", Number)]
        }
        Kind::Subscribe => &[("packet_id", Number), ("filters", Requests)],
        Kind::Suback => &[("packet_id", Number), ("codes", Codes)],
        Kind::Unsubscribe => &[("packet_id", Number), ("filters", Filters)],
        Kind::Pingreq | Kind::Pingresp | Kind::Disconnect => &[],
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
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        for (name, _) in fields_of(self.kind) {
            match self.fields.get(name) {
                // Flags that are not set go without saying.
                None | Some(Value::Flag(false)) => {}
                Some(value) => write!(f, " {name}={value}")?,
            }
        }
        Ok(())
    }
}

/// The first byte and the body of a packet; for the remaining length between
/// them see [`frame`]. Writes what it is told, valid or not.
pub fn encode(packet: &Packet) -> (u8, Vec<u8>) {
    let mut first = (packet.kind as u8) << 4 | packet.kind.header_flags();
    let mut body = Vec::new();
    if packet.kind == Kind::Connect {
        encode_connect(packet, &mut body);
        return (first, body);
    }
    if packet.kind == Kind::Connack {
        body.push(u8::from(packet.flag("session_present")));
        body.push(packet.number("code").unwrap_or(0) as u8);
        return (first, body);
    }
    if packet.kind == Kind::Publish {
        first |= u8::from(packet.flag("dup")) << 3
            | (packet.number("qos").unwrap_or(0) as u8 & 3) << 1
            | u8::from(packet.flag("retain"));
        put_string(packet.bytes("topic").unwrap_or_default(), &mut body);
    }
    if let Some(packet_id) = packet.packet_id() {
        body.extend(packet_id.to_be_bytes());
    }
    for value in packet.fields.values() {
        match value {
            Value::Codes(codes) => body.extend(codes),
            Value::Requests(requests) => {
                for (filter, qos) in requests {
                    put_string(filter, &mut body);
                    body.push(*qos);
                }
            }
            Value::Filters(filters) => {
                for filter in filters {
                    put_string(filter, &mut body);
                }
            }
            Value::Flag(_) | Value::Number(_) | Value::Bytes(_) => {}
        }
    }
    body.extend(packet.bytes("payload").unwrap_or_default());
    (first, body)
}

/// `flags` are made from the other fields unless given; what is in the payload
/// is there whether the flags announce it or not.
fn encode_connect(packet: &Packet, body: &mut Vec<u8>) {
    put_string(packet.bytes("protocol_name").unwrap_or(b"MQTT"), body);
    body.push(packet.number("protocol_level").unwrap_or(4) as u8);
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
    // [MQTT-3.1.3-1]
    for name in [
        "client_id",
        "will_topic",
        "will_payload",
        "user_name",
        "password",
    ] {
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
    let mut rest = body.len();
    loop {
        let more = rest >= 128;
        bytes.push((rest % 128) as u8 | u8::from(more) << 7);
        rest /= 128;
        if !more {
            break;
        }
    }
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
pub fn decode(first: u8, body: &[u8]) -> Result<Packet, String> {
    let Some(kind) = Kind::from_bits(first >> 4) else {
        return Err(format!("a packet of the forbidden type {}", first >> 4));
    };
    if kind != Kind::Publish && first & 0x0F != kind.header_flags() {
        return Err(format!(
            "{kind} with the header flags {:04b} [MQTT-2.2.2-1]",
            first & 0x0F
        ));
    }
    let mut rest = Cursor { kind, rest: body };
    let packet = Packet::new(kind);
    let packet = match kind {
        Kind::Connack => {
            let flags = rest.byte()?;
            if flags > 1 {
                return Err(format!("CONNACK with the flags {flags:02x} (3.2.2.1)"));
            }
            let code = rest.byte()?;
            if code > 5 {
                return Err(format!("CONNACK with the reserved code {code} (3.2.2.3)"));
            }
            packet
                .with("session_present", Value::Flag(flags == 1))
                .with("code", Value::Number(code.into()))
        }
        Kind::Publish => decode_publish(first, &mut rest)?,
        Kind::Puback | Kind::Pubrec | Kind::Pubrel | Kind::Pubcomp | Kind::Unsuback => {
            packet.with("packet_id", Value::Number(rest.packet_id()?))
        }
        Kind::Suback => {
            let packet = packet.with("packet_id", Value::Number(rest.packet_id()?));
            let codes = std::mem::take(&mut rest.rest).to_vec();
            if let Some(code) = codes.iter().find(|code| ![0, 1, 2, 0x80].contains(code)) {
                return Err(format!("SUBACK with the code {code:02x} [MQTT-3.9.3-2]"));
            }
            packet.with("codes", Value::Codes(codes))
        }
        Kind::Pingresp => packet,
        Kind::Connect | Kind::Subscribe | Kind::Unsubscribe | Kind::Pingreq | Kind::Disconnect => {
            return Err(format!("{kind}, which only a client sends (2.2.1)"));
        }
    };
    if !rest.rest.is_empty() {
        return Err(format!("{kind} with {} bytes too many", rest.rest.len()));
    }
    Ok(packet)
}

fn decode_publish(first: u8, rest: &mut Cursor<'_>) -> Result<Packet, String> {
    let (dup, qos, retain) = (first & 8 != 0, first >> 1 & 3, first & 1 != 0);
    if qos == 3 {
        return Err("PUBLISH with QoS 3 [MQTT-3.3.1-4]".into());
    }
    if dup && qos == 0 {
        return Err("PUBLISH with DUP at QoS 0 [MQTT-3.3.1-2]".into());
    }
    let topic = rest.string()?;
    let Ok(text) = std::str::from_utf8(topic) else {
        return Err("PUBLISH with a topic that is not UTF-8 [MQTT-3.3.2-1]".into());
    };
    if text.is_empty() || text.contains(['+', '#', '\0']) {
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
    let payload = std::mem::take(&mut rest.rest);
    Ok(packet.with("payload", Value::Bytes(payload.to_vec())))
}

/// What of a body is still to be read.
struct Cursor<'a> {
    kind: Kind,
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(format!("{} that ends in the middle", self.kind));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u16, String> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn string(&mut self) -> Result<&'a [u8], String> {
        let length = self.number()?;
        self.take(length.into())
    }

    fn packet_id(&mut self) -> Result<u16, String> {
        match self.number()? {
            0 => Err(format!("{} with the packet id 0 (2.3.1)", self.kind)),
            packet_id => Ok(packet_id),
        }
    }
}
