//! The password file: `USER:HASH` a line, lines with `#` for people.
//!
//! Owns the users that the file names, as it was when it was last read whole.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::RwLock;

use super::hashing::Hashing;
use super::stored::{ScramKeys, Stored};
use super::{Answer, Answering, Authenticated, Authenticator, Credentials};

/// A million users take a hundred or two.
const FILE_BYTES_MAX: u64 = 1 << 30;
/// As a packet has it.
const USER_BYTES_MAX: usize = 65_535;

/// Those who have a line. Nothing of it is shown by `Debug`.
#[derive(Default)]
pub struct Users {
    by_name: HashMap<Arc<str>, Arc<Stored>, ahash::RandomState>,
    // In the order of the file.
    all: Vec<Arc<Stored>>,
}

/// Why a file cannot be used: a sentence that begins with the file, and the
/// line if there is one, and holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError(pub(super) String);

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FileError {}

/// What a line of the file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Empty, or for people.
    Comment,
    User {
        name: &'a str,
        stored: &'a str,
    },
}

impl<'a> Line<'a> {
    /// # Errors
    /// It is neither; why.
    pub fn parse(line: &'a str) -> Result<Line<'a>, &'static str> {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            return Ok(Line::Comment);
        }
        let (name, stored) = line.split_once(':').ok_or("has to be USER:HASH")?;
        check_user(name)?;
        Ok(Line::User { name, stored })
    }
}

/// Whether a file can name such a user.
///
/// # Errors
/// Why not.
pub fn check_user(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("a user's name cannot be empty");
    }
    if name.len() > USER_BYTES_MAX {
        return Err("a user's name has at most 65,535 bytes");
    }
    if name.starts_with('#') || name.contains(|c: char| c == ':' || c.is_control()) {
        return Err("a user's name cannot begin with #, nor have a : or a control character");
    }
    Ok(())
}

impl Users {
    /// Reads a file's text; `path` is for errors.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &str, path: &Path) -> Result<Users, FileError> {
        let mut users = Users::default();
        for (index, line) in text.lines().enumerate() {
            let wrong = |what: &str| FileError(format!("{}:{}: {what}", path.display(), index + 1));
            let Line::User { name, stored } = Line::parse(line).map_err(wrong)? else {
                continue;
            };
            let stored = Arc::new(Stored::parse(stored).map_err(wrong)?);
            users.all.push(stored.clone());
            if users.by_name.insert(name.into(), stored).is_some() {
                return Err(wrong(&format!("{name:?} has a line already")));
            }
        }
        Ok(users)
    }

    /// Users there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Their names, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(|name| &**name)
    }

    /// What is kept of a user's password.
    pub fn get(&self, name: &str) -> Option<&Arc<Stored>> {
        self.by_name.get(name)
    }

    /// What somebody who has no line is checked against, so that it takes as
    /// long as for somebody who has: another one's line, always the same.
    fn stand_in(&self, name: &str) -> Option<&Arc<Stored>> {
        let hash = self.by_name.hasher().hash_one(name);
        let index = hash.checked_rem(self.all.len() as u64)?;
        self.all.get(index as usize)
    }

    /// The keys of the file's first user who has any.
    pub fn first_scram(&self) -> Option<&ScramKeys> {
        self.all.iter().find_map(|stored| stored.scram())
    }
}

/// A password file in use.
pub struct PasswordFile {
    path: PathBuf,
    users: RwLock<Arc<Users>>,
    hashing: Arc<Hashing>,
}

impl PasswordFile {
    /// Reads the file; passwords are checked by `hashing`.
    ///
    /// # Errors
    /// It cannot be read, or a line is wrong.
    pub fn open(path: &Path, hashing: impl Into<Arc<Hashing>>) -> Result<PasswordFile, FileError> {
        let users = RwLock::new(Arc::new(read_users(path)?));
        Ok(PasswordFile {
            path: path.to_owned(),
            users,
            hashing: hashing.into(),
        })
    }

    /// Reads the file again; how many users there are now.
    ///
    /// # Errors
    /// Those of [`PasswordFile::open`]; then all stays as it was.
    pub fn reload(&self) -> Result<usize, FileError> {
        let users = Arc::new(read_users(&self.path)?);
        let len = users.len();
        *self.users.write() = users;
        Ok(len)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Those of the file as it was last read.
    pub fn users(&self) -> Arc<Users> {
        self.users.read().clone()
    }
}

impl Authenticator for PasswordFile {
    fn name(&self) -> &'static str {
        "password file"
    }

    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Answering<'a> {
        Box::pin(async move {
            let Some(name) = credentials.user else {
                return Answer::Next; // B11
            };
            let users = self.users();
            let known = users.get(name);
            let Some(password) = credentials.password else {
                return match known {
                    // Nobody else answers for a user of the file.
                    Some(_) => Answer::No("no password".into()),
                    None => Answer::Next,
                };
            };
            let Some(stored) = known.or_else(|| users.stand_in(name)).cloned() else {
                return Answer::Next; // There is nobody to be found out.
            };
            match (self.hashing.check(stored, password).await, known) {
                (Err(_), _) => Answer::Busy,
                (Ok(_), None) => Answer::Next, // B14
                (Ok(true), Some(_)) => Answer::Yes(Authenticated::as_user(name)),
                (Ok(false), Some(_)) => Answer::No("wrong password".into()),
            }
        })
    }
}

