//! Retained messages, by topic.

use serde::Serialize;
use utoipa::ToSchema;

use super::{ANSWER_BYTES_MAX, Paged, STEPS_MAX, at_ms, invalid, known_at_ms, not_found};
use crate::broker::Core;
use crate::broker::steer::{SteerError, shown_payload};
use crate::message::{Message, Time};
use crate::protocol::{PacketType, Properties, Property};
use crate::router::Cursor;
use crate::topic::{TopicFilter, TopicLimits, TopicName};

/// A retained message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RetainedView {
    pub topic: String,
    /// As it was published.
    pub qos: u8,
    /// The client that published it.
    pub publisher: String,
    /// null: anonymous.
    pub publisher_user: Option<String>,
    pub stored_at_ms: u64,
    /// null: never.
    pub expires_at_ms: Option<u64>,
    pub payload_bytes: usize,
    /// Where it is text and was asked for; not more than that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// Where it is not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// MQTT 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// MQTT 5: names and values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub user_properties: Vec<[String; 2]>,
}

impl RetainedView {
    /// What it takes of memory.
    fn cost_bytes(&self) -> usize {
        let properties = self.user_properties.iter();
        let properties = properties.map(|pair| {
            let [name, value] = pair;
            size_of_val(pair) + name.len() + value.len()
        });
        let texts = [
            &self.payload,
            &self.payload_base64,
            &self.content_type,
            &self.publisher_user,
        ];
        let texts = texts.into_iter().flatten().map(String::len);
        size_of::<RetainedView>()
            + self.topic.len()
            + self.publisher.len()
            + texts.sum::<usize>()
            + properties.sum::<usize>()
    }
}

impl Core {
    /// Retained messages that a filter matches, in the order of their topics'
    /// levels, from the topic `after` on. `payload_bytes_max`: so much of each
    /// payload; `None`: nothing that is in it. The page ends where it has become
    /// large.
    pub fn list_retained(
        &self,
        filter: TopicFilter<'_>,
        after: Option<TopicName<'_>>,
        limit: usize,
        payload_bytes_max: Option<usize>,
        now: Time,
    ) -> Paged<RetainedView, String> {
        let (page, next) = self.retained_page(filter, after.map(Cursor::at), limit, now);
        let mut next = next.map(|next| next.topic());
        let mut items: Vec<RetainedView> = Vec::new();
        let mut bytes = 0;
        for message in &page {
            let view = retained_view(message, payload_bytes_max);
            bytes += view.cost_bytes();
            if bytes > ANSWER_BYTES_MAX && !items.is_empty() {
                next = Some(view.topic);
                break;
            }
            items.push(view);
        }
        Paged { items, next }
    }

    /// The retained message of a topic.
    ///
    /// # Errors
    /// There is none.
    pub fn show_retained(
        &self,
        topic: &str,
        payload_bytes_max: Option<usize>,
        now: Time,
    ) -> Result<RetainedView, SteerError> {
        let name = retained_topic(topic)?;
        let message = self.retained.get(name, now);
        let message =
            message.ok_or_else(|| not_found(format!("nothing is retained for {topic:?}")))?;
        Ok(retained_view(&message, payload_bytes_max))
    }

    /// So many at most, and where to go on.
    pub(super) fn retained_page(
        &self,
        filter: TopicFilter<'_>,
        mut cursor: Option<Cursor>,
        limit: usize,
        now: Time,
    ) -> (Vec<std::sync::Arc<Message>>, Option<Cursor>) {
        let mut page = Vec::new();
        let mut steps = 0;
        loop {
            // As many as may come, for each looked at may be one.
            let wanted = (limit - page.len()).min(STEPS_MAX - steps);
            cursor = (self.retained).page(filter, cursor.as_ref(), wanted, now, &mut page);
            steps += wanted;
            if cursor.is_none() || page.len() >= limit || steps >= STEPS_MAX {
                return (page, cursor);
            }
        }
    }
}

/// # Errors
/// It is no topic that anything is retained for.
pub(super) fn retained_topic(topic: &str) -> Result<TopicName<'_>, SteerError> {
    TopicName::parse(topic, TopicLimits::NONE)
        .map_err(|error| invalid(format!("{topic:?} is no topic: {error}")))
}

fn retained_view(message: &Message, payload_bytes_max: Option<usize>) -> RetainedView {
    let publisher = message.publisher();
    let mut view = RetainedView {
        topic: message.topic().as_str().to_owned(),
        qos: message.qos() as u8,
        publisher: publisher.client.as_str().to_owned(),
        publisher_user: publisher.user.as_deref().map(str::to_owned),
        stored_at_ms: at_ms(message.received()),
        expires_at_ms: known_at_ms(message.expires()),
        payload_bytes: message.payload().len(),
        payload: None,
        payload_base64: None,
        content_type: None,
        user_properties: Vec::new(),
    };
    let Some(bytes_max) = payload_bytes_max else {
        return view;
    };
    (view.payload, view.payload_base64) = shown_payload(message.payload(), bytes_max);
    if let Ok(properties) = Properties::parse(message.properties(), PacketType::Publish) {
        for property in properties.iter() {
            match property {
                Property::ContentType(text) => view.content_type = Some(text.to_owned()),
                Property::UserProperty((name, value)) => {
                    let pair = [name.to_owned(), value.to_owned()];
                    view.user_properties.push(pair);
                }
                _ => {}
            }
        }
    }
    view
}
