//! What is alive, and where.
//!
//! Owns the places of rows, values and bodies: in the log, or in the base. It
//! is what all changes so far come to. Batches are applied once they are
//! stored; a start applies what the log has to what the base has. Files are
//! read and written elsewhere: by [`super::reading`] and [`super::moving`],
//! which ask here, do their work without the index's lock, and look here again.
//!
//! The base may know more than the log's oldest records, as what is moved is
//! what is alive at last. Applying these records again changes nothing that
//! is in the base: rows are pushed in rising order and never again, and how
//! many of the base's rows have a body is written with what is alive of them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Deref;

use rustc_hash::{FxBuildHasher, FxHashMap};

use super::chunk::Chunk;
use super::keys::Key;
use super::log::Position;
use super::{Row, Summary};
use crate::journal::{Body, Change, ListId, changes};

#[derive(Default)]
pub struct Index {
    pub lists: FxHashMap<ListId, List>,
    /// Those whose last change is in the log.
    pub keys: HashMap<Box<[u8]>, Value, ahash::RandomState>,
    pub bodies: FxHashMap<u64, Shared>,
    /// Rows in the log of dropped lists: they have shared bodies until what
    /// is moved comes by and sees which.
    pub left: FxHashMap<ListId, Rows>,
    pub changed: Changed,
    /// Bodies that may have no row any more.
    unsure: Vec<u64>,
    /// Lists that may have nothing any more.
    emptied: Vec<ListId>,
    /// Rows that could not be read.
    pub lost_rows: u64,
    /// The last batch that was applied.
    pub batch: u64,
}

/// What the base does not know yet.
#[derive(Default)]
pub struct Changed {
    pub chunks: Vec<(ListId, u64)>,
    pub dead_chunks: Vec<(ListId, u64)>,
    pub dead_abouts: Vec<(ListId, u64)>,
    pub bodies: Vec<u64>,
    pub dead_bodies: Vec<u64>,
    pub dropped: Vec<Dropped>,
    /// What would be free in the base if it knew.
    pub dead_bytes: u64,
}

/// A list that was dropped when the base had some of it.
pub struct Dropped {
    pub list: ListId,
    pub chunks: BTreeMap<u64, Chunk>,
}

impl Dropped {
    pub fn bytes(&self) -> u64 {
        let chunks = self.chunks.values();
        chunks.map(|chunk| u64::from(chunk.value_len)).sum()
    }
}

#[derive(Default)]
pub struct List {
    pub next_row: u64,
    /// Rows below are in a chunk, or no more.
    pub moved_to: u64,
    /// `None`: nothing. There may be a million lists that have had something.
    held: Option<Box<Held>>,
}

/// What a list has.
#[derive(Default)]
pub struct Held {
    pub rows: Rows,
    pub chunks: BTreeMap<u64, Chunk>,
    /// Rows of which something else is said than when they were pushed.
    pub amended: FxHashMap<u64, About>,
    pub alive: u64,
    pub body_bytes: u64,
    /// Some row in the log has, or had, a shared body.
    has_shared: bool,
    /// Among those that may have nothing.
    is_noted: bool,
}

static NOTHING: Held = Held {
    rows: Rows(VecDeque::new()),
    chunks: BTreeMap::new(),
    amended: FxHashMap::with_hasher(FxBuildHasher),
    alive: 0,
    body_bytes: 0,
    has_shared: false,
    is_noted: false,
};

impl Deref for List {
    type Target = Held;

    fn deref(&self) -> &Held {
        self.held.as_deref().unwrap_or(&NOTHING)
    }
}

impl List {
    /// To add to it.
    pub fn held_mut(&mut self) -> &mut Held {
        self.held.get_or_insert_default()
    }

    /// To take from it.
    pub fn if_held(&mut self) -> Option<&mut Held> {
        self.held.as_deref_mut()
    }
}

impl Held {
    fn is_nothing(&self) -> bool {
        self.rows.is_empty() && self.chunks.is_empty() && self.amended.is_empty()
    }
}

