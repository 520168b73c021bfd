//! The queue and its model do the same things, chosen at random, and must
//! agree after each on everything that can be seen.
//!
//! A failure prints the shortest list of steps that shows it. More cases:
//! `PROPTEST_CASES=100000 cargo test --test pure queue`.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use rotamq::config::Undecided;
use rotamq::message::{LeaseId, Qos, SessionId, Time};
use rotamq::queue::{Membership, Queue, Rules, Settings, Settlement, Stored};

use super::model::{Model, Turn};
use super::{expiring, job_of, message, session};

const SESSIONS: usize = 5;

#[derive(Clone, Debug)]
enum Step {
    Enqueue {
        qos: Qos,
        padding: usize,
        lifetime: Lifetime,
    },
    Reserve {
        padding: usize,
    },
    EnqueueReserved {
        qos: Qos,
        lifetime: Lifetime,
    },
    CancelReservation,
    Join {
        slot: usize,
        membership: Membership,
    },
    Attach {
        slot: usize,
    },
    Detach {
        slot: usize,
    },
    Leave {
        slot: usize,
    },
    Remove {
        slot: usize,
    },
    PassOver {
        slot: usize,
    },
    Room {
        slot: usize,
    },
    /// So many turns, if there are.
    Poll {
        turns: usize,
    },
    RefuseLease {
        of: Which,
    },
    Release {
        of: Which,
    },
    Settle {
        of: Which,
        settlement: Settlement,
    },
    Advance {
        span: Duration,
    },
    SetSettings {
        settings: Settings,
    },
}

/// For how long from now a job may be given, if not for ever; the shortest is
/// over already.
type Lifetime = Option<Duration>;

/// A lease: one that is current, or one of the last that were given.
#[derive(Clone, Debug)]
enum Which {
    Current(Index),
    Recent(Index),
}

struct World {
    queue: Queue,
    model: Model,
    now: Time,
    generations: [u32; SESSIONS],
    paddings: Vec<usize>,
    jobs: u64,
}

impl World {
    fn new(settings: Settings) -> World {
        World {
            queue: Queue::new(settings.clone()),
            model: Model::new(settings),
            now: Time::from_micros(1),
            generations: [0; SESSIONS],
            paddings: Vec::new(),
            jobs: 0,
        }
    }

    fn session(&self, slot: usize) -> SessionId {
        session(slot as u32, self.generations[slot])
    }

    fn expires(&self, lifetime: Lifetime) -> Time {
        lifetime.map_or(Time::MAX, |span| self.now + span - Duration::from_micros(1))
    }

    fn pick(&self, which: &Which) -> Option<(usize, LeaseId)> {
        let given = &self.model.given;
        let at = match which {
            Which::Current(index) => {
                let current: Vec<usize> = (0..given.len())
                    .filter(|&at| self.model.lease(at).is_some())
                    .collect();
                *current.get(index.index(current.len().max(1)))?
            }
            Which::Recent(index) => {
                let recent = given.len().min(16);
                let back = (recent > 0).then(|| index.index(recent))?;
                given.len() - 1 - back
            }
        };
        Some((at, given[at].id))
    }

