//! Reading a packet's body, within its bounds.
//!
//! A [`Cursor`] holds the rest of one whole packet, or of its properties.
//! What is missing is an error here: whether a packet is whole yet is asked
//! before, from the fixed header. What is left over is an error too.

use crate::message::PacketId;

use super::decode::DecodeError;

/// The rest of a packet's body.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub fn new(rest: &'a [u8]) -> Cursor<'a> {
        Cursor { rest }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that is left, as a PUBLISH's payload is.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// The body ends here.
    pub fn end(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(DecodeError::malformed(
            "bytes are left over after the packet's last field",
        ))
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or_else(truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(truncated)?;
        self.rest = rest;
        Ok(*bytes)
    }

    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16()?).ok_or_else(|| {
            // [MQTT-2.3.1-1], in MQTT 5 [MQTT-2.2.1-3]
            DecodeError::malformed("the packet identifier is 0")
        })
    }

    /// A length in two bytes, and as many bytes.
    pub fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let count = self.u16()?;
        self.bytes(usize::from(count))
    }

    /// A UTF-8 encoded string.
    pub fn text(&mut self) -> Result<&'a str, DecodeError> {
        check_text(self.binary()?)
    }

    /// A variable byte integer within a body, which only MQTT 5 has.
    pub fn varint(&mut self) -> Result<u32, DecodeError> {
        let varint = Varint::read(self.rest)?.ok_or_else(truncated)?;
        if !varint.is_minimal() {
            return Err(not_minimal());
        }
        self.rest = &self.rest[varint.size_bytes..];
        Ok(varint.value)
    }
}

/// A variable byte integer (1.5.5; the remaining length of 2.2.3 in 3.1.1).
#[derive(Clone, Copy)]
pub(super) struct Varint {
    pub value: u32,
    /// How many bytes it took, 1 to 4.
    pub size_bytes: usize,
}

impl Varint {
    /// `None`: more bytes are needed.
    #[inline]
    pub fn read(bytes: &[u8]) -> Result<Option<Varint>, DecodeError> {
        let mut value = 0;
        for (at, &byte) in bytes.iter().take(4).enumerate() {
            value |= u32::from(byte & 0x7F) << (7 * at);
            if byte < 0x80 {
                let size_bytes = at + 1;
                return Ok(Some(Varint { value, size_bytes }));
            }
        }
        if bytes.len() < 4 {
            return Ok(None);
        }
        Err(DecodeError::malformed(
            "a variable byte integer goes on after its fourth byte",
        ))
    }

    /// Whether no shorter form says the same [MQTT-1.5.5-1].
    pub fn is_minimal(self) -> bool {
        self.size_bytes == varint_size_bytes(self.value as usize)
    }
}

/// How many bytes `value` takes as a variable byte integer.
pub(super) fn varint_size_bytes(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        _ => 4,
    }
}

/// The text of `bytes`, if it is one.
///
/// U+0000 is forbidden [MQTT-1.5.3-2]. The other control characters are
/// allowed to be refused (1.5.3; in MQTT 5 1.5.4), and here they are: nobody
/// names a topic or a client with them by intent, and they break logs,
/// terminals and other protocols' lines. Nothing is normalised, nor is U+FEFF
/// taken away [MQTT-1.5.3-3].
#[inline]
pub(super) fn check_text(bytes: &[u8]) -> Result<&str, DecodeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| {
        // [MQTT-1.5.3-1]
        DecodeError::malformed("a string is not well-formed UTF-8")
    })?;
    if has_control(bytes) {
        return Err(DecodeError::malformed("a string has a control character"));
    }
    Ok(text)
}

/// Whether well-formed UTF-8 has one of U+0000..U+001F, U+007F..U+009F.
#[inline]
fn has_control(bytes: &[u8]) -> bool {
    if let Some((_, last)) = bytes.split_last_chunk::<8>() {
        // Eight bytes at a time; the last eight may overlap those before.
        let (words, _) = bytes.as_chunks::<8>();
        let suspect = words
            .iter()
            .chain([last])
            .fold(0, |suspect, word| suspect | suspects(*word));
        return suspect != 0 && has_control_slow(bytes);
    }
    bytes.iter().any(|&byte| is_suspect(byte)) && has_control_slow(bytes)
}

/// C0 and DEL stand for themselves; U+0080..U+009F begin with 0xC2, as do the
/// harmless U+00A0..U+00BF.
fn is_suspect(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7F || byte == 0xC2
}

/// Not 0 if one of the eight bytes [`is_suspect`].
fn suspects(word: [u8; 8]) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    let word = u64::from_ne_bytes(word);
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & HIGHS;
    below(word, 0x20) | below(word ^ (ONES * 0x7F), 1) | below(word ^ (ONES * 0xC2), 1)
}

#[cold]
fn has_control_slow(bytes: &[u8]) -> bool {
    bytes.iter().any(|&byte| byte < 0x20 || byte == 0x7F)
        || bytes
            .windows(2)
            .any(|pair| pair[0] == 0xC2 && pair[1] <= 0x9F)
}

#[cold]
fn truncated() -> DecodeError {
    DecodeError::malformed("the packet ends before its last field")
}

#[cold]
pub(super) fn not_minimal() -> DecodeError {
    DecodeError::malformed("a variable byte integer is longer than it needs to be")
}
