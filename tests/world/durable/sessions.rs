//! What of a session, and of the retained messages, outlives the broker.

use super::*;
use rotamq::message::SubscriptionId;
use rotamq::protocol::RetainHandling;

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[test]
fn subscriptions_are_there_again_and_so_are_their_options() {
    through_each_end_in_5(
        |_| (),
        |mut world, end| {
            let a = world.connect("a").clean(false).go();
            let p = world.connect("p").go();
            world.publish_with(p, "t/1", "retained", 1, true);
            let options = |qos, no_local, retain_as_published| SubscribeOptions {
                qos: qos_of(qos),
                no_local,
                retain_as_published,
                retain_handling: RetainHandling::DoNotSend,
            };
            world.subscribe_with(a, "t/+", options(1, false, true), 7);
            world.subscribe_with(a, "own", options(2, true, false), 0);
            world.subscribe_with(a, "t/#", options(0, false, false), 268_435_455);
            world.subscribe(a, "replaced", 2);
            world.subscribe(a, "replaced", 0);
            end(&mut world);
            let a = world.back("a");
            // Nothing is subscribed to anew.
            assert_eq!(world.receive(a), []);
            let p = world.connect("p").go();
            world.publish_with(p, "t/1", "1", 2, true);
            world.publish(p, "own", "2", 2);
            world.publish(a, "own", "not to itself", 0);
            world.publish(p, "replaced", "3", 2);
            let got = world.messages(a);
            let seen: Vec<_> = (got.iter())
                .map(|message| (&*message.payload, message.qos, message.retain))
                .collect();
            assert_eq!(seen, [("1", 1, true), ("2", 2, false), ("3", 0, false)]);
            let mut ids = got[0].properties.clone();
            ids.sort();
            let id = |id| Property::SubscriptionIdentifier(SubscriptionId::new(id).expect("an id"));
            assert_eq!(ids, shown([id(268_435_455), id(7)]));
        },
    );
}

#[test]
fn what_was_unsubscribed_stays_so() {
    through_each_end(|mut world, end| {
        let a = world.connect("a").clean(false).go();
        for filter in ["t", "$share/g/s", "$queue/q"] {
            world.subscribe(a, filter, 1);
            world.unsubscribe(a, filter);
        }
        end(&mut world);
        let a = world.back("a");
        let p = world.connect("p").go();
        for topic in ["t", "s", "$queue/q"] {
            world.publish(p, topic, "m", 1);
        }
        assert_eq!(world.receive(a), []);
    });
}

#[test]
fn what_waits_for_an_absent_client_comes_in_order() {
    through_each_end(|mut world, end| {
        let a = world.connect("a").clean(false).go();
        world.subscribe(a, "t", 2);
        world.disconnect(a);
        let mut next = 0;
        for _ in 0..3 {
            let p = world.connect("p").go();
            for _ in 0..4 {
                world.publish(p, "t", &next.to_string(), 1 + next % 2);
                next += 1;
            }
            end(&mut world);
        }
        let a = world.back("a");
        let got = world.messages(a);
        for (number, message) in got.iter().enumerate() {
            assert_eq!(message.payload, number.to_string());
            assert_eq!(message.qos, 1 + number as u8 % 2);
            assert!(!message.dup);
            world.acknowledge(a, message);
        }
        assert_eq!(got.len(), 12);
        end(&mut world);
        let a = world.back("a");
        assert_eq!(world.receive(a), []);
    });
}

