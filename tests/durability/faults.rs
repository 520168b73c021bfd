//! `faults`: a disk that fails under load, by strace's fault injection. After
//! the failing call nothing is acknowledged that the disk had to hold, clients
//! are told, the log says why, the program ends with code 74, and a start
//! without the fault finds all that was acknowledged.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::Pid;

use crate::broker::Program;
use crate::fleet::Fleet;
use crate::ledger::{self, Entry, Event};
use crate::plan::{ClientNumber, Plan, Presence};
use crate::random::Random;
use crate::root::as_root;
use crate::rounds::{Place, seed_of_now};
use crate::session::Session;
use crate::verdict::Count;
use crate::wire::Version;

/// What `faults` is told.
#[derive(clap::Args)]
pub struct Faults {
    #[command(flatten)]
    place: Place,
    /// Decides who publishes what, and when the disk begins to fail
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
}

/// A way to fail.
struct Case {
    name: &'static str,
    /// The calls that fail, from some call on for ever.
    calls: &'static str,
    error: &'static str,
    /// Only those on files of the data folder.
    files_only: bool,
    /// What the log must say.
    said: &'static str,
}

const CASES: &[Case] = &[
    Case {
        name: "a sync fails",
        calls: "fdatasync,fsync",
        error: "EIO",
        files_only: false,
        said: "Input/output error",
    },
    Case {
        name: "a write fails",
        calls: "write,writev,pwrite64,pwritev,pwritev2",
        error: "ENOSPC",
        files_only: true,
        said: "No space left on device",
    },
];

/// How the program ends when its disk failed, and how soon.
const EXIT_CODE: i32 = 74;
const EXIT_PATIENCE: Duration = Duration::from_secs(5);
/// The DISCONNECT that MQTT 5 clients get: Unspecified error.
const REASON: u8 = 0x80;
/// Messages that are acknowledged before the disk may fail.
const MESSAGES_BEFORE: u64 = 1000;

impl Faults {
    /// Whether all cases went as they should.
    ///
    /// # Errors
    /// If a case could not be played.
    pub fn run(&self) -> Result<bool, String> {
        let seed = self.seed.unwrap_or_else(seed_of_now);
        let folder = self.place.make()?;
        let mut clean = true;
        for (case, seed) in CASES.iter().zip(seed..) {
            let wrong = self.play(case, seed, &folder)?;
            println!("{} (seed {seed}): {}", case.name, verdict_of(&wrong));
            for text in &wrong {
                println!("  {text}");
            }
            clean &= wrong.is_empty();
        }
        if clean {
            _ = fs::remove_dir_all(&folder);
        } else {
            println!(
                "  ledgers, data and the traces of strace: {}",
                folder.display()
            );
        }
        Ok(clean)
    }

    /// What went wrong.
    fn play(&self, case: &'static Case, seed: u64, folder: &Path) -> Result<Vec<String>, String> {
        let program = Program {
            path: self.place.broker.clone(),
            data: folder.join(format!("data-{seed}")),
            options: Vec::new(),
        };
        let ledger = folder.join(format!("ledger-{seed}"));
        let trace = folder.join(format!("trace-{seed}"));
        let mut broker = program.start()?;
        let mut fleet = Fleet::open(broker.address(), &ledger, || {
            Plan::new(&format!("faults{seed:x}"), seed, true)
        })?;
        let acknowledged = Arc::new(AtomicU64::new(0));
        let saboteur = {
            let acknowledged = Arc::clone(&acknowledged);
            let (pid, data, trace) = (broker.pid(), program.data.clone(), trace.clone());
            let mut random = Random::named(seed, "faults");
            let (at, call) = (
                MESSAGES_BEFORE + random.below(2000) as u64,
                1 + random.below(8),
            );
            thread::spawn(move || {
                while acknowledged.load(Ordering::Relaxed) < at {
                    thread::sleep(Duration::from_micros(200));
                }
                sabotage(case, call, pid, &data, &trace)
            })
        };
        let mut sabotaged = None;
        fleet.load(u64::MAX, |count| {
            acknowledged.store(count, Ordering::Relaxed);
            if saboteur.is_finished() {
                sabotaged.get_or_insert_with(Instant::now);
            }
            sabotaged.is_some_and(|since| since.elapsed() > EXIT_PATIENCE * 2)
        })?;
        acknowledged.store(u64::MAX, Ordering::Relaxed);
        let status = broker.wait(EXIT_PATIENCE);
        let ended = micros_now();
        broker.kill();
        let (_, log) = broker.end()?;
        let mut strace = match saboteur.join() {
            Ok(started) => started?,
            Err(_) => return Err("the thread that starts strace panicked".into()),
        };
        // It ends with the process that it traces.
        (strace.wait()).map_err(|error| format!("the end of strace: {error}"))?;

        let mut wrong = Vec::new();
        let Some(failed) = first_injection(&trace)? else {
            wrong.push(format!(
                "it made none of the calls {} to be failed",
                case.calls
            ));
            return Ok(wrong);
        };
        match status.map(|status| (status.code(), status)) {
            Some((Some(EXIT_CODE), _)) => {}
            Some((_, status)) => wrong.push(format!("it ended with {status}, not {EXIT_CODE}")),
            None => wrong.push(format!("it did not end within {EXIT_PATIENCE:?}")),
        }
        let took = Duration::from_micros(ended.saturating_sub(failed));
        if took > EXIT_PATIENCE {
            wrong.push(format!("it ended {took:?} after the failing call"));
        }
        if !log.iter().any(|line| line.contains(case.said)) {
            let last = log.last().map_or("nothing", String::as_str);
            wrong.push(format!(
                "the log says nothing of {:?}; its end: {last}",
                case.said
            ));
        }
        let (plan, entries) = ledger::read_file(&ledger)?;
        wrong.extend(acknowledged_after(&plan, &entries, failed));
        wrong.extend(not_told(&plan, &entries, failed));

        let broker = program.start()?;
        let mut fleet = Fleet::open(broker.address(), &ledger, || plan)?;
        wrong.extend(fleet.settle().err());
        let faults = fleet.verdict().faults();
        if !faults.is_empty() {
            wrong.push(Count::of(fleet.verdict().acknowledged(), &faults).to_string());
        }
        wrong.extend(faults.into_iter().map(|fault| fault.text).take(20));
        Ok(wrong)
    }
}

