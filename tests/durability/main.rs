//! What the broker acknowledged is there after its end, message by message:
//! black-box tests of durability, with real processes on a real disk. The
//! script `tests/crash` builds and runs this.
//!
//! This program uses nothing of the broker's own code.

mod broker;
mod control;
mod faults;
mod fleet;
mod full;
mod ledger;
mod plan;
mod random;
#[path = "../root.rs"]
mod root;
mod rounds;
mod session;
mod verdict;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::faults::Faults;
use crate::fleet::Fleet;
use crate::full::Full;
use crate::plan::Plan;
use crate::rounds::{Rounds, seed_of_now};
use crate::verdict::Count;

/// Checks that what the broker acknowledged survives its end.
#[derive(Parser)]
#[command(bin_name = "tests/crash")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Rounds of load on a broker that is killed, restarted, and checked
    Run(Rounds),
    /// A disk that fails under load
    Faults(Faults),
    /// A disk that fills up
    Full(Full),
    /// Loads any broker until it, or this, is killed, and notes all in a ledger
    Load(Load),
    /// Goes on where a load was cut, and says what of it is missing
    Check(Check),
}

#[derive(clap::Args)]
struct Load {
    /// The broker's IP address and port
    #[arg(long, value_name = "ADDRESS")]
    address: SocketAddr,
    /// A file that is new, or that an earlier load or check wrote
    #[arg(long, value_name = "FILE")]
    ledger: PathBuf,
    /// Decides who publishes what, and what all names begin with
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// The broker has no work queues
    #[arg(long)]
    no_queues: bool,
    /// Messages a second, at most
    #[arg(long, value_name = "N", default_value_t = 5000)]
    rate_max: u64,
    /// End when so many messages are acknowledged. Up to half of all wait in each of the absent
    /// sessions, which have to have room
    #[arg(long, value_name = "N")]
    messages: Option<u64>,
}

#[derive(clap::Args)]
struct Check {
    /// The broker's IP address and port
    #[arg(long, value_name = "ADDRESS")]
    address: SocketAddr,
    /// What the load wrote
    #[arg(long, value_name = "FILE")]
    ledger: PathBuf,
}

fn main() -> ExitCode {
    let done = match &Arguments::parse().command {
        Command::Run(rounds) => rounds.run(),
        Command::Faults(faults) => faults.run(),
        Command::Full(full) => full.run(),
        Command::Load(load) => load.run(),
        Command::Check(check) => check.run(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tests/crash: {error}");
            ExitCode::from(2)
        }
    }
}

impl Load {
    fn run(&self) -> Result<bool, String> {
        let seed = self.seed.unwrap_or_else(seed_of_now);
        let mut fleet = Fleet::open(self.address, &self.ledger, || {
            Plan::new(&format!("crash{seed:x}"), seed, !self.no_queues)
        })?;
        let before = fleet.verdict().acknowledged();
        let wanted = self.messages.map_or(u64::MAX, |messages| before + messages);
        let end = fleet.load(self.rate_max, |acknowledged| acknowledged >= wanted)?;
        let messages = fleet.verdict().acknowledged() - before;
        println!("{messages} messages were acknowledged; the load ended: {end:?}");
        Ok(true)
    }
}

impl Check {
    fn run(&self) -> Result<bool, String> {
        let mut fleet = Fleet::open(self.address, &self.ledger, || Plan::new("nothing", 0, true))?;
        let mut troubles: Vec<String> = fleet.settle().err().into_iter().collect();
        let faults = fleet.verdict().faults();
        // That faults would be found is shown each time.
        if faults.is_empty() && troubles.is_empty() {
            troubles = control::unnoticed(&self.ledger)?;
        }
        for text in faults.iter().map(|fault| &fault.text).chain(&troubles) {
            println!("{text}");
        }
        let count = Count::of(fleet.verdict().acknowledged(), &faults).and_other(troubles.len());
        println!("{count}");
        Ok(count.is_clean())
    }
}
