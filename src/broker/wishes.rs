//! What a PUBLISH asks of a queue, by its user properties.
//!
//! Owns their names, what they may say, and what is answered where they say
//! something else. Does nothing about them.

use std::time::Duration;

use crate::config::{LastValue, QueueSettings};
use crate::message::{MessageId, PacketId, Time};
use crate::protocol::{Properties, Property, ReasonCode};
use crate::queue::Ask;
use crate::session::Close;

/// The longest that something can be put off: a year.
const AHEAD_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Of a `group` or `dedup-id`.
const NAME_BYTES_MAX: usize = 256;

/// What is asked for. What is not said is as the queue has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes<'a> {
    /// Nobody is to get it before so long has passed, or before that moment:
    /// the later of the two counts.
    pub delay: Option<Duration>,
    pub at: Option<Time>,
    pub priority: Option<u8>,
    pub group: Option<&'a str>,
    pub dedup_id: Option<&'a str>,
    pub settles: Option<Settles>,
    /// Whether its publisher wants to know how it ends.
    pub receipt: bool,
    // All of the PUBLISH, as they were encoded.
    properties: &'a [u8],
}

/// Of which delivery that its client has in hand the PUBLISH is the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settles {
    /// `settles` = the `message-id` of the delivery.
    Message(MessageId),
    /// `settles` = `packet:` and the packet id of the delivery.
    Packet(PacketId),
}

