//! Listening on a Unix socket.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rotamq::config::{Address, Listener};
use rustix::process::Signal;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::clients::{Options, Over, PAHO, PAHO_5, broker_with};
use crate::process::{Program, output, rotamq};

/// A path that is free.
fn path(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    _ = std::fs::remove_file(&path);
    path
}

fn options(path: &Path, id: &str) -> Options {
    let over = Over {
        unix: Some(path.to_owned()),
        ..Over::default()
    };
    Options::clean("127.0.0.1:1".parse().unwrap(), id).over(&over)
}

/// Case J51 of docs/security.md.
#[test]
fn clients_connect_by_the_socket_s_file() {
    let path = path("clients.sock");
    let broker = broker_with(|config| {
        let mut listener = Listener::new(Address::Unix(path.clone()));
        listener.unix_mode = 0o600;
        config.listeners.push(listener);
    });
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut subscriber = PAHO_5.open(options(&path, "subscriber"));
    assert_eq!(subscriber.subscribe(&["t"], 1), [1]);
    PAHO.publish(broker.address(), "t", "from TCP", 1, false);
    assert_eq!(subscriber.receive().text(), "from TCP");
    let mut publisher = PAHO_5.open(options(&path, "publisher"));
    publisher.publish("t", b"from the socket", 1, false);
    assert_eq!(subscriber.receive().text(), "from the socket");
    // It is of this machine, whose people may steer queues.
    let request = br#"{"op": "create", "queue": "jobs"}"#;
    publisher.publish("$CONTROL/rotamq/v1", request, 1, false);
    drop((subscriber, publisher));
    broker.stop();
    assert!(!path.exists(), "the file goes with the broker");
}

/// A file that a killed broker left is nobody's; that of a live one is not ours.
/// Case J51 of docs/security.md.
#[test]
fn a_stale_file_is_replaced_and_a_live_one_is_not() {
    let path = path("stale.sock");
    let address = format!("unix:{}", path.display());
    let arguments = [
        "--ephemeral",
        "--listen",
        "127.0.0.1:0",
        "--listen",
        &*address,
    ];
    let start = || {
        let mut program = Program::start(&mut rotamq(&arguments), "listening on ");
        program.line(&format!("listening on {address}"));
        program
    };
    let mut killed = start();
    killed.signal(Signal::KILL);
    killed.wait();
    assert!(path.exists(), "nobody was there to remove it");
    let mut live = start();
    let second = output(&arguments);
    let complaint = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{complaint}");
    let expected = format!("cannot listen on {address}: another process listens there");
    assert!(complaint.contains(&expected), "{complaint}");
    PAHO.open(options(&path, "client")).disconnect();
    live.signal(Signal::TERM);
    assert_eq!(live.wait().code(), Some(0));
    assert!(!path.exists());

    std::fs::write(&path, "precious").unwrap();
    let third = output(&arguments);
    let complaint = String::from_utf8(third.stderr).unwrap();
    assert!(
        complaint.contains("there is a file that is no socket"),
        "{complaint}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

/// One that listens and takes nobody in is alive as well.
#[test]
fn a_socket_with_a_full_backlog_is_alive() {
    let path = path("full.sock");
    let address = SockAddr::unix(&path).unwrap();
    let socket = || Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let (listener, waiting) = (socket(), socket());
    listener.bind(&address).unwrap();
    listener.listen(0).unwrap();
    waiting.connect(&address).unwrap();
    let listen = format!("unix:{}", path.display());
    let output = output(&["--ephemeral", "--listen", &listen]);
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(
        complaint.contains("another process listens there"),
        "{complaint}"
    );
    assert!(path.exists());
}
