//! Whatever clients do, the disk stops at any moment of it, and every promise
//! is kept all the same.
//!
//! A history is a list of steps. It is told once to count what the disk does,
//! and then again and again: each time the machine stops in the middle of one
//! of these operations, or it fails. The clients know what they were told by
//! then. Another broker starts on what is left, the clients come back with
//! their own state and go on, and at last everything is drained and looked at.
//!
//! A failure prints the seed, the operation, and the story, shortened. To run
//! some again, at each single operation: `ROTAMQ_HISTORIES=17..18 cargo test
//! --test pure durable::history`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::super::random::Random;
use super::*;
use rotamq::store::twin::Fault;
use rotamq::topic::{TopicFilter, TopicLimits, TopicName};

const PLAYERS: usize = 10;
const STEPS: usize = 110;
/// Steps that clients still do after the restart.
const STEPS_AFTER: usize = 40;
/// How often each history is stopped, where not at each operation.
const POINTS: u64 = 10;

/// What is published to: by whom it is fed is said by [`fed`].
const TOPICS: [&str; 10] = [
    "t/1", "t/2", "both", "u", "$queue/d", "g/1", "c-in", "b-in", "e-in/x", "e-in/y",
];
const RETAINED: [&str; 2] = ["r/1", "r/2"];
const FILTERS: [&str; 4] = ["t/+", "t/1", "both", "u"];
/// Each player is a member of one of them at most. The second is exclusive,
/// one job at a time; members of the third have QoS 0; the fourth is made on
/// the fly; the jobs of the fifth are in groups, by their topics.
const QUEUES: [&str; 5] = ["a", "b", "c", "d", "e"];
const GROUP: &str = "$share/g/g/+";

fn fed(topic: &str) -> &'static [&'static str] {
    match topic {
        "both" => &["a", "b"],
        "$queue/d" => &["d"],
        "g/1" => &["g"],
        "c-in" => &["c"],
        "b-in" => &["b"],
        "e-in/x" | "e-in/y" => &["e"],
        _ => &[],
    }
}

fn queue_of(at: usize) -> &'static str {
    QUEUES[at % QUEUES.len()]
}

fn matches(filter: &str, topic: &str) -> bool {
    let filter = TopicFilter::parse(filter, TopicLimits::NONE).expect("a filter");
    let topic = TopicName::parse(topic, TopicLimits::NONE);
    topic.is_ok_and(|topic| filter.matches(topic))
}

// ---- the story

/// What is done next; by a player that cannot, nothing is.
#[derive(Clone, Copy, Debug)]
enum Step {
    Connect(usize, Kind, Version, bool),
    Drop(usize),
    Disconnect(usize),
    Subscribe(usize, &'static str, u8),
    Unsubscribe(usize, &'static str),
    Join(usize, u8),
    Leave(usize),
    JoinGroup(usize, u8),
    LeaveGroup(usize),
    Publish(usize, &'static str, u8, Size, Asks),
    /// Sets a retained message, or clears it.
    Retain(usize, &'static str, u8, bool),
    /// Answers so many packets.
    Answer(usize, usize),
    Refuse(usize, Refusal),
    Pass(u64),
    Commit,
    /// Also what was only written is synced.
    Sync,
    Move,
}

/// Which session a client asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// The one that is there, or one that stays.
    Keep,
    /// A new one that stays (MQTT 5).
    Fresh,
    /// A new one that goes with its connection.
    Clean,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Size {
    Small,
    Large,
}

/// What a PUBLISH in MQTT 5 asks of the queues that it feeds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Asks {
    priority: Option<u8>,
    delay_secs: Option<u64>,
}

/// How a member says that it does not do a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refusal {
    /// PUBACK or PUBREC: again later.
    Later,
    /// PUBACK or PUBREC: never.
    Never,
    /// By `$queue/$nack`.
    Nack,
    /// By `$queue/$reject`.
    Reject,
}

fn story(seed: u64) -> Vec<Step> {
    let mut random = Random(seed);
    let mut steps = Vec::new();
    for at in 0..PLAYERS {
        steps.push(Step::Connect(
            at,
            if at < 8 { Kind::Keep } else { Kind::Clean },
            version(&mut random),
            random.one_in(3),
        ));
        steps.push(Step::Commit);
        steps.push(Step::Subscribe(
            at,
            random.of(&FILTERS),
            random.below(3) as u8,
        ));
        steps.push(Step::Join(at, random.below(3) as u8));
    }
    for _ in 0..STEPS {
        let at = random.below(PLAYERS);
        steps.push(match random.below(100) {
            0..=25 => {
                let size = match random.one_in(6) {
                    true => Size::Large,
                    false => Size::Small,
                };
                let asks = Asks {
                    priority: random.one_in(3).then(|| random.of(&[0, 3, 5, 9])),
                    delay_secs: random.one_in(6).then(|| random.of(&[0, 1, 2, 5])),
                };
                Step::Publish(at, random.of(&TOPICS), random.below(3) as u8, size, asks)
            }
            26..=30 => {
                let clears = random.one_in(3);
                Step::Retain(at, random.of(&RETAINED), random.below(3) as u8, clears)
            }
            31..=51 => Step::Answer(at, 1 + random.below(4)),
            52..=66 => Step::Commit,
            67 => Step::Sync,
            68..=76 => {
                let kind = match at < 8 {
                    true => random.of(&[Kind::Keep, Kind::Keep, Kind::Keep, Kind::Fresh]),
                    false => random.of(&[Kind::Clean, Kind::Clean, Kind::Keep]),
                };
                Step::Connect(at, kind, version(&mut random), random.one_in(3))
            }
            77..=80 => Step::Drop(at),
            81 => Step::Disconnect(at),
            82..=83 => Step::Subscribe(at, random.of(&FILTERS), random.below(3) as u8),
            84 => Step::Unsubscribe(at, random.of(&FILTERS)),
            85..=86 => Step::Join(at, random.below(3) as u8),
            87 => Step::Leave(at),
            88 => Step::JoinGroup(at, 1 + random.below(2) as u8),
            89 => Step::LeaveGroup(at),
            90..=93 => {
                use Refusal::{Later, Nack, Never, Reject};
                Step::Refuse(at, random.of(&[Later, Never, Nack, Reject]))
            }
            94 => Step::Pass(1 + random.below(2) as u64),
            _ => Step::Move,
        });
    }
    steps
}

fn version(random: &mut Random) -> Version {
    random.of(&[Version::V3_1_1, Version::V5])
}

/// How the disk ends the story.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Halt {
    /// Not before the end of it.
    Never,
    /// The machine stops in the middle of that operation.
    Stops(u64, Remains),
    /// That operation fails, and the machine is stopped later.
    Fails(u64, Fault),
}

/// What the next broker finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Remains {
    Synced,
    /// And any part of the rest, by this seed.
    Torn(u64),
    Written,
}

