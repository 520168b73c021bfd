//! `rotamq passwd`: a user's line in a password file.
//!
//! Owns where a password comes from, which is never an argument, and how the
//! file is written. What a line means is `authentication`'s.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, IsTerminal, Write};
use std::num::NonZeroU32;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid, fchown};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::json;

use super::{Failure, Outcome, say};
use crate::authentication::passwords::{self, Line, Users, check_user};
use crate::authentication::stored::{SCRAM_ITERATIONS, hash_argon2id, hash_scram};

/// What a CONNECT can carry.
const PASSWORD_BYTES_MAX: usize = 65_535;

/// What `rotamq passwd` is told.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  rotamq passwd /etc/rotamq/passwords ann
  rotamq passwd /etc/rotamq/passwords bob --scram < password.txt
  rotamq passwd /etc/rotamq/passwords ann --remove")]
pub struct PasswdArguments {
    /// The password file; made if it is missing
    file: PathBuf,
    /// The user to add, or to give another password
    #[arg(value_parser = user)]
    user: String,
    /// Remove the user
    #[arg(long, conflicts_with_all = ["scram", "iterations"])]
    remove: bool,
    /// Keep keys for SCRAM-SHA-256, which MQTT 5 clients can use; others log in as before
    #[arg(long)]
    scram: bool,
    /// How often SCRAM's hash is repeated, by each client that connects
    #[arg(long, value_name = "N", requires = "scram", default_value_t = SCRAM_ITERATIONS)]
    #[arg(value_parser = clap::value_parser!(u32).range(4096..=1_000_000))]
    iterations: u32,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

/// Changes the file.
///
/// # Errors
/// The file or the password cannot be read, or are not what they should be; or
/// the file cannot be written, and is as it was.
pub fn run(arguments: PasswdArguments) -> Outcome {
    let PasswdArguments { file, user, .. } = &arguments;
    check_order(file, user)?;
    let (path, before) = match fs::canonicalize(file) {
        Ok(path) => {
            let text = passwords::read_text(&path);
            let failed = |error| Failure::new(format!("cannot read {}: {error}", file.display()));
            (path, Some(text.map_err(failed)?))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && !arguments.remove => {
            (file.clone(), None)
        }
        Err(error) => {
            let text = format!("cannot read {}: {error}", file.display());
            return Err(Failure::new(text));
        }
    };
    let text = before.as_deref().unwrap_or_default();
    let is_known = Users::parse(text, &path)?.get(user).is_some();
    if arguments.remove && !is_known {
        let text = format!("{} has no user {user:?}", file.display());
        return Err(Failure::new(text));
    }
    let line = match arguments.remove {
        true => None,
        false => Some(new_line(&arguments)?),
    };
    write_file(&path, &edited(text, user, line.as_deref()))?;
    let done = match (arguments.remove, is_known) {
        (true, _) => "removed",
        (false, true) => "changed",
        (false, false) => "added",
    };
    let told = json!({ "user": user, "done": done });
    say(arguments.json, &told, || {
        format!("{user}: {done}. A running broker reads the file again when it gets SIGHUP.\n")
    })
}

fn user(text: &str) -> Result<String, &'static str> {
    check_user(text).map(|()| text.to_owned())
}

/// Who mixes up the two would make a file with a user's name (M05).
fn check_order(file: &Path, user: &str) -> Result<(), Failure> {
    let is_path = Path::new(user).is_file() || user.contains('/') && !file.exists();
    match is_path {
        true => Err(Failure::new(format!(
            "{user:?} looks like the file, and {:?} like the user: the order is rotamq passwd \
             FILE USER",
            file.display().to_string()
        ))),
        false => Ok(()),
    }
}

/// The user's line, without its end.
fn new_line(arguments: &PasswdArguments) -> Result<String, Failure> {
    let user = &arguments.user;
    let password = read_password(user)?;
    let stored = if arguments.scram {
        let is_plain = |byte: &u8| (b' '..=b'~').contains(byte);
        if !user.bytes().all(|byte| is_plain(&byte)) || !password.iter().all(is_plain) {
            let text = "with --scram, user and password have to be of printable ASCII";
            return Err(Failure::new(text));
        }
        let iterations = NonZeroU32::new(arguments.iterations).unwrap_or(NonZeroU32::MIN);
        hash_scram(&password, iterations)?
    } else {
        hash_argon2id(&password)?
    };
    Ok(format!("{user}:{stored}"))
}

/// From a terminal without echo, twice; from anything else its first line.
pub(super) fn read_password(user: &str) -> Result<Vec<u8>, Failure> {
    let stdin = io::stdin();
    let password = if stdin.is_terminal() {
        let echo = NoEcho::start()?;
        let first = ask(&format!("Password of {user}: "))?;
        let second = ask("Again: ")?;
        drop(echo);
        if first != second {
            return Err(Failure::new(
                "the two are not the same: nothing was changed",
            ));
        }
        first
    } else {
        first_line(stdin.lock())?
    };
    match password.len() {
        0 => Err(Failure::new("the password is empty: nothing was changed")),
        1..=PASSWORD_BYTES_MAX => Ok(password),
        _ => Err(Failure::new(format!(
            "the password is longer than {PASSWORD_BYTES_MAX} bytes"
        ))),
    }
}

fn ask(question: &str) -> Result<Vec<u8>, Failure> {
    let mut stderr = io::stderr().lock();
    stderr.write_all(question.as_bytes())?;
    stderr.flush()?;
    let answer = first_line(io::stdin().lock());
    stderr.write_all(b"\n")?; // It was not shown.
    answer
}

fn first_line(from: impl BufRead) -> Result<Vec<u8>, Failure> {
    let mut line = Vec::new();
    from.take(PASSWORD_BYTES_MAX as u64 + 3)
        .read_until(b'\n', &mut line)
        .map_err(|error| Failure::new(format!("cannot read the password: {error}")))?;
    line.pop_if(|last| *last == b'\n');
    line.pop_if(|last| *last == b'\r');
    Ok(line)
}

/// The terminal shows nothing that is typed, as long as this lives.
struct NoEcho(Termios);

impl NoEcho {
    fn start() -> Result<NoEcho, Failure> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(NoEcho(before))
    }
}

