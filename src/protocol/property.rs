//! The properties of MQTT 5 (2.2.2): one table says what each is called, what
//! it holds and where it may stand; reading, checking and writing follow it.

use std::num::{NonZeroU16, NonZeroU32};

use crate::message::{Qos, SubscriptionId};
use crate::topic::{TopicLimits, TopicName};

use super::cursor::Cursor;
use super::decode::DecodeError;
use super::encode::{put_binary, put_varint};
use super::packet::{PacketType, Properties};

impl<'a> Properties<'a> {
    /// Finds `bytes`, the encoded properties without their length, valid for
    /// a packet of that type, or says what is wrong.
    pub fn parse(bytes: &'a [u8], packet: PacketType) -> Result<Properties<'a>, DecodeError> {
        check(bytes, packet)?;
        Ok(Properties { bytes })
    }

    /// The properties in the order of the wire, which the receiver keeps for
    /// user properties [MQTT-3.3.2-18].
    pub fn iter(self) -> impl Iterator<Item = Property<'a>> {
        let mut rest = Cursor::new(self.bytes);
        std::iter::from_fn(move || {
            // All of them have been read once, when they were found valid.
            let id = rest.u8().ok()?;
            Property::read(id, &mut rest).ok()
        })
    }
}

/// Encoded properties that are being put together.
///
/// Whoever pushes sees to it that a property may stand in the packet, and as
/// often: the receiver closes on one that does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertiesBuf {
    bytes: Vec<u8>,
}

impl PropertiesBuf {
    pub const fn new() -> PropertiesBuf {
        PropertiesBuf { bytes: Vec::new() }
    }

    pub fn push(&mut self, property: Property<'_>) -> &mut PropertiesBuf {
        property.encode(&mut self.bytes);
        self
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn as_properties(&self) -> Properties<'_> {
        Properties { bytes: &self.bytes }
    }
}

/// A Message Expiry Interval, encoded (3.3.2.3.3).
pub fn encode_message_expiry(secs: u32) -> [u8; 5] {
    let [a, b, c, d] = secs.to_be_bytes();
    [Property::MessageExpiryInterval(secs).id(), a, b, c, d]
}

impl Property<'_> {
    /// Its name, as in `content-type`.
    pub fn name(self) -> String {
        let debug = format!("{self:?}");
        super::word(debug.split('(').next().unwrap_or_default())
    }
}

/// Makes of the table the enum, the reading, the writing, and where each
/// property may stand.
macro_rules! properties {
    ($($id:literal $name:ident($value:ty) in [$($packet:ident)+], many in [$($many:ident)*];)+) => {
        /// One property. What values it may have is in its type.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Property<'a> {
            $($name($value),)+
        }

        impl<'a> Property<'a> {
            /// Its identifier (2.2.2.2).
            pub const fn id(self) -> u8 {
                match self {
                    $(Property::$name(_) => $id,)+
                }
            }

            fn read(id: u8, from: &mut Cursor<'a>) -> Result<Property<'a>, DecodeError> {
                Ok(match id {
                    $($id => Property::$name(Value::read(from)?),)+
                    _ => return Err(unknown()),
                })
            }

            /// Appends it, identifier first.
            pub fn encode(self, out: &mut Vec<u8>) {
                out.push(self.id());
                match self {
                    $(Property::$name(value) => value.write(out),)+
                }
            }
        }

        /// The packets that the property may be in, and those that it may be
        /// in more than once, as sets of [`PacketType::bit`].
        fn places(id: u8) -> Result<(u16, u16), DecodeError> {
            Ok(match id {
                $($id => (
                    0 $(| PacketType::$packet.bit())+,
                    0 $(| PacketType::$many.bit())*,
                ),)+
                _ => return Err(unknown()),
            })
        }
    };
}

