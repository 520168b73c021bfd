//! Each rule, as a story about members A, B and C and numbered jobs.

use std::time::Duration;

use rotamq::config::{Dispatch, Durability, Overflow, Undecided};
use rotamq::journal::ListId;
use rotamq::message::{ClientId, LeaseId, Qos, SessionId, Time};
use rotamq::queue::{
    Ask, DeadReason, Full, Gone, JobRecord, Membership, Outcome, Queue, Rules, Settings,
    Settlement, Stored, StoredJob,
};

use super::{job_of, membership, message, received, session, settings};

const QOS_0: Qos = Qos::AtMostOnce;
const QOS_1: Qos = Qos::AtLeastOnce;
const QOS_2: Qos = Qos::ExactlyOnce;
const FAILED: Settlement<'static> = Settlement::Fail {
    delay: None,
    said: "",
};

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
            self.enqueue(qos, &Ask::default(), Time::MAX).expect("room");
        }
    }

    fn enqueue(&mut self, qos: Qos, ask: &Ask<'_>, expires: Time) -> Result<(), Full> {
        let message = received(self.jobs + 1, qos, 1, self.now, expires);
        self.queue.enqueue(message, ask, self.now)?;
        self.jobs += 1;
        Ok(())
    }

    /// Puts one in for each that is asked for so.
    fn ask(&mut self, asks: &[Ask<'_>]) {
        for ask in asks {
            self.enqueue(QOS_1, ask, Time::MAX).expect("room");
        }
    }

    /// Puts one in that may be given for so long.
    fn put_for(&mut self, seconds: u64) {
        let expires = self.now + seconds_of(seconds);
        let put = self.enqueue(QOS_1, &Ask::default(), expires);
        put.expect("room");
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

    fn settle(&mut self, member: char, job: u64, settlement: Settlement<'_>) -> bool {
        let lease = self.lease(member, job);
        self.queue.settle(lease, settlement, self.now)
    }

    fn done(&mut self, member: char, job: u64) -> bool {
        self.settle(member, job, Settlement::Done)
    }

    fn fail(&mut self, member: char, job: u64) {
        assert!(self.settle(member, job, FAILED));
    }

    /// Its connection is lost.
    fn lose(&mut self, member: char) {
        self.queue.detach(id(member), Gone::Lost, self.now);
    }

    /// Its connection is lost, and it comes back.
    fn crash(&mut self, member: char) {
        self.lose(member);
        self.queue.attach(id(member));
    }

    /// Its session ends.
    fn end(&mut self, member: char) {
        self.queue.remove(id(member), Gone::Left, self.now);
    }

    /// How the jobs ended whose producers want to know.
    fn finished(&mut self) -> Vec<(u64, Outcome)> {
        let queue = &mut self.queue;
        let finished = std::iter::from_fn(|| queue.poll_finished());
        finished
            .map(|end| (job_of(&end.message), end.outcome))
            .collect()
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

fn failed_for(seconds: u64) -> Settlement<'static> {
    Settlement::Fail {
        delay: Some(seconds_of(seconds)),
        said: "",
    }
}

fn rejected(said: &str) -> Settlement<'_> {
    Settlement::Reject { said }
}

fn of_priority(priority: u8) -> Ask<'static> {
    Ask {
        priority,
        ..Ask::default()
    }
}

fn of_group(group: &str) -> Ask<'_> {
    Ask {
        group: Some(group),
        ..Ask::default()
    }
}

fn of_key(key: &str) -> Ask<'_> {
    Ask {
        key: Some(key),
        ..Ask::default()
    }
}

const RECEIPT: Ask<'static> = Ask {
    priority: 4,
    group: None,
    key: None,
    due: Time::ZERO,
    receipt: true,
};

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
    world.lose('A');
    assert_eq!(world.turns(), [('B', 1), ('B', 5), ('B', 7), ('B', 8)]);
}

#[test]
fn a_member_that_comes_back_takes_turns_again() {
    let mut world = World::with(&[('A', QOS_1), ('B', QOS_1)]);
    world.lose('A');
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
    world.settle('A', 1, FAILED);
    world.put(1);
    assert_eq!(world.turns(), [('B', 1), ('A', 3)], "A keeps its turn");
    world.queue.leave(id('A'));
    world.settle('B', 1, FAILED);
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
    assert!(world.settle('A', 1, FAILED));
    assert_eq!(world.turns(), [('B', 1), ('A', 2), ('B', 3)]);
}

#[test]
fn a_job_that_is_refused_for_a_while_comes_back_before_younger_ones() {
    let mut world = World::with(&[('A', QOS_1)]);
    world.put(1);
    world.turns();
    assert!(world.settle('A', 1, failed_for(5)));
    assert_eq!(world.turns(), []);
    assert_eq!(world.queue.counts().delayed, 1);
    world.lose('A');
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
    world.settle('A', 1, FAILED);
    world.turns();
    assert!(world.settle('A', 1, rejected("")));
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
    world.queue.leave(id('A'));
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
    world.queue.leave(id('A'));
    world.lose('A');
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
    world.lose('A');
    assert_eq!(world.turns(), [('B', 1), ('B', 2)]);
    world.queue.attach(id('A'));
    world.put(1);
    assert_eq!(
        world.turns(),
        [('B', 3)],
        "who comes back takes the lead from nobody"
    );
    world.queue.leave(id('B'));
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
    world.lose('A');
    world.queue.room(id('B'));
    assert_eq!(world.turns().first(), Some(&('B', 2)));
}

