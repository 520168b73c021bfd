//! The scenario of clients that come and go: each connects, is let in, says
//! goodbye and comes again, as fast as it goes.

use std::time::{Duration, Instant};

use super::Job;
use super::course::{Sample, progress_bar};
use super::dial::{Dialer, Event, Then};
use super::latency;
use super::report::{Report, grouped};

/// A broker that lets nobody in for so long is given up.
const STALL: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);
const SHOW: Duration = Duration::from_millis(500);

/// Connects the job's clients again and again for its seconds, and reports.
pub fn run(job: &Job, report: &mut Report) -> Result<(), String> {
    let bar = progress_bar();
    let target = &job.target;
    let mut dialer = Dialer::new(target, Then::Leave)?;
    let secure = target.tls.as_ref();
    let secure = |_| secure.map(|secure| secure.of_one_client(!job.full_handshakes));
    let clients: Vec<_> = (0..job.clients).map(secure).collect();
    let mut events = Vec::new();
    let mut comers = 0;
    let mut connect = Vec::new();
    // Each time somebody new: who comes again and again is taken for two devices
    // that fight for an identifier.
    let mut dial = |dialer: &mut Dialer, index: usize, events: &mut Vec<_>| {
        connect.clear();
        target.append_connect(&job.client("c", comers, Vec::new()), &mut connect);
        comers += 1;
        dialer.dial(index, &connect, clients[index].as_ref(), events)
    };
    for index in 0..job.clients {
        dial(&mut dialer, index, &mut events)?;
    }
    let mut admitted = latency::histogram();
    let (mut gone, mut resumed) = (0, 0);
    let mut before: Option<Sample> = None;
    let started = Instant::now();
    let (mut moved_at, mut shown_at) = (started, started);
    let after = loop {
        dialer.poll(LOOK, &mut events)?;
        for (index, event) in std::mem::take(&mut events) {
            moved_at = Instant::now();
            match event {
                Event::Admitted {
                    after, resumed: is, ..
                } => {
                    admitted.saturating_record(after.as_nanos() as u64);
                    resumed += u64::from(is);
                }
                Event::TurnedAway(why) => return Err(why),
                Event::Gone => {
                    gone += 1;
                    dial(&mut dialer, index, &mut events)?;
                }
            }
        }
        let now = started.elapsed();
        let sample = || Sample::read(started.elapsed(), 0, 0, &job.pids);
        if before.is_none() && now >= job.warmup {
            before = Some(sample()?);
            admitted.reset();
            (gone, resumed) = (0, 0);
        } else if now >= job.warmup + job.duration {
            break sample()?;
        }
        if moved_at.elapsed() > STALL {
            return Err(format!(
                "the broker at {} has let nobody in for {} s",
                target.address,
                STALL.as_secs()
            ));
        }
        if shown_at.elapsed() > SHOW {
            shown_at = Instant::now();
            let so_far = grouped(gone);
            bar.set_message(format!("connect: {so_far} connections"));
        }
        bar.tick();
    };
    bar.finish_and_clear();
    let before = before.ok_or("there was no time to measure: ask for more --seconds")?;
    report.add_number(
        "connects_per_second",
        "connected and gone",
        gone as f64 / (after.at - before.at).as_secs_f64(),
        "clients/s",
    );
    if target.tls.is_some() {
        let label = "TLS sessions resumed";
        report.add("resumed", label, resumed, "connections");
        let all = admitted.len();
        report.add("handshakes", "of TLS handshakes", all, "connections");
    }
    report.add_quantiles("connack", "CONNACK after", &admitted);
    report.add_cpu("connect", &before, &after, gone);
    report.add_resident("", "broker's resident memory", &after);
    Ok(())
}
