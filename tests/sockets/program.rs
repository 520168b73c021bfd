//! The program as a user meets it.

use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::clients::{Options, PAHO, PEERS, RUMQTTC, Version};
use crate::process::{Program, file, output, rotamq, signal};
use crate::raw::{self, Raw};
use crate::wait::until;

/// What it prints when it fails: one sentence for a person, and exit code 1.
fn complaint(arguments: &[&str]) -> String {
    let output = output(arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    let lines: Vec<&str> = stderr.lines().collect();
    let complaints = lines.iter().filter(|line| line.starts_with("rotamq: "));
    assert_eq!(complaints.count(), 1, "{arguments:?}: {stderr}");
    lines.last().expect("counted").to_string()
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let complaint = complaint(&["--ephemeral", "--listen", &address]);
    assert!(complaint.contains(&address), "{complaint}");
    assert!(complaint.contains("in use"), "{complaint}");
}

#[test]
fn files_that_cannot_be_read_or_say_nonsense() {
    let there_is_none = complaint(&["--ephemeral", "--config", "/there/is/no.toml"]);
    assert!(
        there_is_none.contains("/there/is/no.toml"),
        "{there_is_none}"
    );
    let directory = complaint(&["--ephemeral", "--config", "/"]);
    assert!(directory.contains("/"), "{directory}");

    let path = file(
        "unknown_key.toml",
        "threads = 1\n[limits]\ninflight_maximum = 7\n",
    );
    let path = path.to_str().unwrap();
    for arguments in [
        &["--ephemeral", "--config", path][..],
        &["config", "check", path],
    ] {
        let unknown = complaint(arguments);
        assert!(unknown.contains(&format!("{path}:3")), "{unknown}");
        assert!(unknown.contains("inflight_maximum"), "{unknown}");
        assert!(
            unknown.contains("the nearest is limits.inflight_max"),
            "{unknown}"
        );
    }
}

#[test]
fn a_configuration_is_checked_and_shown() {
    let path = file("shown.toml", "threads = 1\n[limits]\ninflight_max = 7\n");
    let path = path.to_str().unwrap();
    let checked = output(&["config", "check", path]);
    assert!(checked.status.success());

    let shown = output(&[
        "config",
        "show",
        "--json",
        "--config",
        path,
        "--threads",
        "2",
    ]);
    let options: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let options = options.as_array().unwrap();
    let option = |key: &str| {
        let found = options.iter().find(|option| option["key"] == key);
        found.unwrap_or_else(|| panic!("{key} is not shown"))
    };
    assert_eq!(option("threads")["value"], 2);
    assert!(
        option("threads")["origin"]
            .to_string()
            .contains("--threads")
    );
    assert_eq!(option("limits.inflight_max")["value"], 7);
    let origin = &option("limits.inflight_max")["origin"];
    assert_eq!(
        (&origin["path"], &origin["line"]),
        (&path.into(), &3.into())
    );
    let origin = option("limits.packet_bytes_max")["origin"].to_string();
    assert!(origin.contains("default"), "{origin}");
}

/// A flag says where things are kept, or that nothing is; not both.
#[test]
fn where_things_are_kept_is_told_by_a_flag() {
    let path = file("kept.toml", "[store]\ndata = 'file'\nephemeral = true\n");
    let path = path.to_str().unwrap();
    let shown = |arguments: &[&str]| {
        let mut command = rotamq(&["config", "show", "--json", "--config", path]);
        command.env("ROTAMQ_STORE__DATA", "environment");
        let shown = command.args(arguments).output().unwrap();
        let options: Value = serde_json::from_slice(&shown.stdout).unwrap();
        let options = options.as_array().unwrap();
        ["store.data", "store.ephemeral"].map(|key| {
            let option = options.iter().find(|option| option["key"] == key);
            let option = option.expect("every option is shown");
            (option["value"].clone(), option["origin"]["kind"].clone())
        })
    };
    let pair = |value: Value, kind: &str| (value, Value::from(kind));
    assert_eq!(
        shown(&[]),
        [
            pair("environment".into(), "environment"),
            pair(true.into(), "file")
        ]
    );
    // Who names a folder means to keep something in it.
    assert_eq!(
        shown(&["--data", "flag"]),
        [pair("flag".into(), "flag"), pair(false.into(), "flag")]
    );
    assert_eq!(
        shown(&["--ephemeral"]),
        [
            pair("environment".into(), "environment"),
            pair(true.into(), "flag")
        ]
    );
    let empty = complaint(&["--data", ""]);
    assert!(empty.contains("--data: must be a folder"), "{empty}");
    for arguments in [
        &["--data", "d", "--ephemeral"][..],
        &["serve", "--ephemeral", "--data", "d"],
    ] {
        let both = output(arguments);
        assert_eq!(both.status.code(), Some(2));
        let stderr = String::from_utf8(both.stderr).unwrap();
        assert!(stderr.contains("cannot be used with"), "{stderr}");
    }
}

/// What `config show` prints is a file that says the same.
#[test]
fn what_is_shown_can_be_read_again() {
    let shown = output(&["config", "show", "--threads", "3"]);
    let text = String::from_utf8(shown.stdout).unwrap();
    let path = file("shown_again.toml", &text);
    let path = path.to_str().unwrap();
    let again = output(&["config", "show", "--json", "--config", path]);
    let first = output(&["config", "show", "--json", "--threads", "3"]);
    let values = |output: &std::process::Output| -> Vec<(String, Value)> {
        let options: Value = serde_json::from_slice(&output.stdout).unwrap();
        let options = options.as_array().unwrap().iter();
        let pairs = options.map(|option| (option["key"].to_string(), option["value"].clone()));
        pairs.collect()
    };
    assert_eq!(values(&first), values(&again));
}

#[test]
fn every_client_is_served_with_one_thread_and_with_two() {
    for threads in ["1", "2"] {
        let program = Program::serve(&["--threads", threads]);
        for (index, peer) in PEERS.into_iter().enumerate() {
            let mut subscriber = peer.subscriber(program.address, "subscriber", "t", 2);
            let publisher = PEERS[(index + 1) % PEERS.len()];
            publisher.publish(program.address, "t", "hello", 2, false);
            assert_eq!(subscriber.receive().text(), "hello", "{peer:?}");
            subscriber.disconnect();
        }
    }
}

#[test]
fn it_stops_when_told_to_with_connections_open() {
    for (kind, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT")] {
        let mut program = Program::serve(&[]);
        let address = program.address;
        let mut paho = PAHO.subscriber(address, "paho", "#", 1);
        let mut rumqttc = RUMQTTC.open(Options::persistent(address, "rumqttc"));
        let mut silent = Raw::open(address);
        let mut half = Raw::open(address);
        half.send(&raw::connect(Version::V311, "half", true, 0)[..7]);
        program.signal(kind);
        program.line(&format!("stopping: {name}"));
        assert_eq!(program.wait().code(), Some(0), "{name}");
        paho.closed();
        rumqttc.closed();
        assert!(silent.read().is_none() && half.read().is_none());
    }
}

/// A signal that comes as soon as the address is known.
#[test]
fn it_stops_when_told_to_at_once() {
    for _ in 0..20 {
        let mut program = Program::serve(&["--threads", "1"]);
        program.signal(Signal::TERM);
        assert_eq!(program.wait().code(), Some(0));
    }
}

/// What was accepted before the signal is on its way, and arrives.
#[test]
fn stopping_delivers_what_is_under_way() {
    const MESSAGES: u32 = 10_000;
    let path = file("slow_stop.toml", "[limits]\nstop_timeout_ms = 60000\n");
    for qos in [0, 1] {
        let mut program = Program::serve(&["--config", path.to_str().unwrap()]);
        let mut subscriber = Raw::connect(program.address, Version::V311, "slow");
        subscriber.send(&raw::subscribe(1, "under/way", qos));
        assert_eq!(subscriber.packet(), [0x90, 3, 0, 1, qos]);
        let mut publisher = Raw::connect(program.address, Version::V311, "publisher");
        // Many times what the sockets hold.
        let mut payload = vec![0; 1400];
        for number in 0..MESSAGES {
            payload[..4].copy_from_slice(&number.to_be_bytes());
            publisher.send(&raw::publish("under/way", &payload, 0, 0));
        }
        if qos == 0 {
            publisher.fence();
        } else {
            payload[..4].copy_from_slice(&MESSAGES.to_be_bytes());
            publisher.send(&raw::publish("under/way", &payload, 1, 1));
            assert_eq!(publisher.packet(), [0x40, 2, 0, 1]);
        }
        program.signal(Signal::TERM);
        program.line("stopping: SIGTERM");
        let numbers: Vec<u32> = subscriber
            .until_closed()
            .iter()
            .map(|packet| {
                let at = packet.len() - payload.len();
                u32::from_be_bytes(packet[at..at + 4].try_into().unwrap())
            })
            .collect();
        let expected: Vec<u32> = (0..MESSAGES + u32::from(qos)).collect();
        assert!(numbers == expected, "QoS {qos}: {} came", numbers.len());
        assert_eq!(program.wait().code(), Some(0));
    }
}

/// A client that does not read holds nobody up for longer than that.
#[test]
fn stopping_has_a_bound() {
    let path = file("fast_stop.toml", "[limits]\nstop_timeout_ms = 100\n");
    let mut program = Program::serve(&["--config", path.to_str().unwrap()]);
    let mut subscriber = Raw::connect(program.address, Version::V311, "never reads");
    subscriber.send(&raw::subscribe(1, "under/way", 0));
    subscriber.packet();
    let mut publisher = Raw::connect(program.address, Version::V311, "publisher");
    for _ in 0..200 {
        publisher.send(&raw::publish("under/way", &[0; 60_000], 0, 0));
    }
    publisher.fence();
    program.signal(Signal::TERM);
    program.line("stop_timeout_ms");
    assert_eq!(program.wait().code(), Some(0));
}

/// Client ids that would write into the log what they like: a line of their
/// own, colours, a field, text from right to left.
/// Cases F07 and F08 of docs/security.md.
#[test]
fn a_client_id_cannot_leave_its_place_in_the_log() {
    let refused = "\n2026-01-01T00:00:00Z  INFO all is well\r\x1b[31m\x07\u{9b}31m";
    let admitted = "\" all=\"well\u{202e}\u{2028}\\n";
    for format in ["text", "json"] {
        let mut program = Program::serve(&["--log-format", format, "--log-level", "trace"]);
        let mut client = Raw::open(program.address);
        client.send(&raw::connect(Version::V311, refused, true, 0));
        assert!(client.until_closed().is_empty());
        let mut client = Raw::connect(program.address, Version::V311, admitted);
        client.send(&[0xF0, 0]);
        client.until_closed();
        program.signal(Signal::TERM);
        let mut named = 0;
        for line in program.rest_of_log() {
            let hostile = |c: char| c.is_control() || "\u{202e}\u{2028}".contains(c);
            assert!(!line.chars().any(hostile), "{format}: {line:?}");
            assert!(!line.starts_with("2026-01-01T00:00:00Z"), "{line}");
            named += usize::from(line.contains("well"));
            if format == "json" {
                let object: Value = serde_json::from_str(&line).expect(&line);
                assert_eq!(object.get("all"), None, "{line}");
            } else {
                assert!(!line.contains(" all=\"well"), "{line}");
            }
        }
        assert!(named > 0, "{format}: the client is named in the log");
    }
}

#[test]
fn no_line_a_message_at_the_default_level() {
    let mut program = Program::serve(&[]);
    let mut subscriber = Raw::connect(program.address, Version::V311, "subscriber");
    subscriber.send(&raw::subscribe(1, "t", 1));
    subscriber.packet();
    for _ in 0..100 {
        subscriber.send(&raw::publish("t", b"secret payload", 1, 1));
    }
    subscriber.fence();
    program.signal(Signal::TERM);
    let log = program.rest_of_log();
    assert!(log.len() < 10, "{log:#?}");
}

/// A full disk under the log, or a reader of it that is gone, is no reason to
/// stop serving.
/// Case M50 of docs/security.md.
#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    // An address of its own: no other test takes the port in between.
    let address = TcpListener::bind("127.9.8.7:0").and_then(|free| free.local_addr());
    let address = address.unwrap();
    let (reader, gone) = std::io::pipe().unwrap();
    drop(reader);
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    for log in [Stdio::from(full), Stdio::from(gone)] {
        let listen = address.to_string();
        let arguments = ["--ephemeral", "--log-level", "trace", "--listen", &listen];
        let mut broker = rotamq(&arguments).stderr(log).spawn().unwrap();
        until("the broker listens", || TcpStream::connect(address).is_ok());
        let mut client = Raw::connect(address, Version::V311, "client");
        client.send(b"\x32\x07\0\x01t\0\x01mm"); // PUBLISH at QoS 1
        assert_eq!(client.packet(), [0x40, 2, 0, 1]);
        signal(&broker, Signal::TERM);
        assert_eq!(broker.wait().unwrap().code(), Some(0));
    }
}

