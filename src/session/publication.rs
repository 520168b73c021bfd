//! One PUBLISH on its way to its receivers.
//!
//! Borrowed from the bytes it was read from for as long as nobody keeps it;
//! the first who must makes it a [`Message`], and all others share that.
//! Encoded once for all receivers alike. Routes nothing.

use std::cell::OnceCell;
use std::sync::Arc;

use super::outbox::{COPY_MAX, Outbox};
use crate::message::{Envelope, Identity, Message, MessageId, PacketId, Qos, Time};
use crate::protocol::{PublishHead, Version, encode_publish_head};
use crate::topic::TopicName;

/// The PUBLISH.
pub struct Publication<'a> {
    pub topic: TopicName<'a>,
    pub properties: &'a [u8],
    pub payload: &'a [u8],
    /// As published; a receiver gets it at this or less.
    pub qos: Qos,
    pub retain: bool,
    pub publisher: &'a Arc<Identity>,
    pub received: Time,
    /// As [`Message::expires`].
    pub expires: Time,
    pub id: MessageId,
    message: OnceCell<Arc<Message>>,
}

/// How one receiver gets it.
#[derive(Clone, Copy)]
pub struct Form {
    pub wire: Version,
    pub dup: bool,
    pub retain: bool,
    pub qos: Qos,
    /// There exactly if `qos` is not 0.
    pub packet_id: Option<PacketId>,
    /// `"$queue/"` for the members of a work queue.
    pub topic_prefix: &'static str,
}

impl<'a> Publication<'a> {
    /// Of a PUBLISH of the moment, which never expires.
    pub fn new(
        topic: TopicName<'a>,
        payload: &'a [u8],
        qos: Qos,
        retain: bool,
        publisher: &'a Arc<Identity>,
        received: Time,
        id: MessageId,
    ) -> Publication<'a> {
        Publication {
            topic,
            properties: &[],
            payload,
            qos,
            retain,
            publisher,
            received,
            expires: Time::MAX,
            id,
            message: OnceCell::new(),
        }
    }

    /// A message that is kept already.
    pub fn of(message: &'a Arc<Message>) -> Publication<'a> {
        Publication {
            topic: message.topic(),
            properties: message.properties(),
            payload: message.payload(),
            qos: message.qos(),
            retain: message.retain(),
            publisher: message.publisher(),
            received: message.received(),
            expires: message.expires(),
            id: message.id(),
            message: OnceCell::from(message.clone()),
        }
    }

    /// To be kept.
    pub fn message(&self) -> &Arc<Message> {
        self.message.get_or_init(|| {
            Arc::new(Message::new(
                self.topic,
                self.properties,
                self.payload,
                Envelope {
                    id: self.id,
                    qos: self.qos,
                    retain: self.retain,
                    publisher: self.publisher.clone(),
                    received: self.received,
                    expires: self.expires,
                },
            ))
        })
    }

    /// What it takes of a limit in bytes, as [`Message::cost_bytes`].
    pub fn cost_bytes(&self) -> usize {
        Message::cost_bytes_of(self.topic, self.properties, self.payload)
    }

    /// Encodes it into `outbox`.
    pub fn append_to(&self, outbox: &mut Outbox, frames: &mut Frames, form: Form) {
        if frames.shared && !form.dup && !form.retain && form.topic_prefix.is_empty() {
            let frame = frames.get(self, form);
            outbox.append_bytes(&frame.bytes);
            if let (Some(at), Some(packet_id)) = (frame.packet_id_at, form.packet_id) {
                let from_end = frame.bytes.len() - at;
                outbox.last_bytes(from_end)[..2].copy_from_slice(&packet_id.get().to_be_bytes());
            }
        } else {
            outbox.append(|out| self.encode(form, out));
        }
        if self.payload.len() > COPY_MAX {
            outbox.append_payload(self.message());
        }
    }

    /// Head and, if it is small, payload; the place of the packet id.
    fn encode(&self, form: Form, out: &mut Vec<u8>) -> Option<usize> {
        let head = PublishHead {
            dup: form.dup,
            qos: form.qos,
            retain: form.retain,
            topic_prefix: form.topic_prefix,
            topic: self.topic.as_str().as_bytes(),
            packet_id: form.packet_id,
            properties: self.properties,
            payload_len: self.payload.len(),
        };
        let packet_id_at = encode_publish_head(&head, form.wire, out);
        if self.payload.len() <= COPY_MAX {
            out.extend_from_slice(self.payload);
        }
        packet_id_at
    }
}

/// The encoded forms of one publication, made when first asked for and used
/// for all its receivers; the buffers are used again for the next.
#[derive(Default)]
pub struct Frames {
    frames: [Frame; 6],
    shared: bool,
}

#[derive(Default)]
struct Frame {
    bytes: Vec<u8>,
    packet_id_at: Option<usize>,
}

impl Frames {
    /// Forgets the last publication. With `receivers` below two, encoding
    /// straight into the outbox is cheaper than a frame.
    pub fn begin(&mut self, receivers: usize) {
        if self.shared {
            self.frames.iter_mut().for_each(|frame| frame.bytes.clear());
        }
        self.shared = receivers > 1;
    }

    fn get(&mut self, publication: &Publication<'_>, form: Form) -> &Frame {
        let version = usize::from(form.wire == Version::V5);
        let frame = &mut self.frames[version * 3 + form.qos as usize];
        if frame.bytes.is_empty() {
            frame.packet_id_at = publication.encode(form, &mut frame.bytes);
        }
        frame
    }
}
