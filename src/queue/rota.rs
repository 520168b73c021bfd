//! Members, and whose turn it is.

use std::collections::BTreeMap;
use std::mem;

use rustc_hash::FxHashMap;
use slab::Slab;

use super::Membership;
use super::list::{Linked, Links, List};
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
    /// It could not take what it was given, and others are asked for a while.
    resting: bool,
    in_ring: bool,
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
    /// Members that are connected and have room, the next one first.
    ring: List,
    /// Connected members, the longest-standing first.
    standing: BTreeMap<u64, u32>,
    next_standing: u64,
    /// Those that began to rest, though they may be gone.
    resting: Vec<u32>,
    /// Members that have not left.
    joined: usize,
    /// How much a member may hold; `None`: as much as its session takes.
    prefetch: Option<u32>,
}

impl Rota {
    pub fn new(prefetch: Option<u32>) -> Rota {
        Rota {
            members: Slab::new(),
            by_session: FxHashMap::default(),
            ring: List::EMPTY,
            standing: BTreeMap::new(),
            next_standing: 0,
            resting: Vec::new(),
            joined: 0,
            prefetch,
        }
    }

    /// Who gets room by it goes to the end of the ring, the longest-standing
    /// first.
    pub fn set_prefetch(&mut self, prefetch: Option<u32>) {
        self.prefetch = prefetch;
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
                resting: false,
                in_ring: false,
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

    /// Puts the member at the end of the ring if it got room, and takes it
    /// out if it has none.
    pub fn refresh(&mut self, key: u32) {
        let member = self.get(key);
        let has_room = match (member.presence, self.prefetch) {
            (Presence::Connected { passed_over, .. }, _) if passed_over || member.resting => false,
            (Presence::Connected { .. }, Some(prefetch)) => {
                member.held.iter().sum::<u32>() < member.membership.prefetch.unwrap_or(prefetch)
            }
            (Presence::Connected { .. }, None) => true,
            (Presence::Absent | Presence::Left, _) => false,
        };
        if has_room != member.in_ring {
            self.get_mut(key).in_ring = has_room;
            match has_room {
                true => self.ring.push_back(&mut self.members, key),
                false => self.ring.remove(&mut self.members, key),
            }
        }
    }

    /// Another connected member is asked instead of this one, which stands at
    /// the end and gets no turns until [`Rota::rested`]; whether there is one.
    pub fn rest(&mut self, key: u32) -> bool {
        let is_connected = |member: &Member| matches!(member.presence, Presence::Connected { .. });
        let resting = self.resting.iter();
        let resting = resting.filter_map(|key| self.members.get(*key as usize));
        let resting = resting.filter(|member| member.resting && is_connected(member));
        if resting.count() + 1 >= self.standing.len() || !is_connected(self.get(key)) {
            return false;
        }
        self.get_mut(key).resting = true;
        self.resting.push(key);
        self.connect(key);
        true
    }

    /// Nobody rests any longer.
    pub fn rested(&mut self) {
        for key in mem::take(&mut self.resting) {
            if let Some(member) = self.members.get_mut(key as usize) {
                member.resting = false;
                self.refresh(key);
            }
        }
    }

    /// The member had its turn.
    pub fn rotate(&mut self, key: u32) {
        self.ring.remove(&mut self.members, key);
        self.get_mut(key).in_ring = false;
        self.refresh(key);
    }

    /// Who is next. `exclusive`: the longest-standing member or nobody.
    pub fn next(&self, exclusive: bool) -> Option<u32> {
        match exclusive {
            true => {
                let (_, &key) = self.standing.first_key_value()?;
                self.get(key).in_ring.then_some(key)
            }
            false => self.ring.first(),
        }
    }

    /// Who is next after the one that is, if there is another.
    pub fn second(&self, next: u32) -> Option<u32> {
        self.get(next).ring.next()
    }
}
