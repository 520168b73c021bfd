//! The topic tree: a node a level, and at the node where a filter ends, its
//! receivers.
//!
//! Nodes lie in an arena; literal children are found through one table for
//! all nodes, by parent and text. A topic meets each node once at most: what
//! matching costs is bounded by the filters that share its levels.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};

use ahash::RandomState;
use hashbrown::HashTable;

use super::arena::{Arena, Slot};
use super::{Receiver, Subscription, Target};
use crate::message::{Place, QueueId};
use crate::topic::TopicFilter;

pub(super) struct Tree {
    nodes: Arena<Node>,
    /// The edges to children that are no wildcards: many tables by their
    /// hash, because a table that grows moves all it has, while the whole tree
    /// waits.
    edges: Box<[HashTable<Edge>]>,
    hasher: RandomState,
    subscriptions: usize,
}

/// The tree's root, which is nobody's child and therefore stands for none.
const ROOT: u32 = 0;
const NONE: u32 = ROOT;

/// One level of filters that agree up to here: a line of the processor's
/// cache.
struct Node {
    level: Level,
    receivers: Receivers,
    parent: u32,
    /// The child `+`.
    plus: u32,
    /// The child `#`.
    multi: u32,
    /// How many children are in the table of edges.
    literals: u32,
}

const _: () = assert!(size_of::<Slot<Node>>() == 64);

/// A level's text; most are short.
enum Level {
    Short(u8, [u8; SHORT]),
    Long(Box<[u8]>),
}

const SHORT: usize = 22;

const EDGE_TABLES: usize = 256;

/// Who is subscribed at a node. Most have one receiver; a million of them
/// cost no more each than a few do.
enum Receivers {
    None,
    One(Receiver, Subscription),
    #[expect(
        clippy::box_collection,
        reason = "a node is one line with the box only"
    )]
    Many(Box<BTreeMap<Receiver, Subscription>>),
}

/// A literal child. Its part of the hash is kept, so that the table grows
/// without a look at the nodes.
struct Edge {
    hash: u32,
    child: u32,
}

/// Which receivers are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    All,
    Queues,
}

/// What a walk through the tree needs and finds; kept for the next.
#[derive(Default)]
pub(super) struct Walk {
    /// The nodes that match up to a level, and up to the next.
    at: Vec<u32>,
    next: Vec<u32>,
    pub(super) found: Vec<Target>,
    /// What the targets need beside, once they are merged.
    pub(super) details: Vec<u32>,
}

impl Tree {
    pub(super) fn new(hasher: RandomState) -> Tree {
        let mut nodes = Arena::new();
        nodes.insert(Node::new("", NONE)); // the root
        Tree {
            nodes,
            edges: (0..EDGE_TABLES).map(|_| HashTable::new()).collect(),
            hasher,
            subscriptions: 0,
        }
    }

    /// The node of the filter, and what the receiver had there before.
    pub(super) fn insert(
        &mut self,
        filter: TopicFilter<'_>,
        receiver: Receiver,
        subscription: Subscription,
    ) -> (u32, Option<Subscription>) {
        let mut node = ROOT;
        for level in filter.levels() {
            node = match self.child(node, level) {
                NONE => self.grow(node, level),
                child => child,
            };
        }
        let before = self.nodes[node].receivers.insert(receiver, subscription);
        if before.is_none() {
            self.subscriptions += 1;
        }
        (node, before)
    }

    pub(super) fn find(&self, filter: TopicFilter<'_>) -> Option<u32> {
        let mut node = ROOT;
        for level in filter.levels() {
            node = match self.child(node, level) {
                NONE => return None,
                child => child,
            };
        }
        Some(node)
    }

    pub(super) fn holds(&self, node: u32, receiver: Receiver) -> bool {
        self.nodes
            .get(node)
            .is_some_and(|node| node.receivers.contains(receiver))
    }

    /// Removes a receiver that is there, and the nodes that are nothing
    /// without it.
    pub(super) fn remove(&mut self, node: u32, receiver: Receiver) {
        self.nodes[node].receivers.remove(receiver);
        self.subscriptions -= 1;
        let mut node = node;
        while node != ROOT && self.nodes[node].is_bare() {
            node = self.prune(node);
        }
    }

    /// Whether any filter begins with this level.
    pub(super) fn has_first_level(&self, level: &str) -> bool {
        self.child(ROOT, level) != NONE
    }

    /// The first level of the filter of a node that is not the root.
    pub(super) fn first_level(&self, node: u32) -> &str {
        let mut node = &self.nodes[node];
        while node.parent != ROOT {
            node = &self.nodes[node.parent];
        }
        node.level.as_str()
    }

    pub(super) fn filter_of(&self, node: u32) -> Option<String> {
        if self.nodes.get(node)?.receivers.is_empty() {
            return None;
        }
        let mut levels = Vec::new();
        let mut node = node;
        while node != ROOT {
            let there = &self.nodes[node];
            levels.push(there.level.as_str());
            node = there.parent;
        }
        levels.reverse();
        Some(levels.join("/"))
    }

