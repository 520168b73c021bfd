//! What is still alive in the log's oldest segment goes to the base.
//!
//! Owns the order of that: the segment is read, and what is alive of it is
//! gathered; the log is synced as far as the index knows it; all goes to the
//! base at once; the index is told; the segment is freed. What else the base
//! does not know yet, rows of it that are no more, goes with it. Commits go on
//! meanwhile: the index is locked for a record or a chunk at a time, and what
//! has died between two steps is found in the last.
//!
//! Stopped before the base has it all, nothing has happened. Stopped after
//! it, the segment is applied again at the next start, to no effect.

use std::collections::BTreeMap;
use std::io;

use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};

use super::base::{Base, BaseChange};
use super::chunk::Chunk;
use super::index::{About, Dropped, Index, List, Value};
use super::keys::Key;
use super::log::Position;
use crate::config::Durability;
use crate::journal::{Body, Change, Journal, ListId, changes};

/// What is on its way to the base.
#[derive(Default)]
pub struct Move {
    lists: FxHashMap<ListId, Moved>,
    values: Vec<MovedValue>,
    bodies: Vec<(u64, Vec<u8>)>,
    /// What is said of rows since they were pushed.
    abouts: FxHashMap<(ListId, u64), Said>,
    /// How many of the rows have a body.
    refs: FxHashMap<u64, u32>,
    /// Dropped lists, with the bodies that their rows in the base had.
    dropped: Vec<(Dropped, Vec<u64>)>,
}

/// The last change of a key.
struct MovedValue {
    key: Box<[u8]>,
    position: Position,
    /// `None`: deleted.
    value: Option<Vec<u8>>,
}

struct Said {
    position: Position,
    about: Box<[u8]>,
    /// It is said in the row's chunk, which is being written.
    in_chunk: bool,
}

#[derive(Default)]
struct Moved {
    moved_to: u64,
    chunks: Vec<Filling>,
}

/// A chunk that is filled.
#[derive(Default)]
struct Filling {
    rows: Vec<MovedRow>,
    bytes: Vec<u8>,
    /// What the bytes took when they were written.
    value_len: usize,
}

struct MovedRow {
    row: u64,
    body_len: u32,
    /// 0: its own body.
    shared: u64,
}

impl Move {
    /// Takes what is alive of a record of the segment.
    pub fn gather(&mut self, index: &mut Index, at: Position, record: &[u8]) {
        let mut offset = 0;
        for change in changes(record).flatten() {
            let position = at.plus(offset);
            let bytes = &record[offset..][..change.encoded_len()];
            offset += bytes.len();
            match change {
                Change::Push {
                    list, row, body, ..
                } => {
                    let shared = match body {
                        Body::Own(_) => 0,
                        Body::Shared { id, .. } => id,
                    };
                    self.gather_row(index, position, bytes, (list, row), shared);
                }
                Change::Amend { list, row, about } => {
                    let said = index
                        .lists
                        .get(&list)
                        .and_then(|list| list.amended.get(&row));
                    if said.is_some_and(|said| said.position == Some(position)) {
                        let said = Said {
                            position,
                            about: about.into(),
                            in_chunk: false,
                        };
                        self.abouts.insert((list, row), said);
                    }
                }
                Change::Put { key, value } => {
                    self.gather_value(index, position, key, Some(value));
                }
                Change::Delete { key } => {
                    self.gather_value(index, position, key, None);
                }
                Change::Share { id, body } => {
                    let place = index.bodies.get(&id);
                    if place.is_some_and(|place| place.position == Some(position)) {
                        self.bodies.push((id, body.to_vec()));
                    }
                }
                Change::Remove { .. } | Change::Drop { .. } => {}
            }
        }
    }

    fn gather_row(
        &mut self,
        index: &mut Index,
        position: Position,
        bytes: &[u8],
        (id, row): (ListId, u64),
        shared: u64,
    ) {
        let Some(list) = index.lists.get(&id) else {
            leave(index, id, row, shared);
            return;
        };
        // It was moved before the last start, which came before the segment
        // was freed.
        if row < list.moved_to {
            return;
        }
        let moved = self.lists.entry(id).or_default();
        moved.moved_to = row.saturating_add(1);
        let Some(place) = list.rows.get(row) else {
            return;
        };
        if place.position != position {
            return;
        }
        let last = match moved.chunks.last_mut() {
            Some(last) if last.has_room(row) => last,
            _ => {
                moved.chunks.push(Filling::default());
                moved.chunks.last_mut().expect("was just pushed")
            }
        };
        last.bytes.extend_from_slice(bytes);
        last.rows.push(MovedRow {
            row,
            body_len: place.body_len,
            shared,
        });
        if shared != 0 {
            *self.refs.entry(shared).or_default() += 1;
        }
    }

