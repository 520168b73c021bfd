//! The configuration: one table of options, read from a file, the environment
//! and flags.

use std::ffi::OsString;
use std::path::Path;

use rotamq::access::rules::Strictness;
use rotamq::config::{
    Config, Effective, Flags, HttpAddress, Limits, Network, Origin, QueueSettings, Source, Value,
    example, queue_keys, queue_settings,
};

fn source(text: &str) -> Source {
    Source {
        path: Path::new("rotamq.toml").into(),
        text: text.to_owned(),
    }
}

fn load(text: &str, environment: &[(&str, &str)], flags: &Flags) -> Result<Effective, String> {
    let environment = environment
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Effective::load(Some(&source(text)), environment, flags).map_err(|error| error.to_string())
}

fn file(text: &str) -> Result<Effective, String> {
    load(text, &[], &Flags::default())
}

/// The example with its commented options made real.
fn uncommented() -> String {
    let lines = example()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|char: char| char != ' ') => rest.to_owned(),
            _ => line.to_owned(),
        })
        .collect::<Vec<_>>();
    lines.join("\n")
}

#[test]
fn the_file_in_the_repository_is_the_table_written_out() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/rotamq.toml");
    let text = std::fs::read_to_string(path).unwrap();
    assert!(
        text == example(),
        "config/rotamq.toml differs from the options; write it anew: \
         cargo run -- config example > config/rotamq.toml"
    );
}

#[test]
fn the_example_changes_nothing() {
    assert_eq!(file(&example()).unwrap().config, Config::default());
    assert_eq!(file("").unwrap().config, Config::default());
}

#[test]
fn the_example_has_every_option_with_its_default_and_bounds() {
    let text = uncommented();
    let effective = file(&text).unwrap();
    let objects = effective.to_json();
    let objects = objects.as_array().unwrap();
    // 3 at the top, 26 of a listener, 33 of authentication, 3 of access, 5 of the store, 37 limits,
    // 10 of sessions, 3 + 24 of queues, 5 of the HTTP port, 1 of $SYS, 3 of the log, 2 + 24 of a
    // queue, 3 of its member.
    assert_eq!(
        objects.len(),
        3 + 26 + 33 + 3 + 5 + 37 + 10 + 27 + 5 + 1 + 3 + 26 + 3
    );
    let lines: Vec<_> = text.lines().collect();
    for object in objects {
        let key = object["key"].as_str().unwrap();
        let origin = &object["origin"];
        assert_eq!(origin["kind"], "file", "{key} is not in the example");
        let line = origin["line"].as_u64().unwrap() as usize;
        let last = key.rsplit('.').next().unwrap();
        assert!(lines[line - 1].starts_with(&format!("{last} = ")), "{key}");
        if !key.starts_with("queue[0].") || ["name", "filters"].contains(&last) {
            let bounds = ["# A ", "# An ", "# True or false.", "# \""];
            let above = lines[line - 2];
            assert!(
                bounds.iter().any(|bound| above.starts_with(bound)),
                "{key}: {above}"
            );
            assert!(lines[line - 3].starts_with("# "), "{key} has no sentence");
        }
    }
}

/// Case C25 of docs/security.md.
#[test]
fn every_bound_is_a_bound() {
    let text = example();
    let mut section = String::new();
    let mut bounds = None;
    let mut tried = 0;
    for line in text.lines() {
        if line.starts_with('[') {
            section = line.to_owned();
        } else if let Some(range) = line.strip_prefix("# A whole number from ") {
            let range = range.trim_end_matches('.').replace('_', "");
            let (min, max) = range.split_once(" to ").unwrap();
            bounds = Some((min.parse::<u64>().unwrap(), max.parse::<u64>().unwrap()));
        } else if line.starts_with('#') && !line.starts_with("# ") {
            bounds = None; // of a key that is not set by default
        } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#'))
            && let Some((min, max)) = bounds.take()
        {
            let (table, address) = match &*section {
                "[[listener]]" => ("listener[0]", "address = '127.0.0.1:1883'\n"),
                section => (section.trim_matches(['[', ']']), ""),
            };
            let set = |number: i128| file(&format!("{section}\n{address}{key} = {number}\n"));
            for number in [i128::from(min), i128::from(max)] {
                let effective = set(number).unwrap();
                let shown = effective.to_toml();
                let path = format!("{table}.{key}");
                let path = path.trim_start_matches('.');
                assert_ne!(effective.origin(path), &Origin::Default, "{path}");
                assert_eq!(file(&shown).unwrap().config, effective.config, "{path}");
                let json = effective.to_json();
                let object = json.as_array().unwrap().iter().find(|o| o["key"] == path);
                assert_eq!(
                    i128::from(object.unwrap()["value"].as_u64().unwrap()),
                    number
                );
            }
            for number in [i128::from(min) - 1, i128::from(max) + 1] {
                let error = set(number).unwrap_err();
                assert!(error.contains("must be a whole number from "), "{error}");
            }
            tried += 1;
        }
    }
    assert_eq!(tried, 1 + 5 + 19 + 2 + 36 + 4 + 2 + 1 + 14 + 3);
}

#[test]
fn what_is_shown_is_a_file_that_says_the_same() {
    for text in [example(), uncommented(), full()] {
        let effective = file(&text).unwrap();
        let again = file(&effective.to_toml()).unwrap();
        assert_eq!(again.config, effective.config);
    }
}

