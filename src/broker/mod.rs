//! Joins the pure parts: connect, publish, subscribe, settle, expire.
//!
//! Owns who is there (the client ids), the queues' names, and the order in
//! which locks are taken: router, queue, session; never two of a kind at once.
//! What locks for itself alone and calls nobody (the topic tree, the retained
//! messages, the timers) may be asked whatever else is locked.
//! No clock: a moment is an argument; and no I/O but that of the store, which
//! is handed what has to be stored under the lock of what has changed, and is
//! asked for what is not in memory. A PUBLISH comes from the
//! connection that read it (`link`), is routed (`publish`), goes through queues
//! (`lists`) or straight into its receivers' sessions, and leaves when their
//! connections exchange ([`Core::exchange`]).

mod authenticate;
mod census;
mod closing;
mod connect;
mod counters;
mod door;
mod link;
mod lists;
pub mod look;
mod memory;
mod publish;
mod receipts;
pub(crate) mod record;
pub mod recording;
mod restore;
mod results;
mod rights;
mod settings;
mod spelled;
pub mod steer;
mod subscribe;
mod sys;
mod timeout;
mod timers;
pub(crate) mod transfer;
mod wishes;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};

pub use authenticate::{Admission, Authentication, method_of};
pub use census::{Census, ListNumbers, SessionNumbers};
pub use closing::Closing;
pub use counters::{Counters, Counts, drop_reason};
pub use door::Door;
pub use link::{Link, Stop};
pub use memory::{Memory, Resident, Shedding};
pub use timers::Timers;

use crate::access::{Access, OwnRights};
use crate::authentication::{Flapping, Method};
use crate::config::{Config, Limits, SessionSettings};
use crate::journal::Receipt;
use crate::message::{ClientId, Identity, LeaseId, MessageId, PacketId, QueueId, SessionId, Time};
use crate::protocol::{Packet, PropertiesBuf};
use crate::router::{MatchCache, RetainedStore, Router};
use crate::session::{Effects, Exchange, Outbox, Session, Will};
use crate::slots::{Locked, Slots};
use crate::store::Store;
use crate::tally::{Sums, Tallies};
use crate::versions::Versions;
pub use lists::Depth;
use lists::{CurrentPlans, List, Plans};
use recording::Recordings;

/// With `$queue/` before it, a topic still fits a packet [MQTT-4.7.3-3].
const TOPIC_BYTES_MAX: usize = 65_535 - "$queue/".len();

/// Message ids that a worker takes at a time.
const MESSAGE_IDS_BLOCK: u64 = 1024;
/// More of a read's packets than this do not wait for its end.
const GATHERED_MAX: usize = 64;

/// The broker, without sockets or clock.
pub struct Core {
    store: Store,
    settings: Versions<settings::Settings>,
    plans: CurrentPlans,
    access: Access,
    // By which clients may authenticate (MQTT 5, 4.12).
    methods: RwLock<Vec<Arc<dyn Method>>>,
    // Who publishes what the broker itself has to say.
    identity: Arc<Identity>,
    sessions: Slots<Session>,
    sessions_len: AtomicUsize,
    clients: DashMap<ClientId, SessionId, ahash::RandomState>,
    // How often they connect.
    flapping: Flapping,
    // How many connections each user has.
    user_connections: DashMap<Arc<str>, u32, ahash::RandomState>,
    memory: Memory,
    // When the end of the last stored session is stored.
    last_end: Mutex<Receipt>,
    lists: Slots<List>,
    // Of the lists, those that are queues.
    queues_len: AtomicUsize,
    // `$queue/NAME` and `$share/GROUP/FILTER`, to the list behind it.
    names: DashMap<Arc<str>, QueueId, ahash::RandomState>,
    // What is moved from queue to queue at a rate.
    movings: steer::Movings,
    sys_round: sys::SysRound,
    sys_tree: sys::SysTree,
    // Held while a list is made or removed; taken before any other lock.
    list_changes: Mutex<()>,
    router: Router,
    retained: RetainedStore,
    // When the timer that is set for them is due.
    retained_alarm: Mutex<Time>,
    timers: Timers,
    counters: Counters,
    tallies: Tallies,
    recordings: Recordings,
    random_key: ahash::RandomState,
    random_count: AtomicU64,
    // The first message id of the next block.
    message_ids: AtomicU64,
}

