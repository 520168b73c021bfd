//! A world in which clients do anything at any time, and what must hold all
//! the same.
//!
//! A run is told by its seed alone; a failure prints it. To run one again, or
//! many: `ROTAMQ_WORLD_SEEDS=17..18 cargo test --test pure world::random`.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use rotamq::topic::{TopicFilter, TopicLimits, TopicName};

const STEPS: usize = 2_000;
const PLAYERS: usize = 9;
const TOPICS: [&str; 8] = [
    "t/1",
    "t/2",
    "u",
    "a-in",
    "b-in",
    "c-in",
    "both",
    "$queue/both",
];
const FILTERS: [&str; 4] = ["t/+", "t/1", "u", "#"];
/// Each player is a member of one of them at most, so that it knows where a
/// job comes from. Members of the last have QoS 0.
const QUEUES: [&str; 3] = ["a", "b", "c"];
/// A job of QoS 1 is its member's for this long at least, from when it reads
/// it: the ack timeout, less what may have passed before.
const SURELY_HELD: Duration = secs(25);

/// SplitMix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(super) fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub(super) fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }
}

/// A message's number, in one queue.
type Job = (&'static str, usize);

/// One client id: what it has done, and what it knows.
#[derive(Default)]
struct Player {
    connection: Option<C>,
    /// Whether there is a session that lives on.
    persistent: bool,
    clogged: bool,
    filters: BTreeMap<&'static str, u8>,
    /// Got and not answered, by packet id.
    open: BTreeMap<u16, Message>,
    /// PUBLISHes that are not through, by packet id.
    sent: BTreeMap<u16, usize>,
    /// Ids of QoS 2 PUBLISHes that were not released.
    unreleased: BTreeSet<u16>,
    /// By publisher, topic, and QoS on both ways: the last number that came.
    last: BTreeMap<(usize, String, u8, u8), usize>,
}

/// What was published, and who has yet to get it.
struct Published {
    topic: &'static str,
    publisher: usize,
    qos: u8,
    acknowledged: bool,
    /// Players with a session that lives on, and a subscription.
    owed: BTreeSet<usize>,
}

struct Play {
    world: World,
    random: Random,
    players: Vec<Player>,
    published: Vec<Published>,
    redelivers: bool,
    /// Who has a job in hand for sure: the player, the id, at which QoS, since
    /// when.
    hands: BTreeMap<Job, (usize, u16, u8, Time)>,
    /// Settled while in hand.
    done: BTreeSet<Job>,
    /// Answered when it may have been too late.
    perhaps_done: BTreeSet<Job>,
    rejected: BTreeSet<Job>,
}

/// Case C13 of docs/security.md.
#[test]
fn whatever_clients_do_nothing_is_lost_or_with_two() {
    for seed in seeds() {
        let run = std::panic::catch_unwind(|| Play::new(seed).run());
        if let Err(panic) = run {
            eprintln!("again: ROTAMQ_WORLD_SEEDS={seed}..{}", seed + 1);
            std::panic::resume_unwind(panic);
        }
    }
}

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("ROTAMQ_WORLD_SEEDS") else {
        return 0..30;
    };
    let bounds = (text.split_once("..")).map(|(from, to)| (from.parse(), to.parse()));
    let Some((Ok(from), Ok(to))) = bounds else {
        panic!("ROTAMQ_WORLD_SEEDS is FROM..TO, not {text}");
    };
    from..to
}

/// The queues that a topic feeds.
fn fed(topic: &str) -> &'static [&'static str] {
    match topic {
        "a-in" => &["a"],
        "b-in" => &["b"],
        "c-in" => &["c"],
        "both" | "$queue/both" => &["a", "b"],
        _ => &[],
    }
}

fn is_job(message: &Message) -> bool {
    message.topic.starts_with("$queue/")
}

fn queue_of(player: usize) -> &'static str {
    QUEUES[player % QUEUES.len()]
}

fn matches(filter: &str, topic: &str) -> bool {
    let filter = TopicFilter::parse(filter, TopicLimits::NONE).expect("a filter");
    let topic = TopicName::parse(topic, TopicLimits::NONE).expect("a topic");
    filter.matches(topic)
}

