//! Rates, floods and too little memory, with mosquitto's clients and by hand.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use rotamq::Broker;
use rotamq::broker::Counts;
use rotamq::config::{Config, Rates};

use crate::clients::{Version, broker_with, mosquitto_command};
use crate::process::{Program, file};
use crate::raw::{self, Raw};
use crate::wait::until;

/// Written by mosquitto_passwd: ann has "ann's secret", ben "b€n".
const USERS: &str = include_str!("../fixtures/mosquitto_passwd");
const ANN: [&str; 4] = ["-u", "ann", "-P", "ann's secret"];
const BEN: [&str; 4] = ["-u", "ben", "-P", "b€n"];

/// mosquitto_pub of one message, with these arguments more.
fn publish(address: SocketAddr, version: Version, more: &[&str]) -> Output {
    let mut command = mosquitto_command("mosquitto_pub", version, address);
    command.args(["-t", "t", "-m", "m"]).args(more);
    command.output().unwrap()
}

fn succeeds(output: &Output) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
}

fn is_refused(output: &Output, said: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && stderr.contains(said),
        "{stderr}"
    );
}

/// Whom the broker has not closed.
fn is_open(client: &Raw) -> bool {
    client.stream.set_nonblocking(true).unwrap();
    let mut byte = [0];
    let is_open = match client.stream.peek(&mut byte) {
        Ok(count) => count > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    };
    client.stream.set_nonblocking(false).unwrap();
    is_open
}

// ---- connections

/// C23: a storm is let in at a steady rate, and all of it.
#[test]
fn connections_beyond_the_rate_wait_in_the_backlog() {
    let of_broker = |config: &mut Config| config.limits.connections_per_sec_max = 10;
    let of_listener = |config: &mut Config| config.listeners[0].connections_per_sec_max = 10;
    for configure in [&of_broker as &dyn Fn(&mut Config), &of_listener] {
        let broker = broker_with(configure);
        let start = Instant::now();
        let mut storm: Vec<Raw> = (0..10).map(|_| Raw::open(broker.address())).collect();
        for (number, client) in storm.iter_mut().enumerate() {
            let id = format!("storm {number}");
            client.send(&raw::connect(Version::V311, &id, true, 0));
        }
        for client in &mut storm {
            assert_eq!(client.packet(), [0x20, 2, 0, 0]);
        }
        // One at once, as that is a tenth of a second's.
        assert!(start.elapsed() >= Duration::from_millis(900));
        until("each was waited after", || {
            broker.counts().accepts_delayed == 10
        });
        assert_eq!(broker.counts().connections_refused, 0);
        broker.stop();
    }
}

/// B05: who dribbles takes the places of its own address, and no others.
#[test]
fn those_who_dribble_are_in_the_way_of_nobody_else() {
    const MAX: usize = 20;
    let broker = broker_with(|config| config.limits.half_open_per_address_max = MAX as u32);
    let mut dribbling: Vec<Raw> = (0..10 * MAX)
        .map(|_| {
            let mut client = Raw::open(broker.address());
            _ = client.stream.write_all(&[0x10]);
            client
        })
        .collect();
    until("all were looked at", || {
        broker.counts().refused_half_open == 9 * MAX as u64
    });
    assert_eq!(broker.counts().connections_refused, 9 * MAX as u64);
    until("the others are closed", || {
        dribbling.retain(is_open);
        dribbling.len() == MAX
    });
    for version in [Version::V31, Version::V311, Version::V5] {
        succeeds(&publish(broker.address(), version, &["-A", "127.0.0.2"]));
    }
    assert!(
        !publish(broker.address(), Version::V311, &[])
            .status
            .success()
    );
    // Whoever is through with CONNECT, or goes, makes room.
    dribbling[0].send(&raw::connect(Version::V311, "through", true, 0)[1..]);
    assert_eq!(dribbling[0].packet(), [0x20, 2, 0, 0]);
    let mut next = Raw::connect(broker.address(), Version::V311, "next");
    next.fence();
    drop(dribbling);
    until("they are gone", || broker.connections_len() == 1);
    succeeds(&publish(broker.address(), Version::V311, &[]));
}

