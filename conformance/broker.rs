//! The rotamq that the suite starts when it is given no address.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A running rotamq; gone when dropped.
pub struct Broker {
    program: Child,
    address: SocketAddr,
    /// Reads what it logs, and ends with those lines that tell of a panic.
    log: Option<JoinHandle<Vec<String>>>,
}

impl Broker {
    /// Starts it on a free port, which it logs as `listening on ADDRESS`.
    /// Its queues are those of `configuration`, unless the arguments name
    /// another; it keeps nothing, unless they name a folder for it.
    pub fn start(configuration: &Path, arguments: &[String]) -> Result<Broker, String> {
        const PATIENCE: Duration = Duration::from_secs(20);
        let mut command = Command::new(env!("CARGO_BIN_EXE_rotamq"));
        if !arguments.iter().any(|word| word.starts_with("--config")) {
            command.arg("--config").arg(configuration);
        }
        if !arguments.iter().any(|word| word.starts_with("--data")) {
            command.arg("--ephemeral");
        }
        let mut program = command
            .args(["--listen", "127.0.0.1:0", "--http", "off"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start rotamq: {error}"))?;
        let stderr = program.stderr.take().ok_or("rotamq has no stderr")?;
        let (found, address) = mpsc::channel();
        let log = thread::spawn(move || {
            let mut panics = Vec::new();
            let mut logged = Vec::new();
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(address) = listening_on(&line) {
                    let _ = found.send(Ok(address));
                } else if line.contains("panicked") {
                    panics.push(line);
                } else if logged.len() < 20 {
                    logged.push(line);
                }
            }
            // Told only to who still waits for the address.
            let _ = found.send(Err(logged.join("\n")));
            panics
        });
        let mut broker = Broker {
            program,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            log: Some(log),
        };
        broker.address = match address.recv_timeout(PATIENCE) {
            Ok(Ok(address)) => address,
            Ok(Err(logged)) => return Err(format!("rotamq ended before it listened:\n{logged}")),
            Err(_) => return Err(format!("rotamq did not listen within {PATIENCE:?}")),
        };
        Ok(broker)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it; what is wrong with how it fared, if anything is.
    pub fn stop(mut self) -> Option<String> {
        let ended = match self.program.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(format!("rotamq ended by itself: {status}")),
            Err(error) => Some(format!("cannot tell whether rotamq still runs: {error}")),
        };
        let _ = self.program.kill();
        let panics = self.log.take().and_then(|log| log.join().ok());
        let panicked = panics.filter(|panics| !panics.is_empty());
        ended.or_else(|| panicked.map(|panics| format!("rotamq panicked: {}", panics.join("; "))))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// The address in a log line, whatever stands before and behind it.
fn listening_on(line: &str) -> Option<SocketAddr> {
    let (_, after) = line.split_once("listening on ")?;
    let end = after.find(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c)));
    after[..end.unwrap_or(after.len())].parse().ok()
}
