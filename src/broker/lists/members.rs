//! The members of queues and share groups: joining, leaving, and settling what
//! they hold, by acknowledgement or by control topic.

use std::time::Duration;

use super::{Kind, List};
use crate::broker::link::Link;
use crate::broker::record::{SubscriptionRecord, Target as Stored};
use crate::broker::subscribe::{Asked, check_subscriptions};
use crate::broker::timers::Timer;
use crate::broker::{Core, Worker};
use crate::config::QueueSettings;
use crate::message::{Identity, LeaseId, PacketId, Qos, QueueId, SessionId, Time};
use crate::pattern;
use crate::protocol::{Ack, Property, ReasonCode};
use crate::queue::{Gone, Membership, Settlement};
use crate::session::{Close, Effects, Granted, Hold, Subscribed};
use crate::topic::TopicFilter;

/// The longest that a client may put a job off: a year.
const SPAN_SECS_MAX: u64 = 365 * 24 * 60 * 60;

impl Core {
    // ---- joining and leaving

    /// A session subscribes to `$queue/NAME`.
    ///
    /// # Errors
    /// Why the queue cannot be joined, for the SUBACK.
    pub(in crate::broker) fn join_queue(
        &self,
        effects: &mut Effects,
        link: &Link,
        name: TopicFilter<'_>,
        asked: Asked,
        now: Time,
    ) -> Result<Qos, Close> {
        if asked.options.no_local {
            // Its own jobs may be what a member is there for.
            let why =
                "a queue gives each job to one member, whoever put it in: there is no No Local";
            return Err(Close::new(ReasonCode::ImplementationSpecificError, why));
        }
        let (prefetch, ack_timeout) = asked.membership()?;
        let granted = asked.options.qos.min(link.terms.queue_qos_max());
        let client = link.identity.client.as_str();
        loop {
            let id = self.create_queue(effects, name, false, now)?;
            let Some(mut list) = self.lists.lock(id.0) else {
                continue; // deleted in between
            };
            let Kind::Work(plan) = &list.kind else {
                unreachable!("$queue/ names lead to work queues");
            };
            if granted == Qos::AtMostOnce && !plan.qos0_members {
                let why = "this queue takes no members of QoS 0; see qos0_members";
                return Err(Close::new(ReasonCode::ImplementationSpecificError, why));
            }
            let membership = membership_of(plan, client, (granted, prefetch, ack_timeout));
            let joining = (
                link,
                membership,
                asked.granted(granted),
                asked.record(granted),
            );
            self.add_member(&mut list, id, effects, joining, now)?;
            return Ok(granted);
        }
    }

    /// A session subscribes to `$share/GROUP/FILTER`; `text` is all of it.
    ///
    /// # Errors
    /// Why it cannot, for the SUBACK.
    pub(in crate::broker) fn join_group(
        &self,
        effects: &mut Effects,
        link: &Link,
        text: &str,
        filter: TopicFilter<'_>,
        asked: Asked,
        now: Time,
    ) -> Result<Qos, Close> {
        let qos = asked.options.qos;
        loop {
            let id = self.create_group(text, filter, now);
            if (self.session_to_subscribe(link)?).keeping().is_some() {
                self.begin_storing(effects, id, now);
            }
            let Some(mut list) = self.lists.lock(id.0) else {
                continue; // its last member left in between
            };
            let membership = Membership {
                qos,
                prefetch: None,
                ack_timeout: None,
            };
            let joining = (link, membership, asked.granted(qos), asked.record(qos));
            let joined = self.add_member(&mut list, id, effects, joining, now);
            drop(list);
            if joined.is_err() {
                _ = self.remove_list(effects, id, |list| list.queue.counts().members == 0);
            }
            return joined.map(|()| qos);
        }
    }

    /// With the list locked: whoever ends the session comes before, or finds
    /// it a member. It gets its first jobs behind SUBACK, when the connection
    /// looks after its session.
    fn add_member(
        &self,
        list: &mut List,
        id: QueueId,
        effects: &mut Effects,
        (link, membership, mut granted, record): (&Link, Membership, Granted, SubscriptionRecord),
        now: Time,
    ) -> Result<(), Close> {
        let subscribed = match list.kind {
            Kind::Work(_) => Subscribed::Queue(id),
            Kind::Share | Kind::Delayed => Subscribed::Group(id),
        };
        let mut session = self.session_to_subscribe(link)?;
        check_subscriptions(link, &session, Some(subscribed))?;
        if let Some((stored_in, _)) = list.queue.kept_in() {
            granted.list = Some(stored_in);
            let stored = (Stored::List(stored_in), Some(record));
            self.store_subscription(&mut session, effects, stored);
        }
        session.subscribed(subscribed, granted);
        session.pass_over(id);
        drop(session);
        list.used(effects, now);
        let sequence = list.queue.next_sequence();
        self.store_list(list, effects, sequence);
        list.queue.join(link.session, membership, now);
        list.queue.pass_over(link.session);
        Ok(())
    }

