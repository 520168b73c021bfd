//! The scenario of connections that do nothing: what they cost in memory, and
//! in processor time to accept.

use super::Job;
use super::course::{self, Course, Phase};
use super::flow::Plan;
use super::report::Report;

/// Connects the job's clients, leaves them alone for its seconds, and
/// reports.
pub fn run(job: &Job, report: &mut Report) -> Result<(), String> {
    let plan = Plan {
        bystanders: (0..job.clients)
            .map(|index| job.client("i", index, Vec::new()))
            .collect(),
        ..Plan::default()
    };
    let conduct = |course: &Course<'_>| {
        let before = course.sample()?;
        course.connect()?;
        let connected = course.sample()?;
        course.stay(Phase::Run, job.duration)?;
        Ok((before, connected, course.sample()?))
    };
    let name = job.scenario.name();
    let ((before, connected, after), _) =
        course::run(name, vec![plan], &job.target, &job.pids, conduct)?;
    report.add_number(
        "connects_per_second",
        "connected",
        job.clients as f64 / (connected.at - before.at).as_secs_f64(),
        "clients/s",
    );
    report.add_cpu("connect", &before, &connected, job.clients as u64);
    report.add_resident("_before", "resident before", &before);
    report.add_resident("_after", "resident after", &after);
    let clients = job.clients as u64;
    report.add_growth("client", "resident a client", &before, &after, clients);
    if let (Some(first), Some(last)) = (&connected.broker, &after.broker) {
        report.add_number(
            "broker_cpu_percent_idle",
            "broker's CPU while all are idle",
            100.0 * last.cpu.since(&first.cpu).as_secs_f64()
                / (after.at - connected.at).as_secs_f64(),
            "%",
        );
    }
    Ok(())
}
