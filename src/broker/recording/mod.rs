//! Recordings: the packets that a client exchanged with the broker, or that
//! were about a topic, for a time and within bounds, for who looks for a fault.
//!
//! Owns the recordings, those that go on and those that are over, and how large
//! each may become. What there is to record is told by the connections
//! (`observed`), which first ask [`Recordings::is_on`]: as long as nobody
//! records, that is one load for each read and each write. What is kept of a
//! packet is in `kept`: never a password. The lock is a leaf: nothing else is
//! locked while it is held, and it is taken only where something is recorded.

mod kept;
mod observed;
mod shown;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use self::kept::Record;
pub(super) use self::observed::SentAliases;
pub(crate) use self::shown::listed;
pub use self::shown::{ConnectWillView, FilterView, PacketView, PropertyView};
use super::Core;
use super::timers::Timer;
use crate::message::{PacketId, SessionId, Time};
use crate::topic::{TopicFilter, TopicLimits};

/// How long a recording may go on.
pub const LASTS_MAX: Duration = Duration::from_secs(60 * 60);
/// The most packets in one.
pub const PACKETS_MAX: usize = 100_000;
/// How many there may be, those included that are over.
pub const RECORDINGS_MAX: usize = 8;
/// How long one stays that is over.
const KEPT_FOR: Duration = Duration::from_secs(60 * 60);
/// What it takes to look out for a message's acknowledgement: a set has up to twice
/// the places that it needs, and when it grows, the old ones as well.
const AWAITED_COST_BYTES: usize = 4 * size_of::<Awaited>();

/// A PUBLISH that is not acknowledged yet: in which session, in which direction, by
/// which packet id.
type Awaited = (SessionId, Direction, PacketId);

/// Whose packets, or about what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The client with that identifier.
    Client(Box<str>),
    /// All clients of that user.
    User(Box<str>),
    /// All clients that connect from there.
    Address(IpAddr),
    /// Messages whose topics match that filter, and what acknowledges them; of
    /// a queue's too, where `$queue/` is put before the topic.
    Topic(Box<str>),
}

/// A recording that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub what: What,
    /// Up to [`LASTS_MAX`].
    pub lasts: Duration,
    /// 1 to [`PACKETS_MAX`].
    pub packets_max: usize,
    /// What it may take of memory; `None`: an equal part of what all of them may.
    pub bytes_max: Option<usize>,
    /// How much is kept of each payload; 0: nothing of any.
    pub payload_bytes_max: usize,
}

/// Why a recording does not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotStarted {
    /// There can be none like this: what is wrong with it, and what would be
    /// right.
    Invalid(String),
    /// There is no room for it now, and what would make some.
    Full(String),
}

/// Which way a packet went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the client to the broker.
    #[default]
    In,
    /// From the broker to the client.
    Out,
}

impl Direction {
    fn other(self) -> Direction {
        match self {
            Direction::In => Direction::Out,
            Direction::Out => Direction::In,
        }
    }
}

/// How far a recording is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Recording,
    /// Nothing more gets in; what comes is counted until its time is over.
    Full,
    Ended,
}

/// What brought a recording to its end, or filled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Its time was over.
    Time,
    /// It had `packets_max` packets.
    Packets,
    /// It had no room for another packet in `bytes_max`.
    Bytes,
    /// Somebody stopped it.
    Stopped,
}

/// A recording, without its packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RecordingView {
    pub id: u64,
    /// One of these four: what is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    pub state: State,
    /// Why it is full, or has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
    pub started_at_ms: u64,
    /// When it ends at the latest, or has ended.
    pub ends_at_ms: u64,
    pub packets: usize,
    pub packets_max: usize,
    /// What it takes of memory.
    pub bytes: usize,
    pub bytes_max: usize,
    /// Packets that would have been recorded, had there been room.
    pub missed: u64,
    pub payload_bytes_max: usize,
}

/// All recordings of a broker.
pub struct Recordings {
    // Whether any of them goes on.
    on: AtomicBool,
    // The number of the last one that began.
    last_id: AtomicU64,
    // What all of them may take; 0: there are none.
    bytes_max: AtomicUsize,
    all: Mutex<Vec<Recording>>,
}

struct Recording {
    id: u64,
    request: Request,
    bytes_max: usize,
    started: Time,
    /// When it ends, unless that is brought forward.
    until: Time,
    ended: Option<(Time, Why)>,
    full: Option<Why>,
    packets: Vec<Arc<Record>>,
    bytes: usize,
    missed: u64,
    /// Those that were recorded; each costs, for good, for the set does not shrink.
    awaited: FxHashSet<Awaited>,
    awaited_most: usize,
}

impl Recordings {
    /// `bytes_max`: what all of them may take; 0: there are none.
    pub fn new(bytes_max: usize) -> Recordings {
        Recordings {
            on: AtomicBool::new(false),
            last_id: AtomicU64::new(0),
            bytes_max: AtomicUsize::new(bytes_max),
            all: Mutex::default(),
        }
    }

