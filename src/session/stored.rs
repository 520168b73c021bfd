//! What of a session is stored, and in which form.
//!
//! Owns the rows of messages that a session keeps, and the keys of its packet
//! ids. Says what is to be stored; storing it is the caller's.

use std::sync::Arc;

use super::window::Sent;
use super::{Own, Publication};
use crate::config::Durability;
use crate::journal::{Change, Journal, ListId, Receipt, tag};
use crate::message::{Message, PacketId, Qos, Time};

/// A session that outlives the broker: where its messages are.
pub struct Keeping {
    pub list: ListId,
    pub durability: Durability,
    next_row: u64,
    // Rows there are.
    rows: usize,
    // So many of them are not in memory: those from `unread_from` on.
    unread: usize,
    unread_from: u64,
    // No row expires before.
    expires: Time,
    // How far those not in memory were looked through for what has expired,
    // and the first moment at which one of these does.
    looked_to: u64,
    looked_expires: Time,
    // Orders the ids that wait for PUBCOMP.
    next_release: u64,
    /// When all is stored that it was handed in.
    pub pushed: Receipt,
    /// When all is that it was before its rows left memory.
    pub settled: Receipt,
    settling: bool,
}

/// A message that a session keeps, as it was stored.
pub struct StoredMessage {
    pub row: StoredRow,
    pub message: Arc<Message>,
    pub own: Own,
    pub qos: Qos,
    pub retain: bool,
    /// Under which it was sent.
    pub packet_id: Option<PacketId>,
}

/// Where a message is stored; [`StoredRow::NONE`]: nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredRow {
    number: u64,
    // Its body is stored for others too: by this id.
    shared: u64,
}

impl StoredRow {
    pub const NONE: StoredRow = StoredRow {
        number: 0,
        shared: 0,
    };

    /// One of which nothing but its number is known.
    pub fn of(number: u64) -> StoredRow {
        StoredRow { number, shared: 0 }
    }

    pub fn is_some(self) -> bool {
        self.number > 0
    }
}

impl Keeping {
    /// Rows of a new list are numbered from 1.
    pub fn new(list: ListId, durability: Durability) -> Keeping {
        Keeping::resumed(list, durability, 1, 0)
    }