/// A will that is to be published, and whose it was.
struct LastWill {
    will: Box<Will>,
    identity: Arc<Identity>,
    own_rights: Option<OwnRights>,
}

/// What belongs to one worker thread, and is passed along with each call.
pub struct Worker {
    pub effects: Effects,
    // Properties that are passed on, while some are left out.
    properties: Vec<u8>,
    // A topic with the mount point before it.
    mounted: String,
    /// Answers to what is being read, in order.
    pub answers: Vec<u8>,
    cache: MatchCache,
    overflowed: Vec<SessionId>,
    // Wills to publish, and whether somebody further up is about to.
    wills: VecDeque<LastWill>,
    publishing_wills: bool,
    publishing_receipts: bool,
    // What is left of its block of message ids.
    message_ids: std::ops::Range<u64>,
    // Of the answers, those from these places on wait for the store.
    gates: Vec<(usize, Receipt)>,
    // Deliveries that the read's PUBACKs are for, not settled yet: who loses its
    // session meanwhile may see one of them again.
    done: Vec<(QueueId, LeaseId)>,
    // What an acknowledgement tells, while it is put together.
    told: PropertiesBuf,
    // While it is locked, what is stored is stored together; who locks it takes
    // it meanwhile.
    pin: Option<Arc<Mutex<()>>>,
}

impl Worker {
    pub fn new(core: &Core) -> Worker {
        Worker {
            effects: Effects::counting(core.tallies.begin()),
            properties: Vec::new(),
            mounted: String::new(),
            answers: Vec::new(),
            gates: Vec::new(),
            done: Vec::new(),
            told: PropertiesBuf::new(),
            pin: core.store.pin(),
            cache: MatchCache::new(core.limits().match_cache_bytes_max),
            overflowed: Vec::new(),
            wills: VecDeque::new(),
            publishing_wills: false,
            publishing_receipts: false,
            message_ids: 0..0,
        }
    }

    /// There is nobody any more who would read the answers.
    pub fn drop_answers(&mut self) {
        self.answers.clear();
        self.gates.clear();
    }

    /// What lists are still to do for the packets of the read.
    fn gathered_len(&self) -> usize {
        self.done.len() + self.effects.fed.len()
    }

    /// Whether what was gathered may wait for what this packet adds: only for
    /// more of the same.
    #[inline]
    fn may_gather(&self, packet: &Packet<'_>) -> bool {
        let others = match packet {
            // It may ask for what queues have.
            Packet::Publish(publish) if publish.topic.starts_with("$CONTROL/") => {
                self.gathered_len()
            }
            Packet::Publish(_) => self.done.len(),
            Packet::Puback(ack) if !ack.reason.is_failure() => self.effects.fed.len(),
            _ => self.gathered_len(),
        };
        others == 0 && self.gathered_len() < GATHERED_MAX
    }

    /// Answers that wait for the store.
    pub fn owed_len(&self) -> usize {
        self.gates.len()
    }

    /// The answer that begins there waits until all is stored that it speaks of.
    #[inline]
    fn gate_answer(&mut self, from: usize) {
        if self.effects.receipt != Receipt::NONE {
            self.push_gate(from);
        }
    }

    #[inline(never)]
    fn push_gate(&mut self, from: usize) {
        self.gates.push((from, self.effects.receipt));
    }
}

