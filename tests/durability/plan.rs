//! Who takes part in a load, to which topics they publish, and who must get
//! what. All of it follows from a name and a seed, so that a check that knows
//! no more than the ledger's first line finds the same.

use crate::random::Random;
use crate::wire::Version;

/// A client's place in [`Plan::clients`].
pub type ClientNumber = usize;

/// A message: its publisher, and its number among that publisher's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageKey {
    pub publisher: ClientNumber,
    pub number: u64,
}

/// Who must get a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Receiver {
    /// A persistent session.
    Session(ClientNumber),
    /// One of the workers of a queue, by the queue's place in [`Plan::queues`].
    Queue(usize),
}

pub struct Plan {
    /// What all names on the broker begin with: loads do not meet.
    pub name: String,
    pub seed: u64,
    pub with_queues: bool,
    pub clients: Vec<ClientPlan>,
    /// The queues' names, without `$queue/`.
    pub queues: Vec<String>,
}

pub struct ClientPlan {
    /// Short, as the ledger names it. On the broker the plan's name and a
    /// hyphen stand before it.
    pub name: String,
    pub version: Version,
    pub role: Role,
    pub presence: Presence,
}

pub enum Role {
    /// Publishes at this QoS.
    Publisher { qos: u8 },
    /// Holds subscriptions.
    Subscriber { filters: Vec<String>, qos: u8 },
    /// Takes jobs from a queue, by its place in [`Plan::queues`].
    Worker { queue: usize, qos: u8 },
    /// Subscribes and unsubscribes, and publishes to itself at this QoS.
    Changer { qos: u8 },
    /// Looks at retained messages; has no session.
    Watcher,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    Online,
    /// Loses its connection again and again during the load.
    Unsteady,
    /// Leaves before the load, comes back for the check.
    Absent,
}

/// Places in [`Plan::queues`]: jobs in groups, jobs that are put off, and jobs of
/// which some are rejected.
pub const GROUPS: usize = 5;
pub const DELAYED: usize = 6;
pub const REJECTS: usize = 7;
/// Where the rejected ones go.
pub const DEAD: usize = 8;
/// How long jobs are put off.
pub const DELAY_SECS: u64 = 1;
/// What a job is asked for that its worker is to reject.
const BAD: &str = "$queue/$with/priority=1/";

/// Topics that each publisher retains messages on, and that each changer
/// subscribes to.
const TOPICS_EACH: usize = 6;

impl Plan {
    pub fn new(name: &str, seed: u64, with_queues: bool) -> Plan {
        use Presence::{Absent, Online, Unsteady};
        use Version::{V5, V311};
        let mut plan = Plan {
            name: name.to_owned(),
            seed,
            with_queues,
            clients: Vec::new(),
            queues: Vec::new(),
        };
        for (version, qos) in [(V311, 1), (V5, 1), (V311, 2), (V5, 2), (V5, 1), (V311, 2)] {
            plan.add("publisher", version, Online, Role::Publisher { qos });
        }
        for (version, qos, presence, filters) in [
            (V311, 1, Online, &["s/#"][..]),
            (V311, 2, Online, &["s/a", "s/b"]),
            (V5, 2, Online, &["s/+", "r/#"]),
            (V5, 1, Unsteady, &["s/c", "s/d"]),
            (V5, 2, Unsteady, &["s/a", "s/d"]),
            (V311, 2, Absent, &["s/a", "s/c"]),
            (V5, 2, Absent, &["s/#"]),
            (V311, 1, Absent, &["s/b", "s/d"]),
        ] {
            let filters = filters
                .iter()
                .map(|filter| format!("{name}/{filter}"))
                .collect();
            plan.add(
                "subscriber",
                version,
                presence,
                Role::Subscriber { filters, qos },
            );
        }
        if with_queues {
            // s/d is also fed by what is published to that topic.
            plan.queues = [
                "one", "two", "later", "s/d", "priority", "groups", "delayed", "rejects",
            ]
            .map(|queue| format!("{name}/{queue}"))
            .to_vec();
            plan.queues.push(format!("$dead/{name}/rejects"));
        }
        for (queue, version, qos, presence) in [
            (0, V311, 1, Online),
            (0, V5, 1, Online),
            (0, V5, 1, Unsteady),
            (1, V311, 2, Online),
            (1, V5, 2, Online),
            (1, V5, 2, Unsteady),
            (2, V5, 2, Absent),
            (2, V311, 2, Absent),
            (3, V311, 1, Online),
            // At one QoS: what a worker of QoS 1 loses comes again at QoS 2.
            (4, V5, 2, Online),
            (4, V311, 2, Unsteady),
            (GROUPS, V311, 1, Online),
            (GROUPS, V5, 1, Online),
            (GROUPS, V5, 1, Unsteady),
            (DELAYED, V311, 1, Online),
            (DELAYED, V5, 1, Online),
            (REJECTS, V311, 1, Online),
            (REJECTS, V5, 1, Unsteady),
            (DEAD, V311, 2, Online),
            (DEAD, V5, 2, Online),
        ] {
            if with_queues {
                plan.add("worker", version, presence, Role::Worker { queue, qos });
            }
        }
        plan.add("changer", V311, Online, Role::Changer { qos: 1 });
        plan.add("changer", V5, Online, Role::Changer { qos: 2 });
        plan.add("watcher", V5, Absent, Role::Watcher);
        plan
    }

