//! The broker as the specification tells it: lists, looked through from the
//! front.
//!
//! Owns what a broker has to remember, and says of each packet whether it may
//! come, and at the end of each step whether one is missing. It does not
//! choose where the specification leaves a choice: which member of a share
//! group gets a message, and which packet id a delivery has, it learns from
//! what comes. Shares no code with the broker.

use std::time::Duration;

/// Groups and queues that may take the same message.
const GROUPS_MAX: usize = 2;
/// Lost so often, a job goes to empty hands alone.
const LOSSES_ALONE: u32 = 2;
/// The longest rest of a busy member is this power of two, in seconds.
const RESTS_MAX: u32 = 6;
/// How late a member may be that rests no more.
const LATE: Duration = Duration::from_millis(100);

/// A filter that nobody is granted: the group has none.
pub const REFUSED: &str = "$share/alone";

/// The user properties that a work queue adds.
const JOB_PROPERTIES: [&str; 5] = ["queue", "delivery", "enqueued-at", "message-id", "topic"];

/// What of a PUBLISH is passed on as it is.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Content {
    pub topic: String,
    pub payload: String,
    pub utf8: Option<bool>,
    pub content_type: Option<String>,
    pub response_topic: Option<String>,
    pub correlation: Option<Vec<u8>>,
    pub user: Vec<(String, String)>,
}

impl Content {
    /// What is left of it for, or by, a client before MQTT 5.
    pub fn without_properties(&self) -> Content {
        Content {
            topic: self.topic.clone(),
            payload: self.payload.clone(),
            ..Content::default()
        }
    }
}

/// A message as it was published.
#[derive(Clone, Debug)]
pub struct Message {
    pub content: Content,
    pub qos: u8,
    pub retain: bool,
    pub expiry_secs: Option<u32>,
    pub publisher: usize,
    pub published: Duration,
}

impl Message {
    fn has_expired(&self, now: Duration) -> bool {
        (self.expiry_secs).is_some_and(|secs| now > self.published + seconds(secs))
    }

    fn is_job(&self) -> bool {
        self.content.topic.starts_with("$queue/")
    }

    fn is_large(&self) -> bool {
        self.content.payload.len() > super::LARGE_BYTES / 2
    }
}

/// A PUBLISH that a client got, its topic alias resolved.
#[derive(Clone, Debug, Default)]
pub struct Publication {
    pub content: Content,
    pub qos: u8,
    /// 0: none.
    pub id: u16,
    pub dup: bool,
    pub retain: bool,
    pub expiry_secs: Option<u32>,
    /// In no order.
    pub subscription_ids: Vec<u32>,
}

/// What else a client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Session Present, and the Session Expiry Interval if it is not that
    /// which was asked for.
    Connack(bool, Option<u32>),
    Puback(u16, u8),
    Pubrec(u16, u8),
    Pubrel(u16, u8),
    Pubcomp(u16, u8),
    Suback(u16, Vec<u8>),
    Unsuback(u16, Vec<u8>),
    /// The broker closes the connection, for this reason.
    Closed(u8),
}

/// What one subscription asks for.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub filter: String,
    pub qos: u8,
    pub no_local: bool,
    pub retain_as_published: bool,
    /// 0: send retained messages, 1: if it is new, 2: do not.
    pub retain_handling: u8,
    pub id: Option<u32>,
}

/// A will, and how long it waits.
#[derive(Clone, Debug)]
pub struct Will {
    pub content: Content,
    pub qos: u8,
    pub retain: bool,
    pub expiry_secs: Option<u32>,
    pub delay_secs: u32,
}

/// What a CONNECT says.
#[derive(Clone, Debug)]
pub struct Connecting {
    pub v5: bool,
    pub clean: bool,
    /// MQTT 5.
    pub expiry_secs: u32,
    pub receive_max: Option<u16>,
    pub packet_bytes_max: Option<u32>,
    pub alias_max: u16,
    pub keep_alive_secs: u16,
    pub problem_information: bool,
    pub will: Option<Will>,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// DISCONNECT 0x00.
    Normal,
    /// DISCONNECT 0x04.
    WithWill,
    Lost,
    TakenOver {
        clean: bool,
    },
}

/// The broker.
pub struct Reference {
    pub now: Duration,
    /// Most unacknowledged deliveries a client.
    inflight_max: usize,
    /// The longest that a session of MQTT 5 lasts without its client.
    expiry_secs_max: u32,
    /// So many failures of a job make it a dead letter; until then it comes
    /// back at once.
    deliveries_max: u32,
    /// Whether deliveries for groups and queues are sent again apart from the
    /// session's own: both in their order, but which comes first is open.
    is_stored: bool,
    pub dead_letters: u64,
    pub sessions: Vec<Session>,
    retained: Vec<Message>,
    groups: Vec<Group>,
    groups_made: usize,
    connections_ended: usize,
    /// By connection, in order; one of several is enough.
    pub expected: Vec<(usize, Vec<Answer>)>,
}

pub struct Session {
    pub client: usize,
    pub connection: Option<Connection>,
    expiry_secs: u32,
    /// While absent: how many connections had ended before its own.
    left: usize,
    /// While absent: when it ends, if ever.
    ends: Option<Duration>,
    will: Option<Will>,
    /// While absent: when the will is due.
    will_due: Option<Duration>,
    pub subscriptions: Vec<Subscription>,
    /// Retained messages to be sent for new subscriptions.
    backlogs: Vec<Backlog>,
    /// Of messages of QoS 0 only what is to come before the step ends.
    waiting: Vec<Delivery>,
    /// In the order in which they were sent.
    pub sent: Vec<Sent>,
    /// Ids of QoS 2 that wait for PUBCOMP, in the order of their PUBRECs.
    pub releasing: Vec<u16>,
    /// Ids of QoS 2 that the client has not released.
    received: Vec<u16>,
}

#[derive(Clone)]
pub struct Connection {
    pub number: usize,
    pub v5: bool,
    receive_max: usize,
    packet_bytes_max: Option<u32>,
    pub aliases: Vec<(u16, String)>,
    silence_max: Option<Duration>,
    heard: Duration,
}

