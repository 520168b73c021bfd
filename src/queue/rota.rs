//! Members, and whose turn it is.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::time::Duration;

use rustc_hash::FxHashMap;
use slab::Slab;

use super::Membership;
use super::list::{Linked, Links, List};
use crate::config::Dispatch;
use crate::message::{Qos, SessionId, Time};

/// A session that subscribed, or that still holds jobs after it left.
pub(super) struct Member {
    pub session: SessionId,
    pub membership: Membership,
    presence: Presence,
    /// Leases of lower numbers were given to another one in the same slot.
    pub first_lease: u64,
    /// What it holds, in the order of delivery.
    pub leases: List,
    /// How many those are, by QoS.
    pub held: [u32; 3],
    /// How many have a deadline of their own.
    pub extended: u32,
    /// When its leases are looked at next.
    pub timer: Option<Time>,
    /// A job too large for it was meant for it, and others are asked for a
    /// while.
    is_skipped: bool,
    /// It was busy, or let deliveries time out: no turns until then.
    pub rests_until: Option<Time>,
    /// How often that was so, since it did a job.
    rests: u8,
    /// Its deliveries that timed out since it did a job, or last rested.
    timeouts: u8,
    /// It has a job that no other one may be beside.
    pub has_alone: bool,
    /// A moving mean of how long its deliveries took that it did.
    pub took_micros: u64,
    /// The number of its client among those of the queue's events, if it still
    /// has one.
    pub traced: u32,
    /// Its place in the ring, if it is in it.
    in_ring: Option<u64>,
    ring: Links,
}

#[derive(Clone, Copy, PartialEq)]
enum Presence {
    /// `passed_over`: its session had no room, and has not told of any yet.
    Connected {
        standing: u64,
        passed_over: bool,
    },
    Absent,
    /// Here only for what it holds.
    Left,
}

impl Member {
    pub fn is_done(&self) -> bool {
        self.presence == Presence::Left && self.held == [0; 3]
    }

    pub fn held_mut(&mut self, qos: Qos) -> &mut u32 {
        &mut self.held[qos as usize]
    }

    pub fn held_len(&self) -> u32 {
        self.held.iter().sum()
    }

    pub fn is_connected(&self) -> bool {
        matches!(self.presence, Presence::Connected { .. })
    }
}

impl Linked for Member {
    fn links(&mut self) -> &mut Links {
        &mut self.ring
    }
}

/// The members of a queue.
pub(super) struct Rota {
    pub members: Slab<Member>,
    by_session: FxHashMap<SessionId, u32>,
    dispatch: Dispatch,
    /// Members that are connected and have room, the next one first.
    ring: List,
    next_in_ring: u64,
    /// The same, those with the fewest jobs first, where that counts.
    by_load: BTreeSet<(u32, u64, u32)>,
    /// It gets no more turns until its hands are empty.
    draining: Option<u32>,
    /// Connected members, the longest-standing first.
    standing: BTreeMap<u64, u32>,
    next_standing: u64,
    /// Those that were skipped, though they may be gone.
    skipped: Vec<u32>,
    /// Members that have not left.
    joined: usize,
    /// How much a member may hold; `None`: as much as its session takes.
    prefetch: Option<u32>,
}

impl Rota {
    /// The first rest; each further one is twice as long.
    const REST: Duration = Duration::from_secs(1);
    /// After so many no rest is longer.
    const RESTS_MAX: u8 = 6;
    /// Deliveries that time out in a row before the member rests.
    const TIMEOUTS_MAX: u8 = 3;

    pub fn new(prefetch: Option<u32>, dispatch: Dispatch) -> Rota {
        Rota {
            members: Slab::new(),
            by_session: FxHashMap::default(),
            dispatch,
            ring: List::EMPTY,
            next_in_ring: 0,
            by_load: BTreeSet::new(),
            draining: None,
            standing: BTreeMap::new(),
            next_standing: 0,
            skipped: Vec::new(),
            joined: 0,
            prefetch,
        }
    }

    /// Who gets room by it goes to the end of the ring, the longest-standing
    /// first.
    pub fn set(&mut self, prefetch: Option<u32>, dispatch: Dispatch) {
        self.prefetch = prefetch;
        self.dispatch = dispatch;
        self.by_load.clear();
        let in_ring = self.members.iter();
        self.by_load.extend(in_ring.filter_map(|(key, member)| {
            let at = member
                .in_ring
                .filter(|_| dispatch == Dispatch::LeastInflight)?;
            Some((member.held_len(), at, key as u32))
        }));
        let connected: Vec<u32> = self.standing.values().copied().collect();
        for key in connected {
            self.refresh(key);
        }
    }

    pub fn find(&self, session: SessionId) -> Option<u32> {
        self.by_session.get(&session).copied()
    }

    pub fn get(&self, key: u32) -> &Member {
        &self.members[key as usize]
    }

    pub fn get_mut(&mut self, key: u32) -> &mut Member {
        &mut self.members[key as usize]
    }

