//! The commands of the program, one file each.
//!
//! Owns arguments, and what is printed. A command that fails gives sentences
//! for standard error; none of them ends the process itself.

pub mod access;
mod arguments;
pub mod bench;
mod client;
pub mod config;
mod describe;
pub mod format;
pub mod logging;
pub mod passwd;
pub mod property;
pub mod publish;
pub mod queue;
pub mod reload;
pub mod serve;
pub mod store;
mod strftime;
pub mod subscribe;
mod tls;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use rustix::process::{Resource, getrlimit, setrlimit};

/// What a command that did not fail tells its caller: 0 in general.
pub type Outcome = Result<ExitCode, Failure>;

/// Why a command failed: a sentence, or one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    pub fn new(text: impl Into<String>) -> Failure {
        Failure(text.into())
    }

    /// The same, and what follows from it.
    fn and(self, more: &str) -> Failure {
        Failure(format!("{}; {more}", self.0))
    }
}

impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure(error.to_string())
    }
}

/// Prints why a command failed, and gives the process its exit code.
pub fn exit(outcome: Outcome) -> ExitCode {
    outcome.unwrap_or_else(|Failure(text)| {
        let mut stderr = io::stderr().lock();
        for line in text.lines() {
            // There is nobody left to tell that standard error is closed.
            _ = writeln!(stderr, "rotamq: {line}");
        }
        ExitCode::FAILURE
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
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(format!(
            "cannot write to standard output: {error}"
        ))),
        _ => Ok(ExitCode::SUCCESS),
    }
}
