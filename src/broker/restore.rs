//! What comes back from the store: all of it when the broker starts, and
//! messages of sessions later, when there is room for them.
//!
//! Owns the order in which a start puts things together. A session's messages
//! stay on disk until its client is there; a queue's head is read at once,
//! because of those jobs whose fate only their member's session knows.

use std::fmt;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::lists::{HeldJob, List};
use super::record::{
    ListRecord, SessionRecord, SubscriptionRecord, Target, parse_key, parse_packet_key,
    parse_subscription_key,
};
use super::rights::gate_of;
use super::subscribe::Asked;
use super::timers::Timer;
use super::{Core, Worker};
use crate::config::Durability;
use crate::journal::{Change, Journal, ListId, Receipt, tag};
use crate::message::{Message, PacketId, QueueId, SessionId, Time};
use crate::mount::Mount;
use crate::queue::Gone;
use crate::router::{Receiver, Subscription};
use crate::session::{
    About, Close, Effects, Hold, Keeping, SentJob, Session, StoredMessage, Subscribed, Terms,
};
use crate::store::{Store, Summary};
use crate::topic::{TopicFilter, TopicLimits};

/// Messages of a session that are read at a time, and their bytes.
const MESSAGES_MAX: usize = 128;
const MESSAGES_BYTES_MAX: usize = 128 << 10;
/// And those that a full session is looked through for at a time.
const LOOK_MAX: usize = 1024;
/// Of delayed jobs, at a start.
const DELAYED_ROWS_MAX: usize = 4096;
/// Of a queue's jobs, at a start.
const JOBS_BYTES_MAX: usize = 512 << 10;

/// What a start has found in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    pub sessions: usize,
    pub subscriptions: usize,
    pub queues: usize,
    /// In sessions, queues and share groups.
    pub messages: u64,
    pub retained: usize,
    /// Records that mean nothing to this broker. They stay where they are.
    pub unknown: usize,
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} sessions with {} subscriptions, {} queues, {} messages in them, {} retained",
            self.sessions, self.subscriptions, self.queues, self.messages, self.retained
        )
    }
}

/// All that is known of the lists while a start goes on.
#[derive(Default)]
struct Found {
    summaries: FxHashMap<ListId, Summary>,
    sessions: FxHashMap<ListId, SessionId>,
    queues: FxHashMap<ListId, QueueId>,
    received: FxHashMap<ListId, Vec<PacketId>>,
    releasing: FxHashMap<ListId, Vec<(u64, PacketId)>>,
    restored: Restored,
}

impl Core {
    /// From now on what outlives it is stored, and what is stored there is
    /// back. To be called before the first client comes.
    ///
    /// `is_whole`: nothing in the store was damaged, so that what nothing leads
    /// to there is of no use.
    ///
    /// # Errors
    /// The store cannot be read at all.
    pub fn with_store(
        mut self,
        store: Store,
        is_whole: bool,
        now: Time,
    ) -> std::io::Result<(Core, Restored)> {
        self.store = store;
        // Bodies are stored by them: also where the clock stands at a moment
        // that an earlier run has seen, they are unlike those that are there.
        let unused = self.store.new_body();
        let first = self.message_ids.get_mut();
        *first = unused.max(*first);
        let mut worker = Worker::new(&self);
        let restored = match self.store.is_on() {
            true => self.restore(&mut worker, is_whole, now)?,
            false => Restored::default(),
        };
        Ok((self, restored))
    }

    /// What was stored has been read, from `since` on, and clients may come back
    /// from `now` on: who was connected is absent only now, and wills wait for
    /// them as long as they are to.
    pub fn welcome_back(&self, since: Time, now: Time) {
        let will_due = now + self.session_settings().will_restart_grace;
        for place in self.sessions.places() {
            let Some(mut session) = self.sessions.lock(place) else {
                continue;
            };
            if session.absent_since == since {
                session.absent_since = now;
            }
            if session.will.is_some() {
                session.will_due = session.will_due.max(will_due);
            }
        }
    }

    /// What the time was when the last run stored it.
    ///
    /// # Errors
    /// The store cannot be read at all.
    pub fn stored_calendar(store: &Store) -> std::io::Result<Option<Vec<u8>>> {
        let mut found = None;
        store.scan(&[tag::CLOCK], &mut |_, value| found = Some(value.to_vec()))?;
        Ok(found)
    }

