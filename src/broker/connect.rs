//! How connections come to their sessions, and leave them.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::authenticate::{Admission, method_of};
use super::door::{Door, not_below};
use super::link::{Link, too_large};
use super::publish::Sorted;
use super::record::{SessionRecord, Target as Stored, session_key, subscription_key};
use super::rights::gate_of;
use super::timers::Timer;
use super::{Core, LastWill, Worker};
use crate::access::{Client, OwnRights};
use crate::authentication::{Authenticated, Connecting};
use crate::config::{Durability, Redirect};
use crate::journal::{Change, Receipt};
use crate::message::{ClientId, Identity, SessionId, Time};
use crate::mount::Mount;
use crate::origin::Origin;
use crate::protocol::{Connect, ReasonCode};
use crate::queue::Gone;
use crate::router::{NodeId, Receiver};
use crate::session::{
    Accepted, Close, Effects, Keeping, Publication, Session, Subscribed, Terms, Will,
};
use crate::slots::Locked;
use crate::topic::TopicName;

/// Why somebody is refused, where that is counted apart.
const FLAPS: &str = "this client connects too often; try again later";
const USER_FULL: &str = "the user has connections_per_user_max connections";

/// How a connection, or a session, comes to its end.
pub(super) enum Ending {
    /// DISCONNECT: the will goes unpublished [MQTT-3.14.4-3].
    Disconnect,
    /// DISCONNECT, and the will is to be published all the same.
    DisconnectWithWill,
    /// The broker goes: a will that is stored is published after it is back.
    BrokerStops,
    /// The connection is lost, or broke the rules.
    Lost,
    /// Another connection uses the client id [MQTT-3.1.4-2].
    TakenOver { discard: bool },
    /// The client has stayed away for too long, if it still does.
    Expired,
    /// A person ends the connection; the session stays, if it outlives it.
    SentAway(Close),
    /// The session is ended whether its client is there or not.
    Ended(Close),
}

impl Ending {
    /// What the member's queues are told.
    fn gone(&self) -> Gone {
        match self {
            Ending::Disconnect | Ending::DisconnectWithWill => Gone::Left,
            Ending::Lost => Gone::Lost,
            Ending::BrokerStops
            | Ending::TakenOver { .. }
            | Ending::Expired
            | Ending::SentAway(_)
            | Ending::Ended(_) => Gone::Taken,
        }
    }
}

impl Core {
    /// A CONNECT of somebody anonymous, or of a client that names a method.
    ///
    /// # Errors
    /// Why it is refused, for the CONNACK.
    pub fn connect(
        &self,
        worker: &mut Worker,
        connect: &Connect<'_>,
        now: Time,
    ) -> Result<Admission, Close> {
        self.connect_as(
            worker,
            connect,
            &Authenticated::ANONYMOUS,
            &self.settings.current().door,
            now,
        )
    }

    /// A CONNECT of `who`, as long as it names no method that is to find that
    /// out, by the listener of that door.
    ///
    /// # Errors
    /// Those of [`Core::connect`].
    pub fn connect_as(
        &self,
        worker: &mut Worker,
        connect: &Connect<'_>,
        who: &Authenticated,
        door: &Arc<Door>,
        now: Time,
    ) -> Result<Admission, Close> {
        let admission = match method_of(connect) {
            Some(method) => self.begin_authentication(worker, connect, method, door, now),
            None => self
                .admit(worker, connect, who, None, door, now)
                .map(Admission::Admitted),
        };
        self.count_admission(admission)
    }

    pub(super) fn count_admission(
        &self,
        admission: Result<Admission, Close>,
    ) -> Result<Admission, Close> {
        match &admission {
            Ok(Admission::Admitted(_)) => self.counters.connections_accepted.increment(),
            Ok(Admission::Challenged(_)) => {}
            Err(close) => {
                self.counters.connections_refused.increment();
                let counter = match (&*close.why, close.reason) {
                    (FLAPS, _) => &self.counters.refused_flapping,
                    (USER_FULL, _) => &self.counters.refused_user_full,
                    // It comes of methods only.
                    (_, ReasonCode::ServerUnavailable) => &self.counters.refused_unavailable,
                    _ => &self.counters.refused_other,
                };
                counter.increment();
            }
        }
        admission
    }

