//! Work queues and share groups: how they come to be, are fed and give out.
//!
//! Owns what a list has beside its jobs: its name, what feeds it, who waits
//! for room in it. Everything that changes a list goes through
//! [`Core::change_list`], which gives out what can be given before the list is
//! let go.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::link::Link;
use super::timers::Timer;
use super::{Core, Worker};
use crate::access::{Action, Decision};
use crate::config::{QueueSettings, QueueTopic, Undecided};
use crate::message::{LeaseId, PacketId, Qos, QueueId, SessionId, Time};
use crate::protocol::ReasonCode;
use crate::queue::{DeadLetter, Membership, Queue, Rules, Settings, Settlement};
use crate::router::{NodeId, Receiver, Subscription, Target};
use crate::session::{Close, Effects, Hold, JobDelivered, Publication, Subscribed};
use crate::topic::{TopicFilter, TopicLimits, TopicName};

use super::publish::Refused;

/// The longest that a client may put a job off: a year.
const SPAN_SECS_MAX: u64 = 365 * 24 * 60 * 60;

/// What is refused in a dead-letter queue comes again after so long.
const DEAD_QUEUE_BACKOFF: std::time::Duration = std::time::Duration::from_secs(1);

/// A queue or share group, and what surrounds it.
pub(super) struct List {
    pub queue: Queue,
    /// `$queue/NAME` or `$share/GROUP/FILTER`.
    name: Arc<str>,
    kind: Kind,
    // Where in the topic tree it stands, and as what.
    feeders: Vec<(NodeId, Receiver)>,
    /// Connections that hold PUBLISHes back until there is room.
    pub waiters: VecDeque<(SessionId, u32)>,
    // Dead letters on their way to their queue, or that found it full; and
    // whether the queue keeps room for each.
    aside: VecDeque<(DeadLetter, bool)>,
    // When the next of them is tried.
    aside_due: Time,
    // Of those that a share group dropped, how many are counted.
    counted: u64,
    last_used: Time,
    // When the timer that is set for it is due.
    alarm: Time,
}

enum Kind {
    Work {
        settings: Arc<QueueSettings>,
        queue_topic: bool,
    },
    Share,
}

impl List {
    /// The name without `$queue/`; `None` for a share group.
    fn queue_name(&self) -> Option<&str> {
        match self.kind {
            Kind::Work { .. } => self.name.strip_prefix("$queue/"),
            Kind::Share => None,
        }
    }

    fn is_dead_letters(&self) -> bool {
        self.name.starts_with("$queue/$dead/")
    }
}

/// How a message came to a queue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Feed {
    /// It was published to `$queue/`.
    Direct,
    /// It was published to a topic that feeds the queue.
    Copy,
}

impl Core {
    // ---- feeding

    /// Puts a message into every list among its targets: into all queues, or
    /// into none if one refuses. Whether any queue was still there.
    pub(super) fn feed(
        &self,
        effects: &mut Effects,
        targets: &[Target],
        feed: Feed,
        publication: &Publication<'_>,
        now: Time,
    ) -> Result<bool, Refused> {
        let queues = || {
            targets.iter().filter_map(|target| match target.receiver {
                Receiver::Queue(queue) => Some(queue),
                Receiver::Session(_) | Receiver::Group(_) => None,
            })
        };
        let mut first = queues();
        let fed = match (first.next(), first.next()) {
            (None, _) => Ok(false),
            (Some(queue), None) => self.feed_one(effects, queue, feed, publication, now),
            (Some(_), Some(_)) => self.feed_many(effects, queues, feed, publication, now),
        };
        if fed.is_err() && publication.qos > Qos::AtMostOnce {
            return fed;
        }
        for target in targets {
            if let Receiver::Group(group) = target.receiver {
                let message = publication.message().clone();
                let taken = self
                    .change_list_with(effects, group, now, |list| list.queue.enqueue(message, now));
                if matches!(taken, Some(Err(_))) {
                    self.counters.dropped_group.increment();
                }
            }
        }
        fed
    }

