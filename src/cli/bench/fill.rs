//! Publishers that put a fixed number of messages where they wait, as fast as
//! the broker acknowledges them.

use std::time::{Duration, Instant};

use super::Job;
use super::frame::{Frame, PUBACK, PUBREC};
use super::latency::{Latencies, SendTimes};
use super::net::{Conversation, Net, Silence};
use super::publication::{PacketIds, Stamp, Template};

/// A phase in which nothing moves for so long is given up.
const STALL: Duration = Duration::from_secs(10);
pub const POLL_WAIT: Duration = Duration::from_millis(50);
const BATCH_MAX: usize = 1000;

/// The job's publishers, connected.
pub struct Fill {
    window: usize,
    links_at: usize,
    /// One a topic.
    templates: Vec<Template>,
    publishers: Vec<Publisher>,
    started: Instant,
    /// Since it was started, when the bytes that are being read were read.
    now: Duration,
    latencies: Latencies,
}

struct Publisher {
    ids: PacketIds,
    times: SendTimes,
    /// The templates that its messages are made of, one after the other.
    turns: Vec<usize>,
    sent: u64,
    total: u64,
}

impl Fill {
    /// Connects `turns.len()` publishers, which will publish `messages` times
    /// to the topic of each template in their turns.
    ///
    /// # Errors
    /// The broker refuses one, or takes no such messages.
    pub fn connect(
        job: &Job,
        net: &mut Net,
        templates: Vec<Template>,
        turns: Vec<Vec<usize>>,
        messages: u64,
    ) -> Result<Fill, String> {
        let clients = (0..turns.len()).map(|index| job.client("p", index, Vec::new()));
        let links = net.connect(clients, &mut Silence, |_| Ok(()))?;
        let mut publishers = Vec::new();
        for (link, turns) in links.clone().zip(turns) {
            let demands = net.demands(link);
            for topic in &turns {
                demands.check(&templates[*topic])?;
            }
            publishers.push(Publisher {
                ids: PacketIds::new(demands.receive_max),
                times: SendTimes::new(),
                sent: 0,
                total: turns.len() as u64 * messages,
                turns,
            });
        }
        Ok(Fill {
            window: job.window,
            links_at: links.start,
            templates,
            publishers,
            started: Instant::now(),
            now: Duration::ZERO,
            latencies: Latencies::new(),
        })
    }

    /// Publishes everything, until the last message is acknowledged, and
    /// disconnects; how long acknowledgements took. `progress` is told how
    /// many are missing, often.
    ///
    /// # Errors
    /// The broker closes a connection, or acknowledges nothing for 10 seconds.
    pub fn run(
        mut self,
        net: &mut Net,
        mut progress: impl FnMut(u64),
    ) -> Result<Latencies, String> {
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
            net.poll(POLL_WAIT, &mut self)?;
            let missing = self.missing();
            progress(missing);
            if missing == 0 {
                net.disconnect(self.links_at..self.links_at + self.publishers.len());
                return Ok(self.latencies);
            }
            watch.check(missing, "are not acknowledged")?;
        }
    }

    fn append_batch(&mut self, index: usize, out: &mut Vec<u8>) {
        let now = self.started.elapsed();
        let publisher = &mut self.publishers[index];
        for _ in 0..BATCH_MAX {
            if publisher.sent == publisher.total || publisher.ids.in_use() >= self.window {
                return;
            }
            let Some(packet_id) = publisher.ids.take() else {
                return;
            };
            publisher.times.note(packet_id, now);
            let turn = publisher.sent % publisher.turns.len() as u64;
            let topic = publisher.turns[turn as usize];
            let stamp = Stamp::numbered(publisher.sent, index);
            self.templates[topic].append(stamp, packet_id, out);
            publisher.sent += 1;
        }
    }

    fn missing(&self) -> u64 {
        let missing = |one: &Publisher| one.total - one.sent + one.ids.in_use() as u64;
        self.publishers.iter().map(missing).sum()
    }
}

impl Conversation for Fill {
    fn begin(&mut self, _link: usize) {
        self.now = self.started.elapsed();
    }

    fn frame(&mut self, link: usize, frame: Frame<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        let publisher = &mut self.publishers[link - self.links_at];
        publisher.ids.handle_ack(&frame, out)?;
        if let Frame::Ack {
            kind: PUBACK | PUBREC,
            packet_id,
        } = frame
        {
            let age = publisher.times.age(packet_id, self.now);
            self.latencies.record_acknowledgement(age);
        }
        Ok(())
    }
}

/// What comes back to a publisher that is the only one: acknowledgements.
pub struct Acks {
    pub ids: PacketIds,
}

impl Conversation for Acks {
    fn frame(&mut self, _: usize, frame: Frame<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        self.ids.handle_ack(&frame, out)
    }
}

/// Notices that a number no longer changes.
pub struct Watch {
    seen: u64,
    since: Instant,
}

impl Watch {
    pub fn new() -> Watch {
        Watch {
            seen: u64::MAX,
            since: Instant::now(),
        }
    }

    /// Fails where `missing` has been the same for 10 seconds; `what` says
    /// what is wrong with so many messages.
    pub fn check(&mut self, missing: u64, what: &str) -> Result<(), String> {
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
