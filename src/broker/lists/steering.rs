//! What a person does with a queue: gives it settings, stops it, empties it,
//! moves what is in it, does away with it.
//!
//! Owns the steps that need the list itself; which of them are asked for, and
//! what is said of them, is `steer`'s.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustc_hash::FxHashSet;
use serde_json::{Map, Value};

use super::{Kind, List, Plan, stored_job};
use crate::broker::record::Target as Stored;
use crate::broker::steer::{Code, SteerError};
use crate::broker::{Core, Worker};
use crate::config::{Durability, queue_settings};
use crate::journal::ListId;
use crate::message::{Message, MessageId, QueueId, Time};
use crate::protocol::ReasonCode;
use crate::queue::{Ask, Counts, Event, MemberState, Peek, Place, Rates, Seen, Taken};
use crate::router::Receiver;
use crate::session::{Close, Effects, Publication, Subscribed};
use crate::topic::{TopicFilter, TopicLimits};

/// Of the settings that a queue is given, as JSON.
const GIVEN_BYTES_MAX: usize = 65_535;
/// Jobs that are moved in one go, and their bytes.
const MOVED_MAX: usize = 256;
const MOVED_BYTES_MAX: usize = 1 << 20;
/// Jobs that are not in memory, read in one go to be looked at.
const ROWS_MAX: usize = 256;
const ROWS_BYTES_MAX: usize = 512 << 10;
/// And in all, for one request.
const LOOKED_THROUGH_MAX: usize = 65_536;

/// A queue, as it is at a moment.
pub(in crate::broker) struct Look {
    pub settings: Arc<Plan>,
    pub given: Option<Map<String, Value>>,
    pub paused: bool,
    pub counts: Counts,
    pub rates: Rates,
    pub set_aside: usize,
    pub members: Vec<MemberState>,
}

/// A job that is looked at, as it is or as it is shown, with what that takes.
enum Found<V> {
    Seen(Seen),
    Shown((V, usize)),
}

/// What is to be moved.
pub(in crate::broker) enum Pick<'a> {
    /// So many, the next ones first.
    First(usize),
    /// These; those that were found are removed.
    Ids(&'a mut FxHashSet<MessageId>),
}

impl Core {
    // ---- looking

    /// The queue of that name.
    ///
    /// # Errors
    /// There is none.
    pub(in crate::broker) fn queue_named(&self, name: &str) -> Result<QueueId, SteerError> {
        self.list_named(&format!("$queue/{name}"))
            .ok_or_else(|| no_queue(name))
    }

    /// `None`: it is gone.
    pub(in crate::broker) fn look(&self, id: QueueId, now: Time) -> Option<Look> {
        let mut list = self.lists.lock(id.0)?;
        list.queue.at(now);
        let Kind::Work(plan) = &list.kind else {
            return None;
        };
        Some(Look {
            settings: plan.clone(),
            given: list.given.as_deref().map(keys_of),
            paused: list.queue.is_paused(),
            counts: list.queue.counts(),
            rates: list.queue.rates(),
            set_aside: list.aside.len(),
            members: list.queue.member_states(),
        })
    }

