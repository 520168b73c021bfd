//! rumqttc for MQTT 5, in the test's own process. It takes a DISCONNECT without
//! a reason for a fault, and has no AUTH.

use std::collections::HashMap;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Filter, LastWill, LastWillProperties, Packet, PubAckReason, Publish,
    PublishProperties, RetainForwardRule, SubscribeProperties, SubscribeReasonCode,
};
use rumqttc::v5::{
    AsyncClient, ConnectionError, Event as Happened, EventLoop, MqttOptions, StateError,
};
use tokio::task::JoinHandle;

use super::rumqtt::runtime;
use super::{Client, Connack, Ended, Event, Extra, Inbox, Options, Received, Subscription};

pub struct Rumqttc {
    client: AsyncClient,
    task: JoinHandle<()>,
    inbox: Inbox,
    connack: Connack,
}

impl Rumqttc {
    pub fn new(options: Options) -> Rumqttc {
        let mut mqtt = MqttOptions::new(&options.id, "127.0.0.1", options.address.port());
        mqtt.set_clean_start(options.clean)
            .set_keep_alive(Duration::from_secs(options.keep_alive_secs.into()))
            .set_manual_acks(options.manual)
            .set_outgoing_inflight_upper_limit(1000)
            .set_session_expiry_interval(Some(options.session_expiry_secs()))
            .set_receive_maximum(options.receive_maximum)
            .set_topic_alias_max(options.topic_alias_maximum)
            .set_max_packet_size(options.packet_bytes_max.or(Some(4 << 20)));
        if let Some(will) = &options.will {
            let properties = LastWillProperties {
                delay_interval: Some(will.delay_secs),
                payload_format_indicator: None,
                message_expiry_interval: None,
                content_type: None,
                response_topic: None,
                correlation_data: None,
                user_properties: Vec::new(),
            };
            mqtt.set_last_will(LastWill::new(
                will.topic.clone(),
                will.payload.clone(),
                qos(will.qos),
                will.retain,
                Some(properties),
            ));
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
        let filters = filters.iter().map(|filter| Filter {
            path: (*filter).to_owned(),
            qos: qos(how.qos),
            nolocal: how.no_local,
            preserve_retain: how.retain_as_published,
            retain_forward_rule: match how.retain_handling {
                0 => RetainForwardRule::OnEverySubscribe,
                1 => RetainForwardRule::OnNewSubscribe,
                _ => RetainForwardRule::Never,
            },
        });
        let properties = SubscribeProperties {
            id: how.id.map(|id| id as usize),
            user_properties: Vec::new(),
        };
        (self.client)
            .try_subscribe_many_with_properties(filters, properties)
            .unwrap();
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
        extra: &Extra,
    ) -> u8 {
        let extra = extra.clone();
        let properties = PublishProperties {
            payload_format_indicator: extra.format,
            message_expiry_interval: extra.expiry_secs,
            topic_alias: extra.alias,
            response_topic: extra.response_topic,
            correlation_data: extra.correlation.map(Into::into),
            user_properties: extra.user,
            subscription_identifiers: Vec::new(),
            content_type: extra.content_type,
        };
        (self.client)
            .try_publish_with_properties(topic, qos(level), retain, payload.to_vec(), properties)
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
        let mut publish = Publish::new(&message.topic, qos(message.qos), &b""[..], None);
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

fn qos(level: u8) -> QoS {
    match level {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

/// Until the connection ends: rumqttc would connect again when asked on.
async fn run(mut events: EventLoop, sender: Sender<Event>) {
    // It hands messages on before it looks up what an alias stands for.
    let mut topics = HashMap::new();
    loop {
        let event = match events.poll().await {
            Err(ConnectionError::MqttState(StateError::ServerDisconnect {
                reason_code,
                reason_string,
            })) => {
                let ended = Ended {
                    reason: Some(reason_code as u8),
                    why: reason_string,
                };
                Event::Closed(ended, format!("{reason_code:?}"))
            }
            Err(error) => Event::Closed(Ended::default(), error.to_string()),
            Ok(Happened::Outgoing(Outgoing::Publish(0))) => Event::Published(0),
            Ok(Happened::Outgoing(Outgoing::Disconnect)) => {
                Event::Closed(Ended::default(), "DISCONNECT was said".to_owned())
            }
            Ok(Happened::Outgoing(_)) => continue,
            Ok(Happened::Incoming(packet)) => match packet {
                Packet::ConnAck(connack) => Event::Connected(read_connack(connack)),
                Packet::SubAck(suback) => {
                    Event::Subscribed(suback.return_codes.iter().map(granted).collect())
                }
                Packet::UnsubAck(_) => Event::Unsubscribed,
                Packet::PubAck(puback) => Event::Published(match puback.reason {
                    PubAckReason::Success => 0,
                    PubAckReason::NoMatchingSubscribers => 0x10,
                    PubAckReason::NotAuthorized => 0x87,
                    PubAckReason::QuotaExceeded => 0x97,
                    _ => 0x80,
                }),
                Packet::PubComp(_) => Event::Published(0),
                Packet::Publish(publish) => {
                    let mut message = received(publish);
                    match message.extra.alias {
                        Some(alias) if message.topic.is_empty() => {
                            message.topic = String::clone(&topics[&alias]);
                        }
                        Some(alias) => _ = topics.insert(alias, message.topic.clone()),
                        None => {}
                    }
                    Event::Message(message)
                }
                _ => continue,
            },
        };
        let over = matches!(event, Event::Closed(..));
        if sender.send(event).is_err() || over {
            return;
        }
    }
}

fn read_connack(connack: ConnAck) -> Connack {
    let session_present = connack.session_present;
    let Some(properties) = connack.properties else {
        return Connack {
            session_present,
            ..Connack::default()
        };
    };
    Connack {
        session_present,
        assigned_id: properties.assigned_client_identifier,
        session_expiry_secs: properties.session_expiry_interval,
        receive_maximum: properties.receive_max,
        packet_bytes_max: properties.max_packet_size,
        topic_alias_maximum: properties.topic_alias_max,
    }
}

fn received(publish: Publish) -> Received {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("the tests have text");
    let extra = publish.properties.map(|it| Extra {
        format: it.payload_format_indicator,
        expiry_secs: it.message_expiry_interval,
        content_type: it.content_type,
        response_topic: it.response_topic,
        correlation: it.correlation_data.map(|data| text(&data)),
        user: it.user_properties,
        ids: (it.subscription_identifiers.iter())
            .map(|&id| id as u32)
            .collect(),
        alias: it.topic_alias,
    });
    Received {
        topic: text(&publish.topic),
        payload: publish.payload.to_vec(),
        qos: publish.qos as u8,
        retain: publish.retain,
        packet_id: publish.pkid,
        extra: extra.unwrap_or_default(),
    }
}

fn granted(code: &SubscribeReasonCode) -> u8 {
    match code {
        SubscribeReasonCode::Success(qos) => *qos as u8,
        SubscribeReasonCode::NotAuthorized => 0x87,
        SubscribeReasonCode::TopicFilterInvalid => 0x8F,
        SubscribeReasonCode::QuotaExceeded => 0x97,
        _ => 0x80,
    }
}
