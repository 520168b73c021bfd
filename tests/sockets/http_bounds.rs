//! The HTTP port, and those who are up to no good: what they hold up, guess, or
//! get to hear.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Output;

use rotamq::Broker;
use rotamq::config::Config;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_rustls::rustls::StreamOwned;
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

use crate::certificates::Authority;
use crate::clients::http::Http;
use crate::clients::{Version, broker_with};
use crate::http::with_http;
use crate::process::{Program, rotamq};
use crate::raw::Raw;
use crate::tls::{client, listener};
use crate::wait::{DEADLINE, until};

fn with(change: impl FnOnce(&mut Config)) -> Broker {
    broker_with(|config| {
        config.http.address = Some("127.0.0.1:0".parse().unwrap());
        change(config);
    })
}

/// A user, and its browser.
fn logged_in(broker: &Broker, role: &str) -> Http {
    let admin = Http::of(broker);
    let user = json!({ "name": role, "password": "correct horse", "role": role });
    admin.post("/api/v1/users", &user).ok();
    let nobody = Http::new(admin.address);
    let login = json!({ "name": role, "password": "correct horse" });
    let answer = nobody.post("/api/v1/login", &login);
    let cookie = answer.header("set-cookie").split(';').next().unwrap();
    nobody.with("Cookie", cookie)
}

/// A token of that role, with its identifier.
fn token(broker: &Broker, role: &str) -> (String, String) {
    let new = json!({ "name": role, "role": role });
    let made = Http::of(broker).post("/api/v1/tokens", &new).ok();
    let text = |key: &str| made[key].as_str().unwrap().to_owned();
    (text("token"), text("id"))
}

/// Sends a request; the head of what comes, nothing if that is the end.
fn ask(address: SocketAddr, request: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    // Who is refused may be told so before that.
    _ = stream.write_all(request.as_bytes());
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    (stream, String::from_utf8(head).unwrap())
}

/// Asks for MQTT by WebSocket, with these lines in its head.
fn upgrade(address: SocketAddr, lines: &str) -> (TcpStream, String) {
    ask(
        address,
        &format!(
            "GET /mqtt HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: mqtt\r\n{lines}\r\n"
        ),
    )
}

/// Connects as a client of MQTT 3.1.1 without a name, with this token.
fn anonymous(broker: &Broker, token: &str) -> (WebSocket<TcpStream>, Vec<u8>) {
    let lines = format!("Authorization: Bearer {token}\r\n");
    let (stream, head) = upgrade(broker.http_address().unwrap(), &lines);
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    let mut socket = WebSocket::from_raw_socket(stream, Role::Client, None);
    let connect: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c";
    socket.send(Message::binary(connect.to_vec())).unwrap();
    let connack = socket.read().unwrap().into_data().to_vec();
    (socket, connack)
}

/// Who does not wait for the answer is counted, too, and banned in the end; also
/// where nobody is banned from MQTT.
#[test]
fn who_hangs_up_while_its_password_is_checked_has_failed_all_the_same() {
    let broker = with(|config| config.authentication.ban.failures_per_address_max = 0);
    let address = broker.http_address().unwrap();
    let body = r#"{"name":"ada","password":"guess"}"#;
    let request = format!(
        "POST /api/v1/login HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let admin = Http::of(&broker);
    until("it is banned", || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        drop(stream);
        let bans = admin.get("/api/v1/bans").ok();
        bans["items"]
            .as_array()
            .is_some_and(|bans| !bans.is_empty())
    });
    // It is seen, and lifted as any other ban.
    let bans = admin.get("/api/v1/bans").ok();
    assert_eq!(bans["items"][0]["address"], "127.0.0.1");
    assert_eq!(bans["items"][0]["keeps_from"], json!(["http"]));
    let nobody = Http::new(address);
    let login = json!({ "name": "ada", "password": "guess" });
    nobody.post("/api/v1/login", &login).problem(429);
    admin.delete("/api/v1/bans/address/127.0.0.1").ok();
    // One that was under way may have failed since; but not as often.
    nobody.post("/api/v1/login", &login).problem(401);
}

