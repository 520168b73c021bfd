//! What processes use: processor time and resident memory, from Linux's
//! /proc.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

/// Linux counts /proc/PID/stat in hundredths of a second, whatever the
/// kernel's own clock (USER_HZ).
const TICKS_PER_SECOND: u64 = 100;

/// The processor time that some processes have used so far.
#[derive(Clone, Debug, Default)]
pub struct CpuTime {
    /// To the nanosecond, thread by thread.
    tasks: HashMap<String, u64>,
    /// To a hundredth of a second, threads that have ended included.
    whole: Duration,
}

impl CpuTime {
    pub fn read(pids: &[u32]) -> Result<CpuTime, String> {
        let mut sum = CpuTime::default();
        for pid in pids {
            sum.add(*pid)?;
        }
        Ok(sum)
    }

    fn add(&mut self, pid: u32) -> Result<(), String> {
        let stat = read_proc(pid, "stat")?;
        // The name, in parentheses, may contain anything.
        let fields: Vec<&str> = match stat.rsplit_once(')') {
            Some((_, rest)) => rest.split_whitespace().collect(),
            None => Vec::new(),
        };
        // utime and stime: fields 14 and 15, and the name is the second.
        let ticks: Option<u64> = fields
            .get(11..13)
            .and_then(|times| times.iter().map(|time| time.parse::<u64>().ok()).sum());
        let ticks = ticks.ok_or_else(|| format!("/proc/{pid}/stat has no processor times"))?;
        // The numbers of tasks are unique among all processes.
        self.tasks.extend(task_times(pid).unwrap_or_default());
        self.whole += Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND);
        Ok(())
    }

    /// The time used since `earlier`; exact where the threads are the same.
    pub fn since(&self, earlier: &CpuTime) -> Duration {
        let same = !self.tasks.is_empty()
            && self.tasks.len() == earlier.tasks.len()
            && self.tasks.keys().all(|id| earlier.tasks.contains_key(id));
        if same {
            let sum = |tasks: &HashMap<String, u64>| tasks.values().sum::<u64>();
            return Duration::from_nanos(sum(&self.tasks).saturating_sub(sum(&earlier.tasks)));
        }
        self.whole.saturating_sub(earlier.whole)
    }
}

/// Resident memory of all of them now; what they share counts for each.
pub fn resident_bytes(pids: &[u32]) -> Result<u64, String> {
    pids.iter().map(|pid| resident_bytes_of(*pid)).sum()
}

fn resident_bytes_of(pid: u32) -> Result<u64, String> {
    let status = read_proc(pid, "status")?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| format!("/proc/{pid}/status has no VmRSS: process {pid} has ended"))
}

/// Nanoseconds on a processor by thread; `None` where the kernel does not say.
fn task_times(pid: u32) -> Option<HashMap<String, u64>> {
    let mut times = HashMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let entry = entry.ok()?;
        let schedstat = fs::read_to_string(entry.path().join("schedstat")).ok()?;
        let nanos = schedstat.split_whitespace().next()?.parse().ok()?;
        times.insert(entry.file_name().to_string_lossy().into_owned(), nanos);
    }
    Some(times)
}

fn read_proc(pid: u32, file: &str) -> Result<String, String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path)
        .map_err(|error| format!("cannot read {path} (is {pid} the broker's process?): {error}"))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn counts_the_work_of_this_process() {
        let pids = [std::process::id()];
        let before = CpuTime::read(&pids).unwrap();
        let mut after = before.clone();
        while after.since(&before) < Duration::from_millis(20) {
            after = CpuTime::read(&pids).unwrap();
        }
        assert_eq!(before.since(&after), Duration::ZERO);
        assert!(resident_bytes(&pids).unwrap() > 100_000);
    }

    #[test]
    fn adds_up_processes() {
        let pid = std::process::id();
        let twice = resident_bytes(&[pid, pid]).unwrap() as f64;
        let once = resident_bytes(&[pid]).unwrap() as f64;
        // Other tests of this process take memory meanwhile.
        assert!((1.5..2.5).contains(&(twice / once)), "{twice} to {once}");
    }

    #[test]
    fn names_the_process_that_is_not_there() {
        let error = CpuTime::read(&[u32::MAX]).unwrap_err();
        assert!(error.contains("4294967295"), "{error}");
    }
}
