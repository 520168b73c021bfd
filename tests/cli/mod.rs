//! What the commands print: format strings, and the log; and how properties
//! are given.

mod format;
mod logging;
mod property;
