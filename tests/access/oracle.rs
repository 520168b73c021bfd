//! The rules beside a slow, obvious reading of the same text: random rules,
//! clients and topics.
//!
//! The oracle goes through the lines one after the other, puts names into them,
//! and compares level by level. What a filter reaches it finds by trying all
//! topics of a small world, in which one level is named by no rule.

use rotamq::access::CONTROL_TOPIC;
use rotamq::access::rules::{Ask, Reach, Rules, Strictness};
use rotamq::message::Qos;
use rotamq::topic::{TopicFilter, TopicLimits};

use super::{identity, source};

/// Levels of topics, of rules and filters; the last is in no rule.
const LEVELS: [&str; 6] = ["a", "", "$x", "al", "dev", "other"];
const NAMED: [&str; 5] = ["a", "", "$x", "al", "dev"];
const PLACEHOLDERS: [&str; 4] = ["%u", "%c", "d%c", "%u%c"];
const USERS: [&str; 7] = ["-", "al", "a", "+", "a/b", "", "$x"];
const CLIENTS: [&str; 8] = ["dev", "al", "ev", "#", "a/b", "", "$x", "x\0"];
const LIST_WORDS: [&str; 7] = [
    "publish",
    "retain",
    "subscribe",
    "create",
    "join",
    "put",
    "steer",
];

/// Case E11 of docs/security.md.
#[test]
fn rules_say_what_their_text_says() {
    compare(20_000);
}

#[test]
#[ignore = "takes minutes: what the test above does, a million times"]
fn rules_say_what_their_text_says_a_million_times() {
    compare(1_000_000);
}

/// So many triples of rules, client and topic or filter.
fn compare(triples: u64) {
    let mut compared = 0;
    let mut counts = [0; 2];
    for seed in 0.. {
        let mut random = Random(seed);
        let text = Text::random(&mut random);
        let acl = text.acl.as_ref().map(|acl| source("rules.acl", acl));
        let form = text.form().map(|form| source("rules.toml", &form));
        let rules = Rules::parse(acl.as_ref(), form.as_ref())
            .unwrap_or_else(|error| panic!("seed {seed}: {error}\n{text:?}"));
        for _ in 0..10 {
            let (user, client) = (random.one_of(&USERS), random.one_of(&CLIENTS));
            let who = Who {
                user: (user != "-").then_some(user),
                client,
            };
            let world = all_levels(who);
            let rights = rules.rights(&identity(user, client), &[]);
            for _ in 0..10 {
                let topic = random.topic(&world);
                let topic = topic.as_str();
                let qos = Qos::from_bits(random.below(3) as u8).expect("a QoS");
                let retain = random.below(2) == 0;
                let published = text.says(who, "publish", topic)
                    && (!retain || text.says(who, "retain", topic))
                    && qos as u8 <= text.qos_max(who);
                let put = text.says(who, "put", topic) && qos as u8 <= text.qos_max(who);
                let (asked, expected) = match random.below(3) {
                    0 => (Ask::Publish { topic, qos, retain }, published),
                    1 => (Ask::Put { topic, qos }, put),
                    _ => {
                        let read = text.says(who, "subscribe", topic);
                        let topic = topic.as_bytes();
                        (Ask::Read { topic }, read)
                    }
                };
                let verdict = rights.decide(asked);
                let explained = rights.explain(verdict);
                assert_eq!(
                    verdict.is_allowed(),
                    expected,
                    "seed {seed}: {user} {client:?} {asked:?}: {explained}\n{text:?}"
                );
                counts[usize::from(expected)] += 1;
                compared += 1;
            }
            if random.below(3) > 0 {
                continue; // it takes long
            }
            let filter = random.filter(&NAMED, &[]);
            let filter = TopicFilter::parse(&filter, TopicLimits::NONE).expect("a filter");
            let matched = all_topics(filter.as_str(), &world);
            check_filter(&text, who, &rights, filter, &matched, seed);
            compared += 1;
        }
        if compared >= triples {
            break;
        }
    }
    let least = counts[0].min(counts[1]);
    assert!(least * 20 > compared, "both answers are common: {counts:?}");
}

