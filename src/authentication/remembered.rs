//! Answers that are remembered for a while.
//!
//! Owns them, by a keyed hash of all that was asked: no password is kept, and
//! whoever knows what is kept cannot try passwords on it. Reads no clock.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use parking_lot::Mutex;

type Digest = [u8; 32];

/// So many answers at most; the oldest are forgotten first.
pub struct Remembered<T> {
    key: hmac::Key,
    entries_max: usize,
    state: Mutex<State<T>>,
}

struct State<T> {
    entries: HashMap<Digest, Entry<T>, ahash::RandomState>,
    /// In the order in which they came, those included that were replaced.
    order: VecDeque<(Digest, u64)>,
    next_number: u64,
    /// How often all were forgotten.
    round: u64,
}

struct Entry<T> {
    answer: T,
    until: Instant,
    number: u64,
}

/// What was asked, and since when no answer was forgotten.
#[derive(Clone, Copy)]
pub struct Question {
    digest: Digest,
    round: u64,
}

impl<T: Clone> Remembered<T> {
    /// # Errors
    /// The system gives no random key.
    pub fn new(entries_max: usize) -> Result<Remembered<T>, aws_lc_rs::error::Unspecified> {
        Ok(Remembered {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?,
            entries_max,
            state: Mutex::new(State {
                entries: HashMap::default(),
                order: VecDeque::new(),
                next_number: 0,
                round: 0,
            }),
        })
    }

    /// All that was asked, and the answer that holds at this moment, if there is
    /// one.
    pub fn look_up(&self, asked: &[u8], now: Instant) -> (Question, Option<T>) {
        let tag = hmac::sign(&self.key, asked);
        let digest: Digest = tag.as_ref().try_into().expect("SHA-256 has 32 bytes");
        let state = self.state.lock();
        let found = state.entries.get(&digest).filter(|entry| now < entry.until);
        let answer = found.map(|entry| entry.answer.clone());
        let round = state.round;
        (Question { digest, round }, answer)
    }

    /// Remembers an answer until then, unless all was forgotten since it was
    /// asked for.
    pub fn remember(&self, question: Question, answer: T, until: Instant) {
        let mut state = self.state.lock();
        if state.round != question.round {
            return;
        }
        let number = state.next_number;
        state.next_number += 1;
        let entry = Entry {
            answer,
            until,
            number,
        };
        state.entries.insert(question.digest, entry);
        state.order.push_back((question.digest, number));
        while state.order.len() > self.entries_max {
            let Some((digest, number)) = state.order.pop_front() else {
                return;
            };
            let is_it = |entry: &Entry<T>| entry.number == number;
            if state.entries.get(&digest).is_some_and(is_it) {
                state.entries.remove(&digest);
            }
        }
    }

    /// Forgets all, also what is being asked now.
    pub fn forget(&self) {
        let mut state = self.state.lock();
        state.entries = HashMap::default();
        state.order = VecDeque::new();
        state.round += 1;
    }

    /// How many are kept.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.state.lock().entries.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_answer_holds_for_its_time_and_for_what_was_asked() {
        let remembered = Remembered::new(10).expect("there is randomness");
        let start = Instant::now();
        let until = start + Duration::from_secs(5);
        let (question, none) = remembered.look_up(b"ann, secret", start);
        assert_eq!(none, None);
        remembered.remember(question, "yes", until);
        let found = |asked: &[u8], now| remembered.look_up(asked, now).1;
        assert_eq!(found(b"ann, secret", start), Some("yes"));
        assert_eq!(found(b"ann, secreT", start), None);
        assert_eq!(found(b"ann, secret", until), None);
        // L07: the same under another key.
        let other = Remembered::<()>::new(10).expect("there is randomness");
        let same = other.look_up(b"ann, secret", start).0.digest;
        assert_ne!(same, question.digest);
    }

    #[test]
    fn the_oldest_are_forgotten_and_at_last_all() {
        let remembered = Remembered::new(3).expect("there is randomness");
        let start = Instant::now();
        let until = start + Duration::from_secs(5);
        let question = |asked: u8| remembered.look_up(&[asked], start).0;
        let known = || -> Vec<u8> {
            (0..9)
                .filter(|asked| remembered.look_up(&[*asked], start).1.is_some())
                .collect()
        };
        for asked in [0, 1, 2, 3, 3, 4] {
            remembered.remember(question(asked), (), until);
            assert!(remembered.len() <= 3);
        }
        assert_eq!(known(), [3, 4]);
        let under_way = question(5);
        remembered.forget();
        assert!(known().is_empty());
        remembered.remember(under_way, (), until);
        assert!(known().is_empty());
    }
}
