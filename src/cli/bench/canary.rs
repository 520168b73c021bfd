//! The scenario of a canary: a pair with few messages, whose latency tells
//! what a load does to everybody else.
//!
//! The load's own work is to delay the canary as little as it can. So the
//! canary shares nothing with it: two connections of its own, each with a
//! thread of its own that sleeps in the kernel, in a blocking read or until
//! the next message is due. No poll, and no other socket's bytes, stand
//! between the kernel and the clock that is read as soon as a read returns.
//! These threads run before all others where that is allowed: the kernel then
//! lets them preempt the load's. What remains is that the load takes processor
//! time from the broker where both share a machine.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::course::{self, Balance, Course, Phase, Sample};
use super::flow::{Load, Plan};
use super::frame::{Frame, PINGREQ, Scanner};
use super::net::{Client, Net, Silence};
use super::publication::{Form, Stamp, Template};
use super::report::Report;
use super::retained::{Retained, with_retained};
use super::storm::{Passed, Storm};
use super::{Beside, Job, latency, traffic};
use crate::message::Qos;
use crate::protocol::Version;

/// A burst goes to all subscribers so often a second.
const BURSTS_PER_SECOND: f64 = 1.0;
/// What has not come so long after the last one was sent is lost.
const SETTLE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(10);
const INPUT_BYTES: usize = 64 * 1024;
/// The highest priority that a thread can ask for.
#[cfg(target_os = "linux")]
const NICE: i32 = -20;

/// Runs the canary alone, then beside the load, and reports.
pub fn run(job: &Job, report: &mut Report) -> Result<(), String> {
    let conduct = |course: &Course<'_>| {
        course.connect()?;
        match job.beside {
            Beside::Retained => with_retained(job, |retained| {
                retained.put(|_| ())?;
                watch(job, course, Own::Retained(retained))
            }),
            Beside::Reconnect => {
                let mut storm = Storm::gather(job)?;
                let seen = watch(job, course, Own::Storm(&mut storm))?;
                storm.disperse()?;
                Ok(seen)
            }
            _ => watch(job, course, Own::Nothing),
        }
    };
    let plans = plan(job).into_iter().collect();
    let name = job.scenario.name();
    let (seen, _) = course::run(name, plans, &job.target, &job.pids, conduct)?;
    let came = seen.calm.len() + seen.during.len();
    report.add_quantiles("calm", "canary's latency, calm", &seen.calm);
    report.add_quantiles("latency", "canary's latency", &seen.during);
    report.add(
        "canary_measured",
        "canary's messages measured",
        came,
        "messages",
    );
    report.add(
        "canary_lost",
        "canary's messages lost",
        seen.canary_lost,
        "messages",
    );
    if let Some(nice) = seen.nice {
        report.add("canary_nice", "canary's niceness", nice, "");
    }
    let (before, after) = (&seen.before, &seen.after);
    if let Some(passed) = &seen.passed {
        let took_secs = passed.took.as_secs_f64();
        report.add_number("all_back_s", "all are back after", took_secs, "s");
        report.add_quantiles("back", "a client is back after", &passed.back);
        report.add("turned_away", "not let in", passed.turned_away, "times");
        report.add_cpu("reconnect", before, after, passed.back.len());
        report.add_resident("", "broker's resident memory", after);
        return Ok(());
    }
    if job.beside != Beside::None {
        traffic::add_rates(report, "", before, after);
        report.add("lost", "the load's lost", seen.balance.lost, "deliveries");
    }
    let deliveries = after.delivered - before.delivered + seen.during.len();
    report.add_cpu("delivery", before, after, deliveries);
    report.add_resident("", "broker's resident memory", after);
    Ok(())
}

/// The load, as far as it is steady traffic.
fn plan(job: &Job) -> Option<Plan> {
    let (copies, rate) = match job.beside {
        Beside::None | Beside::Retained | Beside::Reconnect => return None,
        Beside::Flood => (1, 0.0),
        Beside::FanOut => (job.subscribers, BURSTS_PER_SECOND),
    };
    let topic = format!("bench/{}/0", job.run);
    let subscribers = 0..job.subscribers;
    Some(Plan {
        subscribers: subscribers
            .map(|index| job.client("s", index, vec![topic.clone()]))
            .collect(),
        publishers: vec![job.client("p", 0, Vec::new())],
        templates: vec![Template::new(&topic, &job.form)],
        copies,
        load: Load { rate, ..job.load() },
        ..Plan::default()
    })
}

/// A load that is no steady traffic.
enum Own<'a, 'b> {
    Nothing,
    Retained(&'a mut Retained<'b>),
    Storm(&'a mut Storm<'b>),
}

/// What came of it all.
struct Seen {
    /// In nanoseconds.
    calm: Histogram<u64>,
    during: Histogram<u64>,
    canary_lost: u64,
    /// The niceness of the canary's reader, where it is known.
    nice: Option<i32>,
    before: Sample,
    after: Sample,
    balance: Balance,
    /// Of a storm.
    passed: Option<Passed>,
}

