//! Requests to a broker, and its answers, over MQTT.
//!
//! One request at a time. Knows nothing of what is asked.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use serde_json::Value;
use tokio::select;
use tokio::time::timeout;

use crate::access::CONTROL_TOPIC;
use crate::broker::steer::{Code, Request, SteerError};
use crate::cli::client::{Client, kind};
use crate::cli::{Failure, Kind, describe};
use crate::message::{PacketId, Qos};
use crate::protocol::{
    Ack, Packet, Properties, PropertiesBuf, Property, Publish, Subscribe, SubscribeOptions,
};
use crate::topic::{TopicLimits, TopicName};

/// For one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection on which answers are waited for.
pub struct Asking<'c> {
    client: &'c mut Client,
    /// Where they come.
    topic: String,
}

/// What has come of a request.
#[derive(Default)]
struct Outcome {
    is_acknowledged: bool,
    answer: Option<Value>,
}

impl<'c> Asking<'c> {
    /// Subscribes to where the answers come.
    ///
    /// # Errors
    /// The broker refuses that, or the connection is lost.
    pub async fn begin(client: &'c mut Client) -> Result<Asking<'c>, Failure> {
        let random = RandomState::new().hash_one(std::process::id());
        let topic = format!("rotamq/answers/{random:016x}");
        let packet_id = client.sender.next_packet_id();
        client.sender.send(&Packet::Subscribe(Subscribe {
            packet_id,
            properties: Properties::EMPTY,
            filters: vec![(&topic, SubscribeOptions::new(Qos::AtLeastOnce))],
        }))?;
        let mut asking = Asking {
            client,
            topic: topic.clone(),
        };
        let mut granted = None;
        let subscribed = asking.until(|packet, _| {
            if let Packet::Suback(suback) = packet
                && suback.packet_id == packet_id
            {
                let reason = suback.reasons.first().copied();
                let why = |reason| (kind(reason), describe::why(reason, suback.properties));
                granted = Some(reason.filter(|reason| reason.is_failure()).map(why));
            }
            Ok(granted.is_some())
        });
        timed(subscribed).await?;
        match granted.flatten() {
            None => Ok(asking),
            Some((kind, why)) => {
                let text = format!("cannot subscribe to {topic}, where answers would come: {why}");
                Err(Failure::of(kind, text))
            }
        }
    }

    /// The answer to a request.
    ///
    /// # Errors
    /// What the broker says is wrong; the connection is lost; there is no
    /// answer in time.
    pub async fn ask(&mut self, request: &Request) -> Result<Value, Failure> {
        let packet_id = self.send(request)?;
        let topic = self.topic.clone();
        let mut outcome = Outcome::default();
        let answered = self.until(|packet, sender| {
            match packet {
                Packet::Puback(ack) if ack.packet_id == packet_id => {
                    if ack.reason.is_failure() {
                        let why = describe::why(ack.reason, ack.properties);
                        let text = format!("the broker refused the request: {why}");
                        return Err(Failure::of(kind(ack.reason), text));
                    }
                    outcome.is_acknowledged = true;
                }
                Packet::Publish(publish) if publish.topic == topic => {
                    if let Some(packet_id) = publish.packet_id {
                        sender.send(&Packet::Puback(Ack::new(packet_id)))?;
                    }
                    outcome.answer = serde_json::from_slice(publish.payload).ok();
                }
                _ => {}
            }
            Ok(outcome.is_acknowledged && outcome.answer.is_some())
        });
        timed(answered)
            .await
            .map_err(|failure| failure.and("the request may not be done"))?;
        let mut answer = outcome.answer.unwrap_or_default();
        match answer.get_mut("ok") {
            Some(ok) => Ok(ok.take()),
            None => {
                let error = serde_json::from_value::<SteerError>(answer["error"].take());
                Err(match error {
                    Ok(error) => Failure::of(kind_of(error.code), error.message),
                    Err(_) => Failure::new("the broker's answer is not understood"),
                })
            }
        }
    }

    /// As properties where there are some; else in the request itself.
    fn send(&mut self, request: &Request) -> Result<PacketId, Failure> {
        let sender = &mut self.client.sender;
        let mut request = serde_json::to_value(request)?;
        let mut properties = PropertiesBuf::new();
        match TopicName::parse(&self.topic, TopicLimits::NONE) {
            Ok(topic) if sender.has_properties() => {
                properties.push(Property::ResponseTopic(topic));
            }
            _ => request["answer_to"] = self.topic.as_str().into(),
        }
        let packet_id = sender.publish(Publish {
            dup: false,
            qos: Qos::AtLeastOnce,
            retain: false,
            topic: CONTROL_TOPIC,
            packet_id: None,
            properties: properties.as_properties(),
            payload: request.to_string().as_bytes(),
        })?;
        packet_id.ok_or_else(|| Failure::new("a request has a packet identifier"))
    }

    /// Handles what comes until `handle` says that it is enough.
    async fn until(
        &mut self,
        mut handle: impl FnMut(&Packet<'_>, &mut crate::cli::client::Sender) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let Client { receiver, sender } = &mut *self.client;
        loop {
            let mut is_enough = false;
            while let Some(packet) = receiver.packet()? {
                if let Packet::Pingresp = packet {
                    sender.pinged_back();
                }
                is_enough |= handle(&packet, sender)?;
            }
            sender.flush().await?;
            if is_enough {
                return Ok(());
            }
            select! {
                filled = receiver.fill() => filled?,
                idle = sender.keep_alive() => idle?,
            }
        }
    }

    /// Waits, and keeps the connection alive meanwhile.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn rest(&mut self, span: Duration) -> Result<(), Failure> {
        match timeout(span, self.until(|_, _| Ok(false))).await {
            Ok(ended) => ended,
            Err(_) => Ok(()), // It is over.
        }
    }
}

/// What a refused request is to a script.
fn kind_of(code: Code) -> Kind {
    match code {
        Code::NotFound => Kind::NotFound,
        Code::Denied => Kind::Denied,
        _ => Kind::Failed,
    }
}

async fn timed(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    timeout(ANSWER_TIMEOUT, work).await.unwrap_or_else(|_| {
        let secs = ANSWER_TIMEOUT.as_secs();
        let text = format!(
            "the broker has not answered within {secs} seconds; it may be none that has queues"
        );
        Err(Failure::of(Kind::Unavailable, text))
    })
}
