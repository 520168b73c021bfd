//! mosquitto_sub and mosquitto_pub.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};

use super::{
    Client, Connack, Ended, Event, Extra, Inbox, Options, Over, Received, Subscription, Version,
    unhex,
};
use crate::wait::until;

/// Topic, QoS, retain, packet id and payload; and what MQTT 5 has more.
const FORMAT: &str = "MSG %t|%q|%r|%m|%x|%F|%E|%C|%R|%D|%S|%P";

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
        Version::V5 => "mqttv5",
    });
    let found = Command::new(program).arg("--help").output();
    assert!(found.is_ok(), "{program} is not installed: use tests/run");
    command
}

/// What a command has to be told of [`Over`].
fn say_over(command: &mut Command, over: &Over) {
    assert!(
        !over.websocket && over.unix.is_none(),
        "mosquitto's are for TCP"
    );
    if let Some(ca) = &over.ca {
        command.arg("--cafile").arg(ca);
    }
    if let Some((certificate, key)) = &over.certificate {
        command.arg("--cert").arg(certificate).arg("--key").arg(key);
    }
}

impl Client for Mosquitto {
    fn connack(&self) -> Connack {
        unimplemented!("mosquitto_sub does not tell");
    }

    fn session_present(&self) -> Option<bool> {
        None
    }

    fn subscribe_with(&mut self, filters: &[&str], how: &Subscription) -> Vec<u8> {
        assert!(self.subscriber.is_none(), "mosquitto_sub subscribes once");
        let options = &self.options;
        let mut command = command("mosquitto_sub", self.version, options.address);
        let (qos, keep_alive) = (how.qos.to_string(), options.keep_alive_secs.to_string());
        command.args(["-d", "-F", FORMAT, "-i", &options.id]);
        say_over(&mut command, &options.over);
        command.args(["-q", &qos, "-k", &keep_alive]);
        if !options.clean {
            command.arg("-c");
        }
        if self.version == Version::V5 {
            // Otherwise it is as long as -c says.
            if let Some(secs) = options.session_expiry_secs {
                command.args(["-x", &secs.to_string()]);
            }
            if let Some(count) = options.receive_maximum {
                command.args(["-D", "connect", "receive-maximum", &count.to_string()]);
            }
            if let Some(id) = how.id {
                let id = id.to_string();
                command.args(["-D", "subscribe", "subscription-identifier", &id]);
            }
            if how.retain_as_published {
                command.arg("--retain-as-published");
            }
            assert!(
                !how.no_local && how.retain_handling == 0,
                "it has no such option"
            );
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

    fn publish_with(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: u8,
        retain: bool,
        extra: &Extra,
    ) -> u8 {
        let mut command = command("mosquitto_pub", self.version, self.options.address);
        command.args(["-t", topic, "-q", &qos.to_string(), "-i", "mosquitto_pub"]);
        say_over(&mut command, &self.options.over);
        if retain {
            command.arg("-r");
        }
        let mut say = |property: &str, values: &[&str]| {
            command.args(["-D", "publish", property]).args(values);
        };
        let number = |number: u32| number.to_string();
        for (property, value) in [
            (
                "payload-format-indicator",
                extra.format.map(|it| number(it.into())),
            ),
            ("message-expiry-interval", extra.expiry_secs.map(number)),
            ("content-type", extra.content_type.clone()),
            ("response-topic", extra.response_topic.clone()),
            ("correlation-data", extra.correlation.clone()),
        ] {
            if let Some(value) = value {
                say(property, &[&value]);
            }
        }
        for (name, value) in &extra.user {
            say("user-property", &[name, value]);
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
        0
    }

    fn receive(&mut self) -> Received {
        self.inbox().message()
    }

    fn waiting(&self) -> usize {
        let (_, inbox) = self.subscriber.as_ref().expect("it subscribed");
        inbox.messages.len()
    }

    fn acknowledge(&mut self, _: &Received) {}

    fn closed(&mut self) -> Ended {
        unimplemented!("mosquitto_sub connects again");
    }

    fn disconnect(mut self: Box<Self>) {
        if let Some((child, _)) = &mut self.subscriber {
            // Its way of being told to go: it says DISCONNECT then. Told so while
            // it prints a line, it waits for itself for ever.
            until("mosquitto_sub is idle", || is_asleep(child));
            crate::process::signal(child, rustix::process::Signal::INT);
            until("mosquitto_sub ends", || child.try_wait().unwrap().is_some());
        }
    }

    fn kill(mut self: Box<Self>) {
        if let Some((child, _)) = &mut self.subscriber {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// Whether the process waits for something to happen.
fn is_asleep(child: &Child) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id()));
    // The state comes behind the name, which is in brackets. What has ended
    // is not waited for.
    let state = stat.ok().and_then(|stat| {
        let (_, rest) = stat.rsplit_once(") ")?;
        rest.chars().next()
    });
    matches!(state, None | Some('S' | 'Z'))
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
    _ = events.send(Event::Closed(
        Ended::default(),
        "mosquitto_sub has ended".to_owned(),
    ));
}

fn parse(message: &str) -> Received {
    let parts: Vec<&str> = message.split('|').collect();
    let [topic, qos, retain, packet_id, payload, extra @ ..] = &parts[..] else {
        panic!("not as asked for: {message}");
    };
    let [
        format,
        expiry,
        content_type,
        response_topic,
        correlation,
        ids,
        user,
    ] = extra
    else {
        panic!("not as asked for: {message}");
    };
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Received {
        topic: (*topic).to_owned(),
        payload: unhex(payload),
        qos: qos.parse().expect("a number"),
        retain: *retain == "1",
        packet_id: packet_id.parse().unwrap_or(0),
        extra: Extra {
            format: format.parse().ok(),
            expiry_secs: expiry.parse().ok(),
            content_type: text(content_type),
            response_topic: text(response_topic),
            correlation: text(correlation),
            // Neither names nor values of the tests have spaces or colons.
            user: (user.split_whitespace())
                .filter_map(|pair| pair.split_once(':'))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            ids: ids.parse().into_iter().collect(),
            alias: None,
        },
    }
}
