//! Work queues and share groups: how they are fed and give out. How they come
//! and go is in `catalog`, their members are in `members`.
//!
//! Owns what a list has beside its jobs: its name, what feeds it, who waits
//! for room in it. Everything that changes a list goes through
//! [`Core::change_list`], which gives out what can be given before the list is
//! let go.

mod catalog;
mod members;

pub(super) use members::parse_span;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::publish::Refused;
use super::timers::Timer;
use super::{Core, Worker};
use crate::access::{Action, Decision};
use crate::config::QueueSettings;
use crate::message::{Message, Qos, QueueId, SessionId, Time};
use crate::protocol::ReasonCode;
use crate::queue::{DeadLetter, Queue};
use crate::router::{NodeId, Receiver, Target};
use crate::session::{
    About, Close, Effects, Hold, JobDelivered, JobDelivery, Publication, Subscribed,
};
use crate::topic::{TopicFilter, TopicLimits};

/// What is refused in a dead-letter queue comes again after so long.
const DEAD_QUEUE_BACKOFF: Duration = Duration::from_secs(1);
/// How long a job waits that a member could not do, and said no delay for.
const FAILED_BACKOFF: Duration = Duration::from_secs(1);

/// A queue or share group, and what surrounds it.
pub(super) struct List {
    pub queue: Queue,
    /// `$queue/NAME` or `$share/GROUP/FILTER`.
    name: Arc<str>,
    kind: Kind,
    // Where in the topic tree it stands, and as what.
    feeders: Vec<(NodeId, Receiver)>,
    /// Connections that hold PUBLISHes back until there is room.
    pub waiters: VecDeque<(SessionId, u32)>,
    // Dead letters on their way to their queue, or that found it full; and
    // whether the queue keeps room for each.
    aside: VecDeque<(DeadLetter, bool)>,
    // When the next of them is tried.
    aside_due: Time,
    // Of those that a share group dropped, and that expired, how many are
    // counted.
    counted: (u64, u64),
    last_used: Time,
    // When the timer that is set for it is due.
    alarm: Time,
}

enum Kind {
    Work {
        settings: Arc<QueueSettings>,
        queue_topic: bool,
    },
    Share,
}

impl List {
    /// The name without `$queue/`; `None` for a share group.
    fn queue_name(&self) -> Option<&str> {
        match self.kind {
            Kind::Work { .. } => self.name.strip_prefix("$queue/"),
            Kind::Share => None,
        }
    }

    fn is_dead_letters(&self) -> bool {
        self.name.starts_with("$queue/$dead/")
    }
}

/// How a message came to a queue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Feed {
    /// It was published to `$queue/`.
    Direct,
    /// It was published to a topic that feeds the queue.
    Copy,
}

impl Core {
    // ---- feeding

    /// Puts a message into every list among its targets: into all queues, or
    /// into none if one refuses. Whether any queue was still there.
    pub(super) fn feed(
        &self,
        effects: &mut Effects,
        targets: &[Target],
        feed: Feed,
        publication: &Publication<'_>,
        now: Time,
    ) -> Result<bool, Refused> {
        let queues = || {
            targets.iter().filter_map(|target| match target.receiver {
                Receiver::Queue(queue) => Some(queue),
                Receiver::Session(_) | Receiver::Group(_) => None,
            })
        };
        let mut first = queues();
        let fed = match (first.next(), first.next()) {
            (None, _) => Ok(false),
            (Some(queue), None) => self.feed_one(effects, queue, feed, publication, now),
            (Some(_), Some(_)) => self.feed_many(effects, queues, feed, publication, now),
        };
        if fed.is_err() && publication.qos > Qos::AtMostOnce {
            return fed;
        }
        for target in targets {
            if let Receiver::Group(group) = target.receiver {
                let message = publication.message().clone();
                let taken = self
                    .change_list_with(effects, group, now, |list| list.queue.enqueue(message, now));
                if matches!(taken, Some(Err(_))) {
                    self.counters.dropped_group.increment();
                }
            }
        }
        fed
    }

    /// Whether the queue was still there.
    pub(super) fn feed_one(
        &self,
        effects: &mut Effects,
        queue: QueueId,
        feed: Feed,
        publication: &Publication<'_>,
        now: Time,
    ) -> Result<bool, Refused> {
        let message = publication.message().clone();
        let taken = self.change_list_with(effects, queue, now, |list| {
            if feed == Feed::Direct {
                list.last_used = now;
            }
            list.queue.enqueue(message, now)
        });
        match taken {
            Some(Err(_)) => Err(Refused::QueueFull {
                queue,
                cost_bytes: publication.cost_bytes(),
            }),
            Some(Ok(())) => Ok(true),
            None => Ok(false),
        }
    }

