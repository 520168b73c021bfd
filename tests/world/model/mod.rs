//! Random clients of both versions do random things to the broker and to a
//! slow, obvious broker of lists, and what clients get is compared.
//!
//! Sessions, subscriptions, retained messages, wills, both ways' handshakes,
//! time, share groups, and a work queue: each job goes to one member at a time,
//! jobs fail and die, busy members rest; not priorities, groups and delays.
//! Every second run is of a broker that stores.
//!
//! A run is told by its seed alone. One that fails prints its seed and the
//! steps that it takes to fail, the fewest that were found. To play one again:
//! `ROTAMQ_SEED=17 cargo test --test pure world::model`; to play many, from
//! that seed or the first on: `ROTAMQ_ROUNDS=100000`.

mod broker;
mod clients;
mod play;

use std::panic::{AssertUnwindSafe, catch_unwind};

use self::play::{Play, Step};
use super::random::Random;

/// What some messages are padded to, beyond what some clients take.
const LARGE_BYTES: usize = 2_000;
const STEPS: usize = 150;
const ROUNDS: u64 = 500;
/// How often a story that fails is told with less, to find a short one.
const TELLINGS_MAX: usize = 3_000;

#[test]
fn what_clients_get_is_what_the_reference_says() {
    let seed = number("ROTAMQ_SEED");
    let rounds = number("ROTAMQ_ROUNDS").unwrap_or(if seed.is_some() { 1 } else { ROUNDS });
    let first = seed.unwrap_or(0);
    for seed in first..first + rounds {
        let mut story = Vec::new();
        if let Err(why) = guarded(|| run(seed, &mut story)) {
            let (story, why) = shorten(seed, story, why);
            let mut play = Play::new(seed);
            let again = guarded(|| tell(&mut play, &story));
            let log = play.log.join("\n");
            assert_eq!(again, Err(why), "the same story ends in another way: {log}");
            panic!("ROTAMQ_SEED={seed}\n{log}\n{}", again.unwrap_err());
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number, not {text}")),
    )
}

/// Plays that seed; the steps that it took are in `story`.
fn run(seed: u64, story: &mut Vec<Step>) -> Result<(), String> {
    let mut random = Random(seed);
    let mut play = Play::new(seed);
    for number in 0..STEPS {
        let step = play.next(&mut random, number);
        story.push(step.clone());
        play.step(&step)?;
    }
    play.finish()
}

fn tell(play: &mut Play, story: &[Step]) -> Result<(), String> {
    story.iter().try_for_each(|step| play.step(step))?;
    play.finish()
}

/// A panic of the broker is a failure like another.
fn guarded(run: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("")))
    })
}

/// Leaves out steps, first many at a time, for as long as it still fails.
fn shorten(seed: u64, mut story: Vec<Step>, mut why: String) -> (Vec<Step>, String) {
    let mut tellings = 0;
    let mut count = story.len();
    while count > 0 {
        let mut at = 0;
        while at < story.len() && tellings < TELLINGS_MAX {
            tellings += 1;
            let mut shorter = story.clone();
            shorter.drain(at..(at + count).min(story.len()));
            match guarded(|| tell(&mut Play::new(seed), &shorter)) {
                Err(reason) => (story, why) = (shorter, reason),
                Ok(()) => at += count,
            }
        }
        count /= 2;
    }
    for at in 0..story.len() {
        let mut action = 0;
        while let Step::Send(_, actions) = &story[at]
            && action < actions.len()
        {
            let mut shorter = story.clone();
            if let Step::Send(_, actions) = &mut shorter[at] {
                actions.remove(action);
            }
            match guarded(|| tell(&mut Play::new(seed), &shorter)) {
                Err(reason) => (story, why) = (shorter, reason),
                Ok(()) => action += 1,
            }
        }
    }
    (story, why)
}
