//! Subscriptions and matches, by random operations beside a list.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use rotamq::message::{Place, Qos, QueueId, SessionId, SubscriptionId};
use rotamq::router::{
    Granted, MatchCache, Matches, NodeId, Receiver, Router, Subscription, Target,
};

use super::{filter, filters, model_matches, on_a_small_stack, topic, topics};

#[derive(Clone, Debug)]
enum Op {
    Subscribe(String, Receiver, Subscription),
    Unsubscribe(String, Receiver),
    /// Exactly one of those that are there.
    UnsubscribeOne(Index),
    Remove(Index),
    Match(String),
    Queues(String),
}

fn place(slot: u32) -> Place {
    Place {
        slot,
        generation: 7,
    }
}

fn session(slot: u32) -> Receiver {
    Receiver::Session(SessionId(place(slot)))
}

fn receivers() -> impl Strategy<Value = Receiver> {
    prop_oneof![
        4 => (0..5u32).prop_map(session),
        1 => (0..2u32).prop_map(|slot| Receiver::Group(QueueId(place(slot)))),
        2 => (0..3u32).prop_map(|slot| Receiver::Queue(QueueId(place(slot)))),
    ]
}

fn subscriptions() -> impl Strategy<Value = Subscription> {
    let qos = select(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]);
    (qos, any::<bool>(), any::<bool>(), 0..3u32).prop_map(
        |(qos, no_local, retain_as_published, id)| Subscription {
            qos,
            no_local,
            retain_as_published,
            id: SubscriptionId::new(id),
        },
    )
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        6 => (filters(), receivers(), subscriptions())
            .prop_map(|(filter, receiver, subscription)| {
                Op::Subscribe(filter, receiver, subscription)
            }),
        1 => (filters(), receivers()).prop_map(|(filter, receiver)| {
            Op::Unsubscribe(filter, receiver)
        }),
        2 => any::<Index>().prop_map(Op::UnsubscribeOne),
        2 => any::<Index>().prop_map(Op::Remove),
        4 => topics().prop_map(Op::Match),
        2 => topics().prop_map(Op::Queues),
    ];
    prop::collection::vec(op, 1..120)
}

/// All subscriptions in one list.
#[derive(Default)]
struct Model(Vec<(String, Receiver, Subscription, NodeId)>);

impl Model {
    fn at(&self, filter: &str, receiver: Receiver) -> Option<usize> {
        self.0
            .iter()
            .position(|(f, r, ..)| f == filter && *r == receiver)
    }

    /// What a topic's receivers asked for, one after the other.
    fn matches(&self, topic: &str, queues_only: bool) -> BTreeMap<Receiver, Vec<Subscription>> {
        let mut found = BTreeMap::<_, Vec<_>>::new();
        for (filter, receiver, subscription, _) in &self.0 {
            let asked_for = !queues_only || matches!(receiver, Receiver::Queue(_));
            if asked_for && model_matches(filter, topic) {
                found.entry(*receiver).or_default().push(*subscription);
            }
        }
        found
    }
}

/// Several subscriptions as one: the maximum QoS [MQTT-3.3.4-2], and all
/// identifiers [MQTT-3.3.4-4].
fn together(asked: &[Subscription]) -> (Granted, Vec<u32>) {
    let granted = Granted {
        qos: asked.iter().map(|one| one.qos).max().expect("one at least"),
        no_local: asked.iter().all(|one| one.no_local),
        retain_as_published: asked.iter().any(|one| one.retain_as_published),
    };
    let ids = asked.iter().filter_map(|one| Some(one.id?.get()));
    (granted, sorted(&ids.collect::<Vec<_>>()))
}

fn sorted(ids: &[u32]) -> Vec<u32> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids
}

