//! One PUBLISH on its way to its receivers.
//!
//! Borrowed from the bytes it was read from for as long as nobody keeps it;
//! the first who must makes it a [`Message`], and all others share that.
//! Encoded once for all receivers alike. Routes nothing.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::sync::Arc;
use std::time::Duration;

use super::outbox::{COPY_MAX, Outbox};
use super::terms::Wire;
use crate::access::OwnRights;
use crate::config::Durability;
use crate::journal::{Body, Change, Journal, ListId, Receipt};
use crate::message::{Envelope, Identity, Message, MessageId, PacketId, Qos, Time, encode_stored};
use crate::mount::leave_properties;
use crate::protocol::{PublishHead, encode_message_expiry, encode_publish_head};
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
    /// The publisher's, where it is here.
    pub own_rights: Option<&'a OwnRights>,
    pub received: Time,
    /// As [`Message::expires`].
    pub expires: Time,
    pub id: MessageId,
    /// When it is handled: what is left of its time is counted from then.
    pub now: Time,
    /// What its publisher's listener asks for; receivers may ask for more.
    pub durability: Durability,
    /// Also at QoS 0 all take it who must, or it is refused.
    pub is_whole: bool,
    /// It goes to nobody before that is stored.
    pub after: Receipt,
    message: OnceCell<Arc<Message>>,
    body: Cell<StoredBody>,
}

/// How its body is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StoredBody {
    /// In each receiver's row.
    Own,
    /// Once for all, by the first receiver that stores it.
    ToShare,
    /// So it was, with so many bytes.
    Shared(u32),
}

/// How one receiver gets it.
#[derive(Clone, Copy)]
pub struct Form {
    pub wire: Wire,
    pub dup: bool,
    pub retain: bool,
    pub qos: Qos,
    /// There exactly if `qos` is not 0.
    pub packet_id: Option<PacketId>,
    /// `"$queue/"` for the members of a work queue.
    pub topic_prefix: &'static str,
    /// So many bytes of the topic are left out, which the receiver does not see.
    pub mount_bytes: u16,
    /// An alias says the topic, which is left out.
    pub aliased: bool,
}

/// Encoded properties of one delivery that are kept with it; mostly none.
#[derive(Default)]
pub struct Own(Option<Box<Box<[u8]>>>); // One word where there is nothing.

