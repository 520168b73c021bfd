//! What is told of queues, members and messages.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{
    Configured, EventView, MemberView, MessageState, MessageView, Peeked, QueueView, Queues, Shown,
    SteerError, Tailed,
};
use crate::base64;
use crate::broker::Core;
use crate::broker::lists::{Look, no_queue};
use crate::broker::look::ANSWER_BYTES_MAX;
use crate::config::{QueueSettings, queue_keys};
use crate::message::{QueueId, SessionId, Time};
use crate::pattern;
use crate::protocol::{PacketType, Properties, Property};
use crate::queue::{Event, MemberState, Peek, Seen, What, Whereabouts};
use crate::topic::{TopicFilter, TopicLimits};

impl Core {
    /// Queues whose names come after `after` and are like `name`, by name.
    pub(super) fn list_queues(
        &self,
        name: Option<&str>,
        after: Option<&str>,
        limit: usize,
        now: Time,
    ) -> Queues {
        let is_wanted = |queue: &str| {
            after.is_none_or(|after| queue > after)
                && name.is_none_or(|name| match name.contains('*') {
                    true => pattern::fits(name, queue),
                    false => queue.contains(name),
                })
        };
        let mut found: Vec<(String, QueueId)> = Vec::new();
        for entry in &self.names {
            if let Some(queue) = entry.key().strip_prefix("$queue/")
                && is_wanted(queue)
            {
                found.push((queue.to_owned(), *entry.value()));
            }
        }
        found.sort_unstable();
        let has_more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().map(|(name, _)| name.clone());
        let queues = found.into_iter();
        let queues = queues.filter_map(|(name, id)| {
            let look = self.look(id, now)?;
            Some(self.view(&name, &look, now))
        });
        Queues {
            queues: queues.collect(),
            next: next.filter(|_| has_more),
        }
    }

    pub(super) fn view(&self, name: &str, look: &Look, now: Time) -> QueueView {
        let counts = &look.counts;
        QueueView {
            name: name.to_owned(),
            configured: self.configured(name, look),
            paused: look.paused,
            ready: counts.ready,
            in_flight: counts.in_flight,
            delayed: counts.delayed,
            dead: self.dead_len(name),
            bytes: counts.bytes,
            members: counts.members_connected,
            oldest_ms: counts.oldest.map(|oldest| millis(now.since(oldest))),
            enqueued_per_sec: look.rates.enqueued,
            done_per_sec: look.rates.done,
            enqueued: counts.totals.enqueued,
            done: counts.totals.done,
            redelivered: counts.totals.redelivered,
        }
    }

    /// The dead letters that a queue has.
    pub(in crate::broker) fn dead_len(&self, name: &str) -> usize {
        let dead = self.list_named(&format!("$queue/$dead/{name}"));
        let list = dead.and_then(|id| self.lists.lock(id.0));
        list.map_or(0, |list| {
            let counts = list.queue.counts();
            counts.ready + counts.in_flight + counts.delayed
        })
    }

    fn configured(&self, name: &str, look: &Look) -> Configured {
        let filter = TopicFilter::parse(name, TopicLimits::NONE).ok();
        let in_file = filter.is_some_and(|filter| self.is_configured(filter));
        match (in_file, look.given.is_some()) {
            (true, _) => Configured::File,
            (false, true) => Configured::RunTime,
            (false, false) => Configured::OnTheFly,
        }
    }

    pub(super) fn show_queue(&self, name: &str, now: Time) -> Result<Shown, SteerError> {
        let id = self.queue_named(name)?;
        let look = self.look(id, now).ok_or_else(|| no_queue(name))?;
        let totals = serde_json::to_value(look.counts.totals);
        let totals = totals.ok().and_then(|totals| match totals {
            Value::Object(totals) => Some(totals),
            _ => None,
        });
        let settings = queue_keys(&look.settings);
        let usual = queue_keys(&self.queues_settings().default);
        let differing = settings.iter().filter(|(key, value)| {
            let usual = usual.get(*key);
            usual != Some(*value)
        });
        let differing = differing.map(|(key, value)| (key.clone(), value.clone()));
        let members = look.members.iter();
        let members = members.map(|member| self.member_view(member, &look.settings, now));
        Ok(Shown {
            queue: self.view(name, &look, now),
            filters: look.settings.filters.clone(),
            differing: differing.collect::<Map<_, _>>(),
            settings,
            given: look.given.unwrap_or_default(),
            set_aside: look.set_aside,
            member_list: members.collect(),
            totals: totals.unwrap_or_default(),
            moving: self.movings_of(name),
        })
    }

    fn member_view(&self, member: &MemberState, settings: &QueueSettings, now: Time) -> MemberView {
        MemberView {
            client: self.client_of(member.session).unwrap_or_default(),
            connected: member.is_connected,
            qos: member.qos as u8,
            prefetch: member.prefetch.unwrap_or(settings.prefetch),
            in_flight: member.in_flight,
            oldest_ms: member.oldest.map(|oldest| millis(now.since(oldest))),
            latency_ms: (member.latency).map(|latency| latency.as_micros() as f64 / 1000.0),
            resting_ms: (member.resting_until)
                .filter(|until| *until > now)
                .map(|until| millis(until.since(now))),
        }
    }

