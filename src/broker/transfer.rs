//! All that is stored, one thing after the other: for who looks at a store
//! that no broker runs on, or fills one.
//!
//! Owns what there is and in which order it comes, so that nothing is named
//! before it was given. The forms are those of `record`, and of the rows of
//! sessions and queues.

use std::io;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::record::{
    ListRecord, SessionRecord, SubscriptionRecord, Target, list_key, parse_key, parse_packet_key,
    parse_subscription_key, retained_key, session_key, subscription_key,
};
use crate::access::Client;
use crate::config::Durability;
use crate::journal::{Body, Change, Journal, ListId, tag};
use crate::message::{Message, MessageId, PacketId, Qos, Time};
use crate::queue::{JobRecord, dedup_key, encode_remembered};
use crate::session::{StoredMessage, about, packet_key};
use crate::store::{self, Failed, Store};
use crate::topic::{TopicFilter, TopicLimits};

/// One thing that is stored.
pub(crate) enum Stored<'a> {
    /// What the time was: the bytes that `run` stores.
    Clock(&'a [u8]),
    Session(ListId, SessionRecord),
    /// A queue or share group.
    List(ListId, ListRecord),
    Subscription(ListId, Target<'a>, SubscriptionRecord),
    /// Of a session, QoS 2: came and was not released.
    Received(ListId, PacketId),
    /// Of a session, QoS 2: PUBCOMP is waited for; the lowest number first.
    Releasing(ListId, PacketId, u64),
    /// An id that a queue does not take again, of which message, until when.
    Remembered(ListId, String, MessageId, Time),
    Row(Row),
    Retained(Arc<Message>),
}

/// A message of a session, or a job of a queue or share group.
pub(crate) struct Row {
    pub list: ListId,
    /// Its place in the list.
    pub number: u64,
    pub about: About,
    /// The id of its body, if that is shared; 0.
    pub shared: u64,
    /// `None`: the shared body came with an earlier row.
    pub message: Option<Arc<Message>>,
}

/// What is said of a message.
pub(crate) enum About {
    Message {
        qos: Qos,
        retain: bool,
        /// Under which it was sent.
        packet_id: Option<PacketId>,
        /// Properties of this delivery alone, encoded.
        own: Vec<u8>,
    },
    Job {
        /// The queue's own list.
        queue: ListId,
        /// Which of the queue's lists the row is in; `None`: that.
        source: Option<u8>,
        record: JobRecord<'static>,
        /// What was said of it last.
        said: String,
    },
}

/// What was there and could not be given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// Records that mean nothing to this version.
    pub unknown: usize,
    /// Rows that could not be read.
    pub lost_rows: u64,
    /// Rows of lists that nothing leads to: the next start drops them.
    pub orphans: u64,
}

const ROWS_MAX: usize = 256;
const BYTES_MAX: usize = 1 << 20;

