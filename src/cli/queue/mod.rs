//! `rotamq queue`: looks at the queues of a running broker, and steers them.
//!
//! Owns the arguments and what is printed. What is asked goes over HTTP or over
//! MQTT, and is the same.

mod mqtt;
mod show;
mod way;

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Map, Value, json};

use self::mqtt::Asking;
use self::way::Way;
use super::arguments::{self, ConnectArguments};
use super::http::{Api, HttpArguments};
use super::progress::Progress;
use super::{Failure, Kind, Outcome, client, goes_on, http, refreshed, say};
use crate::broker::steer::{
    Deleted, Given, Moved, MovedTo, Paused, Peeked, Purged, QueueView, Queues, Request, Shown,
    Tailed, Traced,
};
use crate::protocol::PacketType;

/// What `-D` gives properties to.
const PACKETS: [PacketType; 3] = [
    PacketType::Connect,
    PacketType::Will,
    PacketType::Disconnect,
];
/// Messages that one request purges or moves.
const PAGE_MAX: usize = 1000;
/// Between two looks at what is not stored yet, and how many of them.
const STORED_POLL: Duration = Duration::from_millis(50);
const STORED_POLLS_MAX: usize = 200;
/// Between two looks at what happens.
const TAIL_POLL: Duration = Duration::from_millis(500);

/// What `rotamq queue` is told.
#[derive(clap::Args, Clone)]
pub struct QueueArguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone)]
enum Command {
    /// List queues, with what is in them
    #[command(
        disable_help_flag = true,
        visible_alias = "list",
        after_help = "\
Examples:
  rotamq queue ls
  rotamq queue ls 'orders*' --watch
  rotamq queue ls --http https://mq.example.org --token-file token --json
  rotamq queue ls -h 10.0.0.7 -u ann --password-file password"
    )]
    Ls {
        /// Only those with this in their names; * stands for any text
        name: Option<String>,
        /// Refresh the list until told to stop
        #[arg(short, long)]
        watch: bool,
        /// How often
        #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = arguments::seconds)]
        interval: Duration,
        #[command(flatten)]
        common: Common,
    },
    /// Show all that is known of a queue: its members, settings, numbers
    #[command(
        disable_help_flag = true,
        after_help = "\
Examples:
  rotamq queue show orders
  rotamq queue show orders --all --json"
    )]
    Show {
        queue: String,
        /// Also the settings that are as in the configuration's [queues]
        #[arg(short, long)]
        all: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Make a queue that stays, with settings of its own
    #[command(
        disable_help_flag = true,
        after_help = "\
Examples:
  rotamq queue create orders prefetch=1 'filters=[\"orders/#\"]'"
    )]
    Create {
        queue: String,
        /// Keys of a [[queue]] table, as in prefetch=1 or filters='["orders/#"]'
        #[arg(value_name = "KEY=VALUE", value_parser = setting)]
        settings: Vec<(String, Value)>,
        #[command(flatten)]
        common: Common,
    },
    /// Change settings of a queue
    #[command(
        disable_help_flag = true,
        after_help = "\
Examples:
  rotamq queue set orders prefetch=5 overflow=drop-oldest
  rotamq queue set orders prefetch=null"
    )]
    Set {
        queue: String,
        /// Keys of a [[queue]] table; KEY=null: as in the configuration
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = setting)]
        settings: Vec<(String, Value)>,
        #[command(flatten)]
        common: Common,
    },
    /// Delete a queue
    #[command(
        disable_help_flag = true,
        after_help = "\
Examples:
  rotamq queue delete orders
  rotamq queue delete orders --force"
    )]
    Delete {
        queue: String,
        /// With the messages in it; its members are disconnected
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Look at the first messages of a queue, which stay there
    #[command(
        disable_help_flag = true,
        after_help = "\
Examples:
  rotamq queue peek orders
  rotamq queue peek '$dead/orders' -n 100 --payload 0 --json"
    )]
    Peek {
        queue: String,
        #[arg(short = 'n', long, default_value_t = 10)]
        count: usize,
        /// Also those that members have
        #[arg(long)]
        in_flight: bool,
        /// Bytes of each payload that are shown
        #[arg(long, value_name = "BYTES", default_value_t = 1024)]
        payload: usize,
        #[command(flatten)]
        common: Common,
    },
    /// Delete the messages of a queue that no member has
    #[command(
        disable_help_flag = true,
        after_help = "\
Examples:
  rotamq queue purge orders
  rotamq queue purge orders -n 1000"
    )]
    Purge {
        queue: String,
        /// The first ones only
        #[arg(short = 'n', long)]
        count: Option<usize>,
        #[command(flatten)]
        common: Common,
    },
    /// Let members get nothing more from a queue
    #[command(
        disable_help_flag = true,
        after_help = "\
Examples:
  rotamq queue pause orders"
    )]
    Pause {
        queue: String,
        #[command(flatten)]
        common: Common,
    },
    /// Let them get messages again
    #[command(
        disable_help_flag = true,
        after_help = "\
Examples:
  rotamq queue resume orders"
    )]
    Resume {
        queue: String,
        #[command(flatten)]
        common: Common,
    },
    /// Move messages that no member has to another queue
    #[command(
        disable_help_flag = true,
        after_help = "\
Examples:
  rotamq queue move orders archive
  rotamq queue move orders archive -m 1f -m 20
  rotamq queue move orders archive --rate 100"
    )]
    Move {
        from: String,
        to: String,
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        common: Common,
    },
    /// Move dead letters of a queue back to it, or to another
    #[command(
        disable_help_flag = true,
        after_help = "\
Examples:
  rotamq queue redrive orders
  rotamq queue redrive orders --to retry -n 10"
    )]
    Redrive {
        queue: String,
        /// To this queue
        #[arg(long, value_name = "QUEUE")]
        to: Option<String>,
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        common: Common,
    },
    /// Tell what happened last in a queue
    #[command(
        disable_help_flag = true,
        after_help = "\
Examples:
  rotamq queue tail orders --follow
  rotamq queue tail orders -n 100 --json"
    )]
    Tail {
        queue: String,
        #[arg(short = 'n', long, default_value_t = 10)]
        count: usize,
        /// And what happens from now on
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Tell what happened to a message
    #[command(
        disable_help_flag = true,
        after_help = "\
Examples:
  rotamq queue trace orders 1f"
    )]
    Trace {
        queue: String,
        /// As `peek` shows it, and the user property message-id
        message_id: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(clap::Args, Clone)]
