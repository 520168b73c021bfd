//! A PUBLISH, from the packet to its receivers.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use super::door::not_below;
use super::link::Link;
use super::lists::Feed;
use super::record::retained_key;
use super::spelled::Spelled;
use super::timers::Timer;
use super::wishes::{Settles, Wishes};
use super::{Core, Worker};
use crate::access::rules::Ask;
use crate::access::{CONTROL_TOPIC, Client, Denied};
use crate::config::{Durability, SessionFull};
use crate::journal::{Change, Receipt};
use crate::message::{MessageId, Qos, QueueId, SessionId, Time};
use crate::protocol::{Properties, Property, ReasonCode};
use crate::router::{Matches, Receiver, Target};
use crate::session::{Close, Delivered, Delivery, Effects, Publication, Session};
use crate::topic::{self, TopicError, TopicFilter, TopicLimits, TopicName};

/// Expired retained messages removed before others get their turn.
const EXPIRED_PAGE_MAX: usize = 1024;

/// How often a full session is looked at for one PUBLISH.
const LOOKS_MAX: usize = 2;

/// Why a PUBLISH was not taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// This queue is full; there may be room later.
    QueueFull {
        queue: QueueId,
        /// The room that it needs there.
        cost_bytes: usize,
    },
    /// A session is full, and set to refuse; there may be room later.
    SessionFull,
    /// It would have to be stored, and the disk is nearly full.
    DiskLow,
    /// It can never be taken.
    Never(Close),
}

impl Refused {
    /// Whether it may be taken later.
    pub fn is_for_now(&self) -> bool {
        !matches!(self, Refused::Never(_))
    }
}

/// Who has a PUBLISH that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It goes to none.
    Nobody,
    /// Subscribers, and no queue.
    Subscribers,
    /// A queue at least.
    Queues(Queued),
}

/// What its publisher is told of a message that a queue has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queued {
    /// Of a duplicate, that of the first one.
    pub id: MessageId,
    /// Whether an earlier one with its `dedup-id` stands for it.
    pub is_duplicate: bool,
}

impl Queued {
    /// It is stored under that id.
    pub fn new(id: MessageId) -> Queued {
        Queued {
            id,
            is_duplicate: false,
        }
    }

    /// The message of that id stands for it.
    pub fn duplicate(id: MessageId) -> Queued {
        Queued {
            id,
            is_duplicate: true,
        }
    }
}

/// A PUBLISH as it is meant: its alias resolved, its properties sorted.
pub(super) struct Incoming<'a> {
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub sorted: Sorted<'a>,
    pub qos: Qos,
    pub retain: bool,
}

/// The properties of a PUBLISH or of a will, sorted into those that are passed
/// on as they are and those that mean something here.
#[derive(Clone, Copy, Default)]
pub(super) struct Sorted<'a> {
    /// [MQTT-3.3.2-4], [MQTT-3.3.2-15] to [MQTT-3.3.2-18], [MQTT-3.3.2-20]
    pub passed_on: &'a [u8],
    pub alias: Option<NonZeroU16>,
    pub expiry_secs: Option<u32>,
    pub will_delay_secs: u32,
    /// Whether the payload is said to be UTF-8.
    pub says_text: bool,
    /// Whether there is a user property `settles`.
    pub settles: bool,
}

impl<'a> Sorted<'a> {
    /// `scratch` is used where some are left out of what is passed on.
    ///
    /// # Errors
    /// A client says what only a server may.
    pub fn of(properties: Properties<'a>, scratch: &'a mut Vec<u8>) -> Result<Sorted<'a>, Close> {
        let mut sorted = Sorted::default();
        if properties.is_empty() {
            return Ok(sorted);
        }
        scratch.clear();
        let mut left_out = false;
        for property in properties.iter() {
            match property {
                Property::TopicAlias(alias) => sorted.alias = Some(alias),
                Property::MessageExpiryInterval(secs) => sorted.expiry_secs = Some(secs),
                Property::WillDelayInterval(secs) => sorted.will_delay_secs = secs,
                Property::SubscriptionIdentifier(_) => {
                    let why = "a client's PUBLISH has a subscription identifier";
                    return Err(Close::new(ReasonCode::ProtocolError, why)); // [MQTT-3.3.4-6]
                }
                passed_on => {
                    match passed_on {
                        Property::PayloadFormatIndicator(says_text) => {
                            sorted.says_text = says_text;
                        }
                        Property::UserProperty(("settles", _)) => sorted.settles = true,
                        _ => {}
                    }
                    passed_on.encode(scratch);
                    continue;
                }
            }
            left_out = true;
        }
        sorted.passed_on = match left_out {
            true => scratch,
            false => properties.as_bytes(),
        };
        Ok(sorted)
    }
}

