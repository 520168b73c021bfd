//! RotaMQ: an MQTT broker that is also a work-queue server.

pub mod config;
pub mod message;
pub mod protocol;
pub mod router;
pub mod queue;
pub mod topic;
