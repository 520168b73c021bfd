//! Fuzz targets: what must hold for any bytes at all.
//!
//! `fuzz/run` builds this file with coverage instrumentation and `cfg(fuzzing)`
//! and lets libFuzzer look for bytes that break a target. Built as any other
//! test, it runs each target over its kept corpus, `fuzz/corpus/TARGET`.

#![cfg_attr(fuzzing, no_main)]

use std::io::{self, Cursor, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rotamq::access::OwnRights;
use rotamq::access::rules::{Ask, Reach, Rules, Strictness};
use rotamq::authentication::Tokens;
use rotamq::authentication::certificates::user_of;
use rotamq::authentication::passwords::{Line, Users};
use rotamq::authentication::scram::Challenge;
use rotamq::authentication::service::{Finding, read_answer};
use rotamq::authentication::stored::Stored;
use rotamq::broker::steer::Request;
use rotamq::broker::{Core, Worker};
use rotamq::config::{
    ClientUser, Config, Durability, Effective, Flags, Origin, Source, TokenAlgorithm,
    TokenSettings, WebSocketSettings,
};
use rotamq::journal::{Body, Change, Journal, ListId};
use rotamq::message::{ClientId, Identity, Time};
use rotamq::mount::{Mount, leave_properties, leave_queue};
use rotamq::net::proxy;
use rotamq::net::websocket::frames::{CloseCode, Control, Frames};
use rotamq::net::websocket::upgrade::{head_len, upgrade};
use rotamq::protocol::{
    Packet, PacketType, Properties, PropertiesBuf, ReasonCode, Version, decode, decode_connect,
    encode,
};
use rotamq::store::twin::Twin;
use rotamq::store::{Report, Settings, Store};
use rotamq::topic::{TopicFilter, TopicLimits, TopicName};

/// Panics if something does not hold for these bytes.
type Target = fn(&[u8]);

/// By name; which one `fuzz/run` means stands in `FUZZ_TARGET`.
const TARGETS: &[(&str, Target)] = &[
    ("packets", packets),
    ("stream", stream),
    ("topics", topics),
    ("passwords", passwords),
    ("scram", scram),
    ("acl", acl),
    ("rules", rules),
    ("proxy", proxied),
    ("upgrade", upgraded),
    ("frames", framed),
    ("tokens", tokens),
    ("keys", keys),
    ("answers", answers),
    ("certificates", certificates),
    ("mounts", mounts),
    ("configuration", configuration),
    ("requests", requests),
    ("damage", damage),
    ("records", records),
];

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static TARGET: std::sync::LazyLock<Target> = std::sync::LazyLock::new(|| {
        let name = std::env::var("FUZZ_TARGET").expect("fuzz/run sets FUZZ_TARGET");
        let target = TARGETS.iter().find(|target| target.0 == name);
        target.expect("FUZZ_TARGET is one of TARGETS").1
    });
    TARGET(bytes);
});

