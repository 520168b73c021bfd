//! What a client may do, by rules.
//!
//! Owns the rules, how they are written and what they mean. Reads no files, and
//! knows neither sessions nor packets. [`Rules`] are made once from texts and
//! never change; a reload makes new ones. Everything is denied that no rule
//! allows.
//!
//! # What decides
//!
//! A client has some [`RuleSet`]s: of an ACL file its own section and all
//! `pattern` lines; of our own form the roles that it is granted; and what its
//! token or a service says of it, which is a set like a role. In all of them:
//!
//! 1. A rule that denies is stronger than all that allow, in whichever set.
//! 2. Else a rule that allows, in any set, is enough.
//! 3. What no rule is about is denied.
//!
//! The exception is mosquitto's: what a client's `topic` lines allow, `pattern`
//! lines do not deny. The rule that is named is the first in the file of those
//! that decide.
//!
//! Several QoS bounds are one, the lowest: publishing above it is denied, and
//! subscriptions are granted at most that.
//!
//! # Mosquitto's ACL file
//!
//! As mosquitto 2 takes it (`acl_file` in mosquitto.conf(5), its source, and
//! its answers):
//!
//! - `topic` lines before any `user` line are for clients without a user name,
//!   and for these only. A user has the lines of its own sections.
//! - `pattern` lines are for everybody, wherever they stand. `%u` and `%c` are
//!   replaced wherever they stand, also within a level; the manual asks for
//!   levels of their own. Lines with `%u` are not about clients without a user.
//! - `write` is asked for a PUBLISH, retained or not, and for a will; `read` for
//!   each delivery; `deny` denies both. mosquitto grants every subscription and
//!   decides by delivery: so does [`Strictness::Filter`], but for filters that
//!   match nothing readable. [`Strictness::Refuse`] is stricter.
//! - A rule that begins with a wildcard is about no topic that begins with `$`.
//! - A client whose user name or client id has `+` or `#` in it is allowed
//!   nothing by `pattern` lines. Stricter than mosquitto 2: names with `/` or
//!   NUL, and empty ones, fit no `%u` or `%c`, and a name that begins with `$`
//!   does not at the beginning of a topic.
//! - mosquitto has no queues. Lines about topics below `$queue/` give these
//!   rights: `write` to put jobs in, `read` to take them, either to create the
//!   queue. Who may write `$CONTROL/rotamq/v1` steers all queues.
//!
//! # Placeholders
//!
//! A name is compared with one level of a topic; it is never read as a filter.
//! A name that cannot be a level (empty, or with `+`, `#`, `/` or NUL in it)
//! fits no rule that allows. A rule that denies is then about everything that
//! its placeholder could stand for, so that no name escapes it. A first level
//! that begins with `$` has no placeholder: such a rule is an error.
//!
//! # For the broker
//!
//! [`Rules::rights`] finds a client's sets, at CONNECT and again when the rules
//! have changed; [`Rights`] are shared by all that act for the client. They
//! hold the rules they were made of: rights of old rules go on being decided by
//! these until they are made anew.
//!
//! - PUBLISH and wills: [`Publishing::may_publish`], on the topic that is meant
//!   when `$delayed/`, `$settles/` and `$queue/$with/` are read. `$queue/T` asks
//!   for [`Ask::Put`] of T instead, and [`Ask::Create`] where there is no queue.
//!   A will is asked for at CONNECT and when it is published.
//! - SUBSCRIBE: [`Rights::decide`] of [`Ask::Subscribe`], of the filter without
//!   `$share/GROUP/`. `$queue/NAME` asks for [`Ask::Join`], [`Ask::Create`]
//!   where there is no queue, and [`Ask::Subscribe`] of each filter that feeds
//!   it. The QoS granted is [`Rights::qos_max`] at most.
//! - Deliveries, of whatever kind: a session all of whose subscriptions have
//!   [`Rights::reach`] of [`Reach::All`] needs no question for each; one flag
//!   says that. Else [`Rights::may_read`].
//! - Requests to steer: [`Ask::Steer`] for every queue that they name; what is
//!   listed is only what may be steered. Not [`Ask::Publish`].
//! - After a reload: rights, the flag and what is still granted of each
//!   session's subscriptions are decided again.

mod acl;
mod form;
mod recent;
mod set;
mod tree;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ahash::HashMap;

pub use recent::Publishing;
pub use set::{Entry, Right, Rule, RuleSet};
pub use tree::Effect;