/// Every option at a value that is not its default.
fn full() -> String {
    r##"
threads = 3
user = "mqtt"
allow_anonymous = false
listener = [{ address = "0.0.0.0:1884", durability = "synced" }, { address = "[::]:0" },
    { address = "127.0.0.1:8883", protocol = "websocket", tls_certificate = "c.pem", tls_key = "k.pem",
      tls_client_ca = "ca.pem", tls_client_certificates = "optional", tls_crl = "crl.pem",
      tls_min_version = "1.3", websocket_path = "/ws", websocket_origins = ["https://a.example:1"],
      proxy_trusted = ["10.0.0.0/8", "::1"], tls_client_user = "dn",
      authentication = ["scram", "certificate"], allow_anonymous = true, connections_max = 101,
      connect_timeout_ms = 102, packet_bytes_max = 128, subscriptions_per_client_max = 103,
      keep_alive_secs_max = 0, mount_point = "site/1/",
      connections_per_sec_max = 50, messages_per_sec_in_max = 51, bytes_per_sec_in_max = 52,
      messages_per_sec_out_max = 53, bytes_per_sec_out_max = 54 },
    { address = "unix:/run/mqtt.sock", unix_mode = "0600" }]

[authentication]
password_file = "users"
hashing_threads = 2
hashing_waiting_max = 7
jwt_keys = "keys"
jwt_algorithms = ["EdDSA", "PS384"]
jwt_user_claim = "name"
jwt_client_claim = "device"
jwt_rights_claim = "rights"
jwt_keys_refresh_secs = 13
jwt_keys_pause_secs = 14
jwt_issuer = "https://login.example"
jwt_audience = "mqtt"
jwt_leeway_secs = 12
jwt_require_expiry = false
http_address = "https://auth.example:8443/mqtt?a=b"
http_headers_file = "headers"
http_ca_file = "ca.pem"
http_timeout_ms = 70
http_connections_max = 5
http_waiting_max = 6
http_cache_yes_secs = 7
http_cache_no_secs = 8
http_cache_entries_max = 9
http_failures_max = 10
http_pause_secs = 11
http_rights = true
failures_per_address_max = 8
failures_per_client_max = 9
failures_within_secs = 10
connects_per_client_max = 13
connects_within_secs = 14
ban_secs = 11

[access]
acl_file = "acl"
rules_file = "rules.toml"
subscriptions = "refuse"

[store]
data = "../kept \u00e9"
ephemeral = true
durability = "memory"
free_bytes_min = 0
log_bytes_max = 5_000_000

[limits]
connections_max = 1
connect_timeout_ms = 1_000
connect_packet_bytes_max = 0x1000
packet_bytes_max = 0o10000
client_id_bytes_max = 23
topic_bytes_max = 100
topic_levels_max = 9
subscriptions_per_client_max = 2
sessions_max = 3
inflight_max = 4
receive_max = 40
topic_aliases_max = 41
session_messages_max = 5
session_bytes_max = 6000
outbox_bytes_max = 7000
held_bytes_max = 8000
held_timeout_ms = 9
unacknowledged_in_max = 42
retained_messages_max = 10
retained_bytes_max = 11000
queues_max = 12
match_cache_bytes_max = 130000
traces_bytes_max = 131000
stop_timeout_ms = 14
drain_per_sec = 15
connections_per_sec_max = 60
half_open_per_address_max = 61
connections_per_user_max = 62
messages_per_sec_in_max = 63
bytes_per_sec_in_max = 64
messages_per_sec_out_max = 65
bytes_per_sec_out_max = 66
user_messages_per_sec_in_max = 67
user_bytes_per_sec_in_max = 68
user_messages_per_sec_out_max = 69
user_bytes_per_sec_out_max = 70
memory_bytes_max = 71

[session]
full = "refuse"
expiry_default_secs = 15
expiry_max_secs = 150
keep_alive_secs_max = 151
response_information = "answers/%c"
server_reference = "other:1883"
redirect = "temporarily"
check_payload_format = true
will_restart_grace_secs = 152
store_qos0 = true

[queues]
auto_create = false
auto_delete_after_secs = 16
sys_interval_secs = 20
prefetch = 17
ack_timeout_ms = 0
exclusive = true
dispatch = "least-inflight"
topic = "original"
qos0_members = false
undecided = "redeliver"
undecided_after_secs = 18
max_deliveries = 24
backoff_min_ms = 25
backoff_max_secs = 26
ttl_secs = 27
dead_letter_expired = true
priority = 9
group_level = 28
fair = true
last_value = "property:device"
dedup_window_secs = 29
max_messages = 19
max_bytes = 20000
max_message_bytes = 30
overflow = "dead-letter-oldest"
trace_events_max = 31
durability = "flushed"

[sys]
interval_secs = 73

[http]
address = "127.0.0.1:9"
tls_certificate = "http.pem"
tls_key = "http.key"
open_metrics = true
metrics_queues_max = 74
login_expiry_secs = 72
host_names = ["mqtt.example.org"]

[log]
level = "trace"
format = "json"
kept_lines = 16

[[queue]]
name = "$dead/jobs"

[[queue]]
name = "jobs"
filters = ["a/+", "#"]
prefetch = 21
ack_timeout_ms = 22
exclusive = false
durability = "synced"
[[queue.member]]
client = "one\u007f\n\"two\""
ack_timeout_ms = 0
[[queue.member]]
client = "*"
prefetch = 23
"##
    .to_owned()
}

