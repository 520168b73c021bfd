//! How queues and share groups come to be, and go.
//!
//! Owns the names, and which settings a name has. Making and removing a list
//! is done by one thread at a time.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::plans::{Plan, core_settings};
use super::{Body, Kind, List, delayed};
use crate::broker::Core;
use crate::broker::record::{ListRecord, list_key};
use crate::broker::timers::Timer;
use crate::config::{Durability, QueueSettings};
use crate::journal::{Change, ListId};
use crate::message::{Qos, QueueId, Time};
use crate::protocol::ReasonCode;
use crate::queue::{Queue, Settings};
use crate::router::{Receiver, Subscription};
use crate::session::{Close, Effects};
use crate::slots::Slotted;
use crate::topic::{TopicFilter, TopicLimits, TopicName};

impl Core {
    pub(in crate::broker) fn create_configured_queues(&self, effects: &mut Effects, now: Time) {
        for plan in self.plans.current().tables() {
            let name = TopicFilter::parse(&plan.name, TopicLimits::NONE);
            if let Ok(name) = name
                && (name.is_plain() || !plan.filters.is_empty())
                && let Err(close) = self.create_queue(effects, name, false, now)
            {
                tracing::error!(queue = ?plan.name, why = %close.why, "a configured queue could not be made");
            }
        }
    }

    /// The queue that `$queue/` and a topic names, which nothing feeds yet.
    pub(in crate::broker) fn create_queue_for(
        &self,
        effects: &mut Effects,
        topic: TopicName<'_>,
        now: Time,
    ) -> Result<QueueId, Close> {
        let name = TopicFilter::parse(topic.as_str(), TopicLimits::NONE);
        self.create_queue(
            effects,
            name.expect("a topic name is a filter too"),
            false,
            now,
        )
    }

    /// The queue of that name, made if it does not exist and may be.
    pub(in crate::broker) fn create_queue(
        &self,
        effects: &mut Effects,
        name: TopicFilter<'_>,
        dead_letters: bool,
        now: Time,
    ) -> Result<QueueId, Close> {
        let full_name = format!("$queue/{}", name.as_str());
        if let Some(id) = self.list_named(&full_name) {
            return Ok(id);
        }
        let (plan, configured) = self.plan_of(name);
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
                && (self.is_given(own_name)
                    || TopicFilter::parse(own_name, TopicLimits::NONE)
                        .is_ok_and(|own_name| self.plan_of(own_name).1));
        if !configured && name.begins_with_wildcard() {
            let why = "a queue whose name begins with a wildcard has to be configured";
            return refused(ReasonCode::NotAuthorized, why);
        }
        if !known && !dead_letters && !self.queues_settings().auto_create {
            let why = "this queue is not configured, and auto_create is off";
            return refused(ReasonCode::NotAuthorized, why);
        }
        let _changes = self.list_changes.lock();
        if let Some(id) = self.list_named(&full_name) {
            return Ok(id);
        }
        let queues = self.queues_len.load(Ordering::Relaxed);
        if queues >= self.limits().queues_max && !dead_letters {
            return refused(ReasonCode::QuotaExceeded, "there are queues_max queues");
        }
        let full_name = Arc::from(full_name);
        let id = self.add_queue(full_name, name, plan, now, |list| {
            self.keep_list(list, effects, now);
        });
        if !configured {
            self.schedule(
                now,
                now + self.queues_settings().auto_delete_after,
                Timer::Unused(id),
            );
        }
        Ok(id)
    }

    /// A queue that is not there yet, with what feeds it; `prepare`d before
    /// anybody can find it.
    pub(super) fn add_queue(
        &self,
        full_name: Arc<str>,
        name: TopicFilter<'_>,
        plan: Arc<Plan>,
        now: Time,
        prepare: impl FnOnce(&mut List),
    ) -> QueueId {
        let dead = name.as_str().starts_with("$dead/");
        let queue = Queue::new(plan.core(dead));
        let kind = Kind::Work(plan.clone());
        let id = self.add_list(full_name, queue, kind, now, prepare);
        self.queues_len.fetch_add(1, Ordering::Relaxed);
        let own = std::iter::once(name);
        let others = plan.filters.iter();
        let others = others.filter_map(|filter| TopicFilter::parse(filter, TopicLimits::NONE).ok());
        own.chain(others)
            .for_each(|filter| self.feed_from(Receiver::Queue(id), filter));
        id
    }