use self::set::Kind;
use self::tree::{Name, Names, Place};
use super::CONTROL_TOPIC;
use crate::config::{ConfigError, Source};
use crate::message::{ClientId, Identity, Qos};
use crate::pattern;
use crate::topic::{TopicFilter, TopicLimits};

/// The rules in force, as a whole.
#[derive(Debug, Default)]
pub struct Rules {
    acl: Option<Acl>,
    roles: BTreeMap<Box<str>, Arc<RuleSet>>,
    grants: Vec<Grant>,
}

/// An ACL file.
#[derive(Debug)]
struct Acl {
    anonymous: Option<Arc<RuleSet>>,
    users: HashMap<Box<str>, Arc<RuleSet>>,
    patterns: Option<Arc<RuleSet>>,
}

/// Who has which roles.
#[derive(Debug)]
struct Grant {
    users: Users,
    /// A pattern; `None`: any.
    client: Option<String>,
    roles: Vec<Arc<RuleSet>>,
}

#[derive(Debug)]
enum Users {
    All,
    Anonymous,
    /// Those whose names fit.
    Like(String),
}

impl Rules {
    /// From the texts of an ACL file, of a file of our own form, or of both.
    /// Rules of neither deny everything.
    ///
    /// # Errors
    /// All that is wrong with them, each with its line.
    pub fn parse(acl: Option<&Source>, form: Option<&Source>) -> Result<Rules, ConfigError> {
        let mut problems = Vec::new();
        let acl = acl.map(|source| acl::parse(source, &mut problems));
        let (roles, grants) = match form {
            Some(source) => form::parse(source, &mut problems),
            None => Default::default(),
        };
        match problems.is_empty() {
            true => Ok(Rules { acl, roles, grants }),
            false => Err(ConfigError { problems }),
        }
    }

    /// The role of that name, for whoever tells of a client's roles elsewhere.
    pub fn role(&self, name: &str) -> Option<&Arc<RuleSet>> {
        self.roles.get(name)
    }

    /// What a client may do. `more`: sets that it has beside those that the
    /// rules say.
    pub fn rights(&self, who: &Identity, more: &[Arc<RuleSet>]) -> Rights {
        let (user, client) = (who.user.as_deref(), who.client.as_str());
        let mut sets = Vec::new();
        if let Some(acl) = &self.acl {
            let section = match user {
                Some(user) => acl.users.get(user),
                None => acl.anonymous.as_ref(),
            };
            sets.extend(section.into_iter().chain(&acl.patterns).cloned());
        }
        let granted = self
            .grants
            .iter()
            .filter(|grant| grant.is_for(user, client));
        for role in granted.flat_map(|grant| &grant.roles).chain(more) {
            if !sets.iter().any(|known| Arc::ptr_eq(known, role)) {
                sets.push(Arc::clone(role));
            }
        }
        let bounds = (0..).zip(&sets).filter_map(|(set, rules)| {
            let (qos, rule) = rules.qos_max?;
            Some((qos, RuleRef { set, rule }))
        });
        let has_wildcard = |name: &str| name.contains(['+', '#']);
        Rights {
            qos_max: bounds.min_by_key(|(qos, _)| *qos),
            sets: sets.into(),
            user: who.user.clone(),
            client: who.client.clone(),
            user_is_fit: matches!(Name::of(user), Name::Fit(_)),
            client_is_fit: matches!(Name::of(Some(client)), Name::Fit(_)),
            is_barred: user.is_some_and(has_wildcard) || has_wildcard(client),
        }
    }
}

impl Grant {
    fn is_for(&self, user: Option<&str>, client: &str) -> bool {
        let user_fits = match (&self.users, user) {
            (Users::All, _) | (Users::Anonymous, None) => true,
            (Users::Like(pattern), Some(user)) => pattern::fits(pattern, user),
            _ => false,
        };
        let pattern = self.client.as_deref();
        user_fits && pattern.is_none_or(|pattern| pattern::fits(pattern, client))
    }
}

/// What the rules say of one client.
#[derive(Debug)]
pub struct Rights {
    sets: Box<[Arc<RuleSet>]>,
    user: Option<Arc<str>>,
    client: ClientId,
    user_is_fit: bool,
    client_is_fit: bool,
    /// A name has a wildcard in it: `pattern` lines allow nothing.
    is_barred: bool,
    qos_max: Option<(Qos, RuleRef)>,
}

