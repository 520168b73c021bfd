//! The store against a model of it, through stops at every moment.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::task::Wake;
use std::thread;

use super::disk::Disk;
use super::index::About;
use super::keys::Key;
use super::twin::{Fault, Twin};
use super::*;
use crate::journal::{Body, Change};

/// Small enough that a short history fills many segments.
const SEGMENT_BYTES: u64 = 12 << 10;
const SETTINGS: Settings = Settings {
    log_bytes_max: 3 * SEGMENT_BYTES,
    free_bytes_min: 1 << 20,
};

/// The first 8 KiB of each file are its head.
const SIZES: Sizes = Sizes {
    segment_bytes: SEGMENT_BYTES,
    base_file_bytes: 40 << 10,
};

fn open(disk: &Twin) -> (Store, Report) {
    opening::open(Arc::new(disk.clone()), SETTINGS, SIZES).unwrap()
}

/// What a store should hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    lists: BTreeMap<ListId, ModelList>,
    values: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct ModelList {
    next_row: u64,
    rows: BTreeMap<u64, Row>,
}

impl Model {
    /// A body is given with each push that shares it.
    fn apply(&mut self, change: &Change<'_>, shared_body: &[u8]) {
        match *change {
            Change::Push {
                list,
                row,
                about,
                body,
            } => {
                let (shared, body) = match body {
                    Body::Own(body) => (0, body),
                    Body::Shared { id, .. } => (id, shared_body),
                };
                let row = Row {
                    row,
                    about: about.to_vec(),
                    shared,
                    body: body.to_vec(),
                };
                let list = self.lists.entry(list).or_default();
                list.next_row = row.row + 1;
                list.rows.insert(row.row, row);
            }
            Change::Amend { list, row, about } => {
                let list = self.lists.get_mut(&list);
                if let Some(row) = list.and_then(|list| list.rows.get_mut(&row)) {
                    row.about = about.to_vec();
                }
            }
            Change::Remove { list, row, .. } => {
                if let Some(list) = self.lists.get_mut(&list) {
                    list.rows.remove(&row);
                }
            }
            Change::Drop { list } => drop(self.lists.remove(&list)),
            Change::Put { key, value } => drop(self.values.insert(key.to_vec(), value.to_vec())),
            Change::Delete { key } => drop(self.values.remove(key)),
            Change::Share { .. } => {}
        }
    }

    fn bodies(&self) -> BTreeMap<u64, u32> {
        let mut bodies = BTreeMap::new();
        for row in self.lists.values().flat_map(|list| list.rows.values()) {
            if row.shared != 0 {
                *bodies.entry(row.shared).or_default() += 1;
            }
        }
        bodies
    }
}

struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn is_one_of(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn bytes(&mut self, len_max: usize) -> Vec<u8> {
        let len = self.below(len_max + 1);
        (0..len).map(|_| self.next() as u8).collect()
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.below(of.len())])
    }
}

/// A store, what it should hold, and what happened to it.
struct Play {
    disk: Twin,
    store: Store,
    dice: Dice,
    now: Model,
    /// After each batch, by its number.
    batches: BTreeMap<u64, Model>,
    /// All up to this one have to be there.
    synced: u64,
    has_open: bool,
    lists: Vec<ListId>,
}

impl Play {
    fn new(seed: u64) -> Play {
        let disk = Twin::new();
        let (store, report) = open(&disk);
        assert_eq!(report, Report::default());
        Play {
            disk,
            store,
            dice: Dice(seed),
            now: Model::default(),
            batches: BTreeMap::from([(0, Model::default())]),
            synced: 0,
            has_open: false,
            lists: Vec::new(),
        }
    }

    fn running(&self) -> &Running {
        self.store.running.as_ref().unwrap()
    }

    fn step(&mut self) -> Result<(), Failed> {
        match self.dice.below(100) {
            0..70 => self.append(),
            70..90 => {
                let sync_all = self.dice.is_one_of(4);
                self.commit(sync_all)?;
            }
            90..95 => drop(self.store.move_oldest()?),
            95..97 => self.move_slowly()?,
            97 => drop(self.store.compact()?),
            _ => self.read_something(),
        }
        Ok(())
    }

