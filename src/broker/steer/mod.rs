//! Seeing and steering queues: one interface, which the command line, MQTT
//! ([`control`]) and whoever comes later use alike.
//!
//! Owns what can be asked for and how it is answered, as values that are JSON
//! too. A request takes a bounded time: what is larger goes in pages, or on by
//! itself ([`moving`]). Locks nothing itself.

mod control;
mod look;
mod moving;

use std::fmt;

use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

pub(crate) use self::look::shown_payload;
pub(super) use self::moving::Movings;
use super::lists::Pick;
use super::{Core, Worker};
use crate::message::{MessageId, QueueId, Time};
use crate::topic::{TopicFilter, TopicLimits};

/// Queues in one answer.
const QUEUES_MAX: usize = 1000;
const QUEUES_DEFAULT: usize = 100;
/// Messages, or events, in one answer.
const MESSAGES_MAX: usize = 1000;
const MESSAGES_DEFAULT: usize = 10;
const EVENTS_DEFAULT: usize = 100;
/// Bytes of each payload that are shown.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;
const PAYLOAD_BYTES_DEFAULT: usize = 1024;
/// Messages that one request purges or moves, or names.
const PAGE_MAX: usize = 1000;

/// What can be asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Queues by name, a page at a time.
    List {
        /// Only those whose names have this in them; or, with a `*`, are like
        /// it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Only those that come after this name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<usize>,
    },
    /// All that is known of a queue.
    Show {
        queue: String,
    },
    /// A queue with these keys of a `[[queue]]` table.
    Create {
        queue: String,
        #[serde(default)]
        settings: Map<String, Value>,
    },
    /// Changes those keys; null: as the configuration has it.
    Set {
        queue: String,
        settings: Map<String, Value>,
    },
    /// `force`: with what it holds, and though it has members.
    Delete {
        queue: String,
        #[serde(default)]
        force: bool,
    },
    /// The first messages, which stay where they are.
    Peek {
        queue: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        count: Option<usize>,
        /// Also those that members have.
        #[serde(default)]
        in_flight: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        payload_bytes_max: Option<usize>,
    },
    /// Does away with what no member has, a page at a time.
    Purge {
        queue: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        count: Option<usize>,
    },
    /// Members get nothing until it is resumed.
    Pause {
        queue: String,
    },
    Resume {
        queue: String,
    },
    /// Moves what no member has, a page at a time.
    Move {
        queue: String,
        to: String,
        #[serde(flatten)]
        what: Moved,
    },
    /// Moves dead letters of the queue back to it, or to another.
    Redrive {
        queue: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
        #[serde(flatten)]
        what: Moved,
    },
    /// What happened to a message.
    Trace {
        queue: String,
        message: String,
    },
    /// What happened in the queue, after this event.
    Tail {
        queue: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        count: Option<usize>,
    },
}

impl Request {
    /// The queues that it is about; `#`: all of them.
    pub fn queues(&self) -> Vec<String> {
        match self {
            Request::List { .. } => vec!["#".to_owned()],
            Request::Show { queue }
            | Request::Create { queue, .. }
            | Request::Set { queue, .. }
            | Request::Delete { queue, .. }
            | Request::Peek { queue, .. }
            | Request::Purge { queue, .. }
            | Request::Pause { queue }
            | Request::Resume { queue }
            | Request::Trace { queue, .. }
            | Request::Tail { queue, .. } => vec![queue.clone()],
            Request::Move { queue, to, .. } => vec![queue.clone(), to.clone()],
            Request::Redrive { queue, to, .. } => {
                let name = queue.strip_prefix("$dead/").unwrap_or(queue);
                let to = to.as_deref().unwrap_or(name);
                vec![format!("$dead/{name}"), to.to_owned()]
            }
        }
    }

    /// The filters that a queue gets by it.
    pub fn filters(&self) -> impl Iterator<Item = &str> {
        let settings = match self {
            Request::Create { settings, .. } | Request::Set { settings, .. } => Some(settings),
            _ => None,
        };
        let filters = settings.and_then(|settings| settings.get("filters")?.as_array());
        filters.into_iter().flatten().filter_map(Value::as_str)
    }

    /// Whether it changes anything.
    pub fn is_change(&self) -> bool {
        !matches!(
            self,
            Request::List { .. }
                | Request::Show { .. }
                | Request::Peek { .. }
                | Request::Trace { .. }
                | Request::Tail { .. }
        )
    }
}

/// What is to be moved: everything, if nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Moved {
    /// So many at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// These messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<String>>,
    /// So many a second, until all are moved that are there now. 0: no more
    /// of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, maximum = 4_294_967_295_u64)]
    pub rate: Option<u32>,
}

