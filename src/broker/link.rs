//! A connection's end of the conversation: its packets, one after the other.
//!
//! Owns what belongs to the connection and not to the session: the PUBLISHes
//! that it holds back. Every packet that the broker understands is handled
//! here, or sent on from here.

use std::cell::Cell;
use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Arc;

use super::authenticate::Enhanced;
use super::door::Door;
use super::lists::List;
use super::publish::{Incoming, Queued, Refused, Sorted, Taken};
use super::recording::SentAliases;
use super::timers::Timer;
use super::{Core, Worker};
use crate::access::{Client, OwnRights, Permit};
use crate::config::Durability;
use crate::journal::{Journal, Receipt};
use crate::message::{Identity, PacketId, Qos, QueueId, SessionId, Time};
use crate::protocol::{
    Ack, AckKind, Disconnect, Packet, PacketType, Property, Publish, ReasonCode, encode, encode_ack,
};
use crate::queue::Settlement;
use crate::session::{Answered, Came, Close, Effects, ReceivedAliases, Session, Terms};
use crate::slots::Locked;

/// How long a PUBLISH that found a session full waits before it tries again.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_millis(50);

/// The connection's hold on its session.
pub struct Link {
    pub session: SessionId,
    pub(super) number: u32,
    pub identity: Arc<Identity>,
    /// That came with the connection, or with its last AUTH.
    pub(super) own_rights: Option<OwnRights>,
    pub terms: Terms,
    held: Option<Box<Held>>,
    pub(super) enhanced: Option<Box<Enhanced>>,
    /// Its listener's.
    pub door: Arc<Door>,
    /// What comes on it is stored at least so.
    pub(super) durability: Durability,
    aliases: Option<Box<Aliases>>,
    // CONNACK is on its way.
    pub(super) greeted: bool,
    pub(super) permit: Cell<Permit>,
    /// Its client is on the broker's own machine.
    pub is_local: bool,
    /// What the client has from earlier connections is not read yet: nothing
    /// is to be read from it.
    pub is_resuming: bool,
    /// Its session is stored.
    pub(super) is_kept: bool,
    /// What its session was not told of yet.
    pub(super) came: Came,
}

/// Why a connection stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The client said DISCONNECT.
    Disconnect,
    /// It said DISCONNECT, and that its will is to be published.
    DisconnectWithWill,
    /// The connection broke, or the client closed it without a word.
    Lost,
    /// The broker goes.
    BrokerStops,
    /// The broker closes it, and says why.
    Closed(Close),
}

impl Link {
    /// What the client is to know of the end of the connection, before it is
    /// closed: nothing before CONNACK [MQTT-3.14.0-1].
    pub fn last_word(&self, stop: &Stop) -> Option<Close> {
        match stop {
            _ if !self.greeted => None,
            Stop::Closed(close) => Some(close.clone()),
            Stop::BrokerStops => Some(Close::new(
                ReasonCode::ServerShuttingDown,
                "the broker stops",
            )),
            Stop::Disconnect | Stop::DisconnectWithWill | Stop::Lost => None,
        }
    }
}

impl From<Close> for Stop {
    fn from(close: Close) -> Stop {
        match close.reason {
            ReasonCode::ServerShuttingDown => Stop::BrokerStops,
            _ => Stop::Closed(close),
        }
    }
}

/// What topic aliases stand for on a connection.
#[derive(Default)]
struct Aliases {
    received: ReceivedAliases,
    /// Those that its client gets, while somebody records.
    sent: SentAliases,
}

/// PUBLISHes that wait for room in a queue, in the order in which they came,
/// and those behind them.
struct Held {
    publishes: VecDeque<HeldPublish>,
    bytes: usize,
    // The queue in whose line the connection stands.
    queue: Option<QueueId>,
    // Since when the first of them waits.
    since: Time,
    alarm: Time,
}

struct HeldPublish {
    topic: Box<str>,
    payload: Box<[u8]>,
    qos: Qos,
    retain: bool,
    packet_id: Option<PacketId>,
}

impl HeldPublish {
    fn of(publish: &Publish<'_>) -> HeldPublish {
        HeldPublish {
            topic: publish.topic.into(),
            payload: publish.payload.into(),
            qos: publish.qos,
            retain: publish.retain,
            packet_id: publish.packet_id,
        }
    }

    fn cost_bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + size_of::<HeldPublish>()
    }
}

