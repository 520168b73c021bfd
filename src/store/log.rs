//! The log: the commit point.
//!
//! What was written here and synced is stored; all else follows. It is a row
//! of segments, files of a fixed length that are made before they are needed
//! and used again when nothing in them is alive. Batches lie in them one
//! behind the other, each in one segment whole; a batch counts with its last
//! record.
//!
//! The writer, [`Log`], belongs to one thread. Who reads, moves or frees has
//! [`Segments`]. Neither knows what a record says, or when a batch is to be
//! synced.
//!
//! After a failed write or sync the log is closed for good: what is on the
//! disk is not known then, and only reading it anew can tell.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};

use super::disk::{Disk, File};
use super::frame::{
    self, Batches, Damage, FRAME_BYTES, Flags, Found, HEAD_BYTES, Kind, LOST, OpenError, Opened,
    PAYLOAD_BYTES_MAX, Records, Seal, at, frame_len, of,
};

/// Where a payload lies: the segment's number, and in the low 32 bits the
/// offset in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    fn new(segment: u64, at: u64) -> Position {
        Position(segment << 32 | at)
    }

    pub const fn segment(self) -> u64 {
        self.0 >> 32
    }

    /// In the segment's file.
    pub const fn offset(self) -> u64 {
        self.0 & u32::MAX as u64
    }

    /// So many bytes further in the same payload.
    #[must_use]
    pub const fn plus(self, bytes: usize) -> Position {
        Position(self.0 + bytes as u64)
    }
}

/// Where records are written. One thread has it.
pub struct Log {
    segments: Segments,
    active: Arc<Segment>,
    /// Where the next record goes.
    end: u64,
    last_batch: u64,
    /// Whether all that was written is synced.
    is_synced: bool,
    /// The batch with its frames, as it goes to the disk; kept for the next.
    frames: Vec<u8>,
}

/// How much memory is kept from one batch for the next.
const FRAMES_BYTES_MAX: usize = 4 << 20;

/// A batch must lie below what a [`Position`] can say.
const SEGMENT_BYTES_MAX: u64 = u32::MAX as u64;

/// Kept free behind the records: for a mark, and zeros that end the reading.
const RESERVE_BYTES: u64 = FRAME_BYTES as u64;

impl Log {
    /// Opens the log of a folder, or begins one. Gives each record of each
    /// whole batch to `each`, oldest first, with the number of its batch.
    ///
    /// What is damaged costs the record that it is in. An end that was not
    /// written whole is left out, from the first incomplete batch on. Both are
    /// copied aside and reported, not deleted.
    ///
    /// # Errors
    ///
    /// When the disk cannot be read or written, or the files are of another
    /// version. Never for what is in them.
    pub fn open(
        disk: Arc<dyn Disk>,
        segment_bytes: u64,
        each: &mut dyn FnMut(Position, u64, &[u8]),
    ) -> Result<(Log, Vec<Damage>), OpenError> {
        let segment_bytes = segment_bytes
            .max(HEAD_BYTES as u64 + RESERVE_BYTES)
            .min(SEGMENT_BYTES_MAX);
        let mut recovery = Recovery::new(disk, segment_bytes)?;
        recovery.read_all(each)?;
        recovery.finish()
    }

    /// Writes a batch with a number above all before it. Its records lie one
    /// behind the other in `bytes`, `ends` says where each ends. Adds each
    /// one's position. It is not synced.
    pub fn write(
        &mut self,
        batch: u64,
        bytes: &[u8],
        ends: &[usize],
        positions: &mut Vec<Position>,
    ) -> io::Result<()> {
        self.segments.shared.check()?;
        debug_assert!(batch > self.last_batch);
        let written = self.try_write(batch, bytes, ends, positions);
        self.segments.shared.note(written)
    }

    fn try_write(
        &mut self,
        batch: u64,
        bytes: &[u8],
        ends: &[usize],
        positions: &mut Vec<Position>,
    ) -> io::Result<()> {
        let payloads = || {
            let begins = [0].iter().chain(ends);
            begins.zip(ends).map(|(begin, end)| &bytes[*begin..*end])
        };
        let len = payloads()
            .map(|payload| frame_len(payload.len()))
            .sum::<usize>() as u64;
        if payloads().any(|payload| payload.len() > PAYLOAD_BYTES_MAX)
            || HEAD_BYTES as u64 + len + RESERVE_BYTES > SEGMENT_BYTES_MAX
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a batch of {len} bytes is too large for the log"),
            ));
        }
        if self.end + len + RESERVE_BYTES > self.active.len {
            self.roll(len)?;
        }
        let Log { active, frames, .. } = self;
        frames.clear();
        for (i, payload) in payloads().enumerate() {
            let at = self.end + frames.len() as u64;
            let flags = Flags::new(i + 1 == ends.len(), self.is_synced);
            active.seal.frame(at, batch, flags, &[payload], frames);
            positions.push(Position::new(active.number, at + FRAME_BYTES as u64));
        }
        // Whatever lay here before, the reading ends behind this batch.
        frames.extend_from_slice(&[0; FRAME_BYTES]);
        active
            .file
            .write_at(frames, self.end)
            .map_err(at("writing", &active.name))?;
        self.end += len;
        self.last_batch = batch;
        self.is_synced = false;
        if frames.capacity() > FRAMES_BYTES_MAX {
            *frames = Vec::new();
        }
        Ok(())
    }

    /// Syncs what was written.
    pub fn sync(&mut self) -> io::Result<()> {
        self.segments.shared.check()?;
        let synced = self.try_sync();
        self.segments.shared.note(synced)
    }

    fn try_sync(&mut self) -> io::Result<()> {
        if !self.is_synced {
            self.active
                .file
                .sync()
                .map_err(at("syncing", &self.active.name))?;
            self.is_synced = true;
        }
        Ok(())
    }

    /// A clean stop: syncs, and says so at the end, so that what is damaged
    /// later cannot be taken for an end that was not written whole.
    pub fn close(&mut self) -> io::Result<()> {
        self.sync()?;
        let closed = self.try_close();
        self.segments.shared.note(closed)
    }

    fn try_close(&mut self) -> io::Result<()> {
        let Log { active, frames, .. } = self;
        frames.clear();
        active.seal.mark(self.end, self.last_batch + 1, frames);
        if self.end + 2 * RESERVE_BYTES <= active.len {
            frames.extend_from_slice(&[0; FRAME_BYTES]);
        }
        active
            .file
            .write_at(frames, self.end)
            .map_err(at("writing", &active.name))?;
        self.end += RESERVE_BYTES;
        self.is_synced = false;
        self.try_sync()
    }

    /// The number of the last batch; 0, if none is known.
    pub fn last_batch(&self) -> u64 {
        self.last_batch
    }

    /// For all who read, move and free.
    pub fn segments(&self) -> Segments {
        self.segments.clone()
    }

    /// Goes on in the next segment, with room for `len` bytes of records.
    fn roll(&mut self, len: u64) -> io::Result<()> {
        // Whoever reads the next one may rely on this one.
        self.try_sync()?;
        let len = HEAD_BYTES as u64 + len + RESERVE_BYTES;
        self.active = self.segments.shared.roll(len)?;
        self.end = HEAD_BYTES as u64;
        Ok(())
    }
}

