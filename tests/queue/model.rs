//! What a queue should do, as plainly as it can be said: lists, and looking
//! through all of them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rotamq::config::Undecided;
use rotamq::message::{LeaseId, Qos, SessionId, Time};
use rotamq::queue::{
    Counts, DeadReason, Full, Membership, Queue, Rules, Settings, Settlement, Totals,
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
    /// What is in members' hands, in the order of delivery.
    pub leases: Vec<Lease>,
    /// Every lease there ever was: which member and which job.
    pub given: Vec<Given>,
    /// Costs that are reserved.
    pub reserved: Vec<usize>,
    /// What became of those that are settled.
    pub fates: BTreeMap<u64, Fate>,
    pub dead: VecDeque<(u64, DeadReason, u32)>,
    pub totals: Totals,
    members_ever: usize,
}

pub struct Job {
    pub number: u64,
    pub qos: Qos,
    expires: Time,
    cost: usize,
    place: Place,
    /// The last time it was given, in `given`.
    last: Option<usize>,
    deliveries: u32,
}

#[derive(PartialEq)]
enum Place {
    Ready,
    Delayed(Time),
    Leased,
}

pub struct Member {
    number: usize,
    pub session: SessionId,
    membership: Membership,
    presence: Presence,
    passed_over: bool,
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
}

/// A turn: the member's session, the job, the QoS, and the how many-eth
/// delivery of it.
#[derive(Debug, PartialEq)]
pub struct Turn {
    pub session: SessionId,
    pub job: u64,
    pub qos: Qos,
    pub deliveries: u32,
}

