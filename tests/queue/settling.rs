//! A job is settled by its result in two steps, and what happens between them
//! gives it to nobody.

use std::time::Duration;

use rotamq::message::{LeaseId, Qos, SessionId, Time};
use rotamq::queue::{Ask, DeadReason, Gone, Queue, Rules, Settlement};

use super::{membership, message, session, settings};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// A queue of one job, which `a` has in hand.
struct Hand {
    queue: Queue,
    a: SessionId,
    b: SessionId,
    lease: LeaseId,
    now: Time,
}

impl Hand {
    fn new(qos: Qos) -> Hand {
        let mut queue = Queue::new(settings(Rules::Work));
        let (a, b) = (session(1, 0), session(2, 0));
        let now = Time::from_micros(1);
        queue.join(a, membership(qos), now);
        let ask = Ask::default();
        queue.enqueue(message(1, qos, 1), &ask, now).expect("room");
        let lease = queue.poll_lease(now).expect("a job").id;
        queue.join(b, membership(qos), now);
        Hand {
            queue,
            a,
            b,
            lease,
            now,
        }
    }

    /// Whatever can take a job away does so.
    fn attack(&mut self, how: &str) {
        match how {
            "time" => self.now = self.now + 2 * DAY,
            "loss" => self.queue.detach(self.a, Gone::Lost, self.now),
            "take-over" => {
                self.queue.detach(self.a, Gone::Taken, self.now);
                self.queue.attach(self.a);
            }
            "end" => self.queue.remove(self.a, Gone::Left, self.now),
            "leaving" => self.queue.leave(self.a),
            "release" => self.queue.release(self.lease),
            "answer" => {
                let done = Settlement::Done;
                assert!(!self.queue.settle(self.lease, done, self.now));
                let refused = Settlement::Fail {
                    delay: None,
                    said: "",
                };
                assert!(!self.queue.settle(self.lease, refused, self.now));
            }
            _ => {}
        }
        let mut timed_out = Vec::new();
        self.queue.handle_timeout(self.now, &mut timed_out);
        assert_eq!(timed_out, [], "{how}");
        assert!(self.queue.poll_lease(self.now).is_none(), "{how}");
        assert!(self.queue.poll_dead().is_none(), "{how}");
        assert_eq!(self.queue.counts().in_flight, 1, "{how}");
    }
}

const ATTACKS: [&str; 8] = [
    "none",
    "time",
    "loss",
    "take-over",
    "end",
    "leaving",
    "release",
    "answer",
];

#[test]
fn nothing_takes_a_job_away_whose_result_is_stored() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        for how in ATTACKS {
            let mut hand = Hand::new(qos);
            assert!(hand.queue.begin_settling(hand.lease));
            // Nor begins anybody else.
            assert!(!hand.queue.begin_settling(hand.lease));
            hand.attack(how);
            assert!(hand.queue.finish_settling(hand.lease, hand.now));
            assert!(!hand.queue.finish_settling(hand.lease, hand.now));
            assert!(!hand.queue.begin_settling(hand.lease));
            let counts = hand.queue.counts();
            assert_eq!((counts.ready, counts.in_flight, counts.bytes), (0, 0, 0));
            assert_eq!((counts.totals.done, counts.totals.refused), (1, 0));
            hand.queue.remove(hand.a, Gone::Left, hand.now);
            hand.queue.remove(hand.b, Gone::Left, hand.now);
            assert!(hand.queue.is_idle(), "{how}");
        }
    }
}

#[test]
fn a_result_that_is_not_taken_leaves_the_job_where_it_would_be() {
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        for how in ATTACKS {
            let mut hand = Hand::new(qos);
            assert!(hand.queue.begin_settling(hand.lease));
            hand.attack(how);
            hand.queue.abort_settling(hand.lease, hand.now);
            hand.queue.abort_settling(hand.lease, hand.now);
            let mut timed_out = Vec::new();
            hand.queue.handle_timeout(hand.now, &mut timed_out);
            assert_eq!(timed_out.len(), usize::from(how == "time"), "{how}");
            let next = hand.queue.poll_lease(hand.now).map(|lease| lease.member);
            let dead = hand.queue.poll_dead().map(|letter| letter.reason);
            let (b, undecided) = (Some(hand.b), Some(DeadReason::Undecided));
            let expected = match (how, qos) {
                ("none" | "leaving" | "answer", _) => (None, None),
                ("loss" | "take-over", Qos::ExactlyOnce) => (None, None),
                ("time" | "end", Qos::ExactlyOnce) => (None, undecided),
                _ => (b, None),
            };
            assert_eq!((next, dead), expected, "{how} {qos:?}");
            if expected == (None, None) {
                let done = Settlement::Done;
                assert!(hand.queue.settle(hand.lease, done, hand.now), "{how}");
            }
        }
    }
}

#[test]
fn who_lost_a_job_to_nobody_may_bring_its_result() {
    for (is_delayed, is_taken) in [(false, true), (false, false), (true, true), (true, false)] {
        let mut hand = Hand::new(Qos::AtLeastOnce);
        hand.queue.leave(hand.b);
        hand.queue.leave(hand.a);
        if is_delayed {
            let (delay, said) = (Some(MINUTE), "");
            let refused = Settlement::Fail { delay, said };
            assert!(hand.queue.settle(hand.lease, refused, hand.now));
        } else {
            hand.now = hand.now + MINUTE;
            let mut timed_out = Vec::new();
            hand.queue.handle_timeout(hand.now, &mut timed_out);
            assert_eq!(timed_out, [(hand.a, hand.lease)]);
        }
        assert!(hand.queue.has_job(hand.lease, Default::default()));
        assert!(hand.queue.begin_settling(hand.lease));
        hand.queue
            .join(hand.b, membership(Qos::AtLeastOnce), hand.now);
        hand.attack("time");
        match is_taken {
            true => {
                assert!(hand.queue.finish_settling(hand.lease, hand.now));
                assert!(!hand.queue.has_job(hand.lease, Default::default()));
                assert_eq!(hand.queue.counts().totals.done, 1);
                assert!(hand.queue.poll_lease(hand.now).is_none());
            }
            false => {
                hand.queue.abort_settling(hand.lease, hand.now);
                let next = hand.queue.poll_lease(hand.now).map(|lease| lease.member);
                assert_eq!(next, Some(hand.b));
                // Now somebody else has it.
                assert!(!hand.queue.begin_settling(hand.lease));
                assert!(hand.queue.has_job(hand.lease, Default::default()));
            }
        }
    }
}
