//! How much memory there is, and how much of it the broker has.
//!
//! Owns where the system says so. What follows from it is the broker's.
//!
//! It is resident memory, and no account of our own, that gets a process killed.
//! What the allocator gives back of what was freed, and when, is another matter:
//! of a session of 80 MiB that is emptied 30 MiB at once, of such a queue
//! sometimes next to nothing. So where memory is short each thread is told to
//! give back what it keeps: else a broker that once had more than it may would
//! slow its publishers down for ever.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fs, io};

use tokio::runtime::Handle;

use crate::broker::Shedding;
use crate::config::Config;
use crate::net::Shared;
use crate::process::{Resident, find_kib};

/// How often it is looked, as long as there is plenty;
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// and when three quarters of it are used.
const LOOK_EVERY_NEAR: Duration = Duration::from_millis(10);

/// How often threads are told to give memory back, while it is short.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(1);

static GIVE_BACK: OnceLock<fn()> = OnceLock::new();
// How often all were told.
static TOLD: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static DONE: Cell<u32> = const { Cell::new(0) };
}

/// For the program that says which allocator there is: while a broker is short
/// of memory, each of its threads calls this from time to time, which is to give
/// back to the system what the calling thread's part of the allocator keeps. The
/// first one that is named counts.
pub fn give_back_by(give_back: fn()) {
    GIVE_BACK.get_or_init(|| give_back);
}

/// A thread of the runtime has nothing to do at the moment.
pub fn on_thread_park() {
    let told = TOLD.load(Ordering::Relaxed);
    if DONE.replace(told) != told
        && let Some(give_back) = GIVE_BACK.get()
    {
        give_back();
    }
}

/// Tells all threads, and wakes them for it.
fn tell_threads(runtime: &Handle) {
    TOLD.fetch_add(1, Ordering::Relaxed);
    (0..runtime.metrics().num_workers()).for_each(|_| drop(runtime.spawn(async {})));
}

/// Looks how much memory is resident, until it is dropped, and tells the broker.
///
/// On a thread of its own: when memory runs out, those of the runtime have
/// much to do.
pub struct Watch {
    bytes_max: u64,
    // `None` once it is to end.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// `None`: there is no ceiling.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn start(shared: &Arc<Shared>, runtime: &Handle) -> io::Result<Option<Watch>> {
        let Some(bytes_max) = shared.core.memory().bytes_max() else {
            return Ok(None);
        };
        let Some(resident) = Resident::open() else {
            tracing::warn!(
                "the system does not say how much memory the broker has: there is no \
                 memory_bytes_max"
            );
            return Ok(None);
        };
        let (shared, runtime) = (shared.clone(), runtime.clone());
        let (stop, stopped) = channel();
        let thread = thread::Builder::new().name("rotamq-memory".into());
        let thread = thread.spawn(move || watch(&shared, &runtime, &resident, &stopped))?;
        Ok(Some(Watch {
            bytes_max,
            stop: Some(stop),
            thread: Some(thread),
        }))
    }

    /// The ceiling that it was started with.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that looks at the memory has panicked");
        }
    }
}

fn watch(shared: &Shared, runtime: &Handle, resident: &Resident, stopped: &Receiver<()>) {
    let memory = shared.core.memory();
    let (mut last, mut told) = (0, Instant::now());
    loop {
        // Where it cannot be read now it is as it was; the next look tells.
        let resident = resident.bytes().unwrap_or(last);
        last = resident;
        shared.core.note_memory(resident, shared.clock.now());
        if memory.shedding() > Shedding::Nothing && told.elapsed() >= GIVE_BACK_EVERY {
            told = Instant::now();
            tell_threads(runtime);
        }
        let next = match resident > memory.bytes_max().unwrap_or(u64::MAX) / 4 * 3 {
            true => LOOK_EVERY_NEAR,
            false => LOOK_EVERY,
        };
        if stopped.recv_timeout(next) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// The configuration, with the ceiling that there is where it sets none.
pub fn with_ceiling(config: &Config) -> Config {
    let mut config = config.clone();
    (config.limits.memory_bytes_max).get_or_insert_with(default_ceiling);
    config
}

/// The ceiling where none is set, in bytes: four fifths of what the machine and
/// the process's control groups allow, for the rest is the system's, and what
/// comes between two looks. 0: the system does not say.
pub fn default_ceiling() -> u64 {
    let total = read_kib(Path::new("/proc/meminfo"), "MemTotal:");
    let least = group_limits().chain(total).min();
    least.map_or(0, |bytes| bytes / 5 * 4)
}

/// What limits the process's group and those around it (cgroup v2).
fn group_limits() -> impl Iterator<Item = u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    let group = group.map(|group| Path::new("/sys/fs/cgroup").join(group));
    let around = group.as_deref().map(Path::ancestors);
    let files: Vec<PathBuf> = (around.into_iter().flatten())
        .map(|folder| folder.join("memory.max"))
        .collect();
    let limits = (files.into_iter()).filter_map(|file| fs::read_to_string(file).ok());
    // "max": none.
    limits.filter_map(|text| text.trim().parse().ok())
}

/// The number behind `name` in a file of lines such as `VmRSS:  1024 kB`, in
/// bytes.
fn read_kib(file: &Path, name: &str) -> Option<u64> {
    find_kib(&fs::read_to_string(file).ok()?, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read() {
        let status = "Name:\trotamq\nVmHWM:\t   12345 kB\nVmRSS:\t    9876 kB\nThreads:\t3\n";
        assert_eq!(find_kib(status, "VmRSS:"), Some(9876 << 10));
        for text in [
            "",
            "VmRSS:\n",
            "VmRSS: 1\n",
            "VmRSS: x kB\n",
            "VmRSS: -1 kB\n",
            "VmRSS: 99999999999999999999 kB\n",
            "VmRSS: 18446744073709551615 kB\n",
        ] {
            assert_eq!(find_kib(text, "VmRSS:"), None, "{text:?}");
        }
        let resident = Resident::open().and_then(|resident| resident.bytes());
        let total = read_kib(Path::new("/proc/meminfo"), "MemTotal:");
        assert!(resident > Some(0) && resident < total);
        assert!(default_ceiling() > 0 && Some(default_ceiling()) < total);
    }
}
