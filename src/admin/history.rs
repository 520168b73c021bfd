//! What the last hour was like, in memory.
//!
//! Owns two rings of rows, one of each second of the last minutes and one of every
//! ten seconds of the hour; small rings for the queues in which most goes on; and
//! the task that fills them, which is all that a dashboard costs while nobody
//! looks. Bounded: half a MiB, and some 4 KiB for each queue that is followed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::State;
use super::metrics::cpu_secs;
use crate::broker::{Core, Depth};
use crate::process::Resident;
use crate::tally::{SPANS_US, Spread};

/// Between two rows of the short ring, and how many it has: five minutes.
pub(super) const STEP: Duration = Duration::from_secs(1);
const ROWS: usize = 300;
/// Between two rows of the long ring, in those of the short one; how many it has:
/// an hour.
const LONG_STEP: u32 = 10;
const LONG_ROWS: usize = 360;
/// Queues that are followed.
const QUEUES_MAX: usize = 200;
/// Places of queues that are looked at each second; where there are more, sums over
/// all of them are as old as it takes to go round.
const PLACES_MAX: u32 = 16_384;
/// And between two turns of other tasks.
const PLACES_AT_ONCE: u32 = 1024;
/// What is left after a round of how much a queue mattered in the round before.
const FADING: f64 = 0.9;

/// How a value of a row comes from what is read.
#[derive(Clone, Copy)]
enum Kind {
    /// As it is.
    Level,
    /// By how much it grew, a second.
    Rate,
    /// Of what was counted meanwhile in buckets of microseconds, in milliseconds.
    Median(Spreading),
    Percentile99(Spreading),
    Mean(Spreading),
}

use Kind::{Level, Mean, Median, Percentile99, Rate};

/// What is counted in buckets.
#[derive(Clone, Copy)]
enum Spreading {
    Latency,
    Commits,
}

/// What a row has, in this order.
const VALUES: [(&str, Kind); 23] = [
    ("connections", Level),
    ("sessions", Level),
    ("subscriptions", Level),
    ("retained", Level),
    ("messages_in_per_sec", Rate),
    ("messages_out_per_sec", Rate),
    ("bytes_in_per_sec", Rate),
    ("bytes_out_per_sec", Rate),
    // From when the broker took a message up, to when it was written.
    ("latency_p50_ms", Median(Spreading::Latency)),
    ("latency_p99_ms", Percentile99(Spreading::Latency)),
    ("accepted_per_sec", Rate),
    ("refused_per_sec", Rate),
    ("dropped_per_sec", Rate),
    ("dead_letters_per_sec", Rate),
    ("queues", Level),
    ("queued_ready", Level),
    ("queued_in_flight", Level),
    ("queued_delayed", Level),
    ("queued_dead", Level),
    ("commits_per_sec", Rate),
    // On average.
    ("commit_ms", Mean(Spreading::Commits)),
    ("resident_bytes", Level),
    // Hundredths of a second that processors worked: 100 is one of them, all the time.
    ("cpu_percent", Rate),
];

type Values = [f64; VALUES.len()];

/// The names of a row's values.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    VALUES.iter().map(|(name, _)| *name)
}

/// A moment, and what was to be seen in the time up to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Row {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// NaN: not known.
    pub values: Values,
}

/// What is read at a moment: levels, and what only grows.
#[derive(Clone, Copy)]
struct Reading {
    at: Instant,
    values: Values,
    /// In the order of [`Spreading`].
    spreads: [Spread; 2],
}

impl Reading {
    /// What happened between an earlier one and this.
    fn since(&self, earlier: &Reading, at_ms: u64) -> Row {
        let secs = (self.at - earlier.at).as_secs_f64();
        let mut values = self.values;
        let spread = |which: Spreading| {
            let at = which as usize;
            meanwhile(&self.spreads[at], &earlier.spreads[at])
        };
        for ((value, before), (_, kind)) in values.iter_mut().zip(earlier.values).zip(VALUES) {
            match kind {
                Level => {}
                Rate => *value = (*value - before).max(0.0) / secs.max(1e-3),
                Median(which) => *value = quantile(&spread(which), 0.5) / 1000.0,
                Percentile99(which) => *value = quantile(&spread(which), 0.99) / 1000.0,
                Mean(which) => {
                    let spread = spread(which);
                    *value = spread.sum as f64 / spread.count() as f64 / 1000.0;
                }
            }
        }
        Row { at_ms, values }
    }
}

