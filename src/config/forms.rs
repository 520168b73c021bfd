//! How the fields of a configuration stand in the file: as numbers with a
//! unit, words, texts.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use super::value::{Shape, Value};
use super::{
    Address, AuthenticatorKind, ClientCertificates, ClientUser, Dispatch, Durability, HttpAddress,
    KeysAt, LastValue, LogFormat, LogLevel, Network, Overflow, Protocol, QueueTopic, Redirect,
    SessionFull, TlsVersion, TokenAlgorithm, Undecided,
};
use crate::access::rules::Strictness;
use crate::mount::Mount;

/// How a field of type `F` stands in the file. `parse` gets only what the
/// shape allows, and refuses what the shape's kind cannot express.
pub(super) trait Form<F> {
    fn get(field: &F) -> Option<Value>;
    fn parse(value: Value) -> Option<F>;
}

/// `true` or `false`.
pub(super) struct Flag;

impl Flag {
    pub const fn shape() -> Shape {
        Shape::Flag
    }
}

impl Form<bool> for Flag {
    fn get(field: &bool) -> Option<Value> {
        Some(Value::Flag(*field))
    }

    fn parse(value: Value) -> Option<bool> {
        match value {
            Value::Flag(flag) => Some(flag),
            _ => None,
        }
    }
}

/// `true` or `false`; `None` is not set.
pub(super) struct FlagOrNone;

impl FlagOrNone {
    pub const fn shape() -> Shape {
        Shape::Flag
    }
}

impl Form<Option<bool>> for FlagOrNone {
    fn get(field: &Option<bool>) -> Option<Value> {
        field.as_ref().and_then(Flag::get)
    }

    fn parse(value: Value) -> Option<Option<bool>> {
        Flag::parse(value).map(Some)
    }
}

macro_rules! number_forms {
    ($($form:ident),+) => {
        $(pub(super) struct $form;

        impl $form {
            pub const fn shape(min: u64, max: u64) -> Shape {
                Shape::Number { min, max }
            }
        })+
    };
}

number_forms!(
    Number,
    NumberOrNone,
    Millis,
    MillisOrNever,
    MillisOrNone,
    Secs,
    SecsOrNever
);

fn number(value: Value) -> Option<u64> {
    match value {
        Value::Number(number) => Some(number),
        _ => None,
    }
}

macro_rules! integers {
    ($($integer:ty),+) => {
        $(impl Form<$integer> for Number {
            fn get(field: &$integer) -> Option<Value> {
                u64::try_from(*field).ok().map(Value::Number)
            }

            fn parse(value: Value) -> Option<$integer> {
                <$integer>::try_from(number(value)?).ok()
            }
        })+
    };
}

integers!(usize, u64, u32, u16, u8);

impl<N> Form<Option<N>> for NumberOrNone
where
    Number: Form<N>,
{
    fn get(field: &Option<N>) -> Option<Value> {
        field.as_ref().and_then(Number::get)
    }

    fn parse(value: Value) -> Option<Option<N>> {
        Number::parse(value).map(Some)
    }
}

/// 0 is no bound, which is `None`.
impl Form<Option<NonZeroU16>> for NumberOrNone {
    fn get(field: &Option<NonZeroU16>) -> Option<Value> {
        Number::get(&field.map_or(0, NonZeroU16::get))
    }

    fn parse(value: Value) -> Option<Option<NonZeroU16>> {
        Number::parse(value).map(NonZeroU16::new)
    }
}

impl Form<Duration> for Millis {
    fn get(field: &Duration) -> Option<Value> {
        u64::try_from(field.as_millis()).ok().map(Value::Number)
    }

    fn parse(value: Value) -> Option<Duration> {
        number(value).map(Duration::from_millis)
    }
}

impl Form<Duration> for Secs {
    fn get(field: &Duration) -> Option<Value> {
        Some(Value::Number(field.as_secs()))
    }

    fn parse(value: Value) -> Option<Duration> {
        number(value).map(Duration::from_secs)
    }
}