    /// Room is reserved in each in turn, and given back if one refuses.
    fn feed_many<I: Iterator<Item = QueueId>>(
        &self,
        effects: &mut Effects,
        queues: impl Fn() -> I,
        feed: Feed,
        publication: &Publication<'_>,
        now: Time,
    ) -> Result<bool, Refused> {
        let cost = publication.cost_bytes();
        for (reserved, queue) in queues().enumerate() {
            let Some(mut list) = self.lists.lock(queue.0) else {
                continue;
            };
            if list.queue.reserve(cost).is_ok() {
                continue;
            }
            drop(list);
            for earlier in queues().take(reserved) {
                if let Some(mut list) = self.lists.lock(earlier.0) {
                    list.queue.cancel_reservation(cost);
                }
            }
            return Err(Refused::QueueFull {
                queue,
                cost_bytes: cost,
            });
        }
        let mut fed = false;
        for queue in queues() {
            let message = publication.message().clone();
            let put_in = self.change_list_with(effects, queue, now, |list| {
                if feed == Feed::Direct {
                    list.last_used = now;
                }
                list.queue.enqueue_reserved(message, now);
            });
            fed |= put_in.is_some();
        }
        Ok(fed)
    }

    /// The connection of `waiter` holds a PUBLISH back until `queue` has room.
    /// Whether there is some already.
    pub(super) fn wait_for_room(
        &self,
        queue: QueueId,
        waiter: (SessionId, u32),
        cost_bytes: usize,
    ) -> bool {
        match self.lists.lock(queue.0) {
            Some(mut list) if !list.queue.has_room(cost_bytes) => {
                if !list.waiters.contains(&waiter) {
                    list.waiters.push_back(waiter);
                }
                false
            }
            _ => true,
        }
    }

    // ---- changing

    /// As [`Core::change_list_with`].
    pub(super) fn change_list<R>(
        &self,
        worker: &mut Worker,
        id: QueueId,
        now: Time,
        change: impl FnOnce(&mut List) -> R,
    ) -> Option<R> {
        self.change_list_with(&mut worker.effects, id, now, change)
    }

    /// Changes a list, then gives out what can be given, and sees to what came
    /// of it. `None`: the list is gone.
    pub(super) fn change_list_with<R>(
        &self,
        effects: &mut Effects,
        id: QueueId,
        now: Time,
        change: impl FnOnce(&mut List) -> R,
    ) -> Option<R> {
        let mut list = self.lists.lock(id.0)?;
        let result = change(&mut list);
        self.give_out(&mut list, id, effects, now);
        let totals = list.queue.totals();
        // A work queue drops none so.
        let (dropped, expired) = (totals.dropped + totals.discarded, totals.expired);
        let counted = std::mem::replace(&mut list.counted, (dropped, expired));
        let counters = &self.counters;
        counters.dropped_group.add((dropped - counted.0) as usize);
        counters.dropped_expired.add((expired - counted.1) as usize);
        while let Some(letter) = list.queue.poll_dead() {
            // It gave up its own room just now.
            let reserved = list.queue.reserve(letter.message.cost_bytes()).is_ok();
            list.aside.push_back((letter, reserved));
        }
        // One at a time: who finds room left calls the next by putting in.
        while list.queue.has_room(0)
            && let Some((waiter, number)) = list.waiters.pop_front()
        {
            let session = self.sessions.lock(waiter.0);
            let session = session.filter(|session| session.is_link(number));
            if session.is_some_and(|mut session| session.retry(effects)) {
                break;
            }
        }
        if let Some(due) = list.queue.next_timeout()
            && due < list.alarm
        {
            list.alarm = self.schedule(now, due, Timer::Queue(id));
        }
        if !list.aside.is_empty() && list.aside_due <= now {
            let letters = std::mem::take(&mut list.aside);
            let name = list.queue_name().map(Arc::<str>::from);
            drop(list);
            self.bury(effects, id, name, letters, now);
        }
        Some(result)
    }

