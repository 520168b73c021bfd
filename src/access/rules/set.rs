//! Rules that belong together: a role, a user's section of an ACL file, or
//! what a token or a service says of one client.

use std::sync::Arc;

use super::tree::{Builder, Effect, Found, Names, Place, Placeholders, ROOT, Tree, parse_filter};
use crate::message::Qos;
use crate::topic::TopicFilter;

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Right {
    /// To publish to topics.
    Publish,
    /// To leave retained messages there; needs [`Right::Publish`] as well.
    Retain,
    /// To subscribe to topics, and to be delivered what is published there.
    Subscribe,
    /// To have a queue of that name come into being.
    Create,
    /// To take jobs out of a queue.
    Join,
    /// To put jobs into queues by `$queue/TOPIC`.
    Put,
    /// To see and steer a queue.
    Steer,
}

impl Right {
    pub const ALL: [Right; 7] = [
        Right::Publish,
        Right::Retain,
        Right::Subscribe,
        Right::Create,
        Right::Join,
        Right::Put,
        Right::Steer,
    ];

    /// As in the file.
    pub fn word(self) -> &'static str {
        match self {
            Right::Publish => "publish",
            Right::Retain => "retain",
            Right::Subscribe => "subscribe",
            Right::Create => "create",
            Right::Join => "join",
            Right::Put => "put",
            Right::Steer => "steer",
        }
    }

    pub fn of_word(word: &str) -> Option<Right> {
        Right::ALL.into_iter().find(|right| right.word() == word)
    }

    /// Whether its filters are about names of queues.
    pub fn is_of_queues(self) -> bool {
        matches!(
            self,
            Right::Create | Right::Join | Right::Put | Right::Steer
        )
    }

    /// # Errors
    /// Why a rule of this right has no such filter, and what would be right.
    pub(super) fn check(self, filter: &str) -> Result<TopicFilter<'_>, String> {
        let parsed = parse_filter(filter, true)?;
        let wrong = match self.is_of_queues() {
            true if filter.starts_with("$queue/") => {
                Some("queues are named without $queue/".to_owned())
            }
            true if filter.starts_with('$') && !filter.starts_with("$dead/") => {
                Some("the only names of queues that begin with $ are $dead/NAME".to_owned())
            }
            false if filter.starts_with("$queue/") && self == Right::Subscribe => {
                Some("the right to take jobs of a queue is join = [\"NAME\"]".to_owned())
            }
            false if filter.starts_with("$queue/") => {
                Some("the right to put jobs into queues is put = [\"NAME\"]".to_owned())
            }
            false if filter.starts_with("$share/") => Some(
                "a share group needs the right to its filter, without $share/GROUP/".to_owned(),
            ),
            false if filter.starts_with("$delayed/") || filter.starts_with("$settles/") => {
                Some("the right is decided on the topic behind it, which stands alone".to_owned())
            }
            _ => None,
        };
        match wrong {
            Some(why) => Err(format!(
                "{filter:?} is in no list of {}: {why}",
                self.word()
            )),
            None => Ok(parsed),
        }
    }
}

/// One allowance or ban, from wherever it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub effect: Effect,
    pub right: Right,
    /// A topic filter, or one of queue names, with `%u` and `%c` for the user
    /// and the client id.
    pub filter: String,
}

/// A rule as it stands somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Counted from 1; 0: its source has no lines.
    pub line: usize,
    pub text: Box<str>,
}

/// Rules that hold for the same clients, and the most QoS with them.
#[derive(Debug)]
pub struct RuleSet {
    source: Arc<str>,
    rules: Vec<Rule>,
    pub(super) kind: Kind,
    trees: Trees,
    pub(super) placeholders: Placeholders,
    /// And the rule that says so.
    pub(super) qos_max: Option<(Qos, u32)>,
}

/// How a set stands to the others of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `topic` lines of an ACL file, for a user or for the anonymous.
    Topics,
    /// `pattern` lines of an ACL file. What `topic` lines allow they do not
    /// deny.
    Patterns,
    Role,
}

#[derive(Debug)]
enum Trees {
    /// Topics as a client spells them, read or written, and where `$queue/`
    /// is among them.
    Spelled { read: Branch, write: Branch },
    /// A tree for each right, in the order of [`Right::ALL`].
    ByRight(Box<[Tree; Right::ALL.len()]>),
}

#[derive(Debug)]
struct Branch {
    tree: Tree,
    queue: Option<u32>,
}

impl Branch {
    fn new(tree: Tree) -> Branch {
        Branch {
            queue: tree.below("$queue"),
            tree,
        }
    }

    fn place(&self) -> Option<Place<'_>> {
        Some(Place {
            tree: &self.tree,
            start: ROOT,
        })
    }

    fn queue_place(&self) -> Option<Place<'_>> {
        let tree = &self.tree;
        self.queue.map(|start| Place { tree, start })
    }
}

impl RuleSet {
    /// What a token's claims or a service's answer say, as a role would.
    /// `source`: what explanations call it.
    ///
    /// # Errors
    /// The index of an entry that means nothing, and why.
    pub fn of_entries(
        source: &str,
        entries: &[Entry],
        qos_max: Option<Qos>,
    ) -> Result<RuleSet, (usize, String)> {
        let mut role = RoleBuilder::new(source.into());
        for (index, entry) in entries.iter().enumerate() {
            let rule = Rule {
                line: 0,
                text: entry_text("", entry),
            };
            role.add(entry, rule).map_err(|why| (index, why))?;
        }
        if let Some(qos) = qos_max {
            let text = format!("qos_max = {}", qos as u8).into();
            role.bound(qos, Rule { line: 0, text });
        }
        Ok(role.build())
    }

