//! A service of the operator's that is asked who clients are, and one that
//! publishes keys: Python's HTTP server on their side, and on the clients' paho
//! and mosquitto's.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::certificates::{Authority, Files};
use crate::clients::{Options, PAHO, PAHO_5, PAHO_31};
use crate::process::{Program, file, output};
use crate::raw::Raw;
use crate::tokens::{by_auth, connect, now, token, url};
use crate::wait::{DEADLINE, until};

/// `service.py`.
struct Service {
    process: Child,
    commands: ChildStdin,
    told: Receiver<Value>,
    port: u16,
    // Requests that nobody has looked at.
    requests: Vec<Value>,
}

impl Service {
    fn start(port: u16, tls: Option<&Files>) -> Service {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sockets/service.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(port.to_string());
        if let Some(files) = tls {
            command.args([&files.certificate, &files.key]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let commands = process.stdin.take().expect("it is piped");
        let stdout = BufReader::new(process.stdout.take().expect("it is piped"));
        let (sender, told) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines() {
                let Ok(line) = line else { return };
                _ = sender.send(serde_json::from_str(&line).expect("it tells JSON"));
            }
        });
        let mut service = Service {
            process,
            commands,
            told,
            port: 0,
            requests: Vec::new(),
        };
        let line = service.next("port");
        service.port = line["port"].as_u64().expect("it is a port") as u16;
        service
    }

    /// What it tells next that has this key; requests before it are kept.
    fn next(&mut self, key: &str) -> Value {
        loop {
            let line = self
                .told
                .recv_timeout(DEADLINE)
                .expect("it tells something");
            if line.get(key).is_some() {
                return line;
            }
            self.requests.push(line);
        }
    }

    /// What it says from now on.
    fn say(&mut self, said: Value) {
        writeln!(self.commands, "{said}").unwrap();
        self.next("taken");
    }

    /// Of that user, or of all: an answer in JSON.
    fn knows(&mut self, user: Option<&str>, body: Value) {
        let body = body.to_string();
        self.say(json!({"path": "/mqtt", "user": user, "status": 200, "body": body}));
    }

    fn publishes(&mut self, keys: &[Value]) {
        let body = json!({ "keys": keys }).to_string();
        self.say(json!({"path": "/keys.json", "status": 200, "body": body}));
    }

    /// Requests since this was called last.
    fn requests(&mut self) -> Vec<Value> {
        // It tells of a request before it answers.
        self.say(json!({"path": "/nowhere", "status": 404}));
        std::mem::take(&mut self.requests)
    }

    fn kill(mut self) -> u16 {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.port
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.process.kill().unwrap();
            self.process.wait().unwrap();
        }
    }
}

/// A broker that asks it, with more of `[authentication]`.
fn serve(name: &str, service: &Service, scheme: &str, more: &str) -> Program {
    let port = service.port;
    let config = file(
        &format!("{name}.toml"),
        &format!(
            "[authentication]\nfailures_per_address_max = 0\n\
             http_address = '{scheme}://127.0.0.1:{port}/mqtt'\n{more}\n[log]\nlevel = 'trace'\n"
        ),
    );
    Program::serve(&["--config", config.to_str().unwrap()])
}

fn of(program: &Program, id: &str, user: &str, password: &str) -> Options {
    let mut options = Options::clean(program.address, id);
    options.user = Some((user.to_owned(), password.to_owned()));
    options
}

/// Whether mosquitto_pub is let in.
fn is_let_in(program: &Program, user: &str, password: &str) -> bool {
    let port = program.address.port().to_string();
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-p", &port, "-i", "c", "-V", "mqttv5"]);
    command.args(["-t", "t", "-m", "m", "-u", user, "-P", password]);
    command.output().unwrap().status.success()
}

