//! Enhanced authentication (MQTT 5, 4.12): who a client is, found out by
//! questions and answers.
//!
//! Owns what a method is. Knows no packet and no connection: `broker` carries
//! data both ways.

use super::Authenticated;
use crate::message::Identity;

/// A way to authenticate, as SCRAM-SHA-256 is one.
pub trait Method: Send + Sync {
    /// As in the property Authentication Method, letter for letter.
    fn name(&self) -> &str;

    /// A client begins; nothing has been said yet.
    fn begin(&self) -> Box<dyn Conversation>;
}

/// One client's questions and answers.
pub trait Conversation: Send {
    /// What the client says; empty where it said nothing. `who`: as CONNECT
    /// has it, and its user found out before when it authenticates again.
    fn step(&mut self, who: &Identity, data: &[u8]) -> Step;
}

impl Step {
    /// The most that a method may say at a time; more counts as rejecting.
    pub const DATA_BYTES_MAX: usize = 65_535;
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// This is asked next.
    Ask(Vec<u8>),
    /// This is who the client is, and it is told so with these data, if any.
    Accept { who: Authenticated, data: Vec<u8> },
    /// It is not who it says.
    Reject,
    /// It cannot be found out now, and counts as no failure: the client may come
    /// again.
    Later,
}
