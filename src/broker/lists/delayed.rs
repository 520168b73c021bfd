//! Publications to ordinary topics that are put off: `$delayed/SECONDS/TOPIC`.
//!
//! They wait in a list of their own that no client can reach, stored like jobs.
//! Its one member is the broker: what is due is published, and that it left the
//! list is stored with it, so that it is published once, whatever happens.

use std::sync::Arc;

use super::{Kind, List};
use crate::broker::publish::{Queued, Refused};
use crate::broker::timers::Timer;
use crate::broker::{Core, Worker};
use crate::message::{LeaseId, Message, Place, Qos, QueueId, SessionId, Time};
use crate::protocol::ReasonCode;
use crate::queue::{Ask, Full, Membership, Settlement};
use crate::session::{Close, Effects, Publication};

/// The list's name; queues' begin with `$queue/`.
pub(in crate::broker) const NAME: &str = "$delayed";

/// The broker as a member: no session has that place.
const MEMBER: SessionId = SessionId(Place {
    slot: u32::MAX,
    generation: u32::MAX,
});

/// Published before others get their turn.
const PAGE: u32 = 256;

impl Core {
    /// Puts a publication off.
    pub(in crate::broker) fn put_off(
        &self,
        effects: &mut Effects,
        publication: &Publication<'_>,
        due: Time,
        now: Time,
    ) -> Result<Queued, Refused> {
        let cost_bytes = publication.cost_bytes();
        let ask = Ask {
            due,
            ..Ask::default()
        };
        loop {
            let id = match self.list_named(NAME) {
                Some(id) => id,
                None => self.create_delayed(effects, now),
            };
            let put_in = self.change_list_with(effects, id, now, |list, effects| {
                list.queue.reserve(cost_bytes)?;
                list.put_in(&self.store, effects, publication, &ask, now);
                Ok::<_, Full>(())
            });
            match put_in {
                Some(Ok(())) => return Ok(Queued::new(publication.id)),
                Some(Err(_)) => {
                    return Err(Refused::QueueFull {
                        queue: id,
                        cost_bytes,
                    });
                }
                None => {} // It does not go; but who knows.
            }
        }
    }

    pub(super) fn prepare_delayed(list: &mut List, now: Time) {
        let membership = Membership {
            qos: Qos::AtLeastOnce,
            prefetch: Some(PAGE),
            ack_timeout: None,
        };
        list.queue.join(MEMBER, membership, now);
    }

    /// Publishes what is due; what is refused is tried again.
    pub(super) fn publish_due(&self, worker: &mut Worker, id: QueueId, now: Time) {
        let mut due: Vec<(LeaseId, Arc<Message>)> = Vec::new();
        if let Some(mut list) = self.lists.lock(id.0).filter(|list| list.is_delayed()) {
            while let Some(lease) = list.queue.poll_lease(now) {
                due.push((lease.id, lease.message.clone()));
            }
        }
        if due.is_empty() {
            return;
        }
        for (lease, message) in due {
            let published = self.pinned(worker, |worker| {
                let publication = Publication::of(&message, now);
                let topic = publication.topic.as_str();
                // Decided now, for a right can be lost meanwhile.
                let published = match self.may_still_publish(&publication) {
                    true => self.publish(worker, &publication, topic, now),
                    false => Err(Refused::Never(Close::new(
                        ReasonCode::NotAuthorized,
                        "its publisher may not publish it any more",
                    ))),
                };
                let settlement = match &published {
                    Err(refused) if refused.is_for_now() => Settlement::Fail {
                        delay: None,
                        said: "",
                    },
                    Ok(_) | Err(_) => Settlement::Done,
                };
                self.settle(worker, id, lease, settlement, now);
                published
            });
            if let Err(Refused::Never(close)) = published {
                self.counters.refused_messages.increment();
                let topic = message.topic();
                tracing::warn!(topic = topic.as_str(), why = %close.why, "a delayed message was refused when it was due");
            }
        }
        // There may be more.
        self.timers.schedule(now, Timer::Queue(id));
    }
}

impl List {
    pub(super) fn is_delayed(&self) -> bool {
        matches!(self.kind, Kind::Delayed)
    }
}
