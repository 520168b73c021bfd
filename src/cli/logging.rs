//! The log on standard error: text for people, or JSON.
//!
//! Whatever a client sends cannot leave its place in a line: control
//! characters are escaped here, however a value was recorded.

use std::fmt::{self, Write};
use std::io::{self, IsTerminal};
use std::sync::Arc;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{self, Writer};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;

use crate::config::{LogFormat, LogLevel, LogSettings};
use crate::logbook::{Logbook, printable, takes_field};

/// Logs from now on, once in a process; in colour if standard error is a
/// terminal. The book in which the last lines are, and by which the level is
/// changed.
///
/// A second call changes nothing, and gives none: a program that the broker is
/// embedded in keeps its own log.
pub fn start(settings: &LogSettings) -> Option<Arc<Logbook>> {
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (dispatch, book) = dispatch_with_book(settings, io::stderr, colour);
    let is_ours = tracing::dispatcher::set_global_default(dispatch).is_ok();
    is_ours.then_some(book)
}

/// A log of these settings that is written to `writer`; a line that cannot be
/// written is lost.
pub fn dispatch<W>(settings: &LogSettings, writer: W, colour: bool) -> tracing::Dispatch
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    dispatch_with_book(settings, writer, colour).0
}

/// The same, and its book.
pub fn dispatch_with_book<W>(
    settings: &LogSettings,
    writer: W,
    colour: bool,
) -> (tracing::Dispatch, Arc<Logbook>)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let book = Arc::new(Logbook::new(settings.level, settings.kept_lines));
    let (level, handle) = reload::Layer::new(filter(settings.level));
    book.on_level(move |level| {
        // An error: the log is gone, and nobody sees its level.
        _ = handle.reload(filter(level));
    });
    let log = Registry::default().with(level).with(Keeping(book.clone()));
    // It would tell standard error that standard error cannot be written,
    // and panic: a full disk, or a reader that is gone, ends no broker.
    let dispatch = match settings.format {
        LogFormat::Text => log
            .with(
                tracing_subscriber::fmt::layer()
                    .log_internal_errors(false)
                    .with_ansi(colour)
                    .with_target(false)
                    .fmt_fields(format::debug_fn(field))
                    .with_writer(writer),
            )
            .into(),
        LogFormat::Json => log
            .with(
                tracing_subscriber::fmt::layer()
                    .log_internal_errors(false)
                    .with_ansi(false)
                    .json()
                    .flatten_event(true)
                    .with_writer(Printable(writer)),
            )
            .into(),
    };
    (dispatch, book)
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// Brings each line into the book.
struct Keeping(Arc<Logbook>);

impl<S: Subscriber> Layer<S> for Keeping {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        if !self.0.keeps() {
            return;
        }
        let mut read = Read::default();
        event.record(&mut read);
        let level = match *event.metadata().level() {
            Level::ERROR => LogLevel::Error,
            Level::WARN => LogLevel::Warn,
            Level::INFO => LogLevel::Info,
            Level::DEBUG => LogLevel::Debug,
            Level::TRACE => LogLevel::Trace,
        };
        self.0.push(level, read.message, read.fields);
    }
}

/// What an event says.
#[derive(Default)]
struct Read {
    message: String,
    fields: Map<String, Value>,
}

impl Read {
    fn add(&mut self, field: &Field, value: Value) {
        if takes_field(&self.fields) {
            self.fields.insert(field.name().to_owned(), value);
        }
    }
}

impl Visit for Read {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = printable(&format!("{value:?}"));
        match field.name() {
            "message" => self.message = text,
            _ => self.add(field, text.into()),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = printable(value),
            _ => self.add(field, printable(value).into()),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
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