    /// The first jobs of a queue, those in memory before those on disk, as `show`
    /// shows them, with what that takes in bytes: as many as `bytes_max` has room
    /// for, but one in any case. And whether there was no room for all.
    ///
    /// # Errors
    /// The queue is gone, or the disk cannot be read.
    pub(in crate::broker) fn peek<V>(
        &self,
        id: QueueId,
        name: &str,
        mut peek: Peek,
        bytes_max: usize,
        show: impl Fn(&Seen) -> (V, usize),
    ) -> Result<(Vec<V>, bool), SteerError> {
        // Others have their turns in between.
        while self.with_queue(id, name, |list| list.queue.peek(&mut peek))? {}
        let unread = self.with_queue(id, name, |list| list.queue.unread())?;
        let mut left = peek.jobs_max().saturating_sub(peek.ready_len());
        // What is read is shown at once: whole, it may take much more.
        let mut shown = BTreeMap::new();
        let mut bytes = 0;
        for (stored_in, mut from, _) in unread {
            while left > 0 && bytes <= bytes_max {
                let rows = self.read_rows(stored_in, from, left.min(ROWS_MAX))?;
                let Some(last) = rows.last() else { break };
                from = last.row + 1;
                let seen: Vec<_> = self.with_queue(id, name, |list| {
                    let there = rows.iter();
                    let there = there.filter(|row| !list.queue.was_taken(stored_in, row.row));
                    let jobs = there.filter_map(stored_job).take(left);
                    let seen = jobs.map(|job| {
                        let message = job.message.clone();
                        let ask = list.ask(
                            &Publication::of(&message, message.received()),
                            message.received(),
                        );
                        Peek::stored(job, &ask)
                    });
                    seen.collect()
                })?;
                left -= seen.len();
                for (place, seen) in seen {
                    let (view, cost) = show(&seen);
                    bytes += cost;
                    shown.insert(place, (view, cost));
                }
            }
        }
        let jobs_max = peek.jobs_max();
        let mut found: BTreeMap<Place, Found<V>> = BTreeMap::new();
        found.extend(
            peek.into_seen()
                .map(|(place, seen)| (place, Found::Seen(seen))),
        );
        let stored = shown.into_iter();
        found.extend(stored.map(|(place, shown)| (place, Found::Shown(shown))));
        let mut views = Vec::new();
        let mut bytes = 0;
        for found in found.into_values().take(jobs_max) {
            let (view, cost) = match found {
                Found::Seen(seen) => show(&seen),
                Found::Shown(shown) => shown,
            };
            bytes += cost;
            if bytes > bytes_max && !views.is_empty() {
                return Ok((views, true));
            }
            views.push(view);
        }
        Ok((views, false))
    }

    /// What happened to one message of a queue, or to all from this event on.
    ///
    /// # Errors
    /// The queue is gone.
    pub(in crate::broker) fn events(
        &self,
        id: QueueId,
        name: &str,
        asked: Result<MessageId, (u64, usize)>,
    ) -> Result<(Vec<Event>, u64), SteerError> {
        self.with_queue(id, name, |list| match asked {
            Ok(message) => (list.queue.events_of(message), 0),
            Err((from, count)) => list.queue.events(from, count),
        })
    }

    fn with_queue<R>(
        &self,
        id: QueueId,
        name: &str,
        look: impl FnOnce(&List) -> R,
    ) -> Result<R, SteerError> {
        let list = self.lists.lock(id.0).ok_or_else(|| no_queue(name))?;
        Ok(look(&list))
    }

    fn read_rows(
        &self,
        stored_in: ListId,
        from: u64,
        rows_max: usize,
    ) -> Result<Vec<crate::store::Row>, SteerError> {
        let rows = self.store.read(stored_in, from, rows_max, ROWS_BYTES_MAX);
        rows.map_err(|error| {
            let text = format!("what is stored of the queue cannot be read: {error}");
            SteerError::new(Code::Unreadable, text)
        })
    }

    // ---- settings

    /// Whether a queue of that name has settings that were given to it while
    /// the broker ran.
    pub(super) fn is_given(&self, name: &str) -> bool {
        let list = self.list_named(&format!("$queue/{name}"));
        let list = list.and_then(|id| self.lists.lock(id.0));
        list.is_some_and(|list| list.given.is_some())
    }

    /// The settings of a queue that is there.
    pub(super) fn plan_there(&self, name: &str) -> Option<Arc<Plan>> {
        let list = self
            .lists
            .lock(self.list_named(&format!("$queue/{name}"))?.0)?;
        match &list.kind {
            Kind::Work(plan) => Some(plan.clone()),
            Kind::Share | Kind::Delayed => None,
        }
    }

