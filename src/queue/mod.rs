//! Work queues: who gets which job, and what has become of it.
//!
//! A [`Queue`] owns the jobs of one work queue, their order, its members and
//! whose turn it is, and who holds what until when. A PUBLISH comes here from
//! the router, by the broker, with [`Queue::enqueue`]; it goes on to a
//! member's session with each [`Lease`] that [`Queue::poll_lease`] gives.
//!
//! A `$share` group is a list of the same kind under other [`Rules`].
//!
//! Nothing here reads a clock, does I/O, locks, or knows a packet or a topic.
//! Every job is in exactly one place: ready in a lane, delayed, or leased to
//! one member; giving, settling and putting back take the same few steps
//! however many jobs and members there are, and nothing looks through all
//! members but a change of settings.
//!
//! ```text
//!             enqueue           poll_lease
//!   PUBLISH ----------> ready -------------> leased ---> done, dead letter
//!                       ^   ^                  | |
//!                       |   +--- lost, late ---+ | refused with a delay
//!                       +------- delayed <-------+
//! ```
//!
//! A queue that outlives the broker has the head of its jobs in memory, and
//! says by [`Queue::wants_jobs`] when more of the rest are to be read. A job
//! whose message expires leaves the queue at its time, ready or
//! delayed; one that a member has then lives on, and expires if it comes back.

mod jobs;
mod list;
mod rota;
mod stored;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use slab::Slab;

pub use self::jobs::Stored;
use self::jobs::{Held, Job, Lane, State};
use self::list::Links;
use self::rota::Rota;
use self::stored::Keeping;
pub use self::stored::{Fate, JobRecord, StoredJob};
use crate::config::{Durability, Undecided};
use crate::journal::{Journal, ListId};
use crate::message::{LeaseId, Message, PacketId, Qos, SessionId, Time};

/// What a queue can be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How many jobs a member may hold that has no prefetch of its own.
    pub prefetch: u32,
    /// How long a member may hold a job of QoS 1; `None`: for ever.
    pub ack_timeout: Option<Duration>,
    /// What becomes of a QoS 2 delivery that nobody knows the fate of.
    pub undecided: Undecided,
    /// How long after a QoS 2 delivery that is so.
    pub undecided_after: Duration,
    /// Only the member that is connected for the longest time gets jobs.
    pub exclusive: bool,
    /// Bounds of what is not settled: ready, delayed, leased and reserved.
    pub messages_max: usize,
    /// In bytes as [`Message::cost_bytes`] has them, and
    /// [`Queue::JOB_BYTES`] for each job.
    pub bytes_max: usize,
    pub rules: Rules,
}

/// Which kind of list it is. It never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// `$queue/NAME`. The queue is the sender: a delivery has the QoS that
    /// the member was granted.
    Work,
    /// `$share/{group}/{filter}`. A delivery has the lower of the QoS that
    /// was published and the one that was granted; a member may hold what its
    /// session takes, for as long as it likes; there are no dead letters.
    /// A message of QoS 0 that no member has room for is dropped.
    Share,
}

/// How a session takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Granted by SUBACK.
    pub qos: Qos,
    /// `None`: the queue's.
    pub prefetch: Option<u32>,
    /// `None`: the queue's.
    pub ack_timeout: Option<Duration>,
}

/// A job on its way to a member.
#[derive(Clone, Copy, Debug)]
pub struct Lease<'a> {
    pub id: LeaseId,
    pub member: SessionId,
    pub message: &'a Arc<Message>,
    /// Its place in the order, and its row.
    pub sequence: u64,
    pub qos: Qos,
    /// How often the job was delivered, this time included.
    pub deliveries: u32,
}

/// What a member has to say about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// QoS 0: written to the socket; QoS 1: PUBACK; QoS 2: PUBREC.
    Done,
    /// To the next member, at once or when `delay` has passed. The job keeps
    /// its place in the order.
    Refuse { delay: Option<Duration> },
    /// It cannot ever be done: a dead letter; under [`Rules::Share`]
    /// discarded, which is what a PUBACK or PUBREC of 0x80 or more asks for
    /// there [MQTT-4.8.2-6].
    Reject,
    /// The lease's time starts anew, for so long; `None`: for as long as it
    /// had first. A lease whose time has no end keeps it so.
    Extend(Option<Duration>),
}

/// A message that its queue gives up.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    pub message: Arc<Message>,
    pub reason: DeadReason,
    pub deliveries: u32,
    /// Where it stays until it is stored elsewhere: see [`Queue::moved`].
    pub sequence: u64,
    pub stored: Stored,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadReason {
    /// A member said that it cannot ever be done.
    Rejected,
    /// Delivered at QoS 2, and nobody knows whether its member has it.
    Undecided,
}

/// Why a queue does not take a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Messages,
    Bytes,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Full::Messages => {
                "the queue holds max_messages messages; let members settle some, or raise it"
            }
            Full::Bytes => "the queue holds max_bytes bytes; let members settle some, or raise it",
        })
    }
}

impl std::error::Error for Full {}

/// What is in a queue, and what has become of everything that ever was: what
/// was `enqueued` is ready, in flight, delayed, or counted by one of `done`,
/// `rejected`, `undecided`, `dropped`, `discarded`, `expired`, `lost`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub ready: usize,
    /// Leased.
    pub in_flight: usize,
    pub delayed: usize,
    /// Reserved ones included.
    pub bytes: usize,
    pub members: usize,
    pub members_connected: usize,
    /// When the broker received the first of those that are ready.
    pub oldest: Option<Time>,
    pub totals: Totals,
}