    /// Whether the queue was still there.
    pub(super) fn feed_one(
        &self,
        effects: &mut Effects,
        queue: QueueId,
        feed: Feed,
        publication: &Publication<'_>,
        now: Time,
    ) -> Result<bool, Refused> {
        let message = publication.message().clone();
        let taken = self.change_list_with(effects, queue, now, |list| {
            if feed == Feed::Direct {
                list.last_used = now;
            }
            list.queue.enqueue(message, now)
        });
        match taken {
            Some(Err(_)) => Err(Refused::QueueFull {
                queue,
                cost_bytes: publication.cost_bytes(),
            }),
            Some(Ok(())) => Ok(true),
            None => Ok(false),
        }
    }

    /// Room is reserved in each in turn, and given back if one refuses.
    fn feed_many<I: Iterator<Item = QueueId>>(
        &self,
        effects: &mut Effects,
        queues: impl Fn() -> I,
        feed: Feed,
        publication: &Publication<'_>,
        now: Time,
    ) -> Result<bool, Refused> {
        let cost = publication.cost_bytes();
        for (reserved, queue) in queues().enumerate() {
            let Some(mut list) = self.lists.lock(queue.0) else {
                continue;
            };
            if list.queue.reserve(cost).is_ok() {
                continue;
            }
            drop(list);
            for earlier in queues().take(reserved) {
                if let Some(mut list) = self.lists.lock(earlier.0) {
                    list.queue.cancel_reservation(cost);
                }
            }
            return Err(Refused::QueueFull {
                queue,
                cost_bytes: cost,
            });
        }
        let mut fed = false;
        for queue in queues() {
            let message = publication.message().clone();
            let put_in = self.change_list_with(effects, queue, now, |list| {
                if feed == Feed::Direct {
                    list.last_used = now;
                }
                list.queue.enqueue_reserved(message, now);
            });
            fed |= put_in.is_some();
        }
        Ok(fed)
    }

    /// The connection of `waiter` holds a PUBLISH back until `queue` has room.
    /// Whether there is some already.
    pub(super) fn wait_for_room(
        &self,
        queue: QueueId,
        waiter: (SessionId, u32),
        cost_bytes: usize,
    ) -> bool {
        match self.lists.lock(queue.0) {
            Some(mut list) if !list.queue.has_room(cost_bytes) => {
                if !list.waiters.contains(&waiter) {
                    list.waiters.push_back(waiter);
                }
                false
            }
            _ => true,
        }
    }

    // ---- changing

    /// As [`Core::change_list_with`].
    pub(super) fn change_list<R>(
        &self,
        worker: &mut Worker,
        id: QueueId,
        now: Time,
        change: impl FnOnce(&mut List) -> R,
    ) -> Option<R> {
        self.change_list_with(&mut worker.effects, id, now, change)
    }

    /// Changes a list, then gives out what can be given, and sees to what came
    /// of it. `None`: the list is gone.
    pub(super) fn change_list_with<R>(
        &self,
        effects: &mut Effects,
        id: QueueId,
        now: Time,
        change: impl FnOnce(&mut List) -> R,
    ) -> Option<R> {
        let mut list = self.lists.lock(id.0)?;
        let result = change(&mut list);
        self.give_out(&mut list, id, effects, now);
        if matches!(list.kind, Kind::Share) {
            let totals = list.queue.counts().totals;
            let dropped = totals.dropped + totals.discarded;
            self.counters
                .dropped_group
                .add((dropped - list.counted) as usize);
            list.counted = dropped;
        }
        while let Some(letter) = list.queue.poll_dead() {
            // It gave up its own room just now.
            let reserved = list.queue.reserve(letter.message.cost_bytes()).is_ok();
            list.aside.push_back((letter, reserved));
        }
        // One at a time: who finds room left calls the next by putting in.
        while list.queue.has_room(0)
            && let Some((waiter, number)) = list.waiters.pop_front()
        {
            let session = self.sessions.lock(waiter.0);
            let session = session.filter(|session| session.is_link(number));
            if session.is_some_and(|mut session| session.retry(effects)) {
                break;
            }
        }
        if let Some(due) = list.queue.next_timeout()
            && due < list.alarm
        {
            list.alarm = self.schedule(now, due, Timer::Queue(id));
        }
        if !list.aside.is_empty() && list.aside_due <= now {
            let letters = std::mem::take(&mut list.aside);
            let name = list.queue_name().map(Arc::<str>::from);
            drop(list);
            self.bury(effects, id, name, letters, now);
        }
        Some(result)
    }

