//! What of a queue is stored, and in which form: a row for each job.
//!
//! Says what is to be stored; storing it is the caller's, who takes it from
//! [`Keeping::journal`] before the queue is let go.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::jobs::Stored;
use crate::config::Durability;
use crate::journal::{Change, Journal, ListId};
use crate::message::{Message, PacketId, Time};

/// A queue that outlives the broker: where its jobs are.
///
/// Rows of one priority are in a list of their own, those that were put in with
/// a delay in another, and those of groups: each list is read in its order.
pub(super) struct Keeping {
    pub durability: Durability,
    pub journal: Journal,
    /// The first is the queue's own: of [`Source::PRIORITY`].
    pub sources: Vec<Source>,
    /// Of the messages in memory that no member has.
    pub read_bytes: usize,
    /// Delayed jobs that are on disk only: when they are due, their rows,
    /// priorities and sources.
    pub away: BTreeSet<(Time, u64, u8, u8)>,
    /// Of these, those that are due and to be read: the highest priority
    /// first, by source and row.
    pub due: BTreeSet<(Reverse<u8>, u8, u64)>,
    /// Of these, those of groups that older ones on disk may be of: rows,
    /// priorities and sources.
    pub parked: BTreeSet<(u64, u8, u8)>,
    /// Those of them that are to be read now, in their order, before younger
    /// ones of groups: their priorities and sources, by row.
    pub unparked: BTreeMap<u64, (u8, u8)>,
    /// Unread rows that were taken out, by source: they are passed when they
    /// are come upon, if the store has them still.
    pub taken: BTreeSet<(u8, u64)>,
}

/// One of a queue's lists of rows.
pub(super) struct Source {
    /// The priority of its jobs, [`Source::DELAYED`] or [`Source::GROUPED`].
    pub kind: u8,
    pub list: ListId,
    /// Jobs that are not in memory, from `unread_from` on.
    pub unread: usize,
    /// What they take of the queue's bytes; of an earlier run about so much.
    pub unread_bytes: usize,
    pub unread_from: u64,
}

impl Source {
    /// The queue's own list has jobs of this priority.
    pub const PRIORITY: u8 = crate::queue::Ask::PRIORITY;
    /// Jobs that were put in with a delay.
    pub const DELAYED: u8 = 10;
    /// Jobs of groups, whatever their priority: their order is one.
    pub const GROUPED: u8 = 11;

    pub fn new(kind: u8, list: ListId) -> Source {
        Source {
            kind,
            list,
            unread: 0,
            unread_bytes: 0,
            unread_from: 0,
        }
    }

    /// Whether the job in that row is on disk only, and in its turn: not one of
    /// those that are read when they are due.
    pub fn is_unread(&self, row: u64) -> bool {
        self.unread > 0 && row >= self.unread_from && self.kind != Source::DELAYED
    }

    /// The next that are unread, no more than that.
    pub fn wanted(&self, rows_max: usize) -> Wanted {
        Wanted {
            list: self.list,
            from: self.unread_from,
            rows_max: rows_max.min(self.unread),
            is_known: false,
        }
    }

    /// One that was unread is not any more; what it took.
    pub fn read_one(&mut self) -> usize {
        let bytes = match self.unread {
            0 => 0,
            1 => self.unread_bytes,
            unread => self.unread_bytes / unread,
        };
        self.unread = self.unread.saturating_sub(1);
        self.unread_bytes -= bytes;
        bytes
    }
}

/// What is said of a job in its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobRecord<'a> {
    /// How often it was delivered.
    pub deliveries: u32,
    /// How many of those failed.
    pub failures: u32,
    /// And how many of these ended with the member's connection.
    pub losses: u16,
    pub fate: Fate,
    /// What was said when it failed last.
    pub said: &'a str,
}

/// Where a job is that is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// For anybody; a member that has it at QoS 1 loses it with the broker.
    Open,
    /// Not yet, or refused for a while.
    Delayed(Time),
    /// Given to a member of QoS 0: as good as done.
    GivenAway,
    /// With this session, under that id, at QoS 2.
    Held(ListId, PacketId),
}

/// A job as it was stored.
#[derive(Debug)]
pub struct StoredJob<'a> {
    pub sequence: u64,
    pub message: Arc<Message>,
    pub stored: Stored,
    pub record: JobRecord<'a>,
}

/// Rows that a queue wants to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub list: ListId,
    pub from: u64,
    /// How many are to be looked at.
    pub rows_max: usize,
    /// The first is known to be there: if it can't be read, it is lost.
    pub is_known: bool,
}

