//! The specification's lists, from the other end: the codec has a table by
//! property and one by reason code (2.2.2.2, 2.4); here are those of each
//! packet (3.1 to 3.15), and of each first byte (2.1.2, 2.1.3).

use rotamq::protocol::*;

use super::BYTES_MAX;
use super::table::ALL;

/// Case A54 of docs/security.md.
#[test]
fn first_bytes() {
    for &version in ALL {
        for first in 0..=u8::MAX {
            let valid = match first {
                0x10 | 0x20 | 0x40 | 0x50 | 0x62 | 0x70 | 0x82 | 0x90 => true,
                0xA2 | 0xB0 | 0xC0 | 0xD0 | 0xE0 => true,
                0xF0 => version == Version::V5,
                0x30..=0x35 | 0x3A..=0x3D => true,
                0x38 | 0x39 | 0x6A | 0x8A | 0xAA => version == Version::V3_1,
                _ => false,
            };
            let bytes = [first];
            let read = decode(&bytes, version, BYTES_MAX);
            assert_eq!(read.is_ok(), valid, "0x{first:02X} in {version:?}");
            if let Err(error) = read {
                assert_eq!(error.reason, ReasonCode::MalformedPacket);
            }
        }
    }
}

/// A packet that has a reason code.
struct Reasons {
    packet: PacketType,
    first: u8,
    before: &'static [u8],
    after: &'static [u8],
    /// The codes of the packet's section.
    codes: &'static [u8],
}

#[rustfmt::skip]
const REASONS: &[Reasons] = &[
    // 3.2.2.2
    Reasons { packet: PacketType::Connack, first: 0x20, before: &[0], after: &[0], codes: &[0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F] },
    // 3.4.2.1
    Reasons { packet: PacketType::Puback, first: 0x40, before: &[0, 1], after: &[], codes: &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99] },
    // 3.5.2.1
    Reasons { packet: PacketType::Pubrec, first: 0x50, before: &[0, 1], after: &[], codes: &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99] },
    // 3.6.2.1
    Reasons { packet: PacketType::Pubrel, first: 0x62, before: &[0, 1], after: &[], codes: &[0x00, 0x92] },
    // 3.7.2.1
    Reasons { packet: PacketType::Pubcomp, first: 0x70, before: &[0, 1], after: &[], codes: &[0x00, 0x92] },
    // 3.9.3
    Reasons { packet: PacketType::Suback, first: 0x90, before: &[0, 1, 0], after: &[], codes: &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2] },
    // 3.11.3
    Reasons { packet: PacketType::Unsuback, first: 0xB0, before: &[0, 1, 0], after: &[], codes: &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91] },
    // 3.14.2.1
    Reasons { packet: PacketType::Disconnect, first: 0xE0, before: &[], after: &[], codes: &[0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2] },
    // 3.15.2.1, with an authentication method of no characters
    Reasons { packet: PacketType::Auth, first: 0xF0, before: &[], after: &[3, 0x15, 0, 0], codes: &[0x00, 0x18, 0x19] },
];

/// The codes that a packet of MQTT 5 may have.
pub fn reasons(packet: PacketType) -> &'static [u8] {
    let row = REASONS.iter().find(|row| row.packet == packet);
    row.expect("the packet has a reason code").codes
}

/// Case A56 of docs/security.md.
#[test]
fn reason_codes() {
    for &Reasons {
        packet: _,
        first,
        before,
        after,
        codes,
    } in REASONS
    {
        for code in 0..=u8::MAX {
            let body = [before, &[code], after].concat();
            let bytes = [&[first, body.len() as u8], &body[..]].concat();
            let read = decode(&bytes, Version::V5, BYTES_MAX);
            let name = format!("0x{code:02X} after 0x{first:02X}");
            match read {
                Ok(read) => {
                    assert!(codes.contains(&code), "{name}");
                    let (packet, used) = read.expect("the packet is whole");
                    assert_eq!(used, bytes.len(), "{name}");
                    let mut again = vec![];
                    encode(&packet, Version::V5, &mut again);
                    let again = decode(&again, Version::V5, BYTES_MAX);
                    assert_eq!(again.unwrap().unwrap().0, packet, "{name}");
                }
                Err(error) => {
                    assert!(!codes.contains(&code), "{name}: {error}");
                    assert_eq!(error.reason, ReasonCode::ProtocolError, "{name}");
                }
            }
        }
    }
}

