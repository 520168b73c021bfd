//! What a PUBLISH asks of a queue: by user properties, or in its topic.

use super::*;

const REFUSED: ReasonCode = ReasonCode::ImplementationSpecificError;

#[test]
fn a_queue_is_asked_only_for_what_it_can_do() {
    in_mqtt_5(
        |_| (),
        |mut world| {
            let p = world.connect("p").go();
            let a = world.connect("a").go();
            world.subscribe(a, "$queue/jobs", 1);
            world.subscribe(a, "jobs", 1);
            for qos in 1..=2 {
                for (name, text) in [
                    ("delay", "tomorrow"),
                    ("at", "2026-11-23"),
                    ("priority", "10"),
                    ("group", ""),
                    ("dedup-id", ""),
                    ("settles", "x"),
                    ("receipt", "1"),
                ] {
                    let asked = [Property::UserProperty((name, text))];
                    let id = world.send_with(p, ("$queue/jobs", "m"), qos, false, &asked);
                    assert_eq!(world.receive(p), [Got::Refused(id, REFUSED)], "{name}");
                }
                assert_eq!(world.messages(a), []);
            }
            // To others the names mean nothing.
            let asked = [Property::UserProperty(("priority", "high"))];
            let id = world.send_with(p, ("jobs", "m"), 1, false, &asked);
            assert_eq!(world.receive(p), [Got::Puback(id)]);
            assert_eq!(world.messages(a).len(), 2);
        },
    );
}
