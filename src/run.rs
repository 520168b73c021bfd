//! Starts everything, and stops it in order.

use std::fmt;

use crate::config::Config;

/// Why the broker could not start or had to stop: one sentence.
#[derive(Debug)]
pub struct ServeError(String);

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ServeError {}

/// Serves until the process is told to stop.
///
/// # Errors
/// An address cannot be listened on.
pub fn serve(config: Config) -> Result<(), ServeError> {
    let addresses: Vec<_> = config
        .listeners
        .iter()
        .map(|listener| listener.address.to_string())
        .collect();
    Err(ServeError(format!(
        "cannot listen on {}: there is no broker in this build",
        addresses.join(", ")
    )))
}
