//! rumqttc, in the test's own process.

use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use rumqttc::{AsyncClient, EventLoop, LastWill, MqttOptions, Outgoing, Packet, Publish, QoS};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::{Client, Event, Inbox, Options, Received};

pub struct Rumqttc {
    client: AsyncClient,
    task: JoinHandle<()>,
    inbox: Inbox,
    session_present: bool,
}

/// What rumqttc's clients run on.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().unwrap()
    })
}

impl Rumqttc {
    pub fn new(options: Options) -> Rumqttc {
        let mut mqtt = MqttOptions::new(&options.id, "127.0.0.1", options.address.port());
        mqtt.set_clean_session(options.clean)
            .set_keep_alive(Duration::from_secs(options.keep_alive_secs.into()))
            .set_manual_acks(options.manual)
            .set_inflight(1000)
            .set_max_packet_size(4 << 20, 4 << 20);
        if let Some(will) = options.will {
            let will = LastWill::new(will.topic, will.payload, qos(will.qos), will.retain);
            mqtt.set_last_will(will);
        }
        let (client, events) = AsyncClient::new(mqtt, 1000);
        let (sender, inbox) = channel();
        let task = runtime().spawn(run(events, sender));
        let mut inbox = Inbox::new(inbox);
        let session_present = inbox.session_present();
        Rumqttc {
            client,
            task,
            inbox,
            session_present,
        }
    }
}

impl Client for Rumqttc {
    fn session_present(&self) -> Option<bool> {
        Some(self.session_present)
    }

    fn subscribe(&mut self, filters: &[&str], level: u8) -> Vec<u8> {
        let filters = filters
            .iter()
            .map(|filter| rumqttc::SubscribeFilter::new((*filter).to_owned(), qos(level)));
        self.client.try_subscribe_many(filters).unwrap();
        self.inbox.granted()
    }

    fn unsubscribe(&mut self, filter: &str) {
        self.client.try_unsubscribe(filter).unwrap();
        self.inbox.unsubscribed();
    }

    fn publish(&mut self, topic: &str, payload: &[u8], level: u8, retain: bool) {
        (self.client)
            .try_publish(topic, qos(level), retain, payload)
            .unwrap();
        self.inbox.published();
    }

    fn receive(&mut self) -> Received {
        self.inbox.message()
    }

    fn acknowledge(&mut self, message: &Received) {
        let mut publish = Publish::new(&message.topic, qos(message.qos), &b""[..]);
        publish.pkid = message.packet_id;
        self.client.try_ack(&publish).unwrap();
    }

    fn closed(&mut self) {
        self.inbox.closed();
    }

    fn disconnect(mut self: Box<Self>) {
        self.client.try_disconnect().unwrap();
        self.inbox.closed();
    }

    fn kill(mut self: Box<Self>) {
        self.task.abort();
        self.inbox.closed();
    }
}

impl Drop for Rumqttc {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn qos(level: u8) -> QoS {
    rumqttc::qos(level).expect("0, 1 or 2")
}

/// Until the connection ends: rumqttc would connect again when asked on.
async fn run(mut events: EventLoop, sender: Sender<Event>) {
    loop {
        let event = match events.poll().await {
            Err(error) => Event::Closed(error.to_string()),
            Ok(rumqttc::Event::Outgoing(Outgoing::Publish(0))) => Event::Published,
            Ok(rumqttc::Event::Outgoing(Outgoing::Disconnect)) => {
                Event::Closed("DISCONNECT was said".to_owned())
            }
            Ok(rumqttc::Event::Outgoing(_)) => continue,
            Ok(rumqttc::Event::Incoming(packet)) => match packet {
                Packet::ConnAck(connack) => Event::Connected {
                    session_present: connack.session_present,
                },
                Packet::SubAck(suback) => {
                    Event::Subscribed(suback.return_codes.iter().map(code).collect())
                }
                Packet::UnsubAck(_) => Event::Unsubscribed,
                Packet::PubAck(_) | Packet::PubComp(_) => Event::Published,
                Packet::Publish(publish) => Event::Message(Received {
                    qos: publish.qos as u8,
                    retain: publish.retain,
                    packet_id: publish.pkid,
                    payload: publish.payload.to_vec(),
                    topic: publish.topic,
                }),
                _ => continue,
            },
        };
        let over = matches!(event, Event::Closed(_));
        if sender.send(event).is_err() || over {
            return;
        }
    }
}

fn code(code: &rumqttc::SubscribeReasonCode) -> u8 {
    match code {
        rumqttc::SubscribeReasonCode::Success(qos) => *qos as u8,
        rumqttc::SubscribeReasonCode::Failure => 0x80,
    }
}
