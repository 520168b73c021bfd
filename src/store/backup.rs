//! A copy of a store, of a running one too.
//!
//! Owns the order in which files are copied. The log is copied up to where it
//! is synced at a moment; while that goes on nothing moves from it to the base
//! and the base is not compacted, so that both are of that moment. The files
//! of the base that are written to no more are copied after that, from open
//! files, which stay readable when the base gives them up. Commits go on all
//! the time.
//!
//! A copy under way has a file [`UNFINISHED`]; no store opens on that.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::disk::{Disk, File, Folder, LOCK};
use super::frame::{FRAME_BYTES, OpenError};
use super::{Running, Store};

/// Says in a folder that not all of a store is in it yet.
pub const UNFINISHED: &str = "unfinished";

/// How much is read and written at a time.
const PIECE_BYTES: usize = 1 << 20;

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    pub files: usize,
    pub bytes: u64,
}

/// Why there is no copy: a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupError(String);

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BackupError {}

impl BackupError {
    fn new(sentence: impl Into<String>) -> BackupError {
        BackupError(sentence.into())
    }
}

/// What a running store has for copies.
#[derive(Default)]
pub(super) struct Copying {
    /// One copy at a time. Who closes the store waits for it.
    pub alone: Mutex<()>,
    /// Who has it finds the base as it is; locked after `moving`.
    pub steady: Mutex<()>,
    /// Nobody is to wait for a move.
    pub is_holding: AtomicBool,
}

/// A file to be copied, up to an end.
struct Source {
    name: String,
    file: Box<dyn File>,
    end: u64,
    /// What the end of a log is written with, so that the reading ends there.
    zeros: usize,
}

impl Store {
    /// Copies everything that is committed by now, and all that was appended,
    /// to an empty disk. The copy opens as any store does.
    ///
    /// # Errors
    ///
    /// There is no copy then, and what `to` has is of no use. Another one is
    /// under way; the store stops or has failed; a disk cannot be read or
    /// written; there would be less room left than the store's settings ask
    /// for. The store itself goes on.
    pub fn backup(&self, to: &dyn Disk) -> Result<Copied, BackupError> {
        match &self.running {
            Some(running) => running.backup(to),
            None => Err(BackupError::new(
                "this broker keeps nothing: it runs with --ephemeral",
            )),
        }
    }
}

impl Running {
    fn backup(&self, to: &dyn Disk) -> Result<Copied, BackupError> {
        let Some(_alone) = self.copying.alone.try_lock() else {
            return Err(BackupError::new(
                "another backup is under way: wait until it has ended",
            ));
        };
        self.copying.is_holding.store(true, Ordering::Release);
        let copied = self.backup_alone(to);
        self.copying.is_holding.store(false, Ordering::Release);
        copied
    }

    fn backup_alone(&self, to: &dyn Disk) -> Result<Copied, BackupError> {
        let mut copied = Copied::default();
        let kept = {
            let _moving = self.moving.lock();
            let _steady = self.copying.steady.lock();
            let log = self.log_by_now()?;
            let (kept, growing) = base_files(&*self.disk)?;
            let all = log.iter().chain(&kept).chain(&growing);
            begin(to, all, self.settings.free_bytes_min)?;
            for source in log.iter().chain(&growing) {
                self.copy(source, to, &mut copied)?;
            }
            kept
        };
        self.copying.is_holding.store(false, Ordering::Release);
        for source in &kept {
            self.copy(source, to, &mut copied)?;
        }
        finish(to)?;
        Ok(copied)
    }

    /// Its files, each up to where it is committed and synced.
    fn log_by_now(&self) -> Result<Vec<Source>, BackupError> {
        let mut committing = self.committing.lock();
        let committed = self.check().and_then(|()| {
            self.commit_with(&mut committing, true)?;
            self.check()
        });
        committed.map_err(|failed| BackupError::new(format!("the disk failed: {failed}")))?;
        let extents = committing.log.extents();
        let sources = extents.into_iter().map(|(name, end)| {
            let file = self.disk.open(&name).map_err(reading(&name))?;
            Ok(Source {
                name,
                file,
                end,
                zeros: FRAME_BYTES,
            })
        });
        sources.collect()
    }

