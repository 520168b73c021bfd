//! What a client may not do is not done, whichever way it is tried; and what it
//! lost the right to does not come to it, whichever way that comes.

use std::path::Path;

use rotamq::access::rules::Rules;
use rotamq::config::Source;

use super::*;

/// Everybody may do everything.
const OPEN: &str = r##"
[[role]]
name = "all"
[role.allow]
publish = ["#"]
retain = ["#"]
subscribe = ["#"]
put = ["#"]
join = ["#"]
create = ["#"]
[[grant]]
client = "*"
roles = ["all"]
"##;

/// The same, but nobody reads what is secret.
const SECRETS_DENIED: &str = r##"
[role.deny]
subscribe = ["+/secret"]
"##;

/// Nobody may publish, or read `own`.
const SILENCE: &str = r##"
[[role]]
name = "reader"
[role.allow]
subscribe = ["#"]
[role.deny]
subscribe = ["own"]
[[grant]]
client = "*"
roles = ["reader"]
"##;

fn secrets() -> String {
    format!("{OPEN}{SECRETS_DENIED}")
}

pub(super) fn rule(world: &mut World, text: &str) {
    let source = Source {
        path: Path::new("rules.toml").into(),
        text: text.to_owned(),
    };
    let rules = Rules::parse(None, Some(&source)).expect("they are valid");
    let now = world.now;
    world.core.set_rules(&mut world.worker, rules, now);
    world.drive();
}

/// Why the PUBLISH that was sent last was refused: MQTT 5 says it in the
/// acknowledgement, 3.1.1 by closing the connection.
pub(super) fn refusal(world: &mut World, client: C) -> ReasonCode {
    match (world.take(client), world.closed(client)) {
        (Some(Got::Refused(_, reason)), None) => reason,
        (None, Some(reason)) => reason,
        other => panic!("a refusal was expected, not {other:?}"),
    }
}

/// E10, E11: a filter that overlaps what is denied brings nothing of it.
#[test]
fn a_subscription_brings_only_what_may_be_read_whichever_way_it_comes() {
    in_each_version(|mut world| {
        rule(&mut world, &secrets());
        let p = world.connect("p").go();
        for topic in ["a/open", "a/secret"] {
            world.publish_with(p, topic, "retained", 1, true);
        }
        let a = world.connect("a").clean(false).go();
        for filter in ["a/+", "#"] {
            world.subscribe(a, filter, 1);
        }
        // What one of several may not have, nobody gets in its stead.
        assert!(world.try_subscribe(a, &[("$share/g/b/#", 1)])[0] >= 0x80);
        let topics = |world: &mut World, client: C| -> Vec<String> {
            let messages = world.messages(client);
            for message in &messages {
                world.acknowledge(client, message);
            }
            let mut topics: Vec<_> = messages.into_iter().map(|m| m.topic).collect();
            topics.sort();
            topics.dedup();
            topics
        };
        let publish_all = |world: &mut World| {
            for topic in ["a/open", "a/secret", "b/open", "b/secret"] {
                world.publish(p, topic, "live", 1);
            }
        };
        assert_eq!(topics(&mut world, a), ["a/open"]);
        publish_all(&mut world);
        assert_eq!(topics(&mut world, a), ["a/open", "b/open"]);
        world.drop(a);
        publish_all(&mut world);
        let a = world.connect("a").clean(false).go();
        assert_eq!(topics(&mut world, a), ["a/open", "b/open"]);
        assert!(world.counts().dropped_denied >= 5);
    });
}

/// E07, E08: what SUBACK refuses is not there.
#[test]
fn a_subscription_that_is_refused_brings_nothing() {
    in_each_version(|mut world| {
        rule(&mut world, &secrets());
        let [a, p] = ["a", "p"].map(|id| world.connect(id).go());
        let refused = world.try_subscribe(
            a,
            &[
                ("a/secret", 1),
                ("$share/g/a/secret", 1),
                ("$queue/a/secret", 1),
            ],
        );
        assert!(refused.iter().all(|code| *code >= 0x80), "{refused:?}");
        world.publish(p, "a/secret", "m", 1);
        assert_eq!(world.receive(a), []);
        assert_eq!(world.core.subscriptions_len(), 0);
    });
}

/// Case D10 of docs/security.md.
#[test]
fn who_may_not_publish_is_told_and_nobody_gets_it() {
    in_each_version(|mut world| {
        let s = world.connect("s").go();
        world.subscribe(s, "t", 1);
        rule(&mut world, SILENCE);
        for topic in ["t", "$queue/t", "$delayed/0/t"] {
            let p = world.connect("p").go();
            world.send(p, &publish(topic, "m", 1, 1));
            assert_eq!(refusal(&mut world, p), ReasonCode::NotAuthorized, "{topic}");
            assert_eq!(world.receive(s), []);
            if world.is_open(p) {
                world.disconnect(p);
            }
        }
    });
}

