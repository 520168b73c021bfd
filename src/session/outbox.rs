//! What is on its way to a client: encoded bytes.
//!
//! Owns the buffer between those who deliver and the connection that writes,
//! and the gates in it: what may go out only when something is stored.
//! Never writes itself, and stores nothing. Payloads up to [`COPY_MAX`] are copied in, because a
//! copy costs less than a reference; larger ones are shared.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use crate::journal::Receipt;
use crate::message::{Message, Time};

/// The largest payload in bytes that is copied.
pub const COPY_MAX: usize = 1024;
/// A buffer that has so many bytes is full: what comes then goes into another
/// one, so that no more than this is ever moved, however far a client is behind.
const FULL_BYTES: usize = 128 << 10;

/// Encoded packets in the order in which they go out.
pub struct Outbox {
    bytes: Vec<u8>,
    len: usize,
    // When the broker took up the first message that is in it; MAX: it has none.
    since: Time,
    // How many bytes of all buffers, and of the first payload, are written already.
    bytes_done: usize,
    payload_done: u32,
    // Payloads that are written.
    payloads_done: u32,
    rare: Option<Box<Rare>>,
}

impl Default for Outbox {
    fn default() -> Outbox {
        Outbox {
            bytes: Vec::new(),
            len: 0,
            since: Time::MAX,
            bytes_done: 0,
            payload_done: 0,
            payloads_done: 0,
            rare: None,
        }
    }
}

/// What most outboxes never have, and which costs them one word then.
#[derive(Default)]
struct Rare {
    /// Payloads that come before the byte of that index.
    payloads: VecDeque<(usize, Arc<Message>)>,
    /// In the order of their places.
    gates: VecDeque<Gate>,
    /// Full buffers, which come before the last one.
    full: VecDeque<Vec<u8>>,
    /// The index of the first full one's first byte, and that after their last.
    full_start: usize,
    full_end: usize,
    /// How far it was shown to who records.
    shown: Mark,
}

/// A place between two packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    bytes: usize,
    payloads: u32,
}

/// What lies behind the place waits until it is stored.
struct Gate {
    at: Mark,
    receipt: Receipt,
}

impl Outbox {
    /// Bytes not written yet, shared payloads included.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it owns a buffer.
    pub fn has_buffer(&self) -> bool {
        self.bytes.capacity() > 0
    }

    /// Gives it a buffer to fill, which must be empty.
    pub fn set_buffer(&mut self, buffer: Vec<u8>) {
        debug_assert!(buffer.is_empty() && self.is_empty());
        self.bytes = buffer;
    }

    /// Appends what `encode` writes.
    pub fn append<R>(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        self.make_room();
        let before = self.bytes.len();
        let result = encode(&mut self.bytes);
        self.len += self.bytes.len() - before;
        result
    }

