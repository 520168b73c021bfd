//! Publishing by hand.

use std::sync::Arc;

use axum::Json;
use axum::extract::{DefaultBodyLimit, State as Shares};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::guard::Operator;
use crate::admin::page::Body;
use crate::admin::problem::{self, Problem};
use crate::admin::{State, cut};
use crate::base64;
use crate::broker::look::{Outgoing, Published};
use crate::message::Qos;
use crate::net::with_worker;
use crate::protocol::{PacketType, Properties, PropertiesBuf, Property};
use crate::topic::{TopicLimits, TopicName};

/// The longest text of a packet (1.5.4).
const TEXT_BYTES_MAX: usize = 65_535;
/// Of a request: a payload in base64 fits.
const BODY_BYTES_MAX: usize = 8 << 20;

pub(super) fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new()
        .routes(routes!(publish))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

/// A message. Without a payload it is empty, which takes away what is retained.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewMessage {
    /// As a client writes it: `$queue/NAME` puts into a queue,
    /// `$delayed/SECONDS/TOPIC` puts off.
    #[schema(min_length = 1)]
    topic: String,
    /// As text.
    payload: Option<String>,
    /// In base64, instead.
    payload_base64: Option<String>,
    #[serde(default)]
    #[schema(maximum = 2)]
    qos: u8,
    #[serde(default)]
    retain: bool,
    #[serde(default)]
    properties: MessageProperties,
}

/// What receivers of MQTT 5 are told with it, and what queues ask for as user
/// properties.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct MessageProperties {
    /// Whether the payload is UTF-8.
    #[serde(default)]
    payload_format_indicator: bool,
    #[schema(value_type = Option<u64>, maximum = 4_294_967_295_u64)]
    message_expiry_interval_secs: Option<u32>,
    content_type: Option<String>,
    response_topic: Option<String>,
    correlation_data_base64: Option<String>,
    /// Names and values, in their order.
    #[serde(default)]
    #[schema(value_type = Vec<Vec<String>>)]
    user_properties: Vec<(String, String)>,
}

impl MessageProperties {
    fn encode(&self) -> Result<PropertiesBuf, Problem> {
        let mut encoded = PropertiesBuf::new();
        if self.payload_format_indicator {
            encoded.push(Property::PayloadFormatIndicator(true));
        }
        if let Some(secs) = self.message_expiry_interval_secs {
            encoded.push(Property::MessageExpiryInterval(secs));
        }
        if let Some(text) = &self.content_type {
            check_len("content_type", text.len())?;
            encoded.push(Property::ContentType(text));
        }
        if let Some(topic) = &self.response_topic {
            check_len("response_topic", topic.len())?;
            let topic = TopicName::parse(topic, TopicLimits::NONE);
            let topic = topic
                .map_err(|error| Problem::invalid(format!("response_topic is none: {error}")))?;
            encoded.push(Property::ResponseTopic(topic));
        }
        if let Some(text) = &self.correlation_data_base64 {
            let data = decode("correlation_data_base64", text)?;
            check_len("correlation_data_base64", data.len())?;
            encoded.push(Property::CorrelationData(&data));
        }
        for (name, value) in &self.user_properties {
            check_len("a user property", name.len().max(value.len()))?;
            encoded.push(Property::UserProperty((name, value)));
        }
        // As those of a client: no text has a zero in it.
        let bytes = encoded.as_properties().as_bytes();
        Properties::parse(bytes, PacketType::Publish)
            .map_err(|error| Problem::invalid(format!("properties: {}", error.what)))?;
        Ok(encoded)
    }
}

fn check_len(what: &str, bytes: usize) -> Result<(), Problem> {
    match bytes <= TEXT_BYTES_MAX {
        true => Ok(()),
        false => Err(Problem::invalid(format!(
            "{what} has at most {TEXT_BYTES_MAX} bytes"
        ))),
    }
}

fn decode(what: &str, text: &str) -> Result<Vec<u8>, Problem> {
    base64::decode(text).ok_or_else(|| Problem::invalid(format!("{what} is no base64")))
}

/// Publishes a message in the broker's own name: to subscribers, into queues, to
/// be retained, as a client's. It is stored by all who have to store it when the
/// answer comes. No access rule is asked.
#[utoipa::path(post, path = "/publish", tag = "publishing", request_body = NewMessage,
    responses((status = 200, body = Published), (status = "default", body = Problem)))]
async fn publish(
    Operator(who): Operator,
    Shares(state): Shares<Arc<State>>,
    Body(message): Body<NewMessage>,
) -> problem::Result<Published> {
    let decoded;
    let payload = match (&message.payload, &message.payload_base64) {
        (Some(_), Some(_)) => {
            let why = "there is one payload: payload or payload_base64, not both";
            return Err(Problem::invalid(why));
        }
        (Some(text), None) => text.as_bytes(),
        (None, Some(text)) => {
            decoded = decode("payload_base64", text)?;
            &decoded
        }
        (None, None) => &[],
    };
    let qos = Qos::from_bits(message.qos);
    let qos =
        qos.ok_or_else(|| Problem::invalid(format!("qos is 0, 1 or 2, not {}", message.qos)))?;
    check_len("topic", message.topic.len())?;
    let properties = message.properties.encode()?;
    let outgoing = Outgoing {
        topic: &message.topic,
        payload,
        qos,
        retain: message.retain,
        properties: properties.as_properties(),
    };
    let shared = &state.shared;
    let (published, receipt) = with_worker(shared, |local| {
        let now = shared.clock.now();
        (shared.core).publish_for_person(&mut local.worker, &outgoing, now)
    })?;
    let (by, topic) = (&*who.name, cut(&message.topic));
    tracing::info!(by, topic, bytes = payload.len(), "published");
    state.stored(receipt).await?;
    Ok(Json(published))
}
