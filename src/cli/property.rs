//! `-D COMMAND PROPERTY VALUE`: properties of MQTT 5 from the command line,
//! named as mosquitto's clients name them.
//!
//! Owns which property may be given to which packet, and how its value is
//! read: one table. Sends nothing.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::num::{NonZeroU16, NonZeroU32};
use std::str::FromStr;

use clap::{Arg, ArgAction, ArgMatches, Command, Error, FromArgMatches};

use super::Failure;
use crate::protocol::{PacketType, Properties, PropertiesBuf, Property, SubscriptionId};
use crate::topic::{TopicLimits, TopicName};

/// The texts and binary data of a packet have at most so many bytes (1.5.4).
pub const FIELD_BYTES_MAX: usize = 65_535;

/// A row of the table: a property that may be given.
struct Row {
    name: &'static str,
    read: Read,
    /// The packets, or the will, that it may be given to.
    packets: &'static [PacketType],
}

/// How a value is read.
enum Read {
    One(for<'a> fn(&'a str) -> Result<Property<'a>, String>),
    /// A name and a value: the user property, the only one that repeats.
    Pair,
}

use PacketType::{
    Connect, Disconnect, Puback, Pubcomp, Publish, Pubrec, Pubrel, Subscribe, Unsubscribe, Will,
};
use Read::{One, Pair};

/// All that a client may send (2.2.2.2), by name. What only enhanced
/// authentication sends in its AUTH is not among it.
#[rustfmt::skip]
const TABLE: [Row; 18] = [
    Row::new("authentication-data", One(|text| binary(text).map(Property::AuthenticationData)), &[Connect]),
    Row::new("authentication-method", One(|text| string(text).map(Property::AuthenticationMethod)), &[Connect]),
    Row::new("content-type", One(|text| string(text).map(Property::ContentType)), &[Publish, Will]),
    Row::new("correlation-data", One(|text| binary(text).map(Property::CorrelationData)), &[Publish, Will]),
    Row::new("maximum-packet-size", One(|text| whole(text, NonZeroU32::MIN, NonZeroU32::MAX).map(Property::MaximumPacketSize)), &[Connect]),
    Row::new("message-expiry-interval", One(|text| whole(text, 0, u32::MAX).map(Property::MessageExpiryInterval)), &[Publish, Will]),
    Row::new("payload-format-indicator", One(|text| bit(text).map(Property::PayloadFormatIndicator)), &[Publish, Will]),
    Row::new("reason-string", One(|text| string(text).map(Property::ReasonString)), &[Puback, Pubrec, Pubrel, Pubcomp, Disconnect]),
    Row::new("receive-maximum", One(|text| whole(text, NonZeroU16::MIN, NonZeroU16::MAX).map(Property::ReceiveMaximum)), &[Connect]),
    Row::new("request-problem-information", One(|text| bit(text).map(Property::RequestProblemInformation)), &[Connect]),
    Row::new("request-response-information", One(|text| bit(text).map(Property::RequestResponseInformation)), &[Connect]),
    Row::new("response-topic", One(topic), &[Publish, Will]),
    Row::new("session-expiry-interval", One(|text| expiry_secs(text).map(Property::SessionExpiryInterval)), &[Connect, Disconnect]),
    Row::new("subscription-identifier", One(subscription_id), &[Subscribe]),
    Row::new("topic-alias", One(|text| whole(text, NonZeroU16::MIN, NonZeroU16::MAX).map(Property::TopicAlias)), &[Publish]),
    Row::new("topic-alias-maximum", One(|text| whole(text, 0, u16::MAX).map(Property::TopicAliasMaximum)), &[Connect]),
    Row::new("user-property", Pair, &[Connect, Will, Publish, Puback, Pubrec, Pubrel, Pubcomp, Subscribe, Unsubscribe, Disconnect]),
    Row::new("will-delay-interval", One(|text| whole(text, 0, u32::MAX).map(Property::WillDelayInterval)), &[Will]),
];

impl Row {
    const fn new(name: &'static str, read: Read, packets: &'static [PacketType]) -> Row {
        Row {
            name,
            read,
            packets,
        }
    }
}

/// The words that followed each `-D`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertyArguments {
    given: Vec<Vec<String>>,
}

const ID: &str = "property";

// By hand: what is derived does not keep apart which words followed which -D.
impl clap::Args for PropertyArguments {
    fn augment_args(command: Command) -> Command {
        let option = Arg::new(ID)
            .short('D')
            .long(ID)
            .value_names(["COMMAND", "PROPERTY", "VALUE"])
            .num_args(3..=4)
            .action(ArgAction::Append)
            .allow_negative_numbers(true)
            .help("Give a packet a property of MQTT 5, repeatable; see below");
        command.arg(option)
    }

    fn augment_args_for_update(command: Command) -> Command {
        PropertyArguments::augment_args(command)
    }
}

