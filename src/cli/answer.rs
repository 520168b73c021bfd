//! Answers of the API as a person reads them.
//!
//! Pure. A value is shown by its unit, which is the last part of its name
//! everywhere in the API; so an answer that has more than this program knows is
//! shown whole. What clients have given is escaped.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::table::Side::{self, Left, Right};
use super::table::{bytes, moment, moment_us, rate, shown, span, table};

/// Of a list that is a value of something else.
const LIST_VALUES_MAX: usize = 1000;

/// A column of a table: its head, and the name of the values in it.
pub type Column<'a> = (&'a str, &'a str);

/// A line for each item.
pub fn list(items: &[Value], columns: &[Column<'_>]) -> String {
    let head = columns.iter().map(|(title, name)| {
        let is_number = |item: &Value| item[*name].is_number() && !is_moment(name);
        let side = match items.iter().any(is_number) {
            true => Right,
            false => Left,
        };
        (*title, side)
    });
    let head: Vec<(&str, Side)> = head.collect();
    let rows = items.iter().map(|item| {
        let cells = columns.iter().map(|(_, name)| value(name, &item[*name]));
        cells.collect()
    });
    table(&head, &rows.collect::<Vec<_>>())
}

/// All that something has: a line for each value, `first` ones first; then what
/// has values of its own, and lists as tables.
pub fn object(object: &Value, first: &[&str]) -> String {
    let mut text = String::new();
    let Value::Object(fields) = object else {
        return format!("{}\n", value("", object));
    };
    let known = first.iter().filter_map(|name| fields.get_key_value(*name));
    let others = fields
        .iter()
        .filter(|(name, _)| !first.contains(&name.as_str()));
    let all: Vec<(&String, &Value)> = known.chain(others).collect();
    let is_plain = |value: &Value| match value {
        Value::Object(_) => false,
        Value::Array(values) => !values.iter().any(Value::is_object),
        _ => true,
    };
    let plain = all.iter().filter(|(_, value)| is_plain(value));
    lines(&mut text, "", plain.copied());
    for (name, inside) in all.iter().filter(|(_, value)| !is_plain(value)) {
        match inside {
            Value::Object(fields) if !fields.is_empty() => {
                _ = writeln!(text, "\n{}:", title(name));
                lines(&mut text, "  ", fields.iter());
            }
            Value::Array(items) => {
                _ = write!(text, "\n{}:\n{}", title(name), table_of(items));
            }
            _ => {}
        }
    }
    text
}

fn lines<'a>(
    text: &mut String,
    indent: &str,
    fields: impl Iterator<Item = (&'a String, &'a Value)>,
) {
    let fields: Vec<_> = fields
        .map(|(name, field)| (title(name), value(name, field)))
        .collect();
    let width = fields.iter().map(|(title, _)| title.chars().count()).max();
    let width = width.unwrap_or(0) + 1;
    for (title, value) in fields {
        // Writing to a String cannot fail.
        _ = writeln!(text, "{indent}{:<width$}  {value}", format!("{title}:"));
    }
}