    /// Turns, as long as there are jobs and members with room.
    fn give_out(&self, list: &mut List, id: QueueId, effects: &mut Effects, now: Time) {
        let queue_topic = matches!(
            list.kind,
            Kind::Work {
                queue_topic: true,
                ..
            }
        );
        while let Some(lease) = list.queue.poll_lease(now) {
            let (lease_id, member) = (lease.id, lease.member);
            let session = self.sessions.lock(member.0);
            let delivered = session.map_or(JobDelivered::NoRoom, |mut session| {
                let topic = lease.message.topic_bytes();
                let action = Action::Deliver { topic };
                if self.access.decide(&session.identity, action) == Decision::Deny {
                    return JobDelivered::NoRoom;
                }
                effects.frames.begin(1);
                let publication = Publication::of(lease.message);
                session.deliver_job(&publication, lease.qos, id, lease_id, queue_topic, effects)
            });
            match delivered {
                JobDelivered::Taken => {}
                JobDelivered::TakenLast => list.queue.pass_over(member),
                JobDelivered::NoRoom => list.queue.refuse_lease(lease_id),
            }
        }
    }

    /// Moves dead letters to `$dead/NAME`. Where that is full they are set
    /// aside, take room in their own queue, and are tried again.
    fn bury(
        &self,
        effects: &mut Effects,
        id: QueueId,
        name: Option<Arc<str>>,
        mut letters: VecDeque<(DeadLetter, bool)>,
        now: Time,
    ) {
        let Some(name) = name else {
            return; // A share group has none.
        };
        let dead_name = format!("$dead/{name}");
        let mut room = Vec::new();
        while let Some((letter, reserved)) = letters.front() {
            let message = letter.message.clone();
            let cost_bytes = message.cost_bytes();
            let taken = TopicFilter::parse(&dead_name, TopicLimits::NONE)
                .map_err(|error| Close::new(ReasonCode::TopicNameInvalid, error.to_string()))
                .and_then(|filter| self.create_queue(filter, true, now))
                .map(|queue| {
                    self.change_list_with(effects, queue, now, |list| {
                        list.last_used = now;
                        list.queue.enqueue(message, now)
                    })
                });
            if !matches!(taken, Ok(Some(Ok(())))) {
                break;
            }
            tracing::debug!(queue = ?name, reason = ?letter.reason, deliveries = letter.deliveries, "dead letter");
            self.counters.dead_letters.increment();
            room.extend(reserved.then_some(cost_bytes));
            letters.pop_front();
        }
        let left = letters.len();
        let returned = self.change_list_with(effects, id, now, |list| {
            room.into_iter()
                .for_each(|cost_bytes| list.queue.cancel_reservation(cost_bytes));
            if left > 0 && list.aside_due == Time::ZERO {
                tracing::error!(queue = ?name, "the dead-letter queue is full; dead letters are set aside");
            }
            list.aside_due = match left {
                0 => Time::ZERO,
                _ => now + DEAD_QUEUE_BACKOFF,
            };
            letters.append(&mut list.aside);
            list.aside = letters;
        });
        match returned {
            None => self.counters.dropped_queue_deleted.add(left),
            Some(()) if left > 0 => {
                self.timers
                    .schedule(now + DEAD_QUEUE_BACKOFF, Timer::Queue(id));
            }
            Some(()) => {}
        }
    }