impl Core {
    /// A PUBLISH of a client: checked, then taken by all who must have it, or
    /// refused whole. Who has it.
    pub(super) fn accept(
        &self,
        worker: &mut Worker,
        link: &Link,
        incoming: &Incoming<'_>,
        now: Time,
    ) -> Result<Taken, Refused> {
        let topic = incoming.topic.strip_prefix("$queue/");
        match topic.unwrap_or(incoming.topic).starts_with('$') {
            true => self.accept_special(worker, link, incoming, now),
            false => self.accept_as_meant(worker, link, incoming, (None, None), now),
        }
    }

    /// As `accept`, where the topic may say more than where it goes.
    #[cold]
    fn accept_special(
        &self,
        worker: &mut Worker,
        link: &Link,
        incoming: &Incoming<'_>,
        now: Time,
    ) -> Result<Taken, Refused> {
        let (topic, sorted) = (incoming.topic, incoming.sorted);
        if topic == CONTROL_TOPIC && link.terms.mount_bytes == 0 {
            // With its answer.
            return self.pinned(worker, |worker| {
                self.accept_request(worker, link, incoming, now)
            });
        }
        if let Some(spelled) = Spelled::read(topic, sorted.passed_on).map_err(Refused::Never)? {
            // An alias keeps no more of it.
            if topic.len() > "$queue/".len() + self.topic_limits().bytes_max {
                let why = "invalid topic name: it is longer than topic_bytes_max";
                return Err(Refused::Never(Close::new(
                    ReasonCode::TopicNameInvalid,
                    why,
                )));
            }
            let passed_on = spelled.properties.as_deref();
            let incoming = Incoming {
                topic: &spelled.topic,
                sorted: Sorted {
                    passed_on: passed_on.unwrap_or(sorted.passed_on),
                    ..sorted
                },
                ..*incoming
            };
            let said = (spelled.settles, spelled.delay);
            return self.accept_as_meant(worker, link, &incoming, said, now);
        }
        if topic.starts_with("$queue/$")
            && let Some(control) = topic.strip_prefix("$queue/")
        {
            let accepted = self.pinned(worker, |worker| {
                self.accept_control(worker, link, control, incoming.payload, now)
            });
            // Which is as good as a subscriber.
            return accepted
                .map(|()| Taken::Subscribers)
                .map_err(Refused::Never);
        }
        self.accept_as_meant(worker, link, incoming, (None, None), now)
    }

    /// As `accept`; what its topic said: `settles`, and of an ordinary topic how
    /// long it is put off.
    #[inline]
    fn accept_as_meant(
        &self,
        worker: &mut Worker,
        link: &Link,
        incoming: &Incoming<'_>,
        said: (Option<Settles>, Option<Duration>),
        now: Time,
    ) -> Result<Taken, Refused> {
        match link.terms.mount_bytes {
            0 => self.accept_in_full(worker, link, incoming, said, now),
            _ => self.accept_below(worker, link, incoming, said, now),
        }
    }

    /// As `accept_as_meant`, with the client's mount point before its topics.
    #[inline(never)]
    fn accept_below(
        &self,
        worker: &mut Worker,
        link: &Link,
        incoming: &Incoming<'_>,
        said: (Option<Settles>, Option<Duration>),
        now: Time,
    ) -> Result<Taken, Refused> {
        let Some(mount) = &link.door.mount else {
            return self.accept_in_full(worker, link, incoming, said, now);
        };
        let mut topic = std::mem::take(&mut worker.mounted);
        topic.clear();
        let is_below = mount.enter_topic(incoming.topic, &mut topic);
        let properties = mount.enter_properties(incoming.sorted.passed_on);
        let accepted = match properties.filter(|_| is_below) {
            Some(properties) => {
                let sorted = Sorted {
                    passed_on: &properties,
                    ..incoming.sorted
                };
                let incoming = Incoming {
                    topic: &topic,
                    sorted,
                    ..*incoming
                };
                self.accept_in_full(worker, link, &incoming, said, now)
            }
            None => Err(Refused::Never(not_below(ReasonCode::TopicNameInvalid))),
        };
        worker.mounted = topic;
        accepted
    }

