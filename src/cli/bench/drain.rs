//! The scenario of absent clients: messages are queued for their sessions,
//! then they come back and read them.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::Job;
use super::course::{Sample, progress_bar};
use super::frame::Frame;
use super::net::{Client, Conversation, Net, Silence};
use super::publication::{PacketIds, Stamp, Template, append_answer};
use super::report::Report;

/// A phase in which nothing moves for so long is given up.
const STALL: Duration = Duration::from_secs(10);
const POLL_WAIT: Duration = Duration::from_millis(50);
const BATCH_MAX: usize = 1000;

/// Runs both phases, reports them, and removes the sessions.
pub fn run(job: &Job, report: &mut Report) -> Result<(), String> {
    let bar = progress_bar();
    let mut net = Net::new(&job.target, 0)?;
    let session = |index, clean| Client {
        clean,
        ..job.client("d", index, vec![topic(job, index)])
    };
    let sessions = |clean| (0..job.clients).map(move |index| session(index, clean));
    let connected = |done: usize| {
        bar.set_message(format!("drain: {done} of {} connected", job.clients));
        Ok(())
    };
    let links = net.connect(sessions(false), &mut Silence, connected)?;
    net.disconnect(links);

    let total = job.clients as u64 * job.messages;
    let start = Instant::now();
    let mut fill = Fill::new(job);
    let publishers = (0..job.publishers).map(|index| job.client("p", index, Vec::new()));
    fill.links_at = net.connect(publishers, &mut Silence, connected)?.start;
    for (index, publisher) in fill.publishers.iter_mut().enumerate() {
        let demands = net.demands(fill.links_at + index);
        for session in &publisher.sessions {
            demands.check(&fill.templates[*session])?;
        }
        publisher.ids = PacketIds::new(demands.receive_max);
    }
    let empty = Sample::read(start.elapsed(), 0, 0, job.pid)?;
    fill.run(&mut net, &bar)?;
    let full = Sample::read(start.elapsed(), total, 0, job.pid)?;
    net.disconnect(fill.links_at..fill.links_at + job.publishers);

    let mut drain = Drain { received: 0 };
    let links = net.connect(sessions(false), &mut drain, connected)?;
    drain.run(total, &mut net, &bar)?;
    let drained = Sample::read(start.elapsed(), total, total, job.pid)?;
    net.disconnect(links);
    // A clean session under the same name discards the old one [MQTT-3.1.2-6].
    let links = net.connect(sessions(true), &mut drain, connected)?;
    net.disconnect(links);
    bar.finish_and_clear();

    let rate =
        |before: &Sample, after: &Sample| total as f64 / (after.at - before.at).as_secs_f64();
    report.add_number(
        "queued_per_second",
        "queued",
        rate(&empty, &full),
        "messages/s",
    );
    report.add_number(
        "drained_per_second",
        "drained",
        rate(&full, &drained),
        "messages/s",
    );
    report.add_cpu("message in", &empty, &full, total);
    report.add_cpu("message out", &full, &drained, total);
    if let (Some(empty), Some(full), Some(drained)) = (&empty.broker, &full.broker, &drained.broker)
    {
        for (name, label, bytes) in [
            ("before", "resident before", empty.resident_bytes),
            ("queued", "resident with all queued", full.resident_bytes),
            ("after", "resident after", drained.resident_bytes),
        ] {
            report.add(
                &format!("broker_resident_bytes_{name}"),
                label,
                bytes,
                "bytes",
            );
        }
        report.add_number(
            "broker_resident_bytes_per_message",
            "resident a queued message",
            (full.resident_bytes as f64 - empty.resident_bytes as f64) / total as f64,
            "bytes",
        );
    }
    Ok(())
}

/// Each session has a topic of its own.
fn topic(job: &Job, session: usize) -> String {
    format!("bench/{}/{session}", job.run)
}

/// Puts messages into the sessions, as many unacknowledged as the window
/// allows.
struct Fill {
    window: usize,
    links_at: usize,
    templates: Vec<Template>,
    publishers: Vec<Publisher>,
}

