//! Seeing clients, sessions, subscriptions and retained messages, and what may
//! be done with them by a person: one interface, for whoever shows it.
//!
//! Owns the views, which are JSON too, and their pages. A page takes a bounded
//! time: it may have fewer items than were asked for, or none, and still be not
//! the last. One that is there all the time is on exactly one page, whoever
//! comes and goes meanwhile. Changes nothing but in [`change`].

mod change;
mod clients;
mod retained;
mod subscriptions;

use std::time::Duration;

pub use change::{Cleared, Outgoing, Published, Receivers};
pub use clients::{
    ClientShown, ClientView, Details, InFlightState, InFlightView, SessionShown, SessionView,
    Wanted, WillView,
};
pub use retained::RetainedView;
pub use subscriptions::{Kind, Position, SubscriptionView};

use super::steer::{Code, SteerError};
use crate::message::Time;
use crate::pattern;

/// Sessions, subscriptions or topics that are looked at for one page.
const STEPS_MAX: usize = 10_000;
/// What the items of one answer may take: few messages may be large, and many
/// small, but all of them are put together in memory.
pub(in crate::broker) const ANSWER_BYTES_MAX: usize = 8 << 20;

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paged<T, P> {
    pub items: Vec<T>,
    /// What the next page comes after; `None`: this is the last.
    pub next: Option<P>,
}

/// Whether a text is what is asked for: has it in it; or, with a `*`, is like it.
pub(crate) fn is_like(wanted: Option<&str>, text: &str) -> bool {
    wanted.is_none_or(|wanted| match wanted.contains('*') {
        true => pattern::fits(wanted, text),
        false => text.contains(wanted),
    })
}

fn not_found(what: impl Into<String>) -> SteerError {
    SteerError::new(Code::NotFound, what)
}

fn invalid(what: impl Into<String>) -> SteerError {
    SteerError::new(Code::Invalid, what)
}

/// Since 1970.
fn at_ms(moment: Time) -> u64 {
    moment.as_micros() / 1000
}

/// A moment that may never come, or never have been.
fn known_at_ms(moment: Time) -> Option<u64> {
    let is_known = moment > Time::ZERO && moment < Time::MAX;
    is_known.then(|| at_ms(moment))
}

/// How long ago that is; `None`: nobody knows.
fn age_ms(moment: Time, now: Time) -> Option<u64> {
    (moment > Time::ZERO).then(|| millis(now.since(moment)))
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
