//! A folder of files: what the store asks of a disk, and the real one.
//!
//! Everything that the store does to files goes through [`Disk`] and [`File`],
//! so that [`super::Twin`] can stand in for the disk, and fail. Nothing here
//! knows what is in a file.

use std::fs::{self, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A folder of files, by name.
pub trait Disk: Send + Sync {
    /// All files, in no order.
    fn names(&self) -> io::Result<Vec<String>>;

    /// A new file of `len` zeros. They are really written, and its name and
    /// length are durable when this returns, so that a later sync has only
    /// what was written since to sync. Where it fails there is no such file,
    /// or a shorter one.
    fn create(&self, name: &str, len: u64) -> io::Result<Box<dyn File>>;

    fn open(&self, name: &str) -> io::Result<Box<dyn File>>;

    /// Durable when it returns. `to` is not the name of a file.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Durable when it returns. Who has the file open can still read it.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// What may still be written, in bytes.
    fn free_bytes(&self) -> io::Result<u64>;

    /// A number that nobody can guess.
    fn salt(&self) -> u64;
}

/// An open file.
pub trait File: Send + Sync {
    /// In bytes.
    fn len(&self) -> io::Result<u64>;

    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// All of `buf`; an error of kind `UnexpectedEof` past the end.
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<()>;

    /// All of `bytes`. A file grows where that is past its end.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// What was written is durable when it returns. Never tried again when it
    /// failed: the system may have dropped what it could not write.
    fn sync(&self) -> io::Result<()>;
}

/// A folder of the file system, ours alone.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// For syncing the names.
    folder: fs::File,
    /// Locked as long as this lives.
    _lock: fs::File,
}

pub(super) const LOCK: &str = "lock";

/// How many zeros are written at a time.
const ZEROS: usize = 1 << 20;

impl Folder {
    /// Makes the folder, if there is none, for this user alone.
    ///
    /// # Errors
    ///
    /// Of kind [`io::ErrorKind::ResourceBusy`] when another broker has it.
    pub fn open(path: &Path) -> io::Result<Folder> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!(
                    "another broker uses the folder {}: stop it, or choose another folder",
                    path.display()
                ),
            ),
            TryLockError::Error(error) => error,
        })?;
        let folder = fs::File::open(path)?;
        folder.sync_all()?;
        // That of a new folder itself, in the one above.
        if let Some(above) = path.canonicalize()?.parent() {
            fs::File::open(above)?.sync_all()?;
        }
        Ok(Folder {
            path: path.to_owned(),
            folder,
            _lock: lock,
        })
    }
}

impl Disk for Folder {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string()
                && name != LOCK
                && entry.file_type()?.is_file()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Box<dyn File>> {
        let path = self.path.join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let zeros = vec![0; len.min(ZEROS as u64) as usize];
        let mut at = 0;
        let mut written = Ok(());
        while at < len && written.is_ok() {
            let piece = (len - at).min(ZEROS as u64);
            written = file.write_all_at(&zeros[..piece as usize], at);
            at += piece;
        }
        let made = written
            .and_then(|()| file.sync_all())
            .and_then(|()| self.folder.sync_all());
        if let Err(error) = made {
            // What it took is needed, if the disk is full. The error that
            // counts is the first one.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Box::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path.join(name))?;
        Ok(Box::new(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))?;
        self.folder.sync_all()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))?;
        self.folder.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let found = rustix::fs::fstatvfs(&self.folder)?;
        // Not what is reserved for root.
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn salt(&self) -> u64 {
        RandomState::new().build_hasher().finish()
    }
}

impl File for fs::File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(buf, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A folder that goes with the test.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let name = format!("rotamq-disk-{}-{name}", std::process::id());
            Place(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Case K08 of docs/security.md.
    #[test]
    fn files_are_made_filled_and_kept_for_this_user_alone() {
        let place = Place::new("files");
        let path = place.0.join("made/too");
        let folder = Folder::open(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        let len = (ZEROS + 5) as u64;
        let file = folder.create("one", len).unwrap();
        assert_eq!(mode(&path.join("one")), 0o600);
        assert_eq!(mode(&path.join("lock")), 0o600);
        file.write_at(b"bytes", len - 2).unwrap();
        file.sync().unwrap();
        drop(file);
        folder.rename("one", "other").unwrap();
        let file = folder.open("other").unwrap();
        assert_eq!(file.len().unwrap(), len + 3);
        let mut bytes = [9; 7];
        file.read_at(&mut bytes, len - 4).unwrap();
        assert_eq!(&bytes, b"\0\0bytes");
        let error = file.read_at(&mut bytes, len).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let error = folder.create("other", 1).map(drop).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(folder.names().unwrap(), ["other"]);
        folder.remove("other").unwrap();
        assert_eq!(folder.names().unwrap(), Vec::<String>::new());
        assert!(folder.free_bytes().unwrap() > 0);
        assert_ne!(folder.salt(), folder.salt());
    }

    /// Case K50 of docs/security.md.
    #[test]
    fn a_folder_that_a_broker_has_is_refused_to_another() {
        let place = Place::new("lock");
        let folder = Folder::open(&place.0).unwrap();
        let error = Folder::open(&place.0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        assert!(error.to_string().contains(place.0.to_str().unwrap()));
        drop(folder);
        Folder::open(&place.0).unwrap();
    }
}
