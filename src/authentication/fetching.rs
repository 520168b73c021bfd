//! When keys that a login service publishes are fetched again.
//!
//! Owns the pace: at the latest after the time that is configured, sooner if
//! the service says so or somebody brings a token of a key that is not known,
//! and never more often than is configured.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::requests::Requests;

/// Where keys are fetched, and how it went.
pub struct Fetching {
    pub requests: Requests,
    pause: Duration,
    refresh: Duration,
    pace: Mutex<Pace>,
    wanted: Notify,
    ended: watch::Sender<()>,
}

/// How fetching goes on.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    /// When the last fetch began; `None`: the first is about to.
    begun: Option<Instant>,
    is_running: bool,
    has_failed: bool,
}

impl Pace {
    /// Whether what somebody wants at this moment comes of a fetch that is under
    /// way, or of one that may begin now.
    fn serves(&self, now: Instant, pause: Duration) -> bool {
        self.is_running || self.may_begin(now, pause)
    }

    fn may_begin(&self, now: Instant, pause: Duration) -> bool {
        let since = |begun| now.saturating_duration_since(begun);
        !self.is_running && self.begun.is_none_or(|begun| since(begun) >= pause)
    }
}

impl Fetching {
    /// `pause`: from the beginning of a fetch to that of the next, at least.
    /// `refresh`: how old keys may become.
    pub fn new(requests: Requests, pause: Duration, refresh: Duration) -> Fetching {
        Fetching {
            requests,
            pause,
            refresh: refresh.max(pause),
            pace: Mutex::default(),
            wanted: Notify::new(),
            ended: watch::Sender::new(()),
        }
    }

    /// Until a fetch may begin, if there was one.
    pub async fn rest_out(&self) {
        let begun = self.pace.lock().begun;
        let since = begun.map_or(Duration::MAX, |begun| begun.elapsed());
        sleep(self.pause.saturating_sub(since)).await;
    }

    /// A fetch begins.
    pub fn begin(&self) {
        let mut pace = self.pace.lock();
        (pace.begun, pace.is_running) = (Some(Instant::now()), true);
    }

    /// It ended. `max_age`: how long the service says that the keys stay right;
    /// `Err`: there were none. When the next is to begin.
    pub fn end(&self, max_age: Result<Option<Duration>, ()>) -> Duration {
        let mut pace = self.pace.lock();
        (pace.is_running, pace.has_failed) = (false, max_age.is_err());
        drop(pace);
        self.ended.send_replace(());
        wait(max_age, self.pause, self.refresh)
    }

    /// Until the next fetch is to begin, in so long or when somebody wants it.
    pub async fn rest(&self, span: Duration) {
        let wanted = async {
            self.wanted.notified().await;
            self.rest_out().await;
        };
        // Either is a reason.
        _ = timeout(span, wanted).await;
    }

    /// Keys are to be fetched as soon as that may be.
    pub fn soon(&self) {
        self.wanted.notify_one();
    }

    /// Whether keys are fetched now, which somebody wants.
    pub fn want(&self) -> bool {
        let pace = *self.pace.lock();
        if pace.may_begin(Instant::now(), self.pause) {
            self.wanted.notify_one();
        }
        pace.serves(Instant::now(), self.pause)
    }

    /// Waits for keys that somebody wants; not at all, if it is too soon after the
    /// last fetch.
    pub async fn fetched(&self) {
        let mut ended = self.ended.subscribe();
        if self.want() {
            // An error means that nobody fetches any more.
            _ = ended.changed().await;
        }
    }

    /// Whether the last fetch failed.
    pub fn has_failed(&self) -> bool {
        self.pace.lock().has_failed
    }
}

/// From the end of a fetch to the beginning of the next.
fn wait(max_age: Result<Option<Duration>, ()>, pause: Duration, refresh: Duration) -> Duration {
    match max_age {
        Ok(max_age) => max_age.unwrap_or(refresh).clamp(pause, refresh),
        Err(()) => pause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(10);

    #[test]
    fn when_keys_are_fetched_again() {
        let secs = Duration::from_secs;
        let hour = secs(3600);
        for (max_age, expected) in [
            (Ok(None), hour),
            (Ok(Some(secs(300))), secs(300)),
            (Ok(Some(secs(0))), PAUSE),
            (Ok(Some(secs(86_400))), hour),
            (Err(()), PAUSE),
        ] {
            assert_eq!(wait(max_age, PAUSE, hour), expected);
        }
    }

    /// Tokens of unknown keys, however many, cost one fetch in a while.
    #[test]
    fn who_wants_keys_waits_for_a_fetch_or_is_too_early() {
        let now = Instant::now();
        let begun = |ago: Duration, is_running| {
            Pace {
                begun: Some(now),
                is_running,
                has_failed: false,
            }
            .serves(now + ago, PAUSE)
        };
        assert!(Pace::default().serves(now, PAUSE));
        assert!(begun(Duration::ZERO, true));
        assert!(!begun(Duration::ZERO, false));
        assert!(!begun(PAUSE - Duration::from_millis(1), false));
        assert!(begun(PAUSE, false));
    }
}
