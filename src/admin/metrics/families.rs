//! Which metrics there are, and what each means.

use std::collections::BTreeMap;

use tokio::runtime::RuntimeMetrics;

use super::process::Process;
use super::text::{Family, Text};
use crate::admin::State;
use crate::broker::{Census, Core, Counts, ListNumbers, Shedding, drop_reason};
use crate::message::Time;
use crate::protocol::{PacketType, Version};
use crate::tally::{SIZES, SPANS_US, Sums};

/// Sessions or lists that are looked at between two looks at where to go on.
const PAGE_LEN: usize = 4096;
/// Stands for the queues that are not listed; no queue has such a name.
const OTHERS: &str = "$others";
/// A second in microseconds.
const SECOND: f64 = 1e6;

/// All of them.
pub(super) fn render(state: &State, runtime: &RuntimeMetrics) -> String {
    let core = &state.shared.core;
    let now = state.shared.clock.now();
    let mut queues = Queues::new(state.metrics.queues_max);
    let mut census = Census::default();
    while core.count_on(&mut census, PAGE_LEN, |name, numbers| {
        queues.add(name, numbers);
    }) {}
    let (sums, counts) = (core.tally(), core.counters().read());
    let mut text = Text::default();
    tell_program(&mut text, state);
    tell_connections(&mut text, state, &counts);
    tell_traffic(&mut text, &sums);
    tell_sessions(&mut text, &census);
    tell_counts(&mut text, &counts);
    tell_queues(&mut text, &queues, &census, now);
    tell_memory(&mut text, core, &census);
    tell_store(&mut text, core);
    tell_runtime(&mut text, state, runtime);
    text.into_string()
}

