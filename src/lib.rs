//! RotaMQ: an MQTT broker that is also a work-queue server.

pub mod cli;
pub mod config;
pub mod message;
pub mod protocol;
pub mod topic;
