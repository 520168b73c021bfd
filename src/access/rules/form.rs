//! Our own form of a rules file: TOML.
//!
//! `[[role]]` tables with their allowances and bans, and `[[grant]]` tables
//! that say which clients have which roles. Unknown keys are errors.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::set::{Entry, Right, RoleBuilder, Rule, RuleSet, entry_text};
use super::tree::Effect;
use super::{Grant, Users, source_name};
use crate::config::{FileRef, Problem, Shape, Source, Value, found, nearest, syntax_errors};
use crate::message::Qos;

type Roles = BTreeMap<Box<str>, Arc<RuleSet>>;

/// All that is wrong is told to `problems`.
pub(super) fn parse(source: &Source, problems: &mut Vec<Problem>) -> (Roles, Vec<Grant>) {
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    if !errors.is_empty() {
        // What is left of a broken file would give false errors.
        problems.extend(syntax_errors(source, &errors).problems);
        return Default::default();
    }
    let mut reading = Reading {
        file: FileRef(source),
        problems,
        roles: BTreeMap::new(),
    };
    let root = table.get_ref();
    reading.check_keys("", root, &["role", "grant"]);
    for (index, (table, line)) in reading.tables(root, "role").into_iter().enumerate() {
        reading.role(&format!("role[{index}]"), table, line);
    }
    let mut grants = Vec::new();
    for (index, (table, line)) in reading.tables(root, "grant").into_iter().enumerate() {
        grants.extend(reading.grant(&format!("grant[{index}]"), table, line));
    }
    let roles = reading.roles.into_iter();
    let roles = roles.map(|(name, (role, _))| (name, role)).collect();
    (roles, grants)
}

const NAME: Shape = Shape::Text("a role's name");
const QOS_MAX: Shape = Shape::Number { min: 0, max: 2 };
const USER: Shape = Shape::Text("a user's name, in which * stands for any text");
const CLIENT: Shape = Shape::Text("a client id, in which * stands for any text");
const ROLES: Shape = Shape::Texts("an array of names of roles");

struct Reading<'s, 'p> {
    file: FileRef<'s>,
    problems: &'p mut Vec<Problem>,
    /// And the line of each.
    roles: BTreeMap<Box<str>, (Arc<RuleSet>, usize)>,
}

impl Reading<'_, '_> {
    fn problem(&mut self, line: usize, key: impl Into<String>, text: impl Into<String>) {
        self.problems.push(Problem {
            origin: self.file.line(line),
            key: key.into(),
            text: text.into(),
        });
    }

