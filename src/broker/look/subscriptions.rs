//! Subscriptions: of a client, of all, and those that a topic's messages go to.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use utoipa::ToSchema;

use super::{Paged, STEPS_MAX, is_like, not_found};
use crate::broker::Core;
use crate::broker::steer::SteerError;
use crate::message::{Place, QueueId, SessionId};
use crate::router::{NodeId, Receiver};
use crate::session::{Granted, Subscribed};
use crate::topic::TopicName;

/// A subscription in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SubscriptionView {
    /// Whose it is; null: all members' of the queue or share group together.
    pub client: Option<String>,
    /// As it was subscribed to: `FILTER`, `$share/GROUP/FILTER` or `$queue/NAME`.
    pub filter: String,
    pub kind: Kind,
    /// The QoS that was granted.
    pub qos: u8,
    /// MQTT 5: not what the client itself published.
    pub no_local: bool,
    /// MQTT 5: RETAIN as it was published.
    pub retain_as_published: bool,
    /// MQTT 5: its Subscription Identifier.
    pub subscription_id: Option<u32>,
    /// Where a topic was asked for: the filter by which it takes that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matched: Option<String>,
}

/// What a subscription is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A filter: the client gets all that it matches.
    Filter,
    /// A share group: one of its members gets it.
    Share,
    /// A work queue: it waits until one of its members has done it.
    Queue,
}

/// Where a page of subscriptions ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Behind that one of the session in this slot.
    Session(u32, Option<Subscribed>),
    /// Behind that receiver of the filter of this node.
    Node(NodeId, Receiver),
}

/// A session, its client's identifier, and what it has subscribed to.
type Subscriber = (SessionId, String, Vec<(Subscribed, Granted)>);

impl Core {
    /// The subscriptions of a client, or of all; those whose filter has that
    /// text, or is like it, which is compared as text: `+` and `#` are no
    /// wildcards there.
    ///
    /// # Errors
    /// There is no such client.
    pub fn list_subscriptions(
        &self,
        client: Option<&str>,
        filter: Option<&str>,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Paged<SubscriptionView, Position>, SteerError> {
        let (mut slot, mut key) = match after {
            Some(Position::Session(slot, key)) => (slot, key),
            _ => (0, None),
        };
        let mut end = self.sessions.end();
        if let Some(client) = client {
            let id = self.session_named(client);
            let missing = || not_found(format!("no client {client:?} has a session"));
            let slot_now = id.ok_or_else(missing)?.0.slot;
            // The session is another one by now: its places have nothing to do with
            // that of the one before.
            key = key.filter(|_| slot == slot_now);
            slot = slot_now;
            end = slot + 1;
        }
        let mut items = Vec::new();
        let mut steps = 0;
        while slot < end {
            if let Some((id, client, held)) = self.subscriptions_in(slot, key) {
                for (held, granted) in held {
                    steps += 1;
                    let view = self.subscription_view(&client, id, held, granted);
                    items.extend(view.filter(|view| is_like(filter, &view.filter)));
                    if items.len() >= limit || steps >= STEPS_MAX {
                        let next = Some(Position::Session(slot, Some(held)));
                        return Ok(Paged { items, next });
                    }
                }
            }
            steps += 1;
            (slot, key) = (slot + 1, None);
            if steps >= STEPS_MAX && slot < end {
                let next = Some(Position::Session(slot, None));
                return Ok(Paged { items, next });
            }
        }
        Ok(Paged { items, next: None })
    }

    /// Who gets what is published to a topic: sessions each, queues and share
    /// groups once, whatever filters of theirs match.
    pub fn list_matching(
        &self,
        topic: TopicName<'_>,
        after: Option<Position>,
        limit: usize,
    ) -> Paged<SubscriptionView, Position> {
        let after = match after {
            Some(Position::Node(node, receiver)) => Some((node, receiver)),
            _ => None,
        };
        let found = self.router.page(topic, after, limit);
        let next = found.last().filter(|_| found.len() == limit);
        let next = next.map(|(node, receiver, _)| Position::Node(*node, *receiver));
        let views = found.iter().filter_map(|(node, receiver, subscription)| {
            let matched = self.router.filter_of(*node)?;
            let (client, filter, kind) = match *receiver {
                Receiver::Session(id) => {
                    let session = self.sessions.lock(id.0)?;
                    let client = session.identity.client.as_str().to_owned();
                    (Some(client), matched.clone(), Kind::Filter)
                }
                Receiver::Group(list) => (None, self.name_of_list(list)?, Kind::Share),
                Receiver::Queue(list) => (None, self.name_of_list(list)?, Kind::Queue),
            };
            Some(SubscriptionView {
                client,
                filter,
                kind,
                qos: subscription.qos as u8,
                no_local: subscription.no_local,
                retain_as_published: subscription.retain_as_published,
                subscription_id: subscription.id.map(|id| id.get()),
                matched: Some(matched),
            })
        });
        Paged {
            items: views.collect(),
            next,
        }
    }

    /// Those of the session in that slot that come after `after`, in their order.
    fn subscriptions_in(&self, slot: u32, after: Option<Subscribed>) -> Option<Subscriber> {
        let (place, session) = self.sessions.lock_slot(slot)?;
        let held = session.subscriptions.iter();
        let held = held.filter(|(held, _)| after.is_none_or(|after| **held > after));
        let mut held: Vec<_> = held.map(|(held, granted)| (*held, *granted)).collect();
        let client = session.identity.client.as_str().to_owned();
        drop(session);
        held.sort_unstable_by_key(|(held, _)| *held);
        Some((SessionId(place), client, held))
    }

    /// `None`: it is gone by now.
    pub(super) fn subscription_view(
        &self,
        client: &str,
        id: SessionId,
        held: Subscribed,
        granted: Granted,
    ) -> Option<SubscriptionView> {
        let (filter, kind, no_local) = match held {
            Subscribed::Filter(node) => {
                let node = NodeId(node);
                let subscription = self.router.subscription(node, Receiver::Session(id))?;
                let filter = self.router.filter_of(node)?;
                (filter, Kind::Filter, subscription.no_local)
            }
            Subscribed::Group(list) => (self.name_of_list(list)?, Kind::Share, false),
            Subscribed::Queue(list) => (self.name_of_list(list)?, Kind::Queue, false),
        };
        Some(SubscriptionView {
            client: Some(client.to_owned()),
            filter,
            kind,
            qos: granted.qos as u8,
            no_local,
            retain_as_published: granted.retain_as_published,
            subscription_id: granted.id.map(|id| id.get()),
            matched: None,
        })
    }
}

/// A list by its place; a client only gives back what it was given.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, place) = match self {
            Position::Session(slot, held) => {
                write!(f, "s{slot}")?;
                match held {
                    None => return Ok(()),
                    Some(Subscribed::Filter(node)) => return write!(f, ".f.{node}.0"),
                    Some(Subscribed::Group(list)) => ('g', list.0),
                    Some(Subscribed::Queue(list)) => ('q', list.0),
                }
            }
            Position::Node(NodeId(node), receiver) => {
                write!(f, "n{node}")?;
                match receiver {
                    Receiver::Session(id) => ('s', id.0),
                    Receiver::Group(list) => ('g', list.0),
                    Receiver::Queue(list) => ('q', list.0),
                }
            }
        };
        write!(f, ".{kind}.{}.{}", place.slot, place.generation)
    }
}