    // ---- settling

    /// The client's acknowledgement of a job.
    pub(super) fn settle(
        &self,
        worker: &mut Worker,
        queue: QueueId,
        lease: LeaseId,
        settlement: Settlement,
        now: Time,
    ) {
        self.change_list(worker, queue, now, |list| {
            let settlement = match settlement {
                // A dead-letter queue has no dead letters of its own.
                Settlement::Reject if list.is_dead_letters() => Settlement::Refuse {
                    delay: Some(DEAD_QUEUE_BACKOFF),
                },
                other => other,
            };
            list.queue.settle(lease, settlement, now)
        });
    }

    /// QoS 0 jobs that are on their way to the socket.
    pub(super) fn settle_written(
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
    pub(super) fn offer_room(
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
    pub(super) fn accept_control(
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
        let job = self
            .sessions
            .lock(link.session.0)
            .and_then(|mut session| match name {
                "$extend" => session
                    .window
                    .get(packet_id)
                    .and_then(|sent| sent.job.filter(|job| job.hold == Hold::Current)),
                _ => session.window.weaken(packet_id, Hold::Settled),
            });
        let Some(job) = job else {
            return Ok(()); // Settled before: the first settlement wins.
        };
        let settlement = match name {
            "$nack" => Settlement::Refuse { delay: span },
            "$reject" => Settlement::Reject,
            _ => Settlement::Extend(span),
        };
        self.settle(worker, job.queue, job.lease, settlement, now);
        self.watch_stale(link.session, job.queue, now);
        Ok(())
    }

    /// A window that only stale jobs fill gets nothing any more: such a client
    /// is disconnected after a while.
    pub(super) fn watch_stale(&self, id: SessionId, queue: QueueId, now: Time) {
        let list = self.lists.lock(queue.0);
        let Some(timeout) = list.and_then(|list| list.queue.settings().ack_timeout) else {
            return;
        };
        if let Some(mut session) = self.sessions.lock(id.0)
            && session.window.is_full_of_stale()
            && session.stale_until.is_none()
        {
            session.stale_until = Some(now + timeout);
            let timer = Timer::Stale(id, session.link_number());
            self.timers.schedule(now + timeout, timer);
        }
    }

    // ---- time

    /// Time-outs and delays of a list that are due.
    pub(super) fn handle_list_timeout(&self, worker: &mut Worker, id: QueueId, now: Time) {
        let mut timed_out = Vec::new();
        self.change_list(worker, id, now, |list| {
            // Timers that an earlier one has made needless set no other.
            if list.alarm <= now {
                list.alarm = Time::MAX;
            }
            list.queue.handle_timeout(now, &mut timed_out);
        });
        for (session, lease) in timed_out {
            if let Some(mut session) = self.sessions.lock(session.0)
                && let Some(packet_id) = session.window.id_of(id, lease)
            {
                session.window.weaken(packet_id, Hold::TimedOut);
            }
            self.watch_stale(session, id, now);
        }
    }

    /// A queue that nobody configured goes when nobody used it for long.
    pub(super) fn handle_unused(&self, id: QueueId, now: Time) {
        let after = self.queues_settings.auto_delete_after;
        let due = match self.lists.lock(id.0) {
            Some(list) if list.queue.counts().members == 0 => list.last_used + after,
            Some(_) => now + after,
            None => return,
        };
        if due > now {
            self.schedule(now, due, Timer::Unused(id));
        } else {
            self.remove_list(id, |list| {
                list.queue.counts().members == 0 && list.last_used + after <= now
            });
        }
    }

    // ---- members

    /// A session subscribes to `$queue/NAME`.
    ///
    /// # Errors
    /// Why the queue cannot be joined, for the SUBACK.
    pub(super) fn join_queue(
        &self,
        link: &Link,
        name: TopicFilter<'_>,
        qos: Qos,
        now: Time,
    ) -> Result<Qos, Close> {
        let granted = qos.min(link.terms.queue_qos_max());
        let client = link.identity.client.as_str();
        loop {
            let id = self.create_queue(name, false, now)?;
            let Some(mut list) = self.lists.lock(id.0) else {
                continue; // deleted in between
            };
            let Kind::Work { settings, .. } = &list.kind else {
                unreachable!("$queue/ names lead to work queues");
            };
            if granted == Qos::AtMostOnce && !settings.qos0_members {
                let why = "this queue takes no members of QoS 0; see qos0_members";
                return Err(Close::new(ReasonCode::ImplementationSpecificError, why));
            }
            let mut members = settings.members.iter();
            let own = members.find(|member| fits_client(&member.client, client));
            let membership = Membership {
                qos: granted,
                prefetch: own.and_then(|own| own.prefetch),
                ack_timeout: own.and_then(|own| own.ack_timeout),
            };
            self.add_member(&mut list, id, link, membership, now)?;
            return Ok(granted);
        }
    }

    /// A session subscribes to `$share/GROUP/FILTER`; `text` is all of it.
    ///
    /// # Errors
    /// Why it cannot, for the SUBACK.
    pub(super) fn join_group(
        &self,
        link: &Link,
        text: &str,
        filter: TopicFilter<'_>,
        qos: Qos,
        now: Time,
    ) -> Result<Qos, Close> {
        loop {
            let id = self.create_group(text, filter, now);
            let Some(mut list) = self.lists.lock(id.0) else {
                continue; // its last member left in between
            };
            let membership = Membership {
                qos,
                prefetch: None,
                ack_timeout: None,
            };
            let joined = self.add_member(&mut list, id, link, membership, now);
            drop(list);
            if joined.is_err() {
                self.remove_list(id, |list| list.queue.counts().members == 0);
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
        link: &Link,
        membership: Membership,
        now: Time,
    ) -> Result<(), Close> {
        let subscribed = match list.kind {
            Kind::Work { .. } => Subscribed::Queue(id),
            Kind::Share => Subscribed::Group(id),
        };
        let mut session = self.session_to_subscribe(link)?;
        self.check_subscriptions(&session, Some(subscribed))?;
        session.subscriptions.insert(subscribed, membership.qos);
        session.pass_over(id);
        drop(session);
        list.last_used = now;
        list.queue.join(link.session, membership, now);
        list.queue.pass_over(link.session);
        Ok(())
    }

    /// The list of that full name, if there is one.
    pub(super) fn list_named(&self, name: &str) -> Option<QueueId> {
        self.names.get(name).map(|entry| *entry.value())
    }

    /// A member unsubscribes (`gone` false) or its session is over. A share
    /// group ends with its last member.
    pub(super) fn leave_list(
        &self,
        worker: &mut Worker,
        id: QueueId,
        session: SessionId,
        gone: bool,
        now: Time,
    ) {
        let last_of_group = self.change_list(worker, id, now, |list| {
            match gone {
                true => list.queue.remove(session, now),
                false => list.queue.leave(session, now),
            }
            list.last_used = now;
            matches!(list.kind, Kind::Share) && list.queue.counts().members == 0
        });
        if last_of_group == Some(true) {
            self.remove_list(id, |list| list.queue.counts().members == 0);
        }
    }

    // ---- coming and going

    pub(super) fn create_configured_queues(&self) {
        for settings in &self.queue_settings {
            let name = TopicFilter::parse(&settings.name, TopicLimits::NONE);
            if let Ok(name) = name
                && (name.is_plain() || !settings.filters.is_empty())
                && let Err(close) = self.create_queue(name, false, Time::ZERO)
            {
                tracing::error!(queue = ?settings.name, why = %close.why, "a configured queue could not be made");
            }
        }
    }

    /// The queue that `$queue/` and a topic names, which nothing feeds yet.
    pub(super) fn create_queue_for(
        &self,
        topic: TopicName<'_>,
        now: Time,
    ) -> Result<QueueId, Close> {
        let name = TopicFilter::parse(topic.as_str(), TopicLimits::NONE);
        self.create_queue(name.expect("a topic name is a filter too"), false, now)
    }

    /// The queue of that name, made if it does not exist and may be.
    fn create_queue(
        &self,
        name: TopicFilter<'_>,
        dead_letters: bool,
        now: Time,
    ) -> Result<QueueId, Close> {
        let full_name = format!("$queue/{}", name.as_str());
        if let Some(id) = self.list_named(&full_name) {
            return Ok(id);
        }
        let (settings, configured) = self.settings_of(name);
        let refused = |reason, why| Err(Close::new(reason, why));
        let own_name = name
            .as_str()
            .strip_prefix("$dead/")
            .unwrap_or(name.as_str());
        if own_name.is_empty() || own_name.starts_with('$') {
            return refused(
                ReasonCode::TopicFilterInvalid,
                "no queue name is empty or begins with $, but for $dead/NAME",
            );
        }
        let dead = own_name.len() < name.as_str().len();
        // Whoever configured a queue may look at its dead letters.
        let known = configured
            || dead
                && TopicFilter::parse(own_name, TopicLimits::NONE)
                    .is_ok_and(|own_name| self.settings_of(own_name).1);
        if !configured && name.begins_with_wildcard() {
            let why = "a queue whose name begins with a wildcard has to be configured";
            return refused(ReasonCode::NotAuthorized, why);
        }
        if !known && !dead_letters && !self.queues_settings.auto_create {
            let why = "this queue is not configured, and auto_create is off";
            return refused(ReasonCode::NotAuthorized, why);
        }
        let _changes = self.list_changes.lock();
        if let Some(id) = self.list_named(&full_name) {
            return Ok(id);
        }
        let queues = self.queues_len.load(Ordering::Relaxed);
        if queues >= self.limits.queues_max && !dead_letters {
            return refused(ReasonCode::QuotaExceeded, "there are queues_max queues");
        }
        let queue = Queue::new(Settings {
            prefetch: settings.prefetch,
            ack_timeout: settings.ack_timeout,
            undecided: if dead {
                Undecided::Redeliver
            } else {
                settings.undecided
            },
            undecided_after: settings.undecided_after,
            exclusive: settings.exclusive,
            messages_max: settings.messages_max,
            bytes_max: settings.bytes_max,
            rules: Rules::Work,
        });
        let queue_topic = settings.topic == QueueTopic::Queue && !dead;
        let filters = settings.filters.clone();
        let kind = Kind::Work {
            settings,
            queue_topic,
        };
        let id = self.add_list(Arc::from(full_name), queue, kind, now);
        self.queues_len.fetch_add(1, Ordering::Relaxed);
        self.feed_from(id, Receiver::Queue(id), name);
        (filters.iter())
            .filter_map(|filter| TopicFilter::parse(filter, TopicLimits::NONE).ok())
            .for_each(|filter| self.feed_from(id, Receiver::Queue(id), filter));
        if !configured {
            self.schedule(
                now,
                now + self.queues_settings.auto_delete_after,
                Timer::Unused(id),
            );
        }
        Ok(id)
    }

    fn create_group(&self, text: &str, filter: TopicFilter<'_>, now: Time) -> QueueId {
        if let Some(id) = self.list_named(text) {
            return id;
        }
        let _changes = self.list_changes.lock();
        if let Some(id) = self.list_named(text) {
            return id;
        }
        let queue = Queue::new(Settings {
            prefetch: u32::MAX,
            ack_timeout: None,
            undecided: Undecided::DeadLetter,
            undecided_after: std::time::Duration::MAX,
            exclusive: false,
            messages_max: self.limits.session_messages_max,
            bytes_max: self.limits.session_bytes_max,
            rules: Rules::Share,
        });
        let id = self.add_list(Arc::from(text), queue, Kind::Share, now);
        self.feed_from(id, Receiver::Group(id), filter);
        id
    }

    fn add_list(&self, name: Arc<str>, queue: Queue, kind: Kind, now: Time) -> QueueId {
        let id = QueueId(self.lists.insert(List {
            queue,
            name: name.clone(),
            kind,
            feeders: Vec::new(),
            waiters: VecDeque::new(),
            aside: VecDeque::new(),
            aside_due: Time::ZERO,
            counted: 0,
            last_used: now,
            alarm: Time::MAX,
        }));
        self.names.insert(name, id);
        id
    }

    fn feed_from(&self, id: QueueId, receiver: Receiver, filter: TopicFilter<'_>) {
        let subscribed =
            self.router
                .subscribe(filter, receiver, Subscription::new(Qos::ExactlyOnce));
        if let Some(mut list) = self.lists.lock(id.0) {
            list.feeders.push((subscribed.node, receiver));
        }
    }

    /// Removes a list if `still` says so when nobody else can change that.
    fn remove_list(&self, id: QueueId, still: impl FnOnce(&List) -> bool) {
        let _changes = self.list_changes.lock();
        let Some(list) = self.lists.lock(id.0).filter(|list| still(list)) else {
            return;
        };
        let list = self.lists.take(id.0, list);
        self.names.remove(&list.name);
        for (node, receiver) in &list.feeders {
            self.router.remove(*node, *receiver);
        }
        let counts = list.queue.counts();
        let messages = counts.ready + counts.in_flight + counts.delayed + list.aside.len();
        match list.kind {
            Kind::Work { .. } => {
                self.queues_len.fetch_sub(1, Ordering::Relaxed);
                self.counters.dropped_queue_deleted.add(messages);
                tracing::info!(queue = ?list.name, messages, "a queue that nobody used is deleted");
            }
            Kind::Share => self.counters.dropped_group.add(messages),
        }
    }

    /// What feeds the queue of that name.
    pub(super) fn feeding_filters(&self, name: TopicFilter<'_>) -> Vec<String> {
        let (settings, _) = self.settings_of(name);
        let mut filters = settings.filters.clone();
        filters.push(name.as_str().to_owned());
        filters
    }

    /// The settings for a queue's name, and whether they name it.
    fn settings_of(&self, name: TopicFilter<'_>) -> (Arc<QueueSettings>, bool) {
        let topic = TopicName::parse(name.as_str(), TopicLimits::NONE).ok();
        let fits = |settings: &&QueueSettings| {
            settings.name == name.as_str()
                || topic.is_some_and(|topic| {
                    TopicFilter::parse(&settings.name, TopicLimits::NONE)
                        .is_ok_and(|pattern| pattern.matches(topic))
                })
        };
        match self.queue_settings.iter().find(fits) {
            Some(settings) => (Arc::new(settings.clone()), true),
            None => (Arc::new(self.queues_settings.default.clone()), false),
        }
    }
}

/// `PACKET-ID [SECONDS]`
fn parse_control(payload: &[u8]) -> Option<(PacketId, Option<std::time::Duration>)> {
    let mut words = std::str::from_utf8(payload).ok()?.split_ascii_whitespace();
    let packet_id = words.next()?.parse().ok()?;
    let span = match words.next() {
        Some(seconds) => {
            let seconds = seconds
                .parse()
                .ok()
                .filter(|seconds| *seconds <= SPAN_SECS_MAX)?;
            Some(std::time::Duration::from_secs(seconds))
        }
        None => None,
    };
    words.next().is_none().then_some((packet_id, span))
}

/// Whether a client id fits a pattern in which `*` stands for any text.
fn fits_client(pattern: &str, client: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = client.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty(); // no star
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_patterns() {
        for (pattern, client, fits) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*a", "a", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXcYb", false),
        ] {
            assert_eq!(fits_client(pattern, client), fits, "{pattern} {client}");
        }
    }

    #[test]
    fn control_payloads() {
        let id = |id| PacketId::new(id).unwrap();
        assert_eq!(parse_control(b"7"), Some((id(7), None)));
        let thirty = std::time::Duration::from_secs(30);
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
