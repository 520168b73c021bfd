//! The nouns that every part shares.
//!
//! A PUBLISH that somebody has to keep becomes one [`Message`], held by an
//! [`Arc`] in every session and queue that waits for it. This module does
//! nothing with them: no I/O, no clock, no routing.

use std::fmt;
use std::num::{NonZeroU16, NonZeroU32};
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::time::Duration;

use crate::topic::TopicName;

/// Quality of service of a PUBLISH or of a subscription (4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Qos {
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
}

impl Qos {
    /// The QoS of two bits of a packet; 3 is malformed [MQTT-3.3.1-4].
    pub const fn from_bits(bits: u8) -> Option<Qos> {
        match bits {
            0 => Some(Qos::AtMostOnce),
            1 => Some(Qos::AtLeastOnce),
            2 => Some(Qos::ExactlyOnce),
            _ => None,
        }
    }
}

/// A packet identifier; never zero [MQTT-2.3.1-1].
pub type PacketId = NonZeroU16;

/// A subscription identifier (MQTT 5): 1 to 268,435,455 (3.8.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(NonZeroU32);

impl SubscriptionId {
    pub const MAX: u32 = 268_435_455;

    pub const fn new(id: u32) -> Option<SubscriptionId> {
        match NonZeroU32::new(id) {
            Some(id) if id.get() <= SubscriptionId::MAX => Some(SubscriptionId(id)),
            _ => None,
        }
    }

    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

/// A moment, in microseconds since 1970 began.
///
/// The broker's clock is set by the system's when it starts and is monotonic
/// from then on; so a moment can be stored, and means the same to a later run.
/// The pure parts get it as an argument; only `run` and `net` read a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    pub const ZERO: Time = Time(0);
    pub const MAX: Time = Time(u64::MAX);

    pub const fn from_micros(micros: u64) -> Time {
        Time(micros)
    }

    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The time since `earlier`; zero when `earlier` is later.
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    /// Saturates: a deadline too far away is one that never comes.
    fn add(self, span: Duration) -> Time {
        Time(
            self.0
                .saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Time {
    type Output = Time;

    fn sub(self, span: Duration) -> Time {
        Time(
            self.0
                .saturating_sub(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)),
        )
    }
}

/// A client's identifier: any text that a CONNECT may carry, or one that the
/// broker made up [MQTT-3.1.3-6].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(Arc<str>);

impl ClientId {
    pub fn new(text: &str) -> ClientId {
        ClientId(text.into())
    }

    /// Whether they are one in memory, which clones are.
    pub fn is_same(&self, other: &ClientId) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ClientId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Escaped, so that no client writes into a log what it likes.
impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Who does something: what access is decided on, and what sessions, wills,
/// retained and queued messages remember of their maker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// `None`: anonymous.
    pub user: Option<Arc<str>>,
    pub client: ClientId,
}

impl Identity {
    /// Of the names, in bytes.
    fn len(&self) -> usize {
        self.client.as_str().len() + self.user.as_deref().map_or(0, str::len)
    }
}

/// A place in a table of sessions, queues or the like: which slot, and which
/// of the values that lived there one after the other.
///
/// Who keeps a place longer than its value lives finds another generation in
/// the slot, and with it nobody: closing a session changes no table that
/// names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub slot: u32,
    pub generation: u32,
}

/// A session's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub Place);

/// The place of a work queue, or of a share group, which is a list of the
/// same kind under other rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub Place);

/// One delivery of one job to one member. It is stale as soon as the job was
/// settled, or came back to the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseId {
    // Where the queue keeps the two.
    pub(crate) job: u32,
    pub(crate) member: u32,
    pub(crate) number: u64,
}

impl LeaseId {
    /// Of a share group's message that went to its member without a job, as the
    /// one of that sequence.
    pub(crate) fn straight(sequence: u64) -> LeaseId {
        LeaseId {
            job: u32::MAX,
            member: u32::MAX,
            number: sequence,
        }
    }

    /// Whether the group has no job for it: all that there is is in the session.
    pub fn is_straight(self) -> bool {
        self.job == u32::MAX
    }

    /// Unique in its queue, and higher than that of every earlier delivery.
    pub fn number(self) -> u64 {
        self.number
    }
}

