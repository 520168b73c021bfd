//! What clients may do, by rules.

mod acl;
mod form;
mod oracle;
mod placeholders;

use std::path::Path;

use rotamq::access::rules::{Ask, Reach, Rights, Rules, Strictness};
use rotamq::config::Source;
use rotamq::message::{ClientId, Identity, Qos};
use rotamq::topic::{TopicFilter, TopicLimits};

fn source(name: &str, text: &str) -> Source {
    Source {
        path: Path::new(name).into(),
        text: text.to_owned(),
    }
}

fn parse_acl(text: &str) -> Result<Rules, String> {
    Rules::parse(Some(&source("rules.acl", text)), None).map_err(|error| error.to_string())
}

fn parse_form(text: &str) -> Result<Rules, String> {
    Rules::parse(None, Some(&source("rules.toml", text))).map_err(|error| error.to_string())
}

fn acl(text: &str) -> Rules {
    parse_acl(text).expect("an ACL file")
}

fn form(text: &str) -> Rules {
    parse_form(text).expect("a file of rules")
}

/// `user` of `-`: none.
fn identity(user: &str, client: &str) -> Identity {
    Identity {
        user: (user != "-").then(|| user.into()),
        client: ClientId::new(client),
    }
}

fn rights(rules: &Rules, user: &str, client: &str) -> Rights {
    rules.rights(&identity(user, client), &[])
}

fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::parse(text, TopicLimits::NONE).expect("a topic filter")
}

/// What is asked for, in words: `publish a/b`, `retain a/b`, `put T`,
/// `read a/b`, `join N`, `create N`, `steer N`, `subscribe F` as strictly as
/// can be, and `filter F` less so.
fn ask(words: &str) -> Ask<'_> {
    let (word, rest) = words.split_once(' ').expect("a word and a topic");
    let qos = Qos::AtMostOnce;
    let subscribe = |strictness| Ask::Subscribe {
        filter: filter(rest),
        strictness,
    };
    match word {
        "publish" | "retain" => Ask::Publish {
            topic: rest,
            qos,
            retain: word == "retain",
        },
        "put" => Ask::Put { topic: rest, qos },
        "read" => Ask::Read {
            topic: rest.as_bytes(),
        },
        "join" => Ask::Join {
            queue: filter(rest),
        },
        "create" => Ask::Create {
            queue: filter(rest),
        },
        "steer" => Ask::Steer {
            queue: filter(rest),
        },
        "subscribe" => subscribe(Strictness::Refuse),
        "filter" => subscribe(Strictness::Filter),
        word => panic!("{word} is nothing to ask for"),
    }
}

fn may(rights: &Rights, words: &str) -> bool {
    rights.decide(ask(words)).is_allowed()
}

fn explained(rights: &Rights, words: &str) -> String {
    rights.explain(rights.decide(ask(words))).to_string()
}

/// Asserts who may do what: user, client, what is asked for, the answer.
fn check(rules: &Rules, table: &[(&str, &str, &str, bool)]) {
    for (user, client, words, expected) in table {
        let rights = rights(rules, user, client);
        assert_eq!(
            may(&rights, words),
            *expected,
            "{user} {client:?} {words}: {}",
            explained(&rights, words)
        );
    }
}

/// E10: the filter overlaps what is denied, and is no part of it.
#[test]
fn e10_a_filter_that_overlaps_a_ban() {
    let acl = acl("topic read a/#\ntopic deny +/secret\n");
    let form = form(
        "[[role]]\nname = \"r\"\n\
         [role.allow]\nsubscribe = [\"a/#\"]\n\
         [role.deny]\nsubscribe = [\"+/secret\"]\n\
         [[grant]]\nclient = \"*\"\nroles = [\"r\"]\n",
    );
    for (rules, by) in [
        (acl, "rules.acl:2: topic deny +/secret"),
        (form, "rules.toml:6: role r: deny subscribe \"+/secret\""),
    ] {
        check(
            &rules,
            &[
                ("-", "c", "subscribe a/+", false),
                ("-", "c", "subscribe #", false),
                ("-", "c", "subscribe a/#", false),
                ("-", "c", "subscribe a/+/x", true),
                ("-", "c", "subscribe a/b/#", true),
                ("-", "c", "subscribe a/secret", false),
                ("-", "c", "filter a/+", true),
                ("-", "c", "filter #", true),
                ("-", "c", "filter +/secret", false),
                ("-", "c", "filter a/secret", false),
                ("-", "c", "filter b/+", false),
                ("-", "c", "read a/b", true),
                ("-", "c", "read a/secret", false),
                ("-", "c", "read a/secret/x", true),
                ("-", "c", "read b/secret", false),
            ],
        );
        let rights = rights(&rules, "-", "c");
        let denied = format!("denied by {by}");
        for words in ["subscribe a/+", "filter a/secret", "read a/secret"] {
            assert_eq!(explained(&rights, words), denied);
        }
        assert!(matches!(rights.reach(filter("a/+")), Reach::Part(..)));
        assert!(matches!(rights.reach(filter("a/+/x")), Reach::All(_)));
        assert!(matches!(rights.reach(filter("b/+")), Reach::Nothing(_)));
    }
}

