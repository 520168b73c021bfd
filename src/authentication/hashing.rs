//! Threads that check passwords, and do nothing else.
//!
//! Owns how many checks are under way and how many wait: a check takes a core
//! for some 20 ms, and is to keep nobody's messages waiting. Beyond the bound a
//! check is refused at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::stored::Stored;

/// The threads; they end when it is dropped.
pub struct Hashing {
    checks: SyncSender<Check>,
    computed: Arc<AtomicU64>,
}

/// Too many checks wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

struct Check {
    stored: Arc<Stored>,
    password: Box<[u8]>,
    reply: oneshot::Sender<bool>,
}

impl Hashing {
    /// `threads`, 0: half of the cores; `waiting_max`: checks that wait for one
    /// of them.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn start(threads: usize, waiting_max: usize) -> io::Result<Hashing> {
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1)),
            threads => threads,
        };
        let (checks, waiting) = sync_channel(waiting_max);
        let waiting = Arc::new(Mutex::new(waiting));
        let computed = Arc::new(AtomicU64::new(0));
        for _ in 0..threads {
            let (waiting, computed) = (waiting.clone(), computed.clone());
            let thread = std::thread::Builder::new().name("rotamq-hash".to_owned());
            thread.spawn(move || check_all(&waiting, &computed))?;
        }
        Ok(Hashing { checks, computed })
    }

    /// Whether `stored` is of this password. Dropping the future takes the
    /// check back, unless it is under way.
    ///
    /// # Errors
    /// [`Busy`].
    pub async fn check(&self, stored: Arc<Stored>, password: &[u8]) -> Result<bool, Busy> {
        let (reply, answer) = oneshot::channel();
        let check = Check {
            stored,
            password: password.into(),
            reply,
        };
        match self.checks.try_send(check) {
            Ok(()) => answer.await.map_err(|_| Busy),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(Busy),
        }
    }

    /// How many were computed so far.
    pub fn computed(&self) -> u64 {
        self.computed.load(Ordering::Relaxed)
    }
}

fn check_all(waiting: &Mutex<Receiver<Check>>, computed: &AtomicU64) {
    loop {
        // One thread waits for a check, the others for their turn to wait.
        let next = waiting.lock().recv();
        let Ok(check) = next else { return };
        if check.reply.is_closed() {
            continue; // The client is gone.
        }
        computed.fetch_add(1, Ordering::Relaxed);
        let matches = check.stored.matches(&check.password);
        if check.reply.send(matches).is_err() {
            tracing::trace!("a client was gone before its password was checked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn stored() -> Arc<Stored> {
        let text = "$7$1$AAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        Arc::new(Stored::parse(text).unwrap())
    }

    /// Case C56 of docs/security.md.
    #[test]
    fn too_many_are_too_busy_and_who_is_gone_costs_nothing() {
        // Nobody checks anything yet.
        let (checks, waiting) = sync_channel(2);
        let (waiting, computed) = (Mutex::new(waiting), Arc::new(AtomicU64::new(0)));
        let hashing = Arc::new(Hashing {
            checks,
            computed: computed.clone(),
        });
        let ask = || {
            let hashing = hashing.clone();
            Box::pin(async move { hashing.check(stored(), b"guess").await })
        };
        let mut cx = Context::from_waker(Waker::noop());
        let (mut first, mut second, mut third, last) = (ask(), ask(), ask(), ask());
        assert_eq!(first.as_mut().poll(&mut cx), Poll::Pending);
        assert_eq!(second.as_mut().poll(&mut cx), Poll::Pending);
        assert_eq!(third.as_mut().poll(&mut cx), Poll::Ready(Err(Busy)));
        drop((second, third, hashing));
        std::thread::scope(|scope| {
            scope.spawn(|| check_all(&waiting, &computed));
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.unwrap().block_on(async {
                assert_eq!(first.await, Ok(false));
                assert_eq!(last.await, Ok(false));
            });
        });
        assert_eq!(computed.load(Ordering::Relaxed), 2);
    }
}