impl Keeping {
    pub fn new(list: ListId, durability: Durability) -> Keeping {
        Keeping {
            durability,
            journal: Journal::default(),
            sources: vec![Source::new(Source::PRIORITY, list)],
            read_bytes: 0,
            away: BTreeSet::new(),
            due: BTreeSet::new(),
            parked: BTreeSet::new(),
            unparked: BTreeMap::new(),
            taken: BTreeSet::new(),
        }
    }

    /// Whether there is no more to know than its lists.
    pub fn is_bare(&self) -> bool {
        self.journal.is_empty()
            && self.unread() == 0
            && self.away.is_empty()
            && self.due.is_empty()
            && self.parked.is_empty()
            && self.unparked.is_empty()
            && self.taken.is_empty()
    }

    pub fn list(&self) -> ListId {
        self.sources[0].list
    }

    pub fn source(&mut self, kind: u8) -> Option<&mut Source> {
        self.sources.iter_mut().find(|source| source.kind == kind)
    }

    pub fn source_of(&mut self, list: ListId) -> Option<&mut Source> {
        self.sources.iter_mut().find(|source| source.list == list)
    }

    fn list_of(&self, kind: u8) -> ListId {
        let mut sources = self.sources.iter();
        let source = sources.find(|source| source.kind == kind);
        source.map_or(self.list(), |source| source.list)
    }

    /// Whether the row was taken out before it was read; it is read past then.
    pub fn pass_taken(&mut self, kind: u8, row: u64) -> bool {
        if self.taken.is_empty() {
            return false;
        }
        let was_taken = self.taken.remove(&(kind, row));
        if let Some(source) = self.source(kind) {
            if was_taken {
                source.unread_from = source.unread_from.max(row + 1);
            }
            // Those before it are no longer in the store.
            let read = source.unread_from;
            while let Some(&passed) = self.taken.range((kind, 0)..(kind, read)).next() {
                self.taken.remove(&passed);
            }
        }
        was_taken
    }

    /// Whether jobs of groups that are on disk may come before that place.
    pub fn has_older_grouped(&self, sequence: u64) -> bool {
        let mut sources = self.sources.iter();
        let grouped = sources.find(|source| source.kind == Source::GROUPED);
        grouped.is_some_and(|source| source.unread > 0 && source.unread_from <= sequence)
    }

    /// The next job of a group is in this row: whether some that came due have
    /// their places before it, and are read first.
    pub fn has_due_before(&mut self, row: u64) -> bool {
        if self.is_unparked_before(row) {
            return true;
        }
        let Some(source) = self.source(Source::GROUPED) else {
            return false;
        };
        if source.unread == 0 || row < source.unread_from {
            return false;
        }
        source.unread_from = row;
        self.unpark();
        self.is_unparked_before(row)
    }

    fn is_unparked_before(&self, row: u64) -> bool {
        let first = self.unparked.first_key_value();
        first.is_some_and(|(first, _)| *first < row)
    }

    /// Whether that row was due, most likely at that priority, and not read yet,
    /// and nothing has to be read before it.
    pub fn take_due(&mut self, kind: u8, row: u64, likely: u8) -> bool {
        if self.unparked.contains_key(&row) {
            if self
                .unparked
                .first_key_value()
                .is_some_and(|(first, _)| *first < row)
            {
                return false;
            }
            self.unparked.remove(&row);
        }
        let others = (0..Source::DELAYED).filter(|of| *of != likely);
        let mut priorities = std::iter::once(likely).chain(others);
        priorities.any(|of| self.due.remove(&(Reverse(of), kind, row)))
    }

    /// What no older job of a group can come before any more is to be read.
    pub fn unpark(&mut self) {
        while let Some(&(row, priority, kind)) = self.parked.first()
            && !self.has_older_grouped(row)
        {
            self.parked.pop_first();
            self.unparked.insert(row, (priority, kind));
            self.due.insert((Reverse(priority), kind, row));
        }
    }

    pub fn unread(&self) -> usize {
        self.sources.iter().map(|source| source.unread).sum()
    }

    pub fn amend(&mut self, (source, sequence): (u8, u64), record: &JobRecord<'_>) {
        let (list, row) = (self.list_of(source), sequence);
        let (head, whole);
        let about = match record.is_plain() {
            true => {
                head = record.head();
                &head[..]
            }
            false => {
                whole = record.encode();
                &whole
            }
        };
        let change = Change::Amend { list, row, about };
        self.journal.add(self.stored_durability(), change);
    }

