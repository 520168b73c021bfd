//! What the API shows of clients, sessions, subscriptions and retained messages,
//! and does with them; bans; access; publishing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rotamq::Broker;
use serde_json::{Value, json};

use crate::clients::http::Http;
use crate::clients::{
    Client, LIBRARIES, Options, PAHO, PAHO_5, Peer, RUMQTTC, RUMQTTC_5, Subscription, Version,
    broker_with,
};
use crate::http::with_http;
use crate::process::{Program, file, free_port};
use crate::wait::until;

/// A broker with an HTTP port that stores what it has in a folder of its own.
fn storing(name: &str) -> Broker {
    broker_with(|config| {
        config.http.address = Some("127.0.0.1:0".parse().unwrap());
        config.store.ephemeral = false;
        config.store.data = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    })
}

/// A data folder that is still to be made.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    _ = fs::remove_dir_all(&folder);
    folder
}

/// As an operator and as a viewer are: by tokens of theirs.
fn with_role(admin: &Http, role: &str) -> Http {
    let made = admin.post("/api/v1/tokens", &json!({ "name": role, "role": role }));
    let token = made.ok()["token"].as_str().expect("a token").to_owned();
    Http::new(admin.address).with_token(&token)
}

/// All items of a list, from pages of so many.
fn all(http: &Http, path: &str, limit: usize) -> Vec<Value> {
    let (mut items, mut after) = (Vec::new(), String::new());
    loop {
        let joint = if path.contains('?') { '&' } else { '?' };
        let page = http.get(&format!("{path}{joint}limit={limit}{after}")).ok();
        let page_items = page["items"].as_array().expect("items").clone();
        assert!(page_items.len() <= limit);
        items.extend(page_items);
        match page["next"].as_str() {
            Some(next) => after = format!("&after={}", encoded(next)),
            None => return items,
        }
    }
}

/// Percent-encoded.
fn encoded(text: &str) -> String {
    let encode = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
            char::from(*byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    text.as_bytes().iter().map(encode).collect()
}

/// Of each item, that.
fn told<'v>(items: &'v [Value], key: &str) -> Vec<&'v str> {
    let told = items.iter().map(|item| item[key].as_str().expect(key));
    told.collect()
}

fn open(peer: Peer, broker: &Broker, id: &str) -> Box<dyn Client> {
    peer.open(Options::persistent(broker.address(), id))
}

