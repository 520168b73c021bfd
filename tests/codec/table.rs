//! The byte table: what is on the wire, and which packet or refusal it is.

use rotamq::message::{PacketId, Qos};
use rotamq::protocol::*;
use rotamq::topic::{TopicLimits, TopicName};

use super::leak;
pub use crate::bytes::{ALL, BEFORE_5, ONLY_3_1, ONLY_3_1_1, ONLY_5, SINCE_3_1_1, wire};

/// One kind of case. Where the versions differ only in what [`wire`] knows,
/// one row stands for all of them.
pub struct Row {
    pub name: &'static str,
    pub versions: &'static [Version],
    pub wire: &'static str,
    pub expect: Expect,
}

#[derive(Clone, Copy)]
pub enum Expect {
    /// Decoding gives the packet, encoding gives the bytes back.
    Is(fn(Version) -> Packet<'static>),
    /// Decoding gives the packet, which encoding writes in another way.
    Reads(fn(Version) -> Packet<'static>),
    /// Refused once that many bytes are there, with a reason and with these
    /// words among what the error says.
    Refused(Seen, ReasonCode, &'static str),
}

/// How much has to be there for a refusal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Bytes(usize),
    Whole,
}

pub fn id(id: u16) -> PacketId {
    PacketId::new(id).expect("a row has packet identifiers above 0")
}

fn with(properties: &[Property<'_>]) -> Properties<'static> {
    let mut buf = PropertiesBuf::new();
    for &property in properties {
        buf.push(property);
    }
    leak(buf).as_properties()
}

fn connect(version: Version) -> Connect<'static> {
    Connect {
        version,
        clean_start: true,
        keep_alive_secs: 60,
        properties: Properties::EMPTY,
        client_id: "c1",
        will: None,
        user_name: None,
        password: None,
    }
}

fn will() -> Will<'static> {
    Will {
        topic: "w",
        payload: b"gone",
        qos: Qos::AtMostOnce,
        retain: false,
        properties: Properties::EMPTY,
    }
}

fn connack(reason: ReasonCode) -> Packet<'static> {
    Packet::Connack(Connack {
        session_present: false,
        reason,
        properties: Properties::EMPTY,
    })
}

fn publish() -> Publish<'static> {
    Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic: "a/b",
        packet_id: None,
        properties: Properties::EMPTY,
        payload: b"hi",
    }
}

