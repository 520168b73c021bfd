//! What the broker says of itself below `$SYS`: topics as mosquitto has them, and
//! some of our own.
//!
//! Owns what was said last, and when it is said again: what has changed since, at
//! an interval. Each value is retained in memory, in a store of its own, so that
//! it neither takes from the clients' limits nor outlives the broker. The numbers
//! of single queues are in `queues`.

mod queues;

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

pub(in crate::broker) use self::queues::SysRound;
use super::census::Census;
use super::timers::Timer;
use super::{Core, Counts, Shedding, Worker};
use crate::message::{Qos, Time};
use crate::protocol::PacketType;
use crate::router::RetainedStore;
use crate::session::Publication;
use crate::tally::Sums;
use crate::topic::{TopicLimits, TopicName};

/// What filters begin with that can match.
const FIRST_LEVEL: &str = "$SYS";
const FOLDER: &str = "$SYS/";

/// Sessions or lists that are counted before others get their turn.
const PAGE_LEN: usize = 2048;

/// The windows of a load, and how long each is in minutes.
const WINDOWS: [(&str, f64); 3] = [("1min", 1.0), ("5min", 5.0), ("15min", 15.0)];

/// What is said, what was, and when.
pub(in crate::broker) struct SysTree {
    round: Mutex<Round>,
    retained: RetainedStore,
}

struct Round {
    started: Time,
    began: Time,
    // As far as it has come.
    census: Census,
    // What was counted when the loads were told last.
    before: Option<(Time, [u64; LOADS.len()])>,
    loads: [[f64; WINDOWS.len()]; LOADS.len()],
    clients_max: usize,
    said: BTreeMap<String, String>,
}

/// What there is a load of, a minute.
const LOADS: [&str; 9] = [
    "messages/received",
    "messages/sent",
    "publish/dropped",
    "publish/received",
    "publish/sent",
    "bytes/received",
    "bytes/sent",
    "sockets",
    "connections",
];

fn load_counts(sums: &Sums, counts: &Counts) -> [u64; LOADS.len()] {
    let (received, sent) = (&sums.received, &sums.sent);
    [
        received.packets_len(),
        sent.packets_len(),
        counts.dropped(),
        received.publishes().messages,
        sent.publishes().messages,
        received.bytes,
        sent.bytes,
        counts.sockets,
        received.packets_of(PacketType::Connect),
    ]
}

impl Default for SysTree {
    fn default() -> SysTree {
        SysTree {
            round: Mutex::new(Round {
                started: Time::ZERO,
                began: Time::ZERO,
                census: Census::default(),
                before: None,
                loads: Default::default(),
                clients_max: 0,
                said: BTreeMap::new(),
            }),
            // The topics are the broker's own: they need no bounds.
            retained: RetainedStore::new(usize::MAX, usize::MAX),
        }
    }
}

impl Core {
    /// The broker has started: it speaks of itself from now on, unless it is set
    /// not to.
    pub fn begin_sys(&self, now: Time) {
        self.sys_tree.round.lock().started = now;
        self.change_sys(now);
    }

    /// From now on it speaks as often as is set now, if it does.
    pub(in crate::broker) fn change_sys(&self, now: Time) {
        let is_on = !self.sys_settings().interval.is_zero();
        let mut round = self.sys_tree.round.lock();
        // What was counted for a round that does not end is of no use.
        round.census = Census::default();
        match is_on {
            true => {
                round.began = now;
                self.timers.schedule(now, Timer::SysTree);
            }
            false => self.forget_said(&mut round, now),
        }
    }

    /// Nobody is to find what does not hold any more.
    fn forget_said(&self, round: &mut Round, now: Time) {
        for topic in std::mem::take(&mut round.said).into_keys() {
            if let Ok(topic) = TopicName::parse(&topic, TopicLimits::NONE) {
                let removed = self.sys_tree.retained.set(topic, None, now);
                debug_assert!(removed.is_ok(), "removing takes no room");
            }
        }
    }

    /// Where the message of such a topic is, or those of such a filter: no filter
    /// reaches both [MQTT-4.7.2-1].
    pub(in crate::broker) fn retained_for(&self, filter: &str) -> &RetainedStore {
        match filter.starts_with(FOLDER) {
            true => &self.sys_tree.retained,
            false => &self.retained,
        }
    }

