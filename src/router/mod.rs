//! Who gets a message: the topic tree, its match cache, retained messages.
//!
//! Owns which filters there are and who stands at each; a PUBLISH comes here
//! with its topic and goes on to the receivers that [`Router::matches`] names.
//! It does not know what is behind a [`Receiver`], holds no session and no
//! queue, reads no clock and does no I/O. Topics and filters are walked level
//! by level with an explicit list of nodes: their depth costs no stack.
//!
//! # Why a cached match is never stale
//!
//! Every change of the tree adds one to a generation, while the tree's write
//! lock is still held: that of the part of the tree below the filter's first
//! level, or that of all filters that begin with a wildcard. Those are the
//! only filters that can match a topic of that part. A miss reads both
//! generations and the tree under one read lock, so that an entry stands for
//! exactly the tree of its two generations. A hit loads both again: where
//! `subscribe` has returned before, in the order that any lock, channel or
//! socket between the two threads makes, the load sees its generation or a
//! later one, differs from the entry's, and the entry is not served.

mod arena;
mod cache;
mod matches;
mod retained;
mod tree;

use std::sync::atomic::{AtomicU64, Ordering};

use ahash::RandomState;
use parking_lot::RwLock;

use crate::message::{Qos, QueueId, SessionId, SubscriptionId};
use crate::topic::{TopicFilter, TopicName};

pub use cache::MatchCache;
use cache::Stamp;
pub use matches::{Granted, Matches, Target};
pub use retained::{Cursor, RetainedFull, RetainedStore};
use tree::{Audience, Tree};

/// Who gets messages of a filter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Receiver {
    Session(SessionId),
    /// A share group, once for all its members.
    Group(QueueId),
    /// A work queue. The last variant: a node's queues end its receivers.
    Queue(QueueId),
}

/// What a subscription asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subscription {
    /// The QoS granted: the most at which it is delivered [MQTT-3.8.4-6].
    pub qos: Qos,
    /// MQTT 5: not what the subscriber published itself.
    pub no_local: bool,
    /// MQTT 5: RETAIN as it was published [MQTT-3.3.1-13], instead of 0
    /// [MQTT-3.3.1-12].
    pub retain_as_published: bool,
    /// MQTT 5: the Subscription Identifier, sent along with what it matches
    /// [MQTT-3.3.4-3].
    pub id: Option<SubscriptionId>,
}

impl Subscription {
    /// What 3.1.1 can ask for.
    pub const fn new(qos: Qos) -> Subscription {
        Subscription {
            qos,
            no_local: false,
            retain_as_published: false,
            id: None,
        }
    }
}

/// A filter's place in the tree, which a session remembers instead of the
/// filter's text. It is the filter's as long as anyone is subscribed there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct NodeId(pub u32);

/// What [`Router::subscribe`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Subscribed {
    pub node: NodeId,
    /// Whether the receiver had that filter before [MQTT-3.8.4-3].
    pub replaced: bool,
}

/// All subscriptions, shared by all threads.
pub struct Router {
    tree: RwLock<Tree>,
    /// Keyed, as clients choose the levels.
    hasher: RandomState,
    /// A generation for each part of the tree; which part, the hash of the
    /// first level says.
    parts: [AtomicU64; PARTS],
    /// The generation of the filters that begin with a wildcard.
    wildcards: AtomicU64,
}

/// As many as a `u8` counts.
const PARTS: usize = 256;

/// What a PUBLISH to work queues begins with.
const QUEUE_PREFIX: &str = "$queue/";

impl Router {
    pub fn new() -> Router {
        let hasher = RandomState::new();
        Router {
            tree: RwLock::new(Tree::new(hasher.clone())),
            hasher,
            parts: [const { AtomicU64::new(0) }; PARTS],
            wildcards: AtomicU64::new(0),
        }
    }

