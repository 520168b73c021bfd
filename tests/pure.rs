//! The pure parts, without sockets, disk or clock.

mod queue;
