//! A session's window: what is sent at QoS 1 and 2, and acknowledged.

use std::hint::black_box;
use std::sync::Arc;

use rotamq::config::{Config, Durability, Limits, SessionSettings};
use rotamq::journal::{ListId, Receipt};
use rotamq::message::{Identity, MessageId, PacketId, Qos, Time};
use rotamq::protocol::{Connect, Properties, Version};
use rotamq::session::{
    Came, Delivered, Delivery, Effects, Keeping, Outbox, Publication, Session, Terms,
};
use rotamq::topic::TopicName;

use crate::inputs::{PAYLOAD, identity, name};
use crate::{Criterion, bench};

/// Messages on their way at once: all that a client gets by default.
const WINDOW: usize = 100;

/// What is kept of a message for another connection.
#[derive(Clone, Copy, PartialEq)]
enum Kept {
    Nothing,
    InMemory,
    /// Only written into the journal, which a store would take.
    Stored,
}

/// What of a session differs.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    version: Version,
    qos: Qos,
    kept: Kept,
    /// Identifiers of its subscriptions that match.
    ids: &'static [u32],
    window: usize,
    /// The last message is acknowledged first.
    reversed: bool,
}

const PLAIN: Case = Case {
    name: "qos1/v3.1.1",
    version: Version::V3_1_1,
    qos: Qos::AtLeastOnce,
    kept: Kept::Nothing,
    ids: &[],
    window: WINDOW,
    reversed: false,
};

const CASES: [Case; 10] = [
    Case {
        name: "qos0/v3.1.1",
        qos: Qos::AtMostOnce,
        ..PLAIN
    },
    PLAIN,
    Case {
        name: "qos1/v5",
        version: Version::V5,
        ..PLAIN
    },
    Case {
        name: "qos1/v5-identifier",
        version: Version::V5,
        ids: &[300],
        ..PLAIN
    },
    Case {
        name: "qos1/v3.1.1-kept",
        kept: Kept::InMemory,
        ..PLAIN
    },
    Case {
        name: "qos1/v3.1.1-stored",
        kept: Kept::Stored,
        ..PLAIN
    },
    Case {
        name: "qos1/v3.1.1-reversed",
        reversed: true,
        ..PLAIN
    },
    Case {
        name: "qos2/v3.1.1",
        qos: Qos::ExactlyOnce,
        ..PLAIN
    },
    Case {
        name: "qos2/v3.1.1-stored",
        qos: Qos::ExactlyOnce,
        kept: Kept::Stored,
        ..PLAIN
    },
    Case {
        name: "qos1/v3.1.1",
        window: 1,
        ..PLAIN
    },
];

pub fn all(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("session");
    for case in CASES {
        let done = match case.qos {
            Qos::AtMostOnce => "deliver",
            _ => "deliver-acknowledge",
        };
        let name = format!("{done}-{}/{}", case.window, case.name);
        let client = || Client::new(case);
        bench(&mut group, name, case.window, client, Client::turn);
    }
    let client = || Client::new(PLAIN);
    bench(&mut group, "receive-release-1/qos2", 1, client, |client| {
        let journal = &mut client.effects.journal;
        let received = (client.session).receive(black_box(PacketId::MAX), Time::ZERO, journal);
        assert_eq!(received, Ok(true));
        assert!(client.session.release(black_box(PacketId::MAX), journal));
    });
    group.finish();
}

/// A session and what goes with it in a worker.
struct Client {
    case: Case,
    session: Session,
    limits: Limits,
    settings: SessionSettings,
    effects: Effects,
    writing: Outbox,
    link: u32,
    topic: TopicName<'static>,
    publisher: Arc<Identity>,
    sent: Vec<PacketId>,
}

impl Client {
    fn new(case: Case) -> Client {
        let Config {
            limits,
            session: settings,
            ..
        } = Config::default();
        let connect = Connect {
            version: case.version,
            clean_start: case.kept == Kept::Nothing,
            keep_alive_secs: 60,
            properties: Properties::EMPTY,
            client_id: "a-client",
            will: None,
            user_name: None,
            password: None,
        };
        let terms = Terms::agree(&connect, &limits, &settings).expect("they are agreed");
        let mut session = Session::new(identity(), terms, PacketId::MIN);
        if case.kept == Kept::Stored {
            session.keep(Keeping::new(ListId(1), Durability::Synced));
        }
        let mut effects = Effects::default();
        let link = session.attach(terms, &[], Time::ZERO, &mut effects);
        session.stored(Receipt::NONE);
        session.take_part();
        Client {
            case,
            session,
            limits,
            settings,
            effects,
            writing: Outbox::default(),
            link,
            topic: name("site/12/line/34/sensor/56"),
            publisher: identity(),
            sent: Vec::new(),
        }
    }

    /// A full window goes out, and comes back acknowledged.
    fn turn(&mut self) {
        for _ in 0..self.case.window {
            self.deliver();
        }
        self.write();
        let mut sent = std::mem::take(&mut self.sent);
        if self.case.reversed {
            sent.reverse();
        }
        sent.drain(..).for_each(|id| self.acknowledge(id));
        self.sent = sent;
        self.effects.journal.clear();
    }

    fn deliver(&mut self) {
        let (qos, retain) = (self.case.qos, false);
        let publication = Publication::new(
            black_box(self.topic),
            &PAYLOAD,
            qos,
            retain,
            &self.publisher,
            Time::ZERO,
            MessageId(1),
        );
        let delivery = Delivery {
            qos,
            retain,
            ids: self.case.ids,
        };
        self.effects.frames.begin(1);
        let delivered = self.session.deliver(
            &publication,
            delivery,
            &self.limits,
            &self.settings,
            &mut self.effects,
        );
        assert_eq!(delivered, Delivered::Taken);
        if self.case.kept == Kept::Stored {
            self.session.stored(Receipt::NONE);
        }
        if qos != Qos::AtMostOnce {
            self.sent.extend(self.session.last_packet_id());
        }
    }

    /// The connection takes what there is, and has written it.
    fn write(&mut self) {
        let (answers, waker) = ((&[][..], &[][..]), None);
        let link = (self.link, true, &mut Came::default());
        let (writing, effects) = (&mut self.writing, &mut self.effects);
        let looked = (self.session).exchange(link, answers, writing, waker, Time::ZERO, effects);
        black_box(looked);
        writing.advance(black_box(writing.len()));
    }

    fn acknowledge(&mut self, id: PacketId) {
        let journal = &mut self.effects.journal;
        let answered = match self.case.qos {
            Qos::ExactlyOnce => {
                let answered = self.session.received(id, false, Time::ZERO, journal);
                self.session.complete(id, journal);
                answered
            }
            _ => self.session.acknowledge(id, journal),
        };
        black_box(answered).expect("it was sent so");
    }
}
