//! Seeing and steering queues: what is asked for, and what comes of it.

use serde_json::{Value, json};

use super::random::Random;
use super::*;
use rotamq::broker::steer::{Code, Request, SteerError};
use rotamq::store::twin::Fault;
use rotamq::topic::{TopicLimits, TopicName};

impl World {
    /// What the broker answers, with clients that get what comes of it.
    fn try_steer(&mut self, request: Value) -> Result<Value, SteerError> {
        let request: Request = serde_json::from_value(request).expect("a request");
        let answer = self.core.steer(&mut self.worker, &request, self.now);
        self.worker.effects.wake_all();
        self.drive();
        answer.map(|answer| serde_json::to_value(answer).expect("JSON"))
    }

    pub(super) fn steer(&mut self, request: Value) -> Value {
        self.try_steer(request).expect("it is done")
    }

    fn not_steered(&mut self, request: Value) -> Code {
        self.try_steer(request)
            .expect_err("it is not to be done")
            .code
    }

    fn show(&mut self, queue: &str) -> Value {
        self.steer(json!({"op": "show", "queue": queue}))
    }

    /// Ready, in flight, delayed and dead.
    pub(super) fn state(&mut self, queue: &str) -> [u64; 4] {
        let shown = self.show(queue);
        ["ready", "in_flight", "delayed", "dead"].map(|key| shown[key].as_u64().expect(key))
    }

    fn peeked(&mut self, queue: &str, count: usize) -> Vec<String> {
        let request = json!({"op": "peek", "queue": queue, "count": count});
        texts(&self.steer(request)["messages"], "payload")
    }

    /// The ids of the first messages.
    fn ids(&mut self, queue: &str, count: usize) -> Vec<String> {
        let request = json!({"op": "peek", "queue": queue, "count": count});
        texts(&self.steer(request)["messages"], "id")
    }

    pub(super) fn fill(&mut self, queue: &str, jobs: std::ops::Range<usize>) {
        let p = self.connect("p").go();
        for job in jobs {
            self.publish(p, &format!("$queue/{queue}"), &job.to_string(), 1);
        }
        self.disconnect(p);
    }
}

