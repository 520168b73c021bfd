//! Rights that come with a client, by its token or a service that was asked:
//! they hold whichever way something comes, beside the rules of files and without
//! any, and the next connection's are others.

use serde_json::{Value, json};

use super::authentication::{Lasting, properties};
use super::rights::{refusal, rule};
use super::*;
use rotamq::access::OwnRights;
use rotamq::protocol::Auth;

fn taking_rights(config: &mut Config) {
    config.authentication.tokens.rights_claim = "rights".to_owned();
}

/// Ann, of whom this is said.
fn ann(rights: Value) -> Authenticated {
    let rights = OwnRights::parse("the token's claim rights", &rights);
    Authenticated {
        rights: Some(rights.expect("they are valid")),
        ..user("ann")
    }
}

fn is_refused(world: &mut World, client: C, filter: &str) -> bool {
    world.try_subscribe(client, &[(filter, 1)])[0] >= 0x80
}

/// Whether a PUBLISH is refused, of a client of its own.
fn is_publish_refused(world: &mut World, topic: &str) -> bool {
    let p = world.connect("p").go();
    world.send(p, &publish(topic, "m", 1, 1));
    let is_refused = match world.take(p) {
        Some(Got::Refused(_, reason)) => reason == ReasonCode::NotAuthorized,
        _ => !world.is_open(p),
    };
    if world.is_open(p) {
        world.disconnect(p);
    }
    is_refused
}

#[test]
fn without_rules_they_bind_who_has_them_and_nobody_else() {
    in_each_version_with(taking_rights, |mut world| {
        world.who = ann(json!({
            "allow": {"publish": ["out/%c"], "subscribe": ["in/#", "jobs"], "join": ["jobs"],
                      "create": ["jobs"], "put": ["jobs"]},
            "deny": {"subscribe": ["in/secret"]},
        }));
        assert!(!is_publish_refused(&mut world, "out/p"));
        assert!(!is_publish_refused(&mut world, "$queue/jobs"));
        for topic in ["out/q", "in/x", "$queue/other"] {
            assert!(is_publish_refused(&mut world, topic), "{topic}");
        }
        let a = world.connect("a").go();
        for (filter, expected) in [
            ("in/#", false),
            ("$queue/jobs", false),
            ("in/secret", true),
            ("out/a", true),
            ("$share/g/in/#", true),
            ("$share/g/in/x", false),
            ("$queue/other", true),
        ] {
            assert_eq!(is_refused(&mut world, a, filter), expected, "{filter}");
        }
        let refused = world.connect("w").will("in/x", "gone", 0, false).refused();
        assert_eq!(refused, ReasonCode::NotAuthorized);
        // Somebody of whom nobody says anything may do everything.
        world.who = user("ben");
        let b = world.connect("b").go();
        world.subscribe(b, "#", 0);
        for topic in ["in/secret", "in/x"] {
            world.publish(b, topic, topic, 0);
        }
        assert_eq!(world.payloads(b), ["in/secret", "in/x"]);
        assert!(!world.payloads(a).contains(&"in/secret".to_owned()));
    });
}

/// A deny of either is stronger than what the other allows.
#[test]
fn beside_rules_they_are_one_more_role() {
    const FILE: &str = r#"
        [[role]]
        name = "all"
        [role.allow]
        publish = ["a/#"]
        [role.deny]
        publish = ["a/no", "b/no"]
        [[grant]]
        user = "ann"
        roles = ["all"]
    "#;
    in_each_version_with(taking_rights, |mut world| {
        rule(&mut world, FILE);
        world.who = ann(json!({
            "allow": {"publish": ["b/#"]},
            "deny": {"publish": ["a/neither"]},
        }));
        for (topic, refused) in [
            ("a/yes", false),
            ("b/yes", false),
            ("a/no", true),
            ("b/no", true),
            ("a/neither", true),
            ("c", true),
        ] {
            assert_eq!(is_publish_refused(&mut world, topic), refused, "{topic}");
        }
        // Nothing said is nothing allowed beside the file.
        world.who = ann(json!({}));
        assert!(!is_publish_refused(&mut world, "a/yes"));
        assert!(is_publish_refused(&mut world, "b/yes"));
    });
}

