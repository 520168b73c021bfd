//! From arguments to a command, and from its outcome to an exit code.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rotamq::cli::{
    self, access, bench, config, passwd, publish, queue, reload, serve, store, subscribe,
};

/// What one thread allocates for a message another often gives back: mimalloc
/// saves 7 to 12 % of a delivery's CPU against the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    /// Run the broker
    Serve(serve::ServeArguments),
    /// Publish messages, or put them into queues
    Pub(publish::PublishArguments),
    /// Subscribe to topics, or work on queues, and print what comes
    Sub(subscribe::SubscribeArguments),
    /// Look at queues, and steer them
    ///
    /// Works on a running broker, over MQTT, from the broker's own machine.
    Queue(Box<queue::QueueArguments>),
    /// Add, change or remove a user of a password file
    ///
    /// Asks for the password, or reads the first line of standard input if that
    /// is no terminal.
    Passwd(passwd::PasswdArguments),
    /// Check access rules, or tell which of them decides
    Access(access::AccessArguments),
    /// Check a configuration, or show what holds
    Config(config::ConfigArguments),
    /// Have a running broker read its configuration again
    ///
    /// As SIGHUP does; and tells what has changed, and what needs a restart. With
    /// an error in the configuration, or in a file that it names, nothing is
    /// changed. From the broker's own machine, as a user who may read its data
    /// folder.
    Reload(reload::ReloadArguments),
    /// Look at a data folder, copy it, or carry over what is in it
    Store(store::StoreArguments),
    /// Put load on a broker, this one or another, and measure
    ///
    /// Prints rates, latencies and, given --pid, what the broker uses for it. A
    /// message is delivered when its subscriber has read it; each publisher has
    /// at most --window messages published and not yet delivered.
    Bench(bench::BenchArguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let command = arguments.command.unwrap_or(Command::Serve(arguments.serve));
    cli::exit(match command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::Pub(arguments) => publish::run(arguments),
        Command::Sub(arguments) => subscribe::run(arguments),
        Command::Queue(arguments) => queue::run(*arguments),
        Command::Passwd(arguments) => passwd::run(arguments),
        Command::Access(arguments) => access::run(arguments),
        Command::Config(arguments) => config::run(arguments),
        Command::Reload(arguments) => reload::run(arguments),
        Command::Store(arguments) => store::run(arguments),
        Command::Bench(arguments) => bench::run(&arguments),
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn no_two_options_are_in_each_others_way() {
        super::Arguments::command().debug_assert();
    }
}
