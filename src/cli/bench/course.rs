//! The course of a run: the threads that carry the plans out, and the one
//! that says when, watches, and measures from outside.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::flow::{self, Plan};
use super::latency::Latencies;
use super::net::Target;
use super::report::grouped;
use super::usage::{self, CpuTime};

/// A run in which nothing moves for so long is given up.
const STALL: Duration = Duration::from_secs(10);
/// After the last PUBLISH: what has not come after so long without a
/// delivery is lost.
const SETTLE: Duration = Duration::from_secs(2);
const SETTLE_MAX: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);
const LOOK_MIN: Duration = Duration::from_millis(1);

/// What all threads are doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Nobody is connected yet.
    Start,
    /// Bystanders connect and subscribe.
    Gather,
    /// All others do; then there is no traffic yet.
    Connect,
    /// There is traffic.
    Run,
    /// There is traffic, and latencies are recorded.
    Measure,
    /// What was published is still delivered.
    Settle,
    End,
}

impl Phase {
    const ALL: [Phase; 7] = [
        Phase::Start,
        Phase::Gather,
        Phase::Connect,
        Phase::Run,
        Phase::Measure,
        Phase::Settle,
        Phase::End,
    ];

    pub fn publishes(self) -> bool {
        matches!(self, Phase::Run | Phase::Measure)
    }
}

/// Where the threads read the phase and the time.
pub struct Board {
    phase: AtomicU8,
    start: Instant,
    counters: Vec<Counters>,
    failure: Mutex<Option<String>>,
}

/// What one thread has done so far; on a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
pub struct Counters {
    connected: AtomicUsize,
    published: AtomicU64,
    delivered: AtomicU64,
}

impl Board {
    pub fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Relaxed))]
    }

    /// Since the start of the run.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Fails where the run is over before its time.
    pub fn check_end(&self) -> Result<(), String> {
        match self.phase() {
            Phase::End => Err("the run was given up".into()),
            _ => Ok(()),
        }
    }

    fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }
}

impl Counters {
    pub fn set_connected(&self, clients: usize) {
        self.connected.store(clients, Relaxed);
    }

    pub fn set_traffic(&self, published: u64, delivered: u64) {
        self.published.store(published, Relaxed);
        self.delivered.store(delivered, Relaxed);
    }
}

/// Everything at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    pub at: Duration,
    pub published: u64,
    pub delivered: u64,
    pub broker: Option<BrokerSample>,
    pub tool_cpu: Option<CpuTime>,
}

impl Sample {
    /// `pids`: the broker's processes, where they are known.
    pub fn read(
        at: Duration,
        published: u64,
        delivered: u64,
        pids: &[u32],
    ) -> Result<Sample, String> {
        Ok(Sample {
            at,
            published,
            delivered,
            broker: match pids {
                [] => None,
                pids => Some(BrokerSample::read(pids)?),
            },
            // Where it cannot be known, it is not shown.
            tool_cpu: CpuTime::read(&[std::process::id()]).ok(),
        })
    }
}

#[derive(Clone, Debug)]
pub struct BrokerSample {
    pub cpu: CpuTime,
    pub resident_bytes: u64,
}

impl BrokerSample {
    fn read(pids: &[u32]) -> Result<BrokerSample, String> {
        Ok(BrokerSample {
            cpu: CpuTime::read(pids)?,
            resident_bytes: usage::resident_bytes(pids)?,
        })
    }
}

/// What came of all that was published, warm-up included.
#[derive(Clone, Copy, Debug)]
pub struct Balance {
    pub published: u64,
    /// Deliveries that have not come.
    pub lost: u64,
    /// Deliveries beyond those that were due.
    pub duplicates: u64,
}

/// A run, seen by the thread that conducts it.
pub struct Course<'a> {
    board: &'a Board,
    pids: &'a [u32],
    bar: &'a ProgressBar,
    name: &'static str,
    copies: u64,
    /// So long messages rest in the broker.
    delay: Duration,
    bystanders: usize,
    clients: usize,
}

