//! `rotamq bench`: a load generator for any MQTT broker.
//!
//! It is cheap next to the broker: raw packets that are patched in place, a
//! scanner that looks at what it counts only, one read and one write for all
//! that a socket has. What it measures of the broker is the processor time
//! and the memory of its process; it shares no state with it, and no code on
//! the way of a message.
//!
//! In reading order: `publication`, `asks`, `digits` and `frame` are what goes
//! out and comes in, `latency` how long it took, `wire` a socket and `net` all of
//! them, `dial` those of clients that come and go, `flow` and `fill` the traffic
//! of one thread, `course` the run from start to end, then a file a kind of
//! scenario, `churn` and `storm` beside them, and `report`.

mod asks;
mod backlog;
mod canary;
mod churn;
mod connect;
mod course;
mod dial;
mod digits;
mod drain;
mod fill;
mod flow;
mod frame;
mod idle;
mod latency;
mod net;
mod publication;
mod report;
mod retained;
mod stall;
mod storm;
mod traffic;
mod usage;
mod wire;

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;

use super::tls::TlsArguments;
use super::{Outcome, client, print};
use crate::message::Qos;
use crate::protocol::{PropertiesBuf, Property, Version};
use asks::Asks;
use flow::Load;
use net::{Client, Target};
use publication::{Form, Stamp};
use report::Report;
use wire::Secure;

/// What `rotamq bench` is told.
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArguments {
    /// What is done
    #[arg(value_enum)]
    pub scenario: Scenario,

    /// The broker's address
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:1883")]
    pub address: String,

    #[command(flatten)]
    pub tls: TlsArguments,

    /// Resume no sessions of TLS: each connection has a full handshake
    #[arg(long, requires = "cafile")]
    pub full_handshakes: bool,

    /// MQTT's version: 3.1, 3.1.1 or 5
    #[arg(short = 'V', long, value_name = "VERSION", default_value = "5", value_parser = client::version)]
    pub version: Version,

    /// Quality of service of publishers and subscribers [default: 0; queue,
    /// put, take and drain: 1]
    #[arg(long, value_name = "0|1|2", value_parser = client::qos)]
    pub qos: Option<Qos>,

    /// Bytes of a payload; a time stamp takes the first 8
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=16_777_216))]
    pub size: u32,

    /// Messages of a publisher that are published and not yet delivered (in put
    /// and drain: not yet acknowledged; with --persistent: neither) [default:
    /// 100; canary: 1000]
    #[arg(long, value_name = "MESSAGES", value_parser = clap::value_parser!(u32).range(1..=65_535))]
    pub window: Option<u32>,

    /// Messages a second of all publishers together, whatever comes back; 0:
    /// as many as the window allows. In stall: of the publisher to the
    /// stalled subscriber. In canary: of the canary [default: 0; stall: 50000,
    /// canary: 10, and 200 beside reconnect]
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    pub rate: Option<u32>,

    /// How long is measured; in canary: without the load, and then beside it
    /// (beside reconnect: until all are back)
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = parse_seconds)]
    pub seconds: f64,

    /// How long there is traffic before that; in canary: before each of both
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = parse_seconds)]
    pub warmup: f64,

    /// Pairs of a publisher and a subscriber (pairs, stall) [default: 50]
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    pub pairs: Option<usize>,

    /// Topics of all publishers together; each goes through its own, and its
    /// subscriber has one filter for them that ends in `+` (pairs) [default:
    /// one a pair, and no wildcard]
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    pub topics: Option<usize>,

    /// Subscriptions and unsubscriptions a second of other clients, whatever
    /// comes back; half of their filters have a wildcard, and none matches
    /// anything of the traffic (pairs) [default: 0]
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub churn: Option<u32>,

    /// Publishers; in take: those that put [default: fan-in 100, queue, share,
    /// put and take 50, drain 10]
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    pub publishers: Option<usize>,

    /// Subscribers or members [default: fan-out 100, fan-in 2, queue, share and
    /// take 10, canary beside fan-out 10000]
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    pub subscribers: Option<usize>,

    /// Clients that are idle, or absent; in connect: those that connect at one
    /// time; in canary beside reconnect: those that come back [default: idle
    /// 1000, drain 100, connect 50, canary 15000]
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    pub clients: Option<usize>,

    /// Messages of each publisher, all of them measured, in place of --seconds
    /// and --warmup. In drain: for each absent client. In stall: to the stalled
    /// subscriber. In retained, and in canary beside it: in all [default: drain
    /// 1000, put and take 10000, stall, retained and canary 1000000]
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    pub messages: Option<usize>,

    /// What goes on beside the canary (canary) [default: none]
    #[arg(long, value_enum)]
    pub beside: Option<Beside>,

    /// Each client's session outlives its connection, until the end of the run:
    /// Clean Session 0, or a Session Expiry Interval (pairs, fan-out, fan-in,
    /// queue, share)
    #[arg(long)]
    pub persistent: bool,

    /// The work queue, below `$queue/`; others use it too, or another run (put
    /// and take, queue) [default: bench; queue: one of its own]
    #[arg(long, value_name = "NAME", value_parser = parse_text)]
    pub queue: Option<String>,

    /// So many work queues, below that name: publishers and members spread
    /// over them (queue) [default: one, of that name]
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    pub queues: Option<usize>,

    /// Messages take turns among so many priorities, from 0 on (queue, put)
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10))]
    pub priorities: Option<u32>,

    /// Messages take turns among so many groups (queue, put)
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub groups: Option<u32>,

    /// Nobody is to get a message before so long has passed (queue, put)
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(0..=31_536_000))]
    pub delay: Option<u32>,

    /// Subscriptions of other clients that match nothing of the traffic, half
    /// of them with wildcards; a client for each 1,000. What each takes of the
    /// broker's memory shows where the broker has just been started
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub subscriptions: usize,

    /// A user property of each message; repeatable (MQTT 5)
    #[arg(long, num_args = 2, value_names = ["NAME", "VALUE"], value_parser = parse_text)]
    pub user_property: Vec<String>,

    /// How long the broker may keep a message that it cannot deliver (MQTT 5)
    #[arg(long, value_name = "SECONDS")]
    pub message_expiry: Option<u32>,

    /// Publishers name their topic once, and then an alias (MQTT 5; not in
    /// drain, put, take, retained and canary)
    #[arg(long)]
    pub use_topic_alias: bool,

    /// Topic aliases that the broker may use towards each client (MQTT 5)
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub topic_alias_maximum: u16,

    /// Keep Alive of all clients, which ping twice in it; 0: none. Some brokers
    /// refuse clients without
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub keep_alive: u16,

    /// User name of all clients
    #[arg(short = 'u', long, value_name = "NAME")]
    pub username: Option<String>,

    /// Password of all clients
    #[arg(short = 'P', long, value_name = "PASSWORD")]
    pub password: Option<String>,

    /// The broker's process, on this machine: its CPU time and resident
    /// memory are reported; repeatable, for the sum
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,

    /// Threads of this tool (pairs and stall; queue, if it has as many --queues)
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = parse_count)]
    pub threads: usize,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Who publishes to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Each publisher has a topic and a subscriber of its own
    Pairs,
    /// One publisher, and all subscribe to its topic
    FanOut,
    /// Publishers with a topic each, subscribers of one wildcard
    FanIn,
    /// Publishers into a work queue, members that share its messages (RotaMQ)
    Queue,
    /// Publishers into a work queue that nobody takes from (RotaMQ)
    Put,
    /// Members that take out what put has put in, and count it (RotaMQ)
    Take,
    /// Publishers with a topic each, one $share group that shares the messages
    Share,
    /// Clients that connect and do nothing
    Idle,
    /// Clients that connect and disconnect, again and again
    Connect,
    /// Persistent sessions: messages are queued for them, then they come back
    Drain,
    /// Pairs, beside a subscriber that stops reading what it is sent
    Stall,
    /// Retained messages that are put, read by one subscriber of all, and
    /// looked up
    Retained,
    /// A pair with few messages, whose latency tells what a load does to others
    Canary,
}

