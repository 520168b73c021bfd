//! Plays one run of a case against a broker, step by step.
//!
//! Owns the clients of the run and what its variables hold. Leaves nothing
//! behind on the broker: sessions and retained messages of the run are removed
//! whether it passed or not.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use crate::case::{Action, Expected, Numbered, Outgoing, Run, Sent, Step};
use crate::connection::{Connection, Conversation, Event, acknowledgement};
use crate::packet::{self, Kind, Packet, Value, Version};
use crate::property;

/// Why a run failed, and what was said in it.
pub struct Failure {
    pub reason: String,
    pub conversation: Vec<String>,
}

const CLOSED: &str = "the broker closed the connection";

pub fn play(run: &Run, address: SocketAddr, patience: Duration) -> Result<(), Failure> {
    let mut player = Player {
        run,
        address,
        patience,
        conversation: Rc::new(RefCell::new(Vec::new())),
        connections: HashMap::new(),
        variables: HashMap::new(),
        assigned: HashMap::new(),
        persistent: BTreeSet::new(),
        retained: BTreeSet::new(),
    };
    let result = player.play_steps();
    player.clean_up();
    result.map_err(|reason| Failure {
        reason,
        conversation: player.conversation.take(),
    })
}

struct Player<'a> {
    run: &'a Run,
    address: SocketAddr,
    patience: Duration,
    conversation: Conversation,
    connections: HashMap<&'a str, Connection>,
    variables: HashMap<String, u32>,
    /// Client ids that the broker chose, by the variable that holds them.
    assigned: HashMap<String, Vec<u8>>,
    /// Client ids of sessions that outlive their connection, and whether they
    /// are of MQTT 3.1.
    persistent: BTreeSet<(Vec<u8>, bool)>,
    /// Topics that may have a retained message.
    retained: BTreeSet<Vec<u8>>,
}

impl<'a> Player<'a> {
    fn play_steps(&mut self) -> Result<(), String> {
        for (number, step) in self.run.steps.iter().enumerate() {
            self.play_step(step)
                .map_err(|reason| format!("step {}, {}: {reason}", number + 1, step.text))?;
        }
        // A case is over when nothing more comes.
        for (client, connection) in &mut self.connections {
            let ended = if connection.is_connected() {
                connection.fence()
            } else if connection.is_over() {
                connection.receive_close()
            } else {
                continue;
            };
            ended.map_err(|reason| format!("after the last step, {client}: {reason}"))?;
        }
        Ok(())
    }

    fn play_step(&mut self, step: &'a Step) -> Result<(), String> {
        let client = step.client.as_str();
        match &step.action {
            Action::Open => {
                self.open(client)?;
            }
            Action::Connect {
                connect,
                connack,
                ignore_foreign,
            } => {
                let mut connect = connect.clone();
                self.fill_in(&mut connect)?;
                self.note_what_stays(&connect);
                let id = &self.run.id;
                let connection = self.open(client)?;
                if *ignore_foreign {
                    connection.ignore_topics_without(id);
                }
                connection.send(&connect);
                self.expect(client, &plain(connack.clone()))?;
            }
            Action::Send(outgoing) => self.send(client, outgoing)?,
            Action::Expect(expected) => {
                let packet = self.expect(client, &expected.packet)?;
                if expected.answer {
                    self.connection(client)?.answer(&packet);
                }
            }
            Action::Unordered(expected) => self.expect_unordered(client, expected)?,
            Action::Publish { publish, code } => self.publish(client, publish, code)?,
            Action::Subscribe { subscribe, granted } => {
                let suback = self.subscribe(client, subscribe)?;
                if suback.fields.get("codes") != Some(&Value::Codes(granted.clone())) {
                    return Err(format!(
                        "{granted:02x?} was to be granted, but {suback} came"
                    ));
                }
            }
            Action::Unsubscribe { unsubscribe, codes } => {
                let mut unsubscribe = unsubscribe.clone();
                self.fill_in(&mut unsubscribe)?;
                let connection = self.connection(client)?;
                let packet_id = connection.next_packet_id();
                connection.send(&unsubscribe.with("packet_id", Value::Number(packet_id)));
                let unsuback = acknowledgement(Kind::Unsuback, packet_id);
                let unsuback = self.expect(client, &plain(unsuback))?;
                if let (Some(wanted), Some(Value::Codes(came))) =
                    (codes, unsuback.fields.get("codes"))
                    && wanted != came
                {
                    return Err(format!("{wanted:02x?} was to come, but {unsuback} did"));
                }
            }
            Action::SubscribeRefused { subscribe } => match self.subscribe(client, subscribe) {
                Ok(suback) if is_refusal(&suback) => {}
                Ok(packet) if packet.kind == Kind::Disconnect && packet.code() >= 0x80 => {
                    self.take_connection(client)?.receive_close()?;
                }
                Ok(packet) => return Err(format!("the broker was to refuse, but {packet} came")),
                Err(fault) if fault == CLOSED => {
                    self.take_connection(client)?;
                }
                Err(fault) => return Err(fault),
            },
            Action::Fence => self.connection(client)?.fence()?,
            Action::FenceOrClose => {
                let mut connection = self.take_connection(client)?;
                connection.send(&Packet::new(Kind::Pingreq));
                while let Event::Packet(packet) = connection.receive()? {
                    if packet.kind == Kind::Pingresp {
                        break;
                    }
                }
            }
            Action::Disconnect(disconnect) => {
                let mut disconnect = disconnect.clone();
                self.fill_in(&mut disconnect)?;
                let mut connection = self.take_connection(client)?;
                connection.send(&disconnect);
                if let Some(packet) = connection.shut()?.first() {
                    return Err(format!("nothing may come, but {packet} did"));
                }
            }
            Action::Close => {
                self.take_connection(client)?.shut()?;
            }
            Action::ExpectClose {
                not_before_ms,
                within_s,
                may_refuse,
                codes,
            } => {
                let mut connection = self.take_connection(client)?;
                if let Some(seconds) = within_s {
                    connection.be_patient(Duration::from_secs((*seconds).into()));
                }
                let mut event = connection.receive()?;
                if let Event::Packet(packet) = &event
                    && connection.is_over()
                    && packet.code() > 0
                    && (*may_refuse || connection.version() == Version::V5)
                {
                    let code = packet.code() as u8;
                    if !codes.is_empty() && !codes.contains(&code) {
                        return Err(format!(
                            "the code was to be one of {codes:02x?}, but {packet} came"
                        ));
                    }
                    event = connection.receive()?;
                }
                if let Event::Packet(packet) = event {
                    return Err(format!("the broker was to close, but {packet} came"));
                }
                let silent_ms = connection.last_written().elapsed().as_millis();
                if silent_ms < u128::from(*not_before_ms) {
                    return Err(format!("the broker closed already after {silent_ms} ms"));
                }
            }
            Action::Pause { ms } => thread::sleep(Duration::from_millis(*ms)),
        }
        Ok(())
    }

