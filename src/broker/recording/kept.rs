//! What is kept of a packet: as it would stand on the wire, but for its secrets
//! and for what of its payload nobody asked for.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Direction;
use crate::message::{Identity, Time};
use crate::protocol::{
    Auth, Connack, Connect, Packet, Properties, PropertiesBuf, Property, Publish, Will, encode,
};
use crate::session::Wire;

/// A packet that was recorded.
pub(super) struct Record {
    pub at: Time,
    pub direction: Direction,
    pub wire: Wire,
    pub identity: Arc<Identity>,
    /// `None`: it came by a Unix socket.
    pub address: Option<SocketAddr>,
    /// Of a PUBLISH that names its topic by an alias alone.
    pub topic: Option<Box<str>>,
    /// How long the payload was, of a PUBLISH or a will.
    pub payload_bytes: u32,
    pub content: Content,
}

pub(super) enum Content {
    /// Encoded.
    Packet(Box<[u8]>),
    /// None that could be read: what was wrong with it.
    Malformed(&'static str),
}

impl Record {
    /// What it takes of memory, at most: what its connection has of it too is
    /// counted here.
    pub fn cost_bytes(&self) -> usize {
        let content = match &self.content {
            Content::Packet(bytes) => bytes.len(),
            Content::Malformed(_) => 0,
        };
        let identity = &self.identity;
        let names = identity.client.as_str().len() + identity.user.as_deref().map_or(0, str::len);
        let topic = self.topic.as_ref().map_or(0, |topic| topic.len());
        // With the counts of the `Arc`, and its place in the list.
        size_of::<Record>() + 3 * size_of::<usize>() + content + names + topic
    }
}

/// The length of the packet's payload, or of its will's.
pub(super) fn payload_bytes(packet: &Packet<'_>) -> u32 {
    let len = match packet {
        Packet::Publish(publish) => publish.payload.len(),
        Packet::Connect(connect) => connect.will.as_ref().map_or(0, |will| will.payload.len()),
        _ => 0,
    };
    len as u32 // below 2^28 (2.2.3)
}

/// The packet, encoded, without what is secret, and with so much of its payload.
pub(super) fn content(packet: &Packet<'_>, wire: Wire, payload_bytes_max: usize) -> Content {
    let cut = |payload: &[u8]| payload.len().min(payload_bytes_max);
    let mut bytes = Vec::new();
    let open;
    match packet {
        Packet::Publish(publish) => {
            let payload = &publish.payload[..cut(publish.payload)];
            let publish = Publish {
                payload,
                ..publish.clone()
            };
            encode(&Packet::Publish(publish), wire, &mut bytes);
        }
        Packet::Connect(connect) => {
            open = without_secrets(connect.properties);
            let will = connect.will.as_ref().map(|will| Will {
                payload: &will.payload[..cut(will.payload)],
                ..will.clone()
            });
            let connect = Connect {
                properties: open.as_properties(),
                will,
                // That there was one is no secret.
                password: connect.password.map(|_| &[][..]),
                ..connect.clone()
            };
            encode(&Packet::Connect(connect), wire, &mut bytes);
        }
        Packet::Connack(connack) => {
            open = without_secrets(connack.properties);
            let connack = Connack {
                properties: open.as_properties(),
                ..connack.clone()
            };
            encode(&Packet::Connack(connack), wire, &mut bytes);
        }
        Packet::Auth(auth) => {
            open = without_secrets(auth.properties);
            let auth = Auth {
                properties: open.as_properties(),
                ..auth.clone()
            };
            encode(&Packet::Auth(auth), wire, &mut bytes);
        }
        packet => encode(packet, wire, &mut bytes),
    }
    Content::Packet(bytes.into_boxed_slice())
}

/// The properties, with nothing in the place of what is said to authenticate.
fn without_secrets(properties: Properties<'_>) -> PropertiesBuf {
    let mut open = PropertiesBuf::new();
    for property in properties.iter() {
        open.push(match property {
            Property::AuthenticationData(_) => Property::AuthenticationData(&[]),
            property => property,
        });
    }
    open
}
