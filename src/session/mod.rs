//! One client's conversation: what it is owed, and what it owes.
//!
//! Owns a session's state (MQTT 3.1.1, 4.1): what is in flight both ways, what
//! waits, the outbox, and what of it is stored (`stored`). Pure: a packet, a
//! delivery or a moment goes in, effects come out. Knows neither sockets nor who
//! else is there: a PUBLISH comes from `broker`, and leaves through the outbox to
//! the connection that writes it.

mod account;
mod aliases;
mod backlog;
mod outbox;
mod publication;
mod stored;
mod terms;
mod window;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use rustc_hash::FxHashMap;

pub use account::{Account, Came, Dropped};
pub use aliases::{Given, Named, Received as ReceivedAliases};
pub use backlog::{Backlog, Pending};
pub use outbox::{Mark, Outbox};
pub use publication::{Form, Frames, Own, Publication};
pub use stored::{Keeping, StoredMessage, StoredRow};
pub(crate) use stored::{about, packet_key};
pub use terms::{Accepted, Terms, Wire, refusal, version};
pub use window::{Hold, Received, Releasing, Sent, SentJob, Window};

use crate::access::{Client, OwnRights};
use crate::config::{Durability, Limits, SessionFull, SessionSettings};
use crate::journal::{Change, Journal, ListId, Receipt};
use crate::message::{Identity, LeaseId, Message, PacketId, Qos, QueueId, SubscriptionId, Time};
use crate::mount::{Mount, leave_queue};
use crate::protocol::{Ack, Packet, Property, ReasonCode, encode};
use crate::slots::Slotted;
use crate::tally::Tally;

/// The client reads its QoS 1 and 2 messages when it can: so many bytes wait
/// encoded, the rest as messages that others may share.
const OUTBOX_READY_BYTES_MAX: usize = 256 << 10;

/// What a new alias adds to a packet: itself, and to each of two lengths.
const NEW_ALIAS_BYTES: usize = 5;

/// A subscription identifier as a property: its own, and up to four bytes.
const IDENTIFIER_BYTES_MAX: usize = 5;

/// Messages of a stored session that wait in memory; the others wait on disk.
const WAITING_MAX: usize = 256;
const WAITING_BYTES_MAX: usize = 256 << 10;
/// With fewer, more are read.
const WAITING_LOW: usize = 64;

/// A full session is looked through for what has expired no more often.
const EXPIRED_EVERY: Duration = Duration::from_millis(100);

/// Buffers kept for the next that needs one, in each worker.
const SPARE_BUFFERS_MAX: usize = 256;
/// A buffer that grew beyond is not kept.
const SPARE_BUFFER_BYTES_MAX: usize = 64 << 10;

/// Who knows whether a session may get what was published to a topic.
pub trait Gate: Send + Sync {
    fn may_read(&self, topic: &[u8]) -> bool;
}

/// The session.
pub struct Session {
    pub identity: Arc<Identity>,
    /// That came with its last connection.
    pub own_rights: Option<OwnRights>,
    /// Is asked of everything that is to go to the client, whichever way it
    /// comes; `None`: it may have all.
    pub gate: Option<Arc<dyn Gate>>,
    /// Below which its topics are, for as long as it is there; `None`: it sees
    /// all.
    pub mount: Option<Arc<Mount>>,
    pub terms: Terms,
    pub window: Window,
    /// By what they are found with again.
    pub subscriptions: FxHashMap<Subscribed, Granted>,
    // Whether any of them ever had an identifier or other options.
    has_options: bool,
    pub will: Option<Box<Will>>,
    /// When a will is published whose delay runs, if the client stays away.
    pub will_due: Time,
    /// Subscriptions whose retained messages are not all sent yet.
    pub backlog: Backlog,
    /// When the last connection ended.
    pub absent_since: Time,
    /// When the timer that looks after its absence is due.
    pub expiry_alarm: Time,
    /// When a window full of stale jobs is to end the connection;
    /// [`Time::MAX`]: it is not.
    pub stale_until: Time,
    /// Until when its connection's client is known to be who it is.
    pub valid_until: Time,
    link: Option<Link>,
    link_number: u32,
    // Why the last connection had to go, for it to say so.
    closing: Option<Box<Close>>,
    ended: bool,
    outbox: Outbox,
    // Bytes that the connection had taken and not written when it last looked.
    writing_len: usize,
    // Counts how often the outbox was taken to be written.
    filling: u32,
    waiting: VecDeque<Waiting>,
    // Where it outlives the broker.
    keeping: Option<Box<Keeping>>,
    // Its messages of earlier connections are read when that is stored.
    resuming: Option<Receipt>,
    // What was put into the outbox since then waits until it is stored.
    gate_from: Option<Mark>,
    // Bytes of those that wait in memory.
    waiting_bytes: usize,
    // Nothing that waits is to be looked for before, as having expired.
    first_expiry: Time,
    // Of the messages that are kept, waiting or in flight.
    kept_bytes: usize,
    // Ids of QoS 2 messages received and not released [MQTT-4.3.3-2].
    received: FxHashMap<PacketId, Arrived>,
    // As a member of queues; most clients are none.
    member: Option<Box<Member>>,
    // PUBLISHes in the outbox, not accounted for yet.
    publishes: u32,
    // For people; `None`: it had no connection yet, and lost nothing.
    account: Option<Box<Account>>,
}

// An allocator has a size for it; the next one is 640.
const _: () = assert!(size_of::<Session>() <= 512);

/// A QoS 2 message that came and is not released.
#[derive(Clone, Copy)]
struct Arrived {
    /// The connection that it came on last.
    on: u32,
    /// When it came first; zero: in an earlier run.
    at: Time,
}

/// What a session remembers for its queues.
#[derive(Default)]
struct Member {
    /// Jobs in the outbox that are done as soon as they are written.
    unconfirmed: Vec<(QueueId, LeaseId)>,
    /// Those among them that the connection has taken.
    taken: Vec<(QueueId, LeaseId)>,
    /// Queues that had something and found no room.
    passed_over: VecDeque<QueueId>,
    /// Of messages that came straight from share groups. They have the limit in
    /// bytes for themselves, and leave that of the session to what is its own.
    straight_bytes: usize,
}

/// Whether the client may have it.
#[inline]
fn may_have(gate: &Option<Arc<dyn Gate>>, publication: &Publication<'_>) -> bool {
    let topic = publication.topic.as_str().as_bytes();
    gate.as_ref().is_none_or(|gate| gate.may_read(topic))
}

/// What a session subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subscribed {
    /// A filter, by its number in the topic tree.
    Filter(u32),
    /// A share group.
    Group(QueueId),
    /// A work queue.
    Queue(QueueId),
}

/// What a subscription was granted, as far as its session has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    pub qos: Qos,
    pub retain_as_published: bool,
    pub id: Option<SubscriptionId>,
    /// Of a queue or share group, where its jobs are stored.
    pub list: Option<ListId>,
}

/// A will (3.1.2.5).
#[derive(Debug)]
pub struct Will {
    pub topic: Box<str>,
    /// Those that are passed on to receivers, as they are.
    pub properties: Box<[u8]>,
    pub payload: Box<[u8]>,
    pub qos: Qos,
    pub retain: bool,
    /// How long the client may stay away before it is published (3.1.3.2.2).
    pub delay: Duration,
    /// How long it then lives; `None`: for ever.
    pub expiry: Option<Duration>,
}

/// Why a connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    pub reason: ReasonCode,
    /// For the log, and for whoever has to mend it.
    pub why: Cow<'static, str>,
}

impl Close {
    pub fn new(reason: ReasonCode, why: impl Into<Cow<'static, str>>) -> Close {
        Close {
            reason,
            why: why.into(),
        }
    }
}

/// The session's end of its connection.
struct Link {
    waker: Option<Waker>,
    // Nothing is being written: new output has to wake it.
    idle: bool,
    last_packet: Time,
    retry: bool,
    // Its queues do not know of it yet: it gets no jobs.
    joining: bool,
    // Where the client takes some.
    aliases: Option<Box<Given>>,
    // QoS 2 messages that came on it and are not released.
    receiving: u16,
}

/// A message that waits for room in the window.
struct Waiting {
    message: Arc<Message>,
    own: Own,
    qos: Qos,
    retain: bool,
    row: StoredRow,
}

