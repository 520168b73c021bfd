//! `rotamq status`: a broker at a glance.
//!
//! Owns what stands on that screen, and which queues need a look. Pure but for
//! [`run`].

use std::collections::HashSet;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::sleep;

use super::answer::{self, Column, title, value};
use super::arguments::seconds;
use super::http::{Api, Common, Route};
use super::table::Side::{Left, Right};
use super::table::{bytes, moment, rate, shown, span, table};
use super::{Failure, Kind, Outcome, goes_on, refreshed, say};
use crate::broker::steer::QueueView;

/// The rates are means over so long.
const RATES_SECS: u64 = 10;
/// A queue that makes somebody wait for longer needs a look.
const OLDEST_MS_MAX: u64 = 60_000;
/// Queues that are looked through, and that are shown.
const QUEUES_MAX: usize = 10_000;
const SHOWN_MAX: usize = 10;

const LISTENERS: [Column<'_>; 5] = [
    ("LISTENER", "address"),
    ("PROTOCOL", "protocol"),
    ("TLS", "tls"),
    ("CONNECTIONS", "connections"),
    ("CERTIFICATE'S DAYS", "certificate_days_left"),
];

/// What `rotamq status` is told.
#[derive(clap::Args, Clone)]
#[command(after_help = "\
Ends with 0 if the broker is ready for clients, and with 5 if it is not, or if there is none.

Examples:
  rotamq status
  rotamq status --watch
  rotamq status --http https://mq.example.org --token-file token --json")]
pub struct StatusArguments {
    /// Refresh it until told to stop
    #[arg(short, long)]
    watch: bool,
    /// How often
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    interval: Duration,
    #[command(flatten)]
    common: Common,
}

/// What is told of a broker; as JSON what the API says of it, and this.
#[derive(Debug, Serialize)]
pub struct Glance {
    #[serde(flatten)]
    pub status: Map<String, Value>,
    /// A second, by name: means over the last [`RATES_SECS`].
    pub rates: Map<String, Value>,
    pub queues_in_need: Vec<InNeed>,
}

/// A queue that needs a look.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InNeed {
    #[serde(flatten)]
    pub queue: QueueView,
    pub why: Vec<&'static str>,
}

/// Looks, and prints it.
///
/// # Errors
/// The broker cannot be reached, or does not tell.
pub fn run(arguments: StatusArguments) -> Outcome {
    let StatusArguments {
        watch,
        interval,
        common,
    } = arguments;
    common.run(async |api| {
        loop {
            let glance = look(api).await?;
            if !watch {
                say(common.json, &glance, || screen(&glance))?;
                return Ok(match glance.is_ready() {
                    true => ExitCode::SUCCESS,
                    false => ExitCode::from(Kind::Unavailable as u8),
                });
            }
            let text = match common.json {
                // One line each time.
                true => format!("{}\n", serde_json::to_string(&glance)?),
                false => refreshed(&screen(&glance)),
            };
            if !goes_on(&text)? {
                return Ok(ExitCode::SUCCESS);
            }
            sleep(interval).await;
        }
    })
}

async fn look(api: &mut Api) -> Result<Glance, Failure> {
    let status = api.get(&Route::to(&["status"])).await?;
    let history = Route::to(&["history"]).with("seconds", RATES_SECS);
    let history: Value = match api.get(&history).await {
        // It keeps none.
        Err(failure) if failure.kind() == Kind::NotFound => Value::Null,
        history => history?,
    };
    let queues = api.list(&Route::to(&["queues"]), Some(QUEUES_MAX)).await?;
    let queues = Value::from(queues.items);
    let queues: Vec<QueueView> = serde_json::from_value(queues)?;
    Ok(Glance {
        status,
        rates: rates(&history),
        queues_in_need: in_need(queues),
    })
}

