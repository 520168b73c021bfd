//! Retained messages, by random changes beside a list.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rotamq::message::{ClientId, Envelope, Identity, Message, MessageId, Qos, Time};
use rotamq::router::{RetainedFull, RetainedStore};

use super::{filter, filters, model_matches, on_a_small_stack, topic, topics};

const NOW: Time = Time::ZERO;

fn message(text: &str, payload: &[u8]) -> Arc<Message> {
    expiring(text, payload, Time::MAX)
}

fn expiring(text: &str, payload: &[u8], expires: Time) -> Arc<Message> {
    let publisher = Arc::new(Identity {
        user: None,
        client: ClientId::new("test"),
    });
    Arc::new(Message::new(
        topic(text),
        &[],
        payload,
        Envelope {
            id: MessageId(0),
            qos: Qos::AtMostOnce,
            retain: true,
            publisher,
            received: Time::ZERO,
            expires,
        },
    ))
}

fn unbounded() -> RetainedStore {
    RetainedStore::new(usize::MAX, usize::MAX)
}

/// All that a filter matches, and how many keys were looked at for it.
fn all(store: &RetainedStore, text: &str) -> (Vec<String>, usize) {
    let (mut out, mut steps, mut cursor) = (Vec::new(), 0, None);
    loop {
        steps += 1;
        cursor = store.page(filter(text), cursor.as_ref(), 1, NOW, &mut out);
        if cursor.is_none() {
            let topics = out
                .iter()
                .map(|message| message.topic().as_str().to_owned());
            return (topics.collect(), steps);
        }
    }
}

#[derive(Clone, Debug)]
enum Change {
    Set(String),
    /// So many microseconds from now; less than none: it has expired.
    SetExpiring(String, i64),
    Clear(String),
    ClearByEmptyPayload(String),
    Wait(u64),
    RemoveExpired(usize),
}

fn changes(most: usize) -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        3 => topics().prop_map(Change::Set),
        3 => (topics(), -2..20i64).prop_map(|(text, after)| Change::SetExpiring(text, after)),
        1 => topics().prop_map(Change::Clear),
        1 => topics().prop_map(Change::ClearByEmptyPayload),
        1 => (0..8u64).prop_map(Change::Wait),
        1 => (0..4usize).prop_map(Change::RemoveExpired),
    ];
    prop::collection::vec(change, 0..most)
}

/// What is retained, in a list.
struct Model {
    messages: BTreeMap<String, Arc<Message>>,
    now: Time,
}

impl Model {
    fn apply(&mut self, store: &RetainedStore, change: Change) {
        let now = self.now;
        let mut set = |text: String, message: Option<Arc<Message>>| {
            let done = store.set(topic(&text), message.clone(), now);
            done.expect("there is room");
            let kept = |m: &Arc<Message>| !m.payload().is_empty() && now <= m.expires();
            match message.filter(kept) {
                Some(message) => self.messages.insert(text, message),
                None => self.messages.remove(&text),
            };
        };
        match change {
            Change::Set(text) => {
                let message = message(&text, b"x");
                set(text, Some(message));
            }
            Change::SetExpiring(text, after) => {
                let expires = now.as_micros().checked_add_signed(after);
                let expires = Time::from_micros(expires.expect("long after zero"));
                let message = expiring(&text, b"x", expires);
                set(text, Some(message));
            }
            Change::Clear(text) => set(text, None),
            Change::ClearByEmptyPayload(text) => {
                let message = message(&text, b"");
                set(text, Some(message));
            }
            Change::Wait(micros) => self.now = now + Duration::from_micros(micros),
            Change::RemoveExpired(steps_max) => {
                let removed = store.remove_expired(now, steps_max, |_| ());
                let of = |(text, m): (&String, &Arc<Message>)| (m.expires(), key(text));
                let mut expired: Vec<_> = self.messages.iter().map(of).collect();
                expired.retain(|(expires, _)| *expires < now);
                expired.sort();
                expired.truncate(steps_max);
                assert_eq!(removed, expired.len());
                (self.messages).retain(|text, m| !expired.contains(&(m.expires(), key(text))));
            }
        }
    }

    fn check(&self, store: &RetainedStore) {
        let cost = |(text, message): (&String, &Arc<Message>)| match message.expires() {
            Time::MAX => text.len() + message.cost_bytes(),
            _ => 2 * text.len() + size_of::<(Time, Box<[u8]>)>() + message.cost_bytes(),
        };
        let bytes = self.messages.iter().map(cost).sum();
        assert_eq!(store.counts(), (self.messages.len(), bytes));
        let expires = self.messages.values().map(|message| message.expires());
        let next = expires.filter(|&at| at < Time::MAX).min();
        assert_eq!(
            store.next_expiry(),
            next.map(|at| at + Duration::from_micros(1))
        );
        for (text, message) in &self.messages {
            let there = store.get(topic(text), self.now);
            match message.expires() < self.now {
                true => assert!(there.is_none()),
                false => assert!(there.is_some_and(|there| Arc::ptr_eq(&there, message))),
            }
        }
    }
}

