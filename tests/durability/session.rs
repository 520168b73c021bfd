//! What a client must remember of its session, so that it can go on with it
//! after its connection, the broker or itself was lost. Only events change it:
//! a session made from the ledger's entries is the one that lived.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::ledger::Event;
use crate::plan::MessageKey;
use crate::wire::PacketId;

#[derive(Default)]
pub struct Session {
    /// CONNECTs that were sent.
    pub attempts: u32,
    /// A CONNACK came once: the broker has this session.
    pub established: bool,
    /// The filters that SUBACK granted and no UNSUBACK took away.
    pub granted: BTreeSet<String>,
    /// The SUBSCRIBE or UNSUBSCRIBE that is not answered.
    pub change: Option<Change>,
    /// Messages that are not through their handshake, in the order of their
    /// PUBLISHes.
    pub outgoing: VecDeque<Outgoing>,
    /// QoS 2 messages that came and are not released.
    pub unreleased: HashMap<PacketId, MessageKey>,
    /// Messages that came on this connection and were not acknowledged yet.
    pub unanswered: VecDeque<Unanswered>,
    /// Messages published so far: the next one's number.
    pub published: u64,
    last_id: u16,
}

#[derive(Clone, PartialEq)]
pub struct Change {
    pub id: PacketId,
    pub filter: String,
    pub subscribe: bool,
    /// It was sent more than once.
    pub repeated: bool,
}

#[derive(Clone)]
pub struct Outgoing {
    pub id: PacketId,
    pub number: u64,
    pub bytes: usize,
    pub retain: bool,
    pub topic: String,
    /// PUBREC came.
    pub received: bool,
}

#[derive(Clone, Copy)]
pub struct Unanswered {
    pub id: PacketId,
    pub qos: u8,
    pub message: MessageKey,
}

impl Session {
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Connect => {
                self.attempts += 1;
                self.unanswered.clear();
            }
            Event::ConnAck { present } => {
                self.established = true;
                if !present {
                    // What the session was is gone. What was never accepted is
                    // published anew.
                    self.granted.clear();
                    self.change = None;
                    self.unreleased.clear();
                    self.outgoing.retain(|message| !message.received);
                }
            }
            Event::Lost | Event::Leave => self.unanswered.clear(),
            Event::Subscribe { id, filter } => self.begin(*id, filter, true),
            Event::Unsubscribe { id, filter } => self.begin(*id, filter, false),
            Event::SubAck { .. } => {
                if let Some(change) = self.change.take() {
                    self.granted.insert(change.filter);
                }
            }
            Event::UnsubAck { .. } => {
                if let Some(change) = self.change.take() {
                    self.granted.remove(&change.filter);
                }
            }
            Event::Publish {
                id,
                number,
                bytes,
                retain,
                topic,
            } => {
                self.last_id = id.get();
                self.published = number + 1;
                self.outgoing.push_back(Outgoing {
                    id: *id,
                    number: *number,
                    bytes: *bytes,
                    retain: *retain,
                    topic: topic.clone(),
                    received: false,
                });
            }
            Event::PubRec { id, code } if *code < 0x80 => {
                if let Some(message) = self.outgoing.iter_mut().find(|out| out.id == *id) {
                    message.received = true;
                }
            }
            Event::PubAck { id, .. } | Event::PubRec { id, .. } | Event::PubComp { id } => {
                self.outgoing.retain(|out| out.id != *id);
            }
            Event::Got { id, qos, message } => {
                if *qos == 2 {
                    self.unreleased.insert(*id, *message);
                }
                self.unanswered.push_back(Unanswered {
                    id: *id,
                    qos: *qos,
                    message: *message,
                });
            }
            Event::Repeated { id, message } => {
                // It may come again before the first was answered.
                self.unanswered.retain(|delivery| delivery.id != *id);
                self.unanswered.push_back(Unanswered {
                    id: *id,
                    qos: 2,
                    message: *message,
                });
            }
            Event::Done { id, .. } | Event::Reject { id, .. } => {
                self.unanswered.retain(|delivery| delivery.id != *id)
            }
            Event::Released { id } => {
                self.unreleased.remove(id);
            }
            Event::Dismissed { .. }
            | Event::Again { .. }
            | Event::Retained { .. }
            | Event::Wrong { .. } => {}
        }
    }

    fn begin(&mut self, id: PacketId, filter: &str, subscribe: bool) {
        let change = Change {
            id,
            filter: filter.to_owned(),
            subscribe,
            repeated: self.change.is_some(),
        };
        self.last_id = id.get();
        self.change = Some(change);
    }

    /// A packet id that nothing of this client's uses.
    pub fn free_id(&self) -> PacketId {
        let mut number = self.last_id;
        loop {
            number = number.wrapping_add(1);
            let used = |id: PacketId| {
                self.outgoing.iter().any(|out| out.id == id)
                    || self.change.as_ref().is_some_and(|change| change.id == id)
            };
            if let Some(id) = PacketId::new(number)
                && !used(id)
            {
                return id;
            }
        }
    }

    /// The message that was published under this packet id and is not through.
    pub fn outgoing_of(&self, id: PacketId) -> Option<&Outgoing> {
        self.outgoing.iter().find(|out| out.id == id)
    }
}