/// A push in the log.
#[derive(Clone, Copy, Debug)]
pub struct LogRow {
    pub row: u64,
    pub position: Position,
    /// What the push takes there; 0: the row is no more.
    pub len: u32,
    pub body_len: u32,
}

/// Where what is said of a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// `None`: in the base.
    pub position: Option<Position>,
    pub len: u16,
    /// The base has something under this row's key, this or older.
    pub has_key: bool,
}

/// The last change of a key in the log.
#[derive(Clone, Copy, Debug)]
pub struct Value {
    pub position: Position,
    /// `None`: deleted.
    pub len: Option<u32>,
}

/// A body that rows share.
#[derive(Debug)]
pub struct Shared {
    /// Of the change; `None`: in the base.
    pub position: Option<Position>,
    pub len: u32,
    pub log_rows: u32,
    pub base_rows: u32,
    /// The base has another `base_rows`.
    pub is_changed: bool,
}

/// Where to read the next rows of a list.
pub enum Plan {
    Chunk {
        first: u64,
        rows: Vec<(u64, Option<About>)>,
    },
    Log(Vec<(LogRow, Option<About>)>),
    End,
}

/// As many lists may keep room though they have nothing.
const EMPTIED_MAX: usize = 64;

/// From the beginning of a change to its bytes.
pub const AMEND_HEAD: usize = 1 + 8 + 8 + 2;
pub const PUT_HEAD: usize = 1 + 4 + 4;
pub const SHARE_HEAD: usize = 1 + 8 + 4;

impl Index {
    /// Applies one record, which is at `at`. `false`: it ends in bytes that no
    /// journal wrote.
    pub fn apply(&mut self, at: Position, record: &[u8]) -> bool {
        let mut position = at;
        for change in changes(record) {
            let Some(change) = change else { return false };
            let len = change.encoded_len();
            self.apply_change(position, len, &change);
            position = position.plus(len);
        }
        true
    }

    /// A body that had no row for a moment, within a batch, is kept: its rows
    /// and what ends them may be of several records.
    pub fn end_batch(&mut self, batch: u64) {
        self.batch = batch;
        self.bury();
        if self.emptied.len() >= EMPTIED_MAX {
            self.shrink_emptied();
        }
    }

    /// One that has something again was only empty for a moment, and keeps its
    /// room.
    fn shrink_emptied(&mut self) {
        for id in std::mem::take(&mut self.emptied) {
            if let Some(list) = self.lists.get_mut(&id)
                && let Some(held) = &mut list.held
            {
                held.is_noted = false;
                if held.is_nothing() {
                    list.held = None;
                }
            }
        }
    }

    /// Takes a key of the base, in their order. `false`: none of ours.
    pub fn load(&mut self, key: &[u8], value_len: usize) -> bool {
        match Key::decode(key) {
            Some(Key::List { list, moved_to }) => {
                let list = self.lists.entry(list).or_default();
                list.moved_to = list.moved_to.max(moved_to);
                list.next_row = list.next_row.max(moved_to);
            }
            Some(Key::Alive { list, first, chunk }) => {
                let next_row = chunk.last.saturating_add(1);
                let list = self.lists.entry(list).or_default();
                list.moved_to = list.moved_to.max(next_row);
                list.next_row = list.next_row.max(next_row);
                let list = list.held_mut();
                // Of two, which only damage can leave, the one after.
                if let Some(other) = list.chunks.get(&first) {
                    if other.alive() <= chunk.alive() {
                        return true;
                    }
                    list.alive -= u64::from(other.alive());
                    list.body_bytes -= other.body_bytes;
                }
                list.alive += u64::from(chunk.alive());
                list.body_bytes += chunk.body_bytes;
                list.chunks.insert(first, chunk);
            }
            Some(Key::About { list, row }) => {
                // Which rows there are is not known yet: see `loaded`.
                let about = About {
                    position: None,
                    len: 0,
                    has_key: true,
                };
                let list = self.lists.entry(list).or_default();
                list.held_mut().amended.insert(row, about);
            }
            Some(Key::Body(id)) => {
                self.body(id).len = value_len as u32;
            }
            Some(Key::Refs { body, rows }) => {
                let body = self.body(body);
                body.base_rows = body.base_rows.max(rows);
            }
            Some(Key::Rows { .. } | Key::Run(_) | Key::Value(_)) => {}
            None => return false,
        }
        true
    }