/// For copies.
impl Log {
    /// The files with records, and where those end that were written.
    pub fn extents(&self) -> Vec<(String, u64)> {
        let files = self.segments.shared.files.read();
        let end = |file: &Segment| match file.number == self.active.number {
            true => self.end,
            false => file.len,
        };
        let extents = files.values().map(|file| (file.name.clone(), end(file)));
        extents.collect()
    }
}

/// The files of the log: what others may do with them while the writer
/// writes. Clones are the same.
#[derive(Clone)]
pub struct Segments {
    shared: Arc<Shared>,
}

struct Shared {
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    /// Those with records, up to the one that is written to.
    files: RwLock<BTreeMap<u64, Arc<Segment>>>,
    ready: Mutex<Ready>,
    is_broken: AtomicBool,
}

/// Files to come.
#[derive(Default)]
struct Ready {
    /// The next segment, head and all.
    next: Option<Segment>,
    /// Files of the right length and any content.
    spares: Vec<String>,
}

/// More than these are removed, not kept.
const SPARES_MAX: usize = 2;

struct Segment {
    number: u64,
    name: String,
    seal: Seal,
    file: Box<dyn File>,
    len: u64,
}

impl Segments {
    /// The lowest number. Of those between it and the active one some may be
    /// missing.
    pub fn oldest(&self) -> u64 {
        let files = self.shared.files.read();
        *files.keys().next().expect("the active one is always there")
    }

    /// The number of the segment that is written to, the highest.
    pub fn active(&self) -> u64 {
        self.shared.active()
    }

    /// All of them, in order.
    #[cfg(test)]
    pub fn numbers(&self) -> Vec<u64> {
        self.shared.files.read().keys().copied().collect()
    }

    /// What they take on disk; spare files are not counted.
    pub fn bytes(&self) -> u64 {
        self.shared.files.read().values().map(|file| file.len).sum()
    }

    /// Adds part of a payload to `out`. The CRC is not checked again: it was
    /// when the log was opened.
    ///
    /// # Errors
    ///
    /// Of kind [`io::ErrorKind::NotFound`] when the segment was freed
    /// meanwhile: what was alive in it is elsewhere now. `out` is then as it
    /// was.
    pub fn read(&self, position: Position, len: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let before = out.len();
        let segment = self.shared.find(position.segment())?;
        out.resize(before + len, 0);
        let read = segment
            .file
            .read_at(&mut out[before..], position.offset())
            .map_err(at("reading", &segment.name))
            // What was read may be of the segment that the file became.
            .and_then(|()| self.shared.find(position.segment()).map(drop));
        if read.is_err() {
            out.truncate(before);
        }
        read
    }

    /// Gives each record of a segment that is not written any more; what is
    /// damaged now is copied aside and reported.
    pub fn scan(
        &self,
        number: u64,
        each: &mut dyn FnMut(Position, &[u8]),
    ) -> io::Result<Vec<Damage>> {
        let segment = self.shared.find(number)?;
        let (bytes, mut gaps) = frame::read_whole(&*segment.file)?;
        let mut records = Records::new(&segment.seal, &bytes);
        for found in &mut records {
            match found {
                Found::Record(record) if record.is_mark() => {}
                Found::Record(record) => {
                    each(Position::new(number, record.payload_at()), record.payload);
                }
                Found::Gap(gap) => gaps.push(gap),
            }
        }
        gaps.extend(records.tail());
        let disk = &*self.shared.disk;
        gaps.into_iter()
            .map(|gap| {
                let lost = frame::part(&bytes, &gap);
                frame::keep(disk, &segment.name, gap.clone(), lost, LOST)
            })
            .collect()
    }

    /// Gives the oldest segment up: nothing in it is needed any more. Nothing
    /// happens to the active one.
    pub fn free_oldest(&self) -> io::Result<()> {
        self.shared.check()?;
        let freed = self.shared.free_oldest();
        self.shared.note(freed)
    }

    /// Has the next segment made, so that the writer need not. Takes as long
    /// as writing and syncing a segment: for any thread but the writer's.
    ///
    /// # Errors
    ///
    /// It is not ready then, and nothing else has happened.
    pub fn prepare(&self) -> io::Result<()> {
        self.shared.prepare()
    }
}

impl Shared {
    fn check(&self) -> io::Result<()> {
        if self.is_broken.load(Ordering::Acquire) {
            return Err(io::Error::other("the log is closed since a failure"));
        }
        Ok(())
    }

