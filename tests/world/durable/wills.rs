//! Wills outlive the broker where their sessions do, and are published once.

use super::*;

const GRACE: Duration = secs(30);

/// A session that gets all wills.
fn watched(world: &mut World) {
    let watcher = world.connect("watcher").clean(false).go();
    world.subscribe(watcher, "will", 2);
}

/// The wills that have come since the last look.
fn wills(world: &mut World) -> Vec<String> {
    let watcher = world.back("watcher");
    let mut payloads = Vec::new();
    for message in world.messages(watcher) {
        world.acknowledge(watcher, &message);
        payloads.push(message.payload);
    }
    world.disconnect(watcher);
    payloads
}

/// Case G08 of docs/security.md.
#[test]
fn a_will_is_published_once_if_the_client_stays_away() {
    through_each_end(|mut world, end| {
        watched(&mut world);
        world
            .connect("a")
            .clean(false)
            .will("will", "a", 1, false)
            .go();
        end(&mut world);
        world.advance(GRACE - secs(1));
        assert!(wills(&mut world).is_empty());
        world.advance(secs(2));
        assert_eq!(wills(&mut world), ["a"]);
        end(&mut world);
        world.advance(GRACE * 2);
        assert!(wills(&mut world).is_empty());
    });
}

#[test]
fn a_will_is_not_published_if_the_client_is_back() {
    through_each_end(|mut world, end| {
        watched(&mut world);
        world
            .connect("a")
            .clean(false)
            .will("will", "a", 1, false)
            .go();
        world
            .connect("b")
            .clean(false)
            .will("will", "old", 1, false)
            .go();
        end(&mut world);
        world.advance(GRACE - secs(1));
        world.back("a");
        world
            .connect("b")
            .clean(false)
            .will("will", "new", 1, false)
            .go();
        world.advance(GRACE * 2);
        assert!(wills(&mut world).is_empty());
        end(&mut world);
        world.advance(GRACE * 2);
        assert_eq!(wills(&mut world), ["new"]);
    });
}

/// Case G08 of docs/security.md.
#[test]
fn a_will_that_is_settled_is_settled() {
    through_each_end(|mut world, end| {
        watched(&mut world);
        let a = world
            .connect("a")
            .clean(false)
            .will("will", "a", 1, false)
            .go();
        world.disconnect(a);
        let b = world
            .connect("b")
            .clean(false)
            .will("will", "b", 1, false)
            .go();
        world.drop(b);
        end(&mut world);
        world.advance(GRACE * 2);
        assert_eq!(wills(&mut world), ["b"]);
    });
}

#[test]
fn a_will_goes_into_a_queue_or_is_retained_as_ever() {
    through_each_end(|mut world, end| {
        world
            .connect("a")
            .clean(false)
            .will("$queue/q", "job", 2, false)
            .go();
        world
            .connect("b")
            .clean(false)
            .will("r", "kept", 1, true)
            .go();
        end(&mut world);
        world.advance(GRACE * 2);
        end(&mut world);
        let worker = world.connect("worker").go();
        world.subscribe(worker, "$queue/q", 1);
        assert_eq!(world.work(worker).payload, "job");
        world.subscribe(worker, "r", 0);
        assert_eq!(world.payloads(worker), ["kept"]);
    });
}

#[test]
fn a_wills_delay_goes_on() {
    through_each_end_in_5(
        |_| (),
        |mut world, end| {
            watched(&mut world);
            let connect = |world: &mut World, id: &str, delay| {
                let mut properties = PropertiesBuf::new();
                properties.push(Property::WillDelayInterval(delay));
                let expiry = Property::SessionExpiryInterval(1000);
                let mut connecting = world.connect(id).clean(false).property(expiry);
                connecting.connect.will = Some(Will {
                    topic: "will",
                    payload: id.as_bytes(),
                    qos: qos_of(1),
                    retain: false,
                    properties: properties.as_properties(),
                });
                let (world, connect) = connecting.parts();
                world.try_connect(&connect.0, &connect.1).expect("accepted")
            };
            for id in ["a", "b", "c"] {
                let client = connect(&mut world, id, 100);
                world.drop(client);
            }
            world.advance(secs(50));
            end(&mut world);
            world.advance(secs(49));
            assert!(wills(&mut world).is_empty());
            let c = world.connect("c").clean(false).go();
            world.disconnect(c);
            world.advance(secs(2));
            let mut came = wills(&mut world);
            came.sort();
            assert_eq!(came, ["a", "b"]);

            // The broker is away when it is due: who is on the way back is waited for.
            let d = connect(&mut world, "d", 100);
            world.drop(d);
            let e = connect(&mut world, "e", 100);
            world.drop(e);
            end(&mut world);
            world.now = world.now + secs(500);
            end(&mut world);
            world.advance(GRACE - secs(1));
            world.connect("e").clean(false).go();
            world.advance(secs(2));
            assert_eq!(wills(&mut world), ["d"]);
        },
    );
}

#[test]
fn a_session_that_ends_while_the_broker_is_away_has_its_will_published() {
    through_each_end_in_5(
        |_| (),
        |mut world, end| {
            watched(&mut world);
            let expiry = Property::SessionExpiryInterval(10);
            (world.connect("a").clean(false).property(expiry))
                .will("will", "a", 1, false)
                .go();
            end(&mut world);
            world.advance(GRACE * 2);
            assert_eq!(wills(&mut world), ["a"]);
            assert_eq!(world.core.sessions_len(), 1);
        },
    );
}
