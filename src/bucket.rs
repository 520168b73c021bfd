//! Token buckets: how much of something may happen in a second.
//!
//! Pure: a moment is an argument. Who may not go on is told from when on it
//! may; waiting is its own.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::message::Time;

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// What may happen so often a second, and after a rest for as much at once as
/// its burst holds.
///
/// Kept as the one moment at which it is full: what is taken out moves that
/// away.
#[derive(Clone, Debug)]
pub struct Bucket {
    per_sec: NonZeroU64,
    burst_nanos: u64,
    debt_nanos_max: u64,
    // In nanoseconds: at a million a second, a microsecond is one too many.
    full_at: u64,
}

impl Bucket {
    /// A full one. It holds what `per_sec` gives in `burst`, and one at least.
    pub fn new(per_sec: NonZeroU64, burst: Duration) -> Bucket {
        let burst_nanos = u64::try_from(burst.as_nanos()).unwrap_or(u64::MAX);
        Bucket {
            per_sec,
            burst_nanos: burst_nanos.max(one_nanos(per_sec)),
            debt_nanos_max: u64::MAX,
            full_at: 0,
        }
    }

    /// One that forgets debt beyond what comes in within `debt`: so long, or
    /// until one comes in, it makes anybody wait at most.
    pub fn with_debt_max(self, debt: Duration) -> Bucket {
        let debt_nanos = u64::try_from(debt.as_nanos()).unwrap_or(u64::MAX);
        Bucket {
            debt_nanos_max: debt_nanos.max(one_nanos(self.per_sec)),
            ..self
        }
    }

    pub fn per_sec(&self) -> u64 {
        self.per_sec.get()
    }

    /// How many may be taken out at `now`.
    pub fn room(&self, now: Time) -> u64 {
        let missing = self.full_at.saturating_sub(nanos(now));
        let left = u128::from(self.burst_nanos.saturating_sub(missing));
        let room = left * u128::from(self.per_sec.get()) / u128::from(NANOS_PER_SEC);
        u64::try_from(room).unwrap_or(u64::MAX)
    }

    /// Takes out `count`, also if there is not as much in it: then it is in
    /// debt. From when on there is one to be taken again, which may be past.
    pub fn take(&mut self, count: u64, now: Time) -> Time {
        let now = nanos(now);
        let full_at = (self.full_at.max(now)).saturating_add(cost_nanos(self.per_sec, count));
        let latest = now
            .saturating_add(self.left_over())
            .saturating_add(self.debt_nanos_max);
        // An earlier moment than the last does not forget what that has left.
        self.full_at = full_at.min(latest.max(self.full_at));
        self.ready_at()
    }

    /// From when on there is one to be taken.
    pub fn ready_at(&self) -> Time {
        let ready = self.full_at.saturating_sub(self.left_over());
        // Not a moment too early.
        Time::from_micros(ready.div_ceil(1000))
    }

    /// How far from full it may be and there still is one in it.
    fn left_over(&self) -> u64 {
        self.burst_nanos - one_nanos(self.per_sec)
    }
}

/// In how long so many come in.
fn cost_nanos(per_sec: NonZeroU64, count: u64) -> u64 {
    let nanos = u128::from(count) * u128::from(NANOS_PER_SEC);
    u64::try_from(nanos / u128::from(per_sec.get())).unwrap_or(u64::MAX)
}

/// In how long one is sure to have come in.
fn one_nanos(per_sec: NonZeroU64) -> u64 {
    NANOS_PER_SEC.div_ceil(per_sec.get())
}

