//! What is stored as lines of JSON, and back.
//!
//! Owns the form of the lines: what a kind has for fields, and what each may
//! hold. Spans and moments are in microseconds, moments since 1970. A field
//! that is left out is none, false or never.
//!
//! | kind | fields |
//! |---|---|
//! | `export` | `form`: the first line |
//! | `clock` | `shown_micros`, `ahead_micros` |
//! | `session` | `client`, `user`, `mount_point`, `expiry_micros`, `absent_since_micros`, `will` |
//! | `queue` | `name`, `last_used_micros` |
//! | `subscription` | `client`, `filter` or `queue`, `qos`, `no_local`, `retain_as_published`, `id`, `prefetch`, `ack_timeout_micros` |
//! | `received`, `releasing` | `client`, `packet_id`; `order` |
//! | `message` | `client`, `place`, `qos`, `retain`, `packet_id`, `own_properties`, `shared`, `message` |
//! | `job` | `queue`, `place`, `deliveries`, `state`, `due_micros`, `held_by`, `packet_id`, `shared`, `message` |
//! | `retained` | `message` |
//! | `end` | `lines`: how many came before |
//!
//! A body that several have comes with the first of them; the others name it
//! by `shared`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::access::OwnRights;
use crate::base64;
use crate::broker::record::{ListRecord, SessionRecord, SubscriptionRecord, Target};
use crate::broker::transfer::{About, Loader, Row, Stored, is_list_name};
use crate::journal::ListId;
use crate::message::{
    ClientId, Envelope, Identity, Message, MessageId, PacketId, Qos, SubscriptionId, Time,
};
use crate::mount::Mount;
use crate::protocol::{PacketType, Properties, PropertiesBuf, Property};
use crate::queue::{Fate, JobRecord};
use crate::run::clock::CalendarRecord;
use crate::session::Will;
use crate::store::Store;
use crate::topic::{TopicFilter, TopicLimits, TopicName};

/// The form of the lines. Another one is not read.
const FORM: u64 = 1;

/// Texts have at most so many bytes (1.5.4), and so have properties.
const TEXT_BYTES_MAX: usize = 65_535;
/// What is said of a message fits 16 bits, and some of that is not properties.
const OWN_BYTES_MAX: usize = 65_000;
/// A payload is below (2.1.4).
const PAYLOAD_BYTES_MAX: usize = 1 << 28;

// ---- to lines

/// A line, or an object in it, that is being put together.
struct Line(String);

impl Line {
    fn new(kind: &str) -> Line {
        let mut line = Line::object();
        line.field("kind", kind);
        line
    }

    fn object() -> Line {
        Line("{".to_owned())
    }

    fn field(&mut self, name: &str, value: impl Serialize) -> &mut Line {
        let value = serde_json::to_string(&value).expect("texts and numbers can be written");
        self.raw(name, &value)
    }