#[test]
fn each_option_sets_its_field() {
    use rotamq::config::*;
    use std::time::Duration;
    let secs = Duration::from_secs;
    let millis = Duration::from_millis;
    let listener = |text: &str| Listener::new(text.parse().unwrap());
    let rates = |first: u64| Rates {
        messages_in: first,
        bytes_in: first + 1,
        messages_out: first + 2,
        bytes_out: first + 3,
    };
    let default = QueueSettings {
        name: String::new(),
        filters: vec![],
        prefetch: 17,
        ack_timeout: None,
        exclusive: true,
        dispatch: Dispatch::LeastInflight,
        topic: QueueTopic::Original,
        qos0_members: false,
        undecided: Undecided::Redeliver,
        undecided_after: secs(18),
        deliveries_max: 24,
        backoff_min: millis(25),
        backoff_max: secs(26),
        ttl: Some(secs(27)),
        dead_letter_expired: true,
        priority: 9,
        group_level: 28,
        fair: true,
        last_value: LastValue::Property("device".to_owned()),
        dedup_window: secs(29),
        messages_max: 19,
        bytes_max: 20_000,
        message_bytes_max: 30,
        overflow: Overflow::DeadLetterOldest,
        trace_events_max: 31,
        durability: Some(Durability::Flushed),
        members: vec![],
    };
    let expected = Config {
        user: Some("mqtt".to_owned()),
        threads: 3,
        allow_anonymous: false,
        listeners: vec![
            Listener {
                durability: Some(Durability::Synced),
                ..listener("0.0.0.0:1884")
            },
            listener("[::]:0"),
            Listener {
                protocol: Protocol::WebSocket,
                tls: TlsSettings {
                    certificate: Some("c.pem".into()),
                    key: Some("k.pem".into()),
                    client_ca: Some("ca.pem".into()),
                    client_certificates: Some(ClientCertificates::Optional),
                    client_user: Some(ClientUser::DistinguishedName),
                    crl: Some("crl.pem".into()),
                    version_min: TlsVersion::V1_3,
                },
                websocket: WebSocketSettings {
                    path: "/ws".to_owned(),
                    origins: vec!["https://a.example:1".to_owned()],
                },
                proxy_trusted: vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
                authentication: Some(vec![
                    AuthenticatorKind::Scram,
                    AuthenticatorKind::Certificate,
                ]),
                allow_anonymous: Some(true),
                mount_point: Some("site/1/".to_owned()),
                limits: ListenerLimits {
                    connections_max: Some(101),
                    connect_timeout: Some(millis(102)),
                    packet_bytes_max: Some(128),
                    subscriptions_per_client_max: Some(103),
                    keep_alive_secs_max: Some(0),
                },
                connections_per_sec_max: 50,
                rates: rates(51),
                ..listener("127.0.0.1:8883")
            },
            Listener {
                address: Address::Unix("/run/mqtt.sock".into()),
                unix_mode: 0o600,
                ..listener("127.0.0.1:0")
            },
        ],
        authentication: AuthenticationSettings {
            password_file: Some("users".into()),
            hashing_threads: 2,
            hashing_waiting_max: 7,
            tokens: TokenSettings {
                keys: Some(KeysAt::File("keys".into())),
                keys_ca_file: None,
                keys_refresh: secs(13),
                keys_pause: secs(14),
                algorithms: vec![TokenAlgorithm::EdDSA, TokenAlgorithm::PS384],
                user_claim: "name".to_owned(),
                client_claim: "device".to_owned(),
                rights_claim: "rights".to_owned(),
                issuer: "https://login.example".to_owned(),
                audience: "mqtt".to_owned(),
                leeway: secs(12),
                require_expiry: false,
            },
            http: HttpSettings {
                address: Some("https://auth.example:8443/mqtt?a=b".parse().unwrap()),
                headers_file: Some("headers".into()),
                ca_file: Some("ca.pem".into()),
                timeout: Duration::from_millis(70),
                connections_max: 5,
                waiting_max: 6,
                cache_yes: secs(7),
                cache_no: secs(8),
                cache_entries_max: 9,
                failures_max: 10,
                pause: secs(11),
                rights: true,
            },
            ban: BanSettings {
                failures_per_address_max: 8,
                failures_per_client_max: 9,
                within: secs(10),
                connects_per_client_max: 13,
                connects_within: secs(14),
                lasts: secs(11),
            },
        },
        access: AccessSettings {
            acl_file: Some("acl".into()),
            rules_file: Some("rules.toml".into()),
            subscriptions: Strictness::Refuse,
        },
        store: StoreSettings {
            data: "../kept é".into(),
            ephemeral: true,
            durability: Durability::Memory,
            free_bytes_min: 0,
            log_bytes_max: 5_000_000,
        },
        limits: Limits {
            connections_max: 1,
            connect_timeout: secs(1),
            connect_packet_bytes_max: 4096,
            packet_bytes_max: 4096,
            client_id_bytes_max: 23,
            topic_bytes_max: 100,
            topic_levels_max: 9,
            subscriptions_per_client_max: 2,
            sessions_max: 3,
            inflight_max: 4,
            receive_max: 40,
            topic_aliases_max: 41,
            session_messages_max: 5,
            session_bytes_max: 6000,
            outbox_bytes_max: 7000,
            held_bytes_max: 8000,
            held_timeout: millis(9),
            unacknowledged_in_max: 42,
            retained_messages_max: 10,
            retained_bytes_max: 11_000,
            queues_max: 12,
            match_cache_bytes_max: 130_000,
            traces_bytes_max: 131_000,
            stop_timeout: millis(14),
            drain_per_sec: 15,
            connections_per_sec_max: 60,
            half_open_per_address_max: 61,
            connections_per_user_max: 62,
            client_rates: rates(63),
            user_rates: rates(67),
            memory_bytes_max: Some(71),
        },
        session: SessionSettings {
            full: SessionFull::Refuse,
            expiry_default: secs(15),
            expiry_max: secs(150),
            keep_alive_secs_max: std::num::NonZeroU16::new(151),
            response_information: "answers/%c".to_owned(),
            server_reference: "other:1883".to_owned(),
            redirect: Redirect::Temporarily,
            check_payload_format: true,
            will_restart_grace: secs(152),
            store_qos0: true,
        },
        queues: QueuesSettings {
            auto_create: false,
            auto_delete_after: secs(16),
            sys_interval: secs(20),
            default: default.clone(),
        },
        queue: vec![
            // What a [[queue]] leaves out is as in [queues].
            QueueSettings {
                name: "$dead/jobs".to_owned(),
                ..default.clone()
            },
            QueueSettings {
                name: "jobs".to_owned(),
                filters: vec!["a/+".to_owned(), "#".to_owned()],
                prefetch: 21,
                ack_timeout: Some(millis(22)),
                exclusive: false,
                durability: Some(Durability::Synced),
                members: vec![
                    MemberSettings {
                        client: "one\u{7f}\n\"two\"".to_owned(),
                        prefetch: None,
                        ack_timeout: Some(Duration::MAX),
                    },
                    MemberSettings {
                        client: "*".to_owned(),
                        prefetch: Some(23),
                        ack_timeout: None,
                    },
                ],
                ..default
            },
        ],
        sys: SysSettings { interval: secs(73) },
        http: PortSettings {
            address: Some("127.0.0.1:9".parse().unwrap()),
            tls: TlsSettings {
                certificate: Some("http.pem".into()),
                key: Some("http.key".into()),
                ..TlsSettings::default()
            },
            open_metrics: true,
            metrics_queues_max: 74,
            login_expiry: secs(72),
            host_names: vec!["mqtt.example.org".into()],
        },
        log: LogSettings {
            level: LogLevel::Trace,
            format: LogFormat::Json,
            kept_lines: 16,
        },
    };
    assert_eq!(file(&full()).unwrap().config, expected);
}