fn verdict_of(wrong: &[String]) -> &'static str {
    if wrong.is_empty() {
        "told, ended with 74, nothing lost"
    } else {
        "WRONG"
    }
}

/// From its so-manieth call on, in each thread, the case's calls fail.
fn sabotage(
    case: &Case,
    call: usize,
    pid: Pid,
    data: &Path,
    trace: &Path,
) -> Result<Child, String> {
    let mut command = as_root("strace");
    command
        .args(["-f", "-qq", "-ttt", "-e", "signal=none", "-e"])
        .arg(format!("trace={}", case.calls))
        .arg("-e")
        .arg(format!(
            "inject={}:error={}:when={call}+",
            case.calls, case.error
        ))
        .arg("-o")
        .arg(trace)
        .arg("-p")
        .arg(pid.as_raw_nonzero().to_string());
    if case.files_only {
        let files = open_files(pid, data)?;
        if files.is_empty() {
            return Err(format!("the broker has no file open in {}", data.display()));
        }
        for file in files {
            command.arg("-P").arg(file);
        }
    }
    (command.stdin(Stdio::null()).spawn())
        .map_err(|error| format!("cannot start strace (Debian's package strace): {error}"))
}

/// The files that a process has open below a folder.
fn open_files(pid: Pid, folder: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error| format!("the files of the broker: {error}");
    let folder = fs::canonicalize(folder).map_err(failed)?;
    let listed = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).map_err(failed)?;
    Ok(listed
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter(|file| file.starts_with(&folder) && file.is_file())
        .collect())
}

/// When the first call was made to fail, in microseconds since 1970.
fn first_injection(trace: &Path) -> Result<Option<u64>, String> {
    let text = fs::read_to_string(trace).map_err(|error| format!("strace's output: {error}"))?;
    let micros = |line: &str| {
        let seconds = line.split_whitespace().nth(1)?;
        seconds.replace('.', "").parse().ok()
    };
    Ok(text
        .lines()
        .filter(|line| line.contains("(INJECTED)"))
        .find_map(micros))
}

/// Messages that were sent after the disk had failed, had to be stored, and
/// were acknowledged.
fn acknowledged_after(plan: &Plan, entries: &[Entry], failed: u64) -> Option<String> {
    let mut sessions: Vec<Session> = Vec::new();
    sessions.resize_with(plan.clients.len(), Session::default);
    let mut late: HashSet<(ClientNumber, u64)> = HashSet::new();
    let mut count = 0;
    let mut last = Duration::ZERO;
    for entry in entries {
        let client = entry.client;
        match &entry.event {
            Event::Publish {
                number,
                retain,
                topic,
                ..
            } if entry.micros > failed && (*retain || !plan.receivers(topic).is_empty()) => {
                late.insert((client, *number));
            }
            Event::PubAck { id, code: 0..0x80 } | Event::PubRec { id, code: 0..0x80 } => {
                let message = sessions[client].outgoing_of(*id);
                if message.is_some_and(|out| late.remove(&(client, out.number))) {
                    count += 1;
                    last = Duration::from_micros(entry.micros - failed);
                }
            }
            _ => {}
        }
        sessions[client].apply(&entry.event);
    }
    (count > 0).then(|| {
        format!(
            "{count} messages that were sent after the failing call were acknowledged, the last {last:?} after it"
        )
    })
}

/// MQTT 5 clients that were connected when the disk failed and got no
/// DISCONNECT with the right reason.
fn not_told(plan: &Plan, entries: &[Entry], failed: u64) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, client) in plan.clients.iter().enumerate() {
        // An unsteady one may just have gone by itself.
        if client.version != Version::V5 || client.presence == Presence::Unsteady {
            continue;
        }
        let mut connected = false;
        let mut told = None;
        for entry in entries.iter().filter(|entry| entry.client == number) {
            match entry.event {
                Event::ConnAck { .. } => connected = true,
                Event::Lost | Event::Leave if entry.micros < failed => connected = false,
                Event::Dismissed { code } => told = Some(code),
                _ => {}
            }
        }
        if connected && told != Some(REASON) {
            let told = told.map_or("nothing".into(), |code| format!("DISCONNECT {code:#04x}"));
            wrong.push(format!(
                "{} was told {told}, not DISCONNECT {REASON:#04x}",
                client.name
            ));
        }
    }
    wrong
}

fn micros_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}
