//! How much memory is left, and who has to wait for more.
//!
//! Owns the marks, and the order in which load is shed: who is new is refused,
//! then who publishes is read later ([`Memory::is_slowing`]). Nothing that was
//! acknowledged is dropped for memory's sake. Does not measure: it is told.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::Core;
use crate::message::Time;
use crate::protocol::{Connect, ReasonCode};
use crate::session::Close;

/// What is shed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shedding {
    Nothing,
    /// Clients that have no session here are refused.
    Newcomers,
    /// And what others publish is read later.
    Publishers,
}

/// How long resident memory has to stay as it is until what publishers take is
/// taken for what the allocator had left.
const STEADY_AFTER: Duration = Duration::from_secs(1);

/// How the broker stands to its ceiling.
pub struct Memory {
    // 0: none.
    bytes_max: AtomicU64,
    // As it was told last, and the most that it was told.
    resident_bytes: AtomicU64,
    most_bytes: AtomicU64,
    shedding: AtomicU8,
    marks: Mutex<Marks>,
}

/// Resident memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    pub now: u64,
    /// The most so far.
    pub most: u64,
}

/// When newcomers are refused, and publishers are slowed down.
struct Marks {
    // From so many resident bytes on.
    refuse_from: u64,
    slow_from: u64,
    // While they are: how much it was when it grew last, and when that was.
    grown_to: u64,
    grew_at: Time,
}

impl Memory {
    /// `bytes_max`: resident memory of the process; 0: any amount.
    pub fn new(bytes_max: u64) -> Memory {
        Memory {
            bytes_max: AtomicU64::new(bytes_max),
            resident_bytes: AtomicU64::new(0),
            most_bytes: AtomicU64::new(0),
            shedding: AtomicU8::new(Shedding::Nothing as u8),
            marks: Mutex::new(Marks::new(bytes_max)),
        }
    }

    /// From the next look on this is the ceiling.
    pub fn set_bytes_max(&self, bytes_max: u64) {
        let mut marks = self.marks.lock();
        if self.bytes_max.swap(bytes_max, Ordering::Relaxed) != bytes_max {
            *marks = Marks::new(bytes_max);
        }
        if bytes_max == 0 {
            // There may be nobody who looks.
            let nothing = Shedding::Nothing as u8;
            self.shedding.store(nothing, Ordering::Relaxed);
            self.resident_bytes.store(0, Ordering::Relaxed);
        }
    }

    /// The ceiling in bytes; `None`: there is none, and nothing to measure.
    pub fn bytes_max(&self) -> Option<u64> {
        Some(self.bytes_max.load(Ordering::Relaxed)).filter(|max| *max > 0)
    }

    /// So much is resident; what is shed from now on, if that changes.
    pub fn note(&self, resident_bytes: u64, now: Time) -> Option<Shedding> {
        self.resident_bytes.store(resident_bytes, Ordering::Relaxed);
        (self.most_bytes).fetch_max(resident_bytes, Ordering::Relaxed);
        let mut marks = self.marks.lock();
        let before = self.shedding();
        let after = match self.bytes_max.load(Ordering::Relaxed) {
            0 => Shedding::Nothing,
            max => marks.look(before, resident_bytes, max, now),
        };
        self.shedding.store(after as u8, Ordering::Relaxed);
        (after != before).then_some(after)
    }

    /// Resident memory of the process, as it was told; 0 where nobody measures.
    pub fn resident_bytes(&self) -> Resident {
        Resident {
            now: self.resident_bytes.load(Ordering::Relaxed),
            most: self.most_bytes.load(Ordering::Relaxed),
        }
    }

    pub fn shedding(&self) -> Shedding {
        match self.shedding.load(Ordering::Relaxed) {
            0 => Shedding::Nothing,
            1 => Shedding::Newcomers,
            _ => Shedding::Publishers,
        }
    }

    /// Whether connections that publish are to be read later.
    #[inline]
    pub fn is_slowing(&self) -> bool {
        self.shedding.load(Ordering::Relaxed) == Shedding::Publishers as u8
    }
}