properties! {
    0x01 PayloadFormatIndicator(bool) in [Publish Will], many in [];
    0x02 MessageExpiryInterval(u32) in [Publish Will], many in [];
    0x03 ContentType(&'a str) in [Publish Will], many in [];
    0x08 ResponseTopic(TopicName<'a>) in [Publish Will], many in [];
    0x09 CorrelationData(&'a [u8]) in [Publish Will], many in [];
    0x0B SubscriptionIdentifier(SubscriptionId) in [Publish Subscribe], many in [Publish];
    0x11 SessionExpiryInterval(u32) in [Connect Connack Disconnect], many in [];
    0x12 AssignedClientIdentifier(&'a str) in [Connack], many in [];
    0x13 ServerKeepAlive(u16) in [Connack], many in [];
    0x15 AuthenticationMethod(&'a str) in [Connect Connack Auth], many in [];
    0x16 AuthenticationData(&'a [u8]) in [Connect Connack Auth], many in [];
    0x17 RequestProblemInformation(bool) in [Connect], many in [];
    0x18 WillDelayInterval(u32) in [Will], many in [];
    0x19 RequestResponseInformation(bool) in [Connect], many in [];
    0x1A ResponseInformation(&'a str) in [Connack], many in [];
    0x1C ServerReference(&'a str) in [Connack Disconnect], many in [];
    0x1F ReasonString(&'a str)
        in [Connack Puback Pubrec Pubrel Pubcomp Suback Unsuback Disconnect Auth], many in [];
    0x21 ReceiveMaximum(NonZeroU16) in [Connect Connack], many in [];
    0x22 TopicAliasMaximum(u16) in [Connect Connack], many in [];
    0x23 TopicAlias(NonZeroU16) in [Publish], many in [];
    0x24 MaximumQos(Qos) in [Connack], many in [];
    0x25 RetainAvailable(bool) in [Connack], many in [];
    0x26 UserProperty((&'a str, &'a str))
        in [Connect Will Connack Publish Puback Pubrec Pubrel Pubcomp Subscribe Suback
            Unsubscribe Unsuback Disconnect Auth],
        many in [Connect Will Connack Publish Puback Pubrec Pubrel Pubcomp Subscribe Suback
            Unsubscribe Unsuback Disconnect Auth];
    0x27 MaximumPacketSize(NonZeroU32) in [Connect Connack], many in [];
    0x28 WildcardSubscriptionAvailable(bool) in [Connack], many in [];
    0x29 SubscriptionIdentifiersAvailable(bool) in [Connack], many in [];
    0x2A SharedSubscriptionAvailable(bool) in [Connack], many in [];
}

/// The identifiers that [`check`] met; all of them are below 64.
#[derive(Clone, Copy, Default)]
pub(super) struct Seen(u64);

impl Seen {
    pub fn topic_alias(self) -> bool {
        self.0 & 1 << 0x23 != 0
    }

    pub fn authentication_method(self) -> bool {
        self.0 & 1 << 0x15 != 0
    }

    fn authentication_data(self) -> bool {
        self.0 & 1 << 0x16 != 0
    }
}

/// Whether these properties may stand in a packet of that type, each with a
/// value that it may have, once unless it may repeat.
pub(super) fn check(bytes: &[u8], packet: PacketType) -> Result<Seen, DecodeError> {
    let mut seen = Seen::default();
    let mut rest = Cursor::new(bytes);
    while !rest.is_empty() {
        let id = rest.u8()?;
        let (once, many) = places(id)?;
        if once & packet.bit() == 0 {
            return Err(DecodeError::malformed(
                "a property stands in a packet that may not have it", // 2.2.2.2
            ));
        }
        if seen.0 & 1 << id != 0 && many & packet.bit() == 0 {
            return Err(DecodeError::protocol("a property stands there twice"));
        }
        seen.0 |= 1 << id;
        Property::read(id, &mut rest)?;
    }
    if seen.authentication_data() && !seen.authentication_method() {
        return Err(DecodeError::protocol(
            "authentication data comes without an authentication method",
        ));
    }
    Ok(seen)
}

#[cold]
fn unknown() -> DecodeError {
    DecodeError::malformed("a property has an identifier that does not exist")
}

/// What a property holds: its form on the wire and its bounds.
trait Value<'a>: Sized {
    fn read(from: &mut Cursor<'a>) -> Result<Self, DecodeError>;
    fn write(self, out: &mut Vec<u8>);
}

impl Value<'_> for bool {
    fn read(from: &mut Cursor<'_>) -> Result<bool, DecodeError> {
        match from.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::protocol(
                "a property that is 0 or 1 has another value",
            )),
        }
    }

    fn write(self, out: &mut Vec<u8>) {
        out.push(self.into());
    }
}

/// Maximum QoS: 2 is said by leaving the property out (3.2.2.3.4).
impl Value<'_> for Qos {
    fn read(from: &mut Cursor<'_>) -> Result<Qos, DecodeError> {
        bool::read(from).map(|one| {
            if one {
                Qos::AtLeastOnce
            } else {
                Qos::AtMostOnce
            }
        })
    }

    fn write(self, out: &mut Vec<u8>) {
        out.push(self as u8);
    }
}

impl Value<'_> for u16 {
    fn read(from: &mut Cursor<'_>) -> Result<u16, DecodeError> {
        from.u16()
    }

    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
}

impl Value<'_> for NonZeroU16 {
    fn read(from: &mut Cursor<'_>) -> Result<NonZeroU16, DecodeError> {
        NonZeroU16::new(from.u16()?).ok_or_else(zero)
    }

    fn write(self, out: &mut Vec<u8>) {
        self.get().write(out);
    }
}

impl Value<'_> for u32 {
    fn read(from: &mut Cursor<'_>) -> Result<u32, DecodeError> {
        from.u32()
    }

    fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
}

impl Value<'_> for NonZeroU32 {
    fn read(from: &mut Cursor<'_>) -> Result<NonZeroU32, DecodeError> {
        NonZeroU32::new(from.u32()?).ok_or_else(zero)
    }

    fn write(self, out: &mut Vec<u8>) {
        self.get().write(out);
    }
}

impl Value<'_> for SubscriptionId {
    fn read(from: &mut Cursor<'_>) -> Result<SubscriptionId, DecodeError> {
        SubscriptionId::new(from.varint()?).ok_or_else(zero)
    }

    fn write(self, out: &mut Vec<u8>) {
        put_varint(self.get() as usize, out);
    }
}

