//! Our own form of a rules file.

use std::sync::Arc;

use rotamq::access::rules::{Ask, Effect, Entry, Publishing, Right, RuleSet};
use rotamq::message::Qos;

use super::{check, explained, form, identity, may, parse_form, rights};

const EXAMPLE: &str = r#"
[[role]]
name = "sensor"
qos_max = 1

[role.allow]
publish = ["sensors/%c/#", "log"]
retain = ["sensors/%c/state"]
subscribe = ["commands/%c"]

[role.deny]
publish = [
    "sensors/+/calibration",
    "+/raw",
]

[[role]]
name = "worker"

[role.allow]
subscribe = ["jobs/#"]
join = ["jobs/#"]
create = ["jobs/+"]
put = ["jobs/#", "$dead/jobs"]
steer = ["jobs/#"]

[role.deny]
join = ["jobs/secret"]

[[grant]]
client = "dev-*"
roles = ["sensor"]

[[grant]]
user = "al*"
roles = ["worker", "sensor"]

[[grant]]
anonymous = true
client = "guest"
roles = ["worker"]
"#;

#[test]
fn roles_and_who_has_them() {
    check(
        &form(EXAMPLE),
        &[
            ("-", "dev-1", "publish sensors/dev-1/t", true),
            ("-", "dev-1", "publish sensors/dev-1", true),
            ("-", "dev-1", "publish sensors/dev-2/t", false),
            ("-", "dev-1", "publish sensors/dev-1/calibration", false),
            ("-", "dev-1", "retain sensors/dev-1/state", true),
            ("-", "dev-1", "retain sensors/dev-1/t", false),
            ("-", "dev-1", "retain log", false),
            ("-", "dev-1", "publish log", true),
            ("-", "dev-1", "read commands/dev-1", true),
            ("-", "dev-1", "subscribe commands/+", false),
            ("-", "dev-1", "filter commands/+", true),
            ("-", "dev-1", "join jobs/a", false),
            ("-", "other", "publish log", false),
            ("alice", "x", "join jobs/a", true),
            ("alice", "x", "join jobs/secret", false),
            ("alice", "x", "join jobs/+", false),
            ("alice", "x", "create jobs/+", true),
            ("alice", "x", "create jobs/a/b", false),
            ("alice", "x", "put jobs/a/b", true),
            ("alice", "x", "put $dead/jobs", true),
            ("alice", "x", "put $dead/other", false),
            ("alice", "x", "publish jobs/a", false),
            ("alice", "x", "steer jobs/a", true),
            ("alice", "x", "steer other", false),
            ("alice", "x", "publish sensors/x/t", true),
            ("bob", "x", "publish log", false),
            ("-", "guest", "join jobs/a", true),
            ("u", "guest", "join jobs/a", false),
        ],
    );
}

#[test]
fn the_rule_is_named() {
    let rules = form(EXAMPLE);
    let rights = rights(&rules, "alice", "dev-1");
    for (words, sentence) in [
        (
            "publish sensors/dev-1/t",
            "allowed by rules.toml:7: role sensor: allow publish \"sensors/%c/#\"",
        ),
        (
            "publish sensors/dev-1/calibration",
            "denied by rules.toml:13: role sensor: deny publish \"sensors/+/calibration\"",
        ),
        (
            "join jobs/secret",
            "denied by rules.toml:28: role worker: deny join \"jobs/secret\"",
        ),
        ("publish other", "denied: no rule allows it"),
    ] {
        assert_eq!(explained(&rights, words), sentence);
    }
    let publish = Ask::Publish {
        topic: "log",
        qos: Qos::ExactlyOnce,
        retain: false,
    };
    assert_eq!(
        rights.explain(rights.decide(publish)).to_string(),
        "denied by rules.toml:4: role sensor: qos_max = 1"
    );
}

#[test]
fn the_lowest_bound_holds() {
    let role = |name: &str, bound: &str| {
        format!("[[role]]\nname = \"{name}\"\n{bound}\n[role.allow]\npublish = [\"{name}\"]\n")
    };
    let roles = [
        role("a", ""),
        role("b", "qos_max = 1"),
        role("c", "qos_max = 0"),
    ];
    for (granted, expected) in [
        ("\"a\"", Qos::ExactlyOnce),
        ("\"a\", \"b\"", Qos::AtLeastOnce),
        ("\"b\", \"c\"", Qos::AtMostOnce),
    ] {
        let grant = format!("[[grant]]\nclient = \"*\"\nroles = [{granted}]\n");
        let rules = form(&(roles.concat() + &grant));
        let rights = rights(&rules, "-", "x");
        assert_eq!(rights.qos_max(), expected);
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
            let topic = &granted[1..2];
            assert_eq!(rights.may_publish(topic, qos, false), qos <= expected);
        }
    }
}

/// From a token's claims, or a service's answer.
#[test]
fn entries_from_elsewhere_are_as_a_role() {
    let rules = form(EXAMPLE);
    let entry = |effect, right, filter: &str| Entry {
        effect,
        right,
        filter: filter.to_owned(),
    };
    let entries = [
        entry(Effect::Allow, Right::Publish, "claims/%u/#"),
        entry(Effect::Deny, Right::Publish, "sensors/x/#"),
    ];
    let token = RuleSet::of_entries("token", &entries, Some(Qos::AtMostOnce));
    let token = Arc::new(token.expect("the entries are valid"));
    let worker = rules.role("worker").expect("there is one");
    let rights = rules.rights(&identity("alice", "x"), &[token, Arc::clone(worker)]);
    assert!(may(&rights, "publish claims/alice/a"));
    assert!(may(&rights, "join jobs/a"));
    assert_eq!(rights.qos_max(), Qos::AtMostOnce);
    assert_eq!(
        explained(&rights, "publish sensors/x/t"),
        "denied by token: deny publish \"sensors/x/#\""
    );
    let wrong = [entries[0].clone(), entry(Effect::Allow, Right::Join, "a#")];
    let (index, why) = RuleSet::of_entries("token", &wrong, None).expect_err("no filter");
    assert_eq!(index, 1);
    assert_eq!(
        why,
        "\"a#\" is no topic filter: # stands alone in its level, and last"
    );
}

