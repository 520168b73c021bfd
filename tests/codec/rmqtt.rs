//! rmqtt-codec: what it reads of a packet of ours, as one of our packets
//! again, and what it then writes.

use bytes::BytesMut;
use rmqtt_codec::{v3, v5};
use rotamq::message::{PacketId, Qos};
use rotamq::protocol::*;
use rotamq::topic::{TopicLimits, TopicName};
use tokio_util::codec::{Decoder, Encoder};

use super::differential::parts as all_parts;
use super::generators::reason;
use super::table::Expect;
use super::{BYTES_MAX, cases, encoded, leak};

/// What it makes of `bytes`, and how it writes that; `None`: they are incomplete.
fn read(bytes: &[u8], version: Version) -> Result<Option<(Packet<'static>, Vec<u8>)>, String> {
    let mut stream = BytesMut::from(bytes);
    let mut written = BytesMut::new();
    let packet = match version {
        Version::V5 => {
            let read = v5::Codec::default().decode(&mut stream);
            let Some((packet, _)) = read.map_err(|error| error.to_string())? else {
                return Ok(None);
            };
            let packet = leak(packet);
            let write = v5::Codec::default().encode(packet.clone(), &mut written);
            write.map_err(|error| error.to_string())?;
            of_5(packet)
        }
        _ => {
            let read = v3::Codec::default().decode(&mut stream);
            let Some((packet, _)) = read.map_err(|error| error.to_string())? else {
                return Ok(None);
            };
            let packet = leak(packet);
            let write = v3::Codec::default().encode(packet.clone(), &mut written);
            write.map_err(|error| error.to_string())?;
            of_3(packet)
        }
    };
    assert!(stream.is_empty(), "one packet was given to it");
    Ok(Some((packet, written.to_vec())))
}

/// Both ways: it reads what is written here, and here is read what it then
/// writes. A property that says what leaving it out says is left out.
pub fn agrees(packet: &Packet<'static>, version: Version) {
    if is_refused_wrongly(packet) {
        return;
    }
    let ours = encoded(packet, version);
    let read = read(&ours, version).unwrap_or_else(|error| panic!("{packet:?}: {error}"));
    let (theirs, written) = read.expect("the packet is whole");
    let expected = parts(packet);
    assert_eq!(parts(&theirs), expected);
    // After MQIsdp it writes level 4; 3.1 has 3.
    if matches!(packet, Packet::Connect(connect) if connect.version == Version::V3_1) {
        return;
    }
    let (again, used) = decode(&written, version, BYTES_MAX)
        .expect("it is valid")
        .expect("it is whole");
    assert_eq!(used, written.len());
    assert_eq!(parts(&again), expected);
}

/// Where it is wrong about packets that may be.
fn is_refused_wrongly(packet: &Packet<'_>) -> bool {
    // A message may expire at once: 3.3.2.3.3 has no bound.
    let expires_at_once = |properties: Properties<'_>| {
        (properties.iter()).any(|property| property == Property::MessageExpiryInterval(0))
    };
    match packet {
        // No client identifier and a session kept is for the server to refuse,
        // with a CONNACK [MQTT-3.1.3-8]; in MQTT 5 it assigns one [MQTT-3.1.3-6].
        Packet::Connect(connect) if connect.client_id.is_empty() && !connect.clean_start => true,
        Packet::Connect(connect) => {
            (connect.will.iter()).any(|will| expires_at_once(will.properties))
        }
        Packet::Publish(publish) => expires_at_once(publish.properties),
        _ => false,
    }
}

/// A packet without its properties; and those, by their identifiers, the
/// user's in their own order. Defaults count as left out.
fn parts<'a>(packet: &Packet<'a>) -> (Packet<'a>, [Vec<Property<'a>>; 2]) {
    let (packet, mut properties) = all_parts(packet);
    for properties in &mut properties {
        properties.retain(|property| {
            !matches!(
                property,
                Property::SessionExpiryInterval(0)
                    | Property::RequestProblemInformation(true)
                    | Property::RequestResponseInformation(false)
                    | Property::TopicAliasMaximum(0)
                    | Property::RetainAvailable(true)
                    | Property::WildcardSubscriptionAvailable(true)
                    | Property::SubscriptionIdentifiersAvailable(true)
                    | Property::SharedSubscriptionAvailable(true)
                    | Property::PayloadFormatIndicator(false)
            ) && *property != Property::ReceiveMaximum(PacketId::MAX)
        });
    }
    (packet, properties)
}

