//! One client's connection: bytes out, packets in, and the rules that hold
//! for every packet of every case.
//!
//! What came is checked against what went before, so that a packet id used
//! twice, an acknowledgement of nothing or one out of order fails a case that
//! was about something else. Knows nothing of cases.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::case::Cut;
use crate::packet::{self, Cursor, Kind, Packet, Value, Version};
use crate::property;

/// What was said on all connections of a case, for the reader of a failure.
pub type Conversation = Rc<RefCell<Vec<String>>>;

pub struct Connection {
    client: String,
    stream: TcpStream,
    conversation: Conversation,
    /// How long anything may take before the case fails.
    patience: Duration,
    unread: Vec<u8>,
    /// Packets that came before one that was waited for.
    set_aside: VecDeque<Packet>,
    /// Bytes that go out with the next ones.
    held: Vec<u8>,
    /// Deliveries at QoS 2 of which the PUBREL is answered when it comes.
    completing: HashSet<u16>,
    /// If set, publications to topics without this text are not for the case.
    ignore_without: Option<String>,
    ledger: Ledger,
    last_packet_id: u16,
    last_written: Instant,
}

/// What a connection has for its reader.
pub enum Event {
    Packet(Packet),
    Closed,
}

impl Connection {
    /// `version` holds until a CONNECT says another.
    pub fn open(
        address: SocketAddr,
        client: &str,
        version: Version,
        patience: Duration,
        conversation: Conversation,
    ) -> Result<Connection, String> {
        let stream = TcpStream::connect_timeout(&address, patience)
            .and_then(|stream| {
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(patience))?;
                Ok(stream)
            })
            .map_err(|error| format!("cannot connect to {address}: {error}"))?;
        Ok(Connection {
            client: client.to_owned(),
            stream,
            conversation,
            patience,
            unread: Vec::new(),
            set_aside: VecDeque::new(),
            held: Vec::new(),
            completing: HashSet::new(),
            ignore_without: None,
            ledger: Ledger::new(version),
            // Ids that a case gives itself are smaller.
            last_packet_id: 999,
            last_written: Instant::now(),
        })
    }

    /// From now on, leaves out publications to topics that lack this text.
    pub fn ignore_topics_without(&mut self, text: &str) {
        self.ignore_without = Some(text.to_owned());
    }

    /// From now on, waits so long.
    pub fn be_patient(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Whether the broker has accepted the CONNECT, and not taken leave.
    pub fn is_connected(&self) -> bool {
        self.ledger.accepted && !self.ledger.over
    }

    /// Whether the broker has said that it ends the connection.
    pub fn is_over(&self) -> bool {
        self.ledger.over
    }

    /// What the client speaks.
    pub fn version(&self) -> Version {
        self.ledger.version
    }

    /// When the client last sent something, or a moment earlier.
    pub fn last_written(&self) -> Instant {
        self.last_written
    }

    /// A packet id for the steps that need none of their own.
    pub fn next_packet_id(&mut self) -> u16 {
        self.last_packet_id += 1;
        self.last_packet_id
    }

    pub fn send(&mut self, packet: &Packet) {
        let (first, body) = packet::encode(packet, self.version());
        self.write(&packet::frame(first, &body), Cut::Whole, packet.to_string());
    }

    /// Writes bytes; `described` is how the conversation tells of them. That
    /// the broker has closed already is for the next read to find.
    pub fn write(&mut self, bytes: &[u8], cut: Cut, described: String) {
        self.say(format_args!("-> {described}"));
        self.ledger.sent(bytes);
        self.held.extend(bytes);
        if cut == Cut::Hold {
            return;
        }
        let bytes = std::mem::take(&mut self.held);
        self.last_written = Instant::now();
        let pieces: Vec<&[u8]> = match cut {
            Cut::Every(count) => bytes.chunks(count).collect(),
            Cut::After(count) => {
                let (first, second) = bytes.split_at(count.min(bytes.len()));
                vec![first, second]
            }
            Cut::Whole | Cut::Hold => vec![&bytes],
        };
        for piece in pieces {
            if self.stream.write_all(piece).is_err() {
                return;
            }
        }
    }

    /// The next packet for the case, or that the broker closed.
    pub fn receive(&mut self) -> Result<Event, String> {
        match self.set_aside.pop_front() {
            Some(packet) => Ok(Event::Packet(packet)),
            None => self.receive_new(),
        }
    }

    /// As [`Connection::receive`], but what is published meanwhile stays for
    /// later: a broker may send messages before the SUBACK that they belong to
    /// (3.8.4).
    pub fn receive_beside_publications(&mut self) -> Result<Event, String> {
        loop {
            match self.receive_new()? {
                Event::Packet(packet) if packet.kind == Kind::Publish => {
                    self.set_aside.push_back(packet);
                }
                event => return Ok(event),
            }
        }
    }

    fn receive_new(&mut self) -> Result<Event, String> {
        let deadline = Instant::now() + self.patience;
        loop {
            let Some((mut packet, length)) = self.read_packet(deadline)? else {
                self.say(format_args!("<- the connection is closed"));
                return Ok(Event::Closed);
            };
            if let Err(fault) = self.ledger.came(&mut packet, length) {
                self.say(format_args!("<- {packet}"));
                return Err(fault);
            }
            if self.is_foreign(&packet) {
                self.answer(&packet);
                continue;
            }
            self.say(format_args!("<- {packet}"));
            if packet.kind == Kind::Pubrel {
                let packet_id = packet.packet_id().unwrap_or_default();
                if self.completing.remove(&packet_id) {
                    self.send(&acknowledgement(Kind::Pubcomp, packet_id));
                    continue;
                }
            }
            return Ok(Event::Packet(packet));
        }
    }

    /// Acknowledges a PUBLISH as its QoS asks; what follows at QoS 2 is
    /// answered when it comes.
    pub fn answer(&mut self, publish: &Packet) {
        let Some(packet_id) = publish.packet_id() else {
            return;
        };
        if publish.number("qos") == Some(2) {
            self.completing.insert(packet_id);
            self.send(&acknowledgement(Kind::Pubrec, packet_id));
        } else {
            self.send(&acknowledgement(Kind::Puback, packet_id));
        }
    }

    /// A PINGREQ; all that the broker sent before it saw this one, and what
    /// completes handshakes already begun, comes before it is over. Fails if
    /// that is anything for the case.
    pub fn fence(&mut self) -> Result<(), String> {
        self.send(&Packet::new(Kind::Pingreq));
        let mut answered = false;
        while !answered || !self.completing.is_empty() {
            match self.receive()? {
                Event::Packet(packet) if packet.kind == Kind::Pingresp && !answered => {
                    answered = true;
                }
                Event::Packet(packet) => return Err(format!("nothing may come, but {packet} did")),
                Event::Closed => return Err("the broker closed the connection".into()),
            }
        }
        Ok(())
    }

    /// The broker closes, and sends nothing before.
    pub fn receive_close(&mut self) -> Result<(), String> {
        match self.receive()? {
            Event::Packet(packet) => Err(format!("the broker was to close, but {packet} came")),
            Event::Closed => Ok(()),
        }
    }

    /// Ends this side's bytes and returns what comes until the broker has
    /// ended its own, so that it knows of the end.
    pub fn shut(&mut self) -> Result<Vec<Packet>, String> {
        let _ = self.stream.shutdown(Shutdown::Write);
        let mut packets = Vec::new();
        loop {
            match self.receive()? {
                Event::Packet(packet) => packets.push(packet),
                Event::Closed => return Ok(packets),
            }
        }
    }

    fn is_foreign(&self, packet: &Packet) -> bool {
        let (Some(text), Some(topic)) = (&self.ignore_without, packet.bytes("topic")) else {
            return false;
        };
        !String::from_utf8_lossy(topic).contains(text.as_str())
    }

    /// A packet and its length in bytes; `None`: the broker closed.
    fn read_packet(&mut self, deadline: Instant) -> Result<Option<(Packet, usize)>, String> {
        loop {
            if let Some((body_at, end)) = packet::find_frame(&self.unread)
                .map_err(|error| format!("the broker sent {error}"))?
            {
                let bytes: Vec<u8> = self.unread.drain(..end).collect();
                let body = &bytes[body_at..];
                return packet::decode(bytes[0], body, self.ledger.version_of(bytes[0], body))
                    .map(|packet| Some((packet, end)))
                    .map_err(|error| format!("the broker sent {error}: {}", packet::hex(&bytes)));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("nothing came within {:?}", self.patience));
            }
            self.stream
                .set_read_timeout(Some(left))
                .map_err(|error| format!("cannot set a time limit for reading: {error}"))?;
            let mut buffer = [0; 16 << 10];
            match self.stream.read(&mut buffer) {
                Ok(0) if self.unread.is_empty() => return Ok(None),
                Ok(0) => return Err("the broker closed in the middle of a packet".into()),
                Ok(count) => self.unread.extend(&buffer[..count]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    // A reset, since there were bytes that it had not read.
                    _ => return Ok(None),
                },
            }
        }
    }

    fn say(&self, what: std::fmt::Arguments<'_>) {
        self.conversation
            .borrow_mut()
            .push(format!("{} {what}", self.client));
    }
}

