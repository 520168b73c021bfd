//! Columns that stand under each other, and values as a person reads them.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use super::strftime::Moment;

/// Text to the left, numbers to the right.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

/// Lines of columns, as wide as what is in them; the last one ends with its
/// text.
pub fn table(head: &[(&str, Side)], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|(name, _)| name.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let names: Vec<String> = head.iter().map(|(name, _)| (*name).to_owned()).collect();
    let mut text = String::new();
    for row in std::iter::once(&names).chain(rows) {
        let mut line = String::new();
        for ((cell, width), (_, side)) in row.iter().zip(&widths).zip(head) {
            // Writing to a String cannot fail.
            _ = match side {
                Side::Left => write!(line, "{cell:<width$}  "),
                Side::Right => write!(line, "{cell:>width$}  "),
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// A text of somebody else in one line, which cannot do anything to a terminal.
pub fn shown(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => shown += "\\n",
            '\r' => shown += "\\r",
            '\t' => shown += "\\t",
            // Also what turns the direction of the text.
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                shown.extend(c.escape_unicode());
            }
            c if c.is_control() => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    shown
}

/// The same, of so many characters at most.
pub fn shortened(text: &str, chars_max: usize) -> String {
    let shown = shown(text);
    match shown.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown,
    }
}

/// 1536 as 1.5 KiB.
pub fn bytes(count: usize) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut number = count as f64;
    while number >= 1024.0 && unit + 1 < UNITS.len() {
        number /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ => format!("{number:.1} {}", UNITS[unit]),
    }
}

/// A span in its largest two units.
pub fn span(millis: u64) -> String {
    let secs = millis / 1000;
    let (minutes, hours, days) = (secs / 60, secs / 3600, secs / 86_400);
    match () {
        () if millis < 1000 => format!("{millis} ms"),
        () if secs < 60 => format!("{}.{} s", secs, millis % 1000 / 100),
        () if hours < 1 => format!("{minutes}m{:02}s", secs % 60),
        () if days < 1 => format!("{hours}h{:02}m", minutes % 60),
        () => format!("{days}d{:02}h", hours % 24),
    }
}

/// A rate a second.
pub fn rate(per_sec: f64) -> String {
    match per_sec {
        rate if rate >= 100.0 => format!("{rate:.0}"),
        rate => format!("{rate:.1}"),
    }
}

/// A moment, given in milliseconds since 1970, in UTC.
pub fn moment(millis: u64) -> String {
    let text = second(Duration::from_millis(millis));
    format!("{text}.{:03}", millis % 1000)
}

/// The same, given in microseconds.
pub fn moment_us(micros: u64) -> String {
    let text = second(Duration::from_micros(micros));
    format!("{text}.{:06}", micros % 1_000_000)
}

fn second(since_1970: Duration) -> String {
    let moment = Moment::new(UNIX_EPOCH + since_1970);
    let mut text = String::new();
    moment.write('F', &mut text);
    text.push(' ');
    moment.write('T', &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let rows = [["é", "1", "x"], ["long", "1000", ""]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        let head = [
            ("NAME", Side::Left),
            ("N", Side::Right),
            ("LAST", Side::Left),
        ];
        let expected = "NAME     N  LAST\né        1  x\nlong  1000\n";
        assert_eq!(table(&head, &rows), expected);
    }

    #[test]
    fn values_as_a_person_reads_them() {
        assert_eq!(shown("a\u{1b}[2J\n\u{202e}é"), "a\\u{1b}[2J\\n\\u{202e}é");
        assert_eq!(shortened("abcdef", 3), "abc…");
        assert_eq!(shortened("abc", 3), "abc");
        assert_eq!(
            (bytes(1023), bytes(1536)),
            ("1023 B".into(), "1.5 KiB".into())
        );
        let spans = [999, 59_999, 61_000, 3_660_000, 90_000_000].map(span);
        assert_eq!(spans, ["999 ms", "59.9 s", "1m01s", "1h01m", "1d01h"]);
        assert_eq!(moment(86_400_007), "1970-01-02 00:00:00.007");
    }
}