fn check_filter(
    text: &Text,
    who: Who<'_>,
    rights: &rotamq::access::rules::Rights,
    filter: TopicFilter<'_>,
    matched: &[String],
    seed: u64,
) {
    let reach = rights.reach(filter);
    let told = match reach {
        Reach::All(_) => 2,
        Reach::Part(..) => 1,
        Reach::Nothing(_) => 0,
    };
    let any = matched
        .iter()
        .any(|topic| text.says(who, "subscribe", topic));
    let expected = match text.says_of_all(who, "subscribe", matched) {
        true => 2,
        false => u8::from(any),
    };
    let about = format!("seed {seed}: {who:?} {filter:?}: {reach:?}\n{text:?}");
    assert_eq!(told, expected, "{about}");
    for (strictness, expected) in [
        (Strictness::Refuse, expected == 2),
        (Strictness::Filter, expected > 0),
    ] {
        let verdict = rights.decide(Ask::Subscribe { filter, strictness });
        assert_eq!(verdict.is_allowed(), expected, "{about}");
    }
    let queue = filter;
    for (word, ask) in [
        ("create", Ask::Create { queue }),
        ("join", Ask::Join { queue }),
        ("steer", Ask::Steer { queue }),
    ] {
        let expected = text.says_of_all(who, word, matched);
        let verdict = rights.decide(ask);
        let explained = rights.explain(verdict);
        assert_eq!(
            verdict.is_allowed(),
            expected,
            "{word}: {explained}: {about}"
        );
    }
}

// ---- The oracle

#[derive(Clone, Copy, Debug)]
struct Who<'a> {
    user: Option<&'a str>,
    client: &'a str,
}

/// Rules as they are written.
#[derive(Debug)]
struct Text {
    acl: Option<String>,
    roles: Vec<Role>,
    grants: Vec<Grant>,
}

#[derive(Debug)]
struct Role {
    qos_max: Option<u8>,
    /// Denies, in which list, filter.
    entries: Vec<(bool, &'static str, String)>,
}

#[derive(Debug)]
struct Grant {
    who: &'static str,
    roles: Vec<usize>,
}

/// Of one kind of rules of a client: whether any denies, whether any allows.
type Said = (bool, bool);

impl Text {
    fn says(&self, who: Who<'_>, right: &str, topic: &str) -> bool {
        let (topics, patterns) = self.acl_says(who, right, topic);
        let role = self.roles_say(who, right, topic);
        let denied = topics.0 || role.0 || patterns.0 && !topics.1;
        !denied && (topics.1 || patterns.1 || role.1)
    }

    /// What filters and queues need: not more than a few rules can grant at
    /// once, as the module says.
    fn says_of_all(&self, who: Who<'_>, right: &str, topics: &[String]) -> bool {
        let said: Vec<_> = (topics.iter())
            .map(|topic| {
                let (topics, patterns) = self.acl_says(who, right, topic);
                (topics, patterns, self.roles_say(who, right, topic))
            })
            .collect();
        let denied_firmly = |(topics, _, role): &(Said, Said, Said)| topics.0 || role.0;
        if said.iter().any(denied_firmly) {
            return false;
        }
        let by_topics = said.iter().all(|(topics, _, _)| topics.1);
        let by_any = said
            .iter()
            .all(|(topics, patterns, role)| !patterns.0 && (topics.1 || patterns.1 || role.1));
        by_topics || by_any
    }

    /// What `topic` lines say, and what `pattern` lines say.
    fn acl_says(&self, who: Who<'_>, right: &str, topic: &str) -> (Said, Said) {
        let (mut topics, mut patterns) = ((false, false), (false, false));
        let (accesses, topic): (&[&str], String) = match right {
            "publish" | "retain" => (&["write"], topic.to_owned()),
            "subscribe" => (&["read"], topic.to_owned()),
            "put" => (&["write"], format!("$queue/{topic}")),
            "join" => (&["read"], format!("$queue/{topic}")),
            "create" => (&["read", "write"], format!("$queue/{topic}")),
            _ => (&["write"], CONTROL_TOPIC.to_owned()),
        };
        let is_barred = [who.user.unwrap_or_default(), who.client]
            .iter()
            .any(|name| name.contains('+') || name.contains('#'));
        let mut user = None;
        for line in self.acl.iter().flat_map(|acl| acl.lines()) {
            let words: Vec<&str> = line.split(' ').collect();
            let (access, filter) = match words[..] {
                ["user", name] => {
                    user = Some(name);
                    continue;
                }
                [_, filter] => ("readwrite", filter),
                [_, access, filter] => (access, filter),
                _ => continue,
            };
            let is_pattern = words[0] == "pattern";
            if !is_pattern && user != who.user {
                continue;
            }
            let names = is_pattern.then_some((who, access == "deny"));
            if is_matched(filter, &topic, names) {
                let said = if is_pattern {
                    &mut patterns
                } else {
                    &mut topics
                };
                let allows = access == "readwrite" || accesses.contains(&access);
                said.0 |= access == "deny";
                said.1 |= allows && !(is_pattern && is_barred);
            }
        }
        (topics, patterns)
    }

