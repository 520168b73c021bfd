//! What each thread of the runtime keeps for itself: the broker's worker and a
//! buffer to read into.

use std::cell::RefCell;

use super::Shared;
use crate::broker::Worker;

/// Read at once at most, in bytes.
pub const READ_MAX: usize = 64 << 10;

/// The thread's own.
pub struct Local {
    pub worker: Worker,
    pub buffer: Box<[u8]>,
    // The broker that the worker belongs to.
    broker: u64,
    // No turn was cut short by a panic: what such a one left is not for the
    // next connection.
    whole: bool,
}

thread_local! {
    static LOCAL: RefCell<Option<Local>> = const { RefCell::new(None) };
}

/// Runs `turn` with this thread's worker, and wakes whom it touched.
///
/// # Panics
/// When called within itself.
pub fn with_worker<R>(shared: &Shared, turn: impl FnOnce(&mut Local) -> R) -> R {
    LOCAL.with_borrow_mut(|local| {
        // A caller's thread may have served another broker before, whose
        // receivers mean nothing here.
        let local = match local {
            Some(local) if local.broker == shared.number && local.whole => local,
            other => other.insert(Local::new(shared)),
        };
        local.whole = false;
        let result = turn(local);
        local.worker.effects.wake_all();
        local.whole = true;
        result
    })
}

impl Local {
    fn new(shared: &Shared) -> Local {
        Local {
            worker: Worker::new(&shared.core),
            buffer: vec![0; READ_MAX].into_boxed_slice(),
            broker: shared.number,
            whole: true,
        }
    }
}
