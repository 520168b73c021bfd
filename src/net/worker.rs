//! What each thread of the runtime keeps for itself: the broker's worker and a
//! buffer to read into.

use std::cell::RefCell;
use std::time::Duration;

use super::{Clock, Shared};
use crate::broker::Worker;
use crate::message::Time;

/// Read at once at most, in bytes.
pub const READ_MAX: usize = 64 << 10;

/// Of one in so many writes it is measured how long its messages took, as reading
/// the clock costs something;
const MEASURED_EVERY: u32 = 16;
/// and of the first after so long without.
const MEASURED_AFTER: Duration = Duration::from_millis(100);

/// The thread's own.
pub struct Local {
    pub worker: Worker,
    pub buffer: Box<[u8]>,
    // The broker that the worker belongs to.
    broker: u64,
    // That had messages; and from when on the next is measured in any case.
    writes: u32,
    measured_from: Time,
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
            writes: 0,
            measured_from: Time::ZERO,
            whole: true,
        }
    }

    /// Messages were written, the first of which the broker took up then.
    #[inline]
    pub fn note_written(&mut self, since: Time, clock: &Clock) {
        self.writes = self.writes.wrapping_add(1);
        if self.writes.is_multiple_of(MEASURED_EVERY) || since >= self.measured_from {
            self.measure(since, clock);
        }
    }

    #[inline(never)]
    fn measure(&mut self, since: Time, clock: &Clock) {
        let now = clock.now();
        self.measured_from = now + MEASURED_AFTER;
        let tally = &self.worker.effects.tally;
        tally.note_latency(now.since(since));
    }
}