    /// Members that have not left, and those of them that are connected.
    pub fn len(&self) -> (usize, usize) {
        (self.joined, self.standing.len())
    }

    /// The session is a connected member from now on.
    pub fn join(&mut self, session: SessionId, membership: Membership, first_lease: u64) -> u32 {
        let key = self.find(session).unwrap_or_else(|| {
            let key = self.members.insert(Member {
                session,
                membership,
                presence: Presence::Left,
                first_lease,
                leases: List::EMPTY,
                held: [0; 3],
                extended: 0,
                timer: None,
                is_skipped: false,
                rests_until: None,
                rests: 0,
                timeouts: 0,
                has_alone: false,
                took_micros: 0,
                traced: u32::MAX,
                in_ring: None,
                ring: Links::NONE,
            }) as u32; // There are fewer sessions than that.
            self.by_session.insert(session, key);
            key
        });
        self.get_mut(key).membership = membership;
        match self.get(key).presence {
            Presence::Connected { .. } => self.refresh(key),
            Presence::Absent | Presence::Left => self.connect(key),
        }
        key
    }

    /// An absent member is back; it stands at the end.
    pub fn attach(&mut self, key: u32) {
        if self.get(key).presence == Presence::Absent {
            self.connect(key);
        }
    }

    fn connect(&mut self, key: u32) {
        let standing = self.next_standing;
        self.next_standing += 1;
        let passed_over = false;
        self.set_presence(
            key,
            Presence::Connected {
                standing,
                passed_over,
            },
        );
    }

    pub fn detach(&mut self, key: u32) {
        if self.get(key).presence != Presence::Left {
            self.set_presence(key, Presence::Absent);
        }
    }

    pub fn leave(&mut self, key: u32) {
        self.set_presence(key, Presence::Left);
    }

    fn set_presence(&mut self, key: u32, presence: Presence) {
        let before = mem::replace(&mut self.get_mut(key).presence, presence);
        self.joined -= usize::from(before != Presence::Left);
        self.joined += usize::from(presence != Presence::Left);
        if let Presence::Connected { standing, .. } = before {
            self.standing.remove(&standing);
        }
        if self.draining == Some(key) && !matches!(presence, Presence::Connected { .. }) {
            self.draining = None;
        }
        if let Presence::Connected { standing, .. } = presence {
            self.standing.insert(standing, key);
        }
        self.refresh(key);
    }

    /// Forgets one that left and holds nothing.
    pub fn remove(&mut self, key: u32) -> Member {
        let member = self.members.remove(key as usize);
        self.by_session.remove(&member.session);
        member
    }

    /// Whether the member gets no turns although its prefetch has room.
    pub fn set_passed_over(&mut self, key: u32, value: bool) {
        if let Presence::Connected { passed_over, .. } = &mut self.get_mut(key).presence {
            *passed_over = value;
            self.refresh(key);
        }
    }

    fn may_have_turns(&self, key: u32) -> bool {
        let member = self.get(key);
        match member.presence {
            Presence::Connected { passed_over, .. } => {
                !passed_over
                    && !member.is_skipped
                    && member.rests_until.is_none()
                    && !member.has_alone
            }
            Presence::Absent | Presence::Left => false,
        }
    }

    /// Puts the member at the end of the ring if it got room, and takes it
    /// out if it has none.
    pub fn refresh(&mut self, key: u32) {
        let member = self.get(key);
        let bound = self
            .prefetch
            .map(|own| member.membership.prefetch.unwrap_or(own));
        let has_room = self.may_have_turns(key)
            && self.draining != Some(key)
            && bound.is_none_or(|bound| self.get(key).held_len() < bound);
        match (has_room, self.get(key).in_ring) {
            (true, None) => {
                let at = self.next_in_ring;
                self.next_in_ring += 1;
                self.get_mut(key).in_ring = Some(at);
                self.ring.push_back(&mut self.members, key);
                self.set_load(key, None);
            }
            (false, Some(_)) => self.leave_ring(key),
            _ => {}
        }
    }

    fn leave_ring(&mut self, key: u32) {
        let Some(at) = self.get_mut(key).in_ring.take() else {
            return;
        };
        self.ring.remove(&mut self.members, key);
        if self.dispatch == Dispatch::LeastInflight {
            let held = self.get(key).held_len();
            self.by_load.remove(&(held, at, key));
        }
    }

    /// Where the member stands by the jobs it has; it had `before`.
    fn set_load(&mut self, key: u32, before: Option<u32>) {
        let member = self.get(key);
        if let Some(at) = member.in_ring
            && self.dispatch == Dispatch::LeastInflight
        {
            let held = member.held_len();
            if let Some(before) = before {
                self.by_load.remove(&(before, at, key));
            }
            self.by_load.insert((held, at, key));
        }
    }

