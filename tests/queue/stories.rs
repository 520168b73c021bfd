//! Each rule, as a story about members A, B and C and numbered jobs.

use std::time::Duration;

use rotamq::config::Undecided;
use rotamq::message::{LeaseId, Qos, SessionId, Time};
use rotamq::queue::{DeadReason, Full, Membership, Queue, Rules, Settings, Settlement, Stored};

use super::{expiring, job_of, membership, message, session, settings};

const QOS_0: Qos = Qos::AtMostOnce;
const QOS_1: Qos = Qos::AtLeastOnce;
const QOS_2: Qos = Qos::ExactlyOnce;
const REFUSED: Settlement = Settlement::Refuse { delay: None };

struct World {
    queue: Queue,
    now: Time,
    jobs: u64,
    given: Vec<(char, u64, LeaseId)>,
}

impl World {
    fn new(settings: Settings) -> World {
        World {
            queue: Queue::new(settings),
            now: Time::from_micros(1),
            jobs: 0,
            given: Vec::new(),
        }
    }

    /// A work queue with these members.
    fn with(members: &[(char, Qos)]) -> World {
        let mut world = World::new(settings(Rules::Work));
        world.join_all(members);
        world
    }

    fn join_all(&mut self, members: &[(char, Qos)]) {
        for &(member, qos) in members {
            self.join(member, membership(qos));
        }
    }

    fn join(&mut self, member: char, membership: Membership) {
        self.queue.join(id(member), membership, self.now);
    }

    /// Puts jobs in, numbered on from the last; the first is 1.
    fn put(&mut self, jobs: u64) {
        self.publish(jobs, QOS_1);
    }

    fn publish(&mut self, jobs: u64, qos: Qos) {
        for _ in 0..jobs {
            self.jobs += 1;
            let message = message(self.jobs, qos, 1);
            self.queue.enqueue(message, self.now).expect("room");
        }
    }

    /// Puts one in that may be given for so long.
    fn put_for(&mut self, seconds: u64) {
        self.jobs += 1;
        let expires = self.now + seconds_of(seconds);
        let message = expiring(self.jobs, QOS_1, 1, expires);
        self.queue.enqueue(message, self.now).expect("room");
    }

    fn expired(&self) -> u64 {
        self.queue.counts().totals.expired
    }

    /// All turns that there are: whose, and which job.
    fn turns(&mut self) -> Vec<(char, u64)> {
        let turns = self.turns_with_qos().into_iter();
        turns.map(|(member, job, _)| (member, job)).collect()
    }

    fn turns_with_qos(&mut self) -> Vec<(char, u64, Qos)> {
        let mut turns = Vec::new();
        while let Some(lease) = self.queue.poll_lease(self.now) {
            let (member, job) = (name(lease.member), job_of(lease.message));
            self.given.push((member, job, lease.id));
            turns.push((member, job, lease.qos));
        }
        turns
    }

    /// The last delivery of the job to the member.
    fn lease(&self, member: char, job: u64) -> LeaseId {
        let mut given = self.given.iter().rev();
        let lease = given.find(|given| (given.0, given.1) == (member, job));
        lease.expect("it had the job").2
    }

    fn settle(&mut self, member: char, job: u64, settlement: Settlement) -> bool {
        let lease = self.lease(member, job);
        self.queue.settle(lease, settlement, self.now)
    }

    fn done(&mut self, member: char, job: u64) -> bool {
        self.settle(member, job, Settlement::Done)
    }

    /// Lets time pass; tells who lost which job by it.
    fn wait(&mut self, seconds: u64) -> Vec<(char, u64)> {
        self.now = self.now + seconds_of(seconds);
        let mut timed_out = Vec::new();
        if self.queue.next_timeout().is_some_and(|at| at <= self.now) {
            self.queue.handle_timeout(self.now, &mut timed_out);
        }
        let lost = |(member, lease): (SessionId, LeaseId)| {
            let mut given = self.given.iter();
            let given = given.find(|given| given.2 == lease).expect("it was given");
            assert_eq!(given.0, name(member));
            (given.0, given.1)
        };
        timed_out.into_iter().map(lost).collect()
    }

    fn dead(&mut self) -> Vec<(u64, DeadReason, u32)> {
        let queue = &mut self.queue;
        let dead = std::iter::from_fn(|| queue.poll_dead());
        dead.map(|dead| (job_of(&dead.message), dead.reason, dead.deliveries))
            .collect()
    }
}

