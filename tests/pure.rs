//! Tests of what needs neither sockets nor disk nor clock.

mod access;
mod cli;
mod codec;
mod config;
mod queue;
mod router;
mod world;
