//! What must be found: a ledger without faults is spoilt in each way that the
//! verdict claims to notice, and the verdict has to notice it. So a run that
//! finds nothing is known to have been able to.

use std::path::Path;
use std::rc::Rc;

use crate::ledger::{self, Entry, Event};
use crate::plan::{ClientNumber, DEAD, DELAYED, GROUPS, MessageKey, Plan, Role};
use crate::random::Random;
use crate::verdict::{Kind, Verdict};
use crate::wire::PacketId;

/// A way to spoil a ledger; `None`: it has nothing to be spoilt so.
type Spoil = fn(&Plan, Vec<Entry>, &mut Random) -> Option<Vec<Entry>>;

const WAYS: &[(&str, Kind, Spoil)] = &[
    (
        "a message that a session never got",
        Kind::Lost,
        lose_delivery,
    ),
    ("a job that no worker settled", Kind::Lost, lose_job),
    ("a session that is gone", Kind::Lost, lose_session),
    ("a retained message that is gone", Kind::Lost, lose_retained),
    (
        "a QoS 2 message that came twice",
        Kind::Duplicate,
        double_delivery,
    ),
    (
        "a QoS 2 job that two workers got",
        Kind::Duplicate,
        double_job,
    ),
    ("two messages in the wrong order", Kind::OutOfOrder, swap),
    (
        "a job of a group that came before an earlier one was done",
        Kind::OutOfOrder,
        lose_job_of_group,
    ),
    ("a delayed job that came too early", Kind::Other, hurry_job),
    (
        "a rejected job that is no dead letter",
        Kind::Lost,
        lose_dead_letter,
    ),
];

/// How often each way is tried before it counts as not noticed.
const DRAWS_MAX: usize = 20;

/// The ways that the verdict does not notice in this ledger, which is without
/// faults, or that there is nothing in it to be spoilt by.
///
/// # Errors
/// If the ledger cannot be read.
pub fn unnoticed(ledger: &Path) -> Result<Vec<String>, String> {
    let (plan, entries) = ledger::read_file(ledger)?;
    let plan = Rc::new(plan);
    let mut random = Random::named(plan.seed, "control");
    let ways = WAYS.iter().filter(|(name, kind, spoil)| {
        // Not every place that is drawn is one where it would be wrong.
        let noticed = (0..DRAWS_MAX).any(|_| {
            spoil(&plan, entries.clone(), &mut random).is_some_and(|spoilt| {
                let faults = Verdict::of(&plan, &spoilt).0.faults();
                faults.iter().any(|fault| fault.kind == *kind)
            })
        });
        !noticed && (plan.with_queues || !name.contains("job"))
    });
    Ok(ways
        .map(|(name, ..)| format!("the control, {name}, was not noticed"))
        .collect())
}

fn lose_delivery(plan: &Plan, mut entries: Vec<Entry>, random: &mut Random) -> Option<Vec<Entry>> {
    let (client, message) = draw(&entries, random, |entry| {
        let subscriber = matches!(plan.clients[entry.client].role, Role::Subscriber { .. });
        got(entry, 0).filter(|_| subscriber)
    })?;
    entries.retain(|entry| entry.client != client || got(entry, 0) != Some((client, message)));
    Some(entries)
}

fn lose_job(plan: &Plan, entries: Vec<Entry>, random: &mut Random) -> Option<Vec<Entry>> {
    lose_job_of(plan, entries, random, |_| true)
}

fn lose_job_of_group(plan: &Plan, entries: Vec<Entry>, random: &mut Random) -> Option<Vec<Entry>> {
    lose_job_of(plan, entries, random, |queue| queue == GROUPS)
}

fn lose_dead_letter(plan: &Plan, entries: Vec<Entry>, random: &mut Random) -> Option<Vec<Entry>> {
    lose_job_of(plan, entries, random, |queue| queue == DEAD)
}

fn lose_job_of(
    plan: &Plan,
    mut entries: Vec<Entry>,
    random: &mut Random,
    of: impl Fn(usize) -> bool,
) -> Option<Vec<Entry>> {
    let job = |entry: &Entry| match (&plan.clients[entry.client].role, &entry.event) {
        (Role::Worker { queue, .. }, Event::Done { message, .. }) if of(*queue) => {
            Some((*queue, *message))
        }
        _ => None,
    };
    let lost = draw(&entries, random, job)?;
    entries.retain(|entry| job(entry) != Some(lost));
    Some(entries)
}

/// A job that was put off, as if it had come at once.
fn hurry_job(plan: &Plan, mut entries: Vec<Entry>, random: &mut Random) -> Option<Vec<Entry>> {
    let at = draw_at(&entries, random, |entry| {
        matches!(
            plan.clients[entry.client].role,
            Role::Worker { queue: DELAYED, .. }
        ) && got(entry, 1).is_some()
    })?;
    entries[at].micros = 0;
    Some(entries)
}

