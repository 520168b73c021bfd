//! SUBSCRIBE and UNSUBSCRIBE: ordinary filters, share groups, work queues, and
//! the retained messages that a new subscription gets.

use super::link::{Link, Stop};
use super::{Core, Worker};
use crate::access::{Action, Decision};
use crate::message::{Qos, QueueId, SessionId, Time};
use crate::protocol::{
    Packet, Properties, ReasonCode, Suback, Subscribe, SubscribeOptions, Unsuback, Unsubscribe,
    encode,
};
use crate::router::{Cursor, Receiver, Subscription};
use crate::session::{Backlog, Close, Publication, Subscribed};
use crate::topic::{TopicFilter, TopicLimits};

/// Retained messages looked at before others get their turn.
const RETAINED_PAGE_MAX: usize = 256;

/// What a filter's text asks for.
enum Wanted<'a> {
    Filter(TopicFilter<'a>),
    /// `$share/GROUP/FILTER`
    Group(TopicFilter<'a>),
    /// `$queue/NAME`
    Queue(TopicFilter<'a>),
}

/// What a new subscription brings at once.
enum Then {
    Retained(Backlog),
    Jobs(QueueId),
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
        let mut then = Vec::new();
        // As if each had come in a packet of its own [MQTT-3.8.4-4].
        let reasons = (subscribe.filters.iter())
            .map(|(text, options)| {
                match self.subscribe(worker, link, text, *options, now) {
                    Ok((qos, next)) => {
                        then.push(next);
                        ReasonCode::granted(qos)
                    }
                    Err(close) => {
                        let client = &link.identity.client;
                        tracing::info!(?client, filter = ?text, why = %close.why, "subscription refused");
                        close.reason
                    }
                }
            })
            .collect();
        let suback = Packet::Suback(Suback {
            packet_id: subscribe.packet_id, // [MQTT-3.8.4-2]
            properties: Properties::EMPTY,
            reasons, // [MQTT-3.9.3-1]
        });
        encode(&suback, link.terms.wire, &mut worker.answers);
        let Some(mut session) = self.sessions.lock(link.session.0) else {
            return Ok(());
        };
        // SUBACK goes out before what the subscriptions bring.
        session.append_answers(&worker.answers, &mut worker.effects);
        worker.answers.clear();
        drop(session);
        for next in then {
            match next {
                Then::Retained(backlog) => {
                    if let Some(mut session) = self.sessions.lock(link.session.0) {
                        session.push_backlog(backlog);
                    }
                }
                Then::Jobs(list) => drop(self.change_list(worker, list, now, |_| ())),
            }
        }
        self.send_backlog(worker, link.session, now);
        Ok(())
    }

    /// One filter; the QoS granted, and what follows SUBACK.
    fn subscribe(
        &self,
        worker: &mut Worker,
        link: &Link,
        text: &str,
        options: SubscribeOptions,
        now: Time,
    ) -> Result<(Qos, Then), Close> {
        let wanted = self.parse_filter(text)?;
        self.authorize_subscription(link, text, &wanted)?;
        let full = self.sessions.lock(link.session.0).is_none_or(|session| {
            session.subscriptions.len() >= self.limits.subscriptions_per_client_max
        });
        if full && !self.is_subscribed(link.session, &wanted, text) {
            let why = "the client has subscriptions_per_client_max subscriptions";
            return Err(Close::new(ReasonCode::QuotaExceeded, why));
        }
        let (subscribed, qos, then) = match wanted {
            Wanted::Filter(filter) => {
                let receiver = Receiver::Session(link.session);
                let subscription = Subscription::new(options.qos);
                let node = self.router.subscribe(filter, receiver, subscription).node;
                // An equal filter is replaced, and its retained messages come again [MQTT-3.8.4-3].
                let backlog = Backlog {
                    filter: text.into(),
                    qos: options.qos,
                    position: None,
                };
                (
                    Subscribed::Filter(node.0),
                    options.qos,
                    Then::Retained(backlog),
                )
            }
            Wanted::Group(filter) => {
                let group = self.join_group(link.session, text, filter, options.qos, now);
                (Subscribed::Group(group), options.qos, Then::Jobs(group))
            }
            Wanted::Queue(name) => {
                let (queue, granted) = self.join_queue(link, name, options.qos, now)?;
                (Subscribed::Queue(queue), granted, Then::Jobs(queue))
            }
        };
        let session = self.sessions.lock(link.session.0);
        match session.filter(|session| !session.has_ended()) {
            Some(mut session) => drop(session.subscriptions.insert(subscribed, qos)),
            // Whoever ended it has not seen this one.
            None => self.end_subscription(worker, link.session, subscribed, now),
        }
        Ok((qos, then))
    }

    fn parse_filter<'a>(&self, text: &'a str) -> Result<Wanted<'a>, Close> {
        let invalid = |why: &'static str| Close::new(ReasonCode::TopicFilterInvalid, why);
        let parse = |filter| {
            TopicFilter::parse(filter, self.topic_limits)
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
    ) -> Result<(), Close> {
        let may = |action| self.access.decide(&link.identity, action) == Decision::Allow;
        let allowed = match wanted {
            Wanted::Filter(_) => may(Action::Subscribe { filter: text }),
            Wanted::Group(filter) => may(Action::Subscribe {
                filter: filter.as_str(),
            }),
            // Also the right to what feeds it.
            Wanted::Queue(name) => {
                may(Action::Join {
                    queue: name.as_str(),
                }) && (self.feeding_filters(*name).iter())
                    .all(|filter| may(Action::Subscribe { filter }))
            }
        };
        match allowed {
            true => Ok(()),
            false => Err(Close::new(
                ReasonCode::NotAuthorized,
                "this subscription is not allowed",
            )),
        }
    }

    fn is_subscribed(&self, session: SessionId, wanted: &Wanted<'_>, text: &str) -> bool {
        let held = match wanted {
            Wanted::Filter(filter) => self
                .router
                .find(*filter)
                .map(|node| Subscribed::Filter(node.0)),
            Wanted::Group(_) => self.list_named(text).map(Subscribed::Group),
            Wanted::Queue(_) => self.list_named(text).map(Subscribed::Queue),
        };
        held.is_some_and(|held| {
            self.sessions
                .lock(session.0)
                .is_some_and(|session| session.subscriptions.contains_key(&held))
        })
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
        let reasons = (unsubscribe.filters.iter())
            .map(
                |text| match self.unsubscribe(worker, link.session, text, now) {
                    true => ReasonCode::Success,
                    false => ReasonCode::NoSubscriptionExisted,
                },
            )
            .collect();
        // Also when there was nothing to delete [MQTT-3.10.4-5].
        let unsuback = Packet::Unsuback(Unsuback {
            packet_id: unsubscribe.packet_id, // [MQTT-3.10.4-4]
            properties: Properties::EMPTY,
            reasons,
        });
        encode(&unsuback, link.terms.wire, &mut worker.answers);
        Ok(())
    }

    /// By the exact text [MQTT-3.10.4-1]; whether there was such a subscription.
    fn unsubscribe(&self, worker: &mut Worker, id: SessionId, text: &str, now: Time) -> bool {
        let Ok(wanted) = self.parse_filter(text) else {
            return false;
        };
        let list = match wanted {
            Wanted::Filter(filter) => {
                let Some(node) = self.router.unsubscribe(filter, Receiver::Session(id)) else {
                    return false;
                };
                if let Some(mut session) = self.sessions.lock(id.0) {
                    session.subscriptions.remove(&Subscribed::Filter(node.0));
                    session.drop_backlog(text);
                }
                return true;
            }
            Wanted::Group(_) => self
                .list_named(text)
                .map(|list| (list, Subscribed::Group(list))),
            Wanted::Queue(_) => self
                .list_named(text)
                .map(|list| (list, Subscribed::Queue(list))),
        };
        let Some((list, subscribed)) = list else {
            return false;
        };
        let held = (self.sessions.lock(id.0))
            .is_some_and(|mut session| session.subscriptions.remove(&subscribed).is_some());
        if held {
            self.leave_list(worker, list, id, false, now);
        }
        held
    }

    // ---- retained messages

    /// Sends retained messages for new subscriptions, a page at a time, as far
    /// as there is room [MQTT-3.3.1-6], [MQTT-3.3.1-8]; whether there are more.
    pub fn send_backlog(&self, worker: &mut Worker, id: SessionId, now: Time) -> bool {
        let taken = self.sessions.lock(id.0).and_then(|mut session| {
            session
                .has_room_for_backlog()
                .then(|| session.take_backlog())
                .flatten()
        });
        let Some(mut backlog) = taken else {
            return false;
        };
        let filter = TopicFilter::parse(&backlog.filter, self.topic_limits)
            .expect("it was parsed to subscribe");
        let mut page = Vec::new();
        let cursor = backlog.position.take().map(Cursor::from_key);
        let next = self
            .retained
            .page(filter, cursor.as_ref(), RETAINED_PAGE_MAX, &mut page);
        let Some(mut session) = self.sessions.lock(id.0) else {
            return false;
        };
        let mut overflow = false;
        for message in &page {
            let topic = message.topic_bytes();
            if self
                .access
                .decide(&session.identity, Action::Deliver { topic })
                == Decision::Deny
            {
                self.counters.dropped_denied.increment();
                continue;
            }
            worker.effects.frames.begin(1);
            let publication = Publication::of(message);
            let qos = message.qos().min(backlog.qos);
            let full = self.session_settings.full;
            match session.deliver(
                &publication,
                qos,
                true,
                &self.limits,
                full,
                &mut worker.effects,
            ) {
                crate::session::Delivered::Overflow => overflow = true,
                delivered => self.count_dropped(delivered),
            }
        }
        if let Some(cursor) = next {
            backlog.position = Some(cursor.into_key());
            session.return_backlog(backlog);
        }
        let more = session.has_backlog();
        drop(session);
        if overflow {
            worker.overflowed.push(id);
            self.end_overflowed(worker, now);
        }
        more
    }
}

/// A filter that is none at all is a violation [MQTT-4.8.0-1]; one that is not
/// granted is answered.
fn check_grammar<'a>(mut filters: impl Iterator<Item = &'a str>) -> Result<(), Stop> {
    filters.try_for_each(|text| match TopicFilter::parse(text, TopicLimits::NONE) {
        Ok(_) => Ok(()),
        Err(error) => {
            let why = format!("invalid topic filter: {error}");
            Err(Stop::Closed(Close::new(
                ReasonCode::TopicFilterInvalid,
                why,
            )))
        }
    })
}
