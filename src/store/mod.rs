//! What is on disk.
//!
//! A [`Store`] owns the files of a data folder; there are no others. It takes
//! the changes that sessions and queues have written into a [`Journal`],
//! stores them a batch at a time in the order in which they came, and says by
//! a [`Receipt`] when that is done: who acknowledges, waits for it. It knows
//! bytes only: rows of lists, values by key, bodies that rows share. What they
//! mean is the broker's.
//!
//! ```text
//!   append -> open batch -> commit: log, sync, index -> receipts
//!                                    |
//!                                    +- move_oldest: what is still alive in
//!                                       the log's oldest segment -> base
//! ```
//!
//! | file | owns |
//! |---|---|
//! | `disk`, `twin` | a folder of files; one in memory that fails on command |
//! | `frame` | records in a file, and what is damaged |
//! | `log` | the commit point: batches in segments |
//! | `base` | what lives long: values by key |
//! | `index`, `chunk`, `keys` | what is alive, and where |
//! | `opening`, `reading`, `moving` | starting; rows and values; from log to base |
//! | `numbers` | how long commits took, and how large they were |
//! | `backup`, `frozen` | copies, of a running store too; a folder that is only looked at |
//!
//! Threads: whoever has a change appends it, under one short lock. One thread
//! commits; another one moves and compacts. Reading goes on beside them.
//!
//! After a write or sync that failed nothing is stored any more, and nothing
//! is tried again: see [`Store::failure`].

pub mod backup;
mod base;
mod chunk;
pub mod disk;
mod frame;
pub mod frozen;
mod index;
mod keys;
mod log;
mod moving;
mod numbers;
mod opening;
mod reading;
pub mod twin;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tracing::error;

use self::backup::Copying;
use self::base::Base;
use self::disk::Disk;
pub use self::frame::{Damage, OpenError, VERSION as FORM};
use self::index::Index;
use self::log::{Log, Position, Segments};
use self::moving::Move;
use self::numbers::Numbers;
pub use self::numbers::StoreNumbers;
use self::opening::Sizes;
use crate::config::Durability;
use crate::journal::{Journal, ListId, Receipt};

/// How much a store may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What is alive beyond so much log is moved to the base. The log has
    /// three times as much at most, and what two batches take.
    pub log_bytes_max: u64,
    /// With less than this free on the disk, [`Store::is_low`].
    pub free_bytes_min: u64,
}

impl Settings {
    fn sizes(&self) -> Sizes {
        Sizes {
            // What is moved and freed at a time.
            segment_bytes: (self.log_bytes_max / 8).max(512 << 10),
            base_file_bytes: Base::FILE_BYTES,
        }
    }
}

/// What was found when a store was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What could not be read. It was copied aside, and is never deleted.
    pub damage: Vec<Damage>,
    pub lists: usize,
    /// Of all lists, those alive.
    pub rows: u64,
    /// Rows of which is known that they were there.
    pub lost_rows: u64,
    /// Records of the log that this version can't read.
    pub lost_records: u64,
}

/// What a list holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The first row that is alive; `next_row`, if none is.
    pub first_row: u64,
    /// Above all rows that the list ever had.
    pub next_row: u64,
    /// How many are alive.
    pub rows: u64,
    /// What their bodies take, shared ones in full. 0, if there are none;
    /// exact, but where rows in the middle of many were removed that have long
    /// been there: then they are taken to be of one size with their neighbours.
    pub body_bytes: u64,
}

/// A row of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub row: u64,
    pub about: Vec<u8>,
    /// The id of its body, if that is shared; 0.
    pub shared: u64,
    pub body: Vec<u8>,
}

/// A write or sync that failed. The store is of no use any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// What was tried.
    pub what: &'static str,
    pub kind: io::ErrorKind,
    /// With which file, and the system's words.
    pub error: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.error)
    }
}

impl std::error::Error for Failed {}

/// The files of a data folder, or none.
pub struct Store {
    running: Option<Box<Running>>,
    next_list: AtomicU64,
    next_body: AtomicU64,
}

