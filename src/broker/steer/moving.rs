//! Messages that go from one queue to another: some at once, or many at a
//! rate, a page at a time.
//!
//! What goes on at a rate goes with the broker: a restart ends it.

use std::time::Duration;

use parking_lot::Mutex;

use super::{Code, MovingView, SteerError};
use crate::broker::lists::Pick;
use crate::broker::timers::Timer;
use crate::broker::{Core, Worker};
use crate::message::{QueueId, Time};

/// Between two pages of what goes on at a rate.
const PAGE_EVERY: Duration = Duration::from_millis(100);
/// Of one such page.
const PAGE_MAX: usize = 2000;
/// What was not done in so long is not made up for.
const BEHIND_MAX: Duration = Duration::from_secs(1);
/// A full queue is tried again after so long.
const FULL_FOR: Duration = Duration::from_secs(1);
/// That go on at a time.
const MOVINGS_MAX: usize = 1000;
const RATE_MAX: u32 = 1_000_000;
const MICROS: u128 = 1_000_000;

/// What goes on at a rate.
#[derive(Default)]
pub(in crate::broker) struct Movings {
    all: Mutex<Vec<Moving>>,
}

struct Moving {
    number: u64,
    from: String,
    to: String,
    anew: bool,
    rate: u32,
    left: usize,
    /// Until when it has done what it should have.
    done_until: Time,
}

impl Core {
    /// Moves so many at most, in pages; how many, and how many are left.
    pub(super) fn move_some(
        &self,
        worker: &mut Worker,
        ends: ((QueueId, &str), (QueueId, &str)),
        count: usize,
        anew: bool,
        now: Time,
    ) -> Result<(usize, usize), SteerError> {
        let mut moved = 0;
        loop {
            let pick = Pick::First(count - moved);
            match self.move_page(worker, ends, pick, anew, now) {
                Ok((page, left)) => {
                    moved += page;
                    if page == 0 || moved >= count || left == 0 {
                        return Ok((moved, left));
                    }
                }
                Err(error) if moved == 0 => return Err(error),
                // The next request is told.
                Err(_) => {
                    let left = self.lists.lock(ends.0.0.0);
                    return Ok((moved, left.map_or(0, |list| list.queue.waiting_len())));
                }
            }
        }
    }

    /// What is there now is moved at a rate from now on, with nothing else out
    /// of the same queue at one; how many messages these are.
    pub(super) fn begin_moving(
        &self,
        worker: &mut Worker,
        (from_id, from, to): (QueueId, &str, &str),
        (count, rate): (Option<usize>, u32),
        anew: bool,
        now: Time,
    ) -> Result<usize, SteerError> {
        if rate > RATE_MAX {
            let text = format!("a rate is {RATE_MAX} messages a second at most");
            return Err(SteerError::invalid(text));
        }
        if rate > 0 {
            self.destination(worker, to, now)?;
        }
        let waiting = self.lists.lock(from_id.0);
        let waiting = waiting.map_or(0, |list| list.queue.waiting_len());
        let left = waiting.min(count.unwrap_or(usize::MAX));
        let mut all = self.movings.all.lock();
        all.retain(|moving| moving.from != from);
        if rate == 0 || left == 0 {
            return Ok(0);
        }
        if all.len() >= MOVINGS_MAX {
            let text = "there is too much being moved at a rate already; let some of it end";
            return Err(SteerError::new(Code::Full, text));
        }
        let number = self.random();
        all.push(Moving {
            number,
            from: from.to_owned(),
            to: to.to_owned(),
            anew,
            rate,
            left,
            // The first one at once.
            done_until: now - one_in(rate) - Duration::from_micros(1),
        });
        drop(all);
        self.timers.schedule(now, Timer::Move(number));
        Ok(left)
    }

    pub(super) fn movings_of(&self, from: &str) -> Vec<MovingView> {
        let all = self.movings.all.lock();
        let own = all.iter().filter(|moving| moving.from == from);
        let views = own.map(|moving| MovingView {
            to: moving.to.clone(),
            rate: moving.rate,
            left: moving.left,
        });
        views.collect()
    }

    /// The next page of what goes on at a rate.
    pub(in crate::broker) fn handle_moving(&self, worker: &mut Worker, number: u64, now: Time) {
        let due = {
            let mut all = self.movings.all.lock();
            let Some(moving) = all.iter_mut().find(|moving| moving.number == number) else {
                return; // It was ended.
            };
            moving.done_until = moving.done_until.max(now - BEHIND_MAX);
            let span = now.since(moving.done_until).as_micros();
            let due = span * u128::from(moving.rate) / MICROS;
            let due = usize::try_from(due).unwrap_or(PAGE_MAX);
            let due = due.min(PAGE_MAX).min(moving.left);
            (moving.from.clone(), moving.to.clone(), moving.anew, due)
        };
        let (from, to, anew, count) = due;
        let done = self.queue_named(&from).and_then(|from_id| {
            let to_id = self.queue_named(&to)?;
            match count {
                0 => Ok((0, usize::MAX)), // Its time has not come.
                _ => self.move_some(worker, ((from_id, &from), (to_id, &to)), count, anew, now),
            }
        });
        let mut all = self.movings.all.lock();
        let Some(at) = all.iter().position(|moving| moving.number == number) else {
            return;
        };
        let moving = &mut all[at];
        let (moved, pause) = match &done {
            Ok((moved, _)) => (*moved, PAGE_EVERY.max(one_in(moving.rate))),
            Err(error) if error.code == Code::Full => (0, FULL_FOR),
            Err(_) => (moving.left, Duration::ZERO), // There is nothing to go on with.
        };
        moving.left -= moved.min(moving.left);
        moving.done_until = moving.done_until + one_in(moving.rate) * count as u32;
        let is_over = moving.left == 0 || matches!(done, Ok((0, 0)));
        if is_over {
            let ended = all.swap_remove(at);
            tracing::info!(from = ended.from, to = ended.to, "moving at a rate is over");
        } else {
            drop(all);
            self.timers.schedule(now + pause, Timer::Move(number));
        }
    }
}

/// How long one message takes at a rate.
fn one_in(rate: u32) -> Duration {
    Duration::from_secs(1) / rate.max(1)
}
