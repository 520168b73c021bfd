//! mosquitto's ACL file.

use super::{acl, check, explained, parse_acl, rights};

/// What mosquitto.conf(5) and the file that comes with it say; what mosquitto
/// 2.0.11 answered where they leave something open.
#[test]
fn mosquittos_examples() {
    let example = acl("\
# This affects access control for clients with no username.
topic read $SYS/#

# This only affects clients with username \"roger\".
user roger
topic foo/bar

# This affects all clients.
pattern write $SYS/broker/connection/%c/state
");
    check(
        &example,
        &[
            ("-", "c", "read $SYS/broker/uptime", true),
            ("-", "c", "subscribe $SYS/#", true),
            ("-", "c", "publish $SYS/a", false),
            ("-", "c", "publish foo/bar", false),
            ("roger", "c", "publish foo/bar", true),
            ("roger", "c", "retain foo/bar", true),
            ("roger", "c", "read foo/bar", true),
            ("roger", "c", "read $SYS/broker/uptime", false),
            ("other", "c", "read foo/bar", false),
            ("other", "c", "publish $SYS/broker/connection/c/state", true),
            ("-", "c", "publish $SYS/broker/connection/c/state", true),
            ("-", "c", "publish $SYS/broker/connection/d/state", false),
        ],
    );
    let manual = acl("pattern write sensor/%u/data\n");
    check(
        &manual,
        &[
            ("al", "c", "publish sensor/al/data", true),
            ("al", "c", "publish sensor/bo/data", false),
            ("al", "c", "read sensor/al/data", false),
            ("-", "c", "publish sensor//data", false),
            ("-", "c", "publish sensor/%u/data", false),
        ],
    );
    // "deny" is handled before topics that grant, wherever it stands.
    let asked = acl("\
topic read general/#
topic write general/w
topic deny general/x
user roger
topic foo/bar
topic read with space/#
pattern write dev-%c/data
pattern write dev/%u/#
pattern deny foo/#
pattern write %c/first
user roger
topic second/%u
");
    check(
        &asked,
        &[
            ("-", "me", "publish general/w", true),
            ("-", "me", "publish general/x", false),
            ("-", "me", "read general/x", false),
            ("-", "me", "publish general/r", false),
            ("-", "me", "publish foo/bar", false),
            // What topic lines allow pattern lines do not deny.
            ("roger", "me", "publish foo/bar", true),
            ("roger", "me", "subscribe foo/bar", true),
            ("roger", "me", "subscribe foo/+", false),
            ("roger", "me", "filter foo/+", true),
            ("roger", "me", "publish general/w", false),
            ("roger", "c1", "publish dev-c1/data", true),
            ("roger", "c1", "publish dev/roger/x", true),
            ("roger", "c1", "read with space/a", true),
            ("ro+", "c1", "publish dev-c1/data", false),
            ("other", "c1", "publish foo/bar", false),
            ("-", "c1", "publish dev//x", false),
            ("-", "$SYS", "publish $SYS/first", false),
            // Placeholders are a pattern's.
            ("roger", "c1", "publish second/%u", true),
            ("roger", "c1", "publish second/roger", false),
        ],
    );
}

#[test]
fn how_lines_may_be_written() {
    let rules = acl("# comment\r\n\
                     \r\n\
                     \u{20} topic  read   a b/c \r\n\
                     topic read\r\n\
                     user  al bo\r\n\
                     topic write x\r\n\
                     user other\r\n\
                     pattern readwrite y\r\n\
                     user al bo\r\n\
                     topic deny x/z\r\n\
                     topic x/#");
    check(
        &rules,
        &[
            ("-", "c", "read a b/c", true),
            ("-", "c", "publish read", true),
            ("al bo", "c", "publish x", true),
            ("al bo", "c", "read x/y", true),
            ("al bo", "c", "read x/z", false),
            ("al", "c", "publish x", false),
            ("al bo", "c", "publish y", true),
            ("-", "c", "read y", true),
        ],
    );
    let rights = rights(&rules, "al bo", "c");
    let lines = [
        ("publish x", "allowed by rules.acl:6: topic write x"),
        ("read x/z", "denied by rules.acl:10: topic deny x/z"),
        ("read x/y", "allowed by rules.acl:11: topic x/#"),
        ("read z", "denied: no rule allows it"),
    ];
    for (words, sentence) in lines {
        assert_eq!(explained(&rights, words), sentence);
    }
}

/// mosquitto has none; what topics below `$queue/` mean here.
#[test]
fn queues() {
    let rules = acl("\
topic write $queue/jobs/#
topic read $queue/done
topic deny $queue/jobs/secret
topic #
user op
topic write $CONTROL/rotamq/v1
topic $queue/#
user half
topic write $CONTROL/#
topic deny $CONTROL/rotamq/+
");
    check(
        &rules,
        &[
            ("-", "c", "put jobs/a", true),
            ("-", "c", "put jobs/secret", false),
            ("-", "c", "put done", false),
            ("-", "c", "create jobs/a", true),
            ("-", "c", "create done", true),
            ("-", "c", "create jobs/+", false),
            ("-", "c", "create other", false),
            ("-", "c", "join jobs/a", false),
            ("-", "c", "join done", true),
            ("-", "c", "join +", false),
            ("-", "c", "steer done", false),
            ("-", "c", "publish $queue/other", false),
            ("op", "c", "steer jobs/a", true),
            ("op", "c", "steer $dead/jobs", true),
            ("op", "c", "join $dead/jobs", true),
            ("op", "c", "put anything", true),
            ("op", "c", "publish anything", false),
            ("half", "c", "steer jobs", false),
        ],
    );
    let rights = rights(&rules, "half", "c");
    let sentence = "denied by rules.acl:10: topic deny $CONTROL/rotamq/+";
    assert_eq!(explained(&rights, "steer jobs"), sentence);
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    for (text, expected) in [
        ("topic a\nuser", "rules.acl:2: a user line names a user"),
        ("user \n", "rules.acl:1: a user line names a user"),
        (
            "\ntopic",
            "rules.acl:2: a topic line names topics: topic [read",
        ),
        (
            "pattern  ",
            "rules.acl:1: a pattern line names topics: pattern [read",
        ),
        (
            "topic foo bar",
            "rules.acl:1: \"foo\" is no access: it is read, write, readwrite or deny",
        ),
        (
            "topics a",
            "rules.acl:1: \"topics\" begins no line of an ACL file; there are topic",
        ),
        (
            "topic\tread a",
            "rules.acl:1: \"topic\\tread\" begins no line",
        ),
        (
            "topic read a/#/b",
            "rules.acl:1: \"a/#/b\" is no topic filter: # stands alone",
        ),
        (
            "pattern $%c/a",
            "rules.acl:1: \"$%c/a\" would let a name say which of the broker's own topics",
        ),
        (
            "pattern a+%c",
            "rules.acl:1: \"a+%c\" is no topic filter: + stands alone",
        ),
    ] {
        let error = parse_acl(text).expect_err(text);
        assert!(error.starts_with(expected), "{text:?}: {error}");
    }
    let all = parse_acl("topic\nuser\ntopic a\nx").expect_err("three lines are wrong");
    let lines: Vec<_> = all.lines().map(|line| &line[..12]).collect();
    assert_eq!(lines, ["rules.acl:1:", "rules.acl:2:", "rules.acl:4:"]);
}
