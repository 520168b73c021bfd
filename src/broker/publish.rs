//! A PUBLISH, from the packet to its receivers.

use super::link::Link;
use super::lists::Feed;
use super::{Core, Worker};
use crate::access::{Action, Decision};
use crate::config::SessionFull;
use crate::message::{Qos, QueueId, SessionId, Time};
use crate::protocol::ReasonCode;
use crate::router::{Receiver, Target};
use crate::session::{Close, Delivered, Effects, Publication};
use crate::topic::TopicName;

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
    /// It can never be taken.
    Never(Close),
}

impl Core {
    /// A PUBLISH of a client: checked, then taken by all who must have it, or
    /// refused whole.
    pub(super) fn accept(
        &self,
        worker: &mut Worker,
        link: &Link,
        topic: &str,
        payload: &[u8],
        (qos, retain): (Qos, bool),
        now: Time,
    ) -> Result<(), Refused> {
        if let Some(control) = topic.strip_prefix("$queue/")
            && control.starts_with('$')
        {
            return self
                .accept_control(worker, link, control, payload, now)
                .map_err(Refused::Never);
        }
        let name = self.parse_topic(topic).map_err(Refused::Never)?;
        if self
            .access
            .decide(&link.identity, Action::Publish { topic })
            == Decision::Deny
        {
            // 3.1.1 has no word for it; acknowledging would say that it is stored [MQTT-3.3.5-2].
            let why = "publishing to this topic is not allowed";
            return Err(Refused::Never(Close::new(ReasonCode::NotAuthorized, why)));
        }
        let id = self.next_message_id(worker);
        let publication = Publication::new(name, payload, qos, retain, &link.identity, now, id);
        self.publish(worker, &publication, topic, now)
    }

