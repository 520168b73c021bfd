//! Packets and reasons in words, for a person.
//!
//! Pure. Leaves out what is secret or long: passwords, authentication data,
//! payloads.

use crate::message::PacketId;
use crate::protocol::{
    Ack, Packet, Properties, Property, ReasonCode, RetainHandling, SubscribeOptions,
};

/// A reason as words: `NotAuthorized` as `not authorized (0x87)`.
pub fn words(reason: ReasonCode) -> String {
    format!(
        "{} (0x{:02X})",
        reason.word().replace('-', " "),
        reason as u8
    )
}

/// A reason as words, what the broker says of it, and where it sends us.
pub fn why(reason: ReasonCode, properties: Properties<'_>) -> String {
    let mut text = words(reason);
    for property in properties.iter() {
        match property {
            Property::ReasonString(said) => text += &format!(": {said:?}"),
            Property::ServerReference(place) => text += &format!("; use the server {place:?}"),
            _ => {}
        }
    }
    text
}

/// A packet in a line, with all its properties.
pub fn packet(packet: &Packet<'_>) -> String {
    match packet {
        Packet::Connect(connect) => {
            let mut text = format!(
                "CONNECT as {:?}, clean session {}, keep alive {} s, user {:?}, will {:?}{}",
                connect.client_id,
                u8::from(connect.clean_start),
                connect.keep_alive_secs,
                connect.user_name,
                connect.will.as_ref().map(|will| will.topic),
                of(connect.properties)
            );
            if let Some(will) = &connect.will
                && !will.properties.is_empty()
            {
                text += &format!("; of the will: {}", listed(will.properties));
            }
            text
        }
        Packet::Connack(connack) => format!(
            "CONNACK: {}, session present {}{}",
            words(connack.reason),
            u8::from(connack.session_present),
            of(connack.properties)
        ),
        Packet::Publish(publish) => format!(
            "PUBLISH {} to {:?}: QoS {}, dup {}, retain {}, {} bytes{}",
            publish.packet_id.map_or(0, PacketId::get),
            publish.topic,
            publish.qos as u8,
            u8::from(publish.dup),
            u8::from(publish.retain),
            publish.payload.len(),
            of(publish.properties)
        ),
        Packet::Puback(ack) => acknowledgement("PUBACK", ack),
        Packet::Pubrec(ack) => acknowledgement("PUBREC", ack),
        Packet::Pubrel(ack) => acknowledgement("PUBREL", ack),
        Packet::Pubcomp(ack) => acknowledgement("PUBCOMP", ack),
        Packet::Subscribe(subscribe) => {
            let filters = subscribe.filters.iter();
            let filters: Vec<_> = filters
                .map(|(filter, options)| format!("{filter:?} at {}", subscription(*options)))
                .collect();
            format!(
                "SUBSCRIBE {}: {}{}",
                subscribe.packet_id,
                filters.join(", "),
                of(subscribe.properties)
            )
        }
        Packet::Suback(suback) => format!(
            "SUBACK {}: {}{}",
            suback.packet_id,
            reasons(&suback.reasons, |reason| match reason as u8 {
                qos @ 0..=2 => format!("granted QoS {qos}"),
                _ => words(reason),
            }),
            of(suback.properties)
        ),
        Packet::Unsubscribe(unsubscribe) => format!(
            "UNSUBSCRIBE {}: {:?}{}",
            unsubscribe.packet_id,
            unsubscribe.filters,
            of(unsubscribe.properties)
        ),
        // Without reasons before MQTT 5.
        Packet::Unsuback(unsuback) if unsuback.reasons.is_empty() => {
            format!("UNSUBACK {}", unsuback.packet_id)
        }
        Packet::Unsuback(unsuback) => format!(
            "UNSUBACK {}: {}{}",
            unsuback.packet_id,
            reasons(&unsuback.reasons, words),
            of(unsuback.properties)
        ),
        Packet::Pingreq => "PINGREQ".to_owned(),
        Packet::Pingresp => "PINGRESP".to_owned(),
        Packet::Disconnect(disconnect) => format!(
            "DISCONNECT: {}{}",
            words(disconnect.reason),
            of(disconnect.properties)
        ),
        Packet::Auth(auth) => format!("AUTH: {}{}", words(auth.reason), of(auth.properties)),
    }
}

fn acknowledgement(name: &str, ack: &Ack<'_>) -> String {
    let (reason, properties) = (words(ack.reason), of(ack.properties));
    format!("{name} {}: {reason}{properties}", ack.packet_id)
}

fn reasons(reasons: &[ReasonCode], words: fn(ReasonCode) -> String) -> String {
    let words: Vec<_> = reasons.iter().copied().map(words).collect();
    words.join(", ")
}

fn subscription(options: SubscribeOptions) -> String {
    let mut text = format!("QoS {}", options.qos as u8);
    if options.no_local {
        text += ", no local";
    }
    if options.retain_as_published {
        text += ", retain as published";
    }
    text += match options.retain_handling {
        RetainHandling::Send => "",
        RetainHandling::SendIfNew => ", retained if new",
        RetainHandling::DoNotSend => ", retained never",
    };
    text
}

/// The properties, as what follows the rest of a packet.
fn of(properties: Properties<'_>) -> String {
    match properties.is_empty() {
        true => String::new(),
        false => format!("; {}", listed(properties)),
    }
}

fn listed(properties: Properties<'_>) -> String {
    let properties: Vec<_> = properties.iter().map(property).collect();
    properties.join(", ")
}

/// A property, named as after `-D`, and its value.
fn property(property: Property<'_>) -> String {
    let name = property.name();
    match property {
        Property::PayloadFormatIndicator(bit)
        | Property::RequestProblemInformation(bit)
        | Property::RequestResponseInformation(bit)
        | Property::RetainAvailable(bit)
        | Property::WildcardSubscriptionAvailable(bit)
        | Property::SubscriptionIdentifiersAvailable(bit)
        | Property::SharedSubscriptionAvailable(bit) => format!("{name} {}", u8::from(bit)),
        Property::MessageExpiryInterval(number)
        | Property::SessionExpiryInterval(number)
        | Property::WillDelayInterval(number) => format!("{name} {number}"),
        Property::ServerKeepAlive(number) | Property::TopicAliasMaximum(number) => {
            format!("{name} {number}")
        }
        Property::ReceiveMaximum(number) | Property::TopicAlias(number) => {
            format!("{name} {number}")
        }
        Property::MaximumPacketSize(number) => format!("{name} {number}"),
        Property::MaximumQos(qos) => format!("{name} {}", qos as u8),
        Property::SubscriptionIdentifier(id) => format!("{name} {}", id.get()),
        Property::ContentType(text)
        | Property::AssignedClientIdentifier(text)
        | Property::AuthenticationMethod(text)
        | Property::ResponseInformation(text)
        | Property::ServerReference(text)
        | Property::ReasonString(text) => format!("{name} {text:?}"),
        Property::ResponseTopic(topic) => format!("{name} {:?}", topic.as_str()),
        Property::CorrelationData(bytes) => format!("{name} \"{}\"", bytes.escape_ascii()),
        Property::AuthenticationData(bytes) => format!("{name} of {} bytes", bytes.len()),
        Property::UserProperty((key, value)) => format!("{name} {key:?} {value:?}"),
    }
}
