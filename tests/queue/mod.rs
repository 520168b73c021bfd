//! The work queue: stories that show each rule, and a slow, obvious model
//! beside it.

mod model;
mod random;
mod settling;
mod shelf;
mod stories;

use std::sync::Arc;
use std::time::Duration;

use rotamq::config::{Dispatch, Overflow, Undecided};
use rotamq::message::{
    ClientId, Envelope, Identity, Message, MessageId, Place, Qos, SessionId, Time,
};
use rotamq::queue::{Membership, Rules, Settings};
use rotamq::topic::{TopicLimits, TopicName};

/// A queue's settings by default, but for failures: their jobs come back at
/// once, so that a story about something else need not wait for them.
fn settings(rules: Rules) -> Settings {
    Settings {
        prefetch: 16,
        ack_timeout: Some(Duration::from_secs(60)),
        undecided: Undecided::DeadLetter,
        undecided_after: Duration::from_secs(86_400),
        exclusive: false,
        dispatch: Dispatch::RoundRobin,
        deliveries_max: 10,
        backoff_min: Duration::ZERO,
        backoff_max: Duration::from_secs(300),
        ttl: None,
        dead_letter_expired: false,
        fair: false,
        last_value: false,
        dedup_window: Duration::from_secs(300),
        trace_events_max: 50,
        overflow: Overflow::Reject,
        messages_max: 1_000_000,
        bytes_max: 1 << 30,
        rules,
    }
}

fn membership(qos: Qos) -> Membership {
    Membership {
        qos,
        prefetch: None,
        ack_timeout: None,
    }
}

fn session(slot: u32, generation: u32) -> SessionId {
    SessionId(Place { slot, generation })
}

/// A message that says which job it is.
fn message(job: u64, qos: Qos, padding: usize) -> Arc<Message> {
    received(job, qos, padding, Time::ZERO, Time::MAX)
}

fn received(job: u64, qos: Qos, padding: usize, at: Time, expires: Time) -> Arc<Message> {
    let topic = TopicName::parse("jobs", TopicLimits::NONE).expect("a topic name");
    let publisher = Arc::new(Identity {
        user: None,
        client: ClientId::new("producer"),
    });
    let mut payload = job.to_string();
    payload.extend(std::iter::repeat_n(
        ' ',
        padding.saturating_sub(payload.len()),
    ));
    Arc::new(Message::new(
        topic,
        &[],
        payload.as_bytes(),
        Envelope {
            id: MessageId(0),
            qos,
            retain: false,
            publisher,
            received: at,
            expires,
        },
    ))
}

fn job_of(message: &Message) -> u64 {
    let text = std::str::from_utf8(message.payload()).expect("a number");
    text.trim_end().parse().expect("a number")
}