    fn add(&mut self, kind: &str, version: Version, presence: Presence, role: Role) {
        let name = format!("{kind}-{}", self.clients.len());
        self.clients.push(ClientPlan {
            name,
            version,
            role,
            presence,
        });
    }

    pub fn client_named(&self, name: &str) -> Option<ClientNumber> {
        self.clients.iter().position(|client| client.name == name)
    }

    /// What the client subscribes to before the load, and at which QoS.
    pub fn filters(&self, client: ClientNumber) -> (Vec<String>, u8) {
        match &self.clients[client].role {
            Role::Subscriber { filters, qos } => (filters.clone(), *qos),
            Role::Worker { queue, qos } => (vec![format!("$queue/{}", self.queues[*queue])], *qos),
            Role::Changer { qos } => (Vec::new(), *qos),
            Role::Publisher { .. } | Role::Watcher => (Vec::new(), 1),
        }
    }

    /// Who must get what is published to this topic, changers aside: what they
    /// get depends on what they subscribed to by then.
    pub fn receivers(&self, topic: &str) -> Vec<Receiver> {
        let of_queue = topic.strip_prefix("$queue/").map(|rest| {
            let asked = rest.strip_prefix("$with/");
            asked
                .and_then(|rest| rest.split_once('/'))
                .map_or(rest, |(_, queue)| queue)
        });
        let sessions = self
            .clients
            .iter()
            .enumerate()
            .filter_map(|(number, client)| {
                let Role::Subscriber { filters, .. } = &client.role else {
                    return None;
                };
                let wants = filters.iter().any(|filter| matches(filter, topic));
                wants.then_some(Receiver::Session(number))
            });
        let queues = (0..self.queues.len())
            .filter(|&queue| self.queues[queue] == of_queue.unwrap_or(topic))
            .map(|queue| match self.is_bad(topic) {
                true => Receiver::Queue(DEAD),
                false => Receiver::Queue(queue),
            });
        sessions.chain(queues).collect()
    }

    /// Whether the jobs published to this topic are to be rejected.
    pub fn is_bad(&self, topic: &str) -> bool {
        topic.starts_with(BAD) && topic.ends_with("/rejects")
    }

    /// The group of the jobs published to this topic.
    pub fn group(topic: &str) -> Option<&str> {
        let rest = topic.strip_prefix("$queue/$with/group=")?;
        rest.split('/').next()
    }

