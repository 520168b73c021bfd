//! Each queue's numbers below `$SYS/broker/queues/NAME/`, as long as anybody
//! subscribes to something there.
//!
//! Owns when the next are due. Goes round the queues a page at a time.

use std::fmt::Write;
use std::time::Duration;

use parking_lot::Mutex;

use super::FIRST_LEVEL;
use crate::broker::timers::Timer;
use crate::broker::{Core, Worker};
use crate::message::{Place, Qos, QueueId, Time};
use crate::session::Publication;
use crate::topic::{TopicLimits, TopicName};

/// Queues that are told of before others get their turn.
const QUEUES_MAX: usize = 200;
/// Who has just subscribed need not wait for the next round, but rounds begin
/// no closer together.
const ROUNDS_APART: Duration = Duration::from_secs(1);

/// Whose turn it is.
#[derive(Default)]
pub(in crate::broker) struct SysRound(Mutex<Round>);

struct Round {
    /// Those that are still to be told of.
    places: Vec<Place>,
    /// When the last round began, and the next begins.
    began: Time,
    due: Time,
    /// When the timer that is set is due.
    alarm: Time,
}

impl Default for Round {
    fn default() -> Round {
        Round {
            places: Vec::new(),
            began: Time::ZERO,
            due: Time::ZERO,
            alarm: Time::MAX,
        }
    }
}

impl Core {
    /// Somebody has subscribed: a round begins, if none just did.
    pub(in crate::broker) fn watch_sys(&self, now: Time) {
        if self.queues_settings().sys_interval.is_zero() {
            return;
        }
        let mut round = self.sys_round.0.lock();
        if self.router.has_first_level(FIRST_LEVEL) {
            // A shorter interval may hold by now.
            let next = round.began + self.queues_settings().sys_interval;
            round.due = round.due.min(next.max(now));
            round.due = round.due.min(now.max(round.began + ROUNDS_APART));
            let at = round.due;
            self.set_sys_alarm(&mut round, at);
        }
    }

    /// Timers that an earlier one has made needless set no other.
    fn set_sys_alarm(&self, round: &mut Round, at: Time) {
        if at < round.alarm {
            round.alarm = at;
            self.timers.schedule(at, Timer::Sys);
        }
    }

    /// Tells of the next queues. Ends when nobody is there to be told.
    pub(in crate::broker) fn handle_sys(&self, worker: &mut Worker, now: Time) {
        let page: Vec<Place> = {
            let mut round = self.sys_round.0.lock();
            if round.alarm <= now {
                round.alarm = Time::MAX;
            }
            let interval = self.queues_settings().sys_interval;
            if interval.is_zero() || !self.router.has_first_level(FIRST_LEVEL) {
                round.places = Vec::new();
                return;
            }
            if round.places.is_empty() && round.due <= now {
                round.places = self.lists.places().collect();
                round.began = now;
                round.due = now + interval;
            }
            let from = round.places.len().saturating_sub(QUEUES_MAX);
            let page = round.places.split_off(from);
            let next = match round.places.is_empty() {
                true => round.due,
                false => now,
            };
            self.set_sys_alarm(&mut round, next);
            page
        };
        for place in page {
            self.tell_of(worker, QueueId(place), now);
        }
    }

    fn tell_of(&self, worker: &mut Worker, id: QueueId, now: Time) {
        let name = self.lists.lock(id.0);
        let name = name.and_then(|list| list.queue_name().map(str::to_owned));
        let Some((name, look)) = name.and_then(|name| Some((name, self.look(id, now)?))) else {
            return; // A share group, or gone.
        };
        let counts = &look.counts;
        let oldest = counts
            .oldest
            .map_or(0, |oldest| now.since(oldest).as_secs());
        let numbers = [
            ("ready", counts.ready as u64),
            ("inflight", counts.in_flight as u64),
            ("delayed", counts.delayed as u64),
            ("dead", self.dead_len(&name) as u64),
            ("bytes", counts.bytes as u64),
            ("members", counts.members_connected as u64),
            ("enqueued", counts.totals.enqueued),
            ("done", counts.totals.done),
            ("redelivered", counts.totals.redelivered),
            ("oldest_secs", oldest),
        ];
        let folder = format!("{FIRST_LEVEL}/broker/queues/{}", as_level(&name));
        for (what, number) in numbers {
            let topic = format!("{folder}/{what}");
            // A long name may be too long with this before it.
            let Ok(topic) = TopicName::parse(&topic, TopicLimits::NONE) else {
                continue;
            };
            if (self.router.matches(topic, &mut worker.cache).targets).is_empty() {
                continue;
            }
            let (payload, id) = (number.to_string(), self.next_message_id(worker));
            let (payload, qos) = (payload.as_bytes(), Qos::AtMostOnce);
            let publication = Publication::new(topic, payload, qos, false, &self.identity, now, id);
            // At QoS 0 nothing refuses it that would have to be told.
            _ = self.publish(worker, &publication, topic.as_str(), now);
        }
    }
}

/// A queue's name as one level of a topic.
fn as_level(name: &str) -> String {
    let mut level = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '%' | '+' | '#' | '/' => _ = write!(level, "%{:02X}", u32::from(c)),
            c => level.push(c),
        }
    }
    level
}
