//! Work queues and share groups: how they are fed and give out. How they come
//! and go is in `catalog`, their members are in `members`, dead letters in `dead`,
//! publications that are put off in `delayed`.
//!
//! Owns what a list has beside its jobs: its name, what feeds it, who waits
//! for room in it. Everything that changes a list goes through
//! [`Core::change_list`], which gives out what can be given before the list is
//! let go; but what a read puts in is given out when the read ends.

mod catalog;
mod dead;
mod delayed;
mod depths;
mod members;
mod plans;
mod steering;

pub use depths::Depth;
pub(super) use members::parse_span;
pub(in crate::broker) use plans::{CurrentPlans, Plan, Plans, Replanned, group_settings};
use steering::keys_of;
pub(super) use steering::{Look, Pick, no_queue};

use std::cell::{Cell, OnceCell};
use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use super::publish::{Queued, Refused};
use super::record::{ListRecord, list_key};
use super::timers::Timer;
use super::wishes::Wishes;
use super::{Core, Worker};
use crate::config::{Durability, Overflow, QueueTopic};
use crate::journal::{Change, Journal, ListId, Receipt};
use crate::message::{LeaseId, Message, PacketId, Qos, QueueId, SessionId, Time};
use crate::protocol::ReasonCode;
use crate::queue::{
    Ask, Counts, DeadLetter, Dormant, Fate, Full, JobRecord, Queue, Settlement, Stored, StoredJob,
    StraightTurn, Totals,
};
use crate::router::{Receiver, Target};
use crate::session::{
    About, Close, Effects, Hold, JobDelivered, JobDelivery, Publication, Subscribed,
};
use crate::slots::{Locked, Slotted};
use crate::store::{Row, Store};
use crate::topic::{TopicFilter, TopicLimits};

/// Dead letters that found their queue full are tried again after so long.
const DEAD_QUEUE_BACKOFF: Duration = Duration::from_secs(1);
/// That a queue is used is stored no more often.
const USED_EVERY: Duration = Duration::from_secs(60 * 60);
/// When nothing could be read because it is only about to be stored, it is
/// tried again after so long.
const READ_AGAIN_AFTER: Duration = Duration::from_millis(10);
/// And so long, when the disk could not be read.
const READ_FAILED_AFTER: Duration = Duration::from_secs(1);
/// And so often, before others have their turns.
const READ_PAGES_MAX: usize = 8;
/// Behind what a start reads, so many rows of a list are looked at for those
/// that a member has, and their bytes.
const HELD_ROWS_MAX: usize = 65_536;
const HELD_BYTES_MAX: usize = 256 << 20;
const HELD_PAGE: usize = 1024;
/// Bytes of messages read at a time.
const READ_BYTES_MAX: usize = 512 << 10;

/// A queue or share group, and what surrounds it. Most of it is there only while
/// something goes on: see [`Body`].
pub(super) struct List {
    /// `$queue/NAME` or `$share/GROUP/FILTER`.
    name: Arc<str>,
    kind: Kind,
    // Keys of a `[[queue]]` that it was given while the broker ran, as JSON;
    // empty: none of them.
    given: Option<Box<str>>,
    last_used: Time,
    // As the store knows it.
    stored_used: Time,
    // When the timer that is set for it is due.
    alarm: Time,
    body: Body,
}

/// What a list has while there are jobs or members, or while it is looked at.
pub(super) struct Active {
    pub queue: Queue,
    // When its jobs from these sequences on are stored.
    receipts: VecDeque<(u64, Receipt)>,
    /// Connections that hold PUBLISHes back until there is room for the first
    /// of each.
    pub waiters: VecDeque<((SessionId, u32), usize)>,
    // Dead letters on their way to their queue, or that found it full; and
    // whether the queue keeps room for each.
    aside: VecDeque<(DeadLetter, bool)>,
    // When the next of them is tried.
    aside_due: Time,
    // Of those that a share group dropped, and that expired, how many are
    // counted.
    counted: (u64, u64),
}

impl Active {
    fn new(queue: Queue) -> Active {
        let counted = dropped_and_expired(queue.totals());
        Active {
            queue,
            receipts: VecDeque::new(),
            waiters: VecDeque::new(),
            aside: VecDeque::new(),
            aside_due: Time::ZERO,
            counted,
        }
    }

    fn is_dormant(&self) -> bool {
        self.queue.is_dormant() && self.waiters.is_empty() && self.aside.is_empty()
    }
}

/// Of those that a list dropped for others, and of those that expired, how many.
fn dropped_and_expired(totals: &Totals) -> (u64, u64) {
    let dropped = totals.dropped + totals.discarded + totals.replaced;
    (dropped, totals.expired)
}

/// One of the two at a time. Whoever needs what is active wakes it up, so what
/// is looked at often is not to need it. When a list with nothing in it is let
/// go, it lies down: at once where that is cheap, or else when it is looked at
/// whether it is unused.
struct Body {
    active: OnceCell<Box<Active>>,
    dormant: Cell<Option<Dormant>>,
}

