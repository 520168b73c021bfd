//! Who may connect, publish, subscribe, join, leave a will and be delivered to.
//!
//! One function decides all of it, so that no way a message takes has rules of
//! its own. Decides only; what a refusal means for a client is `broker`'s.

mod enhanced;

use std::fmt;
use std::sync::Arc;

pub use enhanced::{Conversation, Method, Step};

use crate::message::Identity;

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub enum Action<'a> {
    /// The password is checked with the user name in the identity, unless the
    /// client has authenticated by a [`Method`].
    Connect {
        password: Option<&'a [u8]>,
        authenticated: bool,
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
pub struct Access {
    allow_anonymous: bool,
    methods: Vec<Arc<dyn Method>>,
}

impl Access {
    pub fn new(allow_anonymous: bool) -> Access {
        Access {
            allow_anonymous,
            methods: Vec::new(),
        }
    }

    /// Clients may authenticate by this method too.
    pub fn add_method(&mut self, method: Arc<dyn Method>) {
        self.methods.push(method);
    }

    /// The method of that name.
    pub fn method(&self, name: &str) -> Option<&Arc<dyn Method>> {
        self.methods.iter().find(|method| method.name() == name)
    }

    /// Whether `who` may do `action`.
    ///
    /// There are no passwords yet: a user name alone is somebody's word for
    /// it, and counts as anonymous.
    #[inline]
    pub fn decide(&self, _who: &Identity, action: Action<'_>) -> Decision {
        match action {
            Action::Connect {
                authenticated: false,
                ..
            } if !self.allow_anonymous => Decision::Deny,
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

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let methods: Vec<_> = self.methods.iter().map(|method| method.name()).collect();
        f.debug_struct("Access")
            .field("allow_anonymous", &self.allow_anonymous)
            .field("methods", &methods)
            .finish()
    }
}
