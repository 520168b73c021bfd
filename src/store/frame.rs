//! Records in a file: their form, how they are found again, what is damaged.
//!
//! Every file begins with its head, twice, so that neither a flipped byte nor
//! a bad sector there costs more than a line in the log of the broker. Behind
//! it lie records, each with a CRC-32C over where it lies, in which file, and
//! what it says. A head has a random salt, and from it comes the magic number
//! of its records: neither what a file held before it was used again, nor what
//! a client sends, can be taken for one.
//!
//! Nothing here keeps a file open or decides what becomes of one; what cannot
//! be read is only found, named and copied aside.
//!
//! ```text
//! head    "RotaMQ\r\n" kind:4 version:4 number:8 salt:8 crc:4   at 0 and 4096
//! record  magic:4 length and flags:4 crc:4 batch:4  payload  padded to 8
//! ```

use std::fmt;
use std::io;
use std::ops::Range;

use super::disk::{Disk, File};

/// Bytes of a file that could not be read for what they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub file: String,
    /// Where in the file, in bytes.
    pub range: Range<u64>,
    /// What it means, as a sentence.
    pub what: String,
    /// The file in the same folder that has these bytes now; empty, if they
    /// were not touched.
    pub copied_to: String,
    /// It is only the end of the log that was not written whole when the
    /// broker or the machine stopped: nobody was told that it was stored.
    pub unfinished: bool,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.range.start, self.range.end);
        write!(f, "{}, bytes {from} to {to}: {}", self.file, self.what)?;
        if self.copied_to.is_empty() {
            return Ok(());
        }
        write!(f, "; they are kept in {}", self.copied_to)
    }
}

/// Why the files of a folder cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The disk failed, or has no room to copy damage aside.
    Io { file: String, error: io::Error },
    /// Written by a version of the broker whose files have another form.
    Version {
        file: String,
        found: u32,
        known: u32,
    },
}

impl std::error::Error for OpenError {}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Io { file, error } => write!(f, "{file}: {error}"),
            OpenError::Version { file, found, known } => write!(
                f,
                "{file} has the form of version {found}, this program writes version {known}: \
                 run `rotamq store export` of the program that wrote it, and `rotamq store \
                 import` of this one into an empty folder"
            ),
        }
    }
}

/// Says of an error which file it is about.
pub(super) fn of(file: &str) -> impl Fn(io::Error) -> OpenError {
    move |error| OpenError::Io {
        file: file.to_owned(),
        error,
    }
}

/// As [`of`], where the error goes to a running broker.
pub(super) fn at(doing: &str, file: &str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{doing} {file}: {error}"))
}

/// The form of all files. Another one is not read.
pub const VERSION: u32 = 1;

/// What the head takes, both copies: records begin here.
pub(super) const HEAD_BYTES: usize = 8192;

/// Where its copies are: in pages of their own.
const COPIES: [usize; 2] = [0, 4096];

/// What a copy says, CRC included; the rest of its page is not used.
const COPY_BYTES: usize = 44;

/// Before each payload.
pub(super) const FRAME_BYTES: usize = 16;

/// The longest payload. That of a packet is shorter (2.1.4).
pub(super) const PAYLOAD_BYTES_MAX: usize = LEN as usize;

/// The last record of its batch.
const LAST: u32 = 1 << 31;
/// All batches before this one were synced when it was written.
const AFTER_SYNC: u32 = 1 << 30;
/// Says only [`AFTER_SYNC`]; belongs to no batch and is numbered as the next.
const MARK: u32 = 1 << 29;
const LEN: u32 = MARK - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    Log = 1,
    Base = 2,
    Directory = 3,
}

/// Which file it is: what its records are checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seal {
    kind: Kind,
    number: u64,
    salt: u64,
    magic: u32,
}

/// What a record says of its batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags(u32);

impl Flags {
    pub(super) fn new(is_last: bool, after_sync: bool) -> Flags {
        Flags((u32::from(is_last) * LAST) | (u32::from(after_sync) * AFTER_SYNC))
    }