fn tell_program(text: &mut Text, state: &State) {
    text.gauge(
        "rotamq_build_info",
        "Always 1; the label says which version runs.",
    )
    .with(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    let started = state.started.as_micros() as f64 / SECOND;
    text.gauge(
        "process_start_time_seconds",
        "When the broker started, in seconds since 1970.",
    )
    .is(started);
    let process = Process::look();
    if let Some(secs) = process.cpu_secs {
        text.counter(
            "process_cpu_seconds_total",
            "CPU time of all threads, in user and system mode.",
        )
        .is(secs);
    }
    for (name, help, number) in [
        (
            "process_resident_memory_bytes",
            "Memory that is in RAM.",
            process.resident_bytes,
        ),
        (
            "process_virtual_memory_bytes",
            "Address space.",
            process.virtual_bytes,
        ),
        ("process_threads", "Threads.", process.threads),
        (
            "process_open_fds",
            "Open file descriptors.",
            process.open_fds,
        ),
        (
            "process_max_fds",
            "The most file descriptors that may be open.",
            process.max_fds,
        ),
    ] {
        if let Some(number) = number {
            text.gauge(name, help).is(number);
        }
    }
}

fn tell_connections(text: &mut Text, state: &State, counts: &Counts) {
    text.gauge(
        "rotamq_connections",
        "Open connections, those included that have not sent CONNECT.",
    )
    .is(state.shared.connections_len());
    let mut listeners = text.gauge(
        "rotamq_listener_connections",
        "Open connections of each listener; workbench: those of /mqtt on the HTTP port.",
    );
    let listed = state.operations.listeners();
    for listed in &listed {
        let listener = listed.address.to_string();
        listeners.with(
            &[("listener", &listener)],
            listed.entrance.connections_len(),
        );
    }
    let workbench = state.operations.workbench(true);
    let at_workbench = workbench.map_or(0, |workbench| workbench.connections_len());
    listeners.with(&[("listener", "workbench")], at_workbench);
    let certificates = listed.iter();
    let certificates = certificates.filter_map(|listed| {
        let tls = listed.entrance.tls.as_ref()?;
        Some((listed.address.to_string(), tls.expires_at_secs()))
    });
    let http = state
        .tls
        .as_ref()
        .map(|tls| ("http".to_owned(), tls.expires_at_secs()));
    let mut family = text.gauge(
        "rotamq_certificate_not_after_seconds",
        "When the first certificate of a listener's chain ends, in seconds since 1970; http: of the \
         HTTP port.",
    );
    for (listener, secs) in certificates.chain(http) {
        family.with(&[("listener", &listener)], secs);
    }
    text.counter(
        "rotamq_sockets_accepted_total",
        "Connections accepted, whatever became of them.",
    )
    .is(counts.sockets);
    text.counter(
        "rotamq_connections_accepted_total",
        "Clients that were let in.",
    )
    .is(counts.connections_accepted);
    let mut refused = text.counter(
        "rotamq_connections_refused_total",
        "Connections refused, at accept or by CONNACK. unknown: they are not who they say; busy: too \
         many passwords were being checked; unavailable: who knows did not answer; banned, flapping: \
         failed or came too often; half_open: too many of the address were not through; user_full: \
         the user has too many; memory: there was none left; other: a limit, or an invalid CONNECT.",
    );
    for (reason, count) in by_prefix(counts, "refused_", &["refused_messages"]) {
        refused.with(&[("reason", reason)], count);
    }
}

/// The counters whose names begin so, by the rest of their names.
fn by_prefix(counts: &Counts, prefix: &str, but: &[&str]) -> Vec<(&'static str, u64)> {
    let named = counts.each().filter(|(name, _)| !but.contains(name));
    named
        .filter_map(|(name, count)| Some((name.strip_prefix(prefix)?, count)))
        .collect()
}

const TYPES: [(&str, PacketType); 15] = [
    ("CONNECT", PacketType::Connect),
    ("CONNACK", PacketType::Connack),
    ("PUBLISH", PacketType::Publish),
    ("PUBACK", PacketType::Puback),
    ("PUBREC", PacketType::Pubrec),
    ("PUBREL", PacketType::Pubrel),
    ("PUBCOMP", PacketType::Pubcomp),
    ("SUBSCRIBE", PacketType::Subscribe),
    ("SUBACK", PacketType::Suback),
    ("UNSUBSCRIBE", PacketType::Unsubscribe),
    ("UNSUBACK", PacketType::Unsuback),
    ("PINGREQ", PacketType::Pingreq),
    ("PINGRESP", PacketType::Pingresp),
    ("DISCONNECT", PacketType::Disconnect),
    ("AUTH", PacketType::Auth),
];
const VERSIONS: [(&str, Version); 3] = [
    ("3.1", Version::V3_1),
    ("3.1.1", Version::V3_1_1),
    ("5", Version::V5),
];
const QOS: [&str; 3] = ["0", "1", "2"];

fn tell_traffic(text: &mut Text, sums: &Sums) {
    let ways = [("received", &sums.received), ("sent", &sums.sent)];
    let mut packets = text.counter(
        "rotamq_packets_total",
        "MQTT packets, by type and by the version that the client speaks.",
    );
    for (direction, traffic) in ways {
        for (name, packet) in TYPES {
            for (version, wire) in VERSIONS {
                let labels = [
                    ("direction", direction),
                    ("type", name),
                    ("version", version),
                ];
                packets.with(&labels, traffic.packets[wire as usize][packet as usize]);
            }
        }
    }
    let mut publishes = text.counter(
        "rotamq_publish_messages_total",
        "PUBLISH packets, by QoS: received from publishers, sent to subscribers.",
    );
    for (direction, traffic) in ways {
        for (qos, of_qos) in QOS.iter().zip(&traffic.publishes) {
            publishes.with(&[("direction", direction), ("qos", qos)], of_qos.messages);
        }
    }
    let mut payloads = text.counter(
        "rotamq_publish_payload_bytes_total",
        "Bytes of the payloads of PUBLISH packets, by QoS.",
    );
    for (direction, traffic) in ways {
        for (qos, of_qos) in QOS.iter().zip(&traffic.publishes) {
            payloads.with(
                &[("direction", direction), ("qos", qos)],
                of_qos.payload_bytes,
            );
        }
    }
    let mut bytes = text.counter(
        "rotamq_network_bytes_total",
        "Bytes of MQTT read from and written to sockets, without TLS and WebSocket.",
    );
    for (direction, traffic) in ways {
        bytes.with(&[("direction", direction)], traffic.bytes);
    }
    text.histogram(
        "rotamq_delivery_latency_seconds",
        "From when a PUBLISH was read, or taken out of where it waited, to when it was written to \
         its subscriber's socket: of the oldest message of a write, for one in 16 writes, and for \
         all where there are few.",
        &sums.latency,
        &SPANS_US,
        SECOND,
    );
}

fn tell_sessions(text: &mut Text, census: &Census) {
    let sessions = &census.sessions;
    text.gauge(
        "rotamq_sessions",
        "Sessions, with and without their client.",
    )
    .with(&[("state", "connected")], sessions.connected)
    .with(&[("state", "absent")], sessions.absent);
    let (shared, queue) = (census.groups.members, census.queues.members);
    let ordinary = sessions.subscriptions.saturating_sub(shared + queue);
    text.gauge("rotamq_subscriptions", "Subscriptions of all sessions.")
        .with(&[("kind", "ordinary")], ordinary)
        .with(&[("kind", "shared")], shared)
        .with(&[("kind", "queue")], queue);
    text.gauge(
        "rotamq_messages_in_flight",
        "Packet ids in use: out, not acknowledged by subscribers; in, of QoS 2 and not released by \
         publishers.",
    )
    .with(&[("direction", "out")], sessions.in_flight_out)
    .with(&[("direction", "in")], sessions.in_flight_in);
    text.gauge(
        "rotamq_messages_waiting",
        "Messages that wait in sessions: for their client, or for room in its window.",
    )
    .is(sessions.waiting);
}

/// Those counters that are not told elsewhere: whoever adds one finds it here.
fn tell_counts(text: &mut Text, counts: &Counts) {
    let mut dropped = text.counter(
        "rotamq_messages_dropped_total",
        "Messages dropped. absent, slow: QoS 0, and the subscriber was away or did not read; oldest: \
         for a younger one in a full session; expired: its time had passed; too_large: for its only \
         receiver; session_ended: it waited there; denied: its receiver has no right to it; \
         disk_low: QoS 0, and the disk was nearly full; damaged: on disk; queue_full: QoS 0; \
         given_way: for a younger one in a full queue; group: no room in a share group; \
         queue_deleted, purged: by a person; receipts: they could not be published.",
    );
    for (name, count) in counts.each() {
        if let Some(reason) = drop_reason(name) {
            dropped.with(&[("reason", reason)], count);
        }
    }
    for (prefix, name, help) in [
        (
            "reads_delayed_",
            "rotamq_reads_delayed_total",
            "How often a connection was read later, for the rate of its client, user or listener, or \
             as it publishes and memory was short.",
        ),
        (
            "writes_delayed_",
            "rotamq_writes_delayed_total",
            "How often a connection was written later, for the rate of its client, user or listener.",
        ),
    ] {
        let mut family = text.counter(name, help);
        for (by, count) in by_prefix(counts, prefix, &[]) {
            family.with(&[("by", by)], count);
        }
    }
    let told = ["sockets", "connections_accepted", "connections_refused"];
    let prefixes = ["refused_", "reads_delayed_", "writes_delayed_"];
    for (name, count) in counts.each() {
        let is_told = told.contains(&name)
            || drop_reason(name).is_some()
            || prefixes.iter().any(|prefix| name.starts_with(prefix));
        if name == "refused_messages" {
            text.counter("rotamq_publishes_refused_total", help_of(name))
                .is(count);
        } else if !is_told {
            text.counter(&format!("rotamq_{name}_total"), help_of(name))
                .is(count);
        }
    }
}

/// What a counter that is told by itself counts.
fn help_of(counter: &str) -> &'static str {
    match counter {
        "refused_messages" => "PUBLISHes and wills that were refused for good.",
        "bans" => "Bans of an address or a client identifier.",
        "accepts_delayed" => {
            "How often a listener did not accept for a while, as so many had come."
        }
        "keys_not_fetched" => "Times that keys of tokens were to be fetched and were not.",
        "connections_outlasted" => "Connections closed because their client's token had expired.",
        "sessions_taken_over" => "Sessions that a later connection took over.",
        "sessions_overflowed" => "Sessions ended because they were full.",
        "sessions_expired" => "Sessions ended because their client stayed away.",
        "dead_letters" => "Messages given to a queue of dead letters.",
        _ => "See the counter of this name in the API.",
    }
}