    /// After a failure all else fails.
    fn note(&self, done: io::Result<()>) -> io::Result<()> {
        if done.is_err() {
            self.is_broken.store(true, Ordering::Release);
        }
        done
    }

    fn active(&self) -> u64 {
        let files = self.files.read();
        *files
            .keys()
            .next_back()
            .expect("the active one is always there")
    }

    fn find(&self, number: u64) -> io::Result<Arc<Segment>> {
        let found = self.files.read().get(&number).cloned();
        found.ok_or_else(|| {
            let what = format!("segment {number} of the log was freed");
            io::Error::new(io::ErrorKind::NotFound, what)
        })
    }

    /// The segment that follows, of at least so many bytes.
    fn roll(&self, len: u64) -> io::Result<Arc<Segment>> {
        let mut ready = self.ready.lock();
        let number = self.active() + 1;
        let next = match ready.next.take() {
            Some(next) if next.len >= len => next,
            small => {
                if let Some(small) = small {
                    self.spare(&mut ready, small.number, small.len)?;
                }
                self.begin(&mut ready, number, len)?
            }
        };
        let next = Arc::new(next);
        self.files.write().insert(number, next.clone());
        Ok(next)
    }

    /// A new segment of at least so many bytes.
    fn begin(&self, ready: &mut Ready, number: u64, len: u64) -> io::Result<Segment> {
        let name = name(number);
        let spare = if len <= self.segment_bytes {
            ready.spares.pop()
        } else {
            None
        };
        let len = len.max(self.segment_bytes);
        let file = match spare {
            Some(spare) => self
                .disk
                .rename(&spare, &name)
                .map_err(at("renaming", &spare))
                .and_then(|()| self.disk.open(&name)),
            None => self.disk.create(&name, len),
        };
        let file = file.map_err(at("creating", &name))?;
        let seal = Seal::new(Kind::Log, number, self.disk.salt());
        seal.write_head(&*file).map_err(at("writing", &name))?;
        Ok(Segment {
            number,
            name,
            seal,
            file,
            len,
        })
    }

    /// Keeps the file of a segment that nobody needs, or removes it.
    fn spare(&self, ready: &mut Ready, number: u64, len: u64) -> io::Result<()> {
        let name = name(number);
        if len != self.segment_bytes || ready.spares.len() >= SPARES_MAX {
            return self.disk.remove(&name).map_err(at("removing", &name));
        }
        let spare = (0..SPARES_MAX)
            .map(|i| format!("spare-{i}"))
            .find(|spare| !ready.spares.contains(spare))
            .expect("there are fewer");
        self.disk
            .rename(&name, &spare)
            .map_err(at("renaming", &name))?;
        ready.spares.push(spare);
        Ok(())
    }

    /// Makes a spare file the next segment.
    fn ready(&self, ready: &mut Ready) -> io::Result<()> {
        if ready.next.is_none() && !ready.spares.is_empty() {
            ready.next = Some(self.begin(ready, self.active() + 1, self.segment_bytes)?);
        }
        Ok(())
    }

    fn free_oldest(&self) -> io::Result<()> {
        let freed = {
            let mut files = self.files.write();
            if files.len() == 1 {
                return Ok(());
            }
            // Readers must not find it before anything happens to its file.
            files.pop_first()
        };
        let Some((_, freed)) = freed else {
            return Ok(());
        };
        let mut ready = self.ready.lock();
        self.spare(&mut ready, freed.number, freed.len)?;
        self.ready(&mut ready)
    }

    fn prepare(&self) -> io::Result<()> {
        let is_made = {
            let ready = self.ready.lock();
            ready.next.is_some() || !ready.spares.is_empty()
        };
        if !is_made {
            // The long part, while the writer may roll.
            self.disk
                .create(NEW_SPARE, self.segment_bytes)
                .map_err(at("creating", NEW_SPARE))?;
        }
        let mut ready = self.ready.lock();
        if !is_made {
            ready.spares.push(NEW_SPARE.to_owned());
        }
        self.ready(&mut ready)
    }
}

fn name(number: u64) -> String {
    format!("log-{number:010}")
}

/// The name of a spare file that did not come from a segment.
const NEW_SPARE: &str = "spare-new";

/// Reads the files of a log and makes one of them that can be written to.
struct Recovery {
    shared: Shared,
    /// Files with a head and nothing else, or not even that.
    blank: Vec<u64>,
    damage: Vec<Damage>,
    last_batch: u64,
    /// The highest number that any file has or had.
    highest: u64,
    end: Option<End>,
    /// Behind where the log ends: none of them counts.
    void: Vec<u64>,
}

/// Where the log ends.
struct End {
    segment: Arc<Segment>,
    at: u64,
    /// What is there and to be written again before it is relied on.
    /// The zeros behind it too.
    doubtful: (u64, Vec<u8>),
    /// What is there and does not count.
    unfinished: Option<Range<u64>>,
}

impl Recovery {
    fn new(disk: Arc<dyn Disk>, segment_bytes: u64) -> Result<Recovery, OpenError> {
        let mut recovery = Recovery {
            shared: Shared {
                disk,
                segment_bytes,
                files: RwLock::default(),
                ready: Mutex::default(),
                is_broken: AtomicBool::new(false),
            },
            blank: Vec::new(),
            damage: Vec::new(),
            last_batch: 0,
            highest: 0,
            end: None,
            void: Vec::new(),
        };
        recovery.find_files()?;
        Ok(recovery)
    }