    /// The topic that a client publishes to, without `$queue/`.
    pub(super) fn parse_topic<'a>(&self, topic: &'a str) -> Result<TopicName<'a>, Close> {
        let invalid = |why| Err(Close::new(ReasonCode::TopicNameInvalid, why));
        if topic == "$queue" || topic.starts_with("$share/") || topic.starts_with("$dead/") {
            let why = "clients do not publish to $queue, $share/ or $dead/; $queue/NAME is a queue";
            return invalid(why.to_owned());
        }
        let name = topic.strip_prefix("$queue/").unwrap_or(topic);
        if name.len() < topic.len() && name.starts_with('$') {
            return invalid("no queue name begins with $".to_owned());
        }
        TopicName::parse(name, self.topic_limits)
            .or_else(|error| invalid(format!("invalid topic name: {error}")))
    }

    /// Routes it. `full_topic`: with the `$queue/` that its topic is without.
    pub(super) fn publish(
        &self,
        worker: &mut Worker,
        publication: &Publication<'_>,
        full_topic: &str,
        now: Time,
    ) -> Result<(), Refused> {
        match full_topic.len() > publication.topic.as_str().len() {
            true => self.publish_to_queues(worker, publication, full_topic, now),
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
    ) -> Result<(), Refused> {
        let Worker { effects, cache, .. } = worker;
        let targets = self.router.queues(TopicName::of_valid(full_topic), cache);
        // None, or all gone just now: one is made.
        if self.feed(effects, targets, Feed::Direct, publication, now)? {
            return Ok(());
        }
        loop {
            let queue = self
                .create_queue_for(publication.topic, now)
                .map_err(Refused::Never)?;
            if self.feed_one(effects, queue, Feed::Direct, publication, now)? {
                return Ok(());
            }
        }
    }

    fn publish_to_all(
        &self,
        worker: &mut Worker,
        publication: &Publication<'_>,
        now: Time,
    ) -> Result<(), Refused> {
        let Worker {
            effects,
            cache,
            overflowed,
            ..
        } = worker;
        let targets = self.router.matches(publication.topic, cache).targets;
        // Sessions stand before all others.
        let last = targets.last();
        let to_lists = last.is_some_and(|last| !matches!(last.receiver, Receiver::Session(_)));
        if self.session_settings.full == SessionFull::Refuse {
            self.check_sessions(publication, targets)?;
        }
        if to_lists {
            // Refused whole: before a queue has it.
            if publication.retain
                && !publication.payload.is_empty()
                && !(self.retained).has_room(publication.topic, publication.message(), now)
            {
                return Err(self.refuse_retained());
            }
            let fed = self.feed(effects, targets, Feed::Copy, publication, now);
            match fed {
                // Nobody waits for it: a full queue takes it from nobody else.
                Err(_) if publication.qos == Qos::AtMostOnce => {
                    self.counters.dropped_queue_full.increment();
                }
                fed => _ = fed?,
            }
        }
        if publication.retain {
            self.retain(publication, now)?; // [MQTT-3.3.1-5], [MQTT-3.3.1-12]
        }
        effects.frames.begin(targets.len());
        for target in targets {
            if let Receiver::Session(session) = target.receiver {
                self.deliver(effects, overflowed, session, target, publication);
            }
        }
        if !worker.overflowed.is_empty() {
            self.end_overflowed(worker, now);
        }
        Ok(())
    }

    /// To one session: at the lower of the two QoS [MQTT-3.8.4-6], and not
    /// as retained [MQTT-3.3.1-9].
    fn deliver(
        &self,
        effects: &mut Effects,
        overflowed: &mut Vec<SessionId>,
        id: SessionId,
        target: &Target,
        publication: &Publication<'_>,
    ) {
        let Some(mut session) = self.sessions.lock(id.0) else {
            return;
        };
        let topic = publication.topic.as_str().as_bytes();
        if self
            .access
            .decide(&session.identity, Action::Deliver { topic })
            == Decision::Deny
        {
            self.counters.dropped_denied.increment();
            return;
        }
        let qos = publication.qos.min(target.subscription.qos);
        let full = self.session_settings.full;
        match session.deliver(publication, qos, false, &self.limits, full, effects) {
            Delivered::Taken => {}
            Delivered::Overflow => overflowed.push(id),
            dropped => self.count_dropped(dropped),
        }
    }

    pub(super) fn count_dropped(&self, delivered: Delivered) {
        match delivered {
            Delivered::Taken | Delivered::Overflow => {}
            Delivered::DroppedAbsent => self.counters.dropped_absent.increment(),
            Delivered::DroppedSlow => self.counters.dropped_slow.increment(),
            Delivered::DroppedOldest(count) => self.counters.dropped_oldest.add(count),
        }
    }

    /// Under `full = "refuse"` a message is taken by all sessions or by none.
    fn check_sessions(
        &self,
        publication: &Publication<'_>,
        targets: &[Target],
    ) -> Result<(), Refused> {
        let cost = publication.cost_bytes();
        for target in targets {
            if publication.qos.min(target.subscription.qos) > Qos::AtMostOnce
                && let Receiver::Session(id) = target.receiver
                && let Some(session) = self.sessions.lock(id.0)
                && !session.has_space(cost, &self.limits)
            {
                return Err(Refused::SessionFull);
            }
        }
        Ok(())
    }

    /// A full session never stops a publisher: it is ended, and its client
    /// finds that out.
    pub(super) fn end_overflowed(&self, worker: &mut Worker, now: Time) {
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
    fn retain(&self, publication: &Publication<'_>, now: Time) -> Result<(), Refused> {
        let message = (!publication.payload.is_empty()).then(|| publication.message().clone());
        (self.retained.set(publication.topic, message, now)).map_err(|_| self.refuse_retained())
    }

    fn refuse_retained(&self) -> Refused {
        self.counters.refused_messages.increment();
        let why = "there is no room for another retained message; see retained_messages_max, retained_bytes_max";
        Refused::Never(Close::new(ReasonCode::QuotaExceeded, why))
    }
}
