//! A whole broker and its clients in one thread, with a clock that stands
//! still until it is told: sessions, queues and groups as clients see them.
//!
//! Everything a client sends is encoded and decoded again, and so is what it
//! gets: what is tested is what goes over the wire. Stands where `net` and
//! `run` stand in the program, and does as they do.

mod authentication;
mod belonging;
mod bounds;
mod connecting;
mod costs;
mod dead;
mod defence;
mod delayed;
mod delivery;
mod durable;
mod expiry;
mod groups;
mod hostile;
mod limits;
mod look;
mod members;
mod model;
mod mounts;
mod once;
mod own_rights;
mod properties;
mod putting_in;
mod queues;
mod random;
mod receipts;
mod recording;
mod results;
mod retained;
mod rights;
mod steering;
mod storing;
mod sys;
mod threads;
mod wills;
mod wishes;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use rotamq::authentication::Authenticated;
use rotamq::broker::recording::Direction;
use rotamq::broker::{Admission, Core, Counts, Door, Link, Stop, Worker};
use rotamq::config::{Config, Durability, Listener, Overflow, QueueSettings};
use rotamq::message::{Qos, Time};
use rotamq::protocol::{
    Ack, Connect, Disconnect, Packet, Properties, PropertiesBuf, Property, Publish, ReasonCode,
    Subscribe, SubscribeOptions, Unsubscribe, Version, Will, decode, decode_connect, encode,
};
use rotamq::session::{Close, Exchange, Outbox, refusal};
use rotamq::store::twin::Twin;
use rotamq::store::{Failed, OpenError, Settings, Store};
use rotamq::topic::{TopicLimits, TopicName};

/// The versions that sessions are tested with.
const VERSIONS: [Version; 3] = [Version::V3_1, Version::V3_1_1, Version::V5];

/// Where all clients connect from.
const PEER: Option<SocketAddr> = Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 50_000));

/// Timers may be so much late, and never early.
const TICK: Duration = Duration::from_millis(50);

/// Small enough that a short story fills many segments.
const SEGMENT_BYTES: u64 = 8 << 10;
const LOG_BYTES_MAX: u64 = 3 * SEGMENT_BYTES;
/// Below, nothing new is stored.
const FREE_BYTES_MIN: u64 = 1 << 20;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Tells the same story in each version, under the default configuration.
fn in_each_version(story: impl Fn(World)) {
    in_each_version_with(|_| (), story);
}

/// And each of them twice: by a broker that keeps nothing, and by one that
/// stores it.
fn in_each_version_with(configure: impl Fn(&mut Config), story: impl Fn(World)) {
    for version in VERSIONS {
        for is_stored in [false, true] {
            let mut world = World::with(&configure);
            if is_stored {
                world = world.stored(&Twin::new());
            }
            world.version = version;
            story(world);
        }
    }
}

/// Tells the story in MQTT 5.
fn in_mqtt_5(configure: impl Fn(&mut Config), story: impl Fn(World)) {
    in_each_version_with(configure, |world| {
        if world.version == Version::V5 {
            story(world);
        }
    });
}

/// Whoever cannot be told that a PUBLISH is refused finds it held back.
fn where_publishers_are_held_back(configure: impl Fn(&mut Config), story: impl Fn(World)) {
    in_each_version_with(configure, |world| {
        if world.version != Version::V5 {
            story(world);
        }
    });
}

/// A queue's settings, to be put into `Config::queue`.
fn queue(name: &str) -> QueueSettings {
    QueueSettings {
        name: name.into(),
        ..QueueSettings::default()
    }
}

/// The broker, its clients and the clock.
struct World {
    core: Core,
    worker: Worker,
    now: Time,
    /// Of the clients that connect without saying which.
    version: Version,
    /// Who they are found to be.
    who: Authenticated,
    /// The listener through which they connect.
    listener: Listener,
    clients: Vec<Client>,
    config: Config,
    seed: u64,
    /// What outlives the broker, if anything does.
    disk: Option<Twin>,
    commits: Commits,
}

/// When the store commits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Commits {
    /// As soon as somebody waits for it, and when all is done.
    AtOnce,
    /// When the test says so.
    ByHand,
}

/// One connection; a client that connects again has another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct C(usize);