    /// As [`Store::move_oldest`], while things go on.
    fn move_slowly(&mut self) -> Result<(), Failed> {
        let segments = self.running().segments.clone();
        let segment = segments.oldest();
        if segment == segments.active() {
            return Ok(());
        }
        let fail = |play: &Play, error| play.running().fail("moving", &error);
        let moved = self.running().gather(Some(segment));
        let mut moved = moved.map_err(|error| fail(self, error))?;
        self.go_on()?;
        let written = self.running().write_to_base(&mut moved);
        written.map_err(|error| fail(self, error))?;
        self.go_on()?;
        let done = self.running().finish_move(moved, Some(segment));
        done.map_err(|error| fail(self, error))
    }

    fn go_on(&mut self) -> Result<(), Failed> {
        for _ in 0..self.dice.below(8) {
            self.append();
            if self.dice.is_one_of(2) && self.running().segments.bytes() < 9 * SEGMENT_BYTES {
                self.commit(false)?;
            }
            if self.dice.is_one_of(4) {
                self.read_something();
            }
        }
        Ok(())
    }

    fn append(&mut self) {
        let durability = match self.dice.is_one_of(3) {
            true => Durability::Flushed,
            false => Durability::Synced,
        };
        let mut journal = Journal::default();
        for _ in 0..1 + self.dice.below(6) {
            self.change(&mut journal, durability);
        }
        let is_empty = journal.is_empty();
        let receipt = self.store.append(&mut journal);
        assert!(journal.is_empty());
        if is_empty {
            assert_eq!(receipt, Receipt::NONE);
        } else {
            self.has_open = true;
            assert!(!self.store.has(receipt));
        }
    }

    fn change(&mut self, journal: &mut Journal, durability: Durability) {
        match self.dice.below(40) {
            0..14 => self.push(journal, durability),
            14..18 => self.share(journal, durability),
            18..31 => {
                if let Some((list, row)) = self.some_row() {
                    self.remove(journal, durability, list, row);
                }
            }
            31..35 => {
                if let Some((list, row)) = self.some_row() {
                    let about = self.dice.bytes(20);
                    let about = &about[..];
                    self.add(journal, durability, Change::Amend { list, row, about }, b"");
                }
            }
            35 => {
                // Of what is no longer there nothing happens.
                let list = self.some_list();
                let row = self.dice.next() % 50;
                let is_gone =
                    |list: &ModelList| row < list.next_row && !list.rows.contains_key(&row);
                if self.now.lists.get(&list).is_some_and(is_gone) {
                    let about = b"nothing";
                    self.add(journal, durability, Change::Amend { list, row, about }, b"");
                    let shared = 0;
                    let remove = Change::Remove { list, row, shared };
                    self.add(journal, durability, remove, b"");
                }
            }
            36 => {
                if self.dice.is_one_of(6) {
                    let list = self.some_list();
                    self.lists.retain(|other| *other != list);
                    self.add(journal, durability, Change::Drop { list }, b"");
                }
            }
            _ => {
                let key = format!("key/{}", self.dice.below(30));
                let key = key.as_bytes();
                let value = self.dice.bytes(200);
                let change = match self.dice.is_one_of(3) {
                    true => Change::Delete { key },
                    false => Change::Put { key, value: &value },
                };
                self.add(journal, durability, change, b"");
            }
        }
    }

    fn add(
        &mut self,
        journal: &mut Journal,
        durability: Durability,
        change: Change<'_>,
        shared_body: &[u8],
    ) {
        journal.add(durability, change);
        self.now.apply(&change, shared_body);
    }

    fn some_list(&mut self) -> ListId {
        if self.lists.len() < 4 {
            let list = self.store.new_list();
            assert!(!self.lists.contains(&list));
            self.lists.push(list);
        }
        self.dice.pick(&self.lists).unwrap()
    }

    fn some_row(&mut self) -> Option<(ListId, u64)> {
        let list = self.some_list();
        let rows: Vec<u64> = self.now.lists.get(&list)?.rows.keys().copied().collect();
        match self.dice.is_one_of(2) {
            true => Some((list, *rows.first()?)),
            false => Some((list, self.dice.pick(&rows)?)),
        }
    }

    fn next_row(&mut self, list: ListId) -> u64 {
        let next = self.now.lists.get(&list).map_or(0, |list| list.next_row);
        match self.dice.below(30) {
            0 => next + self.dice.next() % 5000,
            1..4 => next + 1,
            _ => next,
        }
    }

