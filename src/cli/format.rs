//! What `rotamq sub` prints of a message: the format strings of
//! mosquitto_sub(1).
//!
//! Pure: a format is parsed once, and then makes bytes of messages.

use std::collections::HashMap;
use std::fmt::Write;
use std::iter::Peekable;
use std::str::Chars;
use std::time::SystemTime;

use serde::de::IgnoredAny;

use super::strftime::Moment;
use crate::message::PacketId;
use crate::protocol::{Property, Publish};

/// Of a field's width; a longer one is refused.
const WIDTH_MAX: usize = 10_000;

/// A format string, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// As it is.
    Char(char),
    /// `%`, a layout and a letter.
    Field(Layout, char),
    /// `@` and a conversion of strftime.
    Time(char),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Layout {
    zero: bool,
    left: bool,
    width: usize,
    max: Option<usize>,
}

/// What may follow a `%`; of that, where a width applies, where the flag 0, and
/// where a greatest width, as mosquitto_sub(1) has it.
const LETTERS: &str = "%ACDEFIjJlmpPqrRStUxX";
const WIDE: &str = "ACEFIlmpRStxX";
const ZERO: &str = "AEFlmSxX";
const CUT: &str = "CIRt";

impl Format {
    /// # Errors
    /// A sentence that says what of `text` means nothing.
    pub fn parse(text: &str) -> Result<Format, String> {
        let mut pieces = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(char) = chars.next() {
            pieces.push(match char {
                '\\' => Piece::Char(escape(chars.next())?),
                '@' => match chars.next() {
                    Some(conversion) if Moment::knows(conversion) => Piece::Time(conversion),
                    other => return Err(meaningless('@', other)),
                },
                '%' => field(&mut chars)?,
                char => Piece::Char(char),
            });
        }
        Ok(Format { pieces })
    }

    /// Appends what is printed of a message that came at `at`, without an end
    /// of line.
    ///
    /// # Errors
    /// `%J` of a payload that is no JSON.
    pub fn write(
        &self,
        message: &Publish<'_>,
        at: SystemTime,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let moment = Moment::new(at);
        let mut text = String::new();
        for piece in &self.pieces {
            text.clear();
            match *piece {
                Piece::Char(char) => text.push(char),
                Piece::Time(conversion) => moment.write(conversion, &mut text),
                // Bytes that need not be text.
                Piece::Field(layout, 'p') => {
                    layout.pad(message.payload, out);
                    continue;
                }
                Piece::Field(_, 'D') => {
                    for property in message.properties.iter() {
                        if let Property::CorrelationData(bytes) = property {
                            out.extend_from_slice(bytes);
                        }
                    }
                    continue;
                }
                Piece::Field(layout, letter) => {
                    letter_of(letter, message, &moment, &mut text)?;
                    layout.pad(text.as_bytes(), out);
                    continue;
                }
            }
            out.extend_from_slice(text.as_bytes());
        }
        Ok(())
    }
}

fn escape(char: Option<char>) -> Result<char, String> {
    Ok(match char {
        Some('\\') => '\\',
        Some('0') => '\0',
        Some('a') => '\x07',
        Some('e') => '\x1b',
        Some('n') => '\n',
        Some('r') => '\r',
        Some('t') => '\t',
        Some('v') => '\x0b',
        other => return Err(meaningless('\\', other)),
    })
}

fn meaningless(begin: char, char: Option<char>) -> String {
    match char {
        Some(char) => format!("{begin}{} means nothing", char.escape_debug()),
        None => format!("nothing follows the last {begin}"),
    }
}

/// What follows a `%`.
fn field(chars: &mut Peekable<Chars<'_>>) -> Result<Piece, String> {
    let mut layout = Layout::default();
    while let Some(flag) = chars.next_if(|char| matches!(char, '0' | '-')) {
        layout.zero |= flag == '0';
        layout.left |= flag == '-';
    }
    layout.width = number(chars)?;
    if chars.next_if_eq(&'.').is_some() {
        layout.max = Some(number(chars)?);
    }
    let next = chars.next();
    let letter = next.filter(|letter| LETTERS.contains(*letter));
    let letter = letter.ok_or_else(|| meaningless('%', next))?;
    if !WIDE.contains(letter) {
        layout = Layout::default();
    }
    layout.zero &= ZERO.contains(letter);
    layout.max = layout.max.filter(|_| CUT.contains(letter));
    Ok(Piece::Field(layout, letter))
}

fn number(chars: &mut Peekable<Chars<'_>>) -> Result<usize, String> {
    let mut number = 0;
    while let Some(digit) = chars.peek().and_then(|char| char.to_digit(10)) {
        chars.next();
        number = number * 10 + digit as usize;
        if number > WIDTH_MAX {
            return Err(format!("a field has a width of at most {WIDTH_MAX}"));
        }
    }
    Ok(number)
}

impl Layout {
    /// Appends `bytes`, cut and padded; characters are counted, where they
    /// are characters.
    fn pad(self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut bytes = bytes;
        let mut width = bytes.len();
        if let Ok(text) = std::str::from_utf8(bytes) {
            let mut ends = text.char_indices().map(|(at, _)| at);
            if let Some(end) = self.max.and_then(|max| ends.nth(max)) {
                bytes = &bytes[..end];
            }
            width = text.chars().count().min(self.max.unwrap_or(usize::MAX));
        }
        let padding = self.width.saturating_sub(width);
        let zero = self.zero && !self.left;
        let padding = std::iter::repeat_n(if zero { b'0' } else { b' ' }, padding);
        if self.left {
            out.extend_from_slice(bytes);
            out.extend(padding);
        } else {
            out.extend(padding);
            out.extend_from_slice(bytes);
        }
    }
}