impl<'a> Wishes<'a> {
    /// Of the encoded properties of a PUBLISH that comes in now. Of several
    /// user properties of one name the first counts.
    ///
    /// # Errors
    /// One of them says what it cannot mean.
    pub fn of(properties: &'a [u8], now: Time) -> Result<Wishes<'a>, Close> {
        let mut wishes = Wishes::default();
        match wishes.read(properties, now) {
            Some(why) => Err(refused(why)),
            None => Ok(wishes),
        }
    }

    /// As [`Wishes::of`], of what was not published to a queue: what cannot
    /// be meant is somebody else's, and left alone.
    pub fn lenient(properties: &'a [u8], now: Time) -> Wishes<'a> {
        let mut wishes = Wishes::default();
        wishes.read(properties, now);
        wishes
    }

    /// What is wrong with the first that is wrong; the others count.
    fn read(&mut self, properties: &'a [u8], now: Time) -> Option<&'static str> {
        // Most have none at all, which a look at the bytes tells for sure.
        if !properties.contains(&USER_PROPERTY) {
            return None;
        }
        self.properties = properties;
        let mut wrong = None;
        let (mut receipt, mut has_response_topic) = (None, false);
        for property in Properties::of_valid(properties).iter() {
            let (name, text) = match property {
                Property::UserProperty(user_property) => user_property,
                Property::ResponseTopic(_) => {
                    has_response_topic = true;
                    continue;
                }
                _ => continue,
            };
            let why = match name {
                "delay" => take(&mut self.delay, parse_delay(text), DELAY),
                "at" => take(&mut self.at, parse_at(text, now), AT),
                "priority" => take(&mut self.priority, parse_priority(text), PRIORITY),
                "group" => take(&mut self.group, parse_name(text), GROUP),
                "dedup-id" => take(&mut self.dedup_id, parse_name(text), DEDUP_ID),
                "settles" => take(&mut self.settles, Settles::parse(text), SETTLES),
                "receipt" => take(&mut receipt, Some(says_yes(text)), ""),
                _ => continue,
            };
            wrong = wrong.or(why);
        }
        if receipt == Some(true) {
            self.receipt = has_response_topic;
            wrong = wrong.or((!has_response_topic).then_some(RECEIPT));
        }
        wrong
    }

    /// What that means in a queue of these settings, for what was published to
    /// this topic (without `$queue/`) just now.
    pub fn ask(&self, settings: &QueueSettings, topic: &'a str, now: Time) -> Ask<'a> {
        let level = || {
            let level = settings.group_level.checked_sub(1)?;
            topic
                .split('/')
                .nth(level)
                .filter(|group| !group.is_empty())
        };
        let delayed = self.delay.map_or(Time::ZERO, |delay| now + delay);
        Ask {
            priority: self.priority.unwrap_or(settings.priority),
            group: self.group.or_else(level),
            key: match &settings.last_value {
                LastValue::Off => None,
                LastValue::Topic => Some(topic),
                LastValue::Property(name) => self.property(name),
            },
            due: delayed.max(self.at.unwrap_or(Time::ZERO)),
            receipt: self.receipt,
        }
    }

    fn property(&self, wanted: &str) -> Option<&'a str> {
        let mut all = Properties::of_valid(self.properties).iter();
        all.find_map(|property| match property {
            Property::UserProperty((name, text)) if name == wanted => Some(text),
            _ => None,
        })
    }
}

impl Settles {
    /// # Errors
    /// It names no delivery.
    pub fn of(text: &str) -> Result<Settles, Close> {
        Settles::parse(text).ok_or_else(|| refused(SETTLES))
    }

    fn parse(text: &str) -> Option<Settles> {
        match text.strip_prefix("packet:") {
            Some(id) => parse_packet_id(id).map(Settles::Packet),
            None => parse_message_id(text).map(Settles::Message),
        }
    }
}

// What is answered to what they cannot mean.
const DELAY: &str = "the user property delay is whole seconds, 31536000 (a year) at most";
const AT: &str = "the user property at is a moment, a year ahead at most: Unix seconds, or UTC like \
     2026-11-23T10:00:00Z";
const PRIORITY: &str = "the user property priority is a number from 0 to 9, the highest first";
const GROUP: &str = "the user property group is a text of 1 to 256 bytes";
const DEDUP_ID: &str = "the user property dedup-id is a text of 1 to 256 bytes";
const SETTLES: &str = "the user property settles is the message-id that a delivery came with, or packet: and its \
     packet id";
const RECEIPT: &str = "the user property receipt needs a response topic, to which the receipt goes";

const USER_PROPERTY: u8 = Property::UserProperty(("", "")).id();

fn refused(why: &'static str) -> Close {
    Close::new(ReasonCode::ImplementationSpecificError, why)
}

/// The first that is said counts; what to answer if it cannot be meant.
fn take<T>(wish: &mut Option<T>, said: Option<T>, why: &'static str) -> Option<&'static str> {
    if wish.is_none() {
        *wish = said;
        return wish.is_none().then_some(why);
    }
    None
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whole seconds, a year at most.
pub(super) fn parse_delay(text: &str) -> Option<Duration> {
    is_number(text).then_some(())?;
    let delay = Duration::from_secs(text.parse().ok()?);
    (delay <= AHEAD_MAX).then_some(delay)
}

fn parse_priority(text: &str) -> Option<u8> {
    is_number(text).then_some(())?;
    let priority = text.parse().ok()?;
    (priority <= Ask::PRIORITY_MAX).then_some(priority)
}

fn parse_name(text: &str) -> Option<&str> {
    (1..=NAME_BYTES_MAX).contains(&text.len()).then_some(text)
}

fn says_yes(text: &str) -> bool {
    text != "0" && !text.eq_ignore_ascii_case("false")
}

/// A decimal packet id.
pub(super) fn parse_packet_id(text: &str) -> Option<PacketId> {
    is_number(text).then_some(())?;
    text.parse().ok()
}

/// As [`MessageId`] is displayed.
fn parse_message_id(text: &str) -> Option<MessageId> {
    let is_hex = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then_some(())?;
    u64::from_str_radix(text, 16).ok().map(MessageId)
}

/// Unix seconds, or RFC 3339 in UTC; both with a fraction if need be.
fn parse_at(text: &str, now: Time) -> Option<Time> {
    let (whole, fraction) = match text.contains('-') {
        true => {
            let utc = text.strip_suffix(['Z', 'z']);
            let utc = utc.or_else(|| text.strip_suffix("+00:00"))?;
            let (moment, fraction) = split_fraction(utc)?;
            (parse_moment(moment)?, fraction)
        }
        false => {
            let (seconds, fraction) = split_fraction(text)?;
            is_number(seconds).then_some(())?;
            (seconds.parse().ok()?, fraction)
        }
    };
    let at = Time::ZERO + Duration::from_secs(whole) + Duration::from_micros(fraction);
    (at <= now + AHEAD_MAX).then_some(at)
}

/// What is before a decimal point, and the microseconds that are behind it.
fn split_fraction(text: &str) -> Option<(&str, u64)> {
    let Some((whole, fraction)) = text.split_once('.') else {
        return Some((text, 0));
    };
    is_number(fraction).then_some(())?;
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(6);
    let micros = digits.fold(0, |micros, digit| micros * 10 + u64::from(digit - b'0'));
    Some((whole, micros))
}

/// The Unix seconds of `2026-11-23T10:00:00`; of what is before 1970, 0.
fn parse_moment(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = parse_parts(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = parse_parts(time, ':', [2, 2, 2])?;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_of_month = match month {
        2 if is_leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    // The last second of a day may be a leap second.
    let is_valid = (1..=days_of_month).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    is_valid.then_some(())?;
    if year < 1970 {
        return Some(0);
    }
    // Years that begin with March have the leap day at their end.
    let (year, month) = match month {
        3.. => (year, month - 3),
        _ => (year - 1, month + 9),
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let days = 365 * year + leap_days + day_of_year - DAYS_TO_1970;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// From the March of the year 0 on.
const DAYS_TO_1970: u64 = 719_468;

/// Three numbers of so many digits.
fn parse_parts(text: &str, between: char, digits: [usize; 3]) -> Option<[u64; 3]> {
    let mut parts = text.split(between);
    let mut numbers = [0; 3];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        (part.len() == digits && is_number(part)).then_some(())?;
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::PropertiesBuf;
    use crate::topic::{TopicLimits, TopicName};

    /// 2026-11-23T10:00:00Z
    const NOW_SECS: u64 = 1_795_428_000;
    const NOW: Time = Time::from_micros(NOW_SECS * 1_000_000);

    fn encoded(all: &[(&str, &str)]) -> Vec<u8> {
        let mut properties = PropertiesBuf::new();
        for property in all {
            properties.push(Property::UserProperty(*property));
        }
        properties.as_properties().as_bytes().to_vec()
    }

    fn secs(secs: u64) -> Time {
        Time::ZERO + Duration::from_secs(secs)
    }

    #[test]
    fn what_can_be_asked_for() {
        let long = "x".repeat(256);
        let none = Wishes::default();
        let delay = |secs| Wishes {
            delay: Some(Duration::from_secs(secs)),
            ..none
        };
        let at = |micros| Wishes {
            at: Some(Time::from_micros(micros)),
            ..none
        };
        let settles = |settles| Wishes {
            settles: Some(settles),
            ..none
        };
        for (name, text, expected) in [
            ("delay", "0", delay(0)),
            ("delay", "31536000", delay(31_536_000)),
            ("at", "0", at(0)),
            ("at", "1795428000", at(1_795_428_000_000_000)),
            ("at", "1795428000.25", at(1_795_428_000_250_000)),
            ("at", "1795428000.1234567", at(1_795_428_000_123_456)),
            ("at", "2026-11-23T10:00:00Z", at(1_795_428_000_000_000)),
            ("at", "2026-11-23t10:00:00z", at(1_795_428_000_000_000)),
            ("at", "2026-11-23T10:00:00.5Z", at(1_795_428_000_500_000)),
            ("at", "2026-11-23T10:00:00+00:00", at(1_795_428_000_000_000)),
            ("at", "2024-02-29T23:59:60Z", at(1_709_251_200_000_000)),
            ("at", "1970-01-01T00:00:01Z", at(1_000_000)),
            ("at", "2000-03-01T00:00:00Z", at(951_868_800_000_000)),
            ("at", "1000-12-31T00:00:00Z", at(0)),
            (
                "priority",
                "9",
                Wishes {
                    priority: Some(9),
                    ..none
                },
            ),
            (
                "group",
                &long,
                Wishes {
                    group: Some(&long),
                    ..none
                },
            ),
            (
                "dedup-id",
                "é",
                Wishes {
                    dedup_id: Some("é"),
                    ..none
                },
            ),
            ("settles", "aF", settles(Settles::Message(MessageId(0xaf)))),
            (
                "settles",
                "ffffffffffffffff",
                settles(Settles::Message(MessageId(u64::MAX))),
            ),
            (
                "settles",
                "packet:65535",
                settles(Settles::Packet(PacketId::MAX)),
            ),
            ("receipt", "0", none),
            ("receipt", "False", none),
            ("Delay", "x", none),
            ("other", "x", none),
        ] {
            let properties = encoded(&[(name, text)]);
            let read = Wishes::of(&properties, NOW).map(|wishes| Wishes {
                properties: &[],
                ..wishes
            });
            assert_eq!(read, Ok(expected), "{name} {text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_sentence() {
        let long = "x".repeat(257);
        for (name, text) in [
            ("delay", ""),
            ("delay", "-1"),
            ("delay", "+1"),
            ("delay", "1.5"),
            ("delay", "31536001"),
            ("delay", "99999999999999999999"),
            ("at", ""),
            ("at", "soon"),
            ("at", "1795428000."),
            ("at", "1826964001"),    // A year and a second ahead.
            ("at", "1795428000000"), // Milliseconds.
            ("at", "2026-11-23"),
            ("at", "2026-11-23T10:00:00"),
            ("at", "2026-11-23T10:00:00+01:00"),
            ("at", "2026-11-23T10:00Z"),
            ("at", "2026-11-31T10:00:00Z"),
            ("at", "2026-02-29T10:00:00Z"),
            ("at", "2026-13-01T10:00:00Z"),
            ("at", "2026-00-01T10:00:00Z"),
            ("at", "2026-11-00T10:00:00Z"),
            ("at", "2026-11-23T24:00:00Z"),
            ("at", "2026-11-23T10:60:00Z"),
            ("at", "2026-1-23T10:00:00Z"),
            ("at", "9999-11-23T10:00:00Z"),
            ("priority", "10"),
            ("priority", "-1"),
            ("priority", "high"),
            ("group", ""),
            ("group", &long),
            ("dedup-id", ""),
            ("dedup-id", &long),
            ("settles", ""),
            ("settles", "0x1"),
            ("settles", "+1"),
            ("settles", "12345678901234567"),
            ("settles", "packet:0"),
            ("settles", "packet:"),
            ("settles", "packet:65536"),
            ("receipt", "1"),
            ("receipt", ""),
        ] {
            let properties = encoded(&[("group", "g"), (name, text), ("priority", "7")]);
            let properties = match name {
                "group" => encoded(&[(name, text), ("priority", "7")]),
                "priority" => encoded(&[("group", "g"), (name, text), (name, "7")]),
                _ => properties,
            };
            let close = Wishes::of(&properties, NOW).expect_err(text);
            assert_eq!(close.reason, ReasonCode::ImplementationSpecificError);
            let sentence = format!("the user property {name} ");
            assert!(close.why.starts_with(&sentence), "{}", close.why);
            // Where it was not meant for a queue, the others count.
            let lenient = Wishes::lenient(&properties, NOW);
            let expected = Wishes {
                group: Some("g").filter(|_| name != "group"),
                priority: Some(7),
                properties: &properties,
                ..Wishes::default()
            };
            assert_eq!(lenient, expected, "{name} {text}");
        }
    }

    #[test]
    fn a_receipt_goes_to_a_response_topic() {
        let mut properties = PropertiesBuf::new();
        let topic = TopicName::parse("replies", TopicLimits::NONE).unwrap();
        properties.push(Property::UserProperty(("receipt", "yes")));
        properties.push(Property::ResponseTopic(topic));
        let wishes = Wishes::of(properties.as_properties().as_bytes(), NOW).unwrap();
        assert!(wishes.receipt);
    }

    #[test]
    fn without_user_properties_nothing_is_asked_for() {
        let mut properties = PropertiesBuf::new();
        properties.push(Property::ContentType("delay"));
        for properties in [&[][..], properties.as_properties().as_bytes()] {
            assert_eq!(Wishes::of(properties, NOW), Ok(Wishes::default()));
        }
    }

    #[test]
    fn the_first_of_a_name_counts() {
        let properties = encoded(&[("priority", "1"), ("priority", "2"), ("priority", "x")]);
        assert_eq!(Wishes::of(&properties, NOW).unwrap().priority, Some(1));
    }

    #[test]
    fn a_queue_says_what_is_not_asked_for() {
        let grouped = QueueSettings {
            priority: 2,
            group_level: 2,
            last_value: LastValue::Property("meter".into()),
            ..QueueSettings::default()
        };
        let ask = Wishes::default().ask(&grouped, "orders/7/paid", NOW);
        let expected = Ask {
            priority: 2,
            group: Some("7"),
            ..Ask::default()
        };
        assert_eq!(ask, expected);
        for topic in ["orders", "orders//paid"] {
            let ask = Wishes::default().ask(&grouped, topic, NOW);
            assert_eq!(ask.group, None, "{topic}");
        }

        let properties = encoded(&[
            ("priority", "0"),
            ("group", "g"),
            ("meter", "m-1"),
            ("delay", "10"),
            ("at", "1795428009"),
        ]);
        let wishes = Wishes::of(&properties, NOW).unwrap();
        let expected = Ask {
            priority: 0,
            group: Some("g"),
            key: Some("m-1"),
            due: secs(NOW_SECS + 10),
            receipt: false,
        };
        assert_eq!(wishes.ask(&grouped, "orders/7/paid", NOW), expected);
        let by_topic = QueueSettings {
            last_value: LastValue::Topic,
            ..QueueSettings::default()
        };
        let ask = wishes.ask(&by_topic, "orders/7/paid", NOW);
        assert_eq!((ask.key, ask.group), (Some("orders/7/paid"), Some("g")));

        let later = encoded(&[("delay", "10"), ("at", "1795428011")]);
        let wishes = Wishes::of(&later, NOW).unwrap();
        let ask = wishes.ask(&QueueSettings::default(), "t", NOW);
        assert_eq!(ask.due, secs(NOW_SECS + 11));
        assert_eq!((ask.priority, ask.group, ask.key), (4, None, None));
    }
}