pub fn acknowledgement(kind: Kind, packet_id: u16) -> Packet {
    Packet::new(kind).with("packet_id", Value::Number(packet_id))
}

/// What each side owes the other on one connection.
struct Ledger {
    version: Version,
    terms: Terms,
    answered: bool,
    accepted: bool,
    /// The broker refused the CONNECT, or sent DISCONNECT.
    over: bool,
    /// The session is older than the connection, which may thus complete
    /// handshakes that it did not see begin.
    resumed: bool,
    /// Ids of the client's PUBLISHes, in order.
    pubacks: VecDeque<u16>,
    pubrecs: VecDeque<u16>,
    pubcomps: Vec<u16>,
    /// With the QoS asked for.
    subacks: Vec<(u16, Vec<u8>)>,
    /// With the number of filters.
    unsubacks: Vec<(u16, usize)>,
    pingresps: usize,
    /// The ids that the broker uses, and how far their handshake is.
    deliveries: HashMap<u16, Stage>,
    /// Ids of the client's PUBRECs that no PUBREL followed yet, in order.
    pubrels: VecDeque<u16>,
    /// The topics for which the broker has an alias.
    aliases: HashMap<u32, Vec<u8>>,
    /// The subscription identifiers that the client gave.
    subscription_identifiers: HashSet<u32>,
}