/// What is remembered answers as the rules do.
/// Case E20 of docs/security.md.
#[test]
fn what_was_allowed_is_remembered_and_nothing_else() {
    let rules = form(EXAMPLE);
    let rights = Arc::new(rights(&rules, "-", "dev-1"));
    let mut publishing = Publishing::new(Arc::clone(&rights));
    let topics: Vec<String> = (0..100)
        .map(|i| format!("sensors/dev-{}/t{}", 1 + i % 2, i / 7))
        .chain(["log".to_owned(), "sensors/dev-1/calibration".to_owned()])
        .collect();
    for topic in topics.iter().chain(&topics).chain(topics.iter().rev()) {
        for (qos, retain) in [
            (Qos::AtMostOnce, false),
            (Qos::ExactlyOnce, false),
            (Qos::AtMostOnce, true),
            (Qos::AtMostOnce, false),
        ] {
            let may = publishing.may_publish(topic, qos, retain);
            assert_eq!(may, rights.may_publish(topic, qos, retain), "{topic}");
        }
    }
    assert!(!publishing.may_publish("", Qos::AtMostOnce, false));
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let role = "[[role]]\nname = \"r\"\n";
    let in_allow = |list: &str| format!("{role}[role.allow]\n{list}");
    for (text, expected) in [
        (
            "[[roles]]".to_owned(),
            "rules.toml:1: roles: is no known key; the nearest is role",
        ),
        (
            "role = 1".to_owned(),
            "rules.toml:1: role: must be [[role]] tables, not 1",
        ),
        (
            "role = [1]".to_owned(),
            "rules.toml:1: role: must be [[role]] tables, not an array",
        ),
        (
            "[role]\nname = \"r\"".to_owned(),
            "rules.toml:1: role: must be [[role]] tables, not a table",
        ),
        (
            "[[role]]".to_owned(),
            "rules.toml:1: role[0]: needs the key name",
        ),
        (
            "[[role]]\nname = \"\"".to_owned(),
            "rules.toml:2: role[0].name: is empty; it must be a role's name",
        ),
        (
            format!("{role}{role}"),
            "rules.toml:4: role[1].name: there is a role \"r\" at line 1 already",
        ),
        (
            format!("{role}qos_max = 3"),
            "rules.toml:3: role[0].qos_max: must be a whole number from 0 to 2, not 3",
        ),
        (
            format!("{role}allow = []"),
            "rules.toml:3: role[0].allow: must be a table, [role.allow], not an array",
        ),
        (
            in_allow("publishes = []"),
            "rules.toml:4: role[0].allow.publishes: is no known key; the nearest is publish",
        ),
        (
            in_allow("publish = \"a\""),
            "rules.toml:4: role[0].allow.publish: must be an array of topic filters, not \"a\"",
        ),
        (
            in_allow("join = [1]"),
            "rules.toml:4: role[0].allow.join: holds names of queues, which may have wildcards, not 1",
        ),
        (
            in_allow("publish = [\n\"a\",\n\"b/#/c\"]"),
            "rules.toml:6: role[0].allow.publish: \"b/#/c\" is no topic filter: # stands alone",
        ),
        (
            in_allow("publish = [\"$queue/a\"]"),
            "rules.toml:4: role[0].allow.publish: \"$queue/a\" is in no list of publish: the right to put jobs",
        ),
        (
            in_allow("subscribe = [\"$queue/a\"]"),
            "rules.toml:4: role[0].allow.subscribe: \"$queue/a\" is in no list of subscribe: the right to take jobs",
        ),
        (
            in_allow("subscribe = [\"$share/g/a\"]"),
            "rules.toml:4: role[0].allow.subscribe: \"$share/g/a\" is in no list of subscribe: a share group",
        ),
        (
            in_allow("join = [\"$queue/a\"]"),
            "rules.toml:4: role[0].allow.join: \"$queue/a\" is in no list of join: queues are named without $queue/",
        ),
        (
            in_allow("steer = [\"$SYS/a\"]"),
            "rules.toml:4: role[0].allow.steer: \"$SYS/a\" is in no list of steer: the only names",
        ),
        (
            "[[grant]]\nroles = []".to_owned(),
            "rules.toml:1: grant[0]: says nobody",
        ),
        (
            "[[grant]]\nuser = \"a\"".to_owned(),
            "rules.toml:1: grant[0]: needs the key roles",
        ),
        (
            format!("{role}[[grant]]\nuser = \"a\"\nroles = [\"q\"]"),
            "rules.toml:5: grant[0].roles: there is no role \"q\"; the nearest is \"r\"",
        ),
        (
            "[[grant]]\nuser = \"a\"\nanonymous = true\nroles = []".to_owned(),
            "rules.toml:2: grant[0].user: nobody has a user name and is anonymous",
        ),
        ("[[role]\n".to_owned(), "rules.toml:1: is not TOML: "),
    ] {
        let error = parse_form(&text).expect_err(&text);
        assert!(error.starts_with(expected), "{text:?}: {error}");
    }
}
