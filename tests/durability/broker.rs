//! The program under test, as a process with a data folder.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long it may take to listen.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// What is started each time: which program, on which data, set how.
#[derive(Clone)]
pub struct Program {
    pub path: PathBuf,
    pub data: PathBuf,
    /// Options as `[section] key` and value.
    pub options: Vec<(&'static str, &'static str, String)>,
}

/// A running broker; killed when it goes out of scope.
pub struct Broker {
    child: Child,
    address: SocketAddr,
    log: Option<JoinHandle<Vec<String>>>,
}

impl Program {
    /// Starts it on a free port, and waits until it listens.
    ///
    /// # Errors
    /// What it logged, if it does not come to that.
    pub fn start(&self) -> Result<Broker, String> {
        let mut command = Command::new(&self.path);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(&self.data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ROTAMQ_") {
                command.env_remove(name);
            }
        }
        command.env("ROTAMQ_HTTP__ADDRESS", "off");
        for (section, key, value) in &self.options {
            let name = format!("ROTAMQ_{section}__{key}").to_uppercase();
            command.env(name, value);
        }
        let mut child = command
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", self.path.display()))?;
        let stderr = child.stderr.take().expect("it is piped");
        let (found, address) = mpsc::channel();
        let log = thread::spawn(move || {
            let mut lines = Vec::new();
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(address) = listening_on(&line) {
                    _ = found.send(address);
                }
                lines.push(line);
            }
            lines
        });
        let mut broker = Broker {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            log: Some(log),
        };
        match wait_for_address(&address) {
            Some(address) => broker.address = address,
            None => {
                broker.kill();
                let log = broker.end()?.1;
                return Err(format!(
                    "the broker does not listen; it says:\n{}",
                    log.join("\n")
                ));
            }
        }
        Ok(broker)
    }

    /// Deletes what it stored.
    ///
    /// # Errors
    /// If the folder cannot be made anew.
    pub fn clear(&self) -> Result<(), String> {
        let failed = |error| format!("the data folder {}: {error}", self.data.display());
        if self.data.exists() {
            fs::remove_dir_all(&self.data).map_err(failed)?;
        }
        let parent = self.data.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(failed)
    }
}

fn wait_for_address(address: &Receiver<SocketAddr>) -> Option<SocketAddr> {
    address.recv_timeout(START_PATIENCE).ok()
}

impl Broker {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pid(&self) -> Pid {
        let number = i32::try_from(self.child.id()).expect("process numbers are small");
        Pid::from_raw(number).expect("a process has a number")
    }

    /// SIGKILL, whether it still runs or not.
    pub fn kill(&self) {
        // It fails only if the process has ended already.
        _ = kill_process(self.pid(), Signal::KILL);
    }

    /// Waits until it has ended by itself; `None`: it has not after so long.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let began = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if began.elapsed() > patience {
                return None;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// How it ended, and all that it logged; it has to have been killed, or to
    /// end by itself.
    ///
    /// # Errors
    /// If it panicked: then nothing else counts.
    pub fn end(mut self) -> Result<(ExitStatus, Vec<String>), String> {
        let status = (self.child.wait()).map_err(|error| format!("the broker's end: {error}"))?;
        let log = self.log.take().and_then(|log| log.join().ok());
        let log = log.unwrap_or_default();
        match log.iter().find(|line| line.contains("panicked")) {
            Some(line) => Err(format!("the broker panicked: {line}")),
            None => Ok((status, log)),
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            _ = self.child.kill();
            _ = self.child.wait();
        }
    }
}

/// The address in a log line, whatever stands before and behind it.
fn listening_on(line: &str) -> Option<SocketAddr> {
    let (_, after) = line.split_once("listening on ")?;
    let end = after.find(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c)));
    after[..end.unwrap_or(after.len())].parse().ok()
}
