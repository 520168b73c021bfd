//! The sockets of one thread: many clients, one poll, one buffer to read
//! into and one to answer from. With TLS they are what a socket is without.
//!
//! Connects clients and subscribes them; everything after that is the
//! [`Conversation`]'s. A connection that lies idle owns no buffer.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::{Domain, Protocol, Socket, Type};

use super::frame::{DISCONNECT, Frame, PINGREQ, PINGRESP, Scanner};
use super::publication::Template;
use super::wire::{Input, Secure, Wire, is_closed};
use crate::cli::client::words;
use crate::cli::tls;
use crate::message::{PacketId, Qos};
use crate::protocol::{
    self, Connect, Packet, Properties, PropertiesBuf, Property, ReasonCode, Subscribe,
    SubscribeOptions, Version,
};

/// So many connections may wait for their CONNACK at once: fewer than the
/// 100 that a listener holds before it drops what comes.
const OPENING_MAX: usize = 64;
/// Of 28,000 ports that an address has.
const CONNECTIONS_PER_SOURCE_MAX: usize = 25_000;
const SOURCES_MAX: usize = 8;
const FILTERS_PER_SUBSCRIBE: usize = 100;
/// After so many full reads of one connection the others have their turn.
const READS_PER_TURN: usize = 4;
const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// How long MQTT 5 brokers keep the session of a client that is not clean.
const SESSION_EXPIRY_SECS: u32 = 3600;
const WAKE: Token = Token(usize::MAX);

/// The broker, and what all clients say to it.
#[derive(Clone, Debug)]
pub struct Target {
    pub address: SocketAddr,
    /// Whether TLS is spoken, and how.
    pub tls: Option<Secure>,
    pub version: Version,
    pub username: Option<String>,
    pub password: Option<String>,
    /// How many topic aliases the broker may use (MQTT 5).
    pub topic_alias_max: u16,
    /// 0: none, so that whoever only listens need not ping.
    pub keep_alive_secs: u16,
}

impl Target {
    /// Appends the CONNECT of a client.
    pub fn append_connect(&self, client: &Client, out: &mut Vec<u8>) {
        let mut properties = PropertiesBuf::new();
        if self.version == Version::V5 && !client.clean {
            properties.push(Property::SessionExpiryInterval(SESSION_EXPIRY_SECS));
        }
        if self.topic_alias_max > 0 {
            properties.push(Property::TopicAliasMaximum(self.topic_alias_max));
        }
        let connect = Connect {
            version: self.version,
            clean_start: client.clean,
            keep_alive_secs: self.keep_alive_secs,
            properties: properties.as_properties(),
            client_id: &client.id,
            will: None,
            user_name: self.username.as_deref(),
            password: self.password.as_deref().map(str::as_bytes),
        };
        protocol::encode(&Packet::Connect(connect), self.version, out);
    }

    /// How often a client pings.
    fn ping_period(&self) -> Option<Duration> {
        let keep_alive = Duration::from_secs(self.keep_alive_secs.into());
        (!keep_alive.is_zero()).then_some(keep_alive / 2)
    }
}

/// What the broker's CONNACK demands of a client; without MQTT 5, nothing.
#[derive(Clone, Copy, Debug)]
pub struct Demands {
    /// So many PUBLISHes of QoS 1 and 2 may be unacknowledged [MQTT-3.3.4-7].
    pub receive_max: u16,
    /// Of a whole packet [MQTT-3.2.2-15].
    packet_bytes_max: usize,
    /// The greatest topic alias [MQTT-3.2.2-17].
    topic_alias_max: u16,
    qos_max: Qos,
}

impl Demands {
    const NONE: Demands = Demands {
        receive_max: u16::MAX,
        packet_bytes_max: usize::MAX,
        topic_alias_max: 0,
        qos_max: Qos::ExactlyOnce,
    };