/// A file, and all that is said of it.
const ERRORS: &[(&str, &[&str])] = &[
    (
        "threds = 3",
        &["rotamq.toml:1: threds: is no known key; the nearest is threads"],
    ),
    (
        "\n\n[limits]\ninflite_max = 3\n",
        &["rotamq.toml:4: limits.inflite_max: is no known key; the nearest is limits.inflight_max"],
    ),
    (
        // In the wrong place: the nearest is where it belongs.
        "inflight_max = 3",
        &["rotamq.toml:1: inflight_max: is no known key; the nearest is limits.inflight_max"],
    ),
    (
        "[limits]\nprefetch = 3",
        &["rotamq.toml:2: limits.prefetch: is no known key; the nearest is queues.prefetch"],
    ),
    (
        "[[queue]]\nname = 'a'\nprefech = 3",
        &["rotamq.toml:3: queue[0].prefech: is no known key; the nearest is queue.prefetch"],
    ),
    (
        "[[queue]]\nname = 'a'\n[[queue.member]]\nclient = 'a'\n[[queue.member]]\nclient = 'b'\nexclusive = true",
        &[
            "rotamq.toml:7: queue[0].member[1].exclusive: is no known key; the nearest is queue.exclusive",
        ],
    ),
    (
        "[sesion]\nfull = 'end'",
        &["rotamq.toml:1: sesion: is no section; the nearest is [session]"],
    ),
    (
        "limits = 3",
        &["rotamq.toml:1: limits: must be a table, [limits], not 3"],
    ),
    (
        "[[limits]]",
        &["rotamq.toml:1: limits: must be a table, [limits], not an array of other things"],
    ),
    (
        "[listener]\naddress = '127.0.0.1:1'",
        &["rotamq.toml:1: listener: must be [[listener]] tables, not a table"],
    ),
    (
        "listener = []",
        &["rotamq.toml:1: listener: is empty: leave it out, or write a [[listener]]"],
    ),
    (
        "queue = [1]",
        &["rotamq.toml:1: queue: must be [[queue]] tables, not 1"],
    ),
    (
        "threads = '3'",
        &["rotamq.toml:1: threads: must be a whole number from 0 to 1024, not \"3\""],
    ),
    (
        "threads = 3.0",
        &["rotamq.toml:1: threads: must be a whole number from 0 to 1024, not 3.0"],
    ),
    (
        "threads = -1",
        &["rotamq.toml:1: threads: must be a whole number from 0 to 1024, not -1"],
    ),
    (
        "threads = 99999999999999999999999999999999999999999",
        &[
            "rotamq.toml:1: threads: must be a whole number from 0 to 1024, not 99999999999999999999999999999999999999999",
        ],
    ),
    (
        "threads = true",
        &["rotamq.toml:1: threads: must be a whole number from 0 to 1024, not true"],
    ),
    (
        "threads = [3]",
        &[
            "rotamq.toml:1: threads: must be a whole number from 0 to 1024, not an array of other things",
        ],
    ),
    (
        "threads = 2020-01-01",
        &["rotamq.toml:1: threads: must be a whole number from 0 to 1024, not a date or time"],
    ),
    (
        "allow_anonymous = 1",
        &["rotamq.toml:1: allow_anonymous: must be true or false, not 1"],
    ),
    (
        "[limits]\ninflight_max = 0\nconnect_timeout_ms = '10s'",
        &[
            "rotamq.toml:2: limits.inflight_max: must be a whole number from 1 to 65_535, not 0",
            "rotamq.toml:3: limits.connect_timeout_ms: must be a whole number from 100 to 600_000, not \"10s\"",
        ],
    ),
    (
        "[authentication]\nhttp_address = 'http://[::1]/'\nhttp_timeout_ms = 600\n[limits]\nconnect_timeout_ms = 500\n[[listener]]\naddress = '127.0.0.1:1'\nconnect_timeout_ms = 599\n[[listener]]\naddress = '127.0.0.1:2'\nconnect_timeout_ms = 600",
        &[
            "rotamq.toml:3: authentication.http_timeout_ms: is 600, more than limits.connect_timeout_ms, after which clients are closed: lower it, or raise that",
            "rotamq.toml:8: listener[0].connect_timeout_ms: is less than authentication.http_timeout_ms, which is 600: clients would be closed before the service has failed",
        ],
    ),
    (
        "[session]\nfull = 'End'",
        &[
            "rotamq.toml:2: session.full: must be \"end\", \"refuse\" or \"drop-oldest\", not \"End\"",
        ],
    ),
    (
        "[[listener]]\naddress = 'localhost:1883'",
        &[
            "rotamq.toml:2: listener[0].address: must be an IP address and a port or a Unix socket, as in \"127.0.0.1:1883\", \"[::1]:1883\" or \"unix:/run/rotamq/mqtt.sock\", not \"localhost:1883\"",
        ],
    ),
    (
        "[[listener]]\n[[listener]]\naddres = '127.0.0.1:1'",
        &[
            "rotamq.toml:1: listener[0]: needs the key address",
            "rotamq.toml:2: listener[1]: needs the key address",
            "rotamq.toml:3: listener[1].addres: is no known key; the nearest is listener.address",
        ],
    ),
    (
        "[[listener]]\naddress = '127.0.0.1:1'\n[[listener]]\naddress = '127.0.0.1:1'",
        &["rotamq.toml:4: listener[1].address: 127.0.0.1:1 is listened on already"],
    ),
    (
        "[[listener]]\naddress = 'unix:a'\n[[listener]]\naddress = 'unix:a'\nunix_mode = '0o600'\n[[listener]]\naddress = 'unix:'",
        &[
            "rotamq.toml:4: listener[1].address: unix:a is listened on already",
            "rotamq.toml:5: listener[1].unix_mode: must be a mode in octal digits, as in \"0660\", not \"0o600\"",
            "rotamq.toml:7: listener[2].address: must be an IP address and a port or a Unix socket, as in \"127.0.0.1:1883\", \"[::1]:1883\" or \"unix:/run/rotamq/mqtt.sock\", not \"unix:\"",
        ],
    ),
    (
        "[[listener]]\naddress = '127.0.0.1:1'\ntls_certificate = 'c'\ntls_client_certificates = 'optional'\ntls_crl = 'r'\ntls_min_version = '1.1'\nproxy_trusted = ['10.0.0.0/33']\nwebsocket_origins = ['example.org']\nwebsocket_path = 'mqtt'",
        &[
            "rotamq.toml:3: listener[0].tls_certificate: needs tls_key",
            "rotamq.toml:4: listener[0].tls_client_certificates: needs tls_client_ca, with the authorities that sign them",
            "rotamq.toml:5: listener[0].tls_crl: needs tls_client_ca",
            "rotamq.toml:6: listener[0].tls_min_version: must be \"1.2\" or \"1.3\", not \"1.1\"",
            "rotamq.toml:7: listener[0].proxy_trusted: must be an array of networks, as in [\"10.0.0.0/8\", \"::1\"], not [\"10.0.0.0/33\"]",
            "rotamq.toml:8: listener[0].websocket_origins: must be an array of origins, as in [\"https://app.example.org\"], not [\"example.org\"]",
            "rotamq.toml:9: listener[0].websocket_path: must be a path that begins with /, as in \"/mqtt\", or \"\" for any, not \"mqtt\"",
        ],
    ),
    (
        "[[listener]]\naddress = 'unix:a'\ntls_key = 'k'\ntls_client_ca = 'a'\ntls_min_version = '1.3'\nwebsocket_path = '/'\nwebsocket_origins = ['http://a']\nproxy_trusted = ['::1']\n[[listener]]\naddress = '127.0.0.1:1'\nunix_mode = '0600'",
        &[
            "rotamq.toml:3: listener[0].tls_key: needs tls_certificate",
            "rotamq.toml:4: listener[0].tls_client_ca: needs tls_certificate and tls_key",
            "rotamq.toml:5: listener[0].tls_min_version: needs tls_certificate and tls_key",
            "rotamq.toml:6: listener[0].websocket_path: needs protocol = \"websocket\"",
            "rotamq.toml:7: listener[0].websocket_origins: needs protocol = \"websocket\"",
            "rotamq.toml:8: listener[0].proxy_trusted: is for IP addresses: who connects to a Unix socket has none",
            "rotamq.toml:11: listener[1].unix_mode: needs an address that begins with unix:",
        ],
    ),
    (
        "[[listener]]\naddress = '127.0.0.1:1'\nauthentication = ['certificate', 'token', 'scram', 'scram']\ntls_client_user = 'cn'\n[[listener]]\naddress = '127.0.0.1:2'\nauthentication = ['passwords']\nallow_anonymous = 1\nkeep_alive_secs_max = 65536\n[[listener]]\naddress = '127.0.0.1:3'\nauthentication = ['certificate']",
        &[
            "rotamq.toml:3: listener[0].authentication: \"token\" needs jwt_keys in [authentication]",
            "rotamq.toml:3: listener[0].authentication: \"scram\" needs password_file in [authentication]",
            "rotamq.toml:3: listener[0].authentication: \"scram\" needs password_file in [authentication]",
            "rotamq.toml:3: listener[0].authentication: names somebody twice, who is asked once",
            "rotamq.toml:4: listener[0].tls_client_user: needs tls_client_ca, and certificates that are asked for",
            "rotamq.toml:7: listener[1].authentication: must be an array of \"certificate\", \"token\", \"password\", \"scram\" and \"http\", not [\"passwords\"]",
            "rotamq.toml:8: listener[1].allow_anonymous: must be true or false, not 1",
            "rotamq.toml:9: listener[1].keep_alive_secs_max: must be a whole number from 0 to 65_535, not 65536",
            "rotamq.toml:12: listener[2].authentication: \"certificate\" needs tls_client_user",
        ],
    ),
    (
        "[limits]\ntopic_bytes_max = 10\ntopic_levels_max = 2\n[[listener]]\naddress = '127.0.0.1:1'\nmount_point = 'site1'\n[[listener]]\naddress = '127.0.0.1:2'\nmount_point = 'a/b/'\n[[listener]]\naddress = '127.0.0.1:3'\nmount_point = 'ten-bytes/'\n[[listener]]\naddress = '127.0.0.1:4'\nmount_point = '$SYS/'",
        &[
            "rotamq.toml:6: listener[0].mount_point: must be a beginning of topics that ends with /, as in \"site1/\", not \"site1\"",
            "rotamq.toml:9: listener[1].mount_point: leaves no room for a topic: see topic_bytes_max, topic_levels_max",
            "rotamq.toml:12: listener[2].mount_point: leaves no room for a topic: see topic_bytes_max, topic_levels_max",
            "rotamq.toml:15: listener[3].mount_point: must be a beginning of topics that ends with /, as in \"site1/\", not \"$SYS/\"",
        ],
    ),
    (
        "[[listener]]\naddress = '0.0.0.0:1883'\n[[listener]]\naddress = '[::ffff:127.0.0.1]:1'",
        &[
            "rotamq.toml:2: listener[0].address: other machines reach 0.0.0.0:1883, and there are no users, so that anyone could connect: set allow_anonymous = true if that is meant (by flag, --allow-anonymous), or listen on 127.0.0.1",
        ],
    ),
    (
        "[store]\ndata = ''\nephemeral = 'yes'\ndurability = 'fsync'\nlog_bytes_max = 4_194_303",
        &[
            "rotamq.toml:2: store.data: must be a folder's path, as in \"/var/lib/rotamq\", not \"\"",
            "rotamq.toml:3: store.ephemeral: must be true or false, not \"yes\"",
            "rotamq.toml:4: store.durability: must be \"memory\", \"flushed\" or \"synced\", not \"fsync\"",
            "rotamq.toml:5: store.log_bytes_max: must be a whole number from 4_194_304 to 68_719_476_736, not 4194303",
        ],
    ),
    (
        "[store]\ndata = \"a\\u0000b\"\ndurabilty = 'synced'\n[queues]\ndurability = true\n[[listener]]\naddress = '127.0.0.1:1'\ndurability = 'Synced'",
        &[
            "rotamq.toml:2: store.data: must be a folder's path, as in \"/var/lib/rotamq\", not \"a\\u0000b\"",
            "rotamq.toml:3: store.durabilty: is no known key; the nearest is store.durability",
            "rotamq.toml:5: queues.durability: must be \"memory\", \"flushed\" or \"synced\", not true",
            "rotamq.toml:8: listener[0].durability: must be \"memory\", \"flushed\" or \"synced\", not \"Synced\"",
        ],
    ),
    (
        "[[queue]]\nprefetch = 1",
        &["rotamq.toml:1: queue[0]: needs the key name"],
    ),
    (
        "[[queue]]\nname = ''\n[[queue]]\nname = 'a/#/b'\n[[queue]]\nname = '$SYS/a'\n[[queue]]\nname = '$dead/'\n[[queue]]\nname = '$dead/$dead/a'",
        &[
            "rotamq.toml:2: queue[0].name: \"\" is no topic filter: it is empty; it needs at least one character",
            "rotamq.toml:4: queue[1].name: \"a/#/b\" is no topic filter: # stands alone in its level, and last",
            "rotamq.toml:6: queue[2].name: \"$SYS/a\" is no queue's name: the only one that begins with $ is $dead/NAME",
            "rotamq.toml:8: queue[3].name: \"$dead/\" is no topic filter: it is empty; it needs at least one character",
            "rotamq.toml:10: queue[4].name: \"$dead/$dead/a\" is no queue's name: the only one that begins with $ is $dead/NAME",
        ],
    ),
    (
        "limits.topic_levels_max = 2\n[[queue]]\nname = 'a/b/c'",
        &[
            "rotamq.toml:3: queue[0].name: \"a/b/c\" is no topic filter: it has more levels than topic_levels_max",
        ],
    ),
    (
        "[[queue]]\nname = 'a'\nfilters = ['b', 'c+', '$queue/a']\n[[queue]]\nname = 'a/#'\nfilters = ['b']\n[[queue]]\nname = 'b'\nfilters = [1]",
        &[
            "rotamq.toml:3: queue[0].filters: \"c+\" is no topic filter: + stands alone in its level",
            "rotamq.toml:3: queue[0].filters: \"$queue/a\" feeds nothing: name the topics that are published to",
            "rotamq.toml:6: queue[1].filters: only a queue of a plain name has filters, and \"a/#\" has a wildcard",
            "rotamq.toml:9: queue[2].filters: must be an array of topic filters, as in [\"orders/#\"], not an array of other things",
        ],
    ),
    (
        "[[queue]]\nname = 'a'\n[[queue]]\nname = 'a'",
        &["rotamq.toml:3: queue[1].name: \"a\" has its settings at line 1 already"],
    ),
    (
        "[[queue]]\nname = 'a'\n[[queue.member]]\nprefetch = 0\n[[queue.member]]\nclient = ''",
        &[
            "rotamq.toml:3: queue[0].member[0]: needs the key client",
            "rotamq.toml:4: queue[0].member[0].prefetch: must be a whole number from 1 to 65_535, not 0",
            "rotamq.toml:6: queue[0].member[1].client: is empty and fits no client; \"*\" fits all",
        ],
    ),
    (
        "\"a\\nb\" = 1",
        &["rotamq.toml:1: a\\nb: is no known key; the nearest is store.data"],
    ),
    (
        "threads = 1\nthreads = 2",
        &["rotamq.toml:2: is not TOML: duplicate key"],
    ),
    (
        "threads = 1\n[limits\n",
        &["rotamq.toml:2: is not TOML: unclosed table, expected `]`"],
    ),
];

