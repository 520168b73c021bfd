//! Bytes to packets and back: MQTT 3.1, 3.1.1 and 5.0.
//!
//! The only place that knows the wire formats. Packets have the shape of
//! MQTT 5, with the properties inside; decoding an older version leaves them
//! empty, encoding it leaves them out. Never looks at a socket or a session:
//! what a packet means is `session`'s and `broker`'s.

mod cursor;
mod decode;
mod encode;
mod packet;
mod property;
mod reason;

pub use crate::message::SubscriptionId;
pub use decode::{DecodeError, decode, decode_connect};
pub use encode::{
    AckKind, PublishHead, REMAINING_BYTES_MAX, encode, encode_ack, encode_publish_head,
};
pub use packet::*;
pub use property::{PropertiesBuf, Property, encode_message_expiry};

/// `NotAuthorized` as `not-authorized`.
fn word(camel: &str) -> String {
    let mut word = String::with_capacity(camel.len() + 4);
    for char in camel.chars() {
        if char.is_uppercase() && !word.is_empty() {
            word.push('-');
        }
        word.extend(char.to_lowercase());
    }
    word
}