impl Link {
    pub(super) fn new(
        session: SessionId,
        number: u32,
        identity: Arc<Identity>,
        own_rights: Option<OwnRights>,
        terms: Terms,
        door: Arc<Door>,
    ) -> Link {
        Link {
            session,
            number,
            identity,
            own_rights,
            terms,
            held: None,
            enhanced: None,
            durability: door.durability.unwrap_or(Durability::Memory),
            door,
            aliases: None,
            permit: Cell::default(),
            greeted: false,
            is_local: false,
            is_resuming: false,
            is_kept: false,
            came: Came::default(),
        }
    }

    /// Whole packets of so many bytes came.
    #[inline]
    pub fn note_read(&mut self, packets_bytes: usize) {
        // A packet is below 256 MiB, and few reads come before the session is told.
        self.came.bytes = self.came.bytes.wrapping_add(packets_bytes as u32);
    }

    /// Whose it is, for who decides what it may do.
    pub(super) fn client(&self) -> Client<'_> {
        Client {
            identity: &self.identity,
            own: self.own_rights.as_ref(),
        }
    }

    /// What an alias of the client's stands for.
    pub(super) fn received_topic(&self, alias: NonZeroU16) -> Option<&str> {
        self.aliases.as_ref()?.received.get(alias)
    }

    /// To be given back with [`Link::set_sent_aliases`].
    pub(super) fn take_sent_aliases(&mut self) -> SentAliases {
        let aliases = self.aliases.as_mut();
        aliases.map_or_else(SentAliases::default, |aliases| {
            std::mem::take(&mut aliases.sent)
        })
    }

    pub(super) fn set_sent_aliases(&mut self, sent: SentAliases) {
        if !sent.is_unknown() {
            self.aliases.get_or_insert_default().sent = sent;
        }
    }

    /// The first held PUBLISH is through.
    fn let_go_of_first(&mut self, now: Time) {
        if let Some(held) = &mut self.held {
            let first = held.publishes.pop_front();
            held.bytes -= first.map_or(0, |first| first.cost_bytes());
            held.since = now;
            if held.publishes.is_empty() {
                self.held = None; // The next PUBLISH goes straight on.
            }
        }
    }
}

