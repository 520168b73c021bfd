//! How connections come to their sessions, and leave them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::link::Link;
use super::timers::Timer;
use super::{Core, Worker};
use crate::access::{Action, Decision};
use crate::message::{ClientId, Identity, SessionId, Time};
use crate::protocol::{Connect, ReasonCode};
use crate::router::{NodeId, Receiver};
use crate::session::{Close, Publication, Session, Subscribed, Terms, Will, connack};
use crate::slots::Locked;
use crate::topic::TopicName;

/// How a connection, or a session, comes to its end.
pub(super) enum Ending {
    /// DISCONNECT: the will goes unpublished [MQTT-3.14.4-3].
    Disconnect,
    /// The connection is lost, or broke the rules.
    Lost,
    /// Another connection uses the client id [MQTT-3.1.4-2].
    TakenOver { discard: bool },
    /// The client has stayed away for too long, if it still does.
    Expired,
    /// The session is ended whether its client is there or not.
    Ended(Close),
}

impl Core {
    /// A CONNECT. CONNACK is the first thing in the session's outbox then.
    ///
    /// # Errors
    /// The reason for the CONNACK that refuses it [MQTT-3.1.4-4].
    pub fn connect(
        &self,
        worker: &mut Worker,
        connect: &Connect<'_>,
        now: Time,
    ) -> Result<Link, ReasonCode> {
        let link = self.admit(worker, connect, now);
        match &link {
            Ok(_) => self.counters.connections_accepted.increment(),
            Err(_) => self.counters.connections_refused.increment(),
        }
        link
    }

    fn admit(
        &self,
        worker: &mut Worker,
        connect: &Connect<'_>,
        now: Time,
    ) -> Result<Link, ReasonCode> {
        let terms = Terms::agree(connect, &self.limits, &self.session_settings)?;
        let identity = Arc::new(Identity {
            user: connect.user_name.map(Arc::from),
            client: match connect.client_id {
                "" => self.make_up_client_id(), // [MQTT-3.1.3-6]
                id => ClientId::new(id),
            },
        });
        self.authorize(connect, &identity)?;
        let number = loop {
            let existing = self
                .clients
                .get(&identity.client)
                .map(|entry| *entry.value());
            let Some(id) = existing else {
                if let Some(joined) = self.create_session(worker, connect, terms, &identity, now)? {
                    break joined;
                }
                continue;
            };
            let Some(session) = self.sessions.lock(id.0) else {
                self.forget_client(&identity.client, id);
                continue;
            };
            if session.has_ended() {
                drop(session);
                self.forget_client(&identity.client, id);
                continue;
            }
            if session.is_connected() || connect.clean_start || !session.terms.persists() {
                drop(session);
                let discard = connect.clean_start; // [MQTT-3.1.2-6]
                self.end(worker, id, None, Ending::TakenOver { discard }, now);
                continue;
            }
            break (
                id,
                self.resume_session(worker, id, session, connect, terms, &identity, now),
            );
        };
        let (session, number) = number;
        if let Some(silence_max) = terms.silence_max {
            self.schedule(now, now + silence_max, Timer::Silence(session, number));
        }
        Ok(Link::new(session, number, identity, terms))
    }

    /// Whether this client may connect so, and leave such a will.
    fn authorize(&self, connect: &Connect<'_>, identity: &Identity) -> Result<(), ReasonCode> {
        let password = connect.password;
        if self.access.decide(identity, Action::Connect { password }) == Decision::Deny {
            return Err(match identity.user {
                Some(_) => ReasonCode::BadUserNameOrPassword,
                None => ReasonCode::NotAuthorized,
            });
        }
        let Some(will) = &connect.will else {
            return Ok(());
        };
        if self.parse_topic(will.topic).is_err() {
            return Err(ReasonCode::TopicNameInvalid);
        }
        match self
            .access
            .decide(identity, Action::Will { topic: will.topic })
        {
            Decision::Allow => Ok(()),
            Decision::Deny => Err(ReasonCode::NotAuthorized),
        }
    }

    /// `None`: somebody else was faster to use the client id.
    fn create_session(
        &self,
        worker: &mut Worker,
        connect: &Connect<'_>,
        terms: Terms,
        identity: &Arc<Identity>,
        now: Time,
    ) -> Result<Option<(SessionId, u32)>, ReasonCode> {
        if self.sessions_len.load(Ordering::Relaxed) >= self.limits.sessions_max {
            return Err(ReasonCode::ServerUnavailable);
        }
        let mut session = Session::new(identity.clone(), terms, self.random_packet_id());
        session.will = connect.will.as_ref().map(keep_will);
        // [MQTT-3.2.2-1], [MQTT-3.2.2-3]
        let number = session.attach(terms, &connack(false), now, &mut worker.effects);
        session.take_part(); // It has no queues yet.
        let id = SessionId(self.sessions.insert(session));
        match self.clients.entry(identity.client.clone()) {
            dashmap::Entry::Vacant(vacant) => drop(vacant.insert(id)),
            dashmap::Entry::Occupied(occupied) => {
                drop(occupied);
                self.sessions.remove(id.0);
                return Ok(None);
            }
        }
        self.sessions_len.fetch_add(1, Ordering::Relaxed);
        Ok(Some((id, number)))
    }

