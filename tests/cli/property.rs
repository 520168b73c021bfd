//! `-D COMMAND PROPERTY VALUE`, as mosquitto's clients have it.

use std::num::{NonZeroU16, NonZeroU32};

use clap::Parser;
use rotamq::cli::Failure;
use rotamq::cli::property::{GivenProperties, PropertyArguments, help};
use rotamq::protocol::{PacketType, Properties, Property, SubscriptionId};
use rotamq::topic::{TopicLimits, TopicName};

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    properties: PropertyArguments,
    #[arg(short)]
    verbose: bool,
}

/// All that a client sends properties in.
const PACKETS: [PacketType; 10] = [
    PacketType::Connect,
    PacketType::Will,
    PacketType::Publish,
    PacketType::Puback,
    PacketType::Pubrec,
    PacketType::Pubrel,
    PacketType::Pubcomp,
    PacketType::Subscribe,
    PacketType::Unsubscribe,
    PacketType::Disconnect,
];

fn given(words: &[&str]) -> Result<GivenProperties, Failure> {
    let arguments = Arguments::parse_from([&["rotamq"], words].concat());
    arguments.properties.read(&PACKETS)
}

#[test]
fn every_property_that_a_client_may_send() {
    use PacketType::*;
    let topic = TopicName::parse("re/x", TopicLimits::NONE).unwrap();
    let table: [(&str, &[&str], Property<'_>, &[PacketType]); 26] = [
        (
            "authentication-method",
            &["PLAIN"],
            Property::AuthenticationMethod("PLAIN"),
            &[Connect],
        ),
        (
            "content-type",
            &["text/plain; a=b"],
            Property::ContentType("text/plain; a=b"),
            &[Publish, Will],
        ),
        (
            "correlation-data",
            &["ü\n"],
            Property::CorrelationData("ü\n".as_bytes()),
            &[Publish, Will],
        ),
        (
            "maximum-packet-size",
            &["4294967295"],
            Property::MaximumPacketSize(NonZeroU32::MAX),
            &[Connect],
        ),
        (
            "maximum-packet-size",
            &["1"],
            Property::MaximumPacketSize(NonZeroU32::MIN),
            &[Connect],
        ),
        (
            "message-expiry-interval",
            &["0"],
            Property::MessageExpiryInterval(0),
            &[Publish, Will],
        ),
        (
            "payload-format-indicator",
            &["1"],
            Property::PayloadFormatIndicator(true),
            &[Publish, Will],
        ),
        (
            "payload-format-indicator",
            &["0"],
            Property::PayloadFormatIndicator(false),
            &[Publish, Will],
        ),
        (
            "reason-string",
            &["so"],
            Property::ReasonString("so"),
            &[Puback, Pubrec, Pubrel, Pubcomp, Disconnect],
        ),
        (
            "receive-maximum",
            &["10"],
            Property::ReceiveMaximum(NonZeroU16::new(10).unwrap()),
            &[Connect],
        ),
        (
            "request-problem-information",
            &["0"],
            Property::RequestProblemInformation(false),
            &[Connect],
        ),
        (
            "request-response-information",
            &["1"],
            Property::RequestResponseInformation(true),
            &[Connect],
        ),
        (
            "response-topic",
            &["re/x"],
            Property::ResponseTopic(topic),
            &[Publish, Will],
        ),
        (
            "session-expiry-interval",
            &["60"],
            Property::SessionExpiryInterval(60),
            &[Connect, Disconnect],
        ),
        (
            "session-expiry-interval",
            &["4294967295"],
            Property::SessionExpiryInterval(u32::MAX),
            &[Connect, Disconnect],
        ),
        (
            "session-expiry-interval",
            &["-1"],
            Property::SessionExpiryInterval(u32::MAX),
            &[Connect, Disconnect],
        ),
        (
            "session-expiry-interval",
            &["∞"],
            Property::SessionExpiryInterval(u32::MAX),
            &[Connect, Disconnect],
        ),
        (
            "subscription-identifier",
            &["1"],
            Property::SubscriptionIdentifier(SubscriptionId::new(1).unwrap()),
            &[Subscribe],
        ),
        (
            "subscription-identifier",
            &["268435455"],
            Property::SubscriptionIdentifier(SubscriptionId::new(268_435_455).unwrap()),
            &[Subscribe],
        ),
        (
            "topic-alias",
            &["65535"],
            Property::TopicAlias(NonZeroU16::MAX),
            &[Publish],
        ),
        (
            "topic-alias-maximum",
            &["0"],
            Property::TopicAliasMaximum(0),
            &[Connect],
        ),
        (
            "topic-alias-maximum",
            &["65535"],
            Property::TopicAliasMaximum(u16::MAX),
            &[Connect],
        ),
        (
            "will-delay-interval",
            &["4294967295"],
            Property::WillDelayInterval(u32::MAX),
            &[Will],
        ),
        (
            "user-property",
            &["", ""],
            Property::UserProperty(("", "")),
            &PACKETS,
        ),
        (
            "user-property",
            &["-1", "-0.5"],
            Property::UserProperty(("-1", "-0.5")),
            &PACKETS,
        ),
        (
            "User-Property",
            &["ü", "b c"],
            Property::UserProperty(("ü", "b c")),
            &PACKETS,
        ),
    ];
    for (name, values, property, packets) in table {
        for packet in PACKETS {
            let command = format!("{packet:?}");
            let mut words = vec!["-D", &command, name];
            words.extend(values);
            match given(&words) {
                Ok(given) => {
                    assert!(packets.contains(&packet), "{words:?}");
                    let properties = given.of(packet);
                    assert!(properties.iter().eq([property]), "{words:?}");
                    // It may stand there: the codec has the specification's table.
                    let parsed = Properties::parse(properties.as_bytes(), packet);
                    assert_eq!(parsed, Ok(properties), "{words:?}");
                    for other in PACKETS {
                        assert!(other == packet || given.of(other).is_empty());
                    }
                }
                Err(_) => assert!(!packets.contains(&packet), "{words:?}"),
            }
        }
    }
    let data = [
        &["-D", "connect", "authentication-method", "m"][..],
        &["--property", "connect", "authentication-data", "\0x"],
    ];
    let given = given(&data.concat()).unwrap();
    let expected = [
        Property::AuthenticationMethod("m"),
        Property::AuthenticationData(b"\0x"),
    ];
    assert!(given.of(PacketType::Connect).iter().eq(expected));
}

#[test]
fn user_properties_repeat_and_keep_their_order() {
    let given = given(&[
        "-D",
        "publish",
        "user-property",
        "a",
        "1",
        "-v",
        "-D",
        "PUBLISH",
        "user-property",
        "b",
        "2",
        "-D",
        "publish",
        "topic-alias",
        "3",
        "-D",
        "publish",
        "user-property",
        "a",
        "1",
    ])
    .unwrap();
    let expected = [
        Property::UserProperty(("a", "1")),
        Property::UserProperty(("b", "2")),
        Property::TopicAlias(NonZeroU16::new(3).unwrap()),
        Property::UserProperty(("a", "1")),
    ];
    assert!(given.of(PacketType::Publish).iter().eq(expected));
}

#[test]
fn what_is_wrong_is_told_with_what_may_be() {
    let long = "x".repeat(65_536);
    let u32s = "it is a whole number from 0 to 4294967295";
    let u16s = "it is a whole number from 1 to 65535";
    let table: [(&[&str], &str); 21] = [
        (
            &["pingreq", "user-property", "a", "b"],
            "the command is one of connect, will, publish, puback, pubrec, pubrel, pubcomp, \
             subscribe, unsubscribe, disconnect",
        ),
        (
            &["subscribe", "no-such", "1"],
            "the properties of subscribe are subscription-identifier, user-property",
        ),
        (
            &["publish", "subscription-identifier", "1"],
            "the properties of publish are content-type, correlation-data, \
             message-expiry-interval, payload-format-indicator, response-topic, topic-alias, \
             user-property",
        ),
        (&["publish", "topic-alias", "1", "2"], "it takes one value"),
        (
            &["publish", "user-property", "a"],
            "it takes a name and a value",
        ),
        (&["publish", "topic-alias", "0"], u16s),
        (&["publish", "topic-alias", "65536"], u16s),
        (&["publish", "topic-alias", "a"], u16s),
        (&["publish", "topic-alias", "1.5"], u16s),
        (&["connect", "receive-maximum", "-1"], u16s),
        (
            &["connect", "topic-alias-maximum", "65536"],
            "it is a whole number from 0 to 65535",
        ),
        (
            &["connect", "maximum-packet-size", "0"],
            "it is a whole number from 1 to 4294967295",
        ),
        (&["will", "will-delay-interval", "4294967296"], u32s),
        (&["publish", "message-expiry-interval", "-1"], u32s),
        (
            &["connect", "session-expiry-interval", "-2"],
            "it is a whole number from 0 to 4294967295, or ∞ for never",
        ),
        (
            &["subscribe", "subscription-identifier", "268435456"],
            "it is a whole number from 1 to 268435455",
        ),
        (
            &["publish", "payload-format-indicator", "2"],
            "it is 0 or 1",
        ),
        (
            &["publish", "content-type", "a\tb"],
            "it has a control character",
        ),
        (
            &["publish", "correlation-data", &long],
            "it is longer than 65535 bytes",
        ),
        (
            &["publish", "user-property", &long, ""],
            "it is longer than 65535 bytes",
        ),
        (
            &["publish", "response-topic", "a/#"],
            "it has a wildcard; a topic name has none",
        ),
    ];
    for (words, expected) in table {
        let expected = Failure::new(format!("-D {}: {expected}", words.join(" ")));
        assert_eq!(given(&[&["-D"], words].concat()), Err(expected));
    }
    let twice = given(&[
        "-D",
        "will",
        "content-type",
        "a",
        "-D",
        "publish",
        "content-type",
        "b",
        "-D",
        "will",
        "content-type",
        "c",
    ]);
    let expected = "-D will content-type c: it is given twice";
    assert_eq!(twice, Err(Failure::new(expected)));
}

#[test]
fn only_what_the_command_sends_is_taken() {
    let arguments = Arguments::parse_from(["rotamq", "-D", "publish", "topic-alias", "1"]);
    let subscriber = [PacketType::Connect, PacketType::Subscribe];
    let expected = "-D publish topic-alias 1: the command is one of connect, subscribe";
    assert_eq!(
        arguments.properties.read(&subscriber),
        Err(Failure::new(expected))
    );
    for too_few in [
        &["-D"][..],
        &["-D", "publish"],
        &["-D", "publish", "topic-alias"],
    ] {
        assert!(Arguments::try_parse_from([&["rotamq"], too_few].concat()).is_err());
    }
}

#[test]
fn help_names_them_all() {
    let help = help(&PACKETS);
    for packet in PACKETS {
        let command = format!("  {}: ", format!("{packet:?}").to_lowercase());
        let line = help.lines().find_map(|line| line.strip_prefix(&command));
        for name in line.unwrap().split(' ') {
            let one = ["-D", &command[2..command.len() - 2], name, "1"];
            let two = ["-D", &command[2..command.len() - 2], name, "1", "2"];
            assert!(given(&one).is_ok() || given(&two).is_ok(), "{name}");
        }
    }
}