    fn roles_say(&self, who: Who<'_>, right: &str, topic: &str) -> Said {
        let mut said = (false, false);
        for role in self.roles_of(who) {
            for (denies, list, filter) in &self.roles[role].entries {
                if *list == right && is_matched(filter, topic, Some((who, *denies))) {
                    said.0 |= denies;
                    said.1 |= !denies;
                }
            }
        }
        said
    }

    fn roles_of(&self, who: Who<'_>) -> impl Iterator<Item = usize> {
        let granted = self.grants.iter().filter(move |grant| match grant.who {
            "anonymous = true" => who.user.is_none(),
            "user = \"al\"" => who.user == Some("al"),
            "user = \"a*\"" => who.user.is_some_and(|user| user.starts_with('a')),
            "client = \"*v\"" => who.client.ends_with('v'),
            _ => true,
        });
        granted.flat_map(|grant| grant.roles.iter().copied())
    }

    fn qos_max(&self, who: Who<'_>) -> u8 {
        let bounds = self
            .roles_of(who)
            .filter_map(|role| self.roles[role].qos_max);
        bounds.min().unwrap_or(2)
    }

    fn form(&self) -> Option<String> {
        if self.roles.is_empty() {
            return None;
        }
        let mut text = String::new();
        for (index, role) in self.roles.iter().enumerate() {
            text += &format!("[[role]]\nname = \"{index}\"\n");
            if let Some(qos) = role.qos_max {
                text += &format!("qos_max = {qos}\n");
            }
            for (denies, table) in [(false, "allow"), (true, "deny")] {
                text += &format!("[role.{table}]\n");
                for list in LIST_WORDS {
                    let entries = (role.entries.iter())
                        .filter(|entry| (entry.0, entry.1) == (denies, list))
                        .map(|(_, _, filter)| filter);
                    text += &format!("{list} = {:?}\n", entries.collect::<Vec<_>>());
                }
            }
        }
        for grant in &self.grants {
            let roles: Vec<_> = grant.roles.iter().map(usize::to_string).collect();
            text += &format!("[[grant]]\n{}\nroles = {roles:?}\n", grant.who);
        }
        Some(text)
    }
}

/// Whether a rule's filter is about a topic. `names`: whose names its
/// placeholders stand for, and whether it denies.
fn is_matched(filter: &str, topic: &str, names: Option<(Who<'_>, bool)>) -> bool {
    let filter: Vec<&str> = filter.split('/').collect();
    let topic: Vec<&str> = topic.split('/').collect();
    let begins_open = ["+", "#"].contains(&filter[0])
        || names.is_some() && (filter[0].starts_with("%u") || filter[0].starts_with("%c"));
    if topic[0].starts_with('$') && begins_open {
        return false;
    }
    for (at, level) in filter.iter().enumerate() {
        if *level == "#" {
            return topic.len() >= at;
        }
        let Some(topic) = topic.get(at) else {
            return false;
        };
        if *level == "+" {
            continue;
        }
        match names {
            Some((who, denies)) => match fill(level, who) {
                Filled::Level(level) if level == *topic => {}
                Filled::AnythingAfter(text) if denies => return topic.starts_with(&text),
                _ => return false,
            },
            None if level == topic => {}
            None => return false,
        }
    }
    topic.len() == filter.len()
}

enum Filled {
    Level(String),
    /// Behind it comes a name that is no level.
    AnythingAfter(String),
    Nothing,
}

fn fill(level: &str, who: Who<'_>) -> Filled {
    let mut filled = String::new();
    let mut rest = level;
    while let Some(char) = rest.chars().next() {
        let name = match rest.get(..2) {
            Some("%u") => Some(who.user),
            Some("%c") => Some(Some(who.client)),
            _ => None,
        };
        match name {
            None => {
                filled.push(char);
                rest = &rest[char.len_utf8()..];
            }
            Some(None) => return Filled::Nothing,
            Some(Some(name)) => {
                if name.is_empty() || name.chars().any(|char| "+#/\0".contains(char)) {
                    return Filled::AnythingAfter(filled);
                }
                filled += name;
                rest = &rest[2..];
            }
        }
    }
    Filled::Level(filled)
}

/// The levels that rules can name for this client, and another.
fn all_levels(who: Who<'_>) -> Vec<String> {
    let filled = PLACEHOLDERS
        .iter()
        .filter_map(|level| match fill(level, who) {
            Filled::Level(level) => Some(level),
            _ => None,
        });
    let mut levels: Vec<String> = LEVELS.map(str::to_owned).into();
    levels.extend(filled);
    levels.sort();
    levels.dedup();
    levels
}

/// The topics of up to three levels that a filter matches: one more than rules
/// and filters name.
fn all_topics(filter: &str, world: &[String]) -> Vec<String> {
    let mut topics = Vec::new();
    let mut above = vec![Vec::new()];
    for _ in 0..3 {
        let deeper = above.iter().flat_map(|levels: &Vec<&str>| {
            world
                .iter()
                .map(|level| [&levels[..], &[level.as_str()]].concat())
        });
        // Only what begins as the filter does, up to its `#`.
        let begins = |levels: &Vec<&str>| {
            let filter = filter.split('/').zip(levels).enumerate();
            let mut rest = filter.take_while(|(_, (level, _))| *level != "#");
            rest.all(|(at, (filter, level))| match filter {
                "+" => at > 0 || !level.starts_with('$'),
                filter => filter == *level,
            })
        };
        above = deeper.filter(begins).collect();
        let joined = above.iter().map(|levels| levels.join("/"));
        topics.extend(joined.filter(|topic| !topic.is_empty() && is_matched(filter, topic, None)));
    }
    topics
}

// ---- Chance

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    fn one_of<'t, T: AsRef<str>>(&mut self, all: &'t [T]) -> &'t str {
        all[self.below(all.len() as u64) as usize].as_ref()
    }

    fn topic(&mut self, world: &[String]) -> String {
        loop {
            let levels: Vec<_> = (0..=self.below(3)).map(|_| self.one_of(world)).collect();
            let topic = levels.join("/");
            if !topic.is_empty() {
                return topic;
            }
        }
    }

    /// Up to two levels, and `#`.
    fn filter(&mut self, levels: &[&str], placeholders: &[&str]) -> String {
        loop {
            let mut filter = Vec::new();
            for _ in 0..self.below(3) {
                filter.push(match self.below(6) {
                    0 | 1 => "+",
                    2 if !placeholders.is_empty() => self.one_of(placeholders),
                    _ => self.one_of(levels),
                });
            }
            if filter.is_empty() || self.below(3) == 0 {
                filter.push("#");
            }
            let filter = filter.join("/");
            if !filter.is_empty() {
                return filter;
            }
        }
    }
}

