//! What a queue should do, as plainly as it can be said: lists, and looking
//! through all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rotamq::config::{Dispatch, Overflow, Undecided};
use rotamq::message::{LeaseId, Qos, SessionId, Time};
use rotamq::queue::{
    Ask, Counts, DeadReason, Full, Membership, Outcome, Queue, Rules, Settings, Totals,
};

pub struct Model {
    pub settings: Settings,
    /// Not settled, oldest first.
    pub jobs: Vec<Job>,
    /// With those that left and still hold something.
    pub members: Vec<Member>,
    /// Who has room, by number of member, the next one first.
    rota: Vec<usize>,
    /// Who is connected, the longest-standing first.
    standing: Vec<usize>,
    /// Who gets no turns until its hands are empty, for a job that goes alone.
    draining: Option<usize>,
    /// Who had a group's last job.
    had: BTreeMap<&'static str, usize>,
    /// Of a fair queue, by priority: groups that have something ready, the
    /// next one first.
    rings: BTreeMap<u8, Vec<Option<&'static str>>>,
    /// What is in members' hands, in the order of delivery.
    pub leases: Vec<Lease>,
    /// Every lease there ever was: which member and which job.
    pub given: Vec<Given>,
    /// Those before were another run's.
    pub given_before: usize,
    /// Costs that are reserved.
    pub reserved: Vec<usize>,
    pub is_paused: bool,
    /// What became of those that are settled.
    pub fates: BTreeMap<u64, Fate>,
    /// Since they were looked at last, in no order.
    pub dead: Vec<Letter>,
    pub finished: Vec<Receipt>,
    pub totals: Totals,
    members_ever: usize,
    /// How long a job rests by itself after its so many-eth failure.
    rest: Rest,
}

/// Of a session that had unsubscribed before the broker started anew.
const MEMBERSHIP_OF_WHO_LEFT: Membership = Membership {
    qos: Qos::ExactlyOnce,
    prefetch: None,
    ack_timeout: None,
};

/// By the queue's choice, which the model takes if it is within the bounds.
pub type Rest = fn(&Settings, u64, u32) -> Duration;

/// What is asked for a job.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub qos: Qos,
    pub received: Time,
    pub expires: Time,
    pub priority: u8,
    pub group: Option<&'static str>,
    pub key: Option<&'static str>,
    pub due: Time,
    pub receipt: bool,
    /// Whether it outlives the broker.
    pub is_stored: bool,
}

impl Asked {
    pub fn ask(&self) -> Ask<'static> {
        Ask {
            priority: self.priority,
            group: self.group,
            key: self.key,
            due: self.due,
            receipt: self.receipt,
        }
    }
}

pub struct Job {
    pub number: u64,
    pub asked: Asked,
    cost: usize,
    place: Place,
    /// On disk only until it is due: it is not looked at before.
    is_away: bool,
    was_delayed: bool,
    /// The last time it was given, in `given`.
    last: Option<usize>,
    deliveries: u32,
    failures: u32,
    /// How often it was lost with its member's connection.
    losses: u32,
    /// The last words about it.
    said: &'static str,
    /// As the queue numbers it; known once it was given.
    sequence: u64,
}

impl Job {
    /// It was lost with its member's connection more than once.
    fn goes_alone(&self) -> bool {
        self.losses >= 2
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// On its way to one.
    Nowhere,
    Ready,
    /// Another one of its group is out.
    Behind,
    /// By its own wish; not in its group yet.
    Delayed(Time),
    /// After a failure; it holds its group.
    Resting(Time),
    Leased,
}

pub struct Member {
    number: usize,
    pub session: SessionId,
    membership: Membership,
    presence: Presence,
    passed_over: bool,
    /// Pauses since it last did a job.
    pauses: u32,
    /// Time-outs since then, or since the last pause for them.
    timeouts: u32,
    rests_until: Option<Time>,
}

#[derive(Clone, Copy, PartialEq)]
enum Presence {
    Connected,
    Absent,
    Left,
}

pub struct Lease {
    given: usize,
    /// The job's `last` before it.
    before: Option<usize>,
    job: u64,
    member: usize,
    qos: Qos,
    delivered: Time,
    /// When its member last settled one that it got before this one.
    restarted: Time,
    /// When it was extended, and until when.
    extension: Option<(Time, Time)>,
}

pub struct Given {
    pub id: LeaseId,
    member: usize,
    job: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Done,
    Dead,
    Dropped,
    Discarded,
    Expired,
    Replaced,
    /// Not stored, and gone with the broker.
    Forgotten,
}

/// A dead letter: the job, why, how often it was delivered, and what was said
/// of it.
pub type Letter = (u64, DeadReason, u32, &'static str);

/// How a job ended whose producer wants to know.
pub type Receipt = (u64, Outcome, u32, &'static str);

/// A turn: the member's session, the job, the QoS, and the how many-eth
/// delivery of it.
#[derive(Debug, PartialEq)]
pub struct Turn {
    pub session: SessionId,
    pub job: u64,
    pub qos: Qos,
    pub deliveries: u32,
}

/// What a member says about a lease.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Say {
    Done,
    Fail {
        delay: Option<Duration>,
        said: &'static str,
    },
    Busy,
    Reject {
        said: &'static str,
    },
    Extend(Option<Duration>),
}

/// Why a member's connection is over, or why its jobs come back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Why {
    Left,
    Lost,
    Taken,
}

/// How a job fails.
#[derive(Clone, Copy, PartialEq)]
enum Failure {
    Said(Option<Duration>),
    Late,
    Lost,
}

impl Model {
    pub fn new(settings: Settings, rest: Rest) -> Model {
        Model {
            settings,
            jobs: Vec::new(),
            members: Vec::new(),
            rota: Vec::new(),
            standing: Vec::new(),
            draining: None,
            had: BTreeMap::new(),
            rings: BTreeMap::new(),
            leases: Vec::new(),
            given: Vec::new(),
            given_before: 0,
            reserved: Vec::new(),
            is_paused: false,
            fates: BTreeMap::new(),
            dead: Vec::new(),
            finished: Vec::new(),
            totals: Totals::default(),
            members_ever: 0,
            rest,
        }
    }

    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
        self.refresh();
    }

