//! Answers in words and columns.

use std::fmt::Write;

use serde_json::{Map, Value};

use crate::broker::steer::{
    Configured, EventView, Given, MemberView, MessageState, MessageView, MovedTo, Peeked,
    QueueView, Shown,
};
use crate::cli::table::Side::{Left, Right};
use crate::cli::table::{bytes, moment, rate, shortened, shown, span, table};

/// Characters of a payload in a line.
const PAYLOAD_CHARS_MAX: usize = 60;

/// A queue a line.
pub fn queues(queues: &[QueueView]) -> String {
    let head = [
        ("QUEUE", Left),
        ("READY", Right),
        ("IN FLIGHT", Right),
        ("DELAYED", Right),
        ("DEAD", Right),
        ("BYTES", Right),
        ("MEMBERS", Right),
        ("OLDEST", Right),
        ("IN/S", Right),
        ("OUT/S", Right),
        ("", Left),
    ];
    let rows = queues.iter().map(|queue| {
        vec![
            shown(&queue.name),
            queue.ready.to_string(),
            queue.in_flight.to_string(),
            queue.delayed.to_string(),
            queue.dead.to_string(),
            bytes(queue.bytes),
            queue.members.to_string(),
            queue.oldest_ms.map_or("-".to_owned(), span),
            rate(queue.enqueued_per_sec),
            rate(queue.done_per_sec),
            if queue.paused { "paused" } else { "" }.to_owned(),
        ]
    });
    table(&head, &rows.collect::<Vec<_>>())
}

/// All that is known of a queue.
pub fn queue(shown_queue: &Shown, all: bool) -> String {
    let queue = &shown_queue.queue;
    let mut text = String::new();
    let configured = match queue.configured {
        Configured::File => "by the file",
        Configured::RunTime => "while the broker ran",
        Configured::OnTheFly => "not: it was made on the fly",
    };
    let lines = [
        ("queue", shown(&queue.name)),
        ("configured", configured.to_owned()),
        ("paused", if queue.paused { "yes" } else { "no" }.to_owned()),
        ("ready", queue.ready.to_string()),
        ("in flight", queue.in_flight.to_string()),
        ("delayed", queue.delayed.to_string()),
        ("dead letters", queue.dead.to_string()),
        ("set aside", shown_queue.set_aside.to_string()),
        ("bytes", bytes(queue.bytes)),
        ("oldest", queue.oldest_ms.map_or("-".to_owned(), span)),
        (
            "a second",
            format!(
                "{} in, {} out",
                rate(queue.enqueued_per_sec),
                rate(queue.done_per_sec)
            ),
        ),
        ("filters", listed(&shown_queue.filters)),
    ];
    for (name, value) in lines {
        _ = writeln!(text, "{:<14}{value}", format!("{name}:"));
    }
    for moving in &shown_queue.moving {
        _ = writeln!(
            text,
            "moving:       {} to {}, {} a second",
            moving.left,
            shown(&moving.to),
            moving.rate
        );
    }
    let not_zero = shown_queue.totals.iter().filter(|(_, count)| **count != 0);
    let totals: Map<String, Value> = not_zero.map(|(k, v)| (k.clone(), v.clone())).collect();
    section(&mut text, "totals", &totals);
    match all {
        true => section(&mut text, "settings", &shown_queue.settings),
        false => section(&mut text, "settings that differ", &shown_queue.differing),
    }
    section(&mut text, "given while the broker ran", &shown_queue.given);
    if !shown_queue.member_list.is_empty() {
        text += "\n";
        text += &members(&shown_queue.member_list);
    }
    text
}

fn listed(texts: &[String]) -> String {
    match texts {
        [] => "-".to_owned(),
        texts => {
            let texts: Vec<_> = texts.iter().map(|text| shown(text)).collect();
            texts.join(", ")
        }
    }
}

fn section(text: &mut String, title: &str, keys: &Map<String, Value>) {
    if keys.is_empty() {
        return;
    }
    _ = writeln!(text, "\n{title}:");
    for (key, value) in keys {
        _ = writeln!(text, "  {} = {}", shown(key), shown(&value.to_string()));
    }
}

