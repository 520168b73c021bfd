//! `rotamq pub`: publishes messages, or puts them into queues.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use tokio::select;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::arguments::{self, ConnectArguments};
use super::client::{self, Client, Sender};
use super::property::{self, GivenProperties};
use super::{Failure, Outcome, describe, goes_on};
use crate::message::{PacketId, Qos};
use crate::protocol::{Ack, Packet, PacketType, Properties, Property, Publish, ReasonCode};

/// Messages sent and not yet acknowledged.
const WINDOW: usize = 20;

/// What `-D` gives properties to: all that is sent.
const PACKETS: [PacketType; 5] = [
    PacketType::Connect,
    PacketType::Will,
    PacketType::Publish,
    PacketType::Pubrel,
    PacketType::Disconnect,
];

/// What `rotamq pub` is told.
#[derive(clap::Args, Clone)]
#[command(disable_help_flag = true, after_help = help())]
#[group(id = "publish")]
pub struct PublishArguments {
    #[command(flatten)]
    connect: ConnectArguments,
    /// The topic; $queue/NAME puts into the queue NAME
    #[arg(short, long, value_parser = arguments::topic_name)]
    topic: String,
    #[command(flatten)]
    source: SourceArguments,
    /// The quality of service: 0, 1 or 2
    #[arg(short, long, default_value = "0", value_parser = arguments::qos)]
    qos: Qos,
    /// Retain the message on the broker
    #[arg(short, long)]
    retain: bool,
    /// Publish the message so many times
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 1,
        conflicts_with = "stdin_line"
    )]
    repeat: u64,
    /// Wait so long after each time
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = arguments::seconds)]
    repeat_delay: Duration,
    /// Print an object for each message when its outcome is known: qos, reason_code and reason,
    /// null at QoS 0, which is not answered; and message_id, if a queue has it
    #[arg(long)]
    json: bool,
}

fn help() -> String {
    let properties = property::help(&PACKETS);
    format!(
        "{properties}
With publish topic-alias the topic is sent once, and then the alias alone.

Examples:
  rotamq pub -t room/1/temperature -m 21.5
  rotamq pub -t '$queue/jobs' -q 1 -l < jobs.txt
  rotamq pub -t room/1 -m 21.5 -q 1 -D publish content-type text/plain"
    )
}

/// Where messages come from.
#[derive(clap::Args, Clone, Debug)]
#[group(id = "source", required = true, multiple = false)]
struct SourceArguments {
    /// Publish this message
    #[arg(short, long, allow_hyphen_values = true)]
    message: Option<OsString>,
    /// Publish the content of this file
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// Publish each line of standard input
    #[arg(short = 'l', long)]
    stdin_line: bool,
    /// Publish an empty message
    #[arg(short, long)]
    null_message: bool,
    /// Publish all of standard input as one message
    #[arg(short, long)]
    stdin_file: bool,
}

/// Publishes, and waits until all of it is acknowledged, at QoS 1 and 2.
///
/// # Errors
/// The connection failed, or the broker refused a message.
pub fn run(arguments: PublishArguments) -> Outcome {
    let properties = arguments.connect.properties(&PACKETS)?;
    let source = Source::open(&arguments)?;
    client::run(&arguments.connect, &properties, async |client| {
        let mut publishing = Publishing {
            topic: &arguments.topic,
            properties: &properties,
            qos: arguments.qos,
            retain: arguments.retain,
            source,
            unacknowledged: BTreeSet::new(),
            refused: 0,
            why: String::new(),
            json: arguments.json,
            message_ids: BTreeMap::new(),
        };
        publishing.run(client).await
    })
}

/// What is still to be published.
enum Source {
    Once {
        payload: Vec<u8>,
        left: u64,
        delay: Duration,
        due: Instant,
    },
    Lines(mpsc::Receiver<io::Result<Vec<u8>>>),
    Ended,
}

impl Source {
    fn open(arguments: &PublishArguments) -> Result<Source, Failure> {
        let from = &arguments.source;
        let payload = if let Some(message) = &from.message {
            message.clone().into_encoded_bytes()
        } else if let Some(path) = &from.file {
            client::read_payload(client::open(path)?, &path.display().to_string())?
        } else if from.stdin_file {
            client::read_payload(io::stdin().lock(), "standard input")?
        } else if from.stdin_line {
            return Ok(Source::Lines(client::stdin_lines()));
        } else {
            Vec::new()
        };
        Ok(Source::Once {
            payload,
            left: arguments.repeat,
            delay: arguments.repeat_delay,
            due: Instant::now(),
        })
    }

    /// Waits for the next message; `None`: there is none. None is lost when
    /// it is not waited for.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let next = match self {
            Source::Once { left: 0, .. } | Source::Ended => None,
            Source::Once {
                payload, left, due, ..
            } => {
                sleep_until(*due).await;
                *left -= 1;
                Some(if *left == 0 {
                    std::mem::take(payload)
                } else {
                    payload.clone()
                })
            }
            Source::Lines(lines) => match lines.recv().await {
                Some(Ok(line)) => Some(line),
                Some(Err(error)) => {
                    let text = format!("cannot read standard input: {error}");
                    return Err(Failure::new(text));
                }
                None => None,
            },
        };
        if next.is_none() {
            *self = Source::Ended;
        }
        Ok(next)
    }

    /// A message is published, and acknowledged if it is to be.
    fn delivered(&mut self) {
        if let Source::Once { delay, due, .. } = self {
            *due = Instant::now() + *delay;
        }
    }

    /// How many may be sent and not yet acknowledged.
    fn window(&self) -> usize {
        match self {
            Source::Once { .. } => 1,
            Source::Lines(_) => WINDOW,
            Source::Ended => 0,
        }
    }
}