impl<'a> Value<'a> for &'a str {
    fn read(from: &mut Cursor<'a>) -> Result<&'a str, DecodeError> {
        from.text()
    }

    fn write(self, out: &mut Vec<u8>) {
        put_binary(self.as_bytes(), out);
    }
}

/// A topic name, without wildcards [MQTT-3.3.2-14].
impl<'a> Value<'a> for TopicName<'a> {
    fn read(from: &mut Cursor<'a>) -> Result<TopicName<'a>, DecodeError> {
        TopicName::parse(from.text()?, TopicLimits::NONE)
            .map_err(|_| DecodeError::protocol("the response topic is not a topic name"))
    }

    fn write(self, out: &mut Vec<u8>) {
        self.as_str().write(out);
    }
}

impl<'a> Value<'a> for &'a [u8] {
    fn read(from: &mut Cursor<'a>) -> Result<&'a [u8], DecodeError> {
        from.binary()
    }

    fn write(self, out: &mut Vec<u8>) {
        put_binary(self, out);
    }
}

impl<'a> Value<'a> for (&'a str, &'a str) {
    fn read(from: &mut Cursor<'a>) -> Result<(&'a str, &'a str), DecodeError> {
        Ok((from.text()?, from.text()?))
    }

    fn write(self, out: &mut Vec<u8>) {
        self.0.write(out);
        self.1.write(out);
    }
}

#[cold]
fn zero() -> DecodeError {
    DecodeError::protocol("a property that is at least 1 is 0")
}