fn nanos(time: Time) -> u64 {
    time.as_micros().saturating_mul(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MICRO: Duration = Duration::from_micros(1);

    fn bucket(per_sec: u64, burst: Duration) -> Bucket {
        Bucket::new(NonZeroU64::new(per_sec).unwrap(), burst)
    }

    fn start() -> Time {
        Time::ZERO + 56 * 365 * 86_400 * SECOND
    }

    /// C25: at 1, at an odd number, and at the most that can be set.
    #[test]
    fn a_second_s_worth_at_once_and_then_as_it_comes() {
        for per_sec in [1, 2, 3, 7, 10, 999, 1_000_000] {
            let mut bucket = bucket(per_sec, SECOND);
            let now = start();
            assert_eq!(bucket.room(now), per_sec);
            for _ in 1..per_sec {
                assert!(bucket.take(1, now) <= now);
            }
            let ready = bucket.take(1, now);
            assert_eq!(bucket.room(now), 0);
            // Rounded up, by a microsecond at most.
            let spacing = Duration::from_nanos(NANOS_PER_SEC.div_ceil(per_sec));
            assert!(ready >= now + spacing, "{per_sec}");
            assert!(ready <= now + spacing + MICRO, "{per_sec}");
            assert_eq!(bucket.room(ready - 2 * MICRO), 0);
            assert!(bucket.room(ready) >= 1);
            // All is back when a second has passed, and never more than that.
            assert_eq!(bucket.room(now + SECOND + MICRO), per_sec);
            assert_eq!(bucket.room(now + 100 * SECOND), per_sec);
        }
        let mut most = bucket(u64::MAX, SECOND);
        assert_eq!(most.room(start()), u64::MAX);
        assert!(most.take(1 << 40, start()) <= start());
    }

    #[test]
    fn over_a_long_time_the_rate_is_kept_to_the_last() {
        for (per_sec, takes) in [(1, 1), (3, 1), (1000, 64), (12_345, 1000)] {
            let mut bucket = bucket(per_sec, SECOND);
            let (mut now, mut taken) = (start(), 0);
            let end = start() + 1000 * SECOND;
            while now < end {
                taken += takes;
                now = now.max(bucket.take(takes, now));
            }
            // The burst, and a last one that was begun.
            let most = per_sec * 1001 + takes;
            assert!((per_sec * 1000..=most).contains(&taken), "{taken}");
        }
    }

    #[test]
    fn debt_is_paid_before_anything_else() {
        let mut bucket = bucket(100, SECOND);
        let now = start();
        // Ten seconds' worth: one is in it.
        let ready = bucket.take(1000, now);
        assert_eq!(ready, now + 9 * SECOND + Duration::from_millis(10));
        assert_eq!(bucket.room(now + 9 * SECOND), 0);
        assert_eq!(bucket.room(ready), 1);
        assert_eq!(bucket.room(now + 10 * SECOND), 100);
    }

    #[test]
    fn debt_beyond_its_bound_is_forgotten() {
        for per_sec in [1, 3, 100, 1_000_000] {
            let mut bucket = bucket(per_sec, SECOND).with_debt_max(2 * SECOND);
            let now = start();
            for count in [10 * per_sec, 1, u64::MAX] {
                assert_eq!(bucket.take(count, now), now + 2 * SECOND);
            }
            assert_eq!(bucket.room(now + 2 * SECOND), 1);
            // Less than that is kept to the last.
            let (now, spacing) = (now + SECOND, SECOND / per_sec as u32);
            let ready = bucket.take(1, now);
            assert!(ready >= now + SECOND + spacing, "{per_sec}");
            assert!(ready <= now + SECOND + spacing + MICRO, "{per_sec}");
        }
        // One always has to be waited for.
        let mut least = bucket(1, SECOND).with_debt_max(SECOND / 10);
        assert_eq!(least.take(5, start()), start() + SECOND);
    }

    /// C23: with a short burst a storm is let in steadily from its beginning.
    #[test]
    fn a_short_burst_holds_one_at_least() {
        let mut bucket = bucket(5, SECOND / 100);
        let mut now = start();
        assert_eq!(bucket.room(now), 1);
        for number in 1..=100 {
            now = bucket.take(1, now);
            assert_eq!(now, start() + number * SECOND / 5);
        }
    }

    #[test]
    fn a_clock_at_its_ends_does_no_harm() {
        let mut bucket = bucket(10, SECOND);
        assert_eq!(bucket.take(1, Time::ZERO), Time::ZERO);
        assert!(bucket.take(u64::MAX, Time::MAX) <= Time::MAX);
        assert_eq!(bucket.room(Time::ZERO), 0);
    }
}