    /// Stores what the time is.
    pub fn store_calendar(&self, value: &[u8]) {
        let key = &[tag::CLOCK][..];
        let mut journal = Journal::default();
        journal.add(Durability::Flushed, Change::Put { key, value });
        self.store.append(&mut journal);
    }

    fn restore(&self, worker: &mut Worker, is_whole: bool, now: Time) -> std::io::Result<Restored> {
        let mut found = Found {
            summaries: self.store.lists().into_iter().collect(),
            ..Found::default()
        };
        self.restore_lists(&mut found, now)?;
        self.restore_packet_ids(&mut found)?;
        self.restore_sessions(&mut found, now)?;
        self.restore_subscriptions(&mut found, now)?;
        self.restore_retained(worker, &mut found, now)?;
        for (stored_in, id) in &found.queues {
            self.restore_jobs(worker, (*stored_in, *id), &found.sessions, now);
        }
        self.drop_orphans(worker, &found, is_whole);
        self.store_unstored_queues(worker, now);
        self.watch_sys(now);
        self.pinned(worker, |_| ()); // Receipts of what has expired meanwhile.
        Ok(found.restored)
    }

    fn restore_lists(&self, found: &mut Found, now: Time) -> std::io::Result<()> {
        self.store.scan(&[tag::QUEUE], &mut |key, value| {
            let list = parse_key(key).map(|(list, _)| list);
            let restored = list.zip(ListRecord::decode(value));
            let restored = restored.and_then(|(list, record)| {
                let id = self.restore_list(list, &record, now)?;
                Some((list, id))
            });
            let Some((_, id)) = restored else {
                found.restored.unknown += 1;
                return;
            };
            found.restored.queues += 1;
            let Some(mut queue) = self.lists.lock(id.0) else {
                return;
            };
            let lists: Vec<ListId> = queue.queue.sources().map(|(_, list)| list).collect();
            for source in lists {
                found.queues.insert(source, id);
                let summary = found.summaries.get(&source).copied().unwrap_or_default();
                found.restored.messages += summary.rows;
                let (rows, bytes) = (summary.rows as usize, summary.body_bytes as usize);
                let cost_bytes = Message::cost_bytes_stored(rows, bytes);
                (queue.queue).restore(source, summary.next_row, rows, cost_bytes);
            }
        })?;
        self.store.scan(&[tag::DEDUP], &mut |key, value| {
            let Some((list, id)) = parse_key(key) else {
                found.restored.unknown += 1;
                return;
            };
            // Of a queue that is no more they mean nothing.
            let list = found.queues.get(&list).and_then(|id| self.lists.lock(id.0));
            if let Some(mut list) = list
                && !list.queue.restore_remembered(id, value)
            {
                found.restored.unknown += 1;
            }
        })
    }

    fn restore_packet_ids(&self, found: &mut Found) -> std::io::Result<()> {
        self.store.scan(
            &[tag::RECEIVED],
            &mut |key, _| match parse_packet_key(key) {
                Some((list, id)) => found.received.entry(list).or_default().push(id),
                None => found.restored.unknown += 1,
            },
        )?;
        self.store.scan(&[tag::RELEASING], &mut |key, value| {
            let order = value.try_into().map(u64::from_be_bytes).ok();
            match parse_packet_key(key).zip(order) {
                Some(((list, id), order)) => {
                    found.releasing.entry(list).or_default().push((order, id));
                }
                None => found.restored.unknown += 1,
            }
        })
    }