impl Body {
    fn new(queue: Queue) -> Body {
        Body {
            active: Box::new(Active::new(queue)).into(),
            dormant: Cell::new(None),
        }
    }

    fn wake(&self) -> Box<Active> {
        let dormant = self.dormant.take().expect("what is not active is dormant");
        Box::new(Active::new(Queue::from(dormant)))
    }
}

impl Deref for List {
    type Target = Active;

    #[inline]
    fn deref(&self) -> &Active {
        self.body.active.get_or_init(|| self.body.wake())
    }
}

impl DerefMut for List {
    #[inline]
    fn deref_mut(&mut self) -> &mut Active {
        if self.body.active.get().is_none() {
            self.body.active = self.body.wake().into();
        }
        let active = self.body.active.get_mut();
        active.expect("it was woken up if it was not")
    }
}

impl Slotted for List {
    #[inline]
    fn let_go(&mut self) {
        let active = self.body.active.get();
        if active.is_some_and(|active| active.is_dormant() && active.queue.is_light()) {
            self.lie_down();
        }
    }
}

pub(super) enum Kind {
    Work(Arc<Plan>),
    Share,
    /// What is put off.
    Delayed,
}

impl List {
    /// The name without `$queue/`; `None` for a share group.
    pub fn queue_name(&self) -> Option<&str> {
        match self.kind {
            Kind::Work(_) => self.name.strip_prefix("$queue/"),
            Kind::Share | Kind::Delayed => None,
        }
    }

    pub(super) fn is_dead_letters(&self) -> bool {
        self.name.starts_with("$queue/$dead/")
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// How much it has of everything. Does not wake it.
    pub(super) fn counts(&self) -> Counts {
        match self.body.active.get() {
            Some(active) => active.queue.counts(),
            None => {
                let dormant = self.body.dormant.take();
                let totals = dormant.as_ref().map(Dormant::totals);
                self.body.dormant.set(dormant);
                Counts {
                    totals: totals.unwrap_or_default(),
                    ..Counts::default()
                }
            }
        }
    }

    /// Keeps no more than it needs, if there is nothing in it.
    fn lie_down(&mut self) {
        if (self.body.active.get()).is_some_and(|active| active.is_dormant())
            && let Some(mut active) = self.body.active.take()
        {
            self.body.dormant = Cell::new(Some(active.queue.lie_down()));
        }
    }

    /// Whether it may go: nobody takes part, what it has was due long ago, and
    /// no dead letter waits for a person.
    fn is_unused(&self) -> bool {
        if self.body.active.get().is_none() {
            return true; // One that is dormant has nothing at all.
        }
        let counts = self.queue.counts();
        let waits_for_a_person = self.is_dead_letters() && !self.queue.is_idle();
        counts.members == 0 && counts.delayed == 0 && !waits_for_a_person
    }

    /// With `$queue/` or `$share/`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is a work queue.
    pub fn is_work(&self) -> bool {
        matches!(self.kind, Kind::Work(_))
    }

    /// Whether members see `$queue/` before the topic: dead letters show their
    /// first one.
    pub fn shows_queue_topic(&self) -> bool {
        match &self.kind {
            Kind::Work(plan) => plan.topic == QueueTopic::Queue && !self.is_dead_letters(),
            Kind::Share | Kind::Delayed => false,
        }
    }

    /// What feeds it: its own name does so in any case.
    fn filters(&self) -> impl Iterator<Item = TopicFilter<'_>> {
        let (own, others) = match &self.kind {
            Kind::Work(plan) => (self.queue_name(), &plan.filters[..]),
            Kind::Share => {
                let group = self.name.strip_prefix("$share/");
                let parts = group.and_then(|group| group.split_once('/'));
                (parts.map(|(_, filter)| filter), &[][..])
            }
            Kind::Delayed => (None, &[][..]),
        };
        let all = own.into_iter().chain(others.iter().map(String::as_str));
        all.filter_map(|filter| TopicFilter::parse(filter, TopicLimits::NONE).ok())
    }

    /// As what it stands in the topic tree.
    fn receiver(&self, id: QueueId) -> Receiver {
        match self.kind {
            Kind::Work(_) | Kind::Delayed => Receiver::Queue(id),
            Kind::Share => Receiver::Group(id),
        }
    }

    /// Somebody puts something in, joins or leaves.
    fn used(&mut self, effects: &mut Effects, now: Time) {
        self.last_used = now;
        if self.last_used.since(self.stored_used) >= USED_EVERY {
            self.store(&mut effects.journal, now);
        }
    }

