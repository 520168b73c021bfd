//! What clients do, step by step, to the broker and to the reference alike.
//!
//! Owns the steps: each says all that it does, so that a story can be played
//! again without some of them. A step that makes no sense where it stands,
//! such as one of a client that is not connected, does nothing.

use std::num::NonZeroU16;
use std::time::Duration;

use rotamq::config::Config;
use rotamq::protocol::{
    Ack, Connect, Disconnect, Packet, Properties, PropertiesBuf, Property, Publish, ReasonCode,
    RetainHandling, Subscribe, SubscribeOptions, SubscriptionId, Unsubscribe, encode,
};

use super::super::{packet_id, qos_of};
use super::LARGE_BYTES;
use super::broker::{
    Answer, Connecting, Content, Ending, Message, REFUSED, Reference, Subscription, Will,
};
use super::clients::{Clients, Got, put_content, version};
use crate::world::random::Random;

const CLIENTS: usize = 5;
const QUEUE: &str = "$queue/jobs";
/// Most unacknowledged deliveries a client.
const INFLIGHT_MAX: u16 = 5;
/// Ordinary filters mean the first, share groups and the queue the others, or
/// give them another name: which copy came from where is never in doubt.
const TOPICS: [&str; 9] = [
    "a",
    "a/b",
    "a/c",
    "b/c",
    "b",
    "$work/x",
    "$work/y",
    "jobs",
    "$queue/jobs",
];
/// From here on somebody gets it whom the broker chooses.
const WORK: usize = 5;
const FILTERS: [&str; 7] = ["#", "a/#", "a/+", "a/b", "+/c", "+", "b/c"];
/// A client is a member of one of them at most.
const GROUPS: [&str; 2] = ["$share/g/$work/#", "$share/h/$work/+"];
/// Packet ids that a client goes through, and how many of them wait for PUBREL
/// at most.
const IDS: u16 = 20;
const UNRELEASED_MAX: usize = 8;
/// The broker's Receive Maximum.
const RECEIVE_MAX: u16 = 9;
/// Few enough that jobs die of them.
const DELIVERIES_MAX: u32 = 4;
/// Of sessions of MQTT 5; longer than a run.
const EXPIRY_SECS_MAX: u32 = 5000;
/// Each wait ends so much after a whole second. What is due is due whole
/// seconds, eight at most, after a step: never so near to another that it
/// matters how late a timer is.
const OFF: Duration = Duration::from_millis(110);
/// How late a timer that another one set may be.
const LATE: Duration = Duration::from_millis(100);
/// Well above what a small message takes, well below what a large one does.
const PACKET_BYTES_MAX: u32 = 400;

#[derive(Clone, Debug)]
pub enum Step {
    Connect(usize, Connecting),
    Disconnect {
        client: usize,
        with_will: bool,
        expiry_secs: Option<u32>,
    },
    Lose(usize),
    /// All that the broker reads at once.
    Send(usize, Vec<Action>),
    /// The PUBLISH arrives, and the client is lost before it has read more.
    PublishAndLose(usize, Publishing),
    Violate(usize, Violation),
    Wait(u32),
}

#[derive(Clone, Debug)]
pub enum Action {
    Publish(Publishing),
    /// PUBREL for one of those that have their PUBREC.
    Release(usize),
    /// In one packet.
    Subscribe(Vec<Subscription>),
    Unsubscribe(Vec<String>),
    /// The next packet for one of the deliveries that wait for one, with that
    /// reason code.
    Acknowledge(usize, u8),
    /// An acknowledgement of nothing.
    Stray(Stray, u16),
}