    fn open(&mut self, client: &'a str) -> Result<&mut Connection, String> {
        let conversation = Rc::clone(&self.conversation);
        let (version, patience) = (self.run.version, self.patience);
        let connection = Connection::open(self.address, client, version, patience, conversation)?;
        self.connections.insert(client, connection);
        self.connection(client)
    }

    fn connection(&mut self, client: &str) -> Result<&mut Connection, String> {
        self.connections
            .get_mut(client)
            .ok_or_else(|| format!("{client} has no connection"))
    }

    fn take_connection(&mut self, client: &str) -> Result<Connection, String> {
        self.connections
            .remove(client)
            .ok_or_else(|| format!("{client} has no connection"))
    }

    fn send(&mut self, client: &str, outgoing: &'a Outgoing) -> Result<(), String> {
        let (bytes, described) = match &outgoing.what {
            Sent::Bytes(bytes) => (
                bytes.clone(),
                format!("bytes {}", packet::hex(&bytes[..bytes.len().min(64)])),
            ),
            Sent::Packet {
                packet: numbered,
                header,
                extra,
            } => {
                let mut packet = numbered.packet.clone();
                if let Some(variable) = &numbered.id_variable {
                    let value = self.variables.get(variable);
                    let value = value.ok_or_else(|| format!("${variable} has no value yet"))?;
                    packet = packet.with("packet_id", Value::Number(*value as u16));
                }
                self.fill_in(&mut packet)?;
                self.note_what_stays(&packet);
                let version = self.connection(client)?.version();
                let (first, mut body) = packet::encode(&packet, version);
                body.extend(extra);
                let bytes = packet::frame(header.unwrap_or(first), &body);
                (bytes, packet.to_string())
            }
        };
        self.connection(client)?
            .write(&bytes, outgoing.cut, described);
        Ok(())
    }