    /// That it is there, and when it was used.
    fn store(&mut self, journal: &mut Journal, now: Time) {
        self.stored_used = now;
        if let Some((list, durability)) = self.queue.kept_in() {
            let key = &list_key(list);
            let record = ListRecord {
                name: (*self.name).to_owned(),
                last_used: self.last_used,
                settings: self.given.as_deref().map(str::to_owned),
                paused: self.queue.is_paused(),
                sources: self.queue.sources().skip(1).collect(),
            };
            let value = &record.encode();
            journal.add(
                durability.max(Durability::Flushed),
                Change::Put { key, value },
            );
        }
    }

    /// What a message asks of it that was published just now.
    fn ask<'a>(&self, publication: &Publication<'a>, now: Time) -> Ask<'a> {
        match &self.kind {
            Kind::Work(plan) => {
                let wishes = Wishes::lenient(publication.properties, now);
                wishes.ask(plan, publication.topic.as_str(), now)
            }
            Kind::Share | Kind::Delayed => Ask::default(),
        }
    }

    /// Keeps room for a message, if the queue is to have it; `Some`: it has had
    /// it before.
    fn admit(
        &mut self,
        id: QueueId,
        publication: &Publication<'_>,
        wishes: &Wishes<'_>,
        now: Time,
    ) -> Result<Option<Queued>, Refused> {
        if let Some(dedup_id) = wishes.dedup_id
            && let Some(first) = self.queue.seen(dedup_id, now)
        {
            return Ok(Some(Queued::duplicate(first)));
        }
        if let Kind::Work(plan) = &self.kind
            && publication.payload.len() > plan.message_bytes_max
        {
            let why = format!(
                "{} takes payloads of {} bytes at most (max_message_bytes), and this has {}",
                self.name,
                plan.message_bytes_max,
                publication.payload.len()
            );
            return Err(Refused::Never(Close::new(ReasonCode::QuotaExceeded, why)));
        }
        let cost_bytes = publication.cost_bytes();
        let room = match wishes.dedup_id {
            Some(_) => self.queue.may_remember(),
            None => Ok(()),
        };
        // Where dead letters find no room, no more are made.
        let is_stuck = !self.aside.is_empty();
        let room = room.and_then(|()| match self.queue.settings().overflow {
            Overflow::DeadLetterOldest if is_stuck => self.queue.reserve_free(cost_bytes),
            _ => self.queue.reserve(cost_bytes),
        });
        match room {
            Ok(()) => Ok(None),
            Err(_) => Err(Refused::QueueFull {
                queue: id,
                cost_bytes,
            }),
        }
    }

    /// Puts a message in that was admitted.
    fn feed(
        &mut self,
        store: &Store,
        effects: &mut Effects,
        publication: &Publication<'_>,
        wishes: &Wishes<'_>,
        now: Time,
    ) -> Queued {
        if let Some(dedup_id) = wishes.dedup_id {
            // Somebody else may have come first, since room was made for it.
            if let Some(first) = self.queue.seen(dedup_id, now) {
                effects.receipt = effects.receipt.and(self.last_receipt());
                self.queue.cancel_reservation(publication.cost_bytes());
                return Queued::duplicate(first);
            }
            self.queue.remember(dedup_id, publication.id, now);
        }
        let ask = match &self.kind {
            Kind::Work(plan) => wishes.ask(plan, publication.topic.as_str(), now),
            Kind::Share | Kind::Delayed => Ask::default(),
        };
        self.put_in(store, effects, publication, &ask, now);
        Queued::new(publication.id)
    }

    /// Puts a message in for which there is a reservation.
    fn put_in(
        &mut self,
        store: &Store,
        effects: &mut Effects,
        publication: &Publication<'_>,
        ask: &Ask<'_>,
        now: Time,
    ) {
        let fleeting = matches!(self.kind, Kind::Share) && publication.qos == Qos::AtMostOnce;
        let mut stored = Stored::NOT;
        if let Some((_, durability)) = self.queue.kept_in().filter(|_| !fleeting) {
            let durability = durability.max(publication.durability);
            if durability > Durability::Memory {
                let list = self.source_for(store, effects, ask, now);
                let row = (list, self.queue.next_sequence());
                let due = if ask.due > now { ask.due } else { Time::ZERO };
                let record = JobRecord::new(due).head();
                let shared = publication.store(&mut effects.journal, durability, row, &record);
                stored = Stored::row(shared > 0);
            }
        }
        if publication.after != Receipt::NONE && !stored.is_stored {
            // Nobody is to see it before what it tells of is stored.
            self.forget_receipts(store);
            let sequence = self.queue.next_sequence();
            self.receipts.push_back((sequence, publication.after));
        }
        let message = publication.message().clone();
        self.queue.enqueue_reserved(message, ask, stored, now);
    }

    /// The list for the row of such a job; it begins with the first of them.
    fn source_for(
        &mut self,
        store: &Store,
        effects: &mut Effects,
        ask: &Ask<'_>,
        now: Time,
    ) -> ListId {
        let kind = self.queue.kind_for(ask, now);
        if let Some(list) = self.queue.list_for(kind) {
            return list;
        }
        let list = store.new_list();
        self.queue.add_source(kind, list);
        self.store(&mut effects.journal, now);
        list
    }

    /// When all that it has is stored.
    fn last_receipt(&self) -> Receipt {
        let last = self.receipts.back();
        last.map_or(Receipt::NONE, |(_, receipt)| *receipt)
    }

    fn forget_receipts(&mut self, store: &Store) {
        while (self.receipts.front()).is_some_and(|(_, receipt)| store.has(*receipt)) {
            self.receipts.pop_front();
        }
    }

    /// When a job is stored.
    fn receipt_of(&self, sequence: u64) -> Receipt {
        let mut receipts = self.receipts.iter().rev();
        let found = receipts.find(|(first, _)| *first <= sequence);
        found.map_or(Receipt::NONE, |(_, receipt)| *receipt)
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
    /// into none if one refuses. What a queue has of it now; `None`: no queue
    /// was there.
    pub(super) fn feed(
        &self,
        effects: &mut Effects,
        targets: &[Target],
        feed: Feed,
        publication: &Publication<'_>,
        now: Time,
    ) -> Result<Option<Queued>, Refused> {
        let queues = || {
            targets.iter().filter_map(|target| match target.receiver {
                Receiver::Queue(queue) => Some(queue),
                Receiver::Session(_) | Receiver::Group(_) => None,
            })
        };
        let mut first = queues();
        let fed = match (first.next(), first.next()) {
            (None, _) => Ok(None),
            (Some(queue), None) => self.feed_one(effects, queue, feed, publication, now),
            (Some(_), Some(_)) => self.feed_many(effects, queues, feed, publication, now),
        };
        if fed.is_err() && !publication.may_be_lost() {
            return fed;
        }
        for target in targets {
            if let Receiver::Group(group) = target.receiver {
                if self.hand_straight(effects, group, publication) {
                    continue;
                }
                let cost_bytes = publication.cost_bytes();
                let taken =
                    self.put_into_list(effects, (group, cost_bytes), now, |list, effects| {
                        list.queue.reserve(cost_bytes)?;
                        list.put_in(&self.store, effects, publication, &Ask::default(), now);
                        Ok::<_, Full>(())
                    });
                if matches!(taken, Some(Err(_))) {
                    self.counters.dropped_group.increment();
                }
            }
        }
        fed
    }

    /// Gives a message to the next member of a share group without making a job
    /// of it; whether that was possible. It takes 3,564 instructions, acknowledgement
    /// included, where a job takes 6,234.
    fn hand_straight(
        &self,
        effects: &mut Effects,
        id: QueueId,
        publication: &Publication<'_>,
    ) -> bool {
        // One of QoS 0 is not to be lost with a member that never got it, and of
        // one of QoS 2 the group keeps account.
        if publication.qos != Qos::AtLeastOnce {
            return false;
        }
        let Some(mut list) = self.lists.lock(id.0) else {
            return false;
        };
        while let Some(turn) = list.queue.straight_turn() {
            match self.hand_over(effects, id, turn, (publication, publication.after)) {
                Some(JobDelivered::Taken) => {}
                Some(JobDelivered::TakenLast) => list.queue.pass_over(turn.member),
                Some(JobDelivered::NoRoom) => {
                    list.queue.pass_over(turn.member);
                    continue;
                }
                Some(JobDelivered::TooLarge | JobDelivered::Denied) | None => return false,
            }
            list.queue.took_straight(turn);
            return true;
        }
        false
    }

    /// As [`Core::hand_straight`], what waits in the group. What remains then is
    /// for nobody, or has to be given as a job.
    fn hand_out_straight(&self, list: &mut List, id: QueueId, effects: &mut Effects, now: Time) {
        while let Some((turn, message)) = list.queue.waiting_turn(now) {
            let (publication, after) = (
                Publication::of(message, now),
                list.receipt_of(turn.sequence),
            );
            match self.hand_over(effects, id, turn, (&publication, after)) {
                Some(JobDelivered::Taken) => {}
                Some(JobDelivered::TakenLast) => list.queue.pass_over(turn.member),
                Some(JobDelivered::NoRoom) => {
                    list.queue.pass_over(turn.member);
                    continue;
                }
                Some(JobDelivered::TooLarge | JobDelivered::Denied) | None => return,
            }
            list.queue.took_straight(turn);
        }
    }

    /// `None`: it has to be a job for this member.
    #[inline]
    fn hand_over(
        &self,
        effects: &mut Effects,
        id: QueueId,
        turn: StraightTurn,
        (publication, after): (&Publication<'_>, Receipt),
    ) -> Option<JobDelivered> {
        if turn.qos == Qos::AtMostOnce {
            return None;
        }
        let mut session = self.sessions.lock(turn.member.0)?;
        // What it may keep is bounded in bytes.
        let cost_bytes = publication.cost_bytes();
        if session.has_room() && !session.may_hold_straight(cost_bytes, self.limits()) {
            return None;
        }
        effects.frames.begin(1);
        let delivery = JobDelivery {
            qos: Qos::AtLeastOnce, // [MQTT-3.8.4-6]
            list: Subscribed::Group(id),
            lease: LeaseId::straight(turn.sequence),
            about: None,
        };
        let delivered = session.deliver_job(publication, delivery, effects);
        session.stored(after);
        Some(delivered)
    }

    /// A member of a share group does not acknowledge messages that went straight
    /// to it, told by their sequences: it is gone, or says why.
    pub(super) fn take_back(
        &self,
        worker: &mut Worker,
        (id, member): (QueueId, SessionId),
        messages: Vec<(u64, Arc<Message>)>,
        said: Option<Settlement<'_>>,
        now: Time,
    ) {
        let effects = &mut worker.effects;
        let count = messages.len();
        let taken = self.change_list_with(effects, id, now, |list, effects| {
            for (sequence, message) in messages {
                if list.queue.kept_in().is_none() {
                    list.queue.adopt(message, sequence, member, said, now);
                    continue;
                }
                // Somebody joined meanwhile for whom it has to be stored, and what
                // is stored is so in its order.
                let mut ask = Ask::default();
                match said {
                    Some(Settlement::Reject { .. }) => {
                        self.counters.dropped_group.increment();
                        continue;
                    }
                    Some(Settlement::Fail { delay, .. }) => {
                        ask.due = now + delay.unwrap_or_default();
                    }
                    _ => {}
                }
                list.queue.reserve_again(message.cost_bytes());
                let publication = Publication::of(&message, now);
                list.put_in(&self.store, effects, &publication, &ask, now);
            }
        });
        if taken.is_none() {
            self.counters.dropped_group.add(count); // with the group
        }
    }

    /// As [`Core::feed`], one queue.
    pub(super) fn feed_one(
        &self,
        effects: &mut Effects,
        queue: QueueId,
        feed: Feed,
        publication: &Publication<'_>,
        now: Time,
    ) -> Result<Option<Queued>, Refused> {
        // While the queue is held, others wait for it.
        let wishes = Wishes::lenient(publication.properties, now);
        publication.message();
        let room = (queue, publication.cost_bytes());
        let taken = self.put_into_list(effects, room, now, |list, effects| {
            if feed == Feed::Direct {
                list.used(effects, now);
            }
            if let Some(duplicate) = list.admit(queue, publication, &wishes, now)? {
                effects.receipt = effects.receipt.and(list.last_receipt());
                return Ok(duplicate);
            }
            Ok(list.feed(&self.store, effects, publication, &wishes, now))
        });
        taken.transpose()
    }

    /// Room is reserved in each in turn, and given back if one refuses.
    fn feed_many<I: Iterator<Item = QueueId>>(
        &self,
        effects: &mut Effects,
        queues: impl Fn() -> I,
        feed: Feed,
        publication: &Publication<'_>,
        now: Time,
    ) -> Result<Option<Queued>, Refused> {
        let wishes = Wishes::lenient(publication.properties, now);
        // Those that have had it before keep no room.
        let mut duplicates = Vec::new();
        let mut reserved = Vec::new();
        // Older jobs give way only when nobody else can refuse any more.
        for give_way in [false, true] {
            for queue in queues() {
                let Some(mut list) = self.lists.lock(queue.0) else {
                    continue;
                };
                if give_way != (list.queue.settings().overflow != Overflow::Reject) {
                    continue;
                }
                match list.admit(queue, publication, &wishes, now) {
                    Ok(None) => reserved.push(queue),
                    Ok(Some(duplicate)) => {
                        effects.receipt = effects.receipt.and(list.last_receipt());
                        duplicates.push((queue, duplicate));
                    }
                    Err(refused) => {
                        drop(list);
                        let cost_bytes = publication.cost_bytes();
                        for queue in reserved {
                            self.change_list_with(effects, queue, now, |list, _| {
                                list.queue.cancel_reservation(cost_bytes);
                            });
                        }
                        return Err(refused);
                    }
                }
            }
        }
        let mut fed = None;
        for queue in queues() {
            let earlier = duplicates.iter().find(|(other, _)| *other == queue);
            let put_in = self.change_list_with(effects, queue, now, |list, effects| {
                if feed == Feed::Direct {
                    list.used(effects, now);
                }
                match earlier {
                    Some((_, duplicate)) => *duplicate,
                    None => list.feed(&self.store, effects, publication, &wishes, now),
                }
            });
            // One that has it only now says under which id.
            let says_more = |fed: &Queued| fed.is_duplicate;
            if fed.as_ref().is_none_or(says_more) {
                fed = put_in.or(fed);
            }
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
                if !list.waiters.iter().any(|(other, _)| *other == waiter) {
                    list.waiters.push_back((waiter, cost_bytes));
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
        self.change_list_with(&mut worker.effects, id, now, |list, _| change(list))
    }

    /// Changes a list, then gives out what can be given, and sees to what came
    /// of it. `None`: the list is gone.
    pub(super) fn change_list_with<R>(
        &self,
        effects: &mut Effects,
        id: QueueId,
        now: Time,
        change: impl FnOnce(&mut List, &mut Effects) -> R,
    ) -> Option<R> {
        let mut list = self.lists.lock(id.0)?;
        let result = self.change_locked(&mut list, effects, now, change);
        self.follow_change(list, id, effects, now);
        Some(result)
    }

    /// As [`Core::change_list_with`], of a message that is put in and takes so
    /// many bytes: what the list gives out may wait for the end of the read.
    fn put_into_list<R>(
        &self,
        effects: &mut Effects,
        (id, cost_bytes): (QueueId, usize),
        now: Time,
        change: impl FnOnce(&mut List, &mut Effects) -> R,
    ) -> Option<R> {
        let mut list = self.lists.lock(id.0)?;
        if effects.is_read && !list.queue.has_room(cost_bytes) {
            // Members may have room for what came just before.
            list.queue.at(now);
            self.give_out(&mut list, id, effects, now);
        }
        let result = self.change_locked(&mut list, effects, now, change);
        // What ends is stored elsewhere in the same turn.
        if effects.is_read && !list.queue.has_ended() && list.aside.is_empty() {
            effects.fed.push(id);
        } else {
            self.follow_change(list, id, effects, now);
        }
        Some(result)
    }

    fn change_locked<R>(
        &self,
        list: &mut List,
        effects: &mut Effects,
        now: Time,
        change: impl FnOnce(&mut List, &mut Effects) -> R,
    ) -> R {
        list.queue.at(now);
        let sequence = list.queue.next_sequence();
        let result = change(list, effects);
        self.store_list(list, effects, sequence);
        result
    }

    /// A list has changed: it gives out what it can, and what came of it is seen
    /// to.
    fn follow_change(
        &self,
        mut list: Locked<'_, List>,
        id: QueueId,
        effects: &mut Effects,
        now: Time,
    ) {
        self.give_out(&mut list, id, effects, now);
        let mut pages = 0;
        while self.read_jobs(&mut list, id, effects, now) {
            self.give_out(&mut list, id, effects, now);
            pages += 1;
            if pages == READ_PAGES_MAX {
                // The rest of what has expired, say: others have their turns.
                self.timers.schedule(now, Timer::Queue(id));
                break;
            }
        }
        let (dropped, expired) = dropped_and_expired(list.queue.totals());
        let is_work = list.is_work();
        let counted = std::mem::replace(&mut list.counted, (dropped, expired));
        let dropped = (dropped - counted.0) as usize;
        match is_work {
            true => self.counters.dropped_given_way.add(dropped),
            false => self.counters.dropped_group.add(dropped),
        }
        let expired = (expired - counted.1) as usize;
        self.counters.dropped_expired.add(expired);
        while let Some(letter) = list.queue.poll_dead() {
            // It gave up its own room just now.
            let reserved = list.queue.reserve_free(letter.message.cost_bytes()).is_ok();
            list.aside.push_back((letter, reserved));
        }
        while let Some(finished) = list.queue.poll_finished() {
            self.note_receipt(&list, &finished, effects, now);
        }
        // One at a time: who finds room left calls the next by putting in.
        while let Some(&((waiter, number), cost_bytes)) = list.waiters.front()
            && list.queue.has_room(cost_bytes)
        {
            list.waiters.pop_front();
            let session = self.sessions.lock(waiter.0);
            let session = session.filter(|session| session.is_link(number));
            if session.is_some_and(|mut session| session.retry(effects)) {
                break;
            }
        }
        let sequence = list.queue.next_sequence();
        self.store_list(&mut list, effects, sequence);
        if let Some(due) = list.queue.next_timeout()
            && due < list.alarm
        {
            list.alarm = self.schedule(now, due, Timer::Queue(id));
        }
        if !list.aside.is_empty() && list.aside_due <= now {
            let letters = std::mem::take(&mut list.aside);
            let name = list.queue_name().map(Arc::<str>::from);
            let kept_in = list.queue.kept_in();
            // As safe as it was, whatever was asked for then.
            let durability = kept_in.map_or(Durability::Memory, |(_, durability)| {
                durability.max(Durability::Flushed)
            });
            drop(list);
            self.bury(effects, (id, durability), name, letters, now);
        }
    }

    /// Hands in what has to be stored of a list, before it is let go; jobs from
    /// `sequence` on are new.
    fn store_list(&self, list: &mut List, effects: &mut Effects, sequence: u64) {
        if let Some(journal) = list.queue.journal() {
            effects.journal.append(journal);
        }
        if effects.journal.is_empty() {
            return;
        }
        let receipt = self.store.append(&mut effects.journal);
        effects.receipt = effects.receipt.and(receipt);
        list.forget_receipts(&self.store);
        let same = |(_, last): &(u64, Receipt)| *last == receipt;
        if list.queue.next_sequence() > sequence && !list.receipts.back().is_some_and(same) {
            list.receipts.push_back((sequence, receipt));
        }
    }

    /// Jobs that are not in memory, if the queue wants some now; whether any
    /// came.
    fn read_jobs(&self, list: &mut List, id: QueueId, effects: &mut Effects, now: Time) -> bool {
        let Some(wanted) = list.queue.wants_jobs() else {
            return false;
        };
        // Asked before: what is stored from now on may be missed by the reading.
        let last = list.receipts.back().map(|(_, receipt)| *receipt);
        let is_all_stored = last.is_none_or(|receipt| self.store.has(receipt));
        let rows = (self.store).read(wanted.list, wanted.from, wanted.rows_max, READ_BYTES_MAX);
        let rows = match rows {
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!(queue = ?list.name, %error, "jobs could not be read; they are tried again");
                self.timers
                    .schedule(now + READ_FAILED_AFTER, Timer::Queue(id));
                return false;
            }
        };
        for row in &rows {
            if let Some((key, ..)) = self.load_job(list, wanted.list, (row, false), now) {
                // Its holder was not told of it at the start, and may have it.
                list.queue.restore_lease(key, None, now);
            }
        }
        let is_settled = is_all_stored && self.store.failure().is_none();
        let missing = list.queue.looked(wanted, rows.len(), is_settled);
        self.lost_damaged(&list.name, missing);
        let sequence = list.queue.next_sequence();
        self.store_list(list, effects, sequence);
        let has_more = list.queue.wants_jobs() != Some(wanted);
        if !has_more && !is_settled {
            // What was put in last. One timer for all that comes meanwhile.
            let due = now + READ_AGAIN_AFTER;
            if due < list.alarm {
                list.alarm = self.schedule(now, due, Timer::Queue(id));
            }
        }
        has_more
    }

    /// A job that was read. One that a member has at QoS 2 comes back: its key,
    /// its holder, and under which id. `delayed`: a start finds that it was put
    /// in with a delay.
    pub(super) fn load_job(
        &self,
        list: &mut List,
        stored_in: ListId,
        (row, delayed): (&Row, bool),
        now: Time,
    ) -> Option<HeldJob> {
        let Some(job) = stored_job(row) else {
            if !delayed {
                list.queue.lose(stored_in, row.row);
            }
            self.lost_damaged(&list.name, 1);
            return None;
        };
        let (record, message) = (job.record, job.message.clone());
        let ask = list.ask(&Publication::of(&message, now), now);
        let key = match delayed {
            true => list.queue.restore_delayed(stored_in, job, &ask, now)?,
            false => list.queue.load(stored_in, job, &ask, now)?,
        };
        match record.fate {
            Fate::Held(session, packet_id) => {
                Some((key, session, packet_id, message.clone(), record.deliveries))
            }
            _ => None,
        }
    }

    /// Jobs that members have at QoS 2 behind those that are read, as far as a
    /// start looks.
    pub(super) fn load_held_jobs(&self, list: &mut List, held: &mut Vec<HeldJob>, now: Time) {
        for (stored_in, mut from) in list.queue.unread_from() {
            let (mut rows_left, mut bytes_left) = (HELD_ROWS_MAX, HELD_BYTES_MAX);
            while rows_left > 0 && bytes_left > 0 {
                let rows_max = rows_left.min(HELD_PAGE);
                let rows = self.store.read(stored_in, from, rows_max, READ_BYTES_MAX);
                // Who reads on says what is wrong with the disk.
                let Some(rows) = rows.ok().filter(|rows| !rows.is_empty()) else {
                    break;
                };
                for row in &rows {
                    from = row.row + 1;
                    rows_left -= 1;
                    bytes_left = bytes_left.saturating_sub(row.body.len() + 1);
                    let record = JobRecord::decode(&row.about);
                    let Some(Fate::Held(session, packet_id)) = record.map(|record| record.fate)
                    else {
                        continue;
                    };
                    let Some(job) = stored_job(row) else { continue };
                    let (message, deliveries) = (job.message.clone(), job.record.deliveries);
                    let ask = list.ask(&Publication::of(&message, now), now);
                    if let Some(key) = list.queue.load_held(stored_in, job, &ask) {
                        held.push((key, session, packet_id, message.clone(), deliveries));
                    }
                }
            }
        }
    }

    /// Messages that were damaged on disk are lost, and that is said.
    pub(super) fn lost_damaged(&self, whose: &str, count: usize) {
        if count > 0 {
            self.counters.lost_damaged.add(count);
            tracing::error!(
                whose,
                count,
                "stored messages could not be read: they are lost"
            );
        }
    }

    /// Whether this receiver would store the message.
    pub(super) fn stores(&self, receiver: Receiver, publication: &Publication<'_>) -> bool {
        let (list, fleeting) = match receiver {
            Receiver::Queue(list) => (list, false),
            Receiver::Group(list) => (list, publication.qos == Qos::AtMostOnce),
            Receiver::Session(_) => return false,
        };
        let list = self.lists.lock(list.0);
        let kept = list.and_then(|list| list.queue.kept_in());
        kept.is_some_and(|(_, durability)| {
            !fleeting && durability.max(publication.durability) > Durability::Memory
        })
    }

    /// Turns, as long as there are jobs and members with room.
    fn give_out(&self, list: &mut List, id: QueueId, effects: &mut Effects, now: Time) {
        let name = list.name.clone();
        let queue = match list.kind {
            Kind::Work(_) => {
                let name = name.strip_prefix("$queue/").unwrap_or_default();
                Some((name, list.shows_queue_topic()))
            }
            Kind::Share => None,
            Kind::Delayed => return,
        };
        let subscribed = match queue {
            Some(_) => Subscribed::Queue(id),
            None => Subscribed::Group(id),
        };
        if queue.is_none() {
            self.hand_out_straight(list, id, effects, now);
        }
        while let Some(lease) = list.queue.poll_lease(now) {
            let (lease_id, member, sequence) = (lease.id, lease.member, lease.sequence);
            let Some(mut session) = self.sessions.lock(member.0) else {
                list.queue.refuse_lease(lease_id);
                continue;
            };
            effects.frames.begin(1);
            let publication = Publication::of(lease.message, now);
            let delivery = JobDelivery {
                qos: lease.qos,
                list: subscribed,
                lease: lease_id,
                about: queue.map(|(queue, queue_topic)| About {
                    queue,
                    queue_topic,
                    delivery: lease.deliveries,
                    enqueued_at_ms: publication.received.as_micros() / 1000,
                }),
            };
            let qos = lease.qos;
            let delivered = session.deliver_job(&publication, delivery, effects);
            let mut receipt = Receipt::NONE;
            if matches!(delivered, JobDelivered::Taken | JobDelivered::TakenLast) {
                list.queue.delivered(lease_id, &session.identity.client);
                let kept_in = session.keeping().map(|keeping| keeping.list);
                let holder = kept_in.zip(session.last_packet_id());
                list.queue.store_lease(lease_id, holder);
                // It goes out when it is stored; at QoS 0 and 2 also, to whom.
                receipt = list.receipt_of(sequence);
                if let Some(journal) = list.queue.journal() {
                    let leased = self.store.append(journal);
                    if qos != Qos::AtLeastOnce {
                        receipt = receipt.and(leased);
                    }
                }
            }
            session.stored(receipt);
            drop(session);
            match delivered {
                JobDelivered::Taken => {}
                JobDelivered::TakenLast => list.queue.pass_over(member),
                JobDelivered::NoRoom => list.queue.refuse_lease(lease_id),
                JobDelivered::TooLarge => list.queue.skip_lease(lease_id, now),
                JobDelivered::Denied => {
                    self.counters.dropped_denied.increment();
                    list.queue.skip_lease(lease_id, now);
                }
            }
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
                let effects = &mut worker.effects;
                session.weaken(packet_id, Hold::TimedOut, &mut effects.journal);
                self.store_session(&mut session, effects);
            }
            self.watch_stale(session, id, now);
        }
        self.publish_due(worker, id, now);
    }

    /// A queue that nobody configured goes when nobody used it for long.
    pub(super) fn handle_unused(&self, worker: &mut Worker, id: QueueId, now: Time) {
        let after = self.queues_settings().auto_delete_after;
        let due = match self.lists.lock(id.0) {
            Some(list) if list.given.is_some() || self.is_named(&list) => return,
            Some(mut list) if list.is_unused() => {
                list.lie_down();
                list.last_used + after
            }
            Some(_) => now + after,
            None => return,
        };
        if due > now {
            self.schedule(now, due, Timer::Unused(id));
        } else {
            let removed = self.remove_list(&mut worker.effects, id, |list| {
                list.is_unused() && list.last_used + after <= now && list.given.is_none()
            });
            if let Some((queue, messages)) = removed {
                tracing::info!(?queue, messages, "a queue that nobody used is deleted");
            }
        }
    }
}

/// A job's key in its queue, the stored session that has it at QoS 2, and how.
pub(super) type HeldJob = (u32, ListId, PacketId, Arc<Message>, u32);

/// A job as its row has it; `None`: the row is none of a job's.
fn stored_job(row: &Row) -> Option<StoredJob<'_>> {
    Some(StoredJob {
        sequence: row.row,
        message: Arc::new(Message::decode_stored(&row.body)?),
        stored: Stored::row(row.shared > 0),
        record: JobRecord::decode(&row.about)?,
    })
}
