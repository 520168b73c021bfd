//! Sending all clients away, so that those who stay, and those whom they go to,
//! notice as little of it as can be.
//!
//! Owns the pace. What each is told is its session's; what is stored, the core's.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::net::{Shared, with_worker};
use crate::origin::ListenerName;
use crate::session::Close;

/// How often a stopping broker looks whether all connections are closed.
const STOP_POLL: Duration = Duration::from_millis(5);
/// So many connections are told to end, then others have their turns.
const SLICE: usize = 256;
/// Which takes so long at least.
const SLICE_APART: Duration = Duration::from_millis(1);
/// Where there is a pace, it is kept in steps of this.
const STEP: Duration = Duration::from_millis(10);

/// Tells all connections to end, or those of one listener.
pub(super) async fn close_in_slices(
    shared: &Shared,
    close: &Close,
    listener: Option<&ListenerName>,
) {
    let core = &shared.core;
    let mut closing = core.begin_closing(close.clone(), listener.cloned());
    let mut close_some = || {
        with_worker(shared, |local| {
            core.close_some(&mut local.worker, &mut closing, SLICE)
        })
    };
    while close_some() == SLICE {
        sleep(SLICE_APART).await;
    }
}

/// Tells all connections to end, `per_sec` of them a second (0: as fast as may
/// be) for so long, and then the rest; ends when the last is closed.
pub(super) async fn drain(shared: &Shared, close: &Close, per_sec: u64, paced: Duration) {
    if per_sec > 0 {
        // Who is not in time is told with the rest.
        _ = tokio::time::timeout(paced, close_paced(shared, close, per_sec)).await;
    }
    // Again and again: a CONNECT may have been under way.
    while shared.connections_len() > 0 {
        close_in_slices(shared, close, None).await;
        sleep(STOP_POLL).await;
    }
}

async fn close_paced(shared: &Shared, close: &Close, per_sec: u64) {
    let begin = Instant::now();
    let mut closing = shared.core.begin_closing(close.clone(), None);
    let mut told = 0;
    loop {
        let due = due(begin.elapsed(), per_sec).saturating_sub(told);
        let count_max = (due as usize).min(SLICE);
        let count = with_worker(shared, |local| {
            (shared.core).close_some(&mut local.worker, &mut closing, count_max)
        });
        told += count as u64;
        if count < count_max {
            return;
        }
        sleep(STEP).await;
    }
}

/// How many are told by then: the first at once.
fn due(elapsed: Duration, per_sec: u64) -> u64 {
    let due = elapsed.as_micros().saturating_mul(per_sec.into()) / 1_000_000;
    u64::try_from(due).unwrap_or(u64::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_second_are_told_and_the_first_at_once() {
        let due_after = |ms| due(Duration::from_millis(ms), 100);
        assert_eq!([0, 9, 10, 25, 1000].map(due_after), [1, 1, 2, 3, 101]);
        assert_eq!(due(Duration::MAX, u64::MAX), u64::MAX);
    }
}
