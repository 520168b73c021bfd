//! `rotamq sub`: subscribes to topics, or works on queues, and prints what
//! comes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::select;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::arguments::{self, ConnectArguments};
use super::client::{self, Client, Sender};
use super::format::Format;
use super::property::{self, GivenProperties};
use super::{Failure, Outcome, describe};
use crate::broker::recording::listed;
use crate::broker::steer::shown_payload;
use crate::message::{PacketId, Qos};
use crate::protocol::{
    Ack, Packet, PacketType, Properties, Property, Publish, ReasonCode, RetainHandling, Subscribe,
    SubscribeOptions, Unsubscribe, Version,
};
use crate::topic::{TopicFilter, TopicLimits, TopicName};

/// What `-W` ends with, as mosquitto_sub does.
const TIMED_OUT: u8 = 27;

/// What `-D` gives properties to: all that is sent, but the messages to queues.
const PACKETS: [PacketType; 8] = [
    PacketType::Connect,
    PacketType::Will,
    PacketType::Subscribe,
    PacketType::Unsubscribe,
    PacketType::Puback,
    PacketType::Pubrec,
    PacketType::Pubcomp,
    PacketType::Disconnect,
];

/// What `rotamq sub` is told.
#[derive(clap::Args, Clone)]
#[command(disable_help_flag = true, after_help = help())]
#[group(id = "subscribe")]
pub struct SubscribeArguments {
    #[command(flatten)]
    connect: ConnectArguments,
    /// A topic filter, repeatable; $queue/NAME works on the queue NAME
    #[arg(
        short,
        long,
        value_name = "FILTER",
        required_unless_present = "unsubscribe"
    )]
    #[arg(value_parser = arguments::topic_filter)]
    topic: Vec<String>,
    /// The quality of service: 0, 1 or 2; if not given, 0, or 1 with --ack manual or after
    #[arg(short, long, value_parser = arguments::qos)]
    qos: Option<Qos>,
    /// When messages of QoS 1 and 2 are acknowledged: auto, manual or after:SECONDS
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = when)]
    ack: When,
    /// Print topics too
    #[arg(short, long)]
    verbose: bool,
    /// What to print of each message
    #[arg(short = 'F', value_name = "FORMAT", value_parser = Format::parse)]
    format: Option<Format>,
    /// Print an object for each message, on a line of its own: topic, payload, or payload_base64
    /// where it is no text, qos, retain, packet_id and properties
    #[arg(long, conflicts_with_all = ["format", "verbose", "no_end_of_line"])]
    json: bool,
    /// Print no end of line after each message
    #[arg(short = 'N')]
    no_end_of_line: bool,
    /// End after so many messages
    #[arg(short = 'C', value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after so long, with exit code 27
    #[arg(short = 'W', value_name = "SECONDS", value_parser = arguments::seconds)]
    timeout: Option<Duration>,
    /// End when the broker has acknowledged the subscriptions
    #[arg(short = 'E')]
    end_when_subscribed: bool,
    /// Leave out what was retained
    #[arg(short = 'R', conflicts_with = "retained_only")]
    no_retained: bool,
    /// Print only what was retained, and end with the first other message
    #[arg(long)]
    retained_only: bool,
    /// Clear, on the broker, each retained message that comes and is not left out by -T
    #[arg(long, conflicts_with = "no_retained")]
    remove_retained: bool,
    /// Leave out what this client publishes itself
    #[arg(long)]
    no_local: bool,
    /// Have live messages marked as retained too that were published so
    #[arg(long)]
    retain_as_published: bool,
    /// When retained messages are sent: always, for new subscriptions only, or never, as with -R
    #[arg(long, value_name = "WHEN", value_parser = retain_handling)]
    retain_handling: Option<RetainHandling>,
    /// Leave out messages whose topics this filter matches; repeatable
    #[arg(short = 'T', long, value_name = "FILTER", value_parser = arguments::topic_filter)]
    filter_out: Vec<String>,
    /// Unsubscribe from this filter, after subscribing; repeatable
    #[arg(short = 'U', long, value_name = "FILTER", value_parser = arguments::topic_filter)]
    unsubscribe: Vec<String>,
}

const HELP: &str = "\
Format strings (-F), as in mosquitto_sub(1):
  %t topic           %p payload           %x %X payload in hexadecimal
  %q QoS             %r retained          %l length of the payload
  %m packet id       %j %J as JSON, the payload as text or as JSON itself
  %I date and time   %U seconds since 1970   @X as %X of strftime, in UTC
  %A topic alias     %C content type      %D correlation data
  %E expiry, in s    %F payload format    %P user properties, as NAME:VALUE
  %R response topic  %S subscription identifiers    %% @@ \\\\ themselves
  \\0 \\a \\e \\n \\r \\t \\v characters
  A width may follow %, as in %-20t or %20.20t.

