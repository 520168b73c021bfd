//! Everything that has to happen at some time, in one place.
//!
//! Owns when; what is to be done is the caller's. A timer is never taken back:
//! who finds that its reason is gone does nothing. Reads no clock.

use std::collections::BTreeMap;
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;

use crate::message::{QueueId, SessionId, Time};

/// Timers fire up to so much late, so that many share an entry.
const TICK: Duration = Duration::from_millis(50);

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Has this connection been silent for too long?
    Silence(SessionId, u32),
    /// Is what this connection's client has shown of itself still valid?
    Validity(SessionId, u32),
    /// Is the delay of the will over that this connection left?
    Will(SessionId, u32),
    /// Has this session been absent for too long?
    Expiry(SessionId),
    /// Has this connection held PUBLISHes back for too long?
    Held(SessionId, u32),
    /// May a held PUBLISH find room in a session?
    Retry(SessionId, u32),
    /// Is the window of this connection still full of stale jobs?
    Stale(SessionId, u32),
    /// Have retained messages expired?
    Retained,
    /// Time-outs and delays of a queue.
    Queue(QueueId),
    /// Has nobody used this queue for too long?
    Unused(QueueId),
    /// The next page of what is moved at a rate.
    Move(u64),
    /// The next queues that `$SYS` tells of.
    Sys,
    /// What else `$SYS` tells.
    SysTree,
    /// Is this recording over, or to be forgotten?
    Recording(u64),
}

/// All timers.
#[derive(Default)]
pub struct Timers {
    wheel: Mutex<Wheel>,
}

#[derive(Default)]
struct Wheel {
    ticks: BTreeMap<u64, Vec<Timer>>,
    // Woken when something is due earlier than the sleeper thinks.
    sleeper: Option<(u64, Waker)>,
}

impl Timers {
    /// `timer` is due at `at`, or up to a tick later.
    pub fn schedule(&self, at: Time, timer: Timer) {
        let tick = at.as_micros() / TICK.as_micros() as u64 + 1;
        let mut wheel = self.wheel.lock();
        wheel.ticks.entry(tick).or_default().push(timer);
        if let Some((until, waker)) = wheel.sleeper.take_if(|(until, _)| tick < *until) {
            debug_assert!(tick < until);
            drop(wheel);
            waker.wake();
        }
    }

    /// How many wait, those included whose reason is gone.
    pub fn count(&self) -> usize {
        self.wheel.lock().ticks.values().map(Vec::len).sum()
    }

    /// Takes out what is due at `now`.
    pub fn take_due(&self, now: Time) -> Due<'_> {
        let tick = now.as_micros() / TICK.as_micros() as u64;
        let mut due = Vec::new();
        let mut wheel = self.wheel.lock();
        while let Some(entry) = wheel.ticks.first_entry()
            && *entry.key() <= tick
        {
            due.append(&mut entry.remove());
        }
        Due {
            timers: self,
            now,
            left: due.into_iter(),
        }
    }

    /// When something is due next. `waker` is woken if that comes earlier.
    pub fn sleep(&self, waker: &Waker) -> Option<Time> {
        let mut wheel = self.wheel.lock();
        let first = wheel.ticks.keys().next().copied();
        wheel.sleeper = Some((first.unwrap_or(u64::MAX), waker.clone()));
        first.map(|tick| Time::from_micros(tick.saturating_mul(TICK.as_micros() as u64)))
    }
}

/// What is due, to be done one after the other. What was not come to waits
/// again: a fault in the doing of one costs that one.
pub struct Due<'t> {
    timers: &'t Timers,
    now: Time,
    left: std::vec::IntoIter<Timer>,
}

impl Iterator for Due<'_> {
    type Item = Timer;

    fn next(&mut self) -> Option<Timer> {
        self.left.next()
    }
}

impl Drop for Due<'_> {
    fn drop(&mut self) {
        for timer in self.left.by_ref() {
            self.timers.schedule(self.now, timer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// C17: one that cannot be done stops no other.
    #[test]
    fn a_fault_in_one_timers_work_costs_that_one() {
        let timers = Timers::default();
        for number in 0..4 {
            timers.schedule(Time::ZERO, Timer::Move(number));
        }
        let now = Time::ZERO + TICK;
        let mut done = Vec::new();
        let ended = catch_unwind(AssertUnwindSafe(|| {
            for timer in timers.take_due(now) {
                assert!(timer != Timer::Move(1), "a fault");
                done.push(timer);
            }
        }));
        ended.expect_err("it was cut short");
        done.extend(timers.take_due(now + TICK));
        assert_eq!(done, [0, 2, 3].map(Timer::Move));
        assert_eq!(timers.count(), 0);
    }
}
