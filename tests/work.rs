//! What a piece of work costs this thread, in counts: never in time, which other
//! processes have a part in.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What was asked of the allocator.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Allocated {
    pub times: usize,
    pub bytes: usize,
    /// Of these, those that were freed.
    pub freed_bytes: usize,
}

thread_local! {
    static ALLOCATED: Cell<Allocated> = const {
        Cell::new(Allocated { times: 0, bytes: 0, freed_bytes: 0 })
    };
}

/// What is allocated meanwhile.
pub fn allocated<R>(work: impl FnOnce() -> R) -> (R, Allocated) {
    let before = ALLOCATED.get();
    let result = work();
    let after = ALLOCATED.get();
    let allocated = Allocated {
        times: after.times - before.times,
        bytes: after.bytes - before.bytes,
        freed_bytes: after.freed_bytes - before.freed_bytes,
    };
    (result, allocated)
}

/// Bytes that this thread holds on to.
pub fn held_bytes() -> isize {
    let allocated = ALLOCATED.get();
    allocated.bytes.wrapping_sub(allocated.freed_bytes) as isize
}

struct Counting;

impl Counting {
    fn count(times: usize, bytes: usize, freed_bytes: usize) {
        // A thread that ends frees what it has, and may allocate for that.
        _ = ALLOCATED.try_with(|allocated| {
            let before = allocated.get();
            allocated.set(Allocated {
                times: before.times + times,
                bytes: before.bytes + bytes,
                freed_bytes: before.freed_bytes + freed_bytes,
            });
        });
    }
}

// SAFETY: all is done by the system's allocator, with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Counting::count(1, layout.size(), 0);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Counting::count(0, 0, layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Counting::count(1, layout.size(), 0);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Counting::count(1, size, layout.size());
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