    /// Fails where the messages of `template` are not taken.
    pub fn check(&self, template: &Template) -> Result<(), String> {
        let frame_bytes = template.frame_bytes();
        if frame_bytes > self.packet_bytes_max {
            return Err(format!(
                "the broker takes packets of at most {} bytes, and a message makes {frame_bytes}: \
                 ask for a smaller --size",
                self.packet_bytes_max
            ));
        }
        if template.qos() > self.qos_max as u8 {
            return Err(format!(
                "the broker takes at most QoS {}: ask for it by --qos", // [MQTT-3.2.2-11]
                self.qos_max as u8
            ));
        }
        if template.sets_topic_alias() && self.topic_alias_max == 0 {
            return Err("the broker takes no topic aliases: leave --use-topic-alias out".into());
        }
        Ok(())
    }
}

/// One client to be connected.
#[derive(Clone, Debug)]
pub struct Client {
    pub id: String,
    /// Clean Session, or Clean Start.
    pub clean: bool,
    pub filters: Vec<String>,
    pub qos: Qos,
}

impl Client {
    /// The same one, come to end its session: a clean session under its name
    /// discards the old one [MQTT-3.1.2-6].
    pub fn ended(&self) -> Client {
        Client {
            clean: true,
            filters: Vec::new(),
            ..self.clone()
        }
    }
}

/// What is done with the frames of the clients that are connected.
pub trait Conversation {
    /// Bytes of `link` have been read; their frames follow.
    fn begin(&mut self, _link: usize) {}

    /// A frame of `link`. What is appended to `out` is written to it after
    /// the last frame of this read.
    fn frame(&mut self, link: usize, frame: Frame<'_>, out: &mut Vec<u8>) -> Result<(), String>;

    /// The frames of one read have been given.
    fn end(&mut self, _link: usize) {}

    /// The socket of `link`, which was full, has taken all.
    fn writable(&mut self, _link: usize) {}
}

/// A conversation in which only control packets are expected.
pub struct Silence;

impl Conversation for Silence {
    fn frame(&mut self, _: usize, frame: Frame<'_>, _: &mut Vec<u8>) -> Result<(), String> {
        match frame {
            Frame::Other(_) => Ok(()),
            frame => Err(format!(
                "the broker sent {frame:?} to a client that gets none"
            )),
        }
    }
}

pub struct Net {
    target: Target,
    poll: Poll,
    events: Events,
    links: Vec<Link>,
    input: Input,
    output: Vec<u8>,
    /// Links with more to read than one turn allows.
    unfinished: Vec<usize>,
    /// How often all links send PINGREQ, where the broker wants one at all,
    /// and when they did.
    ping_period: Option<Duration>,
    pinged_at: Instant,
    opening: usize,
    sources: Sources,
}

impl Net {
    /// `connects_before`: how many connections other threads make from the
    /// first source address on.
    pub fn new(target: &Target, connects_before: usize) -> Result<Net, String> {
        Ok(Net {
            target: target.clone(),
            poll: Poll::new().map_err(|error| format!("cannot poll sockets: {error}"))?,
            events: Events::with_capacity(1024),
            links: Vec::new(),
            input: Input::new(),
            output: Vec::new(),
            unfinished: Vec::new(),
            ping_period: target.ping_period(),
            pinged_at: Instant::now(),
            opening: 0,
            sources: Sources::new(connects_before),
        })
    }

    /// Wakes [`Net::poll`] from another thread.
    pub fn waker(&self) -> Result<Waker, String> {
        Waker::new(self.poll.registry(), WAKE).map_err(|error| format!("cannot poll: {error}"))
    }

    /// Connects all and subscribes them; returns their links. `progress` is
    /// called with the number of those that are done.
    pub fn connect(
        &mut self,
        clients: impl IntoIterator<Item = Client>,
        conversation: &mut impl Conversation,
        mut progress: impl FnMut(usize) -> Result<(), String>,
    ) -> Result<Range<usize>, String> {
        let start = self.links.len();
        let mut clients = clients.into_iter();
        let mut deadline = Instant::now() + CONNECT_WAIT;
        let mut done = 0;
        loop {
            while self.opening < OPENING_MAX
                && let Some(client) = clients.next()
            {
                self.open(client)?;
            }
            if self.opening == 0 {
                return Ok(start..self.links.len());
            }
            self.poll(Duration::from_millis(100), conversation)?;
            let done_now = self.links.len() - start - self.opening;
            if done_now != done {
                done = done_now;
                deadline = Instant::now() + CONNECT_WAIT;
            } else if Instant::now() > deadline {
                return Err(format!(
                    "the broker at {} left {} of {} clients without CONNACK or SUBACK for {} s",
                    self.target.address,
                    self.opening,
                    self.links.len() - start,
                    CONNECT_WAIT.as_secs()
                ));
            }
            progress(done)?;
        }
    }