    fn gather_value(
        &mut self,
        index: &Index,
        position: Position,
        key: &[u8],
        value: Option<&[u8]>,
    ) {
        if is_at(index, key, position) {
            self.values.push(MovedValue {
                key: key.into(),
                position,
                value: value.map(<[u8]>::to_vec),
            });
        }
    }

    /// Takes lists that were dropped, and looks which bodies their rows had.
    pub fn gather_dropped(&mut self, index: &Mutex<Index>, base: &Base) -> io::Result<()> {
        let dropped = std::mem::take(&mut index.lock().changed.dropped);
        for dropped in dropped {
            let mut bodies = Vec::new();
            for (first, chunk) in &dropped.chunks {
                if chunk.shared > 0 {
                    let list = dropped.list;
                    let key = Key::Rows {
                        list,
                        first: *first,
                    };
                    // Of a chunk that can't be read the bodies stay.
                    let rows = match base.get(&key.encode()) {
                        Err(error) if error.kind() != io::ErrorKind::InvalidData => {
                            return Err(error);
                        }
                        rows => rows.ok().flatten().unwrap_or_default(),
                    };
                    bodies.extend(shared_bodies(&rows, *first, chunk));
                }
            }
            self.dropped.push((dropped, bodies));
        }
        Ok(())
    }

    /// What the base is to be told, with all that the index has for it, as of
    /// the batch that is given back.
    pub fn write(&mut self, index: &Mutex<Index>) -> (Writes, u64) {
        let mut writes = Writes::default();
        self.forget_dropped(&mut index.lock(), &mut writes);
        self.write_rows(&mut writes);
        let mut index = index.lock();
        self.write_known(&mut index, &mut writes);
        (writes, index.batch)
    }

    /// Lists that were dropped, some since their rows were gathered.
    fn forget_dropped(&mut self, index: &mut Index, writes: &mut Writes) {
        for (dropped, bodies) in self.dropped.drain(..) {
            writes.set(Key::of_list(dropped.list), None);
            for first in dropped.chunks.keys() {
                writes.delete_chunk(dropped.list, *first);
            }
            bodies
                .into_iter()
                .for_each(|body| index.leave_base_body(body));
        }
        let refs = &mut self.refs;
        self.lists.retain(|id, moved| {
            if index.lists.contains_key(id) {
                return true;
            }
            for row in moved.chunks.iter().flat_map(|chunk| &chunk.rows) {
                leave(index, *id, row.row, row.shared);
                if let Some(rows) = refs.get_mut(&row.shared) {
                    *rows -= 1;
                }
            }
            false
        });
        self.abouts
            .retain(|(id, _), _| index.lists.contains_key(id));
        index.bury();
    }

    fn write_rows(&mut self, writes: &mut Writes) {
        for (&list, moved) in &mut self.lists {
            let moved_to = moved.moved_to;
            writes.set(Key::of_list(list), Some(Key::List { list, moved_to }));
            for filling in &mut moved.chunks {
                filling.amend(list, &mut self.abouts);
                filling.value_len = filling.bytes.len();
                let first = filling.first();
                let chunk = filling.chunk();
                let rows = std::mem::take(&mut filling.bytes);
                writes.put(Key::Rows { list, first }, rows);
                let alive = Key::Alive { list, first, chunk };
                writes.set(Key::of_alive(list, first), Some(alive));
            }
        }
        for (&(list, row), said) in self.abouts.iter().filter(|(_, said)| !said.in_chunk) {
            writes.put(Key::About { list, row }, said.about.to_vec());
        }
        for moved in &mut self.values {
            match moved.value.take() {
                Some(value) => writes.put(Key::Value(&moved.key), value),
                None => writes.delete(Key::Value(&moved.key)),
            }
        }
    }