struct Common {
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten, next_help_heading = "Over HTTP")]
    http: HttpArguments,
    #[command(flatten, next_help_heading = "Over MQTT")]
    connect: ConnectArguments,
}

/// Which messages are moved.
#[derive(clap::Args, Clone)]
#[group(multiple = false)]
struct What {
    /// The first ones only
    #[arg(short = 'n', long)]
    count: Option<usize>,
    /// The message with this id; may be given many times
    #[arg(short, long, value_name = "ID")]
    message: Vec<String>,
    /// So many a second, by the broker itself; 0: no more of them
    #[arg(long, value_name = "PER-SECOND")]
    rate: Option<u32>,
}

/// Parses `KEY=VALUE`: the value is JSON, or a text.
fn setting(text: &str) -> Result<(String, Value), String> {
    let (key, value) = (text.split_once('=')).ok_or("it is KEY=VALUE, as in prefetch=1")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok((key.to_owned(), value))
}

/// Asks the broker, and prints what it says: over MQTT, where an argument says
/// so, else over HTTP; and over MQTT where no broker is found by its folder.
///
/// # Errors
/// The broker cannot be reached, or does not do what is asked for.
pub fn run(arguments: QueueArguments) -> Outcome {
    let command = arguments.command;
    let Common { http, connect, .. } = command.common().clone();
    match (connect.is_given(), http.says_where()) {
        (true, true) => {
            let text = "say where the broker is over MQTT or over HTTP, not both";
            return Err(Failure::of(Kind::Usage, text));
        }
        (true, false) => return over_mqtt(command, &connect),
        (false, _) => {}
    }
    match Api::find(&http, &connect.tls) {
        Ok(api) => http::run(api, async |api| command.run(&mut Way::Http(api)).await),
        Err(failure) if http.is_given() => Err(failure),
        // Nobody has said where it is: perhaps at the usual port.
        Err(not_here) => over_mqtt(command, &connect).map_err(|failure| match failure.kind() {
            Kind::Unavailable => failure.and(not_here.text()),
            _ => failure,
        }),
    }
}

fn over_mqtt(command: Command, connect: &ConnectArguments) -> Outcome {
    let properties = connect.properties(&PACKETS)?;
    client::run(connect, &properties, async |client| {
        let asking = Asking::begin(client).await?;
        command.run(&mut Way::Mqtt(asking)).await
    })
}

