//! `rotamq retained`: the messages that wait for whoever subscribes.
//!
//! Owns the arguments and what is printed.

use std::process::ExitCode;

use clap::Subcommand;
use hyper::Method;
use serde_json::{Value, json};

use super::answer::{self, Column};
use super::arguments::{topic_filter, topic_name};
use super::clients::Page;
use super::http::{Api, Common, Route};
use super::progress::Progress;
use super::{Failure, Outcome, say};

const COLUMNS: [Column<'_>; 6] = [
    ("TOPIC", "topic"),
    ("BYTES", "payload_bytes"),
    ("QOS", "qos"),
    ("PUBLISHER", "publisher"),
    ("STORED (UTC)", "stored_at_ms"),
    ("EXPIRES (UTC)", "expires_at_ms"),
];
/// With the payload, where it was asked for.
const WITH_PAYLOAD: [Column<'_>; 7] = [
    COLUMNS[0],
    COLUMNS[1],
    COLUMNS[2],
    COLUMNS[3],
    COLUMNS[4],
    COLUMNS[5],
    ("PAYLOAD", "payload"),
];
const FIRST: [&str; 2] = ["topic", "payload"];

/// What `rotamq retained` is told.
#[derive(clap::Args, Clone)]
pub struct RetainedArguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand, Clone)]
enum Command {
    /// List retained messages by their topics
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  rotamq retained list
  rotamq retained list 'room/+/temperature' --payload 40
  rotamq retained list --limit 100 --json"
    )]
    List {
        /// Only those whose topics match this filter
        #[arg(default_value = "#", value_parser = topic_filter)]
        filter: String,
        /// Bytes of each payload that are shown, which needs the role operator
        #[arg(long, value_name = "BYTES")]
        payload: Option<usize>,
        #[command(flatten)]
        page: Page,
    },
    /// Show the retained message of a topic
    #[command(after_help = "\
Examples:
  rotamq retained show room/1/temperature
  rotamq retained show room/1/temperature --payload 0")]
    Show {
        #[arg(value_parser = topic_name)]
        topic: String,
        /// Bytes of the payload that are shown, which needs the role operator [default: 1024 for
        /// operators]
        #[arg(long, value_name = "BYTES")]
        payload: Option<usize>,
    },
    /// Delete the retained message of a topic, or all whose topics match a filter
    #[command(after_help = "\
Examples:
  rotamq retained delete room/1/temperature
  rotamq retained delete --filter 'room/#'")]
    Delete {
        #[command(flatten)]
        which: Which,
    },
}

#[derive(clap::Args, Clone, Debug)]
#[group(required = true, multiple = false)]
struct Which {
    #[arg(value_parser = topic_name)]
    topic: Option<String>,
    /// All whose topics match this filter
    #[arg(long, value_parser = topic_filter)]
    filter: Option<String>,
}

/// Looks at retained messages, or deletes some.
///
/// # Errors
/// The broker cannot be reached, or does not do what is asked for.
pub fn run(arguments: RetainedArguments) -> Outcome {
    let json = arguments.common.json;
    arguments.common.run(async |api| match arguments.command {
        Command::List {
            filter,
            payload,
            page,
        } => {
            let route = Route::to(&["retained"]).with("filter", filter);
            let route = route.maybe("payload_bytes_max", payload);
            let columns: &[Column<'_>] = match payload {
                None => &COLUMNS,
                Some(_) => &WITH_PAYLOAD,
            };
            page.print(api, &route, (columns, json)).await
        }
        Command::Show { topic, payload } => {
            let route = Route::to(&["retained", &topic]);
            let route = route.maybe("payload_bytes_max", payload);
            let shown: Value = api.get(&route).await?;
            say(json, &shown, || answer::object(&shown, &FIRST))
        }
        Command::Delete { which } => match which {
            Which {
                topic: Some(topic), ..
            } => {
                let route = Route::to(&["retained", &topic]);
                let done: Value = api.change(Method::DELETE, &route, None).await?;
                say(json, &done, || {
                    format!("The retained message of {topic:?} is deleted.\n")
                })
            }
            Which {
                filter: Some(filter),
                ..
            } => delete_all(api, &filter, json).await,
            Which { .. } => Ok(ExitCode::SUCCESS), // clap asks for one of them
        },
    })
}

/// A page at a time, until there is none behind it.
async fn delete_all(api: &mut Api, filter: &str, json: bool) -> Outcome {
    let route = Route::to(&["retained"]).with("filter", filter);
    let progress = Progress::counting("deleting");
    let mut deleted = 0;
    let mut next: Option<String> = None;
    loop {
        let route = route.clone().maybe("after", next.as_ref());
        let page: Value = api.change(Method::DELETE, &route, None).await?;
        let of_page = page["deleted"].as_u64();
        deleted +=
            of_page.ok_or_else(|| Failure::new("the broker does not say how many it deleted"))?;
        progress.set(deleted);
        next = page["next"].as_str().map(str::to_owned);
        if next.is_none() {
            drop(progress);
            return say(json, &json!({ "deleted": deleted }), || {
                format!("{deleted} retained messages are deleted.\n")
            });
        }
    }
}
