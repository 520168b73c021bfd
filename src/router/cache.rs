//! A worker's cache of topics and their receivers.
//!
//! Two halves: what is new goes into the young one; when that is full, the
//! old half is dropped and the young one becomes the old. What is asked for
//! again meanwhile is copied over. So a topic that is used stays, a million
//! that are used once pass through, and dropping half the cache frees three
//! buffers. A hit takes no lock and allocates nothing.

use ahash::RandomState;
use hashbrown::HashTable;

use super::Target;
use super::tree::Walk;

/// What a worker thread remembers of its topics; of one router only.
pub struct MatchCache {
    young: Half,
    old: Half,
    half_bytes_max: usize,
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
}

/// A topic that was asked for, whether or not anyone gets it.
#[derive(Clone, Copy)]
struct Entry {
    hash: u64,
    stamp: Stamp,
    key_at: u32,
    key_len: u32,
    targets_at: u32,
    targets_len: u32,
}

/// Of which tree an entry is: the part of its first level, that part's
/// generation, and that of filters that begin with a wildcard.
#[derive(Clone, Copy)]
pub(super) struct Stamp {
    pub(super) part: u8,
    pub(super) part_generation: u64,
    pub(super) wildcards_generation: u64,
}

/// Where the targets of a hit are.
#[derive(Clone, Copy)]
pub(super) struct Found {
    young: bool,
    at: u32,
    len: u32,
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
            // Places in a half are 32 bits.
            half_bytes_max: (bytes_max / 2).min(u32::MAX as usize),
            hasher: RandomState::new(),
            walk: Walk::default(),
        }
    }

    pub(super) fn hash(&self, key: &str) -> u64 {
        self.hasher.hash_one(key.as_bytes())
    }

    /// The entry of a key, if there is one that is current.
    pub(super) fn find(
        &mut self,
        hash: u64,
        key: &str,
        is_current: impl Fn(&Stamp) -> bool,
    ) -> Option<Found> {
        if let Some(entry) = self.young.find(hash, key) {
            return is_current(&entry.stamp).then(|| entry.found(true));
        }
        let entry = *self.old.find(hash, key)?;
        if !is_current(&entry.stamp) {
            return None;
        }
        let targets = self.old.targets_of(&entry);
        if self.young.bytes() + cost(key, targets) > self.half_bytes_max {
            // No room: it is good where it is, until the next miss.
            return Some(entry.found(false));
        }
        let entry = self
            .young
            .insert(hash, key, entry.stamp, targets, self.half_bytes_max);
        Some(entry.found(true))
    }

    pub(super) fn targets(&self, found: Found) -> &[Target] {
        let half = if found.young { &self.young } else { &self.old };
        &half.targets[found.at as usize..][..found.len as usize]
    }

    /// For a walk whose result is inserted next.
    pub(super) fn walk(&mut self) -> &mut Walk {
        // One topic with a million receivers must not be paid for ever.
        if self.walk.found.capacity() * size_of::<Target>() > self.half_bytes_max {
            self.walk.found = Vec::new();
        }
        &mut self.walk
    }

    /// Makes what the walk has found the entry of a key.
    pub(super) fn insert(&mut self, hash: u64, key: &str, stamp: Stamp) -> &[Target] {
        let targets = &self.walk.found;
        let cost = cost(key, targets);
        if cost > self.half_bytes_max {
            return targets;
        }
        if let Some(entry) = self.young.refresh(hash, key, stamp, targets) {
            return self.targets(entry.found(true));
        }
        if self.young.bytes() + cost > self.half_bytes_max {
            self.old = std::mem::take(&mut self.young);
        }
        let entry = self
            .young
            .insert(hash, key, stamp, targets, self.half_bytes_max);
        self.targets(entry.found(true))
    }
}

impl Half {
    fn find(&self, hash: u64, key: &str) -> Option<&Entry> {
        self.entries
            .find(hash, |entry| self.is_of(entry, hash, key))
    }

    fn is_of(&self, entry: &Entry, hash: u64, key: &str) -> bool {
        entry.hash == hash
            && &self.keys[entry.key_at as usize..][..entry.key_len as usize] == key.as_bytes()
    }

    fn targets_of(&self, entry: &Entry) -> &[Target] {
        &self.targets[entry.targets_at as usize..][..entry.targets_len as usize]
    }

    /// What it takes, also of what entries left behind that were replaced.
    fn bytes(&self) -> usize {
        self.entries.len() * ENTRY_BYTES
            + self.keys.len()
            + self.targets.len() * size_of::<Target>()
    }

