//! A store in memory for one queue: rows, and nothing that can fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rotamq::config::Durability;
use rotamq::journal::{Change, ListId, changes};
use rotamq::message::{LeaseId, Message, Place, SessionId, Time};
use rotamq::queue::{Ask, Fate, JobRecord, Queue, Stored, StoredJob};

use super::model::Asked;

/// The queue's own; those of other kinds are the next ones.
const LIST: ListId = ListId(1);
/// Of sessions, by slot and generation.
const SESSIONS: u64 = 1 << 40;

/// A page is short, so that reading stops everywhere.
const PAGE: usize = 3;

pub struct Shelf {
    rows: BTreeMap<(ListId, u64), Row>,
    /// The lists there are, and of which kind their rows are.
    lists: Vec<(u8, ListId)>,
    next_sequence: u64,
}

struct Row {
    job: u64,
    ask: Ask<'static>,
    about: Vec<u8>,
    message: Arc<Message>,
}

/// A job that a member has at QoS 2: its key in the queue, its number, and the
/// session.
type Held = (u32, u64, ListId);

/// The list of a session, as rows name it.
pub fn list_of(session: SessionId) -> ListId {
    let Place { slot, generation } = session.0;
    ListId(SESSIONS + (u64::from(generation) << 8) + u64::from(slot))
}

impl Shelf {
    /// For a queue that is new.
    pub fn new(queue: &mut Queue) -> Shelf {
        queue.keep(LIST, Durability::Synced);
        Shelf {
            rows: BTreeMap::new(),
            lists: queue.sources().collect(),
            next_sequence: 0,
        }
    }

    /// A row for what is put in next.
    pub fn push(
        &mut self,
        queue: &mut Queue,
        job: u64,
        message: &Arc<Message>,
        asked: &Asked,
        now: Time,
    ) -> Stored {
        let ask = asked.ask();
        let kind = queue.kind_for(&ask, now);
        let list = queue.list_for(kind).unwrap_or_else(|| {
            let list = ListId(LIST.0 + self.lists.len() as u64);
            queue.add_source(kind, list);
            self.lists.push((kind, list));
            list
        });
        let due = if ask.due > now { ask.due } else { Time::ZERO };
        let row = Row {
            job,
            ask,
            about: JobRecord::new(due).encode(),
            message: message.clone(),
        };
        let sequence = queue.next_sequence();
        self.rows.insert((list, sequence), row);
        self.next_sequence = sequence + 1;
        Stored::row(false)
    }

    /// What the queue has said since.
    pub fn write(&mut self, queue: &mut Queue) {
        let Some(journal) = queue.journal() else {
            return;
        };
        for change in changes(journal.as_bytes()) {
            match change.expect("a change") {
                Change::Amend { list, row, about } => {
                    let row = self.rows.get_mut(&(list, row));
                    row.expect("a row that is amended").about = about.to_vec();
                }
                Change::Remove { list, row, .. } => {
                    let row = self.rows.remove(&(list, row));
                    row.expect("a row that is removed");
                }
                other => panic!("a queue says nothing like {other:?}"),
            }
        }
        journal.clear();
    }

    /// What is stored.
    pub fn jobs(&self) -> BTreeSet<u64> {
        self.rows.values().map(|row| row.job).collect()
    }

    /// Jobs that are not in memory, as long as the queue wants some.
    pub fn read(&mut self, queue: &mut Queue, now: Time) {
        self.write(queue);
        while let Some(wanted) = queue.wants_jobs() {
            let rows = self.page(wanted.list, wanted.from, wanted.rows_max);
            let found = rows.len();
            for row in rows {
                // Its holder was not told of it at the start, and may have it.
                if let Some((key, ..)) = self.load(queue, (wanted.list, row), now) {
                    queue.restore_lease(key, None, now);
                }
            }
            assert_eq!(queue.looked(wanted, found, true), 0, "nothing is lost");
            self.write(queue);
        }
    }

    /// The first rows of a list from there on.
    fn page(&self, list: ListId, from: u64, rows_max: usize) -> Vec<u64> {
        let rows = self.rows.range((list, from)..=(list, u64::MAX));
        let rows = rows.take(rows_max.min(PAGE));
        rows.map(|(&(_, row), _)| row).collect()
    }

    fn load(&self, queue: &mut Queue, (list, sequence): (ListId, u64), now: Time) -> Option<Held> {
        let ask = self.rows[&(list, sequence)].ask;
        let key = queue.load(list, self.stored(list, sequence), &ask, now);
        self.held((list, sequence), key)
    }

    fn stored(&self, list: ListId, sequence: u64) -> StoredJob<'_> {
        let row = &self.rows[&(list, sequence)];
        StoredJob {
            sequence,
            message: row.message.clone(),
            stored: Stored::row(false),
            record: JobRecord::decode(&row.about).expect("a record"),
        }
    }

    fn held(&self, (list, sequence): (ListId, u64), key: Option<u32>) -> Option<Held> {
        let (row, key) = (&self.rows[&(list, sequence)], key?);
        match self.stored(list, sequence).record.fate {
            Fate::Held(session, _) => Some((key, row.job, session)),
            _ => None,
        }
    }

    /// Fills a queue that is new with what is there; these sessions live on.
    /// Tells who has which job at QoS 2.
    pub fn restore(
        &mut self,
        queue: &mut Queue,
        survivors: &[SessionId],
        now: Time,
    ) -> Vec<(u64, SessionId, LeaseId)> {
        queue.keep(LIST, Durability::Synced);
        for &(kind, list) in &self.lists {
            queue.add_source(kind, list);
            let rows = self.rows.range((list, 0)..=(list, u64::MAX));
            let costs = rows.map(|(_, row)| row.message.cost_bytes());
            let costs: Vec<usize> = costs.collect();
            queue.restore(list, self.next_sequence, costs.len(), costs.iter().sum());
        }
        let mut held = self.restore_delayed(queue, now);
        while let Some(wanted) = queue.wants_jobs_at_start() {
            let rows = self.page(wanted.list, wanted.from, wanted.rows_max);
            let found = rows.len();
            for row in rows {
                held.extend(self.load(queue, (wanted.list, row), now));
            }
            assert_eq!(queue.looked(wanted, found, true), 0, "nothing is lost");
        }
        let mut restored = Vec::new();
        for (key, job, list) in held {
            let mut survivors = survivors.iter().copied();
            let member = survivors.find(|&session| list_of(session) == list);
            let lease = queue.restore_lease(key, member, now);
            restored.extend(
                lease
                    .zip(member)
                    .map(|(lease, member)| (job, member, lease)),
            );
        }
        self.write(queue);
        restored
    }

    /// Jobs that were put in with a delay: when each of them is due. Who was
    /// due before may be in somebody's hands.
    fn restore_delayed(&self, queue: &mut Queue, now: Time) -> Vec<Held> {
        let mut held = Vec::new();
        for (&(list, sequence), row) in &self.rows {
            if !queue.is_for_delayed(list) {
                continue;
            }
            let (job, ask) = (self.stored(list, sequence), row.ask);
            let key = queue.restore_delayed(list, job, &ask, now);
            held.extend(self.held((list, sequence), key));
        }
        held
    }
}