    fn push(&mut self, journal: &mut Journal, durability: Durability) {
        let list = self.some_list();
        let row = self.next_row(list);
        let len_max = if self.dice.is_one_of(100) { 9000 } else { 200 };
        let (about, body) = (self.dice.bytes(20), self.dice.bytes(len_max));
        let (about, body) = (&about[..], Body::Own(&body));
        let push = Change::Push {
            list,
            row,
            about,
            body,
        };
        self.add(journal, durability, push, b"");
    }

    fn push_shared(&mut self, journal: &mut Journal, durability: Durability, id: u64, body: &[u8]) {
        let list = self.some_list();
        let row = self.next_row(list);
        let about = self.dice.bytes(20);
        let push = Change::Push {
            list,
            row,
            about: &about,
            body: Body::Shared {
                id,
                len: body.len() as u32,
            },
        };
        self.add(journal, durability, push, body);
    }

    fn share(&mut self, journal: &mut Journal, durability: Durability) {
        let id = self.store.new_body();
        let body = self.dice.bytes(500);
        journal.add(durability, Change::Share { id, body: &body });
        for _ in 0..self.dice.below(4) {
            self.push_shared(journal, durability, id, &body);
            // The first may be gone before the next comes.
            if self.dice.is_one_of(4)
                && let Some((list, row)) = self.some_row()
            {
                self.remove(journal, durability, list, row);
            }
        }
    }

    fn remove(&mut self, journal: &mut Journal, durability: Durability, list: ListId, row: u64) {
        let gone = self.now.lists[&list].rows[&row].clone();
        let shared = gone.shared;
        let remove = Change::Remove { list, row, shared };
        // Moved to another list, in either order.
        let moves = shared != 0 && self.dice.is_one_of(3);
        if moves && self.dice.is_one_of(2) {
            self.push_shared(journal, durability, shared, &gone.body);
            self.add(journal, durability, remove, b"");
        } else {
            self.add(journal, durability, remove, b"");
            if moves {
                self.push_shared(journal, durability, shared, &gone.body);
            }
        }
    }

    fn commit(&mut self, sync_all: bool) -> Result<(), Failed> {
        let running = self.running();
        let batch = running.open.lock().number;
        let had_open = self.has_open;
        if had_open {
            self.batches.insert(batch, self.now.clone());
            self.has_open = false;
        }
        let done = self.store.commit(sync_all);
        let written = self.running().written.load(Ordering::Relaxed);
        let synced = self.running().synced.load(Ordering::Relaxed);
        self.synced = self.synced.max(synced);
        done?;
        assert!(!had_open || written == batch);
        assert!(!sync_all || synced == written);
        Ok(())
    }

    /// What was committed: what readers see.
    fn committed(&self) -> &Model {
        let batch = self.running().index.lock().batch;
        &self.batches[&batch]
    }

    fn read_something(&mut self) {
        let model = self.committed().clone();
        let list = self.some_list();
        let from = match model.lists.get(&list) {
            Some(model) => self.dice.next() % (model.next_row + 2),
            None => 0,
        };
        let (rows_max, bytes_max) = (1 + self.dice.below(50), self.dice.below(3000));
        let rows = self.store.read(list, from, rows_max, bytes_max).unwrap();
        let expected = expected_rows(&model, list, from, rows_max, bytes_max);
        assert_eq!(rows, expected);
    }

    /// All that it holds, against the model, and whether its books are right.
    fn check(&mut self) {
        let model = self.committed().clone();
        let lists: BTreeMap<_, _> = self.store.lists().into_iter().collect();
        assert!(lists.keys().eq(model.lists.keys()));
        for (list, model_list) in &model.lists {
            let summary = lists[list];
            assert_eq!(summary.next_row, model_list.next_row);
            assert_eq!(summary.rows as usize, model_list.rows.len());
            let first = model_list.rows.keys().next().copied();
            assert_eq!(summary.first_row, first.unwrap_or(summary.next_row));
            if model_list.rows.is_empty() {
                assert_eq!(summary.body_bytes, 0);
            }
            let mut from = 0;
            let mut rows = Vec::new();
            loop {
                let (rows_max, bytes_max) = (1 + self.dice.below(100), self.dice.below(10_000));
                let page = self.store.read(*list, from, rows_max, bytes_max).unwrap();
                let Some(last) = page.last() else { break };
                from = last.row + 1;
                rows.extend(page);
            }
            assert!(rows.iter().eq(model_list.rows.values()), "{list:?}");
        }
        for prefix in ["", "key/1", "key/29", "other"] {
            let mut values = Vec::new();
            let each = &mut |key: &[u8], value: &[u8]| values.push((key.to_vec(), value.to_vec()));
            self.store.scan(prefix.as_bytes(), each).unwrap();
            let model = model.values.clone().into_iter();
            let model = model.filter(|(key, _)| key.starts_with(prefix.as_bytes()));
            assert!(values.into_iter().eq(model));
        }
        let index = self.running().index.lock();
        let bodies = index.bodies.iter();
        let bodies: BTreeMap<u64, u32> = bodies
            .map(|(id, body)| (*id, body.log_rows + body.base_rows))
            .collect();
        // Rows of dropped lists count until what is moved comes by.
        for (id, rows) in model.bodies() {
            assert!(bodies[&id] >= rows, "{id:x}");
        }
        if index.left.is_empty() && index.changed.dropped.is_empty() {
            assert_eq!(bodies, model.bodies());
        }
        assert_eq!(index.lost_rows, 0);
    }

