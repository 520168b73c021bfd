//! SUBSCRIBE and UNSUBSCRIBE: ordinary filters, share groups, work queues, and
//! the retained messages that a new subscription gets.

use std::borrow::Cow;
use std::time::Duration;

use super::door::not_below;
use super::link::{Link, Stop, too_large};
use super::lists::parse_span;
use super::record::{SubscriptionRecord, Target as Stored, subscription_key};
use super::rights::gate_of;
use super::{Core, Worker};
use crate::access::rules::Ask;
use crate::access::{Client, Denied, Subscribing};
use crate::journal::Change;
use crate::message::{Qos, QueueId, SessionId, SubscriptionId, Time};
use crate::protocol::{
    Packet, Properties, PropertiesBuf, Property, ReasonCode, RetainHandling, Suback, Subscribe,
    SubscribeOptions, Unsuback, Unsubscribe,
};
use crate::queue::Gone;
use crate::router::{Cursor, NodeId, Receiver, Subscription};
use crate::session::{
    Backlog, Close, Delivery, Effects, Granted, Publication, Session, Subscribed,
};
use crate::slots::Locked;
use crate::topic::{TopicFilter, TopicLimits};

/// Retained messages looked at before others get their turn.
const RETAINED_PAGE_MAX: usize = 256;

/// What a SUBSCRIBE asks for beside a filter.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub options: SubscribeOptions,
    pub id: Option<SubscriptionId>,
    // Of a member of a queue, as it stands there. To anybody else these user
    // properties mean what the application wants.
    prefetch: Option<Option<u32>>,
    ack_timeout: Option<Option<Duration>>,
}

impl Asked {
    /// Of the whole packet: a SUBSCRIBE may have as many filters as properties.
    fn of(properties: Properties<'_>) -> Asked {
        let mut asked = Asked {
            options: SubscribeOptions::new(Qos::AtMostOnce),
            id: None,
            prefetch: None,
            ack_timeout: None,
        };
        for property in properties.iter() {
            match property {
                Property::SubscriptionIdentifier(id) => asked.id = Some(id),
                Property::UserProperty(("prefetch", text)) => {
                    let prefetch = text.parse().ok();
                    asked.prefetch = Some(prefetch.filter(|max| (1..=65_535).contains(max)));
                }
                Property::UserProperty(("ack-timeout", text)) => {
                    asked.ack_timeout = Some(parse_span(text).map(|span| match span {
                        Duration::ZERO => Duration::MAX, // never, as in the configuration
                        span => span,
                    }));
                }
                _ => {}
            }
        }
        asked
    }

    /// How many jobs a member takes at a time, and how long it may take for
    /// one, where it says so.
    ///
    /// # Errors
    /// What it says is no such number.
    pub fn membership(&self) -> Result<(Option<u32>, Option<Duration>), Close> {
        let wrong = |why| Close::new(ReasonCode::ImplementationSpecificError, why);
        if self.prefetch == Some(None) {
            return Err(wrong(
                "the user property prefetch is a number from 1 to 65535",
            ));
        }
        if self.ack_timeout == Some(None) {
            let why =
                "the user property ack-timeout is a number of seconds, a year at most; 0: never";
            return Err(wrong(why));
        }
        Ok((self.prefetch.flatten(), self.ack_timeout.flatten()))
    }

    /// For the session to remember.
    pub fn granted(self, qos: Qos) -> Granted {
        Granted {
            qos,
            retain_as_published: self.options.retain_as_published,
            id: self.id,
            list: None,
        }
    }

    /// For the store to remember.
    pub fn record(self, qos: Qos) -> SubscriptionRecord {
        SubscriptionRecord {
            qos,
            no_local: self.options.no_local,
            retain_as_published: self.options.retain_as_published,
            id: self.id,
            prefetch: self.prefetch.flatten(),
            ack_timeout: self.ack_timeout.flatten(),
        }
    }

    /// As the store remembers it.
    pub fn recorded(record: SubscriptionRecord) -> Asked {
        let mut options = SubscribeOptions::new(record.qos);
        options.no_local = record.no_local;
        options.retain_as_published = record.retain_as_published;
        Asked {
            options,
            id: record.id,
            prefetch: record.prefetch.map(Some),
            ack_timeout: record.ack_timeout.map(Some),
        }
    }
}