/// What a client wants to do.
#[derive(Clone, Copy, Debug)]
pub enum Ask<'a> {
    /// To publish, or leave a will: the topic is the one that is meant.
    Publish {
        topic: &'a str,
        qos: Qos,
        retain: bool,
    },
    /// To publish to `$queue/TOPIC`.
    Put {
        topic: &'a str,
        qos: Qos,
    },
    Create {
        queue: TopicFilter<'a>,
    },
    Join {
        queue: TopicFilter<'a>,
    },
    Steer {
        queue: TopicFilter<'a>,
    },
    Subscribe {
        filter: TopicFilter<'a>,
        strictness: Strictness,
    },
    /// To be delivered what was published to the topic.
    Read {
        topic: &'a [u8],
    },
}

/// Which subscriptions are granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// Those that match nothing but what is readable.
    Refuse,
    /// Those that match anything readable; each delivery is decided by itself.
    Filter,
}

/// A rule among those that [`Rights`] are made of, which can say more of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleRef {
    set: u16,
    rule: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed(RuleRef),
    Denied(Denial),
}

impl Verdict {
    pub fn is_allowed(self) -> bool {
        matches!(self, Verdict::Allowed(_))
    }
}

/// Why something is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// This rule denies it, or a part of it.
    Rule(RuleRef),
    /// No rule allows it, or not all of it.
    Unmatched,
    /// Likewise; and rules with `%u` are about nobody of that name.
    UnfitUser,
    /// Likewise; and rules with `%c` are about nobody of that name.
    UnfitClient,
    /// This rule allows no such QoS.
    Qos(RuleRef),
}

/// How much of what a filter matches is readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Everything, by this rule among others.
    All(RuleRef),
    /// Something, by this rule among others, and why not everything.
    Part(RuleRef, Denial),
    Nothing(Denial),
}

/// What the sets say together.
#[derive(Clone, Copy)]
enum Outcome {
    Allow(RuleRef),
    Deny(RuleRef),
    Nothing,
}

impl Rights {
    /// Whether all is allowed that is asked for.
    pub fn decide(&self, ask: Ask<'_>) -> Verdict {
        match ask {
            Ask::Publish { topic, qos, retain } => {
                let topic = topic.as_bytes();
                match self.decide_put(Right::Publish, topic, qos) {
                    Verdict::Allowed(_) if retain => {
                        self.verdict(self.find(Right::Retain, topic, |_| true))
                    }
                    verdict => verdict,
                }
            }
            Ask::Put { topic, qos } => self.decide_put(Right::Put, topic.as_bytes(), qos),
            Ask::Create { queue } => self.decide_all(Right::Create, queue),
            Ask::Join { queue } => self.decide_all(Right::Join, queue),
            Ask::Steer { queue } => self.decide_steer(queue),
            Ask::Subscribe { filter, strictness } => match (self.reach(filter), strictness) {
                (Reach::All(rule), _) | (Reach::Part(rule, _), Strictness::Filter) => {
                    Verdict::Allowed(rule)
                }
                (Reach::Part(_, denial), Strictness::Refuse) | (Reach::Nothing(denial), _) => {
                    Verdict::Denied(denial)
                }
            },
            Ask::Read { topic } => self.verdict(self.find(Right::Subscribe, topic, |_| true)),
        }
    }

    /// Whether [`Ask::Publish`] is allowed.
    pub fn may_publish(&self, topic: &str, qos: Qos, retain: bool) -> bool {
        self.decide(Ask::Publish { topic, qos, retain })
            .is_allowed()
    }

    /// Whether [`Ask::Read`] is allowed.
    #[inline]
    pub fn may_read(&self, topic: &[u8]) -> bool {
        matches!(
            self.find(Right::Subscribe, topic, |_| true),
            Outcome::Allow(_)
        )
    }

    /// The most that may be published with and that subscriptions are granted.
    #[inline]
    pub fn qos_max(&self) -> Qos {
        self.qos_max.map_or(Qos::ExactlyOnce, |(qos, _)| qos)
    }

    /// How much of what a filter matches is readable. It takes a time that
    /// grows with the rules that are about any of it.
    pub fn reach(&self, filter: TopicFilter<'_>) -> Reach {
        self.reach_of(Right::Subscribe, filter, |_| true)
    }

    /// What the rule's source is called, and the rule.
    pub fn rule(&self, rule: RuleRef) -> (&str, &Rule) {
        self.sets[usize::from(rule.set)].rule(rule.rule)
    }