    /// Once it was told everything, the base has what the index says it has,
    /// and nothing else.
    fn check_base(&mut self) {
        self.running().move_to_base(None).unwrap();
        let index = self.running().index.lock();
        let mut expected = Vec::new();
        for (&list, known) in &index.lists {
            let moved_to = known.moved_to;
            if moved_to > 0 {
                // Up to the last row that was moved, or where it died on the way.
                let key = Key::of_list(list);
                expected.push(key.to_vec());
            }
            for (&first, chunk) in &known.chunks {
                expected.push(Key::Rows { list, first }.encode().to_vec());
                let chunk = chunk.clone();
                expected.push(Key::Alive { list, first, chunk }.encode().to_vec());
            }
            for (&row, about) in &known.amended {
                let About {
                    has_key, position, ..
                } = *about;
                assert!(has_key || position.is_some());
                if has_key {
                    expected.push(Key::About { list, row }.encode().to_vec());
                }
            }
        }
        for (&id, body) in &index.bodies {
            if body.position.is_none() {
                expected.push(Key::Body(id).encode().to_vec());
            }
            if body.base_rows > 0 {
                let rows = body.base_rows;
                expected.push(Key::Refs { body: id, rows }.encode().to_vec());
            }
        }
        expected.sort();
        let mut found = Vec::new();
        self.running()
            .base
            .keys(b"", &mut |key, _| match Key::decode(key) {
                Some(Key::Value(_) | Key::Run(_)) => {}
                Some(Key::List { list, .. }) => found.push(Key::of_list(list).to_vec()),
                Some(_) => found.push(key.to_vec()),
                None => panic!("a key of no kind"),
            });
        found.sort();
        assert_eq!(found, expected);
    }

    /// Goes on with what is left of the disk.
    fn reopen(&mut self, disk: Twin) {
        self.disk = disk;
        let (store, report) = open(&self.disk);
        // A head may be torn that was just being written.
        let is_damage =
            |damage: &Damage| !damage.unfinished && !damage.what.ends_with("nothing is lost");
        assert!(!report.damage.iter().any(is_damage), "{:?}", report.damage);
        self.store = store;
        let batch = self.running().index.lock().batch;
        assert!(self.synced <= batch, "{} {batch}", self.synced);
        self.batches.retain(|other, _| *other <= batch);
        self.now = self.batches[&batch].clone();
        self.synced = batch;
        self.has_open = false;
        self.check();
    }
}

fn expected_rows(
    model: &Model,
    list: ListId,
    from: u64,
    rows_max: usize,
    bytes_max: usize,
) -> Vec<Row> {
    let Some(list) = model.lists.get(&list) else {
        return Vec::new();
    };
    let mut bytes = 0;
    let rows = list.rows.range(from..).take(rows_max).enumerate();
    rows.take_while(|(n, (_, row))| {
        bytes += row.body.len();
        *n == 0 || bytes <= bytes_max
    })
    .map(|(_, (_, row))| row.clone())
    .collect()
}

#[test]
fn it_holds_what_was_appended() {
    for seed in 0..20 {
        let mut play = Play::new(seed);
        for step in 0..1500 {
            play.step().unwrap();
            if step % 250 == 249 {
                play.check();
                play.check_base();
                play.check();
            }
        }
        play.commit(true).unwrap();
        play.store.close().unwrap();
        let disk = play.disk.cut();
        play.reopen(disk);
        play.check_base();
    }
}

