//! What the broker promised and whether it kept it, from the ledger's entries
//! alone: each is looked at in its order, together with its client's session
//! as it was before.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::rc::Rc;

use crate::ledger::{Entry, Event};
use crate::plan::{
    ClientNumber, DELAY_SECS, DELAYED, GROUPS, MessageKey, Plan, REJECTS, Receiver, Role,
};
use crate::session::Session;
use crate::wire::PacketId;

pub struct Verdict {
    plan: Rc<Plan>,
    messages: HashMap<MessageKey, Message>,
    topics: HashMap<String, Rc<Topic>>,
    /// What was acknowledged to its publisher and must still come.
    due: HashMap<Receiver, HashSet<MessageKey>>,
    /// What came to a session, or was settled by a worker.
    settled: HashSet<(Receiver, MessageKey)>,
    /// How often each came. At QoS 2 repetitions under one packet id count once.
    arrivals: HashMap<(Receiver, MessageKey), u32>,
    /// Of a publisher and the topic that it published jobs of a group to: what no
    /// worker has settled.
    unsettled: HashMap<(ClientNumber, String), BTreeSet<u64>>,
    /// The latest number that each subscriber saw of a publisher on a topic.
    latest: HashMap<(ClientNumber, ClientNumber, String), u64>,
    /// What each retained topic may hold: the latest set or clear that was
    /// acknowledged, if there is one, and all later ones.
    retained: HashMap<String, Vec<Retention>>,
    standings: HashMap<String, Standing>,
    acknowledged: u64,
    faults: Vec<Fault>,
}

/// Something that may not be.
#[derive(Clone, Debug)]
pub struct Fault {
    pub kind: Kind,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Lost,
    /// A QoS 2 message came twice.
    Duplicate,
    OutOfOrder,
    Other,
}

struct Message {
    topic: Rc<Topic>,
    qos: u8,
    /// When it was first published.
    published: u64,
    /// How often it was published: more than once after a lost connection.
    sends: u32,
    bytes: usize,
    acknowledged: Option<u64>,
    refused: bool,
    /// For a changer's topic: how its subscription stood.
    standing: Standing,
}

struct Topic {
    name: String,
    receivers: Vec<Receiver>,
    changer: Option<ClientNumber>,
}

/// Whether a changer's subscription is there.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Standing {
    #[default]
    Absent,
    Changing,
    Present,
}

struct Retention {
    message: MessageKey,
    clears: bool,
    acknowledged: bool,
}

impl Verdict {
    fn new(plan: Rc<Plan>) -> Verdict {
        Verdict {
            plan,
            messages: HashMap::new(),
            topics: HashMap::new(),
            due: HashMap::new(),
            settled: HashSet::new(),
            arrivals: HashMap::new(),
            unsettled: HashMap::new(),
            latest: HashMap::new(),
            retained: HashMap::new(),
            standings: HashMap::new(),
            acknowledged: 0,
            faults: Vec::new(),
        }
    }

    /// What follows from all these entries, and how the sessions stand after
    /// them.
    pub fn of(plan: &Rc<Plan>, entries: &[Entry]) -> (Verdict, Vec<Session>) {
        let mut verdict = Verdict::new(Rc::clone(plan));
        let mut sessions: Vec<Session> = Vec::new();
        sessions.resize_with(plan.clients.len(), Session::default);
        for entry in entries {
            verdict.consider(entry, &sessions[entry.client]);
            sessions[entry.client].apply(&entry.event);
        }
        (verdict, sessions)
    }

    /// Messages that were acknowledged to their publishers.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Where a message was published to.
    pub fn topic_of(&self, key: MessageKey) -> Option<&str> {
        self.messages.get(&key).map(|message| &*message.topic.name)
    }

    /// Deliveries that must still come.
    pub fn outstanding(&self) -> usize {
        self.due.values().map(HashSet::len).sum()
    }