    fn body(&mut self, id: u64) -> &mut Shared {
        self.bodies.entry(id).or_insert(Shared {
            position: None,
            len: 0,
            log_rows: 0,
            base_rows: 0,
            is_changed: false,
        })
    }

    /// Takes a chunk of the base of which nothing else is known.
    pub fn load_chunk(&mut self, id: ListId, first: u64, mut chunk: Chunk) {
        chunk.is_changed = true;
        self.changed.chunks.push((id, first));
        let list = self.lists.entry(id).or_default();
        list.moved_to = list.moved_to.max(chunk.last.saturating_add(1));
        list.next_row = list.next_row.max(list.moved_to);
        let list = list.held_mut();
        list.alive += u64::from(chunk.alive());
        list.body_bytes += chunk.body_bytes;
        list.chunks.insert(first, chunk);
    }

    /// A chunk can't be read. Its rows are no more; what the base has of it
    /// is not touched. How many rows that were.
    pub fn lose_chunk(&mut self, id: ListId, first: u64) -> u32 {
        let Some(list) = self.lists.get_mut(&id).and_then(List::if_held) else {
            return 0;
        };
        let Some(chunk) = list.chunks.remove(&first) else {
            return 0;
        };
        self.lost_rows += u64::from(chunk.alive());
        list.alive -= u64::from(chunk.alive());
        list.body_bytes -= chunk.body_bytes;
        for row in chunk.rows(first, first) {
            list.amended.remove(&row);
        }
        chunk.alive()
    }

    pub fn set_value_len(&mut self, id: ListId, first: u64, len: usize) {
        let list = self.lists.get_mut(&id).and_then(List::if_held);
        if let Some(chunk) = list.and_then(|list| list.chunks.get_mut(&first)) {
            chunk.value_len = len as u32;
        }
    }

    /// Of all lists and bodies.
    pub fn highest_id(&self) -> u64 {
        let lists = self.lists.keys().map(|list| list.0);
        lists.chain(self.bodies.keys().copied()).max().unwrap_or(0)
    }

    /// All keys of the base were taken.
    pub fn loaded(&mut self) {
        for (id, list) in &mut self.lists {
            let Some(held) = &mut list.held else {
                continue;
            };
            let Held {
                chunks, amended, ..
            } = &mut **held;
            amended.retain(|row, _| {
                let is_alive = has_chunk_row(chunks, *row);
                if !is_alive {
                    self.changed.dead_abouts.push((*id, *row));
                }
                is_alive
            });
        }
        self.lists.retain(|_, list| list.moved_to > 0);
    }

    /// The whole log was applied. Only now it can be told that nobody needs a
    /// body: the base's number of its rows was that of a later moment than
    /// that of the records.
    pub fn recovered(&mut self, batch: u64) {
        self.unsure.clear();
        self.unsure.extend(self.bodies.keys());
        self.end_batch(batch);
    }

