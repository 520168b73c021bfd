//! Tests of what needs no socket, no disk and no clock.

mod cli;
mod codec;
mod config;
