//! Any packet that a version can say.

use std::num::{NonZeroU16, NonZeroU32};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use rotamq::message::{PacketId, Qos};
use rotamq::protocol::*;
use rotamq::topic::{TopicLimits, TopicName};

use super::{leak, lists};

pub fn version() -> impl Strategy<Value = Version> {
    prop_oneof![
        Just(Version::V3_1),
        Just(Version::V3_1_1),
        Just(Version::V5)
    ]
}

/// A packet of any type, without what encoding it for `version` leaves out.
pub fn packet(version: Version) -> BoxedStrategy<Packet<'static>> {
    let any_version = prop_oneof![
        connect(version).prop_map(Packet::Connect),
        connack(version).prop_map(Packet::Connack),
        publish(version).prop_map(Packet::Publish),
        ack(version, PacketType::Puback).prop_map(Packet::Puback),
        ack(version, PacketType::Pubrec).prop_map(Packet::Pubrec),
        ack(version, PacketType::Pubrel).prop_map(Packet::Pubrel),
        ack(version, PacketType::Pubcomp).prop_map(Packet::Pubcomp),
        subscribe(version).prop_map(Packet::Subscribe),
        suback(version).prop_map(Packet::Suback),
        unsubscribe(version).prop_map(Packet::Unsubscribe),
        unsuback(version).prop_map(Packet::Unsuback),
        Just(Packet::Pingreq),
        Just(Packet::Pingresp),
        disconnect(version).prop_map(Packet::Disconnect),
    ];
    if version == Version::V5 {
        prop_oneof![14 => any_version, 1 => auth().prop_map(Packet::Auth)].boxed()
    } else {
        any_version.boxed()
    }
}

pub fn text() -> impl Strategy<Value = &'static str> {
    "\\PC{0,40}".prop_map(|text| leak(text).as_str())
}

fn binary() -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), 0..200).prop_map(|bytes| leak(bytes).as_slice())
}

fn topic() -> impl Strategy<Value = &'static str> {
    "[a-z\u{E4}$ /]{1,150}".prop_map(|text| leak(text).as_str())
}

pub fn filter() -> impl Strategy<Value = &'static str> {
    "([a-z]{1,3}|\\+)(/([a-z]{0,3}|\\+)){0,5}(/#)?".prop_map(|text| leak(text).as_str())
}

fn qos() -> impl Strategy<Value = Qos> {
    prop_oneof![
        Just(Qos::AtMostOnce),
        Just(Qos::AtLeastOnce),
        Just(Qos::ExactlyOnce)
    ]
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    any::<NonZeroU16>()
}

/// The code that a number means.
pub fn reason(code: u8) -> ReasonCode {
    use ReasonCode::*;
    #[rustfmt::skip]
    let all = [
        Success, GrantedQos1, GrantedQos2, DisconnectWithWill, NoMatchingSubscribers, NoSubscriptionExisted,
        ContinueAuthentication, ReAuthenticate, UnspecifiedError, MalformedPacket, ProtocolError,
        ImplementationSpecificError, UnsupportedProtocolVersion, ClientIdentifierNotValid,
        BadUserNameOrPassword, NotAuthorized, ServerUnavailable, ServerBusy, Banned, ServerShuttingDown,
        BadAuthenticationMethod, KeepAliveTimeout, SessionTakenOver, TopicFilterInvalid, TopicNameInvalid,
        PacketIdentifierInUse, PacketIdentifierNotFound, ReceiveMaximumExceeded, TopicAliasInvalid,
        PacketTooLarge, MessageRateTooHigh, QuotaExceeded, AdministrativeAction, PayloadFormatInvalid,
        RetainNotSupported, QosNotSupported, UseAnotherServer, ServerMoved, SharedSubscriptionsNotSupported,
        ConnectionRateExceeded, MaximumConnectTime, SubscriptionIdentifiersNotSupported,
        WildcardSubscriptionsNotSupported,
    ];
    let found = all.into_iter().find(|reason| *reason as u8 == code);
    found.unwrap_or_else(|| panic!("2.4 has no 0x{code:02X}"))
}

/// Any code that the packet may have in MQTT 5; `before_5` otherwise.
fn reasons(
    version: Version,
    packet: PacketType,
    before_5: &[ReasonCode],
) -> impl Strategy<Value = ReasonCode> + use<> {
    prop::sample::select(match version {
        Version::V5 => lists::reasons(packet)
            .iter()
            .map(|&code| reason(code))
            .collect(),
        _ => before_5.to_vec(),
    })
}