/// Case B16 of docs/security.md.
#[cfg(not(fuzzing))]
#[test]
fn the_kept_corpus_still_holds() {
    for &(name, target) in TARGETS {
        let corpus = format!("{}/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
        let mut inputs = 0;
        for entry in std::fs::read_dir(&corpus).expect("every target has a corpus") {
            let path = entry.expect("the corpus can be listed").path();
            // A failure's output ends with the input that it is about.
            println!("{}", path.display());
            target(&std::fs::read(path).expect("the corpus can be read"));
            inputs += 1;
        }
        assert!(inputs > 0, "{corpus} is empty");
    }
}

const BYTES_MAX: usize = 1 << 20;

/// Whatever is read is written and read again as the same, in every version;
/// what is refused has a reason that the specification has for it.
fn packets(bytes: &[u8]) {
    for version in [Version::V3_1, Version::V3_1_1, Version::V5] {
        match decode(bytes, version, BYTES_MAX) {
            Ok(Some((packet, used))) => {
                assert!((2..=bytes.len()).contains(&used));
                // A CONNECT says its version itself.
                let mut written = vec![];
                encode(&packet, version, &mut written);
                assert!(
                    written.len() <= used,
                    "nothing is written longer than it was"
                );
                let again = decode(&written, version, BYTES_MAX);
                assert_eq!(again, Ok(Some((packet.clone(), written.len()))));
                check_properties(&packet);
            }
            Ok(None) => {}
            Err(error) => check_reason(error.reason),
        }
    }
    match decode_connect(bytes, BYTES_MAX) {
        Ok(Some((connect, used))) => {
            let again = decode(bytes, connect.version, BYTES_MAX);
            assert_eq!(again, Ok(Some((Packet::Connect(connect), used))));
        }
        Ok(None) => {}
        Err(error) => check_reason(error.reason),
    }
}

fn check_reason(reason: ReasonCode) {
    assert!(matches!(
        reason,
        ReasonCode::MalformedPacket
            | ReasonCode::ProtocolError
            | ReasonCode::UnsupportedProtocolVersion
            | ReasonCode::PacketTooLarge
    ));
}

/// Properties are what their parts say, in their order.
fn check_properties(packet: &Packet<'_>) {
    let properties = match packet {
        Packet::Connect(connect) => {
            if let Some(will) = &connect.will {
                check_properties_of(will.properties, PacketType::Will);
            }
            connect.properties
        }
        Packet::Connack(connack) => connack.properties,
        Packet::Publish(publish) => publish.properties,
        Packet::Puback(ack) | Packet::Pubrec(ack) => ack.properties,
        Packet::Pubrel(ack) | Packet::Pubcomp(ack) => ack.properties,
        Packet::Subscribe(subscribe) => subscribe.properties,
        Packet::Suback(suback) => suback.properties,
        Packet::Unsubscribe(unsubscribe) => unsubscribe.properties,
        Packet::Unsuback(unsuback) => unsuback.properties,
        Packet::Disconnect(disconnect) => disconnect.properties,
        Packet::Auth(auth) => auth.properties,
        Packet::Pingreq | Packet::Pingresp => Properties::EMPTY,
    };
    check_properties_of(properties, packet.packet_type());
}

fn check_properties_of(properties: Properties<'_>, packet_type: PacketType) {
    let mut again = PropertiesBuf::new();
    for property in properties.iter() {
        again.push(property);
    }
    assert_eq!(again.as_properties(), properties);
    let parsed = Properties::parse(properties.as_bytes(), packet_type);
    assert_eq!(parsed, Ok(properties));
}

/// A connection reads the same packets and ends with the same refusal however
/// its bytes are split. The first byte says how they are.
fn stream(bytes: &[u8]) {
    let Some((&seed, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = read_all(bytes, |_| bytes.len());
    let byte_by_byte = read_all(bytes, |_| 1);
    assert_eq!(byte_by_byte, whole);
    let mut state = u32::from(seed) + 1;
    let chunks = read_all(bytes, |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1 + (state >> 16) as usize % 13
    });
    assert_eq!(chunks, whole);
}

/// What a connection's reading loop makes of `bytes` that come in chunks: the
/// packets, written again one after the other, and why it ended.
fn read_all(bytes: &[u8], mut chunk: impl FnMut(usize) -> usize) -> (Vec<u8>, Option<ReasonCode>) {
    let mut version = None;
    let mut packets = vec![];
    let (mut read_to, mut arrived) = (0, 0);
    while arrived < bytes.len() {
        arrived = bytes.len().min(arrived + chunk(arrived));
        loop {
            let rest = &bytes[read_to..arrived];
            let next = match version {
                None => decode_connect(rest, 1000)
                    .map(|next| next.map(|(connect, used)| (Packet::Connect(connect), used))),
                Some(version) => decode(rest, version, 1000),
            };
            match next {
                Ok(Some((packet, used))) => {
                    if let Packet::Connect(connect) = &packet {
                        version = version.or(Some(connect.version));
                    }
                    let version = version.expect("the first packet is a CONNECT");
                    encode(&packet, version, &mut packets);
                    read_to += used;
                }
                Ok(None) => break,
                Err(error) => return (packets, Some(error.reason)),
            }
        }
    }
    (packets, None)
}

/// Names and filters are valid, and match, as a level-by-level reading of 4.7
/// says. The first three bytes are the limits and the filter's length.
fn topics(bytes: &[u8]) {
    let [bytes_max, levels_max, filter_len, text @ ..] = bytes else {
        return;
    };
    let filter_len = text.len().min(usize::from(*filter_len));
    let (filter, name) = text.split_at(filter_len);
    let (Ok(filter), Ok(name)) = (std::str::from_utf8(filter), std::str::from_utf8(name)) else {
        return;
    };
    let limits = TopicLimits {
        bytes_max: usize::from(*bytes_max),
        levels_max: usize::from(*levels_max),
    };
    for limits in [limits, TopicLimits::NONE] {
        for text in [filter, name] {
            let as_name = TopicName::parse(text, limits);
            assert_eq!(
                as_name.is_ok(),
                is_text(text, limits) && !text.contains(['+', '#'])
            );
            let as_filter = TopicFilter::parse(text, limits);
            assert_eq!(
                as_filter.is_ok(),
                is_text(text, limits) && has_lone_wildcards(text)
            );
        }
    }
    let name = TopicName::parse(name, TopicLimits::NONE);
    let filter = TopicFilter::parse(filter, TopicLimits::NONE);
    if let (Ok(name), Ok(filter)) = (name, filter) {
        let expected = matches(filter.as_str(), name.as_str());
        assert_eq!(filter.matches(name), expected, "{filter:?} {name:?}");
        assert_eq!(filter.is_plain(), !filter.as_str().contains(['+', '#']));
        assert_eq!(
            filter.begins_with_wildcard(),
            filter.as_str().starts_with(['+', '#'])
        );
        assert_eq!(name.levels().collect::<Vec<_>>().join("/"), name.as_str());
        let itself = TopicFilter::parse(name.as_str(), TopicLimits::NONE);
        assert!(itself.expect("a name is a filter").matches(name));
    }
}

fn is_text(text: &str, limits: TopicLimits) -> bool {
    (1..=limits.bytes_max).contains(&text.len())
        && text.split('/').count() <= limits.levels_max
        && !text.chars().any(|c| c.is_ascii_control())
}

fn has_lone_wildcards(filter: &str) -> bool {
    let levels: Vec<&str> = filter.split('/').collect();
    let (last, others) = levels.split_last().expect("split gives at least one");
    let lone = |level: &str| level == "+" || !level.contains(['+', '#']);
    others.iter().all(|level| lone(level)) && (*last == "#" || lone(last))
}

fn matches(filter: &str, name: &str) -> bool {
    let filter: Vec<&str> = filter.split('/').collect();
    let name: Vec<&str> = name.split('/').collect();
    if name[0].starts_with('$') && matches!(filter[0], "+" | "#") {
        return false;
    }
    let (fixed, enough) = match filter.split_last() {
        Some((&"#", fixed)) => (fixed, name.len() >= fixed.len()),
        _ => (&filter[..], name.len() == filter.len()),
    };
    enough
        && fixed
            .iter()
            .zip(&name)
            .all(|(level, name)| *level == "+" || level == name)
}

/// A password file names the users of its lines, or the line that is wrong, and
/// says nothing of what stands behind a name.
fn passwords(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let named = text.lines().filter_map(|line| match Line::parse(line) {
        Ok(Line::User { name, stored }) => Some((name, stored)),
        _ => None,
    });
    match Users::parse(text, Path::new("f")) {
        Ok(users) => {
            assert_eq!(users.len(), named.clone().count());
            for (name, stored) in named {
                assert!(users.get(name).is_some());
                let again = Stored::parse(stored).expect("it was read just now");
                if let Some(keys) = again.scram() {
                    let written = keys.to_string();
                    let again = Stored::parse(&written).expect("it was written just now");
                    assert_eq!(again.scram().map(ToString::to_string), Some(written));
                }
            }
        }
        Err(error) => {
            let error = error.to_string();
            let line = error
                .strip_prefix("f:")
                .and_then(|rest| rest.split_once(": "));
            let number: usize = line
                .expect("the line is named")
                .0
                .parse()
                .expect("by number");
            assert!((1..=text.lines().count()).contains(&number));
        }
    }
}

/// A client's first message, a zero byte, its last one: nobody gets in but who
/// knows the password, which the RFC's example does.
fn scram(bytes: &[u8]) {
    static USERS: std::sync::LazyLock<Users> = std::sync::LazyLock::new(|| {
        let line = "user:SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==\
                    $WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=\
                    :wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        Users::parse(line, Path::new("f")).expect("it is a line")
    });
    let Some((first, last)) = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.split_once('\0'))
    else {
        return;
    };
    let own_nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    let Some(challenge) = Challenge::first(first, own_nonce, &USERS) else {
        return;
    };
    let question = &challenge.server_first;
    assert!(question.starts_with("r=") && question.ends_with(",i=4096"));
    assert_eq!(question.split(',').count(), 3);
    if let Some((user, said)) = challenge.finish(last) {
        assert!(user == "user" && said.starts_with("v="));
        assert!(last.ends_with(",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="));
    }
}

/// Whatever an ACL file says, see [`check_rules`].
fn acl(bytes: &[u8]) {
    check_rules(bytes, |source| Rules::parse(Some(source), None));
}

/// Whatever our own form of it says, see [`check_rules`].
fn rules(bytes: &[u8]) {
    check_rules(bytes, |source| Rules::parse(None, Some(source)));
}

/// What is wrong with a file is in one of its lines. Else what a filter
/// reaches is what each topic gets. The first four lines are a user, or
/// nothing, a client id, a filter and a topic.
fn check_rules(
    bytes: &[u8],
    parse: impl Fn(&Source) -> Result<Rules, rotamq::config::ConfigError>,
) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let parts: Vec<&str> = text.splitn(5, '\n').collect();
    let &[user, client, filter, topic, text] = &parts[..] else {
        return;
    };
    let source = Source {
        path: Path::new("rules").into(),
        text: text.to_owned(),
    };
    let rules = match parse(&source) {
        Ok(rules) => rules,
        Err(error) => {
            let lines = text.split('\n').count();
            assert!(!error.problems.is_empty());
            for problem in &error.problems {
                let Origin::File { line, .. } = problem.origin else {
                    panic!("{problem} is in no line");
                };
                assert!((1..=lines).contains(&line), "{problem}");
            }
            return;
        }
    };
    let who = Identity {
        user: (!user.is_empty()).then(|| user.into()),
        client: ClientId::new(client),
    };
    let rights = rules.rights(&who, &[]);
    let name = TopicName::parse(topic, TopicLimits::NONE);
    let filter = TopicFilter::parse(filter, TopicLimits::NONE);
    let (Ok(name), Ok(filter)) = (name, filter) else {
        return;
    };
    let topic = topic.as_bytes();
    let reach = rights.reach(filter);
    if filter.matches(name) {
        let expected = match reach {
            Reach::All(_) => Some(true),
            Reach::Nothing(_) => Some(false),
            Reach::Part(..) => None,
        };
        assert!(expected.is_none_or(|expected| expected == rights.may_read(topic)));
    }
    let strictness = Strictness::Refuse;
    for ask in [
        Ask::Subscribe { filter, strictness },
        Ask::Read { topic },
        Ask::Join { queue: filter },
        Ask::Steer { queue: filter },
    ] {
        let explained = rights.explain(rights.decide(ask)).to_string();
        assert!(explained.starts_with("allowed by ") || explained.starts_with("denied"));
    }
}