/// In the order of which those go that expire together.
fn key(text: &str) -> String {
    text.replace('/', "\0")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    /// Case C04 of docs/security.md.
    #[test]
    fn pages_have_what_stays_once_and_nothing_else(
        before in changes(80),
        mut between in prop::collection::vec(changes(6), 0..12),
        text in filters(),
        steps_max in 1..5usize,
    ) {
        let store = unbounded();
        let mut model = Model {
            messages: BTreeMap::new(),
            now: Time::from_micros(1000),
        };
        for change in before {
            model.apply(&store, change);
            model.check(&store);
        }
        let mut stayed: BTreeSet<String> = model.messages.keys().cloned().collect();
        let mut out = Vec::new();
        let mut cursor = None;
        loop {
            let at = out.len();
            let now = model.now;
            stayed.retain(|topic| {
                let there = model.messages.get(topic);
                there.is_some_and(|there| there.expires() >= now)
            });
            cursor = store.page(filter(&text), cursor.as_ref(), steps_max, now, &mut out);
            prop_assert!(out.len() - at <= steps_max);
            for message in &out[at..] {
                // As it was when the page was made.
                let there = model.messages.get(message.topic().as_str());
                prop_assert!(there.is_some_and(|there| Arc::ptr_eq(there, message)));
                prop_assert!(message.expires() >= now);
                prop_assert!(model_matches(&text, message.topic().as_str()));
            }
            if cursor.is_none() {
                break;
            }
            for change in between.pop().unwrap_or_default() {
                model.apply(&store, change);
                stayed.retain(|topic| model.messages.contains_key(topic));
            }
        }
        let got: BTreeSet<String> = out.iter().map(|m| m.topic().as_str().to_owned()).collect();
        prop_assert_eq!(got.len(), out.len(), "none comes twice");
        for topic in stayed.iter().filter(|topic| model_matches(&text, topic)) {
            prop_assert!(got.contains(topic), "{} is missing", topic);
        }
        model.check(&store);
        store.remove_expired(Time::MAX, usize::MAX, |_| ());
        model.messages.retain(|_, message| message.expires() == Time::MAX);
        model.check(&store);
    }
}

/// At its last moment a message is still there.
/// Case H07 of docs/security.md.
#[test]
fn what_has_expired_goes_oldest_first_and_a_few_at_a_time() {
    let store = unbounded();
    let at = Time::from_micros;
    let set = |text: &str, expires| {
        store
            .set(topic(text), Some(expiring(text, b"x", expires)), at(1))
            .unwrap();
    };
    for (text, expires) in [("a", 30), ("b", 10), ("c", 20), ("d", 40)] {
        set(text, at(expires));
    }
    set("e", Time::MAX);
    set("d", Time::MAX); // the entry of the one before goes with it
    assert_eq!(store.next_expiry(), Some(at(11)));
    assert_eq!(store.remove_expired(at(10), 9, |_| ()), 0);
    assert!(store.get(topic("b"), at(10)).is_some());
    assert!(store.get(topic("b"), at(11)).is_none());
    let page = |now| {
        let mut out = Vec::new();
        assert_eq!(store.page(filter("#"), None, 9, now, &mut out), None);
        let topics = out
            .iter()
            .map(|message| message.topic().as_str().to_owned());
        topics.collect::<Vec<_>>().concat()
    };
    assert_eq!((page(at(10)), page(at(21))), ("abcde".into(), "ade".into()));
    assert_eq!(store.counts().0, 5);
    assert_eq!(store.remove_expired(at(100), 2, |_| ()), 2);
    assert_eq!(store.next_expiry(), Some(at(31)));
    assert_eq!(store.remove_expired(at(100), 2, |_| ()), 1);
    assert_eq!((store.next_expiry(), store.counts().0), (None, 2));
    // One that comes too late takes the place of none, and leaves none.
    assert!(RetainedStore::new(0, 0).has_room(topic("d"), &expiring("d", b"x", at(40)), at(41)));
    store
        .set(topic("d"), Some(expiring("d", b"x", at(40))), at(41))
        .unwrap();
    assert_eq!((page(at(41)), store.counts().0), ("e".into(), 1));
}