    fn write_known(&mut self, index: &mut Index, writes: &mut Writes) {
        let changed = std::mem::take(&mut index.changed);
        // Lists that were dropped since are for the next time, but the state of
        // their chunks has to fit to what is written of bodies.
        let mut dropped = changed.dropped;
        let mut by_list: FxHashMap<ListId, &mut Dropped> = dropped
            .iter_mut()
            .map(|dropped| (dropped.list, dropped))
            .collect();
        for (list, first) in changed.chunks {
            let chunks = match index.lists.get_mut(&list) {
                Some(list) => list.if_held().map(|list| &mut list.chunks),
                None => by_list.get_mut(&list).map(|list| &mut list.chunks),
            };
            if let Some(chunk) = chunks.and_then(|chunks| chunks.get_mut(&first)) {
                chunk.is_changed = false;
                let chunk = chunk.clone();
                let alive = Key::Alive { list, first, chunk };
                writes.set(Key::of_alive(list, first), Some(alive));
            }
        }
        index.changed.dead_bytes = dropped.iter().map(Dropped::bytes).sum();
        index.changed.dropped = dropped;
        for (list, first) in changed.dead_chunks {
            writes.delete_chunk(list, first);
        }
        for (list, row) in changed.dead_abouts {
            writes.delete(Key::About { list, row });
        }
        for body in changed.dead_bodies {
            writes.delete(Key::Body(body));
            writes.set(Key::of_refs(body), None);
        }
        self.bodies.retain_mut(|(id, body)| {
            let is_alive = index.bodies.contains_key(id);
            if is_alive {
                writes.put(Key::Body(*id), std::mem::take(body));
            }
            is_alive
        });
        let moved = self.refs.keys().copied();
        let bodies: FxHashSet<u64> = changed.bodies.into_iter().chain(moved).collect();
        for id in bodies {
            if let Some(body) = index.bodies.get_mut(&id) {
                body.is_changed = false;
                let moved = self.refs.get(&id).copied().unwrap_or_default();
                let rows = body.base_rows + moved;
                let refs = (rows > 0).then_some(Key::Refs { body: id, rows });
                writes.set(Key::of_refs(id), refs);
            }
        }
    }

    /// The base has it all. `segment`: the one that was gathered.
    pub fn install(self, index: &Mutex<Index>, segment: Option<u64>) {
        {
            let mut index = index.lock();
            for (id, _) in &self.bodies {
                match index.bodies.get_mut(id) {
                    Some(body) => body.position = None,
                    None => index.changed.dead_bodies.push(*id),
                }
            }
        }
        for (id, moved) in self.lists {
            let mut chunks = BTreeMap::new();
            for filling in moved.chunks {
                filling.install(&mut index.lock(), id, &mut chunks);
            }
            finish_list(&mut index.lock(), id, moved.moved_to, chunks);
        }
        let mut index = index.lock();
        for ((list, row), said) in self.abouts {
            install_about(&mut index, list, row, &said);
        }
        for MovedValue { key, position, .. } in self.values {
            if is_at(&index, &key, position) {
                index.keys.remove(&key);
            }
        }
        if index.keys.is_empty() {
            index.keys.shrink_to_fit();
        }
        if let Some(segment) = segment {
            index.left.retain(|_, rows| {
                while rows.pop_through(segment).is_some() {}
                !rows.is_empty()
            });
        }
        index.bury();
    }
}

/// The row of a dropped list has its body no more.
fn leave(index: &mut Index, list: ListId, row: u64, shared: u64) {
    let left = index.left.get_mut(&list);
    if left.is_some_and(|rows| rows.remove(row).is_some()) && shared != 0 {
        index.leave_body(shared);
    }
}

fn is_at(index: &Index, key: &[u8], position: Position) -> bool {
    let place: Option<&Value> = index.keys.get(key);
    place.is_some_and(|place| place.position == position)
}

/// What is in the log of a list is behind these rows.
fn finish_list(index: &mut Index, id: ListId, moved_to: u64, chunks: BTreeMap<u64, Chunk>) {
    let Some(list) = index.lists.get_mut(&id) else {
        // It was dropped since the base was written; the rows' bodies know.
        index.changed.dropped.push(Dropped { list: id, chunks });
        return;
    };
    index.lost_rows += list.lose_below(moved_to);
    list.moved_to = moved_to;
}

fn install_about(index: &mut Index, id: ListId, row: u64, said: &Said) {
    let list = index.lists.get_mut(&id).and_then(List::if_held);
    let place = list.and_then(|list| match said.in_chunk {
        true => {
            let place = list.amended.get(&row)?;
            if place.position == Some(said.position) {
                list.amended.remove(&row);
            }
            None
        }
        false => list.amended.get_mut(&row),
    });
    match place {
        Some(About {
            position, has_key, ..
        }) => {
            *has_key = true;
            position.take_if(|position| *position == said.position);
        }
        None if said.in_chunk => {}
        None => index.changed.dead_abouts.push((id, row)),
    }
}

impl Filling {
    fn has_room(&self, row: u64) -> bool {
        self.rows.len() < Chunk::ROWS_MAX
            && self.bytes.len() < Chunk::BYTES
            && row - self.first() < Chunk::SPAN_MAX
    }

    fn first(&self) -> u64 {
        self.rows.first().expect("no chunk is without rows").row
    }

    fn chunk(&self) -> Chunk {
        let rows = self.rows.iter();
        let rows = rows.map(|row| (row.row, row.body_len, row.shared != 0));
        Chunk::new(rows, self.value_len).expect("no chunk is without rows")
    }

