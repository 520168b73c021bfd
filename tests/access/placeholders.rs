//! Names that are no levels, where rules have `%u` and `%c`.

use super::{acl, check, explained, form, rights};

/// Names that would widen a pattern if they were put into it.
const UNFIT: [&str; 9] = ["+", "#", "a/b", "+/x", "a+", "/", "a\0", "a/#", ""];

/// E01: `+`, `#` and `/` in a name are no wildcards and no levels.
#[test]
fn e01_names_are_no_filters() {
    let acl = acl("pattern readwrite own/%c/#\npattern readwrite by/%u/+\n");
    let form = form(
        "[[role]]\nname = \"r\"\n[role.allow]\n\
         publish = [\"own/%c/#\", \"by/%u/+\"]\n\
         subscribe = [\"own/%c/#\", \"by/%u/+\"]\n\
         [[grant]]\nclient = \"*\"\nroles = [\"r\"]\n",
    );
    for rules in [acl, form] {
        for name in UNFIT {
            let of_client = rights(&rules, "u", name);
            for words in [
                "publish own/x",
                "publish own/a/b",
                "publish own/a/b/x",
                "publish own//x",
                "read own/x/y",
                "filter own/#",
                "filter own/+",
            ] {
                let sentence = explained(&of_client, words);
                assert!(
                    sentence.starts_with("denied: no rule allows it, and rules with %c"),
                    "{name:?} {words}: {sentence}"
                );
            }
            let of_user = rights(&rules, name, "c");
            for words in [
                "publish by/x/y",
                "publish by/a/b",
                "filter by/#",
                "publish by//y",
            ] {
                let sentence = explained(&of_user, words);
                assert!(
                    sentence.starts_with("denied: no rule allows it, and rules with %u"),
                    "{name:?} {words}: {sentence}"
                );
            }
        }
        check(
            &rules,
            &[
                ("u", "c", "publish own/c/x", true),
                ("u", "c", "subscribe own/c/#", true),
                ("u", "c", "subscribe own/+", false),
                ("u", "c", "publish by/u/x", true),
                ("-", "c", "publish own/c/x", true),
            ],
        );
    }
}

/// E02: what other languages of patterns mean by a name means nothing here.
#[test]
fn e02_names_are_no_expressions() {
    let acl = acl("pattern readwrite own/%c/x\npattern readwrite pre-%u\n");
    let names = [
        ".*", "^a$", "[a-z]", "a|b", "*", "?", "%c", "%u", "%", "(a+b)?*",
    ];
    for name in names {
        let own = format!("publish own/{name}/x");
        let is_fit = !name.contains('+');
        check(
            &acl,
            &[
                ("u", name, &own, is_fit),
                ("u", name, "publish own/a/x", false),
                ("u", name, "publish own/other/x", false),
                (name, "c", "publish pre-a", false),
                (name, "c", &format!("publish pre-{name}"), is_fit),
            ],
        );
    }
}

/// A ban is about every name that it could mean.
/// Case E01 of docs/security.md.
#[test]
fn no_name_escapes_a_ban() {
    let acl = acl("pattern read #\npattern deny own/%c/secret\npattern deny x-%c/a\n");
    let form = form(
        "[[role]]\nname = \"r\"\n[role.allow]\nsubscribe = [\"#\"]\n\
         [role.deny]\nsubscribe = [\"own/%c/secret\", \"x-%c/a\"]\n\
         [[grant]]\nclient = \"*\"\nroles = [\"r\"]\n",
    );
    for rules in [acl, form] {
        check(
            &rules,
            &[
                ("-", "c", "read own/c/secret", false),
                ("-", "c", "read own/d/secret", true),
                ("-", "c", "read x-c/a", false),
                ("-", "c", "read x-d/a", true),
                ("-", "c", "subscribe own/+/secret", false),
                ("-", "c", "subscribe own/d/#", true),
                ("-", "a/b", "read own/a/b/secret", false),
                ("-", "a/b", "read own/c/public", false),
                ("-", "a/b", "read own", true),
                ("-", "a/b", "read x-a/b/a", false),
                ("-", "a/b", "read y", true),
                ("-", "a/b", "subscribe own/#", false),
                ("-", "a/b", "filter own/#", true),
                ("-", "a/b", "filter own/+", false),
                ("-", "a/b", "filter own/+/#", false),
                ("-", "a/b", "subscribe y/#", true),
            ],
        );
    }
}

/// A name that begins with `$` makes no topic of the broker's own.
#[test]
fn names_that_begin_with_a_dollar() {
    let rules = acl("pattern readwrite %c/#\npattern readwrite $SYS/%u\n");
    check(
        &rules,
        &[
            ("-", "$SYS", "publish $SYS/a", false),
            ("-", "$CONTROL", "publish $CONTROL/rotamq/v1", false),
            ("-", "$CONTROL", "steer jobs", false),
            ("-", "$queue", "put jobs", false),
            ("-", "$queue", "join jobs", false),
            ("-", "$SYS", "filter $SYS/#", false),
            ("$SYS", "c", "publish $SYS/$SYS", true),
            ("-", "c", "publish c/x", true),
        ],
    );
}
