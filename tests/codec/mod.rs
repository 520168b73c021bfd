//! The codec: bytes to packets and back.
//!
//! One table of bytes and packets ([`table`]) feeds all that asks the same of
//! every packet; what the specification lists is listed once more, from its
//! other end ([`lists`]); other codecs are asked for their opinion
//! ([`differential`], [`rmqtt`]).

mod differential;
mod generators;
mod lists;
mod mutation;
mod rmqtt;
mod table;
mod text;

use rotamq::message::Qos;
use rotamq::protocol::*;

use table::{ALL, Expect, Seen, id, rows, wire};

/// Far more than any packet of the table.
const BYTES_MAX: usize = 1 << 20;

/// What a test makes and keeps until it ends.
fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn encoded(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = vec![];
    encode(packet, version, &mut out);
    out
}

/// The table, a version at a time: name, bytes, what is expected.
fn cases() -> impl Iterator<Item = (String, Version, Vec<u8>, Expect)> {
    let each = |row: table::Row| {
        row.versions.iter().map(move |&version| {
            let name = format!("{} ({version:?})", row.name);
            (name, version, wire(row.wire, version), row.expect)
        })
    };
    rows().into_iter().flat_map(each)
}

fn valid_cases() -> impl Iterator<Item = (String, Version, Vec<u8>, Packet<'static>)> {
    cases().filter_map(|(name, version, bytes, expect)| match expect {
        Expect::Is(packet) | Expect::Reads(packet) => Some((name, version, bytes, packet(version))),
        Expect::Refused(..) => None,
    })
}

#[test]
fn decoding_gives_what_the_table_says() {
    for (name, version, bytes, expect) in cases() {
        let read = decode(&bytes, version, BYTES_MAX);
        match expect {
            Expect::Is(packet) | Expect::Reads(packet) => {
                assert_eq!(read, Ok(Some((packet(version), bytes.len()))), "{name}");
            }
            Expect::Refused(_, reason, what) => {
                let error = read.expect_err(&name);
                assert_eq!((error.reason, error.connack), (reason, None), "{name}");
                assert!(error.what.contains(what), "{name}: {error}");
            }
        }
    }
}

#[test]
fn encoding_gives_the_bytes_back() {
    for (name, version, bytes, expect) in cases() {
        match expect {
            Expect::Is(packet) => assert_eq!(encoded(&packet(version), version), bytes, "{name}"),
            Expect::Reads(packet) => {
                let packet = packet(version);
                let other = encoded(&packet, version);
                assert_ne!(other, bytes, "{name}");
                let read = decode(&other, version, BYTES_MAX);
                assert_eq!(read, Ok(Some((packet, other.len()))), "{name}");
            }
            Expect::Refused(..) => {}
        }
    }
}

#[test]
fn encoding_appends() {
    for (name, version, _, packet) in valid_cases() {
        let mut out = b"before".to_vec();
        encode(&packet, version, &mut out);
        assert_eq!(out[6..], encoded(&packet, version), "{name}");
    }
}

/// Cases A01 and A20 of docs/security.md.
#[test]
fn a_part_of_a_packet_is_incomplete_until_it_is_refused() {
    for (name, version, bytes, expect) in cases() {
        let refused_at = match expect {
            Expect::Refused(Seen::Bytes(count), ..) => count,
            _ => bytes.len(),
        };
        let whole = decode(&bytes, version, BYTES_MAX);
        for count in 0..bytes.len() {
            let read = decode(&bytes[..count], version, BYTES_MAX);
            if count < refused_at {
                assert_eq!(read, Ok(None), "{name}: {count} bytes");
            } else {
                assert_eq!(read, whole, "{name}: {count} bytes");
            }
        }
    }
}

#[test]
fn packets_are_read_one_after_the_other() {
    for &version in ALL {
        let packets: Vec<_> = valid_cases().filter(|case| case.1 == version).collect();
        let stream: Vec<u8> = packets.iter().flat_map(|case| case.2.clone()).collect();
        let mut rest = &stream[..];
        for (name, _, bytes, packet) in packets {
            let read = decode(rest, version, BYTES_MAX);
            assert_eq!(read, Ok(Some((packet, bytes.len()))), "{name}");
            rest = &rest[bytes.len()..];
        }
        assert!(rest.is_empty());
    }
}

