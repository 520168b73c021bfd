//! What a person does with a queue: looks at what is in it, stops it, takes
//! jobs out of their turn.
//!
//! Taking out is in two steps, as for a dead letter: what is taken keeps its
//! row and its room until it is stored elsewhere ([`Queue::moved_out`]), or
//! comes back ([`Queue::give_back`]).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashSet;

use super::jobs::{Job, State, Stored};
use super::stored::Source;
use super::trace::What;
use super::{Ask, Fate, Finished, Outcome, Queue, StoredJob};
use crate::config::Durability;
use crate::journal::ListId;
use crate::message::{Message, MessageId, Qos, SessionId, Time};

/// Jobs that are looked at before others get their turn.
const LOOKED_AT: usize = 4096;

/// A member, as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberState {
    pub session: SessionId,
    pub is_connected: bool,
    pub qos: Qos,
    /// `None`: the queue's.
    pub prefetch: Option<u32>,
    pub in_flight: u32,
    /// When it got what it has for the longest time.
    pub oldest: Option<Time>,
    /// From delivery to acknowledgement: a moving mean.
    pub latency: Option<Duration>,
    /// It gets no turns until then.
    pub resting_until: Option<Time>,
}

/// Where a job is that is looked at. First come those whose turn is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whereabouts {
    Ready,
    Delayed { due: Time },
    InFlight { member: SessionId },
}

/// A job that is looked at.
#[derive(Clone, Debug)]
pub struct Seen {
    pub message: Arc<Message>,
    pub whereabouts: Whereabouts,
    pub priority: u8,
    pub group: Option<Box<str>>,
    pub deliveries: u32,
}

/// Where a job that is looked at stands among the others: by state, priority and
/// place in the order.
pub type Place = (u8, u8, u64);

/// The first jobs of a queue, while they are looked for.
pub struct Peek {
    found: BTreeMap<Place, Seen>,
    jobs_max: usize,
    with_in_flight: bool,
    next_key: usize,
}

