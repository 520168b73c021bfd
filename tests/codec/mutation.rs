//! Every packet of the table, bent in every byte: nothing panics, and what is
//! still read is written and read again as the same.

use rotamq::protocol::*;

use super::table::{ALL, wire};
use super::{BYTES_MAX, cases};

/// Reads `bytes` as a packet and as a first packet.
fn check(bytes: &[u8], version: Version) {
    let read = decode(bytes, version, BYTES_MAX);
    if let Ok(Some((packet, used))) = &read {
        assert!(*used <= bytes.len());
        let mut again = vec![];
        encode(packet, version, &mut again);
        let again_read = decode(&again, version, BYTES_MAX);
        assert_eq!(
            again_read,
            Ok(Some((packet.clone(), again.len()))),
            "{bytes:02X?}"
        );
    }
    if let Err(error) = read {
        assert_reason(error.reason, bytes);
    }
    if let Err(error) = decode_connect(bytes, BYTES_MAX) {
        assert_reason(error.reason, bytes);
    }
}

fn assert_reason(reason: ReasonCode, bytes: &[u8]) {
    assert!(
        matches!(
            reason,
            ReasonCode::MalformedPacket
                | ReasonCode::ProtocolError
                | ReasonCode::PacketTooLarge
                | ReasonCode::UnsupportedProtocolVersion
        ),
        "{reason:?} for {bytes:02X?}"
    );
}

/// Case A32 of docs/security.md.
#[test]
fn one_byte() {
    for (_, version, bytes, _) in cases() {
        for at in 0..bytes.len() {
            for byte in 0..=u8::MAX {
                let mut bent = bytes.clone();
                bent[at] = byte;
                check(&bent, version);
            }
            let mut without = bytes.clone();
            without.remove(at);
            check(&without, version);
            let mut more = bytes.clone();
            more.insert(at, 0);
            check(&more, version);
        }
    }
}

/// Case A32 of docs/security.md.
#[test]
fn two_bytes() {
    for text in [
        "32 # 0001 'a' 0001 P 'p'",
        "82 # 0001 P 0001 'a' 01",
        "40 02 00 01",
    ] {
        for &version in ALL {
            let bytes = wire(text, version);
            for first in 0..bytes.len() {
                for second in first + 1..bytes.len() {
                    for pair in 0..=u16::MAX {
                        let mut bent = bytes.clone();
                        [bent[first], bent[second]] = pair.to_be_bytes();
                        check(&bent, version);
                    }
                }
            }
        }
    }
}

/// Two bytes anywhere of every packet, a few thousand of all ways; those that
/// lengths and flags take most often among them.
/// Case A32 of docs/security.md.
#[test]
fn two_bytes_of_all() {
    const VALUES: [u8; 8] = [0x00, 0x01, 0x02, 0x0B, 0x26, 0x7F, 0x80, 0xFF];
    for (_, version, bytes, _) in cases() {
        // Of a long packet only its beginning, where its fields are.
        let len = bytes.len().min(60);
        for first in 0..len {
            for second in first + 1..len {
                for (at, value) in VALUES.iter().enumerate() {
                    let mut bent = bytes.clone();
                    bent[first] = *value;
                    bent[second] = VALUES[(at * 5 + first + second) % VALUES.len()];
                    check(&bent, version);
                }
            }
        }
    }
}

/// Case A32 of docs/security.md.
#[test]
fn packets_of_another_version() {
    for (_, _, bytes, _) in cases() {
        for &version in ALL {
            check(&bytes, version);
        }
    }
}
