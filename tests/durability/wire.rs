//! Bytes to packets and back, with codecs that are not the broker's own:
//! mqttbytes for MQTT 3.1.1, rmqtt-codec for MQTT 5. Both sides of a test thus
//! share no mistake.

use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};
use mqttbytes::v4;
use rmqtt_codec::{types, v5};
use tokio_util::codec::{Decoder, Encoder};

/// The largest packet that is read, in bytes.
const PACKET_BYTES_MAX: usize = 1 << 20;
/// How long a session is kept that its MQTT 5 client leaves, in seconds.
const SESSION_EXPIRY_SECS: u32 = 86_400;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V311,
    V5,
}

pub type PacketId = NonZeroU16;

/// What both versions say. Reason codes are those of MQTT 5; what 3.1.1 cannot
/// say is 0.
#[derive(Clone, Debug, PartialEq)]
pub enum Packet {
    /// `keep`: the session outlives the connection.
    Connect {
        client: String,
        keep: bool,
    },
    ConnAck {
        code: u8,
        present: bool,
    },
    Publish(Publish),
    PubAck(PacketId, u8),
    PubRec(PacketId, u8),
    PubRel(PacketId),
    PubComp(PacketId),
    Subscribe(PacketId, String, u8),
    SubAck(PacketId, u8),
    Unsubscribe(PacketId, String),
    UnsubAck(PacketId, u8),
    PingReq,
    PingResp,
    Disconnect(u8),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    pub dup: bool,
    pub retain: bool,
    pub topic: String,
    /// `None` at QoS 0.
    pub packet_id: Option<PacketId>,
    pub qos: u8,
    pub payload: Bytes,
}

/// One connection's codec.
pub enum Codec {
    V311,
    V5(Box<v5::Codec>),
}

impl Codec {
    pub fn new(version: Version) -> Codec {
        match version {
            Version::V311 => Codec::V311,
            Version::V5 => Codec::V5(Box::default()),
        }
    }

    /// Appends the packet to `out`.
    ///
    /// # Panics
    /// If the codec refuses it: only packets that are valid are sent here.
    pub fn encode(&mut self, packet: Packet, out: &mut BytesMut) {
        match self {
            Codec::V311 => {
                encode_311(packet, out).expect("the packet is valid");
            }
            Codec::V5(codec) => codec
                .encode(to_5(packet), out)
                .expect("the packet is valid"),
        }
    }

    /// Takes the next packet off `bytes`; `None`: it is not whole yet.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Packet>, String> {
        match self {
            Codec::V311 => match v4::read(bytes, PACKET_BYTES_MAX) {
                Ok(packet) => of_311(packet).map(Some),
                Err(mqttbytes::Error::InsufficientBytes(_)) => Ok(None),
                Err(error) => Err(format!("mqttbytes: {error:?}")),
            },
            Codec::V5(codec) => match codec.decode(bytes) {
                Ok(Some((packet, _))) => of_5(packet).map(Some),
                Ok(None) => Ok(None),
                Err(error) => Err(format!("rmqtt-codec: {error}")),
            },
        }
    }
}

fn encode_311(packet: Packet, out: &mut BytesMut) -> Result<usize, mqttbytes::Error> {
    match packet {
        Packet::Connect { client, keep } => {
            let mut connect = v4::Connect::new(client);
            connect.clean_session = !keep;
            connect.keep_alive = 0;
            connect.write(out)
        }
        Packet::Publish(publish) => v4::Publish {
            dup: publish.dup,
            qos: mqttbytes::qos(publish.qos)?,
            retain: publish.retain,
            topic: publish.topic,
            pkid: publish.packet_id.map_or(0, PacketId::get),
            payload: publish.payload,
        }
        .write(out),
        Packet::PubAck(id, _) => v4::PubAck::new(id.get()).write(out),
        Packet::PubRec(id, _) => v4::PubRec::new(id.get()).write(out),
        Packet::PubRel(id) => v4::PubRel::new(id.get()).write(out),
        Packet::PubComp(id) => v4::PubComp::new(id.get()).write(out),
        Packet::Subscribe(id, filter, qos) => {
            let mut subscribe = v4::Subscribe::new(filter, mqttbytes::qos(qos)?);
            subscribe.pkid = id.get();
            subscribe.write(out)
        }
        Packet::Unsubscribe(id, filter) => {
            let mut unsubscribe = v4::Unsubscribe::new(filter);
            unsubscribe.pkid = id.get();
            unsubscribe.write(out)
        }
        Packet::PingReq => v4::PingReq.write(out),
        Packet::Disconnect(_) => v4::Disconnect.write(out),
        Packet::ConnAck { .. } | Packet::SubAck(..) | Packet::UnsubAck(..) | Packet::PingResp => {
            unreachable!("a client sends no {packet:?}")
        }
    }
}