    fn restore_sessions(&self, found: &mut Found, now: Time) -> std::io::Result<()> {
        let will_due = now + self.session_settings().will_restart_grace;
        self.store.scan(&[tag::SESSION], &mut |key, value| {
            let list = parse_key(key).map(|(list, _)| list);
            let Some((list, record)) = list.zip(SessionRecord::decode(value)) else {
                found.restored.unknown += 1;
                return;
            };
            let mut terms = Terms::of_absent(record.expiry, self.limits());
            terms.mount_bytes = record.mount.as_ref().map_or(0, Mount::bytes);
            let client = record.identity.client.clone();
            let identity = Arc::new(record.identity);
            let mut session = Session::new(identity, terms, self.random_packet_id());
            session.mount = record.mount.map(Arc::new);
            session.gate = gate_of(session.mount.as_ref(), None);
            session.own_rights = record.own_rights;
            let summary = found.summaries.get(&list).copied().unwrap_or_default();
            let (rows, bytes) = (summary.rows as usize, summary.body_bytes as usize);
            // What its listener asked for is known when its client is back.
            let durability = self.durability().max(Durability::Flushed);
            session.keep(Keeping::resumed(list, durability, summary.next_row, rows));
            let received = found.received.remove(&list).unwrap_or_default();
            let mut releasing = found.releasing.remove(&list).unwrap_or_default();
            releasing.sort_unstable();
            let kept_bytes = Message::cost_bytes_stored(rows, bytes);
            session.restore(kept_bytes, &received, &releasing);
            // Who was connected is absent from now on.
            session.absent_since = record.absent_since.min(now);
            session.will = record.will;
            session.will_due = match record.absent_since {
                Time::MAX => will_due,
                // The delay goes on; but who is on the way back is waited for.
                _ if record.will_due < Time::MAX => record.will_due.max(will_due),
                _ => will_due,
            };
            let (due, has_will) = (session.will_due, session.will.is_some());
            let number = session.link_number();
            let id = SessionId(self.sessions.insert(session));
            if has_will {
                self.schedule(now, due, Timer::Will(id, number));
            }
            if let Some(mut session) = self.sessions.lock(id.0) {
                self.watch_expiry(&mut session, id, now);
            }
            self.clients.insert(client, id);
            self.sessions_len
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            found.sessions.insert(list, id);
            found.restored.sessions += 1;
            found.restored.messages += summary.rows;
        })
    }

    fn restore_subscriptions(&self, found: &mut Found, now: Time) -> std::io::Result<()> {
        self.store.scan(&[tag::SUBSCRIPTION], &mut |key, value| {
            let restored = (parse_subscription_key(key).zip(SubscriptionRecord::decode(value)))
                .and_then(|((list, target), record)| {
                    let id = *found.sessions.get(&list)?;
                    self.restore_subscription(id, (target, record), &found.queues, now)
                });
            match restored {
                Some(()) => found.restored.subscriptions += 1,
                None => found.restored.unknown += 1,
            }
        })
    }

