//! What the commands print: format strings, and the log.

mod format;
mod logging;