/// A message for one session.
#[derive(Clone, Debug)]
struct Delivery {
    message: Message,
    qos: u8,
    /// `None`: its subscriptions do not agree.
    retain: Option<bool>,
    subscription_ids: Vec<u32>,
    /// It may have been sent to a connection that was lost before it read it.
    perhaps_sent: bool,
    /// It was too large for the client when it may have had its turn.
    perhaps_gone: bool,
}

/// A delivery that waits for its PUBACK or PUBREC.
pub struct Sent {
    pub id: u16,
    delivery: Delivery,
    /// On the connection that there is now.
    pub seen: bool,
    /// Whether it showed for which subscription it is: retained messages of
    /// several are alike before MQTT 5.
    showed_ids: bool,
    group: Option<usize>,
    past: Past,
}

/// What a job has been through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Past {
    failures: u32,
    losses: u32,
}

impl Past {
    fn is_alone(&self) -> bool {
        self.losses >= LOSSES_ALONE
    }
}

/// What a member says of a job, or what becomes of it without a word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    Failed,
    Busy,
    Rejected,
    /// With a connection that was lost.
    Lost,
    /// Back as if it never had been out.
    Back,
}

impl Sent {
    pub fn qos(&self) -> u8 {
        self.delivery.qos
    }

    pub fn is_job(&self) -> bool {
        self.delivery.message.is_job()
    }
}

/// The topics whose retained messages one new subscription has yet to get.
/// Those of several may be alike: there is one list for each SUBSCRIBE, and
/// what is in none may not come.
struct Backlog {
    subscription: Subscription,
    due: Vec<String>,
    /// Changed since, so that live copies have told of it; or not subscribed
    /// to any more.
    perhaps: Vec<String>,
}

/// A share group, or a work queue.
struct Group {
    number: usize,
    /// `$share/GROUP/FILTER` or `$queue/NAME`
    name: String,
    filter: String,
    members: Vec<usize>,
    /// Somebody joined in this step: SUBACK comes before messages, and those
    /// of QoS 0 do not wait.
    fresh: bool,
    waiting: Vec<Waiting>,
    rests: Vec<Rest>,
}

struct Waiting {
    message: Message,
    perhaps_lost: bool,
    past: Past,
}

/// Of a member that was busy since it last did a job.
struct Rest {
    client: usize,
    count: u32,
    since: Duration,
    until: Duration,
    is_over: bool,
}

impl Reference {
    pub fn new(
        inflight_max: usize,
        expiry_secs_max: u32,
        deliveries_max: u32,
        is_stored: bool,
        now: Duration,
    ) -> Reference {
        Reference {
            now,
            inflight_max,
            expiry_secs_max,
            deliveries_max,
            is_stored,
            dead_letters: 0,
            sessions: Vec::new(),
            retained: Vec::new(),
            groups: Vec::new(),
            groups_made: 0,
            connections_ended: 0,
            expected: Vec::new(),
        }
    }

    pub fn session(&mut self, client: usize) -> Option<&mut Session> {
        (self.sessions.iter_mut()).find(|session| session.client == client)
    }

    /// The session of a client that is there.
    fn online(&mut self, client: usize) -> &mut Session {
        let session = self.session(client).expect("a connected client has one");
        assert!(session.connection.is_some());
        session
    }

    /// The client's connection, if it has one.
    pub fn connection(&mut self, client: usize) -> Option<&mut Connection> {
        self.session(client)?.connection.as_mut()
    }

    fn is_v5(&mut self, client: usize) -> bool {
        self.connection(client)
            .is_some_and(|connection| connection.v5)
    }

    fn expect(&mut self, client: usize, answer: Answer) {
        self.expect_one_of(client, vec![answer]);
    }

    fn expect_one_of(&mut self, client: usize, answers: Vec<Answer>) {
        let number = self.connection(client).expect("connected").number;
        self.expected.push((number, answers));
    }

    // ---- connections

    pub fn connect(&mut self, client: usize, number: usize, connect: &Connecting) {
        if self.connection(client).is_some() {
            self.expect(client, Answer::Closed(0x8E)); // [MQTT-3.1.4-3]
            let clean = connect.clean;
            self.disconnect(client, Ending::TakenOver { clean });
        }
        if connect.clean && self.session(client).is_some() {
            self.end_session(client); // [MQTT-3.1.2-4]
        }
        let present = self.session(client).is_some();
        if !present {
            self.sessions.push(Session {
                client,
                connection: None,
                expiry_secs: 0,
                left: 0,
                ends: None,
                will: None,
                will_due: None,
                subscriptions: Vec::new(),
                backlogs: Vec::new(),
                waiting: Vec::new(),
                sent: Vec::new(),
                releasing: Vec::new(),
                received: Vec::new(),
            });
        }
        // What came at QoS 0 before it did does not wait for it.
        for waiting in self.groups.iter_mut().flat_map(|group| &mut group.waiting) {
            waiting.perhaps_lost |= waiting.message.qos == 0 && !waiting.message.is_job();
        }
        let (now, inflight_max) = (self.now, self.inflight_max);
        let expiry_secs_max = self.expiry_secs_max;
        let session = self.session(client).expect("made above");
        session.ends = None;
        session.will_due = None; // [MQTT-3.1.3-9]
        session.will = connect.will.clone();
        session.expiry_secs = match connect.v5 {
            true => connect.expiry_secs.min(expiry_secs_max),
            false if connect.clean => 0, // 3.1.1 [MQTT-3.1.2-6]
            false => u32::MAX,
        };
        if session.expiry_secs == 0 {
            let jobs = session.subscriptions.iter_mut();
            jobs.filter(|subscription| subscription.filter.starts_with("$queue/"))
                .for_each(|subscription| subscription.qos = subscription.qos.min(1));
        }
        let receive_max = connect.receive_max.map_or(usize::MAX, usize::from);
        let keep_alive = seconds(connect.keep_alive_secs.into());
        session.connection = Some(Connection {
            number,
            v5: connect.v5,
            receive_max: receive_max.min(inflight_max),
            packet_bytes_max: connect.packet_bytes_max,
            aliases: Vec::new(),
            silence_max: (!keep_alive.is_zero()).then_some(keep_alive * 3 / 2),
            heard: now,
        });
        let connection = session.connection.as_ref().expect("set above");
        for sent in &mut session.sent {
            sent.seen = false;
            sent.delivery.perhaps_gone |= !connection.takes(&sent.delivery.message);
        }
        let releasing = session.releasing.clone();
        let capped = connect.v5 && connect.expiry_secs > expiry_secs_max;
        let said = capped.then_some(expiry_secs_max); // 3.2.2.3.2
        self.expect(client, Answer::Connack(present, said)); // [MQTT-3.2.2-2], [MQTT-3.2.2-3]
        for id in releasing {
            self.expect(client, Answer::Pubrel(id, 0)); // [MQTT-4.4.0-1]
        }
    }