#[test]
fn a_stop_at_any_moment_costs_no_synced_batch_and_halves_none() {
    for seed in 0..200 {
        let mut play = Play::new(seed);
        for cut in 0..8 {
            let stop_at = 1 + play.dice.next() % 300;
            play.disk.fail_at(stop_at, Fault::Stopped);
            let mut steps = 0;
            while play.step().is_ok() {
                steps += 1;
                assert!(steps < 100_000, "{seed} {cut}");
            }
            let failed = play.store.failure().unwrap();
            assert_eq!(play.store.commit(true), Err(failed.clone()));
            assert_eq!(play.store.move_oldest(), Err(failed));
            let disk = match play.dice.below(3) {
                0 => play.disk.cut(),
                _ => play.disk.cut_with(play.dice.next()),
            };
            play.reopen(disk);
            if play.dice.is_one_of(2) {
                play.check_base();
            }
        }
    }
}

#[test]
fn a_killed_process_leaves_all_that_was_written() {
    for seed in 0..20 {
        let mut play = Play::new(seed);
        for _ in 0..8 {
            for _ in 0..play.dice.below(200) {
                play.step().unwrap();
            }
            play.synced = play.running().written.load(Ordering::Relaxed);
            let disk = play.disk.kill();
            play.reopen(disk);
        }
    }
}

/// Case K04 of docs/security.md.
#[test]
fn after_a_failure_nothing_is_stored_and_nobody_gets_a_receipt() {
    for seed in 0..100 {
        for fault in [Fault::Failed, Fault::Full] {
            let mut play = Play::new(seed);
            play.disk.fail_at(1 + play.dice.next() % 200, fault);
            let mut failed = None;
            for _ in 0..2000 {
                if let Err(error) = play.step() {
                    failed = Some(error);
                    break;
                }
            }
            // A segment that can't be made ready is not a failure.
            let Some(failed) = failed else { continue };
            assert_eq!(play.store.failure(), Some(failed.clone()));
            let mut journal = Journal::default();
            let list = play.some_list();
            journal.add(Durability::Synced, Change::Drop { list });
            let receipt = play.store.append(&mut journal);
            let woken = Arc::new(Woken::default());
            assert!(play.store.wake_at(receipt, &woken.clone().into()));
            for _ in 0..3 {
                assert_eq!(play.store.commit(true), Err(failed.clone()));
                assert_eq!(play.store.move_oldest(), Err(failed.clone()));
                assert_eq!(play.store.compact(), Err(failed.clone()));
                assert_eq!(play.store.close(), Err(failed.clone()));
            }
            assert!(!play.store.has(receipt) && woken.count() == 0);
            // What was on its way may be there or not; what was synced is.
            let disk = play.disk.cut();
            play.reopen(disk);
        }
    }
}

#[derive(Default)]
struct Woken(AtomicUsize);