/// Behind a proxy it is the client's address that counts.
#[test]
fn who_dribbles_behind_a_proxy_is_in_the_way_of_nobody_else() {
    let broker = broker_with(|config| {
        config.limits.half_open_per_address_max = 2;
        config.listeners[0].proxy_trusted = vec!["127.0.0.1".parse().unwrap()];
    });
    let open = |client: &str| {
        let mut raw = Raw::open(broker.address());
        let header = format!("PROXY TCP4 {client} 192.0.2.1 4711 1883\r\n");
        raw.send(header.as_bytes());
        raw
    };
    let first = [open("192.0.2.7"), open("192.0.2.7")];
    until("both are there", || broker.connections_len() == 2);
    // They may be looked at in any order: one of the three is too many.
    let third = open("192.0.2.7");
    until("one is refused", || broker.counts().refused_half_open == 1);
    let mut other = open("192.0.2.8");
    other.send(&raw::connect(Version::V311, "other", true, 0));
    assert_eq!(other.packet(), [0x20, 2, 0, 0]);
    drop((first, third));
    until("they are gone", || broker.connections_len() == 1);
    let mut again = open("192.0.2.7");
    again.send(&raw::connect(Version::V311, "again", true, 0));
    assert_eq!(again.packet(), [0x20, 2, 0, 0]);
}

/// A broker of the users in that file.
fn with_users(users: &Path, configure: impl FnOnce(&mut Config)) -> Broker {
    broker_with(|config| {
        config.allow_anonymous = false;
        config.authentication.password_file = Some(users.into());
        configure(config);
    })
}