    /// Lets a client in. `proof`: the method by which it has shown who it is,
    /// with what that has to say last.
    pub(super) fn admit(
        &self,
        worker: &mut Worker,
        connect: &Connect<'_>,
        who: &Authenticated,
        proof: Option<(&str, &[u8])>,
        door: &Arc<Door>,
        now: Time,
    ) -> Result<Link, Close> {
        self.pinned(worker, |worker| {
            worker.effects.receipt = Receipt::NONE;
            self.admit_pinned(worker, connect, who, proof, door, now)
        })
    }

    fn admit_pinned(
        &self,
        worker: &mut Worker,
        connect: &Connect<'_>,
        who: &Authenticated,
        proof: Option<(&str, &[u8])>,
        door: &Arc<Door>,
        now: Time,
    ) -> Result<Link, Close> {
        let mut terms = Terms::agree(connect, &door.limits, &door.settings)?;
        terms.mount_bytes = door.mount.as_ref().map_or(0, |mount| mount.bytes());
        self.redirect()?;
        let identity = Arc::new(Identity {
            user: who.user.clone(),
            client: match connect.client_id {
                "" => self.make_up_client_id(), // [MQTT-3.1.3-6]
                id if id == self.identity.client.as_str() => {
                    // What it publishes would pass for the broker's own.
                    let why = "this client identifier is the broker's own";
                    return Err(Close::new(ReasonCode::ClientIdentifierNotValid, why));
                }
                id => ClientId::new(id),
            },
        });
        let client = Client {
            identity: &identity,
            own: who.rights.as_ref(),
        };
        let will = self.check_will_of(connect, client, door)?;
        let accepted = Accepted {
            connect,
            terms,
            client: &identity.client,
            limits: &door.limits,
            settings: &door.settings,
            authentication: proof,
        };
        if !terms.takes_any() && !terms.takes(accepted.connack(true).len()) {
            return Err(too_large()); // [MQTT-3.1.2-24]
        }
        let mut entry = Entry {
            accepted,
            identity: &identity,
            own_rights: who.rights.as_ref(),
            will,
            mount: door.mount.as_ref(),
            durability: door.durability.unwrap_or(self.durability()),
            is_counted: connect.client_id.is_empty(),
            has_place: false,
        };
        let joined = self.join(worker, &mut entry, now);
        if joined.is_err() && entry.has_place {
            self.leave_place(&identity);
        }
        let (session, number) = joined?;
        if let Some(silence_max) = terms.silence_max() {
            self.schedule(now, now + silence_max, Timer::Silence(session, number));
        }
        let own_rights = who.rights.clone();
        let mut link = Link::new(session, number, identity, own_rights, terms, door.clone());
        if let Some(mut session) = self.session_of(&link) {
            link.is_resuming = session.is_resuming();
            link.is_kept = session.keeping().is_some();
            self.hold_until(&mut session, link.session, who.lasts, now);
        }
        Ok(link)
    }

