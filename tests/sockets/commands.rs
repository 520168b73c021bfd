//! `rotamq pub` and `rotamq sub` with the broker, beside mosquitto's clients.

use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};

use rotamq::Broker;
use serde_json::Value;

use crate::clients::broker;
use crate::process::{Program, file, rotamq};
use crate::wait::until;

/// A client for MQTT 5 with these arguments, separated by blanks: `rotamq sub`
/// and `pub`, mosquitto's of such a name otherwise.
fn client(program: &str, address: SocketAddr, arguments: &str) -> Command {
    let mut command = match program {
        "pub" | "sub" => rotamq(&[program]),
        _ => Command::new(program),
    };
    let port = address.port().to_string();
    command.args(["-h", "127.0.0.1", "-p", &port]);
    if program.starts_with("mosquitto") {
        command.args(["-V", "5"]);
    }
    command.args(arguments.split_whitespace());
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(Stdio::piped());
    command
}

/// Runs it to its end.
fn run(program: &str, broker: &Broker, arguments: &str) -> Output {
    let mut command = client(program, broker.address(), arguments);
    command.output().unwrap()
}

/// What it prints while it does as it should.
fn succeeds(output: Output) -> String {
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stderr, "");
    String::from_utf8(output.stdout).unwrap()
}

/// Starts a subscriber, and waits until the broker has `count` subscriptions.
fn subscriber(program: &str, broker: &Broker, arguments: &str, count: usize) -> Child {
    let mut command = client(program, broker.address(), arguments);
    let child = command.spawn().unwrap();
    until("it subscribes", || broker.subscriptions_len() == count);
    child
}

fn printed(child: Child) -> String {
    succeeds(child.wait_with_output().unwrap())
}

const PROPERTIES: &str = "-D publish content-type text/plain -D publish correlation-data ü1 \
    -D publish payload-format-indicator 1 -D publish response-topic re/x \
    -D publish user-property a 1 -D publish user-property b ü";

/// Each publisher to each subscriber, which print the same.
#[test]
fn all_properties_pass_between_ours_and_mosquittos() {
    let broker = broker();
    for publisher in ["pub", "mosquitto_pub"] {
        let arguments = "-t # -q 2 -C 1 -F %j -D subscribe subscription-identifier 300";
        let ours = subscriber("sub", &broker, arguments, 1);
        let arguments = "-t # -q 2 -C 1 -F %j -D subscribe user-property a b";
        let mosquittos = subscriber("mosquitto_sub", &broker, arguments, 2);
        let arguments = format!("-t a/b -m hi -q 2 {PROPERTIES}");
        assert_eq!(succeeds(run(publisher, &broker, &arguments)), "");
        let object = |child| {
            let line = printed(child);
            serde_json::from_str::<Value>(&line).expect(&line)
        };
        let (mut ours, mut mosquittos) = (object(ours), object(mosquittos));
        assert_eq!(ours["properties"]["subscription-identifier"], 300);
        let properties = ours["properties"].as_object_mut().unwrap();
        properties.remove("subscription-identifier");
        let expected = serde_json::json!({
            "content-type": "text/plain",
            "correlation-data": "ü1",
            "payload-format-indicator": 1,
            "response-topic": "re/x",
            "user-properties": { "a": "1", "b": "ü" },
        });
        assert_eq!(ours["properties"], expected, "{publisher}");
        for object in [&mut ours, &mut mosquittos] {
            // What is of the connection, and of the moment.
            for name in ["mid", "tst"] {
                object.as_object_mut().unwrap().remove(name);
            }
        }
        assert_eq!(ours, mosquittos, "{publisher}");
        until("they are gone", || broker.subscriptions_len() == 0);
    }
}

/// What an older version has no place for is left out.
#[test]
fn every_version_to_every_version() {
    let broker = broker();
    for from in ["3.1", "3.1.1", "5"] {
        for to in ["3.1", "3.1.1", "5"] {
            let arguments = format!("-V {to} -t t -q 1 -C 1 -F %t|%p|%q|%C");
            let subscriber = subscriber("sub", &broker, &arguments, 1);
            let properties = if from == "5" {
                "-D publish content-type x"
            } else {
                ""
            };
            let arguments = format!("-V {from} -t t -q 2 -m hi {properties}");
            assert_eq!(succeeds(run("pub", &broker, &arguments)), "");
            let content_type = if (from, to) == ("5", "5") { "x" } else { "" };
            let expected = format!("t|hi|1|{content_type}\n");
            assert_eq!(printed(subscriber), expected, "{from} to {to}");
            until("it is gone", || broker.subscriptions_len() == 0);
        }
    }
}