    fn find_files(&mut self) -> Result<(), OpenError> {
        let shared = &mut self.shared;
        let disk = &*shared.disk;
        let mut numbers = Vec::new();
        for file in disk.names().map_err(of("the data folder"))? {
            if file.starts_with("spare-") {
                let spares = &mut shared.ready.get_mut().spares;
                let len = disk.open(&file).and_then(|spare| spare.len());
                if len.map_err(of(&file))? == shared.segment_bytes && spares.len() < SPARES_MAX {
                    spares.push(file);
                } else {
                    disk.remove(&file).map_err(of(&file))?;
                }
            } else if let Some(number) = file.strip_prefix("log-") {
                // Not one of ours, if it has no such number.
                numbers.extend(
                    number
                        .parse()
                        .ok()
                        .filter(|number: &u64| name(*number) == file),
                );
            }
        }
        numbers.sort_unstable();
        self.highest = numbers.last().copied().unwrap_or(0);
        for number in numbers {
            let name = name(number);
            match Opened::open(disk, &name, Kind::Log, number)? {
                Opened::Sealed { file, seal, damage } => {
                    self.damage.extend(damage);
                    let len = file.len().map_err(of(&name))?;
                    let segment = Segment {
                        number,
                        name,
                        seal,
                        file,
                        len,
                    };
                    shared.files.get_mut().insert(number, Arc::new(segment));
                }
                Opened::Blank => self.blank.push(number),
                Opened::Unreadable(damage) => self.damage.push(damage),
            }
        }
        Ok(())
    }

    fn read_all(&mut self, each: &mut dyn FnMut(Position, u64, &[u8])) -> Result<(), OpenError> {
        let segments: Vec<_> = self.shared.files.get_mut().values().cloned().collect();
        for (i, segment) in segments.iter().enumerate() {
            let of = of(&segment.name);
            let (bytes, unreadable) = frame::read_whole(&*segment.file).map_err(&of)?;
            for range in unreadable {
                self.keep(segment, range, &bytes, frame::UNREADABLE)?;
            }
            if self
                .end
                .as_ref()
                .is_some_and(|end| end.unfinished.is_some())
            {
                if Records::new(&segment.seal, &bytes).next().is_some() {
                    self.void.push(segment.number);
                } else {
                    self.blank.push(segment.number);
                }
                continue;
            }
            let batches = Batches::read(
                &segment.seal,
                &bytes,
                self.last_batch,
                &mut |last| synced_through(&segments[i + 1..], last),
                &mut |record, batch| {
                    let position = Position::new(segment.number, record.payload_at());
                    each(position, batch, record.payload);
                },
            );
            self.last_batch = batches.last;
            for gap in batches.gaps {
                self.keep(segment, gap, &bytes, LOST)?;
            }
            if let Some(range) = &batches.unfinished {
                self.keep(segment, range.clone(), &bytes, UNFINISHED)?;
                self.damage.last_mut().expect("just kept").unfinished = true;
            }
            if self.end.is_some() && !batches.is_begun && batches.unfinished.is_none() {
                self.blank.push(segment.number);
                continue;
            }
            let mut doubtful = bytes[batches.doubtful as usize..batches.end as usize].to_owned();
            if !doubtful.is_empty() {
                let room = segment.len - batches.end;
                doubtful.resize(doubtful.len() + room.min(FRAME_BYTES as u64) as usize, 0);
            }
            self.end = Some(End {
                segment: segment.clone(),
                at: batches.end,
                doubtful: (batches.doubtful, doubtful),
                unfinished: batches.unfinished,
            });
        }
        Ok(())
    }

    fn keep(
        &mut self,
        segment: &Segment,
        range: Range<u64>,
        bytes: &[u8],
        what: &str,
    ) -> Result<(), OpenError> {
        let disk = &*self.shared.disk;
        let lost = frame::part(bytes, &range);
        let damage = frame::keep(disk, &segment.name, range.clone(), lost, what);
        self.damage.push(damage.map_err(of(&segment.name))?);
        Ok(())
    }

    /// Puts an end to the log where its last whole batch ends, and makes it
    /// ready to be written to.
    fn finish(mut self) -> Result<(Log, Vec<Damage>), OpenError> {
        self.put_void_aside()?;
        if let Some(end) = &self.end {
            end.settle().map_err(of(&end.segment.name))?;
        }
        let mut shared = self.shared;
        let mut ready = mem::take(shared.ready.get_mut());
        for number in self.blank {
            shared.files.get_mut().remove(&number);
            let name = name(number);
            let len = shared.disk.open(&name).and_then(|file| file.len());
            len.and_then(|len| shared.spare(&mut ready, number, len))
                .map_err(of(&name))?;
        }
        let (active, end) = match self.end {
            Some(end) => (end.segment, end.at),
            None => {
                let number = self.highest + 1;
                let begun = shared.begin(&mut ready, number, shared.segment_bytes);
                (
                    Arc::new(begun.map_err(of(&name(number)))?),
                    HEAD_BYTES as u64,
                )
            }
        };
        shared.files.get_mut().insert(active.number, active.clone());
        *shared.ready.get_mut() = ready;
        let log = Log {
            segments: Segments {
                shared: Arc::new(shared),
            },
            active,
            end,
            last_batch: self.last_batch,
            is_synced: true,
            frames: Vec::new(),
        };
        Ok((log, self.damage))
    }

    fn put_void_aside(&mut self) -> Result<(), OpenError> {
        // The last first, so that none comes to lie behind the log's end as if
        // it went on there.
        for number in self.void.iter().rev() {
            let name = name(*number);
            let segment = self.shared.files.get_mut().remove(number);
            let copied_to = frame::move_aside(&*self.shared.disk, &name).map_err(of(&name))?;
            self.damage.push(Damage {
                file: name,
                range: 0..segment.map_or(0, |segment| segment.len),
                what: UNFINISHED.to_owned(),
                copied_to,
                unfinished: true,
            });
        }
        Ok(())
    }
}