/// Watches the canary, alone and then beside the load; the load is connected.
fn watch(job: &Job, course: &Course<'_>, own: Own<'_, '_>) -> Result<Seen, String> {
    let canary = Canary::connect(job)?;
    let ended = AtomicBool::new(false);
    let came = AtomicU64::new(0);
    let (stop, stopped) = channel();
    let (led, sent, read) = thread::scope(|scope| {
        let sender = scope.spawn(|| canary.send(stopped));
        let reader = scope.spawn(|| canary.read(&ended, &came));
        let alive = || !sender.is_finished() && !reader.is_finished();
        let led = lead(job, course, own, canary.start, alive);
        drop::<Sender<()>>(stop);
        let sent = sender.join();
        let deadline = Instant::now() + SETTLE;
        while let Ok(Ok(sent)) = sent
            && came.load(Relaxed) < sent
            && !reader.is_finished()
            && Instant::now() < deadline
        {
            thread::sleep(LOOK);
        }
        ended.store(true, Relaxed);
        canary.end_reading();
        (led, sent, reader.join())
    });
    const PANIC: &str = "a thread of the canary has panicked";
    let (arrivals, nice) = read.map_err(|_| PANIC)??;
    let sent = sent.map_err(|_| PANIC)??;
    let led = led?;
    Ok(Seen {
        calm: ages(&arrivals, &led.calm),
        during: ages(&arrivals, &led.during),
        canary_lost: sent.saturating_sub(arrivals.len() as u64),
        nice,
        before: led.before,
        after: led.after,
        balance: led.balance,
        passed: led.passed,
    })
}

/// What the load did meanwhile.
struct Led {
    /// Both since the canary's start.
    calm: Range<Duration>,
    during: Range<Duration>,
    before: Sample,
    after: Sample,
    balance: Balance,
    passed: Option<Passed>,
}

/// Leads the load through its phases while the canary is `alive`.
fn lead(
    job: &Job,
    course: &Course<'_>,
    own: Own<'_, '_>,
    start: Instant,
    alive: impl Fn() -> bool,
) -> Result<Led, String> {
    course.stay_with(Phase::Connect, job.warmup, &alive)?;
    let calm_from = start.elapsed();
    course.stay_with(Phase::Connect, job.duration, &alive)?;
    let calm = calm_from..start.elapsed();
    let retained = match own {
        Own::Nothing => None,
        Own::Retained(retained) => Some(retained),
        Own::Storm(storm) => {
            let (from, before) = (start.elapsed(), course.sample()?);
            let passed = storm.strike(alive)?;
            return Ok(Led {
                calm,
                during: from..start.elapsed(),
                before,
                after: course.sample()?,
                balance: course.settle()?,
                passed: Some(passed),
            });
        }
    };
    let ended = AtomicBool::new(false);
    let read = AtomicU64::new(0);
    let sample = || {
        let mut sample = course.sample()?;
        sample.delivered += read.load(Relaxed);
        Ok::<_, String>(sample)
    };
    thread::scope(|scope| {
        let reader = retained.map(|retained| {
            scope.spawn(|| {
                while !ended.load(Relaxed) {
                    let before = read.load(Relaxed);
                    retained.read_all(|count| {
                        read.store(before + count, Relaxed);
                        !ended.load(Relaxed)
                    })?;
                }
                Ok::<_, String>(())
            })
        });
        let alive = || alive() && reader.as_ref().is_none_or(|reader| !reader.is_finished());
        let measure = || {
            course.stay_with(Phase::Run, job.warmup, alive)?;
            let (from, before) = (start.elapsed(), sample()?);
            course.stay_with(Phase::Measure, job.duration, alive)?;
            Ok::<_, String>((from..start.elapsed(), before, sample()?))
        };
        let measured = measure();
        ended.store(true, Relaxed);
        if let Some(reader) = reader {
            reader.join().map_err(|_| "a thread has panicked")??;
        }
        let (during, before, after) = measured?;
        Ok(Led {
            calm,
            during,
            before,
            after,
            balance: course.settle()?,
            passed: None,
        })
    })
}

/// Of what was sent in this time.
fn ages(arrivals: &[Arrival], sent: &Range<Duration>) -> Histogram<u64> {
    let mut ages = latency::histogram();
    for arrival in arrivals.iter().filter(|one| sent.contains(&one.sent_at)) {
        ages.saturating_record(arrival.age_ns.max(1));
    }
    ages
}

/// A message of the canary that came.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    /// Since the canary's start.
    sent_at: Duration,
    age_ns: u64,
}

/// The pair, connected, with sockets that block.
struct Canary {
    start: Instant,
    template: Template,
    version: Version,
    /// Messages a second, whatever comes back.
    rate: f64,
    publisher: TcpStream,
    subscriber: TcpStream,
    /// How often the subscriber is to give a sign of life, if at all.
    ping_period: Option<Duration>,
}

