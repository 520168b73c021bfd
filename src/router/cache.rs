//! A worker's cache of topics and their receivers.
//!
//! Two halves: what is new goes into the young one; when that is full, the
//! old half is dropped and the young one becomes the old. What is asked for
//! again meanwhile is copied over. So a topic that is used stays, a million
//! that are used once pass through, and dropping half the cache frees four
//! buffers. A hit takes no lock and allocates nothing.

use ahash::RandomState;
use hashbrown::HashTable;

use super::tree::Walk;
use super::{Matches, Target};

/// What a worker thread remembers of its topics; of one router only.
pub struct MatchCache {
    young: Half,
    old: Half,
    half_bytes_max: usize,
    /// The young one's entry that was found last: most often it is the next one
    /// too, and found without its hash.
    last: Option<Entry>,
    /// Keyed, as clients choose the topics.
    hasher: RandomState,
    walk: Walk,
}

#[derive(Default)]
struct Half {
    entries: HashTable<Entry>,
    /// The keys' texts, one after the other.
    keys: Vec<u8>,
    /// The entries' targets, one list after the other.
    targets: Vec<Target>,
    /// Their details, those of an entry in one piece that begins with its
    /// length.
    details: Vec<u32>,
}

/// A topic that was asked for, whether or not anyone gets it.
#[derive(Clone, Copy)]
struct Entry {
    hash: u64,
    part_generation: u64,
    wildcards_generation: u64,
    part: u8,
    key_at: u32,
    key_len: u32,
    targets_at: u32,
    targets_len: u32,
    /// `NO_DETAILS` for most.
    details_at: u32,
}

const _: () = assert!(size_of::<Entry>() == 48);

/// A half has fewer.
const NO_DETAILS: u32 = u32::MAX;

/// Of which tree an entry is: the part of its first level, that part's
/// generation, and that of filters that begin with a wildcard.
#[derive(Clone, Copy)]
pub(super) struct Stamp {
    pub(super) part: u8,
    pub(super) part_generation: u64,
    pub(super) wildcards_generation: u64,
}

/// Where a hit is.
#[derive(Clone, Copy)]
pub(super) struct Found {
    young: bool,
    targets_at: u32,
    targets_len: u32,
    details_at: u32,
}

/// What an entry costs in a table that is less than half full at worst.
const ENTRY_BYTES: usize = size_of::<Entry>() * 5 / 2;

impl MatchCache {
    /// A cache that takes about `bytes_max` bytes at most. With so few that a
    /// topic's receivers do not fit half of them, that topic is not cached.
    pub fn new(bytes_max: usize) -> MatchCache {
        MatchCache {
            young: Half::default(),
            old: Half::default(),
            last: None,
            // Places in a half are 32 bits.
            half_bytes_max: (bytes_max / 2).min(u32::MAX as usize),
            hasher: RandomState::new(),
            walk: Walk::default(),
        }
    }

    pub(super) fn hash(&self, key: &str) -> u64 {
        self.hasher.hash_one(key.as_bytes())
    }

    /// Whether this is the key that was found last: it has been looked at, and
    /// is a topic name.
    #[inline]
    pub fn has_just_found(&self, key: &str) -> bool {
        (self.last).is_some_and(|entry| self.young.key(&entry) == key.as_bytes())
    }

    /// The entry that was found last, if it is of that key and current.
    #[inline]
    pub(super) fn find_again(
        &self,
        key: &str,
        is_current: impl Fn(&Stamp) -> bool,
    ) -> Option<Found> {
        let last = (self.last).filter(|_| self.has_just_found(key))?;
        is_current(&last.stamp()).then(|| last.found(true))
    }

    /// The entry of a key, if there is one that is current.
    pub(super) fn find(
        &mut self,
        hash: u64,
        key: &str,
        is_current: impl Fn(&Stamp) -> bool,
    ) -> Option<Found> {
        if let Some(entry) = self.young.find(hash, key) {
            self.last = Some(*entry);
            return is_current(&entry.stamp()).then(|| entry.found(true));
        }
        let entry = *self.old.find(hash, key)?;
        if !is_current(&entry.stamp()) {
            return None;
        }
        let found = entry.found(false);
        let matches = self.old.matches(found);
        if self.young.bytes() + cost(key, matches) > self.half_bytes_max {
            // No room: it is good where it is, until the next miss.
            return Some(found);
        }
        let entry = self
            .young
            .insert(hash, key, entry.stamp(), matches, self.half_bytes_max);
        Some(entry.found(true))
    }