    fn is_last(self) -> bool {
        self.0 & LAST != 0
    }

    fn is_mark(self) -> bool {
        self.0 & MARK != 0
    }

    fn is_after_sync(self) -> bool {
        self.0 & AFTER_SYNC != 0
    }
}

/// What a record of so many bytes takes in the file.
pub(super) const fn frame_len(payload: usize) -> usize {
    FRAME_BYTES + payload.next_multiple_of(8)
}

impl Seal {
    pub(super) fn new(kind: Kind, number: u64, salt: u64) -> Seal {
        let mut seal = Seal {
            kind,
            number,
            salt,
            magic: 0,
        };
        // Not of the whole copy: that, with its own CRC, is the same for all.
        // And never that of zeros.
        seal.magic = crc32c::crc32c(&seal.copy()[..COPY_BYTES - 4]) | 1;
        seal
    }

    /// What stands at the beginning of the file, twice.
    fn copy(&self) -> [u8; COPY_BYTES] {
        let mut copy = [0; COPY_BYTES];
        copy[..8].copy_from_slice(b"RotaMQ\r\n");
        copy[8..12].copy_from_slice(&(self.kind as u32).to_le_bytes());
        copy[12..16].copy_from_slice(&VERSION.to_le_bytes());
        copy[16..24].copy_from_slice(&self.number.to_le_bytes());
        copy[24..32].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32c::crc32c(&copy[..COPY_BYTES - 4]);
        copy[COPY_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        copy
    }

    /// Writes the head of a file, a copy at a time, so that at most one is
    /// torn; and ends the reading behind it.
    pub(super) fn write_head(&self, file: &dyn File) -> io::Result<()> {
        file.write_at(&[0; FRAME_BYTES], HEAD_BYTES as u64)?;
        self.mend_head(file)
    }

    fn mend_head(&self, file: &dyn File) -> io::Result<()> {
        COPIES.iter().try_for_each(|at| {
            file.write_at(&self.copy(), *at as u64)?;
            file.sync()
        })
    }

    /// Appends a record that will lie at `at` in the file. Its payload comes
    /// in pieces, of [`PAYLOAD_BYTES_MAX`] in all.
    pub(super) fn frame(
        &self,
        at: u64,
        batch: u64,
        flags: Flags,
        payload: &[&[u8]],
        out: &mut Vec<u8>,
    ) {
        let len = payload.iter().map(|piece| piece.len()).sum::<usize>();
        debug_assert!(len <= PAYLOAD_BYTES_MAX && at.is_multiple_of(8));
        let (word, batch) = (len as u32 | flags.0, batch as u32);
        let crc = payload
            .iter()
            .fold(self.crc(at, word, batch), |crc, piece| {
                crc32c::crc32c_append(crc, piece)
            });
        out.reserve(frame_len(len));
        for field in [self.magic, word, crc, batch] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        payload
            .iter()
            .for_each(|piece| out.extend_from_slice(piece));
        out.resize(out.len() + len.next_multiple_of(8) - len, 0);
    }

    /// As [`Seal::frame`]: all batches before `batch` are synced.
    pub(super) fn mark(&self, at: u64, batch: u64, out: &mut Vec<u8>) {
        self.frame(at, batch, Flags(MARK | AFTER_SYNC), &[], out);
    }

    fn crc(&self, at: u64, word: u32, batch: u32) -> u32 {
        let mut fields = [0; 24];
        fields[..8].copy_from_slice(&self.salt.to_le_bytes());
        fields[8..16].copy_from_slice(&at.to_le_bytes());
        fields[16..20].copy_from_slice(&word.to_le_bytes());
        fields[20..].copy_from_slice(&batch.to_le_bytes());
        crc32c::crc32c_append(self.magic, &fields)
    }

    /// The record at `at` of a file, whose bytes from there on are `bytes`.
    pub(super) fn record<'a>(&self, at: u64, bytes: &'a [u8]) -> Option<Record<'a>> {
        let fields = Fields::read(bytes)?;
        if fields.magic != self.magic {
            return None;
        }
        let payload = bytes[FRAME_BYTES..].get(..fields.payload_len())?;
        let crc = self.crc(at, fields.word, fields.batch);
        (crc32c::crc32c_append(crc, payload) == fields.crc).then_some(Record {
            at,
            batch: fields.batch,
            flags: Flags(fields.word & !LEN),
            payload,
        })
    }
}