    /// The list of that full name, if there is one.
    pub(in crate::broker) fn list_named(&self, name: &str) -> Option<QueueId> {
        self.names.get(name).map(|entry| *entry.value())
    }

    /// A member unsubscribes, or its session is over and its connection `gone`.
    /// A share group ends with its last member.
    pub(in crate::broker) fn leave_list(
        &self,
        worker: &mut Worker,
        id: QueueId,
        session: SessionId,
        gone: Option<Gone>,
        now: Time,
    ) {
        let effects = &mut worker.effects;
        let last_of_group = self.change_list_with(effects, id, now, |list, effects| {
            match gone {
                Some(gone) => list.queue.remove(session, gone, now),
                None => list.queue.leave(session),
            }
            list.used(effects, now);
            matches!(list.kind, Kind::Share) && list.queue.counts().members == 0
        });
        if last_of_group == Some(true) {
            _ = self.remove_list(effects, id, |list| list.queue.counts().members == 0);
        }
    }

    // ---- settling

    /// The client's acknowledgement of a job.
    pub(in crate::broker) fn settle(
        &self,
        worker: &mut Worker,
        queue: QueueId,
        lease: LeaseId,
        settlement: Settlement<'_>,
        now: Time,
    ) {
        self.change_list(worker, queue, now, |list| {
            list.settle(lease, settlement, now)
        });
    }

    /// QoS 0 jobs that are on their way to the socket.
    pub(in crate::broker) fn settle_written(
        &self,
        worker: &mut Worker,
        written: Vec<(QueueId, LeaseId)>,
        now: Time,
    ) {
        for (queue, lease) in written {
            self.settle(worker, queue, lease, Settlement::Done, now);
        }
    }

    /// Queues that found no room in a session, `next` first, give it jobs as
    /// long as there is some.
    pub(in crate::broker) fn offer_room(
        &self,
        worker: &mut Worker,
        session: SessionId,
        mut next: Option<QueueId>,
        now: Time,
    ) {
        while let Some(queue) = next {
            self.change_list(worker, queue, now, |list| list.queue.room(session));
            let locked = self.sessions.lock(session.0);
            next = locked.and_then(|mut session| session.take_passed_over());
        }
    }

    /// `$nack`, `$reject` and `$extend`, by which a client of any version says
    /// what is to become of a delivery that it holds.
    pub(in crate::broker) fn accept_control(
        &self,
        worker: &mut Worker,
        link: &Link,
        name: &str,
        payload: &[u8],
        now: Time,
    ) -> Result<(), Close> {
        if !matches!(name, "$nack" | "$reject" | "$extend") {
            let why = "no queue name begins with $; to settle a delivery there are $queue/$nack, $reject and $extend";
            return Err(Close::new(ReasonCode::TopicNameInvalid, why));
        }
        let Some((packet_id, span)) = parse_control(payload) else {
            let why = format!("the payload of $queue/{name} is PACKET-ID [SECONDS]");
            return Err(Close::new(ReasonCode::PayloadFormatInvalid, why));
        };
        let effects = &mut worker.effects;
        let mut message = None;
        let job = self
            .sessions
            .lock(link.session.0)
            .and_then(|mut session| match name {
                "$extend" => session
                    .window
                    .get(packet_id)
                    .and_then(|sent| sent.job.filter(|job| job.hold == Hold::Current)),
                _ => {
                    let journal = &mut effects.journal;
                    let job = session.weaken(packet_id, Hold::Settled, journal);
                    let sent = session.window.get(packet_id);
                    message = sent.and_then(|sent| sent.message.clone());
                    self.store_session(&mut session, effects);
                    job
                }
            });
        let Some(job) = job else {
            return Ok(()); // Settled before: the first settlement wins.
        };
        let settlement = match name {
            "$nack" => Settlement::Fail {
                delay: span,
                said: "",
            },
            "$reject" => Settlement::Reject { said: "" },
            _ => Settlement::Extend(span),
        };
        if job.lease.is_straight() {
            // None: there is no time to extend.
            let message = message.map(|message| (job.lease.number(), message));
            let (place, said) = ((job.queue, link.session), Some(settlement));
            self.take_back(worker, place, message.into_iter().collect(), said, now);
            return Ok(());
        }
        self.settle(worker, job.queue, job.lease, settlement, now);
        self.watch_stale(link.session, job.queue, now);
        Ok(())
    }

