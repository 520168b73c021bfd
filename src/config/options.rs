//! The table of options: everything that is said of an option stands in its
//! row, once.
//!
//! A row gives an option's key, what it may be, the field that it sets, and
//! its sentences. The file, the environment, the flags, `config show`,
//! `config/rotamq.toml` and the suggestion for a mistyped key all come from
//! here. Default values are not here: they are those of [`Config::default`].

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use toml::de::DeValue;

use super::{
    Config, Listener, LogFormat, LogLevel, MemberSettings, QueueSettings, QueueTopic, SessionFull,
    Undecided,
};

/// An option of a table `T`: one row.
pub(super) struct Opt<T: 'static> {
    /// The key; in [`CONFIG`] with its section before it.
    pub key: &'static str,
    pub shape: Shape,
    /// What it does, for the person who sets it.
    pub doc: &'static str,
    /// `None`: not set, another table's value holds.
    pub get: fn(&T) -> Option<Value>,
    /// `None`: the value, though of the right kind, is not what the shape says.
    pub set: fn(&mut T, Value) -> Option<()>,
}

/// What an option may be.
#[derive(Clone, Copy)]
pub enum Shape {
    Flag,
    Number {
        min: u64,
        max: u64,
    },
    /// One of these words.
    Choice(fn() -> Vec<&'static str>),
    /// A text, and what it says.
    Text(&'static str),
    /// An array of texts, and what they say.
    Texts(&'static str),
}

/// A value as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Flag(bool),
    Number(u64),
    Text(String),
    Texts(Vec<String>),
}

/// A section of the file, and what is said at its head.
pub(super) struct Section {
    /// Empty: the top of the file.
    pub name: &'static str,
    pub doc: &'static str,
}

pub(super) const SECTIONS: &[Section] = &[
    Section { name: "", doc: "" },
    Section {
        name: "limits",
        doc: "What one client, and all of them, may take of the machine. Reaching a limit costs \
              the one who reaches it. No limit can be switched off; 0 is refused.",
    },
    Section {
        name: "session",
        doc: "What holds for all sessions.",
    },
    Section {
        name: "queues",
        doc: "What holds for all queues: first when they come and go, then the settings of each \
              queue that no [[queue]] below gives others.",
    },
    Section {
        name: "log",
        doc: "What is logged, to standard error. Never a line a message, unless level says so.",
    },
];

/// A row: key, field, form (with the bounds of a number), sentences.
macro_rules! option {
    ($key:literal, $($field:ident).+: Word<$choice:ident>, $doc:literal) => {
        Opt {
            key: $key,
            shape: Shape::Choice(words::<$choice>),
            doc: $doc,
            get: |table| Word::get(&table.$($field).+),
            set: |table, value| {
                table.$($field).+ = Word::parse(value)?;
                Some(())
            },
        }
    };
    ($key:literal, $($field:ident).+: $form:ident $(($($bound:expr),+))?, $doc:literal) => {
        Opt {
            key: $key,
            shape: $form::shape($($($bound),+)?),
            doc: $doc,
            get: |table| $form::get(&table.$($field).+),
            set: |table, value| {
                table.$($field).+ = $form::parse(value)?;
                Some(())
            },
        }
    };
}

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
/// The largest Remaining Length (2.2.3).
const PACKET: u64 = 268_435_455;
const TEN_MINUTES_MS: u64 = 10 * 60 * 1000;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const TEN_YEARS_SECS: u64 = 10 * 365 * 24 * 60 * 60;

/// The options that are not in an array of tables.
pub(super) const CONFIG: &[Opt<Config>] = &[
    option!("threads", threads: Number(0, 1024),
        "Worker threads. 0: one for each core."),
    option!("allow_anonymous", allow_anonymous: Flag,
        "Whether clients without a user name may connect. To listen on an address that other \
         machines reach, it has to be set: by a line here, the environment or a flag, but not by \
         the default."),
    option!("limits.connections_max", limits.connections_max: Number(1, 10_000_000),
        "Connections at one time, those that have not sent CONNECT included."),
    option!("limits.connect_timeout_ms", limits.connect_timeout: Millis(100, TEN_MINUTES_MS),
        "From the first moment of a connection to its whole CONNECT; sending it slowly gives no \
         more time."),
    option!("limits.connect_packet_bytes_max", limits.connect_packet_bytes_max: Number(128, PACKET),
        "A packet before CONNECT is accepted."),
    option!("limits.packet_bytes_max", limits.packet_bytes_max: Number(128, PACKET),
        "A packet after that."),
    option!("limits.client_id_bytes_max", limits.client_id_bytes_max: Number(23, 65_535),
        "A client identifier."),
    option!("limits.topic_bytes_max", limits.topic_bytes_max: Number(1, 65_535),
        "A topic name or filter."),
    option!("limits.topic_levels_max", limits.topic_levels_max: Number(1, 65_535),
        "Levels of a topic name or filter: one more than its slashes."),
    option!("limits.subscriptions_per_client_max",
        limits.subscriptions_per_client_max: Number(1, 10_000_000),
        "Subscriptions of one client, its queues and share groups included."),
    option!("limits.sessions_max", limits.sessions_max: Number(1, 100_000_000),
        "Sessions, whether their clients are connected or not."),
    option!("limits.inflight_max", limits.inflight_max: Number(1, 65_535),
        "Messages of QoS 1 and 2 that were sent to a client and are not yet acknowledged."),
    option!("limits.session_messages_max", limits.session_messages_max: Number(1, 1_000_000_000),
        "Messages of QoS 1 and 2 that wait in one session."),
    option!("limits.session_bytes_max", limits.session_bytes_max: Number(1024, TIB),
        "Bytes of the messages that wait in one session."),
    option!("limits.outbox_bytes_max", limits.outbox_bytes_max: Number(1024, TIB),
        "Bytes on their way to a client that does not read them. QoS 0 messages beyond it are \
         dropped, and counted."),
    option!("limits.held_bytes_max", limits.held_bytes_max: Number(1024, TIB),
        "Bytes of one connection's PUBLISH packets that are held back while a queue is full. \
         Beyond it the connection is closed."),
    option!("limits.held_timeout_ms", limits.held_timeout: Millis(1, TEN_MINUTES_MS),
        "How long a PUBLISH is held back before its connection is closed."),
    option!("limits.retained_messages_max", limits.retained_messages_max: Number(1, 1_000_000_000),
        "Retained messages."),
    option!("limits.retained_bytes_max", limits.retained_bytes_max: Number(1024, TIB),
        "Bytes of all retained messages."),
    option!("limits.queues_max", limits.queues_max: Number(1, 100_000_000),
        "Queues, dead-letter queues included."),
    option!("limits.match_cache_bytes_max", limits.match_cache_bytes_max: Number(64 << 10, 64 * GIB),
        "What one worker thread remembers of topics and who receives them."),
    option!("limits.stop_timeout_ms", limits.stop_timeout: Millis(1, TEN_MINUTES_MS),
        "How long stopping may take for what is in flight."),
    option!("session.full", session.full: Word<SessionFull>,
        "What happens when a message comes to a session that is full. \"end\": the session is \
         ended, and its client finds a new one. \"refuse\": the publisher is refused. \
         \"drop-oldest\": the oldest waiting message is dropped, and counted."),
    option!("session.expiry_default_secs", session.expiry_default: Secs(1, TEN_YEARS_SECS),
        "How long the session of a client that is away is kept, where the client cannot say it: \
         in MQTT 3.1 and 3.1.1."),
    option!("queues.auto_create", queues.auto_create: Flag,
        "Whether subscribing or publishing to $queue/NAME creates a queue. Names that begin with \
         a wildcard have to be configured in any case."),
    option!("queues.auto_delete_after_secs", queues.auto_delete_after: Secs(1, TEN_YEARS_SECS),
        "A queue that is not configured is deleted when it has had neither a member nor a \
         PUBLISH to $queue/NAME for so long. What it held is logged and counted."),
    option!("log.level", log.level: Word<LogLevel>,
        "The least severe level that is logged. \"debug\" and \"trace\" log single messages."),
    option!("log.format", log.format: Word<LogFormat>,
        "\"text\" for people, in colour on a terminal; \"json\": an object a line."),
];

/// What a `[[listener]]` says.
pub(super) const LISTENER: &[Opt<Listener>] = &[option!("address", address: Address,
        "IP address and port. Port 0 takes a free one, and logs which.")];

/// What a `[[queue]]` is for.
pub(super) const QUEUE_NAMING: &[Opt<QueueSettings>] = &[
    option!("name", name: FilterText,
        "The queue's name: what follows $queue/. Or a pattern: with the wildcards + and # it \
         stands for all queues whose names fit as topics would, and for the queue of that very \
         name. The first [[queue]] that fits counts."),
    option!("filters", filters: FilterTexts,
        "The topics that feed a queue of a plain name; an empty array: its name."),
];

/// What a `[[queue]]` says, and `[queues]` for the others.
pub(super) const QUEUE: &[Opt<QueueSettings>] = &[
    option!("prefetch", prefetch: Number(1, 65_535),
        "Messages that a member may hold unacknowledged at one time."),
    option!("ack_timeout_ms", ack_timeout: MillisOrNever(0, 30 * DAY_MS),
        "A message that a member has not acknowledged after this time goes to the next. 0: \
         never."),
    option!("exclusive", exclusive: Flag,
        "Whether only the longest-standing member gets messages, while the others stand by."),
    option!("topic", topic: Word<QueueTopic>,
        "The topic that a member sees. \"queue\": $queue/ and the topic that the message was \
         published to; \"original\": that topic alone."),
    option!("qos0_members", qos0_members: Flag,
        "Whether members may subscribe at QoS 0: they get each message at most once."),
    option!("undecided", undecided: Word<Undecided>,
        "What becomes of a message sent at QoS 2 whose member never said whether it has it. \
         \"dead-letter\": a person decides; \"redeliver\": another member gets it, perhaps as \
         the second."),
    option!("undecided_after_secs", undecided_after: Secs(1, TEN_YEARS_SECS),
        "How long that member may take to come back and say so."),
    option!("messages_max", messages_max: Number(1, 10_000_000_000),
        "Messages in a queue. Publishers to a full queue wait, or are refused."),
    option!("bytes_max", bytes_max: Number(1024, TIB),
        "Bytes of the messages in a queue."),
];

/// What a `[[queue.member]]` says.
pub(super) const MEMBER: &[Opt<MemberSettings>] = &[
    option!("client", client: PatternText,
        "The client identifiers that are meant; * stands for any text, an empty one too. The \
         first [[queue.member]] that fits counts."),
    option!("prefetch", prefetch: NumberOrNone(1, 65_535),
        "In place of the queue's prefetch."),
    option!("ack_timeout_ms", ack_timeout: MillisOrNone(0, 30 * DAY_MS),
        "In place of the queue's ack_timeout_ms. 0: never."),
];

/// An option that is not in an array of tables: what a flag or a variable of
/// the environment can set.
#[derive(Clone, Copy)]
pub(super) enum Scalar {
    Config(&'static Opt<Config>),
    /// A queue's option, set in `[queues]` for all queues.
    Queues(&'static Opt<QueueSettings>),
}

impl Scalar {
    /// All, in the order of the file.
    pub fn all() -> impl Iterator<Item = Scalar> {
        SECTIONS.iter().flat_map(|section| {
            let own = CONFIG.iter().map(Scalar::Config);
            let queues = QUEUE.iter().map(Scalar::Queues);
            own.chain(queues)
                .filter(|scalar| scalar.section() == section.name)
        })
    }

    pub fn find(path: &str) -> Option<Scalar> {
        Scalar::all().find(|scalar| scalar.path() == path)
    }

    /// Empty: the top of the file.
    pub fn section(self) -> &'static str {
        match self {
            Scalar::Config(option) => option
                .key
                .split_once('.')
                .map_or("", |(section, _)| section),
            Scalar::Queues(_) => "queues",
        }
    }

    /// The key within its section.
    pub fn key(self) -> &'static str {
        match self {
            Scalar::Config(option) => option.key.rsplit('.').next().unwrap_or(option.key),
            Scalar::Queues(option) => option.key,
        }
    }

    /// Section and key, as in `limits.inflight_max`.
    pub fn path(self) -> String {
        match self {
            Scalar::Config(option) => option.key.to_owned(),
            Scalar::Queues(option) => format!("queues.{}", option.key),
        }
    }

    pub fn doc(self) -> &'static str {
        match self {
            Scalar::Config(option) => option.doc,
            Scalar::Queues(option) => option.doc,
        }
    }

    pub fn shape(self) -> &'static Shape {
        match self {
            Scalar::Config(option) => &option.shape,
            Scalar::Queues(option) => &option.shape,
        }
    }