    fn apply_change(&mut self, position: Position, len: usize, change: &Change<'_>) {
        match *change {
            Change::Push {
                list, row, body, ..
            } => {
                let list = self.lists.entry(list).or_default();
                // After a start: it was moved already.
                if row < list.next_row {
                    return;
                }
                list.next_row = row.saturating_add(1);
                let list = list.held_mut();
                if let Body::Shared { id, .. } = body {
                    list.has_shared = true;
                    if let Some(body) = self.bodies.get_mut(&id) {
                        body.log_rows += 1;
                    }
                }
                let body_len = change.body_len() as u32;
                list.alive += 1;
                list.body_bytes += u64::from(body_len);
                list.rows.push(LogRow {
                    row,
                    position,
                    len: len as u32,
                    body_len,
                });
            }
            Change::Amend { list, row, about } => {
                let Some(list) = self.lists.get_mut(&list) else {
                    return;
                };
                if list.has(row)
                    && let Some(list) = list.if_held()
                {
                    let has_key = list.amended.get(&row).is_some_and(|about| about.has_key);
                    let about = About {
                        position: Some(position),
                        len: about.len() as u16,
                        has_key,
                    };
                    list.amended.insert(row, about);
                }
            }
            Change::Remove { list, row, shared } => {
                self.remove(list, row, shared);
            }
            Change::Drop { list } => self.drop_list(list),
            Change::Put { key, value } => {
                let value = Value {
                    position,
                    len: Some(value.len() as u32),
                };
                self.set(key, value);
            }
            Change::Delete { key } => {
                let value = Value {
                    position,
                    len: None,
                };
                self.set(key, value);
            }
            Change::Share { id, body } => {
                // After a start: it may have been moved already.
                self.bodies.entry(id).or_insert(Shared {
                    position: Some(position),
                    len: body.len() as u32,
                    log_rows: 0,
                    base_rows: 0,
                    is_changed: false,
                });
                self.unsure.push(id);
            }
        }
    }

    fn set(&mut self, key: &[u8], value: Value) {
        match self.keys.get_mut(key) {
            Some(place) => *place = value,
            None => drop(self.keys.insert(key.into(), value)),
        }
    }

    /// Whether it was alive.
    pub fn remove(&mut self, id: ListId, row: u64, shared: u64) -> bool {
        let Some(list) = self.lists.get_mut(&id) else {
            return false;
        };
        let moved_to = list.moved_to;
        let Some(list) = &mut list.held else {
            return false;
        };
        let body = match shared {
            0 => None,
            shared => self.bodies.get_mut(&shared),
        };
        if row >= moved_to {
            let Some(gone) = list.rows.remove(row) else {
                return false;
            };
            list.alive -= 1;
            list.body_bytes -= u64::from(gone.body_len);
            if let Some(body) = body {
                body.log_rows = body.log_rows.saturating_sub(1);
                self.unsure.push(shared);
            }
        } else {
            let Some((first, chunk)) = chunk_mut(&mut list.chunks, row) else {
                return false;
            };
            let Some(body_bytes) = chunk.remove(first, row, shared != 0) else {
                return false;
            };
            list.alive -= 1;
            list.body_bytes -= body_bytes;
            if chunk.alive() == 0 {
                self.changed.dead_chunks.push((id, first));
                self.changed.dead_bytes += u64::from(chunk.value_len);
                list.chunks.remove(&first);
            } else if !chunk.is_changed {
                chunk.is_changed = true;
                self.changed.chunks.push((id, first));
            }
            if let Some(body) = body {
                body.base_rows = body.base_rows.saturating_sub(1);
                if !body.is_changed {
                    body.is_changed = true;
                    self.changed.bodies.push(shared);
                }
                self.unsure.push(shared);
            }
        }
        if !list.amended.is_empty()
            && let Some(about) = list.amended.remove(&row)
        {
            if about.has_key {
                self.changed.dead_abouts.push((id, row));
            }
            if list.amended.is_empty() && list.amended.capacity() > ROOM_KEPT {
                list.amended = FxHashMap::default();
            }
        }
        if list.alive == 0 && !list.is_noted {
            list.is_noted = true;
            self.emptied.push(id);
        }
        true
    }

    fn drop_list(&mut self, id: ListId) {
        let Some(list) = self.lists.remove(&id) else {
            return;
        };
        for (row, about) in &list.amended {
            if about.has_key {
                self.changed.dead_abouts.push((id, *row));
            }
        }
        let moved_to = list.moved_to;
        let held = list.held.map_or_else(Held::default, |held| *held);
        if held.has_shared && !held.rows.is_empty() {
            self.left.insert(id, held.rows);
        }
        if moved_to > 0 {
            let dropped = Dropped {
                list: id,
                chunks: held.chunks,
            };
            self.changed.dead_bytes += dropped.bytes();
            self.changed.dropped.push(dropped);
        }
    }