With --ack manual each line begins with the packet id, if no format is given,
and standard input takes a command a line:
  ack ID               the message is done
  nack ID [SECONDS]    it failed: again, perhaps elsewhere, after so long
  reject ID            it cannot ever be done
  extend ID [SECONDS]  more time for it
Seconds are whole. All but ack are for queues of RotaMQ.";

fn help() -> String {
    let properties = property::help(&PACKETS);
    format!(
        "{HELP}\n\n{properties}

Examples:
  rotamq sub -t 'room/+/temperature' -v
  rotamq sub -t '$queue/jobs' -q 1 -C 10
  rotamq sub -t room/1 -F '%t: %p (%C, %P)' -D subscribe subscription-identifier 7"
    )
}

/// When a message is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// When it is printed.
    Auto,
    /// When standard input says so.
    Manual,
    /// So long after it came.
    After(Duration),
}

fn when(text: &str) -> Result<When, String> {
    match (text, text.strip_prefix("after:")) {
        ("auto", _) => Ok(When::Auto),
        ("manual", _) => Ok(When::Manual),
        (_, Some(span)) => arguments::seconds(span).map(When::After),
        _ => Err("it is auto, manual or after:SECONDS".to_owned()),
    }
}

fn retain_handling(text: &str) -> Result<RetainHandling, String> {
    match text {
        "always" => Ok(RetainHandling::Send),
        "new" => Ok(RetainHandling::SendIfNew),
        "never" => Ok(RetainHandling::DoNotSend),
        _ => Err("it is always, new or never".to_owned()),
    }
}

/// Prints messages until it is told to stop, or has what was asked for.
///
/// # Errors
/// The connection failed, or the broker refused all subscriptions.
pub fn run(arguments: SubscribeArguments) -> Outcome {
    let properties = arguments.connect.properties(&PACKETS)?;
    let qos = match (arguments.ack, arguments.qos) {
        (When::Auto, qos) => qos.unwrap_or(Qos::AtMostOnce),
        (_, None) => Qos::AtLeastOnce,
        (_, Some(Qos::AtMostOnce)) => {
            let text = "at QoS 0 nothing is acknowledged: --ack needs -q 1 or 2";
            return Err(Failure::new(text));
        }
        (_, Some(qos)) => qos,
    };
    let options = options(&arguments, qos)?;
    let default = match (arguments.ack, arguments.verbose) {
        (When::Manual, true) => "%m %t %p",
        (When::Manual, false) => "%m %p",
        (_, true) => "%t %p",
        (_, false) => "%p",
    };
    let format = match &arguments.format {
        Some(format) => format.clone(),
        None => Format::parse(default)?,
    };
    let commands = match arguments.ack {
        When::Manual => Some(client::stdin_lines()),
        _ => None,
    };
    client::run(&arguments.connect, &properties, async |client| {
        let mut subscribing = Subscribing {
            arguments: &arguments,
            properties: &properties,
            format,
            commands,
            left: arguments.count.unwrap_or(u64::MAX),
            ended: false,
            held: BTreeMap::new(),
            due: VecDeque::new(),
            unreleased: BTreeSet::new(),
            unanswered: 0,
            stale: VecDeque::new(),
            unacknowledged: 0,
            line: Vec::new(),
        };
        subscribing.subscribe(options, &mut client.sender)?;
        let work = subscribing.run(client);
        match arguments.timeout {
            None => work.await,
            Some(span) => select! {
                outcome = work => outcome,
                () = sleep(span) => {
                    client::warn("timed out");
                    Ok(ExitCode::from(TIMED_OUT))
                }
            },
        }
    })
}

/// A message as JSON, whatever is in it.
fn object(publish: &Publish<'_>) -> String {
    let (payload, payload_base64) = shown_payload(publish.payload, publish.payload.len());
    let mut object = json!({
        "topic": publish.topic,
        "qos": publish.qos as u8,
        "retain": publish.retain,
        "packet_id": publish.packet_id.map(PacketId::get),
        "properties": listed(publish.properties),
    });
    match payload {
        Some(payload) => object["payload"] = payload.into(),
        None => object["payload_base64"] = payload_base64.into(),
    }
    object.to_string()
}