fn read_users(path: &Path) -> Result<Users, FileError> {
    let failed = |error| FileError(format!("cannot read {}: {error}", path.display()));
    let text = read_text(path).map_err(failed)?;
    Users::parse(&text, path)
}

/// A password file's text. That others can read the file is said in the log.
///
/// # Errors
/// It cannot be read, or is longer than 1 GiB.
pub fn read_text(path: &Path) -> io::Result<String> {
    let (text, is_open) = read_within(path, FILE_BYTES_MAX)?;
    if is_open {
        let path = path.display();
        tracing::warn!(%path, "everybody on this machine can read the password file: chmod o-r");
    }
    Ok(text)
}

/// A file's text, and whether everybody on this machine can read it.
///
/// # Errors
/// It cannot be read, or is longer than `bytes_max`.
pub(super) fn read_within(path: &Path, bytes_max: u64) -> io::Result<(String, bool)> {
    let file = File::open(path)?;
    let is_open = file.metadata()?.mode() & 0o004 != 0;
    let mut text = String::new();
    file.take(bytes_max + 1).read_to_string(&mut text)?;
    match text.len() as u64 > bytes_max {
        true => {
            let why = format!("it is longer than {} MiB", bytes_max >> 20);
            Err(io::Error::other(why))
        }
        false => Ok((text, is_open)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::task::{Context, Poll, Waker};

    use super::*;

    const MOSQUITTOS: &str = include_str!("../../tests/fixtures/mosquitto_passwd");

    fn file(text: &str, waiting_max: usize) -> PasswordFile {
        PasswordFile {
            path: PathBuf::from("passwords"),
            users: RwLock::new(Arc::new(
                Users::parse(text, Path::new("passwords")).unwrap(),
            )),
            hashing: Hashing::start(1, waiting_max).unwrap().into(),
        }
    }

    fn said<'a>(user: Option<&'a str>, password: Option<&'a [u8]>) -> Credentials<'a> {
        Credentials {
            certificate: None,
            address: Some(Ipv4Addr::LOCALHOST.into()),
            client: "c",
            user,
            password,
            ..Credentials::NOBODY
        }
    }

    fn answer(file: &PasswordFile, user: &str, password: &str) -> Answer {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(file.authenticate(said(Some(user), Some(password.as_bytes()))))
    }

    fn yes(user: &str) -> Answer {
        Answer::Yes(Authenticated::as_user(user))
    }

    #[test]
    fn a_file_that_mosquitto_passwd_has_written() {
        let file = file(MOSQUITTOS, 8);
        assert_eq!(file.users().len(), 2);
        for (user, password, expected) in [
            ("ann", "ann's secret", yes("ann")),
            ("ben", "b€n", yes("ben")),
            ("ann", "b€n", Answer::No("wrong password".into())),
            ("ben", "", Answer::No("wrong password".into())),
            ("Ann", "ann's secret", Answer::Next),
        ] {
            assert_eq!(answer(&file, user, password), expected, "{user}");
        }
    }

    /// B14: as many hashes for a name that nobody has as for a wrong password.
    #[test]
    fn an_unknown_user_costs_what_a_wrong_password_costs() {
        let file = file(MOSQUITTOS, 8);
        for (round, user) in ["ann", "nobody", "", "ben", "noone"].iter().enumerate() {
            assert_eq!(file.hashing.computed(), round as u64);
            assert!(!matches!(answer(&file, user, "guess"), Answer::Yes(_)));
        }
        assert_eq!(file.hashing.computed(), 5);
        // And always the same one.
        let users = file.users();
        let stand_in = |name| Arc::as_ptr(users.stand_in(name).unwrap());
        assert_eq!(stand_in("nobody"), stand_in("nobody"));
        // Half a name is not asked about at all.
        for (half, expected) in [
            // A user of the file is the file's alone.
            (said(Some("ann"), None), Answer::No("no password".into())),
            (said(Some("nobody"), None), Answer::Next),
            (said(None, Some(b"x")), Answer::Next),
        ] {
            let mut asking = file.authenticate(half);
            let polled = asking
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
            assert_eq!(polled, Poll::Ready(expected));
        }
        assert_eq!(file.hashing.computed(), 5);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let wrong = |text: &str| {
            let users = Users::parse(text, Path::new("the/file"));
            users.err().map(|error| error.to_string())
        };
        let line = "$6$Xfjrew0nzRJLgT3v$97doyUs6rMWDEL8R1/4IpILWaEOZuGSioKDGPJdthj2VeBCaB7bdYuO1l3YldRqsX7JfXRQx64bisLrndGYurw==";
        assert_eq!(wrong(""), None);
        assert_eq!(
            wrong(&format!("# b\n\na:{line}\r\n  \nü b:{line} \n")),
            None
        );
        for (text, expected) in [
            ("\ncanary\n", "the/file:2: has to be USER:HASH"),
            (
                &*format!("a:{line}\n:{line}"),
                "the/file:2: a user's name cannot be empty",
            ),
            (
                &*format!("a\tb:{line}"),
                "the/file:1: a user's name cannot begin with #, nor have a : or a control \
                 character",
            ),
            (
                &*format!("a:{line}\nb:{line}\na:{line}"),
                "the/file:3: \"a\" has a line already",
            ),
            (
                "a:canary",
                "the/file:1: the password has to be hashed, as $argon2id$..., $7$..., $6$... or \
                 SCRAM-SHA-256$...: rotamq passwd writes such lines",
            ),
        ] {
            assert_eq!(wrong(text).as_deref(), Some(expected));
        }
    }
}
