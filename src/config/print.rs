//! The table of options, written out: `config show`, and the commented
//! example file.

use std::fmt::Write;

use super::load::{Effective, without_indices};
use super::options::{LISTENER, MEMBER, Opt, QUEUE, QUEUE_NAMING, SECTIONS, Scalar};
use super::value::{Shape, Value};
use super::{
    AuthenticatorKind, ClientCertificates, ClientUser, Config, KeysAt, ListenerLimits,
    MemberSettings, Origin, QueueSettings, TokenAlgorithm,
};

/// One value of a configuration.
pub(super) struct Entry<'e> {
    /// As in `limits` or `queue[0].member[1]`; empty: the top of the file.
    pub table: String,
    pub key: &'static str,
    pub value: Value,
    pub origin: &'e Origin,
}

impl Entry<'_> {
    /// As in `limits.inflight_max` or `queue[0].prefetch`.
    pub fn path(&self) -> String {
        join(&self.table, self.key)
    }
}

impl Effective {
    /// Every option with its value and where it comes from, as a file that
    /// says the same.
    pub fn to_toml(&self) -> String {
        let entries = self.entries();
        let wide = |text: &str| text.chars().count();
        let line = |entry: &Entry<'_>| format!("{} = {}", entry.key, entry.value);
        let width = entries.iter().map(|entry| wide(&line(entry)));
        let width = width.filter(|width| *width <= 60).max().unwrap_or(0);
        let mut text = String::new();
        let mut table = String::new();
        for entry in &entries {
            if entry.table != table {
                table.clone_from(&entry.table);
                _ = write!(text, "\n{}\n", header(&table));
            }
            let line = line(entry);
            let pad = width.saturating_sub(wide(&line));
            let origin = entry.origin.to_string();
            _ = writeln!(text, "{line}{:pad$}  # {}", "", origin.escape_debug());
        }
        text
    }

    /// The same as an array of objects with `key`, `value` and `origin`.
    pub fn to_json(&self) -> serde_json::Value {
        let entries = self.entries();
        let objects = entries.iter().map(|entry| {
            let origin = match entry.origin {
                Origin::Default => serde_json::json!({ "kind": "default" }),
                Origin::File { path, line } => {
                    serde_json::json!({ "kind": "file", "path": path.to_string_lossy(), "line": line })
                }
                Origin::Environment(name) => {
                    serde_json::json!({ "kind": "environment", "variable": name })
                }
                Origin::Flag(flag) => serde_json::json!({ "kind": "flag", "flag": flag }),
                Origin::Inherited(key) => serde_json::json!({ "kind": "inherited", "key": key }),
            };
            serde_json::json!({
                "key": entry.path(),
                "value": entry.value.to_json(),
                "origin": origin,
            })
        });
        serde_json::Value::Array(objects.collect())
    }

    /// In the order of the file.
    pub(super) fn entries(&self) -> Vec<Entry<'_>> {
        let mut entries = Vec::new();
        for section in SECTIONS {
            for scalar in Scalar::all().filter(|scalar| scalar.section() == section.name) {
                let value = scalar.get(&self.config);
                self.push(&mut entries, section.name, scalar.key(), value);
            }
            if section.name.is_empty() {
                for (index, listener) in self.config.listeners.iter().enumerate() {
                    self.push_all(
                        &mut entries,
                        &format!("listener[{index}]"),
                        LISTENER,
                        listener,
                    );
                }
            }
        }
        for (index, queue) in self.config.queue.iter().enumerate() {
            let table = format!("queue[{index}]");
            self.push_all(&mut entries, &table, QUEUE_NAMING, queue);
            self.push_all(&mut entries, &table, QUEUE, queue);
            for (index, member) in queue.members.iter().enumerate() {
                self.push_all(
                    &mut entries,
                    &format!("{table}.member[{index}]"),
                    MEMBER,
                    member,
                );
            }
        }
        entries
    }

    fn push_all<'e, T>(
        &'e self,
        entries: &mut Vec<Entry<'e>>,
        table: &str,
        options: &'static [Opt<T>],
        settings: &T,
    ) {
        for option in options {
            self.push(entries, table, option.key, (option.get)(settings));
        }
    }

    fn push<'e>(
        &'e self,
        entries: &mut Vec<Entry<'e>>,
        table: &str,
        key: &'static str,
        value: Option<Value>,
    ) {
        if let Some(value) = value {
            entries.push(Entry {
                table: table.to_owned(),
                key,
                value,
                origin: self.origin(&join(table, key)),
            });
        }
    }
}

