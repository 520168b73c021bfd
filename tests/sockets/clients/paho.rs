//! paho-mqtt for Python: a process for each client.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Sender, channel};

use serde_json::{Value, json};

use super::{Client, Event, Inbox, Options, Received, Version, hex, unhex};

pub struct Paho {
    process: Child,
    commands: ChildStdin,
    inbox: Inbox,
    session_present: bool,
    // 3.1 has no such flag in CONNACK.
    knows_session: bool,
}

/// The Python that has paho-mqtt.
fn python() -> PathBuf {
    let python = PathBuf::from(concat!(env!("CARGO_TARGET_TMPDIR"), "/paho/bin/python"));
    assert!(
        python.exists(),
        "{} does not exist: use tests/run, which installs paho-mqtt there",
        python.display()
    );
    python
}

impl Paho {
    pub fn new(version: Version, options: Options) -> Paho {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/sockets/clients/paho_client.py"
        );
        let mut process = Command::new(python())
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, events) = channel();
        let lines = BufReader::new(process.stdout.take().expect("it is piped"));
        std::thread::spawn(move || read(lines, &sender));
        let mut paho = Paho {
            commands: process.stdin.take().expect("it is piped"),
            process,
            inbox: Inbox::new(events),
            session_present: false,
            knows_session: version == Version::V311,
        };
        let will = options.will.as_ref().map(|will| {
            json!({"topic": will.topic, "payload": will.payload, "qos": will.qos, "retain": will.retain})
        });
        paho.tell(&json!({
            "host": options.address.ip().to_string(),
            "port": options.address.port(),
            "id": options.id,
            "clean": options.clean,
            "version": match version { Version::V31 => "3.1", Version::V311 => "3.1.1" },
            "keep_alive_secs": options.keep_alive_secs,
            "will": will,
            "manual": options.manual,
        }));
        paho.session_present = paho.inbox.session_present();
        paho
    }

    fn tell(&mut self, command: &Value) {
        writeln!(self.commands, "{command}").unwrap();
    }
}

impl Client for Paho {
    fn session_present(&self) -> Option<bool> {
        self.knows_session.then_some(self.session_present)
    }

    fn subscribe(&mut self, filters: &[&str], qos: u8) -> Vec<u8> {
        self.tell(&json!({"do": "subscribe", "filters": filters, "qos": qos}));
        self.inbox.granted()
    }

    fn unsubscribe(&mut self, filter: &str) {
        self.tell(&json!({"do": "unsubscribe", "filter": filter}));
        self.inbox.unsubscribed();
    }

    fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, retain: bool) {
        let payload = hex(payload);
        self.tell(&json!({"do": "publish", "topic": topic, "payload": payload, "qos": qos, "retain": retain}));
        self.inbox.published();
    }

    fn receive(&mut self) -> Received {
        self.inbox.message()
    }

    fn acknowledge(&mut self, message: &Received) {
        self.tell(&json!({"do": "acknowledge", "id": message.packet_id, "qos": message.qos}));
    }

    fn closed(&mut self) {
        self.inbox.closed();
    }

    fn disconnect(mut self: Box<Self>) {
        self.tell(&json!({"do": "disconnect"}));
        assert!(self.process.wait().unwrap().success());
    }

    fn kill(self: Box<Self>) {}
}

impl Drop for Paho {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.process.kill().unwrap();
            self.process.wait().unwrap();
        }
    }
}

fn read(lines: impl BufRead, events: &Sender<Event>) {
    for line in lines.lines() {
        let Ok(line) = line else { break };
        let value: Value = serde_json::from_str(&line).expect(&line);
        if events.send(event(&value)).is_err() {
            return;
        }
    }
    _ = events.send(Event::Closed("the Python process has ended".to_owned()));
}

fn event(value: &Value) -> Event {
    let text = |key: &str| value[key].as_str().expect(key).to_owned();
    let number = |value: &Value| value.as_u64().expect("a number");
    match text("event").as_str() {
        "connected" if !text("failed").is_empty() => Event::Closed(text("failed")),
        "connected" => Event::Connected {
            session_present: value["present"] == Value::Bool(true) || value["present"] == json!(1),
        },
        "subscribed" => {
            let granted = value["granted"].as_array().expect("an array");
            Event::Subscribed(granted.iter().map(|code| number(code) as u8).collect())
        }
        "unsubscribed" => Event::Unsubscribed,
        "published" => Event::Published,
        "closed" => Event::Closed(text("why")),
        "message" => Event::Message(Received {
            topic: text("topic"),
            payload: unhex(&text("payload")),
            qos: number(&value["qos"]) as u8,
            retain: value["retain"] == Value::Bool(true),
            packet_id: number(&value["id"]) as u16,
        }),
        other => panic!("paho_client.py tells of {other}"),
    }
}