struct Client {
    version: Version,
    link: Option<Link>,
    writing: Outbox,
    /// It reads nothing.
    clogged: bool,
    /// Not decoded yet.
    stream: Vec<u8>,
    got: VecDeque<Got>,
    wakes: Arc<Wakes>,
    /// How many of the wakes it has followed.
    turns: usize,
    stop: Option<Stop>,
    /// The reason in the broker's DISCONNECT.
    told: Option<ReasonCode>,
    next_id: u16,
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A packet that a client got.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    Connack(bool, ReasonCode),
    Publish(Message),
    Puback(u16),
    Pubrec(u16),
    Pubrel(u16),
    Pubcomp(u16),
    /// PUBACK or PUBREC that says no.
    Refused(u16, ReasonCode),
    /// 0x80: refused.
    Suback(u16, Vec<u8>),
    Unsuback(u16),
    Pingresp,
    Auth(ReasonCode),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    topic: String,
    payload: String,
    qos: u8,
    /// 0: none.
    id: u16,
    dup: bool,
    retain: bool,
    /// As they are shown for debugging, in their order.
    properties: Vec<String>,
}

/// A CONNECT to be sent.
struct Connecting<'w, 'a> {
    world: &'w mut World,
    connect: Connect<'a>,
    properties: PropertiesBuf,
}

impl<'w, 'a> Connecting<'w, 'a> {
    fn clean(mut self, clean: bool) -> Self {
        self.connect.clean_start = clean;
        self
    }

    fn property(mut self, property: Property<'_>) -> Self {
        self.properties.push(property);
        self
    }

    fn keep_alive(mut self, secs: u16) -> Self {
        self.connect.keep_alive_secs = secs;
        self
    }

    fn will(mut self, topic: &'a str, payload: &'a str, qos: u8, retain: bool) -> Self {
        self.connect.will = Some(Will {
            topic,
            payload: payload.as_bytes(),
            qos: qos_of(qos),
            retain,
            properties: Properties::EMPTY,
        });
        self
    }

    /// The connection, once CONNACK has said yes.
    fn go(self) -> C {
        self.go_present().0
    }

    /// Also whether a session was there.
    fn go_present(self) -> (C, bool) {
        let (world, connect) = self.parts();
        let client = world.try_connect(&connect.0, &connect.1).expect("accepted");
        match world.take(client) {
            Some(Got::Connack(present, ReasonCode::Success)) => (client, present),
            other => panic!("CONNACK comes first, not {other:?}"),
        }
    }

    /// The broker has let it in, and nobody has looked any further yet.
    fn unseen(self) -> Link {
        let (world, (connect, properties)) = self.parts();
        let connect = Connect {
            properties: properties.as_properties(),
            ..connect
        };
        match (world.core).connect(&mut world.worker, &connect, world.now) {
            Ok(Admission::Admitted(link)) => link,
            _ => panic!("it is accepted"),
        }
    }

    fn packet(self) -> Packet<'a> {
        Packet::Connect(self.connect)
    }

    /// A session that is to stay says so, in each version's words.
    fn parts(mut self) -> (&'w mut World, (Connect<'a>, PropertiesBuf)) {
        let expiry = self.world.core.session_settings().expiry_default;
        let expiry = Property::SessionExpiryInterval(expiry.as_secs() as u32);
        let says_it = (self.properties.as_properties().iter()).any(|own| own.id() == expiry.id());
        if self.connect.version == Version::V5 && !self.connect.clean_start && !says_it {
            self.properties.push(expiry);
        }
        (self.world, (self.connect, self.properties))
    }

    /// The reason why not.
    fn refused(self) -> ReasonCode {
        let (world, connect) = self.parts();
        match world.try_connect(&connect.0, &connect.1) {
            Ok(_) => panic!("accepted"),
            Err(close) => close.reason,
        }
    }
}

/// A user that has been found out.
fn user(name: &str) -> Authenticated {
    Authenticated::as_user(name)
}

impl World {
    fn new() -> World {
        World::with(|_| ())
    }

    fn with(configure: impl FnOnce(&mut Config)) -> World {
        World::seeded(1, configure)
    }

    fn seeded(seed: u64, configure: impl FnOnce(&mut Config)) -> World {
        let mut config = Config::default();
        // The clock stands still: what is days for a client is a moment here.
        config.authentication.ban.connects_per_client_max = 0;
        configure(&mut config);
        let core = Core::new(&config, seed);
        World {
            worker: Worker::new(&core),
            core,
            now: Time::ZERO + secs(1),
            version: Version::V3_1_1,
            who: Authenticated::ANONYMOUS,
            listener: Listener::new(config.listeners[0].address.clone()),
            clients: Vec::new(),
            config,
            seed,
            disk: None,
            commits: Commits::AtOnce,
        }
    }