/// A whole record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    /// Where its frame begins in the file.
    pub(super) at: u64,
    /// The low bits of its batch's number.
    batch: u32,
    flags: Flags,
    pub(super) payload: &'a [u8],
}

impl Record<'_> {
    /// It belongs to no batch and has no payload.
    pub(super) fn is_mark(&self) -> bool {
        self.flags.is_mark()
    }

    /// Where its payload begins in the file.
    pub(super) fn payload_at(&self) -> u64 {
        self.at + FRAME_BYTES as u64
    }

    /// Where the next one begins.
    fn end(&self) -> u64 {
        self.at + frame_len(self.payload.len()) as u64
    }

    /// The number of its batch, which is not much later than `last`.
    fn batch(&self, last: u64) -> u64 {
        last.wrapping_add(u64::from(self.batch.wrapping_sub(last as u32)))
    }
}

struct Fields {
    magic: u32,
    word: u32,
    crc: u32,
    batch: u32,
}

impl Fields {
    fn read(bytes: &[u8]) -> Option<Fields> {
        let (fields, _) = bytes.first_chunk::<FRAME_BYTES>()?.as_chunks();
        let [magic, word, crc, batch] = [0, 1, 2, 3].map(|i| u32::from_le_bytes(fields[i]));
        Some(Fields {
            magic,
            word,
            crc,
            batch,
        })
    }

    fn payload_len(&self) -> usize {
        (self.word & LEN) as usize
    }
}

/// A file, as its head says.
pub(super) enum Opened {
    /// One with records, or ready for them.
    Sealed {
        file: Box<dyn File>,
        seal: Seal,
        damage: Option<Damage>,
    },
    /// Nothing was written to it since it was made or freed.
    Blank,
    /// Neither copy of its head can be read: it was put aside.
    Unreadable(Damage),
}

impl Opened {
    pub(super) fn open(
        disk: &dyn Disk,
        name: &str,
        kind: Kind,
        number: u64,
    ) -> Result<Opened, OpenError> {
        let of = of(name);
        let file = disk.open(name).map_err(&of)?;
        let (bytes, len) = read_head(&*file).map_err(&of)?;
        let copies = COPIES.map(|at| Copy::read(&bytes[at..], kind, number));
        for copy in &copies {
            if let Copy::Version(found) = *copy {
                return Err(OpenError::Version {
                    file: name.to_owned(),
                    found,
                    known: VERSION,
                });
            }
        }
        let own = copies.iter().find_map(|copy| match copy {
            Copy::Own(salt) => Some(*salt),
            _ => None,
        });
        let Some(salt) = own else {
            if copies.iter().any(|copy| matches!(copy, Copy::Unused)) {
                return Ok(Opened::Blank);
            }
            return Ok(Opened::Unreadable(Damage {
                file: name.to_owned(),
                range: 0..len,
                what: "neither copy of the file's head can be read; what it held is lost".into(),
                copied_to: move_aside(disk, name).map_err(&of)?,
                unfinished: false,
            }));
        };
        let seal = Seal::new(kind, number, salt);
        let mut damage = None;
        if len < (HEAD_BYTES + FRAME_BYTES) as u64 {
            seal.write_head(&*file).map_err(&of)?;
            damage = Some(Damage {
                file: name.to_owned(),
                range: 0..len,
                what: "the file was cut short; what it held is lost".into(),
                copied_to: String::new(),
                unfinished: false,
            });
        }
        let is_whole = |copy: &Copy| matches!(copy, Copy::Own(own) if *own == salt);
        if let Some(bad) = copies.iter().position(|copy| !is_whole(copy)) {
            // The second one of an empty file was only not written yet.
            let is_begun = bytes[HEAD_BYTES..].starts_with(&seal.magic.to_le_bytes());
            if bad == 0 || is_begun {
                let range = COPIES[bad]..COPIES[bad] + COPY_BYTES;
                let what = "one of the two copies of the file's head is damaged; nothing is lost";
                let copy = &bytes[range.clone()];
                let range = range.start as u64..range.end as u64;
                damage = Some(keep(disk, name, range, copy, what).map_err(&of)?);
            }
            seal.mend_head(&*file).map_err(&of)?;
        }
        Ok(Opened::Sealed { file, seal, damage })
    }
}

