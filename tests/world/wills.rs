//! Wills: when they are published, and when not.

use super::*;

fn watching(world: &mut World) -> C {
    let watcher = world.connect("watcher").go();
    world.subscribe(watcher, "will/#", 2);
    watcher
}

#[test]
fn a_will_is_published_unless_the_client_says_goodbye() {
    in_each_version(|mut world| {
        let watcher = watching(&mut world);
        type End = fn(&mut World, C);
        let ends: [(&str, End); 5] = [
            ("", |world, a| world.disconnect(a)),
            ("lost", |world, a| world.drop(a)),
            ("violation", |world, a| {
                world.send(a, &publish("+", "m", 0, 0))
            }),
            ("taken over", |world, _| {
                world.connect("a").go();
            }),
            ("silent", |world, _| world.advance(secs(16))),
        ];
        for clean in [true, false] {
            for (payload, end) in ends {
                let a = (world.connect("a").clean(clean).keep_alive(10))
                    .will("will/a", payload, 1, false)
                    .go();
                end(&mut world, a);
                assert!(!world.is_open(a));
                let messages = world.messages(watcher);
                let expected: &[&str] = if payload.is_empty() { &[] } else { &[payload] };
                let payloads: Vec<&str> = messages.iter().map(|m| &*m.payload).collect();
                assert_eq!(payloads, expected);
                for message in &messages {
                    assert_eq!((message.qos, message.retain), (1, false));
                    world.acknowledge(watcher, message);
                }
                // Once, and not again when the session goes.
                world.connect("a").clean(true).go();
                world.advance(secs(16));
                assert_eq!(world.receive(watcher), []);
            }
        }
    });
}

/// Case G08 of docs/security.md.
#[test]
fn a_will_is_the_last_connections_own() {
    let mut world = World::new();
    let watcher = watching(&mut world);
    let a = world
        .connect("a")
        .clean(false)
        .will("will/a", "old", 0, false)
        .go();
    world.disconnect(a);
    let a = world.connect("a").clean(false).go();
    world.drop(a);
    assert_eq!(world.receive(watcher), []);
    let a = world
        .connect("a")
        .clean(false)
        .will("will/a", "new", 0, false)
        .go();
    world.drop(a);
    assert_eq!(world.payloads(watcher), ["new"]);
    world.connect("a").clean(false).go();
    assert_eq!(world.receive(watcher), []);
}

#[test]
fn a_will_may_be_retained_or_go_into_a_queue() {
    in_each_version(|mut world| {
        let a = world.connect("a").will("will/a", "here", 1, true).go();
        world.drop(a);
        let a = world.connect("a").will("$queue/wills", "job", 0, true).go();
        world.drop(a);
        let watcher = watching(&mut world);
        assert!(world.messages(watcher)[0].retain);
        world.subscribe(watcher, "$queue/wills", 1);
        assert_eq!(world.work(watcher).payload, "job");
    });
}

/// Case G04 of docs/security.md.
#[test]
fn a_will_to_where_clients_cannot_publish_is_refused() {
    let mut world = World::new();
    for topic in [
        "$queue",
        "$queue/",
        "$queue/$nack",
        "$share/g/t",
        "$dead/jobs",
        "a/+",
        "#",
        "$SYS/x",
        "$CONTROL/rotamq/v1",
        "",
    ] {
        world.connect("a").will(topic, "m", 0, false).refused();
    }
    assert_eq!(world.core.sessions_len(), 0);
}

/// A will that ends a session whose will ends a session, and so on: as many
/// as there are clients.
/// Case G50 of docs/security.md.
#[test]
fn wills_that_end_each_other_s_sessions_take_no_stack() {
    let mut world = World::with(|config| {
        config.limits.session_messages_max = 1;
        config.limits.inflight_max = 1;
    });
    let watcher = world.connect("watcher").go();
    world.subscribe(watcher, "end", 0);
    const CLIENTS: usize = 5_000;
    let ids: Vec<String> = (0..=CLIENTS).map(|n| format!("will/{n}")).collect();
    for n in 0..CLIENTS {
        let next = if n + 1 == CLIENTS { "end" } else { &ids[n + 1] };
        let client = world.connect(&ids[n]).will(next, "over", 1, false).go();
        world.subscribe(client, &ids[n], 1);
        world.subscribe(client, "all", 1);
    }
    // One is in flight, one waits, all is full.
    let p = world.connect("p").go();
    world.publish(p, "all", "m", 1);
    world.publish(p, "all", "m", 1);
    world.publish(p, &ids[0], "m", 1);
    assert_eq!(world.payloads(watcher), ["over"]);
    assert_eq!(world.counts().sessions_overflowed as usize, CLIENTS);
    assert_eq!(world.core.sessions_len(), 2);
}