/// The means of what a history has of each name that is a rate.
pub fn rates(history: &Value) -> Map<String, Value> {
    let names = history["names"].as_array().into_iter().flatten();
    let rows: Vec<&Value> = history["rows"].as_array().into_iter().flatten().collect();
    let mean = |(at, name): (usize, &Value)| {
        let is_rate = |name: &&str| name.ends_with("_per_sec") || name.ends_with("_percent");
        let name = name.as_str().filter(is_rate)?;
        // The moment stands before the values.
        let values = rows.iter().filter_map(|row| row[at + 1].as_f64());
        let sum: f64 = values.clone().sum();
        match values.count() {
            0 => None,
            count => Some((name.to_owned(), (sum / count as f64).into())),
        }
    };
    names.enumerate().filter_map(mean).collect()
}

/// Those that a person should look at, the worst first.
pub fn in_need(queues: Vec<QueueView>) -> Vec<InNeed> {
    let names: HashSet<String> = queues.iter().map(|queue| queue.name.clone()).collect();
    let mut all: Vec<InNeed> = (queues.into_iter())
        .filter_map(|queue| {
            let why = why(&queue, &names);
            (!why.is_empty()).then_some(InNeed { queue, why })
        })
        .collect();
    all.sort_by_key(|InNeed { queue, .. }| {
        (
            std::cmp::Reverse((queue.dead, queue.oldest_ms)),
            queue.name.clone(),
        )
    });
    all
}

fn why(queue: &QueueView, names: &HashSet<String>) -> Vec<&'static str> {
    if let Some(of) = queue.name.strip_prefix("$dead/") {
        // Nobody has to work on dead letters, and their queue tells of them.
        let is_told = names.contains(of) || queue.ready == 0;
        return if is_told {
            vec![]
        } else {
            vec!["dead letters"]
        };
    }
    let is_waited_for = queue.ready > 0 && queue.oldest_ms > Some(OLDEST_MS_MAX);
    let whys = [
        (queue.dead > 0, "dead letters"),
        (queue.paused, "paused"),
        (queue.ready > 0 && queue.members == 0, "no members"),
        (is_waited_for, "old messages"),
    ];
    let whys = whys.into_iter();
    whys.filter_map(|(holds, why)| holds.then_some(why))
        .collect()
}

impl Glance {
    fn is_ready(&self) -> bool {
        self.status.get("ready") != Some(&Value::Bool(false))
    }

    fn of(&self, name: &str) -> &Value {
        self.status.get(name).unwrap_or(&Value::Null)
    }
}

/// All of it, on one screen.
pub fn screen(glance: &Glance) -> String {
    let mut text = head(glance);
    let listeners = glance.of("listeners").as_array();
    if let Some(listeners) = listeners {
        text += "\n";
        text += &answer::list(listeners, &LISTENERS);
    }
    text += "\n";
    for (name, value) in [
        ("connections", value("", glance.of("connections"))),
        ("sessions", value("", glance.of("sessions"))),
        ("subscriptions", value("", glance.of("subscriptions"))),
        ("retained", retained(glance.of("retained"))),
        ("queues", value("", glance.of("queues"))),
        ("memory", memory(glance.of("memory"))),
        ("store", store(glance.of("store"))),
    ] {
        // Writing to a String cannot fail.
        _ = writeln!(text, "{:<15}{value}", format!("{name}:"));
    }
    section(&mut text, "a second", &numbers(&glance.rates));
    section(
        &mut text,
        "dropped or refused",
        &dropped(glance.of("counts")),
    );
    queues(&mut text, &glance.queues_in_need);
    text
}

fn head(glance: &Glance) -> String {
    let version = value("", glance.of("version"));
    let since = glance.of("started_at_ms").as_u64().map(moment);
    let up = glance.of("uptime_secs").as_u64();
    let mut text = format!("RotaMQ {version}");
    if let (Some(since), Some(up)) = (since, up) {
        let up = span(up.saturating_mul(1000));
        _ = write!(text, ", up {up}, since {since} (UTC)");
    }
    text.push('\n');
    let reasons = glance.of("reasons").as_array().into_iter().flatten();
    let reasons: Vec<String> = reasons.map(|reason| value("", reason)).collect();
    text += &match glance.is_ready() {
        true => "ready for clients\n".to_owned(),
        false => format!("NOT READY: {}\n", reasons.join("; ")),
    };
    text
}

