//! Mount points: what clients see that see only the topics below one prefix,
//! and without it.
//!
//! Owns how their topics, filters and properties are written on the way in, and
//! on the way out. Decides nothing about rights, and checks no limits: what
//! comes out of here is parsed as what any client says is.

use std::borrow::Cow;

use crate::protocol::{Properties, Property};
use crate::topic::{TopicLimits, TopicName};

/// The beginning of a topic, with the `/` that ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount(Box<str>);

impl Mount {
    /// `None`: it has a wildcard or a control character, does not end with `/`,
    /// begins with `$`, or is too long for any topic.
    pub fn new(prefix: &str) -> Option<Mount> {
        let is_name = TopicName::parse(prefix, TopicLimits::NONE).is_ok();
        let is_prefix = is_name && prefix.ends_with('/') && !prefix.starts_with('$');
        is_prefix.then(|| Mount(prefix.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How many bytes its clients do not see of a topic.
    pub fn bytes(&self) -> u16 {
        u16::try_from(self.0.len()).expect("a topic name has at most 65,535 bytes")
    }

    /// Whether its clients see that topic at all: no name of theirs is empty, or
    /// begins with `$`.
    pub fn holds(&self, topic: &[u8]) -> bool {
        let seen = topic.strip_prefix(self.0.as_bytes());
        seen.is_some_and(|seen| !matches!(seen.first(), None | Some(b'$')))
    }

    /// Appends to `full` what a client means that publishes to `topic`; false: it
    /// means nothing below a mount point.
    pub fn enter_topic(&self, topic: &str, full: &mut String) -> bool {
        let (before, name) = match topic.strip_prefix("$queue/") {
            Some(name) => ("$queue/", name),
            None => ("", topic),
        };
        let is_below = !name.is_empty() && !name.starts_with('$');
        if is_below {
            full.extend([before, self.as_str(), name]);
        }
        is_below
    }

    /// What a client means by a filter to which it subscribes, or does no more;
    /// `None`: it means nothing below a mount point.
    pub fn enter_filter(&self, filter: &str) -> Option<String> {
        let in_group = || {
            let (group, _) = filter.strip_prefix("$share/")?.split_once('/')?;
            filter.split_at_checked("$share/".len() + group.len() + 1)
        };
        let of_queue = || {
            ["$queue/$dead/", "$queue/"].into_iter().find_map(|before| {
                let name = filter.strip_prefix(before)?;
                Some((before, name))
            })
        };
        let (before, name) = in_group().or_else(of_queue).unwrap_or(("", filter));
        let is_below = !name.is_empty() && !name.starts_with('$');
        is_below.then(|| [before, self.as_str(), name].concat())
    }

    /// The properties of a PUBLISH or will as they are meant: their response
    /// topic is one of those that the client sees. `None`: it is not, or would
    /// be too long.
    pub fn enter_properties<'p>(&self, encoded: &'p [u8]) -> Option<Cow<'p, [u8]>> {
        let mut wrong = false;
        let entered = with_response_topic(encoded, |topic, full| {
            let is_below = self.enter_topic(topic, full);
            wrong |= !is_below || TopicName::parse(full, TopicLimits::NONE).is_err();
            !wrong
        });
        (!wrong).then_some(entered)
    }
}

/// The properties of a message to `topic` as a client sees them from whom so
/// many bytes of that are hidden: a response topic that is not below the same
/// mount point is left out, for its answer would go elsewhere.
pub fn leave_properties<'p>(topic: &str, mount_bytes: u16, encoded: &'p [u8]) -> Cow<'p, [u8]> {
    let mount = topic.get(..mount_bytes.into()).unwrap_or_default();
    with_response_topic(encoded, |response, seen| {
        let (before, name) = match response.strip_prefix("$queue/") {
            Some(name) => ("$queue/", name),
            None => ("", response),
        };
        let name = name.strip_prefix(mount);
        let name = name.filter(|name| !name.is_empty() && !name.starts_with('$'));
        seen.extend(name.map(|name| [before, name]).into_iter().flatten());
        name.is_some()
    })
}