    /// Waits for what comes until `timeout`, and handles it.
    pub fn poll(
        &mut self,
        timeout: Duration,
        conversation: &mut impl Conversation,
    ) -> Result<(), String> {
        let timeout = match self.unfinished.is_empty() {
            true => timeout,
            false => Duration::ZERO,
        };
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result.map_err(|error| format!("cannot poll sockets: {error}"))?,
        }
        if let Some(period) = self.ping_period
            && self.pinged_at.elapsed() >= period
        {
            self.pinged_at = Instant::now();
            for index in 0..self.links.len() {
                self.ping(index)?;
            }
        }
        for index in std::mem::take(&mut self.unfinished) {
            self.read(index, false, conversation)?;
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            let Token(index) = event.token();
            if event.token() == WAKE {
                continue;
            }
            let link = &mut self.links[index];
            if event.is_writable()
                && let Some(wire) = &mut link.wire
                && wire.pending_bytes() > 0
            {
                let flushed = wire.flush(link.state == State::Open);
                let is_empty = wire.pending_bytes() == 0;
                flushed.map_err(|error| link.failure(&self.target, &error))?;
                if is_empty {
                    conversation.writable(index);
                }
            }
            if event.is_readable() || event.is_error() {
                self.read(index, event.is_read_closed(), conversation)?;
            }
        }
        self.events = events;
        Ok(())
    }

    /// Writes to a link, or keeps what its socket does not take.
    pub fn write(&mut self, index: usize, bytes: &[u8]) -> Result<(), String> {
        let link = &mut self.links[index];
        link.write(bytes)
            .map_err(|error| link.failure(&self.target, &error))
    }

    /// How many bytes wait for the link's socket, which is full.
    pub fn pending_bytes(&self, index: usize) -> usize {
        let wire = self.links[index].wire.as_ref();
        wire.map_or(0, Wire::pending_bytes)
    }

    pub fn demands(&self, index: usize) -> &Demands {
        &self.links[index].demands
    }

    /// Asks the broker for a sign of life, if the link is open.
    pub fn ping(&mut self, index: usize) -> Result<(), String> {
        let link = &mut self.links[index];
        if link.wire.is_none() || link.state != State::Open {
            return Ok(());
        }
        link.pings += 1;
        self.write(index, &PINGREQ)
    }

    /// How many PINGREQs of a link are not answered yet.
    pub fn pings(&self, index: usize) -> u32 {
        self.links[index].pings
    }

    /// How often clients are to send a PINGREQ, where the broker wants any.
    pub fn ping_period(&self) -> Option<Duration> {
        self.ping_period
    }

    /// Hands the socket of an open link without TLS over, which blocks from now on; the
    /// link is as good as closed.
    pub fn take_socket(&mut self, index: usize) -> Result<std::net::TcpStream, String> {
        self.stop_reading(index)?;
        let link = &mut self.links[index];
        let wire = link.wire.take().ok_or("the link is closed")?;
        let socket = std::net::TcpStream::from(wire.into_socket());
        let blocking = socket.set_nonblocking(false);
        blocking.map_err(|error| link.failure(&self.target, &error))?;
        Ok(socket)
    }

    /// Nothing more is read from a link, whatever the broker sends.
    pub fn stop_reading(&mut self, index: usize) -> Result<(), String> {
        let link = &mut self.links[index];
        match &mut link.wire {
            Some(wire) => self
                .poll
                .registry()
                .deregister(wire.socket())
                .map_err(|error| format!("cannot poll sockets: {error}")),
            None => Ok(()),
        }
    }

    /// Says goodbye as far as the sockets take it, and closes them all.
    pub fn disconnect(&mut self, links: Range<usize>) {
        for link in &mut self.links[links] {
            if let Some(mut wire) = link.wire.take()
                && wire.pending_bytes() == 0
            {
                // The broker learns of the end by the close at the latest.
                _ = wire.write(&DISCONNECT).and_then(|()| wire.end());
            }
        }
    }