impl Core {
    /// One packet of a client. What it answers goes into `worker.answers`.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub fn handle(
        &self,
        worker: &mut Worker,
        link: &mut Link,
        packet: &Packet<'_>,
        now: Time,
    ) -> Result<(), Stop> {
        if worker.gathered_len() > 0 && !worker.may_gather(packet) {
            self.settle_gathered(worker, link.session, now);
        }
        worker.effects.receipt = Receipt::NONE;
        if worker.pin.is_some() {
            // What a packet changes in more than its own session is pinned where
            // it does: most change nothing that is stored.
            let is_turn = match packet {
                // With its received id.
                Packet::Publish(publish) => link.is_kept && publish.qos == Qos::ExactlyOnce,
                Packet::Puback(_) | Packet::Pubrec(_) | Packet::Pubrel(_) | Packet::Pubcomp(_) => {
                    link.is_kept
                }
                _ => true,
            };
            if is_turn {
                return self.handle_pinned(worker, link, packet, now);
            }
        }
        let wire = link.terms.wire;
        match packet {
            Packet::Publish(publish) => self.handle_publish(worker, link, publish, now)?,
            Packet::Puback(ack) => self.handle_puback(worker, link, ack, now)?,
            Packet::Pubrec(ack) => self.handle_pubrec(worker, link, ack, now)?,
            Packet::Pubrel(ack) => self.handle_pubrel(worker, link, ack.packet_id),
            Packet::Pubcomp(ack) => self.handle_pubcomp(worker, link, ack.packet_id, now),
            Packet::Subscribe(subscribe) => self.handle_subscribe(worker, link, subscribe, now)?,
            Packet::Unsubscribe(unsubscribe) => {
                self.handle_unsubscribe(worker, link, unsubscribe, now)?
            }
            Packet::Pingreq => encode(&Packet::Pingresp, wire, &mut worker.answers), // [MQTT-3.12.4-1]
            Packet::Disconnect(disconnect) => return Err(self.handle_disconnect(link, disconnect)),
            Packet::Auth(auth) => self.handle_auth(worker, link, auth, now)?,
            Packet::Connect(_) => return Err(violation("a second CONNECT")), // [MQTT-3.1.0-2]
            Packet::Connack(_) | Packet::Suback(_) | Packet::Unsuback(_) | Packet::Pingresp => {
                return Err(violation("a packet that clients do not send"));
            }
        }
        Ok(())
    }

    /// A read begins, which may bring several packets: what lists are to do for
    /// them may wait until [`Core::end_read`], so that not each takes their locks.
    pub fn begin_read(&self, worker: &mut Worker) {
        worker.effects.is_read = true;
    }

    /// The packets of the read are handled.
    #[inline]
    pub fn end_read(&self, worker: &mut Worker, link: &Link, now: Time) {
        worker.effects.is_read = false;
        if worker.gathered_len() > 0 {
            self.settle_gathered(worker, link.session, now);
        }
    }

    /// Lists get what PUBACKs said, and give out what they were put into.
    #[inline(never)]
    fn settle_gathered(&self, worker: &mut Worker, session: SessionId, now: Time) {
        // Nothing is added meanwhile.
        let is_read = std::mem::take(&mut worker.effects.is_read);
        // Each list in a turn of its own: the disk waits for no longer one.
        let mut done = std::mem::take(&mut worker.done);
        if !done.is_empty() {
            done.sort_by_key(|(queue, _)| *queue);
            let locked = self.sessions.lock(session.0);
            let mut next = locked.and_then(|mut session| session.take_passed_over());
            for same in done.chunk_by(|(one, _), (other, _)| one == other) {
                self.pinned(worker, |worker| {
                    self.settle_with_room(worker, session, same[0].0, &mut next, now, |list| {
                        let jobs = same.iter().filter(|(_, lease)| !lease.is_straight());
                        for (_, lease) in jobs {
                            list.settle(*lease, Settlement::Done, now);
                        }
                    });
                });
            }
            self.pinned(worker, |worker| self.offer_room(worker, session, next, now));
            done.clear();
        }
        worker.done = done;
        let mut fed = std::mem::take(&mut worker.effects.fed);
        fed.sort_unstable();
        fed.dedup();
        for queue in fed.drain(..) {
            self.pinned(worker, |worker| {
                self.change_list(worker, queue, now, |_| ())
            });
        }
        worker.effects.fed = fed;
        worker.effects.is_read = is_read;
    }

    /// A list settles jobs of a session, and is told in the same go if that has
    /// room for it again: `next` is the list that is to know, and then the one
    /// after it.
    fn settle_with_room(
        &self,
        worker: &mut Worker,
        session: SessionId,
        queue: QueueId,
        next: &mut Option<QueueId>,
        now: Time,
        settle: impl FnOnce(&mut List),
    ) {
        let room = next.take_if(|next| *next == queue).is_some();
        self.change_list(worker, queue, now, |list| {
            settle(list);
            if room {
                list.queue.room(session);
            }
        });
        if room && let Some(mut session) = self.sessions.lock(session.0) {
            *next = session.take_passed_over();
        }
    }

    /// As `handle`, which finds nothing to pin then: so there is one copy of it,
    /// and no test at its end.
    #[inline(never)]
    fn handle_pinned(
        &self,
        worker: &mut Worker,
        link: &mut Link,
        packet: &Packet<'_>,
        now: Time,
    ) -> Result<(), Stop> {
        self.pinned(worker, |worker| self.handle(worker, link, packet, now))
    }

    // ---- PUBLISH

    fn handle_publish(
        &self,
        worker: &mut Worker,
        link: &mut Link,
        publish: &Publish<'_>,
        now: Time,
    ) -> Result<(), Stop> {
        let tally = &worker.effects.tally;
        tally.note_published(publish.qos, publish.payload.len());
        link.came.messages = link.came.messages.wrapping_add(1);
        if let Some(held) = &mut link.held {
            return hold(held, publish, self.limits().held_bytes_max).map_err(Stop::Closed);
        }
        let refused = if publish.properties.is_empty() {
            let incoming = Incoming {
                topic: publish.topic,
                payload: publish.payload,
                sorted: Sorted::default(),
                qos: publish.qos,
                retain: publish.retain,
            };
            self.try_publish(worker, link, &incoming, publish.packet_id, now)?
        } else {
            let mut scratch = std::mem::take(&mut worker.properties);
            let refused = self.handle_with_properties(worker, link, publish, &mut scratch, now);
            worker.properties = scratch;
            refused?
        };
        let Some(refused) = refused else {
            return Ok(());
        };
        let Some(packet_id) = publish.packet_id else {
            self.counters.dropped_queue_full.increment();
            return Ok(());
        };
        if link.terms.has_reasons {
            let kind = answer_kind(publish.qos);
            let close = match refused {
                Refused::Never(close) => close,
                Refused::QueueFull { .. } => Close::new(
                    ReasonCode::QuotaExceeded,
                    "a queue is full; try again later",
                ),
                Refused::SessionFull => Close::new(
                    ReasonCode::QuotaExceeded,
                    "a subscriber's session is full; try again later",
                ),
                Refused::DiskLow => Close::new(
                    ReasonCode::QuotaExceeded,
                    "the broker's disk is nearly full; try again later",
                ),
            };
            link.terms
                .refuse(kind, packet_id, &close, &mut worker.answers);
            return Ok(());
        }
        let mut held = Box::new(Held {
            publishes: VecDeque::new(),
            bytes: 0,
            queue: None,
            since: now,
            alarm: now + self.limits().held_timeout,
        });
        hold(&mut held, publish, self.limits().held_bytes_max).map_err(Stop::Closed)?;
        link.held = Some(held);
        self.timers.schedule(
            now + self.limits().held_timeout,
            Timer::Held(link.session, link.number),
        );
        if self.wait_for(worker, link, refused, now) {
            self.retry_held(worker, link, now)?;
        }
        Ok(())
    }

    /// Resolves the alias and sorts the properties, then publishes.
    fn handle_with_properties(
        &self,
        worker: &mut Worker,
        link: &mut Link,
        publish: &Publish<'_>,
        scratch: &mut Vec<u8>,
        now: Time,
    ) -> Result<Option<Refused>, Stop> {
        let sorted = Sorted::of(publish.properties, scratch).map_err(Stop::Closed)?;
        if let Some(alias) = sorted.alias {
            if alias.get() > link.terms.topic_aliases_in {
                let why = "a topic alias is above the Topic Alias Maximum of CONNACK";
                return Err(Stop::Closed(Close::new(ReasonCode::TopicAliasInvalid, why))); // [MQTT-3.3.2-9]
            }
            if !publish.topic.is_empty() {
                let aliases = &mut link.aliases.get_or_insert_default().received;
                // One that is too long stays too long, and takes no memory.
                let longest = "$queue/".len() + self.topic_limits().bytes_max + 4;
                let len = publish.topic.floor_char_boundary(longest);
                aliases.set(alias, &publish.topic[..len]);
            }
        }
        let topic = match sorted.alias {
            Some(alias) if publish.topic.is_empty() => {
                link.received_topic(alias).ok_or_else(|| {
                    let why = "a topic alias stands for no topic on this connection";
                    Stop::Closed(Close::new(ReasonCode::ProtocolError, why))
                })?
            }
            _ => publish.topic,
        };
        let incoming = Incoming {
            topic,
            payload: publish.payload,
            sorted,
            qos: publish.qos,
            retain: publish.retain,
        };
        self.try_publish(worker, link, &incoming, publish.packet_id, now)
    }

    /// Publishes and acknowledges [MQTT-3.3.4-1]; what refused it for now, if
    /// anything did.
    fn try_publish(
        &self,
        worker: &mut Worker,
        link: &Link,
        incoming: &Incoming<'_>,
        packet_id: Option<PacketId>,
        now: Time,
    ) -> Result<Option<Refused>, Stop> {
        // Remembered before it is routed: a second one is not routed
        // [MQTT-4.3.3-10], in 3.1.1 [MQTT-4.3.3-2].
        if incoming.qos == Qos::ExactlyOnce
            && let Some(packet_id) = packet_id
        {
            let new = match self.session_of(link) {
                Some(mut session) => {
                    let effects = &mut worker.effects;
                    let received = session.receive(packet_id, now, &mut effects.journal);
                    self.store_session(&mut session, effects);
                    received.map_err(Stop::Closed)?
                }
                None => false,
            };
            if !new {
                let reason = ReasonCode::Success;
                answer(worker, link, AckKind::Pubrec, packet_id, reason);
                return Ok(None);
            }
        }
        match self.accept(worker, link, incoming, now) {
            Ok(taken) => {
                if let Some(packet_id) = packet_id {
                    // In the order of the PUBLISHes [MQTT-4.6.0-2], [MQTT-4.6.0-3].
                    let kind = answer_kind(incoming.qos);
                    match taken {
                        Taken::Queues(queued) if link.terms.wants_words => {
                            answer_queued(worker, link, kind, packet_id, queued);
                        }
                        Taken::Queues(_) | Taken::Subscribers => {
                            answer(worker, link, kind, packet_id, ReasonCode::Success);
                        }
                        Taken::Nobody => {
                            let reason = ReasonCode::NoMatchingSubscribers;
                            answer(worker, link, kind, packet_id, reason);
                        }
                    }
                }
                Ok(None)
            }
            Err(refused) => {
                // [MQTT-4.3.3-9]
                if incoming.qos == Qos::ExactlyOnce
                    && let Some(packet_id) = packet_id
                    && let Some(mut session) = self.session_of(link)
                {
                    session.release(packet_id, &mut worker.effects.journal);
                    self.store_session(&mut session, &mut worker.effects);
                }
                if matches!(refused, Refused::Never(_)) {
                    self.counters.refused_messages.increment();
                }
                match refused {
                    // What is no violation can be said in the acknowledgement.
                    Refused::Never(close)
                        if link.terms.has_reasons && close.reason.fits(PacketType::Puback) =>
                    {
                        let client = &link.identity.client;
                        tracing::debug!(?client, topic = ?incoming.topic, why = %close.why, "PUBLISH refused");
                        if let Some(packet_id) = packet_id {
                            let kind = answer_kind(incoming.qos);
                            let out = &mut worker.answers;
                            link.terms.refuse(kind, packet_id, &close, out);
                        }
                        Ok(None)
                    }
                    Refused::Never(close) => Err(Stop::Closed(close)),
                    refused => Ok(Some(refused)),
                }
            }
        }
    }

    /// Tries the held PUBLISHes again, in their order.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub fn retry_held(&self, worker: &mut Worker, link: &mut Link, now: Time) -> Result<(), Stop> {
        self.pinned(worker, |worker| self.retry_held_pinned(worker, link, now))
    }

    fn retry_held_pinned(
        &self,
        worker: &mut Worker,
        link: &mut Link,
        now: Time,
    ) -> Result<(), Stop> {
        if let Some(mut session) = self.session_of(link) {
            session.retried();
        }
        while let Some(first) = link.held.as_ref().and_then(|held| held.publishes.front()) {
            // Only who is not told why is held back, and has no properties.
            let incoming = Incoming {
                topic: &first.topic,
                payload: &first.payload,
                sorted: Sorted::default(),
                qos: first.qos,
                retain: first.retain,
            };
            let packet_id = first.packet_id;
            worker.effects.receipt = Receipt::NONE;
            let refused = self.try_publish(worker, link, &incoming, packet_id, now)?;
            match refused {
                Some(refused) if packet_id.is_some() => {
                    if !self.wait_for(worker, link, refused, now) {
                        return Ok(());
                    }
                }
                refused => {
                    if refused.is_some() {
                        self.counters.dropped_queue_full.increment();
                    }
                    self.leave_line(worker, link, now);
                    link.let_go_of_first(now);
                }
            }
        }
        Ok(())
    }

    /// Sees to it that the connection is told when there may be room; whether
    /// there is already.
    fn wait_for(&self, worker: &mut Worker, link: &mut Link, refused: Refused, now: Time) -> bool {
        let queue = match refused {
            Refused::QueueFull { queue, .. } => Some(queue),
            Refused::SessionFull | Refused::DiskLow | Refused::Never(_) => None,
        };
        if link.held.as_ref().is_some_and(|held| held.queue != queue) {
            self.leave_line(worker, link, now);
        }
        let Some(held) = &mut link.held else {
            return false;
        };
        held.queue = queue;
        let waiter = (link.session, link.number);
        match refused {
            Refused::QueueFull { queue, cost_bytes } => {
                self.wait_for_room(queue, waiter, cost_bytes)
            }
            Refused::SessionFull | Refused::DiskLow | Refused::Never(_) => {
                self.timers
                    .schedule(now + RETRY_AFTER, Timer::Retry(link.session, link.number));
                false
            }
        }
    }

    /// The connection waits no longer for the queue that it waited for: whoever
    /// is next may try.
    pub(super) fn leave_line(&self, worker: &mut Worker, link: &mut Link, now: Time) {
        let held = link.held.as_mut();
        if let Some(queue) = held.and_then(|held| held.queue.take()) {
            let waiter = (link.session, link.number);
            self.change_list(worker, queue, now, |list| {
                list.waiters.retain(|(other, _)| *other != waiter)
            });
        }
    }

    /// Why the connection has to be closed, if a PUBLISH is held back for too
    /// long.
    pub fn held_too_long(&self, link: &mut Link, now: Time) -> Option<Close> {
        let held = link.held.as_mut()?;
        let due = held.since + self.limits().held_timeout;
        if now >= due {
            let why = "a queue stayed full for held_timeout_ms while a PUBLISH to it was held back";
            return Some(Close::new(ReasonCode::QuotaExceeded, why));
        }
        if now >= held.alarm {
            held.alarm = due;
            self.timers
                .schedule(due, Timer::Held(link.session, link.number));
        }
        None
    }

    // ---- acknowledgements

    fn handle_puback(
        &self,
        worker: &mut Worker,
        link: &Link,
        ack: &Ack<'_>,
        now: Time,
    ) -> Result<(), Stop> {
        let id = ack.packet_id;
        let gather = worker.effects.is_read && !ack.reason.is_failure();
        let acknowledge =
            |session: &mut Session, journal: &mut Journal| session.acknowledge(id, journal);
        self.handle_acknowledgement(worker, link, (ack, gather), now, acknowledge)?;
        Ok(())
    }

    fn handle_pubrec(
        &self,
        worker: &mut Worker,
        link: &Link,
        ack: &Ack<'_>,
        now: Time,
    ) -> Result<(), Stop> {
        let (id, refused) = (ack.packet_id, ack.reason.is_failure());
        let answered =
            self.handle_acknowledgement(worker, link, (ack, false), now, |session, journal| {
                session.received(id, refused, now, journal)
            })?;
        // Also for an id that nobody knows: the client waits for its PUBREL.
        let reason = match answered {
            true => ReasonCode::Success,
            false => ReasonCode::PacketIdentifierNotFound,
        };
        if !refused {
            answer(worker, link, AckKind::Pubrel, id, reason); // [MQTT-4.3.3-4]
        }
        Ok(())
    }

    fn handle_pubrel(&self, worker: &mut Worker, link: &Link, packet_id: PacketId) {
        let effects = &mut worker.effects;
        let released = self.session_of(link).is_some_and(|mut session| {
            let released = session.release(packet_id, &mut effects.journal);
            self.store_session(&mut session, effects);
            released
        });
        let reason = match released {
            true => ReasonCode::Success,
            false => ReasonCode::PacketIdentifierNotFound,
        };
        answer(worker, link, AckKind::Pubcomp, packet_id, reason); // [MQTT-4.3.3-11]
    }

    fn handle_pubcomp(&self, worker: &mut Worker, link: &Link, packet_id: PacketId, now: Time) {
        if let Some(mut session) = self.session_of(link) {
            session.complete(packet_id, &mut worker.effects.journal);
            self.use_room(worker, link, session, now);
        }
    }

    /// What an acknowledgement frees is filled again; the job it was for, if
    /// any, is settled as it says, or with others (`gather`). Whether there was
    /// what it is for.
    fn handle_acknowledgement(
        &self,
        worker: &mut Worker,
        link: &Link,
        (ack, gather): (&Ack<'_>, bool),
        now: Time,
        acknowledge: impl FnOnce(&mut Session, &mut Journal) -> Result<Answered, Close>,
    ) -> Result<bool, Stop> {
        let Some(mut session) = self.session_of(link) else {
            return Ok(false);
        };
        let effects = &mut worker.effects;
        // What the client has was stored before, and is found at once.
        while session.may_have_sent_more() && self.read_page(&mut session, effects) {}
        let answered = acknowledge(&mut session, &mut effects.journal).map_err(Stop::Closed)?;
        let job = match answered {
            Answered::Publish(Some(job)) if !job.lease.is_straight() => job,
            answered => {
                if let Answered::Publish(Some(job)) = answered {
                    if ack.reason.is_failure() {
                        self.counters.dropped_group.increment(); // [MQTT-4.8.2-6]
                    }
                    if gather && session.has_passed_over() {
                        // There is room for several at the end of the read.
                        self.refill(&mut session, effects, now);
                        worker.done.push((job.queue, job.lease));
                        return Ok(true);
                    }
                }
                self.use_room(worker, link, session, now);
                return Ok(answered != Answered::Nothing);
            }
        };
        self.refill(&mut session, effects, now);
        if gather {
            worker.done.push((job.queue, job.lease));
            return Ok(true);
        }
        let mut next = session.take_passed_over();
        drop(session);
        self.pinned(worker, |worker| {
            self.settle_with_room(worker, link.session, job.queue, &mut next, now, |list| {
                list.settle_as(job.lease, ack, now);
            });
            self.offer_room(worker, link.session, next, now);
        });
        Ok(true)
    }

    /// There may be room in the session's window.
    #[inline]
    fn use_room(
        &self,
        worker: &mut Worker,
        link: &Link,
        mut session: Locked<'_, Session>,
        now: Time,
    ) {
        self.refill(&mut session, &mut worker.effects, now);
        let next = session.take_passed_over();
        drop(session);
        if next.is_some() {
            if worker.gathered_len() > 0 {
                self.settle_gathered(worker, link.session, now);
            }
            self.pinned(worker, |worker| {
                self.offer_room(worker, link.session, next, now)
            });
        }
    }

    /// Sends on what waits, also from disk, and hands in what the session has
    /// to store.
    #[inline]
    fn refill(&self, session: &mut Session, effects: &mut Effects, now: Time) {
        session.refill(now, effects);
        self.store_session(session, effects);
        self.read_messages(session, effects, now);
    }

    // ---- DISCONNECT

    fn handle_disconnect(&self, link: &mut Link, disconnect: &Disconnect<'_>) -> Stop {
        for property in disconnect.properties.iter() {
            let Property::SessionExpiryInterval(secs) = property else {
                continue;
            };
            if let Err(close) = link.terms.expire_after(secs, self.session_settings()) {
                return Stop::Closed(close);
            }
            if let Some(mut session) = self.session_of(link) {
                session.terms = link.terms;
            }
        }
        match disconnect.reason {
            ReasonCode::Success => Stop::Disconnect,
            _ => Stop::DisconnectWithWill,
        }
    }
}