impl Woken {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn push(store: &Store, durability: Durability, list: ListId, row: u64, body: &[u8]) -> Receipt {
    let mut journal = Journal::default();
    journal.push(durability, (list, row), b"about", &[body]);
    store.append(&mut journal)
}

#[test]
fn a_receipt_is_had_when_its_batch_is_stored_as_it_asks_for() {
    let (store, _) = open(&Twin::new());
    let list = store.new_list();
    let wait = |receipt| {
        let woken = Arc::new(Woken::default());
        assert!(store.wake_at(receipt, &woken.clone().into()));
        woken
    };
    assert!(store.has(Receipt::NONE));
    assert!(!store.commit(true).unwrap());

    let flushed = push(&store, Durability::Flushed, list, 1, b"");
    let on_flushed = wait(flushed);
    assert!(!store.has(flushed));
    assert!(store.commit(false).unwrap());
    assert!(store.has(flushed));
    assert_eq!(on_flushed.count(), 1);
    assert!(!store.wake_at(flushed, &on_flushed.clone().into()));

    // It waits for a batch that nobody else has to have synced.
    let both = flushed.and(Receipt::new(1, Durability::Synced));
    assert!(!store.has(both));
    let on_both = wait(both);
    store.wait(Duration::from_secs(3600));
    assert!(store.commit(false).unwrap());
    assert_eq!(on_both.count(), 1);
    assert!(!store.commit(false).unwrap() && !store.commit(true).unwrap());

    let synced = push(&store, Durability::Synced, list, 2, b"");
    let on_synced = [wait(synced), wait(synced)];
    store.wait(Duration::from_secs(3600));
    assert!(store.commit(false).unwrap());
    assert!(store.has(synced));
    assert!(on_synced.iter().all(|woken| woken.count() == 1));
    assert_eq!((on_flushed.count(), on_both.count()), (1, 1));

    // Each second.
    let flushed = push(&store, Durability::Flushed, list, 3, b"");
    assert!(store.commit(false).unwrap());
    assert!(!store.has(flushed.and(synced)));
    assert!(store.commit(true).unwrap());
    assert!(store.has(flushed.and(synced)));
    assert!(!store.commit(true).unwrap());
}

#[test]
fn without_a_folder_nothing_is_waited_for() {
    let store = Store::none();
    assert!(!store.is_on() && store.pin().is_none());
    let list = store.new_list();
    assert_ne!(list, store.new_list());
    let receipt = push(&store, Durability::Synced, list, 1, b"body");
    assert_eq!(receipt, Receipt::NONE);
    assert!(store.has(receipt) && !store.wake_at(receipt, Waker::noop()));
    assert!(!store.commit(true).unwrap() && !store.move_oldest().unwrap());
    assert_eq!(store.read(list, 0, 10, 1000).unwrap(), []);
    assert_eq!(store.lists(), []);
    store.close().unwrap();
}

#[test]
fn what_is_appended_under_a_pin_is_in_one_batch() {
    let (store, _) = open(&Twin::new());
    let list = store.new_list();
    let pins: Vec<_> = (0..3).map(|_| store.pin().unwrap()).collect();
    thread::scope(|scope| {
        let begin = |(worker, pin): (usize, &Arc<Mutex<()>>)| {
            let (store, pin) = (&store, pin.clone());
            let list = ListId(list.0 + worker as u64);
            scope.spawn(move || {
                for row in 0..3000 {
                    let _pinned = pin.lock();
                    let first = push(store, Durability::Synced, list, 2 * row, b"");
                    thread::yield_now();
                    let second = push(store, Durability::Synced, list, 2 * row + 1, b"");
                    assert_eq!(first, second);
                }
            })
        };
        let workers: Vec<_> = pins.iter().enumerate().map(begin).collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            store.commit(false).unwrap();
        }
    });
    let kept = || store.running.as_ref().unwrap().pins.lock().len();
    store.commit(false).unwrap();
    assert_eq!(kept(), 3);
    // Those of who is gone are forgotten.
    drop(pins);
    store.commit(false).unwrap();
    assert_eq!(kept(), 0);
}

#[test]
fn a_deep_list_is_read_in_order_and_its_room_given_back() {
    let disk = Twin::new();
    let open = || {
        let settings = Settings {
            log_bytes_max: 4 << 20,
            free_bytes_min: 0,
        };
        let sizes = Sizes {
            base_file_bytes: 1 << 20,
            ..settings.sizes()
        };
        opening::open(Arc::new(disk.clone()), settings, sizes).unwrap()
    };
    let (mut store, _) = open();
    let list = store.new_list();
    let body = |row: u64| vec![row as u8; 100 + row as usize % 57];
    let rows = 100_000;
    for row in 0..rows {
        push(&store, Durability::Synced, list, row, &body(row));
        if row % 500 == 499 {
            store.commit(false).unwrap();
            while store.move_oldest().unwrap() {}
        }
    }
    let full_bytes = {
        let running = store.running.as_ref().unwrap();
        // Nearly all of it is in the base, and little of that in memory.
        assert!(running.index.lock().lists[&list].moved_to > rows * 2 / 3);
        running.base.bytes()
    };
    store.close().unwrap();
    drop(store);
    (store, _) = open();
    let (of, summary) = store.lists()[0];
    assert_eq!((of, summary.rows, summary.first_row), (list, rows, 0));
    let bytes: usize = (0..rows).map(|row| body(row).len()).sum();
    assert_eq!(summary.body_bytes, bytes as u64);

    let mut next = 0;
    while next < rows {
        let page = store.read(list, next, 300, 1 << 20).unwrap();
        assert!(!page.is_empty());
        for found in page {
            assert_eq!((found.row, &found.body), (next, &body(next)));
            let row = next;
            let shared = 0;
            let mut journal = Journal::default();
            journal.add(Durability::Synced, Change::Remove { list, row, shared });
            store.append(&mut journal);
            next += 1;
        }
        store.commit(false).unwrap();
        while store.move_oldest().unwrap() {}
        while store.compact().unwrap() {}
    }
    let running = store.running.as_ref().unwrap();
    running.move_to_base(None).unwrap();
    while store.compact().unwrap() {}
    assert!(running.base.bytes() < full_bytes / 4);
    assert_eq!(store.lists()[0].1.body_bytes, 0);
    let index = running.index.lock();
    assert!(index.lists[&list].chunks.is_empty() && index.lists[&list].rows.is_empty());
}

