//! What happened to jobs: a queue's last events, and what is counted from
//! moment to moment, for who asks where a message is and how it goes.
//!
//! Owns a ring of events and two samples of the totals. Has no clock: the
//! moment is told with [`Queue::at`] before anything happens. A queue that was
//! never used has none of it.

use std::borrow::Cow;
use std::time::Duration;

use slab::Slab;

use super::packed::{Packed, pack, pack_near, pack_text};
use super::{DeadReason, Queue, Rules, Totals};
use crate::message::{ClientId, LeaseId, MessageId, Time};

/// Rates are those of the last one or two of these spans.
const SAMPLED_EVERY: Duration = Duration::from_secs(5);
/// So few events are packed in no time.
const LIGHT_EVENTS: usize = 64;
/// Events that a ring begins with room for.
const EVENTS_MIN: usize = 16;

/// What happened to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It was put in.
    Stored,
    /// A member's session took it.
    Delivered,
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
    /// To whom it was delivered.
    pub client: Option<ClientId>,
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
    /// In place of it, until something happens, of a queue that was dormant: it
    /// may only be looked at.
    packed: Box<[u8]>,
}

#[derive(Clone)]
struct Kept {
    events: Vec<Entry>,
    /// Where the first of them is: when there are enough, it makes room for the
    /// next.
    oldest: usize,
    /// The number of the first.
    first: u64,
    clients: Clients,
    /// The older one first.
    samples: [Sample; 2],
}

/// An event as the ring has it: a job leaves three, and a ring that is small
/// stays in the processor's cache.
#[derive(Clone)]
struct Entry {
    at: Time,
    message: MessageId,
    what: What,
    /// Among the [`Clients`], of [`What::Delivered`].
    client: u32,
}

const _: () = assert!(size_of::<Entry>() == 24);

/// Of an event that has none.
const NO_CLIENT: u32 = u32::MAX;

/// The clients of the events in a ring, each once: to share a name with its
/// connection for each event would have two processors write the same line.
#[derive(Clone, Default)]
struct Clients {
    /// And in how many events each is.
    known: Slab<(ClientId, u32)>,
}

impl Clients {
    /// The number of a client that may have had this one before.
    fn note(&mut self, client: &ClientId, before: u32) -> u32 {
        match self.known.get_mut(before as usize) {
            Some((known, events)) if known.is_same(client) => {
                *events += 1;
                before
            }
            _ => self.known.insert((client.clone(), 1)) as u32,
        }
    }

    fn name(&self, number: u32) -> Option<ClientId> {
        let (client, _) = self.known.get(number as usize)?;
        Some(client.clone())
    }

    fn forget(&mut self, number: u32) {
        if let Some((_, events)) = self.known.get_mut(number as usize) {
            *events -= 1;
            if *events == 0 {
                self.known.remove(number as usize);
            }
        }
    }
}

/// What there is to happen, by number where it is packed.
const WHATS: [What; 16] = [
    What::Stored,
    What::Delivered,
    What::TimedOut,
    What::Lost,
    What::Failed,
    What::Busy,
    What::Done,
    What::Dead(DeadReason::MaxDeliveries),
    What::Dead(DeadReason::Rejected),
    What::Dead(DeadReason::Expired),
    What::Dead(DeadReason::Overflow),
    What::Dead(DeadReason::Undecided),
    What::Expired,
    What::Dropped,
    What::Replaced,
    What::Moved,
];

impl Trace {
    /// With few events.
    pub fn is_light(&self) -> bool {
        let kept = self.kept.as_ref();
        kept.is_none_or(|kept| kept.events.len() <= LIGHT_EVENTS)
    }

    /// All but the rates.
    pub fn pack(&self, out: &mut Vec<u8>) {
        match &self.kept {
            Some(kept) => kept.pack(out),
            None => out.extend_from_slice(&self.packed),
        }
    }

    pub fn unpack(packed: Packed<'_>) -> Trace {
        Trace {
            packed: packed.0.into(),
            ..Trace::default()
        }
    }

