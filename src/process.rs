//! What the system tells of this process.

use std::fs;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// Linux counts processor time in hundredths of a second, whatever the kernel's
/// own clock (USER_HZ).
const TICK: Duration = Duration::from_millis(10);

/// What of the process is resident. Opened once: when it is needed most, there
/// may be no file descriptor left.
pub struct Resident(fs::File);

impl Resident {
    /// `None`: the system does not say.
    pub fn open() -> Option<Resident> {
        let resident = Resident(fs::File::open("/proc/self/status").ok()?);
        resident.bytes().is_some().then_some(resident)
    }

    /// `None`: it cannot be read now.
    pub fn bytes(&self) -> Option<u64> {
        let mut text = [0; 4096];
        let len = self.0.read_at(&mut text, 0).ok()?;
        find_kib(&String::from_utf8_lossy(&text[..len]), "VmRSS:")
    }
}

/// The processor time that all threads have used so far, to a hundredth of a
/// second; `None`: the system does not say.
pub fn cpu_time() -> Option<Duration> {
    find_cpu_time(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// In the line of proc_pid_stat(5): utime and stime are its fields 14 and 15.
fn find_cpu_time(stat: &str) -> Option<Duration> {
    // The name, the second field, is in parentheses, and may contain anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut times = rest.split_ascii_whitespace().skip(11);
    let mut next = || times.next()?.parse::<u32>().ok();
    let ticks = next()?.checked_add(next()?)?;
    Some(TICK * ticks)
}

/// The number behind `name` in lines such as `VmRSS:  1024 kB`, in bytes.
pub fn find_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib = line.trim().strip_suffix("kB")?.trim_end();
    kib.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod cpu_tests {
    use super::*;

    #[test]
    fn the_time_that_processors_worked_is_read() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 0 9 9 9 9 250 50 1 1 20 0 4 0";
        assert_eq!(find_cpu_time(stat), Some(Duration::from_secs(3)));
        for text in ["", "7 (a) S 1", "7 (a) S 1 7 7 0 -1 0 9 9 9 9 x 50"] {
            assert_eq!(find_cpu_time(text), None, "{text:?}");
        }
        assert!(cpu_time().is_some());
    }
}
