//! Dead letters: when a job is one, and what it says of its life.

use super::*;

/// The user properties of a message that begin so.
fn told(message: &Message, prefix: &str) -> Vec<(String, String)> {
    let told = message.properties.iter().filter_map(|shown| {
        let shown = shown.strip_prefix("UserProperty((\"")?;
        let (name, text) = shown.strip_suffix("\"))")?.split_once("\", \"")?;
        let name = name.strip_prefix(prefix)?;
        Some((name.to_owned(), text.to_owned()))
    });
    told.collect()
}

fn of<'a>(told: &'a [(String, String)], name: &str) -> &'a str {
    let found = told.iter().find(|(of, _)| of == name);
    found.map_or("", |(_, text)| text)
}

/// The one dead letter of `jobs`, as a client sees it that came for it.
fn autopsy(world: &mut World) -> (C, Message) {
    let reader = world.connect("reader").go();
    world.subscribe(reader, "$queue/$dead/jobs", 1);
    let letter = world.take(reader);
    let Some(Got::Publish(letter)) = letter else {
        panic!("{letter:?}");
    };
    (reader, letter)
}

fn with(settings: QueueSettings) -> impl Fn(&mut Config) {
    move |config| config.queue.push(settings.clone())
}

#[test]
fn a_job_that_fails_too_often_says_how() {
    let settings = QueueSettings {
        deliveries_max: 3,
        backoff_min: Duration::ZERO,
        ..queue("jobs")
    };
    in_mqtt_5(with(settings), |mut world| {
        let p = world.connect("p").go();
        let a = world.connect("a").go();
        world.subscribe(a, "$queue/jobs", 1);
        let why = [Property::ReasonString("no such account")];
        world.publish(p, "jobs", "m", 1);
        for _ in 0..3 {
            let job = world.messages(a).remove(0);
            world.refuse(a, &job, ReasonCode::UnspecifiedError, &why);
        }
        assert_eq!(world.messages(a), []);
        let (_, letter) = autopsy(&mut world);
        assert_eq!((&*letter.topic, &*letter.payload), ("jobs", "m"));
        let dead = told(&letter, "dead-");
        let names: Vec<&str> = dead.iter().map(|(name, _)| &**name).collect();
        assert_eq!(
            names,
            [
                "queue",
                "reason",
                "deliveries",
                "count",
                "first-at",
                "at",
                "topic",
                "said"
            ]
        );
        for (name, text) in [
            ("queue", "jobs"),
            ("reason", "max-deliveries"),
            ("deliveries", "3"),
            ("count", "1"),
            ("topic", "jobs"),
            ("said", "no such account"),
        ] {
            assert_eq!(of(&dead, name), text);
        }
        assert_eq!(of(&dead, "first-at"), of(&dead, "at"));
    });
}

#[test]
fn a_message_that_dies_twice_tells_of_both() {
    in_mqtt_5(
        |_| (),
        |mut world| {
            let p = world.connect("p").go();
            world.publish(p, "$queue/jobs", "m", 1);
            let a = world.connect("a").go();
            world.subscribe(a, "$queue/jobs", 1);
            let job = world.messages(a).remove(0);
            world.control(a, "reject", &job.id.to_string());
            let (reader, letter) = autopsy(&mut world);
            let first = told(&letter, "dead-");
            // Put in again, as it is.
            let texts = first
                .iter()
                .map(|(name, text)| (format!("dead-{name}"), text));
            let texts: Vec<_> = texts.collect();
            let again = texts
                .iter()
                .map(|(name, text)| Property::UserProperty((name, text)));
            let again: Vec<_> = again.collect();
            world.send(reader, &puback(letter.id));
            world.disconnect(reader);
            world.advance(secs(5));
            world.send_with(p, ("$queue/jobs", "m"), 1, false, &again);
            let job = world.messages(a).remove(0);
            let why = [Property::ReasonString("bad again")];
            world.refuse(a, &job, ReasonCode::PayloadFormatInvalid, &why);
            let (_, letter) = autopsy(&mut world);
            let second = told(&letter, "dead-");
            assert_eq!(of(&second, "count"), "2");
            assert_eq!(of(&second, "said"), "bad again");
            assert_eq!(of(&second, "first-at"), of(&first, "first-at"));
            assert_ne!(of(&second, "at"), of(&first, "at"));
            let before = of(&second, "before").replace("\\\"", "\"");
            let before: serde_json::Value = serde_json::from_str(&before).unwrap();
            assert_eq!(before["reason"], "rejected");
            assert_eq!(before["at"], of(&first, "at"));
        },
    );
}

