//! A store is opened: what the base has, then what the log has.
//!
//! Owns nothing that lasts. The base's keys are enough to know what is there;
//! only of a chunk about which nothing else is left the rows are read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{error, warn};

use super::backup;
use super::base::{Base, BaseChange};
use super::chunk::Chunk;
use super::disk::Disk;
use super::frame::OpenError;
use super::index::Index;
use super::keys::Key;
use super::log::Log;
use super::{Report, Running, Settings, Store};
use crate::journal::{Body, Change, ListId, changes};

/// Ids are `run << RUN_SHIFT` and up: enough for a million a second for twelve
/// days, and to be opened sixteen million times.
const RUN_SHIFT: u32 = 40;

/// How large the files are.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub segment_bytes: u64,
    pub base_file_bytes: u64,
}

pub fn open(
    disk: Arc<dyn Disk>,
    settings: Settings,
    sizes: Sizes,
) -> Result<(Store, Report), OpenError> {
    backup::check_finished(&*disk)?;
    let (base, mut damage) = Base::open_with(disk.clone(), sizes.base_file_bytes)?;
    let mut index = Index::default();
    let run = load(&mut index, &base)?;
    let mut strange = 0;
    let (log, of_log) = Log::open(
        disk.clone(),
        sizes.segment_bytes,
        &mut |at, batch, record| {
            if !index.apply(at, record) {
                strange += 1;
            }
            index.batch = batch;
        },
    )?;
    damage.extend(of_log);
    index.recovered(log.last_batch());
    if strange > 0 {
        error!("{strange} records of the log are whole, but say what this version does not know");
    }
    if index.lost_rows > 0 {
        error!(
            "{} stored rows are no longer there; they count as removed",
            index.lost_rows
        );
    }
    let highest_id = index.highest_id() >> RUN_SHIFT;
    let run = run.max(highest_id) + 1;
    begin_run(&base, run)?;
    let report = Report {
        lists: index.lists.len(),
        rows: index.lists.values().map(|list| list.alive).sum(),
        lost_rows: index.lost_rows,
        lost_records: strange,
        damage,
    };
    let store = Store {
        running: Some(Box::new(Running::new(disk, settings, base, log, index))),
        next_list: AtomicU64::new(run << RUN_SHIFT),
        next_body: AtomicU64::new(run << RUN_SHIFT),
    };
    store.watch_free();
    Ok((store, report))
}

/// Takes what the base has. How often it was opened before.
fn load(index: &mut Index, base: &Base) -> Result<u64, OpenError> {
    let mut run = 0;
    let mut values: BTreeMap<(ListId, u64), usize> = BTreeMap::new();
    let mut chunks = Vec::new();
    base.keys(b"", &mut |key, value_len| {
        match Key::decode(key) {
            Some(Key::Run(number)) => run = run.max(number),
            Some(Key::Rows { list, first }) => drop(values.insert((list, first), value_len)),
            Some(Key::Alive { list, first, .. }) => chunks.push((list, first)),
            _ => {}
        }
        if !index.load(key, value_len) {
            warn!(
                "the base has a key that this version does not know, of {} bytes",
                key.len()
            );
        }
    });
    for (list, first) in chunks {
        match values.remove(&(list, first)) {
            Some(len) => index.set_value_len(list, first, len),
            None => {
                if index.lose_chunk(list, first) > 0 {
                    index.changed.dead_chunks.push((list, first));
                }
            }
        }
    }
    // What says which of their rows are alive is damaged: all are then.
    for (list, first) in values.into_keys() {
        let key = Key::Rows { list, first };
        match base.get(&key.encode()) {
            Ok(Some(rows)) => {
                if let Some(chunk) = whole_chunk(&rows) {
                    index.load_chunk(list, first, chunk);
                }
            }
            Ok(None) => {}
            Err(error) => error!(
                list = list.0,
                first, "stored rows cannot be read; they count as removed: {error}"
            ),
        }
    }
    index.loaded();
    Ok(run)
}

fn whole_chunk(rows: &[u8]) -> Option<Chunk> {
    let pushes = changes(rows).flatten().filter_map(|change| match change {
        Change::Push { row, body, .. } => {
            let is_shared = matches!(body, Body::Shared { .. });
            Some((row, change.body_len() as u32, is_shared))
        }
        _ => None,
    });
    Chunk::new(pushes, rows.len())
}

/// Written before an id is given out, so that none is given out twice.
fn begin_run(base: &Base, run: u64) -> Result<(), OpenError> {
    let mut all = Vec::new();
    base.keys(Key::RUNS, &mut |key, _| {
        all.push(BaseChange::Delete(key.into()));
    });
    all.push(BaseChange::Put(Key::Run(run).encode(), Vec::new()));
    base.apply(&all).map_err(|error| OpenError::Io {
        file: "the base".to_owned(),
        error,
    })
}

impl Store {
    /// An id that no list had or will have.
    pub fn new_list(&self) -> ListId {
        ListId(self.next_list.fetch_add(1, Ordering::Relaxed))
    }

    /// An id for [`Journal::share`] that no body had or will have.
    ///
    /// [`Journal::share`]: crate::journal::Journal::share
    pub fn new_body(&self) -> u64 {
        self.next_body.fetch_add(1, Ordering::Relaxed)
    }
}
