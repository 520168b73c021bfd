//! Many clients at once.

use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::Barrier;
use tokio::time::timeout;

use crate::clients::{broker, runtime};
use crate::wait::{DEADLINE, until};

const CLIENTS: usize = 500;

/// Each sends to the next, and one to all.
#[test]
fn five_hundred_clients_at_once() {
    // Two open files a client: more than some systems give unasked.
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).unwrap();
    let broker = broker();
    let port = broker.address().port();
    runtime().block_on(async {
        let subscribed = std::sync::Arc::new(Barrier::new(CLIENTS));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| tokio::spawn(neighbour(port, number, subscribed.clone())))
            .collect();
        for (number, client) in clients.into_iter().enumerate() {
            let ended = timeout(DEADLINE, client).await;
            ended
                .unwrap_or_else(|_| panic!("client {number} waits"))
                .unwrap();
        }
    });
    assert_eq!(broker.counts().connections_accepted, CLIENTS as u64);
    until("all are gone", || {
        broker.connections_len() == 0 && broker.sessions_len() == 0
    });
    assert_eq!(broker.subscriptions_len(), 0);
}

async fn neighbour(port: u16, number: usize, all_subscribed: std::sync::Arc<Barrier>) {
    let mut options = MqttOptions::new(format!("client {number}"), "127.0.0.1", port);
    options.set_keep_alive(Duration::from_secs(60));
    let (client, mut events) = AsyncClient::new(options, 10);
    for filter in [format!("to/{number}"), "to/all".to_owned()] {
        client.subscribe(filter, QoS::ExactlyOnce).await.unwrap();
    }
    let (mut granted, mut acknowledged) = (0, 0);
    let mut topics = Vec::new();
    let publishes = if number == 0 { 2 } else { 1 };
    while topics.len() < 2 || acknowledged < publishes {
        match events.poll().await.unwrap() {
            Event::Incoming(Packet::SubAck(_)) => granted += 1,
            Event::Incoming(Packet::PubAck(_)) => acknowledged += 1,
            Event::Incoming(Packet::Publish(publish)) => topics.push(publish.topic),
            _ => {}
        }
        if granted == 2 {
            granted = 0;
            all_subscribed.wait().await;
            let next = format!("to/{}", (number + 1) % CLIENTS);
            let qos = QoS::AtLeastOnce;
            client.publish(next, qos, false, "neighbour").await.unwrap();
            if number == 0 {
                client.publish("to/all", qos, false, "all").await.unwrap();
            }
        }
    }
    topics.sort_unstable();
    let mut expected = [format!("to/{number}"), "to/all".to_owned()];
    expected.sort_unstable();
    assert_eq!(topics, expected);
    client.disconnect().await.unwrap();
    while events
        .poll()
        .await
        .is_ok_and(|event| !matches!(event, Event::Outgoing(rumqttc::Outgoing::Disconnect)))
    {}
}
