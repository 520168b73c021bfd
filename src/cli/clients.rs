//! `rotamq clients`, `sessions` and `subscriptions`: who is connected, whom the
//! broker remembers, and what they get.
//!
//! Owns the arguments, and which columns a list has. What there is to show is
//! the broker's.

use clap::Subcommand;
use hyper::Method;
use serde_json::{Value, json};

use super::answer::{self, Column};
use super::http::{Api, Common, Listed, Route};
use super::{Outcome, say};

const CLIENTS: [Column<'_>; 9] = [
    ("CLIENT", "client"),
    ("USER", "user"),
    ("ADDRESS", "address"),
    ("MQTT", "version"),
    ("CONNECTED (UTC)", "since_ms"),
    ("SUBSCRIPTIONS", "subscriptions"),
    ("IN FLIGHT", "in_flight_out"),
    ("QUEUED", "queued"),
    ("BYTES", "queued_bytes"),
];
const SESSIONS: [Column<'_>; 7] = [
    ("CLIENT", "client"),
    ("USER", "user"),
    ("CONNECTED", "connected"),
    ("SUBSCRIPTIONS", "subscriptions"),
    ("IN FLIGHT", "in_flight_out"),
    ("QUEUED", "queued"),
    ("BYTES", "queued_bytes"),
];
const SUBSCRIPTIONS: [Column<'_>; 3] = [("CLIENT", "client"), ("FILTER", "filter"), ("QOS", "qos")];
/// What stands first of a client or a session.
const FIRST: [&str; 7] = [
    "client",
    "user",
    "address",
    "listener",
    "version",
    "connected",
    "since_ms",
];

/// What `rotamq clients` is told.
#[derive(clap::Args, Clone)]
pub struct ClientsArguments {
    #[command(subcommand)]
    command: ClientsCommand,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand, Clone)]
enum ClientsCommand {
    /// List who is connected
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  rotamq clients list
  rotamq clients list --user ann --limit 20
  rotamq clients list --address 10.0.0.7 --json"
    )]
    List {
        /// Only those whose client identifiers have this in them; * stands for any text
        client: Option<String>,
        /// Only those with this in their users' names
        #[arg(long)]
        user: Option<String>,
        /// Only those with this in the addresses that they come from, with the port
        #[arg(long, value_name = "ADDR")]
        address: Option<String>,
        /// Only those with this in the addresses of their listeners
        #[arg(long, value_name = "ADDR")]
        listener: Option<String>,
        #[command(flatten)]
        page: Page,
    },
    /// Show all that is known of a client: its subscriptions, what is in flight, what was dropped
    #[command(after_help = "\
Examples:
  rotamq clients show sensor-7
  rotamq clients show sensor-7 --json")]
    Show { client: String },
    /// Close a client's connection; its session stays as the client wants it
    #[command(after_help = "\
Examples:
  rotamq clients disconnect sensor-7
  rotamq clients disconnect sensor-7 --reason not-authorized")]
    Disconnect {
        client: String,
        /// What the client is told, if it speaks MQTT 5
        #[arg(long, default_value = "administrative-action")]
        reason: String,
    },
}

/// What `rotamq sessions` is told.
#[derive(clap::Args, Clone)]
pub struct SessionsArguments {
    #[command(subcommand)]
    command: SessionsCommand,
    #[command(flatten)]
    common: Common,
}

#[derive(Subcommand, Clone)]
enum SessionsCommand {
    /// List whom the broker keeps messages for, connected or not
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  rotamq sessions list --away
  rotamq sessions list 'sensor-*' --json"
    )]
    List {
        /// Only those whose client identifiers have this in them; * stands for any text
        client: Option<String>,
        /// Only those whose client is connected
        #[arg(long, conflicts_with = "away")]
        connected: bool,
        /// Only those whose client is not
        #[arg(long)]
        away: bool,
        #[command(flatten)]
        page: Page,
    },
    /// Show all that is known of a session
    #[command(after_help = "\
Examples:
  rotamq sessions show sensor-7")]
    Show { client: String },
    /// End a session: its subscriptions and what waits in it are gone, and its client disconnected
    #[command(after_help = "\
Examples:
  rotamq sessions end sensor-7")]
    End { client: String },
}