    /// What all of them may take from now on; 0: none begins. Those that go on keep
    /// what was reserved for them.
    pub(super) fn set_bytes_max(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// Whether anything is recorded. Who begins to look a moment late misses
    /// what was under way when the recording began.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Those that there are, the oldest first.
    pub fn list(&self, now: Time) -> Vec<RecordingView> {
        let all = self.all.lock();
        all.iter().map(|recording| recording.view(now)).collect()
    }

    pub fn get(&self, id: u64, now: Time) -> Option<RecordingView> {
        let all = self.all.lock();
        let found = all.iter().find(|recording| recording.id == id)?;
        Some(found.view(now))
    }

    /// Packets of a recording, numbered from 1 as they were recorded: those
    /// after that number, so many at most. `None`: there is no such recording.
    pub fn packets(&self, id: u64, after: u64, limit: usize) -> Option<Vec<PacketView>> {
        let skipped = usize::try_from(after).unwrap_or(usize::MAX);
        // They are put into words when the lock is given up.
        let records: Vec<Arc<Record>> = {
            let all = self.all.lock();
            let found = all.iter().find(|recording| recording.id == id)?;
            let rest = found.packets.iter().skip(skipped);
            rest.take(limit).cloned().collect()
        };
        let numbered = (after.saturating_add(1)..).zip(records);
        let views = numbered.map(|(number, record)| record.view(number));
        Some(views.collect())
    }

    /// Ends one; as it is then. `None`: there is no such recording.
    pub fn stop(&self, id: u64, now: Time) -> Option<RecordingView> {
        let mut all = self.all.lock();
        let found = all.iter_mut().find(|recording| recording.id == id)?;
        if found.is_running(now) {
            found.ended = Some((now, Why::Stopped));
            found.forget_awaited();
        }
        let view = found.view(now);
        self.note_whether_on(&all, now);
        Some(view)
    }

    /// Forgets one, with its packets; false: there is no such recording.
    pub fn forget(&self, id: u64, now: Time) -> bool {
        let mut all = self.all.lock();
        let before = all.len();
        all.retain(|recording| recording.id != id);
        self.note_whether_on(&all, now);
        all.len() < before
    }

    fn note_whether_on(&self, all: &[Recording], now: Time) {
        let any = all.iter().any(|recording| recording.is_running(now));
        self.on.store(any, Ordering::Relaxed);
    }

    fn start(&self, request: Request, now: Time) -> Result<RecordingView, NotStarted> {
        let all_bytes_max = self.bytes_max.load(Ordering::Relaxed);
        let bytes_max = check(&request, all_bytes_max)?;
        let mut all = self.all.lock();
        make_room(&mut all, all_bytes_max, bytes_max, now)?;
        let recording = Recording {
            id: self.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            bytes_max,
            started: now,
            until: now + request.lasts,
            request,
            ended: None,
            full: None,
            packets: Vec::new(),
            bytes: 0,
            missed: 0,
            awaited: FxHashSet::default(),
            awaited_most: 0,
        };
        let view = recording.view(now);
        all.push(recording);
        self.note_whether_on(&all, now);
        Ok(view)
    }

    /// Looks whether one is over, or has been for long; when it is to be looked
    /// at again, if it is still there.
    fn look(&self, id: u64, now: Time) -> Option<Time> {
        let mut all = self.all.lock();
        self.note_whether_on(&all, now);
        let at = all.iter().position(|recording| recording.id == id)?;
        let next = match all[at].is_running(now) {
            true => all[at].until,
            false => {
                all[at].forget_awaited();
                all[at].end().0 + KEPT_FOR
            }
        };
        if next <= now {
            all.remove(at);
            return None;
        }
        Some(next)
    }
}

/// What the recording may take, of what all of them may.
fn check(request: &Request, all_bytes_max: usize) -> Result<usize, NotStarted> {
    let invalid = |why: String| Err(NotStarted::Invalid(why));
    if all_bytes_max == 0 {
        return invalid("limits.traces_bytes_max is 0: there are no traces".to_owned());
    }
    match &request.what {
        What::Client(name) | What::User(name) if name.is_empty() => {
            return invalid("the name of a client or a user is not empty".to_owned());
        }
        What::Topic(filter) => {
            if let Err(error) = TopicFilter::parse(filter, TopicLimits::NONE) {
                return invalid(format!("{filter:?} is no topic filter: {error}"));
            }
        }
        What::Client(_) | What::User(_) | What::Address(_) => {}
    }
    let secs_max = LASTS_MAX.as_secs();
    if request.lasts.is_zero() || request.lasts > LASTS_MAX {
        return invalid(format!("it lasts 1 to {secs_max} seconds"));
    }
    if request.packets_max == 0 || request.packets_max > PACKETS_MAX {
        return invalid(format!("it has 1 to {PACKETS_MAX} packets at most"));
    }
    let bytes_max = request.bytes_max.unwrap_or(all_bytes_max / RECORDINGS_MAX);
    if bytes_max == 0 || bytes_max > all_bytes_max {
        return invalid(format!(
            "it takes 1 to {} bytes, as limits.traces_bytes_max says",
            all_bytes_max
        ));
    }
    Ok(bytes_max)
}

/// Forgets of those that are over, the oldest first, as many as are in the
/// way of another one of that size.
fn make_room(
    all: &mut Vec<Recording>,
    all_bytes_max: usize,
    bytes_max: usize,
    now: Time,
) -> Result<(), NotStarted> {
    let running = all.iter().filter(|recording| recording.is_running(now));
    if running.clone().count() == RECORDINGS_MAX {
        let why = format!("there are {RECORDINGS_MAX} traces that go on; stop one first");
        return Err(NotStarted::Full(why));
    }
    let reserved: usize = running.map(|recording| recording.bytes_max).sum();
    let left = all_bytes_max.saturating_sub(reserved);
    if bytes_max > left {
        let why = format!(
            "those that go on leave {left} bytes of limits.traces_bytes_max; stop one, or \
             ask for a smaller one"
        );
        return Err(NotStarted::Full(why));
    }
    let is_over = |recording: &Recording| !recording.is_running(now);
    let taken = |all: &[Recording]| -> usize {
        let over = all.iter().filter(|recording| is_over(recording));
        over.map(|recording| recording.bytes).sum()
    };
    while (all.len() == RECORDINGS_MAX || taken(all) + bytes_max > left)
        && let Some(oldest) = all.iter().position(is_over)
    {
        all.remove(oldest);
    }
    Ok(())
}

impl Recording {
    fn is_running(&self, now: Time) -> bool {
        self.ended.is_none() && now < self.until
    }