/// What is asked of the broker for each filter.
fn options(arguments: &SubscribeArguments, qos: Qos) -> Result<SubscribeOptions, Failure> {
    let SubscribeArguments {
        no_local,
        retain_as_published,
        retain_handling,
        ..
    } = *arguments;
    let default = match arguments.no_retained {
        true => RetainHandling::DoNotSend,
        false => RetainHandling::Send,
    };
    let options = SubscribeOptions {
        qos,
        no_local,
        retain_as_published,
        retain_handling: retain_handling.unwrap_or(default),
    };
    let asked = no_local || retain_as_published || retain_handling.is_some();
    if asked && arguments.connect.protocol_version != Version::V5 {
        let text = "--no-local, --retain-as-published and --retain-handling need MQTT 5: \
                    add -V 5";
        return Err(Failure::new(text));
    }
    let mut filters = arguments.topic.iter();
    if no_local && filters.any(|filter| filter.starts_with("$share/")) {
        // [MQTT-3.8.3-4]
        return Err(Failure::new("a $share/ group cannot have --no-local"));
    }
    Ok(options)
}

/// The state of a run.
struct Subscribing<'a> {
    arguments: &'a SubscribeArguments,
    properties: &'a GivenProperties,
    format: Format,
    /// Lines of standard input, until it ends.
    commands: Option<mpsc::Receiver<io::Result<Vec<u8>>>>,
    /// Messages that are still to be printed.
    left: u64,
    /// Whether what is to be printed has been.
    ended: bool,
    /// Messages that standard input is to settle.
    held: BTreeMap<PacketId, Qos>,
    /// Messages that are acknowledged later, the first first.
    due: VecDeque<(Instant, PacketId, Qos)>,
    /// Messages of QoS 2 between PUBREC and PUBREL [MQTT-4.3.3-2].
    unreleased: BTreeSet<PacketId>,
    /// SUBSCRIBE and UNSUBSCRIBE packets that are not yet acknowledged.
    unanswered: usize,
    /// Topics whose retained messages are still to be cleared; as many as came.
    stale: VecDeque<String>,
    /// Our PUBLISHes, which all are of QoS 1, that are not yet acknowledged.
    unacknowledged: usize,
    /// What is printed next.
    line: Vec<u8>,
}

impl<'a> Subscribing<'a> {
    fn subscribe(&mut self, options: SubscribeOptions, sender: &mut Sender) -> Result<(), Failure> {
        let arguments = self.arguments;
        if !arguments.topic.is_empty() {
            let properties = self.properties.of(PacketType::Subscribe);
            let identified = |property| matches!(property, Property::SubscriptionIdentifier(_));
            if !sender.limits.subscription_ids && properties.iter().any(identified) {
                let text = "the broker takes no subscription identifier";
                return Err(Failure::new(text)); // 3.2.2.3.12
            }
            let filters = arguments.topic.iter();
            let packet_id = sender.next_packet_id();
            sender.send(&Packet::Subscribe(Subscribe {
                packet_id,
                properties,
                filters: filters.map(|filter| (filter.as_str(), options)).collect(),
            }))?;
            self.unanswered += 1;
        }
        if !arguments.unsubscribe.is_empty() {
            let filters = arguments.unsubscribe.iter();
            let packet_id = sender.next_packet_id();
            sender.send(&Packet::Unsubscribe(Unsubscribe {
                packet_id,
                properties: self.properties.of(PacketType::Unsubscribe),
                filters: filters.map(String::as_str).collect(),
            }))?;
            self.unanswered += 1;
        }
        Ok(())
    }