    fn optional(&mut self, name: &str, value: Option<impl Serialize>) -> &mut Line {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    fn flag(&mut self, name: &str, value: bool) -> &mut Line {
        self.optional(name, value.then_some(true))
    }

    fn moment(&mut self, name: &str, value: Time) -> &mut Line {
        self.optional(name, (value < Time::MAX).then(|| value.as_micros()))
    }

    /// As text where a person could read it, else as base64.
    fn bytes(&mut self, name: &str, bytes: &[u8]) -> &mut Line {
        match as_text(bytes) {
            Some(text) => self.field(name, text),
            None => self.field(&format!("{name}_base64"), base64::encode(bytes)),
        }
    }

    fn properties(&mut self, name: &str, bytes: &[u8], of: PacketType) -> &mut Line {
        if bytes.is_empty() {
            return self;
        }
        match readable(bytes, of) {
            Some(properties) => self.field(name, properties),
            None => self.field(&format!("{name}_base64"), base64::encode(bytes)),
        }
    }

    fn nested(&mut self, name: &str, object: Line) -> &mut Line {
        let object = object.end();
        self.raw(name, &object)
    }

    fn raw(&mut self, name: &str, json: &str) -> &mut Line {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push('"');
        self.0.push_str(name);
        self.0.push_str("\":");
        self.0.push_str(json);
        self
    }

    fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// What is too long for that is for ever, the highest number.
fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn as_text(bytes: &[u8]) -> Option<&str> {
    let is_plain = |c: char| !c.is_control() || "\n\r\t".contains(c);
    let text = std::str::from_utf8(bytes).ok()?;
    text.chars().all(is_plain).then_some(text)
}

/// Each as an array of its name and values; `None`: not all can be said so.
fn readable(bytes: &[u8], of: PacketType) -> Option<Vec<Value>> {
    let properties = Properties::parse(bytes, of).ok()?;
    let mut again = PropertiesBuf::new();
    let mut all = Vec::new();
    for property in properties.iter() {
        again.push(property);
        all.push(match property {
            Property::PayloadFormatIndicator(bit) => [
                Value::from("payload-format-indicator"),
                u8::from(bit).into(),
            ]
            .into(),
            Property::ContentType(text) => ["content-type", text].into(),
            Property::ResponseTopic(topic) => ["response-topic", topic.as_str()].into(),
            Property::CorrelationData(bytes) => ["correlation-data", as_text(bytes)?].into(),
            Property::SubscriptionIdentifier(id) => {
                [Value::from("subscription-identifier"), id.get().into()].into()
            }
            Property::UserProperty((name, value)) => ["user-property", name, value].into(),
            _ => return None,
        });
    }
    (again.as_properties() == Properties::parse(bytes, of).ok()?).then_some(all)
}

fn message(message: &Message) -> Line {
    let mut line = Line::object();
    let publisher = message.publisher();
    line.field("topic", message.topic().as_str())
        .field("qos", message.qos() as u8)
        .flag("retain", message.retain())
        .field("publisher_client", publisher.client.as_str())
        .optional("publisher_user", publisher.user.as_deref())
        .moment("received_micros", message.received())
        .moment("expires_micros", message.expires())
        .properties("properties", message.properties(), PacketType::Publish)
        .bytes("payload", message.payload());
    line
}

fn will(will: &Will, due: Time) -> Line {
    let mut line = Line::object();
    line.field("topic", &*will.topic)
        .field("qos", will.qos as u8)
        .flag("retain", will.retain)
        .field("delay_micros", micros(will.delay))
        .optional("expiry_micros", will.expiry.map(micros))
        .moment("due_micros", due)
        .properties("properties", &will.properties, PacketType::Will)
        .bytes("payload", &will.payload);
    line
}

/// Makes lines of what is stored.
#[derive(Default)]
pub struct Exporter {
    clients: FxHashMap<ListId, ClientId>,
    queues: FxHashMap<ListId, Arc<str>>,
    /// Shared bodies, by the numbers that they have in the lines.
    bodies: FxHashMap<u64, usize>,
    lines: u64,
    /// What is of a session or queue that is not there.
    pub homeless: usize,
}

impl Exporter {
    /// The first line.
    pub fn begin(&mut self) -> String {
        let mut line = Line::new("export");
        line.field("form", FORM);
        self.count(line)
    }

    /// The last line.
    pub fn end(&mut self) -> String {
        let mut line = Line::new("end");
        line.field("lines", self.lines);
        self.count(line)
    }

    /// The line that says it; `None`: it means nothing.
    pub fn line(&mut self, stored: &Stored<'_>) -> Option<String> {
        let line = self.stored(stored);
        if line.is_none() {
            self.homeless += 1;
        }
        line.map(|line| self.count(line))
    }

    fn count(&mut self, line: Line) -> String {
        self.lines += 1;
        line.end() + "\n"
    }

    fn stored(&mut self, stored: &Stored<'_>) -> Option<Line> {
        match stored {
            Stored::Clock(bytes) => {
                let record = CalendarRecord::decode(bytes)?;
                let mut line = Line::new("clock");
                line.field("shown_micros", record.shown.as_micros())
                    .field("ahead_micros", record.ahead_micros);
                Some(line)
            }
            Stored::Session(list, record) => {
                let identity = &record.identity;
                self.clients.insert(*list, identity.client.clone());
                let mut line = Line::new("session");
                line.field("client", identity.client.as_str())
                    .optional("user", identity.user.as_deref())
                    .optional("mount_point", record.mount.as_ref().map(Mount::as_str))
                    .optional(
                        "expiry_micros",
                        Some(micros(record.expiry)).filter(|micros| *micros < u64::MAX),
                    )
                    .optional("rights", record.own_rights.as_ref().map(OwnRights::text))
                    .optional(
                        "rights_source",
                        record.own_rights.as_ref().map(OwnRights::source),
                    )
                    .moment("absent_since_micros", record.absent_since);
                if let Some(of) = &record.will {
                    line.nested("will", will(of, record.will_due));
                }
                Some(line)
            }
            Stored::List(list, record) => {
                self.queues.insert(*list, record.name.as_str().into());
                let mut line = Line::new("queue");
                line.field("name", &record.name)
                    .field("last_used_micros", record.last_used.as_micros())
                    .optional("settings", record.settings.as_deref())
                    .flag("paused", record.paused);
                if !record.sources.is_empty() {
                    let kinds = record.sources.iter().map(|(kind, _)| *kind);
                    line.field("sources", kinds.collect::<Vec<u8>>());
                }
                Some(line)
            }
            Stored::Subscription(session, target, record) => {
                let mut line = self.of_session("subscription", *session)?;
                match target {
                    Target::Filter(filter) => line.field("filter", filter),
                    Target::List(list) => line.field("queue", &**self.queues.get(list)?),
                };
                line.field("qos", record.qos as u8)
                    .flag("no_local", record.no_local)
                    .flag("retain_as_published", record.retain_as_published)
                    .optional("id", record.id.map(SubscriptionId::get))
                    .optional("prefetch", record.prefetch)
                    .optional("ack_timeout_micros", record.ack_timeout.map(micros));
                Some(line)
            }
            Stored::Received(session, id) => {
                let mut line = self.of_session("received", *session)?;
                line.field("packet_id", id);
                Some(line)
            }
            Stored::Releasing(session, id, order) => {
                let mut line = self.of_session("releasing", *session)?;
                line.field("packet_id", id).field("order", order);
                Some(line)
            }
            Stored::Remembered(queue, id, message, until) => {
                let mut line = Line::new("dedup");
                line.field("queue", &**self.queues.get(queue)?)
                    .field("id", id)
                    .field("message_id", message.0)
                    .field("until_micros", until.as_micros());
                Some(line)
            }
            Stored::Row(row) => self.row(row),
            Stored::Retained(of) => {
                let mut line = Line::new("retained");
                line.nested("message", message(of));
                Some(line)
            }
        }
    }

    fn of_session(&self, kind: &str, session: ListId) -> Option<Line> {
        let mut line = Line::new(kind);
        line.field("client", self.clients.get(&session)?.as_str());
        Some(line)
    }

    fn row(&mut self, row: &Row) -> Option<Line> {
        let mut line = match &row.about {
            About::Message {
                qos,
                retain,
                packet_id,
                own,
            } => {
                let mut line = self.of_session("message", row.list)?;
                line.field("place", row.number)
                    .field("qos", *qos as u8)
                    .flag("retain", *retain)
                    .optional("packet_id", *packet_id)
                    .properties("own_properties", own, PacketType::Publish);
                line
            }
            About::Job {
                queue,
                source,
                record,
                said,
            } => {
                let mut line = Line::new("job");
                let some = |number: u32| Some(number).filter(|number| *number > 0);
                line.field("queue", &**self.queues.get(queue)?)
                    .optional("source", *source)
                    .field("place", row.number)
                    .field("deliveries", record.deliveries)
                    .optional("failures", some(record.failures))
                    .optional("losses", some(record.losses.into()))
                    .optional("said", Some(said).filter(|said| !said.is_empty()));
                self.fate(record.fate, &mut line);
                line
            }
        };
        let mut is_new = true;
        if row.shared != 0 {
            let next = self.bodies.len() + 1;
            let number = *self.bodies.entry(row.shared).or_insert(next);
            is_new = number == next;
            line.field("shared", number);
        }
        if let Some(of) = row.message.as_deref().filter(|_| is_new) {
            line.nested("message", message(of));
        }
        Some(line)
    }

    fn fate(&self, fate: Fate, line: &mut Line) {
        match fate {
            Fate::Open => line.field("state", "open"),
            Fate::Delayed(due) => line
                .field("state", "delayed")
                .field("due_micros", due.as_micros()),
            Fate::GivenAway => line.field("state", "given_away"),
            Fate::Held(session, packet_id) => match self.clients.get(&session) {
                Some(client) => line
                    .field("state", "held")
                    .field("held_by", client.as_str())
                    .field("packet_id", packet_id),
                // Its session is no more.
                None => line.field("state", "open"),
            },
        };
    }
}

// ---- from lines

/// The fields of a line, or of an object in it, that were not taken yet.
struct Fields {
    /// What stands before a field's name: `will.`.
    of: &'static str,
    fields: Map<String, Value>,
}

impl Fields {
    /// Takes a field; `read` gives none where it is not `what` it has to be.
    fn take<T>(
        &mut self,
        name: &str,
        what: &str,
        read: impl FnOnce(Value) -> Option<T>,
    ) -> Result<Option<T>, String> {
        match self.fields.remove(name) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(self.wrong(name, what)),
            },
        }
    }

