//! Requests that come over MQTT itself: a PUBLISH to `$CONTROL/rotamq/v1`,
//! answered at its response topic, or where it says so.

use serde_json::{Value, json};

use super::{Answer, Request, SteerError};
use crate::access::CONTROL_TOPIC;
use crate::access::rules::{Ask, Strictness};
use crate::broker::link::Link;
use crate::broker::publish::{Incoming, Refused, Taken};
use crate::broker::{Core, Worker};
use crate::message::Time;
use crate::protocol::{PacketType, Properties, Property, ReasonCode};
use crate::session::{Close, Publication};
use crate::topic::{TopicFilter, TopicLimits};

/// Where an answer goes, and what goes with it.
struct Reply {
    topic: String,
    correlation: Option<Vec<u8>>,
}

impl Core {
    /// A request. Whether anybody is to have the answer.
    pub(in crate::broker) fn accept_request(
        &self,
        worker: &mut Worker,
        link: &Link,
        incoming: &Incoming<'_>,
        now: Time,
    ) -> Result<Taken, Refused> {
        let refused = |reason, why: String| Refused::Never(Close::new(reason, why));
        if !link.is_local && !self.access.binds(link.client()) {
            let why = "without access rules queues are steered from the broker's own machine only";
            return Err(refused(ReasonCode::NotAuthorized, why.to_owned()));
        }
        let may_answer = |topic| {
            let publish = (topic, incoming.qos, false);
            (self.access.may_publish_once(link.client(), publish)).is_ok()
        };
        let parsed = serde_json::from_slice::<Value>(incoming.payload);
        let mut parsed = parsed.map_err(|error| SteerError::invalid(format!("no JSON: {error}")));
        let reply = reply(incoming, parsed.as_mut().ok())
            .map_err(|why| refused(ReasonCode::PayloadFormatInvalid, why.to_owned()))?;
        if let Some(reply) = &reply {
            // What the broker publishes is not asked whether it may make a queue.
            let is_queue = self.access.is_on() && reply.topic.starts_with("$queue/");
            if reply.topic == CONTROL_TOPIC || is_queue || !may_answer(&reply.topic) {
                let why = "the answer would go to a topic that this client may not publish to";
                return Err(refused(ReasonCode::NotAuthorized, why.to_owned()));
            }
            self.parse_topic(&reply.topic).map_err(Refused::Never)?;
        }
        let answer = parsed.and_then(|value| {
            let request = serde_json::from_value::<Request>(value);
            let request = request
                .map_err(|error| SteerError::invalid(format!("no valid request: {error}")))?;
            let client = &link.identity.client;
            self.may_steer(link, &request)?;
            match request.is_change() {
                true => tracing::info!(?client, ?request, "steered"),
                false => tracing::debug!(?client, ?request, "looked at"),
            }
            self.steer(worker, &request, now)
        });
        match reply {
            // What was done is done, whether the answer can be told or not.
            Some(reply) => Ok(self
                .answer(worker, incoming, &reply, &answer, now)
                .unwrap_or_else(|refused| {
                    let client = &link.identity.client;
                    tracing::info!(?client, ?refused, "an answer could not be told");
                    Taken::Nobody
                })),
            None => match answer {
                Ok(_) => Ok(Taken::Nobody),
                Err(error) => {
                    let reason = ReasonCode::ImplementationSpecificError;
                    Err(refused(reason, error.message))
                }
            },
        }
    }

    /// Whether the client may steer, or look at, what the request is about.
    fn may_steer(&self, link: &Link, request: &Request) -> Result<(), SteerError> {
        for queue in request.queues() {
            // What is no queue's name is said later.
            let Ok(queue) = TopicFilter::parse(&queue, TopicLimits::NONE) else {
                continue;
            };
            if let Err(denied) = self.access.may(link.client(), Ask::Steer { queue }) {
                let client = &link.identity.client;
                tracing::info!(?client, ?request, why = %denied, "steering denied");
                let what = match request {
                    Request::List { .. } => "listing queues needs the right to steer all of them",
                    _ => "this client may not steer the queue",
                };
                return Err(SteerError::denied(what));
            }
        }
        for filter in request.filters() {
            let Ok(filter) = TopicFilter::parse(filter, TopicLimits::NONE) else {
                continue;
            };
            // Who steers the queue sees what is in it.
            let read = Ask::Subscribe {
                filter,
                strictness: Strictness::Refuse,
            };
            if self.access.may(link.client(), read).is_err() {
                let what = "this client may not read all that the filters would bring";
                return Err(SteerError::denied(what));
            }
        }
        Ok(())
    }

    fn answer(
        &self,
        worker: &mut Worker,
        incoming: &Incoming<'_>,
        reply: &Reply,
        answer: &Result<Answer, SteerError>,
        now: Time,
    ) -> Result<Taken, Refused> {
        let name = self.parse_topic(&reply.topic).map_err(Refused::Never)?;
        let payload = match answer {
            Ok(answer) => json!({ "ok": answer }),
            Err(error) => json!({ "error": error }),
        };
        let payload = payload.to_string();
        let mut properties = Vec::new();
        if let Some(correlation) = &reply.correlation {
            Property::CorrelationData(correlation).encode(&mut properties);
        }
        let id = self.next_message_id(worker);
        let (publisher, qos) = (&self.identity, incoming.qos);
        let payload = payload.as_bytes();
        let mut publication = Publication::new(name, payload, qos, false, publisher, now, id);
        publication.properties = &properties;
        self.publish(worker, &publication, &reply.topic, now)
    }
}

/// Where the answer goes, if anywhere: the response topic, or `answer_to`,
/// which is taken out of the request.
fn reply(
    incoming: &Incoming<'_>,
    request: Option<&mut Value>,
) -> Result<Option<Reply>, &'static str> {
    let (mut topic, mut correlation) = (None, None);
    if let Ok(properties) = Properties::parse(incoming.sorted.passed_on, PacketType::Publish) {
        for property in properties.iter() {
            match property {
                Property::ResponseTopic(name) => topic = Some(name.as_str().to_owned()),
                Property::CorrelationData(data) => correlation = Some(data.to_vec()),
                _ => {}
            }
        }
    }
    let fields = request.and_then(Value::as_object_mut);
    match fields.and_then(|fields| fields.remove("answer_to")) {
        None => {}
        Some(Value::String(text)) => topic = Some(text),
        Some(_) => return Err("answer_to is a topic, as a text"),
    }
    Ok(topic.map(|topic| Reply { topic, correlation }))
}
