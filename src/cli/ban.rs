//! `rotamq ban`: who is kept out for a while.
//!
//! Owns the arguments and what is printed.

use std::net::IpAddr;
use std::time::Duration;

use clap::Subcommand;
use hyper::Method;
use serde_json::{Value, json};

use super::answer::Column;
use super::arguments::span;
use super::clients::Page;
use super::http::{Common, Route};
use super::{Outcome, say, table};

const COLUMNS: [Column<'_>; 5] = [
    ("ADDRESS", "address"),
    ("CLIENT", "client"),
    ("USER", "user"),
    ("WHY", "reason"),
    ("UNTIL (UTC)", "until_ms"),
];

/// What `rotamq ban` is told.
#[derive(clap::Args, Clone)]
pub struct BanArguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand, Clone)]
enum Command {
    /// List who is kept out, by hand or by the broker, and for how long
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  rotamq ban list
  rotamq ban list --json"
    )]
    List {
        #[command(flatten)]
        page: Page,
    },
    /// Keep an address or a client out
    #[command(after_help = "\
Examples:
  rotamq ban add --address 203.0.113.9
  rotamq ban add --client sensor-7 --for 30m")]
    Add {
        #[command(flatten)]
        whom: Whom,
        /// For how long, as in 90s, 10m, 2h or 7d
        #[arg(long = "for", value_name = "SPAN", default_value = "1h", value_parser = span)]
        span: Duration,
    },
    /// Let an address or a client in again
    #[command(after_help = "\
Examples:
  rotamq ban remove --address 203.0.113.9
  rotamq ban remove --client sensor-7")]
    Remove {
        #[command(flatten)]
        whom: Whom,
    },
}

#[derive(clap::Args, Clone, Debug)]
#[group(required = true, multiple = false)]
struct Whom {
    /// Whoever comes from this IP address
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// Whoever has this client identifier
    #[arg(long, value_name = "ID")]
    client: Option<String>,
}

impl Whom {
    /// What it is called in the API, and its value.
    fn named(self) -> (&'static str, String) {
        match (self.address, self.client) {
            (Some(address), _) => ("address", address.to_string()),
            (None, client) => ("client", client.unwrap_or_default()),
        }
    }
}

/// Looks at bans, adds or removes one.
///
/// # Errors
/// The broker cannot be reached, or does not do what is asked for.
pub fn run(arguments: BanArguments) -> Outcome {
    let json = arguments.common.json;
    arguments.common.run(async |api| match arguments.command {
        Command::List { page } => {
            page.print(api, &Route::to(&["bans"]), (&COLUMNS, json))
                .await
        }
        Command::Add { whom, span } => {
            let (what, value) = whom.named();
            let secs = span.as_secs();
            let body = json!({ what: value, "seconds": secs });
            let route = Route::to(&["bans"]);
            let done: Value = api.change(Method::POST, &route, Some(body)).await?;
            say(json, &done, || {
                let span = table::span(secs * 1000);
                format!("The {what} {value:?} is kept out for {span}.\n")
            })
        }
        Command::Remove { whom } => {
            let (what, value) = whom.named();
            let route = Route::to(&["bans", what, &value]);
            let done: Value = api.change(Method::DELETE, &route, None).await?;
            say(json, &done, || {
                format!("The {what} {value:?} may come again.\n")
            })
        }
    })
}