    /// A body has a row less in the log.
    pub fn leave_body(&mut self, id: u64) {
        if let Some(body) = self.bodies.get_mut(&id) {
            body.log_rows = body.log_rows.saturating_sub(1);
            self.unsure.push(id);
        }
    }

    /// A body has so many rows less in the base.
    pub fn leave_base_body(&mut self, id: u64) {
        if let Some(body) = self.bodies.get_mut(&id) {
            body.base_rows = body.base_rows.saturating_sub(1);
            self.unsure.push(id);
        }
        self.change_body(id);
    }

    /// The base has to be told how many of its rows have this body.
    pub fn change_body(&mut self, id: u64) {
        if let Some(body) = self.bodies.get_mut(&id)
            && !body.is_changed
        {
            body.is_changed = true;
            self.changed.bodies.push(id);
        }
    }

    /// Lets go of bodies that nobody has any more.
    pub fn bury(&mut self) {
        while let Some(id) = self.unsure.pop() {
            let Some(body) = self.bodies.get(&id) else {
                continue;
            };
            if body.log_rows == 0 && body.base_rows == 0 {
                if body.position.is_none() {
                    self.changed.dead_bodies.push(id);
                    self.changed.dead_bytes += u64::from(body.len);
                }
                self.bodies.remove(&id);
            }
        }
    }

    /// Where the next rows of a list are, from `from` on: in one chunk, or in
    /// the log, of which not much more than `bytes_max` are told.
    pub fn plan(&self, id: ListId, from: u64, rows_max: usize, bytes_max: usize) -> Plan {
        let Some(list) = self.lists.get(&id) else {
            return Plan::End;
        };
        if let Some((first, chunk)) = list.next_chunk(from) {
            let rows = chunk.rows(first, from).take(rows_max);
            return Plan::Chunk {
                first,
                rows: rows.map(|row| (row, list.about(row))).collect(),
            };
        }
        let mut bytes = 0;
        let rows: Vec<_> = list
            .rows
            .from(from)
            .take(rows_max)
            .take_while(|row| {
                let fits = bytes < bytes_max.max(1);
                bytes += row.body_len.max(1) as usize;
                fits
            })
            .map(|row| (*row, list.about(row.row)))
            .collect();
        match rows.is_empty() {
            true => Plan::End,
            false => Plan::Log(rows),
        }
    }

    pub fn summaries(&self) -> Vec<(ListId, Summary)> {
        let mut all: Vec<_> = self
            .lists
            .iter()
            .map(|(id, list)| (*id, list.summary()))
            .collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }
}

impl List {
    /// Whether a row is alive.
    pub fn has(&self, row: u64) -> bool {
        match row >= self.moved_to {
            true => self.rows.get(row).is_some(),
            false => has_chunk_row(&self.chunks, row),
        }
    }

    /// Rows in the log below this one could be read no more when they were to
    /// be moved. How many.
    pub fn lose_below(&mut self, row: u64) -> u64 {
        let mut lost = 0;
        if let Some(held) = self.if_held() {
            while let Some(gone) = held.rows.pop_below(row) {
                held.alive -= 1;
                held.body_bytes -= u64::from(gone.body_len);
                held.amended.remove(&gone.row);
                lost += 1;
            }
        }
        lost
    }

    fn about(&self, row: u64) -> Option<About> {
        match self.amended.is_empty() {
            true => None,
            false => self.amended.get(&row).copied(),
        }
    }

    /// The first chunk that has a row alive from `from` on.
    fn next_chunk(&self, from: u64) -> Option<(u64, &Chunk)> {
        let here = self.chunks.range(..=from).next_back();
        let after = self.chunks.range(from.saturating_add(1)..);
        here.into_iter()
            .chain(after)
            .find(|(first, chunk)| chunk.next(**first, from).is_some())
            .map(|(first, chunk)| (*first, chunk))
    }

