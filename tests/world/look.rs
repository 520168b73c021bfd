//! What people see of clients, sessions, subscriptions and retained messages;
//! and what they do with them.

use std::net::SocketAddr;

use rotamq::broker::look::{
    Cleared, ClientShown, InFlightState, InFlightView, Kind, Outgoing, Paged, Position, Published,
    Receivers, SessionShown, SubscriptionView, Wanted,
};
use rotamq::broker::steer::{Code, SteerError};
use rotamq::journal::Receipt;
use rotamq::origin::{ListenerName, Origin, PeerAddress};
use rotamq::topic::TopicFilter;

use super::rights::rule;
use super::*;

/// A page that everything is on.
const ALL: usize = 1000;

impl World {
    fn clients_like(&self, wanted: Wanted<'_>) -> Vec<String> {
        let page = self.core.list_clients(wanted, None, ALL);
        assert_eq!(page.next, None);
        page.items.into_iter().map(|view| view.client).collect()
    }

    fn sessions_like(&self, wanted: Wanted<'_>) -> Vec<String> {
        let page = self.core.list_sessions(wanted, None, ALL);
        assert_eq!(page.next, None);
        page.items.into_iter().map(|view| view.client).collect()
    }

    fn client(&self, client: &str) -> ClientShown {
        self.core
            .show_client(client, self.now)
            .expect("it is there")
    }

    fn session(&self, client: &str) -> SessionShown {
        (self.core.show_session(client, self.now)).expect("it is there")
    }

    fn subscriptions(&self, client: Option<&str>, filter: Option<&str>) -> Vec<SubscriptionView> {
        let page = self.core.list_subscriptions(client, filter, None, ALL);
        let page = page.expect("the client is there");
        assert_eq!(page.next, None);
        page.items
    }

    /// What a person did is stored when that is told.
    fn done(&mut self, receipt: Receipt) {
        self.worker.effects.wake_all();
        self.drive();
        assert!(self.core.store().has(receipt));
    }

    fn send_away(&mut self, client: &str) -> Result<(), SteerError> {
        let reason = ReasonCode::AdministrativeAction;
        let receipt = (self.core).send_away(&mut self.worker, client, reason, self.now)?;
        self.done(receipt);
        Ok(())
    }

    fn end_session(&mut self, client: &str) -> Result<(), SteerError> {
        let receipt = (self.core).end_session(&mut self.worker, client, self.now)?;
        self.done(receipt);
        Ok(())
    }

    fn try_hand_publish(&mut self, outgoing: &Outgoing<'_>) -> Result<Published, SteerError> {
        let done = (self.core).publish_for_person(&mut self.worker, outgoing, self.now);
        let (published, receipt) = done?;
        self.done(receipt);
        Ok(published)
    }

    fn hand_publish(&mut self, topic: &str, payload: &str, qos: u8, retain: bool) -> Published {
        let outgoing = outgoing(topic, payload, qos, retain);
        self.try_hand_publish(&outgoing).expect("it is published")
    }

    fn retained_topics(&self, filter: &str) -> Vec<String> {
        let page = (self.core).list_retained(filter_of(filter), None, ALL, None, self.now);
        assert_eq!(page.next, None);
        page.items.into_iter().map(|view| view.topic).collect()
    }
}

fn outgoing<'a>(topic: &'a str, payload: &'a str, qos: u8, retain: bool) -> Outgoing<'a> {
    Outgoing {
        topic,
        payload: payload.as_bytes(),
        qos: qos_of(qos),
        retain,
        properties: Properties::EMPTY,
    }
}

fn filter_of(text: &str) -> TopicFilter<'_> {
    TopicFilter::parse(text, TopicLimits::NONE).expect("a filter")
}

fn code<T: std::fmt::Debug>(result: Result<T, SteerError>) -> Code {
    result.expect_err("it is not to be done").code
}

fn filters(subscriptions: &[SubscriptionView]) -> Vec<&str> {
    let filters = subscriptions.iter().map(|view| &*view.filter);
    filters.collect()
}