    pub fn get(self, config: &Config) -> Option<Value> {
        match self {
            Scalar::Config(option) => (option.get)(config),
            Scalar::Queues(option) => (option.get)(&config.queues.default),
        }
    }

    pub fn set(self, config: &mut Config, value: Value) -> Option<()> {
        match self {
            Scalar::Config(option) => (option.set)(config, value),
            Scalar::Queues(option) => (option.set)(&mut config.queues.default, value),
        }
    }
}

/// Every key that the file knows, as `limits.inflight_max` or `queue.name`.
pub(super) fn paths() -> impl Iterator<Item = String> {
    let listener = LISTENER.iter().map(|option| ("listener", option.key));
    let queue = QUEUE_NAMING.iter().chain(QUEUE);
    let queue = queue.map(|option| ("queue", option.key));
    let member = MEMBER.iter().map(|option| ("queue.member", option.key));
    let arrays = listener.chain(queue).chain(member);
    Scalar::all()
        .map(Scalar::path)
        .chain(arrays.map(|(table, key)| format!("{table}.{key}")))
}

/// What the option at `path`, such as `log.level`, may be.
pub fn shape_of(path: &str) -> Option<Shape> {
    Scalar::find(path).map(|scalar| *scalar.shape())
}

/// The value of the option at `path` that a flag gives as `text`.
///
/// # Errors
/// A sentence that says what the value must be.
pub fn parse_flag(path: &str, text: &str) -> Result<Value, String> {
    let shape = shape_of(path).ok_or_else(|| format!("there is no option {path}"))?;
    shape.parse(text)
}