/// A store that has files.
///
/// Locks are taken in this order, none is waited for with a later one held:
/// `moving`, `committing`, `pins`, the pins, `open`; `index`, `waiting` and
/// `due` last, one at a time, and not while something is read or written.
struct Running {
    disk: Arc<dyn Disk>,
    settings: Settings,
    base: Base,
    segments: Segments,
    index: Mutex<Index>,
    /// What is appended goes here.
    open: Mutex<Batch>,
    arrived: Condvar,
    /// What the open batch has, for who must not lock it.
    open_bytes: AtomicUsize,
    pins: Mutex<Vec<Arc<Mutex<()>>>>,
    committing: Mutex<Committing>,
    /// The last batch that was written, and the last that was synced.
    written: AtomicU64,
    synced: AtomicU64,
    waiting: Mutex<Vec<(Receipt, Waker)>>,
    /// One moves at a time.
    moving: Mutex<()>,
    copying: Copying,
    /// There may be something to move.
    due: Mutex<bool>,
    became_due: Condvar,
    is_low: AtomicBool,
    is_stopped: AtomicBool,
    /// Nothing is taken any more: it failed, or was closed.
    is_over: AtomicBool,
    failed: OnceLock<Failed>,
    numbers: Numbers,
}

/// What the one who commits has for itself.
struct Committing {
    log: Log,
    /// The batch that was closed last; its room is used again.
    batch: Batch,
    positions: Vec<Position>,
    wakers: Vec<Waker>,
    /// The segment that was written to last.
    segment: u64,
    looked_at: Option<Instant>,
}

/// Records one behind the other.
#[derive(Default)]
struct Batch {
    number: u64,
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Somebody waits for it, or one before, to be synced.
    sync: bool,
    /// Of the open batch: those up to here are, or will be.
    sync_to: u64,
}

/// A batch keeps so much room for the next.
const BATCH_BYTES_KEPT: usize = 4 << 20;

/// With more than this in the open batch, the disk is behind.
const OPEN_BYTES_MAX: usize = 32 << 20;

