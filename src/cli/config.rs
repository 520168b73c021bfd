//! `rotamq config`: what a configuration says, and whether it can.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::{Outcome, print, say, serve};
use crate::config::{Effective, Flags, Source, example};

/// What `rotamq config` is told.
#[derive(clap::Args, Clone, Debug)]
pub struct ConfigArguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Tell all that is wrong with a file, whatever the environment says
    #[command(after_help = "\
Examples:
  rotamq config check rotamq.toml")]
    Check {
        /// The file
        file: PathBuf,
        /// Print that it is valid as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print every option, its value, and where that comes from
    #[command(after_help = "\
Examples:
  rotamq config show
  rotamq config show --config rotamq.toml --json")]
    Show {
        #[command(flatten)]
        serve: serve::ServeArguments,
        /// Print an array of objects with key, value and origin
        #[arg(long)]
        json: bool,
    },
    /// Print a file with every option, its default, its bounds and what it does
    #[command(after_help = "\
Examples:
  rotamq config example > rotamq.toml")]
    Example,
}

/// Checks or prints.
///
/// # Errors
/// All that is wrong with the configuration, a line each.
pub fn run(arguments: ConfigArguments) -> Outcome {
    match arguments.command {
        Command::Check { file, json } => {
            Effective::load(Some(&Source::read(&file)?), [], &Flags::default())?;
            say(json, &json!({ "valid": true }), || {
                format!("{} is a valid configuration.\n", file.display())
            })
        }
        Command::Show { serve, json: true } => print(&format!("{:#}\n", serve.load()?.to_json())),
        Command::Show { serve, json: false } => print(&serve.load()?.to_toml()),
        Command::Example => print(&example()),
    }
}