    /// Brings an entry up to date in place, as it mostly is no longer than
    /// before. A longer one goes: its key will be inserted anew.
    fn refresh(&mut self, hash: u64, key: &str, stamp: Stamp, targets: &[Target]) -> Option<Entry> {
        let (keys, entries) = (&self.keys, &mut self.entries);
        let mut there = entries
            .find_entry(hash, |entry| {
                entry.hash == hash
                    && &keys[entry.key_at as usize..][..entry.key_len as usize] == key.as_bytes()
            })
            .ok()?;
        let entry = there.get_mut();
        if targets.len() > entry.targets_len as usize {
            there.remove();
            return None;
        }
        entry.stamp = stamp;
        entry.targets_len = targets.len() as u32;
        self.targets[entry.targets_at as usize..][..targets.len()].copy_from_slice(targets);
        Some(*entry)
    }

    /// Adds an entry whose key is not there and for which there is room.
    fn insert(
        &mut self,
        hash: u64,
        key: &str,
        stamp: Stamp,
        targets: &[Target],
        half_bytes_max: usize,
    ) -> Entry {
        let entry = Entry {
            hash,
            stamp,
            key_at: self.keys.len() as u32,
            key_len: key.len() as u32,
            targets_at: self.targets.len() as u32,
            targets_len: targets.len() as u32,
        };
        append(&mut self.keys, key.as_bytes(), half_bytes_max);
        append(&mut self.targets, targets, half_bytes_max);
        self.entries.insert_unique(hash, entry, |entry| entry.hash);
        entry
    }
}

impl Entry {
    fn found(&self, young: bool) -> Found {
        Found {
            young,
            at: self.targets_at,
            len: self.targets_len,
        }
    }
}

/// What a new entry takes.
fn cost(key: &str, targets: &[Target]) -> usize {
    ENTRY_BYTES + key.len() + size_of_val(targets)
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
            + buckets * (size_of::<Entry>() + 1)
    }

    fn targets(count: u32) -> Vec<Target> {
        let receiver = |slot| {
            let generation = 0;
            Receiver::Session(SessionId(Place { slot, generation }))
        };
        (0..count)
            .map(|slot| Target {
                receiver: receiver(slot),
                subscription: Subscription::new(Qos::AtMostOnce),
            })
            .collect()
    }

    fn insert(cache: &mut MatchCache, key: &str, generation: u64, targets: &[Target]) {
        let stamp = Stamp {
            part: 0,
            part_generation: generation,
            wildcards_generation: 0,
        };
        cache.walk().found = targets.to_vec();
        let hash = cache.hash(key);
        assert_eq!(cache.insert(hash, key, stamp), targets);
    }

    fn find<'c>(cache: &'c mut MatchCache, key: &str, generation: u64) -> Option<&'c [Target]> {
        let hash = cache.hash(key);
        let found = cache.find(hash, key, |stamp| stamp.part_generation == generation)?;
        Some(cache.targets(found))
    }

    #[test]
    fn many_topics_stay_within_the_bound_and_one_in_use_stays() {
        let mut cache = MatchCache::new(BYTES_MAX);
        insert(&mut cache, "hot", 0, &targets(3));
        for i in 0..100_000u32 {
            insert(&mut cache, &format!("topic/{i}"), 0, &targets(i % 4));
            assert_eq!(find(&mut cache, "hot", 0), Some(&*targets(3)));
            let taken = allocated_bytes(&cache.young) + allocated_bytes(&cache.old);
            assert!(taken <= BYTES_MAX * 9 / 8, "{taken} bytes");
        }
        assert_eq!(find(&mut cache, "topic/0", 0), None);
    }

    #[test]
    fn a_changed_topic_is_found_with_its_new_receivers_only() {
        let mut cache = MatchCache::new(BYTES_MAX);
        for generation in 0..100_000 {
            // Fewer than before, as many, and more.
            let now = targets(generation as u32 * 7 % 5);
            insert(&mut cache, "a", generation, &now);
            assert_eq!(find(&mut cache, "a", generation), Some(&*now));
            assert_eq!(find(&mut cache, "a", generation + 1), None);
        }
        let taken = allocated_bytes(&cache.young) + allocated_bytes(&cache.old);
        assert!(taken <= BYTES_MAX * 9 / 8, "{taken} bytes");
    }

    #[test]
    fn too_many_receivers_are_not_kept() {
        let mut cache = MatchCache::new(BYTES_MAX);
        let many = targets(100_000);
        insert(&mut cache, "a", 0, &many);
        assert_eq!(find(&mut cache, "a", 0), None);
        insert(&mut cache, "b", 0, &[]);
        assert_eq!(find(&mut cache, "b", 0), Some(&[][..]));
    }
}