    /// What outlives the broker is on this disk.
    fn stored(mut self, disk: &Twin) -> World {
        self.start_on(disk).expect("it opens");
        self
    }

    /// A broker begins, with what is on this disk. No client is connected.
    fn start_on(&mut self, disk: &Twin) -> Result<(), OpenError> {
        self.clients
            .iter_mut()
            .for_each(|client| client.link = None);
        self.core = stored(Core::new(&self.config, self.seed), disk, self.now)?;
        self.worker = Worker::new(&self.core);
        self.disk = Some(disk.clone());
        Ok(())
    }

    /// The configuration is another one while the broker runs.
    fn reconfigure(&mut self, configure: impl FnOnce(&mut Config)) {
        configure(&mut self.config);
        (self.core).reconfigure(&mut self.worker, &self.config, self.now);
        self.worker.effects.wake_all();
        self.drive();
    }

    fn disk(&self) -> &Twin {
        self.disk.as_ref().expect("it is stored")
    }

    /// The machine loses its power, and the broker is started again.
    fn restart(&mut self) {
        let disk = self.disk().cut();
        self.restart_as(&disk);
    }

    /// The broker is gone without a word; another one starts on what is left.
    fn restart_as(&mut self, disk: &Twin) {
        self.start_on(disk).expect("it opens");
    }

    /// The broker stops in order, and is started again.
    fn stop_and_start(&mut self) {
        for at in 0..self.clients.len() {
            if self.is_open(C(at)) {
                self.leave(C(at), Stop::BrokerStops);
            }
        }
        self.core.store().close().expect("the disk is well");
        self.restart();
    }

    /// What waits to be stored is, and who waited for it goes on.
    fn commit(&mut self) -> Result<(), Failed> {
        while self.core.store().commit(false)? {
            self.drive();
        }
        Ok(())
    }

    /// How many timers wait.
    fn timers(&self) -> usize {
        self.core.timers().count()
    }

    fn counts(&self) -> Counts {
        self.core.counters().read()
    }

    // ---- connections

    fn connect<'w, 'a>(&'w mut self, client_id: &'a str) -> Connecting<'w, 'a> {
        let version = self.version;
        Connecting {
            world: self,
            connect: Connect {
                version,
                clean_start: true,
                keep_alive_secs: 0,
                properties: Properties::EMPTY,
                client_id,
                will: None,
                user_name: None,
                password: None,
            },
            properties: PropertiesBuf::new(),
        }
    }

    fn try_connect(
        &mut self,
        connect: &Connect<'_>,
        properties: &PropertiesBuf,
    ) -> Result<C, Close> {
        let mut bytes = Vec::new();
        let connect = Connect {
            properties: properties.as_properties(),
            ..connect.clone()
        };
        let version = connect.version;
        encode(&Packet::Connect(connect), version, &mut bytes);
        let (connect, _) = decode_connect(&bytes, usize::MAX)
            .expect("valid")
            .expect("whole");
        self.tell_connecting(&connect, Direction::In, &bytes);
        let connected = self.let_in(&connect);
        if let Err(close) = &connected {
            let connack = refusal(&connect, close, self.core.session_settings());
            self.tell_connecting(&connect, Direction::Out, &connack.unwrap_or_default());
        }
        connected
    }

    /// Tells who records of a packet of a client that is not let in yet.
    fn tell_connecting(&self, connect: &Connect<'_>, direction: Direction, bytes: &[u8]) {
        if self.core.recordings().is_on() {
            let packet = (direction, bytes);
            self.core.record_connecting(connect, PEER, packet, self.now);
        }
    }

    /// The broker gets a CONNECT.
    fn let_in(&mut self, connect: &Connect<'_>) -> Result<C, Close> {
        let door = Arc::new(Door::new(&self.config, &self.listener));
        let (who, now) = (self.who.clone(), self.now);
        self.core.check_memory(connect)?;
        let admission = (self.core).connect_as(&mut self.worker, connect, &who, &door, now);
        self.worker.effects.wake_all();
        match admission? {
            Admission::Admitted(link) => Ok(self.add(link)),
            Admission::Challenged(_) => panic!("nobody is to be asked anything"),
        }
    }

