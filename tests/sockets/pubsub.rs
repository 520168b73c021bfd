//! Publishing and subscribing, with clients of every library.

use std::io::Write;

use crate::clients::{
    LIBRARIES, MOSQUITTO_5, Options, PAHO, PEERS, RUMQTTC, RUMQTTC_5, Version, broker, broker_with,
};
use crate::wait::until;

/// Who publishes what the peer of that index receives: never itself.
fn other(index: usize) -> crate::clients::Peer {
    PEERS[(index + 1) % PEERS.len()]
}

#[test]
fn a_message_comes_at_the_lower_of_two_qos() {
    let broker = broker();
    let address = broker.address();
    for (index, peer) in PEERS.into_iter().enumerate() {
        let mut publisher = other(index).connect(address, "publisher");
        for subscribed in 0..=2 {
            let mut subscriber = peer.subscriber(address, "subscriber", "a/+", subscribed);
            for published in 0..=2 {
                let payload = format!("{published}");
                publisher.publish("a/b", payload.as_bytes(), published, false);
                let message = subscriber.receive();
                assert_eq!(message.topic, "a/b", "{peer:?}");
                assert_eq!(message.text(), payload, "{peer:?}");
                assert_eq!(message.qos, published.min(subscribed), "{peer:?}");
                assert!(!message.retain, "{peer:?}");
            }
            subscriber.disconnect();
        }
        publisher.disconnect();
    }
}

/// Within a QoS: a client hands a QoS 2 message on when it is released.
#[test]
fn messages_of_one_publisher_come_in_their_order() {
    let broker = broker();
    for (index, peer) in PEERS.into_iter().enumerate() {
        let mut subscriber = peer.subscriber(broker.address(), "subscriber", "order", 2);
        let mut publisher =
            LIBRARIES[index % LIBRARIES.len()].connect(broker.address(), "publisher");
        for qos in 0..=2 {
            for number in 0..150 {
                publisher.publish("order", number.to_string().as_bytes(), qos, false);
            }
            for number in 0..150 {
                assert_eq!(subscriber.receive().text(), number.to_string(), "{peer:?}");
            }
        }
        subscriber.disconnect();
    }
}

#[test]
fn a_retained_message_comes_to_later_subscribers_until_it_is_cleared() {
    let broker = broker();
    let address = broker.address();
    for (index, peer) in PEERS.into_iter().enumerate() {
        let mut early = peer.subscriber(address, "early", "r/#", 1);
        let mut publisher = other(index).connect(address, "publisher");
        publisher.publish("r/1", b"first", 1, true);
        publisher.publish("r/1", b"last", 2, true);
        for text in ["first", "last"] {
            let message = early.receive();
            assert_eq!(message.text(), text, "{peer:?}");
            assert!(!message.retain, "{peer:?}: to an old subscription");
        }
        let mut late = peer.subscriber(address, "late", "r/+", 1);
        let message = late.receive();
        assert_eq!((message.text(), message.qos), ("last", 1), "{peer:?}");
        assert!(message.retain, "{peer:?}: to a new subscription");
        assert_eq!(broker.retained_len(), 1);

        publisher.publish("r/1", b"", 1, true);
        for subscriber in [&mut early, &mut late] {
            let message = subscriber.receive();
            assert_eq!((message.text(), message.retain), ("", false), "{peer:?}");
        }
        assert_eq!(broker.retained_len(), 0);
        let mut later = peer.subscriber(address, "later", "r/+", 1);
        publisher.publish("r/fence", b"fence", 0, false);
        assert_eq!(later.receive().text(), "fence", "{peer:?}");
        for client in [early, late, later, publisher] {
            client.disconnect();
        }
    }
}