/// The head and the frame behind it, zeros where the file is shorter; and how
/// long it is.
fn read_head(file: &dyn File) -> io::Result<(Vec<u8>, u64)> {
    let len = file.len()?;
    let mut bytes = vec![0; HEAD_BYTES + FRAME_BYTES];
    for at in [COPIES[0], COPIES[1], HEAD_BYTES] {
        let there = len.saturating_sub(at as u64).min(COPY_BYTES as u64) as usize;
        let part = &mut bytes[at..][..there.min(HEAD_BYTES + FRAME_BYTES - at)];
        if file.read_at(part, at as u64).is_err() {
            part.fill(0xff);
        }
    }
    Ok((bytes, len))
}

enum Copy {
    /// Of this file, with its salt.
    Own(u64),
    /// Zeros, or of what the file was before it was used again.
    Unused,
    Version(u32),
    Bad,
}

impl Copy {
    fn read(bytes: &[u8], kind: Kind, number: u64) -> Copy {
        let bytes = &bytes[..COPY_BYTES];
        if bytes.iter().all(|byte| *byte == 0) {
            return Copy::Unused;
        }
        let u32_at = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if !bytes.starts_with(b"RotaMQ\r\n")
            || crc32c::crc32c(&bytes[..COPY_BYTES - 4]) != u32_at(COPY_BYTES - 4)
        {
            Copy::Bad
        } else if (u32_at(8), u64_at(16)) != (kind as u32, number) {
            Copy::Unused
        } else if u32_at(12) != VERSION {
            Copy::Version(u32_at(12))
        } else {
            Copy::Own(u64_at(24))
        }
    }
}

/// A file, read whole: its records, and what is none.
pub(super) struct Records<'a> {
    seal: &'a Seal,
    bytes: &'a [u8],
    at: usize,
    /// How many bytes may still be checked in vain, so that no garbage costs
    /// more than a few times reading the file.
    vain_bytes_max: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    Record(Record<'a>),
    /// No record begins here, but one behind it.
    Gap(Range<u64>),
}

