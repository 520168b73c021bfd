//! What a person does: sends a client away, ends a session, publishes, takes
//! retained messages away.
//!
//! Owns that it goes the ways that it goes for clients. Each change tells by a
//! receipt when it is stored: who asked for it is told then, and not before.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::retained::retained_topic;
use super::{invalid, not_found};
use crate::broker::connect::Ending;
use crate::broker::publish::{Refused, Sorted, Taken};
use crate::broker::record::retained_key;
use crate::broker::spelled::Spelled;
use crate::broker::steer::{Code, SteerError};
use crate::broker::wishes::Wishes;
use crate::broker::{Core, Worker};
use crate::journal::{Change, Receipt};
use crate::message::{Qos, SessionId, Time};
use crate::protocol::{Properties, ReasonCode};
use crate::router::Cursor;
use crate::session::{Close, Publication};
use crate::topic::{self, TopicFilter, TopicName};

/// Retained messages that one request takes away.
const CLEARED_MAX: usize = 1000;
/// Of a packet that is not its topic, properties or payload.
const HEAD_BYTES_MAX: usize = 1 + 4 + 2 + 2 + 4;

/// What is to be published.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// As a client writes it: `$queue/NAME` puts into a queue, and
    /// `$delayed/SECONDS/TOPIC` puts it off.
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub qos: Qos,
    pub retain: bool,
    /// Those that a client's PUBLISH may have, but no alias.
    pub properties: Properties<'a>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Published {
    pub receivers: Receivers,
    /// Under which id a queue has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// An earlier message with its `dedup-id` stands for it.
    pub duplicate: bool,
}

/// Who has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Receivers {
    Nobody,
    Subscribers,
    /// A queue at least.
    Queues,
}

/// A page of retained messages is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Cleared {
    pub deleted: usize,
    /// What to give as `after` for the page behind it; null: all are gone.
    pub next: Option<String>,
}

impl Core {
    /// Ends a client's connection, and tells it why where it can be told; its
    /// will is published as that says, for the client has not said good-bye
    /// [MQTT-3.1.2-8]. Its session stays, if it outlives the connection.
    ///
    /// # Errors
    /// No such client is connected.
    pub fn send_away(
        &self,
        worker: &mut Worker,
        client: &str,
        reason: ReasonCode,
        now: Time,
    ) -> Result<Receipt, SteerError> {
        let why = "an operator of the broker ends the connection";
        let id = self.session_named(client);
        let id = id.filter(|id| {
            let session = self.sessions.lock(id.0);
            session.is_some_and(|session| session.is_connected() && !session.has_ended())
        });
        let id = id.ok_or_else(|| not_found(format!("no client {client:?} is connected")))?;
        let ending = Ending::SentAway(Close::new(reason, why));
        Ok(self.end_for_person(worker, id, ending, now))
    }

    /// Ends a session, and its client's connection first: nothing of it is left.
    /// Its will is published: its delay does not outlive it.
    ///
    /// # Errors
    /// There is none of that client.
    pub fn end_session(
        &self,
        worker: &mut Worker,
        client: &str,
        now: Time,
    ) -> Result<Receipt, SteerError> {
        let id = self.session_named(client);
        let id = id.filter(|id| {
            let session = self.sessions.lock(id.0);
            session.is_some_and(|session| !session.has_ended())
        });
        let id = id.ok_or_else(|| not_found(format!("no client {client:?} has a session")))?;
        let why = "an operator of the broker ends the session";
        let close = Close::new(ReasonCode::AdministrativeAction, why);
        Ok(self.end_for_person(worker, id, Ending::Ended(close), now))
    }

    fn end_for_person(
        &self,
        worker: &mut Worker,
        id: SessionId,
        ending: Ending,
        now: Time,
    ) -> Receipt {
        self.pinned(worker, |worker| {
            worker.effects.receipt = Receipt::NONE;
            self.end(worker, id, None, ending, now);
            worker.effects.receipt
        })
    }

    /// Publishes in the broker's own name, as a client publishes: into queues,
    /// to subscribers, to be retained. No rule is asked.
    ///
    /// # Errors
    /// It is nothing that can be published, or it was refused.
    pub fn publish_for_person(
        &self,
        worker: &mut Worker,
        outgoing: &Outgoing<'_>,
        now: Time,
    ) -> Result<(Published, Receipt), SteerError> {
        self.pinned(worker, |worker| {
            worker.effects.receipt = Receipt::NONE;
            let taken = self.publish_outgoing(worker, outgoing, now)?;
            let receivers = match taken {
                Taken::Nobody => Receivers::Nobody,
                Taken::Subscribers => Receivers::Subscribers,
                Taken::Queues(_) => Receivers::Queues,
            };
            let queued = match taken {
                Taken::Queues(queued) => Some(queued),
                Taken::Nobody | Taken::Subscribers => None,
            };
            let published = Published {
                receivers,
                message_id: queued.map(|queued| queued.id.to_string()),
                duplicate: queued.is_some_and(|queued| queued.is_duplicate),
            };
            Ok((published, worker.effects.receipt))
        })
    }

