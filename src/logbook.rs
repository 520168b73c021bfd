//! The last lines of the log, and the level from which on there are any.
//!
//! Owns the lines that are kept, bounded in number and bytes, and which level is
//! in force. Writes nothing: what logs brings each line here, and is told the
//! level. For whoever looks at the log while the broker runs.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::config::LogLevel;

/// Of all lines that are kept.
const KEPT_BYTES_MAX: usize = 4 << 20;
/// What of a line's message, or of a field, is longer is cut off.
const TEXT_BYTES_MAX: usize = 8 << 10;
/// Fields of a line; more are left out.
const FIELDS_MAX: usize = 32;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Line {
    /// Lines are numbered from 1 on.
    pub number: u64,
    /// By the system's clock, since 1970.
    pub at_ms: u64,
    pub level: LogLevel,
    pub message: String,
    /// What else was said, by name.
    #[schema(value_type = Object)]
    pub fields: Map<String, Value>,
}

/// Which lines somebody wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    level: LogLevel,
    // In lower case.
    text: Option<String>,
}

impl Wanted {
    /// Those of this level and more severe ones; `text`: with this in the message or
    /// in a field, whichever case it is in.
    pub fn new(level: LogLevel, text: Option<&str>) -> Wanted {
        Wanted {
            level,
            text: text.map(str::to_lowercase),
        }
    }

    fn is(&self, line: &Line) -> bool {
        let Some(text) = &self.text else {
            return line.level <= self.level;
        };
        let has = |found: &str| found.to_lowercase().contains(text);
        let mut fields = line.fields.iter();
        line.level <= self.level
            && (has(&line.message)
                || fields.any(|(name, value)| match value {
                    Value::String(value) => has(&format!("{name}={value}")),
                    value => has(&format!("{name}={value}")),
                }))
    }
}

/// Where a level is set: the log's filter.
type SetLevel = Box<dyn Fn(LogLevel) + Send + Sync>;

/// The log of a process.
pub struct Logbook {
    kept: Mutex<Kept>,
    // The number of the last line.
    last: watch::Sender<u64>,
    levels: Mutex<Levels>,
    set_level: RwLock<Option<SetLevel>>,
}

struct Kept {
    lines: VecDeque<Line>,
    bytes: usize,
    lines_max: usize,
    last: u64,
}

/// Which level is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// The one that holds when no other was set for a while.
    pub usual: LogLevel,
    /// Another one, and until when by the system's clock, in ms since 1970.
    pub for_now: Option<(LogLevel, u64)>,
    // Tells one that was set for a while from the next.
    turn: u64,
}

impl Levels {
    /// The one in force.
    pub fn current(&self) -> LogLevel {
        self.for_now.map_or(self.usual, |(level, _)| level)
    }
}

impl Logbook {
    /// Nothing is logged yet; `lines_max`: so many are kept.
    pub fn new(level: LogLevel, lines_max: usize) -> Logbook {
        Logbook {
            kept: Mutex::new(Kept {
                lines: VecDeque::new(),
                bytes: 0,
                lines_max,
                last: 0,
            }),
            last: watch::Sender::new(0),
            levels: Mutex::new(Levels {
                usual: level,
                for_now: None,
                turn: 0,
            }),
            set_level: RwLock::new(None),
        }
    }

    /// Who is to be told when the level changes.
    pub fn on_level(&self, set_level: impl Fn(LogLevel) + Send + Sync + 'static) {
        *self.set_level.write() = Some(Box::new(set_level));
    }

    // ---- lines

    /// Whether lines are kept at all.
    pub fn keeps(&self) -> bool {
        self.kept.lock().lines_max > 0
    }

    /// So many lines are kept from now on.
    pub fn set_lines_max(&self, lines_max: usize) {
        let mut kept = self.kept.lock();
        kept.lines_max = lines_max;
        kept.make_room(0);
    }

    /// A line was logged just now.
    pub fn push(&self, level: LogLevel, mut message: String, fields: Map<String, Value>) {
        cut(&mut message);
        let mut line = Line {
            number: 0,
            at_ms: now_ms(),
            level,
            message,
            fields,
        };
        let mut kept = self.kept.lock();
        if kept.lines_max == 0 {
            return;
        }
        kept.last += 1;
        line.number = kept.last;
        let bytes = cost_bytes(&line);
        kept.make_room(bytes);
        kept.bytes += bytes;
        kept.lines.push_back(line);
        let last = kept.last;
        drop(kept);
        // Two threads may get here in the other order.
        self.last.send_if_modified(|told| {
            let is_newer = last > *told;
            *told = last.max(*told);
            is_newer
        });
    }