impl<'a> Records<'a> {
    /// `bytes` are all of the file.
    pub(super) fn new(seal: &'a Seal, bytes: &'a [u8]) -> Records<'a> {
        Records::from(seal, bytes, HEAD_BYTES as u64)
    }

    fn from(seal: &'a Seal, bytes: &'a [u8], at: u64) -> Records<'a> {
        Records {
            seal,
            bytes,
            at: at as usize,
            vain_bytes_max: bytes.len().saturating_mul(4),
        }
    }

    fn record(&mut self, at: usize) -> Option<Record<'a>> {
        let bytes = self.bytes.get(at..)?;
        let fields = Fields::read(bytes).filter(|fields| fields.magic == self.seal.magic)?;
        let checked = fields.payload_len().min(bytes.len());
        if checked > self.vain_bytes_max {
            self.vain_bytes_max = 0;
            return None;
        }
        let record = self.seal.record(at as u64, bytes);
        // A file may end in the middle of its padding; nothing is to lie there.
        let record = record.filter(|record| record.end() <= self.bytes.len() as u64);
        if record.is_none() {
            self.vain_bytes_max -= checked;
        }
        record
    }

    /// Where the file's magic number stands next.
    fn magic_from(&self, at: usize) -> Option<usize> {
        let magic = self.seal.magic.to_le_bytes();
        let (words, _) = self.bytes.get(at..)?.as_chunks::<8>();
        let found = words.iter().position(|word| word[..4] == magic)?;
        Some(at + found * 8)
    }

    /// Behind the last record: from where to where there is something that is
    /// neither zeros nor left from what the file was before.
    ///
    /// Who writes keeps 16 zeros behind the last record.
    pub(super) fn tail(&self) -> Option<Range<u64>> {
        let rest = self.bytes.get(self.at..)?;
        let extent = |at: usize| {
            let fields = Fields::read(&self.bytes[at..])?;
            let end = at + frame_len(fields.payload_len());
            Some(end).filter(|end| *end <= self.bytes.len())
        };
        let clean = rest.iter().take(FRAME_BYTES).all(|byte| *byte == 0);
        let mut end = (!clean).then(|| extent(self.at).unwrap_or(self.bytes.len()));
        let mut at = self.at;
        while let Some(found) = self.magic_from(at) {
            end = end.max(Some(extent(found).unwrap_or(self.bytes.len())));
            at = found + 8;
        }
        let zeros = self.bytes[..end?]
            .iter()
            .rev()
            .take_while(|byte| **byte == 0);
        // Of a record's own zeros none is left out that matters.
        let end = (end? - zeros.count())
            .next_multiple_of(8)
            .min(self.bytes.len());
        (self.at < end).then_some(self.at as u64..end as u64)
    }

    /// Up to which batch all were synced, as the records from here on say.
    fn synced_through(self, mut last: u64) -> (Option<u64>, u64) {
        let mut synced = None;
        for found in self {
            if let Found::Record(record) = found {
                let batch = record.batch(last);
                if record.flags.is_after_sync() {
                    synced = synced.max(batch.checked_sub(1));
                }
                if !record.is_mark() {
                    last = batch;
                }
            }
        }
        (synced, last)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Found<'a>;

    fn next(&mut self) -> Option<Found<'a>> {
        if let Some(record) = self.record(self.at) {
            self.at = record.end() as usize;
            return Some(Found::Record(record));
        }
        let mut at = self.at + 8;
        while self.vain_bytes_max > 0 {
            at = self.magic_from(at)?;
            if self.record(at).is_some() {
                let gap = self.at as u64..at as u64;
                self.at = at;
                return Some(Found::Gap(gap));
            }
            at += 8;
        }
        None
    }
}

/// What a file of batches holds.
pub(super) struct Batches {
    /// Where the next record goes.
    pub(super) end: u64,
    /// The last batch.
    pub(super) last: u64,
    /// Whether a record was read: a whole batch, or a mark.
    pub(super) is_begun: bool,
    /// From here to `end` nothing says that it was synced.
    pub(super) doubtful: u64,
    /// Behind the last mark.
    mark_end: u64,
    /// What is damaged.
    pub(super) gaps: Vec<Range<u64>>,
    /// From `end` on: what was never said to be stored.
    pub(super) unfinished: Option<Range<u64>>,
}