/// What a filter's text asks for.
enum Wanted<'a> {
    Filter(TopicFilter<'a>),
    /// `$share/GROUP/FILTER`
    Group(TopicFilter<'a>),
    /// `$queue/NAME`
    Queue(TopicFilter<'a>),
}

impl Core {
    pub(super) fn handle_subscribe(
        &self,
        worker: &mut Worker,
        link: &Link,
        subscribe: &Subscribe<'_>,
        now: Time,
    ) -> Result<(), Stop> {
        check_grammar(subscribe.filters.iter().map(|(text, _)| *text))?;
        let epoch = self.access.epoch();
        let asked = Asked::of(subscribe.properties);
        let mut why = None;
        // As if each had come in a packet of its own [MQTT-3.8.4-5].
        let reasons: Vec<_> = (subscribe.filters.iter())
            .map(|(text, options)| {
                let asked = Asked {
                    options: *options,
                    ..asked
                };
                let granted = self.subscribe(&mut worker.effects, link, text, asked, now);
                granted.map_or_else(
                    |close| {
                        let client = &link.identity.client;
                        tracing::info!(?client, filter = ?text, why = %close.why, "subscription refused");
                        why.get_or_insert(close.why);
                        close.reason
                    },
                    ReasonCode::granted,
                )
            })
            .collect();
        if self.access.epoch() != epoch {
            // Who bound the session to other rules may not have seen these yet.
            self.bind(worker, link.session, now);
        }
        // What the subscriptions bring goes out behind it: the connection finds
        // it when it looks after its session.
        append_answer(worker, link, why, |properties| {
            Packet::Suback(Suback {
                packet_id: subscribe.packet_id, // [MQTT-3.8.4-2]
                properties,
                reasons: reasons.clone(), // [MQTT-3.9.3-1]
            })
        })
    }

    /// One filter; the QoS granted.
    fn subscribe(
        &self,
        effects: &mut Effects,
        link: &Link,
        text: &str,
        asked: Asked,
        now: Time,
    ) -> Result<Qos, Close> {
        let below = || not_below(ReasonCode::TopicFilterInvalid);
        let text = &*link.door.enter_filter(text).ok_or_else(below)?;
        let wanted = self.parse_filter(text)?;
        let subscribing = self.authorize_subscription(link, text, &wanted)?;
        let mut asked = asked;
        asked.options.qos = asked.options.qos.min(subscribing.qos_max);
        if let Some(gate) = &subscribing.gate {
            // Before anything can come by it.
            let mut session = self.session_to_subscribe(link)?;
            session.gate = gate_of(session.mount.as_ref(), Some(gate.clone()));
        }
        self.subscribe_as_granted(effects, link, text, (wanted, asked), now)
    }

    fn subscribe_as_granted(
        &self,
        effects: &mut Effects,
        link: &Link,
        text: &str,
        (wanted, asked): (Wanted<'_>, Asked),
        now: Time,
    ) -> Result<Qos, Close> {
        let options = asked.options;
        match wanted {
            Wanted::Filter(filter) => {
                let mut session = self.session_to_subscribe(link)?;
                let held = self.router.find(filter);
                let held = held.map(|node| Subscribed::Filter(node.0));
                check_subscriptions(link, &session, held)?;
                // With the session locked: whoever ends it comes before, or
                // finds this one. An equal filter is replaced.
                let receiver = Receiver::Session(link.session);
                let subscription = Subscription {
                    qos: options.qos,
                    no_local: options.no_local,
                    retain_as_published: options.retain_as_published,
                    id: asked.id,
                };
                let subscribed = self.router.subscribe(filter, receiver, subscription);
                let (node, granted) = (subscribed.node.0, asked.granted(options.qos));
                session.subscribed(Subscribed::Filter(node), granted);
                let wants_retained = match options.retain_handling {
                    RetainHandling::Send => true, // [MQTT-3.3.1-9], again [MQTT-3.8.4-4]
                    RetainHandling::SendIfNew => !subscribed.replaced, // [MQTT-3.3.1-10]
                    RetainHandling::DoNotSend => false, // [MQTT-3.3.1-11]
                };
                match wants_retained {
                    // What is retained from now on is live.
                    true if self.retained_for(text).is_empty() => session.backlog.remove(node),
                    true => session.backlog.push(node, granted, options.no_local),
                    // What is on its way comes as is asked for now.
                    false => session.backlog.update(node, granted, options.no_local),
                }
                let stored = (Stored::Filter(text), Some(asked.record(options.qos)));
                self.store_subscription(&mut session, effects, stored);
                drop(session);
                self.subscribed_to(filter, now);
                Ok(options.qos)
            }
            Wanted::Group(filter) => {
                let held = self.list_named(text).map(Subscribed::Group);
                check_subscriptions(link, &*self.session_to_subscribe(link)?, held)?;
                let granted = self.join_group(effects, link, text, filter, asked, now);
                self.subscribed_to(filter, now);
                granted
            }
            Wanted::Queue(name) => {
                let held = self.list_named(text).map(Subscribed::Queue);
                check_subscriptions(link, &*self.session_to_subscribe(link)?, held)?;
                self.join_queue(effects, link, name, asked, now)
            }
        }
    }

    /// What the broker publishes only if anybody wants it may be wanted.
    fn subscribed_to(&self, filter: TopicFilter<'_>, now: Time) {
        if filter.as_str().starts_with("$SYS/") {
            self.watch_sys(now);
        }
    }

    /// Hands in that a subscription is now so, or is no more.
    pub(super) fn store_subscription(
        &self,
        session: &mut Session,
        effects: &mut Effects,
        (target, record): (Stored<'_>, Option<SubscriptionRecord>),
    ) {
        let Some(keeping) = session.keeping() else {
            return;
        };
        let key = &subscription_key(keeping.list, target);
        let value = record.map(SubscriptionRecord::encode);
        let change = match &value {
            Some(value) => Change::Put { key, value },
            None => Change::Delete { key },
        };
        effects.journal.add(keeping.durability, change);
        self.store_session(session, effects);
    }

    /// The connection's session, to add a subscription to.
    pub(super) fn session_to_subscribe(&self, link: &Link) -> Result<Locked<'_, Session>, Close> {
        let why = "the session was taken over, or has ended";
        (self.session_of(link)).ok_or_else(|| Close::new(ReasonCode::SessionTakenOver, why))
    }

    fn parse_filter<'a>(&self, text: &'a str) -> Result<Wanted<'a>, Close> {
        let invalid = |why: &'static str| Close::new(ReasonCode::TopicFilterInvalid, why);
        let parse = |filter| {
            TopicFilter::parse(filter, self.topic_limits())
                .map_err(|error| Close::new(ReasonCode::TopicFilterInvalid, error.to_string()))
        };
        if let Some(name) = text.strip_prefix("$queue/") {
            return Ok(Wanted::Queue(parse(name)?));
        }
        if let Some(rest) = text.strip_prefix("$share/") {
            let (group, filter) = rest
                .split_once('/')
                .ok_or_else(|| invalid("$share/GROUP/FILTER has no filter"))?;
            if group.is_empty() || group.contains(['+', '#']) {
                return Err(invalid(
                    "the group in $share/GROUP/FILTER is a name without wildcards",
                ));
            }
            if filter.starts_with("$queue/") || filter.starts_with("$share/") {
                return Err(invalid(
                    "a share group takes an ordinary filter; $queue/NAME is shared by itself",
                ));
            }
            return Ok(Wanted::Group(parse(filter)?));
        }
        if text == "$share" || text == "$queue" {
            return Err(invalid("there are $share/GROUP/FILTER and $queue/NAME"));
        }
        Ok(Wanted::Filter(parse(text)?))
    }

    fn authorize_subscription(
        &self,
        link: &Link,
        text: &str,
        wanted: &Wanted<'_>,
    ) -> Result<Subscribing, Close> {
        let who = link.client();
        let asked = match wanted {
            Wanted::Filter(filter) => self.access.may_subscribe(who, *filter),
            Wanted::Group(filter) => self.access.may_share(who, &[], [*filter].into_iter()),
            Wanted::Queue(queue) => {
                let makes = self.list_named(text).is_none();
                self.may_be_member(who, *queue, makes)
            }
        };
        asked.map_err(|denied| {
            let client = &who.identity.client;
            tracing::info!(?client, filter = text, why = %denied, "SUBSCRIBE denied");
            Close::new(
                ReasonCode::NotAuthorized,
                "this subscription is not allowed",
            )
        })
    }

    /// Whether a client may be a member of a queue. `makes`: by making it.
    pub(super) fn may_be_member(
        &self,
        who: Client<'_>,
        queue: TopicFilter<'_>,
        makes: bool,
    ) -> Result<Subscribing, Denied> {
        let asks = [Ask::Join { queue }, Ask::Create { queue }];
        let asks = &asks[..if makes { 2 } else { 1 }];
        // Also the right to what feeds it; dead letters have the topics of those
        // that their queue had.
        let mut feeding = self.feeding_filters(queue);
        let alive = queue.as_str().strip_prefix("$dead/");
        let alive = alive.and_then(|name| TopicFilter::parse(name, TopicLimits::NONE).ok());
        if let Some(alive) = alive {
            feeding.extend(self.feeding_filters(alive));
        }
        let filters = feeding.iter();
        let filters = filters.filter_map(|text| TopicFilter::parse(text, TopicLimits::NONE).ok());
        self.access.may_share(who, asks, filters)
    }

    // ---- UNSUBSCRIBE

    pub(super) fn handle_unsubscribe(
        &self,
        worker: &mut Worker,
        link: &Link,
        unsubscribe: &Unsubscribe<'_>,
        now: Time,
    ) -> Result<(), Stop> {
        check_grammar(unsubscribe.filters.iter().copied())?;
        let reasons: Vec<_> = (unsubscribe.filters.iter())
            .map(|text| match self.unsubscribe(worker, link, text, now) {
                true => ReasonCode::Success,
                false => ReasonCode::NoSubscriptionExisted,
            })
            .collect();
        // Also when there was nothing to delete [MQTT-3.10.4-5].
        append_answer(worker, link, None, |properties| {
            Packet::Unsuback(Unsuback {
                packet_id: unsubscribe.packet_id, // [MQTT-3.10.4-4]
                properties,
                reasons: reasons.clone(), // [MQTT-3.11.3-1]
            })
        })
    }

    /// By the exact text [MQTT-3.10.4-1]; whether there was such a subscription.
    fn unsubscribe(&self, worker: &mut Worker, link: &Link, text: &str, now: Time) -> bool {
        let Some(text) = link.door.enter_filter(text) else {
            return false;
        };
        let text = &*text;
        let Ok(wanted) = self.parse_filter(text) else {
            return false;
        };
        let named = self.list_named(text);
        let Some(mut session) = self.session_of(link) else {
            return false;
        };
        let subscribed = match wanted {
            Wanted::Filter(filter) => {
                let receiver = Receiver::Session(link.session);
                let Some(node) = self.router.unsubscribe(filter, receiver) else {
                    return false;
                };
                session.backlog.remove(node.0);
                Some(Subscribed::Filter(node.0))
            }
            Wanted::Group(_) => named.map(Subscribed::Group),
            Wanted::Queue(_) => named.map(Subscribed::Queue),
        };
        let effects = &mut worker.effects;
        let held = subscribed.filter(|held| self.drop_held(&mut session, effects, *held, text));
        drop(session);
        if let Some(Subscribed::Group(list) | Subscribed::Queue(list)) = held {
            self.leave_list(worker, list, link.session, None, now);
        }
        held.is_some()
    }

    /// A session has a subscription no more; whether it had it.
    fn drop_held(
        &self,
        session: &mut Session,
        effects: &mut Effects,
        held: Subscribed,
        text: &str,
    ) -> bool {
        let Some(granted) = session.subscriptions.remove(&held) else {
            return false;
        };
        let target = match granted.list {
            Some(list) => Stored::List(list),
            None => Stored::Filter(text),
        };
        self.store_subscription(session, effects, (target, None));
        true
    }

    /// As UNSUBSCRIBE, of a queue or share group that a session may be in no
    /// longer; what it has in hand goes to others.
    pub(super) fn take_out_member(
        &self,
        worker: &mut Worker,
        id: SessionId,
        (held, list): (Subscribed, QueueId),
        now: Time,
    ) {
        let effects = &mut worker.effects;
        let session = self.sessions.lock(id.0);
        let was_in =
            session.is_some_and(|mut session| self.drop_held(&mut session, effects, held, ""));
        if was_in {
            self.leave_list(worker, list, id, Some(Gone::Taken), now);
        }
    }

    // ---- retained messages

    /// Sends retained messages for new subscriptions, a page at a time, as far
    /// as there is room [MQTT-3.3.1-6], [MQTT-3.3.1-8]; whether there are more
    /// that can go out now.
    ///
    /// The session is locked all the while: a message that is published
    /// meanwhile comes after the one that it replaces.
    pub fn send_backlog(&self, worker: &mut Worker, id: SessionId, now: Time) -> bool {
        self.pinned(worker, |worker| self.send_backlog_pinned(worker, id, now))
    }

    fn send_backlog_pinned(&self, worker: &mut Worker, id: SessionId, now: Time) -> bool {
        let Some(mut session) = self.sessions.lock(id.0) else {
            return false;
        };
        let session = &mut *session;
        if self.retains_nothing() {
            // A client with a million filters waits for none of them.
            session.backlog = Backlog::default();
            return false;
        }
        if !session.has_room_for_backlog() {
            return false;
        }
        let Some(pending) = session.backlog.first() else {
            return false;
        };
        let (node, granted, no_local) = (pending.node, pending.granted, pending.no_local);
        let cursor = pending.position.take().map(Cursor::from_key);
        let filter = self.router.filter_of(NodeId(node)).unwrap_or_default();
        let mut page = Vec::new();
        let mut next = TopicFilter::parse(&filter, TopicLimits::NONE)
            .ok()
            .and_then(|filter| {
                self.retained_for(filter.as_str()).page(
                    filter,
                    cursor.as_ref(),
                    RETAINED_PAGE_MAX,
                    now,
                    &mut page,
                )
            });
        for message in &page {
            // [MQTT-3.8.3-3]
            if no_local && message.publisher().client == session.identity.client {
                continue;
            }
            let publication = Publication::of(message, now);
            let qos = message.qos().min(granted.qos);
            let room = match qos {
                Qos::AtMostOnce => session.has_room_for_backlog(),
                _ => session.can_send(|| publication.cost_bytes(), self.limits()),
            };
            if !room {
                next = Some(Cursor::at(message.topic()));
                break;
            }
            if !self.may_still_publish(&publication) {
                self.counters.dropped_denied.increment();
                continue;
            }
            let effects = &mut worker.effects;
            effects.frames.begin(1);
            let id = granted.id.map(SubscriptionId::get);
            let delivery = Delivery {
                qos,
                retain: true,
                ids: id.as_slice(),
            };
            let delivered = self.deliver_to(session, &publication, delivery, effects);
            self.count_dropped(delivered);
        }
        match (next, session.backlog.first()) {
            (Some(next), Some(pending)) => pending.position = Some(next.into_key()),
            _ => session.backlog.remove(node),
        }
        !session.backlog.is_empty() && session.has_room_for_backlog()
    }
}

/// Whether there is room for another subscription, or it is there already.
pub(super) fn check_subscriptions(
    link: &Link,
    session: &Session,
    held: Option<Subscribed>,
) -> Result<(), Close> {
    if session.subscriptions.len() < link.door.limits.subscriptions_per_client_max
        || held.is_some_and(|held| session.subscriptions.contains_key(&held))
    {
        return Ok(());
    }
    let why = "the client has subscriptions_per_client_max subscriptions";
    Err(Close::new(ReasonCode::QuotaExceeded, why))
}

/// Appends SUBACK or UNSUBACK, which waits until all is stored that it speaks
/// of, and says in words why a filter was refused
/// if there is room for it [MQTT-3.9.2-1].
fn append_answer(
    worker: &mut Worker,
    link: &Link,
    why: Option<Cow<'static, str>>,
    packet: impl Fn(Properties<'_>) -> Packet<'_>,
) -> Result<(), Stop> {
    let mut words = PropertiesBuf::new();
    if let Some(why) = why.filter(|_| link.terms.wants_words) {
        words.push(Property::ReasonString(&why));
    }
    let from = worker.answers.len();
    match link
        .terms
        .append_explained(&words, &mut worker.answers, packet)
    {
        true => {
            worker.gate_answer(from);
            Ok(())
        }
        false => Err(Stop::Closed(too_large())),
    }
}

/// A filter that is none at all is a violation [MQTT-4.8.0-1]; one that is not
/// granted is answered.
fn check_grammar<'a>(mut filters: impl Iterator<Item = &'a str>) -> Result<(), Stop> {
    filters.try_for_each(|text| match TopicFilter::parse(text, TopicLimits::NONE) {
        Ok(_) => Ok(()),
        Err(error) => {
            let why = format!("invalid topic filter: {error}");
            Err(Stop::Closed(Close::new(ReasonCode::MalformedPacket, why)))
        }
    })
}