#[test]
fn at_qos_2_a_job_waits_for_its_member() {
    let mut world = World::with(&[('A', QOS_2), ('B', QOS_1)]);
    world.put(1);
    assert_eq!(world.turns_with_qos(), [('A', 1, QOS_2)]);
    world.lose('A');
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
    world.lose('A');
    world.queue.release(world.lease('A', 1));
    assert_eq!(world.turns(), [('B', 1)]);
}

#[test]
fn at_qos_2_a_job_whose_session_ended_is_undecided() {
    let mut world = World::with(&[('A', QOS_2), ('B', QOS_2)]);
    world.put(1);
    world.turns();
    world.end('A');
    assert_eq!(world.turns(), []);
    assert_eq!(world.dead(), [(1, DeadReason::Undecided, 1)]);
}

#[test]
fn at_qos_2_a_job_is_undecided_after_a_day() {
    let mut world = World::with(&[('A', QOS_2)]);
    world.put(1);
    world.turns();
    world.lose('A');
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
    world.end('A');
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
    let refused = world.queue.reserve(third.cost_bytes());
    assert_eq!(refused, Err(Full::Messages), "what is leased counts");
    assert!(!world.queue.has_room(third.cost_bytes()));
    world.done('A', 1);
    assert!(world.queue.has_room(third.cost_bytes()));
    let ask = Ask::default();
    assert_eq!(world.queue.enqueue(third, &ask, world.now), Ok(()));
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
    let (message, ask) = (message(1, QOS_1, 1), Ask::default());
    world
        .queue
        .enqueue_reserved(message, &ask, Stored::NOT, world.now);
    assert_eq!(world.queue.counts().bytes, bytes_max / 2);
    assert_eq!(world.queue.reserve(cost), Ok(()));
}

#[test]
fn a_queue_is_idle_without_jobs_and_members() {
    let mut world = World::with(&[('A', QOS_1)]);
    world.put(1);
    world.turns();
    world.queue.leave(id('A'));
    assert!(!world.queue.is_idle());
    world.wait(10);
    world.done('A', 1);
    assert!(world.queue.is_idle());
}

#[test]
fn a_queue_that_lies_down_gets_up_as_it_was() {
    let mut world = World::new(Settings {
        trace_events_max: 100,
        ..settings(Rules::Work)
    });
    world.join_all(&[('A', QOS_1)]);
    world.queue.keep(ListId(7), Durability::Synced);
    world.queue.add_source(9, ListId(8));
    world.put(2);
    world.turns();
    let lease = world.lease('A', 1);
    world.queue.delivered(lease, &ClientId::new("one"));
    world.settle('A', 2, Settlement::Busy);
    world.done('A', 1);
    world.queue.pause();
    assert!(!world.queue.is_dormant(), "there are a job and a member");
    world.queue.begin_purge();
    let taken = world.queue.take_waiting(1, usize::MAX);
    taken.iter().for_each(|job| world.queue.purge_out(job));
    world.queue.end_purge();
    world.queue.leave(id('A'));
    world.queue.journal().map(std::mem::take);
    assert!(world.queue.is_dormant());
    let (totals, events) = (*world.queue.totals(), world.queue.events(0, 100));
    let next = world.queue.next_sequence();
    world.queue = world.queue.lie_down().into();
    assert_eq!(*world.queue.totals(), totals);
    assert_eq!(world.queue.events(0, 100), events);
    let to: Vec<_> = (events.0.iter())
        .filter_map(|event| event.client.clone())
        .collect();
    assert_eq!(to, [ClientId::new("one")]);
    assert_eq!(world.queue.next_sequence(), next);
    assert!(world.queue.is_paused());
    let sources: Vec<_> = world.queue.sources().collect();
    assert_eq!(sources, [(4, ListId(7)), (9, ListId(8))]);
    assert_eq!(world.queue.kept_in(), Some((ListId(7), Durability::Synced)));
    // A row that is only about to go from the store is none of a job any more.
    let row = StoredJob {
        sequence: 0,
        message: message(1, Qos::AtLeastOnce, 0),
        stored: Stored::row(false),
        record: JobRecord::NEW,
    };
    assert!(world.queue.take_stored(ListId(7), row).is_none());
    // What an earlier lease says is not about a later one.
    world.queue.resume();
    world.queue.join(id('A'), membership(QOS_1), world.now);
    world.put(1);
    world.turns();
    assert!(!world.queue.settle(lease, Settlement::Done, world.now));
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
    world.lose('A');
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
    world.lose('A'); // [MQTT-4.8.2-4]
    assert_eq!(world.turns(), [('B', 3)]);
    world.end('A'); // [MQTT-4.8.2-5]
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
    assert!(world.settle('A', 1, rejected(""))); // [MQTT-4.8.2-6]
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
    assert!(world.settle('A', 4, FAILED));
    assert_eq!(world.turns(), [('A', 4)], "in time");
    world.wait(30);
    assert_eq!((world.expired(), world.queue.counts().in_flight), (0, 4));
    assert!(world.done('A', 1));
    assert!(world.settle('A', 2, FAILED));
    assert!(world.settle('A', 3, failed_for(5)));
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
    world.settle('A', 1, failed_for(100));
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
    world.lose('A');
    world.join('B', membership(QOS_1));
    assert_eq!(world.turns(), [('B', 2)]);
    assert_eq!(world.expired(), 2);
}

