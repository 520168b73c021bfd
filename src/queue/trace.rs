//! What happened to jobs: a queue's last events, and what is counted from
//! moment to moment, for who asks where a message is and how it goes.
//!
//! Owns a ring of events and two samples of the totals. Has no clock: the
//! moment is told with [`Queue::at`] before anything happens. A queue that was
//! never used has none of it.

use std::collections::VecDeque;
use std::time::Duration;

use super::{DeadReason, Queue, Rules, Totals};
use crate::message::{ClientId, LeaseId, MessageId, Time};

/// Rates are those of the last one or two of these spans.
const SAMPLED_EVERY: Duration = Duration::from_secs(5);
/// Events that a ring begins with room for.
const EVENTS_MIN: usize = 16;

/// What happened to a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It was put in.
    Stored,
    /// The session of this client took it.
    Delivered(ClientId),
    TimedOut,
    /// With its member's connection or session.
    Lost,
    /// Its member refused it.
    Failed,
    Busy,
    Done,
    Dead(DeadReason),
    Expired,
    /// For want of room, or by a purge.
    Dropped,
    /// By a younger one with the same key.
    Replaced,
    /// To another queue.
    Moved,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// They are numbered from 1, in the order in which they happened.
    pub number: u64,
    pub at: Time,
    pub message: MessageId,
    pub what: What,
}

/// Jobs that came, and that were done, a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    pub enqueued: f64,
    pub done: f64,
}

/// What a queue remembers of what it did.
#[derive(Default)]
pub(super) struct Trace {
    moment: Time,
    kept: Option<Box<Kept>>,
}

struct Kept {
    events: VecDeque<(Time, MessageId, What)>,
    /// The number of the first of them.
    first: u64,
    /// The older one first.
    samples: [Sample; 2],
}

#[derive(Clone, Copy)]
struct Sample {
    at: Time,
    enqueued: u64,
    done: u64,
}

impl Sample {
    fn of(totals: &Totals, at: Time) -> Sample {
        Sample {
            at,
            enqueued: totals.enqueued,
            done: totals.done,
        }
    }
}

impl Kept {
    fn push(&mut self, event: (Time, MessageId, What), events_max: usize) {
        while self.events.len() >= events_max.max(1) {
            self.events.pop_front();
            self.first += 1;
        }
        // By doubling, but no further than to the bound.
        if self.events.len() == self.events.capacity() {
            let more = self.events.len().max(EVENTS_MIN);
            let more = more.min(events_max - self.events.len());
            self.events.reserve_exact(more);
        }
        match events_max {
            0 => self.first += 1,
            _ => self.events.push_back(event),
        }
    }
}

impl Queue {
    /// What happens from now on happens at this moment.
    pub fn at(&mut self, now: Time) {
        self.trace.moment = now;
        if let Some(kept) = &mut self.trace.kept
            && now >= kept.samples[1].at + SAMPLED_EVERY
        {
            kept.samples = [kept.samples[1], Sample::of(&self.totals, now)];
        }
    }

    /// Records what happened to a job that is still there.
    #[inline]
    pub(super) fn trace(&mut self, key: u32, what: What) {
        self.trace_message(self.jobs[key as usize].message.id(), what);
    }

    /// Records what happened to a message that may not be in memory.
    pub(super) fn trace_message(&mut self, message: MessageId, what: What) {
        if self.settings.rules == Rules::Share {
            return;
        }
        let now = self.trace.moment;
        let events_max = self.settings.trace_events_max;
        let kept = self.trace.kept.get_or_insert_with(|| {
            let sample = Sample::of(&self.totals, now);
            Box::new(Kept {
                events: VecDeque::new(),
                first: 1,
                samples: [sample, sample],
            })
        });
        kept.push((now, message, what), events_max);
    }

    /// The client's session took a lease.
    pub fn delivered(&mut self, id: LeaseId, client: &ClientId) {
        if self.settings.trace_events_max > 0 {
            self.trace(id.job, What::Delivered(client.clone()));
        }
    }

    /// How fast it goes, at the moment that was told last.
    pub fn rates(&self) -> Rates {
        let Some(kept) = &self.trace.kept else {
            return Rates::default();
        };
        let [first, _] = kept.samples;
        let span = self.trace.moment.since(first.at);
        let secs = span.max(Duration::from_secs(1)).as_secs_f64();
        Rates {
            enqueued: (self.totals.enqueued - first.enqueued) as f64 / secs,
            done: (self.totals.done - first.done) as f64 / secs,
        }
    }

    /// Events from this number on, `count` at most, and the number of the
    /// next one.
    pub fn events(&self, from: u64, count: usize) -> (Vec<Event>, u64) {
        let Some(kept) = &self.trace.kept else {
            return (Vec::new(), 1);
        };
        let skipped = usize::try_from(from.saturating_sub(kept.first)).unwrap_or(usize::MAX);
        let numbered = (kept.first..).zip(&kept.events);
        let found: Vec<Event> = numbered.skip(skipped).take(count).map(event).collect();
        let end = kept.first + kept.events.len() as u64;
        let next = found.last().map_or(end, |last| last.number + 1);
        (found, next)
    }

    /// The events of one message.
    pub fn events_of(&self, message: MessageId) -> Vec<Event> {
        let Some(kept) = &self.trace.kept else {
            return Vec::new();
        };
        let numbered = (kept.first..).zip(&kept.events);
        numbered
            .filter(|(_, (_, of, _))| *of == message)
            .map(event)
            .collect()
    }
}

fn event((number, (at, message, what)): (u64, &(Time, MessageId, What))) -> Event {
    Event {
        number,
        at: *at,
        message: *message,
        what: what.clone(),
    }
}