/// Case E04 of docs/security.md.
#[test]
fn all_that_is_wrong_with_a_file_is_told_at_once() {
    for (text, expected) in ERRORS {
        let error = file(text).expect_err(text);
        assert_eq!(error.lines().collect::<Vec<_>>(), *expected, "{text}");
    }
}

#[test]
fn a_flag_is_stronger_than_the_environment_and_that_than_the_file() {
    let text = "threads = 1\n[log]\nlevel = 'warn'\nformat = 'json'";
    let environment = [("ROTAMQ_THREADS", "2"), ("ROTAMQ_LOG__LEVEL", "debug")];
    let flags = Flags {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        values: vec![("--threads", "threads", Value::Number(3))],
    };
    let effective = load(text, &environment, &flags).unwrap();
    let shown = effective.to_toml();
    let line = |key: &str| shown.lines().find(|line| line.starts_with(key)).unwrap();
    let words = |key: &str| line(key).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(words("threads"), "threads = 3 # --threads");
    assert_eq!(words("level"), "level = \"debug\" # ROTAMQ_LOG__LEVEL");
    assert_eq!(words("format"), "format = \"json\" # rotamq.toml:4");
    assert_eq!(words("prefetch"), "prefetch = 16 # default");
    assert_eq!(words("address"), "address = \"127.0.0.1:0\" # --listen");
}