/// Rows of the byte table that it does not read as that table says, though they
/// are valid, and why they are.
#[rustfmt::skip]
const STRICTER: &[(&str, &str)] = &[
    ("CONNECT keeping its session, no keep alive, no client id", "[MQTT-3.1.3-8], in MQTT 5 [MQTT-3.1.3-6]"),
    ("CONNECT's reserved flag in 3.1", "3.1 calls the bit unused"),
    ("CONNACK whose first byte 3.1 does not use", "3.1 has no Session Present"),
    ("DUP on PUBREL in 3.1", "3.1: DUP marks what is sent again"),
    ("DUP on SUBSCRIBE in 3.1", "3.1: DUP marks what is sent again"),
    ("DUP on UNSUBSCRIBE in 3.1", "3.1: DUP marks what is sent again"),
    ("DUP at QoS 0 in 3.1", "3.1: DUP applies to QoS above 0"),
    ("user name flag without a user name in 3.1", "3.1: the remaining length goes before the flags"),
    ("password flag without a password in 3.1", "3.1: the remaining length goes before the flags"),
    ("PUBLISH to no topic, before MQTT 5", "refused when the topic is parsed [MQTT-4.7.3-1]"),
    ("UNSUBSCRIBE", "an empty filter is answered, there is no subscription to it [MQTT-3.10.4-5]"),
];

/// Rows of the byte table that it reads, though they are not valid, and why
/// they are not.
#[rustfmt::skip]
const LAXER: &[(&str, &str)] = &[
    ("remaining length longer than needed, MQTT 5", "[MQTT-1.5.5-1]"),
    ("remaining length of 0 in four bytes, MQTT 5", "[MQTT-1.5.5-1]"),
    ("password without user name, before MQTT 5", "[MQTT-3.1.2-22]"),
    ("will QoS without a will", "[MQTT-3.1.2-11]"),
    ("will retain without a will", "[MQTT-3.1.2-13]"),
    ("CONNECT with bytes left over", "3.1.3: the fields that the flags say, and no others"),
    ("user name without its flag", "[MQTT-3.1.2-16]"),
    ("protocol level 3 of MQTT", "[MQTT-3.1.2-2]"),
    ("protocol level 4 of MQIsdp", "[MQTT-3.1.2-1]"),
    ("control character in a client id", "1.5.4 lets a receiver close"),
    ("U+0000 in a user name", "[MQTT-1.5.4-2]"),
    ("control character in a will's topic", "1.5.4 lets a receiver close"),
    ("properties whose length is longer than needed", "[MQTT-1.5.5-1]"),
    ("authentication data without a method", "3.1.2.11.10"),
    ("Response Topic with a wildcard", "[MQTT-3.3.2-14]"),
    ("Response Topic of no characters", "[MQTT-4.7.3-1]"),
    ("refusal with a session", "[MQTT-3.2.2-4]"),
    ("refusal with a session, MQTT 5", "[MQTT-3.2.2-6]"),
    ("return code 6", "3.2.2.3: reserved"),
    ("Maximum QoS of 2", "3.2.2.3.4"),
    ("CONNACK with bytes left over", "3.2.3: there is no payload"),
    ("PUBLISH to neither topic nor alias", "3.3.2.1"),
    ("DUP at QoS 0", "[MQTT-3.3.1-2]"),
    ("U+0000 in a topic", "[MQTT-1.5.4-2]"),
    ("U+007F in a topic", "1.5.4 lets a receiver close"),
    ("U+0085 in a topic", "1.5.4 lets a receiver close"),
    ("U+001F late in a long topic", "1.5.4 lets a receiver close"),
    ("Subscription Identifier longer than needed", "[MQTT-1.5.5-1]"),
    ("options of MQTT 5 before it", "[MQTT-3-8.3-4]"),
    ("reserved bit 7 of a subscription", "[MQTT-3-8.3-4], in MQTT 5 [MQTT-3.8.3-5]"),
    ("reserved bit 6 of a subscription", "[MQTT-3-8.3-4], in MQTT 5 [MQTT-3.8.3-5]"),
    ("No Local on a shared subscription", "[MQTT-3.8.3-4]"),
    ("U+0001 in a filter", "1.5.4 lets a receiver close"),
    ("SUBACK of nothing", "3.9.3: a code for each filter"),
    ("UNSUBACK of nothing", "3.11.3: a code for each filter"),
    ("PINGREQ with a body", "3.12.3: there is no payload"),
    ("PINGRESP with a body", "3.13.3: there is no payload"),
    ("DISCONNECT with a body before MQTT 5", "3.14.3: there is no payload"),
    ("AUTH without a method", "3.15.2.2.2"),
    ("AUTH without properties", "3.15.2.2.2"),
];