fn of_311(packet: v4::Packet) -> Result<Packet, String> {
    Ok(match packet {
        v4::Packet::ConnAck(connack) => Packet::ConnAck {
            code: connack.code as u8,
            present: connack.session_present,
        },
        v4::Packet::Publish(publish) => Packet::Publish(Publish {
            dup: publish.dup,
            retain: publish.retain,
            topic: publish.topic,
            packet_id: PacketId::new(publish.pkid),
            qos: publish.qos as u8,
            payload: publish.payload,
        }),
        v4::Packet::PubAck(ack) => Packet::PubAck(id(ack.pkid)?, 0),
        v4::Packet::PubRec(ack) => Packet::PubRec(id(ack.pkid)?, 0),
        v4::Packet::PubRel(ack) => Packet::PubRel(id(ack.pkid)?),
        v4::Packet::PubComp(ack) => Packet::PubComp(id(ack.pkid)?),
        v4::Packet::SubAck(ack) => {
            let code = match ack.return_codes.as_slice() {
                [v4::SubscribeReasonCode::Success(qos)] => *qos as u8,
                [v4::SubscribeReasonCode::Failure] => 0x80,
                codes => return Err(format!("SUBACK with {} codes for one filter", codes.len())),
            };
            Packet::SubAck(id(ack.pkid)?, code)
        }
        v4::Packet::UnsubAck(ack) => Packet::UnsubAck(id(ack.pkid)?, 0),
        v4::Packet::PingResp => Packet::PingResp,
        other => return Err(format!("a server sends no {other:?}")),
    })
}

fn id(number: u16) -> Result<PacketId, String> {
    PacketId::new(number).ok_or_else(|| "an acknowledgement of packet id 0".into())
}

fn to_5(packet: Packet) -> v5::Packet {
    let ack = |packet_id, code| v5::PublishAck {
        packet_id,
        reason_code: v5::PublishAckReason::try_from(code).expect("the code is one of PUBACK's"),
        properties: Vec::new(),
        reason_string: None,
    };
    let ack2 = |packet_id| v5::PublishAck2 {
        packet_id,
        reason_code: v5::PublishAck2Reason::Success,
        properties: Vec::new(),
        reason_string: None,
    };
    match packet {
        Packet::Connect { client, keep } => v5::Packet::Connect(Box::new(v5::Connect {
            clean_start: !keep,
            session_expiry_interval_secs: if keep { SESSION_EXPIRY_SECS } else { 0 },
            client_id: client.into(),
            ..v5::Connect::default()
        })),
        Packet::Publish(publish) => v5::Packet::Publish(Box::new(types::Publish {
            dup: publish.dup,
            retain: publish.retain,
            qos: qos_5(publish.qos),
            topic: publish.topic.into(),
            packet_id: publish.packet_id,
            payload: publish.payload,
            properties: None,
        })),
        Packet::PubAck(id, code) => v5::Packet::PublishAck(ack(id, code)),
        Packet::PubRec(id, code) => v5::Packet::PublishReceived(ack(id, code)),
        Packet::PubRel(id) => v5::Packet::PublishRelease(ack2(id)),
        Packet::PubComp(id) => v5::Packet::PublishComplete(ack2(id)),
        Packet::Subscribe(packet_id, filter, qos) => {
            let options = v5::SubscriptionOptions {
                qos: qos_5(qos),
                ..v5::SubscriptionOptions::default()
            };
            v5::Packet::Subscribe(v5::Subscribe {
                packet_id,
                id: None,
                user_properties: Vec::new(),
                topic_filters: vec![(filter.into(), options)],
            })
        }
        Packet::Unsubscribe(packet_id, filter) => v5::Packet::Unsubscribe(v5::Unsubscribe {
            packet_id,
            user_properties: Vec::new(),
            topic_filters: vec![filter.into()],
        }),
        Packet::PingReq => v5::Packet::PingRequest,
        Packet::Disconnect(_) => v5::Packet::Disconnect(v5::Disconnect::default()),
        Packet::ConnAck { .. } | Packet::SubAck(..) | Packet::UnsubAck(..) | Packet::PingResp => {
            unreachable!("a client sends no {packet:?}")
        }
    }
}

fn qos_5(qos: u8) -> types::QoS {
    types::QoS::try_from(qos).expect("QoS is 0, 1 or 2")
}

fn of_5(packet: v5::Packet) -> Result<Packet, String> {
    Ok(match packet {
        v5::Packet::ConnectAck(connack) => Packet::ConnAck {
            code: connack.reason_code.into(),
            present: connack.session_present,
        },
        v5::Packet::Publish(publish) => Packet::Publish(Publish {
            dup: publish.dup,
            retain: publish.retain,
            topic: publish.topic.to_string(),
            packet_id: publish.packet_id,
            qos: publish.qos.into(),
            payload: publish.payload,
        }),
        v5::Packet::PublishAck(ack) => Packet::PubAck(ack.packet_id, ack.reason_code.into()),
        v5::Packet::PublishReceived(ack) => Packet::PubRec(ack.packet_id, ack.reason_code.into()),
        v5::Packet::PublishRelease(ack) => Packet::PubRel(ack.packet_id),
        v5::Packet::PublishComplete(ack) => Packet::PubComp(ack.packet_id),
        v5::Packet::SubscribeAck(ack) => match ack.status[..] {
            [code] => Packet::SubAck(ack.packet_id, code.into()),
            _ => {
                return Err(format!(
                    "SUBACK with {} codes for one filter",
                    ack.status.len()
                ));
            }
        },
        v5::Packet::UnsubscribeAck(ack) => match ack.status[..] {
            [code] => Packet::UnsubAck(ack.packet_id, code.into()),
            _ => {
                return Err(format!(
                    "UNSUBACK with {} codes for one filter",
                    ack.status.len()
                ));
            }
        },
        v5::Packet::PingResponse => Packet::PingResp,
        v5::Packet::Disconnect(disconnect) => Packet::Disconnect(disconnect.reason_code.into()),
        other => return Err(format!("a server sends no {other:?}")),
    })
}
