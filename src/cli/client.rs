//! What `rotamq pub` and `rotamq sub` share: how to connect, and a connection
//! to any broker.
//!
//! Knows nothing of what is published or subscribed to.

use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::{Failure, Outcome};
use crate::message::{PacketId, Qos};
use crate::protocol::{
    Connect, Disconnect, Packet, Properties, PropertiesBuf, Property, Publish, REMAINING_BYTES_MAX,
    ReasonCode, Version, Will, decode, encode,
};
use crate::topic::{TopicFilter, TopicLimits, TopicName};

/// For the TCP connection, and then for CONNACK.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// For the broker to close after DISCONNECT [MQTT-3.14.4-1].
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Of a text or of binary data in a packet (1.5.3).
const FIELD_BYTES_MAX: usize = 65_535;
/// Read at once.
const READ_BYTES: usize = 64 << 10;

/// Where to connect, and as whom.
// Without Debug: it knows the password.
#[derive(clap::Args, Clone)]
pub struct ConnectArguments {
    /// The broker's host
    #[arg(short = 'h', long, default_value = "localhost")]
    host: String,
    /// The broker's port
    #[arg(short, long, default_value_t = 1883)]
    port: u16,
    /// The client identifier; made up if not given
    #[arg(short, long, value_parser = field)]
    id: Option<String>,
    /// Make up a client identifier that begins with this
    #[arg(short = 'I', long, value_name = "PREFIX", value_parser = field, conflicts_with = "id")]
    id_prefix: Option<String>,
    /// Seconds without a packet after which to ask whether the broker is there; 0: never
    #[arg(short, long, value_name = "SECONDS", default_value_t = 60)]
    keepalive: u16,
    /// Resume the session of this client identifier, and leave it on the broker
    #[arg(short = 'c', long, requires = "id")]
    disable_clean_session: bool,
    /// The user name
    #[arg(short, long, value_name = "USER", value_parser = field)]
    username: Option<String>,
    /// The password, which other users of this machine may see: better is --password-file
    #[arg(
        short = 'P',
        long = "pw",
        value_name = "PASSWORD",
        requires = "username"
    )]
    #[arg(conflicts_with = "password_file", value_parser = field, allow_hyphen_values = true)]
    password: Option<String>,
    /// Read the password from the first line of this file
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// The version of MQTT: 3.1, 3.1.1 or 5
    #[arg(short = 'V', long, value_name = "VERSION", default_value = "3.1.1")]
    #[arg(value_parser = version)]
    protocol_version: Version,
    /// Tell of each packet on standard error
    #[arg(short, long)]
    debug: bool,
    /// Publish to this topic if the connection is lost
    #[arg(long, value_name = "TOPIC", value_parser = topic_name)]
    will_topic: Option<String>,
    /// The message for it; empty if not given
    #[arg(long, value_name = "MESSAGE", requires = "will_topic", value_parser = field)]
    #[arg(allow_hyphen_values = true)]
    will_payload: Option<String>,
    /// The quality of service for it: 0, 1 or 2
    #[arg(long, value_name = "QOS", requires = "will_topic", default_value = "0")]
    #[arg(value_parser = qos)]
    will_qos: Qos,
    /// Retain it
    #[arg(long, requires = "will_topic")]
    will_retain: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::HelpShort)]
    help: Option<bool>,
}

/// Parses `0`, `1` or `2`.
pub fn qos(text: &str) -> Result<Qos, String> {
    let bits = text.parse().ok();
    bits.and_then(Qos::from_bits)
        .ok_or_else(|| "it is 0, 1 or 2".to_owned())
}