impl Command {
    fn common(&self) -> &Common {
        match self {
            Command::Ls { common, .. }
            | Command::Show { common, .. }
            | Command::Create { common, .. }
            | Command::Set { common, .. }
            | Command::Delete { common, .. }
            | Command::Peek { common, .. }
            | Command::Purge { common, .. }
            | Command::Pause { common, .. }
            | Command::Resume { common, .. }
            | Command::Move { common, .. }
            | Command::Redrive { common, .. }
            | Command::Tail { common, .. }
            | Command::Trace { common, .. } => common,
        }
    }

    async fn run(self, way: &mut Way<'_>) -> Outcome {
        let json = self.common().json;
        match self {
            Command::Ls {
                name,
                watch,
                interval,
                ..
            } => list(way, name, watch.then_some(interval), json).await,
            Command::Show { queue, all, .. } => {
                let shown: Shown = way.ask(&Request::Show { queue }).await?;
                say(json, &shown, || show::queue(&shown, all))
            }
            Command::Create {
                queue, settings, ..
            } => {
                let settings = settings.into_iter().collect();
                let given: Given = way.ask(&Request::Create { queue, settings }).await?;
                say(json, &given, || {
                    format!("The queue {:?} is made.\n", given.queue)
                })
            }
            Command::Set {
                queue, settings, ..
            } => {
                let settings: Map<String, Value> = settings.into_iter().collect();
                let given: Given = way.ask(&Request::Set { queue, settings }).await?;
                say(json, &given, || show::given(&given))
            }
            Command::Delete { queue, force, .. } => {
                let deleted: Deleted = way.ask(&Request::Delete { queue, force }).await?;
                say(json, &deleted, || {
                    format!(
                        "The queue {:?} is deleted, with {} messages; {} members were disconnected.\n",
                        deleted.deleted, deleted.messages, deleted.members
                    )
                })
            }
            Command::Peek {
                queue,
                count,
                in_flight,
                payload,
                ..
            } => {
                let request = Request::Peek {
                    queue,
                    count: Some(count),
                    in_flight,
                    payload_bytes_max: Some(payload),
                };
                let peeked: Peeked = way.ask(&request).await?;
                say(json, &peeked, || show::messages(&peeked))
            }
            Command::Purge { queue, count, .. } => {
                let purged = purge(way, queue, count).await?;
                say(json, &purged, || {
                    format!(
                        "{} messages are deleted from the queue {:?}; {} are left that no member has.\n",
                        purged.purged, purged.queue, purged.left
                    )
                })
            }
            Command::Pause { queue, .. } => {
                let paused: Paused = way.ask(&Request::Pause { queue }).await?;
                say(json, &paused, || {
                    format!("The queue {:?} gives out nothing more.\n", paused.queue)
                })
            }
            Command::Resume { queue, .. } => {
                let paused: Paused = way.ask(&Request::Resume { queue }).await?;
                say(json, &paused, || {
                    format!("The queue {:?} gives out messages.\n", paused.queue)
                })
            }
            Command::Move { from, to, what, .. } => {
                let request = |what| Request::Move {
                    queue: from.clone(),
                    to: to.clone(),
                    what,
                };
                moved(way, what, request, json).await
            }
            Command::Redrive {
                queue, to, what, ..
            } => {
                let request = |what| Request::Redrive {
                    queue: queue.clone(),
                    to: to.clone(),
                    what,
                };
                moved(way, what, request, json).await
            }
            Command::Tail {
                queue,
                count,
                follow,
                ..
            } => tail(way, queue, count, follow, json).await,
            Command::Trace {
                queue, message_id, ..
            } => {
                let message = message_id;
                let traced: Traced = way.ask(&Request::Trace { queue, message }).await?;
                say(json, &traced, || match traced.events.is_empty() {
                    true => format!(
                        "Nothing is known of the message {} in the queue {:?}: it never was there, \
                         or it was long ago.\n",
                        traced.message, traced.queue
                    ),
                    false => show::events(&traced.events, false),
                })
            }
        }
    }
}

async fn list(
    way: &mut Way<'_>,
    name: Option<String>,
    watch: Option<Duration>,
    json: bool,
) -> Outcome {
    loop {
        let queues = all_queues(way, name.as_deref()).await?;
        // As the API has it.
        let listed = || json!({ "items": queues, "next": null });
        let Some(interval) = watch else {
            return say(json, &listed(), || show::queues(&queues));
        };
        let text = match json {
            // One line each time.
            true => format!("{}\n", listed()),
            false => refreshed(&show::queues(&queues)),
        };
        if !goes_on(&text)? {
            return Ok(ExitCode::SUCCESS);
        }
        way.rest(interval).await?;
    }
}