    /// Makes a queue with these keys of a `[[queue]]`.
    ///
    /// # Errors
    /// The name or a key is not valid; the queue is there; there are too many.
    pub(in crate::broker) fn create_given(
        &self,
        effects: &mut Effects,
        name: &str,
        keys: &Map<String, Value>,
        now: Time,
    ) -> Result<QueueId, SteerError> {
        let (plan, given) = self.check_given(name, keys)?;
        let filter = TopicFilter::parse(name, TopicLimits::NONE)
            .map_err(|error| SteerError::new(Code::Invalid, error.to_string()))?;
        let full_name = format!("$queue/{name}");
        let _changes = self.list_changes.lock();
        if self.list_named(&full_name).is_some() {
            let text = format!("there is a queue {name:?} already; `set` changes its settings");
            return Err(SteerError::new(Code::Exists, text));
        }
        if self.queues_len.load(Ordering::Relaxed) >= self.limits().queues_max {
            let text = "there are queues_max queues; delete some, or raise it";
            return Err(SteerError::new(Code::Full, text));
        }
        Ok(
            self.add_queue(Arc::from(full_name), filter, plan, now, |list| {
                list.given = Some(given);
                self.keep_list(list, effects, now);
            }),
        )
    }

    /// Gives a queue that is there these keys, beside those that it was given
    /// before; null takes one away. All that it was given then.
    ///
    /// # Errors
    /// A key is not valid; the queue is gone.
    pub(in crate::broker) fn set_given(
        &self,
        effects: &mut Effects,
        (id, name): (QueueId, &str),
        keys: &Map<String, Value>,
        now: Time,
    ) -> Result<Map<String, Value>, SteerError> {
        let changes = self.list_changes.lock();
        let before = self.lists.lock(id.0).ok_or_else(|| no_queue(name))?;
        let mut all = before.given.as_deref().map(keys_of).unwrap_or_default();
        drop(before);
        for (key, value) in keys {
            all.insert(key.clone(), value.clone());
        }
        let (plan, given) = self.check_given(name, &all)?;
        let shown = keys_of(&given);
        self.apply(effects, id, (plan, Some(given)), true, now)
            .ok_or_else(|| no_queue(name))?;
        // What comes of that may make a queue of dead letters.
        drop(changes);
        self.change_list_with(effects, id, now, |_, _| ());
        Ok(shown)
    }

    /// What an earlier run of the broker was told of a queue holds again.
    pub(super) fn restore_given(&self, id: QueueId, given: &str, now: Time) {
        let Some(list) = self.lists.lock(id.0) else {
            return;
        };
        let name = list.queue_name().unwrap_or_default().to_owned();
        drop(list);
        match self.check_given(&name, &keys_of(given)) {
            // It stands in the store as it is.
            Ok((plan, given)) => {
                let checked = (plan, Some(given));
                _ = self.apply(&mut Effects::default(), id, checked, false, now);
            }
            Err(error) => {
                tracing::error!(
                    queue = name,
                    %error,
                    "settings that the queue was given are not valid any more; it has those of the configuration"
                );
                if let Some(mut list) = self.lists.lock(id.0) {
                    list.given = Some(given.into());
                }
            }
        }
    }

    /// The settings that a queue of this name has by these keys, and the keys
    /// as they are stored.
    pub(super) fn check_given(
        &self,
        name: &str,
        keys: &Map<String, Value>,
    ) -> Result<(Arc<Plan>, Box<str>), SteerError> {
        let base = match TopicFilter::parse(name, TopicLimits::NONE) {
            Ok(filter) => self.plan_of(filter).0,
            Err(_) => self.plans.current().default().clone(), // And is told so.
        };
        let settings = queue_settings(name, keys, &base, self.limits())
            .map_err(|error| SteerError::new(Code::Invalid, error.to_string()))?;
        let there = keys.iter().filter(|(_, value)| !value.is_null());
        let there: Map<String, Value> = there.map(|(k, v)| (k.clone(), v.clone())).collect();
        if there.is_empty() {
            return Ok((base, Box::default()));
        }
        let given = Value::Object(there).to_string();
        if given.len() > GIVEN_BYTES_MAX {
            let text = format!("the settings are longer than {GIVEN_BYTES_MAX} bytes as JSON");
            return Err(SteerError::new(Code::Invalid, text));
        }
        Ok((Plan::new(settings), given.into()))
    }