/// What goes on beside the canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Beside {
    /// Nothing
    None,
    /// One publisher and one subscriber, as fast as the window allows
    Flood,
    /// A message a second to so many --subscribers
    FanOut,
    /// Retained --messages, sent to a new subscriber again and again
    Retained,
    /// So many --clients with sessions, which are cut off all at once, and come
    /// back all at once
    Reconnect,
}

impl Beside {
    fn name(self) -> &'static str {
        match self {
            Beside::None => "none",
            Beside::Flood => "flood",
            Beside::FanOut => "fan-out",
            Beside::Retained => "retained",
            Beside::Reconnect => "reconnect",
        }
    }
}

impl Scenario {
    fn name(self) -> &'static str {
        match self {
            Scenario::Pairs => "pairs",
            Scenario::FanOut => "fan-out",
            Scenario::FanIn => "fan-in",
            Scenario::Queue => "queue",
            Scenario::Put => "put",
            Scenario::Take => "take",
            Scenario::Share => "share",
            Scenario::Idle => "idle",
            Scenario::Connect => "connect",
            Scenario::Drain => "drain",
            Scenario::Stall => "stall",
            Scenario::Retained => "retained",
            Scenario::Canary => "canary",
        }
    }
}

/// Runs one scenario and prints what it found.
///
/// # Errors
/// Nobody listens, the broker closes a connection or refuses something, nothing
/// moves for 10 seconds.
pub fn run(args: &BenchArguments) -> Outcome {
    let job = Job::new(args)?;
    net::allow_connections(job.connections())?;
    let mut report = Report::default();
    job.describe(args, &mut report);
    match job.scenario {
        Scenario::Idle => idle::run(&job, &mut report)?,
        Scenario::Connect => connect::run(&job, &mut report)?,
        Scenario::Drain => drain::run(&job, &mut report)?,
        Scenario::Put => backlog::put(&job, &mut report)?,
        Scenario::Take => backlog::take(&job, &mut report)?,
        Scenario::Stall => stall::run(&job, &mut report)?,
        Scenario::Retained => retained::run(&job, &mut report)?,
        Scenario::Canary => canary::run(&job, &mut report)?,
        _ => traffic::run(&job, &mut report)?,
    }
    print(&match args.json {
        true => format!("{}\n", report.to_json()),
        false => report.to_table(),
    })
}