/// What a `[[queue]]` of these settings says, but for its name.
pub fn queue_keys(settings: &QueueSettings) -> serde_json::Map<String, serde_json::Value> {
    fn keys<T: 'static>(
        options: impl Iterator<Item = &'static Opt<T>>,
        settings: &T,
    ) -> serde_json::Map<String, serde_json::Value> {
        let keys = options.filter_map(|option| {
            let value = (option.get)(settings)?;
            Some((option.key.to_owned(), value.to_json()))
        });
        keys.collect()
    }
    let naming = QUEUE_NAMING.iter().filter(|option| option.key != "name");
    let mut all = keys(naming.chain(QUEUE), settings);
    if !settings.members.is_empty() {
        let members = settings.members.iter();
        let members = members.map(|member| keys(MEMBER.iter(), member));
        all.insert("member".to_owned(), members.collect());
    }
    all
}

fn join(table: &str, key: &str) -> String {
    let dot = if table.is_empty() { "" } else { "." };
    format!("{table}{dot}{key}")
}

/// `[limits]`, or `[[queue.member]]` for `queue[0].member[1]`.
fn header(table: &str) -> String {
    let name = without_indices(table);
    if table.ends_with(']') {
        format!("[[{name}]]")
    } else {
        format!("[{name}]")
    }
}

const TOP: &str = "\
# RotaMQ's configuration: every option, with its default.
#
# rotamq --config FILE reads a file like this one; none is searched for. What
# is left out has its default. Stronger than the file is the environment:
# ROTAMQ_THREADS, ROTAMQ_LIMITS__INFLIGHT_MAX for [limits] inflight_max, and so
# on for all but the [[tables]]. Stronger than that are the flags.
#
# Keys that are not known are errors, and so are values out of bounds.
# rotamq config check FILE tells what is wrong with a file, and
# rotamq config show what holds, and where it comes from.
";

