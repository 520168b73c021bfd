//! Who may publish, subscribe, join, steer, leave a will and be delivered to.
//!
//! Owns which rules are in force, and since when. Decides only; what a refusal
//! means for a client is `broker`'s, and who somebody is, `authentication`'s.

pub mod explain;
mod own;
pub mod rules;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::RwLock;

use crate::config::{ConfigError, Source};
use crate::message::{Identity, Qos};
use crate::topic::{self, TopicFilter};
pub use own::OwnRights;
use rules::{Ask, Denial, Publishing, Reach, Rights, Rules, Strictness, Verdict};

/// What requests to steer queues are published to.
pub const CONTROL_TOPIC: &str = "$CONTROL/rotamq/v1";

/// The rules in force. Without any, who is let in may do everything, but for
/// clients that come with rights of their own.
pub struct Access {
    policy: RwLock<Policy>,
    // How often it was set; 0: there never were any rules, nor do any come with
    // clients.
    epoch: AtomicU32,
}

/// What decides.
#[derive(Clone)]
pub struct Policy {
    /// `None`: there are none.
    pub rules: Option<Arc<Rules>>,
    /// Which subscriptions are granted.
    pub strictness: Strictness,
    /// Whether clients may come with rights of their own.
    pub takes_own: bool,
}

/// Somebody whose rights are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    pub identity: &'a Identity,
    /// That came with it; `None`: what the rules in force say is all.
    pub own: Option<&'a OwnRights>,
}

/// What a connection may publish, by the rules that were in force when it was
/// asked last.
#[derive(Debug, Default)]
pub struct Permit(Option<Box<Held>>);

#[derive(Debug)]
struct Held {
    epoch: u32,
    publishing: Option<Publishing>,
}

/// It is not allowed: why, for the log. Clients are not told the rules.
#[derive(Debug, PartialEq, Eq)]
pub struct Denied(String);

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A subscription that is granted.
pub struct Subscribing {
    pub qos_max: Qos,
    /// Who has to be asked of each delivery; `None`: all that comes by it may
    /// be read.
    pub gate: Option<Arc<Rights>>,
}

impl Access {
    /// `takes_own`: clients may come with rights of their own.
    pub fn new(strictness: Strictness, takes_own: bool) -> Access {
        Access {
            policy: RwLock::new(Policy {
                rules: None,
                strictness,
                takes_own,
            }),
            epoch: AtomicU32::new(takes_own.into()),
        }
    }

    /// These rules are in force from now on.
    pub fn set_rules(&self, rules: Rules) {
        self.policy.write().rules = Some(Arc::new(rules));
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// This is in force from now on, in place of all from before.
    pub fn set_policy(&self, policy: Policy) {
        let mut current = self.policy.write();
        let is_on = |policy: &Policy| policy.rules.is_some() || policy.takes_own;
        // Who never was asked for rights need not be.
        let changes = self.is_on() || is_on(&policy);
        *current = policy;
        drop(current);
        if changes {
            self.epoch.fetch_add(1, Ordering::Release);
        }
    }

    /// Whether there are rules, or may be for some client.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.epoch.load(Ordering::Acquire) > 0
    }

    /// Whether anything is said of what a client may do.
    pub fn binds(&self, who: Client<'_>) -> bool {
        who.own.is_some() || self.policy.read().rules.is_some()
    }

    /// How subscriptions are asked for of which a part may be read.
    pub fn strictness(&self) -> Strictness {
        self.policy.read().strictness
    }

    /// Whether clients may come with rights of their own.
    pub fn takes_own(&self) -> bool {
        self.policy.read().takes_own
    }

    /// What a client may do; `None`: everything.
    pub fn rights(&self, who: Client<'_>) -> Option<Arc<Rights>> {
        let rules = self.policy.read().rules.clone();
        let own = who.own.map(|own| std::slice::from_ref(own.set()));
        let rights = match (&rules, own) {
            (None, None) => return None,
            (Some(rules), own) => rules.rights(who.identity, own.unwrap_or_default()),
            // As where no rule of a file is about the client.
            (None, Some(own)) => Rules::default().rights(who.identity, own),
        };
        Some(Arc::new(rights))
    }

