//! Traces: what clients send and get, as the HTTP port tells it.

use std::sync::Arc;

use rotamq::Broker;
use rotamq::config::{Config, Listener, Protocol};
use serde_json::{Value, json};

use crate::authentication::{CONNECT, Counting, auth};
use crate::certificates::Authority;
use crate::clients::http::{Answer, Http};
use crate::clients::{
    MQTTJS_5, Options, Over, PAHO, PAHO_5, PAHO_31, RUMQTTC, Version, broker_with,
};
use crate::raw::{self, Raw};
use crate::tls::{listener, tcp};
use crate::wait::until;

const ANY_PORT: &str = "127.0.0.1:0";

fn http_too(config: &mut Config) {
    config.http.address = Some(ANY_PORT.parse().unwrap());
}

/// A trace that was begun, and who asks for it.
struct Trace {
    http: Http,
    path: String,
}

impl Trace {
    fn begin(http: &Http, body: &Value) -> Trace {
        let view = http.post("/api/v1/traces", body).ok();
        Trace {
            http: http.clone(),
            path: format!("/api/v1/traces/{}", view["id"]),
        }
    }

    fn show(&self) -> Value {
        self.http.get(&self.path).ok()
    }

    fn download(&self) -> Answer {
        self.http.get(&format!("{}/download", self.path))
    }

    fn packets(&self) -> Vec<Value> {
        let text = self.download().text();
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).expect(line))
            .collect()
    }

    /// As in `in CONNECT`.
    fn types(&self) -> Vec<String> {
        self.packets().iter().map(kind).collect()
    }
}

fn kind(packet: &Value) -> String {
    let text = |key: &str| packet[key].as_str().expect(key).to_owned();
    text("direction") + " " + &text("packet")
}

#[test]
fn clients_that_we_did_not_write_are_recorded_over_every_transport() {
    let authority = Authority::new("traces");
    let broker = broker_with(|config| {
        http_too(config);
        config.listeners.push(listener(&authority.server("server")));
        let mut websocket = Listener::new(ANY_PORT.parse().unwrap());
        websocket.protocol = Protocol::WebSocket;
        config.listeners.push(websocket);
    });
    let http = Http::of(&broker);
    let tls = Over {
        ca: Some(authority.ca()),
        ..Over::default()
    };
    let websocket = Over {
        websocket: true,
        ..Over::default()
    };
    let overs = [Over::default(), tls, websocket];
    for (index, over) in overs.iter().enumerate() {
        for peer in [PAHO_31, PAHO, PAHO_5, MQTTJS_5] {
            let trace = Trace::begin(&http, &json!({ "client": "c" }));
            let mut options = Options::clean(tcp(&broker, index), "c").over(over);
            options = options.will("w", "farewell", 1, false);
            options.user = Some(("name".to_owned(), "a-secret".to_owned()));
            let mut client = peer.open(options);
            assert_eq!(client.subscribe(&["t"], 2), [2]);
            for qos in 0..=2 {
                client.publish("elsewhere", b"a-payload", qos, false);
            }
            RUMQTTC.publish(broker.address(), "t", "a-payload", 2, false);
            client.receive();
            until("the message is acknowledged", || {
                trace.types().contains(&"in PUBCOMP".to_owned())
            });
            client.unsubscribe("t");
            client.disconnect();
            let types = [
                "in CONNECT",
                "out CONNACK",
                "in SUBSCRIBE",
                "out SUBACK",
                "in PUBLISH",
                "in PUBLISH",
                "out PUBACK",
                "in PUBLISH",
                "out PUBREC",
                "in PUBREL",
                "out PUBCOMP",
                "out PUBLISH",
                "in PUBREC",
                "out PUBREL",
                "in PUBCOMP",
                "in UNSUBSCRIBE",
                "out UNSUBACK",
                "in DISCONNECT",
            ];
            until("it has left", || trace.types().len() >= types.len());
            assert_eq!(trace.types(), types, "{peer:?} {over:?}");
            let packets = trace.packets();
            assert_eq!(packets[7]["topic"], "elsewhere");
            assert_eq!(packets[7]["payload_bytes"], 9);
            assert_eq!(packets[0]["will"]["topic"], "w");
            // MQTT.js is not told to name itself.
            let names_itself = peer != MQTTJS_5;
            assert_eq!(packets[0]["has_password"], names_itself);
            let text = trace.download().text();
            for secret in ["a-secret", "a-payload", "farewell"] {
                assert!(!text.contains(secret), "{secret} in {text}");
            }
            trace.http.delete(&trace.path).ok();
        }
    }
}

