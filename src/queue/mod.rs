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
//! Every job is in exactly one place: ready, behind another one of its group,
//! delayed, or leased to one member; giving, settling and putting back take the
//! same few steps however many jobs and members there are, and nothing looks
//! through all members but a change of settings, and the search for one with
//! empty hands.
//!
//! ```text
//!             enqueue           poll_lease
//!   PUBLISH ----------> ready -------------> leased ---> done, dead letter
//!      |                ^   ^                  | |
//!      | with a delay   |   +----- lost -------+ | refused, late
//!      +---> delayed ---+                        |
//!               ^-----------------------------<--+
//! ```
//!
//! | file | owns |
//! |---|---|
//! | `ask`, `jobs`, `stored` | what is asked for a job; a job in memory; its row |
//! | `ready`, `groups` | which job is the next; what belongs together |
//! | `rota` | members, and whose turn it is |
//! | `steering`, `trace` | what a person does with a queue, and is told of it |
//! | `settling` | jobs that are done by a result that is stored elsewhere |
//! | `once` | ids that are not put in twice, keys that replace one another |
//! | `dormant`, `packed` | a queue that holds nothing |
//!
//! A queue that outlives the broker has the head of its jobs in memory, and
//! says by [`Queue::wants_jobs`] which of the rest are to be read. A job whose
//! time passes leaves the queue then, if no member has it; one that a member
//! has lives on, and goes if it comes back. What is on disk only, when it is
//! read.

mod ask;
mod dormant;
mod groups;
mod jobs;
mod list;
mod once;
mod packed;
mod ready;
mod rota;
mod settling;
mod steering;
mod stored;
mod trace;

use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::{FxBuildHasher, FxHashMap};
use slab::Slab;

pub use self::ask::Ask;
pub use self::dormant::Dormant;
use self::groups::Groups;
pub use self::jobs::Stored;
use self::jobs::{After, Flags, Held, Job, Lane, State};
use self::list::Links;
use self::once::{Keys, Once};
use self::ready::Ready;
use self::rota::Rota;
pub use self::steering::{MemberState, Peek, Place, Seen, Taken, Whereabouts};
pub use self::stored::{Fate, JobRecord, StoredJob, Wanted};
use self::stored::{Keeping, Source};
use self::trace::Trace;
pub use self::trace::{Event, Rates, What};
use crate::config::{Dispatch, Durability, Overflow, Undecided};
use crate::journal::{Change, Journal, ListId, tag};
use crate::message::{LeaseId, Message, MessageId, PacketId, Qos, SessionId, Time};

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
    pub dispatch: Dispatch,
    /// Deliveries that fail before a job is a dead letter.
    pub deliveries_max: u32,
    /// How long a job rests after its first failure; twice as long after each
    /// further one, no longer than the second.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    /// How long a job may wait; `None`: as long as its message says.
    pub ttl: Option<Duration>,
    /// Whether what expires is a dead letter.
    pub dead_letter_expired: bool,
    /// Groups take turns, and have no order within.
    pub fair: bool,
    /// A job replaces the one with its key that waits. All are in memory.
    pub last_value: bool,
    /// How long an id is remembered.
    pub dedup_window: Duration,
    /// What is done when there is no room.
    pub overflow: Overflow,
    /// Bounds of what is not settled: ready, delayed, leased and reserved.
    pub messages_max: usize,
    /// In bytes as [`Message::cost_bytes`] has them, and
    /// [`Queue::JOB_BYTES`] for each job.
    pub bytes_max: usize,
    /// What happened to jobs is remembered for so many events.
    pub trace_events_max: usize,
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

/// A member's turn that takes no job.
#[derive(Clone, Copy, Debug)]
pub struct StraightTurn {
    pub member: SessionId,
    /// Of its subscription.
    pub qos: Qos,
    /// The message's place in the order.
    pub sequence: u64,
    key: u32,
    // What the message was until now.
    job: Option<u32>,
}

/// What a member has to say about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement<'a> {
    /// QoS 0: written to the socket; QoS 1: PUBACK; QoS 2: PUBREC.
    Done,
    /// It failed, and counts so. The job keeps its place in the order, and
    /// rests for so long; `None`: as long as the queue has it. `said`: why.
    Fail {
        delay: Option<Duration>,
        said: &'a str,
    },
    /// To the next member at once, not counted; this one rests.
    Busy,
    /// It cannot ever be done: a dead letter; under [`Rules::Share`]
    /// discarded, which is what a PUBACK or PUBREC of 0x80 or more asks for
    /// there [MQTT-4.8.2-6].
    Reject { said: &'a str },
    /// The lease's time starts anew, for so long; `None`: for as long as it
    /// had first. A lease whose time has no end keeps it so.
    Extend(Option<Duration>),
}

/// Why a member's connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It said DISCONNECT.
    Left,
    /// It said nothing: what it had in hand may be what ended it.
    Lost,
    /// The broker's doing: it stops, or another connection takes over.
    Taken,
}

/// A message that its queue gives up.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    pub message: Arc<Message>,
    pub reason: DeadReason,
    pub deliveries: u32,
    /// What a member said of it last; may be empty.
    pub said: Box<str>,
    /// Where it stays until it is stored elsewhere: see [`Queue::moved`].
    pub sequence: u64,
    source: u8,
    pub stored: Stored,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadReason {
    /// It failed too often.
    MaxDeliveries,
    /// A member said that it cannot ever be done.
    Rejected,
    /// Its time passed.
    Expired,
    /// It was the oldest in a full queue.
    Overflow,
    /// Delivered at QoS 2, and nobody knows whether its member has it.
    Undecided,
}

impl DeadReason {
    /// The word by which people and programs know it.
    pub fn word(self) -> &'static str {
        match self {
            DeadReason::MaxDeliveries => "max-deliveries",
            DeadReason::Rejected => "rejected",
            DeadReason::Expired => "expired",
            DeadReason::Overflow => "overflow",
            DeadReason::Undecided => "undecided",
        }
    }
}

/// How a job ended whose producer wants to know it.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    pub message: Arc<Message>,
    pub outcome: Outcome,
    pub deliveries: u32,
    /// What a member said of it last; may be empty.
    pub said: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Dead(DeadReason),
    /// Its time passed, and it was dropped.
    Expired,
    /// Dropped for want of room, or by a person.
    Dropped,
    /// A younger one with its key came.
    Replaced,
}

/// Why a queue does not take a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Messages,
    Bytes,
    /// Of ids that are remembered.
    Ids,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Full::Messages => {
                "the queue holds max_messages messages; let members settle some, or raise it"
            }
            Full::Bytes => "the queue holds max_bytes bytes; let members settle some, or raise it",
            Full::Ids => "the queue remembers a million dedup-ids; make dedup_window_secs shorter",
        })
    }
}

impl std::error::Error for Full {}

/// What is in a queue, and what has become of everything that ever was: what
/// was `enqueued` is ready, in flight, delayed, or counted by one of `done`,
/// `max_deliveries`, `rejected`, `dead_expired`, `dead_overflow`, `undecided`,
/// `dropped`, `replaced`, `purged`, `moved`, `discarded`, `expired`, `lost`. What
/// went straight to a member of a share group is none of the queue's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// With those that wait behind another one of their group.
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