impl Play {
    fn new(seed: u64) -> Play {
        let mut random = Random(seed);
        let inflight_max = random.of(&[1, 2, 5, 100]);
        let redelivers = random.one_in(2);
        let world = World::seeded(seed, |config| {
            config.limits.inflight_max = inflight_max;
            config.limits.held_timeout = secs(1_000_000);
            for name in QUEUES {
                let own = format!("{name}-in");
                let filters = match name {
                    "c" => vec![own],
                    _ => vec![own, "both".into()],
                };
                config.queue.push(QueueSettings {
                    filters,
                    messages_max: random.of(&[1, 5, 10_000]),
                    prefetch: random.of(&[1, 3, 16]),
                    exclusive: random.one_in(4),
                    undecided: match redelivers {
                        true => rotamq::config::Undecided::Redeliver,
                        false => rotamq::config::Undecided::DeadLetter,
                    },
                    ..queue(name)
                });
            }
        });
        Play {
            world,
            random,
            players: (0..PLAYERS).map(|_| Player::default()).collect(),
            published: Vec::new(),
            redelivers,
            hands: BTreeMap::new(),
            done: BTreeSet::new(),
            perhaps_done: BTreeSet::new(),
            rejected: BTreeSet::new(),
        }
    }

    fn run(mut self) {
        for _ in 0..STEPS {
            let at = self.random.below(PLAYERS);
            match self.players[at].connection {
                None => self.connect(at, None),
                Some(client) => self.act(at, client),
            }
            self.look_all();
        }
        self.finish();
    }

    // ---- what players do

    fn act(&mut self, at: usize, client: C) {
        match self.random.below(100) {
            0 => {
                self.world.disconnect(client);
                self.gone(at);
            }
            1..=3 => {
                self.world.drop(client);
                self.gone(at);
            }
            4 => {
                self.gone(at); // taken over
                self.connect(at, None);
            }
            5..=7 => {
                let clogged = !self.players[at].clogged;
                self.world.clog(client, clogged);
                if !clogged {
                    self.look(at, false);
                }
                self.players[at].clogged = clogged;
            }
            8..=9 => {
                for _ in 0..self.random.of(&[1, 3, 10]) {
                    self.advance();
                }
            }
            10..=20 => self.subscribe(at, client),
            21..=50 => self.publish(at, client),
            51..=58 => self.control(at, client),
            _ => self.answer(at, client),
        }
    }

    /// `clean`: at random if it is not said, for some of the players.
    fn connect(&mut self, at: usize, clean: Option<bool>) {
        let clean = clean.unwrap_or_else(|| at < 4 && self.random.one_in(2));
        self.world.version = self.random.of(&VERSIONS);
        let id = format!("player-{at}");
        let (client, present) = self.world.connect(&id).clean(clean).go_present();
        let resumed = self.players[at].persistent && !clean;
        assert_eq!(present, resumed && self.world.tells_present());
        if !resumed {
            self.session_over(at);
        }
        let player = &mut self.players[at];
        player.connection = Some(client);
        player.persistent = !clean;
        player.clogged = false;
        let unreleased = std::mem::take(&mut player.unreleased);
        for id in unreleased {
            self.world.send(client, &pubrel(id));
        }
        // Messages come from the beginning: those of the last connection are
        // forgotten, or come again.
        for id in self.world.clients[client.0].got.iter() {
            assert!(!matches!(id, Got::Connack(..)));
        }
    }

    /// The connection is over, whichever way.
    fn gone(&mut self, at: usize) {
        let player = &mut self.players[at];
        player.connection = None;
        player.open.clear();
        player.sent.clear();
        self.hands
            .retain(|_, (player, _, qos, _)| *player != at || *qos == 2);
        if !self.players[at].persistent {
            self.session_over(at);
        }
    }

    fn session_over(&mut self, at: usize) {
        let player = &mut self.players[at];
        player.filters.clear();
        player.unreleased.clear();
        player.last.clear();
        self.hands.retain(|_, (player, ..)| *player != at);
        for published in &mut self.published {
            published.owed.remove(&at);
        }
    }

    /// Less than half an ack timeout passes.
    fn advance(&mut self) {
        self.world.advance(secs(29));
        for at in 0..PLAYERS {
            if let Some(client) = self.players[at].connection
                && !self.world.is_open(client)
            {
                let reason = self.world.closed(client);
                assert_eq!(reason, Some(ReasonCode::ReceiveMaximumExceeded));
                self.gone(at);
            }
        }
        self.look_all();
    }

    fn subscribe(&mut self, at: usize, client: C) {
        if self.players[at].clogged {
            return;
        }
        let filter = self.random.of(&FILTERS);
        let qos = self.random.below(3) as u8;
        let queue = format!("$queue/{}", queue_of(at));
        match self.random.below(6) {
            0..=1 => {
                self.world.subscribe(client, filter, qos);
                self.players[at].filters.insert(filter, qos);
                if qos == 0 {
                    self.owe_no_more(at);
                }
            }
            2 => {
                self.world.unsubscribe(client, filter);
                self.players[at].filters.remove(filter);
                self.owe_no_more(at);
            }
            3..=4 => {
                let qos = match queue_of(at) {
                    "c" => 0,
                    _ => 1 + qos % 2,
                };
                let granted = self.world.try_subscribe(client, &[(&queue, qos)])[0];
                let may_have_2 = self.players[at].persistent;
                assert_eq!(granted, if may_have_2 { qos } else { qos.min(1) });
            }
            _ => self.world.unsubscribe(client, &queue),
        }
    }

