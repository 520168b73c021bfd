//! RotaMQ: an MQTT broker that is also a work-queue server.

pub mod access;
pub mod broker;
pub mod cli;
pub mod config;
pub mod message;
mod net;
pub mod protocol;
pub mod queue;
pub mod router;
pub mod run;
pub mod session;
pub mod slots;
pub mod topic;

pub use run::Broker;
