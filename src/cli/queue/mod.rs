//! `rotamq queue`: looks at the queues of a running broker, and steers them.
//!
//! Owns the arguments and what is printed. What is asked goes over MQTT, from
//! this machine or, by a tunnel, from another one.

mod ask;
mod show;
mod table;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;
use serde_json::{Map, Value};

use self::ask::Asking;
use super::arguments::{self, ConnectArguments};
use super::client;
use super::{Failure, Outcome, print};
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
    #[command(disable_help_flag = true)]
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
    #[command(disable_help_flag = true)]
    Show {
        queue: String,
        /// Also the settings that are as in the configuration's [queues]
        #[arg(short, long)]
        all: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Make a queue that stays, with settings of its own
    #[command(disable_help_flag = true)]
    Create {
        queue: String,
        /// Keys of a [[queue]] table, as in prefetch=1 or filters='["orders/#"]'
        #[arg(value_name = "KEY=VALUE", value_parser = setting)]
        settings: Vec<(String, Value)>,
        #[command(flatten)]
        common: Common,
    },
    /// Change settings of a queue
    #[command(disable_help_flag = true)]
    Set {
        queue: String,
        /// Keys of a [[queue]] table; KEY=null: as in the configuration
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = setting)]
        settings: Vec<(String, Value)>,
        #[command(flatten)]
        common: Common,
    },
    /// Delete a queue
    #[command(disable_help_flag = true)]
    Delete {
        queue: String,
        /// With the messages in it; its members are disconnected
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Look at the first messages of a queue, which stay there
    #[command(disable_help_flag = true)]
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
    #[command(disable_help_flag = true)]
    Purge {
        queue: String,
        /// The first ones only
        #[arg(short = 'n', long)]
        count: Option<usize>,
        #[command(flatten)]
        common: Common,
    },
    /// Let members get nothing more from a queue
    #[command(disable_help_flag = true)]
    Pause {
        queue: String,
        #[command(flatten)]
        common: Common,
    },
    /// Let them get messages again
    #[command(disable_help_flag = true)]
    Resume {
        queue: String,
        #[command(flatten)]
        common: Common,
    },
    /// Move messages that no member has to another queue
    #[command(disable_help_flag = true)]
    Move {
        from: String,
        to: String,
        #[command(flatten)]
        what: What,
        #[command(flatten)]
        common: Common,
    },
    /// Move dead letters of a queue back to it, or to another
    #[command(disable_help_flag = true)]
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
    #[command(disable_help_flag = true)]
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
    #[command(disable_help_flag = true)]
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
    #[command(flatten)]
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

/// Asks the broker, and prints what it says.
///
/// # Errors
/// The broker cannot be reached, or does not do what is asked for.
pub fn run(arguments: QueueArguments) -> Outcome {
    let common = arguments.command.common().clone();
    let properties = common.connect.properties(&PACKETS)?;
    client::run(&common.connect, &properties, async |client| {
        let mut asking = Asking::begin(client).await?;
        arguments.command.run(&mut asking, common.json).await
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

    async fn run(self, asking: &mut Asking<'_>, json: bool) -> Outcome {
        match self {
            Command::Ls {
                name,
                watch,
                interval,
                ..
            } => list(asking, name, watch.then_some(interval), json).await,
            Command::Show { queue, all, .. } => {
                let shown: Shown = asking.ask(&Request::Show { queue }).await?;
                say(json, &shown, || show::queue(&shown, all))
            }
            Command::Create {
                queue, settings, ..
            } => {
                let settings = settings.into_iter().collect();
                let given: Given = asking.ask(&Request::Create { queue, settings }).await?;
                say(json, &given, || {
                    format!("The queue {:?} is made.\n", given.queue)
                })
            }
            Command::Set {
                queue, settings, ..
            } => {
                let settings: Map<String, Value> = settings.into_iter().collect();
                let given: Given = asking.ask(&Request::Set { queue, settings }).await?;
                say(json, &given, || show::given(&given))
            }
            Command::Delete { queue, force, .. } => {
                let deleted: Deleted = asking.ask(&Request::Delete { queue, force }).await?;
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
                let peeked: Peeked = asking.ask(&request).await?;
                say(json, &peeked, || show::messages(&peeked))
            }
            Command::Purge { queue, count, .. } => {
                let purged = purge(asking, queue, count).await?;
                say(json, &purged, || {
                    format!(
                        "{} messages are deleted from the queue {:?}; {} are left that no member has.\n",
                        purged.purged, purged.queue, purged.left
                    )
                })
            }
            Command::Pause { queue, .. } => {
                let paused: Paused = asking.ask(&Request::Pause { queue }).await?;
                say(json, &paused, || {
                    format!("The queue {:?} gives out nothing more.\n", paused.queue)
                })
            }
            Command::Resume { queue, .. } => {
                let paused: Paused = asking.ask(&Request::Resume { queue }).await?;
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
                moved(asking, what, request, json).await
            }
            Command::Redrive {
                queue, to, what, ..
            } => {
                let request = |what| Request::Redrive {
                    queue: queue.clone(),
                    to: to.clone(),
                    what,
                };
                moved(asking, what, request, json).await
            }
            Command::Tail {
                queue,
                count,
                follow,
                ..
            } => tail(asking, queue, count, follow, json).await,
            Command::Trace {
                queue, message_id, ..
            } => {
                let message = message_id;
                let traced: Traced = asking.ask(&Request::Trace { queue, message }).await?;
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

/// Prints an answer: as JSON, or in words.
fn say(json: bool, answer: &impl Serialize, words: impl FnOnce() -> String) -> Outcome {
    match json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(answer)?)),
        false => print(&words()),
    }
}

/// Prints, and tells whether anybody reads it.
fn goes_on(text: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            let text = format!("cannot write to standard output: {error}");
            Err(Failure::new(text))
        }
    }
}

async fn list(
    asking: &mut Asking<'_>,
    name: Option<String>,
    watch: Option<Duration>,
    json: bool,
) -> Outcome {
    loop {
        let queues = all_queues(asking, name.as_deref()).await?;
        let Some(interval) = watch else {
            return say(json, &queues, || show::queues(&queues));
        };
        let text = match json {
            // One line each time.
            true => format!("{}\n", serde_json::to_string(&queues)?),
            false if io::stdout().is_terminal() => {
                // Home, and clear: as top does.
                format!("\x1b[H\x1b[2J{}", show::queues(&queues))
            }
            false => format!("{}\n", show::queues(&queues)),
        };
        if !goes_on(&text)? {
            return Ok(ExitCode::SUCCESS);
        }
        asking.rest(interval).await?;
    }
}

async fn all_queues(
    asking: &mut Asking<'_>,
    name: Option<&str>,
) -> Result<Vec<QueueView>, Failure> {
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let request = Request::List {
            name: name.map(str::to_owned),
            after: after.take(),
            limit: Some(PAGE_MAX),
        };
        let page: Queues = asking.ask(&request).await?;
        all.extend(page.queues);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(all),
        }
    }
}