// ---- priorities

#[test]
fn higher_priorities_go_first_and_within_one_the_oldest() {
    let mut world = World::with(&[('A', QOS_1)]);
    world.ask(&[0, 9, 4, 9, 0].map(of_priority));
    assert_eq!(world.turns(), [2, 4, 3, 1, 5].map(|job| ('A', job)));
}

#[test]
fn a_job_that_came_back_goes_before_younger_ones_of_its_priority() {
    let mut world = World::with(&[('A', QOS_1)]);
    world.ask(&[4, 0].map(of_priority));
    world.turns();
    world.ask(&[9, 4, 0].map(of_priority));
    world.fail('A', 1);
    world.fail('A', 2);
    assert_eq!(world.turns(), [3, 1, 4, 2, 5].map(|job| ('A', job)));
}

// ---- groups

#[test]
fn of_a_group_one_job_is_out_and_groups_go_on_in_parallel() {
    let mut world = World::with(&[('A', QOS_1)]);
    let (ada, bob, none) = (of_group("ada"), of_group("bob"), Ask::default());
    world.ask(&[ada, ada, bob, none, bob]);
    assert_eq!(world.turns(), [('A', 1), ('A', 3), ('A', 4)]);
    world.done('A', 3);
    assert_eq!(world.turns(), [('A', 5)]);
    world.done('A', 1);
    assert_eq!(world.turns(), [('A', 2)]);
}

#[test]
fn within_a_group_the_order_is_that_of_putting_in_whatever_the_priority() {
    let mut world = World::with(&[('A', QOS_1)]);
    let low = Ask {
        priority: 0,
        ..of_group("ada")
    };
    let high = Ask {
        priority: 9,
        ..of_group("ada")
    };
    world.ask(&[low, high, of_priority(4)]);
    assert_eq!(world.turns(), [('A', 3), ('A', 1)]);
    world.ask(&[of_priority(8)]);
    world.done('A', 1);
    assert_eq!(world.turns(), [('A', 2), ('A', 4)], "with its own priority");
}

#[test]
fn a_job_that_failed_holds_its_group() {
    let mut world = World::with(&[('A', QOS_1)]);
    world.ask(&[of_group("ada"), of_group("ada")]);
    assert_eq!(world.turns(), [('A', 1)]);
    world.settle('A', 1, failed_for(5));
    assert_eq!(world.turns(), []);
    world.wait(5);
    assert_eq!(world.turns(), [('A', 1)]);
    world.wait(60);
    assert_eq!(world.turns(), [('A', 1)], "it timed out");
    world.done('A', 1);
    assert_eq!(world.turns(), [('A', 2)]);
}

#[test]
fn a_job_at_qos_2_holds_its_group_for_an_absent_member() {
    let mut world = World::with(&[('A', QOS_2), ('B', QOS_2)]);
    world.ask(&[of_group("ada"), of_group("ada")]);
    assert_eq!(world.turns(), [('A', 1)]);
    world.lose('A');
    assert_eq!(world.turns(), []);
    world.done('A', 1);
    assert_eq!(world.turns(), [('B', 2)]);
}

#[test]
fn a_delayed_job_takes_its_place_in_the_group_when_it_is_due() {
    let mut world = World::with(&[('A', QOS_1)]);
    let later = Ask {
        due: world.now + seconds_of(10),
        ..of_group("ada")
    };
    world.ask(&[later, of_group("ada"), of_group("ada")]);
    assert_eq!(world.turns(), [('A', 2)], "it does not wait for it");
    world.wait(10);
    assert_eq!(world.turns(), [], "nor is it pushed back");
    world.done('A', 2);
    assert_eq!(world.turns(), [('A', 1)], "before younger ones");
    world.done('A', 1);
    assert_eq!(world.turns(), [('A', 3)]);
}

#[test]
fn the_next_of_a_group_steps_out_however_the_one_before_ends() {
    let last_value = true;
    let settings = Settings {
        messages_max: 3,
        deliveries_max: 1,
        overflow: Overflow::DropOldest,
        last_value,
        ..settings(Rules::Work)
    };
    let ends: [fn(&mut World); 6] = [
        |world| assert!(world.settle('A', 1, rejected(""))),
        |world| world.fail('A', 1),
        |world| world.lose('A'),
        |world| {
            world.queue.release(world.lease('A', 1));
            world.wait(6); // It has expired.
        },
        |world| {
            world.queue.release(world.lease('A', 1));
            world.put(2); // There is no room for it.
        },
        |world| {
            world.queue.release(world.lease('A', 1));
            world.ask(&[of_key("red")]);
        },
    ];
    for (how, end) in ends.into_iter().enumerate() {
        let mut world = World::new(settings.clone());
        world.join('A', membership(QOS_1));
        let first = Ask {
            key: Some("red"),
            ..of_group("ada")
        };
        let expires = world.now + seconds_of(5);
        world.enqueue(QOS_1, &first, expires).expect("room");
        world.ask(&[of_group("ada")]);
        assert_eq!(world.turns(), [('A', 1)]);
        end(&mut world);
        world.join('B', membership(QOS_1));
        let turns = world.turns();
        assert!(turns.iter().any(|turn| turn.1 == 2), "{how}: {turns:?}");
    }
}