fn connect(version: Version) -> impl Strategy<Value = Connect<'static>> {
    let will = (
        topic(),
        binary(),
        qos(),
        any::<bool>(),
        properties(version, PacketType::Will),
    )
        .prop_map(|(topic, payload, qos, retain, properties)| Will {
            topic,
            payload,
            qos,
            retain,
            properties,
        });
    (
        any::<bool>(),
        any::<u16>(),
        properties(version, PacketType::Connect),
        text(),
        option::of(will),
        option::of(text()),
        option::of(binary()),
    )
        .prop_map(
            move |(
                clean_start,
                keep_alive_secs,
                properties,
                client_id,
                will,
                user_name,
                password,
            )| {
                Connect {
                    version,
                    clean_start,
                    keep_alive_secs,
                    properties,
                    client_id,
                    will,
                    user_name,
                    password: password.filter(|_| user_name.is_some() || version == Version::V5),
                }
            },
        )
}

fn connack(version: Version) -> impl Strategy<Value = Connack<'static>> {
    let before_5 = [
        ReasonCode::Success,
        ReasonCode::UnsupportedProtocolVersion,
        ReasonCode::ClientIdentifierNotValid,
        ReasonCode::ServerUnavailable,
        ReasonCode::BadUserNameOrPassword,
        ReasonCode::NotAuthorized,
    ];
    let refusal = reasons(version, PacketType::Connack, &before_5);
    let outcome = (any::<bool>(), refusal).prop_map(move |(present, reason)| {
        let present = present && version != Version::V3_1 && reason == ReasonCode::Success;
        (present, reason)
    });
    (outcome, properties(version, PacketType::Connack)).prop_map(
        |((session_present, reason), properties)| Connack {
            session_present,
            reason,
            properties,
        },
    )
}

pub fn publish(version: Version) -> impl Strategy<Value = Publish<'static>> {
    let payload = prop_oneof![
        4 => vec(any::<u8>(), 0..100),
        1 => vec(any::<u8>(), 16_000..17_000),
    ];
    (
        any::<bool>(),
        qos(),
        any::<bool>(),
        topic(),
        packet_id(),
        properties(version, PacketType::Publish),
        payload.prop_map(|bytes| leak(bytes).as_slice()),
    )
        .prop_map(
            |(dup, qos, retain, topic, packet_id, properties, payload)| Publish {
                dup: dup && qos != Qos::AtMostOnce,
                qos,
                retain,
                topic,
                packet_id: (qos != Qos::AtMostOnce).then_some(packet_id),
                properties,
                payload,
            },
        )
}

fn ack(version: Version, packet_type: PacketType) -> impl Strategy<Value = Ack<'static>> {
    (
        packet_id(),
        reasons(version, packet_type, &[ReasonCode::Success]),
        properties(version, packet_type),
    )
        .prop_map(|(packet_id, reason, properties)| Ack {
            packet_id,
            reason,
            properties,
        })
}

fn subscribe(version: Version) -> impl Strategy<Value = Subscribe<'static>> {
    let handling = prop_oneof![
        Just(RetainHandling::Send),
        Just(RetainHandling::SendIfNew),
        Just(RetainHandling::DoNotSend)
    ];
    let options = (qos(), any::<bool>(), any::<bool>(), handling).prop_map(
        move |(qos, no_local, retain_as_published, retain_handling)| match version {
            Version::V5 => SubscribeOptions {
                qos,
                no_local,
                retain_as_published,
                retain_handling,
            },
            _ => SubscribeOptions::new(qos),
        },
    );
    (
        packet_id(),
        properties(version, PacketType::Subscribe),
        vec((filter(), options), 1..8),
    )
        .prop_map(|(packet_id, properties, filters)| Subscribe {
            packet_id,
            properties,
            filters,
        })
}

fn suback(version: Version) -> impl Strategy<Value = Suback<'static>> {
    let before_5 = [
        ReasonCode::Success,
        ReasonCode::GrantedQos1,
        ReasonCode::GrantedQos2,
        ReasonCode::UnspecifiedError,
    ];
    let reason = reasons(version, PacketType::Suback, &before_5);
    (
        packet_id(),
        properties(version, PacketType::Suback),
        vec(reason, 1..8),
    )
        .prop_map(|(packet_id, properties, reasons)| Suback {
            packet_id,
            properties,
            reasons,
        })
}

fn unsubscribe(version: Version) -> impl Strategy<Value = Unsubscribe<'static>> {
    (
        packet_id(),
        properties(version, PacketType::Unsubscribe),
        vec(filter(), 1..8),
    )
        .prop_map(|(packet_id, properties, filters)| Unsubscribe {
            packet_id,
            properties,
            filters,
        })
}

fn unsuback(version: Version) -> impl Strategy<Value = Unsuback<'static>> {
    let reason = reasons(version, PacketType::Unsuback, &[ReasonCode::Success]);
    let count = if version == Version::V5 { 1..8 } else { 0..1 };
    (
        packet_id(),
        properties(version, PacketType::Unsuback),
        vec(reason, count),
    )
        .prop_map(|(packet_id, properties, reasons)| Unsuback {
            packet_id,
            properties,
            reasons,
        })
}

fn disconnect(version: Version) -> impl Strategy<Value = Disconnect<'static>> {
    (
        reasons(version, PacketType::Disconnect, &[ReasonCode::Success]),
        properties(version, PacketType::Disconnect),
    )
        .prop_map(|(reason, properties)| Disconnect { reason, properties })
}

