//! Topic aliases (MQTT 5, 3.3.2.3.4): numbers that stand for topics.
//!
//! Owns those of one connection, each way; they end with it [MQTT-3.3.2-7].
//! Both tables are bounded by what was agreed at CONNECT.

use std::hash::BuildHasher;
use std::num::NonZeroU16;

use rustc_hash::FxBuildHasher;

/// What the client's aliases stand for.
#[derive(Default)]
pub struct Received {
    topics: Vec<Option<Box<str>>>,
}

impl Received {
    /// `alias` stands for `topic` from now on; the caller keeps it within the
    /// maximum.
    pub fn set(&mut self, alias: NonZeroU16, topic: &str) {
        let at = usize::from(alias.get()) - 1;
        if self.topics.len() <= at {
            self.topics.resize(at + 1, None);
        }
        if self.topics[at].as_deref() != Some(topic) {
            self.topics[at] = Some(topic.into());
        }
    }

    pub fn get(&self, alias: NonZeroU16) -> Option<&str> {
        let topic = self.topics.get(usize::from(alias.get()) - 1)?;
        topic.as_deref()
    }
}

/// The aliases that the broker gives to topics on their way to a client.
///
/// A topic has a few places where it may be, by its hash. Where all are taken
/// it wears down the credit of one, and gets it when that has none left:
/// topics that come again keep theirs, and a million that come once get few.
pub struct Given {
    places: Box<[Option<Entry>]>,
}

struct Entry {
    prefix: &'static str,
    topic: Box<[u8]>,
    credit: u8,
}

/// What an alias costs, as a property.
const ALIAS_BYTES: usize = 3;
/// Places that a topic may have.
const WAYS: usize = 4;
/// What a topic has when it gets an alias, and at most.
const CREDIT_FIRST: u8 = 4;
const CREDIT_MAX: u8 = 32;

/// How a topic is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// By its alias alone.
    Known(NonZeroU16),
    /// With an alias that stands for it from now on.
    New(NonZeroU16),
    /// Without alias.
    Full,
}

impl Given {
    /// Up to `max` aliases, as the client and the broker allow [MQTT-3.1.2-26].
    pub fn new(max: NonZeroU16) -> Given {
        let places = (0..max.get()).map(|_| None);
        Given {
            places: places.collect(),
        }
    }

    /// What each alias stands for.
    pub fn topics(&self) -> impl Iterator<Item = (NonZeroU16, Box<str>)> {
        let places = self.places.iter().enumerate();
        places.filter_map(|(at, entry)| {
            let entry = entry.as_ref()?;
            let topic = String::from_utf8_lossy(&entry.topic);
            Some((alias(at), [entry.prefix, &topic].concat().into()))
        })
    }

    /// How to send a topic, which is `prefix` and `topic`, given whether it
    /// still may be sent with what an alias costs.
    pub fn name(&mut self, prefix: &'static str, topic: &[u8], may_grow: bool) -> Named {
        if prefix.len() + topic.len() <= ALIAS_BYTES {
            return Named::Full; // It would save nothing.
        }
        // Whoever picks topics that collide only goes without aliases.
        let hash = FxBuildHasher.hash_one((prefix.len(), topic));
        let len = self.places.len();
        let first = (hash % len as u64) as usize;
        let places = (0..WAYS.min(len)).map(|way| (first + way) % len);
        let mut free = None;
        for at in places {
            match &mut self.places[at] {
                Some(entry) if entry.prefix == prefix && *entry.topic == *topic => {
                    entry.credit = (entry.credit + 1).min(CREDIT_MAX);
                    return Named::Known(alias(at));
                }
                Some(_) => {}
                None => free = free.or(Some(at)),
            }
        }
        if !may_grow {
            return Named::Full;
        }
        let at = free.unwrap_or(first);
        if let Some(entry) = &mut self.places[at]
            && entry.credit > 0
        {
            entry.credit -= 1;
            return Named::Full;
        }
        self.places[at] = Some(Entry {
            prefix,
            topic: topic.into(),
            credit: CREDIT_FIRST,
        });
        Named::New(alias(at))
    }
}

fn alias(at: usize) -> NonZeroU16 {
    let alias = u16::try_from(at + 1).ok().and_then(NonZeroU16::new);
    alias.expect("there are at most 65,535 places")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// What a client would make of it, whatever comes in which order.
    /// Case A29 of docs/security.md.
    #[test]
    fn an_alias_always_stands_for_the_topic_it_was_sent_with() {
        for max in [1, 2, 3, 7, 300] {
            let max = NonZeroU16::new(max).unwrap();
            let mut given = Given::new(max);
            let mut client = HashMap::new();
            let (mut known, mut new) = (0, 0);
            for i in 0..20_000_u32 {
                // Some topics come often, some once.
                let topic = match i % 3 {
                    0 => format!("once/{i}"),
                    1 => format!("often/{}", i % 5),
                    _ => "always".to_owned(),
                };
                match given.name("", topic.as_bytes(), i % 11 > 0) {
                    Named::Known(alias) => {
                        assert_eq!(client.get(&alias), Some(&topic));
                        known += 1;
                    }
                    Named::New(alias) => {
                        assert!(alias <= max);
                        client.insert(alias, topic);
                        new += 1;
                    }
                    Named::Full => {}
                }
            }
            // With one place for five topics there is no peace.
            let is_settled = max.get() < 3 || known > 4 * new;
            assert!(known > 0 && is_settled, "{max}: {known} known, {new} new");
        }
    }

    #[test]
    fn few_topics_are_soon_all_known() {
        let mut given = Given::new(NonZeroU16::new(32).unwrap());
        for round in 0..3 {
            for topic in [&b"sensors/1"[..], b"sensors/2", b"sensors/3"] {
                let named = given.name("", topic, true);
                assert_eq!(matches!(named, Named::Known(_)), round > 0);
            }
        }
        assert_eq!(given.name("", b"abc", true), Named::Full); // no longer than an alias
        // Another topic, of the same last bytes.
        let named = given.name("$queue/", b"sensors/1", true);
        assert!(matches!(named, Named::New(_)));
    }

    #[test]
    fn received_aliases_are_what_was_set_last() {
        let alias = |number| NonZeroU16::new(number).unwrap();
        let mut received = Received::default();
        assert_eq!(received.get(alias(3)), None);
        received.set(alias(3), "a");
        received.set(alias(1), "b");
        received.set(alias(3), "c");
        let all = [1, 2, 3, 4].map(|number| received.get(alias(number)));
        assert_eq!(all, [Some("b"), None, Some("c"), None]);
    }
}