/// The arguments with their defaults, checked. What a scenario does not have
/// is zero.
struct Job {
    scenario: Scenario,
    target: Target,
    full_handshakes: bool,
    /// In topics and client identifiers, so that runs do not meet.
    run: String,
    form: Form,
    persistent: bool,
    /// What the work queue's topic has behind `$queue/`.
    queue: String,
    /// It is not of its own: others may use it.
    queue_is_given: bool,
    /// So many below it; 0: it is the only one.
    queues: usize,
    /// Of the canary.
    beside: Beside,
    window: usize,
    rate: f64,
    duration: Duration,
    warmup: Duration,
    publishers: usize,
    subscribers: usize,
    clients: usize,
    messages: u64,
    /// Of all pairs together; 0: one each, as the other scenarios have.
    topics: usize,
    /// Changes of subscriptions a second.
    churn: f64,
    subscriptions: usize,
    threads: usize,
    pids: Vec<u32>,
}

impl Job {
    fn new(args: &BenchArguments) -> Result<Job, String> {
        use Scenario::*;
        let scenario = args.scenario;
        // The option, and its default in each scenario that knows it.
        let count = |name, given: Option<usize>, defaults: &[(Scenario, usize)]| match (
            given,
            defaults.iter().find(|(of, _)| *of == scenario),
        ) {
            (given, Some((_, default))) => Ok(given.unwrap_or(*default)),
            (None, None) => Ok(0),
            (Some(_), None) => Err(format!("{} has no {name}", scenario.name())),
        };
        let pairs = count("--pairs", args.pairs, &[(Pairs, 50), (Stall, 50)])?;
        let mut publishers = vec![(FanIn, 100), (Queue, 50), (Share, 50), (Drain, 10)];
        publishers.extend([(Put, 50), (Take, 50)]);
        let publishers = count("--publishers", args.publishers, &publishers)?;
        let mut subscribers = vec![(FanOut, 100), (FanIn, 2), (Queue, 10), (Share, 10)];
        subscribers.extend([(Take, 10), (Canary, 10_000)]);
        let subscribers = count("--subscribers", args.subscribers, &subscribers)?;
        let clients = [(Idle, 1000), (Drain, 100), (Connect, 50), (Canary, 15_000)];
        let clients = count("--clients", args.clients, &clients)?;
        let mut messages = vec![(Drain, 1000), (Stall, 1_000_000)];
        messages.extend([(Put, 10_000), (Take, 10_000)]);
        messages.extend([(Retained, 1_000_000), (Canary, 1_000_000)]);
        messages.extend([Pairs, FanOut, FanIn, Queue, Share].map(|scenario| (scenario, 0)));
        let messages = count("--messages", args.messages, &messages)?;
        if args.beside.is_some() && scenario != Canary {
            return Err(format!("{} has no --beside", scenario.name()));
        }
        let beside = args.beside.unwrap_or(Beside::None);
        // Of the canary's loads each has its own.
        let (publishers, subscribers, clients, messages) = match (scenario, beside) {
            (Canary, Beside::None) => (0, 0, 0, 0),
            (Canary, Beside::Flood) => (1, 1, 0, 0),
            (Canary, Beside::FanOut) => (1, subscribers, 0, 0),
            (Canary, Beside::Retained) => (0, 0, 0, messages),
            (Canary, Beside::Reconnect) => (0, 0, clients, 0),
            (FanOut, _) => (1, subscribers, 0, messages),
            _ => (pairs + publishers, subscribers, clients, messages),
        };
        if publishers > Stamp::PUBLISHERS_MAX {
            return Err(format!(
                "at most {} publishers can be told apart",
                Stamp::PUBLISHERS_MAX
            ));
        }
        let topics = count("--topics", args.topics, &[(Pairs, 0)])?;
        if topics > 0 && topics < pairs {
            return Err("each of the pairs needs a topic: ask for as many --topics".into());
        }
        if topics > 0 && args.use_topic_alias {
            return Err("--topics has more than one alias could name: leave one out".into());
        }
        let churn = args.churn.map(|rate| rate as usize);
        let churn = count("--churn", churn, &[(Pairs, 0)])?;
        let queues = count("--queues", args.queues, &[(Queue, 0)])?;
        if queues > publishers.min(subscribers) {
            return Err(
                "each of the --queues needs a publisher and a member: ask for as many".into(),
            );
        }
        if args.threads > 1 && pairs.max(queues) < args.threads {
            return Err(
                "--threads divides pairs or --queues: it needs as many, and the scenario pairs, \
                 stall or queue"
                    .into(),
            );
        }
        let qos = args.qos.unwrap_or(match scenario {
            Queue | Put | Take | Drain => Qos::AtLeastOnce,
            _ => Qos::AtMostOnce,
        });
        if scenario == Drain && qos == Qos::AtMostOnce {
            return Err(
                "brokers need not queue QoS 0 for absent clients: drain takes --qos 1 or 2".into(),
            );
        }
        if scenario == Put && qos == Qos::AtMostOnce {
            return Err("put counts acknowledgements: it takes --qos 1 or 2".into());
        }
        let rate = args.rate.unwrap_or(match scenario {
            Stall => 50_000,
            // A storm may be over in a second.
            Canary if beside == Beside::Reconnect => 200,
            Canary => 10,
            _ => 0,
        });
        if matches!(scenario, Stall | Canary) && rate == 0 {
            return Err(format!("{} needs a --rate above 0", scenario.name()));
        }
        if rate > 0 && matches!(scenario, Idle | Connect | Drain | Put | Take | Retained) {
            return Err(format!("{} has no --rate", scenario.name()));
        }
        let own_sessions = matches!(scenario, Idle | Connect | Drain | Stall | Put | Take);
        if args.persistent && (own_sessions || matches!(scenario, Retained | Canary)) {
            return Err(format!("{} has no --persistent", scenario.name()));
        }
        if args.queue.is_some() && !matches!(scenario, Queue | Put | Take) {
            return Err(format!("{} has no --queue", scenario.name()));
        }
        let asks = Asks {
            priorities: args.priorities,
            groups: args.groups,
            delay_secs: args.delay,
        };
        if asks != Asks::default() && !matches!(scenario, Queue | Put) {
            return Err(format!(
                "{} has no --priorities, --groups and --delay",
                scenario.name()
            ));
        }
        if args.tls.is_asked_for() && scenario == Canary {
            let text = "the canary waits in bare reads, without TLS: run it by itself, beside \
                        another rotamq bench that speaks it";
            return Err(text.into());
        }
        let (address, host) = resolve(&args.address)?;
        let run = run_id();
        let queue = match (&args.queue, scenario) {
            (Some(name), _) => name.clone(),
            (None, Queue) => format!("bench/{run}"),
            (None, _) => "bench".into(),
        };
        let form = Form {
            version: args.version,
            qos,
            payload_bytes: args.size as usize,
            properties: message_properties(args),
            asks,
            topic_alias: args.use_topic_alias,
        };
        let needs_v5 = args.topic_alias_maximum > 0
            || form.topic_alias
            || form.properties != PropertiesBuf::new();
        if needs_v5 && args.version != Version::V5 {
            return Err("only MQTT 5 has properties and topic aliases: leave -V out".into());
        }
        let many_topics = matches!(scenario, Idle | Connect | Drain | Put | Take | Retained);
        if form.topic_alias && (many_topics || scenario == Canary) {
            return Err(format!("{} has no --use-topic-alias", scenario.name()));
        }
        Ok(Job {
            scenario,
            target: Target {
                address,
                tls: Secure::new(&args.tls, host, !args.full_handshakes)?,
                version: args.version,
                username: args.username.clone(),
                password: args.password.clone(),
                topic_alias_max: args.topic_alias_maximum,
                keep_alive_secs: args.keep_alive,
            },
            full_handshakes: args.full_handshakes,
            run,
            form,
            persistent: args.persistent,
            queue,
            queue_is_given: args.queue.is_some(),
            queues,
            beside,
            window: args.window.unwrap_or(match scenario {
                Canary => 1000,
                _ => 100,
            }) as usize,
            rate: f64::from(rate),
            duration: Duration::from_secs_f64(args.seconds),
            warmup: Duration::from_secs_f64(args.warmup),
            publishers,
            subscribers: pairs + subscribers,
            clients,
            messages: messages as u64,
            topics,
            churn: churn as f64,
            subscriptions: args.subscriptions,
            threads: args.threads,
            pids: args.pid.clone(),
        })
    }

