//! What a connection and its client agreed on at CONNECT.
//!
//! The only place in the core that asks for the protocol's version; everybody
//! else asks the terms.

use std::time::Duration;

use crate::config::{Limits, SessionSettings};
use crate::message::Qos;
use crate::protocol::{Connect, ReasonCode, Version};

/// The terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// For the codec alone.
    pub wire: Version,
    /// How long the session outlives the connection; zero: not at all.
    pub session_expiry: Duration,
    /// Messages of QoS 1 and 2 that may be on their way to the client.
    pub inflight_max: u16,
    /// Seconds without a packet after which the client counts as lost, 1.5
    /// times its keep alive [MQTT-3.1.2-24]; `None`: never.
    pub silence_max: Option<Duration>,
    /// Whether a refused PUBLISH can be told so; otherwise it is held back.
    pub refusals: bool,
}

impl Terms {
    /// The terms that `connect` gets, or why none.
    pub fn agree(
        connect: &Connect<'_>,
        limits: &Limits,
        settings: &SessionSettings,
    ) -> Result<Terms, ReasonCode> {
        if connect.version == Version::V5 {
            return Err(ReasonCode::UnsupportedProtocolVersion); // [MQTT-3.1.2-2]
        }
        // [MQTT-3.1.3-7], [MQTT-3.1.3-8]; 3.1 knows no empty id at all.
        if connect.client_id.is_empty()
            && (!connect.clean_start || connect.version == Version::V3_1)
        {
            return Err(ReasonCode::ClientIdentifierNotValid);
        }
        if connect.client_id.len() > limits.client_id_bytes_max {
            return Err(ReasonCode::ClientIdentifierNotValid); // [MQTT-3.1.3-9]
        }
        let keep_alive = Duration::from_secs(connect.keep_alive_secs.into());
        Ok(Terms {
            wire: connect.version,
            session_expiry: match connect.clean_start {
                true => Duration::ZERO, // [MQTT-3.1.2-6]
                false => settings.expiry_default,
            },
            inflight_max: limits.inflight_max,
            silence_max: (!keep_alive.is_zero()).then_some(keep_alive * 3 / 2),
            refusals: false,
        })
    }

    /// Whether the session may be resumed by a later connection.
    pub fn persists(&self) -> bool {
        !self.session_expiry.is_zero()
    }

    /// The most that a member of a work queue is granted: what a session that
    /// ends with its connection has at QoS 2 could never be decided.
    pub fn queue_qos_max(&self) -> Qos {
        match self.persists() {
            true => Qos::ExactlyOnce,
            false => Qos::AtLeastOnce,
        }
    }
}