    /// Writes into the rows what was said of them since.
    fn amend(&mut self, list: ListId, abouts: &mut FxHashMap<(ListId, u64), Said>) {
        if abouts.is_empty() {
            return;
        }
        let mut is_amended = false;
        for row in &self.rows {
            if let Some(said) = abouts.get_mut(&(list, row.row)) {
                said.in_chunk = true;
                is_amended = true;
            }
        }
        if !is_amended {
            return;
        }
        let mut journal = Journal::default();
        for change in changes(&self.bytes).flatten() {
            let mut change = change;
            if let Change::Push { row, about, .. } = &mut change
                && let Some(said) = abouts.get(&(list, *row))
            {
                *about = &said.about;
            }
            journal.add(Durability::Synced, change);
        }
        self.bytes = journal.as_bytes().to_vec();
    }

    /// Its rows are in the base: those that are still alive by now.
    fn install(self, index: &mut Index, id: ListId, dropped: &mut BTreeMap<u64, Chunk>) {
        let first = self.first();
        let mut chunk = self.chunk();
        let Some(list) = index.lists.get_mut(&id) else {
            for row in self.rows.iter().filter(|row| row.shared != 0) {
                leave(index, id, row.row, row.shared);
                index.change_body(row.shared);
            }
            // Nothing is to be read of it any more.
            chunk.shared = 0;
            dropped.insert(first, chunk);
            return;
        };
        let mut moved = Vec::new();
        let mut gone = Vec::new();
        for row in &self.rows {
            index.lost_rows += list.lose_below(row.row);
            let rows = list.if_held().map(|list| &mut list.rows);
            let place = rows.and_then(|rows| rows.pop_below(row.row.saturating_add(1)));
            let is_alive = place.is_some_and(|place| place.row == row.row && place.len > 0);
            if !is_alive {
                chunk.remove_of(first, row.row, row.shared != 0, u64::from(row.body_len));
            }
            if row.shared != 0 {
                match is_alive {
                    true => moved.push(row.shared),
                    false => gone.push(row.shared),
                }
            }
        }
        list.moved_to = chunk.last.saturating_add(1);
        if chunk.alive() == 0 {
            index.changed.dead_chunks.push((id, first));
            index.changed.dead_bytes += u64::from(chunk.value_len);
        } else {
            if (chunk.alive() as usize) < self.rows.len() {
                chunk.is_changed = true;
                index.changed.chunks.push((id, first));
            }
            list.held_mut().chunks.insert(first, chunk);
        }
        for shared in moved {
            if let Some(body) = index.bodies.get_mut(&shared) {
                body.log_rows = body.log_rows.saturating_sub(1);
                body.base_rows += 1;
            }
        }
        gone.into_iter()
            .for_each(|shared| index.change_body(shared));
    }
}

/// The bodies of those rows of a chunk that were alive.
fn shared_bodies(rows: &[u8], first: u64, chunk: &Chunk) -> Vec<u64> {
    let rows = changes(rows).flatten().filter_map(|change| match change {
        Change::Push {
            row,
            body: Body::Shared { id, .. },
            ..
        } => chunk.has(first, row).then_some(id),
        _ => None,
    });
    rows.collect()
}

/// What the base is to be told.
#[derive(Default)]
pub struct Writes {
    changes: Vec<BaseChange>,
    sets: Vec<Set>,
}

/// Of all keys that begin so this one is to be there, or none.
struct Set {
    prefix: Box<[u8]>,
    key: Option<Box<[u8]>>,
}

impl Writes {
    fn put(&mut self, key: Key<'_>, value: Vec<u8>) {
        self.changes.push(BaseChange::Put(key.encode(), value));
    }

    fn delete(&mut self, key: Key<'_>) {
        self.changes.push(BaseChange::Delete(key.encode()));
    }

    fn set(&mut self, prefix: Box<[u8]>, key: Option<Key<'_>>) {
        let key = key.map(|key| key.encode());
        self.sets.push(Set { prefix, key });
    }

    fn delete_chunk(&mut self, list: ListId, first: u64) {
        self.delete(Key::Rows { list, first });
        self.set(Key::of_alive(list, first), None);
    }

    /// All of it or nothing, and synced.
    pub fn apply(self, base: &Base) -> io::Result<()> {
        let mut changes = self.changes;
        for Set { prefix, key } in self.sets {
            let mut is_there = false;
            base.keys(&prefix, &mut |other, _| match &key {
                Some(key) if **key == *other => is_there = true,
                _ => changes.push(BaseChange::Delete(other.into())),
            });
            if let Some(key) = key
                && !is_there
            {
                changes.push(BaseChange::Put(key, Vec::new()));
            }
        }
        base.apply(&changes)
    }
}