impl FromArgMatches for PropertyArguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<PropertyArguments, Error> {
        let given = matches.get_occurrences(ID).into_iter().flatten();
        let given = given.map(|words| words.cloned().collect()).collect();
        Ok(PropertyArguments { given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = PropertyArguments::from_arg_matches(matches)?;
        Ok(())
    }
}

impl PropertyArguments {
    pub fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// What is given to `packets`, those that the command at hand sends.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the first wrong one, and what
    /// may stand there.
    pub fn read(&self, packets: &[PacketType]) -> Result<GivenProperties, Failure> {
        let mut properties = GivenProperties::default();
        for words in &self.given {
            let read = properties.read(words, packets);
            read.map_err(|text| Failure::new(format!("-D {}: {text}", words.join(" "))))?;
        }
        Ok(properties)
    }
}

/// The properties that each packet, and the will, is sent with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GivenProperties {
    of: BTreeMap<PacketType, PropertiesBuf>,
}

impl GivenProperties {
    pub fn of(&self, packet: PacketType) -> Properties<'_> {
        match self.of.get(&packet) {
            Some(properties) => properties.as_properties(),
            None => Properties::EMPTY,
        }
    }

    /// Seconds; 0 if none are given (3.1.2.11.2).
    pub fn session_expiry_secs(&self, packet: PacketType) -> u32 {
        let found = self.of(packet).iter().find_map(|property| match property {
            Property::SessionExpiryInterval(secs) => Some(secs),
            _ => None,
        });
        found.unwrap_or(0)
    }

    /// Adds a property.
    ///
    /// # Errors
    /// The packet has it already, and may not have it twice.
    pub fn push(&mut self, packet: PacketType, property: Property<'_>) -> Result<(), String> {
        let repeats = matches!(property, Property::UserProperty(_));
        let is_there = self.of(packet).iter().any(|one| one.id() == property.id());
        if is_there && !repeats {
            return Err("it is given twice".to_owned());
        }
        self.of.entry(packet).or_default().push(property);
        Ok(())
    }

    /// Adds what a `-D` says.
    fn read(&mut self, words: &[String], packets: &[PacketType]) -> Result<(), String> {
        let [command, name, values @ ..] = words else {
            return Err("it takes a command, a property and its value".to_owned());
        };
        let packet = packets
            .iter()
            .find(|packet| command_of(**packet).eq_ignore_ascii_case(command))
            .ok_or_else(|| {
                let commands: Vec<_> = packets.iter().copied().map(command_of).collect();
                format!("the command is one of {}", commands.join(", "))
            })?;
        let row = TABLE
            .iter()
            .find(|row| row.name.eq_ignore_ascii_case(name) && row.packets.contains(packet))
            .ok_or_else(|| {
                let names = names_of(*packet).join(", ");
                format!("the properties of {} are {names}", command_of(*packet))
            })?;
        let property = match (&row.read, values) {
            (One(read), [value]) => read(value)?,
            (Pair, [name, value]) => Property::UserProperty((string(name)?, string(value)?)),
            (One(_), _) => return Err("it takes one value".to_owned()),
            (Pair, _) => return Err("it takes a name and a value".to_owned()),
        };
        self.push(*packet, property)
    }
}

/// The part of a command's help that says what `-D` takes.
pub fn help(packets: &[PacketType]) -> String {
    let mut text = "\
Properties (-D): a command, a property and its value; user-property, which may
be given more than once, takes a name and a value. A value that begins with a
hyphen has to be a number.
"
    .to_owned();
    for packet in packets {
        let names = names_of(*packet).join(" ");
        text += &format!("  {}: {names}\n", command_of(*packet));
    }
    text
}

/// What a packet is called after `-D`.
fn command_of(packet: PacketType) -> String {
    format!("{packet:?}").to_lowercase()
}

fn names_of(packet: PacketType) -> Vec<&'static str> {
    let rows = TABLE.iter().filter(|row| row.packets.contains(&packet));
    rows.map(|row| row.name).collect()
}

/// Seconds of a session's expiry, as mosquitto's clients take them: `-1` and
/// `∞` are never, which is 4294967295 (3.1.2.11.2).
pub fn expiry_secs(text: &str) -> Result<u32, String> {
    match text {
        "-1" | "∞" => Ok(u32::MAX),
        _ => whole(text, 0, u32::MAX).map_err(|text| format!("{text}, or ∞ for never")),
    }
}

fn whole<T: FromStr + Display>(text: &str, min: T, max: T) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("it is a whole number from {min} to {max}"))
}

fn bit(text: &str) -> Result<bool, String> {
    match text {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err("it is 0 or 1".to_owned()),
    }
}

fn binary(text: &str) -> Result<&[u8], String> {
    if text.len() > FIELD_BYTES_MAX {
        return Err(format!("it is longer than {FIELD_BYTES_MAX} bytes"));
    }
    Ok(text.as_bytes())
}

fn string(text: &str) -> Result<&str, String> {
    if text.chars().any(char::is_control) {
        return Err("it has a control character".to_owned()); // 1.5.4
    }
    binary(text).map(|_| text)
}

fn topic(text: &str) -> Result<Property<'_>, String> {
    let topic = TopicName::parse(text, TopicLimits::NONE);
    topic
        .map(Property::ResponseTopic) // [MQTT-3.3.2-14]
        .map_err(|error| error.to_string())
}

fn subscription_id(text: &str) -> Result<Property<'_>, String> {
    let id = whole(text, 1, SubscriptionId::MAX).ok();
    id.and_then(SubscriptionId::new)
        .map(Property::SubscriptionIdentifier)
        .ok_or_else(|| format!("it is a whole number from 1 to {}", SubscriptionId::MAX))
}