/// G01, G02: a will is decided at CONNECT, and again when it is published.
/// Case G05 of docs/security.md.
#[test]
fn a_will_is_decided_twice() {
    in_each_version(|mut world| {
        let s = world.connect("s").go();
        world.subscribe(s, "t", 1);
        rule(&mut world, OPEN);
        let w = world.connect("w").will("t", "gone", 1, false).go();
        rule(&mut world, SILENCE);
        world.drop(w);
        assert_eq!(world.receive(s), []);
        let refused = world.connect("w").will("t", "gone", 1, false).refused();
        assert_eq!(refused, ReasonCode::NotAuthorized);
    });
}

/// E13, E14, E19, E20: what was allowed when it was published or sent, and is
/// not any more, does not come.
#[test]
fn what_lost_its_right_does_not_come_any_more() {
    in_each_version(|mut world| {
        rule(&mut world, OPEN);
        let p = world.connect("p").go();
        let a = world.connect("a").clean(false).go();
        for filter in ["own", "t"] {
            world.subscribe(a, filter, 1);
        }
        world.publish(p, "own", "in flight", 1);
        assert_eq!(world.payloads(a), ["in flight"]);
        world.drop(a);
        world.publish(p, "own", "waits", 1);
        world.publish(p, "t", "waits too", 1);
        world.publish(p, "$delayed/60/t", "delayed", 1);
        world.publish_with(p, "t", "retained", 1, true);
        rule(&mut world, SILENCE);
        let a = world.connect("a").clean(false).go();
        // What its publisher had the right to, and the subscriber has.
        assert_eq!(world.payloads(a), ["waits too", "retained"]);
        world.advance(secs(61));
        let b = world.connect("b").go();
        world.subscribe(b, "t", 1);
        assert_eq!((world.payloads(a), world.payloads(b)), (vec![], vec![]));
        let own = world.try_subscribe(a, &[("own", 1)]);
        assert!(own[0] >= 0x80, "{own:?}");
    });
}

/// Case E20 of docs/security.md.
#[test]
fn rules_bind_who_subscribed_before_them_and_let_go_again() {
    in_each_version(|mut world| {
        let [a, p] = ["a", "p"].map(|id| world.connect(id).go());
        world.subscribe(a, "#", 1);
        let (secrets, open) = (secrets(), OPEN.to_owned());
        for (rules, comes) in [(&secrets, false), (&open, true), (&secrets, false)] {
            rule(&mut world, rules);
            world.publish(p, "a/secret", "m", 0);
            world.publish(p, "a/open", "m", 0);
            let expected = if comes { 2 } else { 1 };
            assert_eq!(world.messages(a).len(), expected, "{rules}");
        }
    });
}

/// Case E50 of docs/security.md.
#[test]
fn queues_are_put_into_joined_and_made_by_right() {
    const JOBS: &str = r#"
        [[role]]
        name = "producer"
        [role.allow]
        put = ["jobs", "new"]
        [[role]]
        name = "worker"
        [role.allow]
        join = ["jobs"]
        create = ["jobs"]
        subscribe = ["jobs"]
        [[grant]]
        client = "p"
        roles = ["producer"]
        [[grant]]
        client = "w"
        roles = ["worker"]
    "#;
    in_mqtt_5(
        |_| (),
        |mut world| {
            rule(&mut world, JOBS);
            let [p, w] = ["p", "w"].map(|id| world.connect(id).go());
            // Who only puts in makes no queue.
            world.send(p, &publish("$queue/jobs", "early", 1, 1));
            assert_eq!(refusal(&mut world, p), ReasonCode::NotAuthorized);
            assert!(world.try_subscribe(p, &[("$queue/jobs", 1)])[0] >= 0x80);
            world.subscribe(w, "$queue/jobs", 1);
            world.publish(p, "$queue/jobs", "1", 1);
            assert_eq!(world.payloads(w), ["1"]);
            world.send(w, &publish("$queue/jobs", "own", 1, 1));
            assert_eq!(refusal(&mut world, w), ReasonCode::NotAuthorized);
            // A worker that lost its right is a member no more, and its jobs are
            // somebody else's.
            rule(&mut world, OPEN);
            world.publish(p, "$queue/jobs", "2", 1);
            assert_eq!(world.payloads(w), ["2"]);
            rule(&mut world, SILENCE);
            rule(&mut world, OPEN);
            world.publish(p, "$queue/jobs", "3", 1);
            assert_eq!(world.receive(w), []);
            let other = world.connect("other").go();
            world.subscribe(other, "$queue/jobs", 1);
            assert_eq!(world.payloads(other), ["1", "2", "3"]);
        },
    );
}

