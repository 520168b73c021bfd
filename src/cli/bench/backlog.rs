//! The scenarios put and take: messages are put into a work queue that nobody
//! works off, and taken out again, by another run and maybe after a restart
//! of the broker.
//!
//! What put has put in is numbered, so that take knows each message that does
//! not come, or comes twice.

use std::time::{Duration, Instant};

use super::Job;
use super::course::{Sample, progress_bar};
use super::fill::{Fill, POLL_WAIT, Watch};
use super::frame::Frame;
use super::net::{Conversation, Net};
use super::publication::{Stamp, Template, append_answer};
use super::report::Report;

/// Puts the messages of all publishers into the job's queue, and reports.
pub fn put(job: &Job, report: &mut Report) -> Result<(), String> {
    let bar = progress_bar();
    let mut net = Net::new(&job.target, 0)?;
    let total = job.publishers as u64 * job.messages;
    let templates = vec![Template::new(&job.queue_topic(), &job.form)];
    let turns = vec![vec![0]; job.publishers];
    let fill = Fill::connect(job, &mut net, templates, turns, job.messages)?;
    let mut pace = Pace::new();
    let before = Sample::read(Duration::ZERO, 0, 0, &job.pids)?;
    let latencies = fill.run(&mut net, |missing| {
        pace.note(total - missing);
        bar.set_message(format!("put: {missing} messages to be put in"));
    })?;
    let after = Sample::read(pace.started.elapsed(), total, 0, &job.pids)?;
    bar.finish_and_clear();
    pace.report("put", "put in", total, report);
    report.add_latencies(&latencies);
    report.add_cpu("message", &before, &after, total);
    report.add_resident("", "broker's resident memory", &after);
    Ok(())
}

/// Takes out what [`put`] has put in with the same counts, and reports.
///
/// # Errors
/// Nothing comes for 10 seconds, or a message that put has not put in.
pub fn take(job: &Job, report: &mut Report) -> Result<(), String> {
    let bar = progress_bar();
    let mut net = Net::new(&job.target, 0)?;
    let total = job.publishers as u64 * job.messages;
    let members = (0..job.subscribers).map(|index| job.client("s", index, vec![job.queue_topic()]));
    let mut taken = Taken::new(job.publishers, job.messages);
    let before = Sample::read(Duration::ZERO, 0, 0, &job.pids)?;
    let mut pace = Pace::new();
    let links = net.connect(members, &mut taken, |_| Ok(()))?;
    let mut watch = Watch::new();
    while taken.different < total {
        net.poll(POLL_WAIT, &mut taken)?;
        pace.note(taken.different);
        let missing = total - taken.different;
        bar.set_message(format!("take: {missing} messages to be taken out"));
        watch.check(missing, "did not come: has put put them in?")?;
    }
    let after = Sample::read(pace.started.elapsed(), total, total, &job.pids)?;
    pace.report("taken", "taken out", total, report);
    // Once the broker answers, it has handled all acknowledgements, and what
    // it sent before is here.
    for link in links.clone() {
        net.ping(link)?;
    }
    let mut watch = Watch::new();
    while links.clone().any(|link| net.pings(link) > 0) {
        net.poll(POLL_WAIT, &mut taken)?;
        watch.check(taken.different, "are taken, and a PINGREQ is not answered")?;
    }
    net.disconnect(links);
    bar.finish_and_clear();
    report.add("taken", "taken out in all", taken.different, "messages");
    report.add("duplicates", "duplicates", taken.duplicates, "deliveries");
    if let Some(at) = taken.first_at {
        report.add_number(
            "first_delivery_ms",
            "first delivery after",
            (at - pace.started).as_secs_f64() * 1e3,
            "ms",
        );
    }
    report.add_broker_cpu("message", &before, &after, total);
    report.add_generator_cpu("delivery", &before, &after, total);
    report.add_resident("", "broker's resident memory", &after);
    Ok(())
}

/// Which messages have come.
struct Taken {
    messages: u64,
    /// A bit a message, the publishers one after the other.
    seen: Vec<u64>,
    publishers: usize,
    different: u64,
    duplicates: u64,
    first_at: Option<Instant>,
}

