//! The base: what lives long, as values by key.
//!
//! Files that only grow, with the same records as the log. A directory in
//! memory says where each key's value is; it is read from the files when they
//! are opened: from a companion, for those that are not written to any more.
//! Removing a key is a record too, a grave, that is kept as long as there is a
//! file that may hold what it covers. A file that is mostly dead is compacted:
//! what is alive in it is written anew, and the file goes.
//!
//! Nothing is known here of what a value means, and nothing waits: changes are
//! durable when [`Base::apply`] returns. After a failed write or sync nothing
//! more is written.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem;
use std::ops::{Bound, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ahash::AHashMap;
use parking_lot::{Mutex, MutexGuard, RwLock};

use super::disk::{Disk, File};
use super::frame::{
    self, Batches, Damage, FRAME_BYTES, Flags, Found, HEAD_BYTES, Kind, LOST, OpenError, Opened,
    PAYLOAD_BYTES_MAX, Records, Seal, at, frame_len, of,
};

/// A change of the base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BaseChange {
    Put(Box<[u8]>, Vec<u8>),
    Delete(Box<[u8]>),
}

/// Values by key. Any thread may do anything; changes are made one after the
/// other.
pub struct Base {
    disk: Arc<dyn Disk>,
    file_bytes: u64,
    /// Locked before `view`.
    writer: Mutex<Writer>,
    view: RwLock<View>,
    found: Mutex<FoundDamage>,
    /// One at a time; locked before `writer`.
    compacting: Mutex<()>,
    is_broken: AtomicBool,
}

struct Writer {
    active: Arc<DataFile>,
    /// Where the next record goes.
    end: u64,
    /// The number of the last batch in the file.
    batch: u64,
    /// What the companion will say.
    directory: Vec<u8>,
}

struct DataFile {
    number: u32,
    name: String,
    seal: Seal,
    file: Box<dyn File>,
}

/// What is where.
#[derive(Default)]
struct View {
    places: BTreeMap<Box<[u8]>, Place>,
    files: BTreeMap<u32, Held>,
}

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    file: u32,
    /// Of the record, in units of 8 bytes.
    at: u32,
    value_len: u32,
    /// The oldest file that may hold an older value of the key.
    oldest: u32,
}

/// The files that may hold values of a key that was removed: from, to.
type Span = (u32, u32);

/// A file, and what of it is needed.
struct Held {
    file: Arc<DataFile>,
    bytes: u64,
    /// What the records of values take that are alive.
    live: u64,
    /// What graves take, by what they cover.
    graves: BTreeMap<Span, u64>,
}

/// What was found while running.
#[derive(Default)]
struct FoundDamage {
    new: Vec<Damage>,
    /// File and offset of all.
    known: BTreeSet<(u32, u64)>,
}

/// What is written about a key.
enum Record<'a> {
    Value { value: &'a [u8], oldest: u32 },
    Grave(Span),
}

/// What is written anew for a key: its value, or a grave.
type Kept<'a> = (&'a [u8], Option<Vec<u8>>, Span);

const PUT: u8 = 1;
const GRAVE: u8 = 2;

/// Before the key: the tag, and the key's length.
const KEY_AT: usize = 5;

/// What a grave has in place of a value.
const SPAN_BYTES: usize = 8;

fn record_len(key: usize, value: usize) -> u64 {
    frame_len(KEY_AT + key + value) as u64
}

impl Base {
    /// A file that is as long is written to no more.
    pub const FILE_BYTES: u64 = 64 << 20;

    /// How much is rewritten between two looks at whether others wait.
    const SLICE_BYTES: u64 = 1 << 20;

    /// Opens the base of a folder, or begins one, with files of about so many
    /// bytes: [`Base::FILE_BYTES`], but in tests.
    ///
    /// What is damaged costs the record that it is in; that of a value is
    /// noticed when it is read. Of the newest file, an end that was not written
    /// whole is left out: its [`Base::apply`] never returned.
    ///
    /// # Errors
    ///
    /// As those of [`super::log::Log::open`].
    pub fn open_with(
        disk: Arc<dyn Disk>,
        file_bytes: u64,
    ) -> Result<(Base, Vec<Damage>), OpenError> {
        let mut recovery = Recovery::new(disk, file_bytes);
        let numbers = recovery.find_files()?;
        for number in &numbers {
            recovery.read(*number, numbers.last() == Some(number))?;
        }
        recovery.finish()
    }