/// All that the items have, a column each.
fn table_of(items: &[Value]) -> String {
    let mut names: Vec<&String> = Vec::new();
    for fields in items.iter().filter_map(Value::as_object) {
        for name in fields.keys() {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    let heads: Vec<String> = names
        .iter()
        .map(|name| title(name).to_uppercase())
        .collect();
    let columns: Vec<Column<'_>> = (heads.iter().zip(&names))
        .map(|(head, name)| (head.as_str(), name.as_str()))
        .collect();
    list(items, &columns)
}

/// A value's name in words, without the unit that it is shown with.
pub fn title(name: &str) -> String {
    let units = ["_at_ms", "_ms", "_at_us", "_secs", "_per_sec"];
    let without = units.iter().find_map(|unit| name.strip_suffix(unit));
    let words = shown(without.unwrap_or(name)).replace('_', " ");
    match name {
        _ if name.ends_with("_per_sec") => format!("{words} a second"),
        _ => words,
    }
}

/// Other milliseconds are a span.
fn is_moment(name: &str) -> bool {
    ["at_ms", "since_ms", "until_ms", "packet_ms"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// A value as a person reads it, by the unit that its name ends with.
pub fn value(name: &str, value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => shown(text),
        Value::Number(number) => match (number.as_u64(), number.as_f64()) {
            (Some(count), _) => self::number(name, count),
            (None, Some(float)) if name.ends_with("_ms") && float >= 0.0 => span(float as u64),
            (None, Some(float)) => rate(float),
            (None, None) => number.to_string(),
        },
        Value::Array(values) if values.is_empty() => "-".to_owned(),
        Value::Array(values) => {
            let some = values.iter().take(LIST_VALUES_MAX);
            let some: Vec<String> = some.map(member).collect();
            let more = values.len().saturating_sub(LIST_VALUES_MAX);
            match more {
                0 => some.join(", "),
                more => format!("{}, and {more} more", some.join(", ")),
            }
        }
        Value::Object(fields) => inline(fields),
    }
}

/// One value of a list; where it is a list itself, a pair most often.
fn member(of_list: &Value) -> String {
    match of_list {
        Value::Array(pair) => {
            let pair: Vec<String> = pair.iter().map(|part| value("", part)).collect();
            pair.join("=")
        }
        single => value("", single),
    }
}

/// What has values itself, in a cell.
fn inline(fields: &Map<String, Value>) -> String {
    let fields: Vec<String> = (fields.iter())
        .map(|(name, field)| format!("{} {}", title(name), value(name, field)))
        .collect();
    fields.join(", ")
}

fn number(name: &str, number: u64) -> String {
    match name {
        _ if is_moment(name) => moment(number),
        _ if name.ends_with("at_us") => moment_us(number),
        _ if name.ends_with("_ms") => span(number),
        _ if name.ends_with("_secs") => span(number.saturating_mul(1000)),
        _ if name == "bytes" || name.ends_with("_bytes") => {
            bytes(usize::try_from(number).unwrap_or(usize::MAX))
        }
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_shown_by_its_unit() {
        for (name, given, expected) in [
            ("stored_at_ms", json!(86_400_007), "1970-01-02 00:00:00.007"),
            ("since_ms", json!(86_400_007), "1970-01-02 00:00:00.007"),
            ("oldest_ms", json!(61_000), "1m01s"),
            ("latency_ms", json!(1.5), "1 ms"),
            ("keep_alive_secs", json!(60), "1m00s"),
            ("queued_bytes", json!(1536), "1.5 KiB"),
            ("bytes", json!(1), "1 B"),
            ("in_per_sec", json!(12.25), "12.2"),
            ("subscriptions", json!(12), "12"),
            ("user", json!(null), "-"),
            ("user", json!("a\u{1b}[2J"), "a\\u{1b}[2J"),
            ("connected", json!(true), "yes"),
            ("until_ms", json!(0), "1970-01-01 00:00:00.000"),
            ("reasons", json!(["a", 1]), "a, 1"),
            ("user_properties", json!([["a", "b"], ["c", ""]]), "a=b, c="),
            ("reasons", json!([]), "-"),
            (
                "dropped",
                json!({"slow": 3, "age_ms": 5}),
                "age 5 ms, slow 3",
            ),
        ] {
            assert_eq!(value(name, &given), expected, "{name}");
        }
    }

    #[test]
    fn numbers_stand_to_the_right_and_moments_to_the_left() {
        let items = [
            json!({"client": "a\n", "queued": 5, "since_ms": 0}),
            json!({"client": "b", "queued": 1000, "since_ms": 7, "user": "ann"}),
        ];
        let columns = [
            ("CLIENT", "client"),
            ("QUEUED", "queued"),
            ("SINCE", "since_ms"),
            ("USER", "user"),
        ];
        let expected = "\
CLIENT  QUEUED  SINCE                    USER
a\\n          5  1970-01-01 00:00:00.000  -
b         1000  1970-01-01 00:00:00.007  ann
";
        assert_eq!(list(&items, &columns), expected);
    }

    #[test]
    fn all_that_something_has_is_shown() {
        let shown = object(
            &json!({
                "client": "a",
                "age_ms": 5,
                "dropped": {"slow": 3, "expired": 12},
                "in_flight": [{"id": 1, "age_ms": 2000}, {"id": 2}],
                "none": [],
                "empty": {},
            }),
            &["client"],
        );
        let expected = "\
client:  a
age:     5 ms
none:    -

dropped:
  expired:  12
  slow:     3

in flight:
  AGE  ID
2.0 s   1
    -   2
";
        assert_eq!(shown, expected);
    }
}