/// A PROXY header is one, and says the same, for another parser too; and
/// however little of it has come, nothing behind it is needed.
fn proxied(bytes: &[u8]) {
    let parsed = proxy::parse(bytes);
    if let Ok(Some(header)) = parsed {
        assert!(header.len <= bytes.len().min(proxy::HEADER_BYTES_MAX));
        assert_eq!(proxy::parse(&bytes[..header.len]), parsed);
        for len in 0..header.len {
            assert_eq!(proxy::parse(&bytes[..len]), Ok(None));
        }
        // What is said where there is no client means nothing to us; ppp has
        // its rules for that too.
        if header.client.is_some() {
            let theirs = by_ppp(&bytes[..header.len]);
            assert_eq!(theirs, Some((header.client, header.len)));
        }
    }
    if let Ok(None) = parsed {
        assert!(bytes.len() < proxy::HEADER_BYTES_MAX);
    }
}

/// The client and the header's length as ppp reads them.
fn by_ppp(bytes: &[u8]) -> Option<(Option<SocketAddr>, usize)> {
    let client = |address: IpAddr, port| Some(SocketAddr::new(address, port));
    match ppp::HeaderResult::parse(bytes) {
        ppp::HeaderResult::V1(Ok(header)) => {
            let address = match header.addresses {
                ppp::v1::Addresses::Unknown => None,
                ppp::v1::Addresses::Tcp4(ip) => client(ip.source_address.into(), ip.source_port),
                ppp::v1::Addresses::Tcp6(ip) => client(ip.source_address.into(), ip.source_port),
            };
            Some((address, header.header.len()))
        }
        ppp::HeaderResult::V2(Ok(header)) => {
            let address = match header.addresses {
                _ if header.command == ppp::v2::Command::Local => None,
                ppp::v2::Addresses::IPv4(ip) => client(ip.source_address.into(), ip.source_port),
                ppp::v2::Addresses::IPv6(ip) => client(ip.source_address.into(), ip.source_port),
                ppp::v2::Addresses::Unspecified | ppp::v2::Addresses::Unix(_) => None,
            };
            Some((address, header.header.len()))
        }
        _ => None,
    }
}

