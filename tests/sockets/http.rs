//! The HTTP port: who may use it, and how it answers.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rotamq::Broker;
use rotamq::config::Config;
use serde_json::{Value, json};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

use crate::clients::http::Http;
use crate::clients::{Version, broker_with, mosquitto_command};
use crate::process::Program;
use crate::wait::until;

const ANY_PORT: &str = "127.0.0.1:0";

/// A broker with an HTTP port.
pub fn with_http() -> Broker {
    broker_with(|config| config.http.address = Some(ANY_PORT.parse().unwrap()))
}

/// The real program with an HTTP port and these arguments, and somebody whom it
/// does not know.
fn program(arguments: &[&str]) -> (Program, Http, String) {
    let mut program = Program::serve(&[&["--http", ANY_PORT], arguments].concat());
    let line = program.line("HTTP: http://");
    let (_, address) = line.split_once("HTTP: http://").unwrap();
    let http = Http::new(address.trim().parse().expect(&line));
    let line = program.line("make the first admin");
    let (_, token) = line.rsplit_once('/').unwrap();
    let token = token.trim().to_owned();
    (program, http, token)
}

/// A data folder that is still to be made.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    _ = fs::remove_dir_all(&folder);
    folder
}

#[test]
fn whether_it_is_alive_and_ready_is_told_to_everybody() {
    let broker = with_http();
    let nobody = Http::new(broker.http_address().unwrap());
    assert_eq!(nobody.get("/health").ok(), json!({ "status": "alive" }));
    let ready = nobody.get("/ready").ok();
    assert_eq!(ready, json!({ "ready": true, "reasons": [] }));
}

/// Whoever sends clients here is to send them elsewhere meanwhile, and knows why.
#[test]
fn a_broker_that_is_short_of_something_is_not_ready() {
    let mut config = Config::default();
    config.listeners[0].address = ANY_PORT.parse().unwrap();
    config.http.address = Some(ANY_PORT.parse().unwrap());
    config.store.ephemeral = true;
    config.limits.memory_bytes_max = Some(1 << 20);
    let broker = Broker::start(config.clone()).unwrap();
    let nobody = Http::new(broker.http_address().unwrap());
    let reasons = |nobody: &Http| {
        let answer = nobody.get("/ready");
        let json = answer.json();
        let is_ready = json["ready"].as_bool().expect("it says so");
        assert_eq!(answer.status, if is_ready { 200 } else { 503 });
        assert_eq!(is_ready, json["reasons"] == json!([]));
        json["reasons"].clone()
    };
    let of_memory = json!(["memory is short: clients without a session are refused"]);
    until("memory is short", || reasons(&nobody) == of_memory);
    config.limits.memory_bytes_max = Some(1 << 50);
    broker.reload_with(config.clone()).unwrap();
    until("there is enough", || reasons(&nobody) == json!([]));
    broker.stop();

    config.store.ephemeral = false;
    config.store.data = folder("not-ready");
    config.store.free_bytes_min = 1 << 60;
    let broker = Broker::start(config).unwrap();
    let nobody = Http::new(broker.http_address().unwrap());
    let of_disk = json!(["the disk is nearly full"]);
    until("the disk is nearly full", || reasons(&nobody) == of_disk);
    assert_eq!(nobody.get("/health").status, 200);
    broker.stop();
}

#[test]
fn nothing_else_is_told_to_who_is_not_known() {
    let broker = with_http();
    let nobody = Http::new(broker.http_address().unwrap());
    for path in ["status", "queues", "queues/q", "users", "tokens", "me"] {
        let answer = nobody.get(&format!("/api/v1/{path}"));
        let why = answer.problem(401);
        assert!(why.contains("log in"), "{path}: {why}");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    let why = nobody
        .clone()
        .with_token("abc")
        .get("/api/v1/status")
        .problem(401);
    assert!(why.contains("token"), "{why}");
    nobody
        .with("Cookie", "rotamq_login=abc")
        .get("/api/v1/status")
        .problem(401);
}

#[test]
fn what_is_not_there_is_a_problem_too() {
    let broker = with_http();
    let http = Http::of(&broker);
    assert!(
        http.get("/api/v1/nothing")
            .problem(404)
            .contains("/api/v1/nothing")
    );
    http.delete("/api/v1/status").problem(405);
    http.post("/api/v1/login", &json!({ "name": 1 }))
        .problem(422);
    assert!(
        http.get("/api/v1/queues/nobody")
            .problem(404)
            .contains("nobody")
    );
    assert!(
        http.get("/api/v1/queues?limit=0")
            .problem(400)
            .contains("limit")
    );
    let answer = http.get("/api/v1/status");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert!(
        answer
            .header("content-security-policy")
            .contains("default-src 'none'")
    );
}

#[test]
fn the_status_tells_what_there_is() {
    let broker = with_http();
    let status = Http::of(&broker).get("/api/v1/status").ok();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        status["listeners"][0]["address"],
        broker.address().to_string()
    );
    assert_eq!(status["ready"], true);
    assert_eq!(status["store"]["is_on"], false);
    assert!(
        status["memory"]["resident_bytes"].as_u64().unwrap() > 1_000_000,
        "{status}"
    );
    assert_eq!(status["counts"]["connections_accepted"], 0);
}