#[test]
fn more_than_memory_holds_comes_in_order() {
    let configure = |config: &mut Config| config.limits.inflight_max = 10;
    through_each_end_with(configure, |mut world, end| {
        let a = world.connect("a").clean(false).go();
        world.subscribe(a, "t", 1);
        let p = world.connect("p").go();
        for number in 0..300 {
            world.publish(p, "t", &number.to_string(), 1);
        }
        world.disconnect(a);
        for number in 300..700 {
            world.publish(p, "t", &number.to_string(), 1);
        }
        end(&mut world);
        let a = world.back("a");
        let p = world.connect("p").go();
        for number in 700..800 {
            world.publish(p, "t", &number.to_string(), 1);
        }
        let mut got = Vec::new();
        loop {
            let page = world.messages(a);
            if page.is_empty() {
                break;
            }
            assert!(page.len() <= 10);
            for message in page {
                assert_eq!(message.dup, got.len() < 10);
                world.send(a, &puback(message.id));
                got.push(message.payload);
            }
        }
        assert_eq!(got, numbers(0..800));
    });
}

#[test]
fn what_is_in_flight_comes_again_with_its_packet_id() {
    through_each_end(|mut world, end| {
        let a = world.connect("a").clean(false).go();
        world.subscribe(a, "t", 2);
        let p = world.connect("p").go();
        for number in 0..6 {
            world.publish(p, "t", &number.to_string(), 1 + number % 2);
        }
        let got = world.messages(a);
        world.send(a, &puback(got[2].id));
        world.send(a, &pubrec(got[3].id));
        world.expect(a, Got::Pubrel(got[3].id));
        for _ in 0..2 {
            end(&mut world);
            let a = world.back("a");
            let mut expected: Vec<Got> = [0, 1, 4, 5]
                .map(|at: usize| Got::Publish(again(&got[at])))
                .into();
            let mut came = world.receive(a);
            // PUBRELs have an order of their own.
            let pubrel = came.iter().position(|got| matches!(got, Got::Pubrel(_)));
            assert_eq!(came.remove(pubrel.expect("PUBREL")), Got::Pubrel(got[3].id));
            assert_eq!(came, expected);
            // Another one has an id of its own.
            let p = world.connect("p").go();
            world.publish(p, "t", "new", 1);
            let new = world.messages(a).remove(0);
            expected.retain(|got| matches!(got, Got::Publish(other) if other.id == new.id));
            assert!(!new.dup && expected.is_empty() && new.id != got[3].id);
            world.send(a, &puback(new.id));
        }
        let a = world.back("a");
        world.receive(a);
        for at in [0, 4] {
            world.send(a, &puback(got[at].id));
        }
        for at in [1, 5] {
            world.send(a, &pubrec(got[at].id));
        }
        for at in [3, 1, 5] {
            world.send(a, &pubcomp(got[at].id));
        }
        world.receive(a);
        end(&mut world);
        let a = world.back("a");
        assert_eq!(world.receive(a), []);
    });
}

/// Case D05 of docs/security.md.
#[test]
fn pubrels_come_again_in_the_order_of_the_pubrecs() {
    through_each_end(|mut world, end| {
        let a = world.connect("a").clean(false).go();
        world.subscribe(a, "t", 2);
        let p = world.connect("p").go();
        for number in 0..5 {
            world.publish(p, "t", &number.to_string(), 2);
        }
        let got = world.messages(a);
        for at in [3, 1, 4] {
            world.send(a, &pubrec(got[at].id));
        }
        end(&mut world);
        let a = world.back("a");
        for at in [2, 0] {
            world.send(a, &pubrec(got[at].id));
        }
        end(&mut world);
        let a = world.back("a");
        let expected = [3, 1, 4, 2, 0].map(|at: usize| Got::Pubrel(got[at].id));
        assert_eq!(world.receive(a), expected);
        // Their ids are taken still.
        let p = world.connect("p").go();
        world.publish(p, "t", "new", 2);
        let new = world.messages(a).remove(0).id;
        assert!(got.iter().all(|message| message.id != new));
    });
}

