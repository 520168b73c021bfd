//! The base's keys: what is stored under which.
//!
//! Owns their form. A key's first byte says what it is, numbers in it have
//! their highest byte first, so that their order is that of the keys. What
//! must be known at a start is in the keys, not in the values: the base has
//! its keys in memory.
//!
//! | key | value |
//! |---|---|
//! | `N` run | |
//! | `L` list, first row that was not moved | |
//! | `D` list, first row | the rows of a chunk, as pushes |
//! | `d` list, first row, what is alive of the chunk | |
//! | `A` list, row | what is said of a row of the base since |
//! | `M` body | the body |
//! | `C` body, how many rows of the base have it | |
//! | `K` key | the value |

use super::chunk::Chunk;
use crate::journal::ListId;

/// A key of the base.
#[derive(Debug, PartialEq)]
pub enum Key<'a> {
    /// How often the store was opened.
    Run(u64),
    /// Rows from here on are not in the base.
    List {
        list: ListId,
        moved_to: u64,
    },
    Rows {
        list: ListId,
        first: u64,
    },
    Alive {
        list: ListId,
        first: u64,
        chunk: Chunk,
    },
    About {
        list: ListId,
        row: u64,
    },
    Body(u64),
    Refs {
        body: u64,
        rows: u32,
    },
    Value(&'a [u8]),
}

impl<'a> Key<'a> {
    pub fn encode(&self) -> Box<[u8]> {
        let mut out = Vec::with_capacity(64);
        match self {
            Key::Run(run) => number(&mut out, b'N', *run),
            Key::List { list, moved_to } => {
                number(&mut out, b'L', list.0);
                out.extend_from_slice(&moved_to.to_be_bytes());
            }
            Key::Rows { list, first } => numbers(&mut out, b'D', list.0, *first),
            Key::Alive { list, first, chunk } => {
                numbers(&mut out, b'd', list.0, *first);
                chunk.encode(&mut out);
            }
            Key::About { list, row } => numbers(&mut out, b'A', list.0, *row),
            Key::Body(body) => number(&mut out, b'M', *body),
            Key::Refs { body, rows } => {
                number(&mut out, b'C', *body);
                out.extend_from_slice(&rows.to_be_bytes());
            }
            Key::Value(key) => {
                out.push(b'K');
                out.extend_from_slice(key);
            }
        }
        out.into()
    }

    /// `None`: not one of these.
    pub fn decode(bytes: &'a [u8]) -> Option<Key<'a>> {
        let (tag, rest) = bytes.split_first()?;
        if *tag == b'K' {
            return Some(Key::Value(rest));
        }
        let (first, rest) = rest.split_first_chunk()?;
        let id = u64::from_be_bytes(*first);
        let list = ListId(id);
        match (tag, rest.split_first_chunk()) {
            (b'N', None) if rest.is_empty() => Some(Key::Run(id)),
            (b'M', None) if rest.is_empty() => Some(Key::Body(id)),
            (b'C', None) => {
                let rows = u32::from_be_bytes(rest.try_into().ok()?);
                Some(Key::Refs { body: id, rows })
            }
            (b'd', Some((row, rest))) => {
                let first = u64::from_be_bytes(*row);
                let chunk = Chunk::decode(first, rest)?;
                Some(Key::Alive { list, first, chunk })
            }
            (tag, Some((row, []))) => {
                let row = u64::from_be_bytes(*row);
                match tag {
                    b'L' => Some(Key::List {
                        list,
                        moved_to: row,
                    }),
                    b'D' => Some(Key::Rows { list, first: row }),
                    b'A' => Some(Key::About { list, row }),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// What all keys have in common of which one follows the other: one of
    /// these at a time is in the base.
    pub fn of_list(list: ListId) -> Box<[u8]> {
        prefix(b'L', &[list.0])
    }

    /// As [`Key::of_list`].
    pub fn of_alive(list: ListId, first: u64) -> Box<[u8]> {
        prefix(b'd', &[list.0, first])
    }

    /// As [`Key::of_list`].
    pub fn of_refs(body: u64) -> Box<[u8]> {
        prefix(b'C', &[body])
    }

    pub const RUNS: &'static [u8] = b"N";
}

fn prefix(tag: u8, ids: &[u64]) -> Box<[u8]> {
    let mut out = vec![tag];
    ids.iter()
        .for_each(|id| out.extend_from_slice(&id.to_be_bytes()));
    out.into()
}

fn number(out: &mut Vec<u8>, tag: u8, id: u64) {
    out.push(tag);
    out.extend_from_slice(&id.to_be_bytes());
}

fn numbers(out: &mut Vec<u8>, tag: u8, id: u64, row: u64) {
    number(out, tag, id);
    out.extend_from_slice(&row.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Case F04 of docs/security.md.
    #[test]
    fn each_key_is_read_as_it_was_written() {
        let list = ListId(258);
        let chunk = Chunk::new([(7, 1, true), (9, 1, false)].into_iter(), 0).unwrap();
        let keys = [
            Key::Run(3),
            Key::List { list, moved_to: 9 },
            Key::Rows { list, first: 7 },
            Key::Alive {
                list,
                first: 7,
                chunk,
            },
            Key::About { list, row: 8 },
            Key::Body(4),
            Key::Refs { body: 4, rows: 2 },
            Key::Value(b""),
            Key::Value(b"session/x"),
        ];
        for key in &keys {
            let bytes = key.encode();
            assert_eq!(Key::decode(&bytes).as_ref(), Some(key));
            if !matches!(key, Key::Value(_)) {
                for len in 0..bytes.len() {
                    assert_ne!(Key::decode(&bytes[..len]).as_ref(), Some(key));
                }
            }
        }
        assert_eq!(Key::decode(b""), None);
        assert_eq!(Key::decode(b"?12345678"), None);
        assert!(keys[1].encode().starts_with(&Key::of_list(list)));
        assert!(keys[3].encode().starts_with(&Key::of_alive(list, 7)));
        assert!(keys[6].encode().starts_with(&Key::of_refs(4)));
    }
}
