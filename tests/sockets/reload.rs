//! The configuration is read again while clients are connected: what changes,
//! what does not, and what a broker with a wrong one does.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Output;

use rotamq::config::{Config, Listener, PortSettings, QueueSettings, StoreSettings};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::clients::http::Http;
use crate::clients::{Extra, Options, PAHO, PAHO_5, Version, broker_with};
use crate::process::{Program, free_port, output, rotamq};
use crate::raw::{self, Raw};
use crate::wait::until;

/// A broker with a data folder and a configuration file of its own.
struct Configured {
    program: Program,
    config: PathBuf,
    data: PathBuf,
}

impl Configured {
    fn start(name: &str, text: &str) -> Configured {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("reload-{name}"));
        _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let (config, data) = (folder.join("rotamq.toml"), folder.join("data"));
        fs::write(&config, text).unwrap();
        let mut command = rotamq(&["--config"]);
        command.arg(&config).arg("--data").arg(&data);
        let program = Program::start(&mut command, "listening on ");
        Configured {
            program,
            config,
            data,
        }
    }

    fn reload(&self, text: &str, arguments: &[&str]) -> Output {
        fs::write(&self.config, text).unwrap();
        let mut all = vec!["reload", "--data", self.data.to_str().unwrap()];
        all.extend(arguments);
        output(&all)
    }

    /// What has changed, as JSON.
    fn reloaded(&self, text: &str) -> Value {
        let output = self.reload(text, &["--json"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn keys(changes: &Value) -> Vec<&str> {
    let changes = changes.as_array().expect("an array");
    changes
        .iter()
        .map(|one| one["key"].as_str().unwrap())
        .collect()
}

/// Whether anybody listens there.
fn is_open(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

#[test]
fn a_listener_comes_and_goes_and_who_came_by_another_one_stays() {
    let (first, second) = (free_port(), free_port());
    let listener = |port: u16| format!("[[listener]]\naddress = '127.0.0.1:{port}'\n");
    let broker = Configured::start("listeners", &listener(first));
    let address = broker.program.address;
    let mut stays = PAHO_5.connect(address, "stays");
    assert_eq!(stays.subscribe(&["t"], 1), [1]);

    let both = [listener(first), listener(second)].concat();
    let reloaded = broker.reloaded(&both);
    assert_eq!(
        keys(&reloaded["changed"]),
        [format!("listener[127.0.0.1:{second}]")]
    );
    assert_eq!(keys(&reloaded["needs_restart"]), [""; 0]);
    let by_second = ([127, 0, 0, 1], second).into();
    let mut gone = [PAHO, PAHO_5].map(|peer| {
        let mut client = peer.connect(by_second, &format!("{:?}", peer.version));
        assert_eq!(client.subscribe(&["t"], 1), [1]);
        client.publish("t", b"by the second", 1, false);
        assert_eq!(stays.receive().text(), "by the second");
        client
    });

    let output = broker.reload(&listener(first), &[]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        said,
        format!("listener[127.0.0.1:{second}] is gone (at once)\n")
    );
    // Administrative action; 3.1.1 has no word for it.
    let reasons = gone.each_mut().map(|client| client.closed().reason);
    assert_eq!(reasons, [None, Some(0x98)]);
    assert!(!is_open(second));
    PAHO.publish(address, "t", "by the first", 1, false);
    assert_eq!(stays.receive().text(), "by the first");
}

/// SIGHUP, as the control socket, with everything that can be wrong at once.
#[test]
fn with_an_error_nothing_changes_and_all_errors_are_told() {
    let passwords = crate::process::file("reload.passwd", "ann:canary\n");
    let right = "limits.inflight_max = 7\n[[listener]]\naddress = '127.0.0.1:0'\n";
    let mut broker = Configured::start("wrong", right);
    let mut client = PAHO_5.connect(broker.program.address, "client");

    let wrong = "limits.inflight_max = 0\nlog.levle = 'info'\n";
    let output = broker.reload(wrong, &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    let path = broker.config.display();
    for line in [
        format!("rotamq: {path}:1: limits.inflight_max: must be a whole number"),
        format!("rotamq: {path}:2: log.levle: is no known key; the nearest is log.level"),
        "rotamq: nothing is changed".to_owned(),
    ] {
        assert!(said.contains(&line), "{line}: {said}");
    }

    // What it says is right, but a file that it names is not.
    let names_wrong = format!(
        "limits.inflight_max = 8\nallow_anonymous = true\n\
         authentication.password_file = {passwords:?}\naccess.acl_file = '/nowhere/acl'\n\
         [[listener]]\naddress = '127.0.0.1:0'\n"
    );
    fs::write(&broker.config, names_wrong).unwrap();
    broker.program.signal(Signal::HUP);
    let users = broker.program.line("the password file stays as it was");
    assert!(
        users.contains("reload.passwd:1: ") && !users.contains("canary"),
        "{users}"
    );
    let rules = broker.program.line("the access rules stay as they were");
    assert!(rules.contains("/nowhere/acl"), "{rules}");
    // The old limit holds, with which this is no change.
    let reloaded = broker.reloaded(right);
    assert_eq!(reloaded, json!({"changed": [], "needs_restart": []}));
    client.publish("t", b"m", 1, false);
    PAHO.publish(broker.program.address, "t", "m", 1, false);
}

#[test]
fn the_log_says_what_changed_and_what_needs_a_restart() {
    let listener = "[[listener]]\naddress = '127.0.0.1:0'\n";
    let mut broker = Configured::start("log", listener);
    let text = format!(
        "threads = 3\nstore.log_bytes_max = 8_388_608\nlog.level = 'debug'\n\
         session.full = 'refuse'\n{listener}[[queue]]\nname = 'jobs'\nprefetch = 3\n"
    );
    let output = broker.reload(&text, &[]);
    let said = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "log.level: \"debug\", and was \"info\" (at once)",
            "needs a restart: store.log_bytes_max: 8388608, and was 134217728",
            "needs a restart: threads: 3, and was 0",
            "queue[jobs] is new (at once)",
            "session.full: \"refuse\", and was \"end\" (at once)",
        ]
    );
    for line in ["changed: log.level", "needs a restart: threads: 3"] {
        broker.program.line(line);
    }
    // The level is in force.
    PAHO.publish(broker.program.address, "t", "m", 0, false);
    broker.program.line("DEBUG");
    // It is still so, and told again.
    let again = broker.reloaded(&text);
    assert_eq!(keys(&again["changed"]), [""; 0]);
    assert_eq!(keys(&again["needs_restart"]).len(), 2);
}

#[test]
fn limits_hold_at_once_or_for_who_connects_then() {
    let text = |limits: &str| format!("{limits}[[listener]]\naddress = '127.0.0.1:0'\n");
    let broker = Configured::start("limits", &text(""));
    let address = broker.program.address;
    let mut before = PAHO_5.connect(address, "before");
    let unlike = before.connack();
    broker.reloaded(&text(
        "[limits]\nreceive_max = 9\npacket_bytes_max = 1000\ntopic_levels_max = 2\n\
         [session]\ncheck_payload_format = true\n",
    ));
    let after = PAHO_5.connect(address, "after").connack();
    assert_eq!(
        (after.receive_maximum, after.packet_bytes_max),
        (Some(9), Some(1000))
    );
    assert_ne!(unlike.packet_bytes_max, Some(1000));
    // What it has agreed on stays; topics are everybody's.
    before.publish("a/b", &[b'x'; 5000], 1, false);
    let mut deep = Raw::connect(address, Version::V311, "deep");
    deep.send(&raw::publish("a/b/c", b"", 0, 0));
    assert_eq!(deep.read(), None);
    broker.reloaded(&text(""));
    before.publish("a/b/c", b"", 1, false);
}

#[test]
fn queues_that_are_there_get_what_their_table_says_now() {
    let queue = |name: &str| QueueSettings {
        name: name.to_owned(),
        ..QueueSettings::default()
    };
    let config = |queues: &[QueueSettings]| Config {
        listeners: vec![Listener::new("127.0.0.1:0".parse().unwrap())],
        http: PortSettings {
            address: "127.0.0.1:0".parse().ok(),
            ..Config::default().http
        },
        store: StoreSettings {
            ephemeral: true,
            ..StoreSettings::default()
        },
        queue: queues.to_vec(),
        ..Config::default()
    };
    let broker = broker_with(|own| *own = config(&[queue("kept")]));
    let (address, http) = (broker.address(), Http::of(&broker));
    let shown = |queue: &str| http.get(&format!("/api/v1/queues/{queue}")).ok();
    let setting = |queue: &str, key: &str| shown(queue)["settings"][key].clone();
    PAHO.publish(address, "$queue/jobs", "1", 1, false);
    PAHO_5.publish(address, "$queue/jobs", "2", 1, false);
    let mut worker = PAHO_5.open(Options::clean(address, "worker").manual());
    assert_eq!(worker.subscribe(&["$queue/jobs"], 1), [1]);
    let first = [worker.receive(), worker.receive()];

    let mut changed = config(&[
        queue("kept"),
        QueueSettings {
            prefetch: 1,
            messages_max: 3,
            filters: vec!["orders/#".to_owned()],
            ..queue("jobs")
        },
        queue("new"),
    ]);
    changed.queues.default.deliveries_max = 3;
    let reloaded = broker.reload_with(changed).unwrap();
    let keys: Vec<_> = reloaded.changed.iter().map(|change| &*change.key).collect();
    assert_eq!(keys, ["queues.max_deliveries", "queue[jobs]", "queue[new]"]);
    // It holds for who is a member, and the new filter feeds it.
    PAHO.publish(address, "orders/3", "3", 1, false);
    let mut full = PAHO_5.connect(address, "full");
    let reason = full.publish_with("$queue/jobs", b"4", 1, false, &Extra::default());
    assert_eq!(reason, 0x97, "it has max_messages");
    worker.acknowledge(&first[0]);
    worker.acknowledge(&first[1]);
    assert_eq!(worker.receive().text(), "3");
    assert_eq!(setting("jobs", "prefetch"), 1);
    assert_eq!(shown("jobs")["configured"], "file");
    assert_eq!(shown("new")["ready"], 0);

    // What it was given while the broker ran stays on top.
    http.patch("/api/v1/queues/jobs", &json!({"settings": {"ttl_secs": 9}}))
        .ok();
    broker.reload_with(config(&[])).unwrap();
    assert_eq!(
        [setting("jobs", "prefetch"), setting("jobs", "ttl_secs")],
        [16, 9]
    );
    assert_eq!(shown("kept")["configured"], "on-the-fly");
    PAHO.publish(address, "orders/5", "5", 1, false);
    assert_eq!(shown("jobs")["enqueued"], 3, "that filter feeds it no more");
}

/// Within another program: the same by a call.
#[test]
fn an_embedded_broker_is_given_another_configuration() {
    let any = || Listener::new("127.0.0.1:0".parse().unwrap());
    let mut fewer = Config::default();
    let broker = broker_with(|config| {
        config.listeners = vec![any(), any()];
        fewer = config.clone();
    });
    let [one, other] = [0, 1].map(|index| crate::tls::tcp(&broker, index));
    let mut kept = PAHO_5.connect(one, "kept");
    let mut named = PAHO_5.open(Options::persistent(other, "named"));
    fewer.listeners.pop();
    fewer.limits.sessions_max = 2;
    fewer.threads = 5;
    let reloaded = broker.reload_with(fewer.clone()).unwrap();
    let keys = |changes: &[rotamq::config::Change]| {
        let keys = changes.iter().map(|change| change.key.clone());
        keys.collect::<Vec<_>>()
    };
    assert_eq!(
        keys(&reloaded.changed),
        ["limits.sessions_max", "listener[127.0.0.1:0]#2"]
    );
    assert_eq!(keys(&reloaded.needs_restart), ["threads"]);
    assert_eq!(named.closed().reason, Some(0x98));
    until("its connections are closed", || {
        broker.connections_len() == 1
    });
    assert_eq!(broker.addresses().len(), 1);
    // Its session is there all the same, and no third one may be.
    assert_eq!(
        PAHO_5.refused(&Options::clean(one, "third")).reason,
        Some(0x97)
    );
    let back = PAHO_5.open(Options::persistent(one, "named"));
    assert_eq!(back.session_present(), Some(true));
    kept.publish("t", b"m", 1, false);

    // An address that is taken: nothing changes.
    let mut taken = fewer;
    taken.limits.sessions_max = 9;
    taken.listeners.push(Listener::new(one.into()));
    let error = broker.reload_with(taken).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("cannot listen on {one}: ")),
        "{error}"
    );
    assert_eq!(
        PAHO_5.refused(&Options::clean(one, "third")).reason,
        Some(0x97)
    );
    broker.stop();
}

#[test]
fn who_asks_a_broker_that_is_not_there_is_told_so() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("reload-nobody");
    let output = output(&["reload", "--data", folder.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(5));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("no broker runs on the data folder"), "{said}");
}
