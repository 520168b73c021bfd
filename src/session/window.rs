//! What was sent at QoS 1 and 2 and is not acknowledged yet (4.3, 4.4).
//!
//! Owns the packet ids of one session towards its client. Ids go round, so
//! that a late acknowledgement from an earlier connection finds nothing, or
//! what it meant; never another message.

use std::collections::VecDeque;
use std::sync::Arc;

use super::publication::Own;
use super::stored::StoredRow;
use crate::message::{LeaseId, Message, MessageId, PacketId, Qos, QueueId, Time};

/// The window.
pub struct Window {
    max: u16,
    // In the order in which they were sent first [MQTT-4.6.0-1].
    sent: VecDeque<Sent>,
    // In the order of their PUBRECs [MQTT-4.6.0-4].
    releasing: VecDeque<Releasing>,
    next: PacketId,
    // How many ids from `next` on are known to be free.
    known_free: u16,
    // Ids whose job the client does not hold any more.
    stale: u16,
    // How many of `sent`, the last ones, this connection has not seen yet.
    held_back: usize,
}

/// A PUBLISH that waits for its PUBACK or PUBREC.
pub struct Sent {
    pub packet_id: PacketId,
    pub qos: Qos,
    pub retain: bool,
    /// The filling of the outbox into which it was encoded.
    pub filling: u32,
    /// When it was; zero: in an earlier run, and not sent again yet.
    pub sent_at: Time,
    /// What it takes of the session's limit in bytes.
    pub cost_bytes: usize,
    /// `None` where nobody could ever ask for it again, and where it is read
    /// again for whoever does.
    pub message: Option<Arc<Message>>,
    /// What was sent with it, and is sent again.
    pub own: Own,
    pub job: Option<SentJob>,
    pub row: StoredRow,
}

/// A PUBLISH that has reached the client, and whose id waits for PUBCOMP.
#[derive(Clone, Copy, Debug)]
pub struct Releasing {
    pub packet_id: PacketId,
    /// When that was known; zero: in an earlier run.
    pub since: Time,
}

/// The job that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentJob {
    pub queue: QueueId,
    pub lease: LeaseId,
    pub message: MessageId,
    /// Whether its topic was sent with `$queue/` before it.
    pub queue_topic: bool,
    pub hold: Hold,
}

/// What the client still has to say about a job that was sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// All.
    Current,
    /// Its time is up: an acknowledgement counts if nobody else has the job.
    TimedOut,
    /// Nothing more: an acknowledgement only frees the id.
    Settled,
}

impl Sent {
    /// Whether the client no longer holds the job that it was.
    pub fn is_stale(&self) -> bool {
        self.job.is_some_and(|job| job.hold != Hold::Current)
    }
}

/// What a PUBREC found.
pub enum Received {
    /// Its PUBLISH; PUBREL is due.
    Sent(Sent),
    /// It was received before; PUBREL is due again.
    Again,
    Unknown,
}

impl Window {
    /// `first`: the first id. A new session's is random, so that it does not
    /// take up where an earlier one of the same client id left.
    pub fn new(max: u16, first: PacketId) -> Window {
        Window {
            max,
            sent: VecDeque::new(),
            releasing: VecDeque::new(),
            next: first,
            known_free: u16::MAX,
            stale: 0,
            held_back: 0,
        }
    }

    pub fn set_max(&mut self, max: u16) {
        self.max = max;
    }

    /// Ids in use.
    pub fn in_use(&self) -> usize {
        self.sent.len() + self.releasing.len()
    }

    pub fn has_room(&self) -> bool {
        self.in_use() < usize::from(self.max)
    }

    /// Whether nothing but stale jobs fills it.
    pub fn is_full_of_stale(&self) -> bool {
        self.stale > 0 && self.stale >= self.max
    }

    /// An unused id [MQTT-2.3.1-4]; the window must have room.
    #[inline]
    pub fn take_id(&mut self) -> PacketId {
        if self.known_free == 0 {
            self.find_free();
        }
        self.known_free -= 1;
        let id = self.next;
        self.next = after(id);
        id
    }

    #[inline(never)]
    fn find_free(&mut self) {
        while self.known_free == 0 {
            let next = self.next.get();
            let releasing = self.releasing.iter().map(|one| one.packet_id);
            let ids = (self.sent.iter().map(|sent| sent.packet_id)).chain(releasing);
            self.known_free = ids
                .map(|id| distance(next, id.get()))
                .min()
                .unwrap_or(u16::MAX);
            if self.known_free == 0 {
                self.next = after(self.next);
            }
        }
    }

