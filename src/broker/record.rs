//! What is stored of sessions, subscriptions and queues, and in which form.
//!
//! Owns the keys and values; a value begins with the number of its form.

use std::sync::Arc;
use std::time::Duration;

use crate::access::{Client, OwnRights};
use crate::journal::{ListId, tag};
use crate::message::{ClientId, Identity, PacketId, Qos, SubscriptionId, Time};
use crate::mount::Mount;
use crate::session::Will;

const FORM: u8 = 1;
/// Of a session. The form before had no mount point.
const SESSION_FORM: u8 = 2;
/// Of a queue or share group. The form before had a name and a time alone.
const LIST_FORM: u8 = 2;

/// A session.
pub(crate) struct SessionRecord {
    pub identity: Identity,
    /// Below which its topics are; `None`: they are all that there are.
    pub mount: Option<Mount>,
    /// Those of its last connection.
    pub own_rights: Option<OwnRights>,
    pub expiry: Duration,
    /// When its last connection ended; [`Time::MAX`]: it is connected.
    pub absent_since: Time,
    pub will: Option<Box<Will>>,
    /// When the will is due, if its delay runs.
    pub will_due: Time,
}

/// A subscription of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubscriptionRecord {
    pub qos: Qos,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub id: Option<SubscriptionId>,
    /// Of a member of a queue, where it said so.
    pub prefetch: Option<u32>,
    pub ack_timeout: Option<Duration>,
}

/// A queue or share group.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ListRecord {
    /// `$queue/NAME` or `$share/GROUP/FILTER`.
    pub name: String,
    pub last_used: Time,
    /// Lists that some of its rows are in, by their kind.
    pub sources: Vec<(u8, ListId)>,
    /// Keys of a `[[queue]]` that it was given while the broker ran, as JSON.
    pub settings: Option<String>,
    /// Its members get nothing.
    pub paused: bool,
}

pub(crate) fn session_key(list: ListId) -> [u8; 9] {
    key(tag::SESSION, list)
}

pub(crate) fn list_key(list: ListId) -> [u8; 9] {
    key(tag::QUEUE, list)
}

/// `target`: the filter's text, or of a queue or share group its list.
pub(crate) fn subscription_key(session: ListId, target: Target<'_>) -> Vec<u8> {
    let mut bytes = key(tag::SUBSCRIPTION, session).to_vec();
    match target {
        Target::Filter(text) => {
            bytes.push(b'f');
            bytes.extend_from_slice(text.as_bytes());
        }
        Target::List(list) => {
            bytes.push(b'l');
            bytes.extend_from_slice(&list.0.to_be_bytes());
        }
    }
    bytes
}

/// What a session subscribed to, as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    Filter(&'a str),
    List(ListId),
}

/// The session and the target of a subscription's key.
pub(crate) fn parse_subscription_key(key: &[u8]) -> Option<(ListId, Target<'_>)> {
    let (session, rest) = parse_key(key)?;
    let (&kind, rest) = rest.split_first()?;
    let target = match kind {
        b'f' => Target::Filter(std::str::from_utf8(rest).ok()?),
        b'l' => Target::List(ListId(u64::from_be_bytes(rest.try_into().ok()?))),
        _ => return None,
    };
    Some((session, target))
}

/// The list that a key begins with, and the rest of it.
pub(crate) fn parse_key(key: &[u8]) -> Option<(ListId, &[u8])> {
    let (list, rest) = key.get(1..)?.split_first_chunk()?;
    Some((ListId(u64::from_be_bytes(*list)), rest))
}

/// The session and the packet id of a key.
pub(crate) fn parse_packet_key(key: &[u8]) -> Option<(ListId, PacketId)> {
    let (session, rest) = parse_key(key)?;
    let id = u16::from_be_bytes(rest.try_into().ok()?);
    Some((session, PacketId::new(id)?))
}

/// The topic is the key.
pub(crate) fn retained_key(topic: &[u8]) -> Vec<u8> {
    [&[tag::RETAINED], topic].concat()
}

fn key(tag: u8, list: ListId) -> [u8; 9] {
    let mut key = [tag; 9];
    key[1..].copy_from_slice(&list.0.to_be_bytes());
    key
}