fn retained(retained: &Value) -> String {
    let (messages, size) = (&retained["messages"], &retained["bytes"]);
    match messages.as_u64() {
        Some(messages) => format!("{messages} messages, {}", value("bytes", size)),
        None => value("", retained),
    }
}

fn memory(memory: &Value) -> String {
    let resident = value("bytes", &memory["resident_bytes"]);
    let mut text = match memory["ceiling_bytes"].as_u64() {
        Some(_) => format!("{resident} of {}", value("bytes", &memory["ceiling_bytes"])),
        None => resident,
    };
    match memory["shedding"].as_str() {
        None | Some("nothing") => {}
        Some(what) => _ = write!(text, ", SHORT: {} are held off", shown(what)),
    }
    text
}

fn store(store: &Value) -> String {
    if store["is_on"] == false {
        return "off: nothing is kept".to_owned();
    }
    if let Some(failure) = store["failure"].as_str() {
        return format!("FAILED: {}", shown(failure));
    }
    let size = value("bytes", &store["bytes"]);
    match store["is_low"] == true {
        true => format!("{size}, and the DISK IS NEARLY FULL"),
        false => size,
    }
}

fn numbers(rates: &Map<String, Value>) -> Vec<(String, String)> {
    let of = |(name, number): (&String, &Value)| {
        let words = title(name.trim_end_matches("_per_sec"));
        let number = number.as_f64()?;
        Some((
            words,
            match name.contains("bytes") {
                true => bytes(number as usize),
                false => rate(number),
            },
        ))
    };
    rates.iter().filter_map(of).collect()
}

/// What did not go as somebody wished, where it happened.
fn dropped(counts: &Value) -> Vec<(String, String)> {
    let prefixes = ["dropped_", "lost_", "refused_"];
    let counts = counts.as_object().into_iter().flatten();
    let happened = counts.filter(|(name, count)| {
        prefixes.iter().any(|prefix| name.starts_with(prefix)) && count.as_u64() > Some(0)
    });
    happened
        .map(|(name, count)| (title(name), value("", count)))
        .collect()
}

fn section(text: &mut String, title: &str, lines: &[(String, String)]) {
    let width = lines.iter().map(|(name, _)| name.chars().count()).max();
    let Some(width) = width else { return };
    let width = width + 1;
    _ = writeln!(text, "\n{title}:");
    for (name, value) in lines {
        _ = writeln!(text, "  {:<width$}  {value}", format!("{name}:"));
    }
}