impl Batches {
    /// Reads a whole file: gives each record of each batch to `each`, with the
    /// number of the batch; `last` is that before the first.
    ///
    /// Where records are missing, `synced_behind` is asked up to which batch
    /// all were synced, as the files behind this one say (given the last batch
    /// of this one). If the missing ones were, the others of their batch are
    /// given; else the reading ends before that batch, whose writing nobody
    /// waited for to the end.
    pub(super) fn read(
        seal: &Seal,
        bytes: &[u8],
        last: u64,
        synced_behind: &mut dyn FnMut(u64) -> Option<u64>,
        each: &mut dyn FnMut(&Record<'_>, u64),
    ) -> Batches {
        let mut records = Records::new(seal, bytes);
        let mut batches = Batches {
            end: HEAD_BYTES as u64,
            last,
            is_begun: false,
            doubtful: HEAD_BYTES as u64,
            mark_end: 0,
            gaps: Vec::new(),
            unfinished: None,
        };
        // Those of a batch whose last one was not seen yet.
        let mut held: Vec<Record<'_>> = Vec::new();
        let mut synced: Option<Option<u64>> = None;
        loop {
            let from = records.at as u64;
            let found = records.next();
            let (open, missing) = match held.first() {
                Some(first) => (first.at, first.batch(batches.last)),
                None => (from, batches.last + 1),
            };
            let is_missing = match &found {
                Some(Found::Record(record)) => {
                    !held.is_empty() && (record.is_mark() || record.batch(batches.last) != missing)
                }
                Some(Found::Gap(_)) => true,
                None => !held.is_empty() || records.tail().is_some(),
            };
            if is_missing {
                let synced = *synced.get_or_insert_with(|| {
                    let ahead = Records::from(seal, bytes, from);
                    let (here, last) = ahead.synced_through(batches.last);
                    here.max(synced_behind(last))
                });
                if synced < Some(missing) {
                    let tail = Records::from(seal, bytes, open).tail();
                    batches.end = open;
                    batches.unfinished = tail;
                    return batches;
                }
                if !held.is_empty() && !matches!(found, Some(Found::Gap(_))) {
                    // Its last record is gone without a trace.
                    batches.give(&mut held, each);
                }
            }
            match found {
                Some(Found::Record(record)) if record.is_mark() => {
                    batches.is_begun = true;
                    batches.end = record.end();
                    batches.mark_end = batches.end;
                    batches.doubtful = record.at;
                    // Those before it may all be lost.
                    let last = record.batch(batches.last).wrapping_sub(1);
                    batches.last = batches.last.max(last);
                }
                Some(Found::Record(record)) => {
                    held.push(record);
                    if record.flags.is_last() {
                        batches.give(&mut held, each);
                    }
                }
                Some(Found::Gap(gap)) => batches.gaps.push(gap),
                None => {
                    batches.gaps.extend(records.tail());
                    batches.end = batches
                        .gaps
                        .last()
                        .map_or(0, |gap| gap.end)
                        .max(batches.end);
                    return batches;
                }
            }
        }
    }

    fn give(&mut self, held: &mut Vec<Record<'_>>, each: &mut dyn FnMut(&Record<'_>, u64)) {
        let Some(last) = held.last() else { return };
        let batch = last.batch(self.last);
        // A mark right before it may not have been synced.
        if held[0].flags.is_after_sync() && self.end != self.mark_end {
            self.doubtful = held[0].at;
        }
        self.is_begun = true;
        self.end = last.end();
        held.iter().for_each(|record| each(record, batch));
        self.last = batch;
        held.clear();
    }
}

/// Up to which batch all were synced, as a file says; and its last batch.
pub(super) fn synced_through(seal: &Seal, bytes: &[u8], last: u64) -> (Option<u64>, u64) {
    Records::new(seal, bytes).synced_through(last)
}

/// Gives a file's head and its records, one behind the other as far as their
/// lengths and magic numbers lead, the checksums of what they say. For tests, of
/// what no checksum finds.
pub(super) fn reseal(bytes: &mut [u8]) {
    let Some(copy) = bytes.get(..COPY_BYTES) else {
        return;
    };
    let u64_at = |at: usize| u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|i| copy[at + i]));
    let kinds = [Kind::Log, Kind::Base, Kind::Directory];
    let kind = kinds.into_iter().find(|kind| *kind as u8 == copy[8]);
    let Some(kind) = kind else {
        return;
    };
    let seal = Seal::new(kind, u64_at(16), u64_at(24));
    for at in COPIES {
        if let Some(place) = bytes.get_mut(at..at + COPY_BYTES) {
            place.copy_from_slice(&seal.copy());
        }
    }
    let mut at = HEAD_BYTES;
    while let Some(rest) = bytes.get_mut(at..)
        && let Some(fields) = Fields::read(rest)
        && fields.magic == seal.magic
        && let Some(payload) = rest[FRAME_BYTES..].get(..fields.payload_len())
    {
        let crc = seal.crc(at as u64, fields.word, fields.batch);
        let crc = crc32c::crc32c_append(crc, payload);
        rest[8..12].copy_from_slice(&crc.to_le_bytes());
        at += frame_len(fields.payload_len());
    }
}