/// A request ends where it ends however it comes, and every answer is one that
/// HTTP knows, of one head.
fn upgraded(bytes: &[u8]) {
    let whole = head_len(bytes, 0);
    let found = (0..=bytes.len()).find_map(|seen| {
        let end = bytes.len().min(seen + 1);
        head_len(&bytes[..end], seen.min(end))
    });
    assert_eq!(found, whole);
    let settings = WebSocketSettings {
        path: "/mqtt".to_owned(),
        origins: vec!["https://a".to_owned()],
    };
    let head = &bytes[..whole.unwrap_or(bytes.len())];
    let answer = match upgrade(head, &settings) {
        Ok(granted) => {
            assert!(whole.is_some(), "what is granted was whole");
            assert!(granted.answer.ends_with("\r\n\r\n"));
            granted.answer
        }
        Err(refusal) => refusal.answer(),
    };
    let mut headers = [httparse::EMPTY_HEADER; 8];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(answer.as_bytes()).expect("it is HTTP");
    let len = parsed.unwrap();
    let body = response
        .headers
        .iter()
        .find(|header| header.name == "Content-Length");
    let body = body.map_or("0", |header| {
        std::str::from_utf8(header.value).expect("digits")
    });
    assert_eq!(body.parse(), Ok(answer.len() - len));
}