    /// Looks at the next entry. `before`: the client's session without it.
    pub fn consider(&mut self, entry: &Entry, before: &Session) {
        let client = entry.client;
        match &entry.event {
            // The watcher asks for a new session each time.
            Event::ConnAck { .. } if matches!(self.plan.clients[client].role, Role::Watcher) => {}
            Event::ConnAck { present: false } if before.established => {
                self.fault(Kind::Lost, client, "its session is gone".into());
            }
            Event::ConnAck { present: true } if before.attempts == 1 => {
                self.fault(
                    Kind::Other,
                    client,
                    "it found a session before it had one".into(),
                );
            }
            Event::Publish {
                number,
                bytes,
                retain,
                topic,
                ..
            } => {
                let message = MessageKey {
                    publisher: client,
                    number: *number,
                };
                self.publish(message, (*bytes, *retain), topic, entry.micros);
            }
            Event::Again { id } => {
                if let Some(message) = message_under(before, client, *id) {
                    self.message(message).sends += 1;
                }
            }
            Event::PubComp { id } => {
                if let Some(message) = message_under(before, client, *id) {
                    self.retain(message);
                }
            }
            Event::PubAck { id, code } | Event::PubRec { id, code } => {
                let known = before.outgoing_of(*id).filter(|out| !out.received);
                if known.is_some()
                    && let Some(message) = message_under(before, client, *id)
                {
                    if *code < 0x80 {
                        self.acknowledge(message, entry.micros);
                    } else {
                        self.message(message).refused = true;
                        let what =
                            format!("its message {} was refused: {code:#04x}", message.number);
                        self.fault(Kind::Other, client, what);
                    }
                }
            }
            Event::Got { qos, message, .. } => self.arrive(client, *qos, *message, entry.micros),
            Event::Done { message, .. } => {
                if let Role::Worker { queue, .. } = self.plan.clients[client].role {
                    self.settle(Receiver::Queue(queue), *message);
                    self.settle_in_group(*message);
                }
            }
            Event::Subscribe { filter, .. } => self.stand(filter, Standing::Changing),
            Event::Unsubscribe { filter, .. } => {
                self.stand(filter, Standing::Changing);
                // What waits for it may be dropped from now on.
                if let Some(due) = self.due.get_mut(&Receiver::Session(client)) {
                    due.retain(|message| self.messages[message].topic.name != *filter);
                }
            }
            Event::SubAck { code, .. } => {
                if let Some(change) = &before.change {
                    self.stand(&change.filter, Standing::Present);
                    if *code >= 0x80 {
                        let what = format!("{} was refused: {code:#04x}", change.filter);
                        self.fault(Kind::Other, client, what);
                    }
                }
            }
            Event::UnsubAck { code, .. } => {
                if let Some(change) = &before.change {
                    self.stand(&change.filter, Standing::Absent);
                    // 0x11: No subscription existed.
                    if *code == 0x11 && !change.repeated {
                        let what = format!("its subscription to {} is gone", change.filter);
                        self.fault(Kind::Lost, client, what);
                    }
                }
            }
            Event::Retained { topic, message } => self.look_at_retained(topic, *message),
            Event::Wrong { what } => self.fault(Kind::Other, client, what.clone()),
            _ => {}
        }
    }

