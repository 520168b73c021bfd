//! How much is in the queues, for whoever draws it: all of them, again and
//! again, a page at a time. Wakes none that lies down.

use crate::broker::Core;
use crate::message::Time;

/// What is in a queue at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Depth<'a> {
    /// Without `$queue/`; that of dead letters begins with `$dead/`.
    pub name: &'a str,
    pub ready: usize,
    pub in_flight: usize,
    pub delayed: usize,
    /// When the broker received the first of those that are ready.
    pub oldest: Option<Time>,
    /// Put in and done a second, of late.
    pub rate: f64,
}

impl Core {
    /// Shows the queues that something goes on in, of those in `places_max` places
    /// from `from` on; where to go on, if there are more. `see` runs under the
    /// queue's lock.
    pub fn see_depths(
        &self,
        from: u32,
        places_max: u32,
        now: Time,
        mut see: impl FnMut(&Depth<'_>),
    ) -> Option<u32> {
        let until = from.saturating_add(places_max);
        for slot in from..until.min(self.lists.end()) {
            let Some((_, mut list)) = self.lists.lock_slot(slot) else {
                continue;
            };
            if !list.is_work() || list.body.active.get().is_none() {
                continue;
            }
            list.queue.at(now);
            let (counts, rates) = (list.queue.counts(), list.queue.rates());
            if let Some(name) = list.queue_name() {
                see(&Depth {
                    name,
                    ready: counts.ready,
                    in_flight: counts.in_flight,
                    delayed: counts.delayed,
                    oldest: counts.oldest,
                    rate: rates.enqueued + rates.done,
                });
            }
        }
        (until < self.lists.end()).then_some(until)
    }

    /// Whether there is a queue of that name, without `$queue/`.
    pub fn has_queue(&self, name: &str) -> bool {
        self.list_named(&format!("$queue/{name}")).is_some()
    }
}
