//! What other codecs say: what this one writes they read as the same, and the
//! other way round, wherever they are right.

use bytes::BytesMut;
use proptest::prelude::*;
use rotamq::message::Qos;
use rotamq::protocol::*;

use super::{BYTES_MAX, encoded, generators, rmqtt};

proptest! {
    #[test]
    fn what_is_written_is_read_as_it_was(
        (version, packet) in generators::version()
            .prop_flat_map(|version| (Just(version), generators::packet(version)))
    ) {
        let bytes = encoded(&packet, version);
        let read = decode(&bytes, version, BYTES_MAX);
        prop_assert_eq!(read, Ok(Some((packet, bytes.len()))));
        for count in 0..bytes.len().min(100) {
            prop_assert_eq!(decode(&bytes[..count], version, BYTES_MAX), Ok(None));
        }
    }

    #[test]
    fn mqttbytes_agrees_on_3_1_1(packet in generators::packet(Version::V3_1_1)) {
        let packet = plain_login(packet);
        mqttbytes_4::agrees(&packet);
    }

    #[test]
    fn rumqttc_agrees_on_3_1_1(packet in generators::packet(Version::V3_1_1)) {
        let packet = plain_login(packet);
        rumqttc_4::agrees(&packet);
    }

    #[test]
    fn rumqttc_agrees_on_5(packet in generators::packet(Version::V5)) {
        rumqttc_5_agrees(&plain_login(packet));
    }

    #[test]
    fn rmqtt_agrees(
        (version, packet) in generators::version()
            .prop_flat_map(|version| (Just(version), generators::packet(version)))
    ) {
        rmqtt::agrees(&packet, version);
    }
}