    /// Closes connections without a word, all at once.
    pub fn cut(&mut self, links: Range<usize>) -> Result<(), String> {
        for link in &mut self.links[links] {
            if let Some(wire) = link.wire.take() {
                let cut = wire.cut();
                cut.map_err(|error| format!("cannot cut a connection: {error}"))?;
            }
        }
        Ok(())
    }

    fn open(&mut self, client: Client) -> Result<(), String> {
        let address = self.target.address;
        let socket = self.sources.connect(address);
        let socket = socket.map_err(|error| format!("cannot connect to {address}: {error}"))?;
        let mut wire = Wire::new(socket, self.target.tls.as_ref())?;
        let registered = self.poll.registry().register(
            wire.socket(),
            Token(self.links.len()),
            Interest::READABLE | Interest::WRITABLE,
        );
        registered.map_err(|error| format!("cannot poll sockets: {error}"))?;
        let mut connect = Vec::new();
        self.target.append_connect(&client, &mut connect);
        let mut link = Link {
            wire: None,
            scanner: Scanner::default(),
            state: State::Connack(self.subscribes(&client)),
            demands: Demands::NONE,
            pings: 0,
            client_id: client.id.into(),
        };
        let queued = wire.queue(&connect);
        queued.map_err(|error| link.failure(&self.target, &error))?;
        link.wire = Some(wire);
        self.links.push(link);
        self.opening += 1;
        Ok(())
    }

    /// The SUBSCRIBEs of a client, and how many they are.
    fn subscribes(&self, client: &Client) -> Subscribes {
        let mut subscribes = Subscribes::default();
        for (number, filters) in (1..).zip(client.filters.chunks(FILTERS_PER_SUBSCRIBE)) {
            let start = subscribes.bytes.len();
            let packet_id = PacketId::new(number).expect("numbers start at one");
            let version = self.target.version;
            append_subscribe(
                packet_id,
                filters,
                client.qos,
                version,
                &mut subscribes.bytes,
            );
            subscribes.count = number;
            let packet_bytes = subscribes.bytes.len() - start;
            subscribes.packet_bytes_max = subscribes.packet_bytes_max.max(packet_bytes);
        }
        subscribes
    }

    fn read(
        &mut self,
        index: usize,
        closed: bool,
        conversation: &mut impl Conversation,
    ) -> Result<(), String> {
        let Net {
            target,
            links,
            input,
            output,
            opening,
            ping_period,
            ..
        } = self;
        let link = &mut links[index];
        for _ in 0..READS_PER_TURN {
            let Some(wire) = &mut link.wire else {
                return Ok(());
            };
            let arrived = match wire.read(input) {
                Ok(arrived) => arrived,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(link.failure(target, &error)),
            };
            let is_full = arrived.is_full;
            conversation.begin(index);
            let properties = target.version == Version::V5;
            let mut scanner = std::mem::take(&mut link.scanner);
            scanner.scan(arrived.bytes, properties, |frame| match frame {
                Frame::Other(packet) if matches!(packet[0] & 0xF0, 0x40..=0x70 | 0xE0) => {
                    Err(link.refusal(packet, target.version))
                }
                Frame::Other(packet) if link.state != State::Open => {
                    let keep_alive = link.handle_opening(packet, target.version, output)?;
                    *opening -= usize::from(link.state == State::Open);
                    if let Some(keep_alive) = keep_alive {
                        let period = keep_alive / 2;
                        *ping_period = Some(ping_period.unwrap_or(period).min(period));
                    }
                    Ok(())
                }
                Frame::Other(packet) if packet == PINGRESP => {
                    link.pings = link.pings.saturating_sub(1);
                    Ok(())
                }
                frame => conversation.frame(index, frame, output),
            })?;
            link.scanner = scanner;
            conversation.end(index);
            if !output.is_empty() {
                let written = link.write(output);
                output.clear();
                written.map_err(|error| link.failure(target, &error))?;
            }
            // A short read has emptied the socket (epoll(7)), but for the end.
            if !is_full && !closed {
                return Ok(());
            }
        }
        self.unfinished.push(index);
        Ok(())
    }
}