    /// Makes all of the changes or, if it fails, none or all. They are durable
    /// when it returns. Removing what is not there costs nothing.
    pub fn apply(&self, changes: &[BaseChange]) -> io::Result<()> {
        let mut writer = self.lock()?;
        let is_too_long = |change: &BaseChange| match change {
            BaseChange::Put(key, value) => KEY_AT + key.len() + value.len() > PAYLOAD_BYTES_MAX,
            BaseChange::Delete(key) => KEY_AT + key.len() + SPAN_BYTES > PAYLOAD_BYTES_MAX,
        };
        if changes.iter().any(is_too_long) {
            let what = "a key and its value are too long for the base";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let applied = self.try_apply(&mut writer, changes);
        self.note(applied)
    }

    fn try_apply(&self, writer: &mut Writer, changes: &[BaseChange]) -> io::Result<()> {
        let len = changes.iter().map(|change| match change {
            BaseChange::Put(key, value) => record_len(key.len(), value.len()),
            BaseChange::Delete(key) => record_len(key.len(), SPAN_BYTES),
        });
        self.make_room(writer, len.sum())?;
        let active = writer.active.number;
        let mut records: Vec<(&[u8], Record<'_>)> = Vec::with_capacity(changes.len());
        {
            // Keys that an earlier change of the same batch has changed.
            let mut changed: AHashMap<&[u8], Option<Span>> = AHashMap::new();
            let view = self.view.read();
            for change in changes {
                let (BaseChange::Put(key, _) | BaseChange::Delete(key)) = change;
                let span = changed.entry(key).or_insert_with(|| {
                    let place = view.places.get(key)?;
                    Some((place.oldest, place.file))
                });
                match change {
                    BaseChange::Put(_, value) => {
                        let oldest = span.map_or(active, |(oldest, _)| oldest);
                        *span = Some((oldest, active));
                        records.push((key, Record::Value { value, oldest }));
                    }
                    BaseChange::Delete(_) => {
                        let grave = span.take().map(Record::Grave);
                        records.extend(grave.map(|grave| (&**key, grave)));
                    }
                }
            }
        }
        self.write(writer, &records)
    }

    /// Writes a batch into the active file, syncs it, and then shows it.
    fn write(&self, writer: &mut Writer, records: &[(&[u8], Record<'_>)]) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let Writer {
            active,
            end,
            batch,
            directory,
        } = writer;
        let mut frames = Vec::new();
        *batch += 1;
        let mut placed = Vec::with_capacity(records.len());
        for (i, (key, record)) in records.iter().enumerate() {
            let at = *end + frames.len() as u64;
            placed.push(at);
            let (mut span, mut head) = ([0; SPAN_BYTES], [0; KEY_AT]);
            let value = match *record {
                Record::Value { value, .. } => {
                    head[0] = PUT;
                    value
                }
                Record::Grave((oldest, newest)) => {
                    head[0] = GRAVE;
                    span[..4].copy_from_slice(&oldest.to_le_bytes());
                    span[4..].copy_from_slice(&newest.to_le_bytes());
                    &span
                }
            };
            head[1..].copy_from_slice(&(key.len() as u32).to_le_bytes());
            let flags = Flags::new(i + 1 == records.len(), true);
            let payload = [&head[..], key, value];
            active.seal.frame(at, *batch, flags, &payload, &mut frames);
        }
        active
            .file
            .write_at(&frames, *end)
            .map_err(at("writing", &active.name))?;
        active.file.sync().map_err(at("syncing", &active.name))?;
        *end += frames.len() as u64;
        // That it was synced. Without a sync of its own: if the machine stops
        // now, only what is damaged besides cannot be told from what is torn.
        frames.clear();
        active.seal.mark(*end, *batch + 1, &mut frames);
        active
            .file
            .write_at(&frames, *end)
            .map_err(at("writing", &active.name))?;
        *end += frames.len() as u64;

        let mut view = self.view.write();
        for ((key, record), at) in records.iter().zip(placed) {
            let entry = match *record {
                Record::Value { value, oldest } => {
                    let place = Place {
                        file: active.number,
                        at: (at / 8) as u32,
                        value_len: value.len() as u32,
                        oldest,
                    };
                    view.put(key, place);
                    Entry::Put(place.at, place.value_len)
                }
                Record::Grave(span) => {
                    view.bury(key, active.number, span);
                    Entry::Grave(span)
                }
            };
            entry.encode(key, directory);
        }
        if let Some(held) = view.files.get_mut(&active.number) {
            held.bytes = *end;
        }
        Ok(())
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// Of kind [`io::ErrorKind::InvalidData`] when it is damaged: what is left
    /// of it is copied aside, see [`Base::take_damage`].
    pub fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let (place, file) = {
            let view = self.view.read();
            let Some(place) = view.places.get(key) else {
                return Ok(None);
            };
            (*place, view.files[&place.file].file.clone())
        };
        match file.read(key, place) {
            Ok(value) => Ok(Some(value)),
            Err(damage) => Err(self.report(&file, &damage)),
        }
    }

    /// Gives each key that begins so, in order, with its value. What is damaged
    /// is left out and reported. Changes may be made meanwhile: whether a
    /// changed key is given as it was or is, is not said.
    pub fn scan(
        &self,
        prefix: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]),
    ) -> io::Result<Vec<Damage>> {
        let mut damage = Vec::new();
        let mut after: Option<Box<[u8]>> = None;
        loop {
            let page = self.view.read().page(prefix, after.as_deref());
            let Some((last, ..)) = page.last() else {
                return Ok(damage);
            };
            after = Some(last.clone());
            for (key, place, file) in &page {
                match file.read(key, *place) {
                    Ok(value) => each(key, &value),
                    Err(lost) => damage.push(lost.keep(&*self.disk, file)?),
                }
            }
        }
    }

    /// Gives each key that begins so, in order, with the length of its value.
    /// Nothing can be changed meanwhile.
    pub fn keys(&self, prefix: &[u8], each: &mut dyn FnMut(&[u8], usize)) {
        let view = self.view.read();
        for (key, place) in view.from(prefix, None) {
            each(key, place.value_len as usize);
        }
    }

    /// Gives the room of one file back, if there is one that is mostly dead:
    /// what it has alive is written anew. Whether there was one.
    pub fn compact_step(&self) -> io::Result<bool> {
        let _alone = self.compacting.lock();
        let writer = self.lock()?;
        let compacted = self.try_compact(writer);
        self.note(compacted)
    }

    fn try_compact(&self, mut writer: MutexGuard<'_, Writer>) -> io::Result<bool> {
        let Some(number) = self.most_dead(&mut writer)? else {
            return Ok(false);
        };
        drop(writer);
        let file = self.view.read().files[&number].file.clone();
        let entries = file.entries(&*self.disk)?;
        let mut rest = Entries(&entries);
        while !rest.0.is_empty() {
            // Others may write between two slices.
            let mut writer = self.lock()?;
            self.rewrite(&mut writer, &file, &mut rest)?;
        }
        let _writer = self.lock()?;
        self.view.write().files.remove(&number);
        let companion = companion(&file.name);
        self.disk
            .remove(&file.name)
            .map_err(at("removing", &file.name))?;
        self.disk
            .remove(&companion)
            .map_err(at("removing", &companion))?;
        Ok(true)
    }

    /// The file that gives most back for what has to be written for it, at
    /// least as much.
    fn most_dead(&self, writer: &mut Writer) -> io::Result<Option<u32>> {
        let active = writer.active.number;
        let content =
            |view: &View, number: u32| view.files[&number].bytes.saturating_sub(HEAD_BYTES as u64);
        let share = |view: &View, number: u32| {
            let (bytes, needed) = (content(view, number), view.needed(number));
            // In thousandths.
            (needed * 2 <= bytes).then(|| (needed * 1000 / bytes.max(1), number))
        };
        let (rolled, is_active_dead) = {
            let view = self.view.read();
            let rolled = view.files.keys().filter(|number| **number != active);
            let rolled = rolled.filter_map(|number| share(&view, *number)).min();
            let is_long = content(&view, active) >= self.file_bytes / 8;
            (rolled, is_long && share(&view, active).is_some())
        };
        if rolled.is_none() && is_active_dead && writer.batch > 0 {
            self.roll(writer)?;
            return Ok(Some(active));
        }
        Ok(rolled.map(|(_, number)| number))
    }

    /// Writes what is needed of some entries of a file into the active one.
    fn rewrite(
        &self,
        writer: &mut Writer,
        file: &DataFile,
        entries: &mut Entries<'_>,
    ) -> io::Result<()> {
        // What is found to be alive stays so: only a writer changes that.
        let mut kept: Vec<Kept<'_>> = Vec::new();
        let mut len = 0;
        while len < Base::SLICE_BYTES {
            let Some((key, entry)) = entries.next() else {
                break;
            };
            let mut view = self.view.write();
            let place = view.places.get(key).copied();
            match entry {
                Entry::Put(at, _) => {
                    let Some(place) =
                        place.filter(|place| (place.file, place.at) == (file.number, at))
                    else {
                        continue;
                    };
                    drop(view);
                    let span = (place.oldest, file.number);
                    match file.read(key, place) {
                        Ok(value) => {
                            len += record_len(key.len(), value.len());
                            kept.push((key, Some(value), span));
                        }
                        Err(damage) => {
                            self.report(file, &damage);
                            len += record_len(key.len(), SPAN_BYTES);
                            // What is older must not come back.
                            kept.push((key, None, span));
                        }
                    }
                }
                Entry::Grave(span) if !view.covers(span, file.number) => {}
                Entry::Grave(span) => match view.places.get_mut(key) {
                    // A newer value stands for it, and its grave will.
                    Some(place) => place.oldest = place.oldest.min(span.0),
                    None => {
                        len += record_len(key.len(), SPAN_BYTES);
                        kept.push((key, None, span));
                    }
                },
            }
        }
        self.make_room(writer, len)?;
        let active = writer.active.number;
        let records: Vec<_> = kept
            .iter()
            .map(|(key, value, (oldest, newest))| {
                let record = match value {
                    Some(value) => Record::Value {
                        value,
                        // This file goes.
                        oldest: if *oldest == file.number {
                            active
                        } else {
                            *oldest
                        },
                    },
                    None => Record::Grave((*oldest, *newest)),
                };
                (*key, record)
            })
            .collect();
        self.write(writer, &records)
    }

    /// Reads every record of every file; what is damaged is copied aside. `read`
    /// is told how many bytes more were.
    pub fn verify(&self, read: &mut dyn FnMut(u64)) -> io::Result<Vec<Damage>> {
        let files: Vec<_> = {
            let view = self.view.read();
            view.files.values().map(|held| held.file.clone()).collect()
        };
        let mut damage = Vec::new();
        for file in files {
            // No half of a batch, if it is the active one.
            let (bytes, unreadable) = {
                let _writer = self.writer.lock();
                frame::read_whole(&*file.file)?
            };
            for (range, what) in file.gaps(&bytes, unreadable) {
                let lost = frame::part(&bytes, &range);
                let kept = frame::keep(&*self.disk, &file.name, range.clone(), lost, what)?;
                damage.push(kept);
            }
            read(bytes.len() as u64);
        }
        Ok(damage)
    }

    /// What [`Base::get`] and [`Base::compact_step`] have found damaged since
    /// this was called last.
    pub fn take_damage(&self) -> Vec<Damage> {
        mem::take(&mut self.found.lock().new)
    }

    /// What the files take on disk.
    pub fn bytes(&self) -> u64 {
        self.view.read().files.values().map(|held| held.bytes).sum()
    }

    /// A clean stop: that all was synced is durable too, so that what is
    /// damaged later cannot be taken for an end that was not written whole.
    pub fn close(&self) -> io::Result<()> {
        let writer = self.lock()?;
        let active = &writer.active;
        let synced = active.file.sync().map_err(at("syncing", &active.name));
        self.note(synced)
    }

    fn lock(&self) -> io::Result<MutexGuard<'_, Writer>> {
        let writer = self.writer.lock();
        if self.is_broken.load(Ordering::Acquire) {
            return Err(io::Error::other("the base is closed since a failure"));
        }
        Ok(writer)
    }