    fn restore_subscription(
        &self,
        id: SessionId,
        (target, record): (Target<'_>, SubscriptionRecord),
        queues: &FxHashMap<ListId, QueueId>,
        now: Time,
    ) -> Option<()> {
        let mut granted = Asked::recorded(record).granted(record.qos);
        let stored_in = match target {
            Target::Filter(text) => {
                let filter = TopicFilter::parse(text, TopicLimits::NONE).ok()?;
                let subscription = Subscription {
                    qos: record.qos,
                    no_local: record.no_local,
                    retain_as_published: record.retain_as_published,
                    id: record.id,
                };
                let receiver = Receiver::Session(id);
                let node = self.router.subscribe(filter, receiver, subscription).node;
                let mut session = self.sessions.lock(id.0)?;
                session.subscribed(Subscribed::Filter(node.0), granted);
                return Some(());
            }
            Target::List(list) => list,
        };
        let list_id = *queues.get(&stored_in)?;
        let mut list = self.lists.lock(list_id.0)?;
        granted.list = Some(stored_in);
        let membership = list.membership(&self.sessions.lock(id.0)?.identity, record);
        let subscribed = match list.is_work() {
            true => Subscribed::Queue(list_id),
            false => Subscribed::Group(list_id),
        };
        list.queue.join(id, membership, now);
        list.queue.detach(id, Gone::Taken, now);
        let mut session = self.sessions.lock(id.0)?;
        session.subscribed(subscribed, granted);
        Some(())
    }

    fn restore_retained(
        &self,
        worker: &mut Worker,
        found: &mut Found,
        now: Time,
    ) -> std::io::Result<()> {
        let journal = &mut worker.effects.journal;
        self.store.scan(&[tag::RETAINED], &mut |key, value| {
            let Some(message) = Message::decode_stored(value) else {
                found.restored.unknown += 1;
                return;
            };
            if message.has_expired(now) {
                journal.add(Durability::Flushed, Change::Delete { key });
                self.counters.dropped_expired.increment();
                return;
            }
            let message = Arc::new(message);
            // A bound that is lower than before holds for what comes from now on.
            self.retained.restore(message);
            found.restored.retained += 1;
        })?;
        self.store.append(journal);
        self.watch_retained(now);
        Ok(())
    }

    /// The head of a queue; those of its jobs that a session has at QoS 2 are
    /// put into its hands again.
    fn restore_jobs(
        &self,
        worker: &mut Worker,
        (stored_in, id): (ListId, QueueId),
        sessions: &FxHashMap<ListId, SessionId>,
        now: Time,
    ) {
        let Some(mut list) = self.lists.lock(id.0) else {
            return;
        };
        // Once for each queue, and before anything else of it is read.
        if list.queue.kept_in().is_none_or(|(own, _)| own != stored_in) {
            return;
        }
        let mut held = Vec::new();
        self.restore_delayed(&mut list, &mut held, now);
        while let Some(wanted) = list.queue.wants_jobs_at_start() {
            let (from, rows_max) = (wanted.from, wanted.rows_max);
            let rows = match (self.store).read(wanted.list, from, rows_max, JOBS_BYTES_MAX) {
                Ok(rows) => rows,
                Err(error) => {
                    let queue = list.name();
                    tracing::error!(?queue, %error, "jobs could not be read; they are tried again");
                    break;
                }
            };
            for row in &rows {
                held.extend(self.load_job(&mut list, wanted.list, (row, false), now));
            }
            let missing = list.queue.looked(wanted, rows.len(), true);
            self.lost_damaged(list.name(), missing);
            if list.queue.wants_jobs_at_start() == Some(wanted) {
                break;
            }
        }
        if !sessions.is_empty() {
            self.load_held_jobs(&mut list, &mut held, now);
        }
        for (key, session, packet_id, message, deliveries) in held {
            let member = sessions.get(&session).copied();
            let Some((lease, member)) = list.queue.restore_lease(key, member, now).zip(member)
            else {
                continue;
            };
            let job = SentJob {
                queue: id,
                lease,
                message: message.id(),
                queue_topic: list.shows_queue_topic(),
                hold: Hold::Current,
            };
            let about = list.queue_name().map(|queue| About {
                queue,
                queue_topic: list.shows_queue_topic(),
                delivery: deliveries,
                enqueued_at_ms: message.received().as_micros() / 1000,
            });
            if let Some(mut session) = self.sessions.lock(member.0) {
                session.restore_job(packet_id, message, job, about);
            }
        }
        drop(list);
        // Dead letters, time-outs, and what is to be stored of all this.
        self.change_list(worker, id, now, |_| ());
        // What was due meanwhile.
        self.schedule(now, now, Timer::Queue(id));
    }

    /// Jobs that were put in with a delay: when each of them is due.
    fn restore_delayed(&self, list: &mut List, held: &mut Vec<HeldJob>, now: Time) {
        let mut sources = list.queue.sources();
        let Some((_, source)) = sources.find(|(_, source)| list.queue.is_for_delayed(*source))
        else {
            return;
        };
        drop(sources);
        let mut from = 0;
        loop {
            let rows = (self.store).read(source, from, DELAYED_ROWS_MAX, JOBS_BYTES_MAX);
            let rows = match rows {
                Ok(rows) => rows,
                Err(error) => {
                    let queue = list.name();
                    tracing::error!(?queue, %error, "delayed jobs could not be read; the next start tries again");
                    return;
                }
            };
            let Some(last) = rows.last() else { return };
            from = last.row + 1;
            for row in &rows {
                held.extend(self.load_job(list, source, (row, true), now));
            }
        }
    }

    /// Lists that nothing leads to: what made them was never stored, or is
    /// damaged. Then they stay where they are, for `rotamq store export`.
    fn drop_orphans(&self, worker: &mut Worker, found: &Found, is_whole: bool) {
        if found.restored.unknown > 0 {
            tracing::error!(
                count = found.restored.unknown,
                "records of the store mean nothing to this broker; they stay there"
            );
        }
        let is_whole = is_whole && found.restored.unknown == 0;
        let journal = &mut worker.effects.journal;
        for (list, summary) in &found.summaries {
            if found.sessions.contains_key(list) || found.queues.contains_key(list) {
                continue;
            }
            if !is_whole {
                let (list, messages) = (list.0, summary.rows);
                tracing::error!(
                    list,
                    messages,
                    "nothing leads to these stored messages; they stay there"
                );
            } else {
                journal.add(Durability::Flushed, Change::Drop { list: *list });
            }
        }
        self.store.append(journal);
    }

    /// Configured queues that were not there before.
    fn store_unstored_queues(&self, worker: &mut Worker, now: Time) {
        for place in self.lists.places() {
            self.begin_storing(&mut worker.effects, QueueId(place), now);
        }
    }

    // ---- while it runs

    /// Reads messages that a session has room for and that are not in memory;
    /// when there will be more, if that has to be waited for.
    #[inline]
    pub(super) fn read_messages(
        &self,
        session: &mut Session,
        effects: &mut Effects,
        now: Time,
    ) -> Option<Receipt> {
        session.keeping()?; // It has none.
        self.read_kept(session, effects, now)
    }

    #[inline(never)]
    fn read_kept(
        &self,
        session: &mut Session,
        effects: &mut Effects,
        now: Time,
    ) -> Option<Receipt> {
        let mut later = Receipt::NONE;
        let mut is_again = false;
        while let Some(receipt) = session.wants_rows() {
            if session.is_resuming() && !self.store.has(receipt) {
                return Some(receipt);
            }
            if !self.read_page(session, effects) {
                // What is left is only about to be stored; or was, meanwhile.
                later = session.pushed();
                if self.store.has(later) && !is_again {
                    is_again = true;
                    continue;
                }
                break;
            }
            if !session.is_resuming() {
                session.refill(now, effects);
                self.store_session(session, effects);
            }
        }
        if session.is_resuming() {
            session.resumed(now, effects);
            self.store_session(session, effects);
        }
        (!self.store.has(later)).then_some(later)
    }

    /// Makes room in a full session by what is not in memory: drops what has
    /// expired, looking at a page at a time, or else the oldest. Whether there
    /// may be room now, or after another look.
    pub(super) fn make_room(
        &self,
        session: &mut Session,
        effects: &mut Effects,
        now: Time,
    ) -> bool {
        let Some((list, first, settled)) = session.next_unread() else {
            return false;
        };
        if !self.store.has(settled) {
            return false;
        }
        let look_from = session.look_from(now);
        let (from, rows_max) = match look_from {
            Some(from) => (from, LOOK_MAX),
            None => (first, 1),
        };
        // Who reads on for the client says what is wrong with the disk.
        let Ok(rows) = (self.store).read(list, from, rows_max, MESSAGES_BYTES_MAX) else {
            return false;
        };
        if rows.is_empty() && look_from.is_some() {
            session.looked_through();
            return true;
        }
        for row in &rows {
            let stored = StoredMessage::decode(row.row, row.shared, &row.about, &row.body);
            match (stored, look_from) {
                (Some(stored), Some(_)) => session.look_at(&stored, now, effects),
                (Some(stored), None) => session.drop_oldest(&stored, effects),
                (None, _) => {
                    session.lose(row.row);
                    self.lost_damaged(session.identity.client.as_str(), 1);
                }
            }
        }
        self.store_session(session, effects);
        !rows.is_empty()
    }

    /// Reads the next messages that are not in memory; whether any came.
    pub(super) fn read_page(&self, session: &mut Session, effects: &mut Effects) -> bool {
        let Some((list, from, settled)) = session.next_unread() else {
            return false;
        };
        // What was settled is not to be read again.
        if !self.store.has(settled) {
            return false;
        }
        // Asked before: what is stored from now on may be missed by the reading.
        let is_all_stored = self.store.has(session.pushed());
        let rows = self
            .store
            .read(list, from, MESSAGES_MAX, MESSAGES_BYTES_MAX);
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) => {
                let client = &session.identity.client;
                tracing::error!(?client, %error, "messages could not be read");
                let why = "what is stored of the session cannot be read";
                let close = Close::new(crate::protocol::ReasonCode::UnspecifiedError, why);
                session.close(close, effects);
                return false;
            }
        };
        if rows.is_empty() {
            if is_all_stored && self.store.failure().is_none() {
                let missing = session.loaded_all();
                self.lost_damaged(session.identity.client.as_str(), missing);
                return missing > 0;
            }
            return false;
        }
        for row in rows {
            match StoredMessage::decode(row.row, row.shared, &row.about, &row.body) {
                Some(message) => session.load(message),
                None => {
                    session.lose(row.row);
                    self.lost_damaged(session.identity.client.as_str(), 1);
                }
            }
        }
        true
    }
}
