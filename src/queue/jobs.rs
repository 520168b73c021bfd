//! Jobs, and the order of those that wait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use slab::Slab;

use super::list::{Linked, Links};
use crate::message::{Message, Qos, Time};

/// A message in a queue, until it is settled, that is in memory.
pub(super) struct Job {
    pub message: Arc<Message>,
    /// Its place in the order, from putting in until it is done.
    pub sequence: u64,
    /// The number of its last lease; 0: there was none.
    pub lease: u64,
    /// Who had or has it by that lease.
    pub member: u32,
    /// Which group it is in, or [`Job::NO_GROUP`].
    pub group: u32,
    /// In the list of its member's leases.
    pub links: Links,
    /// Its message's, which is not to be looked at in each step.
    pub cost_bytes: u32,
    pub deliveries: u32,
    /// Deliveries that count as failed.
    pub failures: u32,
    /// How many of those ended with their member's connection.
    pub losses: u16,
    pub priority: u8,
    /// Where its row is.
    pub source: u8,
    pub flags: Flags,
    pub state: State,
    pub stored: Stored,
}

const _: () = assert!(size_of::<Job>() <= 96 + size_of::<Arc<Message>>());

/// What is so of a job for good, or until it is another's turn.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flags {
    /// It is the one of its group that is out.
    pub is_out: bool,
    /// It is in the table of last values.
    pub has_key: bool,
    /// A member has said why it failed.
    pub is_said: bool,
    /// Its producer wants to know how it ends.
    pub receipt: bool,
}

impl Job {
    pub const NO_GROUP: u32 = u32::MAX;

    /// Whether it goes to empty hands only, as it may be what ended those that
    /// had it.
    pub fn is_alone(&self) -> bool {
        self.losses >= 2
    }
}

/// How a job outlives the broker, in the row of its sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Whether it does.
    pub is_stored: bool,
    /// Whether its body is stored for others too, by its message's id.
    pub is_shared: bool,
    /// Whether it is said there who has it.
    pub(super) is_held: bool,
}

impl Stored {
    /// It goes with the broker.
    pub const NOT: Stored = Stored {
        is_stored: false,
        is_shared: false,
        is_held: false,
    };

    /// In a row of its own; whether with a body that others have too.
    pub fn row(is_shared: bool) -> Stored {
        Stored {
            is_stored: true,
            is_shared,
            is_held: false,
        }
    }
}

#[derive(Clone, Copy)]
pub(super) enum State {
    /// Among those that may be given.
    Ready,
    /// Behind another one of its group.
    Behind,
    /// Not yet, or refused for a while.
    Delayed {
        due: Time,
    },
    Leased(Held),
    /// Whoever had it last, and lost it, brings its result just now. It goes
    /// back to where it was, which is delayed where there is a time.
    Settling {
        due: Option<Time>,
    },
}

/// A lease, as the job knows it. Its number is the job's `lease`.
#[derive(Clone, Copy)]
pub(super) struct Held {
    /// The lease before and who had it, for a job that comes back as if
    /// never leased.
    pub before: u64,
    pub before_member: u32,
    pub delivered: Time,
    /// The last time that its member settled a delivery that it got before
    /// this one. It holds for this lease and for all later ones of the
    /// member, so that one settlement writes it once.
    pub restarted: Time,
    pub qos: Qos,
    /// Whether it has a deadline of its own.
    pub extended: bool,
    /// Its member brings its result just now; what is due if that is not
    /// taken.
    pub settling: Option<After>,
}

/// What becomes of a job whose result was not taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// Its member has it as before.
    Stay,
    /// It goes to the next one.
    Return,
    /// It failed, as its member's connection was lost.
    Fail,
    /// Nobody will say what became of it.
    Undecided,
}

impl Held {
    /// How long its member had it until now.
    pub fn took_micros(&self, now: Time) -> u64 {
        now.as_micros().saturating_sub(self.delivered.as_micros())
    }

    /// From when its time counts, given when its member last settled an
    /// earlier delivery. QoS 2 counts from its own delivery.
    pub fn start(&self, restarted: Time) -> Time {
        match self.qos {
            Qos::AtLeastOnce => self.delivered.max(restarted),
            Qos::AtMostOnce | Qos::ExactlyOnce => self.delivered,
        }
    }
}

impl Job {
    /// The lease of a job that is in a member's list.
    pub fn held(&self) -> &Held {
        match &self.state {
            State::Leased(held) => held,
            _ => unreachable!("a member's list has leased jobs only"),
        }
    }

    /// As [`Job::held`].
    pub fn held_mut(&mut self) -> &mut Held {
        match &mut self.state {
            State::Leased(held) => held,
            _ => unreachable!("a member's list has leased jobs only"),
        }
    }
}

impl Linked for Job {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

/// Jobs that wait, oldest first.
#[derive(Default)]
pub(super) struct Lane {
    /// Those that came in order, and most often go so.
    fresh: VecDeque<u32>,
    /// By sequence, those that came back to their places, and those that may
    /// go before their turn.
    placed: BTreeMap<u64, u32>,
}

impl Lane {
    pub fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.placed.is_empty()
    }

    /// Puts a job behind all others.
    pub fn push(&mut self, key: u32) {
        self.fresh.push_back(key);
    }

    pub fn place(&mut self, sequence: u64, key: u32) {
        self.placed.insert(sequence, key);
    }

    /// The sequence of the oldest, and its key.
    pub fn first(&self, jobs: &Slab<Job>) -> Option<(u64, u32)> {
        let placed = self.placed.first_key_value();
        let placed = placed.map(|(&sequence, &key)| (sequence, key));
        let fresh = self.fresh.front();
        let fresh = fresh.map(|&key| (jobs[key as usize].sequence, key));
        placed.into_iter().chain(fresh).min()
    }

    /// Takes out the job of that sequence, which is here: at once, if it was
    /// placed or is the oldest.
    pub fn take_out(&mut self, jobs: &Slab<Job>, sequence: u64) {
        if self.placed.remove(&sequence).is_some() {
            return;
        }
        let of = |key: u32| jobs[key as usize].sequence;
        match self.fresh.front() {
            Some(&first) if of(first) == sequence => _ = self.fresh.pop_front(),
            _ => {
                if let Ok(at) = self.fresh.binary_search_by_key(&sequence, |&key| of(key)) {
                    self.fresh.remove(at);
                }
            }
        }
    }

    /// All of them, in no order.
    pub fn keys(&self) -> impl Iterator<Item = u32> {
        self.fresh.iter().chain(self.placed.values()).copied()
    }

    /// Gives back the memory of an empty lane.
    pub fn shrink(&mut self) {
        self.fresh = VecDeque::new();
    }
}