    fn wrong(&self, name: &str, what: &str) -> String {
        format!("the field {}{name} has to be {what}", self.of)
    }

    fn required<T>(&self, name: &str, value: Option<T>) -> Result<T, String> {
        value.ok_or_else(|| format!("the field {}{name} is missing", self.of))
    }

    fn optional_text(&mut self, name: &str) -> Result<Option<String>, String> {
        self.take(name, "a text of at most 65535 bytes", |value| match value {
            Value::String(text) if text.len() <= TEXT_BYTES_MAX => Some(text),
            _ => None,
        })
    }

    fn text(&mut self, name: &str) -> Result<String, String> {
        let text = self.optional_text(name)?;
        self.required(name, text)
    }

    fn own_rights(&mut self) -> Result<Option<OwnRights>, String> {
        let Some(text) = self.optional_text("rights")? else {
            return Ok(None);
        };
        let source = self.text("rights_source")?;
        OwnRights::parse_text(&source, &text)
            .map(Some)
            .map_err(|why| format!("the field {}rights is not valid: they {why}", self.of))
    }

    fn optional_number<T: TryFrom<u64>>(&mut self, name: &str) -> Result<Option<T>, String> {
        let bits = 8 * size_of::<T>();
        let what = format!("a whole number that fits {bits} bits, where it is an id not 0");
        self.take(name, &what, |value| T::try_from(value.as_u64()?).ok())
    }

    fn number<T: TryFrom<u64>>(&mut self, name: &str) -> Result<T, String> {
        let number = self.optional_number(name)?;
        self.required(name, number)
    }

    fn optional_packet_id(&mut self) -> Result<Option<PacketId>, String> {
        self.take("packet_id", "a number from 1 to 65535", |value| {
            PacketId::new(u16::try_from(value.as_u64()?).ok()?)
        })
    }

    fn packet_id(&mut self) -> Result<PacketId, String> {
        let id = self.optional_packet_id()?;
        self.required("packet_id", id)
    }

    fn qos(&mut self) -> Result<Qos, String> {
        let qos = self.take("qos", "0, 1 or 2", |value| {
            Qos::from_bits(u8::try_from(value.as_u64()?).ok()?)
        })?;
        self.required("qos", qos)
    }

    fn flag(&mut self, name: &str) -> Result<bool, String> {
        let flag = self.take(name, "true or false", |value| value.as_bool())?;
        Ok(flag.unwrap_or(false))
    }

    fn optional_span(&mut self, name: &str) -> Result<Option<Duration>, String> {
        let micros = self.optional_number(name)?;
        Ok(micros.map(|micros| match micros {
            u64::MAX => Duration::MAX,
            micros => Duration::from_micros(micros),
        }))
    }

