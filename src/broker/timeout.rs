//! All timed work, in one place.

use std::time::Duration;

use super::timers::Timer;
use super::{Core, Worker};
use crate::message::{SessionId, Time};
use crate::protocol::ReasonCode;
use crate::session::{Close, Session};

/// How long a timer may stand for something that is gone.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(60);

impl Core {
    /// Does what is due at `now`. When the next is due, [`super::Timers::sleep`] tells.
    pub fn handle_timeout(&self, worker: &mut Worker, now: Time) {
        for timer in self.timers.take_due(now) {
            self.pinned(worker, |worker| self.handle_timer(worker, timer, now));
            worker.effects.wake_all();
        }
    }

    fn handle_timer(&self, worker: &mut Worker, timer: Timer, now: Time) {
        match timer {
            Timer::Silence(session, number) => self.check_silence(worker, session, number, now),
            Timer::Validity(session, number) => self.check_validity(worker, session, number, now),
            Timer::Will(session, number) => self.check_will(worker, session, number, now),
            Timer::Expiry(session) => self.check_expiry(worker, session, now),
            Timer::Held(session, number) | Timer::Retry(session, number) => {
                // The connection looks for itself.
                if let Some(mut session) = self.sessions.lock(session.0)
                    && session.is_link(number)
                {
                    session.retry(&mut worker.effects);
                }
            }
            Timer::Stale(session, number) => self.check_stale(worker, session, number, now),
            Timer::Retained => self.expire_retained(worker, now),
            Timer::Queue(queue) => self.handle_list_timeout(worker, queue, now),
            Timer::Unused(queue) => self.handle_unused(worker, queue, now),
            Timer::Move(number) => self.handle_moving(worker, number, now),
            Timer::Sys => self.handle_sys(worker, now),
            Timer::SysTree => self.handle_sys_tree(worker, now),
            Timer::Recording(id) => self.look_at_recording(id, now),
        }
    }

    /// No packet for 1.5 times the keep alive: as if the network had failed
    /// [MQTT-3.1.2-22], in 3.1.1 [MQTT-3.1.2-24].
    fn check_silence(&self, worker: &mut Worker, id: SessionId, number: u32, now: Time) {
        let Some(mut session) = self
            .sessions
            .lock(id.0)
            .filter(|session| session.is_link(number))
        else {
            return;
        };
        let (Some(silence_max), Some(last)) = (session.terms.silence_max(), session.last_packet())
        else {
            return;
        };
        if now >= last + silence_max {
            let close = Close::new(
                ReasonCode::KeepAliveTimeout,
                "no packet for 1.5 times the keep alive",
            );
            session.close(close, &mut worker.effects);
        } else {
            self.schedule(now, last + silence_max, Timer::Silence(id, number));
        }
    }

    /// From now on the connection's client is known for so long, if not for ever.
    pub(super) fn hold_until(
        &self,
        session: &mut Session,
        id: SessionId,
        lasts: Option<Duration>,
        now: Time,
    ) {
        session.valid_until = lasts.map_or(Time::MAX, |lasts| now + lasts);
        if session.valid_until < Time::MAX {
            let timer = Timer::Validity(id, session.link_number());
            self.schedule(now, session.valid_until, timer);
        }
    }

    fn check_validity(&self, worker: &mut Worker, id: SessionId, number: u32, now: Time) {
        let session = self.sessions.lock(id.0);
        let Some(mut session) = session.filter(|session| session.is_link(number)) else {
            return;
        };
        if session.valid_until <= now {
            self.counters.connections_outlasted.increment();
            let client = &session.identity.client;
            tracing::info!(?client, "disconnected: its token has expired");
            let close = Close::new(ReasonCode::NotAuthorized, "the token has expired");
            session.close(close, &mut worker.effects);
        } else if session.valid_until < Time::MAX {
            // It has authenticated again, or its end is far away.
            self.schedule(now, session.valid_until, Timer::Validity(id, number));
        }
    }

    fn check_expiry(&self, worker: &mut Worker, id: SessionId, now: Time) {
        let Some(mut session) = self.sessions.lock(id.0) else {
            return;
        };
        // Timers that an earlier one has made needless set no other.
        if session.expiry_alarm <= now {
            session.expiry_alarm = Time::MAX;
        }
        if now < session.expires_at() {
            self.watch_expiry(&mut session, id, now);
            return;
        }
        drop(session);
        self.end(worker, id, None, super::connect::Ending::Expired, now);
    }

    fn check_stale(&self, worker: &mut Worker, id: SessionId, number: u32, now: Time) {
        let session = self.sessions.lock(id.0);
        let Some(mut session) = session.filter(|session| session.is_link(number)) else {
            return;
        };
        if session.stale_until <= now {
            let client = &session.identity.client;
            tracing::warn!(
                ?client,
                "disconnected: it answers none of the jobs that fill its window"
            );
            let why = "all packet ids in flight belong to jobs that timed out or were refused";
            let close = Close::new(ReasonCode::ReceiveMaximumExceeded, why);
            session.close(close, &mut worker.effects);
        }
    }

    /// Whoever sets a timer for a far moment looks again before: what is gone
    /// by then takes no place in between. When that is.
    pub(super) fn schedule(&self, now: Time, at: Time, timer: Timer) -> Time {
        let at = at.min(now + LOOK_AGAIN_AFTER);
        self.timers.schedule(at, timer);
        at
    }
}