    /// After a failure nothing is written any more.
    fn note<T>(&self, done: io::Result<T>) -> io::Result<T> {
        if done.is_err() {
            self.is_broken.store(true, Ordering::Release);
        }
        done
    }

    /// Has a batch of so many bytes fit into the active file, or goes on in a
    /// new one.
    fn make_room(&self, writer: &mut Writer, len: u64) -> io::Result<()> {
        if writer.batch > 0 && writer.end + len > self.file_bytes {
            self.roll(writer)?;
        }
        Ok(())
    }

    /// Goes on in a new file. The old one gets its companion first, which says
    /// that it is written to no more.
    fn roll(&self, writer: &mut Writer) -> io::Result<()> {
        write_companion(&*self.disk, &writer.active, &writer.directory)?;
        let active = Arc::new(DataFile::begin(&*self.disk, writer.active.number + 1)?);
        self.view.write().hold(active.clone(), HEAD_BYTES as u64);
        writer.active = active;
        writer.end = HEAD_BYTES as u64;
        writer.batch = 0;
        writer.directory = Vec::new();
        Ok(())
    }

    /// Copies aside what is damaged, once, and makes an error of it.
    fn report(&self, file: &DataFile, lost: &Lost) -> io::Error {
        let mut found = self.found.lock();
        if found.known.insert((file.number, lost.range.start)) {
            match lost.keep(&*self.disk, file) {
                Ok(damage) => found.new.push(damage),
                Err(error) => return error,
            }
        }
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{}, bytes {} to {}: {}",
                file.name, lost.range.start, lost.range.end, lost.what
            ),
        )
    }
}

impl View {
    fn hold(&mut self, file: Arc<DataFile>, bytes: u64) {
        let held = Held {
            file,
            bytes,
            live: 0,
            graves: BTreeMap::new(),
        };
        self.files.insert(held.file.number, held);
    }

    fn put(&mut self, key: &[u8], place: Place) {
        let len = |place: Place| record_len(key.len(), place.value_len as usize);
        match self.places.get_mut(key) {
            Some(old) => {
                let old = mem::replace(old, place);
                self.discount(old.file, len(old));
            }
            None => drop(self.places.insert(key.into(), place)),
        }
        if let Some(held) = self.files.get_mut(&place.file) {
            held.live += len(place);
        }
    }

    fn bury(&mut self, key: &[u8], file: u32, span: Span) {
        if let Some(old) = self.places.remove(key) {
            self.discount(old.file, record_len(key.len(), old.value_len as usize));
        }
        if let Some(held) = self.files.get_mut(&file) {
            *held.graves.entry(span).or_default() += record_len(key.len(), SPAN_BYTES);
        }
    }

    /// A value in a file is dead.
    fn discount(&mut self, file: u32, bytes: u64) {
        if let Some(held) = self.files.get_mut(&file) {
            held.live -= bytes;
        }
    }

    /// Whether a file of a span is there, another one than this.
    fn covers(&self, (oldest, newest): Span, number: u32) -> bool {
        let mut files = self.files.range(oldest..=newest);
        oldest <= newest && files.any(|(file, _)| *file != number)
    }

    /// What of a file has to be written anew if it goes, in bytes.
    fn needed(&self, number: u32) -> u64 {
        let held = &self.files[&number];
        let graves = held.graves.iter();
        let graves = graves.filter(|(span, _)| self.covers(**span, number));
        held.live + graves.map(|(_, bytes)| bytes).sum::<u64>()
    }