    fn connections(&self) -> usize {
        let of_all = self.publishers + self.subscribers + self.clients;
        of_all + self.subscriptions / 1000 + 3 + churn::CLIENTS
    }

    /// How many of the topics are those of the pair of this `index`.
    fn topics_of(&self, index: usize) -> u32 {
        let start = |index| self.topics * index / self.publishers;
        (start(index + 1) - start(index)) as u32
    }

    /// The load of each publisher; its rate is that of all.
    fn load(&self) -> Load {
        // In stall rate and messages are the other publisher's, and in canary
        // the rate is that of the canary.
        let (rate, messages) = match self.scenario {
            Scenario::Stall | Scenario::Canary => (0.0, 0),
            _ => (self.rate, self.messages),
        };
        Load {
            window: self.window,
            until_acknowledged: self.persistent,
            rate,
            messages_max: match messages {
                0 => u64::MAX,
                messages => messages,
            },
            delay: Duration::from_secs(self.form.asks.delay_secs.unwrap_or(0).into()),
        }
    }

    fn queue_topic(&self) -> String {
        format!("$queue/{}", self.queue)
    }

    /// The queue of the one of this `index` among so many publishers or
    /// members, neighbours of which share one.
    fn queue_topic_of(&self, index: usize, count: usize) -> String {
        match self.queues {
            0 => self.queue_topic(),
            queues => format!("$queue/{}/{}", self.queue, index * queues / count),
        }
    }

    fn client(&self, role: &str, index: usize, filters: Vec<String>) -> Client {
        Client {
            // At most 23 bytes, for MQTT 3.1.
            id: format!("{}-{role}{index}", self.run),
            clean: !self.persistent,
            filters,
            qos: self.form.qos,
        }
    }

