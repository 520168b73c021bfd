//! `/metrics`, as Prometheus and its tool find it; and what is made for it: rules,
//! dashboard, document.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rotamq::Broker;
use serde_json::Value;

use crate::clients::http::Http;
use crate::clients::{Version, broker_with};
use crate::http::with_http;
use crate::process::{Killed, free_port};
use crate::raw::{self, Raw};
use crate::wait::until;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn text(path: &str) -> String {
    let path = Path::new(ROOT).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn open_broker() -> Broker {
    broker_with(|config| {
        config.http.address = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.http.open_metrics = true;
    })
}

fn scrape(broker: &Broker) -> String {
    let answer = Http::of(broker).get("/metrics");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

/// The values by name and labels, as they are written.
fn values(scraped: &str) -> BTreeMap<String, f64> {
    let samples = scraped.lines().filter(|line| !line.starts_with('#'));
    let values = samples.map(|line| {
        let (name, value) = line.rsplit_once(' ').expect(line);
        (name.to_owned(), value.parse().expect(line))
    });
    values.collect()
}

/// Each family's kind and help.
fn families(scraped: &str) -> BTreeMap<String, (String, String)> {
    let mut families = BTreeMap::<String, (String, String)>::new();
    for line in scraped.lines() {
        let mut words = line.splitn(4, ' ');
        let (Some("#"), Some(what), Some(name), Some(rest)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        let family = families.entry(name.to_owned()).or_default();
        match what {
            "HELP" => family.1 = rest.to_owned(),
            "TYPE" => family.0 = rest.to_owned(),
            what => panic!("{what}"),
        }
    }
    families
}

fn promtool(arguments: &[&str]) -> Command {
    let mut command = Command::new("promtool");
    command.args(arguments);
    command.current_dir(Path::new(ROOT).join("config/prometheus"));
    command
}

/// Runs it to a good end.
fn passes(command: &mut Command) {
    let output = command.output().expect("tests/run installs Prometheus");
    assert!(output.status.success(), "{command:?}: {output:?}");
}

#[test]
fn promtool_finds_nothing_to_say_of_what_is_scraped() {
    let broker = open_broker();
    let mut client = Raw::connect(broker.address(), Version::V311, "c");
    client.send(&raw::publish("$queue/a\"b\\c", b"1", 1, 1));
    client.packet();
    let scraped = scrape(&broker);
    let mut check = promtool(&["check", "metrics"]);
    check
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut check = check.spawn().expect("tests/run installs Prometheus");
    let mut stdin = check.stdin.take().expect("it is piped");
    stdin.write_all(scraped.as_bytes()).unwrap();
    drop(stdin);
    let said = check.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && words.is_empty(), "{words}");
    let names = values(&scraped);
    let queue = r#"rotamq_queue_messages{queue="a\"b\\c",state="ready"}"#;
    assert_eq!(names.get(queue), Some(&1.0), "{scraped}");
}

#[test]
fn rules_and_configuration_are_what_prometheus_takes_and_fire_when_they_should() {
    passes(&mut promtool(&["check", "rules", "rotamq.rules.yml"]));
    passes(&mut promtool(&["test", "rules", "rotamq.rules.test.yml"]));
    passes(&mut promtool(&[
        "check",
        "config",
        "--syntax-only",
        "prometheus.yml",
    ]));
    // None is without a test.
    let (rules, tests) = (
        text("config/prometheus/rotamq.rules.yml"),
        text("config/prometheus/rotamq.rules.test.yml"),
    );
    let alerts = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let alerts: Vec<_> = alerts.collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        let tried = tests.matches(&format!("alertname: {alert}")).count();
        assert_eq!(
            tried, 2,
            "{alert} is tried when all is well, and when it is not"
        );
    }
}

/// What a name of a metric may consist of, and begins with.
fn metrics_named(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_part(c));
    let words = words.filter(|word| word.starts_with("rotamq_") || word.starts_with("process_"));
    words
        .map(|word| {
            let suffixes = ["_bucket", "_sum", "_count"];
            let base = suffixes.iter().find_map(|suffix| word.strip_suffix(suffix));
            base.unwrap_or(word)
        })
        .collect()
}

#[test]
fn dashboard_and_rules_ask_for_nothing_that_is_not_there() {
    let families = families(&scrape(&open_broker()));
    let dashboard = text("config/grafana/rotamq.json");
    let rules = text("config/prometheus/rotamq.rules.yml");
    for (of, asked) in [("dashboard", &dashboard), ("rules", &rules)] {
        let asked = metrics_named(asked);
        assert!(asked.len() > 10, "{of}: {asked:?}");
        for name in asked {
            assert!(families.contains_key(name), "{of}: {name}");
        }
    }
    // Each expression of the dashboard is one.
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let expressions = targets.map(|target| target["expr"].as_str().expect("a text"));
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for (at, expression) in expressions.enumerate() {
        let expression = expression.replace("$__rate_interval", "1m");
        let expression = serde_json::to_string(&expression).unwrap();
        rules += &format!("  - record: panel{at}\n    expr: {expression}\n");
    }
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("dashboard.rules.yml");
    std::fs::write(&file, rules).unwrap();
    passes(promtool(&["check", "rules"]).arg(&file));
}

