//! The clients of a plan, all in one thread: they connect, go on with the
//! sessions that the ledger tells of, publish, take what comes, and note each
//! step in the ledger before they take it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream as BlockingStream};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::ledger::{Event, Ledger};
use crate::plan::{ClientNumber, MessageKey, Plan, Presence, REJECTS, Role, draw_bytes};
use crate::random::Random;
use crate::session::{Outgoing, Session, Unanswered};
use crate::verdict::Verdict;
use crate::wire::{Codec, Packet, PacketId, Publish, Version};

/// Messages that a publisher has under way at one time.
const WINDOW: usize = 40;
/// Jobs that a busy worker has in its hands.
const JOBS_IN_HAND: usize = 4;
/// How long the broker may say nothing to anybody while something is owed.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long nothing may come before it is taken that nothing more will.
const QUIET: Duration = Duration::from_millis(100);
/// How long one turn waits for something to read.
const TURN: Duration = Duration::from_millis(5);
/// What each publisher and changer does after the load.
const AFTERWARDS: u64 = 30;

pub struct Fleet {
    address: SocketAddr,
    plan: Rc<Plan>,
    ledger: Ledger,
    verdict: Verdict,
    sessions: Vec<Session>,
    links: Vec<Option<Link>>,
    randoms: Vec<Random>,
    poll: Poll,
    stage: Stage,
    /// What each publisher and changer may still do.
    budgets: Vec<u64>,
    /// Topics of changers that the first publisher is to publish to.
    probes: VecDeque<String>,
    /// What the watcher got, by topic.
    watched: BTreeMap<String, MessageKey>,
    /// Messages published in this load, and when it began to: they come at a
    /// bounded rate.
    published: u64,
    began: Instant,
    rate_max: u64,
    heard: Instant,
    /// A connection was lost that nobody here ended.
    cut: bool,
}

/// Who is to be there.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// Those who stay; the absent ones until they have subscribed.
    Load,
    /// Only who looks at retained messages.
    Watch,
    /// All but the watcher.
    Settle,
}

/// Why a load ended.
#[derive(Debug, PartialEq)]
pub enum End {
    /// The connections were lost.
    Cut,
    /// As many messages were acknowledged as were asked for.
    Enough,
}

struct Link {
    stream: TcpStream,
    codec: Codec,
    read: BytesMut,
    unsent: BytesMut,
    /// CONNACK came.
    up: bool,
    /// Closed as soon as all is sent.
    leaving: bool,
    /// PINGREQs without PINGRESP.
    pings: usize,
    /// An unsteady client's connection is lost after so many messages.
    messages_left: usize,
    /// It is lost when this turn's output is sent.
    doomed: bool,
    /// Something came in this turn.
    busy: bool,
}

impl Fleet {
    /// The clients of the ledger, or, where it is new, of the plan; nobody is
    /// connected.
    ///
    /// # Errors
    /// What is wrong with the ledger.
    pub fn open(
        address: SocketAddr,
        ledger: &Path,
        plan: impl FnOnce() -> Plan,
    ) -> Result<Fleet, String> {
        let (ledger, plan, entries) = Ledger::open(ledger, plan)?;
        let plan = Rc::new(plan);
        let count = plan.clients.len();
        let (verdict, sessions) = Verdict::of(&plan, &entries);
        let randoms = (plan.clients.iter().zip(&sessions))
            .map(|(client, session)| {
                let so_far = u64::from(session.attempts);
                Random::named(plan.seed, &format!("{}{so_far}", client.name))
            })
            .collect();
        Ok(Fleet {
            address,
            ledger,
            verdict,
            sessions,
            links: (0..count).map(|_| None).collect(),
            randoms,
            poll: Poll::new().map_err(|error| format!("cannot wait for sockets: {error}"))?,
            stage: Stage::Load,
            budgets: vec![0; count],
            probes: VecDeque::new(),
            watched: BTreeMap::new(),
            published: 0,
            began: Instant::now(),
            rate_max: u64::MAX,
            heard: Instant::now(),
            cut: false,
            plan,
        })
    }

    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Publishes, at most so many messages a second, until the connections are
    /// lost or `enough` says so of the messages acknowledged so far.
    ///
    /// # Errors
    /// If the ledger cannot be written.
    pub fn load(
        &mut self,
        rate_max: u64,
        mut enough: impl FnMut(u64) -> bool,
    ) -> Result<End, String> {
        self.stage = Stage::Load;
        self.budgets.fill(u64::MAX);
        self.rate_max = rate_max;
        self.published = 0;
        self.began = Instant::now();
        self.heard = Instant::now();
        while !self.cut {
            self.turn()?;
            if enough(self.verdict.acknowledged()) {
                return Ok(End::Enough);
            }
            // A machine that is gone says nothing, not even that it is.
            if self.heard.elapsed() > PATIENCE {
                break;
            }
        }
        // What the broker still sent is held against it.
        self.budgets.fill(0);
        while self.links.iter().flatten().any(|link| link.up) && self.heard.elapsed() < QUIET {
            self.turn()?;
        }
        self.disconnect()?;
        Ok(End::Cut)
    }