#[test]
fn topics_come_level_by_level() {
    let store = unbounded();
    for text in ["b", "a/b", "a!", "a", "a/", "$s/x", "a/b/c", "/a", "a/!"] {
        store
            .set(topic(text), Some(message(text, b"x")), NOW)
            .unwrap();
    }
    let (topics, _) = all(&store, "#");
    assert_eq!(topics, ["/a", "a", "a/", "a/!", "a/b", "a/b/c", "a!", "b"]);
    assert_eq!(all(&store, "$s/#").0, ["$s/x"]);
    assert_eq!(all(&store, "a/#").0, ["a", "a/", "a/!", "a/b", "a/b/c"]);
    assert_eq!(all(&store, "+/+").0, ["/a", "a/", "a/!", "a/b"]);
}

/// What is looked at is about what matches, not what there is.
#[test]
fn what_cannot_match_is_skipped() {
    let store = unbounded();
    let set = |text: &str| {
        store
            .set(topic(text), Some(message(text, b"x")), NOW)
            .unwrap()
    };
    for group in 0..50 {
        for item in 0..100 {
            set(&format!("site/{group}/{item}/value"));
            set(&format!("$SYS/{group}/{item}"));
        }
        set(&format!("site/{group}/name"));
    }
    let steps_of = |text: &str, matches: usize| {
        let (topics, steps) = all(&store, text);
        assert_eq!(topics.len(), matches, "{text}");
        steps
    };
    assert!(steps_of("site/7/8/value", 1) <= 2);
    assert!(steps_of("site/7/8/none", 0) <= 2);
    assert!(steps_of("nothing/#", 0) <= 2);
    assert!(steps_of("site/7/#", 101) <= 103);
    assert!(steps_of("site/+/name", 50) <= 3 * 50 + 2);
    assert!(steps_of("site/+/55/value", 50) <= 3 * 50 + 2);
    assert!(steps_of("+/7/name", 1) <= 6);
    // All of `$SYS` is one step.
    assert!(steps_of("#", 5050) <= 5053);
    assert!(steps_of("+/none", 0) <= 5);
}

#[test]
fn a_full_store_says_which_bound_and_still_replaces_and_removes() {
    let one = message("a", b"1234");
    let cost = one.cost_bytes() + 1;

    let store = RetainedStore::new(2, usize::MAX);
    store.set(topic("a"), Some(one.clone()), NOW).unwrap();
    store
        .set(topic("b"), Some(message("b", b"1")), NOW)
        .unwrap();
    let third = || Some(message("c", b"1"));
    assert_eq!(
        store.set(topic("c"), third(), NOW),
        Err(RetainedFull::Messages)
    );
    assert!(store.get(topic("c"), NOW).is_none());
    store
        .set(topic("b"), Some(message("b", b"longer")), NOW)
        .unwrap();
    // Nothing is there to remove, and an empty one takes no room.
    store.set(topic("c"), Some(message("c", b"")), NOW).unwrap();
    store.set(topic("a"), None, NOW).unwrap();
    store.set(topic("c"), third(), NOW).unwrap();
    assert_eq!(store.counts().0, 2);

    let store = RetainedStore::new(usize::MAX, cost);
    store.set(topic("a"), Some(one.clone()), NOW).unwrap();
    assert_eq!(store.counts(), (1, cost));
    let longer = message("a", b"12345");
    assert_eq!(
        store.set(topic("a"), Some(longer), NOW),
        Err(RetainedFull::Bytes)
    );
    assert!(Arc::ptr_eq(&store.get(topic("a"), NOW).unwrap(), &one));
    store
        .set(topic("a"), Some(message("a", b"abcd")), NOW)
        .unwrap();
    store
        .set(topic("a"), Some(message("a", b"abc")), NOW)
        .unwrap();
    assert_eq!(
        store.set(topic("b"), Some(message("b", b"1")), NOW),
        Err(RetainedFull::Bytes)
    );
    store.set(topic("a"), None, NOW).unwrap();
    assert_eq!(store.counts(), (0, 0));
    assert_eq!(
        RetainedFull::Bytes.to_string(),
        "there is no room for another retained message; clear some, or raise retained_bytes_max"
    );
}

/// Case C01 of docs/security.md.
#[test]
fn the_deepest_topics_are_retained_without_stack() {
    on_a_small_stack(|| {
        let store = unbounded();
        let deepest = "/".repeat(65_535);
        let half = vec!["a"; 32_768].join("/");
        for text in [&deepest, &half] {
            store
                .set(topic(text), Some(message(text, b"x")), NOW)
                .unwrap();
        }
        let pluses = vec!["+"; 32_768].join("/");
        assert_eq!(all(&store, "#").0, [&*deepest, &*half]);
        assert_eq!(all(&store, &pluses).0, [&*half]);
        let above = pluses[2..].to_owned() + "/#";
        assert_eq!(all(&store, &above).0, [&*deepest, &*half]);
        assert_eq!(all(&store, &deepest).0, [&*deepest]);
    });
}