/// What a CONNECT of MQTT 5 asks the broker to keep to.
struct Terms {
    /// Whether the protocol level is one that says how the answer is written.
    level_known: bool,
    receive_maximum: usize,
    packet_bytes_max: usize,
    topic_alias_maximum: u32,
    problem_information: bool,
    response_information: bool,
    authentication: bool,
    client_id_empty: bool,
    clean_start: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Published { qos: u16 },
    Received,
}

impl Ledger {
    fn new(version: Version) -> Ledger {
        Ledger {
            version,
            terms: Terms {
                level_known: true,
                receive_maximum: 65535,
                packet_bytes_max: usize::MAX,
                topic_alias_maximum: 0,
                problem_information: true,
                response_information: false,
                authentication: false,
                client_id_empty: false,
                clean_start: false,
            },
            answered: false,
            accepted: false,
            over: false,
            resumed: false,
            pubacks: VecDeque::new(),
            pubrecs: VecDeque::new(),
            pubcomps: Vec::new(),
            subacks: Vec::new(),
            unsubacks: Vec::new(),
            pingresps: 0,
            deliveries: HashMap::new(),
            pubrels: VecDeque::new(),
            aliases: HashMap::new(),
            subscription_identifiers: HashSet::new(),
        }
    }

    /// How this packet of the broker is to be read. A protocol level that a
    /// broker does not know may be refused as in 3.1.1, or as in 5 (3.1.2.2).
    fn version_of(&self, first: u8, body: &[u8]) -> Version {
        if self.terms.level_known || first != 0x20 {
            return self.version;
        }
        match body.len() {
            2 => Version::V3,
            _ => Version::V5,
        }
    }