    /// Puts the values of variables into a payload, `$(name)`, into numbers
    /// among the properties, and a client id that the broker chose.
    fn fill_in(&self, packet: &mut Packet) -> Result<(), String> {
        for field in ["properties", "will_properties"] {
            if let Some(Value::Properties(properties)) = packet.fields.get_mut(field) {
                for (_, value) in properties {
                    if let property::Value::Variable(variable, plus) = value {
                        *value = property::Value::Number(self.variable(variable)? + *plus);
                    }
                }
            }
        }
        let variable = packet
            .bytes("client_id")
            .and_then(|id| id.strip_prefix(b"$"));
        if let Some(variable) = variable {
            let variable = String::from_utf8_lossy(variable);
            let id = self.assigned.get(&*variable);
            let id = id.ok_or_else(|| format!("${variable} has no value yet"))?;
            let id = Value::Bytes(id.clone());
            packet.fields.insert("client_id", id);
        }
        let Some(Value::Bytes(payload)) = packet.fields.get_mut("payload") else {
            return Ok(());
        };
        let Ok(text) = std::str::from_utf8(payload) else {
            return Ok(());
        };
        let mut parts = text.split("$(");
        let mut filled = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (variable, rest) = part.split_once(')').ok_or("a $( without its )")?;
            filled.push_str(&self.variable(variable)?.to_string());
            filled.push_str(rest);
        }
        *payload = filled.into_bytes();
        Ok(())
    }

    fn variable(&self, name: &str) -> Result<u32, String> {
        let value = self.variables.get(name);
        value
            .copied()
            .ok_or_else(|| format!("${name} has no value yet"))
    }

    /// The PUBLISH with what its QoS asks of the sender; `code` is of the
    /// first answer.
    fn publish(&mut self, client: &str, publish: &Packet, code: &Value) -> Result<(), String> {
        let mut publish = publish.clone();
        self.fill_in(&mut publish)?;
        self.note_what_stays(&publish);
        let connection = self.connection(client)?;
        let qos = publish.number("qos").unwrap_or(0);
        if qos == 0 {
            connection.send(&publish);
            return Ok(());
        }
        let packet_id = connection.next_packet_id();
        connection.send(&publish.with("packet_id", Value::Number(packet_id)));
        let answer = match qos {
            1 => Kind::Puback,
            _ => Kind::Pubrec,
        };
        let answer = acknowledgement(answer, packet_id).with("code", code.clone());
        let answer = self.expect(client, &plain(answer))?;
        if answer.kind == Kind::Puback || answer.code() >= 0x80 {
            return Ok(());
        }
        self.connection(client)?
            .send(&acknowledgement(Kind::Pubrel, packet_id));
        let pubcomp = acknowledgement(Kind::Pubcomp, packet_id).with("code", Value::Number(0));
        self.expect(client, &plain(pubcomp)).map(drop)
    }

    /// A SUBSCRIBE; the SUBACK to it, whatever it says, or DISCONNECT.
    fn subscribe(&mut self, client: &str, subscribe: &Packet) -> Result<Packet, String> {
        let mut subscribe = subscribe.clone();
        self.fill_in(&mut subscribe)?;
        let connection = self.connection(client)?;
        let packet_id = connection.next_packet_id();
        connection.send(&subscribe.with("packet_id", Value::Number(packet_id)));
        match connection.receive_beside_publications()? {
            Event::Packet(packet) if matches!(packet.kind, Kind::Suback | Kind::Disconnect) => {
                Ok(packet)
            }
            Event::Packet(packet) => Err(format!("SUBACK was to come, but {packet} came")),
            Event::Closed => Err(CLOSED.into()),
        }
    }

    fn receive(&mut self, client: &str, wanted: &str) -> Result<Packet, String> {
        match self.connection(client)?.receive()? {
            Event::Packet(packet) => Ok(packet),
            Event::Closed => Err(format!(
                "{wanted} was to come, but the broker closed the connection"
            )),
        }
    }

    fn expect(&mut self, client: &str, expected: &Numbered) -> Result<Packet, String> {
        let packet = self.receive(client, &expected.packet.to_string())?;
        if let Some(difference) = self.difference(expected, &packet) {
            return Err(format!("{difference}; what came is {packet}"));
        }
        self.bind(expected, &packet);
        Ok(packet)
    }

    fn expect_unordered(&mut self, client: &str, expected: &[Expected]) -> Result<(), String> {
        let mut awaited: Vec<&Expected> = expected.iter().collect();
        while awaited.iter().any(|expected| !expected.optional) {
            let list = || {
                let texts: Vec<String> = awaited
                    .iter()
                    .map(|expected| expected.packet.packet.to_string())
                    .collect();
                texts.join("; or ")
            };
            let packet = self.receive(client, &list())?;
            let place = awaited
                .iter()
                .position(|expected| self.difference(&expected.packet, &packet).is_none())
                .ok_or_else(|| format!("{} was to come, but {packet} came", list()))?;
            let found = awaited.remove(place);
            self.bind(&found.packet, &packet);
            if found.answer {
                self.connection(client)?.answer(&packet);
            }
        }
        Ok(())
    }

    /// How a packet differs from what was expected of it.
    fn difference(&self, expected: &Numbered, packet: &Packet) -> Option<String> {
        let wanted = &expected.packet;
        if wanted.kind != packet.kind {
            return Some(format!("{wanted} was to come"));
        }
        for (name, value) in &wanted.fields {
            let came = packet.fields.get(name);
            let good = match value {
                Value::OneOf(codes) => codes.iter().any(|code| u16::from(*code) == packet.code()),
                Value::Wanted(wanted) => {
                    let strict = packet.kind == Kind::Publish;
                    // An alias is between broker and client alone; deliveries
                    // of a queue tell of it by user properties.
                    let may_be_there: &[&str] = match self.run.rotamq_only {
                        true => &["topic_alias", "user_property"],
                        false => &["topic_alias"],
                    };
                    let came = packet.properties();
                    let difference = property::difference(wanted, came, strict, may_be_there);
                    if difference.is_some() {
                        return difference;
                    }
                    true
                }
                value => came == Some(value),
            };
            if !good {
                let came = came.map_or("missing".to_owned(), Value::to_string);
                return Some(format!("{name} was to be {value}, but is {came}"));
            }
        }
        let variable = expected.id_variable.as_ref()?;
        let known = self.variables.get(variable)?;
        let came = packet.packet_id().map(u32::from);
        (came != Some(*known)).then(|| {
            let came = came.unwrap_or_default();
            format!("packet_id was to be {known} (${variable}), but is {came}")
        })
    }

    /// Takes down what the variables stand for.
    fn bind(&mut self, expected: &Numbered, packet: &Packet) {
        if let (Some(variable), Some(packet_id)) = (&expected.id_variable, packet.packet_id()) {
            self.variables.insert(variable.clone(), packet_id.into());
        }
        let Some(Value::Wanted(wanted)) = expected.packet.fields.get("properties") else {
            return;
        };
        for (property, wanted) in wanted {
            if let property::Wanted::Variable(variable) = wanted {
                match property::find(packet.properties(), property.name) {
                    Some(property::Value::Bytes(text)) => {
                        self.assigned.insert(variable.clone(), text.clone());
                    }
                    Some(property::Value::Number(number)) => {
                        self.variables.insert(variable.clone(), *number);
                    }
                    _ => {
                        let number = property.default_number();
                        self.variables.insert(variable.clone(), number);
                    }
                }
            }
        }
    }

    fn note_what_stays(&mut self, packet: &Packet) {
        let text = |name| packet.bytes(name).unwrap_or_default().to_vec();
        match packet.kind {
            Kind::Connect => {
                let expiry = property::number(packet.properties(), "session_expiry_interval");
                let stays = match packet.number("protocol_level") {
                    Some(5) => expiry.is_some_and(|seconds| seconds > 0),
                    _ => !packet.flag("clean_session"),
                };
                if stays && packet.bytes("client_id") != Some(b"") {
                    let is_3_1 = packet.number("protocol_level") == Some(3);
                    self.persistent.insert((text("client_id"), is_3_1));
                }
                if packet.flag("will_retain") {
                    self.retained.insert(text("will_topic"));
                }
            }
            Kind::Publish if packet.flag("retain") => {
                self.retained.insert(text("topic"));
            }
            _ => {}
        }
    }

    /// Removes what the run left on the broker, as far as it still answers.
    fn clean_up(&mut self) {
        self.connections.clear();
        let mut clients: Vec<(Vec<u8>, bool)> = self.persistent.iter().cloned().collect();
        if !self.retained.is_empty() {
            clients.push((self.run.id.clone().into_bytes(), false));
        }
        let count = clients.len();
        for (number, (client_id, is_3_1)) in clients.into_iter().enumerate() {
            let conversation = Conversation::default();
            let (version, patience) = (Version::V3, self.patience);
            let Ok(mut connection) =
                Connection::open(self.address, "cleaner", version, patience, conversation)
            else {
                return;
            };
            let (name, level): (&str, u16) = match is_3_1 {
                true => ("MQIsdp", 3),
                false => ("MQTT", 4),
            };
            connection.send(
                &Packet::new(Kind::Connect)
                    .with("protocol_name", Value::Bytes(name.into()))
                    .with("protocol_level", Value::Number(level))
                    .with("clean_session", Value::Flag(true))
                    .with("client_id", Value::Bytes(client_id)),
            );
            if number + 1 == count {
                for topic in &self.retained {
                    let empty = Packet::new(Kind::Publish).with("retain", Value::Flag(true));
                    connection.send(&empty.with("topic", Value::Bytes(topic.clone())));
                }
            }
            connection.send(&Packet::new(Kind::Disconnect));
            let _ = connection.shut();
        }
    }
}

/// Whether it is a SUBACK of refusals alone.
fn is_refusal(packet: &Packet) -> bool {
    match packet.fields.get("codes") {
        Some(Value::Codes(codes)) => codes.iter().all(|code| *code >= 0x80),
        _ => false,
    }
}

/// A packet whose id, if it has one, is no variable.
fn plain(packet: Packet) -> Numbered {
    Numbered {
        packet,
        id_variable: None,
    }
}
