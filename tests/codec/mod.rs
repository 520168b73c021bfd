//! The codec: bytes to packets and back.

use rotamq::message::{PacketId, Qos};
use rotamq::protocol::*;

#[test]
fn quick() {
    for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
        let packet = Packet::Publish(Publish {
            dup: false,
            qos: Qos::AtLeastOnce,
            retain: true,
            topic: "a/b",
            packet_id: PacketId::new(7),
            properties: Properties::EMPTY,
            payload: b"hello",
        });
        let mut out = vec![];
        encode(&packet, version, &mut out);
        assert_eq!(decode(&out, version, 100), Ok(Some((packet, out.len()))));
        let connect = Connect {
            version,
            clean_start: true,
            keep_alive_secs: 60,
            properties: Properties::EMPTY,
            client_id: "c",
            will: None,
            user_name: Some("u"),
            password: Some(b"p\xff"),
        };
        out.clear();
        encode(&Packet::Connect(connect.clone()), version, &mut out);
        assert_eq!(decode_connect(&out, 100), Ok(Some((connect, out.len()))));
    }
}
