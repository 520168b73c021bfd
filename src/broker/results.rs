//! Results of jobs: stored, routed, and their job settled, or nothing of it.
//!
//! Owns the order of these steps, and what is answered where the job is not in
//! its publisher's hands.

use super::link::Link;
use super::publish::{Refused, Taken};
use super::wishes::Settles;
use super::{Core, Worker};
use crate::config::Durability;
use crate::journal::{Change, ListId};
use crate::message::Time;
use crate::protocol::ReasonCode;
use crate::session::{Close, Hold, Publication, SentJob};

impl Core {
    /// Publishes the result of a delivery that the client has in hand, and
    /// settles that. In one turn of the worker: stored together or not at all.
    ///
    /// # Errors
    /// As those of a PUBLISH; then the job stays in the client's hands. Or it
    /// is not there.
    pub(super) fn publish_result(
        &self,
        worker: &mut Worker,
        link: &Link,
        settles: Settles,
        publication: &mut Publication<'_>,
        full_topic: &str,
        now: Time,
    ) -> Result<Taken, Refused> {
        let job = self.job_in_hand(link, settles).map_err(refused)?;
        if let Some((list, durability)) = self.begin_settling(job).map_err(refused)? {
            // As safe as its job was, and seen by nobody before that is settled
            // for good: this turn's batch is known by a change that is none.
            let (row, about) = (0, &[][..]);
            let journal = &mut worker.effects.journal;
            journal.add(durability, Change::Amend { list, row, about });
            publication.after = self.store.append(journal);
            publication.durability = publication.durability.max(durability);
        }
        let taken = self.publish(worker, publication, full_topic, now);
        let is_taken = taken.is_ok();
        self.change_list(worker, job.queue, now, |list| match is_taken {
            true => _ = list.queue.finish_settling(job.lease, now),
            false => list.queue.abort_settling(job.lease, now),
        });
        if is_taken {
            self.let_go_of_job(worker, link, job);
            self.watch_stale(link.session, job.queue, now);
        }
        taken
    }

    /// The job that is meant, if the client has it for all that its session
    /// knows.
    fn job_in_hand(&self, link: &Link, settles: Settles) -> Result<SentJob, &'static str> {
        let session = self.session_of(link).ok_or(NOT_IN_HAND)?;
        let meant = |hold| {
            let jobs = session.window.jobs().filter(move |(packet_id, job)| {
                let is_named = match settles {
                    Settles::Message(message) => job.message == message,
                    Settles::Packet(id) => *packet_id == id,
                };
                is_named && job.hold == hold
            });
            jobs.map(|(_, job)| job)
        };
        let mut current = meant(Hold::Current);
        match (current.next(), current.next()) {
            (Some(job), None) => return Ok(job),
            (Some(_), Some(_)) => return Err(SEVERAL),
            (None, _) => {}
        }
        let late = meant(Hold::TimedOut).last();
        late.ok_or_else(|| match meant(Hold::Settled).next() {
            Some(_) => SETTLED,
            None => NOT_IN_HAND,
        })
    }

    /// Nobody else gets the job from now on. Where it is stored.
    fn begin_settling(&self, job: SentJob) -> Result<Option<(ListId, Durability)>, &'static str> {
        let list = self.lists.lock(job.queue.0);
        let mut list = list.ok_or(SETTLED)?;
        if !list.is_work() {
            return Err(SHARED);
        }
        match list.queue.begin_settling(job.lease) {
            true => Ok(list.queue.kept_in()),
            false if list.queue.has_job(job.lease, job.message) => Err(ELSEWHERE),
            false => Err(SETTLED),
        }
    }

    /// What the client still says of the delivery only frees its id.
    fn let_go_of_job(&self, worker: &mut Worker, link: &Link, job: SentJob) {
        let effects = &mut worker.effects;
        if let Some(mut session) = self.sessions.lock(link.session.0)
            && let Some(packet_id) = session.window.id_of(job.queue, job.lease)
        {
            session.weaken(packet_id, Hold::Settled, &mut effects.journal);
            self.store_session(&mut session, effects);
        }
    }
}

const NOT_IN_HAND: &str = "this client has no such delivery in hand as settles names: it was acknowledged, or went back \
     to its queue, or never came here";
const SETTLED: &str = "the job that settles names was settled before";
const ELSEWHERE: &str = "the time for the job that settles names was up: it went back to its queue, and somebody else has it by now";
const SEVERAL: &str = "this client has that message in hand from several queues: let settles name one by packet: and its \
     packet id";
const SHARED: &str =
    "settles is for jobs of queues, and what it names came from a share group: acknowledge it";

fn refused(why: &'static str) -> Refused {
    Refused::Never(Close::new(ReasonCode::ImplementationSpecificError, why))
}