impl Core {
    /// `seed`: for packet ids and made-up client ids. The same seed, calls and
    /// moments give the same broker again.
    pub fn new(config: &Config, seed: u64) -> Core {
        let limits = &config.limits;
        let core = Core {
            store: Store::none(),
            settings: Versions::new(settings::Settings::new(config)),
            plans: CurrentPlans::new(Plans::new(config)),
            access: Access::new(
                config.access.subscriptions,
                config.authentication.brings_rights(),
            ),
            methods: RwLock::default(),
            identity: Arc::new(Identity {
                user: None,
                client: ClientId::new("$broker"),
            }),
            sessions: Slots::new(),
            sessions_len: AtomicUsize::new(0),
            clients: DashMap::default(),
            flapping: Flapping::new(
                &config.authentication.ban,
                ahash::RandomState::with_seeds(seed, 4, 5, 6),
            ),
            user_connections: DashMap::default(),
            memory: Memory::new(limits.memory_bytes_max.unwrap_or(0)),
            last_end: Mutex::new(Receipt::NONE),
            lists: Slots::new(),
            queues_len: AtomicUsize::new(0),
            names: DashMap::default(),
            movings: steer::Movings::default(),
            sys_round: sys::SysRound::default(),
            sys_tree: sys::SysTree::default(),
            list_changes: Mutex::new(()),
            router: Router::new(),
            retained: RetainedStore::new(limits.retained_messages_max, limits.retained_bytes_max),
            retained_alarm: Mutex::new(Time::MAX),
            timers: Timers::default(),
            counters: Counters::default(),
            tallies: Tallies::default(),
            recordings: Recordings::new(limits.traces_bytes_max),
            random_key: ahash::RandomState::with_seeds(seed, 1, 2, 3),
            random_count: AtomicU64::new(0),
            message_ids: AtomicU64::new(0),
        };
        core.create_configured_queues(&mut Effects::default(), Time::ZERO);
        core
    }

    /// It starts at this moment: message ids are counted from it, and are thus
    /// unlike those of earlier runs.
    #[must_use]
    pub fn started(mut self, now: Time) -> Core {
        // No broker takes more than 16 messages a microsecond for long.
        self.message_ids = AtomicU64::new(now.as_micros() * 16);
        self
    }

    /// Clients may authenticate by this method too.
    pub fn add_authentication_method(&self, method: Arc<dyn Method>) {
        self.methods.write().push(method);
    }

    /// Clients may authenticate by these methods, and no others, from now on:
    /// those too that are connected, and authenticate again.
    pub fn set_authentication_methods(&self, methods: Vec<Arc<dyn Method>>) {
        *self.methods.write() = methods;
    }

    /// Where it stores what outlives it.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Those that hold now.
    #[inline]
    pub fn limits(&self) -> &Limits {
        &self.settings.current().limits
    }

    /// Those that hold now.
    #[inline]
    pub fn session_settings(&self) -> &SessionSettings {
        &self.settings.current().session
    }