impl Own {
    pub fn of(bytes: &[u8]) -> Own {
        Own((!bytes.is_empty()).then(|| Box::new(bytes.into())))
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], |bytes| bytes)
    }

    /// What it takes of a limit in bytes.
    pub fn cost_bytes(&self) -> usize {
        Own::cost_bytes_of(self.as_bytes().len())
    }

    /// What so many bytes would take: two pieces, and what an allocator adds.
    pub fn cost_bytes_of(len: usize) -> usize {
        match len {
            0 => 0,
            len => len + 2 * 16 + 2 * 16,
        }
    }
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
            own_rights: None,
            received,
            expires: Time::MAX,
            id,
            now: received,
            durability: Durability::Memory,
            is_whole: false,
            after: Receipt::NONE,
            message: OnceCell::new(),
            body: Cell::new(StoredBody::Own),
        }
    }

    /// A message that is kept already.
    pub fn of(message: &'a Arc<Message>, now: Time) -> Publication<'a> {
        Publication {
            topic: message.topic(),
            properties: message.properties(),
            payload: message.payload(),
            qos: message.qos(),
            retain: message.retain(),
            publisher: message.publisher(),
            own_rights: None,
            received: message.received(),
            expires: message.expires(),
            id: message.id(),
            now,
            durability: Durability::Memory,
            is_whole: false,
            after: Receipt::NONE,
            message: OnceCell::from(message.clone()),
            body: Cell::new(StoredBody::Own),
        }
    }

    /// Whether nobody waits for it: who cannot take it takes it from no others.
    pub fn may_be_lost(&self) -> bool {
        self.qos == Qos::AtMostOnce && !self.is_whole
    }

    /// To be kept.
    pub fn message(&self) -> &Arc<Message> {
        self.message.get_or_init(|| {
            Arc::new(Message::new(
                self.topic,
                self.properties,
                self.payload,
                self.envelope(),
            ))
        })
    }

    fn envelope(&self) -> Envelope {
        Envelope {
            id: self.id,
            qos: self.qos,
            retain: self.retain,
            publisher: self.publisher.clone(),
            received: self.received,
            expires: self.expires,
        }
    }

    /// Several are to store it: its body is then stored once.
    pub fn share_body(&self) {
        self.body.set(StoredBody::ToShare);
    }

    /// Its row in a list; the id of its body where others have that too, or 0.
    pub fn store(
        &self,
        journal: &mut Journal,
        durability: Durability,
        (list, row): (ListId, u64),
        about: &[u8],
    ) -> u64 {
        if durability == Durability::Memory {
            return 0;
        }
        let id = self.id.0;
        if let StoredBody::Shared(len) = self.body.get() {
            let body = Body::Shared { id, len };
            journal.add(
                durability,
                Change::Push {
                    list,
                    row,
                    about,
                    body,
                },
            );
            return id;
        }
        let mut head = Vec::with_capacity(128);
        let topic = self.topic.as_str().as_bytes();
        encode_stored(&self.envelope(), self.topic, self.properties, &mut head);
        let pieces = [&head[..], topic, self.properties, self.payload];
        if self.body.get() == StoredBody::Own || id == 0 {
            journal.push(durability, (list, row), about, &pieces);
            return 0;
        }
        journal.share(durability, id, &pieces);
        let len = pieces.iter().map(|piece| piece.len()).sum::<usize>() as u32;
        self.body.set(StoredBody::Shared(len));
        self.store(journal, durability, (list, row), about)
    }

    /// What it takes of a limit in bytes, as [`Message::cost_bytes`].
    pub fn cost_bytes(&self) -> usize {
        Message::cost_bytes_of(self.publisher, self.topic, self.properties, self.payload)
    }

    /// Stores it by a key of its own.
    pub fn store_value(&self, journal: &mut Journal, durability: Durability, key: &[u8]) {
        let mut value = Vec::with_capacity(128 + self.payload.len());
        encode_stored(&self.envelope(), self.topic, self.properties, &mut value);
        value.extend_from_slice(self.topic.as_str().as_bytes());
        value.extend_from_slice(self.properties);
        value.extend_from_slice(self.payload);
        journal.add(durability, Change::Put { key, value: &value });
    }

    /// Encodes it into `outbox`, with properties of this delivery's own.
    pub fn append_to(&self, outbox: &mut Outbox, frames: &mut Frames, form: Form, own: &[u8]) {
        let is_alike = !form.dup
            && !form.retain
            && form.topic_prefix.is_empty()
            && form.mount_bytes == 0
            && own.is_empty();
        if frames.shared && is_alike {
            let frame = frames.get(self, form);
            outbox.append_bytes(&frame.bytes);
            if let (Some(at), Some(packet_id)) = (frame.packet_id_at, form.packet_id) {
                let from_end = frame.bytes.len() - at;
                outbox.last_bytes(from_end)[..2].copy_from_slice(&packet_id.get().to_be_bytes());
            }
        } else {
            outbox.append(|out| self.encode(form, own, out));
        }
        if self.payload.len() > COPY_MAX {
            outbox.append_payload(self.message());
        }
    }

    /// What the packet takes.
    pub fn packet_bytes(&self, form: Form, own: &[u8]) -> usize {
        let (expiry, properties) = (self.expiry(), self.seen_properties(form));
        let expiry = expiry.as_ref().map_or(&[][..], |bytes| bytes);
        let head = self.head(form, [&properties, expiry, own]);
        head.packet_bytes(form.wire)
    }

    /// Head and, if it is small, payload; the place of the packet id.
    #[inline]
    fn encode(&self, form: Form, own: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let is_plain = own.is_empty() && self.expires == Time::MAX && form.mount_bytes == 0;
        let packet_id_at = if is_plain {
            // Most have none of these: putting together nothing would cost too.
            encode_publish_head(&self.head(form, [self.properties]), form.wire, out)
        } else {
            self.encode_with(form, own, out)
        };
        if self.payload.len() <= COPY_MAX {
            out.extend_from_slice(self.payload);
        }
        packet_id_at
    }

    #[inline(never)]
    fn encode_with(&self, form: Form, own: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let (expiry, properties) = (self.expiry(), self.seen_properties(form));
        let expiry = expiry.as_ref().map_or(&[][..], |bytes| bytes);
        let head = self.head(form, [&properties, expiry, own]);
        encode_publish_head(&head, form.wire, out)
    }

    /// The topic as its receiver knows it, without prefix.
    #[inline]
    pub fn seen_topic(&self, form: Form) -> &[u8] {
        let topic = self.topic.as_str().as_bytes();
        topic.get(form.mount_bytes.into()..).unwrap_or_default()
    }

    fn seen_properties(&self, form: Form) -> Cow<'_, [u8]> {
        match form.mount_bytes {
            0 => Cow::Borrowed(self.properties),
            bytes => leave_properties(self.topic.as_str(), bytes, self.properties),
        }
    }

    fn expiry(&self) -> Option<[u8; 5]> {
        match self.expires {
            Time::MAX => None,
            expires => Some(encode_message_expiry(secs_left(expires, self.now))),
        }
    }

    #[inline]
    fn head<'h, const PIECES: usize>(
        &'h self,
        form: Form,
        properties: [&'h [u8]; PIECES],
    ) -> PublishHead<'h, PIECES> {
        let (topic_prefix, topic) = match form.aliased {
            true => ("", &[][..]),
            false => (form.topic_prefix, self.seen_topic(form)),
        };
        PublishHead {
            dup: form.dup,
            qos: form.qos,
            retain: form.retain,
            topic_prefix,
            topic,
            packet_id: form.packet_id,
            properties,
            payload_len: self.payload.len(),
        }
    }
}

/// The received interval less the whole seconds that have passed
/// [MQTT-3.3.2-6].
fn secs_left(expires: Time, now: Time) -> u32 {
    let left = expires.since(now) + Duration::from_micros(999_999);
    u32::try_from(left.as_secs()).unwrap_or(u32::MAX)
}

/// The encoded forms of one publication, made when first asked for and used
/// for all its receivers; the buffers are used again for the next.
#[derive(Default)]
pub struct Frames {
    frames: [Frame; 9],
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
        let frame = &mut self.frames[form.wire as usize * 3 + form.qos as usize];
        if frame.bytes.is_empty() {
            frame.packet_id_at = publication.encode(form, &[], &mut frame.bytes);
        }
        frame
    }
}