/// 0 is never, which is `None`.
impl Form<Option<Duration>> for MillisOrNever {
    fn get(field: &Option<Duration>) -> Option<Value> {
        Millis::get(&field.unwrap_or(Duration::ZERO))
    }

    fn parse(value: Value) -> Option<Option<Duration>> {
        Millis::parse(value).map(|span| Some(span).filter(|span| !span.is_zero()))
    }
}

/// 0 is never, which is `None`.
impl Form<Option<Duration>> for SecsOrNever {
    fn get(field: &Option<Duration>) -> Option<Value> {
        Secs::get(&field.unwrap_or(Duration::ZERO))
    }

    fn parse(value: Value) -> Option<Option<Duration>> {
        Secs::parse(value).map(|span| Some(span).filter(|span| !span.is_zero()))
    }
}

/// 0 is never, which is the longest duration; `None` is not set.
impl Form<Option<Duration>> for MillisOrNone {
    fn get(field: &Option<Duration>) -> Option<Value> {
        match *field {
            Some(Duration::MAX) => Some(Value::Number(0)),
            Some(span) => Millis::get(&span),
            None => None,
        }
    }

    fn parse(value: Value) -> Option<Option<Duration>> {
        let span = Millis::parse(value)?;
        Some(Some(if span.is_zero() { Duration::MAX } else { span }))
    }
}

/// One of an enum's words.
pub(super) struct Word;

pub(super) trait Words: Copy + PartialEq + 'static {
    const WORDS: &'static [(&'static str, Self)];
}

pub(super) fn words<E: Words>() -> Vec<&'static str> {
    E::WORDS.iter().map(|(word, _)| *word).collect()
}

impl<E: Words> Form<E> for Word {
    fn get(field: &E) -> Option<Value> {
        let found = E::WORDS.iter().find(|(_, value)| value == field);
        found.map(|(word, _)| Value::Text((*word).to_owned()))
    }

    fn parse(value: Value) -> Option<E> {
        let Value::Text(text) = value else {
            return None;
        };
        let found = E::WORDS.iter().find(|(word, _)| **word == text);
        found.map(|(_, value)| *value)
    }
}

/// One of an enum's words; `None` is not set.
pub(super) struct WordOrNone;

impl<E: Words> Form<Option<E>> for WordOrNone {
    fn get(field: &Option<E>) -> Option<Value> {
        field.as_ref().and_then(Word::get)
    }

    fn parse(value: Value) -> Option<Option<E>> {
        Word::parse(value).map(Some)
    }
}

/// Words of [`TokenAlgorithm`]; none is not set.
pub(super) struct AlgorithmWords;

impl AlgorithmWords {
    pub const fn shape() -> Shape {
        Shape::Texts(
            "an array of \"HS256\", \"HS384\", \"HS512\", \"RS256\", \"RS384\", \"RS512\", \"PS256\", \
             \"PS384\", \"PS512\", \"ES256\", \"ES384\" and \"EdDSA\", those that are meant",
        )
    }
}

impl Form<Vec<TokenAlgorithm>> for AlgorithmWords {
    fn get(field: &Vec<TokenAlgorithm>) -> Option<Value> {
        (!field.is_empty()).then_some(Value::Texts(word_texts(field)?))
    }

    fn parse(value: Value) -> Option<Vec<TokenAlgorithm>> {
        parse_words(value)
    }
}

/// Words of [`AuthenticatorKind`]; `None` is not set.
pub(super) struct AuthenticatorWords;

impl AuthenticatorWords {
    pub const fn shape() -> Shape {
        Shape::Texts("an array of \"certificate\", \"token\", \"password\", \"scram\" and \"http\"")
    }
}

impl Form<Option<Vec<AuthenticatorKind>>> for AuthenticatorWords {
    fn get(field: &Option<Vec<AuthenticatorKind>>) -> Option<Value> {
        field.as_deref().and_then(word_texts).map(Value::Texts)
    }

    fn parse(value: Value) -> Option<Option<Vec<AuthenticatorKind>>> {
        parse_words(value).map(Some)
    }
}