    /// Appends a copy.
    pub fn append_bytes(&mut self, bytes: &[u8]) {
        self.make_room();
        self.bytes.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    #[inline]
    fn make_room(&mut self) {
        if self.bytes.len() >= FULL_BYTES {
            self.begin_buffer();
        }
    }

    #[cold]
    fn begin_buffer(&mut self) {
        let rare = self.rare.get_or_insert_default();
        rare.full_end += self.bytes.len();
        // The last packet may be longer than what the others leave.
        let next = Vec::with_capacity(FULL_BYTES + FULL_BYTES / 8);
        rare.full
            .push_back(std::mem::replace(&mut self.bytes, next));
    }

    /// The index of the last buffer's first byte.
    fn base(&self) -> usize {
        self.rare.as_ref().map_or(0, |rare| rare.full_end)
    }

    /// The index behind all bytes.
    fn end(&self) -> usize {
        self.base() + self.bytes.len()
    }

    /// The bytes from `at` on, up to `end` or the end of their buffer.
    #[inline]
    fn run(&self, at: usize, end: usize) -> &[u8] {
        let base = self.base();
        if at >= base {
            return &self.bytes[at - base..end - base];
        }
        let mut start = self.rare.as_ref().map_or(0, |rare| rare.full_start);
        for buffer in self.rare.iter().flat_map(|rare| &rare.full) {
            if at < start + buffer.len() {
                return &buffer[at - start..buffer.len().min(end - start)];
            }
            start += buffer.len();
        }
        unreachable!("what is before the last buffer is in a full one")
    }

    /// Appends a copy, which from each place of `gates` on waits for its receipt.
    pub fn append_gated(&mut self, bytes: &[u8], gates: &[(usize, Receipt)]) {
        let start = self.mark();
        self.append_bytes(bytes);
        for (at, receipt) in gates {
            let from = Mark {
                bytes: start.bytes + at,
                ..start
            };
            self.gate(from, *receipt);
        }
    }

    /// A message is put in that the broker took up then.
    #[inline]
    pub fn note_message(&mut self, since: Time) {
        self.since = self.since.min(since);
    }

    /// When the broker took up the first message of those that are written; only
    /// once, and only if there was one.
    #[inline]
    pub fn take_since(&mut self) -> Option<Time> {
        match self.since {
            Time::MAX => None,
            _ => Some(std::mem::replace(&mut self.since, Time::MAX)),
        }
    }

    /// The bytes appended last, at once, to patch a packet id in them.
    pub fn last_bytes(&mut self, count: usize) -> &mut [u8] {
        let at = self.bytes.len() - count;
        &mut self.bytes[at..]
    }

    /// Appends the payload of a message, shared.
    pub fn append_payload(&mut self, message: &Arc<Message>) {
        self.len += message.payload().len();
        let before = self.end();
        let rare = self.rare.get_or_insert_default();
        rare.payloads.push_back((before, message.clone()));
    }

    /// The place behind all that is in it.
    pub fn mark(&self) -> Mark {
        let payloads = self.rare.as_ref().map_or(0, |rare| rare.payloads.len());
        Mark {
            bytes: self.end(),
            payloads: self.payloads_done + payloads as u32,
        }
    }

    /// What was appended since `from` goes out when `receipt` is had.
    pub fn gate(&mut self, from: Mark, receipt: Receipt) {
        // Behind another gate it waits for that in any case.
        let last = self.rare.as_ref().and_then(|rare| rare.gates.back());
        let before = last.map_or(Receipt::NONE, |gate| gate.receipt);
        let receipt = before.and(receipt);
        if receipt > before && from < self.mark() {
            let rare = self.rare.get_or_insert_default();
            rare.gates.push_back(Gate { at: from, receipt });
        }
    }

    /// Opens the gates whose receipts `has` says are had; that of the first
    /// that stays closed, if nothing before it is left to write.
    pub fn open_gates(&mut self, has: impl Fn(Receipt) -> bool) -> Option<Receipt> {
        let gates = &mut self.rare.as_mut()?.gates;
        while gates.front().is_some_and(|gate| has(gate.receipt)) {
            gates.pop_front();
        }
        let gate = gates.front()?;
        let written = (gate.at.bytes, gate.at.payloads) == (self.bytes_done, self.payloads_done);
        written.then_some(gate.receipt)
    }

    /// Whether nothing of it was written, or may be.
    pub fn is_gated_whole(&self, has: impl Fn(Receipt) -> bool) -> bool {
        let first = self.first_gate();
        first.is_some_and(|gate| (gate.at.bytes, gate.at.payloads) == (0, 0) && !has(gate.receipt))
    }

    fn first_gate(&self) -> Option<&Gate> {
        self.rare.as_ref()?.gates.front()
    }

    /// Gives up what waits behind a gate.
    pub fn drop_gated(&mut self) {
        let end = self.end();
        let Some(rare) = &mut self.rare else {
            return;
        };
        let Some(Gate { at, .. }) = rare.gates.pop_front() else {
            return;
        };
        rare.gates.clear();
        self.len -= end - at.bytes;
        while at.bytes < rare.full_end
            && let Some(last) = rare.full.pop_back()
        {
            rare.full_end -= last.len();
            self.bytes = last;
        }
        self.bytes.truncate(at.bytes - rare.full_end);
        let payloads = (at.payloads - self.payloads_done) as usize;
        for (_, message) in rare.payloads.drain(payloads..) {
            self.len -= message.payload().len();
        }
    }

    /// The next pieces that may be written, as many as `pieces` has places; how
    /// many.
    pub fn pieces<'a>(&'a self, pieces: &mut [IoSlice<'a>]) -> usize {
        let end = self
            .first_gate()
            .map_or_else(|| self.mark(), |gate| gate.at);
        let payloads = self.rare.iter().flat_map(|rare| &rare.payloads);
        let payloads = payloads.take((end.payloads - self.payloads_done) as usize);
        let (mut at, mut payload_done) = (self.bytes_done, self.payload_done);
        let mut count = 0;
        for payload in payloads.map(Some).chain([None]) {
            let before = payload.map_or(end.bytes, |(before, _)| *before);
            while at < before && count < pieces.len() {
                let run = self.run(at, before);
                pieces[count] = IoSlice::new(run);
                count += 1;
                at += run.len();
            }
            if count == pieces.len() {
                break;
            }
            if let Some((_, message)) = payload {
                pieces[count] = IoSlice::new(&message.payload()[payload_done as usize..]);
                payload_done = 0;
                count += 1;
            }
        }
        count
    }

    /// Shows `see` what may be written and was not shown before, run after run;
    /// it ends with a whole packet. Where something was written that was not
    /// shown, nobody knows where a packet begins: then nothing is shown of what
    /// may be written by now.
    pub fn show_new(&mut self, mut see: impl FnMut(&[u8])) {
        let end = self
            .first_gate()
            .map_or_else(|| self.mark(), |gate| gate.at);
        let from = self
            .rare
            .as_ref()
            .map_or(Mark::default(), |rare| rare.shown);
        if from.bytes >= self.bytes_done && from.payloads >= self.payloads_done && from < end {
            let payloads = self.rare.iter().flat_map(|rare| &rare.payloads);
            let payloads = payloads
                .skip((from.payloads - self.payloads_done) as usize)
                .take((end.payloads - from.payloads) as usize);
            let mut at = from.bytes;
            for payload in payloads.map(Some).chain([None]) {
                let before = payload.map_or(end.bytes, |(before, _)| *before);
                while at < before {
                    let run = self.run(at, before);
                    see(run);
                    at += run.len();
                }
                if let Some((_, message)) = payload {
                    see(message.payload());
                }
            }
        }
        self.rare.get_or_insert_default().shown = from.max(end);
    }

    /// Notes that `count` bytes more were written.
    pub fn advance(&mut self, mut count: usize) {
        self.len -= count;
        let Some(rare) = &mut self.rare else {
            self.bytes_done += count;
            return;
        };
        while let Some((before, message)) = rare.payloads.front() {
            let bytes = before - self.bytes_done;
            if count < bytes {
                break;
            }
            count -= bytes;
            self.bytes_done = *before;
            let payload = message.payload().len() - self.payload_done as usize;
            if count < payload {
                self.payload_done += count as u32; // below 2^28 (2.2.3)
                count = 0;
                break;
            }
            count -= payload;
            self.payload_done = 0;
            rare.payloads.pop_front();
            self.payloads_done += 1;
        }
        self.bytes_done += count;
        while let Some(first) = rare.full.front()
            && rare.full_start + first.len() <= self.bytes_done
        {
            rare.full_start += first.len();
            rare.full.pop_front();
        }
    }

    /// Empties it and gives its last buffer away.
    #[inline]
    pub fn take_buffer(&mut self) -> Vec<u8> {
        self.rare = None;
        self.since = Time::MAX;
        (self.len, self.bytes_done) = (0, 0);
        (self.payload_done, self.payloads_done) = (0, 0);
        let mut buffer = std::mem::take(&mut self.bytes);
        buffer.clear();
        buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{ClientId, Envelope, Identity, MessageId, Qos};
    use crate::topic::{TopicLimits, TopicName};

    fn message(payload: &[u8]) -> Arc<Message> {
        let publisher = Arc::new(Identity {
            user: None,
            client: ClientId::new("p"),
        });
        let topic = TopicName::parse("t", TopicLimits::NONE).unwrap();
        let envelope = Envelope {
            id: MessageId(0),
            qos: Qos::AtMostOnce,
            retain: false,
            publisher,
            received: Time::ZERO,
            expires: Time::MAX,
        };
        Arc::new(Message::new(topic, &[], payload, envelope))
    }

    #[test]
    fn whatever_the_socket_takes_the_bytes_come_out_in_order() {
        let expected = b"headPAYLOADmiddleOTHERtail".to_vec();
        for step in 1..=expected.len() {
            for places in 1..5 {
                let mut outbox = Outbox::default();
                outbox.append_bytes(b"head");
                outbox.append_payload(&message(b"PAYLOAD"));
                outbox.append_bytes(b"middle");
                outbox.append_payload(&message(b"OTHER"));
                outbox.append_bytes(b"tail");
                assert_eq!(outbox.len(), expected.len());
                let mut written = Vec::new();
                while !outbox.is_empty() {
                    let mut pieces = [IoSlice::new(&[]); 4];
                    let count = outbox.pieces(&mut pieces[..places]);
                    let mut taken: Vec<u8> = Vec::new();
                    pieces[..count]
                        .iter()
                        .for_each(|piece| taken.extend_from_slice(piece));
                    taken.truncate(step);
                    assert!(!taken.is_empty());
                    written.extend_from_slice(&taken);
                    outbox.advance(taken.len());
                }
                assert_eq!(written, expected, "step {step}, {places} places");
            }
        }
    }

    /// Packets of all sizes up to beyond a buffer's, some shared, fed and written
    /// in uneven steps.
    #[test]
    fn more_than_a_buffer_comes_out_in_order_and_is_given_back() {
        let packet = |number: usize| vec![number as u8; 1 + number * 7919 % 20_000];
        let mut outbox = Outbox::default();
        let (mut expected, mut written) = (Vec::new(), Vec::new());
        for number in 0..200 {
            let packet = packet(number);
            match number % 5 {
                0 => outbox.append_payload(&message(&packet)),
                1 => outbox.append(|out| out.extend_from_slice(&packet)),
                _ => outbox.append_bytes(&packet),
            }
            expected.extend_from_slice(&packet);
            if number == 50 {
                // In a buffer that is full by now, or in the one after it.
                let mark = outbox.mark();
                (0..30).for_each(|_| outbox.append_bytes(&packet));
                outbox.gate(mark, Receipt::new(1, crate::config::Durability::Synced));
                outbox.drop_gated();
            }
            if number % 3 == 0 {
                let mut pieces = [IoSlice::new(&[]); 3];
                let count = outbox.pieces(&mut pieces);
                let before = written.len();
                let pieces = pieces[..count].iter();
                pieces.for_each(|piece| written.extend_from_slice(piece));
                written.truncate(before + 12_345);
                let more = written.len() - before;
                outbox.advance(more);
            }
            assert_eq!(outbox.len(), expected.len() - written.len());
        }
        while !outbox.is_empty() {
            let mut pieces = [IoSlice::new(&[]); 3];
            assert!(outbox.pieces(&mut pieces) > 0);
            written.extend_from_slice(&pieces[0]);
            let more = pieces[0].len();
            outbox.advance(more);
        }
        assert!(written == expected, "something is lost or out of order");
        assert!(
            outbox
                .rare
                .as_ref()
                .is_some_and(|rare| rare.full.is_empty())
        );
        assert!(outbox.take_buffer().is_empty() && !outbox.has_buffer());
    }

    /// Whole packets, each once, and nothing that waits behind a gate.
    #[test]
    fn what_may_be_written_is_shown_once() {
        let receipt = Receipt::new(1, crate::config::Durability::Synced);
        let new = |outbox: &mut Outbox| {
            let mut shown = Vec::new();
            outbox.show_new(|run| shown.extend_from_slice(run));
            shown
        };
        let fill = || {
            let mut outbox = Outbox::default();
            outbox.append_bytes(b"one");
            outbox.append_payload(&message(b"PAYLOAD"));
            let gated = outbox.mark();
            outbox.append_bytes(b"two");
            outbox.append_payload(&message(b"OTHER"));
            outbox.gate(gated, receipt);
            outbox
        };
        let mut outbox = fill();
        assert_eq!(new(&mut outbox), b"onePAYLOAD");
        assert_eq!(new(&mut outbox), b"");
        outbox.advance(4);
        assert_eq!(new(&mut outbox), b"");
        outbox.advance(6);
        outbox.open_gates(|_| true);
        assert_eq!(new(&mut outbox), b"twoOTHER");
        outbox.append_bytes(b"last");
        assert_eq!(new(&mut outbox), b"last");
        // Nobody looked when the first bytes were written.
        for written in 1..=10 {
            let mut outbox = fill();
            outbox.advance(written);
            assert_eq!(new(&mut outbox), b"");
            outbox.open_gates(|_| true);
            assert_eq!(new(&mut outbox), b"twoOTHER");
        }
        assert!(outbox.take_buffer().is_empty());
        outbox.append_bytes(b"again");
        assert_eq!(new(&mut outbox), b"again");
    }

    #[test]
    fn what_is_not_stored_waits_behind_its_gate() {
        let receipt = |batch| Receipt::new(batch, crate::config::Durability::Synced);
        let fill = || {
            let mut outbox = Outbox::default();
            outbox.append_bytes(b"free");
            let mark = outbox.mark();
            outbox.append_bytes(b"gated");
            outbox.append_payload(&message(b"PAYLOAD"));
            outbox.gate(mark, receipt(1));
            let mark = outbox.mark();
            outbox.append_bytes(b"of the same batch");
            outbox.gate(mark, receipt(1));
            outbox.append_bytes(b"behind");
            let mark = outbox.mark();
            outbox.append_payload(&message(b"LATER"));
            outbox.gate(mark, receipt(3));
            outbox
        };
        let drain = |outbox: &mut Outbox, stored: u64| {
            let mut written = Vec::new();
            loop {
                let blocked = outbox.open_gates(|receipt| receipt.batch() <= stored);
                let mut pieces = [IoSlice::new(&[]); 2];
                let count = outbox.pieces(&mut pieces);
                let before = written.len();
                pieces[..count]
                    .iter()
                    .for_each(|piece| written.extend_from_slice(piece));
                let more = written.len() - before;
                if more == 0 {
                    return (String::from_utf8(written).unwrap(), blocked);
                }
                assert_eq!(blocked, None);
                outbox.advance(more);
            }
        };
        let mut outbox = fill();
        assert_eq!(drain(&mut outbox, 0), ("free".into(), Some(receipt(1))));
        let first = "gatedPAYLOADof the same batchbehind";
        assert_eq!(drain(&mut outbox, 2), (first.into(), Some(receipt(3))));
        assert_eq!(drain(&mut outbox, 3), ("LATER".into(), None));
        assert!(outbox.is_empty());

        for (stored, expected) in [
            (0, "freeword"),
            (2, "freegatedPAYLOADof the same batchbehindword"),
        ] {
            let mut outbox = fill();
            outbox.open_gates(|receipt| receipt.batch() <= stored);
            outbox.drop_gated();
            outbox.append_bytes(b"word");
            assert_eq!(outbox.len(), expected.len());
            assert_eq!(drain(&mut outbox, stored), (expected.into(), None));
            assert!(outbox.is_empty());
        }
    }

    #[test]
    fn two_payloads_side_by_side() {
        let mut outbox = Outbox::default();
        outbox.append_payload(&message(b"one"));
        outbox.append_payload(&message(b"two"));
        outbox.advance(4);
        let mut pieces = [IoSlice::new(&[]); 4];
        assert_eq!(outbox.pieces(&mut pieces), 1);
        assert_eq!(&*pieces[0], b"wo");
    }
}
