//! mosquitto's ACL file, line by line.
//!
//! What the lines mean is in the parent module; here is how they are written:
//!
//! - words are separated by spaces; blanks around a line count for nothing;
//! - a line that begins with `#` is a comment;
//! - `user NAME`, which may have spaces: the `topic` lines that follow are that
//!   user's. A user may have several sections;
//! - `topic [read|write|readwrite|deny] FILTER`, and `pattern` alike. Without
//!   an access it is readwrite, and the filter then has no space.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::set::{Access, Kind, LinesBuilder, Rule};
use super::tree::parse_filter;
use super::{Acl, source_name};
use crate::config::{FileRef, Problem, Source};
use crate::topic::TopicFilter;

/// All that is wrong is told to `problems`.
pub(super) fn parse(source: &Source, problems: &mut Vec<Problem>) -> Acl {
    let name = source_name(source);
    let mut sections: BTreeMap<Option<&str>, LinesBuilder> = BTreeMap::new();
    let mut patterns = None;
    let mut user = None;
    for (line, text) in (1..).zip(source.text.lines()) {
        let text = text.trim();
        match Line::parse(text) {
            Ok(Line::Nothing) => {}
            Ok(Line::User(name)) => user = Some(name),
            Ok(Line::Rule(kind, access, filter)) => {
                let new = || LinesBuilder::new(Arc::clone(&name), kind);
                let set = match kind {
                    Kind::Patterns => patterns.get_or_insert_with(new),
                    _ => sections.entry(user).or_insert_with(new),
                };
                let text = text.into();
                set.add(filter, access, Rule { line, text });
            }
            Err(text) => problems.push(Problem {
                origin: FileRef(source).line(line),
                key: String::new(),
                text,
            }),
        }
    }
    let anonymous = sections.remove(&None);
    let built = |set: LinesBuilder| Arc::new(set.build());
    Acl {
        anonymous: anonymous.map(built),
        patterns: patterns.map(built),
        users: (sections.into_iter())
            .filter_map(|(user, set)| Some((user?.into(), built(set))))
            .collect(),
    }
}

enum Line<'a> {
    Nothing,
    User(&'a str),
    Rule(Kind, Access, TopicFilter<'a>),
}

impl<'a> Line<'a> {
    fn parse(text: &'a str) -> Result<Line<'a>, String> {
        if text.is_empty() || text.starts_with('#') {
            return Ok(Line::Nothing);
        }
        let (word, rest) = split_word(text);
        let kind = match word {
            "topic" => Kind::Topics,
            "pattern" => Kind::Patterns,
            "user" if rest.is_empty() => return Err("a user line names a user: user NAME".into()),
            "user" => return Ok(Line::User(rest)),
            word => {
                return Err(format!(
                    "{word:?} begins no line of an ACL file; there are topic, user, pattern, and # for a comment"
                ));
            }
        };
        let (access, filter) = match split_word(rest) {
            ("", _) => {
                return Err(format!(
                    "a {word} line names topics: {word} [read|write|readwrite|deny] FILTER"
                ));
            }
            (filter, "") => (Access::ReadWrite, filter),
            ("read", filter) => (Access::Read, filter),
            ("write", filter) => (Access::Write, filter),
            ("readwrite", filter) => (Access::ReadWrite, filter),
            ("deny", filter) => (Access::Deny, filter),
            (access, _) => {
                return Err(format!(
                    "{access:?} is no access: it is read, write, readwrite or deny, which a filter with a space needs"
                ));
            }
        };
        let filter = parse_filter(filter, kind == Kind::Patterns)?;
        Ok(Line::Rule(kind, access, filter))
    }
}

/// The first word, and what follows it and spaces.
fn split_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    (word, rest.trim_start())
}