    fn is_work(&self) -> bool {
        self.settings.rules == Rules::Work
    }

    // ---- putting in

    fn bytes(&self) -> usize {
        let costs = self.jobs.iter().map(|job| &job.cost);
        costs
            .chain(&self.reserved)
            .map(|cost| cost + Queue::JOB_BYTES)
            .sum()
    }

    fn room(&self, cost: usize) -> Result<(), Full> {
        if self.jobs.len() + self.reserved.len() >= self.settings.messages_max {
            return Err(Full::Messages);
        }
        if self.bytes() + cost + Queue::JOB_BYTES > self.settings.bytes_max {
            return Err(Full::Bytes);
        }
        Ok(())
    }

    pub fn reserve(&mut self, cost: usize) -> Result<(), Full> {
        let overflow = self.settings.overflow;
        if overflow != Overflow::Reject && cost + Queue::JOB_BYTES > self.settings.bytes_max {
            return Err(Full::Bytes);
        }
        while overflow != Overflow::Reject
            && self.room(cost).is_err()
            && let Some(number) = self.first_to_go()
        {
            match overflow {
                Overflow::DeadLetterOldest => self.bury(number, DeadReason::Overflow),
                _ => self.finish(number, Fate::Dropped),
            }
        }
        self.room(cost)?;
        self.reserved.push(cost);
        Ok(())
    }

    /// What goes first when there is no room.
    fn first_to_go(&self) -> Option<u64> {
        let order = |place: Place| match place {
            Place::Ready => Some(0),
            Place::Behind => Some(1),
            Place::Delayed(_) | Place::Resting(_) => Some(2),
            Place::Leased | Place::Nowhere => None,
        };
        let jobs = self.jobs.iter();
        let waiting = jobs.filter(|job| !job.is_away).filter_map(|job| {
            let order = order(job.place)?;
            Some((job.asked.priority, order, job.number))
        });
        waiting.min().map(|(.., number)| number)
    }

    /// Of the last reservation.
    pub fn enqueue_reserved(&mut self, number: u64, asked: Asked, now: Time) {
        let cost = self.reserved.pop().expect("a reservation");
        self.totals.enqueued += 1;
        self.jobs.push(Job {
            number,
            asked,
            cost,
            place: Place::Nowhere,
            is_away: false,
            was_delayed: asked.due > now,
            last: None,
            deliveries: 0,
            failures: 0,
            losses: 0,
            said: "",
            sequence: 0,
        });
        match asked.due > now {
            true => self.job_mut(number).place = Place::Delayed(asked.due),
            false => self.step_in(number),
        }
        self.keep_newest(number);
    }

    /// None, if it is no last-value queue.
    fn waiting_with(&self, key: &str) -> Vec<u64> {
        let waiting = self.jobs.iter().filter(|job| job.place.is_waiting());
        let waiting = waiting.filter(|job| self.settings.last_value && !job.is_away);
        let same = waiting.filter(|job| job.asked.key == Some(key));
        same.map(|job| job.number).collect()
    }

    // ---- groups