fn members(members: &[MemberView]) -> String {
    let head = [
        ("MEMBER", Left),
        ("QOS", Right),
        ("IN FLIGHT", Right),
        ("PREFETCH", Right),
        ("OLDEST", Right),
        ("LATENCY", Right),
        ("", Left),
    ];
    let rows = members.iter().map(|member| {
        let state = match (member.connected, member.resting_ms) {
            (false, _) => "away".to_owned(),
            (true, Some(left)) => format!("busy, rests for {}", span(left)),
            (true, None) => String::new(),
        };
        vec![
            shown(&member.client),
            member.qos.to_string(),
            member.in_flight.to_string(),
            member.prefetch.to_string(),
            member.oldest_ms.map_or("-".to_owned(), span),
            (member.latency_ms).map_or("-".to_owned(), |ms| span(ms as u64)),
            state,
        ]
    });
    table(&head, &rows.collect::<Vec<_>>())
}

/// What a queue was given.
pub fn given(given: &Given) -> String {
    let mut text = format!("The queue {:?} is changed.\n", given.queue);
    section(&mut text, "given while the broker ran", &given.given);
    text
}

/// A message a line.
pub fn messages(peeked: &Peeked) -> String {
    let head = [
        ("ID", Left),
        ("STATE", Left),
        ("TOPIC", Left),
        ("PRIORITY", Right),
        ("GROUP", Left),
        ("TIMES", Right),
        ("ENQUEUED (UTC)", Left),
        ("BYTES", Right),
        ("PAYLOAD", Left),
    ];
    let rows = peeked.messages.iter().map(|message| {
        vec![
            message.id.clone(),
            state(message),
            shown(&message.topic),
            message.priority.to_string(),
            message.group.as_deref().map_or("-".to_owned(), shown),
            message.deliveries.to_string(),
            moment(message.enqueued_at_ms),
            message.payload_bytes.to_string(),
            payload(message),
        ]
    });
    let mut text = table(&head, &rows.collect::<Vec<_>>());
    if peeked.cut {
        text +=
            "There are more, but no room for them in one answer: ask for less with --payload.\n";
    }
    text
}

fn state(message: &MessageView) -> String {
    match message.state {
        MessageState::Ready => "ready".to_owned(),
        MessageState::Delayed => match message.due_at_ms {
            Some(due) => format!("until {}", moment(due)),
            None => "delayed".to_owned(),
        },
        MessageState::InFlight => {
            format!("with {}", shown(message.client.as_deref().unwrap_or("?")))
        }
    }
}

fn payload(message: &MessageView) -> String {
    match (&message.payload, &message.payload_base64) {
        (Some(text), _) => shortened(text, PAYLOAD_CHARS_MAX),
        (None, Some(base64)) => format!("base64:{}", shortened(base64, PAYLOAD_CHARS_MAX)),
        (None, None) => String::new(),
    }
}

/// How many were moved, and what else.
pub fn moved(moved: &MovedTo) -> String {
    let mut text = match moved.goes_on {
        true => format!(
            "{} messages go from {:?} to {:?} from now on; `rotamq queue show` tells how many are left.\n",
            moved.left, moved.from, moved.to
        ),
        false => format!(
            "{} messages are moved from {:?} to {:?}; {} are left that no member has.\n",
            moved.moved, moved.from, moved.to, moved.left
        ),
    };
    if !moved.not_found.is_empty() {
        let ids = moved.not_found.join(", ");
        _ = writeln!(text, "Not there, or with a member: {ids}.");
    }
    text
}

/// An event a line; with its message, where they are of several.
pub fn events(events: &[EventView], of_several: bool) -> String {
    let lines = events.iter().map(|event| match of_several {
        true => event_line(event),
        false => format!("{}  {}\n", moment(event.at_ms), what(event)),
    });
    lines.collect()
}

/// An event, with its message.
pub fn event_line(event: &EventView) -> String {
    let (at, message) = (moment(event.at_ms), &event.message);
    format!("{at}  {message}  {}\n", what(event))
}

fn what(event: &EventView) -> String {
    let mut text = event.what.clone();
    if let Some(client) = &event.client {
        _ = write!(text, " to {}", shown(client));
    }
    if let Some(reason) = &event.reason {
        _ = write!(text, ": {reason}");
    }
    text
}
