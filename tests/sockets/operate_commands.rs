//! The commands that look at a running broker and steer it, with the real
//! program, over its HTTP port.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::clients::{Version, mosquitto_command};
use crate::process::{Killed, Program, free_port, rotamq, signal};
use crate::wait::until;

/// A broker with an HTTP port, and a folder that says where that is.
struct Broker {
    program: Program,
    data: PathBuf,
}

impl Broker {
    fn start(name: &str, more: &[&str]) -> Broker {
        let data = folder(name);
        let mut arguments = vec!["--data", text(&data), "--http", "127.0.0.1:0"];
        arguments.extend(more);
        Broker {
            program: Program::serve(&arguments),
            data,
        }
    }

    /// A command that finds the broker by its folder.
    fn command(&self, given: &[&str]) -> Command {
        rotamq(&[given, &["--data", text(&self.data)]].concat())
    }

    fn run(&self, given: &[&str]) -> Done {
        Done::of(self.command(given).output().unwrap())
    }

    /// What it prints; it succeeds and complains of nothing.
    fn says(&self, given: &[&str]) -> String {
        let done = self.run(given);
        assert_eq!((done.code, &*done.stderr), (0, ""), "{given:?}");
        done.stdout
    }

    fn json(&self, given: &[&str]) -> Value {
        let text = self.says(&[given, &["--json"]].concat());
        serde_json::from_str(&text).expect(&text)
    }

    /// Where its HTTP port is.
    fn url(&self) -> String {
        let mut socket = UnixStream::connect(self.data.join("control.sock")).unwrap();
        socket.write_all(b"{\"command\":\"http\"}\n").unwrap();
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).expect(&line);
        answer["http"]["address"].as_str().expect(&line).to_owned()
    }

    /// A client of mosquitto's that stays, with one subscription.
    fn client(&self, id: &str, filter: &str) -> Killed {
        let address = self.program.address;
        let mut command = mosquitto_command("mosquitto_sub", Version::V5, address);
        command.args(["-i", id, "-t", filter, "-q", "1"]);
        let client = Killed(command.stdout(Stdio::null()).spawn().unwrap());
        let of_it = ["subscriptions", "--client", id, "--json"];
        until("it subscribes", || {
            // Until it has connected no such client is known.
            let listed: Value = serde_json::from_str(&self.run(&of_it).stdout).unwrap_or_default();
            listed["items"]
                .as_array()
                .is_some_and(|all| !all.is_empty())
        });
        client
    }

    fn publish(&self, arguments: &[&str]) {
        let address = self.program.address;
        let mut command = mosquitto_command("mosquitto_pub", Version::V5, address);
        assert!(command.args(arguments).status().unwrap().success());
    }
}