    /// Whether CONNACK says that a session is there: 3.1 has no word for it.
    fn tells_present(&self) -> bool {
        self.version != Version::V3_1
    }

    /// The connection of a link that the broker gave without this world.
    fn add(&mut self, link: Link) -> C {
        let client = C(self.clients.len());
        self.clients.push(Client {
            version: link.terms.wire,
            link: Some(link),
            writing: Outbox::default(),
            clogged: false,
            stream: Vec::new(),
            got: VecDeque::new(),
            wakes: Arc::default(),
            turns: 0,
            stop: None,
            told: None,
            next_id: 0,
        });
        self.turn(client, false);
        self.drive();
        client
    }

    /// The connection breaks, with what is on its way in it.
    fn drop(&mut self, client: C) {
        self.leave(client, Stop::Lost);
        self.drive();
    }

    /// The client closes in order.
    fn disconnect(&mut self, client: C) {
        self.send(
            client,
            &Packet::Disconnect(Disconnect {
                reason: ReasonCode::Success,
                properties: Properties::EMPTY,
            }),
        );
        assert_eq!(self.stop(client), Some(&Stop::Disconnect));
    }

    /// The client reads nothing from now on, or reads again.
    fn clog(&mut self, client: C, clogged: bool) {
        self.clients[client.0].clogged = clogged;
        self.turn(client, false);
        self.drive();
    }

    fn is_open(&self, client: C) -> bool {
        self.clients[client.0].link.is_some()
    }

    /// Why the connection is closed.
    fn stop(&self, client: C) -> Option<&Stop> {
        self.clients[client.0].stop.as_ref()
    }

    /// The reason for which the broker closed it.
    fn closed(&self, client: C) -> Option<ReasonCode> {
        match self.stop(client)? {
            Stop::Closed(close) => Some(close.reason),
            other => panic!("closed for {other:?}"),
        }
    }

    /// How often the connection was woken by others.
    fn wakes(&self, client: C) -> usize {
        self.clients[client.0].wakes.0.load(Ordering::Relaxed)
    }

    // ---- what clients send

    fn send(&mut self, client: C, packet: &Packet<'_>) {
        self.send_all(client, std::slice::from_ref(packet));
    }