fn id(member: char) -> SessionId {
    session(member as u32, 0)
}

fn name(member: SessionId) -> char {
    char::from_u32(member.0.slot).expect("made by id")
}

fn seconds_of(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn refused_for(seconds: u64) -> Settlement {
    Settlement::Refuse {
        delay: Some(seconds_of(seconds)),
    }
}

#[test]
fn two_members_take_turns() {
    let mut world = World::with(&[('A', QOS_1), ('B', QOS_1)]);
    world.put(10);
    let turns = world.turns();
    let alternately = (1..=10).map(|job| (if job % 2 == 1 { 'A' } else { 'B' }, job));
    assert_eq!(turns, alternately.collect::<Vec<_>>());
}

#[test]
fn jobs_wait_until_somebody_comes() {
    let mut world = World::with(&[]);
    world.put(2);
    assert_eq!(world.turns(), []);
    world.join('A', membership(QOS_1));
    assert_eq!(world.turns(), [('A', 1), ('A', 2)]);
}

#[test]
fn acknowledgements_may_come_in_any_order() {
    let mut world = World::with(&[('A', QOS_1)]);
    world.put(3);
    world.turns();
    assert!(world.done('A', 2));
    assert!(world.done('A', 3));
    assert!(world.done('A', 1));
    assert!(!world.done('A', 1), "the first settlement wins");
    assert_eq!(world.queue.counts().totals.done, 3);
}

#[test]
fn what_a_lost_member_held_goes_to_the_next_before_younger_jobs() {
    let mut world = World::with(&[('A', QOS_1), ('B', QOS_1)]);
    world.put(6);
    world.turns();
    world.put(2);
    world.done('A', 3);
    world.queue.detach(id('A'));
    assert_eq!(world.turns(), [('B', 1), ('B', 5), ('B', 7), ('B', 8)]);
}

#[test]
fn a_member_that_comes_back_takes_turns_again() {
    let mut world = World::with(&[('A', QOS_1), ('B', QOS_1)]);
    world.queue.detach(id('A'));
    world.put(1);
    assert_eq!(world.turns(), [('B', 1)]);
    world.queue.attach(id('A'));
    world.put(2);
    assert_eq!(world.turns(), [('B', 2), ('A', 3)]);
}

#[test]
fn a_member_holds_at_most_its_prefetch() {
    let mut world = World::with(&[]);
    let two = Some(2);
    world.join(
        'A',
        Membership {
            prefetch: two,
            ..membership(QOS_1)
        },
    );
    world.put(20);
    assert_eq!(world.turns(), [('A', 1), ('A', 2)]);
    world.done('A', 2);
    assert_eq!(world.turns(), [('A', 3)]);
    world.join('A', membership(QOS_1));
    assert_eq!(
        world.turns().len(),
        14,
        "the queue's 16 now, without the two in hand"
    );
}

#[test]
fn the_next_member_is_the_one_that_waits_longest_for_a_turn() {
    let mut world = World::with(&[]);
    for member in ['A', 'B', 'C'] {
        world.join(
            member,
            Membership {
                prefetch: Some(1),
                ..membership(QOS_1)
            },
        );
    }
    world.put(6);
    assert_eq!(world.turns(), [('A', 1), ('B', 2), ('C', 3)]);
    world.done('C', 3);
    world.done('A', 1);
    assert_eq!(world.turns(), [('C', 4), ('A', 5)]);
}

#[test]
fn who_subscribes_again_keeps_its_turn() {
    let mut world = World::with(&[('A', QOS_1), ('B', QOS_1)]);
    world.join('A', membership(QOS_2));
    world.put(2);
    assert_eq!(world.turns_with_qos(), [('A', 1, QOS_2), ('B', 2, QOS_1)]);
}

#[test]
fn after_the_ack_timeout_the_next_member_has_the_job() {
    let mut world = World::with(&[('A', QOS_1), ('B', QOS_1)]);
    world.put(1);
    world.turns();
    assert_eq!(world.wait(59), []);
    assert_eq!(world.wait(1), [('A', 1)]);
    assert_eq!(world.turns(), [('B', 1)]);
}

#[test]
fn a_job_that_came_back_goes_to_another_member_if_there_is_one() {
    let mut world = World::with(&[('A', QOS_1), ('B', QOS_1)]);
    world.put(2);
    assert_eq!(world.turns(), [('A', 1), ('B', 2)]);
    world.settle('A', 1, REFUSED);
    world.put(1);
    assert_eq!(world.turns(), [('B', 1), ('A', 3)], "A keeps its turn");
    world.queue.leave(id('A'), world.now);
    world.settle('B', 1, REFUSED);
    assert_eq!(world.turns(), [('B', 1)]);
}

#[test]
fn a_late_acknowledgement_counts_while_nobody_else_has_the_job() {
    let mut world = World::with(&[('A', QOS_1)]);
    world.put(1);
    world.turns();
    world.wait(60);
    assert!(world.done('A', 1));
    assert_eq!(world.turns(), []);
}

#[test]
fn a_late_acknowledgement_is_ignored_once_somebody_else_has_the_job() {
    let mut world = World::with(&[('A', QOS_1), ('B', QOS_1)]);
    world.put(1);
    world.turns();
    world.wait(60);
    world.turns();
    assert!(!world.done('A', 1));
    assert!(world.done('B', 1));
}

#[test]
fn a_late_acknowledgement_counts_when_another_session_did_not_take_the_job() {
    let mut world = World::with(&[('A', QOS_1), ('B', QOS_1)]);
    world.put(1);
    world.turns();
    world.wait(60);
    assert_eq!(world.turns(), [('B', 1)]);
    world.queue.refuse_lease(world.lease('B', 1));
    assert!(world.done('A', 1), "as if B had never had it");
}

#[test]
fn a_member_that_works_one_job_after_the_other_loses_none() {
    let mut world = World::with(&[('A', QOS_1)]);
    world.put(5);
    world.turns();
    for job in 1..=5 {
        assert_eq!(world.wait(50), [], "50 s for each job, 250 in all");
        world.done('A', job);
    }
}

#[test]
fn a_member_that_forgets_one_job_loses_that_one() {
    let mut world = World::with(&[('A', QOS_1)]);
    world.put(3);
    world.turns();
    world.wait(50);
    world.done('A', 2);
    assert_eq!(
        world.wait(10),
        [('A', 1)],
        "2 came later, so that it gives 1 no time"
    );
    assert_eq!(world.wait(49), []);
    world.turns();
    assert_eq!(world.wait(1), [('A', 3)], "60 s after 2 was settled");
}

#[test]
fn a_late_answer_too_gives_later_deliveries_time() {
    let mut world = World::with(&[('A', QOS_1)]);
    world.put(1);
    world.turns();
    world.wait(30);
    world.put(1);
    world.turns();
    assert_eq!(world.wait(30), [('A', 1)]);
    world.join('B', membership(QOS_1));
    world.queue.pass_over(id('A'));
    assert_eq!(world.turns(), [('B', 1)]);
    world.wait(20);
    assert!(!world.done('A', 1), "B has it");
    assert_eq!(world.wait(20), [], "A began with 2 only then");
}

#[test]
fn a_lease_is_extended_alone() {
    let mut world = World::with(&[('A', QOS_1)]);
    world.put(3);
    world.turns();
    world.wait(50);
    assert!(world.settle('A', 1, Settlement::Extend(None)));
    assert!(world.settle('A', 3, Settlement::Extend(Some(seconds_of(5)))));
    assert_eq!(world.wait(5), [('A', 3)]);
    assert_eq!(world.wait(5), [('A', 2)]);
    assert_eq!(world.wait(49), []);
    assert_eq!(world.wait(1), [('A', 1)]);
    assert!(
        !world.settle('A', 1, Settlement::Extend(None)),
        "it is too late"
    );
}

#[test]
fn an_extended_lease_gets_time_from_earlier_ones_too() {
    let mut world = World::with(&[('A', QOS_1)]);
    world.put(2);
    world.turns();
    world.settle('A', 2, Settlement::Extend(Some(seconds_of(30))));
    world.wait(20);
    world.done('A', 1);
    assert_eq!(world.wait(59), []);
    assert_eq!(world.wait(1), [('A', 2)]);
}

#[test]
fn an_extended_lease_never_loses_time_by_earlier_ones() {
    let mut world = World::with(&[('A', QOS_1)]);
    world.put(2);
    world.turns();
    world.settle('A', 2, Settlement::Extend(Some(seconds_of(300))));
    world.wait(20);
    world.done('A', 1);
    assert_eq!(world.wait(279), []);
    assert_eq!(world.wait(1), [('A', 2)]);
}

#[test]
fn a_lease_keeps_its_new_time_when_one_before_it_goes_to_somebody_else() {
    let mut world = World::with(&[('A', QOS_1)]);
    world.put(3);
    world.turns();
    world.wait(50);
    world.done('A', 1);
    world.queue.release(world.lease('A', 2));
    assert_eq!(world.wait(59), []);
    assert_eq!(world.wait(1), [('A', 3)]);
}

#[test]
fn a_refused_job_goes_to_the_next_member_in_its_place() {
    let mut world = World::with(&[('A', QOS_1), ('B', QOS_1)]);
    world.put(1);
    world.turns();
    world.put(2);
    assert!(world.settle('A', 1, REFUSED));
    assert_eq!(world.turns(), [('B', 1), ('A', 2), ('B', 3)]);
}

#[test]
fn a_job_that_is_refused_for_a_while_comes_back_before_younger_ones() {
    let mut world = World::with(&[('A', QOS_1)]);
    world.put(1);
    world.turns();
    assert!(world.settle('A', 1, refused_for(5)));
    assert_eq!(world.turns(), []);
    assert_eq!(world.queue.counts().delayed, 1);
    world.queue.detach(id('A'));
    world.put(1);
    world.wait(5);
    world.queue.attach(id('A'));
    assert_eq!(world.turns(), [('A', 1), ('A', 2)]);
}

#[test]
fn a_rejected_job_is_a_dead_letter_with_its_deliveries() {
    let mut world = World::with(&[('A', QOS_1)]);
    world.put(1);
    world.turns();
    world.settle('A', 1, REFUSED);
    world.turns();
    assert!(world.settle('A', 1, Settlement::Reject));
    assert_eq!(world.dead(), [(1, DeadReason::Rejected, 2)]);
    assert_eq!(world.turns(), []);
    assert!(!world.done('A', 1));
}

#[test]
fn a_job_that_a_session_did_not_take_was_not_delivered() {
    let mut world = World::with(&[('A', QOS_1), ('B', QOS_1)]);
    world.put(2);
    let first = world.queue.poll_lease(world.now).expect("a turn");
    assert_eq!((name(first.member), first.deliveries), ('A', 1));
    let first = first.id;
    world.queue.refuse_lease(first);
    let second = world.queue.poll_lease(world.now).expect("a turn");
    assert_eq!((name(second.member), job_of(second.message)), ('B', 1));
    assert_eq!(second.deliveries, 1);
    assert_eq!(world.turns(), [('B', 2)], "A is passed over");
    world.put(1);
    world.queue.room(id('A'));
    world.queue.pass_over(id('B'));
    assert_eq!(world.turns(), [('A', 3)]);
}

#[test]
fn who_leaves_keeps_what_it_holds_and_gets_no_more() {
    let mut world = World::with(&[('A', QOS_1)]);
    world.put(2);
    world.turns();
    world.queue.leave(id('A'), world.now);
    world.put(1);
    assert_eq!(world.turns(), []);
    assert!(world.done('A', 1));
    assert_eq!(world.wait(60), [('A', 2)]);
    assert_eq!(world.queue.counts().members, 0);
    world.join('B', membership(QOS_1));
    assert_eq!(world.turns(), [('B', 2), ('B', 3)]);
}

#[test]
fn who_left_loses_what_it_holds_with_its_connection() {
    let mut world = World::with(&[('A', QOS_1), ('B', QOS_1)]);
    world.put(2);
    world.turns();
    world.queue.leave(id('A'), world.now);
    world.queue.detach(id('A'));
    assert_eq!(world.turns(), [('B', 1)]);
}

#[test]
fn exclusive_gives_all_to_the_longest_standing_member() {
    let exclusive = true;
    let mut world = World::new(Settings {
        exclusive,
        ..settings(Rules::Work)
    });
    world.join_all(&[('A', QOS_1), ('B', QOS_1), ('C', QOS_1)]);
    world.put(2);
    assert_eq!(world.turns(), [('A', 1), ('A', 2)]);
    world.queue.detach(id('A'));
    assert_eq!(world.turns(), [('B', 1), ('B', 2)]);
    world.queue.attach(id('A'));
    world.put(1);
    assert_eq!(
        world.turns(),
        [('B', 3)],
        "who comes back takes the lead from nobody"
    );
    world.queue.leave(id('B'), world.now);
    world.put(1);
    assert_eq!(world.turns(), [('C', 4)]);
}

#[test]
fn exclusive_members_stand_by_though_the_first_has_no_room() {
    let mut world = World::new(Settings {
        exclusive: true,
        prefetch: 1,
        ..settings(Rules::Work)
    });
    world.join_all(&[('A', QOS_1), ('B', QOS_1)]);
    world.put(2);
    assert_eq!(world.turns(), [('A', 1)]);
    world.done('A', 1);
    assert_eq!(world.turns(), [('A', 2)]);
}

#[test]
fn at_qos_0_what_is_not_written_counts_for_prefetch_and_comes_back() {
    let mut world = World::with(&[('A', QOS_0), ('B', QOS_1)]);
    world.queue.pass_over(id('B'));
    world.put(17);
    assert_eq!(world.turns().len(), 16);
    assert_eq!(world.wait(1_000), [], "it has no ack timeout");
    assert!(world.done('A', 1), "written to the socket");
    assert_eq!(world.turns(), [('A', 17)]);
    world.queue.detach(id('A'));
    world.queue.room(id('B'));
    assert_eq!(world.turns().first(), Some(&('B', 2)));
}

#[test]
fn at_qos_2_a_job_waits_for_its_member() {
    let mut world = World::with(&[('A', QOS_2), ('B', QOS_1)]);
    world.put(1);
    assert_eq!(world.turns_with_qos(), [('A', 1, QOS_2)]);
    world.queue.detach(id('A'));
    assert_eq!(world.turns(), []);
    assert_eq!(world.wait(3_600), [], "there is no ack timeout");
    world.queue.attach(id('A'));
    assert!(world.done('A', 1));
}

#[test]
fn at_qos_2_what_was_never_written_goes_to_the_next() {
    let mut world = World::with(&[('A', QOS_2), ('B', QOS_2)]);
    world.put(1);
    world.turns();
    world.queue.detach(id('A'));
    world.queue.release(world.lease('A', 1));
    assert_eq!(world.turns(), [('B', 1)]);
}

#[test]
fn at_qos_2_a_job_whose_session_ended_is_undecided() {
    let mut world = World::with(&[('A', QOS_2), ('B', QOS_2)]);
    world.put(1);
    world.turns();
    world.queue.remove(id('A'), world.now);
    assert_eq!(world.turns(), []);
    assert_eq!(world.dead(), [(1, DeadReason::Undecided, 1)]);
}

#[test]
fn at_qos_2_a_job_is_undecided_after_a_day() {
    let mut world = World::with(&[('A', QOS_2)]);
    world.put(1);
    world.turns();
    world.queue.detach(id('A'));
    assert_eq!(world.wait(86_399), []);
    assert_eq!(world.wait(1), [('A', 1)]);
    assert_eq!(world.dead(), [(1, DeadReason::Undecided, 1)]);
    world.queue.attach(id('A'));
    assert!(!world.done('A', 1), "a person decides now");
}

#[test]
fn a_queue_may_prefer_twice_to_never() {
    let undecided = Undecided::Redeliver;
    let mut world = World::new(Settings {
        undecided,
        ..settings(Rules::Work)
    });
    world.join_all(&[('A', QOS_2), ('B', QOS_2)]);
    world.put(2);
    world.turns();
    world.queue.remove(id('A'), world.now);
    assert_eq!(world.turns(), [('B', 1)]);
    world.join('C', membership(QOS_2));
    assert_eq!(world.wait(86_400), [('B', 2), ('B', 1)]);
    assert_eq!(world.turns(), [('C', 1), ('C', 2)]);
    assert_eq!(world.dead(), []);
}

#[test]
fn a_full_queue_says_so_until_something_is_settled() {
    let messages_max = 2;
    let mut world = World::new(Settings {
        messages_max,
        ..settings(Rules::Work)
    });
    world.join('A', membership(QOS_1));
    world.put(2);
    world.turns();
    let third = message(3, QOS_1, 1);
    let refused = world.queue.enqueue(third.clone(), world.now);
    assert_eq!(refused, Err(Full::Messages), "what is leased counts");
    assert!(!world.queue.has_room(third.cost_bytes()));
    world.done('A', 1);
    assert!(world.queue.has_room(third.cost_bytes()));
    assert_eq!(world.queue.enqueue(third, world.now), Ok(()));
}

#[test]
fn a_reservation_keeps_its_room() {
    let cost = message(1, QOS_1, 1).cost_bytes();
    let bytes_max = 2 * (cost + Queue::JOB_BYTES);
    let mut world = World::new(Settings {
        bytes_max,
        ..settings(Rules::Work)
    });
    assert_eq!(world.queue.reserve(cost), Ok(()));
    assert_eq!(world.queue.reserve(cost), Ok(()));
    assert_eq!(world.queue.reserve(0), Err(Full::Bytes));
    world.queue.cancel_reservation(cost);
    world
        .queue
        .enqueue_reserved(message(1, QOS_1, 1), Stored::NOT, world.now);
    assert_eq!(world.queue.counts().bytes, bytes_max / 2);
    assert_eq!(world.queue.reserve(cost), Ok(()));
}

#[test]
fn a_queue_is_idle_without_jobs_and_members() {
    let mut world = World::with(&[('A', QOS_1)]);
    world.put(1);
    world.turns();
    world.queue.leave(id('A'), world.now);
    assert!(!world.queue.is_idle());
    world.wait(10);
    world.done('A', 1);
    assert!(world.queue.is_idle());
    assert_eq!(world.queue.last_used(), Time::from_micros(1));
}

#[test]
fn a_share_group_delivers_at_the_lower_qos() {
    let mut world = World::new(settings(Rules::Share));
    world.join_all(&[('A', QOS_2), ('B', QOS_1)]);
    world.publish(2, QOS_0);
    world.publish(2, QOS_1);
    world.publish(2, QOS_2);
    let turns: Vec<Qos> = world.turns_with_qos().iter().map(|turn| turn.2).collect();
    assert_eq!(turns, [QOS_0, QOS_0, QOS_1, QOS_1, QOS_2, QOS_1]);
}

#[test]
fn a_share_group_drops_qos_0_that_nobody_has_room_for() {
    let mut world = World::new(settings(Rules::Share));
    world.join('A', membership(QOS_1));
    world.queue.detach(id('A'));
    world.publish(1, QOS_0);
    world.publish(1, QOS_1);
    assert_eq!(world.turns(), []);
    assert_eq!(world.queue.counts().totals.dropped, 1);
    world.queue.attach(id('A'));
    assert_eq!(
        world.turns(),
        [('A', 2)],
        "QOS 1 waits while a session lives"
    );
}

#[test]
fn a_share_group_gives_a_lost_members_jobs_to_the_next_but_qos_2_to_nobody() {
    let mut world = World::new(settings(Rules::Share));
    world.join_all(&[('A', QOS_2), ('B', QOS_2)]);
    world.publish(1, QOS_2);
    world.publish(1, QOS_2);
    world.publish(1, QOS_1);
    assert_eq!(world.turns(), [('A', 1), ('B', 2), ('A', 3)]);
    world.queue.detach(id('A')); // [MQTT-4.8.2-4]
    assert_eq!(world.turns(), [('B', 3)]);
    world.queue.remove(id('A'), world.now); // [MQTT-4.8.2-5]
    assert_eq!(world.turns(), []);
    assert_eq!(world.queue.counts().totals.discarded, 1);
    assert_eq!(world.dead(), []);
}

#[test]
fn a_share_group_has_no_prefetch_no_timeout_and_no_dead_letters() {
    let mut world = World::new(settings(Rules::Share));
    world.join('A', membership(QOS_2));
    world.publish(50, QOS_1);
    world.publish(50, QOS_2);
    assert_eq!(world.turns().len(), 100);
    assert_eq!(world.wait(1_000_000), []);
    assert!(world.settle('A', 1, Settlement::Extend(Some(seconds_of(1)))));
    assert_eq!(world.wait(2), [], "there was no end, and there is none now");
    assert!(world.settle('A', 1, Settlement::Reject)); // [MQTT-4.8.2-6]
    assert_eq!(world.dead(), []);
    assert_eq!(world.queue.counts().totals.discarded, 1);
}

// ---- messages that expire

#[test]
fn what_expires_makes_room_while_nobody_is_there() {
    let mut world = World::new(Settings {
        messages_max: 3,
        ..settings(Rules::Work)
    });
    world.put(1);
    world.put_for(10);
    world.put_for(5);
    let cost = message(4, QOS_1, 1).cost_bytes();
    assert!(!world.queue.has_room(cost));
    world.wait(5);
    assert_eq!(world.expired(), 0, "its last moment is its own");
    let due = world.queue.next_timeout().expect("a job expires");
    assert_eq!(due, world.now + Duration::from_micros(1));
    world.wait(1);
    assert_eq!((world.expired(), world.queue.counts().ready), (1, 2));
    assert!(world.queue.has_room(cost));
    world.wait(100);
    assert_eq!(world.queue.next_timeout(), None);
    world.join('A', membership(QOS_1));
    assert_eq!(world.turns(), [('A', 1)]);
    assert_eq!(world.expired(), 2);
    assert_eq!(world.dead(), []);
}

#[test]
fn jobs_that_expire_keep_their_place_in_the_order() {
    let mut world = World::new(settings(Rules::Work));
    world.put(2);
    world.put_for(10);
    world.put(1);
    world.put_for(5);
    world.put_for(20);
    world.put(1);
    world.wait(8);
    world.join('A', membership(QOS_1));
    let order = [1, 2, 3, 4, 6, 7].map(|job| ('A', job));
    assert_eq!(world.turns(), order);
}

/// No timer tells the queue: who asks for a turn is enough.
#[test]
fn what_has_expired_is_given_to_nobody() {
    let mut world = World::with(&[('A', QOS_1)]);
    world.put_for(5);
    world.now = world.now + seconds_of(6);
    world.put(1);
    assert_eq!(world.turns(), [('A', 2)]);
    assert_eq!(world.expired(), 1);
}

#[test]
fn what_a_member_has_lives_on_and_expires_if_it_comes_back() {
    let mut world = World::with(&[('A', QOS_1)]);
    for _ in 0..4 {
        world.put_for(10);
    }
    assert_eq!(world.turns().len(), 4);
    assert!(world.settle('A', 4, REFUSED));
    assert_eq!(world.turns(), [('A', 4)], "in time");
    world.wait(30);
    assert_eq!((world.expired(), world.queue.counts().in_flight), (0, 4));
    assert!(world.done('A', 1));
    assert!(world.settle('A', 2, REFUSED));
    let delay = Some(seconds_of(5));
    assert!(world.settle('A', 3, Settlement::Refuse { delay }));
    assert_eq!(world.turns(), []);
    assert_eq!(world.expired(), 2);
    assert!(!world.done('A', 2), "it is gone");
    // Job 4's own time began anew with each that was settled.
    assert_eq!(world.wait(60), [('A', 4)]);
    assert_eq!((world.expired(), world.turns()), (3, vec![]));
    assert_eq!(world.queue.next_timeout(), None);
    assert_eq!(world.queue.counts().bytes, 0);
}

#[test]
fn a_refused_job_may_expire_before_its_delay_ends() {
    let mut world = World::with(&[('A', QOS_1)]);
    world.put_for(10);
    assert_eq!(world.turns(), [('A', 1)]);
    let delay = Some(seconds_of(100));
    world.settle('A', 1, Settlement::Refuse { delay });
    assert_eq!(world.queue.counts().delayed, 1);
    world.wait(11);
    let counts = world.queue.counts();
    assert_eq!((counts.delayed, counts.totals.expired), (0, 1));
    world.wait(100);
    assert_eq!(world.queue.next_timeout(), None);
    assert_eq!(world.turns(), []);
}

#[test]
fn a_share_group_gives_nothing_that_has_expired() {
    let mut world = World::new(settings(Rules::Share));
    world.put_for(5);
    world.put(1);
    world.put_for(50);
    world.wait(10);
    world.join('A', membership(QOS_1));
    assert_eq!(world.turns(), [('A', 2), ('A', 3)]);
    world.wait(100);
    world.queue.detach(id('A'));
    world.join('B', membership(QOS_1));
    assert_eq!(world.turns(), [('B', 2)]);
    assert_eq!(world.expired(), 2);
}