    fn copy(&self, source: &Source, to: &dyn Disk, copied: &mut Copied) -> Result<(), BackupError> {
        let is_over =
            || self.is_stopped.load(Ordering::Acquire) || self.is_over.load(Ordering::Acquire);
        copy(source, to, &is_over, copied)
    }
}

/// Copies a store that nobody has open. `free_bytes_min`: what is to stay free
/// where the copy goes.
///
/// # Errors
///
/// As those of [`Store::backup`].
pub fn copy_closed(
    from: &dyn Disk,
    to: &dyn Disk,
    free_bytes_min: u64,
) -> Result<Copied, BackupError> {
    check_finished(from).map_err(|error| BackupError::new(error.to_string()))?;
    let mut copied = Copied::default();
    let (mut sources, growing) = base_files(from)?;
    sources.extend(growing);
    sources.extend(files(from, "log-")?);
    if sources.is_empty() {
        return Err(BackupError::new("there is no store in this folder"));
    }
    begin(to, sources.iter(), free_bytes_min)?;
    for source in &sources {
        copy(source, to, &|| false, &mut copied)?;
    }
    finish(to)?;
    Ok(copied)
}

/// Files of the base that are written to no more, and the one that is.
fn base_files(disk: &dyn Disk) -> Result<(Vec<Source>, Option<Source>), BackupError> {
    let mut kept = files(disk, "base-")?;
    let is_newer = |source: &Source, other: &Source| source.name > other.name;
    let mut growing: Option<usize> = None;
    for (i, source) in kept.iter().enumerate() {
        let is_data = source.name.rsplit('-').next().is_some_and(is_number);
        if is_data && growing.is_none_or(|at| is_newer(source, &kept[at])) {
            growing = Some(i);
        }
    }
    let growing = growing.map(|at| kept.swap_remove(at));
    Ok((kept, growing))
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// All whose names begin so, as they are.
fn files(disk: &dyn Disk, prefix: &str) -> Result<Vec<Source>, BackupError> {
    let names = disk.names().map_err(reading("the data folder"))?;
    let names = names.into_iter().filter(|name| name.starts_with(prefix));
    let sources = names.map(|name| {
        let file = disk.open(&name).map_err(reading(&name))?;
        let end = file.len().map_err(reading(&name))?;
        Ok(Source {
            name,
            file,
            end,
            zeros: 0,
        })
    });
    sources.collect()
}

fn begin<'a>(
    to: &dyn Disk,
    sources: impl Iterator<Item = &'a Source>,
    free_bytes_min: u64,
) -> Result<(), BackupError> {
    let needed = sources.map(|source| source.end).sum::<u64>();
    let free = to.free_bytes().map_err(writing("the copy"))?;
    if free < needed.saturating_add(free_bytes_min) {
        return Err(BackupError::new(format!(
            "there is too little room for the copy: it takes {needed} bytes, {free_bytes_min} \
             are to stay free (store.free_bytes_min), and {free} are free"
        )));
    }
    to.create(UNFINISHED, 0)
        .map(drop)
        .map_err(writing(UNFINISHED))
}

fn finish(to: &dyn Disk) -> Result<(), BackupError> {
    to.remove(UNFINISHED).map_err(writing(UNFINISHED))
}

fn copy(
    source: &Source,
    to: &dyn Disk,
    is_over: &dyn Fn() -> bool,
    copied: &mut Copied,
) -> Result<(), BackupError> {
    let name = &source.name;
    let file = to.create(name, 0).map_err(writing(name))?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < source.end {
        if is_over() {
            return Err(BackupError::new(
                "the broker stops: start the backup again when it runs, or has stopped",
            ));
        }
        let len = (source.end - at).min(PIECE_BYTES as u64) as usize;
        source
            .file
            .read_at(&mut piece[..len], at)
            .map_err(reading(name))?;
        file.write_at(&piece[..len], at).map_err(writing(name))?;
        at += len as u64;
    }
    file.write_at(&vec![0; source.zeros], at)
        .and_then(|()| file.sync())
        .map_err(writing(name))?;
    copied.files += 1;
    copied.bytes += at + source.zeros as u64;
    Ok(())
}