    fn client_of(&self, session: SessionId) -> Option<String> {
        let session = self.sessions.lock(session.0)?;
        Some(session.identity.client.as_str().to_owned())
    }

    pub(super) fn peek_queue(
        &self,
        name: &str,
        count: usize,
        in_flight: bool,
        payload_bytes_max: usize,
    ) -> Result<Peeked, SteerError> {
        let id = self.queue_named(name)?;
        let show = |seen: &Seen| {
            let view = self.message_view(seen, payload_bytes_max);
            let bytes = view.cost_bytes();
            (view, bytes)
        };
        let peek = Peek::new(count, in_flight);
        let (messages, cut) = self.peek(id, name, peek, ANSWER_BYTES_MAX, show)?;
        Ok(Peeked {
            queue: name.to_owned(),
            messages,
            cut,
        })
    }

    fn message_view(&self, seen: &Seen, payload_bytes_max: usize) -> MessageView {
        let message = &seen.message;
        let (state, due, holder) = match seen.whereabouts {
            Whereabouts::Ready => (MessageState::Ready, None, None),
            Whereabouts::Delayed { due } => (MessageState::Delayed, Some(due), None),
            Whereabouts::InFlight { member } => (MessageState::InFlight, None, Some(member)),
        };
        let properties = Properties::parse(message.properties(), PacketType::Publish);
        let user_properties = properties.map_or_else(
            |_| Vec::new(),
            |properties| {
                let user = properties.iter().filter_map(|property| match property {
                    Property::UserProperty((name, value)) => {
                        Some((name.to_owned(), value.to_owned()))
                    }
                    _ => None,
                });
                user.collect()
            },
        );
        let (payload, payload_base64) = shown_payload(message.payload(), payload_bytes_max);
        MessageView {
            id: message.id().to_string(),
            state,
            client: holder.and_then(|session| self.client_of(session)),
            topic: message.topic().as_str().to_owned(),
            priority: seen.priority,
            group: seen.group.as_deref().map(str::to_owned),
            publisher: message.publisher().client.as_str().to_owned(),
            enqueued_at_ms: message.received().as_micros() / 1000,
            deliveries: seen.deliveries,
            due_at_ms: due.map(|due| due.as_micros() / 1000),
            expires_at_ms: Some(message.expires())
                .filter(|expires| *expires < Time::MAX)
                .map(|expires| expires.as_micros() / 1000),
            payload_bytes: message.payload().len(),
            payload,
            payload_base64,
            user_properties,
        }
    }

    pub(super) fn tail_queue(
        &self,
        id: QueueId,
        name: &str,
        after: Option<u64>,
        count: usize,
    ) -> Result<Tailed, SteerError> {
        let from = match after {
            Some(after) => after.saturating_add(1),
            // The last ones.
            None => {
                let (_, next) = self.events(id, name, Err((u64::MAX, 0)))?;
                next.saturating_sub(count as u64).max(1)
            }
        };
        let (events, next) = self.events(id, name, Err((from, count)))?;
        let first = events.first().map_or(next, |first| first.number);
        Ok(Tailed {
            queue: name.to_owned(),
            // After a restart numbers begin anew.
            missed: after.map_or(0, |_| first.saturating_sub(from)),
            events: events.iter().map(event).collect(),
            next: next - 1,
        })
    }
}

/// An event, as it is shown.
pub(super) fn event(event: &Event) -> EventView {
    let what = match event.what {
        What::Stored => "stored",
        What::Delivered => "delivered",
        What::TimedOut => "timed-out",
        What::Lost => "lost",
        What::Failed => "failed",
        What::Busy => "busy",
        What::Done => "done",
        What::Dead(_) => "dead",
        What::Expired => "expired",
        What::Dropped => "dropped",
        What::Replaced => "replaced",
        What::Moved => "moved",
    };
    let reason = match event.what {
        What::Dead(reason) => Some(reason.word().to_owned()),
        _ => None,
    };
    EventView {
        number: event.number,
        at_ms: event.at.as_micros() / 1000,
        message: event.message.to_string(),
        what: what.to_owned(),
        client: (event.client.as_ref()).map(|client| client.as_str().to_owned()),
        reason,
    }
}

/// As text if it is some, or else as base64.
pub(crate) fn shown_payload(payload: &[u8], bytes_max: usize) -> (Option<String>, Option<String>) {
    let is_odd = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    let text = std::str::from_utf8(payload).ok();
    match text.filter(|text| !text.contains(is_odd)) {
        Some(text) => {
            let end = text.floor_char_boundary(bytes_max);
            (Some(text[..end].to_owned()), None)
        }
        None => {
            let end = payload.len().min(bytes_max);
            (None, Some(base64::encode(&payload[..end])))
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