impl Taken {
    fn new(publishers: usize, messages: u64) -> Taken {
        let bits = publishers * messages as usize;
        Taken {
            messages,
            seen: vec![0; bits.div_ceil(64)],
            publishers,
            different: 0,
            duplicates: 0,
            first_at: None,
        }
    }

    fn take(&mut self, stamp: Stamp) -> Result<(), String> {
        let (number, publisher) = (stamp.number(), stamp.publisher());
        if number >= self.messages || publisher >= self.publishers {
            return Err(format!(
                "message {number} of publisher {publisher} came: put has not put it in with \
                 these --publishers and --messages"
            ));
        }
        let bit = publisher * self.messages as usize + number as usize;
        let (word, mask) = (&mut self.seen[bit / 64], 1 << (bit % 64));
        match *word & mask {
            0 => self.different += 1,
            _ => self.duplicates += 1,
        }
        *word |= mask;
        Ok(())
    }
}

impl Conversation for Taken {
    fn frame(&mut self, _: usize, frame: Frame<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        append_answer(&frame, out);
        let Frame::Publish { payload, .. } = frame else {
            return Ok(());
        };
        self.first_at.get_or_insert_with(Instant::now);
        let stamp = Stamp::of(payload).ok_or("a message came that no put has put in")?;
        self.take(stamp)
    }
}

/// How a count grows from second to second.
struct Pace {
    started: Instant,
    /// Moments a second or more apart, and how many there were.
    marks: Vec<(Duration, u64)>,
}

impl Pace {
    const STEP: Duration = Duration::from_secs(1);

    fn new() -> Pace {
        Pace {
            started: Instant::now(),
            marks: vec![(Duration::ZERO, 0)],
        }
    }

    fn note(&mut self, count: u64) {
        self.note_at(self.started.elapsed(), count);
    }

    fn note_at(&mut self, at: Duration, count: u64) {
        if let Some((last, _)) = self.marks.last()
            && at >= *last + Pace::STEP
        {
            self.marks.push((at, count));
        }
    }

    /// The rates of whole seconds, in order.
    fn rates(&self) -> Vec<f64> {
        let rate = |pair: &[(Duration, u64)]| {
            (pair[1].1 - pair[0].1) as f64 / (pair[1].0 - pair[0].0).as_secs_f64()
        };
        self.marks.windows(2).map(rate).collect()
    }

    /// `total`: so many there are now.
    fn report(&self, key: &str, label: &str, total: u64, report: &mut Report) {
        let seconds = self.started.elapsed().as_secs_f64();
        let rates = self.rates();
        let slowest = rates.iter().copied().reduce(f64::min);
        for (suffix, words, rate) in [
            ("", "", Some(total as f64 / seconds)),
            ("_first", " in the first second", rates.first().copied()),
            ("_slowest", " in the slowest second", slowest),
            ("_last", " in the last whole second", rates.last().copied()),
        ] {
            // Less than a second has no other rates.
            if let Some(rate) = rate {
                let key = format!("{key}_per_second{suffix}");
                report.add_number(&key, &format!("{label}{words}"), rate, "messages/s");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_duplicates_and_strangers_from_what_was_put_in() {
        let mut taken = Taken::new(3, 50);
        for publisher in 0..3 {
            for number in (0..50).chain([49]) {
                taken.take(Stamp::numbered(number, publisher)).unwrap();
            }
        }
        assert_eq!((taken.different, taken.duplicates), (150, 3));
        for (number, publisher) in [(50, 0), (0, 3)] {
            let error = taken.take(Stamp::numbered(number, publisher)).unwrap_err();
            assert!(error.contains("put has not put it in"), "{error}");
        }
    }

    #[test]
    fn a_pace_has_a_rate_for_each_whole_second() {
        let mut pace = Pace::new();
        for (ms, count) in [(500, 10), (1000, 30), (1900, 70), (3000, 90), (3900, 99)] {
            pace.note_at(Duration::from_millis(ms), count);
        }
        assert_eq!(pace.rates(), [30.0, 30.0]);
    }
}
