//! From arguments to a command, and from its outcome to an exit code.

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use rotamq::cli::{
    self, access, ban, bench, clients, config, log, manual, passwd, publish, queue, reload,
    retained, serve, status, store, subscribe, trace, users,
};

/// What one thread allocates for a message another often gives back: mimalloc
/// saves 7 to 12 % of a delivery's CPU against the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn give_memory_back() {
    // SAFETY: any thread may call it at any time; it takes and returns no pointers.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

/// An MQTT broker that also is a work-queue server.
///
/// Without a command it serves. Commands that work on a running broker find it by --http or
/// ROTAMQ_HTTP, or else by the data folder that it runs on.
#[derive(Parser)]
#[command(name = "rotamq", version, args_conflicts_with_subcommands = true)]
#[command(after_help = help())]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeArguments,
}

fn help() -> String {
    format!(
        "{}\n
Examples:
  rotamq --data /var/lib/rotamq
  rotamq status
  rotamq queue ls --watch",
        cli::EXIT_CODES
    )
}

#[derive(Subcommand)]
enum Command {
    /// Run the broker
    #[command(after_help = "\
Ends with 74 if the disk has failed.

Examples:
  rotamq serve
  rotamq serve --config /etc/rotamq/rotamq.toml
  rotamq serve --ephemeral --listen 127.0.0.1:1884")]
    Serve(serve::ServeArguments),
    /// Show a broker at a glance: what it does, and what needs a look
    Status(status::StatusArguments),
    /// Publish messages, or put them into queues
    Pub(publish::PublishArguments),
    /// Subscribe to topics, or work on queues, and print what comes
    Sub(subscribe::SubscribeArguments),
    /// Look at queues, and steer them
    ///
    /// Works on a running broker: over HTTP, or, where -h, -p, --unix, -u, -P or -i is given, over
    /// MQTT.
    Queue(Box<queue::QueueArguments>),
    /// Look at who is connected, and disconnect clients
    Clients(clients::ClientsArguments),
    /// Look at the sessions of clients that are connected or away, and end them
    Sessions(clients::SessionsArguments),
    /// List subscriptions
    Subscriptions(clients::SubscriptionsArguments),
    /// Look at retained messages, and delete them
    Retained(retained::RetainedArguments),
    /// Record the packets of a client, or about a topic, and print them as they come
    Trace(trace::TraceArguments),
    /// Show what a broker logs, and change from which level on it does
    Log(log::LogArguments),
    /// Look at who is kept out for a while, keep somebody out, or let somebody in again
    Ban(ban::BanArguments),
    /// Add, change or remove who may use a broker's HTTP port
    Http(users::HttpUsersArguments),
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
    #[command(after_help = "\
Examples:
  rotamq bench pairs --qos 1 --pairs 100
  rotamq bench fan-out --subscribers 500 --rate 1000 --json
  rotamq bench queue --seconds 20")]
    Bench(bench::BenchArguments),
    /// Print what a shell needs to complete these commands
    Completions(manual::CompletionsArguments),
    /// Print the manual page, or write the pages of all commands into a folder
    Man(manual::ManArguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let command = arguments.command.unwrap_or(Command::Serve(arguments.serve));
    cli::exit(match command {
        Command::Serve(arguments) => {
            rotamq::run::give_back_by(give_memory_back);
            serve::run(arguments)
        }
        Command::Pub(arguments) => publish::run(arguments),
        Command::Sub(arguments) => subscribe::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Queue(arguments) => queue::run(*arguments),
        Command::Clients(arguments) => clients::run(arguments),
        Command::Sessions(arguments) => clients::run_sessions(arguments),
        Command::Subscriptions(arguments) => clients::run_subscriptions(arguments),
        Command::Retained(arguments) => retained::run(arguments),
        Command::Trace(arguments) => trace::run(arguments),
        Command::Log(arguments) => log::run(arguments),
        Command::Ban(arguments) => ban::run(arguments),
        Command::Http(arguments) => users::run(arguments),
        Command::Passwd(arguments) => passwd::run(arguments),
        Command::Access(arguments) => access::run(arguments),
        Command::Config(arguments) => config::run(arguments),
        Command::Reload(arguments) => reload::run(arguments),
        Command::Store(arguments) => store::run(arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Completions(arguments) => manual::complete(&arguments, Arguments::command()),
        Command::Man(arguments) => manual::write(&arguments, Arguments::command()),
    })
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory, Parser};

    use super::Arguments;

    #[test]
    fn no_two_options_are_in_each_others_way() {
        Arguments::command().debug_assert();
    }

    /// Those that do something, and not others below them.
    fn leaves<'c>(command: &'c Command, found: &mut Vec<&'c Command>) {
        if !command.has_subcommands() || command.get_name() == "log" {
            found.push(command);
        }
        for command in command.get_subcommands() {
            leaves(command, found);
        }
    }

    /// The words of a line as a shell reads it, up to a pipe or a file.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
        for c in line.chars() {
            match (quote, c) {
                (Some(end), c) if c == end => quote = None,
                (Some(_), c) => word.get_or_insert_default().push(c),
                (None, '\'' | '"') => {
                    quote = Some(c);
                    word.get_or_insert_default();
                }
                (None, '|' | '<' | '>') => break,
                (None, ' ') => words.extend(word.take()),
                (None, c) => word.get_or_insert_default().push(c),
            }
        }
        words.extend(word);
        words
    }

    /// Those that print nothing, or what has a form of its own.
    const WITHOUT_JSON: [&str; 6] = [
        "rotamq",
        "rotamq serve",
        "rotamq config example",
        "rotamq store export",
        "rotamq completions",
        "rotamq man",
    ];

    #[test]
    fn every_command_has_json_and_examples_that_can_be_typed() {
        let mut command = Arguments::command().disable_help_subcommand(true);
        command.build();
        let mut found = vec![&command];
        leaves(&command, &mut found);
        assert!(found.len() > 40, "{}", found.len());
        for command in found {
            let name = command.get_bin_name().unwrap_or(command.get_name());
            let has_json = command.get_arguments().any(|one| one.get_id() == "json");
            assert_eq!(has_json, !WITHOUT_JSON.contains(&name), "{name}");
            let help = command.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            let (_, examples) = help
                .split_once("Examples:\n")
                .unwrap_or_else(|| panic!("{name} has no examples"));
            let lines = examples.lines().map(str::trim);
            let lines: Vec<&str> = lines.filter(|line| line.starts_with("rotamq")).collect();
            assert!(!lines.is_empty(), "{name}");
            for line in lines {
                assert!(line.starts_with(name) || name == "rotamq", "{line}");
                if let Err(error) = Arguments::try_parse_from(words(line)) {
                    panic!("{line}: {error}");
                }
            }
        }
    }
}
