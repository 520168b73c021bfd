//! Rules that change while clients are here, and rights that were lost since.
//!
//! What is asked before it is done is where that is done; the rules are
//! `access`'s.

use std::sync::Arc;

use super::link::Link;
use super::{Core, Worker};
use crate::access::explain::{Explained, Question};
use crate::access::rules::{Reach, Rights, Rules};
use crate::access::{Client, OwnRights, Policy};
use crate::message::{Identity, QueueId, SessionId, Time};
use crate::mount::Mount;
use crate::router::NodeId;
use crate::session::{Gate, Publication, Session, Subscribed};
use crate::topic::{self, TopicFilter, TopicLimits};

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

    /// As [`Core::set_rules`], with all that decides.
    pub fn set_policy(&self, worker: &mut Worker, policy: Policy, now: Time) {
        self.access.set_policy(policy);
        self.bind_all(worker, now);
    }

    /// What the rules in force say to something that somebody may want to do; with
    /// the rights that came with the client, while it has a session.
    ///
    /// # Errors
    /// It is about no topic or filter: a sentence.
    pub fn explain(
        &self,
        identity: &Identity,
        question: &Question<'_>,
    ) -> Result<Explained, String> {
        let place = self.clients.get(&identity.client).map(|entry| entry.0);
        let session = place.and_then(|place| self.sessions.lock(place));
        let session = session.filter(|session| session.identity.user == identity.user);
        let own = session.and_then(|session| session.own_rights.clone());
        let own = own.as_ref();
        match self.access.rights(Client { identity, own }) {
            Some(rights) => question.explain(&rights),
            None => {
                question.check()?;
                Ok(Explained {
                    is_allowed: true,
                    because: vec!["there are no rules: everybody may do everything".to_owned()],
                })
            }
        }
    }

    /// All sessions are bound to the rules that are in force.
    pub fn bind_all(&self, worker: &mut Worker, now: Time) {
        for place in self.sessions.places() {
            self.bind(worker, SessionId(place), now);
            worker.effects.wake_all();
        }
    }

    /// A client that has authenticated again has these rights of its own from
    /// now on, and no others.
    pub(super) fn take_rights(
        &self,
        worker: &mut Worker,
        link: &mut Link,
        own_rights: Option<OwnRights>,
        now: Time,
    ) {
        if link.own_rights == own_rights {
            return;
        }
        link.own_rights = own_rights;
        link.permit.take();
        let session = self.sessions.lock(link.session.0);
        if let Some(mut session) = session.filter(|one| one.is_link(link.number)) {
            session.own_rights.clone_from(&link.own_rights);
            self.store_head(&mut session, &mut worker.effects, Time::MAX);
            drop(session);
            self.bind(worker, link.session, now);
        }
    }

    /// The rights that whoever published something has of its own, as far as
    /// that is known: who is gone, and may have had some, has none any more.
    pub(super) fn own_rights_of(&self, publisher: &Identity) -> Option<OwnRights> {
        if !self.access.takes_own() {
            return None;
        }
        let place = self.clients.get(&publisher.client).map(|entry| entry.0);
        let session = place.and_then(|place| self.sessions.lock(place));
        match session.filter(|session| session.identity.user == publisher.user) {
            Some(session) => session.own_rights.clone(),
            None => Some(OwnRights::nothing("a client that is gone")),
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
        let (identity, own) = (session.identity.clone(), session.own_rights.clone());
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
            let who = Client {
                identity: &identity,
                own: own.as_ref(),
            };
            let asked = match held {
                Subscribed::Queue(_) => self.may_be_member(who, filter, false),
                _ => self.access.may_share(who, &[], [filter].into_iter()),
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
        let rights = self.access.rights(session.client());
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
        // The broker's own; or by the broker, for a person.
        let is_own = topic::is_sys(topic) || **publication.publisher == *self.identity;
        if !self.access.is_on() || is_own {
            return true;
        }
        let publish = (topic, publication.qos, publication.retain);
        let asked = self
            .access
            .may_still_publish(publication.publisher, publish);
        if let Err(denied) = &asked {
            let client = &publication.publisher.client;
            tracing::debug!(?client, topic, why = %denied, "what it published before is not delivered");
        }
        asked.is_ok()
    }
}