/// Checks what a message is published to.
pub fn topic_name(text: &str) -> Result<String, String> {
    match TopicName::parse(text, TopicLimits::NONE) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Checks what is subscribed to.
pub fn topic_filter(text: &str) -> Result<String, String> {
    match TopicFilter::parse(text, TopicLimits::NONE) {
        Ok(filter) => Ok(filter.as_str().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Parses seconds, such as `0.5`.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse().ok();
    number
        .and_then(|secs| Duration::try_from_secs_f64(secs).ok())
        .filter(|span| *span < Duration::from_secs(u32::MAX.into()))
        .ok_or_else(|| "it is a number of seconds, such as 10 or 0.5".to_owned())
}

/// What a packet can carry as one field.
fn field(text: &str) -> Result<String, String> {
    if text.len() > FIELD_BYTES_MAX {
        return Err(format!("it is longer than {FIELD_BYTES_MAX} bytes"));
    }
    Ok(text.to_owned())
}

/// Parses a version of MQTT, also as mosquitto's clients name it.
pub fn version(text: &str) -> Result<Version, String> {
    match text {
        "3.1" | "31" | "mqttv31" => Ok(Version::V3_1),
        "3.1.1" | "311" | "mqttv311" => Ok(Version::V3_1_1),
        "5" | "5.0" | "mqttv5" => Ok(Version::V5),
        _ => Err("it is 3.1, 3.1.1 or 5".to_owned()),
    }
}

/// Connects, does `work`, and disconnects; so it does at once when the process
/// is told to stop, which is no failure.
///
/// # Errors
/// What keeps from connecting, or of `work`, as a sentence.
pub fn run(connect: &ConnectArguments, work: impl AsyncFnOnce(&mut Client) -> Outcome) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let mut stopped = pin!(stopped()?);
        let mut client = select! {
            client = Client::connect(connect) => client?,
            () = &mut stopped => return Ok(ExitCode::SUCCESS),
        };
        let outcome = select! {
            outcome = work(&mut client) => outcome,
            () = &mut stopped => Ok(ExitCode::SUCCESS),
        };
        client.disconnect().await;
        outcome
    });
    // A name that is still looked up is not waited for.
    runtime.shutdown_background();
    outcome
}

/// Waits for SIGINT or SIGTERM.
fn stopped() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// The lines of standard input as they come, without their ends.
///
/// Must be called once: a thread reads ahead, by a few lines.
pub fn stdin_lines() -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(8);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let limit = REMAINING_BYTES_MAX as u64;
            let read = stdin.by_ref().take(limit).read_until(b'\n', &mut line);
            let line = match read {
                Ok(0) => return,
                Ok(bytes) if line.last() != Some(&b'\n') && bytes as u64 == limit => {
                    Err(io::Error::other("a line is longer than a packet can be"))
                }
                Ok(_) => {
                    line.pop_if(|last| *last == b'\n');
                    Ok(line)
                }
                Err(error) => Err(error),
            };
            let failed = line.is_err();
            if sender.blocking_send(line).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

/// All of `source`, which is to be a message.
pub fn read_payload(source: impl Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut payload = Vec::new();
    source
        .take(REMAINING_BYTES_MAX as u64)
        .read_to_end(&mut payload)
        .map_err(|error| Failure::new(format!("cannot read {name}: {error}")))?;
    Ok(payload)
}

/// Opens a file, or says that it cannot be.
pub fn open(path: &Path) -> Result<File, Failure> {
    File::open(path)
        .map_err(|error| Failure::new(format!("cannot open {}: {error}", path.display())))
}

/// Tells of something that does not end the command.
pub fn warn(text: &str) {
    // There is nobody left to tell that standard error is closed.
    _ = writeln!(io::stderr().lock(), "rotamq: {text}");
}

/// A reason as words: `NotAuthorized` as `not authorized (0x87)`.
pub fn words(reason: ReasonCode) -> String {
    let mut text = String::new();
    for char in format!("{reason:?}").chars() {
        if char.is_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.extend(char.to_lowercase());
    }
    format!("{text} (0x{:02X})", reason as u8)
}

/// A connection to a broker that accepted it.
///
/// In two parts, so that an answer can be sent while a packet is looked at.
pub struct Client {
    pub receiver: Receiver,
    pub sender: Sender,
    /// PUBLISHes of QoS 1 and 2 that the broker takes unacknowledged.
    pub receive_max: u16,
}

/// What comes from the broker.
pub struct Receiver {
    stream: OwnedReadHalf,
    bytes: Vec<u8>,
    /// Of `bytes`, what was given out.
    taken: usize,
    version: Version,
    debug: bool,
}