    /// [MQTT-3.1.2-4], [MQTT-3.2.2-2]
    // Called once: a struct for its arguments would only be another name for them.
    #[allow(clippy::too_many_arguments)]
    fn resume_session(
        &self,
        worker: &mut Worker,
        id: SessionId,
        mut session: Locked<'_, Session>,
        connect: &Connect<'_>,
        terms: Terms,
        identity: &Arc<Identity>,
        now: Time,
    ) -> u32 {
        session.identity = identity.clone();
        session.will = connect.will.as_ref().map(keep_will);
        let number = session.attach(terms, &connack(true), now, &mut worker.effects);
        let members: Vec<Subscribed> = session.subscriptions.keys().copied().collect();
        drop(session);
        for subscribed in members {
            if let Subscribed::Group(list) | Subscribed::Queue(list) = subscribed {
                self.change_list(worker, list, now, |list| {
                    // It may have gone again meanwhile.
                    if self.is_link(id, number) {
                        // Whoever ended the last connection may still be on
                        // the way here.
                        list.queue.detach(id);
                        list.queue.attach(id);
                    }
                });
            }
        }
        let session = self.sessions.lock(id.0);
        if let Some(mut session) = session.filter(|session| session.is_link(number)) {
            session.take_part();
            let next = session.take_passed_over();
            drop(session);
            self.offer_room(worker, id, next, now);
        }
        number
    }

    /// The connection is over. Whoever has taken the session since keeps it.
    pub fn disconnect(&self, worker: &mut Worker, mut link: Link, stop: &super::Stop, now: Time) {
        let ending = match stop {
            super::Stop::Disconnect | super::Stop::BrokerStops => Ending::Disconnect,
            _ => Ending::Lost,
        };
        self.end(worker, link.session, Some(link.number), ending, now);
        self.leave_line(worker, &mut link, now);
    }

    /// Ends a connection (`number`: only that one), and the session where it
    /// does not outlive it.
    pub(super) fn end(
        &self,
        worker: &mut Worker,
        id: SessionId,
        number: Option<u32>,
        ending: Ending,
        now: Time,
    ) {
        let Some(mut session) = self.sessions.lock(id.0) else {
            return;
        };
        if session.has_ended() {
            // All but its memory is gone; its own connection is the last to look.
            if number.is_some() {
                self.sessions.take(id.0, session);
            }
            return;
        }
        if number.is_some_and(|number| !session.is_link(number)) {
            return;
        }
        let (connected, ended) = (session.is_connected(), session.link_number());
        if matches!(ending, Ending::Disconnect) {
            session.will = None; // [MQTT-3.14.4-3]
        }
        let over = match &ending {
            Ending::TakenOver { discard } => {
                if connected {
                    self.counters.sessions_taken_over.increment();
                }
                let close = Close::new(
                    ReasonCode::SessionTakenOver,
                    "another connection uses the client id",
                );
                session.close(close, &mut worker.effects);
                *discard || !session.terms.persists()
            }
            Ending::Expired if connected => {
                session.expiry_watched = false;
                return;
            }
            Ending::Expired if now < session.absent_since + session.terms.session_expiry => {
                // It came and went just now.
                let due = session.absent_since + session.terms.session_expiry;
                self.schedule(now, due, Timer::Expiry(id));
                return;
            }
            Ending::Expired => {
                let (client, waiting) = (&session.identity.client, session.waiting_len());
                tracing::info!(?client, waiting, "a session has expired");
                self.counters.sessions_expired.increment();
                true
            }
            Ending::Ended(close) => {
                session.close(close.clone(), &mut worker.effects);
                true
            }
            Ending::Disconnect | Ending::Lost => !session.terms.persists(),
        };
        let detached = session.detach(now, &mut worker.effects);
        let identity = session.identity.clone();
        let subscriptions: Vec<Subscribed> = session.subscriptions.keys().copied().collect();
        if over {
            self.counters
                .dropped_session_ended
                .add(session.waiting_len());
            self.sessions_len.fetch_sub(1, Ordering::Relaxed);
            session.subscriptions = Default::default();
            session.end();
            if connected && number.is_none() {
                drop(session);
            } else {
                self.sessions.take(id.0, session);
            }
            self.forget_client(&identity.client, id);
        } else {
            let expiry = session.terms.session_expiry;
            let watched = std::mem::replace(&mut session.expiry_watched, true);
            drop(session);
            if !watched {
                self.schedule(now, now + expiry, Timer::Expiry(id));
            }
        }
        for (queue, lease) in detached.unwritten {
            self.change_list(worker, queue, now, |list| list.queue.release(lease));
        }
        for subscribed in subscriptions {
            match subscribed {
                _ if over => self.end_subscription(worker, id, subscribed, now),
                Subscribed::Filter(_) => {}
                Subscribed::Group(list) | Subscribed::Queue(list) => {
                    self.change_list(worker, list, now, |list| {
                        // A later connection sees to that itself.
                        if !self.is_later_link(id, ended) {
                            list.queue.detach(id);
                        }
                    });
                }
            }
        }
        for list in detached.left {
            self.change_list(worker, list, now, |list| match over {
                true => list.queue.remove(id, now),
                false => {
                    list.queue.detach(id);
                    // It may have come back, and joined again, meanwhile.
                    if self.is_later_link(id, ended) {
                        list.queue.attach(id);
                    }
                }
            });
        }
        if let Some(will) = detached.will {
            worker.wills.push_back((will, identity));
            self.publish_wills(worker, now);
        }
    }