#[test]
fn the_first_admin_is_made_with_the_token_of_the_log_and_logs_in() {
    let data = folder("http");
    let data = data.to_str().unwrap();
    let (program, nobody, token) = program(&["--data", data]);
    let setup = |token: &str| {
        nobody.post(
            "/api/v1/setup",
            &json!({ "token": token, "name": "ada", "password": "correct horse" }),
        )
    };
    setup("wrong").problem(400);
    assert_eq!(
        setup(&token).ok(),
        json!({ "name": "ada", "role": "admin" })
    );
    setup(&token).problem(400);
    let log_in = |password: &str| {
        nobody.post(
            "/api/v1/login",
            &json!({ "name": "ada", "password": password }),
        )
    };
    log_in("battery staple").problem(401);
    let answer = log_in("correct horse");
    let cookie = answer.header("set-cookie").to_owned();
    for word in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(word), "{cookie}");
    }
    let browser = nobody
        .clone()
        .with("Cookie", cookie.split(';').next().unwrap());
    assert_eq!(browser.get("/api/v1/me").ok()["role"], "admin");
    // No page of another origin can say this header.
    let new = json!({ "name": "scraper", "role": "viewer" });
    browser.post("/api/v1/tokens", &new).problem(403);
    let page = browser.clone().with("X-Rotamq-Request", "1");
    let made = page.post("/api/v1/tokens", &new).ok();
    let scraper = nobody.clone().with_token(made["token"].as_str().unwrap());
    assert_eq!(
        scraper.get("/api/v1/me").ok(),
        json!({ "name": "scraper", "role": "viewer" })
    );
    assert!(scraper.get("/api/v1/users").problem(403).contains("admin"));
    page.post("/api/v1/logout", &json!({})).ok();
    browser.get("/api/v1/me").problem(401);
    drop(program);

    // All but logins is there after a restart, and nobody is asked to make an admin.
    let mut program = Program::serve(&["--http", ANY_PORT, "--data", data]);
    let line = program.line("HTTP: http://");
    let (_, address) = line.split_once("HTTP: http://").unwrap();
    let scraper = scraper.at(address.trim().parse().unwrap());
    assert_eq!(scraper.get("/api/v1/me").ok()["name"], "scraper");
    browser_is_banned_after_failures(&Http::new(scraper.address));
}

/// Guessing passwords ends soon.
fn browser_is_banned_after_failures(nobody: &Http) {
    let wrong = json!({ "name": "ada", "password": "battery staple" });
    let banned = (0..1000).find(|_| nobody.post("/api/v1/login", &wrong).status == 429);
    assert!(banned.is_some(), "never banned");
    let right = json!({ "name": "ada", "password": "correct horse" });
    assert!(
        nobody
            .post("/api/v1/login", &right)
            .problem(429)
            .contains("ban_secs")
    );
}

#[test]
fn a_role_allows_what_it_says_and_no_more() {
    let broker = with_http();
    let admin = Http::of(&broker);
    let of_role = |role: &str| {
        let made = admin
            .post("/api/v1/tokens", &json!({ "name": role, "role": role }))
            .ok();
        Http::new(admin.address).with_token(made["token"].as_str().unwrap())
    };
    let (viewer, operator) = (of_role("viewer"), of_role("operator"));
    assert!(
        viewer
            .put("/api/v1/queues/q", &json!({}))
            .problem(403)
            .contains("operator")
    );
    operator.put("/api/v1/queues/q", &json!({})).ok();
    assert_eq!(viewer.get("/api/v1/queues/q").ok()["name"], "q");
    viewer.get("/api/v1/queues/q/messages").problem(403);
    assert_eq!(
        operator.get("/api/v1/queues/q/messages").ok()["messages"],
        json!([])
    );
    operator.get("/api/v1/tokens").problem(403);
    let tokens = admin.get("/api/v1/tokens").ok();
    let id = tokens["items"][0]["id"].as_str().unwrap();
    admin.delete(&format!("/api/v1/tokens/{id}")).ok();
    viewer.get("/api/v1/me").problem(401);
}

