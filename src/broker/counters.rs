//! What the broker counts.
//!
//! Owns the numbers; who shows them is elsewhere. Whatever is dropped has a
//! counter that says why.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The live counters.
        #[derive(Default)]
        pub struct Counters { $($(#[$doc])* pub $name: Counter,)* }

        /// Their values at a moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct Counts { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            pub fn read(&self) -> Counts {
                Counts { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }

        impl Counts {
            /// All of them by name, in one order.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Connections that listeners accepted, whatever became of them.
    sockets,
    /// Connections that sent a whole CONNECT and were accepted.
    connections_accepted,
    /// Connections that were refused, at accept or by CONNACK.
    connections_refused,
    /// Of those, by the chain: clients that are not who they say, or are nobody
    /// where nobody may connect.
    refused_unknown,
    /// And those whose password could not be checked, as too many others were.
    refused_busy,
    /// And those of whom a service that knows it did not say who they are.
    refused_unavailable,
    /// And those who had failed so often before that they were not asked.
    refused_banned,
    /// And those who had connected so often before that they were kept out.
    refused_flapping,
    /// And those whose address had too many that were not through with CONNECT.
    refused_half_open,
    /// And those whose user had too many.
    refused_user_full,
    /// And those who came while there was little memory left.
    refused_memory,
    /// And all others.
    refused_other,
    /// Bans of an address or a client identifier.
    bans,
    /// How often a listener did not accept for a while, as so many had come.
    accepts_delayed,
    /// How often a connection was read later, as so much had come of it;
    reads_delayed_client,
    /// as so much had come of its user's connections;
    reads_delayed_user,
    /// as so much had come of its listener's;
    reads_delayed_listener,
    /// as it publishes, and there was no memory left.
    reads_delayed_memory,
    /// How often a connection was written later, as so much had gone out to it;
    writes_delayed_client,
    /// as so much had gone out to its user's connections;
    writes_delayed_user,
    /// as so much had gone out to its listener's.
    writes_delayed_listener,
    /// Keys of tokens that were to be fetched and were not.
    keys_not_fetched,
    /// Connections that were closed because their client's token had expired.
    connections_outlasted,
    /// Sessions that a later connection took over.
    sessions_taken_over,
    /// Sessions ended because they were full.
    sessions_overflowed,
    /// Sessions ended because their client stayed away.
    sessions_expired,
    /// QoS 0 messages whose subscriber was away.
    dropped_absent,
    /// QoS 0 messages whose subscriber did not read.
    dropped_slow,
    /// Messages that made room for younger ones in a full session.
    dropped_oldest,
    /// Messages whose time had passed before they could be delivered.
    dropped_expired,
    /// Messages that were larger than their one receiver takes.
    dropped_too_large,
    /// Messages that waited in a session when it ended.
    dropped_session_ended,
    /// Deliveries that the receiver has no right to.
    dropped_denied,
    /// QoS 0 messages that were to be stored while the disk was nearly full.
    dropped_disk_low,
    /// Messages whose place on disk was damaged.
    lost_damaged,
    /// QoS 0 messages that a full queue refused.
    dropped_queue_full,
    /// Jobs that made room for younger ones in a full queue, or that a younger
    /// one with their key replaced.
    dropped_given_way,
    /// Messages that a share group had no room or no member for, or that went
    /// with the session of the member that had them.
    dropped_group,
    /// PUBLISHes and wills that were refused for good.
    refused_messages,
    /// Messages that a deleted queue held.
    dropped_queue_deleted,
    /// Messages that a person did away with.
    dropped_purged,
    /// Receipts of jobs that could not be published to where they were asked for.
    dropped_receipts,
    /// Jobs given to a dead-letter queue.
    dead_letters,
}

impl Counts {
    /// Messages that were dropped, or lost, for any reason.
    pub fn dropped(&self) -> u64 {
        let dropped = self.each().filter(|(name, _)| drop_reason(name).is_some());
        dropped.map(|(_, count)| count).sum()
    }
}

/// Why messages were dropped that this counter is of; `None`: it is of something
/// else.
pub fn drop_reason(counter: &str) -> Option<&str> {
    let reason = counter.strip_prefix("dropped_");
    reason.or_else(|| counter.strip_prefix("lost_"))
}

/// One counter.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: usize) {
        if count > 0 {
            self.0.fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    pub fn increment(&self) {
        self.add(1);
    }
}
