//! A disk in memory that fails on command.
//!
//! It knows for each file what was written and what was synced, so that it can
//! be cut as a machine loses its power. Everything that happens to it depends
//! on what it was told alone, and on a seed. For tests; a broker can run on it.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::{Disk, File};
use super::frame::reseal;

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It alone, with EIO. A failed sync loses what it should have synced, as
    /// a system may: a later sync succeeds and does not bring it back.
    Failed,
    /// It alone, with ENOSPC.
    Full,
    /// The machine stops in the middle of it: it and all later ones fail.
    Stopped,
}

/// A disk in memory. All clones are the same one.
#[derive(Clone, Debug)]
pub struct Twin(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    files: BTreeMap<String, usize>,
    bodies: Vec<Body>,
    operations: u64,
    /// The number of the operation that fails.
    fault: Option<(u64, Fault)>,
    is_stopped: bool,
    /// Under way when it stopped.
    torn: Option<NameChange>,
    free_bytes: u64,
    salt: u64,
}

#[derive(Clone, Debug, Default)]
struct Body {
    written: Vec<u8>,
    synced: Vec<u8>,
    /// Since the last sync, in order.
    writes: Vec<(u64, Vec<u8>)>,
    spoiled: Vec<Range<u64>>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Create(String, u64),
    Rename(String, String),
    Remove(String),
}

/// A tear keeps or loses so many bytes at a time, or single ones.
const SECTOR: usize = 512;

impl Default for Twin {
    fn default() -> Twin {
        Twin::new()
    }
}

impl Twin {
    /// Empty, with a terabyte free.
    pub fn new() -> Twin {
        Twin(Arc::new(Mutex::new(State {
            files: BTreeMap::new(),
            bodies: Vec::new(),
            operations: 0,
            fault: None,
            is_stopped: false,
            torn: None,
            free_bytes: 1 << 40,
            salt: 1,
        })))
    }

    /// How many writes, syncs, creations, renames and removals there were.
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// The `nth` operation from now fails; 1 is the next one.
    pub fn fail_at(&self, nth: u64, fault: Fault) {
        let mut state = self.0.lock();
        state.fault = Some((state.operations + nth, fault));
    }

    /// What is durable and nothing else, as a new disk.
    #[must_use]
    pub fn cut(&self) -> Twin {
        self.remains(|body| Body::new(body.synced.clone()), |_| false)
    }

    /// As [`Twin::cut`], but any part of what was not synced may be there, as
    /// the seed decides: single sectors of a write, single bytes, later writes
    /// without earlier ones.
    #[must_use]
    pub fn cut_with(&self, seed: u64) -> Twin {
        let dice = &mut Dice(seed);
        let is_name_changed = dice.below(2) == 1;
        self.remains(|body| Body::new(body.torn(dice)), |_| is_name_changed)
    }

    /// All that was written, synced or not, as a killed process leaves it.
    #[must_use]
    pub fn kill(&self) -> Twin {
        self.remains(Body::clone, |_| false)
    }

    fn remains(
        &self,
        mut remains: impl FnMut(&Body) -> Body,
        is_changed: impl FnOnce(&NameChange) -> bool,
    ) -> Twin {
        let state = self.0.lock();
        let twin = Twin::new();
        let mut new = twin.0.lock();
        new.free_bytes = state.free_bytes;
        new.salt = state.salt;
        for (name, body) in &state.files {
            new.insert(name, remains(&state.bodies[*body]));
        }
        if let Some(change) = state.torn.clone().filter(is_changed) {
            match change {
                NameChange::Create(name, len) => {
                    new.insert(&name, Body::new(vec![0; len as usize / 2]));
                }
                NameChange::Rename(from, to) => {
                    if let Some(body) = new.files.remove(&from) {
                        new.files.insert(to, body);
                    }
                }
                NameChange::Remove(name) => drop(new.files.remove(&name)),
            }
        }
        drop(new);
        twin
    }

    /// From now on; writing and removing change it.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.0.lock().free_bytes = bytes;
    }

    /// What is in a file, synced or not.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.0.lock();
        let body = *state.files.get(name)?;
        Some(state.bodies[body].written.clone())
    }

    /// Changes bits of a byte on the disk. Nothing past the end of a file.
    pub fn flip(&self, name: &str, at: u64, bits: u8) {
        let mut state = self.0.lock();
        let Some(body) = state.files.get(name).copied() else {
            return;
        };
        let body = &mut state.bodies[body];
        for bytes in [&mut body.written, &mut body.synced] {
            if let Some(byte) = bytes.get_mut(at as usize) {
                *byte ^= bits;
            }
        }
    }

    /// Gives all records of a file the checksums of what they say, as if it had
    /// been written so.
    pub fn reseal(&self, name: &str) {
        let mut state = self.0.lock();
        if let Some(body) = state.files.get(name).copied() {
            let body = &mut state.bodies[body];
            reseal(&mut body.written);
            reseal(&mut body.synced);
        }
    }

    /// Reading any of these bytes fails from now on, with EIO.
    pub fn spoil(&self, name: &str, range: Range<u64>) {
        let mut state = self.0.lock();
        if let Some(body) = state.files.get(name).copied() {
            state.bodies[body].spoiled.push(range);
        }
    }
}