    /// Where a publisher sends its next message: the topic, and whether it is
    /// to be retained.
    pub fn draw_topic(&self, publisher: ClientNumber, random: &mut Random) -> (String, bool) {
        let name = &self.name;
        match random.below(100) {
            0..35 if self.with_queues => {
                let topic = match random.below(12) {
                    0 | 1 => format!("$queue/{name}/one"),
                    2 | 3 => format!("$queue/{name}/two"),
                    4 | 5 => format!("$queue/{name}/later"),
                    6 => {
                        let priority = random.below(10);
                        format!("$queue/$with/priority={priority}/{name}/priority")
                    }
                    7 | 8 => {
                        let group = random.below(16);
                        format!("$queue/$with/group={group}/{name}/groups")
                    }
                    9 => format!("$queue/$with/delay={DELAY_SECS}/{name}/delayed"),
                    10 => format!("$queue/{name}/rejects"),
                    _ => format!("{BAD}{name}/rejects"),
                };
                (topic, false)
            }
            85.. => {
                let topic = random.below(TOPICS_EACH);
                (format!("{}{topic}", self.retained_prefix(publisher)), true)
            }
            _ => {
                let topic = ["a", "b", "c", "d"][random.below(4)];
                (format!("{name}/s/{topic}"), false)
            }
        }
    }

    /// All topics that a publisher may retain a message on.
    pub fn retained_topics(&self) -> Vec<String> {
        (self.clients.iter().enumerate())
            .filter(|(_, client)| matches!(client.role, Role::Publisher { .. }))
            .flat_map(|(publisher, _)| {
                (0..TOPICS_EACH).map(move |n| format!("{}{n}", self.retained_prefix(publisher)))
            })
            .collect()
    }

    pub fn retained_filter(&self) -> String {
        format!("{}/r/#", self.name)
    }

    fn retained_prefix(&self, publisher: ClientNumber) -> String {
        format!("{}/r/{publisher}/", self.name)
    }

    /// The topics that a changer subscribes to and unsubscribes from.
    pub fn changing_topics(&self, changer: ClientNumber) -> Vec<String> {
        (0..TOPICS_EACH)
            .map(|n| format!("{}/c/{changer}/{n}", self.name))
            .collect()
    }

    /// The changer whose topic this is.
    pub fn changer_of(&self, topic: &str) -> Option<ClientNumber> {
        let rest = topic.strip_prefix(&self.name)?.strip_prefix("/c/")?;
        rest.split('/').next()?.parse().ok()
    }

    /// The payload of a message, so many bytes long or a little longer: it says
    /// which message it is, and the rest follows from that.
    pub fn payload(&self, key: MessageKey, topic: &str, bytes: usize) -> Vec<u8> {
        let MessageKey { publisher, number } = key;
        let mut payload =
            format!("{} {publisher} {number} {bytes} {topic} ", self.name).into_bytes();
        let mut filler = b'a' + (number % 26) as u8;
        while payload.len() < bytes {
            payload.push(filler);
            filler = if filler == b'z' { b'a' } else { filler + 1 };
        }
        payload
    }

    /// The message that this is the payload of.
    ///
    /// # Errors
    /// If it is none of this load's, or was changed on its way.
    pub fn message_of(&self, payload: &[u8]) -> Result<MessageKey, String> {
        let text = String::from_utf8_lossy(payload);
        let mut words = text.splitn(6, ' ');
        let key = (|| {
            let name = words.next()?;
            let publisher = words.next()?.parse().ok()?;
            let number = words.next()?.parse().ok()?;
            let bytes = words.next()?.parse().ok()?;
            let key = MessageKey { publisher, number };
            let whole = self.payload(key, words.next()?, bytes);
            (name == self.name && whole == payload).then_some(key)
        })();
        key.ok_or_else(|| {
            let start: String = text.chars().take(80).collect();
            format!("a payload that nobody published: {start:?}")
        })
    }
}

/// How many bytes the next message has: most are small, some take several
/// pages.
pub fn draw_bytes(random: &mut Random) -> usize {
    match random.below(1000) {
        0 => 100_000,
        1..10 => 4096 + random.below(20_000),
        _ => 60 + random.below(300),
    }
}

/// Of the filters that a plan has: `#` and `+` stand at the end.
fn matches(filter: &str, topic: &str) -> bool {
    if let Some(prefix) = filter.strip_suffix('#') {
        topic.starts_with(prefix)
    } else if let Some(prefix) = filter.strip_suffix('+') {
        topic
            .strip_prefix(prefix)
            .is_some_and(|rest| !rest.contains('/'))
    } else {
        filter == topic
    }
}