/// What happened since the queue was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub enqueued: u64,
    /// Leases that sessions took.
    pub delivered: u64,
    /// Those of them that were not a job's first.
    pub redelivered: u64,
    /// Leases whose time passed.
    pub timed_out: u64,
    pub refused: u64,
    pub done: u64,
    /// Dead letters, by reason.
    pub rejected: u64,
    pub undecided: u64,
    /// Published at QoS 0, and no member had room [`Rules::Share`].
    pub dropped: u64,
    /// Rejected, or held at QoS 2 by a session that ended [`Rules::Share`].
    pub discarded: u64,
    /// Their messages' time passed while no member had them [MQTT-3.3.2-5].
    pub expired: u64,
    /// Damaged on disk.
    pub lost: u64,
}

/// A work queue or a share group. Its user has it behind one lock.
pub struct Queue {
    settings: Settings,
    jobs: Slab<Job>,
    /// All that is ready, of one priority and no group.
    ready: Lane,
    /// The rest under [`Rules::Share`]: what was published at QoS 0, and is
    /// dropped when nobody has room for it.
    fleeting: Lane,
    delayed: usize,
    rota: Rota,
    next_sequence: u64,
    next_lease: u64,
    /// Timed work but for expiry, by the earliest time at which there may be some.
    timers: BTreeSet<(Time, Timer)>,
    /// Jobs that expire and that no member has, by the last moment at which
    /// one may get them.
    expiring: BTreeSet<(Time, u32)>,
    /// Leases with a deadline of their own, by job.
    extensions: FxHashMap<u32, Extension>,
    dead: VecDeque<DeadLetter>,
    /// Of the limits, with what is reserved.
    messages: usize,
    bytes: usize,
    totals: Totals,
    last_used: Time,
    /// Where it outlives the broker.
    keeping: Option<Box<Keeping>>,
}

/// What a time is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A job's delay is over.
    Delay(u32),
    /// A lease of this member may have ended. One for all of them: it stays
    /// when leases are settled, and finds when it fires what there is.
    Member(u32),
    /// Members that rested may have turns again.
    Rested,
}

/// Of a lease that its member extended.
struct Extension {
    at: Time,
    until: Time,
}

impl Extension {
    /// Settling an earlier delivery gives more time, never less.
    fn deadline(&self, qos: Qos, restarted: Time, span: Option<Duration>) -> Time {
        match span {
            Some(span) if qos == Qos::AtLeastOnce && restarted > self.at => {
                self.until.max(restarted + span)
            }
            _ => self.until,
        }
    }
}

impl Queue {
    /// What a job takes of `max_bytes` beside its message.
    pub const JOB_BYTES: usize = size_of::<Job>() + size_of::<u32>();

    /// How long others are asked instead of a member that could not take a
    /// job, or how long a job waits that no member could take.
    const SKIPPED_FOR: Duration = Duration::from_secs(1);

    /// Jobs of a stored queue that are in memory, and their bytes; the others
    /// are on disk.
    const READ_MAX: usize = 2048;
    const READ_BYTES_MAX: usize = 2 << 20;
    /// With fewer that are ready, more are read.
    const READ_LOW: usize = 512;

    /// Jobs that an empty queue keeps memory for.
    const JOBS_KEPT: usize = 1024;

    pub fn new(settings: Settings) -> Queue {
        Queue {
            rota: Rota::new(prefetch(&settings)),
            settings,
            jobs: Slab::new(),
            ready: Lane::default(),
            fleeting: Lane::default(),
            delayed: 0,
            next_sequence: 0,
            next_lease: 1,
            timers: BTreeSet::new(),
            expiring: BTreeSet::new(),
            extensions: FxHashMap::default(),
            dead: VecDeque::new(),
            messages: 0,
            bytes: 0,
            totals: Totals::default(),
            last_used: Time::ZERO,
            keeping: None,
        }
    }

    // ---- what is stored

    /// It outlives the broker from now on.
    pub fn keep(&mut self, list: ListId, durability: Durability) {
        let mut keeping = Keeping::new(list, durability);
        let in_memory = self.jobs.iter();
        keeping.read_bytes = in_memory.map(|(_, job)| job.message.cost_bytes()).sum();
        self.keeping = Some(Box::new(keeping));
        self.next_sequence = self.next_sequence.max(1);
    }

    /// Where its jobs are stored, and how safely.
    pub fn kept_in(&self) -> Option<(ListId, Durability)> {
        let keeping = self.keeping.as_ref()?;
        Some((keeping.list, keeping.durability))
    }

    /// The place in the order, and the row, of the next message put in.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// What has to be stored before the queue is let go.
    pub fn journal(&mut self) -> Option<&mut Journal> {
        let keeping = self.keeping.as_mut()?;
        (!keeping.journal.is_empty()).then_some(&mut keeping.journal)
    }

    /// What an earlier run of the broker left: so many jobs, of so many
    /// [`Message::cost_bytes`], to be read when they are wanted.
    pub fn restore(&mut self, next_sequence: u64, jobs: usize, cost_bytes: usize) {
        self.next_sequence = next_sequence.max(1);
        self.messages += jobs;
        self.bytes += cost_bytes + jobs * Queue::JOB_BYTES;
        self.totals.enqueued += jobs as u64;
        if let Some(keeping) = &mut self.keeping {
            keeping.unread = jobs;
            keeping.unread_bytes = cost_bytes;
            keeping.unread_from = 0;
        }
    }