    /// [`Time::MAX`], if it is left out.
    fn moment(&mut self, name: &str) -> Result<Time, String> {
        let micros = self.optional_number(name)?;
        Ok(Time::from_micros(micros.unwrap_or(u64::MAX)))
    }

    /// As text or as base64; `None`: it is left out.
    fn optional_bytes(&mut self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, String> {
        let text = |value| match value {
            Value::String(text) => Some(text),
            _ => None,
        };
        let what = format!("a text of at most {bytes_max} bytes");
        let plain = self.take(name, &what, |value| {
            text(value)
                .map(String::into_bytes)
                .filter(|bytes| bytes.len() <= bytes_max)
        })?;
        let name = format!("{name}_base64");
        let what = format!("at most {bytes_max} bytes in base64");
        let encoded = self.take(&name, &what, |value| {
            base64::decode(&text(value)?).filter(|bytes| bytes.len() <= bytes_max)
        })?;
        Ok(plain.or(encoded))
    }

    fn payload(&mut self) -> Result<Vec<u8>, String> {
        let payload = self.optional_bytes("payload", PAYLOAD_BYTES_MAX - 1)?;
        self.required("payload", payload)
    }

    fn topic(&mut self) -> Result<String, String> {
        let topic = self.text("topic")?;
        match TopicName::parse(&topic, TopicLimits::NONE) {
            Ok(_) => Ok(topic),
            Err(error) => Err(self.wrong("topic", &format!("a topic name: {error}"))),
        }
    }

    fn properties(
        &mut self,
        name: &str,
        of: PacketType,
        bytes_max: usize,
    ) -> Result<Vec<u8>, String> {
        let what = "an array of arrays, each with the name of a property and its values";
        let listed = self.take(name, what, |value| match value {
            Value::Array(all) => encode_properties(&all),
            _ => None,
        })?;
        let encoded = match listed {
            Some(bytes) => Some(bytes),
            None => self.optional_bytes(name, bytes_max)?,
        };
        let bytes = encoded.unwrap_or_default();
        match Properties::parse(&bytes, of) {
            Ok(_) if bytes.len() <= bytes_max => Ok(bytes),
            Ok(_) => Err(self.wrong(name, &format!("at most {bytes_max} bytes"))),
            Err(error) => Err(self.wrong(name, &format!("properties of a message: {error}"))),
        }
    }

    fn optional_object(&mut self, name: &str, of: &'static str) -> Result<Option<Fields>, String> {
        self.take(name, "an object", |value| match value {
            Value::Object(fields) => Some(Fields { of, fields }),
            _ => None,
        })
    }

    /// All fields were taken.
    fn end(self) -> Result<(), String> {
        match self.fields.keys().next() {
            Some(name) => Err(format!("the field {}{name} is not known here", self.of)),
            None => Ok(()),
        }
    }
}

fn encode_properties(all: &[Value]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for property in all {
        let [name, values @ ..] = &property.as_array()?[..] else {
            return None;
        };
        let text = |value: &'_ Value| {
            value
                .as_str()
                .filter(|text| text.len() <= TEXT_BYTES_MAX)
                .map(str::to_owned)
        };
        match (name.as_str()?, values) {
            ("payload-format-indicator", [bit]) => {
                Property::PayloadFormatIndicator(match bit.as_u64()? {
                    0 => false,
                    1 => true,
                    _ => return None,
                })
                .encode(&mut bytes);
            }
            ("content-type", [value]) => {
                Property::ContentType(&text(value)?).encode(&mut bytes);
            }
            ("response-topic", [value]) => {
                let topic = text(value)?;
                let topic = TopicName::parse(&topic, TopicLimits::NONE).ok()?;
                Property::ResponseTopic(topic).encode(&mut bytes);
            }
            ("correlation-data", [value]) => {
                Property::CorrelationData(text(value)?.as_bytes()).encode(&mut bytes);
            }
            ("subscription-identifier", [id]) => {
                let id = SubscriptionId::new(u32::try_from(id.as_u64()?).ok()?)?;
                Property::SubscriptionIdentifier(id).encode(&mut bytes);
            }
            ("user-property", [name, value]) => {
                Property::UserProperty((&text(name)?, &text(value)?)).encode(&mut bytes);
            }
            _ => return None,
        }
    }
    Some(bytes)
}

/// Fills a store with what lines say.
pub struct Importer<'a> {
    store: &'a Store,
    loader: Loader<'a>,
    sessions: HashMap<String, Place>,
    queues: HashMap<String, Place>,
    /// Other lists of queues, by the queue's own and their kind.
    sources: FxHashMap<(ListId, u8), Place>,
    retained: FxHashSet<String>,
    /// Shared bodies by their numbers in the lines, and their ids here.
    bodies: FxHashMap<u64, u64>,
    has_clock: bool,
    lines: u64,
    is_ended: bool,
}

/// Where the rows of a session or queue go.
struct Place {
    list: ListId,
    /// Of the row that came last.
    number: u64,
}