/// The packets that have properties, and those of their section.
const PROPERTIES: &[(PacketType, &[u8])] = &[
    (
        PacketType::Connect,
        &[0x11, 0x21, 0x27, 0x22, 0x19, 0x17, 0x26, 0x15, 0x16],
    ),
    (
        PacketType::Will,
        &[0x18, 0x01, 0x02, 0x03, 0x08, 0x09, 0x26],
    ),
    (
        PacketType::Connack,
        &[
            0x11, 0x21, 0x24, 0x25, 0x27, 0x12, 0x22, 0x1F, 0x26, 0x28, 0x29, 0x2A, 0x13, 0x1A,
            0x1C, 0x15, 0x16,
        ],
    ),
    (
        PacketType::Publish,
        &[0x01, 0x02, 0x23, 0x08, 0x09, 0x26, 0x0B, 0x03],
    ),
    (PacketType::Puback, &[0x1F, 0x26]),
    (PacketType::Pubrec, &[0x1F, 0x26]),
    (PacketType::Pubrel, &[0x1F, 0x26]),
    (PacketType::Pubcomp, &[0x1F, 0x26]),
    (PacketType::Subscribe, &[0x0B, 0x26]),
    (PacketType::Suback, &[0x1F, 0x26]),
    (PacketType::Unsubscribe, &[0x26]),
    (PacketType::Unsuback, &[0x1F, 0x26]),
    (PacketType::Pingreq, &[]),
    (PacketType::Pingresp, &[]),
    (PacketType::Disconnect, &[0x11, 0x1F, 0x26, 0x1C]),
    (PacketType::Auth, &[0x15, 0x16, 0x1F, 0x26]),
];

/// A value that the property may have, in all forms that 2.2.2 knows.
fn value(id: u8) -> Option<&'static [u8]> {
    Some(match id {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A | 0x0B => &[1],
        0x13 | 0x21 | 0x22 | 0x23 => &[0, 1],
        0x02 | 0x11 | 0x18 | 0x27 => &[0, 0, 0, 1],
        0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => &[0, 1, b'x'],
        0x26 => &[0, 1, b'k', 0, 1, b'v'],
        _ => return None,
    })
}

/// Cases A16 and A50 of docs/security.md.
#[test]
fn properties() {
    for &(packet, ids) in PROPERTIES {
        for id in 0..=u8::MAX {
            let name = format!("property 0x{id:02X} in {packet:?}");
            let Some(value) = value(id) else {
                let error = Properties::parse(&[id, 0, 0, 0, 0], packet).expect_err(&name);
                assert_eq!(error.reason, ReasonCode::MalformedPacket, "{name}");
                continue;
            };
            // Authentication data needs the method before it.
            let method: &[u8] = if id == 0x16 { &[0x15, 0, 0] } else { &[] };
            let once = [method, &[id], value].concat();
            if !ids.contains(&id) {
                let error = Properties::parse(&once, packet).expect_err(&name);
                assert_eq!(error.reason, ReasonCode::MalformedPacket, "{name}");
                continue;
            }
            let properties = Properties::parse(&once, packet).expect(&name);
            let read: Vec<Property<'_>> = properties.iter().collect();
            assert_eq!(
                read.last().map(|property| property.id()),
                Some(id),
                "{name}"
            );
            let mut again = PropertiesBuf::new();
            for property in read {
                again.push(property);
            }
            assert_eq!(again.as_properties(), properties, "{name}");
            for len in method.len() + 1..once.len() {
                let error = Properties::parse(&once[..len], packet).expect_err(&name);
                assert_eq!(
                    error.reason,
                    ReasonCode::MalformedPacket,
                    "{name} cut at {len}"
                );
            }
            let twice = Properties::parse(&[&once[..], &once[method.len()..]].concat(), packet)
                .map(|properties| properties.iter().count())
                .map_err(|error| error.reason);
            let may_repeat = id == 0x26 || id == 0x0B && packet == PacketType::Publish;
            let expected = if may_repeat {
                Ok(2)
            } else {
                Err(ReasonCode::ProtocolError)
            };
            assert_eq!(twice, expected, "{name} twice");
        }
    }
}

