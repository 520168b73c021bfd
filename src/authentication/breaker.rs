//! When a service that fails is left alone.
//!
//! Owns how often it has failed in a row. Reads no clock: a moment is an
//! argument.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lets questions through, until too many in a row have failed; then none for a
/// while; then one, which decides.
pub struct Breaker {
    failures_max: u32,
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    failures: u32,
    /// There while it is left alone.
    paused_until: Option<Instant>,
    /// One is being tried.
    is_trying: bool,
}

/// Leave to ask once. Dropping it without a word changes nothing.
pub struct Leave<'b> {
    breaker: &'b Breaker,
    is_trial: bool,
}

impl Breaker {
    pub fn new(failures_max: u32, pause: Duration) -> Breaker {
        Breaker {
            failures_max,
            pause,
            state: Mutex::default(),
        }
    }

    /// `None`: the service is not to be asked at this moment.
    pub fn leave(&self, now: Instant) -> Option<Leave<'_>> {
        let mut state = self.state.lock();
        let is_trial = match state.paused_until {
            None => false,
            Some(until) if now < until || state.is_trying => return None,
            Some(_) => true,
        };
        state.is_trying |= is_trial;
        Some(Leave {
            breaker: self,
            is_trial,
        })
    }
}

impl Leave<'_> {
    /// There was an answer; whether it is the first after a pause.
    pub fn succeeded(self) -> bool {
        let mut state = self.breaker.state.lock();
        let was_paused = state.paused_until.is_some();
        // Who was let through before the pause says nothing of what is now.
        if self.is_trial || !was_paused {
            (state.failures, state.paused_until) = (0, None);
        }
        self.is_trial
    }

    /// There was none; whether the service is left alone from now on.
    pub fn failed(self, now: Instant) -> bool {
        let mut state = self.breaker.state.lock();
        state.failures = state.failures.saturating_add(1);
        let was_paused = state.paused_until.is_some();
        let begins = match was_paused {
            true => self.is_trial,
            false => state.failures >= self.breaker.failures_max,
        };
        if begins {
            state.paused_until = Some(now + self.breaker.pause);
        }
        begins && !was_paused
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if self.is_trial {
            self.breaker.state.lock().is_trying = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(5);

    #[test]
    fn after_some_failures_it_is_left_alone_and_then_tried() {
        let (breaker, start) = (Breaker::new(3, PAUSE), Instant::now());
        let ask = |now| breaker.leave(now).expect("it is asked");
        // Only those in a row count.
        for _ in 0..5 {
            assert!(!ask(start).failed(start));
            assert!(!ask(start).failed(start));
            assert!(!ask(start).succeeded());
        }
        let late = ask(start);
        assert!(!ask(start).failed(start) && !ask(start).failed(start));
        assert!(ask(start).failed(start));
        assert!(breaker.leave(start).is_none());
        // An answer that was under way opens nothing.
        assert!(!late.succeeded());
        assert!(
            breaker
                .leave(start + PAUSE - Duration::from_millis(1))
                .is_none()
        );
        let again = start + PAUSE;
        let trial = ask(again);
        assert!(breaker.leave(again).is_none(), "one is enough");
        assert!(!trial.failed(again), "it is still left alone");
        assert!(breaker.leave(again + PAUSE / 2).is_none());
        // Whoever tries and leaves lets the next one try.
        drop(ask(again + PAUSE));
        assert!(ask(again + PAUSE).succeeded());
        let all: Vec<_> = (0..10).map(|_| ask(again + PAUSE)).collect();
        assert_eq!(all.len(), 10);
    }
}