#[test]
fn what_comes_before_a_client_is_let_in_is_recorded_too() {
    let mut config = Config::default();
    config.listeners[0].address = ANY_PORT.parse().unwrap();
    config.store.ephemeral = true;
    config.allow_anonymous = false;
    http_too(&mut config);
    let broker = Broker::start_with(config, vec![Arc::new(Counting)]).unwrap();
    let trace = Trace::begin(&Http::of(&broker), &json!({ "address": "127.0.0.1" }));
    let mut raw = Raw::open(broker.address());
    raw.send(CONNECT);
    for number in 1..=3 {
        assert_eq!(raw.packet(), auth(0x18, number));
        raw.send(&auth(0x18, number));
    }
    raw.packet();
    raw.send(&auth(0x19, 0));
    assert_eq!(raw.packet(), auth(0x18, 1));
    raw.fence();
    raw.send(b"\xd0\x00"); // PINGRESP, which no client sends.
    raw.until_closed();
    let asked = ["out AUTH", "in AUTH"];
    let mut types = vec!["in CONNECT"];
    types.extend(asked.iter().cycle().take(6));
    types.extend(["out CONNACK", "in AUTH", "out AUTH"]);
    types.extend(["in PINGREQ", "out PINGRESP", "in PINGRESP"]);
    types.push("out DISCONNECT");
    assert_eq!(trace.types(), types);
    for packet in trace.packets() {
        let properties = packet["properties"].as_array().cloned().unwrap_or_default();
        for property in properties {
            let is_secret = property["name"] == "authentication-data";
            assert_eq!(is_secret, property["value"].is_null(), "{packet}");
        }
    }
    // And who is not let in.
    let mut raw = Raw::open(broker.address());
    raw.send(&raw::connect(Version::V311, "nobody", true, 0));
    raw.until_closed();
    let packets = trace.packets();
    let [connect, connack] = &packets[types.len()..] else {
        panic!("{packets:?}");
    };
    assert_eq!(
        [kind(connect), kind(connack)],
        ["in CONNECT", "out CONNACK"]
    );
    assert_eq!(connack["client"], "nobody");
    assert_eq!(connack["reason_name"], "not-authorized");
    broker.stop();
}

#[test]
fn a_topic_is_recorded_through_a_queue_and_by_alias() {
    let broker = broker_with(http_too);
    let http = Http::of(&broker);
    let of_queue = Trace::begin(&http, &json!({ "topic": "jobs/+" }));
    let of_topic = Trace::begin(
        &http,
        &json!({ "topic": "long/topic", "payload_bytes_max": 3 }),
    );
    let mut worker = PAHO.subscriber(broker.address(), "worker", "$queue/jobs/1", 1);
    let mut options = Options::clean(broker.address(), "subscriber");
    options.topic_alias_maximum = Some(5);
    let mut subscriber = PAHO_5.open(options);
    subscriber.subscribe(&["long/#"], 0);
    let mut publisher = RUMQTTC.connect(broker.address(), "publisher");
    publisher.publish("$queue/jobs/1", b"work", 1, false);
    for _ in 0..2 {
        publisher.publish("long/topic", b"words", 0, false);
        subscriber.receive();
    }
    worker.receive();
    until("the job is done", || of_queue.types().len() == 4);
    let packets = of_queue.packets();
    let of = |client: &str| -> Vec<String> {
        let own = packets.iter().filter(|packet| packet["client"] == client);
        own.map(kind).collect()
    };
    assert_eq!(of("publisher"), ["in PUBLISH", "out PUBACK"]);
    assert_eq!(of("worker"), ["out PUBLISH", "in PUBACK"]);
    let packets = of_topic.packets();
    let delivered = packets.iter().filter(|packet| packet["direction"] == "out");
    let delivered: Vec<&Value> = delivered.collect();
    assert_eq!(delivered.len(), 2);
    assert_eq!(delivered[0]["by_alias"], Value::Null);
    assert_eq!(delivered[1]["by_alias"], true);
    for packet in packets {
        assert_eq!(packet["topic"], "long/topic");
        assert_eq!(packet["payload"], "wor");
        assert_eq!(packet["payload_bytes"], 5);
    }
}