const PAYLOAD_MAX: usize = 300;

/// Frames carry the same bytes, and end for the same reason, however they are
/// split; and what another library reads of them is what we read.
fn framed(bytes: &[u8]) {
    let (data, end) = unframe(bytes, bytes.len().max(1));
    for len in [1, 3, 7] {
        assert_eq!(unframe(bytes, len), (data.clone(), end));
    }
    assert!(data.len() <= bytes.len());
    let (theirs, has_ended) = by_tungstenite(bytes);
    assert!(data.starts_with(&theirs));
    assert!(!has_ended || end.is_some(), "we read on where they end");
}

/// The data of frames that come in pieces of `len`, and why it ended.
fn unframe(bytes: &[u8], len: usize) -> (Vec<u8>, Option<CloseCode>) {
    let mut frames = Frames::new(PAYLOAD_MAX);
    let mut data = Vec::new();
    for piece in bytes.chunks(len) {
        let mut piece = piece.to_vec();
        let count = frames.decode(&mut piece, |control| {
            if let Control::Ping(payload) = control {
                assert!(payload.len() <= 125);
            }
            Ok(())
        });
        data.extend_from_slice(&piece[..count]);
    }
    (data, frames.end())
}

/// Gives bytes, and takes any.
struct Given<'b>(Cursor<&'b [u8]>);

impl Read for Given<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

impl Write for Given<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The data of whole binary messages as tungstenite reads them, and whether it
/// reads no more.
fn by_tungstenite(bytes: &[u8]) -> (Vec<u8>, bool) {
    use tungstenite::protocol::{Message, Role, WebSocket, WebSocketConfig};
    let config = WebSocketConfig::default()
        .read_buffer_size(512)
        .max_message_size(Some(PAYLOAD_MAX))
        .max_frame_size(Some(PAYLOAD_MAX));
    let given = Given(Cursor::new(bytes));
    let mut websocket = WebSocket::from_raw_socket(given, Role::Server, Some(config));
    let mut data = Vec::new();
    loop {
        match websocket.read() {
            Ok(Message::Binary(payload)) => data.extend_from_slice(&payload),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Err(tungstenite::Error::Io(_)) => return (data, false),
            Ok(_) | Err(_) => return (data, true),
        }
    }
}

/// The one of RFC 7515, A.1: its issuer is Joe, and it ends 1300819380 seconds
/// after 1970.
const TOKEN: &str = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4\
                     MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB9\
                     2K27uhbUJU1p1r_wW1gFWFOEjXk";

