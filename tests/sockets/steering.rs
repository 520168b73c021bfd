//! Queues seen and steered from outside: `rotamq queue` with the real program,
//! over MQTT and over HTTP, and mosquitto's clients at `$CONTROL/rotamq/v1`.

use std::io::{BufRead, BufReader, Lines};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Output, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::clients::{Version, mosquitto_command};
use crate::process::{Program, output, rotamq, signal};
use crate::wait::until;

/// What it is told to connect to.
fn arguments<'a>(port: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    [&["queue"], arguments, &["-p", port]].concat()
}

/// What `rotamq queue` prints; it succeeds and complains of nothing.
fn queue(program: &Program, given: &[&str]) -> String {
    Way::over_mqtt(program).says(given)
}

fn queue_json(program: &Program, given: &[&str]) -> Value {
    Way::over_mqtt(program).json(given)
}

/// How the broker is asked.
struct Way([String; 2]);

impl Way {
    fn over_mqtt(program: &Program) -> Way {
        Way(["-p".to_owned(), program.address.port().to_string()])
    }

    /// As the folder says.
    fn over_http(data: &str) -> Way {
        Way(["--data".to_owned(), data.to_owned()])
    }

    fn run(&self, given: &[&str]) -> Output {
        let place = self.0.each_ref().map(String::as_str);
        output(&[&["queue"], given, &place].concat())
    }

    /// It succeeds and complains of nothing.
    fn says(&self, given: &[&str]) -> String {
        let output = self.run(given);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{given:?}: {stderr}");
        assert_eq!(stderr, "", "{given:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, given: &[&str]) -> Value {
        let text = self.says(&[given, &["--json"]].concat());
        serde_json::from_str(&text).expect(&text)
    }

    /// The exit code, and the sentence that it complains with.
    fn complaint(&self, given: &[&str]) -> (i32, String) {
        let output = self.run(given);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.starts_with("rotamq: "), "{stderr}");
        (output.status.code().expect("it ended"), stderr)
    }
}

fn publish(program: &Program, topic: &str, messages: std::ops::Range<usize>) {
    let port = program.address.port().to_string();
    for number in messages {
        let number = number.to_string();
        let published = output(&["pub", "-p", &port, "-t", topic, "-q", "1", "-m", &number]);
        assert!(published.status.success());
    }
}