#[test]
fn a_client_is_told_of_as_it_is() {
    in_each_version(|mut world| {
        world.who = user("ann");
        let a = world.connect("a").clean(false).keep_alive(60).go();
        let origin = Origin {
            address: PeerAddress::Ip(SocketAddr::from(([192, 0, 2, 7], 40_000))).into(),
            listener: ListenerName::new("0.0.0.0:1883"),
        };
        let link = world.clients[a.0].link.as_ref().expect("open");
        world.core.note_origin(link, origin);
        let connected_at = world.now;
        world.advance(secs(5));
        world.subscribe(a, "a/+", 1);
        let view = world.client("a").client;
        assert_eq!((&*view.client, view.user.as_deref()), ("a", Some("ann")));
        assert_eq!(view.address.as_deref(), Some("192.0.2.7:40000"));
        assert_eq!(view.listener.as_deref(), Some("0.0.0.0:1883"));
        let version = match world.version {
            Version::V3_1 => "3.1",
            Version::V3_1_1 => "3.1.1",
            Version::V5 => "5.0",
        };
        assert_eq!((view.version, view.keep_alive_secs), (version, 60));
        assert!(view.connected);
        assert_eq!(view.since_ms, connected_at.as_micros() / 1000);
        assert_eq!(view.last_packet_ms, world.now.as_micros() / 1000);
        let expiry = world.core.session_settings().expiry_default;
        assert_eq!(view.session_expiry_secs, Some(expiry.as_secs()));
        assert_eq!(view.stored, world.core.store().is_on());
        assert_eq!(view.subscriptions, 1);
        assert_eq!(
            world.core.list_clients(Wanted::default(), None, 9).items,
            [view]
        );
        // Its session is there when it is not.
        world.disconnect(a);
        assert_eq!(world.clients_like(Wanted::default()), [""; 0]);
        assert_eq!(code(world.core.show_client("a", world.now)), Code::NotFound);
        let absent_since = world.now;
        world.advance(secs(5));
        let view = world.session("a").session;
        assert!(!view.connected);
        assert_eq!(view.address.as_deref(), Some("192.0.2.7:40000"));
        assert_eq!(view.absent_since_ms, Some(absent_since.as_micros() / 1000));
        let ends = (absent_since + expiry).as_micros() / 1000;
        assert_eq!(view.expires_at_ms, Some(ends));
        assert_eq!(
            code(world.core.show_session("b", world.now)),
            Code::NotFound
        );
        if world.disk.is_some() {
            // Where it came from is not worth storing; all else is.
            world.stop_and_start();
            let again = world.session("a").session;
            assert_eq!(again.address, None);
            assert_eq!(again.absent_since_ms, view.absent_since_ms);
            assert_eq!(again.expires_at_ms, view.expires_at_ms);
            assert_eq!(
                (again.user.as_deref(), again.subscriptions),
                (Some("ann"), 1)
            );
        }
    });
}

#[test]
fn clients_and_sessions_are_found_by_what_is_known_of_them() {
    in_each_version(|mut world| {
        for (name, who, address) in [
            ("phone-1", "ann", "192.0.2.1:1"),
            ("phone-2", "bob", "192.0.2.2:1"),
            ("desk-1", "ann", "[2001:db8::1]:7"),
        ] {
            world.who = user(who);
            let client = world.connect(name).clean(false).go();
            let link = world.clients[client.0].link.as_ref().expect("open");
            let address = PeerAddress::Ip(address.parse().expect("an address")).into();
            let listener = ListenerName::new(if who == "ann" { "a:1" } else { "b:2" });
            world.core.note_origin(link, Origin { address, listener });
            if name == "phone-1" {
                world.disconnect(client);
            }
        }
        let everybody = Wanted::default();
        let ann = Wanted {
            user: Some("ann"),
            ..everybody
        };
        assert_eq!(world.clients_like(everybody), ["phone-2", "desk-1"]);
        assert_eq!(world.clients_like(ann), ["desk-1"]);
        assert_eq!(world.sessions_like(ann), ["phone-1", "desk-1"]);
        for (wanted, expected) in [
            (
                Wanted {
                    client: Some("phone"),
                    ..everybody
                },
                &["phone-1", "phone-2"][..],
            ),
            (
                Wanted {
                    client: Some("*-1"),
                    ..everybody
                },
                &["phone-1", "desk-1"],
            ),
            (
                Wanted {
                    client: Some("hone-*"),
                    ..everybody
                },
                &[],
            ),
            (
                Wanted {
                    address: Some("192.0.2."),
                    ..everybody
                },
                &["phone-1", "phone-2"],
            ),
            (
                Wanted {
                    address: Some("[2001*"),
                    ..everybody
                },
                &["desk-1"],
            ),
            (
                Wanted {
                    listener: Some("b:2"),
                    ..everybody
                },
                &["phone-2"],
            ),
            (
                Wanted {
                    connected: Some(false),
                    ..everybody
                },
                &["phone-1"],
            ),
            (
                Wanted {
                    connected: Some(true),
                    ..ann
                },
                &["desk-1"],
            ),
        ] {
            assert_eq!(world.sessions_like(wanted), expected, "{wanted:?}");
        }
    });
}

