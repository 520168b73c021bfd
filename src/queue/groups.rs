//! Groups: jobs that belong together.
//!
//! Owns which jobs wait behind another one of their group, and which member
//! had a group last. Under `fair` a group has a lane of its own for each
//! priority, and nothing waits behind anything.

use ahash::RandomState;
use hashbrown::HashMap;
use slab::Slab;

use super::jobs::Lane;
use super::list::{Linked, Links};

/// Groups share so many places in which a member is remembered.
const BUCKETS: usize = 256;

pub(super) struct Groups {
    pub slab: Slab<Group>,
    by_name: HashMap<Name, u32, RandomState>,
    /// A member and its first lease, by bucket.
    sticky: Option<Box<[(u32, u64); BUCKETS]>>,
    /// Jobs that wait behind another one.
    pub behind: usize,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Name {
    text: Box<str>,
    /// Under `fair`, that of its lane; [`ANY`] of the group itself.
    priority: u8,
}

const ANY: u8 = u8::MAX;

pub(super) struct Group {
    name: Name,
    /// Those that wait; under `fair` those of one priority that are ready.
    pub lane: Lane,
    /// The one of its jobs that is out.
    pub out: Option<u32>,
    bucket: u8,
    /// Jobs in memory that are of it.
    jobs: usize,
    /// In the round of its priority.
    links: Links,
}

impl Group {
    /// The next one in the round.
    pub fn next(&self) -> Option<u32> {
        self.links.next()
    }
}

impl Linked for Group {
    fn links(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl Groups {
    pub fn new() -> Groups {
        Groups {
            slab: Slab::new(),
            // Clients choose the names.
            by_name: HashMap::with_hasher(RandomState::new()),
            sticky: None,
            behind: 0,
        }
    }

    pub fn get(&self, group: u32) -> &Group {
        &self.slab[group as usize]
    }

    pub fn get_mut(&mut self, group: u32) -> &mut Group {
        &mut self.slab[group as usize]
    }

    /// A job is of that group from now on, until [`Groups::leave`]. Under
    /// `fair` of that in its priority, and every job is of one.
    pub fn join(&mut self, text: &str, fair: Option<u8>) -> u32 {
        let name = Name {
            text: text.into(),
            priority: fair.unwrap_or(ANY),
        };
        let group = self.by_name.get(&name).copied().unwrap_or_else(|| {
            let group = self.slab.insert(Group {
                lane: Lane::default(),
                out: None,
                bucket: FIXED.hash_one(text) as u8,
                jobs: 0,
                links: Links::NONE,
                name: name.clone(),
            }) as u32; // There are no more than jobs.
            self.by_name.insert(name, group);
            group
        });
        self.get_mut(group).jobs += 1;
        group
    }

    /// Its name; empty under `fair` for jobs that are in none.
    pub fn name(&self, group: u32) -> &str {
        &self.get(group).name.text
    }

    /// A job of it is no more.
    pub fn leave(&mut self, group: u32) {
        let of = self.get_mut(group);
        of.jobs -= 1;
        if of.jobs == 0 {
            let group = self.slab.remove(group as usize);
            self.by_name.remove(&group.name);
        }
    }

    /// Which member had the last job of the group, and its first lease.
    pub fn sticky(&self, group: u32) -> Option<(u32, u64)> {
        let sticky = self.sticky.as_ref()?;
        Some(sticky[usize::from(self.get(group).bucket)])
            .filter(|(_, first_lease)| *first_lease > 0)
    }

    pub fn stick(&mut self, group: u32, member: (u32, u64)) {
        let bucket = usize::from(self.get(group).bucket);
        let sticky = self
            .sticky
            .get_or_insert_with(|| Box::new([(0, 0); BUCKETS]));
        sticky[bucket] = member;
    }

    /// Gives back memory.
    pub fn shrink(&mut self) {
        if self.slab.is_empty() {
            self.slab = Slab::new();
            self.by_name.shrink_to_fit();
        }
    }
}

/// Buckets are the same in every run, so that a run can be repeated.
const FIXED: RandomState = RandomState::with_seeds(1, 2, 3, 4);