#[test]
fn clients_are_listed_found_shown_and_sent_away() {
    let broker = with_http();
    let http = Http::of(&broker);
    for peer in LIBRARIES {
        let version = match peer.version {
            Version::V31 => "3.1",
            Version::V311 => "3.1.1",
            Version::V5 => "5.0",
        };
        let mut device = open(peer, &broker, "dev/1");
        let other = peer.connect(broker.address(), "other");
        device.subscribe(&["t/#"], 1);
        device.publish("t/1", b"12345", 1, false);
        assert_eq!(device.receive().text(), "12345");
        let listed = all(&http, "/api/v1/clients", 1);
        let mut names = told(&listed, "client");
        names.sort_unstable();
        assert_eq!(names, ["dev/1", "other"]);
        let found = all(&http, "/api/v1/clients?client=dev", 9);
        assert_eq!(told(&found, "version"), [version]);
        let shown = http.get("/api/v1/clients/dev%2F1").ok();
        assert_eq!(shown["keep_alive_secs"], 60);
        assert_eq!(shown["subscriptions"], 1);
        let address = shown["address"].as_str().expect("an address");
        assert!(address.starts_with("127.0.0.1:"), "{address}");
        assert_eq!(shown["listener"], "127.0.0.1:0");
        let found = format!("/api/v1/clients?address={}", encoded(address));
        assert_eq!(told(&all(&http, &found, 9), "client"), ["dev/1"]);
        assert_eq!(
            (&shown["messages_in"], &shown["messages_out"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(shown["subscription_list"][0]["filter"], "t/#");
        let sent_away = http.post("/api/v1/clients/dev%2F1/disconnect", &json!({}));
        assert_eq!(sent_away.status, 204);
        let ended = device.closed();
        if peer.version == Version::V5 {
            assert_eq!(ended.reason, Some(0x98), "{peer:?}: {ended:?}");
        }
        until("it is gone", || {
            http.get("/api/v1/clients/dev%2F1").status == 404
        });
        let session = http.get("/api/v1/sessions/dev%2F1").ok();
        assert_eq!(session["connected"], false);
        let left = all(&http, "/api/v1/sessions?connected=false", 9);
        assert_eq!(told(&left, "client"), ["dev/1"]);
        http.delete("/api/v1/sessions/dev%2F1").ok();
        http.get("/api/v1/sessions/dev%2F1").problem(404);
        other.disconnect();
        until("all are gone", || {
            all(&http, "/api/v1/sessions", 9).is_empty()
        });
    }
    http.post("/api/v1/clients/nobody/disconnect", &json!({}))
        .problem(404);
    let odd = json!({ "reason": "because" });
    http.post("/api/v1/clients/nobody/disconnect", &odd)
        .problem(422);
}

/// What is answered is on disk: no restart brings it back.
#[test]
fn a_session_that_was_ended_does_not_come_back() {
    let data = "api-ended";
    folder(data);
    let broker = storing(data);
    let http = Http::of(&broker);
    for peer in [PAHO, RUMQTTC_5] {
        let mut device = open(peer, &broker, &format!("{peer:?}"));
        device.subscribe(&["t"], 1);
        device.publish("kept", b"x", 1, true);
    }
    let devices = all(&http, "/api/v1/sessions", 9);
    assert!(devices.iter().all(|session| session["stored"] == true));
    for session in told(&devices, "client") {
        http.delete(&format!("/api/v1/sessions/{}", encoded(session)))
            .ok();
    }
    http.delete("/api/v1/retained/kept").ok();
    http.post(
        "/api/v1/publish",
        &json!({ "topic": "own", "payload": "x", "retain": true }),
    )
    .ok();
    broker.stop();
    let broker = storing(data);
    assert_eq!(broker.sessions_len(), 0);
    let http = Http::of(&broker);
    assert_eq!(told(&all(&http, "/api/v1/retained", 9), "topic"), ["own"]);
}

#[test]
fn what_is_in_flight_is_shown_with_its_ids() {
    let broker = with_http();
    let http = Http::of(&broker);
    for peer in LIBRARIES {
        let mut slow = peer.open(Options::persistent(broker.address(), "slow").manual());
        slow.subscribe(&["t"], 1);
        peer.publish(broker.address(), "t", "held", 1, false);
        let message = slow.receive();
        let shown = http.get("/api/v1/clients/slow").ok();
        assert_eq!(shown["in_flight_out"], 1);
        let sent = &shown["in_flight_out_list"][0];
        assert_eq!(
            (&sent["packet_id"], &sent["qos"]),
            (&json!(message.packet_id), &json!(1))
        );
        assert_eq!(
            (&sent["state"], &sent["topic"]),
            (&json!("sent"), &json!("t"))
        );
        assert!(sent["age_ms"].is_u64(), "{sent}");
        slow.acknowledge(&message);
        until("it is acknowledged", || {
            http.get("/api/v1/clients/slow").ok()["in_flight_out"] == 0
        });
        slow.disconnect();
        http.delete("/api/v1/sessions/slow").ok();
    }
}

#[test]
fn subscriptions_are_found_by_client_by_filter_and_by_topic() {
    let broker = with_http();
    let http = Http::of(&broker);
    let mut a = open(PAHO_5, &broker, "a");
    let how = Subscription {
        qos: 1,
        no_local: true,
        id: Some(7),
        ..Subscription::default()
    };
    a.subscribe_with(&["sensors/+/t"], &how);
    a.subscribe(&["$share/g/sensors/#", "$queue/jobs"], 1);
    let _b = RUMQTTC.subscriber(broker.address(), "b", "sensors/#", 0);
    let of_a = all(&http, "/api/v1/subscriptions?client=a", 1);
    let mut filters = told(&of_a, "filter");
    filters.sort_unstable();
    assert_eq!(
        filters,
        ["$queue/jobs", "$share/g/sensors/#", "sensors/+/t"]
    );
    let found = all(&http, "/api/v1/subscriptions?filter=%2B", 9);
    let expected = json!({
        "client": "a", "filter": "sensors/+/t", "kind": "filter", "qos": 1, "no_local": true,
        "retain_as_published": false, "subscription_id": 7,
    });
    assert_eq!(found, [expected]);
    let matching = all(&http, "/api/v1/subscriptions?topic=sensors%2F1%2Ft", 1);
    let mut kinds = told(&matching, "kind");
    kinds.sort_unstable();
    assert_eq!(kinds, ["filter", "filter", "share"]);
    let matching = all(&http, "/api/v1/subscriptions?topic=%24queue%2Fjobs", 9);
    assert_eq!(told(&matching, "filter"), ["$queue/jobs"]);
    for (query, status) in [
        ("client=nobody", 404),
        ("topic=a%2F%23", 400),
        ("topic=a&client=a", 400),
        ("after=nonsense", 400),
    ] {
        http.get(&format!("/api/v1/subscriptions?{query}"))
            .problem(status);
    }
}

#[test]
fn retained_messages_are_listed_shown_and_deleted() {
    let broker = with_http();
    let admin = Http::of(&broker);
    let (viewer, operator) = (with_role(&admin, "viewer"), with_role(&admin, "operator"));
    let mut device = PAHO.connect(broker.address(), "device");
    for topic in ["a/2", "a/1", "b", "a/1/x"] {
        device.publish(topic, b"\xffsecret", 1, true);
    }
    let listed = all(&viewer, "/api/v1/retained", 1);
    assert_eq!(told(&listed, "topic"), ["a/1", "a/1/x", "a/2", "b"]);
    let some = all(&viewer, "/api/v1/retained?filter=a%2F%2B", 9);
    assert_eq!(told(&some, "topic"), ["a/1", "a/2"]);
    assert_eq!(told(&some, "publisher"), ["device", "device"]);
    // Payloads are for operators.
    for item in listed
        .iter()
        .chain([&viewer.get("/api/v1/retained/b").ok()])
    {
        assert_eq!(item["payload_bytes"], 7);
        assert!(item.get("payload_base64").is_none() && item.get("payload").is_none());
    }
    for path in [
        "/api/v1/retained?payload_bytes_max=1",
        "/api/v1/retained/b?payload_bytes_max=1",
    ] {
        viewer.get(path).problem(403);
        let told = operator.get(path).ok();
        let item = told["items"].get(0).unwrap_or(&told);
        assert_eq!(item["payload_base64"], "/w==");
    }
    assert_eq!(
        operator.get("/api/v1/retained/b").ok()["payload_base64"],
        "/3NlY3JldA=="
    );
    viewer.delete("/api/v1/retained/b").problem(403);
    operator.delete("/api/v1/retained/a%2F1").ok();
    operator.delete("/api/v1/retained/a%2F1").problem(404);
    let cleared = operator.delete("/api/v1/retained?filter=a%2F%23").ok();
    assert_eq!(cleared, json!({ "deleted": 2, "next": null }));
    assert_eq!(told(&all(&viewer, "/api/v1/retained", 9), "topic"), ["b"]);
    let mut later = RUMQTTC.connect(broker.address(), "later");
    later.subscribe(&["#"], 1);
    assert_eq!(later.receive().topic, "b");
    operator.delete("/api/v1/retained").problem(400);
    operator.get("/api/v1/retained?filter=a%23").problem(400);
}

#[test]
fn an_operator_publishes_as_a_client_does() {
    let broker = with_http();
    let admin = Http::of(&broker);
    let operator = with_role(&admin, "operator");
    for peer in LIBRARIES {
        let mut subscriber = peer.subscriber(broker.address(), "subscriber", "t", 2);
        let body = json!({
            "topic": "t", "payload_base64": "/wA=", "qos": 2,
            "properties": {
                "content_type": "application/octet-stream",
                "correlation_data_base64": "aWQ=",
                "message_expiry_interval_secs": 60,
                "response_topic": "answers",
                "user_properties": [["a", "1"], ["a", "2"]],
            },
        });
        let published = operator.post("/api/v1/publish", &body).ok();
        assert_eq!(
            published,
            json!({ "receivers": "subscribers", "duplicate": false })
        );
        let got = subscriber.receive();
        assert_eq!((&got.payload[..], got.qos), (&b"\xff\0"[..], 2));
        if peer.version == Version::V5 {
            assert_eq!(
                got.extra.content_type.as_deref(),
                Some("application/octet-stream")
            );
            assert_eq!(got.extra.correlation.as_deref(), Some("id"));
            assert_eq!(got.extra.response_topic.as_deref(), Some("answers"));
            let pair = |value: &str| ("a".to_owned(), value.to_owned());
            assert_eq!(got.extra.user, [pair("1"), pair("2")]);
        }
        subscriber.disconnect();
    }
    let body = json!({ "topic": "$queue/jobs", "payload": "job", "qos": 1 });
    let published = operator.post("/api/v1/publish", &body).ok();
    assert_eq!(published["receivers"], "queues");
    let mut member = PAHO_5.subscriber(broker.address(), "member", "$queue/jobs", 1);
    let job = member.receive();
    assert_eq!(
        job.extra.user("message-id"),
        published["message_id"].as_str()
    );
    let nobody = operator
        .post("/api/v1/publish", &json!({ "topic": "nobody" }))
        .ok();
    assert_eq!(nobody["receivers"], "nobody");
    for (body, status) in [
        (json!({ "payload": "no topic" }), 422),
        (
            json!({ "topic": "t", "payload": "a", "payload_base64": "YQ==" }),
            400,
        ),
        (json!({ "topic": "t", "payload_base64": "?" }), 400),
        (json!({ "topic": "t", "qos": 3 }), 400),
        (json!({ "topic": "t/#" }), 400),
        (json!({ "topic": "$SYS/x" }), 400),
        (json!({ "topic": "t", "colour": "red" }), 422),
        (
            json!({ "topic": "t", "properties": { "content_type": "a\u{0}b" } }),
            400,
        ),
        (
            json!({ "topic": "t", "properties": { "response_topic": "a/+" } }),
            400,
        ),
        (
            json!({ "topic": "t", "properties": { "content_type": "x".repeat(65_536) } }),
            400,
        ),
    ] {
        let answer = operator.post("/api/v1/publish", &body);
        answer.problem(status);
    }
    let viewer = with_role(&admin, "viewer");
    viewer
        .post("/api/v1/publish", &json!({ "topic": "t" }))
        .problem(403);
}

#[test]
fn who_is_banned_does_not_get_in_until_that_is_lifted() {
    let broker = with_http();
    let http = Http::of(&broker);
    assert_eq!(all(&http, "/api/v1/bans", 9), [json!(null); 0]);
    let ban = |body: Value| http.post("/api/v1/bans", &body);
    for (body, path) in [
        (
            json!({ "client": "eve", "seconds": 60 }),
            "/api/v1/bans/client/eve",
        ),
        (
            json!({ "address": "127.0.0.1", "seconds": 60 }),
            "/api/v1/bans/address/127.0.0.1",
        ),
    ] {
        let banned = ban(body).ok();
        assert_eq!(banned["reason"], "request");
        assert_eq!(all(&http, "/api/v1/bans", 9), [banned]);
        for peer in [PAHO, PAHO_5] {
            let ended = peer.refused(&Options::clean(broker.address(), "eve"));
            // paho tells 5 of 3.1.1 as what it became in MQTT 5.
            let reason = if peer.version == Version::V5 {
                0x8A
            } else {
                0x87
            };
            assert_eq!(ended.reason, Some(reason), "{peer:?}");
        }
        http.delete(path).ok();
        http.delete(path).problem(404);
        PAHO.connect(broker.address(), "eve").disconnect();
    }
    for number in 0..5 {
        ban(json!({ "client": format!("c{number}"), "seconds": 60 })).ok();
        ban(json!({ "address": format!("192.0.2.{number}"), "seconds": 60 })).ok();
    }
    assert_eq!(all(&http, "/api/v1/bans", 3).len(), 10);
    for body in [
        json!({ "seconds": 60 }),
        json!({ "client": "a", "address": "192.0.2.1", "seconds": 60 }),
        json!({ "client": "", "seconds": 60 }),
        json!({ "client": "a", "seconds": 0 }),
        json!({ "client": "a", "seconds": 31_536_001 }),
        json!({ "address": "localhost", "seconds": 60 }),
    ] {
        ban(body).problem(400);
    }
    with_role(&http, "operator")
        .post("/api/v1/bans", &json!({}))
        .problem(403);
}

#[test]
fn access_is_shown_and_explained() {
    let rules = file(
        "api-access.toml",
        "[[role]]\nname = \"sensor\"\n[role.allow]\npublish = [\"sensors/%u/#\"]\n\
         [[grant]]\nuser = \"ann\"\nroles = [\"sensor\"]\n",
    );
    // "x" with a hash of mosquitto's.
    let passwords = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/mosquitto_passwd"
    );
    let broker = broker_with(|config| {
        config.http.address = Some("127.0.0.1:0".parse().unwrap());
        config.access.rules_file = Some(rules.clone());
        config.authentication.password_file = Some(passwords.into());
    });
    let viewer = with_role(&Http::of(&broker), "viewer");
    let access = viewer.get("/api/v1/access").ok();
    assert_eq!(access["is_on"], true);
    assert_eq!(access["rules_file"], rules.to_str().unwrap());
    assert_eq!(access["acl_file"], Value::Null);
    assert_eq!(access["password_file"], passwords);
    let users = all(&viewer, "/api/v1/access/users", 1);
    let name = users[0]["name"].as_str().expect("a name");
    let found = viewer.get(&format!("/api/v1/access/users?name={}", encoded(name)));
    assert_eq!(found.ok()["items"][0], users[0]);
    let none = all(&viewer, "/api/v1/access/users?name=nobody%20of%20them", 9);
    assert_eq!(none, [Value::Null; 0]);
    let mut sorted = told(&users, "name");
    sorted.sort_unstable();
    assert_eq!(told(&users, "name"), sorted);
    let lines = fs::read_to_string(passwords).unwrap();
    let in_file = lines
        .lines()
        .filter(|line| line.contains(':') && !line.starts_with('#'));
    assert_eq!(users.len(), in_file.count());
    let explain = |query: &str| viewer.get(&format!("/api/v1/access/explain?{query}"));
    let asked = "user=ann&client=c&action=publish";
    let allowed = explain(&format!("{asked}&topic=sensors%2Fann%2Ft")).ok();
    assert_eq!(allowed["allowed"], true);
    let because = allowed["because"][0].as_str().expect("a sentence");
    assert!(because.contains("api-access.toml:4"), "{because}");
    let denied = explain(&format!("{asked}&topic=sensors%2Fbob%2Ft")).ok();
    assert_eq!(denied["allowed"], false);
    for wrong in [
        format!("{asked}&topic=a%2F%23"),
        format!("{asked}&topic=a&qos=3"),
        "client=c&action=dance&topic=a".to_owned(),
        "client=c&topic=a".to_owned(),
    ] {
        explain(&wrong).problem(400);
    }
}

/// docs/api.md, each command of it.
#[test]
fn what_the_docs_ask_the_api_is_answered() {
    let docs = include_str!("../../docs/api.md");
    let blocks = docs.split("\n```sh\n").skip(1);
    let blocks = blocks.map(|block| block.split("\n```").next().expect("there is a first"));
    let script = blocks.collect::<Vec<_>>().join("\n");
    let (port, http) = (free_port(), free_port());
    let data = folder("docs-api");
    let mut program = Program::serve(&[
        "--listen",
        &format!("127.0.0.1:{port}"),
        "--http",
        &format!("127.0.0.1:{http}"),
        "--data",
        data.to_str().unwrap(),
    ]);
    let line = program.line("make the first admin");
    let (_, token) = line.trim().rsplit_once('/').unwrap();
    let script = script
        .replace("18080", &http.to_string())
        .replace("1883", &port.to_string());
    let script = script.replace("SETUP-TOKEN", token);
    let output = Command::new("bash")
        .args(["-e", "-o", "pipefail", "-c", &script])
        .current_dir(&data)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    for answer in [
        "\"role\":\"admin\"",
        "\"topic\":\"lights/hall\"",
        "\"receivers\":\"nobody\"",
        "application/problem+json",
        "\"items\":[",
    ] {
        assert!(said.contains(answer), "{answer}: {said}");
    }
}
