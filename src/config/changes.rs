//! What differs between two configurations, and when what was changed holds.
//!
//! Owns the words for it; bringing the changes about is `run`'s.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::load::{Effective, without_indices};
use super::options;
use super::{Config, ConfigError};

/// When a changed value holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// For all, at once.
    AtOnce,
    /// For clients that connect from then on; who is connected keeps what it has.
    NewConnections,
    /// When the broker is started again.
    Restart,
}

impl Applies {
    /// What holds for an option, as in `limits.inflight_max`, `listener.address`
    /// or `queue.member.prefetch`.
    pub fn of(key: &str) -> Applies {
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        match (section, name) {
            ("", "threads" | "user")
            | ("store", "data" | "ephemeral" | "free_bytes_min" | "log_bytes_max")
            | ("limits", "match_cache_bytes_max")
            | ("log", "format")
            | ("http", _) => Applies::Restart,
            ("", "allow_anonymous")
            | (
                "limits",
                "connect_timeout_ms"
                | "connect_packet_bytes_max"
                | "packet_bytes_max"
                | "client_id_bytes_max"
                | "subscriptions_per_client_max"
                | "inflight_max"
                | "receive_max"
                | "topic_aliases_max"
                | "messages_per_sec_in_max"
                | "bytes_per_sec_in_max"
                | "messages_per_sec_out_max"
                | "bytes_per_sec_out_max"
                | "user_messages_per_sec_in_max"
                | "user_bytes_per_sec_in_max"
                | "user_messages_per_sec_out_max"
                | "user_bytes_per_sec_out_max",
            )
            | (
                "session",
                "expiry_default_secs"
                | "expiry_max_secs"
                | "keep_alive_secs_max"
                | "response_information",
            )
            | ("authentication", _)
            | ("listener", _) => Applies::NewConnections,
            _ => Applies::AtOnce,
        }
    }
}

impl fmt::Display for Applies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Applies::AtOnce => "at once",
            Applies::NewConnections => "for new connections",
            Applies::Restart => "after a restart",
        })
    }
}

/// A value that is another one now. A listener, a queue's table, or a member's
/// in it, that is new or gone, is one change of all of its values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Change {
    /// As in `limits.inflight_max`, `listener[127.0.0.1:1883].tls_key` or
    /// `queue[jobs/#].prefetch`.
    pub key: String,
    /// Null: it was not there, or not set.
    #[schema(value_type = Object, nullable)]
    pub before: Json,
    /// Null: it is gone, or not set any more.
    #[schema(value_type = Object, nullable)]
    pub after: Json,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change { key, before, after } = self;
        match (before.is_null(), after.is_null()) {
            (true, _) if after.is_object() => write!(f, "{key} is new"),
            (_, true) if before.is_object() => write!(f, "{key} is gone"),
            (true, _) => write!(f, "{key}: {after}, and was not set"),
            (_, true) => write!(f, "{key}: not set, and was {before}"),
            (false, false) => write!(f, "{key}: {after}, and was {before}"),
        }
    }
}

/// What has come of reading the configuration again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Reloaded {
    /// What holds from now on, for all or for new connections.
    pub changed: Vec<Change>,
    /// What the file says too, and holds after a restart.
    pub needs_restart: Vec<Change>,
}

/// Why nothing was changed: a sentence for each thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadError {
    pub problems: Vec<String>,
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for ReloadError {}

impl From<ConfigError> for ReloadError {
    fn from(error: ConfigError) -> ReloadError {
        let problems = error.problems.iter();
        ReloadError {
            problems: problems.map(ToString::to_string).collect(),
        }
    }
}

/// A value that holds, for who looks at it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Setting {
    pub key: String,
    pub value: Json,
    /// Where it comes from: `default`, FILE:LINE, a variable of the environment,
    /// a flag, or another option.
    pub origin: String,
}

impl Effective {
    /// A configuration that no file says.
    pub fn of(config: Config) -> Effective {
        Effective::with_origins(config, Default::default())
    }