/// How often a commit may look how much is free on the disk.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Store {
    /// Keeps nothing: every receipt is had at once.
    pub fn none() -> Store {
        Store {
            running: None,
            next_list: AtomicU64::new(1),
            next_body: AtomicU64::new(1),
        }
    }

    /// Opens what is in the folder, or begins there. Everything alive is known
    /// when it returns; what it is, is still on disk.
    pub fn open(disk: Arc<dyn Disk>, settings: Settings) -> Result<(Store, Report), OpenError> {
        opening::open(disk, settings, settings.sizes())
    }

    /// As [`Store::open`], with segments of the log of that size in bytes: for
    /// tests, in which a short history is to fill several.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub fn open_with_segments(
        disk: Arc<dyn Disk>,
        settings: Settings,
        segment_bytes: u64,
    ) -> Result<(Store, Report), OpenError> {
        let sizes = Sizes {
            segment_bytes,
            ..settings.sizes()
        };
        opening::open(disk, settings, sizes)
    }

    /// Whether anything is stored at all.
    pub fn is_on(&self) -> bool {
        self.running.is_some()
    }

    /// A new pin. While it is locked no batch is closed: what is appended
    /// meanwhile is stored together or not at all. Who holds one calls nothing
    /// here but [`Store::append`], [`Store::has`] and [`Store::wake_at`].
    /// `None`: nothing is stored.
    pub fn pin(&self) -> Option<Arc<Mutex<()>>> {
        let pin = Arc::new(Mutex::new(()));
        self.running.as_ref()?.pins.lock().push(pin.clone());
        Some(pin)
    }

    /// Takes what is in the journal, as one record of the open batch, and
    /// leaves it empty. [`Receipt::NONE`] if nothing is to be stored. After a
    /// failure it is not kept, and nobody will have the receipt.
    pub fn append(&self, journal: &mut Journal) -> Receipt {
        if journal.is_empty() {
            return Receipt::NONE;
        }
        let receipt = match &self.running {
            Some(running) => running.append(journal.as_bytes(), journal.durability()),
            None => Receipt::NONE,
        };
        journal.clear();
        receipt
    }

    /// Whether it is stored as it asks for.
    pub fn has(&self, receipt: Receipt) -> bool {
        match &self.running {
            Some(running) => running.has(receipt),
            None => true,
        }
    }

    /// Wakes when [`Store::has`] turns true. `false`: it is already, and
    /// nobody will be woken. Nor is anybody after a failure.
    pub fn wake_at(&self, receipt: Receipt, waker: &Waker) -> bool {
        match &self.running {
            Some(running) => running.wake_at(receipt, waker),
            None => false,
        }
    }

    /// Closes the open batch, writes it, syncs it if something in it asks for
    /// that, and says so to who waits for it. `sync_all`: syncs also what was
    /// only written before. Whether there was anything to do. For a thread of
    /// its own.
    ///
    /// Where the log is far too long it moves some of it first, so that
    /// acknowledgements come no faster than that goes.
    pub fn commit(&self, sync_all: bool) -> Result<bool, Failed> {
        match &self.running {
            Some(running) => running.commit(sync_all),
            None => Ok(false),
        }
    }

    /// Waits until there is something to commit, at most so long, or until
    /// [`Store::stop`].
    pub fn wait(&self, timeout: Duration) {
        if let Some(running) = &self.running {
            running.wait(timeout);
        }
    }

    /// Whether [`Store::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        let running = self.running.as_ref();
        running.is_none_or(|running| running.is_stopped.load(Ordering::Acquire))
    }

    /// Waits until there may be something to move, at most so long, or until
    /// [`Store::stop`].
    pub fn wait_to_move(&self, timeout: Duration) {
        if let Some(running) = &self.running {
            running.wait_to_move(timeout);
        }
    }

    /// From now on [`Store::wait`] and [`Store::wait_to_move`] return at once.
    pub fn stop(&self) {
        if let Some(running) = &self.running {
            running.stop();
        }
    }

    /// If the log is longer than it may be: moves what is alive in its oldest
    /// segment to the base, and frees that. Whether there may be more to do.
    /// Also tells the base what it may give up, when much of it or the disk's
    /// room is low. For a thread of its own.
    pub fn move_oldest(&self) -> Result<bool, Failed> {
        match &self.running {
            Some(running) => running.move_oldest(),
            None => Ok(false),
        }
    }

    /// Takes room that is no longer needed from one file of the base. Whether
    /// there may be more to do. For the thread that moves.
    pub fn compact(&self) -> Result<bool, Failed> {
        match &self.running {
            Some(running) => running.compact(),
            None => Ok(false),
        }
    }

    /// The rows of a list that are alive, from `from` on, in order, of
    /// committed batches: at most `rows_max`, with bodies of at most
    /// `bytes_max` together, but one at least. What is said of them is what
    /// was said last. A row that can't be read is left out; it is said in the
    /// log, and counts as removed from then on.
    ///
    /// # Errors
    ///
    /// When the disk can't be read at all.
    pub fn read(
        &self,
        list: ListId,
        from: u64,
        rows_max: usize,
        bytes_max: usize,
    ) -> io::Result<Vec<Row>> {
        match &self.running {
            Some(running) => running.read(list, from, rows_max, bytes_max),
            None => Ok(Vec::new()),
        }
    }

    /// All lists that ever had a row, and were not dropped, by their ids.
    pub fn lists(&self) -> Vec<(ListId, Summary)> {
        match &self.running {
            Some(running) => running.index.lock().summaries(),
            None => Vec::new(),
        }
    }

    /// The values whose key begins with `prefix`, in the keys' order. One that
    /// can't be read is left out, and said in the log. Nothing is moved
    /// meanwhile: `each` calls nothing here that moves.
    pub fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&[u8], &[u8])) -> io::Result<()> {
        match &self.running {
            Some(running) => running.scan(prefix, each),
            None => Ok(()),
        }
    }

    /// Reads all that the base has, and says what of it is damaged; the log was
    /// read when it was opened. `read` is told how many bytes more were.
    ///
    /// # Errors
    ///
    /// When the disk can't be read at all.
    pub fn verify(&self, read: &mut dyn FnMut(u64)) -> io::Result<Vec<Damage>> {
        match &self.running {
            Some(running) => running.base.verify(read),
            None => Ok(Vec::new()),
        }
    }

    /// What log and base take on disk, files that are kept for later aside.
    pub fn disk_bytes(&self) -> u64 {
        let running = self.running.as_ref();
        running.map_or(0, |running| running.segments.bytes() + running.base.bytes())
    }

    /// What it has done and has; nothing, if nothing is stored.
    pub fn numbers(&self) -> StoreNumbers {
        let Some(running) = &self.running else {
            return StoreNumbers::default();
        };
        let (lists, keys, bodies) = {
            let index = running.index.lock();
            (index.lists.len(), index.keys.len(), index.bodies.len())
        };
        StoreNumbers {
            open_bytes: running.open_bytes.load(Ordering::Relaxed),
            disk_bytes: self.disk_bytes(),
            lists,
            keys,
            bodies,
            ..running.numbers.read()
        }
    }

    /// Looks how much is free on the disk.
    pub fn watch_free(&self) {
        if let Some(running) = &self.running {
            running.watch_free();
        }
    }

    /// Whether less is free on the disk than there should be. What adds to it
    /// is to be refused; what takes away goes on.
    pub fn is_low(&self) -> bool {
        let running = self.running.as_ref();
        running.is_some_and(|running| running.is_low.load(Ordering::Relaxed))
    }

    /// Whether more was appended than should wait for the disk: whoever can
    /// wait takes nothing more to append, until it is false again.
    pub fn is_behind(&self) -> bool {
        let running = self.running.as_ref();
        running.is_some_and(|running| running.open_bytes.load(Ordering::Relaxed) > OPEN_BYTES_MAX)
    }

    /// That of the next commit.
    pub fn next_receipt(&self) -> Receipt {
        match &self.running {
            Some(running) => Receipt::new(running.open.lock().number, Durability::Flushed),
            None => Receipt::NONE,
        }
    }

    /// What has failed. From then on nobody gets a receipt.
    pub fn failure(&self) -> Option<Failed> {
        self.running.as_ref()?.failed.get().cloned()
    }

    /// Commits, syncs, and leaves a mark that says that it was closed. What is
    /// appended after it is not stored.
    pub fn close(&self) -> Result<(), Failed> {
        match &self.running {
            Some(running) => running.close(),
            None => Ok(()),
        }
    }
}