struct Link {
    /// `None` once it is closed.
    wire: Option<Wire>,
    scanner: Scanner,
    state: State,
    demands: Demands,
    /// Not answered yet.
    pings: u32,
    client_id: Box<str>,
}

#[derive(PartialEq, Eq)]
enum State {
    /// Waits for CONNACK, then sends these.
    Connack(Subscribes),
    /// Waits for so many SUBACKs.
    Suback(u16),
    Open,
}

#[derive(Default, PartialEq, Eq)]
struct Subscribes {
    bytes: Vec<u8>,
    count: u16,
    /// Of the greatest of them.
    packet_bytes_max: usize,
}

impl Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.wire {
            Some(wire) => wire.write(bytes),
            None => Ok(()),
        }
    }

    /// A packet before the client is subscribed; how long it may at most be
    /// silent, where the packet says so.
    fn handle_opening(
        &mut self,
        packet: &[u8],
        version: Version,
        out: &mut Vec<u8>,
    ) -> Result<Option<Duration>, String> {
        let mut keep_alive = None;
        let decoded = protocol::decode(packet, version, usize::MAX)
            .map_err(|error| format!("the broker sent a malformed packet: {error}"))?;
        let Some((packet, _)) = decoded else {
            return Err("the broker sent a packet that ends too early".into());
        };
        match (&mut self.state, packet) {
            (State::Connack(subscribes), Packet::Connack(connack)) => {
                if connack.reason != ReasonCode::Success {
                    return Err(format!(
                        "the broker refused client {}: {}",
                        self.client_id,
                        explain(connack.reason, connack.properties)
                    ));
                }
                let demands = &mut self.demands;
                for property in connack.properties.iter() {
                    match property {
                        Property::ReceiveMaximum(max) => demands.receive_max = max.get(),
                        Property::MaximumPacketSize(max) => {
                            demands.packet_bytes_max = max.get() as usize;
                        }
                        Property::TopicAliasMaximum(max) => demands.topic_alias_max = max,
                        Property::MaximumQos(max) => demands.qos_max = max,
                        Property::ServerKeepAlive(secs @ 1..) => {
                            keep_alive = Some(Duration::from_secs(secs.into())); // [MQTT-3.2.2-21]
                        }
                        _ => {}
                    }
                }
                if subscribes.packet_bytes_max > demands.packet_bytes_max {
                    return Err(format!(
                        "the broker takes packets of at most {} bytes, and a SUBSCRIBE has {}",
                        demands.packet_bytes_max, subscribes.packet_bytes_max
                    ));
                }
                out.append(&mut subscribes.bytes);
                self.state = match subscribes.count {
                    0 => State::Open,
                    count => State::Suback(count),
                };
            }
            (State::Suback(missing), Packet::Suback(suback)) => {
                check_granted(&suback.reasons, suback.properties).map_err(|why| {
                    let client = &self.client_id;
                    format!("the broker refused a subscription of client {client}: {why}")
                })?;
                *missing -= 1;
                if *missing == 0 {
                    self.state = State::Open;
                }
            }
            (_, packet) => {
                return Err(format!(
                    "the broker sent {packet:?} to client {}, which waited for a CONNACK or SUBACK",
                    self.client_id
                ));
            }
        }
        Ok(keep_alive)
    }

    /// What a DISCONNECT, or an acknowledgement that is none, says (MQTT 5).
    fn refusal(&self, packet: &[u8], version: Version) -> String {
        let client = &self.client_id;
        match protocol::decode(packet, version, usize::MAX) {
            Ok(Some((Packet::Disconnect(disconnect), _))) => {
                let why = explain(disconnect.reason, disconnect.properties);
                format!("the broker disconnected client {client}: {why}")
            }
            Ok(Some((Packet::Puback(ack) | Packet::Pubrec(ack), _))) => {
                let why = explain(ack.reason, ack.properties);
                format!("the broker refused a PUBLISH of client {client}: {why}")
            }
            Ok(Some((packet, _))) => format!("the broker sent {packet:?} to client {client}"),
            Ok(None) => "the broker sent a packet that ends too early".into(),
            Err(error) => format!("the broker sent a malformed packet: {error}"),
        }
    }

    fn failure(&self, target: &Target, error: &io::Error) -> String {
        let address = target.address;
        let client = &self.client_id;
        if let Some(why) = tls::explain(error) {
            return format!("client {client} and the broker at {address}: {why}");
        }
        match error.kind() {
            _ if is_closed(error) => {
                let when = match self.state {
                    State::Connack(_) => " before its CONNACK",
                    _ => "",
                };
                format!("the broker at {address} closed the connection of client {client}{when}")
            }
            io::ErrorKind::ConnectionRefused => {
                format!("nobody listens at {address}: connection refused; start the broker first")
            }
            _ => format!("the connection of client {client} to {address} failed: {error}"),
        }
    }
}

