//! What the documents say of the code is so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn text(path: &str) -> String {
    let path = Path::new(ROOT).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Rust files in this folder and below.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("it is a folder") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Each test of the repository by its name: its comment and all that it does.
fn tests() -> BTreeMap<String, String> {
    let mut files = Vec::new();
    for folder in ["tests", "src", "fuzz"] {
        sources(&Path::new(ROOT).join(folder), &mut files);
    }
    let mut tests = BTreeMap::<String, String>::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("it is text");
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            if line.trim() != "#[test]" {
                continue;
            }
            let is_above =
                |line: &&&str| line.trim().starts_with("///") || line.trim().starts_with("#[");
            let above = lines[..at].iter().rev().take_while(is_above).count();
            let end = format!("{}}}", line.split('#').next().expect("its indentation"));
            let below = lines[at..].iter().position(|line| *line == end);
            let whole = &lines[at - above..at + below.expect("it ends")];
            let name = whole
                .iter()
                .find_map(|line| line.trim().strip_prefix("fn "));
            let name = name.and_then(|rest| rest.split('(').next());
            let name = name.expect("a test is a function").to_owned();
            // Two of a name stand for each other.
            tests.entry(name).or_default().push_str(&whole.join("\n"));
        }
    }
    tests
}

/// A row of docs/security.md: its case, and what its last column says.
fn rows(document: &str) -> impl Iterator<Item = (&str, &str)> {
    document.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split(" | ").collect();
        let id = cells.first()?.strip_prefix("| ")?;
        let is_case = id.len() == 3 && id.as_bytes()[1..].iter().all(u8::is_ascii_digit);
        is_case.then(|| {
            (
                id,
                cells.last().map_or("", |last| last.trim_end_matches(" |")),
            )
        })
    })
}

/// What stands between backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Every case has tests which say that they are of it, or a reason why none can be;
/// none is there twice, and no case that tests or rows name is missing.
#[test]
fn every_case_of_the_security_document_has_its_tests() {
    let document = text("docs/security.md");
    let tests = tests();
    let mut complaints = Vec::new();
    let mut ids = Vec::new();
    for (id, cell) in rows(&document) {
        if ids.contains(&id) {
            complaints.push(format!("{id} is there twice"));
        }
        ids.push(id);
        if cell.starts_with("none: ") {
            continue;
        }
        let mut names = quoted(cell).peekable();
        if names.peek().is_none() {
            complaints.push(format!(
                "{id} has neither a test nor \"none: \" and a reason"
            ));
        }
        for name in names {
            // A scenario of tests/security is named behind it.
            let (file, scenario) = name.split_once(' ').unwrap_or((name, ""));
            let says_so = match tests.get(name) {
                Some(test) => {
                    test.contains(id) || test.contains(&format!("fn {}_", id.to_lowercase()))
                }
                None if file == "tests/security" => {
                    text(file).contains(&format!("\"{scenario}\": ")) && text(file).contains(id)
                }
                None if file.ends_with(".rs") => text(file).contains(&format!("\"{id}\"")),
                None => {
                    complaints.push(format!("{id}: there is no test {name}"));
                    continue;
                }
            };
            if !says_so {
                complaints.push(format!("{id}: {name} does not say that it is of this case"));
            }
        }
    }
    for (case, _) in crate::hostile::cases() {
        if !ids.contains(&case.id) {
            complaints.push(format!(
                "{} of tests/hostile.rs is not in the table",
                case.id
            ));
        }
    }
    assert!(ids.len() > 100, "the table is found");
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// J19: a sum that overflows is a panic in releases too, which ends one connection
/// and not the process.
#[test]
fn releases_check_sums() {
    let manifest: toml::Table = text("Cargo.toml").parse().expect("it is valid");
    let release = &manifest["profile"]["release"];
    assert_eq!(release["overflow-checks"].as_bool(), Some(true));
    assert_eq!(release["panic"].as_str(), Some("unwind"));
}

/// docs/operate.md: which option holds when.
#[test]
fn every_option_stands_where_it_is_said_when_it_holds() {
    use rotamq::config::{Applies, keys_and_when};
    let document = text("docs/operate.md");
    let row = |applies: Applies| -> Vec<&str> {
        let begin = format!("| {applies} | ");
        let line = document.lines().find_map(|line| line.strip_prefix(&begin));
        quoted(line.unwrap_or_else(|| panic!("there is no row {begin:?}"))).collect()
    };
    let all = [Applies::AtOnce, Applies::NewConnections, Applies::Restart];
    let rows = all.map(|applies| (applies, row(applies)));
    let said = |name: &str| {
        let rows = rows.iter().filter(|(_, row)| row.contains(&name));
        let found: Vec<Applies> = rows.map(|(applies, _)| *applies).collect();
        assert!(found.len() <= 1, "{name} stands in several rows");
        found.first().copied()
    };
    let keys = keys_and_when();
    for (key, applies) in &keys {
        let section = key
            .rsplit_once('.')
            .map(|(section, _)| format!("{section}.*"));
        let found = said(key).or_else(|| said(&section?));
        assert_eq!(found, Some(*applies), "{key}");
    }
    for name in rows.iter().flat_map(|(_, row)| row) {
        let begin = name.trim_end_matches('*');
        let is_key = |(key, _): &(String, Applies)| {
            key == name || begin.ends_with('.') && key.starts_with(begin)
        };
        assert!(keys.iter().any(is_key), "{name} is no option");
    }
}

/// The description of the API has one schema of each name: of two types that share
/// one, it would show only the last.
#[test]
fn no_two_types_of_the_api_share_a_name() {
    let mut files = Vec::new();
    sources(&Path::new(ROOT).join("src"), &mut files);
    let mut names = BTreeMap::<String, PathBuf>::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("it is text");
        let mut is_schema = false;
        for line in text.lines().map(str::trim) {
            is_schema |= line.starts_with("#[derive(") && line.contains("ToSchema");
            let words: Vec<&str> = line.split([' ', '(', '<', ';', '{']).collect();
            let kind = (words.iter()).position(|word| ["struct", "enum"].contains(word));
            if !line.starts_with("//")
                && let Some(name) = kind.and_then(|at| words.get(at + 1))
                && std::mem::take(&mut is_schema)
                && let Some(other) = names.insert((*name).to_owned(), file.clone())
            {
                panic!("{name} is in {} and {}", file.display(), other.display());
            }
        }
    }
    assert!(names.len() > 50, "{names:?}");
}
