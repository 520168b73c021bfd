//! What the messages of a run ask of their work queue: priorities, groups and
//! a delay.
//!
//! It is encoded once, as user properties or in the topic; what differs from
//! message to message are [`Digits`].

use super::digits::{Digits, zeros};
use crate::protocol::{PropertiesBuf, Property, Version};

/// What is asked of the queue; by default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    /// Messages take turns among so many, from 0 on.
    pub priorities: Option<u32>,
    /// And among so many groups.
    pub groups: Option<u32>,
    pub delay_secs: Option<u32>,
}

impl Asks {
    /// Those whose value is another one from message to message, and how many
    /// values there are.
    fn counted(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let all = [("priority", self.priorities), ("group", self.groups)];
        all.into_iter()
            .filter_map(|(name, count)| Some((name, count?)))
    }

    /// What the first message asks.
    fn first(&self) -> impl Iterator<Item = (&'static str, String)> {
        let counted = self.counted().map(|(name, count)| (name, zeros(count)));
        counted.chain(self.delay_secs.map(|secs| ("delay", secs.to_string())))
    }

    /// As the topic of a queue says it, for versions without properties.
    /// `topic`: begins with `$queue/`.
    pub fn in_topic(&self, topic: &str, version: Version) -> Option<String> {
        let name = topic.strip_prefix("$queue/")?;
        let pairs: Vec<String> = self
            .first()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let says = version != Version::V5 && !pairs.is_empty();
        says.then(|| format!("$queue/$with/{}/{name}", pairs.join("&")))
    }

    /// With the user properties that say it in MQTT 5; they come first.
    pub fn in_properties(&self, others: &PropertiesBuf, version: Version) -> PropertiesBuf {
        let mut properties = PropertiesBuf::new();
        if version == Version::V5 {
            for (key, value) in self.first() {
                properties.push(Property::UserProperty((key, &value)));
            }
        }
        for property in others.as_properties().iter() {
            properties.push(property);
        }
        properties
    }

    /// The digits that count, in what comes before the payload of a packet of
    /// the first message.
    pub fn digits(&self, head: &[u8]) -> Vec<Digits> {
        let digits = self.counted().filter_map(|(name, count)| {
            let zeros = zeros(count);
            // Between them stands a length of two bytes, or "=".
            let between = [&[0, zeros.len() as u8][..], b"="];
            let mut ways = between
                .into_iter()
                .map(|between| [name.as_bytes(), between, zeros.as_bytes()].concat());
            ways.find_map(|way| {
                let at = head.windows(way.len()).position(|bytes| bytes == way)?;
                Some(Digits::new(at + way.len() - zeros.len(), count))
            })
        });
        digits.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Asks = Asks {
        priorities: Some(3),
        groups: Some(12),
        delay_secs: Some(7),
    };

    #[test]
    fn says_nothing_where_nothing_is_asked() {
        let none = Asks::default();
        assert_eq!(none.in_topic("$queue/a", Version::V3_1_1), None);
        let properties = none.in_properties(&PropertiesBuf::new(), Version::V5);
        assert!(properties.is_empty());
        assert!(none.digits(b"priority=0").is_empty());
    }

    #[test]
    fn says_it_by_topic_or_by_properties() {
        let topic = ALL.in_topic("$queue/a/b", Version::V3_1_1);
        let expected = "$queue/$with/priority=0&group=00&delay=7/a/b";
        assert_eq!(topic.as_deref(), Some(expected));
        assert_eq!(ALL.in_topic("$queue/a/b", Version::V5), None);
        let mut others = PropertiesBuf::new();
        others.push(Property::UserProperty(("group", "x")));
        let properties = ALL.in_properties(&others, Version::V5);
        let expected = [("priority", "0"), ("group", "00"), ("delay", "7")];
        let expected = expected.into_iter().chain([("group", "x")]);
        assert!(
            (properties.as_properties().iter()).eq(expected.map(Property::UserProperty)),
            "{properties:?}"
        );
        assert_eq!(ALL.in_properties(&others, Version::V3_1_1), others);
    }

    #[test]
    fn digits_count_and_begin_anew() {
        let mut packet = b"..priority=0&group=00/..".to_vec();
        let mut digits = ALL.digits(&packet);
        assert_eq!(digits.len(), 2);
        let mut seen = Vec::new();
        for _ in 0..13 {
            seen.push(String::from_utf8_lossy(&packet[11..21]).into_owned());
            digits
                .iter_mut()
                .for_each(|digits| digits.advance(&mut packet));
        }
        let expected: Vec<String> = (0..13)
            .map(|turn| format!("{}&group={:02}", turn % 3, turn % 12))
            .collect();
        assert_eq!(seen, expected);
        digits[1].advance_by_part(2, 4, &mut packet);
        assert_eq!(&packet[19..21], b"07");
    }
}