impl Course<'_> {
    /// Lets the bystanders alone connect, and waits until they have.
    pub fn gather(&self) -> Result<(), String> {
        self.board.set_phase(Phase::Gather);
        self.await_connected(self.bystanders)
    }

    /// Lets everybody connect, and waits until they have.
    pub fn connect(&self) -> Result<(), String> {
        self.board.set_phase(Phase::Connect);
        self.await_connected(self.clients)
    }

    fn await_connected(&self, clients: usize) -> Result<(), String> {
        loop {
            let connected = self.sum(|counters| counters.connected.load(Relaxed) as u64);
            self.bar.set_message(format!(
                "{}: {connected} of {} connected",
                self.name, self.clients
            ));
            if connected as usize == clients {
                return Ok(());
            }
            self.look(LOOK)?;
        }
    }

    /// Lets `phase` go on for `duration`, as long as something moves.
    pub fn stay(&self, phase: Phase, duration: Duration) -> Result<(), String> {
        self.stay_with(phase, duration, || true)
    }

    /// Lets `phase` go on for `duration`, or until `goes_on` says no.
    pub fn stay_with(
        &self,
        phase: Phase,
        duration: Duration,
        mut goes_on: impl FnMut() -> bool,
    ) -> Result<(), String> {
        let end = self.board.now() + duration;
        self.stay_while(phase, || Ok(self.board.now() < end && goes_on()), end)
    }

    /// Lets `phase` go on until so many messages are published, and
    /// `delivered` too if it says so.
    pub fn stay_until(&self, phase: Phase, messages: u64, delivered: bool) -> Result<(), String> {
        let goes_on = || Ok(self.published() < messages || delivered && self.missing() > 0);
        self.stay_while(phase, goes_on, Duration::ZERO)
    }

    /// Lets `phase` go on while `goes_on` says so, which is asked more often
    /// after `end`.
    pub fn stay_while(
        &self,
        phase: Phase,
        mut goes_on: impl FnMut() -> Result<bool, String>,
        end: Duration,
    ) -> Result<(), String> {
        self.board.set_phase(phase);
        let mut seen = (0, 0);
        let mut seen_at = self.board.now();
        let mut shown = (self.board.now(), self.delivered());
        while goes_on()? {
            let now = self.board.now();
            self.look(LOOK.min(end.saturating_sub(now)).max(LOOK_MIN))?;
            let now = self.board.now();
            let moved = (self.published(), self.delivered());
            if moved != seen || self.copies == 0 || !phase.publishes() {
                (seen, seen_at) = (moved, now);
            } else if now - seen_at > STALL + self.delay {
                return Err(format!(
                    "nothing has moved for {} s: {} messages were published, and {} deliveries \
                     are missing",
                    (STALL + self.delay).as_secs(),
                    moved.0,
                    self.missing()
                ));
            }
            if now - shown.0 >= Duration::from_millis(500) && self.copies > 0 {
                let rate = (moved.1 - shown.1) as f64 / (now - shown.0).as_secs_f64();
                self.bar.set_message(format!(
                    "{}: {} deliveries/s",
                    self.name,
                    grouped(rate as u64)
                ));
                shown = (now, moved.1);
            }
        }
        Ok(())
    }

    /// Ends the publishing and waits until nothing more is on its way.
    pub fn settle(&self) -> Result<Balance, String> {
        self.board.set_phase(Phase::Settle);
        let deadline = self.board.now() + SETTLE_MAX + self.delay;
        let mut delivered = self.delivered();
        let mut since = self.board.now();
        loop {
            self.look(2 * LOOK)?;
            let now = self.board.now();
            if self.delivered() != delivered && now < deadline {
                (delivered, since) = (self.delivered(), now);
            } else if self.missing() == 0 || now - since > SETTLE + self.delay || now >= deadline {
                let expected = self.published() * self.copies;
                return Ok(Balance {
                    published: self.published(),
                    lost: expected.saturating_sub(delivered),
                    duplicates: delivered.saturating_sub(expected),
                });
            }
        }
    }

    pub fn sample(&self) -> Result<Sample, String> {
        let at = self.board.now();
        Sample::read(at, self.published(), self.delivered(), self.pids)
    }

    fn published(&self) -> u64 {
        self.sum(|counters| counters.published.load(Relaxed))
    }

    fn delivered(&self) -> u64 {
        self.sum(|counters| counters.delivered.load(Relaxed))
    }

    fn missing(&self) -> u64 {
        (self.published() * self.copies).saturating_sub(self.delivered())
    }

    fn sum(&self, of: impl Fn(&Counters) -> u64) -> u64 {
        self.board.counters.iter().map(of).sum()
    }

    /// Sleeps; fails if one of the threads did.
    fn look(&self, duration: Duration) -> Result<(), String> {
        thread::sleep(duration);
        self.bar.tick();
        match self.board.failure.lock() {
            Ok(failure) => failure.clone().map_or(Ok(()), Err),
            Err(_) => Err("a thread of the load tool has panicked".into()),
        }
    }
}

/// Runs each plan on a thread of its own while `conduct` leads them; ends
/// them when it returns.
pub fn run<T>(
    name: &'static str,
    plans: Vec<Plan>,
    target: &Target,
    pids: &[u32],
    conduct: impl FnOnce(&Course<'_>) -> Result<T, String>,
) -> Result<(T, Latencies), String> {
    let board = Board {
        phase: AtomicU8::new(Phase::Start as u8),
        start: Instant::now(),
        counters: plans.iter().map(|_| Counters::default()).collect(),
        failure: Mutex::new(None),
    };
    let bar = progress_bar();
    let course = Course {
        board: &board,
        pids,
        bar: &bar,
        name,
        copies: plans.iter().map(|plan| plan.copies).max().unwrap_or(0) as u64,
        delay: (plans.iter().map(|plan| plan.load.delay).max()).unwrap_or_default(),
        bystanders: plans.iter().map(|plan| plan.bystanders.len()).sum(),
        clients: plans.iter().map(Plan::clients).sum(),
    };
    let result = thread::scope(|scope| {
        let threads: Vec<_> = plans
            .into_iter()
            .zip(&board.counters)
            .map(|(plan, counters)| {
                let board = &board;
                scope.spawn(move || {
                    let result = flow::run(plan, target, board, counters);
                    if let (Err(error), Ok(mut failure)) = (&result, board.failure.lock()) {
                        failure.get_or_insert_with(|| error.clone());
                    }
                    result
                })
            })
            .collect();
        let conducted = conduct(&course);
        board.set_phase(Phase::End);
        let recorded: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
        let conducted = conducted?; // says more than that the threads were ended
        let mut latencies = Latencies::new();
        for recorded in recorded {
            let recorded = recorded.map_err(|_| "a thread of the load tool has panicked")??;
            latencies.add(&recorded);
        }
        Ok((conducted, latencies))
    });
    bar.finish_and_clear();
    result
}

/// On a terminal only, which is standard error.
pub fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    bar.set_style(
        ProgressStyle::with_template("{spinner} {elapsed} {msg}")
            .expect("the template names fields that exist"),
    );
    bar
}