    /// With list changes locked. `None`: the queue is gone.
    pub(super) fn apply(
        &self,
        effects: &mut Effects,
        id: QueueId,
        (plan, given): (Arc<Plan>, Option<Box<str>>),
        is_new: bool,
        now: Time,
    ) -> Option<()> {
        let mut list = self.lists.lock(id.0)?;
        let dead = list.is_dead_letters();
        list.queue.set_settings(plan.core(dead));
        let before = std::mem::replace(&mut list.kind, Kind::Work(plan.clone()));
        list.given = given;
        let durability = self.durability_of(&list);
        list.queue.set_durability(durability);
        if is_new {
            list.store(&mut effects.journal, now);
        }
        let sequence = list.queue.next_sequence();
        self.store_list(&mut list, effects, sequence);
        let name = list.name.clone();
        drop(list);
        let Kind::Work(before) = before else {
            return None;
        };
        self.change_feeders(id, &name, &before.filters, &plan.filters);
        Some(())
    }

    /// The queue's own name feeds it in any case.
    fn change_feeders(&self, id: QueueId, name: &str, before: &[String], after: &[String]) {
        let receiver = Receiver::Queue(id);
        let own = name.strip_prefix("$queue/").unwrap_or_default();
        for gone in before
            .iter()
            .filter(|old| *old != own && !after.contains(old))
        {
            let filter = TopicFilter::parse(gone, TopicLimits::NONE).ok();
            filter.map(|filter| self.router.unsubscribe(filter, receiver));
        }
        for new in after.iter().filter(|new| !before.contains(new)) {
            if let Ok(filter) = TopicFilter::parse(new, TopicLimits::NONE) {
                self.feed_from(receiver, filter);
            }
        }
    }

    // ---- stopping, emptying, doing away with

    /// From now on members get nothing, or what there is. `None`: the queue is
    /// gone.
    pub(in crate::broker) fn set_paused(
        &self,
        worker: &mut Worker,
        id: QueueId,
        paused: bool,
        now: Time,
    ) -> Option<()> {
        self.change_list_with(&mut worker.effects, id, now, |list, effects| {
            match paused {
                true => list.queue.pause(),
                false => list.queue.resume(),
            }
            list.store(&mut effects.journal, now);
        })
    }

    /// Does away with so many jobs at most that no member has; how many, and
    /// how many are left. `None`: the queue is gone.
    pub(in crate::broker) fn purge_page(
        &self,
        worker: &mut Worker,
        id: QueueId,
        jobs_max: usize,
        now: Time,
    ) -> Option<(usize, usize)> {
        let mut purged = 0;
        // Nobody gets what is only about to be purged.
        for is_last in [false, true] {
            self.change_list(worker, id, now, |list| {
                list.queue.begin_purge();
                let taken = list.queue.take_waiting(jobs_max - purged, usize::MAX);
                for job in &taken {
                    list.queue.purge_out(job);
                }
                purged += taken.len();
                // Also what is delayed, on disk: it is read now.
                if !is_last && purged < jobs_max {
                    list.queue.hasten(jobs_max - purged);
                }
            })?;
        }
        self.counters.dropped_purged.add(purged);
        self.change_list(worker, id, now, |list| {
            list.queue.end_purge();
            let counts = list.queue.counts();
            (purged, counts.ready + counts.delayed)
        })
    }

