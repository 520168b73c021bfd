//! The broker under test, and the clients' ends of their connections.
//!
//! Owns the clock, and what a client knows of one connection: which topic
//! aliases the broker has set, what it asked the broker to keep to. Everything
//! goes over the wire, and what comes is checked as a client would.

use std::time::Duration;

use rotamq::broker::{Admission, Core, Link, Stop, Worker};
use rotamq::config::Config;
use rotamq::message::Time;
use rotamq::protocol::{
    Connect, Packet, PacketType, Properties, PropertiesBuf, Property, Version, decode,
    decode_connect, encode,
};
use rotamq::session::{Close, Exchange, Outbox};
use rotamq::topic::{TopicLimits, TopicName};

use super::super::{Commits, Twin, Wakes, stored, write};
use super::broker::{Answer, Connecting, Content, Publication};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

/// Something that a client got.
#[derive(Debug)]
pub enum Got {
    /// When, and as the how manieth of all.
    Publish(Duration, usize, Publication),
    Answer(Answer),
    /// It is none that the broker may send.
    Wrong(String),
}

pub struct Clients {
    core: Core,
    worker: Worker,
    now: Time,
    connections: Vec<Connection>,
    /// How many packets all of them have got.
    count: usize,
}

/// One connection; a client that connects again has another.
struct Connection {
    version: Version,
    link: Option<Link>,
    writing: Outbox,
    stream: Vec<u8>,
    wakes: Arc<Wakes>,
    /// How many of the wakes it has followed.
    turns: usize,
    got: Vec<Got>,
    aliases: Vec<(u16, String)>,
    alias_max: u16,
    packet_bytes_max: usize,
    problem_information: bool,
    /// What CONNACK said.
    broker_alias_max: u16,
    /// The reason in the DISCONNECT that came.
    disconnect: Option<u8>,
}

impl Clients {
    /// Every second broker stores.
    pub fn new(config: &Config, seed: u64) -> Clients {
        let core = match seed.is_multiple_of(2) {
            true => stored(Core::new(config, seed), &Twin::new(), Time::ZERO).expect("it opens"),
            false => Core::new(config, seed),
        };
        Clients {
            worker: Worker::new(&core),
            core,
            now: Time::ZERO + Duration::from_secs(1),
            connections: Vec::new(),
            count: 0,
        }
    }

    pub fn now(&self) -> Duration {
        self.now.since(Time::ZERO)
    }

    pub fn are_stored(&self) -> bool {
        self.core.store().is_on()
    }

    /// How many jobs the broker has given up.
    pub fn dead_letters(&self) -> u64 {
        self.core.counters().read().dead_letters
    }

    /// The highest topic alias that the broker takes.
    pub fn broker_alias_max(&self, number: usize) -> u16 {
        self.connections[number].broker_alias_max
    }

    // ---- what clients do

    /// The number of the connection.
    pub fn connect(&mut self, client_id: &str, connecting: &Connecting) -> Result<usize, String> {
        let mut properties = PropertiesBuf::new();
        let mut will_properties = PropertiesBuf::new();
        if connecting.v5 {
            put_connecting(connecting, &mut properties);
        }
        if let (true, Some(will)) = (connecting.v5, &connecting.will) {
            if will.delay_secs > 0 {
                will_properties.push(Property::WillDelayInterval(will.delay_secs));
            }
            put_content(&will.content, will.expiry_secs, &mut will_properties);
        }
        let will = connecting.will.as_ref();
        let version = version(connecting.v5);
        let packet = Packet::Connect(Connect {
            version,
            clean_start: connecting.clean,
            keep_alive_secs: connecting.keep_alive_secs,
            properties: properties.as_properties(),
            client_id,
            will: will.map(|will| rotamq::protocol::Will {
                topic: &will.content.topic,
                payload: will.content.payload.as_bytes(),
                qos: super::super::qos_of(will.qos),
                retain: will.retain,
                properties: will_properties.as_properties(),
            }),
            user_name: None,
            password: None,
        });
        let mut bytes = Vec::new();
        encode(&packet, version, &mut bytes);
        let (connect, _) = decode_connect(&bytes, usize::MAX)
            .expect("valid")
            .expect("whole");
        let link = self.core.connect(&mut self.worker, &connect, self.now);
        self.worker.effects.wake_all();
        let link = match link {
            Ok(Admission::Admitted(link)) => link,
            Ok(Admission::Challenged(_)) => return Err("the client was asked something".into()),
            Err(why) => return Err(format!("CONNECT was refused: {why:?}")),
        };
        let number = self.connections.len();
        let max = connecting.packet_bytes_max.unwrap_or(u32::MAX);
        self.connections.push(Connection {
            version,
            link: Some(link),
            writing: Outbox::default(),
            stream: Vec::new(),
            wakes: Arc::default(),
            turns: 0,
            got: Vec::new(),
            aliases: Vec::new(),
            alias_max: if connecting.v5 {
                connecting.alias_max
            } else {
                0
            },
            packet_bytes_max: max as usize,
            problem_information: connecting.problem_information,
            broker_alias_max: 0,
            disconnect: None,
        });
        self.turn(number, false);
        self.drive();
        Ok(number)
    }

