//! Strings: which are refused, wherever in them the reason is.

use rotamq::protocol::{Packet, ReasonCode, Version, decode};

use super::table::ALL;

/// Whether a PUBLISH to a topic of these bytes is read, which every version
/// answers alike.
fn is_text(bytes: &[u8]) -> bool {
    let [first, rest @ ..] = ALL else {
        unreachable!("there are versions")
    };
    let read = is_text_in(bytes, *first);
    for &version in rest {
        assert_eq!(is_text_in(bytes, version), read, "{bytes:02X?} {version:?}");
    }
    read
}

fn is_text_in(bytes: &[u8], version: Version) -> bool {
    let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    let body = [&[0, bytes.len() as u8], bytes, properties].concat();
    let packet = [&[0x30, body.len() as u8], &body[..]].concat();
    match decode(&packet, version, 1000) {
        Ok(Some((Packet::Publish(publish), _))) => {
            assert_eq!(publish.topic.as_bytes(), bytes, "it is as it was sent");
            true
        }
        Ok(other) => panic!("{bytes:?} is read as {other:?}"),
        Err(error) => {
            assert_eq!(error.reason, ReasonCode::MalformedPacket);
            false
        }
    }
}

/// The same, a character at a time.
fn is_text_naively(bytes: &[u8]) -> bool {
    String::from_utf8(bytes.to_vec()).is_ok_and(|text| {
        !text
            .chars()
            .any(|c| c < ' ' || ('\u{7F}'..='\u{9F}').contains(&c))
    })
}

/// Case A22 of docs/security.md.
#[test]
fn every_byte_at_every_place_of_strings_of_every_small_length() {
    for filler in ["a", "\u{E9}", "\u{20AC}", "\u{1F600}"] {
        let filler: Vec<u8> = filler.bytes().cycle().take(28).collect();
        for len in 0..filler.len() {
            for at in 0..len {
                for byte in 0..=u8::MAX {
                    let mut bytes = filler[..len].to_vec();
                    bytes[at] = byte;
                    assert_eq!(is_text(&bytes), is_text_naively(&bytes), "{bytes:02X?}");
                }
            }
        }
    }
}

/// Case A22 of docs/security.md.
#[test]
fn every_character_at_every_place() {
    let characters = ('\0'..='\u{800}').chain(['\u{FEFF}', '\u{FFFF}', '\u{10FFFF}']);
    for character in characters {
        for before in 0..18 {
            let text = format!("{}{character}bcd", "a".repeat(before));
            assert_eq!(
                is_text(text.as_bytes()),
                is_text_naively(text.as_bytes()),
                "{text:?}"
            );
        }
    }
}
