//! The commands of the program, one file each.
//!
//! Owns arguments, and what is printed. A command that fails gives sentences
//! for standard error, and a kind by which scripts tell it from others; none of
//! them ends the process itself.
//!
//! What works on a running broker asks its HTTP port ([`http`]); its answers are
//! printed as they come, or as a person reads them ([`answer`], [`table`]).

pub mod access;
pub mod answer;
mod arguments;
pub mod ban;
pub mod bench;
mod client;
pub mod clients;
pub mod config;
mod describe;
pub mod format;
pub mod http;
pub mod log;
pub mod logging;
pub mod manual;
pub mod passwd;
mod progress;
pub mod property;
pub mod publish;
pub mod queue;
pub mod reload;
pub mod retained;
pub mod serve;
pub mod status;
pub mod store;
mod strftime;
pub mod subscribe;
pub mod table;
mod tls;
pub mod trace;
pub mod users;

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use rustix::process::{Resource, getrlimit, setrlimit};
use serde::Serialize;

/// What the help says of exit codes; a command that ends with others says so
/// itself.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  it is done
  1  it failed: standard error says why
  2  the arguments are wrong
  3  there is no such thing
  4  it is not allowed, or nobody is logged in
  5  there is no broker, or it cannot serve now";

/// What a command that did not fail tells its caller: 0 in general.
pub type Outcome = Result<ExitCode, Failure>;

/// Why a command failed: a sentence, or one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    text: String,
    kind: Kind,
}

/// What scripts tell failures apart by: the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Failed = 1,
    /// The arguments contradict each other.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// Who asks may not, or is nobody.
    Denied = 4,
    /// There is no broker, or it cannot serve now.
    Unavailable = 5,
}

impl Failure {
    pub fn new(text: impl Into<String>) -> Failure {
        Failure::of(Kind::Failed, text)
    }

    /// One that scripts tell from others.
    pub fn of(kind: Kind, text: impl Into<String>) -> Failure {
        let text = text.into();
        Failure { text, kind }
    }

    /// The sentences.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The same, and what follows from it.
    fn and(self, more: &str) -> Failure {
        Failure::of(self.kind, format!("{}; {more}", self.text))
    }
}

impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::new(error.to_string())
    }
}

/// Prints why a command failed, and gives the process its exit code.
pub fn exit(outcome: Outcome) -> ExitCode {
    outcome.unwrap_or_else(|Failure { text, kind }| {
        let mut stderr = io::stderr().lock();
        for line in text.lines() {
            // There is nobody left to tell that standard error is closed.
            _ = writeln!(stderr, "rotamq: {line}");
        }
        ExitCode::from(kind as u8)
    })
}

/// Takes all the open files that the system allows without asking: a
/// connection is one. How many there are then; `None`: no limit.
fn raise_open_files() -> io::Result<Option<u64>> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit)?;
    }
    Ok(limit.current)
}

/// Prints a command's result. That nobody reads it any more is no failure.
fn print(text: &str) -> Outcome {
    goes_on(text).map(|_| ExitCode::SUCCESS)
}

/// Prints, and tells whether anybody reads it.
fn goes_on(text: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes());
    match written.and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            let text = format!("cannot write to standard output: {error}");
            Err(Failure::new(text))
        }
    }
}

/// Prints an answer: as JSON, or in words.
fn say(json: bool, answer: &impl Serialize, words: impl FnOnce() -> String) -> Outcome {
    match json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(answer)?)),
        false => print(&words()),
    }
}

/// What is printed again and again: on a terminal in place of what was there.
fn refreshed(text: &str) -> String {
    match io::stdout().is_terminal() {
        // Home, and clear: as top does.
        true => format!("\x1b[H\x1b[2J{text}"),
        false => format!("{text}\n"),
    }
}
