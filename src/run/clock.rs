//! The broker's time beside the system's.
//!
//! Deadlines are stored, so the time has to go on from one run to the next,
//! also where the system's clock was wrong then or is wrong now. The broker's
//! time never goes back, and never leaps by more than a broker may be switched
//! off; how far that takes it from the system's clock is remembered, and said
//! in the log.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::message::Time;

/// A broker that was off for longer has a clock that was set, as far as anyone
/// can tell.
const LEAP_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// Less is no step, but how clocks are.
const STEP_MIN: Duration = Duration::from_secs(60);

/// What a run leaves of its time for the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CalendarRecord {
    /// What the broker's clock showed last.
    pub shown: Time,
    /// How far it was ahead of the system's, in microseconds.
    pub ahead_micros: i64,
}

impl CalendarRecord {
    pub fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.shown.as_micros().to_le_bytes());
        bytes[8..].copy_from_slice(&self.ahead_micros.to_le_bytes());
        bytes
    }

    /// `None`: it is none.
    pub fn decode(bytes: &[u8]) -> Option<CalendarRecord> {
        let bytes: &[u8; 16] = bytes.try_into().ok()?;
        Some(CalendarRecord {
            shown: Time::from_micros(u64::from_le_bytes(*bytes.first_chunk()?)),
            ahead_micros: i64::from_le_bytes(*bytes.last_chunk()?),
        })
    }
}

/// How the broker's time lies to the system's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calendar {
    shown: Time,
    ahead_micros: i64,
}

impl Calendar {
    /// For a broker that starts, and what the run before it left; with the moment
    /// at which its clock shows [`Calendar::shown`].
    pub fn starting(before: Option<CalendarRecord>) -> (Instant, Calendar) {
        let begin = Instant::now();
        let system = system_time();
        let start = Instant::now();
        let calendar = Calendar::starting_at(system, before);
        (start, calendar.read_within(start.duration_since(begin)))
    }

    /// For a reading of both clocks that took `span`: the broker's may be behind
    /// what was calculated by as much. What the next run is told is never too
    /// much, as what is delayed would come too early then.
    fn read_within(mut self, span: Duration) -> Calendar {
        self.ahead_micros -= span.as_micros() as i64 + 1;
        self
    }

    fn starting_at(system: Time, before: Option<CalendarRecord>) -> Calendar {
        let Some(CalendarRecord {
            shown,
            ahead_micros,
        }) = before
        else {
            return Calendar {
                shown: system,
                ahead_micros: 0,
            };
        };
        let expected = system.as_micros().saturating_add_signed(ahead_micros);
        let expected = Time::from_micros(expected);
        if (shown..=shown + LEAP_MAX).contains(&expected) {
            return Calendar {
                shown: expected,
                ahead_micros,
            };
        }
        // As if no time had passed.
        let calendar = Calendar {
            shown,
            ahead_micros: ahead(shown, system),
        };
        let back = shown.since(expected);
        if back >= STEP_MIN {
            tracing::warn!(
                seconds = back.as_secs(),
                "the system's clock was set back since the broker ran last: deadlines are \
                 counted on from then, as if no time had passed"
            );
        } else if expected > shown {
            tracing::warn!(
                days = expected.since(shown).as_secs() / (24 * 60 * 60),
                "the system's clock is far ahead of when the broker ran last: deadlines are \
                 counted on from then, as if no time had passed"
            );
        }
        calendar
    }

    /// What the broker's clock shows.
    pub fn shown(&self) -> Time {
        self.shown
    }

    /// The broker's clock has just shown `now`; the system's may have been set
    /// meanwhile.
    pub fn look(&mut self, now: Time) {
        self.look_at(system_time(), now);
    }

    fn look_at(&mut self, system: Time, now: Time) {
        let ahead = ahead(now, system);
        let step = ahead.abs_diff(self.ahead_micros);
        if Duration::from_micros(step) >= STEP_MIN {
            tracing::warn!(
                seconds = step / 1_000_000,
                "the system's clock was set {}: deadlines are counted by the broker's own, \
                 which goes on as before",
                if ahead < self.ahead_micros {
                    "forward"
                } else {
                    "back"
                }
            );
        }
        (self.shown, self.ahead_micros) = (now, ahead);
    }

    pub fn record(&self) -> CalendarRecord {
        CalendarRecord {
            shown: self.shown,
            ahead_micros: self.ahead_micros,
        }
    }
}

/// A clock before 1970 tells nobody anything.
fn system_time() -> Time {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    Time::ZERO + since_1970.unwrap_or_default()
}

fn ahead(of: Time, system: Time) -> i64 {
    let micros = i128::from(of.as_micros()) - i128::from(system.as_micros());
    i64::try_from(micros).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    const HOUR: Duration = Duration::from_secs(60 * 60);

    fn begin() -> Time {
        Time::ZERO + 56 * YEAR
    }

    /// Case K13 of docs/security.md.
    #[test]
    fn time_goes_on_while_the_broker_is_off() {
        let first = Calendar::starting_at(begin(), None);
        assert_eq!(first.shown(), begin());
        let later = Calendar::starting_at(begin() + HOUR, Some(first.record()));
        assert_eq!(later.shown(), begin() + HOUR);
    }

    #[test]
    fn a_clock_read_slowly_never_makes_the_next_run_early() {
        let slow = Duration::from_millis(3);
        let first = Calendar::starting_at(begin(), None).read_within(slow);
        // The clock showed that up to 3 ms later.
        assert_eq!(first.shown(), begin());
        let next = Calendar::starting_at(begin() + slow + HOUR, Some(first.record()));
        assert!(next.shown() <= begin() + HOUR);
    }

    /// Case K13 of docs/security.md.
    #[test]
    fn ten_years_back_or_ahead_are_none_for_deadlines() {
        let record = Calendar::starting_at(begin(), None).record();
        for system in [begin() - 10 * YEAR, begin() + 10 * YEAR] {
            let next = Calendar::starting_at(system, Some(record));
            assert_eq!(next.shown(), begin());
            // It stays so, and time goes on from there.
            let third = Calendar::starting_at(system + HOUR, Some(next.record()));
            assert_eq!(third.shown(), begin() + HOUR);
            assert_eq!(
                CalendarRecord::decode(&next.record().encode()),
                Some(next.record())
            );
        }
    }

    #[test]
    fn a_clock_that_is_set_while_the_broker_runs_is_no_leap_for_the_next() {
        let mut calendar = Calendar::starting_at(Time::ZERO + HOUR, None);
        // A machine without a clock of its own has asked the network.
        calendar.look_at(begin(), Time::ZERO + 2 * HOUR);
        let next = Calendar::starting_at(begin() + HOUR, Some(calendar.record()));
        assert_eq!(next.shown(), Time::ZERO + 3 * HOUR);
    }
}
