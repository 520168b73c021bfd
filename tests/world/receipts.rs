//! Who wants to know how a job ended is told.

use super::*;
use rotamq::config::Undecided;
use serde_json::{Value, json};

/// A producer that is told at `replies/p`.
fn producer(world: &mut World) -> C {
    let p = world.connect("p").go();
    world.subscribe(p, "replies/#", 1);
    p
}

/// Puts a job in as its version can.
fn put(world: &mut World, p: C, payload: &str, response: &str) {
    if world.version != Version::V5 {
        let response = response.replace('/', "%2F");
        let topic = format!("$queue/$with/response={response}&receipt=1/jobs");
        return world.publish(p, &topic, payload, 1);
    }
    let properties = [
        Property::ResponseTopic(topic_name(response)),
        Property::CorrelationData(b"which"),
        Property::UserProperty(("receipt", "yes")),
    ];
    let id = world.send_with(p, ("$queue/jobs", payload), 1, false, &properties);
    world.expect(p, Got::Puback(id));
}

/// What a receipt says, which is all that came.
fn receipt(world: &mut World, client: C) -> Value {
    let mut messages = world.messages(client);
    assert_eq!(messages.len(), 1, "{messages:?}");
    let message = messages.remove(0);
    world.acknowledge(client, &message);
    let is_told = world.version == Version::V5;
    let shown = message.properties.join(" ");
    assert_eq!(shown.contains("application/json"), is_told, "{shown}");
    assert_eq!(shown.contains("CorrelationData"), is_told, "{shown}");
    serde_json::from_str(&message.payload).expect("it is JSON")
}

fn join(world: &mut World, id: &str, qos: u8) -> C {
    let member = world.connect(id).clean(false).go();
    world.subscribe(member, "$queue/jobs", qos);
    member
}

fn ended(told: &Value) -> (&str, &Value, &Value) {
    let outcome = told["outcome"].as_str().expect("a text");
    (outcome, &told["reason"], &told["deliveries"])
}

#[test]
fn a_receipt_says_that_a_job_is_done() {
    in_each_version(|mut world| {
        let p = producer(&mut world);
        for qos in 0..=2 {
            let w = join(&mut world, "w", qos);
            put(&mut world, p, "job", "replies/p");
            world.advance(secs(1));
            if qos > 0 {
                assert_eq!(world.messages(p), []);
                world.work(w);
            }
            let told = receipt(&mut world, p);
            let at = world.now.as_micros() / 1000 - if qos == 0 { 1000 } else { 0 };
            let id = told["message-id"].as_str().expect("a text").to_owned();
            assert!(u64::from_str_radix(&id, 16).is_ok());
            let expected = json!({
                "message-id": id, "queue": "jobs", "outcome": "done", "reason": null,
                "deliveries": 1, "said": "", "at": at,
            });
            assert_eq!(told, expected);
            // A second answer makes no second receipt.
            world.connect("w").go();
            assert_eq!(world.messages(p), []);
        }
    });
}

#[test]
fn a_receipt_says_that_a_job_died_and_why() {
    in_each_version(|mut world| {
        let p = producer(&mut world);
        let w = join(&mut world, "w", 1);
        put(&mut world, p, "never", "replies/p");
        let job = world.messages(w).remove(0);
        world.control(w, "reject", &job.id.to_string());
        let told = receipt(&mut world, p);
        assert_eq!(ended(&told), ("dead", &json!("rejected"), &json!(1)));
        // What is done with it later is no business of its producer's.
        let d = world.connect("d").go();
        world.subscribe(d, "$queue/$dead/jobs", 1);
        assert_eq!(world.work(d).payload, "never");
        assert_eq!(world.messages(p), []);

        let w = world.connect("w").go();
        world.disconnect(w);
        let u = join(&mut world, "u", 2);
        put(&mut world, p, "unknown", "replies/p");
        assert_eq!(world.messages(u).len(), 1);
        world.connect("u").go();
        let told = receipt(&mut world, p);
        assert_eq!(ended(&told), ("dead", &json!("undecided"), &json!(1)));
    });
}

#[test]
fn a_job_that_comes_back_has_not_ended() {
    let configure = |config: &mut Config| {
        config.queue.push(QueueSettings {
            undecided: Undecided::Redeliver,
            ..queue("jobs")
        });
    };
    in_each_version_with(configure, |mut world| {
        let p = producer(&mut world);
        for qos in 1..=2 {
            let w = join(&mut world, "w", qos);
            put(&mut world, p, "job", "replies/p");
            let job = world.messages(w).remove(0);
            world.control(w, "nack", &format!("{} 0", job.id));
            world.acknowledge(w, &job);
            assert_eq!(world.messages(p), []);
            let b = join(&mut world, "b", 1);
            world.connect("w").go();
            world.advance(secs(5));
            world.work(b);
            let told = receipt(&mut world, p);
            assert_eq!(told["outcome"], "done");
            assert!(told["deliveries"].as_u64() >= Some(2), "{told}");
            world.connect("b").go();
        }
    });
}

