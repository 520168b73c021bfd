//! Metrics as Prometheus reads them: its text format, version 0.0.4.
//!
//! Owns how names, labels and values are written. Which there are is in
//! `families`.
//!
//! The format is written by ourselves, as it is a few lines, and as the numbers
//! are the broker's own: a library of metrics would keep them a second time.

use std::fmt::{Display, Write};

use crate::tally::Spread;

/// What is served as.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What kind of numbers a family has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// The text so far.
#[derive(Default)]
pub(super) struct Text(String);

impl Text {
    pub fn into_string(self) -> String {
        self.0
    }

    /// A family of numbers that only grow while the broker runs; its name ends with
    /// `_total`.
    pub fn counter(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, help, Kind::Counter)
    }

    /// A family of numbers that go up and down.
    pub fn gauge(&mut self, name: &str, help: &str) -> Family<'_> {
        self.family(name, help, Kind::Gauge)
    }

    /// A spread, as a family of its own. `scale`: what its values are divided by.
    pub fn histogram(&mut self, name: &str, help: &str, spread: &Spread, ends: &[u64], scale: f64) {
        let family = self.family(name, help, Kind::Histogram);
        let (mut count, Family { text, name }) = (0, family);
        for (end, more) in ends.iter().zip(&spread.buckets) {
            count += more;
            let end = *end as f64 / scale;
            text.put(format_args!("{name}_bucket{{le=\"{end}\"}} {count}\n"));
        }
        count = spread.count();
        text.put(format_args!("{name}_bucket{{le=\"+Inf\"}} {count}\n"));
        let sum = spread.sum as f64 / scale;
        text.put(format_args!("{name}_sum {sum}\n{name}_count {count}\n"));
    }

    fn family(&mut self, name: &str, help: &str, kind: Kind) -> Family<'_> {
        debug_assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
        debug_assert!(!help.contains(['\\', '\n']), "{name}");
        let word = kind.word();
        self.put(format_args!("# HELP {name} {help}\n# TYPE {name} {word}\n"));
        Family {
            text: self,
            name: name.to_owned(),
        }
    }

    fn put(&mut self, what: std::fmt::Arguments<'_>) {
        // A string takes everything.
        _ = self.0.write_fmt(what);
    }
}

/// The numbers of one name.
pub(super) struct Family<'t> {
    text: &'t mut Text,
    name: String,
}

impl Family<'_> {
    /// Its only number.
    pub fn is(&mut self, value: impl Display) {
        self.text.put(format_args!("{} {value}\n", self.name));
    }

    /// One of its numbers.
    pub fn with(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        let out = &mut self.text.0;
        out.push_str(&self.name);
        for (at, (label, text)) in labels.iter().enumerate() {
            out.push(if at == 0 { '{' } else { ',' });
            out.push_str(label);
            out.push_str("=\"");
            for c in text.chars() {
                match c {
                    '\\' => out.push_str("\\\\"),
                    '"' => out.push_str("\\\""),
                    '\n' => out.push_str("\\n"),
                    c => out.push(c),
                }
            }
            out.push('"');
        }
        self.text.put(format_args!("}} {value}\n"));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::{Histogram, SPANS_US};

    #[test]
    fn it_is_written_as_the_format_has_it() {
        let mut text = Text::default();
        text.gauge("a_seconds", "How long.").is(0.5);
        text.counter("b_total", "How many.")
            .with(&[("queue", "a\"b\\c\nd"), ("state", "ready")], 7)
            .with(&[("queue", ""), ("state", "é")], 8);
        assert_eq!(
            text.into_string(),
            "# HELP a_seconds How long.\n# TYPE a_seconds gauge\na_seconds 0.5\n\
             # HELP b_total How many.\n# TYPE b_total counter\n\
             b_total{queue=\"a\\\"b\\\\c\\nd\",state=\"ready\"} 7\n\
             b_total{queue=\"\",state=\"é\"} 8\n"
        );
    }

    #[test]
    fn buckets_hold_all_that_is_no_more() {
        let histogram = Histogram::default();
        for micros in [10, 60, 60, 20_000_000] {
            histogram.note_span(std::time::Duration::from_micros(micros));
        }
        let mut text = Text::default();
        text.histogram("h_seconds", "How long.", &histogram.read(), &SPANS_US, 1e6);
        let text = text.into_string();
        for line in [
            "h_seconds_bucket{le=\"0.00005\"} 1",
            "h_seconds_bucket{le=\"0.0001\"} 3",
            "h_seconds_bucket{le=\"10\"} 3",
            "h_seconds_bucket{le=\"+Inf\"} 4",
            "h_seconds_sum 20.00013",
            "h_seconds_count 4",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}: {text}");
        }
    }
}
