//! Rows of one list that were moved to the base together.
//!
//! Owns which of them are alive. The rows themselves are one value of the
//! base, which is never changed: it goes when none of them is alive.

/// Which rows are alive. The first is known to who has the chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    pub last: u64,
    /// What the bodies of those alive take; when some have gone, the share
    /// that they have of all by their number.
    pub body_bytes: u64,
    /// How many of those alive have a shared body.
    pub shared: u32,
    alive: u32,
    /// A bit for each row from the first on; `None`: all are alive.
    bits: Option<Box<[u64]>>,
    /// What the value takes.
    pub value_len: u32,
    /// The base has another state of it.
    pub is_changed: bool,
}

impl Chunk {
    pub const ROWS_MAX: usize = 256;
    /// From the first to the last, so that there is a bound for the bits.
    pub const SPAN_MAX: u64 = 1024;
    /// A row more is taken while it has less.
    pub const BYTES: usize = 64 << 10;

    /// Of rows in rising order: the row, its body's length, whether that is
    /// shared. At least one, at most [`Chunk::SPAN_MAX`] from first to last.
    pub fn new(rows: impl Iterator<Item = (u64, u32, bool)>, value_len: usize) -> Option<Chunk> {
        let mut rows = rows.peekable();
        let first = rows.peek()?.0;
        let mut bits = Vec::new();
        let mut chunk = Chunk {
            last: first,
            body_bytes: 0,
            shared: 0,
            alive: 0,
            bits: None,
            value_len: value_len as u32,
            is_changed: false,
        };
        for (row, body_len, is_shared) in rows {
            let (word, bit) = place(first, row);
            bits.resize(bits.len().max(word + 1), 0);
            bits[word] |= bit;
            chunk.last = row;
            chunk.body_bytes += u64::from(body_len);
            chunk.shared += u32::from(is_shared);
            chunk.alive += 1;
        }
        if u64::from(chunk.alive) <= chunk.last - first {
            chunk.bits = Some(bits.into());
        }
        Some(chunk)
    }

    pub fn alive(&self) -> u32 {
        self.alive
    }

    pub fn has(&self, first: u64, row: u64) -> bool {
        (first..=self.last).contains(&row)
            && self.bits.as_ref().is_none_or(|bits| {
                let (word, bit) = place(first, row);
                bits[word] & bit != 0
            })
    }

    /// A row is no more. What its body took, if it was alive; see
    /// [`Chunk::body_bytes`].
    pub fn remove(&mut self, first: u64, row: u64, is_shared: bool) -> Option<u64> {
        if !self.has(first, row) {
            return None;
        }
        let body_bytes = self.body_bytes / u64::from(self.alive);
        self.remove_of(first, row, is_shared, body_bytes);
        Some(body_bytes)
    }

    /// As [`Chunk::remove`] of a row that is alive, and whose body took this.
    pub fn remove_of(&mut self, first: u64, row: u64, is_shared: bool, body_bytes: u64) {
        let last = self.last;
        let bits = self.bits.get_or_insert_with(|| all(last - first + 1));
        let (word, bit) = place(first, row);
        bits[word] &= !bit;
        self.body_bytes -= body_bytes;
        self.alive -= 1;
        self.shared = self.shared.saturating_sub(u32::from(is_shared));
        self.shared = self.shared.min(self.alive);
    }

    /// The first that is alive, from `from` on.
    pub fn next(&self, first: u64, from: u64) -> Option<u64> {
        let from = from.max(first);
        if from > self.last {
            return None;
        }
        let Some(bits) = &self.bits else {
            return Some(from);
        };
        let (mut word, bit) = place(first, from);
        let mut rest = bits[word] & !(bit - 1);
        while rest == 0 {
            word += 1;
            rest = *bits.get(word)?;
        }
        Some(first + 64 * word as u64 + u64::from(rest.trailing_zeros()))
    }

    /// Those alive from `from` on.
    pub fn rows(&self, first: u64, from: u64) -> impl Iterator<Item = u64> {
        let mut next = self.next(first, from);
        std::iter::from_fn(move || {
            let row = next?;
            next = row.checked_add(1).and_then(|from| self.next(first, from));
            Some(row)
        })
    }

