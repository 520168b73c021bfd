//! The dashboard, in headless Chromium, on a broker under load: every page, every
//! action, each role.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::clients::http::Http;
use crate::clients::{Version, mosquitto_command};
use crate::http::with_http;
use crate::process::{Killed, Program, file, rotamq};
use crate::wait::{DEADLINE, until};

const MODULES: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/node/node_modules");
const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/sockets/clients/dashboard.cjs"
);
const VENDOR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/admin/dashboard/vendor");

/// What of the dashboard is others', and where in their packages it stands.
const VENDORED: [(&str, &str, &str); 5] = [
    ("uPlot.esm.js", "uplot", "dist/uPlot.esm.js"),
    ("uPlot.min.css", "uplot", "dist/uPlot.min.css"),
    ("LICENSE.uPlot", "uplot", "LICENSE"),
    ("mqtt.esm.js", "mqtt", "dist/mqtt.esm.js"),
    ("LICENSE.mqtt.md", "mqtt", "LICENSE.md"),
];

#[test]
fn what_is_not_ours_is_as_it_was_published() {
    for (package, version) in [("uplot", "1.6.32"), ("mqtt", "5.16.0")] {
        let about = std::fs::read_to_string(format!("{MODULES}/{package}/package.json"));
        let about = about.expect("tests/run installs it");
        let about: Value = serde_json::from_str(&about).unwrap();
        assert_eq!(about["version"], version, "{package}");
    }
    for (ours, package, theirs) in VENDORED {
        let ours = format!("{VENDOR}/{ours}");
        let theirs = format!("{MODULES}/{package}/{theirs}");
        assert!(
            std::fs::read(&ours).unwrap() == std::fs::read(&theirs).unwrap(),
            "{ours} is not {theirs}"
        );
    }
}

/// Where pictures of the pages go.
fn pictures() -> PathBuf {
    let folder = std::env::var_os("DASHBOARD_PICTURES").map(PathBuf::from);
    let folder =
        folder.unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pictures"));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Somebody who subscribes to a filter until the end.
fn subscriber(address: SocketAddr, client: &str, filter: &str) -> Killed {
    let mut command = mosquitto_command("mosquitto_sub", Version::V5, address);
    command.args(["-i", client, "-t", filter, "-q", "1"]);
    let child = command.stdout(Stdio::null()).spawn();
    Killed(child.expect("mosquitto_sub was found"))
}

/// Pairs of clients that send each other messages.
fn load(address: SocketAddr) -> Killed {
    let address = address.to_string();
    let mut command = rotamq(&[
        "bench",
        "pairs",
        "--pairs",
        "5",
        "--rate",
        "200",
        "--seconds",
        "600",
        "--address",
        &address,
    ]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Killed(child.unwrap())
}

#[test]
fn every_page_and_action_of_the_dashboard() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("dashboard-data");
    _ = std::fs::remove_dir_all(&folder);
    let settings = file("dashboard.toml", "[log]\nlevel = \"info\"\n");
    let arguments = [
        "--listen",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--data",
        folder.to_str().unwrap(),
        "--config",
        settings.to_str().unwrap(),
    ];
    let mut broker = Program::start(&mut rotamq(&arguments), "listening on ");
    let line = broker.line("make the first admin at ");
    let (_, setup) = line.split_once("make the first admin at ").unwrap();
    let _load = load(broker.address);
    let _workers = ["worker-1", "worker-2"]
        .map(|worker| subscriber(broker.address, worker, "$queue/orders/new"));
    let _device = subscriber(broker.address, "sensor-7", "room/+/set");
    let output = Command::new("node")
        .arg(SCRIPT)
        .args([setup, &broker.address.to_string()])
        .arg(pictures())
        .env("NODE_PATH", MODULES)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    println!("{said}");
}

#[test]
fn the_files_are_for_everybody_and_say_what_may_be_done_with_them() {
    let broker = with_http();
    let nobody = Http::new(broker.http_address().unwrap());
    let page = nobody.get("/");
    assert_eq!(page.status, 200);
    assert_eq!(page.header("cache-control"), "no-cache");
    let (_, rest) = page
        .text()
        .split_once("src=\"")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let script = format!("/{}", rest.split('"').next().unwrap());
    let script_again = script.replace("assets/", "assets/0");
    for (path, kind, keeps) in [
        ("/", "text/html; charset=utf-8", "no-cache"),
        (
            &*script,
            "text/javascript; charset=utf-8",
            "public, max-age=31536000, immutable",
        ),
        // Of a page that another version of the broker gave.
        (&script_again, "text/javascript; charset=utf-8", "no-cache"),
    ] {
        let answer = nobody.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), kind);
        assert_eq!(answer.header("cache-control"), keeps);
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        let policy = answer.header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self';",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        let tag = answer.header("etag").to_owned();
        let again = nobody.clone().with("If-None-Match", &tag).get(path);
        assert_eq!((again.status, again.body.len()), (304, 0));
    }
    for path in [
        "/assets/1/no.js",
        "/assets/1/../../../Cargo.toml",
        "/assets/1",
    ] {
        nobody.get(path).problem(404);
    }
}

