//! How far something is that takes long, on standard error.
//!
//! Shown only where that is a terminal, and gone when the work is over.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Between two turns of what shows that the work goes on.
const TICK: Duration = Duration::from_millis(100);

/// A line that tells how far something is; it goes when it is dropped.
pub struct Progress(ProgressBar);

impl Progress {
    /// Nobody knows of how much: `what` and a count.
    pub fn counting(what: &str) -> Progress {
        Progress::begin(
            ProgressBar::new_spinner(),
            "{spinner} {elapsed} {msg}: {human_pos}",
            what,
        )
    }

    /// Not even a count is known.
    pub fn waiting(what: &str) -> Progress {
        Progress::begin(
            ProgressBar::new_spinner(),
            "{spinner} {elapsed} {msg}",
            what,
        )
    }

    /// Nobody knows of how many bytes.
    pub fn counting_bytes(what: &str) -> Progress {
        let template = "{spinner} {elapsed} {msg}: {binary_bytes}";
        Progress::begin(ProgressBar::new_spinner(), template, what)
    }

    /// Of so many bytes.
    pub fn of_bytes(what: &str, total: u64) -> Progress {
        let template =
            "{spinner} {elapsed} {msg}: {binary_bytes} of {binary_total_bytes} {wide_bar}";
        Progress::begin(ProgressBar::new(total), template, what)
    }

    /// Of so many things, once [`Progress::expect`] says how many.
    pub fn of_many(what: &str) -> Progress {
        let template = "{spinner} {elapsed} {msg}: {human_pos} of {human_len} {wide_bar}";
        Progress::begin(ProgressBar::no_length(), template, what)
    }

    fn begin(bar: ProgressBar, template: &str, what: &str) -> Progress {
        let style = ProgressStyle::with_template(template);
        bar.set_style(style.expect("the template names fields that exist"));
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(TICK);
        Progress(bar)
    }

    pub fn expect(&self, total: u64) {
        self.0.set_length(total);
    }

    pub fn set(&self, done: u64) {
        self.0.set_position(done);
    }

    pub fn add(&self, done: u64) {
        self.0.inc(done);
    }

    /// What reads, with what was read shown.
    pub fn reads<R: std::io::Read>(&self, from: R) -> impl std::io::Read {
        self.0.wrap_read(from)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