#[test]
fn a_session_waits_as_long_as_it_is_told_to() {
    let broker = broker();
    let resume = |arguments: &str| {
        let arguments = format!("-t s -q 1 -i me {arguments}");
        run("sub", &broker, &arguments)
    };
    for expiry in [
        "-c",
        "-c -x 1000",
        "-c -x 0 -D disconnect user-property a b",
    ] {
        assert_eq!(succeeds(resume(&format!("{expiry} -E"))), "");
        let left = usize::from(!expiry.contains("-x 0"));
        until("the session is as told", || {
            broker.subscriptions_len() == left
        });
    }
    assert_eq!(succeeds(resume("-c -E")), "");
    let publish = run(
        "pub",
        &broker,
        "-t s -q 1 -m waiting -D publish user-property a b",
    );
    assert_eq!(succeeds(publish), "");
    let arguments = "-c -C 1 -F %p|%P -D disconnect session-expiry-interval 0";
    assert_eq!(succeeds(resume(arguments)), "waiting|a:b\n");
    until("the session has ended", || broker.subscriptions_len() == 0);
}

#[test]
fn whoever_is_taken_over_is_told() {
    let broker = broker();
    let first = subscriber("sub", &broker, "-t a -i same", 1);
    succeeds(run("sub", &broker, "-t a -i same -E"));
    let output = first.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    let expected = "rotamq: the broker closed the connection: session taken over (0x8E)";
    assert!(stderr.starts_with(expected), "{stderr}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_will_has_its_properties() {
    let broker = broker();
    let listener = subscriber("sub", &broker, "-t w -C 1 -F %p|%C|%P", 1);
    let arguments = "-t x --will-topic w --will-payload gone -D will content-type y \
        -D will user-property a b";
    let mut killed = subscriber("sub", &broker, arguments, 2);
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(printed(listener), "gone|y|a:b\n");
}

#[test]
fn what_a_subscription_asks_for_is_done() {
    let broker = broker();
    for (topic, payload) in [("r/1", "one"), ("r/2", "two")] {
        let arguments = format!("-t {topic} -m {payload} -r -q 1");
        succeeds(run("pub", &broker, &arguments));
    }
    // Retained messages come at once, in no order; the live one tells the end.
    let live = |arguments: &str| {
        let arguments = format!("-t r/# -v -F %p|%r --retained-only {arguments}");
        let child = subscriber("sub", &broker, &arguments, 1);
        succeeds(run("pub", &broker, "-t r/live -m x"));
        let mut lines: Vec<_> = printed(child).lines().map(str::to_owned).collect();
        lines.sort();
        until("it is gone", || broker.subscriptions_len() == 0);
        lines
    };
    assert_eq!(live(""), ["one|1", "two|1"]);
    assert_eq!(live("--retain-handling never"), [""; 0]);
    // What clears is the live one that ends it.
    let arguments = "-t r/# -F %p|%r --retained-only --remove-retained -T r/2";
    assert_eq!(succeeds(run("sub", &broker, arguments)), "one|1\n");
    until("it is gone", || broker.subscriptions_len() == 0);
    assert_eq!(live(""), ["two|1"]);

    let arguments = "-t l -C 1 -F %p|%r --retain-as-published";
    let child = subscriber("sub", &broker, arguments, 1);
    succeeds(run("pub", &broker, "-t l -m live -r"));
    assert_eq!(printed(child), "live|1\n");
}

#[test]
fn what_is_refused_and_why() {
    let path = file(
        "full.toml",
        "[[queue]]\nname = \"full\"\nmax_messages = 1\n",
    );
    let program = Program::serve(&["--config", path.to_str().unwrap()]);
    let run = |arguments| {
        let output = client("pub", program.address, arguments).output().unwrap();
        let code = output.status.code().unwrap();
        (code, String::from_utf8(output.stderr).unwrap())
    };
    let (code, stderr) = run("-t $SYS/x -q 1 -n");
    let expected = "rotamq: the broker refused a message: not authorized (0x87): ";
    assert!(stderr.starts_with(expected), "{stderr}");
    assert_eq!((code, stderr.lines().count()), (1, 1));
    let (code, stderr) = run("-t $queue/full -q 2 -n --repeat 4");
    let expected =
        "rotamq: the broker refused 3 messages, the last of them: quota exceeded (0x97): ";
    assert!(stderr.starts_with(expected), "{stderr}");
    assert_eq!((code, stderr.lines().count()), (1, 1));
    // Without the reason string, if it is not wanted.
    let (_, stderr) = run("-t $queue/full -q 1 -n -D connect request-problem-information 0");
    let expected = "rotamq: the broker refused a message: quota exceeded (0x97)\n";
    assert_eq!(stderr, expected);
}

/// Ours and mosquitto's see the topic, whichever way it is sent.
#[test]
fn aliases_are_understood_both_ways() {
    let broker = broker();
    let topic = "long/".repeat(20) + "t";
    let arguments = format!("-t {topic} -C 3 -F %t|%p -D connect topic-alias-maximum 5");
    let ours = subscriber("sub", &broker, &arguments, 1);
    let arguments = format!("-t {topic} -C 3 -F %t|%p");
    let mosquittos = subscriber("mosquitto_sub", &broker, &arguments, 2);
    let arguments = format!("-t {topic} -m x --repeat 3 -q 1 -D publish topic-alias 1");
    succeeds(run("pub", &broker, &arguments));
    let expected = format!("{topic}|x\n").repeat(3);
    assert_eq!(printed(ours), expected);
    assert_eq!(printed(mosquittos), expected);
}