#[test]
fn whom_an_admin_has_banned_does_not_log_in() {
    let broker = with_http();
    let admin = Http::of(&broker);
    let browser = logged_in(&broker, "viewer");
    let ban = json!({ "address": "127.0.0.1", "seconds": 60 });
    let banned = admin.post("/api/v1/bans", &ban).ok();
    assert_eq!(banned["keeps_from"], json!(["mqtt", "http"]));
    let login = json!({ "name": "viewer", "password": "correct horse" });
    let why = browser.post("/api/v1/login", &login).problem(429);
    assert!(why.contains("an admin"), "{why}");
    browser.get("/api/v1/me").ok();
}

#[test]
fn nobody_sends_more_than_a_request_needs() {
    let broker = with_http();
    let (nobody, admin) = (Http::new(broker.http_address().unwrap()), Http::of(&broker));
    let login = |bytes| json!({ "name": "ada", "password": "x".repeat(bytes) });
    nobody.post("/api/v1/login", &login(1000)).problem(401);
    nobody.post("/api/v1/login", &login(5000)).problem(413);
    let long = json!({ "name": "x".repeat(200), "password": "guess" });
    assert!(
        nobody
            .post("/api/v1/login", &long)
            .problem(400)
            .contains("128")
    );
    let queue = json!({ "settings": { "x": "x".repeat(70_000) } });
    admin.put("/api/v1/queues/q", &queue).problem(413);
    let message = json!({ "topic": "t", "payload": "x".repeat(200_000) });
    admin.post("/api/v1/publish", &message).ok();
}