/// The queues that are listed by name, and the others in one.
struct Queues {
    listed_max: usize,
    // Those of dead letters last: there may be as many as others.
    listed: BTreeMap<(bool, String), ListNumbers>,
    others: ListNumbers,
}

impl Queues {
    fn new(listed_max: usize) -> Queues {
        Queues {
            listed_max,
            listed: BTreeMap::new(),
            others: ListNumbers::default(),
        }
    }

    /// The first by name stay listed, so that they are the same at each scrape.
    fn add(&mut self, name: &str, numbers: ListNumbers) {
        let is_dead = name.starts_with('$');
        if self.listed.len() >= self.listed_max {
            let last = self.listed.last_key_value();
            let stays =
                last.is_some_and(|((dead, last), _)| (is_dead, name) < (*dead, last.as_str()));
            let out = match stays {
                true => self.listed.pop_last().map_or(numbers, |(_, out)| out),
                false => numbers,
            };
            self.others.add(&out);
            if !stays {
                return;
            }
        }
        self.listed.insert((is_dead, name.to_owned()), numbers);
    }

    fn listed(&self) -> impl Iterator<Item = (&str, &ListNumbers)> {
        let listed = self.listed.iter();
        listed.map(|((_, name), numbers)| (name.as_str(), numbers))
    }