impl<'a> Importer<'a> {
    pub fn new(store: &'a Store) -> Importer<'a> {
        Importer {
            store,
            loader: Loader::new(store),
            sessions: HashMap::new(),
            queues: HashMap::new(),
            sources: FxHashMap::default(),
            retained: FxHashSet::default(),
            bodies: FxHashMap::default(),
            has_clock: false,
            lines: 0,
            is_ended: false,
        }
    }

    /// Takes the next line.
    ///
    /// # Errors
    /// What is wrong with it and in which field; or the disk failed.
    pub fn line(&mut self, line: &str) -> Result<(), String> {
        let fields = match serde_json::from_str(line) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return Err("it has to be an object".to_owned()),
            Err(error) => return Err(format!("it is no JSON: {error}")),
        };
        let mut fields = Fields { of: "", fields };
        let kind = fields.text("kind")?;
        if self.is_ended {
            return Err("nothing may come behind the line of kind end".to_owned());
        }
        if (self.lines == 0) != (kind == "export") {
            return Err("the first line, and no other, has to be of kind export".to_owned());
        }
        self.of_kind(&kind, &mut fields)?;
        self.lines += 1;
        fields.end()
    }

    /// All lines were given.
    ///
    /// # Errors
    /// They are not all that were exported; or the disk failed.
    pub fn end(mut self) -> Result<u64, String> {
        if !self.is_ended {
            return Err(
                "the last line, which is of kind end, is missing: the file is not whole".to_owned(),
            );
        }
        self.loader.commit().map_err(|failed| failed.to_string())?;
        Ok(self.lines)
    }

    fn of_kind(&mut self, kind: &str, fields: &mut Fields) -> Result<(), String> {
        match kind {
            "export" => match fields.number::<u64>("form")? {
                FORM => Ok(()),
                form => Err(format!(
                    "the field form is {form}; this program reads form {FORM}"
                )),
            },
            "end" => {
                self.is_ended = true;
                match fields.number::<u64>("lines")? {
                    lines if lines == self.lines => Ok(()),
                    lines => Err(format!(
                        "the field lines is {lines}, but {} came before: the file is not whole",
                        self.lines
                    )),
                }
            }
            "clock" => self.clock(fields),
            "session" => self.session(fields),
            "queue" => self.queue(fields),
            "subscription" => self.subscription(fields),
            "received" => {
                let session = self.session_of(fields)?.list;
                self.put(&Stored::Received(session, fields.packet_id()?))
            }
            "releasing" => {
                let session = self.session_of(fields)?.list;
                let id = fields.packet_id()?;
                self.put(&Stored::Releasing(session, id, fields.number("order")?))
            }
            "message" => {
                let place = self.session_of(fields)?;
                let list = place.next(fields)?;
                let about = About::Message {
                    qos: fields.qos()?,
                    retain: fields.flag("retain")?,
                    packet_id: fields.optional_packet_id()?,
                    own: fields.properties("own_properties", PacketType::Publish, OWN_BYTES_MAX)?,
                };
                self.row(list, about, fields)
            }
            "job" => {
                let queue = queue_of(&mut self.queues, fields)?;
                let own = queue.list;
                let source = fields.optional_number("source")?;
                let place = match source {
                    None => queue,
                    Some(kind) => match self.sources.get_mut(&(own, kind)) {
                        Some(place) => place,
                        None => {
                            return Err(fields.wrong("source", "one of its queue's sources"));
                        }
                    },
                };
                let list = place.next(fields)?;
                let record = JobRecord {
                    deliveries: fields.number("deliveries")?,
                    failures: fields.optional_number("failures")?.unwrap_or(0),
                    losses: fields.optional_number("losses")?.unwrap_or(0),
                    fate: self.fate(fields)?,
                    said: "",
                };
                let said = fields.optional_text("said")?.unwrap_or_default();
                let about = About::Job {
                    queue: own,
                    source,
                    record,
                    said,
                };
                self.row(list, about, fields)
            }
            "dedup" => {
                let queue = queue_of(&mut self.queues, fields)?.list;
                let id = fields.text("id")?;
                let message = MessageId(fields.number("message_id")?);
                let until = Time::from_micros(fields.number("until_micros")?);
                self.put(&Stored::Remembered(queue, id, message, until))
            }
            "retained" => {
                let fields = fields
                    .optional_object("message", "message.")
                    .and_then(|object| fields.required("message", object))?;
                let message = self.message(fields, None)?;
                if !self.retained.insert(message.topic().as_str().to_owned()) {
                    return Err("the field message.topic has that of a line before".to_owned());
                }
                self.put(&Stored::Retained(Arc::new(message)))
            }
            _ => Err(format!("the field kind has {kind:?}, which is not known")),
        }
    }

    fn put(&mut self, stored: &Stored<'_>) -> Result<(), String> {
        self.loader.put(stored).map_err(|failed| failed.to_string())
    }

    fn clock(&mut self, fields: &mut Fields) -> Result<(), String> {
        if std::mem::replace(&mut self.has_clock, true) {
            return Err("there is a line of kind clock before".to_owned());
        }
        let ahead = fields.take("ahead_micros", "a whole number", |value| value.as_i64())?;
        let record = CalendarRecord {
            shown: Time::from_micros(fields.number("shown_micros")?),
            ahead_micros: fields.required("ahead_micros", ahead)?,
        };
        self.put(&Stored::Clock(&record.encode()))
    }