    /// The member has one job more, or one less.
    pub fn count_held(&mut self, key: u32, qos: Qos, has: bool) {
        let member = self.get_mut(key);
        let before = member.held_len();
        match has {
            true => *member.held_mut(qos) += 1,
            false => *member.held_mut(qos) -= 1,
        }
        if self.dispatch == Dispatch::LeastInflight {
            self.set_load(key, Some(before));
        }
        if self.draining == Some(key) && self.get(key).held == [0; 3] {
            self.draining = None; // It stands in the ring again by `refresh`.
        }
    }

    /// Another connected member is asked instead of this one, which stands at
    /// the end and gets no turns until [`Rota::unskip`]; whether there is one.
    pub fn skip(&mut self, key: u32) -> bool {
        let skipped = self.skipped.iter();
        let skipped = skipped.filter_map(|key| self.members.get(*key as usize));
        let skipped = skipped.filter(|member| member.is_skipped && member.is_connected());
        if skipped.count() + 1 >= self.standing.len() || !self.get(key).is_connected() {
            return false;
        }
        self.get_mut(key).is_skipped = true;
        self.skipped.push(key);
        self.connect(key);
        true
    }

    /// Nobody is skipped any longer.
    pub fn unskip(&mut self) {
        for key in mem::take(&mut self.skipped) {
            if let Some(member) = self.members.get_mut(key as usize) {
                member.is_skipped = false;
                self.refresh(key);
            }
        }
    }

    /// The member gets no turns for a while, longer each time; until when.
    pub fn rest(&mut self, key: u32, now: Time) -> Time {
        let member = self.get_mut(key);
        let until = now + Rota::REST * (1 << member.rests);
        member.rests = (member.rests + 1).min(Rota::RESTS_MAX);
        member.timeouts = 0;
        member.rests_until = Some(until);
        self.refresh(key);
        until
    }

    /// The member's rest is over.
    pub fn wake(&mut self, key: u32) {
        self.get_mut(key).rests_until = None;
        self.refresh(key);
    }

    /// One of its deliveries timed out; whether it is to rest.
    pub fn timed_out(&mut self, key: u32) -> bool {
        let member = self.get_mut(key);
        member.timeouts += 1;
        member.timeouts >= Rota::TIMEOUTS_MAX
    }

    /// It did a job, and so is neither busy nor stuck; until when it was to
    /// rest.
    pub fn did(&mut self, key: u32, took_micros: u64) -> Option<Time> {
        let member = self.get_mut(key);
        (member.rests, member.timeouts) = (0, 0);
        member.took_micros = match member.took_micros {
            0 => took_micros,
            before => before - before / 8 + took_micros / 8,
        };
        let rested = member.rests_until;
        if rested.is_some() {
            self.wake(key);
        }
        rested
    }

    /// The member had its turn.
    pub fn rotate(&mut self, key: u32) {
        self.leave_ring(key);
        self.refresh(key);
    }

    /// A member with empty hands, for a job that goes to no others: not
    /// `last`, who had it, if there is another. If there is none, the one that
    /// is next gets no more turns until its are.
    pub fn empty_handed(&mut self, exclusive: bool, last: Option<u32>) -> Option<u32> {
        let mut found: Option<u32> = None;
        let mut next = self.next(exclusive);
        while let Some(key) = next
            && found.is_none_or(|found| Some(found) == last)
        {
            if self.get(key).held == [0; 3] && (found.is_none() || Some(key) != last) {
                found = Some(key);
            }
            next = match exclusive {
                true => None,
                false => self.get(key).ring.next(),
            };
        }
        if found.is_some() {
            self.drain_no_more();
        } else if self.draining.is_none()
            && let Some(key) = self.next(exclusive)
        {
            self.draining = Some(key);
            self.refresh(key);
        }
        found
    }

    fn first_standing(&self) -> Option<u32> {
        self.standing.first_key_value().map(|(_, &key)| key)
    }

    /// There is no job any more that somebody's hands were to be empty for.
    pub fn drain_no_more(&mut self) {
        if let Some(key) = self.draining.take() {
            self.refresh(key);
        }
    }

    pub fn is_in_ring(&self, key: u32) -> bool {
        self.get(key).in_ring.is_some()
    }

    /// Who is next. `exclusive`: the longest-standing member or nobody.
    pub fn next(&self, exclusive: bool) -> Option<u32> {
        match (exclusive, self.dispatch) {
            (true, _) => {
                let key = self.first_standing()?;
                self.get(key).in_ring.map(|_| key)
            }
            (false, Dispatch::RoundRobin) => self.ring.first(),
            (false, Dispatch::LeastInflight) => self.by_load.first().map(|&(.., key)| key),
        }
    }

    /// Who is next but for that one.
    pub fn next_but(&self, but: u32) -> Option<u32> {
        match self.dispatch {
            Dispatch::RoundRobin => match self.ring.first() {
                Some(first) if first == but => self.get(but).ring.next(),
                first => first,
            },
            Dispatch::LeastInflight => {
                let mut others = self.by_load.iter().map(|&(.., key)| key);
                others.find(|key| *key != but)
            }
        }
    }
}