fn lose_session(_: &Plan, mut entries: Vec<Entry>, random: &mut Random) -> Option<Vec<Entry>> {
    let at = draw_at(&entries, random, |entry| {
        matches!(entry.event, Event::ConnAck { present: true })
    })?;
    entries[at].event = Event::ConnAck { present: false };
    Some(entries)
}

fn lose_retained(_: &Plan, mut entries: Vec<Entry>, random: &mut Random) -> Option<Vec<Entry>> {
    // The last look comes when all is acknowledged: only one value may be then.
    let last = entries.len().saturating_sub(1000);
    let at = last
        + draw_at(&entries[last..], random, |entry| {
            matches!(
                entry.event,
                Event::Retained {
                    message: Some(_),
                    ..
                }
            )
        })?;
    if let Event::Retained { message, .. } = &mut entries[at].event {
        *message = None;
    }
    Some(entries)
}

fn double_delivery(plan: &Plan, entries: Vec<Entry>, random: &mut Random) -> Option<Vec<Entry>> {
    let at = draw_at(&entries, random, |entry| {
        matches!(plan.clients[entry.client].role, Role::Subscriber { .. })
            && got(entry, 2).is_some()
    })?;
    let client = entries[at].client;
    again(entries, at, client)
}

fn double_job(plan: &Plan, entries: Vec<Entry>, random: &mut Random) -> Option<Vec<Entry>> {
    let queue_of = |client: ClientNumber| match plan.clients[client].role {
        Role::Worker { queue, qos: 2 } => Some(queue),
        _ => None,
    };
    // One of a QoS 2 publisher: it was sent once.
    let at = draw_at(&entries, random, |entry| {
        let message = got(entry, 2).filter(|_| queue_of(entry.client).is_some());
        let publisher = message.map(|(_, message)| &plan.clients[message.publisher].role);
        matches!(publisher, Some(Role::Publisher { qos: 2 }))
    })?;
    let first = entries[at].client;
    let queue = queue_of(first);
    let other =
        (0..plan.clients.len()).find(|&client| client != first && queue_of(client) == queue)?;
    again(entries, at, other)
}

/// The same arrival once more, for this client, under a packet id that nothing
/// else has.
fn again(mut entries: Vec<Entry>, at: usize, client: ClientNumber) -> Option<Vec<Entry>> {
    let mut entry = entries[at].clone();
    entry.client = client;
    if let Event::Got { id, .. } = &mut entry.event {
        *id = PacketId::MAX;
    }
    entries.push(entry);
    Some(entries)
}

/// Two first sightings of one publisher's messages on one topic.
fn swap(plan: &Plan, mut entries: Vec<Entry>, random: &mut Random) -> Option<Vec<Entry>> {
    let topic_of = |message: MessageKey| {
        entries.iter().find_map(|entry| match &entry.event {
            Event::Publish { number, topic, .. }
                if entry.client == message.publisher && *number == message.number =>
            {
                Some(topic.as_str())
            }
            _ => None,
        })
    };
    // Of a session that sees each message once, so that the first sightings are
    // known.
    let (client, first) = draw(&entries, random, |entry| {
        let subscriber = matches!(plan.clients[entry.client].role, Role::Subscriber { .. });
        got(entry, 2).filter(|_| subscriber)
    })?;
    let topic = topic_of(first);
    let after = entries
        .iter()
        .position(|entry| got(entry, 2) == Some((client, first)))?;
    let (at, (_, second)) =
        (entries.iter().enumerate().skip(after + 1)).find_map(|(at, entry)| {
            let (receiver, message) = got(entry, 2)?;
            let fits = receiver == client
                && message.publisher == first.publisher
                && topic_of(message) == topic;
            fits.then_some((at, (receiver, message)))
        })?;
    for (at, new) in [(after, second), (at, first)] {
        if let Event::Got { message, .. } = &mut entries[at].event {
            *message = new;
        }
    }
    Some(entries)
}

/// Who got what, at this QoS or a higher one.
fn got(entry: &Entry, qos_min: u8) -> Option<(ClientNumber, MessageKey)> {
    match entry.event {
        Event::Got { qos, message, .. } if qos >= qos_min => Some((entry.client, message)),
        _ => None,
    }
}

fn draw<T>(entries: &[Entry], random: &mut Random, of: impl Fn(&Entry) -> Option<T>) -> Option<T> {
    let at = draw_at(entries, random, |entry| of(entry).is_some())?;
    of(&entries[at])
}

/// The place of one of those entries.
fn draw_at(entries: &[Entry], random: &mut Random, is: impl Fn(&Entry) -> bool) -> Option<usize> {
    let start = random.below(entries.len().max(1));
    let from_there = (start..entries.len()).chain(0..start);
    from_there.into_iter().find(|&at| is(&entries[at]))
}