// ---- the tests

fn seeds(default: std::ops::Range<u64>) -> (std::ops::Range<u64>, bool) {
    let Ok(text) = std::env::var("ROTAMQ_HISTORIES") else {
        return (default, false);
    };
    let bounds = (text.split_once("..")).map(|(from, to)| (from.parse(), to.parse()));
    let Some((Ok(from), Ok(to))) = bounds else {
        panic!("ROTAMQ_HISTORIES is FROM..TO, not {text}");
    };
    (from..to, true)
}

/// Tells each story to all of its ends.
fn tell_all(
    stories: std::ops::Range<u64>,
    durability: Durability,
    halt: impl Fn(u64, u64) -> Halt,
) {
    let (seeds, everywhere) = seeds(stories);
    for seed in seeds {
        let steps = story(seed);
        let tell = |steps: &[Step], halt| {
            let told = catch_unwind(AssertUnwindSafe(|| {
                Play::new(seed, durability).run(steps, halt)
            }));
            told.map_err(drop)
        };
        let check = |halt| {
            tell(&steps, halt).unwrap_or_else(|()| {
                shorten(
                    steps.clone(),
                    |steps| tell(steps, halt).is_err(),
                    seed,
                    halt,
                )
            })
        };
        let operations = check(Halt::Never);
        let every = match everywhere {
            true => 1,
            false => (operations / POINTS).max(1),
        };
        // Another place in each story.
        for nth in (1 + seed % every..=operations).step_by(every as usize) {
            check(halt(seed, nth));
        }
    }
}

/// Leaves out what the failure does not need, and shows the rest.
fn shorten(mut steps: Vec<Step>, fails: impl Fn(&[Step]) -> bool, seed: u64, halt: Halt) -> ! {
    eprintln!("again: ROTAMQ_HISTORIES={seed}..{}; {halt:?}", seed + 1);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let mut span = steps.len() / 2;
    while span > 0 {
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + span).min(fewer.len()));
            match fails(&fewer) {
                true => steps = fewer,
                false => at += span,
            }
        }
        span /= 2;
    }
    std::panic::set_hook(hook);
    eprintln!("it fails also so: {steps:#?}");
    fails(&steps);
    panic!("history {seed}, {halt:?}");
}

/// Cases D05 and K01 of docs/security.md.
#[test]
fn a_power_cut_at_any_moment_breaks_no_promise() {
    tell_all(0..60, Durability::Synced, |_, nth| {
        Halt::Stops(nth, Remains::Synced)
    });
}

#[test]
fn a_power_cut_that_leaves_some_of_what_was_not_synced_breaks_no_promise() {
    tell_all(100..160, Durability::Synced, |seed, nth| {
        Halt::Stops(nth, Remains::Torn(seed << 20 | nth))
    });
}

/// Case K11 of docs/security.md.
#[test]
fn a_killed_process_breaks_no_promise() {
    for durability in [Durability::Flushed, Durability::Synced] {
        tell_all(200..230, durability, |_, nth| {
            Halt::Stops(nth, Remains::Written)
        });
    }
}

/// Case K05 of docs/security.md.
#[test]
fn an_operation_of_the_disk_that_fails_breaks_no_promise() {
    for fault in [Fault::Failed, Fault::Full] {
        tell_all(300..330, Durability::Synced, |_, nth| {
            Halt::Fails(nth, fault)
        });
    }
}

// ---- what clients know

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Known {
    #[default]
    No,
    /// It was asked for, and no answer came.
    Perhaps,
    Yes,
}