impl Drop for NoEcho {
    fn drop(&mut self) {
        // A terminal that has gone meanwhile needs no echo.
        _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

/// The file's text with the user's line in its place, or at the end; without
/// it, if there is to be `None`. All else stays as it is.
fn edited(text: &str, user: &str, line: Option<&str>) -> String {
    let mut edited = String::with_capacity(text.len() + 256);
    let mut line = line;
    for old in text.split_inclusive('\n') {
        match Line::parse(old) {
            Ok(Line::User { name, .. }) if name == user => {
                if let Some(line) = line.take() {
                    edited += line;
                    edited.push('\n');
                }
            }
            _ => edited += old,
        }
    }
    if let Some(line) = line {
        if !edited.is_empty() && !edited.ends_with('\n') {
            edited.push('\n');
        }
        edited += line;
        edited.push('\n');
    }
    edited
}

/// All of it or nothing, for its owner's eyes alone.
fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    let failed =
        |what: &str, error: &dyn std::fmt::Display| Failure::new(format!("cannot {what}: {error}"));
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(&new);
    let mut file = opened.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::new(format!(
            "{} is there: another rotamq passwd is at work, or did not end; if none is, \
             remove it",
            new.display()
        )),
        _ => failed(&format!("make {}", new.display()), &error),
    })?;
    let written = fill(&mut file, path, text).and_then(|()| fs::rename(&new, path));
    if let Err(error) = written {
        // What is left says more than why it cannot be removed either.
        _ = fs::remove_file(&new);
        return Err(failed(&format!("write {}", path.display()), &error));
    }
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    (File::open(folder).and_then(|folder| folder.sync_all()))
        .map_err(|error| failed(&format!("sync {}", folder.display()), &error))
}

fn fill(file: &mut File, path: &Path, text: &str) -> io::Result<()> {
    // Root may look after a file that is the broker's.
    if let Ok(old) = fs::metadata(path) {
        let new = file.metadata()?;
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            fchown(
                &*file,
                Some(Uid::from_raw(old.uid())),
                Some(Gid::from_raw(old.gid())),
            )?;
        }
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_other_lines_stay_as_they_are() {
        let text = "# ours\r\n\na:1\n# b:no\nb:2\r\nc:3";
        for (user, line, expected) in [
            ("a", Some("a:9"), "# ours\r\n\na:9\n# b:no\nb:2\r\nc:3"),
            ("b", Some("b:9"), "# ours\r\n\na:1\n# b:no\nb:9\nc:3"),
            ("c", Some("c:9"), "# ours\r\n\na:1\n# b:no\nb:2\r\nc:9\n"),
            (
                "d",
                Some("d:9"),
                "# ours\r\n\na:1\n# b:no\nb:2\r\nc:3\nd:9\n",
            ),
            ("b", None, "# ours\r\n\na:1\n# b:no\nc:3"),
        ] {
            assert_eq!(edited(text, user, line), expected, "{user}");
        }
        assert_eq!(edited("", "a", Some("a:1")), "a:1\n");
    }
}