impl Waiting {
    fn cost_bytes(&self) -> usize {
        self.message.cost_bytes() + self.own.cost_bytes()
    }
}

/// How a message goes to one client.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    pub qos: Qos,
    pub retain: bool,
    /// The identifiers of the subscriptions that it goes to [MQTT-3.3.4-3].
    pub ids: &'a [u32],
}

/// A job on its way to one client.
#[derive(Clone, Copy, Debug)]
pub struct JobDelivery<'a> {
    pub qos: Qos,
    pub list: Subscribed,
    pub lease: LeaseId,
    /// What a member of a work queue is told of it.
    pub about: Option<About<'a>>,
}

/// What a queue tells of a job, as user properties.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    pub queue: &'a str,
    /// Whether members see the topic with `$queue/` before it.
    pub queue_topic: bool,
    /// How often it was delivered, this time included.
    pub delivery: u32,
    /// In milliseconds since 1970 began.
    pub enqueued_at_ms: u64,
}

/// What came of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// On its way, or waiting for its turn.
    Taken,
    /// QoS 0, and the client is away.
    DroppedAbsent,
    /// QoS 0, and the client does not read.
    DroppedSlow,
    /// Taken, and so many older ones dropped for it.
    DroppedOldest(usize),
    /// Larger than the client takes.
    DroppedTooLarge,
    /// The client may not have it.
    DroppedDenied,
    /// There is no room, and the session has to end.
    Overflow,
    /// There may be room when what is not in memory is looked at: to be done,
    /// and tried again.
    Unread,
}

/// What came of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobDelivered {
    Taken,
    /// Taken, and now there is no room for another.
    TakenLast,
    NoRoom,
    /// Larger than the client takes.
    TooLarge,
    /// The client may not have it.
    Denied,
}

/// What an acknowledgement was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// A PUBLISH; with it the job, if it was one and the client still has it.
    Publish(Option<SentJob>),
    /// Nothing that is known here.
    Nothing,
}

/// What the connection finds when it looks after its session.
pub enum Exchange {
    /// Go on; whether a held PUBLISH may find room now, and whether there is
    /// room for more of the backlog.
    Open { retry: bool, backlog: bool },
    /// Close, after writing what is there.
    Closing(Close),
}

/// What a session that lost its connection gives up.
#[derive(Default)]
pub struct Detached {
    /// QoS 2 jobs that were never written.
    pub unwritten: Vec<(QueueId, LeaseId)>,
    /// What came straight from share groups: its place there, and the message.
    pub straight: Vec<(QueueId, u64, Arc<Message>)>,
    /// Lists that it had unsubscribed from, and still held jobs of.
    pub left: Vec<QueueId>,
}

/// What handling packets leaves behind for the worker to do, and buffers that
/// it uses again.
#[derive(Default)]
pub struct Effects {
    /// Connections that have something to write.
    pub wakers: Vec<Waker>,
    /// What has to be stored before the lock of what has changed is given up.
    pub journal: Journal,
    /// When all is stored that was handed in for what is being handled.
    pub receipt: Receipt,
    pub frames: Frames,
    /// What goes out is counted there; the worker's own.
    pub tally: Arc<Tally>,
    /// Messages dropped to make room, not counted yet.
    dropped_oldest: usize,
    /// The session that gets the next message may be too full for it.
    pub may_exceed: bool,
    /// Messages dropped because their time had passed, not counted yet.
    pub expired: usize,
    /// And because they were larger than their client takes.
    pub too_large: usize,
    /// Messages that waited and that the client may not have any more.
    pub denied: usize,
    /// What publishers are still to be told of their messages.
    pub replies: Vec<Reply>,
    /// Lists that were put into and are to give out when the read ends: each
    /// gets a place for each message.
    pub fed: Vec<QueueId>,
    /// Whether they may wait for that.
    pub is_read: bool,
    spare: Vec<Vec<u8>>,
    // Properties of one delivery, while they are put together.
    own: Vec<u8>,
}

/// What the publisher of a message is told of it, at its response topic.
pub struct Reply {
    pub to: Arc<Message>,
    pub payload: Vec<u8>,
    /// As safe as what it tells of.
    pub durability: Durability,
    /// When that is stored.
    pub after: Receipt,
    pub at: Time,
}

impl Effects {
    /// What goes out is counted there.
    pub fn counting(tally: Arc<Tally>) -> Effects {
        Effects {
            tally,
            ..Effects::default()
        }
    }

    fn take_dropped(&mut self) -> usize {
        std::mem::take(&mut self.dropped_oldest)
    }

    /// Wakes each connection once.
    pub fn wake_all(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }

    /// Takes back the buffer of an outbox that is written.
    #[inline]
    pub fn recycle(&mut self, outbox: &mut Outbox) {
        let buffer = outbox.take_buffer();
        let capacity = 1..=SPARE_BUFFER_BYTES_MAX;
        if capacity.contains(&buffer.capacity()) && self.spare.len() < SPARE_BUFFERS_MAX {
            self.spare.push(buffer);
        }
    }
}

impl Session {
    pub fn new(identity: Arc<Identity>, terms: Terms, first_packet_id: PacketId) -> Session {
        Session {
            identity,
            own_rights: None,
            gate: None,
            mount: None,
            terms,
            window: Window::new(terms.inflight_max, first_packet_id),
            subscriptions: FxHashMap::default(),
            has_options: false,
            will: None,
            will_due: Time::MAX,
            absent_since: Time::ZERO,
            expiry_alarm: Time::MAX,
            stale_until: Time::MAX,
            valid_until: Time::MAX,
            link: None,
            link_number: 0,
            closing: None,
            ended: false,
            outbox: Outbox::default(),
            writing_len: 0,
            filling: 0,
            waiting: VecDeque::new(),
            keeping: None,
            resuming: None,
            gate_from: None,
            waiting_bytes: 0,
            first_expiry: Time::MAX,
            kept_bytes: 0,
            received: FxHashMap::default(),
            member: None,
            backlog: Backlog::default(),
            publishes: 0,
            account: None,
        }
    }

    /// Remembers a subscription.
    pub fn subscribed(&mut self, to: Subscribed, granted: Granted) {
        self.has_options |= granted.id.is_some() || granted.retain_as_published;
        self.subscriptions.insert(to, granted);
    }

