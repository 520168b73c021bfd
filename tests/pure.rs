//! Tests of what needs no socket, disk or clock.

mod config;
