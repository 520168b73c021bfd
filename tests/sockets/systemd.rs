//! What the service manager is told, by sd_notify(3): a socket of the test's
//! stands for it.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use crate::clients::{PAHO, PAHO_5};
use crate::process::{Program, file, rotamq};
use crate::wait::DEADLINE;

/// Who listens to what a broker says of itself.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(name: &str) -> Manager {
        let name = format!("{name}-{}.notify", std::process::id());
        let path = std::env::temp_dir().join(name);
        _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Manager { socket, path }
    }

    fn start(&self, mut command: Command, watchdog_usec: Option<u64>) -> Program {
        command.env("NOTIFY_SOCKET", &self.path);
        if let Some(usec) = watchdog_usec {
            command.env("WATCHDOG_USEC", usec.to_string());
        }
        Program::start(&mut command, "listening on ")
    }

    /// The next that is said; of the watchdog only if that is asked for.
    fn told(&self, of_watchdog: bool) -> String {
        loop {
            let mut buffer = [0; 4096];
            let len = self.socket.recv(&mut buffer).expect("it says something");
            let text = String::from_utf8_lossy(&buffer[..len]).into_owned();
            if (text == "WATCHDOG=1\n") == of_watchdog {
                return text;
            }
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.path);
    }
}

#[test]
fn the_manager_is_told_when_it_is_ready_reloads_and_stops() {
    let manager = Manager::new("told");
    let text = "[[listener]]\naddress = '127.0.0.1:0'\n";
    let config = file("systemd.toml", text);
    let mut command = rotamq(&["--ephemeral", "--config"]);
    command.arg(&config);
    let mut program = manager.start(command, Some(200_000));
    let address = program.address;
    let ready = format!("READY=1\nSTATUS=serving on {address}\n");
    assert_eq!(manager.told(false), ready);
    for peer in [PAHO, PAHO_5] {
        peer.publish(address, "t", "m", 1, false);
    }
    // Twice: it goes on.
    for _ in 0..2 {
        manager.told(true);
    }
    // A wrong one too ends with READY: it serves on as it did.
    for text in [text, "no toml"] {
        std::fs::write(&config, text).unwrap();
        program.signal(Signal::HUP);
        let reloading = manager.told(false);
        let (state, since) = reloading.split_once("\nMONOTONIC_USEC=").expect(&reloading);
        assert_eq!(state, "RELOADING=1");
        assert!(since.trim().parse::<u64>().is_ok(), "{reloading}");
        assert_eq!(manager.told(false), ready);
    }
    program.signal(Signal::TERM);
    assert_eq!(
        manager.told(false),
        "STOPPING=1\nSTATUS=disconnecting clients\n"
    );
    assert!(program.wait().success());
}

/// systemd would end it then, and start it again.
#[test]
fn a_broker_that_does_not_run_is_not_said_to_be_alive() {
    let manager = Manager::new("stuck");
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("watched");
    _ = std::fs::remove_dir_all(&folder);
    let mut command = rotamq(&["--listen", "127.0.0.1:0", "--data"]);
    command.arg(&folder);
    let mut program = manager.start(command, Some(100_000));
    manager.told(true);
    program.signal(Signal::STOP);
    // What was said before it stood still is read; then nothing comes.
    manager.socket.set_nonblocking(true).unwrap();
    crate::wait::until("all that it has said is read", || {
        manager.socket.recv(&mut [0; 4096]).is_err()
    });
    manager.socket.set_nonblocking(false).unwrap();
    let span = std::time::Duration::from_millis(300);
    manager.socket.set_read_timeout(Some(span)).unwrap();
    assert!(manager.socket.recv(&mut [0; 4096]).is_err());
    manager.socket.set_read_timeout(Some(DEADLINE)).unwrap();
    program.signal(Signal::CONT);
    manager.told(true);
    program.signal(Signal::TERM);
    assert!(program.wait().success());
}