    /// Who it is, for who decides what it may do.
    pub fn client(&self) -> Client<'_> {
        Client {
            identity: &self.identity,
            own: self.own_rights.as_ref(),
        }
    }

    pub fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// Whether `number` is the connection that has the session now.
    pub fn is_link(&self, number: u32) -> bool {
        self.link.is_some() && self.link_number == number
    }

    /// The number of the connection that has, or had, the session.
    pub fn link_number(&self) -> u32 {
        self.link_number
    }

    /// When it ends if its client stays away; [`Time::MAX`] while that is here.
    pub fn expires_at(&self) -> Time {
        match self.link {
            Some(_) => Time::MAX,
            None => self.absent_since + self.terms.session_expiry(),
        }
    }

    /// Messages that wait for room in the window, in memory or not.
    pub fn waiting_len(&self) -> usize {
        self.waiting.len() + self.unread()
    }

    /// QoS 2 messages of the client that it has not released.
    pub fn received_len(&self) -> usize {
        self.received.len()
    }

    /// What it takes of the limit in bytes: messages that wait or are in flight,
    /// those straight from share groups included.
    pub fn kept_bytes(&self) -> usize {
        let member = self.member.as_ref();
        self.kept_bytes + member.map_or(0, |member| member.straight_bytes)
    }

    /// Bytes on their way to the client's socket, as far as the session knows.
    pub fn outbox_len(&self) -> usize {
        self.outbox.len() + self.writing_len
    }

    // ---- what people are told

    /// What is known of it for people; `None`: nothing yet.
    pub fn account(&self) -> Option<&Account> {
        self.account.as_deref()
    }

    pub fn account_mut(&mut self) -> &mut Account {
        self.account.get_or_insert_default()
    }

    /// QoS 2 messages that came and are not released: their ids, and when they
    /// came; zero: in an earlier run.
    pub fn arrived(&self) -> impl ExactSizeIterator<Item = (PacketId, Time)> {
        self.received.iter().map(|(id, arrived)| (*id, arrived.at))
    }

    /// The client does not get a message that was for it.
    #[cold]
    fn dropped(&mut self) -> &mut Dropped {
        self.account_mut().dropped_mut()
    }

    // ---- what is stored

    /// It outlives the broker from now on.
    pub fn keep(&mut self, keeping: Keeping) {
        self.keeping = Some(Box::new(keeping));
    }

    /// The strongest that was asked for counts.
    pub fn raise_durability(&mut self, durability: Durability) {
        if let Some(keeping) = &mut self.keeping {
            keeping.durability = keeping.durability.max(durability);
        }
    }

    /// Where its messages are, if it outlives the broker.
    pub fn keeping(&self) -> Option<&Keeping> {
        self.keeping.as_deref()
    }

    /// What an earlier run of the broker kept of it: bytes of messages, ids
    /// received, and ids to be released in their order.
    pub fn restore(
        &mut self,
        kept_bytes: usize,
        received: &[PacketId],
        releasing: &[(u64, PacketId)],
    ) {
        self.kept_bytes = kept_bytes;
        let arrived = Arrived {
            on: self.link_number.wrapping_sub(1),
            at: Time::ZERO,
        };
        self.received
            .extend(received.iter().map(|id| (*id, arrived)));
        releasing
            .iter()
            .for_each(|(_, id)| self.window.release(*id, Time::ZERO));
        if let (Some(keeping), Some((order, _))) = (&mut self.keeping, releasing.last()) {
            keeping.released_until(*order);
        }
    }

    /// A QoS 2 job that it had in hand then.
    pub fn restore_job(
        &mut self,
        packet_id: PacketId,
        message: Arc<Message>,
        job: SentJob,
        about: Option<About<'_>>,
    ) {
        let mut own = Vec::new();
        let subscribed = match about {
            Some(_) => Subscribed::Queue(job.queue),
            None => Subscribed::Group(job.queue),
        };
        let granted = self.subscriptions.get(&subscribed);
        (granted.and_then(|granted| granted.id).into_iter())
            .for_each(|id| Property::SubscriptionIdentifier(id).encode(&mut own));
        if let Some(about) = about {
            let publication = Publication::of(&message, message.received());
            about.encode(&publication, self.terms.mount_bytes, &mut own);
        }
        let own = Own::of(&own);
        let cost_bytes = message.cost_bytes() + own.cost_bytes();
        self.kept_bytes += cost_bytes;
        self.window.restore(Sent {
            packet_id,
            qos: Qos::ExactlyOnce,
            retain: false,
            filling: self.filling.wrapping_sub(1),
            sent_at: Time::ZERO,
            cost_bytes,
            message: Some(message),
            own,
            job: Some(job),
            row: StoredRow::NONE,
        });
    }

    /// What it put into the journal, or was given by a queue, is handed in:
    /// what goes out because of it waits for `receipt`.
    pub fn stored(&mut self, receipt: Receipt) {
        if let Some(from) = self.gate_from.take() {
            self.outbox.gate(from, receipt);
        }
        if let Some(keeping) = &mut self.keeping {
            keeping.stored(receipt);
        }
        if self.resuming == Some(Receipt::NONE) {
            self.resuming = Some(receipt);
        }
    }

    /// What comes next waits for what its caller tells to be stored.
    pub fn gate_next(&mut self) {
        self.gate_from.get_or_insert(self.outbox.mark());
    }

    /// Its messages and packet ids are stored no more.
    pub fn forget_stored(&mut self, journal: &mut Journal) {
        if let Some(keeping) = &self.keeping {
            let (list, durability) = (keeping.list, keeping.durability);
            journal.add(durability, Change::Drop { list });
            (self.received.keys()).for_each(|id| keeping.delete_received(*id, journal));
            (self.window.releasing())
                .for_each(|one| keeping.delete_releasing(one.packet_id, journal));
        }
    }

    fn unread(&self) -> usize {
        self.keeping.as_ref().map_or(0, |keeping| keeping.unread())
    }

    /// Whether messages are to be read now that are not in memory: when all of
    /// them can be.
    pub fn wants_rows(&self) -> Option<Receipt> {
        let keeping = self.keeping.as_ref()?;
        self.link.as_ref()?;
        let wants = keeping.unread() > 0 && self.waiting.len() < WAITING_LOW;
        wants.then(|| self.resuming.unwrap_or(keeping.pushed))
    }

    /// From which row on to look for what has expired and is not in memory;
    /// `None`: there is no such row.
    pub fn look_from(&self, now: Time) -> Option<u64> {
        let keeping = self.keeping.as_ref()?;
        (keeping.may_have_expired(now)).then(|| keeping.look_from())
    }

    /// A row that is not in memory: it goes if it has expired.
    pub fn look_at(&mut self, stored: &StoredMessage, now: Time, effects: &mut Effects) {
        if stored.message.has_expired(now) {
            self.drop_unread(stored, &mut effects.journal);
            effects.expired += 1;
            self.dropped().expired += 1;
        } else if let Some(keeping) = &mut self.keeping {
            keeping.looked(stored.row, stored.message.expires());
        }
    }

    /// All that is not in memory was looked at.
    pub fn looked_through(&mut self) {
        if let Some(keeping) = &mut self.keeping {
            keeping.looked_through();
        }
    }

    /// Makes room by the oldest message, which is not in memory.
    pub fn drop_oldest(&mut self, stored: &StoredMessage, effects: &mut Effects) {
        self.drop_unread(stored, &mut effects.journal);
        effects.dropped_oldest += 1;
        self.dropped().oldest += 1;
    }

    fn drop_unread(&mut self, stored: &StoredMessage, journal: &mut Journal) {
        let cost_bytes = stored.message.cost_bytes() + stored.own.cost_bytes();
        self.kept_bytes = self.kept_bytes.saturating_sub(cost_bytes);
        if let Some(keeping) = &mut self.keeping {
            keeping.drop_unread(stored.row, journal);
        }
    }

    /// Where the messages begin that are not in memory, and when they can be
    /// read.
    pub fn next_unread(&self) -> Option<(ListId, u64, Receipt)> {
        let keeping = self.keeping.as_ref()?;
        (keeping.unread() > 0).then(|| (keeping.list, keeping.unread_from(), keeping.settled))
    }

    /// When all its messages are stored.
    pub fn pushed(&self) -> Receipt {
        (self.keeping.as_ref()).map_or(Receipt::NONE, |keeping| keeping.pushed)
    }

    /// Whether messages of earlier connections are to be read first.
    pub fn is_resuming(&self) -> bool {
        self.resuming.is_some()
    }

    /// A row that was read.
    pub fn load(&mut self, stored: StoredMessage) {
        let Some(keeping) = &mut self.keeping else {
            return;
        };
        keeping.read(stored.row);
        match stored.into_sent() {
            Ok(sent) => self.window.push_held_back(sent),
            Err(waiting) => {
                self.first_expiry = self.first_expiry.min(waiting.message.expires());
                self.push_waiting(Waiting {
                    message: waiting.message,
                    own: waiting.own,
                    qos: waiting.qos,
                    retain: waiting.retain,
                    row: waiting.row,
                });
            }
        }
    }

    /// A row that could not be read: damaged. It is done with.
    pub fn lose(&mut self, row: u64) {
        if let Some(keeping) = &mut self.keeping {
            keeping.read(StoredRow::of(row));
            keeping.lost(1);
            self.dropped().damaged += 1;
        }
    }

    /// All there are were read; so many are missing.
    pub fn loaded_all(&mut self) -> usize {
        let keeping = self.keeping.as_mut();
        let lost = keeping.map_or(0, |keeping| keeping.read_all());
        if lost > 0 {
            self.dropped().damaged += lost as u64;
        }
        lost
    }

    /// What it had sent is read: it goes on.
    pub fn resumed(&mut self, now: Time, effects: &mut Effects) {
        self.resuming = None;
        self.resend(now, effects);
        self.release_again(effects);
        self.refill(now, effects);
    }

    /// Whether more of what it had sent may be on disk.
    pub fn may_have_sent_more(&self) -> bool {
        self.resuming.is_some() && self.unread() > 0 && self.waiting.is_empty()
    }

    fn push_waiting(&mut self, waiting: Waiting) {
        self.waiting_bytes += waiting.cost_bytes();
        self.waiting.push_back(waiting);
    }

    #[inline]
    fn pop_waiting(&mut self) -> Option<Waiting> {
        let waiting = self.waiting.pop_front()?;
        self.waiting_bytes -= waiting.cost_bytes();
        self.kept_bytes = self.kept_bytes.saturating_sub(waiting.cost_bytes());
        Some(waiting)
    }

    #[inline]
    fn remove_row(&mut self, row: StoredRow, journal: &mut Journal) {
        if self.keeping.is_some() {
            self.remove_stored(row, journal);
        }
    }

    #[inline(never)]
    fn remove_stored(&mut self, row: StoredRow, journal: &mut Journal) {
        if let Some(keeping) = &mut self.keeping {
            keeping.remove(row, journal);
            // What an earlier run has left was known about so much.
            if keeping.is_empty() && self.window.is_empty() {
                self.kept_bytes = 0;
            }
        }
    }

    /// When the connection sent its last packet; `None` without connection.
    pub fn last_packet(&self) -> Option<Time> {
        self.link.as_ref().map(|link| link.last_packet)
    }

    // ---- the connection

    /// A connection takes the session; its number. CONNACK, encoded, is the
    /// first that goes out on it [MQTT-3.2.0-1], then what the client has not
    /// acknowledged [MQTT-4.4.0-1].
    pub fn attach(
        &mut self,
        terms: Terms,
        connack: &[u8],
        now: Time,
        effects: &mut Effects,
    ) -> u32 {
        self.terms = terms;
        self.window.set_max(terms.inflight_max);
        self.link_number = self.link_number.wrapping_add(1);
        self.closing = None;
        self.stale_until = Time::MAX;
        self.valid_until = Time::MAX;
        self.account_mut().connected_at = now;
        self.link = Some(Link {
            waker: None,
            idle: false,
            last_packet: now,
            retry: false,
            joining: true,
            receiving: 0,
            aliases: NonZeroU16::new(terms.topic_aliases_out).map(|max| Box::new(Given::new(max))),
        });
        // Its caller may have something to store, if only that an earlier session
        // of the client is over, and tells the receipt.
        self.gate_from = Some(self.outbox.mark());
        if self.keeping.is_some() {
            self.resuming = (self.unread() > 0).then_some(Receipt::NONE);
        }
        self.append_answers(connack, &[], effects);
        self.window.hold_back_all();
        if self.resuming.is_none() {
            self.resend(now, effects);
            self.release_again(effects);
            self.refill(now, effects);
        }
        self.link_number
    }

    /// The queues know of the connection: it gets jobs from now on.
    pub fn take_part(&mut self) {
        if let Some(link) = &mut self.link {
            link.joining = false;
        }
    }

    /// Answers to what the connection read go out behind what is there; those
    /// from the places of `gates` on wait for these. Takes what there is to write into `writing` when that is empty. Without
    /// `waker` the connection goes on by itself. By its number, and whether a
    /// packet came.
    pub fn exchange(
        &mut self,
        (number, heard, came): (u32, bool, &mut Came),
        (answers, gates): (&[u8], &[(usize, Receipt)]),
        writing: &mut Outbox,
        waker: Option<&Waker>,
        now: Time,
        effects: &mut Effects,
    ) -> Exchange {
        if self.link_number != number {
            return Exchange::Closing(Close::new(
                ReasonCode::SessionTakenOver,
                "another connection has taken the session",
            ));
        }
        let Some(link) = &mut self.link else {
            let close = self.closing.clone();
            return Exchange::Closing(close.map_or_else(
                || Close::new(ReasonCode::UnspecifiedError, "the session has ended"),
                |close| *close,
            ));
        };
        if heard {
            link.last_packet = now;
        }
        if came.bytes > 0 {
            self.account_mut().came(std::mem::take(came));
        }
        self.append_answers(answers, gates, effects);
        if writing.is_empty() && !self.outbox.is_empty() {
            effects.recycle(writing);
            std::mem::swap(writing, &mut self.outbox);
            self.filling = self.filling.wrapping_add(1);
            if let Some(account) = &mut self.account {
                account.messages_out += u64::from(std::mem::take(&mut self.publishes));
                account.bytes_out += writing.len() as u64;
            }
            if let Some(member) = &mut self.member {
                member.taken.append(&mut member.unconfirmed);
            }
            if !self.waiting.is_empty() {
                self.refill(now, effects);
            }
        }
        self.writing_len = writing.len();
        if let Some(close) = &self.closing {
            return Exchange::Closing(Close::clone(close));
        }
        let link = self.link.as_mut().expect("nothing above gives it up");
        if let Some(waker) = waker {
            match &mut link.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
            link.idle = writing.is_empty();
        }
        Exchange::Open {
            retry: link.retry,
            backlog: !self.backlog.is_empty() && self.has_room_for_backlog(),
        }
    }

    /// What the topic aliases stand for that its connection's client knows.
    pub fn given_aliases(&self) -> Vec<(NonZeroU16, Box<str>)> {
        let given = self.link.as_ref().and_then(|link| link.aliases.as_ref());
        given.map_or_else(Vec::new, |given| given.topics().collect())
    }

    /// Whether retained messages may be sent on.
    pub fn has_room_for_backlog(&self) -> bool {
        self.waiting.is_empty() && self.has_room()
    }

    /// The jobs that were taken with the outbox.
    pub fn take_taken_jobs(&mut self) -> Vec<(QueueId, LeaseId)> {
        let member = self.member.as_mut();
        member.map_or_else(Vec::new, |member| std::mem::take(&mut member.taken))
    }

    /// Ends the connection when it looks next.
    pub fn close(&mut self, close: Close, effects: &mut Effects) {
        if let Some(link) = &mut self.link {
            self.closing.get_or_insert_with(|| Box::new(close));
            effects.wakers.extend(link.waker.take());
        }
    }

    /// Whether it has a connection that was not told to end.
    pub fn is_open(&self) -> bool {
        self.link.is_some() && self.closing.is_none()
    }

    /// The session is over, and what it kept is dropped; its connection, if
    /// it has one, still finds why.
    pub fn end(&mut self) {
        self.ended = true;
        self.keeping = None;
        self.resuming = None;
        self.window = Window::new(0, PacketId::MIN);
        self.waiting = VecDeque::new();
        self.waiting_bytes = 0;
        self.kept_bytes = 0;
        self.received = FxHashMap::default();
        self.backlog = Backlog::default();
    }

    /// Whether it is over.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// A held PUBLISH may find room now.
    pub fn retry(&mut self, effects: &mut Effects) -> bool {
        let Some(link) = &mut self.link else {
            return false;
        };
        link.retry = true;
        effects.wakers.extend(link.waker.take());
        true
    }

    /// The connection is about to try its held PUBLISHes.
    pub fn retried(&mut self) {
        if let Some(link) = &mut self.link {
            link.retry = false;
        }
    }

    /// The connection is gone. QoS 1 jobs go back by the queue's own account.
    pub fn detach(&mut self, now: Time, effects: &mut Effects) -> Detached {
        let mut unwritten = Vec::new();
        let mut straight = Vec::new();
        let mut refused = Vec::new();
        let unconfirmed = self.member.take().map(|member| member.unconfirmed);
        let mut lists: Vec<QueueId> = (unconfirmed.iter().flatten())
            .map(|(queue, _)| *queue)
            .collect();
        let (filling, kept_bytes) = (self.filling, &mut self.kept_bytes);
        self.window.retain(|sent| {
            let Some(job) = sent.job else {
                // What is stored is read again for the next connection.
                return !sent.row.is_some();
            };
            if job.lease.is_straight() {
                let message = sent.message.clone();
                let message = message.filter(|_| job.hold == Hold::Current);
                let number = job.lease.number();
                straight.extend(message.map(|message| (job.queue, number, message)));
                return false;
            }
            lists.push(job.queue);
            match (sent.qos, sent.filling == filling, job.hold) {
                (Qos::ExactlyOnce, false, Hold::Current) => return true,
                // It never was in the member's hands.
                (_, true, Hold::Current) => unwritten.push((job.queue, job.lease)),
                // Somebody else may have the job: the client gets PUBREL for
                // the id, and no second PUBLISH.
                (Qos::ExactlyOnce, _, _) => refused.push(sent.packet_id),
                _ => {}
            }
            *kept_bytes = kept_bytes.saturating_sub(sent.cost_bytes);
            false
        });
        refused
            .into_iter()
            .for_each(|id| self.release_sent(id, now, &mut effects.journal));
        lists.sort_unstable();
        lists.dedup();
        lists.retain(|list| {
            let joined = [Subscribed::Queue(*list), Subscribed::Group(*list)];
            !joined
                .iter()
                .any(|joined| self.subscriptions.contains_key(joined))
        });
        if let Some(keeping) = &mut self.keeping {
            keeping.forget_all();
            self.waiting = VecDeque::new();
            self.waiting_bytes = 0;
            self.resuming = None;
        }
        self.link = None;
        self.absent_since = now;
        unwritten.extend(unconfirmed.into_iter().flatten());
        self.writing_len = 0;
        let mut outbox = std::mem::take(&mut self.outbox);
        effects.recycle(&mut outbox);
        self.publishes = 0;
        self.filling = self.filling.wrapping_add(1);
        Detached {
            unwritten,
            straight,
            left: lists,
        }
    }

    // ---- towards the client

    /// A message for some of its subscriptions.
    pub fn deliver(
        &mut self,
        publication: &Publication<'_>,
        delivery: Delivery<'_>,
        limits: &Limits,
        settings: &SessionSettings,
        effects: &mut Effects,
    ) -> Delivered {
        if !may_have(&self.gate, publication) {
            self.dropped().denied += 1;
            return Delivered::DroppedDenied;
        }
        let mut own = Vec::new(); // It takes memory for those few that have some.
        let ids = delivery.ids.iter().copied();
        ids.filter_map(SubscriptionId::new)
            .for_each(|id| Property::SubscriptionIdentifier(id).encode(&mut own));
        match delivery.qos {
            Qos::AtMostOnce if self.link.is_some() || !settings.store_qos0 => {
                self.deliver_at_most_once(publication, delivery.retain, &mut own, limits, effects)
            }
            _ => self.deliver_kept(
                publication,
                delivery,
                &mut own,
                limits,
                settings.full,
                effects,
            ),
        }
    }

    fn deliver_kept(
        &mut self,
        publication: &Publication<'_>,
        delivery: Delivery<'_>,
        own: &mut Vec<u8>,
        limits: &Limits,
        full: SessionFull,
        effects: &mut Effects,
    ) -> Delivered {
        let (qos, retain) = (delivery.qos, delivery.retain);
        let cost = || publication.cost_bytes() + Own::cost_bytes_of(own.len());
        if self.can_send(cost, limits) {
            return match self.send(publication, (qos, retain), Source::New, own, effects) {
                true => Delivered::Taken,
                false => {
                    self.dropped().too_large += 1;
                    Delivered::DroppedTooLarge
                }
            };
        }
        let cost = cost();
        while !effects.may_exceed
            && (self.waiting_len() >= limits.session_messages_max
                || self.kept_bytes + cost > limits.session_bytes_max)
        {
            if self.drop_expired(publication.now, effects) {
                continue;
            }
            if self.may_have_expired(publication.now) {
                return Delivered::Unread;
            }
            match full {
                SessionFull::End => return Delivered::Overflow,
                SessionFull::DropOldest => {}
                // There was room when the publisher was let in; two of them at
                // a time may go beyond.
                SessionFull::Refuse => break,
            }
            let Some(oldest) = self.pop_waiting() else {
                if self.unread() > 0 {
                    return Delivered::Unread;
                }
                self.dropped().oldest += 1;
                return Delivered::DroppedOldest(effects.take_dropped() + 1);
            };
            self.remove_row(oldest.row, &mut effects.journal);
            effects.dropped_oldest += 1;
            self.dropped().oldest += 1;
        }
        self.kept_bytes += cost;
        let row = match &mut self.keeping {
            Some(keeping) => {
                keeping.push(publication, (qos, retain), None, own, &mut effects.journal)
            }
            None => StoredRow::NONE,
        };
        let in_memory = self.unread() == 0
            && self.link.is_some()
            && self.waiting.len() < WAITING_MAX
            && self.waiting_bytes + cost <= WAITING_BYTES_MAX;
        match &mut self.keeping {
            Some(keeping) if !in_memory => keeping.leave_unread(row),
            _ => {
                self.first_expiry = self.first_expiry.min(publication.expires);
                self.push_waiting(Waiting {
                    message: publication.message().clone(),
                    own: Own::of(own),
                    qos,
                    retain,
                    row,
                });
            }
        }
        match effects.take_dropped() {
            0 => Delivered::Taken,
            dropped => Delivered::DroppedOldest(dropped),
        }
    }

    /// Whether messages that are not in memory may have expired.
    pub fn may_have_expired(&self, now: Time) -> bool {
        let keeping = self.keeping.as_ref();
        keeping.is_some_and(|keeping| keeping.may_have_expired(now))
    }

    /// Makes room by dropping what waits in vain; whether there was any.
    fn drop_expired(&mut self, now: Time, effects: &mut Effects) -> bool {
        if now <= self.first_expiry {
            return false;
        }
        let before = self.waiting.len();
        self.first_expiry = Time::MAX;
        self.waiting.retain(|waiting| {
            let expired = waiting.message.has_expired(now);
            if expired {
                self.waiting_bytes -= waiting.cost_bytes();
                self.kept_bytes = self.kept_bytes.saturating_sub(waiting.cost_bytes());
                if let Some(keeping) = &mut self.keeping {
                    keeping.remove(waiting.row, &mut effects.journal);
                }
            } else {
                self.first_expiry = self.first_expiry.min(waiting.message.expires());
            }
            !expired
        });
        self.first_expiry = self.first_expiry.max(now + EXPIRED_EVERY);
        let expired = before - self.waiting.len();
        if expired > 0 {
            effects.expired += expired;
            self.dropped().expired += expired as u64;
        }
        expired > 0
    }

    fn deliver_at_most_once(
        &mut self,
        publication: &Publication<'_>,
        retain: bool,
        own: &mut Vec<u8>,
        limits: &Limits,
        effects: &mut Effects,
    ) -> Delivered {
        if self.link.is_none() {
            self.dropped().absent += 1;
            return Delivered::DroppedAbsent;
        }
        let under_way = self.outbox.len() + self.writing_len;
        if under_way + publication.payload.len() > limits.outbox_bytes_max {
            self.dropped().slow += 1;
            return Delivered::DroppedSlow;
        }
        match self.send_at_most_once(publication, retain, "", own, effects) {
            true => Delivered::Taken,
            false => {
                self.dropped().too_large += 1;
                Delivered::DroppedTooLarge
            }
        }
    }

    /// Whether the client, which is connected, takes a message of its size.
    // By itself the compiler makes a call of it on the hottest path: 24
    // instructions a delivery.
    #[inline(always)]
    fn send_at_most_once(
        &mut self,
        publication: &Publication<'_>,
        retain: bool,
        topic_prefix: &'static str,
        own: &mut Vec<u8>,
        effects: &mut Effects,
    ) -> bool {
        let Some(link) = &mut self.link else {
            return false;
        };
        let mut form = form(&self.terms, Qos::AtMostOnce, retain, topic_prefix);
        if !fit(&self.terms, &mut link.aliases, publication, &mut form, own) {
            return false;
        }
        self.give_buffer(effects);
        put_out(&mut self.outbox, publication, form, own, effects);
        self.publishes = self.publishes.wrapping_add(1);
        self.wake(effects);
        true
    }

    /// Whether a message of QoS 1 or 2 can go out now, without one before it
    /// and without keeping too much: one message always may be kept.
    #[inline]
    pub fn can_send(&self, cost_bytes: impl FnOnce() -> usize, limits: &Limits) -> bool {
        self.waiting.is_empty()
            && self.unread() == 0
            && self.has_room()
            && (self.kept_bytes == 0 || self.kept_bytes + cost_bytes() <= limits.session_bytes_max)
    }

    /// Whether a message published now, with so many identifiers, would be
    /// taken without dropping any that has not expired.
    pub fn make_space(
        &mut self,
        publication: &Publication<'_>,
        ids_len: usize,
        limits: &Limits,
        effects: &mut Effects,
    ) -> bool {
        let cost = publication.cost_bytes() + Own::cost_bytes_of(ids_len * IDENTIFIER_BYTES_MAX);
        if !may_have(&self.gate, publication) {
            return true; // It is not for this client.
        }
        loop {
            if self.can_send(|| cost, limits)
                || self.waiting_len() < limits.session_messages_max
                    && self.kept_bytes + cost <= limits.session_bytes_max
            {
                return true;
            }
            if !self.drop_expired(publication.now, effects) {
                return false;
            }
        }
    }

    /// A job. Once there is no room, the queue is told when there is again.
    pub fn deliver_job(
        &mut self,
        publication: &Publication<'_>,
        delivery: JobDelivery<'_>,
        effects: &mut Effects,
    ) -> JobDelivered {
        let (Subscribed::Queue(queue) | Subscribed::Group(queue)) = delivery.list else {
            unreachable!("a filter gives no jobs");
        };
        if !self.has_room_for_job(delivery.qos) {
            self.pass_over(queue);
            return JobDelivered::NoRoom;
        }
        if !may_have(&self.gate, publication) {
            return JobDelivered::Denied;
        }
        let mut own = std::mem::take(&mut effects.own);
        own.clear();
        let mut retain = false;
        // There is none where the member has unsubscribed meanwhile.
        if self.has_options
            && let Some(granted) = self.subscriptions.get(&delivery.list)
        {
            // A queue knows nothing of retained messages.
            let as_published = granted.retain_as_published && delivery.about.is_none();
            retain = as_published && publication.retain;
            (granted.id.into_iter())
                .for_each(|id| Property::SubscriptionIdentifier(id).encode(&mut own));
        }
        // Of QoS 2 it may be sent again to who can read it.
        if (self.terms.has_reasons || delivery.qos == Qos::ExactlyOnce)
            && let Some(about) = &delivery.about
        {
            about.encode(publication, self.terms.mount_bytes, &mut own);
        }
        let taken = self.take_job(publication, delivery, queue, retain, &mut own, effects);
        effects.own = own;
        if !taken {
            return JobDelivered::TooLarge;
        }
        if self.has_room_for_job(delivery.qos) {
            return JobDelivered::Taken;
        }
        self.pass_over(queue);
        JobDelivered::TakenLast
    }

    fn take_job(
        &mut self,
        publication: &Publication<'_>,
        delivery: JobDelivery<'_>,
        queue: QueueId,
        retain: bool,
        own: &mut Vec<u8>,
        effects: &mut Effects,
    ) -> bool {
        let queue_topic = delivery.about.is_some_and(|about| about.queue_topic);
        // Its caller tells the receipt.
        self.gate_from.get_or_insert(self.outbox.mark());
        if delivery.qos > Qos::AtMostOnce {
            let job = Source::Job(SentJob {
                queue,
                lease: delivery.lease,
                message: publication.id,
                queue_topic,
                hold: Hold::Current,
            });
            return self.send(publication, (delivery.qos, retain), job, own, effects);
        }
        let prefix = prefix(queue_topic);
        let taken = self.send_at_most_once(publication, retain, prefix, own, effects);
        if taken {
            let member = self.member.get_or_insert_default();
            member.unconfirmed.push((queue, delivery.lease));
        }
        taken
    }

    fn has_room_for_job(&self, qos: Qos) -> bool {
        let joined = self.link.as_ref().is_some_and(|link| !link.joining);
        joined
            && match qos {
                Qos::AtMostOnce => self.outbox.len() < OUTBOX_READY_BYTES_MAX,
                _ => self.has_room(),
            }
            && self.resuming.is_none()
    }

    /// The queue is told when there is room.
    pub fn pass_over(&mut self, queue: QueueId) {
        if self.link.is_none() {
            return;
        }
        let member = self.member.get_or_insert_default();
        if !member.passed_over.contains(&queue) {
            member.passed_over.push_back(queue);
        }
    }

    /// Whether a queue found no room.
    pub fn has_passed_over(&self) -> bool {
        (self.member.as_ref()).is_some_and(|member| !member.passed_over.is_empty())
    }

    /// The next queue that found no room, if there is some now. One after the
    /// other, in turn: a client may be a member of thousands.
    pub fn take_passed_over(&mut self) -> Option<QueueId> {
        match self.member.is_some() && self.has_room() {
            true => self.member.as_mut()?.passed_over.pop_front(),
            false => None,
        }
    }

    /// Whether a QoS 1 or 2 message can go out now.
    pub fn has_room(&self) -> bool {
        self.link.is_some()
            && self.resuming.is_none()
            && self.window.has_room()
            && self.outbox.len() < OUTBOX_READY_BYTES_MAX
    }

    /// Whether anything is on its way to the client, or waits for it.
    pub fn has_messages(&self) -> bool {
        !self.window.is_empty() || self.waiting_len() > 0 || self.resuming.is_some()
    }

    /// The id under which the last message went out.
    pub fn last_packet_id(&self) -> Option<PacketId> {
        self.window.last().map(|sent| sent.packet_id)
    }

    /// Sends what waits, as far as there is room. What has waited for too long
    /// is dropped [MQTT-3.3.2-5].
    pub fn refill(&mut self, now: Time, effects: &mut Effects) {
        if self.window.is_holding_back() && self.resuming.is_none() {
            self.resend(now, effects);
        }
        while self.has_room() {
            let Some(next) = self.pop_waiting() else {
                self.first_expiry = Time::MAX;
                return;
            };
            if next.message.has_expired(now) {
                effects.expired += 1;
                self.dropped().expired += 1;
                self.remove_row(next.row, &mut effects.journal);
                continue;
            }
            effects.frames.begin(1);
            let publication = Publication::of(&next.message, now);
            if !may_have(&self.gate, &publication) {
                effects.denied += 1;
                self.dropped().denied += 1;
                self.remove_row(next.row, &mut effects.journal);
                continue;
            }
            let mut own = std::mem::take(&mut effects.own);
            own.clear();
            own.extend_from_slice(next.own.as_bytes());
            let how = (next.qos, next.retain);
            let sent = if next.qos == Qos::AtMostOnce {
                // Sent is done with.
                self.remove_row(next.row, &mut effects.journal);
                self.send_at_most_once(&publication, next.retain, "", &mut own, effects)
            } else {
                self.send(
                    &publication,
                    how,
                    Source::Waiting(next.row),
                    &mut own,
                    effects,
                )
            };
            if !sent {
                effects.too_large += 1;
                self.dropped().too_large += 1;
            }
            effects.own = own;
        }
    }

    /// Whether the client takes a message of its size; if not, it is as good
    /// as sent [MQTT-3.1.2-25].
    fn send(
        &mut self,
        publication: &Publication<'_>,
        (qos, retain): (Qos, bool),
        source: Source,
        own: &mut Vec<u8>,
        effects: &mut Effects,
    ) -> bool {
        let job = match source {
            Source::Job(job) => Some(job),
            Source::New | Source::Waiting(_) => None,
        };
        let prefix = prefix(job.is_some_and(|job| job.queue_topic));
        let mut form = form(&self.terms, qos, retain, prefix);
        let own_len = own.len();
        let mut none = None;
        let aliases = self.link.as_mut().map(|link| &mut link.aliases);
        let aliases = aliases.unwrap_or(&mut none);
        if !fit(&self.terms, aliases, publication, &mut form, own) {
            if let Source::Waiting(row) = source {
                self.remove_row(row, &mut effects.journal);
            }
            return false;
        }
        let packet_id = self.window.take_id();
        form.packet_id = Some(packet_id);
        // A job of QoS 1 is the queue's to give again, and a session that ends
        // with its connection is never asked again.
        let kept = self.terms.persists() && (job.is_none() || qos == Qos::ExactlyOnce);
        let mut sent = Sent {
            packet_id,
            qos,
            retain,
            filling: self.filling,
            sent_at: publication.now,
            cost_bytes: 0,
            message: None,
            own: Own::default(),
            job,
            row: StoredRow::NONE,
        };
        if job.is_some_and(|job| job.lease.is_straight()) {
            self.keep_straight(&mut sent, publication);
        } else if kept || self.keeping.is_some() {
            self.keep_sent(
                &mut sent,
                kept,
                source,
                publication,
                &own[..own_len],
                effects,
            );
        }
        self.window.push(sent);
        self.give_buffer(effects);
        put_out(&mut self.outbox, publication, form, own, effects);
        self.publishes = self.publishes.wrapping_add(1);
        self.wake(effects);
        true
    }

    /// Keeps what goes out for the share group, should it not be acknowledged.
    #[inline(never)]
    fn keep_straight(&mut self, sent: &mut Sent, publication: &Publication<'_>) {
        sent.cost_bytes = publication.cost_bytes();
        sent.message = Some(publication.message().clone());
        let member = self.member.get_or_insert_default();
        member.straight_bytes += sent.cost_bytes;
    }

    /// Whether a message of that cost may come straight from a share group.
    pub fn may_hold_straight(&self, cost_bytes: usize, limits: &Limits) -> bool {
        let held = self
            .member
            .as_ref()
            .map_or(0, |member| member.straight_bytes);
        held == 0 || held + cost_bytes <= limits.session_bytes_max
    }

    /// Keeps what goes out for another connection: in memory, or stored.
    #[inline(never)]
    fn keep_sent(
        &mut self,
        sent: &mut Sent,
        kept: bool,
        source: Source,
        publication: &Publication<'_>,
        own: &[u8],
        effects: &mut Effects,
    ) {
        if kept {
            sent.cost_bytes = publication.cost_bytes() + Own::cost_bytes_of(own.len());
            self.kept_bytes += sent.cost_bytes;
        }
        let how = (sent.qos, sent.retain);
        sent.row = self.store_sent(publication, how, source, sent.packet_id, own, effects);
        // What is stored is read again.
        if kept && !sent.row.is_some() {
            sent.message = Some(publication.message().clone());
            sent.own = Own::of(own);
        }
    }

    /// A message, its session and its packet id are stored before it goes out.
    fn store_sent(
        &mut self,
        publication: &Publication<'_>,
        how: (Qos, bool),
        source: Source,
        packet_id: PacketId,
        own: &[u8],
        effects: &mut Effects,
    ) -> StoredRow {
        let Some(keeping) = &mut self.keeping else {
            return StoredRow::NONE;
        };
        let journal = &mut effects.journal;
        let row = match source {
            Source::Job(_) => return StoredRow::NONE, // Its queue stores it.
            Source::New => keeping.push(publication, how, Some(packet_id), own, journal),
            Source::Waiting(row) => {
                keeping.sent(row, how, packet_id, own, journal);
                row
            }
        };
        self.gate_from.get_or_insert(self.outbox.mark());
        row
    }

    /// What the last connection left unacknowledged, with its old ids and in
    /// its old order [MQTT-4.4.0-1], [MQTT-4.6.0-1], as far as there is room;
    /// also what has expired meanwhile, as its delivery had begun
    /// [MQTT-4.3.3-7].
    fn resend(&mut self, now: Time, effects: &mut Effects) {
        self.give_buffer(effects);
        let mut own = std::mem::take(&mut effects.own);
        while let Some(sent) = self.window.next_held_back(now) {
            let Some(message) = &sent.message else {
                continue;
            };
            let packet_id = sent.packet_id;
            if sent.job.is_some_and(|job| job.hold != Hold::Current) {
                // Somebody else may have the job by now: as in `detach`.
                if let Some(sent) = self.window.acknowledge(packet_id) {
                    self.forget(sent, &mut effects.journal);
                }
                self.release_sent(packet_id, now, &mut effects.journal);
                put_pubrel(&mut self.outbox, packet_id, self.terms.wire, effects);
                continue;
            }
            let prefix = prefix(sent.job.is_some_and(|job| job.queue_topic));
            let mut form = form(&self.terms, sent.qos, sent.retain, prefix);
            form.dup = true; // [MQTT-3.3.1-1]
            form.packet_id = Some(packet_id);
            own.clear();
            own.extend_from_slice(sent.own.as_bytes());
            let publication = Publication::of(message, now);
            if !may_have(&self.gate, &publication) {
                effects.denied += 1;
                let (qos, wire) = (sent.qos, self.terms.wire);
                if let Some(sent) = self.window.acknowledge(packet_id) {
                    self.forget(sent, &mut effects.journal);
                }
                if qos == Qos::ExactlyOnce {
                    // The client may have it: its id is not to be another's yet.
                    self.release_sent(packet_id, now, &mut effects.journal);
                    put_pubrel(&mut self.outbox, packet_id, wire, effects);
                }
                self.dropped().denied += 1;
                continue;
            }
            let mut none = None;
            let aliases = self.link.as_mut().map(|link| &mut link.aliases);
            let aliases = aliases.unwrap_or(&mut none);
            if fit(&self.terms, aliases, &publication, &mut form, &mut own) {
                put_out(&mut self.outbox, &publication, form, &own, effects);
                self.publishes = self.publishes.wrapping_add(1);
            } else {
                // As good as sent [MQTT-3.1.2-25]; a queue's job is undecided.
                effects.too_large += 1;
                if let Some(sent) = self.window.acknowledge(packet_id) {
                    self.forget(sent, &mut effects.journal);
                }
                self.dropped().too_large += 1;
            }
        }
        effects.own = own;
        self.wake(effects);
    }

    /// Weakens the client's hold on a job; the job, if it was held better
    /// before. An id of QoS 2 stays taken until PUBCOMP, whoever runs the broker
    /// then: the client may have it for one that it has received.
    pub fn weaken(
        &mut self,
        packet_id: PacketId,
        hold: Hold,
        journal: &mut Journal,
    ) -> Option<SentJob> {
        let job = self.window.weaken(packet_id, hold)?;
        let sent = self.window.get(packet_id);
        if sent.is_some_and(|sent| sent.qos == Qos::ExactlyOnce)
            && let Some(keeping) = &mut self.keeping
        {
            keeping.put_releasing(packet_id, journal);
        }
        Some(job)
    }

    /// PUBREL is due for an id whose PUBLISH the client has.
    fn release_sent(&mut self, packet_id: PacketId, now: Time, journal: &mut Journal) {
        self.window.release(packet_id, now);
        if let Some(keeping) = &mut self.keeping {
            keeping.put_releasing(packet_id, journal);
        }
    }

    /// PUBREL, in the order of the PUBRECs [MQTT-4.6.0-4].
    fn release_again(&mut self, effects: &Effects) {
        for releasing in self.window.releasing() {
            put_pubrel(
                &mut self.outbox,
                releasing.packet_id,
                self.terms.wire,
                effects,
            );
        }
    }

    // ---- from the client

    /// A QoS 2 message came; whether it is new [MQTT-4.3.3-10], in 3.1.1
    /// [MQTT-4.3.3-2].
    ///
    /// # Errors
    /// The client has as many on their way as it may [MQTT-3.3.4-7].
    pub fn receive(
        &mut self,
        packet_id: PacketId,
        now: Time,
        journal: &mut Journal,
    ) -> Result<bool, Close> {
        let number = self.link_number;
        let known = self.received.get(&packet_id).copied();
        // What came on an earlier connection counts when it comes again (4.9).
        if known.is_none_or(|known| known.on != number)
            && let Some(link) = &mut self.link
        {
            if link.receiving >= self.terms.receive_max {
                let why = "more QoS 2 messages are not released than Receive Maximum allows";
                return Err(Close::new(ReasonCode::ReceiveMaximumExceeded, why));
            }
            link.receiving += 1;
            let at = known.map_or(now, |known| known.at);
            self.received.insert(packet_id, Arrived { on: number, at });
            if known.is_none()
                && let Some(keeping) = &self.keeping
            {
                keeping.put_received(packet_id, journal);
            }
        }
        Ok(known.is_none())
    }

    /// PUBREL: the id is new again [MQTT-4.3.3-12]; whether it was in use.
    pub fn release(&mut self, packet_id: PacketId, journal: &mut Journal) -> bool {
        let known = self.received.remove(&packet_id);
        if known.is_some()
            && let Some(keeping) = &self.keeping
        {
            keeping.delete_received(packet_id, journal);
        }
        if known.is_some_and(|known| known.on == self.link_number)
            && let Some(link) = &mut self.link
        {
            link.receiving -= 1;
        }
        known.is_some()
    }

    /// PUBACK.
    ///
    /// # Errors
    /// The PUBLISH was of QoS 2, which PUBREC answers.
    pub fn acknowledge(
        &mut self,
        packet_id: PacketId,
        journal: &mut Journal,
    ) -> Result<Answered, Close> {
        match self.window.get(packet_id).map(|sent| sent.qos) {
            None => Ok(Answered::Nothing),
            Some(Qos::AtLeastOnce) => {
                let sent = self.window.acknowledge(packet_id);
                Ok(Answered::Publish(
                    sent.and_then(|sent| self.forget(sent, journal)),
                ))
            }
            Some(_) => Err(Close::new(
                ReasonCode::ProtocolError,
                "PUBACK for a QoS 2 message",
            )),
        }
    }

    /// PUBREC; `refused`: with a reason of 0x80 or more, which ends the
    /// handshake [MQTT-4.4.0-2].
    ///
    /// # Errors
    /// The PUBLISH was of QoS 1, which PUBACK answers.
    pub fn received(
        &mut self,
        packet_id: PacketId,
        refused: bool,
        now: Time,
        journal: &mut Journal,
    ) -> Result<Answered, Close> {
        if (self.window.get(packet_id)).is_some_and(|sent| sent.qos != Qos::ExactlyOnce) {
            return Err(Close::new(
                ReasonCode::ProtocolError,
                "PUBREC for a QoS 1 message",
            ));
        }
        if refused {
            let sent = self.window.acknowledge(packet_id);
            if sent.as_ref().is_some_and(Sent::is_stale)
                && let Some(keeping) = &self.keeping
            {
                keeping.delete_releasing(packet_id, journal);
            }
            return Ok(match sent {
                Some(sent) => Answered::Publish(self.forget(sent, journal)),
                None => Answered::Nothing,
            });
        }
        Ok(match self.window.receive(packet_id, now) {
            Received::Sent(sent) => {
                if let Some(keeping) = &mut self.keeping {
                    keeping.put_releasing(packet_id, journal);
                }
                Answered::Publish(self.forget(sent, journal))
            }
            Received::Again => Answered::Publish(None),
            Received::Unknown => Answered::Nothing,
        })
    }

    /// PUBCOMP.
    pub fn complete(&mut self, packet_id: PacketId, journal: &mut Journal) {
        if self.window.complete(packet_id)
            && let Some(keeping) = &self.keeping
        {
            keeping.delete_releasing(packet_id, journal);
        }
    }

    /// The job of an acknowledged PUBLISH that still counts.
    fn forget(&mut self, sent: Sent, journal: &mut Journal) -> Option<SentJob> {
        let kept_bytes = match (sent.job, &mut self.member) {
            (Some(job), Some(member)) if job.lease.is_straight() => &mut member.straight_bytes,
            _ => &mut self.kept_bytes,
        };
        *kept_bytes = kept_bytes.saturating_sub(sent.cost_bytes);
        self.remove_row(sent.row, journal);
        if self.stale_until < Time::MAX && !self.window.is_full_of_stale() {
            self.stale_until = Time::MAX;
        }
        sent.job.filter(|job| job.hold != Hold::Settled)
    }

    // ---- small parts

    /// Appends encoded answers to what the client sent.
    fn append_answers(
        &mut self,
        answers: &[u8],
        gates: &[(usize, Receipt)],
        effects: &mut Effects,
    ) {
        if !answers.is_empty() {
            self.give_buffer(effects);
            effects.tally.note_answers(self.terms.wire, answers);
            self.outbox.append_gated(answers, gates);
        }
    }

    fn give_buffer(&mut self, effects: &mut Effects) {
        if !self.outbox.has_buffer()
            && let Some(spare) = effects.spare.pop()
        {
            self.outbox.set_buffer(spare);
        }
    }

    fn wake(&mut self, effects: &mut Effects) {
        if let Some(link) = &mut self.link
            && std::mem::take(&mut link.idle)
        {
            effects.wakers.extend(link.waker.take());
        }
    }
}