    fn summary(&self) -> Summary {
        let in_chunk = self
            .next_chunk(0)
            .and_then(|(first, chunk)| chunk.next(first, 0));
        let in_log = || self.rows.from(0).next().map(|row| row.row);
        Summary {
            first_row: in_chunk.or_else(in_log).unwrap_or(self.next_row),
            next_row: self.next_row,
            rows: self.alive,
            body_bytes: self.body_bytes,
        }
    }
}

fn has_chunk_row(chunks: &BTreeMap<u64, Chunk>, row: u64) -> bool {
    let chunk = chunks.range(..=row).next_back();
    chunk.is_some_and(|(first, chunk)| chunk.has(*first, row))
}

fn chunk_mut(chunks: &mut BTreeMap<u64, Chunk>, row: u64) -> Option<(u64, &mut Chunk)> {
    let (first, chunk) = chunks.range_mut(..=row).next_back()?;
    Some((*first, chunk))
}

/// Rows of a list in the log, in rising order, gone ones among them. The
/// first is alive.
#[derive(Debug, Default)]
pub struct Rows(VecDeque<LogRow>);

/// Room for so many entries is not given back.
const ROOM_KEPT: usize = 1024;

impl Rows {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A row above all others.
    fn push(&mut self, row: LogRow) {
        self.0.push_back(row);
    }

    pub fn get(&self, row: u64) -> Option<&LogRow> {
        let found = self.0.get(self.at(row))?;
        (found.row == row && found.len > 0).then_some(found)
    }

    /// What it was, if it was alive.
    pub fn remove(&mut self, row: u64) -> Option<LogRow> {
        let at = self.at(row);
        let found = self.0.get_mut(at)?;
        if found.row != row || found.len == 0 {
            return None;
        }
        let gone = *found;
        found.len = 0;
        if at == 0 {
            self.trim();
        }
        Some(gone)
    }

    /// The first, which is alive, if it is below.
    pub fn pop_below(&mut self, row: u64) -> Option<LogRow> {
        let first = self.0.pop_front_if(|first| first.row < row)?;
        self.trim();
        Some(first)
    }

    /// The first, if it is in this segment or an older one.
    pub fn pop_through(&mut self, segment: u64) -> Option<LogRow> {
        let first = self
            .0
            .pop_front_if(|first| first.position.segment() <= segment)?;
        self.trim();
        Some(first)
    }

    /// Those alive from a row on.
    fn from(&self, row: u64) -> impl Iterator<Item = &LogRow> {
        self.0.range(self.at(row)..).filter(|row| row.len > 0)
    }

    /// Where the first is that is not below `row`. Where no number was left
    /// out, that is at once.
    fn at(&self, row: u64) -> usize {
        let Some(first) = self.0.front() else {
            return 0;
        };
        let Some(ahead) = row.checked_sub(first.row) else {
            return 0;
        };
        let guess = usize::try_from(ahead).map_or(self.0.len(), |ahead| ahead.min(self.0.len()));
        match self.0.get(guess) {
            Some(found) if found.row == row => guess,
            _ => partition_point(&self.0, guess, row),
        }
    }

    fn trim(&mut self) {
        while self.0.pop_front_if(|first| first.len == 0).is_some() {}
        let room = self.0.capacity();
        if room > ROOM_KEPT && self.0.len() < room / 8 {
            self.0.shrink_to(room / 4);
        }
    }
}

/// Among the first `end`.
fn partition_point(rows: &VecDeque<LogRow>, end: usize, row: u64) -> usize {
    let (mut low, mut high) = (0, end);
    while low < high {
        let middle = low + (high - low) / 2;
        match rows[middle].row < row {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    low
}

impl Row {
    /// As it was pushed.
    pub fn of(change: Change<'_>) -> Option<Row> {
        let Change::Push {
            row, about, body, ..
        } = change
        else {
            return None;
        };
        let (shared, body) = match body {
            Body::Own(bytes) => (0, bytes.to_vec()),
            Body::Shared { id, .. } => (id, Vec::new()),
        };
        Some(Row {
            row,
            about: about.to_vec(),
            shared,
            body,
        })
    }
}
