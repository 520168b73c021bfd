//! Dead letters: what their queue gave up, and what a person is to know of it.
//!
//! Owns how they get to `$dead/NAME`, and the words in which they say why they
//! are there: user properties that every client shows.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Core, DEAD_QUEUE_BACKOFF};
use crate::broker::timers::Timer;
use crate::config::Durability;
use crate::message::{Message, QueueId, Time};
use crate::protocol::{Properties, Property, ReasonCode};
use crate::queue::{Ask, DeadLetter, Full};
use crate::session::{Close, Effects, Publication};
use crate::topic::{TopicFilter, TopicLimits};

/// What a message tells of a death, behind `dead-`.
const DEATH: [&str; 8] = [
    "queue",
    "reason",
    "deliveries",
    "count",
    "first-at",
    "at",
    "topic",
    "said",
];
/// Of each of them, in what is kept of an earlier death: all together, with
/// each byte escaped, fit into one property.
const DEATH_BYTES_MAX: usize = 1024;
/// Earlier deaths that a message tells of; the first are forgotten.
const DEATHS_MAX: usize = 16;

impl Core {
    /// Moves dead letters to `$dead/NAME`. Where that is full they are set
    /// aside, take room in their own queue, and are tried again.
    pub(super) fn bury(
        &self,
        effects: &mut Effects,
        (id, durability): (QueueId, Durability),
        name: Option<Arc<str>>,
        mut letters: VecDeque<(DeadLetter, bool)>,
        now: Time,
    ) {
        let Some(name) = name else {
            return; // A share group has none.
        };
        let dead_name = format!("$dead/{name}");
        let mut room = Vec::new();
        let mut moved = Vec::new();
        while let Some((letter, reserved)) = letters.front() {
            let message = obituary(letter, &name, now);
            let cost_bytes = message.cost_bytes();
            let taken = TopicFilter::parse(&dead_name, TopicLimits::NONE)
                .map_err(|error| Close::new(ReasonCode::TopicNameInvalid, error.to_string()))
                .and_then(|filter| self.create_queue(effects, filter, true, now))
                .map(|queue| {
                    self.change_list_with(effects, queue, now, |list, effects| {
                        list.used(effects, now);
                        list.queue.reserve(cost_bytes)?;
                        let mut publication = Publication::of(&message, now);
                        if letter.stored.is_stored {
                            publication.durability = durability;
                        }
                        let ask = Ask {
                            due: Time::ZERO,
                            ..list.ask(&publication, now)
                        };
                        list.put_in(&self.store, effects, &publication, &ask, now);
                        Ok::<_, Full>(())
                    })
                });
            if !matches!(taken, Ok(Some(Ok(())))) {
                break;
            }
            moved.push(letter.clone());
            tracing::debug!(queue = ?name, reason = ?letter.reason, deliveries = letter.deliveries, "dead letter");
            self.counters.dead_letters.increment();
            room.extend(reserved.then_some(letter.message.cost_bytes()));
            letters.pop_front();
        }
        let left = letters.len();
        let returned = self.change_list_with(effects, id, now, |list, _| {
            // Stored with what they became.
            moved.iter().for_each(|letter| list.queue.moved(letter));
            room.into_iter()
                .for_each(|cost_bytes| list.queue.cancel_reservation(cost_bytes));
            if left > 0 && list.aside_due == Time::ZERO {
                tracing::error!(queue = ?name, "the dead-letter queue is full; dead letters are set aside");
            }
            list.aside_due = match left {
                0 => Time::ZERO,
                _ => now + DEAD_QUEUE_BACKOFF,
            };
            letters.append(&mut list.aside);
            list.aside = letters;
        });
        match returned {
            None => self.counters.dropped_queue_deleted.add(left),
            Some(()) if left > 0 => {
                self.timers
                    .schedule(now + DEAD_QUEUE_BACKOFF, Timer::Queue(id));
            }
            Some(()) => {}
        }
    }
}

/// The message as it is put into the dead-letter queue: it says from which
/// queue it comes (`dead-queue`), why (`dead-reason`), after how many
/// deliveries (`dead-deliveries`), how often it died (`dead-count`), for the
/// first time and now (`dead-first-at`, `dead-at`: milliseconds since 1970),
/// its first topic (`dead-topic`), and what a member said of it last
/// (`dead-said`). What it said of an earlier death is kept in `dead-before`, an
/// object of JSON for each. It expires no more: a person is to see it, however
/// late.
fn obituary(letter: &DeadLetter, queue: &str, now: Time) -> Arc<Message> {
    let mut properties = Vec::with_capacity(letter.message.properties().len() + 256);
    let mut before = serde_json::Map::new();
    let mut deaths = Vec::new();
    for property in Properties::of_valid(letter.message.properties()).iter() {
        match property {
            Property::UserProperty(("dead-before", death)) => deaths.push(death.to_owned()),
            Property::UserProperty((name, text)) if name.starts_with("dead-") => {
                // What a client says of that is taken down, as far as it is short.
                let name = &name["dead-".len()..];
                if DEATH.contains(&name) {
                    let end = text.floor_char_boundary(DEATH_BYTES_MAX);
                    before.insert(name.to_owned(), text[..end].into());
                }
            }
            other => other.encode(&mut properties),
        }
    }
    let count = before.get("count").and_then(|count| count.as_str());
    let count: u64 = count.and_then(|count| count.parse().ok()).unwrap_or(0);
    let first_at = before.get("first-at").and_then(|at| at.as_str());
    let now_ms = (now.as_micros() / 1000).to_string();
    let first_at = first_at.unwrap_or(&now_ms).to_owned();
    if !before.is_empty() {
        deaths.push(serde_json::Value::Object(before).to_string());
    }
    let topic = letter.message.topic();
    let count = count.saturating_add(1);
    let numbers = (letter.deliveries.to_string(), count.to_string());
    for (name, text) in [
        ("dead-queue", queue),
        ("dead-reason", letter.reason.word()),
        ("dead-deliveries", &numbers.0),
        ("dead-count", &numbers.1),
        ("dead-first-at", &first_at),
        ("dead-at", &now_ms),
        ("dead-topic", topic.as_str()),
        ("dead-said", &letter.said),
    ] {
        if !text.is_empty() {
            Property::UserProperty((name, text)).encode(&mut properties);
        }
    }
    let forgotten = deaths.len().saturating_sub(DEATHS_MAX);
    for death in &deaths[forgotten..] {
        Property::UserProperty(("dead-before", death)).encode(&mut properties);
    }
    Arc::new(letter.message.with(&properties, Time::MAX))
}