/// Page by page: what is there when it begins.
async fn purge(
    asking: &mut Asking<'_>,
    queue: String,
    count: Option<usize>,
) -> Result<Purged, Failure> {
    let mut whole = Whole::new(count);
    loop {
        let request = Request::Purge {
            queue: queue.clone(),
            count: Some(whole.page()),
        };
        let page: Purged = asking.ask(&request).await?;
        if !whole.goes_on(asking, page.purged, page.left).await? {
            return Ok(Purged {
                purged: whole.done,
                ..page
            });
        }
    }
}

async fn moved(
    asking: &mut Asking<'_>,
    what: What,
    request: impl Fn(Moved) -> Request,
    json: bool,
) -> Outcome {
    let answer = match (&what.message[..], what.rate) {
        ([], None) => {
            let mut whole = Whole::new(what.count);
            loop {
                let page = Moved {
                    count: Some(whole.page()),
                    ..Moved::default()
                };
                let page: MovedTo = asking.ask(&request(page)).await?;
                if !whole.goes_on(asking, page.moved, page.left).await? {
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
            asking.ask(&request(rate)).await?
        }
        (ids, _) => {
            let mut all: Option<MovedTo> = None;
            for ids in ids.chunks(PAGE_MAX) {
                let page = Moved {
                    ids: Some(ids.to_vec()),
                    ..Moved::default()
                };
                let mut page: MovedTo = asking.ask(&request(page)).await?;
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
}

impl Whole {
    fn new(count: Option<usize>) -> Whole {
        Whole {
            count,
            done: 0,
            polls: 0,
        }
    }

    fn page(&self) -> usize {
        let left = self.count.map_or(PAGE_MAX, |count| count - self.done);
        left.min(PAGE_MAX)
    }

    /// Whether there is another page to be done.
    async fn goes_on(
        &mut self,
        asking: &mut Asking<'_>,
        done: usize,
        left: usize,
    ) -> Result<bool, Failure> {
        self.done += done;
        let count = *self.count.get_or_insert(self.done + left);
        if left == 0 || self.done >= count {
            return Ok(false);
        }
        if done == 0 {
            // What was put in last is about to be stored, and comes then.
            self.polls += 1;
            asking.rest(STORED_POLL).await?;
        }
        Ok(self.polls < STORED_POLLS_MAX)
    }
}

async fn tail(
    asking: &mut Asking<'_>,
    queue: String,
    count: usize,
    follow: bool,
    json: bool,
) -> Outcome {
    let mut after = None;
    loop {
        let request = Request::Tail {
            queue: queue.clone(),
            after,
            count: Some(after.map_or(count, |_| PAGE_MAX)),
        };
        let tailed: Tailed = asking.ask(&request).await?;
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
            asking.rest(TAIL_POLL).await?;
        }
    }
}