    /// Up to `limit` of the lines behind that number that are wanted, the oldest
    /// first; and the number of the last line that was looked at. All that are
    /// kept, where that many have not been logged: the number is of an earlier
    /// process, and lines have begun anew.
    pub fn after(&self, number: u64, wanted: &Wanted, limit: usize) -> (Vec<Line>, u64) {
        let kept = self.kept.lock();
        let number = Some(number).filter(|number| *number <= kept.last);
        let mut seen = number.unwrap_or(0);
        let from = kept.lines.partition_point(|line| line.number <= seen);
        let mut found = Vec::new();
        for line in kept.lines.range(from..) {
            if found.len() == limit {
                return (found, seen);
            }
            seen = line.number;
            if wanted.is(line) {
                found.push(line.clone());
            }
        }
        (found, seen.max(kept.last))
    }

    /// The last `count` of the lines that are wanted, the oldest first.
    pub fn last(&self, wanted: &Wanted, count: usize) -> Vec<Line> {
        let kept = self.kept.lock();
        let lines = kept.lines.iter().rev().filter(|line| wanted.is(line));
        let mut found: Vec<Line> = lines.take(count).cloned().collect();
        found.reverse();
        found
    }

    /// The number of the last of the lines before the last `count` ones.
    pub fn before_last(&self, count: u64) -> u64 {
        self.kept.lock().last.saturating_sub(count)
    }

    /// Changes whenever there are new lines, to the number of the last.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    // ---- the level

    /// Which level is in force.
    pub fn levels(&self) -> Levels {
        *self.levels.lock()
    }

    /// This level holds from now on, in place of any other.
    pub fn set_level(&self, level: LogLevel) {
        self.change(|levels| {
            levels.usual = level;
            levels.for_now = None;
            levels.turn += 1;
        });
    }

    /// The configuration says so: it holds, unless another one was set for a
    /// while; then it does when that is over.
    pub fn set_usual_level(&self, level: LogLevel) {
        self.change(|levels| levels.usual = level);
    }

    /// This level holds for a while. Its turn, for [`Logbook::end_turn`].
    pub fn set_level_for(&self, level: LogLevel, span: Duration) -> u64 {
        let until = now_ms().saturating_add(span.as_millis() as u64);
        self.change(|levels| {
            levels.for_now = Some((level, until));
            levels.turn += 1;
        })
    }

    /// The while is over: the usual level holds again, if no other was set
    /// meanwhile.
    pub fn end_turn(&self, turn: u64) {
        self.change(|levels| {
            if levels.turn == turn {
                levels.for_now = None;
            }
        });
    }

    /// The filter is told with the levels locked, so that the last one holds.
    fn change(&self, change: impl FnOnce(&mut Levels)) -> u64 {
        let mut levels = self.levels.lock();
        change(&mut levels);
        if let Some(set_level) = &*self.set_level.read() {
            set_level(levels.current());
        }
        levels.turn
    }
}

impl Kept {
    /// Forgets the oldest lines, until there is room for one more of so many
    /// bytes.
    fn make_room(&mut self, bytes: usize) {
        let lines_max = match bytes {
            0 => self.lines_max,
            _ => self.lines_max.saturating_sub(1),
        };
        while self.lines.len() > lines_max || self.bytes + bytes > KEPT_BYTES_MAX {
            let Some(line) = self.lines.pop_front() else {
                return;
            };
            self.bytes -= cost_bytes(&line);
        }
    }
}

/// What is kept of a text that a client may have sent: no control characters,
/// which are escaped as in the log, and not more than a line should have.
pub fn printable(text: &str) -> String {
    let mut printed = String::with_capacity(text.len().min(TEXT_BYTES_MAX));
    for char in text.chars() {
        if printed.len() >= TEXT_BYTES_MAX {
            break;
        }
        match char.is_control() {
            true => printed.extend(char.escape_default()),
            false => printed.push(char),
        }
    }
    cut(&mut printed);
    printed
}

/// Whether a line with so many fields may have one more.
pub fn takes_field(fields: &Map<String, Value>) -> bool {
    fields.len() < FIELDS_MAX
}

fn cut(text: &mut String) {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
    }
}

/// With what a map of JSON takes beside its texts.
fn cost_bytes(line: &Line) -> usize {
    let of_value = |value: &Value| match value {
        Value::String(text) => text.len(),
        _ => 0,
    };
    let fields = line.fields.iter();
    let fields = fields.map(|(name, value)| 80 + name.len() + of_value(value));
    size_of::<Line>() + line.message.len() + fields.sum::<usize>()
}

