//! Retained messages, by random changes beside a list.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use rotamq::message::{ClientId, Envelope, Identity, Message, MessageId, Qos, Time};
use rotamq::router::{RetainedFull, RetainedStore};

use super::{filter, filters, model_matches, on_a_small_stack, topic, topics};

fn message(text: &str, payload: &[u8]) -> Arc<Message> {
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
            expires: Time::MAX,
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
        cursor = store.page(filter(text), cursor.as_ref(), 1, &mut out);
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
    Clear(String),
    ClearByEmptyPayload(String),
}

fn changes(most: usize) -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        3 => topics().prop_map(Change::Set),
        1 => topics().prop_map(Change::Clear),
        1 => topics().prop_map(Change::ClearByEmptyPayload),
    ];
    prop::collection::vec(change, 0..most)
}

fn apply(store: &RetainedStore, model: &mut BTreeMap<String, Arc<Message>>, change: Change) {
    let done = match change {
        Change::Set(text) => {
            let message = message(&text, b"x");
            model.insert(text.clone(), message.clone());
            store.set(topic(&text), Some(message))
        }
        Change::Clear(text) => {
            model.remove(&text);
            store.set(topic(&text), None)
        }
        Change::ClearByEmptyPayload(text) => {
            model.remove(&text);
            store.set(topic(&text), Some(message(&text, b"")))
        }
    };
    done.expect("there is room");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn pages_have_what_stays_once_and_nothing_else(
        before in changes(80),
        mut between in prop::collection::vec(changes(6), 0..12),
        text in filters(),
        steps_max in 1..5usize,
    ) {
        let store = unbounded();
        let mut model = BTreeMap::new();
        for change in before {
            apply(&store, &mut model, change);
        }
        let mut stayed: BTreeSet<String> = model.keys().cloned().collect();
        let mut out = Vec::new();
        let mut cursor = None;
        loop {
            let at = out.len();
            cursor = store.page(filter(&text), cursor.as_ref(), steps_max, &mut out);
            prop_assert!(out.len() - at <= steps_max);
            for message in &out[at..] {
                // As it was when the page was made.
                let there = model.get(message.topic().as_str());
                prop_assert!(there.is_some_and(|there| Arc::ptr_eq(there, message)));
                prop_assert!(model_matches(&text, message.topic().as_str()));
            }
            if cursor.is_none() {
                break;
            }
            for change in between.pop().unwrap_or_default() {
                apply(&store, &mut model, change);
                stayed.retain(|topic| model.contains_key(topic));
            }
        }
        let got: BTreeSet<String> = out.iter().map(|m| m.topic().as_str().to_owned()).collect();
        prop_assert_eq!(got.len(), out.len(), "none comes twice");
        for topic in stayed.iter().filter(|topic| model_matches(&text, topic)) {
            prop_assert!(got.contains(topic), "{} is missing", topic);
        }
        for (text, message) in &model {
            let there = store.get(topic(text));
            prop_assert!(there.is_some_and(|there| Arc::ptr_eq(&there, message)));
        }
        let bytes = model.iter().map(|(text, message)| text.len() + message.cost_bytes()).sum();
        prop_assert_eq!(store.counts(), (model.len(), bytes));
    }
}

#[test]
fn topics_come_level_by_level() {
    let store = unbounded();
    for text in ["b", "a/b", "a!", "a", "a/", "$s/x", "a/b/c", "/a", "a/!"] {
        store.set(topic(text), Some(message(text, b"x"))).unwrap();
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
    let set = |text: &str| store.set(topic(text), Some(message(text, b"x"))).unwrap();
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
    store.set(topic("a"), Some(one.clone())).unwrap();
    store.set(topic("b"), Some(message("b", b"1"))).unwrap();
    let third = || Some(message("c", b"1"));
    assert_eq!(store.set(topic("c"), third()), Err(RetainedFull::Messages));
    assert!(store.get(topic("c")).is_none());
    store
        .set(topic("b"), Some(message("b", b"longer")))
        .unwrap();
    // Nothing is there to remove, and an empty one takes no room.
    store.set(topic("c"), Some(message("c", b""))).unwrap();
    store.set(topic("a"), None).unwrap();
    store.set(topic("c"), third()).unwrap();
    assert_eq!(store.counts().0, 2);

    let store = RetainedStore::new(usize::MAX, cost);
    store.set(topic("a"), Some(one.clone())).unwrap();
    assert_eq!(store.counts(), (1, cost));
    let longer = message("a", b"12345");
    assert_eq!(
        store.set(topic("a"), Some(longer)),
        Err(RetainedFull::Bytes)
    );
    assert!(Arc::ptr_eq(&store.get(topic("a")).unwrap(), &one));
    store.set(topic("a"), Some(message("a", b"abcd"))).unwrap();
    store.set(topic("a"), Some(message("a", b"abc"))).unwrap();
    assert_eq!(
        store.set(topic("b"), Some(message("b", b"1"))),
        Err(RetainedFull::Bytes)
    );
    store.set(topic("a"), None).unwrap();
    assert_eq!(store.counts(), (0, 0));
    assert_eq!(
        RetainedFull::Bytes.to_string(),
        "there is no room for another retained message; clear some, or raise retained_bytes_max"
    );
}

#[test]
fn the_deepest_topics_are_retained_without_stack() {
    on_a_small_stack(|| {
        let store = unbounded();
        let deepest = "/".repeat(65_535);
        let half = vec!["a"; 32_768].join("/");
        for text in [&deepest, &half] {
            store.set(topic(text), Some(message(text, b"x"))).unwrap();
        }
        let pluses = vec!["+"; 32_768].join("/");
        assert_eq!(all(&store, "#").0, [&*deepest, &*half]);
        assert_eq!(all(&store, &pluses).0, [&*half]);
        let above = pluses[2..].to_owned() + "/#";
        assert_eq!(all(&store, &above).0, [&*deepest, &*half]);
        assert_eq!(all(&store, &deepest).0, [&*deepest]);
    });
}
