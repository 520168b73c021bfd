//! Rows and values are read, beside commits and moves.
//!
//! The index says where something is; it is read without a lock. If it was
//! moved meanwhile, it is asked again. What can't be read and is still there
//! is damage: it is said once, and counts as removed from then on.

use std::collections::hash_map::Entry;
use std::io::{self, ErrorKind};

use rustc_hash::FxHashMap;
use tracing::error;

use super::index::{AMEND_HEAD, About, LogRow, PUT_HEAD, Plan, SHARE_HEAD};
use super::keys::Key;
use super::{Row, Running};
use crate::journal::{Change, ListId, changes};

/// Rows in the log that are not farther apart are read in one go.
const GAP_BYTES_MAX: u64 = 4 << 10;
/// No more than so much in one go, unless it is one row.
const READ_BYTES_MAX: u64 = 1 << 20;

impl Running {
    pub(super) fn read(
        &self,
        list: ListId,
        mut from: u64,
        rows_max: usize,
        bytes_max: usize,
    ) -> io::Result<Vec<Row>> {
        let mut out: Vec<Row> = Vec::new();
        let mut bodies = FxHashMap::default();
        let mut bytes = 0;
        while out.len() < rows_max {
            let left = bytes_max.saturating_sub(bytes);
            let plan = self
                .index
                .lock()
                .plan(list, from, rows_max - out.len(), left);
            let (rows, to) = match plan {
                Plan::End => break,
                Plan::Chunk { first, rows } => {
                    let to = rows.last().map(|(row, _)| *row);
                    (self.read_chunk(list, first, &rows)?, to)
                }
                Plan::Log(rows) => {
                    let to = rows.last().map(|(row, _)| row.row);
                    (self.read_log(list, &rows)?, to)
                }
            };
            // It was moved meanwhile.
            let Some(rows) = rows else { continue };
            for mut row in rows {
                if row.shared != 0 {
                    match self.shared_body(row.shared, &mut bodies)? {
                        Some(body) => row.body.clone_from(body),
                        None => {
                            self.lose_row(list, row.row, row.shared);
                            continue;
                        }
                    }
                }
                bytes += row.body.len();
                if !out.is_empty() && bytes > bytes_max {
                    return Ok(out);
                }
                out.push(row);
            }
            match to.and_then(|to| to.checked_add(1)) {
                Some(next) => from = next,
                None => break,
            }
        }
        Ok(out)
    }

    /// `None`: it is no longer there.
    fn read_chunk(
        &self,
        list: ListId,
        first: u64,
        rows: &[(u64, Option<About>)],
    ) -> io::Result<Option<Vec<Row>>> {
        let value = match self.base.get(&Key::Rows { list, first }.encode()) {
            Ok(Some(value)) => value,
            Ok(None) => return Ok(self.lose_chunk(list, first, "it is not there")),
            Err(error) if is_damage(&error) => {
                return Ok(self.lose_chunk(list, first, &error.to_string()));
            }
            Err(error) => return Err(error),
        };
        let mut found = changes(&value).flatten().filter_map(Row::of).peekable();
        let mut out = Vec::with_capacity(rows.len());
        for (row, about) in rows {
            while found.next_if(|found| found.row < *row).is_some() {}
            match found.next_if(|found| found.row == *row) {
                Some(mut found) => {
                    if !self.read_about(list, &mut found, *about)? {
                        return Ok(None);
                    }
                    out.push(found);
                }
                None => self.lose_row(list, *row, 0),
            }
        }
        Ok(Some(out))
    }