#[test]
fn a_group_stays_with_its_member_while_that_has_room() {
    let mut world = World::with(&[('A', QOS_1), ('B', QOS_1), ('C', QOS_1)]);
    world.ask(&[of_group("ada"), of_group("ada")]);
    assert_eq!(world.turns(), [('A', 1)]);
    world.done('A', 1);
    assert_eq!(world.turns(), [('A', 2)]);
    world.put(1);
    assert_eq!(world.turns(), [('B', 3)], "the others keep their places");
    world.done('A', 2);
    world.queue.leave(id('A'));
    world.ask(&[of_group("ada")]);
    assert_eq!(world.turns(), [('C', 4)]);
    world.done('C', 4);
    world.ask(&[of_group("ada")]);
    assert_eq!(world.turns(), [('C', 5)], "from then on");
}

#[test]
fn a_job_of_its_own_group_uses_up_a_members_turn() {
    let mut world = World::with(&[('A', QOS_1), ('B', QOS_1)]);
    world.ask(&[of_group("ada"), Ask::default()]);
    assert_eq!(world.turns(), [('A', 1), ('B', 2)]);
    world.done('A', 1);
    world.ask(&[of_group("ada"), Ask::default(), Ask::default()]);
    assert_eq!(world.turns(), [('A', 3), ('B', 4), ('A', 5)]);
}

#[test]
fn a_group_moves_when_its_member_has_no_room() {
    let mut world = World::new(Settings {
        prefetch: 1,
        ..settings(Rules::Work)
    });
    world.join_all(&[('A', QOS_1), ('B', QOS_1)]);
    world.ask(&[of_group("ada")]);
    world.put(1);
    assert_eq!(world.turns(), [('A', 1), ('B', 2)]);
    world.done('A', 1);
    world.put(1);
    assert_eq!(world.turns(), [('A', 3)]);
    world.ask(&[of_group("ada")]);
    world.done('B', 2);
    assert_eq!(world.turns(), [('B', 4)]);
    world.done('A', 3);
    world.done('B', 4);
    world.ask(&[of_group("ada")]);
    assert_eq!(world.turns(), [('B', 5)]);
}

#[test]
fn what_a_member_gave_back_goes_to_another_one_and_the_group_with_it() {
    let mut world = World::with(&[('A', QOS_1), ('B', QOS_1)]);
    world.ask(&[of_group("ada"), of_group("ada")]);
    assert_eq!(world.turns(), [('A', 1)]);
    world.fail('A', 1);
    assert_eq!(world.turns(), [('B', 1)]);
    world.done('B', 1);
    assert_eq!(world.turns(), [('B', 2)]);
}

// ---- fair queues

fn fair() -> Settings {
    Settings {
        fair: true,
        ..settings(Rules::Work)
    }
}

#[test]
fn turns_go_round_the_groups_of_a_fair_queue() {
    let mut world = World::new(fair());
    world.join('A', membership(QOS_1));
    let (ada, bob, none) = (of_group("ada"), of_group("bob"), Ask::default());
    world.ask(&[ada, ada, ada, bob, none, none]);
    assert_eq!(world.turns(), [1, 4, 5, 2, 6, 3].map(|job| ('A', job)));
}

#[test]
fn groups_of_a_fair_queue_have_no_order_and_stay_with_nobody() {
    let mut world = World::new(fair());
    world.join_all(&[('A', QOS_1), ('B', QOS_1)]);
    world.ask(&[of_group("ada"), of_group("ada"), of_group("ada")]);
    assert_eq!(world.turns(), [('A', 1), ('B', 2), ('A', 3)]);
}

#[test]
fn a_group_of_a_fair_queue_that_gets_a_job_stands_at_the_end() {
    let mut world = World::new(Settings {
        prefetch: 1,
        ..fair()
    });
    world.join('A', membership(QOS_1));
    let (ada, bob) = (of_group("ada"), of_group("bob"));
    world.ask(&[ada, ada, ada]);
    let mut order = Vec::new();
    for job in [1, 2, 4, 3] {
        order.extend(world.turns());
        if job == 1 {
            world.ask(&[bob]);
        }
        world.done('A', job);
    }
    assert_eq!(order, [1, 2, 4, 3].map(|job| ('A', job)));
}

#[test]
fn priorities_of_a_fair_queue_are_strict() {
    let mut world = World::new(fair());
    world.join('A', membership(QOS_1));
    let ask = |group, priority| Ask {
        priority,
        ..of_group(group)
    };
    world.ask(&[ask("ada", 9), ask("ada", 9), ask("bob", 0), ask("bob", 9)]);
    assert_eq!(world.turns(), [1, 4, 2, 3].map(|job| ('A', job)));
}

// ---- who gets the next job

#[test]
fn least_inflight_asks_who_has_the_fewest_jobs() {
    let mut world = World::new(Settings {
        dispatch: Dispatch::LeastInflight,
        ..settings(Rules::Work)
    });
    world.join_all(&[('A', QOS_1), ('B', QOS_1), ('C', QOS_1)]);
    world.put(4);
    assert_eq!(world.turns(), [('A', 1), ('B', 2), ('C', 3), ('A', 4)]);
    world.done('B', 2);
    world.put(3);
    assert_eq!(world.turns(), [('B', 5), ('C', 6), ('B', 7)]);
}

