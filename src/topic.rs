//! Topic names and topic filters, valid by construction (4.7).
//!
//! Owns what a name and a filter may look like, and nothing of who subscribed
//! to what: that is `router`. Works on borrowed text; nothing here allocates
//! but the error's text, and nothing recurses.

use std::fmt;

/// Whether a topic, or a filter, is what only the broker publishes to, or below it.
pub fn is_sys(topic: &str) -> bool {
    let rest = topic.strip_prefix("$SYS");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// How long and how deep a topic may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicLimits {
    pub bytes_max: usize,
    pub levels_max: usize,
}

impl TopicLimits {
    /// All that the specification allows [MQTT-4.7.3-3].
    pub const NONE: TopicLimits = TopicLimits {
        bytes_max: 65_535,
        levels_max: 65_536,
    };
}

/// Why a text is no topic name or filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicError {
    /// [MQTT-4.7.3-1]
    Empty,
    /// [MQTT-4.7.3-2], or another control character.
    Control,
    /// A wildcard in a topic name [MQTT-4.7.1-1].
    Wildcard,
    /// `#` not alone in its level or not last [MQTT-4.7.1-2].
    MultiLevel,
    /// `+` not alone in its level [MQTT-4.7.1-3].
    SingleLevel,
    TooLong,
    TooDeep,
}

impl fmt::Display for TopicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TopicError::Empty => "it is empty; it needs at least one character",
            TopicError::Control => "it has a control character",
            TopicError::Wildcard => "it has a wildcard; a topic name has none",
            TopicError::MultiLevel => "# stands alone in its level, and last",
            TopicError::SingleLevel => "+ stands alone in its level",
            TopicError::TooLong => "it is longer than topic_bytes_max",
            TopicError::TooDeep => "it has more levels than topic_levels_max",
        })
    }
}

impl std::error::Error for TopicError {}

/// What a message is published to: no wildcards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName<'a>(&'a str);

impl<'a> TopicName<'a> {
    pub fn parse(text: &'a str, limits: TopicLimits) -> Result<TopicName<'a>, TopicError> {
        let kinds = check_text(text, limits)?;
        if kinds.wildcards() > 0 {
            return Err(TopicError::Wildcard); // [MQTT-4.7.1-1]
        }
        check_depth(kinds, limits)?;
        Ok(TopicName(text))
    }

    /// A text that was a topic name before.
    pub(crate) fn of_valid(text: &'a str) -> TopicName<'a> {
        debug_assert!(TopicName::parse(text, TopicLimits::NONE).is_ok());
        TopicName(text)
    }

    pub fn as_str(self) -> &'a str {
        self.0
    }

    pub fn levels(self) -> impl Iterator<Item = &'a str> {
        self.0.split('/')
    }
}

/// What a client subscribes to: topic levels, `+` and `#`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter<'a>(&'a str);

impl<'a> TopicFilter<'a> {
    pub fn parse(text: &'a str, limits: TopicLimits) -> Result<TopicFilter<'a>, TopicError> {
        let kinds = check_text(text, limits)?;
        check_depth(kinds, limits)?;
        if kinds.wildcards() == 0 {
            return Ok(TopicFilter(text));
        }
        let mut rest = text;
        loop {
            let (level, after) = match rest.split_once('/') {
                Some((level, after)) => (level, Some(after)),
                None => (rest, None),
            };
            if level.contains('#') && (level.len() > 1 || after.is_some()) {
                return Err(TopicError::MultiLevel); // [MQTT-4.7.1-2]
            }
            if level.contains('+') && level.len() > 1 {
                return Err(TopicError::SingleLevel); // [MQTT-4.7.1-3]
            }
            match after {
                Some(after) => rest = after,
                None => return Ok(TopicFilter(text)),
            }
        }
    }

    pub fn as_str(self) -> &'a str {
        self.0
    }

    pub fn levels(self) -> impl Iterator<Item = &'a str> {
        self.0.split('/')
    }

    /// Whether its first level is `+` or `#`.
    pub fn begins_with_wildcard(self) -> bool {
        matches!(self.0.as_bytes()[0], b'+' | b'#')
    }

    /// Whether it names one topic only.
    pub fn is_plain(self) -> bool {
        !self.0.bytes().any(|byte| byte == b'+' || byte == b'#')
    }

    /// Whether a message to `topic` is meant, one level after the other
    /// (4.7). The router's tree answers the same for many filters at once.
    pub fn matches(self, topic: TopicName<'_>) -> bool {
        if topic.0.starts_with('$') && self.begins_with_wildcard() {
            return false; // [MQTT-4.7.2-1]
        }
        let mut names = topic.levels();
        for level in self.levels() {
            match (level, names.next()) {
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (level, Some(name)) if level == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }
}

/// How many bytes of a text are of which kind, in one number, so that a byte
/// costs no more than a look at a table.
#[derive(Clone, Copy)]
struct Kinds(u64);

impl Kinds {
    /// A text above this could carry over from one count into the next.
    const BYTES_MAX: usize = 0xF_FFFF;
    const SLASH: u64 = 1;
    const WILDCARD: u64 = 1 << 20;
    const CONTROL: u64 = 1 << 40;

    const TABLE: [u64; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            table[byte] = match byte as u8 {
                b'/' => Kinds::SLASH,
                b'+' | b'#' => Kinds::WILDCARD,
                0x00..=0x1F | 0x7F => Kinds::CONTROL,
                _ => 0,
            };
            byte += 1;
        }
        table
    };

    fn of(text: &str) -> Kinds {
        debug_assert!(text.len() <= Kinds::BYTES_MAX);
        Kinds(
            text.bytes()
                .map(|byte| Kinds::TABLE[usize::from(byte)])
                .sum(),
        )
    }

    fn levels(self) -> usize {
        (self.0 & (Kinds::WILDCARD - 1)) as usize + 1
    }

    fn wildcards(self) -> u64 {
        self.0 % Kinds::CONTROL / Kinds::WILDCARD
    }

    fn controls(self) -> u64 {
        self.0 / Kinds::CONTROL
    }
}

/// What names and filters have in common.
fn check_text(text: &str, limits: TopicLimits) -> Result<Kinds, TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty); // [MQTT-4.7.3-1]
    }
    if text.len() > limits.bytes_max.min(Kinds::BYTES_MAX) {
        return Err(TopicError::TooLong); // [MQTT-4.7.3-3]
    }
    let kinds = Kinds::of(text);
    if kinds.controls() > 0 {
        return Err(TopicError::Control); // [MQTT-4.7.3-2]
    }
    Ok(kinds)
}

fn check_depth(kinds: Kinds, limits: TopicLimits) -> Result<(), TopicError> {
    if kinds.levels() > limits.levels_max {
        return Err(TopicError::TooDeep);
    }
    Ok(())
}
