//! The packets, borrowing their texts and payloads from the bytes read.

use crate::message::{PacketId, Qos};

/// The protocol's version, agreed by CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// Protocol name `MQIsdp`, level 3.
    V3_1,
    /// Protocol name `MQTT`, level 4.
    V3_1_1,
    /// Protocol name `MQTT`, level 5.
    V5,
}

/// One control packet (2.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    Connack(Connack<'a>),
    Publish(Publish<'a>),
    Puback(Ack<'a>),
    Pubrec(Ack<'a>),
    Pubrel(Ack<'a>),
    Pubcomp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    Suback(Suback<'a>),
    Unsubscribe(Unsubscribe<'a>),
    Unsuback(Unsuback<'a>),
    Pingreq,
    Pingresp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

impl Packet<'_> {
    pub fn packet_type(&self) -> PacketType {
        match self {
            Packet::Connect(_) => PacketType::Connect,
            Packet::Connack(_) => PacketType::Connack,
            Packet::Publish(_) => PacketType::Publish,
            Packet::Puback(_) => PacketType::Puback,
            Packet::Pubrec(_) => PacketType::Pubrec,
            Packet::Pubrel(_) => PacketType::Pubrel,
            Packet::Pubcomp(_) => PacketType::Pubcomp,
            Packet::Subscribe(_) => PacketType::Subscribe,
            Packet::Suback(_) => PacketType::Suback,
            Packet::Unsubscribe(_) => PacketType::Unsubscribe,
            Packet::Unsuback(_) => PacketType::Unsuback,
            Packet::Pingreq => PacketType::Pingreq,
            Packet::Pingresp => PacketType::Pingresp,
            Packet::Disconnect(_) => PacketType::Disconnect,
            Packet::Auth(_) => PacketType::Auth,
        }
    }
}

/// The type of a control packet (2.1.2), and what else has properties and
/// reason codes of its own: the will, in the place of the reserved type 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// Not a packet: the will within a CONNECT.
    Will = 0,
    Connect = 1,
    Connack = 2,
    Publish = 3,
    Puback = 4,
    Pubrec = 5,
    Pubrel = 6,
    Pubcomp = 7,
    Subscribe = 8,
    Suback = 9,
    Unsubscribe = 10,
    Unsuback = 11,
    Pingreq = 12,
    Pingresp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    /// The type that the upper four bits of a first byte say; [`Will`] is the
    /// reserved one.
    ///
    /// [`Will`]: PacketType::Will
    pub(super) const fn from_bits(bits: u8) -> PacketType {
        match bits {
            1 => PacketType::Connect,
            2 => PacketType::Connack,
            3 => PacketType::Publish,
            4 => PacketType::Puback,
            5 => PacketType::Pubrec,
            6 => PacketType::Pubrel,
            7 => PacketType::Pubcomp,
            8 => PacketType::Subscribe,
            9 => PacketType::Suback,
            10 => PacketType::Unsubscribe,
            11 => PacketType::Unsuback,
            12 => PacketType::Pingreq,
            13 => PacketType::Pingresp,
            14 => PacketType::Disconnect,
            15 => PacketType::Auth,
            _ => PacketType::Will,
        }
    }

    /// Itself, as the one member of a set.
    pub(super) const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// The properties of a packet (MQTT 5, 2.2.2), as they stand on the wire
/// without their length, and already found valid for the packet they are in.
/// Empty in 3.1 and 3.1.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Properties<'a> {
    pub(super) bytes: &'a [u8],
}

impl<'a> Properties<'a> {
    pub const EMPTY: Properties<'static> = Properties { bytes: &[] };

    /// Of `bytes` that [`Properties::parse`] found valid, or that were encoded
    /// here: what comes after anything else is not read.
    pub fn of_valid(bytes: &'a [u8]) -> Properties<'a> {
        Properties { bytes }
    }

    pub fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// As on the wire, without the length.
    pub fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }
}

/// Why, in MQTT 5's numbers (2.4); 3.1.1 knows some of them as CONNACK return
/// codes and SUBACK 0x80, which the codec maps through one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ReasonCode {
    /// Also normal disconnection, and granted QoS 0.
    Success = 0x00,
    GrantedQos1 = 0x01,
    GrantedQos2 = 0x02,
    DisconnectWithWill = 0x04,
    NoMatchingSubscribers = 0x10,
    NoSubscriptionExisted = 0x11,
    ContinueAuthentication = 0x18,
    ReAuthenticate = 0x19,
    UnspecifiedError = 0x80,
    MalformedPacket = 0x81,
    ProtocolError = 0x82,
    ImplementationSpecificError = 0x83,
    UnsupportedProtocolVersion = 0x84,
    ClientIdentifierNotValid = 0x85,
    BadUserNameOrPassword = 0x86,
    NotAuthorized = 0x87,
    ServerUnavailable = 0x88,
    ServerBusy = 0x89,
    Banned = 0x8A,
    ServerShuttingDown = 0x8B,
    BadAuthenticationMethod = 0x8C,
    KeepAliveTimeout = 0x8D,
    SessionTakenOver = 0x8E,
    TopicFilterInvalid = 0x8F,
    TopicNameInvalid = 0x90,
    PacketIdentifierInUse = 0x91,
    PacketIdentifierNotFound = 0x92,
    ReceiveMaximumExceeded = 0x93,
    TopicAliasInvalid = 0x94,
    PacketTooLarge = 0x95,
    MessageRateTooHigh = 0x96,
    QuotaExceeded = 0x97,
    AdministrativeAction = 0x98,
    PayloadFormatInvalid = 0x99,
    RetainNotSupported = 0x9A,
    QosNotSupported = 0x9B,
    UseAnotherServer = 0x9C,
    ServerMoved = 0x9D,
    SharedSubscriptionsNotSupported = 0x9E,
    ConnectionRateExceeded = 0x9F,
    MaximumConnectTime = 0xA0,
    SubscriptionIdentifiersNotSupported = 0xA1,
    WildcardSubscriptionsNotSupported = 0xA2,
}

impl ReasonCode {
    /// 0x80 and above are failures (2.4).
    pub fn is_failure(self) -> bool {
        self as u8 >= 0x80
    }

    /// The SUBACK code that grants `qos`.
    pub fn granted(qos: Qos) -> ReasonCode {
        match qos {
            Qos::AtMostOnce => ReasonCode::Success,
            Qos::AtLeastOnce => ReasonCode::GrantedQos1,
            Qos::ExactlyOnce => ReasonCode::GrantedQos2,
        }
    }
}

/// CONNECT (3.1). Clean Session of 3.1.1 is `clean_start` here; that the
/// session then also ends with the connection is agreed by `session`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    pub version: Version,
    pub clean_start: bool,
    /// Seconds; 0: none (3.1.2.10).
    pub keep_alive_secs: u16,
    pub properties: Properties<'a>,
    /// Empty: the server is to make one up.
    pub client_id: &'a str,
    pub will: Option<Will<'a>>,
    pub user_name: Option<&'a str>,
    pub password: Option<&'a [u8]>,
}

/// The will in a CONNECT (3.1.2.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: Qos,
    pub retain: bool,
    pub properties: Properties<'a>,
}

/// CONNACK (3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connack<'a> {
    pub session_present: bool,
    pub reason: ReasonCode,
    pub properties: Properties<'a>,
}

/// PUBLISH (3.3). `packet_id` is there exactly if `qos` is not 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    pub dup: bool,
    pub qos: Qos,
    pub retain: bool,
    /// Text without control characters, not yet checked as a topic name; empty
    /// in MQTT 5 only with a topic alias.
    pub topic: &'a str,
    pub packet_id: Option<PacketId>,
    pub properties: Properties<'a>,
    pub payload: &'a [u8],
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP (3.4 to 3.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    pub packet_id: PacketId,
    pub reason: ReasonCode,
    pub properties: Properties<'a>,
}

impl Ack<'static> {
    pub fn new(packet_id: PacketId) -> Ack<'static> {
        Ack {
            packet_id,
            reason: ReasonCode::Success,
            properties: Properties::EMPTY,
        }
    }
}

