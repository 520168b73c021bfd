//! Numbers and texts in few bytes, for memory only: what is packed is unpacked by
//! the same program.

/// As in MQTT's own lengths (1.5.5), seven bits a byte, the low ones first.
pub(super) fn pack(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// One that is near to the one before, above or below.
pub(super) fn pack_near(number: u64, before: &mut u64, out: &mut Vec<u8>) {
    let step = number.wrapping_sub(*before) as i64;
    pack(((step << 1) ^ (step >> 63)) as u64, out);
    *before = number;
}

pub(super) fn pack_text(text: &str, out: &mut Vec<u8>) {
    pack(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

/// Takes the numbers out in their order.
pub(super) struct Packed<'a>(pub &'a [u8]);

impl Packed<'_> {
    /// 0 behind the end.
    pub fn number(&mut self) -> u64 {
        let (mut number, mut shift) = (0, 0);
        while let Some((&byte, rest)) = self.0.split_first() {
            self.0 = rest;
            number |= u64::from(byte & 0x7F) << shift;
            shift += 7;
            if byte < 0x80 {
                break;
            }
        }
        number
    }

    pub fn near(&mut self, before: &mut u64) -> u64 {
        let step = self.number();
        let step = (step >> 1) as i64 ^ -((step & 1) as i64);
        *before = before.wrapping_add(step as u64);
        *before
    }

    pub fn text(&mut self) -> String {
        let len = self.number() as usize;
        let (text, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        String::from_utf8_lossy(text).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let numbers = [0, 1, 127, 128, 300, 1 << 40, u64::MAX - 1, u64::MAX, 5];
        let (mut bytes, mut before) = (Vec::new(), 0);
        for number in numbers {
            pack(number, &mut bytes);
            pack_near(number, &mut before, &mut bytes);
            pack_text(&number.to_string(), &mut bytes);
        }
        let (mut packed, mut before) = (Packed(&bytes), 0);
        for number in numbers {
            assert_eq!(packed.number(), number);
            assert_eq!(packed.near(&mut before), number);
            assert_eq!(packed.text(), number.to_string());
        }
        assert!(packed.0.is_empty());
        let mut near = Vec::new();
        pack_near(1_000_003, &mut 1_000_000, &mut near);
        assert_eq!(near.len(), 1);
    }
}
