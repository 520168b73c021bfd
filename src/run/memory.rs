//! How much memory there is, and how much of it the broker has.
//!
//! Owns where the system says so. What follows from it is the broker's.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::net::Shared;

/// How often it is looked: at a gigabyte a second, a tenth of that may be too
/// much.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The ceiling where none is set, in bytes: four fifths of what the machine and
/// the process's control groups allow, for the rest is the system's, and what
/// comes between two looks. 0: the system does not say.
pub fn default_ceiling() -> u64 {
    let total = read_kib(Path::new("/proc/meminfo"), "MemTotal:");
    let least = group_limits().chain(total).min();
    least.map_or(0, |bytes| bytes / 5 * 4)
}

/// Tells the broker how much memory is resident, for as long as it runs.
pub async fn watch(shared: Arc<Shared>) {
    let Some(bytes_max) = shared.core.memory().bytes_max() else {
        return;
    };
    let status = Path::new("/proc/self/status");
    tracing::debug!(bytes_max, "memory_bytes_max");
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let Some(resident) = read_kib(status, "VmRSS:") else {
            return tracing::warn!(
                "the system does not say how much memory the broker has: there is no memory_bytes_max"
            );
        };
        shared.core.note_memory(resident);
    }
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

fn find_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib = line.trim().strip_suffix("kB")?.trim_end();
    kib.parse::<u64>().ok()?.checked_mul(1024)
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
        let resident = read_kib(Path::new("/proc/self/status"), "VmRSS:");
        let total = read_kib(Path::new("/proc/meminfo"), "MemTotal:");
        assert!(resident > Some(0) && resident < total);
        assert!(default_ceiling() > 0 && Some(default_ceiling()) < total);
    }
}