impl SessionRecord {
    pub fn encode(
        (Client { identity, own }, mount): (Client<'_>, Option<&Mount>),
        expiry: Duration,
        absent_since: Time,
        (will, will_due): (Option<&Will>, Time),
    ) -> Vec<u8> {
        let mut out = Writer(vec![SESSION_FORM]);
        out.text(identity.client.as_str());
        out.optional(identity.user.as_deref(), |out, user| out.text(user));
        out.span(expiry);
        out.u64(absent_since.as_micros());
        out.optional(will, |out, will| {
            out.u64(will_due.as_micros());
            out.text(&will.topic);
            out.bytes(&will.properties);
            out.bytes(&will.payload);
            out.0.push(will.qos as u8 | u8::from(will.retain) << 2);
            out.span(will.delay);
            out.optional(will.expiry, |out, expiry| out.span(expiry));
        });
        out.optional(mount, |out, mount| out.text(mount.as_str()));
        out.optional(own, |out, own| {
            out.text(own.source());
            out.text(own.text());
        });
        out.0
    }

    /// `None`: it is none.
    pub fn decode(bytes: &[u8]) -> Option<SessionRecord> {
        let (&form, rest) = bytes.split_first()?;
        let mut from = Reader(rest);
        let client = ClientId::new(from.text()?);
        let user = from.optional(|from| Some(Arc::from(from.text()?)))?;
        let expiry = from.span()?;
        let absent_since = Time::from_micros(from.u64()?);
        let mut will_due = Time::MAX;
        let will = from.optional(|from| {
            will_due = Time::from_micros(from.u64()?);
            let topic = from.text()?.into();
            let properties = from.bytes()?.into();
            let payload = from.bytes()?.into();
            let flags = from.u8()?;
            Some(Box::new(Will {
                topic,
                properties,
                payload,
                qos: Qos::from_bits(flags & 3)?,
                retain: flags & 4 != 0,
                delay: from.span()?,
                expiry: from.optional(Reader::span)?,
            }))
        })?;
        let (mount, own_rights) = match form {
            FORM => (None, None),
            SESSION_FORM => (
                from.optional(|from| Mount::new(from.text()?))?,
                from.optional(|from| OwnRights::parse_text(from.text()?, from.text()?).ok())?,
            ),
            _ => return None,
        };
        Some(SessionRecord {
            identity: Identity { user, client },
            mount,
            own_rights,
            expiry,
            absent_since,
            will,
            will_due,
        })
    }
}

impl SubscriptionRecord {
    pub fn encode(self) -> Vec<u8> {
        let mut out = Writer(vec![FORM]);
        let flags = u8::from(self.no_local) << 2 | u8::from(self.retain_as_published) << 3;
        out.0.push(self.qos as u8 | flags);
        out.u64(self.id.map_or(0, SubscriptionId::get).into());
        out.optional(self.prefetch, |out, prefetch| out.u64(prefetch.into()));
        out.optional(self.ack_timeout, Writer::span);
        out.0
    }

    /// `None`: it is none.
    pub fn decode(bytes: &[u8]) -> Option<SubscriptionRecord> {
        let mut from = Reader::new(bytes)?;
        let flags = from.u8()?;
        Some(SubscriptionRecord {
            qos: Qos::from_bits(flags & 3)?,
            no_local: flags & 4 != 0,
            retain_as_published: flags & 8 != 0,
            id: SubscriptionId::new(u32::try_from(from.u64()?).ok()?),
            prefetch: from.optional(|from| u32::try_from(from.u64()?).ok())?,
            ack_timeout: from.optional(Reader::span)?,
        })
    }
}

impl ListRecord {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer(vec![LIST_FORM]);
        out.text(&self.name);
        out.u64(self.last_used.as_micros());
        out.optional(self.settings.as_deref(), |out, text| out.text(text));
        out.0.push(self.paused.into());
        for (kind, list) in &self.sources {
            out.0.push(*kind);
            out.u64(list.0);
        }
        out.0
    }

    /// `None`: it is none.
    pub fn decode(bytes: &[u8]) -> Option<ListRecord> {
        let (&form, rest) = bytes.split_first()?;
        let mut from = Reader(rest);
        let mut record = ListRecord {
            name: from.text()?.to_owned(),
            last_used: Time::from_micros(from.u64()?),
            settings: None,
            paused: false,
            sources: Vec::new(),
        };
        match form {
            FORM => {}
            LIST_FORM => {
                record.settings = from.optional(|from| from.text().map(str::to_owned))?;
                record.paused = from.u8()? != 0;
                while !from.0.is_empty() {
                    let (kind, list) = (from.u8()?, from.u64()?);
                    record.sources.push((kind, ListId(list)));
                }
            }
            _ => return None,
        }
        Some(record)
    }
}

/// Puts a value together.
struct Writer(Vec<u8>);

impl Writer {
    fn u64(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Packets are below 2^28 bytes.
    fn bytes(&mut self, bytes: &[u8]) {
        self.0
            .extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// In microseconds; what is too long for that is for ever.
    fn span(&mut self, span: Duration) {
        self.u64(u64::try_from(span.as_micros()).unwrap_or(u64::MAX));
    }

    fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Writer, T)) {
        self.0.push(value.is_some().into());
        if let Some(value) = value {
            write(self, value);
        }
    }
}