fn auth() -> impl Strategy<Value = Auth<'static>> {
    let reason = reasons(Version::V5, PacketType::Auth, &[]);
    let properties = properties(Version::V5, PacketType::Auth);
    (text(), option::of(binary()), reason, properties).prop_map(|(method, data, reason, more)| {
        Auth {
            reason,
            properties: with_authentication(method, data, more),
        }
    })
}

/// An authentication method, which data only comes with, and other properties.
fn with_authentication(
    method: &str,
    data: Option<&[u8]>,
    more: Properties<'_>,
) -> Properties<'static> {
    let mut properties = PropertiesBuf::new();
    if let Some(data) = data {
        properties.push(Property::AuthenticationData(data));
    }
    properties.push(Property::AuthenticationMethod(method));
    for property in more.iter() {
        properties.push(property);
    }
    leak(properties).as_properties()
}

/// A choice of the properties that the packet may have, in any order.
fn properties(version: Version, packet_type: PacketType) -> BoxedStrategy<Properties<'static>> {
    if version != Version::V5 {
        return Just(Properties::EMPTY).boxed();
    }
    let response_topic = topic().prop_map(|topic| {
        TopicName::parse(topic, TopicLimits::NONE).expect("a generated topic is a topic")
    });
    let subscription_id = (1..=SubscriptionId::MAX)
        .prop_map(|id| SubscriptionId::new(id).expect("it is within bounds"));
    let user_property = (text(), text()).prop_map(Property::UserProperty);
    macro_rules! some {
        ($($property:ident: $value:expr),+ $(,)?) => {
            vec![$(option::of($value.prop_map(Property::$property)).boxed()),+]
        };
    }
    let single: Vec<BoxedStrategy<Option<Property<'static>>>> = match packet_type {
        PacketType::Connect => some![
            SessionExpiryInterval: any::<u32>(),
            ReceiveMaximum: any::<NonZeroU16>(),
            MaximumPacketSize: any::<NonZeroU32>(),
            TopicAliasMaximum: any::<u16>(),
            RequestResponseInformation: any::<bool>(),
            RequestProblemInformation: any::<bool>(),
        ],
        PacketType::Will => some![
            WillDelayInterval: any::<u32>(),
            PayloadFormatIndicator: any::<bool>(),
            MessageExpiryInterval: any::<u32>(),
            ContentType: text(),
            ResponseTopic: response_topic,
            CorrelationData: binary(),
        ],
        PacketType::Connack => some![
            SessionExpiryInterval: any::<u32>(),
            ReceiveMaximum: any::<NonZeroU16>(),
            MaximumQos: prop_oneof![Just(Qos::AtMostOnce), Just(Qos::AtLeastOnce)],
            RetainAvailable: any::<bool>(),
            MaximumPacketSize: any::<NonZeroU32>(),
            AssignedClientIdentifier: text(),
            TopicAliasMaximum: any::<u16>(),
            ReasonString: text(),
            WildcardSubscriptionAvailable: any::<bool>(),
            SubscriptionIdentifiersAvailable: any::<bool>(),
            SharedSubscriptionAvailable: any::<bool>(),
            ServerKeepAlive: any::<u16>(),
            ResponseInformation: text(),
            ServerReference: text(),
        ],
        PacketType::Publish => some![
            PayloadFormatIndicator: any::<bool>(),
            MessageExpiryInterval: any::<u32>(),
            TopicAlias: any::<NonZeroU16>(),
            ResponseTopic: response_topic,
            CorrelationData: binary(),
            ContentType: text(),
        ],
        PacketType::Subscribe => some![SubscriptionIdentifier: subscription_id.clone()],
        PacketType::Disconnect => some![
            SessionExpiryInterval: any::<u32>(),
            ReasonString: text(),
            ServerReference: text(),
        ],
        PacketType::Unsubscribe => vec![],
        _ => some![ReasonString: text()],
    };
    // Those that may stand there twice.
    let many = match packet_type {
        PacketType::Publish => prop_oneof![
            user_property,
            subscription_id.prop_map(Property::SubscriptionIdentifier),
        ]
        .boxed(),
        _ => user_property.boxed(),
    };
    let authentication = match packet_type {
        PacketType::Connect | PacketType::Connack => {
            option::of((text(), option::of(binary()))).boxed()
        }
        _ => Just(None).boxed(),
    };
    let all = (single, vec(many, 0..4)).prop_map(|(single, many)| {
        let all: Vec<_> = single.into_iter().flatten().chain(many).collect();
        all
    });
    (all.prop_shuffle(), authentication)
        .prop_map(|(all, authentication)| {
            let mut properties = PropertiesBuf::new();
            for property in all {
                properties.push(property);
            }
            match authentication {
                Some((method, data)) => {
                    with_authentication(method, data, properties.as_properties())
                }
                None => leak(properties).as_properties(),
            }
        })
        .boxed()
}
