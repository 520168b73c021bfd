//! What a hostile client sends, as bytes, and what comes of it.
//!
//! One table for all who drive it: a broker in one thread (`tests/world`), which
//! gets each row whole, in two parts cut at every offset, and byte by byte; and a
//! broker behind sockets, by each transport (`tests/sockets`). docs/security.md says
//! what the numbers of the rows stand for.

use rotamq::protocol::{Packet, ReasonCode, Version, decode};

use crate::bytes::{ALL, BEFORE_5, ONLY_3_1, ONLY_3_1_1, ONLY_5, SINCE_3_1_1, wire};

/// One row.
pub struct Case {
    /// Its class in docs/security.md.
    pub id: &'static str,
    pub name: &'static str,
    pub versions: &'static [Version],
    pub when: When,
    pub wire: &'static str,
    pub expect: Expect,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// In the place of a CONNECT.
    First,
    /// After a CONNECT that was accepted.
    Later,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// Closed without a word.
    Silence,
    /// Closed with a CONNACK of this return code, in the form of 3.1.1.
    Code(u8),
    /// MQTT 5 is told this reason, by CONNACK or DISCONNECT; before it there is
    /// no word for it. Then it is closed.
    Reason(ReasonCode),
    /// The connection goes on, and this is the answer; none, if it is empty.
    Answer(&'static str),
    /// Accepted, and the connection goes on.
    LetIn,
}

impl Case {
    /// The row, as it says of itself that it failed.
    pub fn title(&self, version: Version) -> String {
        format!("{} {} ({version:?})", self.id, self.name)
    }

    pub fn bytes(&self, version: Version) -> Vec<u8> {
        wire(self.wire, version)
    }

    /// Whether the connection is over.
    pub fn closes(&self) -> bool {
        !matches!(self.expect, Expect::Answer(_) | Expect::LetIn)
    }