/// docs/metrics.md has each of them, with the words that are served.
#[test]
fn the_document_says_what_each_is() {
    let families = families(&scrape(&open_broker()));
    let document = text("docs/metrics.md");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.filter(|row| row.starts_with("rotamq_") || row.starts_with("process_"));
    let told: Vec<&str> = rows.collect();
    let expected: Vec<String> = families
        .iter()
        .map(|(name, (kind, help))| format!("{name}` | {kind} | {help} |"))
        .collect();
    assert_eq!(told, expected, "the rows of docs/metrics.md, by name");
}

#[test]
fn who_may_see_them_is_who_may_see_the_rest_or_everybody() {
    let closed = with_http();
    let nobody = Http::new(closed.http_address().unwrap());
    nobody.get("/metrics").problem(401);
    let answer = Http::of(&closed).get("/metrics");
    assert_eq!(answer.status, 200);
    let kind = answer.header("content-type");
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    let open = open_broker();
    let nobody = Http::new(open.http_address().unwrap());
    assert_eq!(nobody.get("/metrics").status, 200);
}

#[test]
fn what_clients_send_and_get_is_counted() {
    let broker = open_broker();
    let mut old = Raw::connect(broker.address(), Version::V311, "old");
    old.send(&raw::subscribe(1, "t", 1));
    old.packet();
    let mut new = Raw::open(broker.address());
    let connect = b"\x10\x10\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x03new";
    new.send(connect);
    let connack = new.packet();
    let publish = b"\x32\x0c\x00\x01t\x00\x07\x00abcdef";
    new.send(publish);
    let puback = new.packet();
    let delivered = old.packet();
    assert_eq!(delivered.len(), publish.len() - 1);
    new.send(b"\xc0\x00");
    new.packet();
    let old_connect = raw::connect(Version::V311, "old", true, 0).len();
    let old_in = old_connect + raw::subscribe(1, "t", 1).len();
    let received = old_in + connect.len() + publish.len() + 2;
    let sent = 4 + 5 + delivered.len() + connack.len() + puback.len() + 2;
    let sent_bytes = r#"rotamq_network_bytes_total{direction="sent"}"#;
    let mut found = BTreeMap::new();
    // A client has what was written before that is counted.
    until("all is counted", || {
        found = values(&scrape(&broker));
        found[sent_bytes] == sent as f64 && found["rotamq_delivery_latency_seconds_count"] > 0.0
    });
    let count = |name: &str| {
        *found
            .get(name)
            .unwrap_or_else(|| panic!("{name}: {found:?}"))
    };
    let packets = |direction: &str, kind: &str, version: &str| {
        let labels = format!(r#"direction="{direction}",type="{kind}",version="{version}""#);
        count(&format!("rotamq_packets_total{{{labels}}}"))
    };
    for (direction, kind, version) in [
        ("received", "CONNECT", "3.1.1"),
        ("sent", "CONNACK", "3.1.1"),
        ("received", "SUBSCRIBE", "3.1.1"),
        ("sent", "SUBACK", "3.1.1"),
        ("sent", "PUBLISH", "3.1.1"),
        ("received", "CONNECT", "5"),
        ("sent", "CONNACK", "5"),
        ("received", "PUBLISH", "5"),
        ("sent", "PUBACK", "5"),
        ("received", "PINGREQ", "5"),
        ("sent", "PINGRESP", "5"),
    ] {
        assert_eq!(
            packets(direction, kind, version),
            1.0,
            "{direction} {kind} {version}"
        );
    }
    let all = found
        .iter()
        .filter(|(name, _)| name.starts_with("rotamq_packets_total"));
    assert_eq!(all.map(|(_, count)| count).sum::<f64>(), 11.0);
    for direction in ["received", "sent"] {
        let labels = format!(r#"direction="{direction}",qos="1""#);
        assert_eq!(
            count(&format!("rotamq_publish_messages_total{{{labels}}}")),
            1.0
        );
        let bytes = format!("rotamq_publish_payload_bytes_total{{{labels}}}");
        assert_eq!(count(&bytes), 6.0);
    }
    for (direction, bytes) in [("received", received), ("sent", sent)] {
        let name = format!(r#"rotamq_network_bytes_total{{direction="{direction}"}}"#);
        assert_eq!(count(&name), bytes as f64, "{direction}");
    }
    assert_eq!(count("rotamq_delivery_latency_seconds_count"), 1.0);
    let sum = count("rotamq_delivery_latency_seconds_sum");
    assert!(sum > 0.0 && sum < 60.0, "{sum}");
    assert_eq!(count(r#"rotamq_messages_in_flight{direction="out"}"#), 1.0);
    assert_eq!(count(r#"rotamq_sessions{state="connected"}"#), 2.0);
    assert_eq!(count(r#"rotamq_subscriptions{kind="ordinary"}"#), 1.0);
    assert_eq!(count("rotamq_connections"), 2.0);
}

/// A refused client is counted in full, too.
#[test]
fn refused_clients_are_counted_by_reason() {
    let broker = broker_with(|config| {
        config.http.address = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.allow_anonymous = false;
    });
    let mut raw = Raw::open(broker.address());
    raw.send(&raw::connect(Version::V311, "c", true, 0));
    assert_eq!(raw.packet(), [0x20, 2, 0, 5]);
    let found = values(&scrape(&broker));
    assert_eq!(
        found[r#"rotamq_connections_refused_total{reason="unknown"}"#],
        1.0
    );
    assert_eq!(
        found[r#"rotamq_connections_refused_total{reason="other"}"#],
        0.0
    );
    let connack = r#"rotamq_packets_total{direction="sent",type="CONNACK",version="3.1.1"}"#;
    assert_eq!(found[connack], 1.0);
    assert_eq!(
        found[r#"rotamq_network_bytes_total{direction="sent"}"#],
        4.0
    );
}

#[test]
fn queues_beyond_the_bound_are_told_together() {
    let broker = broker_with(|config| {
        config.http.address = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.http.metrics_queues_max = 2;
    });
    let mut client = Raw::connect(broker.address(), Version::V311, "c");
    for (id, queue) in ["c", "a", "b", "d", "c"].iter().enumerate() {
        client.send(&raw::publish(
            &format!("$queue/{queue}"),
            b"1",
            1,
            id as u16 + 1,
        ));
        client.packet();
    }
    let found = values(&scrape(&broker));
    let ready = |queue: &str| {
        let name = format!(r#"rotamq_queue_messages{{queue="{queue}",state="ready"}}"#);
        found.get(&name).copied()
    };
    assert_eq!(
        ["a", "b", "c", "$others"].map(ready),
        [Some(1.0), Some(1.0), None, Some(3.0)]
    );
    assert_eq!(found["rotamq_queues"], 4.0);
    let enqueued = |queue: &str| {
        let name = format!(r#"rotamq_queue_enqueued_total{{queue="{queue}"}}"#);
        found.get(&name).copied()
    };
    // A sum over the others would fall when one of them is deleted.
    assert_eq!(["a", "$others"].map(enqueued), [Some(1.0), None]);
}

#[test]
fn a_store_tells_of_its_commits() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("metrics-store");
    _ = std::fs::remove_dir_all(&folder);
    let broker = broker_with(|config| {
        config.http.address = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        config.store.ephemeral = false;
        config.store.data = folder;
    });
    let mut client = Raw::connect(broker.address(), Version::V311, "c");
    client.send(&raw::publish("$queue/q", b"1", 1, 1));
    client.packet();
    let found = values(&scrape(&broker));
    assert_eq!(found["rotamq_store_enabled"], 1.0);
    for at_least_one in [
        "rotamq_store_commit_duration_seconds_count",
        "rotamq_store_batch_records_count",
        "rotamq_store_syncs_total",
        "rotamq_store_written_bytes_total",
        "rotamq_store_disk_bytes",
    ] {
        assert!(found[at_least_one] >= 1.0, "{at_least_one}");
    }
    broker.stop();
}

/// It scrapes what the example configuration says, with a viewer's token.
#[test]
fn a_real_prometheus_scrapes_it() {
    let broker = with_http();
    let http = Http::of(&broker);
    let token = serde_json::json!({ "name": "prometheus", "role": "viewer" });
    let token = http.post("/api/v1/tokens", &token).ok()["token"].clone();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("prometheus");
    _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("rotamq.token"), token.as_str().unwrap()).unwrap();
    for rules in ["rotamq.rules.yml", "prometheus.yml"] {
        let text = text(&format!("config/prometheus/{rules}"));
        let target = broker.http_address().unwrap().to_string();
        let text = text
            .replace("127.0.0.1:18080", &target)
            .replace("15s", "1s");
        std::fs::write(folder.join(rules), text).unwrap();
    }
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let prometheus = Command::new("prometheus")
        .arg("--config.file=prometheus.yml")
        .arg("--storage.tsdb.path=data")
        .arg(format!("--web.listen-address={address}"))
        .current_dir(&folder)
        .stderr(Stdio::null())
        .spawn();
    let _prometheus = Killed(prometheus.expect("tests/run installs Prometheus"));
    until("Prometheus listens", || {
        std::net::TcpStream::connect(address).is_ok()
    });
    let _client = Raw::connect(broker.address(), Version::V311, "c");
    let asked = Http::new(address);
    let value = |query: &str| {
        let answer = asked.get(&format!("/api/v1/query?query={query}"));
        let found: Value = serde_json::from_slice(&answer.body).ok()?;
        let value = found["data"]["result"][0]["value"][1].as_str()?;
        Some(value.to_owned())
    };
    until("Prometheus has scraped it", || {
        value("up").as_deref() == Some("1") && value("rotamq_connections").as_deref() == Some("1")
    });
    // Its rules are loaded, and none of them fires.
    let rules = asked.get("/api/v1/rules").json();
    let rules = rules["data"]["groups"][0]["rules"]
        .as_array()
        .unwrap()
        .clone();
    assert!(rules.len() > 10, "{rules:?}");
    for rule in &rules {
        assert_eq!(rule["state"], "inactive", "{rule}");
    }
}