    /// Whether a client may publish to a topic as a PUBLISH or a will has it,
    /// with `$queue/` where it has that.
    ///
    /// # Errors
    /// It may not.
    #[inline]
    pub fn may_publish(
        &self,
        permit: &mut Permit,
        who: Client<'_>,
        (topic, qos, retain): (&str, Qos, bool),
    ) -> Result<(), Denied> {
        let is_special = topic.starts_with('$');
        if is_special {
            check_reserved(topic)?;
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        if epoch == 0 {
            return Ok(());
        }
        let publishing = match &mut permit.0 {
            Some(held) if held.epoch == epoch => &mut held.publishing,
            _ => self.renew(permit, who, epoch),
        };
        let Some(publishing) = publishing else {
            return Ok(());
        };
        let is_put = is_special && topic.starts_with("$queue/");
        if !is_put && publishing.may_publish(topic, qos, retain) {
            return Ok(());
        }
        check(publishing.rights(), ask_to_publish(topic, qos, retain))
    }

    #[cold]
    fn renew<'a>(
        &self,
        permit: &'a mut Permit,
        who: Client<'_>,
        epoch: u32,
    ) -> &'a mut Option<Publishing> {
        let publishing = self.rights(who).map(Publishing::new);
        let held = Held { epoch, publishing };
        &mut permit.0.insert(Box::new(held)).publishing
    }

    /// As [`Access::may_publish`], of somebody who asks once.
    ///
    /// # Errors
    /// It may not.
    pub fn may_publish_once(
        &self,
        who: Client<'_>,
        publish: (&str, Qos, bool),
    ) -> Result<(), Denied> {
        self.may_publish(&mut Permit::default(), who, publish)
    }

    /// Whether what somebody published before, and could then, may go out still.
    /// Rights that came with it are not known any more: where there may have been
    /// such, a rule has to deny it.
    ///
    /// # Errors
    /// It may not.
    pub fn may_still_publish(
        &self,
        who: &Identity,
        (topic, qos, retain): (&str, Qos, bool),
    ) -> Result<(), Denied> {
        let Some(rights) = self.rights(Client::known(who)) else {
            return Ok(());
        };
        match rights.decide(ask_to_publish(topic, qos, retain)) {
            Verdict::Allowed(_) => Ok(()),
            Verdict::Denied(Denial::Unmatched | Denial::UnfitUser | Denial::UnfitClient)
                if self.takes_own() =>
            {
                Ok(())
            }
            verdict => Err(Denied(rights.explain(verdict).to_string())),
        }
    }

    /// Whether a client may do something that is asked for once.
    ///
    /// # Errors
    /// It may not.
    pub fn may(&self, who: Client<'_>, ask: Ask<'_>) -> Result<(), Denied> {
        match self.rights(who) {
            Some(rights) => check(&rights, ask),
            None => Ok(()),
        }
    }

    /// Whether a client may subscribe to a filter; who else may is asked of each
    /// delivery.
    ///
    /// # Errors
    /// It may not.
    pub fn may_subscribe(
        &self,
        who: Client<'_>,
        filter: TopicFilter<'_>,
    ) -> Result<Subscribing, Denied> {
        let Some(rights) = self.rights(who) else {
            return Ok(Subscribing::ALL);
        };
        let strictness = self.policy.read().strictness;
        check(&rights, Ask::Subscribe { filter, strictness })?;
        let reads_all = matches!(rights.reach(filter), Reach::All(_));
        Ok(Subscribing {
            qos_max: rights.qos_max(),
            gate: (!reads_all).then_some(rights),
        })
    }

    /// Whether a client may be one of several who share what comes by these
    /// filters, and do what it asks beside that. It has to have the right to all
    /// of it: what it may not have, nobody else gets in its stead.
    ///
    /// # Errors
    /// It may not.
    pub fn may_share<'a>(
        &self,
        who: Client<'_>,
        asks: &[Ask<'_>],
        filters: impl Iterator<Item = TopicFilter<'a>>,
    ) -> Result<Subscribing, Denied> {
        let Some(rights) = self.rights(who) else {
            return Ok(Subscribing::ALL);
        };
        for ask in asks {
            check(&rights, *ask)?;
        }
        for filter in filters {
            let strictness = Strictness::Refuse;
            check(&rights, Ask::Subscribe { filter, strictness })?;
        }
        Ok(Subscribing {
            qos_max: rights.qos_max(),
            gate: None,
        })
    }

    /// Which rules are in force: other ones have another number.
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }
}

impl<'a> Client<'a> {
    /// Somebody of whom the rules in force say all.
    pub fn known(identity: &'a Identity) -> Client<'a> {
        Client {
            identity,
            own: None,
        }
    }
}

impl Subscribing {
    const ALL: Subscribing = Subscribing {
        qos_max: Qos::ExactlyOnce,
        gate: None,
    };
}

/// The rules in these files; `None`: there are no files.
///
/// # Errors
/// A file cannot be read; or all that is wrong in them, each with its line.
pub fn read_rules(acl: Option<&Path>, form: Option<&Path>) -> Result<Option<Rules>, ConfigError> {
    let acl = acl.map(Source::read).transpose()?;
    let form = form.map(Source::read).transpose()?;
    if acl.is_none() && form.is_none() {
        return Ok(None);
    }
    Rules::parse(acl.as_ref(), form.as_ref()).map(Some)
}

/// Topics below $SYS are the broker's own to publish.
fn check_reserved(topic: &str) -> Result<(), Denied> {
    match topic::is_sys(topic) {
        true => Err(Denied("only the broker publishes below $SYS".into())),
        false => Ok(()),
    }
}

/// What a PUBLISH to that topic, as it is written, asks for.
pub fn ask_to_publish(topic: &str, qos: Qos, retain: bool) -> Ask<'_> {
    match topic.strip_prefix("$queue/") {
        Some(topic) => Ask::Put { topic, qos },
        None => Ask::Publish { topic, qos, retain },
    }
}

fn check(rights: &Rights, ask: Ask<'_>) -> Result<(), Denied> {
    match rights.decide(ask) {
        Verdict::Allowed(_) => Ok(()),
        verdict => Err(Denied(rights.explain(verdict).to_string())),
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}
