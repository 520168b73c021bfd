//! What is on its way to a client: encoded bytes.
//!
//! Owns the buffer between those who deliver and the connection that writes.
//! Never writes itself. Payloads up to [`COPY_MAX`] are copied in, because a
//! copy costs less than a reference; larger ones are shared.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

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
    payload_done: usize,
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

    /// The next pieces to write, as many as `pieces` has places; how many.
    pub fn pieces<'a>(&'a self, pieces: &mut [IoSlice<'a>]) -> usize {
        let mut at = self.bytes_done;
        let mut payload_done = self.payload_done;
        let mut count = 0;
        for (before, message) in &self.payloads {
            if at < *before && count < pieces.len() {
                pieces[count] = IoSlice::new(&self.bytes[at..*before]);
                count += 1;
                at = *before;
            }
            if count == pieces.len() {
                return count;
            }
            pieces[count] = IoSlice::new(&message.payload()[payload_done..]);
            payload_done = 0;
            count += 1;
        }
        if at < self.bytes.len() && count < pieces.len() {
            pieces[count] = IoSlice::new(&self.bytes[at..]);
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
            let payload = message.payload().len() - self.payload_done;
            if count < payload {
                self.payload_done += count;
                return;
            }
            count -= payload;
            self.payload_done = 0;
            self.payloads.pop_front();
        }
        self.bytes_done += count;
    }

    /// Empties it and gives its buffer away.
    pub fn take_buffer(&mut self) -> Vec<u8> {
        self.payloads = VecDeque::new();
        (self.len, self.bytes_done, self.payload_done) = (0, 0, 0);
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