    /// Whether nothing is retained at all.
    pub(in crate::broker) fn retains_nothing(&self) -> bool {
        self.retained.is_empty() && self.sys_tree.retained.is_empty()
    }

    /// Counts on; when all is counted, says what has changed.
    pub(in crate::broker) fn handle_sys_tree(&self, worker: &mut Worker, now: Time) {
        let interval = self.sys_settings().interval;
        let mut round = self.sys_tree.round.lock();
        // It is off, or the timer is of another interval.
        if interval.is_zero() || now < round.began {
            return;
        }
        if self.count_on(&mut round.census, PAGE_LEN, |_, _| ()) {
            return self.timers.schedule(now, Timer::SysTree);
        }
        let census = std::mem::take(&mut round.census);
        let mut changed = self.values(&mut round, &census, now);
        changed.retain(|(topic, value)| round.said.get(topic) != Some(value));
        round.said.extend(changed.iter().cloned());
        let next = round.began + interval;
        round.began = next.max(now); // Rounds that were missed are not made up for.
        let due = round.began;
        drop(round);
        for (topic, value) in &changed {
            self.say(worker, topic, value, now);
        }
        if self.sys_settings().interval.is_zero() {
            // It was switched off meanwhile.
            let mut round = self.sys_tree.round.lock();
            round.said.extend(changed);
            return self.forget_said(&mut round, now);
        }
        self.timers.schedule(due, Timer::SysTree);
    }

    fn say(&self, worker: &mut Worker, topic: &str, value: &str, now: Time) {
        let topic =
            TopicName::parse(topic, TopicLimits::NONE).expect("the broker's topics are valid");
        let (payload, id) = (value.as_bytes(), self.next_message_id(worker));
        let qos = Qos::AtMostOnce;
        let publication = Publication::new(topic, payload, qos, true, &self.identity, now, id);
        // Before subscribers get it: who comes meanwhile finds it here. Nothing else
        // is retained here, whatever its topic.
        let message = publication.message().clone();
        let kept = (self.sys_tree.retained).set(topic, Some(message), now);
        debug_assert!(kept.is_ok(), "it has no bounds");
        // At QoS 0 nothing refuses it that would have to be told.
        _ = self.publish(worker, &publication, topic.as_str(), now);
    }