/// Yes, no, and the next one: whom a file knows the service is not asked for.
#[test]
fn paho_clients_get_in_as_the_service_says() {
    let mut service = Service::start(0, None);
    let users = file(
        "service.passwd",
        include_str!("../fixtures/mosquitto_passwd"),
    );
    let headers = file("service.headers", "Authorization: Bearer canary\n");
    let more = format!("password_file = {users:?}\nhttp_headers_file = {headers:?}");
    let mut program = serve("service", &service, "http", &more);
    service.knows(
        Some("eve"),
        json!({"result": "allow", "user": "eve-of-home"}),
    );
    service.knows(Some("mallory"), json!({"result": "deny"}));
    service.knows(None, json!({"result": "ignore"}));
    for peer in [PAHO_31, PAHO, PAHO_5] {
        for (user, password, is_asked, reason) in [
            ("ann", "ann's secret", false, None),
            ("eve", "canary", true, None),
            ("mallory", "canary", true, Some(0x86)),
            ("nobody", "canary", true, Some(0x86)),
        ] {
            let options = of(&program, "c", user, password);
            match reason {
                None => peer.open(options).disconnect(),
                Some(_) => assert_eq!(peer.refused(&options).reason, reason, "{user}"),
            }
            let requests = service.requests();
            assert_eq!(
                requests.len(),
                usize::from(is_asked),
                "{user}: {requests:?}"
            );
            for request in requests {
                assert_eq!(request["headers"]["authorization"], "Bearer canary");
                let asked = &request["asked"];
                assert_eq!(
                    (&asked["client_id"], &asked["user"]),
                    (&json!("c"), &json!(user))
                );
                assert_eq!(asked["password"], password);
                assert_eq!(asked["address"], "127.0.0.1");
            }
        }
    }
    program.signal(Signal::TERM);
    assert!(program.wait().success());
    // L07: what is secret crosses to the service, and is nowhere else.
    for line in program.rest_of_log() {
        assert!(
            !line.contains("canary") && !line.contains("ann's secret"),
            "{line}"
        );
    }
}

/// Who is not answered for does not get in, and is told that it may come again.
#[test]
fn without_an_answer_nobody_gets_in() {
    let mut service = Service::start(0, None);
    let program = serve("service_slow", &service, "http", "http_timeout_ms = 200");
    for said in [
        json!({"path": "/mqtt", "hold": true}),
        json!({"path": "/mqtt", "status": 500, "body": "{\"result\": \"allow\"}"}),
        json!({"path": "/mqtt", "status": 200, "body": "allow"}),
        json!({"path": "/mqtt", "status": 302, "headers": {"Location": "/elsewhere"}}),
        json!({"path": "/mqtt", "status": 200, "body": "x".repeat(70_000)}),
    ] {
        service.say(said.clone());
        for peer in [PAHO, PAHO_5] {
            let ended = peer.refused(&of(&program, "c", "eve", "secret"));
            assert_eq!(ended.reason, Some(0x88), "{said}");
        }
        // A failure that an answer follows is not one of several in a row.
        service.knows(None, json!({"result": "allow"}));
        assert!(is_let_in(&program, "eve", "secret"));
    }
    // Redirects are not followed.
    let paths = service.requests();
    assert!(
        paths.iter().all(|request| request["path"] == "/mqtt"),
        "{paths:?}"
    );
}

/// A service that fails is left alone for a while, and then tried.
#[test]
fn a_service_that_is_gone_is_not_asked_until_it_is_back() {
    let mut service = Service::start(0, None);
    let mut program = serve(
        "service_gone",
        &service,
        "http",
        "http_failures_max = 3\nhttp_pause_secs = 1",
    );
    service.knows(None, json!({"result": "allow"}));
    assert!(is_let_in(&program, "eve", "secret"));
    let port = service.kill();
    for _ in 0..3 {
        assert!(!is_let_in(&program, "eve", "secret"));
    }
    program.line("the service fails, and is not asked for 1 s");
    let mut service = Service::start(port, None);
    service.knows(None, json!({"result": "allow"}));
    until("it is asked again", || is_let_in(&program, "eve", "secret"));
    program.line("the service answers again");
    // Those who came meanwhile did not ask.
    assert_eq!(service.requests().len(), 1);
}