    fn from<'a>(
        &'a self,
        prefix: &'a [u8],
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = (&'a [u8], &'a Place)> {
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        self.places
            .range::<[u8], _>((from, Bound::Unbounded))
            .map(|(key, place)| (&**key, place))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// The next keys, with where their values are.
    fn page(&self, prefix: &[u8], after: Option<&[u8]>) -> Vec<(Box<[u8]>, Place, Arc<DataFile>)> {
        const PAGE: usize = 256;
        self.from(prefix, after)
            .take(PAGE)
            .map(|(key, place)| (key.into(), *place, self.files[&place.file].file.clone()))
            .collect()
    }
}

/// Bytes of a file that are not what they should be.
struct Lost {
    range: Range<u64>,
    what: &'static str,
}

impl Lost {
    fn keep(&self, disk: &dyn Disk, file: &DataFile) -> io::Result<Damage> {
        let end = file.file.len()?.min(self.range.end);
        let (bytes, _) = frame::read_range(&*file.file, self.range.start.min(end)..end);
        frame::keep(disk, &file.name, self.range.clone(), &bytes, self.what)
    }
}

impl DataFile {
    fn begin(disk: &dyn Disk, number: u32) -> io::Result<DataFile> {
        let name = name(number);
        let len = HEAD_BYTES + FRAME_BYTES;
        let file = disk
            .create(&name, len as u64)
            .map_err(at("creating", &name))?;
        let seal = Seal::new(Kind::Base, number.into(), disk.salt());
        seal.write_head(&*file).map_err(at("writing", &name))?;
        Ok(DataFile {
            number,
            name,
            seal,
            file,
        })
    }

    /// The value of a key, which is there.
    fn read(&self, key: &[u8], place: Place) -> Result<Vec<u8>, Lost> {
        let at = u64::from(place.at) * 8;
        let len = FRAME_BYTES + KEY_AT + key.len() + place.value_len as usize;
        let lost = |what| Lost {
            range: at..at + len as u64,
            what,
        };
        let mut bytes = vec![0; len];
        if self.file.read_at(&mut bytes, at).is_err() {
            return Err(lost(frame::UNREADABLE));
        }
        let record = self.seal.record(at, &bytes);
        let value = record.and_then(|record| match parse(record.payload)? {
            (PUT, found, value) if found == key => Some(value.len()),
            _ => None,
        });
        match value {
            Some(value) if value == place.value_len as usize => {
                bytes.drain(..len - value);
                Ok(bytes)
            }
            _ => Err(lost("the record of a value is damaged; it is lost")),
        }
    }

    /// What its companion says, or else its records.
    fn entries(&self, disk: &dyn Disk) -> io::Result<Vec<u8>> {
        if let Ok(Companion::Whole(entries, _)) = Companion::read(disk, self.number) {
            return Ok(entries);
        }
        let (bytes, _) = frame::read_whole(&*self.file)?;
        let mut entries = Vec::new();
        for found in Records::new(&self.seal, &bytes) {
            if let Found::Record(record) = found {
                Entry::of(&record, &mut entries);
            }
        }
        Ok(entries)
    }

    /// What is no record.
    fn gaps(
        &self,
        bytes: &[u8],
        unreadable: Vec<Range<u64>>,
    ) -> impl Iterator<Item = (Range<u64>, &'static str)> {
        let mut records = Records::new(&self.seal, bytes);
        let mut gaps: Vec<_> = (&mut records)
            .filter_map(|found| match found {
                Found::Record(_) => None,
                Found::Gap(gap) => Some((gap, LOST)),
            })
            .collect();
        gaps.extend(records.tail().map(|tail| (tail, LOST)));
        let unreadable = unreadable.into_iter();
        unreadable
            .map(|range| (range, frame::UNREADABLE))
            .chain(gaps)
    }
}

fn name(number: u32) -> String {
    format!("base-{number:010}")
}

fn companion(name: &str) -> String {
    format!("{name}.dir")
}

/// Tag, key and the rest of a payload.
fn parse(payload: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (head, rest) = payload.split_first_chunk::<KEY_AT>()?;
    let [tag, len @ ..] = *head;
    let (key, rest) = rest.split_at_checked(u32::from_le_bytes(len) as usize)?;
    Some((tag, key, rest))
}

/// What a companion says of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// Where, in units of 8 bytes; and how long the value is.
    Put(u32, u32),
    Grave(Span),
}

impl Entry {
    fn encode(self, key: &[u8], out: &mut Vec<u8>) {
        let (tag, a, b) = match self {
            Entry::Put(at, len) => (PUT, at, len),
            Entry::Grave((oldest, newest)) => (GRAVE, oldest, newest),
        };
        out.push(tag);
        for number in [a, b, key.len() as u32] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(key);
    }

    /// Adds that of a record.
    fn of(record: &frame::Record<'_>, out: &mut Vec<u8>) {
        match parse(record.payload) {
            Some((PUT, key, value)) => {
                Entry::Put((record.at / 8) as u32, value.len() as u32).encode(key, out);
            }
            Some((GRAVE, key, span)) => {
                if let (&[oldest, newest], []) = span.as_chunks::<4>() {
                    let span = (u32::from_le_bytes(oldest), u32::from_le_bytes(newest));
                    Entry::Grave(span).encode(key, out);
                }
            }
            // A mark; nothing else was ever written.
            _ => {}
        }
    }
}

/// Reads what [`Entry::encode`] wrote.
struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a [u8], Entry);

    fn next(&mut self) -> Option<(&'a [u8], Entry)> {
        let (head, rest) = mem::take(&mut self.0).split_first_chunk::<13>()?;
        let [tag, numbers @ ..] = *head;
        let (numbers, _) = numbers.as_chunks();
        let [a, b, len] = [0, 1, 2].map(|i| u32::from_le_bytes(numbers[i]));
        let (key, rest) = rest.split_at_checked(len as usize)?;
        self.0 = rest;
        let entry = match tag {
            PUT => Entry::Put(a, b),
            _ => Entry::Grave((a, b)),
        };
        Some((key, entry))
    }
}

/// The companion of a file: its entries, in one record.
enum Companion {
    /// Its head may be damaged for all that.
    Whole(Vec<u8>, Option<Damage>),
    Missing,
    Damaged(Damage),
}

impl Companion {
    fn read(disk: &dyn Disk, number: u32) -> Result<Companion, OpenError> {
        let name = companion(&name(number));
        if !disk.names().map_err(of(&name))?.contains(&name) {
            return Ok(Companion::Missing);
        }
        let bytes = match Opened::open(disk, &name, Kind::Directory, number.into())? {
            Opened::Sealed { file, seal, damage } => {
                let (bytes, _) = frame::read_whole(&*file).map_err(of(&name))?;
                let mut records = Records::new(&seal, &bytes);
                if let Some(Found::Record(record)) = records.next() {
                    return Ok(Companion::Whole(record.payload.to_owned(), damage));
                }
                bytes
            }
            Opened::Blank => Vec::new(),
            Opened::Unreadable(damage) => return Ok(Companion::Damaged(damage)),
        };
        let what = "a list of what is in a file of the base; nothing is lost, it was made anew";
        let range = 0..bytes.len() as u64;
        let damage = frame::keep(disk, &name, range, &bytes, what).map_err(of(&name))?;
        disk.remove(&name).map_err(of(&name))?;
        Ok(Companion::Damaged(damage))
    }
}