    /// Goes on with all sessions, brings to an end what is under way, and takes
    /// all that is due. What the broker then still owes, the verdict says.
    ///
    /// # Errors
    /// If a connection is lost, or the ledger cannot be written.
    pub fn settle(&mut self) -> Result<(), String> {
        self.watch()?;
        self.stage = Stage::Settle;
        self.rate_max = u64::MAX;
        self.budgets.fill(AFTERWARDS);
        let mut settled = self.turn_until(Fleet::is_settled)?;
        if settled {
            self.probes = (0..self.plan.clients.len())
                .filter(|&client| matches!(self.plan.clients[client].role, Role::Changer { .. }))
                .flat_map(|changer| self.plan.changing_topics(changer))
                .collect();
            settled = self.turn_until(Fleet::is_settled)?;
        }
        if settled {
            self.fence()?;
            self.watch()?;
        }
        self.disconnect()
    }

    /// All come back once more when nothing is due, and should get nothing new.
    ///
    /// # Errors
    /// As [`Fleet::settle`].
    pub fn visit(&mut self, address: SocketAddr) -> Result<(), String> {
        self.move_to(address);
        self.stage = Stage::Settle;
        self.budgets.fill(0);
        if self.turn_until(Fleet::is_settled)? {
            self.fence()?;
            self.watch()?;
        }
        self.disconnect()
    }

    /// The broker is at this address now.
    pub fn move_to(&mut self, address: SocketAddr) {
        self.address = address;
        self.cut = false;
    }

    /// A new subscriber's view of all retained messages.
    fn watch(&mut self) -> Result<(), String> {
        self.disconnect()?;
        self.stage = Stage::Watch;
        self.watched.clear();
        self.turn_until(Fleet::is_settled)?;
        self.fence()?;
        let watcher = self.plan.clients.len() - 1;
        for topic in self.plan.retained_topics() {
            let message = self.watched.get(&topic).copied();
            self.note(watcher, Event::Retained { topic, message });
        }
        self.disconnect()
    }

    /// Until the broker has answered everybody, and then said nothing for a
    /// while.
    fn fence(&mut self) -> Result<(), String> {
        for client in 0..self.links.len() {
            if let Some(link) = &mut self.links[client] {
                link.pings += 1;
                self.send(client, Packet::PingReq);
            }
        }
        self.turn_until(|fleet| {
            fleet.links.iter().flatten().all(|link| link.pings == 0)
                && fleet.heard.elapsed() >= QUIET
        })?;
        Ok(())
    }

    fn turn_until(&mut self, done: impl Fn(&Fleet) -> bool) -> Result<bool, String> {
        self.heard = Instant::now();
        loop {
            self.turn()?;
            if self.cut {
                return Err("the broker closed a connection; the ledger's end says which".into());
            }
            if done(self) {
                return Ok(true);
            }
            if self.heard.elapsed() > PATIENCE {
                return Ok(false);
            }
        }
    }

    /// Whether all are there, have done what they may, and nothing is owed.
    fn is_settled(&self) -> bool {
        (0..self.links.len()).all(|client| {
            let session = &self.sessions[client];
            let done = session.change.is_none()
                && session.outgoing.is_empty()
                && session.unanswered.is_empty()
                && session.unreleased.is_empty()
                && self.missing_filter(client).is_none();
            match &self.links[client] {
                Some(link) => link.up && done && !self.is_to_act(client),
                None => !self.is_wanted(client),
            }
        }) && self.probes.is_empty()
            && (self.stage != Stage::Settle || self.verdict.outstanding() == 0)
    }

