//! What is asked of a queue for one job.

use crate::message::Time;

/// `Ask::default()`: the middle priority, nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask<'a> {
    /// 0 to 9, the highest first.
    pub priority: u8,
    pub group: Option<&'a str>,
    /// Of a last-value queue: what it replaces another one by.
    pub key: Option<&'a str>,
    /// Nobody gets it before; [`Time::ZERO`]: at once.
    pub due: Time,
    /// Its producer wants to know how it ended.
    pub receipt: bool,
}

impl Ask<'_> {
    /// Of what says none.
    pub const PRIORITY: u8 = 4;
    pub const PRIORITY_MAX: u8 = 9;
}

impl Default for Ask<'_> {
    fn default() -> Self {
        Ask {
            priority: Ask::PRIORITY,
            group: None,
            key: None,
            due: Time::ZERO,
            receipt: false,
        }
    }
}