#[test]
fn a_receipt_says_that_a_job_expired() {
    in_mqtt_5(
        |_| (),
        |mut world| {
            let p = producer(&mut world);
            let topic = topic_name("replies/p");
            let properties = [
                Property::MessageExpiryInterval(5),
                Property::ResponseTopic(topic),
                Property::CorrelationData(b"which"),
                Property::UserProperty(("receipt", "1")),
            ];
            let id = world.send_with(p, ("$queue/jobs", "job"), 1, false, &properties);
            world.expect(p, Got::Puback(id));
            world.advance(secs(6));
            let told = receipt(&mut world, p);
            assert_eq!(ended(&told), ("expired", &Value::Null, &json!(0)));
        },
    );
}

#[test]
fn who_does_not_ask_gets_no_receipt() {
    in_mqtt_5(
        |_| (),
        |mut world| {
            let p = producer(&mut world);
            let w = join(&mut world, "w", 1);
            world.subscribe(w, "$share/g/t", 1);
            let topic = topic_name("replies/p");
            let response = Property::ResponseTopic(topic);
            for (to, receipt) in [
                ("$queue/jobs", None),
                ("$queue/jobs", Some("0")),
                ("$queue/jobs", Some("false")),
                // A share group has no jobs.
                ("t", Some("1")),
            ] {
                let mut properties = vec![response];
                properties.extend(receipt.map(|text| Property::UserProperty(("receipt", text))));
                let id = world.send_with(p, (to, "job"), 1, false, &properties);
                world.expect(p, Got::Puback(id));
                world.work(w);
                assert_eq!(world.messages(p), []);
            }
            // Without a place where it could go, of what is a copy.
            let properties = [Property::UserProperty(("receipt", "1"))];
            let id = world.send_with(p, ("jobs", "job"), 1, false, &properties);
            world.expect(p, Got::Puback(id));
            world.work(w);
            assert_eq!(world.messages(p), []);
            assert_eq!(world.counts().dropped_receipts, 0);
        },
    );
}

#[test]
fn a_result_gives_its_jobs_producer_a_receipt() {
    in_each_version(|mut world| {
        let p = producer(&mut world);
        let w = join(&mut world, "w", 1);
        put(&mut world, p, "job", "replies/p");
        let job = world.messages(w).remove(0);
        world.publish(w, &format!("$settles/{}/results", job.id), "result", 1);
        assert_eq!(receipt(&mut world, p)["outcome"], "done");
    });
}

#[test]
fn a_receipt_may_go_into_a_queue_and_makes_no_other() {
    in_each_version(|mut world| {
        let p = world.connect("p").go();
        let w = join(&mut world, "w", 1);
        put(&mut world, p, "job", "$queue/replies");
        world.work(w);
        let r = world.connect("r").go();
        world.subscribe(r, "$queue/replies", 1);
        let told: Value = serde_json::from_str(&world.work(r).payload).expect("it is JSON");
        assert_eq!(told["outcome"], "done");
        assert_eq!(world.messages(r), []);
        assert_eq!(world.messages(p), []);
    });
}

/// Case E50 of docs/security.md.
#[test]
fn a_receipt_goes_nowhere_where_its_producer_may_not_publish() {
    in_each_version(|mut world| {
        let p = world.connect("p").go();
        let w = join(&mut world, "w", 1);
        for (count, response) in ["$SYS/x", "$share/g/x", "$queue/$nack", "$dead/x"]
            .into_iter()
            .enumerate()
        {
            put(&mut world, p, "job", response);
            world.work(w);
            assert_eq!(world.counts().dropped_receipts, count as u64 + 1);
        }
    });
}

#[test]
fn many_receipts_through_a_small_queue_end() {
    let configure = |config: &mut Config| {
        config.queue.push(QueueSettings {
            messages_max: 3,
            ..queue("replies")
        });
    };
    in_each_version_with(configure, |mut world| {
        let p = world.connect("p").go();
        for _ in 0..20 {
            put(&mut world, p, "job", "$queue/replies");
        }
        let w = join(&mut world, "w", 0);
        assert_eq!(world.messages(w).len(), 20);
        assert_eq!(world.counts().dropped_receipts, 17);
    });
}