    pub(super) fn matches(&self, found: Found) -> Matches<'_> {
        let half = if found.young { &self.young } else { &self.old };
        half.matches(found)
    }

    /// For a walk whose result is inserted next.
    pub(super) fn walk(&mut self) -> &mut Walk {
        // One topic with a million receivers must not be paid for ever.
        if self.walk.found.capacity() * size_of::<Target>() > self.half_bytes_max {
            self.walk.found = Vec::new();
        }
        if self.walk.details.capacity() * size_of::<u32>() > self.half_bytes_max {
            self.walk.details = Vec::new();
        }
        &mut self.walk
    }

    /// Makes what the walk has found the entry of a key.
    pub(super) fn insert(&mut self, hash: u64, key: &str, stamp: Stamp) -> Matches<'_> {
        let matches = Matches {
            targets: &self.walk.found,
            details: &self.walk.details,
        };
        let cost = cost(key, matches);
        if cost > self.half_bytes_max {
            return matches;
        }
        self.last = None; // It may move.
        if let Some(entry) = self.young.refresh(hash, key, stamp, matches) {
            return self.matches(entry.found(true));
        }
        if self.young.bytes() + cost > self.half_bytes_max {
            self.old = std::mem::take(&mut self.young);
        }
        let entry = self
            .young
            .insert(hash, key, stamp, matches, self.half_bytes_max);
        self.matches(entry.found(true))
    }
}

impl Half {
    fn find(&self, hash: u64, key: &str) -> Option<&Entry> {
        self.entries
            .find(hash, |entry| self.is_of(entry, hash, key))
    }

    fn is_of(&self, entry: &Entry, hash: u64, key: &str) -> bool {
        entry.hash == hash && self.key(entry) == key.as_bytes()
    }

    fn key(&self, entry: &Entry) -> &[u8] {
        &self.keys[entry.key_at as usize..][..entry.key_len as usize]
    }

    fn matches(&self, found: Found) -> Matches<'_> {
        Matches {
            targets: &self.targets[found.targets_at as usize..][..found.targets_len as usize],
            details: match found.details_at {
                NO_DETAILS => &[],
                at => &self.details[at as usize..][..self.details[at as usize] as usize],
            },
        }
    }

    /// What it takes, also of what entries left behind that were replaced.
    fn bytes(&self) -> usize {
        self.entries.len() * ENTRY_BYTES
            + self.keys.len()
            + self.targets.len() * size_of::<Target>()
            + self.details.len() * size_of::<u32>()
    }

    /// Brings an entry up to date in place, as it mostly is no longer than
    /// before. A longer one goes: its key will be inserted anew.
    fn refresh(&mut self, hash: u64, key: &str, stamp: Stamp, new: Matches<'_>) -> Option<Entry> {
        let (keys, entries) = (&self.keys, &mut self.entries);
        let mut there = entries
            .find_entry(hash, |entry| {
                entry.hash == hash
                    && &keys[entry.key_at as usize..][..entry.key_len as usize] == key.as_bytes()
            })
            .ok()?;
        let entry = there.get_mut();
        let details_len = match entry.details_at {
            NO_DETAILS => 0,
            at => self.details[at as usize] as usize,
        };
        if new.targets.len() > entry.targets_len as usize || new.details.len() > details_len {
            there.remove();
            return None;
        }
        entry.set_stamp(stamp);
        entry.targets_len = new.targets.len() as u32;
        self.targets[entry.targets_at as usize..][..new.targets.len()].copy_from_slice(new.targets);
        match new.details {
            [] => entry.details_at = NO_DETAILS,
            details => {
                self.details[entry.details_at as usize..][..details.len()].copy_from_slice(details);
            }
        }
        Some(*entry)
    }

    /// Adds an entry whose key is not there and for which there is room.
    fn insert(
        &mut self,
        hash: u64,
        key: &str,
        stamp: Stamp,
        matches: Matches<'_>,
        half_bytes_max: usize,
    ) -> Entry {
        let entry = Entry {
            hash,
            part_generation: stamp.part_generation,
            wildcards_generation: stamp.wildcards_generation,
            part: stamp.part,
            key_at: self.keys.len() as u32,
            key_len: key.len() as u32,
            targets_at: self.targets.len() as u32,
            targets_len: matches.targets.len() as u32,
            details_at: match matches.details {
                [] => NO_DETAILS,
                _ => self.details.len() as u32,
            },
        };
        append(&mut self.keys, key.as_bytes(), half_bytes_max);
        append(&mut self.targets, matches.targets, half_bytes_max);
        append(&mut self.details, matches.details, half_bytes_max);
        self.entries.insert_unique(hash, entry, |entry| entry.hash);
        entry
    }
}

impl Entry {
    fn found(&self, young: bool) -> Found {
        Found {
            young,
            targets_at: self.targets_at,
            targets_len: self.targets_len,
            details_at: self.details_at,
        }
    }

    fn stamp(&self) -> Stamp {
        Stamp {
            part: self.part,
            part_generation: self.part_generation,
            wildcards_generation: self.wildcards_generation,
        }
    }

