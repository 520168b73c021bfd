//! MQTT 5: how long sessions and messages live.

use super::*;

fn world() -> World {
    let mut world = World::new();
    world.version = Version::V5;
    world
}

fn disconnect(reason: ReasonCode, expiry_secs: Option<u32>) -> PropertiesBuf {
    assert!(!reason.is_failure());
    let mut properties = PropertiesBuf::new();
    if let Some(secs) = expiry_secs {
        properties.push(Property::SessionExpiryInterval(secs));
    }
    properties
}

fn say_disconnect(world: &mut World, client: C, reason: ReasonCode, expiry_secs: Option<u32>) {
    let properties = disconnect(reason, expiry_secs);
    let properties = properties.as_properties();
    let packet = Packet::Disconnect(Disconnect { reason, properties });
    world.send(client, &packet);
}

#[test]
fn a_session_lives_as_long_as_its_client_says() {
    let cases = [
        // At CONNECT, at DISCONNECT, and what comes of it.
        (None, None, 0),
        (Some(0), None, 0),
        (Some(100), None, 100),
        (Some(100), Some(0), 0),
        (Some(100), Some(200), 200),
        (Some(u32::MAX), Some(100), 100),
    ];
    for (at_connect, at_disconnect, lives_secs) in cases {
        let mut world = world();
        let mut connecting = world.connect("a");
        if let Some(secs) = at_connect {
            connecting = connecting.property(Property::SessionExpiryInterval(secs));
        }
        let a = connecting.go();
        world.subscribe(a, "t", 1);
        say_disconnect(&mut world, a, ReasonCode::Success, at_disconnect);
        assert_eq!(world.stop(a), Some(&Stop::Disconnect));
        if lives_secs > 0 {
            world.advance(secs(lives_secs) - TICK);
            assert_eq!(world.core.sessions_len(), 1);
            world.advance(TICK * 2);
        }
        assert_eq!(world.core.sessions_len(), 0);
        assert_eq!(world.core.subscriptions_len(), 0);
    }
}

#[test]
fn what_was_to_end_with_its_connection_cannot_be_made_longer() {
    let mut world = world();
    let a = world.connect("a").go();
    say_disconnect(&mut world, a, ReasonCode::Success, Some(1));
    assert_eq!(world.closed(a), Some(ReasonCode::ProtocolError));
    world.receive(a);
    assert_eq!(world.clients[a.0].told, Some(ReasonCode::ProtocolError));
}
