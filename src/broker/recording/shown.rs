//! A packet that was recorded, as values for JSON: what each field is called
//! there.

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Direction;
use super::kept::{Content, Record};
use crate::base64;
use crate::broker::steer::shown_payload;
use crate::message::PacketId;
use crate::protocol::{
    Ack, Connect, Packet, PacketType, Properties, Property, Publish, ReasonCode, RetainHandling,
    SubscribeOptions, decode,
};
use crate::session::version;

/// A packet of a recording. What a packet of its type does not have is not
/// there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct PacketView {
    /// From 1, in the order in which they were recorded.
    pub number: u64,
    /// In microseconds since 1970: when it was read, or ready to be written.
    pub at_us: u64,
    pub direction: Direction,
    pub client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where the client is, with its port; or `unix`.
    pub address: String,
    /// Of the protocol: `3.1`, `3.1.1` or `5.0`.
    pub version: String,
    /// The type, as in `PUBLISH`; `malformed`: it could not be read.
    pub packet: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packet_id: Option<u16>,
    /// As the client names it; of an alias that nobody has seen being set, empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The packet has an alias in place of the topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_alias: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dup: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retain: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_bytes: Option<u32>,
    /// As much as was asked for; if it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// And if it is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// The reason code, and its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason_name: Option<String>,
    /// Of SUBACK and UNSUBACK: one for each filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasons: Option<Vec<u8>>,
    /// Of SUBSCRIBE and UNSUBSCRIBE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filters: Option<Vec<FilterView>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_present: Option<bool>,
    /// Of CONNECT, like all that follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clean_start: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_alive_secs: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_name: Option<String>,
    /// Whether there was one: passwords are not recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub has_password: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub will: Option<ConnectWillView>,
    /// In their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub properties: Vec<PropertyView>,
    /// Why it could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A filter of a SUBSCRIBE, with its options, or of an UNSUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct FilterView {
    pub filter: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_local: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retain_as_published: Option<bool>,
    /// 0: retained messages are sent; 1: if the subscription is new; 2: not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retain_handling: Option<u8>,
}

/// The will in a CONNECT.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ConnectWillView {
    pub topic: String,
    pub qos: u8,
    pub retain: bool,
    pub payload_bytes: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub properties: Vec<PropertyView>,
}

/// A property (MQTT 5, 2.2.2.2).
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct PropertyView {
    /// As in `content-type`.
    pub name: String,
    /// A number, a text, true or false; `[name, value]` of a user property;
    /// base64 of correlation data; null of authentication data, which is not
    /// recorded.
    pub value: Value,
}

impl Record {
    pub fn view(&self, number: u64) -> PacketView {
        let identity = &self.identity;
        let mut view = PacketView {
            number,
            at_us: self.at.as_micros(),
            direction: self.direction,
            client: identity.client.as_str().to_owned(),
            user: identity.user.as_deref().map(str::to_owned),
            address: (self.address).map_or_else(|| "unix".to_owned(), |ip| ip.to_string()),
            version: version(self.wire).to_owned(),
            ..PacketView::default()
        };
        let malformed: &str = match &self.content {
            Content::Packet(bytes) => match decode(bytes, self.wire, usize::MAX) {
                Ok(Some((packet, _))) => {
                    self.fill(&mut view, &packet);
                    return view;
                }
                Ok(None) => "it was not kept whole",
                Err(error) => error.what,
            },
            Content::Malformed(what) => what,
        };
        view.packet = "malformed".to_owned();
        view.error = Some(malformed.to_owned());
        view
    }

    fn fill(&self, view: &mut PacketView, packet: &Packet<'_>) {
        view.packet = type_name(packet.packet_type()).to_owned();
        let properties = match packet {
            Packet::Connect(connect) => {
                self.fill_connect(view, connect);
                connect.properties
            }
            Packet::Connack(connack) => {
                view.session_present = Some(connack.session_present);
                view.set_reason(connack.reason);
                connack.properties
            }
            Packet::Publish(publish) => {
                self.fill_publish(view, publish);
                publish.properties
            }
            Packet::Puback(ack)
            | Packet::Pubrec(ack)
            | Packet::Pubrel(ack)
            | Packet::Pubcomp(ack) => {
                let Ack {
                    packet_id,
                    reason,
                    properties,
                } = ack;
                view.packet_id = Some(packet_id.get());
                view.set_reason(*reason);
                *properties
            }
            Packet::Subscribe(subscribe) => {
                view.packet_id = Some(subscribe.packet_id.get());
                let filters = subscribe.filters.iter();
                view.filters = Some(filters.map(|filter| subscribed(*filter)).collect());
                subscribe.properties
            }
            Packet::Suback(suback) => {
                view.packet_id = Some(suback.packet_id.get());
                view.set_reasons(&suback.reasons);
                suback.properties
            }
            Packet::Unsubscribe(unsubscribe) => {
                view.packet_id = Some(unsubscribe.packet_id.get());
                let filters = unsubscribe.filters.iter();
                view.filters = Some(filters.map(|filter| unsubscribed(filter)).collect());
                unsubscribe.properties
            }
            Packet::Unsuback(unsuback) => {
                view.packet_id = Some(unsuback.packet_id.get());
                view.set_reasons(&unsuback.reasons);
                unsuback.properties
            }
            Packet::Pingreq | Packet::Pingresp => Properties::EMPTY,
            Packet::Disconnect(disconnect) => {
                view.set_reason(disconnect.reason);
                disconnect.properties
            }
            Packet::Auth(auth) => {
                view.set_reason(auth.reason);
                auth.properties
            }
        };
        view.properties = listed(properties);
    }