/// What goes to the broker.
pub struct Sender {
    stream: OwnedWriteHalf,
    bytes: Vec<u8>,
    /// Of `bytes`, what was written.
    written: usize,
    version: Version,
    debug: bool,
    keep_alive: Option<Duration>,
    /// When the last packet was sent.
    sent: Instant,
    /// Whether a PINGREQ is not answered yet.
    pinged: bool,
    /// The broker's, of a whole packet.
    packet_bytes_max: usize,
    packet_id: PacketId,
}

impl Client {
    async fn connect(arguments: &ConnectArguments) -> Result<Client, Failure> {
        let place = format!("{}:{}", arguments.host, arguments.port);
        let connected = TcpStream::connect((arguments.host.as_str(), arguments.port));
        let stream = match timeout(CONNECT_TIMEOUT, connected).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                return Err(Failure::new(format!("cannot connect to {place}: {error}")));
            }
            Err(_) => {
                let secs = CONNECT_TIMEOUT.as_secs();
                let text = format!("cannot connect to {place}: no answer within {secs} seconds");
                return Err(Failure::new(text));
            }
        };
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        let version = arguments.protocol_version;
        let keep_alive = Duration::from_secs(arguments.keepalive.into());
        let mut client = Client {
            receiver: Receiver {
                stream: reader,
                bytes: Vec::new(),
                taken: 0,
                version,
                debug: arguments.debug,
            },
            sender: Sender {
                stream: writer,
                bytes: Vec::new(),
                written: 0,
                version,
                debug: arguments.debug,
                keep_alive: Some(keep_alive).filter(|span| !span.is_zero()),
                sent: Instant::now(),
                pinged: false,
                packet_bytes_max: REMAINING_BYTES_MAX,
                packet_id: PacketId::MAX,
            },
            receive_max: u16::MAX,
        };
        client.send_connect(arguments)?;
        match timeout(CONNECT_TIMEOUT, client.connack()).await {
            Ok(connack) => connack?,
            Err(_) => {
                let secs = CONNECT_TIMEOUT.as_secs();
                let text = format!("{place} sent no CONNACK within {secs} seconds");
                return Err(Failure::new(text));
            }
        }
        Ok(client)
    }

    fn send_connect(&mut self, arguments: &ConnectArguments) -> Result<(), Failure> {
        let password = match (&arguments.password, &arguments.password_file) {
            (Some(password), _) => Some(password.clone().into_bytes()),
            (None, Some(path)) => Some(password_of(path)?),
            (None, None) => None,
        };
        let random = || RandomState::new().hash_one(std::process::id());
        let id = arguments.id.clone().unwrap_or_else(|| {
            // 23 characters, which every broker takes [MQTT-3.1.3-5].
            let prefix = arguments.id_prefix.as_deref().unwrap_or("rotamq-");
            format!("{prefix}{:016x}", random())
        });
        let mut properties = PropertiesBuf::new();
        if self.sender.version == Version::V5 && arguments.disable_clean_session {
            properties.push(Property::SessionExpiryInterval(u32::MAX));
        }
        let connect = Connect {
            version: self.sender.version,
            clean_start: !arguments.disable_clean_session,
            keep_alive_secs: arguments.keepalive,
            properties: properties.as_properties(),
            client_id: field(&id).map(|_| id.as_str())?,
            will: arguments.will_topic.as_deref().map(|topic| Will {
                topic,
                payload: arguments.will_payload.as_deref().unwrap_or("").as_bytes(),
                qos: arguments.will_qos,
                retain: arguments.will_retain,
                properties: Properties::EMPTY,
            }),
            user_name: arguments.username.as_deref(),
            password: password.as_deref(),
        };
        self.sender.send(&Packet::Connect(connect));
        Ok(())
    }

    /// Waits until the broker has accepted the connection.
    async fn connack(&mut self) -> Result<(), Failure> {
        self.sender.flush().await?;
        loop {
            match self.receiver.packet()? {
                None => {}
                Some(Packet::Connack(connack)) if connack.reason == ReasonCode::Success => {
                    for property in connack.properties.iter() {
                        match property {
                            Property::ReceiveMaximum(max) => self.receive_max = max.get(),
                            Property::MaximumPacketSize(max) => {
                                self.sender.packet_bytes_max = max.get() as usize;
                            }
                            Property::ServerKeepAlive(secs) => {
                                let span = Duration::from_secs(secs.into());
                                self.sender.keep_alive = Some(span).filter(|span| !span.is_zero());
                            }
                            _ => {}
                        }
                    }
                    return Ok(());
                }
                Some(Packet::Connack(connack)) => {
                    let reason = words(connack.reason);
                    let text = format!("the broker refused the connection: {reason}");
                    return Err(Failure::new(text));
                }
                Some(_) => return Err(Failure::new("the broker answered without a CONNACK")),
            }
            self.receiver.fill().await?;
        }
    }

    /// Says good-bye and waits a moment for the broker to have read it: closed
    /// at once, a connection may take along what is on the way.
    async fn disconnect(mut self) {
        self.sender.send(&Packet::Disconnect(Disconnect {
            reason: ReasonCode::Success,
            properties: Properties::EMPTY,
        }));
        let closed = async {
            if self.sender.flush().await.is_ok() && self.sender.stream.shutdown().await.is_ok() {
                while self.receiver.fill().await.is_ok() {
                    self.receiver.taken = self.receiver.bytes.len();
                }
            }
        };
        _ = timeout(DISCONNECT_TIMEOUT, closed).await;
    }
}