    /// What is wrong with what the broker said since CONNACK, or at all, before
    /// it closed or all was handled.
    pub fn complaint(&self, version: Version, said: &[u8]) -> Option<String> {
        let reason = match decode(said, Version::V5, usize::MAX) {
            Ok(Some((packet, len))) if len == said.len() => match (self.when, packet) {
                (When::First, Packet::Connack(connack)) => Some(connack.reason),
                (When::Later, Packet::Disconnect(disconnect)) => Some(disconnect.reason),
                _ => None,
            },
            _ => None,
        };
        let is_right = match self.expect {
            Expect::Silence => said.is_empty(),
            Expect::Code(code) => said == [0x20, 2, 0, code],
            Expect::Reason(_) if version != Version::V5 => said.is_empty(),
            Expect::Reason(expected) => reason == Some(expected),
            Expect::Answer(answer) => said == wire(answer, version),
            Expect::LetIn => said.len() > 3 && said[0] == 0x20 && said[3] == 0,
        };
        (!is_right).then(|| {
            format!(
                "{}: expected {:?}, got {said:02X?}",
                self.title(version),
                self.expect
            )
        })
    }
}

/// A CONNECT that is accepted. MQTT 5 wants no words with refusals.
pub fn connect(version: Version) -> Vec<u8> {
    let text = match version {
        Version::V5 => "10 # N 02 0000 02 17 00 0007 'hostile'",
        _ => "10 # N 02 0000 0007 'hostile'",
    };
    wire(text, version)
}

/// What is sent behind what closes a connection: nobody may ever see it.
pub fn smuggled(version: Version) -> Vec<u8> {
    let packets = [
        "10 # N 06 0000 P 0007 'hostile' P 0006 'canary' 0008 'smuggled'",
        "82 # 0063 P 0001 '#' 00",
        "82 # 0063 P 000C '$queue/smugg' 00",
        "31 # 0006 'canary' P 'smuggled'",
    ];
    packets.map(|packet| wire(packet, version)).concat()
}

/// The rows, each with a version that it is for.
pub fn cases() -> impl Iterator<Item = (Case, Version)> {
    rows().into_iter().flat_map(|row| {
        let versions = row.versions;
        versions
            .iter()
            .map(move |version| (Case { ..row }, *version))
    })
}

#[rustfmt::skip]
fn rows() -> Vec<Case> {
    use Expect::*;
    use ReasonCode::*;
    let first = |id, name, versions, wire, expect| Case { id, name, versions, when: When::First, wire, expect };
    let later = |id, name, versions, wire, expect| Case { id, name, versions, when: When::Later, wire, expect };
    vec![
        // A: packets.
        first("A01", "a remaining length of five bytes", ALL, "10 FF FF FF FF 7F", Silence),
        later("A01", "a remaining length of five bytes", ALL, "30 80 80 80 80 01 'xxxx'", Reason(MalformedPacket)),
        later("A01", "a remaining length that never ends", ALL, "30 FF FF FF FF FF FF FF", Reason(MalformedPacket)),
        later("A01", "a length of five bytes that hides a packet", ALL, "C0 80 80 80 80 00 31 0A 0006 'canary' 00 'x'", Reason(MalformedPacket)),
        later("A01", "a remaining length longer than needed", ONLY_5, "C0 80 80 80 00", Reason(MalformedPacket)),
        later("A01", "a remaining length longer than needed, before MQTT 5", BEFORE_5, "C0 80 80 80 00", Answer("D0 00")),
        first("A02", "a properties length of five bytes", ONLY_5, "10 # N 02 003C 80 80 80 80 01 0002 'c1'", Reason(MalformedPacket)),
        first("A02", "a properties length longer than needed", ONLY_5, "10 # N 02 003C 80 80 00 0002 'c1'", Reason(MalformedPacket)),
        first("A02", "a will's properties length longer than needed", ONLY_5, "10 # N 06 003C 00 0002 'c1' 80 80 00 0001 'w' 0000", Reason(MalformedPacket)),
        first("A02", "a will's properties longer than the packet", ONLY_5, "10 # N 06 003C 00 0002 'c1' FF FF FF 7F 0001 'w' 0000", Reason(MalformedPacket)),
        later("A02", "PUBLISH with a properties length of five bytes", ONLY_5, "30 # 0006 'canary' 80 80 80 80 01 'x'", Reason(MalformedPacket)),
        later("A02", "PUBLISH with a properties length longer than needed", ONLY_5, "30 # 0006 'canary' 80 00 'x'", Reason(MalformedPacket)),
        later("A02", "SUBSCRIBE with a properties length longer than needed", ONLY_5, "82 # 0001 80 00 0001 '#' 00", Reason(MalformedPacket)),
        later("A02", "UNSUBSCRIBE with a properties length longer than needed", ONLY_5, "A2 # 0001 80 00 0001 '#'", Reason(MalformedPacket)),
        later("A02", "PUBREL with a properties length longer than needed", ONLY_5, "62 # 0001 00 80 00", Reason(MalformedPacket)),
        later("A02", "DISCONNECT with a properties length longer than needed", ONLY_5, "E0 # 00 80 00", Reason(MalformedPacket)),
        later("A04", "PUBLISH cut before its packet identifier", ALL, "32 # 0006 'canary'", Reason(MalformedPacket)),
        later("A04", "PUBLISH cut within its packet identifier", ALL, "34 # 0006 'canary' 00", Reason(MalformedPacket)),
        later("A05", "SUBSCRIBE that ends after a filter", ALL, "82 # 0001 P 0001 '#'", Reason(MalformedPacket)),
        later("A05", "SUBSCRIBE that ends after its second filter", ALL, "82 # 0001 P 0001 '#' 00 0001 'b'", Reason(MalformedPacket)),
        later("A05", "SUBSCRIBE that ends within a length", ALL, "82 # 0001 P 0001 '#' 00 00", Reason(MalformedPacket)),
        later("A05", "UNSUBSCRIBE that ends within a filter", ALL, "A2 # 0001 P 0002 'a'", Reason(MalformedPacket)),
        later("A07", "PUBLISH whose properties are longer than it", ONLY_5, "30 # 0006 'canary' 10 01 00", Reason(MalformedPacket)),
        later("A07", "PUBLISH whose properties take a byte too much", ONLY_5, "30 # 0006 'canary' 03 01 00", Reason(MalformedPacket)),
        later("A07", "PUBLISH whose topic takes a byte too much", ALL, "30 # 0007 'canary'", Reason(MalformedPacket)),
        later("A07", "PUBLISH without a body", ALL, "30 00", Reason(MalformedPacket)),
        later("A08", "a topic longer than the packet", ALL, "30 # FFFF 'canary'", Reason(MalformedPacket)),
        later("A10", "CONNACK", ALL, "20 # 00 00 P", Reason(ProtocolError)),
        later("A10", "CONNACK, the one that crashed mosquitto", ALL, "20 02 E0 00", Reason(MalformedPacket)),
        later("A10", "SUBACK", ALL, "90 # 0001 P 00", Reason(ProtocolError)),
        later("A10", "UNSUBACK before MQTT 5", BEFORE_5, "B0 02 00 01", Silence),
        later("A10", "UNSUBACK", ONLY_5, "B0 # 0001 00 00", Reason(ProtocolError)),
        later("A10", "PINGRESP", ALL, "D0 00", Reason(ProtocolError)),
        first("A11", "type 0", ALL, "00", Silence),
        first("A11", "type 15", ALL, "F0", Silence),
        later("A11", "type 0", ALL, "00", Reason(MalformedPacket)),
        later("A11", "type 0 with a body that never comes", ALL, "0F FF FF FF 7F", Reason(MalformedPacket)),
        later("A11", "type 15 before MQTT 5", BEFORE_5, "F0", Silence),
        later("A11", "type 15 with flags", ONLY_5, "F1", Reason(MalformedPacket)),
        first("A13", "CONNECT's reserved flag", SINCE_3_1_1, "10 # N 03 003C P 0002 'c1'", Reason(MalformedPacket)),
        first("A13", "a will's QoS without a will", ALL, "10 # N 0A 003C P 0002 'c1'", Reason(MalformedPacket)),
        first("A13", "a will's retain without a will", ALL, "10 # N 22 003C P 0002 'c1'", Reason(MalformedPacket)),
        first("A13", "a will of QoS 3", ALL, "10 # N 1E 003C P 0002 'c1' P 0006 'canary' 0001 'w'", Reason(MalformedPacket)),
        first("A13", "a will without its fields", ALL, "10 # N 06 003C P 0002 'c1'", Reason(MalformedPacket)),
        first("A14", "a password without a user name", BEFORE_5, "10 # N 42 003C 0002 'c1' 0001 'p'", Silence),
        first("A14", "a password without a user name, MQTT 5", ONLY_5, "10 # N 42 003C 00 0002 'c1' 0001 'p'", LetIn),
        first("A16", "a will's property in a CONNECT", ONLY_5, "10 # N 02 003C 05 18 00000005 0002 'c1'", Reason(MalformedPacket)),
        first("A16", "a CONNECT's property in a will", ONLY_5, "10 # N 06 003C 00 0002 'c1' 05 11 00000005 0001 'w' 0000", Reason(MalformedPacket)),
        first("A16", "a broker's property in a CONNECT", ONLY_5, "10 # N 02 003C 05 12 0002 'me' 0002 'c1'", Reason(MalformedPacket)),
        later("A16", "a CONNECT's property in a PUBLISH", ONLY_5, "30 # 0006 'canary' 05 11 00000005 'x'", Reason(MalformedPacket)),
        first("A17", "a user property without a value", ONLY_5, "10 # N 02 003C 04 26 0001 'k' 0002 'c1'", Reason(MalformedPacket)),
        later("A17", "PUBLISH with a user property without a value", ONLY_5, "30 # 0006 'canary' 04 26 0001 'k'", Reason(MalformedPacket)),
        later("A17", "PUBLISH with a user property cut in its value", ONLY_5, "30 # 0006 'canary' 07 26 0001 'k' 0005 'v' 'value'", Reason(MalformedPacket)),
        first("A20", "a CONNECT beyond its limit, seen at its length", ALL, "10 81 80 04", Silence),
        later("A20", "a packet beyond its limit, seen at its length", ALL, "30 81 80 40", Reason(PacketTooLarge)),
        first("A22", "a control character in a client id", ALL, "10 # N 02 003C P 0003 'c' 0A '1'", Reason(MalformedPacket)),
        first("A22", "U+0000 in a user name", ALL, "10 # N 82 003C P 0002 'c1' 0002 'u' 00", Reason(MalformedPacket)),
        first("A22", "U+0080 in a will's topic", ALL, "10 # N 06 003C P 0002 'c1' P 0003 'w' C280 0000", Reason(MalformedPacket)),
        later("A22", "U+0000 in a topic", ALL, "30 # 0007 'canary' 00 P", Reason(MalformedPacket)),
        later("A22", "U+007F in a topic", ALL, "30 # 0007 'canary' 7F P", Reason(MalformedPacket)),
        later("A22", "U+0001 in a filter", ALL, "82 # 0001 P 0002 'a' 01 00", Reason(MalformedPacket)),
        later("A22", "U+009F in a filter to unsubscribe", ALL, "A2 # 0001 P 0002 C29F", Reason(MalformedPacket)),
        later("A22", "CR and LF in a topic", ALL, "30 # 0008 'canary' 0D0A P", Reason(MalformedPacket)),
        later("A23", "PUBLISH of identifier 0", ALL, "32 # 0006 'canary' 0000 P 'x'", Reason(MalformedPacket)),
        later("A23", "SUBSCRIBE of identifier 0", ALL, "82 # 0000 P 0001 '#' 00", Reason(MalformedPacket)),
        later("A23", "UNSUBSCRIBE of identifier 0", ALL, "A2 # 0000 P 0001 '#'", Reason(MalformedPacket)),
        later("A23", "PUBACK of identifier 0", ALL, "40 02 00 00", Reason(MalformedPacket)),
        later("A23", "PUBREC of identifier 0", ALL, "50 02 00 00", Reason(MalformedPacket)),
        later("A23", "PUBREL of identifier 0", ALL, "62 02 00 00", Reason(MalformedPacket)),
        later("A23", "PUBCOMP of identifier 0", ALL, "70 02 00 00", Reason(MalformedPacket)),
        later("A25", "SUBSCRIBE to nothing", ALL, "82 # 0001 P", Reason(ProtocolError)),
        later("A25", "UNSUBSCRIBE from nothing", ALL, "A2 # 0001 P", Reason(ProtocolError)),
        later("A26", "SUBSCRIBE at QoS 3", ALL, "82 # 0001 P 0001 '#' 03", Reason(MalformedPacket)),
        later("A26", "reserved bit 7 of a subscription", ALL, "82 # 0001 P 0001 '#' 80", Reason(MalformedPacket)),
        later("A26", "options of MQTT 5 before it", BEFORE_5, "82 # 0001 0001 '#' 04", Silence),
        later("A26", "Retain Handling 3", ONLY_5, "82 # 0001 00 0001 '#' 30", Reason(ProtocolError)),
        later("A26", "Subscription Identifier 0", ONLY_5, "82 # 0001 02 0B 00 0001 '#' 00", Reason(ProtocolError)),
        later("A26", "No Local on a shared subscription", ONLY_5, "82 # 0001 00 000A '$share/g/a' 05", Reason(ProtocolError)),
        later("A26", "a good filter and a bad option", ALL, "82 # 0001 P 0001 '#' 00 0001 'a' 03", Reason(MalformedPacket)),
        later("A31", "a Response Topic with a wildcard", ONLY_5, "30 # 0006 'canary' 06 08 0003 'r/#' 'x'", Reason(ProtocolError)),
        later("A31", "a Response Topic of nothing", ONLY_5, "30 # 0006 'canary' 03 08 0000 'x'", Reason(ProtocolError)),
        first("A31", "a will's Response Topic with a wildcard", ONLY_5, "10 # N 06 003C 00 0002 'c1' 06 08 0003 'r/+' 0006 'canary' 0000", Reason(ProtocolError)),
        later("A34", "the largest packet there may be", BEFORE_5, "30 # 0006 'absent' '.'*1048564", Answer("")),
        later("A34", "the largest packet there may be, MQTT 5", ONLY_5, "30 # 0006 'absent' 00 '.'*1048563", Answer("")),
        later("A34", "a byte more than the largest packet", BEFORE_5, "30 # 0006 'canary' '.'*1048565", Silence),
        later("A34", "a byte more than the largest packet, MQTT 5", ONLY_5, "30 # 0006 'canary' 00 '.'*1048564", Reason(PacketTooLarge)),
        // Not on the list that this began with.
        later("A50", "a property twice", ONLY_5, "30 # 0006 'canary' 04 01 00 01 00 'x'", Reason(ProtocolError)),
        later("A50", "a property that does not exist", ONLY_5, "30 # 0006 'canary' 02 7F 00 'x'", Reason(MalformedPacket)),
        later("A50", "a property's identifier in two bytes", ONLY_5, "30 # 0006 'canary' 03 81 00 00 'x'", Reason(MalformedPacket)),
        later("A50", "a flag that is neither 0 nor 1", ONLY_5, "30 # 0006 'canary' 02 01 02 'x'", Reason(ProtocolError)),
        first("A50", "Receive Maximum 0", ONLY_5, "10 # N 02 003C 03 21 0000 0002 'c1'", Reason(ProtocolError)),
        first("A50", "Maximum Packet Size 0", ONLY_5, "10 # N 02 003C 05 27 00000000 0002 'c1'", Reason(ProtocolError)),
        first("A50", "authentication data without a method", ONLY_5, "10 # N 02 003C 04 16 0001 'd' 0002 'c1'", Reason(ProtocolError)),
        first("A50", "a method that nobody knows", ONLY_5, "10 # N 02 003C 04 15 0001 'm' 0002 'c1'", Reason(BadAuthenticationMethod)),
        later("A50", "AUTH that nobody asked for", ONLY_5, "F0 # 18 04 15 0001 'm'", Reason(ProtocolError)),
        later("A50", "AUTH without a method", ONLY_5, "F0 # 18 00", Reason(ProtocolError)),
        later("A51", "Topic Alias 0", ONLY_5, "30 # 0006 'canary' 03 23 0000 'x'", Reason(ProtocolError)),
        later("A51", "a topic alias above the maximum", ONLY_5, "30 # 0006 'canary' 03 23 FFFF 'x'", Reason(TopicAliasInvalid)),
        later("A51", "a topic alias that stands for nothing", ONLY_5, "30 # 0000 03 23 0001 'x'", Reason(ProtocolError)),
        later("A51", "neither topic nor alias", ONLY_5, "30 # 0000 00 'x'", Reason(ProtocolError)),
        later("A52", "a Subscription Identifier in a client's PUBLISH", ONLY_5, "30 # 0006 'canary' 02 0B 01 'x'", Reason(ProtocolError)),
        later("A53", "a surrogate in a topic", ALL, "30 # 0009 'canary' EDA080 P", Reason(MalformedPacket)),
        later("A53", "an overlong slash in a topic", ALL, "30 # 0009 'canary' C0AF '1' P", Reason(MalformedPacket)),
        later("A53", "a topic cut within a character", ALL, "30 # 0007 'canary' C3 P", Reason(MalformedPacket)),
        later("A53", "a filter that is not UTF-8", ALL, "82 # 0001 P 0001 FF 00", Reason(MalformedPacket)),
        later("A53", "a user property that is not UTF-8", ONLY_5, "30 # 0006 'canary' 07 26 0001 'k' 0001 FF", Reason(MalformedPacket)),
        first("A53", "a client id that is not UTF-8", ALL, "10 # N 02 003C P 0002 C3 28", Reason(MalformedPacket)),
        later("A54", "flags of PUBACK", ALL, "42", Reason(MalformedPacket)),
        later("A54", "PUBREL without its flags", ALL, "60", Reason(MalformedPacket)),
        later("A54", "SUBSCRIBE without its flags", ALL, "80", Reason(MalformedPacket)),
        later("A54", "UNSUBSCRIBE without its flags", ALL, "A0", Reason(MalformedPacket)),
        later("A54", "flags of PINGREQ", ALL, "C8", Reason(MalformedPacket)),
        later("A54", "flags of DISCONNECT", ALL, "E1", Reason(MalformedPacket)),
        later("A54", "PUBLISH of QoS 3", ALL, "36", Reason(MalformedPacket)),
        later("A54", "DUP at QoS 0", SINCE_3_1_1, "38", Reason(MalformedPacket)),
        later("A54", "DUP at QoS 0 in 3.1", ONLY_3_1, "38 # 0006 'absent'", Answer("")),
        later("A55", "PINGREQ with a body", ALL, "C0 01 00", Reason(MalformedPacket)),
        later("A55", "PUBACK of three bytes before MQTT 5", BEFORE_5, "40 03 00 01 00", Silence),
        later("A55", "bytes behind an acknowledgement's properties", ONLY_5, "40 05 00 01 00 00 00", Reason(MalformedPacket)),
        later("A55", "DISCONNECT with a body before MQTT 5", BEFORE_5, "E0 01 00", Silence),
        first("A55", "bytes behind CONNECT's last field", ALL, "10 # N 02 003C P 0002 'c1' 00", Reason(MalformedPacket)),
        first("A55", "a user name without its flag", ALL, "10 # N 02 003C P 0002 'c1' 0001 'u'", Reason(MalformedPacket)),
        first("A55", "a client id longer than the packet", ALL, "10 # N 02 003C P 00FF 'c1'", Reason(MalformedPacket)),
        later("A56", "PUBACK with a PUBREL's reason", ONLY_5, "40 03 00 01 92", Reason(ProtocolError)),
        later("A56", "DISCONNECT with a CONNACK's reason", ONLY_5, "E0 01 85", Reason(ProtocolError)),
        later("A56", "DISCONNECT with a reason that only brokers have", ONLY_5, "E0 01 8B", Silence),
        later("A57", "PUBLISH to an empty topic, before MQTT 5", BEFORE_5, "30 # 0000 'x'", Silence),
        later("A57", "PUBLISH to a filter", ALL, "30 # 0008 'canary/#' P 'x'", Reason(MalformedPacket)),
        later("A57", "SUBSCRIBE to an empty filter", ALL, "82 # 0001 P 0000 00", Reason(MalformedPacket)),
        later("A57", "SUBSCRIBE to #/a", ALL, "82 # 0001 P 0003 '#/a' 00", Reason(MalformedPacket)),
        later("A57", "SUBSCRIBE to a good filter and to a+", ALL, "82 # 0001 P 0001 '#' 00 0002 'a+' 00", Reason(MalformedPacket)),

        // B: before a client is let in, and what it is then.
        first("B01", "another first packet of 256 MiB", ALL, "30 FF FF FF 7F '.'*100", Silence),
        first("B01", "a first byte that no CONNECT has", ALL, "1F", Silence),
        first("B02", "PUBACK first", ALL, "40 02 00 01", Silence),
        first("B02", "PINGREQ first", ALL, "C0 00", Silence),
        first("B02", "DISCONNECT first", ALL, "E0 00", Silence),
        first("B02", "PUBLISH first", ALL, "33 # 0006 'canary' 0001 P 'x'", Silence),
        first("B02", "SUBSCRIBE first", ALL, "82 # 0001 P 0001 '#' 00", Silence),
        first("B02", "AUTH first", ALL, "F0 # 18 04 15 0001 'm'", Silence),
        first("B04", "a CONNECT of 256 MiB", ALL, "10 FF FF FF 7F", Silence),
        first("B07", "no client id, and a session that is to stay", ONLY_3_1_1, "10 # N 00 003C 0000", Code(2)),
        first("B07", "no client id", ONLY_3_1, "10 # N 02 003C 0000", Code(2)),
        first("B07", "no client id, which is made up", ONLY_5, "10 # N 00 003C 00 0000", LetIn),
        later("B08", "a second CONNECT", ALL, "10 # N 02 003C P 0007 'hostile'", Reason(ProtocolError)),
        later("B08", "a second CONNECT, of somebody else", ALL, "10 # N 06 003C P 0006 'canary' P 0006 'canary' 0001 'w'", Reason(ProtocolError)),
        later("B08", "a second CONNECT, of another version", ALL, "10 # 0006 'MQIsdp' 03 02 003C 0006 'canary'", Reason(ProtocolError)),
        first("B10", "an empty user name", ALL, "10 # N 82 003C P 0002 'c1' 0000", LetIn),
        first("B10", "an empty user name and an empty password", ALL, "10 # N C2 003C P 0002 'c1' 0000 0000", LetIn),
        first("B11", "a password that is missing", SINCE_3_1_1, "10 # N C2 003C P 0002 'c1' 0001 'u'", Reason(MalformedPacket)),
        first("B11", "a user name that is missing", SINCE_3_1_1, "10 # N 82 003C P 0002 'c1'", Reason(MalformedPacket)),
        first("B20", "Request Response Information 2", ONLY_5, "10 # N 02 003C 02 19 02 0002 'c1'", Reason(ProtocolError)),
        first("B20", "Request Problem Information 255", ONLY_5, "10 # N 02 003C 02 17 FF 0002 'c1'", Reason(ProtocolError)),
        first("B22", "level 6", ALL, "10 # 0004 'MQTT' 06 02 003C 00 0002 'c1'", Code(1)),
        first("B22", "level 0", ALL, "10 # 0004 'MQTT' 00 02 003C 0002 'c1'", Code(1)),
        first("B22", "level 5 with a bridge's bit", ALL, "10 # 0004 'MQTT' 85 02 003C 0002 'c1'", Code(1)),
        first("B22", "level 4 of MQIsdp", ALL, "10 # 0006 'MQIsdp' 04 02 003C 0002 'c1'", Code(1)),
        first("B22", "another protocol", ALL, "10 # 0004 'AMQP' 04 02 003C 0002 'c1'", Silence),
        first("B22", "NUL in the protocol's name", ALL, "10 # 0005 'MQTT' 00 04 02 003C 0002 'c1'", Silence),
        first("B22", "no protocol", ALL, "10 00", Silence),
        // What is smuggled behind every row that closes is behind this one too.
        first("B51", "a CONNECT that is refused, and packets behind it", BEFORE_5, "10 # N 04 003C 0000 0006 'canary' 0000", Code(2)),
        first("B50", "HTTP", ALL, "'GET' 20 '/' 20 'HTTP/1.1' 0D0A0D0A", Silence),
        first("B50", "TLS", ALL, "16030102000100", Silence),
        first("B50", "SSH", ALL, "'SSH-2.0-x' 0D0A", Silence),
        first("B50", "a PROXY header", ALL, "'PROXY' 20 'TCP4' 20 '192.0.2.7' 20 '192.0.2.1' 20 '1' 20 '2' 0D0A", Silence),

        // C: more than there may be.
        later("C01", "65,535 levels", BEFORE_5, "82 # 0001 FFFE '/'*65534 01", Answer("90 03 0001 80")),
        later("C01", "65,535 levels", ONLY_5, "82 # 0001 00 FFFE '/'*65534 01", Answer("90 04 0001 00 8F")),
        later("C01", "65,535 levels of +", BEFORE_5, "82 # 0001 FFFF '+/'*32767 '+' 01", Answer("90 03 0001 80")),
        later("C01", "65,535 levels of +", ONLY_5, "82 # 0001 00 FFFF '+/'*32767 '+' 01", Answer("90 04 0001 00 8F")),
        later("C01", "a share group of 65,535 levels", ONLY_5, "82 # 0001 00 FFF7 '$share/g/' '/'*65518 01", Answer("90 04 0001 00 8F")),
        later("C01", "a queue of 65,535 levels", ONLY_5, "82 # 0001 00 FFF5 '$queue/' '/'*65518 01", Answer("90 04 0001 00 8F")),
        later("C01", "UNSUBSCRIBE from 65,535 levels", BEFORE_5, "A2 # 0001 FFFE '/'*65534", Answer("B0 02 0001")),
        later("C01", "UNSUBSCRIBE from 65,535 levels, MQTT 5", ONLY_5, "A2 # 0001 00 FFFE '/'*65534", Answer("B0 04 0001 00 11")),
        later("C01", "PUBLISH to 65,535 levels", BEFORE_5, "33 # FFFE '/'*65534 0001 'x'", Silence),
        later("C01", "PUBLISH to 65,535 levels, MQTT 5", ONLY_5, "33 # FFFE '/'*65534 0001 00 'x'", Answer("40 03 0001 90")),
        later("C01", "PUBLISH to a queue of 65,535 levels", ONLY_5, "33 # FFF5 '$queue/' '/'*65518 0001 00 'x'", Answer("40 03 0001 90")),
        first("C01", "a will of 30,000 levels", ONLY_5, "10 # N 06 003C 00 0002 'c1' 00 7530 '/'*30000 0000", Reason(TopicNameInvalid)),
        first("C01", "a will of 30,000 levels, before MQTT 5", BEFORE_5, "10 # N 06 003C 0002 'c1' 7530 '/'*30000 0000", Silence),

        // D: acknowledgements that nobody waits for.
        later("D02", "PUBREL of nothing", BEFORE_5, "62 02 00 07", Answer("70 02 00 07")),
        later("D02", "PUBREL of nothing, MQTT 5", ONLY_5, "62 02 00 07", Answer("70 03 0007 92")),
        later("D07", "PUBACK of nothing", ALL, "40 02 00 07", Answer("")),
        later("D07", "PUBCOMP of nothing", ALL, "70 02 00 07", Answer("")),
        later("D07", "PUBREC of nothing", BEFORE_5, "50 02 00 07", Answer("62 02 00 07")),
        later("D07", "PUBREC of nothing, MQTT 5", ONLY_5, "50 02 00 07", Answer("62 03 0007 92")),

        // E, G: topics that are not for clients.
        later("E16", "PUBLISH to $share", ONLY_5, "33 # 0008 '$share/g' 0001 00 'x'", Answer("40 03 0001 90")),
        later("E16", "PUBLISH to $SYS", BEFORE_5, "33 # 0006 '$SYS/x' 0001 'x'", Silence),
        later("E16", "PUBLISH to $SYS, MQTT 5", ONLY_5, "33 # 0006 '$SYS/x' 0001 00 'x'", Answer("40 03 0001 87")),
        later("E16", "PUBLISH to $SYS at QoS 0", ONLY_5, "31 # 0006 '$SYS/x' 00 'x'", Answer("")),
        first("G04", "a will to $SYS", ONLY_5, "10 # N 06 003C 00 0002 'c1' 00 0006 '$SYS/x' 0000", Reason(NotAuthorized)),
        first("G04", "a will to $SYS, before MQTT 5", BEFORE_5, "10 # N 06 003C 0002 'c1' 0006 '$SYS/x' 0000", Code(5)),
        first("G04", "a will to a share group", ONLY_5, "10 # N 06 003C 00 0002 'c1' 00 000A '$share/g/t' 0000", Reason(TopicNameInvalid)),
        first("G04", "a will to dead letters", ONLY_5, "10 # N 06 003C 00 0002 'c1' 00 0007 '$dead/q' 0000", Reason(TopicNameInvalid)),
        first("G04", "a will to a filter", ONLY_5, "10 # N 06 003C 00 0002 'c1' 00 0008 'canary/#' 0000", Reason(TopicNameInvalid)),
        first("G04", "a will to nothing", ONLY_5, "10 # N 06 003C 00 0002 'c1' 00 0000 0000", Reason(TopicNameInvalid)),
        later("E17", "PUBLISH to $foo", BEFORE_5, "32 # 0004 '$foo' 0001 'x'", Answer("40 02 0001")),
        later("E17", "PUBLISH to $foo, MQTT 5", ONLY_5, "32 # 0004 '$foo' 0001 00 'x'", Answer("40 03 0001 10")),
        later("E17", "PUBLISH to $", BEFORE_5, "32 # 0001 '$' 0001 'x'", Answer("40 02 0001")),
        later("E17", "PUBLISH to $, MQTT 5", ONLY_5, "32 # 0001 '$' 0001 00 'x'", Answer("40 03 0001 10")),

        later("E52", "PUBLISH to $SYS after a while", ONLY_5, "33 # s'$delayed/0/$SYS/x' 0001 00 '1'", Answer("40 03 0001 87")),
        later("E52", "PUBLISH to $CONTROL after a while", ONLY_5, "33 # s'$delayed/0/$CONTROL/rotamq/v1' 0001 00 '1'", Answer("40 03 0001 90")),
        later("E52", "PUBLISH to $share after a while", ONLY_5, "33 # s'$delayed/0/$share/g/t' 0001 00 '1'", Answer("40 03 0001 90")),
        later("E52", "PUBLISH to dead letters after a while", ONLY_5, "33 # s'$delayed/0/$dead/q' 0001 00 '1'", Answer("40 03 0001 90")),
        later("E52", "PUBLISH to a while after a while", ONLY_5, "33 # s'$delayed/0/$delayed/0/t' 0001 00 '1'", Answer("40 03 0001 90")),
        later("E52", "PUBLISH to a while beyond all measure", ONLY_5, "33 # s'$delayed/99999999999999999999/canary' 0001 00 '1'", Answer("40 03 0001 90")),
        later("E52", "PUBLISH to a while before now", ONLY_5, "33 # s'$delayed/-1/canary' 0001 00 '1'", Answer("40 03 0001 90")),
        later("E52", "PUBLISH to $SYS as a result", ONLY_5, "33 # s'$settles/1/$SYS/x' 0001 00 '1'", Answer("40 03 0001 87")),
        later("E52", "PUBLISH to $CONTROL as a result", ONLY_5, "33 # s'$settles/1/$CONTROL/rotamq/v1' 0001 00 '1'", Answer("40 03 0001 90")),
        later("E52", "PUBLISH to dead letters", ONLY_5, "33 # s'$dead/q' 0001 00 '1'", Answer("40 03 0001 90")),
        later("E52", "PUBLISH to a queue of dead letters", ONLY_5, "33 # s'$queue/$dead/q' 0001 00 '1'", Answer("40 03 0001 90")),
        later("E52", "PUBLISH to a settlement of what it does not have", ONLY_5, "33 # s'$queue/$reject' 0001 00 '1'", Answer("40 02 0001")),
        first("E52", "a will to $CONTROL", ONLY_5, "10 # N 06 003C 00 s'c1' 00 s'$CONTROL/rotamq/v1' s'1'", Reason(TopicNameInvalid)),
        first("E52", "a will to what is put off", ONLY_5, "10 # N 06 003C 00 s'c1' 00 s'$delayed/5/canary' s'1'", Reason(TopicNameInvalid)),
        first("E52", "a will to a settlement", ONLY_5, "10 # N 06 003C 00 s'c1' 00 s'$queue/$nack' s'1'", Reason(TopicNameInvalid)),
        first("E52", "a will to a result", ONLY_5, "10 # N 06 003C 00 s'c1' 00 s'$settles/1/canary' s'1'", Reason(TopicNameInvalid)),
        first("E52", "a will to a queue of queues", ONLY_5, "10 # N 06 003C 00 s'c1' 00 s'$queue/#' s'1'", Reason(TopicNameInvalid)),

        // F: names that try to be something else.
        first("F07", "a client id of 65,535 bytes", ALL, "10 # N 02 003C P FFFF 'x'*65535", Silence),
        first("F07", "a client id of 1,025 bytes", BEFORE_5, "10 # N 02 003C 0401 'x'*1025", Code(2)),
        first("F07", "a client id of 1,025 bytes", ONLY_5, "10 # N 02 003C 00 0401 'x'*1025", Reason(ClientIdentifierNotValid)),
        first("F07", "a client id that is a path", ALL, "10 # N 02 003C P 000C '../../../etc'", LetIn),
        first("F07", "a client id of everything that means something elsewhere", ALL, "10 # N 02 003C P 000E '/+#$.*>%25' 22 '\'' 3C 5C", LetIn),

        // H: share groups and queues that are none.
        later("H01", "half a share group", BEFORE_5, "82 # 0001 0009 '$share/ab' 01", Answer("90 03 0001 80")),
        later("H01", "half a share group", ONLY_5, "82 # 0001 00 0009 '$share/ab' 01", Answer("90 04 0001 00 8F")),
        later("H01", "a share group without a name", ONLY_5, "82 # 0001 00 0009 '$share//t' 01", Answer("90 04 0001 00 8F")),
        later("H01", "a share group of nothing", ONLY_5, "82 # 0001 00 0007 '$share/' 01", Answer("90 04 0001 00 8F")),
        later("H01", "$share", ONLY_5, "82 # 0001 00 0006 '$share' 01", Answer("90 04 0001 00 8F")),
        later("H01", "a share group of an empty filter", ONLY_5, "82 # 0001 00 0009 '$share/g/' 01", Answer("90 04 0001 00 8F")),
        later("H01", "a share group whose name is a wildcard", ONLY_5, "82 # 0001 00 000A '$share/+/t' 01", Answer("90 04 0001 00 8F")),
        later("H01", "a share group of a share group", ONLY_5, "82 # 0001 00 0013 '$share/g/$share/g/t' 01", Answer("90 04 0001 00 8F")),
        later("H50", "a queue without a name", ONLY_5, "82 # 0001 00 0007 '$queue/' 01", Answer("90 04 0001 00 8F")),
        later("H50", "a queue of all queues", ONLY_5, "82 # 0001 00 0008 '$queue/#' 01", Answer("90 04 0001 00 87")),
        later("H50", "PUBLISH to a queue of all queues", ONLY_5, "33 # 0008 '$queue/+' 0001 00 'x'", Reason(MalformedPacket)),
        later("H50", "PUBLISH to a control topic that there is not", ONLY_5, "33 # 000D '$queue/$other' 0001 00 'x'", Answer("40 03 0001 90")),
        later("H50", "a settlement of nonsense", ONLY_5, "33 # 000C '$queue/$nack' 0001 00 FF", Answer("40 03 0001 99")),
    ]
}
