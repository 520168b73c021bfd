//! A web page that speaks MQTT, in headless Chromium.

use std::net::SocketAddr;
use std::process::Command;

use rotamq::config::{Listener, Protocol};
use serde_json::{Value, json};

use crate::clients::broker_with;
use crate::tls::tcp;

/// What came of MQTT.js in a page of `origin`, in MQTT 3.1.1 and in 5.
fn in_a_page(address: SocketAddr, origin: &str) -> [Value; 2] {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sockets/clients");
    let modules = concat!(env!("CARGO_TARGET_TMPDIR"), "/node/node_modules");
    let output = Command::new("node")
        .arg(format!("{folder}/browser.cjs"))
        .args([&format!("ws://{address}/mqtt"), origin])
        .env("NODE_PATH", modules)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    let lines = said.lines().map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<Value> = lines.collect();
    lines.try_into().expect("a line a version")
}

#[test]
fn a_web_page_of_an_origin_that_is_allowed_publishes_and_takes_jobs() {
    let broker = broker_with(|config| {
        let mut listener = Listener::new("127.0.0.1:0".parse().unwrap());
        listener.protocol = Protocol::WebSocket;
        listener.websocket.origins = vec!["http://app.example.test".to_owned()];
        config.listeners.push(listener);
    });
    let address = tcp(&broker, 1);
    let expected = json!({
        "connected": true,
        "got": [["$queue/browser", "a job"], ["topic", 300_000]],
        "errors": [],
    });
    for came in in_a_page(address, "http://app.example.test") {
        assert_eq!(came, expected);
    }
    for came in in_a_page(address, "http://other.example.test") {
        assert_eq!(came["connected"], false, "{came}");
    }
    assert_eq!(broker.sessions_len(), 0);
}
