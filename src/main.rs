//! From arguments to a command, and from its outcome to an exit code.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rotamq::cli::{self, bench, config, serve};

/// An MQTT broker that also is a work-queue server.
///
/// Without a command it serves.
#[derive(Parser)]
#[command(name = "rotamq", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeArguments,
}

#[derive(Subcommand)]
enum Command {
    /// Run the broker.
    Serve(serve::ServeArguments),
    /// Check a configuration, or show what holds.
    Config(config::ConfigArguments),
    /// Put load on a broker, this one or another, and measure.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let command = arguments.command.unwrap_or(Command::Serve(arguments.serve));
    cli::exit(match command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::Config(arguments) => config::run(arguments),
        Command::Bench(arguments) => bench::run(&arguments)
            .map(|()| ExitCode::SUCCESS)
            .map_err(Into::into),
    })
}
