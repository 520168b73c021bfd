//! `rotamq log`: what a running broker logs, and how much.
//!
//! Owns the arguments and what a line looks like. The broker's own log is
//! [`logging`](super::logging)'s.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use hyper::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::answer;
use super::arguments::span;
use super::http::{Api, Common, Listed, Route, text_of};
use super::table::{moment, shown};
use super::{Failure, Outcome, goes_on, say};

/// Between two looks at what was logged.
const POLL: Duration = Duration::from_millis(500);
/// Lines that one look gets.
const PAGE_MAX: usize = 1000;

/// What `rotamq log` is told.
#[derive(clap::Args, Clone)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  rotamq log -n 100
  rotamq log --follow --level warn
  rotamq log --json | jq .message
  rotamq log level debug --for 10m"
)]
pub struct LogArguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// So many of the last lines, at most 1000
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20, value_parser = count)]
    count: usize,
    /// And what is logged from now on
    #[arg(short, long)]
    follow: bool,
    /// The least severe level that is shown
    #[arg(long, value_enum)]
    level: Option<Level>,
    /// Only lines with this in the message or in a field, whichever case it is in
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    #[command(flatten)]
    common: Common,
}

fn count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| *count <= PAGE_MAX);
    count.ok_or_else(|| format!("it is a number from 0 to {PAGE_MAX}"))
}

#[derive(Subcommand, Clone)]
enum Command {
    /// Tell which level is logged from, or change it while the broker runs
    #[command(after_help = "\
Examples:
  rotamq log level
  rotamq log level debug --for 10m
  rotamq log level info")]
    Level {
        /// The least severe level to be logged from now on
        #[arg(value_enum)]
        level: Option<Level>,
        /// Only for so long, as in 90s, 10m or 2h; else until the broker ends
        #[arg(long = "for", value_name = "SPAN", requires = "level", value_parser = span)]
        span: Option<Duration>,
    },
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Level {
    /// What it is called in the API, and in the configuration.
    fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }
}

/// Prints what was and is logged, or changes the level.
///
/// # Errors
/// The broker cannot be reached, or does not do what is asked for.
pub fn run(arguments: LogArguments) -> Outcome {
    let json = arguments.common.json;
    let common = arguments.common.clone();
    common.run(async |api| match arguments.command {
        Some(Command::Level { level, span }) => self::level(api, level, span, json).await,
        None => lines(api, &arguments).await,
    })
}

async fn level(api: &mut Api, level: Option<Level>, span: Option<Duration>, json: bool) -> Outcome {
    let route = Route::to(&["log", "level"]);
    let now: Value = match level {
        None => api.get(&route).await?,
        Some(level) => {
            let mut body = json!({ "level": level.name() });
            if let Some(span) = span {
                body["for_secs"] = span.as_secs().into();
            }
            api.change(Method::PUT, &route, Some(body)).await?
        }
    };
    say(json, &now, || answer::object(&now, &["level"]))
}

/// The last lines; with `--follow` then all that come.
async fn lines(api: &mut Api, arguments: &LogArguments) -> Outcome {
    let json = arguments.common.json;
    let level = arguments.level.map(Level::name);
    let route = Route::to(&["log"]).maybe("level", level);
    let route = route.maybe("text", arguments.text.as_deref());
    // Also where none is to be seen of what was: what comes, comes after the last.
    let last = route.clone().with("last", arguments.count.max(1));
    let mut page: Listed = api.get(&last).await?;
    let route = route.with("limit", PAGE_MAX);
    let mut after = number_behind(&page, 0);
    let first = page.items.len().saturating_sub(arguments.count);
    let mut is_read = print_lines(&page.items[first..], json)?;
    while arguments.follow && is_read {
        if page.items.len() < PAGE_MAX {
            sleep(POLL).await;
        }
        page = api.get(&route.clone().with("after", after)).await?;
        after = number_behind(&page, after);
        is_read = print_lines(&page.items, json)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// After which line to go on; `before`: after which this page is.
fn number_behind(page: &Listed, before: u64) -> u64 {
    let next = page.next.as_ref().map(text_of);
    let next = next.and_then(|next| next.parse().ok());
    let last = page.items.last().and_then(|line| line["number"].as_u64());
    next.or(last).unwrap_or(before)
}

/// Prints lines, and tells whether anybody reads them.
fn print_lines(items: &[Value], json: bool) -> Result<bool, Failure> {
    let mut text = String::new();
    for item in items {
        text += &match json {
            true => format!("{item}\n"),
            false => line(item),
        };
    }
    match text.is_empty() {
        true => Ok(true),
        false => goes_on(&text),
    }
}

/// A line as the broker's own log has it.
fn line(item: &Value) -> String {
    let text = |name: &str| item[name].as_str().unwrap_or_default();
    let at = item["at_ms"].as_u64().map_or("-".to_owned(), moment);
    let level = text("level").to_uppercase();
    let mut line = format!("{at} {level:>5} {}", shown(text("message")));
    for (name, value) in item["fields"].as_object().into_iter().flatten() {
        line += &format!(" {}={}", shown(name), shown(&value.to_string()));
    }
    line.push('\n');
    line
}
