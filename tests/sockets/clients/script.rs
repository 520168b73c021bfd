//! Clients in other languages: paho-mqtt and gmqtt for Python, MQTT.js. Each is
//! a process that is told what to do by lines of JSON, and tells in lines of
//! JSON what came of it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Sender, channel};

use serde_json::{Value, json};

use super::{
    Client, Connack, Ended, Event, Extra, Inbox, Library, Options, Received, Subscription, Version,
    hex, unhex,
};

pub struct Script {
    process: Child,
    commands: ChildStdin,
    inbox: Inbox,
    connack: Connack,
    // 3.1 has no Session Present in CONNACK.
    knows_session: bool,
}

/// The script that speaks for a library, which `tests/run` has installed.
fn command(library: Library) -> Command {
    const INSTALLED: &str = env!("CARGO_TARGET_TMPDIR");
    let (program, script) = match library {
        Library::Paho => (format!("{INSTALLED}/python/bin/python"), "paho_client.py"),
        Library::Gmqtt => (format!("{INSTALLED}/python/bin/python"), "gmqtt_client.py"),
        Library::MqttJs => ("node".to_owned(), "mqttjs_client.cjs"),
        Library::Mosquitto | Library::Rumqttc => unreachable!("it has no script"),
    };
    let modules = format!("{INSTALLED}/node/node_modules");
    let needed = match library {
        Library::MqttJs => format!("{modules}/mqtt"),
        _ => program.clone(),
    };
    assert!(
        Path::new(&needed).exists(),
        "{needed} does not exist: use tests/run, which installs the clients there"
    );
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sockets/clients");
    let mut command = Command::new(program);
    command
        .arg(format!("{folder}/{script}"))
        .env("NODE_PATH", modules);
    command
}

impl Script {
    /// Connected, or else how it was refused.
    pub fn new(library: Library, version: Version, options: &Options) -> Result<Script, Ended> {
        let mut process = command(library)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, events) = channel();
        let lines = BufReader::new(process.stdout.take().expect("it is piped"));
        std::thread::spawn(move || read(lines, &sender));
        let mut script = Script {
            commands: process.stdin.take().expect("it is piped"),
            process,
            inbox: Inbox::new(events),
            connack: Connack::default(),
            knows_session: version != Version::V31,
        };
        let will = options.will.as_ref().map(|will| {
            json!({
                "topic": will.topic,
                "payload": will.payload,
                "qos": will.qos,
                "retain": will.retain,
                "delay_secs": will.delay_secs,
            })
        });
        script.tell(&json!({
            "host": options.address.ip().to_string(),
            "port": options.address.port(),
            "id": options.id,
            "clean": options.clean,
            "version": match version { Version::V31 => "3.1", Version::V311 => "3.1.1", Version::V5 => "5" },
            "keep_alive_secs": options.keep_alive_secs,
            "will": will,
            "manual": options.manual,
            "session_expiry_secs": options.session_expiry_secs(),
            "receive_maximum": options.receive_maximum,
            "packet_bytes_max": options.packet_bytes_max,
            "topic_alias_maximum": options.topic_alias_maximum,
            "assign_aliases": options.assign_aliases,
            "answers": options.answers,
            "ca": options.over.ca,
            "websocket": options.over.websocket,
            "unix": options.over.unix,
            "user": options.user,
        }));
        script.connack = script.inbox.connack()?;
        Ok(script)
    }

    fn tell(&mut self, command: &Value) {
        writeln!(self.commands, "{command}").unwrap();
    }
}

impl Client for Script {
    fn connack(&self) -> Connack {
        self.connack.clone()
    }

    fn session_present(&self) -> Option<bool> {
        self.knows_session.then_some(self.connack.session_present)
    }

    fn subscribe_with(&mut self, filters: &[&str], how: &Subscription) -> Vec<u8> {
        self.tell(&json!({
            "do": "subscribe",
            "filters": filters,
            "qos": how.qos,
            "no_local": how.no_local,
            "retain_as_published": how.retain_as_published,
            "retain_handling": how.retain_handling,
            "id": how.id,
            "user": how.user,
        }));
        self.inbox.granted()
    }

    fn unsubscribe(&mut self, filter: &str) {
        self.tell(&json!({"do": "unsubscribe", "filter": filter}));
        self.inbox.unsubscribed();
    }

    fn publish_with(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: u8,
        retain: bool,
        extra: &Extra,
    ) -> u8 {
        self.tell(&json!({
            "do": "publish",
            "topic": topic,
            "payload": hex(payload),
            "qos": qos,
            "retain": retain,
            "extra": extra,
        }));
        self.inbox.published()
    }

    fn told(&self) -> Vec<(String, String)> {
        self.inbox.told.clone()
    }

    fn receive(&mut self) -> Received {
        self.inbox.message()
    }

    fn waiting(&self) -> usize {
        self.inbox.messages.len()
    }

    fn acknowledge(&mut self, message: &Received) {
        self.tell(&json!({"do": "acknowledge", "id": message.packet_id, "qos": message.qos}));
    }

    fn answer(&mut self, message: &Received, reason: u8, user: &[(&str, &str)]) {
        let id = message.packet_id;
        self.tell(&json!({"do": "answer", "id": id, "reason": reason, "user": user}));
    }

    fn closed(&mut self) -> Ended {
        self.inbox.closed()
    }

    fn disconnect(mut self: Box<Self>) {
        self.tell(&json!({"do": "disconnect", "session_expiry_secs": null}));
        assert!(self.process.wait().unwrap().success());
    }

    fn disconnect_with(mut self: Box<Self>, session_expiry_secs: u32) {
        self.tell(&json!({"do": "disconnect", "session_expiry_secs": session_expiry_secs}));
        assert!(self.process.wait().unwrap().success());
    }

    fn kill(self: Box<Self>) {}
}

impl Drop for Script {
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
    _ = events.send(Event::Closed(
        Ended::default(),
        "the process has ended".to_owned(),
    ));
}

fn event(value: &Value) -> Event {
    let text = |key: &str| value[key].as_str().expect(key).to_owned();
    let number = |value: &Value| value.as_u64().expect("a number");
    let reason = value["reason"].as_u64().map(|code| code as u8);
    let ended = || Ended {
        reason,
        why: value["why"].as_str().map(str::to_owned),
    };
    match text("event").as_str() {
        "connected" => match reason {
            None | Some(0) => Event::Connected(
                serde_json::from_value(value["connack"].clone()).expect("what Connack has"),
            ),
            Some(_) => Event::Refused(ended()),
        },
        "subscribed" => {
            let granted = value["granted"].as_array().expect("an array");
            Event::Subscribed(granted.iter().map(|code| number(code) as u8).collect())
        }
        "unsubscribed" => Event::Unsubscribed,
        "told" => Event::Told(serde_json::from_value(value["user"].clone()).expect("pairs")),
        "published" => Event::Published(reason.unwrap_or(0)),
        "closed" => Event::Closed(ended(), text("says")),
        "message" => Event::Message(Received {
            topic: text("topic"),
            payload: unhex(&text("payload")),
            qos: number(&value["qos"]) as u8,
            retain: value["retain"] == Value::Bool(true),
            packet_id: value["id"].as_u64().unwrap_or(0) as u16,
            extra: serde_json::from_value(value["extra"].clone()).expect("what Extra has"),
        }),
        other => panic!("the script tells of {other}"),
    }
}