impl Running {
    fn new(disk: Arc<dyn Disk>, settings: Settings, base: Base, log: Log, index: Index) -> Running {
        let batch = log.last_batch();
        let segments = log.segments();
        Running {
            disk,
            settings,
            base,
            index: Mutex::new(index),
            open: Mutex::new(Batch {
                number: batch + 1,
                sync_to: batch,
                ..Batch::default()
            }),
            arrived: Condvar::new(),
            open_bytes: AtomicUsize::new(0),
            pins: Mutex::default(),
            committing: Mutex::new(Committing {
                log,
                batch: Batch::default(),
                positions: Vec::new(),
                wakers: Vec::new(),
                segment: segments.active(),
                looked_at: None,
            }),
            segments,
            written: AtomicU64::new(batch),
            synced: AtomicU64::new(batch),
            waiting: Mutex::default(),
            moving: Mutex::default(),
            copying: Copying::default(),
            due: Mutex::new(true),
            became_due: Condvar::new(),
            is_low: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            failed: OnceLock::new(),
            numbers: Numbers::new(),
        }
    }

    fn append(&self, bytes: &[u8], durability: Durability) -> Receipt {
        let mut open = self.open.lock();
        if self.is_over.load(Ordering::Relaxed) {
            return Receipt::new(u64::MAX >> 1, durability);
        }
        open.bytes.extend_from_slice(bytes);
        let end = open.bytes.len();
        open.ends.push(end);
        open.sync |= durability == Durability::Synced;
        let receipt = Receipt::new(open.number, durability);
        self.open_bytes.store(end, Ordering::Relaxed);
        drop(open);
        self.arrived.notify_one();
        receipt
    }

    fn has(&self, receipt: Receipt) -> bool {
        let stored = match receipt.is_synced() {
            true => &self.synced,
            false => &self.written,
        };
        receipt.batch() <= stored.load(Ordering::Acquire)
    }

    fn wake_at(&self, receipt: Receipt, waker: &Waker) -> bool {
        {
            let mut waiting = self.waiting.lock();
            // A batch is published before those who wait are looked for.
            if self.has(receipt) {
                return false;
            }
            waiting.push((receipt, waker.clone()));
        }
        // Of two receipts the earlier may have asked for the sync alone.
        if receipt.is_synced() {
            let mut open = self.open.lock();
            if receipt.batch() > open.sync_to && !open.sync {
                open.sync = true;
                drop(open);
                self.arrived.notify_one();
            }
        }
        true
    }

    fn wait(&self, timeout: Duration) {
        let mut open = self.open.lock();
        let is_over = self.is_over.load(Ordering::Acquire);
        if !open.is_due() && !is_over && !self.is_stopped.load(Ordering::Acquire) {
            self.arrived.wait_for(&mut open, timeout);
        }
    }

    fn wait_to_move(&self, timeout: Duration) {
        let mut due = self.due.lock();
        if !*due && !self.is_stopped.load(Ordering::Acquire) {
            self.became_due.wait_for(&mut due, timeout);
        }
        *due = false;
    }

    fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        self.wake_threads();
    }

    /// Who is about to wait looks with the lock held.
    fn wake_threads(&self) {
        drop(self.open.lock());
        self.arrived.notify_all();
        self.make_due();
    }

    fn make_due(&self) {
        *self.due.lock() = true;
        self.became_due.notify_all();
    }

    fn commit(&self, sync_all: bool) -> Result<bool, Failed> {
        self.check()?;
        let is_far_too_long = || {
            self.segments.bytes() > 3 * self.settings.log_bytes_max
                && !self.copying.is_holding.load(Ordering::Acquire)
        };
        while is_far_too_long() && self.move_oldest()? {}
        let mut committing = self.committing.lock();
        // The one before may have failed.
        self.check()?;
        self.commit_with(&mut committing, sync_all)
    }

    fn commit_with(&self, committing: &mut Committing, sync_all: bool) -> Result<bool, Failed> {
        if self.is_over.load(Ordering::Acquire) {
            return Ok(false);
        }
        if !self.close_batch(&mut committing.batch, sync_all) {
            return Ok(false);
        }
        let records = committing.batch.ends.len();
        let begun = self.numbers.begin(records);
        self.store(committing)
            .map_err(|error| self.fail("storing what was acknowledged last", &error))?;
        let batch = &mut committing.batch;
        (self.numbers).note_commit(begun, records, batch.bytes.len());
        if !batch.ends.is_empty() {
            self.update_index(batch, &committing.positions);
            self.written.store(batch.number, Ordering::Release);
        }
        if batch.sync {
            let written = self.written.load(Ordering::Relaxed);
            self.synced.store(written, Ordering::Release);
            self.numbers.note_sync();
        }
        self.wake(&mut committing.wakers);
        self.look_after(committing);
        Ok(true)
    }

    /// The open batch is closed, and a new one opened; or it has nothing.
    fn close_batch(&self, closed: &mut Batch, sync_all: bool) -> bool {
        closed.clear();
        let mut pins = self.pins.lock();
        pins.retain(|pin| Arc::strong_count(pin) > 1);
        // All at once: each has everything in this batch, or nothing.
        let held: Vec<_> = pins.iter().map(|pin| pin.lock()).collect();
        let mut open = self.open.lock();
        let synced = self.synced.load(Ordering::Relaxed);
        let is_unsynced = self.written.load(Ordering::Relaxed) > synced || !open.ends.is_empty();
        open.sync |= sync_all && is_unsynced;
        if !open.is_due() {
            return false;
        }
        closed.number = open.number + u64::from(!open.ends.is_empty());
        closed.sync_to = match open.sync {
            true => closed.number - 1,
            false => open.sync_to,
        };
        mem::swap(&mut *open, closed);
        self.open_bytes.store(0, Ordering::Relaxed);
        drop(open);
        drop(held);
        true
    }

    fn store(&self, committing: &mut Committing) -> io::Result<()> {
        let Committing {
            log,
            batch,
            positions,
            ..
        } = committing;
        positions.clear();
        if !batch.ends.is_empty() {
            log.write(batch.number, &batch.bytes, &batch.ends, positions)?;
        }
        match batch.sync {
            true => log.sync(),
            false => Ok(()),
        }
    }

    fn update_index(&self, batch: &Batch, positions: &[Position]) {
        let mut index = self.index.lock();
        let mut start = 0;
        for (end, position) in batch.ends.iter().zip(positions) {
            index.apply(*position, &batch.bytes[start..*end]);
            start = *end;
        }
        index.end_batch(batch.number);
    }

    /// Those who have what they wait for.
    fn wake(&self, wakers: &mut Vec<Waker>) {
        {
            let mut waiting = self.waiting.lock();
            let had = waiting.extract_if(.., |(receipt, _)| self.has(*receipt));
            wakers.extend(had.map(|(_, waker)| waker));
        }
        wakers.drain(..).for_each(Waker::wake);
    }

    /// What a commit has to look at now and then.
    fn look_after(&self, committing: &mut Committing) {
        let segment = self.segments.active();
        let has_rolled = segment != committing.segment;
        let looked_at = committing.looked_at;
        if has_rolled || looked_at.is_none_or(|at| at.elapsed() >= LOOK_EVERY) {
            committing.segment = segment;
            committing.looked_at = Some(Instant::now());
            self.watch_free();
        }
        if has_rolled {
            self.make_due();
        }
    }

    fn watch_free(&self) {
        // A disk that can't say it is looked at again soon.
        let Ok(free) = self.disk.free_bytes() else {
            return;
        };
        let is_low = free < self.settings.free_bytes_min;
        self.is_low.store(is_low, Ordering::Relaxed);
        if is_low {
            self.make_due();
        }
    }

    fn move_oldest(&self) -> Result<bool, Failed> {
        let _moving = self.moving.lock();
        self.check()?;
        if self.is_over.load(Ordering::Acquire) {
            return Ok(false);
        }
        // The commit makes it itself where that was not possible.
        let _ = self.segments.prepare();
        let is_long = || {
            let is_old = self.segments.oldest() < self.segments.active();
            is_old && self.segments.bytes() > self.settings.log_bytes_max
        };
        if is_long() {
            let oldest = self.segments.oldest();
            self.move_to_base(Some(oldest))
                .map_err(|error| self.fail("moving from the log to the base", &error))?;
            return Ok(is_long());
        }
        let dead_bytes = self.index.lock().changed.dead_bytes;
        let is_low = self.is_low.load(Ordering::Relaxed);
        if dead_bytes > self.settings.log_bytes_max || is_low && dead_bytes > 0 {
            self.move_to_base(None)
                .map_err(|error| self.fail("writing to the base", &error))?;
        }
        Ok(false)
    }

    /// `None`: only what the base has not been told yet.
    fn move_to_base(&self, segment: Option<u64>) -> io::Result<()> {
        let mut moved = self.gather(segment)?;
        self.write_to_base(&mut moved)?;
        self.finish_move(moved, segment)
    }

    fn gather(&self, segment: Option<u64>) -> io::Result<Move> {
        let mut moved = Move::default();
        if let Some(segment) = segment {
            let damage = self.segments.scan(segment, &mut |at, record| {
                moved.gather(&mut self.index.lock(), at, record);
            })?;
            for damage in damage {
                error!("the log was damaged since it was written: {damage}");
            }
        }
        moved.gather_dropped(&self.index, &self.base)?;
        Ok(moved)
    }

    fn write_to_base(&self, moved: &mut Move) -> io::Result<()> {
        let (writes, batch) = moved.write(&self.index);
        // The base must not know what the log could still lose.
        if batch > self.synced.load(Ordering::Acquire) {
            self.sync_through()?;
        }
        writes.apply(&self.base)
    }

    fn finish_move(&self, moved: Move, segment: Option<u64>) -> io::Result<()> {
        moved.install(&self.index, segment);
        match segment {
            Some(_) => self.segments.free_oldest(),
            None => Ok(()),
        }
    }

    fn sync_through(&self) -> io::Result<()> {
        let mut committing = self.committing.lock();
        let written = self.written.load(Ordering::Acquire);
        committing.log.sync()?;
        self.synced.store(written, Ordering::Release);
        self.numbers.note_sync();
        self.wake(&mut committing.wakers);
        Ok(())
    }

    fn compact(&self) -> Result<bool, Failed> {
        self.check()?;
        if self.is_over.load(Ordering::Acquire) {
            return Ok(false);
        }
        let _steady = self.copying.steady.lock();
        let compacted = self.base.compact_step();
        self.report_damage();
        compacted.map_err(|error| self.fail("compacting the base", &error))
    }

    fn close(&self) -> Result<(), Failed> {
        self.stop();
        // It ends as soon as it sees that.
        drop(self.copying.alone.lock());
        self.commit(true)?;
        let _moving = self.moving.lock();
        let mut committing = self.committing.lock();
        // What came since.
        self.check()?;
        self.commit_with(&mut committing, true)?;
        if self.is_over.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let closed = self.base.close().and_then(|()| committing.log.close());
        closed.map_err(|error| self.fail("closing the store", &error))
    }

    fn check(&self) -> Result<(), Failed> {
        match self.failed.get() {
            Some(failed) => Err(failed.clone()),
            None => Ok(()),
        }
    }

    /// For good. The first failure is the one that counts.
    fn fail(&self, what: &'static str, error: &io::Error) -> Failed {
        let failed = self.failed.get_or_init(|| Failed {
            what,
            kind: error.kind(),
            error: error.to_string(),
        });
        self.is_over.store(true, Ordering::Release);
        self.waiting.lock().clear();
        self.wake_threads();
        failed.clone()
    }
}

impl Batch {
    fn is_due(&self) -> bool {
        self.sync || !self.ends.is_empty()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.bytes.shrink_to(BATCH_BYTES_KEPT);
        self.ends.shrink_to(BATCH_BYTES_KEPT / 64);
        self.sync = false;
    }
}