    /// Of a queue where groups have an order.
    fn group_of(&self, number: u64) -> Option<&'static str> {
        let group = self.job(number)?.asked.group;
        group.filter(|_| !self.settings.fair)
    }

    /// A job that is in no place, and in no hands, is ready, or waits behind
    /// its group.
    fn step_in(&mut self, number: u64) {
        let group = self.group_of(number);
        let is_out = |job: &&Job| {
            job.number != number
                && job.asked.group == group
                && matches!(job.place, Place::Ready | Place::Resting(_) | Place::Leased)
        };
        let waits = group.is_some() && self.jobs.iter().any(|job| is_out(&job));
        match waits {
            true => self.job_mut(number).place = Place::Behind,
            false => self.make_ready(number),
        }
    }

    fn make_ready(&mut self, number: u64) {
        self.job_mut(number).place = Place::Ready;
        self.refresh_rings();
    }

    /// None of the group is out any longer: the next one steps out.
    fn step_out(&mut self, group: &'static str) {
        let behind = |job: &&Job| job.place == Place::Behind && job.asked.group == Some(group);
        if let Some(next) = self.jobs.iter().find(behind) {
            self.make_ready(next.number);
        }
    }

    /// Which groups have turns one after the other.
    fn refresh_rings(&mut self) {
        if !self.settings.fair {
            return;
        }
        let ready = self.jobs.iter().filter(|job| job.place == Place::Ready);
        let ready: Vec<_> = ready
            .filter(|job| !job.goes_alone())
            .map(|job| (job.asked.priority, job.asked.group))
            .collect();
        for (priority, ring) in &mut self.rings {
            ring.retain(|group| ready.contains(&(*priority, *group)));
        }
        for (priority, group) in ready {
            let ring = self.rings.entry(priority).or_default();
            if !ring.contains(&group) {
                ring.push(group);
            }
        }
    }

    /// What is ready, in the order in which it has its turn. What goes alone
    /// stands outside the rounds of groups, at its age.
    fn in_order(&self) -> Vec<u64> {
        let turn = |job: &Job| {
            let ring = self.rings.get(&job.asked.priority)?;
            ring.iter().position(|&group| group == job.asked.group)
        };
        let rank = |job: &Job| (9 - job.asked.priority, job.number);
        let ready = self.jobs.iter().filter(|job| job.place == Place::Ready);
        let (mut alone, mut others): (Vec<&Job>, Vec<&Job>) =
            ready.partition(|job| job.goes_alone());
        alone.sort_by_key(|job| rank(job));
        others.sort_by_key(|job| (9 - job.asked.priority, turn(job), job.number));
        let (mut alone, mut others) = (alone.into_iter().peekable(), others.into_iter().peekable());
        let mut order = Vec::new();
        loop {
            let next = match (alone.peek(), others.peek()) {
                (Some(one), Some(other)) if rank(one) > rank(other) => others.next(),
                (Some(_), _) => alone.next(),
                (None, _) => others.next(),
            };
            match next {
                Some(job) => order.push(job.number),
                None => return order,
            }
        }
    }

    // ---- members

    fn find(&mut self, session: SessionId) -> Option<&mut Member> {
        let mut members = self.members.iter_mut();
        members.find(|member| member.session == session)
    }

    fn member(&mut self, number: usize) -> Option<&mut Member> {
        let mut members = self.members.iter_mut();
        members.find(|member| member.number == number)
    }

    pub fn join(&mut self, session: SessionId, membership: Membership) {
        if self.find(session).is_none() {
            self.add_member(session, membership);
        }
        let member = self.find(session).expect("just seen");
        member.membership = membership;
        if member.presence != Presence::Connected {
            self.connect(session);
        }
        self.refresh();
    }

    /// One that is not here yet, or for what it holds only.
    fn add_member(&mut self, session: SessionId, membership: Membership) -> usize {
        let number = self.members_ever;
        self.members_ever += 1;
        self.members.push(Member {
            number,
            session,
            membership,
            presence: Presence::Left,
            passed_over: false,
            pauses: 0,
            timeouts: 0,
            rests_until: None,
        });
        number
    }

    pub fn attach(&mut self, session: SessionId) {
        if let Some(member) = self.find(session)
            && member.presence == Presence::Absent
        {
            self.connect(session);
            self.refresh();
        }
    }

    fn connect(&mut self, session: SessionId) {
        let member = self.find(session).expect("a member");
        member.presence = Presence::Connected;
        member.passed_over = false;
        let number = member.number;
        self.standing.push(number);
    }

    pub fn detach(&mut self, session: SessionId, why: Why, now: Time) {
        let Some(member) = self.find(session) else {
            return;
        };
        let number = member.number;
        if member.presence == Presence::Connected {
            member.presence = Presence::Absent;
        }
        self.standing.retain(|&other| other != number);
        self.take_back(number, false, why, now);
        self.refresh();
    }

    pub fn leave(&mut self, session: SessionId) {
        if let Some(member) = self.find(session) {
            member.presence = Presence::Left;
            let number = member.number;
            self.standing.retain(|&other| other != number);
        }
        self.refresh();
    }

    pub fn remove(&mut self, session: SessionId, why: Why, now: Time) {
        let Some(member) = self.find(session) else {
            return;
        };
        let number = member.number;
        self.leave(session);
        self.take_back(number, true, why, now);
        self.refresh();
    }

    fn take_back(&mut self, member: usize, session_ended: bool, why: Why, now: Time) {
        let held = self.leases.iter().filter(|lease| lease.member == member);
        let held: Vec<(usize, Qos)> = held.map(|lease| (lease.given, lease.qos)).collect();
        for (given, qos) in held {
            match (qos, session_ended) {
                (Qos::ExactlyOnce, true) => self.undecided(given),
                (Qos::ExactlyOnce, false) => {}
                _ if why == Why::Lost => self.fail(given, Failure::Lost, now),
                _ => self.back(given),
            }
        }
    }

    fn held_by(&self, member: usize) -> usize {
        let leases = self.leases.iter();
        leases.filter(|lease| lease.member == member).count()
    }

    pub fn pass_over(&mut self, session: SessionId, value: bool) {
        if let Some(member) = self.find(session) {
            member.passed_over = value;
        }
        self.refresh();
    }

    // ---- turns

    /// What is in no member's hands goes when its time has passed.
    pub fn expire(&mut self, now: Time) {
        let first = |model: &Model| {
            let mut waiting = model.jobs.iter().filter(|job| job.place.is_waiting());
            let expired = waiting.find(|job| model.expires(job) < now);
            expired.map(|job| job.number)
        };
        while let Some(number) = first(self) {
            match self.settings.dead_letter_expired && self.is_work() {
                true => self.bury(number, DeadReason::Expired),
                false => self.finish(number, Fate::Expired),
            }
        }
    }

    /// The last moment at which it may be given.
    fn expires(&self, job: &Job) -> Time {
        if job.is_away {
            return Time::MAX;
        }
        let ttl = self.settings.ttl.filter(|_| self.is_work());
        let by_ttl = ttl.map(|ttl| job.asked.received + ttl);
        by_ttl.into_iter().chain([job.asked.expires]).min().unwrap()
    }

    fn goes_alone(&self, number: u64) -> bool {
        self.job(number).is_some_and(Job::goes_alone)
    }

    /// Whose turn it is, and what the member gets.
    pub fn turn(&mut self) -> Option<Turn> {
        if self.is_paused {
            return None;
        }
        let ready = self.in_order();
        if !ready.iter().any(|&number| self.goes_alone(number)) {
            self.draining = None;
            self.refresh();
        }
        for job in ready {
            let mut candidates = self.candidates();
            if self.goes_alone(job) {
                candidates.retain(|&member| self.held_by(member) == 0);
                if candidates.is_empty() {
                    let drains = self.candidates().first().copied();
                    self.draining = self.draining.or(drains);
                    self.refresh();
                    continue;
                }
            }
            let member = self.choose(job, &candidates)?;
            if self.goes_alone(job) {
                self.draining = None;
                self.refresh();
            }
            return self.turn_of(member, job);
        }
        None
    }

    /// Who may have the turn, the next one first.
    fn candidates(&self) -> Vec<usize> {
        if self.settings.exclusive {
            let first = self.standing.first().copied();
            let first = first.filter(|number| self.rota.contains(number));
            return first.into_iter().collect();
        }
        let mut candidates = self.rota.clone();
        if self.settings.dispatch == Dispatch::LeastInflight {
            candidates.sort_by_key(|&member| self.held_by(member));
        }
        candidates
    }

    fn choose(&self, job: u64, candidates: &[usize]) -> Option<usize> {
        let last = self.job(job)?.last.map(|last| self.given[last].member);
        let others = candidates.iter().copied();
        let mut others: Vec<usize> = others.filter(|&other| last != Some(other)).collect();
        if others.is_empty() {
            others = candidates.to_vec();
        }
        let group = self.group_of(job);
        let had = group.and_then(|group| self.had.get(group));
        let had = had.filter(|_| !self.goes_alone(job));
        let sticky = had.filter(|had| others.contains(had));
        sticky.or(others.first()).copied()
    }

    fn turn_of(&self, number: usize, job: u64) -> Option<Turn> {
        let member = self.members.iter().find(|member| member.number == number)?;
        let job = self.job(job)?;
        let granted = member.membership.qos;
        Some(Turn {
            session: member.session,
            job: job.number,
            qos: match self.settings.rules {
                Rules::Work => granted,
                Rules::Share => granted.min(job.asked.qos),
            },
            deliveries: job.deliveries + 1,
        })
    }

    /// The turn was taken, of a job that the queue knows by this sequence.
    pub fn take(&mut self, turn: &Turn, id: LeaseId, sequence: u64, now: Time) {
        let member = self.find(turn.session).expect("a member").number;
        let job = self.job_mut(turn.job);
        job.deliveries += 1;
        job.sequence = sequence;
        let (priority, group) = (job.asked.priority, job.asked.group);
        self.give(turn.job, id, member, turn.qos, now);
        self.totals.delivered += 1;
        self.totals.redelivered += u64::from(turn.deliveries > 1);
        match group {
            _ if self.goes_alone(turn.job) && self.settings.fair => {}
            _ if self.settings.fair => {
                if let Some(ring) = self.rings.get_mut(&priority) {
                    ring.retain(|&other| other != group);
                }
                self.refresh_rings();
            }
            Some(group) => drop(self.had.insert(group, member)),
            None => {}
        }
        self.rota.retain(|&other| other != member);
        self.refresh();
    }

    fn give(&mut self, number: u64, id: LeaseId, member: usize, qos: Qos, now: Time) {
        let given = self.given.len();
        let job = number;
        self.given.push(Given { id, member, job });
        let job = self.job_mut(number);
        job.place = Place::Leased;
        let before = job.last.replace(given);
        self.leases.push(Lease {
            given,
            before,
            job: number,
            member,
            qos,
            delivered: now,
            restarted: Time::ZERO,
            extension: None,
        });
    }

    /// Nobody has a turn: what was published at QoS 0 to a share group waits
    /// for no one.
    pub fn no_turn(&mut self) {
        if !self.candidates().is_empty() || self.is_work() {
            return;
        }
        let fleeting = |job: &&Job| job.place == Place::Ready && job.asked.qos == Qos::AtMostOnce;
        while let Some(number) = self.jobs.iter().find(fleeting).map(|job| job.number) {
            self.finish(number, Fate::Dropped);
        }
    }

    pub fn refuse_lease(&mut self, given: usize) {
        let Some(lease) = self.lease(given) else {
            return;
        };
        let (number, member, before) = (lease.job, lease.member, lease.before);
        self.member(member).expect("it holds something").passed_over = true;
        let job = self.job_mut(number);
        job.last = before;
        job.deliveries -= 1;
        let again = job.deliveries > 0;
        self.totals.delivered -= 1;
        self.totals.redelivered -= u64::from(again);
        self.back(given);
    }

    pub fn release(&mut self, given: usize) {
        if self.lease(given).is_some() {
            self.back(given);
        }
    }

    // ---- what becomes of jobs

    pub fn settle(&mut self, given: usize, say: Say, now: Time) -> bool {
        let current = self.lease(given).is_some();
        if let Say::Extend(span) = say {
            self.extend(given, span, now);
            return current;
        }
        let member = self.given[given].member;
        let number = self.given[given].job;
        for lease in &mut self.leases {
            if lease.member == member && lease.given > given {
                lease.restarted = now;
            }
        }
        match say {
            Say::Done => {
                let counts = self.job(number).is_some_and(|job| job.last == Some(given));
                if counts {
                    if let Some(member) = self.member(member) {
                        member.pauses = 0;
                        member.timeouts = 0;
                        member.rests_until = None;
                    }
                    self.finish(number, Fate::Done);
                }
                return counts;
            }
            Say::Fail { delay, said } if current => {
                self.totals.refused += 1;
                self.say(number, said);
                self.fail(given, Failure::Said(delay), now);
            }
            Say::Busy if current => {
                self.totals.busy += 1;
                self.pause_member(member, now);
                self.back(given);
            }
            Say::Reject { said } if current => {
                self.say(number, said);
                self.bury(number, DeadReason::Rejected);
            }
            _ => {}
        }
        current
    }

    fn say(&mut self, number: u64, said: &'static str) {
        if !said.is_empty() {
            self.job_mut(number).said = said;
        }
    }

    /// The member gets no turns for a while.
    fn pause_member(&mut self, number: usize, now: Time) {
        if !self.is_work() {
            return;
        }
        let member = self.member(number).expect("it holds something");
        member.pauses += 1;
        member.timeouts = 0;
        let seconds = 1 << (member.pauses - 1).min(6);
        member.rests_until = Some(now + Duration::from_secs(seconds));
        self.refresh();
    }

    /// A lease comes to a bad end, which counts.
    fn fail(&mut self, given: usize, failure: Failure, now: Time) {
        let number = self.given[given].job;
        if !self.is_work() {
            self.back(given);
            if let Failure::Said(Some(delay)) = failure {
                self.rest(number, delay, now);
            }
            return;
        }
        let job = self.job_mut(number);
        job.failures += 1;
        job.losses += u32::from(failure == Failure::Lost);
        let (failures, losses, sequence) = (job.failures, job.losses, job.sequence);
        if failures >= self.settings.deliveries_max {
            self.bury(number, DeadReason::MaxDeliveries);
            return;
        }
        let rest = match failure {
            Failure::Said(Some(delay)) => delay,
            Failure::Lost if losses == 1 => Duration::ZERO,
            _ => {
                let rest = (self.rest)(&self.settings, sequence, failures);
                self.check_rest(rest, failures);
                rest
            }
        };
        self.back(given);
        self.rest(number, rest, now);
    }

    /// Between half and all of what doubles with each failure.
    fn check_rest(&self, rest: Duration, failures: u32) {
        let Settings {
            backoff_min: min,
            backoff_max: max,
            ..
        } = self.settings;
        let doubled = (1..failures).fold(min, |span, _| span.saturating_mul(2).min(max));
        let most = doubled.min(max);
        // Times have whole microseconds.
        let least = (most / 2).saturating_sub(Duration::from_micros(1));
        assert!(
            least <= rest && rest <= most,
            "after {failures} failures it rests {rest:?}, not {least:?} to {most:?}"
        );
    }

    /// A job that has just come back is not ready for a while.
    fn rest(&mut self, number: u64, span: Duration, now: Time) {
        // It may have been replaced.
        if !span.is_zero() && self.job(number).is_some() {
            self.job_mut(number).place = Place::Resting(now + span);
            self.refresh_rings();
        }
    }

    /// Nobody will say whether the job was done.
    fn undecided(&mut self, given: usize) {
        let number = self.given[given].job;
        match (self.settings.rules, self.settings.undecided) {
            (Rules::Work, Undecided::Redeliver) => self.back(given),
            // Under share rules discarded.
            _ => self.bury(number, DeadReason::Undecided),
        }
    }

    fn extend(&mut self, given: usize, span: Option<Duration>, now: Time) {
        let Some(lease) = self.lease(given) else {
            return;
        };
        if let Some(usual) = self.span(lease) {
            let until = now + span.unwrap_or(usual);
            let mut leases = self.leases.iter_mut();
            let lease = leases.find(|lease| lease.given == given);
            lease.expect("just seen").extension = Some((now, until));
        }
    }

    fn span(&self, lease: &Lease) -> Option<Duration> {
        let mut members = self.members.iter();
        let member = members.find(|member| member.number == lease.member);
        let membership = member.expect("it holds something").membership;
        match (self.settings.rules, lease.qos) {
            (Rules::Share, _) | (_, Qos::AtMostOnce) => None,
            (_, Qos::AtLeastOnce) => membership.ack_timeout.or(self.settings.ack_timeout),
            (_, Qos::ExactlyOnce) => Some(self.settings.undecided_after),
        }
    }

    fn deadline(&self, lease: &Lease) -> Option<Time> {
        let span = self.span(lease);
        let restarts = lease.qos == Qos::AtLeastOnce;
        match (lease.extension, span) {
            (Some((at, until)), Some(span)) if restarts && lease.restarted > at => {
                Some(until.max(lease.restarted + span))
            }
            (Some((_, until)), _) => Some(until),
            (None, Some(span)) if restarts => Some(lease.delivered.max(lease.restarted) + span),
            (None, span) => span.map(|span| lease.delivered + span),
        }
    }

    // ---- time

    /// When the next thing happens by itself.
    pub fn next_timeout(&self) -> Option<Time> {
        let leases = self.leases.iter().filter_map(|lease| self.deadline(lease));
        let delays = self.jobs.iter().filter_map(|job| job.place.until());
        let rests = self.members.iter().filter_map(|member| member.rests_until);
        let waiting = self.jobs.iter().filter(|job| job.place.is_waiting());
        let expiries = waiting.map(|job| self.expires(job));
        let expiries = expiries.filter(|&expires| expires < Time::MAX);
        let expiries = expiries.map(|expires| expires + Duration::from_micros(1));
        leases.chain(delays).chain(rests).chain(expiries).min()
    }

    /// The leases that have ended, in the order of delivery.
    pub fn due(&self, now: Time) -> Vec<usize> {
        let leases = self.leases.iter();
        let due = leases.filter(|lease| self.deadline(lease).is_some_and(|at| at <= now));
        due.map(|lease| lease.given).collect()
    }

    /// `due` in any order: which of several that end at once is first is
    /// promised to nobody.
    pub fn handle_timeout(&mut self, now: Time, due: &[usize]) {
        let next = |model: &Model| {
            let jobs = model.jobs.iter();
            let over = jobs.filter_map(|job| Some((job.place.until()?, job.number)));
            over.filter(|&(at, _)| at <= now).min()
        };
        while let Some((_, number)) = next(self) {
            match self.job_mut(number).place {
                Place::Delayed(_) => {
                    self.job_mut(number).place = Place::Nowhere;
                    self.step_in(number);
                }
                _ => self.make_ready(number),
            }
            self.job_mut(number).is_away = false;
            self.keep_newest(number);
        }
        for member in &mut self.members {
            member.rests_until = member.rests_until.filter(|&at| at > now);
        }
        self.refresh();
        for &given in due {
            self.totals.timed_out += 1;
            match self.lease(given).expect("due").qos {
                Qos::ExactlyOnce => self.undecided(given),
                _ => self.time_out(given, now),
            }
        }
        self.expire(now);
    }

    fn time_out(&mut self, given: usize, now: Time) {
        let number = self.given[given].member;
        let member = self.member(number).expect("it holds something");
        member.timeouts += 1;
        if member.timeouts == 3 {
            self.pause_member(number, now);
        }
        self.fail(given, Failure::Late, now);
    }

    // ---- the broker starts anew

    /// What is stored is there again. The survivors are absent members now;
    /// `restored` are the jobs that they have in hand at QoS 2 by new leases.
    pub fn restart(
        &mut self,
        survivors: &[(SessionId, Membership)],
        restored: &[(u64, SessionId, LeaseId)],
        now: Time,
    ) {
        let hands = std::mem::take(&mut self.leases);
        self.members.clear();
        self.rota.clear();
        self.standing.clear();
        self.draining = None;
        self.had.clear();
        self.reserved.clear();
        self.is_paused = false;
        self.given_before = self.given.len();
        for job in self.jobs.extract_if(.., |job| !job.asked.is_stored) {
            self.fates.insert(job.number, Fate::Forgotten);
        }
        self.totals = Totals::default();
        self.totals.enqueued = self.jobs.len() as u64;
        for &(session, membership) in survivors {
            self.join(session, membership);
            self.detach(session, Why::Taken, now);
        }
        self.jobs.iter_mut().for_each(|job| job.last = None);
        for &(job, session, id) in restored {
            let member = match self.find(session) {
                Some(member) => member.number,
                None => self.add_member(session, MEMBERSHIP_OF_WHO_LEFT),
            };
            self.give(job, id, member, Qos::ExactlyOnce, now);
            if let Some(group) = self.group_of(job) {
                self.had.insert(group, member);
            }
        }
        let mut redelivered = Vec::new();
        for lease in hands {
            let is_held = restored.iter().any(|&(job, ..)| job == lease.job);
            if is_held || self.job(lease.job).is_none() {
                continue;
            }
            match lease.qos {
                Qos::AtMostOnce => self.finish(lease.job, Fate::Done),
                Qos::AtLeastOnce => self.job_mut(lease.job).place = Place::Ready,
                Qos::ExactlyOnce => {
                    self.job_mut(lease.job).place = Place::Ready;
                    self.give_up(lease.job);
                    redelivered.push(lease.job);
                }
            }
        }
        for job in &mut self.jobs {
            if job.place.until().is_some_and(|until| until <= now) {
                job.place = Place::Ready;
            }
            // In the list of what was put in with a delay.
            let holds_group = matches!(job.place, Place::Resting(_)) && job.asked.group.is_some();
            job.is_away = job.was_delayed && job.place.until().is_some() && !holds_group;
            if let Place::Resting(until) = job.place
                && job.is_away
            {
                job.place = Place::Delayed(until);
            }
        }
        redelivered.sort_unstable();
        redelivered.retain(|&number| self.job(number).is_some());
        for &number in &redelivered {
            self.job_mut(number).place = Place::Leased;
        }
        // The groups find out anew who is out.
        let waiting = |job: &&Job| matches!(job.place, Place::Ready | Place::Behind);
        let mut waiting: Vec<&Job> = self.jobs.iter().filter(waiting).collect();
        waiting.sort_by_key(|job| self.rank_at_start(job));
        let waiting: Vec<u64> = waiting.into_iter().map(|job| job.number).collect();
        for &number in &waiting {
            self.job_mut(number).place = Place::Nowhere;
        }
        self.rings.clear();
        for &number in &waiting {
            if self.job(number).is_some() {
                self.step_in(number);
                self.keep_newest(number);
            }
        }
        // They come back when all the rest is there.
        for &number in &redelivered {
            self.make_ready(number);
            self.keep_newest(number);
        }
        self.refresh();
    }

    /// In which order jobs are there again: those of a group in their order;
    /// else what was put in with a delay comes first.
    fn rank_at_start(&self, job: &Job) -> (u8, bool, u64) {
        match !self.settings.fair && job.asked.group.is_some() {
            true => (0, false, job.number),
            false => (9 - job.asked.priority, !job.was_delayed, job.number),
        }
    }

    // ---- what can be seen

    pub fn counts(&self) -> Counts {
        let count = |wanted: fn(Place) -> bool| {
            let jobs = self.jobs.iter();
            jobs.filter(|job| wanted(job.place)).count()
        };
        let oldest = self.jobs.iter().find(|job| job.place == Place::Ready);
        let members = self.members.iter();
        Counts {
            ready: count(|place| matches!(place, Place::Ready | Place::Behind)),
            in_flight: self.leases.len(),
            delayed: count(|place| place.until().is_some()),
            bytes: self.bytes(),
            members: members.filter(|m| m.presence != Presence::Left).count(),
            members_connected: self.standing.len(),
            oldest: oldest.map(|job| job.asked.received),
            totals: self.totals,
        }
    }

    /// The jobs that outlive the broker.
    pub fn stored(&self) -> BTreeSet<u64> {
        let stored = self.jobs.iter().filter(|job| job.asked.is_stored);
        stored.map(|job| job.number).collect()
    }

    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.reserved.is_empty() && self.members.is_empty()
    }

    /// A lease that is current.
    pub fn lease(&self, given: usize) -> Option<&Lease> {
        self.leases.iter().find(|lease| lease.given == given)
    }

    // ---- small things

    fn job(&self, number: u64) -> Option<&Job> {
        self.jobs.iter().find(|job| job.number == number)
    }

    fn job_mut(&mut self, number: u64) -> &mut Job {
        let mut jobs = self.jobs.iter_mut();
        jobs.find(|job| job.number == number).expect("a job")
    }

    /// The job is in its place again, and in nobody's hands.
    fn back(&mut self, given: usize) {
        let number = self.given[given].job;
        self.leases.retain(|lease| lease.given != given);
        self.refresh();
        self.make_ready(number);
        self.keep_newest(number);
    }

    /// Of those that wait with this job's key.
    fn keep_newest(&mut self, number: u64) {
        if let Some(key) = self.job(number).and_then(|job| job.asked.key) {
            self.keep_newest_of(key);
        }
    }

    /// Of those that wait with this key, if the queue is a last-value one.
    fn keep_newest_of(&mut self, key: &str) {
        let mut older = self.waiting_with(key);
        older.pop();
        for older in older {
            self.finish(older, Fate::Replaced);
        }
    }

    /// Nobody knows whether the job, which is in nobody's hands, was done.
    fn give_up(&mut self, number: u64) {
        match self.settings.undecided {
            Undecided::Redeliver => {}
            Undecided::DeadLetter => self.bury(number, DeadReason::Undecided),
        }
    }

    /// Makes it a dead letter; a share group has none.
    fn bury(&mut self, number: u64, reason: DeadReason) {
        if !self.is_work() {
            self.finish(number, Fate::Discarded);
            return;
        }
        let totals = &mut self.totals;
        *match reason {
            DeadReason::MaxDeliveries => &mut totals.max_deliveries,
            DeadReason::Rejected => &mut totals.rejected,
            DeadReason::Expired => &mut totals.dead_expired,
            DeadReason::Overflow => &mut totals.dead_overflow,
            DeadReason::Undecided => &mut totals.undecided,
        } += 1;
        let job = self.job(number).expect("a job");
        let (deliveries, said) = (job.deliveries, job.said);
        self.dead.push((number, reason, deliveries, said));
        self.end(number, Fate::Dead, Some(Outcome::Dead(reason)));
    }

    fn finish(&mut self, number: u64, fate: Fate) {
        let totals = &mut self.totals;
        let (total, outcome) = match fate {
            Fate::Done => (&mut totals.done, Some(Outcome::Done)),
            Fate::Dropped => (&mut totals.dropped, Some(Outcome::Dropped)),
            Fate::Replaced => (&mut totals.replaced, Some(Outcome::Replaced)),
            Fate::Expired => (&mut totals.expired, Some(Outcome::Expired)),
            Fate::Discarded => (&mut totals.discarded, None),
            Fate::Dead | Fate::Forgotten => unreachable!("not so"),
        };
        *total += 1;
        self.end(number, fate, outcome);
    }

    fn end(&mut self, number: u64, fate: Fate, outcome: Option<Outcome>) {
        let group = self.group_of(number);
        let at = self.jobs.iter().position(|job| job.number == number);
        let job = self.jobs.remove(at.expect("a job"));
        let before = self.fates.insert(number, fate);
        assert_eq!(before, None, "job {number} is settled twice");
        if let Some(outcome) = outcome.filter(|_| job.asked.receipt) {
            self.finished
                .push((number, outcome, job.deliveries, job.said));
        }
        self.leases.retain(|lease| lease.job != number);
        self.refresh();
        self.refresh_rings();
        if let Some(group) = group
            && matches!(job.place, Place::Ready | Place::Resting(_) | Place::Leased)
        {
            self.step_out(group);
        }
    }

    /// Who has no room goes from the rota, who got room comes to its end, and
    /// who left and holds nothing is forgotten.
    fn refresh(&mut self) {
        let held: BTreeMap<usize, usize> = self
            .members
            .iter()
            .map(|member| (member.number, self.held_by(member.number)))
            .collect();
        self.members
            .retain(|member| member.presence != Presence::Left || held[&member.number] > 0);
        self.draining = self.draining.filter(|number| {
            held.get(number).is_some_and(|&held| held > 0) && self.standing.contains(number)
        });
        let holds_alone = |number: usize| {
            let mut leases = self.leases.iter().filter(|lease| lease.member == number);
            leases.any(|lease| self.goes_alone(lease.job))
        };
        let has_room = |number: usize| {
            let mut members = self.members.iter();
            let Some(member) = members.find(|member| member.number == number) else {
                return false;
            };
            let prefetch = member.membership.prefetch;
            let prefetch = prefetch.unwrap_or(self.settings.prefetch) as usize;
            member.presence == Presence::Connected
                && !member.passed_over
                && member.rests_until.is_none()
                && self.draining != Some(number)
                && !holds_alone(number)
                && (!self.is_work() || held[&number] < prefetch)
        };
        let mut rota = self.rota.clone();
        rota.retain(|&number| has_room(number));
        for &number in self.standing.iter().filter(|&&number| has_room(number)) {
            if !rota.contains(&number) {
                rota.push(number);
            }
        }
        self.rota = rota;
    }
}

impl Place {
    /// In nobody's hands.
    fn is_waiting(self) -> bool {
        !matches!(self, Place::Nowhere | Place::Leased)
    }

    /// When it is over by itself.
    fn until(self) -> Option<Time> {
        match self {
            Place::Delayed(until) | Place::Resting(until) => Some(until),
            _ => None,
        }
    }
}