    pub fn remove(&mut self, (source, sequence): (u8, u64), stored: Stored, message: &Message) {
        if !stored.is_stored {
            return;
        }
        let change = Change::Remove {
            list: self.list_of(source),
            row: sequence,
            shared: if stored.is_shared { message.id().0 } else { 0 },
        };
        self.journal.add(self.stored_durability(), change);
    }

    /// A row there is was stored because somebody asked for it, though the
    /// queue itself may not.
    fn stored_durability(&self) -> Durability {
        self.durability.max(Durability::Flushed)
    }
}

impl JobRecord<'_> {
    /// Of a job that nobody has had.
    pub const NEW: JobRecord<'static> = JobRecord {
        deliveries: 0,
        failures: 0,
        losses: 0,
        fate: Fate::Open,
        said: "",
    };

    /// Of a job that is put in with a delay; [`Time::ZERO`]: without.
    pub fn new(due: Time) -> JobRecord<'static> {
        JobRecord {
            fate: match due {
                Time::ZERO => Fate::Open,
                due => Fate::Delayed(due),
            },
            ..JobRecord::NEW
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut record = self.head().to_vec();
        if !self.is_plain() {
            record.extend_from_slice(&self.failures.to_le_bytes());
            record.extend_from_slice(&self.losses.to_le_bytes());
            record.extend_from_slice(self.said.as_bytes());
        }
        record
    }

    /// Whether [`JobRecord::head`] is all of it.
    fn is_plain(&self) -> bool {
        self.failures == 0 && self.said.is_empty()
    }

    /// What is stored of a job that never failed.
    pub fn head(&self) -> [u8; JobRecord::HEAD_BYTES] {
        let (kind, number, packet_id) = match self.fate {
            Fate::Open => (0, 0, 0),
            Fate::Delayed(due) => (1, due.as_micros(), 0),
            Fate::GivenAway => (2, 0, 0),
            Fate::Held(session, packet_id) => (3, session.0, packet_id.get()),
        };
        let mut head = [kind; JobRecord::HEAD_BYTES];
        head[1..5].copy_from_slice(&self.deliveries.to_le_bytes());
        head[5..13].copy_from_slice(&number.to_le_bytes());
        head[13..].copy_from_slice(&packet_id.to_le_bytes());
        head
    }

    /// `None`: it is none.
    pub fn decode(bytes: &[u8]) -> Option<JobRecord<'_>> {
        let (head, rest) = bytes.split_first_chunk::<{ JobRecord::HEAD_BYTES }>()?;
        let number = u64::from_le_bytes(*head[5..].first_chunk()?);
        let (failures, losses, said) = match rest.split_first_chunk::<6>() {
            None if !rest.is_empty() => return None,
            None => (0, 0, ""),
            Some((failed, said)) => (
                u32::from_le_bytes(*failed.first_chunk()?),
                u16::from_le_bytes([failed[4], failed[5]]),
                std::str::from_utf8(said).ok()?,
            ),
        };
        Some(JobRecord {
            deliveries: u32::from_le_bytes(*head[1..].first_chunk()?),
            failures,
            losses,
            said,
            fate: match head[0] {
                0 => Fate::Open,
                1 => Fate::Delayed(Time::from_micros(number)),
                2 => Fate::GivenAway,
                3 => {
                    let packet_id = u16::from_le_bytes([head[13], head[14]]);
                    Fate::Held(ListId(number), PacketId::new(packet_id)?)
                }
                _ => return None,
            },
        })
    }

    const HEAD_BYTES: usize = 15;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let held = Fate::Held(ListId(1 << 40), PacketId::new(0x1234).unwrap());
        for fate in [
            Fate::Open,
            Fate::Delayed(Time::from_micros(u64::MAX - 1)),
            Fate::GivenAway,
            held,
        ] {
            for (failures, said) in [(0, ""), (3, ""), (3, "no such account"), (0, "said")] {
                let record = JobRecord {
                    deliveries: 70_000,
                    failures,
                    losses: failures as u16,
                    fate,
                    said,
                };
                assert_eq!(JobRecord::decode(&record.encode()), Some(record));
            }
        }
        assert_eq!(JobRecord::decode(b""), None);
        assert_eq!(JobRecord::decode(&[9; JobRecord::HEAD_BYTES]), None);
        assert_eq!(JobRecord::decode(&[0; JobRecord::HEAD_BYTES + 1]), None);
    }
}