fn word_texts<E: Words>(field: &[E]) -> Option<Vec<String>> {
    let words = field.iter().filter_map(Word::get);
    let texts = words.map(|word| match word {
        Value::Text(text) => Some(text),
        _ => None,
    });
    texts.collect()
}

fn parse_words<E: Words>(value: Value) -> Option<Vec<E>> {
    let Value::Texts(texts) = value else {
        return None;
    };
    let words = texts.into_iter().map(Value::Text);
    words.map(Word::parse).collect()
}

impl Words for AuthenticatorKind {
    const WORDS: &'static [(&'static str, AuthenticatorKind)] = &[
        ("certificate", AuthenticatorKind::Certificate),
        ("token", AuthenticatorKind::Token),
        ("password", AuthenticatorKind::Password),
        ("scram", AuthenticatorKind::Scram),
        ("http", AuthenticatorKind::Http),
    ];
}

impl Words for ClientUser {
    const WORDS: &'static [(&'static str, ClientUser)] = &[
        ("cn", ClientUser::CommonName),
        ("san", ClientUser::AlternativeName),
        ("dn", ClientUser::DistinguishedName),
    ];
}

impl Words for TokenAlgorithm {
    const WORDS: &'static [(&'static str, TokenAlgorithm)] = &[
        ("HS256", TokenAlgorithm::HS256),
        ("HS384", TokenAlgorithm::HS384),
        ("HS512", TokenAlgorithm::HS512),
        ("RS256", TokenAlgorithm::RS256),
        ("RS384", TokenAlgorithm::RS384),
        ("RS512", TokenAlgorithm::RS512),
        ("PS256", TokenAlgorithm::PS256),
        ("PS384", TokenAlgorithm::PS384),
        ("PS512", TokenAlgorithm::PS512),
        ("ES256", TokenAlgorithm::ES256),
        ("ES384", TokenAlgorithm::ES384),
        ("EdDSA", TokenAlgorithm::EdDSA),
    ];
}

impl Words for Durability {
    const WORDS: &'static [(&'static str, Durability)] = &[
        ("memory", Durability::Memory),
        ("flushed", Durability::Flushed),
        ("synced", Durability::Synced),
    ];
}

impl Words for Strictness {
    const WORDS: &'static [(&'static str, Strictness)] = &[
        ("filter", Strictness::Filter),
        ("refuse", Strictness::Refuse),
    ];
}

impl Words for Protocol {
    const WORDS: &'static [(&'static str, Protocol)] =
        &[("mqtt", Protocol::Mqtt), ("websocket", Protocol::WebSocket)];
}

impl Words for ClientCertificates {
    const WORDS: &'static [(&'static str, ClientCertificates)] = &[
        ("off", ClientCertificates::Off),
        ("optional", ClientCertificates::Optional),
        ("required", ClientCertificates::Required),
    ];
}

impl Words for TlsVersion {
    const WORDS: &'static [(&'static str, TlsVersion)] =
        &[("1.2", TlsVersion::V1_2), ("1.3", TlsVersion::V1_3)];
}

impl Words for SessionFull {
    const WORDS: &'static [(&'static str, SessionFull)] = &[
        ("end", SessionFull::End),
        ("refuse", SessionFull::Refuse),
        ("drop-oldest", SessionFull::DropOldest),
    ];
}

impl Words for Redirect {
    const WORDS: &'static [(&'static str, Redirect)] = &[
        ("overflow", Redirect::Overflow),
        ("temporarily", Redirect::Temporarily),
        ("permanently", Redirect::Permanently),
    ];
}

impl Words for QueueTopic {
    const WORDS: &'static [(&'static str, QueueTopic)] = &[
        ("queue", QueueTopic::Queue),
        ("original", QueueTopic::Original),
    ];
}

impl Words for Dispatch {
    const WORDS: &'static [(&'static str, Dispatch)] = &[
        ("round-robin", Dispatch::RoundRobin),
        ("least-inflight", Dispatch::LeastInflight),
    ];
}