    /// From which row on jobs are to be read, and how many.
    pub fn wants_jobs(&self) -> Option<(ListId, u64, usize)> {
        self.wants_jobs_within(Queue::READ_BYTES_MAX)
    }

    /// At a start, so that all are read that a member may have had in hand.
    pub fn wants_jobs_at_start(&self) -> Option<(ListId, u64, usize)> {
        self.wants_jobs_within(2 * Queue::READ_BYTES_MAX)
    }

    fn wants_jobs_within(&self, bytes_max: usize) -> Option<(ListId, u64, usize)> {
        let keeping = self.keeping.as_ref()?;
        let room = Queue::READ_MAX.saturating_sub(self.jobs.len());
        let wants = keeping.unread > 0
            && room > 0
            && keeping.read_bytes < bytes_max
            && self.ready.len() < Queue::READ_LOW;
        wants.then_some((keeping.list, keeping.unread_from, room.min(keeping.unread)))
    }

    /// A job that was read. Its holder's session, if one of QoS 2 has it, has
    /// to take it up again with [`Queue::restore_lease`].
    pub fn load(&mut self, job: StoredJob, now: Time) -> Option<u32> {
        let keeping = self.keeping.as_mut()?;
        // What it takes is known now; before it was as much as others on average.
        let cost_bytes = job.message.cost_bytes();
        self.bytes = self.bytes - keeping.read_one() + cost_bytes;
        keeping.unread_from = job.sequence + 1;
        keeping.read_bytes += cost_bytes;
        let (record, expires) = (job.record, job.message.expires() < Time::MAX);
        let key = self.jobs.insert(Job {
            message: job.message,
            sequence: job.sequence,
            lease: 0,
            member: 0,
            links: Links::NONE,
            deliveries: record.deliveries,
            state: State::Ready,
            stored: job.stored,
        }) as u32; // wants_jobs sees to it.
        match record.fate {
            Fate::Delayed(due) if due > now => self.delay_unamended(key, due),
            Fate::GivenAway => {
                self.totals.done += 1;
                self.forget(key);
                return None;
            }
            Fate::Held(..) => {
                self.jobs[key as usize].stored.is_held = true;
                self.make_ready_unamended(key);
                return Some(key);
            }
            Fate::Open | Fate::Delayed(_) if expires => self.make_ready_unamended(key),
            Fate::Open | Fate::Delayed(_) => self.lane_of(key).push(key),
        }
        None
    }

    /// The job with that key of [`Queue::load`] is this member's, as it was
    /// when the broker stopped. `None`: its session is gone.
    pub fn restore_lease(
        &mut self,
        key: u32,
        member: Option<SessionId>,
        now: Time,
    ) -> Option<LeaseId> {
        let job = &self.jobs[key as usize];
        let sequence = job.sequence;
        self.lane_of(key).take_out(sequence);
        self.unwatch(key);
        let Some(member) = member else {
            self.give_up_undecided(key);
            return None;
        };
        let member_key = self.rota.find(member).unwrap_or_else(|| {
            let membership = Membership {
                qos: Qos::ExactlyOnce,
                prefetch: None,
                ack_timeout: None,
            };
            let member_key = self.rota.join(member, membership, self.next_lease);
            self.rota.leave(member_key);
            member_key
        });
        Some(self.lease(key, member_key, Qos::ExactlyOnce, now))
    }

    /// A row that could not be read: damaged. The job is lost.
    pub fn lose(&mut self, sequence: u64) {
        if let Some(keeping) = &mut self.keeping {
            keeping.unread_from = sequence + 1;
            self.lose_unread(1);
        }
    }

    /// All jobs there are were read; so many are missing.
    pub fn loaded_all(&mut self) -> usize {
        let missing = self.keeping.as_ref().map_or(0, |keeping| keeping.unread);
        self.lose_unread(missing);
        missing
    }

    fn lose_unread(&mut self, count: usize) {
        let Some(keeping) = &mut self.keeping else {
            return;
        };
        let count = count.min(keeping.unread);
        for _ in 0..count {
            self.bytes -= keeping.read_one() + Queue::JOB_BYTES;
        }
        self.messages -= count;
        self.totals.lost += count as u64;
    }

    /// The session took the lease: what is to be known of that after a crash.
    /// `holder`: of a delivery at QoS 2.
    pub fn store_lease(&mut self, id: LeaseId, holder: Option<(ListId, PacketId)>) {
        let Some(keeping) = &mut self.keeping else {
            return;
        };
        let job = &mut self.jobs[id.job as usize];
        if !job.stored.is_stored {
            return;
        }
        let fate = match (job.held().qos, holder) {
            (Qos::AtMostOnce, _) => Fate::GivenAway,
            (Qos::ExactlyOnce, Some((session, packet_id))) => Fate::Held(session, packet_id),
            _ => Fate::Open,
        };
        job.stored.is_held = fate != Fate::Open;
        let deliveries = job.deliveries;
        keeping.amend(job.sequence, JobRecord { deliveries, fate });
    }