    /// When it ends at the latest, or has ended; and why.
    fn end(&self) -> (Time, Why) {
        self.ended.unwrap_or((self.until, Why::Time))
    }

    /// It is over: nothing more is looked out for.
    fn forget_awaited(&mut self) {
        self.awaited = FxHashSet::default();
        self.bytes -= self.awaited_most * AWAITED_COST_BYTES;
        self.awaited_most = 0;
    }

    fn push(&mut self, record: Record) {
        if self.full.is_some() {
            self.missed += 1;
            return;
        }
        let cost = record.cost_bytes();
        if self.bytes + cost > self.bytes_max {
            self.full = Some(Why::Bytes);
            self.missed += 1;
            return;
        }
        self.bytes += cost;
        self.packets.push(Arc::new(record));
        if self.packets.len() == self.request.packets_max {
            self.full = Some(Why::Packets);
        }
    }

    fn view(&self, now: Time) -> RecordingView {
        let (end, ended_by) = self.end();
        let (state, why) = match (self.is_running(now), self.full) {
            (true, None) => (State::Recording, None),
            (true, full) => (State::Full, full),
            (false, full) => (State::Ended, full.or(Some(ended_by))),
        };
        let text = |wanted: &str| Some(wanted.to_owned());
        let mut view = RecordingView {
            id: self.id,
            client: None,
            user: None,
            address: None,
            topic: None,
            state,
            why,
            started_at_ms: self.started.as_micros() / 1000,
            ends_at_ms: end.as_micros() / 1000,
            packets: self.packets.len(),
            packets_max: self.request.packets_max,
            bytes: self.bytes,
            bytes_max: self.bytes_max,
            missed: self.missed,
            payload_bytes_max: self.request.payload_bytes_max,
        };
        match &self.request.what {
            What::Client(id) => view.client = text(id),
            What::User(name) => view.user = text(name),
            What::Address(ip) => view.address = Some(ip.to_string()),
            What::Topic(filter) => view.topic = text(filter),
        }
        view
    }
}

impl Core {
    /// The recordings: who asks for packets, or whether any are wanted.
    #[inline]
    pub fn recordings(&self) -> &Recordings {
        &self.recordings
    }

    /// Begins a recording. One that is over makes room for it where there is
    /// none.
    ///
    /// # Errors
    /// It is not one, or there is no room for it.
    pub fn start_recording(
        &self,
        request: Request,
        now: Time,
    ) -> Result<RecordingView, NotStarted> {
        let lasts = request.lasts;
        let view = self.recordings.start(request, now)?;
        self.timers.schedule(now + lasts, Timer::Recording(view.id));
        Ok(view)
    }

    /// Is a recording over, or to be forgotten?
    pub(super) fn look_at_recording(&self, id: u64, now: Time) {
        if let Some(next) = self.recordings.look(id, now) {
            self.timers.schedule(next, Timer::Recording(id));
        }
    }
}
