//! Values with small numbers for names, in chunks that are given back to the
//! allocator once they are empty.
//!
//! Neither growing nor shrinking moves a value: there is no moment in which
//! all are copied, and a client's many subscriptions leave no hole for ever.

use std::ops::{Index, IndexMut};

/// How many values a chunk has room for. An allocator fits four chunks of
/// 64-byte values into 64 KiB and keeps what it must know of them.
const CHUNK: usize = 250;

/// How far ids of one chunk are from those of the next.
const STRIDE: usize = 256;

pub(super) struct Arena<T> {
    chunks: Vec<Chunk<T>>,
    /// The chunks that have room, each once.
    open: Vec<u32>,
    len: usize,
}

struct Chunk<T> {
    slots: Vec<Slot<T>>,
    /// The first of the list of free slots.
    free: Option<u8>,
    used: usize,
}

pub(super) enum Slot<T> {
    Used(T),
    /// The next of the list of free slots.
    Free(Option<u8>),
}

impl<T> Arena<T> {
    pub(super) fn new() -> Arena<T> {
        Arena {
            chunks: Vec::new(),
            open: Vec::new(),
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, id: u32) -> Option<&T> {
        let (chunk, slot) = place(id);
        match self.chunks.get(chunk)?.slots.get(slot)? {
            Slot::Used(value) => Some(value),
            Slot::Free(_) => None,
        }
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        let at = match self.open.last() {
            Some(&at) => at as usize,
            None => {
                self.chunks.push(Chunk::EMPTY);
                let at = self.chunks.len() - 1;
                self.open.push(at as u32);
                at
            }
        };
        let chunk = &mut self.chunks[at];
        let slot = chunk.insert(value);
        if chunk.used == CHUNK {
            self.open.pop();
        }
        self.len += 1;
        // 2^32 values are more than 256 GiB of nodes: memory ends before.
        u32::try_from(at * STRIDE + slot).expect("fewer than 2^32 values fit memory")
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<T> {
        let (at, slot) = place(id);
        let chunk = self.chunks.get_mut(at)?;
        let was_full = chunk.used == CHUNK;
        let value = chunk.remove(slot)?;
        if was_full {
            self.open.push(at as u32);
        }
        self.len -= 1;
        Some(value)
    }
}

impl<T> Index<u32> for Arena<T> {
    type Output = T;

    fn index(&self, id: u32) -> &T {
        self.get(id).expect("an id inside the tree is of a node")
    }
}

impl<T> IndexMut<u32> for Arena<T> {
    fn index_mut(&mut self, id: u32) -> &mut T {
        let (chunk, slot) = place(id);
        match &mut self.chunks[chunk].slots[slot] {
            Slot::Used(value) => value,
            Slot::Free(_) => unreachable!("an id inside the tree is of a node"),
        }
    }
}

impl<T> Chunk<T> {
    const EMPTY: Chunk<T> = Chunk {
        slots: Vec::new(),
        free: None,
        used: 0,
    };

    /// The chunk has room.
    fn insert(&mut self, value: T) -> usize {
        self.used += 1;
        let Some(free) = self.free else {
            if self.slots.capacity() == 0 {
                self.slots.reserve_exact(CHUNK);
            }
            self.slots.push(Slot::Used(value));
            return self.slots.len() - 1;
        };
        let slot = usize::from(free);
        if let Slot::Free(next) = std::mem::replace(&mut self.slots[slot], Slot::Used(value)) {
            self.free = next;
        }
        slot
    }

    fn remove(&mut self, slot: usize) -> Option<T> {
        let there = self.slots.get_mut(slot)?;
        if let Slot::Free(_) = there {
            return None;
        }
        let Slot::Used(value) = std::mem::replace(there, Slot::Free(self.free)) else {
            unreachable!("it was found used");
        };
        self.free = Some(slot as u8);
        self.used -= 1;
        if self.used == 0 {
            *self = Chunk::EMPTY;
        }
        Some(value)
    }
}

fn place(id: u32) -> (usize, usize) {
    (id as usize / STRIDE, id as usize % STRIDE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_used_again_and_empty_chunks_given_back() {
        let mut arena = Arena::new();
        let ids: Vec<u32> = (0..10_000).map(|value| arena.insert(value)).collect();
        let last = ids[9_999];
        // Of every chunk some, then of one chunk all.
        for round in 0..3 {
            for &id in ids.iter().step_by(3) {
                assert!(arena.remove(id).is_some());
                assert_eq!(arena.remove(id), None);
                assert_eq!(arena.get(id), None);
            }
            assert_eq!(arena.len(), 6_666);
            let mut again: Vec<u32> = (0..3_334).map(|_| arena.insert(round)).collect();
            again.sort_unstable();
            assert!(again.iter().eq(ids.iter().step_by(3)), "the same ids");
            assert!(again.iter().all(|&id| arena[id] == round && id <= last));
        }
        for &id in &ids {
            assert!(arena.remove(id).is_some());
        }
        assert_eq!(arena.len(), 0);
        assert!(arena.chunks.iter().all(|chunk| chunk.slots.capacity() == 0));
        assert_eq!(arena.get(last), None);
        assert!(arena.insert(7) <= last);
    }
}
