//! What is to be stored: changes, encoded one behind the other.
//!
//! Owns the form of a change. Sessions and queues write what happens to them
//! into a [`Journal`]; `broker` hands it to `store` while the lock of what has
//! changed is still held, and gets a [`Receipt`]. What the bytes in a row or
//! under a key mean is not known here, and nothing is kept.

use std::num::NonZeroU64;

use crate::config::Durability;

/// A list of rows in the store: those of a session, of a queue or of a share
/// group. Never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListId(pub u64);

/// What the first byte of a key says that its value is of.
pub mod tag {
    pub const SESSION: u8 = b's';
    pub const SUBSCRIPTION: u8 = b'f';
    /// A QoS 2 message that a client sent and has not released.
    pub const RECEIVED: u8 = b'i';
    /// One that a client has received, and PUBCOMP has not come for.
    pub const RELEASING: u8 = b'o';
    pub const QUEUE: u8 = b'q';
    pub const RETAINED: u8 = b'r';
    /// An id of a message that its queue does not take a second time.
    pub const DEDUP: u8 = b'd';
    pub const CLOCK: u8 = b'c';
}

/// When a change is stored: the number of its batch, and whether that has to
/// be synced or only handed to the system.
// Batch 0 stands for nothing, and there is 2 more in it than number and last bit
// make: so an `Option` of it takes no more room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Receipt(NonZeroU64);

impl Receipt {
    /// Nothing has to be stored.
    pub const NONE: Receipt = Receipt(NonZeroU64::MIN.saturating_add(1));

    /// Batches are numbered from 1.
    pub fn new(batch: u64, durability: Durability) -> Receipt {
        let number = batch << 1 | u64::from(durability == Durability::Synced);
        Receipt(Receipt::NONE.0.saturating_add(number))
    }

    pub fn batch(self) -> u64 {
        (self.0.get() >> 1) - 1
    }

    pub fn is_synced(self) -> bool {
        self.0.get() & 1 == 1
    }

    /// For what waits for both: the later batch, and the stronger demand.
    #[must_use]
    pub fn and(self, other: Receipt) -> Receipt {
        let synced = u64::from(self.is_synced() || other.is_synced());
        Receipt(self.0.max(other.0) | synced)
    }
}

impl Default for Receipt {
    fn default() -> Receipt {
        Receipt::NONE
    }
}