    /// Takes note of what the client sends, as far as it is valid.
    fn sent(&mut self, mut bytes: &[u8]) {
        while let Ok(Some((body_at, end))) = packet::find_frame(bytes) {
            let body = Cursor {
                kind: Kind::Connect,
                rest: &bytes[body_at..end],
            };
            // What is malformed is owed no answer.
            let _ = self.sent_one(bytes[0], body);
            bytes = &bytes[end..];
        }
    }

    fn sent_one(&mut self, first: u8, mut body: Cursor<'_>) -> Result<(), String> {
        if first == 0x10 {
            return self.connect_sent(body);
        }
        if first == 0xC0 {
            self.pingresps += 1;
            return Ok(());
        }
        if first >> 4 == 3 {
            body.string()?;
            match first >> 1 & 3 {
                1 => self.pubacks.push_back(body.number()?),
                2 => self.pubrecs.push_back(body.number()?),
                _ => {}
            }
            return Ok(());
        }
        let packet_id = body.number()?;
        match first {
            0x40 => {
                let settled = Some(&Stage::Published { qos: 1 });
                if self.deliveries.get(&packet_id) == settled {
                    self.deliveries.remove(&packet_id);
                }
            }
            0x50 => {
                let refused = self.version == Version::V5 && body.byte().unwrap_or(0) >= 0x80;
                let published = Stage::Published { qos: 2 };
                if self.deliveries.get(&packet_id) == Some(&published) {
                    if refused {
                        self.deliveries.remove(&packet_id);
                    } else {
                        self.deliveries.insert(packet_id, Stage::Received);
                        self.pubrels.push_back(packet_id);
                    }
                } else if self.version == Version::V5 && !refused {
                    // Answered all the same, by PUBREL with 0x92.
                    self.pubrels.push_back(packet_id);
                }
            }
            // MQTT 3.1 has a DUP flag in these, too.
            0x62 | 0x6A => self.pubcomps.push(packet_id),
            0x70 => {
                self.deliveries.remove(&packet_id);
            }
            0x82 | 0x8A => {
                if self.version == Version::V5 {
                    let properties = property::decode(&mut body)?;
                    let id = property::number(&properties, "subscription_identifier");
                    self.subscription_identifiers.extend(id);
                }
                let mut asked = Vec::new();
                while body.string().is_ok() {
                    asked.push(body.byte()? & 3);
                }
                self.subacks.push((packet_id, asked));
            }
            0xA2 | 0xAA => {
                if self.version == Version::V5 {
                    property::decode(&mut body)?;
                }
                let mut filters = 0;
                while body.string().is_ok() {
                    filters += 1;
                }
                self.unsubacks.push((packet_id, filters));
            }
            _ => {}
        }
        Ok(())
    }

    fn connect_sent(&mut self, mut body: Cursor<'_>) -> Result<(), String> {
        let name = body.string()?;
        let level = body.byte()?;
        let flags = body.byte()?;
        body.number()?;
        match (name, level) {
            // MQTT 3.1 does not tell whether there was a session (its 3.2).
            (b"MQIsdp", 3) => self.resumed = flags & 2 == 0,
            (b"MQTT", 4 | 5) => {}
            _ => {
                self.terms.level_known = false;
                return Ok(());
            }
        }
        if level < 5 {
            self.version = Version::V3;
            return Ok(());
        }
        self.version = Version::V5;
        self.terms.clean_start = flags & 2 != 0;
        let properties = property::decode(&mut body)?;
        let number = |name| property::number(&properties, name);
        let terms = &mut self.terms;
        if let Some(most) = number("receive_maximum") {
            terms.receive_maximum = most as usize;
        }
        // 0 is no valid one, and the answer to it cannot keep to it.
        if let Some(most) = number("maximum_packet_size").filter(|most| *most > 0) {
            terms.packet_bytes_max = most as usize;
        }
        terms.topic_alias_maximum = number("topic_alias_maximum").unwrap_or(0);
        terms.problem_information = number("request_problem_information") != Some(0);
        terms.response_information = number("request_response_information") == Some(1);
        terms.authentication = property::find(&properties, "authentication_method").is_some();
        terms.client_id_empty = body.string()?.is_empty();
        Ok(())
    }

