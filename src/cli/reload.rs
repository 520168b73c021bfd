//! `rotamq reload`: the broker that runs on a data folder reads its
//! configuration again.

use std::fmt::Write;
use std::path::PathBuf;

use super::{Failure, Kind, Outcome, print};
use crate::config::{Effective, Flags, Reloaded, Source};
use crate::run::control::{Answer, AskError, Request, ask};

/// What `rotamq reload` is told.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Ends with 1 if the configuration is wrong, and with 5 if no broker runs on the folder.

Examples:
  rotamq reload
  rotamq reload --data /var/lib/rotamq
  rotamq reload --config /etc/rotamq/rotamq.toml --json")]
pub struct ReloadArguments {
    /// The broker's data folder; without it, that of the configuration
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Find the data folder by this configuration; which file the broker reads, it was told at its
    /// start
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    config: Option<PathBuf>,
    /// Print an object with changed and needs_restart
    #[arg(long)]
    json: bool,
}

/// Has it read, and prints what has changed.
///
/// # Errors
/// All that is wrong with the configuration, and nothing is changed then; no
/// broker runs on the folder.
pub fn run(arguments: ReloadArguments) -> Outcome {
    let data = match arguments.data {
        Some(data) => data,
        None => {
            let file = arguments.config.as_deref().map(Source::read).transpose()?;
            let variables = std::env::vars_os();
            let effective = Effective::load(file.as_ref(), variables, &Flags::default())?;
            effective.config.store.data
        }
    };
    let data = std::path::absolute(data)?;
    let shown = data.display();
    let answer = ask(&data, &Request::Reload).map_err(|error| match error {
        AskError::Nobody => Failure::of(
            Kind::Unavailable,
            format!("no broker runs on the data folder {shown}: name another one with --data"),
        ),
        error => Failure::new(format!("{shown}: {error}")),
    })?;
    match answer {
        Answer::Reloaded(reloaded) if arguments.json => {
            print(&format!("{:#}\n", serde_json::to_value(&reloaded)?))
        }
        Answer::Reloaded(reloaded) => print(&told(&reloaded)),
        Answer::NotReloaded { problems } => Err(Failure::new(format!(
            "{}\nnothing is changed",
            problems.join("\n")
        ))),
        Answer::Error(error) => Err(Failure::new(error)),
        _ => Err(Failure::new("the broker's answer is one to something else")),
    }
}

/// For people.
fn told(reloaded: &Reloaded) -> String {
    let mut text = String::new();
    for change in &reloaded.changed {
        // Writing to a String cannot fail.
        _ = writeln!(text, "{change} ({})", change.applies());
    }
    for change in &reloaded.needs_restart {
        _ = writeln!(text, "needs a restart: {change}");
    }
    if text.is_empty() {
        text.push_str("No option has changed. The files that are named were read again.\n");
    }
    text
}
