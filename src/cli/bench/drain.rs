//! The scenario of absent clients: messages are queued for their sessions,
//! then they come back and read them.

use std::time::Instant;

use indicatif::ProgressBar;

use super::Job;
use super::course::{Sample, progress_bar};
use super::fill::{Fill, POLL_WAIT, Watch};
use super::frame::Frame;
use super::net::{Client, Conversation, Net, Silence};
use super::publication::{Template, append_answer};
use super::report::Report;

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
    let templates = (0..job.clients).map(|index| Template::new(&topic(job, index), &job.form));
    let sessions_of = |publisher| (publisher..job.clients).step_by(job.publishers).collect();
    let turns = (0..job.publishers).map(sessions_of).collect();
    let fill = Fill::connect(job, &mut net, templates.collect(), turns, job.messages)?;
    let empty = Sample::read(start.elapsed(), 0, 0, &job.pids)?;
    fill.run(&mut net, |missing| {
        bar.set_message(format!("drain: {missing} messages to be queued"));
    })?;
    let full = Sample::read(start.elapsed(), total, 0, &job.pids)?;

    let mut drain = Drain { received: 0 };
    let links = net.connect(sessions(false), &mut drain, connected)?;
    drain.run(total, &mut net, &bar)?;
    let drained = Sample::read(start.elapsed(), total, total, &job.pids)?;
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
    report.add_broker_cpu("message out", &full, &drained, total);
    report.add_generator_cpu("delivery", &full, &drained, total);
    report.add_resident("_before", "resident before", &empty);
    report.add_resident("_queued", "resident with all queued", &full);
    report.add_resident("_after", "resident after", &drained);
    report.add_growth("message", "resident a queued message", &empty, &full, total);
    Ok(())
}

/// Each session has a topic of its own.
fn topic(job: &Job, session: usize) -> String {
    format!("bench/{}/{session}", job.run)
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