/// How a command ended.
struct Done {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Done {
    fn of(output: Output) -> Done {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Done {
            code: output.status.code().expect("it was not killed"),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// A folder of this test run in which nothing is.
fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    if path.exists() {
        std::fs::remove_dir_all(&path).unwrap();
    }
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The first words of the lines of a table, without its head.
fn firsts(table: &str) -> Vec<&str> {
    let lines = table.lines().skip(1);
    lines
        .filter_map(|line| line.split_whitespace().next())
        .collect()
}

/// A command with a first line of standard input.
fn with_stdin(mut command: Command, line: &str) -> Done {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().expect("it is piped");
    writeln!(stdin, "{line}").unwrap();
    drop(stdin);
    Done::of(child.wait_with_output().unwrap())
}

/// A command that goes on; its lines.
fn following(mut command: Command) -> (Child, impl Iterator<Item = String>) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    (child, lines.map(|line| line.expect("it is text")))
}

fn stop(mut child: Child) {
    signal(&child, Signal::INT);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_broker_is_found_by_its_folder_or_by_its_address() {
    let broker = Broker::start("commands_found", &[]);
    let status = broker.says(&["status"]);
    assert!(status.contains("\nready for clients\n"), "{status}");
    let address = broker.program.address.to_string();
    assert!(status.contains(&address), "{status}");
    let status = broker.json(&["status"]);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&status["ready"], &status["queues_in_need"]),
        (&json!(true), &json!([]))
    );

    // With an address nobody is known but by a token.
    let url = broker.url();
    let nobody = Done::of(rotamq(&["status", "--http", &url]).output().unwrap());
    assert_eq!(nobody.code, 4, "{}", nobody.stderr);
    assert!(nobody.stderr.contains("--token-file"), "{}", nobody.stderr);
    let token = broker.says(&["http", "token", "create", "ci", "--role", "viewer"]);
    let token = token.trim_end();
    let mut from_variables = rotamq(&["status", "--json"]);
    from_variables
        .env("ROTAMQ_HTTP", &url)
        .env("ROTAMQ_HTTP_TOKEN", token);
    let seen = Done::of(from_variables.output().unwrap());
    assert_eq!(seen.code, 0, "{}", seen.stderr);
    let file = crate::process::file("commands_found_token", token);
    let by_file = ["--http", &url, "--token-file", text(&file)];
    let run = |given: &[&str]| Done::of(rotamq(&[given, &by_file].concat()).output().unwrap());
    assert_eq!(run(&["status"]).code, 0);
    // A viewer looks only.
    let denied = run(&["queue", "create", "q"]);
    assert_eq!(denied.code, 4, "{}", denied.stderr);
    assert!(denied.stderr.contains("operator"), "{}", denied.stderr);
    // And not for ever.
    let tokens = broker.json(&["http", "token", "list"]);
    assert_eq!(tokens["items"][0]["name"], "ci");
    let id = tokens["items"][0]["id"].as_str().unwrap();
    broker.says(&["http", "token", "revoke", id]);
    assert_eq!(run(&["status"]).code, 4);
}

#[test]
fn scripts_can_tell_failures_apart() {
    let broker = Broker::start("commands_codes", &[]);
    let missing = broker.run(&["queue", "show", "none"]);
    assert_eq!(missing.code, 3, "{}", missing.stderr);
    assert!(
        missing
            .stderr
            .starts_with("rotamq: there is no queue \"none\"")
    );
    let both = broker.run(&["queue", "ls", "-p", "1883"]);
    assert_eq!(both.code, 2, "{}", both.stderr);
    assert_eq!(broker.run(&["status", "--no-such-option"]).code, 2);
    let port = free_port();
    let nobody = format!("http://127.0.0.1:{port}");
    let nobody = Done::of(rotamq(&["status", "--http", &nobody]).output().unwrap());
    assert_eq!(nobody.code, 5, "{}", nobody.stderr);
    let nowhere = folder("commands_nowhere");
    let nowhere = rotamq(&["status", "--data", text(&nowhere)]).output();
    let nowhere = Done::of(nowhere.unwrap());
    assert_eq!(nowhere.code, 5, "{}", nowhere.stderr);
    assert!(
        nowhere.stderr.contains("no broker runs on"),
        "{}",
        nowhere.stderr
    );
    // What listens there is no HTTP port, but speaks MQTT.
    let mqtt = format!("http://{}", broker.program.address);
    let mqtt = Done::of(rotamq(&["status", "--http", &mqtt]).output().unwrap());
    assert!([1, 5].contains(&mqtt.code), "{}", mqtt.stderr);

    let data = folder("commands_without_http");
    let _program = Program::serve(&["--data", text(&data), "--http", "off"]);
    let off = rotamq(&["status", "--data", text(&data)]).output().unwrap();
    let off = Done::of(off);
    assert_eq!(off.code, 5, "{}", off.stderr);
    assert!(off.stderr.contains("has no HTTP port"), "{}", off.stderr);
}

#[test]
fn a_queue_that_needs_a_look_is_shown_at_a_glance() {
    let broker = Broker::start("commands_glance", &[]);
    broker.publish(&["-t", "$queue/jobs", "-q", "1", "-m", "x"]);
    let status = broker.json(&["status"]);
    let queue = &status["queues_in_need"][0];
    assert_eq!(
        (&queue["name"], &queue["why"]),
        (&json!("jobs"), &json!(["no members"]))
    );
    let watch = ["status", "--watch", "--interval", "0.01"];
    let (child, mut lines) = following(broker.command(&watch));
    for _ in 0..2 {
        assert!(lines.any(|line| line.starts_with("jobs ")));
    }
    stop(child);
}

#[test]
fn users_of_the_http_port_come_and_go() {
    let broker = Broker::start("commands_users", &[]);
    let add = ["http", "user", "add", "ann", "--role", "operator"];
    let added = with_stdin(broker.command(&add), "correct horse");
    assert_eq!(
        (added.code, &*added.stdout),
        (0, "ann: added.\n"),
        "{}",
        added.stderr
    );
    let again = with_stdin(broker.command(&add), "correct horse");
    assert_eq!(again.code, 1, "{}", again.stderr);
    let change = ["http", "user", "password", "ann"];
    let changed = with_stdin(broker.command(&change), "battery staple");
    assert_eq!(changed.code, 0, "{}", changed.stderr);
    broker.says(&["http", "user", "role", "ann", "viewer"]);
    let users = broker.says(&["http", "user", "list"]);
    assert_eq!(users, "USER  ROLE\nann   viewer\n");
    broker.says(&["http", "user", "remove", "ann"]);
    assert_eq!(broker.run(&["http", "user", "remove", "ann"]).code, 3);
}

#[test]
fn clients_sessions_and_subscriptions_are_seen_and_ended() {
    let broker = Broker::start("commands_clients", &[]);
    let _one = broker.client("one", "room/+");
    let mut two = broker.client("two", "room/2");
    let clients = broker.says(&["clients", "list"]);
    assert_eq!(firsts(&clients), ["one", "two"], "{clients}");
    let first = broker.says(&["clients", "list", "--limit", "1"]);
    assert!(first.ends_with("There are more: ask for them with a higher --limit, or without.\n"));
    let shown = broker.json(&["clients", "show", "one"]);
    assert_eq!(
        (&shown["client"], &shown["connected"]),
        (&json!("one"), &json!(true))
    );
    assert!(
        broker
            .says(&["clients", "show", "one"])
            .starts_with("client: ")
    );
    assert_eq!(broker.run(&["clients", "show", "none"]).code, 3);

    let matching = broker.says(&["subscriptions", "--topic", "room/1"]);
    assert_eq!(firsts(&matching), ["one"], "{matching}");
    let sessions = broker.says(&["sessions", "list", "--connected"]);
    assert_eq!(firsts(&sessions), ["one", "two"], "{sessions}");
    assert_eq!(
        firsts(&broker.says(&["sessions", "list", "--away"])),
        [""; 0]
    );

    broker.says(&["clients", "disconnect", "two"]);
    until("it is told", || two.0.try_wait().unwrap().is_some());
    broker.says(&["sessions", "show", "one"]);
    broker.says(&["sessions", "end", "one"]);
    assert_eq!(broker.run(&["sessions", "end", "nobody"]).code, 3);
}

#[test]
fn retained_messages_are_seen_and_deleted() {
    let broker = Broker::start("commands_retained", &[]);
    for (topic, payload) in [("a/1", "one"), ("a/2", "two"), ("b", "x\u{1b}[2J")] {
        broker.publish(&["-t", topic, "-q", "1", "-r", "-m", payload]);
    }
    assert_eq!(
        firsts(&broker.says(&["retained", "list"])),
        ["a/1", "a/2", "b"]
    );
    assert_eq!(
        firsts(&broker.says(&["retained", "list", "a/+"])),
        ["a/1", "a/2"]
    );
    let shown = broker.says(&["retained", "show", "b"]);
    // What a terminal would obey is not shown as text.
    assert!(
        shown.contains("eBtbMko=") && !shown.contains('\u{1b}'),
        "{shown}"
    );
    let with_payload = broker.says(&["retained", "list", "a/1", "--payload", "2"]);
    assert!(with_payload.trim_end().ends_with("on"), "{with_payload}");
    broker.says(&["retained", "delete", "a/1"]);
    assert_eq!(broker.run(&["retained", "show", "a/1"]).code, 3);
    let deleted = broker.json(&["retained", "delete", "--filter", "#"]);
    assert_eq!(deleted, json!({ "deleted": 2 }));
    assert_eq!(broker.json(&["status"])["retained"]["messages"], 0);
}

/// A trace that has begun, which it says on standard error.
fn trace(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.as_mut().expect("it is piped"));
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("Ctrl-C ends it"), "{line}");
    child
}