#[test]
fn a_job_that_was_lost_twice_goes_alone() {
    let mut world = World::with(&[('A', QOS_1), ('B', QOS_1)]);
    world.put(1);
    assert_eq!(world.turns(), [('A', 1)]);
    world.crash('A');
    assert_eq!(world.turns(), [('B', 1)]);
    world.crash('B');
    world.put(2);
    assert_eq!(world.turns(), [('A', 1), ('B', 2), ('B', 3)]);
    world.done('A', 1);
    world.put(2);
    assert_eq!(world.turns(), [('B', 4), ('A', 5)], "A has room again");
}

/// Job 1 was lost twice, and goes when there is nothing else.
fn lost_twice() -> World {
    let mut world = World::with(&[('A', QOS_1)]);
    world.ask(&[of_priority(0)]);
    assert_eq!(world.turns(), [('A', 1)]);
    world.crash('A');
    assert_eq!(world.turns(), [('A', 1)]);
    world.lose('A');
    world
}

#[test]
fn for_a_job_that_goes_alone_one_member_drains() {
    let mut world = lost_twice();
    world.join_all(&[('B', QOS_1), ('C', QOS_1)]);
    world.put(2);
    assert_eq!(world.turns(), [('B', 2), ('C', 3)], "1 goes to neither");
    world.put(2);
    assert_eq!(world.turns(), [('C', 4), ('C', 5)], "B drains");
    world.done('C', 3);
    assert_eq!(world.turns(), []);
    world.done('B', 2);
    assert_eq!(world.turns(), [('B', 1)]);
    world.put(1);
    assert_eq!(world.turns(), [('C', 6)], "B has nothing else");
    world.done('B', 1);
    world.put(2);
    assert_eq!(world.turns(), [('C', 7), ('B', 8)]);
}

#[test]
fn who_has_empty_hands_gets_it_before_the_one_that_drains() {
    let mut world = lost_twice();
    world.join_all(&[('B', QOS_1), ('C', QOS_1)]);
    world.put(2);
    assert_eq!(world.turns(), [('B', 2), ('C', 3)]);
    world.join('D', membership(QOS_1));
    assert_eq!(world.turns(), [('D', 1)]);
    world.put(3);
    assert_eq!(
        world.turns(),
        [('C', 4), ('B', 5), ('C', 6)],
        "B has its turns again"
    );
}

#[test]
fn who_has_drained_works_on_though_another_job_comes_first() {
    let mut world = lost_twice();
    world.join('B', membership(QOS_1));
    world.put(1);
    assert_eq!(world.turns(), [('B', 2)]);
    world.put(1);
    assert_eq!(world.turns(), [], "B drains");
    world.done('B', 2);
    assert_eq!(world.turns(), [('B', 3)]);
    world.done('B', 3);
    assert_eq!(world.turns(), [('B', 1)]);
}

// ---- failures

#[test]
fn what_failed_too_often_is_a_dead_letter() {
    let mut world = World::new(Settings {
        deliveries_max: 3,
        ..settings(Rules::Work)
    });
    world.join('A', membership(QOS_1));
    world.put(1);
    world.turns();
    world.fail('A', 1);
    world.turns();
    assert_eq!(world.wait(60), [('A', 1)]);
    world.turns();
    assert_eq!(world.dead(), []);
    world.crash('A');
    assert_eq!(world.dead(), [(1, DeadReason::MaxDeliveries, 3)]);
    assert_eq!(world.turns(), []);
    let totals = world.queue.counts().totals;
    assert_eq!((totals.max_deliveries, totals.refused), (1, 1));
}

#[test]
fn what_is_not_the_jobs_fault_does_not_count() {
    let mut world = World::new(Settings {
        deliveries_max: 1,
        undecided: Undecided::Redeliver,
        ..settings(Rules::Work)
    });
    world.join('A', membership(QOS_1));
    world.put(1);
    let harmless: [fn(&mut World); 8] = [
        |world| assert!(world.settle('A', 1, Settlement::Busy)),
        |world| world.queue.detach(id('A'), Gone::Left, world.now),
        |world| world.queue.detach(id('A'), Gone::Taken, world.now),
        |world| world.queue.remove(id('A'), Gone::Left, world.now),
        |world| world.queue.release(world.lease('A', 1)),
        |world| world.queue.refuse_lease(world.lease('A', 1)),
        |world| world.queue.skip_lease(world.lease('A', 1), world.now),
        |world| {
            world.queue.release(world.lease('A', 1));
            world.join('A', membership(QOS_2));
            assert_eq!(world.turns(), [('A', 1)]);
            assert_eq!(world.wait(86_400), [('A', 1)], "nobody knows");
        },
    ];
    for harmless in harmless {
        world.queue.attach(id('A'));
        world.join('A', membership(QOS_1));
        world.queue.room(id('A'));
        world.wait(1);
        assert_eq!(world.turns(), [('A', 1)]);
        harmless(&mut world);
        assert_eq!(world.dead(), []);
    }
    assert_eq!(world.queue.counts().totals.busy, 1);
}

