//! What of a queue is stored, and in which form: a row for each job.
//!
//! Says what is to be stored; storing it is the caller's, who takes it from
//! [`Keeping::journal`] before the queue is let go.

use std::sync::Arc;

use super::jobs::Stored;
use crate::config::Durability;
use crate::journal::{Change, Journal, ListId};
use crate::message::{Message, PacketId, Time};

/// A queue that outlives the broker: where its jobs are.
pub(super) struct Keeping {
    pub list: ListId,
    pub durability: Durability,
    pub journal: Journal,
    /// Jobs that are not in memory, from `unread_from` on.
    pub unread: usize,
    /// What they take of the queue's bytes; of an earlier run about so much.
    pub unread_bytes: usize,
    pub unread_from: u64,
    /// Of the messages in memory.
    pub read_bytes: usize,
}

/// What is said of a job in its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobRecord {
    /// How often it was delivered.
    pub deliveries: u32,
    pub fate: Fate,
}

/// Where a job is that is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// For anybody; a member that has it at QoS 1 loses it with the broker.
    Open,
    /// Refused for a while.
    Delayed(Time),
    /// Given to a member of QoS 0: as good as done.
    GivenAway,
    /// With this session, under that id, at QoS 2.
    Held(ListId, PacketId),
}

/// A job as it was stored.
#[derive(Debug)]
pub struct StoredJob {
    pub sequence: u64,
    pub message: Arc<Message>,
    pub stored: Stored,
    pub record: JobRecord,
}

impl Keeping {
    pub fn new(list: ListId, durability: Durability) -> Keeping {
        Keeping {
            list,
            durability,
            journal: Journal::default(),
            unread: 0,
            unread_bytes: 0,
            unread_from: 0,
            read_bytes: 0,
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

    pub fn amend(&mut self, sequence: u64, record: JobRecord) {
        let change = Change::Amend {
            list: self.list,
            row: sequence,
            about: &record.encode(),
        };
        self.journal.add(self.stored_durability(), change);
    }

    pub fn remove(&mut self, sequence: u64, stored: Stored, message: &Message) {
        if !stored.is_stored {
            return;
        }
        let change = Change::Remove {
            list: self.list,
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

impl JobRecord {
    /// Of a job that nobody has had.
    pub const NEW: JobRecord = JobRecord {
        deliveries: 0,
        fate: Fate::Open,
    };

    pub fn encode(self) -> [u8; JobRecord::BYTES] {
        let (kind, number, packet_id) = match self.fate {
            Fate::Open => (0, 0, 0),
            Fate::Delayed(due) => (1, due.as_micros(), 0),
            Fate::GivenAway => (2, 0, 0),
            Fate::Held(session, packet_id) => (3, session.0, packet_id.get()),
        };
        let mut record = [kind; JobRecord::BYTES];
        record[1..5].copy_from_slice(&self.deliveries.to_le_bytes());
        record[5..13].copy_from_slice(&number.to_le_bytes());
        record[13..].copy_from_slice(&packet_id.to_le_bytes());
        record
    }

    /// `None`: it is none.
    pub fn decode(bytes: &[u8]) -> Option<JobRecord> {
        let bytes: &[u8; JobRecord::BYTES] = bytes.try_into().ok()?;
        let number = u64::from_le_bytes(*bytes[5..].first_chunk()?);
        Some(JobRecord {
            deliveries: u32::from_le_bytes(*bytes[1..].first_chunk()?),
            fate: match bytes[0] {
                0 => Fate::Open,
                1 => Fate::Delayed(Time::from_micros(number)),
                2 => Fate::GivenAway,
                3 => {
                    let packet_id = u16::from_le_bytes([bytes[13], bytes[14]]);
                    Fate::Held(ListId(number), PacketId::new(packet_id)?)
                }
                _ => return None,
            },
        })
    }

    const BYTES: usize = 15;
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
            let record = JobRecord {
                deliveries: 70_000,
                fate,
            };
            assert_eq!(JobRecord::decode(&record.encode()), Some(record));
        }
        assert_eq!(JobRecord::decode(b""), None);
        assert_eq!(JobRecord::decode(&[9; JobRecord::BYTES]), None);
    }
}
