//! What a PUBLISH says in its topic, for clients that have no properties:
//!
//! - `$queue/$with/KEY=VALUE&KEY=VALUE/T` means `$queue/T` with these user
//!   properties. Keys and values are percent-encoded. `response` is the response
//!   topic; what the topic says counts more than what the properties do.
//! - `$delayed/SECONDS/TOPIC` means TOPIC, which may be any, when so many
//!   seconds have passed.
//! - `$settles/PACKET-ID/TOPIC` means TOPIC, which may be any, as the result of
//!   the delivery that the client has under that packet id.
//!
//! Owns these forms. What the properties mean is in `wishes`.

use std::borrow::Cow;
use std::time::Duration;

use super::wishes::{Settles, parse_delay, parse_packet_id};
use crate::protocol::{Properties, Property, ReasonCode};
use crate::session::Close;
use crate::topic::{TopicLimits, TopicName};

/// What the topic says.
pub(super) struct Spelled<'a> {
    pub topic: Cow<'a, str>,
    pub settles: Option<Settles>,
    /// Of an ordinary topic; that of a queue is among the properties.
    pub delay: Option<Duration>,
    /// All that are passed on, encoded; `None`: those that came.
    pub properties: Option<Vec<u8>>,
}

/// Where a PUBLISH to that topic goes; itself, where it says nothing else, or
/// what means nothing.
pub(super) fn meant(topic: &str) -> Cow<'_, str> {
    match Spelled::read(topic, &[]) {
        Ok(Some(spelled)) => spelled.topic,
        Ok(None) | Err(_) => Cow::Borrowed(topic),
    }
}

/// Those that are passed on as user properties of the same name.
const USER_PROPERTIES: [&str; 6] = ["delay", "at", "priority", "group", "dedup-id", "receipt"];