    /// All that one read of the broker brings; `read`: the client reads what
    /// comes of it, or else its connection is lost.
    pub fn send(&mut self, number: usize, bytes: &[u8], read: bool) {
        let connection = &mut self.connections[number];
        let link = connection.link.as_mut().expect("open");
        let mut rest = bytes;
        let mut stop = None;
        self.core.begin_read(&mut self.worker);
        while stop.is_none() && !rest.is_empty() {
            stop = match decode(rest, connection.version, usize::MAX) {
                Ok(read) => {
                    let (packet, len) = read.expect("whole packets are sent");
                    rest = &rest[len..];
                    let handled = (self.core).handle(&mut self.worker, link, &packet, self.now);
                    handled.err()
                }
                Err(error) => Some(Stop::Closed(Close::new(error.reason, error.what))),
            };
        }
        self.core.end_read(&mut self.worker, link, self.now);
        self.worker.effects.wake_all();
        match stop {
            Some(stop) => self.leave(number, stop),
            None if read => self.turn(number, true),
            None => self.leave(number, Stop::Lost),
        }
        self.drive();
    }

    /// The connection breaks.
    pub fn lose(&mut self, number: usize) {
        self.leave(number, Stop::Lost);
        self.drive();
    }

    /// Time passes, and what is due on the way is done.
    pub fn advance(&mut self, span: Duration) {
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

    /// What the client of that connection got since the last time.
    pub fn receive(&mut self, number: usize) -> Vec<Got> {
        std::mem::take(&mut self.connections[number].got)
    }

    pub fn connections_len(&self) -> usize {
        self.connections.len()
    }

    // ---- as `net` does

    /// The connection's turn, until it would wait.
    fn turn(&mut self, number: usize, heard: bool) {
        let connection = &mut self.connections[number];
        let Some(link) = &mut connection.link else {
            return;
        };
        connection.turns = connection.wakes.0.load(Ordering::Relaxed);
        let waker = Waker::from(connection.wakes.clone());
        let mut heard = heard;
        let (core, worker, now) = (&self.core, &mut self.worker, self.now);
        let stop = loop {
            let mut idle = true;
            let (writing, stream) = (&mut connection.writing, &mut connection.stream);
            write(core, Commits::AtOnce, None, writing, stream, Waker::noop());
            let writing = &mut connection.writing;
            match core.exchange(
                worker,
                link,
                writing,
                Some(&waker),
                std::mem::take(&mut heard),
                now,
            ) {
                Exchange::Closing(close) => break Stop::from(close),
                Exchange::Open { backlog, .. } => {
                    if backlog && core.send_backlog(worker, link.session, now) {
                        idle = false;
                    }
                }
            }
            worker.effects.wake_all();
            if idle && connection.writing.is_empty() {
                self.connections[number].read(now, &mut self.count);
                return;
            }
        };
        self.worker.effects.wake_all();
        self.leave(number, stop);
    }

    /// The connection ends; unless it is lost, what was handled before is
    /// answered.
    fn leave(&mut self, number: usize, stop: Stop) {
        let (core, worker, now) = (&self.core, &mut self.worker, self.now);
        let connection = &mut self.connections[number];
        let mut link = connection.link.take().expect("open");
        if stop == Stop::Lost {
            worker.drop_answers();
        } else {
            core.exchange(worker, &mut link, &mut connection.writing, None, false, now);
        }
        if let Some(close) = link.last_word(&stop) {
            let (terms, settings) = (link.terms, core.session_settings());
            (connection.writing).append(|out| terms.disconnect(&close, settings, out));
        }
        core.disconnect(worker, link, &stop, now);
        if stop != Stop::Lost {
            let (writing, stream) = (&mut connection.writing, &mut connection.stream);
            write(core, Commits::AtOnce, None, writing, stream, Waker::noop());
            connection.read(now, &mut self.count);
        }
        if let Stop::Closed(close) = &stop {
            let reason = close.reason as u8;
            let told = connection.disconnect.take();
            let got = match told == (connection.version == Version::V5).then_some(reason) {
                true => Got::Answer(Answer::Closed(reason)),
                false => Got::Wrong(format!("DISCONNECT {told:?} for a close for {reason}")),
            };
            connection.got.push(got);
        }
        self.worker.effects.wake_all();
    }

    /// Whoever was woken gets a turn, until nobody is left.
    fn drive(&mut self) {
        loop {
            let mut idle = true;
            for number in 0..self.connections.len() {
                let connection = &self.connections[number];
                let wakes = connection.wakes.0.load(Ordering::Relaxed);
                if connection.link.is_some() && connection.turns < wakes {
                    self.turn(number, false);
                    idle = false;
                }
            }
            if idle {
                return;
            }
        }
    }
}

impl Connection {
    /// The client reads what was written to it.
    fn read(&mut self, now: Time, count: &mut usize) {
        let stream = std::mem::take(&mut self.stream);
        let mut rest = &stream[..];
        while !rest.is_empty() {
            match decode(rest, self.version, self.packet_bytes_max) {
                Ok(Some((packet, len))) => {
                    rest = &rest[len..];
                    *count += 1;
                    let got = self.got(&packet, now, *count);
                    self.got
                        .extend(got.unwrap_or_else(|why| Some(Got::Wrong(why))));
                }
                wrong => {
                    self.got
                        .push(Got::Wrong(format!("not a whole packet: {wrong:?}")));
                    return;
                }
            }
        }
    }