/// Under which id a queue has it, as its acknowledgement tells.
fn message_id(properties: Properties<'_>) -> Option<String> {
    properties.iter().find_map(|property| match property {
        Property::UserProperty(("message-id", id)) => Some(id.to_owned()),
        _ => None,
    })
}

/// The state of a run.
struct Publishing<'a> {
    /// Empty once an alias stands for it (3.3.2.3.4).
    topic: &'a str,
    properties: &'a GivenProperties,
    qos: Qos,
    retain: bool,
    source: Source,
    unacknowledged: BTreeSet<PacketId>,
    /// How many messages the broker refused.
    refused: u64,
    /// Why it refused the last of them.
    why: String,
    /// Whether outcomes are printed.
    json: bool,
    /// Under which ids queues have what was received and is not complete yet.
    message_ids: BTreeMap<PacketId, String>,
}

impl Publishing<'_> {
    async fn run(&mut self, client: &mut Client) -> Outcome {
        let Client { receiver, sender } = client;
        let receive_max = usize::from(sender.limits.receive_max); // [MQTT-3.3.4-7]
        loop {
            while let Some(packet) = receiver.packet()? {
                self.handle(&packet, sender)?;
            }
            sender.flush().await?;
            if matches!(self.source, Source::Ended) && self.unacknowledged.is_empty() {
                let why = &self.why;
                return match self.refused {
                    0 => Ok(ExitCode::SUCCESS),
                    1 => Err(Failure::new(format!("the broker refused a message: {why}"))),
                    count => Err(Failure::new(format!(
                        "the broker refused {count} messages, the last of them: {why}"
                    ))),
                };
            }
            let window = self.source.window().min(receive_max);
            select! {
                filled = receiver.fill() => filled.map_err(|error| self.lost(error))?,
                idle = sender.keep_alive() => idle.map_err(|error| self.lost(error))?,
                payload = self.source.next(), if self.unacknowledged.len() < window => {
                    if let Some(payload) = payload? {
                        self.publish(&payload, sender)?;
                    }
                }
            }
        }
    }

    fn publish(&mut self, payload: &[u8], sender: &mut Sender) -> Result<(), Failure> {
        let properties = self.properties.of(PacketType::Publish);
        let packet_id = sender.publish(Publish {
            dup: false,
            qos: self.qos,
            retain: self.retain,
            topic: self.topic,
            packet_id: None,
            properties,
            payload,
        })?;
        match packet_id {
            Some(packet_id) => _ = self.unacknowledged.insert(packet_id),
            None => {
                self.source.delivered();
                self.print(None, None)?;
            }
        }
        let aliased = |property| matches!(property, Property::TopicAlias(_));
        if properties.iter().any(aliased) {
            self.topic = "";
        }
        Ok(())
    }

    fn handle(&mut self, packet: &Packet<'_>, sender: &mut Sender) -> Result<(), Failure> {
        match packet {
            Packet::Pubrec(ack) if !ack.reason.is_failure() => {
                if let Some(id) = message_id(ack.properties) {
                    self.message_ids.insert(ack.packet_id, id);
                }
                // [MQTT-4.3.3-1]
                sender.send(&Packet::Pubrel(Ack {
                    properties: self.properties.of(PacketType::Pubrel),
                    ..Ack::new(ack.packet_id)
                }))?;
            }
            Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubcomp(ack)
                if self.unacknowledged.remove(&ack.packet_id) =>
            {
                self.source.delivered();
                if ack.reason.is_failure() {
                    self.refused += 1;
                    self.why = describe::why(ack.reason, ack.properties);
                }
                let received = self.message_ids.remove(&ack.packet_id);
                let id = message_id(ack.properties).or(received);
                self.print(Some(ack.reason), id)?;
            }
            Packet::Pingresp => sender.pinged_back(),
            // A message for a session that is resumed here waits, not being
            // acknowledged, for a subscriber.
            _ => {}
        }
        Ok(())
    }

    /// What has come of a message; `None`: nobody says.
    fn print(&self, reason: Option<ReasonCode>, id: Option<String>) -> Result<(), Failure> {
        if !self.json {
            return Ok(());
        }
        let mut outcome = json!({
            "qos": self.qos as u8,
            "reason_code": reason.map(|reason| reason as u8),
            "reason": reason.map(ReasonCode::word),
        });
        if let Some(id) = id {
            outcome["message_id"] = id.into();
        }
        // Nobody may read it any more: it is published all the same.
        goes_on(&format!("{outcome}\n")).map(drop)
    }

    fn lost(&self, failure: Failure) -> Failure {
        match self.unacknowledged.len() {
            0 => failure,
            1 => failure.and("a message is not acknowledged"),
            count => failure.and(&format!("{count} messages are not acknowledged")),
        }
    }
}