    /// From now on a list that is there outlives the broker, if anything does:
    /// a share group that a stored session joins, a configured queue.
    pub(in crate::broker) fn begin_storing(&self, effects: &mut Effects, id: QueueId, now: Time) {
        if let Some(mut list) = self.lists.lock(id.0) {
            self.keep_list(&mut list, effects, now);
        }
    }

    pub(super) fn keep_list(&self, list: &mut List, effects: &mut Effects, now: Time) {
        if self.store.is_on() && list.queue.kept_in().is_none() {
            let durability = self.durability_of(list);
            list.queue.keep(self.store.new_list(), durability);
            list.store(&mut effects.journal, now);
            effects.receipt = effects.receipt.and(self.store.append(&mut effects.journal));
        }
    }

    /// What an earlier run of the broker stored of a list: it is there again.
    /// `None`: its name is none any more.
    pub(in crate::broker) fn restore_list(
        &self,
        stored_in: ListId,
        record: &ListRecord,
        now: Time,
    ) -> Option<QueueId> {
        let id = match self.list_named(&record.name) {
            Some(id) => id,
            None => self.add_list_named(&record.name, now)?,
        };
        let mut list = self.lists.lock(id.0)?;
        let durability = self.durability_of(&list);
        list.queue.keep(stored_in, durability);
        for (kind, source) in &record.sources {
            list.queue.add_source(*kind, *source);
        }
        list.stored_used = record.last_used;
        if record.paused {
            list.queue.pause();
        }
        drop(list);
        if let Some(given) = &record.settings {
            self.restore_given(id, given, now);
        }
        Some(id)
    }

    /// Nobody can have used it while the broker was away: its time starts anew.
    fn add_list_named(&self, full_name: &str, now: Time) -> Option<QueueId> {
        if full_name == delayed::NAME {
            return Some(self.add_delayed(now, |_| ()));
        }
        if let Some(name) = full_name.strip_prefix("$queue/") {
            let name = TopicFilter::parse(name, TopicLimits::NONE).ok()?;
            let (plan, configured) = self.plan_of(name);
            let id = self.add_queue(Arc::from(full_name), name, plan, now, |_| ());
            if !configured {
                let due = now + self.queues_settings().auto_delete_after;
                self.schedule(now, due, Timer::Unused(id));
            }
            return Some(id);
        }
        let (_, filter) = full_name.strip_prefix("$share/")?.split_once('/')?;
        let filter = TopicFilter::parse(filter, TopicLimits::NONE).ok()?;
        Some(self.create_group(full_name, filter, now))
    }

    /// A share group is stored for the sessions that are.
    pub(super) fn durability_of(&self, list: &List) -> Durability {
        match &list.kind {
            Kind::Work(plan) => plan.durability.unwrap_or(self.durability()),
            Kind::Share => self.durability().max(Durability::Flushed),
            Kind::Delayed => self.durability(),
        }
    }

    pub(super) fn create_group(&self, text: &str, filter: TopicFilter<'_>, now: Time) -> QueueId {
        if let Some(id) = self.list_named(text) {
            return id;
        }
        let _changes = self.list_changes.lock();
        if let Some(id) = self.list_named(text) {
            return id;
        }
        let queue = Queue::new(self.group_settings());
        let id = self.add_list(Arc::from(text), queue, Kind::Share, now, |_| ());
        self.feed_from(Receiver::Group(id), filter);
        id
    }

    /// The list of what is put off.
    pub(super) fn create_delayed(&self, effects: &mut Effects, now: Time) -> QueueId {
        let _changes = self.list_changes.lock();
        if let Some(id) = self.list_named(delayed::NAME) {
            return id;
        }
        self.add_delayed(now, |list| self.keep_list(list, effects, now))
    }

    fn add_delayed(&self, now: Time, prepare: impl FnOnce(&mut List)) -> QueueId {
        let queue = Queue::new(self.delayed_settings());
        self.add_list(
            Arc::from(delayed::NAME),
            queue,
            Kind::Delayed,
            now,
            |list| {
                Core::prepare_delayed(list, now);
                prepare(list);
            },
        )
    }