impl Canary {
    fn connect(job: &Job) -> Result<Canary, String> {
        // Who subscribes to all that is below the run is not to get it.
        let topic = format!("bench/{}-canary", job.run);
        let form = Form {
            qos: Qos::AtMostOnce,
            ..job.form.clone()
        };
        let template = Template::new(&topic, &form);
        let mut net = Net::new(&job.target, 0)?;
        let clients = [
            job.client("canary-p", 0, Vec::new()),
            Client {
                qos: form.qos,
                ..job.client("canary-s", 0, vec![topic])
            },
        ];
        let links = net.connect(clients, &mut Silence, |_| Ok(()))?;
        net.demands(links.start).check(&template)?;
        Ok(Canary {
            start: Instant::now(),
            template,
            version: job.target.version,
            rate: job.rate,
            publisher: net.take_socket(links.start)?,
            subscriber: net.take_socket(links.start + 1)?,
            ping_period: net.ping_period(),
        })
    }

    /// Publishes until `stopped` is closed; how many messages.
    fn send(&self, stopped: Receiver<()>) -> Result<u64, String> {
        run_before_others();
        let period = Duration::from_secs_f64(1.0 / self.rate);
        let mut template = self.template.clone();
        let mut out = Vec::new();
        let start = Instant::now();
        let mut pinged_at = start;
        let mut sent = 0;
        loop {
            let wait = due_at(sent, period).saturating_sub(start.elapsed());
            if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                return Ok(sent);
            }
            out.clear();
            template.append(Stamp::new(self.start.elapsed(), 0), 0, &mut out);
            write(&self.publisher, &out)?;
            sent += 1;
            if self
                .ping_period
                .is_some_and(|period| pinged_at.elapsed() >= period)
            {
                pinged_at = Instant::now();
                write(&self.subscriber, &PINGREQ)?;
            }
        }
    }

    /// Reads until [`Canary::end_reading`], and is told by `came` how many have
    /// come; what came, and the thread's niceness.
    fn read(
        &self,
        ended: &AtomicBool,
        came: &AtomicU64,
    ) -> Result<(Vec<Arrival>, Option<i32>), String> {
        let nice = run_before_others();
        let mut socket = &self.subscriber;
        let mut input = vec![0; INPUT_BYTES];
        let mut scanner = Scanner::default();
        let mut arrivals = Vec::new();
        loop {
            let read = socket.read(&mut input);
            let now = self.start.elapsed();
            let read = match read {
                Ok(0) if ended.load(Relaxed) => return Ok((arrivals, nice)),
                Ok(0) => return Err("the broker closed the canary's connection".into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("the canary's connection failed: {error}")),
            };
            scanner.scan(&input[..read], self.version == Version::V5, |frame| {
                if let Frame::Publish { payload, .. } = frame {
                    let stamp = Stamp::of(payload).ok_or("a message came that was not sent")?;
                    let age_ns = stamp.age_ns(now);
                    let sent_at = now - Duration::from_nanos(age_ns);
                    arrivals.push(Arrival { sent_at, age_ns });
                }
                Ok(())
            })?;
            came.store(arrivals.len() as u64, Relaxed);
        }
    }

    /// Wakes the reader, which finds the connection closed.
    fn end_reading(&self) {
        // It fails where the broker has closed it, which the reader tells.
        let _ = self.subscriber.shutdown(Shutdown::Both);
    }
}

/// When the message of this number is due, since the first one: somewhere in
/// its period, and over many of them everywhere alike. A canary that beats in
/// step with the bursts of a load would meet all of them, or none.
fn due_at(number: u64, period: Duration) -> Duration {
    const GOLDEN_SECTION: f64 = 0.618_034;
    let number = number as f64;
    period.mul_f64(number + (number * GOLDEN_SECTION).fract())
}

fn write(mut socket: &TcpStream, bytes: &[u8]) -> Result<(), String> {
    let written = socket.write_all(bytes);
    written.map_err(|error| format!("the canary's connection failed: {error}"))
}

/// Raises this thread's priority as far as it may; its niceness then, where
/// threads have one of their own.
fn run_before_others() -> Option<i32> {
    #[cfg(target_os = "linux")]
    {
        // Without the right to it, it runs as the others do.
        let _ = rustix::process::setpriority_process(None, NICE);
        rustix::process::getpriority_process(None).ok()
    }
    #[cfg(not(target_os = "linux"))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_in_step_with_nothing() {
        let period = Duration::from_millis(100);
        let due: Vec<Duration> = (0..1000).map(|number| due_at(number, period)).collect();
        assert!(due.is_sorted());
        let mut tenths = [0; 10];
        for at in &due {
            tenths[(at.as_millis() % 100 / 10) as usize] += 1;
        }
        assert!(
            tenths.iter().all(|count| (95..=105).contains(count)),
            "{tenths:?}"
        );
        assert!(due.last() < Some(&(1000 * period)));
    }

    #[test]
    fn a_message_counts_where_it_was_sent() {
        let ms = Duration::from_millis;
        let arrivals = [(9, 5), (10, 6_000), (19, 2), (20, 3)].map(|(at, age)| Arrival {
            sent_at: ms(at),
            age_ns: age * 1_000_000,
        });
        let ages = ages(&arrivals, &(ms(10)..ms(20)));
        assert_eq!(ages.len(), 2);
        assert!(ages.equivalent(ages.min(), 2_000_000));
        assert!(ages.equivalent(ages.max(), 6_000_000_000));
    }
}
