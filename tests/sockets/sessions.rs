//! Sessions that outlive connections, and connections that end.

use crate::clients::{LIBRARIES, Library, Options, PAHO, PEERS, RUMQTTC, Version, broker};
use crate::raw::{self, Raw};
use crate::wait::until;

#[test]
fn a_persistent_session_gets_what_came_while_its_client_was_away() {
    let broker = broker();
    let address = broker.address();
    for peer in PEERS {
        let open = || peer.open(Options::persistent(address, "device"));
        let mut device = open();
        assert_ne!(device.session_present(), Some(true), "{peer:?}");
        device.subscribe(&["to/device"], 2);
        device.disconnect();
        let mut publisher = RUMQTTC.connect(address, "publisher");
        for number in 0..300 {
            let qos = 1 + number / 150;
            publisher.publish("to/device", number.to_string().as_bytes(), qos as u8, false);
        }
        let mut device = open();
        assert_ne!(device.session_present(), Some(false), "{peer:?}");
        device.subscribe(&["fence"], 0);
        publisher.publish("to/device", b"300", 2, false);
        for number in 0..=300 {
            let message = device.receive();
            assert_eq!(message.text(), number.to_string(), "{peer:?}");
        }
        device.disconnect();
        // A clean session takes the other's place, and leaves nothing.
        let clean = peer.subscriber(address, "device", "fence", 0);
        clean.disconnect();
        publisher.disconnect();
        until("the session is gone", || broker.sessions_len() == 0);
        assert_eq!(broker.subscriptions_len(), 0);
    }
}

#[test]
fn what_was_not_acknowledged_comes_again_in_its_order() {
    let broker = broker();
    let address = broker.address();
    for peer in LIBRARIES {
        // paho answers a QoS 2 message before it hands it on.
        let answers_first = peer.library == Library::Paho;
        for qos in if answers_first { 1..=1 } else { 1..=2 } {
            let open = || peer.open(Options::persistent(address, "device").manual());
            let mut device = open();
            device.subscribe(&["to/device"], qos);
            let mut publisher = RUMQTTC.connect(address, "publisher");
            for number in 0..10 {
                publisher.publish("to/device", number.to_string().as_bytes(), 2, false);
            }
            let first: Vec<_> = (0..10).map(|_| device.receive()).collect();
            device.kill();
            publisher.publish("to/device", b"10", 2, false);
            let mut device = open();
            assert_ne!(device.session_present(), Some(false), "{peer:?}");
            for (number, sent) in first.iter().enumerate() {
                let message = device.receive();
                assert_eq!(message.text(), number.to_string(), "{peer:?}");
                assert_eq!(message.packet_id, sent.packet_id, "{peer:?}");
                device.acknowledge(&message);
            }
            let last = device.receive();
            assert_eq!(last.text(), "10", "{peer:?}");
            device.acknowledge(&last);
            device.disconnect();
            peer.connect(address, "device").disconnect();
            until("the session is gone", || broker.sessions_len() == 1);
            publisher.disconnect();
        }
    }
}

/// Every step of QoS 2, in both directions, on a connection of its own.
#[test]
fn a_qos_2_message_is_delivered_once_whatever_connections_are_lost() {
    let broker = broker();
    let address = broker.address();
    for version in [Version::V31, Version::V311] {
        let present = u8::from(version == Version::V311);
        let open = |id: &str, present: u8| {
            let mut client = Raw::open(address);
            client.send(&raw::connect(version, id, false, 0));
            assert_eq!(client.packet(), [0x20, 2, present, 0], "{version:?} {id}");
            client
        };
        let mut to = open("to", 0);
        to.send(&raw::subscribe(1, "exactly", 2));
        assert_eq!(to.packet(), [0x90, 3, 0, 1, 2]);
        drop(to);
        until("it is gone", || broker.connections_len() == 0);

        // Towards the broker: PUBLISH, again with DUP, PUBREL, PUBREL again.
        let mut publish = raw::publish("exactly", b"once", 2, 7);
        let mut from = open("from", 0);
        from.send(&publish);
        assert_eq!(from.packet(), [0x50, 2, 0, 7]);
        publish[0] |= 8;
        for bytes in [&publish[..], &[0x62, 2, 0, 7], &[0x62, 2, 0, 7]] {
            let mut from = open("from", present);
            from.send(bytes);
            let answer = if bytes[0] == 0x62 { 0x70 } else { 0x50 };
            assert_eq!(from.packet(), [answer, 2, 0, 7]);
        }

        // From the broker: the same id each time, PUBREL after PUBREC.
        let mut to = open("to", present);
        let first = to.packet();
        assert_eq!(first[0], 0x34);
        assert_eq!(&first[first.len() - 4..], b"once");
        let id = [first[11], first[12]];
        drop(to);
        let mut to = open("to", present);
        let again = to.packet();
        assert_eq!((again[0], &again[1..]), (0x3C, &first[1..]), "with DUP");
        to.send(&[0x50, 2, id[0], id[1]]);
        assert_eq!(to.packet(), [0x62, 2, id[0], id[1]]);
        drop(to);
        let mut to = open("to", present);
        assert_eq!(to.packet(), [0x62, 2, id[0], id[1]]);
        to.send(&[0x70, 2, id[0], id[1]]);
        assert!(to.fence().is_empty());
        drop(to);
        let mut to = open("to", present);
        assert!(to.fence().is_empty(), "nothing is left");
        for id in ["to", "from"] {
            let mut client = Raw::open(address);
            client.send(&raw::connect(version, id, true, 0));
            assert_eq!(client.packet(), [0x20, 2, 0, 0]);
        }
        until("both sessions are gone", || broker.sessions_len() == 0);
    }
}