/// What it said is remembered for all that it was asked, and no more; SIGHUP
/// forgets it.
#[test]
fn answers_are_remembered_as_long_as_configured() {
    let mut service = Service::start(0, None);
    let more = "http_cache_yes_secs = 3600\nhttp_cache_no_secs = 3600";
    let mut program = serve("service_cache", &service, "http", more);
    service.knows(None, json!({"result": "deny"}));
    service.knows(Some("eve"), json!({"result": "allow"}));
    let mut asked = |program: &Program, user: &str, password: &str, expected: bool| {
        assert_eq!(is_let_in(program, user, password), expected);
        service.requests().len()
    };
    for (user, password, expected, count) in [
        ("eve", "secret", true, 1),
        ("eve", "secret", true, 0),
        ("eve", "other", true, 1),
        ("mallory", "secret", false, 1),
        ("mallory", "secret", false, 0),
        ("eve", "secret", true, 0),
    ] {
        assert_eq!(
            asked(&program, user, password, expected),
            count,
            "{user} {password}"
        );
    }
    program.signal(Signal::HUP);
    program.line("what the HTTP service said before is forgotten");
    assert_eq!(asked(&program, "eve", "secret", true), 1);
}

/// Rights hold for publishing, subscribing and queues; who is refused is told in
/// the log by whom.
#[test]
fn rights_come_with_the_answer() {
    let mut service = Service::start(0, None);
    let mut program = serve("service_rights", &service, "http", "http_rights = true");
    let rights = json!({
        "allow": {"publish": ["out/%c"], "subscribe": ["in/#", "jobs"], "join": ["jobs"],
                  "create": ["jobs"], "put": ["jobs"]},
        "deny": {"subscribe": ["in/secret"]},
    });
    service.knows(Some("eve"), json!({"result": "allow", "rights": rights}));
    service.knows(Some("mallory"), json!({"result": "allow"}));
    service.knows(
        Some("mistyped"),
        json!({"result": "allow", "rights": {"alow": {}}}),
    );
    for peer in [PAHO, PAHO_5] {
        let mut eve = peer.open(of(&program, "e", "eve", "secret"));
        let granted = eve.subscribe(&["in/#", "$queue/jobs", "in/secret", "out/e"], 1);
        assert!(granted[..2].iter().all(|code| *code <= 1), "{granted:?}");
        assert!(granted[2..].iter().all(|code| *code >= 0x80), "{granted:?}");
        eve.publish("out/e", b"m", 1, false);
        eve.publish("$queue/jobs", b"job", 1, false);
        assert_eq!(eve.receive().text(), "job");
        if peer == PAHO_5 {
            let reason = eve.publish_with("out/x", b"m", 1, false, &Default::default());
            assert_eq!(reason, 0x87);
            let line = program.line("PUBLISH denied");
            assert!(line.contains("no rule allows it"), "{line}");
        }
        eve.disconnect();
        // Who is let in, and of whom nothing more is said, may do nothing.
        let mut mallory = peer.open(of(&program, "m", "mallory", "secret"));
        assert!(mallory.subscribe(&["in/x"], 1)[0] >= 0x80);
        mallory.disconnect();
        let refused = peer.refused(&of(&program, "c", "mistyped", "secret"));
        assert_eq!(refused.reason, Some(0x88));
        let line = program.line("CONNECT refused");
        assert!(line.contains("the nearest is allow"), "{line}");
    }
}

/// The name in its certificate is looked at, and who signed it.
#[test]
fn its_certificate_has_to_be_right() {
    let authority = Authority::new("service");
    let right = authority.server("service");
    let wrong = authority.issue("other", |params| {
        params.subject_alt_names =
            vec![rcgen::SanType::DnsName("other.example".try_into().unwrap())];
    });
    let ca = authority.ca();
    for (files, name, is_right) in [(&right, "right", true), (&wrong, "wrong", false)] {
        let mut service = Service::start(0, Some(files));
        let more = format!("http_ca_file = {ca:?}");
        let mut program = serve(&format!("service_tls_{name}"), &service, "https", &more);
        service.knows(None, json!({"result": "allow"}));
        assert_eq!(is_let_in(&program, "eve", "secret"), is_right, "{name}");
        assert_eq!(service.requests().len(), usize::from(is_right), "{name}");
        if !is_right {
            let line = program.line("CONNECT refused");
            assert!(
                line.contains("cannot connect: invalid peer certificate"),
                "{line}"
            );
        }
    }
}

/// A key, and it as published under that name.
fn key(kid: &str) -> (Ed25519KeyPair, Value) {
    let pair = Ed25519KeyPair::generate().unwrap();
    let x = url(pair.public_key().as_ref());
    (
        pair,
        json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid}),
    )
}