/// Case K07 of docs/security.md.
#[test]
fn threads_commit_move_and_read_at_once() {
    let (store, _) = open(&Twin::new());
    let is_done = AtomicBool::new(false);
    let lists: Vec<ListId> = (0..3).map(|_| store.new_list()).collect();
    let body = |list: ListId, row: u64| vec![(row + list.0) as u8; 50 + row as usize % 200];
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Acquire) {
                store.move_oldest().unwrap();
                store.compact().unwrap();
            }
        });
        let workers: Vec<_> = lists
            .iter()
            .map(|&list| {
                let store = &store;
                scope.spawn(move || {
                    // What is not taken out stays behind, in the base.
                    let stays = |row: u64| row.is_multiple_of(16);
                    let (mut pushed, mut taken) = (0, 0);
                    while taken < 6000 {
                        let mut journal = Journal::default();
                        for _ in 0..20 {
                            let body = [&body(list, pushed)[..]];
                            journal.push(Durability::Flushed, (list, pushed), b"a", &body);
                            pushed += 1;
                        }
                        let receipt = store.append(&mut journal);
                        while !store.has(receipt) {
                            thread::yield_now();
                        }
                        let rows = store.read(list, taken, 20, 1 << 20).unwrap();
                        assert_eq!(rows.len(), 20);
                        for row in rows {
                            assert_eq!((row.row, row.body), (taken, body(list, taken)));
                            if !stays(taken) {
                                let remove = Change::Remove {
                                    list,
                                    row: taken,
                                    shared: 0,
                                };
                                journal.add(Durability::Flushed, remove);
                            }
                            taken += 1;
                        }
                        store.append(&mut journal);
                    }
                    let staying = (0..taken).filter(|row| stays(*row));
                    (taken, staying.count() as u64)
                })
            })
            .collect();
        let is_working = || workers.iter().any(|worker| !worker.is_finished());
        while is_working() {
            store.commit(false).unwrap();
        }
        is_done.store(true, Ordering::Release);
        for worker in workers {
            let (taken, staying) = worker.join().unwrap();
            assert_eq!((taken, staying), (6000, 375));
        }
    });
    store.commit(true).unwrap();
    for (list, summary) in store.lists() {
        assert_eq!((summary.rows, summary.next_row), (375, 6000));
        let rows = store.read(list, 0, 1000, 1 << 20).unwrap();
        assert!(rows.iter().map(|row| row.row).eq((0..6000).step_by(16)));
    }
}

#[test]
fn what_cannot_be_read_is_left_out_and_counts_as_removed() {
    let disk = Twin::new();
    let (store, _) = open(&disk);
    let list = store.new_list();
    for row in 0..2000 {
        push(&store, Durability::Synced, list, row, &[7; 100]);
        if row % 20 == 19 {
            store.commit(false).unwrap();
            while store.move_oldest().unwrap() {}
        }
    }
    store.close().unwrap();
    // In the middle of a chunk's rows.
    let file = "base-0000000001";
    let body = disk.bytes(file).unwrap();
    let at = body.windows(100).position(|bytes| bytes == [7; 100]);
    disk.flip(file, at.unwrap() as u64 + 1000, 1);
    let (store, _) = open(&disk);
    let before = store.lists()[0].1.rows;
    assert_eq!(before, 2000);
    let rows = store.read(list, 0, 5000, 1 << 20).unwrap();
    let after = store.lists()[0].1;
    assert!(rows.len() < 2000 && rows.len() > 1500, "{}", rows.len());
    assert_eq!(after.rows as usize, rows.len());
    assert_eq!(after.first_row, rows[0].row);
    assert!(rows.iter().all(|row| row.body == [7; 100]));
    assert_eq!(store.read(list, 0, 5000, 1 << 20).unwrap(), rows);
}