impl Shape {
    /// The value that a flag or a variable gives as `text`: as in the file,
    /// but words and other texts without quotes.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        let refusal = || self.refusal(&format!("{text:?}"));
        match self {
            Shape::Choice(_) | Shape::Text(_) => {
                let value = Value::Text(text.to_owned());
                self.allows(&value).then_some(value).ok_or_else(refusal)
            }
            Shape::Flag | Shape::Number { .. } | Shape::Texts(_) => {
                let value = DeValue::parse(text).map_err(|_| refusal())?;
                self.read(value.get_ref())
            }
        }
    }

    /// The value that stands in a file, if it is of this kind.
    pub(super) fn read(&self, value: &DeValue<'_>) -> Result<Value, String> {
        let read = match value {
            DeValue::Boolean(flag) => Some(Value::Flag(*flag)),
            DeValue::Integer(integer) => u64::from_str_radix(integer.as_str(), integer.radix())
                .ok()
                .map(Value::Number),
            DeValue::String(text) => Some(Value::Text(text.as_ref().to_owned())),
            DeValue::Array(array) => {
                let texts = array.iter().map(|element| element.get_ref().as_str());
                let texts: Option<Vec<_>> = texts.map(|text| text.map(str::to_owned)).collect();
                texts.map(Value::Texts)
            }
            DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => None,
        };
        read.filter(|value| self.allows(value))
            .ok_or_else(|| self.refusal(&found(value)))
    }

    /// Whether `value` is of this kind, and within its bounds.
    pub fn allows(&self, value: &Value) -> bool {
        match (self, value) {
            (Shape::Flag, Value::Flag(_))
            | (Shape::Text(_), Value::Text(_))
            | (Shape::Texts(_), Value::Texts(_)) => true,
            (Shape::Number { min, max }, Value::Number(number)) => (min..=max).contains(&number),
            (Shape::Choice(words), Value::Text(word)) => words().contains(&word.as_str()),
            _ => false,
        }
    }

    /// The sentence about a value that is not allowed.
    pub(super) fn refusal(&self, found: &str) -> String {
        format!("must be {self}, not {found}")
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shape::Flag => f.write_str("true or false"),
            Shape::Number { min, max } => {
                write!(
                    f,
                    "a whole number from {} to {}",
                    grouped(*min),
                    grouped(*max)
                )
            }
            Shape::Choice(words) => {
                let words: Vec<_> = words().iter().map(|word| format!("{word:?}")).collect();
                let (last, first) = words.split_last().ok_or(fmt::Error)?;
                write!(f, "{} or {last}", first.join(", "))
            }
            Shape::Text(what) | Shape::Texts(what) => f.write_str(what),
        }
    }
}