    fn each(&self) -> impl Iterator<Item = (&str, &ListNumbers)> {
        let others = (self.others.lists > 0).then_some((OTHERS, &self.others));
        self.listed().chain(others)
    }

    /// Not of the others: their sum falls when one of them is deleted or listed.
    fn tell_total(&self, mut family: Family<'_>, of: impl Fn(&ListNumbers) -> u64) {
        for (queue, numbers) in self.listed() {
            family.with(&[("queue", queue)], of(numbers));
        }
    }

    fn tell<V: std::fmt::Display>(&self, mut family: Family<'_>, of: impl Fn(&ListNumbers) -> V) {
        for (queue, numbers) in self.each() {
            family.with(&[("queue", queue)], of(numbers));
        }
    }
}

fn tell_queues(text: &mut Text, queues: &Queues, census: &Census, now: Time) {
    text.gauge(
        "rotamq_queues",
        "Work queues, those of dead letters included.",
    )
    .is(census.queues.lists);
    let mut messages = text.gauge(
        "rotamq_queue_messages",
        "Messages of a work queue. $dead/NAME has the dead letters of NAME; $others stands for the \
         queues beyond http.metrics_queues_max, in all gauges of queues.",
    );
    for (queue, numbers) in queues.each() {
        for (state, count) in [
            ("ready", numbers.ready),
            ("in_flight", numbers.in_flight),
            ("delayed", numbers.delayed),
        ] {
            messages.with(&[("queue", queue), ("state", state)], count);
        }
    }
    let family = text.gauge(
        "rotamq_queue_bytes",
        "What the messages of a queue take of its limit.",
    );
    queues.tell(family, |numbers| numbers.bytes);
    let family = text.gauge(
        "rotamq_queue_members",
        "Members of a queue that are connected.",
    );
    queues.tell(family, |numbers| numbers.members_connected);
    let family = text.gauge(
        "rotamq_queue_oldest_age_seconds",
        "How long ago the first message was received of those that are ready; 0: none is.",
    );
    queues.tell(family, |numbers| {
        let oldest = numbers.oldest.map(|oldest| now.since(oldest));
        oldest.unwrap_or_default().as_secs_f64()
    });
    type Total = fn(&ListNumbers) -> u64;
    let totals: [(&str, &str, Total); 10] = [
        ("enqueued", "Messages put into a queue.", |numbers| {
            numbers.totals.enqueued
        }),
        (
            "delivered",
            "Deliveries to members of a queue.",
            |numbers| numbers.totals.delivered,
        ),
        (
            "redelivered",
            "Deliveries that were not a message's first.",
            |numbers| numbers.totals.redelivered,
        ),
        ("done", "Messages that members are done with.", |numbers| {
            numbers.totals.done
        }),
        (
            "timed_out",
            "Deliveries that were not answered in time.",
            |numbers| numbers.totals.timed_out,
        ),
        ("refused", "Deliveries that members refused.", |numbers| {
            numbers.totals.refused
        }),
        (
            "busy",
            "Deliveries given back by members that were busy.",
            |numbers| numbers.totals.busy,
        ),
        (
            "expired",
            "Messages whose time passed while no member had them.",
            |numbers| numbers.totals.expired,
        ),
        ("dead", "Messages that became dead letters.", |numbers| {
            let totals = &numbers.totals;
            totals.max_deliveries
                + totals.rejected
                + totals.dead_expired
                + totals.dead_overflow
                + totals.undecided
        }),
        (
            "dropped",
            "Messages dropped or replaced for younger ones, purged, or lost.",
            |numbers| {
                let totals = &numbers.totals;
                totals.dropped + totals.replaced + totals.purged + totals.discarded + totals.lost
            },
        ),
    ];
    for (name, help, total) in totals {
        let family = text.counter(&format!("rotamq_queue_{name}_total"), help);
        queues.tell_total(family, total);
    }
    let groups = &census.groups;
    text.gauge("rotamq_share_groups", "Share groups.")
        .is(groups.lists);
    text.gauge(
        "rotamq_share_group_members",
        "Members of share groups that are connected.",
    )
    .is(groups.members_connected);
    text.gauge(
        "rotamq_share_group_messages",
        "Messages that share groups hold.",
    )
    .with(&[("state", "ready")], groups.ready)
    .with(&[("state", "in_flight")], groups.in_flight);
    text.gauge(
        "rotamq_delayed_messages",
        "Messages to ordinary topics that are put off.",
    )
    .is(census.put_off.messages());
}