    /// The rules in force.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Who connects too often.
    pub fn flapping(&self) -> &Flapping {
        &self.flapping
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What all workers have counted of packets.
    pub fn tally(&self) -> Sums {
        self.tallies.sums()
    }

    pub fn timers(&self) -> &Timers {
        &self.timers
    }

    /// Sessions there are, connected or not.
    pub fn sessions_len(&self) -> usize {
        self.sessions_len.load(Ordering::Relaxed)
    }

    /// Retained messages there are, without the broker's own.
    pub fn retained_len(&self) -> usize {
        self.retained.counts().0
    }

    /// Retained messages there are, without the broker's own, and what they take
    /// in bytes.
    pub fn retained_counts(&self) -> (usize, usize) {
        self.retained.counts()
    }

    /// Queues there are, those of dead letters included.
    pub fn queues_len(&self) -> usize {
        self.queues_len.load(Ordering::Relaxed)
    }

    /// Subscriptions there are, those of queues and share groups included.
    pub fn subscriptions_len(&self) -> usize {
        self.router.counts().0
    }

    /// The connection looks after its session: answers go out, what there is
    /// to write comes into `writing` when that is empty. `waker`: the
    /// connection is about to sleep. `heard`: a packet came.
    pub fn exchange(
        &self,
        worker: &mut Worker,
        link: &mut Link,
        writing: &mut Outbox,
        waker: Option<&std::task::Waker>,
        heard: bool,
        now: Time,
    ) -> Exchange {
        self.pinned(worker, |worker| {
            worker.effects.receipt = Receipt::NONE;
            self.exchange_pinned(worker, link, writing, waker, heard, now)
        })
    }

    fn exchange_pinned(
        &self,
        worker: &mut Worker,
        link: &mut Link,
        writing: &mut Outbox,
        waker: Option<&std::task::Waker>,
        heard: bool,
        now: Time,
    ) -> Exchange {
        let Worker {
            effects,
            answers,
            gates,
            ..
        } = worker;
        let Some(mut session) = self.sessions.lock(link.session.0) else {
            answers.clear();
            gates.clear();
            return Exchange::Closing(crate::session::Close::new(
                crate::protocol::ReasonCode::SessionTakenOver,
                "the session has ended",
            ));
        };
        if session.is_link(link.number)
            && let Some(receipt) = self.read_messages(&mut session, effects, now)
            && let Some(waker) = waker
            && !self.store.wake_at(receipt, waker)
        {
            waker.wake_by_ref(); // It is stored by now.
        }
        link.is_resuming &= session.is_resuming();
        let connection = (link.number, heard, &mut link.came);
        let exchange = session.exchange(connection, (answers, gates), writing, waker, now, effects);
        self.store_session(&mut session, effects);
        for (dropped, counter) in [
            (&mut effects.expired, &self.counters.dropped_expired),
            (&mut effects.too_large, &self.counters.dropped_too_large),
            (&mut effects.denied, &self.counters.dropped_denied),
        ] {
            counter.add(std::mem::take(dropped));
        }
        link.greeted |= matches!(exchange, Exchange::Open { .. })
            && !writing.is_gated_whole(|receipt| self.store.has(receipt));
        answers.clear();
        gates.clear();
        let written = session.take_taken_jobs();
        let next = session.take_passed_over();
        drop(session);
        self.settle_written(worker, written, now);
        self.offer_room(worker, link.session, next, now);
        exchange
    }

    /// The session of a connection, unless that was taken from it or is over.
    fn session_of(&self, link: &Link) -> Option<Locked<'_, Session>> {
        let session = self.sessions.lock(link.session.0);
        session.filter(|session| session.is_link(link.number))
    }

    // ---- the store

    /// What happens in `turn` is stored together or not at all.
    #[inline]
    fn pinned<R>(&self, worker: &mut Worker, turn: impl FnOnce(&mut Worker) -> R) -> R {
        let pin = worker.pin.take();
        let pinned = pin.as_ref().map(|pin| pin.lock());
        let result = turn(worker);
        if !worker.effects.replies.is_empty() {
            self.publish_receipts(worker);
        }
        drop(pinned);
        if pin.is_some() {
            worker.pin = pin;
        }
        result
    }

    /// Hands in what a session has put into the journal, before it is let go.
    #[inline]
    fn store_session(&self, session: &mut Session, effects: &mut Effects) {
        if !effects.journal.is_empty() {
            self.store_changes(session, effects, Receipt::NONE);
        }
    }

    /// What the session says from its gate on waits for `after` too.
    #[inline(never)]
    fn store_changes(&self, session: &mut Session, effects: &mut Effects, after: Receipt) {
        let receipt = self.store.append(&mut effects.journal);
        effects.receipt = effects.receipt.and(receipt);
        session.stored(receipt.and(after));
    }

    /// A number that nobody can guess from others of its kind: the hash of a
    /// count, under a key that only the seed gives.
    fn random(&self) -> u64 {
        self.random_key
            .hash_one(self.random_count.fetch_add(1, Ordering::Relaxed))
    }

    /// Taken from the worker's own block, so that threads share nothing.
    fn next_message_id(&self, worker: &mut Worker) -> MessageId {
        let id = worker.message_ids.next().unwrap_or_else(|| {
            let first = self
                .message_ids
                .fetch_add(MESSAGE_IDS_BLOCK, Ordering::Relaxed);
            worker.message_ids = first + 1..first + MESSAGE_IDS_BLOCK;
            first
        });
        MessageId(id)
    }

    fn random_packet_id(&self) -> PacketId {
        PacketId::new(self.random() as u16).unwrap_or(PacketId::MIN)
    }
}