/// The first line of a file.
fn password_of(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut password = Vec::new();
    let file = open(path)?.take(FIELD_BYTES_MAX as u64 + 2);
    io::BufReader::new(file)
        .read_until(b'\n', &mut password)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
    password.pop_if(|last| *last == b'\n');
    password.pop_if(|last| *last == b'\r');
    if password.len() > FIELD_BYTES_MAX {
        return Err(Failure::new(format!(
            "the password is longer than {FIELD_BYTES_MAX} bytes"
        )));
    }
    Ok(password)
}

impl Receiver {
    /// The next packet of what was read; `None`: [fill](Receiver::fill) first.
    pub fn packet(&mut self) -> Result<Option<Packet<'_>>, Failure> {
        let max = REMAINING_BYTES_MAX;
        let decoded = decode(&self.bytes[self.taken..], self.version, max)
            .map_err(|error| Failure::new(format!("the broker sent no valid packet: {error}")))?;
        let Some((packet, bytes)) = decoded else {
            return Ok(None);
        };
        self.taken += bytes;
        if self.debug {
            warn(&format!("received {}", describe(&packet)));
        }
        if let Packet::Disconnect(disconnect) = &packet {
            let reason = words(disconnect.reason);
            return Err(Failure::new(format!(
                "the broker closed the connection: {reason}"
            )));
        }
        Ok(Some(packet))
    }

    /// Waits for more bytes. Nothing is lost when it is not waited for.
    ///
    /// # Errors
    /// The connection is closed, or broken.
    pub async fn fill(&mut self) -> Result<(), Failure> {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.bytes).await {
            Ok(0) => Err(Failure::new("the broker closed the connection")),
            Ok(_) => Ok(()),
            Err(error) => Err(lost(&error)),
        }
    }
}

fn lost(error: &io::Error) -> Failure {
    Failure::new(format!("the connection to the broker is lost: {error}"))
}

impl Sender {
    /// Queues a packet until [flush](Sender::flush).
    pub fn send(&mut self, packet: &Packet<'_>) {
        if self.debug {
            warn(&format!("sending {}", describe(packet)));
        }
        encode(packet, self.version, &mut self.bytes);
    }