    pub fn push(&mut self, sent: Sent) {
        self.sent.push_back(sent);
    }

    /// Whether nothing waits for its PUBACK or PUBREC.
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    pub fn last(&self) -> Option<&Sent> {
        self.sent.back()
    }

    /// One of an earlier connection, that has to be sent again.
    pub fn push_held_back(&mut self, sent: Sent) {
        self.sent.push_back(sent);
        self.held_back += 1;
        self.known_free = 0;
    }

    /// Another connection: all has to be sent again.
    pub fn hold_back_all(&mut self) {
        self.held_back = self.sent.len();
    }

    pub fn is_holding_back(&self) -> bool {
        self.held_back > 0
    }

    /// The next that is to be sent again, oldest first, if the client takes
    /// that many at a time [MQTT-3.3.4-9].
    pub fn next_held_back(&mut self, now: Time) -> Option<&Sent> {
        if self.held_back == 0 || self.in_use() - self.held_back >= usize::from(self.max) {
            return None;
        }
        let at = self.sent.len() - self.held_back;
        self.held_back -= 1;
        let sent = self.sent.get_mut(at)?;
        if sent.sent_at == Time::ZERO {
            sent.sent_at = now;
        }
        Some(sent)
    }

    /// Those that wait for PUBCOMP, in the order of their PUBRECs.
    pub fn releasing(&self) -> impl Iterator<Item = Releasing> + '_ {
        self.releasing.iter().copied()
    }

    /// Those that wait for PUBACK or PUBREC, oldest first.
    pub fn sent(&self) -> impl Iterator<Item = &Sent> {
        self.sent.iter()
    }

    pub fn get(&self, packet_id: PacketId) -> Option<&Sent> {
        self.position(packet_id).map(|at| &self.sent[at])
    }

    /// The PUBLISH that a PUBACK ends.
    pub fn acknowledge(&mut self, packet_id: PacketId) -> Option<Sent> {
        let at = self.position(packet_id)?;
        self.take(at)
    }

    /// A PUBREC: the message has reached the client, its id is still taken.
    pub fn receive(&mut self, packet_id: PacketId, now: Time) -> Received {
        if let Some(at) = self.position(packet_id) {
            self.push_releasing(packet_id, now);
            return self.take(at).map_or(Received::Unknown, Received::Sent);
        }
        match self.releasing.iter().any(|one| one.packet_id == packet_id) {
            true => Received::Again,
            false => Received::Unknown,
        }
    }

    /// A PUBCOMP; whether the id was in use.
    pub fn complete(&mut self, packet_id: PacketId) -> bool {
        let mut releasing = self.releasing.iter();
        let at = releasing.position(|one| one.packet_id == packet_id);
        at.is_some_and(|at| self.releasing.remove(at).is_some())
    }

    /// Weakens the client's hold on a job; the job, if it was held better
    /// before.
    pub fn weaken(&mut self, packet_id: PacketId, hold: Hold) -> Option<SentJob> {
        let at = self.position(packet_id)?;
        let job = self.sent[at].job.as_mut();
        let job = job.filter(|job| job.hold != Hold::Settled && job.hold != hold)?;
        self.stale += u16::from(job.hold == Hold::Current);
        job.hold = hold;
        Some(*job)
    }

    /// The jobs that were sent and not acknowledged, oldest first.
    pub fn jobs(&self) -> impl Iterator<Item = (PacketId, SentJob)> + '_ {
        let sent = self.sent.iter();
        sent.filter_map(|sent| Some((sent.packet_id, sent.job?)))
    }

    /// The id under which a job is with the client.
    pub fn id_of(&self, queue: QueueId, lease: LeaseId) -> Option<PacketId> {
        let found = self
            .sent
            .iter()
            .find(|sent| (sent.job).is_some_and(|job| job.queue == queue && job.lease == lease));
        found.map(|sent| sent.packet_id)
    }

    /// PUBREL is due for an id whose PUBLISH is no longer here.
    pub fn release(&mut self, packet_id: PacketId, now: Time) {
        self.push_releasing(packet_id, now);
        self.known_free = 0;
    }

    fn push_releasing(&mut self, packet_id: PacketId, since: Time) {
        self.releasing.push_back(Releasing { packet_id, since });
    }

    /// What an earlier run of the broker had sent.
    pub fn restore(&mut self, sent: Sent) {
        self.sent.push_back(sent);
        self.known_free = 0;
    }

    /// Keeps what `keep` says; the connection is gone.
    pub fn retain(&mut self, keep: impl FnMut(&Sent) -> bool) {
        self.sent.retain(keep);
        self.held_back = 0;
        let stale = self.sent.iter().filter(|sent| sent.is_stale());
        self.stale = stale.count() as u16;
    }

    fn take(&mut self, at: usize) -> Option<Sent> {
        let seen = self.sent.len() - self.held_back;
        self.held_back -= usize::from(at >= seen);
        let sent = match at {
            0 => self.sent.pop_front()?,
            at => self.sent.remove(at)?,
        };
        if sent.is_stale() {
            self.stale -= 1;
        }
        Some(sent)
    }

    /// Clients answer the oldest first, or nearly so.
    fn position(&self, packet_id: PacketId) -> Option<usize> {
        // Most are acknowledged in order.
        if self.sent.front()?.packet_id == packet_id {
            return Some(0);
        }
        self.sent
            .iter()
            .position(|sent| sent.packet_id == packet_id)
    }
}