/// Written under another name first, so that it is there whole or not at all.
fn write_companion(disk: &dyn Disk, file: &DataFile, entries: &[u8]) -> io::Result<()> {
    let name = companion(&file.name);
    let new = format!("{name}.new");
    let seal = Seal::new(Kind::Directory, file.number.into(), disk.salt());
    let mut record = Vec::new();
    let at_head = HEAD_BYTES as u64;
    seal.frame(at_head, 1, Flags::new(true, false), &[entries], &mut record);
    let made = disk
        .create(&new, at_head + record.len() as u64)
        .map_err(at("creating", &new))?;
    seal.write_head(&*made)
        .and_then(|()| made.write_at(&record, at_head))
        .and_then(|()| made.sync())
        .map_err(at("writing", &new))?;
    disk.rename(&new, &name).map_err(at("renaming", &new))
}

/// Reads the files of a base.
struct Recovery {
    disk: Arc<dyn Disk>,
    file_bytes: u64,
    view: View,
    damage: Vec<Damage>,
    /// The newest file, if it can be written to.
    writer: Option<Writer>,
    highest: u32,
}

impl Recovery {
    fn new(disk: Arc<dyn Disk>, file_bytes: u64) -> Recovery {
        Recovery {
            disk,
            file_bytes,
            view: View::default(),
            damage: Vec::new(),
            writer: None,
            highest: 0,
        }
    }

    /// The numbers of all files, in order. What belongs to none is removed.
    fn find_files(&mut self) -> Result<Vec<u32>, OpenError> {
        let names = self.disk.names().map_err(of("the data folder"))?;
        let mut numbers: Vec<u32> = names
            .iter()
            .filter_map(|file| {
                let number = file.strip_prefix("base-")?.parse().ok();
                number.filter(|number| name(*number) == *file)
            })
            .collect();
        numbers.sort_unstable();
        self.highest = numbers.last().copied().unwrap_or(0);
        for file in names.iter().filter(|file| file.starts_with("base-")) {
            let owner = file.strip_suffix(".dir");
            let is_left = owner.is_some_and(|owner| !names.iter().any(|name| name == owner));
            if is_left || file.ends_with(".dir.new") {
                self.disk.remove(file).map_err(of(file))?;
            }
        }
        Ok(numbers)
    }

    fn read(&mut self, number: u32, is_newest: bool) -> Result<(), OpenError> {
        let name = name(number);
        let opened = Opened::open(&*self.disk, &name, Kind::Base, number.into())?;
        let (file, seal, damage) = match opened {
            Opened::Sealed { file, seal, damage } => (file, seal, damage),
            Opened::Blank => return self.disk.remove(&name).map_err(of(&name)),
            Opened::Unreadable(damage) => {
                self.damage.push(damage);
                return Ok(());
            }
        };
        self.damage.extend(damage);
        let len = file.len().map_err(of(&name))?;
        let file = Arc::new(DataFile {
            number,
            name,
            seal,
            file,
        });
        self.view.hold(file.clone(), len);
        match Companion::read(&*self.disk, number)? {
            Companion::Whole(entries, damage) => {
                self.damage.extend(damage);
                self.enter(number, &entries);
            }
            Companion::Missing => self.read_records(file, is_newest)?,
            Companion::Damaged(damage) => {
                self.damage.push(damage);
                self.read_records(file, is_newest)?;
            }
        }
        Ok(())
    }

    /// Reads a file without a companion.
    fn read_records(&mut self, file: Arc<DataFile>, is_newest: bool) -> Result<(), OpenError> {
        let of = of(&file.name);
        let (bytes, unreadable) = frame::read_whole(&*file.file).map_err(&of)?;
        let mut entries = Vec::new();
        // Each file was synced before the next was begun.
        let synced = (!is_newest).then_some(u64::MAX);
        let batches = Batches::read(&file.seal, &bytes, 0, &mut |_| synced, &mut |record, _| {
            Entry::of(record, &mut entries);
        });
        let unreadable = unreadable.into_iter().map(|at| (at, frame::UNREADABLE));
        let gaps = batches.gaps.iter().map(|gap| (gap.clone(), LOST));
        let unfinished = batches.unfinished.iter();
        let unfinished = unfinished.map(|range| (range.clone(), UNFINISHED));
        for (range, what) in unreadable.chain(gaps).chain(unfinished) {
            let lost = frame::part(&bytes, &range);
            let mut damage =
                frame::keep(&*self.disk, &file.name, range.clone(), lost, what).map_err(&of)?;
            damage.unfinished = what == UNFINISHED;
            self.damage.push(damage);
        }
        self.enter(file.number, &entries);
        if !is_newest {
            return write_companion(&*self.disk, &file, &entries).map_err(&of);
        }
        if let Some(range) = batches.unfinished {
            frame::erase(&*file.file, range).map_err(&of)?;
        }
        if !batches.is_begun {
            file.seal.write_head(&*file.file).map_err(&of)?;
        }
        // See the log's: what was read is made sure of.
        let doubtful = frame::part(&bytes, &(batches.doubtful..batches.end));
        if !doubtful.is_empty() {
            file.file
                .write_at(doubtful, batches.doubtful)
                .and_then(|()| file.file.sync())
                .map_err(&of)?;
        }
        if let Some(held) = self.view.files.get_mut(&file.number) {
            held.bytes = batches.end;
        }
        self.writer = Some(Writer {
            active: file.clone(),
            end: batches.end,
            batch: batches.last,
            directory: entries,
        });
        Ok(())
    }

    /// Puts into the directory what a file says, which is newer than all
    /// before.
    fn enter(&mut self, number: u32, entries: &[u8]) {
        for (key, entry) in Entries(entries) {
            match entry {
                Entry::Put(at, value_len) => {
                    let older = self.view.places.get(key);
                    let oldest = older.map_or(number, |older| older.oldest);
                    let place = Place {
                        file: number,
                        at,
                        value_len,
                        oldest,
                    };
                    self.view.put(key, place);
                }
                Entry::Grave(span) => self.view.bury(key, number, span),
            }
        }
    }

    fn finish(mut self) -> Result<(Base, Vec<Damage>), OpenError> {
        let writer = match self.writer {
            Some(writer) => writer,
            None => {
                let number = self.highest + 1;
                let begun = DataFile::begin(&*self.disk, number).map_err(of(&name(number)))?;
                let active = Arc::new(begun);
                self.view.hold(active.clone(), HEAD_BYTES as u64);
                Writer {
                    active,
                    end: HEAD_BYTES as u64,
                    batch: 0,
                    directory: Vec::new(),
                }
            }
        };
        let base = Base {
            disk: self.disk,
            file_bytes: self.file_bytes,
            writer: Mutex::new(writer),
            view: RwLock::new(self.view),
            found: Mutex::default(),
            compacting: Mutex::default(),
            is_broken: AtomicBool::new(false),
        };
        Ok((base, self.damage))
    }
}

