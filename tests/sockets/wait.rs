//! Waiting for what has to happen.

use std::time::{Duration, Instant};

/// Only a failure takes so long.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Returns as soon as `happened` says so.
///
/// # Panics
/// When it never does; `what` says what was waited for.
pub fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < DEADLINE, "this never happened: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
