//! One client's conversation: what it is owed, and what it owes.
//!
//! Owns a session's state (MQTT 3.1.1, 4.1): what is in flight both ways, what
//! waits, the outbox. Pure: a packet, a delivery or a moment goes in, effects
//! come out. Knows neither sockets nor who else is there: a PUBLISH comes from
//! `broker`, and leaves through the outbox to the connection that writes it.

mod backlog;
mod outbox;
mod publication;
mod terms;
mod window;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use rustc_hash::{FxHashMap, FxHashSet};

pub use backlog::Backlog;
pub use outbox::Outbox;
pub use publication::{Form, Frames, Publication};
pub use terms::Terms;
pub use window::{Hold, Received, Sent, SentJob, Window};

use crate::config::{Limits, SessionFull};
use crate::message::{Identity, LeaseId, Message, PacketId, Qos, QueueId, Time};
use crate::protocol::{Ack, Packet, Properties, ReasonCode, encode};

/// The client reads its QoS 1 and 2 messages when it can: so many bytes wait
/// encoded, the rest as messages that others may share.
const OUTBOX_READY_BYTES_MAX: usize = 256 << 10;

/// Buffers kept for the next that needs one, in each worker.
const SPARE_BUFFERS_MAX: usize = 256;
/// A buffer that grew beyond is not kept.
const SPARE_BUFFER_BYTES_MAX: usize = 64 << 10;

/// The session.
pub struct Session {
    pub identity: Arc<Identity>,
    pub terms: Terms,
    pub window: Window,
    /// By what they are found with again; the QoS granted.
    pub subscriptions: FxHashMap<Subscribed, Qos>,
    pub will: Option<Box<Will>>,
    /// Subscriptions whose retained messages are not all sent yet.
    pub backlog: Backlog,
    /// When the last connection ended.
    pub absent_since: Time,
    /// Whether a timer looks after its absence.
    pub expiry_watched: bool,
    /// When a window full of stale jobs is to end the connection.
    pub stale_until: Option<Time>,
    link: Option<Link>,
    link_number: u32,
    // Why the last connection had to go, for it to say so.
    closing: Option<Close>,
    ended: bool,
    outbox: Outbox,
    // Bytes that the connection had taken and not written when it last looked.
    writing_len: usize,
    // Counts how often the outbox was taken to be written.
    filling: u32,
    waiting: VecDeque<Waiting>,
    // Of the messages that are kept, waiting or in flight.
    kept_bytes: usize,
    // Ids of QoS 2 messages received and not released [MQTT-4.3.3-2].
    received: FxHashSet<PacketId>,
    // Jobs in the outbox that are done as soon as they are written.
    unconfirmed: Vec<(QueueId, LeaseId)>,
    // Those among them that the connection has taken.
    taken: Vec<(QueueId, LeaseId)>,
    // Queues that had something and found no room.
    passed_over: VecDeque<QueueId>,
}

/// What a session subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subscribed {
    /// A filter, by its number in the topic tree.
    Filter(u32),
    /// A share group.
    Group(QueueId),
    /// A work queue.
    Queue(QueueId),
}

/// A will (3.1.2.5).
#[derive(Debug)]
pub struct Will {
    pub topic: Box<str>,
    pub payload: Box<[u8]>,
    pub qos: Qos,
    pub retain: bool,
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
}

/// A message that waits for room in the window.
struct Waiting {
    message: Arc<Message>,
    qos: Qos,
    retain: bool,
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
    /// There is no room, and the session has to end.
    Overflow,
}

/// What came of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobDelivered {
    Taken,
    /// Taken, and now there is no room for another.
    TakenLast,
    NoRoom,
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
    pub will: Option<Box<Will>>,
    /// QoS 2 jobs that were never written.
    pub unwritten: Vec<(QueueId, LeaseId)>,
    /// Lists that it had unsubscribed from, and still held jobs of.
    pub left: Vec<QueueId>,
}

/// What handling packets leaves behind for the worker to do, and buffers that
/// it uses again.
#[derive(Default)]
pub struct Effects {
    /// Connections that have something to write.
    pub wakers: Vec<Waker>,
    pub frames: Frames,
    spare: Vec<Vec<u8>>,
}