#[test]
fn a_dead_letter_says_what_its_member_said() {
    let mut world = World::new(Settings {
        deliveries_max: 1,
        ..settings(Rules::Work)
    });
    world.join('A', membership(QOS_1));
    world.put(3);
    world.turns();
    assert!(world.settle('A', 1, rejected("no such printer")));
    let (delay, said) = (None, "out of paper");
    assert!(world.settle('A', 2, Settlement::Fail { delay, said }));
    world.wait(60);
    for said in ["no such printer", "out of paper", ""] {
        let dead = world.queue.poll_dead().expect("a dead letter");
        assert_eq!(&*dead.said, said);
    }
}

/// With jobs that rest after a failure, and nobody who is late.
fn resting() -> World {
    let mut world = World::new(Settings {
        ack_timeout: None,
        backoff_min: seconds_of(10),
        backoff_max: seconds_of(30),
        ..settings(Rules::Work)
    });
    world.join('A', membership(QOS_1));
    world
}

/// How long until nothing is delayed.
fn rest(world: &mut World) -> Duration {
    let began = world.now;
    while world.queue.counts().delayed > 0 {
        world.now = world.queue.next_timeout().expect("a job rests");
        world.wait(0);
    }
    world.now.since(began)
}

#[test]
fn a_job_rests_longer_after_each_failure() {
    let mut world = resting();
    world.put(1);
    for most in [10, 20, 30, 30, 30] {
        assert_eq!(world.turns(), [('A', 1)]);
        world.fail('A', 1);
        assert_eq!(world.turns(), []);
        let rest = rest(&mut world);
        let most = seconds_of(most);
        assert!(most / 2 <= rest && rest <= most, "{rest:?} of {most:?}");
    }
}

#[test]
fn jobs_that_fail_together_do_not_come_back_together() {
    let mut world = resting();
    world.put(16);
    world.turns();
    (1..=16).for_each(|job| world.fail('A', job));
    let mut moments = 0;
    while world.queue.counts().delayed > 0 {
        world.now = world.queue.next_timeout().expect("a job rests");
        world.wait(0);
        moments += usize::from(!world.turns().is_empty());
    }
    assert!(moments > 8, "{moments}");
}

#[test]
fn a_late_job_rests_too() {
    let mut world = resting();
    let ack_timeout = Some(seconds_of(60));
    world.join(
        'A',
        Membership {
            ack_timeout,
            ..membership(QOS_1)
        },
    );
    world.put(1);
    world.turns();
    assert_eq!(world.wait(60), [('A', 1)]);
    assert_eq!(world.turns(), []);
    assert!(rest(&mut world) >= seconds_of(5));
    assert_eq!(world.turns(), [('A', 1)]);
}

#[test]
fn a_member_may_say_when_a_job_comes_back() {
    let mut world = resting();
    world.put(1);
    world.turns();
    world.settle('A', 1, failed_for(100));
    assert_eq!(rest(&mut world), seconds_of(100));
    world.turns();
    world.settle('A', 1, failed_for(0));
    assert_eq!(world.turns(), [('A', 1)], "at once");
}

#[test]
fn a_lost_job_rests_from_the_second_time_on() {
    let mut world = resting();
    world.put(1);
    world.turns();
    world.crash('A');
    assert_eq!(world.turns(), [('A', 1)]);
    world.crash('A');
    assert_eq!(world.turns(), []);
    let rest = rest(&mut world);
    assert!(seconds_of(10) <= rest && rest <= seconds_of(20), "{rest:?}");
    assert_eq!(world.turns(), [('A', 1)]);
}

#[test]
fn a_job_that_rests_may_be_done_late() {
    let mut world = resting();
    let ack_timeout = Some(seconds_of(60));
    world.join(
        'A',
        Membership {
            ack_timeout,
            ..membership(QOS_1)
        },
    );
    world.ask(&[of_group("ada"), of_group("ada")]);
    world.turns();
    world.wait(60);
    assert!(world.done('A', 1));
    assert_eq!(world.turns(), [('A', 2)]);
}

// ---- members that rest

#[test]
fn a_busy_member_is_left_alone_and_others_are_asked() {
    let mut world = World::with(&[('A', QOS_1), ('B', QOS_1)]);
    world.put(2);
    assert_eq!(world.turns(), [('A', 1), ('B', 2)]);
    assert!(world.settle('A', 1, Settlement::Busy));
    world.put(2);
    assert_eq!(world.turns(), [('B', 1), ('B', 3), ('B', 4)]);
    world.wait(1);
    world.put(2);
    assert_eq!(world.turns(), [('B', 5), ('A', 6)]);
}

#[test]
fn who_is_busy_again_and_again_is_left_alone_for_longer() {
    let mut world = World::with(&[('A', QOS_1)]);
    world.put(1);
    for seconds in [1, 2, 4, 8, 16, 32, 64, 64] {
        assert_eq!(world.turns(), [('A', 1)]);
        world.settle('A', 1, Settlement::Busy);
        world.wait(seconds - 1);
        assert_eq!(world.turns(), []);
        world.wait(1);
    }
    world.turns();
    world.done('A', 1);
    world.put(1);
    assert_eq!(world.turns(), [('A', 2)]);
    world.settle('A', 2, Settlement::Busy);
    world.wait(1);
    assert_eq!(world.turns(), [('A', 2)], "the first pause again");
}