impl Marks {
    fn new(bytes_max: u64) -> Marks {
        Marks {
            refuse_from: bytes_max - bytes_max / 10,
            slow_from: bytes_max,
            grown_to: 0,
            grew_at: Time::ZERO,
        }
    }

    /// From nine tenths of `max` on newcomers, from all of it on publishers; each
    /// until there is a twentieth less.
    ///
    /// An allocator may keep what was freed, so that there is room and nothing
    /// shows it: publishers also go on when it has not grown for a while, until it
    /// does; and newcomers are let in. So it may come to an eighth more than `max`
    /// by publishers, and no further; to `max` by newcomers.
    fn look(&mut self, before: Shedding, resident: u64, max: u64, now: Time) -> Shedding {
        let (less, step, last) = (max / 20, max / 256, max.saturating_add(max / 8));
        if resident < max - less {
            self.slow_from = max;
        }
        let slows = if before < Shedding::Publishers {
            resident >= self.slow_from
        } else {
            let is_steady = self.is_steady(resident, step, now) && resident < last;
            if is_steady {
                self.slow_from = resident.saturating_add(step).min(last);
            }
            !is_steady && resident >= self.slow_from - less
        };
        if slows {
            if before < Shedding::Publishers {
                (self.grown_to, self.grew_at) = (resident, now);
            }
            return Shedding::Publishers;
        }
        let first = max - max / 10;
        if resident < first - less {
            self.refuse_from = first;
        }
        let refuses = match before {
            Shedding::Nothing => resident >= self.refuse_from,
            _ => {
                let is_steady =
                    before == Shedding::Newcomers && self.is_steady(resident, step, now);
                if is_steady {
                    self.refuse_from = resident.saturating_add(step).min(max);
                }
                !is_steady && resident >= self.refuse_from - less
            }
        };
        if !refuses {
            return Shedding::Nothing;
        }
        if before != Shedding::Newcomers {
            (self.grown_to, self.grew_at) = (resident, now);
        }
        Shedding::Newcomers
    }
}

impl Marks {
    /// Whether it has not grown by a `step` for a while.
    fn is_steady(&mut self, resident: u64, step: u64, now: Time) -> bool {
        if resident > self.grown_to.saturating_add(step) {
            (self.grown_to, self.grew_at) = (resident, now);
        }
        now >= self.grew_at + STEADY_AFTER
    }
}

impl Core {
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// So much memory of the process is resident.
    pub fn note_memory(&self, resident_bytes: u64, now: Time) {
        let bytes_max = self.memory.bytes_max().unwrap_or(0);
        match self.memory.note(resident_bytes, now) {
            None => {}
            Some(Shedding::Nothing) => {
                tracing::info!(resident_bytes, bytes_max, "there is memory again for all");
            }
            Some(Shedding::Newcomers) => tracing::warn!(
                resident_bytes,
                bytes_max,
                "memory is nearly at memory_bytes_max: clients without a session are refused"
            ),
            Some(Shedding::Publishers) => tracing::warn!(
                resident_bytes,
                bytes_max,
                "memory is at memory_bytes_max: who publishes is read later and later"
            ),
        }
    }

