//! A broker that stops: what clients are told, how fast, and what stays.

use std::time::{Duration, Instant};

use rotamq::config::Config;
use rustix::process::Signal;

use crate::clients::{Options, PAHO, PAHO_5, Version, broker_with};
use crate::process::Program;
use crate::raw::{self, Raw};
use crate::wait::until;

/// MQTT 5 has words for it, 3.1.1 has none.
#[test]
fn clients_are_told_that_it_stops_or_where_to_go() {
    for (reference, reason) in [("", 0x8B), ("other.example:1883", 0x9C)] {
        let broker = broker_with(|config| config.session.server_reference = reference.to_owned());
        let address = broker.address();
        let mut clients = [PAHO, PAHO_5].map(|peer| peer.connect(address, &format!("{peer:?}")));
        broker.stop();
        let told = clients.each_mut().map(|client| client.closed().reason);
        assert_eq!(told, [None, Some(reason)], "{reference}");
    }
}

#[test]
fn all_are_disconnected_many_at_a_time() {
    const CLIENTS: usize = 600; // More than are told in one go.
    let broker = broker_with(|_| ());
    let address = broker.address();
    let mut clients: Vec<Raw> = (0..CLIENTS)
        .map(|number| Raw::connect(address, Version::V311, &format!("client {number}")))
        .collect();
    broker.stop();
    for client in &mut clients {
        assert_eq!(client.read(), None);
    }
}

/// At a pace; who is not in time for that is disconnected before the end.
#[test]
fn a_pace_is_kept_and_bounded_by_the_time_that_there_is() {
    const CLIENTS: usize = 20;
    let stop = |change: fn(&mut Config)| {
        let broker = broker_with(change);
        let address = broker.address();
        let mut clients: Vec<Raw> = (0..CLIENTS)
            .map(|number| Raw::connect(address, Version::V311, &format!("client {number}")))
            .collect();
        let begin = Instant::now();
        broker.stop();
        for client in &mut clients {
            assert_eq!(client.read(), None);
        }
        begin.elapsed()
    };
    // The first at once, and 19 more of them 100 a second.
    let paced = stop(|config| {
        config.limits.drain_per_sec = 100;
        config.limits.stop_timeout = Duration::from_secs(60);
    });
    assert!(paced >= Duration::from_millis(190), "{paced:?}");
    // One a second: most are left when three quarters of the time are over.
    let hurried = stop(|config| {
        config.limits.drain_per_sec = 1;
        config.limits.stop_timeout = Duration::from_millis(400);
    });
    assert!(hurried >= Duration::from_millis(300), "{hurried:?}");
}

/// With one client a second it would take a minute.
#[test]
fn told_to_stop_twice_it_stops_at_once_and_keeps_what_it_acknowledged() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("stopped-twice");
    _ = std::fs::remove_dir_all(&folder);
    let data = folder.to_str().unwrap();
    let mut command = crate::process::rotamq(&["--listen", "127.0.0.1:0", "--data", data]);
    command.env("ROTAMQ_LIMITS__DRAIN_PER_SEC", "1");
    command.env("ROTAMQ_LIMITS__STOP_TIMEOUT_MS", "600000");
    let mut program = Program::start(&mut command, "listening on ");
    let address = program.address;
    let mut clients: Vec<Raw> = (0..60)
        .map(|number| Raw::connect(address, Version::V311, &format!("client {number}")))
        .collect();
    let mut publisher = PAHO_5.connect(address, "publisher");
    publisher.publish("kept", b"message", 1, true);
    program.signal(Signal::TERM);
    program.line("stopping: SIGTERM");
    until("nobody is let in any more", || {
        std::net::TcpStream::connect(address).is_err()
    });
    // Those who are still there are served.
    let left = clients.first_mut().expect("there are sixty");
    left.send(&raw::subscribe(1, "kept", 0));
    let answers = [left.packet(), left.packet()];
    assert!(
        answers.iter().any(|packet| packet[0] == 0x90),
        "{answers:?}"
    );
    program.signal(Signal::TERM);
    program.line("stopping at once: SIGTERM again");
    assert!(program.wait().success());

    let program = Program::serve(&["--data", data]);
    let mut back = PAHO.open(Options::clean(program.address, "back"));
    assert_eq!(back.subscribe(&["kept"], 1), [1]);
    assert_eq!(back.receive().text(), "message");
}
