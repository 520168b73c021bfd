//! How late the runtime's threads come to what they have to do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::tally::Histogram;

/// Ten probes a second are some hundredths of a per cent of a core.
const PROBE_EVERY: Duration = Duration::from_millis(100);

/// Gives the runtime something to do and notes when it does, for ever. It tells of
/// the thread that happens to do it: over some minutes, of all of them.
pub(super) async fn keep_probing(runtime: Handle, delays: Arc<Histogram>) {
    loop {
        let (delays, given) = (delays.clone(), Instant::now());
        let probe = runtime.spawn(async move { delays.note_span(given.elapsed()) });
        // It fails when the runtime ends, and so does this one.
        _ = probe.await;
        sleep(PROBE_EVERY).await;
    }
}