    /// The dead letter is stored elsewhere, or given up.
    pub fn moved(&mut self, letter: &DeadLetter) {
        if let Some(keeping) = &mut self.keeping {
            keeping.remove(letter.sequence, letter.stored, &letter.message);
        }
    }

    // ---- putting in

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Changes what may be changed: all but the rules. It holds for what is
    /// in the queue and in members' hands too.
    pub fn set_settings(&mut self, settings: Settings) {
        let rules = self.settings.rules;
        self.settings = Settings { rules, ..settings };
        self.rota.set_prefetch(prefetch(&self.settings));
        let members = self.rota.members.iter();
        let holding = members.filter(|(_, member)| member.held != [0; 3]);
        let holding: Vec<u32> = holding.map(|(key, _)| key as u32).collect();
        for key in holding {
            self.arm(key, Time::ZERO);
        }
    }

    /// Puts a message in, behind all others.
    pub fn enqueue(&mut self, message: Arc<Message>, now: Time) -> Result<(), Full> {
        self.reserve(message.cost_bytes())?;
        self.enqueue_reserved(message, Stored::NOT, now);
        Ok(())
    }

    /// Keeps room for a message of so many [`Message::cost_bytes`], so that
    /// several queues take it, or none. Then comes
    /// [`Queue::enqueue_reserved`], or [`Queue::cancel_reservation`].
    pub fn reserve(&mut self, cost_bytes: usize) -> Result<(), Full> {
        self.check_room(cost_bytes)?;
        self.messages += 1;
        self.bytes += cost_bytes + Queue::JOB_BYTES;
        Ok(())
    }

    /// Puts in a message for which there is a reservation of its cost.
    /// `stored`: in the row of [`Queue::next_sequence`], or not.
    pub fn enqueue_reserved(&mut self, message: Arc<Message>, stored: Stored, now: Time) {
        let expires = message.expires() < Time::MAX;
        let mut unordered = false;
        if let Some(keeping) = &mut self.keeping {
            let in_memory = keeping.unread == 0
                && self.jobs.len() < Queue::READ_MAX
                && keeping.read_bytes < Queue::READ_BYTES_MAX;
            if stored.is_stored && !in_memory {
                if keeping.unread == 0 {
                    keeping.unread_from = self.next_sequence;
                }
                keeping.unread += 1;
                keeping.unread_bytes += message.cost_bytes();
                self.next_sequence += 1;
                self.totals.enqueued += 1;
                self.last_used = now;
                return;
            }
            keeping.read_bytes += message.cost_bytes();
            // Before those that are read later, and come before it.
            unordered = keeping.unread > 0;
        }
        let key = self.jobs.insert(Job {
            message,
            sequence: self.next_sequence,
            lease: 0,
            member: 0,
            links: Links::NONE,
            deliveries: 0,
            state: State::Ready,
            stored,
        }) as u32; // check_room sees to it.
        self.next_sequence += 1;
        self.totals.enqueued += 1;
        self.last_used = now;
        match expires || unordered {
            true => self.make_ready_unamended(key),
            false => self.lane_of(key).push(key),
        }
    }

    pub fn cancel_reservation(&mut self, cost_bytes: usize) {
        self.messages -= 1;
        self.bytes -= cost_bytes + Queue::JOB_BYTES;
    }

    /// Whether [`Queue::reserve`] would succeed now.
    pub fn has_room(&self, cost_bytes: usize) -> bool {
        self.check_room(cost_bytes).is_ok()
    }

    fn check_room(&self, cost_bytes: usize) -> Result<(), Full> {
        // Keys have 32 bits, and one of them means none.
        if self.messages >= self.settings.messages_max.min(u32::MAX as usize) {
            return Err(Full::Messages);
        }
        let free = self.settings.bytes_max.saturating_sub(self.bytes);
        if cost_bytes.saturating_add(Queue::JOB_BYTES) > free {
            return Err(Full::Bytes);
        }
        Ok(())
    }

    /// The session subscribed, and is connected. A member already: its
    /// membership is changed in place, and it keeps its turn, its standing
    /// and what it holds.
    pub fn join(&mut self, member: SessionId, membership: Membership, now: Time) {
        self.last_used = now;
        let key = self.rota.join(member, membership, self.next_lease);
        // Its ack timeout may be another one now.
        if self.rota.get(key).held != [0; 3] {
            self.arm(key, now);
        }
    }

    /// The member's session is connected again. It goes to the end of the
    /// ring, and stands by behind the others.
    pub fn attach(&mut self, member: SessionId) {
        if let Some(key) = self.rota.find(member) {
            self.rota.attach(key);
        }
    }

    /// The member's connection is gone, its session lives. What it holds at
    /// QoS 0 and 1 goes to the next members, what it holds at QoS 2 stays.
    pub fn detach(&mut self, member: SessionId) {
        if let Some(key) = self.rota.find(member) {
            self.rota.detach(key);
            self.take_back(key, false);
        }
    }

    /// The session unsubscribed: it gets no more turns. What it holds stays
    /// with it until it is settled, or its time or the connection ends.
    pub fn leave(&mut self, member: SessionId, now: Time) {
        if let Some(key) = self.rota.find(member) {
            self.last_used = now;
            self.rota.leave(key);
            self.retire_if_done(key);
        }
    }