    /// What the rule's source is called, and the rule.
    pub(super) fn rule(&self, rule: u32) -> (&str, &Rule) {
        (&self.source, &self.rules[rule as usize])
    }

    pub(super) fn is_spelled(&self) -> bool {
        matches!(self.trees, Trees::Spelled { .. })
    }

    /// Where rules about this right are.
    pub(super) fn places(&self, right: Right) -> impl Iterator<Item = Place<'_>> {
        let places = match (&self.trees, right) {
            (Trees::ByRight(trees), right) => {
                let tree = &trees[right as usize];
                [Some(Place { tree, start: ROOT }), None]
            }
            (Trees::Spelled { write, .. }, Right::Publish | Right::Retain) => [write.place(), None],
            (Trees::Spelled { read, .. }, Right::Subscribe) => [read.place(), None],
            (Trees::Spelled { write, .. }, Right::Put) => [write.queue_place(), None],
            (Trees::Spelled { read, .. }, Right::Join) => [read.queue_place(), None],
            // Who may take out or put in may be the first to.
            (Trees::Spelled { read, write }, Right::Create) => {
                [read.queue_place(), write.queue_place()]
            }
            // It is a PUBLISH, which is asked for as one.
            (Trees::Spelled { .. }, Right::Steer) => [None, None],
        };
        places.into_iter().flatten()
    }

    #[inline]
    pub(super) fn find(&self, right: Right, topic: &[u8], names: Names<'_>) -> Found {
        let mut found = Found::NOTHING;
        for place in self.places(right) {
            place.find(topic, names, &mut found);
        }
        found
    }
}

/// `allow publish "a/#"`
pub(super) fn entry_text(before: &str, entry: &Entry) -> Box<str> {
    let effect = match entry.effect {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
    };
    format!("{before}{effect} {} {:?}", entry.right.word(), entry.filter).into()
}

/// A role that grows.
pub(super) struct RoleBuilder {
    source: Arc<str>,
    rules: Vec<Rule>,
    trees: [Builder; Right::ALL.len()],
    placeholders: Placeholders,
    qos_max: Option<(Qos, u32)>,
}

impl RoleBuilder {
    pub(super) fn new(source: Arc<str>) -> RoleBuilder {
        RoleBuilder {
            source,
            rules: Vec::new(),
            trees: Default::default(),
            placeholders: Placeholders::default(),
            qos_max: None,
        }
    }

    /// # Errors
    /// Why the entry means nothing.
    pub(super) fn add(&mut self, entry: &Entry, rule: Rule) -> Result<(), String> {
        let filter = entry.right.check(&entry.filter)?;
        let tree = &mut self.trees[entry.right as usize];
        tree.insert(filter, true, entry.effect, self.rules.len() as u32);
        self.placeholders.add(Placeholders::of(&entry.filter));
        self.rules.push(rule);
        Ok(())
    }

    pub(super) fn bound(&mut self, qos: Qos, rule: Rule) {
        self.qos_max = Some((qos, self.rules.len() as u32));
        self.rules.push(rule);
    }

    pub(super) fn build(self) -> RuleSet {
        RuleSet {
            source: self.source,
            rules: self.rules,
            kind: Kind::Role,
            trees: Trees::ByRight(Box::new(self.trees.map(Builder::build))),
            placeholders: self.placeholders,
            qos_max: self.qos_max,
        }
    }
}

/// Lines of an ACL file that grow to a set.
pub(super) struct LinesBuilder {
    source: Arc<str>,
    rules: Vec<Rule>,
    kind: Kind,
    read: Builder,
    write: Builder,
    placeholders: Placeholders,
}

/// What a line of an ACL file is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
    ReadWrite,
    Deny,
}

impl LinesBuilder {
    pub(super) fn new(source: Arc<str>, kind: Kind) -> LinesBuilder {
        LinesBuilder {
            source,
            rules: Vec::new(),
            kind,
            read: Builder::default(),
            write: Builder::default(),
            placeholders: Placeholders::default(),
        }
    }

    pub(super) fn add(&mut self, filter: TopicFilter<'_>, access: Access, rule: Rule) {
        let has_placeholders = self.kind == Kind::Patterns;
        let number = self.rules.len() as u32;
        let effect = match access {
            Access::Deny => Effect::Deny,
            _ => Effect::Allow,
        };
        if access != Access::Write {
            (self.read).insert(filter, has_placeholders, effect, number);
        }
        if access != Access::Read {
            (self.write).insert(filter, has_placeholders, effect, number);
        }
        if has_placeholders {
            self.placeholders.add(Placeholders::of(filter.as_str()));
        }
        self.rules.push(rule);
    }

    pub(super) fn build(self) -> RuleSet {
        RuleSet {
            source: self.source,
            rules: self.rules,
            kind: self.kind,
            trees: Trees::Spelled {
                read: Branch::new(self.read.build()),
                write: Branch::new(self.write.build()),
            },
            placeholders: self.placeholders,
            qos_max: None,
        }
    }
}