/// A value that is not what it should be, short enough for an error.
pub(super) fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.len() <= 80 => format!("{text:?}"),
        DeValue::String(_) => "a long text".to_owned(),
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(array) if array.iter().all(|element| element.get_ref().is_str()) => {
            "an array of texts".to_owned()
        }
        DeValue::Array(_) => "an array of other things".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// As TOML writes it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // JSON's escapes are TOML's, but for DEL, which JSON leaves bare.
        let quote = |text: &String| {
            let quoted = serde_json::Value::from(text.as_str()).to_string();
            quoted.replace('\u{7f}', "\\u007F")
        };
        match self {
            Value::Flag(flag) => write!(f, "{flag}"),
            Value::Number(number) => f.write_str(&grouped(*number)),
            Value::Text(text) => f.write_str(&quote(text)),
            Value::Texts(texts) => {
                let texts: Vec<_> = texts.iter().map(quote).collect();
                write!(f, "[{}]", texts.join(", "))
            }
        }
    }
}

/// 1048576 as 1_048_576.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && digits.len() > 4 {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

impl Value {
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Flag(flag) => (*flag).into(),
            Value::Number(number) => (*number).into(),
            Value::Text(text) => text.as_str().into(),
            Value::Texts(texts) => texts.as_slice().into(),
        }
    }
}