    /// Whether this packet may come now. Puts a topic in the place of its alias.
    fn came(&mut self, packet: &mut Packet, length: usize) -> Result<(), String> {
        self.check_terms(packet, length)?;
        if packet.kind == Kind::Publish {
            return self.publish_came(packet);
        }
        let packet = &*packet;
        let packet_id = packet.packet_id().unwrap_or_default();
        let owed = match packet.kind {
            Kind::Connack => {
                self.accepted = packet.code() == 0;
                self.over = !self.accepted;
                self.resumed |= packet.flag("session_present");
                if packet.flag("session_present") && !self.accepted {
                    return Err(format!("{packet} came [MQTT-3.2.2-4; of 5: MQTT-3.2.2-6]"));
                }
                if packet.flag("session_present") && self.terms.clean_start {
                    return Err(format!(
                        "{packet} came to Clean Start 1 [of 5: MQTT-3.2.2-2]"
                    ));
                }
                !std::mem::replace(&mut self.answered, true)
            }
            Kind::Puback => take_first(&mut self.pubacks, packet_id)
                .map_err(|next| out_of_order(packet, next, "PUBLISH", "MQTT-4.6.0-2"))?,
            Kind::Pubrec => take_first(&mut self.pubrecs, packet_id)
                .map_err(|next| out_of_order(packet, next, "PUBLISH", "MQTT-4.6.0-3"))?,
            Kind::Pubrel => {
                take_first(&mut self.pubrels, packet_id)
                    .map_err(|next| out_of_order(packet, next, "PUBREC", "MQTT-4.6.0-4"))?
                    || self.resumed
                    || self.deliveries.get(&packet_id) == Some(&Stage::Received)
            }
            Kind::Pubcomp => take(&mut self.pubcomps, |owed| *owed == packet_id).is_some(),
            Kind::Suback => match take(&mut self.subacks, |(owed, _)| *owed == packet_id) {
                Some((_, asked)) => return suback_came(packet, &asked),
                None => false,
            },
            Kind::Unsuback => match take(&mut self.unsubacks, |(owed, _)| *owed == packet_id) {
                Some((_, filters)) => return unsuback_came(packet, filters),
                None => false,
            },
            Kind::Pingresp => {
                let owed = self.pingresps > 0;
                self.pingresps = self.pingresps.saturating_sub(1);
                owed
            }
            Kind::Disconnect => {
                self.over = true;
                true
            }
            Kind::Auth => true,
            _ => false,
        };
        if owed {
            Ok(())
        } else {
            Err(format!("{packet} came, which answers nothing"))
        }
    }

    /// What holds for a packet of any kind.
    fn check_terms(&self, packet: &Packet, length: usize) -> Result<(), String> {
        let kind = packet.kind;
        if self.over {
            return Err(format!(
                "{packet} came after the broker's last packet [of 5: MQTT-3.14.4-1]"
            ));
        }
        let before_connack = kind == Kind::Auth && self.terms.authentication;
        if !self.answered && kind != Kind::Connack && !before_connack {
            return Err(format!(
                "{packet} came before CONNACK [MQTT-3.2.0-1; of 5: MQTT-3.14.0-1]"
            ));
        }
        if self.version == Version::V3 {
            return Ok(());
        }
        if length > self.terms.packet_bytes_max {
            return Err(format!(
                "{packet} came in {length} bytes, above the client's maximum [MQTT-3.1.2-24]"
            ));
        }
        let has = |name| property::find(packet.properties(), name).is_some();
        let explains = has("reason_string") || has("user_property");
        if explains
            && !self.terms.problem_information
            && !matches!(kind, Kind::Publish | Kind::Connack | Kind::Disconnect)
        {
            return Err(format!(
                "{packet} came, though no problem information was wanted [MQTT-3.1.2-29]"
            ));
        }
        let authenticates = has("authentication_method") || has("authentication_data");
        if (authenticates || kind == Kind::Auth) && !self.terms.authentication {
            return Err(format!(
                "{packet} came, though CONNECT named no method [MQTT-4.12.0-6]"
            ));
        }
        if has("response_information") && !self.terms.response_information {
            return Err(format!("{packet} came, unasked [MQTT-3.1.2-28]"));
        }
        if kind == Kind::Connack
            && packet.code() == 0
            && has("assigned_client_identifier") != self.terms.client_id_empty
        {
            return Err(format!(
                "{packet} came: an id is assigned if CONNECT has none [MQTT-3.2.2-16]"
            ));
        }
        Ok(())
    }