/// It refuses what the table refuses, and reads what the table reads, but for
/// what the two lists say; and these say nothing that it has mended.
#[test]
fn it_says_what_the_table_says() {
    let mut seen = Vec::new();
    for (name, version, bytes, expect) in cases() {
        let row = name.split_once(" (V").expect("the name ends with it").0;
        let read = read(&bytes, version);
        let (right, known) = match expect {
            Expect::Refused(..) => (!matches!(read, Ok(Some(_))), LAXER),
            Expect::Is(packet) | Expect::Reads(packet) => {
                let same = |read: &Packet<'static>| parts(read) == parts(&packet(version));
                (matches!(&read, Ok(Some((read, _))) if same(read)), STRICTER)
            }
        };
        if !right {
            let listed = known.iter().find(|(known, _)| *known == row);
            seen.push(listed.unwrap_or_else(|| panic!("{name}: {read:?}")));
        }
    }
    for known in STRICTER.iter().chain(LAXER) {
        assert!(seen.contains(&known), "it is right about: {}", known.0);
    }
}

fn qos(qos: v5::QoS) -> Qos {
    Qos::from_bits(qos.value()).expect("there are three")
}

/// Puts together what is there.
macro_rules! properties {
    ($($name:ident: $value:expr),* $(,)?; $user:expr) => {{
        let mut properties = PropertiesBuf::new();
        $(if let Some(value) = $value {
            properties.push(Property::$name(value));
        })*
        for (name, value) in $user {
            properties.push(Property::UserProperty((name, value)));
        }
        leak(properties).as_properties()
    }};
}