#[test]
fn the_history_of_the_broker_and_of_its_queues_grows() {
    let broker = with_http();
    let http = Http::of(&broker);
    http.put("/api/v1/queues/a%2Fb", &json!({ "settings": {} }))
        .ok();
    http.put("/api/v1/queues/empty", &json!({ "settings": {} }))
        .ok();
    let port = broker.address();
    let mut publish = mosquitto_command("mosquitto_pub", Version::V5, port);
    let publish = publish.args(["-t", "$queue/a/b", "-m", "a job", "-q", "1"]);
    assert!(publish.status().unwrap().success());
    until("there is a row in which the job is", || {
        let history = http.get("/api/v1/history?seconds=300").ok();
        let names = history["names"].as_array().unwrap();
        let ready = names
            .iter()
            .position(|name| name == "queued_ready")
            .unwrap();
        let rows = history["rows"].as_array().unwrap();
        rows.last().is_some_and(|row| {
            row.as_array().unwrap().len() == names.len() + 1 && row[ready + 1] == 1.0
        })
    });
    until("the queue has a history", || {
        let own = http.get("/api/v1/queues/a%2Fb/history").ok();
        own["rows"]
            .as_array()
            .unwrap()
            .last()
            .is_some_and(|row| row[1] == 1)
    });
    let followed = http.get("/api/v1/history/queues?name=a*&limit=1").ok();
    assert_eq!(followed["items"][0]["name"], "a/b");
    assert_eq!(
        (
            followed["items"].as_array().unwrap().len(),
            &followed["next"]
        ),
        (1, &Value::Null)
    );
    let empty = http.get("/api/v1/queues/empty/history").ok();
    assert_eq!(empty["rows"], json!([]));
    http.get("/api/v1/queues/none/history").problem(404);
    for seconds in ["0", "3601", "x"] {
        http.get(&format!("/api/v1/history?seconds={seconds}"))
            .problem(400);
    }
    // Each ten seconds of the hour.
    let hour = http.get("/api/v1/history").ok();
    assert_eq!(
        (
            hour["step_ms"].as_u64(),
            hour["rows"].as_array().unwrap().len()
        ),
        (Some(10_000), 1)
    );
}

/// Listens to what happens; its status, and then a line a time.
fn listen(broker: &rotamq::Broker) -> (String, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(broker.http_address().unwrap()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let token = broker.http_token().unwrap();
    let request =
        format!("GET /api/v1/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream);
    let mut status = String::new();
    lines.read_line(&mut status).unwrap();
    (status, lines)
}

#[test]
fn who_listens_gets_a_row_each_second_until_the_broker_stops() {
    let broker = with_http();
    let names = Http::of(&broker).get("/api/v1/history?seconds=1").ok()["names"].clone();
    let (status, mut lines) = listen(&broker);
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    let mut line = String::new();
    let mut moments = Vec::new();
    while moments.len() < 2 {
        line.clear();
        lines.read_line(&mut line).unwrap();
        if let Some(data) = line.strip_prefix("data: ") {
            let sample: Value = serde_json::from_str(data).unwrap();
            moments.push(sample["at_ms"].as_u64().unwrap());
            let known = |name: &Value| sample.get(name.as_str().unwrap()).is_some();
            assert!(names.as_array().unwrap().iter().all(known), "{sample}");
            assert_eq!(sample["connections"], 0.0);
        }
    }
    assert!(moments[0] < moments[1]);
    broker.stop();
    std::io::copy(&mut lines, &mut std::io::sink()).unwrap();
}

#[test]
fn only_so_many_may_listen() {
    let broker = with_http();
    let mut listening = Vec::new();
    let refused = loop {
        let (status, lines) = listen(&broker);
        if !status.starts_with("HTTP/1.1 200") {
            break status;
        }
        listening.push(lines);
    };
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert_eq!(listening.len(), 64);
    listening.clear();
    until("their places are free again", || {
        listen(&broker).0.starts_with("HTTP/1.1 200")
    });
}