macro_rules! totals {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What happened since the queue was made.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct Totals { $($(#[$doc])* pub $name: u64,)* }

        impl Totals {
            /// All of them, in one order.
            fn for_each(&mut self, mut see: impl FnMut(&mut u64)) {
                $(see(&mut self.$name);)*
            }

            /// Those of another queue too.
            pub fn add(&mut self, other: &Totals) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

totals! {
    enqueued,
    /// Leases that sessions took.
    delivered,
    /// Those of them that were not a job's first.
    redelivered,
    /// Leases whose time passed.
    timed_out,
    refused,
    busy,
    done,
    /// Dead letters, by reason.
    max_deliveries,
    rejected,
    dead_expired,
    dead_overflow,
    undecided,
    /// For a younger one in a full queue; published at QoS 0, and no member
    /// had room [`Rules::Share`].
    dropped,
    /// By another one with the same key.
    replaced,
    /// Done away with by a person.
    purged,
    /// To other queues, by a person.
    moved,
    /// Rejected, or held at QoS 2 by a session that ended [`Rules::Share`].
    discarded,
    /// Their messages' time passed while no member had them [MQTT-3.3.2-5].
    expired,
    /// Damaged on disk.
    lost,
}

/// A work queue or a share group. Its user has it behind one lock.
pub struct Queue {
    settings: Arc<Settings>,
    jobs: Slab<Job>,
    ready: Ready,
    /// The rest under [`Rules::Share`]: what was published at QoS 0, and is
    /// dropped when nobody has room for it.
    fleeting: Lane,
    groups: Option<Box<Groups>>,
    keys: Option<Box<Keys>>,
    once: Option<Box<Once>>,
    /// Delayed jobs in memory, leased ones, and those without a lease whose
    /// results just come.
    delayed: usize,
    leased: usize,
    settling: usize,
    rota: Rota,
    is_paused: bool,
    /// A person does away with what there is: nobody gets any of it.
    is_purged: bool,
    next_sequence: u64,
    next_lease: u64,
    /// Timed work but for expiry, by the earliest time at which there may be some.
    timers: BTreeSet<(Time, Timer)>,
    /// Jobs that expire and that no member has, by the last moment at which
    /// one may get them.
    expiring: BTreeSet<(Time, u32)>,
    /// Leases with a deadline of their own, by job.
    extensions: FxHashMap<u32, Extension>,
    /// What members said of jobs, last, by job.
    said: FxHashMap<u32, Box<str>>,
    dead: VecDeque<DeadLetter>,
    finished: VecDeque<Finished>,
    /// Of the limits, with what is reserved.
    messages: usize,
    bytes: usize,
    totals: Totals,
    trace: Trace,
    /// Where it outlives the broker.
    keeping: Option<Box<Keeping>>,
}

/// What a time is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// The delay is over of the job in that place of the order, by its key.
    Delay(u64, u32),
    /// A lease of this member may have ended. One for all of them: it stays
    /// when leases are settled, and finds when it fires what there is.
    Member(u32),
    /// This member's rest is over.
    Rest(u32),
    /// Members that were skipped may have turns again.
    Skipped,
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

    /// What a member says of a job is kept up to so many bytes.
    pub const SAID_BYTES_MAX: usize = 256;

    /// How long others are asked instead of a member that could not take a
    /// job, or how long a job waits that no member could take.
    const SKIPPED_FOR: Duration = Duration::from_secs(1);

    /// Jobs of one priority of a stored queue that are ready in memory; the
    /// others are on disk.
    const READ_MAX: usize = 4096;
    /// And their bytes, of all priorities; but so many jobs in any case.
    const READ_BYTES_MAX: usize = 2 << 20;
    const READ_FEW: usize = 16;
    /// With fewer that are ready, more are read.
    const READ_LOW: usize = 512;
    /// Where those that were read wait behind others of their groups, so many
    /// are looked through for one that does not.
    const AHEAD_MAX: usize = 65_536;
    const AHEAD_BYTES_MAX: usize = 64 << 20;
    /// Delayed jobs of a stored queue that are in memory.
    const DELAYED_MAX: usize = 1024;
    /// Delays that end in one go.
    const DUE_PAGE: usize = 4096;

    /// Jobs that an empty queue keeps memory for.
    const JOBS_KEPT: usize = 1024;

    pub fn new(settings: impl Into<Arc<Settings>>) -> Queue {
        let settings = settings.into();
        Queue {
            rota: Rota::new(prefetch(&settings), settings.dispatch),
            settings,
            jobs: Slab::new(),
            ready: Ready::default(),
            fleeting: Lane::default(),
            groups: None,
            keys: None,
            once: None,
            delayed: 0,
            leased: 0,
            settling: 0,
            is_paused: false,
            is_purged: false,
            next_sequence: 0,
            next_lease: 1,
            timers: BTreeSet::new(),
            expiring: BTreeSet::new(),
            extensions: FxHashMap::default(),
            said: FxHashMap::default(),
            dead: VecDeque::new(),
            finished: VecDeque::new(),
            messages: 0,
            bytes: 0,
            totals: Totals::default(),
            trace: Trace::default(),
            keeping: None,
        }
    }

    // ---- what is stored

    /// It outlives the broker from now on.
    pub fn keep(&mut self, list: ListId, durability: Durability) {
        let mut keeping = Keeping::new(list, durability);
        let in_memory = self.jobs.iter();
        let unleased = in_memory.filter(|(_, job)| !matches!(job.state, State::Leased(_)));
        keeping.read_bytes = unleased.map(|(_, job)| job.cost_bytes as usize).sum();
        self.keeping = Some(Box::new(keeping));
        self.next_sequence = self.next_sequence.max(1);
    }

    /// Rows of that kind are in a list of their own; see
    /// [`Queue::kind_for`].
    pub fn add_source(&mut self, kind: u8, list: ListId) {
        if let Some(keeping) = &mut self.keeping
            && keeping.source(kind).is_none()
        {
            keeping.sources.push(Source::new(kind, list));
        }
    }

    /// The lists that its rows are in, and of which kind each is; its own is
    /// the first.
    pub fn sources(&self) -> impl Iterator<Item = (u8, ListId)> {
        let sources = self.keeping.iter().flat_map(|keeping| &keeping.sources);
        sources.map(|source| (source.kind, source.list))
    }

    /// Of which kind the row of such a job is: a priority, put in with a delay,
    /// or of a group.
    pub fn kind_for(&self, ask: &Ask<'_>, now: Time) -> u8 {
        match ask.group {
            _ if ask.due > now => Source::DELAYED,
            Some(_) if !self.settings.fair => Source::GROUPED,
            _ => ask.priority,
        }
    }

    /// The list for rows of that kind, if there is one already.
    pub fn list_for(&self, kind: u8) -> Option<ListId> {
        let mut sources = self.sources();
        sources.find(|&(of, _)| of == kind).map(|(_, list)| list)
    }

    /// Whether that list has what was put in with a delay, of which
    /// [`Queue::restore_delayed`] is to be told.
    pub fn is_for_delayed(&self, list: ListId) -> bool {
        self.list_for(Source::DELAYED) == Some(list)
    }

    /// Where its jobs are stored, and how safely.
    pub fn kept_in(&self) -> Option<(ListId, Durability)> {
        let keeping = self.keeping.as_ref()?;
        Some((keeping.list(), keeping.durability))
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

    /// What an earlier run of the broker left in a list: so many jobs, of so
    /// many [`Message::cost_bytes`], to be read when they are wanted.
    pub fn restore(&mut self, list: ListId, next_sequence: u64, jobs: usize, cost_bytes: usize) {
        self.next_sequence = self.next_sequence.max(next_sequence).max(1);
        let source = self
            .keeping
            .as_mut()
            .and_then(|keeping| keeping.source_of(list));
        let Some(source) = source.filter(|source| source.kind != Source::DELAYED) else {
            return;
        };
        source.unread = jobs;
        source.unread_bytes = cost_bytes;
        source.unread_from = 0;
        self.messages += jobs;
        self.bytes += cost_bytes + jobs * Queue::JOB_BYTES;
        self.totals.enqueued += jobs as u64;
    }

    /// A job of an earlier run that was put in with a delay, in the order of its
    /// list, before any other job is read: until it is due it is not in memory
    /// again. As [`Queue::load`].
    pub fn restore_delayed(
        &mut self,
        list: ListId,
        job: StoredJob<'_>,
        ask: &Ask<'_>,
        now: Time,
    ) -> Option<u32> {
        let keeping = self.keeping.as_mut()?;
        self.messages += 1;
        self.bytes += job.message.cost_bytes() + Queue::JOB_BYTES;
        self.totals.enqueued += 1;
        // One that rests holds its group.
        let rests = job.record.failures > 0 && ask.group.is_some();
        let (row, kind) = (job.sequence, Source::DELAYED);
        match job.record.fate {
            Fate::Delayed(due) if due > now && !rests => {
                keeping.away.insert((due, row, ask.priority, kind));
            }
            // Read when there is room, of a group in its order.
            Fate::Open | Fate::Delayed(_) if !rests => {
                if ask.group.is_some() && !self.settings.fair {
                    keeping.parked.insert((row, ask.priority, kind));
                    keeping.unpark();
                } else {
                    keeping.due.insert((Reverse(ask.priority), kind, row));
                }
            }
            _ => {
                keeping.due.insert((Reverse(ask.priority), kind, row));
                return self.load(list, job, ask, now);
            }
        }
        None
    }

    /// Which rows are to be read.
    pub fn wants_jobs(&self) -> Option<Wanted> {
        self.wants_jobs_within(Queue::READ_BYTES_MAX, false)
    }

    /// At a start, so that all are read that a member may have had in hand: the
    /// head of each priority.
    pub fn wants_jobs_at_start(&self) -> Option<Wanted> {
        self.wants_jobs_within(2 * Queue::READ_BYTES_MAX, true)
    }

    fn wants_jobs_within(&self, bytes_max: usize, of_each: bool) -> Option<Wanted> {
        let keeping = self.keeping.as_ref()?;
        if keeping.due.is_empty() && keeping.unread() == 0 {
            return None;
        }
        let all = self.settings.last_value;
        let behind = self.groups.as_ref().map_or(0, |groups| groups.behind);
        let is_stuck = behind > 0 && self.ready.len() == 0 && self.rota.next(false).is_some();
        let (behind_max, bytes_max) = match is_stuck {
            true => (Queue::AHEAD_MAX, Queue::AHEAD_BYTES_MAX),
            false => (Queue::READ_MAX, bytes_max),
        };
        let enough = match keeping.read_bytes >= bytes_max {
            true => Queue::READ_FEW,
            false => Queue::READ_LOW,
        };
        // What is due comes before what was put in later, and what waits for it
        // to be read.
        let in_memory = self.ready.len() + behind;
        let has_room = in_memory < 2 * Queue::READ_MAX
            && (keeping.read_bytes < 2 * bytes_max || self.ready.len() < Queue::READ_FEW);
        let unparked = keeping.unparked.first_key_value();
        let unparked = unparked.map(|(&from, &(priority, kind))| (priority, kind, from));
        let due = keeping.due.first();
        let due = due.map(|&(Reverse(priority), kind, from)| (priority, kind, from));
        if let Some(due) = unparked.or(due.filter(|_| has_room || all)) {
            return Some(self.wanted_due(keeping, due));
        }
        let mut of_groups = keeping.sources.iter();
        let of_groups = of_groups.find(|of| of.kind == Source::GROUPED && of.unread > 0);
        if let Some(source) = of_groups
            && (self.ready.grouped_len() < enough && behind < behind_max || all)
        {
            return Some(source.wanted(Queue::READ_MAX));
        }
        // What is ready comes before what is read of a lower priority.
        let ready = |priority: u8| match of_each {
            true => self.ready.len_of(priority),
            false => self.ready.len_from(priority),
        };
        let of_priorities = keeping.sources.iter();
        let of_priorities = of_priorities.filter(|of| of.kind < Source::DELAYED && of.unread > 0);
        let wanting = of_priorities.filter(|of| all || ready(of.kind) < enough);
        let source = wanting.max_by_key(|of| of.kind)?;
        Some(source.wanted(match all {
            true => Queue::READ_MAX,
            false => Queue::READ_MAX - ready(source.kind),
        }))
    }

    /// The first that is due, and those that are due next to it.
    fn wanted_due(&self, keeping: &Keeping, (priority, kind, from): (u8, u8, u64)) -> Wanted {
        let of = (Reverse(priority), kind);
        let rows = keeping.due.range((of.0, kind, from)..);
        let rows = rows.take(Queue::READ_LOW);
        let rows = rows.take_while(|(priority, kind, _)| (*priority, *kind) == of);
        let mut rows_max = 1;
        for (count, &(_, _, row)) in rows.enumerate() {
            let span = row - from + 1;
            if span > 2 * (count as u64 + 1) + 8 {
                break;
            }
            rows_max = span as usize;
        }
        Wanted {
            list: self.list_for(kind).unwrap_or(keeping.list()),
            from,
            rows_max,
            is_known: true,
        }
    }

    /// A job that was read from a list. If a member has it at QoS 2, its key:
    /// [`Queue::restore_lease`] comes next.
    pub fn load(
        &mut self,
        list: ListId,
        job: StoredJob<'_>,
        ask: &Ask<'_>,
        now: Time,
    ) -> Option<u32> {
        let keeping = self.keeping.as_mut()?;
        let cost_bytes = job.message.cost_bytes();
        let kind = keeping.source_of(list)?.kind;
        if keeping.pass_taken(kind, job.sequence) {
            keeping.unpark();
            return None;
        }
        if kind == Source::GROUPED && keeping.has_due_before(job.sequence) {
            return None; // It is read again behind those.
        }
        let source = keeping.source_of(list)?;
        let mut is_due = false;
        if source.is_unread(job.sequence) {
            // What it takes is known now; before it was as much as others on average.
            self.bytes = self.bytes - source.read_one() + cost_bytes;
            source.unread_from = job.sequence + 1;
            keeping.unpark();
        } else {
            // What is not due is only between those that are.
            is_due = keeping.take_due(kind, job.sequence, ask.priority);
            if !is_due {
                return None;
            }
        }
        let mut record = job.record;
        if is_due && (record.failures == 0 || ask.group.is_none()) {
            // Somebody may have called for it before its time.
            record.fate = match record.fate {
                Fate::Delayed(_) => Fate::Open,
                fate => fate,
            };
        }
        if let Fate::Delayed(due) = record.fate
            && due > now
            && self.delayed >= Queue::DELAYED_MAX
            && ask.group.is_none()
            && !self.settings.last_value
        {
            keeping.away.insert((due, job.sequence, ask.priority, kind));
            return None;
        }
        let key = self.add_stored(job, ask, kind);
        match record.fate {
            Fate::Delayed(due) if due > now => {
                self.hold_group(key, record.failures > 0);
                self.delay_unamended(key, due);
            }
            Fate::GivenAway => {
                self.totals.done += 1;
                self.end(key, Outcome::Done);
            }
            Fate::Held(..) => {
                self.await_holder(key);
                return Some(key);
            }
            Fate::Open | Fate::Delayed(_) => {
                // Those that came back may stand before it.
                let fresh = !is_due && kind == ask.priority && self.expires_of(key) == Time::MAX;
                self.wait(key, fresh);
            }
        }
        None
    }

    /// A job that a member has at QoS 2, before those are read that stand before
    /// it. As [`Queue::load`]; `None`: it was read already.
    pub fn load_held(&mut self, list: ListId, job: StoredJob<'_>, ask: &Ask<'_>) -> Option<u32> {
        let keeping = self.keeping.as_mut()?;
        let source = keeping.source_of(list)?;
        let (kind, sequence) = (source.kind, job.sequence);
        if !source.is_unread(sequence) {
            return None;
        }
        let read = source.read_one();
        if !keeping.taken.insert((kind, sequence)) {
            return None;
        }
        self.bytes = self.bytes - read + job.message.cost_bytes();
        let key = self.add_stored(job, ask, kind);
        self.await_holder(key);
        Some(key)
    }

    /// A job that was read, in memory and in no place yet, with its history.
    fn add_stored(&mut self, job: StoredJob<'_>, ask: &Ask<'_>, kind: u8) -> u32 {
        let record = job.record;
        let key = self.add_job(job.message, ask, (kind, job.sequence), job.stored);
        let job = &mut self.jobs[key as usize];
        (job.deliveries, job.failures, job.losses) =
            (record.deliveries, record.failures, record.losses);
        self.say(key, record.said);
        key
    }

    /// From where on each list is not read yet.
    pub fn unread_from(&self) -> Vec<(ListId, u64)> {
        let sources = self.keeping.iter().flat_map(|keeping| &keeping.sources);
        let unread = sources.filter(|source| source.unread > 0);
        unread
            .map(|source| (source.list, source.unread_from))
            .collect()
    }

    /// The job is in no place until [`Queue::restore_lease`].
    fn await_holder(&mut self, key: u32) {
        let job = &mut self.jobs[key as usize];
        job.stored.is_held = true;
        job.state = State::Settling { due: None };
        self.settling += 1;
        self.hold_group(key, true);
    }

    /// The rows that were wanted were read, as far as they are there;
    /// `is_settled`: nothing of them is only about to be stored. How many
    /// turned out to be lost.
    pub fn looked(&mut self, wanted: Wanted, found: usize, is_settled: bool) -> usize {
        if !is_settled {
            return 0;
        }
        if wanted.is_known {
            return self.lose_due(wanted);
        }
        match found {
            0 => self.lose_unread(wanted.list, usize::MAX),
            _ => 0,
        }
    }

    fn lose_due(&mut self, wanted: Wanted) -> usize {
        let Some(keeping) = &mut self.keeping else {
            return 0;
        };
        let Some(kind) = keeping.source_of(wanted.list).map(|source| source.kind) else {
            return 0;
        };
        let lost = keeping.take_due(kind, wanted.from, Source::PRIORITY);
        if lost {
            // What it took is not known any more; the rest of the count is right.
            self.messages -= 1;
            self.bytes = self.bytes.saturating_sub(Queue::JOB_BYTES);
            self.totals.lost += 1;
        }
        lost.into()
    }

    /// The job with that key of [`Queue::load`] is this member's, as it was
    /// when the broker stopped. `None`: its session is gone.
    pub fn restore_lease(
        &mut self,
        key: u32,
        member: Option<SessionId>,
        now: Time,
    ) -> Option<LeaseId> {
        self.settling -= 1;
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
    pub fn lose(&mut self, list: ListId, sequence: u64) {
        let source = self
            .keeping
            .as_mut()
            .and_then(|keeping| keeping.source_of(list));
        let Some(source) = source else {
            return;
        };
        if source.is_unread(sequence) {
            source.unread_from = sequence + 1;
            self.lose_unread(list, 1);
            return;
        }
        self.lose_due(Wanted {
            list,
            from: sequence,
            rows_max: 1,
            is_known: true,
        });
    }

    fn lose_unread(&mut self, list: ListId, count: usize) -> usize {
        let source = self
            .keeping
            .as_mut()
            .and_then(|keeping| keeping.source_of(list));
        let Some(source) = source else {
            return 0;
        };
        let count = count.min(source.unread);
        for _ in 0..count {
            self.bytes -= source.read_one() + Queue::JOB_BYTES;
        }
        if let Some(keeping) = &mut self.keeping {
            keeping.unpark();
        }
        self.messages -= count;
        self.totals.lost += count as u64;
        count
    }

    /// The session took the lease: what is to be known of that after a crash.
    /// `holder`: of a delivery at QoS 2.
    pub fn store_lease(&mut self, id: LeaseId, holder: Option<(ListId, PacketId)>) {
        let job = &mut self.jobs[id.job as usize];
        if self.keeping.is_none() || !job.stored.is_stored {
            return;
        }
        let fate = match (job.held().qos, holder) {
            (Qos::AtMostOnce, _) => Fate::GivenAway,
            (Qos::ExactlyOnce, Some((session, packet_id))) => Fate::Held(session, packet_id),
            _ => Fate::Open,
        };
        self.amend(id.job, fate);
        self.jobs[id.job as usize].stored.is_held = fate != Fate::Open;
    }

    /// The dead letter is stored elsewhere, or given up.
    pub fn moved(&mut self, letter: &DeadLetter) {
        if let Some(keeping) = &mut self.keeping {
            let row = (letter.source, letter.sequence);
            keeping.remove(row, letter.stored, &letter.message);
        }
    }

    // ---- ids that are not put in twice

    /// Which message with that id was put in within the window.
    pub fn seen(&self, id: &str, now: Time) -> Option<MessageId> {
        self.once.as_ref()?.find(id, now)
    }

    /// Whether another id can be remembered.
    pub fn may_remember(&self) -> Result<(), Full> {
        match &self.once {
            Some(once) if once.len() >= Once::IDS_MAX => Err(Full::Ids),
            _ => Ok(()),
        }
    }

    /// A message with that id is put in: no other one within the window.
    pub fn remember(&mut self, id: &str, message: MessageId, now: Time) {
        let until = now + self.settings.dedup_window;
        if let Some(keeping) = &mut self.keeping {
            let key = &dedup_key(keeping.list(), id);
            let value = &encode_remembered(message, until);
            let durability = keeping.durability;
            let change = Change::Put { key, value };
            keeping.journal.add(durability, change);
        }
        self.restore_id(id, message, until);
    }

    /// As it was stored by [`Queue::remember`]: the id follows the list in the
    /// key. Whether it is one.
    pub fn restore_remembered(&mut self, id: &[u8], value: &[u8]) -> bool {
        let id = std::str::from_utf8(id).ok();
        let value = value.split_first_chunk::<8>();
        let value = value.and_then(|(message, until)| {
            let until = u64::from_le_bytes(until.try_into().ok()?);
            Some((u64::from_le_bytes(*message), until))
        });
        let Some((id, (message, until))) = id.zip(value) else {
            return false;
        };
        self.restore_id(id, MessageId(message), Time::from_micros(until));
        true
    }

    fn restore_id(&mut self, id: &str, message: MessageId, until: Time) {
        let once = self.once.get_or_insert_with(|| Box::new(Once::new()));
        once.remember(id, message, until);
    }

    /// The queue goes: nothing of its ids stays in the store.
    pub fn forget_all_ids(&mut self) {
        while self.once.is_some() {
            self.forget_ids(Time::MAX);
        }
    }

    fn forget_ids(&mut self, now: Time) {
        let Some(once) = &mut self.once else {
            return;
        };
        for _ in 0..Queue::DUE_PAGE {
            let Some(id) = once.pop_over(now) else { break };
            if let Some(keeping) = &mut self.keeping {
                let key = &dedup_key(keeping.list(), &id);
                keeping
                    .journal
                    .add(Durability::Flushed, Change::Delete { key });
            }
        }
        if once.len() == 0 {
            self.once = None;
        }
    }

    // ---- putting in

    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Changes what may be changed: all but the rules. It holds for what is
    /// in the queue and in members' hands too.
    pub fn set_settings(&mut self, settings: impl Into<Arc<Settings>>) {
        let (before, mut settings) = (self.settings.clone(), settings.into());
        if settings.rules != before.rules {
            Arc::make_mut(&mut settings).rules = before.rules;
        }
        let waiting = self.waiting_in_memory();
        let regroup = before.fair != settings.fair;
        for &key in &waiting {
            self.unwatch(key);
            if regroup {
                self.take_out_waiting(key);
            }
        }
        self.settings = settings;
        if regroup {
            self.regroup(&waiting);
        } else {
            waiting.iter().for_each(|&key| self.watch(key));
        }
        self.rota
            .set(prefetch(&self.settings), self.settings.dispatch);
        let members = self.rota.members.iter();
        let holding = members.filter(|(_, member)| member.held != [0; 3]);
        let holding: Vec<u32> = holding.map(|(key, _)| key as u32).collect();
        for key in holding {
            self.arm(key, Time::ZERO);
        }
    }

    /// Groups are another thing from now on. `waiting` are in no place.
    fn regroup(&mut self, waiting: &[u32]) {
        let groups = self.groups.take();
        let groups = groups.map_or_else(Groups::new, |groups| *groups);
        let fair = self.settings.fair;
        let mut anew = Groups::new();
        for (_, job) in &mut self.jobs {
            let name = match job.group {
                Job::NO_GROUP => "",
                group => groups.name(group),
            };
            job.flags.is_out = false;
            job.group = match (fair, name) {
                (false, "") => Job::NO_GROUP,
                (true, name) => anew.join(name, Some(job.priority)),
                (false, name) => anew.join(name, None),
            };
        }
        self.groups = Some(Box::new(anew));
        let held: Vec<u32> = self.jobs.iter().map(|(key, _)| key as u32).collect();
        for key in held {
            let job = &self.jobs[key as usize];
            let rests = matches!(job.state, State::Delayed { .. }) && job.failures > 0;
            let is_taken = matches!(job.state, State::Leased(_) | State::Settling { .. });
            self.hold_group(key, rests || is_taken);
        }
        for &key in waiting {
            match self.jobs[key as usize].state {
                State::Delayed { due } => self.delay_unamended(key, due),
                _ => self.wait(key, false),
            }
        }
    }

    /// Puts a message in, behind all others that ask the same.
    pub fn enqueue(&mut self, message: Arc<Message>, ask: &Ask<'_>, now: Time) -> Result<(), Full> {
        self.reserve(message.cost_bytes())?;
        self.enqueue_reserved(message, ask, Stored::NOT, now);
        Ok(())
    }

    /// Keeps room for a message of so many [`Message::cost_bytes`], so that
    /// several queues take it, or none. Then comes
    /// [`Queue::enqueue_reserved`], or [`Queue::cancel_reservation`].
    ///
    /// Where older ones give way, room is made.
    pub fn reserve(&mut self, cost_bytes: usize) -> Result<(), Full> {
        while let Err(full) = self.check_room(cost_bytes) {
            let fits = cost_bytes.saturating_add(Queue::JOB_BYTES) <= self.settings.bytes_max;
            if self.settings.overflow == Overflow::Reject || !fits || !self.drop_oldest() {
                return Err(full);
            }
        }
        self.messages += 1;
        self.bytes += cost_bytes + Queue::JOB_BYTES;
        Ok(())
    }

    /// As [`Queue::reserve`], but no other message gives way.
    pub fn reserve_free(&mut self, cost_bytes: usize) -> Result<(), Full> {
        self.check_room(cost_bytes)?;
        self.messages += 1;
        self.bytes += cost_bytes + Queue::JOB_BYTES;
        Ok(())
    }

    /// As [`Queue::reserve`], beyond all bounds, for what was in before.
    pub fn reserve_again(&mut self, cost_bytes: usize) {
        self.messages += 1;
        self.bytes += cost_bytes + Queue::JOB_BYTES;
    }

    /// Room is made by what waits and comes last; whether there was any.
    fn drop_oldest(&mut self) -> bool {
        let Some(key) = self.last_in_order() else {
            return false;
        };
        self.take_out_waiting(key);
        match self.settings.overflow {
            Overflow::DeadLetterOldest => self.bury(key, DeadReason::Overflow),
            Overflow::DropOldest | Overflow::Reject => {
                self.totals.dropped += 1;
                self.end(key, Outcome::Dropped);
            }
        }
        true
    }

    /// Of the jobs in memory that have the lowest priority the oldest that is
    /// ready; else that is behind another one; else that is delayed.
    fn last_in_order(&self) -> Option<u32> {
        let order = |class: u8, key: u32| {
            let job = &self.jobs[key as usize];
            (job.priority, class, job.sequence, key)
        };
        let ready = self.ready.last_lane_first(&self.jobs, self.fair_groups());
        let ready = ready.map(|key| order(0, key));
        let groups = self.groups.iter().filter(|groups| groups.behind > 0);
        let behind = groups.flat_map(|groups| &groups.slab);
        let behind = behind.flat_map(|(_, group)| group.lane.keys());
        let behind = behind.map(|key| order(1, key));
        let timers = self.timers.iter().filter(|_| self.delayed > 0);
        let delayed = timers.filter_map(|(_, timer)| match timer {
            Timer::Delay(_, key) => Some(order(2, *key)),
            _ => None,
        });
        let all = ready.into_iter().chain(behind).chain(delayed);
        all.min().map(|(.., key)| key)
    }

    /// Puts in a message for which there is a reservation of its cost.
    /// `stored`: in the row of [`Queue::next_sequence`] in the list of its
    /// kind, or not.
    pub fn enqueue_reserved(
        &mut self,
        message: Arc<Message>,
        ask: &Ask<'_>,
        stored: Stored,
        now: Time,
    ) {
        let (kind, sequence) = (self.kind_for(ask, now), self.next_sequence);
        self.next_sequence += 1;
        self.totals.enqueued += 1;
        self.trace_message(message.id(), What::Stored);
        let mut unordered = false;
        if self.keeping.is_some() {
            if stored.is_stored && !self.takes_into_memory(kind, ask) {
                self.leave_on_disk(kind, sequence, ask, message.cost_bytes());
                return;
            }
            // Before those of its priority that are read later, and come before it.
            let keeping = self.keeping.as_mut();
            let source = keeping.and_then(|keeping| keeping.source(ask.priority));
            unordered = source.is_some_and(|source| source.unread > 0);
        }
        let expires = message.expires() < Time::MAX || self.settings.ttl.is_some();
        let key = self.add_job(message, ask, (kind, sequence), stored);
        match kind {
            Source::DELAYED => self.delay_unamended(key, ask.due),
            _ => self.wait(key, !expires && !unordered),
        }
    }

    /// Whether a stored job is to be in memory from the start.
    fn takes_into_memory(&mut self, kind: u8, ask: &Ask<'_>) -> bool {
        if self.settings.last_value {
            return true;
        }
        let behind = self.groups.as_ref().map_or(0, |groups| groups.behind);
        let ready = self.ready.len_of(ask.priority);
        let Some(keeping) = &mut self.keeping else {
            return true;
        };
        let has_bytes = keeping.read_bytes < Queue::READ_BYTES_MAX;
        if kind == Source::DELAYED {
            return self.delayed < Queue::DELAYED_MAX && has_bytes;
        }
        let ready = match kind {
            Source::GROUPED => self.ready.grouped_len(),
            _ => ready,
        };
        keeping.source(kind).is_none_or(|source| source.unread == 0)
            && ready < Queue::READ_MAX
            && behind < Queue::READ_MAX
            && (has_bytes || ready < Queue::READ_FEW)
    }

    fn leave_on_disk(&mut self, kind: u8, sequence: u64, ask: &Ask<'_>, cost_bytes: usize) {
        let Some(keeping) = &mut self.keeping else {
            return;
        };
        if kind == Source::DELAYED {
            keeping.away.insert((ask.due, sequence, ask.priority, kind));
        } else if let Some(source) = keeping.source(kind) {
            if source.unread == 0 {
                source.unread_from = sequence;
            }
            source.unread += 1;
            source.unread_bytes += cost_bytes;
        }
    }

    /// A job in memory that is in no place yet.
    fn add_job(
        &mut self,
        message: Arc<Message>,
        ask: &Ask<'_>,
        (source, sequence): (u8, u64),
        stored: Stored,
    ) -> u32 {
        let cost_bytes = message.cost_bytes();
        if let Some(keeping) = &mut self.keeping {
            keeping.read_bytes += cost_bytes;
        }
        let is_work = self.settings.rules == Rules::Work;
        let fair = is_work && self.settings.fair;
        let group = match ask.group.filter(|_| is_work) {
            None if !fair => Job::NO_GROUP,
            group => {
                let groups = self.groups.get_or_insert_with(|| Box::new(Groups::new()));
                groups.join(group.unwrap_or_default(), fair.then_some(ask.priority))
            }
        };
        let key = self.jobs.insert(Job {
            message,
            sequence,
            lease: 0,
            member: 0,
            group,
            links: Links::NONE,
            // A packet's length has 28 bits [MQTT-1.5.5].
            cost_bytes: cost_bytes as u32,
            deliveries: 0,
            failures: 0,
            losses: 0,
            priority: ask.priority,
            source,
            flags: Flags {
                receipt: ask.receipt,
                has_key: self.settings.last_value && ask.key.is_some(),
                ..Flags::default()
            },
            state: State::Ready,
            stored,
        }) as u32; // check_room sees to it.
        if let Some(name) = ask.key.filter(|_| self.settings.last_value) {
            let keys = self.keys.get_or_insert_with(|| Box::new(Keys::new()));
            keys.name(key, name);
        }
        key
    }

    pub fn cancel_reservation(&mut self, cost_bytes: usize) {
        self.messages -= 1;
        self.bytes -= cost_bytes + Queue::JOB_BYTES;
    }

    /// Whether [`Queue::reserve_free`] would succeed now.
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

    // ---- members

    /// The session subscribed, and is connected. A member already: its
    /// membership is changed in place, and it keeps its turn, its standing
    /// and what it holds.
    pub fn join(&mut self, member: SessionId, membership: Membership, now: Time) {
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
    pub fn detach(&mut self, member: SessionId, gone: Gone, now: Time) {
        if let Some(key) = self.rota.find(member) {
            self.rota.detach(key);
            self.take_back(key, false, gone, now);
        }
    }

    /// The session unsubscribed: it gets no more turns. What it holds stays
    /// with it until it is settled, or its time or the connection ends.
    pub fn leave(&mut self, member: SessionId) {
        if let Some(key) = self.rota.find(member) {
            self.rota.leave(key);
            self.retire_if_done(key);
        }
    }

    /// The member's session ended: nobody will say what became of what it
    /// holds at QoS 2. The rest goes to the next members. What was never
    /// written is to be given back with [`Queue::release`] before.
    pub fn remove(&mut self, member: SessionId, gone: Gone, now: Time) {
        if let Some(key) = self.rota.find(member) {
            self.leave(member);
            if self.rota.find(member).is_some() {
                self.take_back(key, true, gone, now);
            }
        }
    }

    // ---- taking turns

    /// The next job for the next member, which has it from now on. To be
    /// called until there is none, after anything else was called.
    ///
    /// A job that came back skips the member that had it last, which keeps
    /// its turn, if another one has room. One of a group goes to the member
    /// that had the group last, if that has room. One that has expired goes to
    /// nobody: it is no longer in the queue then.
    pub fn poll_lease(&mut self, now: Time) -> Option<Lease<'_>> {
        self.drop_expired(now);
        if self.is_paused || self.is_purged {
            return None;
        }
        let (key, member_key) = self.next_turn()?;
        self.unwatch(key);
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

    /// Which job is given, taken from its place, and to whom.
    fn next_turn(&mut self) -> Option<(u32, u32)> {
        let exclusive = self.settings.exclusive;
        if self.ready.has_alone() {
            let groups = self.fair_groups();
            if let Some(alone) = self.ready.first_alone(&self.jobs, groups)
                && let Some(member_key) = self.rota.empty_handed(exclusive, self.last_of(alone))
            {
                self.take_ready(alone);
                return Some((alone, member_key));
            }
        } else {
            self.rota.drain_no_more();
        }
        let Some(next) = self.rota.next(exclusive) else {
            self.drop_fleeting();
            return None;
        };
        let key = self.pop_ready()?;
        let mut member_key = next;
        if exclusive {
            return Some((key, next));
        }
        if let Some(sticky) = self.sticky_member(key) {
            member_key = sticky;
        }
        if self.had_last(member_key, key)
            && let Some(other) = self.rota.next_but(member_key)
        {
            member_key = other;
        }
        Some((key, member_key))
    }

    /// Who had the job's group last, if it has room.
    fn sticky_member(&self, key: u32) -> Option<u32> {
        let job = &self.jobs[key as usize];
        let groups = self.groups.as_ref().filter(|_| job.flags.is_out)?;
        let (member_key, first_lease) = groups.sticky(job.group)?;
        let member = self.rota.members.get(member_key as usize)?;
        let is_it = member.first_lease == first_lease && self.rota.is_in_ring(member_key);
        is_it.then_some(member_key)
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
            settling: None,
        });
        job.lease = id.number;
        job.member = id.member;
        if job.is_alone() {
            member.has_alone = true;
        }
        if let Some(keeping) = &mut self.keeping {
            keeping.read_bytes -= job.cost_bytes as usize;
        }
        if job.group != Job::NO_GROUP
            && let Some(groups) = self.groups.as_mut().filter(|_| job.flags.is_out)
        {
            groups.stick(job.group, (member_key, member.first_lease));
        }
        self.leased += 1;
        member.leases.push_back(&mut self.jobs, key);
        self.rota.count_held(member_key, qos, true);
        if let Some(span) = self.span(member_key, qos) {
            self.arm(member_key, now + span);
        }
        id
    }

    /// Whose turn it is for a message that need not become a job: of a share
    /// group that stores nothing and has nothing that waits. `None`: it has to
    /// be put in.
    #[inline]
    pub fn straight_turn(&self) -> Option<StraightTurn> {
        if self.ready.len() > 0 || !self.fleeting.is_empty() {
            return None;
        }
        self.straight_turn_of(self.next_sequence, None)
    }

    /// The same for the one that waited longest, which is a job no more once it
    /// [was taken](Queue::took_straight). `None`: see [`Queue::poll_lease`].
    #[inline]
    pub fn waiting_turn(&self, now: Time) -> Option<(StraightTurn, &Arc<Message>)> {
        if self.ready.has_alone() || !self.fleeting.is_empty() {
            return None;
        }
        let key = self.ready.first(&self.jobs, None)?;
        let job = &self.jobs[key as usize];
        // One that came back is not for the member that had it.
        if job.deliveries > 0
            || job.message.qos() != Qos::AtLeastOnce
            || now > job.message.expires()
        {
            return None;
        }
        let turn = self.straight_turn_of(job.sequence, Some(key))?;
        Some((turn, &job.message))
    }

    fn straight_turn_of(&self, sequence: u64, job: Option<u32>) -> Option<StraightTurn> {
        let is_free = self.settings.rules == Rules::Share
            && self.keeping.is_none()
            && !self.is_paused
            && !self.is_purged;
        let key = self.rota.next(false).filter(|_| is_free)?;
        let member = self.rota.get(key);
        Some(StraightTurn {
            member: member.session,
            qos: member.membership.qos,
            sequence,
            key,
            job,
        })
    }

    /// The member got the message. Should it not acknowledge that, the message
    /// becomes a [job after all](Queue::adopt).
    #[inline]
    pub fn took_straight(&mut self, turn: StraightTurn) {
        match turn.job {
            Some(key) => {
                self.take_ready(key);
                self.take_job(key, None);
                self.totals.enqueued -= 1;
            }
            None => self.next_sequence += 1,
        }
        self.totals.delivered += 1;
        self.rota.rotate(turn.key);
    }

    /// A message that went straight to `member` is a job, as if it had been one
    /// all the time; it is not refused for want of room. It is settled as the
    /// member `said`, or goes to the next.
    pub fn adopt(
        &mut self,
        message: Arc<Message>,
        sequence: u64,
        member: SessionId,
        said: Option<Settlement<'_>>,
        now: Time,
    ) {
        self.reserve_again(message.cost_bytes());
        self.totals.enqueued += 1;
        let ask = Ask::default();
        let key = self.add_job(message, &ask, (ask.priority, sequence), Stored::NOT);
        self.jobs[key as usize].deliveries = 1;
        if let Some(member_key) = self.rota.find(member) {
            let lease = self.lease(key, member_key, Qos::AtLeastOnce, now);
            match said {
                Some(settlement) => _ = self.settle(lease, settlement, now),
                None => self.release(lease),
            }
            return;
        }
        // It has left the group.
        match said {
            Some(Settlement::Reject { .. }) => self.bury(key, DeadReason::Rejected),
            Some(Settlement::Fail { delay, .. }) => self.fail(key, delay, now),
            _ => self.wait(key, false),
        }
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
        let others = self.rota.skip(id.member);
        self.undo_lease(id.job);
        let due = now + Queue::SKIPPED_FOR;
        match self.settings.rules {
            _ if others => {
                self.timers.insert((due, Timer::Skipped));
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
        let job = &self.jobs[key as usize];
        if self.delayed >= Queue::DELAYED_MAX
            && job.stored.is_stored
            && job.group == Job::NO_GROUP
            && !job.flags.has_key
            && let Some(keeping) = &mut self.keeping
        {
            // It is read again when it is due.
            keeping
                .away
                .insert((due, job.sequence, job.priority, job.source));
            keeping.read_bytes -= job.cost_bytes as usize;
            self.said.remove(&key);
            self.jobs.remove(key as usize);
            return;
        }
        self.delay_unamended(key, due);
    }

    fn delay_unamended(&mut self, key: u32, due: Time) {
        let job = &mut self.jobs[key as usize];
        job.state = State::Delayed { due };
        self.delayed += 1;
        self.timers.insert((due, Timer::Delay(job.sequence, key)));
        self.watch(key);
        self.keep_newest(key);
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
        } else {
            self.settles_then(id, After::Return);
        }
    }

    /// Whether it counted. What is said about a lease that is not current
    /// changes no job, but for a late [`Settlement::Done`]: that counts while
    /// the job was not given to anybody again.
    ///
    /// All but [`Settlement::Extend`] show that the member is through with
    /// this delivery: the time of those that it got later starts anew.
    pub fn settle(&mut self, id: LeaseId, settlement: Settlement<'_>, now: Time) -> bool {
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
        let is_work = self.settings.rules == Rules::Work;
        match settlement {
            Settlement::Done if is_work => {
                let took_micros = self.jobs[id.job as usize].held().took_micros(now);
                self.did_a_job(id.member, took_micros);
            }
            // Before it has room by what it gives back.
            Settlement::Busy if is_work => self.rest(id.member, now),
            _ => {}
        }
        self.unlink(id.job, Some(now));
        match settlement {
            Settlement::Done => {
                self.totals.done += 1;
                self.end(id.job, Outcome::Done);
            }
            Settlement::Fail { delay, said } => {
                self.trace(id.job, What::Failed);
                self.totals.refused += 1;
                self.say(id.job, said);
                self.fail(id.job, delay, now);
            }
            Settlement::Busy => {
                self.trace(id.job, What::Busy);
                self.totals.busy += 1;
                self.make_ready(id.job);
            }
            Settlement::Reject { said } => {
                self.say(id.job, said);
                self.bury(id.job, DeadReason::Rejected);
            }
            Settlement::Extend(_) => unreachable!("returned above"),
        }
        true
    }

    /// What a member says of a job, as far as that is kept.
    fn say(&mut self, key: u32, said: &str) {
        if said.is_empty() {
            return;
        }
        let said = &said[..said.floor_char_boundary(Queue::SAID_BYTES_MAX)];
        self.jobs[key as usize].flags.is_said = true;
        self.said.insert(key, said.into());
    }

    /// The member gets no turns for a while.
    fn rest(&mut self, member: u32, now: Time) {
        let before = self.rota.get(member).rests_until;
        if let Some(before) = before {
            self.timers.remove(&(before, Timer::Rest(member)));
        }
        let until = self.rota.rest(member, now);
        self.timers.insert((until, Timer::Rest(member)));
    }

    fn did_a_job(&mut self, member: u32, took_micros: u64) {
        if let Some(rested) = self.rota.did(member, took_micros) {
            self.timers.remove(&(rested, Timer::Rest(member)));
        }
    }

    /// A job that is in no place failed: it rests, or is a dead letter.
    fn fail(&mut self, key: u32, delay: Option<Duration>, now: Time) {
        if self.settings.rules == Rules::Share {
            return match delay {
                Some(delay) if !delay.is_zero() => self.delay(key, now + delay),
                _ => self.make_ready(key),
            };
        }
        let job = &mut self.jobs[key as usize];
        job.failures = job.failures.saturating_add(1);
        if job.failures >= self.settings.deliveries_max {
            return self.bury(key, DeadReason::MaxDeliveries);
        }
        let rest = delay.unwrap_or_else(|| self.backoff(key));
        self.rest_job(key, rest, now);
    }

    /// A job that is in no place was in hand when its member's connection
    /// broke: once that is no wonder.
    fn fail_by_loss(&mut self, key: u32, now: Time) {
        let job = &mut self.jobs[key as usize];
        job.losses = job.losses.saturating_add(1);
        let delay = (job.losses == 1).then_some(Duration::ZERO);
        self.fail(key, delay, now);
    }

    /// A job that failed waits for so long.
    fn rest_job(&mut self, key: u32, rest: Duration, now: Time) {
        if !rest.is_zero() {
            return self.delay(key, now + rest);
        }
        self.amend(key, Fate::Open);
        self.make_ready(key);
    }

    /// Twice as long after each failure, the second half of it by chance: what
    /// failed together does not come back together.
    fn backoff(&self, key: u32) -> Duration {
        let job = &self.jobs[key as usize];
        let doublings = (job.failures - 1).min(31);
        let longest = self.settings.backoff_min.saturating_mul(1 << doublings);
        let longest = longest.min(self.settings.backoff_max);
        let hash = FxBuildHasher.hash_one((job.sequence, job.failures));
        let chance = (hash >> 32) as f64 / f64::from(u32::MAX);
        longest / 2 + (longest / 2).mul_f64(chance)
    }

    /// Done by the last one who had it, after it came back to the queue.
    fn settle_late(&mut self, id: LeaseId) -> bool {
        let Some(job) = self.jobs.get(id.job as usize) else {
            return false;
        };
        if job.lease != id.number {
            return false;
        }
        if let State::Leased(_) | State::Settling { .. } = job.state {
            return false;
        }
        let member = self.rota.members.get(id.member as usize);
        let member = member.filter(|member| member.first_lease <= id.number);
        if let Some(took_micros) = member.map(|member| member.took_micros) {
            self.did_a_job(id.member, took_micros);
        }
        self.take_out_waiting(id.job);
        self.totals.done += 1;
        self.end(id.job, Outcome::Done);
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
        let mut next = self.timers.first().map_or(Time::MAX, |&(at, _)| at);
        if let Some(&(at, _)) = self.expiring.first() {
            // Its last moment is still the job's own.
            next = next.min(at + Duration::from_micros(1));
        }
        if let Some(keeping) = &self.keeping
            && let Some(&(at, ..)) = keeping.away.first()
        {
            next = next.min(at);
        }
        if let Some(once) = &self.once
            && let Some(at) = once.next_over()
        {
            // There is no hurry to forget.
            next = next.min(at + Duration::from_secs(1));
        }
        (next < Time::MAX).then_some(next)
    }

    /// Ends delays, leases whose time has passed, and jobs that have expired;
    /// adds the leases to `timed_out`, so that their sessions can mark them.
    pub fn handle_timeout(&mut self, now: Time, timed_out: &mut Vec<(SessionId, LeaseId)>) {
        while let Some(&(at, timer)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            match timer {
                Timer::Delay(_, key) => {
                    self.delayed -= 1;
                    self.unwatch(key);
                    self.make_ready(key);
                }
                Timer::Member(key) => self.handle_member_timeout(key, now, timed_out),
                Timer::Rest(key) => self.rota.wake(key),
                Timer::Skipped => self.rota.unskip(),
            }
        }
        if let Some(keeping) = &mut self.keeping {
            for _ in 0..Queue::DUE_PAGE {
                let Some(&(due, row, priority, kind)) = keeping.away.first() else {
                    break;
                };
                if due > now {
                    break;
                }
                keeping.away.pop_first();
                keeping.due.insert((Reverse(priority), kind, row));
            }
        }
        // And what has just come back too late.
        self.drop_expired(now);
        self.forget_ids(now);
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
                // Who is bringing its result may do so.
                if held.settling.is_none() {
                    self.end_lease(job_key, now, timed_out);
                }
            } else {
                self.arm(key, deadline);
                open[qos] &= held.extended;
            }
        }
    }

    fn end_lease(&mut self, key: u32, now: Time, timed_out: &mut Vec<(SessionId, LeaseId)>) {
        let job = &self.jobs[key as usize];
        let id = LeaseId {
            job: key,
            member: job.member,
            number: job.lease,
        };
        timed_out.push((self.rota.get(id.member).session, id));
        let qos = job.held().qos;
        self.trace(key, What::TimedOut);
        self.totals.timed_out += 1;
        if qos == Qos::ExactlyOnce {
            self.unlink(key, None);
            return self.give_up_undecided(key);
        }
        if self.rota.timed_out(id.member) {
            self.rest(id.member, now);
        }
        self.unlink(key, None);
        self.fail(key, None, now);
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
    /// limits; to be called until there is none, after anything else was.
    pub fn poll_dead(&mut self) -> Option<DeadLetter> {
        self.dead.pop_front()
    }

    /// Whether [`Queue::poll_dead`] or [`Queue::poll_finished`] has something.
    pub fn has_ended(&self) -> bool {
        !self.dead.is_empty() || !self.finished.is_empty()
    }

    /// The next job that ended and whose producer wants to know it; to be
    /// called as [`Queue::poll_dead`].
    pub fn poll_finished(&mut self) -> Option<Finished> {
        self.finished.pop_front()
    }

    /// What happened since the queue was made.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    pub fn counts(&self) -> Counts {
        let keeping = self.keeping.as_ref();
        let unread = keeping.map_or(0, |keeping| {
            keeping.unread() + keeping.due.len() + keeping.parked.len()
        });
        let away = keeping.map_or(0, |keeping| keeping.away.len());
        let in_memory = self.jobs.len() - self.leased - self.settling - self.delayed;
        let (members, members_connected) = self.rota.len();
        let oldest = self.ready.oldest(&self.jobs, self.fair_groups());
        let fleeting = self.fleeting.first(&self.jobs).map(|(_, key)| key);
        let oldest = oldest.into_iter().chain(fleeting);
        let oldest = oldest.min_by_key(|&key| self.jobs[key as usize].sequence);
        Counts {
            ready: in_memory + unread,
            in_flight: self.leased + self.settling,
            delayed: self.delayed + away,
            bytes: self.bytes,
            members,
            members_connected,
            oldest: oldest.map(|key| self.jobs[key as usize].message.received()),
            totals: self.totals,
        }
    }

    /// Whether it has no jobs, no reservations, no members and nobody who
    /// still holds something.
    pub fn is_idle(&self) -> bool {
        self.messages == 0 && self.rota.members.is_empty() && self.dead.is_empty()
    }

    /// How often the job of a lease was delivered, if the lease is current.
    pub fn deliveries(&self, id: LeaseId) -> Option<u32> {
        self.is_current(id)
            .then(|| self.jobs[id.job as usize].deliveries)
    }

    fn is_current(&self, id: LeaseId) -> bool {
        self.jobs.get(id.job as usize).is_some_and(|job| {
            let is_leased = matches!(&job.state, State::Leased(held) if held.settling.is_none());
            job.lease == id.number && is_leased
        })
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
    fn take_back(&mut self, key: u32, session_ended: bool, gone: Gone, now: Time) {
        let counts = gone == Gone::Lost && self.settings.rules == Rules::Work;
        let mut next = self.rota.get(key).leases.first();
        while let Some(job_key) = next {
            let job = &self.jobs[job_key as usize];
            next = job.links.next();
            let held = job.held();
            let after = match (held.qos, session_ended) {
                // [MQTT-4.8.2-4], and so in a queue.
                (Qos::ExactlyOnce, false) => After::Stay,
                (Qos::ExactlyOnce, true) => After::Undecided,
                _ if counts => After::Fail,
                _ => After::Return,
            };
            match held.settling {
                Some(_) => self.jobs[job_key as usize].held_mut().settling = Some(after),
                None => self.go_on(job_key, after, now),
            }
        }
    }

    /// What becomes of a job in a member's hands whose connection is gone.
    fn go_on(&mut self, key: u32, after: After, now: Time) {
        if after == After::Stay {
            return;
        }
        self.unlink(key, None);
        self.trace(key, What::Lost);
        match after {
            After::Stay => {}
            After::Return => self.make_ready(key),
            After::Fail => self.fail_by_loss(key, now),
            After::Undecided => self.give_up_undecided(key),
        }
    }

    /// Takes a leased job from its member, `settled` by it or not. The job
    /// then needs another place.
    fn unlink(&mut self, key: u32, settled: Option<Time>) -> Held {
        let job = &self.jobs[key as usize];
        let (held, member_key, is_alone) = (*job.held(), job.member, job.is_alone());
        if let Some(keeping) = &mut self.keeping {
            keeping.read_bytes += job.cost_bytes as usize;
        }
        self.leased -= 1;
        let later = job.links.next();
        let member = self.rota.get_mut(member_key);
        member.leases.remove(&mut self.jobs, key);
        if is_alone {
            member.has_alone = false;
        }
        self.rota.count_held(member_key, held.qos, false);
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
            if let Some(rest) = member.rests_until {
                self.timers.remove(&(rest, Timer::Rest(key)));
            }
        }
    }

    // ---- places

    /// Groups in their rounds, under `fair`.
    fn fair_groups(&self) -> Option<&Groups> {
        self.groups.as_deref().filter(|_| self.settings.fair)
    }

    /// Puts a job that is in no place into its place in the order.
    fn make_ready(&mut self, key: u32) {
        if self.jobs[key as usize].stored.is_held {
            self.amend(key, Fate::Open);
        }
        self.wait(key, false);
    }

    /// What is stored of the job says so.
    fn amend(&mut self, key: u32, fate: Fate) {
        let job = &mut self.jobs[key as usize];
        job.stored.is_held = false;
        if let Some(keeping) = self.keeping.as_mut().filter(|_| job.stored.is_stored) {
            let said = match job.flags.is_said {
                true => self.said.get(&key).map_or("", |said| said),
                false => "",
            };
            let record = JobRecord {
                deliveries: job.deliveries,
                failures: job.failures,
                losses: job.losses,
                fate,
                said,
            };
            keeping.amend((job.source, job.sequence), &record);
        }
    }

    /// A job that is in no place waits for its turn: ready, or behind another
    /// one of its group. `fresh`: it is younger than all others, and nothing
    /// takes it out before its turn.
    fn wait(&mut self, key: u32, fresh: bool) {
        let job = &mut self.jobs[key as usize];
        if self.settings.rules == Rules::Share && job.message.qos() == Qos::AtMostOnce {
            job.state = State::Ready;
            match fresh {
                true => self.fleeting.push(key),
                false => self.fleeting.place(job.sequence, key),
            }
            return self.watch(key);
        }
        let fair = self.settings.fair;
        if job.group != Job::NO_GROUP
            && !fair
            && !job.flags.is_out
            && let Some(groups) = &mut self.groups
        {
            let keeping = self.keeping.as_ref().filter(|_| job.stored.is_stored);
            if keeping.is_some_and(|keeping| keeping.has_older_grouped(job.sequence)) {
                return self.park(key);
            }
            let group = groups.get_mut(job.group);
            if group.out.is_some() {
                job.state = State::Behind;
                match fresh {
                    true => group.lane.push(key),
                    false => group.lane.place(job.sequence, key),
                }
                groups.behind += 1;
                self.watch(key);
                return self.keep_newest(key);
            }
            group.out = Some(key);
            job.flags.is_out = true;
        }
        job.state = State::Ready;
        let groups = self.groups.as_deref_mut().filter(|_| fair);
        self.ready.put(&self.jobs, key, fresh, groups);
        self.watch(key);
        self.keep_newest(key);
    }

    /// A job of a group that came due waits for older ones that may be of its
    /// group, and that are not read yet. It is not in memory meanwhile.
    fn park(&mut self, key: u32) {
        self.unwatch(key);
        let job = self.jobs.remove(key as usize);
        self.said.remove(&key);
        if let Some(groups) = &mut self.groups {
            groups.leave(job.group);
        }
        if let Some(keeping) = &mut self.keeping {
            keeping.read_bytes -= job.cost_bytes as usize;
            keeping
                .parked
                .insert((job.sequence, job.priority, job.source));
        }
    }

    /// Of two jobs with one key, only the younger waits.
    fn keep_newest(&mut self, key: u32) {
        if !self.jobs[key as usize].flags.has_key {
            return;
        }
        let Some(keys) = &mut self.keys else {
            return;
        };
        let rival = keys.rival(key);
        let sequence = |key: u32| self.jobs[key as usize].sequence;
        let older = match rival {
            Some(rival) if sequence(rival) > sequence(key) => Some(key),
            rival => {
                keys.wait(key);
                rival
            }
        };
        if let Some(older) = older {
            self.take_out_waiting(older);
            self.totals.replaced += 1;
            self.end(older, Outcome::Replaced);
        }
    }

    /// The job, which is in no place, is the one of its group that is out, if it
    /// `holds` it: one that is only ready goes behind it again.
    fn hold_group(&mut self, key: u32, holds: bool) {
        let group = self.jobs[key as usize].group;
        if !holds || group == Job::NO_GROUP || self.settings.fair {
            return;
        }
        let Some(groups) = &mut self.groups else {
            return;
        };
        let before = groups.get_mut(group).out.replace(key);
        self.jobs[key as usize].flags.is_out = true;
        if let Some(other) = before.filter(|other| *other != key) {
            match self.jobs[other as usize].state {
                State::Ready => {
                    self.take_ready(other);
                    self.jobs[other as usize].flags.is_out = false;
                    self.wait(other, false);
                }
                // Both are with members since before a start, or rest.
                _ => {
                    self.jobs[key as usize].flags.is_out = false;
                    if let Some(groups) = &mut self.groups {
                        groups.get_mut(group).out = Some(other);
                    }
                }
            }
        }
    }

    /// The next one of a group steps out, after the one before is no more.
    fn step_out(&mut self, group: u32) {
        let Some(groups) = &mut self.groups else {
            return;
        };
        let of = groups.get_mut(group);
        of.out = None;
        if let Some((sequence, next)) = of.lane.first(&self.jobs) {
            of.lane.take_out(&self.jobs, sequence);
            of.out = Some(next);
            groups.behind -= 1;
            let job = &mut self.jobs[next as usize];
            job.flags.is_out = true;
            job.state = State::Ready;
            self.ready.put(&self.jobs, next, false, None);
        }
    }

    /// Takes a job out of its place that no member has.
    fn take_out_waiting(&mut self, key: u32) {
        self.take_out(key);
        self.unwatch(key);
        if let Some(keys) = &mut self.keys {
            keys.stop_waiting(key);
        }
    }

    fn take_out(&mut self, key: u32) {
        let job = &self.jobs[key as usize];
        match job.state {
            State::Ready => self.take_ready(key),
            State::Behind => {
                if let Some(groups) = &mut self.groups {
                    let lane = &mut groups.get_mut(job.group).lane;
                    lane.take_out(&self.jobs, job.sequence);
                    groups.behind -= 1;
                }
            }
            State::Delayed { due } => {
                self.delayed -= 1;
                self.timers.remove(&(due, Timer::Delay(job.sequence, key)));
            }
            State::Leased(_) | State::Settling { .. } => unreachable!("no member has it"),
        }
    }

    fn take_ready(&mut self, key: u32) {
        let job = &self.jobs[key as usize];
        if self.settings.rules == Rules::Share && job.message.qos() == Qos::AtMostOnce {
            return self.fleeting.take_out(&self.jobs, job.sequence);
        }
        let fair = self.settings.fair;
        let groups = self.groups.as_deref_mut().filter(|_| fair);
        self.ready.take_out(&self.jobs, key, groups);
    }

    /// Jobs in memory that no member has.
    fn waiting_in_memory(&self) -> Vec<u32> {
        let jobs = self.jobs.iter();
        let waiting =
            jobs.filter(|(_, job)| !matches!(job.state, State::Leased(_) | State::Settling { .. }));
        waiting.map(|(key, _)| key as u32).collect()
    }

    /// The last moment at which it may be given to a member.
    fn expires_of(&self, key: u32) -> Time {
        let message = &self.jobs[key as usize].message;
        match self.settings.ttl {
            None => message.expires(),
            Some(ttl) => message.expires().min(message.received() + ttl),
        }
    }

    /// No member has the job: it goes at its time, if it expires.
    fn watch(&mut self, key: u32) {
        let expires = self.expires_of(key);
        if expires < Time::MAX {
            self.expiring.insert((expires, key));
        }
    }

    /// A member has the job, however long it takes.
    fn unwatch(&mut self, key: u32) {
        if !self.expiring.is_empty() {
            let expires = self.expires_of(key);
            self.expiring.remove(&(expires, key));
        }
    }

    /// Drops what no member has and no member may get any more
    /// [MQTT-3.3.2-5].
    fn drop_expired(&mut self, now: Time) {
        while let Some(&(expires, key)) = self.expiring.first()
            && now > expires
        {
            self.take_out_waiting(key);
            if self.settings.dead_letter_expired && self.settings.rules == Rules::Work {
                self.bury(key, DeadReason::Expired);
            } else {
                self.totals.expired += 1;
                self.end(key, Outcome::Expired);
            }
        }
    }

    /// Whether the job's last lease, if it had one, was this member's.
    fn had_last(&self, member: u32, key: u32) -> bool {
        let job = &self.jobs[key as usize];
        job.member == member && self.rota.get(member).first_lease <= job.lease
    }

    /// The member that had the job's last lease, if it is still one.
    fn last_of(&self, key: u32) -> Option<u32> {
        let member = self.jobs[key as usize].member;
        let is_one = self.rota.members.contains(member as usize);
        (is_one && self.had_last(member, key)).then_some(member)
    }

    fn pop_ready(&mut self) -> Option<u32> {
        let ready = self.ready.first(&self.jobs, self.fair_groups());
        let fleeting = self.fleeting.first(&self.jobs).map(|(_, key)| key);
        let both = ready.into_iter().chain(fleeting);
        let key = both.min_by_key(|&key| self.jobs[key as usize].sequence)?;
        self.take_ready(key);
        if self.settings.fair
            && let Some(groups) = &mut self.groups
        {
            let job = &self.jobs[key as usize];
            self.ready.rotate(job.priority, job.group, groups);
        }
        if let Some(keys) = &mut self.keys {
            keys.stop_waiting(key);
        }
        Some(key)
    }

    /// Nobody has room for what was published at QoS 0.
    fn drop_fleeting(&mut self) {
        while let Some((_, key)) = self.fleeting.first(&self.jobs) {
            self.take_out_waiting(key);
            self.totals.dropped += 1;
            self.end(key, Outcome::Dropped);
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
            return self.end(key, Outcome::Dropped);
        }
        let total = match reason {
            DeadReason::MaxDeliveries => &mut self.totals.max_deliveries,
            DeadReason::Rejected => &mut self.totals.rejected,
            DeadReason::Expired => &mut self.totals.dead_expired,
            DeadReason::Overflow => &mut self.totals.dead_overflow,
            DeadReason::Undecided => &mut self.totals.undecided,
        };
        *total += 1;
        self.trace(key, What::Dead(reason));
        let (job, said) = self.take_job(key, Some(Outcome::Dead(reason)));
        self.dead.push_back(DeadLetter {
            message: job.message,
            reason,
            deliveries: job.deliveries,
            said,
            sequence: job.sequence,
            source: job.source,
            stored: job.stored,
        });
    }

    /// The job, which is in no place, is done with.
    fn end(&mut self, key: u32, outcome: Outcome) {
        match outcome {
            Outcome::Done => self.trace(key, What::Done),
            Outcome::Expired => self.trace(key, What::Expired),
            Outcome::Dropped => self.trace(key, What::Dropped),
            Outcome::Replaced => self.trace(key, What::Replaced),
            Outcome::Dead(_) => {}
        }
        let (job, _) = self.take_job(key, Some(outcome));
        if let Some(keeping) = &mut self.keeping {
            keeping.remove((job.source, job.sequence), job.stored, &job.message);
        }
    }

    /// The job, which is in no place, is no longer the queue's; with what was
    /// said of it last. `outcome`: if it ends by that.
    fn take_job(&mut self, key: u32, outcome: Option<Outcome>) -> (Job, Box<str>) {
        self.unwatch(key);
        let job = self.jobs.remove(key as usize);
        let said = match job.flags.is_said {
            true => self.said.remove(&key).unwrap_or_default(),
            false => Box::default(),
        };
        if let Some(keys) = self.keys.as_mut().filter(|_| job.flags.has_key) {
            keys.forget(key);
        }
        if let Some(keeping) = &mut self.keeping {
            keeping.read_bytes -= job.cost_bytes as usize;
        }
        self.cancel_reservation(job.cost_bytes as usize);
        if job.group != Job::NO_GROUP {
            if job.flags.is_out {
                self.step_out(job.group);
            }
            if let Some(groups) = &mut self.groups {
                groups.leave(job.group);
            }
        }
        if job.flags.receipt
            && let Some(outcome) = outcome
        {
            self.finished.push_back(Finished {
                message: job.message.clone(),
                outcome,
                deliveries: job.deliveries,
                said: said.clone(),
            });
        }
        if self.jobs.is_empty() && self.jobs.capacity() > Queue::JOBS_KEPT {
            self.jobs = Slab::new();
            self.ready.shrink();
            self.fleeting.shrink();
            if let Some(groups) = &mut self.groups {
                groups.shrink();
            }
        }
        (job, said)
    }
}

/// Where it is stored that a list is not to take an id a second time.
pub(crate) fn dedup_key(list: ListId, id: &str) -> Vec<u8> {
    let mut key = vec![tag::DEDUP];
    key.extend_from_slice(&list.0.to_be_bytes());
    key.extend_from_slice(id.as_bytes());
    key
}

/// Which message had the id, and until when.
pub(crate) fn encode_remembered(message: MessageId, until: Time) -> [u8; 16] {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&message.0.to_le_bytes());
    value[8..].copy_from_slice(&until.as_micros().to_le_bytes());
    value
}

/// How much a member may hold that has no prefetch of its own.
fn prefetch(settings: &Settings) -> Option<u32> {
    match settings.rules {
        Rules::Work => Some(settings.prefetch),
        Rules::Share => None,
    }
}
