//! Retained messages: the last one of each topic, found by filter.
//!
//! Owns the messages that were published to be retained, and how many and
//! how large they may be in all. It sends nothing: whoever has subscribed
//! asks for pages of what the filter matches, and may do so while others
//! change the store. A message whose time has passed is nobody's any more;
//! it takes room until [`RetainedStore::remove_expired`] finds it.
//!
//! The keys are topics with U+0000, which no topic has [MQTT-4.7.3-2], in
//! place of the separator. So a topic is followed by the topics below it
//! before any other, and what a filter can match is reached by skipping:
//! where a key does not match, the next that could is looked up directly.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use crate::message::{Message, Time};
use crate::topic::{TopicFilter, TopicName};

/// All retained messages, shared by all threads.
pub struct RetainedStore {
    held: RwLock<Held>,
    messages_max: AtomicUsize,
    bytes_max: AtomicUsize,
}

#[derive(Default)]
struct Held {
    messages: BTreeMap<Box<[u8]>, Arc<Message>>,
    /// The keys of those that expire, by when.
    expiring: BTreeSet<(Time, Box<[u8]>)>,
    bytes: usize,
}

/// Where to go on after a page: the least key not looked at yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cursor(Vec<u8>);

impl Cursor {
    /// Goes on with this topic.
    pub fn at(topic: TopicName<'_>) -> Cursor {
        Cursor(key_of(topic).into_vec())
    }

    /// The topic that it goes on with.
    pub fn topic(&self) -> String {
        let mut topic = self.0.clone();
        for byte in &mut topic {
            if *byte == SEPARATOR {
                *byte = b'/';
            }
        }
        // It is a topic's key, or the least text that a filter matches.
        String::from_utf8(topic).unwrap_or_default()
    }

    /// The key, to be kept by somebody who knows nothing of this store.
    pub fn into_key(self) -> Box<[u8]> {
        self.0.into_boxed_slice()
    }

    pub fn from_key(key: Box<[u8]>) -> Cursor {
        Cursor(key.into_vec())
    }
}

/// Why a message was not retained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetainedFull {
    Messages,
    Bytes,
}

impl fmt::Display for RetainedFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = match self {
            RetainedFull::Messages => "retained_messages_max",
            RetainedFull::Bytes => "retained_bytes_max",
        };
        write!(
            f,
            "there is no room for another retained message; clear some, or raise {bound}"
        )
    }
}

impl std::error::Error for RetainedFull {}

/// What stands in a key for the separator: less than all that a topic has.
const SEPARATOR: u8 = 0;

/// More than the separator and no more than anything that may follow a topic
/// inside a level: a topic and this is past all that is below the topic.
const PAST_SUBTREE: u8 = SEPARATOR + 1;

impl RetainedStore {
    pub fn new(messages_max: usize, bytes_max: usize) -> RetainedStore {
        RetainedStore {
            held: RwLock::default(),
            messages_max: AtomicUsize::new(messages_max),
            bytes_max: AtomicUsize::new(bytes_max),
        }
    }