/// What waits for a client is asked for by the rights that it comes back with,
/// and what these do not say it is a member of no more.
#[test]
fn who_comes_back_has_the_new_ones() {
    for rules in [None, Some("")] {
        in_each_version_with(taking_rights, |mut world| {
            if let Some(rules) = rules {
                rule(&mut world, rules);
            }
            let all = json!({"allow": {"subscribe": ["#"], "join": ["#"], "create": ["#"],
                                       "put": ["#"], "publish": ["#"]}});
            world.who = ann(all.clone());
            let a = world.connect("a").clean(false).go();
            for filter in ["open", "secret", "$queue/jobs", "$share/g/t"] {
                world.subscribe(a, filter, 1);
            }
            world.drop(a);
            let p = world.connect("p").go();
            for topic in ["secret", "open", "$queue/jobs", "t"] {
                world.publish(p, topic, topic, 1);
            }
            if world.disk.is_some() {
                world.restart();
            }
            world.who = ann(json!({"allow": {"subscribe": ["open"]}}));
            let a = world.connect("a").clean(false).go();
            assert_eq!(world.payloads(a), ["open"]);
            // What it was given, and may not have, is somebody else's.
            world.who = ann(all.clone());
            let other = world.connect("other").go();
            for filter in ["$queue/jobs", "$share/g/t"] {
                world.subscribe(other, filter, 1);
            }
            let mut payloads = world.payloads(other);
            payloads.sort();
            assert!(payloads.contains(&"$queue/jobs".to_owned()), "{payloads:?}");
            assert_eq!(world.payloads(a), Vec::<String>::new());
        });
    }
}

/// An absent session keeps the rights of its last connection, also when the
/// broker was away: what it has waits for it.
#[test]
fn an_absent_session_loses_nothing_by_a_restart() {
    in_each_version_with(taking_rights, |mut world| {
        rule(&mut world, "");
        world.who = ann(json!({"allow": {"subscribe": ["open"]}}));
        let a = world.connect("a").clean(false).go();
        world.subscribe(a, "open", 1);
        world.drop(a);
        if world.disk.is_some() {
            world.restart();
            rule(&mut world, "");
        }
        world.who = ann(json!({"allow": {"publish": ["#"], "subscribe": ["open"]}}));
        let p = world.connect("p").go();
        world.publish(p, "open", "waits", 1);
        let a = world.connect("a").clean(false).go();
        assert_eq!(world.payloads(a), ["waits"]);
    });
}

/// AUTH brings another token, and with it other rights, from then on.
#[test]
fn who_authenticates_again_has_the_new_ones() {
    in_mqtt_5(taking_rights, |mut world| {
        let all = json!({"allow": {"subscribe": ["#"], "publish": ["#"], "join": ["#"],
                                   "create": ["#"]}});
        let few = json!({"allow": {"subscribe": ["open"]}});
        let steps = [ann(all), ann(few)].into();
        let method = Arc::new(Lasting(Arc::new(std::sync::Mutex::new(steps))));
        world.core.add_authentication_method(method);
        let connecting = world.connect("a");
        let a = connecting
            .property(Property::AuthenticationMethod("LASTING"))
            .go();
        for filter in ["+", "$queue/jobs"] {
            world.subscribe(a, filter, 1);
        }
        world.publish(a, "secret", "1", 1);
        assert_eq!(world.payloads(a), ["1"]);
        let properties = properties("LASTING", b"");
        let auth = Auth {
            reason: ReasonCode::ReAuthenticate,
            properties: properties.as_properties(),
        };
        world.send(a, &Packet::Auth(auth));
        assert_eq!(world.receive(a), [Got::Auth(ReasonCode::Success)]);
        let p = world.connect("p").go();
        for topic in ["secret", "open", "$queue/jobs"] {
            world.publish(p, topic, topic, 1);
        }
        assert_eq!(world.payloads(a), ["open"]);
        world.send(a, &publish("open", "m", 1, 9));
        assert_eq!(refusal(&mut world, a), ReasonCode::NotAuthorized);
    });
}