impl<'a> Spelled<'a> {
    /// `came`: the encoded properties of the PUBLISH. `None`: the topic says
    /// nothing but where it goes.
    ///
    /// # Errors
    /// It means nothing.
    pub fn read(topic: &'a str, came: &[u8]) -> Result<Option<Spelled<'a>>, Close> {
        let mut settles = None;
        let mut rest = topic;
        if let Some(said) = topic.strip_prefix("$settles/") {
            let said = said.split_once('/').filter(|(_, topic)| {
                // Settling is said once, and in one way.
                !topic.starts_with("$settles/") && !topic.is_empty()
            });
            let found = said.and_then(|(id, topic)| Some((parse_packet_id(id)?, topic)));
            let (packet_id, topic) = found.ok_or_else(|| {
                invalid("the result of a delivery goes to $settles/PACKET-ID/TOPIC")
            })?;
            settles = Some(Settles::Packet(packet_id));
            rest = topic;
        }
        let mut delay = None;
        if let Some(said) = rest.strip_prefix("$delayed/") {
            let found = said.split_once('/').filter(|(_, topic)| {
                let again = ["$delayed/", "$settles/"];
                !topic.is_empty() && !again.iter().any(|again| topic.starts_with(again))
            });
            let found = found.and_then(|(secs, topic)| Some((parse_delay(secs)?, secs, topic)));
            let (span, secs, topic) = found.ok_or_else(|| {
                invalid("what is put off goes to $delayed/SECONDS/TOPIC, a year (31536000) at most")
            })?;
            if settles.is_some() {
                return Err(invalid("the result of a delivery is not put off"));
            }
            if topic.starts_with("$queue/") {
                return Spelled::delayed_job(topic, secs, came).map(Some);
            }
            (delay, rest) = (Some(span), topic);
        }
        let Some(said) = rest.strip_prefix("$queue/$with/") else {
            let topic = Cow::Borrowed(rest);
            let says_more = settles.is_some() || delay.is_some();
            return Ok(says_more.then_some(Spelled {
                topic,
                settles,
                delay,
                properties: None,
            }));
        };
        let (said, name) = said
            .split_once('/')
            .ok_or_else(|| invalid("what follows $queue/$with/ is KEY=VALUE&KEY=VALUE/NAME"))?;
        let mut properties = Vec::new();
        let mut response = false;
        for pair in said.split('&') {
            let (key, value) = pair
                .split_once('=')
                .and_then(|(key, value)| Some((decode(key)?, decode(value)?)))
                .ok_or_else(|| {
                    invalid("between $queue/$with/ and the next / stands KEY=VALUE&KEY=VALUE, percent-encoded")
                })?;
            match &*key {
                "settles" => settles = settles.or(Some(Settles::of(&value)?)),
                "response" if response => {}
                "response" => {
                    response = true;
                    let topic = TopicName::parse(&value, TopicLimits::NONE);
                    let topic = topic.map_err(|error| {
                        let why = format!("response is a topic, to which answers go: {error}");
                        Close::new(ReasonCode::TopicNameInvalid, why)
                    })?;
                    Property::ResponseTopic(topic).encode(&mut properties);
                }
                key if USER_PROPERTIES.contains(&key) => {
                    Property::UserProperty((key, &value)).encode(&mut properties);
                }
                key => {
                    let why = format!(
                        "$queue/$with/ knows no {key:?}, but delay, at, priority, group, dedup-id, settles, response and receipt"
                    );
                    return Err(Close::new(ReasonCode::TopicNameInvalid, why));
                }
            }
        }
        for property in Properties::of_valid(came).iter() {
            // There may be one only.
            if !(response && matches!(property, Property::ResponseTopic(_))) {
                property.encode(&mut properties);
            }
        }
        Ok(Some(Spelled {
            topic: Cow::Owned(format!("$queue/{name}")),
            settles,
            delay: None,
            properties: Some(properties),
        }))
    }

    /// A job has its delay among its properties; what the topic says counts
    /// more than what they do.
    fn delayed_job(topic: &'a str, secs: &str, came: &[u8]) -> Result<Spelled<'a>, Close> {
        let mut spelled = match Spelled::read(topic, came)? {
            Some(spelled) => spelled,
            None => Spelled {
                topic: Cow::Borrowed(topic),
                settles: None,
                delay: None,
                properties: Some(came.to_vec()),
            },
        };
        let mut properties = Vec::new();
        Property::UserProperty(("delay", secs)).encode(&mut properties);
        properties.extend(spelled.properties.unwrap_or_default());
        spelled.properties = Some(properties);
        Ok(spelled)
    }
}

fn invalid(why: &'static str) -> Close {
    Close::new(ReasonCode::TopicNameInvalid, why)
}

/// The text that is percent-encoded; `None`: it is not, or no text that a
/// property may hold (1.5.4).
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains(['%', '\0']) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut pieces = text.split('%');
    bytes.extend_from_slice(pieces.next()?.as_bytes());
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2)?;
        let are_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        are_hex.then_some(())?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    let text = String::from_utf8(bytes).ok()?;
    (!text.contains('\0')).then_some(Cow::Owned(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{MessageId, PacketId};

    fn user<'a>(name: &'a str, value: &'a str) -> Property<'a> {
        Property::UserProperty((name, value))
    }

    #[test]
    fn what_a_topic_can_say() {
        let response = |topic| Property::ResponseTopic(TopicName::of_valid(topic));
        let packet = |id| Some(Settles::Packet(PacketId::new(id).unwrap()));
        for (topic, expected, settles, properties) in [
            ("$settles/17/a/b", "a/b", packet(17), None),
            ("$settles/17/$queue/a", "$queue/a", packet(17), None),
            (
                "$queue/$with/priority=9/a",
                "$queue/a",
                None,
                Some(vec![user("priority", "9")]),
            ),
            (
                "$queue/$with/group=a%2Fb%26%3d&d%65lay=1/a/b",
                "$queue/a/b",
                None,
                Some(vec![user("group", "a/b&="), user("delay", "1")]),
            ),
            (
                "$queue/$with/at=2026-11-23T10:00:00Z&dedup-id=%C3%A9/a",
                "$queue/a",
                None,
                Some(vec![
                    user("at", "2026-11-23T10:00:00Z"),
                    user("dedup-id", "é"),
                ]),
            ),
            (
                "$queue/$with/response=replies%2Fp&receipt=1/a",
                "$queue/a",
                None,
                Some(vec![response("replies/p"), user("receipt", "1")]),
            ),
            (
                "$queue/$with/settles=packet:17/a",
                "$queue/a",
                packet(17),
                Some(vec![]),
            ),
            (
                "$queue/$with/settles=af/a",
                "$queue/a",
                Some(Settles::Message(MessageId(0xaf))),
                Some(vec![]),
            ),
            (
                "$settles/17/$queue/$with/delay=3/a",
                "$queue/a",
                packet(17),
                Some(vec![user("delay", "3")]),
            ),
            // It is for others to say that this is no queue's name.
            ("$queue/$with/delay=3/$x", "$queue/$x", None, None),
        ] {
            let spelled = Spelled::read(topic, &[]).unwrap().expect(topic);
            assert_eq!((&*spelled.topic, spelled.settles), (expected, settles));
            if let Some(properties) = properties {
                let spelled = spelled.properties.expect(topic);
                let all: Vec<_> = Properties::of_valid(&spelled).iter().collect();
                assert_eq!(all, properties, "{topic}");
            }
        }
    }

    #[test]
    fn other_topics_say_nothing() {
        for topic in ["a", "$queue/a", "$queue/$nack", "$with/delay=1/a", "$x"] {
            assert!(Spelled::read(topic, &[]).unwrap().is_none(), "{topic}");
        }
    }

    #[test]
    fn what_means_nothing_is_refused_with_a_sentence() {
        for (topic, sentence) in [
            ("$settles/a/b", "$settles/PACKET-ID/TOPIC"),
            ("$settles/0/b", "$settles/PACKET-ID/TOPIC"),
            ("$settles/1", "$settles/PACKET-ID/TOPIC"),
            ("$settles/1/", "$settles/PACKET-ID/TOPIC"),
            ("$settles/1/$settles/2/a", "$settles/PACKET-ID/TOPIC"),
            ("$queue/$with/delay=1", "KEY=VALUE/NAME"),
            ("$queue/$with//a", "percent-encoded"),
            ("$queue/$with/delay/a", "percent-encoded"),
            ("$queue/$with/delay=1&/a", "percent-encoded"),
            ("$queue/$with/group=%/a", "percent-encoded"),
            ("$queue/$with/group=%4/a", "percent-encoded"),
            ("$queue/$with/group=%+4/a", "percent-encoded"),
            ("$queue/$with/group=%ff/a", "percent-encoded"),
            ("$queue/$with/group=%00/a", "percent-encoded"),
            ("$queue/$with/group=%é/a", "percent-encoded"),
            ("$queue/$with/prio=1/a", "knows no \"prio\", but delay,"),
            ("$queue/$with/settles=17g/a", "the user property settles"),
            ("$queue/$with/response=a%2F%2B/a", "response is a topic"),
            ("$queue/$with/response=/a", "response is a topic"),
        ] {
            let close = Spelled::read(topic, &[]).err().expect(topic);
            assert!(close.why.contains(sentence), "{topic}: {}", close.why);
        }
    }

    #[test]
    fn a_topic_says_more_than_properties() {
        let mut came = Vec::new();
        let response = |topic| Property::ResponseTopic(TopicName::of_valid(topic));
        let content = Property::ContentType("text");
        for property in [response("one"), user("delay", "1"), content] {
            property.encode(&mut came);
        }
        let topic = "$queue/$with/delay=2&response=two/a";
        let spelled = Spelled::read(topic, &came).unwrap().unwrap();
        let properties = spelled.properties.unwrap();
        let all: Vec<_> = Properties::of_valid(&properties).iter().collect();
        let expected = [
            user("delay", "2"),
            response("two"),
            user("delay", "1"),
            content,
        ];
        assert_eq!(all, expected);
    }
}
