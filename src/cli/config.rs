//! `rotamq config`: what a configuration says, and whether it can.

use std::path::PathBuf;

use clap::Subcommand;

use super::{Outcome, print, serve};
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
    Check {
        /// The file
        file: PathBuf,
    },
    /// Print every option, its value, and where that comes from
    Show {
        #[command(flatten)]
        serve: serve::ServeArguments,
        /// Print an array of objects with key, value and origin
        #[arg(long)]
        json: bool,
    },
    /// Print a file with every option, its default, its bounds and what it does
    Example,
}

/// Checks or prints.
///
/// # Errors
/// All that is wrong with the configuration, a line each.
pub fn run(arguments: ConfigArguments) -> Outcome {
    match arguments.command {
        Command::Check { file } => {
            Effective::load(Some(&Source::read(&file)?), [], &Flags::default())?;
            print(&format!("{} is a valid configuration.\n", file.display()))
        }
        Command::Show { serve, json: true } => print(&format!("{:#}\n", serve.load()?.to_json())),
        Command::Show { serve, json: false } => print(&serve.load()?.to_toml()),
        Command::Example => print(&example()),
    }
}