/// A queue's name as a client sees it from whom `mount` is hidden.
pub fn leave_queue<'q>(queue: &'q str, mount: &str) -> Cow<'q, str> {
    match queue.strip_prefix("$dead/") {
        Some(name) => match name.strip_prefix(mount) {
            Some(seen) => Cow::Owned(["$dead/", seen].concat()),
            None => Cow::Borrowed(queue),
        },
        None => Cow::Borrowed(queue.strip_prefix(mount).unwrap_or(queue)),
    }
}

/// The properties with another response topic, if they have one: `rewrite`
/// appends it, or says that there is to be none.
fn with_response_topic(
    encoded: &[u8],
    mut rewrite: impl FnMut(&str, &mut String) -> bool,
) -> Cow<'_, [u8]> {
    let all = || Properties::of_valid(encoded).iter();
    if !all().any(|property| matches!(property, Property::ResponseTopic(_))) {
        return Cow::Borrowed(encoded);
    }
    let mut rewritten = Vec::with_capacity(encoded.len() + 64);
    for property in all() {
        let Property::ResponseTopic(topic) = property else {
            property.encode(&mut rewritten);
            continue;
        };
        let mut text = String::new();
        if rewrite(topic.as_str(), &mut text) {
            Property::ResponseTopic(TopicName::of_valid(&text)).encode(&mut rewritten);
        }
    }
    Cow::Owned(rewritten)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::TopicFilter;

    fn mount() -> Mount {
        Mount::new("a/b/").expect("it is one")
    }

    fn response(topic: &str) -> Vec<u8> {
        let mut encoded = Vec::new();
        Property::UserProperty(("before", "1")).encode(&mut encoded);
        Property::ResponseTopic(TopicName::of_valid(topic)).encode(&mut encoded);
        Property::CorrelationData(b"2").encode(&mut encoded);
        encoded
    }

    fn response_in(encoded: &[u8]) -> Option<&str> {
        let properties: Vec<_> = Properties::of_valid(encoded).iter().collect();
        assert_eq!(properties[0], Property::UserProperty(("before", "1")));
        assert_eq!(properties.last(), Some(&Property::CorrelationData(b"2")));
        match properties[1] {
            Property::ResponseTopic(topic) => Some(topic.as_str()),
            _ => None,
        }
    }

    #[test]
    fn what_a_mount_point_can_be() {
        for prefix in ["a/", "/", "a/b/", "é/"] {
            assert!(Mount::new(prefix).is_some(), "{prefix}");
        }
        let long = "a".repeat(65_535) + "/";
        for prefix in ["", "a", "+/", "a/#/", "$SYS/", "$queue/a/", "a\0/", &long] {
            assert!(Mount::new(prefix).is_none(), "{prefix}");
        }
    }

    #[test]
    fn topics_on_the_way_in() {
        for (topic, full) in [
            ("t", Some("a/b/t")),
            ("/", Some("a/b//")),
            ("$queue/t", Some("$queue/a/b/t")),
            ("$SYS/x", None),
            ("$CONTROL/rotamq/v1", None),
            ("$queue/$dead/t", None),
            ("$share/g/t", None),
            ("$delayed", None),
            ("", None),
            ("$queue/", None),
        ] {
            let mut entered = String::new();
            let is_below = mount().enter_topic(topic, &mut entered);
            assert_eq!(is_below.then_some(&*entered), full, "{topic}");
        }
    }

    #[test]
    fn filters_on_the_way_in() {
        for (filter, full) in [
            ("#", Some("a/b/#")),
            ("+/t", Some("a/b/+/t")),
            ("$queue/t", Some("$queue/a/b/t")),
            ("$queue/$dead/t", Some("$queue/$dead/a/b/t")),
            ("$share/g/t", Some("$share/g/a/b/t")),
            ("$share/g/#", Some("$share/g/a/b/#")),
            ("$share/g//t", Some("$share/g/a/b//t")),
            ("$share/g", None),
            ("$share/g/$SYS/#", None),
            ("$share/g/$queue/t", None),
            ("$queue/$dead/$dead/t", None),
            ("$queue/$SYS/t", None),
            ("$SYS/#", None),
            ("", None),
            ("$queue/", None),
            ("$queue/$dead/", None),
            ("$share/g/", None),
        ] {
            assert_eq!(mount().enter_filter(filter).as_deref(), full, "{filter}");
        }
    }

    #[test]
    fn topics_that_are_seen() {
        for (topic, is_seen) in [
            ("a/b/t", true),
            ("a/b//", true),
            ("a/b/", false),
            ("a/b", false),
            ("a/b/$t", false),
            ("a/c/t", false),
            ("t", false),
            ("$SYS/a/b/t", false),
        ] {
            assert_eq!(mount().holds(topic.as_bytes()), is_seen, "{topic}");
        }
    }

    /// A filter means below the mount point what it means elsewhere.
    #[test]
    fn filters_match_what_they_would_without() {
        let texts = |levels: &[&str]| -> Vec<String> {
            let mut all: Vec<String> = levels.iter().map(|level| (*level).to_owned()).collect();
            let mut last = all.clone();
            for _ in 0..2 {
                let longer = |text: &String| {
                    let text = text.clone();
                    levels.iter().map(move |level| format!("{text}/{level}"))
                };
                last = last.iter().flat_map(longer).collect();
                all.extend(last.iter().cloned());
            }
            all
        };
        let filters = texts(&["a", "b", "", "+", "#", "$x"]);
        let topics = texts(&["a", "b", "", "$x"]);
        let mut matched = 0;
        for filter in &filters {
            let Ok(meant) = TopicFilter::parse(filter, TopicLimits::NONE) else {
                continue;
            };
            let entered = mount().enter_filter(filter);
            assert_eq!(entered.is_none(), filter.starts_with('$'), "{filter}");
            let Some(entered) = entered else { continue };
            let entered = TopicFilter::parse(&entered, TopicLimits::NONE).expect(filter);
            for topic in &topics {
                let full = format!("{}{topic}", mount().as_str());
                let comes =
                    mount().holds(full.as_bytes()) && entered.matches(TopicName::of_valid(&full));
                let topic = TopicName::parse(topic, TopicLimits::NONE);
                let expected = topic.is_ok_and(|topic| meant.matches(topic));
                assert_eq!(comes, expected, "{filter} {full}");
                matched += u32::from(comes);
            }
        }
        assert!(matched > 500, "{matched}");
    }

    #[test]
    fn response_topics_both_ways() {
        for topic in ["r", "r/s", "$queue/r"] {
            let encoded = response(topic);
            let entered = mount().enter_properties(&encoded).expect(topic);
            let full = response_in(&entered).expect(topic);
            assert!(full.contains("a/b/r"), "{full}");
            let left = leave_properties("a/b/t", 4, &entered);
            assert_eq!(response_in(&left), Some(topic));
        }
        for topic in ["$SYS/r", "$queue/$dead/r", &"r".repeat(65_532)] {
            assert_eq!(mount().enter_properties(&response(topic)), None);
        }
        // Of somebody outside.
        for topic in ["r", "$queue/r", "a/b/", "a/b/$r", "$queue/a/b/"] {
            let encoded = response(topic);
            assert_eq!(response_in(&leave_properties("a/b/t", 4, &encoded)), None);
        }
        let none = [0x01, 0x01];
        assert_eq!(&*mount().enter_properties(&none).expect("no topic"), none);
        assert_eq!(&*leave_properties("a/b/t", 4, &none), none);
    }

    #[test]
    fn queues_that_are_seen() {
        for (queue, seen) in [
            ("a/b/q", "q"),
            ("$dead/a/b/q", "$dead/q"),
            ("q", "q"),
            ("$dead/q", "$dead/q"),
        ] {
            assert_eq!(leave_queue(queue, "a/b/"), seen);
        }
    }
}