/// Takes a value apart.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Option<Reader<'a>> {
        let (&form, rest) = bytes.split_first()?;
        (form == FORM).then_some(Reader(rest))
    }

    fn u8(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn u64(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*bytes))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.0.split_first_chunk()?;
        let (bytes, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn span(&mut self) -> Option<Duration> {
        Some(match self.u64()? {
            u64::MAX => Duration::MAX,
            micros => Duration::from_micros(micros),
        })
    }

    fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Reader<'a>) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.u8()? {
            0 => Some(None),
            _ => read(self).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_read_as_it_was_written() {
        let will = Will {
            topic: "a/will".into(),
            properties: b"properties".as_slice().into(),
            payload: b"payload".as_slice().into(),
            qos: Qos::ExactlyOnce,
            retain: true,
            delay: Duration::from_secs(7),
            expiry: Some(Duration::from_secs(9)),
        };
        for user in [None, Some("")] {
            for (will, mount) in [(None, Mount::new("m/")), (Some(&will), None)] {
                let identity = Identity {
                    user: user.map(Arc::from),
                    client: ClientId::new("c\u{e9}"),
                };
                let (since, due) = (Time::from_micros(3), Time::from_micros(5));
                let whose = (Client::known(&identity), mount.as_ref());
                let bytes = SessionRecord::encode(whose, Duration::MAX, since, (will, due));
                let read = SessionRecord::decode(&bytes).expect("it was just written");
                assert_eq!((&read.identity, &read.mount), (&identity, &mount));
                assert_eq!((read.expiry, read.absent_since), (Duration::MAX, since));
                assert_eq!(format!("{:?}", read.will.as_deref()), format!("{will:?}"));
                assert_eq!(read.will_due, if will.is_some() { due } else { Time::MAX });
                for len in 0..bytes.len() {
                    assert!(SessionRecord::decode(&bytes[..len]).is_none(), "{len}");
                }
                assert_eq!(read.own_rights, None);
                // The form before.
                if mount.is_none() {
                    let old = [&[FORM], &bytes[1..bytes.len() - 2]].concat();
                    assert!(SessionRecord::decode(&old).is_some_and(|read| read.mount.is_none()));
                }
                let own = OwnRights::parse_text("s", r#"{"deny":{"publish":["a"]}}"#);
                let own = own.expect("they are valid");
                let who = Client {
                    own: Some(&own),
                    ..whose.0
                };
                let whose = (who, mount.as_ref());
                let bytes = SessionRecord::encode(whose, Duration::MAX, since, (will, due));
                let read = SessionRecord::decode(&bytes).expect("it was just written");
                assert_eq!((read.own_rights, read.mount), (Some(own), mount.clone()));
            }
        }
    }

    #[test]
    fn a_list_is_read_as_it_was_written() {
        for (settings, paused) in [(None, true), (Some(r#"{"prefetch":1}"#), false)] {
            let record = ListRecord {
                name: "$queue/\u{e9}".to_owned(),
                last_used: Time::from_micros(7),
                settings: settings.map(str::to_owned),
                paused,
                sources: vec![(9, ListId(1 << 40))],
            };
            let bytes = record.encode();
            assert_eq!(ListRecord::decode(&bytes), Some(record));
            let alone = bytes.len() - 9;
            for len in (0..bytes.len()).filter(|len| *len != alone) {
                assert_eq!(ListRecord::decode(&bytes[..len]), None, "{len}");
            }
        }
        // The form before.
        let old = [&[FORM, 1, 0, 0, 0, b'q'][..], &9_u64.to_le_bytes()].concat();
        let read = ListRecord::decode(&old).expect("it is read still");
        assert_eq!((&*read.name, read.last_used), ("q", Time::from_micros(9)));
        assert_eq!((read.settings, read.paused), (None, false));
    }

    #[test]
    fn a_subscription_is_read_as_it_was_written() {
        let plain = SubscriptionRecord {
            qos: Qos::AtMostOnce,
            no_local: false,
            retain_as_published: false,
            id: None,
            prefetch: None,
            ack_timeout: None,
        };
        let full = SubscriptionRecord {
            qos: Qos::ExactlyOnce,
            no_local: true,
            retain_as_published: true,
            id: SubscriptionId::new(SubscriptionId::MAX),
            prefetch: Some(65_535),
            ack_timeout: Some(Duration::MAX),
        };
        for record in [plain, full] {
            assert_eq!(SubscriptionRecord::decode(&record.encode()), Some(record));
        }
        let session = ListId(1 << 50);
        for target in [Target::Filter("a/+/\u{e9}"), Target::List(ListId(9))] {
            let key = subscription_key(session, target);
            assert_eq!(parse_subscription_key(&key), Some((session, target)));
        }
        assert_eq!(parse_subscription_key(b"f"), None);
    }
}