/// Case D05 of docs/security.md.
#[test]
fn a_qos_2_message_that_was_received_is_not_routed_again() {
    through_each_end(|mut world, end| {
        let s = world.connect("s").clean(false).go();
        world.subscribe(s, "t", 2);
        world.subscribe(s, "$queue/q", 1);
        world.disconnect(s);
        let p = world.connect("p").clean(false).go();
        for (id, topic) in [(5, "t"), (6, "$queue/q"), (7, "t")] {
            world.send(p, &publish(topic, "m", 2, id));
            world.expect(p, Got::Pubrec(id));
        }
        world.send(p, &pubrel(7));
        world.expect(p, Got::Pubcomp(7));
        end(&mut world);
        let p = world.back("p");
        for (id, topic) in [(5, "t"), (6, "$queue/q")] {
            world.send(p, &duplicate(publish(topic, "m", 2, id)));
            world.expect(p, Got::Pubrec(id));
        }
        end(&mut world);
        let p = world.back("p");
        for id in [5, 6] {
            world.send(p, &pubrel(id));
            world.expect(p, Got::Pubcomp(id));
        }
        end(&mut world);
        // The ids are free again.
        let p = world.back("p");
        for id in [5, 7] {
            world.send(p, &publish("t", "new", 2, id));
        }
        let s = world.back("s");
        let mut payloads = Vec::new();
        for message in world.messages(s) {
            world.acknowledge(s, &message);
            payloads.push(message.payload);
        }
        payloads.sort();
        assert_eq!(payloads, ["m", "m", "m", "new", "new"]);
    });
}

#[test]
fn the_time_that_a_session_has_goes_on() {
    through_each_end_in_5(
        |_| (),
        |mut world, end| {
            for (away, is_there) in [(99, true), (101, false)] {
                let expiry = Property::SessionExpiryInterval(100);
                let a = world.connect("a").property(expiry).go();
                world.disconnect(a);
                world.advance(secs(50));
                end(&mut world);
                world.advance(secs(away - 50));
                assert_eq!(world.connect("a").clean(false).go_present().1, is_there);
            }
            // Whoever was there when the broker went, has the whole time.
            let expiry = Property::SessionExpiryInterval(100);
            world.connect("b").property(expiry).go();
            world.advance(secs(1000));
            end(&mut world);
            world.advance(secs(98));
            assert!(world.connect("b").clean(false).go_present().1);
        },
    );
}

#[test]
fn a_session_that_expired_while_the_broker_was_down_is_over() {
    through_each_end_in_5(
        |_| (),
        |mut world, end| {
            let expiry = Property::SessionExpiryInterval(100);
            let a = world.connect("a").property(expiry).go();
            world.subscribe(a, "t", 1);
            world.subscribe(a, "$share/g/t", 1);
            world.disconnect(a);
            let p = world.connect("p").go();
            world.publish(p, "t", "m", 1);
            world.now = world.now + secs(200);
            end(&mut world);
            world.advance(secs(1));
            assert_eq!(world.core.sessions_len(), 0);
            assert_eq!(world.stored_len(), (0, 0));
        },
    );
}

/// Cases C10 and C11 of docs/security.md.
#[test]
fn what_is_over_leaves_nothing_behind() {
    type Over = fn(&mut World, C);
    let overs: [(&str, Over); 3] = [
        ("clean start", |world, _| {
            let a = world.connect("a").clean(true).go();
            world.disconnect(a);
        }),
        ("expired", |world, a| {
            world.disconnect(a);
            world.advance(secs(8 * 24 * 60 * 60));
        }),
        ("full", |world, a| {
            world.drop(a);
            let p = world.connect("p").go();
            for _ in 0..20 {
                world.publish(p, "t", "m", 1);
            }
        }),
    ];
    let configure = |config: &mut Config| {
        config.limits.session_messages_max = 15;
        config.session.expiry_max = secs(7 * 24 * 60 * 60);
    };
    for (how, over) in overs {
        through_each_end_with(configure, |mut world, end| {
            let a = (world.connect("a").clean(false))
                .will("will", "m", 1, false)
                .go();
            for filter in ["t", "t/#", "$share/g/t/+"] {
                world.subscribe(a, filter, 2);
            }
            let p = world.connect("p").go();
            for qos in 1..3 {
                world.publish(p, "t", "m", qos);
                world.publish(p, "t/1", "m", qos);
            }
            world.send(a, &publish("t", "m", 2, 77)); // Not released.
            let got = world.receive(a);
            let last = got.iter().rev().find_map(|got| match got {
                Got::Publish(message) if message.qos == 2 => Some(message.id),
                _ => None,
            });
            world.send(a, &pubrec(last.expect("one of QoS 2")));
            over(&mut world, a);
            assert_eq!(world.stored_len(), (0, 0), "{how}");
            end(&mut world);
            assert_eq!(world.stored_len(), (0, 0), "{how}, after the start");
            let (a, present) = world.connect("a").clean(false).go_present();
            assert!(!present);
            let p = world.connect("p").go();
            world.publish(p, "t", "m", 1);
            assert_eq!(world.receive(a), []);
        });
    }
}

