//! One thread changes the tree, others match, each with its cache.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use rotamq::message::{Place, Qos, SessionId};
use rotamq::router::{MatchCache, Receiver, Router, Subscription};

use super::{filter, model_matches, topic};

const FILTERS: [&str; 8] = ["a/b", "a/+", "a/#", "+/b", "#", "c/d", "c/#", "$s/#"];
const TOPICS: [&str; 5] = ["a/b", "a/x", "c/d", "e/b", "$s/b"];
const STEPS: usize = 12_000;
const MATCHERS: usize = 2;

/// After so many steps, the tree rests until each matcher has asked for all
/// topics: what it gets then can be right in one way only.
const STEPS_TO_REST: usize = 400;

/// Step by step one filter comes or goes; which, is without a pattern.
fn toggled(step: usize) -> usize {
    (step.wrapping_mul(0x9E37_79B9) >> 7) % FILTERS.len()
}

/// The filters that are there before each step, as bits.
fn states() -> Vec<usize> {
    let mut states = vec![0];
    for step in 0..STEPS {
        states.push(states[step] ^ (1 << toggled(step)));
    }
    states
}

/// A match that begins after a change was made shows it; one that ends before
/// a change begins does not: so it shows a state from between the two.
#[test]
fn a_match_is_never_older_than_what_was_done_before_it() {
    let router = Router::new();
    let states = states();
    let (begun, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let matched = [const { AtomicUsize::new(0) }; MATCHERS];
    // Lets the other threads end, to fail with the one that found it.
    let wrong = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (step, there) in states[..STEPS].iter().enumerate() {
                if step % STEPS_TO_REST == 0 {
                    for matched in &matched {
                        // One match may have begun before.
                        let rested = matched.load(SeqCst) + TOPICS.len() + 1;
                        while matched.load(SeqCst) < rested && !wrong.load(SeqCst) {
                            std::thread::yield_now();
                        }
                    }
                }
                let which = toggled(step);
                let receiver = receiver(which);
                begun.store(step + 1, SeqCst);
                if there & (1 << which) == 0 {
                    let subscription = Subscription::new(Qos::AtMostOnce);
                    router.subscribe(filter(FILTERS[which]), receiver, subscription);
                } else {
                    let removed = router.unsubscribe(filter(FILTERS[which]), receiver);
                    assert!(removed.is_some());
                }
                done.store(step + 1, SeqCst);
            }
        });
        for (matcher, matched) in matched.iter().enumerate() {
            let (router, states, begun, done, wrong) = (&router, &states, &begun, &done, &wrong);
            scope.spawn(move || {
                // One has room for everything, one for little.
                let mut cache = MatchCache::new([1 << 20, 800][matcher]);
                let mut at_the_end = 0;
                for text in TOPICS.iter().cycle() {
                    let earliest = done.load(SeqCst);
                    let targets = router.matches(topic(text), &mut cache).targets;
                    let got = targets.iter().fold(0, |got, target| {
                        got | 1
                            << (0..FILTERS.len())
                                .find(|&which| receiver(which) == target.receiver)
                                .expect("a receiver of this test")
                    });
                    let latest = begun.load(SeqCst);
                    let could_match = (0..FILTERS.len())
                        .filter(|&which| model_matches(FILTERS[which], text))
                        .fold(0, |bits, which| bits | 1 << which);
                    if !(earliest..=latest).any(|step| states[step] & could_match == got) {
                        wrong.store(true, SeqCst);
                        panic!("{text}: {got:#b} at no step from {earliest} to {latest}");
                    }
                    matched.fetch_add(1, SeqCst);
                    at_the_end += usize::from(earliest == STEPS);
                    if at_the_end > TOPICS.len() || wrong.load(SeqCst) {
                        return;
                    }
                }
            });
        }
    });
}

fn receiver(which: usize) -> Receiver {
    Receiver::Session(SessionId(Place {
        slot: which as u32,
        generation: 0,
    }))
}
