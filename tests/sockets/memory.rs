//! What a client that takes nothing costs: no more than its limits.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::clients::Version;
use crate::process::{Program, file};
use crate::raw::{self, Raw};
use crate::wait::until;

const MESSAGES: usize = 1_000_000;
const PAYLOAD_BYTES: usize = 100;
const LIMIT_BYTES: usize = 16 << 20;
/// A thread's read buffer and match cache, an allocator's reserve, the
/// connections that publish: all that does not grow with what is published.
const FIXED_BYTES: usize = 8 << 20;
/// What one thread took and another gave back is the first one's to use again:
/// in the worst case each holds as much as the limit.
const THREADS: usize = 2;

/// A broker with small limits for a client that does not take its messages.
fn serve(name: &str, full: &str) -> Program {
    let text = format!(
        "[limits]\noutbox_bytes_max = {LIMIT_BYTES}\nsession_bytes_max = {LIMIT_BYTES}\n\
         match_cache_bytes_max = 1048576\n[session]\nfull = \"{full}\"\n"
    );
    let path = file(name, &text);
    Program::serve(&["--config", path.to_str().unwrap(), "--threads", "2"])
}

/// Publishes a million messages, and returns when all are acknowledged.
fn flood(address: SocketAddr, qos: u8) {
    let mut publisher = Raw::connect(address, Version::V311, "flood");
    let answers = publisher.stream.try_clone().unwrap();
    let reader =
        std::thread::spawn(move || read_answers(answers, if qos > 0 { MESSAGES } else { 0 }));
    let mut batch = Vec::new();
    for number in 0..MESSAGES {
        let packet_id = (number % 65_535 + 1) as u16;
        batch.extend(raw::publish(
            "flood",
            &[b'x'; PAYLOAD_BYTES],
            qos,
            packet_id,
        ));
        if number % 1000 == 999 {
            publisher.send(&batch);
            batch.clear();
        }
    }
    publisher.send(&[0xC0, 0]);
    reader.join().unwrap();
}

/// So many PUBACKs, and a PINGRESP.
fn read_answers(mut stream: TcpStream, pubacks: usize) {
    let mut left = 4 * pubacks + 2;
    let mut buffer = vec![0; 64 << 10];
    while left > 0 {
        let count = stream.read(&mut buffer).unwrap();
        assert_ne!(count, 0, "the publisher is not to be closed");
        left -= count;
    }
}

/// The broker stays within `limit_bytes` above what it took before.
fn check(program: &Program, before: usize, limit_bytes: usize) {
    let most = program.memory_bytes("VmHWM");
    let allowed = THREADS * limit_bytes + FIXED_BYTES;
    let grown = most - before.min(most);
    assert!(
        grown <= allowed,
        "{} KiB more than before, {} KiB at most were expected",
        grown >> 10,
        allowed >> 10
    );
    // What was published is several times as much: the bound means something.
    assert!(MESSAGES * PAYLOAD_BYTES > 2 * allowed);
}

fn subscribe(address: SocketAddr, id: &str, clean: bool, qos: u8) -> Raw {
    let mut client = Raw::open(address);
    client.send(&raw::connect(Version::V311, id, clean, 0));
    client.packet();
    client.send(&raw::subscribe(1, "flood", qos));
    assert_eq!(client.packet(), [0x90, 3, 0, 1, qos]);
    client
}

/// Case C05 of docs/security.md.
#[test]
fn a_subscriber_that_stops_reading_at_qos_0() {
    let program = serve("memory_qos0.toml", "end");
    let address = program.address;
    let mut stalled = subscribe(address, "stalled", true, 0);
    let before = program.memory_bytes("VmHWM");
    flood(address, 0);
    check(&program, before, LIMIT_BYTES);
    // It is still subscribed: what there is room for comes when it reads.
    let mut first = [0; 1];
    stalled.stream.read_exact(&mut first).unwrap();
    assert_eq!(first, [0x30]);
}

/// Case C05 of docs/security.md.
#[test]
fn a_subscriber_that_stops_reading_at_qos_1_loses_its_session() {
    for clean in [true, false] {
        let mut program = serve("memory_qos1.toml", "end");
        let address = program.address;
        let mut stalled = subscribe(address, "stalled", clean, 1);
        let before = program.memory_bytes("VmHWM");
        flood(address, 1);
        check(&program, before, LIMIT_BYTES);
        let line = program.line("a session is full and ends");
        assert!(line.contains("stalled"), "{line}");
        stalled.until_closed();
        let mut again = Raw::open(address);
        again.send(&raw::connect(Version::V311, "stalled", false, 0));
        assert_eq!(again.packet(), [0x20, 2, 0, 0], "Session Present is 0");
    }
}

/// Case C05 of docs/security.md.
#[test]
fn a_subscriber_that_acknowledges_nothing_loses_its_session() {
    let mut program = serve("memory_unacknowledged.toml", "end");
    let address = program.address;
    let mut reading = subscribe(address, "reads only", true, 2);
    let before = program.memory_bytes("VmHWM");
    flood(address, 1);
    check(&program, before, LIMIT_BYTES);
    program.line("a session is full and ends");
    let came = reading.until_closed();
    assert_eq!(came.len(), 100, "inflight_max, and then the end");
}

#[test]
fn an_absent_subscriber_whose_oldest_messages_are_dropped() {
    let program = serve("memory_oldest.toml", "drop-oldest");
    let address = program.address;
    let mut absent = subscribe(address, "absent", false, 1);
    absent.send(&[0xE0, 0]);
    assert!(absent.until_closed().is_empty());
    let before = program.memory_bytes("VmHWM");
    flood(address, 1);
    check(&program, before, LIMIT_BYTES);
    let mut back = Raw::open(address);
    back.send(&raw::connect(Version::V311, "absent", false, 0));
    assert_eq!(back.packet(), [0x20, 2, 1, 0]);
    assert_eq!(back.packet()[0], 0x32);
}

/// Answers are not read either: no more requests are.
/// Case C05 of docs/security.md.
#[test]
fn a_client_that_asks_and_does_not_listen() {
    let program = serve("memory_answers.toml", "end");
    let address = program.address;
    let mut publisher = Raw::connect(address, Version::V311, "publisher");
    let mut retained = raw::publish("retained", &[b'x'; 500], 0, 0);
    retained[0] |= 1;
    publisher.send(&retained);
    publisher.fence();
    let before = program.memory_bytes("VmHWM");
    let requests = [
        raw::packet(0xC0, &[]),
        raw::subscribe(1, "retained", 0),
        raw::subscribe(1, "retained", 1),
        raw::publish("nobody", b"", 1, 1),
        raw::packet(0xA2, &[&[0, 1][..], &raw::text("nothing")].concat()),
        raw::packet(0x62, &[0, 1]),
    ];
    for (number, request) in requests.iter().enumerate() {
        let mut client = Raw::connect(address, Version::V311, &format!("deaf {number}"));
        let batch = request.repeat(10_000);
        client.stream.set_nonblocking(true).unwrap();
        let (mut sent, mut refused) = (0, 0);
        // Until the broker takes no more, or has taken plenty.
        until("it takes no more", || {
            match client.stream.write(&batch) {
                Ok(count) => (sent, refused) = (sent + count, 0),
                Err(_) => refused += 1,
            }
            refused > 200 || sent > 100 << 20
        });
        assert!(sent < 100 << 20, "request {number}: it reads on and on");
        publisher.fence();
    }
    check(&program, before, LIMIT_BYTES);
}
