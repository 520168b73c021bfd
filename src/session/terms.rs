//! What a connection and its client agreed on at CONNECT.
//!
//! The only place in the core that asks for the protocol's version; everybody
//! else asks the terms, and hands [`Wire`] on to the codec unseen. Also says
//! what the client is told of them: CONNACK, and why a connection ends.

use std::time::Duration;

use super::Close;
use crate::config::{Limits, SessionSettings};
use crate::message::{ClientId, Qos};
use crate::protocol::{
    Ack, AckKind, Connack, Connect, Disconnect, Packet, PacketType, Properties, PropertiesBuf,
    Property, REMAINING_BYTES_MAX, ReasonCode, Version, encode,
};

/// The format of a connection's packets, for the codec alone.
pub use crate::protocol::Version as Wire;

/// The terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    pub wire: Wire,
    // As MQTT 5 says it; in each connection and session, so kept small.
    session_expiry_secs: u32,
    /// Whether CONNECT asked for such a time, whatever it got.
    pub asked_to_persist: bool,
    /// Messages of QoS 1 and 2 that may be on their way to the client
    /// [MQTT-3.3.4-9].
    pub inflight_max: u16,
    /// QoS 2 messages that the client may have sent and not released.
    pub receive_max: u16,
    // 0: none.
    keep_alive_secs: u16,
    /// Whether answers carry reason codes and properties, so that a refused
    /// PUBLISH can be told so and a connection be ended with a word. Otherwise
    /// such a PUBLISH is held back, and the connection just closed.
    pub has_reasons: bool,
    /// Whether the client wants to read why, in words (3.1.2.11.7).
    pub wants_words: bool,
    /// The largest packet that the client takes, in bytes [MQTT-3.1.2-24].
    packet_bytes_max: u32,
    /// Topic aliases that the client may use, and that it takes.
    pub topic_aliases_in: u16,
    pub topic_aliases_out: u16,
    /// How much of the beginning of topics the client does not see: its mount
    /// point.
    pub mount_bytes: u16,
}

/// The largest packet that there can be: a first byte, the longest length, and
/// what that can say.
const PACKET_BYTES_MAX: u32 = 1 + 4 + REMAINING_BYTES_MAX as u32;
/// The longest interval that the protocol can say, which is for ever.
const FOR_EVER_SECS: u32 = u32::MAX;
/// The longest text of a property (1.5.4).
const FIELD_BYTES_MAX: usize = 65_535;

impl Terms {
    /// The terms that `connect` gets.
    ///
    /// # Errors
    /// Why it gets none, for the CONNACK.
    pub fn agree(
        connect: &Connect<'_>,
        limits: &Limits,
        settings: &SessionSettings,
    ) -> Result<Terms, Close> {
        // [MQTT-3.1.3-8], in 3.1.1 also [MQTT-3.1.3-7]; 3.1 knows no empty id
        // at all. MQTT 5 makes one up also for a session that may be resumed.
        let may_be_empty = match connect.version {
            Version::V3_1 => false,
            Version::V3_1_1 => connect.clean_start,
            Version::V5 => true,
        };
        let invalid = |why| Close::new(ReasonCode::ClientIdentifierNotValid, why);
        if connect.client_id.is_empty() && !may_be_empty {
            return Err(invalid(
                "a client id is missing; without one, ask for a clean session",
            ));
        }
        if connect.client_id.len() > limits.client_id_bytes_max {
            return Err(invalid("the client id is longer than client_id_bytes_max"));
        }
        let keep_alive_secs = match connect.version {
            Version::V5 => keep_alive_secs(connect, settings),
            _ => connect.keep_alive_secs,
        };
        let mut terms = Terms {
            wire: connect.version,
            session_expiry_secs: match (connect.version, connect.clean_start) {
                (Version::V5, _) | (_, true) => 0, // 3.1.1: [MQTT-3.1.2-6]
                (_, false) => secs_of(settings.expiry_default),
            },
            asked_to_persist: false,
            inflight_max: limits.inflight_max,
            receive_max: u16::MAX,
            keep_alive_secs,
            has_reasons: false,
            wants_words: false,
            packet_bytes_max: PACKET_BYTES_MAX,
            topic_aliases_in: 0,
            topic_aliases_out: 0,
            mount_bytes: 0,
        };
        if connect.version != Version::V5 {
            return Ok(terms);
        }
        terms.has_reasons = true;
        terms.wants_words = wants_words(connect);
        terms.receive_max = limits.receive_max;
        terms.topic_aliases_in = limits.topic_aliases_max;
        for property in connect.properties.iter() {
            match property {
                Property::SessionExpiryInterval(secs) => {
                    terms.asked_to_persist = secs > 0;
                    terms.session_expiry_secs = session_expiry_secs(secs, settings);
                }
                Property::ReceiveMaximum(max) => {
                    terms.inflight_max = terms.inflight_max.min(max.get());
                }
                Property::MaximumPacketSize(max) => {
                    terms.packet_bytes_max = PACKET_BYTES_MAX.min(max.get());
                }
                Property::TopicAliasMaximum(max) => {
                    terms.topic_aliases_out = max.min(limits.topic_aliases_max);
                }
                _ => {}
            }
        }
        Ok(terms)
    }

