//! Any packet that a version can say.

use std::num::{NonZeroU16, NonZeroU32};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use rotamq::message::{PacketId, Qos};
use rotamq::protocol::*;
use rotamq::topic::{TopicLimits, TopicName};

use super::leak;

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
    let refusal = match version {
        Version::V5 => vec![
            ReasonCode::UnsupportedProtocolVersion,
            ReasonCode::ServerMoved,
            ReasonCode::QuotaExceeded,
        ],
        _ => vec![
            ReasonCode::UnsupportedProtocolVersion,
            ReasonCode::ClientIdentifierNotValid,
            ReasonCode::ServerUnavailable,
            ReasonCode::BadUserNameOrPassword,
            ReasonCode::NotAuthorized,
        ],
    };
    let refusal = prop::sample::select(refusal);
    let outcome = prop_oneof![
        any::<bool>().prop_map(move |present| {
            (present && version != Version::V3_1, ReasonCode::Success)
        }),
        refusal.prop_map(|reason| (false, reason)),
    ];
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
    let reasons = match (version, packet_type) {
        (Version::V5, PacketType::Puback | PacketType::Pubrec) => vec![
            ReasonCode::Success,
            ReasonCode::NoMatchingSubscribers,
            ReasonCode::QuotaExceeded,
        ],
        (Version::V5, _) => vec![ReasonCode::Success, ReasonCode::PacketIdentifierNotFound],
        _ => vec![ReasonCode::Success],
    };
    let properties = properties(version, packet_type);
    (packet_id(), prop::sample::select(reasons), properties).prop_map(
        |(packet_id, reason, properties)| Ack {
            packet_id,
            reason,
            properties,
        },
    )
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
    let reason = prop::sample::select(vec![
        ReasonCode::Success,
        ReasonCode::GrantedQos1,
        ReasonCode::GrantedQos2,
        ReasonCode::UnspecifiedError,
    ]);
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
    let reason = prop::sample::select(vec![
        ReasonCode::Success,
        ReasonCode::NoSubscriptionExisted,
        ReasonCode::NotAuthorized,
    ]);
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
    let reasons = match version {
        Version::V5 => vec![
            ReasonCode::Success,
            ReasonCode::DisconnectWithWill,
            ReasonCode::SessionTakenOver,
        ],
        _ => vec![ReasonCode::Success],
    };
    (
        prop::sample::select(reasons),
        properties(version, PacketType::Disconnect),
    )
        .prop_map(|(reason, properties)| Disconnect { reason, properties })
}

fn auth() -> impl Strategy<Value = Auth<'static>> {
    (text(), option::of(binary()), any::<bool>()).prop_map(|(method, data, again)| {
        let mut properties = PropertiesBuf::new();
        properties.push(Property::AuthenticationMethod(method));
        if let Some(data) = data {
            properties.push(Property::AuthenticationData(data));
        }
        Auth {
            reason: match again {
                true => ReasonCode::ReAuthenticate,
                false => ReasonCode::ContinueAuthentication,
            },
            properties: leak(properties).as_properties(),
        }
    })
}

/// A choice of the properties that the packet may have, in their order.
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
            AuthenticationMethod: text(),
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
            MaximumQos: Just(Qos::AtLeastOnce),
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
            SubscriptionIdentifier: subscription_id,
            ContentType: text(),
        ],
        PacketType::Subscribe => some![SubscriptionIdentifier: subscription_id],
        PacketType::Disconnect => some![
            SessionExpiryInterval: any::<u32>(),
            ReasonString: text(),
            ServerReference: text(),
        ],
        PacketType::Unsubscribe => vec![],
        _ => some![ReasonString: text()],
    };
    (single, vec(user_property, 0..3))
        .prop_map(|(single, user)| {
            let mut properties = PropertiesBuf::new();
            for property in single.into_iter().flatten().chain(user) {
                properties.push(property);
            }
            leak(properties).as_properties()
        })
        .boxed()
}