    /// A window that only stale jobs fill gets nothing any more: such a client
    /// is disconnected after a while.
    pub(in crate::broker) fn watch_stale(&self, id: SessionId, queue: QueueId, now: Time) {
        let list = self.lists.lock(queue.0);
        let Some(timeout) = list.and_then(|list| list.queue.settings().ack_timeout) else {
            return;
        };
        if let Some(mut session) = self.sessions.lock(id.0)
            && session.window.is_full_of_stale()
            && session.stale_until == Time::MAX
        {
            session.stale_until = now + timeout;
            let timer = Timer::Stale(id, session.link_number());
            self.timers.schedule(now + timeout, timer);
        }
    }
}

impl List {
    pub(in crate::broker) fn settle(
        &mut self,
        lease: LeaseId,
        settlement: Settlement<'_>,
        now: Time,
    ) {
        let settlement = match settlement {
            // A dead-letter queue has no dead letters of its own.
            Settlement::Reject { said } if self.is_dead_letters() => {
                Settlement::Fail { delay: None, said }
            }
            other => other,
        };
        self.queue.settle(lease, settlement, now);
    }

    /// As a PUBACK or PUBREC says: done, to the next member, or never.
    pub(in crate::broker) fn settle_as(&mut self, lease: LeaseId, ack: &Ack<'_>, now: Time) {
        if !ack.reason.is_failure() {
            return self.settle(lease, Settlement::Done, now);
        }
        let (mut delay, mut said) = (None, "");
        for property in ack.properties.iter() {
            match property {
                // Seconds until the job may come again.
                Property::UserProperty(("delay", seconds)) => delay = delay.or(parse_span(seconds)),
                Property::ReasonString(why) => said = why,
                _ => {}
            }
        }
        let settlement = match ack.reason {
            // Discarded [MQTT-4.8.2-6].
            _ if matches!(self.kind, Kind::Share) => Settlement::Reject { said },
            ReasonCode::PayloadFormatInvalid | ReasonCode::TopicNameInvalid => {
                Settlement::Reject { said }
            }
            ReasonCode::QuotaExceeded => Settlement::Busy,
            _ => Settlement::Fail { delay, said },
        };
        self.settle(lease, settlement, now);
    }
}

impl List {
    /// As it was stored, of a work queue.
    pub(in crate::broker) fn membership(
        &self,
        identity: &Identity,
        record: SubscriptionRecord,
    ) -> Membership {
        let asked = (record.qos, record.prefetch, record.ack_timeout);
        match &self.kind {
            Kind::Work(plan) => membership_of(plan, identity.client.as_str(), asked),
            Kind::Share | Kind::Delayed => Membership {
                qos: record.qos,
                prefetch: None,
                ack_timeout: None,
            },
        }
    }
}

/// What a client asks for counts more than what is configured for it.
fn membership_of(
    settings: &QueueSettings,
    client: &str,
    (qos, prefetch, ack_timeout): (Qos, Option<u32>, Option<Duration>),
) -> Membership {
    let mut members = settings.members.iter();
    let own = members.find(|member| pattern::fits(&member.client, client));
    Membership {
        qos,
        prefetch: prefetch.or(own.and_then(|own| own.prefetch)),
        ack_timeout: ack_timeout.or(own.and_then(|own| own.ack_timeout)),
    }
}

/// Whole seconds, up to a year.
pub(in crate::broker) fn parse_span(text: &str) -> Option<Duration> {
    let seconds = text.parse().ok();
    let seconds = seconds.filter(|seconds| *seconds <= SPAN_SECS_MAX)?;
    Some(Duration::from_secs(seconds))
}

/// `PACKET-ID [SECONDS]`
fn parse_control(payload: &[u8]) -> Option<(PacketId, Option<Duration>)> {
    let mut words = std::str::from_utf8(payload).ok()?.split_ascii_whitespace();
    let packet_id = words.next()?.parse().ok()?;
    let span = match words.next() {
        Some(seconds) => Some(parse_span(seconds)?),
        None => None,
    };
    words.next().is_none().then_some((packet_id, span))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_payloads() {
        let id = |id| PacketId::new(id).unwrap();
        assert_eq!(parse_control(b"7"), Some((id(7), None)));
        let thirty = Duration::from_secs(30);
        assert_eq!(parse_control(b" 7 30\n"), Some((id(7), Some(thirty))));
        for bad in [
            &b""[..],
            b"0",
            b"65536",
            b"x",
            b"7 x",
            b"7 1 2",
            b"7 31536001",
            b"\xff",
        ] {
            assert_eq!(parse_control(bad), None, "{bad:?}");
        }
    }
}