    /// All that one read brings.
    fn send_all(&mut self, client: C, packets: &[Packet<'_>]) {
        let handled = self.handle(client, packets);
        self.go_on(client, handled);
    }

    /// The packets reach the broker, which has not looked any further yet.
    fn handle(&mut self, client: C, packets: &[Packet<'_>]) -> Result<(), Stop> {
        let version = self.clients[client.0].version;
        let mut bytes = Vec::new();
        for packet in packets {
            encode(packet, version, &mut bytes);
        }
        let (done, handled) = self.handle_bytes(client, &bytes, usize::MAX);
        assert!(done == bytes.len() || handled.is_err());
        handled
    }

    /// All whole packets, until one ends the connection; how many bytes they
    /// were.
    fn handle_bytes(
        &mut self,
        client: C,
        bytes: &[u8],
        packet_bytes_max: usize,
    ) -> (usize, Result<(), Stop>) {
        let version = self.clients[client.0].version;
        let link = self.clients[client.0].link.as_mut().expect("open");
        let mut done = 0;
        if self.core.recordings().is_on() {
            self.core.record_received(link, PEER, bytes, self.now);
        }
        self.core.begin_read(&mut self.worker);
        let handled = loop {
            match decode(&bytes[done..], version, packet_bytes_max) {
                Ok(None) => break Ok(()),
                Ok(Some((packet, len))) => {
                    (self.worker.effects.tally).note_received(version, bytes[done], 1);
                    done += len;
                    link.note_read(len);
                    let handled = (self.core).handle(&mut self.worker, link, &packet, self.now);
                    if handled.is_err() {
                        break handled;
                    }
                }
                Err(error) => break Err(Stop::Closed(Close::new(error.reason, error.what))),
            }
        };
        self.core.end_read(&mut self.worker, link, self.now);
        (done, handled)
    }

    /// What comes of what was handled: the connection goes on, or ends.
    fn go_on(&mut self, client: C, handled: Result<(), Stop>) {
        self.worker.effects.wake_all();
        match handled {
            Err(stop) => self.leave(client, stop),
            Ok(()) => self.turn(client, true),
        }
        self.drive();
    }

    // ---- what `net` and `run` do

    /// The connection's turn, until it would wait.
    fn turn(&mut self, client: C, heard: bool) {
        let Client {
            link,
            writing,
            clogged,
            stream,
            wakes,
            turns,
            ..
        } = &mut self.clients[client.0];
        let Some(link) = link else {
            return;
        };
        *turns = wakes.0.load(Ordering::Relaxed);
        let waker = Waker::from(wakes.clone());
        let mut heard = heard;
        let (core, worker, now, commits) = (&self.core, &mut self.worker, self.now, self.commits);
        let stop = loop {
            let mut idle = true;
            let told = Some((&mut *link, now));
            let blocked = !*clogged && write(core, commits, told, writing, stream, &waker);
            match core.exchange(
                worker,
                link,
                writing,
                Some(&waker),
                std::mem::take(&mut heard),
                now,
            ) {
                Exchange::Closing(close) => break Stop::from(close),
                Exchange::Open { retry, backlog } => {
                    if backlog && core.send_backlog(worker, link.session, now) {
                        idle = false;
                    }
                    if retry {
                        idle = false;
                        if let Err(stop) = core.retry_held(worker, link, now) {
                            break stop;
                        }
                        if let Some(close) = core.held_too_long(link, now) {
                            break Stop::Closed(close);
                        }
                    }
                }
            }
            worker.effects.wake_all();
            if writing.is_empty() {
                worker.effects.recycle(writing);
            }
            if idle && (*clogged || blocked || writing.is_empty()) {
                return;
            }
        };
        self.worker.effects.wake_all();
        self.leave(client, stop);
    }

    /// The connection ends; unless it is lost, what was handled before is
    /// answered.
    fn leave(&mut self, client: C, stop: Stop) {
        let at = &mut self.clients[client.0];
        let mut link = at.link.take().expect("open");
        if stop == Stop::Lost {
            self.worker.drop_answers();
        } else {
            self.core.exchange(
                &mut self.worker,
                &mut link,
                &mut at.writing,
                None,
                false,
                self.now,
            );
        }
        if self.commits == Commits::ByHand {
            let store = self.core.store();
            at.writing.open_gates(|receipt| store.has(receipt));
            at.writing.drop_gated();
        }
        if let Some(close) = link.last_word(&stop) {
            let settings = self.core.session_settings();
            at.writing
                .append(|out| link.terms.disconnect(&close, settings, out));
        }
        if self.core.recordings().is_on() && stop != Stop::Lost {
            let (writing, now) = (&mut at.writing, self.now);
            self.core.record_sent(&mut link, PEER, writing, now);
        }
        self.core
            .disconnect(&mut self.worker, link, &stop, self.now);
        if stop != Stop::Lost && !at.clogged {
            let (commits, waker) = (self.commits, Waker::noop());
            write(
                &self.core,
                commits,
                None,
                &mut at.writing,
                &mut at.stream,
                waker,
            );
        }
        at.stop = Some(stop);
        self.worker.effects.wake_all();
    }

    /// Whoever was woken gets a turn, until nobody is left.
    fn drive(&mut self) {
        loop {
            let mut idle = true;
            for at in 0..self.clients.len() {
                let client = &self.clients[at];
                if client.link.is_some() && client.turns < client.wakes.0.load(Ordering::Relaxed) {
                    self.turn(C(at), false);
                    idle = false;
                }
            }
            let waits = || match self.commits {
                Commits::AtOnce => self.core.store().commit(false).expect("the disk is well"),
                Commits::ByHand => false,
            };
            if idle && !waits() {
                return;
            }
        }
    }

    /// Lets time pass, doing what is due when it is.
    fn advance(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some(next) = self.core.timers().sleep(Waker::noop())
            && next <= until
        {
            self.now = self.now.max(next);
            self.core.handle_timeout(&mut self.worker, self.now);
            self.worker.effects.wake_all();
            self.drive();
        }
        self.now = until;
    }

    // ---- what clients get

    /// Everything since the last look.
    fn receive(&mut self, client: C) -> Vec<Got> {
        let client = &mut self.clients[client.0];
        let mut rest = &client.stream[..];
        while let Some((packet, len)) =
            decode(rest, client.version, usize::MAX).expect("the broker's packets are valid")
        {
            match &packet {
                Packet::Disconnect(disconnect) => client.told = Some(disconnect.reason),
                packet => client.got.push_back(Got::of(packet)),
            }
            rest = &rest[len..];
        }
        client.stream = rest.to_vec();
        client.got.drain(..).collect()
    }

    /// The next packet.
    fn take(&mut self, client: C) -> Option<Got> {
        let mut got = self.receive(client);
        let first = (!got.is_empty()).then(|| got.remove(0));
        self.clients[client.0].got.extend(got);
        first
    }

    /// The messages since the last look, and nothing else.
    fn messages(&mut self, client: C) -> Vec<Message> {
        let message = |got| match got {
            Got::Publish(message) => message,
            other => panic!("only messages were expected, not {other:?}"),
        };
        self.receive(client).into_iter().map(message).collect()
    }

    /// What is in them.
    fn payloads(&mut self, client: C) -> Vec<String> {
        let messages = self.messages(client).into_iter();
        messages.map(|message| message.payload).collect()
    }

    // ---- whole conversations

    /// The packet id that the client uses next.
    fn next_id(&mut self, client: C) -> u16 {
        let client = &mut self.clients[client.0];
        client.next_id = client.next_id % u16::MAX + 1;
        client.next_id
    }

    /// Subscribes; what SUBACK says. What else came waits to be looked at.
    fn try_subscribe(&mut self, client: C, filters: &[(&str, u8)]) -> Vec<u8> {
        let id = self.next_id(client);
        let before = self.receive(client);
        self.clients[client.0].got.extend(before);
        self.send(client, &subscribe(id, filters));
        let mut got = self.receive(client);
        let at = got.iter().position(|got| matches!(got, Got::Suback(..)));
        let Some(Got::Suback(answered, codes)) = at.map(|at| got.remove(at)) else {
            panic!("no SUBACK");
        };
        assert_eq!(answered, id);
        self.clients[client.0].got.extend(got);
        codes
    }

    /// Subscribes and gets what it asks for.
    fn subscribe(&mut self, client: C, filter: &str, qos: u8) {
        assert_eq!(self.try_subscribe(client, &[(filter, qos)]), [qos]);
    }

    fn unsubscribe(&mut self, client: C, filter: &str) {
        let id = self.next_id(client);
        self.send(client, &unsubscribe(id, &[filter]));
        self.expect(client, Got::Unsuback(id));
    }

    /// Publishes, and brings it to its end where the QoS has one.
    fn publish(&mut self, client: C, topic: &str, payload: &str, qos: u8) {
        self.publish_with(client, topic, payload, qos, false);
    }

    fn publish_with(&mut self, client: C, topic: &str, payload: &str, qos: u8, retain: bool) {
        let id = self.send_publish(client, topic, payload, qos, retain);
        match qos {
            0 => {}
            1 => self.expect(client, Got::Puback(id)),
            _ => {
                self.expect(client, Got::Pubrec(id));
                self.send(client, &pubrel(id));
                self.expect(client, Got::Pubcomp(id));
            }
        }
    }

    /// Publishes without looking for an answer; the packet id.
    fn send_publish(
        &mut self,
        client: C,
        topic: &str,
        payload: &str,
        qos: u8,
        retain: bool,
    ) -> u16 {
        let id = match qos {
            0 => 0,
            _ => self.next_id(client),
        };
        let packet = Publish {
            dup: false,
            qos: qos_of(qos),
            retain,
            topic,
            packet_id: NonZeroU16::new(id),
            properties: Properties::EMPTY,
            payload: payload.as_bytes(),
        };
        self.send(client, &Packet::Publish(packet));
        id
    }

    /// A PUBLISH with properties; the packet id.
    fn send_with(
        &mut self,
        client: C,
        (topic, payload): (&str, &str),
        qos: u8,
        retain: bool,
        properties: &[Property<'_>],
    ) -> u16 {
        let id = match qos {
            0 => 0,
            _ => self.next_id(client),
        };
        let mut encoded = PropertiesBuf::new();
        for property in properties {
            encoded.push(*property);
        }
        let packet = Publish {
            dup: false,
            qos: qos_of(qos),
            retain,
            topic,
            packet_id: NonZeroU16::new(id),
            properties: encoded.as_properties(),
            payload: payload.as_bytes(),
        };
        self.send(client, &Packet::Publish(packet));
        id
    }

    /// Subscribes with options and an identifier.
    fn subscribe_with(&mut self, client: C, filter: &str, options: SubscribeOptions, id: u32) {
        let mut properties = PropertiesBuf::new();
        if let Some(id) = rotamq::message::SubscriptionId::new(id) {
            properties.push(Property::SubscriptionIdentifier(id));
        }
        let packet_id = self.next_id(client);
        self.send(
            client,
            &Packet::Subscribe(Subscribe {
                packet_id: self::packet_id(packet_id),
                properties: properties.as_properties(),
                filters: vec![(filter, options)],
            }),
        );
        self.expect(client, Got::Suback(packet_id, vec![options.qos as u8]));
    }

    /// The reason in the DISCONNECT that it got.
    fn told(&mut self, client: C) -> Option<ReasonCode> {
        let got = self.receive(client);
        self.clients[client.0].got.extend(got);
        self.clients[client.0].told
    }

    /// That packet has come; what else has, waits to be looked at.
    fn expect(&mut self, client: C, expected: Got) {
        assert!(
            self.has_got(client, &expected),
            "{expected:?} has not come, but {:?}; {:?}",
            self.clients[client.0].got,
            self.stop(client)
        );
    }

    /// Whether that packet has come.
    fn has_got(&mut self, client: C, expected: &Got) -> bool {
        let mut got = self.receive(client);
        let at = got.iter().position(|got| got == expected);
        if let Some(at) = at {
            got.remove(at);
        }
        self.clients[client.0].got.extend(got);
        at.is_some()
    }

    /// Takes one message, brings it to its end, and tells what it was.
    fn work(&mut self, client: C) -> Message {
        match self.take(client) {
            Some(Got::Publish(message)) => {
                self.acknowledge(client, &message);
                message
            }
            other => panic!("a message was expected, not {other:?}"),
        }
    }

    /// Brings a message to its end.
    fn acknowledge(&mut self, client: C, message: &Message) {
        match message.qos {
            0 => {}
            1 => self.send(client, &puback(message.id)),
            _ => {
                self.send(client, &pubrec(message.id));
                self.expect(client, Got::Pubrel(message.id));
                self.send(client, &pubcomp(message.id));
            }
        }
    }

    /// PUBACK or PUBREC, by the QoS that the job came with.
    fn refuse(
        &mut self,
        client: C,
        job: &Message,
        reason: ReasonCode,
        properties: &[Property<'_>],
    ) {
        let mut said = PropertiesBuf::new();
        for property in properties {
            said.push(*property);
        }
        let ack = Ack {
            reason,
            properties: said.as_properties(),
            ..Ack::new(packet_id(job.id))
        };
        let packet = match job.qos {
            1 => Packet::Puback(ack),
            _ => Packet::Pubrec(ack),
        };
        self.send(client, &packet);
    }

    /// Publishes `PACKET-ID [SECONDS]` to `$queue/$nack` or the like.
    fn control(&mut self, client: C, what: &str, payload: &str) {
        self.publish(client, &format!("$queue/${what}"), payload, 1);
    }
}

impl Got {
    fn of(packet: &Packet<'_>) -> Got {
        match packet {
            Packet::Connack(connack) => Got::Connack(connack.session_present, connack.reason),
            Packet::Publish(publish) => Got::Publish(Message {
                topic: publish.topic.into(),
                payload: String::from_utf8_lossy(publish.payload).into_owned(),
                qos: publish.qos as u8,
                id: publish.packet_id.map_or(0, NonZeroU16::get),
                dup: publish.dup,
                retain: publish.retain,
                properties: shown(publish.properties.iter()),
            }),
            Packet::Puback(ack) | Packet::Pubrec(ack) if ack.reason.is_failure() => {
                Got::Refused(ack.packet_id.get(), ack.reason)
            }
            Packet::Puback(ack) => Got::Puback(ack.packet_id.get()),
            Packet::Pubrec(ack) => Got::Pubrec(ack.packet_id.get()),
            Packet::Pubrel(ack) => Got::Pubrel(ack.packet_id.get()),
            Packet::Pubcomp(ack) => Got::Pubcomp(ack.packet_id.get()),
            Packet::Suback(suback) => Got::Suback(
                suback.packet_id.get(),
                // 0x80 is the only refusal that all versions have.
                (suback.reasons.iter())
                    .map(|reason| (*reason as u8).min(0x80))
                    .collect(),
            ),
            Packet::Unsuback(unsuback) => Got::Unsuback(unsuback.packet_id.get()),
            Packet::Pingresp => Got::Pingresp,
            Packet::Auth(auth) => Got::Auth(auth.reason),
            other => panic!("no broker sends {other:?}"),
        }
    }
}

fn shown<'a>(properties: impl IntoIterator<Item = Property<'a>>) -> Vec<String> {
    let properties = properties.into_iter();
    properties.map(|property| format!("{property:?}")).collect()
}

/// A broker that has not begun stores what it has to on this disk.
fn stored(core: Core, disk: &Twin, now: Time) -> Result<Core, OpenError> {
    let settings = Settings {
        log_bytes_max: LOG_BYTES_MAX,
        free_bytes_min: FREE_BYTES_MIN,
    };
    let disk = Arc::new(disk.clone());
    let (store, report) = Store::open_with_segments(disk, settings, SEGMENT_BYTES)?;
    // But for what was not written to its end.
    let mut damage = report.damage.iter();
    assert!(damage.all(|damage| damage.unfinished), "{report:?}");
    let (core, restored) = core.with_store(store, true, now).expect("it can be read");
    assert_eq!(restored.unknown, 0);
    Ok(core)
}

/// Writes until the client has read all there is, and tells of it who records,
/// where it is said whose it is; whether what is next has to
/// be stored first, which is done where nobody else does it.
fn write(
    core: &Core,
    commits: Commits,
    mut told: Option<(&mut Link, Time)>,
    writing: &mut Outbox,
    stream: &mut Vec<u8>,
    waker: &Waker,
) -> bool {
    while !writing.is_empty() {
        let store = core.store();
        if let Some(receipt) = writing.open_gates(|receipt| store.has(receipt)) {
            if commits == Commits::AtOnce {
                store.commit(false).expect("the disk is well");
            } else if store.wake_at(receipt, waker) {
                return true;
            }
            continue;
        }
        if core.recordings().is_on()
            && let Some((link, now)) = &mut told
        {
            core.record_sent(link, PEER, writing, *now);
        }
        let mut pieces = [IoSlice::new(&[]); 4];
        let count = writing.pieces(&mut pieces);
        let before = stream.len();
        for piece in &pieces[..count] {
            stream.extend_from_slice(piece);
        }
        writing.advance(stream.len() - before);
    }
    false
}

// ---- packets

fn qos_of(qos: u8) -> Qos {
    Qos::from_bits(qos).expect("0, 1 or 2")
}

fn topic_name(name: &str) -> TopicName<'_> {
    TopicName::parse(name, TopicLimits::NONE).expect("a topic name")
}

fn packet_id(id: u16) -> NonZeroU16 {
    NonZeroU16::new(id).expect("an id")
}

fn publish<'a>(topic: &'a str, payload: &'a str, qos: u8, id: u16) -> Packet<'a> {
    Packet::Publish(Publish {
        dup: false,
        qos: qos_of(qos),
        retain: false,
        topic,
        packet_id: NonZeroU16::new(id),
        properties: Properties::EMPTY,
        payload: payload.as_bytes(),
    })
}

fn duplicate(packet: Packet<'_>) -> Packet<'_> {
    match packet {
        Packet::Publish(publish) => Packet::Publish(Publish {
            dup: true,
            ..publish
        }),
        other => panic!("{other:?} has no DUP"),
    }
}

fn puback(id: u16) -> Packet<'static> {
    Packet::Puback(Ack::new(packet_id(id)))
}

fn pubrec(id: u16) -> Packet<'static> {
    Packet::Pubrec(Ack::new(packet_id(id)))
}

fn pubrel(id: u16) -> Packet<'static> {
    Packet::Pubrel(Ack::new(packet_id(id)))
}

fn pubcomp(id: u16) -> Packet<'static> {
    Packet::Pubcomp(Ack::new(packet_id(id)))
}

fn subscribe<'a>(id: u16, filters: &[(&'a str, u8)]) -> Packet<'a> {
    let filters = filters.iter();
    Packet::Subscribe(Subscribe {
        packet_id: packet_id(id),
        properties: Properties::EMPTY,
        filters: filters
            .map(|(filter, qos)| (*filter, SubscribeOptions::new(qos_of(*qos))))
            .collect(),
    })
}

fn unsubscribe<'a>(id: u16, filters: &[&'a str]) -> Packet<'a> {
    Packet::Unsubscribe(Unsubscribe {
        packet_id: packet_id(id),
        properties: Properties::EMPTY,
        filters: filters.to_vec(),
    })
}