    /// Of a session whose client has not come back since the broker started.
    pub fn of_absent(session_expiry: Duration, limits: &Limits) -> Terms {
        Terms {
            wire: Version::V3_1_1, // Nothing is written before a CONNECT says.
            session_expiry_secs: secs_of(session_expiry),
            asked_to_persist: true,
            inflight_max: limits.inflight_max,
            receive_max: u16::MAX,
            keep_alive_secs: 0,
            has_reasons: false,
            wants_words: false,
            packet_bytes_max: PACKET_BYTES_MAX,
            topic_aliases_in: 0,
            topic_aliases_out: 0,
            mount_bytes: 0,
        }
    }

    /// How long the session outlives the connection; zero: not at all;
    /// [`Duration::MAX`]: for ever.
    pub fn session_expiry(&self) -> Duration {
        match self.session_expiry_secs {
            FOR_EVER_SECS => Duration::MAX,
            secs => Duration::from_secs(secs.into()),
        }
    }

    /// The time without a packet after which the client counts as lost, 1.5
    /// times its keep alive [MQTT-3.1.2-22]; `None`: never.
    pub fn silence_max(&self) -> Option<Duration> {
        let keep_alive = Duration::from_secs(self.keep_alive_secs.into());
        (!keep_alive.is_zero()).then_some(keep_alive * 3 / 2)
    }

    /// The protocol's version, for people.
    pub fn version(&self) -> &'static str {
        version(self.wire)
    }

    /// The keep alive that counts, in seconds; 0: none.
    pub fn keep_alive_secs(&self) -> u16 {
        self.keep_alive_secs
    }

    /// Whether the session may be resumed by a later connection.
    pub fn persists(&self) -> bool {
        self.session_expiry_secs > 0
    }

    /// The client sets another expiry when it leaves (3.14.2.2.2).
    ///
    /// # Errors
    /// The session was to end with its connection.
    pub fn expire_after(&mut self, secs: u32, settings: &SessionSettings) -> Result<(), Close> {
        if !self.asked_to_persist && secs > 0 {
            let why = "the session ends with its connection, as CONNECT said: DISCONNECT cannot \
                       make it longer";
            return Err(Close::new(ReasonCode::ProtocolError, why));
        }
        self.session_expiry_secs = session_expiry_secs(secs, settings);
        Ok(())
    }

    /// The most that a member of a work queue is granted: what a session that
    /// ends with its connection has at QoS 2 could never be decided.
    pub fn queue_qos_max(&self) -> Qos {
        match self.persists() {
            true => Qos::ExactlyOnce,
            false => Qos::AtLeastOnce,
        }
    }

    /// Whether a packet of so many bytes can be sent [MQTT-3.1.2-24].
    pub fn takes(&self, packet_bytes: usize) -> bool {
        packet_bytes <= self.packet_bytes_max as usize
    }

    /// Whether every packet can be sent that the broker takes from others:
    /// those leave room for a head.
    pub fn takes_any(&self) -> bool {
        self.packet_bytes_max == PACKET_BYTES_MAX
    }

    /// Appends an acknowledgement, with what it tells where the client wants
    /// that and it fits [MQTT-3.4.2-3], [MQTT-3.5.2-3].
    pub fn acknowledge(
        &self,
        kind: AckKind,
        packet_id: crate::message::PacketId,
        reason: ReasonCode,
        told: &PropertiesBuf,
        out: &mut Vec<u8>,
    ) {
        self.append_explained(told, out, |properties| {
            let ack = Ack {
                packet_id,
                reason,
                properties,
            };
            match kind {
                AckKind::Puback => Packet::Puback(ack),
                AckKind::Pubrec => Packet::Pubrec(ack),
                AckKind::Pubrel => Packet::Pubrel(ack),
                AckKind::Pubcomp => Packet::Pubcomp(ack),
            }
        });
    }

    /// Appends an acknowledgement that refuses, and says why where the client
    /// wants to know and it fits [MQTT-3.4.2-2], [MQTT-3.5.2-2].
    pub fn refuse(
        &self,
        kind: AckKind,
        packet_id: crate::message::PacketId,
        close: &Close,
        out: &mut Vec<u8>,
    ) {
        let mut words = PropertiesBuf::new();
        if self.wants_words {
            words.push(Property::ReasonString(&close.why));
        }
        self.acknowledge(kind, packet_id, close.reason, &words, out);
    }

    /// Appends the DISCONNECT that tells the client why its connection ends,
    /// where there is such a thing [MQTT-3.14.2-3].
    pub fn disconnect(&self, close: &Close, settings: &SessionSettings, out: &mut Vec<u8>) {
        if !self.has_reasons {
            return;
        }
        let (reason, reference) = referred(close.reason, settings);
        let reason = match reason.fits(PacketType::Disconnect) {
            true => reason,
            false => ReasonCode::UnspecifiedError,
        };
        let mut words = PropertiesBuf::new();
        if self.wants_words {
            words.push(Property::ReasonString(&close.why));
        }
        if let Some(reference) = reference {
            words.push(Property::ServerReference(reference));
        }
        self.append_explained(&words, out, |properties| {
            Packet::Disconnect(Disconnect { reason, properties })
        });
    }

    /// Appends a packet with properties that only explain: without them if it
    /// is too large with them, and not at all if it is too large even so.
    pub fn append_explained<'p>(
        &self,
        words: &'p PropertiesBuf,
        out: &mut Vec<u8>,
        packet: impl Fn(Properties<'p>) -> Packet<'p>,
    ) -> bool {
        [words.as_properties(), Properties::EMPTY]
            .into_iter()
            .any(|properties| self.append(&packet(properties), out))
    }

    /// Appends a packet, if the client takes one of its size; whether it does.
    pub fn append(&self, packet: &Packet<'_>, out: &mut Vec<u8>) -> bool {
        let before = out.len();
        encode(packet, self.wire, out);
        let takes = self.takes(out.len() - before);
        if !takes {
            out.truncate(before);
        }
        takes
    }
}