    /// The connection ends without the broker having anything to say.
    pub fn disconnect(&mut self, client: usize, ending: Ending) {
        let now = self.now;
        self.connections_ended += 1;
        let left = self.connections_ended;
        let session = self.online(client);
        let connection = session.connection.take().expect("connected");
        for delivery in &mut session.waiting {
            delivery.perhaps_gone |= !connection.takes(&delivery.message);
        }
        session.left = left;
        session.waiting.retain(|delivery| delivery.qos > 0);
        // A group or queue gives to the next what was sent at QoS 1; of QoS 2
        // it does not [MQTT-4.8.2-4].
        let (back, sent) =
            (session.sent.drain(..)).partition(|sent| sent.group.is_some() && sent.qos() == 1);
        session.sent = sent;
        let back: Vec<Sent> = back;
        if ending == Ending::Normal {
            session.will = None; // [MQTT-3.14.4-3]
        }
        let over = session.expiry_secs == 0 || ending == (Ending::TakenOver { clean: true });
        let delay = session.will.as_ref().map_or(0, |will| will.delay_secs);
        session.ends = (session.expiry_secs < u32::MAX).then(|| now + seconds(session.expiry_secs));
        let fate = match ending {
            Ending::Lost => Fate::Lost,
            Ending::Normal | Ending::WithWill | Ending::TakenOver { .. } => Fate::Back,
        };
        for sent in back.into_iter().rev() {
            self.settle(client, sent, fate);
        }
        if over {
            return self.end_session(client);
        }
        let session = self.session(client).expect("it outlives its connection");
        match ending {
            _ if delay == 0 => self.publish_will(client),
            Ending::TakenOver { .. } => session.will = None, // 3.1.3.2.2
            Ending::Normal | Ending::WithWill | Ending::Lost => {
                session.will_due = Some(now + seconds(delay));
            }
        }
    }

    /// With the session a will that waits is published [MQTT-3.1.3-9].
    fn end_session(&mut self, client: usize) {
        self.publish_will(client);
        let session = self.session(client).expect("it ends now");
        // Nobody will say what became of them.
        let undecided = session.sent.iter().filter(|sent| sent.is_job()).count();
        self.dead_letters += undecided as u64;
        self.sessions.retain(|session| session.client != client);
        for group in &mut self.groups {
            group.members.retain(|member| *member != client);
        }
        self.groups.retain(Group::lasts);
        self.forget_rests();
    }

    // ---- what becomes of jobs

    /// What was sent for a group or queue is not its member's any more.
    fn settle(&mut self, client: usize, sent: Sent, fate: Fate) {
        let (now, deliveries_max) = (self.now, self.deliveries_max);
        let group = (self.groups.iter_mut()).find(|group| Some(group.number) == sent.group);
        let Some(group) = group else {
            return;
        };
        let mut past = sent.past;
        let mut is_back = true;
        match fate {
            // Discarded [MQTT-4.8.2-6].
            Fate::Failed | Fate::Busy | Fate::Rejected if !group.is_queue() => is_back = false,
            Fate::Done => {
                group.rests.retain(|rest| rest.client != client);
                is_back = false;
            }
            Fate::Rejected => {
                self.dead_letters += 1;
                is_back = false;
            }
            Fate::Failed => past.failures += 1,
            Fate::Lost if group.is_queue() => {
                past.failures += 1;
                past.losses += 1;
            }
            Fate::Busy => group.rest(client, now),
            Fate::Lost | Fate::Back => {}
        }
        if is_back && past.failures >= deliveries_max {
            self.dead_letters += 1;
        } else if is_back {
            let waiting = Waiting {
                message: sent.delivery.message,
                perhaps_lost: false,
                past,
            };
            group.waiting.insert(0, waiting);
        }
        self.forget_rests();
    }

    /// Who left and has nothing in hand is another member when it comes back.
    fn forget_rests(&mut self) {
        for group in &mut self.groups {
            let Group {
                number,
                members,
                rests,
                ..
            } = group;
            let mut sessions = self.sessions.iter();
            let mut holds = |client| {
                sessions.any(|session| session.client == client && session.holds(*number) > 0)
            };
            rests.retain(|rest| members.contains(&rest.client) || holds(rest.client));
        }
    }

    fn publish_will(&mut self, client: usize) {
        let published = self.now;
        let session = self.session(client).expect("whose will it is");
        session.will_due = None;
        if let Some(will) = session.will.take() {
            self.publish(Message {
                content: will.content,
                qos: will.qos,
                retain: will.retain,
                expiry_secs: will.expiry_secs,
                publisher: client,
                published,
            });
        }
    }

    /// The broker closes the connection.
    fn close(&mut self, client: usize, reasons: &[u8]) {
        let reasons = reasons.iter().map(|reason| Answer::Closed(*reason));
        self.expect_one_of(client, reasons.collect());
        self.disconnect(client, Ending::Lost);
    }