impl End {
    /// Makes sure that what is there stays, and what does not count goes.
    fn settle(&self) -> io::Result<()> {
        let file = &*self.segment.file;
        if let Some(range) = &self.unfinished {
            frame::erase(file, range.clone())?;
        }
        if self.at == HEAD_BYTES as u64 {
            self.segment.seal.write_head(file)?;
        }
        // A process that was killed may have left it unsynced, or a failed
        // sync have left it in memory only, where no later sync finds it.
        let (at, bytes) = &self.doubtful;
        if !bytes.is_empty() {
            file.write_at(bytes, *at)?;
            file.sync()?;
        }
        Ok(())
    }
}

/// What is said of an end that does not count.
const UNFINISHED: &str =
    "the last batch was not written to its end; nobody was told that it was stored";

/// Up to which batch all were synced, as these segments say.
fn synced_through(segments: &[Arc<Segment>], mut last: u64) -> Option<u64> {
    let mut synced = None;
    for segment in segments {
        // What cannot be read says nothing.
        if let Ok((bytes, _)) = frame::read_whole(&*segment.file) {
            let (here, last_here) = frame::synced_through(&segment.seal, &bytes, last);
            synced = synced.max(here);
            last = last_here;
        }
    }
    synced
}

#[cfg(test)]
mod tests {
    use super::super::twin::{Fault, Twin};
    use super::*;

    const SEGMENT: u64 = HEAD_BYTES as u64 + 800;

    /// What a batch of this number has, in every test.
    fn payloads(batch: u64) -> Vec<Vec<u8>> {
        (0..1 + batch % 4)
            .map(|i| vec![(batch * 7 + i) as u8 | 1; ((batch * 37 + i * 91) % 140) as usize])
            .collect()
    }

    fn write(log: &mut Log, batch: u64) -> io::Result<Vec<Position>> {
        write_payloads(log, batch, &payloads(batch))
    }

    fn write_payloads(
        log: &mut Log,
        batch: u64,
        payloads: &[Vec<u8>],
    ) -> io::Result<Vec<Position>> {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for payload in payloads {
            bytes.extend_from_slice(payload);
            ends.push(bytes.len());
        }
        let mut positions = Vec::new();
        log.write(batch, &bytes, &ends, &mut positions)?;
        Ok(positions)
    }

    type Batches = BTreeMap<u64, Vec<(Position, Vec<u8>)>>;

    fn open(disk: &Twin) -> Result<(Log, Batches, Vec<Damage>), OpenError> {
        let mut batches = Batches::new();
        let (log, damage) = Log::open(
            Arc::new(disk.clone()),
            SEGMENT,
            &mut |position, batch, payload| {
                let entry = batches.entry(batch).or_default();
                entry.push((position, payload.to_owned()));
            },
        )?;
        Ok((log, batches, damage))
    }

    fn contents(batches: &Batches) -> BTreeMap<u64, Vec<Vec<u8>>> {
        let payloads = |batch: &Vec<(Position, Vec<u8>)>| {
            batch.iter().map(|(_, payload)| payload.clone()).collect()
        };
        batches
            .iter()
            .map(|(n, batch)| (*n, payloads(batch)))
            .collect()
    }

    #[test]
    fn what_is_written_is_read_again_where_it_was_said_to_be() {
        let disk = Twin::new();
        let (mut log, found, damage) = open(&disk).unwrap();
        assert!(found.is_empty() && damage.is_empty());
        let mut written = Batches::new();
        for turn in 0..3 {
            for batch in turn * 20 + 1..=turn * 20 + 20 {
                let positions = write(&mut log, batch).unwrap();
                written.insert(batch, positions.into_iter().zip(payloads(batch)).collect());
            }
            log.sync().unwrap();
            for (position, payload) in written.values().flatten() {
                let mut read = b"before".to_vec();
                let len = payload.len() / 2;
                log.segments()
                    .read(position.plus(payload.len() - len), len, &mut read)
                    .unwrap();
                assert_eq!(read, [b"before", &payload[payload.len() - len..]].concat());
            }
            let mut scanned = Vec::new();
            for number in log.segments().numbers() {
                let damage = log.segments().scan(number, &mut |position, payload| {
                    scanned.push((position, payload.to_owned()));
                });
                assert_eq!(damage.unwrap(), []);
            }
            let all: Vec<_> = written.values().flatten().cloned().collect();
            assert_eq!(scanned, all);
            if turn == 1 {
                log.close().unwrap();
            }
            let (again, found, damage) = open(&disk).unwrap();
            assert_eq!((found, damage), (written.clone(), Vec::new()));
            assert_eq!(again.last_batch(), (turn + 1) * 20);
            log = again;
        }
        assert!(log.segments().numbers().len() > 8);
    }