    pub(super) fn counts(&self) -> (usize, usize) {
        (self.subscriptions, self.nodes.len() - 1) // without the root
    }

    /// Finds the receivers of all filters that match a topic, as often as
    /// they match.
    pub(super) fn collect(&self, topic: &str, audience: Audience, walk: &mut Walk) {
        let Walk {
            at, next, found, ..
        } = walk;
        found.clear();
        self.visit(topic, at, next, |node| {
            self.nodes[node].receivers.collect(audience, found);
        });
    }

    /// What a receiver has at a node.
    pub(super) fn subscription(&self, node: u32, receiver: Receiver) -> Option<Subscription> {
        self.nodes.get(node)?.receivers.get(receiver)
    }

    /// Receivers of the filters that match a topic, by node, so many at most
    /// after that one.
    pub(super) fn page(
        &self,
        topic: &str,
        audience: Audience,
        after: Option<(u32, Receiver)>,
        max: usize,
    ) -> Vec<(u32, Receiver, Subscription)> {
        let mut nodes = Vec::new();
        let (mut at, mut next) = (Vec::new(), Vec::new());
        self.visit(topic, &mut at, &mut next, |node| nodes.push(node));
        nodes.sort_unstable();
        let mut found = Vec::new();
        for node in nodes {
            let after = match after {
                Some((first, _)) if node < first => continue,
                Some((first, receiver)) if node == first => Some(receiver),
                _ => None,
            };
            let receivers = &self.nodes[node].receivers;
            receivers.page(
                audience,
                after,
                max - found.len(),
                |receiver, subscription| {
                    found.push((node, receiver, subscription));
                },
            );
            if found.len() == max {
                break;
            }
        }
        found
    }

    /// Goes to the nodes of all filters that match a topic. `at` and `next` are
    /// room for the walk.
    fn visit(
        &self,
        topic: &str,
        at: &mut Vec<u32>,
        next: &mut Vec<u32>,
        mut each: impl FnMut(u32),
    ) {
        at.clear();
        at.push(ROOT);
        // Filters that begin with a wildcard take no topic that begins with
        // `$` [MQTT-4.7.2-1].
        let mut wildcards = !topic.starts_with('$');
        for level in topic.split('/') {
            let hash = self.hasher.hash_one(level);
            for &node in &*at {
                let there = &self.nodes[node];
                if wildcards {
                    if there.multi != NONE {
                        each(there.multi);
                    }
                    if there.plus != NONE {
                        next.push(there.plus);
                    }
                }
                if there.literals > 0 {
                    match self.literal(node, level, hash) {
                        NONE => {}
                        child => next.push(child),
                    }
                }
            }
            wildcards = true;
            at.clear();
            std::mem::swap(at, next);
            if at.is_empty() {
                return;
            }
        }
        for &node in &*at {
            each(node);
            // `#` is also the level above it (4.7.1.2).
            let multi = self.nodes[node].multi;
            if multi != NONE {
                each(multi);
            }
        }
    }

    fn child(&self, parent: u32, level: &str) -> u32 {
        match level {
            "+" => self.nodes[parent].plus,
            "#" => self.nodes[parent].multi,
            level => self.literal(parent, level, self.hasher.hash_one(level)),
        }
    }

    fn literal(&self, parent: u32, level: &str, level_hash: u64) -> u32 {
        let hash = edge_hash(parent, level_hash);
        self.edges[table_of(hash)]
            .find(spread(hash), |edge| {
                edge.hash == hash && {
                    let child = &self.nodes[edge.child];
                    child.parent == parent && child.level.as_bytes() == level.as_bytes()
                }
            })
            .map_or(NONE, |edge| edge.child)
    }

    /// Adds a child that is not there.
    fn grow(&mut self, parent: u32, level: &str) -> u32 {
        let child = self.nodes.insert(Node::new(level, parent));
        let above = &mut self.nodes[parent];
        match level {
            "+" => above.plus = child,
            "#" => above.multi = child,
            level => {
                above.literals += 1;
                let hash = edge_hash(parent, self.hasher.hash_one(level));
                self.edges[table_of(hash)].insert_unique(
                    spread(hash),
                    Edge { hash, child },
                    |edge| spread(edge.hash),
                );
            }
        }
        child
    }

    /// Takes a node off its parent, which it returns.
    fn prune(&mut self, node: u32) -> u32 {
        let gone = self.nodes.remove(node).expect("the caller looked at it");
        let above = &mut self.nodes[gone.parent];
        match gone.level.as_str() {
            "+" => above.plus = NONE,
            "#" => above.multi = NONE,
            level => {
                above.literals -= 1;
                let hash = edge_hash(gone.parent, self.hasher.hash_one(level));
                let edges = &mut self.edges[table_of(hash)];
                if let Ok(edge) = edges.find_entry(spread(hash), |edge| edge.child == node) {
                    edge.remove();
                }
                // Memory is given back, but not so soon that it is asked for
                // again with the next subscription.
                if edges.len() < edges.capacity() / 8 {
                    edges.shrink_to(edges.len() * 2, |edge| spread(edge.hash));
                }
            }
        }
        gone.parent
    }
}