/// All of a file, with the ranges that the disk could not read: there it has
/// `0xff`.
pub(super) fn read_whole(file: &dyn File) -> io::Result<(Vec<u8>, Vec<Range<u64>>)> {
    Ok(read_range(file, 0..file.len()?))
}

/// As [`read_whole`], of a range that the file has.
pub(super) fn read_range(file: &dyn File, range: Range<u64>) -> (Vec<u8>, Vec<Range<u64>>) {
    const BLOCK: usize = 4096;
    let mut bytes = vec![0; (range.end - range.start) as usize];
    let mut unreadable: Vec<Range<u64>> = Vec::new();
    if file.read_at(&mut bytes, range.start).is_ok() {
        return (bytes, unreadable);
    }
    for (i, block) in bytes.chunks_mut(BLOCK).enumerate() {
        let at = range.start + (i * BLOCK) as u64;
        if file.read_at(block, at).is_ok() {
            continue;
        }
        block.fill(0xff);
        let end = at + block.len() as u64;
        match unreadable.last_mut().filter(|range| range.end == at) {
            Some(range) => range.end = end,
            None => unreadable.push(at..end),
        }
    }
    (bytes, unreadable)
}

/// What a range of a file has lost; its bytes are copied aside.
pub(super) fn keep(
    disk: &dyn Disk,
    name: &str,
    range: Range<u64>,
    bytes: &[u8],
    what: &str,
) -> io::Result<Damage> {
    Ok(Damage {
        file: name.to_owned(),
        copied_to: copy_aside(disk, name, range.start, bytes)?,
        range,
        what: what.to_owned(),
        unfinished: false,
    })
}

/// The bytes of a range of a file.
pub(super) fn part<'a>(bytes: &'a [u8], range: &Range<u64>) -> &'a [u8] {
    &bytes[range.start as usize..range.end as usize]
}

/// What is said of a gap.
pub(super) const LOST: &str =
    "no whole record is in these bytes; what they held is lost, what lies behind them is not";

/// What is said of a range that cannot be read at all.
pub(super) const UNREADABLE: &str = "the disk cannot read these bytes";

/// Copies bytes into a file of their own, once: a copy that is there from an
/// earlier start does.
fn copy_aside(disk: &dyn Disk, name: &str, from: u64, bytes: &[u8]) -> io::Result<String> {
    let names = disk.names()?;
    for turn in 0.. {
        let copy = copy_name(name, from, turn);
        if names.contains(&copy) {
            if read_whole(&*disk.open(&copy)?)?.0 == bytes {
                return Ok(copy);
            }
            continue;
        }
        let file = disk
            .create(&copy, bytes.len() as u64)
            .map_err(at("creating", &copy))?;
        file.write_at(bytes, 0)
            .and_then(|()| file.sync())
            .map_err(at("writing", &copy))?;
        return Ok(copy);
    }
    unreachable!("the numbers of copies do not end")
}

/// Puts a whole file aside under another name.
pub(super) fn move_aside(disk: &dyn Disk, name: &str) -> io::Result<String> {
    let names = disk.names()?;
    let copy = (0..)
        .map(|turn| copy_name(name, 0, turn))
        .find(|copy| !names.contains(copy))
        .expect("the numbers of copies do not end");
    disk.rename(name, &copy)?;
    Ok(copy)
}

fn copy_name(name: &str, at: u64, turn: u64) -> String {
    match turn {
        0 => format!("damaged-{name}-{at}"),
        turn => format!("damaged-{name}-{at}-{turn}"),
    }
}