/// What a member gets: so many messages, which it acknowledges.
fn work(program: &Program, name: &str, count: usize) -> Vec<String> {
    let (port, count) = (program.address.port().to_string(), count.to_string());
    let topic = format!("$queue/{name}");
    let got = output(&["sub", "-p", &port, "-t", &topic, "-q", "1", "-C", &count]);
    assert!(got.status.success());
    let text = String::from_utf8(got.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The words of the lines of a table, without its head.
fn rows(table: &str) -> Vec<Vec<&str>> {
    let lines = table.lines().skip(1);
    lines
        .map(|line| line.split_whitespace().collect())
        .collect()
}

fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    if path.exists() {
        std::fs::remove_dir_all(&path).unwrap();
    }
    path
}

#[test]
fn a_queue_is_made_filled_seen_and_emptied() {
    let program = Program::serve(&[]);
    make_fill_see_and_empty(&program, &Way::over_mqtt(&program));
}

#[test]
fn it_is_so_over_http_too() {
    let data = folder("steering_http");
    let data = data.to_str().unwrap();
    let program = Program::serve(&["--data", data, "--http", "127.0.0.1:0"]);
    make_fill_see_and_empty(&program, &Way::over_http(data));
}

fn make_fill_see_and_empty(program: &Program, way: &Way) {
    assert_eq!(rows(&way.says(&["ls"])), [[""; 0]; 0]);
    let filters = r#"filters=["shop/#"]"#;
    let made = way.says(&["create", "orders", "prefetch=2", filters]);
    assert_eq!(made, "The queue \"orders\" is made.\n");
    publish(program, "shop/1", 0..3);
    publish(program, "$queue/jobs/a", 0..1);

    let listed = way.says(&["ls"]);
    let names: Vec<_> = rows(&listed).iter().map(|row| (row[0], row[1])).collect();
    assert_eq!(names, [("jobs/a", "1"), ("orders", "3")]);
    let listed = way.json(&["ls", "ord", "-V", "3.1.1"]);
    let listed = &listed["items"];
    assert_eq!(listed[0]["name"], "orders");
    assert_eq!((&listed[0]["ready"], &listed[1]), (&json!(3), &Value::Null));

    let shown = way.says(&["show", "orders"]);
    for line in [
        "queue:        orders",
        "ready:        3",
        "filters:      shop/#",
        "  prefetch = 2",
    ] {
        assert!(shown.lines().any(|other| other == line), "{shown}");
    }
    assert!(!shown.contains("ack_timeout_ms"), "{shown}");
    assert!(
        way.says(&["show", "orders", "--all"])
            .contains("ack_timeout_ms = 60000")
    );

    let peeked = way.says(&["peek", "orders", "-n", "2"]);
    let payloads: Vec<_> = rows(&peeked).iter().map(|row| row[row.len() - 1]).collect();
    assert_eq!(payloads, ["0", "1"]);
    let id = rows(&peeked)[0][0].to_owned();
    let traced = way.says(&["trace", "orders", &id]);
    assert!(traced.trim_end().ends_with("stored"), "{traced}");

    assert_eq!(
        way.says(&["pause", "orders"]),
        "The queue \"orders\" gives out nothing more.\n"
    );
    assert!(way.says(&["ls", "orders"]).trim_end().ends_with("paused"));
    way.says(&["resume", "orders"]);
    assert_eq!(work(program, "orders", 1), ["0"]);
    let traced = way.json(&["trace", "orders", &id]);
    let events = traced["events"].as_array().unwrap().iter();
    let whats: Vec<_> = events
        .map(|event| event["what"].as_str().unwrap())
        .collect();
    assert_eq!(whats, ["stored", "delivered", "done"]);

    let purged = way.says(&["purge", "orders"]);
    assert_eq!(
        purged,
        "2 messages are deleted from the queue \"orders\"; 0 are left that no member has.\n"
    );
    let (code, full) = way.complaint(&["delete", "jobs/a"]);
    assert_eq!(code, 1);
    assert!(
        full.contains("1 messages") && full.contains("force"),
        "{full}"
    );
    let deleted = way.says(&["delete", "jobs/a", "--force"]);
    assert!(deleted.contains("is deleted, with 1 messages"), "{deleted}");
    let (code, gone) = way.complaint(&["show", "jobs/a"]);
    assert_eq!(code, 3);
    assert!(gone.contains("there is no queue \"jobs/a\""), "{gone}");
    let (code, wrong) = way.complaint(&["set", "orders", "prefetch=0", "exclusiv=true"]);
    assert_eq!(code, 1);
    assert!(
        wrong.contains("prefetch: must be a whole number from 1 to 65_535, not 0"),
        "{wrong}"
    );
    assert!(wrong.contains("the nearest is queue.exclusive"), "{wrong}");
}

#[test]
fn what_was_set_outlives_the_broker() {
    let data = folder("steering_data");
    let data = data.to_str().unwrap();
    let mut program = Program::serve(&["--data", data]);
    queue(&program, &["create", "q", "prefetch=3"]);
    queue(
        &program,
        &["set", "q", "prefetch=5", "overflow=drop-oldest"],
    );
    queue(&program, &["pause", "q"]);
    program.signal(Signal::TERM);
    assert!(program.wait().success());
    let exported = output(&["store", "export", data]);
    let exported = String::from_utf8(exported.stdout).unwrap();
    let line = exported.lines().find(|line| line.contains("$queue/q"));
    let line: Value = serde_json::from_str(line.expect(&exported)).unwrap();
    assert_eq!(line["paused"], true);
    assert!(
        line["settings"]
            .as_str()
            .unwrap()
            .contains("\"prefetch\":5"),
        "{line}"
    );

    // Also where it was carried to.
    let out = folder("steering_export");
    std::fs::create_dir(&out).unwrap();
    let out = out.join("export.jsonl");
    std::fs::write(&out, &exported).unwrap();
    let imported = folder("steering_imported");
    let imported = imported.to_str().unwrap();
    let import = output(&["store", "import", out.to_str().unwrap(), imported]);
    assert!(import.status.success());
    let program = Program::serve(&["--data", imported]);
    let shown = queue_json(&program, &["show", "q"]);
    assert_eq!(
        shown["given"],
        json!({"prefetch": 5, "overflow": "drop-oldest"})
    );
    assert_eq!(
        (&shown["paused"], &shown["configured"]),
        (&json!(true), &json!("run-time"))
    );
}

/// More than goes into one request.
#[test]
fn many_messages_are_moved_and_redriven() {
    let program = Program::serve(&[]);
    let port = program.address.port().to_string();
    let repeat = ["--repeat", "2500"];
    let publish = ["pub", "-p", &port, "-t", "$queue/$dead/a"];
    // Nobody but the broker puts in there.
    assert!(
        !output(&[&publish[..], &["-m", "x", "-q", "1"]].concat())
            .status
            .success()
    );
    let publish = ["pub", "-p", &port, "-t", "$queue/a", "-m", "x", "-q", "1"];
    assert!(output(&[&publish[..], &repeat].concat()).status.success());
    let moved = queue(&program, &["move", "a", "b"]);
    assert_eq!(
        moved,
        "2500 messages are moved from \"a\" to \"b\"; 0 are left that no member has.\n"
    );
    let moved = queue_json(&program, &["move", "b", "$dead/a", "-n", "1500"]);
    assert_eq!(
        (&moved["moved"], &moved["left"]),
        (&json!(1500), &json!(1000))
    );
    let listed = queue_json(&program, &["ls", "a"]);
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    assert_eq!(queue_json(&program, &["show", "a"])["dead"], 1500);
    let redriven = queue_json(&program, &["redrive", "a", "--rate", "100000"]);
    assert_eq!(
        (&redriven["goes_on"], &redriven["left"]),
        (&json!(true), &json!(1500))
    );
    until("all are back", || {
        queue_json(&program, &["show", "a"])["ready"] == 1500
    });
    let one = queue_json(&program, &["peek", "b", "-n", "1"])["messages"][0]["id"].clone();
    let one = one.as_str().unwrap();
    let moved = queue_json(&program, &["move", "b", "c", "-m", one]);
    assert_eq!(moved["moved"], 1);
    // It is not there any more, and that is told.
    let port = program.address.port().to_string();
    let again = output(&arguments(&port, &["move", "b", "c", "-m", one]));
    assert_eq!(again.status.code(), Some(1));
    let text = String::from_utf8(again.stdout).unwrap();
    assert!(
        text.contains(&format!("Not there, or with a member: {one}.")),
        "{text}"
    );
}

/// A command that goes on until it is told to stop.
struct Following(Child, Lines<BufReader<ChildStdout>>);

impl Following {
    fn start(program: &Program, given: &[&str]) -> Following {
        let port = program.address.port().to_string();
        let mut child = rotamq(&arguments(&port, given))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Following(child, lines)
    }

    fn line(&mut self) -> String {
        self.1.next().expect("it goes on").unwrap()
    }

    fn stop(mut self) {
        signal(&self.0, Signal::INT);
        assert!(self.0.wait().unwrap().success());
    }
}

#[test]
fn what_happens_is_followed_until_it_is_told_to_stop() {
    let program = Program::serve(&[]);
    publish(&program, "$queue/q", 0..1);
    let mut tail = Following::start(&program, &["tail", "q", "--follow"]);
    assert!(tail.line().ends_with("  stored"));
    assert_eq!(work(&program, "q", 1), ["0"]);
    assert!(tail.line().contains("  delivered to rotamq-"));
    assert!(tail.line().ends_with("  done"));
    tail.stop();
    let mut ls = Following::start(&program, &["ls", "--watch", "--interval", "0.01"]);
    for _ in 0..3 {
        assert!(ls.line().starts_with("QUEUE "));
        assert!(ls.line().starts_with("q "));
        assert_eq!(ls.line(), "");
    }
    ls.stop();
    // Nobody reads it any more.
    let ls = Following::start(&program, &["ls", "--watch", "--interval", "0.01", "--json"]);
    let Following(mut child, lines) = ls;
    drop(lines);
    assert!(child.wait().unwrap().success());
}

#[test]
fn mosquittos_clients_ask_too() {
    let program = Program::serve(&[]);
    let text = |output: std::process::Output| String::from_utf8(output.stdout).unwrap();
    // With a response topic.
    let mut command = mosquitto_command("mosquitto_rr", Version::V5, program.address);
    command.args(["-t", "$CONTROL/rotamq/v1", "-e", "answers/5", "-q", "1"]);
    let request = json!({"op": "create", "queue": "q", "settings": {"prefetch": 1}});
    let answer = text(command.args(["-m", &request.to_string()]).output().unwrap());
    let answer: Value = serde_json::from_str(&answer).expect(&answer);
    assert_eq!(answer["ok"]["given"], json!({"prefetch": 1}));
    // And without properties.
    let mut command = mosquitto_command("mosquitto_rr", Version::V311, program.address);
    command.args(["-t", "$CONTROL/rotamq/v1", "-e", "answers/311", "-q", "1"]);
    let request = json!({"op": "show", "queue": "q", "answer_to": "answers/311"});
    let answer = text(command.args(["-m", &request.to_string()]).output().unwrap());
    let answer: Value = serde_json::from_str(&answer).expect(&answer);
    assert_eq!(answer["ok"]["settings"]["prefetch"], 1);
    // Numbers come to who wants them.
    for version in [Version::V311, Version::V5] {
        let mut command = mosquitto_command("mosquitto_sub", version, program.address);
        command.args(["-t", "$SYS/broker/queues/q/ready", "-C", "1", "-W", "30"]);
        assert_eq!(text(command.output().unwrap()), "0\n");
    }
}

/// A broker that knows nothing of this says nothing; one that is not there is
/// told of.
#[test]
fn a_broker_that_cannot_be_asked_is_told_of() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    let failed = output(&["queue", "ls", "-h", "127.0.0.1", "-p", &port]);
    assert_eq!(failed.status.code(), Some(5));
    let stderr = String::from_utf8(failed.stderr).unwrap();
    assert!(
        stderr.starts_with("rotamq: cannot connect to 127.0.0.1:"),
        "{stderr}"
    );
    let unclear = output(&["queue", "set", "q"]);
    assert_eq!(unclear.status.code(), Some(2));
}