    /// All that was found, with what is lost if nothing more comes.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = self.faults.clone();
        let mut due: Vec<(Receiver, MessageKey)> = (self.due.iter())
            .flat_map(|(&receiver, messages)| {
                messages.iter().map(move |&message| (receiver, message))
            })
            .collect();
        due.sort();
        for (receiver, message) in due {
            let known = &self.messages[&message];
            let seen = self.arrivals.contains_key(&(receiver, message));
            let text = format!(
                "{} {} {}, acknowledged at {}",
                self.name(receiver),
                if seen { "never settled" } else { "never got" },
                self.tell(message),
                known.acknowledged.unwrap_or_default(),
            );
            faults.push(Fault {
                kind: Kind::Lost,
                text,
            });
        }
        let mut pending: Vec<_> = (self.messages.iter())
            .filter(|(_, message)| message.acknowledged.is_none() && !message.refused)
            .map(|(&key, _)| key)
            .collect();
        pending.sort();
        for message in pending {
            let text = format!("{} was never acknowledged", self.tell(message));
            faults.push(Fault {
                kind: Kind::Other,
                text,
            });
        }
        faults
    }

    fn publish(
        &mut self,
        key: MessageKey,
        (bytes, retain): (usize, bool),
        topic: &str,
        micros: u64,
    ) {
        if Plan::group(topic).is_some() {
            let place = (key.publisher, topic.to_owned());
            self.unsettled.entry(place).or_default().insert(key.number);
        }
        let topic = self.topic(topic);
        let (Role::Publisher { qos } | Role::Changer { qos }) =
            self.plan.clients[key.publisher].role
        else {
            return self.fault(Kind::Other, key.publisher, "it published".into());
        };
        if retain {
            let history = self.retained.entry(topic.name.clone()).or_default();
            history.push(Retention {
                message: key,
                clears: bytes == 0,
                acknowledged: false,
            });
        }
        let standing = self.standings.get(&topic.name).copied().unwrap_or_default();
        let message = Message {
            topic,
            qos,
            published: micros,
            sends: 1,
            bytes,
            acknowledged: None,
            refused: false,
            standing,
        };
        self.messages.insert(key, message);
    }

    fn acknowledge(&mut self, key: MessageKey, micros: u64) {
        self.acknowledged += 1;
        let message = self.message(key);
        message.acknowledged = Some(micros);
        let topic = Rc::clone(&message.topic);
        let must_change = message.standing == Standing::Present;
        let qos = message.qos;
        if qos == 1 {
            self.retain(key);
        }
        // A clear carries nothing by which it could be told from another.
        if self.message(key).bytes == 0 {
            return;
        }
        let changer = topic.changer.filter(|_| must_change).map(Receiver::Session);
        for &receiver in topic.receivers.iter().chain(&changer) {
            if !self.settled.contains(&(receiver, key)) {
                self.due.entry(receiver).or_default().insert(key);
            }
        }
    }

    /// A set or clear of what is retained holds. At QoS 2 that may be as late as
    /// PUBREL: the specification lets a broker hand on a message then.
    fn retain(&mut self, key: MessageKey) {
        let topic = Rc::clone(&self.message(key).topic);
        if let Some(history) = self.retained.get_mut(&topic.name)
            && let Some(at) = history.iter().position(|op| op.message == key)
        {
            history.drain(..at);
            history[0].acknowledged = true;
        }
    }

    fn arrive(&mut self, client: ClientNumber, qos: u8, key: MessageKey, micros: u64) {
        let Some(message) = self.messages.get(&key) else {
            let what = format!("it got {key} before that was published");
            return self.fault(Kind::Other, client, what);
        };
        let topic = Rc::clone(&message.topic);
        let since = micros.saturating_sub(message.published);
        let (receiver, granted) = match self.plan.clients[client].role {
            Role::Worker { queue, qos } => (Receiver::Queue(queue), qos),
            Role::Subscriber { qos, .. } | Role::Changer { qos } => {
                (Receiver::Session(client), qos.min(message.qos))
            }
            Role::Publisher { .. } | Role::Watcher => (Receiver::Session(client), 0),
        };
        let wanted = topic.receivers.contains(&receiver)
            || (topic.changer == Some(client) && message.standing != Standing::Absent)
            // Its dead letter is what is due; on its way there it is here.
            || (receiver == Receiver::Queue(REJECTS) && self.plan.is_bad(&topic.name));
        // At QoS 2 once, or once for each time that a QoS 1 publisher sent it.
        let times_max = match (qos, message.qos) {
            (2, 2) => 1,
            (2, _) => message.sends,
            _ => u32::MAX,
        };
        if !wanted {
            let what = format!("it got {}, to which it is not subscribed", self.tell(key));
            self.fault(Kind::Other, client, what);
        }
        if qos != granted {
            let what = format!("it got {} at QoS {qos}, not {granted}", self.tell(key));
            self.fault(Kind::Other, client, what);
        }
        let times = self.arrivals.entry((receiver, key)).or_default();
        *times += 1;
        let times = *times;
        if times > times_max {
            let what = format!("it got {} as number {times} at QoS 2", self.tell(key));
            self.fault(Kind::Duplicate, client, what);
        }
        if receiver == Receiver::Queue(DELAYED) && since < DELAY_SECS * 1_000_000 {
            let what = format!("it got {} after {since} µs", self.tell(key));
            self.fault(Kind::Other, client, what);
        }
        if receiver == Receiver::Queue(GROUPS) {
            self.follow_in_group(client, key, &topic.name);
        }
        if matches!(receiver, Receiver::Session(_)) {
            self.settle(receiver, key);
            if times == 1 {
                self.follow(client, key, &topic.name);
            }
        }
    }

    /// First sightings of a topic are in the order in which its publisher
    /// published [MQTT-4.6.0-6].
    fn follow(&mut self, client: ClientNumber, key: MessageKey, topic: &str) {
        let place = (client, key.publisher, topic.to_owned());
        let latest = self.latest.get(&place).copied();
        if let Some(latest) = latest.filter(|&latest| latest > key.number) {
            let what = format!("it got {} after number {latest}", self.tell(key));
            return self.fault(Kind::OutOfOrder, client, what);
        }
        self.latest.insert(place, key.number);
    }

    /// A job of a group comes when those that its publisher put into the group
    /// before it are settled.
    fn follow_in_group(&mut self, client: ClientNumber, key: MessageKey, topic: &str) {
        let unsettled = self.unsettled.get(&(key.publisher, topic.to_owned()));
        let first = unsettled.and_then(BTreeSet::first).copied();
        if let Some(first) = first.filter(|&first| first < key.number) {
            let what = format!(
                "it got {} before number {first} was settled",
                self.tell(key)
            );
            self.fault(Kind::OutOfOrder, client, what);
        }
    }

    fn settle_in_group(&mut self, key: MessageKey) {
        if let Some(message) = self.messages.get(&key) {
            let place = (key.publisher, message.topic.name.clone());
            if let Some(unsettled) = self.unsettled.get_mut(&place) {
                unsettled.remove(&key.number);
            }
        }
    }

    fn settle(&mut self, receiver: Receiver, key: MessageKey) {
        self.settled.insert((receiver, key));
        if let Some(due) = self.due.get_mut(&receiver) {
            due.remove(&key);
        }
    }

    /// A new subscriber got this for the topic.
    fn look_at_retained(&mut self, topic: &str, found: Option<MessageKey>) {
        let history = self.retained.get(topic).map_or(&[][..], Vec::as_slice);
        let value = |op: &Retention| (!op.clears).then_some(op.message);
        let from_before = !history.first().is_some_and(|op| op.acknowledged);
        let may_be =
            history.iter().any(|op| value(op) == found) || (from_before && found.is_none());
        if may_be {
            return;
        }
        let tell = |message: Option<MessageKey>| {
            message.map_or("nothing".into(), |message| self.tell(message))
        };
        let text = format!(
            "a new subscriber to {topic} got {}, not {}",
            tell(found),
            history
                .first()
                .map_or("nothing".into(), |op| tell(value(op))),
        );
        self.faults.push(Fault {
            kind: Kind::Lost,
            text,
        });
    }

    fn stand(&mut self, filter: &str, standing: Standing) {
        self.standings.insert(filter.to_owned(), standing);
    }

    fn topic(&mut self, name: &str) -> Rc<Topic> {
        if let Some(topic) = self.topics.get(name) {
            return Rc::clone(topic);
        }
        let topic = Rc::new(Topic {
            name: name.to_owned(),
            receivers: self.plan.receivers(name),
            changer: self.plan.changer_of(name),
        });
        self.topics.insert(name.to_owned(), Rc::clone(&topic));
        topic
    }

    fn message(&mut self, key: MessageKey) -> &mut Message {
        self.messages
            .get_mut(&key)
            .expect("what a session has outgoing was published")
    }

    fn fault(&mut self, kind: Kind, client: ClientNumber, what: String) {
        let text = format!("{}: {what}", self.plan.clients[client].name);
        self.faults.push(Fault { kind, text });
    }

    fn name(&self, receiver: Receiver) -> String {
        match receiver {
            Receiver::Session(client) => self.plan.clients[client].name.clone(),
            Receiver::Queue(queue) => format!("the workers of $queue/{}", self.plan.queues[queue]),
        }
    }

    fn tell(&self, key: MessageKey) -> String {
        let publisher =
            (self.plan.clients.get(key.publisher)).map_or("nobody", |client| &client.name);
        match self.messages.get(&key) {
            Some(message) => format!(
                "message {} of {publisher} (QoS {}, {})",
                key.number, message.qos, message.topic.name
            ),
            None => format!(
                "message {} of {publisher}, which was never published",
                key.number
            ),
        }
    }
}