fn hold(held: &mut Held, publish: &Publish<'_>, bytes_max: usize) -> Result<(), Close> {
    let publish = HeldPublish::of(publish);
    held.bytes += publish.cost_bytes();
    if held.bytes > bytes_max {
        let why = "a queue is full, and the PUBLISHes held back for it exceed held_bytes_max";
        return Err(Close::new(ReasonCode::QuotaExceeded, why));
    }
    held.publishes.push_back(publish);
    Ok(())
}

fn answer_kind(qos: Qos) -> AckKind {
    match qos {
        Qos::ExactlyOnce => AckKind::Pubrec,
        _ => AckKind::Puback,
    }
}

#[inline]
fn answer(
    worker: &mut Worker,
    link: &Link,
    kind: AckKind,
    packet_id: PacketId,
    reason: ReasonCode,
) {
    let (wire, from) = (link.terms.wire, worker.answers.len());
    encode_ack(kind, packet_id, reason, wire, &mut worker.answers);
    worker.gate_answer(from);
}

/// A queue has the message: under which id, and whether it had it before.
#[inline(never)]
fn answer_queued(
    worker: &mut Worker,
    link: &Link,
    kind: AckKind,
    packet_id: PacketId,
    queued: Queued,
) {
    let mut digits = [0; 16];
    let told = &mut worker.told;
    told.clear();
    told.push(Property::UserProperty((
        "message-id",
        queued.id.digits(&mut digits),
    )));
    if queued.is_duplicate {
        told.push(Property::UserProperty(("duplicate", "1")));
    }
    let (from, success) = (worker.answers.len(), ReasonCode::Success);
    (link.terms).acknowledge(kind, packet_id, success, told, &mut worker.answers);
    worker.gate_answer(from);
}

/// The client has said how large its packets may be, and this is none.
pub(super) fn too_large() -> Close {
    let why = "what has to be said does not fit the client's Maximum Packet Size";
    Close::new(ReasonCode::PacketTooLarge, why)
}

pub(super) fn violation(why: &'static str) -> Stop {
    Stop::Closed(Close::new(ReasonCode::ProtocolError, why)) // [MQTT-4.8.0-1]
}
