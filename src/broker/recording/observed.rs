//! What connections tell of: which packets they are, whose, and about which
//! topic.
//!
//! Called only while something is recorded: nothing here is on the way of a
//! message otherwise.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;
use rustc_hash::FxHashMap;

use super::kept::{self, Content, Record};
use super::{AWAITED_COST_BYTES, Awaited, Direction, Recording, Recordings, What, Why};
use crate::broker::{Core, Link, spelled};
use crate::message::{ClientId, Identity, SessionId, Time};
use crate::mount::Mount;
use crate::protocol::{Ack, Connect, Packet, Property, Publish, decode};
use crate::session::{Outbox, Wire};
use crate::topic::{TopicFilter, TopicLimits, TopicName};

/// The topics of a connection's aliases, on the way to its client, as a
/// recording has seen them.
#[derive(Default)]
pub struct SentAliases {
    /// The recording that had begun last when they were looked up.
    since: u64,
    topics: FxHashMap<NonZeroU16, Box<str>>,
}

/// Whose packets they are.
#[derive(Clone, Copy)]
struct Whose<'a> {
    identity: &'a Arc<Identity>,
    address: Option<SocketAddr>,
    wire: Wire,
    /// `None`: it is not let in yet.
    session: Option<SessionId>,
    mount: Option<&'a Mount>,
}

/// The recordings, while packets of one connection are told.
struct Recorder<'r> {
    all: MutexGuard<'r, Vec<Recording>>,
    whose: Whose<'r>,
    now: Time,
}

impl Core {
    /// Tells the recordings what came of a connection: the whole packets with
    /// which `bytes` begin, before any of them is handled.
    #[cold]
    #[inline(never)]
    pub fn record_received(
        &self,
        link: &Link,
        address: Option<SocketAddr>,
        bytes: &[u8],
        now: Time,
    ) {
        let Some(mut recorder) = self.recordings.recorder(whose(link, address), now) else {
            return;
        };
        let packet_bytes_max = link.door.limits.packet_bytes_max;
        // Aliases that packets before have set, which are not handled yet.
        let mut set = FxHashMap::default();
        let mut rest = bytes;
        loop {
            match decode(rest, link.terms.wire, packet_bytes_max) {
                Ok(None) => return,
                Ok(Some((packet, len))) => {
                    let topic = match alias_of(&packet) {
                        Some((alias, "")) => {
                            let known = set.get(&alias).copied();
                            known.or_else(|| link.received_topic(alias))
                        }
                        Some((alias, topic)) => {
                            set.insert(alias, topic);
                            None
                        }
                        None => None,
                    };
                    recorder.note(Direction::In, &packet, topic);
                    rest = &rest[len..];
                }
                Err(error) => return recorder.note_malformed(Direction::In, error.what),
            }
        }
    }

    /// Tells the recordings what goes out to a connection's client next: what
    /// of `writing` may be written now, and was not told before.
    #[cold]
    #[inline(never)]
    pub fn record_sent(
        &self,
        link: &mut Link,
        address: Option<SocketAddr>,
        writing: &mut Outbox,
        now: Time,
    ) {
        let mut aliases = self.sent_aliases(link);
        if let Some(mut recorder) = self.recordings.recorder(whose(link, address), now) {
            let wire = link.terms.wire;
            let mut is_readable = true;
            // A packet that goes on in the next run.
            let mut begun = Vec::new();
            writing.show_new(|run| {
                let joined;
                let mut rest = run;
                if !begun.is_empty() {
                    begun.extend_from_slice(run);
                    joined = std::mem::take(&mut begun);
                    rest = &joined;
                }
                while is_readable {
                    match decode(rest, wire, usize::MAX) {
                        Ok(None) => {
                            begun = rest.to_vec();
                            return;
                        }
                        Ok(Some((packet, len))) => {
                            aliases.note(&packet);
                            recorder.note(Direction::Out, &packet, aliases.topic(&packet));
                            rest = &rest[len..];
                        }
                        Err(error) => {
                            recorder.note_malformed(Direction::Out, error.what);
                            is_readable = false;
                        }
                    }
                }
            });
        }
        link.set_sent_aliases(aliases);
    }

    /// Tells the recordings of a packet, encoded, that a client without a
    /// session has sent, or gets. It is whose its CONNECT says it is.
    #[cold]
    #[inline(never)]
    pub fn record_connecting(
        &self,
        connect: &Connect<'_>,
        address: Option<SocketAddr>,
        (direction, bytes): (Direction, &[u8]),
        now: Time,
    ) {
        let identity = Arc::new(Identity {
            user: connect.user_name.map(Arc::from),
            client: ClientId::new(connect.client_id),
        });
        let whose = Whose {
            identity: &identity,
            address,
            wire: connect.version,
            session: None,
            mount: None,
        };
        if let Some(mut recorder) = self.recordings.recorder(whose, now) {
            match decode(bytes, connect.version, usize::MAX) {
                Ok(Some((packet, _))) => recorder.note(direction, &packet, None),
                Ok(None) => {}
                Err(error) => recorder.note_malformed(direction, error.what),
            }
        }
    }

