//! Base64 (RFC 4648, 4): any bytes as text.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let six = (bits >> (18 - 6 * i) & 63) as usize;
            text.push(match i <= three.len() {
                true => char::from(ALPHABET[six]),
                false => '=',
            });
        }
    }
    text
}

/// `None`: [`encode`] makes no such text.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let (fours, []) = text.as_bytes().as_chunks::<4>() else {
        return None;
    };
    let mut bytes = Vec::with_capacity(fours.len() * 3);
    for (n, four) in fours.iter().enumerate() {
        let padding = four.iter().rev().take_while(|byte| **byte == b'=').count();
        if padding > 2 || padding > 0 && n + 1 < fours.len() {
            return None;
        }
        let mut bits = 0;
        for byte in &four[..4 - padding] {
            bits = bits << 6 | value(*byte)?;
        }
        bits <<= 6 * padding;
        let three = &bits.to_be_bytes()[1..];
        let (three, rest) = three.split_at(3 - padding);
        // Bits that say nothing are zero, or two texts would mean the same.
        if rest.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(three);
    }
    Some(bytes)
}

/// The same without the padding, as PHC strings have it.
pub fn decode_unpadded(text: &str) -> Option<Vec<u8>> {
    let padding = match text.len() % 4 {
        0 => "",
        2 => "==",
        3 => "=",
        _ => return None,
    };
    match text.ends_with('=') {
        true => None,
        false => decode(&format!("{text}{padding}")),
    }
}

fn value(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
            let unpadded = text.trim_end_matches('=');
            assert_eq!(decode_unpadded(unpadded).as_deref(), Some(bytes.as_bytes()));
            assert!(unpadded == text || decode_unpadded(text).is_none());
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)), Some(all));
    }

    #[test]
    fn other_texts_are_none() {
        for text in [
            "Z", "Zg=", "Zg", "Zh==", "Zm9=", "=g==", "Zg==Zg==", "Zm-v", "Zm v", "====",
        ] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