#[test]
fn ten_thousand_retained_messages_come_once_each() {
    const TOPICS: usize = 10_000;
    let broker = broker();
    let address = broker.address();
    let mut publisher = crate::raw::Raw::connect(address, Version::V311, "raw");
    for number in 0..TOPICS {
        let mut packet = crate::raw::publish(&format!("many/{number}"), b"x", 0, 0);
        packet[0] |= 1;
        publisher.send(&packet);
    }
    publisher.fence();
    assert_eq!(broker.retained_len(), TOPICS);
    for peer in PEERS {
        for qos in [0, 1] {
            let mut subscriber = peer.connect(address, "subscriber");
            assert_eq!(subscriber.subscribe(&["#"], qos), [qos]);
            let mut seen = vec![false; TOPICS];
            for _ in 0..TOPICS {
                let message = subscriber.receive();
                let number = message.topic.strip_prefix("many/").expect("its topic");
                let number: usize = number.parse().expect("a number");
                assert!(message.retain, "{peer:?}");
                assert!(!std::mem::replace(&mut seen[number], true), "{peer:?}");
            }
            PEERS[0].publish(address, "fence", "fence", 1, false);
            assert_eq!(subscriber.receive().topic, "fence", "{peer:?}");
            subscriber.disconnect();
        }
    }
}

/// More than the limits of one moment, for a client that reads: none is
/// dropped, and its session does not end.
#[test]
fn large_retained_messages_come_as_fast_as_they_are_read() {
    let broker = broker_with(|config| {
        config.limits.outbox_bytes_max = 1 << 20;
        config.limits.session_bytes_max = 1 << 20;
        config.limits.session_messages_max = 20;
        config.limits.inflight_max = 10;
    });
    let address = broker.address();
    let payload = vec![7; 100_000];
    let mut publisher = RUMQTTC.connect(address, "publisher");
    for number in 0..100 {
        publisher.publish(&format!("large/{number}"), &payload, 1, true);
    }
    for peer in [RUMQTTC, RUMQTTC_5] {
        for qos in 0..=2 {
            let mut subscriber = peer.connect(address, "subscriber");
            subscriber.subscribe(&["#"], qos);
            for _ in 0..100 {
                assert_eq!(subscriber.receive().payload.len(), payload.len());
            }
            subscriber.disconnect();
        }
    }
    let counts = broker.counts();
    assert_eq!((counts.dropped_slow, counts.sessions_overflowed), (0, 0));
}

#[test]
fn a_will_is_published_for_a_client_that_is_killed_and_for_no_other() {
    let broker = broker();
    let address = broker.address();
    for (index, peer) in PEERS.into_iter().enumerate() {
        let mut watcher = other(index).subscriber(address, "watcher", "wills/#", 2);
        for qos in 0..=2 {
            // mosquitto_sub is there once it has subscribed.
            let with_will = |id: &str| {
                let options = Options::clean(address, id);
                let mut client = peer.open(options.will(&format!("wills/{id}"), id, qos, true));
                client.subscribe(&["nothing"], 0);
                client
            };
            with_will("polite").disconnect();
            if peer == MOSQUITTO_5 {
                // It says DISCONNECT with 0x04: with its will.
                assert_eq!(watcher.receive().text(), "polite");
                watcher.publish("wills/polite", b"", 0, true);
                assert_eq!(watcher.receive().text(), "");
            }
            // The watcher alone is left; those before it may take their time.
            until("DISCONNECT is handled", || broker.connections_len() == 1);
            with_will("killed").kill();
            let message = watcher.receive();
            assert_eq!(message.topic, "wills/killed", "{peer:?}");
            assert_eq!(message.text(), "killed", "{peer:?}");
            assert_eq!((message.qos, message.retain), (qos, false), "{peer:?}");
            assert_eq!(broker.retained_len(), 1, "{peer:?}: it was to be retained");
            watcher.publish("wills/killed", b"", 0, true);
            assert_eq!(watcher.receive().text(), "");
        }
        watcher.disconnect();
    }
}