    /// Does away with a queue and all it holds; how many messages, and how
    /// many members were connected. These are disconnected: they would wait
    /// for what never comes.
    ///
    /// # Errors
    /// It holds something or has members, and there is no `force`; the
    /// configuration file names it.
    pub(in crate::broker) fn delete_queue(
        &self,
        worker: &mut Worker,
        (id, name): (QueueId, &str),
        force: bool,
    ) -> Result<(usize, usize), SteerError> {
        if (self.plans.current().tables().iter()).any(|table| table.name == name) {
            let text = format!(
                "the queue {name:?} is in the configuration file, and would be there again at \
                 the next start; take it out there"
            );
            return Err(SteerError::new(Code::NotAllowed, text));
        }
        let mut members = Vec::new();
        let mut held = 0;
        let removed = self.remove_list(&mut worker.effects, id, |list| {
            let counts = list.queue.counts();
            members = list.queue.member_states();
            held = counts.ready + counts.in_flight + counts.delayed + list.aside.len();
            force || held == 0 && counts.members_connected == 0
        });
        let connected = members.iter().filter(|member| member.is_connected).count();
        let Some((full_name, messages)) = removed else {
            if self.lists.lock(id.0).is_none() {
                return Err(no_queue(name));
            }
            let text = format!(
                "the queue {name:?} has {held} messages and {connected} connected members; they \
                 are done away with too if force is given"
            );
            return Err(SteerError::new(Code::NotEmpty, text));
        };
        for member in members {
            let Some(mut session) = self.sessions.lock(member.session.0) else {
                continue;
            };
            let Some(granted) = session.subscriptions.remove(&Subscribed::Queue(id)) else {
                continue;
            };
            let target = match granted.list {
                Some(list) => Stored::List(list),
                None => Stored::Filter(&full_name),
            };
            self.store_subscription(&mut session, &mut worker.effects, (target, None));
            let why = "a queue that it was a member of is deleted";
            let close = Close::new(ReasonCode::AdministrativeAction, why);
            session.close(close, &mut worker.effects);
        }
        tracing::info!(queue = name, messages, "the queue is deleted, as was asked");
        Ok((messages, connected))
    }

    // ---- moving

    /// Moves jobs that no member has from one queue to another, each with all
    /// that is stored of it or not at all: how many, and how many are left.
    /// `anew`: they count as put in now, as when a dead letter is tried again.
    ///
    /// # Errors
    /// A queue is gone; the other one is full, and nothing was moved; the disk
    /// cannot be read.
    pub(in crate::broker) fn move_page(
        &self,
        worker: &mut Worker,
        (from, to): ((QueueId, &str), (QueueId, &str)),
        pick: Pick<'_>,
        anew: bool,
        now: Time,
    ) -> Result<(usize, usize), SteerError> {
        let mut taken = self.take_page(worker, from, pick, now)?;
        let kept_in = self.lists.lock(from.0.0);
        let kept_in = kept_in.and_then(|list| list.queue.kept_in());
        let durability = kept_in.map_or(Durability::Memory, |(_, durability)| {
            durability.max(Durability::Flushed)
        });
        let mut full = None;
        let moved = self.change_list_with(&mut worker.effects, to.0, now, |list, effects| {
            list.used(effects, now);
            for (count, job) in taken.iter().enumerate() {
                let message = match anew {
                    true => Arc::new(Message::received_anew(&job.message, now)),
                    false => job.message.clone(),
                };
                if let Err(why) = list.queue.reserve(message.cost_bytes()) {
                    full = Some(why);
                    return count;
                }
                let mut publication = Publication::of(&message, now);
                if job.stored.is_stored {
                    publication.durability = durability;
                }
                let ask = Ask {
                    due: job.due.filter(|_| !anew).unwrap_or(Time::ZERO),
                    ..list.ask(&publication, now)
                };
                list.put_in(&self.store, effects, &publication, &ask, now);
            }
            taken.len()
        });
        let returned = taken.split_off(moved.unwrap_or(0));
        let returned_len = returned.len();
        let left = self.change_list(worker, from.0, now, |list| {
            // In one batch with what they became.
            taken.iter().for_each(|job| list.queue.moved_out(job));
            (returned.into_iter()).for_each(|job| list.queue.give_back(job));
            list.queue.waiting_len()
        });
        match (moved, full) {
            (None, _) => Err(no_queue(to.1)),
            (Some(0), Some(full)) if returned_len > 0 => {
                let text = format!("{:?} takes no more: {full}", to.1);
                Err(SteerError::new(Code::Full, text))
            }
            (Some(moved), _) => Ok((moved, left.unwrap_or(0))),
        }
    }