#[test]
fn a_busy_member_that_does_a_job_is_busy_no_more() {
    let mut world = World::with(&[('A', QOS_1)]);
    world.put(2);
    world.turns();
    world.settle('A', 1, Settlement::Busy);
    assert_eq!(world.turns(), []);
    world.done('A', 2);
    assert_eq!(world.turns(), [('A', 1)]);
}

#[test]
fn who_is_late_three_times_in_a_row_is_left_alone() {
    let mut world = World::with(&[('A', QOS_1)]);
    world.put(1);
    for seconds in [1, 2] {
        for _ in 0..3 {
            assert_eq!(world.turns(), [('A', 1)]);
            assert_eq!(world.wait(60), [('A', 1)]);
        }
        assert_eq!(world.turns(), []);
        world.wait(seconds);
    }
    assert_eq!(world.turns(), [('A', 1)]);
}

#[test]
fn who_does_a_job_in_between_is_not_left_alone() {
    let mut world = World::with(&[('A', QOS_1)]);
    for job in 1..=3 {
        world.put(1);
        for _ in 0..2 {
            assert_eq!(world.turns(), [('A', job)]);
            assert_eq!(world.wait(60), [('A', job)]);
        }
        assert_eq!(world.turns(), [('A', job)]);
        world.done('A', job);
    }
}

// ---- delays

#[test]
fn a_job_may_ask_to_wait() {
    let mut world = World::new(Settings {
        messages_max: 2,
        ..settings(Rules::Work)
    });
    let due = world.now + seconds_of(10);
    let later = Ask {
        due,
        ..Ask::default()
    };
    world.ask(&[later, Ask::default()]);
    let full = world.queue.reserve(0);
    assert_eq!(full, Err(Full::Messages), "it counts for the limits");
    world.join('A', membership(QOS_1));
    world.queue.pass_over(id('A'));
    world.wait(9);
    let counts = world.queue.counts();
    assert_eq!((counts.ready, counts.delayed), (1, 1));
    world.wait(1);
    world.queue.room(id('A'));
    assert_eq!(world.turns(), [('A', 1), ('A', 2)], "in its place");
    world.done('A', 1);
    world.ask(&[later]);
    assert_eq!(world.turns(), [('A', 3)], "it is due");
}

// ---- messages that expire, by the queue's settings

#[test]
fn the_earlier_of_both_times_counts() {
    let mut world = World::new(Settings {
        ttl: Some(seconds_of(10)),
        ..settings(Rules::Work)
    });
    world.put(1);
    world.put_for(5);
    world.put_for(100);
    world.ask(&[Ask {
        due: world.now + seconds_of(50),
        ..Ask::default()
    }]);
    world.wait(6);
    assert_eq!(world.expired(), 1);
    world.wait(4);
    assert_eq!(world.expired(), 1, "its last moment is its own");
    world.wait(1);
    assert_eq!(world.expired(), 4);
    assert_eq!(world.queue.counts().bytes, 0);
}

#[test]
fn what_expires_may_be_a_dead_letter() {
    let mut world = World::new(Settings {
        ttl: Some(seconds_of(10)),
        dead_letter_expired: true,
        ..settings(Rules::Work)
    });
    world.join('A', membership(QOS_1));
    world.put(2);
    world.turns();
    world.wait(30);
    assert_eq!(world.dead(), [], "A has them");
    world.fail('A', 1);
    assert_eq!(world.turns(), []);
    assert_eq!(world.dead(), [(1, DeadReason::Expired, 1)]);
    let totals = world.queue.counts().totals;
    assert_eq!((totals.expired, totals.dead_expired), (0, 1));
}

// ---- last values

fn last_value() -> World {
    World::new(Settings {
        prefetch: 1,
        last_value: true,
        ..settings(Rules::Work)
    })
}

#[test]
fn a_job_replaces_one_with_its_key_that_waits() {
    let mut world = last_value();
    let later = Ask {
        due: world.now + seconds_of(100),
        ..of_key("green")
    };
    world.ask(&[of_key("red"), later, Ask::default(), of_key("red")]);
    world.ask(&[of_key("green")]);
    let counts = world.queue.counts();
    assert_eq!((counts.ready, counts.delayed), (3, 0));
    assert_eq!(counts.totals.replaced, 2);
    let prefetch = Some(9);
    world.join(
        'A',
        Membership {
            prefetch,
            ..membership(QOS_1)
        },
    );
    assert_eq!(world.turns(), [('A', 3), ('A', 4), ('A', 5)]);
}

#[test]
fn what_a_member_has_is_replaced_when_it_comes_back() {
    let mut world = last_value();
    world.join('A', membership(QOS_1));
    world.ask(&[of_key("red")]);
    assert_eq!(world.turns(), [('A', 1)]);
    world.ask(&[of_key("red")]);
    assert_eq!(world.queue.counts().totals.replaced, 0);
    world.fail('A', 1);
    assert_eq!(world.turns(), [('A', 2)]);
    assert_eq!(world.queue.counts().totals.replaced, 1);
    world.ask(&[of_key("red")]);
    assert!(world.done('A', 2));
    assert_eq!(world.turns(), [('A', 3)]);
}

#[test]
fn keys_mean_nothing_to_other_queues() {
    let mut world = World::with(&[]);
    world.ask(&[of_key("red"), of_key("red")]);
    assert_eq!(world.queue.counts().ready, 2);
}