    /// What is held back finds other subscriptions than it was sent to.
    fn owe_no_more(&mut self, at: usize) {
        for published in &mut self.published {
            if !published.acknowledged {
                published.owed.remove(&at);
            }
        }
    }

    fn publish(&mut self, at: usize, client: C) {
        let qos = self.random.below(3) as u8;
        let topic = self.random.of(&TOPICS);
        let owed = |player: &Player| {
            let granted = player.filters.iter();
            let granted = granted.filter(|(filter, _)| matches(filter, topic));
            let granted = granted.map(|(_, granted)| *granted).max();
            player.persistent && granted.is_some_and(|granted| granted.min(qos) > 0)
        };
        let owed = (0..PLAYERS).filter(|other| owed(&self.players[*other]));
        let number = self.published.len();
        self.published.push(Published {
            topic,
            publisher: at,
            qos,
            acknowledged: false,
            owed: owed.collect(),
        });
        let id = (self.world).send_publish(client, topic, &number.to_string(), qos, false);
        let player = &mut self.players[at];
        if qos > 0 {
            player.sent.insert(id, number);
        }
        if qos == 2 {
            player.unreleased.insert(id);
        }
    }

    fn control(&mut self, at: usize, client: C) {
        let player = &self.players[at];
        let job = player.open.values().find(|message| is_job(message));
        // A control message would wait behind a PUBLISH that is held back.
        let (Some(message), true) = (job, player.sent.is_empty() && !player.clogged) else {
            return;
        };
        let id = message.id;
        let job = (queue_of(at), number_of(message));
        let in_hand = self.is_in_hand(at, job, id);
        let what = self.random.of(&["nack", "reject", "extend"]);
        let payload = match (what, self.random.one_in(2)) {
            ("reject", _) | (_, true) => id.to_string(),
            // At QoS 2 that would be less than it has anyway.
            ("extend", _) if message.qos == 2 => id.to_string(),
            _ => format!("{id} 45"),
        };
        if what != "extend" && in_hand {
            self.hands.remove(&job);
            if what == "reject" {
                self.rejected.insert(job);
            }
        }
        // From now on the answer only frees the id.
        if what != "extend"
            && let Some(message) = self.players[at].open.get_mut(&id)
        {
            message.topic = "refused".into();
            if !in_hand {
                self.perhaps_done.insert(job);
            }
        }
        self.world.control(client, what, &payload);
    }

    fn answer(&mut self, at: usize, client: C) {
        if self.players[at].clogged {
            return;
        }
        let Some((id, message)) = self.players[at].open.pop_first() else {
            return;
        };
        if is_job(&message) {
            let job = (queue_of(at), number_of(&message));
            if self.is_in_hand(at, job, id) {
                self.hands.remove(&job);
                self.done.insert(job);
            } else {
                self.perhaps_done.insert(job);
            }
        }
        match message.qos {
            1 => self.world.send(client, &puback(id)),
            _ => self.world.send(client, &pubrec(id)),
        }
    }

    fn is_in_hand(&self, at: usize, job: Job, id: u16) -> bool {
        (self.hands.get(&job)).is_some_and(|(player, held, qos, since)| {
            (*player, *held) == (at, id) && (*qos == 2 || self.world.now < *since + SURELY_HELD)
        })
    }

    // ---- what they see

    fn look_all(&mut self) {
        for at in 0..PLAYERS {
            if !self.players[at].clogged {
                self.look(at, true);
            }
        }
    }

