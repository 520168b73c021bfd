//! The list of statements, and whether it and the cases agree.
//!
//! statements.csv has a row for each normative statement: the cases that show
//! it, or the reason why none can. Each statement named by a case must have
//! that case in its row, and the other way round.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::case::Case;

/// How many statements a version has.
const COUNTS: [(&str, usize); 2] = [("3.1.1", 141), ("5", 251)];

/// All that is wrong with the list; empty if it and the cases agree.
pub fn check(path: &Path, cases: &[Case]) -> Result<Vec<String>, String> {
    let text = fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let mut lines = text.lines();
    if lines.next() != Some("version,id,case,reason") {
        return Err("statements.csv begins with version,id,case,reason".into());
    }
    let mut faults = Vec::new();
    let mut listed: BTreeSet<(String, String, String)> = BTreeSet::new();
    let mut ids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (number, line) in lines.enumerate() {
        let place = format!("statements.csv:{}", number + 2);
        let Ok([version, id, names, reason]) = <[String; 4]>::try_from(split(line)) else {
            faults.push(format!("{place}: a row has four fields"));
            continue;
        };
        if names.is_empty() && reason.is_empty() {
            faults.push(format!("{place}: {id} has neither case nor reason"));
        }
        for name in names.split(';').filter(|name| !name.is_empty()) {
            listed.insert((version.clone(), id.clone(), name.to_owned()));
        }
        if !ids.entry(version).or_default().insert(id.clone()) {
            faults.push(format!("{place}: {id} has a row already"));
        }
    }
    let mut shown = BTreeSet::new();
    for case in cases {
        for id in &case.shows {
            shown.insert((case.version.clone(), id.clone(), case.name.clone()));
        }
    }
    for (_, id, name) in listed.difference(&shown) {
        faults.push(format!(
            "statements.csv says that {name} shows {id}; the case does not, or does not exist"
        ));
    }
    for (version, id, name) in shown.difference(&listed) {
        faults.push(format!(
            "the case {name} shows {id}; the row of {version} in statements.csv does not name it"
        ));
    }
    for (version, count) in COUNTS {
        let found = ids.get(version).map_or(0, BTreeSet::len);
        if found != count {
            faults.push(format!(
                "statements.csv has {found} statements of {version}, which has {count}"
            ));
        }
    }
    Ok(faults)
}

/// The fields of a row; one in double quotes may hold commas, and a quote
/// written twice.
fn split(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                push(&mut fields, '"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => push(&mut fields, other),
        }
    }
    fields
}

fn push(fields: &mut [String], character: char) {
    if let Some(last) = fields.last_mut() {
        last.push(character);
    }
}