/// SUBSCRIBE (3.8); at least one filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    pub packet_id: PacketId,
    pub properties: Properties<'a>,
    pub filters: Vec<(&'a str, SubscribeOptions)>,
}

/// What a SUBSCRIBE says of one filter (MQTT 5, 3.8.3.1); in 3.1.1 the QoS
/// alone, the rest as here by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeOptions {
    pub qos: Qos,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: RetainHandling,
}

impl SubscribeOptions {
    pub const fn new(qos: Qos) -> SubscribeOptions {
        SubscribeOptions {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        }
    }
}

/// Whether retained messages are sent on subscribing (MQTT 5, 3.8.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainHandling {
    Send = 0,
    SendIfNew = 1,
    DoNotSend = 2,
}

/// SUBACK (3.9): a code for each filter, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suback<'a> {
    pub packet_id: PacketId,
    pub properties: Properties<'a>,
    pub reasons: Vec<ReasonCode>,
}

/// UNSUBSCRIBE (3.10); at least one filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    pub packet_id: PacketId,
    pub properties: Properties<'a>,
    pub filters: Vec<&'a str>,
}

/// UNSUBACK (3.11); `reasons` is empty before MQTT 5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsuback<'a> {
    pub packet_id: PacketId,
    pub properties: Properties<'a>,
    pub reasons: Vec<ReasonCode>,
}

/// DISCONNECT (3.14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    pub reason: ReasonCode,
    pub properties: Properties<'a>,
}

/// AUTH (MQTT 5, 3.15).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    pub reason: ReasonCode,
    pub properties: Properties<'a>,
}
