//! mosquitto_sub and mosquitto_pub.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};

use super::{Client, Event, Inbox, Options, Received, Version, unhex};

/// A subscriber is a process; each message published is one of its own.
pub struct Mosquitto {
    version: Version,
    options: Options,
    subscriber: Option<(Child, Inbox)>,
}

impl Mosquitto {
    pub fn new(version: Version, options: Options) -> Mosquitto {
        assert!(!options.manual, "mosquitto_sub acknowledges by itself");
        Mosquitto {
            version,
            options,
            subscriber: None,
        }
    }

    fn inbox(&mut self) -> &mut Inbox {
        &mut self.subscriber.as_mut().expect("it subscribed").1
    }
}

/// A command of mosquitto's with what all of them need.
pub fn command(program: &str, version: Version, address: SocketAddr) -> Command {
    // Lines come out as they are written, though nobody is at a terminal.
    let mut command = Command::new("stdbuf");
    let port = address.port().to_string();
    command.args(["-oL", program, "-h", "127.0.0.1", "-p", &port, "-V"]);
    command.arg(match version {
        Version::V31 => "mqttv31",
        Version::V311 => "mqttv311",
    });
    let found = Command::new(program).arg("--help").output();
    assert!(found.is_ok(), "{program} is not installed: use tests/run");
    command
}

impl Client for Mosquitto {
    fn session_present(&self) -> Option<bool> {
        None
    }

    fn subscribe(&mut self, filters: &[&str], qos: u8) -> Vec<u8> {
        assert!(self.subscriber.is_none(), "mosquitto_sub subscribes once");
        let options = &self.options;
        let mut command = command("mosquitto_sub", self.version, options.address);
        let (qos, keep_alive) = (qos.to_string(), options.keep_alive_secs.to_string());
        command.args(["-d", "-F", "MSG %t|%q|%r|%m|%x", "-i", &options.id]);
        command.args(["-q", &qos, "-k", &keep_alive]);
        if !options.clean {
            command.arg("-c");
        }
        if let Some(will) = &options.will {
            command.args(["--will-topic", &will.topic, "--will-payload", &will.payload]);
            command.args(["--will-qos", &will.qos.to_string()]);
            if will.retain {
                command.arg("--will-retain");
            }
        }
        for filter in filters {
            command.args(["-t", filter]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let (sender, events) = channel();
        let lines = BufReader::new(child.stdout.take().expect("it is piped"));
        std::thread::spawn(move || read(lines, &sender));
        let (_, inbox) = self.subscriber.insert((child, Inbox::new(events)));
        inbox.granted()
    }

    fn unsubscribe(&mut self, _: &str) {
        unimplemented!("mosquitto_sub subscribes once");
    }

    fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, retain: bool) {
        let mut command = command("mosquitto_pub", self.version, self.options.address);
        command.args(["-t", topic, "-q", &qos.to_string(), "-i", "mosquitto_pub"]);
        if retain {
            command.arg("-r");
        }
        match payload.is_empty() {
            true => command.arg("-n"),
            false => command.arg("-s"),
        };
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().expect("it is piped");
        input.write_all(payload).unwrap();
        drop(input);
        assert!(child.wait().unwrap().success(), "mosquitto_pub -t {topic}");
    }

    fn receive(&mut self) -> Received {
        self.inbox().message()
    }

    fn acknowledge(&mut self, _: &Received) {}

    fn closed(&mut self) {
        unimplemented!("mosquitto_sub connects again");
    }

    fn disconnect(mut self: Box<Self>) {
        if let Some((child, _)) = &mut self.subscriber {
            // Its way of being told to go: it says DISCONNECT then.
            crate::process::signal(child, rustix::process::Signal::INT);
            child.wait().unwrap();
        }
    }

    fn kill(mut self: Box<Self>) {
        if let Some((child, _)) = &mut self.subscriber {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.subscriber
            && matches!(child.try_wait(), Ok(None))
        {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

fn read(lines: impl BufRead, events: &Sender<Event>) {
    for line in lines.lines() {
        let Ok(line) = line else { break };
        let event = if let Some(message) = line.strip_prefix("MSG ") {
            Event::Message(parse(message))
        } else if let Some((_, granted)) = line
            .strip_prefix("Subscribed (mid: ")
            .and_then(|rest| rest.split_once("): "))
        {
            let codes = granted.split(", ").map(|code| code.parse().expect(granted));
            Event::Subscribed(codes.collect())
        } else {
            continue;
        };
        if events.send(event).is_err() {
            return;
        }
    }
    _ = events.send(Event::Closed("mosquitto_sub has ended".to_owned()));
}

fn parse(message: &str) -> Received {
    let parts: Vec<&str> = message.split('|').collect();
    let [topic, qos, retain, packet_id, payload] = parts[..] else {
        panic!("not as asked for: {message}");
    };
    Received {
        topic: topic.to_owned(),
        payload: unhex(payload),
        qos: qos.parse().expect("a number"),
        retain: retain == "1",
        packet_id: packet_id.parse().unwrap_or(0),
    }
}