#[test]
fn packets_are_traced_as_they_come() {
    let broker = Broker::start("commands_trace", &[]);
    let _client = broker.client("one", "room/#");
    let all = ["trace", "--topic", "room/#", "--payload", "3"];
    let mut child = trace(broker.command(&all));
    broker.publish(&["-i", "p", "-t", "room/1", "-q", "0", "-m", "hello"]);
    let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut lines = stdout.lines().map(|line| line.expect("it is text"));
    let line = lines.find(|line| line.contains(" one out  PUBLISH"));
    let line = line.expect("it goes out");
    assert!(line.ends_with("room/1, QoS 0, 5 B: hel"), "{line}");
    stop(child);

    // Into a file, within bounds.
    let path = folder("commands_trace_file").with_extension("ndjson");
    let bounded = ["trace", "--client", "one", "-n", "1", "-o", text(&path)];
    let mut child = trace(broker.command(&bounded));
    broker.publish(&["-t", "room/1", "-q", "0", "-m", "hello"]);
    broker.publish(&["-t", "room/1", "-q", "0", "-m", "hello"]);
    assert!(child.wait().unwrap().success());
    let packets = std::fs::read_to_string(path).unwrap();
    let packet: Value = serde_json::from_str(&packets).expect(&packets);
    assert_eq!(packet["packet"], "PUBLISH");
    assert_eq!(broker.run(&["trace"]).code, 2);
}

