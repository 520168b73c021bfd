//! Rights that come with a client: in a claim of its token, or in a service's
//! answer about it.
//!
//! Owns their form in JSON, which says what a role of a rules file says, and its
//! bounds. How they stand to the rules in force is `rules`'s: they are one more
//! role of that client.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::rules::{Effect, Entry, Right, RuleSet};
use crate::config::nearest;
use crate::message::Qos;

/// What one client's own rights say. Copies share it.
#[derive(Clone)]
pub struct OwnRights(Arc<Own>);

struct Own {
    source: Box<str>,
    /// As they came, for the store.
    text: Box<str>,
    set: Arc<RuleSet>,
}

impl OwnRights {
    /// Bytes of their JSON, without what is only for people.
    pub const BYTES_MAX: usize = 16 << 10;
    /// Filters in all lists together.
    pub const FILTERS_MAX: usize = 256;

    /// Reads `{"qos_max": 1, "allow": {"publish": ["a/#"]}, "deny": {}}`.
    /// `source`: who says it, for explanations, as in `the token's claim rights`.
    ///
    /// # Errors
    /// What is wrong, as the rest of a sentence that begins with what it is
    /// about, and what would be right.
    pub fn parse(source: &str, value: &Value) -> Result<OwnRights, String> {
        let text = value.to_string();
        if text.len() > OwnRights::BYTES_MAX {
            return Err(format!(
                "have {} bytes, and {} is the most",
                text.len(),
                OwnRights::BYTES_MAX
            ));
        }
        let root = object(
            value,
            "have to be an object, as in {\"allow\": {\"publish\": [\"a/#\"]}}",
        )?;
        check_keys(root, &["qos_max", "allow", "deny"], "")?;
        let mut entries = Vec::new();
        for (word, effect) in [("allow", Effect::Allow), ("deny", Effect::Deny)] {
            if let Some(lists) = root.get(word) {
                read_lists(lists, word, effect, &mut entries)?;
            }
        }
        let qos_max = root.get("qos_max").map(|value| {
            let qos = value.as_u64().and_then(|qos| u8::try_from(qos).ok());
            let qos = qos.and_then(Qos::from_bits);
            qos.ok_or_else(|| "have a qos_max that is not 0, 1 or 2".to_owned())
        });
        let set = RuleSet::of_entries(source, &entries, qos_max.transpose()?)
            .map_err(|(_, why)| format!("are not valid: {why}"))?;
        Ok(OwnRights(Arc::new(Own {
            source: source.into(),
            text: text.into(),
            set: Arc::new(set),
        })))
    }

    /// As [`OwnRights::parse`], of a text.
    ///
    /// # Errors
    /// Likewise; or it is no JSON.
    pub fn parse_text(source: &str, text: &str) -> Result<OwnRights, String> {
        let value = serde_json::from_str(text).map_err(|error| format!("are no JSON: {error}"))?;
        OwnRights::parse(source, &value)
    }

    /// Of somebody of whom nothing is said: what the rules in force do not
    /// allow, nothing does.
    pub fn nothing(source: &str) -> OwnRights {
        let set = RuleSet::of_entries(source, &[], None).expect("nothing is wrong with nothing");
        OwnRights(Arc::new(Own {
            source: source.into(),
            text: "{}".into(),
            set: Arc::new(set),
        }))
    }

    /// Who says it.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// As JSON.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// As rules.
    pub fn set(&self) -> &Arc<RuleSet> {
        &self.0.set
    }
}

impl PartialEq for OwnRights {
    fn eq(&self, other: &OwnRights) -> bool {
        (self.source(), self.text()) == (other.source(), other.text())
    }
}

impl Eq for OwnRights {}

impl fmt::Debug for OwnRights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source(), self.text())
    }
}

fn object<'v>(value: &'v Value, wrong: &str) -> Result<&'v Map<String, Value>, String> {
    value.as_object().ok_or_else(|| wrong.to_owned())
}