    /// With so many rows, none of which is in memory.
    pub fn resumed(list: ListId, durability: Durability, next_row: u64, rows: usize) -> Keeping {
        Keeping {
            list,
            durability,
            next_row: next_row.max(1),
            rows,
            unread: rows,
            unread_from: 0,
            // Of an earlier run it is not known.
            expires: match rows {
                0 => Time::MAX,
                _ => Time::ZERO,
            },
            looked_to: 0,
            looked_expires: Time::MAX,
            next_release: 1,
            pushed: Receipt::NONE,
            settled: Receipt::NONE,
            settling: false,
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Rows that are not in memory.
    pub fn unread(&self) -> usize {
        self.unread
    }

    /// Where they begin.
    pub fn unread_from(&self) -> u64 {
        self.unread_from
    }

    /// Whether some of them may have expired.
    pub fn may_have_expired(&self, now: Time) -> bool {
        self.unread > 0 && now > self.expires
    }

    /// Another row for a message.
    pub fn push(
        &mut self,
        publication: &Publication<'_>,
        (qos, retain): (Qos, bool),
        packet_id: Option<PacketId>,
        own: &[u8],
        journal: &mut Journal,
    ) -> StoredRow {
        let number = self.next_row;
        self.next_row += 1;
        self.expires = match self.rows {
            0 => publication.expires,
            _ => self.expires.min(publication.expires),
        };
        self.rows += 1;
        let about = about(qos, retain, packet_id, own);
        let durability = self.durability.max(publication.durability);
        let shared = publication.store(journal, durability, (self.list, number), &about);
        StoredRow { number, shared }
    }

    /// The row just pushed stays out of memory.
    pub fn leave_unread(&mut self, row: StoredRow) {
        if self.unread == 0 {
            self.unread_from = row.number;
        }
        self.unread += 1;
    }

    /// From where on to look for what has expired.
    pub fn look_from(&self) -> u64 {
        self.looked_to.max(self.unread_from)
    }

    /// A row was looked at that is not in memory, and stays.
    pub fn looked(&mut self, row: StoredRow, expires: Time) {
        self.looked_to = row.number + 1;
        self.looked_expires = self.looked_expires.min(expires);
    }

    /// There are no more to be looked at: what expires next is known.
    pub fn looked_through(&mut self) {
        self.expires = std::mem::replace(&mut self.looked_expires, Time::MAX);
        self.looked_to = 0;
    }

    /// A row that is not in memory is done with.
    pub fn drop_unread(&mut self, row: StoredRow, journal: &mut Journal) {
        self.unread = self.unread.saturating_sub(1);
        if row.number == self.unread_from {
            self.unread_from += 1;
        }
        self.remove(row, journal);
    }

    /// A row has come into memory.
    pub fn read(&mut self, row: StoredRow) {
        self.unread = self.unread.saturating_sub(1);
        self.unread_from = row.number + 1;
    }

    /// So many that were read are none.
    pub fn lost(&mut self, count: usize) {
        self.rows = self.rows.saturating_sub(count);
    }

    /// There are no more to be read.
    pub fn read_all(&mut self) -> usize {
        let missing = std::mem::take(&mut self.unread);
        self.rows -= missing;
        missing
    }

    /// Something was handed in.
    pub fn stored(&mut self, receipt: Receipt) {
        self.pushed = self.pushed.and(receipt);
        if std::mem::take(&mut self.settling) {
            self.settled = self.pushed;
        }
    }

    /// All rows leave memory. Something is handed in afterwards.
    pub fn forget_all(&mut self) {
        self.settling = true;
        self.unread = self.rows;
        self.unread_from = 0;
        (self.looked_to, self.looked_expires) = (0, Time::MAX);
    }

    /// The message is under way, by this id.
    pub fn sent(
        &self,
        row: StoredRow,
        (qos, retain): (Qos, bool),
        packet_id: PacketId,
        own: &[u8],
        journal: &mut Journal,
    ) {
        let change = Change::Amend {
            list: self.list,
            row: row.number,
            about: &about(qos, retain, Some(packet_id), own),
        };
        journal.add(self.durability, change);
    }

    /// The message is done with.
    pub fn remove(&mut self, row: StoredRow, journal: &mut Journal) {
        if row.is_some() {
            self.rows -= 1;
            let change = Change::Remove {
                list: self.list,
                row: row.number,
                shared: row.shared,
            };
            journal.add(self.durability, change);
        }
    }

    pub fn put_received(&self, packet_id: PacketId, journal: &mut Journal) {
        let (key, value) = (&packet_key(tag::RECEIVED, self.list, packet_id), &[][..]);
        journal.add(self.durability, Change::Put { key, value });
    }

    pub fn delete_received(&self, packet_id: PacketId, journal: &mut Journal) {
        let key = &packet_key(tag::RECEIVED, self.list, packet_id);
        journal.add(self.durability, Change::Delete { key });
    }

    /// PUBCOMP is waited for.
    pub fn put_releasing(&mut self, packet_id: PacketId, journal: &mut Journal) {
        let key = &packet_key(tag::RELEASING, self.list, packet_id);
        let value = &self.next_release.to_be_bytes();
        self.next_release += 1;
        journal.add(self.durability, Change::Put { key, value });
    }

    /// Ids that wait for PUBCOMP since an earlier run, by their order.
    pub fn released_until(&mut self, order: u64) {
        self.next_release = self.next_release.max(order + 1);
    }

    pub fn delete_releasing(&self, packet_id: PacketId, journal: &mut Journal) {
        let key = &packet_key(tag::RELEASING, self.list, packet_id);
        journal.add(self.durability, Change::Delete { key });
    }
}

/// The key of a packet id of a session.
pub(crate) fn packet_key(tag: u8, session: ListId, packet_id: PacketId) -> [u8; 11] {
    let mut key = [tag; 11];
    key[1..9].copy_from_slice(&session.0.to_be_bytes());
    key[9..].copy_from_slice(&packet_id.get().to_be_bytes());
    key
}

impl StoredMessage {
    /// Of a row of [`Keeping::push`]; `None`: it is none.
    pub fn decode(number: u64, shared: u64, about: &[u8], body: &[u8]) -> Option<StoredMessage> {
        let (&[flags, high, low], own) = about.split_first_chunk()?;
        Some(StoredMessage {
            row: StoredRow { number, shared },
            message: Arc::new(Message::decode_stored(body)?),
            own: Own::of(own),
            qos: Qos::from_bits(flags & 3)?,
            retain: flags & RETAIN != 0,
            packet_id: PacketId::new(u16::from_be_bytes([high, low])),
        })
    }

    /// As sent already, before this connection; `None`: it was not.
    pub fn into_sent(self) -> Result<Sent, StoredMessage> {
        let Some(packet_id) = self.packet_id else {
            return Err(self);
        };
        Ok(Sent {
            packet_id,
            qos: self.qos,
            retain: self.retain,
            filling: 0,
            sent_at: Time::ZERO,
            cost_bytes: self.message.cost_bytes() + self.own.cost_bytes(),
            message: Some(self.message),
            own: self.own,
            job: None,
            row: self.row,
        })
    }
}

const RETAIN: u8 = 4;

/// What is said of a message: how it goes to the client, under which id, and
/// with which properties of its own.
pub(crate) fn about(qos: Qos, retain: bool, packet_id: Option<PacketId>, own: &[u8]) -> Vec<u8> {
    let flags = qos as u8 | if retain { RETAIN } else { 0 };
    let [high, low] = packet_id.map_or(0, PacketId::get).to_be_bytes();
    let mut about = Vec::with_capacity(3 + own.len());
    about.extend_from_slice(&[flags, high, low]);
    about.extend_from_slice(own);
    about
}
