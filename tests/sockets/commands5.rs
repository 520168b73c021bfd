//! `rotamq pub` and `rotamq sub` as clients of MQTT 5: with a broker that does
//! what a test says, since ours does not misbehave.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::num::{NonZeroU16, NonZeroU32};
use std::process::{Child, ChildStdin, Stdio};

use rotamq::message::{PacketId, Qos};
use rotamq::protocol::{
    Ack, Auth, Connack, Disconnect, Packet, PacketType, Properties, PropertiesBuf, Property,
    Publish, ReasonCode, RetainHandling, Suback, SubscribeOptions, Unsuback, Version, decode,
    encode,
};

use crate::process::{output, rotamq};
use crate::wait::{DEADLINE, until};

/// The command under test, and the broker's end of its connection.
struct Scene {
    child: Child,
    /// Open, if nothing was written.
    _stdin: Option<ChildStdin>,
    stream: TcpStream,
    bytes: Vec<u8>,
}

/// What the command left behind.
struct Left {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Scene {
    /// Starts `rotamq ARGUMENTS` with that standard input, up to its connection.
    fn start(arguments: &[&str], input: &str) -> Scene {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let mut child = rotamq(arguments)
            .args(["-h", "127.0.0.1", "-p", &port])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().expect("it is piped");
        stdin.write_all(input.as_bytes()).unwrap();
        let mut stream = None;
        until("it connects", || {
            assert!(child.try_wait().unwrap().is_none(), "it has ended");
            stream = listener.accept().ok();
            stream.is_some()
        });
        let (stream, _) = stream.expect("it was waited for");
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Scene {
            child,
            _stdin: input.is_empty().then_some(stdin),
            stream,
            bytes: Vec::new(),
        }
    }