fn texts(of: &Value, key: &str) -> Vec<String> {
    let items = of.as_array().expect("an array").iter();
    let texts = items.map(|item| item[key].as_str().expect(key).to_owned());
    texts.collect()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

// ---- seeing

#[test]
fn queues_are_listed_by_name_in_pages() {
    in_each_version(|mut world| {
        for name in ["b/1", "a", "b/2", "c"] {
            world.fill(name, 0..2);
        }
        let s = world.connect("s").go();
        world.subscribe(s, "$share/g/b/#", 1);
        let mut list = |request: Value| {
            let answer = world.steer(request);
            (texts(&answer["queues"], "name"), answer["next"].clone())
        };
        let first = list(json!({"op": "list", "limit": 3}));
        assert_eq!(first.0, ["a", "b/1", "b/2"]);
        assert_eq!(first.1, "b/2");
        let second = list(json!({"op": "list", "limit": 3, "after": "b/2"}));
        assert_eq!(second, (vec!["c".to_owned()], Value::Null));
        assert_eq!(list(json!({"op": "list", "name": "b/"})).0, ["b/1", "b/2"]);
        assert_eq!(list(json!({"op": "list", "name": "*1"})).0, ["b/1"]);
        assert_eq!(list(json!({"op": "list", "name": "d"})).0, [""; 0]);
    });
}

#[test]
fn a_queue_and_its_members_are_shown() {
    let configure = |config: &mut Config| config.queue.push(queue("jobs"));
    in_each_version_with(configure, |mut world| {
        let w = world.connect("worker").clean(false).go();
        world.subscribe(w, "$queue/jobs", 1);
        world.fill("jobs", 0..20);
        world.advance(secs(3));
        let got = world.messages(w);
        world.send(w, &puback(got[0].id));
        let shown = world.show("jobs");
        assert_eq!(shown["configured"], "file");
        assert_eq!(shown["paused"], false);
        assert_eq!(world.state("jobs"), [3, 16, 0, 0]);
        assert_eq!(shown["oldest_ms"], 3000);
        assert_eq!(
            (&shown["enqueued"], &shown["done"]),
            (&json!(20), &json!(1))
        );
        assert_eq!(shown["totals"]["delivered"], 17);
        assert_eq!(shown["settings"]["prefetch"], 16);
        assert_eq!(shown["differing"], json!({}));
        let member = &shown["member_list"][0];
        assert_eq!(member["client"], "worker");
        assert_eq!(member["connected"], true);
        assert_eq!(
            (&member["qos"], &member["prefetch"]),
            (&json!(1), &json!(16))
        );
        assert_eq!(
            (&member["in_flight"], &member["oldest_ms"]),
            (&json!(16), &json!(3000))
        );
        assert_eq!(member["latency_ms"], 3000.0);
        world.drop(w);
        let shown = world.show("jobs");
        assert_eq!(
            (&shown["members"], &shown["redelivered"]),
            (&json!(0), &json!(0))
        );
        assert_eq!(shown["member_list"][0]["connected"], false);
        world.fill("else", 0..1);
        assert_eq!(world.show("else")["configured"], "on-the-fly");
        let nowhere = json!({"op": "show", "queue": "nowhere"});
        assert_eq!(world.not_steered(nowhere), Code::NotFound);
    });
}

/// Over the last seconds, and nothing once nothing happens any more.
#[test]
fn rates_are_those_of_the_last_seconds() {
    let mut world = World::new();
    let w = world.connect("w").go();
    world.subscribe(w, "$queue/q", 0);
    for second in 0..20 {
        world.fill("q", second * 10..second * 10 + 10);
        world.advance(secs(1));
    }
    let shown = world.show("q");
    for rate in ["enqueued_per_sec", "done_per_sec"] {
        let rate = shown[rate].as_f64().unwrap();
        assert!((9.0..=11.0).contains(&rate), "{rate}");
    }
    world.advance(secs(3600));
    world.show("q");
    world.advance(secs(1));
    world.show("q");
    world.advance(secs(10));
    assert!(world.show("q")["enqueued_per_sec"].as_f64().unwrap() < 0.1);
}

#[test]
fn messages_are_looked_at_and_stay() {
    in_mqtt_5(
        |_| (),
        |mut world| {
            let p = world.connect("maker").go();
            let properties = [
                Property::UserProperty(("kind", "urgent")),
                Property::MessageExpiryInterval(60),
            ];
            let topic = ("$queue/q", "first\n");
            world.send_with(p, topic, 1, false, &properties);
            world.publish(p, "$queue/q", "\u{0}\u{1}", 0);
            let w = world.connect("w").go();
            world.subscribe(w, "$queue/q", 1);
            let got = world.messages(w);
            world.control(w, "nack", &format!("{} 30", got[1].id));
            let request = json!({"op": "peek", "queue": "q", "in_flight": true});
            let answer = world.steer(request);
            let [second, first] = &answer["messages"].as_array().unwrap()[..] else {
                panic!("two messages: {answer}");
            };
            assert_eq!(first["state"], "in-flight");
            assert_eq!(
                (&first["client"], &first["topic"]),
                (&json!("w"), &json!("q"))
            );
            assert_eq!(
                (&first["payload"], &first["deliveries"]),
                (&json!("first\n"), &json!(1))
            );
            assert_eq!(first["publisher"], "maker");
            assert_eq!(first["user_properties"], json!([["kind", "urgent"]]));
            assert_eq!(first["enqueued_at_ms"], 1000);
            assert_eq!(first["expires_at_ms"], 61_000);
            assert_eq!(second["state"], "delayed");
            assert_eq!(
                (&second["payload_base64"], &second["due_at_ms"]),
                (&json!("AAE="), &json!(31_000))
            );
            // Without them, and cut off.
            world.fill("q", 123..124);
            let request = json!({"op": "peek", "queue": "q", "count": 9, "payload_bytes_max": 2});
            let answer = world.steer(request);
            let messages = answer["messages"].as_array().unwrap();
            assert!(
                messages
                    .iter()
                    .all(|message| message["state"] != "in-flight")
            );
            assert_eq!(world.state("q"), [0, 2, 1, 0]);
        },
    );
}

#[test]
fn what_is_on_disk_is_looked_at_too() {
    let mut world = World::new().stored(&Twin::new());
    let p = world.connect("p").go();
    for number in 0..100 {
        let payload = format!("{number} {}", "x".repeat(50_000));
        world.publish(p, "$queue/q", &payload, 1);
    }
    let request = json!({"op": "peek", "queue": "q", "count": 70, "payload_bytes_max": 2});
    let answer = world.steer(request);
    let expected: Vec<_> = (0..70).map(|n| format!("{n} ")[..2].to_owned()).collect();
    assert_eq!(texts(&answer["messages"], "payload"), expected);
}

/// Whatever is asked for: an answer is put together in memory.
#[test]
fn as_many_messages_are_looked_at_as_an_answer_has_room_for() {
    const LARGE: usize = 1 << 20;
    for is_stored in [false, true] {
        let mut world = World::new();
        if is_stored {
            world = world.stored(&Twin::new());
        }
        let p = world.connect("p").go();
        for _ in 0..12 {
            world.publish(p, "$queue/q", &"x".repeat(LARGE), 1);
        }
        let request = json!({"op": "peek", "queue": "q", "count": 12, "payload_bytes_max": LARGE});
        let answer = world.steer(request);
        let shown = texts(&answer["messages"], "payload");
        assert_eq!((shown.len(), &answer["cut"]), (7, &json!(true)));
        assert!(shown.iter().all(|payload| payload.len() == LARGE));
        let request = json!({"op": "peek", "queue": "q", "count": 12, "payload_bytes_max": 9});
        let answer = world.steer(request);
        let shown = texts(&answer["messages"], "payload");
        assert_eq!((shown.len(), &answer["cut"]), (12, &Value::Null));
    }
}

#[test]
fn a_messages_way_is_told() {
    in_each_version(|mut world| {
        let w = world.connect("w1").go();
        world.subscribe(w, "$queue/q", 1);
        world.fill("q", 0..2);
        let ids = world.steer(json!({"op": "peek", "queue": "q", "in_flight": true}));
        let id = texts(&ids["messages"], "id").remove(0);
        world.drop(w);
        let w = world.connect("w2").go();
        world.subscribe(w, "$queue/q", 1);
        world.advance(secs(5));
        let got = world.messages(w);
        world.send(w, &puback(got[0].id));
        let trace = json!({"op": "trace", "queue": "q", "message": id});
        let events = world.steer(trace)["events"].clone();
        assert_eq!(
            texts(&events, "what"),
            ["stored", "delivered", "lost", "delivered", "done"]
        );
        assert_eq!(
            (&events[1]["client"], &events[3]["client"]),
            (&json!("w1"), &json!("w2"))
        );
        assert_eq!(
            (&events[0]["at_ms"], &events[4]["at_ms"]),
            (&json!(1000), &json!(6000))
        );

        let tail = world.steer(json!({"op": "tail", "queue": "q", "count": 3}));
        assert_eq!(
            texts(&tail["events"], "what"),
            ["delivered", "delivered", "done"]
        );
        let next = tail["next"].as_u64().unwrap();
        let after = json!({"op": "tail", "queue": "q", "after": next});
        assert_eq!(world.steer(after.clone())["events"], json!([]));
        world.send(w, &puback(got[1].id));
        assert_eq!(texts(&world.steer(after)["events"], "what"), ["done"]);
        let wrong = json!({"op": "trace", "queue": "q", "message": "xyz"});
        assert_eq!(world.not_steered(wrong), Code::Invalid);
    });
}

#[test]
fn what_is_remembered_is_bounded() {
    let configure = |config: &mut Config| config.queues.default.trace_events_max = 20;
    let mut world = World::with(configure);
    world.fill("q", 0..50);
    let tail = world.steer(json!({"op": "tail", "queue": "q", "after": 10}));
    assert_eq!(tail["events"].as_array().unwrap().len(), 20);
    assert_eq!((&tail["missed"], &tail["next"]), (&json!(20), &json!(50)));
}

// ---- settings

#[test]
fn a_created_queue_has_its_settings_and_stays() {
    in_each_version(|mut world| {
        let settings = json!({"prefetch": 2, "filters": ["fed/#"]});
        let create = json!({"op": "create", "queue": "q", "settings": settings});
        assert_eq!(world.steer(create.clone())["given"], settings);
        assert_eq!(world.not_steered(create), Code::Exists);
        let p = world.connect("p").go();
        (0..3).for_each(|n| world.publish(p, "fed/1", &n.to_string(), 1));
        let shown = world.show("q");
        assert_eq!(
            (&shown["configured"], &shown["ready"]),
            (&json!("run-time"), &json!(3))
        );
        assert_eq!(shown["differing"], settings);
        world.advance(secs(30 * 24 * 60 * 60));
        if world.disk.is_some() {
            world.restart();
            assert_eq!(world.show("q")["given"], settings);
        }
        let p = world.connect("p").go();
        world.publish(p, "fed/2", "3", 1);
        let w = world.connect("w").go();
        world.subscribe(w, "$queue/q", 1);
        assert_eq!(world.payloads(w), ["0", "1"]);
        assert_eq!(world.state("q"), [2, 2, 0, 0]);
    });
}

#[test]
fn a_living_queue_is_given_other_settings() {
    let configure = |config: &mut Config| {
        config.queue.push(QueueSettings {
            filters: vec!["old".into(), "both".into()],
            prefetch: 1,
            ..queue("q")
        });
    };
    in_each_version_with(configure, |mut world| {
        let w = world.connect("w").go();
        world.subscribe(w, "$queue/q", 1);
        world.fill("q", 0..4);
        assert_eq!(world.payloads(w), ["0"]);
        let set = json!({"op": "set", "queue": "q",
            "settings": {"prefetch": 3, "filters": ["both", "new"]}});
        world.steer(set);
        assert_eq!(world.payloads(w), ["1", "2"]);
        let p = world.connect("p").go();
        for end in [false, true] {
            if end && world.disk.is_some() {
                world.restart();
                assert_eq!(world.show("q")["settings"]["prefetch"], 3);
            }
            let p = if world.is_open(p) {
                p
            } else {
                world.connect("p").go()
            };
            let before: u64 = world.state("q").iter().sum();
            for topic in ["old", "both", "new", "q"] {
                world.publish(p, topic, "m", 1);
            }
            assert_eq!(world.state("q").iter().sum::<u64>(), before + 3);
        }
        // Null: as the file has it.
        let set = json!({"op": "set", "queue": "q",
            "settings": {"prefetch": null, "filters": null}});
        assert_eq!(world.steer(set)["given"], json!({}));
        let shown = world.show("q");
        assert_eq!(shown["settings"]["filters"], json!(["old", "both"]));
        assert_eq!(
            (&shown["settings"]["prefetch"], &shown["configured"]),
            (&json!(1), &json!("file"))
        );
    });
}

/// Case C20 of docs/security.md.
#[test]
fn settings_that_are_not_valid_change_nothing() {
    let mut world = World::new();
    for (request, said) in [
        (
            json!({"op": "create", "queue": "q", "settings": {"prefetch": 0}}),
            "prefetch: must be a whole number from 1 to 65_535, not 0",
        ),
        (
            json!({"op": "create", "queue": "a/#/b"}),
            "name: \"a/#/b\" is no topic filter: # stands alone in its level, and last",
        ),
        (
            json!({"op": "create", "queue": "$SYS/x"}),
            "name: \"$SYS/x\" is no queue's name: the only one that begins with $ is $dead/NAME",
        ),
    ] {
        let error = world.try_steer(request).unwrap_err();
        assert_eq!((error.code, &*error.message), (Code::Invalid, said));
    }
    assert_eq!(world.steer(json!({"op": "list"}))["queues"], json!([]));
    world.fill("q", 0..1);
    let set = json!({"op": "set", "queue": "q", "settings": {"prefetch": 3, "exclusive": 1}});
    assert_eq!(world.not_steered(set), Code::Invalid);
    let shown = world.show("q");
    assert_eq!(
        (&shown["given"], &shown["configured"]),
        (&json!({}), &json!("on-the-fly"))
    );
}

/// Case M04 of docs/security.md.
#[test]
fn a_request_that_is_none_is_not_understood() {
    for request in [
        json!({"op": "explode", "queue": "q"}),
        json!({"op": "show"}),
        json!({"op": "show", "queue": "q", "verbose": true}),
        json!({"op": "move", "queue": "q", "to": "r", "cuont": 1}),
        json!(["show"]),
    ] {
        assert!(
            serde_json::from_value::<Request>(request.clone()).is_err(),
            "{request}"
        );
    }
}

// ---- stopping, emptying, doing away with

#[test]
fn a_paused_queue_gives_nothing_until_it_is_resumed() {
    in_each_version(|mut world| {
        let w = world.connect("w").clean(false).go();
        world.subscribe(w, "$queue/q", 1);
        world.fill("q", 0..1);
        let held = world.messages(w);
        world.steer(json!({"op": "pause", "queue": "q"}));
        world.fill("q", 1..3);
        // What is in hand is settled all the same.
        world.send(w, &puback(held[0].id));
        assert_eq!(world.payloads(w), [""; 0]);
        assert_eq!(world.state("q"), [2, 0, 0, 0]);
        let w = match world.disk {
            Some(_) => {
                world.restart();
                let w = world.connect("w").clean(false).go();
                world.advance(secs(60));
                w
            }
            None => w,
        };
        assert_eq!(world.payloads(w), [""; 0]);
        assert_eq!(world.show("q")["paused"], true);
        world.steer(json!({"op": "resume", "queue": "q"}));
        assert_eq!(world.payloads(w), ["1", "2"]);
        if world.disk.is_some() {
            world.restart();
            assert_eq!(world.show("q")["paused"], false);
        }
    });
}

#[test]
fn a_purge_leaves_what_members_have() {
    in_each_version(|mut world| {
        world.fill("q", 0..6000);
        let w = world.connect("w").go();
        world.subscribe(w, "$queue/q", 1);
        let got = world.messages(w);
        world.control(w, "nack", &format!("{} 600", got[0].id));
        assert_eq!(got.len(), 16);
        world.messages(w);
        let purge = json!({"op": "purge", "queue": "q", "count": 10});
        let purged = world.steer(purge);
        assert_eq!(
            (&purged["purged"], &purged["left"]),
            (&json!(10), &json!(5974))
        );
        let mut left = u64::MAX;
        while left > 0 {
            let purged = world.steer(json!({"op": "purge", "queue": "q"}));
            assert!(purged["purged"].as_u64().unwrap() > 0, "{purged}");
            left = purged["left"].as_u64().unwrap();
        }
        assert_eq!(world.state("q"), [0, 16, 0, 0]);
        assert_eq!(world.show("q")["totals"]["purged"], 5984);
        assert_eq!(world.counts().dropped_purged, 5984);
        if world.disk.is_some() {
            world.restart();
            // What was in hand at QoS 1 is ready again.
            assert_eq!(world.state("q"), [16, 0, 0, 0]);
        }
    });
}

#[test]
fn a_queue_is_deleted_with_what_it_holds_only_if_that_is_meant() {
    let configure = |config: &mut Config| config.queue.push(queue("in-file"));
    in_each_version_with(configure, |mut world| {
        let w = world.connect("w").clean(false).go();
        world.subscribe(w, "$queue/q", 1);
        world.subscribe(w, "other", 1);
        world.fill("q", 0..3);
        let delete = json!({"op": "delete", "queue": "q"});
        assert_eq!(world.not_steered(delete.clone()), Code::NotEmpty);
        assert_eq!(world.state("q"), [0, 3, 0, 0]);
        let mut forced = delete.clone();
        forced["force"] = json!(true);
        let deleted = world.steer(forced);
        assert_eq!(
            (&deleted["messages"], &deleted["members"]),
            (&json!(3), &json!(1))
        );
        assert_eq!(world.closed(w), Some(ReasonCode::AdministrativeAction));
        assert_eq!(world.counts().dropped_queue_deleted, 3);
        assert_eq!(world.not_steered(delete), Code::NotFound);
        if world.disk.is_some() {
            world.restart();
        }
        let w = world.connect("w").clean(false).go();
        world.fill("q", 3..4);
        assert_eq!(world.payloads(w), [""; 0], "it is no member any more");
        world.subscribe(w, "$queue/q", 1);
        assert_eq!(world.payloads(w), ["3"]);
        world.steer(json!({"op": "create", "queue": "empty"}));
        let empty = world.steer(json!({"op": "delete", "queue": "empty"}));
        assert_eq!(empty["messages"], 0);
        let in_file = json!({"op": "delete", "queue": "in-file", "force": true});
        assert_eq!(world.not_steered(in_file), Code::NotAllowed);
    });
}

// ---- moving

#[test]
fn messages_are_moved_in_order_and_survive() {
    in_each_version(|mut world| {
        world.fill("a", 0..6);
        let moved = world.steer(json!({"op": "move", "queue": "a", "to": "b", "count": 2}));
        assert_eq!((&moved["moved"], &moved["left"]), (&json!(2), &json!(4)));
        let ids = world.ids("a", 4);
        let unknown = "1";
        let moved = world.steer(json!({"op": "move", "queue": "a", "to": "b",
            "ids": [ids[3], ids[1], unknown]}));
        assert_eq!(
            (&moved["moved"], &moved["not_found"]),
            (&json!(2), &json!([unknown]))
        );
        assert_eq!(world.show("a")["totals"]["moved"], 4);
        if world.disk.is_some() {
            world.restart();
        }
        assert_eq!(world.peeked("a", 9), ["2", "4"]);
        assert_eq!(world.peeked("b", 9), ["0", "1", "3", "5"]);
        let w = world.connect("w").go();
        world.subscribe(w, "$queue/b", 1);
        assert_eq!(world.payloads(w), ["0", "1", "3", "5"]);
        let itself = json!({"op": "move", "queue": "a", "to": "a"});
        assert_eq!(world.not_steered(itself), Code::Invalid);
    });
}

#[test]
fn a_full_queue_takes_no_more_and_nothing_is_lost() {
    let configure = |config: &mut Config| {
        config.queue.push(QueueSettings {
            messages_max: 3,
            ..queue("small")
        });
    };
    in_each_version_with(configure, |mut world| {
        world.fill("a", 0..5);
        let request = json!({"op": "move", "queue": "a", "to": "small"});
        let moved = world.steer(request.clone());
        assert_eq!((&moved["moved"], &moved["left"]), (&json!(3), &json!(2)));
        assert_eq!(world.not_steered(request), Code::Full);
        if world.disk.is_some() {
            world.restart();
        }
        assert_eq!(world.peeked("a", 9), ["3", "4"]);
        assert_eq!(world.peeked("small", 9), ["0", "1", "2"]);
    });
}

/// What is moved by id lies behind what is in memory.
#[test]
fn messages_on_disk_are_moved_once() {
    let mut world = World::new().stored(&Twin::new());
    let p = world.connect("p").go();
    for number in 0..200 {
        let payload = format!("{number:03} {}", "x".repeat(30_000));
        world.publish(p, "$queue/a", &payload, 1);
    }
    let peek = json!({"op": "peek", "queue": "a", "count": 200, "payload_bytes_max": 3});
    let messages = world.steer(peek)["messages"].clone();
    let ids = texts(&messages, "id");
    world.commits = Commits::ByHand;
    let wanted = [&ids[150], &ids[199], &ids[3]];
    let request = json!({"op": "move", "queue": "a", "to": "b", "ids": wanted});
    let moved = world.steer(request.clone());
    assert_eq!((&moved["moved"], &moved["left"]), (&json!(3), &json!(197)));
    // Not stored yet, and not there to be moved again.
    assert_eq!(world.steer(request)["moved"], 0);
    let all = json!({"op": "move", "queue": "a", "to": "c"});
    let mut left = 200;
    while left > 0 {
        left = world.steer(all.clone())["left"].as_u64().unwrap();
        world.commits = Commits::AtOnce;
        world.advance(secs(1));
    }
    for restart in [false, true] {
        if restart {
            world.restart();
        }
        assert_eq!(world.state("a"), [0; 4]);
        assert_eq!(world.state("b"), [3, 0, 0, 0]);
        assert_eq!(world.state("c"), [197, 0, 0, 0]);
    }
    let peek = json!({"op": "peek", "queue": "c", "count": 500, "payload_bytes_max": 3});
    let there = texts(&world.steer(peek)["messages"], "payload");
    let expected = (0..200).filter(|n| ![150, 199, 3].contains(n));
    let expected: Vec<_> = expected.map(|n| format!("{n:03}")).collect();
    assert_eq!(there, expected);
}

/// What finds no room comes back once, though the queue has read on meanwhile.
#[test]
fn messages_on_disk_come_back_from_a_full_queue_once() {
    let configure = |config: &mut Config| {
        config.queue.push(QueueSettings {
            messages_max: 1,
            ..queue("small")
        });
    };
    let mut world = World::with(configure).stored(&Twin::new());
    let p = world.connect("p").go();
    for number in 0..120 {
        let payload = format!("{number:03} {}", "x".repeat(30_000));
        world.publish(p, "$queue/a", &payload, 1);
    }
    let peek = json!({"op": "peek", "queue": "a", "count": 200, "payload_bytes_max": 3});
    let ids = texts(&world.steer(peek.clone())["messages"], "id");
    assert_eq!(ids.len(), 120);
    let wanted: Vec<_> = ids[..60].iter().chain(&ids[80..90]).collect();
    let request = json!({"op": "move", "queue": "a", "to": "small", "ids": wanted});
    let moved = world.steer(request);
    assert_eq!((&moved["moved"], &moved["left"]), (&json!(1), &json!(119)));
    assert_eq!(moved["not_found"], json!([]));
    let expected: Vec<_> = (1..120).map(|number| format!("{number:03}")).collect();
    let worker = world.connect("worker").go();
    world.subscribe(worker, "$queue/a", 1);
    let mut got = Vec::new();
    loop {
        let page = world.messages(worker);
        if page.is_empty() {
            break;
        }
        for message in page {
            world.send(worker, &puback(message.id));
            got.push(message.payload[..3].to_owned());
        }
    }
    got.sort_unstable();
    assert_eq!(got, expected);
    assert_eq!(world.state("a"), [0; 4]);
}

/// The machine stops in the middle of any operation: each message is in one of
/// the two queues, never in both.
#[test]
fn what_is_moved_is_in_one_place_whenever_the_power_fails() {
    let operations = move_until(None, None);
    assert!(operations > 10, "{operations}");
    for nth in 1..=operations {
        move_until(Some(nth), None);
        move_until(Some(nth), Some(nth));
    }
}

/// Moves to and fro until that operation of the disk; how many there are.
fn move_until(nth: Option<u64>, torn: Option<u64>) -> u64 {
    let mut world = World::new().stored(&Twin::new());
    world.fill("a", 0..30);
    world.steer(json!({"op": "create", "queue": "b"}));
    world.commits = Commits::ByHand;
    let disk = world.disk().clone();
    let before = disk.operations();
    if let Some(nth) = nth {
        disk.fail_at(nth, Fault::Stopped);
    }
    for step in 0..10 {
        let (from, to) = if step % 3 == 2 {
            ("b", "a")
        } else {
            ("a", "b")
        };
        let request = json!({"op": "move", "queue": from, "to": to, "count": 3});
        assert_eq!(world.steer(request)["moved"], 3);
        if world.commit().is_err() {
            break;
        }
    }
    let operations = disk.operations() - before;
    world.restart_as(&torn.map_or_else(|| disk.cut(), |seed| disk.cut_with(seed)));
    world.commits = Commits::AtOnce;
    let mut all = world.peeked("a", 100);
    all.extend(world.peeked("b", 100));
    all.sort_unstable();
    let mut expected = numbers(0..30);
    expected.sort_unstable();
    assert_eq!(all, expected, "{nth:?} {torn:?}");
    operations
}

fn die(world: &mut World, jobs: std::ops::Range<usize>) {
    let w = world.connect("w").go();
    world.subscribe(w, "$queue/q", 1);
    world.fill("q", jobs);
    while let Some(Got::Publish(message)) = world.take(w) {
        world.control(w, "reject", &message.id.to_string());
        world.send(w, &puback(message.id));
        let got = world.receive(w);
        let rest = got.into_iter().filter(|got| matches!(got, Got::Publish(_)));
        let rest: Vec<_> = rest.collect();
        world.clients[w.0].got.extend(rest);
    }
    world.disconnect(w);
}

#[test]
fn dead_letters_are_tried_again() {
    in_each_version(|mut world| {
        let redrive = json!({"op": "redrive", "queue": "q"});
        assert_eq!(world.not_steered(redrive.clone()), Code::NotFound);
        world.steer(json!({"op": "create", "queue": "q"}));
        assert_eq!(world.steer(redrive)["moved"], 0);
        die(&mut world, 0..6);
        assert_eq!(world.state("q"), [0, 0, 0, 6]);
        let moved = world.steer(json!({"op": "redrive", "queue": "q", "count": 2}));
        assert_eq!(
            (&moved["from"], &moved["to"]),
            (&json!("$dead/q"), &json!("q"))
        );
        assert_eq!(world.state("q"), [2, 0, 0, 4]);
        let ids = world.ids("$dead/q", 1);
        world.steer(json!({"op": "redrive", "queue": "q", "ids": ids, "to": "else"}));
        let all = world.steer(json!({"op": "redrive", "queue": "$dead/q"}));
        assert_eq!((&all["moved"], &all["left"]), (&json!(3), &json!(0)));
        if world.disk.is_some() {
            world.restart();
        }
        assert_eq!(world.peeked("else", 9), ["2"]);
        let w = world.connect("w").go();
        world.subscribe(w, "$queue/q", 1);
        let mut expected = numbers(0..6);
        expected.remove(2);
        assert_eq!(world.payloads(w), expected);
    });
}

#[test]
fn dead_letters_are_tried_again_at_a_rate() {
    in_each_version(|mut world| {
        die(&mut world, 0..10);
        let request = json!({"op": "redrive", "queue": "q", "rate": 2});
        let answer = world.steer(request.clone());
        assert_eq!(
            (&answer["goes_on"], &answer["left"]),
            (&json!(true), &json!(10))
        );
        world.advance(secs(2));
        let [ready, .., dead] = world.state("q");
        assert!((4..=5).contains(&ready), "{ready}");
        assert_eq!(ready + dead, 10);
        let moving = world.show("$dead/q")["moving"].clone();
        assert_eq!(moving, json!([{"to": "q", "rate": 2, "left": dead}]));
        // It can be ended, and begun again.
        world.steer(json!({"op": "redrive", "queue": "q", "rate": 0}));
        world.advance(secs(10));
        assert_eq!(world.state("q"), [ready, 0, 0, dead]);
        world.steer(json!({"op": "redrive", "queue": "q", "rate": 1000}));
        world.advance(secs(2));
        assert_eq!(world.state("q"), [10, 0, 0, 0]);
        assert_eq!(world.show("$dead/q")["moving"], json!([]));
    });
}

/// Whatever is done, and whenever the power fails: each message is done,
/// purged, or in one queue.
#[test]
fn nothing_is_lost_or_twice_whatever_is_done() {
    for seed in 0..12 {
        let mut random = Random(seed);
        let mut world = World::new().stored(&Twin::new());
        world.version = Version::V5;
        let (mut put_in, mut done, mut purged) = (0, 0, 0);
        let mut members: Vec<C> = Vec::new();
        // Some are so large that most are on disk.
        let payload = "x".repeat([10, 30_000][seed as usize % 2]);
        for name in ["a", "b", "c"] {
            world.steer(json!({"op": "create", "queue": name}));
        }
        for _ in 0..150 {
            let queue = random.of(&["a", "b", "c"]);
            let other = random.of(&["a", "b", "c", "$dead/a"]);
            match random.below(12) {
                0..=2 => {
                    let p = world.connect("p").go();
                    for _ in 0..random.below(20) {
                        let topic = format!("$queue/{queue}");
                        let asked = [
                            ("priority", random.of(&["0", "4", "9"])),
                            ("group", random.of(&["g", "h"])),
                            ("delay", random.of(&["1", "5"])),
                        ];
                        let mut asked = asked.map(Property::UserProperty).to_vec();
                        asked.retain(|_| random.one_in(3));
                        let id = world.send_with(p, (&topic, &payload), 1, false, &asked);
                        world.expect(p, Got::Puback(id));
                        put_in += 1;
                    }
                    world.disconnect(p);
                }
                3 => {
                    let w = world.connect(&format!("w{}", members.len())).go();
                    world.subscribe(w, &format!("$queue/{queue}"), 1);
                    members.push(w);
                }
                4..=5 => {
                    let open = members.iter().filter(|member| world.is_open(**member));
                    for member in open.copied().collect::<Vec<_>>() {
                        for message in world.messages(member) {
                            match random.below(4) {
                                0 => world.control(member, "reject", &message.id.to_string()),
                                1 => world.control(member, "nack", &format!("{} 5", message.id)),
                                _ => done += 1,
                            }
                            world.send(member, &puback(message.id));
                        }
                    }
                }
                6 => {
                    if let Some(member) = members.pop().filter(|member| world.is_open(*member)) {
                        world.drop(member);
                    }
                }
                7 => {
                    let count = random.below(5);
                    let request = json!({"op": "purge", "queue": queue, "count": count});
                    purged += world.steer(request)["purged"].as_u64().unwrap();
                }
                8 if queue != other => {
                    let mut request = json!({"op": "move", "queue": queue, "to": other});
                    match random.below(3) {
                        0 => request["count"] = json!(random.below(30)),
                        1 => {
                            let mut ids = world.ids(queue, 200);
                            ids.retain(|_| random.one_in(4));
                            request["ids"] = json!(ids);
                        }
                        _ => request["rate"] = json!(50),
                    }
                    // $dead/a may not be there yet.
                    _ = world.try_steer(request);
                }
                9 => {
                    let request = json!({"op": "redrive", "queue": queue, "count": 3});
                    world.steer(request);
                }
                10 => {
                    let op = random.of(&["pause", "resume"]);
                    world.steer(json!({"op": op, "queue": queue}));
                }
                11 if random.one_in(3) => {
                    world.restart();
                    members.clear();
                }
                _ => world.advance(secs(3)),
            }
            let queues = world.steer(json!({"op": "list"}))["queues"].clone();
            let held: u64 = (queues.as_array().unwrap().iter())
                .map(|queue| {
                    let counts = ["ready", "in_flight", "delayed"];
                    counts
                        .map(|key| queue[key].as_u64().unwrap())
                        .iter()
                        .sum::<u64>()
                })
                .sum();
            assert_eq!(held + done + purged, put_in, "seed {seed}: {queues}");
        }
    }
}

#[test]
fn settings_that_are_not_valid_any_more_are_left_out() {
    let mut world = World::new().stored(&Twin::new());
    let settings = json!({"filters": ["a/b/c"], "prefetch": 1});
    world.steer(json!({"op": "create", "queue": "q", "settings": settings}));
    world.fill("q", 0..2);
    world.config.limits.topic_levels_max = 2;
    world.restart();
    let shown = world.show("q");
    assert_eq!(
        (&shown["ready"], &shown["settings"]["prefetch"]),
        (&json!(2), &json!(16))
    );
    // They hold again as soon as they can.
    assert_eq!(shown["given"], settings);
    world.config.limits.topic_levels_max = 10;
    world.restart();
    assert_eq!(world.show("q")["settings"]["prefetch"], 1);
}

// ---- over MQTT

const CONTROL: &str = "$CONTROL/rotamq/v1";

impl World {
    /// The client is on the broker's own machine.
    fn local(&mut self, client_id: &str) -> C {
        let client = self.connect(client_id).go();
        self.clients[client.0].link.as_mut().expect("open").is_local = true;
        client
    }
}

#[test]
fn requests_come_and_go_over_mqtt() {
    in_each_version(|mut world| {
        let ops = world.local("ops");
        world.subscribe(ops, "answers/1", 1);
        // Nobody sees what is asked.
        let spy = world.connect("spy").go();
        world.subscribe(spy, "$CONTROL/#", 1);
        let request = json!({"op": "create", "queue": "q", "answer_to": "answers/1"});
        let id = world.send_publish(ops, CONTROL, &request.to_string(), 1, false);
        world.expect(ops, Got::Puback(id));
        let [answer] = &world.messages(ops)[..] else {
            panic!("there is one answer");
        };
        let said: Value = serde_json::from_str(&answer.payload).unwrap();
        assert_eq!(said, json!({"ok": {"queue": "q", "given": {}}}));
        assert_eq!(answer.qos, 1);
        world.send_publish(ops, CONTROL, &request.to_string(), 0, false);
        let answer = world.messages(ops).remove(0);
        let said: Value = serde_json::from_str(&answer.payload).unwrap();
        assert_eq!(said["error"]["code"], "exists");
        assert_eq!(world.messages(spy), []);
    });
}

#[test]
fn an_answer_comes_with_its_correlation_data() {
    in_mqtt_5(
        |_| (),
        |mut world| {
            let ops = world.local("ops");
            world.subscribe(ops, "answers", 0);
            let properties = [
                Property::ResponseTopic(TopicName::parse("answers", TopicLimits::NONE).unwrap()),
                Property::CorrelationData(b"7"),
            ];
            for (payload, code) in [("{\"op\":\"list\"}", None), ("{", Some("invalid"))] {
                world.send_with(ops, (CONTROL, payload), 0, false, &properties);
                let answer = world.messages(ops).remove(0);
                let expected = shown([Property::CorrelationData(b"7")]);
                assert_eq!(answer.properties, expected);
                let said: Value = serde_json::from_str(&answer.payload).unwrap();
                assert_eq!(said["error"]["code"].as_str(), code, "{said}");
            }
            // Nobody is to be told: the acknowledgement says it.
            let request = json!({"op": "show", "queue": "q"}).to_string();
            let id = world.send_publish(ops, CONTROL, &request, 1, false);
            world.expect(
                ops,
                Got::Refused(id, ReasonCode::ImplementationSpecificError),
            );
        },
    );
}

/// Case E50 of docs/security.md.
#[test]
fn only_the_brokers_own_machine_may_ask() {
    in_each_version(|mut world| {
        world.fill("q", 0..1);
        let far = world.connect("far").go();
        world.subscribe(far, "answers", 1);
        let request = json!({"op": "purge", "queue": "q", "answer_to": "answers"}).to_string();
        let id = world.send_publish(far, CONTROL, &request, 1, false);
        if world.version == Version::V5 {
            world.expect(far, Got::Refused(id, ReasonCode::NotAuthorized));
        } else {
            assert_eq!(world.closed(far), Some(ReasonCode::NotAuthorized));
        }
        assert_eq!(world.state("q"), [1, 0, 0, 0]);
        // Nor may the answer go where its client may not publish.
        let ops = world.local("ops");
        let request = json!({"op": "list", "answer_to": "$SYS/x"}).to_string();
        world.send_publish(ops, CONTROL, &request, 1, false);
        match world.version {
            Version::V5 => {
                let refused = Got::Refused(1, ReasonCode::NotAuthorized);
                world.expect(ops, refused);
            }
            _ => assert_eq!(world.closed(ops), Some(ReasonCode::NotAuthorized)),
        }
    });
}

// ---- $SYS

#[test]
fn numbers_are_published_while_somebody_wants_them() {
    in_each_version(|mut world| {
        world.fill("a/b", 0..2);
        world.advance(secs(60));
        // When the queue is unused for too long.
        assert_eq!(world.timers(), 1);
        let s = world.connect("s").go();
        world.subscribe(s, "$SYS/broker/queues/+/ready", 0);
        world.advance(secs(1));
        let numbers = |world: &mut World| -> Vec<_> {
            let messages = world.messages(s).into_iter();
            messages
                .map(|message| (message.topic, message.payload))
                .collect()
        };
        let of = |topic: &str, payload: &str| (topic.to_owned(), payload.to_owned());
        let ready = "$SYS/broker/queues/a%2Fb/ready";
        assert_eq!(numbers(&mut world), [of(ready, "2")]);
        world.fill("a/b", 2..3);
        world.advance(secs(10));
        assert_eq!(numbers(&mut world), [of(ready, "3")]);
        world.unsubscribe(s, "$SYS/broker/queues/+/ready");
        world.subscribe(s, "$SYS/broker/queues/a%2Fb/#", 1);
        world.advance(secs(10));
        let mut all = numbers(&mut world);
        all.sort();
        let whats: Vec<_> = all
            .iter()
            .map(|(topic, _)| topic.rsplit('/').next().unwrap())
            .collect();
        assert_eq!(
            whats,
            [
                "bytes",
                "dead",
                "delayed",
                "done",
                "enqueued",
                "inflight",
                "members",
                "oldest_secs",
                "ready",
                "redelivered"
            ]
        );
        world.disconnect(s);
        world.advance(secs(60));
        assert_eq!(world.timers(), 1);
    });
}

#[test]
fn numbers_are_not_published_where_that_is_off() {
    let configure = |config: &mut Config| config.queues.sys_interval = Duration::ZERO;
    in_each_version_with(configure, |mut world| {
        world.fill("q", 0..1);
        let s = world.connect("s").go();
        world.subscribe(s, "$SYS/#", 0);
        world.advance(secs(60));
        assert_eq!(world.messages(s), []);
    });
}

#[test]
fn settings_that_let_jobs_expire_make_dead_letters() {
    in_each_version(|mut world| {
        world.fill("jobs", 0..3);
        world.advance(secs(100));
        // Their queue of dead letters is made by it.
        let settings = json!({"ttl_secs": 60, "dead_letter_expired": true});
        world.steer(json!({"op": "set", "queue": "jobs", "settings": settings}));
        world.advance(secs(1));
        assert_eq!(world.state("jobs"), [0, 0, 0, 3]);
    });
}

#[test]
fn fair_turns_begin_and_end_with_jobs_in_every_place() {
    for stored in [false, true] {
        let mut world = World::new();
        world.version = Version::V5;
        if stored {
            world = world.stored(&Twin::new());
        }
        let p = world.connect("p").go();
        let a = world.connect("a").go();
        world.subscribe(a, "$queue/jobs", 1);
        for n in 0..20 {
            world.publish(p, "$queue/jobs", &n.to_string(), 1);
        }
        let in_hand = world.messages(a);
        assert_eq!(in_hand.len(), 16);
        for (name, text) in [("delay", "3600"), ("group", "g"), ("group", "g")] {
            let asked = [Property::UserProperty((name, text))];
            world.send_with(p, ("$queue/jobs", name), 1, false, &asked);
            world.receive(p);
        }
        for fair in [true, false, true] {
            let settings = json!({"fair": fair});
            world.steer(json!({"op": "set", "queue": "jobs", "settings": settings}));
            assert_eq!(world.state("jobs"), [6, 16, 1, 0], "{fair}");
        }
        for job in &in_hand {
            world.acknowledge(a, job);
        }
        let mut rest = Vec::new();
        while let Some(Got::Publish(job)) = world.take(a) {
            world.acknowledge(a, &job);
            rest.push(job.payload);
        }
        rest.sort();
        assert_eq!(rest, ["16", "17", "18", "19", "group", "group"]);
        assert_eq!(world.state("jobs"), [0, 0, 1, 0]);
    }
}

#[test]
fn purging_gives_nothing_out() {
    let mut world = World::new().stored(&Twin::new());
    let p = world.connect("p").go();
    for n in 0..1500 {
        world.publish(p, "$queue/$with/delay=3600/jobs", &n.to_string(), 1);
    }
    let a = world.connect("a").go();
    world.subscribe(a, "$queue/jobs", 1);
    world.core.store().commit(true).expect("the disk is well");
    // The second reaches what is on disk, and not all of it.
    for count in [1000, 100] {
        let purged = world.steer(json!({"op": "purge", "queue": "jobs", "count": count}));
        assert_eq!(purged["purged"], count);
        assert_eq!(world.payloads(a), [""; 0]);
    }
    while world.steer(json!({"op": "purge", "queue": "jobs"}))["left"] != 0 {}
    assert_eq!(world.payloads(a), [""; 0]);
    assert_eq!(world.state("jobs"), [0; 4]);
}

/// C20, M04: numbers beyond all measure are as good as the largest that there may
/// be, or no numbers; and JSON that is none, or goes too deep, is no request.
#[test]
fn requests_without_measure_harm_nobody() {
    let mut world = World::new();
    world.version = Version::V5;
    world.fill("q", 0..3);
    for number in [0, 1, u64::from(u32::MAX), u64::MAX] {
        let rate = number.min(u32::MAX.into());
        for request in [
            json!({"op": "list", "limit": number}),
            json!({"op": "list", "after": "\u{10FFFF}", "limit": number}),
            json!({"op": "peek", "queue": "q", "count": number}),
            json!({"op": "peek", "queue": "q", "payload_bytes_max": number}),
            json!({"op": "tail", "queue": "q", "after": number, "count": number}),
        ] {
            world.steer(request);
        }
        // Whatever it says to this, it says something.
        _ = world.try_steer(json!({
            "op": "move", "queue": "q", "to": "r", "count": number, "rate": rate,
        }));
        _ = world.try_steer(json!({"op": "redrive", "queue": "q", "count": number, "rate": rate}));
    }
    let nested = "[".repeat(100_000);
    for text in [
        "",
        "{",
        "null",
        "[]",
        "\"list\"",
        "{\"op\":\"list\",\"limit\":-1}",
        "{\"op\":\"list\",\"limit\":1e999}",
        "{\"op\":\"list\",\"limit\":18446744073709551616}",
        "{\"op\":\"list\",\"limit\":1.5}",
        "{\"op\":\"show\",\"queue\":\"\\ud800\"}",
        &nested,
    ] {
        serde_json::from_str::<Request>(text).expect_err(text.get(..60).unwrap_or(text));
        let a = world.local("a");
        world.subscribe(a, "answers", 0);
        let id = world.send_publish(a, CONTROL, text, 1, false);
        let got = world.take(a);
        assert!(
            matches!(got, Some(Got::Refused(refused, _)) if refused == id),
            "{got:?}"
        );
        world.disconnect(a);
    }
    assert_eq!(
        world.steer(json!({"op": "list"}))["queues"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
}