impl Slotted for Session {}

/// Encodes a PUBLISH into the outbox.
#[inline(always)]
fn put_out(
    outbox: &mut Outbox,
    publication: &Publication<'_>,
    form: Form,
    own: &[u8],
    effects: &mut Effects,
) {
    // Before the form is given away, as it is in registers here.
    let payload_len = publication.payload.len();
    (effects.tally).note_delivered(form.wire, form.qos, form.dup, payload_len);
    outbox.note_message(publication.now);
    publication.append_to(outbox, &mut effects.frames, form, own);
}

fn put_pubrel(outbox: &mut Outbox, packet_id: PacketId, wire: Wire, effects: &Effects) {
    outbox.append(|out| {
        let from = out.len();
        encode(&Packet::Pubrel(Ack::new(packet_id)), wire, out);
        effects.tally.note_answers(wire, &out[from..]);
    });
}

/// Where a message comes from that is sent.
#[derive(Clone, Copy)]
enum Source {
    /// From its publisher.
    New,
    /// From among those that wait.
    Waiting(StoredRow),
    /// From a queue.
    Job(SentJob),
}

impl About<'_> {
    /// As user properties, behind those of the message: who takes the last of
    /// a name takes the queue's. For a member that does not see so many bytes of
    /// the topic, nor of the queue's name.
    fn encode(&self, publication: &Publication<'_>, mount_bytes: u16, out: &mut Vec<u8>) {
        let topic = publication.topic.as_str();
        let (mount, topic) = topic
            .split_at_checked(mount_bytes.into())
            .unwrap_or_default();
        let mut push = |name, value: &str| Property::UserProperty((name, value)).encode(out);
        let mut decimal = itoa::Buffer::new();
        push("queue", &leave_queue(self.queue, mount));
        push("delivery", decimal.format(self.delivery));
        push("enqueued-at", decimal.format(self.enqueued_at_ms));
        push("message-id", publication.id.digits(&mut [0; 16]));
        push("topic", topic);
    }
}