    /// As `accept_as_meant`; everything is called as all call it.
    fn accept_in_full(
        &self,
        worker: &mut Worker,
        link: &Link,
        incoming: &Incoming<'_>,
        (mut settles, delay): (Option<Settles>, Option<Duration>),
        now: Time,
    ) -> Result<Taken, Refused> {
        let topic = incoming.topic;
        let name = match worker.cache.has_just_found(topic) && !topic.starts_with('$') {
            true => TopicName::of_valid(topic),
            false => self.parse_topic(topic).map_err(Refused::Never)?,
        };
        let sorted = &incoming.sorted;
        (self.check_payload(sorted.says_text, incoming.payload)).map_err(Refused::Never)?;
        let publish = (topic, incoming.qos, incoming.retain);
        let mut permit = link.permit.take();
        let asked = (self.access).may_publish(&mut permit, link.client(), publish);
        link.permit.set(permit);
        if let Err(denied) = asked {
            return Err(publishing_denied(link, topic, &denied));
        }
        if name.as_str().len() < topic.len() || sorted.settles {
            let wishes = Wishes::of(sorted.passed_on, now).map_err(Refused::Never)?;
            settles = settles.or(wishes.settles);
        }
        if settles.is_some() && delay.is_some_and(|delay| !delay.is_zero()) {
            let why = "the result of a delivery is not put off";
            return Err(Refused::Never(Close::new(
                ReasonCode::TopicNameInvalid,
                why,
            )));
        }
        let id = self.next_message_id(worker);
        let (qos, retain) = (incoming.qos, incoming.retain);
        let mut publication =
            Publication::new(name, incoming.payload, qos, retain, &link.identity, now, id);
        publication.own_rights = link.own_rights.as_ref();
        publication.properties = sorted.passed_on;
        publication.durability = link.durability;
        if let Some(secs) = sorted.expiry_secs {
            publication.expires = now + Duration::from_secs(secs.into());
        }
        match settles {
            None if delay.is_some_and(|delay| !delay.is_zero()) => {
                let due = now + delay.unwrap_or_default();
                self.pinned(worker, |worker| {
                    self.put_off(&mut worker.effects, &publication, due, now)
                        .map(Taken::Queues)
                })
            }
            None => self.publish(worker, &publication, topic, now),
            Some(settles) => {
                publication.is_whole = true;
                self.pinned(worker, |worker| {
                    self.publish_result(worker, link, settles, &mut publication, topic, now)
                })
            }
        }
    }

    /// Where that is asked for, what says that it is text is text
    /// (3.3.2.3.2).
    pub(super) fn check_payload(&self, says_text: bool, payload: &[u8]) -> Result<(), Close> {
        let checked = says_text && self.session_settings().check_payload_format;
        if checked && std::str::from_utf8(payload).is_err() {
            let why = "the payload is said to be UTF-8, and is not";
            return Err(Close::new(ReasonCode::PayloadFormatInvalid, why));
        }
        Ok(())
    }