/// Case F05 of docs/security.md.
#[test]
fn the_younger_connection_takes_the_session_over() {
    let broker = broker();
    let address = broker.address();
    let mut watcher = PAHO.subscriber(address, "watcher", "wills", 1);
    for peer in LIBRARIES {
        for clean in [true, false] {
            let open = || {
                let mut options = Options::clean(address, "device");
                options.clean = clean;
                peer.open(options.will("wills", "taken over", 1, false))
            };
            let mut older = open();
            older.subscribe(&["to/device"], 1);
            let mut younger = open();
            older.closed();
            assert_eq!(watcher.receive().text(), "taken over", "{peer:?}");
            if clean {
                younger.subscribe(&["to/device"], 1);
            } else {
                assert_ne!(younger.session_present(), Some(false), "{peer:?}");
            }
            PAHO.publish(address, "to/device", "whose?", 1, false);
            assert_eq!(younger.receive().text(), "whose?", "{peer:?}");
            younger.disconnect();
            RUMQTTC.connect(address, "device").disconnect();
            until("the session is gone", || broker.sessions_len() == 1);
        }
    }
}

/// Two connections that fight for one client id while they subscribe leave
/// nothing behind.
#[test]
fn take_overs_in_mid_subscribe_leave_no_subscription() {
    let broker = broker();
    let address = broker.address();
    std::thread::scope(|scope| {
        for number in 0..2 {
            scope.spawn(move || {
                for round in 0..300 {
                    let mut bytes = raw::connect(Version::V311, "contested", true, 0);
                    for filter in 0..20 {
                        let filters = [
                            format!("f/{number}/{round}/{filter}"),
                            format!("$share/g{filter}/f"),
                        ];
                        for text in &filters {
                            bytes.extend(raw::subscribe(1, text, 1));
                        }
                    }
                    let mut client = Raw::open(address);
                    // It may be closed while it sends.
                    _ = std::io::Write::write_all(&mut client.stream, &bytes);
                    client.stream.shutdown(std::net::Shutdown::Write).ok();
                    client.until_closed();
                }
            });
        }
    });
    until("all connections are gone", || broker.connections_len() == 0);
    assert_eq!(broker.sessions_len(), 0);
    assert_eq!(broker.subscriptions_len(), 0);
}

#[test]
fn a_silent_client_is_dropped_and_one_that_pings_is_not() {
    let broker = broker();
    let address = broker.address();
    for version in [Version::V31, Version::V311] {
        // paho pings by itself, once a second.
        let mut options = Options::clean(address, "pings");
        options.keep_alive_secs = 1;
        let mut pinging = PAHO.open(options);
        pinging.subscribe(&["wills"], 1);
        let mut silent = Raw::open(address);
        let payload = [raw::text("silent"), raw::text("wills"), raw::text("gone")].concat();
        silent.send(&raw::connect_flags(version, 0b0000_0110, 1, &payload));
        assert_eq!(silent.packet(), [0x20, 2, 0, 0]);
        assert!(silent.until_closed().is_empty());
        assert_eq!(pinging.receive().text(), "gone", "{version:?}");
        pinging.publish("wills", b"still there", 1, false);
        assert_eq!(pinging.receive().text(), "still there", "{version:?}");
        pinging.disconnect();
    }
}
