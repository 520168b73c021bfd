//! Turns of a work queue: a job is put in, given out and settled.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use rotamq::config::{Dispatch, QueueSettings};
use rotamq::message::{ClientId, LeaseId, Message, Place, Qos, SessionId, Time};
use rotamq::queue::{Ask, Membership, Queue, Rules, Settings, Settlement};

use crate::inputs::{identity, message};
use crate::{Criterion, Round, bench};

/// Groups that jobs belong to, one after the other.
const GROUPS: usize = 1000;

/// What jobs ask for, and how they are given out.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    /// To the member that holds the fewest.
    Fewest,
    /// Each of the ten in turn.
    Priorities,
    /// In order within their group.
    Groups,
    /// Groups take turns, and have no order.
    Fair,
}

const KINDS: [(&str, Kind); 5] = [
    ("plain", Kind::Plain),
    ("fewest", Kind::Fewest),
    ("priorities", Kind::Priorities),
    ("groups", Kind::Groups),
    ("fair", Kind::Fair),
];

/// How many jobs wait all the time, while no member has room, and how many
/// members there are. Where none waits, a member has none in hand either.
const SIZES: [(usize, usize); 7] = [
    (0, 1),
    (0, 10),
    (0, 1000),
    (1000, 1),
    (1000, 10),
    (1000, 1000),
    (1_000_000, 10),
];

pub fn all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue");
    for (title, kind) in KINDS {
        for (waiting, members) in SIZES {
            let name = format!("put-give-settle-1/{title}/{members}-members/{waiting}-waiting");
            let work = || Work::new(kind, waiting, members);
            bench(&mut group, name, 1, work, Work::turn);
        }
    }
    group.finish();
}

/// A queue, and what its members have in hand.
struct Work {
    queue: Queue,
    now: Time,
    message: Arc<Message>,
    asks: Round<Asking>,
    client: ClientId,
    /// The oldest first.
    leases: VecDeque<LeaseId>,
}

/// What a job asks for.
struct Asking {
    priority: u8,
    group: Option<String>,
}

impl Work {
    /// With members whose hands are full, if jobs are to wait.
    fn new(kind: Kind, waiting: usize, members: usize) -> Work {
        let settings = settings(kind);
        let in_hand = match waiting {
            0 => 0,
            _ => members * settings.prefetch as usize,
        };
        let publisher = identity();
        let mut work = Work {
            queue: Queue::new(settings),
            now: Time::from_micros(1),
            message: message("$queue/jobs", false, &publisher),
            asks: Round::new(asks(kind)),
            client: publisher.client.clone(),
            leases: VecDeque::new(),
        };
        for slot in 0..members {
            let slot = u32::try_from(slot).expect("there are fewer members");
            let member = SessionId(Place {
                slot,
                generation: 0,
            });
            work.queue.join(member, MEMBERSHIP, work.now);
        }
        (0..in_hand + waiting).for_each(|_| work.put());
        work
    }

    /// One comes, and the member that has had one for the longest is done.
    fn turn(&mut self) {
        self.put();
        self.settle();
    }

    fn put(&mut self) {
        self.pass_time();
        let Asking { priority, group } = self.asks.next();
        let ask = Ask {
            priority: *priority,
            group: group.as_deref(),
            ..Ask::default()
        };
        let put = (self.queue).enqueue(self.message.clone(), black_box(&ask), self.now);
        put.expect("there is room");
        self.give_out();
    }

    fn settle(&mut self) {
        self.pass_time();
        let lease = self.leases.pop_front().expect("a job is in hand");
        let settled = (self.queue).settle(black_box(lease), Settlement::Done, self.now);
        assert!(settled, "the lease is current");
        self.give_out();
    }

    /// As after anything else that happens to a queue.
    fn give_out(&mut self) {
        while let Some(lease) = self.queue.poll_lease(self.now) {
            let id = black_box(lease).id;
            self.queue.delivered(id, &self.client);
            self.leases.push_back(id);
        }
    }

    fn pass_time(&mut self) {
        self.now = self.now + Duration::from_micros(1);
        self.queue.at(self.now);
    }
}

const MEMBERSHIP: Membership = Membership {
    qos: Qos::AtLeastOnce,
    prefetch: None,
    ack_timeout: None,
};

/// What a queue is told that nobody configured.
fn settings(kind: Kind) -> Settings {
    let default = QueueSettings::default();
    Settings {
        prefetch: default.prefetch,
        ack_timeout: default.ack_timeout,
        undecided: default.undecided,
        undecided_after: default.undecided_after,
        exclusive: default.exclusive,
        dispatch: match kind {
            Kind::Fewest => Dispatch::LeastInflight,
            _ => default.dispatch,
        },
        deliveries_max: default.deliveries_max,
        backoff_min: default.backoff_min,
        backoff_max: default.backoff_max,
        ttl: default.ttl,
        dead_letter_expired: default.dead_letter_expired,
        fair: kind == Kind::Fair,
        last_value: false,
        dedup_window: default.dedup_window,
        overflow: default.overflow,
        messages_max: default.messages_max,
        bytes_max: default.bytes_max,
        trace_events_max: default.trace_events_max,
        rules: Rules::Work,
    }
}

fn asks(kind: Kind) -> Vec<Asking> {
    let ask = |priority, group| Asking { priority, group };
    match kind {
        Kind::Plain | Kind::Fewest => vec![ask(Ask::PRIORITY, None)],
        Kind::Priorities => (0..=Ask::PRIORITY_MAX)
            .map(|priority| ask(priority, None))
            .collect(),
        Kind::Groups | Kind::Fair => (0..GROUPS)
            .map(|group| ask(Ask::PRIORITY, Some(format!("order-{group}"))))
            .collect(),
    }
}