#[test]
fn the_log_is_shown_and_its_level_changed() {
    let broker = Broker::start("commands_log", &[]);
    let log = broker.says(&["log"]);
    assert!(log.contains(" INFO listening on "), "{log}");
    assert!(broker.json(&["log", "level"])["level"] == "info");
    let changed = broker.json(&["log", "level", "debug", "--for", "10m"]);
    assert_eq!(changed["level"], "debug");
    let follow = ["log", "--follow", "--level", "debug", "-n", "1000"];
    let (child, mut lines) = following(broker.command(&follow));
    assert!(lines.any(|line| line.contains(" INFO listening on ")));
    broker.publish(&["-i", "somebody", "-t", "t", "-m", "x"]);
    assert!(lines.any(|line| line.contains("DEBUG") && line.contains("somebody")));
    stop(child);
    assert_eq!(broker.run(&["log", "level", "loud"]).code, 2);
}

/// For scripts: what comes and what has come of it, whatever is in it.
#[test]
fn messages_and_their_outcomes_are_told_as_json() {
    let program = Program::serve(&[]);
    let port = program.address.port().to_string();
    let ask = |words: &[&str]| {
        let (name, rest) = words.split_first().expect("a command");
        let to = [&[*name, "-V", "5", "-h", "127.0.0.1", "-p", &port], rest].concat();
        let done = Done::of(rotamq(&to).output().unwrap());
        assert_eq!((done.code, &*done.stderr), (0, ""), "{words:?}");
        let objects = done
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).expect(line));
        objects.collect::<Vec<Value>>()
    };
    let kept = ["-t", "kept", "-r", "-D", "publish", "content-type", "a/b"];
    let told = ask(&[&["pub", "-m", "a \"text\"\n", "--json"][..], &kept].concat());
    let unknown = json!({ "qos": 0, "reason_code": null, "reason": null });
    assert_eq!(told, [unknown]);
    let seen = ask(&["sub", "-t", "kept", "-q", "1", "-C", "1", "--json"]);
    let expected = json!({
        "topic": "kept", "payload": "a \"text\"\n", "qos": 0, "retain": true, "packet_id": null,
        "properties": [{ "name": "content-type", "value": "a/b" }],
    });
    assert_eq!(seen, [expected]);
    for qos in ["1", "2"] {
        let told = ask(&["pub", "-t", "$queue/jobs", "-q", qos, "-m", "x", "--json"]);
        assert_eq!(told[0]["reason_code"], 0, "{told:?}");
        assert!(told[0]["message_id"].is_string(), "{told:?}");
    }
    let refused = ["pub", "-V", "5", "-h", "127.0.0.1", "-p", &port];
    let refused = [
        &refused[..],
        &["-t", "$SYS/x", "-q", "1", "-m", "x", "--json"],
    ]
    .concat();
    let done = Done::of(rotamq(&refused).output().unwrap());
    let told: Value = serde_json::from_str(&done.stdout).expect(&done.stdout);
    assert_eq!(
        (done.code != 0, &told["reason"]),
        (true, &json!("not-authorized"))
    );
}