/// What a kept message takes beside its body and its publisher's names, so that
/// limits in bytes are what memory shows: the message with its counters, what
/// an allocator adds to two pieces, and a place in a list that has grown by
/// doubling.
const AROUND_BODY_BYTES: usize = size_of::<Message>() + 2 * 8 + 2 * 16 + 2 * 16;

/// A number that every kept message has to itself.
///
/// Those of one broker rise roughly with time; nothing depends on their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

impl MessageId {
    /// As clients see it: in hexadecimal digits, 16 at most. Every stored
    /// message is answered and delivered with it, and `fmt` takes four times as
    /// long.
    pub fn digits(self, buffer: &mut [u8; 16]) -> &str {
        let mut from = buffer.len();
        let mut left = self.0;
        loop {
            from -= 1;
            buffer[from] = b"0123456789abcdef"[(left % 16) as usize];
            left /= 16;
            if left == 0 {
                break;
            }
        }
        std::str::from_utf8(&buffer[from..]).expect("digits are text")
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.digits(&mut [0; 16]))
    }
}

/// What is known of a message beside what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    pub id: MessageId,
    /// As published.
    pub qos: Qos,
    /// Whether it was published to be retained.
    pub retain: bool,
    pub publisher: Arc<Identity>,
    pub received: Time,
    /// The last moment at which its delivery may begin (MQTT 5, 3.3.2.3.3);
    /// [`Time::MAX`]: any.
    pub expires: Time,
}

/// A published message that somebody keeps.
///
/// Topic, properties and payload lie in one allocation.
#[derive(PartialEq, Eq)]
pub struct Message {
    body: Box<[u8]>,
    properties_at: u32,
    payload_at: u32,
    envelope: Envelope,
}

impl Message {
    /// `properties` are the encoded MQTT 5 properties that are passed on to
    /// receivers as they are, empty for none: not the expiry interval, which
    /// runs down, and what holds for one connection only.
    pub fn new(
        topic: TopicName<'_>,
        properties: &[u8],
        payload: &[u8],
        envelope: Envelope,
    ) -> Message {
        let topic = topic.as_str().as_bytes();
        let mut body = Vec::with_capacity(topic.len() + properties.len() + payload.len());
        body.extend_from_slice(topic);
        body.extend_from_slice(properties);
        body.extend_from_slice(payload);
        // A packet is below 256 MiB (2.2.3), so that its parts fit 32 bits.
        let properties_at = topic.len() as u32;
        let payload_at = properties_at + properties.len() as u32;
        Message {
            body: body.into_boxed_slice(),
            properties_at,
            payload_at,
            envelope,
        }
    }

    pub fn id(&self) -> MessageId {
        self.envelope.id
    }

    /// As [`encode_stored`] has put it together; `None`: it did not.
    pub fn decode_stored(bytes: &[u8]) -> Option<Message> {
        let (head, rest) = bytes.split_first_chunk::<STORED_HEAD_BYTES>()?;
        let number = |at: usize| {
            let bytes = head[at..].first_chunk().expect("the head is long enough");
            u64::from_le_bytes(*bytes)
        };
        let short = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let flags = head[24];
        let properties_len = u32::from_le_bytes(*head[31..].first_chunk()?) as usize;
        let (client, rest) = rest.split_at_checked(short(25).into())?;
        let (user, body) = rest.split_at_checked(short(27).into())?;
        let text = |bytes| std::str::from_utf8(bytes).ok();
        let user = match flags & STORED_HAS_USER {
            0 => None,
            _ => Some(text(user)?.into()),
        };
        let properties_at = usize::from(short(29));
        let payload_at = properties_at + properties_len;
        text(body.get(..properties_at)?)?;
        (payload_at <= body.len()).then_some(())?;
        Some(Message {
            body: body.into(),
            properties_at: properties_at as u32,
            payload_at: payload_at as u32,
            envelope: Envelope {
                id: MessageId(number(0)),
                qos: Qos::from_bits(flags & 3)?,
                retain: flags & STORED_RETAIN != 0,
                publisher: Arc::new(Identity {
                    user,
                    client: ClientId::new(text(client)?),
                }),
                received: Time(number(8)),
                expires: Time(number(16)),
            },
        })
    }