    /// DISCONNECT, with what it may say of the will and the session.
    pub fn handle_disconnect(&mut self, client: usize, with_will: bool, expiry_secs: Option<u32>) {
        let expiry_secs_max = self.expiry_secs_max;
        let session = self.online(client);
        if let Some(secs) = expiry_secs {
            if session.expiry_secs == 0 && secs > 0 {
                return self.close(client, &[0x82]); // 3.14.2.2.2
            }
            session.expiry_secs = secs.min(expiry_secs_max);
        }
        match with_will {
            true => self.disconnect(client, Ending::WithWill),
            false => self.disconnect(client, Ending::Normal),
        }
    }

    // ---- time

    /// When the next thing is due that happens by itself.
    pub fn next_due(&self) -> Option<Duration> {
        let rests = self.groups.iter().flat_map(|group| &group.rests);
        let rests = rests.filter(|rest| !rest.is_over);
        (self.sessions.iter())
            .flat_map(|session| [session.will_due, session.ends_at(), session.silent_at()])
            .flatten()
            .chain(rests.map(|rest| rest.until))
            .min()
    }

    /// Publishes the wills that are due now, those of sessions that end
    /// included.
    pub fn end_due_sessions(&mut self) {
        let now = self.now;
        for rest in self.groups.iter_mut().flat_map(|group| &mut group.rests) {
            rest.is_over |= rest.until <= now;
        }
        let is_due = |due: Option<Duration>| due.is_some_and(|due| due <= now);
        while let Some(session) = (self.sessions.iter())
            .filter(|session| is_due(session.will_due))
            .min_by_key(|session| (session.will_due, session.left))
        {
            self.publish_will(session.client);
        }
        while let Some(session) = (self.sessions.iter())
            .filter(|session| is_due(session.ends_at()))
            .min_by_key(|session| (session.ends_at(), session.left))
        {
            self.end_session(session.client);
        }
    }

    /// Closes the connections that were silent for too long.
    pub fn close_silent(&mut self) {
        let now = self.now;
        while let Some(session) =
            (self.sessions.iter()).find(|session| session.silent_at().is_some_and(|due| due <= now))
        {
            self.close(session.client, &[0x8D]); // [MQTT-3.1.2-22]
        }
    }

    /// The client sends something.
    pub fn heard(&mut self, client: usize) {
        let now = self.now;
        self.connection(client).expect("connected").heard = now;
    }

    // ---- PUBLISH

    /// A client's PUBLISH, at whatever QoS.
    pub fn handle_publish(&mut self, client: usize, id: u16, message: Message) {
        let session = self.online(client);
        let again = message.qos == 2 && session.received.contains(&id);
        if message.qos == 2 && !again {
            session.received.push(id);
        }
        let qos = message.qos;
        let codes = match again {
            true => vec![0, 0x10], // [MQTT-4.3.3-10]
            false => self.publish(message),
        };
        let v5 = self.is_v5(client);
        let codes = codes.into_iter().map(|code| if v5 { code } else { 0 });
        match qos {
            0 => {}
            1 => self.expect_one_of(client, codes.map(|code| Answer::Puback(id, code)).collect()),
            _ => self.expect_one_of(client, codes.map(|code| Answer::Pubrec(id, code)).collect()),
        }
    }

    /// To all who subscribed; which reason codes fit then.
    fn publish(&mut self, message: Message) -> Vec<u8> {
        let topic = &message.content.topic;
        if message.is_job() {
            self.create_group(topic); // A producer may come first.
        }
        if message.retain && !message.is_job() {
            // [MQTT-3.3.1-5] to [MQTT-3.3.1-7]
            self.retained
                .retain(|retained| retained.content.topic != *topic);
            if !message.content.payload.is_empty() {
                self.retained.push(message.clone());
            }
            for backlog in (self.sessions.iter_mut()).flat_map(|session| &mut session.backlogs) {
                if matches(&backlog.subscription.filter, topic) {
                    backlog.due.retain(|due| due != topic);
                    backlog.perhaps.push(topic.clone());
                }
            }
        }
        let (mut matched, mut local) = (false, false);
        for session in &mut self.sessions {
            let mut subscriptions: Vec<&Subscription> = (session.subscriptions.iter())
                .filter(|one| matches(&one.filter, topic))
                .collect();
            let before = subscriptions.len();
            let own = session.client == message.publisher;
            subscriptions.retain(|one| !(one.no_local && own)); // [MQTT-3.8.3-3]
            local |= subscriptions.len() < before;
            // One copy, at the highest QoS, with all identifiers [MQTT-3.3.4-2] to [MQTT-3.3.4-4].
            let Some(granted) = subscriptions.iter().map(|one| one.qos).max() else {
                continue;
            };
            matched = true;
            let retains = |as_published: bool| {
                let mut subscriptions = subscriptions.iter();
                subscriptions.any(|one| one.retain_as_published == as_published)
            };
            let delivery = Delivery {
                qos: message.qos.min(granted), // [MQTT-3.8.4-8]
                // [MQTT-3.3.1-12], [MQTT-3.3.1-13]
                retain: match (retains(true), retains(false)) {
                    (true, true) if message.retain => None,
                    (as_published, _) => Some(as_published && message.retain),
                },
                subscription_ids: subscriptions.iter().filter_map(|one| one.id).collect(),
                message: message.clone(),
                perhaps_sent: false,
                perhaps_gone: false,
            };
            if session.connection.is_some() || delivery.qos > 0 {
                session.waiting.push(delivery);
            }
        }
        let waiting: usize = self.groups.iter().map(|group| group.waiting.len()).sum();
        for group in &mut self.groups {
            if matches(&group.filter, topic) || group.name == *topic {
                matched = true;
                let mut members = self.sessions.iter();
                let taken = members.any(|session| {
                    group.members.contains(&session.client)
                        && session.surely_takes(waiting + GROUPS_MAX)
                });
                let perhaps_lost = message.qos == 0 && !group.is_queue() && (group.fresh || !taken);
                let message = group.taken(message.clone());
                group.waiting.push(Waiting {
                    message,
                    perhaps_lost,
                    past: Past::default(),
                });
            }
        }
        match (matched, local) {
            (true, _) => vec![0],
            (false, true) => vec![0, 0x10],
            (false, false) => vec![0x10],
        }
    }