impl Words for Overflow {
    const WORDS: &'static [(&'static str, Overflow)] = &[
        ("reject", Overflow::Reject),
        ("drop-oldest", Overflow::DropOldest),
        ("dead-letter-oldest", Overflow::DeadLetterOldest),
    ];
}

impl Words for Undecided {
    const WORDS: &'static [(&'static str, Undecided)] = &[
        ("dead-letter", Undecided::DeadLetter),
        ("redeliver", Undecided::Redeliver),
    ];
}

impl Words for LogLevel {
    const WORDS: &'static [(&'static str, LogLevel)] = &[
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
}

impl Words for LogFormat {
    const WORDS: &'static [(&'static str, LogFormat)] =
        &[("text", LogFormat::Text), ("json", LogFormat::Json)];
}

/// What a packet can carry, with room for what is put into it.
pub(super) struct FieldText;

impl FieldText {
    pub const fn shape() -> Shape {
        Shape::Text("a text of at most 1024 bytes, without control characters")
    }
}

impl Form<String> for FieldText {
    fn get(field: &String) -> Option<Value> {
        Some(Value::Text(field.clone()))
    }

    fn parse(value: Value) -> Option<String> {
        match value {
            Value::Text(text) if text.len() <= 1024 && !text.contains(char::is_control) => {
                Some(text)
            }
            _ => None,
        }
    }
}

/// What goes before topics; `None` is not set.
pub(super) struct MountText;

impl MountText {
    pub const fn shape() -> Shape {
        Shape::Text("a beginning of topics that ends with /, as in \"site1/\"")
    }
}

impl Form<Option<String>> for MountText {
    fn get(field: &Option<String>) -> Option<Value> {
        field.clone().map(Value::Text)
    }

    fn parse(value: Value) -> Option<Option<String>> {
        match value {
            Value::Text(text) if text.len() <= 1024 && Mount::new(&text).is_some() => {
                Some(Some(text))
            }
            _ => None,
        }
    }
}

/// What a last-value queue goes by.
pub(super) struct KeyText;

impl KeyText {
    pub const fn shape() -> Shape {
        Shape::Text("\"\", \"topic\" or \"property:NAME\"")
    }
}

impl Form<LastValue> for KeyText {
    fn get(field: &LastValue) -> Option<Value> {
        Some(Value::Text(match field {
            LastValue::Off => String::new(),
            LastValue::Topic => "topic".to_owned(),
            LastValue::Property(name) => format!("property:{name}"),
        }))
    }

    fn parse(value: Value) -> Option<LastValue> {
        let Value::Text(text) = value else {
            return None;
        };
        match (text.as_str(), text.strip_prefix("property:")) {
            ("", _) => Some(LastValue::Off),
            ("topic", _) => Some(LastValue::Topic),
            (_, Some(name)) if !name.is_empty() => Some(LastValue::Property(name.to_owned())),
            _ => None,
        }
    }
}

/// A path that is not empty.
fn path(value: Value) -> Option<PathBuf> {
    match value {
        Value::Text(text) if !text.is_empty() && !text.contains('\0') => Some(text.into()),
        _ => None,
    }
}

/// A folder's path.
pub(super) struct FolderPath;

impl FolderPath {
    pub const fn shape() -> Shape {
        Shape::Text("a folder's path, as in \"/var/lib/rotamq\"")
    }
}

impl Form<PathBuf> for FolderPath {
    fn get(field: &PathBuf) -> Option<Value> {
        Some(Value::Text(field.to_string_lossy().into_owned()))
    }

    fn parse(value: Value) -> Option<PathBuf> {
        path(value)
    }
}

/// Where to listen.
pub(super) struct AddressText;

impl AddressText {
    pub const fn shape() -> Shape {
        Shape::Text(Address::FORM)
    }
}

impl Form<Address> for AddressText {
    fn get(field: &Address) -> Option<Value> {
        Some(Value::Text(field.to_string()))
    }

    fn parse(value: Value) -> Option<Address> {
        match value {
            Value::Text(text) => text.parse().ok(),
            _ => None,
        }
    }
}

