//! The properties of MQTT 5, as the suite writes and reads them (2.2.2).
//!
//! One table says what each is called in cases, how it stands on the wire,
//! and in which packets a broker may send it.

use std::fmt;

use crate::packet::{Cursor, Kind, hex, put_string, readable};

/// How a property's value stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Byte,
    TwoBytes,
    FourBytes,
    Variable,
    Text,
    Binary,
    Pair,
}

/// What is known of one property.
#[derive(Debug)]
pub struct Property {
    pub id: u8,
    pub name: &'static str,
    pub type_: Type,
    /// The least and the greatest value of a number.
    range: (u32, u32),
    /// The packets in which a broker may send it.
    sent_in: &'static [Kind],
    /// Whether it may come more than once in a packet.
    repeats: bool,
}

impl PartialEq for Property {
    fn eq(&self, other: &Property) -> bool {
        self.id == other.id
    }
}

impl Eq for Property {}

/// A property's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Number(u32),
    Bytes(Vec<u8>),
    Pair(Vec<u8>, Vec<u8>),
    /// What a variable holds when it is sent, and so much more.
    Variable(String, u32),
    /// Of a packet that is expected: a pair of this name, whatever its text.
    AnyOf(Vec<u8>),
}

/// A property with its value; a packet has them in the order of the wire.
pub type Entry = (&'static Property, Value);

/// What a case wants of one property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Absent,
    Present,
    From(u32, u32),
    /// These values, in this order.
    Equal(Vec<Value>),
    /// Anything, taken down; a number that is missing has its default.
    Variable(String),
}

const ACKNOWLEDGEMENTS: &[Kind] = &[
    Kind::Connack,
    Kind::Puback,
    Kind::Pubrec,
    Kind::Pubrel,
    Kind::Pubcomp,
    Kind::Suback,
    Kind::Unsuback,
    Kind::Disconnect,
    Kind::Auth,
];

/// Table 2-4, but what only clients send has no packets here.
static PROPERTIES: [Property; 27] = {
    use Type::*;
    const MAX: u32 = u32::MAX;
    const NONE: &[Kind] = &[];
    const PUBLISH: &[Kind] = &[Kind::Publish];
    const CONNACK: &[Kind] = &[Kind::Connack];
    const WITH_AUTH: &[Kind] = &[Kind::Connack, Kind::Auth];
    const WITH_DISCONNECT: &[Kind] = &[Kind::Connack, Kind::Disconnect];
    const WITH_USER_PROPERTIES: &[Kind] = &[
        Kind::Connack,
        Kind::Publish,
        Kind::Puback,
        Kind::Pubrec,
        Kind::Pubrel,
        Kind::Pubcomp,
        Kind::Suback,
        Kind::Unsuback,
        Kind::Disconnect,
        Kind::Auth,
    ];
    [
        once(1, "payload_format_indicator", Byte, (0, 1), PUBLISH),
        once(2, "message_expiry_interval", FourBytes, (0, MAX), PUBLISH),
        once(3, "content_type", Text, (0, MAX), PUBLISH),
        once(8, "response_topic", Text, (0, MAX), PUBLISH),
        once(9, "correlation_data", Binary, (0, MAX), PUBLISH),
        Property {
            repeats: true,
            ..once(11, "subscription_identifier", Variable, (1, MAX), PUBLISH)
        },
        once(17, "session_expiry_interval", FourBytes, (0, MAX), CONNACK),
        once(18, "assigned_client_identifier", Text, (0, MAX), CONNACK),
        once(19, "server_keep_alive", TwoBytes, (0, MAX), CONNACK),
        once(21, "authentication_method", Text, (0, MAX), WITH_AUTH),
        once(22, "authentication_data", Binary, (0, MAX), WITH_AUTH),
        once(23, "request_problem_information", Byte, (0, 1), NONE),
        once(24, "will_delay_interval", FourBytes, (0, MAX), NONE),
        once(25, "request_response_information", Byte, (0, 1), NONE),
        once(26, "response_information", Text, (0, MAX), CONNACK),
        once(28, "server_reference", Text, (0, MAX), WITH_DISCONNECT),
        once(31, "reason_string", Text, (0, MAX), ACKNOWLEDGEMENTS),
        once(33, "receive_maximum", TwoBytes, (1, MAX), CONNACK),
        once(34, "topic_alias_maximum", TwoBytes, (0, MAX), CONNACK),
        once(35, "topic_alias", TwoBytes, (1, MAX), PUBLISH),
        once(36, "maximum_qos", Byte, (0, 1), CONNACK),
        once(37, "retain_available", Byte, (0, 1), CONNACK),
        Property {
            repeats: true,
            ..once(38, "user_property", Pair, (0, MAX), WITH_USER_PROPERTIES)
        },
        once(39, "maximum_packet_size", FourBytes, (1, MAX), CONNACK),
        once(40, "wildcard_subscription_available", Byte, (0, 1), CONNACK),
        once(
            41,
            "subscription_identifier_available",
            Byte,
            (0, 1),
            CONNACK,
        ),
        once(42, "shared_subscription_available", Byte, (0, 1), CONNACK),
    ]
};