fn queues(text: &mut String, in_need: &[InNeed]) {
    if in_need.is_empty() {
        return;
    }
    let head = [
        ("QUEUE", Left),
        ("READY", Right),
        ("IN FLIGHT", Right),
        ("DEAD", Right),
        ("MEMBERS", Right),
        ("OLDEST", Right),
        ("WHY", Left),
    ];
    let rows = in_need.iter().take(SHOWN_MAX).map(|InNeed { queue, why }| {
        vec![
            shown(&queue.name),
            queue.ready.to_string(),
            queue.in_flight.to_string(),
            queue.dead.to_string(),
            queue.members.to_string(),
            queue.oldest_ms.map_or("-".to_owned(), span),
            why.join(", "),
        ]
    });
    _ = writeln!(text, "\nqueues that need a look:");
    *text += &table(&head, &rows.collect::<Vec<_>>());
    if in_need.len() > SHOWN_MAX {
        let more = in_need.len() - SHOWN_MAX;
        _ = writeln!(text, "and {more} more: rotamq queue ls");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn queue(name: &str, given: Value) -> QueueView {
        let mut view = json!({
            "name": name, "configured": "file", "paused": false, "ready": 0, "in_flight": 0,
            "delayed": 0, "dead": 0, "bytes": 0, "members": 1, "oldest_ms": null,
            "enqueued_per_sec": 0.0, "done_per_sec": 0.0, "enqueued": 0, "done": 0,
            "redelivered": 0,
        });
        for (name, value) in given.as_object().into_iter().flatten() {
            view[name] = value.clone();
        }
        serde_json::from_value(view).expect("it is a queue's view")
    }

    #[test]
    fn queues_that_need_a_look_are_found_the_worst_first() {
        let all = vec![
            queue("busy", json!({"ready": 5, "oldest_ms": 60_000})),
            queue("idle", json!({"members": 0})),
            queue("dead", json!({"dead": 3, "paused": true})),
            queue(
                "$dead/dead",
                json!({"ready": 3, "members": 0, "oldest_ms": 90_000}),
            ),
            queue("$dead/gone", json!({"ready": 1, "members": 0})),
            queue("slow", json!({"ready": 1, "oldest_ms": 60_001})),
            queue("alone", json!({"ready": 1, "members": 0, "oldest_ms": 5})),
        ];
        let found = in_need(all);
        let found: Vec<_> = (found.iter())
            .map(|InNeed { queue, why }| (queue.name.as_str(), why.join(", ")))
            .collect();
        let expected = [
            ("dead", "dead letters, paused"),
            ("slow", "old messages"),
            ("alone", "no members"),
            ("$dead/gone", "dead letters"),
        ];
        assert_eq!(found, expected.map(|(name, why)| (name, why.to_owned())));
    }

    #[test]
    fn rates_are_means_of_what_is_one() {
        let history = json!({
            "step_ms": 1000,
            "names": ["connections", "in_per_sec", "out_per_sec"],
            "rows": [[1000, 5, 10, null], [2000, 5, 20, null]],
        });
        assert_eq!(Value::from(rates(&history)), json!({"in_per_sec": 15.0}));
        assert!(rates(&json!({})).is_empty());
    }

    #[test]
    fn what_is_wrong_stands_out_and_what_did_not_happen_is_left_out() {
        let status = json!({
            "version": "1.2.3",
            "started_at_ms": 0,
            "uptime_secs": 90_000,
            "ready": false,
            "reasons": ["the disk is nearly full", "memory is short"],
            "listeners": [{"address": "127.0.0.1:1883", "protocol": "mqtt", "tls": false,
                "connections": 7, "certificate_days_left": null}],
            "connections": 7,
            "retained": {"messages": 3, "bytes": 1536},
            "memory": {"resident_bytes": 1024, "ceiling_bytes": 2048, "shedding": "newcomers"},
            "store": {"is_on": true, "failure": null, "is_low": true, "bytes": 1024},
            "counts": {"dropped_slow": 2, "dropped_absent": 0, "sessions_expired": 9},
        });
        let glance = Glance {
            status: status.as_object().expect("it is an object").clone(),
            rates: Map::new(),
            queues_in_need: Vec::new(),
        };
        assert!(!glance.is_ready());
        let expected = "\
RotaMQ 1.2.3, up 1d01h, since 1970-01-01 00:00:00.000 (UTC)
NOT READY: the disk is nearly full; memory is short

LISTENER        PROTOCOL  TLS  CONNECTIONS  CERTIFICATE'S DAYS
127.0.0.1:1883  mqtt      no             7  -

connections:   7
sessions:      -
subscriptions: -
retained:      3 messages, 1.5 KiB
queues:        -
memory:        1.0 KiB of 2.0 KiB, SHORT: newcomers are held off
store:         1.0 KiB, and the DISK IS NEARLY FULL

dropped or refused:
  dropped slow:  2
";
        assert_eq!(screen(&glance), expected);
    }
}
