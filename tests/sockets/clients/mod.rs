//! Clients of several libraries behind one face, so that a case is told once.

pub mod http;
mod mosquitto;
mod rumqtt;
mod rumqtt5;
mod script;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use rotamq::Broker;
use rotamq::config::Config;
use serde::{Deserialize, Serialize};

pub use mosquitto::command as mosquitto_command;
pub use rumqtt::runtime;

use crate::wait::DEADLINE;

/// A version of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V31,
    V311,
    V5,
}

/// Whose client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// mosquitto_sub and mosquitto_pub.
    Mosquitto,
    /// paho-mqtt for Python, a process each.
    Paho,
    /// gmqtt for Python, a process each.
    Gmqtt,
    /// MQTT.js, a process each.
    MqttJs,
    /// rumqttc, within the test.
    Rumqttc,
}

/// A library, speaking a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub library: Library,
    pub version: Version,
}

pub const MOSQUITTO: Peer = Peer::new(Library::Mosquitto, Version::V311);
pub const PAHO: Peer = Peer::new(Library::Paho, Version::V311);
pub const RUMQTTC: Peer = Peer::new(Library::Rumqttc, Version::V311);
pub const MQTTJS: Peer = Peer::new(Library::MqttJs, Version::V311);
pub const MOSQUITTO_31: Peer = Peer::new(Library::Mosquitto, Version::V31);
pub const PAHO_31: Peer = Peer::new(Library::Paho, Version::V31);
pub const MOSQUITTO_5: Peer = Peer::new(Library::Mosquitto, Version::V5);
pub const PAHO_5: Peer = Peer::new(Library::Paho, Version::V5);
pub const RUMQTTC_5: Peer = Peer::new(Library::Rumqttc, Version::V5);
pub const MQTTJS_5: Peer = Peer::new(Library::MqttJs, Version::V5);
pub const GMQTT_5: Peer = Peer::new(Library::Gmqtt, Version::V5);

/// All that there are; neighbours speak different versions.
pub const PEERS: [Peer; 11] = [
    MOSQUITTO,
    PAHO_5,
    PAHO,
    RUMQTTC_5,
    RUMQTTC,
    MOSQUITTO_5,
    MOSQUITTO_31,
    MQTTJS_5,
    PAHO_31,
    GMQTT_5,
    MQTTJS,
];

/// Those that can do more than subscribe once and print, and hold messages
/// unacknowledged.
pub const LIBRARIES: [Peer; 5] = [PAHO, RUMQTTC_5, PAHO_31, PAHO_5, RUMQTTC];

/// Those that speak MQTT 5, and can do more than subscribe once and print.
pub const FIVES: [Peer; 4] = [PAHO_5, RUMQTTC_5, MQTTJS_5, GMQTT_5];

/// How a client connects.
#[derive(Clone, Debug)]
pub struct Options {
    pub address: SocketAddr,
    pub id: String,
    pub clean: bool,
    pub keep_alive_secs: u16,
    pub will: Option<Will>,
    /// Whether messages are acknowledged only by [`Client::acknowledge`];
    /// for those of [`LIBRARIES`].
    pub manual: bool,
    /// The reason code that answers a message of that payload, instead of
    /// success; for gmqtt and MQTT.js.
    pub answers: HashMap<String, u8>,
    /// Whether the client gives topics aliases by itself; MQTT.js alone can.
    pub assign_aliases: bool,
    /// MQTT 5's session expiry; `None`: as long as a session of 3.1.1 lives.
    pub session_expiry_secs: Option<u32>,
    pub receive_maximum: Option<u16>,
    pub packet_bytes_max: Option<u32>,
    pub topic_alias_maximum: Option<u16>,
    /// A user's name and password; for paho.
    pub user: Option<(String, String)>,
    pub over: Over,
}

/// What MQTT goes over, beside TCP; for mosquitto (TLS alone), paho and MQTT.js
/// (not a Unix socket).
#[derive(Clone, Debug, Default)]
pub struct Over {
    /// The authority of the broker's certificate: TLS is spoken.
    pub ca: Option<PathBuf>,
    /// The client's certificate and key; for mosquitto.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// WebSocket is spoken, at /mqtt.
    pub websocket: bool,
    /// A Unix socket, in place of the address.
    pub unix: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct Will {
    pub topic: String,
    pub payload: String,
    pub qos: u8,
    pub retain: bool,
    /// For MQTT 5.
    pub delay_secs: u32,
}

/// What a CONNACK of MQTT 5 may say more (3.2.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Connack {
    pub session_present: bool,
    pub assigned_id: Option<String>,
    pub session_expiry_secs: Option<u32>,
    pub receive_maximum: Option<u16>,
    pub packet_bytes_max: Option<u32>,
    pub topic_alias_maximum: Option<u16>,
}

/// How the broker ended a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// DISCONNECT's reason code, or the one of a CONNACK that refused.
    pub reason: Option<u8>,
    /// The reason string; gmqtt does not tell it, nor MQTT.js that of a CONNACK.
    pub why: Option<String>,
}