    /// All values, without what may be secret.
    pub fn settings(&self) -> Vec<Setting> {
        let entries = self.entries().into_iter();
        let settings = entries.map(|entry| Setting {
            value: shown(entry.key, entry.value.to_json()),
            origin: entry.origin.to_string(),
            key: entry.path(),
        });
        settings.collect()
    }

    /// What is other in `after`, in the order of the file; without what may be
    /// secret.
    pub fn changes(&self, after: &Effective) -> Vec<Change> {
        let (old, new) = (self.tables(), after.tables());
        let mut changes = Vec::new();
        for table in &new {
            let before = old.iter().find(|old| old.name == table.name);
            match before {
                Some(before) => changes.extend(table.changes_since(before)),
                None => changes.push(table.whole(false)),
            }
        }
        let gone = old
            .iter()
            .filter(|old| new.iter().all(|new| new.name != old.name));
        changes.extend(gone.map(|old| old.whole(true)));
        changes
    }

    /// As the file has them, but named by what they are for and not by their
    /// place.
    fn tables(&self) -> Vec<Table> {
        let mut tables: Vec<Table> = Vec::new();
        let mut place = None;
        for entry in self.entries() {
            if place.as_ref() != Some(&entry.table) {
                let name = self.name_of(&entry.table);
                // Two listeners may both have port 0.
                let like = tables.iter().filter(|table| table.like == name).count();
                tables.push(Table {
                    name: match like {
                        0 => name.clone(),
                        _ => format!("{name}#{}", like + 1),
                    },
                    like: name,
                    is_element: entry.table.ends_with(']'),
                    values: Map::new(),
                });
                place = Some(entry.table.clone());
            }
            if let Some(table) = tables.last_mut() {
                table
                    .values
                    .insert(entry.key.to_owned(), entry.value.to_json());
            }
        }
        tables
    }

    /// `listener[127.0.0.1:1883]` for `listener[0]`.
    fn name_of(&self, table: &str) -> String {
        let indices = table.split('[').skip(1);
        let mut indices = indices.filter_map(|part| part.split(']').next()?.parse::<usize>().ok());
        let (first, second) = (indices.next(), indices.next());
        let kind = without_indices(table);
        let name = first.and_then(|first| match kind.as_str() {
            "listener" => {
                let listener = self.config.listeners.get(first)?;
                Some(format!("listener[{}]", listener.address))
            }
            "queue" => Some(format!("queue[{}]", self.config.queue.get(first)?.name)),
            _ => {
                let queue = self.config.queue.get(first)?;
                let member = queue.members.get(second?)?;
                Some(format!("queue[{}].member[{}]", queue.name, member.client))
            }
        });
        name.unwrap_or_else(|| table.to_owned())
    }
}

/// The values of a section, or of a table of an array.
struct Table {
    name: String,
    /// As others may be called too.
    like: String,
    is_element: bool,
    values: Map<String, Json>,
}

impl Table {
    fn changes_since(&self, before: &Table) -> Vec<Change> {
        let key = |key: &str| match self.name.is_empty() {
            true => key.to_owned(),
            false => format!("{}.{key}", self.name),
        };
        let mut changes = Vec::new();
        for (name, after) in &self.values {
            let was = before.values.get(name).cloned().unwrap_or_default();
            if was != *after {
                changes.push(Change {
                    key: key(name),
                    before: shown(name, was),
                    after: shown(name, after.clone()),
                });
            }
        }
        let gone = before.values.iter();
        let gone = gone.filter(|(name, _)| !self.values.contains_key(*name));
        changes.extend(gone.map(|(name, was)| Change {
            key: key(name),
            before: shown(name, was.clone()),
            after: Json::Null,
        }));
        changes
    }

    /// All of it, as new or gone.
    fn whole(&self, is_gone: bool) -> Change {
        debug_assert!(self.is_element, "sections are there in any case");
        let values = Json::Object(self.values.clone());
        let (before, after) = match is_gone {
            true => (values, Json::Null),
            false => (Json::Null, values),
        };
        Change {
            key: self.name.clone(),
            before,
            after,
        }
    }
}