#[test]
fn filters_that_overlap_bring_a_message_once_at_the_highest_qos() {
    let broker = broker();
    for peer in LIBRARIES {
        let mut subscriber = peer.connect(broker.address(), "subscriber");
        subscriber.subscribe(&["a/#"], 0);
        subscriber.subscribe(&["a/+", "#", "+/b"], 2);
        subscriber.subscribe(&["a/b"], 1);
        for text in ["first", "second"] {
            PAHO.publish(broker.address(), "a/b", text, 2, false);
            let message = subscriber.receive();
            assert_eq!((message.text(), message.qos), (text, 2), "{peer:?}");
        }
        // And each goes alone.
        subscriber.unsubscribe("a/+");
        subscriber.unsubscribe("#");
        subscriber.unsubscribe("+/b");
        PAHO.publish(broker.address(), "a/b", "third", 2, false);
        let message = subscriber.receive();
        assert_eq!((message.text(), message.qos), ("third", 1), "{peer:?}");
        subscriber.disconnect();
    }
}

#[test]
fn nothing_comes_after_unsubscribing() {
    let broker = broker();
    for peer in LIBRARIES {
        let mut subscriber = peer.subscriber(broker.address(), "subscriber", "left/#", 1);
        assert_eq!(subscriber.subscribe(&["kept"], 1), [1]);
        subscriber.unsubscribe("left/+"); // not what it subscribed to
        PAHO.publish(broker.address(), "left/1", "first", 1, false);
        assert_eq!(subscriber.receive().text(), "first", "{peer:?}");
        subscriber.unsubscribe("left/#");
        PAHO.publish(broker.address(), "left/1", "second", 1, false);
        PAHO.publish(broker.address(), "kept", "third", 1, false);
        assert_eq!(subscriber.receive().text(), "third", "{peer:?}");
        subscriber.disconnect();
    }
    until("all subscriptions are gone", || {
        broker.subscriptions_len() == 0
    });
}

#[test]
fn payloads_up_to_the_largest_packet() {
    const PACKET_BYTES_MAX: usize = 1 << 20;
    let broker = broker_with(|config| config.limits.packet_bytes_max = PACKET_BYTES_MAX);
    let address = broker.address();
    // First byte, three of the length, topic "big" and packet id; and in MQTT 5
    // the length of no properties.
    let largest = PACKET_BYTES_MAX - 4 - 5 - 2;
    for (index, peer) in PEERS.into_iter().enumerate() {
        let largest = largest - usize::from(other(index).version == Version::V5);
        let mut subscriber = peer.subscriber(address, "subscriber", "big", 2);
        let mut publisher = other(index).connect(address, "publisher");
        for (qos, len) in [(0, 70_000), (1, largest), (2, largest)] {
            let payload: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            publisher.publish("big", &payload, qos, false);
            let message = subscriber.receive();
            assert!(message.payload == payload, "{peer:?}, QoS {qos}");
        }
        publisher.disconnect();
        subscriber.disconnect();
    }
    for peer in LIBRARIES {
        let mut publisher = peer.connect(address, "publisher");
        let mut raw = crate::raw::Raw::connect(address, Version::V311, "raw");
        // It may be closed before all of it is sent.
        let beyond = crate::raw::publish("big", &vec![0; largest + 1], 1, 1);
        _ = raw.stream.write_all(&beyond);
        assert!(raw.until_closed().is_empty(), "one byte more is too much");
        publisher.publish("big", b"others go on", 1, false);
        publisher.disconnect();
    }
}

#[test]
fn two_brokers_in_one_process_do_not_disturb_each_other() {
    let brokers = [broker(), broker()];
    let mut subscribers = brokers
        .each_ref()
        .map(|broker| PAHO.subscriber(broker.address(), "same id", "same/topic", 1));
    for (broker, text) in brokers.iter().zip(["to the first", "to the second"]) {
        RUMQTTC.publish(broker.address(), "same/topic", text, 1, true);
    }
    for (subscriber, text) in subscribers
        .iter_mut()
        .zip(["to the first", "to the second"])
    {
        assert_eq!(subscriber.receive().text(), text);
    }
    let [first, second] = brokers;
    let [mut of_first, mut of_second] = subscribers;
    first.stop();
    of_first.closed();
    RUMQTTC.publish(second.address(), "same/topic", "still there", 1, false);
    assert_eq!(of_second.receive().text(), "still there");
    until("the publisher is gone", || second.sessions_len() == 1);
    assert_eq!(second.retained_len(), 1);
}