    fn got(&mut self, packet: &Packet<'_>, now: Time, count: usize) -> Result<Option<Got>, String> {
        let answer = match packet {
            Packet::Publish(publish) => {
                let publication = self.publication(publish)?;
                let at = now.since(Time::ZERO);
                return Ok(Some(Got::Publish(at, count, publication)));
            }
            Packet::Connack(connack) => {
                let mut expiry_secs = None;
                for property in connack.properties.iter() {
                    match property {
                        Property::TopicAliasMaximum(max) => self.broker_alias_max = max,
                        Property::SessionExpiryInterval(secs) => expiry_secs = Some(secs),
                        _ => {}
                    }
                }
                if connack.reason as u8 != 0 {
                    return Err(format!("{connack:?}"));
                }
                Answer::Connack(connack.session_present, expiry_secs)
            }
            Packet::Disconnect(disconnect) => {
                if self.version != Version::V5 || self.disconnect.is_some() {
                    return Err("a DISCONNECT that may not come".into());
                }
                self.disconnect = Some(disconnect.reason as u8);
                return Ok(None);
            }
            Packet::Puback(ack) => Answer::Puback(ack.packet_id.get(), ack.reason as u8),
            Packet::Pubrec(ack) => Answer::Pubrec(ack.packet_id.get(), ack.reason as u8),
            Packet::Pubrel(ack) => Answer::Pubrel(ack.packet_id.get(), ack.reason as u8),
            Packet::Pubcomp(ack) => Answer::Pubcomp(ack.packet_id.get(), ack.reason as u8),
            Packet::Suback(suback) => {
                let codes = suback.reasons.iter().map(|code| *code as u8).collect();
                Answer::Suback(suback.packet_id.get(), codes)
            }
            Packet::Unsuback(unsuback) => {
                let codes = unsuback.reasons.iter().map(|code| *code as u8).collect();
                Answer::Unsuback(unsuback.packet_id.get(), codes)
            }
            other => return Err(format!("{other:?}")),
        };
        let tells = properties_of(packet).iter().any(|property| {
            matches!(
                property,
                Property::ReasonString(_) | Property::UserProperty(_)
            )
        });
        let may_tell = self.problem_information || packet.packet_type() == PacketType::Connack;
        if tells && !may_tell {
            return Err(format!("{packet:?} has problem information")); // [MQTT-3.1.2-29]
        }
        Ok(Some(Got::Answer(answer)))
    }