    fn session(&mut self, fields: &mut Fields) -> Result<(), String> {
        let client = fields.text("client")?;
        let list = self.begin(client.clone(), fields, "client")?;
        let mut will_due = Time::MAX;
        let will = match fields.optional_object("will", "will.")? {
            Some(mut fields) => {
                will_due = fields.moment("due_micros")?;
                let will = Will {
                    topic: fields.topic()?.into(),
                    properties: fields
                        .properties("properties", PacketType::Will, PAYLOAD_BYTES_MAX)?
                        .into(),
                    payload: fields.payload()?.into(),
                    qos: fields.qos()?,
                    retain: fields.flag("retain")?,
                    delay: fields.optional_span("delay_micros")?.unwrap_or_default(),
                    expiry: fields.optional_span("expiry_micros")?,
                };
                fields.end()?;
                Some(Box::new(will))
            }
            None => None,
        };
        let mount = fields.optional_text("mount_point")?;
        let is_mount = mount
            .as_deref()
            .is_none_or(|mount| Mount::new(mount).is_some());
        if !is_mount {
            return Err(fields.wrong("mount_point", "the beginning of a topic that ends with /"));
        }
        let record = SessionRecord {
            identity: Identity {
                user: fields.optional_text("user")?.map(Arc::from),
                client: ClientId::new(&client),
            },
            mount: mount.as_deref().and_then(Mount::new),
            own_rights: fields.own_rights()?,
            expiry: fields
                .optional_span("expiry_micros")?
                .unwrap_or(Duration::MAX),
            absent_since: fields.moment("absent_since_micros")?,
            will,
            will_due,
        };
        self.put(&Stored::Session(list, record))
    }

    fn queue(&mut self, fields: &mut Fields) -> Result<(), String> {
        let name = fields.text("name")?;
        if !is_list_name(&name) {
            return Err(fields.wrong("name", "$queue/NAME or $share/GROUP/FILTER"));
        }
        let list = self.begin(name.clone(), fields, "name")?;
        let last_used = Time::from_micros(fields.number("last_used_micros")?);
        let kinds = fields.take("sources", "numbers from 0 to 11", |value| {
            let kinds = value.as_array()?.iter();
            let kinds = kinds.map(|kind| kind.as_u64().filter(|kind| *kind <= 11));
            kinds
                .map(|kind| Some(kind? as u8))
                .collect::<Option<Vec<u8>>>()
        })?;
        let mut sources = Vec::new();
        for kind in kinds.unwrap_or_default() {
            let source = self.store.new_list();
            let place = Place {
                list: source,
                number: 0,
            };
            self.sources.insert((list, kind), place);
            sources.push((kind, source));
        }
        let record = ListRecord {
            name,
            last_used,
            sources,
            settings: fields.optional_text("settings")?,
            paused: fields.flag("paused")?,
        };
        self.put(&Stored::List(list, record))
    }

    fn begin(&mut self, name: String, fields: &Fields, field: &str) -> Result<ListId, String> {
        let places = match field {
            "client" => &mut self.sessions,
            _ => &mut self.queues,
        };
        let list = self.store.new_list();
        let place = Place { list, number: 0 };
        match places.insert(name, place) {
            None => Ok(list),
            Some(_) => Err(fields.wrong(field, "another one than that of a line before")),
        }
    }

    fn subscription(&mut self, fields: &mut Fields) -> Result<(), String> {
        let session = self.session_of(fields)?.list;
        let filter = fields.optional_text("filter")?;
        let target = match &filter {
            Some(filter) => {
                if let Err(error) = TopicFilter::parse(filter, TopicLimits::NONE) {
                    return Err(fields.wrong("filter", &format!("a topic filter: {error}")));
                }
                Target::Filter(filter)
            }
            None => Target::List(queue_of(&mut self.queues, fields)?.list),
        };
        let id = fields.take("id", "a number from 1 to 268435455", |value| {
            SubscriptionId::new(u32::try_from(value.as_u64()?).ok()?)
        })?;
        let record = SubscriptionRecord {
            qos: fields.qos()?,
            no_local: fields.flag("no_local")?,
            retain_as_published: fields.flag("retain_as_published")?,
            id,
            prefetch: fields.optional_number("prefetch")?,
            ack_timeout: fields.optional_span("ack_timeout_micros")?,
        };
        self.put(&Stored::Subscription(session, target, record))
    }

    fn session_of(&mut self, fields: &mut Fields) -> Result<&mut Place, String> {
        let client = fields.text("client")?;
        let place = self.sessions.get_mut(&client);
        place.ok_or_else(|| fields.wrong("client", "that of a session on a line before"))
    }

    fn fate(&mut self, fields: &mut Fields) -> Result<Fate, String> {
        Ok(match &*fields.text("state")? {
            "open" => Fate::Open,
            "delayed" => Fate::Delayed(Time::from_micros(fields.number("due_micros")?)),
            "given_away" => Fate::GivenAway,
            "held" => {
                let client = fields.text("held_by")?;
                let Some(session) = self.sessions.get(&client) else {
                    return Err(fields.wrong("held_by", "that of a session on a line before"));
                };
                Fate::Held(session.list, fields.packet_id()?)
            }
            _ => return Err(fields.wrong("state", "open, delayed, given_away or held")),
        })
    }

