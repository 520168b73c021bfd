//! Tests of the parts that have no I/O and no clock.

mod router;
