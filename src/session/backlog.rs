//! Retained messages still to be sent for new subscriptions.
//!
//! Owns which subscriptions, in which order, and how far each has come: a page
//! at a time is sent, so that a million messages take neither memory nor
//! anybody's turn. A subscription is in it once at most, however often it is
//! made, so that it is no larger than what subscriptions are limited to.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::Granted;

/// All of a session; most have none, and pay a word for it.
#[derive(Default)]
pub struct Backlog(Option<Box<All>>);

#[derive(Default)]
struct All {
    // In the order of their subscriptions.
    pending: BTreeMap<u64, Pending>,
    // Where each is, by its filter's number in the topic tree.
    places: FxHashMap<u32, u64>,
    next: u64,
}

/// What is to be sent for one subscription.
pub struct Pending {
    /// The filter, by its number in the topic tree.
    pub node: u32,
    pub granted: Granted,
    /// Not what the client itself published.
    pub no_local: bool,
    /// Where to go on; `None`: at the beginning.
    pub position: Option<Box<[u8]>>,
}

impl Backlog {
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|all| all.pending.is_empty())
    }

    /// A filter was subscribed to, or was so again: all of it is to be sent.
    pub fn push(&mut self, node: u32, granted: Granted, no_local: bool) {
        self.remove(node);
        let all = self.0.get_or_insert_default();
        let pending = Pending {
            node,
            granted,
            no_local,
            position: None,
        };
        all.pending.insert(all.next, pending);
        all.places.insert(node, all.next);
        all.next += 1;
    }

    /// The subscription was replaced: if something is still to be sent for it,
    /// then on its new terms.
    pub fn update(&mut self, node: u32, granted: Granted, no_local: bool) {
        let Some(all) = &mut self.0 else {
            return;
        };
        let place = all.places.get(&node);
        if let Some(pending) = place.and_then(|place| all.pending.get_mut(place)) {
            pending.granted = granted;
            pending.no_local |= no_local; // Nothing is sent for it that was not to be.
        }
    }

    /// What is to be sent next.
    pub fn first(&mut self) -> Option<&mut Pending> {
        let first = self.0.as_mut()?.pending.first_entry()?;
        Some(first.into_mut())
    }

    /// Nothing more for this filter.
    pub fn remove(&mut self, node: u32) {
        let Some(all) = &mut self.0 else {
            return;
        };
        if let Some(place) = all.places.remove(&node) {
            all.pending.remove(&place);
        }
        if all.pending.is_empty() {
            self.0 = None;
        }
    }
}
