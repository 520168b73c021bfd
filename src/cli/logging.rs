//! The log on standard error: text for people, or JSON.
//!
//! Whatever a client sends cannot leave its place in a line: control
//! characters are escaped here, however a value was recorded.

use std::fmt::{self, Write};
use std::io::{self, IsTerminal};

use tracing::field::Field;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{self, Writer};

use crate::config::{LogFormat, LogLevel, LogSettings};

/// Logs from now on, once in a process; in colour if standard error is a
/// terminal.
///
/// A second call changes nothing: a program that the broker is embedded in
/// keeps its own log.
pub fn start(settings: &LogSettings) {
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // Set already: then that one is it.
    _ = tracing::dispatcher::set_global_default(dispatch(settings, io::stderr, colour));
}

/// A log of these settings that is written to `writer`; a line that cannot be
/// written is lost.
pub fn dispatch<W>(settings: &LogSettings, writer: W, colour: bool) -> tracing::Dispatch
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let level = match settings.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        // It would tell standard error that standard error cannot be written,
        // and panic: a full disk, or a reader that is gone, ends no broker.
        .log_internal_errors(false);
    match settings.format {
        LogFormat::Text => log
            .with_ansi(colour)
            .with_target(false)
            .fmt_fields(format::debug_fn(field))
            .with_writer(writer)
            .into(),
        LogFormat::Json => log
            .with_ansi(false)
            .json()
            .flatten_event(true)
            .with_writer(Printable(writer))
            .into(),
    }
}

/// One field of a line of text, and the space before it.
fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() == "message" {
        return write!(Escaped(writer), "{value:?}");
    }
    write!(Escaped(writer), " {field}={value:?}")
}

/// Writes control characters as their escapes.
struct Escaped<'e, 'w>(&'e mut Writer<'w>);

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            if char.is_control() {
                write!(self.0, "{}", char.escape_default())?;
            } else {
                self.0.write_char(char)?;
            }
        }
        Ok(())
    }
}

/// Makes writers of JSON that escape the control characters that JSON allows:
/// to a terminal, U+009B is the begin of a command.
struct Printable<W>(W);

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for Printable<W> {
    type Writer = Printable<W::Writer>;

    fn make_writer(&'w self) -> Printable<W::Writer> {
        Printable(self.0.make_writer())
    }
}

impl<W: io::Write> io::Write for Printable<W> {
    /// Takes whole lines, as the log writes them.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let escapes = |char: char| ('\u{7f}'..='\u{9f}').contains(&char);
        match std::str::from_utf8(line) {
            Ok(text) if text.contains(escapes) => {
                let mut escaped = String::with_capacity(2 * text.len());
                for char in text.chars() {
                    if escapes(char) {
                        // Writing to a String cannot fail.
                        _ = write!(escaped, "\\u{:04x}", u32::from(char));
                    } else {
                        escaped.push(char);
                    }
                }
                self.0.write_all(escaped.as_bytes())?;
            }
            _ => self.0.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