/// README's chapter on a job that fails and comes back, each command of it.
#[test]
fn a_newcomer_sees_a_job_fail_and_come_back() {
    let readme = include_str!("../../README.md");
    let (_, chapter) = (readme.split_once("\n## See a job fail")).expect("it has that chapter");
    let (chapter, _) = chapter.split_once("\n## ").expect("others follow");
    let commands = chapter.lines().filter(|line| line.starts_with("       "));
    let waiting = "until rotamq queue show mail --json | jq_in_flight; do :; done\n";
    let script: String = (commands.map(str::trim))
        .map(|command| match command.starts_with("kill") {
            true => format!("{waiting}{command}\n"),
            false => format!("{command}\n"),
        })
        .collect();
    let data = folder("newcomer");
    let folder = data.join("rotamq-data");
    let (http, data_folder) = ("127.0.0.1:0", folder.to_str().unwrap());
    let program = Program::serve(&["--http", http, "--data", data_folder]);
    let port = program.address.port();
    let script = format!(
        "PATH=\"$(dirname {program}):$PATH\"\n\
         jq_in_flight() {{ grep -Eq '\"in_flight\": ?1\\b'; }}\n{}",
        script
            .replace("rotamq pub", &format!("rotamq pub -p {port}"))
            .replace("rotamq sub", &format!("rotamq sub -p {port}")),
        program = env!("CARGO_BIN_EXE_rotamq"),
    );
    let script = script.replace(
        "rotamq queue ls\n",
        "until rotamq queue ls --json | grep -Eq '\"dead\": ?1\\b'; do :; done\nrotamq queue ls\n",
    );
    let mut command = std::process::Command::new("bash");
    command.args(["-e", "-o", "pipefail", "-c", &script]);
    let output = command.current_dir(&data).output().unwrap();
    assert!(output.status.success(), "{script}\n{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    for line in [
        "delivery:2",
        "$dead/mail",
        "dead: max-deliveries",
        "1 messages are moved",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(said.ends_with("hello, Ann\n"), "{said}");
}