    /// `None`: something of it was moved.
    fn read_log(
        &self,
        list: ListId,
        rows: &[(LogRow, Option<About>)],
    ) -> io::Result<Option<Vec<Row>>> {
        let mut out = Vec::with_capacity(rows.len());
        let mut bytes = Vec::new();
        for run in runs(rows) {
            let start = run[0].0.position;
            let last = &run[run.len() - 1].0;
            let len = (last.position.0 - start.0) as usize + last.len as usize;
            bytes.clear();
            match self.segments.read(start, len, &mut bytes) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                done => done?,
            }
            for (place, about) in run {
                let at = (place.position.0 - start.0) as usize;
                let bytes = bytes.get(at..at + place.len as usize);
                let change = bytes.and_then(|bytes| changes(bytes).next().flatten());
                let is_it = |change: &Change<'_>| matches!(change, Change::Push { list: of, row, .. } if *of == list && *row == place.row);
                match change.filter(is_it).and_then(Row::of) {
                    Some(mut row) => {
                        if !self.read_about(list, &mut row, *about)? {
                            return Ok(None);
                        }
                        out.push(row);
                    }
                    None => self.lose_row(list, place.row, 0),
                }
            }
        }
        Ok(Some(out))
    }

    /// `false`: it was moved.
    fn read_about(&self, list: ListId, row: &mut Row, about: Option<About>) -> io::Result<bool> {
        match about {
            None => return Ok(true),
            Some(About {
                position: Some(position),
                len,
                ..
            }) => {
                row.about.clear();
                let at = position.plus(AMEND_HEAD);
                match self.segments.read(at, len.into(), &mut row.about) {
                    Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                    done => done?,
                }
            }
            Some(_) => {
                let key = Key::About { list, row: row.row };
                match self.base.get(&key.encode()) {
                    Ok(Some(about)) => row.about = about,
                    // It was removed meanwhile.
                    Ok(None) => {}
                    Err(error) if is_damage(&error) => {
                        self.report_damage();
                        error!(
                            list = list.0,
                            row = row.row,
                            "what was said last of a stored row cannot be read; it counts as first stored: {error}"
                        );
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(true)
    }

    /// `None`: it can't be read, or is no more.
    fn shared_body<'a>(
        &self,
        id: u64,
        bodies: &'a mut FxHashMap<u64, Option<Vec<u8>>>,
    ) -> io::Result<Option<&'a Vec<u8>>> {
        match bodies.entry(id) {
            Entry::Occupied(body) => Ok(body.into_mut().as_ref()),
            Entry::Vacant(place) => Ok(place.insert(self.read_body(id)?).as_ref()),
        }
    }

    fn read_body(&self, id: u64) -> io::Result<Option<Vec<u8>>> {
        loop {
            let place = match self.index.lock().bodies.get(&id) {
                Some(body) => body.position.map(|position| (position, body.len)),
                None => return Ok(None),
            };
            match place {
                Some((position, len)) => {
                    let mut body = Vec::new();
                    let at = position.plus(SHARE_HEAD);
                    match self.segments.read(at, len as usize, &mut body) {
                        Err(error) if error.kind() == ErrorKind::NotFound => {}
                        done => return done.map(|()| Some(body)),
                    }
                }
                None => {
                    return match self.base.get(&Key::Body(id).encode()) {
                        Err(error) if is_damage(&error) => {
                            self.report_damage();
                            Ok(None)
                        }
                        body => body,
                    };
                }
            }
        }
    }

    /// If it is still alive.
    fn lose_row(&self, list: ListId, row: u64, shared: u64) {
        let mut index = self.index.lock();
        if index.remove(list, row, shared) {
            index.bury();
            index.lost_rows += 1;
            drop(index);
            error!(
                list = list.0,
                row, "a stored row cannot be read; it counts as removed"
            );
        }
    }

    /// If it is still there. `None`.
    fn lose_chunk(&self, list: ListId, first: u64, why: &str) -> Option<Vec<Row>> {
        self.report_damage();
        let rows = self.index.lock().lose_chunk(list, first);
        if rows > 0 {
            error!(
                list = list.0,
                first, "{rows} stored rows cannot be read; they count as removed: {why}"
            );
        }
        None
    }

    /// Where it is, and what has become of it.
    pub(super) fn report_damage(&self) {
        for damage in self.base.take_damage() {
            error!("the base is damaged: {damage}");
        }
    }

    pub(super) fn scan(&self, prefix: &[u8], each: &mut dyn FnMut(&[u8], &[u8])) -> io::Result<()> {
        // Nothing comes to the base meanwhile, and nothing leaves the log.
        let _moving = self.moving.lock();
        let mut in_log: Vec<_> = {
            let index = self.index.lock();
            let keys = index.keys.iter();
            keys.filter(|(key, _)| key.starts_with(prefix))
                .map(|(key, value)| (key.clone(), *value))
                .collect()
        };
        in_log.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let mut in_log = in_log.into_iter().peekable();
        let mut bytes = Vec::new();
        let mut failed = Ok(());
        let mut read = |(key, value): (Box<[u8]>, super::index::Value),
                        each: &mut dyn FnMut(&[u8], &[u8])| {
            let Some(len) = value.len else { return };
            bytes.clear();
            let at = value.position.plus(PUT_HEAD + key.len());
            match self.segments.read(at, len as usize, &mut bytes) {
                Ok(()) => each(&key, &bytes),
                Err(error) => failed = Err(error),
            }
        };
        let damage = self
            .base
            .scan(&Key::Value(prefix).encode(), &mut |key, value| {
                let key = &key[1..];
                while let Some(before) = in_log.next_if(|(other, _)| **other < *key) {
                    read(before, each);
                }
                match in_log.next_if(|(other, _)| **other == *key) {
                    Some(newer) => read(newer, each),
                    None => each(key, value),
                }
            })?;
        in_log.for_each(|rest| read(rest, each));
        for damage in damage {
            error!("a stored value cannot be read: {damage}");
        }
        failed
    }
}

/// Whether it is only what was to be read that can't be had.
pub(super) fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof
    )
}

/// Rows that lie so near to each other that they are read in one go.
fn runs(rows: &[(LogRow, Option<About>)]) -> impl Iterator<Item = &[(LogRow, Option<About>)]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let start = rest.first()?.0.position;
        let mut end = start.0;
        let len = rest
            .iter()
            .take_while(|(row, _)| {
                let is_near = row.position.segment() == start.segment()
                    && row.position.0 <= end + GAP_BYTES_MAX
                    && (end == start.0
                        || row.position.0 + u64::from(row.len) - start.0 <= READ_BYTES_MAX);
                end = row.position.0 + u64::from(row.len);
                is_near
            })
            .count();
        let (run, others) = rest.split_at(len);
        rest = others;
        Some(run)
    })
}