fn ack(reason: ReasonCode, properties: &[Property<'_>]) -> Ack<'static> {
    Ack {
        packet_id: id(0x1234),
        reason,
        properties: with(properties),
    }
}

fn subscribe(filters: &[(&'static str, SubscribeOptions)]) -> Packet<'static> {
    Packet::Subscribe(Subscribe {
        packet_id: id(10),
        properties: Properties::EMPTY,
        filters: filters.to_vec(),
    })
}

fn suback(reasons: &[ReasonCode]) -> Packet<'static> {
    Packet::Suback(Suback {
        packet_id: id(10),
        properties: Properties::EMPTY,
        reasons: reasons.to_vec(),
    })
}

fn disconnect(reason: ReasonCode, properties: &[Property<'_>]) -> Packet<'static> {
    Packet::Disconnect(Disconnect {
        reason,
        properties: with(properties),
    })
}

#[rustfmt::skip]
pub fn rows() -> Vec<Row> {
    use Expect::*;
    use ReasonCode::*;
    use Seen::*;
    let row = |name, versions, wire, expect| Row { name, versions, wire, expect };
    vec![
        // Fixed header.
        row("type 0", ALL, "00 00", Refused(Bytes(1), MalformedPacket, "type is reserved")),
        row("type 0 with a body that never comes", ALL, "0F FF FF FF 7F", Refused(Bytes(1), MalformedPacket, "type is reserved")),
        row("type 15 before MQTT 5", BEFORE_5, "F0 00", Refused(Bytes(1), MalformedPacket, "type is reserved")),
        row("type 15 with flags", ONLY_5, "F1 00", Refused(Bytes(1), MalformedPacket, "flags")),
        row("flags of CONNECT", ALL, "11 # N 02 003C P 0002 'c1'", Refused(Bytes(1), MalformedPacket, "flags")),
        row("flags of PUBACK", ALL, "42 02 12 34", Refused(Bytes(1), MalformedPacket, "flags")),
        row("flags of PUBREL missing", ALL, "60 02 12 34", Refused(Bytes(1), MalformedPacket, "flags")),
        row("flags of PUBREL wrong", ALL, "63 02 12 34", Refused(Bytes(1), MalformedPacket, "flags")),
        row("flags of SUBSCRIBE missing", ALL, "80 # 000A P 0001 'a' 00", Refused(Bytes(1), MalformedPacket, "flags")),
        row("flags of UNSUBSCRIBE missing", ALL, "A0 # 000A P 0001 'a'", Refused(Bytes(1), MalformedPacket, "flags")),
        row("flags of PINGREQ", ALL, "C8 00", Refused(Bytes(1), MalformedPacket, "flags")),
        row("flags of DISCONNECT", ALL, "E1 00", Refused(Bytes(1), MalformedPacket, "flags")),
        row("DUP on PUBREL", SINCE_3_1_1, "6A 02 12 34", Refused(Bytes(1), MalformedPacket, "flags")),
        row("DUP on SUBSCRIBE", SINCE_3_1_1, "8A # 000A P 0001 'a' 00", Refused(Bytes(1), MalformedPacket, "flags")),
        row("DUP on PUBREL in 3.1", ONLY_3_1, "6A 02 12 34", Reads(|_| Packet::Pubrel(Ack::new(id(0x1234))))),
        row("DUP on SUBSCRIBE in 3.1", ONLY_3_1, "8A # 000A 0001 'a' 00", Reads(|_| subscribe(&[("a", SubscribeOptions::new(Qos::AtMostOnce))]))),
        row("DUP on UNSUBSCRIBE in 3.1", ONLY_3_1, "AA # 000A 0001 'a'", Reads(|_| Packet::Unsubscribe(Unsubscribe { packet_id: id(10), properties: Properties::EMPTY, filters: vec!["a"] }))),
        row("remaining length of five bytes", ALL, "30 80 80 80 80 01 'xxxx'", Refused(Bytes(5), MalformedPacket, "fourth byte")),
        row("remaining length that never ends", ALL, "30 FF FF FF FF FF FF FF", Refused(Bytes(5), MalformedPacket, "fourth byte")),
        row("remaining length longer than needed, MQTT 5", ONLY_5, "30 88 00 0003 'a/b' 00 'hi'", Refused(Bytes(3), MalformedPacket, "longer than it needs")),
        row("remaining length of 0 in four bytes, MQTT 5", ONLY_5, "C0 80 80 80 00", Refused(Bytes(5), MalformedPacket, "longer than it needs")),
        row("remaining length longer than needed, before", BEFORE_5, "30 87 80 00 0003 'a/b' 'hi'", Reads(|_| Packet::Publish(publish()))),
        row("larger than any limit", ALL, "30 FF FF FF 7F", Refused(Bytes(5), PacketTooLarge, "packet_bytes_max")),

        // CONNECT.
        row("CONNECT", ALL, "10 # N 02 003C P 0002 'c1'", Is(|version| Packet::Connect(connect(version)))),
        row("CONNECT keeping its session, no keep alive, no client id", ALL, "10 # N 00 0000 P 0000", Is(|version| Packet::Connect(Connect { clean_start: false, keep_alive_secs: 0, client_id: "", ..connect(version) }))),
        row("CONNECT with all flags", ALL, "10 # N F6 FFFF P 0002 'c1' P 0001 'w' 0004 'gone' 0001 'u' 0003 00FF80", Is(|version| Packet::Connect(Connect {
            keep_alive_secs: 65_535,
            will: Some(Will { qos: Qos::ExactlyOnce, retain: true, ..will() }),
            user_name: Some("u"),
            password: Some(b"\x00\xFF\x80"),
            ..connect(version)
        }))),
        row("CONNECT with a will of nothing at QoS 1", ALL, "10 # N 0E 003C P 0002 'c1' P 0001 'w' 0000", Is(|version| Packet::Connect(Connect { will: Some(Will { qos: Qos::AtLeastOnce, payload: b"", ..will() }), ..connect(version) }))),
        row("CONNECT with user name, empty password", ALL, "10 # N C2 003C P 0002 'c1' 0001 'u' 0000", Is(|version| Packet::Connect(Connect { user_name: Some("u"), password: Some(b""), ..connect(version) }))),
        row("CONNECT with an empty user name, no password", ALL, "10 # N 82 003C P 0002 'c1' 0000", Is(|version| Packet::Connect(Connect { user_name: Some(""), ..connect(version) }))),
        row("CONNECT with a client id longer than 23", ALL, "10 # N 02 003C P 001E '123456789012345678901234567890'", Is(|version| Packet::Connect(Connect { client_id: "123456789012345678901234567890", ..connect(version) }))),
        row("password without user name, before MQTT 5", BEFORE_5, "10 # N 42 003C 0002 'c1' 0001 'p'", Refused(Whole, MalformedPacket, "password but no user name")),
        row("password without user name, MQTT 5", ONLY_5, "10 # N 42 003C P 0002 'c1' 0001 'p'", Is(|version| Packet::Connect(Connect { password: Some(b"p"), ..connect(version) }))),
        row("CONNECT's reserved flag", SINCE_3_1_1, "10 # N 03 003C P 0002 'c1'", Refused(Whole, MalformedPacket, "reserved flag")),
        row("CONNECT's reserved flag in 3.1", ONLY_3_1, "10 # N 03 003C 0002 'c1'", Reads(|version| Packet::Connect(connect(version)))),
        row("will QoS 3", ALL, "10 # N 1E 003C P 0002 'c1' P 0001 'w' 0000", Refused(Whole, MalformedPacket, "will's QoS is 3")),
        row("will QoS without a will", ALL, "10 # N 0A 003C P 0002 'c1'", Refused(Whole, MalformedPacket, "without a will")),
        row("will retain without a will", ALL, "10 # N 22 003C P 0002 'c1'", Refused(Whole, MalformedPacket, "without a will")),
        row("will flag without a will's fields", ALL, "10 # N 06 003C P 0002 'c1'", Refused(Whole, MalformedPacket, "ends before")),
        row("user name flag without a user name", SINCE_3_1_1, "10 # N 82 003C P 0002 'c1'", Refused(Whole, MalformedPacket, "ends before")),
        row("password flag without a password", SINCE_3_1_1, "10 # N C2 003C P 0002 'c1' 0001 'u'", Refused(Whole, MalformedPacket, "ends before")),
        row("user name flag without a user name in 3.1", ONLY_3_1, "10 # N C2 003C 0002 'c1'", Reads(|version| Packet::Connect(connect(version)))),
        row("password flag without a password in 3.1", ONLY_3_1, "10 # N C2 003C 0002 'c1' 0001 'u'", Reads(|version| Packet::Connect(Connect { user_name: Some("u"), ..connect(version) }))),
        row("CONNECT with bytes left over", ALL, "10 # N 02 003C P 0002 'c1' 00", Refused(Whole, MalformedPacket, "left over")),
        row("user name without its flag", ALL, "10 # N 02 003C P 0002 'c1' 0001 'u'", Refused(Whole, MalformedPacket, "left over")),
        row("client id longer than the packet", ALL, "10 # N 02 003C P 00FF 'c1'", Refused(Whole, MalformedPacket, "ends before")),
        row("CONNECT without a body", ALL, "10 00", Refused(Whole, MalformedPacket, "ends before")),
        row("CONNECT that ends after its name", ALL, "10 # 0004 'MQTT'", Refused(Whole, MalformedPacket, "ends before")),
        row("another protocol", ALL, "10 # 0004 'AMQP' 04 02 003C 0002 'c1'", Refused(Whole, UnsupportedProtocolVersion, "protocol name")),
        row("protocol name in small letters", ALL, "10 # 0004 'mqtt' 04 02 003C 0002 'c1'", Refused(Whole, UnsupportedProtocolVersion, "protocol name")),
        row("protocol name with a NUL", ALL, "10 # 0005 'MQTT' 00 04 02 003C 0002 'c1'", Refused(Whole, UnsupportedProtocolVersion, "protocol name")),
        row("protocol level 6", ALL, "10 # 0004 'MQTT' 06 02 003C 00 0002 'c1'", Refused(Whole, UnsupportedProtocolVersion, "protocol level")),
        row("protocol level 3 of MQTT", ALL, "10 # 0004 'MQTT' 03 02 003C 0002 'c1'", Refused(Whole, UnsupportedProtocolVersion, "protocol level")),
        row("protocol level 4 of MQIsdp", ALL, "10 # 0006 'MQIsdp' 04 02 003C 0002 'c1'", Refused(Whole, UnsupportedProtocolVersion, "protocol level")),
        row("protocol level with a bridge's top bit", ALL, "10 # 0004 'MQTT' 84 02 003C 0002 'c1'", Refused(Whole, UnsupportedProtocolVersion, "protocol level")),
        row("control character in a client id", ALL, "10 # N 02 003C P 0003 'c' 0A '1'", Refused(Whole, MalformedPacket, "control character")),
        row("U+0000 in a user name", ALL, "10 # N 82 003C P 0002 'c1' 0002 'u' 00", Refused(Whole, MalformedPacket, "control character")),
        row("control character in a will's topic", ALL, "10 # N 06 003C P 0002 'c1' P 0003 'w' C280 0000", Refused(Whole, MalformedPacket, "control character")),
        row("client id that is not UTF-8", ALL, "10 # N 02 003C P 0002 C3 28", Refused(Whole, MalformedPacket, "UTF-8")),
        row("CONNECT with every property", ONLY_5, "10 # N 02 003C 23 11 0000000A 21 0014 27 00001000 22 0005 19 01 17 00 15 0001 'm' 16 0001 FF 26 0001 'k' 0001 'v' 0002 'c1'", Is(|version| Packet::Connect(Connect {
            properties: with(&[
                Property::SessionExpiryInterval(10),
                Property::ReceiveMaximum(id(20)),
                Property::MaximumPacketSize(4096.try_into().unwrap()),
                Property::TopicAliasMaximum(5),
                Property::RequestResponseInformation(true),
                Property::RequestProblemInformation(false),
                Property::AuthenticationMethod("m"),
                Property::AuthenticationData(b"\xFF"),
                Property::UserProperty(("k", "v")),
            ]),
            ..connect(version)
        }))),
        row("will with every property", ONLY_5, "10 # N 06 003C 00 0002 'c1' 28 18 00000005 01 01 02 0000003C 03 0001 't' 08 0003 'r/e' 09 0002 0001 26 0001 'k' 0001 'v' 26 0001 'k' 0000 0001 'w' 0004 'gone'", Is(|version| Packet::Connect(Connect {
            will: Some(Will {
                properties: with(&[
                    Property::WillDelayInterval(5),
                    Property::PayloadFormatIndicator(true),
                    Property::MessageExpiryInterval(60),
                    Property::ContentType("t"),
                    Property::ResponseTopic(TopicName::parse("r/e", TopicLimits::NONE).unwrap()),
                    Property::CorrelationData(b"\x00\x01"),
                    Property::UserProperty(("k", "v")),
                    Property::UserProperty(("k", "")),
                ]),
                ..will()
            }),
            ..connect(version)
        }))),
        row("property of a will in a CONNECT", ONLY_5, "10 # N 02 003C 05 18 00000005 0002 'c1'", Refused(Whole, MalformedPacket, "may not have it")),
        row("property of a CONNECT in a will", ONLY_5, "10 # N 06 003C 00 0002 'c1' 05 11 00000005 0001 'w' 0000", Refused(Whole, MalformedPacket, "may not have it")),
        row("properties longer than the packet", ONLY_5, "10 # N 02 003C 7F 11 00000005 0002 'c1'", Refused(Whole, MalformedPacket, "ends before")),
        row("properties whose length has five bytes", ONLY_5, "10 # N 02 003C 80 80 80 80 01 0002 'c1'", Refused(Whole, MalformedPacket, "fourth byte")),
        row("properties whose length is longer than needed", ONLY_5, "10 # N 02 003C 80 80 00 0002 'c1'", Refused(Whole, MalformedPacket, "longer than it needs")),
        row("property cut by the properties' end", ONLY_5, "10 # N 02 003C 03 11 0000 0005 0002 'c1'", Refused(Whole, MalformedPacket, "ends before")),
        row("user property without a value", ONLY_5, "10 # N 02 003C 04 26 0001 'k' 0002 'c1'", Refused(Whole, MalformedPacket, "ends before")),
        row("property that does not exist", ONLY_5, "10 # N 02 003C 02 7F 00 0002 'c1'", Refused(Whole, MalformedPacket, "does not exist")),
        row("property twice", ONLY_5, "10 # N 02 003C 06 21 0001 21 0001 0002 'c1'", Refused(Whole, ProtocolError, "twice")),
        row("Receive Maximum of 0", ONLY_5, "10 # N 02 003C 03 21 0000 0002 'c1'", Refused(Whole, ProtocolError, "is 0")),
        row("Maximum Packet Size of 0", ONLY_5, "10 # N 02 003C 05 27 00000000 0002 'c1'", Refused(Whole, ProtocolError, "is 0")),
        row("Request Response Information of 2", ONLY_5, "10 # N 02 003C 02 19 02 0002 'c1'", Refused(Whole, ProtocolError, "0 or 1")),
        row("authentication data without a method", ONLY_5, "10 # N 02 003C 04 16 0001 'd' 0002 'c1'", Refused(Whole, ProtocolError, "without an authentication method")),
        row("Response Topic with a wildcard", ONLY_5, "10 # N 06 003C 00 0002 'c1' 06 08 0003 'r/#' 0001 'w' 0000", Refused(Whole, ProtocolError, "response topic")),
        row("Response Topic of no characters", ONLY_5, "10 # N 06 003C 00 0002 'c1' 03 08 0000 0001 'w' 0000", Refused(Whole, ProtocolError, "response topic")),

        // CONNACK.
        row("CONNACK", ALL, "20 # 00 00 P", Is(|_| connack(Success))),
        row("CONNACK with a session", SINCE_3_1_1, "20 # 01 00 P", Is(|_| Packet::Connack(Connack { session_present: true, reason: Success, properties: Properties::EMPTY }))),
        row("CONNACK whose first byte 3.1 does not use", ONLY_3_1, "20 # 01 00", Reads(|_| connack(Success))),
        row("CONNACK's reserved flag", SINCE_3_1_1, "20 # 02 00 P", Refused(Whole, MalformedPacket, "reserved flag")),
        row("refusal with a session", ONLY_3_1_1, "20 # 01 05", Refused(Whole, ProtocolError, "session is present")),
        row("refusal with a session, MQTT 5", ONLY_5, "20 # 01 87 00", Refused(Whole, ProtocolError, "session is present")),
        row("return code 1", BEFORE_5, "20 02 00 01", Is(|_| connack(UnsupportedProtocolVersion))),
        row("return code 2", BEFORE_5, "20 02 00 02", Is(|_| connack(ClientIdentifierNotValid))),
        row("return code 3", BEFORE_5, "20 02 00 03", Is(|_| connack(ServerUnavailable))),
        row("return code 4", BEFORE_5, "20 02 00 04", Is(|_| connack(BadUserNameOrPassword))),
        row("return code 5", BEFORE_5, "20 02 00 05", Is(|_| connack(NotAuthorized))),
        row("return code 6", BEFORE_5, "20 02 00 06", Refused(Whole, ProtocolError, "reason code")),
        row("reason code 1 in an MQTT 5 CONNACK", ONLY_5, "20 03 00 01 00", Refused(Whole, ProtocolError, "reason code")),
        row("refusing CONNACK of MQTT 5", ONLY_5, "20 03 00 84 00", Is(|_| connack(UnsupportedProtocolVersion))),
        row("CONNACK with every property", ONLY_5, "20 # 00 00 39 11 00000000 21 FFFF 24 01 25 00 27 00100000 12 0001 'a' 22 0000 1F 0001 'r' 26 0000 0000 28 01 29 00 2A 01 13 0078 1A 0001 'i' 1C 0001 's' 15 0001 'm' 16 0000", Is(|_| Packet::Connack(Connack {
            session_present: false,
            reason: Success,
            properties: with(&[
                Property::SessionExpiryInterval(0),
                Property::ReceiveMaximum(id(65_535)),
                Property::MaximumQos(Qos::AtLeastOnce),
                Property::RetainAvailable(false),
                Property::MaximumPacketSize(0x10_0000.try_into().unwrap()),
                Property::AssignedClientIdentifier("a"),
                Property::TopicAliasMaximum(0),
                Property::ReasonString("r"),
                Property::UserProperty(("", "")),
                Property::WildcardSubscriptionAvailable(true),
                Property::SubscriptionIdentifiersAvailable(false),
                Property::SharedSubscriptionAvailable(true),
                Property::ServerKeepAlive(120),
                Property::ResponseInformation("i"),
                Property::ServerReference("s"),
                Property::AuthenticationMethod("m"),
                Property::AuthenticationData(b""),
            ]),
        }))),
        row("Maximum QoS of 2", ONLY_5, "20 # 00 00 02 24 02", Refused(Whole, ProtocolError, "0 or 1")),
        row("CONNACK of one byte", ALL, "20 01 00", Refused(Whole, MalformedPacket, "ends before")),
        row("CONNACK with bytes left over", BEFORE_5, "20 03 00 00 00", Refused(Whole, MalformedPacket, "left over")),

        // PUBLISH.
        row("PUBLISH", ALL, "30 # 0003 'a/b' P 'hi'", Is(|_| Packet::Publish(publish()))),
        row("PUBLISH retained, without payload", ALL, "31 # 0003 'a/b' P", Is(|_| Packet::Publish(Publish { retain: true, payload: b"", ..publish() }))),
        row("PUBLISH at QoS 1", ALL, "32 # 0003 'a/b' 0001 P 'hi'", Is(|_| Packet::Publish(Publish { qos: Qos::AtLeastOnce, packet_id: Some(id(1)), ..publish() }))),
        row("PUBLISH at QoS 2, sent again, retained", ALL, "3D # 0003 'a/b' FFFF P 'hi'", Is(|_| Packet::Publish(Publish { dup: true, retain: true, qos: Qos::ExactlyOnce, packet_id: Some(id(65_535)), ..publish() }))),
        row("PUBLISH to a topic beyond ASCII", ALL, "30 # 0009 'a/' C3A9 C2A0 'b' FEFF P 'hi'", Refused(Whole, MalformedPacket, "UTF-8")),
        row("PUBLISH to a topic with U+00E9, U+00A0, U+FEFF and U+1F600", ALL, "30 # 000C 'b' C3A9 C2A0 EFBBBF F09F9880 P 'hi'", Is(|_| Packet::Publish(Publish { topic: "b\u{E9}\u{A0}\u{FEFF}\u{1F600}", ..publish() }))),
        row("PUBLISH of 128 bytes and more", ALL, "30 # 0003 'a/b' P '........................................................................................................................................................'", Is(|_| Packet::Publish(Publish { payload: &[b'.'; 152], ..publish() }))),
        row("PUBLISH to no topic, before MQTT 5", BEFORE_5, "30 # 0000 'hi'", Is(|_| Packet::Publish(Publish { topic: "", ..publish() }))),
        row("PUBLISH to a topic alias", ONLY_5, "30 # 0000 03 23 0001 'hi'", Is(|_| Packet::Publish(Publish { topic: "", properties: with(&[Property::TopicAlias(id(1))]), ..publish() }))),
        row("PUBLISH to neither topic nor alias", ONLY_5, "30 # 0000 00 'hi'", Refused(Whole, ProtocolError, "neither")),
        row("Topic Alias of 0", ONLY_5, "30 # 0001 'a' 03 23 0000 'hi'", Refused(Whole, ProtocolError, "is 0")),
        row("PUBLISH with every property", ONLY_5, "30 # 0003 'a/b' 2A 01 00 02 FFFFFFFF 23 FFFF 08 0001 'r' 09 0000 26 0001 'k' 0001 'v' 26 0001 'k' 0001 'v' 0B FFFFFF7F 0B 01 03 0001 't' 'hi'", Is(|_| Packet::Publish(Publish {
            properties: with(&[
                Property::PayloadFormatIndicator(false),
                Property::MessageExpiryInterval(u32::MAX),
                Property::TopicAlias(id(65_535)),
                Property::ResponseTopic(TopicName::parse("r", TopicLimits::NONE).unwrap()),
                Property::CorrelationData(b""),
                Property::UserProperty(("k", "v")),
                Property::UserProperty(("k", "v")),
                Property::SubscriptionIdentifier(SubscriptionId::new(SubscriptionId::MAX).unwrap()),
                Property::SubscriptionIdentifier(SubscriptionId::new(1).unwrap()),
                Property::ContentType("t"),
            ]),
            ..publish()
        }))),
        row("QoS 3", ALL, "36 # 0003 'a/b' 0001 P 'hi'", Refused(Bytes(1), MalformedPacket, "QoS is 3")),
        row("DUP at QoS 0", SINCE_3_1_1, "38 # 0003 'a/b' P 'hi'", Refused(Bytes(1), MalformedPacket, "flags")),
        row("DUP at QoS 0 in 3.1", ONLY_3_1, "38 # 0003 'a/b' 'hi'", Reads(|_| Packet::Publish(publish()))),
        row("packet identifier 0", ALL, "32 # 0003 'a/b' 0000 P 'hi'", Refused(Whole, MalformedPacket, "identifier is 0")),
        row("PUBLISH cut before its packet identifier", ALL, "32 # 0003 'a/b'", Refused(Whole, MalformedPacket, "ends before")),
        row("PUBLISH cut within its packet identifier", ALL, "32 # 0003 'a/b' 00", Refused(Whole, MalformedPacket, "ends before")),
        row("topic longer than the packet", ALL, "30 # FFFF 'a/b'", Refused(Whole, MalformedPacket, "ends before")),
        row("PUBLISH without a body", ALL, "30 00", Refused(Whole, MalformedPacket, "ends before")),
        row("PUBLISH of one byte", ALL, "30 01 00", Refused(Whole, MalformedPacket, "ends before")),
        row("PUBLISH cut before its properties", ONLY_5, "30 # 0003 'a/b'", Refused(Whole, MalformedPacket, "ends before")),
        row("PUBLISH whose properties are longer than it", ONLY_5, "30 # 0003 'a/b' 10 01 00", Refused(Whole, MalformedPacket, "ends before")),
        row("topic with a surrogate", ALL, "30 # 0005 'a/' EDA080 P 'hi'", Refused(Whole, MalformedPacket, "UTF-8")),
        row("topic in an overlong form", ALL, "30 # 0004 'a/' C080 P 'hi'", Refused(Whole, MalformedPacket, "UTF-8")),
        row("topic cut within a character", ALL, "30 # 0003 'a/' C3 P 'hi'", Refused(Whole, MalformedPacket, "UTF-8")),
        row("U+0000 in a topic", ALL, "30 # 0003 'a' 00 'b' P 'hi'", Refused(Whole, MalformedPacket, "control character")),
        row("U+007F in a topic", ALL, "30 # 0003 'a' 7F 'b' P 'hi'", Refused(Whole, MalformedPacket, "control character")),
        row("U+0085 in a topic", ALL, "30 # 0004 'a' C285 'b' P 'hi'", Refused(Whole, MalformedPacket, "control character")),
        row("U+001F late in a long topic", ALL, "30 # 0014 'aaaaaaaaaaaaaaaaaaa' 1F P 'hi'", Refused(Whole, MalformedPacket, "control character")),
        row("Subscription Identifier of 0", ONLY_5, "30 # 0001 'a' 02 0B 00 'hi'", Refused(Whole, ProtocolError, "is 0")),
        row("Subscription Identifier longer than needed", ONLY_5, "30 # 0001 'a' 03 0B 81 00 'hi'", Refused(Whole, MalformedPacket, "longer than it needs")),
        row("Payload Format Indicator of 2", ONLY_5, "30 # 0001 'a' 02 01 02 'hi'", Refused(Whole, ProtocolError, "0 or 1")),

        // PUBACK, PUBREC, PUBREL, PUBCOMP.
        row("PUBACK", ALL, "40 02 12 34", Is(|_| Packet::Puback(Ack::new(id(0x1234))))),
        row("PUBREC", ALL, "50 02 12 34", Is(|_| Packet::Pubrec(Ack::new(id(0x1234))))),
        row("PUBREL", ALL, "62 02 12 34", Is(|_| Packet::Pubrel(Ack::new(id(0x1234))))),
        row("PUBCOMP", ALL, "70 02 12 34", Is(|_| Packet::Pubcomp(Ack::new(id(0x1234))))),
        row("PUBACK with a reason", ONLY_5, "40 03 12 34 97", Is(|_| Packet::Puback(ack(QuotaExceeded, &[])))),
        row("PUBACK that found nobody", ONLY_5, "40 03 12 34 10", Is(|_| Packet::Puback(ack(NoMatchingSubscribers, &[])))),
        row("PUBREC with reason and properties", ONLY_5, "50 # 1234 80 0D 1F 0001 'r' 26 0002 'k1' 0002 'v1'", Is(|_| Packet::Pubrec(ack(UnspecifiedError, &[Property::ReasonString("r"), Property::UserProperty(("k1", "v1"))])))),
        row("PUBREL of an unknown identifier", ONLY_5, "62 03 12 34 92", Is(|_| Packet::Pubrel(ack(PacketIdentifierNotFound, &[])))),
        row("PUBCOMP with properties", ONLY_5, "70 # 1234 00 04 1F 0001 'r'", Is(|_| Packet::Pubcomp(ack(Success, &[Property::ReasonString("r")])))),
        row("PUBACK that spells success out", ONLY_5, "40 03 12 34 00", Reads(|_| Packet::Puback(Ack::new(id(0x1234))))),
        row("PUBACK that spells everything out", ONLY_5, "40 04 12 34 00 00", Reads(|_| Packet::Puback(Ack::new(id(0x1234))))),
        row("PUBREL that spells everything out", ONLY_5, "62 04 12 34 92 00", Reads(|_| Packet::Pubrel(ack(PacketIdentifierNotFound, &[])))),
        row("PUBACK of identifier 0", ALL, "40 02 00 00", Refused(Whole, MalformedPacket, "identifier is 0")),
        row("PUBREC of identifier 0", ALL, "50 02 00 00", Refused(Whole, MalformedPacket, "identifier is 0")),
        row("PUBREL of identifier 0", ALL, "62 02 00 00", Refused(Whole, MalformedPacket, "identifier is 0")),
        row("PUBCOMP of identifier 0", ALL, "70 02 00 00", Refused(Whole, MalformedPacket, "identifier is 0")),
        row("PUBACK without a body", ALL, "40 00", Refused(Whole, MalformedPacket, "ends before")),
        row("PUBACK of one byte", ALL, "40 01 12", Refused(Whole, MalformedPacket, "ends before")),
        row("PUBACK with bytes left over", BEFORE_5, "40 03 12 34 00", Refused(Whole, MalformedPacket, "left over")),
        row("PUBACK with bytes after its properties", ONLY_5, "40 05 12 34 00 00 00", Refused(Whole, MalformedPacket, "left over")),
        row("PUBREC whose properties are longer than it", ONLY_5, "50 04 12 34 00 05", Refused(Whole, MalformedPacket, "ends before")),
        row("PUBACK with a PUBREL's reason", ONLY_5, "40 03 12 34 92", Refused(Whole, ProtocolError, "reason code")),
        row("PUBREL with a PUBACK's reason", ONLY_5, "62 03 12 34 80", Refused(Whole, ProtocolError, "reason code")),
        row("PUBCOMP with a reason that does not exist", ONLY_5, "70 03 12 34 FF", Refused(Whole, ProtocolError, "reason code")),
        row("PUBACK with a PUBLISH's property", ONLY_5, "40 06 12 34 00 02 01 01", Refused(Whole, MalformedPacket, "may not have it")),

        // SUBSCRIBE, SUBACK.
        row("SUBSCRIBE", ALL, "82 # 000A P 0003 'a/#' 00 0001 '+' 01 0003 'b/+' 02", Is(|_| subscribe(&[
            ("a/#", SubscribeOptions::new(Qos::AtMostOnce)),
            ("+", SubscribeOptions::new(Qos::AtLeastOnce)),
            ("b/+", SubscribeOptions::new(Qos::ExactlyOnce)),
        ]))),
        row("SUBSCRIBE with all options", ONLY_5, "82 # 000A 00 0001 'a' 2D 0001 'b' 12", Is(|_| subscribe(&[
            ("a", SubscribeOptions { qos: Qos::AtLeastOnce, no_local: true, retain_as_published: true, retain_handling: RetainHandling::DoNotSend }),
            ("b", SubscribeOptions { qos: Qos::ExactlyOnce, no_local: false, retain_as_published: false, retain_handling: RetainHandling::SendIfNew }),
        ]))),
        row("SUBSCRIBE with every property", ONLY_5, "82 # 000A 0A 0B 8001 26 0001 'k' 0001 'v' 0001 'a' 00", Is(|_| Packet::Subscribe(Subscribe {
            packet_id: id(10),
            properties: with(&[Property::SubscriptionIdentifier(SubscriptionId::new(128).unwrap()), Property::UserProperty(("k", "v"))]),
            filters: vec![("a", SubscribeOptions::new(Qos::AtMostOnce))],
        }))),
        row("SUBSCRIBE of identifier 0", ALL, "82 # 0000 P 0001 'a' 00", Refused(Whole, MalformedPacket, "identifier is 0")),
        row("SUBSCRIBE to nothing", ALL, "82 # 000A P", Refused(Whole, ProtocolError, "list")),
        row("SUBSCRIBE without a body", ALL, "82 00", Refused(Whole, MalformedPacket, "ends before")),
        row("SUBSCRIBE that ends after a filter", ALL, "82 # 000A P 0001 'a'", Refused(Whole, MalformedPacket, "ends before")),
        row("SUBSCRIBE that ends after its second filter", ALL, "82 # 000A P 0001 'a' 00 0001 'b'", Refused(Whole, MalformedPacket, "ends before")),
        row("SUBSCRIBE to a filter longer than the packet", ALL, "82 # 000A P 00FF 'a' 00", Refused(Whole, MalformedPacket, "ends before")),
        row("SUBSCRIBE at QoS 3", ALL, "82 # 000A P 0001 'a' 03", Refused(Whole, MalformedPacket, "QoS is 3")),
        row("options of MQTT 5 before it", BEFORE_5, "82 # 000A 0001 'a' 04", Refused(Whole, MalformedPacket, "reserved bits")),
        row("reserved bit 7 of a subscription", ALL, "82 # 000A P 0001 'a' 80", Refused(Whole, MalformedPacket, "reserved bits")),
        row("reserved bit 6 of a subscription", ALL, "82 # 000A P 0001 'a' 40", Refused(Whole, MalformedPacket, "reserved bits")),
        row("Retain Handling 3", ONLY_5, "82 # 000A 00 0001 'a' 30", Refused(Whole, ProtocolError, "Retain Handling")),
        row("No Local on a shared subscription", ONLY_5, "82 # 000A 00 000A '$share/g/a' 05", Refused(Whole, ProtocolError, "No Local")),
        row("Subscription Identifier twice", ONLY_5, "82 # 000A 04 0B 01 0B 02 0001 'a' 00", Refused(Whole, ProtocolError, "twice")),
        row("U+0001 in a filter", ALL, "82 # 000A P 0002 'a' 01 00", Refused(Whole, MalformedPacket, "control character")),
        row("filter that is not UTF-8", ALL, "82 # 000A P 0001 FF 00", Refused(Whole, MalformedPacket, "UTF-8")),
        row("SUBACK", ALL, "90 # 000A P 00 01 02 80", Is(|_| suback(&[Success, GrantedQos1, GrantedQos2, UnspecifiedError]))),
        row("SUBACK with reasons of MQTT 5", ONLY_5, "90 # 000A 04 1F 0001 'r' 87 97 9E", Is(|_| Packet::Suback(Suback {
            packet_id: id(10),
            properties: with(&[Property::ReasonString("r")]),
            reasons: vec![NotAuthorized, QuotaExceeded, SharedSubscriptionsNotSupported],
        }))),
        row("SUBACK with a reason of MQTT 5 before it", BEFORE_5, "90 # 000A 87", Refused(Whole, ProtocolError, "reason code")),
        row("SUBACK granting QoS 3", ALL, "90 # 000A P 03", Refused(Whole, ProtocolError, "reason code")),
        row("SUBACK of nothing", ALL, "90 # 000A P", Refused(Whole, ProtocolError, "list")),
        row("SUBACK of identifier 0", ALL, "90 # 0000 P 00", Refused(Whole, MalformedPacket, "identifier is 0")),

        // UNSUBSCRIBE, UNSUBACK.
        row("UNSUBSCRIBE", ALL, "A2 # 000A P 0003 'a/#' 0000", Is(|_| Packet::Unsubscribe(Unsubscribe { packet_id: id(10), properties: Properties::EMPTY, filters: vec!["a/#", ""] }))),
        row("UNSUBSCRIBE with a property", ONLY_5, "A2 # 000A 05 26 0000 0000 0001 'a'", Is(|_| Packet::Unsubscribe(Unsubscribe { packet_id: id(10), properties: with(&[Property::UserProperty(("", ""))]), filters: vec!["a"] }))),
        row("UNSUBSCRIBE from nothing", ALL, "A2 # 000A P", Refused(Whole, ProtocolError, "list")),
        row("UNSUBSCRIBE of identifier 0", ALL, "A2 # 0000 P 0001 'a'", Refused(Whole, MalformedPacket, "identifier is 0")),
        row("UNSUBSCRIBE cut within a filter", ALL, "A2 # 000A P 0002 'a'", Refused(Whole, MalformedPacket, "ends before")),
        row("UNSUBSCRIBE with a Subscription Identifier", ONLY_5, "A2 # 000A 02 0B 01 0001 'a'", Refused(Whole, MalformedPacket, "may not have it")),
        row("UNSUBACK before MQTT 5", BEFORE_5, "B0 02 00 0A", Is(|_| Packet::Unsuback(Unsuback { packet_id: id(10), properties: Properties::EMPTY, reasons: vec![] }))),
        row("UNSUBACK of MQTT 5", ONLY_5, "B0 # 000A 00 00 11 87", Is(|_| Packet::Unsuback(Unsuback { packet_id: id(10), properties: Properties::EMPTY, reasons: vec![Success, NoSubscriptionExisted, NotAuthorized] }))),
        row("UNSUBACK with a payload before MQTT 5", BEFORE_5, "B0 03 00 0A 00", Refused(Whole, MalformedPacket, "left over")),
        row("UNSUBACK of nothing", ONLY_5, "B0 03 00 0A 00", Refused(Whole, ProtocolError, "list")),
        row("UNSUBACK with a SUBACK's reason", ONLY_5, "B0 04 00 0A 00 01", Refused(Whole, ProtocolError, "reason code")),
        row("UNSUBACK of identifier 0", ALL, "B0 # 0000 P 00", Refused(Whole, MalformedPacket, "identifier is 0")),

        // PINGREQ, PINGRESP.
        row("PINGREQ", ALL, "C0 00", Is(|_| Packet::Pingreq)),
        row("PINGRESP", ALL, "D0 00", Is(|_| Packet::Pingresp)),
        row("PINGREQ with a body", ALL, "C0 01 00", Refused(Whole, MalformedPacket, "left over")),
        row("PINGRESP with a body", ALL, "D0 01 00", Refused(Whole, MalformedPacket, "left over")),

        // DISCONNECT, AUTH.
        row("DISCONNECT", ALL, "E0 00", Is(|_| disconnect(Success, &[]))),
        row("DISCONNECT with the will", ONLY_5, "E0 01 04", Is(|_| disconnect(DisconnectWithWill, &[]))),
        row("DISCONNECT with every property", ONLY_5, "E0 # 00 12 11 00000000 1F 0001 'r' 1C 0001 's' 26 0000 0000", Is(|_| disconnect(Success, &[
            Property::SessionExpiryInterval(0),
            Property::ReasonString("r"),
            Property::ServerReference("s"),
            Property::UserProperty(("", "")),
        ]))),
        row("DISCONNECT that spells everything out", ONLY_5, "E0 02 00 00", Reads(|_| disconnect(Success, &[]))),
        row("DISCONNECT with a body before MQTT 5", BEFORE_5, "E0 01 00", Refused(Whole, MalformedPacket, "left over")),
        row("DISCONNECT with a CONNACK's reason", ONLY_5, "E0 01 85", Refused(Whole, ProtocolError, "reason code")),
        row("DISCONNECT with bytes left over", ONLY_5, "E0 03 00 00 00", Refused(Whole, MalformedPacket, "left over")),
        row("AUTH", ONLY_5, "F0 # 18 09 15 0001 'm' 16 0002 0001", Is(|_| Packet::Auth(Auth { reason: ContinueAuthentication, properties: with(&[Property::AuthenticationMethod("m"), Property::AuthenticationData(b"\x00\x01")]) }))),
        row("AUTH to begin again", ONLY_5, "F0 # 19 04 15 0001 'm'", Is(|_| Packet::Auth(Auth { reason: ReAuthenticate, properties: with(&[Property::AuthenticationMethod("m")]) }))),
        row("AUTH of success, left out", ONLY_5, "F0 00", Is(|_| Packet::Auth(Auth { reason: Success, properties: Properties::EMPTY }))),
        row("AUTH without a method", ONLY_5, "F0 # 18 00", Refused(Whole, ProtocolError, "no authentication method")),
        row("AUTH without properties", ONLY_5, "F0 01 18", Refused(Whole, MalformedPacket, "ends before")),
        row("AUTH with a DISCONNECT's reason", ONLY_5, "F0 # 80 04 15 0001 'm'", Refused(Whole, ProtocolError, "reason code")),
        row("AUTH with bytes left over", ONLY_5, "F0 # 18 04 15 0001 'm' 00", Refused(Whole, MalformedPacket, "left over")),
    ]
}