fn token_settings() -> TokenSettings {
    TokenSettings {
        algorithms: vec![
            TokenAlgorithm::HS256,
            TokenAlgorithm::RS256,
            TokenAlgorithm::ES256,
            TokenAlgorithm::EdDSA,
        ],
        user_claim: "iss".to_owned(),
        ..rotamq::config::Config::default().authentication.tokens
    }
}

fn moment(secs: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(secs)
}

/// Nobody gets in but with the RFC's claims, whose keys are not to be guessed.
fn tokens(bytes: &[u8]) {
    static TOKENS: std::sync::LazyLock<Tokens> = std::sync::LazyLock::new(|| {
        let set = r#"{"keys": [
            {"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"},
            {"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
             "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}
        ]}"#;
        Tokens::parse(set, Path::new("f"), token_settings()).expect("it is a key set")
    });
    let Ok(token) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(who) = TOKENS.check(token, (None, "c"), moment(1_300_819_380)) {
        let claims = |token: &str| token.split('.').nth(1).map(str::to_owned);
        assert_eq!(claims(token), claims(TOKEN));
        assert_eq!(who.user.as_deref(), Some("joe"));
        assert_eq!(who.lasts, Some(Duration::from_secs(10)));
    }
}

/// A key set has keys for the algorithms that are meant, or is an error that
/// names the file and says nothing of what stands in it; no key lets in what
/// was signed with another.
fn keys(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match Tokens::parse(text, Path::new("f"), token_settings()) {
        Ok(tokens) => {
            assert!((1..=32).contains(&tokens.keys_len()));
            let found = tokens.check(TOKEN, (None, "c"), moment(1_300_819_380));
            assert!(found.is_err() || text.contains("\"AyM1SysPpbyDfgZld3umj1qz"));
        }
        Err(error) => assert!(error.to_string().starts_with("f:")),
    }
}

/// Only what says so lets anybody in, by whatever status it comes; what is no
/// answer says where it is wrong, and rights are read again as they were. The
/// first byte is the status.
fn answers(bytes: &[u8]) {
    const STATUSES: [u16; 8] = [200, 204, 401, 403, 201, 302, 404, 500];
    let Some((&status, body)) = bytes.split_first() else {
        return;
    };
    let status = STATUSES[usize::from(status) % STATUSES.len()];
    let said = serde_json::from_slice::<serde_json::Value>(body).ok();
    let result = said.as_ref().and_then(|said| said["result"].as_str());
    for takes_rights in [false, true] {
        match read_answer(status, body, takes_rights) {
            Ok(Finding::Allow {
                user,
                lasts,
                rights,
            }) => {
                assert!(status == 204 || status == 200 && result == Some("allow"));
                assert!(user.is_none_or(|user| !user.is_empty() && user.len() <= 65_535));
                assert!(lasts.is_none_or(|lasts| !lasts.is_zero()));
                assert_eq!(rights.is_some(), takes_rights);
                if let Some(rights) = rights {
                    let again = OwnRights::parse_text(rights.source(), rights.text());
                    assert_eq!(again, Ok(rights));
                }
            }
            Ok(Finding::Deny) => {
                assert!([401, 403].contains(&status) || result == Some("deny"));
            }
            Ok(Finding::Ignore) => assert_eq!((status, result), (200, Some("ignore"))),
            Err(why) => {
                assert!(why.starts_with("it answers with") || why.starts_with("its answer"))
            }
        }
    }
}

/// Of a certificate in DER: whom it names is a name.
fn certificates(bytes: &[u8]) {
    for user in [
        ClientUser::CommonName,
        ClientUser::AlternativeName,
        ClientUser::DistinguishedName,
    ] {
        match user_of(bytes, user) {
            Ok(name) => {
                assert!((1..=1024).contains(&name.len()));
                assert!(!name.contains(char::is_control), "{name:?}");
            }
            Err(why) => assert!(why.contains("certificate")),
        }
    }
}

