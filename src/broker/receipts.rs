//! Receipts: what has become of a job, for its producer.
//!
//! Owns what they say, and how they are published: to the response topic of
//! the job's PUBLISH, in its publisher's name, together with what they tell.

use serde_json::{Value, json};

use super::lists::List;
use super::wishes::Wishes;
use super::{Core, Worker};
use crate::access::Client;
use crate::config::Durability;
use crate::message::{Qos, Time};
use crate::protocol::{Properties, PropertiesBuf, Property};
use crate::queue::{Finished, Outcome};
use crate::session::{Effects, Publication, Reply};

impl Core {
    /// A job ended: where its producer wants to know, that is published when
    /// nothing is locked any more.
    pub(super) fn note_receipt(
        &self,
        list: &List,
        finished: &Finished,
        effects: &mut Effects,
        now: Time,
    ) {
        let message = &finished.message;
        // Who looks at dead letters tells nobody that they are done.
        if let Some(queue) = list.queue_name().filter(|_| !list.is_dead_letters())
            && Wishes::lenient(message.properties(), now).receipt
        {
            let kept_in = list.queue.kept_in();
            effects.replies.push(Reply {
                to: message.clone(),
                payload: payload(queue, finished, now).into_bytes(),
                durability: kept_in.map_or(Durability::Memory, |(_, durability)| durability),
                after: effects.receipt,
                at: now,
            });
        }
    }

    /// One after the other: a receipt may drop a job that wants one from a full
    /// queue, and so on for as many as there are.
    #[inline(never)]
    pub(super) fn publish_receipts(&self, worker: &mut Worker) {
        if std::mem::replace(&mut worker.publishing_receipts, true) {
            return;
        }
        while !worker.effects.replies.is_empty() {
            for reply in std::mem::take(&mut worker.effects.replies) {
                if !self.publish_receipt(worker, &reply) {
                    self.counters.dropped_receipts.increment();
                    let client = &reply.to.publisher().client;
                    tracing::debug!(?client, "a receipt could not be published");
                }
            }
        }
        worker.publishing_receipts = false;
    }

    /// Whether it was taken.
    fn publish_receipt(&self, worker: &mut Worker, reply: &Reply) -> bool {
        let (mut topic, mut properties) = (None, PropertiesBuf::new());
        properties
            .push(Property::PayloadFormatIndicator(true))
            .push(Property::ContentType("application/json"));
        for property in Properties::of_valid(reply.to.properties()).iter() {
            match property {
                Property::ResponseTopic(response) => topic = Some(response.as_str()),
                Property::CorrelationData(_) => _ = properties.push(property),
                _ => {}
            }
        }
        let Some(topic) = topic else {
            return false;
        };
        let Ok(name) = self.parse_topic(topic) else {
            return false;
        };
        // Decided now, for a right can be lost meanwhile.
        let publisher = reply.to.publisher();
        let qos = Qos::AtLeastOnce;
        let publish = (topic, qos, false);
        let own_rights = self.own_rights_of(publisher);
        let who = Client {
            identity: publisher,
            own: own_rights.as_ref(),
        };
        if self.access.may_publish_once(who, publish).is_err() {
            return false;
        }
        let id = self.next_message_id(worker);
        let mut publication =
            Publication::new(name, &reply.payload, qos, false, publisher, reply.at, id);
        publication.own_rights = own_rights.as_ref();
        publication.properties = properties.as_properties().as_bytes();
        publication.durability = reply.durability;
        publication.after = reply.after.and(worker.effects.receipt);
        (self.publish(worker, &publication, topic, reply.at)).is_ok()
    }
}

fn payload(queue: &str, finished: &Finished, now: Time) -> String {
    let (outcome, reason) = match finished.outcome {
        Outcome::Done => ("done", None),
        Outcome::Dead(reason) => ("dead", Some(reason.word())),
        Outcome::Expired => ("expired", None),
        Outcome::Dropped | Outcome::Replaced => ("dropped", None),
    };
    let fields: [(&str, Value); 7] = [
        ("message-id", json!(finished.message.id().to_string())),
        ("queue", json!(queue)),
        ("outcome", json!(outcome)),
        ("reason", json!(reason)),
        ("deliveries", json!(finished.deliveries)),
        ("said", json!(finished.said)),
        ("at", json!(now.as_micros() / 1000)),
    ];
    let fields = fields.map(|(name, value)| format!("{name:?}:{value}"));
    format!("{{{}}}", fields.join(","))
}
