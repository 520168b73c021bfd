//! Settling a job by its result, which is stored elsewhere: in two steps, as
//! no two queues are locked at once. Between them nothing gives the job to
//! anybody else: no time that passes, no connection or session that is lost.

use super::jobs::{After, State};
use super::{Outcome, Queue};
use crate::message::{LeaseId, MessageId, Time};

impl Queue {
    /// The member brings the result of a job: it has it in hand, or lost it to
    /// nobody else so far. If so, [`Queue::finish_settling`] or
    /// [`Queue::abort_settling`] comes next.
    pub fn begin_settling(&mut self, id: LeaseId) -> bool {
        if self.is_current(id) {
            let held = self.jobs[id.job as usize].held_mut();
            held.settling = Some(After::Stay);
            return true;
        }
        let job = self.jobs.get(id.job as usize);
        let Some(job) = job.filter(|job| job.lease == id.number) else {
            return false;
        };
        let due = match job.state {
            State::Ready | State::Behind => None,
            State::Delayed { due } => Some(due),
            State::Leased(_) | State::Settling { .. } => return false,
        };
        self.take_out_waiting(id.job);
        self.jobs[id.job as usize].state = State::Settling { due };
        self.settling += 1;
        true
    }

    /// Whether the job that was leased so is still in the queue, whoever has
    /// it.
    pub fn has_job(&self, id: LeaseId, message: MessageId) -> bool {
        let job = self.jobs.get(id.job as usize);
        job.is_some_and(|job| job.lease >= id.number && job.message.id() == message)
    }

    /// The result is stored: the job is done. Whether it was being settled.
    pub fn finish_settling(&mut self, id: LeaseId, now: Time) -> bool {
        if !self.is_settling(id) {
            return false;
        }
        match self.jobs[id.job as usize].state {
            State::Leased(held) => {
                self.did_a_job(id.member, held.took_micros(now));
                self.unlink(id.job, Some(now));
            }
            _ => self.settling -= 1,
        }
        self.totals.done += 1;
        self.end(id.job, Outcome::Done);
        true
    }

    /// The result was not taken: the job is its member's as before, if that is
    /// still there, under the same lease.
    pub fn abort_settling(&mut self, id: LeaseId, now: Time) {
        if !self.is_settling(id) {
            return;
        }
        match &mut self.jobs[id.job as usize].state {
            State::Settling { due } => {
                let due = *due;
                self.settling -= 1;
                match due.filter(|due| *due > now) {
                    Some(due) => self.delay_unamended(id.job, due),
                    None => self.wait(id.job, false),
                }
            }
            State::Leased(held) => match held.settling.take() {
                // Its time may have passed meanwhile.
                Some(After::Stay) | None => self.arm(id.member, now),
                Some(after) => self.go_on(id.job, after, now),
            },
            State::Ready | State::Behind | State::Delayed { .. } => {}
        }
    }

    /// What becomes of a job that is being settled, if it does not come to
    /// that.
    pub(super) fn settles_then(&mut self, id: LeaseId, after: After) {
        if self.is_settling(id)
            && let State::Leased(held) = &mut self.jobs[id.job as usize].state
        {
            held.settling = Some(after);
        }
    }

    fn is_settling(&self, id: LeaseId) -> bool {
        let job = self.jobs.get(id.job as usize);
        job.is_some_and(|job| {
            job.lease == id.number
                && match &job.state {
                    State::Leased(held) => held.settling.is_some(),
                    State::Settling { .. } => true,
                    State::Ready | State::Behind | State::Delayed { .. } => false,
                }
        })
    }
}