    /// Adds a subscription, or replaces that of the same receiver and filter
    /// [MQTT-3.8.4-3]. No Local and the identifier are for sessions: those of
    /// a list are its members', and are left out here.
    pub fn subscribe(
        &self,
        filter: TopicFilter<'_>,
        receiver: Receiver,
        subscription: Subscription,
    ) -> Subscribed {
        let subscription = match receiver {
            Receiver::Session(_) => subscription,
            Receiver::Group(_) | Receiver::Queue(_) => Subscription {
                no_local: false,
                id: None,
                ..subscription
            },
        };
        let mut tree = self.tree.write();
        let (node, before) = tree.insert(filter, receiver, subscription);
        // A client that comes back and subscribes as before changes nothing.
        if before != Some(subscription) {
            self.changed(first_level(filter.as_str()));
        }
        Subscribed {
            node: NodeId(node),
            replaced: before.is_some(),
        }
    }

    /// Removes exactly this filter of this receiver [MQTT-3.10.4-1]; `None`
    /// if it was not there.
    pub fn unsubscribe(&self, filter: TopicFilter<'_>, receiver: Receiver) -> Option<NodeId> {
        let mut tree = self.tree.write();
        let node = tree.find(filter)?;
        self.detach(&mut tree, node, receiver)
            .then_some(NodeId(node))
    }

    /// The node of a filter, if anyone is subscribed there.
    pub fn find(&self, filter: TopicFilter<'_>) -> Option<NodeId> {
        self.tree.read().find(filter).map(NodeId)
    }

    /// Removes a receiver from a node that `subscribe` gave it, as the end of
    /// a session does for each it remembers; false if it was not there.
    pub fn remove(&self, node: NodeId, receiver: Receiver) -> bool {
        self.detach(&mut self.tree.write(), node.0, receiver)
    }

    /// Whether any filter begins with this level.
    pub fn has_first_level(&self, level: &str) -> bool {
        self.tree.read().has_first_level(level)
    }

    /// The text of the filter of a node; `None` if there is no such filter
    /// any more.
    pub fn filter_of(&self, node: NodeId) -> Option<String> {
        self.tree.read().filter_of(node.0)
    }

    /// All receivers of a topic.
    ///
    /// `cache` belongs to the calling thread and to this router. The topic
    /// does not begin with `$queue/`: see [`Router::queues`].
    pub fn matches<'c>(&self, topic: TopicName<'_>, cache: &'c mut MatchCache) -> Matches<'c> {
        self.cached(topic.as_str(), topic.as_str(), Audience::All, cache)
    }