/// Writes zeros over a range of a file and syncs it.
pub(super) fn erase(file: &dyn File, range: Range<u64>) -> io::Result<()> {
    let zeros = vec![0; (range.end - range.start).min(1 << 20) as usize];
    let mut at = range.start;
    while at < range.end {
        let len = (range.end - at).min(zeros.len() as u64);
        file.write_at(&zeros[..len as usize], at)?;
        at += len;
    }
    file.sync()
}

#[cfg(test)]
mod tests {
    use super::super::twin::Twin;
    use super::*;

    fn seal() -> Seal {
        Seal::new(Kind::Log, 7, 0x0123_4567_89ab_cdef)
    }

    /// A file of batches with these payloads each.
    fn file(batches: &[&[&[u8]]]) -> Vec<u8> {
        let mut bytes = vec![0; HEAD_BYTES];
        for (i, payloads) in batches.iter().enumerate() {
            for (j, payload) in payloads.iter().enumerate() {
                let flags = Flags::new(j + 1 == payloads.len(), true);
                let at = bytes.len() as u64;
                seal().frame(at, i as u64 + 1, flags, &[payload], &mut bytes);
            }
        }
        bytes.resize(bytes.len() + 64, 0);
        bytes
    }

    fn payloads(bytes: &[u8]) -> Vec<Vec<u8>> {
        Records::new(&seal(), bytes)
            .filter_map(|found| match found {
                Found::Record(record) => Some(record.payload.to_owned()),
                Found::Gap(_) => None,
            })
            .collect()
    }

    #[test]
    fn a_record_counts_only_where_it_was_written_and_in_its_file() {
        let bytes = file(&[&[b"one", b"", b"three"]]);
        assert_eq!(payloads(&bytes), [&b"one"[..], b"", b"three"]);
        let record = &bytes[HEAD_BYTES..][..frame_len(3)];
        let mut moved = bytes.clone();
        moved.splice(HEAD_BYTES..HEAD_BYTES, record.iter().copied());
        assert_eq!(payloads(&moved), [b"one"]);
        for other in [
            Seal::new(Kind::Base, 7, seal().salt),
            Seal::new(Kind::Log, 8, seal().salt),
            Seal::new(Kind::Log, 7, 1),
        ] {
            assert_eq!(Records::new(&other, &bytes).next(), None);
            assert_ne!(other.magic, seal().magic);
        }
    }

    #[test]
    fn garbage_that_looks_like_records_is_not_checked_again_and_again() {
        let mut bytes = file(&[&[b"one"], &[b"two"]]);
        let from = HEAD_BYTES + frame_len(3);
        // Checking each of these against all behind it would take hours.
        let len = (64 << 20) - FRAME_BYTES as u32;
        let mut looks = [seal().magic.to_le_bytes(), (len / 2).to_le_bytes()].concat();
        looks = looks.repeat(8 << 20);
        bytes.splice(from..from, looks);
        assert_eq!(payloads(&bytes), [b"one"]);
        let seal = seal();
        let mut records = Records::new(&seal, &bytes);
        records.by_ref().for_each(drop);
        let tail = records.tail().unwrap();
        assert_eq!(tail.start, from as u64);
        assert!(tail.end as usize > bytes.len() - 100);
    }

    #[test]
    fn what_is_copied_aside_is_copied_once() {
        let disk = Twin::new();
        let keep = |bytes: &[u8]| keep(&disk, "log-1", 8..11, bytes, "lost").unwrap();
        assert_eq!(keep(b"abc").copied_to, "damaged-log-1-8");
        assert_eq!(keep(b"abc").copied_to, "damaged-log-1-8");
        assert_eq!(keep(b"xyz").copied_to, "damaged-log-1-8-1");
        assert_eq!(disk.bytes("damaged-log-1-8").unwrap(), b"abc");
        assert_eq!(disk.bytes("damaged-log-1-8-1").unwrap(), b"xyz");
        assert_eq!(
            keep(b"abc").to_string(),
            "log-1, bytes 8 to 11: lost; they are kept in damaged-log-1-8"
        );
    }
}