fn tell_memory(text: &mut Text, core: &Core, census: &Census) {
    let (retained, retained_bytes) = core.retained_counts();
    text.gauge(
        "rotamq_retained_messages",
        "Retained messages, without those below $SYS.",
    )
    .is(retained);
    text.gauge(
        "rotamq_memory_bytes",
        "What messages take of the limits in bytes. sessions: waiting or in flight, on disk or not; \
         outboxes: encoded, on their way to a socket; queues, share_groups, delayed: by who holds \
         them; retained: of topics and messages; store: appended, and not being written yet.",
    )
    .with(&[("part", "sessions")], census.sessions.kept_bytes)
    .with(&[("part", "outboxes")], census.sessions.outbox_bytes)
    .with(&[("part", "queues")], census.queues.bytes)
    .with(&[("part", "share_groups")], census.groups.bytes)
    .with(&[("part", "delayed")], census.put_off.bytes)
    .with(&[("part", "retained")], retained_bytes)
    .with(&[("part", "store")], core.store().numbers().open_bytes);
    let memory = core.memory();
    text.gauge(
        "rotamq_memory_limit_bytes",
        "memory_bytes_max; 0: there is none.",
    )
    .is(memory.bytes_max().unwrap_or(0));
    text.gauge(
        "rotamq_memory_shedding",
        "What is shed for want of memory. 0: nothing; 1: clients without a session; 2: publishers are \
         slowed down too.",
    )
    .is(match memory.shedding() {
        Shedding::Nothing => 0,
        Shedding::Newcomers => 1,
        Shedding::Publishers => 2,
    });
}

fn tell_store(text: &mut Text, core: &Core) {
    let store = core.store();
    let numbers = store.numbers();
    text.gauge(
        "rotamq_store_enabled",
        "1: what has to outlive the broker is stored; 0: nothing is.",
    )
    .is(u8::from(store.is_on()));
    text.gauge(
        "rotamq_store_failed",
        "1: the disk failed, and nothing is stored any more.",
    )
    .is(u8::from(store.failure().is_some()));
    text.gauge(
        "rotamq_store_disk_low",
        "1: less than free_bytes_min is free on the disk.",
    )
    .is(u8::from(store.is_low()));
    text.histogram(
        "rotamq_store_commit_duration_seconds",
        "How long it took to write a batch to the log, and to sync it where that was asked for.",
        &numbers.commits,
        &SPANS_US,
        SECOND,
    );
    text.histogram(
        "rotamq_store_batch_records",
        "Records of a batch: what one change of a session, a queue or a retained message wrote.",
        &numbers.records,
        &SIZES,
        1.0,
    );
    text.counter(
        "rotamq_store_written_bytes_total",
        "Bytes of the records of all batches.",
    )
    .is(numbers.bytes);
    text.counter("rotamq_store_syncs_total", "Times that the log was synced.")
        .is(numbers.syncs);
    text.gauge(
        "rotamq_store_unsynced_age_seconds",
        "How long the oldest of what is written, or is being written, has not been synced; 0: all is.",
    )
    .is(numbers.unsynced.as_secs_f64());
    text.gauge(
        "rotamq_store_disk_bytes",
        "What the log and the base take on disk.",
    )
    .is(numbers.disk_bytes);
    text.gauge(
        "rotamq_store_index_entries",
        "Of what the index in memory knows the place.",
    )
    .with(&[("kind", "lists")], numbers.lists)
    .with(&[("kind", "keys")], numbers.keys)
    .with(&[("kind", "bodies")], numbers.bodies);
}

