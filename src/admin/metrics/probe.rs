//! How late the runtime's threads come to what they have to do.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::tally::Histogram;

/// Ten wakes a second are some hundredths of a per cent of a core.
const PROBE_EVERY: Duration = Duration::from_millis(100);

/// Sleeps and notes how late it wakes, for ever. It tells of the thread that
/// happens to wake it: over some minutes, of all of them.
pub(super) async fn keep_probing(delays: Arc<Histogram>) {
    let mut due = Instant::now() + PROBE_EVERY;
    loop {
        sleep_until(due).await;
        let now = Instant::now();
        delays.note_span(now.saturating_duration_since(due));
        due = now + PROBE_EVERY;
    }
}
