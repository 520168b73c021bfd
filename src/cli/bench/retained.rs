//! The scenario of retained messages: they are put, one subscriber reads them
//! all, and looks some up by their topics. In the end they are taken away.

use std::ops::Range;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::course::{Sample, progress_bar};
use super::fill::{Acks, POLL_WAIT, Watch};
use super::frame::Frame;
use super::net::{Conversation, Net, Silence, append_subscribe, is_granted};
use super::publication::{PacketIds, Stamp, Template, append_answer};
use super::report::Report;
use super::{Job, latency};
use crate::message::{PacketId, Qos};
use crate::protocol::{self, Packet, Publish, Version};

/// So many topics are looked up, one after the other.
const LOOKUPS: u64 = 1000;
/// A write holds about so much.
const WRITE_BYTES_MAX: usize = 256 * 1024;

/// Puts the job's messages, reads them, looks some up, and reports.
pub fn run(job: &Job, report: &mut Report) -> Result<(), String> {
    let bar = progress_bar();
    let started = Instant::now();
    let sample = || Sample::read(started.elapsed(), 0, 0, &job.pids);
    let measured = with_retained(job, |retained| {
        let empty = sample()?;
        retained.put(|missing| bar.set_message(format!("retained: {missing} to be put")))?;
        let put = sample()?;
        let arrival = retained.read_all(|read| {
            bar.set_message(format!("retained: {read} read"));
            true
        })?;
        let read = sample()?;
        let lookups = retained.look_up(LOOKUPS)?;
        Ok((empty, put, arrival, read, lookups, sample()?))
    });
    bar.finish_and_clear();
    let (empty, put, arrival, read, lookups, looked_up) = measured?;
    let total = job.messages;
    report.add_number(
        "published_per_second",
        "published",
        total as f64 / (put.at - empty.at).as_secs_f64(),
        "messages/s",
    );
    for (key, label, at) in [
        ("first_retained_s", "first one read after", arrival.first),
        ("last_retained_s", "last one read after", arrival.last),
    ] {
        report.add_number(key, label, at.as_secs_f64(), "s");
    }
    report.add_quantiles("exact_lookup", "looked up in", &lookups);
    report.add_cpu("message in", &empty, &put, total);
    report.add_broker_cpu("message out", &put, &read, total);
    report.add_generator_cpu("delivery", &put, &read, total);
    report.add_cpu("exact lookup", &read, &looked_up, LOOKUPS);
    report.add_resident("_before", "resident before", &empty);
    report.add_resident("_retained", "resident with all retained", &put);
    report.add_resident("_after", "resident after all were read", &looked_up);
    report.add_growth(
        "message",
        "resident a retained message",
        &empty,
        &put,
        total,
    );
    Ok(())
}

/// Does `work` with a publisher of retained messages, and takes away what it
/// has put, also where something fails.
pub fn with_retained<T>(
    job: &Job,
    work: impl FnOnce(&mut Retained<'_>) -> Result<T, String>,
) -> Result<T, String> {
    let mut retained = Retained::connect(job)?;
    let result = work(&mut retained);
    let taken_away = retained.take_away();
    let result = result?;
    taken_away?;
    Ok(result)
}

/// Retained messages of the job's count and size, and who publishes them.
pub struct Retained<'a> {
    job: &'a Job,
    net: Net,
    publisher: usize,
    acks: Acks,
    /// So many are in the broker, or may be.
    sent: u64,
    readers: usize,
}

/// When the messages came to a subscriber, since its SUBSCRIBE.
pub struct Arrival {
    pub first: Duration,
    pub last: Duration,
}