/// A mount point, a filter and a topic, each in a line, and then encoded
/// properties: a filter matches below the mount point what it matches without
/// one, and what goes in comes out as it was.
fn mounts(bytes: &[u8]) {
    let parts: Vec<&[u8]> = bytes.splitn(4, |byte| *byte == b'\n').collect();
    let &[prefix, filter, topic, properties] = &parts[..] else {
        return;
    };
    let texts = [prefix, filter, topic].map(|text| std::str::from_utf8(text).ok());
    let [Some(prefix), Some(filter), Some(topic)] = texts else {
        return;
    };
    let Some(mount) = Mount::new(prefix) else {
        return;
    };
    let limits = TopicLimits::NONE;
    if let Ok(properties) = Properties::parse(properties, PacketType::Publish)
        && let Some(entered) = mount.enter_properties(properties.as_bytes())
    {
        assert!(Properties::parse(&entered, PacketType::Publish).is_ok());
        let left = leave_properties(prefix, mount.bytes(), &entered);
        assert_eq!(&*left, properties.as_bytes());
    }
    let mut full = String::new();
    if TopicName::parse(topic, limits).is_err() || !mount.enter_topic(topic, &mut full) {
        return;
    }
    let queue = full.strip_prefix("$queue/");
    match queue {
        Some(queue) => assert_eq!(leave_queue(queue, prefix), &topic["$queue/".len()..]),
        None => assert!(mount.holds(full.as_bytes())),
    }
    let meant = TopicFilter::parse(filter, limits);
    let entered = mount.enter_filter(filter);
    let entered = entered
        .as_deref()
        .map(|text| TopicFilter::parse(text, limits));
    let (Ok(meant), Some(Ok(entered))) = (meant, entered) else {
        return;
    };
    // A group's filter is not what stands there.
    if let (Ok(name), Ok(full)) = (
        TopicName::parse(topic, limits),
        TopicName::parse(&full, limits),
    ) && !filter.starts_with('$')
        && queue.is_none()
    {
        assert_eq!(entered.matches(full), meant.matches(name));
    }
}

/// A file says what is wrong in which line; or it is a configuration, which is
/// the same when it is printed and loaded again.
fn configuration(bytes: &[u8]) {
    let load = |text: &str| {
        let source = Source {
            path: Path::new("f").into(),
            text: text.to_owned(),
        };
        Effective::load(Some(&source), [], &Flags::default())
    };
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match load(text) {
        Ok(effective) => {
            let printed = effective.to_toml();
            match load(&printed) {
                Ok(again) => assert_eq!(again.config, effective.config),
                Err(error) => panic!("what is printed does not load: {error}\n{printed}"),
            }
            assert!(effective.to_json().is_array());
        }
        Err(error) => {
            assert!(!error.problems.is_empty());
            for problem in &error.problems {
                assert!(!problem.to_string().is_empty());
                if let Origin::File { line, .. } = problem.origin {
                    assert!(line <= text.split('\n').count(), "{problem}");
                }
            }
        }
    }
}

/// Requests to steer queues, in JSON, each in a line: they are answered, with
/// JSON, or refused with a sentence; and written they are the same requests.
fn requests(bytes: &[u8]) {
    let core = Core::new(&Config::default(), 1);
    let mut worker = Worker::new(&core);
    for line in bytes.split(|byte| *byte == b'\n') {
        let Ok(request) = serde_json::from_slice::<Request>(line) else {
            continue;
        };
        let written = serde_json::to_vec(&request).expect("it is JSON");
        let again: Request = serde_json::from_slice(&written).expect("it was written so");
        assert_eq!(again, request);
        match core.steer(&mut worker, &request, Time::from_micros(1)) {
            Ok(answer) => assert!(serde_json::to_value(answer).is_ok()),
            Err(error) => assert!(!error.message.is_empty()),
        }
    }
}

const STORE: Settings = Settings {
    log_bytes_max: 36 << 10,
    free_bytes_min: 1 << 20,
};

fn opened(disk: &Twin) -> Option<(Store, Report)> {
    Store::open_with_segments(Arc::new(disk.clone()), STORE, 12 << 10).ok()
}

fn committed<'c>(store: &Store, changes: impl IntoIterator<Item = Change<'c>>) {
    let mut journal = Journal::default();
    for change in changes {
        journal.add(Durability::Synced, change);
    }
    store.append(&mut journal);
    store.commit(false).expect("the disk is well");
}

fn row_body(list: u64, row: u64) -> Vec<u8> {
    let text = format!("row {row} of list {list}; ");
    text.repeat(1 + row as usize % 9).into_bytes()
}

