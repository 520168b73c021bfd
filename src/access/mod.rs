//! Who may connect, publish, subscribe, join, leave a will and be delivered to.
//!
//! One function decides all of it, so that no way a message takes has rules of
//! its own. Decides only; what a refusal means for a client is `broker`'s.

use crate::message::Identity;

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub enum Action<'a> {
    /// The password is checked with the user name in the identity.
    Connect {
        password: Option<&'a [u8]>,
    },
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
#[derive(Debug)]
pub struct Access {
    allow_anonymous: bool,
}

impl Access {
    pub fn new(allow_anonymous: bool) -> Access {
        Access { allow_anonymous }
    }

    /// Whether `who` may do `action`.
    ///
    /// There are no users yet who could be told from others: a user name is
    /// somebody's word for it, and counts as anonymous.
    #[inline]
    pub fn decide(&self, _who: &Identity, action: Action<'_>) -> Decision {
        match action {
            Action::Connect { .. } if !self.allow_anonymous => Decision::Deny,
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