/// What was published by rights that its publisher had goes out when it is gone,
/// unless a rule denies it.
#[test]
fn what_is_kept_of_who_is_gone_is_stopped_by_what_denies_it() {
    in_each_version_with(taking_rights, |mut world| {
        world.who = ann(json!({"allow": {"publish": ["#"], "retain": ["#"]}}));
        let w = world.connect("w").will("t/will", "will", 1, false).go();
        let p = world.connect("p").go();
        world.publish_with(p, "t/kept", "kept", 1, true);
        world.publish(p, "$delayed/60/t/later", "later", 1);
        world.disconnect(p);
        world.who = user("ben");
        let b = world.connect("b").go();
        world.subscribe(b, "t/#", 1);
        assert_eq!(world.payloads(b), ["kept"]);
        world.drop(w);
        assert_eq!(world.payloads(b), ["will"]);
        rule(
            &mut world,
            r##"
            [[role]]
            name = "reader"
            [role.allow]
            subscribe = ["t/#"]
            [[role]]
            name = "silenced"
            [role.deny]
            publish = ["t/kept"]
            [[grant]]
            client = "*"
            roles = ["reader"]
            [[grant]]
            user = "ann"
            roles = ["silenced"]
            "##,
        );
        world.subscribe(b, "t/kept", 1);
        world.advance(secs(61));
        assert_eq!(world.payloads(b), ["later"]);
    });
}

/// A receipt is published in the name of whoever put the job in, and with its
/// rights.
#[test]
fn a_receipt_goes_where_its_publisher_may_publish() {
    in_mqtt_5(taking_rights, |mut world| {
        let rights = json!({"allow": {"put": ["jobs"], "create": ["jobs"], "publish": ["done"]}});
        let b = world.connect("b").go();
        world.subscribe(b, "done", 1);
        world.subscribe(b, "secret", 1);
        for (topic, is_gone, comes) in [
            ("done", false, true),
            ("secret", false, false),
            ("done", true, false),
        ] {
            world.who = ann(rights.clone());
            let p = world.connect("p").go();
            let wishes = [
                Property::ResponseTopic(TopicName::parse(topic, TopicLimits::NONE).unwrap()),
                Property::UserProperty(("receipt", "yes")),
            ];
            world.send_with(p, ("$queue/jobs", "job"), 1, false, &wishes);
            if is_gone {
                world.disconnect(p);
            }
            world.who = user("ben");
            let w = world.connect("w").go();
            world.subscribe(w, "$queue/jobs", 1);
            let job = world.work(w);
            world.acknowledge(w, &job);
            assert_eq!(
                world.payloads(b).len(),
                usize::from(comes),
                "{topic} {is_gone}"
            );
            world.disconnect(w);
        }
    });
}

/// Where clients may come with rights, one that has none, and of whom no file
/// says anything, steers from the broker's own machine alone, as without any.
#[test]
fn who_is_said_nothing_of_steers_no_queue_from_elsewhere() {
    in_mqtt_5(taking_rights, |mut world| {
        let request = r#"{"op": "list"}"#;
        for (id, who, is_refused) in [
            ("b", user("ben"), true),
            ("a", ann(json!({"allow": {"steer": ["#"]}})), false),
            ("a", ann(json!({"allow": {"publish": ["#"]}})), true),
        ] {
            world.who = who;
            let c = world.connect(id).go();
            world.send(c, &publish("$CONTROL/rotamq/v1", request, 1, 1));
            let refused = matches!(world.take(c), Some(Got::Refused(..)));
            assert_eq!(refused, is_refused, "{:?}", world.who);
        }
    });
}