    /// PUBREL.
    pub fn handle_pubrel(&mut self, client: usize, id: u16) {
        let v5 = self.is_v5(client);
        let session = self.online(client);
        let known = session.received.contains(&id);
        session.received.retain(|other| *other != id);
        let code = if known || !v5 { 0 } else { 0x92 };
        self.expect(client, Answer::Pubcomp(id, code));
    }

    /// What no client may send.
    pub fn handle_violation(&mut self, client: usize, reasons: &[u8]) {
        self.close(client, reasons);
    }

    /// The connection is lost before it has read what it was just sent.
    pub fn forget_unread(&mut self, client: usize) {
        let session = self.online(client);
        for delivery in &mut session.waiting {
            delivery.perhaps_sent = true;
        }
        let subscriptions = session.subscriptions.clone();
        for group in &mut self.groups {
            let member = subscriptions.iter().find(|one| one.filter == group.name);
            if member.is_some_and(|member| member.qos == 0) {
                (group.waiting.iter_mut()).for_each(|waiting| waiting.perhaps_lost = true);
            }
        }
    }

    // ---- acknowledgements of deliveries

    pub fn handle_puback(&mut self, client: usize, id: u16, code: u8) {
        let session = self.online(client);
        let Some(at) = session.sent.iter().position(|sent| sent.id == id) else {
            return;
        };
        match session.sent[at].qos() {
            1 => {
                let sent = session.sent.remove(at);
                self.settle(client, sent, fate_by(code));
            }
            _ => self.close(client, &[0x82]),
        }
    }

    pub fn handle_pubrec(&mut self, client: usize, id: u16, code: u8) {
        let v5 = self.is_v5(client);
        let session = self.online(client);
        let at = session.sent.iter().position(|sent| sent.id == id);
        match at {
            Some(at) if session.sent[at].qos() == 1 => self.close(client, &[0x82]),
            Some(at) => {
                let sent = session.sent.remove(at);
                if code < 0x80 {
                    session.releasing.push(id);
                    self.expect(client, Answer::Pubrel(id, 0)); // [MQTT-4.3.3-4]
                }
                self.settle(client, sent, fate_by(code));
            }
            None if session.releasing.contains(&id) || !v5 => {
                self.expect(client, Answer::Pubrel(id, 0));
            }
            None => self.expect(client, Answer::Pubrel(id, 0x92)),
        }
    }

    pub fn handle_pubcomp(&mut self, client: usize, id: u16) {
        self.online(client).releasing.retain(|other| *other != id);
    }

    // ---- subscriptions

    pub fn handle_subscribe(&mut self, client: usize, id: u16, subscriptions: &[Subscription]) {
        if (subscriptions.iter()).any(|one| one.no_local && one.filter.starts_with("$share/")) {
            return self.close(client, &[0x82]); // [MQTT-3.8.3-4]
        }
        let now = self.now;
        let mut codes = Vec::new();
        for subscription in subscriptions {
            if subscription.filter == REFUSED {
                codes.push(if self.is_v5(client) { 0x8F } else { 0x80 });
                continue;
            }
            let mut subscription = subscription.clone();
            if subscription.filter.starts_with("$queue/") && self.online(client).expiry_secs == 0 {
                subscription.qos = 1; // Nobody could say what became of more.
            }
            codes.push(subscription.qos); // [MQTT-3.8.4-6]
            let filter = &subscription.filter;
            let retained = self.retained.clone();
            let session = self.online(client);
            let before = session.subscriptions.len();
            session
                .subscriptions
                .retain(|other| other.filter != *filter); // [MQTT-3.8.4-3]
            let new = session.subscriptions.len() == before;
            session.subscriptions.push(subscription.clone());
            if filter.starts_with('$') {
                self.join(client, filter);
                continue;
            }
            // [MQTT-3.3.1-9] to [MQTT-3.3.1-11]
            let sends =
                subscription.retain_handling == 0 || (subscription.retain_handling == 1 && new);
            let due = retained.iter().filter(|message| {
                sends
                    && matches(filter, &message.content.topic)
                    && !message.has_expired(now)
                    && !(subscription.no_local && message.publisher == client)
            });
            let due = due.map(|message| message.content.topic.clone()).collect();
            let perhaps = session.give_up_backlogs(filter);
            session.backlogs.push(Backlog {
                subscription: subscription.clone(),
                due,
                perhaps,
            });
        }
        self.expect(client, Answer::Suback(id, codes));
    }

    fn join(&mut self, client: usize, name: &str) {
        self.create_group(name);
        for group in self.groups.iter_mut().filter(|group| group.name == name) {
            group.fresh = true;
            if !group.members.contains(&client) {
                group.members.push(client);
            }
        }
    }

    fn create_group(&mut self, name: &str) {
        if self.groups.iter().any(|group| group.name == name) {
            return;
        }
        let filter = match name.strip_prefix("$share/") {
            Some(rest) => rest.split_once('/').expect("a group, then a filter").1,
            None => name.strip_prefix("$queue/").expect("a queue"),
        };
        self.groups_made += 1;
        self.groups.push(Group {
            number: self.groups_made,
            name: name.to_owned(),
            filter: filter.to_owned(),
            members: Vec::new(),
            fresh: true,
            waiting: Vec::new(),
            rests: Vec::new(),
        });
    }

    pub fn handle_unsubscribe(&mut self, client: usize, id: u16, filters: &[String]) {
        let v5 = self.is_v5(client);
        let mut codes = Vec::new();
        for filter in filters {
            let session = self.online(client);
            let before = session.subscriptions.len();
            session.subscriptions.retain(|one| one.filter != *filter); // [MQTT-3.10.4-1]
            session.give_up_backlogs(filter);
            let known = session.subscriptions.len() < before;
            codes.push(if known { 0 } else { 0x11 });
            for group in self.groups.iter_mut().filter(|group| group.name == *filter) {
                group.members.retain(|member| *member != client);
            }
            self.groups.retain(Group::lasts);
            self.forget_rests();
        }
        if !v5 {
            codes.clear();
        }
        self.expect(client, Answer::Unsuback(id, codes)); // [MQTT-3.10.4-4]
    }