    /// Reads what there is, lets everybody do the next step, writes the ledger,
    /// then the sockets.
    fn turn(&mut self) -> Result<(), String> {
        let mut events = Events::with_capacity(64);
        match self.poll.poll(&mut events, Some(TURN)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                return Err(format!("cannot wait for sockets: {error}"));
            }
            _ => {}
        }
        for event in &events {
            self.read(event.token().0);
        }
        for client in 0..self.links.len() {
            self.act(client);
        }
        self.ledger.write()?;
        for client in 0..self.links.len() {
            self.flush(client);
        }
        self.ledger.write()
    }

    fn act(&mut self, client: ClientNumber) {
        let Some(link) = &mut self.links[client] else {
            if self.is_wanted(client) && !self.cut {
                self.connect(client);
            }
            return;
        };
        let busy = std::mem::take(&mut link.busy);
        if !link.up || link.leaving || link.doomed {
            return;
        }
        self.answer(client, if busy { JOBS_IN_HAND } else { 0 });
        if let Some(filter) = self.missing_filter(client) {
            if self.sessions[client].change.is_none() {
                self.change(client, filter, true);
            }
            return;
        }
        if !self.is_wanted(client) {
            self.note(client, Event::Leave);
            self.send(client, Packet::Disconnect(0));
            if let Some(link) = &mut self.links[client] {
                link.leaving = true;
            }
            return;
        }
        if self.stage == Stage::Load && !self.is_prepared() {
            return;
        }
        match self.plan.clients[client].role {
            Role::Publisher { .. } => self.publish_some(client),
            Role::Changer { .. } => self.change_something(client),
            _ => {}
        }
    }

    /// Whether the client is to be connected.
    fn is_wanted(&self, client: ClientNumber) -> bool {
        let watcher = matches!(self.plan.clients[client].role, Role::Watcher);
        match self.stage {
            Stage::Watch => watcher,
            Stage::Settle => !watcher,
            Stage::Load => {
                !watcher
                    && (self.plan.clients[client].presence != Presence::Absent
                        || self.missing_filter(client).is_some())
            }
        }
    }

    /// Whether everybody has subscribed: only then it is known who must get
    /// what.
    fn is_prepared(&self) -> bool {
        (0..self.links.len()).all(|client| {
            let watcher = matches!(self.plan.clients[client].role, Role::Watcher);
            watcher || self.missing_filter(client).is_none()
        })
    }

    fn is_to_act(&self, client: ClientNumber) -> bool {
        match self.plan.clients[client].role {
            Role::Publisher { .. } | Role::Changer { .. } => self.budgets[client] > 0,
            _ => false,
        }
    }

    /// A filter that the client should have subscribed to and has not.
    fn missing_filter(&self, client: ClientNumber) -> Option<String> {
        let granted = &self.sessions[client].granted;
        if matches!(self.plan.clients[client].role, Role::Watcher) {
            let filter = self.plan.retained_filter();
            return (!granted.contains(&filter)).then_some(filter);
        }
        let (filters, _) = self.plan.filters(client);
        filters.into_iter().find(|filter| !granted.contains(filter))
    }

    fn publish_some(&mut self, client: ClientNumber) {
        while self.sessions[client].outgoing.len() < WINDOW {
            if client == 0
                && let Some(topic) = self.probes.pop_front()
            {
                self.publish(client, topic, false);
                continue;
            }
            let elapsed = self.began.elapsed().as_micros();
            let may = u128::from(self.rate_max).saturating_mul(elapsed) / 1_000_000;
            if self.budgets[client] == 0 || u128::from(self.published) >= may {
                return;
            }
            self.budgets[client] -= 1;
            self.published += 1;
            let (topic, retain) = self.plan.draw_topic(client, &mut self.randoms[client]);
            self.publish(client, topic, retain);
        }
    }

    /// A changer does one thing after the other, so that it is always known
    /// what holds: it subscribes, publishes to itself, or unsubscribes.
    fn change_something(&mut self, client: ClientNumber) {
        let session = &self.sessions[client];
        if session.change.is_some() || !session.outgoing.is_empty() || self.budgets[client] == 0 {
            return;
        }
        self.budgets[client] -= 1;
        let topics = self.plan.changing_topics(client);
        let random = &mut self.randoms[client];
        let topic = topics[random.below(topics.len())].clone();
        if random.percent(60) {
            self.publish(client, topic, false);
        } else {
            let subscribe = !session.granted.contains(&topic);
            self.change(client, topic, subscribe);
        }
    }

    fn publish(&mut self, client: ClientNumber, topic: String, retain: bool) {
        let random = &mut self.randoms[client];
        let clear = retain && random.percent(30);
        let bytes = if clear { 0 } else { draw_bytes(random) };
        let session = &self.sessions[client];
        let (id, number) = (session.free_id(), session.published);
        self.note(
            client,
            Event::Publish {
                id,
                number,
                bytes,
                retain,
                topic,
            },
        );
        let message = self.sessions[client].outgoing.back().cloned();
        self.send_message(client, &message.expect("it was just noted"), false);
    }

    fn send_message(&mut self, client: ClientNumber, message: &Outgoing, dup: bool) {
        let key = MessageKey {
            publisher: client,
            number: message.number,
        };
        let payload = match message.bytes {
            0 => Vec::new(),
            bytes => self.plan.payload(key, &message.topic, bytes),
        };
        let (Role::Publisher { qos } | Role::Changer { qos }) = self.plan.clients[client].role
        else {
            unreachable!("only those publish");
        };
        self.send(
            client,
            Packet::Publish(Publish {
                dup,
                retain: message.retain,
                topic: message.topic.clone(),
                packet_id: Some(message.id),
                qos,
                payload: Bytes::from(payload),
            }),
        );
    }

    fn change(&mut self, client: ClientNumber, filter: String, subscribe: bool) {
        let id = self.sessions[client].free_id();
        self.send_change(client, id, filter, subscribe);
    }

    fn send_change(&mut self, client: ClientNumber, id: PacketId, filter: String, subscribe: bool) {
        let (_, qos) = self.plan.filters(client);
        let packet = if subscribe {
            Packet::Subscribe(id, filter.clone(), qos)
        } else {
            Packet::Unsubscribe(id, filter.clone())
        };
        let event = if subscribe {
            Event::Subscribe { id, filter }
        } else {
            Event::Unsubscribe { id, filter }
        };
        self.note(client, event);
        self.send(client, packet);
    }

    /// Acknowledges what came, but for so many.
    fn answer(&mut self, client: ClientNumber, keep: usize) {
        while self.sessions[client].unanswered.len() > keep {
            let unanswered = &self.sessions[client].unanswered;
            // Jobs may be done in any order; PUBRECs are in that of the
            // PUBLISHes [MQTT-4.6.0-3].
            let at = match unanswered[0].qos {
                1 if keep > 0 => self.randoms[client].below(unanswered.len()),
                _ => 0,
            };
            let delivery = unanswered[at];
            if self.is_to_reject(client, delivery.message) {
                self.reject(client, delivery);
                continue;
            }
            self.note(
                client,
                Event::Done {
                    id: delivery.id,
                    message: delivery.message,
                },
            );
            let packet = match delivery.qos {
                1 => Packet::PubAck(delivery.id, 0),
                _ => Packet::PubRec(delivery.id, 0),
            };
            self.send(client, packet);
        }
    }

    fn is_to_reject(&self, client: ClientNumber, message: MessageKey) -> bool {
        matches!(
            self.plan.clients[client].role,
            Role::Worker { queue: REJECTS, .. }
        ) && (self.verdict.topic_of(message)).is_some_and(|topic| self.plan.is_bad(topic))
    }

    /// In each version's own way.
    fn reject(&mut self, client: ClientNumber, delivery: Unanswered) {
        let Unanswered { id, message, .. } = delivery;
        self.note(client, Event::Reject { id, message });
        let mut code = 0x99;
        if self.plan.clients[client].version == Version::V311 {
            code = 0;
            self.send(
                client,
                Packet::Publish(Publish {
                    dup: false,
                    retain: false,
                    topic: "$queue/$reject".to_owned(),
                    packet_id: None,
                    qos: 0,
                    payload: Bytes::from(id.to_string()),
                }),
            );
        }
        self.send(client, Packet::PubAck(id, code));
    }

    fn connect(&mut self, client: ClientNumber) {
        let stream = BlockingStream::connect_timeout(&self.address, PATIENCE).and_then(|stream| {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            let interest = Interest::READABLE | Interest::WRITABLE;
            (self.poll.registry()).register(&mut stream, Token(client), interest)?;
            Ok(stream)
        });
        let Ok(stream) = stream else {
            self.cut = true;
            return;
        };
        let plan = &self.plan.clients[client];
        self.links[client] = Some(Link {
            stream,
            codec: Codec::new(plan.version),
            read: BytesMut::new(),
            unsent: BytesMut::new(),
            up: false,
            leaving: false,
            pings: 0,
            messages_left: match plan.presence {
                Presence::Unsteady if self.stage == Stage::Load => {
                    200 + self.randoms[client].below(2000)
                }
                _ => usize::MAX,
            },
            doomed: false,
            busy: false,
        });
        let keep = !matches!(plan.role, Role::Watcher);
        let name = format!("{}-{}", self.plan.name, plan.name);
        self.note(client, Event::Connect);
        self.send(client, Packet::Connect { client: name, keep });
    }

    fn read(&mut self, client: ClientNumber) {
        let Some(link) = &mut self.links[client] else {
            return;
        };
        let mut buffer = [0; 64 << 10];
        let mut ended = false;
        loop {
            match link.stream.read(&mut buffer) {
                Ok(0) => {
                    ended = true;
                    break;
                }
                Ok(count) => link.read.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    ended = true;
                    break;
                }
            }
        }
        while let Some(link) = self.links[client].as_mut().filter(|link| !link.doomed) {
            match link.codec.decode(&mut link.read) {
                Ok(Some(packet)) => {
                    link.busy = true;
                    self.heard = Instant::now();
                    self.handle(client, packet);
                }
                Ok(None) => break,
                Err(what) => {
                    self.note(client, Event::Wrong { what });
                    ended = true;
                    break;
                }
            }
        }
        if ended
            && let Some(link) = self.links[client].take()
            && !link.leaving
        {
            self.note(client, Event::Lost);
            self.cut = true;
        }
    }

    fn handle(&mut self, client: ClientNumber, packet: Packet) {
        let session = &self.sessions[client];
        match packet {
            Packet::ConnAck { code: 0, present } => {
                self.note(client, Event::ConnAck { present });
                if let Some(link) = &mut self.links[client] {
                    link.up = true;
                }
                self.resume(client, present);
            }
            Packet::ConnAck { code, .. } => self.wrong(client, format!("CONNACK {code:#04x}")),
            Packet::Publish(publish) => self.take(client, publish),
            Packet::PubAck(id, code) => match session.outgoing_of(id) {
                Some(_) => self.note(client, Event::PubAck { id, code }),
                None => self.wrong(client, format!("PUBACK of packet id {id}, which is free")),
            },
            Packet::PubRec(id, code) => {
                if session.outgoing_of(id).is_some() {
                    self.note(client, Event::PubRec { id, code });
                    if code < 0x80 {
                        self.send(client, Packet::PubRel(id));
                    }
                } else {
                    self.wrong(client, format!("PUBREC of packet id {id}, which is free"));
                }
            }
            Packet::PubComp(id) => match session.outgoing_of(id) {
                Some(message) if message.received => self.note(client, Event::PubComp { id }),
                _ => self.wrong(client, format!("PUBCOMP of packet id {id}, not released")),
            },
            Packet::PubRel(id) => {
                if session.unreleased.contains_key(&id) {
                    self.note(client, Event::Released { id });
                }
                self.send(client, Packet::PubComp(id));
            }
            Packet::SubAck(id, code) => match &session.change {
                Some(change) if change.id == id && change.subscribe => {
                    self.note(client, Event::SubAck { id, code });
                }
                _ => self.wrong(client, format!("SUBACK of packet id {id}, which is free")),
            },
            Packet::UnsubAck(id, code) => match &session.change {
                Some(change) if change.id == id && !change.subscribe => {
                    self.note(client, Event::UnsubAck { id, code });
                }
                _ => self.wrong(client, format!("UNSUBACK of packet id {id}, which is free")),
            },
            Packet::PingResp => {
                if let Some(link) = &mut self.links[client] {
                    link.pings = link.pings.saturating_sub(1);
                }
            }
            Packet::Disconnect(code) => self.note(client, Event::Dismissed { code }),
            other => self.wrong(client, format!("a server sends no {other:?}")),
        }
    }

    /// Goes on where the connection was lost [MQTT-4.4.0-1].
    fn resume(&mut self, client: ClientNumber, present: bool) {
        for message in self.sessions[client].outgoing.clone() {
            if message.received {
                self.send(client, Packet::PubRel(message.id));
            } else {
                self.note(client, Event::Again { id: message.id });
                self.send_message(client, &message, present);
            }
        }
        if let Some(change) = self.sessions[client].change.clone() {
            self.send_change(client, change.id, change.filter, change.subscribe);
        }
    }

    fn take(&mut self, client: ClientNumber, publish: Publish) {
        // A clear says nothing of itself; who subscribed gets it all the same.
        let (Some(id), false) = (publish.packet_id, publish.payload.is_empty()) else {
            return self.take_clear(client, publish);
        };
        let message = match self.plan.message_of(&publish.payload) {
            Ok(message) => message,
            Err(what) => return self.wrong(client, what),
        };
        if matches!(self.plan.clients[client].role, Role::Watcher) {
            self.watched.insert(publish.topic, message);
            return self.send(client, Packet::PubAck(id, 0));
        }
        let qos = publish.qos;
        let event = match self.sessions[client].unreleased.get(&id) {
            Some(known) if qos == 2 && *known == message => Event::Repeated { id, message },
            Some(known) if qos == 2 => {
                let what = format!("packet id {id} is used for {message} while {known} has it");
                return self.wrong(client, what);
            }
            _ => Event::Got { id, qos, message },
        };
        self.note(client, event);
        if !matches!(self.plan.clients[client].role, Role::Worker { .. }) {
            self.answer(client, 0);
        }
        if let Some(link) = &mut self.links[client] {
            link.messages_left -= 1;
            if link.messages_left == 0 {
                link.doomed = true;
                // Sometimes not even what was about to be said is heard.
                if self.randoms[client].percent(30) {
                    link.unsent.clear();
                }
            }
        }
    }

    fn take_clear(&mut self, client: ClientNumber, publish: Publish) {
        match publish.packet_id {
            Some(id) if publish.qos == 1 => self.send(client, Packet::PubAck(id, 0)),
            Some(id) => self.send(client, Packet::PubRec(id, 0)),
            None => self.wrong(client, format!("QoS 0 on {}", publish.topic)),
        }
    }

    fn wrong(&mut self, client: ClientNumber, what: String) {
        self.note(client, Event::Wrong { what });
    }

    fn note(&mut self, client: ClientNumber, event: Event) {
        let entry = self.ledger.append(&self.plan, client, event);
        self.verdict.consider(&entry, &self.sessions[client]);
        self.sessions[client].apply(&entry.event);
    }

    fn send(&mut self, client: ClientNumber, packet: Packet) {
        if let Some(link) = &mut self.links[client] {
            link.codec.encode(packet, &mut link.unsent);
        }
    }

    fn flush(&mut self, client: ClientNumber) {
        let Some(link) = &mut self.links[client] else {
            return;
        };
        while !link.unsent.is_empty() {
            match link.stream.write(&link.unsent) {
                Ok(count) => link.unsent.advance(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // What the broker said before is still to be read.
                Err(_) => return link.unsent.clear(),
            }
        }
        let doomed = link.doomed;
        if link.leaving || doomed {
            self.links[client] = None;
        }
        if doomed {
            self.note(client, Event::Lost);
        }
    }

    /// Everybody leaves, in the order that the protocol has for it.
    fn disconnect(&mut self) -> Result<(), String> {
        for client in 0..self.links.len() {
            if self.links[client].is_some() {
                self.note(client, Event::Leave);
                self.send(client, Packet::Disconnect(0));
            }
        }
        self.ledger.write()?;
        for client in 0..self.links.len() {
            self.flush(client);
            self.links[client] = None;
        }
        Ok(())
    }
}