impl Change {
    /// When it holds.
    pub fn applies(&self) -> Applies {
        if self.before.is_object() && self.after.is_null() {
            return Applies::AtOnce; // What is gone is gone for all.
        }
        // What stands in brackets is a name, which may have dots.
        let mut key = String::new();
        let mut depth = 0;
        for char in self.key.chars() {
            match char {
                '[' => depth += 1,
                ']' if depth > 0 => depth -= 1,
                char if depth == 0 => key.push(char),
                _ => {}
            }
        }
        match key.split('#').next().unwrap_or_default() {
            // A whole one.
            "listener" => Applies::of("listener.address"),
            key => Applies::of(key),
        }
    }
}

/// What follows a `?` in an address may be a secret.
fn shown(key: &str, value: Json) -> Json {
    match value {
        Json::String(text) if ["http_address", "jwt_keys"].contains(&key) => {
            let bare = text.split('?').next().unwrap_or_default();
            match bare.len() < text.len() {
                true => format!("{bare}?…").into(),
                false => text.into(),
            }
        }
        value => value,
    }
}

/// Every key of the file, and when a change of it holds: for the documents.
pub fn keys_and_when() -> Vec<(String, Applies)> {
    let keys = options::paths();
    keys.map(|key| {
        let applies = Applies::of(&key);
        (key, applies)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Source};

    fn load(text: &str) -> Effective {
        let source = Source {
            path: std::path::Path::new("a.toml").into(),
            text: text.to_owned(),
        };
        Effective::load(Some(&source), [], &Flags::default()).unwrap()
    }

    #[test]
    fn tables_are_known_by_what_they_are_for() {
        let before = load(
            "limits.inflight_max = 5\n[[listener]]\naddress = '127.0.0.1:1'\n\
             [[listener]]\naddress = 'unix:/a.b/[c]'\n[[queue]]\nname = 'a/#'\nprefetch = 3\n\
             [[queue.member]]\nclient = 'x.*'\nprefetch = 1\n",
        );
        let after = load(
            "log.level = 'debug'\n[[listener]]\naddress = 'unix:/a.b/[c]'\nunix_mode = '0600'\n\
             [[listener]]\naddress = '127.0.0.1:2'\n[[queue]]\nname = 'b'\n\
             [[queue]]\nname = 'a/#'\nprefetch = 3\nttl_secs = 9\n\
             [[queue.member]]\nclient = 'x.*'\nprefetch = 2\n",
        );
        let changes = before.changes(&after);
        let told: Vec<(String, Applies)> = changes
            .iter()
            .map(|change| (change.to_string(), change.applies()))
            .collect();
        let (at_once, new) = (Applies::AtOnce, Applies::NewConnections);
        let expected = [
            (
                "listener[unix:/a.b/[c]].unix_mode: \"0600\", and was \"0660\"",
                new,
            ),
            ("listener[127.0.0.1:2] is new", new),
            ("limits.inflight_max: 100, and was 5", new),
            ("log.level: \"debug\", and was \"info\"", at_once),
            ("queue[b] is new", at_once),
            ("queue[a/#].ttl_secs: 9, and was 0", at_once),
            ("queue[a/#].member[x.*].prefetch: 2, and was 1", at_once),
            ("listener[127.0.0.1:1] is gone", at_once),
        ];
        let expected = expected.map(|(text, applies)| (text.to_owned(), applies));
        assert_eq!(told, expected);
        assert_eq!(after.changes(&after), []);
    }

    #[test]
    fn what_follows_an_address_is_not_shown() {
        let one = load("[authentication]\nhttp_address = 'https://a.example/x?key=canary'\n");
        let other = load("[authentication]\nhttp_address = 'https://b.example/x?key=canary'\n");
        let text = format!("{:?} {:?}", one.changes(&other), one.settings());
        assert!(text.contains("https://a.example/x?…") && !text.contains("canary"));
    }
}