    fn kept(&self) -> Option<Cow<'_, Kept>> {
        match &self.kept {
            Some(kept) => Some(Cow::Borrowed(kept)),
            None if self.packed.is_empty() => None,
            None => Some(Cow::Owned(Kept::unpack(&self.packed))),
        }
    }

    fn kept_mut(&mut self, totals: &Totals) -> &mut Kept {
        self.kept.get_or_insert_with(|| {
            let packed = std::mem::take(&mut self.packed);
            Box::new(match packed.is_empty() {
                true => Kept::new(self.moment, totals),
                false => Kept {
                    samples: [Sample::of(totals, self.moment); 2],
                    ..Kept::unpack(&packed)
                },
            })
        })
    }
}

impl Kept {
    fn pack(&self, out: &mut Vec<u8>) {
        pack(self.first, out);
        // Each client once.
        let mut clients: Vec<u32> = self.events.iter().map(|entry| entry.client).collect();
        clients.sort_unstable();
        clients.dedup();
        clients.retain(|client| *client != NO_CLIENT);
        pack(clients.len() as u64, out);
        for client in &clients {
            let name = self.clients.name(*client);
            pack_text(name.as_ref().map_or("", ClientId::as_str), out);
        }
        let (mut at, mut message) = (0, 0);
        for (_, entry) in self.numbered() {
            pack_near(entry.at.as_micros(), &mut at, out);
            pack_near(entry.message.0, &mut message, out);
            let what = WHATS.iter().position(|what| *what == entry.what);
            pack(what.map_or(0, |what| what as u64), out);
            if entry.what == What::Delivered {
                let client = clients.binary_search(&entry.client);
                pack(client.map_or(0, |client| client as u64), out);
            }
        }
    }

    fn unpack(packed: &[u8]) -> Kept {
        let mut packed = Packed(packed);
        let mut kept = Kept::new(Time::ZERO, &Totals::default());
        kept.first = packed.number();
        let names = (0..packed.number()).map(|_| packed.text());
        let names: Vec<ClientId> = names.map(|name| ClientId::new(&name)).collect();
        let mut numbers = vec![NO_CLIENT; names.len()];
        let (mut at, mut message) = (0, 0);
        while !packed.0.is_empty() {
            let at = Time::from_micros(packed.near(&mut at));
            let message = MessageId(packed.near(&mut message));
            let what = WHATS[packed.number() as usize % WHATS.len()];
            let mut client = NO_CLIENT;
            if what == What::Delivered {
                let of = packed.number() as usize;
                if let Some((name, number)) = names.get(of).zip(numbers.get_mut(of)) {
                    *number = kept.clients.note(name, *number);
                    client = *number;
                }
            }
            kept.events.push(Entry {
                at,
                message,
                what,
                client,
            });
        }
        kept
    }
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
    fn new(now: Time, totals: &Totals) -> Kept {
        Kept {
            events: Vec::new(),
            oldest: 0,
            first: 1,
            clients: Clients::default(),
            samples: [Sample::of(totals, now); 2],
        }
    }

    /// `events_max`: above 0.
    #[inline]
    fn push(&mut self, entry: Entry, events_max: usize) {
        if self.events.len() != events_max {
            return self.push_and_fit(entry, events_max);
        }
        let oldest = std::mem::replace(&mut self.events[self.oldest], entry);
        self.oldest += 1;
        if self.oldest == events_max {
            self.oldest = 0;
        }
        self.drop_oldest(&oldest);
    }

    /// As `push`, into a ring that has more or fewer.
    #[inline(never)]
    fn push_and_fit(&mut self, entry: Entry, events_max: usize) {
        self.events.rotate_left(self.oldest);
        self.oldest = 0;
        let too_many = (self.events.len() + 1).saturating_sub(events_max);
        for oldest in self.events.drain(..too_many).collect::<Vec<_>>() {
            self.drop_oldest(&oldest);
        }
        // By doubling, but no further than to the bound.
        if self.events.len() == self.events.capacity() {
            let more = self.events.len().max(EVENTS_MIN);
            let more = more.min(events_max - self.events.len());
            self.events.reserve_exact(more);
        }
        self.events.push(entry);
    }

    /// With the one that is not even noted.
    fn forget_all(&mut self) {
        self.first += self.events.len() as u64 + 1;
        (self.events, self.oldest) = (Vec::new(), 0);
        self.clients = Clients::default();
    }