impl FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> Result<Position, ()> {
        let mut parts = text.split('.');
        let first = parts.next().ok_or(())?;
        let number = |text: &str| text.parse::<u32>().map_err(drop);
        let rest = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (None, ..) => None,
            (Some(kind), Some(slot), Some(generation), None) => {
                let (slot, generation) = (number(slot)?, number(generation)?);
                Some((kind, Place { slot, generation }))
            }
            _ => return Err(()),
        };
        if let Some(slot) = first.strip_prefix('s') {
            let held = match rest {
                None => None,
                Some(("f", place)) => Some(Subscribed::Filter(place.slot)),
                Some(("g", place)) => Some(Subscribed::Group(QueueId(place))),
                Some(("q", place)) => Some(Subscribed::Queue(QueueId(place))),
                Some(_) => return Err(()),
            };
            return Ok(Position::Session(number(slot)?, held));
        }
        let node = NodeId(number(first.strip_prefix('n').ok_or(())?)?);
        let receiver = match rest {
            Some(("s", place)) => Receiver::Session(SessionId(place)),
            Some(("g", place)) => Receiver::Group(QueueId(place)),
            Some(("q", place)) => Receiver::Queue(QueueId(place)),
            _ => return Err(()),
        };
        Ok(Position::Node(node, receiver))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_they_are_told() {
        let place = Place {
            slot: 7,
            generation: u32::MAX,
        };
        for position in [
            Position::Session(3, None),
            Position::Session(3, Some(Subscribed::Filter(9))),
            Position::Session(3, Some(Subscribed::Group(QueueId(place)))),
            Position::Session(u32::MAX, Some(Subscribed::Queue(QueueId(place)))),
            Position::Node(NodeId(4), Receiver::Session(SessionId(place))),
            Position::Node(NodeId(4), Receiver::Group(QueueId(place))),
            Position::Node(NodeId(4), Receiver::Queue(QueueId(place))),
        ] {
            assert_eq!(position.to_string().parse(), Ok(position));
        }
        for bad in [
            "",
            "s",
            "n4",
            "x4",
            "s1.f",
            "s1.f.2",
            "s1.x.2.3",
            "n1.f.2.3",
            "s1.f.2.3.4",
            "s4294967296",
            "s-1",
            "s1.f.+.0",
        ] {
            assert_eq!(bad.parse::<Position>(), Err(()), "{bad}");
        }
    }
}