    /// Without `value_len`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.last.to_be_bytes());
        out.extend_from_slice(&self.body_bytes.to_be_bytes());
        out.extend_from_slice(&self.shared.to_be_bytes());
        for word in self.bits.iter().flatten() {
            out.extend_from_slice(&word.to_be_bytes());
        }
    }

    /// `None`: not the state of a chunk that begins with this row.
    pub fn decode(first: u64, bytes: &[u8]) -> Option<Chunk> {
        let (last, rest) = bytes.split_first_chunk()?;
        let (body_bytes, rest) = rest.split_first_chunk()?;
        let (shared, rest) = rest.split_first_chunk()?;
        let last = u64::from_be_bytes(*last);
        let span = last.checked_sub(first)?.checked_add(1)?;
        let len = match rest.is_empty() {
            true => 0,
            false => 8 * span.div_ceil(64),
        };
        if span > Self::SPAN_MAX || rest.len() as u64 != len {
            return None;
        }
        let words = rest.as_chunks().0.iter();
        let bits: Vec<u64> = words.map(|word| u64::from_be_bytes(*word)).collect();
        let is_beyond = |last: &u64| last >> ((span - 1) % 64) > 1;
        if bits.last().is_some_and(is_beyond) {
            return None;
        }
        let alive = match bits.is_empty() {
            true => span as u32,
            false => bits.iter().map(|word| word.count_ones()).sum(),
        };
        Some(Chunk {
            last,
            body_bytes: u64::from_be_bytes(*body_bytes),
            shared: u32::from_be_bytes(*shared),
            alive,
            bits: (!bits.is_empty()).then(|| bits.into()),
            value_len: 0,
            is_changed: false,
        })
    }
}

fn place(first: u64, row: u64) -> (usize, u64) {
    let at = row - first;
    ((at / 64) as usize, 1 << (at % 64))
}

fn all(rows: u64) -> Box<[u64]> {
    let mut bits = vec![u64::MAX; rows.div_ceil(64) as usize];
    if !rows.is_multiple_of(64) {
        bits[(rows / 64) as usize] = (1 << (rows % 64)) - 1;
    }
    bits.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn it_is_a_set_of_rows() {
        for (first, step) in [(0, 1), (7, 1), (1, 3), (u64::MAX - 300, 1)] {
            for rows in [1, 2, 63, 64, 65, 128, 255] {
                let all = (0..rows).map(|n| first + n * step);
                let mut model: BTreeSet<u64> = all.clone().collect();
                let given = all.clone().map(|row| (row, 10, row % 2 == 0));
                let mut chunk = Chunk::new(given, 99).unwrap();
                for gone in all.clone().filter(|row| row % 7 == 3).chain([first]) {
                    let was = model.remove(&gone);
                    assert_eq!(chunk.remove(first, gone, gone % 2 == 0).is_some(), was);
                    check(&chunk, first, &model);
                }
                for gone in all {
                    model.remove(&gone);
                    chunk.remove(first, gone, gone % 2 == 0);
                    check(&chunk, first, &model);
                }
                assert_eq!((chunk.alive(), chunk.body_bytes, chunk.shared), (0, 0, 0));
            }
        }
    }

    fn check(chunk: &Chunk, first: u64, model: &BTreeSet<u64>) {
        let even = model.iter().filter(|row| **row % 2 == 0).count();
        let found: Vec<u64> = chunk.rows(first, 0).collect();
        assert!(found.iter().eq(model.iter()));
        assert_eq!(chunk.alive() as usize, model.len());
        assert_eq!(chunk.body_bytes as usize, 10 * model.len());
        assert_eq!(chunk.shared as usize, even);
        let middle = first + (chunk.last - first) / 2;
        assert_eq!(
            chunk.next(first, middle),
            model.range(middle..).next().copied()
        );
        assert_eq!(chunk.has(first, middle), model.contains(&middle));
        let mut bytes = Vec::new();
        chunk.encode(&mut bytes);
        let mut read = Chunk::decode(first, &bytes).unwrap();
        read.value_len = 99;
        assert_eq!(read, *chunk);
    }

    #[test]
    fn bytes_that_are_no_state_are_none() {
        let rows = [(5, 1, false), (7, 1, false), (80, 1, false)];
        let chunk = Chunk::new(rows.into_iter(), 0).unwrap();
        let mut bytes = Vec::new();
        chunk.encode(&mut bytes);
        assert!(Chunk::decode(5, &bytes).is_some());
        for len in (0..bytes.len()).filter(|len| *len != 20) {
            assert_eq!(Chunk::decode(5, &bytes[..len]), None, "{len}");
        }
        // Of another chunk: too far, or before its first.
        assert_eq!(Chunk::decode(81, &bytes), None);
        let mut far = bytes.clone();
        far[0] = 1;
        assert_eq!(Chunk::decode(5, &far), None);
        // A row behind the last.
        let end = bytes.len() - 8;
        bytes[end] = 0x80;
        assert_eq!(Chunk::decode(5, &bytes), None);
    }
}