/// What `rotamq subscriptions` is told.
#[derive(clap::Args, Clone)]
#[command(after_help = "\
Examples:
  rotamq subscriptions --client sensor-7
  rotamq subscriptions --topic room/1/temperature
  rotamq subscriptions --filter 'room/#' --json")]
pub struct SubscriptionsArguments {
    /// Only those of this client
    #[arg(long)]
    client: Option<String>,
    /// Only those with this filter
    #[arg(long)]
    filter: Option<String>,
    /// Only those that get what is published to this topic
    #[arg(long)]
    topic: Option<String>,
    #[command(flatten)]
    page: Page,
    #[command(flatten)]
    common: Common,
}

/// How much of a list.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Page {
    /// So many at most
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = count)]
    limit: Option<usize>,
}

fn count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| *count > 0);
    count.ok_or_else(|| "it is a whole number from 1 on".to_owned())
}

impl Page {
    /// Prints a list as it was asked for.
    ///
    /// # Errors
    /// As [`Api::list`].
    pub async fn print(
        self,
        api: &mut Api,
        route: &Route,
        (columns, json): (&[Column<'_>], bool),
    ) -> Outcome {
        let listed = api.list(route, self.limit).await?;
        say(json, &listed, || in_words(&listed, columns))
    }
}

fn in_words(listed: &Listed, columns: &[Column<'_>]) -> String {
    // They come in no order that means anything.
    let mut items = listed.items.clone();
    let (_, first) = columns[0];
    items.sort_by(|one, other| one[first].as_str().cmp(&other[first].as_str()));
    let mut text = answer::list(&items, columns);
    if listed.next.is_some() {
        text += "There are more: ask for them with a higher --limit, or without.\n";
    }
    text
}

/// Prints all of something.
async fn show(api: &mut Api, route: &Route, json: bool) -> Outcome {
    let shown: Value = api.get(route).await?;
    say(json, &shown, || answer::object(&shown, &FIRST))
}

/// Looks at clients, or disconnects one.
///
/// # Errors
/// The broker cannot be reached, or does not do what is asked for.
pub fn run(arguments: ClientsArguments) -> Outcome {
    let json = arguments.common.json;
    arguments.common.run(async |api| match arguments.command {
        ClientsCommand::List {
            client,
            user,
            address,
            listener,
            page,
        } => {
            let route = Route::to(&["clients"]).maybe("client", client);
            let route = route.maybe("user", user).maybe("address", address);
            let route = route.maybe("listener", listener);
            page.print(api, &route, (&CLIENTS, json)).await
        }
        ClientsCommand::Show { client } => show(api, &Route::to(&["clients", &client]), json).await,
        ClientsCommand::Disconnect { client, reason } => {
            let route = Route::to(&["clients", &client, "disconnect"]);
            let body = json!({ "reason": reason });
            let done: Value = api.change(Method::POST, &route, Some(body)).await?;
            say(json, &done, || {
                format!("The client {client:?} is disconnected.\n")
            })
        }
    })
}

/// Looks at sessions, or ends one.
///
/// # Errors
/// As [`run`].
pub fn run_sessions(arguments: SessionsArguments) -> Outcome {
    let json = arguments.common.json;
    arguments.common.run(async |api| match arguments.command {
        SessionsCommand::List {
            client,
            connected,
            away,
            page,
        } => {
            let which = (connected || away).then_some(connected);
            let route = Route::to(&["sessions"]).maybe("client", client);
            let route = route.maybe("connected", which);
            page.print(api, &route, (&SESSIONS, json)).await
        }
        SessionsCommand::Show { client } => {
            show(api, &Route::to(&["sessions", &client]), json).await
        }
        SessionsCommand::End { client } => {
            let route = Route::to(&["sessions", &client]);
            let done: Value = api.change(Method::DELETE, &route, None).await?;
            say(json, &done, || {
                format!("The session of {client:?} has ended.\n")
            })
        }
    })
}

/// Looks at subscriptions.
///
/// # Errors
/// As [`run`].
pub fn run_subscriptions(arguments: SubscriptionsArguments) -> Outcome {
    let SubscriptionsArguments {
        client,
        filter,
        topic,
        page,
        common,
    } = arguments;
    common.run(async |api| {
        let route = Route::to(&["subscriptions"]).maybe("client", client);
        let route = route.maybe("filter", filter).maybe("topic", topic);
        page.print(api, &route, (&SUBSCRIPTIONS, common.json)).await
    })
}
