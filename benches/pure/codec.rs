//! Bytes to packets and back; topics that are checked.

use std::hint::black_box;
use std::num::NonZeroU16;

use rotamq::config::Limits;
use rotamq::message::{PacketId, Qos, SubscriptionId};
use rotamq::protocol::{
    Ack, Connect, Packet, PropertiesBuf, Property, Publish, ReasonCode, Subscribe,
    SubscribeOptions, Version, decode, decode_connect, encode,
};
use rotamq::topic::{TopicFilter, TopicLimits, TopicName};

use crate::inputs::{PAYLOAD, name, topic_of};
use crate::{Criterion, Group, bench};

const V3_1_1: Version = Version::V3_1_1;
const V5: Version = Version::V5;

/// What a connection reads at a time.
const READ_BYTES: usize = 64 << 10;
/// What is put one behind the other, as a client's packets are: one place alone
/// may be twice as slow as the next.
const OUTBOX_BYTES: usize = 16 << 10;

pub fn all(criterion: &mut Criterion) {
    let [connect, publish, subscribe] = properties();
    let cases = cases(&connect, &publish, &subscribe);

    let mut group = criterion.benchmark_group("decode");
    for (name, version, packet) in &cases {
        let bytes = || encoded(packet, *version);
        bench(&mut group, name, 1, bytes, decoding(*version));
    }
    reads(&mut group, &cases);
    group.finish();

    let mut group = criterion.benchmark_group("encode");
    for (name, version, packet) in &cases {
        bench(&mut group, name, 1, Vec::new, |out| {
            if out.len() > OUTBOX_BYTES {
                out.clear();
            }
            encode(black_box(packet), *version, out);
            black_box(out);
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("parse");
    let topic = || topic_of(123_456);
    bench(&mut group, "topic-name", 1, topic, |text| {
        let parsed = TopicName::parse(black_box(text), TopicLimits::NONE);
        black_box(parsed).expect("a topic name");
    });
    let wildcards = || "site/+/line/12/#".to_owned();
    bench(&mut group, "topic-filter", 1, wildcards, |text| {
        let parsed = TopicFilter::parse(black_box(text), TopicLimits::NONE);
        black_box(parsed).expect("a topic filter");
    });
    group.finish();
}

/// Those of a CONNECT, a PUBLISH and a SUBSCRIBE.
fn properties() -> [PropertiesBuf; 3] {
    let max = NonZeroU16::new(100).expect("it is not 0");
    let id = SubscriptionId::new(300).expect("it is in the range");
    let [mut connect, mut publish, mut subscribe] = [const { PropertiesBuf::new() }; 3];
    connect
        .push(Property::SessionExpiryInterval(3600))
        .push(Property::ReceiveMaximum(max))
        .push(Property::TopicAliasMaximum(32))
        .push(Property::RequestProblemInformation(true));
    publish
        .push(Property::PayloadFormatIndicator(true))
        .push(Property::MessageExpiryInterval(3600))
        .push(Property::ContentType("application/json"))
        .push(Property::ResponseTopic(name("answers/a-client")))
        .push(Property::CorrelationData(b"0123456789abcdef"))
        .push(Property::UserProperty(("trace", "4bf92f3577b34da6")))
        .push(Property::UserProperty(("schema", "reading-7")));
    subscribe.push(Property::SubscriptionIdentifier(id));
    [connect, publish, subscribe]
}

/// Its name, how it is encoded, and what it says.
type Case<'a> = (String, Version, Packet<'a>);

fn cases<'a>(
    connect: &'a PropertiesBuf,
    publish: &'a PropertiesBuf,
    subscribe: &'a PropertiesBuf,
) -> Vec<Case<'a>> {
    const NONE: &PropertiesBuf = &PropertiesBuf::new();
    let filters = ["site/1/line/+/sensor/#", "site/2/#", "alarms"];
    let mut cases = Vec::new();
    let mut add = |name: &str, version, packet| cases.push((name.to_owned(), version, packet));
    for (title, qos) in [("qos0", Qos::AtMostOnce), ("qos1", Qos::AtLeastOnce)] {
        let name = |version| format!("publish/{title}/{version}");
        add(&name("v3.1.1"), V3_1_1, publish_of(qos, NONE));
        add(&name("v5"), V5, publish_of(qos, NONE));
        add(&name("v5-properties"), V5, publish_of(qos, publish));
    }
    add("puback/v3.1.1", V3_1_1, puback(ReasonCode::Success));
    add("puback/v5", V5, puback(ReasonCode::Success));
    add("puback/v5-reason", V5, puback(ReasonCode::QuotaExceeded));
    let subscribes = [
        ("subscribe/v3.1.1/1-filter", V3_1_1, 1, NONE),
        ("subscribe/v5-properties/3-filters", V5, 3, subscribe),
    ];
    for (name, version, count, properties) in subscribes {
        add(name, version, subscribe_to(&filters[..count], properties));
    }
    add("connect/v3.1.1", V3_1_1, connect_of(V3_1_1, NONE));
    add("connect/v5-properties", V5, connect_of(V5, connect));
    cases
}