    fn step(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Enqueue {
                qos,
                padding,
                lifetime,
            } => {
                let expires = self.expires(lifetime);
                let message = expiring(self.jobs, qos, padding, expires);
                let expected = self.model.reserve(message.cost_bytes());
                assert_eq!(
                    self.queue.has_room(message.cost_bytes()),
                    expected.is_ok(),
                    "has_room"
                );
                assert_eq!(self.queue.enqueue(message, now), expected, "enqueue");
                if expected.is_ok() {
                    self.model.enqueue_reserved(self.jobs, qos, expires);
                    self.jobs += 1;
                }
            }
            Step::Reserve { padding } => {
                let cost = message(0, Qos::AtMostOnce, padding).cost_bytes();
                let expected = self.model.reserve(cost);
                assert_eq!(self.queue.reserve(cost), expected, "reserve");
                if expected.is_ok() {
                    self.paddings.push(padding);
                }
            }
            Step::EnqueueReserved { qos, lifetime } => {
                if let Some(padding) = self.paddings.pop() {
                    let expires = self.expires(lifetime);
                    let message = expiring(self.jobs, qos, padding, expires);
                    self.queue.enqueue_reserved(message, Stored::NOT, now);
                    self.model.enqueue_reserved(self.jobs, qos, expires);
                    self.jobs += 1;
                }
            }
            Step::CancelReservation => {
                if self.paddings.pop().is_some() {
                    let cost = self.model.reserved.pop().expect("as many as paddings");
                    self.queue.cancel_reservation(cost);
                }
            }
            Step::Join { slot, membership } => {
                self.queue.join(self.session(slot), membership, now);
                self.model.join(self.session(slot), membership);
            }
            Step::Attach { slot } => {
                self.queue.attach(self.session(slot));
                self.model.attach(self.session(slot));
            }
            Step::Detach { slot } => {
                self.queue.detach(self.session(slot));
                self.model.detach(self.session(slot));
            }
            Step::Leave { slot } => {
                self.queue.leave(self.session(slot), now);
                self.model.leave(self.session(slot));
            }
            Step::Remove { slot } => {
                self.queue.remove(self.session(slot), now);
                self.model.remove(self.session(slot));
                self.generations[slot] += 1;
            }
            Step::PassOver { slot } => {
                self.queue.pass_over(self.session(slot));
                self.model.pass_over(self.session(slot), true);
            }
            Step::Room { slot } => {
                self.queue.room(self.session(slot));
                self.model.pass_over(self.session(slot), false);
            }
            Step::Poll { turns } => {
                for _ in 0..turns {
                    if !self.poll() {
                        break;
                    }
                }
            }
            Step::RefuseLease { of } => {
                if let Some((given, id)) = self.pick(&of) {
                    self.queue.refuse_lease(id);
                    self.model.refuse_lease(given);
                }
            }
            Step::Release { of } => {
                if let Some((given, id)) = self.pick(&of) {
                    self.queue.release(id);
                    self.model.release(given);
                }
            }
            Step::Settle { of, settlement } => {
                if let Some((given, id)) = self.pick(&of) {
                    let counted = self.queue.settle(id, settlement, now);
                    let expected = self.model.settle(given, settlement, now);
                    assert_eq!(counted, expected, "settle");
                }
            }
            Step::Advance { span } => {
                self.now = now + span;
                self.handle_timeout();
            }
            Step::SetSettings { settings } => {
                let rules = self.model.settings.rules;
                let settings = Settings { rules, ..settings };
                self.queue.set_settings(settings.clone());
                self.model.set_settings(settings);
            }
        }
        self.compare();
    }

    /// Whether there was a turn.
    fn poll(&mut self) -> bool {
        self.model.expire(self.now);
        let expected = self.model.turn();
        let lease = self.queue.poll_lease(self.now);
        let turn = lease.map(|lease| {
            let turn = Turn {
                session: lease.member,
                job: job_of(lease.message),
                qos: lease.qos,
                deliveries: lease.deliveries,
            };
            (turn, lease.id)
        });
        assert_eq!(turn.as_ref().map(|(turn, _)| turn), expected.as_ref());
        match turn {
            Some((turn, id)) => {
                if let Some(last) = self.model.given.last() {
                    assert!(
                        last.id.number() < id.number(),
                        "leases are numbered in order"
                    );
                }
                self.model.take(&turn, id, self.now);
                true
            }
            None => {
                self.model.no_turn();
                false
            }
        }
    }

    fn handle_timeout(&mut self) {
        let mut timed_out = Vec::new();
        self.queue.handle_timeout(self.now, &mut timed_out);
        let given = |id: LeaseId| {
            let mut all = self.model.given.iter();
            all.position(|given| given.id == id)
                .expect("a lease that was given")
        };
        let ended: Vec<usize> = timed_out.iter().map(|&(_, id)| given(id)).collect();
        let mut sorted = ended.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, self.model.due(self.now), "leases that ended");
        self.model.handle_timeout(self.now, &ended);
        if let Some(next) = self.queue.next_timeout() {
            assert!(next > self.now, "nothing that is due is left");
        }
    }

    fn compare(&mut self) {
        while let Some(dead) = self.queue.poll_dead() {
            let dead = (job_of(&dead.message), dead.reason, dead.deliveries);
            assert_eq!(Some(dead), self.model.dead.pop_front(), "dead letter");
        }
        assert!(self.model.dead.is_empty(), "a dead letter is missing");
        let counts = self.queue.counts();
        assert_eq!(counts, self.model.counts());
        assert_eq!(self.queue.is_idle(), self.model.is_idle(), "idle");
        if let Some(expected) = self.model.next_timeout() {
            let next = self.queue.next_timeout().expect("there is timed work");
            assert!(
                next <= expected.max(self.now),
                "the timeout would be missed"
            );
        }
        let totals = counts.totals;
        let here = counts.ready + counts.in_flight + counts.delayed;
        let gone = totals.done
            + totals.rejected
            + totals.undecided
            + totals.dropped
            + totals.discarded
            + totals.expired;
        assert_eq!(totals.enqueued, here as u64 + gone, "none is lost");
        assert_eq!(
            self.jobs,
            self.model.jobs.len() as u64 + self.model.fates.len() as u64
        );
    }

    /// Whatever happened, one worker that comes at the end finds all that was
    /// left over.
    fn drain(&mut self) {
        for slot in 0..SESSIONS {
            self.step(Step::Remove { slot });
        }
        self.step(Step::Advance {
            span: Duration::from_secs(1_000_000),
        });
        let membership = Membership {
            qos: Qos::AtLeastOnce,
            prefetch: Some(1),
            ack_timeout: None,
        };
        self.step(Step::Join {
            slot: 0,
            membership,
        });
        while self.poll() {
            let given = self.model.given.len() - 1;
            let id = self.model.given[given].id;
            assert!(self.queue.settle(id, Settlement::Done, self.now));
            assert!(self.model.settle(given, Settlement::Done, self.now));
            self.compare();
        }
        assert_eq!(
            self.model.fates.len() as u64,
            self.jobs,
            "each job has its end"
        );
    }
}

