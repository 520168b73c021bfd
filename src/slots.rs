//! A table of values that are found by place, each behind a lock of its own.
//!
//! Owns places and their generations. Slots are never given back, only used
//! again, so that looking one up takes no lock but its own. Knows nothing of
//! the values, but tells each when it is let go; holds no two locks at once.

use std::ops::{Deref, DerefMut};

use parking_lot::{Mutex, MutexGuard};

use crate::message::Place;

/// What can be in a table.
pub trait Slotted {
    /// Who had it locked lets it go.
    fn let_go(&mut self) {}
}

/// The table.
pub struct Slots<T> {
    slots: boxcar::Vec<Mutex<Slot<T>>>,
    free: Mutex<Vec<u32>>,
}

struct Slot<T> {
    generation: u32,
    // Boxed, so that an empty slot costs little for ever.
    value: Option<Box<T>>,
}

impl<T: Slotted> Slots<T> {
    pub fn new() -> Slots<T> {
        Slots {
            slots: boxcar::Vec::new(),
            free: Mutex::new(Vec::new()),
        }
    }

    pub fn insert(&self, value: T) -> Place {
        let value = Some(Box::new(value));
        let reused = self.free.lock().pop();
        if let Some(slot) = reused {
            let mut entry = self.slots[slot as usize].lock();
            entry.value = value;
            return Place {
                slot,
                generation: entry.generation,
            };
        }
        let slot = self.slots.push(Mutex::new(Slot {
            generation: 0,
            value,
        }));
        Place {
            slot: u32::try_from(slot).expect("limits keep the table below 2^32 slots"),
            generation: 0,
        }
    }

    /// The value at `place`, locked; `None` once it is gone.
    pub fn lock(&self, place: Place) -> Option<Locked<'_, T>> {
        let slot = self.slots.get(place.slot as usize)?.lock();
        (slot.generation == place.generation && slot.value.is_some()).then_some(Locked { slot })
    }

    /// Takes the value out; the place leads nowhere from now on.
    pub fn remove(&self, place: Place) -> Option<Box<T>> {
        self.lock(place).map(|locked| self.take(place, locked))
    }

    /// As `remove`, for a value that is locked already.
    pub fn take(&self, place: Place, mut locked: Locked<'_, T>) -> Box<T> {
        let value = locked.slot.value.take().expect("a locked value is there");
        locked.slot.generation = locked.slot.generation.wrapping_add(1);
        drop(locked);
        self.free.lock().push(place.slot);
        value
    }

    /// Shows the values in `count` slots from `from` on, each with its lock held;
    /// which slot comes next, if there is one.
    pub fn visit(&self, from: usize, count: usize, mut see: impl FnMut(&T)) -> Option<usize> {
        let slots = self.slots.count();
        let end = from.saturating_add(count).min(slots);
        for slot in from..end {
            let entry = self.slots.get(slot).map(|slot| slot.lock());
            // One that is being made is not there yet.
            if let Some(value) = entry.as_ref().and_then(|slot| slot.value.as_ref()) {
                see(value);
            }
        }
        (end < slots).then_some(end)
    }

    /// One more than the last slot that was ever used.
    pub fn end(&self) -> u32 {
        self.slots.count() as u32 // see `insert`
    }

    /// The value in that slot, whichever it is, locked; and its place.
    pub fn lock_slot(&self, slot: u32) -> Option<(Place, Locked<'_, T>)> {
        let entry = self.slots.get(slot as usize)?.lock();
        let generation = entry.generation;
        (entry.value.is_some()).then_some((Place { slot, generation }, Locked { slot: entry }))
    }

    /// The places of all values there are at some moment during the call.
    pub fn places(&self) -> impl Iterator<Item = Place> + '_ {
        self.slots.iter().filter_map(|(slot, entry)| {
            let entry = entry.lock();
            entry.value.is_some().then_some(Place {
                slot: slot as u32,
                generation: entry.generation,
            })
        })
    }
}

/// A value and its lock; given up when it goes out of scope.
pub struct Locked<'a, T: Slotted> {
    slot: MutexGuard<'a, Slot<T>>,
}

impl<T: Slotted> Deref for Locked<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.slot
            .value
            .as_ref()
            .expect("only made for a value that is there")
    }
}

impl<T: Slotted> DerefMut for Locked<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.slot
            .value
            .as_mut()
            .expect("only made for a value that is there")
    }
}

impl<T: Slotted> Drop for Locked<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(value) = &mut self.slot.value {
            value.let_go();
        }
    }
}
