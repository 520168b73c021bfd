//! Who may publish, subscribe, join, leave a will and be delivered to.
//!
//! One function decides all of it, so that no way a message takes has rules of
//! its own. Decides only; what a refusal means for a client is `broker`'s, and
//! who somebody is, `authentication`'s.

pub mod rules;

use crate::message::Identity;

/// What requests to steer queues are published to.
pub const CONTROL_TOPIC: &str = "$CONTROL/rotamq/v1";

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub enum Action<'a> {
    Publish {
        topic: &'a str,
    },
    Subscribe {
        filter: &'a str,
    },
    /// Become a member of a work queue, and create it where it does not exist.
    Join {
        queue: &'a str,
    },
    Will {
        topic: &'a str,
    },
    /// Get a message, whichever way it comes.
    Deliver {
        topic: &'a [u8],
    },
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    Deny,
}

/// The rules in force.
#[derive(Debug, Default)]
pub struct Access {}

impl Access {
    /// Whether `who` may do `action`.
    #[inline]
    pub fn decide(&self, _who: &Identity, action: Action<'_>) -> Decision {
        match action {
            // Topics below $SYS are the broker's own to publish.
            Action::Publish { topic } | Action::Will { topic }
                if topic == "$SYS" || topic.starts_with("$SYS/") =>
            {
                Decision::Deny
            }
            _ => Decision::Allow,
        }
    }
}
