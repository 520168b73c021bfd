//! What the store has done: how long commits took, and how large they were.
//!
//! Owns the numbers. Who commits adds to them, and is alone as it does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::tally::{Count, Histogram, Spread};

/// The live numbers.
pub(super) struct Numbers {
    opened: Instant,
    commits: Histogram,
    records: Histogram,
    bytes: Count,
    syncs: Count,
    /// Since when something is on its way to the disk that is not synced, in
    /// microseconds after it was opened; 0: there is nothing.
    unsynced_since: AtomicU64,
}

impl Numbers {
    pub fn new() -> Numbers {
        Numbers {
            opened: Instant::now(),
            commits: Histogram::default(),
            records: Histogram::default(),
            bytes: Count::default(),
            syncs: Count::default(),
            unsynced_since: AtomicU64::new(0),
        }
    }

    /// A batch with so many records is about to be written; since when.
    pub fn begin(&self, records: usize) -> Instant {
        let now = Instant::now();
        if records > 0 && self.unsynced_since.load(Ordering::Relaxed) == 0 {
            let micros = now.duration_since(self.opened).as_micros() as u64;
            self.unsynced_since.store(micros.max(1), Ordering::Relaxed);
        }
        now
    }

    /// It is written.
    pub fn note_commit(&self, begun: Instant, records: usize, bytes: usize) {
        self.commits.note_span(begun.elapsed());
        if records > 0 {
            self.records.note_size(records);
        }
        self.bytes.add(bytes as u64);
    }

    /// All that was written is synced.
    pub fn note_sync(&self) {
        self.syncs.add(1);
        self.unsynced_since.store(0, Ordering::Relaxed);
    }

    pub fn read(&self) -> StoreNumbers {
        let unsynced = match self.unsynced_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => (self.opened.elapsed()).saturating_sub(Duration::from_micros(since)),
        };
        StoreNumbers {
            commits: self.commits.read(),
            records: self.records.read(),
            bytes: self.bytes.get(),
            syncs: self.syncs.get(),
            unsynced,
            ..StoreNumbers::default()
        }
    }
}

/// What a store has done and has, at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreNumbers {
    /// How long it took to write a batch, and to sync it where that was asked for:
    /// in microseconds, in the buckets of [`crate::tally::SPANS_US`].
    pub commits: Spread,
    /// Records of a batch, in the buckets of [`crate::tally::SIZES`].
    pub records: Spread,
    /// Of all records.
    pub bytes: u64,
    pub syncs: u64,
    /// How long the oldest of what is written, or is being written, has not been
    /// synced.
    pub unsynced: Duration,
    /// Appended, and not being written yet.
    pub open_bytes: usize,
    /// What the log and the base take on disk.
    pub disk_bytes: u64,
    /// Of which the index knows where it is.
    pub lists: usize,
    pub keys: usize,
    pub bodies: usize,
}
