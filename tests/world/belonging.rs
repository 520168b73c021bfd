//! A session belongs to its user (F01, F02): nobody else gets anything of it,
//! whatever client identifier they give.

use super::*;

/// Ann, Ben and nobody in particular, each as the other.
fn pairs() -> Vec<(Authenticated, Authenticated)> {
    let all = [user("ann"), user("ben"), Authenticated::ANONYMOUS];
    let pairs = all
        .iter()
        .flat_map(|one| all.iter().map(move |other| (one, other)));
    let differ = pairs.filter(|(one, other)| one != other);
    differ
        .map(|(one, other)| (one.clone(), other.clone()))
        .collect()
}

/// Cases B17, F01 and F02 of docs/security.md.
#[test]
fn another_user_touches_neither_session_nor_connection() {
    in_each_version(|mut world| {
        for (owner, other) in pairs() {
            let refuse = |world: &mut World| {
                world.who = other.clone();
                for clean in [false, true] {
                    let reason = world.connect("a").clean(clean).refused();
                    assert_eq!(reason, ReasonCode::ClientIdentifierNotValid);
                }
            };
            world.who = owner.clone();
            let a = world.connect("a").clean(false).go();
            world.subscribe(a, "t", 1);
            // While its client is there,
            refuse(&mut world);
            world.publish(a, "t", "there", 0);
            assert_eq!(world.payloads(a), ["there"]);
            // while it is away,
            world.drop(a);
            refuse(&mut world);
            let b = world.connect("b").go();
            world.publish(b, "t", "away", 1);
            world.disconnect(b);
            // and after the broker was away.
            if world.disk.is_some() {
                world.restart();
                refuse(&mut world);
            }
            world.who = owner;
            let (a, present) = world.connect("a").clean(false).go_present();
            assert_eq!(present, world.tells_present());
            assert_eq!(world.payloads(a), ["away"]);
            // Its owner takes it over, and ends it; then the name is free.
            let a = world.connect("a").go();
            world.disconnect(a);
        }
        assert_eq!(world.core.sessions_len(), 0);
    });
}