#[test]
fn traces_are_listed_paged_stopped_and_deleted() {
    let broker = broker_with(http_too);
    let http = Http::of(&broker);
    let mut raw = Raw::connect(broker.address(), Version::V311, "c");
    let full = Trace::begin(&http, &json!({ "client": "c", "packets_max": 3 }));
    let trace = Trace::begin(&http, &json!({ "client": "c", "seconds": 3600 }));
    for _ in 0..3 {
        raw.fence();
    }
    let shown = full.show();
    assert_eq!(shown["state"], "full");
    assert_eq!(shown["why"], "packets");
    assert_eq!(
        (&shown["packets"], &shown["missed"]),
        (&json!(3), &json!(3))
    );
    let listed = http.get("/api/v1/traces").ok();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(listed["items"][0], full.show());
    let first = http.get("/api/v1/traces?limit=1").ok();
    assert_eq!(first["items"], json!([full.show()]));
    let next = first["next"].as_str().expect("there is another");
    let second = http.get(&format!("/api/v1/traces?after={next}")).ok();
    assert_eq!(second["items"], json!([trace.show()]));
    let is_full = http.get("/api/v1/traces?state=full").ok();
    assert_eq!(is_full["items"], first["items"]);
    let of_users = http.get("/api/v1/traces?kind=user").ok();
    assert_eq!(of_users["items"], json!([]));
    http.get("/api/v1/traces?kind=other").problem(400);
    let mut numbers = Vec::new();
    let mut after = String::new();
    loop {
        let page = http.get(&format!("{}/packets?limit=4{after}", trace.path));
        let page = page.ok();
        let items = page["items"].as_array().expect("a list");
        numbers.extend(items.iter().map(|item| item["number"].as_u64().unwrap()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    let answer = trace.download();
    assert_eq!(answer.header("content-type"), "application/x-ndjson");
    let disposition = answer.header("content-disposition");
    assert_eq!(disposition, "attachment; filename=\"trace-2.ndjson\"");
    assert_eq!(answer.text().lines().count(), 6);
    let stopped = http.post(&format!("{}/stop", trace.path), &json!({})).ok();
    assert_eq!(stopped["state"], "ended");
    assert_eq!(stopped["why"], "stopped");
    raw.fence();
    assert_eq!(trace.show(), stopped);
    http.delete(&trace.path).ok();
    for path in ["", "/packets", "/download"] {
        http.get(&format!("{}{path}", trace.path)).problem(404);
    }
    http.delete(&trace.path).problem(404);
    http.post(&format!("{}/stop", trace.path), &json!({}))
        .problem(404);
}

/// More than are put into words at a time.
#[test]
fn a_long_trace_is_downloaded_whole() {
    let broker = broker_with(http_too);
    let http = Http::of(&broker);
    let mut raw = Raw::connect(broker.address(), Version::V311, "c");
    let trace = Trace::begin(&http, &json!({ "client": "c" }));
    for number in 0..1000 {
        raw.send(&raw::publish(&format!("t/{number}"), b"x", 0, 0));
    }
    raw.fence();
    let packets = trace.packets();
    assert_eq!(packets.len(), 1002);
    for (number, packet) in packets.iter().take(1000).enumerate() {
        assert_eq!(packet["topic"], format!("t/{number}"));
        assert_eq!(packet["number"], number + 1);
    }
}

#[test]
fn who_may_not_see_payloads_begins_no_trace() {
    let broker = broker_with(http_too);
    let http = Http::of(&broker);
    let token = http
        .post("/api/v1/tokens", &json!({ "name": "v", "role": "viewer" }))
        .ok();
    let viewer = Http::new(http.address).with_token(token["token"].as_str().unwrap());
    let body = json!({ "client": "c" });
    viewer.post("/api/v1/traces", &body).problem(403);
    viewer.get("/api/v1/traces").problem(403);
    let trace = Trace::begin(&http, &body);
    for path in ["", "/packets", "/download"] {
        viewer.get(&format!("{}{path}", trace.path)).problem(403);
    }
    viewer.delete(&trace.path).problem(403);
}

#[test]
fn what_is_no_trace_is_refused() {
    let broker = broker_with(http_too);
    let http = Http::of(&broker);
    for (body, why) in [
        (json!({}), "one of client, user, address and topic"),
        (json!({ "client": "c", "topic": "t" }), "one of client"),
        (json!({ "topic": "a/#/b" }), "is no topic filter"),
        (json!({ "address": "here" }), "192.0.2.7"),
        (json!({ "client": "c", "seconds": 3601 }), "3600 seconds"),
        (json!({ "client": "c", "packets_max": 0 }), "1 to 100000"),
    ] {
        let refused = http.post("/api/v1/traces", &body).problem(400);
        assert!(refused.contains(why), "{refused}");
    }
    for _ in 0..8 {
        http.post("/api/v1/traces", &json!({ "user": "u" })).ok();
    }
    let why = http
        .post("/api/v1/traces", &json!({ "user": "u" }))
        .problem(409);
    assert!(why.contains("stop one"), "{why}");
}
