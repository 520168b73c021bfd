//! The log and the configuration, by HTTP: the last lines, those that come, the
//! level, what holds, and having it read again.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::clients::http::Http;
use crate::clients::{PAHO, PAHO_5, broker_with};
use crate::process::{Program, rotamq};
use crate::wait::until;

/// A broker with a folder, a configuration and an HTTP port, and an admin's token.
struct Logged {
    program: Program,
    http: Http,
    token: String,
    config: PathBuf,
}

fn start(name: &str, text: &str) -> Logged {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("log-{name}"));
    _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let (config, data) = (folder.join("rotamq.toml"), folder.join("data"));
    std::fs::write(&config, text).unwrap();
    let mut command = rotamq(&[
        "--listen",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--config",
    ]);
    command.arg(&config).arg("--data").arg(&data);
    let program = Program::start(&mut command, "listening on ");
    let mut socket = UnixStream::connect(data.join("control.sock")).unwrap();
    socket.write_all(b"{\"command\":\"http\"}\n").unwrap();
    let mut answer = String::new();
    BufReader::new(socket).read_line(&mut answer).unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let address = answer["http"]["address"].as_str().expect("there is a port");
    let address = address.trim_start_matches("http://").parse().unwrap();
    let token = answer["http"]["token"].as_str().unwrap().to_owned();
    Logged {
        program,
        http: Http::new(address).with_token(&token),
        token,
        config,
    }
}

fn items(listed: &Value) -> &[Value] {
    listed["items"].as_array().expect("a list")
}

/// Of a list, the messages that begin so.
fn messages<'v>(listed: &'v Value, begin: &str) -> Vec<&'v str> {
    let messages = items(listed)
        .iter()
        .map(|line| line["message"].as_str().unwrap());
    messages
        .filter(|message| message.starts_with(begin))
        .collect()
}