#[test]
fn each_way_to_die_has_its_word() {
    type Set = fn(&mut QueueSettings);
    type Kill = fn(&mut World, C);
    let ways: [(&str, Set, Kill); 4] = [
        (
            "expired",
            |settings| {
                settings.ttl = Some(secs(5));
                settings.dead_letter_expired = true;
            },
            |world, p| {
                world.publish(p, "$queue/jobs", "m", 1);
                world.advance(secs(6));
            },
        ),
        (
            "overflow",
            |settings| {
                settings.messages_max = 1;
                settings.overflow = Overflow::DeadLetterOldest;
            },
            |world, p| {
                world.publish(p, "$queue/jobs", "m", 1);
                world.publish(p, "$queue/jobs", "n", 1);
            },
        ),
        (
            "undecided",
            |_| (),
            |world, p| {
                let a = world.connect("a").clean(false).go();
                world.subscribe(a, "$queue/jobs", 2);
                world.publish(p, "$queue/jobs", "m", 1);
                assert_eq!(world.messages(a).len(), 1);
                world.drop(a);
                world.advance(secs(24 * 60 * 60 + 1));
            },
        ),
        (
            "max-deliveries",
            |settings| settings.deliveries_max = 2,
            |world, p| {
                world.publish(p, "$queue/jobs", "m", 1);
                for _ in 0..2 {
                    let a = world.connect("a").go();
                    world.subscribe(a, "$queue/jobs", 1);
                    assert_eq!(world.messages(a).len(), 1);
                    world.drop(a);
                }
            },
        ),
    ];
    for (word, set, kill) in ways {
        let mut settings = queue("jobs");
        set(&mut settings);
        in_mqtt_5(with(settings), |mut world| {
            let p = world.connect("p").go();
            kill(&mut world, p);
            let (_, letter) = autopsy(&mut world);
            assert_eq!(letter.payload, "m");
            assert_eq!(of(&told(&letter, "dead-"), "reason"), word);
        });
    }
}

/// Cases H51 and M07 of docs/security.md.
#[test]
fn what_clients_say_of_deaths_harms_nobody() {
    in_mqtt_5(
        |_| (),
        |mut world| {
            let p = world.connect("p").go();
            let a = world.connect("a").go();
            world.subscribe(a, "$queue/jobs", 1);
            let (quotes, long) = ("\"".repeat(60_000), "x".repeat(60_000));
            let said = [
                ("dead-count", "18446744073709551615"),
                ("dead-topic", &quotes),
                ("dead-said", &long),
                ("dead-before", &long),
                ("dead-x", &long),
            ];
            let said = said.map(|(name, text)| Property::UserProperty((name, text)));
            let id = world.send_with(p, ("$queue/jobs", "m"), 1, false, &said);
            world.expect(p, Got::Puback(id));
            let job = world.messages(a).remove(0);
            world.control(a, "reject", &job.id.to_string());
            let (_, letter) = autopsy(&mut world);
            let dead = told(&letter, "dead-");
            assert_eq!(of(&dead, "count"), u64::MAX.to_string());
            assert_eq!(of(&dead, "topic"), "jobs");
        },
    );
}

#[test]
fn what_a_read_puts_in_goes_to_members_with_room_before_it_gives_way() {
    let mut world = World::with(|config| {
        config.queues.default.messages_max = 10;
        config.queues.default.overflow = Overflow::DeadLetterOldest;
    });
    let (p, worker) = (world.connect("p").go(), world.connect("w").go());
    world.subscribe(worker, "$queue/jobs", 1);
    let numbers: Vec<_> = (0..12).map(|number| number.to_string()).collect();
    let packets: Vec<_> = (1..)
        .zip(&numbers)
        .map(|(id, number)| publish("$queue/jobs", number, 0, id))
        .collect();
    world.send_all(p, &packets);
    assert_eq!(world.payloads(worker), numbers[..10]);
    assert_eq!(world.counts().dropped_queue_full, 2);
}