/// Those that are there all the time are on exactly one page.
#[test]
fn pages_go_on_where_they_were_while_others_come_and_go() {
    in_each_version(|mut world| {
        let names: Vec<String> = (0..10).map(|number| format!("c{number}")).collect();
        let mut clients: Vec<C> = (names.iter())
            .map(|name| world.connect(name).go())
            .collect();
        let (mut seen, mut after) = (Vec::new(), None);
        for round in 0.. {
            let Paged { items, next } = world.core.list_clients(Wanted::default(), after, 3);
            assert!(items.len() <= 3);
            seen.extend(items.into_iter().map(|view| view.client));
            // Odd ones leave, and others take their places.
            if let Some(gone) = clients.get(1 + 2 * round).copied() {
                world.disconnect(gone);
                clients.push(world.connect(&format!("new{round}")).go());
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
        for even in names.iter().step_by(2) {
            let times = seen.iter().filter(|name| *name == even).count();
            assert_eq!(times, 1, "{even}: {seen:?}");
        }
        let page = world
            .core
            .list_clients(Wanted::default(), Some(u32::MAX), 3);
        assert_eq!((page.items.len(), page.next), (0, None));
    });
}

/// Ids and ages, each way.
#[test]
fn what_is_on_its_way_is_told_with_its_age() {
    in_each_version(|mut world| {
        let a = world.connect("a").clean(false).go();
        world.subscribe(a, "t", 2);
        let p = world.connect("p").go();
        world.publish(p, "t", "one", 1);
        world.advance(secs(2));
        world.publish(p, "t", "two", 2);
        let got = world.messages(a);
        world.advance(secs(3));
        // The client has the second one, and its PUBREC is known.
        world.send(a, &pubrec(got[1].id));
        world.expect(a, Got::Pubrel(got[1].id));
        let id = world.send_publish(a, "elsewhere", "three", 2, false);
        world.expect(a, Got::Pubrec(id));
        world.advance(secs(1));
        let shown = world.client("a");
        let client = &shown.client;
        assert_eq!((client.in_flight_out, client.in_flight_in), (2, 1));
        let releasing = InFlightView {
            packet_id: got[1].id,
            qos: 2,
            state: InFlightState::Releasing,
            age_ms: Some(1000),
            topic: None,
            queue: None,
        };
        let mut sent = InFlightView {
            packet_id: got[0].id,
            qos: 1,
            state: InFlightState::Sent,
            age_ms: Some(6000),
            // What is stored is not in memory too.
            topic: world.disk.is_none().then(|| "t".to_owned()),
            queue: None,
        };
        assert_eq!(shown.details.in_flight_out_list, [releasing, sent.clone()]);
        let came = InFlightView {
            packet_id: id,
            qos: 2,
            state: InFlightState::Received,
            age_ms: Some(1000),
            topic: None,
            queue: None,
        };
        assert_eq!(shown.details.in_flight_in_list, [came]);
        // After the broker's end nobody knows how old they are.
        if world.disk.is_some() {
            world.restart();
            let details = world.session("a").details;
            let ages = details.in_flight_in_list.iter().map(|view| view.age_ms);
            assert_eq!(ages.collect::<Vec<_>>(), [None]);
            let a = world.connect("a").clean(false).go();
            let again = world.take(a);
            assert!(matches!(
                again,
                Some(Got::Publish(Message { dup: true, .. }))
            ));
            world.advance(secs(4));
            let details = world.client("a").details;
            let ages = details.in_flight_out_list.iter().map(|view| view.age_ms);
            assert_eq!(ages.collect::<Vec<_>>(), [None, Some(4000)]);
        } else {
            // On a later connection it is as old as it is.
            world.drop(a);
            world.connect("a").clean(false).go();
            world.advance(secs(4));
            sent.age_ms = Some(10_000);
            assert_eq!(world.client("a").details.in_flight_out_list[1], sent);
        }
    });
}

#[test]
fn a_job_in_hand_is_told_with_its_queue() {
    in_each_version(|mut world| {
        let a = world.connect("a").go();
        world.subscribe(a, "$queue/jobs", 1);
        let p = world.connect("p").go();
        world.publish(p, "$queue/jobs", "job", 1);
        let details = world.client("a").details;
        assert_eq!(details.in_flight_out_list.len(), 1);
        let queue = details.in_flight_out_list[0].queue.as_deref();
        assert_eq!(queue, Some("$queue/jobs"));
        assert_eq!(filters(&details.subscription_list), ["$queue/jobs"]);
    });
}

#[test]
fn what_a_client_does_not_get_is_told_with_the_reason() {
    in_each_version_with(
        |config| {
            config.limits.session_messages_max = 2;
            config.session.full = rotamq::config::SessionFull::DropOldest;
        },
        |mut world| {
            let a = world.connect("a").clean(false).go();
            world.subscribe(a, "t/#", 1);
            let p = world.connect("p").go();
            world.drop(a);
            world.publish(p, "t", "nobody is there", 0);
            for number in ["1", "2", "3"] {
                world.publish(p, "t", number, 1);
            }
            let shown = world.session("a");
            let dropped = shown.details.dropped;
            assert_eq!((dropped.absent, dropped.oldest), (1, 1));
            assert_eq!(shown.session.dropped_messages, 2);
            assert_eq!(shown.session.queued, 2);
            assert!(shown.session.queued_bytes > 0);
            // It comes back, and may not read all of it any more.
            let rules = "
[[role]]
name = \"some\"
[role.allow]
publish = [\"#\"]
subscribe = [\"t\"]
[[grant]]
client = \"*\"
roles = [\"some\"]
";
            rule(&mut world, rules);
            world.publish(p, "t/secret", "not for it", 1);
            let a = world.connect("a").clean(false).go();
            let got = world.payloads(a);
            let dropped = world.client("a").details.dropped;
            assert_eq!(dropped.denied + got.len() as u64, 3 - (dropped.oldest - 1));
            assert_eq!(dropped.denied, 1);
        },
    );
}

#[test]
fn what_has_expired_or_is_too_large_is_told() {
    in_mqtt_5(
        |_| (),
        |mut world| {
            let a = (world.connect("a").clean(false))
                .property(Property::MaximumPacketSize(100.try_into().unwrap()))
                .go();
            world.subscribe(a, "t", 1);
            let p = world.connect("p").go();
            world.publish(p, "t", &"x".repeat(200), 0);
            world.publish(p, "t", &"x".repeat(200), 1);
            assert_eq!(world.client("a").details.dropped.too_large, 2);
            world.drop(a);
            let expiry = Property::MessageExpiryInterval(5);
            world.send_with(p, ("t", "late"), 1, false, &[expiry]);
            world.advance(secs(10));
            let a = world.connect("a").clean(false).go();
            assert_eq!(world.payloads(a), [""; 0]);
            assert_eq!(world.client("a").details.dropped.expired, 1);
        },
    );
}

#[test]
fn messages_and_bytes_are_counted_each_way() {
    in_each_version(|mut world| {
        let a = world.connect("a").clean(false).go();
        world.subscribe(a, "t", 0);
        let before = world.client("a").client;
        assert_eq!((before.messages_in, before.messages_out), (0, 0));
        assert!(before.bytes_in > 0 && before.bytes_out > 0);
        world.publish(a, "t", "12345678", 0);
        world.publish(a, "t", "12345678", 1);
        let after = world.client("a").client;
        assert_eq!((after.messages_in, after.messages_out), (2, 2));
        let head = if world.version == Version::V5 { 1 } else { 0 };
        let publish = 2 + 2 + 1 + head + 8;
        assert_eq!(after.bytes_in - before.bytes_in, 2 * publish + 2);
        let puback = 4;
        assert_eq!(after.bytes_out - before.bytes_out, 2 * publish + puback);
        // They are the session's, and go on with it.
        world.disconnect(a);
        world.connect("a").clean(false).go();
        let again = world.client("a").client;
        assert_eq!((again.messages_in, again.messages_out), (2, 2));
        assert!(again.bytes_out > after.bytes_out);
    });
}

#[test]
fn a_client_that_is_sent_away_is_told_why_and_keeps_its_session() {
    in_each_version(|mut world| {
        let watcher = world.connect("watcher").go();
        world.subscribe(watcher, "wills", 1);
        let a = (world.connect("a").clean(false))
            .will("wills", "gone", 1, false)
            .go();
        world.subscribe(a, "t", 1);
        assert_eq!(
            world.client("a").details.will.expect("a will").topic,
            "wills"
        );
        world.send_away("a").expect("it is there");
        let told = (world.version == Version::V5).then_some(ReasonCode::AdministrativeAction);
        assert_eq!(world.told(a), told);
        assert_eq!(world.closed(a), Some(ReasonCode::AdministrativeAction));
        // It has not said good-bye [MQTT-3.1.2-8].
        assert_eq!(world.work(watcher).payload, "gone");
        assert_eq!(code(world.send_away("a")), Code::NotFound);
        let p = world.connect("p").go();
        world.publish(p, "t", "kept", 1);
        if world.disk.is_some() {
            world.restart();
        }
        let (a, present) = world.connect("a").clean(false).go_present();
        assert!(present || !world.tells_present());
        assert_eq!(world.payloads(a), ["kept"]);
        // Without a session that outlives it, nothing is left.
        world.connect("b").go();
        world.send_away("b").expect("it is there");
        assert_eq!(
            code(world.core.show_session("b", world.now)),
            Code::NotFound
        );
        assert_eq!(
            world.core.sessions_len(),
            world.sessions_like(Wanted::default()).len()
        );
    });
}

/// It is not its member's fault: the job is the next one's at once, and does not
/// count.
#[test]
fn jobs_of_a_member_that_is_sent_away_are_given_to_the_next() {
    in_each_version_with(
        |config| config.queues.default.deliveries_max = 1,
        |mut world| {
            let a = world.connect("a").go();
            world.subscribe(a, "$queue/jobs", 1);
            let p = world.connect("p").go();
            world.publish(p, "$queue/jobs", "job", 1);
            let b = world.connect("b").go();
            world.subscribe(b, "$queue/jobs", 1);
            world.send_away("a").expect("it is there");
            assert_eq!(world.work(b).payload, "job");
        },
    );
}

#[test]
fn a_session_that_is_ended_is_gone_for_good() {
    in_each_version(|mut world| {
        let watcher = world.connect("watcher").go();
        world.subscribe(watcher, "wills", 1);
        let p = world.connect("p").go();
        for stays in [true, false] {
            let a = (world.connect("a").clean(false))
                .will("wills", "gone", 1, false)
                .go();
            world.subscribe(a, "t", 1);
            world.publish(p, "t", "in flight", 1);
            if !stays {
                world.drop(a);
                assert_eq!(world.work(watcher).payload, "gone");
            }
            world.end_session("a").expect("it is there");
            if stays {
                assert_eq!(world.closed(a), Some(ReasonCode::AdministrativeAction));
                assert_eq!(world.work(watcher).payload, "gone");
            }
            assert_eq!(code(world.end_session("a")), Code::NotFound);
            assert_eq!(
                code(world.core.show_session("a", world.now)),
                Code::NotFound
            );
            let (a, present) = world.connect("a").clean(false).go_present();
            assert!(!present);
            assert_eq!(world.receive(a), []);
            world.end_session("a").expect("it is there");
        }
        if world.disk.is_some() {
            world.restart();
            assert_eq!(world.sessions_like(Wanted::default()), [""; 0]);
            assert_eq!(world.subscriptions(None, None), []);
        }
    });
}

#[test]
fn subscriptions_are_found_by_client_filter_and_topic() {
    in_each_version(|mut world| {
        let a = world.connect("a").clean(false).go();
        for filter in [
            "sensors/+/t",
            "sensors/#",
            "$share/g/sensors/#",
            "$queue/sensors/#",
        ] {
            // A queue that is a wildcard has to be configured.
            match filter.starts_with("$queue/") {
                true => world.subscribe(a, "$queue/jobs", 1),
                false => world.subscribe(a, filter, 1),
            }
        }
        let b = world.connect("b").go();
        world.subscribe(b, "sensors/1/t", 0);
        world.subscribe(b, "$share/g/sensors/#", 1);
        let of_a = world.subscriptions(Some("a"), None);
        let mut told = filters(&of_a);
        told.sort_unstable();
        let expected = [
            "$queue/jobs",
            "$share/g/sensors/#",
            "sensors/#",
            "sensors/+/t",
        ];
        assert_eq!(told, expected);
        for view in &of_a {
            let kind = match &*view.filter {
                "$queue/jobs" => Kind::Queue,
                "$share/g/sensors/#" => Kind::Share,
                _ => Kind::Filter,
            };
            assert_eq!((view.kind, view.qos), (kind, 1));
            assert_eq!(view.client.as_deref(), Some("a"));
        }
        assert_eq!(world.subscriptions(None, None).len(), 6);
        assert_eq!(
            filters(&world.subscriptions(None, Some("1/t"))),
            ["sensors/1/t"]
        );
        assert_eq!(world.subscriptions(None, Some("$share*")).len(), 2);
        assert_eq!(world.subscriptions(Some("a"), Some("+")).len(), 1);
        let nobody = world.core.list_subscriptions(Some("c"), None, None, ALL);
        assert_eq!(code(nobody), Code::NotFound);
        // A page of one at a time brings all of them, each once.
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = world.core.list_subscriptions(None, None, after, 1);
            let page = page.expect("no client is asked for");
            paged.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(paged, world.subscriptions(None, None));
        // Who gets it: sessions each, share groups and queues once.
        let matching = |world: &World, topic: &str, limit| {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = (world.core).list_matching(topic_name(topic), after, limit);
                found.extend(page.items);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            let told = found.into_iter().map(|view| {
                let matched = view.matched.expect("a topic was asked for");
                (view.client.unwrap_or_default(), view.filter, matched)
            });
            let mut told: Vec<_> = told.collect();
            told.sort_unstable();
            told
        };
        let told = |rows: &[(&str, &str, &str)]| -> Vec<(String, String, String)> {
            let rows = rows.iter();
            rows.map(|(client, filter, matched)| {
                ((*client).into(), (*filter).into(), (*matched).into())
            })
            .collect()
        };
        for limit in [1, 2, ALL] {
            let expected = told(&[
                ("", "$share/g/sensors/#", "sensors/#"),
                ("a", "sensors/#", "sensors/#"),
                ("a", "sensors/+/t", "sensors/+/t"),
                ("b", "sensors/1/t", "sensors/1/t"),
            ]);
            assert_eq!(matching(&world, "sensors/1/t", limit), expected);
            let expected = told(&[("", "$queue/jobs", "jobs")]);
            assert_eq!(matching(&world, "jobs", limit), expected);
            assert_eq!(matching(&world, "$queue/jobs", limit), expected);
            assert_eq!(matching(&world, "$queue/other", limit), []);
        }
    });
}

#[test]
fn subscriptions_have_the_options_that_were_asked_for() {
    in_mqtt_5(
        |_| (),
        |mut world| {
            let a = world.connect("a").clean(false).go();
            let mut options = SubscribeOptions::new(Qos::ExactlyOnce);
            options.no_local = true;
            options.retain_as_published = true;
            world.subscribe_with(a, "t", options, 7);
            for restarts in [false, true] {
                if restarts && world.disk.is_some() {
                    world.restart();
                }
                let view = world.subscriptions(Some("a"), None).remove(0);
                assert_eq!((view.qos, view.subscription_id), (2, Some(7)));
                assert!(view.no_local && view.retain_as_published);
            }
        },
    );
}

#[test]
fn retained_messages_are_listed_by_topic_and_taken_away_for_good() {
    in_each_version(|mut world| {
        world.who = user("ann");
        let p = world.connect("p").go();
        for topic in ["b", "a/2", "a/1", "a/1/x", "c"] {
            world.publish_with(p, topic, "text", 1, true);
        }
        let everything = ["a/1", "a/1/x", "a/2", "b", "c"];
        assert_eq!(world.retained_topics("#"), everything);
        assert_eq!(world.retained_topics("a/+"), ["a/1", "a/2"]);
        let (mut seen, mut after) = (Vec::new(), None::<String>);
        loop {
            let from = after.as_deref().map(topic_name);
            let page = (world.core).list_retained(filter_of("#"), from, 2, Some(2), world.now);
            assert!(page.items.len() <= 2);
            for view in page.items {
                assert_eq!(
                    (view.payload_bytes, view.payload.as_deref()),
                    (4, Some("te"))
                );
                seen.push(view.topic);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, everything);
        let view = world
            .core
            .show_retained("a/1", None, world.now)
            .expect("it is there");
        assert_eq!(
            (&*view.publisher, view.publisher_user.as_deref()),
            ("p", Some("ann"))
        );
        assert_eq!(
            (view.qos, view.payload, view.expires_at_ms),
            (1, None, None)
        );
        assert_eq!(view.stored_at_ms, world.now.as_micros() / 1000);
        for (topic, expected) in [("nothing", Code::NotFound), ("a/#", Code::Invalid)] {
            assert_eq!(
                code(world.core.show_retained(topic, None, world.now)),
                expected
            );
            let cleared = (world.core).clear_retained(&mut world.worker, topic, world.now);
            assert_eq!(code(cleared), expected);
        }
        // Who has it is not told.
        let a = world.connect("a").go();
        world.subscribe(a, "b", 0);
        assert_eq!(world.payloads(a), ["text"]);
        let cleared = (world.core).clear_retained(&mut world.worker, "b", world.now);
        world.done(cleared.expect("it was there"));
        assert_eq!(world.receive(a), []);
        let filter = filter_of("a/1/#");
        let cleared = (world.core).clear_retained_page(&mut world.worker, filter, None, world.now);
        assert_eq!(
            cleared.0,
            Cleared {
                deleted: 2,
                next: None
            }
        );
        world.done(cleared.1);
        for restarts in [false, true] {
            if restarts && world.disk.is_some() {
                world.restart();
            }
            assert_eq!(world.retained_topics("#"), ["a/2", "c"]);
        }
    });
}

/// Whatever is asked for: an answer is put together in memory.
#[test]
fn a_page_of_large_retained_messages_ends_sooner() {
    const LARGE: usize = 1 << 20;
    let mut world = World::new();
    let p = world.connect("p").go();
    for number in 10..22 {
        world.publish_with(p, &format!("n/{number}"), &"x".repeat(LARGE), 0, true);
    }
    let page = |after: Option<&str>, bytes_max| {
        let after = after.map(topic_name);
        (world.core).list_retained(filter_of("#"), after, 100, bytes_max, world.now)
    };
    let first = page(None, Some(LARGE));
    assert_eq!(
        (first.items.len(), first.next.as_deref()),
        (7, Some("n/17"))
    );
    let second = page(first.next.as_deref(), Some(LARGE));
    assert_eq!((second.items.len(), second.next), (5, None));
    assert_eq!(page(None, Some(9)).items.len(), 12);
}

#[test]
fn many_retained_messages_are_taken_away_a_page_at_a_time() {
    let mut world = World::new();
    let p = world.connect("p").go();
    for number in 0..2500 {
        world.publish_with(p, &format!("n/{number}"), "x", 0, true);
        world.publish_with(p, &format!("m/{number}"), "x", 0, true);
    }
    let mut pages = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let (filter, after) = (filter_of("n/+"), next.as_deref().map(topic_name));
        let cleared = (world.core).clear_retained_page(&mut world.worker, filter, after, world.now);
        pages.push(cleared.0.deleted);
        next = cleared.0.next;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(pages.iter().sum::<usize>(), 2500);
    assert!(pages.iter().all(|deleted| *deleted <= 1000), "{pages:?}");
    assert_eq!(world.core.retained_len(), 2500);
}

/// However few of very many it matches: others have their turns in between.
#[test]
fn a_filter_that_matches_few_is_looked_for_in_steps() {
    let mut world = World::with(|config| config.limits.retained_messages_max = 100_000);
    let p = world.connect("p").go();
    for number in 0..25_000 {
        world.publish_with(p, &format!("n/{number:05}/x"), "x", 0, true);
    }
    world.publish_with(p, "n/24999/rare", "x", 0, true);
    let (mut deleted, mut pages, mut next) = (0, 0, None::<String>);
    loop {
        let (filter, after) = (filter_of("+/+/rare"), next.as_deref().map(topic_name));
        let (cleared, _) =
            (world.core).clear_retained_page(&mut world.worker, filter, after, world.now);
        (deleted, pages, next) = (deleted + cleared.deleted, pages + 1, cleared.next);
        if next.is_none() {
            break;
        }
    }
    assert_eq!(deleted, 1);
    assert!(pages > 2, "{pages} pages");
    assert_eq!(world.core.retained_len(), 25_000);
}

/// A listener goes, and its clients come back by another one meanwhile.
#[test]
fn who_came_back_by_another_listener_stays() {
    in_each_version(|mut world| {
        let gone = ListenerName::new("0.0.0.0:1883");
        let came_by = |world: &World, c: C, listener: &ListenerName| {
            let origin = Origin {
                address: PeerAddress::Unix.into(),
                listener: listener.clone(),
            };
            let link = world.clients[c.0].link.as_ref().expect("open");
            world.core.note_origin(link, origin);
        };
        let a = world.connect("a").clean(false).go();
        came_by(&world, a, &gone);
        let b = world.connect("b").clean(false).go();
        came_by(&world, b, &gone);
        let why = Close::new(ReasonCode::AdministrativeAction, "its listener is gone");
        let mut closing = world.core.begin_closing(why, Some(gone));
        world.drop(a);
        world.connect("a").clean(false).go();
        let closed = world.core.close_some(&mut world.worker, &mut closing, 9);
        assert_eq!(closed, 1, "only b has come by it");
    });
}

/// A page goes on where the one before ended, unless that was of another session.
#[test]
fn subscriptions_of_a_session_that_was_made_anew_are_all_listed() {
    let mut world = World::new();
    let filters = ["a", "b", "c"];
    let subscribe = |world: &mut World, client: &str| {
        let c = world.connect(client).clean(false).go();
        for filter in filters {
            world.subscribe(c, filter, 0);
        }
        c
    };
    let before = subscribe(&mut world, "x");
    let list = |world: &World, after, limit| {
        let page = (world.core).list_subscriptions(Some("x"), None, after, limit);
        page.expect("the client is there")
    };
    let first = list(&world, None, 2);
    assert!(first.next.is_some());
    world.disconnect(before);
    (world.core.end_session(&mut world.worker, "x", world.now)).expect("it is there");
    // It has the place of the session that was.
    subscribe(&mut world, "y");
    subscribe(&mut world, "x");
    let mut second = filters_of(list(&world, first.next, 9));
    second.sort_unstable();
    assert_eq!(second, filters);
}

fn filters_of(page: Paged<SubscriptionView, Position>) -> Vec<String> {
    page.items.into_iter().map(|view| view.filter).collect()
}

#[test]
fn what_a_person_publishes_goes_the_ways_of_all_messages() {
    in_each_version(|mut world| {
        let a = world.connect("a").clean(false).go();
        world.subscribe(a, "t/#", 1);
        let nobody = world.hand_publish("nobody", "x", 1, false);
        assert_eq!(nobody.receivers, Receivers::Nobody);
        let published = world.hand_publish("t", "hello", 2, false);
        assert_eq!(published.receivers, Receivers::Subscribers);
        assert_eq!(published.message_id, None);
        let message = world.work(a);
        assert_eq!(
            (&*message.topic, &*message.payload, message.qos),
            ("t", "hello", 1)
        );
        world.hand_publish("t/kept", "retained", 1, true);
        assert!(!world.work(a).retain);
        let queued = world.hand_publish("$queue/jobs", "job", 0, false);
        assert_eq!(queued.receivers, Receivers::Queues);
        let id = queued.message_id.expect("a queue has it");
        let put_off = world.hand_publish("$delayed/60/t/later", "late", 1, false);
        assert_eq!(put_off.receivers, Receivers::Queues);
        if world.disk.is_some() {
            world.restart();
        }
        let member = world.connect("member").go();
        world.subscribe(member, "$queue/jobs", 1);
        let job = world.work(member);
        assert_eq!(job.payload, "job");
        if world.version == Version::V5 {
            let says = format!("UserProperty((\"message-id\", \"{id}\"))");
            assert!(job.properties.contains(&says), "{job:?}");
        }
        let (a, _) = world.connect("a").clean(false).go_present();
        world.advance(secs(61));
        assert_eq!(world.work(a).payload, "late");
        world.subscribe(a, "t/kept", 1);
        assert_eq!(world.work(a).payload, "retained");
        // An empty one takes it away.
        world.hand_publish("t/kept", "", 1, true);
        assert_eq!(world.core.retained_len(), 0);
        for topic in [
            "",
            "a/+",
            "#",
            "$SYS",
            "$SYS/broker/load",
            "$delayed/0/$SYS/broker/load",
            "$delayed/5/$SYS/broker/load",
            "$share/g/t",
            "$queue/$nack",
            "$settles/1/t",
            "$CONTROL/rotamq/v1",
            "$delayed/t",
            "a\0b",
        ] {
            let refused = world.try_hand_publish(&outgoing(topic, "x", 1, false));
            assert_eq!(code(refused), Code::Invalid, "{topic}");
        }
        let large = "x".repeat(world.core.limits().packet_bytes_max);
        let refused = world.try_hand_publish(&outgoing("t", &large, 1, false));
        assert_eq!(code(refused), Code::Invalid);
    });
}

#[test]
fn properties_go_with_what_a_person_publishes() {
    in_mqtt_5(
        |_| (),
        |mut world| {
            let a = world.connect("a").go();
            world.subscribe(a, "t", 1);
            let mut properties = PropertiesBuf::new();
            properties.push(Property::ContentType("text/plain"));
            properties.push(Property::MessageExpiryInterval(60));
            properties.push(Property::UserProperty(("name", "value")));
            let said = Outgoing {
                properties: properties.as_properties(),
                ..outgoing("t", "x", 1, false)
            };
            world.try_hand_publish(&said).expect("it is published");
            let got = world.work(a).properties;
            for expected in [
                "ContentType(\"text/plain\")",
                "MessageExpiryInterval(60)",
                "UserProperty((\"name\", \"value\"))",
            ] {
                assert!(got.iter().any(|has| has == expected), "{got:?}");
            }
            // A result is a client's, which has the delivery.
            let mut settles = PropertiesBuf::new();
            settles.push(Property::UserProperty(("settles", "1")));
            let said = Outgoing {
                properties: settles.as_properties(),
                ..outgoing("t", "x", 1, false)
            };
            assert_eq!(code(world.try_hand_publish(&said)), Code::Invalid);
        },
    );
}

#[test]
fn a_person_is_told_that_there_is_no_room() {
    in_each_version_with(
        |config| {
            let mut full = queue("full");
            full.messages_max = 1;
            full.overflow = Overflow::Reject;
            config.queue.push(full);
            config.limits.retained_messages_max = 1;
        },
        |mut world| {
            world.hand_publish("$queue/full", "first", 1, false);
            for qos in [0, 1, 2] {
                let refused = world.try_hand_publish(&outgoing("$queue/full", "x", qos, false));
                assert_eq!(code(refused), Code::Full);
            }
            world.hand_publish("a", "first", 1, true);
            let refused = world.try_hand_publish(&outgoing("b", "second", 1, true));
            assert_eq!(code(refused), Code::Full);
        },
    );
}

/// No rule is asked of what a person publishes, nor of who is its publisher
/// later; and nobody else passes for the broker.
#[test]
fn what_a_person_publishes_is_the_brokers_own() {
    let rules = r##"
[[role]]
name = "reader"
[role.allow]
subscribe = ["#"]
[[grant]]
client = "*"
roles = ["reader"]
"##;
    in_each_version(|mut world| {
        rule(&mut world, rules);
        world.hand_publish("t", "for all", 1, true);
        if world.disk.is_some() {
            world.restart();
            rule(&mut world, rules);
        }
        let a = world.connect("a").go();
        world.subscribe(a, "t", 1);
        assert_eq!(world.payloads(a), ["for all"]);
        let refused = world.connect("$broker").refused();
        assert_eq!(refused, ReasonCode::ClientIdentifierNotValid);
    });
}

#[test]
fn what_somebody_may_do_is_explained() {
    use rotamq::access::explain::{Action, Question};
    use rotamq::access::rules::Strictness;
    use rotamq::message::{ClientId, Identity};

    let mut world = World::new();
    let who = Identity {
        user: None,
        client: ClientId::new("c"),
    };
    let publishing = |topic| Question {
        action: Action::Publish,
        topic,
        qos: Qos::AtMostOnce,
        retain: false,
        strictness: Strictness::Filter,
    };
    let explained = world.core.explain(&who, &publishing("t")).expect("a topic");
    assert!(explained.is_allowed && explained.because[0].contains("no rules"));
    assert!(world.core.explain(&who, &publishing("t/#")).is_err());
    let rules = "
[[role]]
name = \"writer\"
[role.allow]
publish = [\"t\"]
[[grant]]
client = \"*\"
roles = [\"writer\"]
";
    rule(&mut world, rules);
    let explained = world.core.explain(&who, &publishing("t")).expect("a topic");
    assert!(explained.is_allowed && explained.because[0].contains("rules.toml"));
    let denied = world.core.explain(&who, &publishing("u")).expect("a topic");
    assert!(!denied.is_allowed, "{denied:?}");
}