    // ---- what comes

    /// A client got this; why it should not have, if so.
    pub fn came(&mut self, number: usize, got: &Publication, at: Duration) -> Result<(), String> {
        let retained = self.retained.clone();
        let is_stored = self.is_stored;
        let session = (self.sessions.iter_mut()).find(|session| session.has(number));
        let Some(session) = session else {
            return Err("its connection has ended".into());
        };
        let connection = session.connection.clone().expect("it has that one");
        let v5 = connection.v5;
        if got.qos == 0 && (got.id > 0 || got.dup) {
            return Err("a PUBLISH of QoS 0 has neither packet id nor DUP".into());
        }
        if got.qos > 0 {
            // What was discarded for being too large is not sent again.
            let gone = |sent: &&mut Sent| sent.delivery.perhaps_gone && sent.id != got.id;
            let of_group = session.sent.iter().find(|sent| sent.id == got.id);
            let of_group = of_group.is_some_and(|sent| sent.group.is_some());
            let apart = |sent: &&mut Sent| is_stored && of_group != sent.group.is_some();
            let mut again = session.sent.iter_mut().filter(|sent| !sent.seen);
            if let Some(again) = again.find(|sent| !gone(sent) && !apart(sent)) {
                // [MQTT-4.4.0-1], [MQTT-4.6.0-1]
                let mut expected = again.delivery.clone();
                if !again.showed_ids {
                    expected.subscription_ids.clone_from(&got.subscription_ids);
                }
                expected.check(got, v5, at)?;
                if (again.id, true) != (got.id, got.dup) {
                    return Err(format!("it is to be sent again, with id {}", again.id));
                }
                again.seen = true;
                return session.check_window();
            }
            let ids = session.sent.iter().map(|sent| sent.id);
            if ids.chain(session.releasing.clone()).any(|id| id == got.id) {
                return Err("its packet id is in use".into()); // [MQTT-2.2.1-4]
            }
        }
        let mut wrong = "nothing was published that it could be".to_owned();
        // What is live comes in the order in which it came to the broker.
        session.drop_expired(at);
        let candidates = (session.waiting.iter().enumerate())
            .filter(|(_, delivery)| (delivery.qos > 0) == (got.qos > 0))
            .filter(|(_, delivery)| connection.takes(&delivery.message));
        for (index, delivery) in candidates {
            // Late, it only comes again.
            if delivery.message.has_expired(at) && !got.dup {
                continue;
            }
            match delivery.check(got, v5, at) {
                Ok(()) if got.dup && !delivery.perhaps_sent => {
                    return Err("it has DUP the first time".into()); // [MQTT-3.3.1-3]
                }
                Ok(()) => {
                    let delivery = session.waiting.remove(index);
                    return session.send(got.id, delivery, None, true);
                }
                Err(_) if delivery.perhaps_sent || delivery.perhaps_gone => {}
                Err(why) => {
                    wrong = why;
                    break;
                }
            }
        }
        if got.dup {
            return Err(format!("it has DUP, and {wrong}"));
        }
        if let Some(delivery) = session.retained(got, &retained, at) {
            return session.send(got.id, delivery, None, v5);
        }
        let client = session.client;
        for group in &mut self.groups {
            let Some(member) = (session.subscriptions.iter()).find(|one| one.filter == group.name)
            else {
                continue;
            };
            for (index, Waiting { message, past, .. }) in group.waiting.iter().enumerate() {
                let delivery = Delivery {
                    // The queue is the sender of its jobs.
                    qos: match message.is_job() {
                        true => member.qos,
                        false => message.qos.min(member.qos),
                    },
                    retain: Some(message.retain && member.retain_as_published),
                    subscription_ids: member.id.into_iter().collect(),
                    message: message.clone(),
                    perhaps_sent: false,
                    perhaps_gone: false,
                };
                if delivery.check(got, v5, at).is_ok() && !message.has_expired(at) {
                    assert!(group.members.contains(&client));
                    let (number, past) = (group.number, *past);
                    if group.rests_at(client, at) {
                        return Err("the member was busy, and rests".into());
                    }
                    if session.has_alone(number) {
                        return Err("the member has a job that goes alone".into());
                    }
                    if past.is_alone() && session.holds(number) > 0 {
                        return Err("it goes alone, and the member has others".into());
                    }
                    group.waiting.remove(index);
                    session.send(got.id, delivery, Some(number), true)?;
                    if let Some(sent) = session.sent.last_mut().filter(|_| got.qos > 0) {
                        sent.past = past;
                    }
                    return Ok(());
                }
            }
        }
        Err(wrong)
    }

    /// The broker has done all it can; what is missing, if anything is.
    pub fn complete(&mut self) -> Result<(), String> {
        let now = self.now;
        self.retained.retain(|message| !message.has_expired(now));
        for session in &mut self.sessions {
            session.complete(&self.retained, now)?;
        }
        for group in &mut self.groups {
            group
                .waiting
                .retain(|waiting| !waiting.message.has_expired(now));
            // A member with a full window has no part even in QoS 0.
            let mut idle = self.sessions.iter().filter(|session| {
                group.members.contains(&session.client)
                    && session.has_room()
                    && !session.has_alone(group.number)
                    && !group.may_rest(session.client, now)
            });
            group.complete(&mut idle)?;
            group.fresh = false;
            // Nobody had room for it.
            group
                .waiting
                .retain(|waiting| waiting.message.qos > 0 || waiting.message.is_job());
        }
        Ok(())
    }
}

impl Session {
    /// The subscription for which retained messages were due is not what it
    /// was; the topics of those that may come all the same.
    fn give_up_backlogs(&mut self, filter: &str) -> Vec<String> {
        let mut topics = Vec::new();
        for backlog in &mut self.backlogs {
            if backlog.subscription.filter == filter {
                backlog.perhaps.append(&mut backlog.due);
                topics.extend_from_slice(&backlog.perhaps);
            }
        }
        topics
    }