    fn take_page(
        &self,
        worker: &mut Worker,
        (id, name): (QueueId, &str),
        pick: Pick<'_>,
        now: Time,
    ) -> Result<Vec<Taken>, SteerError> {
        let take = |worker: &mut Worker, take: &mut dyn FnMut(&mut List) -> Vec<Taken>| {
            let taken = self.change_list(worker, id, now, take);
            taken.ok_or_else(|| no_queue(name))
        };
        let ids = match pick {
            Pick::First(count) => {
                return take(worker, &mut |list| {
                    (list.queue).take_waiting(count.min(MOVED_MAX), MOVED_BYTES_MAX)
                });
            }
            Pick::Ids(ids) => ids,
        };
        let mut taken = self.take_read(worker, (id, name), ids, now)?;
        let unread = self.with_queue(id, name, |list| list.queue.unread())?;
        let mut looked = 0;
        for (stored_in, mut from, _) in unread {
            while !ids.is_empty() && looked < LOOKED_THROUGH_MAX {
                let rows = self.read_rows(stored_in, from, ROWS_MAX);
                // What was taken is not to be lost with the rest.
                let rows = rows.unwrap_or_else(|error| {
                    tracing::error!(queue = name, %error, "messages were not looked for on disk");
                    Vec::new()
                });
                let Some(last) = rows.last() else { break };
                from = last.row + 1;
                looked += rows
                    .len()
                    .max(rows.iter().map(|row| row.body.len()).sum::<usize>() >> 12);
                let jobs = rows.iter().filter_map(stored_job);
                let mut found: Vec<_> =
                    jobs.filter(|job| ids.contains(&job.message.id())).collect();
                if found.is_empty() {
                    continue;
                }
                // They may have been read by the queue meanwhile.
                taken.extend(take(worker, &mut |list| {
                    let stored = found.drain(..);
                    let stored = stored.filter_map(|job| list.queue.take_stored(stored_in, job));
                    let mut taken: Vec<Taken> = stored.collect();
                    for job in &taken {
                        ids.remove(&job.message.id());
                    }
                    // It reads no more than one page has.
                    taken.extend(list.queue.take_messages(ids, 0).0);
                    taken
                })?);
            }
        }
        // Those that the queue has read meanwhile.
        taken.extend(self.take_read(worker, (id, name), ids, now)?);
        taken.sort_unstable_by_key(Taken::place);
        Ok(taken)
    }

    /// Those of these messages that are in memory.
    fn take_read(
        &self,
        worker: &mut Worker,
        (id, name): (QueueId, &str),
        ids: &mut FxHashSet<MessageId>,
        now: Time,
    ) -> Result<Vec<Taken>, SteerError> {
        let mut taken = Vec::new();
        let mut next = Some(0);
        while let Some(key) = next.filter(|_| !ids.is_empty()) {
            // Others have their turns in between.
            let page = self.change_list(worker, id, now, |list| {
                let (taken, later) = list.queue.take_messages(ids, key);
                next = later;
                taken
            });
            taken.extend(page.ok_or_else(|| no_queue(name))?);
        }
        Ok(taken)
    }
}

/// Keys as they are stored.
pub(super) fn keys_of(given: &str) -> Map<String, Value> {
    serde_json::from_str(given).unwrap_or_default()
}

pub(in crate::broker) fn no_queue(name: &str) -> SteerError {
    let text = format!("there is no queue {name:?}; `list` tells which there are");
    SteerError::new(Code::NotFound, text)
}
