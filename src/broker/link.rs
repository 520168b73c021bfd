//! A connection's end of the conversation: its packets, one after the other.
//!
//! Owns what belongs to the connection and not to the session: the PUBLISHes
//! that it holds back. Every packet that the broker understands is handled
//! here, or sent on from here.

use std::collections::VecDeque;
use std::sync::Arc;

use super::publish::Refused;
use super::timers::Timer;
use super::{Core, Worker};
use crate::message::{Identity, PacketId, Qos, QueueId, SessionId, Time};
use crate::protocol::{AckKind, Packet, Publish, ReasonCode, encode, encode_ack};
use crate::queue::Settlement;
use crate::session::{Close, SentJob, Terms};

/// How long a PUBLISH that found a session full waits before it tries again.
const RETRY_AFTER: std::time::Duration = std::time::Duration::from_millis(50);

/// The connection's hold on its session.
pub struct Link {
    pub session: SessionId,
    pub(super) number: u32,
    pub identity: Arc<Identity>,
    pub terms: Terms,
    held: Option<Box<Held>>,
}

/// Why a connection stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The client said DISCONNECT.
    Disconnect,
    /// The connection broke, or the client closed it without a word.
    Lost,
    /// The broker goes.
    BrokerStops,
    /// The broker closes it, and says why.
    Closed(Close),
}