/// A will outlives a stop of the broker, and is published only if its client stays
/// away for the grace.
#[test]
fn a_stop_is_nobodys_end_until_its_grace_is_over() {
    let data = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("program-wills");
    _ = std::fs::remove_dir_all(&data);
    let config = file("wills.toml", "[session]\nwill_restart_grace_secs = 3\n");
    let (data, config) = (data.to_str().unwrap(), config.to_str().unwrap());
    let arguments = ["--data", data, "--config", config];
    let with_will = |id: &str| {
        let parts = [id, &format!("wills/{id}"), "gone"].map(raw::text).concat();
        raw::connect_flags(Version::V311, 0x0C, 0, &parts)
    };
    let open = |program: &Program, connect: &[u8]| {
        let mut client = Raw::open(program.address);
        client.send(connect);
        assert_eq!(client.packet()[0], 0x20);
        client
    };
    let watcher = raw::connect(Version::V311, "watcher", false, 0);
    let mut program = Program::serve(&arguments);
    let mut watching = open(&program, &watcher);
    watching.send(&raw::subscribe(1, "wills/#", 1));
    watching.fence();
    let clients = ["back", "away"].map(|id| open(&program, &with_will(id)));
    program.signal(Signal::TERM);
    assert!(program.wait().success());
    drop((clients, watching));

    let program = Program::serve(&arguments);
    let _back = open(&program, &with_will("back"));
    let mut watching = open(&program, &watcher);
    let has = |packet: &[u8], topic: &str| {
        let topic = topic.as_bytes();
        packet.windows(topic.len()).any(|part| part == topic)
    };
    let came = watching.packet();
    assert!(has(&came, "wills/away"), "{came:?}");
    // Both would have been due at the same moment.
    let mut last = open(&program, &raw::connect(Version::V311, "last", true, 0));
    last.send(&raw::publish("wills/none", b"that was all", 1, 1));
    last.fence();
    let came = watching.packet();
    assert!(has(&came, "wills/none"), "{came:?}");
}
