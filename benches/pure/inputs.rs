//! Topics and messages that several benchmarks work on.

use std::sync::Arc;

use rotamq::message::{ClientId, Envelope, Identity, Message, MessageId, Qos, Time};
use rotamq::topic::{TopicFilter, TopicLimits, TopicName};

/// What most messages of machines are about as long as.
pub const PAYLOAD: [u8; 64] = [b'x'; 64];

/// How many subscriptions or messages there are, one number after the other.
pub const SIZES: [usize; 3] = [1, 1000, 1_000_000];

/// A million topics of six levels, a hundred values for each that varies: the
/// one of that number.
pub fn topic_of(number: usize) -> String {
    let (site, line, sensor) = levels_of(number);
    format!("site/{site}/line/{line}/sensor/{sensor}")
}

/// The levels of a number that vary.
pub fn levels_of(number: usize) -> (usize, usize, usize) {
    (number % 100, number / 100 % 100, number / 10_000)
}

/// Numbers below `size`, `count` at most, each once and far from the one
/// before: so the processor's cache has what it would have of a million topics.
pub fn scattered(size: usize, count: usize) -> impl Iterator<Item = usize> {
    const PRIME: usize = 104_729;
    (0..size.min(count)).map(move |at| at * PRIME % size)
}

pub fn name(text: &str) -> TopicName<'_> {
    TopicName::parse(text, TopicLimits::NONE).expect("a topic name")
}

pub fn filter(text: &str) -> TopicFilter<'_> {
    TopicFilter::parse(text, TopicLimits::NONE).expect("a topic filter")
}

pub fn identity() -> Arc<Identity> {
    Arc::new(Identity {
        user: None,
        client: ClientId::new("a-client"),
    })
}

/// One of [`PAYLOAD`], at QoS 1.
pub fn message(topic: &str, retain: bool, publisher: &Arc<Identity>) -> Arc<Message> {
    let envelope = Envelope {
        id: MessageId(1),
        qos: Qos::AtLeastOnce,
        retain,
        publisher: publisher.clone(),
        received: Time::ZERO,
        expires: Time::MAX,
    };
    Arc::new(Message::new(name(topic), &[], &PAYLOAD, envelope))
}
