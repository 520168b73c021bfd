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
use crate::message::Message;

/// The largest payload in bytes that is copied.
pub const COPY_MAX: usize = 1024;

/// Encoded packets in the order in which they go out.
#[derive(Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    // Payloads that come before the byte of that index.
    payloads: VecDeque<(usize, Arc<Message>)>,
    len: usize,
    // What of `bytes`, and of the first payload, is written already.
    bytes_done: usize,
    payload_done: u32,
    // Payloads that are written.
    payloads_done: u32,
    // In the order of their places. Most outboxes never have any.
    gates: Option<Box<Gates>>,
}

/// Boxed, so that they cost an outbox without any one word.
#[derive(Default)]
struct Gates(VecDeque<Gate>);

/// A place between two packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
        let before = self.bytes.len();
        let result = encode(&mut self.bytes);
        self.len += self.bytes.len() - before;
        result
    }

    /// Appends a copy.
    pub fn append_bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.len += bytes.len();
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

    /// The bytes appended last, to patch a packet id in them.
    pub fn last_bytes(&mut self, count: usize) -> &mut [u8] {
        let at = self.bytes.len() - count;
        &mut self.bytes[at..]
    }

    /// Appends the payload of a message, shared.
    pub fn append_payload(&mut self, message: &Arc<Message>) {
        self.len += message.payload().len();
        self.payloads.push_back((self.bytes.len(), message.clone()));
    }

    /// The place behind all that is in it.
    pub fn mark(&self) -> Mark {
        Mark {
            bytes: self.bytes.len(),
            payloads: self.payloads_done + self.payloads.len() as u32,
        }
    }

    /// What was appended since `from` goes out when `receipt` is had.
    pub fn gate(&mut self, from: Mark, receipt: Receipt) {
        // Behind another gate it waits for that in any case.
        let last = self.gates.as_ref().and_then(|gates| gates.0.back());
        let before = last.map_or(Receipt::NONE, |gate| gate.receipt);
        let receipt = before.and(receipt);
        if receipt > before && from < self.mark() {
            let gates = self.gates.get_or_insert_default();
            gates.0.push_back(Gate { at: from, receipt });
        }
    }

    /// Opens the gates whose receipts `has` says are had; that of the first
    /// that stays closed, if nothing before it is left to write.
    pub fn open_gates(&mut self, has: impl Fn(Receipt) -> bool) -> Option<Receipt> {
        let Gates(gates) = &mut **self.gates.as_mut()?;
        while gates.front().is_some_and(|gate| has(gate.receipt)) {
            gates.pop_front();
        }
        let gate = gates.front()?;
        let written = (gate.at.bytes, gate.at.payloads) == (self.bytes_done, self.payloads_done);
        written.then_some(gate.receipt)
    }

    /// Whether nothing of it was written, or may be.
    pub fn is_gated_whole(&self, has: impl Fn(Receipt) -> bool) -> bool {
        let first = self.gates.as_ref().and_then(|gates| gates.0.front());
        first.is_some_and(|gate| (gate.at.bytes, gate.at.payloads) == (0, 0) && !has(gate.receipt))
    }

    /// Gives up what waits behind a gate.
    pub fn drop_gated(&mut self) {
        if let Some(at) = self.first_gate() {
            self.len -= self.bytes.len() - at.bytes;
            self.bytes.truncate(at.bytes);
            for (_, message) in self
                .payloads
                .drain((at.payloads - self.payloads_done) as usize..)
            {
                self.len -= message.payload().len();
            }
            self.gates = None;
        }
    }

    fn first_gate(&self) -> Option<Mark> {
        Some(self.gates.as_ref()?.0.front()?.at)
    }

    /// The next pieces that may be written, as many as `pieces` has places; how
    /// many.
    pub fn pieces<'a>(&'a self, pieces: &mut [IoSlice<'a>]) -> usize {
        let end = self.first_gate().unwrap_or(self.mark());
        let mut at = self.bytes_done;
        let mut payload_done = self.payload_done;
        let mut count = 0;
        for (before, message) in
            (self.payloads.iter()).take((end.payloads - self.payloads_done) as usize)
        {
            if at < *before && count < pieces.len() {
                pieces[count] = IoSlice::new(&self.bytes[at..*before]);
                count += 1;
                at = *before;
            }
            if count == pieces.len() {
                return count;
            }
            pieces[count] = IoSlice::new(&message.payload()[payload_done as usize..]);
            payload_done = 0;
            count += 1;
        }
        if at < end.bytes && count < pieces.len() {
            pieces[count] = IoSlice::new(&self.bytes[at..end.bytes]);
            count += 1;
        }
        count
    }

    /// Notes that `count` bytes more were written.
    pub fn advance(&mut self, mut count: usize) {
        self.len -= count;
        while let Some((before, message)) = self.payloads.front() {
            let bytes = before - self.bytes_done;
            if count < bytes {
                self.bytes_done += count;
                return;
            }
            count -= bytes;
            self.bytes_done = *before;
            let payload = message.payload().len() - self.payload_done as usize;
            if count < payload {
                self.payload_done += count as u32; // below 2^28 (2.2.3)
                return;
            }
            count -= payload;
            self.payload_done = 0;
            self.payloads.pop_front();
            self.payloads_done += 1;
        }
        self.bytes_done += count;
    }

    /// Empties it and gives its buffer away.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        self.payloads = VecDeque::new();
        self.gates = None;
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
    use crate::message::{ClientId, Envelope, Identity, MessageId, Qos, Time};
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