/// Gives everything: sessions and queues before what is of them, the rows of
/// each in their order.
///
/// # Errors
/// The store cannot be read at all; or the first error of `each`, which is not
/// called again.
pub(crate) fn read_all(
    store: &Store,
    each: &mut dyn FnMut(Stored<'_>) -> io::Result<()>,
) -> io::Result<Left> {
    let mut left = Left::default();
    let mut sessions = FxHashSet::default();
    let mut lists = FxHashMap::default();
    for tag in [
        tag::CLOCK,
        tag::SESSION,
        tag::QUEUE,
        tag::SUBSCRIPTION,
        tag::RECEIVED,
        tag::RELEASING,
        tag::DEDUP,
    ] {
        read_values(store, tag, &mut left, &mut |stored| {
            match stored {
                Stored::Session(list, _) => drop(sessions.insert(list)),
                Stored::List(list, ref record) => {
                    lists.insert(list, (list, None));
                    let sources = record.sources.iter();
                    lists.extend(sources.map(|(kind, source)| (*source, (list, Some(*kind)))));
                }
                _ => {}
            }
            each(stored)
        })?;
    }
    let mut all = store.lists();
    all.sort_by_key(|(list, _)| (lists.contains_key(list), *list));
    for (list, summary) in all {
        let of_queue = lists.get(&list).copied();
        if of_queue.is_none() && !sessions.contains(&list) {
            left.orphans += summary.rows;
            continue;
        }
        let mut count = 0;
        let mut from = 0;
        loop {
            let rows = store.read(list, from, ROWS_MAX, BYTES_MAX)?;
            let Some(last) = rows.last() else { break };
            from = last.row.saturating_add(1);
            count += rows.len() as u64;
            for row in rows {
                match Row::decode(list, of_queue, &row) {
                    Some(row) => each(Stored::Row(row))?,
                    None => left.unknown += 1,
                }
            }
        }
        left.lost_rows += summary.rows.saturating_sub(count);
    }
    read_values(store, tag::RETAINED, &mut left, each)?;
    Ok(left)
}

fn read_values(
    store: &Store,
    tag: u8,
    left: &mut Left,
    each: &mut dyn FnMut(Stored<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let mut given = Ok(());
    store.scan(&[tag], &mut |key, value| {
        if given.is_err() {
            return;
        }
        match Stored::decode(tag, key, value) {
            Some(stored) => given = each(stored),
            None => left.unknown += 1,
        }
    })?;
    given
}

impl<'a> Stored<'a> {
    fn decode(tag: u8, key: &'a [u8], value: &'a [u8]) -> Option<Stored<'a>> {
        Some(match tag {
            tag::CLOCK => Stored::Clock(value),
            tag::SESSION => Stored::Session(parse_key(key)?.0, SessionRecord::decode(value)?),
            tag::QUEUE => Stored::List(parse_key(key)?.0, ListRecord::decode(value)?),
            tag::SUBSCRIPTION => {
                let (session, target) = parse_subscription_key(key)?;
                Stored::Subscription(session, target, SubscriptionRecord::decode(value)?)
            }
            tag::RECEIVED => {
                let (session, id) = parse_packet_key(key)?;
                Stored::Received(session, id)
            }
            tag::RELEASING => {
                let (session, id) = parse_packet_key(key)?;
                let order = u64::from_be_bytes(value.try_into().ok()?);
                Stored::Releasing(session, id, order)
            }
            tag::DEDUP => {
                let (queue, id) = parse_key(key)?;
                let (message, until) = value.split_first_chunk()?;
                let id = std::str::from_utf8(id).ok()?.to_owned();
                let message = MessageId(u64::from_le_bytes(*message));
                let until = Time::from_micros(u64::from_le_bytes(until.try_into().ok()?));
                Stored::Remembered(queue, id, message, until)
            }
            tag::RETAINED => Stored::Retained(Arc::new(Message::decode_stored(value)?)),
            _ => return None,
        })
    }
}

impl Row {
    fn decode(
        list: ListId,
        of_queue: Option<(ListId, Option<u8>)>,
        row: &store::Row,
    ) -> Option<Row> {
        let store::Row {
            row: number,
            about,
            shared,
            body,
        } = row;
        let (about, message) = match of_queue {
            Some((queue, source)) => {
                let record = JobRecord::decode(about)?;
                let said = record.said.to_owned();
                let record = JobRecord { said: "", ..record };
                let about = About::Job {
                    queue,
                    source,
                    record,
                    said,
                };
                (about, Arc::new(Message::decode_stored(body)?))
            }
            None => {
                let stored = StoredMessage::decode(*number, *shared, about, body)?;
                let about = About::Message {
                    qos: stored.qos,
                    retain: stored.retain,
                    packet_id: stored.packet_id,
                    own: stored.own.as_bytes().to_vec(),
                };
                (about, stored.message)
            }
        };
        Some(Row {
            list,
            number: *number,
            about,
            shared: *shared,
            message: Some(message),
        })
    }
}

impl About {
    fn encode(&self) -> Vec<u8> {
        match self {
            About::Message {
                qos,
                retain,
                packet_id,
                own,
            } => about(*qos, *retain, *packet_id, own),
            About::Job { record, said, .. } => JobRecord { said, ..*record }.encode(),
        }
    }
}

/// Whether a queue or share group can have this name.
pub(crate) fn is_list_name(name: &str) -> bool {
    let of_share = |rest: &str| rest.split_once('/').map(|(_, filter)| filter.to_owned());
    let filter = match name.strip_prefix("$queue/") {
        Some(name) => Some(name.to_owned()),
        None if name == "$delayed" => return true,
        None => name.strip_prefix("$share/").and_then(of_share),
    };
    filter.is_some_and(|filter| TopicFilter::parse(&filter, TopicLimits::NONE).is_ok())
}

/// Fills a store.
pub(crate) struct Loader<'a> {
    store: &'a Store,
    journal: Journal,
    /// Shared bodies that are there, and their lengths.
    shared: FxHashMap<u64, u32>,
}