impl Text {
    fn random(random: &mut Random) -> Text {
        let kinds = random.below(3);
        let mut text = Text {
            acl: None,
            roles: Vec::new(),
            grants: Vec::new(),
        };
        if kinds != 1 {
            text.acl = Some(Text::random_acl(random));
        }
        if kinds != 0 {
            text.add_random_roles(random);
        }
        text
    }

    fn random_acl(random: &mut Random) -> String {
        let mut acl = String::new();
        for _ in 0..random.below(16) {
            let word = match random.below(5) {
                0 => {
                    acl += &format!("user {}\n", random.one_of(&["al", "a", "+", "$x"]));
                    continue;
                }
                1 | 2 => "pattern",
                _ => "topic",
            };
            let accesses = ["", "read ", "write ", "readwrite ", "deny "];
            let access = random.one_of(&accesses);
            // In a topic line they are text.
            let placeholders = if word == "pattern" {
                PLACEHOLDERS.len()
            } else {
                0
            };
            let filter = random.filter(&NAMED, &PLACEHOLDERS[..placeholders]);
            let filter = match random.below(8) {
                0 | 1 => format!("$queue/{filter}"),
                2 => random
                    .one_of(&[CONTROL_TOPIC, "$CONTROL/#", "$CONTROL/%u/v1"])
                    .to_owned(),
                _ => filter,
            };
            acl += &format!("{word} {access}{filter}\n");
        }
        acl
    }

    fn add_random_roles(&mut self, random: &mut Random) {
        for _ in 0..1 + random.below(3) {
            let entries = (0..random.below(12)).map(|_| {
                let denies = random.below(4) == 0;
                let list = LIST_WORDS[random.below(7) as usize];
                let mut filter = random.filter(&NAMED, &PLACEHOLDERS);
                if filter.starts_with('$') && !["publish", "retain", "subscribe"].contains(&list) {
                    filter = "a".to_owned(); // there is no such queue
                }
                (denies, list, filter)
            });
            let entries = entries.collect();
            let bound = random.below(9) as u8;
            self.roles.push(Role {
                qos_max: (bound < 3).then_some(bound),
                entries,
            });
        }
        for _ in 0..1 + random.below(3) {
            let who = [
                "client = \"*\"",
                "anonymous = true",
                "user = \"al\"",
                "user = \"a*\"",
                "client = \"*v\"",
            ];
            let who = who[random.below(5) as usize];
            let all = self.roles.len() as u64;
            let roles = (0..1 + random.below(2)).map(|_| random.below(all) as usize);
            let roles = roles.collect();
            self.grants.push(Grant { who, roles });
        }
    }
}