    fn describe(&self, args: &BenchArguments, report: &mut Report) {
        report.add("scenario", "scenario", self.scenario.name(), "");
        report.add("address", "address", self.target.address.to_string(), "");
        let version = match args.version {
            Version::V3_1 => "3.1",
            Version::V3_1_1 => "3.1.1",
            Version::V5 => "5",
        };
        report.add("version", "MQTT", version, "");
        if self.target.tls.is_some() {
            let handshakes = match self.full_handshakes {
                true => "full handshakes",
                false => "sessions resumed",
            };
            report.add("tls", "TLS", handshakes, "");
        }
        if self.scenario == Scenario::Canary {
            report.add("beside", "beside the canary", self.beside.name(), "");
            report.add_number("canary_rate", "canary", self.rate, "messages/s");
        }
        for (key, label, count) in [
            ("publishers", "publishers", self.publishers),
            ("subscribers", "subscribers", self.subscribers),
            ("clients", "clients", self.clients),
            ("messages", "messages", self.messages as usize),
            ("topics", "topics", self.topics),
            (
                "churn",
                "changes of subscriptions a second",
                self.churn as usize,
            ),
            ("queues", "queues", self.queues),
            ("subscriptions", "other subscriptions", self.subscriptions),
        ] {
            if count > 0 {
                report.add(key, label, count, "");
            }
        }
        let asks = &self.form.asks;
        for (key, label, asked, unit) in [
            ("priorities", "priorities", asks.priorities, ""),
            ("groups", "groups", asks.groups, ""),
            ("delay_s", "delay", asks.delay_secs, "s"),
        ] {
            if let Some(asked) = asked {
                report.add(key, label, asked, unit);
            }
        }
        if !matches!(self.scenario, Scenario::Idle | Scenario::Connect) {
            report.add("qos", "QoS", self.form.qos as u8, "");
            report.add("size_bytes", "payload", self.form.payload_bytes, "bytes");
            let properties_bytes = self.form.properties.as_properties().as_bytes().len();
            if properties_bytes > 0 {
                report.add("properties_bytes", "properties", properties_bytes, "bytes");
            }
            if self.form.topic_alias {
                report.add("topic_alias", "publishers' topics", "by alias", "");
            }
            if self.persistent {
                report.add("sessions", "sessions", "persistent", "");
            }
            if self.load().rate > 0.0 {
                report.add_number("rate", "open loop", self.rate, "messages/s");
            } else {
                report.add("window", "window", self.window, "messages");
            }
        }
    }
}

/// The properties that each message has.
fn message_properties(args: &BenchArguments) -> PropertiesBuf {
    let mut properties = PropertiesBuf::new();
    if let Some(secs) = args.message_expiry {
        properties.push(Property::MessageExpiryInterval(secs));
    }
    for pair in args.user_property.chunks_exact(2) {
        properties.push(Property::UserProperty((&pair[0], &pair[1])));
    }
    properties
}

/// Distinguishes this run from others.
fn run_id() -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mixed = since.as_nanos() as u64 ^ u64::from(std::process::id()) << 32;
    format!("{:08x}", (mixed ^ mixed >> 32) as u32)
}

/// Where to connect, and the host's name in it.
fn resolve(address: &str) -> Result<(SocketAddr, &str), String> {
    let mut found = address.to_socket_addrs().map_err(|error| {
        format!("{address} is not HOST:PORT, for instance 127.0.0.1:1883: {error}")
    })?;
    let (host, _) = address.rsplit_once(':').unwrap_or((address, ""));
    match found.next() {
        Some(found) => Ok((found, host.trim_matches(['[', ']']))),
        None => Err(format!("{address} has no address")),
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("it is a number of seconds from 0 to 86400".into()),
    }
}

/// What a property can carry (1.5.4).
fn parse_text(text: &str) -> Result<String, String> {
    match text.len() {
        0..=65_535 => Ok(text.to_owned()),
        _ => Err("it is at most 65535 bytes long".into()),
    }
}

fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=100_000_000).contains(&count) => Ok(count),
        _ => Err("it is a whole number from 1 to 100000000".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::{Value, json};

    use super::*;
    use crate::Broker;
    use crate::config::Config;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        arguments: BenchArguments,
    }

    pub fn job(line: &str) -> Result<Job, String> {
        let words = ["bench"].into_iter().chain(line.split_whitespace());
        Job::new(&Command::try_parse_from(words).unwrap().arguments)
    }

    fn broker() -> Broker {
        broker_with(|_| {})
    }

    fn broker_with(change: impl FnOnce(&mut Config)) -> Broker {
        let mut config = Config::default();
        change(&mut config);
        config.listeners[0].address = "127.0.0.1:0".parse().unwrap();
        config.store.ephemeral = true;
        config.http.address = None;
        Broker::start(config).unwrap()
    }

    /// The versions that the broker serves.
    const VERSIONS: [&str; 3] = ["3.1", "3.1.1", "5"];

    #[test]
    fn publishes_as_many_messages_as_it_is_told_and_loses_none() {
        let broker = broker();
        let address = broker.address();
        for version in VERSIONS {
            for (scenario, published) in [
                ("pairs --pairs 3 --threads 2 --qos 0", 600),
                ("pairs --pairs 3 --qos 1 --window 7", 600),
                ("pairs --pairs 3 --qos 2", 600),
                ("pairs --pairs 3 --rate 5000", 600),
                ("pairs --pairs 3 --topics 100 --threads 2", 600),
                ("pairs --pairs 3 --topics 100 --qos 1 --churn 500", 600),
                ("fan-out --subscribers 5", 200),
                ("fan-in --publishers 3 --qos 1", 600),
                ("share --publishers 3 --qos 1", 600),
                ("queue --publishers 3", 600),
                ("pairs --pairs 3 --qos 1 --window 7 --persistent", 600),
                ("share --publishers 3 --qos 2 --persistent", 600),
                ("queue --publishers 3 --persistent --rate 5000", 600),
                ("queue --publishers 3 --priorities 10 --groups 7", 600),
                ("queue --publishers 3 --delay 1 --rate 5000", 600),
                ("queue --publishers 5 --queues 3 --threads 2", 1000),
            ] {
                let line = format!("{scenario} --messages 200 --address {address} -V {version}");
                let mut report = Report::default();
                traffic::run(&job(&line).unwrap(), &mut report).unwrap();
                let report = report.to_json();
                let seen = ["published", "lost", "duplicates"].map(|key| &report[key]);
                assert_eq!(seen, [&json!(published), &json!(0), &json!(0)], "{line}");
            }
        }
        broker.stop();
    }

    #[test]
    fn says_what_other_subscriptions_cost_and_how_many_change() {
        let broker = broker();
        let address = broker.address();
        let pid = std::process::id();
        let line = format!(
            "pairs --pairs 2 --rate 1000 --messages 200 --subscriptions 2000 --churn 2000 \
             --address {address} --pid {pid}"
        );
        let mut report = Report::default();
        traffic::run(&job(&line).unwrap(), &mut report).unwrap();
        let report = report.to_json();
        let bytes = &report["broker_resident_bytes_per_subscription"];
        assert!(bytes.is_number(), "{report}");
        assert!(report["churned_per_second"].as_f64() > Some(0.0));
        assert!(report["generator_cpu_us_per_delivery"].as_f64() > Some(0.0));
        broker.stop();
    }

    #[test]
    fn shares_the_topics_among_the_pairs() {
        let job = job("pairs --pairs 3 --topics 1000").unwrap();
        assert_eq!([0, 1, 2].map(|pair| job.topics_of(pair)), [333, 333, 334]);
        let plans = traffic::plans(&job);
        let filters = plans[0].subscribers.iter().map(|one| &one.filters[0]);
        assert!(filters.eq(&[0, 1, 2].map(|pair| format!("bench/{}/{pair}/+", job.run))));
    }

    #[test]
    fn drains_what_it_has_queued() {
        let broker = broker();
        let address = broker.address();
        for version in VERSIONS {
            let line = format!(
                "drain --clients 5 --messages 40 --publishers 2 --address {address} -V {version}"
            );
            let mut report = Report::default();
            drain::run(&job(&line).unwrap(), &mut report).unwrap();
            assert!(report.to_json()["drained_per_second"].as_f64() > Some(0.0));
        }
        broker.stop();
    }

    #[test]
    fn takes_out_what_it_has_put_in() {
        let broker = broker();
        let address = broker.address();
        for version in VERSIONS {
            let counts = format!(
                "--queue a/b --publishers 3 --messages 500 --address {address} -V {version}"
            );
            let mut report = Report::default();
            backlog::put(&job(&format!("put {counts}")).unwrap(), &mut report).unwrap();
            let put = report.to_json();
            assert!(put["acknowledged_p99_us"].as_f64() > Some(0.0), "{put}");
            let mut report = Report::default();
            backlog::take(&job(&format!("take {counts}")).unwrap(), &mut report).unwrap();
            let taken = report.to_json();
            assert_eq!(
                (&taken["taken"], &taken["duplicates"]),
                (&json!(1500), &json!(0))
            );
        }
        // Nothing is left, and what is there must fit.
        let put = format!("put --publishers 1 --messages 20 --address {address}");
        backlog::put(&job(&put).unwrap(), &mut Report::default()).unwrap();
        let take = format!("take --publishers 1 --messages 10 --address {address}");
        let error = backlog::take(&job(&take).unwrap(), &mut Report::default()).unwrap_err();
        assert!(error.contains("put has not put it in"), "{error}");
        broker.stop();
    }

    #[test]
    fn reads_and_looks_up_what_is_retained_and_leaves_nothing() {
        // A second run would not fit beside what the first one left.
        let broker = broker_with(|config| config.limits.retained_messages_max = 150);
        let address = broker.address();
        let pid = std::process::id();
        for version in VERSIONS {
            for qos in [0, 1, 2] {
                let line = format!(
                    "retained --messages 101 --qos {qos} --address {address} --pid {pid} \
                     -V {version}"
                );
                let mut report = Report::default();
                retained::run(&job(&line).unwrap(), &mut report).unwrap();
                let report = report.to_json();
                for key in [
                    "first_retained_s",
                    "last_retained_s",
                    "exact_lookup_p50_us",
                    "broker_cpu_us_per_message_in",
                    "broker_cpu_us_per_message_out",
                    "broker_cpu_us_per_exact_lookup",
                    "broker_resident_bytes_per_message",
                    "generator_cpu_us_per_delivery",
                ] {
                    assert!(report[key].is_number(), "{line}: {key} in {report}");
                }
            }
        }
        broker.stop();
    }

    #[test]
    fn watches_a_canary_beside_each_load() {
        let broker = broker();
        let address = broker.address();
        for (beside, achieves) in [
            ("none --seconds 0.2", false),
            ("flood --qos 1 --seconds 0.2", true),
            ("flood --seconds 0.2 -V 3.1", true),
            // The first burst comes after a second.
            ("fan-out --subscribers 20 --seconds 1.2", true),
            ("retained --messages 300 --seconds 0.2 -V 3.1.1", true),
        ] {
            let line =
                format!("canary --beside {beside} --rate 200 --warmup 0.1 --address {address}");
            let mut report = Report::default();
            canary::run(&job(&line).unwrap(), &mut report).unwrap();
            let report = report.to_json();
            for key in ["calm_p50_us", "calm_max_us", "latency_p99_us"] {
                let micros = report[key].as_f64();
                assert!(micros > Some(0.0), "{line}: {key} in {report}");
            }
            assert_eq!(report["canary_lost"], 0, "{line}");
            let achieved = report["delivered_per_second"].as_f64() > Some(0.0);
            assert_eq!(achieved, achieves, "{line}: {report}");
        }
        broker.stop();
    }

    #[test]
    fn a_canary_has_the_clients_and_messages_of_its_load_alone() {
        for (beside, expected) in [
            ("none", (0, 0, 0, 0, 10.0)),
            ("flood", (1, 1, 0, 0, 10.0)),
            ("fan-out", (1, 10_000, 0, 0, 10.0)),
            ("retained", (0, 0, 0, 1_000_000, 10.0)),
            ("reconnect", (0, 0, 15_000, 0, 200.0)),
        ] {
            let job = job(&format!("canary --beside {beside}")).unwrap();
            let counts = (job.publishers, job.subscribers, job.clients);
            let seen = (counts.0, counts.1, counts.2, job.messages, job.rate);
            assert_eq!((seen, job.window), (expected, 1000));
        }
    }

    /// A broker that speaks TLS, and the option to speak it.
    fn broker_with_tls(folder: &str) -> (Broker, String) {
        let folder = std::env::temp_dir().join(format!("rotamq-{}-{folder}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let [certificate, key] = ["cert.pem", "key.pem"].map(|name| folder.join(name));
        std::fs::write(&certificate, certified.cert.pem()).unwrap();
        std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
        let broker = broker_with(|config| {
            config.listeners[0].tls.certificate = Some(certificate.clone());
            config.listeners[0].tls.key = Some(key);
        });
        (broker, format!("--cafile {}", certificate.display()))
    }

    #[test]
    fn speaks_tls_in_every_kind_of_traffic() {
        let (broker, tls) = broker_with_tls("traffic");
        let address = broker.address();
        for line in [
            "pairs --pairs 3 --qos 0 --size 4096 --threads 2",
            "pairs --pairs 3 --qos 2 --size 100000 --full-handshakes",
            "queue --publishers 3",
        ] {
            let line = format!("{line} --messages 200 {tls} --address {address}");
            let mut report = Report::default();
            traffic::run(&job(&line).unwrap(), &mut report).unwrap();
            let report = report.to_json();
            let seen = ["published", "lost", "duplicates"].map(|key| &report[key]);
            assert_eq!(seen, [&json!(600), &json!(0), &json!(0)], "{line}");
        }
        let line = format!("idle --clients 20 --seconds 0 {tls} --address {address}");
        idle::run(&job(&line).unwrap(), &mut Report::default()).unwrap();
        // Whose certificate is not believed.
        let (other, others) = broker_with_tls("other");
        let line = format!("idle {others} --address {address}");
        let error = idle::run(&job(&line).unwrap(), &mut Report::default()).unwrap_err();
        assert!(
            error.contains("not signed by an authority in --cafile"),
            "{error}"
        );
        other.stop();
        broker.stop();
    }

    #[test]
    fn clients_connect_and_go_again_and_again() {
        let (with_tls, tls) = broker_with_tls("connect");
        let plain = broker();
        let tls = format!("{tls} --address {}", with_tls.address());
        for (options, resumes) in [
            (format!("--address {}", plain.address()), None),
            (format!("--address {} -V 3.1", plain.address()), None),
            (tls.clone(), Some(true)),
            (format!("{tls} --full-handshakes"), Some(false)),
        ] {
            let pid = std::process::id();
            let line =
                format!("connect --clients 7 --seconds 0.3 --warmup 0.1 --pid {pid} {options}");
            let mut report = Report::default();
            connect::run(&job(&line).unwrap(), &mut report).unwrap();
            let report = report.to_json();
            for key in [
                "connects_per_second",
                "connack_p99_us",
                "broker_cpu_us_per_connect",
            ] {
                assert!(
                    report[key].as_f64() > Some(0.0),
                    "{line}: {key} in {report}"
                );
            }
            let resumed = report["resumed"].as_u64().map(|resumed| resumed > 0);
            assert_eq!(resumed, resumes, "{line}: {report}");
        }
        plain.stop();
        with_tls.stop();
    }

    #[test]
    fn watches_a_canary_while_all_come_back_at_once() {
        // A second run would not fit beside what the first one left.
        let broker = broker_with(|config| config.limits.sessions_max = 320);
        let address = broker.address();
        for version in VERSIONS {
            let line = format!(
                "canary --beside reconnect --clients 300 --rate 1000 --seconds 0.2 --warmup 0.1 \
                 --address {address} -V {version}"
            );
            let mut report = Report::default();
            canary::run(&job(&line).unwrap(), &mut report).unwrap();
            let report = report.to_json();
            for key in ["calm_p99_us", "all_back_s", "back_max_us"] {
                assert!(
                    report[key].as_f64() > Some(0.0),
                    "{line}: {key} in {report}"
                );
            }
        }
        broker.stop();
    }

    #[test]
    fn says_how_long_acknowledgements_take() {
        let broker = broker();
        let address = broker.address();
        for (qos, known) in [(0, false), (1, true), (2, true)] {
            let line = format!("pairs --pairs 2 --messages 50 --qos {qos} --address {address}");
            let mut report = Report::default();
            traffic::run(&job(&line).unwrap(), &mut report).unwrap();
            let report = report.to_json();
            let micros = &report["acknowledged_p50_us"];
            assert_eq!(micros.as_f64() > Some(0.0), known, "{line}: {micros}");
        }
        broker.stop();
    }

    #[test]
    fn ends_the_persistent_sessions_that_it_has_made() {
        let broker = broker_with(|config| config.limits.sessions_max = 7);
        let line = format!(
            "pairs --pairs 3 --messages 5 --persistent --address {}",
            broker.address()
        );
        assert!(!job(&line).unwrap().client("p", 0, Vec::new()).clean);
        for _ in 0..3 {
            traffic::run(&job(&line).unwrap(), &mut Report::default()).unwrap();
        }
        broker.stop();
    }

    #[test]
    fn gives_each_message_the_properties_of_the_command_line() {
        let line = "pairs --user-property a 1 --user-property a 2 --message-expiry 60";
        let form = job(line).unwrap().form;
        let properties: Vec<Property<'_>> = form.properties.as_properties().iter().collect();
        let expected = [
            Property::MessageExpiryInterval(60),
            Property::UserProperty(("a", "1")),
            Property::UserProperty(("a", "2")),
        ];
        assert_eq!((form.version, properties), (Version::V5, expected.to_vec()));
    }

    #[test]
    fn spreads_publishers_and_members_over_the_queues() {
        let job = job("queue --queue a --queues 3 --publishers 5 --subscribers 4 --threads 2");
        let plans = traffic::plans(&job.unwrap());
        let filters = plans.iter().map(|plan| {
            let members = plan.subscribers.iter();
            members.flat_map(|one| one.filters.clone()).collect()
        });
        let filters: Vec<Vec<String>> = filters.collect();
        let expected = [
            vec!["$queue/a/0", "$queue/a/0"],
            vec!["$queue/a/1", "$queue/a/2"],
        ];
        assert_eq!(filters, expected);
        let publishers = plans.iter().map(|plan| plan.publishers.len());
        assert!(publishers.eq([2, 3]));
    }

    #[test]
    fn messages_ask_for_what_the_command_line_says() {
        let asks = job("queue --priorities 3 --groups 1000 --delay 0")
            .unwrap()
            .form
            .asks;
        let expected = Asks {
            priorities: Some(3),
            groups: Some(1000),
            delay_secs: Some(0),
        };
        assert_eq!(asks, expected);
        for line in [
            "--priorities 11",
            "--groups 0",
            "--delay -1",
            "--delay 31536001",
        ] {
            let words = ["bench", "queue"]
                .into_iter()
                .chain(line.split_whitespace());
            assert!(Command::try_parse_from(words).is_err(), "{line}");
        }
    }

    #[test]
    fn refuses_what_the_scenario_or_the_version_does_not_have() {
        for (line, words) in [
            ("pairs -V 3.1.1 --user-property a b", "only MQTT 5"),
            ("pairs -V 3.1 --use-topic-alias", "only MQTT 5"),
            ("fan-in -V 3.1 --topic-alias-maximum 3", "only MQTT 5"),
            ("drain --use-topic-alias", "drain has no --use-topic-alias"),
            ("stall --topics 3", "stall has no --topics"),
            ("pairs --topics 49", "each of the pairs needs a topic"),
            ("pairs --topics 99 --use-topic-alias", "leave one out"),
            ("pairs --beside flood", "pairs has no --beside"),
            ("canary --rate 0", "canary needs a --rate"),
            ("canary --persistent", "canary has no --persistent"),
            ("canary --cafile ca.pem", "without TLS: run it by itself"),
            (
                "connect --cafile /no.pem",
                "cannot read the certificate /no.pem",
            ),
            ("connect --rate 3", "connect has no --rate"),
            ("pairs --clients 3", "pairs has no --clients"),
            ("retained --rate 3", "retained has no --rate"),
            (
                "retained --use-topic-alias",
                "retained has no --use-topic-alias",
            ),
            ("fan-in --churn 3", "fan-in has no --churn"),
            ("idle --messages 3", "idle has no --messages"),
            ("drain --qos 0", "--qos 1 or 2"),
            ("put --qos 0", "--qos 1 or 2"),
            ("put --rate 7", "put has no --rate"),
            ("take --persistent", "take has no --persistent"),
            ("pairs --queue jobs", "pairs has no --queue"),
            ("put --queues 2", "put has no --queues"),
            ("queue --queues 11", "needs a publisher and a member"),
            ("queue --queues 2 --threads 3", "--threads divides"),
            ("share --groups 3", "share has no --priorities, --groups"),
            ("take --delay 1", "take has no --priorities, --groups"),
        ] {
            let error = job(line).err().unwrap_or_default();
            assert!(error.contains(words), "{line}: {error:?}");
        }
    }

    #[test]
    fn the_report_says_what_each_message_carries() {
        let line = "pairs --user-property a b --use-topic-alias";
        let words = ["bench"].into_iter().chain(line.split_whitespace());
        let arguments = Command::try_parse_from(words).unwrap().arguments;
        let mut report = Report::default();
        Job::new(&arguments)
            .unwrap()
            .describe(&arguments, &mut report);
        let Value::Object(rows) = report.to_json() else {
            panic!("the report is no object");
        };
        assert_eq!(rows["version"], "5");
        assert_eq!(rows["properties_bytes"], 7);
        assert_eq!(rows["topic_alias"], "by alias");
    }
}