/// A disk with what is in log and base of two lists and some values.
fn filled() -> Twin {
    let disk = Twin::new();
    let (store, _) = opened(&disk).expect("it is empty");
    for row in 1..=60 {
        for list in [1, 2] {
            let body = row_body(list, row);
            let (about, list) = (&b"about"[..], ListId(list));
            let body = Body::Own(&body);
            let push = Change::Push {
                list,
                row,
                about,
                body,
            };
            committed(&store, [push]);
            if row % 3 == 0 {
                let (row, shared) = (row - 1, 0);
                committed(&store, [Change::Remove { list, row, shared }]);
            }
        }
        let key = [b"key ", &[b'a' + row as u8 % 9][..]].concat();
        let value = [&key[..], b" has the value ", row.to_string().as_bytes()].concat();
        let (key, value) = (&key[..], &value[..]);
        committed(&store, [Change::Put { key, value }]);
        while row == 40 && store.move_oldest().expect("the disk is well") {}
    }
    disk.kill()
}

/// A disk on which bytes were changed, as four bytes each say (which file, where,
/// and how) is opened all the same; and what is found there was once stored.
/// Unless, by the first byte, the checksums are those of what was changed.
fn damage(bytes: &[u8]) {
    static FILLED: LazyLock<Twin> = LazyLock::new(filled);
    let disk = FILLED.kill();
    let names = rotamq::store::disk::Disk::names(&disk).expect("the disk is well");
    let Some((how, edits)) = bytes.split_first() else {
        return;
    };
    let is_resealed = how & 1 == 1;
    for edit in edits.as_chunks().0 {
        let [file, high, low, bits] = *edit;
        let name = &names[usize::from(file) % names.len()];
        disk.flip(name, u16::from_be_bytes([high, low]).into(), bits);
    }
    if is_resealed {
        names.iter().for_each(|name| disk.reseal(name));
    }
    let Some((store, _)) = opened(&disk) else {
        return; // By a program of another version.
    };
    for (list, _) in store.lists() {
        let rows = store
            .read(list, 0, 1000, 1 << 20)
            .expect("the disk is well");
        for row in rows {
            let stored = (&b"about"[..], row_body(list.0, row.row));
            assert!(is_resealed || (&*row.about, row.body) == stored);
        }
    }
    let mut values = Vec::new();
    let scanned = store.scan(b"", &mut |key, value| {
        values.push((key.to_vec(), value.to_vec()));
    });
    scanned.expect("the disk is well");
    for (key, value) in values {
        let begins = [&key[..], b" has the value "].concat();
        assert!(is_resealed || value.starts_with(&begins));
    }
    _ = store.verify(&mut |_| ());
}

/// Values and rows, whatever they are, are read by a broker that starts: what
/// means nothing to it is left alone. `p`, the lengths of key and value, and
/// these; `r`, a list, the lengths of what is said of a row and of the row, and
/// these.
fn records(bytes: &[u8]) {
    let disk = Twin::new();
    let (store, _) = opened(&disk).expect("it is empty");
    let mut rest = bytes;
    let mut row = 0;
    while let Some((change, after)) = stored_change(rest, &mut row) {
        committed(&store, [change]);
        rest = after;
    }
    let now = Time::from_micros(1_700_000_000_000_000);
    let core = Core::new(&Config::default(), 1).started(now);
    let (core, restored) = core.with_store(store, true, now).expect("it can be read");
    assert!(restored.unknown <= bytes.len());
    core.welcome_back(now, now);
    let mut worker = Worker::new(&core);
    core.handle_timeout(&mut worker, now + Duration::from_secs(90));
    core.store().commit(false).expect("the disk is well");
}

fn stored_change<'b>(bytes: &'b [u8], row: &mut u64) -> Option<(Change<'b>, &'b [u8])> {
    let (&kind, rest) = bytes.split_first()?;
    let (list, rest) = match kind {
        b'r' => rest.split_first().map(|(list, rest)| (*list, rest))?,
        b'p' => (0, rest),
        _ => return None,
    };
    let (&[first, second], rest) = rest.split_first_chunk()?;
    let (first, rest) = rest.split_at_checked(first.into())?;
    let (second, rest) = rest.split_at_checked(second.into())?;
    let change = match kind {
        b'r' => {
            *row += 1;
            Change::Push {
                list: ListId(list.into()),
                row: *row,
                about: first,
                body: Body::Own(second),
            }
        }
        _ => Change::Put {
            key: first,
            value: second,
        },
    };
    Some((change, rest))
}
