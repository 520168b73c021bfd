//! What the system tells of this process.

use std::fs;
use std::os::unix::fs::FileExt;

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

/// The number behind `name` in lines such as `VmRSS:  1024 kB`, in bytes.
pub fn find_kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib = line.trim().strip_suffix("kB")?.trim_end();
    kib.parse::<u64>().ok()?.checked_mul(1024)
}