/// An IP address and port; `None` is `off`.
pub(super) struct SocketOrOff;

impl SocketOrOff {
    const OFF: &str = "off";

    pub const fn shape() -> Shape {
        Shape::Text("an IP address and a port, as in \"127.0.0.1:18080\", or \"off\"")
    }
}

impl Form<Option<SocketAddr>> for SocketOrOff {
    fn get(field: &Option<SocketAddr>) -> Option<Value> {
        let text = match field {
            Some(address) => address.to_string(),
            None => SocketOrOff::OFF.to_owned(),
        };
        Some(Value::Text(text))
    }

    fn parse(value: Value) -> Option<Option<SocketAddr>> {
        match value {
            Value::Text(text) if text == SocketOrOff::OFF => Some(None),
            Value::Text(text) => text.parse().ok().map(Some),
            _ => None,
        }
    }
}

/// A path that is not empty; `None` is not set.
pub(super) struct FilePath;

impl FilePath {
    /// `what` it is, with an example.
    pub const fn shape(what: &'static str) -> Shape {
        Shape::Text(what)
    }
}

impl Form<Option<PathBuf>> for FilePath {
    fn get(field: &Option<PathBuf>) -> Option<Value> {
        field.as_ref().and_then(FolderPath::get)
    }

    fn parse(value: Value) -> Option<Option<PathBuf>> {
        path(value).map(Some)
    }
}

/// A user of the system, by name; `None` is not set.
pub(super) struct UserName;

impl UserName {
    pub const fn shape() -> Shape {
        Shape::Text("a user's name, as in \"rotamq\"")
    }
}

impl Form<Option<String>> for UserName {
    fn get(field: &Option<String>) -> Option<Value> {
        field.clone().map(Value::Text)
    }

    fn parse(value: Value) -> Option<Option<String>> {
        match value {
            Value::Text(name) if !name.is_empty() && !name.contains(['\0', ':', '/']) => {
                Some(Some(name))
            }
            _ => None,
        }
    }
}

/// Where a service is; `None` is not set.
pub(super) struct HttpAddressText;

impl HttpAddressText {
    pub const fn shape() -> Shape {
        Shape::Text(HttpAddress::FORM)
    }
}

impl Form<Option<HttpAddress>> for HttpAddressText {
    fn get(field: &Option<HttpAddress>) -> Option<Value> {
        field
            .as_ref()
            .map(|address| Value::Text(address.to_string()))
    }

    fn parse(value: Value) -> Option<Option<HttpAddress>> {
        match value {
            Value::Text(text) => text.parse().ok().map(Some),
            _ => None,
        }
    }
}

/// Where keys are; `None` is not set.
pub(super) struct KeysText;

impl KeysText {
    pub const fn shape() -> Shape {
        Shape::Text("an address or a file's path, as in \"https://login.example.org/keys.json\"")
    }
}

impl Form<Option<KeysAt>> for KeysText {
    fn get(field: &Option<KeysAt>) -> Option<Value> {
        match field.as_ref()? {
            KeysAt::File(path) => FolderPath::get(path),
            KeysAt::Address(address) => Some(Value::Text(address.to_string())),
        }
    }

    fn parse(value: Value) -> Option<Option<KeysAt>> {
        match &value {
            Value::Text(text) if text.starts_with("http://") || text.starts_with("https://") => {
                text.parse()
                    .ok()
                    .map(|address| Some(KeysAt::Address(address)))
            }
            _ => path(value).map(|path| Some(KeysAt::File(path))),
        }
    }
}

/// Networks of IP addresses.
pub(super) struct NetworkTexts;

impl NetworkTexts {
    pub const fn shape() -> Shape {
        Shape::Texts("an array of networks, as in [\"10.0.0.0/8\", \"::1\"]")
    }
}

impl Form<Vec<Network>> for NetworkTexts {
    fn get(field: &Vec<Network>) -> Option<Value> {
        Some(Value::Texts(field.iter().map(Network::to_string).collect()))
    }