impl Peek {
    /// `with_in_flight`: also what members have.
    pub fn new(jobs_max: usize, with_in_flight: bool) -> Peek {
        Peek {
            found: BTreeMap::new(),
            jobs_max,
            with_in_flight,
            next_key: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.found.len()
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// How many of them are ready, as far as is known.
    pub fn ready_len(&self) -> usize {
        self.found.range(..(1, 0, 0)).count()
    }

    /// So many are looked for.
    pub fn jobs_max(&self) -> usize {
        self.jobs_max
    }

    /// A job that is not in memory: its place is behind those that are.
    pub fn stored(job: StoredJob<'_>, ask: &Ask<'_>) -> (Place, Seen) {
        let (rank, whereabouts) = match job.record.fate {
            Fate::Delayed(due) => (2, Whereabouts::Delayed { due }),
            _ => (1, Whereabouts::Ready),
        };
        let seen = Seen {
            message: job.message,
            whereabouts,
            priority: ask.priority,
            group: ask.group.map(Box::from),
            deliveries: job.record.deliveries,
        };
        ((rank, u8::MAX - ask.priority, job.sequence), seen)
    }

    fn add(&mut self, place: Place, seen: Seen) {
        self.found.insert(place, seen);
        if self.found.len() > self.jobs_max {
            self.found.pop_last();
        }
    }

    /// In the order in which they are given out, as far as that can be known.
    pub fn into_seen(self) -> impl Iterator<Item = (Place, Seen)> {
        self.found.into_iter()
    }
}

/// A job that was taken out.
pub struct Taken {
    pub message: Arc<Message>,
    pub stored: Stored,
    /// When it is due, if it is delayed.
    pub due: Option<Time>,
    /// The job itself, in no place, where it was in memory.
    job: Option<Box<Job>>,
    said: Box<str>,
    name: Option<Box<str>>,
    source: u8,
    sequence: u64,
}

impl Taken {
    /// Its place in the order.
    pub fn place(&self) -> u64 {
        self.sequence
    }
}

impl Queue {
    // ---- looking

    /// Nobody gets anything until [`Queue::resume`].
    pub fn pause(&mut self) {
        self.is_paused = true;
    }

    /// What is stored from now on is stored so safely.
    pub fn set_durability(&mut self, durability: Durability) {
        if let Some(keeping) = &mut self.keeping {
            keeping.durability = durability;
        }
    }

    pub fn resume(&mut self) {
        self.is_paused = false;
    }

    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Those that joined, and those that hold something still.
    pub fn member_states(&self) -> Vec<MemberState> {
        let members = self.rota.members.iter();
        let states = members.map(|(_, member)| {
            let oldest = member.leases.first();
            MemberState {
                session: member.session,
                is_connected: member.is_connected(),
                qos: member.membership.qos,
                prefetch: member.membership.prefetch,
                in_flight: member.held_len(),
                oldest: oldest.map(|job| self.jobs[job as usize].held().delivered),
                latency: (member.took_micros > 0)
                    .then(|| Duration::from_micros(member.took_micros)),
                resting_until: member.rests_until,
            }
        });
        states.collect()
    }

    /// Looks at some of the jobs in memory; whether there are more.
    pub fn peek(&self, peek: &mut Peek) -> bool {
        let end = self.jobs.capacity().min(peek.next_key + LOOKED_AT);
        for key in peek.next_key..end {
            let Some(job) = self.jobs.get(key) else {
                continue;
            };
            let (rank, whereabouts) = match job.state {
                State::Ready | State::Behind => (0, Whereabouts::Ready),
                State::Delayed { due } => (2, Whereabouts::Delayed { due }),
                State::Leased(_) | State::Settling { .. } if !peek.with_in_flight => continue,
                State::Leased(_) | State::Settling { .. } => {
                    let Some(member) = self.rota.members.get(job.member as usize) else {
                        continue;
                    };
                    let member = member.session;
                    (3, Whereabouts::InFlight { member })
                }
            };
            let priority = job.priority;
            let group = self.group_name(key as u32);
            let place = (rank, u8::MAX - priority, job.sequence);
            let last = peek.found.last_key_value();
            if peek.len() >= peek.jobs_max && last.is_none_or(|(last, _)| *last < place) {
                continue;
            }
            let seen = Seen {
                message: job.message.clone(),
                whereabouts,
                priority,
                group,
                deliveries: job.deliveries,
            };
            peek.add(place, seen);
        }
        peek.next_key = end;
        end < self.jobs.capacity()
    }

    fn group_name(&self, key: u32) -> Option<Box<str>> {
        let groups = self.groups.as_ref()?;
        let group = self.jobs[key as usize].group;
        let name = (group != Job::NO_GROUP).then(|| groups.name(group))?;
        Some(name).filter(|name| !name.is_empty()).map(Box::from)
    }

    /// Where the jobs begin that are not in memory and not delayed, and how
    /// many those are: the highest priority first.
    pub fn unread(&self) -> Vec<(ListId, u64, usize)> {
        let sources = self.keeping.iter().flat_map(|keeping| &keeping.sources);
        let mut unread: Vec<&Source> = sources.filter(|source| source.unread > 0).collect();
        unread.sort_by_key(|source| Reverse(source.kind));
        let unread = unread.into_iter();
        unread
            .map(|source| (source.list, source.unread_from, source.unread))
            .collect()
    }

    /// Whether the row, of one that is not in memory, was taken out.
    pub fn was_taken(&self, list: ListId, sequence: u64) -> bool {
        self.keeping.as_ref().is_some_and(|keeping| {
            let mut sources = keeping.sources.iter();
            let source = sources.find(|source| source.list == list);
            source.is_some_and(|source| keeping.taken.contains(&(source.kind, sequence)))
        })
    }

    /// Jobs that no member has, but for those that are delayed on disk.
    pub fn waiting_len(&self) -> usize {
        self.counts().ready + self.delayed
    }

    /// Nobody gets anything until [`Queue::end_purge`].
    pub fn begin_purge(&mut self) {
        self.is_purged = true;
    }

    pub fn end_purge(&mut self) {
        self.is_purged = false;
    }

    /// Some of the jobs that are delayed on disk are due from now on: somebody
    /// does away with all there are.
    pub fn hasten(&mut self, jobs_max: usize) {
        if let Some(keeping) = &mut self.keeping {
            for _ in 0..jobs_max.min(Queue::READ_LOW) {
                let Some((_, row, priority, kind)) = keeping.away.pop_first() else {
                    break;
                };
                keeping.due.insert((Reverse(priority), kind, row));
            }
        }
    }

    // ---- taking out

    /// Takes out the first jobs in memory that no member has: so many, with
    /// no more bytes than that, but one in any case.
    pub fn take_waiting(&mut self, jobs_max: usize, bytes_max: usize) -> Vec<Taken> {
        let mut taken: Vec<Taken> = Vec::new();
        let mut bytes = 0;
        while taken.len() < jobs_max
            && let Some(key) = self.first_waiting()
        {
            bytes += self.jobs[key as usize].message.cost_bytes();
            if bytes > bytes_max && !taken.is_empty() {
                break;
            }
            taken.push(self.take_waiting_job(key));
        }
        taken
    }

    /// Takes out those of these messages that are in memory and that no member
    /// has; their ids are removed. Looks at some jobs, from a key on, and tells
    /// from which to go on.
    pub fn take_messages(
        &mut self,
        ids: &mut FxHashSet<MessageId>,
        from: usize,
    ) -> (Vec<Taken>, Option<usize>) {
        let capacity = self.jobs.capacity();
        let end = capacity.min(from + LOOKED_AT);
        let mut taken = Vec::new();
        for key in from..end {
            if let Some(job) = self.jobs.get(key)
                && !matches!(job.state, State::Leased(_) | State::Settling { .. })
                && ids.remove(&job.message.id())
            {
                taken.push(self.take_waiting_job(key as u32));
            }
        }
        (taken, (end < capacity).then_some(end))
    }

    /// Takes out a job that is not in memory, as it was read from a list; not
    /// one that a member may have.
    pub fn take_stored(&mut self, list: ListId, job: StoredJob<'_>) -> Option<Taken> {
        let keeping = self.keeping.as_mut()?;
        let due = match job.record.fate {
            Fate::Open => None,
            Fate::Delayed(due) => Some(due),
            Fate::GivenAway | Fate::Held(..) => return None,
        };
        let source = keeping.source_of(list)?;
        let kind = source.kind;
        if !source.is_unread(job.sequence) || keeping.taken.contains(&(kind, job.sequence)) {
            return None;
        }
        // What it takes is known now; before it was as much as others on average.
        let read = keeping.source_of(list)?.read_one();
        keeping.taken.insert((kind, job.sequence));
        self.bytes = self.bytes - read + job.message.cost_bytes();
        Some(Taken {
            message: job.message,
            stored: job.stored,
            due,
            job: None,
            said: job.record.said.into(),
            name: None,
            source: kind,
            sequence: job.sequence,
        })
    }

    /// It is stored elsewhere.
    pub fn moved_out(&mut self, taken: &Taken) {
        self.totals.moved += 1;
        self.let_go(taken, What::Moved);
    }

    /// It is done away with.
    pub fn purge_out(&mut self, taken: &Taken) {
        self.totals.purged += 1;
        self.let_go(taken, What::Dropped);
        if let Some(job) = taken.job.as_ref().filter(|job| job.flags.receipt) {
            self.finished.push_back(Finished {
                message: taken.message.clone(),
                outcome: Outcome::Dropped,
                deliveries: job.deliveries,
                said: taken.said.clone(),
            });
        }
    }

    fn let_go(&mut self, taken: &Taken, what: What) {
        self.trace_message(taken.message.id(), what);
        self.cancel_reservation(taken.message.cost_bytes());
        if let Some(keeping) = &mut self.keeping {
            let row = (taken.source, taken.sequence);
            keeping.remove(row, taken.stored, &taken.message);
        }
    }

    /// It could not be stored elsewhere, and is where it was.
    pub fn give_back(&mut self, taken: Taken) {
        let Some(job) = taken.job else {
            // It was not in memory, and is not.
            if let Some(keeping) = &mut self.keeping {
                let row = (taken.source, taken.sequence);
                let is_ahead = keeping.taken.remove(&row);
                match keeping.source(taken.source).filter(|_| is_ahead) {
                    Some(source) => {
                        source.unread += 1;
                        source.unread_bytes += taken.message.cost_bytes();
                    }
                    // The reading has passed it meanwhile: it is read alone.
                    None => {
                        let of_its_own = taken.source < Source::DELAYED;
                        let priority = match of_its_own {
                            true => taken.source,
                            false => Ask::PRIORITY,
                        };
                        let due = (Reverse(priority), taken.source, taken.sequence);
                        keeping.due.insert(due);
                    }
                }
            }
            return;
        };
        let ask = Ask {
            priority: job.priority,
            group: taken.name.as_deref(),
            receipt: job.flags.receipt,
            ..Ask::default()
        };
        let row = (taken.source, taken.sequence);
        let key = self.add_job(taken.message, &ask, row, taken.stored);
        let again = &mut self.jobs[key as usize];
        (again.deliveries, again.failures, again.losses) =
            (job.deliveries, job.failures, job.losses);
        self.say(key, &taken.said);
        match taken.due {
            Some(due) => {
                self.hold_group(key, job.failures > 0);
                self.delay_unamended(key, due);
            }
            None => self.wait(key, false),
        }
    }

    /// The next to be taken out: first what is ready, in its order.
    fn first_waiting(&self) -> Option<u32> {
        if let Some(key) = self.ready.first(&self.jobs, self.fair_groups()) {
            return Some(key);
        }
        let waiting = self.waiting_in_memory().into_iter();
        waiting.min_by_key(|&key| {
            let job = &self.jobs[key as usize];
            (matches!(job.state, State::Delayed { .. }), job.sequence)
        })
    }

    /// Its row and its room stay.
    fn take_waiting_job(&mut self, key: u32) -> Taken {
        let due = match self.jobs[key as usize].state {
            State::Delayed { due } => Some(due),
            _ => None,
        };
        let name = self.group_name(key);
        self.take_out_waiting(key);
        let (job, said) = self.take_job(key, None);
        self.messages += 1;
        self.bytes += job.message.cost_bytes() + Queue::JOB_BYTES;
        Taken {
            message: job.message.clone(),
            stored: job.stored,
            due,
            source: job.source,
            sequence: job.sequence,
            job: Some(Box::new(job)),
            said,
            name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Rules, Settings};
    use super::*;
    use crate::config::{Dispatch, Overflow, Undecided};
    use crate::message::{ClientId, Envelope, Identity};
    use crate::queue::JobRecord;
    use crate::topic::{TopicLimits, TopicName};

    const LIST: ListId = ListId(1);

    fn message(row: u64) -> Arc<Message> {
        let envelope = Envelope {
            id: MessageId(row),
            qos: Qos::AtLeastOnce,
            retain: false,
            publisher: Arc::new(Identity {
                user: None,
                client: ClientId::new("p"),
            }),
            received: Time::ZERO,
            expires: Time::MAX,
        };
        let topic = TopicName::parse("t", TopicLimits::NONE).expect("a topic");
        Arc::new(Message::new(topic, &[], b"", envelope))
    }

    fn stored_job(row: u64) -> StoredJob<'static> {
        StoredJob {
            sequence: row,
            message: message(row),
            stored: Stored::row(false),
            record: JobRecord::NEW,
        }
    }

    /// A queue with so many jobs in their rows, from 1 on.
    fn queue(jobs: u64) -> Queue {
        let mut queue = Queue::new(Settings {
            prefetch: 1,
            ack_timeout: None,
            undecided: Undecided::DeadLetter,
            undecided_after: Duration::MAX,
            exclusive: false,
            dispatch: Dispatch::RoundRobin,
            deliveries_max: 10,
            backoff_min: Duration::ZERO,
            backoff_max: Duration::ZERO,
            ttl: None,
            dead_letter_expired: false,
            fair: false,
            last_value: false,
            dedup_window: Duration::ZERO,
            overflow: Overflow::Reject,
            messages_max: usize::MAX,
            bytes_max: usize::MAX,
            trace_events_max: 0,
            rules: Rules::Work,
        });
        queue.keep(LIST, Durability::Synced);
        for row in 1..=jobs {
            let message = message(row);
            queue.reserve(message.cost_bytes()).expect("there is room");
            queue.enqueue_reserved(message, &Ask::default(), Stored::row(false), Time::ZERO);
        }
        queue
    }

    /// Reads what the queue wants, of rows up to that one.
    fn read(queue: &mut Queue, last: u64) {
        while let Some(wanted) = queue.wants_jobs() {
            let rows = wanted.from..wanted.from + wanted.rows_max as u64;
            for row in rows.take_while(|row| *row <= last) {
                queue.load(LIST, stored_job(row), &Ask::default(), Time::ZERO);
            }
        }
    }

    /// Somebody else may have read on between taking and giving back.
    #[test]
    fn a_job_that_the_reading_has_passed_comes_back_once() {
        let jobs = Queue::READ_MAX as u64 + 20;
        for reads_on in [false, true] {
            let mut queue = queue(jobs);
            let from = queue.unread()[0].1;
            let taken = queue.take_stored(LIST, stored_job(from + 5));
            let taken = taken.expect("it is not in memory");
            assert!(queue.take_stored(LIST, stored_job(from + 5)).is_none());
            let empty = |queue: &mut Queue| -> Vec<u64> {
                let waiting = queue.take_waiting(usize::MAX, usize::MAX);
                waiting.iter().for_each(|job| queue.purge_out(job));
                waiting.iter().map(Taken::place).collect()
            };
            let mut places = empty(&mut queue);
            if reads_on {
                read(&mut queue, jobs);
            }
            queue.give_back(taken);
            read(&mut queue, jobs);
            places.extend(empty(&mut queue));
            places.sort_unstable();
            assert!(
                places == (1..=jobs).collect::<Vec<_>>(),
                "{reads_on}: {places:?}"
            );
            assert_eq!((queue.messages, queue.bytes), (0, 0));
        }
    }
}
