//! What the pure parts cost, without sockets, disk or clock: how long they have
//! the processor, so that waiting for it does not count.
//!
//! ```text
//! cargo bench                                  all, in some minutes
//! cargo bench -- decode                        those with that in their names
//! cargo bench -- --save-baseline before        keeps the figures under a name
//! cargo bench -- --baseline before             compares with them
//! ```
//!
//! A name says what one iteration is: `decode/publish/qos1/v5` decodes one such
//! packet; where it is several of something, their number stands there, and
//! the throughput counts them. Subscriptions, jobs and messages that are only
//! there come last: `router/match-uncached/exact/1000000` matches one topic
//! among so many. What is worked on is built once for each benchmark, before its
//! time begins, and only if it was asked for.
//!
//! On a busy machine, two runs were within 5 % of each other for four
//! benchmarks of five. What misses the processor's cache, as among a million,
//! and the match cache, differed by up to 30 %, and up to 20 % is what another
//! place in memory or another link of the same code may make: have a
//! difference come twice before you believe it.

mod codec;
mod inputs;
mod journal;
mod queue;
mod retained;
mod router;
mod session;

use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkGroup, Throughput, criterion_group, criterion_main};
use rustix::time::{ClockId, clock_gettime};

type Criterion = criterion::Criterion<CpuTime>;

/// Benchmarks whose names begin alike.
type Group<'c> = BenchmarkGroup<'c, CpuTime>;

criterion_group! {
    name = pure;
    config = config();
    targets = codec::all, router::all, retained::all, session::all, queue::all, journal::all
}
criterion_main!(pure);

/// Short enough that all are run often; the command line has the last word.
fn config() -> Criterion {
    criterion::Criterion::default()
        .with_measurement(CpuTime)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .sample_size(50)
        .nresamples(10_000)
        // Most runs of the same source differ by less.
        .noise_threshold(0.05)
        .without_plots()
}

/// The time for which this thread has had a processor. What is pure waits for
/// nothing, so that the rest of the time is that of others.
struct CpuTime;

impl CpuTime {
    fn so_far() -> Duration {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::try_from(time).expect("it is not negative")
    }
}

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        CpuTime::so_far()
    }

    fn end(&self, start: Duration) -> Duration {
        CpuTime::so_far() - start
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, time: &Duration) -> f64 {
        WallTime.to_f64(time)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// Times `turn`, which does something to so many `items`, on what `build` makes.
fn bench<S>(
    group: &mut Group<'_>,
    name: impl Into<String>,
    items: usize,
    build: impl Fn() -> S,
    mut turn: impl FnMut(&mut S),
) {
    let mut built = None;
    group.throughput(Throughput::Elements(items as u64));
    // The closure is called for each sample, and not at all if another name was
    // asked for.
    group.bench_function(name.into(), |bencher| {
        let built = built.get_or_insert_with(&build);
        bencher.iter(|| turn(built));
    });
}

/// A value after the other, round and round.
struct Round<T> {
    values: Vec<T>,
    at: usize,
}

impl<T> Round<T> {
    /// Of one value at least.
    fn new(values: impl IntoIterator<Item = T>) -> Round<T> {
        let values = Vec::from_iter(values);
        assert!(!values.is_empty(), "there is nothing to go round");
        Round { values, at: 0 }
    }

    #[inline]
    fn next(&mut self) -> &T {
        let at = self.at;
        self.at = match at + 1 {
            end if end == self.values.len() => 0,
            next => next,
        };
        &self.values[at]
    }
}