/// mosquitto_sub that is subscribed, and ends after so many messages.
fn subscriber(address: SocketAddr, more: &[&str], count: usize) -> Child {
    let mut command = mosquitto_command("mosquitto_sub", Version::V311, address);
    command.args(["-t", "t", "-q", "1", "-C", &count.to_string()]);
    command.args(more).stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_user_has_so_many_connections() {
    let users = file("limits_user.passwd", USERS);
    let broker = with_users(&users, |config| {
        config.limits.connections_per_user_max = 1;
    });
    let address = broker.address();
    let first = subscriber(address, &[&ANN[..], &["-i", "ann's"]].concat(), 1);
    until("it is subscribed", || broker.subscriptions_len() == 1);
    is_refused(&publish(address, Version::V311, &ANN), "unavailable");
    is_refused(&publish(address, Version::V5, &ANN), "Quota exceeded");
    assert_eq!(broker.counts().refused_user_full, 2);
    succeeds(&publish(address, Version::V5, &BEN));
    assert_eq!(first.wait_with_output().unwrap().stdout, b"m\n");
    succeeds(&publish(address, Version::V5, &ANN));
}

/// F10: two clients that take the session from each other come to rest.
#[test]
fn two_clients_that_fight_for_an_identifier() {
    let path = file(
        "limits_flapping.toml",
        "[authentication]\nconnects_per_client_max = 5\n",
    );
    let mut program = Program::serve(&["--config", path.to_str().unwrap()]);
    let address = program.address;
    let fighting: Vec<Child> = (0..2)
        .map(|_| subscriber(address, &["-i", "both", "-q", "0"], 1))
        .collect();
    let line = program.line("banned: it connects too often");
    assert!(line.contains("both"), "{line}");
    for (version, said) in [(Version::V311, "not authorised"), (Version::V5, "Banned")] {
        is_refused(&publish(address, version, &["-i", "both"]), said);
    }
    for mut child in fighting {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    succeeds(&publish(address, Version::V5, &["-i", "another"]));
    program.signal(rustix::process::Signal::TERM);
    assert!(program.wait().success());
    let log = program.rest_of_log();
    assert!(!log.iter().any(|line| line.contains("banned: ")), "{log:?}");
}

/// C14: the process takes no more for a client that comes and comes.
#[test]
fn take_overs_leave_nothing_behind() {
    let path = file(
        "limits_take_overs.toml",
        "[authentication]\nconnects_per_client_max = 0\n",
    );
    let program = Program::serve(&["--config", path.to_str().unwrap(), "--threads", "2"]);
    let take_over = |times: usize| {
        let mut last = None;
        for _ in 0..times {
            last = Some(Raw::connect(program.address, Version::V311, "x"));
        }
        last.unwrap().fence();
        program.memory_bytes("VmHWM")
    };
    let before = take_over(1000);
    let after = take_over(5000);
    // The kernel sums it up from parts, now and then with less than before.
    let grown = after.saturating_sub(before);
    assert!(grown < 2 << 20, "{} KiB for 5,000 take-overs", grown >> 10);
}

// ---- messages and bytes a second

const MESSAGES: usize = 12;
/// With 100 bytes of payload: topic, packet id and header are 7.
const MESSAGE_BYTES: usize = 107;

/// Twelve lines go in by one client and come out by another, over so many
/// seconds at least; what was counted.
fn over_seconds(broker: &Broker, who: &[&str], secs_min: f64) -> Counts {
    let address = broker.address();
    let subscriber = subscriber(address, who, MESSAGES);
    until("it is subscribed", || broker.subscriptions_len() == 1);
    let lines: String = (0..MESSAGES).map(|n| format!("{n:0>100}\n")).collect();
    let start = Instant::now();
    let mut command = mosquitto_command("mosquitto_pub", Version::V311, address);
    command.args(["-t", "t", "-q", "1", "-l"]).args(who);
    let mut publisher = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = publisher.stdin.take().expect("it is piped");
    stdin.write_all(lines.as_bytes()).unwrap();
    drop(stdin);
    let came = subscriber.wait_with_output().unwrap().stdout;
    // All of them, and in order.
    assert_eq!(String::from_utf8(came).unwrap(), lines);
    assert!(publisher.wait().unwrap().success());
    let secs = start.elapsed().as_secs_f64();
    assert!(secs >= secs_min, "in {secs} s, not {secs_min} at least");
    broker.counts()
}

fn messages_in(messages_in: u64) -> Rates {
    Rates {
        messages_in,
        ..Rates::default()
    }
}

fn messages_out(messages_out: u64) -> Rates {
    Rates {
        messages_out,
        ..Rates::default()
    }
}

fn bytes_in(bytes_in: u64) -> Rates {
    Rates {
        bytes_in,
        ..Rates::default()
    }
}

fn bytes_out(bytes_out: u64) -> Rates {
    Rates {
        bytes_out,
        ..Rates::default()
    }
}

/// How often what was read, and written, later.
fn delays(counts: &Counts) -> [u64; 6] {
    [
        counts.reads_delayed_client,
        counts.reads_delayed_user,
        counts.reads_delayed_listener,
        counts.writes_delayed_client,
        counts.writes_delayed_user,
        counts.writes_delayed_listener,
    ]
}

/// C25: each rate of each scope delays, and nothing else, and loses nothing.
#[test]
fn rates_of_clients_users_and_listeners() {
    let bytes = (MESSAGES * MESSAGE_BYTES) as f64;
    let users = &file("limits_rates.passwd", USERS);
    std::thread::scope(|threads| {
        for scope in 0..3 {
            for (way, rates, secs_min) in [
                (0, messages_in(6), 0.9),
                // A second's are there at the start, and an eighth may be owed.
                (0, bytes_in(640), (bytes - 640.0 * 1.25) / 640.0),
                (1, messages_out(6), 0.9),
                (1, bytes_out(640), (bytes - 640.0 * 1.25) / 640.0),
            ] {
                threads.spawn(move || {
                    let broker = with_users(users, |config| match scope {
                        0 => config.limits.client_rates = rates.clone(),
                        1 => config.limits.user_rates = rates.clone(),
                        _ => config.listeners[0].rates = rates.clone(),
                    });
                    let counts = over_seconds(&broker, &ANN, secs_min);
                    for (at, count) in delays(&counts).into_iter().enumerate() {
                        let is_meant = at == 3 * way + scope;
                        assert_eq!(count > 0, is_meant, "{rates:?} of {scope}: {at}, {count}");
                    }
                });
            }
        }
    });
}

/// C25: 0 is off, 1 is one, and the most that can be set delays nobody.
#[test]
fn rates_at_their_bounds() {
    let all = |rate: u64| Rates {
        messages_in: rate,
        bytes_in: rate,
        messages_out: rate,
        bytes_out: rate,
    };
    for most in [0, 1_000_000_000] {
        let broker = broker_with(|config| {
            config.limits.client_rates = all(most);
            config.limits.user_rates = all(most);
            config.listeners[0].rates = all(most);
            config.limits.connections_per_sec_max = most;
            config.listeners[0].connections_per_sec_max = most;
            config.limits.half_open_per_address_max = most as u32;
            config.limits.connections_per_user_max = most as u32;
        });
        let counts = over_seconds(&broker, &[], 0.0);
        assert_eq!(delays(&counts), [0; 6]);
        assert_eq!((counts.accepts_delayed, counts.connections_refused), (0, 0));
    }
    let broker = broker_with(|config| {
        config.limits.client_rates = messages_in(1);
        config.limits.connections_per_sec_max = 1;
        config.limits.half_open_per_address_max = 1;
    });
    let mut one = Raw::connect(broker.address(), Version::V311, "one");
    one.send(&[raw::publish("t", b"", 1, 1), raw::publish("t", b"", 1, 2)].concat());
    let start = Instant::now();
    assert_eq!(one.packet(), [0x40, 2, 0, 1]);
    assert_eq!(one.packet(), [0x40, 2, 0, 2]);
    assert!(start.elapsed() >= Duration::from_millis(500));
}

/// Packets cut and joined in any way count as the same.
#[test]
fn what_comes_in_one_piece_is_handled_at_the_rate() {
    let broker = broker_with(|config| config.limits.client_rates = messages_in(5));
    let mut subscriber = Raw::connect(broker.address(), Version::V311, "subscriber");
    subscriber.send(&raw::subscribe(1, "t", 0));
    assert_eq!(subscriber.packet(), [0x90, 3, 0, 1, 0]);
    let mut batch = raw::connect(Version::V311, "batch", true, 0);
    for number in 0..10 {
        batch.extend(raw::publish("t", &[number; 3000], 0, 0));
        batch.extend([0xC0, 0]);
    }
    let mut client = Raw::open(broker.address());
    let start = Instant::now();
    client.send(&batch);
    for number in 0..10 {
        let packet = subscriber.packet();
        assert_eq!(packet[packet.len() - 3000..], [number; 3000]);
    }
    assert!(start.elapsed() >= Duration::from_millis(900));
    assert_eq!(client.packet(), [0x20, 2, 0, 0]);
    for _ in 0..10 {
        assert_eq!(client.packet(), [0xD0, 0], "a PINGREQ behind each");
    }
}

/// Who waits because it is made to wait is not silent; who is, is.
#[test]
fn keep_alive_does_not_run_out_while_the_broker_does_not_read() {
    let broker = broker_with(|config| config.limits.client_rates = messages_in(1));
    let mut client = Raw::open(broker.address());
    client.send(&raw::connect(Version::V311, "waits", true, 1));
    assert_eq!(client.packet(), [0x20, 2, 0, 0]);
    let publishes = (1..=5).flat_map(|id| raw::publish("t", b"", 1, id));
    let batch: Vec<u8> = publishes.chain([0xC0, 0]).collect();
    client.send(&batch);
    let mut answers: Vec<_> = (0..5).map(|_| client.packet()).collect();
    answers.push(client.packet());
    assert_eq!(answers[4], [0x40, 2, 0, 5]);
    assert_eq!(answers[5], [0xD0, 0]);
    assert!(client.until_closed().is_empty());
    assert_eq!(broker.counts().connections_accepted, 1);
}

/// What is not written fills the outbox, and its limit holds.
#[test]
fn what_goes_out_slowly_is_bounded_as_for_a_slow_reader() {
    let broker = broker_with(|config| {
        config.limits.client_rates = bytes_out(2000);
        config.limits.outbox_bytes_max = 4096;
    });
    let mut slow = Raw::connect(broker.address(), Version::V311, "slow");
    slow.send(&raw::subscribe(1, "t", 0));
    assert_eq!(slow.packet(), [0x90, 3, 0, 1, 0]);
    let mut publisher = Raw::connect(broker.address(), Version::V311, "publisher");
    for number in 0..100 {
        publisher.send(&raw::publish("t", &[number; 500], 0, 0));
    }
    publisher.fence();
    let dropped = broker.counts().dropped_slow;
    assert!(dropped > 50, "{dropped}");
    for _ in 0..100 - dropped {
        assert_eq!(slow.packet()[0], 0x30);
    }
    assert!(broker.counts().writes_delayed_client > 0);
}

/// CONNECT, PUBLISH and DISCONNECT in one piece, again and again.
#[test]
fn who_comes_again_for_each_message_is_no_quicker() {
    for rates in [messages_in(1), bytes_in(30)] {
        let broker = broker_with(|config| config.listeners[0].rates = rates);
        let mut subscriber = Raw::connect(broker.address(), Version::V311, "subscriber");
        subscriber.send(&raw::subscribe(1, "t", 0));
        assert_eq!(subscriber.packet(), [0x90, 3, 0, 1, 0]);
        let start = Instant::now();
        for number in 0..4 {
            let mut batch = raw::connect(Version::V311, &format!("{number}"), true, 0);
            batch.extend(raw::publish("t", &[number; 24], 0, 0));
            batch.extend([0xE0, 0]);
            let mut client = Raw::open(broker.address());
            client.send(&batch);
            assert_eq!(*subscriber.packet().last().unwrap(), number);
        }
        assert!(start.elapsed() >= Duration::from_millis(1500));
    }
}

/// What is on its way when the broker stops is not written at a rate.
#[test]
fn a_stop_does_not_wait_for_a_rate() {
    let broker = broker_with(|config| {
        config.listeners[0].rates = bytes_out(10);
        config.limits.stop_timeout = Duration::from_secs(60);
    });
    let mut slow = Raw::connect(broker.address(), Version::V311, "slow");
    slow.send(&raw::subscribe(1, "t", 0));
    assert_eq!(slow.packet(), [0x90, 3, 0, 1, 0]);
    slow.send(&raw::publish("t", &[b'x'; 1000], 0, 0));
    until("it is written later", || {
        broker.counts().writes_delayed_listener > 0
    });
    let start = Instant::now();
    broker.stop();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(30), "{took:?}");
    let lens: Vec<_> = slow.until_closed().iter().map(Vec::len).collect();
    assert_eq!(lens, [1 + 2 + 3 + 1000]);
}

/// One that is slowed down slows down nobody else.
#[test]
fn others_are_not_slowed_down() {
    let broker = broker_with(|config| config.limits.client_rates = messages_in(1));
    let mut flood = Raw::connect(broker.address(), Version::V311, "flood");
    let batch: Vec<u8> = (1..1000)
        .flat_map(|id| raw::publish("t", b"", 1, id))
        .collect();
    flood.send(&batch);
    for number in 0..20 {
        let mut other = Raw::connect(broker.address(), Version::V311, &format!("{number}"));
        other.send(&raw::publish("t", b"", 1, 1));
        assert_eq!(other.packet(), [0x40, 2, 0, 1]);
    }
    assert!(broker.counts().reads_delayed_client > 0);
    // It is told when the broker stops.
    broker.stop();
    assert!(flood.until_closed().len() < 999);
}

// ---- memory

const CEILING_BYTES: usize = 96 << 20;
/// What may come between two looks, and while publishers are slowed down more
/// and more; on a machine that has other things to do, looks come late.
const SLACK_BYTES: usize = 48 << 20;
const FLOOD: usize = 200_000;
const FLOOD_PAYLOAD_BYTES: usize = 1000;

/// A broker that keeps all in memory, and has less than is published to it.
fn with_little_memory(name: &str) -> Program {
    let text = format!(
        "[limits]\nmemory_bytes_max = {CEILING_BYTES}\nsession_bytes_max = 1073741824\n\
         session_messages_max = 1000000\n[queues]\nmax_bytes = 1073741824\n"
    );
    let path = file(name, &text);
    Program::serve(&["--config", path.to_str().unwrap(), "--threads", "2"])
}

/// Publishes numbered messages at QoS 1; how many were acknowledged when all were,
/// or the connection was closed.
fn flood(address: SocketAddr, topic: &'static str) -> std::thread::JoinHandle<usize> {
    let publisher = Raw::connect(address, Version::V311, "flood");
    let mut answers = publisher.stream.try_clone().unwrap();
    let mut stream = publisher.stream;
    for stream in [&stream, &answers] {
        // It is slowed down on purpose.
        stream.set_read_timeout(None).unwrap();
        stream.set_write_timeout(None).unwrap();
    }
    std::thread::spawn(move || {
        for number in 0..FLOOD {
            let mut payload = [b'x'; FLOOD_PAYLOAD_BYTES];
            payload[..8].copy_from_slice(format!("{number:0>8}").as_bytes());
            let id = (number % 65_535 + 1) as u16;
            stream
                .write_all(&raw::publish(topic, &payload, 1, id))
                .unwrap();
        }
    });
    std::thread::spawn(move || read_pubacks(&mut answers))
}

fn read_pubacks(stream: &mut TcpStream) -> usize {
    let mut bytes = 0;
    let mut buffer = vec![0; 64 << 10];
    while bytes < 4 * FLOOD {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => bytes += count,
        }
    }
    bytes / 4
}

