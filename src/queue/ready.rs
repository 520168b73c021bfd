//! Jobs that may be given now, and which of them is the next.
//!
//! Owns the lanes by priority, the rounds of groups under `fair`, and those
//! jobs that go to empty hands only.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use slab::Slab;

use super::groups::Groups;
use super::jobs::{Job, Lane};
use super::list::List;

#[derive(Default)]
pub(super) struct Ready {
    /// The highest priority first; most queues have jobs of one.
    lanes: Vec<PriorityLane>,
    /// To be given to empty hands, by place in the order.
    alone: BTreeMap<(Reverse<u8>, u64), u32>,
    len: usize,
    /// Of these, those that are of a group.
    grouped: usize,
}

struct PriorityLane {
    priority: u8,
    len: usize,
    lane: Lane,
    /// Groups that have jobs here, under `fair`.
    round: List,
}

impl PriorityLane {
    /// The sequence of the oldest, and its key.
    fn oldest(&self, jobs: &Slab<Job>, groups: Option<&Groups>) -> Option<(u64, u32)> {
        let Some(groups) = groups else {
            return self.lane.first(jobs);
        };
        let round = std::iter::successors(self.round.first(), |group| groups.get(*group).next());
        let firsts = round.filter_map(|group| groups.get(group).lane.first(jobs));
        firsts.min()
    }
}

impl Ready {
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many are of groups.
    pub fn grouped_len(&self) -> usize {
        self.grouped
    }

    /// How many are of that priority.
    pub fn len_of(&self, priority: u8) -> usize {
        let mut lanes = self.lanes.iter();
        let lane = lanes.find(|lane| lane.priority == priority);
        lane.map_or(0, |lane| lane.len)
    }

    /// How many are of that priority or a higher one.
    pub fn len_from(&self, priority: u8) -> usize {
        let lanes = self.lanes.iter();
        let lanes = lanes.take_while(|lane| lane.priority >= priority);
        lanes.map(|lane| lane.len).sum()
    }

    fn lane(&mut self, priority: u8) -> &mut PriorityLane {
        // Most often there is one.
        let is_first = |lane: &PriorityLane| lane.priority == priority;
        if self.lanes.first().is_some_and(is_first) {
            return &mut self.lanes[0];
        }
        let at = self.lanes.partition_point(|lane| lane.priority > priority);
        if self
            .lanes
            .get(at)
            .is_none_or(|lane| lane.priority != priority)
        {
            let lane = PriorityLane {
                priority,
                len: 0,
                lane: Lane::default(),
                round: List::EMPTY,
            };
            self.lanes.insert(at, lane);
        }
        &mut self.lanes[at]
    }

    /// Puts a job in: `fresh`, if it is younger than all of its priority and
    /// leaves by its turn. `groups`: under `fair`.
    pub fn put(&mut self, jobs: &Slab<Job>, key: u32, fresh: bool, groups: Option<&mut Groups>) {
        let job = &jobs[key as usize];
        self.len += 1;
        self.grouped += usize::from(job.group != Job::NO_GROUP);
        if job.is_alone() {
            self.alone
                .insert((Reverse(job.priority), job.sequence), key);
            return;
        }
        let lane = self.lane(job.priority);
        lane.len += 1;
        let of = match groups {
            None => &mut lane.lane,
            Some(groups) => {
                if groups.get(job.group).lane.is_empty() {
                    lane.round.push_back(&mut groups.slab, job.group);
                }
                &mut groups.get_mut(job.group).lane
            }
        };
        match fresh {
            true => of.push(key),
            false => of.place(job.sequence, key),
        }
    }

    /// Takes a job out that is here.
    pub fn take_out(&mut self, jobs: &Slab<Job>, key: u32, groups: Option<&mut Groups>) {
        let job = &jobs[key as usize];
        self.len -= 1;
        self.grouped -= usize::from(job.group != Job::NO_GROUP);
        if job.is_alone()
            && self
                .alone
                .remove(&(Reverse(job.priority), job.sequence))
                .is_some()
        {
            return;
        }
        let lane = self.lane(job.priority);
        lane.len -= 1;
        match groups {
            None => lane.lane.take_out(jobs, job.sequence),
            Some(groups) => {
                let of = &mut groups.get_mut(job.group).lane;
                of.take_out(jobs, job.sequence);
                if of.is_empty() {
                    lane.round.remove(&mut groups.slab, job.group);
                }
            }
        }
    }

    /// The next, but for those that go to empty hands only.
    pub fn first(&self, jobs: &Slab<Job>, groups: Option<&Groups>) -> Option<u32> {
        let lane = self.lanes.iter().find(|lane| lane.len > 0)?;
        let of = match groups {
            None => &lane.lane,
            Some(groups) => &groups.get(lane.round.first()?).lane,
        };
        Some(of.first(jobs)?.1)
    }

    /// The group had its turn; it goes to the end, if it has more.
    pub fn rotate(&mut self, priority: u8, group: u32, groups: &mut Groups) {
        if !groups.get(group).lane.is_empty() {
            let lane = self.lane(priority);
            lane.round.remove(&mut groups.slab, group);
            lane.round.push_back(&mut groups.slab, group);
        }
    }

    /// The first of those that go to empty hands only, if it comes before all
    /// others that are ready.
    pub fn first_alone(&self, jobs: &Slab<Job>, groups: Option<&Groups>) -> Option<u32> {
        let (&(Reverse(priority), sequence), &key) = self.alone.first_key_value()?;
        let comes_first = match self.first(jobs, groups) {
            None => true,
            Some(other) => {
                let other = &jobs[other as usize];
                (Reverse(priority), sequence) < (Reverse(other.priority), other.sequence)
            }
        };
        comes_first.then_some(key)
    }

    pub fn has_alone(&self) -> bool {
        !self.alone.is_empty()
    }

    /// The oldest of the lowest priority.
    pub fn last_lane_first(&self, jobs: &Slab<Job>, groups: Option<&Groups>) -> Option<u32> {
        let lane = self.lanes.iter().rev().find(|lane| lane.len > 0);
        let ready = lane.and_then(|lane| {
            let (sequence, key) = lane.oldest(jobs, groups)?;
            Some((lane.priority, sequence, key))
        });
        let alone = self.alone.iter();
        let alone = alone.map(|(&(Reverse(priority), sequence), &key)| (priority, sequence, key));
        alone.chain(ready).min().map(|(.., key)| key)
    }

    /// The oldest of all.
    pub fn oldest(&self, jobs: &Slab<Job>, groups: Option<&Groups>) -> Option<u32> {
        let ready = self.lanes.iter().filter(|lane| lane.len > 0);
        let ready = ready.filter_map(|lane| lane.oldest(jobs, groups));
        let alone = self.alone.iter();
        let alone = alone.map(|(&(_, sequence), &key)| (sequence, key));
        ready.chain(alone).min().map(|(_, key)| key)
    }

    /// Gives back the memory of empty lanes.
    pub fn shrink(&mut self) {
        self.lanes.retain(|lane| lane.len > 0);
    }
}