/// What was counted between two moments.
fn meanwhile(now: &Spread, before: &Spread) -> Spread {
    let mut spread = *now;
    let pairs = spread.buckets.iter_mut().zip(before.buckets);
    pairs.for_each(|(now, before)| *now = now.saturating_sub(before));
    spread.sum = spread.sum.wrapping_sub(before.sum);
    spread
}

/// The value below which that part of all lies, taken as evenly spread within its
/// bucket; NaN: there are none. What is beyond all buckets is at the last's end.
fn quantile(spread: &Spread, part: f64) -> f64 {
    let wanted = spread.count() as f64 * part;
    let (mut below, mut start) = (0.0, 0.0);
    for (count, end) in spread.buckets.iter().zip(SPANS_US) {
        let (count, end) = (*count as f64, end as f64);
        if count > 0.0 && below + count >= wanted {
            return start + (end - start) * (wanted - below) / count;
        }
        (below, start) = (below + count, end);
    }
    match spread.count() {
        0 => f64::NAN,
        _ => start,
    }
}

/// The last hour.
pub(crate) struct History {
    rings: Mutex<Rings>,
    // For whoever wants each row as it comes; of the time before the first, empty.
    newest: watch::Sender<Option<Row>>,
}

struct Rings {
    short: VecDeque<Row>,
    long: VecDeque<Row>,
    // When the rows of followed queues are of.
    rounds: VecDeque<u64>,
    queues: HashMap<String, Followed>,
}

/// A queue that is followed.
struct Followed {
    /// The last is of the last round; a queue that is followed since a short time has
    /// fewer than there were rounds.
    rows: VecDeque<QueueRow>,
    /// How much goes on in it, now or not long ago.
    matters: f64,
}

/// A queue at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct QueueRow {
    pub ready: u32,
    pub in_flight: u32,
    /// How long the first that is ready has waited.
    pub oldest_secs: u32,
}

impl History {
    pub fn new() -> History {
        History {
            rings: Mutex::new(Rings {
                short: VecDeque::with_capacity(ROWS),
                long: VecDeque::new(),
                rounds: VecDeque::new(),
                queues: HashMap::new(),
            }),
            newest: watch::Sender::new(None),
        }
    }

    /// Each row from now on, as it comes; who is late gets the last.
    pub(super) fn follow(&self) -> watch::Receiver<Option<Row>> {
        self.newest.subscribe()
    }

    /// The rows of the last `span`, oldest first, and the time between two of them:
    /// a second, as far back as that is known.
    pub(super) fn rows(&self, span: Duration) -> (Duration, Vec<Row>) {
        let rings = self.rings.lock();
        let (step, ring) = match span <= STEP * ROWS as u32 {
            true => (STEP, &rings.short),
            false => (STEP * LONG_STEP, &rings.long),
        };
        let newest = ring.back().map_or(0, |row| row.at_ms);
        let since = newest.saturating_sub(millis(span));
        let rows = ring.iter().filter(|row| row.at_ms > since);
        (step, rows.copied().collect())
    }

    /// The rows of a queue with their moments, oldest first; none, if it is not
    /// followed.
    pub(super) fn queue_rows(&self, name: &str) -> Vec<(u64, QueueRow)> {
        let rings = self.rings.lock();
        let followed = rings.queues.get(name);
        followed.map_or_else(Vec::new, |followed| rings.with_moments(followed))
    }

