//! What the broker says of itself below `$SYS`.

use std::collections::BTreeMap;

use super::*;

/// What came, by topic without `$SYS/broker/`.
fn said(messages: Vec<Message>) -> BTreeMap<String, String> {
    let said = messages.into_iter().map(|message| {
        let topic = message.topic.strip_prefix("$SYS/broker/");
        (topic.expect("it is below").to_owned(), message.payload)
    });
    said.collect()
}

#[test]
fn what_was_said_is_there_for_who_comes_and_then_what_changes() {
    in_each_version(|mut world| {
        let away = world.connect("a").clean(false).go();
        world.subscribe(away, "away", 1);
        world.disconnect(away);
        let p = world.connect("publisher").go();
        world.publish(p, "away", "12345", 1);
        world.publish_with(p, "kept", "123", 0, true);
        world.fill("jobs", 0..3);
        world.core.begin_sys(world.now);
        world.advance(secs(1));
        let s = world.connect("s").go();
        world.subscribe(s, "$SYS/#", 2);
        let messages = world.messages(s);
        assert!(
            messages
                .iter()
                .all(|message| message.retain && message.qos == 0)
        );
        let all = said(messages);
        let version = format!("rotamq version {}", env!("CARGO_PKG_VERSION"));
        for (topic, value) in [
            ("version", &*version),
            ("uptime", "0 seconds"),
            ("clients/disconnected", "1"),
            ("messages/stored", "5"),
            ("store/messages/count", "5"),
            ("retained messages/count", "1"),
            ("subscriptions/count", "1"),
            ("shared_subscriptions/count", "0"),
            ("publish/messages/received", "5"),
            ("load/publish/received/1min", "0.00"),
            ("rotamq/queues/count", "1"),
            ("rotamq/queues/ready", "3"),
            ("rotamq/counts/dropped_slow", "0"),
            ("rotamq/memory/shedding", "nothing"),
        ] {
            assert_eq!(all.get(topic).map(String::as_str), Some(value), "{topic}");
        }
        // A second is over, and a client more is there.
        world.publish(p, "nobody", "1", 0);
        world.advance(secs(10));
        let messages = world.messages(s);
        assert!(messages.iter().all(|message| !message.retain));
        let changed = said(messages);
        assert_eq!(changed["uptime"], "10 seconds");
        assert_eq!(changed["publish/messages/received"], "6");
        assert_eq!(changed["rotamq/counts/connections_accepted"], "4");
        let (connected, before) = (&changed["clients/connected"], &all["clients/connected"]);
        assert!(connected > before, "{before}, then {connected}");
        assert!(changed["load/publish/received/1min"] > all["load/publish/received/1min"]);
        for same in ["version", "retained messages/count", "rotamq/queues/ready"] {
            assert!(!changed.contains_key(same), "{same} has not changed");
        }
    });
}

/// They are neither the clients' nor for the next run.
#[test]
fn what_the_broker_says_takes_nothing_from_clients_and_ends_with_it() {
    let configure = |config: &mut Config| config.limits.retained_messages_max = 1;
    in_each_version_with(configure, |mut world| {
        world.core.begin_sys(world.now);
        world.advance(secs(1));
        assert_eq!(world.core.retained_len(), 0);
        let p = world.connect("p").go();
        world.publish_with(p, "kept", "1", 1, true);
        if world.disk.is_some() {
            world.stop_and_start();
            let s = world.connect("s").go();
            world.subscribe(s, "$SYS/#", 0);
            world.subscribe(s, "kept", 0);
            assert_eq!(world.payloads(s), ["1"]);
        }
    });
}

/// Who is away finds the last of it, and no more of it than that.
#[test]
fn nothing_of_it_waits_for_who_is_away() {
    in_each_version(|mut world| {
        let s = world.connect("s").clean(false).go();
        world.subscribe(s, "$SYS/broker/uptime", 1);
        world.disconnect(s);
        world.core.begin_sys(world.now);
        world.advance(secs(61));
        let s = world.connect("s").clean(false).go();
        assert_eq!(world.messages(s), []);
        world.subscribe(s, "$SYS/broker/uptime", 1);
        assert_eq!(world.payloads(s), ["60 seconds"]);
    });
}