#[test]
fn an_address_has_no_more_connections_than_a_quarter_of_all() {
    let broker = with_http();
    let address = broker.http_address().unwrap();
    let mut open = Vec::new();
    // None of them is idle for so long that it is closed.
    let refused = (0..200).find(|_| {
        let (stream, head) = ask(address, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        open.push(stream);
        head.is_empty()
    });
    assert_eq!(refused, Some(128));
    drop(open);
    until("there is room again", || {
        let (_, head) = ask(address, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        head.starts_with("HTTP/1.1 200")
    });
}

/// A browser sends its cookie along, whichever page opens a WebSocket or a form.
#[test]
fn pages_of_other_origins_get_nothing() {
    let broker = with_http();
    let address = broker.http_address().unwrap();
    let (token, _) = token(&broker, "operator");
    for (origin, code) in [
        (format!("http://{address}"), 101),
        ("http://evil.example".to_owned(), 403),
        (format!("http://{address}.evil.example"), 403),
        ("null".to_owned(), 403),
    ] {
        let lines = format!("Origin: {origin}\r\nAuthorization: Bearer {token}\r\n");
        let (_, head) = upgrade(address, &lines);
        assert!(
            head.starts_with(&format!("HTTP/1.1 {code}")),
            "{origin}: {head}"
        );
    }
    let browser = logged_in(&broker, "admin").with("X-Rotamq-Request", "1");
    let new = json!({ "name": "scraper", "role": "viewer" });
    let evil = browser.clone().with("Origin", "http://evil.example");
    assert!(
        evil.post("/api/v1/tokens", &new)
            .problem(403)
            .contains("origin")
    );
    evil.get("/api/v1/me").ok();
    let ours = browser.with("Origin", &format!("http://{address}"));
    ours.post("/api/v1/tokens", &new).ok();
}

/// Nor do pages whose own name leads here.
#[test]
fn the_port_is_not_asked_for_by_names_of_others() {
    let broker = with(|config| config.http.host_names = vec!["mqtt.example.org".to_owned()]);
    let address = broker.http_address().unwrap();
    let status = |path: &str, host: &str| {
        let (_, head) = ask(
            address,
            &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        );
        head.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(status("/", "evil.example"), "421");
    assert_eq!(status("/api/v1/openapi.json", "evil.example:18080"), "421");
    assert_eq!(status("/health", "evil.example"), "200");
    assert_eq!(status("/ready", "evil.example"), "200");
    for host in [
        "localhost:1",
        "127.0.0.1",
        "[::1]:18080",
        "mqtt.example.org",
    ] {
        assert_eq!(status("/", host), "200", "{host}");
    }
}

/// Who may not see payloads does not see them as a client of MQTT either, unless
/// it is one with a name.
#[test]
fn who_gives_no_name_is_let_in_at_the_port_only_where_everybody_is() {
    let open = with(|config| config.allow_anonymous = true);
    let (operator, _) = token(&open, "operator");
    assert_eq!(anonymous(&open, &operator).1, b"\x20\x02\x00\x00");
    let (viewer, _) = token(&open, "viewer");
    assert_eq!(anonymous(&open, &viewer).1, b"\x20\x02\x00\x05");
    let closed = with(|config| {
        config.allow_anonymous = true;
        config.listeners[0].allow_anonymous = Some(false);
    });
    let (operator, _) = token(&closed, "operator");
    assert_eq!(anonymous(&closed, &operator).1, b"\x20\x02\x00\x05");
}

#[test]
fn what_goes_on_ends_with_the_login_or_the_token() {
    let broker = with_http();
    let address = broker.http_address().unwrap();
    let admin = Http::of(&broker);
    let stream = |lines: &str, path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{lines}\r\n");
        let (stream, head) = ask(address, &request);
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        stream
    };
    let ends = |mut stream: TcpStream| {
        // The last chunk.
        let mut read = Vec::new();
        let mut buffer = [0; 4096];
        while !read.ends_with(b"0\r\n\r\n") {
            let len = stream.read(&mut buffer).unwrap();
            assert!(len > 0, "it was cut off");
            read.extend_from_slice(&buffer[..len]);
        }
    };
    let (viewer, id) = token(&broker, "viewer");
    let of_token = stream(
        &format!("Authorization: Bearer {viewer}\r\n"),
        "/api/v1/events",
    );
    let (operator, id_2) = token(&broker, "operator");
    let (mut socket, connack) = anonymous(&broker, &operator);
    assert_eq!(connack, b"\x20\x02\x00\x00");
    admin.delete(&format!("/api/v1/tokens/{id}")).ok();
    ends(of_token);
    admin.delete(&format!("/api/v1/tokens/{id_2}")).ok();
    while socket.read().is_ok() {}
    until("the client is gone", || broker.connections_len() == 0);

    let new = json!({ "name": "ada", "password": "correct horse", "role": "viewer" });
    admin.post("/api/v1/users", &new).ok();
    let log_in = || {
        let answer = Http::new(address).post("/api/v1/login", &new_login());
        let cookie = answer.header("set-cookie").split(';').next().unwrap();
        format!("Cookie: {cookie}\r\n")
    };
    let of_login = stream(&log_in(), "/api/v1/events");
    let change = json!({ "password": "battery staple" });
    admin.patch("/api/v1/users/ada", &change).ok();
    ends(of_login);
}

fn new_login() -> Value {
    json!({ "name": "ada", "password": "correct horse" })
}

/// No page of another site logs anybody out.
#[test]
fn logging_out_needs_what_other_changes_need() {
    let broker = with_http();
    let browser = logged_in(&broker, "viewer");
    browser.post("/api/v1/logout", &json!({})).problem(403);
    browser.get("/api/v1/me").ok();
    let page = browser.clone().with("X-Rotamq-Request", "1");
    let answer = page.post("/api/v1/logout", &json!({}));
    assert!(answer.header("set-cookie").contains("Max-Age=0"));
    browser.get("/api/v1/me").problem(401);
    let nobody = Http::new(browser.address);
    let answer = nobody.post("/api/v1/logout", &json!({}));
    assert_eq!((answer.status, answer.header("set-cookie")), (204, ""));
}

#[test]
fn while_clients_are_sent_away_the_port_says_that_it_is_not_ready() {
    let mut command = rotamq(&[
        "--listen",
        "127.0.0.1:0",
        "--ephemeral",
        "--http",
        "127.0.0.1:0",
    ]);
    command.env("ROTAMQ_LIMITS__DRAIN_PER_SEC", "1");
    command.env("ROTAMQ_LIMITS__STOP_TIMEOUT_MS", "600000");
    let mut program = Program::start(&mut command, "listening on ");
    let line = program.line("HTTP: http://");
    let (_, address) = line.split_once("HTTP: http://").unwrap();
    let http = Http::new(address.trim().parse().unwrap());
    assert_eq!(http.get("/ready").status, 200);
    let clients: Vec<Raw> = (0..60)
        .map(|number| Raw::connect(program.address, Version::V311, &format!("client {number}")))
        .collect();
    program.signal(Signal::TERM);
    program.line("stopping: SIGTERM");
    until("it is not ready", || {
        let answer = http.get("/ready");
        let is_ready = answer.status == 200;
        assert!(is_ready || answer.json()["reasons"] == json!(["the broker stops"]));
        !is_ready
    });
    program.signal(Signal::TERM);
    assert!(program.wait().success());
    drop(clients);
}

/// A request by HTTPS, and what was answered.
fn ask_by_tls(
    authority: &Authority,
    address: SocketAddr,
    request: &str,
) -> std::io::Result<String> {
    let stream = TcpStream::connect(address)?;
    let mut stream = StreamOwned::new(client(authority), stream);
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn with_a_certificate_it_is_https() {
    let (before, after) = (Authority::new("http before"), Authority::new("http after"));
    let files = listener(&before.server("http")).tls;
    let (certificate, key) = (files.certificate.unwrap(), files.key.unwrap());
    let broker = with(|config| {
        config.http.tls.certificate = Some(certificate.clone());
        config.http.tls.key = Some(key.clone());
        config.http.open_metrics = true;
    });
    let address = broker.http_address().unwrap();
    let get = |authority: &Authority, path: &str| {
        // Any name is right that the certificate is for.
        let host = "mqtt.example.org";
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        ask_by_tls(authority, address, &head)
    };
    assert!(get(&before, "/health").unwrap().contains("alive"));
    assert!(get(&after, "/health").is_err());
    let metrics = get(&before, "/metrics").unwrap();
    let family = "rotamq_certificate_not_after_seconds{listener=\"http\"} ";
    assert!(metrics.contains(family), "{metrics}");

    let token = broker.http_token().unwrap();
    let post = |path: &str, body: &Value| {
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
             Authorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        ask_by_tls(&before, address, &request).unwrap()
    };
    let user = json!({ "name": "ada", "password": "correct horse", "role": "admin" });
    assert!(post("/api/v1/users", &user).starts_with("HTTP/1.1 201"));
    let answer = post("/api/v1/login", &new_login());
    let cookie = answer.lines().find(|line| line.starts_with("set-cookie:"));
    assert!(cookie.expect(&answer).contains("; Secure"), "{answer}");

    let status = |authority: &Authority| -> Output {
        let url = format!("https://{address}");
        let ca = authority.ca();
        let mut command = rotamq(&["status", "--http", &url, "--cafile", ca.to_str().unwrap()]);
        command.args(["--token", &token]).output().unwrap()
    };
    let output = status(&before);
    assert!(output.status.success(), "{output:?}");

    let next = after.server("http");
    std::fs::copy(&next.certificate, &certificate).unwrap();
    std::fs::copy(&next.key, &key).unwrap();
    broker.reload().unwrap();
    assert!(get(&after, "/health").unwrap().contains("alive"));
    assert!(get(&before, "/health").is_err());
    assert!(status(&after).status.success());
}

/// Ten seconds.
#[test]
fn a_body_that_never_comes_is_not_waited_for() {
    let broker = with_http();
    let address = broker.http_address().unwrap();
    let request = format!(
        "POST /api/v1/login HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\n\r\n{{"
    );
    let (_, head) = ask(address, &request);
    assert!(head.starts_with("HTTP/1.1 408"), "{head}");
}