    fn parse(value: Value) -> Option<Vec<Network>> {
        match value {
            Value::Texts(texts) => texts.iter().map(|text| text.parse().ok()).collect(),
            _ => None,
        }
    }
}

/// Permissions of a file: octal digits.
pub(super) struct ModeText;

impl ModeText {
    pub const fn shape() -> Shape {
        Shape::Text("a mode in octal digits, as in \"0660\"")
    }
}

impl Form<u32> for ModeText {
    fn get(field: &u32) -> Option<Value> {
        Some(Value::Text(format!("{field:04o}")))
    }

    fn parse(value: Value) -> Option<u32> {
        match value {
            Value::Text(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                u32::from_str_radix(&text, 8)
                    .ok()
                    .filter(|mode| *mode <= 0o777)
            }
            _ => None,
        }
    }
}

/// A path as it is asked for by HTTP, without a query; empty is any.
pub(super) struct HttpPath;

impl HttpPath {
    pub const fn shape() -> Shape {
        Shape::Text("a path that begins with /, as in \"/mqtt\", or \"\" for any")
    }
}

impl Form<String> for HttpPath {
    fn get(field: &String) -> Option<Value> {
        Some(Value::Text(field.clone()))
    }

    fn parse(value: Value) -> Option<String> {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
        match value {
            Value::Text(text)
                if text.is_empty() || text.starts_with('/') && text.bytes().all(is_plain) =>
            {
                Some(text)
            }
            _ => None,
        }
    }
}

/// Origins (RFC 6454) of web pages, as browsers write them.
pub(super) struct OriginTexts;

impl OriginTexts {
    pub const fn shape() -> Shape {
        Shape::Texts("an array of origins, as in [\"https://app.example.org\"]")
    }
}

impl Form<Vec<String>> for OriginTexts {
    fn get(field: &Vec<String>) -> Option<Value> {
        Some(Value::Texts(field.clone()))
    }

    fn parse(value: Value) -> Option<Vec<String>> {
        let is_origin = |text: &String| match text.split_once("://") {
            Some((scheme, host)) => {
                let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
                !scheme.is_empty()
                    && !host.is_empty()
                    && (scheme.bytes().chain(host.bytes())).all(is_plain)
            }
            None => false,
        };
        match value {
            Value::Texts(texts) if texts.iter().all(is_origin) => Some(texts),
            _ => None,
        }
    }
}

/// Names of machines, as a browser writes them into `Host`, without a port.
pub(super) struct HostNames;

impl HostNames {
    pub const fn shape() -> Shape {
        Shape::Texts("an array of names without a port, as in [\"mqtt.example.org\"]")
    }
}

impl Form<Vec<String>> for HostNames {
    fn get(field: &Vec<String>) -> Option<Value> {
        Some(Value::Texts(field.clone()))
    }

    fn parse(value: Value) -> Option<Vec<String>> {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_name = |text: &String| !text.is_empty() && text.bytes().all(is_letter);
        match value {
            Value::Texts(texts) if texts.iter().all(is_name) => Some(texts),
            _ => None,
        }
    }
}

macro_rules! text_forms {
    ($($form:ident: $field:ty, $variant:ident, $what:literal;)+) => {
        $(pub(super) struct $form;

        impl $form {
            pub const fn shape() -> Shape {
                Shape::$variant($what)
            }
        }

        impl Form<$field> for $form {
            fn get(field: &$field) -> Option<Value> {
                Some(Value::$variant(field.clone()))
            }

            fn parse(value: Value) -> Option<$field> {
                match value {
                    Value::$variant(text) => Some(text),
                    _ => None,
                }
            }
        })+
    };
}

// Topic filters are checked when the limits are known, by `load`.
text_forms! {
    FilterText: String, Text, "a topic filter, as in \"jobs\" or \"orders/+/new\"";
    FilterTexts: Vec<String>, Texts, "an array of topic filters, as in [\"orders/#\"]";
    PatternText: String, Text, "a client identifier, as in \"worker-7\" or \"worker-*\"";
}
