//! What the rules say to something that somebody may want to do, for people.

use clap::ValueEnum;
use serde::Deserialize;
use utoipa::ToSchema;

use super::ask_to_publish;
use super::rules::{Ask, Rights, Strictness};
use crate::message::Qos;
use crate::topic::{TopicFilter, TopicLimits, TopicName};

/// What somebody may want to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    Publish,
    Subscribe,
    /// Get what is published to a topic
    Read,
    /// Put into a queue
    Put,
    Join,
    Create,
    Steer,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub action: Action,
    /// The topic, the filter, or the name of the queue; `$queue/NAME` is a queue
    /// too.
    pub topic: &'a str,
    pub qos: Qos,
    pub retain: bool,
    pub strictness: Strictness,
}

/// What the rules say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    pub is_allowed: bool,
    /// The rules that decide, a sentence each.
    pub because: Vec<String>,
}

impl Question<'_> {
    /// What the rules say to it.
    ///
    /// # Errors
    /// It is about no topic or filter: a sentence.
    pub fn explain(&self, rights: &Rights) -> Result<Explained, String> {
        let asks = self.asks()?;
        let verdicts: Vec<_> = asks.into_iter().map(|ask| rights.decide(ask)).collect();
        // The first that is denied decides; else all have to be allowed.
        let denied = verdicts.iter().find(|verdict| !verdict.is_allowed());
        let deciding = denied.map_or(&verdicts[..], std::slice::from_ref);
        let because = deciding
            .iter()
            .map(|verdict| rights.explain(*verdict).to_string());
        Ok(Explained {
            is_allowed: denied.is_none(),
            because: because.collect(),
        })
    }

    /// Whether it is about a topic, a filter or a queue that can be.
    ///
    /// # Errors
    /// It is not: a sentence.
    pub fn check(&self) -> Result<(), String> {
        self.asks().map(drop)
    }

    fn asks(&self) -> Result<Vec<Ask<'_>>, String> {
        let (topic, qos, retain, strictness) = (self.topic, self.qos, self.retain, self.strictness);
        let name = topic.strip_prefix("$queue/").unwrap_or(topic);
        let shared = topic.strip_prefix("$share/");
        let shared = shared.and_then(|shared| shared.split_once('/'));
        let filter = filter(shared.map_or(name, |(_, filter)| filter))?;
        let (queue, is_queue) = (filter, name.len() < topic.len());
        let subscribe = Ask::Subscribe { filter, strictness };
        if matches!(self.action, Action::Publish | Action::Put | Action::Read) {
            TopicName::parse(name, TopicLimits::NONE)
                .map_err(|error| format!("{name:?} is no topic: {error}"))?;
        }
        Ok(match self.action {
            Action::Publish => vec![ask_to_publish(topic, qos, retain)],
            Action::Put => vec![Ask::Put { topic: name, qos }],
            Action::Read => vec![Ask::Read {
                topic: name.as_bytes(),
            }],
            Action::Subscribe if !is_queue => vec![subscribe],
            // Who joins also gets what is published to the queue's name.
            Action::Subscribe | Action::Join => vec![Ask::Join { queue }, subscribe],
            Action::Create => vec![Ask::Create { queue }],
            Action::Steer => vec![Ask::Steer { queue }],
        })
    }
}

fn filter(text: &str) -> Result<TopicFilter<'_>, String> {
    TopicFilter::parse(text, TopicLimits::NONE)
        .map_err(|error| format!("{text:?} is no topic filter: {error}"))
}