    fn check_keys(&mut self, path: &str, table: &DeTable<'_>, known: &[&str]) {
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let near = nearest(name, known.iter().map(|known| (*known).to_owned()));
                let text = format!("is no known key; the nearest is {near}");
                self.problem(self.file.line_of(key), join(path, name), text);
            }
        }
    }

    /// The tables of an array of the root, and their lines.
    fn tables<'t>(&mut self, root: &'t DeTable<'t>, name: &str) -> Vec<(&'t DeTable<'t>, usize)> {
        let Some((key, value)) = entry(root, name) else {
            return Vec::new();
        };
        let tables = match value.get_ref() {
            DeValue::Array(elements) => elements.iter().map(|element| {
                let table = element.get_ref().as_table();
                table.map(|table| (table, self.file.line_of(element)))
            }),
            other => {
                let text = format!("must be [[{name}]] tables, not {}", found(other));
                self.problem(self.file.line_of(key), name, text);
                return Vec::new();
            }
        };
        let tables: Option<Vec<_>> = tables.collect();
        tables.unwrap_or_else(|| {
            let text = format!("must be [[{name}]] tables, not {}", found(value.get_ref()));
            self.problem(self.file.line_of(key), name, text);
            Vec::new()
        })
    }

    /// The value of a key that may be left out, and its line.
    fn value(
        &mut self,
        path: &str,
        table: &DeTable<'_>,
        name: &str,
        shape: Shape,
    ) -> Option<(Value, usize)> {
        let (key, value) = entry(table, name)?;
        let line = self.file.line_of(key);
        match shape.read(value.get_ref()) {
            Ok(value) => Some((value, line)),
            Err(text) => {
                self.problem(line, join(path, name), text);
                None
            }
        }
    }

    fn text(
        &mut self,
        path: &str,
        table: &DeTable<'_>,
        name: &str,
        shape: Shape,
    ) -> Option<(String, usize)> {
        match self.value(path, table, name, shape)? {
            (Value::Text(text), line) if text.is_empty() => {
                self.problem(
                    line,
                    join(path, name),
                    format!("is empty; it must be {shape}"),
                );
                None
            }
            (Value::Text(text), line) => Some((text, line)),
            _ => None,
        }
    }

    fn role(&mut self, path: &str, table: &DeTable<'_>, line: usize) {
        self.check_keys(path, table, &["name", "qos_max", "allow", "deny"]);
        if entry(table, "name").is_none() {
            self.problem(line, path, "needs the key name");
        }
        let name = self.text(path, table, "name", NAME);
        let (name, name_line) = name.unwrap_or_default();
        let before = format!("role {name}: ");
        let mut role = RoleBuilder::new(source_name(self.file.0));
        if let Some((Value::Number(qos), line)) = self.value(path, table, "qos_max", QOS_MAX)
            && let Some(qos) = Qos::from_bits(qos as u8)
        {
            let text = format!("{before}qos_max = {}", qos as u8).into();
            role.bound(qos, Rule { line, text });
        }
        for (word, effect) in [("allow", Effect::Allow), ("deny", Effect::Deny)] {
            if let Some((key, value)) = entry(table, word) {
                let path = join(path, word);
                match value.get_ref() {
                    DeValue::Table(lists) => self.lists(&path, lists, effect, &before, &mut role),
                    other => {
                        let text = format!("must be a table, [role.{word}], not {}", found(other));
                        self.problem(self.file.line_of(key), path, text);
                    }
                }
            }
        }
        if let Some((_, first)) = self.roles.get(&*name) {
            let text = format!("there is a role {name:?} at line {first} already");
            self.problem(name_line, join(path, "name"), text);
        } else if !name.is_empty() {
            let role = Arc::new(role.build());
            self.roles.insert(name.into(), (role, line));
        }
    }

    fn lists(
        &mut self,
        path: &str,
        lists: &DeTable<'_>,
        effect: Effect,
        before: &str,
        role: &mut RoleBuilder,
    ) {
        self.check_keys(path, lists, &Right::ALL.map(Right::word));
        for (key, value) in lists {
            let Some(right) = Right::of_word(key.get_ref()) else {
                continue;
            };
            let path = join(path, right.word());
            let what = match right.is_of_queues() {
                true => "names of queues, which may have wildcards",
                false => "topic filters",
            };
            let Some(filters) = value.get_ref().as_array() else {
                let text = format!("must be an array of {what}, not {}", found(value.get_ref()));
                self.problem(self.file.line_of(key), path, text);
                continue;
            };
            for filter in filters {
                let line = self.file.line_of(filter);
                let Some(text) = filter.get_ref().as_str() else {
                    let text = format!("holds {what}, not {}", found(filter.get_ref()));
                    self.problem(line, path.as_str(), text);
                    continue;
                };
                let entry = Entry {
                    effect,
                    right,
                    filter: text.to_owned(),
                };
                let text = entry_text(before, &entry);
                if let Err(text) = role.add(&entry, Rule { line, text }) {
                    self.problem(line, path.as_str(), text);
                }
            }
        }
    }

    /// `None`: it is wrong.
    fn grant(&mut self, path: &str, table: &DeTable<'_>, line: usize) -> Option<Grant> {
        self.check_keys(path, table, &["user", "anonymous", "client", "roles"]);
        let user = self.text(path, table, "user", USER);
        let anonymous = self.value(path, table, "anonymous", Shape::Flag);
        let client = self.text(path, table, "client", CLIENT);
        let is_anonymous = matches!(anonymous, Some((Value::Flag(true), _)));
        if !["user", "anonymous", "client"]
            .iter()
            .any(|key| entry(table, key).is_some())
        {
            let text = "says nobody: it needs user, client or anonymous = true; client = \"*\" is everybody";
            self.problem(line, path, text);
            return None;
        }
        let users = match (user, is_anonymous) {
            (Some((_, line)), true) => {
                let text = "nobody has a user name and is anonymous: write two grants";
                self.problem(line, join(path, "user"), text);
                return None;
            }
            (Some((user, _)), false) => Users::Like(user),
            (None, true) => Users::Anonymous,
            (None, false) if entry(table, "user").is_some() => return None,
            (None, false) if client.is_none() => {
                let text = "says nobody: anonymous = false leaves out nobody else";
                self.problem(line, path, text);
                return None;
            }
            (None, false) => Users::All,
        };
        if entry(table, "roles").is_none() {
            self.problem(line, path, "needs the key roles");
        }
        let (Value::Texts(names), line) = self.value(path, table, "roles", ROLES)? else {
            return None;
        };
        let mut roles = Vec::new();
        for name in names {
            match self.roles.get(&*name) {
                Some((role, _)) => roles.push(Arc::clone(role)),
                None => {
                    let near = nearest(&name, self.roles.keys().map(ToString::to_string));
                    let text = match near.is_empty() {
                        true => format!("there is no role {name:?}, nor any other"),
                        false => format!("there is no role {name:?}; the nearest is {near:?}"),
                    };
                    self.problem(line, join(path, "roles"), text);
                }
            }
        }
        Some(Grant {
            users,
            client: client.map(|(client, _)| client),
            roles,
        })
    }
}

type Member<'t> = (
    &'t Spanned<toml::de::DeString<'t>>,
    &'t Spanned<DeValue<'t>>,
);

fn entry<'t>(table: &'t DeTable<'t>, name: &str) -> Option<Member<'t>> {
    table.iter().find(|(key, _)| key.get_ref() == name)
}

fn join(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    }
}