/// Cases A20 and A34 of docs/security.md.
#[test]
fn the_limit_is_on_the_whole_packet_and_seen_at_its_length() {
    for (name, version, bytes, packet) in valid_cases() {
        let whole = Ok(Some((packet, bytes.len())));
        for limit in [bytes.len(), bytes.len() + 1] {
            assert_eq!(decode(&bytes, version, limit), whole, "{name}");
        }
        let header = 2 + bytes[1..].iter().take_while(|&&byte| byte >= 0x80).count();
        for count in 1..=bytes.len() {
            let read = decode(&bytes[..count], version, bytes.len() - 1);
            if count < header {
                assert_eq!(read, Ok(None), "{name}: {count} bytes");
            } else {
                let reason = read.expect_err(&name).reason;
                assert_eq!(reason, ReasonCode::PacketTooLarge, "{name}: {count} bytes");
            }
        }
    }
}

#[test]
fn a_connection_begins_with_a_connect_that_says_its_version() {
    for (name, version, bytes, expect) in cases() {
        if bytes[0] != 0x10 {
            continue;
        }
        let read = decode_connect(&bytes, BYTES_MAX);
        match expect {
            Expect::Is(packet) | Expect::Reads(packet) => {
                let Packet::Connect(connect) = packet(version) else {
                    panic!("{name} is no CONNECT");
                };
                assert_eq!(connect.version, version, "{name}");
                assert_eq!(read, Ok(Some((connect, bytes.len()))), "{name}");
            }
            Expect::Refused(_, reason, what) => {
                let error = read.expect_err(&name);
                assert_eq!(error.reason, reason, "{name}");
                assert!(error.what.contains(what), "{name}: {error}");
                for count in 0..bytes.len() {
                    let read = decode_connect(&bytes[..count], BYTES_MAX);
                    assert_eq!(read, Ok(None), "{name}: {count} bytes");
                }
            }
        }
    }
}

/// Case A11 of docs/security.md.
#[test]
fn another_first_packet_is_refused_at_its_first_byte() {
    for first in (0..=u8::MAX).filter(|&first| first != 0x10) {
        let error = decode_connect(&[first], BYTES_MAX).expect_err("it is no CONNECT");
        assert_eq!(error.reason, ReasonCode::ProtocolError);
        assert_eq!(error.connack, None);
    }
    assert_eq!(decode_connect(&[], BYTES_MAX), Ok(None));
    assert_eq!(decode_connect(&[0x10], BYTES_MAX), Ok(None));
}

/// Case B04 of docs/security.md.
#[test]
fn a_first_packet_that_is_too_large_is_refused_at_its_length() {
    let error = decode_connect(&[0x10, 0x81, 0x80, 0x04], 1 << 16).expect_err("it is too large");
    assert_eq!(error.reason, ReasonCode::PacketTooLarge);
    assert_eq!(error.connack, None);
    assert_eq!(decode_connect(&[0x10, 0xFC, 0xFF, 0x03], 1 << 16), Ok(None));
    decode_connect(&[0x10, 0x80, 0x80, 0x80, 0x80], 1 << 16).expect_err("it has a fifth byte");
}

/// Case B22 of docs/security.md.
#[test]
fn a_refused_client_is_told_in_a_form_that_it_can_read() {
    let unsupported = ReasonCode::UnsupportedProtocolVersion;
    let malformed = ReasonCode::MalformedPacket;
    let rest = "02 003C 00 0002 'c1'";
    for (name_and_level, rest, reason, connack) in [
        ("0004 'MQTT' 00", rest, unsupported, Some(Version::V3_1_1)),
        ("0004 'MQTT' 03", rest, unsupported, Some(Version::V3_1_1)),
        ("0004 'MQTT' 06", rest, unsupported, Some(Version::V3_1_1)),
        ("0004 'MQTT' 7F", rest, unsupported, Some(Version::V3_1_1)),
        ("0004 'MQTT' 84", rest, unsupported, Some(Version::V3_1_1)),
        ("0004 'MQTT' 85", rest, unsupported, Some(Version::V3_1_1)),
        ("0006 'MQIsdp' 04", rest, unsupported, Some(Version::V3_1_1)),
        ("0006 'MQIsdp' 05", rest, unsupported, Some(Version::V3_1_1)),
        // Only the level counts: what follows may have another form.
        ("0004 'MQTT' 06", "", unsupported, Some(Version::V3_1_1)),
        ("0004 'HTTP' 04", rest, unsupported, None),
        ("0003 'MQT' 04", rest, unsupported, None),
        ("0000 04", rest, unsupported, None),
        ("0006 'MQIsdp' 03", "0A 003C 0002 'c1'", malformed, None),
        ("0004 'MQTT' 04", "0A 003C 0002 'c1'", malformed, None),
        (
            "0004 'MQTT' 05",
            "0A 003C 00 0002 'c1'",
            malformed,
            Some(Version::V5),
        ),
        ("0004 'MQTT'", "", malformed, None),
    ] {
        let text = format!("10 # {name_and_level} {rest}");
        let error = decode_connect(&wire(&text, Version::V5), BYTES_MAX).expect_err(&text);
        assert_eq!((error.reason, error.connack), (reason, connack), "{text}");
    }
    // The remaining length of an MQTT 5 CONNECT is judged once its level is known.
    let connect = wire("# N 02 003C P 0002 'c1'", Version::V5);
    let padded = [&[0x10, connect[0] | 0x80, 0x00], &connect[1..]].concat();
    let error = decode_connect(&padded, BYTES_MAX).expect_err("it is longer than needed");
    assert_eq!(
        (error.reason, error.connack),
        (malformed, Some(Version::V5))
    );
}