    /// The same, up to a CONNACK with `properties`.
    fn connected(arguments: &[&str], input: &str, properties: &[Property<'_>]) -> Scene {
        let mut scene = Scene::start(arguments, input);
        scene.expect(PacketType::Connect);
        scene.connack(ReasonCode::Success, properties);
        scene
    }

    fn connack(&mut self, reason: ReasonCode, properties: &[Property<'_>]) {
        self.send(&Packet::Connack(Connack {
            session_present: false,
            reason,
            properties: buf(properties).as_properties(),
        }));
    }

    fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        encode(packet, Version::V5, &mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    /// What the next packet is, as `look` sees it.
    fn next<T>(&mut self, look: impl FnOnce(&Packet<'_>) -> T) -> T {
        loop {
            if let Some((packet, bytes)) = decode(&self.bytes, Version::V5, usize::MAX).unwrap() {
                let seen = look(&packet);
                self.bytes.drain(..bytes);
                return seen;
            }
            assert!(self.fill() > 0, "closed, while waiting for a packet");
        }
    }

    /// How many bytes more came; 0: it has closed.
    fn fill(&mut self) -> usize {
        let mut more = [0; 4096];
        let count = match self.stream.read(&mut more) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            read => read.unwrap(),
        };
        self.bytes.extend_from_slice(&more[..count]);
        count
    }

    fn expect(&mut self, expected: PacketType) {
        self.next(|packet| assert_eq!(packet.packet_type(), expected));
    }

    /// Expects a DISCONNECT with that reason, and no more.
    fn disconnected(mut self, reason: ReasonCode) -> Left {
        self.next(|packet| match packet {
            Packet::Disconnect(disconnect) => assert_eq!(disconnect.reason, reason),
            other => panic!("{other:?}"),
        });
        self.closed()
    }

    /// Expects that nothing more comes.
    fn closed(mut self) -> Left {
        while self.fill() > 0 {}
        assert_eq!(self.bytes, b"", "it sends more");
        drop(self.stream);
        let output = self.child.wait_with_output().unwrap();
        Left {
            code: output.status.code().expect("it ends by itself"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Left {
    /// It did what it should; what it printed.
    fn succeeded(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""));
        self.stdout
    }

    /// It said this on standard error, and failed.
    fn failed(self, stderr: &str) {
        assert_eq!(self.stderr, format!("rotamq: {stderr}\n"));
        assert!([1, 4, 5].contains(&self.code), "{}", self.code);
    }
}

fn buf(properties: &[Property<'_>]) -> PropertiesBuf {
    let mut buf = PropertiesBuf::new();
    for property in properties {
        buf.push(*property);
    }
    buf
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

fn alias(number: u16) -> Property<'static> {
    Property::TopicAlias(NonZeroU16::new(number).unwrap())
}

fn publish<'a>(topic: &'a str, properties: Properties<'a>) -> Packet<'a> {
    Packet::Publish(Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic,
        packet_id: None,
        properties,
        payload: b"hi",
    })
}

fn suback(scene: &mut Scene, reasons: &[ReasonCode], properties: &[Property<'_>]) {
    scene.expect(PacketType::Subscribe);
    scene.send(&Packet::Suback(Suback {
        packet_id: id(1),
        properties: buf(properties).as_properties(),
        reasons: reasons.to_vec(),
    }));
}

/// Each of the properties, in the packet that it is given to, and no other.
#[test]
fn properties_reach_their_packets() {
    let arguments = "sub -t a/b -t c -q 2 -C 2 -U x --no-local --retain-as-published \
        --retain-handling new --will-topic w -i me -x 30 \
        -D connect user-property connect 1 -D connect receive-maximum 7 \
        -D will will-delay-interval 5 -D will user-property will 2 \
        -D subscribe subscription-identifier 9 -D subscribe user-property subscribe 3 \
        -D unsubscribe user-property unsubscribe 4 -D pubrec user-property pubrec 5 \
        -D pubcomp reason-string done -D puback reason-string taken \
        -D disconnect user-property disconnect 6 -D disconnect session-expiry-interval 10";
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let mut scene = Scene::start(&arguments, "");
    let user = |name, value| Property::UserProperty((name, value));
    scene.next(|packet| {
        let Packet::Connect(connect) = packet else {
            panic!("{packet:?}");
        };
        assert_eq!((connect.client_id, connect.clean_start), ("me", true));
        assert!(connect.properties.iter().eq([
            user("connect", "1"),
            Property::ReceiveMaximum(NonZeroU16::new(7).unwrap()),
            Property::SessionExpiryInterval(30),
        ]));
        let will = connect.will.as_ref().unwrap();
        let expected = [Property::WillDelayInterval(5), user("will", "2")];
        assert!(will.properties.iter().eq(expected));
    });
    scene.connack(ReasonCode::Success, &[]);
    scene.next(|packet| {
        let Packet::Subscribe(subscribe) = packet else {
            panic!("{packet:?}");
        };
        let options = SubscribeOptions {
            qos: Qos::ExactlyOnce,
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::SendIfNew,
        };
        assert_eq!(subscribe.filters, [("a/b", options), ("c", options)]);
        let mut properties = subscribe.properties.iter();
        let Some(Property::SubscriptionIdentifier(id)) = properties.next() else {
            panic!("{subscribe:?}");
        };
        assert_eq!(id.get(), 9);
        assert!(properties.eq([user("subscribe", "3")]));
    });
    scene.next(|packet| {
        let Packet::Unsubscribe(unsubscribe) = packet else {
            panic!("{packet:?}");
        };
        assert!(unsubscribe.properties.iter().eq([user("unsubscribe", "4")]));
    });
    for (number, qos) in [(1, Qos::AtLeastOnce), (2, Qos::ExactlyOnce)] {
        scene.send(&Packet::Publish(Publish {
            dup: false,
            qos,
            retain: false,
            topic: "c",
            packet_id: Some(id(number)),
            properties: Properties::EMPTY,
            payload: b"",
        }));
    }
    let mut acknowledged = |expected, number, property| {
        scene.next(|packet| {
            assert_eq!(packet.packet_type(), expected);
            let (Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubcomp(ack)) = packet else {
                panic!("{packet:?}");
            };
            assert_eq!(
                (ack.packet_id, ack.reason),
                (id(number), ReasonCode::Success)
            );
            assert!(ack.properties.iter().eq([property]));
        });
        if expected == PacketType::Pubrec {
            scene.send(&Packet::Pubrel(Ack::new(id(number))));
        }
    };
    acknowledged(PacketType::Puback, 1, Property::ReasonString("taken"));
    acknowledged(PacketType::Pubrec, 2, user("pubrec", "5"));
    acknowledged(PacketType::Pubcomp, 2, Property::ReasonString("done"));
    scene.next(|packet| {
        let Packet::Disconnect(disconnect) = packet else {
            panic!("{packet:?}");
        };
        let expected = [user("disconnect", "6"), Property::SessionExpiryInterval(10)];
        assert!(disconnect.properties.iter().eq(expected));
    });
    assert_eq!(scene.closed().succeeded(), "\n\n");
}

#[test]
fn how_long_a_session_is_to_last() {
    let table = [
        ("", true, None),
        ("-x 0", true, Some(0)),
        ("-x 30", true, Some(30)),
        ("-i me -x -1", true, Some(u32::MAX)),
        ("-i me -c", false, Some(u32::MAX)),
        ("-i me -c -x 0", false, Some(0)),
        ("-i me -c -x ∞", false, Some(u32::MAX)),
        (
            "-i me -c -D connect session-expiry-interval 7",
            false,
            Some(7),
        ),
    ];
    for (words, clean_start, expiry_secs) in table {
        let arguments: Vec<&str> = "sub -t a"
            .split(' ')
            .chain(words.split_whitespace())
            .collect();
        let mut scene = Scene::start(&arguments, "");
        scene.next(|packet| {
            let Packet::Connect(connect) = packet else {
                panic!("{packet:?}");
            };
            let expiry = expiry_secs.map(Property::SessionExpiryInterval);
            assert!(connect.properties.iter().eq(expiry), "{words}");
            assert_eq!(connect.clean_start, clean_start, "{words}");
        });
        scene.connack(ReasonCode::ServerBusy, &[]);
        scene
            .closed()
            .failed("the broker refused the connection: server busy (0x89)");
    }
}

/// One after the other, as the broker's Receive Maximum says; and the last of
/// them is acknowledged before the end.
#[test]
fn sub_clears_what_is_retained() {
    let arguments = "sub -t # --remove-retained --retained-only -T no/# -v";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let max = Property::ReceiveMaximum(NonZeroU16::MIN);
    let mut scene = Scene::connected(&arguments, "", &[max]);
    suback(&mut scene, &[ReasonCode::Success], &[]);
    for (topic, payload, retain) in [
        ("a", "1", true),
        ("no/b", "2", true),
        ("c", "3", true),
        ("c", "live", false),
    ] {
        scene.send(&Packet::Publish(Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain,
            topic,
            packet_id: None,
            properties: Properties::EMPTY,
            payload: payload.as_bytes(),
        }));
    }
    for (number, topic) in [(2, "a"), (3, "c")] {
        scene.next(|packet| {
            let expected = Publish {
                dup: false,
                qos: Qos::AtLeastOnce,
                retain: true,
                topic,
                packet_id: Some(id(number)),
                properties: Properties::EMPTY,
                payload: b"",
            };
            assert_eq!(*packet, Packet::Publish(expected));
        });
        scene.send(&Packet::Puback(Ack::new(id(number))));
    }
    let printed = scene.disconnected(ReasonCode::Success).succeeded();
    assert_eq!(printed, "a 1\nc 3\n");
}

#[test]
fn when_retained_messages_are_sent() {
    let table = [
        ("", RetainHandling::Send),
        ("-R", RetainHandling::DoNotSend),
        ("--retain-handling always", RetainHandling::Send),
        ("--retain-handling new", RetainHandling::SendIfNew),
        ("--retain-handling never", RetainHandling::DoNotSend),
        ("-R --retain-handling new", RetainHandling::SendIfNew),
    ];
    for (words, expected) in table {
        let arguments = "sub -t a -E".split(' ').chain(words.split_whitespace());
        let mut scene = Scene::connected(&arguments.collect::<Vec<_>>(), "", &[]);
        scene.next(|packet| {
            let Packet::Subscribe(subscribe) = packet else {
                panic!("{packet:?}");
            };
            let (_, options) = subscribe.filters[0];
            assert_eq!(options.retain_handling, expected, "{words}");
        });
        scene.send(&Packet::Suback(Suback {
            packet_id: id(1),
            properties: Properties::EMPTY,
            reasons: vec![ReasonCode::Success],
        }));
        scene.disconnected(ReasonCode::Success).succeeded();
    }
}

/// The topic once, and then the alias alone; the other properties always.
#[test]
fn pub_uses_a_topic_alias() {
    let arguments = "pub -t a/b -l -q 1 -D publish topic-alias 3 -D publish content-type x";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let mut scene = Scene::connected(&arguments, "1\n2\n3", &[Property::TopicAliasMaximum(3)]);
    for (number, topic) in [(1, "a/b"), (2, ""), (3, "")] {
        scene.next(|packet| {
            let Packet::Publish(publish) = packet else {
                panic!("{packet:?}");
            };
            assert_eq!(publish.topic, topic);
            assert_eq!(publish.payload, number.to_string().as_bytes());
            let expected = [alias(3), Property::ContentType("x")];
            assert!(publish.properties.iter().eq(expected));
        });
        scene.send(&Packet::Puback(Ack::new(id(number))));
    }
    scene.disconnected(ReasonCode::Success).succeeded();
}

#[test]
fn what_the_broker_does_not_take_is_not_sent() {
    let size = |bytes| Property::MaximumPacketSize(NonZeroU32::new(bytes).unwrap());
    let aliased = ["-D", "publish", "topic-alias", "3"];
    let table: [(&[&str], &[Property<'_>], &str); 6] = [
        (&aliased, &[], "the broker takes no topic alias"),
        (
            &aliased,
            &[Property::TopicAliasMaximum(2)],
            "the broker takes topic aliases of at most 2",
        ),
        (
            &["-r"],
            &[Property::RetainAvailable(false)],
            "the broker retains no messages",
        ),
        (
            &["-q", "2"],
            &[Property::MaximumQos(Qos::AtLeastOnce)],
            "the broker takes messages of at most QoS 1",
        ),
        (
            &["-q", "1"],
            &[size(11)],
            "a PUBLISH of 12 bytes is too long: the broker takes at most 11",
        ),
        (
            &["-D", "publish", "content-type", "x"],
            &[size(13)],
            "a PUBLISH of 14 bytes is too long: the broker takes at most 13",
        ),
    ];
    for (arguments, limits, expected) in table {
        let arguments = [&["pub", "-t", "a", "-m", "mes."], arguments].concat();
        let scene = Scene::connected(&arguments, "", limits);
        scene.disconnected(ReasonCode::Success).failed(expected);
    }
    // As long as it may be.
    let arguments = ["pub", "-t", "a", "-m", "mes.", "-q", "1"];
    let mut scene = Scene::connected(&arguments, "", &[size(12)]);
    scene.expect(PacketType::Publish);
    scene.send(&Packet::Puback(Ack::new(id(1))));
    scene.disconnected(ReasonCode::Success).succeeded();

    let arguments = "sub -t a -D subscribe subscription-identifier 1";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let available = Property::SubscriptionIdentifiersAvailable(false);
    Scene::connected(&arguments, "", &[available])
        .disconnected(ReasonCode::Success)
        .failed("the broker takes no subscription identifier");
}

#[test]
fn pub_keeps_within_the_receive_maximum() {
    let max = Property::ReceiveMaximum(NonZeroU16::new(2).unwrap());
    let lines = "1\n2\n3\n4\n5\n";
    let mut scene = Scene::connected(&["pub", "-t", "a", "-l", "-q", "1"], lines, &[max]);
    for _ in 0..2 {
        scene.expect(PacketType::Publish);
    }
    scene.send(&Packet::Puback(Ack::new(id(1))));
    scene.expect(PacketType::Publish);
    scene.stream.shutdown(Shutdown::Write).unwrap();
    scene
        .disconnected(ReasonCode::Success)
        .failed("the broker closed the connection; 2 messages are not acknowledged");
}

#[test]
fn refusals_are_told_with_what_the_broker_says_of_them() {
    for qos in ["1", "2"] {
        let mut scene = Scene::connected(&["pub", "-t", "a", "-m", "b", "-q", qos], "", &[]);
        scene.expect(PacketType::Publish);
        let properties = buf(&[Property::ReasonString("wait a minute")]);
        let ack = Ack {
            packet_id: id(1),
            reason: ReasonCode::QuotaExceeded,
            properties: properties.as_properties(),
        };
        scene.send(&match qos {
            "1" => Packet::Puback(ack),
            _ => Packet::Pubrec(ack),
        });
        let expected = "the broker refused a message: quota exceeded (0x97): \"wait a minute\"";
        scene.disconnected(ReasonCode::Success).failed(expected);
    }

    let mut scene = Scene::connected(&["sub", "-t", "a", "-t", "b", "-U", "c", "-E"], "", &[]);
    let refused = [ReasonCode::NotAuthorized, ReasonCode::Success];
    let reason = Property::ReasonString("ask \u{202e}Ann");
    suback(&mut scene, &refused, &[reason]);
    scene.expect(PacketType::Unsubscribe);
    scene.send(&Packet::Unsuback(Unsuback {
        packet_id: id(2),
        properties: Properties::EMPTY,
        reasons: vec![ReasonCode::UnspecifiedError],
    }));
    let left = scene.disconnected(ReasonCode::Success);
    assert_eq!(
        left.stderr,
        "rotamq: the broker refused to subscribe to \"a\": not authorized (0x87): \
         \"ask \\u{202e}Ann\"\n\
         rotamq: the broker refused to unsubscribe from \"c\": unspecified error (0x80)\n"
    );
    assert_eq!(left.code, 0);

    let mut scene = Scene::connected(&["sub", "-t", "a"], "", &[]);
    suback(&mut scene, &[ReasonCode::TopicFilterInvalid], &[]);
    scene
        .disconnected(ReasonCode::Success)
        .failed("the broker refused to subscribe to \"a\": topic filter invalid (0x8F)");
}

/// Nothing is said to a broker that has said good-bye.
#[test]
fn a_disconnect_of_the_broker_is_told() {
    let table: [(ReasonCode, &[Property<'_>], &str); 2] = [
        (
            ReasonCode::SessionTakenOver,
            &[],
            "the broker closed the connection: session taken over (0x8E)",
        ),
        (
            ReasonCode::ServerMoved,
            &[
                Property::ReasonString("so it is"),
                Property::ServerReference("there:1883"),
            ],
            "the broker closed the connection: server moved (0x9D): \"so it is\"; \
             use the server \"there:1883\"",
        ),
    ];
    for (reason, properties, expected) in table {
        for arguments in [&["sub", "-t", "a"][..], &["pub", "-t", "a", "-l"]] {
            let mut scene = Scene::connected(arguments, "", &[]);
            if arguments[0] == "sub" {
                suback(&mut scene, &[ReasonCode::Success], &[]);
            }
            scene.send(&Packet::Disconnect(Disconnect {
                reason,
                properties: buf(properties).as_properties(),
            }));
            scene.closed().failed(expected);
        }
    }
}

/// Case A28 of docs/security.md.
#[test]
fn sub_knows_the_topics_behind_aliases() {
    let arguments = "sub -t # -C 5 -F %t|%A -D connect topic-alias-maximum 2";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let mut scene = Scene::connected(&arguments, "", &[]);
    suback(&mut scene, &[ReasonCode::Success], &[]);
    for (topic, number) in [("a", 1), ("b", 2), ("", 1), ("c", 1), ("", 1)] {
        scene.send(&publish(topic, buf(&[alias(number)]).as_properties()));
    }
    let left = scene.disconnected(ReasonCode::Success);
    assert_eq!(left.succeeded(), "a|1\nb|2\na|1\nc|1\nc|1\n");

    for (topic, number, expected) in [
        ("", 2, "the broker sent topic alias 2 without a topic"),
        (
            "a",
            3,
            "the broker sent topic alias 3; it may use at most 2",
        ),
    ] {
        let mut scene = Scene::connected(&arguments, "", &[]);
        scene.expect(PacketType::Subscribe);
        scene.send(&publish(topic, buf(&[alias(number)]).as_properties()));
        scene
            .disconnected(ReasonCode::TopicAliasInvalid)
            .failed(expected);
    }
    // None is offered if none is asked for.
    let mut scene = Scene::connected(&["sub", "-t", "#"], "", &[]);
    scene.expect(PacketType::Subscribe);
    scene.send(&publish("a", buf(&[alias(1)]).as_properties()));
    scene
        .disconnected(ReasonCode::TopicAliasInvalid)
        .failed("the broker sent topic alias 1; it may use at most 0");
}

/// Cases A25 and A28 of docs/security.md.
#[test]
fn invalid_packets_are_answered_with_the_reason() {
    let mut scene = Scene::connected(&["sub", "-t", "a"], "", &[]);
    scene.expect(PacketType::Subscribe);
    scene.stream.write_all(&[0x00, 0x00]).unwrap();
    let left = scene.disconnected(ReasonCode::MalformedPacket);
    assert!(left.stderr.contains("no valid packet"), "{}", left.stderr);
    assert_eq!(left.code, 1);

    let arguments = [
        "sub",
        "-t",
        "a",
        "-D",
        "connect",
        "maximum-packet-size",
        "6",
    ];
    let mut scene = Scene::connected(&arguments, "", &[]);
    scene.expect(PacketType::Subscribe);
    scene.send(&publish("a", Properties::EMPTY));
    let left = scene.disconnected(ReasonCode::PacketTooLarge);
    assert_eq!(left.code, 1);
}

#[test]
fn the_brokers_keep_alive_counts() {
    let mut scene = Scene::connected(
        &["sub", "-t", "a", "-k", "0"],
        "",
        &[Property::ServerKeepAlive(1)],
    );
    suback(&mut scene, &[ReasonCode::Success], &[]);
    scene.expect(PacketType::Pingreq);
    scene.send(&Packet::Pingresp);
    scene.expect(PacketType::Pingreq);
    scene.stream.shutdown(Shutdown::Both).unwrap();
    scene.closed().failed("the broker closed the connection");
}

#[test]
fn brokers_that_let_nobody_in() {
    let hint = "if it does not speak MQTT 5, add -V 3.1.1";
    let refused = |reason, properties: &[Property<'_>]| {
        let mut bytes = Vec::new();
        let properties = buf(properties);
        let packet = Packet::Connack(Connack {
            session_present: false,
            reason,
            properties: properties.as_properties(),
        });
        encode(&packet, Version::V5, &mut bytes);
        bytes
    };
    let table = [
        (vec![], format!("the broker closed the connection; {hint}")),
        // As brokers of before MQTT 5 answer.
        (
            vec![0x20, 2, 0, 1],
            format!(
                "the broker sent no valid packet: the reason code is none that this packet may \
                 have (reason 0x82); {hint}"
            ),
        ),
        (
            refused(ReasonCode::UnsupportedProtocolVersion, &[]),
            format!(
                "the broker refused the connection: unsupported protocol version (0x84); {hint}"
            ),
        ),
        (
            refused(
                ReasonCode::UseAnotherServer,
                &[Property::ServerReference("there")],
            ),
            "the broker refused the connection: use another server (0x9C); \
             use the server \"there\""
                .to_owned(),
        ),
    ];
    for (answer, expected) in table {
        let mut scene = Scene::start(&["pub", "-t", "a", "-n"], "");
        scene.expect(PacketType::Connect);
        scene.stream.write_all(&answer).unwrap();
        scene.stream.shutdown(Shutdown::Write).unwrap();
        scene.closed().failed(&expected);
    }

    let arguments = "pub -t a -n -D connect authentication-method SCRAM-SHA-256";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let mut scene = Scene::start(&arguments, "");
    scene.expect(PacketType::Connect);
    let method = buf(&[Property::AuthenticationMethod("SCRAM-SHA-256")]);
    scene.send(&Packet::Auth(Auth {
        reason: ReasonCode::ContinueAuthentication,
        properties: method.as_properties(),
    }));
    scene.closed().failed(
        "the broker asks for enhanced authentication, which is not done from the command line",
    );
}

/// All that a packet says, and nothing secret.
#[test]
fn packets_are_shown_when_asked_for() {
    let arguments = "pub -d -i me -t a -m hi -q 1 -u ann -P secret -D publish content-type x \
        -D publish user-property a b -D connect authentication-method m \
        -D connect authentication-data secret";
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let assigned = [
        Property::AssignedClientIdentifier("you"),
        Property::RetainAvailable(false),
        Property::MaximumQos(Qos::AtLeastOnce),
        Property::AuthenticationMethod("m"),
        Property::AuthenticationData(b"hidden"),
    ];
    let mut scene = Scene::connected(&arguments, "", &assigned);
    scene.expect(PacketType::Publish);
    let reason = buf(&[Property::ReasonString("none \"yet\"")]);
    scene.send(&Packet::Puback(Ack {
        packet_id: id(1),
        reason: ReasonCode::NoMatchingSubscribers,
        properties: reason.as_properties(),
    }));
    let left = scene.disconnected(ReasonCode::Success);
    let expected = "\
rotamq: sending CONNECT as \"me\", clean session 1, keep alive 60 s, user Some(\"ann\"), will None; \
authentication-method \"m\", authentication-data of 6 bytes
rotamq: received CONNACK: success (0x00), session present 0; assigned-client-identifier \"you\", \
retain-available 0, maximum-qos 1, authentication-method \"m\", authentication-data of 6 bytes
rotamq: sending PUBLISH 1 to \"a\": QoS 1, dup 0, retain 0, 2 bytes; content-type \"x\", \
user-property \"a\" \"b\"
rotamq: received PUBACK 1: no matching subscribers (0x10); reason-string \"none \\\"yet\\\"\"
rotamq: sending DISCONNECT: success (0x00)
";
    assert_eq!(left.stderr, expected);
    assert_eq!(left.code, 0);
}

#[test]
fn grants_and_the_like_are_shown_too() {
    let arguments = "sub -d -i me -t a -t b -q 2 --no-local -U c -E";
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let mut scene = Scene::connected(&arguments, "", &[]);
    let reasons = [ReasonCode::Success, ReasonCode::GrantedQos2];
    suback(&mut scene, &reasons, &[Property::UserProperty(("k", "v"))]);
    scene.expect(PacketType::Unsubscribe);
    scene.send(&Packet::Unsuback(Unsuback {
        packet_id: id(2),
        properties: Properties::EMPTY,
        reasons: vec![ReasonCode::NoSubscriptionExisted],
    }));
    let left = scene.disconnected(ReasonCode::Success);
    let lines: Vec<&str> = left.stderr.lines().skip(2).collect();
    let expected = [
        "sending SUBSCRIBE 1: \"a\" at QoS 2, no local, \"b\" at QoS 2, no local",
        "sending UNSUBSCRIBE 2: [\"c\"]",
        "received SUBACK 1: granted QoS 0, granted QoS 2; user-property \"k\" \"v\"",
        "received UNSUBACK 2: no subscription existed (0x11)",
        "sending DISCONNECT: success (0x00)",
    ];
    assert_eq!(lines, expected.map(|line| format!("rotamq: {line}")));
}

/// Found before anything is sent.
#[test]
fn arguments_that_contradict_each_other() {
    let table = [
        (
            "-V 3.1.1 -D publish topic-alias 1",
            "-D needs MQTT 5: add -V 5",
        ),
        ("-V 3.1 -x 5", "-x needs MQTT 5: add -V 5"),
        (
            "-V 3.1.1 -P secret",
            "a password without a user name (-u) needs MQTT 5: add -V 5",
        ),
        (
            "-x 5 -D connect session-expiry-interval 5",
            "the session's expiry is given twice, by -x and -D",
        ),
        (
            "-x ∞",
            "a session that never ends needs a client identifier: add -i",
        ),
        (
            "-D disconnect session-expiry-interval 1",
            "DISCONNECT cannot prolong a session that ends with the connection: add -x",
        ),
        ("-D will content-type x", "-D will needs --will-topic"),
        (
            "-D connect authentication-data x",
            "authentication-data needs authentication-method",
        ),
        (
            "-D subscribe user-property a b",
            "-D subscribe user-property a b: the command is one of connect, will, publish, \
             pubrel, disconnect",
        ),
    ];
    for (words, expected) in table {
        let mut arguments = vec!["pub", "-t", "a", "-n"];
        arguments.extend(words.split(' '));
        let output = output(&arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(stderr, format!("rotamq: {expected}\n"), "{words}");
        assert_eq!(output.status.code(), Some(1));
    }
    let table = [
        (
            "-V 3.1.1 --no-local",
            "--no-local, --retain-as-published and --retain-handling need MQTT 5: add -V 5",
        ),
        (
            "--no-local -t $share/g/a",
            "a $share/ group cannot have --no-local",
        ),
    ];
    for (words, expected) in table {
        let mut arguments = vec!["sub", "-t", "a"];
        arguments.extend(words.split(' '));
        let output = output(&arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(stderr, format!("rotamq: {expected}\n"), "{words}");
    }
}