    /// The names of the queues that are followed, in order.
    pub(super) fn followed(&self) -> Vec<String> {
        let mut names: Vec<String> = self.rings.lock().queues.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    fn add(&self, row: Row, is_long: bool) {
        let mut rings = self.rings.lock();
        let (ring, rows_max) = match is_long {
            true => (&mut rings.long, LONG_ROWS),
            false => (&mut rings.short, ROWS),
        };
        push(ring, row, rows_max);
        drop(rings);
        if !is_long {
            self.newest.send_replace(Some(row));
        }
    }
}

impl Rings {
    fn with_moments(&self, followed: &Followed) -> Vec<(u64, QueueRow)> {
        let moments = self.rounds.iter().rev().zip(followed.rows.iter().rev());
        let mut rows: Vec<_> = moments.map(|(at, row)| (*at, *row)).collect();
        rows.reverse();
        rows
    }

    /// A round is over, in which these queues had something: the rest has nothing.
    /// Of more than are followed, those in which more goes on take the places of
    /// those in which least did for a while.
    fn end_round(&mut self, at_ms: u64, seen: &mut HashMap<String, (QueueRow, f64)>) {
        push(&mut self.rounds, at_ms, LONG_ROWS);
        for (name, followed) in &mut self.queues {
            let (row, matters) = seen.remove(name).unwrap_or_default();
            followed.matters = matters.max(followed.matters * FADING);
            push(&mut followed.rows, row, LONG_ROWS);
        }
        // What has had nothing for as long as can be shown is nothing to be shown.
        self.queues.retain(|_, followed| {
            followed.rows.len() < LONG_ROWS
                || followed.rows.iter().any(|row| *row != QueueRow::default())
        });
        let mut others: Vec<_> = seen.drain().collect();
        others.sort_unstable_by(|(_, (_, one)), (_, (_, other))| other.total_cmp(one));
        let mut least: Vec<(f64, String)> = Vec::new();
        if self.queues.len() + others.len() > QUEUES_MAX {
            let all = self.queues.iter();
            least = all
                .map(|(name, followed)| (followed.matters, name.clone()))
                .collect();
            // The least is last, and taken first.
            least.sort_unstable_by(|(one, _), (other, _)| other.total_cmp(one));
        }
        for (name, (row, matters)) in others {
            if self.queues.len() >= QUEUES_MAX {
                match least.pop() {
                    Some((before, gone)) if before < matters => self.queues.remove(&gone),
                    _ => return,
                };
            }
            let rows = VecDeque::from([row]);
            self.queues.insert(name, Followed { rows, matters });
        }
    }
}

fn push<T>(ring: &mut VecDeque<T>, value: T, len_max: usize) {
    if ring.len() >= len_max {
        ring.pop_front();
    }
    ring.push_back(value);
}

/// Fills the history of a broker until that stops.
pub(super) async fn keep(state: Arc<State>, mut stopping: watch::Receiver<bool>) {
    tokio::select! {
        () = sample(&state) => {}
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
}

async fn sample(state: &State) {
    let mut sampler = Sampler::new(state);
    let mut ticks = interval(STEP);
    // A second that was missed is part of the next one.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut before = sampler.read();
    let mut long_before = before;
    for number in 1u32.. {
        ticks.tick().await;
        let is_long = number % LONG_STEP == 0;
        sampler.go_round(is_long).await;
        let at_ms = state.shared.clock.now().as_micros() / 1000;
        let now = sampler.read();
        if is_long {
            state.history.add(now.since(&long_before, at_ms), true);
            let mut rings = state.history.rings.lock();
            rings.end_round(at_ms, &mut sampler.seen);
            long_before = now;
        }
        state.history.add(now.since(&before, at_ms), false);
        before = now;
    }
}

/// What the sampler has between two rows.
struct Sampler<'a> {
    state: &'a State,
    resident: Option<Resident>,
    /// Of the last time that it went round all queues.
    sums: Sums,
    /// Of the way round that it is on, which goes on here.
    summing: Sums,
    next: u32,
    /// Queues that had something, and how much goes on in them.
    seen: HashMap<String, (QueueRow, f64)>,
}

/// What all queues have.
#[derive(Clone, Copy, Default)]
struct Sums {
    ready: usize,
    in_flight: usize,
    delayed: usize,
    dead: usize,
}

impl Sums {
    fn add(&mut self, depth: &Depth<'_>) {
        if depth.name.starts_with("$dead/") {
            self.dead += depth.ready + depth.in_flight + depth.delayed;
        } else {
            self.ready += depth.ready;
            self.in_flight += depth.in_flight;
            self.delayed += depth.delayed;
        }
    }
}

impl<'a> Sampler<'a> {
    fn new(state: &'a State) -> Sampler<'a> {
        Sampler {
            state,
            resident: Resident::open(),
            sums: Sums::default(),
            summing: Sums::default(),
            next: 0,
            seen: HashMap::new(),
        }
    }

    /// Goes round the queues, or on from where it was. `notes`: once round all of
    /// them, and each that has something is noted by name.
    async fn go_round(&mut self, notes: bool) {
        let shared = &self.state.shared;
        if notes {
            (self.next, self.summing) = (0, Sums::default());
        }
        let mut left = PLACES_MAX;
        while notes || left > 0 {
            left = left.saturating_sub(PLACES_AT_ONCE);
            let now = shared.clock.now();
            let (summing, seen) = (&mut self.summing, &mut self.seen);
            let next = shared
                .core
                .see_depths(self.next, PLACES_AT_ONCE, now, |depth| {
                    summing.add(depth);
                    if notes && (depth.ready + depth.in_flight > 0 || depth.rate > 0.0) {
                        let oldest = depth.oldest.map_or(0, |oldest| now.since(oldest).as_secs());
                        let row = QueueRow {
                            ready: small(depth.ready as u64),
                            in_flight: small(depth.in_flight as u64),
                            oldest_secs: small(oldest),
                        };
                        // One that has something, and does nothing, is of interest too.
                        let matters = depth.rate + f64::from(row.ready > 0);
                        seen.insert(depth.name.to_owned(), (row, matters));
                    }
                });
            self.next = next.unwrap_or(0);
            if next.is_none() {
                self.sums = std::mem::take(&mut self.summing);
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    fn read(&self) -> Reading {
        let shared = &self.state.shared;
        let core: &Core = &shared.core;
        let counts = core.counters().read();
        let resident = self.resident.as_ref().and_then(Resident::bytes);
        let traffic = core.tally();
        let (received, sent) = (&traffic.received, &traffic.sent);
        let store = core.store().numbers();
        let values = [
            shared.connections_len() as f64,
            core.sessions_len() as f64,
            core.subscriptions_len() as f64,
            core.retained_len() as f64,
            received.publishes().messages as f64,
            sent.publishes().messages as f64,
            received.bytes as f64,
            sent.bytes as f64,
            f64::NAN,
            f64::NAN,
            counts.connections_accepted as f64,
            counts.connections_refused as f64,
            counts.dropped() as f64,
            counts.dead_letters as f64,
            core.queues_len() as f64,
            self.sums.ready as f64,
            self.sums.in_flight as f64,
            self.sums.delayed as f64,
            self.sums.dead as f64,
            store.commits.count() as f64,
            f64::NAN,
            resident.map_or(f64::NAN, |bytes| bytes as f64),
            cpu_secs().map_or(f64::NAN, |secs| secs * 100.0),
        ];
        Reading {
            at: Instant::now(),
            values,
            spreads: [traffic.latency, store.commits],
        }
    }
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at: Instant, connections: f64, accepted: f64) -> Reading {
        let mut values = [0.0; VALUES.len()];
        (values[0], values[10]) = (connections, accepted);
        let spreads = [Spread::default(); 2];
        Reading {
            at,
            values,
            spreads,
        }
    }

    #[test]
    fn a_row_has_levels_as_they_are_and_what_grew_a_second() {
        let start = Instant::now();
        let before = reading(start, 10.0, 100.0);
        let after = reading(start + Duration::from_secs(2), 7.0, 130.0);
        let row = after.since(&before, 5);
        assert_eq!(
            (VALUES[10].0, row.values[0], row.values[10]),
            ("accepted_per_sec", 7.0, 15.0)
        );
    }

    #[test]
    fn quantiles_are_of_what_was_counted_meanwhile() {
        let (mut before, mut after) = (Spread::default(), Spread::default());
        assert!(quantile(&before, 0.5).is_nan());
        (before.buckets[0], before.sum) = (1000, 1000);
        // 90 of 50 to 100 us, 10 of 1 to 2.5 ms.
        (after.buckets[0], after.buckets[1], after.buckets[5]) = (1000, 90, 10);
        after.sum = before.sum + 90 * 80 + 10 * 2000;
        let spread = meanwhile(&after, &before);
        assert_eq!((spread.count(), spread.sum), (100, 27_200));
        assert!((quantile(&spread, 0.45) - 75.0).abs() < 1e-6);
        assert!((quantile(&spread, 0.99) - 2350.0).abs() < 1e-6);
        let mut beyond = Spread::default();
        beyond.buckets[SPANS_US.len()] = 1;
        assert_eq!(quantile(&beyond, 0.5), SPANS_US[SPANS_US.len() - 1] as f64);
    }

    #[test]
    fn the_rings_are_bounded_and_give_what_was_asked_for() {
        let history = History::new();
        for second in 1..=4000u32 {
            let values = [f64::from(second); VALUES.len()];
            let at_ms = u64::from(second) * 1000;
            history.add(Row { at_ms, values }, false);
            if second % LONG_STEP == 0 {
                history.add(Row { at_ms, values }, true);
            }
        }
        let firsts_and_lens = [10, 300, 301, 3600, 100_000].map(|secs| {
            let (step, rows) = history.rows(Duration::from_secs(secs));
            (step.as_secs(), rows[0].at_ms / 1000, rows.len())
        });
        let expected = [
            (1, 3991, 10),
            (1, 3701, 300),
            (10, 3700, 31),
            (10, 410, 360),
            (10, 410, 360),
        ];
        assert_eq!(firsts_and_lens, expected);
    }

    fn seen(names: impl Iterator<Item = (String, f64)>) -> HashMap<String, (QueueRow, f64)> {
        let row = QueueRow {
            ready: 1,
            ..QueueRow::default()
        };
        names
            .map(|(name, matters)| (name, (row, matters)))
            .collect()
    }

    #[test]
    fn queues_in_which_most_goes_on_are_followed_and_no_more() {
        let history = History::new();
        let mut rings = history.rings.lock();
        let many = (0..1000).map(|number| (format!("q{number:04}"), f64::from(number)));
        rings.end_round(1, &mut seen(many));
        assert_eq!(rings.queues.len(), QUEUES_MAX);
        assert!(rings.queues.contains_key("q0800") && !rings.queues.contains_key("q0799"));
        // Who is busier than the least of them takes its place, others do not.
        let two = [("busy".to_owned(), 5000.0), ("calm".to_owned(), 1.0)];
        rings.end_round(2, &mut seen(two.into_iter()));
        assert_eq!(rings.queues.len(), QUEUES_MAX);
        assert!(rings.queues.contains_key("busy") && !rings.queues.contains_key("calm"));
        assert!(!rings.queues.contains_key("q0800"));
        // In a round in which nothing of it was seen it had nothing.
        let rows = rings.with_moments(&rings.queues["q0999"]);
        let ready = rows.iter().map(|(at, row)| (*at, row.ready));
        assert_eq!(ready.collect::<Vec<_>>(), [(1, 1), (2, 0)]);
        for round in 3..LONG_ROWS as u64 + 3 {
            rings.end_round(round, &mut HashMap::new());
        }
        assert!(rings.queues.is_empty() && rings.rounds.len() == LONG_ROWS);
    }
}