#[test]
fn a_connack_before_mqtt_5_has_the_nearest_return_code() {
    for (reason, code) in [
        (ReasonCode::Success, 0),
        (ReasonCode::UnsupportedProtocolVersion, 1),
        (ReasonCode::ClientIdentifierNotValid, 2),
        (ReasonCode::ServerUnavailable, 3),
        (ReasonCode::ServerBusy, 3),
        (ReasonCode::QuotaExceeded, 3),
        (ReasonCode::ConnectionRateExceeded, 3),
        (ReasonCode::UnspecifiedError, 3),
        (ReasonCode::BadUserNameOrPassword, 4),
        (ReasonCode::BadAuthenticationMethod, 4),
        (ReasonCode::NotAuthorized, 5),
        (ReasonCode::Banned, 5),
    ] {
        let connack = Packet::Connack(Connack {
            session_present: true,
            reason,
            properties: Properties::EMPTY,
        });
        let present = u8::from(reason == ReasonCode::Success);
        assert_eq!(encoded(&connack, Version::V3_1_1), [0x20, 2, present, code]);
        assert_eq!(encoded(&connack, Version::V3_1), [0x20, 2, 0, code]);
        let new = [0x20, 3, present, reason as u8, 0];
        assert_eq!(encoded(&connack, Version::V5), new);
    }
}

#[test]
fn what_mqtt_5_says_more_is_left_out_before_it() {
    let mut more = PropertiesBuf::new();
    more.push(Property::ReasonString("no room"));
    let ack = Ack {
        packet_id: id(7),
        reason: ReasonCode::QuotaExceeded,
        properties: more.as_properties(),
    };
    for version in [Version::V3_1, Version::V3_1_1] {
        let puback = encoded(&Packet::Puback(ack.clone()), version);
        assert_eq!(puback, [0x40, 2, 0, 7]);
        let suback = Packet::Suback(Suback {
            packet_id: id(7),
            properties: more.as_properties(),
            reasons: vec![ReasonCode::GrantedQos1, ReasonCode::QuotaExceeded],
        });
        assert_eq!(encoded(&suback, version), [0x90, 4, 0, 7, 1, 0x80]);
        let unsuback = Packet::Unsuback(Unsuback {
            packet_id: id(7),
            properties: more.as_properties(),
            reasons: vec![ReasonCode::NoSubscriptionExisted],
        });
        assert_eq!(encoded(&unsuback, version), [0xB0, 2, 0, 7]);
        let subscribe = Packet::Subscribe(Subscribe {
            packet_id: id(7),
            properties: Properties::EMPTY,
            filters: vec![(
                "a",
                SubscribeOptions {
                    qos: Qos::ExactlyOnce,
                    no_local: true,
                    retain_as_published: true,
                    retain_handling: RetainHandling::DoNotSend,
                },
            )],
        });
        let bytes = encoded(&subscribe, version);
        assert_eq!(bytes, [0x82, 6, 0, 7, 0, 1, b'a', 2]);
        let disconnect = Packet::Disconnect(Disconnect {
            reason: ReasonCode::SessionTakenOver,
            properties: more.as_properties(),
        });
        assert_eq!(encoded(&disconnect, version), [0xE0, 0]);
        let auth = Packet::Auth(Auth {
            reason: ReasonCode::ReAuthenticate,
            properties: Properties::EMPTY,
        });
        assert_eq!(encoded(&auth, version), Vec::<u8>::new());
    }
}

#[test]
fn short_acknowledgements_are_those_of_the_table() {
    for (kind, packet) in [
        (AckKind::Puback, Packet::Puback as fn(_) -> _),
        (AckKind::Pubrec, Packet::Pubrec),
        (AckKind::Pubrel, Packet::Pubrel),
        (AckKind::Pubcomp, Packet::Pubcomp),
    ] {
        for reason in [ReasonCode::Success, ReasonCode::PacketIdentifierNotFound] {
            for &version in ALL {
                let mut out = vec![];
                encode_ack(kind, id(0x0102), reason, version, &mut out);
                let ack = Ack {
                    reason,
                    ..Ack::new(id(0x0102))
                };
                assert_eq!(out, encoded(&packet(ack), version));
            }
        }
    }
}