impl State {
    /// Counts an operation. The fault, if it is to fail, and the error.
    fn operate(&mut self) -> Result<(), (Fault, io::Error)> {
        self.operations += 1;
        if self.is_stopped {
            return Err((Fault::Stopped, failed()));
        }
        match self.fault {
            Some((nth, fault)) if nth == self.operations => {
                self.is_stopped = fault == Fault::Stopped;
                let error = match fault {
                    Fault::Full => io::Error::from_raw_os_error(libc::ENOSPC),
                    Fault::Failed | Fault::Stopped => failed(),
                };
                Err((fault, error))
            }
            _ => Ok(()),
        }
    }

    fn change_name(&mut self, change: NameChange) -> io::Result<()> {
        let was_stopped = self.is_stopped;
        self.operate().map_err(|(fault, error)| {
            if fault == Fault::Stopped && !was_stopped {
                self.torn = Some(change);
            }
            error
        })
    }

    fn insert(&mut self, name: &str, body: Body) {
        self.files.insert(name.to_owned(), self.bodies.len());
        self.bodies.push(body);
    }

    fn take(&mut self, bytes: u64) -> io::Result<()> {
        self.free_bytes = self
            .free_bytes
            .checked_sub(bytes)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOSPC))?;
        Ok(())
    }
}

impl Body {
    fn new(bytes: Vec<u8>) -> Body {
        Body {
            written: bytes.clone(),
            synced: bytes,
            ..Body::default()
        }
    }

    /// What was synced, and parts of what was written since.
    fn torn(&self, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        for (at, write) in &self.writes {
            let at = *at as usize;
            match dice.below(4) {
                0 => {}
                1 => put(&mut bytes, at, write),
                2 => {
                    let len = dice.below(write.len() as u64 + 1) as usize;
                    put(&mut bytes, at, &write[..len]);
                }
                _ => {
                    let mut from = 0;
                    while from < write.len() {
                        // Sectors lie where the file has them.
                        let to = (at + from + 1).next_multiple_of(SECTOR) - at;
                        let to = to.min(write.len());
                        if dice.below(2) == 1 {
                            put(&mut bytes, at + from, &write[from..to]);
                        }
                        from = to;
                    }
                }
            }
        }
        bytes
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    if bytes.len() < at + new.len() {
        bytes.resize(at + new.len(), 0);
    }
    bytes[at..at + new.len()].copy_from_slice(new);
}

fn failed() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {name}"))
}

impl Disk for Twin {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().files.keys().cloned().collect())
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Box<dyn File>> {
        let mut state = self.0.lock();
        state.change_name(NameChange::Create(name.to_owned(), len))?;
        if state.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.take(len)?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        state.insert(name, Body::new(vec![0; len]));
        drop(state);
        self.open(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let body = *self.0.lock().files.get(name).ok_or_else(|| missing(name))?;
        Ok(Box::new(TwinFile {
            twin: self.clone(),
            body,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.change_name(NameChange::Rename(from.to_owned(), to.to_owned()))?;
        let body = state.files.remove(from).ok_or_else(|| missing(from))?;
        state.files.insert(to.to_owned(), body);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.0.lock();
        state.change_name(NameChange::Remove(name.to_owned()))?;
        let body = state.files.remove(name).ok_or_else(|| missing(name))?;
        state.free_bytes += state.bodies[body].written.len() as u64;
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.0.lock().free_bytes)
    }

    fn salt(&self) -> u64 {
        let mut state = self.0.lock();
        state.salt += 1;
        Dice(state.salt).next()
    }
}

struct TwinFile {
    twin: Twin,
    body: usize,
}

impl File for TwinFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.twin.0.lock().bodies[self.body].written.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        let state = self.twin.0.lock();
        let body = &state.bodies[self.body];
        let range = at..at + buf.len() as u64;
        let is_spoiled = |bad: &Range<u64>| bad.start < range.end && range.start < bad.end;
        if body.spoiled.iter().any(is_spoiled) {
            return Err(failed());
        }
        let bytes = body
            .written
            .get(range.start as usize..range.end as usize)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut state = self.twin.0.lock();
        let was_stopped = state.is_stopped;
        let (bytes, done) = match state.operate() {
            Ok(()) => {
                let len = state.bodies[self.body].written.len() as u64;
                let grown = (at + bytes.len() as u64).saturating_sub(len);
                match state.take(grown) {
                    Ok(()) => (bytes, Ok(())),
                    Err(error) => (&[][..], Err(error)),
                }
            }
            Err((_, error)) if was_stopped => (&[][..], Err(error)),
            // Up to where it came is not known.
            Err((Fault::Stopped, error)) => (bytes, Err(error)),
            Err((_, error)) => (&bytes[..bytes.len() / 2], Err(error)),
        };
        if !bytes.is_empty() {
            let body = &mut state.bodies[self.body];
            put(&mut body.written, at as usize, bytes);
            body.writes.push((at, bytes.to_owned()));
        }
        done
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.twin.0.lock();
        let done = state.operate();
        let body = &mut state.bodies[self.body];
        match done {
            Ok(()) => {
                for (at, write) in std::mem::take(&mut body.writes) {
                    put(&mut body.synced, at as usize, &write);
                }
                Ok(())
            }
            Err((fault, error)) => {
                if fault != Fault::Stopped {
                    body.writes.clear();
                }
                Err(error)
            }
        }
    }
}