#[test]
fn clean_sessions_leave_nothing_behind() {
    through_each_end(|mut world, end| {
        let a = (world.connect("a")).will("will", "m", 1, false).go();
        for filter in ["t", "$share/g/t"] {
            world.subscribe(a, filter, 2);
        }
        let p = world.connect("p").go();
        for qos in 0..3 {
            world.publish(p, "t", "m", qos);
        }
        world.send(p, &publish("t", "m", 2, 77));
        assert_eq!(world.stored_len(), (0, 0));
        end(&mut world);
        assert_eq!(world.stored_len(), (0, 0));
        assert_eq!(world.core.sessions_len(), 0);
        assert!(!world.connect("a").clean(false).go_present().1);
    });
}

#[test]
fn a_session_that_is_taken_over_goes_on() {
    through_each_end(|mut world, end| {
        let first = world.connect("a").clean(false).go();
        world.subscribe(first, "t", 1);
        let p = world.connect("p").go();
        world.publish(p, "t", "1", 1);
        let got = world.messages(first).remove(0);
        let second = world.back("a");
        assert!(!world.is_open(first));
        world.publish(p, "t", "2", 1);
        end(&mut world);
        assert!(!world.is_open(second));
        let a = world.back("a");
        let came = world.messages(a);
        assert_eq!(came[0], again(&got));
        assert_eq!((&*came[1].payload, came.len()), ("2", 2));
    });
}

#[test]
fn qos_0_waits_for_absent_clients_where_that_is_asked_for() {
    for store_qos0 in [false, true] {
        let configure = |config: &mut Config| config.session.store_qos0 = store_qos0;
        through_each_end_with(configure, |mut world, end| {
            let a = world.connect("a").clean(false).go();
            world.subscribe(a, "t", 0);
            world.disconnect(a);
            let p = world.connect("p").go();
            world.publish(p, "t", "1", 0);
            world.publish(p, "t", "2", 1);
            end(&mut world);
            let a = world.back("a");
            let expected: &[&str] = if store_qos0 { &["1", "2"] } else { &[] };
            assert_eq!(world.payloads(a), expected);
            end(&mut world);
            let a = world.back("a");
            assert_eq!(world.receive(a), []);
        });
    }
}

#[test]
fn a_message_expires_also_while_the_broker_is_away() {
    through_each_end_in_5(
        |_| (),
        |mut world, end| {
            let a = world.connect("a").clean(false).go();
            world.subscribe(a, "t", 1);
            world.disconnect(a);
            let p = world.connect("p").go();
            for (payload, expiry) in [("short", 10), ("long", 100)] {
                let expiry = Property::MessageExpiryInterval(expiry);
                world.send_with(p, ("t", payload), 1, false, &[expiry]);
                world.send_with(p, ("r", payload), 1, true, &[expiry]);
                let topic = format!("r/{payload}");
                world.send_with(p, (&topic, payload), 1, true, &[expiry]);
            }
            end(&mut world);
            world.now = world.now + secs(40);
            let a = world.back("a");
            let got = world.messages(a);
            assert_eq!(got.len(), 1);
            assert_eq!(got[0].payload, "long");
            assert_eq!(got[0].properties, ["MessageExpiryInterval(60)"]);
            world.subscribe(a, "r/#", 0);
            let got = world.messages(a);
            let payloads: Vec<_> = got.iter().map(|message| &*message.topic).collect();
            assert_eq!(payloads, ["r", "r/long"]);
            world.advance(secs(80));
            assert_eq!(world.core.retained_len(), 0);
            world.connect("a").clean(true).go();
            assert_eq!(world.stored_len(), (0, 0));
        },
    );
}