fn form(terms: &Terms, qos: Qos, retain: bool, topic_prefix: &'static str) -> Form {
    Form {
        wire: terms.wire,
        dup: false, // [MQTT-3.3.1-2], [MQTT-3.3.1-3]
        retain,
        qos,
        packet_id: None,
        topic_prefix,
        mount_bytes: terms.mount_bytes,
        aliased: false,
    }
}

/// Says the topic by an alias where that saves bytes, and whether the client
/// takes a packet of that size; if not, no alias is given.
#[inline]
fn fit(
    terms: &Terms,
    aliases: &mut Option<Box<Given>>,
    publication: &Publication<'_>,
    form: &mut Form,
    own: &mut Vec<u8>,
) -> bool {
    // Most clients ask for neither, and most messages grow by nothing.
    let is_plain = aliases.is_none() && own.is_empty();
    is_plain && terms.takes_any() || make_fit(terms, aliases, publication, form, own)
}

#[inline(never)]
fn make_fit(
    terms: &Terms,
    aliases: &mut Option<Box<Given>>,
    publication: &Publication<'_>,
    form: &mut Form,
    own: &mut Vec<u8>,
) -> bool {
    if let Some(given) = aliases {
        let topic = publication.seen_topic(*form);
        let may_grow = terms.takes(publication.packet_bytes(*form, own) + NEW_ALIAS_BYTES);
        let (alias, aliased) = match given.name(form.topic_prefix, topic, may_grow) {
            Named::Known(alias) => (Some(alias), true),
            Named::New(alias) => (Some(alias), false),
            Named::Full => (None, false),
        };
        form.aliased = aliased;
        alias
            .into_iter()
            .for_each(|alias| Property::TopicAlias(alias).encode(own));
    }
    terms.takes(publication.packet_bytes(*form, own))
}

fn prefix(queue_topic: bool) -> &'static str {
    match queue_topic {
        true => "$queue/",
        false => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There may be a million.
    #[test]
    fn a_session_is_small() {
        let bytes = size_of::<Session>();
        println!("a session: {bytes} bytes");
        // The next size that the allocator has is 640.
        assert!(bytes <= 512, "{bytes} bytes");
    }
}