    /// There may be so many from now on; what is there stays.
    pub fn set_bounds(&self, messages_max: usize, bytes_max: usize) {
        self.messages_max.store(messages_max, Ordering::Relaxed);
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// Retains a message as the last of its topic [MQTT-3.3.1-5]; none, or
    /// one with an empty payload, or one that has expired, removes what is
    /// there [MQTT-3.3.1-6] and is not kept [MQTT-3.3.1-7].
    ///
    /// # Errors
    /// A bound would be passed; the topic's message stays what it was.
    /// Removing never fails, nor does replacing by what is no larger.
    pub fn set(
        &self,
        topic: TopicName<'_>,
        message: Option<Arc<Message>>,
        now: Time,
    ) -> Result<(), RetainedFull> {
        self.set_and(topic, message, now, |_| ())
    }

    /// As [`RetainedStore::set`]. `changed` is called before anybody else can
    /// change the store, with what is retained then.
    ///
    /// # Errors
    /// Those of [`RetainedStore::set`].
    pub fn set_and(
        &self,
        topic: TopicName<'_>,
        message: Option<Arc<Message>>,
        now: Time,
        changed: impl FnOnce(Option<&Arc<Message>>),
    ) -> Result<(), RetainedFull> {
        let key = key_of(topic);
        let mut held = self.held.write();
        match message.filter(|message| is_kept(message, now)) {
            None => {
                held.remove(&key);
                // Also where nothing was: it may be gone since just now, and
                // not on disk.
                changed(None);
            }
            Some(message) => {
                self.check_room(&held, &key, &message)?;
                held.remove(&key);
                changed(Some(&message));
                held.insert(key, message);
            }
        }
        Ok(())
    }

    /// Takes back what was retained before, whatever the bounds are now.
    pub fn restore(&self, message: Arc<Message>) {
        let key = key_of(message.topic());
        let mut held = self.held.write();
        held.remove(&key);
        held.insert(key, message);
    }

    /// Whether `set` would take this message now.
    pub fn has_room(&self, topic: TopicName<'_>, message: &Message, now: Time) -> bool {
        !is_kept(message, now) || {
            let held = self.held.read();
            self.check_room(&held, &key_of(topic), message).is_ok()
        }
    }

    /// For `message` in the place of the topic's.
    fn check_room(&self, held: &Held, key: &[u8], message: &Message) -> Result<(), RetainedFull> {
        let before = held.messages.get(key);
        let cost_before = before.map_or(0, |before| cost_bytes(key, before));
        let cost = cost_bytes(key, message);
        if before.is_none() && held.messages.len() >= self.messages_max.load(Ordering::Relaxed) {
            return Err(RetainedFull::Messages);
        }
        if cost > cost_before
            && held.bytes - cost_before + cost > self.bytes_max.load(Ordering::Relaxed)
        {
            return Err(RetainedFull::Bytes);
        }
        Ok(())
    }

    /// The message of a topic, unless it has expired.
    pub fn get(&self, topic: TopicName<'_>, now: Time) -> Option<Arc<Message>> {
        let held = self.held.read();
        let message = held.messages.get(&*key_of(topic))?;
        (!message.has_expired(now)).then(|| message.clone())
    }

    /// Removes messages that have expired [MQTT-3.3.2-5], those first whose
    /// time was up first, and `steps_max` at most; how many it were. Where it
    /// were as many there may be more: see [`RetainedStore::next_expiry`].
    ///
    /// `each` is called with the topic of each, before anybody else can
    /// change the store.
    pub fn remove_expired(
        &self,
        now: Time,
        steps_max: usize,
        mut each: impl FnMut(&[u8]),
    ) -> usize {
        let mut held = self.held.write();
        let mut removed = 0;
        while removed < steps_max
            && let Some((expires, _)) = held.expiring.first()
            && now > *expires
            && let Some((_, key)) = held.expiring.pop_first()
        {
            if let Some(message) = held.messages.get(&key) {
                each(message.topic_bytes());
            }
            held.remove(&key);
            removed += 1;
        }
        removed
    }

    /// When [`RetainedStore::remove_expired`] has something to do next;
    /// `None`: not before another message is set.
    pub fn next_expiry(&self) -> Option<Time> {
        let held = self.held.read();
        let &(expires, _) = held.expiring.first()?;
        // Its last moment is still its own.
        Some(expires + Duration::from_micros(1))
    }

    /// Appends the next messages that a filter matches to `out`, in the order
    /// of their topics' levels, looking at `steps_max` keys at most (and at
    /// one at least); `None` when there are no more. What has expired counts
    /// as looked at. The store is locked for this page only.
    ///
    /// Messages may come and go between two pages: one that is there all the
    /// time comes exactly once.
    pub fn page(
        &self,
        filter: TopicFilter<'_>,
        cursor: Option<&Cursor>,
        steps_max: usize,
        now: Time,
        out: &mut Vec<Arc<Message>>,
    ) -> Option<Cursor> {
        let mut seek = match cursor {
            Some(Cursor(seek)) => seek.clone(),
            None => {
                let mut seek = Vec::new();
                push_least(&mut seek, filter.levels());
                seek
            }
        };
        let held = self.held.read();
        let mut ahead = held.from(&seek);
        let mut steps = 0;
        loop {
            let (key, message) = ahead.next()?;
            if steps >= steps_max.max(1) {
                return Some(Cursor(key.to_vec()));
            }
            steps += 1;
            let look = look(filter, key, &mut seek);
            if look.matches && !message.has_expired(now) {
                out.push(message.clone());
            }
            match look.next {
                Next::Key => {}
                Next::Seek => ahead = held.from(&seek),
                Next::End => return None,
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.held.read().messages.is_empty()
    }

    /// How many messages there are, and how many bytes they take; with those
    /// that have expired and are not removed yet.
    pub fn counts(&self) -> (usize, usize) {
        let held = self.held.read();
        (held.messages.len(), held.bytes)
    }
}

impl Held {
    /// The key is not there.
    fn insert(&mut self, key: Box<[u8]>, message: Arc<Message>) {
        self.bytes += cost_bytes(&key, &message);
        if message.expires() < Time::MAX {
            self.expiring.insert((message.expires(), key.clone()));
        }
        self.messages.insert(key, message);
    }

    /// Whether it was there.
    fn remove(&mut self, key: &[u8]) -> bool {
        let Some((key, message)) = self.messages.remove_entry(key) else {
            return false;
        };
        self.bytes -= cost_bytes(&key, &message);
        self.expiring.remove(&(message.expires(), key));
        true
    }

    fn from(&self, seek: &[u8]) -> btree_map::Range<'_, Box<[u8]>, Arc<Message>> {
        self.messages
            .range::<[u8], _>((Bound::Included(seek), Bound::Unbounded))
    }
}

/// What a look at a key says.
struct Look {
    matches: bool,
    next: Next,
}

/// Which key is looked at next.
enum Next {
    /// The one that follows.
    Key,
    /// The first that is not less than what was put into `seek`.
    Seek,
    /// None: what follows does not match.
    End,
}

/// Compares a filter and a key level by level. Unless the key that follows is
/// next, `seek` becomes the least text after the key that could match.
fn look(filter: TopicFilter<'_>, key: &[u8], seek: &mut Vec<u8>) -> Look {
    if key[0] == b'$' && filter.begins_with_wildcard() {
        // Past all topics that begin with `$` [MQTT-4.7.2-1].
        seek.clear();
        seek.push(b'$' + 1);
        return Look {
            matches: false,
            next: Next::Seek,
        };
    }
    let mut levels = filter.levels();
    // Where the next level of the key begins; `None` at its end.
    let mut rest = Some(0);
    // Where the last level ended that `+` has matched.
    let mut plus_end = None;
    while let Some(level) = levels.next() {
        if level == "#" {
            return Look {
                matches: true,
                next: Next::Key,
            };
        }
        let Some(start) = rest else {
            // The key is above what the filter asks for: go below it.
            seek.clear();
            seek.extend_from_slice(key);
            seek.push(SEPARATOR);
            push_least(seek, std::iter::once(level).chain(levels));
            return Look {
                matches: false,
                next: Next::Seek,
            };
        };
        let len = key[start..].iter().position(|&byte| byte == SEPARATOR);
        let end = len.map_or(key.len(), |len| start + len);
        rest = len.map(|_| end + 1);
        if level == "+" {
            plus_end = Some(end);
            continue;
        }
        match key[start..end].cmp(level.as_bytes()) {
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Less => {
                seek.clear();
                seek.extend_from_slice(&key[..start]);
                push_least(seek, std::iter::once(level).chain(levels));
                return Look {
                    matches: false,
                    next: Next::Seek,
                };
            }
            std::cmp::Ordering::Greater => return past(key, plus_end, seek, false),
        }
    }
    past(key, plus_end, seek, rest.is_none())
}

/// Goes past what is below the last level that `+` has matched: there is
/// nothing more in it.
fn past(key: &[u8], plus_end: Option<usize>, seek: &mut Vec<u8>, matches: bool) -> Look {
    let next = match plus_end {
        None => Next::End,
        Some(end) => {
            seek.clear();
            seek.extend_from_slice(&key[..end]);
            seek.push(PAST_SUBTREE);
            Next::Seek
        }
    };
    Look { matches, next }
}

/// Appends the least text that these levels of a filter match: up to the
/// first wildcard.
fn push_least<'a>(seek: &mut Vec<u8>, levels: impl Iterator<Item = &'a str>) {
    let mut first = true;
    for level in levels {
        // `#` is also the level above it, which is before all below.
        if level == "#" {
            return;
        }
        if !first {
            seek.push(SEPARATOR);
        }
        first = false;
        if level == "+" {
            return;
        }
        seek.extend_from_slice(level.as_bytes());
    }
}

fn key_of(topic: TopicName<'_>) -> Box<[u8]> {
    let mut key = Box::<[u8]>::from(topic.as_str().as_bytes());
    for byte in &mut key {
        if *byte == b'/' {
            *byte = SEPARATOR;
        }
    }
    key
}

/// Whether there is anything to retain.
fn is_kept(message: &Message, now: Time) -> bool {
    !message.payload().is_empty() && !message.has_expired(now)
}

/// What a retained message takes of the bound, with its key once more where
/// it expires.
fn cost_bytes(key: &[u8], message: &Message) -> usize {
    let expiring = match message.expires() {
        Time::MAX => 0,
        _ => key.len() + size_of::<(Time, Box<[u8]>)>(),
    };
    key.len() + expiring + message.cost_bytes()
}