fn now_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    since_1970.unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(book: &Logbook, message: &str) {
        book.push(LogLevel::Info, message.to_owned(), Map::new());
    }

    fn messages(book: &Logbook, after: u64, limit: usize) -> Vec<String> {
        let (lines, _) = book.after(after, &Wanted::new(LogLevel::Trace, None), limit);
        lines.into_iter().map(|line| line.message).collect()
    }

    #[test]
    fn the_last_lines_are_kept_and_paged() {
        let book = Logbook::new(LogLevel::Info, 3);
        for text in ["a", "b", "c", "d"] {
            push(&book, text);
        }
        assert_eq!(messages(&book, 0, 9), ["b", "c", "d"]);
        assert_eq!(messages(&book, 2, 1), ["c"]);
        assert_eq!(messages(&book, 4, 9), [""; 0]);
        let severe = Wanted::new(LogLevel::Warn, None);
        assert_eq!(book.after(0, &severe, 9), (Vec::new(), 4));
        assert_eq!(book.before_last(1), 3);
        book.set_lines_max(1);
        assert_eq!(messages(&book, 0, 9), ["d"]);
        book.set_lines_max(0);
        push(&book, "e");
        assert_eq!(messages(&book, 0, 9), [""; 0]);
        assert!(!book.keeps());
    }

    /// Not those of before, as for who pages; nor nothing, where lines began anew.
    #[test]
    fn the_last_ones_are_found_and_those_of_another_process() {
        let book = Logbook::new(LogLevel::Info, 9);
        let found = |text, count| {
            let lines = book.last(&Wanted::new(LogLevel::Info, text), count);
            lines
                .into_iter()
                .map(|line| line.number)
                .collect::<Vec<_>>()
        };
        for number in 0..4 {
            let fields = Map::from_iter([("client".to_owned(), Value::from(format!("C{number}")))]);
            book.push(LogLevel::Info, "Connected".to_owned(), fields);
        }
        push(&book, "connected");
        assert_eq!(found(None, 2), [4, 5]);
        assert_eq!(found(Some("connected"), 9), [1, 2, 3, 4, 5]);
        assert_eq!(found(Some("client=c2"), 9), [3]);
        assert_eq!(found(Some("nobody"), 9), [0; 0]);
        assert_eq!(messages(&book, 5, 9), [""; 0]);
        assert_eq!(messages(&book, 6, 9).len(), 5);
    }

    #[test]
    fn long_lines_are_cut_and_bound_how_many_there_are() {
        let book = Logbook::new(LogLevel::Info, usize::MAX);
        let long = "ü".repeat(TEXT_BYTES_MAX);
        for _ in 0..2 * KEPT_BYTES_MAX / TEXT_BYTES_MAX {
            push(&book, &long);
        }
        let kept = book.kept.lock();
        assert!(kept.bytes <= KEPT_BYTES_MAX && kept.bytes > KEPT_BYTES_MAX / 2);
        let told: usize = kept.lines.iter().map(cost_bytes).sum();
        assert_eq!(told, kept.bytes);
        assert!(kept.lines.iter().all(|line| line.message.ends_with('…')));
    }

    #[test]
    fn a_level_for_a_while_gives_way_to_the_usual_one() {
        let book = Logbook::new(LogLevel::Info, 1);
        let told = std::sync::Arc::new(Mutex::new(Vec::new()));
        let tell = told.clone();
        book.on_level(move |level| tell.lock().push(level));
        let first = book.set_level_for(LogLevel::Trace, Duration::from_secs(9));
        book.set_usual_level(LogLevel::Warn);
        assert_eq!(book.levels().current(), LogLevel::Trace);
        let second = book.set_level_for(LogLevel::Debug, Duration::from_secs(9));
        book.end_turn(first);
        assert_eq!(book.levels().current(), LogLevel::Debug);
        book.end_turn(second);
        assert_eq!(book.levels().current(), LogLevel::Warn);
        book.set_level(LogLevel::Error);
        assert_eq!(
            *told.lock(),
            [
                LogLevel::Trace,
                LogLevel::Trace,
                LogLevel::Debug,
                LogLevel::Debug,
                LogLevel::Warn,
                LogLevel::Error
            ]
        );
    }

    #[test]
    fn what_clients_send_has_no_control_characters() {
        assert_eq!(printable("a\u{1b}[2J\nü\u{9b}"), "a\\u{1b}[2J\\nü\\u{9b}");
        assert!(printable(&"\0".repeat(1 << 20)).len() <= TEXT_BYTES_MAX + 3);
    }
}
