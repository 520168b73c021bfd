//! What `rotamq pub`, `rotamq sub` and `rotamq queue` share: a connection to any
//! broker.
//!
//! Keeps to what the broker said in CONNACK, and knows the topics behind the
//! broker's aliases. Knows nothing of what is published or subscribed to.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::io::{self, BufRead, Read, Write};
use std::num::NonZeroU16;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::{TcpStream, UnixStream};
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use super::arguments::{ConnectArguments, field};
use super::property::GivenProperties;
use super::{Failure, Kind, Outcome, describe, tls};
use crate::message::{PacketId, Qos};
use crate::protocol::{
    Connack, Connect, Disconnect, Packet, PacketType, Property, Publish, REMAINING_BYTES_MAX,
    ReasonCode, Version, Will, decode, encode,
};

// For `bench`, which has a connection of its own.
pub use super::arguments::{qos, version};
pub use super::describe::words;

/// For the connection, the handshake of TLS with it, and then for CONNACK.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// For the broker to close after DISCONNECT [MQTT-3.14.4-1].
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The most that a packet can have.
const PACKET_BYTES_MAX: usize = 5 + REMAINING_BYTES_MAX;
/// Read at once.
const READ_BYTES: usize = 64 << 10;

/// TCP or a Unix socket, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// Connects, does `work`, and disconnects; so it does at once when the process
/// is told to stop, which is no failure.
///
/// # Errors
/// What keeps from connecting, or of `work`, as a sentence.
pub fn run(
    connect: &ConnectArguments,
    properties: &GivenProperties,
    work: impl AsyncFnOnce(&mut Client) -> Outcome,
) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let mut stopped = pin!(stopped()?);
        let mut client = select! {
            client = Client::connect(connect, properties) => client?,
            () = &mut stopped => return Ok(ExitCode::SUCCESS),
        };
        let outcome = select! {
            outcome = work(&mut client) => outcome,
            () = &mut stopped => Ok(ExitCode::SUCCESS),
        };
        client.disconnect(properties).await;
        outcome
    });
    // A name that is still looked up is not waited for.
    runtime.shutdown_background();
    outcome
}

/// Waits for SIGINT or SIGTERM.
pub fn stopped() -> io::Result<impl Future<Output = ()>> {
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

/// A connection to a broker that accepted it.
///
/// In two parts, so that an answer can be sent while a packet is looked at.
pub struct Client {
    pub receiver: Receiver,
    pub sender: Sender,
}

/// What comes from the broker.
pub struct Receiver {
    stream: ReadHalf<Box<dyn Stream>>,
    bytes: Vec<u8>,
    /// Of `bytes`, what was given out.
    taken: usize,
    version: Version,
    debug: bool,
    /// Ours, of a whole packet.
    packet_bytes_max: usize,
    /// The highest topic alias that we take.
    topic_alias_max: u16,
    /// The topics behind the broker's aliases.
    aliases: HashMap<NonZeroU16, String>,
    /// What our DISCONNECT is to say; `None`: the broker has sent one, and
    /// reads nothing more (3.14.4).
    farewell: Option<ReasonCode>,
    /// TLS has said why there is no connection.
    refused_by_tls: bool,
}

/// What goes to the broker.
pub struct Sender {
    stream: WriteHalf<Box<dyn Stream>>,
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
    packet_id: PacketId,
    pub limits: Limits,
}

/// What a broker takes, as its CONNACK says (3.2.2.3).
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// PUBLISHes of QoS 1 and 2 that it takes unacknowledged.
    pub receive_max: u16,
    /// Of a whole packet.
    packet_bytes_max: usize,
    topic_alias_max: u16,
    qos_max: Qos,
    retain: bool,
    pub subscription_ids: bool,
}

impl Limits {
    /// Those of a broker that says nothing.
    const NONE: Limits = Limits {
        receive_max: u16::MAX,
        packet_bytes_max: PACKET_BYTES_MAX,
        topic_alias_max: 0,
        qos_max: Qos::ExactlyOnce,
        retain: true,
        subscription_ids: true,
    };

    /// Whether a message may be sent.
    fn check(&self, publish: &Publish<'_>) -> Result<(), Failure> {
        if publish.qos > self.qos_max {
            // [MQTT-3.2.2-11]
            return Err(Failure::new(format!(
                "the broker takes messages of at most QoS {}",
                self.qos_max as u8
            )));
        }
        if publish.retain && !self.retain {
            return Err(Failure::new("the broker retains no messages")); // [MQTT-3.2.2-14]
        }
        for property in publish.properties.iter() {
            if let Property::TopicAlias(alias) = property
                && alias.get() > self.topic_alias_max
            {
                // [MQTT-3.2.2-17], [MQTT-3.2.2-18]
                return Err(Failure::new(match self.topic_alias_max {
                    0 => "the broker takes no topic alias".to_owned(),
                    max => format!("the broker takes topic aliases of at most {max}"),
                }));
            }
        }
        Ok(())
    }
}