    fn publication(
        &mut self,
        publish: &rotamq::protocol::Publish<'_>,
    ) -> Result<Publication, String> {
        let mut got = Publication {
            qos: publish.qos as u8,
            id: publish.packet_id.map_or(0, NonZeroU16::get),
            dup: publish.dup,
            retain: publish.retain,
            ..Publication::default()
        };
        let mut content = Content {
            topic: publish.topic.to_owned(),
            payload: String::from_utf8_lossy(publish.payload).into_owned(),
            ..Content::default()
        };
        let mut alias = None;
        for property in publish.properties.iter() {
            match property {
                Property::PayloadFormatIndicator(utf8) => content.utf8 = Some(utf8),
                Property::MessageExpiryInterval(secs) => got.expiry_secs = Some(secs),
                Property::ContentType(text) => content.content_type = Some(text.to_owned()),
                Property::ResponseTopic(topic) => {
                    content.response_topic = Some(topic.as_str().to_owned());
                }
                Property::CorrelationData(bytes) => content.correlation = Some(bytes.to_vec()),
                Property::SubscriptionIdentifier(id) => got.subscription_ids.push(id.get()),
                Property::TopicAlias(number) => alias = Some(number.get()),
                Property::UserProperty((name, value)) => {
                    content.user.push((name.to_owned(), value.to_owned()));
                }
                other => return Err(format!("a PUBLISH has {other:?}")),
            }
        }
        if let Some(alias) = alias {
            if alias > self.alias_max {
                return Err(format!("alias {alias} is above the maximum")); // [MQTT-3.1.2-26]
            }
            if content.topic.is_empty() {
                let known = self.aliases.iter().find(|(other, _)| *other == alias);
                let (_, topic) = known.ok_or("a topic alias that was not set")?;
                content.topic = topic.clone();
            } else {
                self.aliases.retain(|(other, _)| *other != alias);
                self.aliases.push((alias, content.topic.clone()));
            }
        }
        if content.topic.is_empty() {
            return Err("a PUBLISH without topic".into());
        }
        got.content = content;
        Ok(got)
    }
}

fn properties_of<'a>(packet: &Packet<'a>) -> Properties<'a> {
    match packet {
        Packet::Connack(packet) => packet.properties,
        Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubrel(ack) | Packet::Pubcomp(ack) => {
            ack.properties
        }
        Packet::Suback(packet) => packet.properties,
        Packet::Unsuback(packet) => packet.properties,
        _ => Properties::EMPTY,
    }
}

pub fn version(v5: bool) -> Version {
    match v5 {
        true => Version::V5,
        false => Version::V3_1_1,
    }
}

fn put_connecting(connecting: &Connecting, properties: &mut PropertiesBuf) {
    if connecting.expiry_secs > 0 {
        properties.push(Property::SessionExpiryInterval(connecting.expiry_secs));
    }
    if let Some(max) = connecting.receive_max {
        let max = NonZeroU16::new(max).expect("1 at least");
        properties.push(Property::ReceiveMaximum(max));
    }
    if let Some(max) = connecting.packet_bytes_max {
        let max = NonZeroU32::new(max).expect("1 at least");
        properties.push(Property::MaximumPacketSize(max));
    }
    if connecting.alias_max > 0 {
        properties.push(Property::TopicAliasMaximum(connecting.alias_max));
    }
    if !connecting.problem_information {
        properties.push(Property::RequestProblemInformation(false));
    }
}

/// The properties of a PUBLISH or a will that are passed on.
pub fn put_content(content: &Content, expiry_secs: Option<u32>, to: &mut PropertiesBuf) {
    if let Some(utf8) = content.utf8 {
        to.push(Property::PayloadFormatIndicator(utf8));
    }
    if let Some(secs) = expiry_secs {
        to.push(Property::MessageExpiryInterval(secs));
    }
    if let Some(text) = &content.content_type {
        to.push(Property::ContentType(text));
    }
    if let Some(topic) = &content.response_topic {
        let topic = TopicName::parse(topic, TopicLimits::NONE).expect("a topic name");
        to.push(Property::ResponseTopic(topic));
    }
    if let Some(bytes) = &content.correlation {
        to.push(Property::CorrelationData(bytes));
    }
    for (name, value) in &content.user {
        to.push(Property::UserProperty((name, value)));
    }
}
