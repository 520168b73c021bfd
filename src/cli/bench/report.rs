//! What a run found: one list, shown as a table or as one JSON object.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value};

use super::course::Sample;
use super::latency::Latencies;

/// Names, labels and values in the order in which they are shown.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
}

struct Row {
    /// The name in JSON, its unit last.
    key: String,
    label: String,
    value: Value,
    unit: &'static str,
}

impl Report {
    /// A text or a whole number; `label` is what a person reads.
    pub fn add(&mut self, key: &str, label: &str, value: impl Into<Value>, unit: &'static str) {
        self.rows.push(Row {
            key: key.into(),
            label: label.into(),
            value: value.into(),
            unit,
        });
    }

    /// A number with a fraction, kept to a thousandth; nothing where it could
    /// not be measured.
    pub fn add_number(&mut self, key: &str, label: &str, value: f64, unit: &'static str) {
        if value.is_finite() {
            let kept = (value * 1000.0).round() / 1000.0;
            self.add(key, label, kept, unit);
        }
    }

    /// `microseconds a thing`, of the broker and of this tool.
    pub fn add_cpu(&mut self, name: &str, before: &Sample, after: &Sample, count: u64) {
        self.add_broker_cpu(name, before, after, count);
        self.add_generator_cpu(name, before, after, count);
    }

    /// `microseconds a thing`, where both samples have the broker's time.
    pub fn add_broker_cpu(&mut self, name: &str, before: &Sample, after: &Sample, count: u64) {
        if let (Some(before), Some(after)) = (&before.broker, &after.broker) {
            self.add_number(
                &format!("broker_cpu_us_per_{}", name.replace(' ', "_")),
                &format!("broker's CPU a {name}"),
                micros(after.cpu.since(&before.cpu)) / count as f64,
                "µs",
            );
        }
    }

    /// `microseconds a thing`, where both samples have this tool's time.
    pub fn add_generator_cpu(&mut self, name: &str, before: &Sample, after: &Sample, count: u64) {
        if let (Some(before), Some(after)) = (&before.tool_cpu, &after.tool_cpu) {
            self.add_number(
                &format!("generator_cpu_us_per_{}", name.replace(' ', "_")),
                &format!("this tool's CPU a {name}"),
                micros(after.since(before)) / count as f64,
                "µs",
            );
        }
    }

    /// From PUBLISH to delivery, and to acknowledgement, as far as there were
    /// any.
    pub fn add_latencies(&mut self, latencies: &Latencies) {
        self.add_quantiles("latency", "latency", &latencies.delivery);
        self.add_quantiles(
            "acknowledged",
            "acknowledged after",
            &latencies.acknowledgement,
        );
    }

    /// Of nanoseconds; nothing where none were recorded.
    pub fn add_quantiles(&mut self, key: &str, label: &str, histogram: &Histogram<u64>) {
        if histogram.is_empty() {
            return;
        }
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99_9", 0.999), ("max", 1.0)] {
            self.add_number(
                &format!("{key}_{name}_us"),
                &format!("{label} {}", name.replace('_', ".")),
                histogram.value_at_quantile(quantile) as f64 / 1000.0,
                "µs",
            );
        }
    }

    /// The broker's resident memory at one moment, where it is known; `name`:
    /// which one.
    pub fn add_resident(&mut self, name: &str, label: &str, sample: &Sample) {
        if let Some(broker) = &sample.broker {
            self.add(
                &format!("broker_resident_bytes{name}"),
                label,
                broker.resident_bytes,
                "bytes",
            );
        }
    }

    /// By how much the broker's resident memory has grown, for each of
    /// `count` things.
    pub fn add_growth(&mut self, thing: &str, label: &str, from: &Sample, to: &Sample, count: u64) {
        if let (Some(from), Some(to)) = (&from.broker, &to.broker) {
            self.add_number(
                &format!("broker_resident_bytes_per_{thing}"),
                label,
                (to.resident_bytes as f64 - from.resident_bytes as f64) / count as f64,
                "bytes",
            );
        }
    }

    pub fn to_json(&self) -> Value {
        let pairs = self
            .rows
            .iter()
            .map(|row| (row.key.clone(), row.value.clone()));
        Value::Object(pairs.collect::<Map<_, _>>())
    }

    /// One line a row, the values in a column.
    pub fn to_table(&self) -> String {
        let shown: Vec<(&Row, String)> = self.rows.iter().map(|row| (row, show(row))).collect();
        let width = |of: fn(&(&Row, String)) -> usize| shown.iter().map(of).max().unwrap_or(0);
        let labels = width(|(row, _)| row.label.chars().count());
        let values = width(|(_, value)| value.chars().count());
        let lines = shown
            .iter()
            .map(|(row, value)| format!("{:labels$}  {value:>values$} {}", row.label, row.unit));
        lines.map(|line| format!("{}\n", line.trim_end())).collect()
    }
}

fn show(row: &Row) -> String {
    match &row.value {
        Value::String(text) => text.clone(),
        value => match (value.as_u64(), value.as_f64()) {
            (Some(whole), _) => grouped(whole),
            (_, Some(number)) if number.abs() >= 1000.0 => grouped(number.round() as u64),
            _ => value.to_string(),
        },
    }
}

/// 1234567 as 1,234,567.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn micros(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shows_the_same_values_to_people_and_machines() {
        let mut report = Report::default();
        report.add("scenario", "scenario", "pairs", "");
        report.add("delivered", "delivered", 1_234_567u64, "messages");
        report.add_number("cpu_us", "CPU", 0.123_456, "µs");
        report.add_number("rate", "rate", 1234.5, "/s");
        report.add_number("none", "of no messages", f64::NAN, "µs");
        assert_eq!(
            report.to_json(),
            json!({"scenario": "pairs", "delivered": 1_234_567, "cpu_us": 0.123, "rate": 1234.5})
        );
        assert_eq!(
            report.to_table(),
            "scenario       pairs\n\
             delivered  1,234,567 messages\n\
             CPU            0.123 µs\n\
             rate           1,235 /s\n"
        );
    }
}
