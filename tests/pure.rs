//! Tests of what needs neither sockets nor disk nor clock.

mod access;
mod bytes;
mod cli;
mod codec;
mod config;
mod documents;
mod hostile;
mod queue;
mod router;
mod work;
mod world;