/// How to subscribe (MQTT 5, 3.8.3.1); before it the QoS alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subscription {
    pub qos: u8,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: u8,
    /// The Subscription Identifier.
    pub id: Option<u32>,
    /// User properties; for paho.
    pub user: &'static [(&'static str, &'static str)],
}

/// What a message of MQTT 5 may say more (3.3.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Extra {
    pub format: Option<u8>,
    pub expiry_secs: Option<u32>,
    pub content_type: Option<String>,
    pub response_topic: Option<String>,
    /// Correlation data, which the tests have as text.
    pub correlation: Option<String>,
    pub user: Vec<(String, String)>,
    /// Subscription Identifiers.
    pub ids: Vec<u32>,
    pub alias: Option<u16>,
}

impl Extra {
    /// The first user property of that name.
    pub fn user(&self, name: &str) -> Option<&str> {
        let mut pairs = self.user.iter();
        pairs.find(|pair| pair.0 == name).map(|pair| &*pair.1)
    }
}

/// A message that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    /// 0 where the client does not tell.
    pub packet_id: u16,
    pub extra: Extra,
}

impl Received {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("the tests publish text")
    }
}

/// A connected client.
pub trait Client: Send {
    /// What CONNACK said, as far as the client tells.
    fn connack(&self) -> Connack;
    /// What CONNACK said; `None` where the client does not tell.
    fn session_present(&self) -> Option<bool>;
    /// What each filter was granted, or why not.
    fn subscribe_with(&mut self, filters: &[&str], how: &Subscription) -> Vec<u8>;
    fn unsubscribe(&mut self, filter: &str);
    /// Returns when the message is acknowledged, with the reason code where the
    /// client tells it; at QoS 0, when it is on its way.
    fn publish_with(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: u8,
        retain: bool,
        extra: &Extra,
    ) -> u8;
    /// User properties of the last acknowledgement; for paho.
    fn told(&self) -> Vec<(String, String)> {
        unimplemented!("it does not tell");
    }
    /// The next message.
    fn receive(&mut self) -> Received;
    /// How many have come that were not received yet, when last asked something.
    fn waiting(&self) -> usize;
    /// As [`Options::manual`] has it.
    fn acknowledge(&mut self, message: &Received);
    /// Acknowledges with this reason code and these user properties; for paho
    /// with MQTT 5, at QoS 1.
    fn answer(&mut self, _message: &Received, _reason: u8, _user: &[(&str, &str)]) {
        unimplemented!("it has no words for it");
    }
    /// Waits until the broker has closed the connection.
    fn closed(&mut self) -> Ended;
    /// With DISCONNECT; returns when the client is gone.
    fn disconnect(self: Box<Self>);
    /// The same, with another session expiry; for clients that are processes of
    /// their own.
    fn disconnect_with(self: Box<Self>, _session_expiry_secs: u32) {
        unimplemented!("it cannot say so");
    }
    /// Without a word: its process is killed, or its socket closed.
    fn kill(self: Box<Self>);

    fn subscribe(&mut self, filters: &[&str], qos: u8) -> Vec<u8> {
        let how = Subscription {
            qos,
            ..Subscription::default()
        };
        self.subscribe_with(filters, &how)
    }

    /// Without anything that 3.1.1 could not say, and accepted.
    fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, retain: bool) {
        let reason = self.publish_with(topic, payload, qos, retain, &Extra::default());
        assert!(reason < 0x80, "{topic} is refused with 0x{reason:02X}");
    }
}

impl Peer {
    const fn new(library: Library, version: Version) -> Peer {
        Peer { library, version }
    }

    /// A clean session.
    pub fn connect(self, address: SocketAddr, id: &str) -> Box<dyn Client> {
        self.open(Options::clean(address, id))
    }

    pub fn open(self, options: Options) -> Box<dyn Client> {
        match (self.library, self.version) {
            (Library::Mosquitto, version) => Box::new(mosquitto::Mosquitto::new(version, options)),
            (Library::Rumqttc, Version::V5) => Box::new(rumqtt5::Rumqttc::new(options)),
            (Library::Rumqttc, _) => Box::new(rumqtt::Rumqttc::new(options)),
            (library, version) => match script::Script::new(library, version, &options) {
                Ok(client) => Box::new(client),
                Err(ended) => panic!("{self:?} is refused, {ended:?}: {options:?}"),
            },
        }
    }

    /// How the broker refuses the CONNECT of a client that is a process of its
    /// own.
    pub fn refused(self, options: &Options) -> Ended {
        match script::Script::new(self.library, self.version, options) {
            Ok(_) => panic!("{self:?} is accepted: {options:?}"),
            Err(ended) => ended,
        }
    }

    /// A subscriber, subscribed.
    pub fn subscriber(
        self,
        address: SocketAddr,
        id: &str,
        filter: &str,
        qos: u8,
    ) -> Box<dyn Client> {
        let mut client = self.connect(address, id);
        assert_eq!(client.subscribe(&[filter], qos), [qos], "{self:?} {filter}");
        client
    }

