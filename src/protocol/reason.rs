//! Which reason code may stand in which packet (MQTT 5, 2.4), and what is
//! left of them before MQTT 5.

use super::decode::DecodeError;
use super::packet::{PacketType, ReasonCode, Version};

impl ReasonCode {
    /// The code that `byte` is in a packet of that type.
    pub(super) fn from_wire(
        byte: u8,
        packet: PacketType,
        version: Version,
    ) -> Result<ReasonCode, DecodeError> {
        let code = match (version, packet) {
            (Version::V5, _) => {
                BY_BYTE[usize::from(byte)].filter(|(_, packets)| packets & packet.bit() != 0)
            }
            (_, PacketType::Connack) => RETURN_CODES.get(usize::from(byte)).map(|&code| (code, 0)),
            // A SUBACK of 3.1.1 grants a QoS or fails with 0x80 [MQTT-3.9.3-2].
            _ => BY_BYTE[usize::from(byte)].filter(|_| matches!(byte, 0..=2 | 0x80)),
        };
        match code {
            Some((code, _)) => Ok(code),
            None => Err(DecodeError::protocol(
                "the reason code is none that this packet may have",
            )),
        }
    }

    /// Its name, as in `not-authorized`.
    pub fn word(self) -> String {
        super::word(&format!("{self:?}"))
    }

    /// Whether MQTT 5 lets it stand in a packet of that type (2.4).
    pub fn fits(self, packet: PacketType) -> bool {
        BY_BYTE[self as usize].is_some_and(|(_, packets)| packets & packet.bit() != 0)
    }

    /// Whether a CONNACK of that version can say it. Otherwise the connection
    /// is closed without one [MQTT-3.2.2-6].
    pub fn fits_connack(self, version: Version) -> bool {
        match version {
            Version::V5 => self.fits(PacketType::Connack),
            _ => self != ReasonCode::TopicNameInvalid,
        }
    }

    /// The byte that says it in a packet of that type.
    pub(super) fn to_wire(self, packet: PacketType, version: Version) -> u8 {
        match (version, packet) {
            (Version::V5, _) => self as u8,
            (_, PacketType::Connack) => self.to_return_code(),
            // MQTT 3.1 has no failure in its SUBACK, but 0x80 is honest to
            // those who know it, and QoS 0 to those who read two bits.
            _ if self.is_failure() => 0x80,
            _ => self as u8,
        }
    }

    /// The CONNACK return code of 3.1.1 (3.2.2.3) nearest to it.
    fn to_return_code(self) -> u8 {
        let code = match self {
            ReasonCode::Banned => ReasonCode::NotAuthorized,
            ReasonCode::BadAuthenticationMethod => ReasonCode::BadUserNameOrPassword,
            code => code,
        };
        // Whatever else keeps a client out passes, or needs a person.
        RETURN_CODES
            .iter()
            .position(|&known| known == code)
            .unwrap_or(3) as u8
    }
}

/// The CONNACK return codes of 3.1 and 3.1.1, by their number.
const RETURN_CODES: [ReasonCode; 6] = [
    ReasonCode::Success,
    ReasonCode::UnsupportedProtocolVersion,
    ReasonCode::ClientIdentifierNotValid,
    ReasonCode::ServerUnavailable,
    ReasonCode::BadUserNameOrPassword,
    ReasonCode::NotAuthorized,
];

/// The table of 2.4: the packets that each code may stand in.
const REASONS: [(ReasonCode, u16); 43] = {
    use ReasonCode::*;
    const CONNACK: u16 = PacketType::Connack.bit();
    const PUBACK: u16 = PacketType::Puback.bit() | PacketType::Pubrec.bit();
    const PUBREL: u16 = PacketType::Pubrel.bit() | PacketType::Pubcomp.bit();
    const SUBACK: u16 = PacketType::Suback.bit();
    const UNSUBACK: u16 = PacketType::Unsuback.bit();
    const DISCONNECT: u16 = PacketType::Disconnect.bit();
    const AUTH: u16 = PacketType::Auth.bit();
    [
        (
            Success,
            CONNACK | PUBACK | PUBREL | SUBACK | UNSUBACK | DISCONNECT | AUTH,
        ),
        (GrantedQos1, SUBACK),
        (GrantedQos2, SUBACK),
        (DisconnectWithWill, DISCONNECT),
        (NoMatchingSubscribers, PUBACK),
        (NoSubscriptionExisted, UNSUBACK),
        (ContinueAuthentication, AUTH),
        (ReAuthenticate, AUTH),
        (
            UnspecifiedError,
            CONNACK | PUBACK | SUBACK | UNSUBACK | DISCONNECT,
        ),
        (MalformedPacket, CONNACK | DISCONNECT),
        (ProtocolError, CONNACK | DISCONNECT),
        (
            ImplementationSpecificError,
            CONNACK | PUBACK | SUBACK | UNSUBACK | DISCONNECT,
        ),
        (UnsupportedProtocolVersion, CONNACK),
        (ClientIdentifierNotValid, CONNACK),
        (BadUserNameOrPassword, CONNACK),
        (
            NotAuthorized,
            CONNACK | PUBACK | SUBACK | UNSUBACK | DISCONNECT,
        ),
        (ServerUnavailable, CONNACK),
        (ServerBusy, CONNACK | DISCONNECT),
        (Banned, CONNACK),
        (ServerShuttingDown, DISCONNECT),
        (BadAuthenticationMethod, CONNACK | DISCONNECT),
        (KeepAliveTimeout, DISCONNECT),
        (SessionTakenOver, DISCONNECT),
        (TopicFilterInvalid, SUBACK | UNSUBACK | DISCONNECT),
        (TopicNameInvalid, CONNACK | PUBACK | DISCONNECT),
        (PacketIdentifierInUse, PUBACK | SUBACK | UNSUBACK),
        (PacketIdentifierNotFound, PUBREL),
        (ReceiveMaximumExceeded, DISCONNECT),
        (TopicAliasInvalid, DISCONNECT),
        (PacketTooLarge, CONNACK | DISCONNECT),
        (MessageRateTooHigh, DISCONNECT),
        (QuotaExceeded, CONNACK | PUBACK | SUBACK | DISCONNECT),
        (AdministrativeAction, DISCONNECT),
        (PayloadFormatInvalid, CONNACK | PUBACK | DISCONNECT),
        (RetainNotSupported, CONNACK | DISCONNECT),
        (QosNotSupported, CONNACK | DISCONNECT),
        (UseAnotherServer, CONNACK | DISCONNECT),
        (ServerMoved, CONNACK | DISCONNECT),
        (SharedSubscriptionsNotSupported, SUBACK | DISCONNECT),
        (ConnectionRateExceeded, CONNACK | DISCONNECT),
        (MaximumConnectTime, DISCONNECT),
        (SubscriptionIdentifiersNotSupported, SUBACK | DISCONNECT),
        (WildcardSubscriptionsNotSupported, SUBACK | DISCONNECT),
    ]
};

/// [`REASONS`] by their byte.
static BY_BYTE: [Option<(ReasonCode, u16)>; 256] = {
    let mut by_byte = [None; 256];
    let mut row = 0;
    while row < REASONS.len() {
        by_byte[REASONS[row].0 as usize] = Some(REASONS[row]);
        row += 1;
    }
    by_byte
};