/// Each receiver once, with what its subscriptions say together, and for its
/// own messages with what those of them say that are without No Local.
fn check(matches: Matches<'_>, expected: &BTreeMap<Receiver, Vec<Subscription>>) {
    let receivers: Vec<_> = matches.targets.iter().map(|t| t.receiver).collect();
    assert_eq!(receivers, expected.keys().copied().collect::<Vec<_>>());
    for (target, asked) in std::iter::zip(matches.targets, expected.values()) {
        let got = (target.subscription, sorted(matches.ids(target)));
        assert_eq!(got, together(asked));
        let takes_own = |one: &&Subscription| !one.no_local;
        let asked_own: Vec<_> = asked.iter().filter(takes_own).copied().collect();
        let own = matches.own(target);
        assert_eq!(
            own.map(|(granted, ids)| (granted, sorted(ids))),
            (!asked_own.is_empty()).then(|| together(&asked_own))
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(768))]

    /// Whatever came before, and however much of it the cache remembers.
    #[test]
    fn a_topic_has_the_receivers_of_the_list(ops in ops()) {
        let router = Router::new();
        let mut model = Model::default();
        let mut caches = [1 << 20, 2000, 600, 0].map(MatchCache::new);
        let mut asked = Vec::new();
        for op in ops {
            match op {
                Op::Subscribe(text, receiver, subscription) => {
                    let done = router.subscribe(filter(&text), receiver, subscription);
                    let before = model.at(&text, receiver);
                    prop_assert_eq!(done.replaced, before.is_some());
                    if let Some(at) = before {
                        model.0.remove(at);
                    }
                    let subscription = match receiver {
                        Receiver::Session(_) => subscription,
                        // Those are its members'.
                        Receiver::Group(_) | Receiver::Queue(_) => Subscription {
                            no_local: false,
                            id: None,
                            ..subscription
                        },
                    };
                    model.0.push((text, receiver, subscription, done.node));
                }
                Op::Unsubscribe(text, receiver) => {
                    let at = model.at(&text, receiver);
                    let node = at.map(|at| model.0.remove(at).3);
                    prop_assert_eq!(router.unsubscribe(filter(&text), receiver), node);
                }
                Op::UnsubscribeOne(_) | Op::Remove(_) if model.0.is_empty() => {}
                Op::UnsubscribeOne(which) => {
                    let (text, receiver, _, node) = model.0.remove(which.index(model.0.len()));
                    prop_assert_eq!(router.unsubscribe(filter(&text), receiver), Some(node));
                    prop_assert!(!router.remove(node, receiver));
                }
                Op::Remove(which) => {
                    let (_, receiver, _, node) = model.0.remove(which.index(model.0.len()));
                    prop_assert!(router.remove(node, receiver));
                    prop_assert!(!router.remove(node, receiver));
                }
                Op::Match(text) => asked.push((text, false)),
                Op::Queues(text) => asked.push((format!("$queue/{text}"), true)),
            }
            // All that was ever asked for, so that caches have much to keep.
            for (text, queues_only) in &asked {
                let name = text.strip_prefix("$queue/").unwrap_or(text);
                let expected = model.matches(name, *queues_only);
                for cache in &mut caches {
                    match queues_only {
                        true => {
                            let queues = router.queues(topic(text), cache).iter();
                            let receivers: Vec<_> = queues.map(|t| t.receiver).collect();
                            prop_assert!(receivers.iter().eq(expected.keys()));
                        }
                        false => check(router.matches(topic(text), cache), &expected),
                    }
                }
            }
            prop_assert_eq!(router.counts().0, model.0.len());
            for (text, _, _, node) in &model.0 {
                let there = router.filter_of(*node);
                prop_assert_eq!(there.as_ref(), Some(text));
            }
        }
        for (text, receiver, _, node) in model.0.drain(..) {
            prop_assert_eq!(router.unsubscribe(filter(&text), receiver), Some(node));
        }
        prop_assert_eq!(router.counts(), (0, 0));
    }
}

/// The example of 3.3.4, and its own messages.
#[test]
fn one_copy_has_the_identifiers_of_all_that_match() {
    let router = Router::new();
    let mut cache = MatchCache::new(1 << 20);
    let subscribe = |text, qos, no_local, id| {
        let subscription = Subscription {
            qos,
            no_local,
            retain_as_published: no_local,
            id: SubscriptionId::new(id),
        };
        router.subscribe(filter(text), session(1), subscription)
    };
    subscribe("a/b", Qos::AtLeastOnce, false, 10);
    let mut ids = |own: bool| {
        let matches = router.matches(topic("a/b"), &mut cache);
        let target = &matches.targets[0];
        let granted = match own {
            true => matches.own(target),
            false => Some((target.subscription, matches.ids(target))),
        };
        granted.map(|(granted, ids)| (granted.qos, granted.retain_as_published, sorted(ids)))
    };
    let one = Some((Qos::AtLeastOnce, false, vec![10]));
    assert_eq!((ids(false), ids(true)), (one.clone(), one));
    subscribe("a/#", Qos::ExactlyOnce, true, 20);
    subscribe("+/b", Qos::AtMostOnce, false, 268_435_455);
    subscribe("#", Qos::AtMostOnce, false, 10);
    subscribe("a/+", Qos::AtMostOnce, false, 0);
    let all = vec![10, 10, 20, 268_435_455];
    assert_eq!(ids(false), Some((Qos::ExactlyOnce, true, all)));
    let own = vec![10, 10, 268_435_455];
    assert_eq!(ids(true), Some((Qos::AtLeastOnce, false, own)));

    // Another identifier, another option: not what the cache remembers.
    assert!(subscribe("a/#", Qos::ExactlyOnce, true, 21).replaced);
    let all = vec![10, 10, 21, 268_435_455];
    assert_eq!(ids(false), Some((Qos::ExactlyOnce, true, all)));
    for text in ["a/b", "#", "+/b", "a/+"] {
        assert!(subscribe(text, Qos::AtMostOnce, true, 0).replaced);
    }
    assert_eq!(ids(false), Some((Qos::ExactlyOnce, true, vec![21])));
    assert_eq!(ids(true), None);
}