/// What a row holds beside what is said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// In the row itself.
    Own(&'a [u8]),
    /// Of so many bytes, stored once for many rows by [`Change::Share`], before
    /// the first of them; it goes with the last. 0 is no id.
    Shared { id: u64, len: u32 },
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// A row at the end of a list. `row` is higher than that of any row that
    /// the list has, or ever had.
    Push {
        list: ListId,
        row: u64,
        about: &'a [u8],
        body: Body<'a>,
    },
    /// What is said of a row is now this. Nothing, if there is no such row.
    Amend {
        list: ListId,
        row: u64,
        about: &'a [u8],
    },
    /// The row is no more. `shared`: the id of its body, if that is shared; 0.
    Remove { list: ListId, row: u64, shared: u64 },
    /// All rows of a list are no more.
    Drop { list: ListId },
    /// A value by its key.
    Put { key: &'a [u8], value: &'a [u8] },
    /// No value by this key.
    Delete { key: &'a [u8] },
    /// A body for rows to come.
    Share { id: u64, body: &'a [u8] },
}

const PUSH: u8 = 1;
const AMEND: u8 = 2;
const REMOVE: u8 = 3;
const DROP: u8 = 4;
const PUT: u8 = 5;
const DELETE: u8 = 6;
const SHARE: u8 = 7;

/// What an empty journal keeps of its memory.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// Changes on their way to the store.
#[derive(Debug, Default)]
pub struct Journal {
    bytes: Vec<u8>,
    durability: Option<Durability>,
}

impl Journal {
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The changes, encoded: what [`changes`] reads.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The strongest that was asked for.
    pub fn durability(&self) -> Durability {
        self.durability.unwrap_or(Durability::Memory)
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES_MAX);
        self.durability = None;
    }

    /// Takes what another one has.
    pub fn append(&mut self, other: &mut Journal) {
        self.bytes.append(&mut other.bytes);
        self.durability = self.durability.max(other.durability.take());
    }

    /// Adds a change. `durability` is that of what has changed; with
    /// [`Durability::Memory`] nothing is added.
    pub fn add(&mut self, durability: Durability, change: Change<'_>) {
        if durability == Durability::Memory {
            return;
        }
        self.durability = self.durability.max(Some(durability));
        change.encode(&mut self.bytes);
    }

    /// As [`Journal::add`] of [`Change::Push`], for a body in pieces.
    pub fn push(
        &mut self,
        durability: Durability,
        (list, row): (ListId, u64),
        about: &[u8],
        body: &[&[u8]],
    ) {
        if durability == Durability::Memory {
            return;
        }
        self.durability = self.durability.max(Some(durability));
        let len = body.iter().map(|piece| piece.len()).sum::<usize>() as u32;
        encode_push_head(&mut self.bytes, list, row, about, 0, len);
        body.iter()
            .for_each(|piece| self.bytes.extend_from_slice(piece));
    }

    /// As [`Journal::add`] of [`Change::Share`], for a body in pieces.
    pub fn share(&mut self, durability: Durability, id: u64, body: &[&[u8]]) {
        if durability == Durability::Memory {
            return;
        }
        self.durability = self.durability.max(Some(durability));
        let len = body.iter().map(|piece| piece.len()).sum::<usize>() as u32;
        self.bytes.push(SHARE);
        self.bytes.extend_from_slice(&id.to_le_bytes());
        self.bytes.extend_from_slice(&len.to_le_bytes());
        body.iter()
            .for_each(|piece| self.bytes.extend_from_slice(piece));
    }
}

impl Change<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Change::Push {
                list,
                row,
                about,
                body,
            } => match body {
                Body::Own(bytes) => {
                    encode_push_head(out, list, row, about, 0, bytes.len() as u32);
                    out.extend_from_slice(bytes);
                }
                Body::Shared { id, len } => encode_push_head(out, list, row, about, id, len),
            },
            Change::Amend { list, row, about } => {
                encode_row(out, AMEND, list, row);
                out.extend_from_slice(&(about.len() as u16).to_le_bytes());
                out.extend_from_slice(about);
            }
            Change::Remove { list, row, shared } => {
                encode_row(out, REMOVE, list, row);
                out.extend_from_slice(&shared.to_le_bytes());
            }
            Change::Drop { list } => {
                out.push(DROP);
                out.extend_from_slice(&list.0.to_le_bytes());
            }
            Change::Put { key, value } => {
                out.push(PUT);
                out.extend_from_slice(&(key.len() as u32).to_le_bytes());
                out.extend_from_slice(&(value.len() as u32).to_le_bytes());
                out.extend_from_slice(key);
                out.extend_from_slice(value);
            }
            Change::Delete { key } => {
                out.push(DELETE);
                out.extend_from_slice(&(key.len() as u32).to_le_bytes());
                out.extend_from_slice(key);
            }
            Change::Share { id, body } => {
                out.push(SHARE);
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(&(body.len() as u32).to_le_bytes());
                out.extend_from_slice(body);
            }
        }
    }

    /// How many bytes it takes among those that [`changes`] reads.
    pub fn encoded_len(&self) -> usize {
        match self {
            Change::Push { about, body, .. } => {
                let own = match body {
                    Body::Own(bytes) => bytes.len(),
                    Body::Shared { .. } => 0,
                };
                1 + 8 + 8 + 8 + 4 + 2 + about.len() + own
            }
            Change::Amend { about, .. } => 1 + 8 + 8 + 2 + about.len(),
            Change::Remove { .. } => 1 + 8 + 8 + 8,
            Change::Drop { .. } => 1 + 8,
            Change::Put { key, value } => 1 + 4 + 4 + key.len() + value.len(),
            Change::Delete { key } => 1 + 4 + key.len(),
            Change::Share { body, .. } => 1 + 8 + 4 + body.len(),
        }
    }

    /// What a row's body, or a shared one, takes.
    pub fn body_len(&self) -> usize {
        match self {
            Change::Push {
                body: Body::Own(bytes),
                ..
            } => bytes.len(),
            Change::Push {
                body: Body::Shared { len, .. },
                ..
            } => *len as usize,
            Change::Share { body, .. } => body.len(),
            _ => 0,
        }
    }
}

fn encode_row(out: &mut Vec<u8>, tag: u8, list: ListId, row: u64) {
    out.push(tag);
    out.extend_from_slice(&list.0.to_le_bytes());
    out.extend_from_slice(&row.to_le_bytes());
}

/// Up to where the body begins.
fn encode_push_head(
    out: &mut Vec<u8>,
    list: ListId,
    row: u64,
    about: &[u8],
    shared: u64,
    body_len: u32,
) {
    encode_row(out, PUSH, list, row);
    // Packets bound both: a body is below 2^28, what is said of it below 2^16.
    out.extend_from_slice(&shared.to_le_bytes());
    out.extend_from_slice(&body_len.to_le_bytes());
    out.extend_from_slice(&(about.len() as u16).to_le_bytes());
    out.extend_from_slice(about);
}