    async fn run(&mut self, client: &mut Client) -> Outcome {
        let Client { receiver, sender } = client;
        let receive_max = usize::from(sender.limits.receive_max); // [MQTT-3.3.4-7]
        loop {
            while let Some(packet) = receiver.packet()? {
                if !self.handle(&packet, sender)? {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            self.acknowledge_due(sender)?;
            while self.unacknowledged < receive_max
                && let Some(topic) = self.stale.pop_front()
            {
                self.publish(&topic, b"", true, sender)?;
            }
            sender.flush().await?;
            let settled = self.stale.is_empty()
                && self.held.is_empty()
                && self.due.is_empty()
                && self.unreleased.is_empty()
                && self.unacknowledged == 0;
            let subscribed = self.arguments.end_when_subscribed && self.unanswered == 0;
            if (self.ended || subscribed) && settled {
                return Ok(ExitCode::SUCCESS);
            }
            let due = self.due.front().map(|(due, ..)| *due);
            select! {
                filled = receiver.fill() => filled?,
                idle = sender.keep_alive() => idle?,
                () = wait_until(due) => {}
                line = next(&mut self.commands), if self.unacknowledged < receive_max => match line {
                    Some(line) => self.command(&line?, sender)?,
                    None => self.commands = None,
                },
            }
        }
    }

    fn publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        retain: bool,
        sender: &mut Sender,
    ) -> Result<(), Failure> {
        sender.publish(Publish {
            dup: false,
            qos: Qos::AtLeastOnce,
            retain,
            topic,
            packet_id: None,
            properties: Properties::EMPTY,
            payload,
        })?;
        self.unacknowledged += 1;
        Ok(())
    }

    /// Whether to go on; not to if nobody reads what is printed.
    fn handle(&mut self, packet: &Packet<'_>, sender: &mut Sender) -> Result<bool, Failure> {
        match packet {
            Packet::Publish(publish) => return self.message(publish, sender),
            Packet::Pubrel(ack) => {
                self.unreleased.remove(&ack.packet_id);
                // [MQTT-4.3.3-2]
                sender.send(&Packet::Pubcomp(
                    self.ack(PacketType::Pubcomp, ack.packet_id),
                ))?;
            }
            Packet::Suback(suback) => {
                self.unanswered = self.unanswered.saturating_sub(1);
                let filters = &self.arguments.topic;
                let refused = refused("subscribe to", filters, &suback.reasons, suback.properties);
                if !refused.is_empty() && refused.len() == filters.len() {
                    return Err(Failure::new(refused.join("\n")));
                }
                refused.iter().for_each(|text| client::warn(text));
            }
            Packet::Unsuback(unsuback) => {
                self.unanswered = self.unanswered.saturating_sub(1);
                let filters = &self.arguments.unsubscribe;
                let (reasons, properties) = (&unsuback.reasons, unsuback.properties);
                let refused = refused("unsubscribe from", filters, reasons, properties);
                refused.iter().for_each(|text| client::warn(text));
            }
            Packet::Puback(ack) => {
                self.unacknowledged = self.unacknowledged.saturating_sub(1);
                if ack.reason.is_failure() {
                    let why = describe::why(ack.reason, ack.properties);
                    client::warn(&format!("the broker refused a message of ours: {why}"));
                }
            }
            Packet::Pingresp => sender.pinged_back(),
            _ => {}
        }
        Ok(true)
    }

    fn message(&mut self, publish: &Publish<'_>, sender: &mut Sender) -> Result<bool, Failure> {
        if self.arguments.retained_only && !publish.retain {
            self.ended = true;
        }
        if self.ended {
            // Not acknowledged, it is for whoever subscribes next.
            return Ok(true);
        }
        if let Some(packet_id) = publish.packet_id
            && publish.qos == Qos::ExactlyOnce
            && (self.unreleased.contains(&packet_id) || self.is_held(packet_id))
        {
            // Again what is here already [MQTT-4.3.3-2].
            if self.unreleased.contains(&packet_id) {
                sender.send(&Packet::Pubrec(self.ack(PacketType::Pubrec, packet_id)))?;
            }
            return Ok(true);
        }
        let prints = self.prints(publish);
        if prints && !self.print(publish)? {
            return Ok(false);
        }
        if prints {
            self.left -= 1;
            self.ended = self.left == 0;
            // An empty one is what clears.
            if self.arguments.remove_retained && publish.retain && !publish.payload.is_empty() {
                self.stale.push_back(publish.topic.to_owned());
            }
        }
        let Some(packet_id) = publish.packet_id else {
            return Ok(true);
        };
        match self.arguments.ack {
            When::Manual if prints => _ = self.held.insert(packet_id, publish.qos),
            When::After(span) if prints => {
                self.due
                    .push_back((Instant::now() + span, packet_id, publish.qos));
            }
            _ => self.acknowledge(packet_id, publish.qos, sender)?,
        }
        Ok(true)
    }

    fn is_held(&self, packet_id: PacketId) -> bool {
        self.held.contains_key(&packet_id) || self.due.iter().any(|(_, id, _)| *id == packet_id)
    }

    /// Whether the filters let a message through.
    fn prints(&self, publish: &Publish<'_>) -> bool {
        let Ok(topic) = TopicName::parse(publish.topic, TopicLimits::NONE) else {
            return true;
        };
        let filters = self.arguments.filter_out.iter();
        let mut filters =
            filters.filter_map(|filter| TopicFilter::parse(filter, TopicLimits::NONE).ok());
        let stale = self.arguments.no_retained && publish.retain;
        !(stale || filters.any(|filter| filter.matches(topic)))
    }

    /// Whether somebody reads it.
    fn print(&mut self, publish: &Publish<'_>) -> Result<bool, Failure> {
        self.line.clear();
        if self.arguments.json {
            self.line = object(publish).into_bytes();
        } else if let Err(text) = self
            .format
            .write(publish, SystemTime::now(), &mut self.line)
        {
            client::warn(&text);
            return Ok(true);
        }
        if !self.arguments.no_end_of_line {
            self.line.push(b'\n');
        }
        let mut stdout = io::stdout().lock();
        match stdout.write_all(&self.line).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::new(format!(
                "cannot write to standard output: {error}"
            ))),
        }
    }

    fn acknowledge(
        &mut self,
        packet_id: PacketId,
        qos: Qos,
        sender: &mut Sender,
    ) -> Result<(), Failure> {
        if qos == Qos::ExactlyOnce {
            self.unreleased.insert(packet_id);
            sender.send(&Packet::Pubrec(self.ack(PacketType::Pubrec, packet_id)))
        } else {
            sender.send(&Packet::Puback(self.ack(PacketType::Puback, packet_id)))
        }
    }

    /// An acknowledgement with the properties that are given to its kind.
    fn ack(&self, packet: PacketType, packet_id: PacketId) -> Ack<'a> {
        Ack {
            properties: self.properties.of(packet),
            ..Ack::new(packet_id)
        }
    }

    fn acknowledge_due(&mut self, sender: &mut Sender) -> Result<(), Failure> {
        let now = Instant::now();
        while let Some((_, packet_id, qos)) = self.due.pop_front_if(|(due, ..)| *due <= now) {
            self.acknowledge(packet_id, qos, sender)?;
        }
        Ok(())
    }

    /// Does what a line of standard input says. One that says nothing is told
    /// of, and is no failure.
    fn command(&mut self, line: &[u8], sender: &mut Sender) -> Result<(), Failure> {
        let line = String::from_utf8_lossy(line);
        let Some((verb, packet_id, secs)) = command(&line) else {
            if !line.trim().is_empty() {
                client::warn(&format!(
                    "{:?} is no command: ack ID, nack ID [SECONDS], reject ID, extend ID [SECONDS]",
                    line.trim()
                ));
            }
            return Ok(());
        };
        let Some(&qos) = self.held.get(&packet_id) else {
            client::warn(&format!("message {packet_id} is not held"));
            return Ok(());
        };
        if verb != "ack" {
            let topic = format!("$queue/${verb}");
            let payload = match secs {
                Some(secs) => format!("{packet_id} {secs}"),
                None => packet_id.to_string(),
            };
            self.publish(&topic, payload.as_bytes(), false, sender)?;
        }
        if verb != "extend" {
            // The first settlement counts; after it the acknowledgement only
            // makes the packet identifier free.
            self.held.remove(&packet_id);
            self.acknowledge(packet_id, qos, sender)?;
        }
        Ok(())
    }
}