    /// The player reads what has come; `fresh`: just now.
    fn look(&mut self, at: usize, fresh: bool) {
        while let Some(client) = self.players[at].connection {
            let got = self.world.receive(client);
            if got.is_empty() {
                return;
            }
            for got in got {
                match got {
                    Got::Publish(message) => self.came(at, message, fresh),
                    Got::Puback(id) => self.acknowledged(at, id),
                    Got::Pubrec(id) => {
                        self.acknowledged(at, id);
                        self.world.send(client, &pubrel(id));
                    }
                    Got::Pubcomp(id) => {
                        self.players[at].unreleased.remove(&id);
                    }
                    Got::Pubrel(id) => self.world.send(client, &pubcomp(id)),
                    Got::Refused(id, ReasonCode::QuotaExceeded) => {
                        self.players[at].sent.remove(&id);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn acknowledged(&mut self, at: usize, id: u16) {
        if let Some(number) = self.players[at].sent.remove(&id) {
            self.published[number].acknowledged = true;
        }
    }

    fn came(&mut self, at: usize, message: Message, fresh: bool) {
        let number = number_of(&message);
        match is_job(&message) {
            true => self.job_came(at, (queue_of(at), number), &message, fresh),
            false => self.message_came(at, number, &message),
        }
        if message.qos > 0 {
            let before = self.players[at].open.insert(message.id, message);
            assert!(
                before.is_none(),
                "two at a time with one packet id: {before:?}"
            );
        }
    }

    fn message_came(&mut self, at: usize, number: usize, message: &Message) {
        let published = &mut self.published[number];
        assert_eq!(published.topic, message.topic);
        published.owed.remove(&at);
        let stream = (
            published.publisher,
            message.topic.clone(),
            published.qos,
            message.qos,
        );
        let last = self.players[at].last.entry(stream).or_insert(number);
        assert!(*last <= number || message.dup, "{number} came after {last}");
        *last = number.max(*last);
    }

    fn job_came(&mut self, at: usize, job: Job, message: &Message, fresh: bool) {
        assert!(fed(self.published[job.1].topic).contains(&job.0));
        // Who has not read for long may find what was somebody else's since.
        if !fresh && message.qos > 0 {
            return;
        }
        assert!(!self.done.contains(&job), "{job:?} was done");
        assert!(!self.rejected.contains(&job), "{job:?} was rejected");
        if message.qos == 0 {
            self.done.insert(job);
            return;
        }
        if let Some(&(other, id, qos, _)) = self.hands.get(&job)
            && !(qos == 2 && self.redelivers)
        {
            let same = (other, id) == (at, message.id) && message.dup;
            let surely = self.is_in_hand(other, job, id);
            assert!(same || !surely, "{job:?} is with {other} and {at}");
        }
        let hand = (at, message.id, message.qos, self.world.now);
        self.hands.insert(job, hand);
    }

    // ---- the end

    /// Everyone who has a session reads and answers all, and stops working;
    /// then what is in the queues is for a last member.
    fn finish(&mut self) {
        for at in 0..PLAYERS {
            if let Some(client) = self.players[at].connection {
                self.world.clog(client, false);
                if std::mem::take(&mut self.players[at].clogged) {
                    self.look(at, false);
                }
            }
        }
        let drain = self.world.connect("drain").go();
        for name in QUEUES {
            for name in [name.to_owned(), format!("$dead/{name}")] {
                self.world.subscribe(drain, &format!("$queue/{name}"), 1);
            }
        }
        let mut drained: BTreeMap<usize, usize> = BTreeMap::new();
        let mut dead: BTreeMap<usize, usize> = BTreeMap::new();
        let mut quiet = 0;
        while quiet < 5 {
            let mut idle = true;
            for at in 0..PLAYERS {
                match self.players[at].connection {
                    None if self.players[at].persistent => {
                        self.connect(at, Some(false));
                        idle = false;
                    }
                    None => {}
                    Some(client) => {
                        let queue = format!("$queue/{}", queue_of(at));
                        self.world.unsubscribe(client, &queue);
                        self.look(at, true);
                        idle &= self.players[at].open.is_empty();
                        self.answer(at, client);
                    }
                }
            }
            for message in self.world.messages(drain) {
                self.world.acknowledge(drain, &message);
                idle = false;
                let came = match is_job(&message) {
                    true => drained.entry(number_of(&message)),
                    false => dead.entry(number_of(&message)),
                };
                *came.or_default() += 1;
            }
            quiet = if idle { quiet + 1 } else { 0 };
            self.advance();
        }
        self.check(&drained, &dead);
    }

    fn check(&self, drained: &BTreeMap<usize, usize>, dead: &BTreeMap<usize, usize>) {
        for (number, published) in self.published.iter().enumerate() {
            if !published.acknowledged {
                continue;
            }
            let (topic, owed) = (published.topic, &published.owed);
            assert!(
                owed.is_empty(),
                "{number} to {topic} did not come to {owed:?}"
            );
            // As many jobs as queues; each is done, dead or was there till
            // the end.
            let count = |jobs: &BTreeSet<Job>| jobs.iter().filter(|job| job.1 == number).count();
            let ends = drained.get(&number).unwrap_or(&0) + dead.get(&number).unwrap_or(&0);
            let least = count(&self.done) + ends;
            let most = least + count(&self.perhaps_done);
            let jobs = fed(topic).len();
            // A job of QoS 0 that was on its way may have been lost with its
            // connection.
            assert!(
                (least..=most).contains(&jobs) || (topic == "c-in" && least <= 1),
                "{number} to {topic}: {jobs} jobs, of which {least} to {most} came to an end"
            );
            assert!(*dead.get(&number).unwrap_or(&0) >= count(&self.rejected));
        }
    }
}

fn number_of(message: &Message) -> usize {
    message.payload.parse().expect("a number")
}
