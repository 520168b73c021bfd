//! How much of everything there is: sessions, queues, and what they hold.
//!
//! Owns nothing. Nobody keeps these sums up to date, as a message would pay for
//! that: who wants them goes round all sessions and lists, a page at a time, with
//! one of them locked at a moment. Wakes no queue that lies down.

use super::Core;
use super::lists::Kind;
use crate::message::Time;
use crate::queue::{Counts, Totals};

/// What there is, as far as it has been counted.
#[derive(Clone, Debug, Default)]
pub struct Census {
    pub sessions: SessionNumbers,
    pub queues: ListNumbers,
    pub groups: ListNumbers,
    /// Messages to ordinary topics that are put off.
    pub put_off: ListNumbers,
    next: Next,
}

/// Where counting goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Sessions(usize),
    Lists(usize),
    Nothing,
}

impl Default for Next {
    fn default() -> Next {
        Next::Sessions(0)
    }
}

/// Of all sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionNumbers {
    pub connected: usize,
    pub absent: usize,
    pub subscriptions: usize,
    /// Packet ids that clients have not answered.
    pub in_flight_out: usize,
    /// Messages of sessions' own that clients have not acknowledged: no jobs, which
    /// their lists count.
    pub kept_in_flight: usize,
    /// QoS 2 messages that clients have not released.
    pub in_flight_in: usize,
    /// Messages that wait for room in a window, or for their client.
    pub waiting: usize,
    /// Of messages that are kept, waiting or in flight.
    pub kept_bytes: usize,
    /// On their way to a socket.
    pub outbox_bytes: usize,
}

/// Of all lists of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListNumbers {
    pub lists: usize,
    pub ready: usize,
    pub in_flight: usize,
    pub delayed: usize,
    pub bytes: usize,
    pub members: usize,
    pub members_connected: usize,
    /// When the first message was received of those that are ready.
    pub oldest: Option<Time>,
    pub totals: Totals,
}

impl ListNumbers {
    /// Those of one list.
    pub fn of(counts: &Counts) -> ListNumbers {
        ListNumbers {
            lists: 1,
            ready: counts.ready,
            in_flight: counts.in_flight,
            delayed: counts.delayed,
            bytes: counts.bytes,
            members: counts.members,
            members_connected: counts.members_connected,
            oldest: counts.oldest,
            totals: counts.totals,
        }
    }

    /// Other lists more.
    pub fn add(&mut self, other: &ListNumbers) {
        self.lists += other.lists;
        self.ready += other.ready;
        self.in_flight += other.in_flight;
        self.delayed += other.delayed;
        self.bytes += other.bytes;
        self.members += other.members;
        self.members_connected += other.members_connected;
        self.oldest = self.oldest.into_iter().chain(other.oldest).min();
        self.totals.add(&other.totals);
    }

    /// Messages that they hold.
    pub fn messages(&self) -> usize {
        self.ready + self.in_flight + self.delayed
    }
}

impl Core {
    /// Counts on, at most so many sessions or lists, and shows each queue with its
    /// name, without `$queue/`. Whether there are more.
    pub fn count_on(
        &self,
        census: &mut Census,
        page_len: usize,
        mut queue: impl FnMut(&str, ListNumbers),
    ) -> bool {
        census.next = match census.next {
            Next::Sessions(from) => {
                let sums = &mut census.sessions;
                let next = self.sessions.visit(from, page_len, |session| {
                    if session.has_ended() {
                        return; // Only its connection has still to see that.
                    }
                    match session.is_connected() {
                        true => sums.connected += 1,
                        false => sums.absent += 1,
                    }
                    sums.subscriptions += session.subscriptions.len();
                    sums.in_flight_out += session.window.in_use();
                    let own = session.window.sent().filter(|sent| sent.job.is_none());
                    sums.kept_in_flight += own.count();
                    sums.in_flight_in += session.received_len();
                    sums.waiting += session.waiting_len();
                    sums.kept_bytes += session.kept_bytes();
                    sums.outbox_bytes += session.outbox_len();
                });
                next.map_or(Next::Lists(0), Next::Sessions)
            }
            Next::Lists(from) => {
                let next = self.lists.visit(from, page_len, |list| {
                    let numbers = ListNumbers::of(&list.counts());
                    match list.kind() {
                        Kind::Work(_) => {
                            census.queues.add(&numbers);
                            queue(list.queue_name().unwrap_or_default(), numbers);
                        }
                        Kind::Share => census.groups.add(&numbers),
                        Kind::Delayed => census.put_off.add(&numbers),
                    }
                });
                next.map_or(Next::Nothing, Next::Lists)
            }
            Next::Nothing => Next::Nothing,
        };
        census.next != Next::Nothing
    }
}