/// The id after `id`; 0 is none.
fn after(id: PacketId) -> PacketId {
    PacketId::new(id.get().wrapping_add(1)).unwrap_or(PacketId::MIN)
}

/// How many ids lie before `to` on the way from `from`.
fn distance(from: u16, to: u16) -> u16 {
    match to >= from {
        true => to - from,
        false => u16::MAX - (from - to),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(packet_id: PacketId) -> Sent {
        Sent {
            packet_id,
            qos: Qos::ExactlyOnce,
            retain: false,
            filling: 0,
            sent_at: Time::ZERO,
            cost_bytes: 0,
            message: None,
            own: Own::default(),
            job: None,
            row: StoredRow::NONE,
        }
    }

    #[test]
    fn ids_of_an_earlier_run_are_not_given_again() {
        let id = |id| PacketId::new(id).unwrap();
        let mut window = Window::new(10, id(7));
        window.restore(sent(id(7)));
        window.release(id(8), Time::ZERO);
        window.push_held_back(sent(id(9)));
        assert_eq!(window.take_id(), id(10));
        let mut window = Window::new(10, id(7));
        window.release(id(7), Time::ZERO);
        assert_eq!(window.take_id(), id(8));
    }

    fn push(window: &mut Window) -> u16 {
        let packet_id = window.take_id();
        assert!(window.get(packet_id).is_none(), "id {packet_id} is in use");
        window.push(Sent {
            qos: Qos::AtLeastOnce,
            ..sent(packet_id)
        });
        packet_id.get()
    }

    /// Case D04 of docs/security.md.
    #[test]
    fn ids_go_round_and_pass_over_those_in_use() {
        let mut window = Window::new(3, PacketId::new(65_534).unwrap());
        let stuck = push(&mut window);
        let mut last = stuck;
        for round in 0..200_000_u32 {
            let id = push(&mut window);
            let expected = match last {
                65_533 => 65_535, // 65,534 is stuck
                65_535 => 1,
                other => other + 1,
            };
            assert_eq!(id, expected, "round {round}");
            assert!(window.acknowledge(PacketId::new(id).unwrap()).is_some());
            last = id;
        }
        assert!(window.acknowledge(PacketId::new(stuck).unwrap()).is_some());
    }

    /// Case D13 of docs/security.md.
    #[test]
    fn a_full_window_of_all_ids_is_no_endless_loop() {
        let mut window = Window::new(u16::MAX, PacketId::MIN);
        let mut seen = vec![false; 65_536];
        for _ in 0..65_535 {
            assert!(window.has_room());
            let packet_id = window.take_id();
            assert!(!std::mem::replace(
                &mut seen[usize::from(packet_id.get())],
                true
            ));
            window.push_releasing(packet_id, Time::ZERO);
        }
        assert!(!window.has_room());
        assert!(window.complete(PacketId::new(777).unwrap()));
        assert_eq!(window.take_id().get(), 777);
    }

    #[test]
    fn a_release_is_asked_for_again_until_it_is_complete() {
        let mut window = Window::new(10, PacketId::MIN);
        let id = PacketId::new(push(&mut window)).unwrap();
        assert!(matches!(window.receive(id, Time::ZERO), Received::Sent(_)));
        assert!(matches!(window.receive(id, Time::ZERO), Received::Again));
        assert!(window.complete(id));
        assert!(!window.complete(id));
        assert!(matches!(window.receive(id, Time::ZERO), Received::Unknown));
    }
}