    fn row(
        &mut self,
        (list, number): (ListId, u64),
        about: About,
        fields: &mut Fields,
    ) -> Result<(), String> {
        let body: Option<u64> = fields.optional_number("shared")?;
        let known = body.and_then(|body| self.bodies.get(&body).copied());
        let object = fields.optional_object("message", "message.")?;
        let message = match (known, object) {
            (Some(_), None) => None,
            (Some(_), Some(_)) => {
                return Err(fields.wrong("message", "left out: a line before has it"));
            }
            (None, object) => {
                let object = fields.required("message", object)?;
                let message = self.message(object, body)?;
                Some(Arc::new(message))
            }
        };
        let shared = body.and_then(|body| self.bodies.get(&body).copied());
        self.put(&Stored::Row(Row {
            list,
            number,
            about,
            shared: shared.unwrap_or(0),
            message,
        }))
    }

    /// With an id of its own, which is also that of its body, if that is to
    /// be shared.
    fn message(&mut self, mut fields: Fields, body: Option<u64>) -> Result<Message, String> {
        let id = self.store.new_body();
        if let Some(body) = body {
            self.bodies.insert(body, id);
        }
        let topic = fields.topic()?;
        let properties = fields.properties("properties", PacketType::Publish, PAYLOAD_BYTES_MAX)?;
        let payload = fields.payload()?;
        let publisher = Identity {
            user: fields.optional_text("publisher_user")?.map(Arc::from),
            client: ClientId::new(&fields.text("publisher_client")?),
        };
        let envelope = Envelope {
            id: MessageId(id),
            qos: fields.qos()?,
            retain: fields.flag("retain")?,
            publisher: Arc::new(publisher),
            received: Time::from_micros(fields.number("received_micros")?),
            expires: fields.moment("expires_micros")?,
        };
        fields.end()?;
        let topic = TopicName::parse(&topic, TopicLimits::NONE).expect("it was parsed before");
        Ok(Message::new(topic, &properties, &payload, envelope))
    }
}

impl Place {
    /// The list, and the place in it that the fields name.
    fn next(&mut self, fields: &mut Fields) -> Result<(ListId, u64), String> {
        let number = fields.number("place")?;
        // The highest numbers are not reached: no list has so many.
        if number <= self.number || number > u64::MAX / 2 {
            let what = format!("higher than {}, that of the line before", self.number);
            return Err(fields.wrong("place", &what));
        }
        self.number = number;
        Ok((self.list, number))
    }
}