    /// The verdict as a sentence that names the rule, for people.
    pub fn explain(&self, verdict: Verdict) -> impl fmt::Display {
        Explanation {
            rights: self,
            verdict,
        }
    }

    fn names(&self) -> Names<'_> {
        let name = |text, is_fit| match (text, is_fit) {
            (None, _) => Name::Absent,
            (Some(_), false) => Name::Unfit,
            (Some(text), true) => Name::Fit(text),
        };
        Names {
            user: name(self.user.as_deref(), self.user_is_fit),
            client: name(Some(self.client.as_str()), self.client_is_fit),
        }
    }

    fn decide_put(&self, right: Right, topic: &[u8], qos: Qos) -> Verdict {
        match self.qos_max {
            Some((max, rule)) if qos > max => Verdict::Denied(Denial::Qos(rule)),
            _ => self.verdict(self.find(right, topic, |_| true)),
        }
    }

    /// A queue's name may have wildcards: the right to all that it stands for
    /// is the right to it.
    fn decide_all(&self, right: Right, queue: TopicFilter<'_>) -> Verdict {
        match self.reach_of(right, queue, |_| true) {
            Reach::All(rule) => Verdict::Allowed(rule),
            Reach::Part(_, denial) | Reach::Nothing(denial) => Verdict::Denied(denial),
        }
    }

    /// In an ACL file it is a right to publish.
    fn decide_steer(&self, queue: TopicFilter<'_>) -> Verdict {
        let control = CONTROL_TOPIC.as_bytes();
        let spelled = self.find(Right::Publish, control, RuleSet::is_spelled);
        match (
            spelled,
            self.reach_of(Right::Steer, queue, |set| !set.is_spelled()),
        ) {
            (Outcome::Deny(rule), _) => Verdict::Denied(Denial::Rule(rule)),
            (_, Reach::All(rule)) => Verdict::Allowed(rule),
            (
                _,
                Reach::Part(_, denial @ Denial::Rule(_)) | Reach::Nothing(denial @ Denial::Rule(_)),
            ) => Verdict::Denied(denial),
            (spelled, _) => self.verdict(spelled),
        }
    }

    fn verdict(&self, outcome: Outcome) -> Verdict {
        match outcome {
            Outcome::Allow(rule) => Verdict::Allowed(rule),
            Outcome::Deny(rule) => Verdict::Denied(Denial::Rule(rule)),
            Outcome::Nothing => Verdict::Denied(self.unmatched()),
        }
    }

    /// Why no rule allows it.
    fn unmatched(&self) -> Denial {
        let has_user_rules = |set: &Arc<RuleSet>| {
            set.placeholders.user || self.is_barred && set.kind == Kind::Patterns
        };
        let has_client_rules = |set: &Arc<RuleSet>| {
            set.placeholders.client || self.is_barred && set.kind == Kind::Patterns
        };
        let user_is_unfit = self.user.is_some() && !self.user_is_fit;
        if user_is_unfit && self.sets.iter().any(has_user_rules) {
            Denial::UnfitUser
        } else if !self.client_is_fit && self.sets.iter().any(has_client_rules) {
            Denial::UnfitClient
        } else {
            Denial::Unmatched
        }
    }

    /// Whether what a set allows counts.
    fn allows(&self, set: &RuleSet) -> bool {
        !(self.is_barred && set.kind == Kind::Patterns)
    }

    fn find(&self, right: Right, topic: &[u8], among: impl Fn(&RuleSet) -> bool) -> Outcome {
        let names = self.names();
        let mut outcome = Outcome::Nothing;
        let mut topics_allow = false;
        for (set, rules) in (0..).zip(&self.sets) {
            if !among(rules) {
                continue;
            }
            let found = rules.find(right, topic, names);
            if let Some(rule) = found.rule(Effect::Deny)
                && !(topics_allow && rules.kind == Kind::Patterns)
            {
                return Outcome::Deny(RuleRef { set, rule });
            }
            if let Some(rule) = found.rule(Effect::Allow)
                && self.allows(rules)
            {
                if matches!(outcome, Outcome::Nothing) {
                    outcome = Outcome::Allow(RuleRef { set, rule });
                }
                topics_allow |= rules.kind == Kind::Topics;
            }
        }
        outcome
    }

    /// What is readable is what `topic` lines allow and nothing but `pattern`
    /// lines denies, and what others allow and nothing denies.
    fn reach_of(
        &self,
        right: Right,
        filter: TopicFilter<'_>,
        among: impl Fn(&RuleSet) -> bool,
    ) -> Reach {
        let places = |wanted: &dyn Fn(&RuleSet) -> bool| -> Vec<(usize, Place<'_>)> {
            let sets = self.sets.iter().enumerate();
            let sets = sets.filter(|(_, set)| among(set) && wanted(set));
            sets.flat_map(|(index, set)| set.places(right).map(move |place| (index, place)))
                .collect()
        };
        let topics = places(&|set| set.kind == Kind::Topics);
        let allowing = places(&|set| self.allows(set));
        let firm = places(&|set| set.kind != Kind::Patterns);
        let denying = places(&|_| true);

        let denied_firmly = self.overlapping(&firm, filter);
        if denied_firmly.is_none()
            && let Some(rule) = self.covering(&topics, filter, Effect::Allow)
        {
            return Reach::All(rule);
        }
        let denied = denied_firmly.or_else(|| self.overlapping(&denying, filter));
        if denied.is_none()
            && let Some(rule) = self.covering(&allowing, filter, Effect::Allow)
        {
            return Reach::All(rule);
        }
        let denial = denied.map_or_else(|| self.unmatched(), Denial::Rule);
        let part = self.remaining(&topics, filter, &firm);
        match part.or_else(|| self.remaining(&allowing, filter, &denying)) {
            Some(rule) => Reach::Part(rule, denial),
            None => Reach::Nothing(denial),
        }
    }

    fn covering(
        &self,
        places: &[(usize, Place<'_>)],
        filter: TopicFilter<'_>,
        effect: Effect,
    ) -> Option<RuleRef> {
        let (set, rule) = Place::cover(places, filter, effect, self.names())?;
        let set = set as u16;
        Some(RuleRef { set, rule })
    }

    /// The first rule that denies any of it.
    fn overlapping(
        &self,
        places: &[(usize, Place<'_>)],
        filter: TopicFilter<'_>,
    ) -> Option<RuleRef> {
        places.iter().find_map(|&(set, place)| {
            let mut first = None::<u32>;
            place.overlap(filter, Effect::Deny, self.names(), &mut |rule, _| {
                first = Some(first.map_or(rule, |first| first.min(rule)));
                false
            });
            let set = set as u16;
            first.map(|rule| RuleRef { set, rule })
        })
    }

    /// A rule that allows a part of it which is not denied whole.
    fn remaining(
        &self,
        allowing: &[(usize, Place<'_>)],
        filter: TopicFilter<'_>,
        denying: &[(usize, Place<'_>)],
    ) -> Option<RuleRef> {
        allowing.iter().find_map(|&(set, place)| {
            let mut remaining = None;
            place.overlap(filter, Effect::Allow, self.names(), &mut |rule, both| {
                // What is longer than a topic can be matches none.
                let both = TopicFilter::parse(both, TopicLimits::NONE);
                let remains =
                    both.is_ok_and(|both| self.covering(denying, both, Effect::Deny).is_none());
                if remains {
                    let set = set as u16;
                    remaining = Some(RuleRef { set, rule });
                }
                remains
            });
            remaining
        })
    }
}

struct Explanation<'r> {
    rights: &'r Rights,
    verdict: Verdict,
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, rule) = match self.verdict {
            Verdict::Allowed(rule) => ("allowed", rule),
            Verdict::Denied(Denial::Rule(rule) | Denial::Qos(rule)) => ("denied", rule),
            Verdict::Denied(Denial::Unmatched) => return f.write_str("denied: no rule allows it"),
            Verdict::Denied(denial) => {
                let (what, placeholder) = match denial {
                    Denial::UnfitUser => ("user name", "%u"),
                    _ => ("client id", "%c"),
                };
                return write!(
                    f,
                    "denied: no rule allows it, and rules with {placeholder} allow nothing to this \
                     {what}, which is empty or has one of + # / or NUL in it"
                );
            }
        };
        let (source, rule) = self.rights.rule(rule);
        match rule.line {
            0 => write!(f, "{word} by {source}: {}", rule.text),
            line => write!(f, "{word} by {source}:{line}: {}", rule.text),
        }
    }
}

/// What explanations call a file.
fn source_name(source: &Source) -> Arc<str> {
    source.path.display().to_string().into()
}