/// Left out where it is none.
fn topic(topic: &'static str) -> Option<TopicName<'static>> {
    TopicName::parse(topic, TopicLimits::NONE).ok()
}

fn of_5(packet: &'static v5::Packet) -> Packet<'static> {
    match packet {
        v5::Packet::Connect(it) => Packet::Connect(Connect {
            version: Version::V5,
            clean_start: it.clean_start,
            keep_alive_secs: it.keep_alive,
            properties: properties![
                SessionExpiryInterval: Some(it.session_expiry_interval_secs),
                ReceiveMaximum: it.receive_max,
                MaximumPacketSize: it.max_packet_size,
                TopicAliasMaximum: Some(it.topic_alias_max),
                RequestResponseInformation: Some(it.request_response_info),
                RequestProblemInformation: Some(it.request_problem_info),
                AuthenticationMethod: it.auth_method.as_deref(),
                AuthenticationData: it.auth_data.as_deref();
                &it.user_properties
            ],
            client_id: &it.client_id,
            will: it.last_will.as_ref().map(|will| Will {
                topic: &will.topic,
                payload: &will.message,
                qos: qos(will.qos),
                retain: will.retain,
                properties: properties![
                    WillDelayInterval: will.will_delay_interval_sec,
                    PayloadFormatIndicator: will.is_utf8_payload,
                    MessageExpiryInterval: will.message_expiry_interval.map(|secs| secs.get()),
                    ContentType: will.content_type.as_deref(),
                    ResponseTopic: will.response_topic.as_deref().and_then(topic),
                    CorrelationData: will.correlation_data.as_deref();
                    &will.user_properties
                ],
            }),
            user_name: it.username.as_deref(),
            password: it.password.as_deref(),
        }),
        v5::Packet::ConnectAck(it) => Packet::Connack(Connack {
            session_present: it.session_present,
            reason: reason(it.reason_code.into()),
            properties: properties![
                SessionExpiryInterval: it.session_expiry_interval_secs,
                ReceiveMaximum: Some(it.receive_max),
                MaximumQos: Some(qos(it.max_qos)).filter(|qos| *qos != Qos::ExactlyOnce),
                RetainAvailable: Some(it.retain_available),
                MaximumPacketSize: it.max_packet_size.and_then(|bytes| bytes.try_into().ok()),
                AssignedClientIdentifier: it.assigned_client_id.as_deref(),
                TopicAliasMaximum: Some(it.topic_alias_max),
                ReasonString: it.reason_string.as_deref(),
                WildcardSubscriptionAvailable: Some(it.wildcard_subscription_available),
                SubscriptionIdentifiersAvailable: Some(it.subscription_identifiers_available),
                SharedSubscriptionAvailable: Some(it.shared_subscription_available),
                ServerKeepAlive: it.server_keepalive_sec,
                ResponseInformation: it.response_info.as_deref(),
                ServerReference: it.server_reference.as_deref(),
                AuthenticationMethod: it.auth_method.as_deref(),
                AuthenticationData: it.auth_data.as_deref();
                &it.user_properties
            ],
        }),
        v5::Packet::Publish(it) => Packet::Publish(Publish {
            properties: it.properties.as_ref().map_or(Properties::EMPTY, |it| {
                let mut ids = PropertiesBuf::new();
                let one = properties![
                    PayloadFormatIndicator: Some(it.is_utf8_payload),
                    MessageExpiryInterval: it.message_expiry_interval.map(|secs| secs.get()),
                    TopicAlias: it.topic_alias,
                    ResponseTopic: it.response_topic.as_deref().and_then(topic),
                    CorrelationData: it.correlation_data.as_deref(),
                    ContentType: it.content_type.as_deref();
                    &it.user_properties
                ];
                for id in &it.subscription_ids {
                    let id = SubscriptionId::new(id.get()).expect("it fits its bytes");
                    ids.push(Property::SubscriptionIdentifier(id));
                }
                for property in one.iter() {
                    ids.push(property);
                }
                leak(ids).as_properties()
            }),
            ..publish(it)
        }),
        v5::Packet::PublishAck(it) => Packet::Puback(ack(
            it.packet_id,
            it.reason_code.into(),
            properties![ReasonString: it.reason_string.as_deref(); &it.properties],
        )),
        v5::Packet::PublishReceived(it) => Packet::Pubrec(ack(
            it.packet_id,
            it.reason_code.into(),
            properties![ReasonString: it.reason_string.as_deref(); &it.properties],
        )),
        v5::Packet::PublishRelease(it) => Packet::Pubrel(ack(
            it.packet_id,
            it.reason_code.into(),
            properties![ReasonString: it.reason_string.as_deref(); &it.properties],
        )),
        v5::Packet::PublishComplete(it) => Packet::Pubcomp(ack(
            it.packet_id,
            it.reason_code.into(),
            properties![ReasonString: it.reason_string.as_deref(); &it.properties],
        )),
        v5::Packet::Subscribe(it) => Packet::Subscribe(Subscribe {
            packet_id: it.packet_id,
            properties: properties![
                SubscriptionIdentifier: it.id.and_then(|id| SubscriptionId::new(id.get()));
                &it.user_properties
            ],
            filters: it
                .topic_filters
                .iter()
                .map(|(filter, options)| {
                    let options = SubscribeOptions {
                        qos: qos(options.qos),
                        no_local: options.no_local,
                        retain_as_published: options.retain_as_published,
                        retain_handling: match options.retain_handling {
                            v5::RetainHandling::AtSubscribe => RetainHandling::Send,
                            v5::RetainHandling::AtSubscribeNew => RetainHandling::SendIfNew,
                            v5::RetainHandling::NoAtSubscribe => RetainHandling::DoNotSend,
                        },
                    };
                    (&**filter, options)
                })
                .collect(),
        }),
        v5::Packet::SubscribeAck(it) => Packet::Suback(Suback {
            packet_id: it.packet_id,
            properties: properties![ReasonString: it.reason_string.as_deref(); &it.properties],
            reasons: it.status.iter().map(|&code| reason(code.into())).collect(),
        }),
        v5::Packet::Unsubscribe(it) => Packet::Unsubscribe(Unsubscribe {
            packet_id: it.packet_id,
            properties: properties![; &it.user_properties],
            filters: it.topic_filters.iter().map(|filter| &**filter).collect(),
        }),
        v5::Packet::UnsubscribeAck(it) => Packet::Unsuback(Unsuback {
            packet_id: it.packet_id,
            properties: properties![ReasonString: it.reason_string.as_deref(); &it.properties],
            reasons: it.status.iter().map(|&code| reason(code.into())).collect(),
        }),
        v5::Packet::PingRequest => Packet::Pingreq,
        v5::Packet::PingResponse => Packet::Pingresp,
        v5::Packet::Disconnect(it) => Packet::Disconnect(Disconnect {
            reason: reason(it.reason_code.into()),
            properties: properties![
                SessionExpiryInterval: it.session_expiry_interval_secs,
                ReasonString: it.reason_string.as_deref(),
                ServerReference: it.server_reference.as_deref();
                &it.user_properties
            ],
        }),
        v5::Packet::Auth(it) => Packet::Auth(Auth {
            reason: reason(it.reason_code.into()),
            properties: properties![
                AuthenticationMethod: it.auth_method.as_deref(),
                AuthenticationData: it.auth_data.as_deref(),
                ReasonString: it.reason_string.as_deref();
                &it.user_properties
            ],
        }),
    }
}

fn ack(packet_id: PacketId, code: u8, properties: Properties<'static>) -> Ack<'static> {
    Ack {
        packet_id,
        reason: reason(code),
        properties,
    }
}

fn publish(it: &'static rmqtt_codec::types::Publish) -> Publish<'static> {
    Publish {
        dup: it.dup,
        qos: qos(it.qos),
        retain: it.retain,
        topic: &it.topic,
        packet_id: it.packet_id,
        properties: Properties::EMPTY,
        payload: &it.payload,
    }
}

fn of_3(packet: &'static v3::Packet) -> Packet<'static> {
    match packet {
        v3::Packet::Connect(it) => Packet::Connect(Connect {
            version: match it.protocol.level() {
                3 => Version::V3_1,
                _ => Version::V3_1_1,
            },
            clean_start: it.clean_session,
            keep_alive_secs: it.keep_alive,
            properties: Properties::EMPTY,
            client_id: &it.client_id,
            will: it.last_will.as_ref().map(|will| Will {
                topic: &will.topic,
                payload: &will.message,
                qos: qos(will.qos),
                retain: will.retain,
                properties: Properties::EMPTY,
            }),
            user_name: it.username.as_deref(),
            password: it.password.as_deref(),
        }),
        v3::Packet::ConnectAck(it) => Packet::Connack(Connack {
            session_present: it.session_present,
            reason: match it.return_code {
                v3::ConnectAckReason::ConnectionAccepted => ReasonCode::Success,
                v3::ConnectAckReason::UnacceptableProtocolVersion => {
                    ReasonCode::UnsupportedProtocolVersion
                }
                v3::ConnectAckReason::IdentifierRejected => ReasonCode::ClientIdentifierNotValid,
                v3::ConnectAckReason::ServiceUnavailable => ReasonCode::ServerUnavailable,
                v3::ConnectAckReason::BadUserNameOrPassword => ReasonCode::BadUserNameOrPassword,
                v3::ConnectAckReason::NotAuthorized => ReasonCode::NotAuthorized,
                v3::ConnectAckReason::Reserved => ReasonCode::UnspecifiedError,
            },
            properties: Properties::EMPTY,
        }),
        v3::Packet::Publish(it) => Packet::Publish(publish(it)),
        v3::Packet::PublishAck { packet_id } => Packet::Puback(Ack::new(*packet_id)),
        v3::Packet::PublishReceived { packet_id } => Packet::Pubrec(Ack::new(*packet_id)),
        v3::Packet::PublishRelease { packet_id } => Packet::Pubrel(Ack::new(*packet_id)),
        v3::Packet::PublishComplete { packet_id } => Packet::Pubcomp(Ack::new(*packet_id)),
        v3::Packet::Subscribe {
            packet_id,
            topic_filters,
        } => Packet::Subscribe(Subscribe {
            packet_id: *packet_id,
            properties: Properties::EMPTY,
            filters: topic_filters
                .iter()
                .map(|(filter, level)| (&**filter, SubscribeOptions::new(qos(*level))))
                .collect(),
        }),
        v3::Packet::SubscribeAck { packet_id, status } => Packet::Suback(Suback {
            packet_id: *packet_id,
            properties: Properties::EMPTY,
            reasons: status
                .iter()
                .map(|status| match status {
                    v3::SubscribeReturnCode::Success(level) => ReasonCode::granted(qos(*level)),
                    v3::SubscribeReturnCode::Failure => ReasonCode::UnspecifiedError,
                })
                .collect(),
        }),
        v3::Packet::Unsubscribe {
            packet_id,
            topic_filters,
        } => Packet::Unsubscribe(Unsubscribe {
            packet_id: *packet_id,
            properties: Properties::EMPTY,
            filters: topic_filters.iter().map(|filter| &**filter).collect(),
        }),
        v3::Packet::UnsubscribeAck { packet_id } => Packet::Unsuback(Unsuback {
            packet_id: *packet_id,
            properties: Properties::EMPTY,
            reasons: vec![],
        }),
        v3::Packet::PingRequest => Packet::Pingreq,
        v3::Packet::PingResponse => Packet::Pingresp,
        v3::Packet::Disconnect => Packet::Disconnect(Disconnect {
            reason: ReasonCode::Success,
            properties: Properties::EMPTY,
        }),
    }
}