const fn once(
    id: u8,
    name: &'static str,
    type_: Type,
    range: (u32, u32),
    sent_in: &'static [Kind],
) -> Property {
    Property {
        id,
        name,
        type_,
        range,
        sent_in,
        repeats: false,
    }
}

impl Property {
    pub fn named(name: &str) -> Option<&'static Property> {
        PROPERTIES.iter().find(|property| property.name == name)
    }

    /// What a number is where the property is missing, so far as cases ask.
    pub fn default_number(&self) -> u32 {
        match self.name {
            "receive_maximum" => 65535,
            _ => 0,
        }
    }
}

/// The number of this name, if it is among the properties.
pub fn number(properties: &[Entry], name: &str) -> Option<u32> {
    match find(properties, name)? {
        Value::Number(number) => Some(*number),
        _ => None,
    }
}

pub fn find<'a>(properties: &'a [Entry], name: &str) -> Option<&'a Value> {
    let (_, value) = properties
        .iter()
        .find(|(property, _)| property.name == name)?;
    Some(value)
}

/// Writes the properties behind their length (2.2.2).
pub fn encode(properties: &[Entry], body: &mut Vec<u8>) {
    let mut bytes = Vec::new();
    for (property, value) in properties {
        put_variable(property.id.into(), &mut bytes);
        match value {
            Value::Number(number) => {
                let number = *number;
                match property.type_ {
                    Type::Byte => bytes.push(number as u8),
                    Type::TwoBytes => bytes.extend((number as u16).to_be_bytes()),
                    Type::FourBytes => bytes.extend(number.to_be_bytes()),
                    _ => put_variable(number, &mut bytes),
                }
            }
            Value::Bytes(text) => put_string(text, &mut bytes),
            Value::Pair(name, text) => {
                put_string(name, &mut bytes);
                put_string(text, &mut bytes);
            }
            Value::Variable(..) | Value::AnyOf(_) => {
                unreachable!("variables have their value before, and only expected pairs any text")
            }
        }
    }
    put_variable(bytes.len() as u32, body);
    body.extend(bytes);
}

/// A variable byte integer (1.5.5).
pub fn put_variable(mut number: u32, bytes: &mut Vec<u8>) {
    loop {
        let more = number >= 128;
        bytes.push((number % 128) as u8 | u8::from(more) << 7);
        number /= 128;
        if !more {
            return;
        }
    }
}

/// Reads the properties of a packet, whoever sent it.
pub fn decode(rest: &mut Cursor<'_>) -> Result<Vec<Entry>, String> {
    let length = rest.variable()? as usize;
    let mut rest = Cursor {
        kind: rest.kind,
        rest: rest.take(length)?,
    };
    let kind = rest.kind;
    let mut properties = Vec::new();
    while !rest.rest.is_empty() {
        let id = rest.variable()?;
        let property = PROPERTIES
            .iter()
            .find(|property| u32::from(property.id) == id)
            .ok_or_else(|| format!("{kind} with the unknown property {id} (2.2.2.2)"))?;
        let value = match property.type_ {
            Type::Byte => Value::Number(rest.byte()?.into()),
            Type::TwoBytes => Value::Number(rest.number()?.into()),
            Type::FourBytes => Value::Number(rest.long()?),
            Type::Variable => Value::Number(rest.variable()?),
            Type::Text => Value::Bytes(rest.text()?.to_vec()),
            Type::Binary => Value::Bytes(rest.string()?.to_vec()),
            Type::Pair => {
                let name = rest.text()?.to_vec();
                Value::Pair(name, rest.text()?.to_vec())
            }
        };
        properties.push((property, value));
    }
    Ok(properties)
}

/// Whether a broker may send these properties in this packet.
pub fn check(kind: Kind, properties: &[Entry]) -> Result<(), String> {
    for (place, (property, value)) in properties.iter().enumerate() {
        let name = property.name;
        if !property.sent_in.contains(&kind) {
            return Err(format!(
                "{kind} with {name}, which does not belong there (2.2.2.2)"
            ));
        }
        let twice = properties[..place]
            .iter()
            .any(|(earlier, _)| earlier == property);
        if twice && !property.repeats {
            return Err(format!("{kind} with {name} twice (2.2.2.2)"));
        }
        if let Value::Number(number) = value
            && !(property.range.0..=property.range.1).contains(number)
        {
            return Err(format!(
                "{kind} with {name} {number}, which is out of range"
            ));
        }
    }
    Ok(())
}