    /// The member's session ended: nobody will say what became of what it
    /// holds at QoS 2. The rest goes to the next members. What was never
    /// written is to be given back with [`Queue::release`] before.
    pub fn remove(&mut self, member: SessionId, now: Time) {
        if let Some(key) = self.rota.find(member) {
            self.leave(member, now);
            if self.rota.find(member).is_some() {
                self.take_back(key, true);
            }
        }
    }

    /// The oldest job for the next member, which has it from now on. To be
    /// called until there is none, after anything else was called.
    ///
    /// A job that came back skips the member that had it last, which keeps
    /// its turn, if another one has room. One that has expired goes to
    /// nobody: it is no longer in the queue then.
    pub fn poll_lease(&mut self, now: Time) -> Option<Lease<'_>> {
        self.drop_expired(now);
        let Some(next) = self.rota.next(self.settings.exclusive) else {
            self.drop_fleeting();
            return None;
        };
        let key = self.pop_ready()?;
        self.unwatch(key);
        let member_key = match self.rota.second(next) {
            Some(second) if self.had_last(next, key) && !self.settings.exclusive => second,
            _ => next,
        };
        let member = self.rota.get(member_key);
        let session = member.session;
        let job = &self.jobs[key as usize];
        let qos = match self.settings.rules {
            Rules::Work => member.membership.qos,
            Rules::Share => member.membership.qos.min(job.message.qos()), // [MQTT-3.8.4-6]
        };
        let id = self.lease(key, member_key, qos, now);
        self.rota.rotate(member_key);
        let job = &mut self.jobs[key as usize];
        job.deliveries += 1;
        self.totals.delivered += 1;
        self.totals.redelivered += u64::from(job.deliveries > 1);
        let job = &self.jobs[key as usize];
        Some(Lease {
            id,
            member: session,
            message: &job.message,
            sequence: job.sequence,
            qos,
            deliveries: job.deliveries,
        })
    }

    /// A job that is in no place is the member's from now on.
    fn lease(&mut self, key: u32, member_key: u32, qos: Qos, now: Time) -> LeaseId {
        let member = self.rota.get_mut(member_key);
        let job = &mut self.jobs[key as usize];
        let id = LeaseId {
            job: key,
            member: member_key,
            number: self.next_lease,
        };
        self.next_lease += 1;
        job.state = State::Leased(Held {
            before: job.lease,
            before_member: job.member,
            delivered: now,
            restarted: Time::ZERO,
            qos,
            extended: false,
        });
        job.lease = id.number;
        job.member = id.member;
        *member.held_mut(qos) += 1;
        member.leases.push_back(&mut self.jobs, key);
        if let Some(span) = self.span(member_key, qos) {
            self.arm(member_key, now + span);
        }
        id
    }

    /// The session did not take the lease, or is gone. The job is back in its
    /// place as if it never had been leased, and the member is passed over
    /// until [`Queue::room`].
    pub fn refuse_lease(&mut self, id: LeaseId) {
        if !self.is_current(id) {
            return;
        }
        // Before it gets room by what it gives back.
        self.rota.set_passed_over(id.member, true);
        self.undo_lease(id.job);
        self.make_ready(id.job);
    }

    /// The member's client takes no job of that size: it is as if it never had
    /// been leased. Others are asked in its stead for a while; without others
    /// the job steps aside for smaller ones, or is discarded under
    /// [`Rules::Share`] [MQTT-3.1.2-25].
    pub fn skip_lease(&mut self, id: LeaseId, now: Time) {
        if !self.is_current(id) {
            return;
        }
        let others = self.rota.rest(id.member);
        self.undo_lease(id.job);
        let due = now + Queue::SKIPPED_FOR;
        match self.settings.rules {
            _ if others => {
                self.timers.insert((due, Timer::Rested));
                self.make_ready(id.job);
            }
            Rules::Work => self.delay(id.job, due),
            Rules::Share => self.bury(id.job, DeadReason::Rejected),
        }
    }

    /// Makes a leased job one that is in no place, and never was leased so.
    fn undo_lease(&mut self, key: u32) {
        let held = self.unlink(key, None);
        let job = &mut self.jobs[key as usize];
        self.totals.delivered -= 1;
        self.totals.redelivered -= u64::from(job.deliveries > 1);
        job.lease = held.before;
        job.member = held.before_member;
        job.deliveries -= 1;
    }

    /// A job that is in no place waits until `due`.
    fn delay(&mut self, key: u32, due: Time) {
        self.amend(key, Fate::Delayed(due));
        self.delay_unamended(key, due);
    }

    fn delay_unamended(&mut self, key: u32, due: Time) {
        self.jobs[key as usize].state = State::Delayed { due };
        self.delayed += 1;
        self.timers.insert((due, Timer::Delay(key)));
        self.watch(key);
    }

    /// The session is connected with another bound: what it is given from now
    /// on has no higher QoS.
    pub fn limit_qos(&mut self, member: SessionId, max: Qos) {
        if let Some(key) = self.rota.find(member) {
            let membership = &mut self.rota.get_mut(key).membership;
            membership.qos = membership.qos.min(max);
        }
    }

    /// The member's session took its last lease and has no room for another:
    /// it is passed over until [`Queue::room`], without a refusal first.
    pub fn pass_over(&mut self, member: SessionId) {
        if let Some(key) = self.rota.find(member) {
            self.rota.set_passed_over(key, true);
        }
    }

    /// The member's session has room again.
    pub fn room(&mut self, member: SessionId) {
        if let Some(key) = self.rota.find(member) {
            self.rota.set_passed_over(key, false);
        }
    }

    /// A delivery that was never written to the socket goes to the next
    /// member, whatever its QoS.
    pub fn release(&mut self, id: LeaseId) {
        if self.is_current(id) {
            self.unlink(id.job, None);
            self.make_ready(id.job);
        }
    }

    /// Whether it counted. What is said about a lease that is not current
    /// changes no job, but for a late [`Settlement::Done`]: that counts while
    /// the job was not given to anybody again.
    ///
    /// All but [`Settlement::Extend`] show that the member is through with
    /// this delivery: the time of those that it got later starts anew.
    pub fn settle(&mut self, id: LeaseId, settlement: Settlement, now: Time) -> bool {
        let current = self.is_current(id);
        if let Settlement::Extend(span) = settlement {
            if current {
                self.extend(id, span, now);
            }
            return current;
        }
        if !current {
            self.restart_after(id, now);
            return settlement == Settlement::Done && self.settle_late(id);
        }
        self.unlink(id.job, Some(now));
        match settlement {
            Settlement::Done => {
                self.totals.done += 1;
                self.forget(id.job);
            }
            Settlement::Refuse { delay } => {
                self.totals.refused += 1;
                match delay {
                    Some(delay) if !delay.is_zero() => self.delay(id.job, now + delay),
                    _ => self.make_ready(id.job),
                }
            }
            Settlement::Reject => self.bury(id.job, DeadReason::Rejected),
            Settlement::Extend(_) => unreachable!("returned above"),
        }
        true
    }

    /// Done by the last one who had it, after it came back to the queue.
    fn settle_late(&mut self, id: LeaseId) -> bool {
        let Some(job) = self.jobs.get(id.job as usize) else {
            return false;
        };
        if job.lease != id.number {
            return false;
        }
        if let State::Leased(_) = job.state {
            return false;
        }
        self.take_out(id.job);
        self.totals.done += 1;
        self.forget(id.job);
        true
    }

    fn extend(&mut self, id: LeaseId, span: Option<Duration>, now: Time) {
        let qos = self.jobs[id.job as usize].held().qos;
        if let Some(usual) = self.span(id.member, qos) {
            let until = now + span.unwrap_or(usual);
            self.extensions.insert(id.job, Extension { at: now, until });
            let extended = &mut self.jobs[id.job as usize].held_mut().extended;
            self.rota.get_mut(id.member).extended += u32::from(!*extended);
            *extended = true;
            self.arm(id.member, until);
        }
    }

    /// A lower bound of when [`Queue::handle_timeout`] has something to do;
    /// `None`: not before something else happens.
    pub fn next_timeout(&self) -> Option<Time> {
        let timer = self.timers.first().map(|&(at, _)| at);
        // Its last moment is still the job's own.
        let expiry = (self.expiring.first()).map(|&(at, _)| at + Duration::from_micros(1));
        timer.into_iter().chain(expiry).min()
    }

    /// Ends delays, leases whose time has passed, and jobs that have expired;
    /// adds the leases to `timed_out`, so that their sessions can mark them.
    pub fn handle_timeout(&mut self, now: Time, timed_out: &mut Vec<(SessionId, LeaseId)>) {
        while let Some(&(at, timer)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            match timer {
                Timer::Delay(key) => {
                    self.delayed -= 1;
                    self.make_ready(key);
                }
                Timer::Member(key) => self.handle_member_timeout(key, now, timed_out),
                Timer::Rested => self.rota.rested(),
            }
        }
        // And what has just come back too late.
        self.drop_expired(now);
    }

    /// Ends the member's leases whose time has passed. Of one QoS, and not
    /// extended, they end in the order of delivery: the first that has time
    /// left is the last to be looked at.
    fn handle_member_timeout(
        &mut self,
        key: u32,
        now: Time,
        timed_out: &mut Vec<(SessionId, LeaseId)>,
    ) {
        let member = self.rota.get_mut(key);
        member.timer = None;
        let mut next = member.leases.first();
        let mut extended = member.extended;
        let held = member.held;
        let spans = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]
            .map(|qos| self.span(key, qos).filter(|_| held[qos as usize] > 0));
        let mut open = spans.map(|span| span.is_some());
        let mut restarted = Time::ZERO;
        while let Some(job_key) = next
            && (open != [false; 3] || extended > 0)
        {
            let job = &self.jobs[job_key as usize];
            let &held = job.held();
            next = job.links.next();
            restarted = restarted.max(held.restarted);
            let qos = held.qos as usize;
            let deadline = if held.extended {
                extended -= 1;
                self.extensions[&job_key].deadline(held.qos, restarted, spans[qos])
            } else {
                let Some(span) = spans[qos].filter(|_| open[qos]) else {
                    continue;
                };
                held.start(restarted) + span
            };
            if deadline <= now {
                self.end_lease(job_key, timed_out);
            } else {
                self.arm(key, deadline);
                open[qos] &= held.extended;
            }
        }
    }

    fn end_lease(&mut self, key: u32, timed_out: &mut Vec<(SessionId, LeaseId)>) {
        let job = &self.jobs[key as usize];
        let id = LeaseId {
            job: key,
            member: job.member,
            number: job.lease,
        };
        timed_out.push((self.rota.get(id.member).session, id));
        self.totals.timed_out += 1;
        match self.unlink(key, None).qos {
            Qos::ExactlyOnce => self.give_up_undecided(key),
            _ => self.make_ready(key),
        }
    }

    /// How long a member may hold a job; `None`: as long as it likes.
    fn span(&self, member: u32, qos: Qos) -> Option<Duration> {
        match (self.settings.rules, qos) {
            (Rules::Share, _) | (_, Qos::AtMostOnce) => None,
            (_, Qos::AtLeastOnce) => {
                let own = self.rota.get(member).membership.ack_timeout;
                own.or(self.settings.ack_timeout)
            }
            (_, Qos::ExactlyOnce) => Some(self.settings.undecided_after),
        }
    }

    /// Sees to it that the member's leases are looked at by then.
    fn arm(&mut self, key: u32, at: Time) {
        let member = self.rota.get_mut(key);
        match member.timer {
            Some(timer) if timer <= at => return,
            Some(timer) => self.timers.remove(&(timer, Timer::Member(key))),
            None => false,
        };
        member.timer = Some(at);
        self.timers.insert((at, Timer::Member(key)));
    }

    /// The next message that the queue gives up. It no longer counts for the
    /// limits; to be called until there is none, after [`Queue::settle`],
    /// [`Queue::remove`] and [`Queue::handle_timeout`].
    pub fn poll_dead(&mut self) -> Option<DeadLetter> {
        self.dead.pop_front()
    }

    /// What happened since the queue was made.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    pub fn counts(&self) -> Counts {
        let in_memory = self.ready.len() + self.fleeting.len();
        let unread = self.keeping.as_ref().map_or(0, |keeping| keeping.unread);
        let ready = in_memory + unread;
        let (members, members_connected) = self.rota.len();
        let oldest = self.first_ready();
        Counts {
            ready,
            in_flight: self.jobs.len() - in_memory - self.delayed,
            delayed: self.delayed,
            bytes: self.bytes,
            members,
            members_connected,
            oldest: oldest.map(|(_, key)| self.jobs[key as usize].message.received()),
            totals: self.totals,
        }
    }

    /// Whether it has no jobs, no reservations, no members and nobody who
    /// still holds something.
    pub fn is_idle(&self) -> bool {
        self.messages == 0 && self.rota.members.is_empty() && self.dead.is_empty()
    }

    /// When somebody last put something in, joined, or left.
    pub fn last_used(&self) -> Time {
        self.last_used
    }

    /// How often the job of a lease was delivered, if the lease is current.
    pub fn deliveries(&self, id: LeaseId) -> Option<u32> {
        self.is_current(id)
            .then(|| self.jobs[id.job as usize].deliveries)
    }

    fn is_current(&self, id: LeaseId) -> bool {
        self.jobs
            .get(id.job as usize)
            .is_some_and(|job| job.lease == id.number && matches!(job.state, State::Leased(_)))
    }

    /// The member answered a lease that it no longer has: the time of what it
    /// got later starts anew all the same.
    fn restart_after(&mut self, id: LeaseId, now: Time) {
        let member = self.rota.members.get(id.member as usize);
        let Some(member) = member.filter(|member| member.first_lease <= id.number) else {
            return;
        };
        let mut next = member.leases.first();
        while let Some(key) = next {
            let job = &mut self.jobs[key as usize];
            if job.lease > id.number {
                job.held_mut().restarted = now;
                return;
            }
            next = job.links.next();
        }
    }

    /// Takes back what a member holds whose connection is gone, and if its
    /// session is so too, what is undecided.
    fn take_back(&mut self, key: u32, session_ended: bool) {
        let mut next = self.rota.get(key).leases.first();
        while let Some(job_key) = next {
            let job = &self.jobs[job_key as usize];
            next = job.links.next();
            match (job.held().qos, session_ended) {
                // [MQTT-4.8.2-4], and so in a queue.
                (Qos::ExactlyOnce, false) => {}
                (Qos::ExactlyOnce, true) => {
                    self.unlink(job_key, None);
                    self.give_up_undecided(job_key);
                }
                _ => {
                    self.unlink(job_key, None);
                    self.make_ready(job_key);
                }
            }
        }
    }

    /// Takes a leased job from its member, `settled` by it or not. The job
    /// then needs another place.
    fn unlink(&mut self, key: u32, settled: Option<Time>) -> Held {
        let job = &self.jobs[key as usize];
        let (held, member_key) = (*job.held(), job.member);
        let later = job.links.next();
        let member = self.rota.get_mut(member_key);
        member.leases.remove(&mut self.jobs, key);
        *member.held_mut(held.qos) -= 1;
        if let Some(later) = later {
            let restarted = &mut self.jobs[later as usize].held_mut().restarted;
            *restarted = settled.unwrap_or(held.restarted).max(*restarted);
        }
        if held.extended {
            self.rota.get_mut(member_key).extended -= 1;
            self.extensions.remove(&key);
        }
        self.rota.refresh(member_key);
        self.retire_if_done(member_key);
        held
    }

    /// Forgets a member that left and holds nothing.
    fn retire_if_done(&mut self, key: u32) {
        if self.rota.get(key).is_done() {
            let member = self.rota.remove(key);
            if let Some(timer) = member.timer {
                self.timers.remove(&(timer, Timer::Member(key)));
            }
        }
    }

    /// Puts a job that is in no place into its place in the order.
    fn make_ready(&mut self, key: u32) {
        if self.jobs[key as usize].stored.is_held {
            self.amend(key, Fate::Open);
        }
        self.make_ready_unamended(key);
    }

    /// What is stored of the job says so.
    fn amend(&mut self, key: u32, fate: Fate) {
        let job = &mut self.jobs[key as usize];
        job.stored.is_held = false;
        if let Some(keeping) = self.keeping.as_mut().filter(|_| job.stored.is_stored) {
            let deliveries = job.deliveries;
            keeping.amend(job.sequence, JobRecord { deliveries, fate });
        }
    }

    fn make_ready_unamended(&mut self, key: u32) {
        let job = &mut self.jobs[key as usize];
        job.state = State::Ready;
        let sequence = job.sequence;
        self.lane_of(key).place(sequence, key);
        self.watch(key);
    }

    /// Takes a job out of its place that no member has: one that came back,
    /// or that expires.
    fn take_out(&mut self, key: u32) {
        let job = &self.jobs[key as usize];
        match job.state {
            State::Ready => {
                let sequence = job.sequence;
                self.lane_of(key).take_out(sequence);
            }
            State::Delayed { due } => {
                self.delayed -= 1;
                self.timers.remove(&(due, Timer::Delay(key)));
            }
            State::Leased(_) => unreachable!("no member has it"),
        }
    }

    /// No member has the job: it goes at its time, if it expires.
    fn watch(&mut self, key: u32) {
        let expires = self.jobs[key as usize].message.expires();
        if expires < Time::MAX {
            self.expiring.insert((expires, key));
        }
    }

    /// A member has the job, however long it takes.
    fn unwatch(&mut self, key: u32) {
        if !self.expiring.is_empty() {
            let expires = self.jobs[key as usize].message.expires();
            self.expiring.remove(&(expires, key));
        }
    }

    /// Drops what no member has and no member may get any more
    /// [MQTT-3.3.2-5].
    fn drop_expired(&mut self, now: Time) {
        while let Some(&(expires, key)) = self.expiring.first()
            && now > expires
        {
            self.take_out(key);
            self.totals.expired += 1;
            self.forget(key);
        }
    }

    fn lane_of(&mut self, key: u32) -> &mut Lane {
        match self.settings.rules {
            Rules::Share if self.jobs[key as usize].message.qos() == Qos::AtMostOnce => {
                &mut self.fleeting
            }
            _ => &mut self.ready,
        }
    }

    fn first_ready(&self) -> Option<(u64, u32)> {
        let ready = self.ready.first(&self.jobs).into_iter();
        ready.chain(self.fleeting.first(&self.jobs)).min()
    }

    /// Whether the job's last lease, if it had one, was this member's.
    fn had_last(&self, member: u32, key: u32) -> bool {
        let job = &self.jobs[key as usize];
        job.member == member && self.rota.get(member).first_lease <= job.lease
    }

    fn pop_ready(&mut self) -> Option<u32> {
        let (sequence, key) = self.first_ready()?;
        self.lane_of(key).take_out(sequence);
        Some(key)
    }

    /// Nobody has room for what was published at QoS 0.
    fn drop_fleeting(&mut self) {
        while let Some((sequence, key)) = self.fleeting.first(&self.jobs) {
            self.fleeting.take_out(sequence);
            self.totals.dropped += 1;
            self.forget(key);
        }
    }

    /// Nobody knows whether the job, which is in no place, was done.
    fn give_up_undecided(&mut self, key: u32) {
        match (self.settings.rules, self.settings.undecided) {
            (Rules::Work, Undecided::Redeliver) => self.make_ready(key),
            // Under share rules discarded [MQTT-4.8.2-5].
            _ => self.bury(key, DeadReason::Undecided),
        }
    }

    /// Makes a job that is in no place a dead letter, or discards it under
    /// rules that have none.
    fn bury(&mut self, key: u32, reason: DeadReason) {
        if self.settings.rules == Rules::Share {
            self.totals.discarded += 1;
            self.forget(key);
            return;
        }
        let job = self.take_job(key);
        match reason {
            DeadReason::Rejected => self.totals.rejected += 1,
            DeadReason::Undecided => self.totals.undecided += 1,
        }
        self.dead.push_back(DeadLetter {
            message: job.message,
            reason,
            deliveries: job.deliveries,
            sequence: job.sequence,
            stored: job.stored,
        });
    }

    /// The job, which is in no place, is done with.
    fn forget(&mut self, key: u32) {
        let job = self.take_job(key);
        if let Some(keeping) = &mut self.keeping {
            keeping.remove(job.sequence, job.stored, &job.message);
        }
    }

    /// The job, which is in no place, is no longer the queue's.
    fn take_job(&mut self, key: u32) -> Job {
        self.unwatch(key);
        let job = self.jobs.remove(key as usize);
        if let Some(keeping) = &mut self.keeping {
            keeping.read_bytes -= job.message.cost_bytes();
        }
        self.cancel_reservation(job.message.cost_bytes());
        if self.jobs.is_empty() && self.jobs.capacity() > Queue::JOBS_KEPT {
            self.jobs = Slab::new();
            self.ready.shrink();
            self.fleeting.shrink();
        }
        job
    }
}

/// How much a member may hold that has no prefetch of its own.
fn prefetch(settings: &Settings) -> Option<u32> {
    match settings.rules {
        Rules::Work => Some(settings.prefetch),
        Rules::Share => None,
    }
}