    fn has(&self, number: usize) -> bool {
        (self.connection.as_ref()).is_some_and(|connection| connection.number == number)
    }

    fn ends_at(&self) -> Option<Duration> {
        self.ends.filter(|_| self.connection.is_none())
    }

    fn silent_at(&self) -> Option<Duration> {
        let connection = self.connection.as_ref()?;
        Some(connection.heard + connection.silence_max?)
    }

    /// Deliveries that take from the client's Receive Maximum.
    fn under_way(&self) -> usize {
        self.sent.iter().filter(|sent| sent.seen).count() + self.releasing.len()
    }

    /// How much it has of a group in hand.
    fn holds(&self, group: usize) -> usize {
        let sent = self.sent.iter();
        sent.filter(|sent| sent.group == Some(group)).count()
    }

    fn has_alone(&self, group: usize) -> bool {
        let mut sent = self.sent.iter();
        sent.any(|sent| sent.group == Some(group) && sent.past.is_alone())
    }

    fn has_room(&self) -> bool {
        let max = self.connection.as_ref().map_or(0, |one| one.receive_max);
        self.under_way() < max && self.sent.iter().all(|sent| sent.seen)
    }

    /// Whether there is room for so many more than there are already.
    fn surely_takes(&self, count: usize) -> bool {
        let max = self.connection.as_ref().map_or(0, |one| one.receive_max);
        self.has_room() && self.under_way() + self.waiting.len() + count <= max
    }

    /// [MQTT-3.3.4-9]; a PUBREL that came again may count or not.
    fn check_window(&self) -> Result<(), String> {
        let max = self.connection.as_ref().map_or(0, |one| one.receive_max);
        match self.sent.iter().filter(|sent| sent.seen).count() > max {
            true => Err(format!("it is more than the Receive Maximum of {max}")),
            false => Ok(()),
        }
    }

    fn send(
        &mut self,
        id: u16,
        delivery: Delivery,
        group: Option<usize>,
        showed_ids: bool,
    ) -> Result<(), String> {
        if delivery.qos == 0 {
            return Ok(());
        }
        self.sent.push(Sent {
            id,
            delivery,
            seen: true,
            showed_ids,
            group,
            past: Past::default(),
        });
        self.check_window()
    }

    /// The retained message that a new subscription gets, if that is it.
    fn retained(
        &mut self,
        got: &Publication,
        retained: &[Message],
        at: Duration,
    ) -> Option<Delivery> {
        let v5 = self.connection.as_ref()?.v5;
        let topic = &got.content.topic;
        let message = (retained.iter()).find(|message| message.content.topic == *topic)?;
        if message.has_expired(at) {
            return None;
        }
        // Where two are alike, it is for the one that must have it.
        for must in [true, false] {
            for backlog in &mut self.backlogs {
                let subscription = &backlog.subscription;
                let own = subscription.no_local && message.publisher == self.client;
                let delivery = Delivery {
                    qos: message.qos.min(subscription.qos),
                    retain: Some(true), // [MQTT-3.3.1-8]
                    subscription_ids: subscription.id.into_iter().collect(),
                    message: message.clone(),
                    perhaps_sent: false,
                    perhaps_gone: false,
                };
                let topics = match must {
                    true => &mut backlog.due,
                    false => &mut backlog.perhaps,
                };
                let place = topics.iter().position(|due| due == topic);
                if let Some(place) = place.filter(|_| !own)
                    && delivery.check(got, v5, at).is_ok()
                {
                    topics.remove(place);
                    if !v5 {
                        // It may have been for another, and this one's still comes.
                        backlog.perhaps.push(topic.clone());
                    }
                    return Some(delivery);
                }
            }
        }
        None
    }

    /// What is late [MQTT-3.3.2-5].
    fn drop_expired(&mut self, now: Duration) {
        self.waiting
            .retain(|delivery| !delivery.message.has_expired(now) || delivery.perhaps_sent);
    }

    fn complete(&mut self, retained: &[Message], now: Duration) -> Result<(), String> {
        self.drop_expired(now);
        let Some(connection) = self.connection.clone() else {
            return Ok(());
        };
        // What is too large is discarded when its turn comes [MQTT-3.1.2-25].
        for delivery in &mut self.waiting {
            delivery.perhaps_gone |= !connection.takes(&delivery.message);
        }
        self.waiting.retain(|one| one.qos > 0 || !one.perhaps_gone);
        let who = format!("client {}", self.client);
        if let Some(at_most_once) = self.waiting.iter().find(|one| one.qos == 0) {
            return Err(format!("{who} did not get {at_most_once:?}"));
        }
        if self.under_way() < connection.receive_max {
            self.sent
                .retain(|sent| sent.seen || !sent.delivery.perhaps_gone);
        }
        if self.under_way() < connection.receive_max
            && let Some(again) = self.sent.iter().find(|sent| !sent.seen)
        {
            return Err(format!("{who} did not get {:?} again", again.delivery));
        }
        // Which had its turn and was too large is open.
        for backlog in &mut self.backlogs {
            let large = |topic: &mut String| {
                let mut retained = retained.iter();
                retained.any(|one| one.content.topic == *topic && !connection.takes(one))
            };
            let skipped = backlog.due.extract_if(.., large);
            backlog.perhaps.extend(skipped);
        }
        if !self.has_room() {
            return Ok(());
        }
        self.waiting
            .retain(|one| !(one.perhaps_gone || one.perhaps_sent && one.message.has_expired(now)));
        if let Some(next) = self.waiting.first() {
            return Err(format!("{who} has room and did not get {next:?}"));
        }
        for backlog in std::mem::take(&mut self.backlogs) {
            let due = retained.iter().find(|message| {
                backlog.due.contains(&message.content.topic) && !message.has_expired(now)
            });
            if let Some(due) = due {
                let filter = backlog.subscription.filter;
                return Err(format!(
                    "{who} did not get the retained {due:?} for {filter}"
                ));
            }
        }
        Ok(())
    }
}