/// Reads what a [`Journal`] wrote. Ends early, with [`None`] as the last, where
/// the bytes are none that a journal writes.
pub fn changes(bytes: &[u8]) -> impl Iterator<Item = Option<Change<'_>>> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let mut reader = Reader(rest.take().filter(|rest| !rest.is_empty())?);
        let change = reader.change();
        if change.is_some() {
            rest = Some(reader.0);
        }
        Some(change)
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn u16(&mut self) -> Option<usize> {
        self.array().map(u16::from_le_bytes).map(usize::from)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn list(&mut self) -> Option<ListId> {
        self.u64().map(ListId)
    }

    fn change(&mut self) -> Option<Change<'a>> {
        Some(match self.array()? {
            [PUSH] => {
                let (list, row, id, len) = (self.list()?, self.u64()?, self.u64()?, self.u32()?);
                let about_len = self.u16()?;
                let about = self.bytes(about_len)?;
                let body = match id {
                    0 => Body::Own(self.bytes(len as usize)?),
                    id => Body::Shared { id, len },
                };
                Change::Push {
                    list,
                    row,
                    about,
                    body,
                }
            }
            [AMEND] => {
                let (list, row, len) = (self.list()?, self.u64()?, self.u16()?);
                let about = self.bytes(len)?;
                Change::Amend { list, row, about }
            }
            [REMOVE] => Change::Remove {
                list: self.list()?,
                row: self.u64()?,
                shared: self.u64()?,
            },
            [DROP] => Change::Drop { list: self.list()? },
            [PUT] => {
                let (key_len, value_len) = (self.u32()?, self.u32()?);
                Change::Put {
                    key: self.bytes(key_len as usize)?,
                    value: self.bytes(value_len as usize)?,
                }
            }
            [DELETE] => {
                let len = self.u32()?;
                Change::Delete {
                    key: self.bytes(len as usize)?,
                }
            }
            [SHARE] => {
                let (id, len) = (self.u64()?, self.u32()?);
                Change::Share {
                    id,
                    body: self.bytes(len as usize)?,
                }
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let list = ListId(7);
        let all = [
            Change::Push {
                list,
                row: 1,
                about: b"about",
                body: Body::Own(b"body"),
            },
            Change::Share {
                id: 9,
                body: b"for many",
            },
            Change::Push {
                list,
                row: 2,
                about: b"",
                body: Body::Shared { id: 9, len: 8 },
            },
            Change::Amend {
                list,
                row: 1,
                about: b"other",
            },
            Change::Remove {
                list,
                row: 2,
                shared: 9,
            },
            Change::Drop { list },
            Change::Put {
                key: b"key",
                value: b"value",
            },
            Change::Delete { key: b"key" },
        ];
        let mut journal = Journal::default();
        journal.add(Durability::Memory, all[0]);
        assert!(journal.is_empty());
        all.iter()
            .for_each(|change| journal.add(Durability::Flushed, *change));
        assert_eq!(journal.durability(), Durability::Flushed);
        let read: Vec<_> = changes(journal.as_bytes()).map(Option::unwrap).collect();
        assert_eq!(read, all);
        let lens = all.iter().map(Change::encoded_len);
        assert_eq!(lens.sum::<usize>(), journal.as_bytes().len());
        for change in all {
            let mut alone = Journal::default();
            alone.add(Durability::Synced, change);
            assert_eq!(alone.as_bytes().len(), change.encoded_len(), "{change:?}");
        }

        let mut in_pieces = Journal::default();
        in_pieces.push(Durability::Synced, (list, 1), b"about", &[b"bo", b"dy"]);
        in_pieces.share(Durability::Synced, 9, &[b"for ", b"many"]);
        let read: Vec<_> = changes(in_pieces.as_bytes()).map(Option::unwrap).collect();
        assert_eq!(read, all[..2]);
        assert_eq!(in_pieces.durability(), Durability::Synced);
    }

    #[test]
    fn bytes_that_no_journal_wrote_end_the_reading() {
        let mut journal = Journal::default();
        let list = ListId(1);
        journal.add(Durability::Synced, Change::Drop { list });
        journal.push(Durability::Synced, (list, 1), b"about", &[b"body"]);
        let bytes = journal.as_bytes();
        for len in 10..bytes.len() {
            let read: Vec<_> = changes(&bytes[..len]).collect();
            assert_eq!(read, [Some(Change::Drop { list }), None], "{len}");
        }
        assert_eq!(changes(&[99, 0]).collect::<Vec<_>>(), [None]);
    }

    #[test]
    fn the_stronger_demand_and_the_later_batch_count() {
        let flushed = Receipt::new(5, Durability::Flushed);
        let synced = Receipt::new(4, Durability::Synced);
        assert_eq!(flushed.and(synced), Receipt::new(5, Durability::Synced));
        assert_eq!(synced.and(Receipt::NONE), synced);
        assert!(!flushed.is_synced() && synced.is_synced());
        assert_eq!(flushed.batch(), 5);
    }
}