impl Client {
    async fn connect(
        arguments: &ConnectArguments,
        properties: &GivenProperties,
    ) -> Result<Client, Failure> {
        let place = arguments.place();
        let stream = match timeout(CONNECT_TIMEOUT, connect(arguments)).await {
            Ok(connected) => connected?,
            Err(_) => {
                let secs = CONNECT_TIMEOUT.as_secs();
                let text = format!("cannot connect to {place}: no answer within {secs} seconds");
                return Err(Failure::of(Kind::Unavailable, text));
            }
        };
        let (reader, writer) = split(stream);
        let version = arguments.protocol_version;
        let keep_alive = Duration::from_secs(arguments.keepalive.into());
        let mut receiver = Receiver {
            stream: reader,
            bytes: Vec::new(),
            taken: 0,
            version,
            debug: arguments.debug,
            packet_bytes_max: PACKET_BYTES_MAX,
            topic_alias_max: 0,
            aliases: HashMap::new(),
            farewell: Some(ReasonCode::Success),
            refused_by_tls: false,
        };
        for property in properties.of(PacketType::Connect).iter() {
            match property {
                Property::MaximumPacketSize(max) => receiver.packet_bytes_max = max.get() as usize,
                Property::TopicAliasMaximum(max) => receiver.topic_alias_max = max,
                _ => {}
            }
        }
        let sender = Sender {
            stream: writer,
            bytes: Vec::new(),
            written: 0,
            version,
            debug: arguments.debug,
            keep_alive: Some(keep_alive).filter(|span| !span.is_zero()),
            sent: Instant::now(),
            pinged: false,
            packet_id: PacketId::MAX,
            limits: Limits::NONE,
        };
        let mut client = Client { receiver, sender };
        client.send_connect(arguments, properties)?;
        match timeout(CONNECT_TIMEOUT, client.connack()).await {
            Ok(Ok(())) => Ok(client),
            Ok(Err(_)) if client.speaks_tls() => {
                Err(Failure::new(format!("{place} speaks TLS: add --cafile")))
            }
            Ok(Err(failure)) if client.does_not_speak_5() => {
                Err(failure.and("if it does not speak MQTT 5, add -V 3.1.1"))
            }
            Ok(Err(failure)) => Err(failure),
            Err(_) => {
                let secs = CONNECT_TIMEOUT.as_secs();
                let text = format!("{place} sent no CONNACK within {secs} seconds");
                Err(Failure::of(Kind::Unavailable, text))
            }
        }
    }

    fn send_connect(
        &mut self,
        arguments: &ConnectArguments,
        properties: &GivenProperties,
    ) -> Result<(), Failure> {
        let password = arguments.password()?;
        let random = || RandomState::new().hash_one(std::process::id());
        let id = arguments.id.clone().unwrap_or_else(|| {
            // 23 characters, which every broker takes [MQTT-3.1.3-5].
            let prefix = arguments.id_prefix.as_deref().unwrap_or("rotamq-");
            format!("{prefix}{:016x}", random())
        });
        let connect = Connect {
            version: self.sender.version,
            clean_start: !arguments.disable_clean_session,
            keep_alive_secs: arguments.keepalive,
            properties: properties.of(PacketType::Connect),
            client_id: field(&id).map(|_| id.as_str())?,
            will: arguments.will_topic.as_deref().map(|topic| Will {
                topic,
                payload: arguments.will_payload.as_deref().unwrap_or("").as_bytes(),
                qos: arguments.will_qos,
                retain: arguments.will_retain,
                properties: properties.of(PacketType::Will),
            }),
            user_name: arguments.username.as_deref(),
            password: password.as_deref(),
        };
        self.sender.send(&Packet::Connect(connect))
    }

    /// Waits until the broker has accepted the connection.
    async fn connack(&mut self) -> Result<(), Failure> {
        // If it is closed already, what is to be read may say why.
        _ = self.sender.flush().await;
        loop {
            match self.receiver.packet()? {
                None => {}
                Some(Packet::Connack(connack)) => return self.sender.agree(&connack),
                Some(Packet::Auth(_)) => {
                    let text = "the broker asks for enhanced authentication, \
                                which is not done from the command line";
                    return Err(Failure::new(text));
                }
                Some(_) => return Err(Failure::new("the broker answered without a CONNACK")),
            }
            self.receiver.fill().await?;
        }
    }