impl Effects {
    /// Wakes each connection once.
    pub fn wake_all(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }

    /// Takes back the buffer of an outbox that is written.
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
            terms,
            window: Window::new(terms.inflight_max, first_packet_id),
            subscriptions: FxHashMap::default(),
            will: None,
            absent_since: Time::ZERO,
            expiry_watched: false,
            stale_until: None,
            link: None,
            link_number: 0,
            closing: None,
            ended: false,
            outbox: Outbox::default(),
            writing_len: 0,
            filling: 0,
            waiting: VecDeque::new(),
            kept_bytes: 0,
            received: FxHashSet::default(),
            unconfirmed: Vec::new(),
            taken: Vec::new(),
            passed_over: VecDeque::new(),
            backlog: Backlog::default(),
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

    /// Messages that wait for room in the window.
    pub fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    /// When the connection sent its last packet; `None` without connection.
    pub fn last_packet(&self) -> Option<Time> {
        self.link.as_ref().map(|link| link.last_packet)
    }

    // ---- the connection

    /// A connection takes the session; its number. CONNACK is the first that
    /// goes out on it [MQTT-3.2.0-1], then what the client has not
    /// acknowledged [MQTT-4.4.0-1].
    pub fn attach(
        &mut self,
        terms: Terms,
        connack: &Packet<'_>,
        now: Time,
        effects: &mut Effects,
    ) -> u32 {
        self.terms = terms;
        self.window.set_max(terms.inflight_max);
        self.link_number = self.link_number.wrapping_add(1);
        self.closing = None;
        self.stale_until = None;
        self.link = Some(Link {
            waker: None,
            idle: false,
            last_packet: now,
            retry: false,
            joining: true,
        });
        self.append_packet(connack, effects);
        self.resend(effects);
        self.refill(effects);
        self.link_number
    }

    /// The queues know of the connection: it gets jobs from now on.
    pub fn take_part(&mut self) {
        if let Some(link) = &mut self.link {
            link.joining = false;
        }
    }

