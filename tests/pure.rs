//! Tests of what needs no socket, no disk and no clock.

mod codec;
mod config;