impl Node {
    fn new(level: &str, parent: u32) -> Node {
        Node {
            level: Level::new(level),
            receivers: Receivers::None,
            parent,
            plus: NONE,
            multi: NONE,
            literals: 0,
        }
    }

    /// Whether nothing needs it.
    fn is_bare(&self) -> bool {
        self.receivers.is_empty() && self.plus == NONE && self.multi == NONE && self.literals == 0
    }
}

impl Level {
    fn new(text: &str) -> Level {
        let text = text.as_bytes();
        if text.len() > SHORT {
            return Level::Long(text.into());
        }
        let mut bytes = [0; SHORT];
        bytes[..text.len()].copy_from_slice(text);
        Level::Short(text.len() as u8, bytes)
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Level::Short(len, bytes) => &bytes[..usize::from(*len)],
            Level::Long(bytes) => bytes,
        }
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("it was made of text")
    }
}

impl Receivers {
    fn is_empty(&self) -> bool {
        matches!(self, Receivers::None)
    }

    fn contains(&self, receiver: Receiver) -> bool {
        match self {
            Receivers::None => false,
            Receivers::One(one, _) => *one == receiver,
            Receivers::Many(many) => many.contains_key(&receiver),
        }
    }

    fn get(&self, receiver: Receiver) -> Option<Subscription> {
        match self {
            Receivers::One(one, subscription) if *one == receiver => Some(*subscription),
            Receivers::None | Receivers::One(..) => None,
            Receivers::Many(many) => many.get(&receiver).copied(),
        }
    }

    /// The next `max` after that one.
    fn page(
        &self,
        audience: Audience,
        after: Option<Receiver>,
        max: usize,
        mut each: impl FnMut(Receiver, Subscription),
    ) {
        let is_wanted = |receiver: Receiver| {
            after.is_none_or(|after| receiver > after)
                && (audience == Audience::All || matches!(receiver, Receiver::Queue(_)))
        };
        match self {
            Receivers::None => {}
            Receivers::One(receiver, subscription) => {
                if max > 0 && is_wanted(*receiver) {
                    each(*receiver, *subscription);
                }
            }
            Receivers::Many(many) => {
                let first = match audience {
                    Audience::All => after.map_or(Unbounded, Excluded),
                    Audience::Queues => {
                        let after = after.filter(|after| *after >= FIRST_QUEUE);
                        after.map_or(Included(FIRST_QUEUE), Excluded)
                    }
                };
                let next = many.range((first, Unbounded)).take(max);
                next.for_each(|(receiver, subscription)| each(*receiver, *subscription));
            }
        }
    }

    fn insert(&mut self, receiver: Receiver, subscription: Subscription) -> Option<Subscription> {
        match self {
            Receivers::None => {
                *self = Receivers::One(receiver, subscription);
                None
            }
            Receivers::One(one, before) if *one == receiver => {
                Some(std::mem::replace(before, subscription))
            }
            Receivers::One(one, before) => {
                let both = [(*one, *before), (receiver, subscription)];
                *self = Receivers::Many(Box::new(BTreeMap::from(both)));
                None
            }
            Receivers::Many(many) => many.insert(receiver, subscription),
        }
    }

    fn remove(&mut self, receiver: Receiver) {
        match self {
            Receivers::One(one, _) if *one == receiver => *self = Receivers::None,
            Receivers::None | Receivers::One(..) => {}
            Receivers::Many(many) => {
                many.remove(&receiver);
                if many.len() == 1
                    && let Some((&receiver, &subscription)) = many.first_key_value()
                {
                    *self = Receivers::One(receiver, subscription);
                }
            }
        }
    }

    fn collect(&self, audience: Audience, found: &mut Vec<Target>) {
        match (self, audience) {
            (Receivers::None, _) => {}
            (Receivers::One(receiver, subscription), _) => {
                if audience == Audience::All || matches!(receiver, Receiver::Queue(_)) {
                    found.push(Target::new(*receiver, *subscription));
                }
            }
            (Receivers::Many(many), Audience::All) => found.extend(many.iter().map(target)),
            (Receivers::Many(many), Audience::Queues) => {
                found.extend(many.range(FIRST_QUEUE..).map(target));
            }
        }
    }
}

/// No queue is before it, and no other receiver after it.
const FIRST_QUEUE: Receiver = Receiver::Queue(QueueId(Place {
    slot: 0,
    generation: 0,
}));

fn target((&receiver, &subscription): (&Receiver, &Subscription)) -> Target {
    Target::new(receiver, subscription)
}

/// An odd number without a pattern: 2^64 divided by the golden ratio.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// The level's hash is keyed, so that nobody can choose edges that collide.
fn edge_hash(parent: u32, level_hash: u64) -> u32 {
    (level_hash.wrapping_add(u64::from(parent).wrapping_mul(SPREAD)) >> 32) as u32
}

/// By the high bits, as `spread` leaves the low ones to find a place inside.
fn table_of(hash: u32) -> usize {
    (hash >> 24) as usize
}

/// A table wants its bits both high and low.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(SPREAD)
}