/// Case G05 of docs/security.md.
#[test]
fn a_bound_on_qos_holds_for_both_ways() {
    const LOW: &str = r##"
        [[role]]
        name = "low"
        qos_max = 1
        [role.allow]
        publish = ["#"]
        subscribe = ["#"]
        [[grant]]
        client = "*"
        roles = ["low"]
    "##;
    in_mqtt_5(
        |_| (),
        |mut world| {
            rule(&mut world, LOW);
            let a = world.connect("a").go();
            assert_eq!(world.try_subscribe(a, &[("t", 2)]), [1]);
            world.send(a, &publish("t", "m", 2, 1));
            assert_eq!(refusal(&mut world, a), ReasonCode::NotAuthorized);
        },
    );
}

/// With rules the right to steer counts, wherever the client is.
/// Case E50 of docs/security.md.
#[test]
fn queues_are_steered_by_right() {
    const OPS: &str = r##"
        [[role]]
        name = "all"
        [role.allow]
        publish = ["answers"]
        subscribe = ["answers"]
        steer = ["mine"]
        [[grant]]
        client = "*"
        roles = ["all"]
    "##;
    in_mqtt_5(
        |_| (),
        |mut world| {
            let producer = world.connect("producer").go();
            for queue in ["$queue/mine", "$queue/other"] {
                world.publish(producer, queue, "m", 1);
            }
            rule(&mut world, OPS);
            let ops = world.connect("ops").go();
            world.subscribe(ops, "answers", 1);
            let mut ask = |request: serde_json::Value| {
                let payload = request.to_string();
                let id = world.send_publish(ops, "$CONTROL/rotamq/v1", &payload, 1, false);
                world.expect(ops, Got::Puback(id));
                let said = world.work(ops).payload;
                let said: serde_json::Value = serde_json::from_str(&said).unwrap();
                said["error"]["code"].as_str().map(str::to_owned)
            };
            let ask_of = |op: &str, queue: &str| serde_json::json!({"op": op, "queue": queue, "answer_to": "answers"});
            let denied = || Some("denied".to_owned());
            assert_eq!(ask(ask_of("show", "mine")), None);
            assert_eq!(ask(ask_of("purge", "mine")), None);
            assert_eq!(ask(ask_of("show", "other")), denied());
            assert_eq!(
                ask(serde_json::json!({"op": "list", "answer_to": "answers"})),
                denied()
            );
            let mut redrive = ask_of("move", "mine");
            redrive["to"] = "other".into();
            assert_eq!(ask(redrive), denied());
        },
    );
}

/// What was sent, or waits, does not come any more when it may not be read any
/// more, also where its subscription is gone.
/// Case E11 of docs/security.md.
#[test]
fn what_is_left_of_a_subscription_is_asked_for_too() {
    in_each_version(|mut world| {
        rule(&mut world, OPEN);
        let [a, p] = ["a", "p"].map(|id| world.connect(id).clean(false).go());
        world.subscribe(a, "a/#", 1);
        world.publish(p, "a/secret", "in flight", 1);
        assert_eq!(world.payloads(a), ["in flight"]);
        world.unsubscribe(a, "a/#");
        world.drop(a);
        rule(&mut world, &secrets());
        let a = world.connect("a").clean(false).go();
        assert_eq!(world.receive(a), []);
    });
}

/// A worker of dead letters needs the right to what their queue had, and a
/// member of a share group that lost its right is none any more.
/// Case E50 of docs/security.md.
#[test]
fn who_shares_may_read_all_of_it() {
    in_each_version(|mut world| {
        let [a, b, p] = ["a", "b", "p"].map(|id| world.connect(id).go());
        for member in [a, b] {
            world.subscribe(member, "$share/g/+/secret", 1);
        }
        rule(&mut world, &secrets());
        world.publish(p, "a/secret", "m", 1);
        assert_eq!((world.receive(a), world.receive(b)), (vec![], vec![]));
        let dead = [("$queue/$dead/a/secret", 1)];
        assert!(world.try_subscribe(a, &dead)[0] >= 0x80);
        rule(&mut world, OPEN);
        world.publish(p, "a/secret", "m", 1);
        assert_eq!((world.receive(a), world.receive(b)), (vec![], vec![]));
        assert_eq!(world.core.subscriptions_len(), 0);
    });
}