    #[test]
    fn freed_segments_are_used_again_and_nothing_of_them_is_read() {
        let disk = Twin::new();
        let (mut log, ..) = open(&disk).unwrap();
        let segments = log.segments();
        let mut first_of = BTreeMap::new();
        for batch in 1..=400 {
            for position in write(&mut log, batch).unwrap() {
                first_of.entry(position.segment()).or_insert(batch);
            }
            if segments.numbers().len() > 3 {
                segments.free_oldest().unwrap();
            }
            assert!(disk.names().unwrap().len() <= 5);
            if batch % 50 == 0 {
                log.sync().unwrap();
                let (_, found, damage) = open(&disk.cut()).unwrap();
                assert_eq!(damage, []);
                let first = first_of[&segments.oldest()];
                let alive = (first..=batch).map(|batch| (batch, payloads(batch)));
                assert_eq!(contents(&found), alive.collect());
            }
        }
        let freed = Position::new(segments.oldest() - 1, HEAD_BYTES as u64);
        let error = segments.read(freed, 1, &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        while segments.oldest() < segments.active() {
            segments.free_oldest().unwrap();
        }
        segments.free_oldest().unwrap();
        assert_eq!(segments.numbers(), [segments.active()]);
    }

    /// A disk where something happens right before a read.
    struct Slow {
        disk: Twin,
        before_read: Hook,
    }

    type Hook = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

    struct SlowFile(Box<dyn File>, Hook);

    impl Slow {
        fn slow(&self, file: Box<dyn File>) -> Box<dyn File> {
            Box::new(SlowFile(file, self.before_read.clone()))
        }
    }

    impl Disk for Slow {
        fn names(&self) -> io::Result<Vec<String>> {
            self.disk.names()
        }
        fn create(&self, name: &str, len: u64) -> io::Result<Box<dyn File>> {
            Ok(self.slow(self.disk.create(name, len)?))
        }
        fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
            Ok(self.slow(self.disk.open(name)?))
        }
        fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            self.disk.rename(from, to)
        }
        fn remove(&self, name: &str) -> io::Result<()> {
            self.disk.remove(name)
        }
        fn free_bytes(&self) -> io::Result<u64> {
            self.disk.free_bytes()
        }
        fn salt(&self) -> u64 {
            self.disk.salt()
        }
    }

    impl File for SlowFile {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }
        fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
            let before_read = self.1.lock().take();
            if let Some(before_read) = before_read {
                before_read();
            }
            self.0.read_at(buf, at)
        }
        fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
            self.0.write_at(bytes, at)
        }
        fn sync(&self) -> io::Result<()> {
            self.0.sync()
        }
    }

    #[test]
    fn a_segment_that_is_used_again_while_it_is_read_is_not_taken_for_the_old_one() {
        let before_read = Hook::default();
        let disk = Arc::new(Slow {
            disk: Twin::new(),
            before_read: before_read.clone(),
        });
        let (mut log, _) = Log::open(disk, SEGMENT, &mut |_, _, _| {}).unwrap();
        let segments = log.segments();
        let old = write_payloads(&mut log, 1, &[vec![1; 700]]).unwrap()[0];
        write_payloads(&mut log, 2, &[vec![2; 700]]).unwrap();
        // Found, and then freed and filled by others, and then read.
        *before_read.lock() = Some(Box::new(move || {
            log.segments().free_oldest().unwrap();
            write_payloads(&mut log, 3, &[vec![3; 700]]).unwrap();
        }));
        let mut bytes = b"before".to_vec();
        let error = segments.read(old, 700, &mut bytes).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(bytes, b"before");
    }

    #[test]
    fn a_batch_larger_than_a_segment_has_one_of_its_own() {
        let disk = Twin::new();
        let (mut log, ..) = open(&disk).unwrap();
        write(&mut log, 1).unwrap();
        log.segments().prepare().unwrap();
        let large = [vec![1; 3000], Vec::new(), vec![2; 30_000]];
        let positions = write_payloads(&mut log, 2, &large).unwrap();
        assert_eq!(positions[0].segment(), positions[2].segment());
        let mut batch = 2;
        while log.segments().active() < 4 {
            batch += 1;
            write(&mut log, batch).unwrap();
        }
        log.sync().unwrap();
        let (log, found, damage) = open(&disk.cut()).unwrap();
        assert_eq!(damage, []);
        assert_eq!(contents(&found)[&2], large);
        assert_eq!(found.len() as u64, batch);
        let segments = log.segments();
        assert!(segments.bytes() > 33_000);
        segments.free_oldest().unwrap();
        segments.free_oldest().unwrap();
        assert_eq!(segments.bytes(), 2 * SEGMENT);
    }

    /// What came of a history that may end in a failure.
    #[derive(Default)]
    struct Story {
        tried: u64,
        synced: u64,
        /// Batches up to this one may be gone.
        freed: u64,
        is_opened: bool,
    }

    fn tell(disk: &Twin, seed: u64) -> Story {
        let mut story = Story::default();
        let _ = try_tell(disk, seed, &mut story);
        story
    }

    fn try_tell(disk: &Twin, seed: u64, story: &mut Story) -> Result<(), OpenError> {
        let failed = of("the log");
        let (mut log, _, damage) = open(disk)?;
        assert_eq!(damage, []);
        story.is_opened = true;
        let segments = log.segments();
        let mut last_of = BTreeMap::new();
        let mut dice = seed;
        for batch in 1..=24 {
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(99);
            story.tried = batch;
            let positions = write(&mut log, batch).map_err(&failed)?;
            last_of.insert(positions[0].segment(), batch);
            if dice >> 33 & 3 != 0 {
                log.sync().map_err(&failed)?;
                story.synced = batch;
            }
            if dice >> 40 & 3 == 0 {
                segments.prepare().map_err(&failed)?;
            }
            if dice >> 50 & 3 == 0 && segments.numbers().len() > 2 {
                story.freed = last_of[&segments.oldest()];
                segments.free_oldest().map_err(&failed)?;
            }
        }
        log.close().map_err(&failed)?;
        story.synced = 24;
        Ok(())
    }

    /// A disk on which it ended: whole batches, in order, none missing.
    fn check(disk: &Twin, story: &Story, what: &str) {
        let (mut log, found, damage) = open(disk).unwrap();
        assert!(damage.iter().all(|d| d.unfinished), "{what}: {damage:?}");
        let last = log.last_batch();
        assert!(
            (story.synced..=story.tried).contains(&last) || found.is_empty(),
            "{what}"
        );
        let first = found.keys().next().copied().unwrap_or(story.synced + 1);
        assert!(first <= story.freed + 1, "{what}: {first}");
        let all = (first..=last).map(|batch| (batch, payloads(batch)));
        assert!(contents(&found) == all.collect(), "{what}");

        // What was read is there for good, and the log goes on behind it.
        let (_, again, damage) = open(&disk.cut()).unwrap();
        assert!(again == found && damage.is_empty(), "{what}: {damage:?}");
        let mut all = contents(&found);
        for batch in last + 1..last + 12 {
            write(&mut log, batch).unwrap();
            all.insert(batch, payloads(batch));
        }
        log.sync().unwrap();
        let (_, found, damage) = open(&disk.cut()).unwrap();
        assert!(
            contents(&found) == all && damage.is_empty(),
            "{what}: {damage:?}"
        );
    }

    /// Case K10 of docs/security.md.
    #[test]
    fn a_cut_at_any_operation_leaves_whole_batches_up_to_the_last_synced_one_or_later() {
        for seed in 0..6 {
            let whole = Twin::new();
            let story = tell(&whole, seed);
            assert_eq!((story.synced, story.is_opened), (24, true));
            for nth in 1..=whole.operations() {
                let disk = Twin::new();
                disk.fail_at(nth, Fault::Stopped);
                let story = tell(&disk, seed);
                check(&disk.cut(), &story, &format!("{seed} {nth} cut"));
                for tear in 0..8 {
                    let torn = disk.cut_with(tear);
                    check(&torn, &story, &format!("{seed} {nth} torn {tear}"));
                }
                check(&disk.kill(), &story, &format!("{seed} {nth} killed"));
            }
        }
    }

    #[test]
    fn a_cut_while_it_is_opened_after_a_cut_loses_nothing_more() {
        let seed = 3;
        let operations = {
            let whole = Twin::new();
            tell(&whole, seed);
            whole.operations()
        };
        for nth in 1..=operations {
            let disk = Twin::new();
            disk.fail_at(nth, Fault::Stopped);
            let story = tell(&disk, seed);
            for tear in 0..3 {
                let torn = disk.cut_with(tear);
                for again in 1.. {
                    let copy = torn.kill();
                    copy.fail_at(again, Fault::Stopped);
                    if open(&copy).is_ok() {
                        break;
                    }
                    check(&copy.cut(), &story, &format!("{nth} {tear} {again}"));
                    check(
                        &copy.cut_with(again),
                        &story,
                        &format!("{nth} {tear} {again} torn"),
                    );
                }
            }
        }
    }

    #[test]
    fn after_a_failure_nothing_is_written_any_more_and_what_was_synced_is_there() {
        for fault in [Fault::Failed, Fault::Full] {
            let operations = {
                let whole = Twin::new();
                tell(&whole, 1);
                whole.operations()
            };
            for nth in 1..=operations {
                let disk = Twin::new();
                disk.fail_at(nth, fault);
                let story = tell(&disk, 1);
                let what = format!("{fault:?} {nth}");
                check(&disk.cut(), &story, &what);
                check(&disk.kill(), &story, &what);
            }
        }
        let disk = Twin::new();
        let (mut log, ..) = open(&disk).unwrap();
        write(&mut log, 1).unwrap();
        disk.fail_at(1, Fault::Failed);
        let error = log.sync().unwrap_err();
        assert_eq!(
            error.to_string(),
            "syncing log-0000000001: Input/output error (os error 5)"
        );
        let before = disk.operations();
        assert!(log.sync().is_err() && log.close().is_err() && write(&mut log, 2).is_err());
        assert!(log.segments().free_oldest().is_err());
        assert_eq!(disk.operations(), before);
    }

    /// Case K04 of docs/security.md.
    #[test]
    fn what_a_failed_sync_left_in_memory_is_synced_before_it_is_relied_on() {
        let disk = Twin::new();
        let (mut log, ..) = open(&disk).unwrap();
        write(&mut log, 1).unwrap();
        log.sync().unwrap();
        write(&mut log, 2).unwrap();
        disk.fail_at(1, Fault::Failed);
        log.sync().unwrap_err();
        let disk = disk.kill();
        let (mut log, found, _) = open(&disk).unwrap();
        assert_eq!(found.len(), 2);
        write(&mut log, 3).unwrap();
        log.sync().unwrap();
        let (_, found, _) = open(&disk.cut()).unwrap();
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    }

    /// Case K02 of docs/security.md.
    #[test]
    fn a_flipped_byte_is_noticed_and_costs_its_record_at_most() {
        let disk = Twin::new();
        let (mut log, ..) = open(&disk).unwrap();
        // Recycled files too: what is left in them must not hide anything.
        for batch in 1..=26 {
            write(&mut log, batch).unwrap();
            log.sync().unwrap();
            if log.segments().numbers().len() > 3 {
                log.segments().free_oldest().unwrap();
            }
        }
        log.close().unwrap();
        let (_, whole, _) = open(&disk.kill()).unwrap();
        let all: Vec<_> = whole.values().flatten().cloned().collect();
        let names: Vec<_> = disk.names().unwrap();
        let mut lost_in_all = 0;
        for name in names.iter().filter(|name| name.starts_with("log-")) {
            let number: u64 = name[4..].parse().unwrap();
            let records: Vec<_> = all
                .iter()
                .filter(|(position, _)| position.segment() == number)
                .collect();
            let end = records.last().map_or(0, |(position, payload)| {
                position.offset() + payload.len().next_multiple_of(8) as u64
            });
            for at in (0..44).chain(4096..4140).chain(HEAD_BYTES as u64..SEGMENT) {
                for bits in [1, 0x80, 0xff] {
                    let disk = disk.kill();
                    disk.flip(name, at, bits);
                    let (_, found, damage) = open(&disk).unwrap();
                    let what = format!("{name} {at} {bits}");
                    let left: Vec<_> = found.values().flatten().cloned().collect();
                    let hit = |position: &Position, payload: &[u8]| {
                        let from = position.offset() - FRAME_BYTES as u64;
                        (from..position.offset() + payload.len() as u64).contains(&at)
                    };
                    let (lost, kept): (Vec<_>, Vec<_>) =
                        all.iter().cloned().partition(|(position, payload)| {
                            position.segment() == number && hit(position, payload)
                        });
                    assert_eq!(left, kept, "{what}");
                    lost_in_all += lost.len();
                    let is_head = at < HEAD_BYTES as u64 && !records.is_empty();
                    // The last segment has a mark, and zeros behind it.
                    let is_mark = (end..end + 16).contains(&at) && !records.is_empty();
                    if !lost.is_empty() || is_head || is_mark {
                        assert!(!damage.is_empty(), "{what}");
                        assert!(disk.bytes(&damage[0].copied_to).is_some(), "{what}");
                    }
                    for damage in &damage {
                        assert!(damage.range.contains(&at), "{what} {damage:?}");
                    }
                }
            }
        }
        assert!(lost_in_all > 3 * 1000);
    }

    /// Case K02 of docs/security.md.
    #[test]
    fn what_is_damaged_is_copied_aside_and_the_rest_of_its_batch_is_read() {
        let disk = Twin::new();
        let (mut log, ..) = open(&disk).unwrap();
        for batch in 1..=3 {
            write(&mut log, batch).unwrap();
            log.sync().unwrap();
        }
        log.close().unwrap();
        let positions: Vec<_> = {
            let (_, found, _) = open(&disk).unwrap();
            found[&2].iter().map(|(position, _)| *position).collect()
        };
        disk.flip("log-0000000001", positions[2].offset(), 1);
        for _ in 0..2 {
            let (_, found, damage) = open(&disk).unwrap();
            assert_eq!(contents(&found)[&2], payloads(2)[..2]);
            assert_eq!(contents(&found)[&3], payloads(3));
            let [damage] = &damage[..] else {
                panic!("{damage:?}");
            };
            assert!(!damage.unfinished);
            assert_eq!(damage.range.start, positions[2].offset() - 16);
            let copy = disk.bytes(&damage.copied_to).unwrap();
            let file = disk.bytes("log-0000000001").unwrap();
            assert_eq!(
                copy,
                file[damage.range.start as usize..damage.range.end as usize]
            );
            let said = format!(
                "log-0000000001, bytes {} to {}: no whole record",
                damage.range.start, damage.range.end
            );
            assert!(damage.to_string().starts_with(&said), "{damage}");
        }
        // The second start has found the first one's copy.
        let copies = disk.names().unwrap();
        assert_eq!(
            copies
                .iter()
                .filter(|name| name.starts_with("damaged-"))
                .count(),
            1
        );
    }

    #[test]
    fn garbage_of_any_kind_neither_ends_the_program_nor_invents_a_record() {
        let disk = Twin::new();
        let (mut log, ..) = open(&disk).unwrap();
        for batch in 1..=20 {
            write(&mut log, batch).unwrap();
        }
        log.sync().unwrap();
        let names = disk.names().unwrap();
        for seed in 0..400_u64 {
            let mut dice = seed;
            let mut below = |bound: usize| {
                dice = (dice ^ 0x55)
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(99);
                (dice >> 33) as usize % bound
            };
            let disk = disk.kill();
            for _ in 0..=below(3) {
                let name = &names[below(names.len())];
                let mut bytes = disk.bytes(name).unwrap();
                let from = below(bytes.len());
                let to = (from + below(600)).min(bytes.len());
                match below(4) {
                    0 => bytes.truncate(from),
                    1 => bytes[from..to].fill(0),
                    2 => bytes.copy_within(HEAD_BYTES.min(from)..from, 0),
                    _ => bytes[from..to].fill_with(|| below(256) as u8),
                }
                disk.remove(name).unwrap();
                let file = disk.create(name, bytes.len() as u64).unwrap();
                file.write_at(&bytes, 0).unwrap();
                file.sync().unwrap();
            }
            let (mut log, found, _) = open(&disk).unwrap();
            for (batch, found) in contents(&found) {
                let all = payloads(batch);
                assert!(found.iter().all(|one| all.contains(one)), "{seed} {batch}");
            }
            let next = log.last_batch() + 1;
            for batch in next..next + 10 {
                write(&mut log, batch).unwrap();
            }
            log.sync().unwrap();
            let (_, again, _) = open(&disk.cut()).unwrap();
            let mut all = contents(&found);
            all.extend((next..next + 10).map(|batch| (batch, payloads(batch))));
            assert!(contents(&again) == all, "{seed}");
        }
    }

    #[test]
    fn bytes_that_the_disk_cannot_read_cost_their_records() {
        let disk = Twin::new();
        let (mut log, ..) = open(&disk).unwrap();
        let large = |batch: u64| vec![vec![batch as u8; 6000], vec![batch as u8; 6000]];
        for batch in 1..=3 {
            write_payloads(&mut log, batch, &large(batch)).unwrap();
        }
        log.close().unwrap();
        disk.spoil("log-0000000003", 9000..9001);
        disk.spoil("log-0000000004", 10..12);
        let (_, found, damage) = open(&disk).unwrap();
        assert_eq!(contents(&found)[&1], large(1));
        assert_eq!(contents(&found)[&2], large(2)[..1]);
        assert_eq!(contents(&found)[&3], large(3));
        assert!(damage.iter().all(|damage| !damage.unfinished));
        assert!(damage.iter().any(|damage| damage.range == (8192..12288)));
    }

    /// Case K14 of docs/security.md.
    #[test]
    fn another_version_is_refused_with_what_to_do() {
        let disk = Twin::new();
        let (mut log, ..) = open(&disk).unwrap();
        log.close().unwrap();
        let mut head = disk.bytes("log-0000000001").unwrap()[..44].to_vec();
        head[12] = 7;
        let crc = crc32c::crc32c(&head[..40]);
        head[40..].copy_from_slice(&crc.to_le_bytes());
        let file = disk.open("log-0000000001").unwrap();
        file.write_at(&head, 0).unwrap();
        let error = open(&disk).map(drop).unwrap_err().to_string();
        assert!(
            error.contains("version 7") && error.contains("version 1") && error.contains("export"),
            "{error}"
        );
    }
}
