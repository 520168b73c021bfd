//! How tests write down packets.

use rotamq::protocol::Version;

pub const ALL: &[Version] = &[Version::V3_1, Version::V3_1_1, Version::V5];
pub const BEFORE_5: &[Version] = &[Version::V3_1, Version::V3_1_1];
pub const SINCE_3_1_1: &[Version] = &[Version::V3_1_1, Version::V5];
pub const ONLY_3_1: &[Version] = &[Version::V3_1];
pub const ONLY_3_1_1: &[Version] = &[Version::V3_1_1];
pub const ONLY_5: &[Version] = &[Version::V5];

/// The bytes of hexadecimal pairs and 'text', which may be repeated: 'x'*1000.
/// s'text' has its length before it, as strings do. `#` is the remaining length of
/// what follows; `P` stands for empty properties, which only MQTT 5 has; `N` is
/// the protocol's name and level.
pub fn wire(text: &str, version: Version) -> Vec<u8> {
    let mut bytes = vec![];
    let mut body_at = None;
    for token in text.split_whitespace() {
        match (token, version) {
            ("#", _) => body_at = Some(bytes.len()),
            ("P", Version::V5) => bytes.push(0),
            ("P", _) => {}
            ("N", Version::V3_1) => bytes.extend_from_slice(b"\0\x06MQIsdp\x03"),
            ("N", Version::V3_1_1) => bytes.extend_from_slice(b"\0\x04MQTT\x04"),
            ("N", Version::V5) => bytes.extend_from_slice(b"\0\x04MQTT\x05"),
            (token, _) if token.starts_with("s'") => {
                let text = token[2..].strip_suffix('\'').expect("a row's text ends");
                let len = u16::try_from(text.len()).expect("a row's strings are short");
                bytes.extend_from_slice(&len.to_be_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
            (token, _) => match token.strip_prefix('\'') {
                Some(quoted) => {
                    let (text, rest) = quoted.rsplit_once('\'').expect("a row's text ends");
                    let times = rest.strip_prefix('*').map_or(1, |times| {
                        times.parse().expect("a row has a number behind *")
                    });
                    bytes.extend_from_slice(text.repeat(times).as_bytes());
                }
                None => bytes.extend(token.as_bytes().chunks(2).map(|pair| {
                    let pair = std::str::from_utf8(pair).expect("a row is ASCII");
                    u8::from_str_radix(pair, 16).expect("a row has hexadecimal pairs")
                })),
            },
        }
    }
    if let Some(body_at) = body_at {
        let mut remaining = bytes.len() - body_at;
        let mut length = vec![];
        while remaining >= 0x80 {
            length.push(remaining as u8 | 0x80);
            remaining >>= 7;
        }
        length.push(remaining as u8);
        bytes.splice(body_at..body_at, length);
    }
    bytes
}