impl From<Close> for Stop {
    fn from(close: Close) -> Stop {
        match close.reason {
            ReasonCode::ServerShuttingDown => Stop::BrokerStops,
            _ => Stop::Closed(close),
        }
    }
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
        terms: Terms,
    ) -> Link {
        Link {
            session,
            number,
            identity,
            terms,
            held: None,
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
        let wire = link.terms.wire;
        match packet {
            Packet::Publish(publish) => self.handle_publish(worker, link, publish, now)?,
            Packet::Puback(ack) => self.handle_puback(worker, link, ack.packet_id, now)?,
            Packet::Pubrec(ack) => self.handle_pubrec(worker, link, ack.packet_id, now)?,
            Packet::Pubrel(ack) => {
                if let Some(mut session) = self.session_of(link) {
                    session.release(ack.packet_id); // [MQTT-4.3.3-2]
                }
                answer(
                    worker,
                    link,
                    AckKind::Pubcomp,
                    ack.packet_id,
                    ReasonCode::Success,
                );
            }
            Packet::Pubcomp(ack) => self.handle_pubcomp(worker, link, ack.packet_id, now),
            Packet::Subscribe(subscribe) => self.handle_subscribe(worker, link, subscribe, now)?,
            Packet::Unsubscribe(unsubscribe) => {
                self.handle_unsubscribe(worker, link, unsubscribe, now)?
            }
            Packet::Pingreq => encode(&Packet::Pingresp, wire, &mut worker.answers), // [MQTT-3.12.4-1]
            Packet::Disconnect(_) => return Err(Stop::Disconnect),
            Packet::Connect(_) => return Err(violation("a second CONNECT")), // [MQTT-3.1.0-2]
            Packet::Connack(_)
            | Packet::Suback(_)
            | Packet::Unsuback(_)
            | Packet::Pingresp
            | Packet::Auth(_) => return Err(violation("a packet that clients do not send")),
        }
        Ok(())
    }

    // ---- PUBLISH

    fn handle_publish(
        &self,
        worker: &mut Worker,
        link: &mut Link,
        publish: &Publish<'_>,
        now: Time,
    ) -> Result<(), Stop> {
        if let Some(held) = &mut link.held {
            return hold(held, publish, self.limits.held_bytes_max).map_err(Stop::Closed);
        }
        let refused = self.try_publish(
            worker,
            link,
            (publish.topic, publish.payload),
            (publish.qos, publish.retain),
            publish.packet_id,
            now,
        )?;
        let Some(refused) = refused else {
            return Ok(());
        };
        let Some(packet_id) = publish.packet_id else {
            self.counters.dropped_queue_full.increment();
            return Ok(());
        };
        if link.terms.refusals {
            let kind = answer_kind(publish.qos);
            answer(worker, link, kind, packet_id, ReasonCode::QuotaExceeded);
            return Ok(());
        }
        let mut held = Box::new(Held {
            publishes: VecDeque::new(),
            bytes: 0,
            queue: None,
            since: now,
            alarm: now + self.limits.held_timeout,
        });
        hold(&mut held, publish, self.limits.held_bytes_max).map_err(Stop::Closed)?;
        link.held = Some(held);
        self.timers.schedule(
            now + self.limits.held_timeout,
            Timer::Held(link.session, link.number),
        );
        if self.wait_for(worker, link, refused, now) {
            self.retry_held(worker, link, now)?;
        }
        Ok(())
    }

    /// Publishes and acknowledges [MQTT-3.3.4-1]; what refused it for now, if
    /// anything did.
    fn try_publish(
        &self,
        worker: &mut Worker,
        link: &Link,
        (topic, payload): (&str, &[u8]),
        (qos, retain): (Qos, bool),
        packet_id: Option<PacketId>,
        now: Time,
    ) -> Result<Option<Refused>, Stop> {
        // Remembered before it is routed: a second one is not routed [MQTT-4.3.3-2].
        if qos == Qos::ExactlyOnce
            && let Some(packet_id) = packet_id
        {
            let session = self.session_of(link);
            let new = session.is_some_and(|mut session| session.receive(packet_id));
            if !new {
                answer(
                    worker,
                    link,
                    AckKind::Pubrec,
                    packet_id,
                    ReasonCode::Success,
                );
                return Ok(None);
            }
        }
        match self.accept(worker, link, topic, payload, (qos, retain), now) {
            Ok(()) => {
                if let Some(packet_id) = packet_id {
                    // In the order of the PUBLISHes [MQTT-4.6.0-2], [MQTT-4.6.0-3].
                    answer(
                        worker,
                        link,
                        answer_kind(qos),
                        packet_id,
                        ReasonCode::Success,
                    );
                }
                Ok(None)
            }
            Err(refused) => {
                if qos == Qos::ExactlyOnce
                    && let Some(packet_id) = packet_id
                    && let Some(mut session) = self.session_of(link)
                {
                    session.release(packet_id);
                }
                match refused {
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
        if let Some(mut session) = self.session_of(link) {
            session.retried();
        }
        while let Some(first) = link.held.as_ref().and_then(|held| held.publishes.front()) {
            let (parts, flags) = ((&*first.topic, &*first.payload), (first.qos, first.retain));
            let packet_id = first.packet_id;
            let refused = self.try_publish(worker, link, parts, flags, packet_id, now)?;
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
            Refused::SessionFull | Refused::Never(_) => None,
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
            Refused::SessionFull | Refused::Never(_) => {
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
                list.waiters.retain(|other| *other != waiter)
            });
        }
    }

    /// Why the connection has to be closed, if a PUBLISH is held back for too
    /// long.
    pub fn held_too_long(&self, link: &mut Link, now: Time) -> Option<Close> {
        let held = link.held.as_mut()?;
        let due = held.since + self.limits.held_timeout;
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
        packet_id: PacketId,
        now: Time,
    ) -> Result<(), Stop> {
        self.handle_acknowledgement(worker, link, now, |session| session.acknowledge(packet_id))
    }

    fn handle_pubrec(
        &self,
        worker: &mut Worker,
        link: &Link,
        packet_id: PacketId,
        now: Time,
    ) -> Result<(), Stop> {
        // Also for an id that nobody knows: the client waits for its PUBREL.
        answer(
            worker,
            link,
            AckKind::Pubrel,
            packet_id,
            ReasonCode::Success,
        );
        self.handle_acknowledgement(worker, link, now, |session| session.received(packet_id))
    }

    fn handle_pubcomp(&self, worker: &mut Worker, link: &Link, packet_id: PacketId, now: Time) {
        let freed = self.handle_acknowledgement(worker, link, now, |session| {
            session.window.complete(packet_id);
            Ok(None)
        });
        debug_assert!(freed.is_ok());
    }

    /// What an acknowledgement frees is filled again; the job it was for, if
    /// any, is done.
    fn handle_acknowledgement(
        &self,
        worker: &mut Worker,
        link: &Link,
        now: Time,
        acknowledge: impl FnOnce(&mut crate::session::Session) -> Result<Option<SentJob>, Close>,
    ) -> Result<(), Stop> {
        let Some(mut session) = self.session_of(link) else {
            return Ok(());
        };
        let job = acknowledge(&mut session).map_err(Stop::Closed)?;
        session.refill(&mut worker.effects);
        let mut next = session.take_passed_over();
        drop(session);
        if let Some(job) = job {
            let room = next.take_if(|next| *next == job.queue).is_some();
            self.change_list(worker, job.queue, now, |list| {
                list.queue.settle(job.lease, Settlement::Done, now);
                if room {
                    list.queue.room(link.session);
                }
            });
            if room && let Some(mut session) = self.session_of(link) {
                next = session.take_passed_over();
            }
        }
        self.offer_room(worker, link.session, next, now);
        Ok(())
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

fn answer(
    worker: &mut Worker,
    link: &Link,
    kind: AckKind,
    packet_id: PacketId,
    reason: ReasonCode,
) {
    encode_ack(
        kind,
        packet_id,
        reason,
        link.terms.wire,
        &mut worker.answers,
    );
}

fn violation(why: &'static str) -> Stop {
    Stop::Closed(Close::new(ReasonCode::ProtocolError, why)) // [MQTT-4.8.0-1]
}