#[derive(Default)]
struct Player {
    connection: Option<C>,
    version: Option<Version>,
    /// CONNACK has come.
    greeted: bool,
    /// Whether its session outlives the connection.
    persistent: bool,
    session: Known,
    /// Which of its sessions it is.
    generation: usize,
    filters: BTreeMap<&'static str, (u8, Known)>,
    /// SUBSCRIBE and UNSUBSCRIBE that are not answered.
    asked: BTreeMap<u16, (&'static str, Option<u8>)>,
    /// PUBLISHes that are not through, in their order.
    out: Vec<Out>,
    /// What it has to answer, in its order.
    due: Vec<Reply>,
    /// QoS 1 messages that it has not answered.
    open: BTreeMap<u16, usize>,
    /// QoS 2 messages that it has not seen PUBREL for.
    received: BTreeMap<u16, Received>,
    /// How often each message came in this session, at QoS 1 or 2.
    seen: BTreeMap<usize, usize>,
    seen_at_0: BTreeSet<usize>,
    /// The last number of those that came first, by publisher, topic, and QoS
    /// on both ways.
    last: BTreeMap<(usize, &'static str, u8, u8), usize>,
    /// It may have jobs of the group at QoS 2, seen or not, which its session
    /// takes along when it ends [MQTT-4.8.2-5].
    may_discard: bool,
    will: Option<usize>,
    next_id: u16,
}

struct Out {
    id: u16,
    number: usize,
    released: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reply {
    /// PUBACK or PUBREC for a message; the job that it was.
    Got(u16, u8, Option<Job>),
    Pubrel(u16),
    Pubcomp(u16),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Received {
    number: usize,
    job: Option<Job>,
    /// Its PUBREC settles the job for sure.
    settles: bool,
}

/// A message's number, in one queue or group.
type Job = (&'static str, usize);

struct Published {
    topic: &'static str,
    publisher: usize,
    qos: u8,
    retain: bool,
    payload: String,
    acknowledged: bool,
    /// How often it was sent again at QoS 1: each may be another message.
    resent: usize,
    /// Whether it was sent again.
    again: bool,
    /// Players that are subscribed for sure since it was sent first, and what
    /// session that is.
    owed: BTreeSet<(usize, usize)>,
    /// Players that may be subscribed.
    allowed: BTreeSet<usize>,
    /// Somebody has seen it who has it from the disk.
    is_stored: bool,
    priority: u8,
    /// Nobody gets the job before.
    due: Time,
}

#[derive(Default)]
struct JobState {
    /// Settled, and that is stored: it never comes again.
    done: bool,
    /// Answered.
    perhaps: bool,
    /// Rejected, and that is stored.
    rejected: bool,
    /// Its member at QoS 2, with its session and the packet id.
    hand: Option<(usize, usize, u16)>,
    /// Its member at QoS 1, with its connection and the packet id.
    lent: Option<(usize, C, u16)>,
    came: usize,
    drained: usize,
    dead: usize,
}

/// How often a will is published: at least, and at most.
struct WillState {
    least: usize,
    most: usize,
    seen: usize,
}

/// What becomes certain when the store has committed.
enum Pending {
    Done(Job),
    Rejected(Job),
    /// The will is, or is not, published.
    Will(usize, usize),
}

struct Play {
    world: World,
    seed: u64,
    players: Vec<Player>,
    published: Vec<Published>,
    /// By topic, in their order: what was set, and whether that was said to be
    /// stored.
    retained: BTreeMap<&'static str, Vec<(usize, bool)>>,
    jobs: BTreeMap<Job, JobState>,
    first_of_b: BTreeMap<(usize, u8, u8), usize>,
    /// The last number of those of a group that came first, by topic.
    first_of_group: BTreeMap<&'static str, usize>,
    wills: Vec<WillState>,
    pending: Vec<Pending>,
    failed: bool,
    durability: Durability,
}

impl Play {
    fn new(seed: u64, durability: Durability) -> Play {
        let mut world = World::seeded(seed, |config| {
            config.store.durability = durability;
            config.limits.inflight_max = 3 + (seed % 6) as u16;
            config.queues.default.backoff_max = secs(2);
            for name in ["a", "b", "c", "e"] {
                let own = format!("{name}-in");
                let filters = match name {
                    "c" => vec![own],
                    "e" => vec!["e-in/+".into()],
                    _ => vec![own, "both".into()],
                };
                config.queue.push(QueueSettings {
                    filters,
                    group_level: if name == "e" { 2 } else { 0 },
                    backoff_max: secs(2),
                    prefetch: if name == "b" { 1 } else { 3 },
                    exclusive: name == "b",
                    ..queue(name)
                });
            }
        });
        world = world.stored(&Twin::new());
        // Absent till the end: the group is there, and somebody for the wills.
        for (id, filter) in [("anchor", GROUP), ("watcher", "will")] {
            let client = world.connect(id).clean(false).go();
            world.subscribe(client, filter, 2);
            world.disconnect(client);
        }
        world.core.store().commit(true).expect("the disk is well");
        world.commits = Commits::ByHand;
        Play {
            world,
            seed,
            players: (0..PLAYERS).map(|_| Player::default()).collect(),
            published: Vec::new(),
            retained: BTreeMap::new(),
            jobs: BTreeMap::new(),
            first_of_b: BTreeMap::new(),
            first_of_group: BTreeMap::new(),
            wills: Vec::new(),
            pending: Vec::new(),
            failed: false,
            durability,
        }
    }

    /// Tells the story; how many operations the disk did.
    fn run(mut self, steps: &[Step], halt: Halt) -> u64 {
        let disk = self.world.disk().clone();
        let before = disk.operations();
        match halt {
            Halt::Never => {}
            Halt::Stops(nth, _) => disk.fail_at(nth, Fault::Stopped),
            Halt::Fails(nth, fault) => disk.fail_at(nth, fault),
        }
        let mut at = 0;
        // Who does not know that the disk has failed goes on for a while.
        let mut left = 12;
        while at < steps.len() && left > 0 {
            self.step(steps[at]);
            at += 1;
            left -= usize::from(self.failed);
        }
        let operations = disk.operations() - before;
        assert_eq!(self.failed, self.world.core.store().failure().is_some());
        self.recover(halt);
        for step in steps[at..].iter().take(STEPS_AFTER) {
            self.step(*step);
        }
        assert!(!self.failed);
        self.finish();
        operations
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Connect(at, kind, version, will) => self.connect(at, kind, version, will),
            Step::Pass(count) => self.world.advance(secs(count)),
            Step::Commit => self.commit(false),
            Step::Sync => self.commit(true),
            Step::Move => self.move_some(),
            Step::Drop(at)
            | Step::Disconnect(at)
            | Step::Subscribe(at, ..)
            | Step::Unsubscribe(at, ..)
            | Step::Join(at, _)
            | Step::Leave(at)
            | Step::JoinGroup(at, _)
            | Step::LeaveGroup(at)
            | Step::Publish(at, ..)
            | Step::Retain(at, ..)
            | Step::Answer(at, _)
            | Step::Refuse(at, _) => {
                let player = &self.players[at];
                if let Some(client) = player.connection.filter(|_| player.greeted) {
                    self.act(at, client, step);
                }
            }
        }
        self.look_all();
    }

    fn act(&mut self, at: usize, client: C, step: Step) {
        match step {
            Step::Drop(_) => {
                self.world.drop(client);
                self.lost(at);
            }
            Step::Disconnect(_) => {
                self.world.disconnect(client);
                if let Some(will) = self.players[at].will.take() {
                    self.wills[will].least = 0;
                    self.pending.push(Pending::Will(will, 0));
                }
                self.gone(at);
            }
            Step::Subscribe(_, filter, qos) => self.subscribe(at, client, filter, qos),
            Step::Unsubscribe(_, filter) => self.unsubscribe(at, client, filter),
            Step::Join(_, qos) => {
                let qos = match queue_of(at) {
                    "c" => 0,
                    "b" => 1,
                    _ => 1 + qos % 2,
                };
                self.ask(at, client, &format!("$queue/{}", queue_of(at)), Some(qos));
            }
            Step::Leave(_) => self.ask(at, client, &format!("$queue/{}", queue_of(at)), None),
            Step::JoinGroup(_, qos) => {
                self.players[at].may_discard |= qos == 2;
                self.ask(at, client, GROUP, Some(qos));
            }
            Step::LeaveGroup(_) => self.ask(at, client, GROUP, None),
            Step::Publish(_, topic, qos, size, asks) => {
                let mut payload = self.published.len().to_string();
                if size == Size::Large {
                    payload.push_str(&" ".repeat(1500));
                }
                self.publish(at, client, (topic, payload), asks, qos, false);
            }
            Step::Retain(_, topic, qos, clears) => {
                let payload = match clears {
                    true => String::new(),
                    false => self.published.len().to_string(),
                };
                self.publish(at, client, (topic, payload), Asks::default(), qos, true);
            }
            Step::Answer(_, count) => self.answer(at, client, count),
            Step::Refuse(_, refusal) => self.refuse(at, client, refusal),
            _ => unreachable!("no player does it"),
        }
    }

    // ---- the store

    fn commit(&mut self, sync_all: bool) {
        let committed = (self.world.core.store().commit(sync_all)).and_then(|_| {
            self.world.drive();
            self.world.commit()
        });
        match committed {
            Ok(()) => {
                assert!(!self.failed, "it has failed for good");
                self.committed();
            }
            Err(_) => self.failed = true,
        }
    }

    fn move_some(&mut self) {
        let store = self.world.core.store();
        let moved = store.move_oldest().and_then(|_| store.compact());
        self.failed |= moved.is_err();
    }

    /// Everything is stored that was said before.
    fn committed(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Done(job) => self.job(job).done = true,
                Pending::Rejected(job) => self.job(job).rejected = true,
                Pending::Will(will, count) => {
                    let will = &mut self.wills[will];
                    (will.least, will.most) = (count, count);
                }
            }
        }
    }

    fn job(&mut self, job: Job) -> &mut JobState {
        self.jobs.entry(job).or_default()
    }

    // ---- connections

    fn connect(&mut self, at: usize, kind: Kind, version: Version, has_will: bool) {
        if self.players[at].connection.is_some() {
            self.lost(at);
        }
        let player = &mut self.players[at];
        let kind = match (kind, version) {
            // What there is it does not know: it begins anew.
            (Kind::Keep, _) if player.session == Known::Perhaps => Kind::Clean,
            (Kind::Fresh, Version::V3_1_1) => Kind::Clean,
            (kind, _) => kind,
        };
        if kind != Kind::Keep {
            self.session_over(at);
            self.players[at].session = Known::Perhaps;
        }
        let will = has_will.then(|| {
            self.wills.push(WillState {
                least: 0,
                most: 1,
                seen: 0,
            });
            self.wills.len() - 1
        });
        let (id, payload) = (
            format!("player-{at}"),
            format!("{}", will.unwrap_or_default()),
        );
        self.world.version = version;
        let mut connecting = self.world.connect(&id).clean(kind != Kind::Keep);
        if kind == Kind::Fresh {
            connecting = connecting.property(Property::SessionExpiryInterval(10_000));
        }
        if has_will {
            connecting = connecting.will("will", &payload, 1, false);
        }
        let link = connecting.unseen();
        let client = self.world.add(link);
        let player = &mut self.players[at];
        player.connection = Some(client);
        player.version = Some(version);
        player.greeted = false;
        player.persistent = kind != Kind::Clean;
        player.will = will;
        // One that stays and was not there before: it is, if CONNACK comes.
        if kind == Kind::Keep && player.session == Known::No {
            player.generation += 1;
        }
    }

    fn greeted(&mut self, at: usize, present: bool) {
        let player = &mut self.players[at];
        assert_eq!(present, player.session == Known::Yes, "the session of {at}");
        player.greeted = true;
        player.session = match player.persistent {
            true => Known::Yes,
            false => Known::No,
        };
        let client = player.connection.expect("it is");
        if !present {
            player.out.clear();
        }
        // As it was sent, in its order.
        for sent in 0..self.players[at].out.len() {
            let Out {
                id,
                number,
                released,
            } = self.players[at].out[sent];
            if released {
                self.world.send(client, &pubrel(id));
                continue;
            }
            let published = &mut self.published[number];
            published.resent += usize::from(published.qos == 1);
            published.again = true;
            let packet = duplicate(publish(
                published.topic,
                &published.payload,
                published.qos,
                id,
            ));
            let packet = match (packet, published.retain) {
                (Packet::Publish(publish), true) => Packet::Publish(Publish {
                    retain: true,
                    ..publish
                }),
                (packet, _) => packet,
            };
            self.world.send(client, &packet);
            if self.published[number].retain {
                let topic = self.published[number].topic;
                self.retained
                    .entry(topic)
                    .or_default()
                    .push((number, false));
            }
        }
    }

    /// The connection is lost, or taken over.
    fn lost(&mut self, at: usize) {
        if let Some(will) = self.players[at].will.take() {
            self.pending.push(Pending::Will(will, 1));
        }
        self.gone(at);
    }

    fn gone(&mut self, at: usize) {
        let player = &mut self.players[at];
        player.connection = None;
        player.due.clear();
        for (id, (filter, qos)) in std::mem::take(&mut player.asked) {
            let _ = (id, qos);
            if let Some((_, known)) = player.filters.get_mut(filter) {
                *known = Known::Perhaps;
            }
        }
        let unsure = !player.greeted && player.session != Known::Yes;
        let over = !player.persistent;
        for state in self.jobs.values_mut() {
            state.lent.take_if(|(player, ..)| *player == at);
        }
        if over {
            self.session_over(at);
        }
        if unsure {
            // Whether the one before is over, and whether there is a new one.
            self.players[at].session = Known::Perhaps;
        }
    }

    fn session_over(&mut self, at: usize) {
        let player = &mut self.players[at];
        player.session = Known::No;
        player.generation += 1;
        player.filters.clear();
        player.asked.clear();
        player.out.clear();
        player.open.clear();
        player.received.clear();
        player.seen.clear();
        player.seen_at_0.clear();
        player.last.clear();
        for published in &mut self.published {
            published.owed.retain(|(player, _)| *player != at);
        }
        for state in self.jobs.values_mut() {
            state.hand.take_if(|(player, ..)| *player == at);
        }
        if std::mem::take(&mut self.players[at].may_discard) {
            for (number, published) in self.published.iter().enumerate() {
                for queue in fed(published.topic).iter().filter(|queue| **queue == "g") {
                    self.jobs.entry((*queue, number)).or_default().perhaps = true;
                }
            }
        }
    }

    // ---- what clients send

    fn next_id(&mut self, at: usize) -> u16 {
        let player = &mut self.players[at];
        loop {
            player.next_id = player.next_id % 1000 + 1;
            let id = player.next_id;
            if !player.out.iter().any(|out| out.id == id) && !player.asked.contains_key(&id) {
                return id;
            }
        }
    }

    /// To a queue or a group.
    fn ask(&mut self, at: usize, client: C, filter: &str, qos: Option<u8>) {
        let id = self.next_id(at);
        match qos {
            Some(qos) => self.world.send(client, &subscribe(id, &[(filter, qos)])),
            None => self.world.send(client, &unsubscribe(id, &[filter])),
        }
        self.players[at].asked.insert(id, ("", qos));
    }

    fn subscribe(&mut self, at: usize, client: C, filter: &'static str, qos: u8) {
        let id = self.next_id(at);
        self.world.send(client, &subscribe(id, &[(filter, qos)]));
        let player = &mut self.players[at];
        let least = player
            .filters
            .get(filter)
            .map_or(qos, |(held, _)| qos.min(*held));
        player.filters.insert(filter, (least, Known::Perhaps));
        player.asked.insert(id, (filter, Some(qos)));
        self.owe_no_more(at);
        for published in &mut self.published {
            if !published.acknowledged && matches(filter, published.topic) {
                published.allowed.insert(at);
            }
        }
    }

    fn unsubscribe(&mut self, at: usize, client: C, filter: &'static str) {
        let id = self.next_id(at);
        self.world.send(client, &unsubscribe(id, &[filter]));
        let player = &mut self.players[at];
        if let Some((_, known)) = player.filters.get_mut(filter) {
            *known = Known::Perhaps;
        }
        player.asked.insert(id, (filter, None));
        self.owe_no_more(at);
    }

    /// What is not through may find other subscriptions.
    fn owe_no_more(&mut self, at: usize) {
        for published in &mut self.published {
            if !published.acknowledged {
                published.owed.retain(|(player, _)| *player != at);
            }
        }
    }

    fn publish(
        &mut self,
        at: usize,
        client: C,
        (topic, payload): (&'static str, String),
        asks: Asks,
        qos: u8,
        retain: bool,
    ) {
        let number = self.published.len();
        let to_queue = fed(topic).iter().any(|list| *list != "g");
        let can_ask = self.players[at].version == Some(Version::V5) && to_queue;
        let asks = if can_ask { asks } else { Asks::default() };
        let delay = asks.delay_secs.filter(|delay| *delay > 0);
        let due = delay.map_or(Time::ZERO, |delay| self.world.now + secs(delay));
        let said = [
            ("priority", asks.priority.map(u64::from)),
            ("delay", asks.delay_secs),
        ];
        let mut properties = PropertiesBuf::new();
        for (name, value) in said {
            if let Some(value) = value {
                properties.push(Property::UserProperty((name, &value.to_string())));
            }
        }
        let mut owed = BTreeSet::new();
        let mut allowed = BTreeSet::new();
        for (other, player) in self.players.iter().enumerate() {
            let fitting = || {
                player
                    .filters
                    .iter()
                    .filter(|(filter, _)| matches(filter, topic))
            };
            if fitting().next().is_some() {
                allowed.insert(other);
            }
            let surely = fitting().filter(|(_, (_, known))| *known == Known::Yes);
            let granted = surely.map(|(_, (granted, _))| *granted).max();
            let stays = player.persistent && player.session == Known::Yes;
            if stays && granted.is_some_and(|granted| granted.min(qos) > 0) {
                owed.insert((other, player.generation));
            }
        }
        let id = match qos {
            0 => 0,
            _ => self.next_id(at),
        };
        if qos > 0 {
            self.players[at].out.push(Out {
                id,
                number,
                released: false,
            });
        }
        if retain {
            self.retained
                .entry(topic)
                .or_default()
                .push((number, false));
        }
        let packet = Packet::Publish(Publish {
            dup: false,
            qos: qos_of(qos),
            retain,
            topic,
            packet_id: NonZeroU16::new(id),
            properties: properties.as_properties(),
            payload: payload.as_bytes(),
        });
        self.world.send(client, &packet);
        self.published.push(Published {
            topic,
            publisher: at,
            qos,
            retain,
            payload,
            acknowledged: false,
            resent: 0,
            again: false,
            owed,
            allowed,
            is_stored: false,
            priority: asks.priority.unwrap_or(4),
            due,
        });
    }

    fn answer(&mut self, at: usize, client: C, count: usize) {
        for _ in 0..count {
            if self.players[at].due.is_empty() {
                return;
            }
            match self.players[at].due.remove(0) {
                Reply::Got(id, qos, job) => {
                    if let Some(job) = job {
                        self.settle(at, client, id, job);
                    }
                    self.players[at].open.remove(&id);
                    match qos {
                        1 => self.world.send(client, &puback(id)),
                        _ => self.world.send(client, &pubrec(id)),
                    }
                }
                Reply::Pubrel(id) => self.world.send(client, &pubrel(id)),
                Reply::Pubcomp(id) => self.world.send(client, &pubcomp(id)),
            }
        }
    }

    /// It is about to say that the job is done.
    fn settle(&mut self, at: usize, client: C, id: u16, job: Job) {
        let generation = self.players[at].generation;
        let state = self.job(job);
        state.perhaps = true;
        let holds =
            state.lent == Some((at, client, id)) || state.hand == Some((at, generation, id));
        if holds {
            self.pending.push(Pending::Done(job));
            if let Some(received) = self.players[at].received.get_mut(&id) {
                received.settles = true;
            }
        }
    }

    fn refuse(&mut self, at: usize, client: C, refusal: Refusal) {
        let is_job = |reply: &Reply| match reply {
            Reply::Got(.., Some((queue, _))) => ["a", "d", "e"].contains(queue),
            _ => false,
        };
        let Some(found) = self.players[at].due.iter().position(is_job) else {
            return;
        };
        let Reply::Got(id, qos, Some(job)) = self.players[at].due[found] else {
            return;
        };
        let can_say = self.players[at].version == Some(Version::V5);
        let never = matches!(refusal, Refusal::Never | Refusal::Reject);
        let generation = self.players[at].generation;
        let state = self.job(job);
        let held = state.lent == Some((at, client, id)) || state.hand == Some((at, generation, id));
        state.lent = None;
        state.hand = None;
        if never && held {
            self.pending.push(Pending::Rejected(job));
        }
        if matches!(refusal, Refusal::Later | Refusal::Never) && can_say {
            self.players[at].due.remove(found);
            self.players[at].received.remove(&id);
            let ack = Ack {
                reason: match never {
                    true => ReasonCode::PayloadFormatInvalid,
                    false => ReasonCode::ImplementationSpecificError,
                },
                ..Ack::new(packet_id(id))
            };
            self.world.send(
                client,
                &match qos {
                    1 => Packet::Puback(ack),
                    _ => Packet::Pubrec(ack),
                },
            );
            return;
        }
        let topic = match never {
            true => "$queue/$reject",
            false => "$queue/$nack",
        };
        // Its answer comes later, and only frees the id.
        self.world
            .send(client, &publish(topic, &id.to_string(), 0, 0));
    }

    // ---- what clients get

    fn look_all(&mut self) {
        for at in 0..PLAYERS {
            while let Some(client) = self.players[at].connection {
                let got = self.world.receive(client);
                if got.is_empty() {
                    let stop = self.world.stop(client);
                    assert!(self.world.is_open(client), "{at} was closed: {stop:?}");
                    break;
                }
                for got in got {
                    self.got(at, client, got);
                }
            }
        }
    }

    fn got(&mut self, at: usize, client: C, got: Got) {
        let player = &mut self.players[at];
        match got {
            Got::Connack(present, ReasonCode::Success) => self.greeted(at, present),
            Got::Publish(message) => self.came(at, client, &message),
            Got::Puback(id) => {
                let sent = player.out.iter().position(|out| out.id == id);
                let sent = player
                    .out
                    .remove(sent.expect("what was sent is acknowledged"));
                assert_eq!(self.published[sent.number].qos, 1);
                self.acknowledged(sent.number);
            }
            Got::Pubrec(id) => {
                let sent = player.out.iter_mut().find(|out| out.id == id);
                let sent = sent.expect("what was sent is acknowledged");
                sent.released = true;
                let number = sent.number;
                player.due.push(Reply::Pubrel(id));
                self.acknowledged(number);
            }
            Got::Pubcomp(id) => player.out.retain(|out| out.id != id),
            Got::Pubrel(id) => {
                player.due.push(Reply::Pubcomp(id));
                let received = player.received.remove(&id);
                if let Some(Received {
                    job: Some(job),
                    settles: true,
                    ..
                }) = received
                {
                    self.job(job).done = true;
                    self.job(job).hand = None;
                }
            }
            Got::Suback(id, codes) => {
                let (filter, asked) = player.asked.remove(&id).expect("it was asked for");
                if filter.is_empty() {
                    assert!(codes[0] <= 2);
                    return;
                }
                assert_eq!(asked, Some(codes[0]));
                if !player.asked.values().any(|(other, _)| *other == filter) {
                    player.filters.insert(filter, (codes[0], Known::Yes));
                }
            }
            Got::Unsuback(id) => {
                let (filter, _) = player.asked.remove(&id).expect("it was asked for");
                if !player.asked.values().any(|(other, _)| *other == filter) {
                    player.filters.remove(filter);
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn acknowledged(&mut self, number: usize) {
        let published = &mut self.published[number];
        if published.acknowledged {
            return;
        }
        published.acknowledged = true;
        if published.retain {
            let sets = self.retained.entry(published.topic).or_default();
            let mut own = sets.iter_mut().filter(|set| set.0 == number);
            // Sent again at QoS 2 it may be either; at QoS 1 it is the last.
            let set = match published.qos {
                1 => own.next_back(),
                _ => own.next(),
            };
            set.expect("it was set").1 = true;
        }
    }

    fn came(&mut self, at: usize, client: C, message: &Message) {
        let number = number_of(message);
        let job = match &*message.topic {
            "g/1" => Some(("g", number)),
            topic if topic.starts_with("$queue/") => Some((queue_of(at), number)),
            _ => None,
        };
        assert!(!message.retain);
        let player = &mut self.players[at];
        if message.qos == 2 {
            if let Some(received) = player.received.get(&message.id) {
                let same = message.dup && received.number == number && received.job == job;
                assert!(same, "{at} has {received:?} by that id, not {message:?}");
                player.due.push(Reply::Got(message.id, 2, job));
                return;
            }
            let received = Received {
                number,
                job,
                settles: false,
            };
            player.received.insert(message.id, received);
        }
        if message.qos == 1 && job.is_none() {
            let before = player.open.insert(message.id, number);
            let same = before.is_none_or(|before| before == number && message.dup);
            assert!(same, "{at} has {before:?} by that id, not {message:?}");
        }
        if message.qos > 0 {
            player.due.push(Reply::Got(message.id, message.qos, job));
        }
        match job {
            Some(job) => self.job_came(at, client, job, message),
            None => self.message_came(at, number, message),
        }
    }

    fn message_came(&mut self, at: usize, number: usize, message: &Message) {
        let published = &mut self.published[number];
        let player = &mut self.players[at];
        assert_eq!(published.topic, message.topic);
        assert_eq!(published.payload, message.payload);
        assert!(
            published.allowed.contains(&at),
            "{at} has not subscribed to {number}"
        );
        published.is_stored |= player.persistent && message.qos > 0;
        // At QoS 0 it goes out at once, perhaps before anything is stored, and
        // then when it is sent again.
        if message.qos == 0 {
            let first = player.seen_at_0.insert(number);
            assert!(
                first || published.again,
                "{number} of QoS 0 came to {at} twice"
            );
            if published.again {
                return;
            }
        } else {
            let count = player.seen.entry(number).or_default();
            *count += 1;
            if *count > 1 {
                let once = published.qos == 2 && message.qos == 2;
                assert!(!once, "{number} of QoS 2 came to {at} twice");
                let excused = message.dup || published.resent > 0;
                assert!(excused, "{number} came to {at} twice without DUP");
                return;
            }
        }
        let stream = (
            published.publisher,
            published.topic,
            published.qos,
            message.qos,
        );
        let last = player.last.entry(stream).or_insert(number);
        assert!(*last <= number, "{number} came to {at} after {last}");
        *last = number;
    }

    fn job_came(&mut self, at: usize, client: C, job: Job, message: &Message) {
        let (queue, number) = job;
        let published = &mut self.published[number];
        assert!(fed(published.topic).contains(&queue));
        published.is_stored |= queue != "g" || message.qos > 0;
        let single = published.resent == 0;
        // Sent again it asks for nothing, and stands elsewhere.
        let same = !published.again || queue == "b" && published.priority == 4;
        let in_order = same && published.due == Time::ZERO;
        assert!(
            published.again || self.world.now >= published.due,
            "{job:?} comes to {at} too soon"
        );
        let stream = (published.publisher, published.qos, published.priority);
        if queue == "e" {
            self.check_group(at, number);
        }
        let generation = self.players[at].generation;
        let state = self.jobs.entry(job).or_default();
        state.came += 1;
        if single {
            assert!(!state.done, "{job:?} was done, and comes to {at}");
            assert!(!state.rejected, "{job:?} was rejected, and comes to {at}");
            assert!(
                state.hand.is_none(),
                "{job:?} is with {:?}, and comes to {at}",
                state.hand
            );
            assert!(
                state.lent.is_none(),
                "{job:?} is with {:?}, and comes to {at}",
                state.lent
            );
        }
        match message.qos {
            0 => state.done = true,
            1 => state.lent = Some((at, client, message.id)),
            _ => state.hand = Some((at, generation, message.id)),
        }
        if state.came == 1 && in_order {
            let last = match queue {
                "b" => self.first_of_b.entry(stream).or_insert(number),
                "e" => {
                    let topic = self.published[number].topic;
                    self.first_of_group.entry(topic).or_insert(number)
                }
                _ => return,
            };
            assert!(*last <= number, "{number} came first after {last}");
            *last = number;
        }
    }

    /// A job of a group comes while no other one of it is in hand.
    fn check_group(&self, at: usize, number: usize) {
        let topic = self.published[number].topic;
        for (other, published) in self.published.iter().enumerate() {
            if other == number || published.topic != topic || published.again {
                continue;
            }
            let state = self.jobs.get(&("e", other));
            let in_hand = state.filter(|state| !state.perhaps && !state.done);
            let in_hand = in_hand.and_then(|state| {
                let lent = state.lent.map(|(player, ..)| player);
                lent.or(state.hand.map(|(player, ..)| player))
            });
            assert!(
                in_hand.is_none(),
                "{number} comes to {at} while {other} of its group is with {in_hand:?}"
            );
        }
    }

    /// What was left in a queue came by priority, and of groups in order.
    fn check_order(&self, queue: &str, numbers: &[usize]) {
        let place = |number: &usize| {
            let published = &self.published[*number];
            match queue {
                // One that was due later than others were out is behind them.
                "e" if published.due > Time::ZERO => None,
                _ if published.again => None,
                "e" => Some((published.topic, Reverse(0), *number)),
                _ => Some(("", Reverse(published.priority), *number)),
            }
        };
        let mut places: Vec<_> = numbers.iter().filter_map(place).collect();
        if queue == "e" {
            places.sort_by_key(|place| place.0);
        }
        assert!(places.is_sorted(), "{queue} gave {places:?}");
    }

    // ---- after the end

    /// The broker is gone, and another one starts.
    fn recover(&mut self, halt: Halt) {
        for at in 0..PLAYERS {
            let player = &mut self.players[at];
            // It is published after the start, if the client stays away.
            if let Some(will) = player.will.take() {
                let will = &mut self.wills[will];
                will.least = 0;
                will.most = usize::from(player.persistent);
            }
            if self.players[at].connection.is_some() {
                self.gone(at);
            }
        }
        self.pending.clear();
        let disk = self.world.disk();
        let remains = match halt {
            Halt::Stops(_, remains) => remains,
            _ if self.durability == Durability::Flushed => Remains::Written,
            Halt::Never | Halt::Fails(..) => Remains::Synced,
        };
        let mut left = match remains {
            Remains::Synced => disk.cut(),
            Remains::Torn(seed) => disk.cut_with(seed),
            Remains::Written => disk.kill(),
        };
        // It may be stopped again while it starts.
        let again = self.seed.is_multiple_of(3);
        if again {
            left.fail_at(1 + self.seed % 7, Fault::Stopped);
            let started = self.world.start_on(&left);
            let _ = started.map(|()| self.world.core.store().commit(true));
            left = match remains {
                Remains::Written => left.kill(),
                _ => left.cut(),
            };
        }
        self.world.now = self.world.now + secs(1);
        self.world.start_on(&left).expect("it opens");
        self.failed = false;
    }

    fn finish(&mut self) {
        self.commit(true);
        self.look_all();
        self.world.commits = Commits::AtOnce;
        // Some come back at once, the others when the wills are out.
        for late in [false, true] {
            for at in 0..PLAYERS {
                if self.players[at].connection.is_none()
                    && (late || (at as u64 + self.seed).is_multiple_of(2))
                {
                    self.connect(at, Kind::Keep, Version::V5, false);
                }
            }
            self.quiet();
            for _ in 0..16 {
                self.world.advance(secs(2));
                self.quiet();
            }
        }
        for (number, topic) in TOPICS.iter().enumerate() {
            let at = number % PLAYERS;
            let client = self.players[at].connection.expect("all are back");
            let payload = self.published.len().to_string();
            self.publish(at, client, (topic, payload), Asks::default(), 2, false);
        }
        self.quiet();
        self.drain();
        self.check();
    }

    /// Everybody answers everything, and is no member any more.
    fn quiet(&mut self) {
        loop {
            self.look_all();
            self.committed();
            let mut idle = true;
            for at in 0..PLAYERS {
                let player = &self.players[at];
                let Some(client) = player.connection.filter(|_| player.greeted) else {
                    continue;
                };
                if !player.due.is_empty() {
                    self.answer(at, client, usize::MAX);
                    idle = false;
                }
            }
            if idle {
                return;
            }
        }
    }

    fn drain(&mut self) {
        for at in 0..PLAYERS {
            let client = self.players[at].connection.expect("all are back");
            self.ask(at, client, &format!("$queue/{}", queue_of(at)), None);
            self.ask(at, client, GROUP, None);
        }
        self.quiet();
        let anchor = self.world.back("anchor");
        while let Some(Got::Publish(message)) = self.world.take(anchor) {
            self.world.acknowledge(anchor, &message);
            self.drained(("g", number_of(&message)), false);
        }
        for (dead, prefix) in [(false, "$queue/"), (true, "$queue/$dead/")] {
            for queue in QUEUES {
                let client = self.world.connect("drain").go();
                self.world.subscribe(client, &format!("{prefix}{queue}"), 1);
                let mut numbers = Vec::new();
                while let Some(Got::Publish(message)) = self.world.take(client) {
                    self.world.send(client, &puback(message.id));
                    numbers.push(number_of(&message));
                    self.drained((queue, number_of(&message)), dead);
                }
                if !dead {
                    self.check_order(queue, &numbers);
                }
                self.world.disconnect(client);
            }
        }
        let watcher = self.world.back("watcher");
        while let Some(Got::Publish(message)) = self.world.take(watcher) {
            self.world.acknowledge(watcher, &message);
            self.wills[number_of(&message)].seen += 1;
        }
    }

    fn drained(&mut self, job: Job, dead: bool) {
        let published = &mut self.published[job.1];
        published.is_stored = true;
        let single = published.resent == 0;
        let state = self.jobs.entry(job).or_default();
        match dead {
            true => state.dead += 1,
            false => state.drained += 1,
        }
        if single {
            assert!(!state.done, "{job:?} was done, and is there at the end");
            assert!(
                dead || !state.rejected,
                "{job:?} was rejected, and is there"
            );
            assert!(
                state.hand.is_none(),
                "{job:?} is with {:?}, and is there",
                state.hand
            );
        }
    }

    fn check(&mut self) {
        for (at, player) in self.players.iter().enumerate() {
            let (received, asked) = (&player.received, &player.asked);
            assert!(
                received.is_empty(),
                "no PUBREL came to {at} for {received:?}"
            );
            assert!(asked.is_empty(), "no answer came to {at} for {asked:?}");
            let out: Vec<_> = player.out.iter().map(|out| out.number).collect();
            assert!(out.is_empty(), "no answer came to {at} for {out:?}");
        }
        for (number, published) in self.published.iter().enumerate() {
            let must = published.acknowledged || published.is_stored;
            let (topic, qos) = (published.topic, published.qos);
            for (at, generation) in published.owed.iter().filter(|_| must && qos > 0) {
                let player = &self.players[*at];
                assert_eq!(player.generation, *generation);
                let seen = player.seen.contains_key(&number);
                assert!(seen, "{number} to {topic} did not come to {at}");
            }
            for queue in fed(topic) {
                let state = self.jobs.get(&(*queue, number));
                let ends = state.map_or(0, |state| state.drained + state.dead);
                let done = state.is_some_and(|state| state.done);
                let perhaps =
                    state.is_some_and(|state| state.perhaps || state.came > 0 && *queue == "c");
                let least = usize::from(done) + ends;
                let most = least + usize::from(perhaps && !done);
                // At QoS 0 it may be lost with its member's connection, or
                // where a group's members are away.
                let may_go = *queue == "c" || *queue == "g" && qos == 0;
                let expected_least = usize::from(must && !may_go);
                let expected_most = 1 + published.resent;
                assert!(
                    least <= expected_most && most >= expected_least,
                    "{number} to {topic}: {least} to {most} jobs in {queue} came to an end, not {expected_least} to {expected_most}"
                );
                if let Some(state) = state.filter(|state| state.rejected && published.resent == 0) {
                    assert_eq!(state.dead, 1, "{number} in {queue} was rejected");
                }
            }
        }
        for (number, will) in self.wills.iter().enumerate() {
            let WillState { least, most, seen } = will;
            assert!(
                (least..=most).contains(&seen),
                "will {number} was published {seen} times, not {least} to {most}"
            );
        }
        self.check_retained();
        let counts = self.world.counts();
        assert_eq!(counts.lost_damaged, 0);
        assert_eq!(self.world.core.store().failure(), None);
    }

    fn check_retained(&mut self) {
        let reader = self.world.connect("reader").go();
        self.world.subscribe(reader, "r/+", 0);
        let mut values = BTreeMap::new();
        for message in self.world.messages(reader) {
            values.insert(message.topic, message.payload);
        }
        for (topic, sets) in &self.retained {
            let value = values.get(*topic).cloned().unwrap_or_default();
            let last = sets.iter().rposition(|(_, acknowledged)| *acknowledged);
            let mut candidates = sets[last.unwrap_or(0)..].iter();
            let fits = candidates.any(|(number, _)| self.published[*number].payload == value);
            let none = last.is_none() && value.is_empty();
            assert!(fits || none, "{topic} has {value:?} after {sets:?}");
        }
    }
}

fn number_of(message: &Message) -> usize {
    message.payload.trim_end().parse().expect("a number")
}