// ---- what a full queue does

#[test]
fn a_full_queue_may_drop_the_oldest_of_the_lowest_priority() {
    let mut world = World::new(Settings {
        messages_max: 3,
        overflow: Overflow::DropOldest,
        ..settings(Rules::Work)
    });
    world.ask(&[9, 0, 0, 4, 4, 4].map(of_priority));
    assert_eq!(world.queue.counts().totals.dropped, 3);
    world.join('A', membership(QOS_1));
    assert_eq!(world.turns(), [('A', 1), ('A', 5), ('A', 6)]);
    let put = world.enqueue(QOS_1, &Ask::default(), Time::MAX);
    assert_eq!(put, Err(Full::Messages), "A has them all");
}

#[test]
fn a_full_queue_drops_what_is_ready_before_what_is_not() {
    let mut world = World::new(Settings {
        messages_max: 3,
        overflow: Overflow::DropOldest,
        ..settings(Rules::Work)
    });
    let due = world.now + seconds_of(5);
    world.ask(&[Ask {
        due,
        ..Ask::default()
    }]);
    world.ask(&[of_group("ada"), of_group("ada"), of_group("ada")]);
    world.put(2);
    world.wait(5);
    world.join('A', membership(QOS_1));
    assert_eq!(world.turns(), [('A', 1), ('A', 5), ('A', 6)]);
}

#[test]
fn a_full_queue_may_make_the_oldest_a_dead_letter() {
    let mut world = World::new(Settings {
        messages_max: 1,
        overflow: Overflow::DeadLetterOldest,
        ..settings(Rules::Work)
    });
    world.put(2);
    assert_eq!(world.dead(), [(1, DeadReason::Overflow, 0)]);
    let totals = world.queue.counts().totals;
    assert_eq!((totals.dead_overflow, totals.dropped), (1, 0));
}

#[test]
fn nothing_is_dropped_for_what_is_too_large_anyway() {
    let cost = message(1, QOS_1, 1).cost_bytes();
    let bytes_max = 2 * (cost + Queue::JOB_BYTES);
    let mut world = World::new(Settings {
        bytes_max,
        overflow: Overflow::DropOldest,
        ..settings(Rules::Work)
    });
    world.put(2);
    assert_eq!(world.queue.reserve(bytes_max), Err(Full::Bytes));
    assert_eq!(world.queue.counts().ready, 2);
    let both = bytes_max - Queue::JOB_BYTES;
    assert_eq!(world.queue.reserve(both), Ok(()));
    assert_eq!(world.queue.counts().totals.dropped, 2);
}

// ---- receipts

#[test]
fn who_asks_for_a_receipt_hears_how_its_job_ended() {
    let mut world = World::new(Settings {
        messages_max: 2,
        overflow: Overflow::DropOldest,
        deliveries_max: 1,
        last_value: true,
        ..settings(Rules::Work)
    });
    world.join('A', membership(QOS_1));
    world.put(1);
    world.ask(&[RECEIPT]);
    world.turns();
    world.done('A', 1);
    world.done('A', 2);
    assert_eq!(world.finished(), [(2, Outcome::Done)]);

    world.ask(&[RECEIPT, RECEIPT]);
    world.turns();
    world.settle('A', 3, rejected(""));
    world.fail('A', 4);
    let ends = [DeadReason::Rejected, DeadReason::MaxDeliveries].map(Outcome::Dead);
    assert_eq!(world.finished(), [(3, ends[0]), (4, ends[1])]);

    world.queue.pass_over(id('A'));
    let expires = world.now + seconds_of(5);
    let put = world.enqueue(QOS_1, &RECEIPT, expires);
    put.expect("room");
    world.wait(6);
    assert_eq!(world.finished(), [(5, Outcome::Expired)]);

    let key = Some("red");
    world.ask(&[Ask { key, ..RECEIPT }, of_key("red")]);
    assert_eq!(world.finished(), [(6, Outcome::Replaced)]);
    world.ask(&[RECEIPT, Ask::default(), Ask::default()]);
    assert_eq!(world.finished(), [(8, Outcome::Dropped)]);
}

// ---- pausing

#[test]
fn a_queue_that_is_paused_gives_nothing_and_takes_all() {
    let mut world = World::with(&[('A', QOS_1)]);
    world.put(1);
    world.turns();
    world.queue.pause();
    assert!(world.queue.is_paused());
    world.put(2);
    assert!(world.done('A', 1));
    assert_eq!(world.turns(), []);
    world.queue.resume();
    assert_eq!(world.turns(), [('A', 2), ('A', 3)]);
}

// ---- share groups

#[test]
fn a_share_group_counts_no_failures_and_leaves_nobody_alone() {
    let mut world = World::new(Settings {
        deliveries_max: 1,
        backoff_min: seconds_of(10),
        ..settings(Rules::Share)
    });
    world.join('A', membership(QOS_1));
    world.ask(&[Ask::default(); 2]);
    for _ in 0..5 {
        assert_eq!(world.turns(), [('A', 1), ('A', 2)], "at once");
        world.fail('A', 1);
        assert_eq!(world.turns(), [('A', 1)]);
        world.crash('A');
    }
    assert_eq!(world.dead(), []);
}
