//! `rotamq serve`, which is also what `rotamq` alone does: the broker.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::PossibleValuesParser;

use super::{Outcome, logging, raise_open_files};
use crate::config::{
    Address, ConfigError, Effective, Flags, Shape, Source, Value, parse_flag, shape_of,
};
use crate::run;
use crate::run::reload::Program;
use crate::run::systemd::Systemd;

/// The exit code when the disk has failed: EX_IOERR of sysexits.h.
const DISK_FAILED: u8 = 74;

/// What `rotamq serve` is told. `rotamq config show` takes the same.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ServeArguments {
    /// Read this configuration; no file is searched for
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen on this address, as in 127.0.0.1:1883 or unix:/run/rotamq.sock; repeatable, in place of
    /// those of the file
    #[arg(long, value_name = "ADDR")]
    listen: Vec<Address>,
    /// Worker threads; 0: one for each core
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = |text: &str| parse_flag("threads", text))]
    threads: Option<Value>,
    /// Keep what is stored in this folder
    #[arg(long, value_name = "DIR", conflicts_with = "ephemeral")]
    #[arg(value_parser = |text: &str| parse_flag("store.data", text))]
    data: Option<Value>,
    /// Keep nothing: for tests and trials
    #[arg(long)]
    ephemeral: bool,
    /// Let anyone connect, from other machines too if listened to
    #[arg(long)]
    allow_anonymous: bool,
    /// Where the HTTP port is: dashboard, API and metrics; off: nowhere
    #[arg(long, value_name = "ADDR|off")]
    #[arg(value_parser = |text: &str| parse_flag("http.address", text))]
    http: Option<Value>,
    /// The least severe level that is logged
    #[arg(long, value_name = "LEVEL", value_parser = words("log.level"))]
    log_level: Option<String>,
    /// What a line of the log looks like
    #[arg(long, value_name = "FORMAT", value_parser = words("log.format"))]
    log_format: Option<String>,
}

fn words(path: &str) -> PossibleValuesParser {
    match shape_of(path) {
        Some(Shape::Choice(words)) => PossibleValuesParser::new(words()),
        _ => PossibleValuesParser::new([""; 0]),
    }
}

impl ServeArguments {
    /// The configuration that these arguments, the environment and the file
    /// give.
    ///
    /// # Errors
    /// All that is wrong with it, a line each.
    pub fn load(self) -> Result<Effective, ConfigError> {
        let yes = |given: bool| given.then_some(Value::Flag(true));
        // Who names a folder wants it used, whatever a file says of trials.
        let not_ephemeral = self.data.is_some().then_some(Value::Flag(false));
        let values = [
            ("--threads", "threads", self.threads),
            ("--data", "store.data", self.data),
            ("--data", "store.ephemeral", not_ephemeral),
            ("--ephemeral", "store.ephemeral", yes(self.ephemeral)),
            (
                "--allow-anonymous",
                "allow_anonymous",
                yes(self.allow_anonymous),
            ),
            ("--http", "http.address", self.http),
            ("--log-level", "log.level", self.log_level.map(Value::Text)),
            (
                "--log-format",
                "log.format",
                self.log_format.map(Value::Text),
            ),
        ];
        let given = |(flag, path, value): (_, _, Option<_>)| Some((flag, path, value?));
        let flags = Flags {
            listen: self.listen,
            values: values.into_iter().filter_map(given).collect(),
        };
        let file = match self.config {
            Some(path) => Some(Source::read(&path)?),
            None => None,
        };
        Effective::load(file.as_ref(), std::env::vars_os(), &flags)
    }
}

/// Serves until the process is told to stop.
///
/// # Errors
/// The configuration is wrong, or the broker cannot start.
pub fn run(arguments: ServeArguments) -> Outcome {
    let effective = arguments.clone().load()?;
    let logbook = logging::start(&effective.config.log);
    match raise_open_files() {
        Ok(open_files_max) => tracing::debug!(?open_files_max, "limit of open files raised"),
        Err(error) => tracing::warn!(
            %error,
            "cannot raise the limit of open files; more connections will be refused"
        ),
    }
    let program = Program {
        load: Some(Box::new(move || arguments.clone().load())),
        logbook,
        systemd: Systemd::of_environment(),
        has_given_up_root: false,
    };
    Ok(match run::serve(effective, program)? {
        None => ExitCode::SUCCESS,
        Some(_) => ExitCode::from(DISK_FAILED),
    })
}