    /// One after the other: a will may fill and end a session that has a will,
    /// and so on for as many as there are.
    fn publish_wills(&self, worker: &mut Worker, now: Time) {
        if std::mem::replace(&mut worker.publishing_wills, true) {
            return;
        }
        while let Some((will, identity)) = worker.wills.pop_front() {
            self.publish_will(worker, &will, &identity, now);
        }
        worker.publishing_wills = false;
    }

    /// [MQTT-3.1.2-8]; decided again, for a right can be lost meanwhile.
    fn publish_will(&self, worker: &mut Worker, will: &Will, identity: &Arc<Identity>, now: Time) {
        let denied = self
            .access
            .decide(identity, Action::Will { topic: &will.topic })
            == Decision::Deny;
        let published = !denied && {
            let name = will.topic.strip_prefix("$queue/").unwrap_or(&will.topic);
            TopicName::parse(name, self.topic_limits).is_ok_and(|topic| {
                let id = self.next_message_id(worker);
                let publication = Publication::new(
                    topic,
                    &will.payload,
                    will.qos,
                    will.retain,
                    identity,
                    now,
                    id,
                );
                self.publish(worker, &publication, &will.topic, now).is_ok()
            })
        };
        if !published {
            self.counters.refused_messages.increment();
            tracing::warn!(client = ?identity.client, topic = ?will.topic, "a will could not be published");
        }
    }

    /// The session is over, and with it this subscription.
    pub(super) fn end_subscription(
        &self,
        worker: &mut Worker,
        id: SessionId,
        subscribed: Subscribed,
        now: Time,
    ) {
        match subscribed {
            Subscribed::Filter(node) => {
                self.router.remove(NodeId(node), Receiver::Session(id));
            }
            Subscribed::Group(list) | Subscribed::Queue(list) => {
                self.leave_list(worker, list, id, true, now)
            }
        }
    }

    fn is_link(&self, id: SessionId, number: u32) -> bool {
        (self.sessions.lock(id.0)).is_some_and(|session| session.is_link(number))
    }

    /// Whether a connection after that of `number` has the session.
    fn is_later_link(&self, id: SessionId, number: u32) -> bool {
        let session = self.sessions.lock(id.0);
        session.is_some_and(|session| session.is_connected() && session.link_number() != number)
    }

    /// The client id leads to this session no longer, if it still did.
    fn forget_client(&self, client: &ClientId, id: SessionId) {
        self.clients.remove_if(client, |_, held| *held == id);
    }

    /// No two alike, and none that a client could guess.
    fn make_up_client_id(&self) -> ClientId {
        ClientId::new(&format!(
            "auto-{:016x}{:016x}",
            self.random(),
            self.random()
        ))
    }

    /// All connections are told to end; their sessions stay as they are.
    pub fn close_all(&self, worker: &mut Worker) {
        for place in self.sessions.places() {
            if let Some(mut session) = self.sessions.lock(place) {
                let close = Close::new(ReasonCode::ServerShuttingDown, "the broker stops");
                session.close(close, &mut worker.effects);
            }
            worker.effects.wake_all();
        }
    }
}

fn keep_will(will: &crate::protocol::Will<'_>) -> Box<Will> {
    Box::new(Will {
        topic: will.topic.into(),
        payload: will.payload.into(),
        qos: will.qos,
        retain: will.retain,
    })
}