    /// What aliases stand for that the connection's client gets. Where nobody has
    /// looked out for them yet, as its session has them now: one that stands for
    /// another topic since a packet was put into the outbox is taken for that.
    fn sent_aliases(&self, link: &mut Link) -> SentAliases {
        let mut aliases = link.take_sent_aliases();
        let since = self.recordings.last_id();
        if link.terms.topic_aliases_out > 0 && aliases.since < since {
            let session = self.session_of(link);
            let given = session.map(|session| session.given_aliases());
            aliases = SentAliases {
                since,
                topics: given.unwrap_or_default().into_iter().collect(),
            };
        }
        aliases
    }
}

impl SentAliases {
    /// Whether nobody has looked out for any.
    pub fn is_unknown(&self) -> bool {
        self.since == 0
    }

    /// The packet may set an alias.
    fn note(&mut self, packet: &Packet<'_>) {
        if let Some((alias, topic)) = alias_of(packet)
            && !topic.is_empty()
        {
            self.topics.insert(alias, topic.into());
        }
    }

    /// What the packet's alias stands for, where it has no topic.
    fn topic(&self, packet: &Packet<'_>) -> Option<&str> {
        match alias_of(packet)? {
            (alias, "") => self.topics.get(&alias).map(|topic| &**topic),
            _ => None,
        }
    }
}

fn whose(link: &Link, address: Option<SocketAddr>) -> Whose<'_> {
    Whose {
        identity: &link.identity,
        address,
        wire: link.terms.wire,
        session: Some(link.session),
        mount: link.door.mount.as_deref(),
    }
}

/// The alias of a PUBLISH, and its topic.
fn alias_of<'a>(packet: &Packet<'a>) -> Option<(NonZeroU16, &'a str)> {
    let Packet::Publish(publish) = packet else {
        return None;
    };
    publish
        .properties
        .iter()
        .find_map(|property| match property {
            Property::TopicAlias(alias) => Some((alias, publish.topic)),
            _ => None,
        })
}

impl Recordings {
    fn last_id(&self) -> u64 {
        self.last_id.load(Ordering::Relaxed)
    }

    /// `None`: nothing is recorded that such a packet could be.
    fn recorder<'r>(&'r self, whose: Whose<'r>, now: Time) -> Option<Recorder<'r>> {
        let all = self.all.lock();
        let is_wanted = |recording: &Recording| {
            recording.is_running(now) && recording.request.what.may_mean(&whose)
        };
        let any = all.iter().any(is_wanted);
        any.then_some(Recorder { all, whose, now })
    }
}

impl Recorder<'_> {
    /// `topic`: what its alias stands for, where it names no topic itself.
    fn note(&mut self, direction: Direction, packet: &Packet<'_>, topic: Option<&str>) {
        let (whose, now) = (self.whose, self.now);
        for recording in self.all.iter_mut() {
            if recording.is_running(now) && recording.means(&whose, direction, packet, topic) {
                let payload_bytes_max = recording.request.payload_bytes_max;
                recording.push_with(|| Record {
                    at: now,
                    direction,
                    wire: whose.wire,
                    identity: whose.identity.clone(),
                    address: whose.address,
                    topic: topic.map(Box::from),
                    payload_bytes: kept::payload_bytes(packet),
                    content: kept::content(packet, whose.wire, payload_bytes_max),
                });
            }
        }
    }

    fn note_malformed(&mut self, direction: Direction, what: &'static str) {
        let (whose, now) = (self.whose, self.now);
        for recording in self.all.iter_mut() {
            let is_topic = matches!(recording.request.what, What::Topic(_));
            let is_wanted = !is_topic && recording.request.what.may_mean(&whose);
            if recording.is_running(now) && is_wanted {
                recording.push_with(|| Record {
                    at: now,
                    direction,
                    wire: whose.wire,
                    identity: whose.identity.clone(),
                    address: whose.address,
                    topic: None,
                    payload_bytes: 0,
                    content: Content::Malformed(what),
                });
            }
        }
    }
}

impl What {
    /// Whether packets of that connection may be meant.
    fn may_mean(&self, whose: &Whose<'_>) -> bool {
        match self {
            What::Client(id) => **id == *whose.identity.client.as_str(),
            What::User(name) => whose.identity.user.as_deref() == Some(&**name),
            What::Address(ip) => {
                let address = whose.address.map(|address| address.ip().to_canonical());
                address == Some(ip.to_canonical())
            }
            What::Topic(_) => true,
        }
    }
}