/// The example file: each option with its sentences, its bounds and its
/// default, and an example of each table that there is none of by default.
///
/// It is a valid file that changes nothing.
pub fn example() -> String {
    let default = Config::default();
    // What is not set by default is shown too, as a comment.
    let mut config = default.clone();
    let durability = Some(default.store.durability);
    config.queues.default.durability = durability;
    config.authentication.password_file = Some("/etc/rotamq/passwords".into());
    let address = |text: &str| text.parse().ok();
    let keys = address("https://login.example.org/keys.json");
    config.authentication.tokens.keys = keys.map(KeysAt::Address);
    config.authentication.tokens.keys_ca_file = Some("/etc/rotamq/login.pem".into());
    config.authentication.tokens.algorithms = vec![TokenAlgorithm::ES256];
    let http = &mut config.authentication.http;
    http.address = address("https://auth.example.org/mqtt");
    http.headers_file = Some("/etc/rotamq/http_headers".into());
    http.ca_file = Some("/etc/rotamq/auth.pem".into());
    config.access.acl_file = Some("/etc/rotamq/acl".into());
    config.access.rules_file = Some("/etc/rotamq/rules.toml".into());
    config.limits.memory_bytes_max = Some(1 << 30);
    for listener in &mut config.listeners {
        listener.durability = durability;
        listener.tls.certificate = Some("/etc/rotamq/server.pem".into());
        listener.tls.key = Some("/etc/rotamq/server.key".into());
        listener.tls.client_ca = Some("/etc/rotamq/clients.pem".into());
        listener.tls.client_certificates = Some(ClientCertificates::Required);
        listener.tls.crl = Some("/etc/rotamq/revoked.pem".into());
        listener.tls.client_user = Some(ClientUser::CommonName);
        listener.authentication = Some(vec![
            AuthenticatorKind::Certificate,
            AuthenticatorKind::Password,
        ]);
        listener.allow_anonymous = Some(false);
        listener.mount_point = Some("site1/".to_owned());
        listener.limits = ListenerLimits {
            connections_max: Some(default.limits.connections_max),
            connect_timeout: Some(default.limits.connect_timeout),
            packet_bytes_max: Some(default.limits.packet_bytes_max),
            subscriptions_per_client_max: Some(default.limits.subscriptions_per_client_max),
            keep_alive_secs_max: Some(600),
        };
    }
    let mut text = TOP.to_owned();
    for section in SECTIONS {
        if !section.name.is_empty() {
            _ = write!(text, "\n\n[{}]\n", section.name);
            comment(&mut text, section.doc);
        }
        for scalar in Scalar::all().filter(|scalar| scalar.section() == section.name) {
            // A line that says so is what opens the broker to everyone.
            let opens = scalar.path() == "allow_anonymous";
            let hash = hash_unless(scalar.get(&default).is_some() && !opens);
            let value = scalar.get(&config);
            option(
                &mut text,
                hash,
                scalar.key(),
                scalar.doc(),
                scalar.shape(),
                value,
            );
        }
        if section.name.is_empty() {
            for (listener, default) in config.listeners.iter().zip(&default.listeners) {
                table(
                    &mut text,
                    "",
                    "listener",
                    "An address to listen on. As many as there are.",
                );
                let hash = |row: &Opt<_>| hash_unless((row.get)(default).is_some());
                options(&mut text, hash, LISTENER, listener);
            }
        }
    }
    table(
        &mut text,
        "#",
        "queue",
        "The settings of one queue, or of many. What is left out here is as in [queues].",
    );
    let queue = QueueSettings {
        name: "orders".to_owned(),
        filters: vec!["shop/+/orders".to_owned(), "orders/#".to_owned()],
        ..config.queues.default
    };
    options(&mut text, |_| "#", QUEUE_NAMING, &queue);
    text.push('\n');
    comment(
        &mut text,
        "The same options as in [queues], for this queue alone.",
    );
    for row in QUEUE {
        assign(&mut text, "#", row.key, (row.get)(&queue));
    }
    table(
        &mut text,
        "#",
        "queue.member",
        "Other settings for some members of the queue above: for clients of MQTT 3.1 and 3.1.1, \
         which cannot say so themselves.",
    );
    let member = MemberSettings {
        client: "slow-*".to_owned(),
        prefetch: Some(1),
        ack_timeout: queue.ack_timeout.map(|timeout| timeout * 10),
    };
    options(&mut text, |_| "#", MEMBER, &member);
    text
}

fn table(text: &mut String, hash: &str, name: &str, doc: &str) {
    _ = write!(text, "\n\n{hash}[[{name}]]\n");
    comment(text, doc);
}

/// What a line of the file begins with.
fn hash_unless(holds: bool) -> &'static str {
    if holds { "" } else { "#" }
}

fn options<T>(
    text: &mut String,
    hash: impl Fn(&Opt<T>) -> &'static str,
    options: &[Opt<T>],
    settings: &T,
) {
    for row in options {
        let value = (row.get)(settings);
        option(text, hash(row), row.key, row.doc, &row.shape, value);
    }
}

fn option(
    text: &mut String,
    hash: &str,
    key: &str,
    doc: &str,
    shape: &Shape,
    value: Option<Value>,
) {
    text.push('\n');
    comment(text, doc);
    let shape = shape.to_string();
    let (first, rest) = shape.split_at(1);
    comment(text, &format!("{}{rest}.", first.to_uppercase()));
    assign(text, hash, key, value);
}

fn assign(text: &mut String, hash: &str, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        _ = writeln!(text, "{hash}{key} = {value}");
    }
}

/// Comment lines of at most 80 columns.
fn comment(text: &mut String, sentences: &str) {
    let mut column = 0;
    for word in sentences.split_whitespace() {
        if column == 0 || column + 1 + word.len() > 80 {
            text.push_str(if column == 0 { "# " } else { "\n# " });
            column = 2 + word.len();
        } else {
            text.push(' ');
            column += 1 + word.len();
        }
        text.push_str(word);
    }
    text.push('\n');
}