/// What is answered. Who reads it knows what was asked for.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    Queues(Queues),
    Shown(Box<Shown>),
    Given(Given),
    Deleted(Deleted),
    Peeked(Peeked),
    Purged(Purged),
    Paused(Paused),
    Moved(MovedTo),
    Traced(Traced),
    Tailed(Tailed),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Queues {
    pub queues: Vec<QueueView>,
    /// There are more, after this name.
    pub next: Option<String>,
}

/// A queue in a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueueView {
    pub name: String,
    pub configured: Configured,
    pub paused: bool,
    pub ready: usize,
    pub in_flight: usize,
    pub delayed: usize,
    /// In its `$dead/NAME`.
    pub dead: usize,
    pub bytes: usize,
    /// Connected ones.
    pub members: usize,
    /// How long the first that is ready has waited.
    pub oldest_ms: Option<u64>,
    pub enqueued_per_sec: f64,
    pub done_per_sec: f64,
    pub enqueued: u64,
    pub done: u64,
    pub redelivered: u64,
}

/// Where a queue's settings come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Configured {
    /// The configuration file.
    File,
    /// It was created, or given settings, while the broker ran.
    RunTime,
    /// Somebody used it.
    OnTheFly,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Shown {
    #[serde(flatten)]
    pub queue: QueueView,
    /// Beside its own name.
    pub filters: Vec<String>,
    /// All keys of a `[[queue]]` and what holds.
    #[schema(value_type = Object)]
    pub settings: Map<String, Value>,
    /// Those that are not as in `[queues]`.
    #[schema(value_type = Object)]
    pub differing: Map<String, Value>,
    /// Those that it was given while the broker ran.
    #[schema(value_type = Object)]
    pub given: Map<String, Value>,
    /// Dead letters that found no room in `$dead/NAME`.
    pub set_aside: usize,
    pub member_list: Vec<MemberView>,
    /// Since it was made, or the broker started.
    #[schema(value_type = Object)]
    pub totals: Map<String, Value>,
    /// What is being moved out of it at a rate.
    pub moving: Vec<MovingView>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemberView {
    pub client: String,
    pub connected: bool,
    pub qos: u8,
    pub prefetch: u32,
    pub in_flight: u32,
    /// How long it has had what it has for the longest time.
    pub oldest_ms: Option<u64>,
    /// From delivery to acknowledgement: a moving mean.
    pub latency_ms: Option<f64>,
    /// It gets nothing for so long, as it was busy.
    pub resting_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MovingView {
    pub to: String,
    pub rate: u32,
    pub left: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Given {
    pub queue: String,
    /// All that it was given while the broker ran.
    #[schema(value_type = Object)]
    pub given: Map<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deleted {
    pub deleted: String,
    pub messages: usize,
    /// That were disconnected.
    pub members: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Peeked {
    pub queue: String,
    pub messages: Vec<MessageView>,
    /// There are more of those that were asked for, but the answer would become too
    /// large: ask for less of each payload.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub cut: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MessageView {
    pub id: String,
    pub state: MessageState,
    /// Who has it, if anybody does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client: Option<String>,
    pub topic: String,
    pub priority: u8,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub group: Option<String>,
    pub publisher: String,
    pub enqueued_at_ms: u64,
    pub deliveries: u32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub due_at_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_at_ms: Option<u64>,
    pub payload_bytes: usize,
    /// Where it is text; not more than was asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub payload: Option<String>,
    /// Where it is not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub payload_base64: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub user_properties: Vec<(String, String)>,
}

impl MessageView {
    /// What it takes of memory.
    pub(super) fn cost_bytes(&self) -> usize {
        let properties = self.user_properties.iter();
        let properties = properties.map(|pair| size_of_val(pair) + pair.0.len() + pair.1.len());
        let texts = [
            &self.client,
            &self.group,
            &self.payload,
            &self.payload_base64,
        ];
        let texts = texts.into_iter().flatten().map(String::len);
        size_of::<MessageView>()
            + self.topic.len()
            + self.publisher.len()
            + texts.sum::<usize>()
            + properties.sum::<usize>()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MessageState {
    Ready,
    Delayed,
    InFlight,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Purged {
    pub queue: String,
    pub purged: usize,
    /// That no member has: ask again.
    pub left: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Paused {
    pub queue: String,
    pub paused: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MovedTo {
    pub from: String,
    pub to: String,
    pub moved: usize,
    /// That no member has: ask again.
    pub left: usize,
    /// Of the ids that were given.
    pub not_found: Vec<String>,
    /// It goes on by itself, at the rate.
    pub goes_on: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Traced {
    pub queue: String,
    pub message: String,
    pub events: Vec<EventView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tailed {
    pub queue: String,
    pub events: Vec<EventView>,
    /// What to ask for after.
    pub next: u64,
    /// Events that are no longer known.
    pub missed: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    pub number: u64,
    pub at_ms: u64,
    pub message: String,
    /// `stored`, `delivered`, `done` and so on.
    pub what: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client: Option<String>,
    /// Of a dead letter.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// Why something that was asked for was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SteerError {
    pub code: Code,
    /// A sentence that says what to do.
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    NotFound,
    Denied,
    Exists,
    Invalid,
    NotEmpty,
    NotAllowed,
    Full,
    /// What is stored cannot be read.
    Unreadable,
}

impl SteerError {
    pub fn new(code: Code, message: impl Into<String>) -> SteerError {
        SteerError {
            code,
            message: message.into(),
        }
    }

    fn denied(message: impl Into<String>) -> SteerError {
        SteerError::new(Code::Denied, message)
    }

    fn invalid(message: impl Into<String>) -> SteerError {
        SteerError::new(Code::Invalid, message)
    }
}

impl fmt::Display for SteerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SteerError {}

impl Core {
    /// Does what is asked for, or tells what is asked for.
    ///
    /// # Errors
    /// Why not.
    pub fn steer(
        &self,
        worker: &mut Worker,
        request: &Request,
        now: Time,
    ) -> Result<Answer, SteerError> {
        self.pinned(worker, |worker| self.steer_pinned(worker, request, now))
    }

    fn steer_pinned(
        &self,
        worker: &mut Worker,
        request: &Request,
        now: Time,
    ) -> Result<Answer, SteerError> {
        match request {
            Request::List { name, after, limit } => {
                let limit = limit.unwrap_or(QUEUES_DEFAULT).clamp(1, QUEUES_MAX);
                let queues = self.list_queues(name.as_deref(), after.as_deref(), limit, now);
                Ok(Answer::Queues(queues))
            }
            Request::Show { queue } => {
                let shown = self.show_queue(queue, now)?;
                Ok(Answer::Shown(Box::new(shown)))
            }
            Request::Create { queue, settings } => {
                self.create_given(&mut worker.effects, queue, settings, now)?;
                Ok(Answer::Given(Given {
                    queue: queue.clone(),
                    given: settings.clone(),
                }))
            }
            Request::Set { queue, settings } => {
                let id = self.queue_named(queue)?;
                let given = self.set_given(&mut worker.effects, (id, queue), settings, now)?;
                Ok(Answer::Given(Given {
                    queue: queue.clone(),
                    given,
                }))
            }
            Request::Delete { queue, force } => {
                let id = self.queue_named(queue)?;
                let (messages, members) = self.delete_queue(worker, (id, queue), *force)?;
                Ok(Answer::Deleted(Deleted {
                    deleted: queue.clone(),
                    messages,
                    members,
                }))
            }
            Request::Peek {
                queue,
                count,
                in_flight,
                payload_bytes_max,
            } => {
                let count = count.unwrap_or(MESSAGES_DEFAULT).clamp(1, MESSAGES_MAX);
                let bytes_max = payload_bytes_max.unwrap_or(PAYLOAD_BYTES_DEFAULT);
                let bytes_max = bytes_max.min(PAYLOAD_BYTES_MAX);
                let peeked = self.peek_queue(queue, count, *in_flight, bytes_max)?;
                Ok(Answer::Peeked(peeked))
            }
            Request::Purge { queue, count } => self.purge(worker, queue, *count, now),
            Request::Pause { queue } => self.pause(worker, queue, true, now),
            Request::Resume { queue } => self.pause(worker, queue, false, now),
            Request::Move { queue, to, what } => {
                self.steer_move(worker, (queue, to), what, false, now)
            }
            Request::Redrive { queue, to, what } => {
                let queue = queue.strip_prefix("$dead/").unwrap_or(queue);
                let from = format!("$dead/{queue}");
                let to = to.as_deref().unwrap_or(queue);
                if self.queue_named(&from).is_err() {
                    // It has no dead letters, or is none itself.
                    self.queue_named(queue)?;
                    return Ok(Answer::Moved(MovedTo {
                        from,
                        to: to.to_owned(),
                        moved: 0,
                        left: 0,
                        not_found: what.ids.clone().unwrap_or_default(),
                        goes_on: false,
                    }));
                }
                self.steer_move(worker, (&from, to), what, true, now)
            }
            Request::Trace { queue, message } => {
                let id = self.queue_named(queue)?;
                let (events, _) = self.events(id, queue, Ok(parse_id(message)?))?;
                Ok(Answer::Traced(Traced {
                    queue: queue.clone(),
                    message: message.clone(),
                    events: events.iter().map(look::event).collect(),
                }))
            }
            Request::Tail {
                queue,
                after,
                count,
            } => {
                let id = self.queue_named(queue)?;
                let count = count.unwrap_or(EVENTS_DEFAULT).clamp(1, MESSAGES_MAX);
                Ok(Answer::Tailed(self.tail_queue(id, queue, *after, count)?))
            }
        }
    }

    fn pause(
        &self,
        worker: &mut Worker,
        queue: &str,
        paused: bool,
        now: Time,
    ) -> Result<Answer, SteerError> {
        let id = self.queue_named(queue)?;
        self.set_paused(worker, id, paused, now);
        Ok(Answer::Paused(Paused {
            queue: queue.to_owned(),
            paused,
        }))
    }

    fn purge(
        &self,
        worker: &mut Worker,
        queue: &str,
        count: Option<usize>,
        now: Time,
    ) -> Result<Answer, SteerError> {
        let id = self.queue_named(queue)?;
        let jobs_max = count.unwrap_or(PAGE_MAX).min(PAGE_MAX);
        let (purged, left) = self.purge_page(worker, id, jobs_max, now).unwrap_or((0, 0));
        Ok(Answer::Purged(Purged {
            queue: queue.to_owned(),
            purged,
            left,
        }))
    }

    fn steer_move(
        &self,
        worker: &mut Worker,
        (from, to): (&str, &str),
        what: &Moved,
        anew: bool,
        now: Time,
    ) -> Result<Answer, SteerError> {
        if from == to {
            return Err(SteerError::invalid(
                "a queue's messages are moved to another one",
            ));
        }
        let from_id = self.queue_named(from)?;
        let mut answer = MovedTo {
            from: from.to_owned(),
            to: to.to_owned(),
            moved: 0,
            left: 0,
            not_found: Vec::new(),
            goes_on: false,
        };
        match (&what.ids, what.rate) {
            (Some(_), Some(_)) => {
                return Err(SteerError::invalid(
                    "messages are moved by id or at a rate, not both",
                ));
            }
            (None, Some(rate)) => {
                let asked = (from_id, from, to);
                answer.left = self.begin_moving(worker, asked, (what.count, rate), anew, now)?;
                answer.goes_on = answer.left > 0;
            }
            (Some(ids), None) => {
                if ids.len() > PAGE_MAX {
                    let text = format!("name {PAGE_MAX} messages at most in one request");
                    return Err(SteerError::invalid(text));
                }
                let wanted: Result<FxHashSet<MessageId>, _> =
                    ids.iter().map(|id| parse_id(id)).collect();
                let mut wanted = wanted?;
                let to_id = self.destination(worker, to, now)?;
                let ends = ((from_id, from), (to_id, to));
                let pick = Pick::Ids(&mut wanted);
                (answer.moved, answer.left) = self.move_page(worker, ends, pick, anew, now)?;
                let missing = wanted.iter().map(MessageId::to_string);
                answer.not_found = missing.collect();
                answer.not_found.sort_unstable();
            }
            (None, None) => {
                let to_id = self.destination(worker, to, now)?;
                let ends = ((from_id, from), (to_id, to));
                let count = what.count.unwrap_or(PAGE_MAX).min(PAGE_MAX);
                (answer.moved, answer.left) = self.move_some(worker, ends, count, anew, now)?;
            }
        }
        Ok(Answer::Moved(answer))
    }

    /// The queue that messages go to, made if it may be.
    fn destination(
        &self,
        worker: &mut Worker,
        name: &str,
        now: Time,
    ) -> Result<QueueId, SteerError> {
        let filter = TopicFilter::parse(name, TopicLimits::NONE).map_err(|error| {
            SteerError::invalid(format!("{name:?} is no queue's name: {error}"))
        })?;
        self.create_queue(&mut worker.effects, filter, false, now)
            .map_err(|close| SteerError::new(Code::NotAllowed, close.why))
    }
}

/// As [`MessageId`] is shown.
fn parse_id(text: &str) -> Result<MessageId, SteerError> {
    u64::from_str_radix(text, 16).map(MessageId).map_err(|_| {
        let text = format!("{text:?} is no message id: they are hexadecimal, as `peek` shows them");
        SteerError::invalid(text)
    })
}