fn reading(name: &str) -> impl Fn(io::Error) -> BackupError {
    move |error| BackupError(format!("{name} cannot be read: {error}"))
}

fn writing(name: &str) -> impl Fn(io::Error) -> BackupError {
    move |error| {
        BackupError(format!(
            "{name} cannot be written where the copy goes: {error}"
        ))
    }
}

/// A new or empty folder, to be filled with a store. What was written to it
/// goes again with the value, unless [`Target::keep`] was called.
pub struct Target {
    path: PathBuf,
    is_new: bool,
    is_kept: bool,
}

impl Target {
    /// Makes the folder, if there is none, for this user alone.
    ///
    /// # Errors
    ///
    /// A sentence: something is in it already, or it cannot be made.
    pub fn begin(path: &Path) -> Result<(Target, Folder), BackupError> {
        let shown = path.display();
        let is_new = match fs::read_dir(path) {
            Ok(mut entries) => {
                if let Some(entry) = entries.find(|entry| !is_nothing(entry)) {
                    let name = entry.map(|entry| entry.file_name()).unwrap_or_default();
                    return Err(BackupError::new(format!(
                        "the folder {shown} is not empty, {} is in it: give an empty one, or one \
                         that is still to be made",
                        name.display()
                    )));
                }
                false
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(BackupError::new(format!("{shown}: {error}"))),
        };
        let folder = Folder::open(path).and_then(|folder| {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
            Ok(folder)
        });
        let folder = folder.map_err(|error| match error.kind() {
            io::ErrorKind::ResourceBusy => BackupError::new(format!("a broker has {shown}")),
            _ => BackupError::new(format!("cannot make the folder {shown}: {error}")),
        })?;
        let target = Target {
            path: path.to_owned(),
            is_new,
            is_kept: false,
        };
        Ok((target, folder))
    }

    /// All of it is there.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

/// What an empty folder may have.
fn is_nothing(entry: &io::Result<fs::DirEntry>) -> bool {
    entry.as_ref().is_ok_and(|entry| {
        let name = entry.file_name();
        name == LOCK || name == "lost+found"
    })
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        // It was empty, so all of it is ours. What stays says that it is
        // unfinished.
        if self.is_new {
            _ = fs::remove_dir_all(&self.path);
            return;
        }
        for entry in fs::read_dir(&self.path).into_iter().flatten() {
            if !is_nothing(&entry)
                && let Ok(entry) = entry
                && entry.file_name() != UNFINISHED
            {
                _ = fs::remove_file(entry.path());
            }
        }
        _ = fs::remove_file(self.path.join(UNFINISHED));
    }
}

/// Whether a store may be opened on what is there.
pub(super) fn check_finished(disk: &dyn Disk) -> Result<(), OpenError> {
    let names = disk.names();
    if names.is_ok_and(|names| names.iter().any(|name| name == UNFINISHED)) {
        return Err(OpenError::Io {
            file: UNFINISHED.to_owned(),
            error: io::Error::other(
                "what is in this folder was copied or imported only in part: remove it, and copy \
                 or import again",
            ),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use super::super::base::{Base, BaseChange};
    use super::super::twin::{Fault, Twin};
    use super::super::{Row, Settings};
    use super::*;
    use crate::config::Durability;
    use crate::journal::{Body, Change, Journal, ListId};

    const SEGMENT_BYTES: u64 = 16 << 10;
    const SETTINGS: Settings = Settings {
        log_bytes_max: 4 * SEGMENT_BYTES,
        free_bytes_min: 1000,
    };

    fn open(disk: &Twin) -> Store {
        let disk = Arc::new(disk.clone());
        let opened = Store::open_with_segments(disk, SETTINGS, SEGMENT_BYTES);
        let (store, report) = opened.unwrap();
        assert_eq!(report.damage, []);
        store
    }

    /// A row in one of three lists, a third of them shared, one in four of
    /// them removed again; and a value.
    fn step(store: &Store, n: u64) {
        let mut journal = Journal::default();
        let mut add = |change| journal.add(Durability::Synced, change);
        let list = ListId(n % 3 + 1);
        let text = format!("{n} ").repeat(100);
        let body = text.as_bytes();
        let (id, len) = (1000 + n, body.len() as u32);
        let own = match n % 3 {
            0 => {
                add(Change::Share { id, body });
                Body::Shared { id, len }
            }
            _ => Body::Own(body),
        };
        let about = b"about";
        let row = n;
        add(Change::Push {
            list,
            row,
            about,
            body: own,
        });
        if n.is_multiple_of(4) && n > 30 {
            let row = n - 30;
            let shared = if row.is_multiple_of(3) { 1000 + row } else { 0 };
            let list = ListId(row % 3 + 1);
            add(Change::Remove { list, row, shared });
        }
        let (key, value) = (&(n % 50).to_be_bytes(), &n.to_be_bytes());
        add(Change::Put { key, value });
        store.append(&mut journal);
    }

    type All = (Vec<(ListId, Vec<Row>)>, Vec<(Vec<u8>, Vec<u8>)>);

    fn all(store: &Store) -> All {
        let lists = store.lists().into_iter();
        let lists =
            lists.map(|(list, _)| (list, store.read(list, 0, 100_000, usize::MAX).unwrap()));
        let mut values = Vec::new();
        store
            .scan(b"", &mut |key, value| {
                values.push((key.to_vec(), value.to_vec()))
            })
            .unwrap();
        (lists.collect(), values)
    }

    #[test]
    fn a_copy_has_what_the_store_has() {
        let disk = Twin::new();
        let store = open(&disk);
        for n in 1..600 {
            step(&store, n);
            if n.is_multiple_of(7) {
                store.commit(false).unwrap();
                while n.is_multiple_of(21) && store.move_oldest().unwrap() {}
                store.compact().unwrap();
            }
            // Also of what was only appended.
            if n % 50 == 3 {
                let to = Twin::new();
                let copied = store.backup(&to).unwrap();
                assert_eq!(copied.files, to.names().unwrap().len());
                // What a power cut leaves of it is all of it.
                let copy = open(&to.cut());
                assert_eq!(all(&copy), all(&store));
                assert_eq!(copy.verify(&mut |_| ()).unwrap(), []);
                // It goes on by itself.
                step(&copy, 10_000);
                copy.commit(true).unwrap();
                while copy.move_oldest().unwrap() {}
            }
        }
        store.close().unwrap();
        drop(store);
        let to = Twin::new();
        copy_closed(&disk, &to, 1000).unwrap();
        assert_eq!(all(&open(&to)), all(&open(&disk)));
    }

    /// A disk on which something happens before each file is made.
    struct Slow<'a> {
        disk: &'a Twin,
        meanwhile: &'a (dyn Fn() + Sync),
    }

    impl Disk for Slow<'_> {
        fn names(&self) -> io::Result<Vec<String>> {
            self.disk.names()
        }

        fn create(&self, name: &str, len: u64) -> io::Result<Box<dyn File>> {
            (self.meanwhile)();
            self.disk.create(name, len)
        }

        fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
            self.disk.open(name)
        }

        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.disk.rename(from, to)
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            self.disk.remove(name)
        }

        fn free_bytes(&self) -> io::Result<u64> {
            self.disk.free_bytes()
        }

        fn salt(&self) -> u64 {
            self.disk.salt()
        }
    }