fn tell_runtime(text: &mut Text, state: &State, runtime: &RuntimeMetrics) {
    text.gauge(
        "rotamq_runtime_tasks",
        "Tasks that are alive: about one a connection.",
    )
    .is(runtime.num_alive_tasks());
    text.gauge(
        "rotamq_runtime_queue_depth",
        "Tasks that are ready in the queue that all threads share: those that came from other threads, \
         and what a thread's own queue had no room for. What waits in the threads' own queues is not \
         among them.",
    )
    .is(runtime.global_queue_depth());
    let workers: Vec<String> = (0..runtime.num_workers())
        .map(|at| at.to_string())
        .collect();
    let mut busy = text.counter(
        "rotamq_runtime_busy_seconds_total",
        "How long each thread of the runtime was busy.",
    );
    for (at, worker) in workers.iter().enumerate() {
        let secs = runtime.worker_total_busy_duration(at).as_secs_f64();
        busy.with(&[("worker", worker)], secs);
    }
    let mut parks = text.counter(
        "rotamq_runtime_parks_total",
        "How often each thread of the runtime found nothing to do, and slept.",
    );
    for (at, worker) in workers.iter().enumerate() {
        parks.with(&[("worker", worker)], runtime.worker_park_count(at));
    }
    text.histogram(
        "rotamq_runtime_wake_delay_seconds",
        "How late threads that serve clients came to a task that another thread gave them, ten \
         times a second.",
        &state.metrics.delays.read(),
        &SPANS_US,
        SECOND,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_beyond_the_bound_are_told_together() {
        let numbers = |ready| ListNumbers {
            lists: 1,
            ready,
            ..ListNumbers::default()
        };
        let all = [
            ("c", 1),
            ("$dead/a", 2),
            ("b", 3),
            ("d", 4),
            ("a", 5),
            ("$dead/c", 6),
        ];
        for (listed_max, expected) in [
            (0, &[("$others", 21)][..]),
            (2, &[("a", 5), ("b", 3), ("$others", 13)]),
            (
                5,
                &[
                    ("a", 5),
                    ("b", 3),
                    ("c", 1),
                    ("d", 4),
                    ("$dead/a", 2),
                    ("$others", 6),
                ],
            ),
            (
                6,
                &[
                    ("a", 5),
                    ("b", 3),
                    ("c", 1),
                    ("d", 4),
                    ("$dead/a", 2),
                    ("$dead/c", 6),
                ],
            ),
        ] {
            let mut queues = Queues::new(listed_max);
            for (name, ready) in all {
                queues.add(name, numbers(ready));
            }
            let told: Vec<_> = queues
                .each()
                .map(|(name, numbers)| (name, numbers.ready))
                .collect();
            assert_eq!(told, expected);
        }
    }

    /// The sum of the others falls when one is deleted: a counter must not.
    #[test]
    fn no_counter_is_told_of_the_queues_beyond_the_bound() {
        let mut queues = Queues::new(1);
        for name in ["a", "b"] {
            let numbers = ListNumbers {
                lists: 1,
                ..ListNumbers::default()
            };
            queues.add(name, numbers);
        }
        let mut text = Text::default();
        tell_queues(&mut text, &queues, &Census::default(), Time::ZERO);
        let text = text.into_string();
        let told = |line: &&str| line.contains(OTHERS) && !line.starts_with('#');
        assert!(text.lines().filter(told).count() > 0);
        let totals = text
            .lines()
            .filter(told)
            .filter(|line| line.contains("_total"));
        assert_eq!(totals.count(), 0, "{text}");
        assert!(text.contains("rotamq_queue_done_total{queue=\"a\"} 0"));
    }

    /// A counter that somebody adds gets words of its own.
    #[test]
    fn each_counter_that_is_told_by_itself_says_what_it_is() {
        let mut text = Text::default();
        tell_counts(&mut text, &Counts::default());
        let text = text.into_string();
        assert!(!text.contains(help_of("")), "{text}");
        assert_eq!(
            by_prefix(&Counts::default(), "refused_", &["refused_messages"]).len(),
            9
        );
    }
}