/// Appends the SUBSCRIBE of some filters.
pub fn append_subscribe(
    packet_id: PacketId,
    filters: &[String],
    qos: Qos,
    version: Version,
    out: &mut Vec<u8>,
) {
    let options = SubscribeOptions::new(qos);
    let subscribe = Subscribe {
        packet_id,
        properties: Properties::EMPTY,
        filters: filters.iter().map(|f| (f.as_str(), options)).collect(),
    };
    protocol::encode(&Packet::Subscribe(subscribe), version, out);
}

/// Whether a packet that came to a client that is subscribed is a SUBACK or
/// UNSUBACK. Fails where it says no.
pub fn is_granted(packet: &[u8], version: Version) -> Result<bool, String> {
    let malformed = |error| format!("the broker sent a malformed packet: {error}");
    let answer = match protocol::decode(packet, version, usize::MAX).map_err(malformed)? {
        Some((Packet::Suback(suback), _)) => check_granted(&suback.reasons, suback.properties),
        Some((Packet::Unsuback(ack), _)) => check_granted(&ack.reasons, ack.properties),
        _ => return Ok(false),
    };
    answer.map_err(|why| format!("the broker refused a SUBSCRIBE or UNSUBSCRIBE: {why}"))?;
    Ok(true)
}

fn check_granted(reasons: &[ReasonCode], properties: Properties<'_>) -> Result<(), String> {
    match reasons.iter().find(|reason| reason.is_failure()) {
        Some(reason) => Err(explain(*reason, properties)),
        None => Ok(()),
    }
}

/// A reason, and what the broker adds to it.
pub fn explain(reason: ReasonCode, properties: Properties<'_>) -> String {
    let mut text = words(reason);
    for property in properties.iter() {
        match property {
            Property::ReasonString(string) => text.push_str(&format!(", {string}")),
            Property::ServerReference(server) => text.push_str(&format!(", use {server}")),
            _ => {}
        }
    }
    text
}

/// Where connections come from: one address has too few ports for all.
#[derive(Debug)]
pub struct Sources {
    /// So many connections there are, each address filled before the next.
    connects: usize,
}

impl Sources {
    /// `connects_before`: how many connections others make from the first
    /// address on.
    pub fn new(connects_before: usize) -> Sources {
        Sources {
            connects: connects_before,
        }
    }

    /// A socket that connects, without waiting for it.
    pub fn connect(&mut self, address: SocketAddr) -> io::Result<TcpStream> {
        self.connect_by(address, start_connecting)
    }

    fn connect_by(
        &mut self,
        address: SocketAddr,
        start: impl Fn(SocketAddr, usize) -> io::Result<TcpStream>,
    ) -> io::Result<TcpStream> {
        loop {
            let source = self.connects / CONNECTIONS_PER_SOURCE_MAX;
            match start(address, source) {
                Err(error)
                    if has_no_port(&error) && is_loopback(address) && source < SOURCES_MAX =>
                {
                    // Others use this address too, or did just now.
                    self.connects = (source + 1) * CONNECTIONS_PER_SOURCE_MAX;
                }
                Err(error) => return Err(error),
                Ok(socket) => {
                    self.connects += 1;
                    return Ok(socket);
                }
            }
        }
    }

    /// A connection is no more, and its port is free.
    pub fn release(&mut self) {
        self.connects = self.connects.saturating_sub(1);
    }
}