    /// Turns, as long as there are jobs and members with room.
    fn give_out(&self, list: &mut List, id: QueueId, effects: &mut Effects, now: Time) {
        let List {
            queue: jobs,
            name,
            kind,
            ..
        } = list;
        let queue = match *kind {
            Kind::Work { queue_topic, .. } => {
                let name = name.strip_prefix("$queue/").unwrap_or_default();
                Some((name, queue_topic))
            }
            Kind::Share => None,
        };
        let subscribed = match queue {
            Some(_) => Subscribed::Queue(id),
            None => Subscribed::Group(id),
        };
        while let Some(lease) = jobs.poll_lease(now) {
            let (lease_id, member) = (lease.id, lease.member);
            let session = self.sessions.lock(member.0);
            let delivered = session.map_or(JobDelivered::NoRoom, |mut session| {
                let topic = lease.message.topic_bytes();
                let action = Action::Deliver { topic };
                if self.access.decide(&session.identity, action) == Decision::Deny {
                    return JobDelivered::NoRoom;
                }
                effects.frames.begin(1);
                let publication = Publication::of(lease.message, now);
                let delivery = JobDelivery {
                    qos: lease.qos,
                    list: subscribed,
                    lease: lease_id,
                    about: queue.map(|(queue, queue_topic)| About {
                        queue,
                        queue_topic,
                        delivery: lease.deliveries,
                        enqueued_at_ms: publication.received.as_micros() / 1000,
                    }),
                };
                session.deliver_job(&publication, delivery, effects)
            });
            match delivered {
                JobDelivered::Taken => {}
                JobDelivered::TakenLast => jobs.pass_over(member),
                JobDelivered::NoRoom => jobs.refuse_lease(lease_id),
                JobDelivered::TooLarge => jobs.skip_lease(lease_id, now),
            }
        }
    }

    /// Moves dead letters to `$dead/NAME`. Where that is full they are set
    /// aside, take room in their own queue, and are tried again.
    fn bury(
        &self,
        effects: &mut Effects,
        id: QueueId,
        name: Option<Arc<str>>,
        mut letters: VecDeque<(DeadLetter, bool)>,
        now: Time,
    ) {
        let Some(name) = name else {
            return; // A share group has none.
        };
        let dead_name = format!("$dead/{name}");
        let mut room = Vec::new();
        while let Some((letter, reserved)) = letters.front() {
            // A person is to see it, however late.
            let message = Message::without_expiry(&letter.message);
            let cost_bytes = message.cost_bytes();
            let taken = TopicFilter::parse(&dead_name, TopicLimits::NONE)
                .map_err(|error| Close::new(ReasonCode::TopicNameInvalid, error.to_string()))
                .and_then(|filter| self.create_queue(filter, true, now))
                .map(|queue| {
                    self.change_list_with(effects, queue, now, |list| {
                        list.last_used = now;
                        list.queue.enqueue(message, now)
                    })
                });
            if !matches!(taken, Ok(Some(Ok(())))) {
                break;
            }
            tracing::debug!(queue = ?name, reason = ?letter.reason, deliveries = letter.deliveries, "dead letter");
            self.counters.dead_letters.increment();
            room.extend(reserved.then_some(cost_bytes));
            letters.pop_front();
        }
        let left = letters.len();
        let returned = self.change_list_with(effects, id, now, |list| {
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

    // ---- time

    /// Time-outs and delays of a list that are due.
    pub(super) fn handle_list_timeout(&self, worker: &mut Worker, id: QueueId, now: Time) {
        let mut timed_out = Vec::new();
        self.change_list(worker, id, now, |list| {
            // Timers that an earlier one has made needless set no other.
            if list.alarm <= now {
                list.alarm = Time::MAX;
            }
            list.queue.handle_timeout(now, &mut timed_out);
        });
        for (session, lease) in timed_out {
            if let Some(mut session) = self.sessions.lock(session.0)
                && let Some(packet_id) = session.window.id_of(id, lease)
            {
                session.window.weaken(packet_id, Hold::TimedOut);
            }
            self.watch_stale(session, id, now);
        }
    }

    /// A queue that nobody configured goes when nobody used it for long.
    pub(super) fn handle_unused(&self, id: QueueId, now: Time) {
        let after = self.queues_settings.auto_delete_after;
        let due = match self.lists.lock(id.0) {
            Some(list) if list.queue.counts().members == 0 => list.last_used + after,
            Some(_) => now + after,
            None => return,
        };
        if due > now {
            self.schedule(now, due, Timer::Unused(id));
        } else {
            self.remove_list(id, |list| {
                list.queue.counts().members == 0 && list.last_used + after <= now
            });
        }
    }
}