impl Recording {
    /// Whether it is about such a packet.
    fn means(
        &mut self,
        whose: &Whose<'_>,
        direction: Direction,
        packet: &Packet<'_>,
        topic: Option<&str>,
    ) -> bool {
        let What::Topic(filter) = &self.request.what else {
            return self.request.what.may_mean(whose);
        };
        match packet {
            Packet::Publish(publish) => {
                let topic = topic.unwrap_or(publish.topic);
                let is_meant = matches(filter, topic, whose.mount);
                self.await_acknowledgement(whose, direction, publish, is_meant);
                is_meant
            }
            Packet::Puback(ack) => self.is_awaited(whose, direction.other(), ack, true),
            Packet::Pubrec(ack) => {
                let is_last = ack.reason.is_failure();
                self.is_awaited(whose, direction.other(), ack, is_last)
            }
            Packet::Pubrel(ack) => self.is_awaited(whose, direction, ack, false),
            Packet::Pubcomp(ack) => self.is_awaited(whose, direction.other(), ack, true),
            _ => false,
        }
    }

    fn await_acknowledgement(
        &mut self,
        whose: &Whose<'_>,
        direction: Direction,
        publish: &Publish<'_>,
        is_meant: bool,
    ) {
        let (Some(session), Some(packet_id)) = (whose.session, publish.packet_id) else {
            return;
        };
        let key = (session, direction, packet_id);
        match is_meant {
            // What is missed is not told in full either.
            true if self.full.is_some() => {}
            true => self.awaits(key),
            // The id was another message's before.
            false => _ = self.awaited.remove(&key),
        }
    }

    fn awaits(&mut self, key: Awaited) {
        let most = self.awaited_most.max(self.awaited.len() + 1);
        let more = (most - self.awaited_most) * AWAITED_COST_BYTES;
        if self.bytes + more > self.bytes_max {
            self.full = Some(Why::Bytes);
            return;
        }
        self.bytes += more;
        self.awaited_most = most;
        self.awaited.insert(key);
    }

    /// Whether this acknowledges a message that it was about; `direction`: which
    /// way that went; `is_last`: nothing more is said of it.
    fn is_awaited(
        &mut self,
        whose: &Whose<'_>,
        direction: Direction,
        ack: &Ack<'_>,
        is_last: bool,
    ) -> bool {
        let Some(session) = whose.session else {
            return false;
        };
        let key = (session, direction, ack.packet_id);
        match is_last {
            true => self.awaited.remove(&key),
            false => self.awaited.contains(&key),
        }
    }

    /// What is not kept for want of room is not put together either.
    fn push_with(&mut self, record: impl FnOnce() -> Record) {
        match self.full {
            Some(_) => self.missed += 1,
            None => self.push(record()),
        }
    }
}

/// Whether a filter means messages to a topic, as a client below `mount` names
/// it: whatever else the topic says, and for queues too.
fn matches(filter: &str, said: &str, mount: Option<&Mount>) -> bool {
    let meant = spelled::meant(said);
    let mut full = String::new();
    let topic = match mount {
        Some(mount) if mount.enter_topic(&meant, &mut full) => &full,
        _ => &*meant,
    };
    let Ok(filter) = TopicFilter::parse(filter, TopicLimits::NONE) else {
        return false;
    };
    let matches = |topic| {
        let topic = TopicName::parse(topic, TopicLimits::NONE);
        topic.is_ok_and(|topic| filter.matches(topic))
    };
    matches(topic) || topic.strip_prefix("$queue/").is_some_and(matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_meant_whatever_else_it_says() {
        for (filter, topic, is_meant) in [
            ("a/+", "a/b", true),
            ("a/+", "$queue/a/b", true),
            ("$queue/a/+", "$queue/a/b", true),
            ("$queue/a/+", "a/b", false),
            ("a/+", "$delayed/5/a/b", true),
            ("a/+", "$delayed/5/$queue/a/b", true),
            ("a/+", "$settles/7/a/b", true),
            ("a/+", "$queue/$with/priority=1/a/b", true),
            ("a/+", "$delayed/x/a/b", false),
            ("a/+", "a/b/c", false),
            ("#", "a", true),
            ("#", "$SYS/a", false),
            ("a", "", false),
            ("a", "a/#", false),
        ] {
            assert_eq!(matches(filter, topic, None), is_meant, "{filter} {topic}");
        }
        let mount = Mount::new("m/").expect("it is one");
        assert!(matches("m/a", "a", Some(&mount)));
        assert!(matches("m/a", "$queue/a", Some(&mount)));
        assert!(!matches("a", "a", Some(&mount)));
    }
}