/// What the broker refused of `filters`, a sentence each. There are no reasons
/// in an UNSUBACK of before MQTT 5.
fn refused(
    verb: &str,
    filters: &[String],
    reasons: &[ReasonCode],
    properties: Properties<'_>,
) -> Vec<String> {
    std::iter::zip(filters, reasons)
        .filter(|(_, reason)| reason.is_failure())
        .map(|(filter, reason)| {
            let why = describe::why(*reason, properties);
            format!("the broker refused to {verb} {filter:?}: {why}")
        })
        .collect()
}

/// Verb, packet identifier and seconds of a command.
fn command(line: &str) -> Option<(&str, PacketId, Option<&str>)> {
    let mut words = line.split_whitespace();
    let verb = words.next()?;
    let packet_id = words.next()?.parse().ok()?;
    let secs = words.next();
    let takes_secs = matches!(verb, "nack" | "extend");
    let known = takes_secs || matches!(verb, "ack" | "reject");
    // The broker closes the connection of whoever sends it others.
    let whole = |secs: &str| secs.parse::<u32>().is_ok();
    let fits = secs.is_none_or(|secs| takes_secs && whole(secs));
    (known && fits && words.next().is_none()).then_some((verb, packet_id, secs))
}

async fn wait_until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The next line; `None`: standard input has ended.
async fn next(
    lines: &mut Option<mpsc::Receiver<io::Result<Vec<u8>>>>,
) -> Option<Result<Vec<u8>, Failure>> {
    match lines {
        Some(lines) => lines.recv().await.map(|line| {
            line.map_err(|error| Failure::new(format!("cannot read standard input: {error}")))
        }),
        None => std::future::pending().await,
    }
}