#[test]
fn a_queue_takes_from_the_defaults_of_all_queues_wherever_they_are_set() {
    let text = "[[queue]]\nname = 'a'\n[[queue]]\nname = 'b'\nprefetch = 2";
    let environment = [("ROTAMQ_QUEUES__PREFETCH", "1_000")];
    let effective = load(text, &environment, &Flags::default()).unwrap();
    let prefetch: Vec<_> = effective
        .config
        .queue
        .iter()
        .map(|queue| queue.prefetch)
        .collect();
    assert_eq!(prefetch, [1000, 2]);
    let inherited = Origin::Inherited("queues.prefetch".to_owned());
    assert_eq!(effective.origin("queue[0].prefetch"), &inherited);
    assert_eq!(
        effective.origin("queue[1].prefetch").to_string(),
        "rotamq.toml:5"
    );
}

#[test]
fn a_durability_that_is_not_set_is_that_of_the_store() {
    use rotamq::config::Durability;
    // The strongest of several is the greatest.
    assert!(Durability::Memory < Durability::Flushed && Durability::Flushed < Durability::Synced);
    let text = "[[queue]]\nname = 'a'\n[[queue]]\nname = 'b'\ndurability = 'memory'";
    let of_queues = |effective: &Effective| {
        let queues = effective.config.queue.iter();
        queues.map(|queue| queue.durability).collect::<Vec<_>>()
    };
    let effective = file(text).unwrap();
    assert_eq!(of_queues(&effective), [None, Some(Durability::Memory)]);
    assert_eq!(effective.config.queues.default.durability, None);
    assert_eq!(effective.config.listeners[0].durability, None);
    let shown = effective.to_toml();
    let told = shown.lines().filter(|line| line.starts_with("durability"));
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let told: Vec<_> = told.map(words).collect();
    assert_eq!(
        told,
        [
            "durability = \"synced\" # default",
            "durability = \"memory\" # rotamq.toml:5"
        ]
    );
    // Where all queues have one, those have it that say nothing.
    let environment = [("ROTAMQ_QUEUES__DURABILITY", "flushed")];
    let effective = load(text, &environment, &Flags::default()).unwrap();
    let flushed_and_memory = [Some(Durability::Flushed), Some(Durability::Memory)];
    assert_eq!(of_queues(&effective), flushed_and_memory);
    let inherited = Origin::Inherited("queues.durability".to_owned());
    assert_eq!(effective.origin("queue[0].durability"), &inherited);
}

#[test]
fn variables_that_set_nothing_are_errors_where_they_are_meant_for_options() {
    let environment = [
        ("ROTAMQ_LIMITS__INFLIGHT", "1"),
        ("ROTAMQ_THREDS", "1"),
        ("ROTAMQ_QUEUE__NAME", "jobs"),
        ("ROTAMQ_LOG__LEVEL", "loud"),
        ("ROTAMQ_STORE__DATA", ""),
        // What an orchestrator sets for a service called rotamq.
        ("ROTAMQ_PORT", "tcp://10.0.0.1:1883"),
        ("ROTAMQ_SERVICE_HOST", "10.0.0.1"),
        ("PATH", "/bin"),
    ];
    let error = load("", &environment, &Flags::default()).unwrap_err();
    assert_eq!(
        error.lines().collect::<Vec<_>>(),
        [
            "ROTAMQ_LIMITS__INFLIGHT: is no known option; the nearest is ROTAMQ_LIMITS__INFLIGHT_MAX",
            "ROTAMQ_LOG__LEVEL: must be \"error\", \"warn\", \"info\", \"debug\" or \"trace\", not \"loud\"",
            "ROTAMQ_QUEUE__NAME: names a table of an array, which only the file can have",
            "ROTAMQ_STORE__DATA: must be a folder's path, as in \"/var/lib/rotamq\", not \"\"",
            "ROTAMQ_THREDS: is no known option; the nearest is ROTAMQ_THREADS",
        ]
    );
}

