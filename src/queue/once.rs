//! What a queue remembers of its jobs by what they say of themselves: ids of
//! those that are not to be put in twice, and keys of those that replace one
//! another.

use std::collections::BTreeSet;
use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashMap;

use crate::message::{MessageId, Time};

/// Ids of messages, each for a time.
pub(super) struct Once {
    by_id: HashMap<Arc<str>, (MessageId, Time), RandomState>,
    /// By the end of their times.
    order: BTreeSet<(Time, Arc<str>)>,
}

impl Once {
    /// More ids are not remembered, and their messages refused.
    pub const IDS_MAX: usize = 1_000_000;

    pub fn new() -> Once {
        Once {
            by_id: HashMap::with_hasher(RandomState::new()),
            order: BTreeSet::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Which message had that id, until a time after `now`.
    pub fn find(&self, id: &str, now: Time) -> Option<MessageId> {
        let &(message, until) = self.by_id.get(id)?;
        (until > now).then_some(message)
    }

    pub fn remember(&mut self, id: &str, message: MessageId, until: Time) {
        let id: Arc<str> = id.into();
        if let Some((_, before)) = self.by_id.insert(id.clone(), (message, until)) {
            self.order.remove(&(before, id.clone()));
        }
        self.order.insert((until, id));
    }

    /// Takes one away whose time is over.
    pub fn pop_over(&mut self, now: Time) -> Option<Arc<str>> {
        let (until, _) = self.order.first()?;
        if *until > now {
            return None;
        }
        let (_, id) = self.order.pop_first()?;
        self.by_id.remove(&id);
        Some(id)
    }

    /// When the first is forgotten.
    pub fn next_over(&self) -> Option<Time> {
        self.order.first().map(|(until, _)| *until)
    }
}

/// Jobs that wait, by key, and the keys of those that a member has.
pub(super) struct Keys {
    waiting: HashMap<Arc<str>, u32, RandomState>,
    of: rustc_hash::FxHashMap<u32, Arc<str>>,
}

impl Keys {
    pub fn new() -> Keys {
        Keys {
            waiting: HashMap::with_hasher(RandomState::new()),
            of: rustc_hash::FxHashMap::default(),
        }
    }

    /// The job has that key for good.
    pub fn name(&mut self, job: u32, key: &str) {
        self.of.insert(job, key.into());
    }

    /// The job is no more.
    pub fn forget(&mut self, job: u32) {
        self.stop_waiting(job);
        self.of.remove(&job);
    }

    /// Which job with the same key waits.
    pub fn rival(&self, job: u32) -> Option<u32> {
        let key = self.of.get(&job)?;
        self.waiting.get(key).copied().filter(|other| *other != job)
    }

    pub fn wait(&mut self, job: u32) {
        if let Some(key) = self.of.get(&job) {
            self.waiting.insert(key.clone(), job);
        }
    }

    pub fn stop_waiting(&mut self, job: u32) {
        if let Some(key) = self.of.get(&job)
            && self.waiting.get(key) == Some(&job)
        {
            self.waiting.remove(key);
        }
    }
}