    fn publish_outgoing(
        &self,
        worker: &mut Worker,
        outgoing: &Outgoing<'_>,
        now: Time,
    ) -> Result<Taken, SteerError> {
        let refused = |close: Close| invalid(close.why);
        let topic = outgoing.topic;
        let bytes = topic.len() + outgoing.properties.as_bytes().len() + outgoing.payload.len();
        if bytes + HEAD_BYTES_MAX > self.limits().packet_bytes_max {
            let why = "its PUBLISH would be larger than packet_bytes_max";
            return Err(SteerError::new(Code::Invalid, why));
        }
        let mut scratch = Vec::new();
        let mut sorted = Sorted::of(outgoing.properties, &mut scratch).map_err(refused)?;
        let spelled = Spelled::read(topic, sorted.passed_on).map_err(refused)?;
        let (mut topic, mut delay, mut settles) = (topic, None, false);
        if let Some(spelled) = &spelled {
            topic = &spelled.topic;
            delay = spelled.delay;
            settles = spelled.settles.is_some();
            sorted.passed_on = spelled.properties.as_deref().unwrap_or(sorted.passed_on);
        }
        if topic::is_sys(topic) {
            return Err(invalid("only the broker itself publishes below $SYS"));
        }
        let name = self.parse_topic(topic).map_err(refused)?;
        self.check_payload(sorted.says_text, outgoing.payload)
            .map_err(refused)?;
        let is_job = name.as_str().len() < topic.len();
        if is_job || sorted.settles {
            let wishes = Wishes::of(sorted.passed_on, now).map_err(refused)?;
            settles |= wishes.settles.is_some();
        }
        if settles {
            return Err(invalid("only a client settles a delivery, which it has"));
        }
        let id = self.next_message_id(worker);
        let (qos, retain) = (outgoing.qos, outgoing.retain);
        let publisher = &self.identity;
        let mut publication =
            Publication::new(name, outgoing.payload, qos, retain, publisher, now, id);
        publication.properties = sorted.passed_on;
        // Who asks is told what came of it, at QoS 0 too.
        publication.is_whole = true;
        if let Some(secs) = sorted.expiry_secs {
            publication.expires = now + Duration::from_secs(secs.into());
        }
        let taken = match delay.filter(|delay| !delay.is_zero()) {
            Some(delay) => self
                .put_off(&mut worker.effects, &publication, now + delay, now)
                .map(Taken::Queues),
            None => self.publish(worker, &publication, topic, now),
        };
        taken.map_err(|refused| match refused {
            Refused::Never(close) => match close.reason {
                ReasonCode::QuotaExceeded => SteerError::new(Code::Full, close.why),
                _ => invalid(close.why),
            },
            Refused::QueueFull { .. } => {
                SteerError::new(Code::Full, "a queue is full; try again later")
            }
            Refused::SessionFull => {
                let why = "a subscriber's session is full; try again later";
                SteerError::new(Code::Full, why)
            }
            Refused::DiskLow => {
                let why = "the broker's disk is nearly full; try again later";
                SteerError::new(Code::Full, why)
            }
        })
    }

    /// Takes the retained message of a topic away. Nobody who has it already is
    /// told.
    ///
    /// # Errors
    /// There is none.
    pub fn clear_retained(
        &self,
        worker: &mut Worker,
        topic: &str,
        now: Time,
    ) -> Result<Receipt, SteerError> {
        let name = retained_topic(topic)?;
        if self.retained.get(name, now).is_none() {
            return Err(not_found(format!("nothing is retained for {topic:?}")));
        }
        Ok(self.pinned(worker, |worker| {
            worker.effects.receipt = Receipt::NONE;
            self.clear_topic(worker, name, now);
            worker.effects.receipt
        }))
    }

    /// Takes those away that a filter matches, from the topic `after` on: a page of
    /// them, which may be none and still not the last.
    pub fn clear_retained_page(
        &self,
        worker: &mut Worker,
        filter: TopicFilter<'_>,
        after: Option<TopicName<'_>>,
        now: Time,
    ) -> (Cleared, Receipt) {
        // Before the pin: what is looked through may be much.
        let (page, next) = self.retained_page(filter, after.map(Cursor::at), CLEARED_MAX, now);
        let receipt = self.pinned(worker, |worker| {
            worker.effects.receipt = Receipt::NONE;
            for message in &page {
                self.clear_topic(worker, message.topic(), now);
            }
            worker.effects.receipt
        });
        let cleared = Cleared {
            deleted: page.len(),
            next: next.map(|next| next.topic()),
        };
        (cleared, receipt)
    }

    fn clear_topic(&self, worker: &mut Worker, topic: TopicName<'_>, now: Time) {
        let effects = &mut worker.effects;
        let cleared = self.retained.set_and(topic, None, now, |_| {
            let key = &retained_key(topic.as_str().as_bytes());
            let journal = &mut effects.journal;
            journal.add(self.durability(), Change::Delete { key });
            effects.receipt = effects.receipt.and(self.store.append(journal));
        });
        debug_assert!(cleared.is_ok(), "removing takes no room");
    }
}