#[test]
fn it_is_said_at_its_interval_or_never() {
    let configure = |config: &mut Config| config.sys.interval = secs(60);
    in_each_version_with(configure, |mut world| {
        world.core.begin_sys(world.now);
        let s = world.connect("s").go();
        world.subscribe(s, "$SYS/broker/uptime", 0);
        world.advance(secs(121));
        assert_eq!(
            world.payloads(s),
            ["0 seconds", "60 seconds", "120 seconds"]
        );
    });
    let configure = |config: &mut Config| {
        config.sys.interval = Duration::ZERO;
        config.queues.sys_interval = Duration::ZERO;
    };
    in_each_version_with(configure, |mut world| {
        world.core.begin_sys(world.now);
        let s = world.connect("s").go();
        world.subscribe(s, "$SYS/#", 0);
        world.advance(secs(121));
        assert_eq!(world.messages(s), []);
        assert_eq!(world.timers(), 0);
    });
}

/// No wildcard at the first level reaches it [MQTT-4.7.2-1], and no share group or
/// queue is fed by chance.
#[test]
fn who_subscribes_to_everything_hears_nothing_of_it() {
    in_each_version(|mut world| {
        let s = world.connect("s").go();
        for filter in ["#", "+/broker/uptime", "$share/g/#"] {
            world.subscribe(s, filter, 0);
        }
        world.core.begin_sys(world.now);
        world.advance(secs(60));
        assert_eq!(world.messages(s), []);
    });
}

/// Sums that nobody keeps are counted anew each time, however many there are.
#[test]
fn what_there_is_is_counted_in_pages() {
    in_each_version(|mut world| {
        for n in 0..20 {
            let client = world.connect(&format!("c{n}")).clean(false).go();
            world.subscribe(client, &format!("t{n}"), 1);
            world.subscribe(client, "$share/g/t", 1);
            if n % 2 == 0 {
                world.disconnect(client);
            }
        }
        let p = world.connect("publisher").go();
        for n in 0..20 {
            world.publish(p, &format!("t{n}"), "1", 1);
        }
        world.fill("jobs", 0..3);
        for page_len in [1, 7, 10_000] {
            let mut census = rotamq::broker::Census::default();
            let mut queues = Vec::new();
            let core = &world.core;
            while core.count_on(&mut census, page_len, |name, numbers| {
                queues.push((name.to_owned(), numbers.ready));
            }) {}
            let sessions = &census.sessions;
            assert_eq!((sessions.connected, sessions.absent), (11, 10));
            assert_eq!(sessions.subscriptions, 40);
            assert_eq!((sessions.in_flight_out, sessions.waiting), (10, 10));
            assert!(sessions.kept_bytes > 0);
            assert_eq!((census.groups.lists, census.groups.members), (1, 20));
            assert_eq!(queues, [("jobs".to_owned(), 3)]);
            assert_eq!(census.queues.messages(), 3);
        }
    });
}

/// A job is in its queue, and a QoS 2 message that has come is nowhere any more.
#[test]
fn each_message_is_stored_once() {
    in_each_version(|mut world| {
        let s = world.connect("s").clean(false).go();
        world.subscribe(s, "t", 2);
        world.subscribe(s, "$queue/jobs", 1);
        let p = world.connect("p").go();
        world.publish(p, "t", "came", 2);
        world.publish(p, "t", "is on its way", 1);
        world.fill("jobs", 0..2);
        for got in world.messages(s) {
            if got.qos == 2 {
                world.send(s, &pubrec(got.id));
            }
        }
        world.core.begin_sys(world.now);
        world.advance(secs(1));
        let reader = world.connect("reader").go();
        world.subscribe(reader, "$SYS/#", 0);
        let all = said(world.messages(reader));
        assert_eq!(all["messages/stored"], "3");
        assert_eq!(all["store/messages/count"], "3");
    });
}

#[test]
fn what_was_said_is_gone_when_it_is_switched_off() {
    let mut world = World::with(|config| config.sys.interval = secs(60));
    let away: Vec<C> = (0..3)
        .map(|n| world.connect(&format!("c{n}")).clean(false).go())
        .collect();
    away.into_iter().for_each(|c| world.disconnect(c));
    world.core.begin_sys(world.now);
    world.advance(secs(1));
    let listen = |world: &mut World| {
        let s = world.connect("s").go();
        world.subscribe(s, "$SYS/broker/clients/#", 0);
        let all = said(world.messages(s));
        world.disconnect(s);
        all
    };
    let all = listen(&mut world);
    assert_eq!(
        (&*all["clients/total"], &*all["clients/maximum"]),
        ("3", "3")
    );
    world.reconfigure(|config| config.sys.interval = Duration::ZERO);
    world.advance(secs(61));
    assert_eq!(listen(&mut world), BTreeMap::new());
    world.reconfigure(|config| config.sys.interval = secs(60));
    world.advance(secs(1));
    let all = listen(&mut world);
    assert_eq!(
        (&*all["clients/total"], &*all["clients/maximum"]),
        ("3", "3")
    );
}