async fn all_queues(way: &mut Way<'_>, name: Option<&str>) -> Result<Vec<QueueView>, Failure> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let request = Request::List {
            name: name.map(str::to_owned),
            after: after.take(),
            limit: Some(PAGE_MAX),
        };
        let page: Queues = way.ask(&request).await?;
        all.extend(page.queues);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(all),
        }
    }
}

/// Page by page: what is there when it begins.
async fn purge(way: &mut Way<'_>, queue: String, count: Option<usize>) -> Result<Purged, Failure> {
    let mut whole = Whole::new("deleting", count);
    loop {
        let request = Request::Purge {
            queue: queue.clone(),
            count: Some(whole.page()),
        };
        let page: Purged = way.ask(&request).await?;
        if !whole.goes_on(way, page.purged, page.left).await? {
            return Ok(Purged {
                purged: whole.done,
                ..page
            });
        }
    }
}

async fn moved(
    way: &mut Way<'_>,
    what: What,
    request: impl Fn(Moved) -> Request,
    json: bool,
) -> Outcome {
    let answer = match (&what.message[..], what.rate) {
        ([], None) => {
            let mut whole = Whole::new("moving", what.count);
            loop {
                let page = Moved {
                    count: Some(whole.page()),
                    ..Moved::default()
                };
                let page: MovedTo = way.ask(&request(page)).await?;
                if !whole.goes_on(way, page.moved, page.left).await? {
                    break MovedTo {
                        moved: whole.done,
                        ..page
                    };
                }
            }
        }
        ([], rate) => {
            let rate = Moved {
                rate,
                ..Moved::default()
            };
            way.ask(&request(rate)).await?
        }
        (ids, _) => {
            let mut all: Option<MovedTo> = None;
            for ids in ids.chunks(PAGE_MAX) {
                let page = Moved {
                    ids: Some(ids.to_vec()),
                    ..Moved::default()
                };
                let mut page: MovedTo = way.ask(&request(page)).await?;
                if let Some(before) = all {
                    page.moved += before.moved;
                    page.not_found.extend(before.not_found);
                }
                all = Some(page);
            }
            all.ok_or_else(|| Failure::new("no message is named"))?
        }
    };
    let missing = answer.not_found.len();
    say(json, &answer, || show::moved(&answer))?;
    Ok(match missing {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// A large piece of work, done in pages.
struct Whole {
    /// `None`: as many as there are at the beginning.
    count: Option<usize>,
    done: usize,
    polls: usize,
    progress: Progress,
}

impl Whole {
    fn new(what: &str, count: Option<usize>) -> Whole {
        Whole {
            count,
            done: 0,
            polls: 0,
            progress: Progress::of_many(what),
        }
    }

    fn page(&self) -> usize {
        let left = self.count.map_or(PAGE_MAX, |count| count - self.done);
        left.min(PAGE_MAX)
    }

    /// Whether there is another page to be done.
    async fn goes_on(
        &mut self,
        way: &mut Way<'_>,
        done: usize,
        left: usize,
    ) -> Result<bool, Failure> {
        self.done += done;
        let count = *self.count.get_or_insert(self.done + left);
        self.progress.expect(count.min(self.done + left) as u64);
        self.progress.set(self.done as u64);
        if left == 0 || self.done >= count {
            return Ok(false);
        }
        if done == 0 {
            // What was put in last is about to be stored, and comes then.
            self.polls += 1;
            way.rest(STORED_POLL).await?;
        }
        Ok(self.polls < STORED_POLLS_MAX)
    }
}

async fn tail(way: &mut Way<'_>, queue: String, count: usize, follow: bool, json: bool) -> Outcome {
    let mut after = None;
    loop {
        let request = Request::Tail {
            queue: queue.clone(),
            after,
            count: Some(after.map_or(count, |_| PAGE_MAX)),
        };
        let tailed: Tailed = way.ask(&request).await?;
        if !follow {
            return say(json, &tailed, || show::events(&tailed.events, true));
        }
        let mut text = String::new();
        if tailed.missed > 0 {
            let missed = tailed.missed;
            client::warn(&format!("{missed} events came too fast to be told"));
        }
        for event in &tailed.events {
            text += &match json {
                true => format!("{}\n", serde_json::to_string(event)?),
                false => show::event_line(event),
            };
        }
        if !text.is_empty() && !goes_on(&text)? {
            return Ok(ExitCode::SUCCESS);
        }
        // The broker, or the queue, has begun anew.
        let has_restarted = after.is_some_and(|after| tailed.next < after);
        after = Some(if has_restarted { 0 } else { tailed.next });
        if tailed.events.len() < PAGE_MAX {
            way.rest(TAIL_POLL).await?;
        }
    }
}
