//! Clients of three libraries behind one face, so that a case is told once.

mod mosquitto;
mod paho;
mod rumqtt;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use rotamq::Broker;
use rotamq::config::Config;

pub use mosquitto::command as mosquitto_command;
pub use rumqtt::runtime;

use crate::wait::DEADLINE;

/// A version of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V31,
    V311,
}

/// Whose client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// mosquitto_sub and mosquitto_pub.
    Mosquitto,
    /// paho-mqtt for Python, a process each.
    Paho,
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
pub const MOSQUITTO_31: Peer = Peer::new(Library::Mosquitto, Version::V31);
pub const PAHO_31: Peer = Peer::new(Library::Paho, Version::V31);

/// All that there are. rumqttc has no MQTT 3.1.
pub const PEERS: [Peer; 5] = [MOSQUITTO, PAHO, RUMQTTC, MOSQUITTO_31, PAHO_31];

/// Those that can do more than subscribe once and print.
pub const LIBRARIES: [Peer; 3] = [PAHO, RUMQTTC, PAHO_31];

/// How a client connects.
#[derive(Clone, Debug)]
pub struct Options {
    pub address: SocketAddr,
    pub id: String,
    pub clean: bool,
    pub keep_alive_secs: u16,
    pub will: Option<Will>,
    /// Whether messages are acknowledged only by [`Client::acknowledge`];
    /// mosquitto's clients cannot.
    pub manual: bool,
}

#[derive(Clone, Debug)]
pub struct Will {
    pub topic: String,
    pub payload: String,
    pub qos: u8,
    pub retain: bool,
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
}

impl Received {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("the tests publish text")
    }
}

/// A connected client.
pub trait Client: Send {
    /// What CONNACK said; `None` where the client does not tell.
    fn session_present(&self) -> Option<bool>;
    /// What each filter was granted.
    fn subscribe(&mut self, filters: &[&str], qos: u8) -> Vec<u8>;
    fn unsubscribe(&mut self, filter: &str);
    /// Returns when the message is acknowledged; at QoS 0, when it is on its way.
    fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, retain: bool);
    /// The next message.
    fn receive(&mut self) -> Received;
    /// As [`Options::manual`] has it.
    fn acknowledge(&mut self, message: &Received);
    /// Waits until the broker has closed the connection.
    fn closed(&mut self);
    /// With DISCONNECT; returns when the client is gone.
    fn disconnect(self: Box<Self>);
    /// Without a word: its process is killed, or its socket closed.
    fn kill(self: Box<Self>);
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
        match self.library {
            Library::Mosquitto => Box::new(mosquitto::Mosquitto::new(self.version, options)),
            Library::Paho => Box::new(paho::Paho::new(self.version, options)),
            Library::Rumqttc => Box::new(rumqtt::Rumqttc::new(options)),
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
        });
        self
    }

    pub fn manual(mut self) -> Options {
        self.manual = true;
        self
    }
}

/// A broker in the test's own process, on a free port.
pub fn broker() -> Broker {
    broker_with(|_| ())
}

/// The same, with other settings.
pub fn broker_with(change: impl FnOnce(&mut Config)) -> Broker {
    let mut config = Config::default();
    config.listeners[0].address = "127.0.0.1:0".parse().unwrap();
    change(&mut config);
    Broker::start(config).unwrap()
}

/// What a client's own thread or process tells.
enum Event {
    Connected { session_present: bool },
    Subscribed(Vec<u8>),
    Unsubscribed,
    Published,
    Message(Received),
    Closed(String),
}

/// What came of a client, messages apart from answers.
struct Inbox {
    events: Receiver<Event>,
    messages: VecDeque<Received>,
}

impl Inbox {
    fn new(events: Receiver<Event>) -> Inbox {
        Inbox {
            events,
            messages: VecDeque::new(),
        }
    }

    fn next(&mut self, what: &str) -> Event {
        match self.events.recv_timeout(DEADLINE) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => panic!("this never came: {what}"),
            Err(RecvTimeoutError::Disconnected) => Event::Closed("it is gone".to_owned()),
        }
    }

    /// What `pick` takes; messages that come before it are kept.
    fn answer<R>(&mut self, what: &str, pick: impl Fn(Event) -> Option<R>) -> R {
        loop {
            match self.next(what) {
                Event::Message(message) => self.messages.push_back(message),
                Event::Closed(why) => panic!("closed, while waiting for {what}: {why}"),
                other => {
                    if let Some(answer) = pick(other) {
                        return answer;
                    }
                }
            }
        }
    }

    fn session_present(&mut self) -> bool {
        self.answer("CONNACK", |event| match event {
            Event::Connected { session_present } => Some(session_present),
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

    fn published(&mut self) {
        self.answer("the end of a PUBLISH", |event| {
            matches!(event, Event::Published).then_some(())
        })
    }

    fn message(&mut self) -> Received {
        if let Some(message) = self.messages.pop_front() {
            return message;
        }
        loop {
            match self.next("a message") {
                Event::Message(message) => return message,
                Event::Closed(why) => panic!("closed, while waiting for a message: {why}"),
                _ => {}
            }
        }
    }

    fn closed(&mut self) {
        while !matches!(self.next("the connection's end"), Event::Closed(_)) {}
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