    /// All topics, and what is to be said there.
    fn values(&self, round: &mut Round, census: &Census, now: Time) -> Vec<(String, String)> {
        let (sums, counts) = (self.tally(), self.counters.read());
        let sessions = &census.sessions;
        let clients = sessions.connected + sessions.absent;
        round.clients_max = round.clients_max.max(clients);
        let mut values = Vec::new();
        let mut say = |topic: &str, value: String| {
            values.push((format!("{FOLDER}broker/{topic}"), value));
        };
        say(
            "version",
            format!("rotamq version {}", env!("CARGO_PKG_VERSION")),
        );
        let uptime = now.since(round.started).as_secs();
        say("uptime", format!("{uptime} seconds"));

        // Names, and what they mean, are mosquitto's.
        let (received, sent) = (sums.received.publishes(), sums.sent.publishes());
        let (retained, retained_bytes) = self.retained.counts();
        let lists = [&census.queues, &census.groups, &census.put_off];
        let in_lists: usize = lists.iter().map(|list| list.messages()).sum();
        let bytes_in_lists: usize = lists.iter().map(|list| list.bytes).sum();
        let stored = sessions.waiting + sessions.kept_in_flight + in_lists + retained;
        let stored_bytes = sessions.kept_bytes + bytes_in_lists + retained_bytes;
        let shared = census.groups.members;
        let numbers = [
            ("clients/total", clients),
            ("clients/connected", sessions.connected),
            ("clients/active", sessions.connected),
            ("clients/disconnected", sessions.absent),
            ("clients/inactive", sessions.absent),
            ("clients/maximum", round.clients_max),
            ("messages/stored", stored),
            ("messages/inflight", sessions.in_flight_out),
            ("store/messages/count", stored),
            ("store/messages/bytes", stored_bytes),
            ("retained messages/count", retained),
            (
                "subscriptions/count",
                sessions.subscriptions.saturating_sub(shared),
            ),
            ("shared_subscriptions/count", shared),
            ("rotamq/queues/count", census.queues.lists),
            ("rotamq/queues/ready", census.queues.ready),
            ("rotamq/queues/inflight", census.queues.in_flight),
            ("rotamq/queues/delayed", census.queues.delayed),
            ("rotamq/queues/bytes", census.queues.bytes),
            ("rotamq/queues/members", census.queues.members_connected),
            ("rotamq/retained messages/bytes", retained_bytes),
        ];
        let numbers = numbers.map(|(topic, number)| (topic, number as u64));
        let heap = self.memory.resident_bytes();
        let totals = [
            ("clients/expired", counts.sessions_expired),
            ("messages/received", sums.received.packets_len()),
            ("messages/sent", sums.sent.packets_len()),
            ("bytes/received", sums.received.bytes),
            ("bytes/sent", sums.sent.bytes),
            ("publish/messages/dropped", counts.dropped()),
            ("publish/messages/received", received.messages),
            ("publish/messages/sent", sent.messages),
            ("publish/bytes/received", received.payload_bytes),
            ("publish/bytes/sent", sent.payload_bytes),
            ("heap/current", heap.now),
            ("heap/maximum", heap.most),
            ("rotamq/store/low", u64::from(self.store.is_low())),
            (
                "rotamq/store/failed",
                u64::from(self.store.failure().is_some()),
            ),
        ];
        for (topic, number) in numbers.into_iter().chain(totals) {
            say(topic, number.to_string());
        }
        for (name, count) in counts.each() {
            say(&format!("rotamq/counts/{name}"), count.to_string());
        }
        let shedding = match self.memory.shedding() {
            Shedding::Nothing => "nothing",
            Shedding::Newcomers => "newcomers",
            Shedding::Publishers => "publishers",
        };
        say("rotamq/memory/shedding", shedding.to_owned());
        let counted = load_counts(&sums, &counts);
        if let Some((at, before)) = round.before {
            change_loads(&mut round.loads, &before, &counted, now.since(at));
        }
        round.before = Some((now, counted));
        for (name, loads) in LOADS.iter().zip(&round.loads) {
            for ((window, _), load) in WINDOWS.iter().zip(loads) {
                say(&format!("load/{name}/{window}"), format!("{load:.2}"));
            }
        }
        values
    }
}

/// Moves each load towards what happened a minute since: by as much as the window
/// is shorter than that is long, exponentially.
fn change_loads(
    loads: &mut [[f64; WINDOWS.len()]; LOADS.len()],
    before: &[u64; LOADS.len()],
    counted: &[u64; LOADS.len()],
    since: Duration,
) {
    let minutes = since.as_secs_f64() / 60.0;
    if minutes <= 0.0 {
        return;
    }
    for (loads, (before, counted)) in loads.iter_mut().zip(before.iter().zip(counted)) {
        let a_minute = counted.saturating_sub(*before) as f64 / minutes;
        for (load, (_, window_minutes)) in loads.iter_mut().zip(WINDOWS) {
            let left = (-minutes / window_minutes).exp();
            *load = a_minute + left * (*load - a_minute);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As mosquitto's are: after a window's time a steady rate shows by all but
    /// 1/e.
    #[test]
    fn loads_come_near_to_a_steady_rate() {
        let mut loads = Default::default();
        let mut before = [0; LOADS.len()];
        for _ in 0..6 {
            let counted = before.map(|count| count + 100);
            change_loads(&mut loads, &before, &counted, Duration::from_secs(10));
            before = counted;
        }
        let [one, five, fifteen] = loads[0];
        let expected = |windows: f64| 600.0 * (1.0 - (-windows).exp());
        assert!((one - expected(1.0)).abs() < 1e-6, "{one}");
        assert!((five - expected(0.2)).abs() < 1e-6, "{five}");
        assert!((fifteen - expected(1.0 / 15.0)).abs() < 1e-6, "{fifteen}");
        change_loads(&mut loads, &before, &before, Duration::ZERO);
        assert_eq!(loads[0], [one, five, fifteen]);
    }
}