impl<'a> Retained<'a> {
    fn connect(job: &'a Job) -> Result<Retained<'a>, String> {
        let mut net = Net::new(&job.target, 0)?;
        let client = job.client("p", 0, Vec::new());
        let publisher = net.connect([client], &mut Silence, |_| Ok(()))?.start;
        let demands = net.demands(publisher);
        let longest = topic(job, job.messages - 1);
        demands.check(&Template::new(&longest, &job.form))?;
        Ok(Retained {
            job,
            publisher,
            acks: Acks {
                ids: PacketIds::new(demands.receive_max),
            },
            net,
            sent: 0,
            readers: 0,
        })
    }

    /// Publishes all, and waits until the broker has handled them; `progress`
    /// is told how many are still to be published, often.
    pub fn put(&mut self, progress: impl FnMut(u64)) -> Result<(), String> {
        self.publish(self.job.messages, self.job.form.payload_bytes, progress)
    }

    /// What is empty takes the place of what is retained, and leaves nothing
    /// [MQTT-3.3.1-6].
    fn take_away(&mut self) -> Result<(), String> {
        self.publish(self.sent, 0, |_| ())
    }

    /// Publishes the messages below `total`; 0 `payload_bytes`: empty ones.
    fn publish(
        &mut self,
        total: u64,
        payload_bytes: usize,
        mut progress: impl FnMut(u64),
    ) -> Result<(), String> {
        let mut payload = vec![b'.'; payload_bytes];
        let mut out = Vec::new();
        let mut next = 0;
        let mut pinged = false;
        let mut watch = Watch::new();
        // The broker has handled all once it answers what was sent last.
        while !pinged || self.net.pings(self.publisher) > 0 {
            while next < total && self.net.pending_bytes(self.publisher) == 0 {
                let batch = self.append_batch(next..total, &mut payload, &mut out);
                if batch == 0 {
                    break;
                }
                next += batch;
                self.sent = self.sent.max(next);
                self.net.write(self.publisher, &out)?;
                out.clear();
            }
            let missing = total - next + self.acks.ids.in_use() as u64;
            if missing == 0 && !pinged {
                pinged = true;
                self.net.ping(self.publisher)?;
            }
            self.net.poll(POLL_WAIT, &mut self.acks)?;
            progress(missing);
            watch.check(missing, "are not taken, or a PINGREQ is not answered")?;
        }
        Ok(())
    }

    /// Appends as many of the messages as a write and the window hold; returns
    /// how many.
    fn append_batch(&mut self, numbers: Range<u64>, payload: &mut [u8], out: &mut Vec<u8>) -> u64 {
        let form = &self.job.form;
        let ids = &mut self.acks.ids;
        let mut appended = 0;
        for number in numbers {
            let mut packet_id = None;
            if form.qos > Qos::AtMostOnce {
                packet_id = match ids.in_use() < self.job.window {
                    true => ids.take().and_then(PacketId::new),
                    false => None,
                };
                if packet_id.is_none() {
                    break;
                }
            }
            if let Some(stamp) = payload.first_chunk_mut() {
                *stamp = Stamp::numbered(number, 0).to_bytes();
            }
            let publish = Publish {
                dup: false,
                qos: form.qos,
                retain: true,
                topic: &topic(self.job, number),
                packet_id,
                properties: form.properties.as_properties(),
                payload,
            };
            protocol::encode(&Packet::Publish(publish), form.version, out);
            appended += 1;
            if out.len() >= WRITE_BYTES_MAX {
                break;
            }
        }
        appended
    }

    /// Subscribes a new client to all, reads them, and closes it. `goes_on` is
    /// told how many are read, often; if it says no, they are not read to the
    /// end, and the last one is the last that was.
    ///
    /// # Errors
    /// Nothing comes for 10 seconds, or more than was put.
    pub fn read_all(&mut self, mut goes_on: impl FnMut(u64) -> bool) -> Result<Arrival, String> {
        let (link, mut reading) = self.connect_reader()?;
        self.subscribe(link, PacketId::MIN, filter(self.job))?;
        let started = Instant::now();
        reading.now = started;
        let mut watch = Watch::new();
        while reading.count < self.job.messages && goes_on(reading.count) {
            self.net.poll(POLL_WAIT, &mut reading)?;
            let missing = self.job.messages.saturating_sub(reading.count);
            watch.check(missing, "did not come: does the broker retain that many?")?;
        }
        self.net.disconnect(link..link + 1);
        if reading.count > self.job.messages {
            return Err(format!(
                "{} messages came, and {} were retained",
                reading.count, self.job.messages
            ));
        }
        Ok(Arrival {
            first: reading.first_at.map_or(Duration::ZERO, |at| at - started),
            last: reading.now - started,
        })
    }

    /// Subscribes a new client to so many topics, spread evenly over all, one
    /// after the other; how long the message of each took to come, in
    /// nanoseconds.
    fn look_up(&mut self, lookups: u64) -> Result<Histogram<u64>, String> {
        let (link, mut reading) = self.connect_reader()?;
        let mut latencies = latency::histogram();
        let mut watch = Watch::new();
        for lookup in 0..lookups {
            let number = lookup * self.job.messages / lookups;
            let packet_id = PacketId::new(lookup as u16 + 1).expect("there are few lookups");
            reading.last = None;
            let started = Instant::now();
            self.subscribe(link, packet_id, topic(self.job, number))?;
            while reading.granted <= lookup || reading.last.is_none() {
                self.net.poll(POLL_WAIT, &mut reading)?;
                let missing = lookups - lookup;
                watch.check(missing, "were to be looked up, and one did not come")?;
            }
            if reading.last != Some(Stamp::numbered(number, 0)) {
                return Err("a lookup brought the message of another topic".into());
            }
            let took_ns = (reading.now - started).as_nanos() as u64;
            latencies.saturating_record(took_ns.max(1));
        }
        self.net.disconnect(link..link + 1);
        Ok(latencies)
    }

    fn connect_reader(&mut self) -> Result<(usize, Reading), String> {
        let client = self.job.client("s", self.readers, Vec::new());
        self.readers += 1;
        let link = self.net.connect([client], &mut Silence, |_| Ok(()))?.start;
        let reading = Reading {
            version: self.job.form.version,
            now: Instant::now(),
            first_at: None,
            last: None,
            count: 0,
            granted: 0,
        };
        Ok((link, reading))
    }

    fn subscribe(
        &mut self,
        link: usize,
        packet_id: PacketId,
        filter: String,
    ) -> Result<(), String> {
        let form = &self.job.form;
        let mut out = Vec::new();
        append_subscribe(packet_id, &[filter], form.qos, form.version, &mut out);
        self.net.write(link, &out)
    }
}

/// What comes to a subscriber of retained messages.
struct Reading {
    version: Version,
    /// When the bytes that are being read were read.
    now: Instant,
    first_at: Option<Instant>,
    /// Which message came last.
    last: Option<Stamp>,
    count: u64,
    /// How many SUBSCRIBEs are answered.
    granted: u64,
}

impl Conversation for Reading {
    fn begin(&mut self, _link: usize) {
        self.now = Instant::now();
    }