impl Action {
    fn is_of_group(&self) -> bool {
        match self {
            Action::Subscribe(subscriptions) => {
                (subscriptions.iter()).any(|one| one.filter.starts_with('$'))
            }
            Action::Unsubscribe(filters) => filters.iter().any(|filter| filter.starts_with('$')),
            _ => false,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Publishing {
    content: Content,
    qos: u8,
    retain: bool,
    expiry_secs: Option<u32>,
    alias: Option<u16>,
}

#[derive(Clone, Copy, Debug)]
pub enum Stray {
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
}

/// After which the broker closes the connection.
#[derive(Clone, Copy, Debug)]
pub enum Violation {
    UnknownAlias,
    AliasTooLarge,
    SecondConnect,
    PubackForQos2,
    PubrecForQos1,
    NoLocalInGroup,
    /// More of QoS 2 that are not released than the broker's Receive Maximum.
    TooMany,
}

/// A client's own memory.
#[derive(Default)]
struct Player {
    /// The number of the connection that it has.
    connection: Option<usize>,
    last_id: u16,
    /// QoS 2, with their PUBRECs and not released.
    unreleased: Vec<u16>,
    /// Sent, whether in MQTT 5, and lost before an answer was read.
    unanswered: Vec<(u16, bool, Publishing)>,
}

pub struct Play {
    clients: Clients,
    reference: Reference,
    players: Vec<Player>,
    /// By connection: what came and was not looked at yet.
    inbox: Vec<Vec<Got>>,
    /// The steps, and what each connection got.
    pub log: Vec<String>,
}

impl Play {
    pub fn new(seed: u64) -> Play {
        let mut config = Config::default();
        config.limits.inflight_max = INFLIGHT_MAX;
        config.limits.receive_max = RECEIVE_MAX;
        config.session.expiry_max = Duration::from_secs(EXPIRY_SECS_MAX.into());
        config.queues.default.ack_timeout = None;
        config.queues.default.deliveries_max = DELIVERIES_MAX;
        // When it would be over is open.
        config.queues.default.backoff_min = Duration::ZERO;
        let clients = Clients::new(&config, seed);
        let reference = Reference::new(
            INFLIGHT_MAX.into(),
            EXPIRY_SECS_MAX,
            DELIVERIES_MAX,
            clients.are_stored(),
            clients.now(),
        );
        Play {
            reference,
            clients,
            players: (0..CLIENTS).map(|_| Player::default()).collect(),
            inbox: Vec::new(),
            log: Vec::new(),
        }
    }

    /// Takes one step; what went another way than the reference has it.
    pub fn step(&mut self, step: &Step) -> Result<(), String> {
        self.log.push(format!("{step:?}"));
        match step {
            Step::Connect(client, connecting) => self.connect(*client, connecting)?,
            Step::Wait(secs) => return self.wait(*secs),
            Step::Disconnect { client, .. }
            | Step::Lose(client)
            | Step::Send(client, _)
            | Step::PublishAndLose(client, _)
            | Step::Violate(client, _) => {
                let Some(number) = self.players[*client].connection else {
                    return Ok(());
                };
                self.step_of(*client, number, step);
            }
        }
        self.compare()
    }

    /// A step of a client that is connected.
    fn step_of(&mut self, client: usize, number: usize, step: &Step) {
        let v5 = self.reference.connection(client).expect("connected").v5;
        let mut bytes = Vec::new();
        match step {
            Step::Disconnect {
                with_will,
                expiry_secs,
                ..
            } => {
                let with_will = *with_will && v5;
                let expiry_secs = expiry_secs.filter(|_| v5);
                let mut properties = PropertiesBuf::new();
                if let Some(secs) = expiry_secs {
                    properties.push(Property::SessionExpiryInterval(secs));
                }
                let packet = Packet::Disconnect(Disconnect {
                    reason: match with_will {
                        true => ReasonCode::DisconnectWithWill,
                        false => ReasonCode::Success,
                    },
                    properties: properties.as_properties(),
                });
                encode(&packet, version(v5), &mut bytes);
                self.clients.send(number, &bytes, true);
                (self.reference).handle_disconnect(client, with_will, expiry_secs);
                self.players[client].connection = None;
            }
            Step::Lose(_) => {
                self.clients.lose(number);
                self.reference.disconnect(client, Ending::Lost);
                self.players[client].connection = None;
            }
            Step::Send(_, actions) => {
                self.reference.heard(client);
                let mut open = self.open(client);
                for action in actions {
                    self.act(client, v5, action, &mut open, &mut bytes);
                }
                self.clients.send(number, &bytes, true);
            }
            Step::PublishAndLose(_, publishing) => {
                let id = self.publish(client, v5, publishing, None, &mut bytes);
                let id = id.filter(|_| publishing.qos > 0);
                let unanswered = id.map(|id| (id, v5, publishing.clone()));
                self.players[client].unanswered.extend(unanswered);
                self.players[client]
                    .unreleased
                    .retain(|other| Some(*other) != id);
                self.players[client].connection = None;
                self.clients.send(number, &bytes, false);
                self.reference
                    .expected
                    .retain(|(other, _)| *other != number);
                self.reference.forget_unread(client);
                self.reference.disconnect(client, Ending::Lost);
            }
            Step::Violate(_, violation) => {
                if self.violate(client, v5, *violation, &mut bytes) {
                    self.clients.send(number, &bytes, true);
                    self.players[client].connection = None;
                }
            }
            Step::Connect(..) | Step::Wait(_) => unreachable!("not of a client that is connected"),
        }
    }

    fn connect(&mut self, client: usize, connecting: &Connecting) -> Result<(), String> {
        let mut connecting = connecting.clone();
        if !connecting.v5 {
            connecting.receive_max = None;
            connecting.packet_bytes_max = None;
            connecting.problem_information = true;
            if let Some(will) = &mut connecting.will {
                will.content = will.content.without_properties();
                (will.expiry_secs, will.delay_secs) = (None, 0);
            }
        }
        let number = self.clients.connect(&format!("c{client}"), &connecting)?;
        self.reference.connect(client, number, &connecting);
        let present = (self.reference.expected.iter()).any(|(other, answers)| {
            *other == number && matches!(answers[..], [Answer::Connack(true, _)])
        });
        let player = &mut self.players[client];
        player.connection = Some(number);
        if !present {
            player.unanswered.clear();
            player.unreleased.clear();
            return Ok(());
        }
        self.compare()?;
        // Sent again, with their ids, in their order [MQTT-4.4.0-1].
        let mut bytes = Vec::new();
        let player = &mut self.players[client];
        let releases = player.unreleased.len();
        for (id, v5, publishing) in std::mem::take(&mut player.unanswered) {
            // Not as another message, without its properties.
            if v5 != connecting.v5 && publishing.qos == 1 {
                continue;
            }
            // So that it is told from the first.
            let mut publishing = publishing.clone();
            publishing.content.payload.push('!');
            self.publish(client, connecting.v5, &publishing, Some(id), &mut bytes);
            if publishing.qos == 2 {
                self.players[client].unreleased.push(id);
            }
        }
        for _ in 0..releases {
            let action = Action::Release(0);
            self.act(client, connecting.v5, &action, &mut Vec::new(), &mut bytes);
        }
        self.clients.send(number, &bytes, true);
        Ok(())
    }

    fn wait(&mut self, secs: u32) -> Result<(), String> {
        let until = self.clients.now() + Duration::from_secs(secs.into()) + OFF;
        self.clients.advance(until - self.clients.now());
        self.collect()?;
        while let Some(due) = self.reference.next_due()
            && due <= until
        {
            self.reference.now = due;
            // Which of two that are due together comes first is open.
            self.reference.end_due_sessions();
            _ = self.look(due + LATE);
            self.reference.close_silent();
            self.look(due + LATE)?;
        }
        self.reference.now = until;
        for (client, player) in self.players.iter_mut().enumerate() {
            if self.reference.connection(client).is_none() {
                player.connection = None;
            }
        }
        self.compare()
    }

    // ---- actions

    /// One action, to the reference and into `bytes`. `open`: what the client
    /// has yet to acknowledge.
    fn act(
        &mut self,
        client: usize,
        v5: bool,
        action: &Action,
        open: &mut Vec<Answer>,
        bytes: &mut Vec<u8>,
    ) {
        let wire = version(v5);
        match action {
            Action::Publish(publishing) => {
                let unreleased = self.players[client].unreleased.len();
                if publishing.qos == 2 && unreleased >= UNRELEASED_MAX {
                    return;
                }
                if let Some(id) = self.publish(client, v5, publishing, None, bytes)
                    && publishing.qos == 2
                {
                    self.players[client].unreleased.push(id);
                }
            }
            Action::Release(at) => {
                let unreleased = &mut self.players[client].unreleased;
                if !unreleased.is_empty() {
                    let id = unreleased.remove(at % unreleased.len());
                    encode(&Packet::Pubrel(Ack::new(packet_id(id))), wire, bytes);
                    self.reference.handle_pubrel(client, id);
                }
            }
            Action::Subscribe(subscriptions) => {
                let id = self.next_id(client);
                let subscriptions: Vec<Subscription> = (subscriptions.iter())
                    .map(|subscription| match v5 {
                        true => subscription.clone(),
                        false => Subscription {
                            no_local: false,
                            retain_as_published: false,
                            retain_handling: 0,
                            id: None,
                            ..subscription.clone()
                        },
                    })
                    .collect();
                put_subscribe(id, &subscriptions, wire, bytes);
                self.reference.handle_subscribe(client, id, &subscriptions);
            }
            Action::Unsubscribe(filters) => {
                let id = self.next_id(client);
                let packet = Packet::Unsubscribe(Unsubscribe {
                    packet_id: packet_id(id),
                    properties: Properties::EMPTY,
                    filters: filters.iter().map(String::as_str).collect(),
                });
                encode(&packet, wire, bytes);
                self.reference.handle_unsubscribe(client, id, filters);
            }
            Action::Acknowledge(at, code) => {
                if open.is_empty() {
                    return;
                }
                let answer = open.remove(at % open.len());
                let code = match answer {
                    Answer::Puback(..) | Answer::Pubrec(..) if v5 => *code,
                    _ => 0,
                };
                match answer {
                    Answer::Puback(id, _) => {
                        encode(&Packet::Puback(ack(id, code)), wire, bytes);
                        self.reference.handle_puback(client, id, code);
                    }
                    Answer::Pubrec(id, _) => {
                        encode(&Packet::Pubrec(ack(id, code)), wire, bytes);
                        self.reference.handle_pubrec(client, id, code);
                    }
                    Answer::Pubcomp(id, _) => {
                        encode(&Packet::Pubcomp(ack(id, 0)), wire, bytes);
                        self.reference.handle_pubcomp(client, id);
                    }
                    other => unreachable!("{other:?}"),
                }
            }
            Action::Stray(stray, id) => self.stray(client, v5, *stray, *id, bytes),
        }
    }

    /// What the client would send next for each delivery that is not through.
    fn open(&mut self, client: usize) -> Vec<Answer> {
        let session = self.reference.session(client).expect("connected");
        let sent = session.sent.iter().filter(|sent| sent.seen);
        let sent = sent.map(|sent| match sent.qos() {
            1 => Answer::Puback(sent.id, 0),
            _ => Answer::Pubrec(sent.id, 0),
        });
        let releasing = session.releasing.iter();
        let releasing = releasing.map(|id| Answer::Pubcomp(*id, 0));
        sent.chain(releasing).collect()
    }

    fn next_id(&mut self, client: usize) -> u16 {
        let player = &mut self.players[client];
        loop {
            player.last_id = player.last_id % IDS + 1; // Soon used again.
            let id = player.last_id;
            let unanswered = player.unanswered.iter().any(|(other, ..)| *other == id);
            if !unanswered && !player.unreleased.contains(&id) {
                return id;
            }
        }
    }

    /// A PUBLISH, or the same once more with its id; its id, if it has one.
    fn publish(
        &mut self,
        client: usize,
        v5: bool,
        publishing: &Publishing,
        again: Option<u16>,
        bytes: &mut Vec<u8>,
    ) -> Option<u16> {
        let mut content = publishing.content.clone();
        let id = (publishing.qos > 0).then(|| again.unwrap_or_else(|| self.next_id(client)));
        let mut properties = PropertiesBuf::new();
        let mut topic = content.topic.as_str();
        if v5 {
            put_content(&content, publishing.expiry_secs, &mut properties);
            let connection = self.reference.connection(client).expect("connected");
            let alias_max = self.clients.broker_alias_max(connection.number);
            if let Some(alias) = publishing.alias.filter(|alias| *alias <= alias_max) {
                let number = NonZeroU16::new(alias).expect("1 at least");
                properties.push(Property::TopicAlias(number));
                let known = connection.aliases.iter().find(|(other, _)| *other == alias);
                if known.is_some_and(|(_, known)| known == topic) {
                    topic = "";
                } else {
                    connection.aliases.retain(|(other, _)| *other != alias);
                    connection.aliases.push((alias, topic.to_owned()));
                }
            }
        }
        let packet = Packet::Publish(Publish {
            dup: again.is_some(),
            qos: qos_of(publishing.qos),
            retain: publishing.retain,
            topic,
            packet_id: id.map(packet_id),
            properties: properties.as_properties(),
            payload: content.payload.as_bytes(),
        });
        encode(&packet, version(v5), bytes);
        if !v5 {
            content = content.without_properties();
        }
        let published = self.reference.now;
        let message = Message {
            content,
            qos: publishing.qos,
            retain: publishing.retain,
            expiry_secs: publishing.expiry_secs.filter(|_| v5),
            publisher: client,
            published,
        };
        (self.reference).handle_publish(client, id.unwrap_or(0), message);
        id
    }

    fn stray(&mut self, client: usize, v5: bool, stray: Stray, id: u16, bytes: &mut Vec<u8>) {
        let session = self.reference.session(client).expect("connected");
        let in_use = session.sent.iter().any(|sent| sent.id == id);
        if in_use || session.releasing.contains(&id) {
            return;
        }
        let unanswered = &self.players[client].unanswered;
        if self.players[client].unreleased.contains(&id)
            || unanswered.iter().any(|(other, ..)| *other == id)
        {
            return;
        }
        let wire = version(v5);
        match stray {
            Stray::Puback => {
                encode(&Packet::Puback(ack(id, 0)), wire, bytes);
                self.reference.handle_puback(client, id, 0);
            }
            Stray::Pubrec => {
                encode(&Packet::Pubrec(ack(id, 0)), wire, bytes);
                self.reference.handle_pubrec(client, id, 0);
            }
            Stray::Pubrel => {
                encode(&Packet::Pubrel(ack(id, 0)), wire, bytes);
                self.reference.handle_pubrel(client, id);
            }
            Stray::Pubcomp => {
                encode(&Packet::Pubcomp(ack(id, 0)), wire, bytes);
                self.reference.handle_pubcomp(client, id);
            }
        }
    }

    /// Whether it can be done.
    fn violate(
        &mut self,
        client: usize,
        v5: bool,
        violation: Violation,
        bytes: &mut Vec<u8>,
    ) -> bool {
        let wire = version(v5);
        let session = self.reference.session(client).expect("connected");
        let sent = |qos| {
            let mut sent = session.sent.iter();
            sent.find(|sent| sent.seen && sent.qos() == qos)
                .map(|sent| sent.id)
        };
        let (qos_1, qos_2) = (sent(1), sent(2));
        let number = session.connection.as_ref().expect("connected").number;
        let aliases = &session.connection.as_ref().expect("connected").aliases;
        let alias_max = self.clients.broker_alias_max(number);
        match violation {
            Violation::UnknownAlias | Violation::AliasTooLarge => {
                let (alias, reasons): (u16, &[u8]) = match violation {
                    // 3.3.2.3.4 has no code of its own for it.
                    Violation::UnknownAlias => (alias_max, &[0x82, 0x94]),
                    _ => (alias_max.saturating_add(1), &[0x94]), // [MQTT-3.3.2-9]
                };
                if !v5 || alias == 0 || aliases.iter().any(|(known, _)| *known == alias) {
                    return false;
                }
                let mut properties = PropertiesBuf::new();
                properties.push(Property::TopicAlias(packet_id(alias)));
                let packet = Packet::Publish(Publish {
                    dup: false,
                    qos: qos_of(0),
                    retain: false,
                    topic: "",
                    packet_id: None,
                    properties: properties.as_properties(),
                    payload: b"",
                });
                encode(&packet, wire, bytes);
                self.reference.handle_violation(client, reasons);
            }
            Violation::SecondConnect => {
                let packet = Packet::Connect(Connect {
                    version: wire,
                    clean_start: true,
                    keep_alive_secs: 0,
                    properties: Properties::EMPTY,
                    client_id: "other",
                    will: None,
                    user_name: None,
                    password: None,
                });
                encode(&packet, wire, bytes);
                self.reference.handle_violation(client, &[0x82]); // [MQTT-3.1.0-2]
            }
            Violation::PubackForQos2 => {
                let Some(id) = qos_2 else { return false };
                encode(&Packet::Puback(ack(id, 0)), wire, bytes);
                self.reference.handle_puback(client, id, 0);
            }
            Violation::PubrecForQos1 => {
                let Some(id) = qos_1 else { return false };
                encode(&Packet::Pubrec(ack(id, 0)), wire, bytes);
                self.reference.handle_pubrec(client, id, 0);
            }
            Violation::NoLocalInGroup => {
                if !v5 {
                    return false;
                }
                let subscription = Subscription {
                    filter: GROUPS[0].to_owned(),
                    qos: 1,
                    no_local: true,
                    retain_as_published: false,
                    retain_handling: 0,
                    id: None,
                };
                let id = self.next_id(client);
                put_subscribe(id, std::slice::from_ref(&subscription), wire, bytes);
                (self.reference).handle_subscribe(client, id, &[subscription]);
            }
            Violation::TooMany => {
                if !v5 {
                    return false;
                }
                let unreleased = self.players[client].unreleased.len();
                let publishing = Publishing {
                    content: Content {
                        topic: "$nobody".to_owned(),
                        ..Content::default()
                    },
                    qos: 2,
                    retain: false,
                    expiry_secs: None,
                    alias: None,
                };
                for _ in unreleased..RECEIVE_MAX.into() {
                    let id = self.publish(client, v5, &publishing, None, bytes);
                    self.players[client].unreleased.extend(id);
                }
                let packet = Packet::Publish(Publish {
                    dup: false,
                    qos: qos_of(2),
                    retain: false,
                    topic: "$nobody",
                    packet_id: Some(packet_id(IDS + 1)),
                    properties: Properties::EMPTY,
                    payload: b"",
                });
                encode(&packet, wire, bytes);
                self.reference.handle_violation(client, &[0x93]); // [MQTT-3.3.4-8]
            }
        }
        true
    }

    // ---- comparing

    fn collect(&mut self) -> Result<(), String> {
        self.inbox
            .resize_with(self.clients.connections_len(), Vec::new);
        for (number, inbox) in self.inbox.iter_mut().enumerate() {
            for got in self.clients.receive(number) {
                self.log.push(format!("    {number} got {got:?}"));
                if let Got::Wrong(why) = got {
                    return Err(format!("connection {number}: {why}"));
                }
                inbox.push(got);
            }
        }
        Ok(())
    }

    /// Shows the reference the messages that came before `until`, in their
    /// order, of each connection as far as it has them.
    fn look(&mut self, until: Duration) -> Result<(), String> {
        let mut first = Ok(());
        let mut stuck = Vec::new();
        loop {
            let came = self.inbox.iter().enumerate().flat_map(|(number, inbox)| {
                let messages = inbox.iter().enumerate();
                messages.filter_map(move |(index, got)| match got {
                    Got::Publish(at, count, _) if *at <= until => Some((*count, number, index)),
                    _ => None,
                })
            });
            let next = came.filter(|(_, number, _)| !stuck.contains(number)).min();
            let Some((_, number, index)) = next else {
                return first;
            };
            let Got::Publish(at, _, publication) = &self.inbox[number][index] else {
                unreachable!("one was found there");
            };
            match self.reference.came(number, publication, *at) {
                Ok(()) => drop(self.inbox[number].remove(index)),
                Err(why) => {
                    stuck.push(number);
                    let why = format!("connection {number} got {publication:?}, but {why}");
                    first = first.and(Err(why));
                }
            }
        }
    }

    /// All that came was to come, and all that was to come did.
    fn compare(&mut self) -> Result<(), String> {
        self.reference.now = self.clients.now();
        self.collect()?;
        self.look(Duration::MAX)?;
        for (number, inbox) in self.inbox.iter_mut().enumerate() {
            for got in inbox.drain(..) {
                let mut expected = self.reference.expected.iter();
                let Some(at) = expected.position(|(other, _)| *other == number) else {
                    return Err(format!("connection {number} got {got:?} for nothing"));
                };
                let (_, answers) = self.reference.expected.remove(at);
                if !matches!(&got, Got::Answer(answer) if answers.contains(answer)) {
                    return Err(format!(
                        "connection {number} got {got:?} instead of {answers:?}"
                    ));
                }
            }
        }
        if let Some((number, answers)) = self.reference.expected.first() {
            return Err(format!("connection {number} did not get {answers:?}"));
        }
        self.reference.complete()?;
        let (dead_letters, expected) = (self.clients.dead_letters(), self.reference.dead_letters);
        match dead_letters == expected {
            true => Ok(()),
            false => Err(format!("{dead_letters} dead letters, not {expected}")),
        }
    }

    // ---- the end

    /// Every client that has a session comes, reads and acknowledges all.
    pub fn finish(&mut self) -> Result<(), String> {
        for client in 0..CLIENTS {
            if self.reference.session(client).is_some() {
                let plain = Connecting {
                    v5: client % 2 == 1,
                    clean: false,
                    expiry_secs: 0,
                    receive_max: None,
                    packet_bytes_max: None,
                    alias_max: 3,
                    keep_alive_secs: 0,
                    problem_information: true,
                    will: None,
                };
                self.step(&Step::Connect(client, plain))?;
            }
        }
        for client in 0..CLIENTS {
            while self.reference.session(client).is_some() && !self.open(client).is_empty() {
                self.step(&Step::Send(client, vec![Action::Acknowledge(0, 0)]))?;
            }
        }
        Ok(())
    }
}

fn put_subscribe(
    id: u16,
    subscriptions: &[Subscription],
    wire: rotamq::protocol::Version,
    bytes: &mut Vec<u8>,
) {
    let mut properties = PropertiesBuf::new();
    if let Some(id) = subscriptions[0].id {
        let id = SubscriptionId::new(id).expect("1 at least");
        properties.push(Property::SubscriptionIdentifier(id));
    }
    let options = |one: &Subscription| SubscribeOptions {
        qos: qos_of(one.qos),
        no_local: one.no_local,
        retain_as_published: one.retain_as_published,
        retain_handling: match one.retain_handling {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            _ => RetainHandling::DoNotSend,
        },
    };
    let filters = subscriptions.iter();
    let packet = Packet::Subscribe(Subscribe {
        packet_id: packet_id(id),
        properties: properties.as_properties(),
        filters: filters.map(|one| (&*one.filter, options(one))).collect(),
    });
    encode(&packet, wire, bytes);
}

fn ack(id: u16, code: u8) -> Ack<'static> {
    Ack {
        reason: match code {
            0x80 => ReasonCode::UnspecifiedError,
            0x97 => ReasonCode::QuotaExceeded,
            0x99 => ReasonCode::PayloadFormatInvalid,
            _ => ReasonCode::Success,
        },
        ..Ack::new(packet_id(id))
    }
}

// ---- what clients come to do

impl Play {
    /// A step that makes sense now. `number`: of the step, and of the first
    /// message that it publishes.
    pub fn next(&mut self, random: &mut Random, number: usize) -> Step {
        let client = random.below(CLIENTS);
        if random.one_in(8) {
            return Step::Wait(random.of(&[1, 1, 2, 3, 5, 8]));
        }
        let Some(_) = self.players[client].connection else {
            return Step::Connect(client, connecting(random, number, client));
        };
        match random.below(40) {
            0 => Step::Connect(client, connecting(random, number, client)),
            1 => Step::Disconnect {
                client,
                with_will: random.one_in(3),
                expiry_secs: (random.one_in(3)).then(|| random.of(&[0, 3, 6, 1000])),
            },
            2..4 => Step::Lose(client),
            4 => Step::PublishAndLose(client, publishing(random, number.to_string())),
            5 => {
                let violation = random.of(&[
                    Violation::UnknownAlias,
                    Violation::AliasTooLarge,
                    Violation::SecondConnect,
                    Violation::PubackForQos2,
                    Violation::PubrecForQos1,
                    Violation::NoLocalInGroup,
                    Violation::TooMany,
                ]);
                Step::Violate(client, violation)
            }
            _ => {
                let count = random.of(&[1, 1, 1, 2, 4]);
                let action = |at| action(random, number, at, client);
                let mut actions: Vec<Action> = (0..count).map(action).collect();
                // Who was a member when a message came is looked up afterwards.
                actions.sort_by_key(|action| !action.is_of_group());
                Step::Send(client, actions)
            }
        }
    }
}

fn connecting(random: &mut Random, number: usize, client: usize) -> Connecting {
    Connecting {
        v5: !random.one_in(3),
        clean: random.one_in(4),
        expiry_secs: random.of(&[0, 3, 6, 1000, u32::MAX]),
        receive_max: random.of(&[None, None, Some(1), Some(2), Some(3)]),
        packet_bytes_max: random.of(&[None, None, Some(PACKET_BYTES_MAX)]),
        alias_max: random.of(&[0, 1, 2, 10]),
        // Of two that are silent for too long at a time, either may go first.
        keep_alive_secs: if client == 0 { random.of(&[0, 2]) } else { 0 },
        problem_information: !random.one_in(3),
        will: random.one_in(3).then(|| {
            let publishing = publishing(random, format!("{number}w"));
            Will {
                content: publishing.content,
                qos: publishing.qos,
                retain: publishing.retain,
                // How late it is published is open, by less than a second.
                expiry_secs: publishing.expiry_secs.filter(|secs| (1..10).contains(secs)),
                delay_secs: random.of(&[0, 2, 5, 1000]),
            }
        }),
    }
}

fn action(random: &mut Random, number: usize, at: usize, client: usize) -> Action {
    match random.below(16) {
        0..6 => Action::Publish(publishing(random, format!("{number}.{at}"))),
        6 => Action::Release(random.below(8)),
        7..9 => {
            let id = (random.one_in(2)).then(|| random.of(&[1, 2, 3, 128, 16_384, 268_435_455]));
            let count = random.of(&[1, 1, 2, 3]);
            let subscription = |_| {
                let filter = filter(random, client);
                let qos = random.below(3) as u8;
                Subscription {
                    filter: filter.to_owned(),
                    qos: if filter == QUEUE { qos.max(1) } else { qos },
                    no_local: !filter.starts_with('$') && random.one_in(4),
                    retain_as_published: random.one_in(2),
                    retain_handling: random.below(3) as u8,
                    id,
                }
            };
            Action::Subscribe((0..count).map(subscription).collect())
        }
        9 => {
            let count = 1 + random.below(2);
            let filters = (0..count).map(|_| filter(random, client).to_owned());
            Action::Unsubscribe(filters.collect())
        }
        10 if random.one_in(4) => {
            let stray = [Stray::Puback, Stray::Pubrec, Stray::Pubrel, Stray::Pubcomp];
            Action::Stray(random.of(&stray), 2000 + random.below(60_000) as u16)
        }
        _ => {
            let code = random.of(&[0, 0, 0, 0, 0, 0x80, 0x80, 0x97, 0x99]);
            Action::Acknowledge(random.below(4), code)
        }
    }
}

fn filter(random: &mut Random, client: usize) -> &'static str {
    match random.below(10) {
        0 if random.one_in(8) => REFUSED,
        0..2 => GROUPS[client % GROUPS.len()],
        2 => QUEUE,
        _ => random.of(&FILTERS),
    }
}

fn publishing(random: &mut Random, payload: String) -> Publishing {
    let topic = random.below(TOPICS.len());
    let retain = random.one_in(4);
    let payload = match random.below(10) {
        // Takes a retained message away. In a group it could be taken for another.
        0 if retain && topic < WORK => String::new(),
        // A group may give it to whoever can take it, or to nobody.
        1 if topic < WORK => format!("{payload:.<LARGE_BYTES$}"),
        _ => payload,
    };
    let user =
        ["first", "second", "first"].map(|name| (name.to_owned(), payload.len().to_string()));
    let count = random.of(&[0, 0, 1, 3]);
    let text = |random: &mut Random, text: &str| random.one_in(4).then(|| text.to_owned());
    Publishing {
        content: Content {
            topic: TOPICS[topic].to_owned(),
            utf8: random.of(&[None, None, Some(false), Some(true)]),
            content_type: text(random, "text/plain"),
            response_topic: text(random, "answers/here"),
            correlation: random.one_in(4).then(|| vec![0, payload.len() as u8]),
            user: user[..count].to_vec(),
            payload,
        },
        qos: random.below(3) as u8,
        retain,
        expiry_secs: random.of(&[None, None, None, Some(0), Some(1), Some(4), Some(1000)]),
        alias: random.of(&[None, None, Some(1), Some(2), Some(9)]),
    }
}
