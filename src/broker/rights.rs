//! Rules that change while clients are here, and rights that were lost since.
//!
//! What is asked before it is done is where that is done; the rules are
//! `access`'s.

use std::sync::Arc;

use super::{Core, Worker};
use crate::access::rules::{Reach, Rights, Rules};
use crate::message::{QueueId, SessionId, Time};
use crate::mount::Mount;
use crate::router::NodeId;
use crate::session::{Gate, Publication, Session, Subscribed};
use crate::topic::{TopicFilter, TopicLimits};

impl Gate for Rights {
    fn may_read(&self, topic: &[u8]) -> bool {
        Rights::may_read(self, topic)
    }
}

/// Below a mount point nothing else is there, whatever brings it.
struct Below {
    mount: Arc<Mount>,
    rights: Option<Arc<Rights>>,
}

impl Gate for Below {
    fn may_read(&self, topic: &[u8]) -> bool {
        let rights = self.rights.as_ref();
        self.mount.holds(topic) && rights.is_none_or(|rights| rights.may_read(topic))
    }
}

/// Who is asked of what goes to a session, below its mount point and where its
/// client may not read all.
pub(super) fn gate_of(
    mount: Option<&Arc<Mount>>,
    rights: Option<Arc<Rights>>,
) -> Option<Arc<dyn Gate>> {
    match mount.cloned() {
        Some(mount) => Some(Arc::new(Below { mount, rights })),
        None => rights.map(|rights| rights as Arc<dyn Gate>),
    }
}

impl Core {
    /// These rules are in force from now on, for those too who are connected,
    /// have subscribed, or are absent.
    pub fn set_rules(&self, worker: &mut Worker, rules: Rules, now: Time) {
        self.access.set_rules(rules);
        self.bind_all(worker, now);
    }

    /// All sessions are bound to the rules that are in force.
    pub fn bind_all(&self, worker: &mut Worker, now: Time) {
        for place in self.sessions.places() {
            self.bind(worker, SessionId(place), now);
            worker.effects.wake_all();
        }
    }

    /// A session gets nothing any more that its client may not have: other
    /// deliveries are asked for one by one, and queues and share groups that it
    /// may not be in any more it leaves.
    pub(super) fn bind(&self, worker: &mut Worker, id: SessionId, now: Time) {
        if !self.access.is_on() {
            return;
        }
        let Some(mut session) = self.sessions.lock(id.0) else {
            return;
        };
        self.set_gate(&mut session);
        let identity = session.identity.clone();
        let subscriptions = session.subscriptions.keys().copied();
        let memberships: Vec<(Subscribed, QueueId)> = subscriptions
            .filter_map(|held| match held {
                Subscribed::Queue(list) | Subscribed::Group(list) => Some((held, list)),
                Subscribed::Filter(_) => None,
            })
            .collect();
        drop(session);
        for (held, list) in memberships {
            let name = self.lists.lock(list.0).map(|list| list.name().to_owned());
            let Some(name) = name else { continue };
            let group = name.strip_prefix("$share/");
            let group = group.and_then(|group| group.split_once('/'));
            let filter = match group {
                Some((_, filter)) => filter,
                None => name.strip_prefix("$queue/").unwrap_or(&name),
            };
            let Ok(filter) = TopicFilter::parse(filter, TopicLimits::NONE) else {
                continue;
            };
            let asked = match held {
                Subscribed::Queue(_) => self.may_be_member(&identity, filter, false),
                _ => self.access.may_share(&identity, &[], [filter].into_iter()),
            };
            if let Err(denied) = asked {
                let client = &identity.client;
                tracing::info!(?client, list = name, why = %denied, "a member has to leave");
                self.pinned(worker, |worker| {
                    self.take_out_member(worker, id, (held, list), now);
                });
            }
        }
    }

    /// Who is asked of what goes to the session from now on. What it has from
    /// before may have come by what it is not subscribed to any more.
    pub(super) fn set_gate(&self, session: &mut Session) {
        let rights = self.access.rights(&session.identity);
        let rights =
            rights.filter(|rights| session.has_messages() || !self.reads_all(session, rights));
        session.gate = gate_of(session.mount.as_ref(), rights);
    }

    /// Whether all that comes by the session's subscriptions may be read: who may
    /// not read all of a queue or share group is no member.
    fn reads_all(&self, session: &Session, rights: &Rights) -> bool {
        session.subscriptions.keys().all(|subscribed| {
            let Subscribed::Filter(node) = subscribed else {
                return true;
            };
            let Some(filter) = self.router.filter_of(NodeId(*node)) else {
                return true;
            };
            TopicFilter::parse(&filter, TopicLimits::NONE)
                .is_ok_and(|filter| matches!(rights.reach(filter), Reach::All(_)))
        })
    }

    /// Whether the publisher of what was kept, or put off, may publish it still.
    pub(super) fn may_still_publish(&self, publication: &Publication<'_>) -> bool {
        let topic = publication.topic.as_str();
        if !self.access.is_on() || topic.starts_with("$SYS/") {
            return true;
        }
        let publish = (topic, publication.qos, publication.retain);
        let asked = self.access.may_publish_once(publication.publisher, publish);
        if let Err(denied) = &asked {
            let client = &publication.publisher.client;
            tracing::debug!(?client, topic, why = %denied, "what it published before is not delivered");
        }
        asked.is_ok()
    }
}