/// What is said of an end that does not count.
const UNFINISHED: &str =
    "the last changes were not written to their end; nothing relied on them yet";

#[cfg(test)]
mod tests {
    use super::super::twin::{Fault, Twin};
    use super::*;

    const FILE: u64 = HEAD_BYTES as u64 + 600;

    type Model = BTreeMap<Vec<u8>, Vec<u8>>;

    /// The same numbers from the same seed.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(0x5bd1);
            (self.0 >> 33) % bound
        }

        fn changes(&mut self) -> Vec<BaseChange> {
            (0..=self.below(4))
                .map(|_| {
                    let key = format!("k{:02}", self.below(12)).into_bytes().into();
                    let len = self.below(100) as usize;
                    match self.below(5) {
                        0 | 1 => BaseChange::Delete(key),
                        _ => BaseChange::Put(key, vec![self.below(250) as u8 + 1; len]),
                    }
                })
                .collect()
        }
    }

    fn change(model: &mut Model, changes: &[BaseChange]) {
        for change in changes {
            match change {
                BaseChange::Put(key, value) => drop(model.insert(key.to_vec(), value.clone())),
                BaseChange::Delete(key) => drop(model.remove(&**key)),
            }
        }
    }

    fn open(disk: &Twin) -> Result<(Base, Vec<Damage>), OpenError> {
        Base::open_with(Arc::new(disk.clone()), FILE)
    }

    /// All that is there, read in each way that there is.
    fn contents(base: &Base) -> Model {
        let mut all = Model::new();
        let damage = base.scan(b"", &mut |key, value| {
            all.insert(key.to_vec(), value.to_vec());
        });
        assert_eq!(damage.unwrap(), []);
        let mut keys = Vec::new();
        base.keys(b"k", &mut |key, len| keys.push((key.to_vec(), len)));
        let lens: Vec<_> = all
            .iter()
            .map(|(key, value)| (key.clone(), value.len()))
            .collect();
        assert_eq!(keys, lens);
        for key in (0..12).map(|i| format!("k{i:02}").into_bytes()) {
            assert_eq!(base.get(&key).unwrap().as_ref(), all.get(&key));
        }
        all
    }

    fn put(key: &str, value: &[u8]) -> BaseChange {
        BaseChange::Put(key.as_bytes().into(), value.to_owned())
    }

    fn delete(key: &str) -> BaseChange {
        BaseChange::Delete(key.as_bytes().into())
    }

    #[test]
    fn it_is_as_a_map_through_compactions_and_new_starts() {
        for seed in 0..20 {
            let disk = Twin::new();
            let mut dice = Dice(seed);
            let mut model = Model::new();
            let (mut base, _) = open(&disk).unwrap();
            for step in 0..300 {
                match dice.below(12) {
                    0 | 1 => drop(base.compact_step().unwrap()),
                    2 => {
                        let (again, damage) = open(&disk.cut()).unwrap();
                        assert_eq!(damage, [], "{seed} {step}");
                        assert!(contents(&again) == model, "{seed} {step}");
                        base = open(&disk).unwrap().0;
                    }
                    _ => {
                        let changes = dice.changes();
                        base.apply(&changes).unwrap();
                        change(&mut model, &changes);
                    }
                }
                assert!(contents(&base) == model, "{seed} {step}");
            }
            assert_eq!(base.verify(&mut |_| ()).unwrap(), []);
        }
    }

    /// Case C11 of docs/security.md.
    #[test]
    fn what_is_dead_gives_its_room_back_graves_too() {
        let disk = Twin::new();
        let (base, _) = open(&disk).unwrap();
        // What lives for long stays in the way.
        base.apply(&[put("a", &[1; 300])]).unwrap();
        for i in 0..2000 {
            base.apply(&[put(&format!("b{i}"), &[2; 100])]).unwrap();
            if i >= 10 {
                base.apply(&[delete(&format!("b{}", i - 10))]).unwrap();
            }
            while base.compact_step().unwrap() {}
            assert!(base.bytes() < 12 * FILE, "{i}: {}", base.bytes());
        }
        let mut alive = 0;
        base.keys(b"", &mut |_, _| alive += 1);
        assert_eq!(alive, 11);
        let names = disk.names().unwrap();
        assert!(names.len() < 24, "{names:?}");
    }

    #[test]
    fn a_scan_gives_keys_with_a_prefix_in_order_and_locks_nothing() {
        let disk = Twin::new();
        let (base, _) = Base::open_with(Arc::new(disk), Base::FILE_BYTES).unwrap();
        let changes: Vec<_> = (0..1000)
            .rev()
            .map(|i| put(&format!("p{i:03}"), b"v"))
            .collect();
        base.apply(&changes).unwrap();
        base.apply(&[put("o", b""), put("q", b"")]).unwrap();
        let mut keys = Vec::new();
        base.scan(b"p", &mut |key, _| {
            base.apply(&[put("o", b"new")]).unwrap();
            keys.push(String::from_utf8(key.to_vec()).unwrap());
        })
        .unwrap();
        let all: Vec<_> = (0..1000).map(|i| format!("p{i:03}")).collect();
        assert_eq!(keys, all);
        let mut some = 0;
        base.keys(b"p99", &mut |_, len| some += len);
        assert_eq!(some, 10);
        assert_eq!(base.get(b"p").unwrap(), None);
    }

    #[test]
    fn a_value_is_there_for_who_reads_while_its_file_is_compacted() {
        let disk = Twin::new();
        let (base, _) = open(&disk).unwrap();
        let is_done = AtomicBool::new(false);
        base.apply(&[put("k00", &[0; 90])]).unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while !is_done.load(Ordering::Acquire) {
                    assert_eq!(base.get(b"k00").unwrap(), Some(vec![0; 90]));
                }
            });
            let compacting = scope.spawn(|| {
                while !is_done.load(Ordering::Acquire) {
                    base.compact_step().unwrap();
                }
            });
            for i in 0..2000_u64 {
                base.apply(&[put(&format!("k{:02}", 1 + i % 5), &[1; 90])])
                    .unwrap();
            }
            is_done.store(true, Ordering::Release);
            reader.join().unwrap();
            compacting.join().unwrap();
        });
        while base.compact_step().unwrap() {}
        assert_eq!(contents(&base).len(), 6);
        assert!(
            !disk
                .names()
                .unwrap()
                .contains(&"base-0000000001".to_owned())
        );
    }

    #[test]
    fn opening_reads_none_of_the_values_in_files_that_are_full() {
        let disk = Twin::new();
        let (base, _) = open(&disk).unwrap();
        for i in 0..12 {
            base.apply(&[put(&format!("k{i:02}"), &[i; 150])]).unwrap();
        }
        let full: Vec<_> = {
            let names = disk.names().unwrap();
            let is_full = |name: &String| names.contains(&format!("{name}.dir"));
            names.iter().filter(|name| is_full(name)).cloned().collect()
        };
        assert!(full.len() > 2);
        for name in &full {
            // The first bytes behind the head are looked at with it.
            disk.spoil(name, 8250..u64::MAX);
        }
        let (base, damage) = open(&disk).unwrap();
        assert_eq!(damage, []);
        let mut keys = 0;
        base.keys(b"", &mut |_, _| keys += 1);
        assert_eq!(keys, 12);
        assert_eq!(
            base.get(b"k00").unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        assert_eq!(base.get(b"k11").unwrap(), Some(vec![11; 150]));
    }

    /// How far a history came.
    #[derive(Default)]
    struct Story {
        /// After each batch; the last one may have failed.
        states: Vec<Model>,
        applied: usize,
        is_opened: bool,
    }

    fn tell(disk: &Twin, seed: u64) -> Story {
        let mut story = Story {
            states: vec![Model::new()],
            ..Story::default()
        };
        let _ = try_tell(disk, seed, &mut story);
        story
    }

    fn try_tell(disk: &Twin, seed: u64, story: &mut Story) -> Result<(), OpenError> {
        let (base, damage) = open(disk)?;
        assert_eq!(damage, []);
        story.is_opened = true;
        let mut dice = Dice(seed);
        for _ in 0..40 {
            let changes = dice.changes();
            let mut state = story.states.last().unwrap().clone();
            change(&mut state, &changes);
            story.states.push(state);
            base.apply(&changes).map_err(of("the base"))?;
            story.applied = story.states.len() - 1;
            if dice.below(4) == 0 {
                base.compact_step().map_err(of("the base"))?;
            }
        }
        base.close().map_err(of("the base"))
    }

    fn check(disk: &Twin, story: &Story, what: &str) {
        let (base, damage) = open(disk).unwrap();
        assert!(
            damage.iter().all(|damage| damage.unfinished),
            "{what}: {damage:?}"
        );
        let found = contents(&base);
        assert!(story.states[story.applied..].contains(&found), "{what}");
        // What was read is there for good, and it goes on.
        let (again, damage) = open(&disk.cut()).unwrap();
        assert!(
            contents(&again) == found && damage.is_empty(),
            "{what}: {damage:?}"
        );
        let mut model = found;
        let mut dice = Dice(99);
        for _ in 0..12 {
            let changes = dice.changes();
            base.apply(&changes).unwrap();
            change(&mut model, &changes);
            base.compact_step().unwrap();
        }
        assert!(contents(&base) == model, "{what}");
        let (again, damage) = open(&disk.cut()).unwrap();
        assert!(
            contents(&again) == model && damage.is_empty(),
            "{what}: {damage:?}"
        );
    }

    /// Case K10 of docs/security.md.
    #[test]
    fn a_cut_at_any_operation_leaves_all_that_was_applied_and_no_half_of_a_batch() {
        for seed in 0..2 {
            let whole = Twin::new();
            let story = tell(&whole, seed);
            assert_eq!((story.applied, story.is_opened), (40, true));
            for nth in 1..=whole.operations() {
                let disk = Twin::new();
                disk.fail_at(nth, Fault::Stopped);
                let story = tell(&disk, seed);
                check(&disk.cut(), &story, &format!("{seed} {nth} cut"));
                check(&disk.kill(), &story, &format!("{seed} {nth} killed"));
                for tear in 0..3 {
                    let torn = disk.cut_with(tear);
                    check(&torn, &story, &format!("{seed} {nth} torn {tear}"));
                }
            }
        }
    }

    #[test]
    fn a_cut_while_it_is_opened_after_a_cut_loses_nothing_more() {
        let whole = Twin::new();
        tell(&whole, 2);
        for nth in 1..=whole.operations() {
            let disk = Twin::new();
            disk.fail_at(nth, Fault::Stopped);
            let story = tell(&disk, 2);
            let torn = disk.cut_with(nth);
            for again in 1.. {
                let copy = torn.kill();
                copy.fail_at(again, Fault::Stopped);
                if open(&copy).is_ok() {
                    break;
                }
                check(&copy.cut_with(again), &story, &format!("{nth} {again}"));
            }
        }
    }

    #[test]
    fn after_a_failure_nothing_is_written_any_more_and_what_was_applied_is_there() {
        for fault in [Fault::Failed, Fault::Full] {
            let whole = Twin::new();
            tell(&whole, 1);
            for nth in 1..=whole.operations() {
                let disk = Twin::new();
                disk.fail_at(nth, fault);
                let story = tell(&disk, 1);
                let what = format!("{fault:?} {nth}");
                check(&disk.cut(), &story, &what);
                check(&disk.kill(), &story, &what);
            }
        }
        let disk = Twin::new();
        let (base, _) = open(&disk).unwrap();
        disk.fail_at(2, Fault::Failed);
        let error = base.apply(&[put("k00", b"")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "syncing base-0000000001: Input/output error (os error 5)"
        );
        let before = disk.operations();
        assert!(base.apply(&[delete("k00")]).is_err());
        assert!(base.compact_step().is_err() && base.close().is_err());
        assert_eq!(disk.operations(), before);
        assert_eq!(base.get(b"k00").unwrap(), None);
    }

    /// Case K02 of docs/security.md.
    #[test]
    fn a_flipped_byte_is_noticed_and_costs_its_record_at_most() {
        let disk = Twin::new();
        let mut model = Model::new();
        {
            let (base, _) = open(&disk).unwrap();
            let mut dice = Dice(5);
            for _ in 0..24 {
                let changes = dice.changes();
                base.apply(&changes).unwrap();
                change(&mut model, &changes);
            }
            base.close().unwrap();
        }
        let names = disk.names().unwrap();
        assert!(names.len() > 4, "{names:?}");
        let mut noticed = 0;
        for name in &names {
            let bytes = disk.bytes(name).unwrap();
            let used = bytes.len() as u64;
            for at in (0..44).chain(4096..4140).chain(HEAD_BYTES as u64..used) {
                let disk = disk.kill();
                disk.flip(name, at, 1 << (at % 8));
                let what = format!("{name} {at}");
                let (base, mut damage) = open(&disk).unwrap();
                // Keys whose value is not what it was. A lost record may show
                // what was before it.
                let mut found = Model::new();
                damage.extend(
                    base.scan(b"", &mut |key, value| {
                        found.insert(key.to_vec(), value.to_vec());
                    })
                    .unwrap(),
                );
                let keys: BTreeSet<_> = model.keys().chain(found.keys()).collect();
                let wrong: Vec<_> = keys
                    .iter()
                    .filter(|key| model.get(**key) != found.get(**key))
                    .collect();
                assert!(wrong.len() <= 1, "{what}: {wrong:?}");
                damage.extend(base.verify(&mut |_| ()).unwrap());
                if !damage.is_empty() {
                    noticed += 1;
                }
                for damage in &damage {
                    let is_there = damage.range.contains(&at) && damage.file == *name;
                    assert!(is_there, "{what}: {damage:?}");
                    assert!(!damage.unfinished || wrong.is_empty(), "{what}: {damage:?}");
                }
                // Padding means nothing.
                assert!(wrong.is_empty() || !damage.is_empty(), "{what}");
            }
        }
        assert!(noticed > 1000, "{noticed}");
    }

    #[test]
    fn garbage_of_any_kind_neither_ends_the_program_nor_invents_a_value() {
        let disk = Twin::new();
        let mut written: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        {
            let (base, _) = open(&disk).unwrap();
            let mut dice = Dice(6);
            for _ in 0..24 {
                let changes = dice.changes();
                base.apply(&changes).unwrap();
                for change in &changes {
                    if let BaseChange::Put(key, value) = change {
                        written.entry(key.to_vec()).or_default().push(value.clone());
                    }
                }
            }
        }
        let names = disk.names().unwrap();
        for seed in 0..300 {
            let mut dice = Dice(seed);
            let disk = disk.kill();
            for _ in 0..=dice.below(3) {
                let name = &names[dice.below(names.len() as u64) as usize];
                let mut bytes = disk.bytes(name).unwrap();
                let from = dice.below(bytes.len() as u64) as usize;
                let to = (from + dice.below(600) as usize).min(bytes.len());
                match dice.below(4) {
                    0 => bytes.truncate(from),
                    1 => bytes[from..to].fill(0),
                    2 => bytes.copy_within(HEAD_BYTES.min(from)..from, 0),
                    _ => bytes[from..to]
                        .iter_mut()
                        .for_each(|byte| *byte = dice.below(256) as u8),
                }
                disk.remove(name).unwrap();
                let file = disk.create(name, bytes.len() as u64).unwrap();
                file.write_at(&bytes, 0).unwrap();
                file.sync().unwrap();
            }
            for _ in 0..2 {
                let (base, _) = open(&disk).unwrap();
                base.scan(b"", &mut |key, value| {
                    let ever = &written[key];
                    assert!(ever.iter().any(|one| one == value), "{seed}");
                })
                .unwrap();
                base.verify(&mut |_| ()).unwrap();
                base.apply(&[put("k05", b"new")]).unwrap();
                written
                    .entry(b"k05".to_vec())
                    .or_default()
                    .push(b"new".to_vec());
                while base.compact_step().unwrap() {}
                assert_eq!(base.get(b"k05").unwrap(), Some(b"new".to_vec()), "{seed}");
            }
        }
    }

    #[test]
    fn a_damaged_value_is_reported_once_and_older_ones_do_not_come_back() {
        let disk = Twin::new();
        let (base, _) = open(&disk).unwrap();
        base.apply(&[put("k00", &[1; 50]), put("k01", &[1; 400])])
            .unwrap();
        base.apply(&[put("k00", &[2; 50]), put("k02", &[2; 400])])
            .unwrap();
        base.apply(&[put("k03", &[3; 500])]).unwrap();
        let at = disk.bytes("base-0000000002").unwrap();
        let at = at.windows(50).position(|bytes| bytes == [2; 50]).unwrap();
        disk.flip("base-0000000002", at as u64, 1);
        for _ in 0..2 {
            assert_eq!(
                base.get(b"k00").unwrap_err().kind(),
                io::ErrorKind::InvalidData
            );
        }
        let damage = base.take_damage();
        assert_eq!((damage.len(), &*damage[0].file), (1, "base-0000000002"));
        assert!(
            disk.bytes(&damage[0].copied_to)
                .unwrap()
                .ends_with(&[2; 48])
        );
        assert_eq!(base.take_damage(), []);
        // The file goes, and what was damaged with it.
        base.apply(&[delete("k02")]).unwrap();
        while base.compact_step().unwrap() {}
        assert!(
            !disk
                .names()
                .unwrap()
                .contains(&"base-0000000002".to_owned())
        );
        assert_eq!(base.get(b"k00").unwrap(), None);
        let (base, damage) = open(&disk).unwrap();
        assert_eq!(damage, []);
        assert_eq!(base.get(b"k00").unwrap(), None);
        assert_eq!(base.get(b"k01").unwrap(), Some(vec![1; 400]));
    }

    #[test]
    fn a_value_that_was_removed_twice_does_not_come_back_from_an_old_file() {
        let disk = Twin::new();
        let (base, _) = open(&disk).unwrap();
        let is_there = |number: u32| disk.names().unwrap().contains(&name(number));
        // Each fills a file of its own.
        base.apply(&[put("k00", b"old"), put("k01", &[1; 500])])
            .unwrap();
        base.apply(&[delete("k00"), put("k02", &[2; 500])]).unwrap();
        base.apply(&[put("k00", b"new"), put("k03", &[3; 500])])
            .unwrap();
        base.apply(&[delete("k02"), put("k04", &[4; 500])]).unwrap();
        // The first grave goes, for the new value stands for it.
        while base.compact_step().unwrap() {}
        assert!(is_there(1) && !is_there(2) && is_there(3));
        base.apply(&[delete("k00"), put("k05", &[5; 500])]).unwrap();
        base.apply(&[delete("k03"), delete("k05"), put("k06", &[6; 500])])
            .unwrap();
        base.apply(&[put("k07", &[7; 500])]).unwrap();
        while base.compact_step().unwrap() {}
        assert!(is_there(1) && !is_there(3) && !is_there(5));
        let (again, _) = open(&disk).unwrap();
        assert_eq!(again.get(b"k00").unwrap(), None);
        assert!(contents(&again) == contents(&base));
    }

    #[test]
    fn a_list_that_is_missing_or_damaged_is_made_anew() {
        let disk = Twin::new();
        let mut model = Model::new();
        {
            let (base, _) = open(&disk).unwrap();
            let mut dice = Dice(8);
            for _ in 0..30 {
                let changes = dice.changes();
                base.apply(&changes).unwrap();
                change(&mut model, &changes);
            }
        }
        let lists: Vec<_> = disk.names().unwrap();
        let lists: Vec<_> = lists.iter().filter(|name| name.ends_with(".dir")).collect();
        disk.remove(lists[0]).unwrap();
        disk.flip(lists[1], 8210, 1);
        let (base, damage) = open(&disk).unwrap();
        let [damage] = &damage[..] else {
            panic!("{damage:?}");
        };
        assert_eq!(damage.file, *lists[1]);
        assert!(contents(&base) == model);
        let (base, damage) = open(&disk).unwrap();
        assert_eq!(damage, []);
        assert!(contents(&base) == model);
    }
}