/// Writes what a letter stands for, other than bytes.
fn letter_of(
    letter: char,
    message: &Publish<'_>,
    moment: &Moment,
    out: &mut String,
) -> Result<(), String> {
    let payload = message.payload;
    // Writing to a String cannot fail.
    _ = match letter {
        '%' => write!(out, "%"),
        'I' => {
            for conversion in "FTz".chars() {
                moment.write(conversion, out);
                out.push_str(if conversion == 'F' { "T" } else { "" });
            }
            Ok(())
        }
        'j' => {
            let payload = String::from_utf8_lossy(payload);
            json(message, moment, &quoted(&payload), out);
            Ok(())
        }
        'J' => {
            let text = std::str::from_utf8(payload).ok();
            let text = text.filter(|text| serde_json::from_str::<IgnoredAny>(text).is_ok());
            let text = text.ok_or_else(|| {
                format!("the payload of a message to {:?} is no JSON", message.topic)
            })?;
            json(message, moment, text.trim(), out);
            Ok(())
        }
        'l' => write!(out, "{}", payload.len()),
        'm' => write!(out, "{}", packet_id(message)),
        'q' => write!(out, "{}", message.qos as u8),
        'r' => write!(out, "{}", u8::from(message.retain)),
        't' => write!(out, "{}", message.topic),
        'U' => write!(out, "{}.{:09}", moment.unix, moment.nanos),
        'x' => payload
            .iter()
            .try_for_each(|byte| write!(out, "{byte:02x}")),
        'X' => payload
            .iter()
            .try_for_each(|byte| write!(out, "{byte:02X}")),
        letter => {
            let mut space = "";
            for property in message.properties.iter() {
                _ = match (letter, property) {
                    ('A', Property::TopicAlias(alias)) => write!(out, "{alias}"),
                    ('C', Property::ContentType(text)) => write!(out, "{text}"),
                    ('E', Property::MessageExpiryInterval(secs)) => write!(out, "{secs}"),
                    ('F', Property::PayloadFormatIndicator(text)) => {
                        write!(out, "{}", u8::from(text))
                    }
                    ('P', Property::UserProperty((key, value))) => {
                        let written = write!(out, "{space}{key}:{value}");
                        space = " ";
                        written
                    }
                    ('R', Property::ResponseTopic(topic)) => write!(out, "{}", topic.as_str()),
                    ('S', Property::SubscriptionIdentifier(id)) => {
                        let written = write!(out, "{space}{}", id.get());
                        space = " ";
                        written
                    }
                    _ => Ok(()),
                };
            }
            Ok(())
        }
    };
    Ok(())
}

/// 0 at QoS 0.
fn packet_id(message: &Publish<'_>) -> u16 {
    message.packet_id.map_or(0, PacketId::get)
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The object of `%j` and `%J`; `payload` is JSON already.
fn json(message: &Publish<'_>, moment: &Moment, payload: &str, out: &mut String) {
    out.push_str("{\"tst\":\"");
    for conversion in "FT".chars() {
        moment.write(conversion, out);
        out.push(if conversion == 'F' { 'T' } else { '.' });
    }
    // Writing to a String cannot fail.
    _ = write!(
        out,
        "{:06}+0000\",\"topic\":{},\"qos\":{},\"retain\":{},\"payloadlen\":{}",
        moment.nanos / 1000,
        quoted(message.topic),
        message.qos as u8,
        u8::from(message.retain),
        message.payload.len()
    );
    if message.packet_id.is_some() {
        _ = write!(out, ",\"mid\":{}", packet_id(message));
    }
    if !message.properties.is_empty() {
        out.push_str(",\"properties\":");
        json_properties(message, out);
    }
    _ = write!(out, ",\"payload\":{payload}}}");
}

fn json_properties(message: &Publish<'_>, out: &mut String) {
    let mut object = Members::default();
    let mut user = Members::default();
    for property in message.properties.iter() {
        let (name, value) = match property {
            Property::TopicAlias(alias) => ("topic-alias", alias.to_string()),
            Property::ContentType(text) => ("content-type", quoted(text)),
            Property::CorrelationData(bytes) => {
                ("correlation-data", quoted(&String::from_utf8_lossy(bytes)))
            }
            Property::MessageExpiryInterval(secs) => ("message-expiry-interval", secs.to_string()),
            Property::PayloadFormatIndicator(text) => {
                ("payload-format-indicator", u8::from(text).to_string())
            }
            Property::ResponseTopic(topic) => ("response-topic", quoted(topic.as_str())),
            Property::SubscriptionIdentifier(id) => {
                ("subscription-identifier", id.get().to_string())
            }
            Property::UserProperty((key, value)) => {
                user.add(key, quoted(value));
                continue;
            }
            _ => continue,
        };
        object.add(name, value);
    }
    if !user.list.is_empty() {
        object.add("user-properties", user.object());
    }
    out.push_str(&object.object());
}

/// What becomes an object of JSON. A name that comes more than once has an
/// array: an object's names are to be unique.
#[derive(Default)]
struct Members<'a> {
    list: Vec<(&'a str, Vec<String>)>,
    /// Where in `list` a name is.
    at: HashMap<&'a str, usize>,
}

impl<'a> Members<'a> {
    fn add(&mut self, name: &'a str, value: String) {
        let at = *self.at.entry(name).or_insert(self.list.len());
        match self.list.get_mut(at) {
            Some((_, values)) => values.push(value),
            None => self.list.push((name, vec![value])),
        }
    }

    fn object(&self) -> String {
        let members: Vec<_> = self
            .list
            .iter()
            .map(|(name, values)| match &values[..] {
                [value] => format!("{}:{value}", quoted(name)),
                values => format!("{}:[{}]", quoted(name), values.join(",")),
            })
            .collect();
        format!("{{{}}}", members.join(","))
    }
}