#[test]
fn bounds_of_properties() {
    let forbidden: &[(PacketType, &[u8])] = &[
        (PacketType::Publish, &[0x01, 2]),
        (PacketType::Publish, &[0x23, 0, 0]),
        (PacketType::Publish, &[0x0B, 0]),
        (PacketType::Publish, &[0x08, 0, 1, b'+']),
        (PacketType::Publish, &[0x08, 0, 3, b'a', b'/', b'#']),
        (PacketType::Publish, &[0x08, 0, 0]),
        (PacketType::Will, &[0x01, 2]),
        (PacketType::Will, &[0x08, 0, 1, b'#']),
        (PacketType::Will, &[0x08, 0, 0]),
        (PacketType::Subscribe, &[0x0B, 0]),
        (PacketType::Connect, &[0x17, 2]),
        (PacketType::Connect, &[0x19, 0xFF]),
        (PacketType::Connect, &[0x21, 0, 0]),
        (PacketType::Connect, &[0x27, 0, 0, 0, 0]),
        (PacketType::Connect, &[0x16, 0, 0]),
        (PacketType::Connack, &[0x24, 2]),
        (PacketType::Connack, &[0x25, 2]),
        (PacketType::Connack, &[0x28, 2]),
        (PacketType::Connack, &[0x29, 2]),
        (PacketType::Connack, &[0x2A, 2]),
        (PacketType::Connack, &[0x21, 0, 0]),
        (PacketType::Connack, &[0x27, 0, 0, 0, 0]),
        (PacketType::Auth, &[0x16, 0, 0]),
    ];
    for &(packet, bytes) in forbidden {
        let error = Properties::parse(bytes, packet).expect_err("it is out of bounds");
        assert_eq!(
            error.reason,
            ReasonCode::ProtocolError,
            "{packet:?} {bytes:02X?}"
        );
    }
    // The bounds themselves are within.
    let allowed: &[(PacketType, &[u8])] = &[
        (PacketType::Will, &[0x18, 0, 0, 0, 0, 0x02, 0, 0, 0, 0]),
        (
            PacketType::Will,
            &[0x18, 255, 255, 255, 255, 0x02, 255, 255, 255, 255],
        ),
        (
            PacketType::Publish,
            &[0x02, 0, 0, 0, 0, 0x23, 0, 1, 0x0B, 1],
        ),
        (
            PacketType::Publish,
            &[0x23, 255, 255, 0x0B, 255, 255, 255, 127],
        ),
        (
            PacketType::Connect,
            &[0x11, 0, 0, 0, 0, 0x22, 0, 0, 0x21, 0, 1],
        ),
        (
            PacketType::Connect,
            &[0x11, 255, 255, 255, 255, 0x22, 255, 255, 0x21, 255, 255],
        ),
        (PacketType::Connect, &[0x27, 0, 0, 0, 1]),
        (PacketType::Connect, &[0x27, 255, 255, 255, 255]),
        (PacketType::Connack, &[0x13, 0, 0, 0x24, 0]),
        (PacketType::Connack, &[0x13, 255, 255, 0x24, 1]),
        (PacketType::Disconnect, &[0x11, 255, 255, 255, 255]),
    ];
    for &(packet, bytes) in allowed {
        let read = Properties::parse(bytes, packet).expect("it is within bounds");
        let mut again = PropertiesBuf::new();
        for property in read.iter() {
            again.push(property);
        }
        assert_eq!(again.as_properties().as_bytes(), bytes);
    }
    assert_eq!(SubscriptionId::new(0), None);
    assert_eq!(SubscriptionId::new(SubscriptionId::MAX + 1), None);
    assert_eq!(SubscriptionId::new(7).map(SubscriptionId::get), Some(7));
}

#[test]
fn failures_begin_at_0x80() {
    assert!(!ReasonCode::ReAuthenticate.is_failure());
    assert!(ReasonCode::UnspecifiedError.is_failure());
}