    fn fill_connect(&self, view: &mut PacketView, connect: &Connect<'_>) {
        view.clean_start = Some(connect.clean_start);
        view.keep_alive_secs = Some(connect.keep_alive_secs);
        view.user_name = connect.user_name.map(str::to_owned);
        view.has_password = Some(connect.password.is_some());
        view.will = connect.will.as_ref().map(|will| {
            let (payload, payload_base64) = self.payload(will.payload);
            ConnectWillView {
                topic: will.topic.to_owned(),
                qos: will.qos as u8,
                retain: will.retain,
                payload_bytes: self.payload_bytes,
                payload,
                payload_base64,
                properties: listed(will.properties),
            }
        });
    }

    fn fill_publish(&self, view: &mut PacketView, publish: &Publish<'_>) {
        view.packet_id = publish.packet_id.map(PacketId::get);
        view.topic = Some(self.topic.as_deref().unwrap_or(publish.topic).to_owned());
        view.by_alias = publish.topic.is_empty().then_some(true);
        view.qos = Some(publish.qos as u8);
        view.dup = Some(publish.dup);
        view.retain = Some(publish.retain);
        view.payload_bytes = Some(self.payload_bytes);
        (view.payload, view.payload_base64) = self.payload(publish.payload);
    }

    /// What was kept of a payload, as text if that is some, or else as base64;
    /// nothing, if nothing was.
    fn payload(&self, kept: &[u8]) -> (Option<String>, Option<String>) {
        if kept.is_empty() {
            return (None, None);
        }
        // It may have been cut within a character.
        let is_cut = kept.len() < self.payload_bytes as usize;
        let kept = match std::str::from_utf8(kept) {
            Err(error) if is_cut && error.error_len().is_none() && error.valid_up_to() > 0 => {
                &kept[..error.valid_up_to()]
            }
            _ => kept,
        };
        shown_payload(kept, kept.len())
    }
}

impl PacketView {
    fn set_reason(&mut self, reason: ReasonCode) {
        self.reason = Some(reason as u8);
        self.reason_name = Some(reason.word());
    }

    fn set_reasons(&mut self, reasons: &[ReasonCode]) {
        self.reasons = Some(reasons.iter().map(|reason| *reason as u8).collect());
    }
}

fn subscribed((filter, options): (&str, SubscribeOptions)) -> FilterView {
    let retain_handling = match options.retain_handling {
        RetainHandling::Send => 0,
        RetainHandling::SendIfNew => 1,
        RetainHandling::DoNotSend => 2,
    };
    FilterView {
        filter: filter.to_owned(),
        qos: Some(options.qos as u8),
        no_local: Some(options.no_local),
        retain_as_published: Some(options.retain_as_published),
        retain_handling: Some(retain_handling),
    }
}

fn unsubscribed(filter: &str) -> FilterView {
    FilterView {
        filter: filter.to_owned(),
        qos: None,
        no_local: None,
        retain_as_published: None,
        retain_handling: None,
    }
}

/// Properties, in the order in which they stand.
pub(crate) fn listed(properties: Properties<'_>) -> Vec<PropertyView> {
    let property = |property: Property<'_>| PropertyView {
        name: property.name(),
        value: value(property),
    };
    properties.iter().map(property).collect()
}

fn value(property: Property<'_>) -> Value {
    match property {
        Property::PayloadFormatIndicator(bit)
        | Property::RequestProblemInformation(bit)
        | Property::RequestResponseInformation(bit)
        | Property::RetainAvailable(bit)
        | Property::WildcardSubscriptionAvailable(bit)
        | Property::SubscriptionIdentifiersAvailable(bit)
        | Property::SharedSubscriptionAvailable(bit) => json!(bit),
        Property::MessageExpiryInterval(number)
        | Property::SessionExpiryInterval(number)
        | Property::WillDelayInterval(number) => json!(number),
        Property::ServerKeepAlive(number) | Property::TopicAliasMaximum(number) => json!(number),
        Property::ReceiveMaximum(number) | Property::TopicAlias(number) => json!(number),
        Property::MaximumPacketSize(number) => json!(number),
        Property::MaximumQos(qos) => json!(qos as u8),
        Property::SubscriptionIdentifier(id) => json!(id.get()),
        Property::ContentType(text)
        | Property::AssignedClientIdentifier(text)
        | Property::AuthenticationMethod(text)
        | Property::ResponseInformation(text)
        | Property::ServerReference(text)
        | Property::ReasonString(text) => json!(text),
        Property::ResponseTopic(topic) => json!(topic.as_str()),
        Property::CorrelationData(bytes) => json!(base64::encode(bytes)),
        Property::AuthenticationData(_) => Value::Null,
        Property::UserProperty((name, value)) => json!([name, value]),
    }
}

fn type_name(packet_type: PacketType) -> &'static str {
    match packet_type {
        PacketType::Will => "WILL",
        PacketType::Connect => "CONNECT",
        PacketType::Connack => "CONNACK",
        PacketType::Publish => "PUBLISH",
        PacketType::Puback => "PUBACK",
        PacketType::Pubrec => "PUBREC",
        PacketType::Pubrel => "PUBREL",
        PacketType::Pubcomp => "PUBCOMP",
        PacketType::Subscribe => "SUBSCRIBE",
        PacketType::Suback => "SUBACK",
        PacketType::Unsubscribe => "UNSUBSCRIBE",
        PacketType::Unsuback => "UNSUBACK",
        PacketType::Pingreq => "PINGREQ",
        PacketType::Pingresp => "PINGRESP",
        PacketType::Disconnect => "DISCONNECT",
        PacketType::Auth => "AUTH",
    }
}