/// Takes all messages, each once and in order.
fn drain(client: &mut Raw) {
    for number in 0..FLOOD {
        let packet = client.packet();
        assert_eq!(packet[0] & 0xF6, 0x32);
        let at = packet.len() - FLOOD_PAYLOAD_BYTES;
        let text = std::str::from_utf8(&packet[at..at + 8]).unwrap();
        assert_eq!(text.parse::<usize>().unwrap(), number);
        client.send(&[0x40, 2, packet[at - 2], packet[at - 1]]);
    }
}

/// C19: more is published to a client that is away than there is memory for.
/// The broker is not killed, takes no more than it may, lets the client come back
/// for it, and goes on by itself; what it acknowledged is delivered.
#[test]
fn a_flood_for_a_session_with_too_little_memory() {
    flood_with_little_memory("limits_memory.toml", "flood");
}

#[test]
fn a_flood_for_a_queue_with_too_little_memory() {
    flood_with_little_memory("limits_memory_queue.toml", "$queue/flood");
}

fn flood_with_little_memory(name: &str, topic: &'static str) {
    let mut program = with_little_memory(name);
    let address = program.address;
    let keeper = raw::connect(Version::V311, "keeper", false, 0);
    let mut away = Raw::open(address);
    away.send(&keeper);
    assert_eq!(away.packet(), [0x20, 2, 0, 0]);
    away.send(&raw::subscribe(1, topic, 1));
    assert_eq!(away.packet(), [0x90, 3, 0, 1, 1]);
    drop(away);
    let publisher = flood(address, topic);
    program.line("who publishes is read later and later");
    is_refused(&publish(address, Version::V311, &[]), "unavailable");
    is_refused(&publish(address, Version::V5, &[]), "Server busy");
    let mut back = Raw::open(address);
    back.send(&keeper);
    assert_eq!(back.packet(), [0x20, 2, 1, 0]);
    drain(&mut back);
    assert_eq!(publisher.join().unwrap(), FLOOD);
    until("newcomers are let in again", || {
        publish(address, Version::V5, &[]).status.success()
    });
    let most = program.memory_bytes("VmHWM");
    assert!(
        most < CEILING_BYTES + SLACK_BYTES,
        "{} MiB at most",
        most >> 20
    );
}