/// A socket that connects without waiting, from the `source`th address.
fn start_connecting(address: SocketAddr, source: usize) -> io::Result<TcpStream> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if source > 0 && is_loopback(address) {
        let [a, b, c, d] = Ipv4Addr::LOCALHOST.octets();
        let source = Ipv4Addr::new(a, b, c, d + source as u8);
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    match socket.connect(&address.into()) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock && !in_progress(&error) => {
            return Err(error);
        }
        _ => {}
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// Whether the address that a socket was to connect from has no port free: as
/// connecting says it, or as binding does.
fn has_no_port(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse
    )
}

fn in_progress(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINPROGRESS)
}

/// Whether there are many addresses to connect from.
fn is_loopback(address: SocketAddr) -> bool {
    matches!(address.ip(), IpAddr::V4(ip) if ip.is_loopback())
}

/// Raises the soft limit of open files as far as it goes.
///
/// Fails where `connections` do not fit the hard limit.
pub fn allow_connections(connections: usize) -> Result<(), String> {
    const OTHERS: u64 = 64;
    let wanted = connections as u64 + OTHERS;
    let limit = crate::cli::raise_open_files()
        .map_err(|error| format!("cannot raise the limit of open files: {error}"))?;
    if let Some(limit) = limit
        && limit < wanted
    {
        return Err(format!(
            "{connections} connections need {wanted} open files, and the hard limit is {limit}: \
             ask for fewer, or raise it (ulimit -Hn)"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::super::asks::Asks;
    use super::super::publication::Form;
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn connects_from_further_loopback_addresses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        for (source, expected) in [(0, "127.0.0.1"), (1, "127.0.0.2"), (7, "127.0.0.8")] {
            let _socket = start_connecting(address, source).unwrap();
            let (_, peer) = listener.accept().unwrap();
            assert_eq!(peer.ip().to_string(), expected);
        }
    }

    #[test]
    fn goes_on_from_the_next_address_where_one_has_no_port_free() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut sources = Sources::new(0);
        let failed = |code| Err(io::Error::from_raw_os_error(code));
        let start = |address, source| match source {
            0 => failed(libc::EADDRNOTAVAIL),
            1 => failed(libc::EADDRINUSE),
            _ => start_connecting(address, source),
        };
        let _socket = sources.connect_by(address, start).unwrap();
        assert_eq!(sources.connects, 2 * CONNECTIONS_PER_SOURCE_MAX + 1);
        let refused = sources.connect_by(address, |_, _| failed(libc::ECONNREFUSED));
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        // Where all are full, the last one's error is told.
        let full = sources.connect_by(address, |_, _| failed(libc::EADDRINUSE));
        assert_eq!(full.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    fn target(address: SocketAddr, version: Version) -> Target {
        Target {
            address,
            tls: None,
            version,
            username: None,
            password: None,
            topic_alias_max: 0,
            keep_alive_secs: 0,
        }
    }

    fn client() -> Client {
        Client {
            id: "c".into(),
            clean: true,
            filters: vec!["t".into()],
            qos: Qos::AtMostOnce,
        }
    }

    /// What a client says of a broker that answers its CONNECT with `answer`.
    fn error_after(version: Version, answer: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut socket, _) = listener.accept().unwrap();
                take_connect(&mut socket);
                socket.write_all(answer).unwrap();
            });
            let mut net = Net::new(&target(address, version), 0).unwrap();
            let result = net.connect([client()], &mut Silence, |_| Ok(()));
            result.expect_err("the client is subscribed")
        })
    }

    fn take_connect(socket: &mut std::net::TcpStream) {
        let mut head = [0; 2];
        socket.read_exact(&mut head).unwrap();
        let mut rest = vec![0; head[1].into()];
        socket.read_exact(&mut rest).unwrap();
    }

    #[test]
    fn says_what_the_broker_did_to_a_client() {
        for (answer, words) in [
            (
                &[][..],
                "closed the connection of client c before its CONNACK",
            ),
            (&[0x20, 2, 0, 5], "refused client c: not authorized (0x87)"),
            (
                &[0x20, 2, 0, 0, 0x90, 3, 0, 1, 0x80],
                "refused a subscription of client c",
            ),
            (&[0x20, 2, 0, 0, 0xD0, 0], "sent Pingresp to client c"),
            (&[0x20, 2, 0, 0, 0x40, 1, 0], "too short for its fields"),
        ] {
            let error = error_after(Version::V3_1_1, answer);
            assert!(error.contains(words), "{error:?} instead of {words:?}");
        }
    }

    #[test]
    fn says_why_the_broker_refuses_in_mqtt_5() {
        let why = [5, 0x1F, 0, 2, b'n', b'o']; // a reason string
        for (answer, words) in [
            (
                [&[0x20, 8, 0, 0x9C][..], &why].concat(),
                "refused client c: use another server (0x9C), no",
            ),
            (
                [&[0x20, 3, 0, 0, 0, 0xE0, 7, 0x98][..], &why].concat(),
                "disconnected client c: administrative action (0x98), no",
            ),
            (
                [&[0x20, 3, 0, 0, 0, 0x40, 9, 0, 1, 0x97][..], &why].concat(),
                "refused a PUBLISH of client c: quota exceeded (0x97), no",
            ),
            (
                vec![0x20, 8, 0, 0, 5, 0x27, 0, 0, 0, 8], // Maximum Packet Size
                "takes packets of at most 8 bytes, and a SUBSCRIBE has 9",
            ),
        ] {
            let error = error_after(Version::V5, &answer);
            assert!(error.contains(words), "{error:?} instead of {words:?}");
        }
    }

    #[test]
    fn keeps_to_what_the_connack_demands() {
        let form = Form {
            version: Version::V5,
            qos: Qos::AtLeastOnce,
            payload_bytes: 100,
            properties: PropertiesBuf::new(),
            asks: Asks::default(),
            topic_alias: true,
        };
        let template = Template::new("t", &form);
        let enough = Demands {
            packet_bytes_max: template.frame_bytes(),
            topic_alias_max: 1,
            qos_max: Qos::AtLeastOnce,
            ..Demands::NONE
        };
        assert_eq!(enough.check(&template), Ok(()));
        for (demands, option) in [
            (
                Demands {
                    packet_bytes_max: template.frame_bytes() - 1,
                    ..enough
                },
                "--size",
            ),
            (
                Demands {
                    topic_alias_max: 0,
                    ..enough
                },
                "--use-topic-alias",
            ),
            (
                Demands {
                    qos_max: Qos::AtMostOnce,
                    ..enough
                },
                "--qos",
            ),
        ] {
            let error = demands.check(&template).unwrap_err();
            assert!(error.contains(option), "{error}");
        }
    }

    #[test]
    fn pings_as_often_as_it_says_or_the_broker_wants() {
        // Receive Maximum 7; Server Keep Alive 1.
        pings(1, &[0x20, 6, 0, 0, 3, 0x21, 0, 7]);
        pings(0, &[0x20, 9, 0, 0, 6, 0x21, 0, 7, 0x13, 0, 1]);
    }

    fn pings(keep_alive_secs: u16, connack: &[u8]) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::scope(|scope| {
            let broker = scope.spawn(|| {
                let (mut socket, _) = listener.accept().unwrap();
                take_connect(&mut socket);
                socket.write_all(connack).unwrap();
                let mut ping = [0; 2];
                socket.read_exact(&mut ping).unwrap();
                socket.write_all(&PINGRESP).unwrap();
                (ping, socket)
            });
            let target = Target {
                keep_alive_secs,
                ..target(address, Version::V5)
            };
            let mut net = Net::new(&target, 0).unwrap();
            let silent = Client {
                filters: Vec::new(),
                ..client()
            };
            net.connect([silent], &mut Silence, |_| Ok(())).unwrap();
            assert_eq!(net.demands(0).receive_max, 7);
            for pings in [1, 0] {
                while net.pings(0) != pings {
                    net.poll(Duration::from_millis(10), &mut Silence).unwrap();
                }
            }
            let (ping, _socket) = broker.join().unwrap();
            assert_eq!(ping, PINGREQ);
        });
    }

    #[test]
    fn says_that_nobody_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let mut net = Net::new(&target(address, Version::V3_1_1), 0).unwrap();
        let result = net.connect([client()], &mut Silence, |_| Ok(()));
        let error = result.expect_err("nobody is connected");
        assert!(error.contains("nobody listens at 127.0.0.1:"), "{error}");
    }
}