/// The protocol's version, for people.
pub fn version(wire: Wire) -> &'static str {
    match wire {
        Version::V3_1 => "3.1",
        Version::V3_1_1 => "3.1.1",
        Version::V5 => "5.0",
    }
}

/// CONNACK of an accepted CONNECT, for the first bytes of its connection.
pub struct Accepted<'a> {
    pub connect: &'a Connect<'a>,
    pub terms: Terms,
    /// Also that which the broker made up.
    pub client: &'a ClientId,
    pub limits: &'a Limits,
    pub settings: &'a SessionSettings,
    /// What enhanced authentication has to say last (4.12).
    pub authentication: Option<(&'a str, &'a [u8])>,
}

impl Accepted<'_> {
    /// The CONNACK, encoded.
    pub fn connack(&self, session_present: bool) -> Vec<u8> {
        let properties = self.properties();
        let connack = Connack {
            session_present,
            reason: ReasonCode::Success, // [MQTT-3.1.4-5]
            properties: properties.as_properties(),
        };
        let mut out = Vec::new();
        encode(&Packet::Connack(connack), self.terms.wire, &mut out);
        out
    }

    /// What the client has to know beyond yes (3.2.2.3). What the broker can
    /// do that it could also leave out is not mentioned: it can do all.
    fn properties(&self) -> PropertiesBuf {
        let mut properties = PropertiesBuf::new();
        let (connect, limits) = (self.connect, self.limits);
        if connect.version != Version::V5 {
            return properties;
        }
        let mut asked_expiry = 0;
        let mut wants_response_information = false;
        for property in connect.properties.iter() {
            match property {
                Property::SessionExpiryInterval(secs) => asked_expiry = secs,
                Property::RequestResponseInformation(wants) => wants_response_information = wants,
                _ => {}
            }
        }
        let expiry = self.terms.session_expiry_secs;
        if expiry != asked_expiry {
            properties.push(Property::SessionExpiryInterval(expiry));
        }
        if let Some(max) = std::num::NonZeroU16::new(self.terms.receive_max) {
            properties.push(Property::ReceiveMaximum(max));
        }
        let packet_bytes_max = u32::try_from(limits.packet_bytes_max).ok();
        if let Some(max) = packet_bytes_max.and_then(std::num::NonZeroU32::new) {
            properties.push(Property::MaximumPacketSize(max));
        }
        if connect.client_id.is_empty() {
            // [MQTT-3.2.2-16], [MQTT-3.1.3-7]
            properties.push(Property::AssignedClientIdentifier(self.client.as_str()));
        }
        if limits.topic_aliases_max > 0 {
            properties.push(Property::TopicAliasMaximum(limits.topic_aliases_max));
        }
        let keep_alive = keep_alive_secs(connect, self.settings);
        if keep_alive != connect.keep_alive_secs {
            properties.push(Property::ServerKeepAlive(keep_alive));
        }
        // [MQTT-3.1.2-28]; a client id that would make a filter of it is none
        // to make topics of.
        let template = &self.settings.response_information;
        if wants_response_information
            && !template.is_empty()
            && !self.client.as_str().contains(['+', '#', '/'])
        {
            let information = template.replace("%c", self.client.as_str());
            if information.len() <= FIELD_BYTES_MAX {
                properties.push(Property::ResponseInformation(&information));
            }
        }
        if let Some((method, data)) = self.authentication {
            properties.push(Property::AuthenticationMethod(method)); // [MQTT-4.12.0-5]
            if !data.is_empty() {
                properties.push(Property::AuthenticationData(data));
            }
        }
        properties
    }
}

