//! `run`: rounds of load, SIGKILL, restart and check.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::broker::{Broker, Program};
use crate::control;
use crate::fleet::{End, Fleet};
use crate::plan::Plan;
use crate::random::Random;
use crate::verdict::Count;

/// What `run` is told.
#[derive(clap::Args)]
pub struct Rounds {
    /// So many rounds, each on an empty data folder
    #[arg(long, value_name = "N", default_value_t = 10)]
    rounds: u64,
    /// Messages to be acknowledged in all rounds together, at least [default: 3500 a round]
    #[arg(long, value_name = "M")]
    messages_min: Option<u64>,
    /// Decides who publishes what, and when the broker is killed; round N has SEED + N
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    #[command(flatten)]
    place: Place,
    /// The broker's [store] durability
    #[arg(long, value_name = "WORD")]
    durability: Option<String>,
    /// Go on with the next round after one that found faults
    #[arg(long)]
    keep_going: bool,
}

/// Which program is tested, and where.
#[derive(clap::Args)]
pub struct Place {
    /// The program, if it is not the one of this build
    #[arg(long, value_name = "PATH", default_value = env!("CARGO_BIN_EXE_rotamq"))]
    pub broker: PathBuf,
    /// Where data and ledgers are kept; deleted where nothing was wrong
    #[arg(long, value_name = "FOLDER", default_value = concat!(env!("CARGO_TARGET_TMPDIR"), "/crash"))]
    pub folder: PathBuf,
}

impl Place {
    /// A folder of this run's own in it.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn make(&self) -> Result<PathBuf, String> {
        let folder = self.folder.join(std::process::id().to_string());
        std::fs::create_dir_all(&folder)
            .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        Ok(folder)
    }
}

/// Faults of a round that are told one by one.
const TOLD_MAX: usize = 20;

impl Rounds {
    /// Whether no round found anything.
    ///
    /// # Errors
    /// If a round could not be brought to its end.
    pub fn run(&self) -> Result<bool, String> {
        let seed = self.seed.unwrap_or_else(seed_of_now);
        let wanted = self.messages_min.unwrap_or(3500 * self.rounds);
        let each = wanted.div_ceil(self.rounds.max(1));
        let folder = self.place.make()?;
        let mut count = Count::default();
        let mut rounds = 0;
        for round in 0..self.rounds {
            rounds += 1;
            let found = self.round(&folder, round, seed.wrapping_add(round), each)?;
            let clean = found.is_clean();
            count = count.and(found);
            if !clean && !self.keep_going {
                break;
            }
        }
        if count.is_clean() {
            _ = std::fs::remove_dir_all(&folder);
        }
        println!("{rounds} rounds, {count}");
        Ok(count.is_clean())
    }

    fn round(&self, folder: &Path, round: u64, seed: u64, each: u64) -> Result<Count, String> {
        let program = Program {
            path: self.place.broker.clone(),
            data: folder.join("data"),
            options: (self.durability.iter())
                .map(|word| ("store", "durability", word.clone()))
                .collect(),
        };
        program.clear()?;
        let ledger = folder.join(format!("ledger-{seed}"));
        _ = std::fs::remove_file(&ledger);
        let mut random = Random::named(seed, "kills");
        let mut recovery = Duration::ZERO;
        let mut kills = Vec::new();
        let mut broker = program.start()?;
        // Killed as often as it takes until enough is acknowledged. Each time
        // the clients go on as after an end of their own: from the ledger alone.
        let mut fleet = loop {
            let mut fleet = Fleet::open(broker.address(), &ledger, || {
                Plan::new(&format!("crash{seed:x}"), seed, true)
            })?;
            let before = fleet.verdict().acknowledged();
            if before >= each {
                break fleet;
            }
            let at = before + random.below((each + each / 2) as usize) as u64;
            let micros = random.below(20_000) as u64;
            load_and_kill(&mut fleet, &broker, at, Duration::from_micros(micros))?;
            broker.end()?;
            kills.push(fleet.verdict().acknowledged().to_string());
            let began = Instant::now();
            broker = program.start()?;
            recovery = recovery.max(began.elapsed());
        };
        let mut troubles = Vec::new();
        troubles.extend(fleet.settle().err());
        broker.kill();
        broker.end()?;
        let broker = program.start()?;
        if troubles.is_empty() {
            troubles.extend(fleet.visit(broker.address()).err());
        }
        broker.kill();
        broker.end()?;
        let faults = fleet.verdict().faults();
        // Once in a run it is shown that faults would be found.
        if round == 0 && faults.is_empty() && troubles.is_empty() {
            troubles = control::unnoticed(&ledger)?;
        }
        let count = Count::of(fleet.verdict().acknowledged(), &faults).and_other(troubles.len());
        println!(
            "round {} (seed {seed}): killed after {} messages, listening again within {} ms: {count}",
            round + 1,
            kills.join(", "),
            recovery.as_millis(),
        );
        if count.is_clean() {
            _ = std::fs::remove_file(&ledger);
            return Ok(count);
        }
        let told = troubles
            .iter()
            .chain(faults.iter().map(|fault| &fault.text));
        for text in told.take(TOLD_MAX) {
            println!("  {text}");
        }
        if faults.len() > TOLD_MAX {
            println!("  and {} more", faults.len() - TOLD_MAX);
        }
        println!(
            "  ledger: {}, data: {}",
            ledger.display(),
            program.data.display()
        );
        Ok(count)
    }
}

/// Loads until the broker is dead: killed so long after so many messages were
/// acknowledged, by another thread, so that the moment has nothing to do with
/// what the clients just did.
fn load_and_kill(
    fleet: &mut Fleet,
    broker: &Broker,
    at: u64,
    after: Duration,
) -> Result<(), String> {
    let acknowledged = Arc::new(AtomicU64::new(fleet.verdict().acknowledged()));
    let over = Arc::new(AtomicBool::new(false));
    let killer = {
        let (acknowledged, over, pid) =
            (Arc::clone(&acknowledged), Arc::clone(&over), broker.pid());
        thread::spawn(move || {
            while acknowledged.load(Ordering::Relaxed) < at && !over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_micros(200));
            }
            thread::sleep(after);
            rustix::process::kill_process(pid, rustix::process::Signal::KILL)
        })
    };
    let end = fleet.load(u64::MAX, |count| {
        acknowledged.store(count, Ordering::Relaxed);
        false
    });
    over.store(true, Ordering::Relaxed);
    // It is not waited for before that, so its number is still its own.
    let killed = killer.join();
    debug_assert!(matches!(end, Ok(End::Cut) | Err(_)));
    end?;
    match killed {
        Ok(Ok(())) => Ok(()),
        _ => Err("the broker could not be killed".into()),
    }
}

/// A seed that no run had, so far as the clock tells.
pub fn seed_of_now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |since| since.as_millis() as u64)
}
