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

use crate::case::{Action, Cut, Expected, Numbered, Outgoing, Run, Sent, Step};
use crate::connection::{Connection, Conversation, Event, acknowledgement};
use crate::packet::{self, Kind, Packet, Value};

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
    variables: HashMap<String, u16>,
    /// CONNECTs of sessions that outlive their connection, for removing them.
    persistent: BTreeSet<Vec<u8>>,
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
            if connection.is_connected() {
                connection
                    .fence()
                    .map_err(|reason| format!("after the last step, {client}: {reason}"))?;
            }
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
                self.note_what_stays(connect);
                let id = &self.run.id;
                let connection = self.open(client)?;
                if *ignore_foreign {
                    connection.ignore_topics_without(id);
                }
                connection.send(connect);
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
            Action::Publish(publish) => self.publish(client, publish)?,
            Action::Subscribe { filters, granted } => {
                let suback = self.subscribe(client, filters)?;
                if suback.fields.get("codes") != Some(&Value::Codes(granted.clone())) {
                    return Err(format!(
                        "{granted:02x?} was to be granted, but {suback} came"
                    ));
                }
            }
            Action::Unsubscribe { filters } => {
                let connection = self.connection(client)?;
                let packet_id = connection.next_packet_id();
                let unsubscribe = acknowledgement(Kind::Unsubscribe, packet_id);
                connection.send(&unsubscribe.with("filters", filters.clone()));
                self.expect(client, &plain(acknowledgement(Kind::Unsuback, packet_id)))?;
            }
            Action::SubscribeRefused { filters } => match self.subscribe(client, filters) {
                Ok(suback) if is_refusal(&suback) => {}
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
            Action::Disconnect => {
                let mut connection = self.take_connection(client)?;
                connection.send(&Packet::new(Kind::Disconnect));
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
            } => {
                let mut connection = self.take_connection(client)?;
                if let Some(seconds) = within_s {
                    connection.be_patient(Duration::from_secs((*seconds).into()));
                }
                let mut event = connection.receive()?;
                if let Event::Packet(packet) = &event
                    && *may_refuse
                    && packet.number("code").is_some_and(|code| code > 0)
                {
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
        let connection = Connection::open(self.address, client, self.patience, conversation)?;
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
                    packet = packet.with("packet_id", Value::Number(*value));
                }
                self.fill_in(&mut packet)?;
                self.note_what_stays(&packet);
                let (first, mut body) = packet::encode(&packet);
                body.extend(extra);
                let bytes = packet::frame(header.unwrap_or(first), &body);
                (bytes, packet.to_string())
            }
        };
        self.connection(client)?
            .write(&bytes, outgoing.cut, described);
        Ok(())
    }

    /// Puts the values of variables into a payload: `$(name)`.
    fn fill_in(&self, packet: &mut Packet) -> Result<(), String> {
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
            let value = self.variables.get(variable);
            let value = value.ok_or_else(|| format!("${variable} has no value yet"))?;
            filled.push_str(&value.to_string());
            filled.push_str(rest);
        }
        *payload = filled.into_bytes();
        Ok(())
    }

    /// The PUBLISH with what its QoS asks of the sender.
    fn publish(&mut self, client: &str, publish: &Packet) -> Result<(), String> {
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
        if qos == 1 {
            return self
                .expect(client, &plain(acknowledgement(Kind::Puback, packet_id)))
                .map(drop);
        }
        self.expect(client, &plain(acknowledgement(Kind::Pubrec, packet_id)))?;
        self.connection(client)?
            .send(&acknowledgement(Kind::Pubrel, packet_id));
        self.expect(client, &plain(acknowledgement(Kind::Pubcomp, packet_id)))
            .map(drop)
    }

    /// A SUBSCRIBE; the SUBACK to it, whatever it says.
    fn subscribe(&mut self, client: &str, filters: &Value) -> Result<Packet, String> {
        let connection = self.connection(client)?;
        let packet_id = connection.next_packet_id();
        let subscribe = acknowledgement(Kind::Subscribe, packet_id);
        connection.send(&subscribe.with("filters", filters.clone()));
        match connection.receive_beside_publications()? {
            Event::Packet(packet) if packet.kind == Kind::Suback => Ok(packet),
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
            if came != Some(value) {
                let came = came.map_or("missing".to_owned(), Value::to_string);
                return Some(format!("{name} was to be {value}, but is {came}"));
            }
        }
        let variable = expected.id_variable.as_ref()?;
        let known = self.variables.get(variable)?;
        let came = packet.packet_id();
        (came != Some(*known)).then(|| {
            let came = came.unwrap_or_default();
            format!("packet_id was to be {known} (${variable}), but is {came}")
        })
    }

    fn bind(&mut self, expected: &Numbered, packet: &Packet) {
        if let (Some(variable), Some(packet_id)) = (&expected.id_variable, packet.packet_id()) {
            self.variables.insert(variable.clone(), packet_id);
        }
    }

    fn note_what_stays(&mut self, packet: &Packet) {
        let text = |name| packet.bytes(name).unwrap_or_default().to_vec();
        match packet.kind {
            Kind::Connect => {
                if !packet.flag("clean_session") && packet.bytes("client_id") != Some(b"") {
                    let mut connect = packet.clone();
                    for will in ["will_topic", "will_payload", "will_qos", "will_retain"] {
                        connect.fields.remove(will);
                    }
                    connect = connect.with("clean_session", Value::Flag(true));
                    let (first, body) = packet::encode(&connect);
                    self.persistent.insert(packet::frame(first, &body));
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
        let mut connects: Vec<Vec<u8>> = self.persistent.iter().cloned().collect();
        if !self.retained.is_empty() {
            let connect = Packet::new(Kind::Connect)
                .with("clean_session", Value::Flag(true))
                .with("client_id", Value::Bytes(self.run.id.clone().into_bytes()));
            let (first, body) = packet::encode(&connect);
            connects.push(packet::frame(first, &body));
        }
        for (number, connect) in connects.iter().enumerate() {
            let conversation = Conversation::default();
            let Ok(mut connection) =
                Connection::open(self.address, "cleaner", self.patience, conversation)
            else {
                return;
            };
            connection.write(connect, Cut::Whole, "CONNECT".to_owned());
            if number + 1 == connects.len() {
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

/// Whether it is a SUBACK of failures alone.
fn is_refusal(packet: &Packet) -> bool {
    match packet.fields.get("codes") {
        Some(Value::Codes(codes)) => codes.iter().all(|code| *code == 0x80),
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