#[test]
fn a_full_disk_is_said_and_room_is_given_back_without_new_batches() {
    let disk = Twin::new();
    let (store, _) = open(&disk);
    let list = store.new_list();
    for row in 0..2000 {
        push(&store, Durability::Synced, list, row, &[7; 100]);
        if row % 20 == 19 {
            store.commit(false).unwrap();
            while store.move_oldest().unwrap() {}
        }
    }
    assert!(!store.is_low());
    let before = disk.free_bytes().unwrap();
    disk.set_free_bytes(SETTINGS.free_bytes_min - 1);
    store.watch_free();
    assert!(store.is_low());
    let mut journal = Journal::default();
    journal.add(Durability::Synced, Change::Drop { list });
    store.append(&mut journal);
    store.commit(false).unwrap();
    disk.set_free_bytes(SETTINGS.free_bytes_min - 1);
    store.move_oldest().unwrap();
    while store.compact().unwrap() {}
    store.watch_free();
    assert!(!store.is_low(), "{before}");
}

#[test]
fn what_changes_on_its_way_to_the_base_is_as_it_was_said_last() {
    // Changed before the base has it, or before the index knows.
    for moment in 0..2 {
        let disk = Twin::new();
        let (store, _) = open(&disk);
        let running = store.running.as_ref().unwrap();
        let list = store.new_list();
        let add = |changes: &[Change<'_>]| {
            let mut journal = Journal::default();
            for change in changes {
                journal.add(Durability::Synced, *change);
            }
            store.append(&mut journal);
            store.commit(false).unwrap();
        };
        let amend = |row, about| Change::Amend { list, row, about };
        let put = |key, value| Change::Put { key, value };
        for row in 0..4 {
            push(&store, Durability::Synced, list, row, b"body");
        }
        let (one, two): (&[u8], &[u8]) = (b"1", b"2");
        add(&[amend(0, b"first"), amend(1, b"first")]);
        add(&[put(one, b"first"), put(two, b"first")]);
        push(
            &store,
            Durability::Synced,
            list,
            9,
            &[0; SEGMENT_BYTES as usize],
        );
        store.commit(false).unwrap();

        let segment = running.segments.oldest();
        let change = || {
            let (row, shared) = (3, 0);
            add(&[amend(0, b"second"), Change::Remove { list, row, shared }]);
            add(&[put(one, b"second"), Change::Delete { key: two }]);
        };
        let mut moved = running.gather(Some(segment)).unwrap();
        if moment == 0 {
            change();
        }
        running.write_to_base(&mut moved).unwrap();
        if moment == 1 {
            change();
        }
        running.finish_move(moved, Some(segment)).unwrap();
        assert_eq!(running.index.lock().lists[&list].moved_to, 4);

        let check = |store: &Store| {
            let rows = store.read(list, 0, 4, 1 << 20).unwrap();
            let rows: Vec<_> = rows.iter().map(|row| (row.row, &row.about[..])).collect();
            let said: [&[u8]; 4] = [b"second", b"first", b"about", b"about"];
            assert!(rows.into_iter().eq([0, 1, 2, 9].into_iter().zip(said)));
            let mut values = Vec::new();
            let each = &mut |key: &[u8], value: &[u8]| values.push((key.to_vec(), value.to_vec()));
            store.scan(b"", each).unwrap();
            assert_eq!(values, [(one.to_vec(), b"second".to_vec())]);
        };
        check(&store);
        // What was said of them goes the same way.
        push(
            &store,
            Durability::Synced,
            list,
            10,
            &[0; SEGMENT_BYTES as usize],
        );
        store.commit(false).unwrap();
        while running.segments.oldest() < running.segments.active() {
            let segment = running.segments.oldest();
            running.move_to_base(Some(segment)).unwrap();
            check(&store);
        }
        check(&open(&disk.cut()).0);
    }
}

#[test]
fn ids_are_never_given_twice() {
    let disk = Twin::new();
    let mut given = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let (store, _) = open(&disk.cut());
        drop(store);
        let (store, _) = open(&disk);
        for _ in 0..3 {
            assert!(given.insert(store.new_list().0));
        }
    }
}

#[test]
fn the_log_does_not_outgrow_its_bound() {
    let (store, _) = open(&Twin::new());
    let list = store.new_list();
    let running = store.running.as_ref().unwrap();
    for row in 0..2000 {
        push(&store, Durability::Synced, list, row, &[7; 1000]);
        store.commit(false).unwrap();
        // Nobody else moves.
        assert!(running.segments.bytes() <= 3 * SETTINGS.log_bytes_max + SEGMENT_BYTES);
    }
    assert_eq!(store.read(list, 0, 5000, 1 << 30).unwrap().len(), 2000);
}
