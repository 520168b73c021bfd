//! The work queue: stories that show each rule, and a slow, obvious model
//! beside it.

mod model;
mod random;
mod settling;
mod stories;

use std::sync::Arc;
use std::time::Duration;

use rotamq::config::Undecided;
use rotamq::message::{
    ClientId, Envelope, Identity, Message, MessageId, Place, Qos, SessionId, Time,
};
use rotamq::queue::{Membership, Rules, Settings};
use rotamq::topic::{TopicLimits, TopicName};

fn settings(rules: Rules) -> Settings {
    Settings {
        prefetch: 16,
        ack_timeout: Some(Duration::from_secs(60)),
        undecided: Undecided::DeadLetter,
        undecided_after: Duration::from_secs(86_400),
        exclusive: false,
        messages_max: 1_000_000,
        bytes_max: 1 << 30,
        trace_events_max: 0,
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

/// A message that says which job it is, by its payload and by its time.
fn message(job: u64, qos: Qos, padding: usize) -> Arc<Message> {
    expiring(job, qos, padding, Time::MAX)
}

fn expiring(job: u64, qos: Qos, padding: usize, expires: Time) -> Arc<Message> {
    let topic = TopicName::parse("jobs", TopicLimits::NONE).expect("a topic name");
    let publisher = Arc::new(Identity {
        user: None,
        client: ClientId::new("producer"),
    });
    let payload = format!("{job:<width$}", width = padding);
    Arc::new(Message::new(
        topic,
        &[],
        payload.as_bytes(),
        Envelope {
            id: MessageId(0),
            qos,
            retain: false,
            publisher,
            received: Time::from_micros(job),
            expires,
        },
    ))
}

fn job_of(message: &Message) -> u64 {
    let text = std::str::from_utf8(message.payload()).expect("a number");
    text.trim_end().parse().expect("a number")
}
