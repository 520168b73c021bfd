//! A doubly linked list through the values of a slab: the last in, and any
//! one out, in a few steps and without memory of its own.

use slab::Slab;

/// No key: slabs here never get so many values.
const NONE: u32 = u32::MAX;

/// The neighbours of a value that is in a list.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    previous: u32,
    next: u32,
}

impl Links {
    pub const NONE: Links = Links {
        previous: NONE,
        next: NONE,
    };

    pub fn next(self) -> Option<u32> {
        some(self.next)
    }
}

/// A value that can be in one list.
pub(super) trait Linked {
    fn links(&mut self) -> &mut Links;
}

/// The ends of a list. Whose values are in it is the caller's to know.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    first: u32,
    last: u32,
}

impl List {
    pub const EMPTY: List = List {
        first: NONE,
        last: NONE,
    };

    pub fn first(self) -> Option<u32> {
        some(self.first)
    }

    pub fn push_back<T: Linked>(&mut self, values: &mut Slab<T>, key: u32) {
        *values[key as usize].links() = Links {
            previous: self.last,
            next: NONE,
        };
        match self.last {
            NONE => self.first = key,
            last => values[last as usize].links().next = key,
        }
        self.last = key;
    }

    /// The value must be in this list.
    pub fn remove<T: Linked>(&mut self, values: &mut Slab<T>, key: u32) {
        let links = std::mem::replace(values[key as usize].links(), Links::NONE);
        match links.previous {
            NONE => self.first = links.next,
            previous => values[previous as usize].links().next = links.next,
        }
        match links.next {
            NONE => self.last = links.previous,
            next => values[next as usize].links().previous = links.previous,
        }
    }
}

fn some(key: u32) -> Option<u32> {
    (key != NONE).then_some(key)
}