impl Group {
    /// What is missing of these members with room, if anything is.
    fn complete(&self, idle: &mut dyn Iterator<Item = &Session>) -> Result<(), String> {
        let idle: Vec<&Session> = idle.collect();
        let due = |alone: bool| {
            let mut waiting = self.waiting.iter();
            waiting.find(|one| !one.perhaps_lost && one.past.is_alone() == alone)
        };
        let empty = idle.iter().find(|session| session.holds(self.number) == 0);
        let missing = match (due(true), due(false)) {
            (Some(alone), _) if let Some(empty) = empty => Some((alone, *empty)),
            // One may be about to empty its hands for it.
            (Some(_), Some(other)) if idle.len() > 1 => Some((other, idle[0])),
            (None, Some(other)) if !idle.is_empty() => Some((other, idle[0])),
            _ => None,
        };
        match missing {
            None => Ok(()),
            Some((waiting, session)) => Err(format!(
                "{:?}, {:?}, waits in {}, and client {} has room",
                waiting.message.content, waiting.past, self.name, session.client
            )),
        }
    }

    /// The member was busy: once more, so for twice as long.
    fn rest(&mut self, client: usize, now: Duration) {
        let before = self.rests.iter().position(|rest| rest.client == client);
        let count = before.map_or(0, |before| self.rests.remove(before).count);
        self.rests.push(Rest {
            client,
            count: count + 1,
            since: now,
            until: now + seconds(1 << count.min(RESTS_MAX)),
            is_over: false,
        });
    }

    /// What it was given in the same moment may have come before.
    fn rests_at(&self, client: usize, at: Duration) -> bool {
        let mut rests = self.rests.iter();
        rests.any(|rest| rest.client == client && rest.since < at && at < rest.until)
    }

    /// Or it may be about to get something.
    fn may_rest(&self, client: usize, now: Duration) -> bool {
        let mut rests = self.rests.iter();
        rests.any(|rest| rest.client == client && now < rest.until + LATE)
    }

    fn is_queue(&self) -> bool {
        self.name.starts_with("$queue/")
    }

    /// A share group ends with its last member.
    fn lasts(&self) -> bool {
        self.is_queue() || !self.members.is_empty()
    }

    /// What becomes of a message that comes to it.
    fn taken(&self, mut message: Message) -> Message {
        if self.is_queue() {
            message.content.topic.clone_from(&self.name);
            message.retain = false;
        }
        message
    }
}

impl Connection {
    /// Whether a message fits the client's Maximum Packet Size: it is well
    /// below, or well above.
    fn takes(&self, message: &Message) -> bool {
        self.packet_bytes_max.is_none() || !message.is_large()
    }
}

impl Delivery {
    /// Whether that is it.
    fn check(&self, got: &Publication, v5: bool, at: Duration) -> Result<(), String> {
        let message = &self.message;
        let waited = at.saturating_sub(message.published).as_secs() as u32;
        let mut expected = Publication {
            content: message.content.clone(),
            qos: self.qos,
            retain: self.retain.unwrap_or(got.retain),
            // [MQTT-3.3.2-6]
            expiry_secs: (message.expiry_secs).map(|secs| secs.saturating_sub(waited)),
            subscription_ids: self.subscription_ids.clone(),
            ..got.clone()
        };
        if !v5 {
            expected.content = expected.content.without_properties();
            expected.expiry_secs = None;
            expected.subscription_ids.clear();
        }
        if message.is_job() && got.content.user.starts_with(&expected.content.user) {
            // Behind them the queue's own follow.
            let own = &got.content.user[expected.content.user.len()..];
            if own
                .iter()
                .all(|(name, _)| JOB_PROPERTIES.contains(&&**name))
            {
                expected.content.user.clone_from(&got.content.user);
            }
        }
        let mut ids = got.subscription_ids.clone();
        for ids in [&mut expected.subscription_ids, &mut ids] {
            ids.sort_unstable();
            ids.dedup();
        }
        let same = expected.content == got.content
            && expected.qos == got.qos
            && expected.retain == got.retain
            && expected.expiry_secs == got.expiry_secs
            && expected.subscription_ids == ids;
        match same {
            true => Ok(()),
            false => Err(format!("{expected:?} was expected")),
        }
    }
}

/// Only what is there.
impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let payload = &self.payload[..self.payload.len().min(8)];
        write!(f, "{} {payload:?}", self.topic)?;
        if self.payload.len() > payload.len() {
            write!(f, "... {} bytes", self.payload.len())?;
        }
        if let Some(utf8) = self.utf8 {
            write!(f, " utf8={utf8}")?;
        }
        for text in [&self.content_type, &self.response_topic]
            .into_iter()
            .flatten()
        {
            write!(f, " {text}")?;
        }
        if let Some(correlation) = &self.correlation {
            write!(f, " {correlation:?}")?;
        }
        for (name, value) in &self.user {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}

/// What a member says by a reason code.
fn fate_by(code: u8) -> Fate {
    match code {
        0x90 | 0x99 => Fate::Rejected,
        0x97 => Fate::Busy,
        0x80.. => Fate::Failed,
        _ => Fate::Done,
    }
}

fn seconds(secs: u32) -> Duration {
    Duration::from_secs(secs.into())
}

/// Whether a filter means a topic (4.7).
fn matches(filter: &str, topic: &str) -> bool {
    if filter.starts_with("$share/") || filter.starts_with("$queue/") {
        return false; // Looked at as a group.
    }
    if topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#')) {
        return false; // [MQTT-4.7.2-1]
    }
    let filter: Vec<&str> = filter.split('/').collect();
    let topic: Vec<&str> = topic.split('/').collect();
    for (at, level) in filter.iter().enumerate() {
        match *level {
            "#" => return true,
            _ if at == topic.len() => return false,
            "+" => {}
            level if level == topic[at] => {}
            _ => return false,
        }
    }
    filter.len() == topic.len()
}