/// The CONNACK that refuses `connect`; `None`: it is closed without one.
///
/// Where the refusal says that the client had better go elsewhere, so it does.
pub fn refusal(
    connect: &Connect<'_>,
    close: &Close,
    settings: &SessionSettings,
) -> Option<Vec<u8>> {
    let (reason, reference) = referred(close.reason, settings);
    if !reason.fits_connack(connect.version) {
        return None;
    }
    let wants_words = connect.version == Version::V5 && wants_words(connect);
    let mut words = PropertiesBuf::new();
    if wants_words {
        words.push(Property::ReasonString(&close.why));
    }
    if connect.version == Version::V5
        && let Some(reference) = reference
    {
        words.push(Property::ServerReference(reference));
    }
    let packet_bytes_max = connect
        .properties
        .iter()
        .find_map(|property| match property {
            Property::MaximumPacketSize(max) => Some(max.get() as usize),
            _ => None,
        });
    let connack = |properties| {
        let mut out = Vec::new();
        let connack = Connack {
            session_present: false, // [MQTT-3.2.2-6], in 3.1.1 [MQTT-3.2.2-4]
            reason,
            properties,
        };
        encode(&Packet::Connack(connack), connect.version, &mut out);
        out
    };
    // [MQTT-3.2.2-19]
    let fits = |bytes: &Vec<u8>| packet_bytes_max.is_none_or(|max| bytes.len() <= max);
    let full = Some(connack(words.as_properties())).filter(fits);
    full.or_else(|| Some(connack(Properties::EMPTY)).filter(fits))
}

/// Where there is another server, a full or stopping one refers to it (4.11).
fn referred(reason: ReasonCode, settings: &SessionSettings) -> (ReasonCode, Option<&str>) {
    if settings.server_reference.is_empty() {
        return (reason, None);
    }
    match reason {
        ReasonCode::UseAnotherServer | ReasonCode::ServerShuttingDown => (
            ReasonCode::UseAnotherServer,
            Some(&settings.server_reference),
        ),
        ReasonCode::ServerMoved => (reason, Some(&settings.server_reference)),
        _ => (reason, None),
    }
}

/// The keep alive that counts: the client's, or a shorter one of the server's
/// [MQTT-3.2.2-21], [MQTT-3.2.2-22].
fn keep_alive_secs(connect: &Connect<'_>, settings: &SessionSettings) -> u16 {
    let asked = connect.keep_alive_secs;
    match settings.keep_alive_secs_max {
        Some(max) if asked == 0 || asked > max.get() => max.get(),
        _ => asked,
    }
}

fn session_expiry_secs(asked: u32, settings: &SessionSettings) -> u32 {
    asked.min(secs_of(settings.expiry_max))
}

/// Whole seconds, rounded up: zero alone is none.
fn secs_of(expiry: Duration) -> u32 {
    let secs = expiry.as_nanos().div_ceil(1_000_000_000);
    u32::try_from(secs).unwrap_or(FOR_EVER_SECS)
}

fn wants_words(connect: &Connect<'_>) -> bool {
    !connect
        .properties
        .iter()
        .any(|property| property == Property::RequestProblemInformation(false))
}