fn publish_of(qos: Qos, properties: &PropertiesBuf) -> Packet<'_> {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: "site/12/line/34/sensor/56",
        packet_id: (qos != Qos::AtMostOnce).then_some(PacketId::MAX),
        properties: properties.as_properties(),
        payload: &PAYLOAD,
    })
}

fn puback(reason: ReasonCode) -> Packet<'static> {
    let ack = Ack::new(PacketId::MAX);
    Packet::Puback(Ack { reason, ..ack })
}

fn subscribe_to<'a>(filters: &[&'static str], properties: &'a PropertiesBuf) -> Packet<'a> {
    let options = SubscribeOptions::new(Qos::AtLeastOnce);
    Packet::Subscribe(Subscribe {
        packet_id: PacketId::MAX,
        properties: properties.as_properties(),
        filters: filters.iter().map(|filter| (*filter, options)).collect(),
    })
}

fn connect_of(version: Version, properties: &PropertiesBuf) -> Packet<'_> {
    Packet::Connect(Connect {
        version,
        clean_start: true,
        keep_alive_secs: 60,
        properties: properties.as_properties(),
        client_id: "sensor-site-12-line-34",
        will: None,
        user_name: Some("sensor"),
        password: Some(b"a password"),
    })
}

fn encoded(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(packet, version, &mut bytes);
    bytes
}

/// As a connection decodes: a CONNECT is the first, and has its own way.
fn decoding(version: Version) -> impl FnMut(&mut Vec<u8>) {
    let packet_bytes_max = Limits::default().packet_bytes_max;
    move |bytes| match bytes[0] >> 4 {
        1 => {
            let connect = decode_connect(black_box(bytes), packet_bytes_max);
            black_box(connect)
                .expect("it is valid")
                .expect("it is whole");
        }
        _ => {
            let packet = decode(black_box(bytes), version, packet_bytes_max);
            black_box(packet)
                .expect("it is valid")
                .expect("it is whole");
        }
    }
}

/// All packets of a full read, one behind the other.
fn reads(group: &mut Group<'_>, cases: &[Case<'_>]) {
    let packet_bytes_max = Limits::default().packet_bytes_max;
    for (name, version, packet) in cases {
        if !matches!(packet, Packet::Publish(_)) {
            continue;
        }
        let packet = encoded(packet, *version);
        let count = READ_BYTES / packet.len();
        let read = || packet.repeat(count);
        bench(group, format!("64KiB/{name}"), count, read, |bytes| {
            let mut rest = &**bytes;
            while !rest.is_empty() {
                let decoded = decode(black_box(rest), *version, packet_bytes_max);
                let decoded = black_box(decoded).expect("they are valid");
                let (_, len) = decoded.expect("they are whole");
                rest = &rest[len..];
            }
        });
    }
}
