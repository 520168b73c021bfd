//! A queue that holds nothing, in little memory: there may be a million of them.

use std::sync::Arc;

use super::packed::{Packed, pack};
use super::stored::{Keeping, Source};
use super::trace::Trace;
use super::{Queue, Settings, Totals};
use crate::config::Durability;
use crate::journal::ListId;

/// What is left of a queue that has no jobs, no members and nothing to
/// remember for a time; [`Queue::from`] has it go on.
pub struct Dormant {
    settings: Arc<Settings>,
    /// `None`: it does not outlive the broker.
    durability: Option<Durability>,
    is_paused: bool,
    list: ListId,
    /// Its lists but for that one, and of which kind each is.
    others: Box<[(u8, ListId)]>,
    next_sequence: u64,
    next_lease: u64,
    /// The totals and what happened last; empty: nothing ever did.
    packed: Box<[u8]>,
}

impl Queue {
    /// Whether [`Queue::lie_down`] takes little time and pays.
    pub fn is_light(&self) -> bool {
        self.trace.is_light()
    }

    /// Whether [`Queue::lie_down`] may be called.
    #[inline]
    pub fn is_dormant(&self) -> bool {
        // In most queues the first look tells.
        self.rota.members.is_empty() && self.messages == 0 && self.has_nothing()
    }

    fn has_nothing(&self) -> bool {
        self.jobs.is_empty()
            && self.once.is_none()
            && self.dead.is_empty()
            && self.finished.is_empty()
            && !self.is_purged
            && self
                .keeping
                .as_ref()
                .is_none_or(|keeping| keeping.is_bare())
    }

    /// What is left of a queue that [`Queue::is_dormant`]; it is empty from now
    /// on, and is not to be used again.
    pub fn lie_down(&mut self) -> Dormant {
        let keeping = self.keeping.take();
        let lists: Vec<(u8, ListId)> = keeping.as_ref().map_or_else(Vec::new, |keeping| {
            let sources = keeping.sources.iter();
            sources.map(|source| (source.kind, source.list)).collect()
        });
        let mut packed = Vec::new();
        if self.totals != Totals::default() {
            self.totals.for_each(|total| pack(*total, &mut packed));
            self.trace.pack(&mut packed);
        }
        Dormant {
            settings: self.settings.clone(),
            durability: keeping.as_ref().map(|keeping| keeping.durability),
            is_paused: self.is_paused,
            list: lists.first().map_or(ListId(0), |(_, list)| *list),
            others: lists.get(1..).unwrap_or_default().into(),
            next_sequence: self.next_sequence,
            next_lease: self.next_lease,
            packed: packed.into(),
        }
    }
}

impl Dormant {
    /// What happened so far.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        if !self.packed.is_empty() {
            let mut packed = Packed(&self.packed);
            totals.for_each(|total| *total = packed.number());
        }
        totals
    }
}

impl From<Dormant> for Queue {
    fn from(dormant: Dormant) -> Queue {
        let mut queue = Queue::new(dormant.settings);
        queue.is_paused = dormant.is_paused;
        queue.next_sequence = dormant.next_sequence;
        queue.next_lease = dormant.next_lease;
        if !dormant.packed.is_empty() {
            let mut packed = Packed(&dormant.packed);
            queue.totals.for_each(|total| *total = packed.number());
            queue.trace = Trace::unpack(packed);
        }
        queue.keeping = dormant.durability.map(|durability| {
            let mut keeping = Keeping::new(dormant.list, durability);
            let others = dormant.others.iter();
            keeping
                .sources
                .extend(others.map(|&(kind, list)| Source::new(kind, list)));
            // All that there was is done.
            for source in &mut keeping.sources {
                source.unread_from = dormant.next_sequence;
            }
            Box::new(keeping)
        });
        queue
    }
}