fn check_keys(table: &Map<String, Value>, known: &[&str], path: &str) -> Result<(), String> {
    match table.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => {
            let near = nearest(key, known.iter().map(|known| (*known).to_owned()));
            let key = format!("{path}{key}");
            Err(format!(
                "have the key {key:?}, which there is not; the nearest is {path}{near}"
            ))
        }
    }
}

fn read_lists(
    lists: &Value,
    word: &str,
    effect: Effect,
    entries: &mut Vec<Entry>,
) -> Result<(), String> {
    let lists = object(
        lists,
        &format!("have an {word:?} that is no object of lists"),
    )?;
    check_keys(lists, &Right::ALL.map(Right::word), &format!("{word}."))?;
    for right in Right::ALL {
        let Some(filters) = lists.get(right.word()) else {
            continue;
        };
        let wrong = || {
            format!(
                "have a list {word}.{} that is no array of texts",
                right.word()
            )
        };
        for filter in filters.as_array().ok_or_else(wrong)? {
            if entries.len() == OwnRights::FILTERS_MAX {
                return Err(format!(
                    "have more than {} filters, which is the most",
                    OwnRights::FILTERS_MAX
                ));
            }
            entries.push(Entry {
                effect,
                right,
                filter: filter.as_str().ok_or_else(wrong)?.to_owned(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: Value) -> Result<OwnRights, String> {
        OwnRights::parse("the token's claim rights", &value)
    }

    /// B16: rights that are none are told as such.
    #[test]
    fn what_is_wrong_with_rights_is_told() {
        let filters = |count| json!({"allow": {"publish": vec!["a"; count]}});
        for (value, said) in [
            (json!(null), "have to be an object"),
            (json!([]), "have to be an object"),
            (json!("allow"), "have to be an object"),
            (
                json!({"alow": {}}),
                "have the key \"alow\", which there is not; the nearest is allow",
            ),
            (
                json!({"allow": {"publishes": []}}),
                "have the key \"allow.publishes\", which there is not; the nearest is allow.publish",
            ),
            (
                json!({"deny": []}),
                "have an \"deny\" that is no object of lists",
            ),
            (
                json!({"deny": {"join": "a"}}),
                "have a list deny.join that is no array of texts",
            ),
            (
                json!({"deny": {"join": [7]}}),
                "have a list deny.join that is no array of texts",
            ),
            (
                json!({"allow": {"subscribe": ["a/#/b"]}}),
                "are not valid: \"a/#/b\"",
            ),
            (
                json!({"allow": {"join": ["$queue/a"]}}),
                "are not valid: \"$queue/a\" is in no list of join: queues are named without",
            ),
            (
                json!({"qos_max": 3}),
                "have a qos_max that is not 0, 1 or 2",
            ),
            (
                json!({"qos_max": "1"}),
                "have a qos_max that is not 0, 1 or 2",
            ),
            (filters(257), "have more than 256 filters"),
            (
                json!({"allow": {"publish": ["a".repeat(OwnRights::BYTES_MAX)]}}),
                "have 16410 bytes, and 16384 is the most",
            ),
        ] {
            let error = parse(value.clone()).expect_err("it is wrong");
            assert!(error.starts_with(said), "{value}: {error}");
        }
        assert!(parse(filters(256)).is_ok());
        assert!(OwnRights::parse_text("s", "{").is_err());
    }

    #[test]
    fn they_are_read_again_as_they_were_written() {
        for value in [
            json!({}),
            json!({"qos_max": 1, "allow": {"publish": ["a/%c/#"], "put": ["jobs"]}, "deny": {}}),
        ] {
            let rights = parse(value).expect("they are valid");
            let again = OwnRights::parse_text(rights.source(), rights.text());
            assert_eq!(again.as_ref(), Ok(&rights));
        }
        assert_eq!(
            parse(json!({})),
            Ok(OwnRights::nothing("the token's claim rights"))
        );
    }
}