#[test]
fn queues_are_seen_and_steered() {
    let broker = with_http();
    let http = Http::of(&broker);
    // A name may have slashes.
    let queue = "/api/v1/queues/orders%2Feu";
    http.put(queue, &json!({ "settings": { "max_deliveries": 3 } }))
        .ok();
    http.put(queue, &json!({})).problem(409);
    http.patch(queue, &json!({ "settings": { "max_deliveries": "x" } }))
        .problem(400);
    http.patch(queue, &json!({ "settings": { "max_deliveries": 2 } }))
        .ok();
    assert_eq!(http.get(queue).ok()["settings"]["max_deliveries"], 2);
    let mut publish = mosquitto_command("mosquitto_pub", Version::V311, broker.address());
    let published = publish.args(["-q", "1", "-t", "$queue/orders/eu", "-m", "one"]);
    assert!(published.status().unwrap().success());
    let peeked = http.get(&format!("{queue}/messages")).ok();
    assert_eq!(peeked["messages"][0]["payload"], "one");
    let id = peeked["messages"][0]["id"].as_str().unwrap();
    let traced = http.get(&format!("{queue}/messages/{id}/trace")).ok();
    assert_eq!(traced["events"][0]["what"], "stored");
    assert_eq!(
        http.post(&format!("{queue}/pause"), &Value::Null).ok()["paused"],
        true
    );
    assert_eq!(
        http.get("/api/v1/queues?name=orders").ok()["items"][0]["paused"],
        true
    );
    let moved = http
        .post(&format!("{queue}/move"), &json!({ "to": "others" }))
        .ok();
    assert_eq!(moved["moved"], 1);
    let page = http.get("/api/v1/queues?limit=1").ok();
    assert_eq!(page["items"][0]["name"], "orders/eu");
    let next = page["next"].as_str().unwrap();
    let next = http
        .get(&format!(
            "/api/v1/queues?after={}",
            next.replace('/', "%2F")
        ))
        .ok();
    assert_eq!(next["items"][0]["name"], "others");
    assert_eq!(next["next"], Value::Null);
    http.delete("/api/v1/queues/others").problem(409);
    assert_eq!(
        http.delete("/api/v1/queues/others?force=true").ok()["messages"],
        1
    );
}

#[test]
fn clients_of_mqtt_come_in_by_websocket_if_their_browser_is_logged_in() {
    let broker = with_http();
    let upgrade = |token: &str| {
        let mut stream = TcpStream::connect(broker.http_address().unwrap()).unwrap();
        let request = format!(
            "GET /mqtt HTTP/1.1\r\nHost: broker\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: mqtt\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        (stream, String::from_utf8(head).unwrap().to_lowercase())
    };
    let (_, head) = upgrade("abc");
    assert!(head.starts_with("http/1.1 401"), "{head}");
    let (stream, head) = upgrade(&broker.http_token().unwrap());
    assert!(head.starts_with("http/1.1 101"), "{head}");
    // That of RFC 6455, 1.3.
    assert!(
        head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
        "{head}"
    );
    assert!(head.contains("sec-websocket-protocol: mqtt\r\n"), "{head}");
    let mut socket = WebSocket::from_raw_socket(stream, Role::Client, None);
    let packets: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c\xc0\x00";
    socket.send(Message::binary(packets.to_vec())).unwrap();
    let mut told = Vec::new();
    while told.len() < 6 {
        told.extend(socket.read().unwrap().into_data());
    }
    assert_eq!(told, b"\x20\x02\x00\x00\xd0\x00");
    // It is told that the broker goes.
    broker.stop();
    while socket.read().is_ok() {}
}

#[test]
fn who_may_read_the_data_folder_is_lent_a_token() {
    let data = folder("http-lent");
    let (_program, nobody, _) = program(&["--data", data.to_str().unwrap()]);
    let mut socket = UnixStream::connect(data.join("control.sock")).unwrap();
    socket.write_all(b"{\"command\":\"http\"}\n").unwrap();
    let mut line = String::new();
    BufReader::new(socket).read_line(&mut line).unwrap();
    let answer: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        answer["http"]["address"],
        format!("http://{}", nobody.address)
    );
    let lent = nobody.with_token(answer["http"]["token"].as_str().expect(&line));
    assert_eq!(lent.get("/api/v1/me").ok()["role"], "admin");
}

#[test]
fn the_description_names_every_resource_and_every_answer_to_it() {
    let broker = with_http();
    let described = Http::new(broker.http_address().unwrap())
        .get("/api/v1/openapi.json")
        .ok();
    let paths = described["paths"].as_object().unwrap();
    assert!(
        paths.contains_key("/api/v1/queues/{name}/redrive"),
        "{paths:?}"
    );
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().unwrap() {
            let responses = operation["responses"].as_object().expect(path);
            assert!(
                responses.contains_key("default"),
                "{method} {path}: a problem may come"
            );
            assert!(
                operation["summary"].is_string(),
                "{method} {path}: it says what it does"
            );
        }
    }
}
