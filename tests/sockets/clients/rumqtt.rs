//! rumqttc for 3.1.1, in the test's own process.

use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use rumqttc::{AsyncClient, EventLoop, LastWill, MqttOptions, Outgoing, Packet, Publish, QoS};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::{Client, Connack, Ended, Event, Extra, Inbox, Options, Received, Subscription};

pub struct Rumqttc {
    client: AsyncClient,
    task: JoinHandle<()>,
    inbox: Inbox,
    connack: Connack,
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
        let connack = inbox.connack().expect("it is welcome");
        Rumqttc {
            client,
            task,
            inbox,
            connack,
        }
    }
}

impl Client for Rumqttc {
    fn connack(&self) -> Connack {
        self.connack.clone()
    }

    fn session_present(&self) -> Option<bool> {
        Some(self.connack.session_present)
    }

    fn subscribe_with(&mut self, filters: &[&str], how: &Subscription) -> Vec<u8> {
        let filters = filters
            .iter()
            .map(|filter| rumqttc::SubscribeFilter::new((*filter).to_owned(), qos(how.qos)));
        self.client.try_subscribe_many(filters).unwrap();
        self.inbox.granted()
    }

    fn unsubscribe(&mut self, filter: &str) {
        self.client.try_unsubscribe(filter).unwrap();
        self.inbox.unsubscribed();
    }

    fn publish_with(
        &mut self,
        topic: &str,
        payload: &[u8],
        level: u8,
        retain: bool,
        _: &Extra,
    ) -> u8 {
        (self.client)
            .try_publish(topic, qos(level), retain, payload)
            .unwrap();
        self.inbox.published()
    }

    fn receive(&mut self) -> Received {
        self.inbox.message()
    }

    fn waiting(&self) -> usize {
        self.inbox.messages.len()
    }

    fn acknowledge(&mut self, message: &Received) {
        let mut publish = Publish::new(&message.topic, qos(message.qos), &b""[..]);
        publish.pkid = message.packet_id;
        self.client.try_ack(&publish).unwrap();
    }

    fn closed(&mut self) -> Ended {
        self.inbox.closed()
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
            Err(error) => Event::Closed(Ended::default(), error.to_string()),
            Ok(rumqttc::Event::Outgoing(Outgoing::Publish(0))) => Event::Published(0),
            Ok(rumqttc::Event::Outgoing(Outgoing::Disconnect)) => {
                Event::Closed(Ended::default(), "DISCONNECT was said".to_owned())
            }
            Ok(rumqttc::Event::Outgoing(_)) => continue,
            Ok(rumqttc::Event::Incoming(packet)) => match packet {
                Packet::ConnAck(connack) => Event::Connected(Connack {
                    session_present: connack.session_present,
                    ..Connack::default()
                }),
                Packet::SubAck(suback) => {
                    Event::Subscribed(suback.return_codes.iter().map(code).collect())
                }
                Packet::UnsubAck(_) => Event::Unsubscribed,
                Packet::PubAck(_) | Packet::PubComp(_) => Event::Published(0),
                Packet::Publish(publish) => Event::Message(Received {
                    qos: publish.qos as u8,
                    retain: publish.retain,
                    packet_id: publish.pkid,
                    payload: publish.payload.to_vec(),
                    topic: publish.topic,
                    extra: Extra::default(),
                }),
                _ => continue,
            },
        };
        let over = matches!(event, Event::Closed(..));
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