#[test]
fn one_head_serves_many_receivers() {
    let (mut content_type, mut user) = (PropertiesBuf::new(), PropertiesBuf::new());
    content_type.push(Property::ContentType("text/plain"));
    user.push(Property::UserProperty(("a", "b")));
    let mut properties = content_type.clone();
    properties.push(Property::MessageExpiryInterval(7));
    properties.push(Property::UserProperty(("a", "b")));
    for &version in ALL {
        for payload in [&b""[..], b"hi", &[7; 200], &[7; 70_000]] {
            let head = PublishHead {
                dup: false,
                qos: Qos::AtLeastOnce,
                retain: true,
                topic_prefix: "$queue/",
                topic: b"jobs",
                packet_id: None,
                properties: [
                    content_type.as_properties().as_bytes(),
                    &encode_message_expiry(7),
                    user.as_properties().as_bytes(),
                ],
                payload_len: payload.len(),
            };
            let mut out = b"before".to_vec();
            let at = encode_publish_head(&head, version, &mut out).expect("QoS 1 has one");
            out.extend_from_slice(payload);
            assert_eq!(head.packet_bytes(version), out.len() - 6);
            for packet_id in [1, 0x1234, 0xFFFF] {
                out[at..at + 2].copy_from_slice(&u16::to_be_bytes(packet_id));
                let publish = Publish {
                    dup: false,
                    qos: Qos::AtLeastOnce,
                    retain: true,
                    topic: "$queue/jobs",
                    packet_id: Some(id(packet_id)),
                    properties: match version {
                        Version::V5 => properties.as_properties(),
                        _ => Properties::EMPTY,
                    },
                    payload,
                };
                let read = decode(&out[6..], version, BYTES_MAX);
                assert_eq!(read, Ok(Some((Packet::Publish(publish), out.len() - 6))));
            }
        }
    }
}

#[test]
fn a_head_at_qos_0_has_no_packet_identifier() {
    for &version in ALL {
        let head = PublishHead {
            dup: true,
            qos: Qos::AtMostOnce,
            retain: false,
            topic_prefix: "",
            topic: b"a",
            packet_id: Some(id(5)),
            properties: [],
            payload_len: 0,
        };
        let mut out = vec![];
        assert_eq!(encode_publish_head(&head, version, &mut out), None);
        assert_eq!(out, wire("30 # 0001 'a' P", version));
    }
}

/// Case A02 of docs/security.md.
#[test]
fn lengths_take_as_many_bytes_as_they_need() {
    for (payload_len, length) in [
        (0x7F - 3, &[0x7F][..]),
        (0x80 - 3, &[0x80, 0x01]),
        (0x3FFF - 3, &[0xFF, 0x7F]),
        (0x4000 - 3, &[0x80, 0x80, 0x01]),
        (0x1F_FFFF - 3, &[0xFF, 0xFF, 0x7F]),
        (0x20_0000 - 3, &[0x80, 0x80, 0x80, 0x01]),
        (REMAINING_BYTES_MAX - 3, &[0xFF, 0xFF, 0xFF, 0x7F]),
    ] {
        let head = PublishHead {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            topic_prefix: "",
            topic: b"a",
            packet_id: None,
            properties: [],
            payload_len,
        };
        let mut out = vec![];
        encode_publish_head(&head, Version::V3_1_1, &mut out);
        assert_eq!(out, [&[0x30], length, &[0, 1, b'a']].concat());
        // The limit is exact: one byte less, and no byte more is waited for.
        let total = out.len() + payload_len;
        assert_eq!(decode(&out, Version::V3_1_1, total), Ok(None));
        decode(&out, Version::V3_1_1, total - 1).expect_err("it is above the limit");
    }
}

/// Case A19 of docs/security.md.
#[test]
fn a_packet_of_nothing_but_user_properties_is_read() {
    let mut properties = PropertiesBuf::new();
    for _ in 0..100_000 {
        properties.push(Property::UserProperty(("", "")));
    }
    let publish = Packet::Publish(Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic: "a",
        packet_id: None,
        properties: properties.as_properties(),
        payload: b"",
    });
    let bytes = encoded(&publish, Version::V5);
    let (read, _) = decode(&bytes, Version::V5, BYTES_MAX).unwrap().unwrap();
    assert_eq!(read, publish);
    let Packet::Publish(read) = read else {
        unreachable!("it equals a PUBLISH")
    };
    assert_eq!(read.properties.iter().count(), 100_000);
}

#[test]
fn an_error_says_what_and_why() {
    let error = decode(&[0xC0, 0x01, 0x00], Version::V5, BYTES_MAX).unwrap_err();
    assert_eq!(
        error.to_string(),
        "bytes are left over after the packet's last field (reason 0x81)"
    );
}