fn signed(kid: &str, pair: &Ed25519KeyPair) -> String {
    let header = json!({"alg": "EdDSA", "kid": kid});
    let claims = json!({"sub": "ann", "exp": now() + 3600});
    token(&header, &claims, |signed| {
        pair.sign(signed).as_ref().to_vec()
    })
}

/// Keys change where they are published, and the broker finds out by the first
/// token of a new one; when they cannot be had it goes on with those it has.
#[test]
fn keys_are_fetched_again_when_a_token_names_a_new_one() {
    let mut service = Service::start(0, None);
    let port = service.port;
    let config = file(
        "published_keys.toml",
        &format!(
            "[authentication]\nfailures_per_address_max = 0\njwt_algorithms = ['EdDSA']\n\
             jwt_keys = 'http://127.0.0.1:{port}/keys.json'\njwt_keys_pause_secs = 1\n"
        ),
    );
    let mut program = Program::serve(&["--config", config.to_str().unwrap()]);
    // E05: it starts, and lets nobody in by a token.
    program.line("the keys of tokens cannot be fetched, and all tokens are refused until they can");
    let (old_pair, old) = key("old");
    let old_token = signed("old", &old_pair);
    let ended = PAHO_5.refused(&of(&program, "c", "ann", &old_token));
    assert_eq!(ended.reason, Some(0x88));
    // Nor by AUTH, which is told the same: it is not the token that is wrong.
    let mut raw = Raw::open(program.address);
    raw.send(&connect(5, 0x02, &by_auth(&old_token), &[]));
    let connack = raw.packet();
    assert_eq!((connack[0], connack[3]), (0x20, 0x88));
    service.publishes(std::slice::from_ref(&old));
    until("the keys are there", || {
        is_let_in(&program, "ann", &old_token)
    });
    let (new_pair, new) = key("new");
    let new_token = signed("new", &new_pair);
    service.publishes(&[old, new]);
    until("the new key is there", || {
        is_let_in(&program, "ann", &new_token)
    });
    assert!(is_let_in(&program, "ann", &old_token));
    let unknown = signed("unknown", &new_pair);
    assert!(!is_let_in(&program, "ann", &unknown));
    service.say(json!({"path": "/keys.json", "status": 500}));
    program.signal(Signal::HUP);
    program.line("the keys of tokens are fetched again");
    program.line("the keys of tokens cannot be fetched, and stay as they were");
    assert!(is_let_in(&program, "ann", &new_token));
}

/// As docs/access.md has it: what would decide, by a file with the claim.
#[test]
fn what_a_claim_says_is_told_without_a_broker() {
    let docs = include_str!("../../docs/access.md");
    let (_, section) = docs
        .split_once("## Rights that come with a client")
        .expect("it is there");
    let mut blocks = section
        .split("\n\n")
        .filter(|block| block.starts_with("    "));
    let claim = file("rights.json", blocks.next().expect("the form is shown"));
    let command = blocks.next().expect("the command is shown").trim();
    let said = blocks.next().expect("the answer is shown").trim();
    let command = command.strip_prefix("rotamq ").expect("it is ours");
    let run = |command: &str| {
        let words = command.split(' ');
        let words: Vec<_> = words
            .map(|word| {
                if word == "rights.json" {
                    claim.to_str().unwrap()
                } else {
                    word
                }
            })
            .collect();
        let output = output(&words);
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), said.trim_end().to_owned())
    };
    assert_eq!(run(command), (Some(0), said.to_owned()));
    let denied = run(&command.replace("sensors/phone-1/t", "sensors/x/calibration"));
    let why = "denied by the token's claim: deny publish \"sensors/+/calibration\"";
    assert_eq!(denied, (Some(1), why.to_owned()));
    let unmatched = run(&command.replace("sensors/phone-1/t", "other"));
    assert_eq!(unmatched, (Some(1), "denied: no rule allows it".to_owned()));
    // Beside a file, whose deny is stronger.
    let acl = file("claim.acl", "pattern deny sensors/phone-1/t\n");
    let (code, said) = run(&format!("{command} --acl {}", acl.display()));
    assert!(
        code == Some(1) && said.ends_with("claim.acl:1: pattern deny sensors/phone-1/t"),
        "{said}"
    );
}
