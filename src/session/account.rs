//! What people are told of a session: where its connection comes from, and what
//! has gone through it.
//!
//! Owns these numbers, and decides nothing by them. They begin with the session,
//! or with the broker's start where that is later. What is counted at each
//! message is counted in the session itself, and comes here when its connection
//! looks after it.

use serde::Serialize;
use utoipa::ToSchema;

use crate::message::Time;
use crate::origin::Origin;

/// The numbers of one session.
#[derive(Debug, Default)]
pub struct Account {
    /// Of its connection, or of the last; `None`: nobody has told.
    pub origin: Option<Origin>,
    /// When that began; zero: there was none since the broker's start.
    pub connected_at: Time,
    /// PUBLISHes that came.
    pub messages_in: u64,
    /// Of the packets after CONNECT that came whole.
    pub bytes_in: u64,
    /// PUBLISHes that its connection has taken to write.
    pub messages_out: u64,
    /// And all bytes that it has.
    pub bytes_out: u64,
    // Most sessions lose nothing.
    dropped: Option<Box<Dropped>>,
}

// One to each session: with it an idle client still takes what is promised.
const _: () = assert!(size_of::<Account>() <= 80);

/// Messages that were for a session and that its client does not get, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Dropped {
    /// QoS 0, and the client was away.
    pub absent: u64,
    /// QoS 0, and the client did not read.
    pub slow: u64,
    /// They made room for younger ones.
    pub oldest: u64,
    /// Their time had passed.
    pub expired: u64,
    /// Larger than the client takes.
    pub too_large: u64,
    /// The client had no right to them.
    pub denied: u64,
    /// Their place on disk was damaged.
    pub damaged: u64,
}

impl Dropped {
    /// For whatever reason.
    pub fn all(&self) -> u64 {
        let Dropped {
            absent,
            slow,
            oldest,
            expired,
            too_large,
            denied,
            damaged,
        } = self;
        absent + slow + oldest + expired + too_large + denied + damaged
    }
}

/// What came on a connection since its session was told last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Came {
    pub messages: u32,
    pub bytes: u32,
}

impl Account {
    pub fn came(&mut self, came: Came) {
        self.messages_in += u64::from(came.messages);
        self.bytes_in += u64::from(came.bytes);
    }

    pub fn dropped(&self) -> Dropped {
        self.dropped.as_deref().copied().unwrap_or_default()
    }

    pub(super) fn dropped_mut(&mut self) -> &mut Dropped {
        self.dropped.get_or_insert_default()
    }
}