    /// The topic that a client publishes to, without `$queue/`.
    pub(super) fn parse_topic<'a>(&self, topic: &'a str) -> Result<TopicName<'a>, Close> {
        let name = topic.strip_prefix("$queue/").unwrap_or(topic);
        if !name.starts_with('$') {
            return self.parse_topic_name(name);
        }
        let invalid = |why: &'static str| Err(Close::new(ReasonCode::TopicNameInvalid, why));
        if topic == "$queue"
            || topic == "$settles"
            || topic == "$delayed"
            || topic == CONTROL_TOPIC // A request is not put off, and no will.
            || topic.starts_with("$delayed/")
            || topic.starts_with("$settles/")
            || topic.starts_with("$share/")
            || topic.starts_with("$dead/")
        {
            let why = "clients do not publish to $queue, $settles, $delayed, $share/ or $dead/, nor requests by a detour; $queue/NAME is a queue";
            return invalid(why);
        }
        if name.len() < topic.len() {
            return invalid("no queue name begins with $");
        }
        self.parse_topic_name(name)
    }

    fn parse_topic_name<'a>(&self, name: &'a str) -> Result<TopicName<'a>, Close> {
        TopicName::parse(name, self.topic_limits()).map_err(|error| {
            let reason = match error {
                TopicError::TooLong | TopicError::TooDeep => ReasonCode::TopicNameInvalid,
                _ => ReasonCode::MalformedPacket, // [MQTT-3.3.2-2]
            };
            Close::new(reason, format!("invalid topic name: {error}"))
        })
    }

    /// Routes it; who has it. `full_topic`: with the `$queue/` that its topic
    /// is without.
    pub(super) fn publish(
        &self,
        worker: &mut Worker,
        publication: &Publication<'_>,
        full_topic: &str,
        now: Time,
    ) -> Result<Taken, Refused> {
        match full_topic.len() > publication.topic.as_str().len() {
            true => self.pinned(worker, |worker| {
                self.publish_to_queues(worker, publication, full_topic, now)
                    .map(Taken::Queues)
            }),
            false => self.publish_to_all(worker, publication, now),
        }
    }

    /// `$queue/T`: every queue that T feeds, and no ordinary subscriber.
    fn publish_to_queues(
        &self,
        worker: &mut Worker,
        publication: &Publication<'_>,
        full_topic: &str,
        now: Time,
    ) -> Result<Queued, Refused> {
        let Worker { effects, cache, .. } = worker;
        let targets = self.router.queues(TopicName::of_valid(full_topic), cache);
        let stores = |target: &Target| self.stores(target.receiver, publication);
        if self.store.is_low() && (targets.is_empty() || targets.iter().any(stores)) {
            return Err(Refused::DiskLow);
        }
        if targets.len() > 1 && self.store.is_on() {
            publication.share_body();
        }
        // None, or all gone just now: one is made.
        if let Some(queued) = self.feed(effects, targets, Feed::Direct, publication, now)? {
            return Ok(queued);
        }
        self.may_create(publication)?;
        loop {
            let queue = self
                .create_queue_for(effects, publication.topic, now)
                .map_err(Refused::Never)?;
            let fed = self.feed_one(effects, queue, Feed::Direct, publication, now)?;
            if let Some(queued) = fed {
                return Ok(queued);
            }
        }
    }

    /// Whether the publisher may make the queue that its topic names.
    fn may_create(&self, publication: &Publication<'_>) -> Result<(), Refused> {
        if !self.access.is_on() || Arc::ptr_eq(publication.publisher, &self.identity) {
            return Ok(());
        }
        let queue = TopicFilter::parse(publication.topic.as_str(), TopicLimits::NONE);
        let queue = queue.expect("a topic name is a filter too");
        let who = Client {
            identity: publication.publisher,
            own: publication.own_rights,
        };
        let asked = self.access.may(who, Ask::Create { queue });
        asked.map_err(|denied| {
            let client = &publication.publisher.client;
            tracing::info!(?client, queue = queue.as_str(), why = %denied, "a queue was not made");
            let why = "there is no such queue, and this client may not make it";
            Refused::Never(Close::new(ReasonCode::NotAuthorized, why))
        })
    }

    fn publish_to_all(
        &self,
        worker: &mut Worker,
        publication: &Publication<'_>,
        now: Time,
    ) -> Result<Taken, Refused> {
        let Worker {
            effects,
            cache,
            overflowed,
            pin,
            ..
        } = &mut *worker;
        let matches = self.router.matches(publication.topic, cache);
        let targets = matches.targets;
        // Sessions stand before all others.
        let last = targets.last();
        let to_lists = last.is_some_and(|last| !matches!(last.receiver, Receiver::Session(_)));
        let may_wait = publication.qos > Qos::AtMostOnce || self.session_settings().store_qos0;
        if pin.is_some() && (to_lists || publication.retain || targets.len() > 1 && may_wait) {
            return self.publish_pinned(worker, publication, now);
        }
        let mut to_queues = None;
        if to_lists
            || publication.retain
            || self.session_settings().full == SessionFull::Refuse
            || self.store.is_on() && (targets.len() > 1 || self.store.is_low())
        {
            to_queues =
                self.publish_before_sessions(effects, (matches, to_lists), publication, now)?;
        }
        // Who subscribed before it was retained found nothing there: it is live.
        let matches = match publication.retain {
            true => self.router.matches(publication.topic, cache),
            false => matches,
        };
        let targets = matches.targets;
        effects.frames.begin(targets.len());
        for target in targets {
            if let Receiver::Session(session) = target.receiver {
                self.deliver(effects, overflowed, session, (matches, target), publication);
            }
        }
        let taken = match (to_queues, targets.is_empty()) {
            (Some(queued), _) => Taken::Queues(queued),
            (None, true) => Taken::Nobody,
            (None, false) => Taken::Subscribers,
        };
        if !worker.overflowed.is_empty() {
            self.end_overflowed(worker, now);
        }
        Ok(taken)
    }

    /// As `publish`, which finds nothing to pin then.
    #[inline(never)]
    fn publish_pinned(
        &self,
        worker: &mut Worker,
        publication: &Publication<'_>,
        now: Time,
    ) -> Result<Taken, Refused> {
        self.pinned(worker, |worker| {
            let topic = publication.topic.as_str();
            self.publish(worker, publication, topic, now)
        })
    }

    /// What comes before the sessions get it: whether all can take it, lists,
    /// what is retained. By far the most messages need none of it. What a queue has
    /// of it.
    #[inline(never)]
    fn publish_before_sessions(
        &self,
        effects: &mut Effects,
        (matches, mut to_lists): (Matches<'_>, bool),
        publication: &Publication<'_>,
        now: Time,
    ) -> Result<Option<Queued>, Refused> {
        let targets = matches.targets;
        // What the broker says of itself is in a store of its own.
        let is_sys = topic::is_sys(publication.topic.as_str());
        let mut to_retain = publication.retain && !is_sys;
        let mut to_queues = None;
        if self.store.is_on() {
            if targets.len() > 1 {
                publication.share_body();
            }
            if self.store.is_low() && self.would_store(matches, publication, to_retain) {
                if !publication.may_be_lost() {
                    return Err(Refused::DiskLow);
                }
                // Nobody waits for it: who is online gets it.
                self.counters.dropped_disk_low.increment();
                (to_lists, to_retain) = (false, false);
            }
        }
        if self.session_settings().full == SessionFull::Refuse {
            self.check_sessions(effects, publication, matches, now)?;
        }
        if to_lists {
            // Refused whole: before a queue has it.
            if to_retain
                && !publication.payload.is_empty()
                && !(self.retained).has_room(publication.topic, publication.message(), now)
            {
                return Err(self.refuse_retained());
            }
            let fed = self.feed(effects, targets, Feed::Copy, publication, now);
            match fed {
                // Nobody waits for it: a full queue takes it from nobody else.
                Err(_) if publication.may_be_lost() => {
                    self.counters.dropped_queue_full.increment();
                }
                fed => to_queues = fed?,
            }
        }
        if to_retain {
            self.retain(effects, publication, now)?; // [MQTT-3.3.1-5], [MQTT-3.3.1-12]
        }
        Ok(to_queues)
    }

    /// Whether it would have to be stored by anybody.
    fn would_store(
        &self,
        matches: Matches<'_>,
        publication: &Publication<'_>,
        to_retain: bool,
    ) -> bool {
        // What takes a retained message away makes room.
        to_retain && !publication.payload.is_empty()
            || (matches.targets.iter()).any(|target| match target.receiver {
                Receiver::Session(id) => {
                    let qos = publication.qos.min(target.subscription.qos);
                    let session = self.sessions.lock(id.0);
                    (qos > Qos::AtMostOnce || self.session_settings().store_qos0)
                        && session.is_some_and(|session| session.keeping().is_some())
                }
                Receiver::Group(_) | Receiver::Queue(_) => {
                    self.stores(target.receiver, publication)
                }
            })
    }

    /// To one session: at the lower of the two QoS [MQTT-3.8.4-8], and as
    /// retained only where that is asked for [MQTT-3.3.1-12], [MQTT-3.3.1-13];
    /// in 3.1.1 [MQTT-3.8.4-6], [MQTT-3.3.1-9].
    fn deliver(
        &self,
        effects: &mut Effects,
        overflowed: &mut Vec<SessionId>,
        id: SessionId,
        (matches, target): (Matches<'_>, &Target),
        publication: &Publication<'_>,
    ) {
        let Some(mut session) = self.sessions.lock(id.0) else {
            return;
        };
        let is_own = || publication.publisher.client == session.identity.client;
        let (granted, ids) = if matches.minds_own(target) && is_own() {
            match matches.own(target) {
                Some(own) => own,
                None => return, // [MQTT-3.8.3-3]
            }
        } else {
            (target.subscription, matches.ids(target))
        };
        let delivery = Delivery {
            qos: publication.qos.min(granted.qos),
            retain: publication.retain && granted.retain_as_published,
            ids,
        };
        match self.deliver_to(&mut session, publication, delivery, effects) {
            Delivered::Taken => {}
            Delivered::Overflow => overflowed.push(id),
            dropped => self.count_dropped(dropped),
        }
    }

    /// Hands a message to a session, and in what that has to store. With what
    /// tells of something that is about to be stored, the session waits for that.
    // By itself the compiler makes a call of it on the hottest path: 32
    // instructions a delivery.
    #[inline(always)]
    pub(super) fn deliver_to(
        &self,
        session: &mut Session,
        publication: &Publication<'_>,
        delivery: Delivery<'_>,
        effects: &mut Effects,
    ) -> Delivered {
        let is_gated = publication.after != Receipt::NONE;
        if is_gated {
            session.gate_next();
        }
        let settings = self.settings.current();
        let (limits, settings) = (&settings.limits, &settings.session);
        let mut delivered = session.deliver(publication, delivery, limits, settings, effects);
        if delivered == Delivered::Unread {
            delivered = self.deliver_looking(session, publication, delivery, effects);
        }
        if is_gated || !effects.journal.is_empty() {
            self.store_changes(session, effects, publication.after);
        }
        delivered
    }

    /// Makes room by what of the session is not in memory.
    #[inline(never)]
    fn deliver_looking(
        &self,
        session: &mut Session,
        publication: &Publication<'_>,
        delivery: Delivery<'_>,
        effects: &mut Effects,
    ) -> Delivered {
        let settings = self.settings.current();
        let (limits, settings) = (&settings.limits, &settings.session);
        let mut delivered = Delivered::Unread;
        let mut looks = 0;
        while delivered == Delivered::Unread {
            // It takes one more for the time being rather than all of its time.
            effects.may_exceed =
                looks == LOOKS_MAX || !self.make_room(session, effects, publication.now);
            looks += 1;
            delivered = session.deliver(publication, delivery, limits, settings, effects);
            effects.may_exceed = false;
        }
        delivered
    }

    pub(super) fn count_dropped(&self, delivered: Delivered) {
        match delivered {
            Delivered::Taken | Delivered::Overflow | Delivered::Unread => {}
            Delivered::DroppedAbsent => self.counters.dropped_absent.increment(),
            Delivered::DroppedSlow => self.counters.dropped_slow.increment(),
            Delivered::DroppedTooLarge => self.counters.dropped_too_large.increment(),
            Delivered::DroppedDenied => self.counters.dropped_denied.increment(),
            Delivered::DroppedOldest(count) => self.counters.dropped_oldest.add(count),
        }
    }

    /// Under `full = "refuse"` a message is taken by all sessions or by none.
    fn check_sessions(
        &self,
        effects: &mut Effects,
        publication: &Publication<'_>,
        matches: Matches<'_>,
        now: Time,
    ) -> Result<(), Refused> {
        for target in matches.targets {
            if publication.qos.min(target.subscription.qos) == Qos::AtMostOnce {
                continue;
            }
            let Receiver::Session(id) = target.receiver else {
                continue;
            };
            let Some(mut session) = self.sessions.lock(id.0) else {
                continue;
            };
            let is_own = || publication.publisher.client == session.identity.client;
            if target.subscription.no_local && is_own() {
                continue;
            }
            let ids_len = matches.ids(target).len();
            let mut has_space = session.make_space(publication, ids_len, self.limits(), effects);
            let mut looks = 0;
            while !has_space
                && looks < LOOKS_MAX
                && session.may_have_expired(now)
                && self.make_room(&mut session, effects, now)
            {
                looks += 1;
                has_space = session.make_space(publication, ids_len, self.limits(), effects);
            }
            self.store_session(&mut session, effects);
            if !has_space {
                return Err(Refused::SessionFull);
            }
        }
        Ok(())
    }

    /// A full session never stops a publisher: it is ended, and its client
    /// finds that out.
    pub(super) fn end_overflowed(&self, worker: &mut Worker, now: Time) {
        self.pinned(worker, |worker| self.end_overflowed_pinned(worker, now));
    }

    fn end_overflowed_pinned(&self, worker: &mut Worker, now: Time) {
        while let Some(id) = worker.overflowed.pop() {
            let Some((client, waiting)) = self.sessions.lock(id.0).and_then(|session| {
                (!session.has_ended())
                    .then(|| (session.identity.client.clone(), session.waiting_len()))
            }) else {
                continue;
            };
            self.counters.sessions_overflowed.increment();
            tracing::warn!(
                ?client,
                waiting,
                "a session is full and ends; see session_messages_max, session_bytes_max"
            );
            let close = Close::new(ReasonCode::QuotaExceeded, "the session is full");
            self.end(worker, id, None, super::connect::Ending::Ended(close), now);
        }
    }

    /// An empty payload takes the topic's message away [MQTT-3.3.1-10],
    /// [MQTT-3.3.1-11].
    fn retain(
        &self,
        effects: &mut Effects,
        publication: &Publication<'_>,
        now: Time,
    ) -> Result<(), Refused> {
        let message = (!publication.payload.is_empty()).then(|| publication.message().clone());
        let durability = self.durability().max(publication.durability);
        let retained = (self.retained).set_and(publication.topic, message, now, |retained| {
            let topic = publication.topic.as_str().as_bytes();
            let key = &retained_key(topic);
            let journal = &mut effects.journal;
            match retained {
                Some(_) => publication.store_value(journal, durability, key),
                None => journal.add(durability, Change::Delete { key }),
            }
            effects.receipt = effects.receipt.and(self.store.append(journal));
        });
        retained.map_err(|_| self.refuse_retained())?;
        if publication.expires < Time::MAX {
            self.watch_retained(now);
        }
        Ok(())
    }

    /// Sees to it that expired messages leave, whether or not anybody asks for
    /// them.
    pub(super) fn watch_retained(&self, now: Time) {
        let mut alarm = self.retained_alarm.lock();
        if let Some(due) = self.retained.next_expiry()
            && due < *alarm
        {
            *alarm = self.schedule(now, due, Timer::Retained);
        }
    }

    pub(super) fn expire_retained(&self, worker: &mut Worker, now: Time) {
        // Timers that an earlier one has made needless set no other.
        let mut alarm = self.retained_alarm.lock();
        if *alarm <= now {
            *alarm = Time::MAX;
        }
        drop(alarm);
        let journal = &mut worker.effects.journal;
        let removed = (self.retained).remove_expired(now, EXPIRED_PAGE_MAX, |topic| {
            let key = &retained_key(topic);
            journal.add(Durability::Flushed, Change::Delete { key });
            self.store.append(journal);
        });
        self.counters.dropped_expired.add(removed);
        self.watch_retained(now);
    }

    fn refuse_retained(&self) -> Refused {
        let why = "there is no room for another retained message; see retained_messages_max, retained_bytes_max";
        Refused::Never(Close::new(ReasonCode::QuotaExceeded, why))
    }
}

#[cold]
fn publishing_denied(link: &Link, topic: &str, denied: &Denied) -> Refused {
    let client = &link.identity.client;
    tracing::info!(?client, topic, why = %denied, "PUBLISH denied");
    // 3.1.1 has no word for it; acknowledging would say that it is stored [MQTT-3.3.5-2].
    let why = "publishing to this topic is not allowed";
    Refused::Never(Close::new(ReasonCode::NotAuthorized, why))
}