    /// Whether what kept from connecting looks like a broker that knows no
    /// MQTT 5: it closes, answers in the old form, or says so (3.1.2.2).
    fn does_not_speak_5(&self) -> bool {
        if self.receiver.version != Version::V5 || self.receiver.refused_by_tls {
            return false;
        }
        let answer = &self.receiver.bytes;
        let decoded = |version| decode(answer, version, PACKET_BYTES_MAX);
        let says_so = match decoded(Version::V5) {
            Ok(Some((Packet::Connack(connack), _))) => {
                connack.reason == ReasonCode::UnsupportedProtocolVersion
            }
            _ => matches!(decoded(Version::V3_1_1), Ok(Some((Packet::Connack(_), _)))),
        };
        answer.is_empty() || says_so
    }

    /// Whether the answer is TLS's: an alert (RFC 8446, 5.1), as MQTT was none.
    fn speaks_tls(&self) -> bool {
        self.receiver.bytes.starts_with(&[21, 3])
    }

    /// Says good-bye and waits a moment for the broker to have read it: closed
    /// at once, a connection may take along what is on the way.
    async fn disconnect(mut self, properties: &GivenProperties) {
        let closed = async move {
            if let Some(reason) = self.receiver.farewell {
                let properties = properties.of(PacketType::Disconnect);
                self.sender
                    .send(&Packet::Disconnect(Disconnect { reason, properties }))?;
                self.sender.flush().await?;
            }
            self.sender.stream.shutdown().await?;
            while self.receiver.fill().await.is_ok() {
                self.receiver.taken = self.receiver.bytes.len();
            }
            Ok::<(), Failure>(())
        };
        // However it goes, the connection is over then.
        _ = timeout(DISCONNECT_TIMEOUT, closed).await;
    }
}

/// Connects to the broker, and shakes hands where TLS is asked for.
async fn connect(arguments: &ConnectArguments) -> Result<Box<dyn Stream>, Failure> {
    let place = arguments.place();
    let failed = |kind, why: &str| {
        let text = format!("cannot connect to {place}: {why}");
        Failure::of(kind, text)
    };
    let host = arguments.host();
    let tls = match arguments.tls.read()? {
        Some(config) => Some((
            TlsConnector::from(Arc::new(config)),
            tls::server_name(host)?,
        )),
        None => None,
    };
    let connected: io::Result<Box<dyn Stream>> = match &arguments.unix {
        Some(path) => UnixStream::connect(path)
            .await
            .map(|stream| Box::new(stream) as _),
        None => match TcpStream::connect((host, arguments.port())).await {
            Ok(stream) => stream.set_nodelay(true).map(|()| Box::new(stream) as _),
            Err(error) => Err(error),
        },
    };
    let stream = connected.map_err(|error| failed(Kind::Unavailable, &error.to_string()))?;
    let Some((connector, name)) = tls else {
        return Ok(stream);
    };
    match connector.connect(name, stream).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => {
            let why = tls::explain(&error).unwrap_or_else(|| {
                format!("no handshake of TLS ({error}): does the broker speak it there?")
            });
            Err(failed(Kind::Failed, &why))
        }
    }
}

/// What a refusal by the broker is to a script.
pub fn kind(reason: ReasonCode) -> Kind {
    match reason {
        ReasonCode::BadUserNameOrPassword
        | ReasonCode::NotAuthorized
        | ReasonCode::BadAuthenticationMethod
        | ReasonCode::Banned => Kind::Denied,
        ReasonCode::ServerUnavailable
        | ReasonCode::ServerBusy
        | ReasonCode::ServerShuttingDown
        | ReasonCode::UseAnotherServer
        | ReasonCode::ServerMoved => Kind::Unavailable,
        _ => Kind::Failed,
    }
}

impl Receiver {
    /// The next packet of what was read; `None`: [fill](Receiver::fill) first.
    ///
    /// A PUBLISH has its topic, also where the broker sent an alias for it.
    ///
    /// # Errors
    /// The broker closes the connection, or what it sent is not valid.
    pub fn packet(&mut self) -> Result<Option<Packet<'_>>, Failure> {
        let bytes = &self.bytes[self.taken..];
        let (mut packet, bytes) = match decode(bytes, self.version, self.packet_bytes_max) {
            Ok(Some(decoded)) => decoded,
            Ok(None) => return Ok(None),
            Err(error) => {
                self.farewell = Some(error.reason);
                let text = format!("the broker sent no valid packet: {error}");
                return Err(Failure::new(text));
            }
        };
        self.taken += bytes;
        if self.debug {
            warn(&format!("received {}", describe::packet(&packet)));
        }
        match &mut packet {
            Packet::Publish(publish) => {
                if let Err(text) = resolve(publish, &mut self.aliases, self.topic_alias_max) {
                    self.farewell = Some(ReasonCode::TopicAliasInvalid);
                    return Err(Failure::new(text));
                }
            }
            Packet::Disconnect(disconnect) => {
                self.farewell = None;
                let why = describe::why(disconnect.reason, disconnect.properties);
                let text = format!("the broker closed the connection: {why}");
                return Err(Failure::new(text));
            }
            _ => {}
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
            Err(error) => {
                self.refused_by_tls = tls::explain(&error).is_some();
                Err(lost(&error))
            }
        }
    }
}