/// How a field of type `F` stands in the file. `parse` gets only what the
/// shape allows, and refuses what the shape's kind cannot express.
trait Form<F> {
    fn get(field: &F) -> Option<Value>;
    fn parse(value: Value) -> Option<F>;
}

/// `true` or `false`.
struct Flag;

impl Flag {
    const fn shape() -> Shape {
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

macro_rules! number_forms {
    ($($form:ident),+) => {
        $(struct $form;

        impl $form {
            const fn shape(min: u64, max: u64) -> Shape {
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
    Secs
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

integers!(usize, u32, u16);

impl Form<Option<u32>> for NumberOrNone {
    fn get(field: &Option<u32>) -> Option<Value> {
        field.as_ref().and_then(Number::get)
    }

    fn parse(value: Value) -> Option<Option<u32>> {
        Number::parse(value).map(Some)
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
struct Word;

trait Words: Copy + PartialEq + 'static {
    const WORDS: &'static [(&'static str, Self)];
}

fn words<E: Words>() -> Vec<&'static str> {
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

impl Words for SessionFull {
    const WORDS: &'static [(&'static str, SessionFull)] = &[
        ("end", SessionFull::End),
        ("refuse", SessionFull::Refuse),
        ("drop-oldest", SessionFull::DropOldest),
    ];
}

impl Words for QueueTopic {
    const WORDS: &'static [(&'static str, QueueTopic)] = &[
        ("queue", QueueTopic::Queue),
        ("original", QueueTopic::Original),
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

/// An IP address and a port.
struct Address;

impl Address {
    const fn shape() -> Shape {
        Shape::Text("an IP address and a port, as in \"127.0.0.1:1883\" or \"[::1]:1883\"")
    }
}

impl Form<SocketAddr> for Address {
    fn get(field: &SocketAddr) -> Option<Value> {
        Some(Value::Text(field.to_string()))
    }

    fn parse(value: Value) -> Option<SocketAddr> {
        match value {
            Value::Text(text) => text.parse().ok(),
            _ => None,
        }
    }
}

macro_rules! text_forms {
    ($($form:ident: $field:ty, $variant:ident, $what:literal;)+) => {
        $(struct $form;

        impl $form {
            const fn shape() -> Shape {
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