/// [MQTT-4.7.2-1], and a work queue for what is dead among the others.
#[test]
fn a_dead_letter_queue_is_found_by_its_name_alone() {
    let router = Router::new();
    let mut cache = MatchCache::new(1 << 20);
    let queue = |slot| Receiver::Queue(QueueId(place(slot)));
    let subscription = Subscription::new(Qos::AtLeastOnce);
    for (slot, text) in (0..).zip(["#", "+/jobs", "$dead/jobs", "jobs"]) {
        router.subscribe(filter(text), queue(slot), subscription);
    }
    router.subscribe(filter("$dead/#"), session(9), subscription);
    let mut queues = |text| -> Vec<Receiver> {
        let targets = router.queues(topic(text), &mut cache);
        targets.iter().map(|target| target.receiver).collect()
    };
    assert_eq!(queues("$queue/$dead/jobs"), [queue(2)]);
    assert_eq!(queues("$queue/jobs"), [queue(0), queue(3)]);
    assert_eq!(queues("$queue/a/b/jobs"), [queue(0)]);
    assert_eq!(queues("$queue//jobs"), [queue(0), queue(1)]);
    assert_eq!(queues("$queue/"), []);
    assert_eq!(queues("jobs"), []);
}

#[test]
fn a_filter_of_a_hundred_thousand_receivers_gives_each_once_in_order() {
    let router = Router::new();
    let mut cache = MatchCache::new(1 << 20);
    let all: Vec<Receiver> = (0..100_000).map(session).collect();
    let subscription = Subscription::new(Qos::AtMostOnce);
    for receiver in all.iter().rev() {
        router.subscribe(filter("news/+"), *receiver, subscription);
    }
    let of = |targets: &[Target]| targets.iter().map(|t| t.receiver).collect::<Vec<_>>();
    // More than this cache holds: it is asked twice and right twice.
    for _ in 0..2 {
        assert_eq!(
            of(router.matches(topic("news/today"), &mut cache).targets),
            all
        );
    }
    for receiver in &all[1..] {
        assert!(router.unsubscribe(filter("news/+"), *receiver).is_some());
    }
    assert_eq!(
        of(router.matches(topic("news/today"), &mut cache).targets),
        all[..1]
    );
    assert_eq!(router.counts(), (1, 2));
}

/// Nodes are taken and given back in every order; none is lost or mixed up.
#[test]
fn many_filters_come_and_go() {
    let router = Router::new();
    let mut cache = MatchCache::new(1 << 20);
    let subscription = Subscription::new(Qos::AtMostOnce);
    let text = |i: u32| format!("site-{}/device-{i}/+/state", i % 100);
    for round in 0..3 {
        let nodes: Vec<_> = (0..20_000)
            .map(|i| {
                router
                    .subscribe(filter(&text(i)), session(i), subscription)
                    .node
            })
            .collect();
        assert_eq!(router.counts(), (20_000, 60_100));
        for i in (0..20_000).filter(|i| i % 3 != round) {
            assert!(router.remove(nodes[i as usize], session(i)));
        }
        for i in 0..20_000 {
            let of = format!("site-{}/device-{i}/x/state", i % 100);
            let stays = i % 3 == round;
            let targets = router.matches(topic(&of), &mut cache).targets;
            assert_eq!(targets.len(), usize::from(stays));
            if stays {
                assert_eq!(targets[0].receiver, session(i));
                assert_eq!(router.filter_of(nodes[i as usize]), Some(text(i)));
                assert!(router.remove(nodes[i as usize], session(i)));
            }
        }
        assert_eq!(router.counts(), (0, 0));
    }
}

/// Case C01 of docs/security.md.
#[test]
fn the_deepest_topics_take_no_stack() {
    on_a_small_stack(|| {
        let router = Router::new();
        let mut cache = MatchCache::new(1 << 20);
        let subscription = Subscription::new(Qos::AtMostOnce);
        let deepest = "/".repeat(65_535);
        let half = vec!["a"; 32_768].join("/");
        let texts = [
            deepest.clone(),
            half.clone(),
            vec!["+"; 32_768].join("/"),
            vec!["+"; 32_767].join("/") + "/#",
            "#".into(),
        ];
        let nodes: Vec<_> = (0..)
            .zip(&texts)
            .map(|(slot, text)| {
                let receiver = session(slot);
                router.subscribe(filter(text), receiver, subscription).node
            })
            .collect();
        let mut of = |text: &str| -> Vec<Receiver> {
            let targets = router.matches(topic(text), &mut cache).targets;
            targets.iter().map(|target| target.receiver).collect()
        };
        assert_eq!(of(&deepest), [0, 3, 4].map(session));
        assert_eq!(of(&half), [1, 2, 3, 4].map(session));
        for ((slot, text), node) in (0..).zip(&texts).zip(nodes) {
            assert_eq!(router.filter_of(node).as_ref(), Some(text));
            assert_eq!(router.unsubscribe(filter(text), session(slot)), Some(node));
        }
        assert_eq!(router.counts(), (0, 0));
    });
}