/// The others take an empty user name or password for none, and a password
/// for text, which it is not (3.1.3.5).
fn plain_login(mut packet: Packet<'static>) -> Packet<'static> {
    if let Packet::Connect(connect) = &mut packet {
        connect.user_name = connect.user_name.filter(|name| !name.is_empty());
        let with_name = connect.user_name.is_some();
        let password = connect.password.filter(|_| with_name);
        connect.password = password.map(|bytes| match std::str::from_utf8(bytes) {
            Ok(text) if !text.is_empty() => bytes,
            _ => b"secret",
        });
    }
    packet
}

/// 3.1.1 in the shape that both crates gave it, one having begun as the other.
macro_rules! agrees_on_3_1_1 {
    ($module:ident, $common:path, $v4:path, $read:expr) => {
        mod $module {
            use $common as common;
            use $v4 as v4;

            use super::*;

            pub fn agrees(packet: &Packet<'_>) {
                let theirs = theirs(packet);
                let ours = encoded(packet, Version::V3_1_1);
                let mut stream = BytesMut::from(&ours[..]);
                let read = $read(&mut stream, BYTES_MAX).expect("they read what is written");
                assert_eq!(read, theirs);
                assert!(stream.is_empty());
                let mut written = BytesMut::new();
                write(&theirs, &mut written);
                assert_eq!(written, ours);
            }

            fn qos(qos: Qos) -> common::QoS {
                common::qos(qos as u8).expect("there are three")
            }

            fn theirs(packet: &Packet<'_>) -> v4::Packet {
                match packet {
                    Packet::Connect(connect) => v4::Packet::Connect(v4::Connect {
                        protocol: common::Protocol::V4,
                        keep_alive: connect.keep_alive_secs,
                        client_id: connect.client_id.into(),
                        clean_session: connect.clean_start,
                        last_will: connect.will.as_ref().map(|will| v4::LastWill {
                            topic: will.topic.into(),
                            message: will.payload.to_vec().into(),
                            qos: qos(will.qos),
                            retain: will.retain,
                        }),
                        login: connect.user_name.map(|name| v4::Login {
                            username: name.into(),
                            password: String::from_utf8(connect.password.unwrap_or(b"").into())
                                .expect("plain_login made it text"),
                        }),
                    }),
                    Packet::Connack(connack) => v4::Packet::ConnAck(v4::ConnAck {
                        session_present: connack.session_present,
                        code: match connack.reason {
                            ReasonCode::Success => v4::ConnectReturnCode::Success,
                            ReasonCode::UnsupportedProtocolVersion => {
                                v4::ConnectReturnCode::RefusedProtocolVersion
                            }
                            ReasonCode::ClientIdentifierNotValid => {
                                v4::ConnectReturnCode::BadClientId
                            }
                            ReasonCode::ServerUnavailable => {
                                v4::ConnectReturnCode::ServiceUnavailable
                            }
                            ReasonCode::BadUserNameOrPassword => {
                                v4::ConnectReturnCode::BadUserNamePassword
                            }
                            _ => v4::ConnectReturnCode::NotAuthorized,
                        },
                    }),
                    Packet::Publish(publish) => v4::Packet::Publish(v4::Publish {
                        dup: publish.dup,
                        qos: qos(publish.qos),
                        retain: publish.retain,
                        topic: publish.topic.into(),
                        pkid: publish.packet_id.map_or(0, |id| id.get()),
                        payload: publish.payload.to_vec().into(),
                    }),
                    Packet::Puback(ack) => v4::Packet::PubAck(v4::PubAck::new(ack.packet_id.get())),
                    Packet::Pubrec(ack) => v4::Packet::PubRec(v4::PubRec::new(ack.packet_id.get())),
                    Packet::Pubrel(ack) => v4::Packet::PubRel(v4::PubRel::new(ack.packet_id.get())),
                    Packet::Pubcomp(ack) => {
                        v4::Packet::PubComp(v4::PubComp::new(ack.packet_id.get()))
                    }
                    Packet::Subscribe(subscribe) => v4::Packet::Subscribe(v4::Subscribe {
                        pkid: subscribe.packet_id.get(),
                        filters: subscribe
                            .filters
                            .iter()
                            .map(|&(filter, options)| v4::SubscribeFilter {
                                path: filter.into(),
                                qos: qos(options.qos),
                            })
                            .collect(),
                    }),
                    Packet::Suback(suback) => v4::Packet::SubAck(v4::SubAck {
                        pkid: suback.packet_id.get(),
                        return_codes: suback
                            .reasons
                            .iter()
                            .map(|&reason| match Qos::from_bits(reason as u8) {
                                Some(granted) => v4::SubscribeReasonCode::Success(qos(granted)),
                                None => v4::SubscribeReasonCode::Failure,
                            })
                            .collect(),
                    }),
                    Packet::Unsubscribe(unsubscribe) => v4::Packet::Unsubscribe(v4::Unsubscribe {
                        pkid: unsubscribe.packet_id.get(),
                        topics: unsubscribe.filters.iter().map(|&it| it.into()).collect(),
                    }),
                    Packet::Unsuback(unsuback) => v4::Packet::UnsubAck(v4::UnsubAck {
                        pkid: unsuback.packet_id.get(),
                    }),
                    Packet::Pingreq => v4::Packet::PingReq,
                    Packet::Pingresp => v4::Packet::PingResp,
                    Packet::Disconnect(_) => v4::Packet::Disconnect,
                    Packet::Auth(_) => unreachable!("3.1.1 has no AUTH"),
                }
            }

            fn write(packet: &v4::Packet, out: &mut BytesMut) {
                match packet {
                    v4::Packet::Connect(it) => it.write(out),
                    v4::Packet::ConnAck(it) => it.write(out),
                    v4::Packet::Publish(it) => it.write(out),
                    v4::Packet::PubAck(it) => it.write(out),
                    v4::Packet::PubRec(it) => it.write(out),
                    v4::Packet::PubRel(it) => it.write(out),
                    v4::Packet::PubComp(it) => it.write(out),
                    v4::Packet::Subscribe(it) => it.write(out),
                    v4::Packet::SubAck(it) => it.write(out),
                    v4::Packet::Unsubscribe(it) => it.write(out),
                    v4::Packet::UnsubAck(it) => it.write(out),
                    v4::Packet::PingReq => v4::PingReq.write(out),
                    v4::Packet::PingResp => v4::PingResp.write(out),
                    v4::Packet::Disconnect => v4::Disconnect.write(out),
                }
                .expect("they write what they can hold");
            }
        }
    };
}

agrees_on_3_1_1!(mqttbytes_4, mqttbytes, mqttbytes::v4, v4::read);
agrees_on_3_1_1!(
    rumqttc_4,
    rumqttc::mqttbytes,
    rumqttc::mqttbytes::v4,
    v4::Packet::read
);

/// Reads with rumqttc what is written here, reads here what it then writes,
/// and looks at the fields that could be taken one for the other.
fn rumqttc_5_agrees(packet: &Packet<'_>) {
    use rumqttc::v5::mqttbytes::v5;

    match packet {
        // It has no AUTH to read, and no DISCONNECT without a reason.
        Packet::Auth(_) => return,
        Packet::Disconnect(disconnect)
            if disconnect.reason == ReasonCode::Success
                || disconnect.properties.is_empty()
                // It does not know 0x8C there (3.14.2.1).
                || disconnect.reason == ReasonCode::BadAuthenticationMethod =>
        {
            return;
        }
        // It counts each Subscription Identifier as a byte more than it is
        // (3.3.2.3.8), and takes what two of them hide for payload.
        Packet::Publish(publish)
            if (publish.properties.iter())
                .filter(|property| matches!(property, Property::SubscriptionIdentifier(_)))
                .nth(1)
                .is_some() =>
        {
            return;
        }
        _ => {}
    }
    let ours = encoded(packet, Version::V5);
    let mut stream = BytesMut::from(&ours[..]);
    let read = v5::Packet::read(&mut stream, None);
    let read = read.unwrap_or_else(|error| panic!("{packet:?}: {error}"));
    match (packet, &read) {
        (Packet::Connect(connect), v5::Packet::Connect(theirs, will, login)) => {
            assert_eq!(theirs.keep_alive, connect.keep_alive_secs);
            assert_eq!(theirs.client_id, connect.client_id);
            assert_eq!(theirs.clean_start, connect.clean_start);
            let name = login.as_ref().map(|login| login.username.as_str());
            assert_eq!(name, connect.user_name);
            let password = login.as_ref().map(|login| login.password.as_bytes());
            assert_eq!(password.filter(|it| !it.is_empty()), connect.password);
            assert_eq!(will.is_some(), connect.will.is_some());
            if let (Some(theirs), Some(will)) = (will, &connect.will) {
                assert_eq!(theirs.topic, will.topic.as_bytes());
                assert_eq!(theirs.message, will.payload);
                assert_eq!(theirs.qos as u8, will.qos as u8);
                assert_eq!(theirs.retain, will.retain);
            }
            let theirs = theirs.properties.clone().unwrap_or_default();
            for property in connect.properties.iter() {
                match property {
                    Property::SessionExpiryInterval(secs) => {
                        assert_eq!(theirs.session_expiry_interval, Some(secs));
                    }
                    Property::ReceiveMaximum(count) => {
                        assert_eq!(theirs.receive_maximum, Some(count.get()));
                    }
                    Property::MaximumPacketSize(bytes) => {
                        assert_eq!(theirs.max_packet_size, Some(bytes.get()));
                    }
                    Property::TopicAliasMaximum(count) => {
                        assert_eq!(theirs.topic_alias_max, Some(count));
                    }
                    Property::RequestResponseInformation(yes) => {
                        assert_eq!(theirs.request_response_info, Some(yes.into()));
                    }
                    Property::RequestProblemInformation(yes) => {
                        assert_eq!(theirs.request_problem_info, Some(yes.into()));
                    }
                    _ => {}
                }
            }
        }
        (Packet::Publish(publish), v5::Packet::Publish(theirs)) => {
            assert_eq!(theirs.topic, publish.topic.as_bytes());
            assert_eq!(theirs.payload, publish.payload);
            assert_eq!(theirs.pkid, publish.packet_id.map_or(0, |id| id.get()));
            assert_eq!(theirs.dup, publish.dup);
            assert_eq!(theirs.retain, publish.retain);
        }
        (Packet::Subscribe(subscribe), v5::Packet::Subscribe(theirs)) => {
            assert_eq!(theirs.filters.len(), subscribe.filters.len());
            for (theirs, (filter, options)) in theirs.filters.iter().zip(&subscribe.filters) {
                assert_eq!(theirs.path, *filter);
                assert_eq!(theirs.qos as u8, options.qos as u8);
                assert_eq!(theirs.nolocal, options.no_local);
                assert_eq!(theirs.preserve_retain, options.retain_as_published);
                let rule = match options.retain_handling {
                    RetainHandling::Send => v5::RetainForwardRule::OnEverySubscribe,
                    RetainHandling::SendIfNew => v5::RetainForwardRule::OnNewSubscribe,
                    RetainHandling::DoNotSend => v5::RetainForwardRule::Never,
                };
                assert_eq!(theirs.retain_forward_rule, rule);
            }
        }
        _ => {}
    }
    let mut written = BytesMut::new();
    read.write(&mut written, None)
        .expect("they write what they read");
    let (again, used) = decode(&written, Version::V5, BYTES_MAX)
        .expect("it is valid")
        .expect("it is whole");
    assert_eq!(used, written.len());
    assert_eq!(parts(&again), parts(packet));
}

/// A packet without its properties; and those, and the will's, by their
/// identifiers, for others write them in another order. Those of one identifier
/// stay in theirs [MQTT-3.3.2-18].
pub fn parts<'a>(packet: &Packet<'a>) -> (Packet<'a>, [Vec<Property<'a>>; 2]) {
    let mut packet = packet.clone();
    let (mut none, mut will) = (Properties::EMPTY, Properties::EMPTY);
    let properties = match &mut packet {
        Packet::Connect(it) => {
            if let Some(it) = &mut it.will {
                will = std::mem::take(&mut it.properties);
            }
            &mut it.properties
        }
        Packet::Connack(it) => &mut it.properties,
        Packet::Publish(it) => &mut it.properties,
        Packet::Puback(it) | Packet::Pubrec(it) | Packet::Pubrel(it) | Packet::Pubcomp(it) => {
            &mut it.properties
        }
        Packet::Subscribe(it) => &mut it.properties,
        Packet::Suback(it) => &mut it.properties,
        Packet::Unsubscribe(it) => &mut it.properties,
        Packet::Unsuback(it) => &mut it.properties,
        Packet::Disconnect(it) => &mut it.properties,
        Packet::Auth(it) => &mut it.properties,
        Packet::Pingreq | Packet::Pingresp => &mut none,
    };
    let sorted = |properties: Properties<'a>| {
        let mut properties: Vec<_> = properties.iter().collect();
        properties.sort_by_key(|property| property.id());
        properties
    };
    let sorted = [sorted(std::mem::take(properties)), sorted(will)];
    (packet, sorted)
}

#[test]
fn where_the_others_are_wrong() {
    // A password is binary data (3.1.3.5), and may be empty.
    let connect = Packet::Connect(Connect {
        version: Version::V3_1_1,
        clean_start: true,
        keep_alive_secs: 0,
        properties: Properties::EMPTY,
        client_id: "c",
        will: None,
        user_name: Some("u"),
        password: Some(b"\xFF"),
    });
    let bytes = encoded(&connect, Version::V3_1_1);
    assert!(mqttbytes::v4::read(&mut BytesMut::from(&bytes[..]), BYTES_MAX).is_err());
    assert!(decode(&bytes, Version::V3_1_1, BYTES_MAX).is_ok());
    // A packet identifier is not 0 [MQTT-2.3.1-1].
    let puback = [0x40, 2, 0, 0];
    assert!(mqttbytes::v4::read(&mut BytesMut::from(&puback[..]), BYTES_MAX).is_ok());
    assert!(decode(&puback, Version::V3_1_1, BYTES_MAX).is_err());
}
