//! `$delayed/SECONDS/TOPIC`: what is put off, to any topic.

use super::*;

#[test]
fn what_is_put_off_comes_when_it_is_due() {
    in_each_version(|mut world| {
        let p = world.connect("p").go();
        let a = world.connect("a").go();
        world.subscribe(a, "news", 1);
        world.subscribe(a, "$queue/jobs", 1);
        world.publish(p, "$delayed/20/news", "late", 1);
        world.publish(p, "$delayed/10/news", "soon", 0);
        world.publish(p, "$delayed/0/news", "now", 1);
        world.publish(p, "$delayed/15/$queue/jobs", "job", 1);
        assert_eq!(world.payloads(a), ["now"]);
        world.advance(secs(9));
        assert_eq!(world.payloads(a), [""; 0]);
        world.advance(secs(2));
        assert_eq!(world.payloads(a), ["soon"]);
        world.advance(secs(5));
        assert_eq!(world.payloads(a), ["job"]);
        world.advance(secs(5));
        assert_eq!(world.payloads(a), ["late"]);
    });
}

#[test]
fn it_may_be_retained_and_feed_queues_then() {
    in_each_version(|mut world| {
        let p = world.connect("p").go();
        world.publish_with(p, "$delayed/10/state", "on", 1, true);
        world.advance(secs(5));
        let a = world.connect("a").go();
        world.subscribe(a, "state", 1);
        world.subscribe(a, "$queue/state", 1);
        assert_eq!(world.payloads(a), [""; 0]);
        world.advance(secs(6));
        assert_eq!(world.payloads(a).len(), 2, "the copy and the job");
        let b = world.connect("b").go();
        world.subscribe(b, "state", 1);
        assert_eq!(world.payloads(b), ["on"]);
    });
}

#[test]
fn it_outlives_the_broker_and_is_published_once() {
    for version in VERSIONS {
        let mut world = World::new().stored(&Twin::new());
        world.version = version;
        let p = world.connect("p").go();
        let a = world.connect("a").clean(false).go();
        world.subscribe(a, "news", 1);
        for (delay, payload) in [(10, "while it was down"), (40, "later"), (400, "last")] {
            world.publish(p, &format!("$delayed/{delay}/news"), payload, 1);
        }
        world.now = world.now + secs(20);
        world.restart();
        let a = world.connect("a").clean(false).go();
        world.advance(secs(1));
        assert_eq!(world.payloads(a), ["while it was down"]);
        world.advance(secs(30));
        assert_eq!(world.payloads(a), ["later"]);
        world.restart();
        world.advance(secs(400));
        world.restart();
        let a = world.connect("a").clean(false).go();
        // What came twice already was not acknowledged.
        assert_eq!(world.payloads(a), ["while it was down", "later", "last"]);
    }
}

#[test]
fn more_than_memory_has_is_put_off_and_comes_in_time() {
    const COUNT: u64 = 3000;
    let mut world = World::new().stored(&Twin::new());
    let p = world.connect("p").go();
    for n in 0..COUNT {
        // Far from the order in which they are due.
        let delay = 10 + n * 7 % 100;
        world.publish(p, &format!("$delayed/{delay}/news"), &delay.to_string(), 1);
    }
    world.move_all();
    world.restart();
    let a = world.connect("a").go();
    world.subscribe(a, "news", 1);
    let mut seen = 0;
    for second in 0..120_u64 {
        world.advance(secs(1));
        loop {
            let page = world.messages(a);
            if page.is_empty() {
                break;
            }
            for message in page {
                let delay: u64 = message.payload.parse().unwrap();
                // A second of the clock may have gone while they were put in.
                assert!(delay <= second + 2, "{delay} at {second}");
                world.send(a, &puback(message.id));
                seen += 1;
            }
        }
    }
    assert_eq!(seen, COUNT);
}

/// Case E52 of docs/security.md.
#[test]
fn what_cannot_be_put_off() {
    for topic in [
        "$delayed",
        "$delayed/10",
        "$delayed/x/news",
        "$delayed/31536001/news",
        "$delayed/10/",
        "$delayed/10/$delayed/10/news",
        "$delayed/10/$SYS/x",
        "$delayed/0/$CONTROL/rotamq/v1",
        "$settles/1/$delayed/10/news",
    ] {
        in_each_version(|mut world| {
            let p = world.connect("p").go();
            let id = world.send_publish(p, topic, "m", 1, false);
            match world.version {
                Version::V5 => assert!(
                    matches!(world.receive(p)[..], [Got::Refused(answered, _)] if answered == id),
                    "{topic}"
                ),
                _ => assert!(!world.is_open(p), "{topic}"),
            }
        });
    }
}