    /// What [`Message::decode_stored`] reads.
    pub fn encode_stored(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128 + self.body.len());
        encode_stored(&self.envelope, self.topic(), self.properties(), &mut out);
        out.extend_from_slice(&self.body);
        out
    }

    /// The same message, with these properties, and another last moment.
    pub fn with(&self, properties: &[u8], expires: Time) -> Message {
        let envelope = Envelope {
            expires,
            ..self.envelope.clone()
        };
        Message::new(self.topic(), properties, self.payload(), envelope)
    }

    /// The same message, as if it had come at `now`; it never expires.
    pub fn received_anew(message: &Message, now: Time) -> Message {
        Message {
            body: message.body.clone(),
            envelope: Envelope {
                received: now,
                expires: Time::MAX,
                ..message.envelope.clone()
            },
            ..*message
        }
    }

    /// The topic's text, without a second look at its encoding.
    pub fn topic_bytes(&self) -> &[u8] {
        &self.body[..self.properties_at as usize]
    }

    pub fn topic(&self) -> TopicName<'_> {
        let text = std::str::from_utf8(self.topic_bytes());
        TopicName::of_valid(text.expect("the body begins with a topic name's text"))
    }

    pub fn properties(&self) -> &[u8] {
        &self.body[self.properties_at as usize..self.payload_at as usize]
    }

    pub fn payload(&self) -> &[u8] {
        &self.body[self.payload_at as usize..]
    }

    /// The QoS at which it was published.
    pub fn qos(&self) -> Qos {
        self.envelope.qos
    }

    /// Whether it was published to be retained.
    pub fn retain(&self) -> bool {
        self.envelope.retain
    }

    pub fn publisher(&self) -> &Arc<Identity> {
        &self.envelope.publisher
    }

    pub fn received(&self) -> Time {
        self.envelope.received
    }

    /// The last moment at which its delivery may begin; [`Time::MAX`]: any.
    pub fn expires(&self) -> Time {
        self.envelope.expires
    }

    /// Whether its time has passed [MQTT-3.3.2-5].
    pub fn has_expired(&self, now: Time) -> bool {
        now > self.envelope.expires
    }

    /// What it takes of a limit in bytes: its body and what surrounds it.
    pub fn cost_bytes(&self) -> usize {
        self.envelope.publisher.len() + self.body.len() + AROUND_BODY_BYTES
    }

    /// What a message of these parts would take.
    pub fn cost_bytes_of(
        publisher: &Identity,
        topic: TopicName<'_>,
        properties: &[u8],
        payload: &[u8],
    ) -> usize {
        let body = topic.as_str().len() + properties.len() + payload.len();
        publisher.len() + body + AROUND_BODY_BYTES
    }

    /// What so many messages take, which are so long as they are stored.
    pub fn cost_bytes_stored(count: usize, bytes: usize) -> usize {
        (bytes + count * AROUND_BODY_BYTES).saturating_sub(count * STORED_HEAD_BYTES)
    }
}

const STORED_HEAD_BYTES: usize = 35;
const STORED_RETAIN: u8 = 4;
const STORED_HAS_USER: u8 = 8;

/// The head of a stored message, to be followed by its topic, properties and
/// payload: what [`Message::decode_stored`] reads.
pub fn encode_stored(
    envelope: &Envelope,
    topic: TopicName<'_>,
    properties: &[u8],
    out: &mut Vec<u8>,
) {
    let publisher = &*envelope.publisher;
    let user = publisher.user.as_deref();
    let mut flags = envelope.qos as u8;
    if envelope.retain {
        flags |= STORED_RETAIN;
    }
    if user.is_some() {
        flags |= STORED_HAS_USER;
    }
    let (client, user) = (publisher.client.as_str(), user.unwrap_or_default());
    // Packets bound all lengths: texts to 16 bits, properties to 28.
    out.extend_from_slice(&envelope.id.0.to_le_bytes());
    out.extend_from_slice(&envelope.received.0.to_le_bytes());
    out.extend_from_slice(&envelope.expires.0.to_le_bytes());
    out.push(flags);
    out.extend_from_slice(&(client.len() as u16).to_le_bytes());
    out.extend_from_slice(&(user.len() as u16).to_le_bytes());
    out.extend_from_slice(&(topic.as_str().len() as u16).to_le_bytes());
    out.extend_from_slice(&(properties.len() as u32).to_le_bytes());
    out.extend_from_slice(client.as_bytes());
    out.extend_from_slice(user.as_bytes());
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic())
            .field("payload_bytes", &self.payload().len())
            .field("envelope", &self.envelope)
            .finish_non_exhaustive()
    }
}
