//! The conformance suite: plays cases against an MQTT broker at an address.
//!
//! The cases are data, in the folders beside this file; README.md says how
//! they are written. This program uses nothing of the broker's own code.

mod broker;
mod case;
mod connection;
mod packet;
mod play;
mod property;
mod statements;

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime};

use clap::Parser;

use crate::broker::Broker;
use crate::case::{Action, Case, Run};
use crate::play::Failure;

/// Plays the conformance cases against an MQTT broker.
#[derive(Parser)]
#[command(bin_name = "conformance/run")]
struct Arguments {
    /// The broker's HOST:PORT; without it, rotamq is built and started.
    #[arg(long)]
    address: Option<String>,
    /// Play only cases of this name, or that show this statement.
    #[arg(long, value_name = "CASE|STATEMENT")]
    only: Vec<String>,
    /// Play only cases of this protocol version.
    #[arg(long, value_parser = case::VERSIONS)]
    version: Option<String>,
    /// The broker at the address is RotaMQ: play the cases of its queues too.
    #[arg(long)]
    rotamq: bool,
    /// Count failures that a case notes for this broker as known.
    #[arg(long, value_parser = case::BROKERS)]
    known: Option<String>,
    /// How long a step may take before it fails.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    timeout: u64,
    /// Arguments of the rotamq that is started.
    #[arg(last = true)]
    rotamq_arguments: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let mut cases = case::load_all(&folder, &run_id())?;
    let faults = statements::check(&folder.join("statements.csv"), &cases)?;
    for fault in &faults {
        println!("FAIL  {fault}");
    }
    let ours = arguments.rotamq || arguments.address.is_none();
    cases.retain(|case| is_wanted(case, arguments) && (ours || !case.rotamq_only));
    if cases.is_empty() {
        return Err("there is no such case".into());
    }
    let mut started = None;
    let address = match &arguments.address {
        Some(address) => resolve(address)?,
        None => {
            let broker = Broker::start(&folder.join("rotamq.toml"), &arguments.rotamq_arguments)?;
            started.insert(broker).address()
        }
    };
    let patience = Duration::from_secs(arguments.timeout.max(1));
    TcpStream::connect_timeout(&address, patience)
        .map_err(|error| format!("no broker can be reached at {address}: {error}"))?;
    let mut tally = Tally::default();
    tally.failed += faults.len();
    play_all(&cases, address, patience, |case, results| {
        tally.report(case, results, arguments.known.as_deref());
    });
    if let Some(fault) = started.and_then(Broker::stop) {
        println!("FAIL  {fault}");
        tally.failed += 1;
    }
    println!("{tally}");
    Ok(tally.failed == 0)
}

/// What no other run on the same broker begins its names with, so far as the
/// clock tells.
fn run_id() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let micros = since.map_or(0, |since| since.as_micros() as u64);
    format!("c{}", case::base36(micros, 6))
}

fn resolve(address: &str) -> Result<SocketAddr, String> {
    address
        .to_socket_addrs()
        .map_err(|error| error.to_string())
        .and_then(|mut found| found.next().ok_or("it has no address".to_owned()))
        .map_err(|error| format!("--address {address} is no HOST:PORT: {error}"))
}

fn is_wanted(case: &Case, arguments: &Arguments) -> bool {
    let only = &arguments.only;
    let named = |name: &String| *name == case.name || case.shows.contains(name);
    (only.is_empty() || only.iter().any(named))
        && arguments
            .version
            .as_ref()
            .is_none_or(|version| *version == case.version)
}

/// What came of a run.
type Played<'a> = (&'a Run, Result<(), Failure>);

/// Plays all runs, many at a time, and reports case after case, in order.
fn play_all(
    cases: &[Case],
    address: SocketAddr,
    patience: Duration,
    mut report: impl FnMut(&Case, Vec<Played<'_>>),
) {
    const AT_A_TIME: usize = 32;
    let mut runs: Vec<(usize, &Run)> = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        runs.extend(case.runs.iter().map(|run| (number, run)));
    }
    // Those that wait come first, and wait while the others are played.
    runs.sort_by_key(|(_, run)| !waits(run));
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (results, played) = mpsc::channel();
        for _ in 0..AT_A_TIME.min(runs.len()) {
            let (results, runs, next) = (results.clone(), &runs, &next);
            scope.spawn(move || {
                while let Some((number, run)) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = play::play(run, address, patience);
                    if results.send((*number, *run, result)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(results);
        let mut by_case: Vec<Vec<Played<'_>>> = cases.iter().map(|_| Vec::new()).collect();
        let mut reported = 0;
        for (number, run, result) in played {
            by_case[number].push((run, result));
            while let Some(case) = cases.get(reported)
                && by_case[reported].len() == case.runs.len()
            {
                report(case, std::mem::take(&mut by_case[reported]));
                reported += 1;
            }
        }
    });
}

fn waits(run: &Run) -> bool {
    run.steps.iter().any(|step| match step.action {
        Action::Pause { .. } => true,
        Action::ExpectClose { not_before_ms, .. } => not_before_ms > 0,
        _ => false,
    })
}

/// How many cases passed, and how many did not.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    known: usize,
}

impl Tally {
    /// A case passes if each of its runs does; it is known to fail if only
    /// those of its runs fail, and all of those, that are noted to.
    fn report(&mut self, case: &Case, results: Vec<Played<'_>>, broker: Option<&str>) {
        let mut notes = Vec::new();
        let mut faults = Vec::new();
        for (run, result) in &results {
            let note = broker.and_then(|broker| run.known.get(broker));
            match (result, note) {
                (Ok(()), None) => {}
                (Err(_), Some(note)) => notes.push(note),
                (Ok(()), Some(note)) => {
                    faults.push((run, format!("passes against its note: {note}"), None))
                }
                (Err(failure), None) => {
                    faults.push((run, failure.reason.clone(), Some(&failure.conversation)));
                }
            }
        }
        if !faults.is_empty() {
            self.failed += 1;
            println!(
                "FAIL  {} ({}): {} {}",
                case.name,
                case.version,
                case.about,
                case.shows.join(" ")
            );
            // What was said in the first of them is enough to begin with.
            for (number, (run, reason, conversation)) in faults.into_iter().enumerate() {
                let conversation = conversation.filter(|_| number == 0);
                print_fault(&run.row, &reason, conversation.map_or(&[], Vec::as_slice));
            }
        } else if !notes.is_empty() {
            notes.sort();
            notes.dedup();
            self.known += 1;
            for note in notes {
                println!("known {} ({}): {note}", case.name, case.version);
            }
        } else {
            self.passed += 1;
            println!("pass  {} ({})", case.name, case.version);
        }
    }
}

fn print_fault(row: &str, reason: &str, conversation: &[String]) {
    const LINES_MAX: usize = 30;
    if !row.is_empty() {
        println!("      with {row}");
    }
    println!("      {reason}");
    for line in &conversation[conversation.len().saturating_sub(LINES_MAX)..] {
        println!("        {line}");
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.known > 0 {
            write!(f, ", {} known to fail", self.known)?;
        }
        Ok(())
    }
}