/// How the properties differ from those wanted. If `strict`, what is not named
/// must not be there, but what `may_be_there`.
pub fn difference(
    wanted: &[(&'static Property, Wanted)],
    came: &[Entry],
    strict: bool,
    may_be_there: &[&str],
) -> Option<String> {
    for (property, wanted) in wanted {
        let values: Vec<&Value> = came
            .iter()
            .filter(|(other, _)| other == property)
            .map(|(_, value)| value)
            .collect();
        let good = match wanted {
            Wanted::Absent => values.is_empty(),
            Wanted::Present => !values.is_empty(),
            Wanted::From(least, most) => values.first().is_some_and(
                |value| matches!(value, Value::Number(number) if (least..=most).contains(&number)),
            ),
            Wanted::Equal(wanted) => {
                values.len() == wanted.len()
                    && match property.name {
                        // Their order says nothing (3.3.2.3.8).
                        "subscription_identifier" => wanted.iter().all(|id| values.contains(&id)),
                        _ => values
                            .iter()
                            .zip(wanted)
                            .all(|(came, wanted)| match (came, wanted) {
                                (Value::Pair(name, _), Value::AnyOf(wanted)) => name == wanted,
                                _ => *came == wanted,
                            }),
                    }
            }
            Wanted::Variable(_) => true,
        };
        if !good {
            return Some(format!(
                "the property {} is not as it was to be",
                property.name
            ));
        }
    }
    let named = |name: &str| wanted.iter().any(|(property, _)| property.name == name);
    let other = came
        .iter()
        .map(|(property, _)| property.name)
        .find(|name| !named(name) && !may_be_there.contains(name));
    match other {
        Some(name) if strict => Some(format!("the property {name} was not to come")),
        _ => None,
    }
}

/// Properties on one line, for messages.
pub fn written(properties: &[Entry]) -> String {
    let texts: Vec<String> = properties
        .iter()
        .map(|(property, value)| format!("{}={value}", property.name))
        .collect();
    format!("{{{}}}", texts.join(", "))
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Number(number) => write!(f, "{number}"),
            Value::Bytes(bytes) => f.write_str(&readable(bytes)),
            Value::Pair(name, text) => write!(f, "{}:{}", readable(name), readable(text)),
            Value::Variable(name, plus) => write!(f, "${name}+{plus}"),
            Value::AnyOf(name) => write!(f, "{}:any", readable(name)),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Absent => f.write_str("none"),
            Wanted::Present => f.write_str("any"),
            Wanted::From(least, most) => write!(f, "{least} to {most}"),
            Wanted::Equal(values) => {
                let texts: Vec<String> = values.iter().map(Value::to_string).collect();
                f.write_str(&texts.join(" "))
            }
            Wanted::Variable(name) => write!(f, "${name}"),
        }
    }
}

/// The codes that a broker may send in packets of this kind, in MQTT 5 (2.4).
pub fn codes_of(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::Connack => &[
            0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90,
            0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
        ],
        Kind::Puback | Kind::Pubrec => &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99],
        Kind::Pubrel | Kind::Pubcomp => &[0x00, 0x92],
        Kind::Suback => &[
            0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2,
        ],
        Kind::Unsuback => &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91],
        Kind::Disconnect => &[
            0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94,
            0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
        ],
        Kind::Auth => &[0x00, 0x18],
        _ => &[],
    }
}

/// An error that names the code and the clause.
pub fn check_code(kind: Kind, code: u8) -> Result<(), String> {
    let statement = match kind {
        Kind::Connack => "MQTT-3.2.2-8",
        Kind::Puback => "MQTT-3.4.2-1",
        Kind::Pubrec => "MQTT-3.5.2-1",
        Kind::Pubrel => "MQTT-3.6.2-1",
        Kind::Pubcomp => "MQTT-3.7.2-1",
        Kind::Suback => "MQTT-3.9.3-2",
        Kind::Unsuback => "MQTT-3.11.3-2",
        Kind::Disconnect => "MQTT-3.14.2-1",
        _ => "MQTT-3.15.2-1",
    };
    match codes_of(kind).contains(&code) {
        true => Ok(()),
        false => Err(format!(
            "{kind} with the code {} [{statement}]",
            hex(&[code])
        )),
    }
}