fn queue_of<'a>(
    queues: &'a mut HashMap<String, Place>,
    fields: &mut Fields,
) -> Result<&'a mut Place, String> {
    let name = fields.text("queue")?;
    let place = queues.get_mut(&name);
    place.ok_or_else(|| fields.wrong("queue", "that of a queue on a line before"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::transfer::read_all;
    use crate::store::Settings;
    use crate::store::twin::Twin;

    fn store() -> Store {
        let settings = Settings {
            log_bytes_max: 4 << 20,
            free_bytes_min: 0,
        };
        Store::open(Arc::new(Twin::new()), settings).unwrap().0
    }

    fn exported(store: &Store) -> String {
        let mut exporter = Exporter::default();
        let mut text = exporter.begin();
        read_all(store, &mut |stored| {
            text += &exporter.line(&stored).unwrap();
            Ok(())
        })
        .unwrap();
        text + &exporter.end()
    }

    fn import(store: &Store, text: &str) -> Result<u64, String> {
        let mut importer = Importer::new(store);
        for (i, line) in text.lines().enumerate() {
            importer
                .line(line)
                .map_err(|error| format!("{}: {error}", i + 1))?;
        }
        importer.end()
    }

    /// Every kind and every field, as [`exported`] writes them.
    const ALL: &str = r#"{"kind":"export","form":1}
{"kind":"clock","shown_micros":1700000000000000,"ahead_micros":-5}
{"kind":"session","client":"a","mount_point":"m/","expiry_micros":3000000,"rights":"{\"allow\":{\"publish\":[\"a/#\"]}}","rights_source":"the token's claim rights","absent_since_micros":7}
{"kind":"session","client":"b\"é","user":"","will":{"topic":"w/é","qos":2,"retain":true,"delay_micros":1000000,"expiry_micros":2000000,"due_micros":9,"properties":[["content-type","x"]],"payload":"gone"}}
{"kind":"queue","name":"$queue/jobs","last_used_micros":8}
{"kind":"queue","name":"$share/g/a/+","last_used_micros":0}
{"kind":"subscription","client":"a","filter":"a/#","qos":1}
{"kind":"subscription","client":"a","queue":"$queue/jobs","qos":2,"no_local":true,"retain_as_published":true,"id":268435455,"prefetch":7,"ack_timeout_micros":18446744073709551615}
{"kind":"received","client":"a","packet_id":65535}
{"kind":"releasing","client":"b\"é","packet_id":1,"order":3}
{"kind":"message","client":"a","place":5,"qos":1,"shared":1,"message":{"topic":"a/b","qos":2,"retain":true,"publisher_client":"p","publisher_user":"u","received_micros":1,"expires_micros":2,"properties":[["payload-format-indicator",1],["user-property","k","v"],["user-property","k","w"],["correlation-data","ü"],["response-topic","r"]],"payload":"two\tlines\n"}}
{"kind":"message","client":"a","place":9,"qos":2,"retain":true,"packet_id":77,"own_properties":[["subscription-identifier",5],["subscription-identifier",300]],"message":{"topic":"x","qos":0,"publisher_client":"","received_micros":0,"properties_base64":"CQAB/w==","payload_base64":"AP8="}}
{"kind":"message","client":"b\"é","place":1,"qos":1,"shared":1}
{"kind":"job","queue":"$queue/jobs","place":2,"deliveries":0,"state":"open","shared":1}
{"kind":"job","queue":"$queue/jobs","place":3,"deliveries":1,"state":"delayed","due_micros":12,"message":{"topic":"$queue/jobs","qos":1,"publisher_client":"p","received_micros":4,"payload":""}}
{"kind":"job","queue":"$queue/jobs","place":4,"deliveries":4294967295,"state":"held","held_by":"a","packet_id":8,"shared":2,"message":{"topic":"t","qos":1,"publisher_client":"p","received_micros":4,"payload":"2"}}
{"kind":"job","queue":"$share/g/a/+","place":1,"deliveries":2,"state":"given_away","shared":2}
{"kind":"retained","message":{"topic":"r/1","qos":1,"retain":true,"publisher_client":"p","received_micros":4,"payload":"kept"}}
{"kind":"end","lines":18}
"#;

    #[test]
    fn every_line_is_exported_as_it_was_imported() {
        let store = store();
        assert_eq!(import(&store, ALL), Ok(19));
        assert_eq!(exported(&store), ALL);
    }

    #[test]
    fn what_is_wrong_is_said_with_line_and_field() {
        let wrong = [
            ("\"form\":1", "\"form\":2", "1: the field form is 2"),
            (
                "{\"kind\":\"export\",\"form\":1}\n",
                "",
                "1: the first line",
            ),
            (
                "{\"kind\":\"clock\"",
                "[{\"kind\":\"clock\"",
                "2: it is no JSON",
            ),
            (
                "\"ahead_micros\":-5",
                "\"ahead_micros\":0.5",
                "2: the field ahead_micros has to be a whole",
            ),
            (
                ",\"ahead_micros\":-5",
                "",
                "2: the field ahead_micros is missing",
            ),
            (
                "\"client\":\"a\",\"mount",
                "\"client\":7,\"mount",
                "3: the field client has to be a text",
            ),
            (
                "\"m/\"",
                "\"m\"",
                "3: the field mount_point has to be the beginning of a topic",
            ),
            (
                "\"client\":\"b\\\"é\",\"user\"",
                "\"client\":\"a\",\"user\"",
                "4: the field client has to be another",
            ),
            (
                "w/é",
                "w/#",
                "4: the field will.topic has to be a topic name",
            ),
            (
                "\"due_micros\":9,",
                "\"due_micros\":9,\"x\":0,",
                "4: the field will.x is not known",
            ),
            ("$share/g/a/+", "$share/g", "6: the field name has to be"),
            (
                "\"filter\":\"a/#\"",
                "\"filter\":\"a#\"",
                "7: the field filter has to be a topic filter",
            ),
            ("\"filter\":\"a/#\",", "", "7: the field queue is missing"),
            (
                "\"queue\":\"$queue/jobs\",\"qos\"",
                "\"queue\":\"$queue/x\",\"qos\"",
                "8: the field queue has to be that of",
            ),
            (
                "\"id\":268435455",
                "\"id\":268435456",
                "8: the field id has to be",
            ),
            (
                "\"no_local\":true",
                "\"no_local\":1",
                "8: the field no_local has to be true",
            ),
            (
                "\"packet_id\":65535",
                "\"packet_id\":65536",
                "9: the field packet_id has to be",
            ),
            (
                "\"qos\":1,\"shared\":1,\"message\"",
                "\"qos\":3,\"shared\":1,\"message\"",
                "11: the field qos has to be",
            ),
            (
                "[\"user-property\",\"k\",\"v\"]",
                "[\"user-property\",\"k\"]",
                "11: the field message.properties has to be",
            ),
            (
                "[\"response-topic\",\"r\"]",
                "[\"response-topic\",\"r\"],[\"response-topic\",\"r\"]",
                "11: the field message.properties has to be",
            ),
            (
                "\"place\":9",
                "\"place\":5",
                "12: the field place has to be higher than 5",
            ),
            (
                "CQAB/w==",
                "CQAB/w",
                "12: the field message.properties_base64 has to be",
            ),
            (
                "\"AP8=\"",
                "\"AP8\"",
                "12: the field message.payload_base64 has to be",
            ),
            (
                "\"place\":1,\"qos\":1,\"shared\":1",
                "\"place\":1,\"qos\":1,\"shared\":9",
                "13: the field message is missing",
            ),
            (
                "\"state\":\"open\"",
                "\"state\":\"opened\"",
                "14: the field state has to be",
            ),
            (
                "\"held_by\":\"a\"",
                "\"held_by\":\"z\"",
                "16: the field held_by has to be",
            ),
            (
                "\"deliveries\":2,",
                "",
                "17: the field deliveries is missing",
            ),
            (
                "\"kind\":\"retained\"",
                "\"kind\":\"remained\"",
                "18: the field kind has",
            ),
            ("\"lines\":18", "\"lines\":17", "19: the field lines is 17"),
            (
                "{\"kind\":\"end\",\"lines\":18}\n",
                "",
                "the last line, which is of kind end, is missing",
            ),
            (
                "\"lines\":18}\n",
                "\"lines\":18}\n{\"kind\":\"end\",\"lines\":19}\n",
                "20: nothing may come behind",
            ),
        ];
        for (from, to, expected) in wrong {
            assert!(ALL.contains(from), "{from}");
            let error = import(&store(), &ALL.replacen(from, to, 1)).unwrap_err();
            assert!(error.starts_with(expected), "{error}, not {expected}");
        }
    }
}
