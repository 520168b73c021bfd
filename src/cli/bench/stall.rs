//! The scenario of a subscriber that stops reading: pairs go on beside it
//! while messages are published to it.

use std::thread;
use std::time::{Duration, Instant};

use super::Job;
use super::course::{self, Course, Phase, Sample};
use super::fill::Acks;
use super::net::{Net, Silence};
use super::publication::{PacketIds, Stamp, Template};
use super::report::Report;
use super::traffic;

const STALL: Duration = Duration::from_secs(10);
const BATCH_MAX: u64 = 2000;
/// How long the broker has to free what the stalled subscriber held.
const RELEASE: Duration = Duration::from_secs(2);

/// Runs the pairs alone, then beside the stalled subscriber, and reports.
pub fn run(job: &Job, report: &mut Report) -> Result<(), String> {
    let conduct = |course: &Course<'_>| {
        let mut flood = Flood::new(job)?;
        course.connect()?;
        course.stay(Phase::Run, job.warmup)?;
        let before = course.sample()?;
        course.stay(Phase::Run, job.duration)?;
        let start = course.sample()?;
        let mut peak_bytes = resident(&start);
        let (end, flood_secs) = thread::scope(|scope| {
            let flood = &mut flood;
            let thread = scope.spawn(move || flood.run());
            course.stay_while(
                Phase::Measure,
                || {
                    peak_bytes = peak_bytes.max(resident(&course.sample()?));
                    Ok(!thread.is_finished())
                },
                Duration::MAX,
            )?;
            let end = course.sample()?;
            let took = thread.join().map_err(|_| "a thread has panicked")??;
            Ok::<_, String>((end, took.as_secs_f64()))
        })?;
        course.settle()?;
        flood.net.disconnect(0..2);
        thread::sleep(RELEASE);
        let after = course.sample()?;
        Ok((before, start, end, after, peak_bytes, flood_secs))
    };
    let plans = traffic::plans(job);
    let ((before, start, end, after, peak_bytes, flood_secs), latencies) =
        course::run(job.scenario.name(), plans, &job.target, &job.pids, conduct)?;
    traffic::add_rates(report, "_before", &before, &start);
    traffic::add_rates(report, "_during", &start, &end);
    let rate = |from: &Sample, to: &Sample| {
        (to.delivered - from.delivered) as f64 / (to.at - from.at).as_secs_f64()
    };
    report.add_number(
        "ratio_during_to_before",
        "rate during to rate before",
        rate(&start, &end) / rate(&before, &start),
        "",
    );
    report.add_number(
        "flood_per_second",
        "published to the stalled subscriber",
        job.messages as f64 / flood_secs,
        "messages/s",
    );
    report.add_latencies(&latencies);
    let deliveries = start.delivered - before.delivered;
    report.add_broker_cpu("delivery before", &before, &start, deliveries);
    report.add_generator_cpu("delivery", &before, &start, deliveries);
    for (name, label, bytes) in [
        ("before", "resident before", resident(&start)),
        ("peak", "resident at most", peak_bytes),
        ("after", "resident after", resident(&after)),
    ] {
        if let Some(bytes) = bytes {
            report.add(
                &format!("broker_resident_bytes_{name}"),
                label,
                bytes,
                "bytes",
            );
        }
    }
    Ok(())
}

fn resident(sample: &Sample) -> Option<u64> {
    sample.broker.as_ref().map(|broker| broker.resident_bytes)
}

/// A subscriber that does not read, and who publishes to it.
struct Flood {
    net: Net,
    template: Template,
    total: u64,
    rate: f64,
    acks: Acks,
}

impl Flood {
    const SUBSCRIBER: usize = 0;
    const PUBLISHER: usize = 1;

    fn new(job: &Job) -> Result<Flood, String> {
        let topic = format!("bench/{}/stalled", job.run);
        let mut net = Net::new(&job.target, 0)?;
        let clients = [
            job.client("stalled", 0, vec![topic.clone()]),
            job.client("flood", 0, Vec::new()),
        ];
        net.connect(clients, &mut Silence, |_| Ok(()))?;
        net.stop_reading(Flood::SUBSCRIBER)?;
        let template = Template::new(&topic, &job.form);
        let demands = net.demands(Flood::PUBLISHER);
        demands.check(&template)?;
        Ok(Flood {
            template,
            total: job.messages,
            rate: job.rate,
            acks: Acks {
                ids: PacketIds::new(demands.receive_max),
            },
            net,
        })
    }

    /// Publishes all, and waits until the broker has handled them; how long
    /// it took.
    fn run(&mut self) -> Result<Duration, String> {
        let start = Instant::now();
        let mut out = Vec::new();
        let mut sent = 0;
        let mut pinged = false;
        let mut moved = ((0, 0, 0), Instant::now());
        // The broker has handled all once it answers what was sent last.
        while !pinged || self.net.pings(Flood::PUBLISHER) > 0 {
            let due = ((start.elapsed().as_secs_f64() * self.rate) as u64).min(self.total);
            while sent < due && self.net.pending_bytes(Flood::PUBLISHER) == 0 {
                let batch = self.append_batch((due - sent).min(BATCH_MAX), &mut out);
                if batch == 0 {
                    break;
                }
                sent += batch;
                self.write(&mut out)?;
            }
            if sent == self.total && self.acks.ids.in_use() == 0 && !pinged {
                pinged = true;
                self.net.ping(Flood::PUBLISHER)?;
            }
            self.net.poll(Duration::from_millis(1), &mut self.acks)?;
            let pending_bytes = self.net.pending_bytes(Flood::PUBLISHER);
            let now = (sent, self.acks.ids.in_use(), pending_bytes);
            if now != moved.0 {
                moved = (now, Instant::now());
            } else if moved.1.elapsed() > STALL {
                return Err(format!(
                    "the publisher to the stalled subscriber has been held back for {} s: {} of \
                     {} messages are published, {} unacknowledged",
                    STALL.as_secs(),
                    sent,
                    self.total,
                    self.acks.ids.in_use()
                ));
            }
        }
        Ok(start.elapsed())
    }

    fn append_batch(&mut self, count: u64, out: &mut Vec<u8>) -> u64 {
        let stamp = Stamp::new(Duration::ZERO, 0);
        for appended in 0..count {
            let packet_id = match self.template.qos() {
                0 => 0,
                _ => match self.acks.ids.take() {
                    Some(packet_id) => packet_id,
                    None => return appended,
                },
            };
            self.template.append(stamp, packet_id, out);
        }
        count
    }

    fn write(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        self.net.write(Flood::PUBLISHER, out)?;
        out.clear();
        Ok(())
    }
}