fn message_under(session: &Session, publisher: ClientNumber, id: PacketId) -> Option<MessageKey> {
    let number = session.outgoing_of(id)?.number;
    Some(MessageKey { publisher, number })
}

/// The faults of a ledger, or of many.
#[derive(Clone, Copy, Default)]
pub struct Count {
    acknowledged: u64,
    lost: usize,
    duplicates: usize,
    out_of_order: usize,
    /// What is none of these.
    other: usize,
}

impl Count {
    pub fn of(acknowledged: u64, faults: &[Fault]) -> Count {
        let of = |kind| faults.iter().filter(|fault| fault.kind == kind).count();
        Count {
            acknowledged,
            lost: of(Kind::Lost),
            duplicates: of(Kind::Duplicate),
            out_of_order: of(Kind::OutOfOrder),
            other: of(Kind::Other),
        }
    }

    /// One more fault, of no kind.
    pub fn and_other(self, faults: usize) -> Count {
        Count {
            other: self.other + faults,
            ..self
        }
    }

    pub fn and(self, other: Count) -> Count {
        Count {
            acknowledged: self.acknowledged + other.acknowledged,
            lost: self.lost + other.lost,
            duplicates: self.duplicates + other.duplicates,
            out_of_order: self.out_of_order + other.out_of_order,
            other: self.other + other.other,
        }
    }

    pub fn is_clean(&self) -> bool {
        self.lost + self.duplicates + self.out_of_order + self.other == 0
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} acknowledged messages: {} lost, {} duplicates at QoS 2, {} out of order",
            with_commas(self.acknowledged),
            self.lost,
            self.duplicates,
            self.out_of_order
        )?;
        if self.other > 0 {
            write!(f, ", {} other faults", self.other)?;
        }
        Ok(())
    }
}

/// 1234567 as 1,234,567.
fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