    /// Before it is asked who a client is: whether there is memory for it. Who
    /// has a session comes for what waits in it, and so frees some.
    ///
    /// # Errors
    /// Why it is refused, for the CONNACK.
    pub fn check_memory(&self, connect: &Connect<'_>) -> Result<(), Close> {
        if self.memory.shedding() == Shedding::Nothing
            || self.clients.contains_key(connect.client_id)
        {
            return Ok(());
        }
        self.counters.connections_refused.increment();
        self.counters.refused_memory.increment();
        let reason = self.reason_or_referral(ReasonCode::ServerBusy);
        Err(Close::new(
            reason,
            "the broker is short of memory; try again later",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Shedding::*;

    /// It is not what it was when somebody still looked.
    #[test]
    fn without_a_ceiling_nobody_knows_how_much_there_is() {
        let memory = Memory::new(1000);
        memory.note(900, Time::ZERO);
        memory.set_bytes_max(0);
        let told = memory.resident_bytes();
        assert_eq!((told.now, told.most), (0, 900));
    }

    #[test]
    fn each_mark_is_left_a_twentieth_below() {
        let memory = Memory::new(1000);
        for (resident, expected) in [
            (0, Nothing),
            (899, Nothing),
            (900, Newcomers),
            (999, Newcomers),
            (851, Newcomers),
            (850, Newcomers),
            (849, Nothing),
            (899, Nothing),
            (1000, Publishers),
            (5000, Publishers),
            (950, Publishers),
            (949, Newcomers),
            (999, Newcomers),
            (1000, Publishers),
            (10, Nothing),
        ] {
            let before = memory.shedding();
            let change = memory.note(resident, Time::ZERO);
            assert_eq!(memory.shedding(), expected, "{resident}");
            assert_eq!(change, (before != expected).then_some(expected));
            assert_eq!(memory.is_slowing(), expected == Publishers);
        }
    }

    /// C25: at 0 nothing is shed, at 1 everything, at the most that can be set
    /// nothing overflows.
    #[test]
    fn a_ceiling_of_nothing_of_one_and_of_all() {
        let off = Memory::new(0);
        assert_eq!(
            (off.bytes_max(), off.note(u64::MAX, Time::ZERO)),
            (None, None)
        );
        let one = Memory::new(1);
        assert_eq!(one.note(1, Time::ZERO), Some(Publishers));
        let all = Memory::new(u64::MAX);
        assert_eq!(all.note(1 << 50, Time::ZERO), None);
        assert_eq!(all.note(u64::MAX, Time::ZERO), Some(Publishers));
    }

    /// C19: where memory was freed and does not show, newcomers get in again,
    /// until it grows.
    #[test]
    fn newcomers_get_in_while_it_does_not_grow() {
        let memory = Memory::new(25_600);
        let mut now = Time::ZERO;
        assert_eq!(memory.note(23_040, now), Some(Newcomers));
        now = now + STEADY_AFTER / 2;
        assert_eq!(memory.note(23_200, now), None, "it grows");
        now = now + STEADY_AFTER / 2;
        assert_eq!(memory.note(23_200, now), None);
        now = now + STEADY_AFTER / 2;
        assert_eq!(memory.note(23_200, now), Some(Nothing));
        assert_eq!(memory.note(23_299, now), None);
        assert_eq!(memory.note(23_300, now), Some(Newcomers));
        // What it came to is forgotten when there is enough.
        assert_eq!(memory.note(21_000, now), Some(Nothing));
        assert_eq!(memory.note(23_039, now), None);
        assert_eq!(memory.note(23_040, now), Some(Newcomers));
    }

    /// C19: where memory was freed and does not show, publishers go on; where it
    /// was not, it grows by no more than an eighth.
    #[test]
    fn publishers_go_on_while_it_does_not_grow() {
        let memory = Memory::new(25_600);
        let mut now = Time::ZERO + STEADY_AFTER;
        assert_eq!(memory.note(25_600, now), Some(Publishers));
        now = now + STEADY_AFTER / 2;
        assert_eq!(memory.note(25_701, now), None, "it grows");
        now = now + STEADY_AFTER / 2;
        assert_eq!(memory.note(25_701, now), None);
        now = now + STEADY_AFTER / 2;
        assert_eq!(memory.note(25_750, now), Some(Newcomers));
        assert_eq!(memory.note(25_849, now), None);
        assert_eq!(memory.note(25_850, now), Some(Publishers));
        // Each time there is room for a little more, up to the last mark.
        let mut resident = 25_850;
        for _ in 0..100 {
            now = now + STEADY_AFTER;
            if memory.note(resident, now) != Some(Newcomers) {
                break;
            }
            resident += 100;
            assert_eq!(memory.note(resident, now), Some(Publishers));
        }
        assert!((28_800..28_900).contains(&resident), "{resident}");
        assert!(memory.is_slowing());
        // What it came to is forgotten when there is enough.
        assert_eq!(memory.note(20_000, now), Some(Nothing));
        assert_eq!(memory.note(25_600, now), Some(Publishers));
    }
}
