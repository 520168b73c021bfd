//! What the service manager is told: that the broker is ready, reads its
//! configuration again, stops, and is alive (sd_notify(3)).
//!
//! Owns when it counts as alive. Where nobody listens nothing is said.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::net::{Shared, with_worker};

/// A thread that has not gone round for so long is stuck, where the manager
/// does not give it longer. It goes round once a second at least.
const STUCK_AFTER_MIN: Duration = Duration::from_secs(3);

/// The manager that started this process.
#[derive(Clone, Copy)]
pub(crate) struct Systemd(());

impl Systemd {
    /// `None`: it has none, or one that does not want to know.
    pub fn of_environment() -> Option<Systemd> {
        std::env::var_os("NOTIFY_SOCKET").map(|_| Systemd(()))
    }

    /// Clients may come.
    pub fn ready(self, status: &str) {
        tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The configuration is read again; [`Systemd::ready`] ends that.
    pub fn reloading(self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => not_told(&error),
        }
    }

    pub fn stopping(self, status: &str) {
        tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
    }

    /// Says that the broker is alive, as often as it is asked for and as long as
    /// that is so: a turn of its own goes through the core, and the store's
    /// thread goes round.
    pub(super) async fn keep_watched(self, shared: Arc<Shared>, beats: Arc<Beats>) {
        let Some(within) = sd_notify::watchdog_enabled() else {
            return;
        };
        let mut pulse = Pulse::new(Instant::now());
        let stuck_after = within.max(STUCK_AFTER_MIN);
        loop {
            let now = shared.clock.now();
            with_worker(&shared, |local| {
                shared.core.handle_timeout(&mut local.worker, now);
            });
            let has_thread = shared.core.store().is_on() && shared.core.store().failure().is_none();
            let is_stuck = pulse.is_stuck(beats.count(), stuck_after, Instant::now());
            match has_thread && is_stuck {
                false => tell(&[NotifyState::Watchdog]),
                true => tracing::error!("the store's thread is stuck: the disk does not answer"),
            }
            tokio::time::sleep(within / 2).await;
        }
    }
}

/// How often a thread has gone round.
#[derive(Debug, Default)]
pub(crate) struct Beats(AtomicU64);

impl Beats {
    /// Once more.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// When that changed last.
struct Pulse {
    count: u64,
    changed: Instant,
}

impl Pulse {
    fn new(now: Instant) -> Pulse {
        Pulse {
            count: 0,
            changed: now,
        }
    }

    fn is_stuck(&mut self, count: u64, after: Duration, now: Instant) -> bool {
        if count != self.count {
            (self.count, self.changed) = (count, now);
        }
        now.duration_since(self.changed) >= after
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        not_told(&error);
    }
}

fn not_told(error: &io::Error) {
    tracing::warn!(%error, "the service manager could not be told");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_stuck_that_has_not_gone_round_for_long() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let after = Duration::from_secs(3);
        let mut pulse = Pulse::new(start);
        assert!(!pulse.is_stuck(0, after, at(2)));
        assert!(pulse.is_stuck(0, after, at(3)));
        assert!(!pulse.is_stuck(1, after, at(4)));
        assert!(!pulse.is_stuck(1, after, at(6)));
        assert!(pulse.is_stuck(1, after, at(7)));
        assert!(!pulse.is_stuck(2, after, at(9)));
    }
}
