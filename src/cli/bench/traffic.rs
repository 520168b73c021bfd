//! The scenarios of steady traffic: pairs, fan-out, fan-in, queue and share.

use super::course::{self, Course, Phase, Sample};
use super::flow::{Load, Plan};
use super::net::Client;
use super::publication::Template;
use super::report::Report;
use super::{Job, Scenario, churn};

/// How many subscriptions each bystander holds.
const SUBSCRIPTIONS_PER_BYSTANDER: usize = 1000;

/// Runs the job's traffic, and reports it.
pub fn run(job: &Job, report: &mut Report) -> Result<(), String> {
    let plans = plans(job);
    let conduct = |course: &Course<'_>| {
        let alone = course.sample()?;
        course.gather()?;
        let subscribed = course.sample()?;
        course.connect()?;
        let (before, after, changes) = churn::beside(job, |answered| {
            if job.messages == 0 {
                course.stay(Phase::Run, job.warmup)?;
            }
            let before = course.sample()?;
            let answered_before = answered.so_far();
            match job.messages {
                0 => course.stay(Phase::Measure, job.duration)?,
                messages => {
                    let total = messages * job.publishers as u64;
                    course.stay_until(Phase::Measure, total, job.rate == 0.0)?;
                }
            }
            let changes = answered.so_far() - answered_before;
            Ok((before, course.sample()?, changes))
        })?;
        let balance = course.settle()?;
        Ok((alone, subscribed, before, after, changes, balance))
    };
    let name = job.scenario.name();
    let ((alone, subscribed, before, after, changes, balance), latencies) =
        course::run(name, plans, &job.target, &job.pids, conduct)?;
    // What was in a queue that is not of its own comes as well.
    let shared = match job.scenario {
        Scenario::Queue => !job.queue_is_given,
        scenario => scenario == Scenario::Share,
    };
    if shared && balance.duplicates > balance.published / 2 {
        return Err(format!(
            "{} messages came {} times: this broker does not share them among the members",
            balance.published,
            balance.published + balance.duplicates
        ));
    }
    add_rates(report, "", &before, &after);
    if !latencies.acknowledgement.is_empty() {
        // In an open loop these may be fewer than were published.
        report.add_number(
            "acknowledged_per_second",
            "acknowledged",
            latencies.acknowledgement.len() as f64 / (after.at - before.at).as_secs_f64(),
            "messages/s",
        );
    }
    report.add(
        "published",
        "published in all",
        balance.published,
        "messages",
    );
    report.add("lost", "lost", balance.lost, "deliveries");
    report.add("duplicates", "duplicates", balance.duplicates, "deliveries");
    report.add_latencies(&latencies);
    report.add_cpu(
        "delivery",
        &before,
        &after,
        after.delivered - before.delivered,
    );
    report.add_resident("", "broker's resident memory", &after);
    if job.subscriptions > 0 {
        let count = job.subscriptions as u64;
        let label = "resident a subscription of the others";
        report.add_growth("subscription", label, &alone, &subscribed, count);
    }
    if job.churn > 0.0 {
        report.add_number(
            "churned_per_second",
            "subscribed and unsubscribed",
            changes as f64 / (after.at - before.at).as_secs_f64(),
            "changes/s",
        );
    }
    Ok(())
}

/// Published and delivered a second between two samples.
pub fn add_rates(report: &mut Report, suffix: &str, before: &Sample, after: &Sample) {
    let seconds = (after.at - before.at).as_secs_f64();
    let words = suffix.replace('_', " ");
    for (name, count) in [
        ("delivered", after.delivered - before.delivered),
        ("published", after.published - before.published),
    ] {
        report.add_number(
            &format!("{name}_per_second{suffix}"),
            &format!("{name}{words}"),
            count as f64 / seconds,
            "messages/s",
        );
    }
}

/// Who publishes and subscribes what, a plan for each thread.
pub fn plans(job: &Job) -> Vec<Plan> {
    let run = &job.run;
    let load = job.load();
    let topic = |index| match job.scenario {
        Scenario::Queue => job.queue_topic_of(index, job.publishers),
        _ if job.topics > 0 => format!("bench/{run}/{index}/"),
        _ => format!("bench/{run}/{index}"),
    };
    let filter = |index| match job.scenario {
        Scenario::Queue => job.queue_topic_of(index, job.subscribers),
        Scenario::Share => format!("$share/bench/bench/{run}/+"),
        Scenario::FanIn => format!("bench/{run}/+"),
        Scenario::FanOut => format!("bench/{run}/0"),
        _ if job.topics > 0 => format!("bench/{run}/{index}/+"),
        _ => format!("bench/{run}/{index}"),
    };
    let copies = match job.scenario {
        Scenario::FanIn | Scenario::FanOut => job.subscribers,
        _ => 1,
    };
    let mut plans = Vec::new();
    let mut connects_before = 0;
    for thread in 0..job.threads {
        // More than one thread: pairs, whose halves stay together, or queues,
        // whose publishers and members do.
        let part = |count: usize| {
            let start = |thread: usize| match job.queues {
                0 => count * thread / job.threads,
                queues => (queues * thread / job.threads * count).div_ceil(queues),
            };
            start(thread)..start(thread + 1)
        };
        let publishers = part(job.publishers);
        let plan = Plan {
            bystanders: match thread {
                0 => bystanders(job),
                _ => Vec::new(),
            },
            subscribers: part(job.subscribers)
                .map(|index| job.client("s", index, vec![filter(index)]))
                .collect(),
            publishers: publishers
                .clone()
                .map(|index| job.client("p", index, Vec::new()))
                .collect(),
            templates: publishers
                .clone()
                .map(|index| {
                    let topic = topic(index);
                    let mut template = match job.topics {
                        0 => Template::new(&topic, &job.form),
                        _ => Template::of_topics(&topic, job.topics_of(index), &job.form),
                    };
                    template.begin_at_part(index, job.publishers);
                    template
                })
                .collect(),
            copies,
            load: Load {
                rate: load.rate * publishers.len() as f64 / job.publishers as f64,
                ..load
            },
            connects_before,
        };
        connects_before += plan.clients();
        plans.push(plan);
    }
    plans
}

/// Clients with subscriptions that match nothing of the traffic, half of them
/// with a wildcard.
fn bystanders(job: &Job) -> Vec<Client> {
    let run = &job.run;
    let filters: Vec<String> = (0..job.subscriptions)
        .map(|index| match index % 8 {
            1 | 5 => format!("bench/{run}/other/{index}/+/state"),
            3 => format!("bench/{run}/other/{index}/#"),
            7 => format!("+/{run}/other/{index}"),
            _ => format!("bench/{run}/other/{index}/state"),
        })
        .collect();
    filters
        .chunks(SUBSCRIPTIONS_PER_BYSTANDER)
        .enumerate()
        .map(|(index, filters)| job.client("b", index, filters.to_vec()))
        .collect()
}