    /// What the list of what is put off is told.
    pub(super) fn delayed_settings(&self) -> Settings {
        let default = &self.queues_settings().default;
        let settings = QueueSettings {
            messages_max: default.messages_max,
            bytes_max: default.bytes_max,
            ack_timeout: None,
            ..QueueSettings::default()
        };
        // As one of dead letters, it gives up nothing.
        core_settings(&settings, true)
    }

    fn add_list(
        &self,
        name: Arc<str>,
        queue: Queue,
        kind: Kind,
        now: Time,
        prepare: impl FnOnce(&mut List),
    ) -> QueueId {
        let mut list = List {
            name: name.clone(),
            kind,
            given: None,
            last_used: now,
            stored_used: now,
            alarm: Time::MAX,
            body: Body::new(queue),
        };
        prepare(&mut list);
        list.let_go();
        let id = QueueId(self.lists.insert(list));
        self.names.insert(name, id);
        id
    }

    pub(super) fn feed_from(&self, receiver: Receiver, filter: TopicFilter<'_>) {
        self.router
            .subscribe(filter, receiver, Subscription::new(Qos::ExactlyOnce));
    }

    /// Removes a list if `still` says so when nobody else can change that; its
    /// name, and how many messages it held.
    pub(super) fn remove_list(
        &self,
        effects: &mut Effects,
        id: QueueId,
        still: impl FnOnce(&List) -> bool,
    ) -> Option<(Arc<str>, usize)> {
        let _changes = self.list_changes.lock();
        let list = self.lists.lock(id.0).filter(|list| still(list))?;
        let mut list = self.lists.take(id.0, list);
        self.names.remove(&list.name);
        let receiver = list.receiver(id);
        for filter in list.filters() {
            self.router.unsubscribe(filter, receiver);
        }
        if list.queue.kept_in().is_some() {
            list.queue.forget_all_ids();
            if let Some(journal) = list.queue.journal() {
                effects.journal.append(journal);
            }
            self.forget_stored_list(effects, list.queue.sources());
        }
        let counts = list.queue.counts();
        let messages = counts.ready + counts.in_flight + counts.delayed + list.aside.len();
        match list.kind {
            Kind::Work(_) => {
                self.queues_len.fetch_sub(1, Ordering::Relaxed);
                self.counters.dropped_queue_deleted.add(messages);
            }
            Kind::Share | Kind::Delayed => self.counters.dropped_group.add(messages),
        }
        // Who waits for room finds that there is no such queue any more.
        for ((waiter, number), _) in &list.waiters {
            let session = self.sessions.lock(waiter.0);
            let session = session.filter(|session| session.is_link(*number));
            session.map(|mut session| session.retry(effects));
        }
        Some((list.name, messages))
    }

    /// Nothing of a list is stored any more; `sources`: its own first.
    fn forget_stored_list(
        &self,
        effects: &mut Effects,
        sources: impl Iterator<Item = (u8, ListId)>,
    ) {
        let journal = &mut effects.journal;
        for (place, (_, list)) in sources.enumerate() {
            if place == 0 {
                let key = &list_key(list);
                journal.add(Durability::Flushed, Change::Delete { key });
            }
            journal.add(Durability::Flushed, Change::Drop { list });
        }
        effects.receipt = effects.receipt.and(self.store.append(journal));
    }

    /// What feeds the queue of that name.
    pub(in crate::broker) fn feeding_filters(&self, name: TopicFilter<'_>) -> Vec<String> {
        let mut filters = match self.plan_there(name.as_str()) {
            Some(plan) => plan.filters.clone(),
            None => self.plan_of(name).0.filters.clone(),
        };
        filters.push(name.as_str().to_owned());
        filters
    }

    /// Whether the configuration file has settings for that name.
    pub(in crate::broker) fn is_configured(&self, name: TopicFilter<'_>) -> bool {
        self.plan_of(name).1
    }

    /// Whether the configuration file has settings for that queue.
    pub(super) fn is_named(&self, list: &List) -> bool {
        let name = list.queue_name();
        let name = name.and_then(|name| TopicFilter::parse(name, TopicLimits::NONE).ok());
        name.is_some_and(|name| self.is_configured(name))
    }

    /// The settings for a queue's name, and whether they name it.
    pub(super) fn plan_of(&self, name: TopicFilter<'_>) -> (Arc<Plan>, bool) {
        self.plans.current().of(name)
    }
}