    /// One message of a client that comes for it and goes.
    pub fn publish(self, address: SocketAddr, topic: &str, payload: &str, qos: u8, retain: bool) {
        let mut client = self.connect(address, "publisher");
        client.publish(topic, payload.as_bytes(), qos, retain);
        client.disconnect();
    }
}

impl Options {
    pub fn clean(address: SocketAddr, id: &str) -> Options {
        Options {
            address,
            id: id.to_owned(),
            clean: true,
            keep_alive_secs: 60,
            will: None,
            manual: false,
            answers: HashMap::new(),
            assign_aliases: false,
            session_expiry_secs: None,
            receive_maximum: None,
            packet_bytes_max: None,
            topic_alias_maximum: None,
            user: None,
            over: Over::default(),
        }
    }

    pub fn persistent(address: SocketAddr, id: &str) -> Options {
        Options {
            clean: false,
            ..Options::clean(address, id)
        }
    }

    pub fn will(mut self, topic: &str, payload: &str, qos: u8, retain: bool) -> Options {
        self.will = Some(Will {
            topic: topic.to_owned(),
            payload: payload.to_owned(),
            qos,
            retain,
            delay_secs: 0,
        });
        self
    }

    pub fn over(mut self, over: &Over) -> Options {
        self.over = over.clone();
        self
    }

    pub fn manual(mut self) -> Options {
        self.manual = true;
        self
    }

    /// What MQTT 5 is told: a clean session ends with its connection, another
    /// lives on, as in 3.1.1.
    fn session_expiry_secs(&self) -> u32 {
        let as_before = if self.clean { 0 } else { u32::MAX };
        self.session_expiry_secs.unwrap_or(as_before)
    }
}

/// A broker in the test's own process, on a free port, that keeps nothing.
pub fn broker() -> Broker {
    broker_with(|_| ())
}

/// The same, with other settings.
pub fn broker_with(change: impl FnOnce(&mut Config)) -> Broker {
    let mut config = Config::default();
    config.listeners[0].address = "127.0.0.1:0".parse().unwrap();
    config.store.ephemeral = true;
    config.http.address = None;
    change(&mut config);
    Broker::start(config).unwrap()
}

/// What a client's own thread or process tells.
enum Event {
    Connected(Connack),
    Refused(Ended),
    Subscribed(Vec<u8>),
    Unsubscribed,
    /// The acknowledgement's reason code.
    Published(u8),
    /// Its user properties, before that, where there are some.
    Told(Vec<(String, String)>),
    Message(Received),
    /// And what the client says.
    Closed(Ended, String),
}

/// What came of a client, messages apart from answers.
struct Inbox {
    events: Receiver<Event>,
    messages: VecDeque<Received>,
    told: Vec<(String, String)>,
}

impl Inbox {
    fn new(events: Receiver<Event>) -> Inbox {
        Inbox {
            events,
            messages: VecDeque::new(),
            told: Vec::new(),
        }
    }

    fn next(&mut self, what: &str) -> Event {
        match self.events.recv_timeout(DEADLINE) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => panic!("this never came: {what}"),
            Err(RecvTimeoutError::Disconnected) => {
                Event::Closed(Ended::default(), "it is gone".to_owned())
            }
        }
    }

    /// What `pick` takes; messages that come before it are kept.
    fn answer<R>(&mut self, what: &str, pick: impl Fn(Event) -> Option<R>) -> R {
        loop {
            match self.next(what) {
                Event::Message(message) => self.messages.push_back(message),
                Event::Told(told) => self.told = told,
                Event::Closed(_, why) => panic!("closed, while waiting for {what}: {why}"),
                other => {
                    if let Some(answer) = pick(other) {
                        return answer;
                    }
                }
            }
        }
    }

    fn connack(&mut self) -> Result<Connack, Ended> {
        self.answer("CONNACK", |event| match event {
            Event::Connected(connack) => Some(Ok(connack)),
            Event::Refused(ended) => Some(Err(ended)),
            _ => None,
        })
    }

    fn granted(&mut self) -> Vec<u8> {
        self.answer("SUBACK", |event| match event {
            Event::Subscribed(granted) => Some(granted),
            _ => None,
        })
    }

    fn unsubscribed(&mut self) {
        self.answer("UNSUBACK", |event| {
            matches!(event, Event::Unsubscribed).then_some(())
        })
    }

    fn published(&mut self) -> u8 {
        self.told.clear();
        self.answer("the end of a PUBLISH", |event| match event {
            Event::Published(reason) => Some(reason),
            _ => None,
        })
    }

    fn message(&mut self) -> Received {
        if let Some(message) = self.messages.pop_front() {
            return message;
        }
        loop {
            match self.next("a message") {
                Event::Message(message) => return message,
                Event::Closed(_, why) => panic!("closed, while waiting for a message: {why}"),
                _ => {}
            }
        }
    }

    fn closed(&mut self) -> Ended {
        loop {
            if let Event::Closed(ended, _) = self.next("the connection's end") {
                return ended;
            }
        }
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("two hex digits"))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