    fn frame(&mut self, _: usize, frame: Frame<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        append_answer(&frame, out);
        match frame {
            Frame::Publish { payload, .. } => {
                self.first_at.get_or_insert(self.now);
                self.last = Stamp::of(payload);
                self.count += 1;
            }
            Frame::Other(packet) => {
                self.granted += u64::from(is_granted(packet, self.version)?);
            }
            Frame::Ack { .. } => {}
        }
        Ok(())
    }
}

/// Of the message of this number: three levels below the run's own two, and
/// about as many topics in each of the first two as there are in the last.
fn topic(job: &Job, number: u64) -> String {
    let digits = (job.messages - 1).to_string().len().div_ceil(3);
    let base = 10u64.pow(digits as u32);
    let [first, second, third] = [number / base / base, number / base % base, number % base];
    let run = &job.run;
    format!("bench/{run}/{first:0digits$}/{second:0digits$}/{third:0digits$}")
}

fn filter(job: &Job) -> String {
    format!("bench/{}/#", job.run)
}

#[cfg(test)]
mod tests {
    use super::super::tests::job;
    use super::*;

    #[test]
    fn spreads_the_topics_over_three_levels() {
        for (messages, number, expected) in [
            (1, 0, "0/0/0"),
            (1000, 999, "9/9/9"),
            (1001, 999, "00/09/99"),
            (1_000_000, 123_456, "12/34/56"),
        ] {
            let job = job(&format!("retained --messages {messages}")).unwrap();
            let topic = topic(&job, number);
            assert_eq!(topic, format!("bench/{}/{expected}", job.run));
        }
    }
}