#[test]
fn the_last_lines_are_listed_and_the_next_ones_come() {
    let broker = start("lines", "log.kept_lines = 50\n");
    let log = || broker.http.get("/api/v1/log").ok();
    until("it has said all that it says at its start", || {
        !messages(&log(), "nobody can log in").is_empty()
    });
    let all = log();
    assert_eq!(messages(&all, "listening on").len(), 1, "{all}");
    let line = &items(&all)[0];
    assert_eq!(line["number"], 1);
    assert!(line["at_ms"].as_u64().unwrap() > 1_700_000_000_000 && line["fields"].is_object());
    // Page after page.
    let first = broker.http.get("/api/v1/log?limit=1").ok();
    let next = first["next"].as_str().expect("there is more");
    let second = broker
        .http
        .get(&format!("/api/v1/log?limit=1&after={next}"))
        .ok();
    assert_eq!(
        [&items(&first)[0], &items(&second)[0]],
        [&items(&all)[0], &items(&all)[1]]
    );
    let severe = broker.http.get("/api/v1/log?level=error").ok();
    assert_eq!(severe, json!({"items": [], "next": null}));
    broker.http.get("/api/v1/log?after=x").problem(400);
    // The last ones, and those with a text.
    let last = broker.http.get("/api/v1/log?last=1").ok();
    assert_eq!(
        (items(&last), &last["next"]),
        (
            items(&all).last_chunk::<1>().unwrap().as_slice(),
            &Value::Null
        )
    );
    let found = broker.http.get("/api/v1/log?last=9&text=LISTENING").ok();
    assert_eq!(messages(&found, "listening on").len(), items(&found).len());
    for wrong in ["last=0", "last=1001", "last=1&limit=1", "last=1&after=1"] {
        broker
            .http
            .get(&format!("/api/v1/log?{wrong}"))
            .problem(400);
    }

    let mut stream = TcpStream::connect(broker.http.address).unwrap();
    let request = format!(
        "GET /api/v1/log/events?level=info HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
        broker.token
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut events = BufReader::new(stream).lines().map(Result::unwrap);
    let mut comes = |text: &str| events.find(|line| line.contains(text)).expect("it comes");
    comes("event: line");
    comes("listening on");
    for peer in [PAHO, PAHO_5] {
        let id = format!("{peer:?}");
        peer.connect(broker.program.address, &id).kill();
        let mut raw = crate::raw::Raw::open(broker.program.address);
        raw.send(&crate::raw::connect(
            crate::clients::Version::V311,
            &id,
            true,
            0,
        ));
        raw.packet();
        raw.send(&[0xF0, 0]);
        let line = comes("\"closed\"");
        assert!(line.contains(&id), "{line}");
    }
}

/// Numbers begin anew with each process: who had more lines of another one is sent
/// all that there are.
#[test]
fn who_followed_the_log_of_an_earlier_process_goes_on() {
    let broker = start("earlier", "");
    let mut stream = TcpStream::connect(broker.http.address).unwrap();
    let request = format!(
        "GET /api/v1/log/events HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 99999\r\n\
         Authorization: Bearer {}\r\n\r\n",
        broker.token
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut events = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(events.any(|line| line.contains("listening on")));
}

#[test]
fn the_level_is_another_one_for_a_while() {
    let mut broker = start("level", "");
    let level = || broker.http.get("/api/v1/log/level").ok();
    assert_eq!(level(), json!({"level": "info", "usual": "info"}));
    let set = |body: Value| broker.http.put("/api/v1/log/level", &body);
    for wrong in [
        json!({"level": "loud"}),
        json!({"level": "debug", "fro_secs": 1}),
    ] {
        set(wrong).problem(422);
    }
    set(json!({"level": "debug", "for_secs": 0})).problem(400);
    let while_ = set(json!({"level": "debug", "for_secs": 1})).ok();
    assert_eq!(
        (&while_["level"], &while_["usual"]),
        (&json!("debug"), &json!("info"))
    );
    assert!(while_["until_ms"].is_u64());
    until("the usual level holds again", || level()["level"] == "info");
    assert_eq!(
        set(json!({"level": "debug"})).ok(),
        json!({"level": "debug", "usual": "debug"})
    );
    PAHO.publish(broker.program.address, "t", "m", 0, false);
    broker.program.line("DEBUG");
}

#[test]
fn the_configuration_is_shown_and_read_again() {
    let broker = start("config", "[limits]\ninflight_max = 7\n");
    let setting = |key: &str| {
        let shown = broker.http.get("/api/v1/config?limit=1000").ok();
        let mut items = items(&shown).iter();
        items.find(|item| item["key"] == key).expect(key).clone()
    };
    let path = broker.config.display().to_string();
    let shown = setting("limits.inflight_max");
    let expected = json!({"key": "limits.inflight_max", "value": 7, "origin": format!("{path}:2")});
    assert_eq!(shown, expected);
    assert_eq!(setting("listener[0].address")["origin"], "--listen");
    // A page at a time, and by key.
    let all = broker.http.get("/api/v1/config?limit=1000").ok();
    assert_eq!(all["next"], Value::Null);
    let first = broker.http.get("/api/v1/config?limit=1").ok();
    let next = first["next"].as_str().expect("there is more");
    let second = format!("/api/v1/config?limit=1&after={next}");
    let second = broker.http.get(&second).ok();
    let both = [&items(&first)[0], &items(&second)[0]];
    assert_eq!(both, [&items(&all)[0], &items(&all)[1]]);
    let found = broker.http.get("/api/v1/config?key=inflight").ok();
    assert_eq!(
        (items(&found), &found["next"]),
        (&[shown.clone()][..], &Value::Null)
    );
    broker.http.get("/api/v1/config?after=nothing").problem(400);

    let reload = || broker.http.post("/api/v1/reload", &Value::Null);
    std::fs::write(&broker.config, "[limits]\ninflight_max = 0\n").unwrap();
    let answer = reload();
    answer.problem(409);
    let errors = answer.json()["errors"].clone();
    let error = errors[0].as_str().expect("one");
    assert!(
        error.starts_with(&format!("{path}:2: limits.inflight_max: must be")),
        "{error}"
    );
    assert_eq!(setting("limits.inflight_max"), shown);

    std::fs::write(&broker.config, "threads = 9\n[limits]\ninflight_max = 8\n").unwrap();
    let expected = json!({
        "changed": [{"key": "limits.inflight_max", "before": 7, "after": 8}],
        "needs_restart": [{"key": "threads", "before": 0, "after": 9}],
    });
    assert_eq!(reload().ok(), expected);
    assert_eq!(setting("limits.inflight_max")["value"], 8);
    assert_eq!(setting("threads")["value"], 0);
}

/// The log is then the other program's.
#[test]
fn a_broker_within_another_program_has_no_log_of_its_own() {
    let broker = broker_with(|config| config.http.address = "127.0.0.1:0".parse().ok());
    let http = Http::of(&broker);
    let why = http.get("/api/v1/log").problem(404);
    assert!(why.contains("within another program"), "{why}");
    assert_eq!(
        http.post("/api/v1/reload", &Value::Null).ok()["changed"],
        json!([])
    );
    // `/ready` says so as soon as it stops; then nobody answers.
    assert_eq!(http.get("/ready").status, 200);
    broker.stop();
}