/// M01: and then they may come from elsewhere.
#[test]
fn where_there_are_users_others_stay_out_unless_somebody_said_so() {
    let users = "[authentication]\npassword_file = 'users'\n[[listener]]\naddress = '0.0.0.0:1883'";
    let effective = file(users).unwrap();
    assert!(!effective.config.allow_anonymous);
    let inherited = Origin::Inherited("authentication.password_file".to_owned());
    assert_eq!(effective.origin("allow_anonymous"), &inherited);
    let both = file(&format!("allow_anonymous = true\n{users}")).unwrap();
    assert!(both.config.allow_anonymous);
    let tokens = "[authentication]\njwt_keys = 'keys'\njwt_algorithms = ['ES256']";
    let effective = file(tokens).unwrap();
    assert!(!effective.config.allow_anonymous);
    let inherited = Origin::Inherited("authentication.jwt_keys".to_owned());
    assert_eq!(effective.origin("allow_anonymous"), &inherited);
}

/// What anybody may do has to be said for each address that others reach; users
/// of certificates are users where they are known.
#[test]
fn whether_a_listener_lets_anybody_in_is_said() {
    let open = "address = '192.0.2.1:1883'\n";
    let certificates = "tls_certificate = 'c'\ntls_key = 'k'\ntls_client_ca = 'a'\n\
                        tls_client_certificates = 'optional'\ntls_client_user = 'cn'\n";
    let users = "[authentication]\npassword_file = 'users'\n";
    let said = |value| format!("allow_anonymous = {value}\n");
    for (top, listener, users, expected) in [
        ("", String::new(), "", Err(())),
        ("", said(true), "", Ok(Some(true))),
        ("", said(false), "", Ok(Some(false))),
        (&*said(true), String::new(), "", Ok(None)),
        (&*said(true), said(false), "", Ok(Some(false))),
        ("", String::new(), users, Ok(None)),
        ("", said(true), users, Ok(Some(true))),
        ("", certificates.to_owned(), "", Ok(Some(false))),
        (
            "",
            certificates.to_owned() + &said(true),
            "",
            Ok(Some(true)),
        ),
        (&*said(true), certificates.to_owned(), "", Ok(None)),
        ("", certificates.to_owned(), users, Ok(None)),
    ] {
        let text = format!("{top}[[listener]]\n{open}{listener}{users}");
        let effective = file(&text);
        let found = (effective.as_ref()).map(|found| found.config.listeners[0].allow_anonymous);
        assert_eq!(found.map_err(|_| ()), expected, "{text}");
        if let Ok(effective) = effective {
            let is_open = effective.config.allow_anonymous;
            // Where nothing is said of the listener, what is said of all holds.
            assert_eq!(is_open, users.is_empty(), "{text}");
            assert_eq!(file(&effective.to_toml()).unwrap().config, effective.config);
        }
    }
}

#[test]
fn services_that_are_asked() {
    for (text, host, port, path, is_readable) in [
        (
            "https://auth.example/mqtt?a=b",
            "auth.example",
            443,
            "/mqtt?a=b",
            false,
        ),
        (
            "https://auth.example:8443",
            "auth.example",
            8443,
            "/",
            false,
        ),
        ("http://auth.example/", "auth.example", 80, "/", true),
        ("http://127.0.0.1:8080/a", "127.0.0.1", 8080, "/a", false),
        ("http://[::1]:8080/a", "::1", 8080, "/a", false),
        ("http://localhost/", "localhost", 80, "/", false),
    ] {
        let address: HttpAddress = text.parse().expect(text);
        assert_eq!((address.host(), address.port()), (host, port), "{text}");
        assert_eq!(address.path(), path, "{text}");
        assert_eq!(address.is_readable_on_the_way(), is_readable, "{text}");
        let (shown, _) = text.split_once('?').unwrap_or((text, ""));
        let shown = shown.trim_end_matches('/');
        let logged = address.without_query();
        assert_eq!(logged.trim_end_matches('/'), shown, "what may be secret");
    }
    let http = |text: &str| file(&format!("[authentication]\n{text}"));
    for text in [
        "",
        "auth.example",
        "/mqtt",
        "ftp://a/",
        "https://",
        "https:///mqtt",
        "https://a b/",
        "https://ann:secret@a/",
        "https://a/#b",
        "https://a:99999/",
        "https://a:/",
    ] {
        let said = http(&format!("http_address = '{text}'")).expect_err(text);
        assert!(
            said.contains("http_address: must be an address by https://"),
            "{said}"
        );
    }
    let asked = http("http_address = 'https://a/'").expect("it is valid");
    assert!(!asked.config.allow_anonymous);
    let published = "jwt_keys = 'https://a/keys.json'\njwt_algorithms = ['ES256']";
    assert!(http(published).is_ok());
    for (text, said) in [
        (
            "http_headers_file = 'h'",
            "http_headers_file: is of no use without http_address",
        ),
        (
            "http_rights = true",
            "http_rights: is of no use without http_address",
        ),
        (
            "http_address = 'http://a/'\nhttp_ca_file = 'c'",
            "http_ca_file: is of no use without",
        ),
        (
            "jwt_keys_ca_file = 'c'",
            "jwt_keys_ca_file: is of no use without jwt_keys that begin",
        ),
        // What is published is no secret.
        (
            "jwt_keys = 'https://a/'\njwt_algorithms = ['ES256', 'HS256']",
            "jwt_algorithms: has one that signs with a secret",
        ),
        (
            "jwt_keys = 'https://'\njwt_algorithms = ['ES256']",
            "jwt_keys: must be an address or",
        ),
    ] {
        let found = http(text).expect_err(text);
        assert!(found.contains(said), "{text}: {found}");
    }
}

/// And nothing is no signature.
#[test]
fn how_tokens_are_signed_has_to_be_said() {
    let wrong = |text: &str| match file(&format!("[authentication]\njwt_keys = 'k'\n{text}")) {
        Ok(_) => panic!("{text} is taken"),
        Err(error) => error.to_string(),
    };
    for text in ["", "jwt_algorithms = []"] {
        let said = wrong(text);
        assert!(
            said.contains("jwt_algorithms: names no algorithm"),
            "{said}"
        );
    }
    for algorithm in ["none", "NONE", "ES256K", "", "es256"] {
        let said = wrong(&format!("jwt_algorithms = ['ES256', {algorithm:?}]"));
        let expected = "jwt_algorithms: must be an array of \"HS256\", ";
        assert!(said.contains(expected), "{said}");
    }
    let said = wrong("jwt_algorithms = ['ES256']\njwt_user_claim = ''");
    assert!(said.contains("jwt_user_claim: is empty"), "{said}");
}