    fn drop_oldest(&mut self, oldest: &Entry) {
        self.first += 1;
        if oldest.client != NO_CLIENT {
            self.clients.forget(oldest.client);
        }
    }

    fn numbered(&self) -> impl Iterator<Item = (u64, &Entry)> {
        let (last, first) = self.events.split_at(self.oldest);
        (self.first..).zip(first.iter().chain(last))
    }

    fn event(&self, (number, entry): (u64, &Entry)) -> Event {
        Event {
            number,
            at: entry.at,
            message: entry.message,
            what: entry.what,
            client: self.clients.name(entry.client),
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
        self.trace_with(message, what, |_| NO_CLIENT);
    }

    fn trace_with(
        &mut self,
        message: MessageId,
        what: What,
        client: impl FnOnce(&mut Clients) -> u32,
    ) {
        let events_max = self.settings.trace_events_max;
        if self.settings.rules == Rules::Share {
            return;
        }
        let at = self.trace.moment;
        let kept = self.trace.kept_mut(&self.totals);
        if events_max == 0 {
            kept.forget_all();
        } else {
            let client = client(&mut kept.clients);
            let entry = Entry {
                at,
                message,
                what,
                client,
            };
            kept.push(entry, events_max);
        }
    }

    /// The client's session took a lease.
    pub fn delivered(&mut self, id: LeaseId, client: &ClientId) {
        if self.settings.rules == Rules::Share {
            return; // Of its jobs nothing is recorded.
        }
        let message = self.jobs[id.job as usize].message.id();
        let mut number = self.rota.members[id.member as usize].traced;
        self.trace_with(message, What::Delivered, |clients| {
            number = clients.note(client, number);
            number
        });
        self.rota.members[id.member as usize].traced = number;
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
        let Some(kept) = self.trace.kept() else {
            return (Vec::new(), 1);
        };
        let skipped = usize::try_from(from.saturating_sub(kept.first)).unwrap_or(usize::MAX);
        let found = kept.numbered().skip(skipped).take(count);
        let found: Vec<Event> = found.map(|entry| kept.event(entry)).collect();
        let end = kept.first + kept.events.len() as u64;
        let next = found.last().map_or(end, |last| last.number + 1);
        (found, next)
    }

    /// The events of one message.
    pub fn events_of(&self, message: MessageId) -> Vec<Event> {
        let Some(kept) = self.trace.kept() else {
            return Vec::new();
        };
        let of_it = kept.numbered();
        let of_it = of_it.filter(|(_, entry)| entry.message == message);
        of_it.map(|entry| kept.event(entry)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_has_the_last_events_whatever_its_bound_becomes() {
        let mut kept = Kept::new(Time::ZERO, &Totals::default());
        let clients = ["a", "b", "c"].map(ClientId::new);
        let (mut number, mut last) = (0, NO_CLIENT);
        for (events_max, pushes, kept_of_them) in [(4, 10, 4), (2, 1, 2), (6, 3, 5), (6, 9, 6)] {
            for _ in 0..pushes {
                number += 1;
                last = kept.clients.note(&clients[number as usize % 3], last);
                let entry = Entry {
                    at: Time::ZERO,
                    message: MessageId(number),
                    what: What::Delivered,
                    client: last,
                };
                kept.push(entry, events_max);
            }
            let events: Vec<Event> = kept.numbered().map(|entry| kept.event(entry)).collect();
            let numbers: Vec<u64> = events.iter().map(|event| event.number).collect();
            let wanted: Vec<u64> = (number - kept_of_them + 1..=number).collect();
            assert_eq!(numbers, wanted);
            for event in &events {
                assert_eq!(event.message.0, event.number);
                let client = &clients[event.number as usize % 3];
                assert_eq!(event.client.as_ref(), Some(client));
            }
            assert!(kept.clients.known.len() <= events.len());
            let mut packed = Vec::new();
            kept.pack(&mut packed);
            let unpacked = Kept::unpack(&packed);
            let again = unpacked.numbered().map(|entry| unpacked.event(entry));
            assert!(again.eq(events));
        }
        kept.forget_all();
        assert_eq!((kept.first, kept.numbered().count()), (number + 2, 0));
    }
}
