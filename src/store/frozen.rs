//! A data folder that is only looked at.
//!
//! A store that is opened writes: it mends heads, copies damage aside, counts
//! its runs. [`Frozen`] keeps all of that in memory, over files that are open
//! for reading only; when it goes, the folder is as it was.

use std::collections::BTreeMap;
use std::fs::{self, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::{Disk, File, LOCK};

/// The files of a folder, and what was written over them since.
pub struct Frozen {
    names: Mutex<BTreeMap<String, Arc<Layers>>>,
    folder: fs::File,
    /// Locked as long as this lives; `None`: no broker ever had the folder.
    _lock: Option<fs::File>,
}

struct Layers {
    below: Option<fs::File>,
    above: Mutex<Above>,
}

struct Above {
    len: u64,
    /// Of what is below, so much counts.
    below_len: u64,
    /// What was written, in whole pages by their numbers.
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
}

const PAGE: usize = 4096;

impl Frozen {
    /// Looks at a folder. No broker can have it meanwhile.
    ///
    /// # Errors
    ///
    /// Of kind [`io::ErrorKind::ResourceBusy`] when one has it;
    /// [`io::ErrorKind::NotFound`] when there is no such folder.
    pub fn open(path: &Path) -> io::Result<Frozen> {
        let lock = match fs::File::open(path.join(LOCK)) {
            Ok(lock) => Some(lock),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(lock) = &lock {
            lock.try_lock().map_err(|error| match error {
                TryLockError::WouldBlock => io::ErrorKind::ResourceBusy.into(),
                TryLockError::Error(error) => error,
            })?;
        }
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string()
                && name != LOCK
                && entry.file_type()?.is_file()
            {
                let below = fs::File::open(entry.path())?;
                let len = below.metadata()?.len();
                names.insert(name, Arc::new(Layers::new(Some(below), len)));
            }
        }
        Ok(Frozen {
            names: Mutex::new(names),
            folder: fs::File::open(path)?,
            _lock: lock,
        })
    }
}

impl Disk for Frozen {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.names.lock().keys().cloned().collect())
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Box<dyn File>> {
        let mut names = self.names.lock();
        if names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let made = Arc::new(Layers::new(None, 0));
        made.above.lock().len = len;
        names.insert(name.to_owned(), made.clone());
        Ok(Box::new(made))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        match self.names.lock().get(name) {
            Some(file) => Ok(Box::new(file.clone())),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut names = self.names.lock();
        let file = names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match self.names.lock().remove(name) {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let found = rustix::fs::fstatvfs(&self.folder)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn salt(&self) -> u64 {
        RandomState::new().build_hasher().finish()
    }
}

impl Layers {
    fn new(below: Option<fs::File>, len: u64) -> Layers {
        let above = Above {
            len,
            below_len: len,
            pages: BTreeMap::new(),
        };
        Layers {
            below,
            above: Mutex::new(above),
        }
    }

    /// What is below from `at` on, and zeros behind it.
    fn read_below(&self, buf: &mut [u8], at: u64, below_len: u64) -> io::Result<()> {
        let there = below_len.saturating_sub(at).min(buf.len() as u64) as usize;
        let (there, behind) = buf.split_at_mut(there);
        behind.fill(0);
        match &self.below {
            Some(below) if !there.is_empty() => below.read_exact_at(there, at),
            _ => Ok(()),
        }
    }
}

impl File for Arc<Layers> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.above.lock().len)
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        let end = at + buf.len() as u64;
        let above = self.above.lock();
        if end > above.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_below(buf, at, above.below_len)?;
        for (number, page) in above
            .pages
            .range(at / PAGE as u64..end.div_ceil(PAGE as u64))
        {
            let begin = number * PAGE as u64;
            let (from, to) = (begin.max(at), (begin + PAGE as u64).min(end));
            let of_page = &page[(from - begin) as usize..(to - begin) as usize];
            buf[(from - at) as usize..(to - at) as usize].copy_from_slice(of_page);
        }
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut above = self.above.lock();
        let (mut at, mut rest) = (at, bytes);
        while !rest.is_empty() {
            let (number, offset) = (at / PAGE as u64, (at % PAGE as u64) as usize);
            let (now, later) = rest.split_at(rest.len().min(PAGE - offset));
            if !above.pages.contains_key(&number) {
                let mut page = Box::new([0; PAGE]);
                self.read_below(&mut *page, number * PAGE as u64, above.below_len)?;
                above.pages.insert(number, page);
            }
            if let Some(page) = above.pages.get_mut(&number) {
                page[offset..offset + now.len()].copy_from_slice(now);
            }
            at += now.len() as u64;
            rest = later;
            above.len = above.len.max(at);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::Folder;
    use super::*;

    #[test]
    fn what_is_written_is_read_and_the_folder_stays_as_it_was() {
        let path = std::env::temp_dir().join(format!("rotamq-frozen-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let bytes: Vec<u8> = (0..3 * PAGE + 100).map(|i| (i % 251) as u8).collect();
        fs::write(path.join("a"), &bytes).unwrap();
        {
            let frozen = Frozen::open(&path).unwrap();
            let file = frozen.open("a").unwrap();
            let mut model = bytes.clone();
            for (at, len) in [
                (0, 5),
                (PAGE - 3, 7),
                (2 * PAGE, PAGE),
                (3 * PAGE + 90, 5000),
            ] {
                let piece = vec![at as u8 | 1; len];
                file.write_at(&piece, at as u64).unwrap();
                model.resize(model.len().max(at + len), 0);
                model[at..at + len].copy_from_slice(&piece);
            }
            assert_eq!(file.len().unwrap(), model.len() as u64);
            for (at, len) in [(0, model.len()), (3, 2 * PAGE), (PAGE + 9, 1), (0, 0)] {
                let mut read = vec![9; len];
                file.read_at(&mut read, at as u64).unwrap();
                assert_eq!(read, model[at..at + len], "{at} {len}");
            }
            let past = file.read_at(&mut [0; 2], model.len() as u64 - 1);
            assert_eq!(past.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);

            let made = frozen.create("b", 10).unwrap();
            made.write_at(b"x", 9).unwrap();
            assert!(frozen.create("a", 1).is_err());
            frozen.rename("b", "c").unwrap();
            frozen.remove("a").unwrap();
            assert_eq!(frozen.names().unwrap(), ["c"]);
        }
        assert_eq!(fs::read(path.join("a")).unwrap(), bytes);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);

        let broker = Folder::open(&path).unwrap();
        let busy = Frozen::open(&path).map(drop).unwrap_err();
        assert_eq!(busy.kind(), io::ErrorKind::ResourceBusy);
        drop(broker);
        let both = [Frozen::open(&path).unwrap()];
        assert!(Folder::open(&path).is_err());
        drop(both);
        fs::remove_dir_all(&path).unwrap();
    }
}