/// Case H07 of docs/security.md.
#[test]
fn retained_messages_are_there_again() {
    through_each_end(|mut world, end| {
        let p = world.connect("p").go();
        for topic in ["r/set", "r/cleared", "r/replaced", "r/set/again"] {
            world.publish_with(p, topic, "old", 1, true);
        }
        world.publish_with(p, "r/cleared", "", 1, true);
        world.publish_with(p, "r/replaced", "new", 2, true);
        world.publish_with(p, "r/set/again", "", 1, true);
        world.publish_with(p, "r/set/again", "again", 0, true);
        world.core.store().commit(true).expect("the disk is well");
        for _ in 0..2 {
            end(&mut world);
            let a = world.connect("a").go();
            world.subscribe(a, "r/#", 2);
            let mut got = Vec::new();
            for message in world.messages(a) {
                assert!(message.retain);
                got.push((message.topic, message.payload, message.qos));
            }
            got.sort();
            let expected = [
                ("r/replaced", "new", 2),
                ("r/set", "old", 1),
                ("r/set/again", "again", 0),
            ];
            let expected =
                expected.map(|(topic, payload, qos)| (topic.into(), payload.into(), qos));
            assert_eq!(got, expected);
        }
    });
}

#[test]
fn what_was_published_with_properties_comes_with_them() {
    through_each_end_in_5(
        |_| (),
        |mut world, end| {
            let a = world.connect("a").clean(false).go();
            world.subscribe(a, "t", 1);
            world.disconnect(a);
            let p = world.connect("p").go();
            let properties = [
                Property::ContentType("text"),
                Property::UserProperty(("k", "v")),
                Property::PayloadFormatIndicator(true),
                Property::CorrelationData(b"\x00\xff"),
            ];
            world.send_with(p, ("t", "m"), 1, true, &properties);
            end(&mut world);
            let a = world.back("a");
            let got = world.messages(a).remove(0);
            assert_eq!(got.properties, shown(properties));
            let b = world.connect("b").go();
            world.subscribe(b, "t", 1);
            assert_eq!(world.messages(b).remove(0).properties, shown(properties));
        },
    );
}

#[test]
fn a_large_message_is_stored_once_for_all() {
    through_each_end(|mut world, end| {
        let payload = "x".repeat(20_000);
        for id in ["a", "b", "c"] {
            let client = world.connect(id).clean(false).go();
            world.subscribe(client, "t", 1);
            world.disconnect(client);
        }
        let p = world.connect("p").go();
        world.publish(p, "t", &payload, 1);
        end(&mut world);
        for id in ["a", "b"] {
            let client = world.back(id);
            assert_eq!(world.work(client).payload, payload);
        }
        end(&mut world);
        let c = world.back("c");
        assert_eq!(world.work(c).payload, payload);
        let rows = world.stored_len().1;
        assert_eq!(rows, 0);
    });
}

#[test]
fn messages_of_two_runs_are_never_mixed_up_whatever_the_clock_shows() {
    through_each_end(|mut world, end| {
        for id in ["a", "b"] {
            let client = world.connect(id).clean(false).go();
            world.subscribe(client, "t", 1);
            world.disconnect(client);
        }
        let now = world.now;
        for run in 0..3 {
            let p = world.connect("p").go();
            for number in 0..3 {
                world.publish(p, "t", &(3 * run + number).to_string(), 1);
            }
            end(&mut world);
            world.now = now;
        }
        for id in ["a", "b"] {
            let client = world.back(id);
            assert_eq!(world.payloads(client), numbers(0..9));
        }
    });
}
