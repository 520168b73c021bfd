//! Connections that are told to end, a few at a time.
//!
//! Owns whose turn it is. What a client is told, its session's terms say; when
//! the next few are told, is the caller's to decide.

use super::{Core, Worker};
use crate::message::Place;
use crate::origin::ListenerName;
use crate::session::Close;

/// Who is still to be told.
pub struct Closing {
    places: Vec<Place>,
    close: Close,
    // `None`: whatever they came by.
    listener: Option<ListenerName>,
}

impl Core {
    /// All that are connected now are to be told to end, and why; those that came
    /// by one listener alone, if it is given. Their sessions stay.
    pub fn begin_closing(&self, close: Close, listener: Option<ListenerName>) -> Closing {
        Closing {
            places: self.sessions.places().collect(),
            close,
            listener,
        }
    }

    /// Tells so many more at most; how many it were. Fewer: there are no more.
    pub fn close_some(
        &self,
        worker: &mut Worker,
        closing: &mut Closing,
        count_max: usize,
    ) -> usize {
        let mut count = 0;
        while count < count_max
            && let Some(place) = closing.places.pop()
        {
            let session = self.sessions.lock(place);
            let session = session.filter(|session| {
                let origin = session
                    .account()
                    .and_then(|account| account.origin.as_ref());
                let came_by = |name: &ListenerName| {
                    origin.is_some_and(|origin| origin.listener.is_that_of(name))
                };
                session.is_open() && closing.listener.as_ref().is_none_or(came_by)
            });
            if let Some(mut session) = session {
                session.close(closing.close.clone(), &mut worker.effects);
                count += 1;
            }
        }
        worker.effects.wake_all();
        count
    }

    /// Tells all of them at once.
    pub fn close_all(&self, worker: &mut Worker, close: &Close) {
        let mut closing = self.begin_closing(close.clone(), None);
        self.close_some(worker, &mut closing, usize::MAX);
    }
}
