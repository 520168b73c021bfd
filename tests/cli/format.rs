//! Format strings of `rotamq sub`, as mosquitto_sub(1) has them.

use std::num::NonZeroU16;
use std::time::{Duration, SystemTime};

use rotamq::cli::format::Format;
use rotamq::message::{PacketId, Qos};
use rotamq::protocol::{Properties, PropertiesBuf, Property, Publish, SubscriptionId};
use rotamq::topic::{TopicLimits, TopicName};

fn at(secs: u64, nanos: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(secs, nanos)
}

fn message<'a>(payload: &'a [u8], properties: Properties<'a>) -> Publish<'a> {
    Publish {
        dup: false,
        qos: Qos::AtLeastOnce,
        retain: true,
        topic: "a/ü",
        packet_id: PacketId::new(7),
        properties,
        payload,
    }
}

fn format(format: &str, message: &Publish<'_>) -> String {
    let mut out = Vec::new();
    let at = at(1_470_818_943, 86_368_637);
    Format::parse(format)
        .unwrap()
        .write(message, at, &mut out)
        .unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn formats() {
    let table = [
        ("", ""),
        ("plain ü", "plain ü"),
        ("%t|%p|%q|%r|%m|%l|%%", "a/ü|hi \"you\"|1|1|7|8|%"),
        ("%x %X", "68692022796f7522 68692022796F7522"),
        // Width, flags and greatest width.
        (
            "%5t|%-5t|%05t|%.2t|%5.2t|%-5.1t|%.0t",
            "  a/ü|a/ü  |  a/ü|a/|   a/|a    |",
        ),
        (
            "%10p|%-10p|%010p|%.3p",
            "  hi \"you\"|hi \"you\"  |  hi \"you\"|hi \"you\"",
        ),
        ("%5l|%05l|%-5l|%-05l|%0-5l", "    8|00008|8    |8    |8    "),
        ("%3m|%03m", "  7|007"),
        ("%18x|%018x", "  68692022796f7522|0068692022796f7522"),
        // No width for these.
        ("%5q|%05r|%5%", "1|1|%"),
        // Times.
        ("%I", "2016-08-10T08:49:03+0000"),
        (
            "%26I|%-26I|%.4I",
            "  2016-08-10T08:49:03+0000|2016-08-10T08:49:03+0000  |2016",
        ),
        ("%U", "1470818943.086368637"),
        (
            "@Y-@m-@dT@H:@M:@S.@N@z @@",
            "2016-08-10T08:49:03.086368637+0000 @",
        ),
        // Escapes.
        (r"\\ \0 \a \e \n \r \t \v", "\\ \0 \x07 \x1b \n \r \t \x0b"),
        // Properties of MQTT 5 that are not there.
        ("[%A%C%D%E%F%P%R%S|%5A|%05E|%3P]", "[|     |00000|]"),
        (
            "%j",
            r#"{"tst":"2016-08-10T08:49:03.086368+0000","topic":"a/ü","qos":1,"retain":1,"payloadlen":8,"mid":7,"payload":"hi \"you\""}"#,
        ),
    ];
    let message = message(b"hi \"you\"", Properties::EMPTY);
    for (text, expected) in table {
        assert_eq!(format(text, &message), expected, "{text}");
    }
}

#[test]
fn properties_of_mqtt_5() {
    let topic = TopicName::parse("re/x", TopicLimits::NONE).unwrap();
    let mut properties = PropertiesBuf::new();
    properties
        .push(Property::PayloadFormatIndicator(true))
        .push(Property::MessageExpiryInterval(100))
        .push(Property::ContentType("text/plain"))
        .push(Property::ResponseTopic(topic))
        .push(Property::CorrelationData(b"abc"))
        .push(Property::UserProperty(("a", "b")))
        .push(Property::UserProperty(("c", "\"d\"")));
    let message = message(b"hi", properties.as_properties());
    let table = [
        ("%C|%D|%E|%F|%P|%R", "text/plain|abc|100|1|a:b c:\"d\"|re/x"),
        (
            "%12C|%.4C|%05E|%-5F|%6.2R",
            "  text/plain|text|00100|1    |    re",
        ),
        (
            "%j",
            r#"{"tst":"2016-08-10T08:49:03.086368+0000","topic":"a/ü","qos":1,"retain":1,"payloadlen":2,"mid":7,"properties":{"payload-format-indicator":1,"message-expiry-interval":100,"content-type":"text/plain","response-topic":"re/x","correlation-data":"abc","user-properties":{"a":"b","c":"\"d\""}},"payload":"hi"}"#,
        ),
    ];
    for (text, expected) in table {
        assert_eq!(format(text, &message), expected, "{text}");
    }
}

/// An object of JSON with a name twice would lose one of them.
#[test]
fn properties_that_repeat() {
    let mut properties = PropertiesBuf::new();
    for id in [7, 268_435_455] {
        properties.push(Property::SubscriptionIdentifier(
            SubscriptionId::new(id).unwrap(),
        ));
    }
    properties.push(Property::TopicAlias(NonZeroU16::MAX));
    for (name, value) in [("a", "1"), ("b", "2"), ("a", "3"), ("", "")] {
        properties.push(Property::UserProperty((name, value)));
    }
    let message = message(b"hi", properties.as_properties());
    assert_eq!(
        format("%S|%P|%A|%08S|%7A|%-7A|", &message),
        "7 268435455|a:1 b:2 a:3 :|65535|7 268435455|  65535|65535  |"
    );
    let object: serde_json::Value = serde_json::from_str(&format("%j", &message)).unwrap();
    let expected = serde_json::json!({
        "subscription-identifier": [7, 268_435_455],
        "topic-alias": 65_535,
        "user-properties": { "a": ["1", "3"], "b": "2", "": "" },
    });
    assert_eq!(object["properties"], expected);
}

#[test]
fn a_payload_is_printed_byte_for_byte() {
    let mut out = Vec::new();
    let message = message(b"\xff\0\n", Properties::EMPTY);
    let format = Format::parse("%p|%5p|%-5p|%x").unwrap();
    format.write(&message, at(0, 0), &mut out).unwrap();
    assert_eq!(out, b"\xff\0\n|  \xff\0\n|\xff\0\n  |ff000a");
}

#[test]
fn json_payloads() {
    let object = message(br#" {"b": [1.0, null], "a": "x"} "#, Properties::EMPTY);
    let text = format("%J", &object);
    assert!(
        text.ends_with(r#","payload":{"b": [1.0, null], "a": "x"}}"#),
        "{text}"
    );
    assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    for payload in [&b"{"[..], b"", b"1 2", b"\xff", b"nul"] {
        let message = message(payload, Properties::EMPTY);
        let refused = Format::parse("%J")
            .unwrap()
            .write(&message, at(0, 0), &mut Vec::new());
        let text = "the payload of a message to \"a/ü\" is no JSON";
        assert_eq!(refused.unwrap_err(), text, "{payload:?}");
        // As text it can be shown anyhow.
        let text = format("%j", &message);
        assert!(
            serde_json::from_str::<serde_json::Value>(&text).is_ok(),
            "{text}"
        );
    }
}

#[test]
fn formats_that_mean_nothing() {
    let table = [
        ("%b", "%b means nothing"),
        ("%", "nothing follows the last %"),
        ("%-05.3", "nothing follows the last %"),
        ("@", "nothing follows the last @"),
        ("@!", "@! means nothing"),
        ("x\\", "nothing follows the last \\"),
        ("\\q", "\\q means nothing"),
        ("%\n", "%\\n means nothing"),
        ("%10001t", "a field has a width of at most 10000"),
        (
            "%.99999999999999999999999999t",
            "a field has a width of at most 10000",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(Format::parse(text).unwrap_err(), expected, "{text}");
    }
    assert!(Format::parse("%10000.10000t").is_ok());
}

#[test]
fn times_as_strftime_has_them() {
    const ALL: &str = "@a @A @b @B @h|@c|@C @d @D @e @F @g @G @H @I @j @k @l @m @M @p @P|@r|@R @s @S @T @u @U @V @w @W @x @X @y @Y @z @Z";
    // From GNU date.
    let table = [
        (
            0,
            "Thu Thursday Jan January Jan|Thu Jan  1 00:00:00 1970|19 01 01/01/70  1 1970-01-01 70 1970 00 12 001  0 12 01 00 AM am|12:00:00 AM|00:00 0 00 00:00:00 4 00 01 4 00 01/01/70 00:00:00 70 1970 +0000 UTC",
        ),
        (
            951782399,
            "Mon Monday Feb February Feb|Mon Feb 28 23:59:59 2000|20 28 02/28/00 28 2000-02-28 00 2000 23 11 059 23 11 02 59 PM pm|11:59:59 PM|23:59 951782399 59 23:59:59 1 09 09 1 09 02/28/00 23:59:59 00 2000 +0000 UTC",
        ),
        (
            951782400,
            "Tue Tuesday Feb February Feb|Tue Feb 29 00:00:00 2000|20 29 02/29/00 29 2000-02-29 00 2000 00 12 060  0 12 02 00 AM am|12:00:00 AM|00:00 951782400 00 00:00:00 2 09 09 2 09 02/29/00 00:00:00 00 2000 +0000 UTC",
        ),
        (
            1104537599,
            "Fri Friday Dec December Dec|Fri Dec 31 23:59:59 2004|20 31 12/31/04 31 2004-12-31 04 2004 23 11 366 23 11 12 59 PM pm|11:59:59 PM|23:59 1104537599 59 23:59:59 5 52 53 5 52 12/31/04 23:59:59 04 2004 +0000 UTC",
        ),
        (
            1230768000,
            "Thu Thursday Jan January Jan|Thu Jan  1 00:00:00 2009|20 01 01/01/09  1 2009-01-01 09 2009 00 12 001  0 12 01 00 AM am|12:00:00 AM|00:00 1230768000 00 00:00:00 4 00 01 4 00 01/01/09 00:00:00 09 2009 +0000 UTC",
        ),
        (
            1451606399,
            "Thu Thursday Dec December Dec|Thu Dec 31 23:59:59 2015|20 31 12/31/15 31 2015-12-31 15 2015 23 11 365 23 11 12 59 PM pm|11:59:59 PM|23:59 1451606399 59 23:59:59 4 52 53 4 52 12/31/15 23:59:59 15 2015 +0000 UTC",
        ),
        (
            1709164800,
            "Thu Thursday Feb February Feb|Thu Feb 29 00:00:00 2024|20 29 02/29/24 29 2024-02-29 24 2024 00 12 060  0 12 02 00 AM am|12:00:00 AM|00:00 1709164800 00 00:00:00 4 08 09 4 09 02/29/24 00:00:00 24 2024 +0000 UTC",
        ),
        (
            1735689599,
            "Tue Tuesday Dec December Dec|Tue Dec 31 23:59:59 2024|20 31 12/31/24 31 2024-12-31 25 2025 23 11 366 23 11 12 59 PM pm|11:59:59 PM|23:59 1735689599 59 23:59:59 2 52 01 2 53 12/31/24 23:59:59 24 2024 +0000 UTC",
        ),
        (
            1798761600,
            "Fri Friday Jan January Jan|Fri Jan  1 00:00:00 2027|20 01 01/01/27  1 2027-01-01 26 2026 00 12 001  0 12 01 00 AM am|12:00:00 AM|00:00 1798761600 00 00:00:00 5 00 53 5 00 01/01/27 00:00:00 27 2027 +0000 UTC",
        ),
        (
            4107542400,
            "Mon Monday Mar March Mar|Mon Mar  1 00:00:00 2100|21 01 03/01/00  1 2100-03-01 00 2100 00 12 060  0 12 03 00 AM am|12:00:00 AM|00:00 4107542400 00 00:00:00 1 09 09 1 09 03/01/00 00:00:00 00 2100 +0000 UTC",
        ),
    ];
    let message = message(b"", Properties::EMPTY);
    let parsed = Format::parse(ALL).unwrap();
    for (secs, expected) in table {
        let mut out = Vec::new();
        parsed.write(&message, at(secs, 0), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{secs}");
    }
}