#[test]
fn a_broker_elsewhere_reads_its_configuration_again() {
    let broker = Broker::start("commands_reload", &[]);
    let create = ["http", "token", "create", "there", "--role"];
    let token = |role: &str| {
        let made = broker.json(&[&create[..], &[role]].concat());
        made["token"].as_str().expect("a token").to_owned()
    };
    let url = broker.url();
    let reload = |token: &str| {
        let arguments = ["reload", "--http", &url, "--token", token, "--json"];
        Done::of(rotamq(&arguments).output().unwrap())
    };
    let done = reload(&token("admin"));
    assert_eq!(done.code, 0, "{}", done.stderr);
    let told: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(told, json!({ "changed": [], "needs_restart": [] }));
    assert_ne!(reload("no token").code, 0);
    assert!(broker.says(&["reload"]).contains("No option has changed"));
}

#[test]
fn who_is_banned_is_kept_out_until_it_is_not() {
    let broker = Broker::start("commands_ban", &[]);
    broker.says(&["ban", "add", "--client", "bad", "--for", "10m"]);
    let listed = broker.json(&["ban", "list"]);
    assert_eq!(listed["items"][0]["client"], "bad");
    let address = broker.program.address;
    let connects = || {
        let mut command = mosquitto_command("mosquitto_pub", Version::V5, address);
        let command = command.args(["-i", "bad", "-t", "t", "-m", "x"]);
        command.stderr(Stdio::null()).status().unwrap().success()
    };
    assert!(!connects());
    broker.says(&["ban", "remove", "--client", "bad"]);
    assert!(connects());
    assert_eq!(broker.json(&["ban", "list"])["items"], json!([]));
}

/// What bash offers behind these words.
fn completed(words: &[&str]) -> String {
    let program = env!("CARGO_BIN_EXE_rotamq");
    let script = format!(
        "source <({program} completions bash); COMP_WORDS=(rotamq {}); \
         COMP_CWORD={}; _rotamq rotamq \"${{COMP_WORDS[COMP_CWORD]}}\" \
         \"${{COMP_WORDS[COMP_CWORD-1]}}\"; echo \"${{COMPREPLY[*]}}\"",
        words.join(" "),
        words.len()
    );
    let done = Command::new("bash").args(["-c", &script]).output().unwrap();
    let done = Done::of(done);
    assert_eq!(done.code, 0, "{}", done.stderr);
    done.stdout.trim_end().to_owned()
}

#[test]
fn a_shell_completes_commands_and_options() {
    assert_eq!(completed(&["stat"]), "status");
    assert_eq!(completed(&["queue", "pa"]), "pause");
    assert_eq!(completed(&["status", "--wa"]), "--watch");
    assert_eq!(completed(&["log", "level", "de"]), "debug");
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let done = rotamq(&["completions", shell]).output().unwrap();
        assert!(done.status.success() && done.stdout.len() > 1000, "{shell}");
    }
}

/// Every page is formatted without a warning, and has what it should.
#[test]
fn every_command_has_a_page_of_the_manual() {
    let pages = folder("commands_man");
    let written = rotamq(&["man", text(&pages)]).output().unwrap();
    assert!(written.status.success());
    let mut count = 0;
    for entry in std::fs::read_dir(&pages).unwrap() {
        let path = entry.unwrap().path();
        let mut groff = Command::new("groff");
        let arguments = ["-Kutf8", "-man", "-ww", "-Tutf8", "-P-cbou"];
        groff.args(arguments).arg(&path);
        let done = Done::of(groff.output().expect("groff is installed: use tests/run"));
        assert_eq!((done.code, &*done.stderr), (0, ""), "{}", path.display());
        for section in ["NAME", "SYNOPSIS", "EXIT STATUS"] {
            let has_it = done.stdout.lines().any(|line| line == section);
            assert!(has_it, "{}: {section}\n{}", path.display(), done.stdout);
        }
        count += 1;
    }
    assert!(count > 40, "{count}");
    let page = std::fs::read_to_string(pages.join("rotamq-queue-peek.1")).unwrap();
    assert!(page.contains("rotamq queue peek"), "{page}");
    let printed = rotamq(&["man"]).output().unwrap();
    let top = std::fs::read(pages.join("rotamq.1")).unwrap();
    assert_eq!(printed.stdout, top);
}