    /// The work queues that a PUBLISH to `$queue/T` goes into: those whose
    /// filter matches T. No others: a topic that does not begin with `$queue/`
    /// has none here.
    pub fn queues<'c>(
        &self,
        queue_topic: TopicName<'_>,
        cache: &'c mut MatchCache,
    ) -> &'c [Target] {
        let key = queue_topic.as_str();
        match key.strip_prefix(QUEUE_PREFIX) {
            // A topic has at least one character [MQTT-4.7.3-1].
            None | Some("") => &[],
            Some(topic) => self.cached(key, topic, Audience::Queues, cache).targets,
        }
    }

    /// What a receiver asked for at a node; `None`: it is not there.
    pub fn subscription(&self, node: NodeId, receiver: Receiver) -> Option<Subscription> {
        self.tree.read().subscription(node.0, receiver)
    }

    /// Those whose filters match a topic, each as often as filters of theirs do,
    /// by filter and receiver: the next `max` after that one. Of a topic that
    /// begins with `$queue/`: the work queues that it goes into. The tree is read
    /// anew for each page; who is there all the time comes exactly once.
    pub fn page(
        &self,
        topic: TopicName<'_>,
        after: Option<(NodeId, Receiver)>,
        max: usize,
    ) -> Vec<(NodeId, Receiver, Subscription)> {
        let topic = topic.as_str();
        let (topic, audience) = match topic.strip_prefix(QUEUE_PREFIX) {
            None => (topic, Audience::All),
            Some("") => return Vec::new(),
            Some(topic) => (topic, Audience::Queues),
        };
        let after = after.map(|(node, receiver)| (node.0, receiver));
        let found = self.tree.read().page(topic, audience, after, max);
        let found = found.into_iter();
        found
            .map(|(node, receiver, subscription)| (NodeId(node), receiver, subscription))
            .collect()
    }

    /// How many subscriptions there are, and how many nodes of the tree they
    /// take.
    pub fn counts(&self) -> (usize, usize) {
        self.tree.read().counts()
    }

    fn cached<'c>(
        &self,
        key: &str,
        topic: &str,
        audience: Audience,
        cache: &'c mut MatchCache,
    ) -> Matches<'c> {
        if let Some(place) = cache.find_again(key, |stamp| self.is_current(stamp)) {
            return cache.matches(place);
        }
        let hash = cache.hash(key);
        match cache.find(hash, key, |stamp| self.is_current(stamp)) {
            Some(place) => cache.matches(place),
            None => self.fill(hash, key, topic, audience, cache),
        }
    }

    /// Asks the tree, for want of a current entry, and makes one.
    #[cold]
    fn fill<'c>(
        &self,
        hash: u64,
        key: &str,
        topic: &str,
        audience: Audience,
        cache: &'c mut MatchCache,
    ) -> Matches<'c> {
        let part = self.part_of(first_level(topic));
        let walk = cache.walk();
        let stamp = {
            let tree = self.tree.read();
            tree.collect(topic, audience, walk);
            Stamp {
                part,
                part_generation: self.parts[usize::from(part)].load(Ordering::Relaxed),
                wildcards_generation: self.wildcards.load(Ordering::Relaxed),
            }
        };
        matches::merge(&mut walk.found, &mut walk.details);
        cache.insert(hash, key, stamp)
    }

    /// Relaxed is enough: see the module's text. Nothing else is read that
    /// the change has written; the entry is this thread's own.
    fn is_current(&self, stamp: &Stamp) -> bool {
        self.parts[usize::from(stamp.part)].load(Ordering::Relaxed) == stamp.part_generation
            && self.wildcards.load(Ordering::Relaxed) == stamp.wildcards_generation
    }

    fn detach(&self, tree: &mut Tree, node: u32, receiver: Receiver) -> bool {
        if !tree.holds(node, receiver) {
            return false;
        }
        self.changed(tree.first_level(node));
        tree.remove(node, receiver);
        true
    }

    /// Makes the cached matches of a part stale. Called with the tree's write
    /// lock held.
    fn changed(&self, first_level: &str) {
        let generation = match first_level {
            "+" | "#" => &self.wildcards,
            level => &self.parts[usize::from(self.part_of(level))],
        };
        generation.fetch_add(1, Ordering::Relaxed);
    }

    fn part_of(&self, first_level: &str) -> u8 {
        self.hasher.hash_one(first_level) as u8
    }
}

impl Default for Router {
    fn default() -> Router {
        Router::new()
    }
}

/// The text before the first separator.
fn first_level(text: &str) -> &str {
    text.split_once('/').map_or(text, |(first, _)| first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Place;
    use crate::topic::TopicLimits;

    fn subscribe(router: &Router, filter: &str) {
        let filter = TopicFilter::parse(filter, TopicLimits::NONE).expect("a filter");
        let receiver = Receiver::Session(SessionId(Place {
            slot: 0,
            generation: 0,
        }));
        router.subscribe(filter, receiver, Subscription::new(Qos::AtMostOnce));
    }

    fn topic(text: &str) -> TopicName<'_> {
        TopicName::parse(text, TopicLimits::NONE).expect("a topic")
    }

    /// A lock that is held for writing shows which matches take none.
    #[test]
    fn a_hit_takes_no_lock_and_outlasts_changes_elsewhere() {
        let router = Router::new();
        let mut cache = MatchCache::new(1 << 20);
        // A first level whose part is not that of `a`.
        let elsewhere = (0..1000)
            .map(|i| i.to_string())
            .find(|level| router.part_of(level) != router.part_of("a"))
            .expect("1000 levels are in more than one part of 256");
        subscribe(&router, "a/+");
        for (text, receivers) in [("a/b", 1), ("a", 0), (&*elsewhere, 0)] {
            assert_eq!(
                router.matches(topic(text), &mut cache).targets.len(),
                receivers
            );
        }
        subscribe(&router, &elsewhere);
        subscribe(&router, "a/+"); // as it is already
        {
            let _changing = router.tree.write();
            assert_eq!(router.matches(topic("a/b"), &mut cache).targets.len(), 1);
            assert_eq!(router.matches(topic("a"), &mut cache).targets.len(), 0);
        }
        assert_eq!(
            router.matches(topic(&elsewhere), &mut cache).targets.len(),
            1
        );
    }
}