impl<'a> Loader<'a> {
    pub fn new(store: &'a Store) -> Loader<'a> {
        Loader {
            store,
            journal: Journal::default(),
            shared: FxHashMap::default(),
        }
    }

    /// Adds something that is not there yet, with ids of this store. Rows of a
    /// list come in their order.
    ///
    /// # Errors
    /// The disk failed.
    pub fn put(&mut self, stored: &Stored<'_>) -> Result<(), Failed> {
        match stored {
            Stored::Clock(value) => self.value(&[tag::CLOCK], value),
            Stored::Session(list, record) => {
                let will = (record.will.as_deref(), record.will_due);
                let who = Client {
                    identity: &record.identity,
                    own: record.own_rights.as_ref(),
                };
                let whose = (who, record.mount.as_ref());
                let value = SessionRecord::encode(whose, record.expiry, record.absent_since, will);
                self.value(&session_key(*list), &value);
            }
            Stored::List(list, record) => {
                self.value(&list_key(*list), &record.encode());
            }
            Stored::Subscription(session, target, record) => {
                self.value(&subscription_key(*session, *target), &record.encode());
            }
            Stored::Received(session, id) => {
                self.value(&packet_key(tag::RECEIVED, *session, *id), &[]);
            }
            Stored::Releasing(session, id, order) => {
                let key = packet_key(tag::RELEASING, *session, *id);
                self.value(&key, &order.to_be_bytes());
            }
            Stored::Remembered(queue, id, message, until) => {
                let key = dedup_key(*queue, id);
                self.value(&key, &encode_remembered(*message, *until));
            }
            Stored::Row(row) => self.row(row),
            Stored::Retained(message) => {
                let key = retained_key(message.topic_bytes());
                self.value(&key, &message.encode_stored());
            }
        }
        match self.journal.as_bytes().len() < BYTES_MAX {
            true => Ok(()),
            false => self.commit(),
        }
    }

    /// All that was put is in the store's files.
    ///
    /// # Errors
    /// The disk failed.
    pub fn commit(&mut self) -> Result<(), Failed> {
        self.store.append(&mut self.journal);
        self.store.commit(false)?;
        while self.store.move_oldest()? {}
        Ok(())
    }

    fn value(&mut self, key: &[u8], value: &[u8]) {
        let put = Change::Put { key, value };
        self.journal.add(Durability::Flushed, put);
    }

    fn row(&mut self, row: &Row) {
        let about = row.about.encode();
        let bytes = row.message.as_deref().map(Message::encode_stored);
        let (list, number) = (row.list, row.number);
        if row.shared == 0 {
            let body = Body::Own(bytes.as_deref().unwrap_or_default());
            self.push(list, number, &about, body);
            return;
        }
        if let Some(body) = bytes
            && !self.shared.contains_key(&row.shared)
        {
            let (id, body) = (row.shared, &body);
            self.journal
                .add(Durability::Flushed, Change::Share { id, body });
            self.shared.insert(id, body.len() as u32);
        }
        if let Some(len) = self.shared.get(&row.shared) {
            let (id, len) = (row.shared, *len);
            self.push(list, number, &about, Body::Shared { id, len });
        }
    }

    fn push(&mut self, list: ListId, row: u64, about: &[u8], body: Body<'_>) {
        let push = Change::Push {
            list,
            row,
            about,
            body,
        };
        self.journal.add(Durability::Flushed, push);
    }
}
