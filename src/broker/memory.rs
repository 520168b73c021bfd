//! How much memory is left, and who has to wait for more.
//!
//! Owns the marks, and the order in which load is shed: who is new is refused,
//! then who publishes is read later ([`Memory::is_slowing`]). Nothing that was
//! acknowledged is dropped for memory's sake. Does not measure: it is told.

use std::sync::atomic::{AtomicU8, Ordering};

use super::Core;
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

/// How the broker stands to its ceiling.
pub struct Memory {
    // 0: none.
    bytes_max: u64,
    shedding: AtomicU8,
}

impl Memory {
    /// `bytes_max`: resident memory of the process; 0: any amount.
    pub fn new(bytes_max: u64) -> Memory {
        Memory {
            bytes_max,
            shedding: AtomicU8::new(Shedding::Nothing as u8),
        }
    }

    /// The ceiling in bytes; `None`: there is none, and nothing to measure.
    pub fn bytes_max(&self) -> Option<u64> {
        Some(self.bytes_max).filter(|max| *max > 0)
    }

    /// So much is resident; what is shed from now on, if that changes.
    pub fn note(&self, resident_bytes: u64) -> Option<Shedding> {
        let before = self.shedding();
        let after = match self.bytes_max {
            0 => Shedding::Nothing,
            max => shedding(before, resident_bytes, max),
        };
        self.shedding.store(after as u8, Ordering::Relaxed);
        (after != before).then_some(after)
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

/// From nine tenths of `max` on newcomers, from all of it on publishers; each
/// until there is a twentieth less.
fn shedding(before: Shedding, resident: u64, max: u64) -> Shedding {
    let (first, second, less) = (max - max / 10, max, max / 20);
    let is_above = |mark: u64, shed: Shedding| {
        let ends = mark - if before >= shed { less } else { 0 };
        resident >= ends
    };
    match () {
        () if is_above(second, Shedding::Publishers) => Shedding::Publishers,
        () if is_above(first, Shedding::Newcomers) => Shedding::Newcomers,
        () => Shedding::Nothing,
    }
}

impl Core {
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// So much memory of the process is resident.
    pub fn note_memory(&self, resident_bytes: u64) {
        let bytes_max = self.memory.bytes_max;
        match self.memory.note(resident_bytes) {
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
            let change = memory.note(resident);
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
        assert_eq!((off.bytes_max(), off.note(u64::MAX)), (None, None));
        let one = Memory::new(1);
        assert_eq!(one.note(1), Some(Publishers));
        let all = Memory::new(u64::MAX);
        assert_eq!(all.note(1 << 50), None);
        assert_eq!(all.note(u64::MAX), Some(Publishers));
    }
}