    #[test]
    fn commits_go_on_beside_it() {
        let store = open(&Twin::new());
        let steps = AtomicU64::new(0);
        let go_on = || {
            for _ in 0..20 {
                step(&store, steps.fetch_add(1, Ordering::SeqCst) + 1);
                store.commit(false).unwrap();
            }
        };
        go_on();
        let copies = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !store.is_stopped() {
                    store.move_oldest().unwrap();
                    store.compact().unwrap();
                    std::thread::yield_now();
                }
            });
            let copies = [(); 30].map(|()| {
                while store.move_oldest().unwrap() {}
                let disk = Twin::new();
                let before = steps.load(Ordering::SeqCst);
                let to = Slow {
                    disk: &disk,
                    meanwhile: &go_on,
                };
                let copied = store.backup(&to);
                (disk, before, steps.load(Ordering::SeqCst), copied)
            });
            store.stop();
            copies
        });
        for (disk, before, after, copied) in copies {
            copied.unwrap();
            assert!(after > before + 20);
            check_steps(&open(&disk), before);
        }
    }

    /// It has all that so many steps have made, and nothing of another.
    fn check_steps(store: &Store, steps: u64) {
        let (lists, values) = all(store);
        let numbers = values.iter();
        let numbers = numbers.map(|(_, value)| u64::from_be_bytes(value[..].try_into().unwrap()));
        assert_eq!(numbers.max(), Some(steps));
        let removed_by = |n: u64| Some(n + 30).filter(|by| by.is_multiple_of(4));
        let alive = (1..=steps).filter(|n| removed_by(*n).is_none_or(|by| by > steps));
        let mut found: Vec<_> = lists.iter().flat_map(|(_, rows)| rows).collect();
        found.sort_unstable_by_key(|row| row.row);
        assert!(found.iter().map(|row| row.row).eq(alive));
        for row in found {
            let text = format!("{} ", row.row);
            assert!(row.body.starts_with(text.as_bytes()));
        }
    }

    #[test]
    fn a_disk_that_fails_for_the_copy_does_not_for_the_store() {
        let disk = Twin::new();
        let store = open(&disk);
        (1..100).for_each(|n| step(&store, n));
        store.commit(true).unwrap();
        while store.move_oldest().unwrap() {}
        let to = Twin::new();
        store.backup(&to).unwrap();
        let operations = to.operations();
        for nth in 1..=operations {
            for fault in [Fault::Full, Fault::Failed, Fault::Stopped] {
                let to = Twin::new();
                to.fail_at(nth, fault);
                let error = store.backup(&to).unwrap_err();
                assert!(error.to_string().contains("cannot be written"), "{error}");
                // What is there says so itself, or is nothing.
                let is_begun = to.cut().names().unwrap().len() > 1;
                let opened = Store::open(Arc::new(to.cut()), SETTINGS).map(drop);
                if is_begun && nth < operations {
                    assert!(opened.unwrap_err().to_string().contains(UNFINISHED));
                }
            }
        }
        assert_eq!(store.failure(), None);
        let to = Twin::new();
        to.set_free_bytes(2000);
        let error = store.backup(&to).unwrap_err().to_string();
        assert!(error.contains("too little room"), "{error}");
        assert!(to.names().unwrap().is_empty());
        store.stop();
        let error = store.backup(&Twin::new()).unwrap_err().to_string();
        assert!(error.contains("stops"), "{error}");
    }

    #[test]
    fn all_files_of_the_base_come_along() {
        let disk = Twin::new();
        let (base, _) = Base::open_with(Arc::new(disk.clone()), 20_000).unwrap();
        for n in 0..40_u64 {
            let put = BaseChange::Put(n.to_be_bytes().into(), vec![7; 2000]);
            base.apply(&[put]).unwrap();
        }
        drop(base);
        let (kept, growing) = base_files(&disk).unwrap();
        let growing = growing.unwrap().name;
        assert!(kept.len() > 4);
        assert!(kept.iter().all(|kept| kept.name < growing));
        let to = Twin::new();
        copy_closed(&disk, &to, 0).unwrap();
        let (copy, damage) = Base::open_with(Arc::new(to), 20_000).unwrap();
        assert_eq!(damage, []);
        let mut count = 0;
        copy.keys(b"", &mut |_, len| count += usize::from(len == 2000));
        assert_eq!((count, copy.verify(&mut |_| ()).unwrap()), (40, vec![]));
    }
}