    fn set_stamp(&mut self, stamp: Stamp) {
        self.part = stamp.part;
        self.part_generation = stamp.part_generation;
        self.wildcards_generation = stamp.wildcards_generation;
    }
}

/// What a new entry takes.
fn cost(key: &str, matches: Matches<'_>) -> usize {
    ENTRY_BYTES + key.len() + size_of_val(matches.targets) + size_of_val(matches.details)
}

/// Grows a buffer by sixteenths of a half, not to its double: the bound is on
/// what is taken from the allocator.
fn append<T: Copy>(buffer: &mut Vec<T>, values: &[T], half_bytes_max: usize) {
    if buffer.capacity() - buffer.len() < values.len() {
        let step = half_bytes_max / 16 / size_of::<T>();
        let double = buffer.len();
        buffer.reserve_exact(values.len().max(step.min(double)));
    }
    buffer.extend_from_slice(values);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Place, Qos, SessionId};
    use crate::router::{Receiver, Subscription};

    const BYTES_MAX: usize = 256 << 10;

    /// What a half has taken from the allocator.
    fn allocated_bytes(half: &Half) -> usize {
        let buckets = half.entries.capacity() * 8 / 7;
        half.keys.capacity()
            + half.targets.capacity() * size_of::<Target>()
            + half.details.capacity() * size_of::<u32>()
            + buckets * (size_of::<Entry>() + 1)
    }

    /// So many targets, and so many words of details.
    #[derive(Clone, PartialEq, Debug)]
    struct Made(Vec<Target>, Vec<u32>);

    fn made(targets_len: u32, details_len: u32) -> Made {
        let receiver = |slot| {
            let generation = 0;
            Receiver::Session(SessionId(Place { slot, generation }))
        };
        let target = |slot| Target::new(receiver(slot), Subscription::new(Qos::AtMostOnce));
        let length = (details_len > 0).then_some(details_len);
        let details = length.into_iter().chain(1..details_len);
        Made((0..targets_len).map(target).collect(), details.collect())
    }

    fn of(matches: Matches<'_>) -> Made {
        Made(matches.targets.to_vec(), matches.details.to_vec())
    }

    fn insert(cache: &mut MatchCache, key: &str, generation: u64, made: &Made) {
        let stamp = Stamp {
            part: 0,
            part_generation: generation,
            wildcards_generation: 0,
        };
        let walk = cache.walk();
        walk.found.clone_from(&made.0);
        walk.details.clone_from(&made.1);
        let hash = cache.hash(key);
        assert_eq!(of(cache.insert(hash, key, stamp)), *made);
    }

    fn find(cache: &mut MatchCache, key: &str, generation: u64) -> Option<Made> {
        let hash = cache.hash(key);
        let found = cache.find(hash, key, |stamp| stamp.part_generation == generation)?;
        Some(of(cache.matches(found)))
    }

    /// Case C55 of docs/security.md.
    #[test]
    fn many_topics_stay_within_the_bound_and_one_in_use_stays() {
        let mut cache = MatchCache::new(BYTES_MAX);
        let hot = made(3, 9);
        insert(&mut cache, "hot", 0, &hot);
        for i in 0..100_000u32 {
            let some = made(i % 4, i / 4 % 3 * 4);
            insert(&mut cache, &format!("topic/{i}"), 0, &some);
            assert_eq!(find(&mut cache, "hot", 0).as_ref(), Some(&hot));
            let taken = allocated_bytes(&cache.young) + allocated_bytes(&cache.old);
            assert!(taken <= BYTES_MAX * 9 / 8, "{taken} bytes");
        }
        assert_eq!(find(&mut cache, "topic/0", 0), None);
    }

    #[test]
    fn a_changed_topic_is_found_as_it_is_now_only() {
        let mut cache = MatchCache::new(BYTES_MAX);
        for generation in 0..100_000 {
            // Fewer than before, as many, and more.
            let now = made(generation as u32 * 7 % 5, generation as u32 * 5 % 7);
            insert(&mut cache, "a", generation, &now);
            assert_eq!(find(&mut cache, "a", generation), Some(now));
            assert_eq!(find(&mut cache, "a", generation + 1), None);
            let taken = allocated_bytes(&cache.young) + allocated_bytes(&cache.old);
            assert!(taken <= BYTES_MAX * 9 / 8, "{taken} bytes");
        }
    }

    #[test]
    fn too_many_receivers_or_details_are_not_kept() {
        let mut cache = MatchCache::new(BYTES_MAX);
        for many in [made(100_000, 0), made(2, 100_000)] {
            insert(&mut cache, "a", 0, &many);
            assert_eq!(find(&mut cache, "a", 0), None);
        }
        let none = made(0, 0);
        insert(&mut cache, "b", 0, &none);
        assert_eq!(find(&mut cache, "b", 0), Some(none));
        let walk = cache.walk();
        assert!(walk.found.capacity() + walk.details.capacity() < 200_000);
    }
}
