//! What a queue is asked for, results that settle jobs, and receipts.

use std::net::SocketAddr;

use serde_json::Value;

use crate::clients::{
    Client, Extra, MOSQUITTO, MOSQUITTO_5, MOSQUITTO_31, Options, PAHO, PAHO_5, PAHO_31, Peer,
    RUMQTTC, RUMQTTC_5, Version, broker,
};

fn user(pairs: &[(&str, &str)]) -> Extra {
    Extra {
        user: (pairs.iter())
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..Extra::default()
    }
}

fn member(peer: Peer, address: SocketAddr, id: &str, queue: &str) -> Box<dyn Client> {
    let mut member = peer.open(Options::clean(address, id).manual());
    assert_eq!(member.subscribe(&[queue], 1), [1], "{peer:?}");
    member
}

/// User properties, or the topic where there are none, come to a member of
/// MQTT 5 with the job.
#[test]
fn a_queue_is_asked_by_properties_and_in_the_topic() {
    let broker = broker();
    let address = broker.address();
    let mut worker = PAHO_5.subscriber(address, "worker", "$queue/asked/#", 1);
    for peer in [MOSQUITTO_5, PAHO_5, RUMQTTC_5] {
        let mut producer = peer.connect(address, "producer");
        let extra = user(&[("priority", "7"), ("group", "a/b")]);
        producer.publish_with("$queue/asked/x", b"job", 1, false, &extra);
        let job = worker.receive();
        assert_eq!(job.extra.user("priority"), Some("7"), "{peer:?}");
        assert_eq!(job.extra.user("group"), Some("a/b"));
        producer.disconnect();
    }
    for peer in [MOSQUITTO, MOSQUITTO_31, PAHO, PAHO_31, RUMQTTC, MOSQUITTO_5] {
        let topic = "$queue/$with/priority=7&group=a%2Fb&response=replies/asked/x";
        peer.publish(address, topic, "job", 1, false);
        let job = worker.receive();
        assert_eq!((&*job.topic, job.text()), ("$queue/asked/x", "job"));
        assert_eq!(job.extra.user("priority"), Some("7"), "{peer:?}");
        assert_eq!(job.extra.user("group"), Some("a/b"));
        assert_eq!(job.extra.response_topic.as_deref(), Some("replies"));
    }
    let mut producer = PAHO_5.connect(address, "producer");
    let extra = user(&[("priority", "10")]);
    let reason = producer.publish_with("$queue/asked/x", b"job", 1, false, &extra);
    assert_eq!(reason, 0x83);
}

#[test]
fn the_acknowledgement_of_a_job_tells_its_message_id() {
    let broker = broker();
    let address = broker.address();
    let mut worker = PAHO_5.subscriber(address, "worker", "$queue/told", 1);
    let mut producer = PAHO_5.connect(address, "producer");
    // paho does not tell the properties of PUBREC.
    producer.publish("$queue/told", b"job", 1, false);
    let told = producer.told();
    let job = worker.receive();
    let id = job.extra.user("message-id").expect("a queue tells it");
    assert_eq!(told, [("message-id".to_owned(), id.to_owned())]);
    producer.publish("ordinary", b"m", 1, false);
    assert_eq!(producer.told(), []);
}

/// Result and settlement in one step; what is settled comes to nobody else.
#[test]
fn a_member_settles_a_job_by_its_result() {
    let broker = broker();
    let address = broker.address();
    for (peer, qos) in [
        (PAHO, 1),
        (PAHO_31, 2),
        (RUMQTTC, 1),
        (PAHO_5, 1),
        (PAHO_5, 2),
        (RUMQTTC_5, 1),
    ] {
        let work = format!("$queue/work/{peer:?}/{qos}");
        let ledger_topic = format!("$queue/ledger/{peer:?}/{qos}");
        let mut worker = member(peer, address, "worker", &work);
        let mut ledger = PAHO_5.subscriber(address, "ledger", &ledger_topic, 1);
        MOSQUITTO.publish(address, &work, "job", 1, false);
        let job = worker.receive();
        match peer.version {
            Version::V5 => {
                let id = job.extra.user("message-id").expect("a queue tells it");
                let settles = user(&[("settles", id)]);
                let publish = |worker: &mut Box<dyn Client>| {
                    worker.publish_with(&ledger_topic, b"result", qos, false, &settles)
                };
                assert_eq!(publish(&mut worker), 0, "{peer:?}");
                if peer == PAHO_5 && qos == 1 {
                    assert_eq!(publish(&mut worker), 0x83);
                }
            }
            _ => {
                let topic = format!("$settles/{}/{ledger_topic}", job.packet_id);
                worker.publish(&topic, b"result", qos, false);
            }
        }
        let result = ledger.receive();
        assert_eq!((&*result.topic, result.text()), (&*ledger_topic, "result"));
        worker.kill();
        let mut other = PAHO.subscriber(address, "other", &work, 1);
        MOSQUITTO.publish(address, &work, "fence", 1, false);
        assert_eq!(other.receive().text(), "fence", "{peer:?}");
        assert_eq!(ledger.waiting(), 0);
        other.disconnect();
        ledger.disconnect();
    }
}

/// The broker closes the connection of who cannot be told otherwise.
#[test]
fn a_result_of_nothing_in_hand_is_refused() {
    let broker = broker();
    let address = broker.address();
    let mut five = PAHO_5.connect(address, "five");
    let settles = user(&[("settles", "1f")]);
    assert_eq!(
        five.publish_with("results", b"result", 1, false, &settles),
        0x83
    );
    let mut three = PAHO.connect(address, "three");
    three.publish_with(
        "$settles/17/results",
        b"result",
        0,
        false,
        &Extra::default(),
    );
    three.closed();
}

#[test]
fn a_producer_gets_a_receipt_when_its_job_is_done_and_when_it_died() {
    let broker = broker();
    let address = broker.address();
    let mut producer = PAHO_5.subscriber(address, "producer", "replies/#", 1);
    let mut worker = member(PAHO, address, "worker", "$queue/orders");
    let extra = Extra {
        response_topic: Some("replies/5".to_owned()),
        correlation: Some("order 7".to_owned()),
        ..user(&[("receipt", "1")])
    };
    for is_rejected in [false, true] {
        for peer in [MOSQUITTO_5, PAHO_5, MOSQUITTO, PAHO_31] {
            let is_five = peer.version == Version::V5;
            match is_five {
                true => {
                    let mut client = peer.connect(address, "client");
                    client.publish_with("$queue/orders", b"job", 1, false, &extra);
                    client.disconnect();
                }
                false => {
                    let topic = "$queue/$with/receipt=1&response=replies%2F3/orders";
                    peer.publish(address, topic, "job", 1, false);
                }
            }
            let job = worker.receive();
            match is_rejected {
                true => {
                    let id = job.packet_id.to_string();
                    worker.publish("$queue/$reject", id.as_bytes(), 1, false);
                }
                false => worker.acknowledge(&job),
            }
            let receipt = producer.receive();
            let told: Value = serde_json::from_str(receipt.text()).expect("it is JSON");
            let (topic, correlation) = match is_five {
                true => ("replies/5", Some("order 7")),
                false => ("replies/3", None),
            };
            assert_eq!(receipt.topic, topic);
            assert_eq!(receipt.extra.correlation.as_deref(), correlation);
            let (outcome, reason) = match is_rejected {
                true => ("dead", Value::from("rejected")),
                false => ("done", Value::Null),
            };
            assert_eq!(
                (&told["outcome"], &told["reason"]),
                (&outcome.into(), &reason)
            );
            assert_eq!(told["queue"], "orders");
        }
    }
}
