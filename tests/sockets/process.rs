//! The real program, as a process.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{DEADLINE, until};

/// `rotamq` with these arguments, and nothing of this machine's settings.
pub fn rotamq(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rotamq"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ROTAMQ_") {
            command.env_remove(name);
        }
    }
    if arguments.first() != Some(&"config") {
        // Its usual port is one for all; a test that wants one says --http.
        command.env("ROTAMQ_HTTP__ADDRESS", "off");
    }
    command
}

/// Runs it to its end.
pub fn output(arguments: &[&str]) -> Output {
    rotamq(arguments).output().unwrap()
}

/// A running broker; killed when it goes out of scope.
pub struct Program {
    child: Child,
    log: Receiver<String>,
    pub address: SocketAddr,
}

impl Program {
    /// On a free port; keeps nothing, unless it is given a folder for it.
    pub fn serve(arguments: &[&str]) -> Program {
        let mut all = vec!["--listen", "127.0.0.1:0"];
        if !arguments.contains(&"--data") {
            all.push("--ephemeral");
        }
        all.extend(arguments);
        Program::start(&mut rotamq(&all), "listening on ")
    }

    /// `before_address`: what stands before the address in the line that tells it.
    pub fn start(command: &mut Command, before_address: &str) -> Program {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let (sender, log) = channel();
        std::thread::spawn(move || {
            for line in stderr.split(b'\n') {
                let Ok(line) = line else { return };
                // Nobody may want it any more; it is read on all the same.
                _ = sender.send(String::from_utf8_lossy(&line).into_owned());
            }
        });
        let mut program = Program {
            child,
            log,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let line = program.line(before_address);
        let (_, rest) = line.split_once(before_address).expect("it was found");
        let end = rest.find(|c: char| !(c.is_ascii_digit() || ".:[]".contains(c)));
        program.address = rest[..end.unwrap_or(rest.len())].parse().expect(&line);
        program
    }

    /// The next line of its log that contains `text`.
    pub fn line(&mut self, text: &str) -> String {
        loop {
            match self.log.recv_timeout(DEADLINE) {
                Ok(line) if line.contains(text) => return line,
                Ok(_) => {}
                Err(error) => panic!("the log never says {text:?}: {error}"),
            }
        }
    }

    pub fn signal(&self, kind: Signal) {
        signal(&self.child, kind);
    }

    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// All that the log says until the program ends.
    pub fn rest_of_log(&mut self) -> Vec<String> {
        self.log.iter().collect()
    }

    /// Resident memory in bytes: `VmRSS` now, or `VmHWM`, the most so far.
    pub fn memory_bytes(&self, what: &str) -> usize {
        let mut status = String::new();
        std::fs::File::open(format!("/proc/{}/status", self.child.id()))
            .and_then(|mut file| file.read_to_string(&mut status))
            .unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(what));
        let words = line.expect("the kernel tells it").trim_start_matches(':');
        let kib: usize = words.trim().trim_end_matches(" kB").parse().expect(words);
        kib << 10
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

/// Another program; killed when it goes out of scope.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A port that was free a moment ago, for a program that has to be told one.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Tells a process something.
pub fn signal(child: &Child, kind: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process has a number"), kind).unwrap();
}

/// A file of this test run, with that text.
pub fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path
}