struct Publisher {
    ids: PacketIds,
    /// Its sessions; its messages go to one after the other.
    sessions: Vec<usize>,
    sent: u64,
    total: u64,
}

impl Fill {
    fn new(job: &Job) -> Fill {
        let publishers = (0..job.publishers).map(|publisher| {
            let sessions: Vec<usize> = (publisher..job.clients).step_by(job.publishers).collect();
            Publisher {
                ids: PacketIds::new(u16::MAX),
                sent: 0,
                total: sessions.len() as u64 * job.messages,
                sessions,
            }
        });
        let templates = (0..job.clients).map(|index| Template::new(&topic(job, index), &job.form));
        Fill {
            window: job.window,
            links_at: 0,
            templates: templates.collect(),
            publishers: publishers.collect(),
        }
    }

    fn run(&mut self, net: &mut Net, bar: &ProgressBar) -> Result<(), String> {
        let mut out = Vec::new();
        let mut watch = Watch::new();
        loop {
            for index in 0..self.publishers.len() {
                let link = self.links_at + index;
                if net.pending_bytes(link) == 0 {
                    self.append_batch(index, &mut out);
                    net.write(link, &out)?;
                    out.clear();
                }
            }
            net.poll(POLL_WAIT, self)?;
            let missing = self.missing();
            if missing == 0 {
                return Ok(());
            }
            bar.set_message(format!("drain: {missing} messages to be queued"));
            watch.check(missing, "are not acknowledged")?;
        }
    }

    fn append_batch(&mut self, index: usize, out: &mut Vec<u8>) {
        let publisher = &mut self.publishers[index];
        for _ in 0..BATCH_MAX {
            if publisher.sent == publisher.total || publisher.ids.in_use() >= self.window {
                return;
            }
            let Some(packet_id) = publisher.ids.take() else {
                return;
            };
            let turn = publisher.sent % publisher.sessions.len() as u64;
            let session = publisher.sessions[turn as usize];
            let stamp = Stamp::new(Duration::ZERO, index);
            self.templates[session].append(stamp, packet_id, out);
            publisher.sent += 1;
        }
    }

    fn missing(&self) -> u64 {
        let missing = |one: &Publisher| one.total - one.sent + one.ids.in_use() as u64;
        self.publishers.iter().map(missing).sum()
    }
}

impl Conversation for Fill {
    fn frame(&mut self, link: usize, frame: Frame<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        self.publishers[link - self.links_at]
            .ids
            .handle_ack(&frame, out)
    }
}

/// Reads and acknowledges what the sessions hold.
struct Drain {
    received: u64,
}

impl Drain {
    fn run(&mut self, total: u64, net: &mut Net, bar: &ProgressBar) -> Result<(), String> {
        let mut watch = Watch::new();
        while self.received < total {
            net.poll(POLL_WAIT, self)?;
            let missing = total.saturating_sub(self.received);
            bar.set_message(format!("drain: {missing} messages to be read"));
            watch.check(missing, "did not come; does the broker queue that many?")?;
        }
        Ok(())
    }
}

impl Conversation for Drain {
    fn frame(&mut self, _: usize, frame: Frame<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        append_answer(&frame, out);
        self.received += u64::from(matches!(frame, Frame::Publish { .. }));
        Ok(())
    }
}

/// Notices that a number no longer changes.
struct Watch {
    seen: u64,
    since: Instant,
}

impl Watch {
    fn new() -> Watch {
        Watch {
            seen: u64::MAX,
            since: Instant::now(),
        }
    }

    fn check(&mut self, missing: u64, what: &str) -> Result<(), String> {
        if missing != self.seen {
            self.seen = missing;
            self.since = Instant::now();
        } else if self.since.elapsed() > STALL {
            return Err(format!(
                "nothing has moved for {} s: {missing} messages {what}",
                STALL.as_secs()
            ));
        }
        Ok(())
    }
}