/// SplitMix64: a good spread from any seed, the same everywhere.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// 0 is below everything.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_keeps_what_was_synced_and_perhaps_some_of_the_rest() {
        let disk = Twin::new();
        let file = disk.create("f", 2000).unwrap();
        file.write_at(&[1; 1000], 0).unwrap();
        file.sync().unwrap();
        file.write_at(&[2; 2000], 500).unwrap();
        let synced = [[1; 1000], [0; 1000]].concat();
        assert_eq!(disk.cut().bytes("f").unwrap(), synced);
        let whole = [&[1; 500][..], &[2; 2000]].concat();
        assert_eq!(disk.bytes("f").unwrap(), whole);
        assert_eq!(disk.kill().bytes("f").unwrap(), whole);
        // A killed process's writes can still be lost, and synced.
        assert_eq!(disk.kill().cut().bytes("f").unwrap(), synced);
        let mut kinds = [0; 3];
        for seed in 0..200 {
            let torn = disk.cut_with(seed).bytes("f").unwrap();
            assert_eq!(torn, disk.cut_with(seed).bytes("f").unwrap());
            for (i, byte) in torn.iter().enumerate() {
                let may = [synced.get(i).unwrap_or(&0), &whole[i]];
                assert!(may.contains(&byte), "{seed} {i}");
            }
            kinds[match torn {
                torn if torn == synced => 0,
                torn if torn == whole => 1,
                _ => 2,
            }] += 1;
        }
        assert!(kinds.iter().all(|count| *count > 20), "{kinds:?}");
    }

    #[test]
    fn the_operation_that_was_named_fails() {
        let disk = Twin::new();
        let file = disk.create("f", 0).unwrap();
        disk.fail_at(2, Fault::Full);
        file.write_at(b"ab", 0).unwrap();
        let error = file.write_at(b"cd", 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        disk.fail_at(1, Fault::Failed);
        file.sync().unwrap_err();
        // What could not be synced never is; what comes later is.
        file.write_at(b"ef", 4).unwrap();
        file.sync().unwrap();
        assert_eq!(disk.bytes("f").unwrap(), b"abc\0ef");
        assert_eq!(disk.cut().bytes("f").unwrap(), b"\0\0\0\0ef");
        disk.fail_at(2, Fault::Stopped);
        disk.rename("f", "g").unwrap();
        disk.rename("g", "h").unwrap_err();
        assert!(disk.create("i", 1).is_err() && file.write_at(b"x", 0).is_err());
        assert_eq!(disk.operations(), 10);
        let names: Vec<_> = (0..9)
            .flat_map(|seed| disk.cut_with(seed).names())
            .collect();
        assert!(names.contains(&vec!["g".to_owned()]) && names.contains(&vec!["h".to_owned()]));
        assert_eq!(disk.cut().names().unwrap(), ["g"]);
    }

    #[test]
    fn a_full_disk_takes_no_more_and_a_spoiled_one_gives_no_more() {
        let disk = Twin::new();
        disk.set_free_bytes(10);
        let file = disk.create("f", 4).unwrap();
        file.write_at(b"0123456789", 0).unwrap();
        assert_eq!(disk.free_bytes().unwrap(), 0);
        assert!(file.write_at(b"x", 10).is_err() && disk.create("g", 1).is_err());
        disk.flip("f", 3, 0xff);
        disk.spoil("f", 4..5);
        let mut bytes = [0; 4];
        file.read_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, [b'0', b'1', b'2', !b'3']);
        file.read_at(&mut bytes, 4).unwrap_err();
        disk.remove("f").unwrap();
        assert_eq!(disk.free_bytes().unwrap(), 10);
        file.read_at(&mut bytes, 0).unwrap();
    }
}