    fn publish_came(&mut self, packet: &mut Packet) -> Result<(), String> {
        if packet.flag("dup") && !self.resumed {
            return Err(format!(
                "{packet} came in a new session [MQTT-3.3.1-3; of 5: MQTT-4.3.2-2, MQTT-4.3.3-2]"
            ));
        }
        for (property, value) in packet.properties() {
            if let ("subscription_identifier", property::Value::Number(id)) = (property.name, value)
                && !self.resumed
                && !self.subscription_identifiers.contains(id)
            {
                return Err(format!(
                    "{packet} came, with an identifier that no subscription has [MQTT-3.3.4-3]"
                ));
            }
        }
        let topic = packet.bytes("topic").unwrap_or_default().to_vec();
        match property::number(packet.properties(), "topic_alias") {
            Some(alias) if alias > self.terms.topic_alias_maximum => {
                return Err(format!(
                    "{packet} came, with an alias above the client's maximum [MQTT-3.1.2-26]"
                ));
            }
            Some(alias) if topic.is_empty() => {
                let topic = self.aliases.get(&alias).cloned().ok_or_else(|| {
                    format!("{packet} came, with an alias that stands for nothing [MQTT-3.3.2-7]")
                })?;
                packet.fields.insert("topic", Value::Bytes(topic));
            }
            Some(alias) => {
                self.aliases.insert(alias, topic);
            }
            None if topic.is_empty() => {
                return Err(format!("{packet} came, with neither topic nor alias (4.7)"));
            }
            None => {}
        }
        if let Some(packet_id) = packet.packet_id() {
            let qos = packet.number("qos").unwrap_or_default();
            let stage = Stage::Published { qos };
            if self.deliveries.insert(packet_id, stage).is_some() {
                return Err(format!(
                    "{packet} came, with a packet id that is in use [MQTT-2.3.1-4; of 5: MQTT-2.2.1-4]"
                ));
            }
            if self.deliveries.len() > self.terms.receive_maximum {
                return Err(format!(
                    "{packet} came, above the client's receive maximum [MQTT-3.3.4-9]"
                ));
            }
        }
        Ok(())
    }
}

fn suback_came(packet: &Packet, asked: &[u8]) -> Result<(), String> {
    let Some(Value::Codes(codes)) = packet.fields.get("codes") else {
        return Err("a SUBACK without codes came".into());
    };
    if codes.len() != asked.len() {
        return Err(format!(
            "{packet} came to a SUBSCRIBE with {} filters [MQTT-3.8.4-5; of 5: MQTT-3.8.4-6]",
            asked.len()
        ));
    }
    let more = |(code, qos): (&u8, &u8)| *code < 0x80 && code > qos;
    if codes.iter().zip(asked).any(more) {
        return Err(format!("{packet} came, which grants more than was asked"));
    }
    Ok(())
}

fn unsuback_came(packet: &Packet, filters: usize) -> Result<(), String> {
    match packet.fields.get("codes") {
        Some(Value::Codes(codes)) if codes.len() != filters => Err(format!(
            "{packet} came to an UNSUBSCRIBE with {filters} filters (3.11.3)"
        )),
        _ => Ok(()),
    }
}

/// Takes `packet_id` if it is owed; the error is what is owed before it.
fn take_first(owed: &mut VecDeque<u16>, packet_id: u16) -> Result<bool, u16> {
    match owed.front() {
        Some(next) if *next == packet_id => {
            owed.pop_front();
            Ok(true)
        }
        Some(next) if owed.contains(&packet_id) => Err(*next),
        _ => Ok(false),
    }
}

fn take<T>(owed: &mut Vec<T>, wanted: impl FnMut(&T) -> bool) -> Option<T> {
    let place = owed.iter().position(wanted)?;
    Some(owed.remove(place))
}

fn out_of_order(packet: &Packet, next: u16, answers: &str, statement: &str) -> String {
    format!("{packet} came, but the {answers} {next} was earlier [{statement}]")
}