impl Model {
    pub fn new(settings: Settings) -> Model {
        Model {
            settings,
            jobs: Vec::new(),
            members: Vec::new(),
            rota: Vec::new(),
            standing: Vec::new(),
            leases: Vec::new(),
            given: Vec::new(),
            reserved: Vec::new(),
            fates: BTreeMap::new(),
            dead: VecDeque::new(),
            totals: Totals::default(),
            members_ever: 0,
        }
    }

    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
        self.refresh();
    }

    fn bytes(&self) -> usize {
        let costs = self.jobs.iter().map(|job| &job.cost);
        costs
            .chain(&self.reserved)
            .map(|cost| cost + Queue::JOB_BYTES)
            .sum()
    }

    pub fn reserve(&mut self, cost: usize) -> Result<(), Full> {
        if self.jobs.len() + self.reserved.len() >= self.settings.messages_max {
            return Err(Full::Messages);
        }
        if self.bytes() + cost + Queue::JOB_BYTES > self.settings.bytes_max {
            return Err(Full::Bytes);
        }
        self.reserved.push(cost);
        Ok(())
    }

    /// Of the last reservation.
    pub fn enqueue_reserved(&mut self, number: u64, qos: Qos, expires: Time) {
        let cost = self.reserved.pop().expect("a reservation");
        self.jobs.push(Job {
            number,
            qos,
            expires,
            cost,
            place: Place::Ready,
            last: None,
            deliveries: 0,
        });
        self.totals.enqueued += 1;
    }

    fn find(&mut self, session: SessionId) -> Option<&mut Member> {
        let mut members = self.members.iter_mut();
        members.find(|member| member.session == session)
    }

    pub fn join(&mut self, session: SessionId, membership: Membership) {
        if self.find(session).is_none() {
            self.members.push(Member {
                number: self.members_ever,
                session,
                membership,
                presence: Presence::Left,
                passed_over: false,
            });
            self.members_ever += 1;
        }
        let member = self.find(session).expect("just seen");
        member.membership = membership;
        if member.presence != Presence::Connected {
            self.connect(session);
        }
        self.refresh();
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

    pub fn detach(&mut self, session: SessionId) {
        let Some(member) = self.find(session) else {
            return;
        };
        let number = member.number;
        if member.presence == Presence::Connected {
            member.presence = Presence::Absent;
        }
        self.standing.retain(|&other| other != number);
        self.take_back(number, false);
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

    pub fn remove(&mut self, session: SessionId) {
        let Some(member) = self.find(session) else {
            return;
        };
        let number = member.number;
        self.leave(session);
        self.take_back(number, true);
        self.refresh();
    }

    fn take_back(&mut self, member: usize, session_ended: bool) {
        let held = self.leases.iter().filter(|lease| lease.member == member);
        let held: Vec<(usize, Qos)> = held.map(|lease| (lease.given, lease.qos)).collect();
        for (given, qos) in held {
            match (qos, session_ended) {
                (Qos::ExactlyOnce, true) => self.undecided(given),
                (Qos::ExactlyOnce, false) => {}
                _ => self.back(given),
            }
        }
    }

    fn undecided(&mut self, given: usize) {
        match (self.settings.rules, self.settings.undecided) {
            (Rules::Share, _) => self.end(given, Fate::Discarded),
            (Rules::Work, Undecided::Redeliver) => self.back(given),
            (Rules::Work, Undecided::DeadLetter) => {
                self.totals.undecided += 1;
                self.bury(given, DeadReason::Undecided);
            }
        }
    }

    /// What is in no member's hands goes when its time has passed.
    pub fn expire(&mut self, now: Time) {
        let expired = |job: &&Job| job.place != Place::Leased && job.expires < now;
        let expired = self.jobs.iter().filter(expired).map(|job| job.number);
        for number in expired.collect::<Vec<_>>() {
            self.totals.expired += 1;
            self.finish(number, Fate::Expired);
        }
    }

    /// Whose turn it is, and what the member gets.
    pub fn turn(&self) -> Option<Turn> {
        let job = self.jobs.iter().find(|job| job.place == Place::Ready)?;
        let mut number = self.next_member()?;
        let last = job.last.map(|last| self.given[last].member);
        if last == Some(number) && !self.settings.exclusive {
            let mut others = self.rota.iter().filter(|&&other| other != number);
            number = others.next().copied().unwrap_or(number);
        }
        let member = self.members.iter().find(|member| member.number == number)?;
        let granted = member.membership.qos;
        Some(Turn {
            session: member.session,
            job: job.number,
            qos: match self.settings.rules {
                Rules::Work => granted,
                Rules::Share => granted.min(job.qos),
            },
            deliveries: job.deliveries + 1,
        })
    }

    fn next_member(&self) -> Option<usize> {
        match self.settings.exclusive {
            false => self.rota.first().copied(),
            true => {
                let first = self.standing.first().copied();
                first.filter(|number| self.rota.contains(number))
            }
        }
    }

    /// The turn was taken.
    pub fn take(&mut self, turn: &Turn, id: LeaseId, now: Time) {
        let member = self.find(turn.session).expect("a member").number;
        let given = self.given.len();
        self.given.push(Given {
            id,
            member,
            job: turn.job,
        });
        let job = self.job(turn.job).expect("a job");
        let before = job.last.replace(given);
        job.place = Place::Leased;
        job.deliveries += 1;
        self.leases.push(Lease {
            given,
            before,
            job: turn.job,
            member,
            qos: turn.qos,
            delivered: now,
            restarted: Time::ZERO,
            extension: None,
        });
        self.totals.delivered += 1;
        self.totals.redelivered += u64::from(turn.deliveries > 1);
        self.rota.retain(|&other| other != member);
        self.refresh();
    }

    /// Nobody has a turn: what was published at QoS 0 to a share group waits
    /// for no one.
    pub fn no_turn(&mut self) {
        if self.next_member().is_some() || self.settings.rules == Rules::Work {
            return;
        }
        let fleeting = |job: &&Job| job.place == Place::Ready && job.qos == Qos::AtMostOnce;
        let dropped: Vec<u64> = self
            .jobs
            .iter()
            .filter(fleeting)
            .map(|j| j.number)
            .collect();
        for number in dropped {
            self.totals.dropped += 1;
            self.finish(number, Fate::Dropped);
        }
    }

    pub fn refuse_lease(&mut self, given: usize) {
        let Some(lease) = self.lease(given) else {
            return;
        };
        let (job, member, before) = (lease.job, lease.member, lease.before);
        self.set_passed_over(member, true);
        self.back(given);
        let job = self.job(job).expect("back in the queue");
        job.last = before;
        job.deliveries -= 1;
        let again = job.deliveries > 0;
        self.totals.delivered -= 1;
        self.totals.redelivered -= u64::from(again);
    }

    pub fn pass_over(&mut self, session: SessionId, value: bool) {
        if let Some(member) = self.find(session) {
            let number = member.number;
            self.set_passed_over(number, value);
        }
    }

    fn set_passed_over(&mut self, number: usize, value: bool) {
        let mut members = self.members.iter_mut();
        if let Some(member) = members.find(|member| member.number == number) {
            member.passed_over = value;
        }
        self.refresh();
    }

    pub fn release(&mut self, given: usize) {
        if self.lease(given).is_some() {
            self.back(given);
        }
    }

    pub fn settle(&mut self, given: usize, settlement: Settlement, now: Time) -> bool {
        let current = self.lease(given).is_some();
        if let Settlement::Extend(span) = settlement {
            self.extend(given, span, now);
            return current;
        }
        let member = self.given[given].member;
        for lease in &mut self.leases {
            if lease.member == member && lease.given > given {
                lease.restarted = now;
            }
        }
        match settlement {
            Settlement::Done => {
                let number = self.given[given].job;
                let job = self.job(number);
                let counts = job.is_some_and(|job| job.last == Some(given));
                if counts {
                    self.totals.done += 1;
                    self.end(given, Fate::Done);
                }
                return counts;
            }
            Settlement::Refuse { delay } if current => {
                let number = self.given[given].job;
                self.totals.refused += 1;
                self.back(given);
                if let Some(delay) = delay.filter(|delay| !delay.is_zero()) {
                    self.job(number).expect("a job").place = Place::Delayed(now + delay);
                }
            }
            Settlement::Reject if current => match self.settings.rules {
                Rules::Share => self.end(given, Fate::Discarded),
                Rules::Work => {
                    self.totals.rejected += 1;
                    self.bury(given, DeadReason::Rejected);
                }
            },
            _ => {}
        }
        current
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

    /// When the next thing happens by itself.
    pub fn next_timeout(&self) -> Option<Time> {
        let leases = self.leases.iter().filter_map(|lease| self.deadline(lease));
        let delays = self.jobs.iter().filter_map(|job| match job.place {
            Place::Delayed(due) => Some(due),
            Place::Ready | Place::Leased => None,
        });
        let waiting = self.jobs.iter().filter(|job| job.place != Place::Leased);
        let expiring = waiting.filter(|job| job.expires < Time::MAX);
        let expiries = expiring.map(|job| job.expires + Duration::from_micros(1));
        leases.chain(delays).chain(expiries).min()
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
        for job in &mut self.jobs {
            if matches!(job.place, Place::Delayed(at) if at <= now) {
                job.place = Place::Ready;
            }
        }
        for &given in due {
            self.totals.timed_out += 1;
            match self.lease(given).expect("due").qos {
                Qos::ExactlyOnce => self.undecided(given),
                _ => self.back(given),
            }
        }
        self.expire(now);
    }

    pub fn counts(&self) -> Counts {
        let count = |wanted: fn(&Place) -> bool| {
            let jobs = self.jobs.iter();
            jobs.filter(|job| wanted(&job.place)).count()
        };
        let oldest = self.jobs.iter().find(|job| job.place == Place::Ready);
        let members = self.members.iter();
        Counts {
            ready: count(|place| *place == Place::Ready),
            in_flight: self.leases.len(),
            delayed: count(|place| matches!(place, Place::Delayed(_))),
            bytes: self.bytes(),
            members: members.filter(|m| m.presence != Presence::Left).count(),
            members_connected: self.standing.len(),
            oldest: oldest.map(|job| Time::from_micros(job.number)),
            totals: self.totals,
        }
    }

    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
            && self.reserved.is_empty()
            && self.members.is_empty()
            && self.dead.is_empty()
    }

    fn job(&mut self, number: u64) -> Option<&mut Job> {
        self.jobs.iter_mut().find(|job| job.number == number)
    }

    /// A lease that is current.
    pub fn lease(&self, given: usize) -> Option<&Lease> {
        self.leases.iter().find(|lease| lease.given == given)
    }

    /// The job is in its place again, and in nobody's hands.
    fn back(&mut self, given: usize) {
        let number = self.given[given].job;
        self.leases.retain(|lease| lease.given != given);
        self.job(number).expect("a job").place = Place::Ready;
        self.refresh();
    }

    fn bury(&mut self, given: usize, reason: DeadReason) {
        let number = self.given[given].job;
        let deliveries = self.job(number).expect("a job").deliveries;
        self.dead.push_back((number, reason, deliveries));
        self.end(given, Fate::Dead);
    }

    fn end(&mut self, given: usize, fate: Fate) {
        let number = self.given[given].job;
        self.leases.retain(|lease| lease.given != given);
        self.totals.discarded += u64::from(fate == Fate::Discarded);
        self.finish(number, fate);
        self.refresh();
    }

    fn finish(&mut self, number: u64, fate: Fate) {
        self.jobs.retain(|job| job.number != number);
        let before = self.fates.insert(number, fate);
        assert_eq!(before, None, "job {number} is settled twice");
    }

    /// Who has no room goes from the rota, who got room comes to its end, and
    /// who left and holds nothing is forgotten.
    fn refresh(&mut self) {
        let held = |number: usize| {
            let leases = self.leases.iter();
            leases.filter(|lease| lease.member == number).count()
        };
        self.members
            .retain(|member| member.presence != Presence::Left || held(member.number) > 0);
        let has_room = |number: &usize| {
            let mut members = self.members.iter();
            let Some(member) = members.find(|member| member.number == *number) else {
                return false;
            };
            let prefetch = member.membership.prefetch;
            let prefetch = prefetch.unwrap_or(self.settings.prefetch) as usize;
            let fits = self.settings.rules == Rules::Share || held(*number) < prefetch;
            member.presence == Presence::Connected && !member.passed_over && fits
        };
        self.rota.retain(has_room);
        for number in self.standing.iter().filter(|number| has_room(number)) {
            if !self.rota.contains(number) {
                self.rota.push(*number);
            }
        }
    }
}