    /// Finds the client's session or makes it, and the number of its connection.
    fn join(
        &self,
        worker: &mut Worker,
        entry: &mut Entry<'_>,
        now: Time,
    ) -> Result<(SessionId, u32), Close> {
        let identity = entry.identity;
        let clean_start = entry.accepted.connect.clean_start;
        loop {
            let existing = self
                .clients
                .get(&identity.client)
                .map(|entry| *entry.value());
            let Some(id) = existing else {
                self.take_place(entry)?;
                self.check_flapping(entry, now)?;
                match self.create_session(worker, entry, now)? {
                    Some(joined) => return Ok(joined),
                    None => continue,
                }
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
            if session.identity.user != identity.user {
                // Nothing of it is anybody else's, not even its end.
                let why = "the client identifier is that of another user's session";
                return Err(Close::new(ReasonCode::ClientIdentifierNotValid, why));
            }
            if session.mount.as_ref() != entry.mount {
                // Nor is it of any use where its topics are others.
                let why = "the client identifier is that of a session below another mount point";
                return Err(Close::new(ReasonCode::ClientIdentifierNotValid, why));
            }
            // Whoever has it is left in peace by one who does not get in.
            match session.is_connected() {
                true => {
                    self.check_flapping(entry, now)?;
                    self.succeed(entry);
                }
                false => {
                    self.take_place(entry)?;
                    self.check_flapping(entry, now)?;
                }
            }
            if session.is_connected() || clean_start || !session.terms.persists() {
                drop(session);
                let discard = clean_start; // [MQTT-3.1.2-6]
                self.end(worker, id, None, Ending::TakenOver { discard }, now);
                continue;
            }
            let number = self.resume_session(worker, id, session, entry, now);
            return Ok((id, number));
        }
    }

    /// Who connects too often is kept out for a while, and finds a session that
    /// is connected undisturbed.
    fn check_flapping(&self, entry: &mut Entry<'_>, now: Time) -> Result<(), Close> {
        if std::mem::replace(&mut entry.is_counted, true) {
            return Ok(());
        }
        let identity = entry.identity;
        let connecting = self.flapping.connects(identity, now);
        if connecting == Connecting::Welcome {
            return Ok(());
        }
        if connecting == Connecting::OnceTooOften {
            self.counters.bans.increment();
            let (client, user) = (&identity.client, &identity.user);
            tracing::warn!(
                ?client,
                ?user,
                "banned: it connects too often; perhaps two devices have this identifier"
            );
        }
        Err(Close::new(ReasonCode::Banned, FLAPS))
    }

    /// One connection more for its user, if it may have one and has it not yet.
    fn take_place(&self, entry: &mut Entry<'_>) -> Result<(), Close> {
        let max = self.limits().connections_per_user_max;
        let user = entry.identity.user.as_ref();
        let Some(user) = user.filter(|_| !entry.has_place) else {
            return Ok(());
        };
        let mut count = self.user_connections.entry(user.clone()).or_default();
        if max > 0 && *count >= max {
            return Err(Close::new(ReasonCode::QuotaExceeded, USER_FULL));
        }
        *count += 1;
        entry.has_place = true;
        Ok(())
    }

    /// The place of another connection of its user's, which is about to leave it.
    fn succeed(&self, entry: &mut Entry<'_>) {
        let user = entry.identity.user.as_ref();
        if let Some(user) = user.filter(|_| !entry.has_place) {
            *self.user_connections.entry(user.clone()).or_default() += 1;
            entry.has_place = true;
        }
    }

    /// And one less.
    fn leave_place(&self, identity: &Identity) {
        let Some(user) = &identity.user else {
            return;
        };
        self.user_connections.remove_if_mut(user, |_, count| {
            *count -= 1;
            *count == 0
        });
    }

    /// Hands in that the session is there, or how it is now, if it is stored.
    pub(super) fn store_head(
        &self,
        session: &mut Session,
        effects: &mut Effects,
        absent_since: Time,
    ) {
        if let Some(keeping) = session.keeping() {
            let will = (session.will.as_deref(), session.will_due);
            let expiry = session.terms.session_expiry();
            let whose = (session.client(), session.mount.as_deref());
            let value = &SessionRecord::encode(whose, expiry, absent_since, will);
            let key = &session_key(keeping.list);
            let journal = &mut effects.journal;
            journal.add(keeping.durability, Change::Put { key, value });
            effects.receipt = effects.receipt.and(self.store.append(journal));
        }
        // What goes out now waits for all that was stored until here.
        session.stored(effects.receipt);
    }

    /// Whether clients are sent elsewhere, all of them.
    fn redirect(&self) -> Result<(), Close> {
        let settings = self.session_settings();
        let reason = match settings.redirect {
            _ if settings.server_reference.is_empty() => return Ok(()),
            Redirect::Overflow => return Ok(()),
            Redirect::Temporarily => ReasonCode::UseAnotherServer,
            Redirect::Permanently => ReasonCode::ServerMoved,
        };
        Err(Close::new(reason, "clients are served by another server"))
    }

    /// Why a client finds no room here: or that there is some elsewhere.
    pub(super) fn reason_or_referral(&self, reason: ReasonCode) -> ReasonCode {
        match self.session_settings().server_reference.is_empty() {
            true => reason,
            false => ReasonCode::UseAnotherServer,
        }
    }

    /// The will, if this client may leave such a one.
    fn check_will_of(
        &self,
        connect: &Connect<'_>,
        who: Client<'_>,
        door: &Door,
    ) -> Result<Option<Box<Will>>, Close> {
        let Some(will) = &connect.will else {
            return Ok(None);
        };
        let mut full = String::new();
        let topic = match &door.mount {
            None => will.topic,
            Some(mount) if mount.enter_topic(will.topic, &mut full) => &full,
            Some(_) => return Err(not_below(ReasonCode::TopicNameInvalid)),
        };
        if let Err(error) = self.parse_topic(topic) {
            let why = format!("the will's topic: {}", error.why);
            return Err(Close::new(ReasonCode::TopicNameInvalid, why));
        }
        let mut scratch = Vec::new();
        let sorted = Sorted::of(will.properties, &mut scratch)?;
        self.check_payload(sorted.says_text, will.payload)?;
        let properties = match &door.mount {
            None => Cow::Borrowed(sorted.passed_on),
            Some(mount) => (mount.enter_properties(sorted.passed_on))
                .ok_or_else(|| not_below(ReasonCode::TopicNameInvalid))?,
        };
        let publish = (topic, will.qos, will.retain);
        if let Err(denied) = self.access.may_publish_once(who, publish) {
            let client = &who.identity.client;
            tracing::info!(?client, topic, why = %denied, "a will was denied");
            let why = "a will to this topic is not allowed";
            return Err(Close::new(ReasonCode::NotAuthorized, why));
        }
        Ok(Some(Box::new(Will {
            topic: topic.into(),
            properties: (&*properties).into(),
            payload: will.payload.into(),
            qos: will.qos,
            retain: will.retain,
            delay: Duration::from_secs(sorted.will_delay_secs.into()),
            expiry: (sorted.expiry_secs).map(|secs| Duration::from_secs(secs.into())),
        })))
    }

    /// `None`: somebody else was faster to use the client id.
    fn create_session(
        &self,
        worker: &mut Worker,
        entry: &mut Entry<'_>,
        now: Time,
    ) -> Result<Option<(SessionId, u32)>, Close> {
        if self.sessions_len.load(Ordering::Relaxed) >= self.limits().sessions_max {
            let reason = self.reason_or_referral(ReasonCode::QuotaExceeded);
            return Err(Close::new(reason, "there are sessions_max sessions"));
        }
        let terms = entry.accepted.terms;
        let mut session = Session::new(entry.identity.clone(), terms, self.random_packet_id());
        session.own_rights = entry.own_rights.cloned();
        session.will = entry.will.take();
        if let Some(mount) = entry.mount {
            session.mount = Some(mount.clone());
            session.gate = gate_of(Some(mount), None);
        }
        if terms.persists() && self.store.is_on() && entry.durability > Durability::Memory {
            session.keep(Keeping::new(self.store.new_list(), entry.durability));
        }
        // [MQTT-3.2.2-2], [MQTT-3.2.2-3]; in 3.1.1 -1 and -3.
        let connack = entry.accepted.connack(false);
        let number = session.attach(terms, &connack, now, &mut worker.effects);
        session.take_part(); // It has no queues yet.
        let id = SessionId(self.sessions.insert(session));
        // Before anybody finds it, and may end it.
        self.sessions_len.fetch_add(1, Ordering::Relaxed);
        match self.clients.entry(entry.identity.client.clone()) {
            dashmap::Entry::Vacant(vacant) => drop(vacant.insert(id)),
            dashmap::Entry::Occupied(occupied) => {
                drop(occupied);
                self.sessions_len.fetch_sub(1, Ordering::Relaxed);
                let session = self.sessions.remove(id.0);
                entry.will = session.and_then(|mut session| session.will.take());
                return Ok(None);
            }
        }
        if let Some(mut session) = self.sessions.lock(id.0) {
            // CONNACK waits for it, and for the end of the session before, which
            // may be some connections ago.
            let effects = &mut worker.effects;
            effects.receipt = effects.receipt.and(*self.last_end.lock());
            self.store_head(&mut session, effects, Time::MAX);
        }
        Ok(Some((id, number)))
    }

    /// [MQTT-3.1.2-5], [MQTT-3.2.2-3]; in 3.1.1 [MQTT-3.1.2-4], [MQTT-3.2.2-2]
    fn resume_session(
        &self,
        worker: &mut Worker,
        id: SessionId,
        mut session: Locked<'_, Session>,
        entry: &mut Entry<'_>,
        now: Time,
    ) -> u32 {
        session.identity = entry.identity.clone();
        // What it may do by these counts from now on, also for what waits.
        let has_other_rights = session.own_rights.as_ref() != entry.own_rights;
        session.own_rights = entry.own_rights.cloned();
        self.set_gate(&mut session);
        // A will whose delay still runs is not published [MQTT-3.1.3-9].
        session.will = entry.will.take();
        let (terms, connack) = (entry.accepted.terms, entry.accepted.connack(true));
        session.will_due = Time::MAX;
        session.raise_durability(entry.durability);
        let number = session.attach(terms, &connack, now, &mut worker.effects);
        // Who ends what came by a listener is not to take this for the connection
        // before; where this one comes from is noted next.
        session.account_mut().origin = None;
        self.store_head(&mut session, &mut worker.effects, Time::MAX);
        drop(session);
        if has_other_rights {
            self.bind(worker, id, now);
        }
        let session = self.sessions.lock(id.0);
        let members = session.map(|session| session.subscriptions.keys().copied().collect());
        let members: Vec<Subscribed> = members.unwrap_or_default();
        for subscribed in members {
            if let Subscribed::Group(list) | Subscribed::Queue(list) = subscribed {
                self.change_list(worker, list, now, |list| {
                    // It may have gone again meanwhile.
                    if self.is_link(id, number) {
                        // Whoever ended the last connection may still be on
                        // the way here.
                        list.queue.detach(id, Gone::Taken, now);
                        if let Subscribed::Queue(_) = subscribed {
                            list.queue.limit_qos(id, terms.queue_qos_max());
                        }
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

    /// Where a connection comes from, for people.
    pub fn note_origin(&self, link: &Link, origin: Origin) {
        if let Some(mut session) = self.session_of(link) {
            session.account_mut().origin = Some(origin);
        }
    }

    /// What came that the session was not told of yet.
    fn tell_account(&self, link: &mut Link) {
        if link.came.bytes > 0
            && let Some(mut session) = self.session_of(link)
        {
            session.account_mut().came(std::mem::take(&mut link.came));
        }
    }

    /// The connection is over. Whoever has taken the session since keeps it.
    pub fn disconnect(&self, worker: &mut Worker, mut link: Link, stop: &super::Stop, now: Time) {
        let ending = match stop {
            super::Stop::Disconnect => Ending::Disconnect,
            super::Stop::BrokerStops => Ending::BrokerStops,
            super::Stop::DisconnectWithWill => Ending::DisconnectWithWill,
            super::Stop::Lost | super::Stop::Closed(_) => Ending::Lost,
        };
        self.tell_account(&mut link);
        self.pinned(worker, |worker| {
            self.end(worker, link.session, Some(link.number), ending, now);
            self.leave_line(worker, &mut link, now);
        });
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
        let stops = matches!(ending, Ending::BrokerStops);
        if matches!(ending, Ending::Disconnect) || stops && session.keeping().is_none() {
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
            // It came back just now, and perhaps went again.
            Ending::Expired if connected || now < session.expires_at() => {
                self.watch_expiry(&mut session, id, now);
                return;
            }
            Ending::Expired => {
                let (client, waiting) = (&session.identity.client, session.waiting_len());
                tracing::info!(?client, waiting, "a session has expired");
                self.counters.sessions_expired.increment();
                true
            }
            Ending::SentAway(close) => {
                session.close(close.clone(), &mut worker.effects);
                !session.terms.persists()
            }
            Ending::Ended(close) => {
                session.close(close.clone(), &mut worker.effects);
                true
            }
            Ending::Disconnect
            | Ending::DisconnectWithWill
            | Ending::BrokerStops
            | Ending::Lost => !session.terms.persists(),
        };
        let gone = ending.gone();
        let detached = session.detach(now, &mut worker.effects);
        self.store_session(&mut session, &mut worker.effects);
        let identity = session.identity.clone();
        if connected {
            self.leave_place(&identity);
        }
        let own_rights = session.own_rights.clone();
        // [MQTT-3.1.2-8]: when the delay is over, or the session if that is sooner.
        let delay = session.will.as_ref().map(|will| will.delay);
        let delay = delay.filter(|delay| !over && !delay.is_zero());
        let will = match delay {
            Some(_) => None,
            None if stops && !over => None,
            None => session.will.take(),
        };
        if let Some(delay) = delay {
            session.will_due = now + delay;
            self.schedule(now, session.will_due, Timer::Will(id, ended));
        }
        match over {
            true => self.forget_stored_session(&mut session, &mut worker.effects),
            false => self.store_head(&mut session, &mut worker.effects, now),
        }
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
            self.watch_expiry(&mut session, id, now);
            drop(session);
        }
        for (queue, lease) in detached.unwritten {
            self.change_list(worker, queue, now, |list| list.queue.release(lease));
        }
        let mut straight = detached.straight;
        straight.sort_by_key(|(group, sequence, _)| (*group, *sequence));
        for messages in straight.chunk_by(|one, other| one.0 == other.0) {
            let (place, messages) = ((messages[0].0, id), messages.iter());
            let messages = messages.map(|(_, sequence, message)| (*sequence, message.clone()));
            self.take_back(worker, place, messages.collect(), None, now);
        }
        for subscribed in subscriptions {
            match subscribed {
                _ if over => self.end_subscription(worker, id, subscribed, gone, now),
                Subscribed::Filter(_) => {}
                Subscribed::Group(list) | Subscribed::Queue(list) => {
                    self.change_list(worker, list, now, |list| {
                        // A later connection sees to that itself.
                        if !self.is_later_link(id, ended) {
                            list.queue.detach(id, gone, now);
                        }
                    });
                }
            }
        }
        for list in detached.left {
            self.change_list(worker, list, now, |list| match over {
                true => list.queue.remove(id, gone, now),
                false => {
                    list.queue.detach(id, gone, now);
                    // It may have come back, and joined again, meanwhile.
                    if self.is_later_link(id, ended) {
                        list.queue.attach(id);
                    }
                }
            });
        }
        if let Some(will) = will {
            worker.wills.push_back(LastWill {
                will,
                identity,
                own_rights,
            });
            self.publish_wills(worker, now);
        }
    }

    /// The session is over: nothing of it is stored any more.
    fn forget_stored_session(&self, session: &mut Session, effects: &mut Effects) {
        let Some(keeping) = session.keeping() else {
            return;
        };
        let (list, durability) = (keeping.list, keeping.durability);
        let journal = &mut effects.journal;
        for (subscribed, granted) in &session.subscriptions {
            let filter;
            let target = match (*subscribed, granted.list) {
                (Subscribed::Filter(node), _) => {
                    filter = self.router.filter_of(NodeId(node)).unwrap_or_default();
                    Stored::Filter(&filter)
                }
                (_, Some(list)) => Stored::List(list),
                (_, None) => continue,
            };
            let key = &subscription_key(list, target);
            journal.add(durability, Change::Delete { key });
        }
        session.forget_stored(journal);
        let key = &session_key(list);
        journal.add(durability, Change::Delete { key });
        let receipt = self.store.append(journal);
        effects.receipt = effects.receipt.and(receipt);
        let mut last_end = self.last_end.lock();
        *last_end = last_end.and(receipt);
    }

    /// Sees to it that an absent session is looked at when it expires.
    pub(super) fn watch_expiry(&self, session: &mut Session, id: SessionId, now: Time) {
        let due = session.expires_at();
        if due < session.expiry_alarm {
            session.expiry_alarm = self.schedule(now, due, Timer::Expiry(id));
        }
    }

    /// A will's delay may be over.
    pub(super) fn check_will(&self, worker: &mut Worker, id: SessionId, number: u32, now: Time) {
        let Some(mut session) = self.sessions.lock(id.0) else {
            return;
        };
        if session.is_connected() || session.link_number() != number {
            return; // The client was back before [MQTT-3.1.3-9].
        }
        if now < session.will_due {
            self.schedule(now, session.will_due, Timer::Will(id, number));
            return;
        }
        let will = session.will.take();
        let (identity, own_rights) = (session.identity.clone(), session.own_rights.clone());
        let absent_since = session.absent_since;
        self.store_head(&mut session, &mut worker.effects, absent_since);
        drop(session);
        if let Some(will) = will {
            worker.wills.push_back(LastWill {
                will,
                identity,
                own_rights,
            });
            self.publish_wills(worker, now);
        }
    }

    /// One after the other: a will may fill and end a session that has a will,
    /// and so on for as many as there are.
    fn publish_wills(&self, worker: &mut Worker, now: Time) {
        if std::mem::replace(&mut worker.publishing_wills, true) {
            return;
        }
        while let Some(last) = worker.wills.pop_front() {
            self.publish_will(worker, &last, now);
        }
        worker.publishing_wills = false;
    }

    /// [MQTT-3.1.2-8]; decided again, for a right can be lost meanwhile.
    fn publish_will(&self, worker: &mut Worker, last: &LastWill, now: Time) {
        let LastWill { will, identity, .. } = last;
        let publish = (&*will.topic, will.qos, will.retain);
        let own = last.own_rights.as_ref();
        let allowed = (self.access).may_publish_once(Client { identity, own }, publish);
        let published = allowed.is_ok() && {
            let name = will.topic.strip_prefix("$queue/").unwrap_or(&will.topic);
            TopicName::parse(name, self.topic_limits()).is_ok_and(|topic| {
                let id = self.next_message_id(worker);
                let mut publication = Publication::new(
                    topic,
                    &will.payload,
                    will.qos,
                    will.retain,
                    identity,
                    now,
                    id,
                );
                publication.own_rights = own;
                publication.properties = &will.properties;
                publication.expires = will.expiry.map_or(Time::MAX, |expiry| now + expiry);
                self.publish(worker, &publication, &will.topic, now).is_ok()
            })
        };
        if !published {
            self.counters.refused_messages.increment();
            let denied = allowed.err().map(tracing::field::display);
            tracing::warn!(client = ?identity.client, topic = ?will.topic, denied, "a will could not be published");
        }
    }

    /// The session is over, and with it this subscription.
    pub(super) fn end_subscription(
        &self,
        worker: &mut Worker,
        id: SessionId,
        subscribed: Subscribed,
        gone: Gone,
        now: Time,
    ) {
        match subscribed {
            Subscribed::Filter(node) => {
                self.router.remove(NodeId(node), Receiver::Session(id));
            }
            Subscribed::Group(list) | Subscribed::Queue(list) => {
                self.leave_list(worker, list, id, Some(gone), now)
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
}

/// A client that is let in, on its way to its session.
struct Entry<'a> {
    accepted: Accepted<'a>,
    identity: &'a Arc<Identity>,
    own_rights: Option<&'a OwnRights>,
    will: Option<Box<Will>>,
    mount: Option<&'a Arc<Mount>>,
    durability: Durability,
    /// Whether it counts no more among how often its client connects.
    is_counted: bool,
    /// Whether it is counted among its user's connections.
    has_place: bool,
}
