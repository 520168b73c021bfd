//! A value that everybody reads all the time, and that changes hardly ever.
//!
//! Owns all values that there were. Reading takes no lock and copies nothing: a
//! reference holds as long as the table, and stays as it is when a newer value
//! comes. So that going to and fro between two values costs no memory, a value
//! that was there before is found again.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// The value that holds, and those before it.
pub struct Versions<T> {
    // By far the most are never changed: no table is looked into then.
    first: T,
    later: boxcar::Vec<T>,
    // 0: the first; else one more than its place among the later ones.
    current: AtomicUsize,
    changes: Mutex<()>,
}

impl<T> Versions<T> {
    pub fn new(first: T) -> Versions<T> {
        Versions {
            first,
            later: boxcar::Vec::new(),
            current: AtomicUsize::new(0),
            changes: Mutex::new(()),
        }
    }

    /// The value that holds now.
    #[inline]
    pub fn current(&self) -> &T {
        match self.current.load(Ordering::Acquire) {
            0 => &self.first,
            number => &self.later[number - 1],
        }
    }

    /// From now on this one holds, or an earlier one that is the same.
    pub fn set(&self, value: T, is_same: impl Fn(&T, &T) -> bool) {
        let _changes = self.changes.lock();
        let number = match is_same(&self.first, &value) {
            true => 0,
            false => {
                let mut later = self.later.iter();
                let known = later.find(|(_, known)| is_same(known, &value));
                let place = known.map(|(place, _)| place);
                1 + place.unwrap_or_else(|| self.later.push(value))
            }
        };
        self.current.store(number, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_value_keeps_it_and_nobody_keeps_one_twice() {
        let versions = Versions::new(1);
        let set = |value| versions.set(value, |one, other| one == other);
        let first = versions.current();
        for _ in 0..100 {
            set(2);
            let second = versions.current();
            set(3);
            assert_eq!((*first, *second, *versions.current()), (1, 2, 3));
            set(1);
            assert_eq!(*versions.current(), 1);
        }
        assert_eq!(versions.later.count(), 2);
    }
}
