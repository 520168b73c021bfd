//! What the system knows of the process.

use std::fs;

use rustix::process::{Resource, getrlimit};

use crate::process::find_kib;

/// In which /proc counts time: the same on every machine that Rust knows.
const TICKS_PER_SEC: f64 = 100.0;

/// What could be found out.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub cpu_secs: Option<f64>,
    pub resident_bytes: Option<u64>,
    pub virtual_bytes: Option<u64>,
    pub threads: Option<u64>,
    pub open_fds: Option<u64>,
    /// `None`: any number.
    pub max_fds: Option<u64>,
}

impl Process {
    pub fn look() -> Process {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Process {
            cpu_secs: cpu_secs(),
            resident_bytes: find_kib(&status, "VmRSS:"),
            virtual_bytes: find_kib(&status, "VmSize:"),
            threads: threads(&status),
            open_fds: open_fds(),
            max_fds: getrlimit(Resource::Nofile).current,
        }
    }
}

/// The processor time that all threads have used so far.
pub(in crate::admin) fn cpu_secs() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    cpu_ticks(&stat).map(|ticks| ticks as f64 / TICKS_PER_SEC)
}

/// In user and system mode, of all threads; see proc_pid_stat(5). The name before
/// it, in brackets, may be anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    next()?.checked_add(next()?)
}

fn threads(status: &str) -> Option<u64> {
    let mut lines = status.lines();
    let threads = lines.find_map(|line| line.strip_prefix("Threads:"))?;
    threads.trim().parse().ok()
}

/// Linux tells it as the folder's size since 6.2; before, the files are counted.
fn open_fds() -> Option<u64> {
    let folder = "/proc/self/fd";
    match fs::metadata(folder).ok()?.len() {
        // One of them is the look itself.
        0 => Some(fs::read_dir(folder).ok()?.count().saturating_sub(1) as u64),
        len => Some(len),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 12 30 0 0 20 0 3 0 99 1 2";
        assert_eq!(cpu_ticks(stat), Some(42));
        for stat in [
            "",
            "7 (a",
            "7 (a) S 1",
            "7 (a) S 1 7 7 0 -1 4194560 1 0 0 0 x 30",
        ] {
            assert_eq!(cpu_ticks(stat), None, "{stat:?}");
        }
        let status = "Name:\tThreads:\nVmRSS:\t    9876 kB\nThreads:\t3\n";
        assert_eq!(threads(status), Some(3));
        assert_eq!(threads("Name:\tx\n"), None);
        let process = Process::look();
        assert!(process.resident_bytes > Some(0), "{process:?}");
        assert!(
            process.virtual_bytes >= process.resident_bytes,
            "{process:?}"
        );
        assert!(process.open_fds >= Some(3), "{process:?}");
        assert!(
            process.cpu_secs.is_some() && process.threads > Some(0),
            "{process:?}"
        );
    }
}
