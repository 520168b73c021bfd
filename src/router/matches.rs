//! What a topic is matched to, and how one is made of a receiver's several
//! subscriptions.
//!
//! Hardly any receiver has more than one subscription that matches. What
//! those need that have, more identifiers than one or other options for their
//! own messages, is in a list beside the targets; a target stays as small as
//! what was asked for.

use super::{Receiver, Subscription};
use crate::message::Qos;

/// A receiver of a topic: once, however many of its filters match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    pub receiver: Receiver,
    /// What all its subscriptions that match ask for together; for what the
    /// receiver published itself see [`Matches::own`].
    pub subscription: Granted,
    /// Whether `id` is where the details begin in the list of its topic.
    listed: bool,
    /// The only identifier; 0: none.
    id: u32,
}

/// How a receiver gets a topic's messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Granted {
    /// The maximum of those that match [MQTT-3.3.4-2].
    pub qos: Qos,
    /// Not at all what the receiver published itself [MQTT-3.8.3-3]: none of
    /// its subscriptions that match takes that.
    pub no_local: bool,
    /// Whether any of them wants RETAIN as it was published [MQTT-3.3.1-13].
    pub retain_as_published: bool,
}

/// The receivers of a topic.
#[derive(Clone, Copy, Debug)]
pub struct Matches<'c> {
    /// Each receiver once, in the order of [`Receiver`].
    pub targets: &'c [Target],
    pub(super) details: &'c [u32],
}

// As large as a receiver and its one subscription.
const _: () = assert!(size_of::<Target>() == size_of::<Receiver>() + size_of::<Subscription>());

/// What stands before the identifiers of a target whose details are listed:
/// the options for its own messages, how many of the identifiers are for
/// those, and how many there are.
const HEAD: usize = 3;

impl<'c> Matches<'c> {
    /// The identifiers of all subscriptions of a target that match, each from
    /// 1 to 268,435,455 [MQTT-3.3.4-3], [MQTT-3.3.4-4]. What several of them
    /// share is there as often, in no particular order. None for groups and
    /// queues: theirs are their members'.
    ///
    /// `target` is one of these targets.
    #[inline]
    pub fn ids<'t>(&self, target: &'t Target) -> &'t [u32]
    where
        'c: 't,
    {
        match self.listed(target) {
            Some((_, ids, _)) => ids,
            None => target.single_id(),
        }
    }

    /// How a target gets what it published itself, and with which
    /// identifiers: only those of its subscriptions count that are without No
    /// Local. `None`: not at all [MQTT-3.8.3-3].
    ///
    /// `target` is one of these targets.
    pub fn own<'t>(&self, target: &'t Target) -> Option<(Granted, &'t [u32])>
    where
        'c: 't,
    {
        if target.subscription.no_local {
            return None;
        }
        Some(match self.listed(target) {
            Some((own, ids, own_ids_len)) => (own, &ids[..own_ids_len]),
            None => (target.subscription, target.single_id()),
        })
    }

    /// Whether it matters for a target if the message is its own.
    #[inline]
    pub fn minds_own(&self, target: &Target) -> bool {
        target.subscription.no_local || target.listed
    }

    /// The options for own messages, all identifiers, and how many of them
    /// are for own messages.
    #[inline]
    fn listed(&self, target: &Target) -> Option<(Granted, &'c [u32], usize)> {
        if !target.listed {
            return None;
        }
        let (head, ids) = self.details[target.id as usize..].split_at(HEAD);
        Some((
            Granted::from_bits(head[0]),
            &ids[..head[2] as usize],
            head[1] as usize,
        ))
    }
}

impl Target {
    pub(super) fn new(receiver: Receiver, subscription: Subscription) -> Target {
        Target {
            receiver,
            subscription: Granted {
                qos: subscription.qos,
                no_local: subscription.no_local,
                retain_as_published: subscription.retain_as_published,
            },
            listed: false,
            id: subscription.id.map_or(0, |id| id.get()),
        }
    }

    fn single_id(&self) -> &[u32] {
        match self.id {
            0 => &[],
            _ => std::slice::from_ref(&self.id),
        }
    }
}

impl Granted {
    fn merge(self, other: Granted) -> Granted {
        Granted {
            qos: self.qos.max(other.qos),
            no_local: self.no_local && other.no_local,
            retain_as_published: self.retain_as_published || other.retain_as_published,
        }
    }

    /// Only for what is not No Local.
    fn to_bits(self) -> u32 {
        self.qos as u32 | u32::from(self.retain_as_published) << 2
    }

    fn from_bits(bits: u32) -> Granted {
        Granted {
            qos: Qos::from_bits(bits as u8 & 3).expect("the bits were made of a QoS"),
            no_local: false,
            retain_as_published: bits & 4 != 0,
        }
    }
}

/// Makes one target of all that were found of the same receiver, and puts
/// them into order. `details` is empty in the end or begins with its length.
pub(super) fn merge(found: &mut Vec<Target>, details: &mut Vec<u32>) {
    details.clear();
    found.sort_by_key(|target| target.receiver);
    let (mut merged, mut rest) = (0, 0);
    while let Some(&first) = found.get(rest) {
        let of_another = |target: &Target| target.receiver != first.receiver;
        let len = found[rest..].iter().position(of_another);
        let end = len.map_or(found.len(), |len| rest + len);
        found[merged] = match end - rest {
            1 => first,
            _ => merge_run(&found[rest..end], details),
        };
        merged += 1;
        rest = end;
    }
    found.truncate(merged);
    let len = details.len();
    if let Some(first) = details.first_mut() {
        *first = len as u32;
    }
}

/// Makes one of a receiver's targets, two at least.
fn merge_run(run: &[Target], details: &mut Vec<u32>) -> Target {
    let granted = |target: &Target| target.subscription;
    let takes_own = |target: &&Target| !target.subscription.no_local;
    let all = run.iter().map(granted).reduce(Granted::merge);
    let subscription = all.expect("a run is not empty");
    let own = run.iter().filter(takes_own);
    let ids_len = run.iter().filter(|target| target.id != 0).count();
    let receiver = run[0].receiver;
    if ids_len < 2 && [0, run.len()].contains(&own.clone().count()) {
        return Target {
            receiver,
            subscription,
            listed: false,
            id: run.iter().map(|target| target.id).max().unwrap_or(0),
        };
    }
    if details.is_empty() {
        details.push(0); // for the length
    }
    let head = details.len();
    let own_bits = own.clone().map(granted).reduce(Granted::merge);
    details.extend([own_bits.map_or(0, Granted::to_bits), 0, ids_len as u32]);
    // Those of own messages come first.
    details.extend(own.map(|target| target.id).filter(|&id| id != 0));
    details[head + 1] = (details.len() - head - HEAD) as u32;
    let others = run.iter().filter(|target| target.subscription.no_local);
    details.extend(others.map(|target| target.id).filter(|&id| id != 0));
    Target {
        receiver,
        subscription,
        listed: true,
        id: head as u32,
    }
}
