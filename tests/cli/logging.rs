//! The log: what clients send stays in its place.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use rotamq::cli::logging::dispatch;
use rotamq::config::{LogFormat, LogLevel, LogSettings};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(format: LogFormat, level: LogLevel, colour: bool, log: impl FnOnce()) -> String {
    let captured = Captured::default();
    let writer = captured.clone();
    let settings = LogSettings {
        level,
        format,
        kept_lines: 10,
    };
    let dispatch = dispatch(&settings, move || writer.clone(), colour);
    tracing::dispatcher::with_default(&dispatch, log);
    let bytes = captured.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

/// All control characters, a quote, and what is not ASCII.
fn hostile() -> String {
    let controls = ('\0'..='\u{9f}').filter(|char| char.is_control());
    controls.chain("\"\\ü".chars()).collect()
}

fn log_hostile() {
    let hostile = hostile();
    let hostile = hostile.as_str();
    let span = tracing::info_span!("connection", id = hostile, shown = %hostile);
    let _entered = span.enter();
    tracing::info!(client = ?hostile, user = hostile, shown = %hostile, "{hostile}");
}

/// Case F08 of docs/security.md.
#[test]
fn no_control_character_of_a_client_gets_into_a_log() {
    for format in [LogFormat::Text, LogFormat::Json] {
        let text = logged(format, LogLevel::Info, false, log_hostile);
        let line = text.strip_suffix('\n').unwrap();
        let control = line.chars().find(|char| char.is_control());
        assert_eq!(control, None, "{format:?}: {text:?}");
    }
    // With colour there are the log's own escapes, and still one line.
    let text = logged(LogFormat::Text, LogLevel::Info, true, log_hostile);
    let line = text.strip_suffix('\n').unwrap();
    let control = line
        .chars()
        .find(|char| char.is_control() && *char != '\x1b');
    assert_eq!(control, None, "{text:?}");
    for escape in line.split('\x1b').skip(1) {
        assert!(escape.starts_with('['), "{text:?}");
    }
}

#[test]
fn a_line_of_json_keeps_what_was_logged() {
    let text = logged(LogFormat::Json, LogLevel::Info, false, || {
        tracing::info!(user = hostile(), count = 3, "joined");
    });
    let object: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(object["message"], "joined");
    assert_eq!(object["user"], hostile());
    assert_eq!(object["count"], 3);
    assert_eq!(object["level"], "INFO");
}

#[test]
fn a_line_of_text_has_time_level_message_and_fields() {
    let text = logged(LogFormat::Text, LogLevel::Info, false, || {
        tracing::warn!(client = "a b", count = 3, "is full");
    });
    let (time, rest) = text.split_once("  WARN ").unwrap();
    assert!(time.ends_with('Z') && time.contains('T'), "{text}");
    assert_eq!(rest, "is full client=\"a b\" count=3\n");
}

#[test]
fn only_the_levels_that_are_asked_for_are_logged() {
    let levels = [
        LogLevel::Error,
        LogLevel::Warn,
        LogLevel::Info,
        LogLevel::Debug,
        LogLevel::Trace,
    ];
    for (index, level) in levels.into_iter().enumerate() {
        let text = logged(LogFormat::Text, level, false, || {
            tracing::error!("x");
            tracing::warn!("x");
            tracing::info!("x");
            tracing::debug!("x");
            tracing::trace!("x");
        });
        assert_eq!(text.lines().count(), index + 1, "{level:?}");
    }
}