fn qos() -> impl Strategy<Value = Qos> {
    prop_oneof![
        Just(Qos::AtMostOnce),
        Just(Qos::AtLeastOnce),
        Just(Qos::ExactlyOnce),
    ]
}

/// From a few, so that times meet.
fn span(seconds_max: u64) -> impl Strategy<Value = Duration> {
    (0..=seconds_max / 5).prop_map(|fives| Duration::from_secs(fives * 5))
}

fn lifetime() -> impl Strategy<Value = Lifetime> {
    prop::option::weighted(0.4, span(60))
}

fn membership() -> impl Strategy<Value = Membership> {
    let prefetch = prop::option::of(0..4u32);
    (qos(), prefetch, prop::option::of(span(60))).prop_map(|(qos, prefetch, ack_timeout)| {
        Membership {
            qos,
            prefetch,
            ack_timeout,
        }
    })
}

fn settings() -> impl Strategy<Value = Settings> {
    let limits = (1..100usize, 3_000..80_000usize);
    let undecided = prop_oneof![Just(Undecided::DeadLetter), Just(Undecided::Redeliver)];
    let rules = prop_oneof![2 => Just(Rules::Work), 1 => Just(Rules::Share)];
    let times = (prop::option::weighted(0.8, span(60)), span(60));
    let exclusive = prop::bool::weighted(0.2);
    (0..9u32, times, undecided, exclusive, limits, rules).prop_map(
        |(prefetch, times, undecided, exclusive, limits, rules)| Settings {
            trace_events_max: 8,
            prefetch,
            ack_timeout: times.0,
            undecided,
            undecided_after: times.1,
            exclusive,
            messages_max: limits.0,
            bytes_max: limits.1,
            rules,
        },
    )
}

fn which() -> impl Strategy<Value = Which> {
    prop_oneof![
        3 => any::<Index>().prop_map(Which::Current),
        1 => any::<Index>().prop_map(Which::Recent),
    ]
}

fn settlement() -> impl Strategy<Value = Settlement> {
    prop_oneof![
        6 => Just(Settlement::Done),
        2 => prop::option::of(span(60)).prop_map(|delay| Settlement::Refuse { delay }),
        1 => Just(Settlement::Reject),
        2 => prop::option::of(span(60)).prop_map(Settlement::Extend),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let slot = || 0..SESSIONS;
    prop_oneof![
        16 => (qos(), 1..400usize, lifetime()).prop_map(|(qos, padding, lifetime)| {
            Step::Enqueue { qos, padding, lifetime }
        }),
        1 => (20..400usize).prop_map(|padding| Step::Reserve { padding }),
        1 => (qos(), lifetime()).prop_map(|(qos, lifetime)| {
            Step::EnqueueReserved { qos, lifetime }
        }),
        1 => Just(Step::CancelReservation),
        6 => (slot(), membership()).prop_map(|(slot, membership)| Step::Join { slot, membership }),
        2 => slot().prop_map(|slot| Step::Attach { slot }),
        2 => slot().prop_map(|slot| Step::Detach { slot }),
        1 => slot().prop_map(|slot| Step::Leave { slot }),
        1 => slot().prop_map(|slot| Step::Remove { slot }),
        1 => slot().prop_map(|slot| Step::PassOver { slot }),
        2 => slot().prop_map(|slot| Step::Room { slot }),
        10 => (1..12usize).prop_map(|turns| Step::Poll { turns }),
        1 => which().prop_map(|of| Step::RefuseLease { of }),
        1 => which().prop_map(|of| Step::Release { of }),
        12 => (which(), settlement()).prop_map(|(of, settlement)| Step::Settle { of, settlement }),
        5 => span(20).prop_map(|span| Step::Advance { span }),
        1 => settings().prop_map(|settings| Step::SetSettings { settings }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases * 4,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn does_what_the_model_says(
        settings in settings(),
        steps in prop::collection::vec(step(), 1..400),
    ) {
        let mut world = World::new(settings);
        for step in steps {
            world.step(step);
        }
        world.drain();
    }
}