    /// Queues a PUBLISH, with the next packet identifier for QoS 1 and 2.
    ///
    /// # Errors
    /// It is longer than a packet can be, or than the broker takes.
    pub fn publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: Qos,
        retain: bool,
    ) -> Result<Option<PacketId>, Failure> {
        // Fixed header, topic length, packet identifier, no properties.
        let bytes = 5 + 2 + topic.len() + 2 + 1 + payload.len();
        if bytes > self.packet_bytes_max {
            return Err(Failure::new(format!(
                "a message of {} bytes is too long: a packet has at most {}",
                payload.len(),
                self.packet_bytes_max
            )));
        }
        let packet_id = (qos != Qos::AtMostOnce).then(|| self.next_packet_id());
        self.send(&Packet::Publish(Publish {
            dup: false,
            qos,
            retain,
            topic,
            packet_id,
            properties: Properties::EMPTY,
            payload,
        }));
        Ok(packet_id)
    }

    /// Goes round; whoever has as many as 65,535 unacknowledged waits.
    pub fn next_packet_id(&mut self) -> PacketId {
        self.packet_id = self.packet_id.checked_add(1).unwrap_or(PacketId::MIN);
        self.packet_id
    }

    /// Writes what is queued. Nothing is written twice, or lost, when it is
    /// not waited for.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn flush(&mut self) -> Result<(), Failure> {
        while self.written < self.bytes.len() {
            let written = self.stream.write(&self.bytes[self.written..]).await;
            self.written += written.map_err(|error| lost(&error))?;
            self.sent = Instant::now();
        }
        self.bytes.clear();
        self.written = 0;
        Ok(())
    }

    /// Waits until nothing was sent for the keep alive time, and then queues
    /// a PINGREQ [MQTT-3.1.2-23].
    ///
    /// # Errors
    /// The last one has not been answered.
    pub async fn keep_alive(&mut self) -> Result<(), Failure> {
        let Some(span) = self.keep_alive else {
            return std::future::pending().await;
        };
        sleep_until(self.sent + span).await;
        if self.pinged {
            let text = format!("the broker has not answered for {} seconds", span.as_secs());
            return Err(Failure::new(text));
        }
        self.pinged = true;
        self.send(&Packet::Pingreq);
        Ok(())
    }

    /// A PINGRESP has come.
    pub fn pinged_back(&mut self) {
        self.pinged = false;
    }
}

/// A packet in a line, without what is secret or long.
fn describe(packet: &Packet<'_>) -> String {
    match packet {
        Packet::Connect(connect) => format!(
            "CONNECT as {:?}, clean session {}, keep alive {} s, user {:?}, will {:?}",
            connect.client_id,
            u8::from(connect.clean_start),
            connect.keep_alive_secs,
            connect.user_name,
            connect.will.as_ref().map(|will| will.topic)
        ),
        Packet::Connack(connack) => format!(
            "CONNACK: {}, session present {}",
            words(connack.reason),
            u8::from(connack.session_present)
        ),
        Packet::Publish(publish) => format!(
            "PUBLISH {} to {:?}: QoS {}, dup {}, retain {}, {} bytes",
            publish.packet_id.map_or(0, PacketId::get),
            publish.topic,
            publish.qos as u8,
            u8::from(publish.dup),
            u8::from(publish.retain),
            publish.payload.len()
        ),
        Packet::Puback(ack) => format!("PUBACK {}: {}", ack.packet_id, words(ack.reason)),
        Packet::Pubrec(ack) => format!("PUBREC {}: {}", ack.packet_id, words(ack.reason)),
        Packet::Pubrel(ack) => format!("PUBREL {}: {}", ack.packet_id, words(ack.reason)),
        Packet::Pubcomp(ack) => format!("PUBCOMP {}: {}", ack.packet_id, words(ack.reason)),
        Packet::Subscribe(subscribe) => {
            let filters = subscribe.filters.iter();
            let filters: Vec<_> = filters
                .map(|(filter, options)| format!("{filter:?} at QoS {}", options.qos as u8))
                .collect();
            format!("SUBSCRIBE {}: {}", subscribe.packet_id, filters.join(", "))
        }
        Packet::Suback(suback) => {
            let reasons: Vec<_> = suback.reasons.iter().copied().map(words).collect();
            format!("SUBACK {}: {}", suback.packet_id, reasons.join(", "))
        }
        Packet::Unsubscribe(unsubscribe) => {
            format!(
                "UNSUBSCRIBE {}: {:?}",
                unsubscribe.packet_id, unsubscribe.filters
            )
        }
        Packet::Unsuback(unsuback) => format!("UNSUBACK {}", unsuback.packet_id),
        Packet::Pingreq => "PINGREQ".to_owned(),
        Packet::Pingresp => "PINGRESP".to_owned(),
        Packet::Disconnect(disconnect) => format!("DISCONNECT: {}", words(disconnect.reason)),
        Packet::Auth(auth) => format!("AUTH: {}", words(auth.reason)),
    }
}