/// Case M01 of docs/security.md.
#[test]
fn anyone_may_come_from_elsewhere_only_if_somebody_said_so() {
    let open = "[[listener]]\naddress = '192.0.2.1:1883'";
    assert!(file(open).is_err());
    assert!(file(&format!("allow_anonymous = true\n{open}")).is_ok());
    assert!(file(&format!("allow_anonymous = false\n{open}")).is_ok());
    assert!(
        load(
            open,
            &[("ROTAMQ_ALLOW_ANONYMOUS", "true")],
            &Flags::default()
        )
        .is_ok()
    );
    let flags = |values| Flags {
        listen: vec!["0.0.0.0:1883".parse().unwrap()],
        values,
    };
    let yes = ("--allow-anonymous", "allow_anonymous", Value::Flag(true));
    assert!(
        load("", &[], &flags(vec![]))
            .unwrap_err()
            .starts_with("--listen: ")
    );
    assert!(load("", &[], &flags(vec![yes])).is_ok());
    // An address of the file that a flag replaces reaches nobody.
    let here = Flags {
        listen: vec!["127.0.0.1:1883".parse().unwrap()],
        values: vec![],
    };
    assert!(load(open, &[], &here).is_ok());
}

/// Who names authorities of clients, and no more, means that they count.
#[test]
fn client_certificates_are_required_where_an_authority_is_named() {
    use rotamq::config::ClientCertificates::{Off, Optional, Required};
    let listener = "[[listener]]\naddress = '127.0.0.1:1'\ntls_certificate = 'c'\ntls_key = 'k'\n";
    for (more, expected) in [
        ("", Off),
        ("tls_client_ca = 'a'", Required),
        ("tls_client_ca = 'a'\ntls_client_certificates = 'off'", Off),
        (
            "tls_client_ca = 'a'\ntls_client_certificates = 'optional'",
            Optional,
        ),
    ] {
        let effective = file(&format!("{listener}{more}")).unwrap();
        let tls = &effective.config.listeners[0].tls;
        assert_eq!(tls.client_certificates(), expected, "{more}");
    }
}

#[test]
fn a_network_is_the_addresses_that_begin_with_its_bits() {
    for (network, within, without) in [
        ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
        ("10.1.2.3", "10.1.2.3", "10.1.2.2"),
        ("10.1.2.3", "::ffff:10.1.2.3", "::10.1.2.3"),
        ("192.168.4.0/22", "192.168.7.255", "192.168.8.0"),
        ("0.0.0.0/0", "255.255.255.255", "::"),
        ("::/0", "2001:db8::1", "0.0.0.0"),
        ("2001:db8::/127", "2001:db8::1", "2001:db8::2"),
    ] {
        let parsed: Network = network.parse().unwrap();
        assert!(
            parsed.contains(within.parse().unwrap()),
            "{network} {within}"
        );
        assert!(
            !parsed.contains(without.parse().unwrap()),
            "{network} {without}"
        );
    }
    for text in [
        "",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/+8",
        "10.0.0/8",
        "::/129",
        "a/8",
        "::1/8/8",
    ] {
        assert_eq!(text.parse::<Network>(), Err(()), "{text}");
    }
}

/// Case E05 of docs/security.md.
#[test]
fn files_that_cannot_be_read_are_named() {
    let missing = Source::read(Path::new("/nonexistent/rotamq.toml")).unwrap_err();
    assert!(
        missing
            .to_string()
            .starts_with("/nonexistent/rotamq.toml: cannot read the file: ")
    );
    let endless = Source::read(Path::new("/dev/zero")).unwrap_err();
    assert_eq!(
        endless.to_string(),
        "/dev/zero: is longer than 4194304 bytes"
    );
}

/// What a queue is given while the broker runs, as JSON.
fn given(keys: &str, base: &QueueSettings) -> Result<QueueSettings, String> {
    let keys: serde_json::Value = serde_json::from_str(keys).unwrap();
    let limits = Limits::default();
    queue_settings("jobs", keys.as_object().unwrap(), base, &limits)
        .map_err(|error| error.to_string())
}

#[test]
fn a_queue_is_given_settings_as_a_table_of_the_file_would() {
    let base = QueueSettings {
        prefetch: 7,
        ..QueueSettings::default()
    };
    let settings = given(
        r##"{"ack_timeout_ms": 1500, "filters": ["a/#", "\"b\u00e9"], "exclusive": null,
            "overflow": "drop-oldest", "member": [{"client": "slow-*", "prefetch": 1}]}"##,
        &base,
    );
    let settings = settings.unwrap();
    assert_eq!((settings.name.as_str(), settings.prefetch), ("jobs", 7));
    assert_eq!(settings.filters, ["a/#", "\"b\u{e9}"]);
    assert_eq!(settings.members[0].client, "slow-*");
    // What is shown of it gives the same again.
    let shown = serde_json::Value::from(queue_keys(&settings)).to_string();
    assert_eq!(given(&shown, &QueueSettings::default()), Ok(settings));
    assert_eq!(given("{}", &base).unwrap().prefetch, 7);
}

#[test]
fn what_is_wrong_with_given_settings_is_said_as_of_a_file() {
    let wrong = r#"{"prefetch": 0, "ack_timeout": 1, "exclusive": "yes", "ttl_secs": 1.5,
        "max_messages": {"a b": [1]}, "filters": ["a/#/b"], "member": [{"prefetch": 1}]}"#;
    let error = given(wrong, &QueueSettings::default()).unwrap_err();
    let mut lines: Vec<_> = error.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "ack_timeout: is no known key; the nearest is queue.ack_timeout_ms",
            "exclusive: must be true or false, not \"yes\"",
            "filters: \"a/#/b\" is no topic filter: # stands alone in its level, and last",
            "max_messages: must be a whole number from 1 to 10_000_000_000, not a table",
            "member[0]: needs the key client",
            "prefetch: must be a whole number from 1 to 65_535, not 0",
            "ttl_secs: must be a whole number from 0 to 315_360_000, not 1.5",
        ]
    );
    let named = given(r#"{"name": "b"}"#, &QueueSettings::default());
    assert!(named.unwrap_err().starts_with("name: "));
}

#[test]
fn the_http_port_may_be_off_and_is_for_nobody_unasked_on_other_machines() {
    let off = file("[http]\naddress = 'off'").unwrap();
    assert_eq!(off.config.http.address, None);
    for (text, said) in [
        (
            "[http]\naddress = 'here'",
            "http.address: must be an IP address and a port",
        ),
        (
            "[http]\naddress = '0.0.0.0:80'",
            "http.address: other machines reach 0.0.0.0:80",
        ),
        (
            "[http]\ntls_key = 'k'",
            "http.tls_key: needs tls_certificate",
        ),
        (
            "[http]\ntls_certificate = 'c'",
            "http.tls_certificate: needs tls_key",
        ),
    ] {
        let error = file(text).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    file("allow_anonymous = false\n[http]\naddress = '0.0.0.0:80'").unwrap();
}