/// Together, several rules can allow what none does alone.
#[test]
fn a_filter_is_allowed_by_rules_together() {
    let rules = acl(
        "topic read a\ntopic read a/+/#\ntopic read b/+\ntopic read b/+/+/#\n\
                     topic read $SYS/#\ntopic read c/+/x\ntopic read c/d/#\n",
    );
    check(
        &rules,
        &[
            ("-", "c", "subscribe a/#", true),
            ("-", "c", "subscribe a/+/#", true),
            ("-", "c", "subscribe b/#", false),
            ("-", "c", "subscribe b/+/#", true),
            ("-", "c", "subscribe c/+/x", true),
            ("-", "c", "subscribe c/d/+", true),
            ("-", "c", "subscribe c/+/+", false),
            ("-", "c", "subscribe #", false),
            ("-", "c", "subscribe $SYS/#", true),
            ("-", "c", "subscribe $SYS", true),
        ],
    );
    // Without `$`, everything has a first level.
    let rules = acl("topic read +/#");
    check(
        &rules,
        &[
            ("-", "c", "subscribe #", true),
            ("-", "c", "subscribe +/a", true),
            ("-", "c", "filter $SYS/#", false),
            ("-", "c", "read $SYS/broker/uptime", false),
        ],
    );
}

/// The examples in docs/access.md are rules.
#[test]
fn the_documented_examples_hold() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/access.md");
    let text = std::fs::read_to_string(path).expect("the document");
    // Of each chapter, the lines that are set in.
    let chapters = text.split("\n## ").map(|chapter| {
        let lines = chapter.lines().filter_map(|line| match line {
            "" => Some(""),
            line => line.strip_prefix("    "),
        });
        lines.collect::<Vec<_>>().join("\n")
    });
    let chapters: Vec<_> = chapters.collect();
    check(
        &acl(&chapters[1]),
        &[
            ("-", "c", "read news/today", true),
            ("alice", "c", "publish home/alarm", true),
            ("alice", "c", "publish home/alarm/code", false),
            ("alice", "c", "read with spaces/a", true),
            ("alice", "c", "publish sensors/c/t", true),
            ("bob", "c", "read commands/bob", true),
            ("worker", "c", "join jobs", true),
            ("worker", "c", "create jobs", true),
            ("worker", "c", "subscribe jobs", true),
            ("worker", "c", "put jobs", false),
            ("producer", "c", "put jobs", true),
            ("producer", "c", "join jobs", false),
            ("operator", "c", "steer jobs", true),
        ],
    );
    let (roles, error) = chapters[2].split_once("rules.toml:").expect("an error");
    check(
        &form(roles),
        &[
            ("dev-1", "c", "publish sensors/c/t", true),
            ("dev-1", "c", "publish sensors/c/calibration", false),
            ("dev-1", "c", "retain sensors/c/state", true),
            ("alice", "c", "join jobs/a", true),
            ("bob", "c", "join jobs/a", false),
        ],
    );
    let wrong = "[[role]]\nname = \"r\"\n[role.allow]\npublishes = []";
    let told = parse_form(wrong).expect_err("there is no such key");
    assert_eq!(told, format!("rules.toml:{}", error.trim()));
}

/// CVE-2018-12550: no line is a rule, and nothing is allowed.
/// Case M01 of docs/security.md.
#[test]
fn rules_without_a_rule_deny_everything() {
    for rules in [acl(""), acl("# nothing\n\n"), form(""), Rules::default()] {
        check(
            &rules,
            &[
                ("-", "c", "publish a", false),
                ("u", "c", "read a", false),
                ("u", "c", "filter #", false),
                ("u", "c", "join a", false),
                ("u", "c", "steer a", false),
            ],
        );
        let rights = rights(&rules, "-", "c");
        assert_eq!(explained(&rights, "publish a"), "denied: no rule allows it");
    }
}

/// Their depth is the rules' and no client's.
/// Case C01 of docs/security.md.
#[test]
fn the_deepest_filters_take_no_stack() {
    let deepest = "/".repeat(65_535);
    let plus = vec!["+"; 32_768].join("/");
    let below = vec!["+"; 32_767].join("/") + "/#";
    let rules = acl("topic read #\nuser u\ntopic read +/+/#\ntopic deny +/a/#");
    std::thread::Builder::new()
        .stack_size(128 << 10)
        .spawn(move || {
            for user in ["-", "u"] {
                let rights = rights(&rules, user, "c");
                assert!(rights.may_read(deepest.as_bytes()));
                for filter_text in [&deepest, &plus, &below] {
                    let all = matches!(rights.reach(filter(filter_text)), Reach::All(_));
                    assert_eq!(all, user == "-" || filter_text == &deepest);
                }
            }
        })
        .expect("a thread")
        .join()
        .expect("the test passes");
}