/// Gives a PUBLISH the topic that its alias stands for, or the alias its topic
/// (3.3.2.3.4).
fn resolve<'a>(
    publish: &mut Publish<'a>,
    aliases: &'a mut HashMap<NonZeroU16, String>,
    alias_max: u16,
) -> Result<(), String> {
    let alias = publish
        .properties
        .iter()
        .find_map(|property| match property {
            Property::TopicAlias(alias) => Some(alias),
            _ => None,
        });
    let Some(alias) = alias else {
        return Ok(());
    };
    if alias.get() > alias_max {
        // [MQTT-3.1.2-26], [MQTT-3.1.2-27]
        return Err(format!(
            "the broker sent topic alias {alias}; it may use at most {alias_max}"
        ));
    }
    if !publish.topic.is_empty() {
        aliases.insert(alias, publish.topic.to_owned());
        return Ok(());
    }
    match aliases.get(&alias) {
        Some(topic) => publish.topic = topic,
        None => {
            return Err(format!(
                "the broker sent topic alias {alias} without a topic"
            ));
        }
    }
    Ok(())
}

fn lost(error: &io::Error) -> Failure {
    let why = tls::explain(error).unwrap_or_else(|| error.to_string());
    Failure::new(format!("the connection to the broker is lost: {why}"))
}

impl Sender {
    /// Keeps to what a CONNACK says.
    ///
    /// # Errors
    /// It refuses the connection.
    fn agree(&mut self, connack: &Connack<'_>) -> Result<(), Failure> {
        if connack.reason != ReasonCode::Success {
            let why = describe::why(connack.reason, connack.properties);
            let text = format!("the broker refused the connection: {why}");
            return Err(Failure::of(kind(connack.reason), text));
        }
        let limits = &mut self.limits;
        for property in connack.properties.iter() {
            match property {
                Property::ReceiveMaximum(max) => limits.receive_max = max.get(),
                Property::MaximumPacketSize(max) => limits.packet_bytes_max = max.get() as usize,
                Property::TopicAliasMaximum(max) => limits.topic_alias_max = max,
                Property::MaximumQos(max) => limits.qos_max = max,
                Property::RetainAvailable(available) => limits.retain = available,
                Property::SubscriptionIdentifiersAvailable(available) => {
                    limits.subscription_ids = available;
                }
                Property::ServerKeepAlive(secs) => {
                    // [MQTT-3.1.2-21]
                    let span = Duration::from_secs(secs.into());
                    self.keep_alive = Some(span).filter(|span| !span.is_zero());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether packets have properties.
    pub fn has_properties(&self) -> bool {
        self.version == Version::V5
    }

    /// Queues a packet until [flush](Sender::flush).
    ///
    /// # Errors
    /// It is longer than the broker takes [MQTT-3.2.2-15].
    pub fn send(&mut self, packet: &Packet<'_>) -> Result<(), Failure> {
        let begin = self.bytes.len();
        encode(packet, self.version, &mut self.bytes);
        let (bytes, max) = (self.bytes.len() - begin, self.limits.packet_bytes_max);
        if bytes > max {
            self.bytes.truncate(begin);
            return Err(too_long(packet.packet_type(), bytes, max));
        }
        if self.debug {
            warn(&format!("sending {}", describe::packet(packet)));
        }
        Ok(())
    }

    /// Queues a PUBLISH, with the next packet identifier for QoS 1 and 2.
    ///
    /// # Errors
    /// It is longer than a packet can be, or not what the broker takes.
    pub fn publish(&mut self, mut publish: Publish<'_>) -> Result<Option<PacketId>, Failure> {
        self.limits.check(&publish)?;
        // Fixed header, topic, packet identifier, properties, at the longest.
        let properties = publish.properties.as_bytes().len();
        let bytes = 5 + 2 + publish.topic.len() + 2 + 4 + properties + publish.payload.len();
        if bytes > PACKET_BYTES_MAX {
            return Err(too_long(PacketType::Publish, bytes, PACKET_BYTES_MAX));
        }
        if publish.qos != Qos::AtMostOnce {
            publish.packet_id = Some(self.next_packet_id());
        }
        let packet_id = publish.packet_id;
        self.send(&Packet::Publish(publish))?;
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
        self.send(&Packet::Pingreq)
    }

    /// A PINGRESP has come.
    pub fn pinged_back(&mut self) {
        self.pinged = false;
    }
}

fn too_long(packet: PacketType, bytes: usize, max: usize) -> Failure {
    let name = format!("{packet:?}").to_uppercase();
    Failure::new(format!(
        "a {name} of {bytes} bytes is too long: the broker takes at most {max}"
    ))
}