    /// Answers to what the connection read go out behind what is there.
    /// Takes what there is to write into `writing` when that is empty. Without
    /// `waker` the connection goes on by itself.
    pub fn exchange(
        &mut self,
        number: u32,
        acks: &[u8],
        writing: &mut Outbox,
        waker: Option<&Waker>,
        now: Option<Time>,
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
            return Exchange::Closing(close.unwrap_or_else(|| {
                Close::new(ReasonCode::UnspecifiedError, "the session has ended")
            }));
        };
        if let Some(now) = now {
            link.last_packet = now;
        }
        self.append_answers(acks, effects);
        if writing.is_empty() && !self.outbox.is_empty() {
            effects.recycle(writing);
            std::mem::swap(writing, &mut self.outbox);
            self.filling = self.filling.wrapping_add(1);
            self.taken.append(&mut self.unconfirmed);
            if !self.waiting.is_empty() {
                self.refill(effects);
            }
        }
        self.writing_len = writing.len();
        if let Some(close) = &self.closing {
            return Exchange::Closing(close.clone());
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

    /// Whether retained messages may be sent on.
    pub fn has_room_for_backlog(&self) -> bool {
        self.waiting.is_empty() && self.has_room()
    }

    /// The jobs that were taken with the outbox.
    pub fn take_taken_jobs(&mut self) -> Vec<(QueueId, LeaseId)> {
        std::mem::take(&mut self.taken)
    }

    /// Ends the connection when it looks next.
    pub fn close(&mut self, close: Close, effects: &mut Effects) {
        if let Some(link) = &mut self.link {
            self.closing.get_or_insert(close);
            effects.wakers.extend(link.waker.take());
        }
    }

    /// The session is over, and what it kept is dropped; its connection, if
    /// it has one, still finds why.
    pub fn end(&mut self) {
        self.ended = true;
        self.window = Window::new(0, PacketId::MIN);
        self.waiting = VecDeque::new();
        self.kept_bytes = 0;
        self.received = FxHashSet::default();
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
        let mut refused = Vec::new();
        let mut lists: Vec<QueueId> = self.unconfirmed.iter().map(|(queue, _)| *queue).collect();
        let (filling, kept_bytes) = (self.filling, &mut self.kept_bytes);
        self.window.retain(|sent| {
            let Some(job) = sent.job else {
                return true;
            };
            lists.push(job.queue);
            match (sent.qos, sent.filling == filling, job.hold) {
                (Qos::ExactlyOnce, false, Hold::Current) => return true,
                (Qos::ExactlyOnce, true, Hold::Current) => {
                    unwritten.push((job.queue, job.lease));
                }
                // Somebody else may have the job: the client gets PUBREL for
                // the id, and no second PUBLISH.
                (Qos::ExactlyOnce, false, _) => refused.push(sent.packet_id),
                _ => {}
            }
            if let Some(message) = &sent.message {
                *kept_bytes -= message.cost_bytes();
            }
            false
        });
        refused.into_iter().for_each(|id| self.window.release(id));
        lists.sort_unstable();
        lists.dedup();
        lists.retain(|list| {
            let joined = [Subscribed::Queue(*list), Subscribed::Group(*list)];
            !joined
                .iter()
                .any(|joined| self.subscriptions.contains_key(joined))
        });
        self.link = None;
        self.absent_since = now;
        self.unconfirmed = Vec::new();
        self.writing_len = 0;
        self.passed_over.clear();
        let mut outbox = std::mem::take(&mut self.outbox);
        effects.recycle(&mut outbox);
        self.filling = self.filling.wrapping_add(1);
        Detached {
            will: self.will.take(),
            unwritten,
            left: lists,
        }
    }

    // ---- towards the client

    /// A message for one of its subscriptions, at `qos`.
    pub fn deliver(
        &mut self,
        publication: &Publication<'_>,
        qos: Qos,
        retain: bool,
        limits: &Limits,
        full: SessionFull,
        effects: &mut Effects,
    ) -> Delivered {
        if qos == Qos::AtMostOnce {
            return self.deliver_at_most_once(publication, retain, limits, effects);
        }
        let cost = publication.cost_bytes();
        if self.can_send(cost, limits) {
            self.send(publication, qos, retain, None, effects);
            return Delivered::Taken;
        }
        let mut dropped = 0;
        while self.waiting.len() >= limits.session_messages_max
            || self.kept_bytes + cost > limits.session_bytes_max
        {
            match full {
                SessionFull::End => return Delivered::Overflow,
                SessionFull::DropOldest => {}
                // There was room when the publisher was let in; two of them at
                // a time may go beyond.
                SessionFull::Refuse => break,
            }
            let Some(oldest) = self.waiting.pop_front() else {
                return Delivered::DroppedOldest(dropped + 1);
            };
            self.kept_bytes -= oldest.message.cost_bytes();
            dropped += 1;
        }
        self.kept_bytes += cost;
        self.waiting.push_back(Waiting {
            message: publication.message().clone(),
            qos,
            retain,
        });
        match dropped {
            0 => Delivered::Taken,
            dropped => Delivered::DroppedOldest(dropped),
        }
    }

    fn deliver_at_most_once(
        &mut self,
        publication: &Publication<'_>,
        retain: bool,
        limits: &Limits,
        effects: &mut Effects,
    ) -> Delivered {
        if self.link.is_none() {
            return Delivered::DroppedAbsent;
        }
        let under_way = self.outbox.len() + self.writing_len;
        if under_way + publication.payload.len() > limits.outbox_bytes_max {
            return Delivered::DroppedSlow;
        }
        let form = self.form(Qos::AtMostOnce, retain, None, "");
        self.give_buffer(effects);
        publication.append_to(&mut self.outbox, &mut effects.frames, form);
        self.wake(effects);
        Delivered::Taken
    }

    /// Whether a message of QoS 1 or 2 can go out now, without one before it
    /// and without keeping too much: one message always may be kept.
    pub fn can_send(&self, cost_bytes: usize, limits: &Limits) -> bool {
        self.waiting.is_empty()
            && self.has_room()
            && (self.kept_bytes == 0 || self.kept_bytes + cost_bytes <= limits.session_bytes_max)
    }

    /// Whether a message published now would be taken without dropping any.
    pub fn has_space(&self, cost_bytes: usize, limits: &Limits) -> bool {
        self.can_send(cost_bytes, limits)
            || self.waiting.len() < limits.session_messages_max
                && self.kept_bytes + cost_bytes <= limits.session_bytes_max
    }

    /// A job. Once there is no room, the queue is told when there is again.
    pub fn deliver_job(
        &mut self,
        publication: &Publication<'_>,
        qos: Qos,
        queue: QueueId,
        lease: LeaseId,
        queue_topic: bool,
        effects: &mut Effects,
    ) -> JobDelivered {
        if !self.has_room_for_job(qos) {
            self.pass_over(queue);
            return JobDelivered::NoRoom;
        }
        if qos == Qos::AtMostOnce {
            let form = self.form(qos, false, None, prefix(queue_topic));
            self.give_buffer(effects);
            publication.append_to(&mut self.outbox, &mut effects.frames, form);
            self.unconfirmed.push((queue, lease));
            self.wake(effects);
        } else {
            let job = SentJob {
                queue,
                lease,
                queue_topic,
                hold: Hold::Current,
            };
            self.send(publication, qos, false, Some(job), effects);
        }
        if self.has_room_for_job(qos) {
            return JobDelivered::Taken;
        }
        self.pass_over(queue);
        JobDelivered::TakenLast
    }

    fn has_room_for_job(&self, qos: Qos) -> bool {
        let joined = self.link.as_ref().is_some_and(|link| !link.joining);
        joined
            && match qos {
                Qos::AtMostOnce => self.outbox.len() < OUTBOX_READY_BYTES_MAX,
                _ => self.has_room(),
            }
    }

    /// The queue is told when there is room.
    pub fn pass_over(&mut self, queue: QueueId) {
        if self.link.is_some() && !self.passed_over.contains(&queue) {
            self.passed_over.push_back(queue);
        }
    }

    /// The next queue that found no room, if there is some now. One after the
    /// other, in turn: a client may be a member of thousands.
    pub fn take_passed_over(&mut self) -> Option<QueueId> {
        match self.has_room() {
            true => self.passed_over.pop_front(),
            false => None,
        }
    }

    /// Whether a QoS 1 or 2 message can go out now.
    pub fn has_room(&self) -> bool {
        self.link.is_some() && self.window.has_room() && self.outbox.len() < OUTBOX_READY_BYTES_MAX
    }

    /// Sends what waits, as far as there is room.
    pub fn refill(&mut self, effects: &mut Effects) {
        while self.has_room() {
            let Some(next) = self.waiting.pop_front() else {
                return;
            };
            self.kept_bytes -= next.message.cost_bytes();
            effects.frames.begin(1);
            let publication = Publication::of(&next.message);
            self.send(&publication, next.qos, next.retain, None, effects);
        }
    }

    fn send(
        &mut self,
        publication: &Publication<'_>,
        qos: Qos,
        retain: bool,
        job: Option<SentJob>,
        effects: &mut Effects,
    ) {
        let packet_id = self.window.take_id();
        // A job of QoS 1 is the queue's to give again, and a session that ends
        // with its connection is never asked again.
        let kept = self.terms.persists() && (job.is_none() || qos == Qos::ExactlyOnce);
        if kept {
            self.kept_bytes += publication.cost_bytes();
        }
        self.window.push(Sent {
            packet_id,
            qos,
            retain,
            filling: self.filling,
            message: kept.then(|| publication.message().clone()),
            job,
        });
        let prefix = prefix(job.is_some_and(|job| job.queue_topic));
        let form = self.form(qos, retain, Some(packet_id), prefix);
        self.give_buffer(effects);
        publication.append_to(&mut self.outbox, &mut effects.frames, form);
        self.wake(effects);
    }

    /// What the last connection left unacknowledged, with its old ids and in
    /// its old order [MQTT-4.4.0-1], [MQTT-4.6.0-1].
    fn resend(&mut self, effects: &mut Effects) {
        if self.window.in_use() == 0 {
            return;
        }
        self.give_buffer(effects);
        effects.frames.begin(1);
        let filling = self.filling;
        let wire = self.terms.wire;
        for sent in self.window.sent() {
            let Some(message) = &sent.message else {
                continue;
            };
            let form = Form {
                wire,
                dup: true, // [MQTT-3.3.1-1]
                retain: sent.retain,
                qos: sent.qos,
                packet_id: Some(sent.packet_id),
                topic_prefix: prefix(sent.job.is_some_and(|job| job.queue_topic)),
            };
            debug_assert_ne!(sent.filling, filling);
            Publication::of(message).append_to(&mut self.outbox, &mut effects.frames, form);
        }
        for packet_id in self.window.releasing() {
            let pubrel = Packet::Pubrel(Ack::new(packet_id));
            self.outbox.append(|out| encode(&pubrel, wire, out));
        }
        self.wake(effects);
    }

    // ---- from the client

    /// A QoS 2 message came; whether it is new [MQTT-4.3.3-2].
    pub fn receive(&mut self, packet_id: PacketId) -> bool {
        self.received.insert(packet_id)
    }

    /// PUBREL: the id is new again [MQTT-4.3.3-2]; whether it was in use.
    pub fn release(&mut self, packet_id: PacketId) -> bool {
        self.received.remove(&packet_id)
    }

    /// PUBACK.
    ///
    /// # Errors
    /// The PUBLISH was of QoS 2, which PUBREC answers.
    pub fn acknowledge(&mut self, packet_id: PacketId) -> Result<Option<SentJob>, Close> {
        match self.window.get(packet_id).map(|sent| sent.qos) {
            None => Ok(None),
            Some(Qos::AtLeastOnce) => {
                let sent = self.window.acknowledge(packet_id);
                Ok(sent.and_then(|sent| self.forget(sent)))
            }
            Some(_) => Err(Close::new(
                ReasonCode::ProtocolError,
                "PUBACK for a QoS 2 message",
            )),
        }
    }

    /// PUBREC; the job that is done with it.
    ///
    /// # Errors
    /// The PUBLISH was of QoS 1, which PUBACK answers.
    pub fn received(&mut self, packet_id: PacketId) -> Result<Option<SentJob>, Close> {
        if (self.window.get(packet_id)).is_some_and(|sent| sent.qos != Qos::ExactlyOnce) {
            return Err(Close::new(
                ReasonCode::ProtocolError,
                "PUBREC for a QoS 1 message",
            ));
        }
        Ok(match self.window.receive(packet_id) {
            Received::Sent(sent) => self.forget(sent),
            Received::Again | Received::Unknown => None,
        })
    }

    /// The job of an acknowledged PUBLISH that still counts.
    fn forget(&mut self, sent: Sent) -> Option<SentJob> {
        if let Some(message) = &sent.message {
            self.kept_bytes -= message.cost_bytes();
        }
        if self.stale_until.is_some() && !self.window.is_full_of_stale() {
            self.stale_until = None;
        }
        sent.job.filter(|job| job.hold != Hold::Settled)
    }

    // ---- small parts

    /// Appends encoded answers to what the client sent.
    pub fn append_answers(&mut self, answers: &[u8], effects: &mut Effects) {
        if !answers.is_empty() {
            self.give_buffer(effects);
            self.outbox.append_bytes(answers);
        }
    }

    /// Appends a packet of its own.
    pub fn append_packet(&mut self, packet: &Packet<'_>, effects: &mut Effects) {
        self.give_buffer(effects);
        let wire = self.terms.wire;
        self.outbox.append(|out| encode(packet, wire, out));
        self.wake(effects);
    }

    fn form(
        &self,
        qos: Qos,
        retain: bool,
        packet_id: Option<PacketId>,
        topic_prefix: &'static str,
    ) -> Form {
        Form {
            wire: self.terms.wire,
            dup: false, // [MQTT-3.3.1-2], [MQTT-3.3.1-3]
            retain,
            qos,
            packet_id,
            topic_prefix,
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

/// CONNACK for a session that is attached.
pub fn connack(session_present: bool) -> Packet<'static> {
    Packet::Connack(crate::protocol::Connack {
        session_present,
        reason: ReasonCode::Success,
        properties: Properties::EMPTY,
    })
}

fn prefix(queue_topic: bool) -> &'static str {
    match queue_topic {
        true => "$queue/",
        false => "",
    }
}
