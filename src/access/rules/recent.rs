//! What a client was allowed a moment ago.

use std::sync::Arc;

use super::Rights;
use crate::message::Qos;

/// The rights of a connection that publishes, with the topics that it may
/// publish to and did: most publish to few, again and again, and find them
/// with one comparison.
///
/// It remembers nothing that is denied, nor anything of other rights than
/// these: whoever gets new rights gets a new one of these with them.
#[derive(Debug)]
pub struct Publishing {
    rights: Arc<Rights>,
    /// Each topic has one place. Empty until the first is allowed.
    recent: Vec<Box<str>>,
}

/// Bounds what a connection keeps to this many topics of the usual length.
const PLACES: usize = 8;
/// Longer topics are asked for each time.
const REMEMBERED_BYTES_MAX: usize = 256;

impl Publishing {
    pub fn new(rights: Arc<Rights>) -> Publishing {
        Publishing {
            rights,
            recent: Vec::new(),
        }
    }

    pub fn rights(&self) -> &Arc<Rights> {
        &self.rights
    }

    /// As [`Rights::may_publish`].
    #[inline]
    pub fn may_publish(&mut self, topic: &str, qos: Qos, retain: bool) -> bool {
        let place = place_of(topic);
        if !retain
            && qos <= self.rights.qos_max()
            && let Some(known) = self.recent.get(place)
            && **known == *topic
        {
            return true;
        }
        self.look_up(topic, qos, retain)
    }

    #[cold]
    fn look_up(&mut self, topic: &str, qos: Qos, retain: bool) -> bool {
        let may = self.rights.may_publish(topic, qos, retain);
        if may && (1..=REMEMBERED_BYTES_MAX).contains(&topic.len()) {
            if self.recent.is_empty() {
                self.recent.resize(PLACES, Box::default());
            }
            self.recent[place_of(topic)] = topic.into();
        }
        may
    }
}

/// Topics of one client mostly differ in their length or in a number near
/// their end or before it.
fn place_of(topic: &str) -> usize {
    let bytes = topic.as_bytes();
    let at =
        |from_end: usize| usize::from(*bytes.get(bytes.len().wrapping_sub(from_end)).unwrap_or(&0));
    (bytes.len() ^ at(1) ^ at(bytes.len() / 2 + 1)) % PLACES
}
