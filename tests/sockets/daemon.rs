//! The broker as a service: started by root, and by systemd.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::clients::{Options, Over, PAHO, PAHO_5};
use crate::process::{Program, file, free_port, rotamq};
use crate::root::as_root;

/// A user that every system has, who may do nothing.
const NOBODY: &str = "nobody";

fn unit() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/rotamq.service");
    fs::read_to_string(path).unwrap()
}

fn stdout(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// A folder that everybody may look into, and root alone change.
struct Public(PathBuf);

impl Public {
    fn new(name: &str) -> Public {
        let name = format!("rotamq-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        stdout(as_root("mkdir").arg("-m755").arg(&path));
        Public(path)
    }
}

impl Drop for Public {
    fn drop(&mut self) {
        _ = as_root("rm").arg("-r").arg(&self.0).status();
    }
}

/// `rotamq`, started by root.
fn rotamq_of_root(arguments: &[&str]) -> Command {
    let own = rotamq(arguments);
    let mut command = as_root("env");
    command.arg("ROTAMQ_HTTP__ADDRESS=off");
    command.arg(own.get_program()).args(own.get_args());
    command
}

/// The folder in `/proc` of the broker that was started with this argument,
/// which may be the child of a `sudo`.
fn process_of(argument: &str) -> PathBuf {
    let is_it = |folder: &PathBuf| {
        let read = |name: &str| fs::read(folder.join(name)).unwrap_or_default();
        let cmdline = read("cmdline");
        let mut arguments = cmdline.split(|&byte| byte == 0);
        read("comm") == b"rotamq\n" && arguments.any(|given| given == argument.as_bytes())
    };
    let folders = fs::read_dir("/proc").unwrap();
    let mut folders = folders.map(|entry| entry.unwrap().path());
    folders.find(is_it).expect("it runs")
}

/// What the kernel says of a process's threads, each time the same.
fn of_threads(process: &Path, field: &str) -> String {
    let threads = fs::read_dir(process.join("task")).unwrap();
    let values: BTreeSet<String> = threads
        .map(|thread| {
            let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
            let mut lines = status.lines();
            let value = lines.find_map(|line| line.strip_prefix(field));
            let value = value.expect(field).trim_start_matches(':');
            value.split_whitespace().collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert_eq!(values.len(), 1, "{field}: {values:?}");
    values.into_iter().next().expect("counted")
}

/// It takes a low port and makes its data folder, and is nobody's from then on.
#[test]
fn root_is_given_up_once_there_are_addresses() {
    let folder = Public::new("gives-up-root");
    let of_nobody = |what: &str| stdout(Command::new("id").args([what, NOBODY]));
    let (uid, gid) = (of_nobody("-u"), of_nobody("-g"));
    let (uid, gid) = (uid.trim(), gid.trim());
    let data = folder.0.join("data");
    let socket = folder.0.join("mqtt.sock");
    // An address of this machine that no other test has; the port is low.
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    let config = format!(
        "user = '{NOBODY}'\nstore.data = '{}'\n[[listener]]\naddress = '127.66.{high}.{low}:83'\n\
         [[listener]]\naddress = 'unix:{}'\nunix_mode = '0600'\n",
        data.display(),
        socket.display()
    );
    let config = file("gives_up_root.toml", &config);
    let config = config.to_str().unwrap();
    let mut command = rotamq_of_root(&["--config", config]);
    let mut program = Program::start(&mut command, "listening on ");
    let process = process_of(config);
    for (field, value) in [
        ("Uid", [uid; 4].join(" ")),
        ("Gid", [gid; 4].join(" ")),
        ("Groups", gid.to_owned()),
        ("CapPrm", "0000000000000000".to_owned()),
    ] {
        assert_eq!(of_threads(&process, field), value, "{field}");
    }
    for (path, mode) in [(&data, 0o700), (&socket, 0o600)] {
        let found = fs::metadata(path).unwrap();
        assert_eq!(found.uid().to_string(), uid, "{path:?}");
        assert_eq!(found.gid().to_string(), gid, "{path:?}");
        assert_eq!(found.permissions().mode() & 0o777, mode, "{path:?}");
    }
    for peer in [PAHO, PAHO_5] {
        peer.publish(program.address, "t", "stored", 1, true);
        let mut subscriber = peer.subscriber(program.address, "subscriber", "t", 1);
        assert_eq!(subscriber.receive().text(), "stored");
    }
    let pid = process.file_name().expect("its number");
    stdout(as_root("kill").arg(pid));
    assert!(program.wait().success());
}

#[test]
fn root_is_told_what_keeps_it_from_being_given_up() {
    let folder = Public::new("keeps-root");
    let path = folder.0.to_str().expect("its name is ASCII");
    let nobody_there = "there is no user no-such-user: make one, as by `useradd --system";
    let not_theirs = "has to belong to the user that the broker runs as";
    for (user, data, complaint) in [
        ("no-such-user", "new", nobody_there),
        (NOBODY, "", not_theirs),
    ] {
        let config = format!("user = '{user}'\nstore.data = '{path}/{data}'\n");
        let config = file(&format!("keeps_root_{user}.toml"), &config);
        let arguments = ["--listen", "127.0.0.1:0", "--config"];
        let mut command = rotamq_of_root(&arguments);
        let output = command.arg(&config).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{user}: {stderr}");
        assert!(stderr.contains(complaint), "{user}: {stderr}");
    }
}

/// Nothing in the unit is misspelt, and the sandbox is as tight as systemd
/// knows how to, for a server.
#[test]
fn the_unit_is_sound_and_its_sandbox_is_on() {
    let program = env!("CARGO_BIN_EXE_rotamq");
    let commands = ["ExecStart=", "ExecReload="];
    let here = commands.into_iter().fold(unit(), |unit, command| {
        let by_name = format!("\n{command}rotamq ");
        assert_eq!(unit.matches(&by_name).count(), 1, "{command}");
        unit.replace(&by_name, &format!("\n{command}{program} "))
    });
    let path = file("rotamq.service", &here);
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&path)
        .output()
        .unwrap();
    let said = String::from_utf8(verified.stderr).unwrap();
    assert!(verified.status.success() && said.is_empty(), "{said}");
    // In tenths of systemd's scale from 0 to 10: "OK" is below 50.
    let analyze = ["security", "--offline=true", "--threshold=20"];
    stdout(Command::new("systemd-analyze").args(analyze).arg(&path));
}

/// All that the broker asks the kernel for is let through by the unit.
#[test]
fn the_broker_works_in_the_sandbox_of_its_unit() {
    let scratch = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (data, socket) = (scratch.join("sandboxed"), scratch.join("sandboxed.sock"));
    let (calls, config) = (
        scratch.join("sandboxed.strace"),
        scratch.join("sandboxed.toml"),
    );
    _ = fs::remove_dir_all(&data);
    fs::write(
        &config,
        format!(
            "[[listener]]\naddress = '127.0.0.1:0'\n[[listener]]\naddress = '127.0.0.1:0'\n\
         protocol = 'websocket'\n[[listener]]\naddress = 'unix:{}'\n",
            socket.display()
        ),
    )
    .unwrap();
    let own = rotamq(&["--config"]);
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-U", "name", "-o"]).arg(&calls);
    command.arg(own.get_program()).args(own.get_args());
    command.arg(&config).arg("--data").arg(&data);
    let mut program = Program::start(&mut command, "listening on ");
    for peer in [PAHO, PAHO_5] {
        let queue = "$queue/sandboxed";
        let mut worker = peer.subscriber(program.address, "worker", queue, 1);
        peer.publish(program.address, queue, "job", 1, false);
        assert_eq!(worker.receive().text(), "job");
        peer.publish(program.address, "t", "stored", 2, true);
    }
    let over = Over {
        unix: Some(socket),
        ..Over::default()
    };
    let mut local = PAHO_5.open(Options::clean(program.address, "local").over(&over));
    assert_eq!(local.subscribe(&["t"], 1), [1]);
    assert_eq!(local.receive().text(), "stored");
    let process = process_of(config.to_str().expect("its name is ASCII"));
    let pid = process.file_name().expect("its number");
    stdout(Command::new("kill").arg("-HUP").arg(pid));
    stdout(Command::new("kill").arg(pid));
    assert!(program.wait().success());

    let counted = fs::read_to_string(&calls).unwrap();
    let lines = counted.lines().map(str::trim);
    let names = lines.filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    let made: HashSet<&str> = names
        .filter(|name| !["syscall", "total"].contains(name))
        .collect();
    assert!(made.contains("fdatasync"), "{counted}");
    let allowed = allowed_calls();
    let refused = made.into_iter().filter(|&name| !allowed.contains(name));
    assert_eq!(refused.collect::<Vec<_>>(), [""; 0]);
}

/// The system calls of the unit's `SystemCallFilter=` lines.
fn allowed_calls() -> HashSet<String> {
    let mut allowed = HashSet::new();
    let unit = unit();
    let filters = unit.lines();
    for words in filters.filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (words, takes) = match words.strip_prefix('~') {
            Some(words) => (words, true),
            None => (words, false),
        };
        for word in words.split_whitespace() {
            for call in calls_of(word) {
                match takes {
                    true => _ = allowed.remove(&call),
                    false => _ = allowed.insert(call),
                }
            }
        }
    }
    allowed.extend(calls_of("@default"));
    allowed
}

/// What a word of a filter stands for: sets contain sets.
fn calls_of(word: &str) -> Vec<String> {
    if !word.starts_with('@') {
        return vec![word.to_owned()];
    }
    let listed = stdout(Command::new("systemd-analyze").args(["syscall-filter", word]));
    let lines = listed.lines().filter(|line| line.starts_with(' '));
    let words = lines.map(str::trim).filter(|word| !word.starts_with('#'));
    words.flat_map(calls_of).collect()
}

/// docs/secure.md, from its first command to the last that needs no root.
#[test]
fn the_way_to_tls_users_and_rules_that_the_docs_show_works() {
    let docs = include_str!("../../docs/secure.md");
    let blocks = docs.split("\n```sh\n").skip(1);
    let blocks = blocks.map(|block| block.split("\n```").next().expect("there is a first"));
    let script = blocks.collect::<Vec<_>>().join("\n");
    let port = free_port().to_string();
    let script = script.replace("0.0.0.0:8883", "127.0.0.1:8883");
    let script = format!("trap 'kill %1' EXIT\n{}", script.replace("8883", &port));
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("docs-secure");
    _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_rotamq"));
    let here = program.parent().expect("it is in a folder").display();
    let path = format!("{here}:{}", std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["-e", "-o", "pipefail", "-c", &script])
        .env("PATH", path)
        .env("ROTAMQ_HTTP__ADDRESS", "off")
        .current_dir(&folder)
        .output()
        .unwrap();
    let log = fs::read_to_string(folder.join("rotamq.log")).unwrap_or_default();
    assert!(output.status.success(), "{output:?}\n{log}");
    let said = String::from_utf8(output.stdout).unwrap();
    for line in ["21.5", "too hot", "Not authorized", "allowed by", "denied"] {
        assert!(said.contains(line), "{line}: {said}");
    }
}
