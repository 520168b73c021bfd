//! Cases as they stand in the TOML files, read into steps that can be played.
//!
//! Owns the vocabulary that README.md describes; refuses what it does not
//! know, so that a misspelt field cannot make a case show less than it says.
//! Opens no connection.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value as Toml};

use crate::packet::{self, Kind, Packet, Shape, Value};

/// The protocol versions that cases may be of.
pub const VERSIONS: [&str; 2] = ["3.1", "3.1.1"];

/// The brokers of which cases may note that they fail.
pub const BROKERS: [&str; 1] = ["mosquitto"];

/// One case: what it shows, and what is played, once for each of its rows.
pub struct Case {
    pub name: String,
    pub about: String,
    /// The statements that it shows.
    pub shows: Vec<String>,
    /// The version whose statements these are, as in statements.csv.
    pub version: String,
    /// Whether it is of what only RotaMQ has.
    pub rotamq_only: bool,
    pub runs: Vec<Run>,
}

/// A case's steps with one row's values put in.
pub struct Run {
    /// The row's values, for messages; empty if the case has no rows.
    pub row: String,
    /// What its client ids and topics begin with; no other run has the same.
    pub id: String,
    /// By broker, why that one fails this run.
    pub known: BTreeMap<String, String>,
    pub steps: Vec<Step>,
}

/// One step of a case.
pub struct Step {
    pub client: String,
    pub action: Action,
    /// As it stands in the file, for messages.
    pub text: String,
}

pub enum Action {
    /// Opens a connection and sends nothing.
    Open,
    /// Opens a connection, sends the CONNECT, gets this CONNACK.
    Connect {
        connect: Packet,
        connack: Packet,
        ignore_foreign: bool,
    },
    Send(Outgoing),
    Expect(Expected),
    Unordered(Vec<Expected>),
    /// A PUBLISH with the whole handshake of its QoS.
    Publish(Packet),
    Subscribe {
        filters: Value,
        granted: Vec<u8>,
    },
    Unsubscribe {
        filters: Value,
    },
    /// By a SUBACK with 0x80, or by closing.
    SubscribeRefused {
        filters: Value,
    },
    Fence,
    /// Either will do, and what else comes is skipped; the client is gone then.
    FenceOrClose,
    Disconnect,
    Close,
    ExpectClose {
        /// Since the client's last bytes.
        not_before_ms: u64,
        /// If not within the time that a step has.
        within_s: Option<u16>,
        /// Whether a CONNACK that refuses may come before.
        may_refuse: bool,
    },
    Pause {
        ms: u64,
    },
}

/// What is sent, and in which pieces it is written.
pub struct Outgoing {
    pub what: Sent,
    pub cut: Cut,
}

pub enum Sent {
    Packet {
        packet: Numbered,
        /// Instead of the first byte that the packet should have.
        header: Option<u8>,
        /// Behind the packet's own fields, within its length.
        extra: Vec<u8>,
    },
    Bytes(Vec<u8>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Whole,
    /// Written together with what is sent next.
    Hold,
    /// In pieces of so many bytes.
    Every(usize),
    /// In two pieces, the first of so many bytes.
    After(usize),
}

/// A packet that must come.
pub struct Expected {
    pub packet: Numbered,
    /// Whether its handshake is completed without further steps.
    pub answer: bool,
    /// Whether it may be missing, in an unordered set.
    pub optional: bool,
}

/// A packet of which the id may be a variable: `$name`.
pub struct Numbered {
    pub packet: Packet,
    pub id_variable: Option<String>,
}

/// Loads the cases of every TOML file in the folders below `root`.
///
/// `run_id` makes client ids and topics of this run unlike those of others.
pub fn load_all(root: &Path, run_id: &str) -> Result<Vec<Case>, String> {
    let mut files = Vec::new();
    for folder in list(root)? {
        if folder.is_dir() {
            files.extend(list(&folder)?);
        }
    }
    files.retain(|file| file.extension().is_some_and(|ending| ending == "toml"));
    let mut cases = Vec::new();
    for file in files {
        load_file(&file, run_id, &mut cases)
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("two cases have the name {}", twice[0]));
    }
    Ok(cases)
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable = |error| format!("cannot read {}: {error}", folder.display());
    let mut paths = fs::read_dir(folder)
        .map_err(unreadable)?
        .map(|entry| entry.map(|entry| entry.path()).map_err(unreadable))
        .collect::<Result<Vec<PathBuf>, String>>()?;
    paths.sort();
    Ok(paths)
}

fn load_file(path: &Path, run_id: &str, cases: &mut Vec<Case>) -> Result<(), String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let table: Table = text
        .parse()
        .map_err(|error: toml::de::Error| error.to_string())?;
    let mut file = Fields::new(table);
    let version = file.text("version")?.ok_or("it needs a version")?;
    if !VERSIONS.contains(&version.as_str()) {
        return Err(format!("the version {version} is not known"));
    }
    let rotamq_only = file.flag("rotamq_only")?.unwrap_or(false);
    let tables = file.tables("case")?;
    file.finish()?;
    for table in tables {
        let id = format!("{run_id}{}", base36(cases.len() as u64, 3));
        let name = table.get("name").map(written).unwrap_or_default();
        let case = load_case(Fields::new(table), &version, rotamq_only, &id)
            .map_err(|error| format!("case {name}: {error}"))?;
        cases.push(case);
    }
    Ok(())
}

fn load_case(
    mut fields: Fields,
    version: &str,
    rotamq_only: bool,
    id: &str,
) -> Result<Case, String> {
    let name = fields.text("name")?.ok_or("it needs a name")?;
    let about = fields.text("about")?.ok_or("it needs an `about`")?;
    let shows = fields.texts("shows")?;
    let known = read_notes(&mut fields)?;
    let steps = fields.tables("steps")?;
    let rows = match fields.tables("rows")? {
        rows if rows.is_empty() => vec![Table::new()],
        rows => rows,
    };
    fields.finish()?;
    let mut runs = Vec::new();
    for (number, row) in rows.into_iter().enumerate() {
        let mut row = Fields::new(row);
        let mut known = known.clone();
        known.extend(read_notes(&mut row)?);
        let row = row.table;
        let id = format!("{id}{}", base36(number as u64, 2));
        let text = match row.is_empty() {
            true => String::new(),
            false => written(&Toml::Table(row.clone())),
        };
        let mut values = HashMap::from([("id".to_owned(), Toml::String(id.clone()))]);
        for (name, value) in row {
            let value = substitute(value, &values)?;
            values.insert(name, value);
        }
        let mut played = Vec::new();
        unroll(&steps, &values, version, &mut played)?;
        runs.push(Run {
            row: text,
            id,
            known,
            steps: played,
        });
    }
    Ok(Case {
        name,
        about,
        shows,
        version: version.to_owned(),
        rotamq_only,
        runs,
    })
}

/// The brokers that are noted to fail, and why.
fn read_notes(fields: &mut Fields) -> Result<BTreeMap<String, String>, String> {
    let mut notes = BTreeMap::new();
    for broker in BROKERS {
        if let Some(note) = fields.text(broker)? {
            notes.insert(broker.to_owned(), note);
        }
    }
    Ok(notes)
}

/// Puts the values into the steps, and repeats those that have `times`.
fn unroll(
    steps: &[Table],
    values: &HashMap<String, Toml>,
    version: &str,
    played: &mut Vec<Step>,
) -> Result<(), String> {
    for (number, step) in steps.iter().enumerate() {
        unroll_step(step, values, version, played)
            .map_err(|error| format!("step {}: {error}", number + 1))?;
    }
    Ok(())
}

fn unroll_step(
    step: &Table,
    values: &HashMap<String, Toml>,
    version: &str,
    played: &mut Vec<Step>,
) -> Result<(), String> {
    let mut step = step.clone();
    let Some(times) = step.remove("times") else {
        return add_step(step, values, version, played);
    };
    let times = substitute(times, values)?
        .as_integer()
        .ok_or("times is a number")?;
    let mut values = values.clone();
    for n in 1..=times {
        values.insert("n".to_owned(), Toml::Integer(n));
        match step.get("steps") {
            Some(_) => {
                let mut fields = Fields::new(step.clone());
                let inner = fields.tables("steps")?;
                fields.finish()?;
                unroll(&inner, &values, version, played)?;
            }
            None => add_step(step.clone(), &values, version, played)?,
        }
    }
    Ok(())
}

fn add_step(
    step: Table,
    values: &HashMap<String, Toml>,
    version: &str,
    played: &mut Vec<Step>,
) -> Result<(), String> {
    let Toml::Table(table) = substitute(Toml::Table(step), values)? else {
        unreachable!("a table stays one");
    };
    let text = written(&Toml::Table(table.clone()));
    let mut fields = Fields::new(table);
    let client = fields.text("client")?.ok_or("it needs a client")?;
    let action = read_action(&mut fields, &client, values, version)
        .and_then(|action| fields.finish().map(|()| action))
        .map_err(|error| format!("{error}, in {text}"))?;
    played.push(Step {
        client,
        action,
        text,
    });
    Ok(())
}

fn read_action(
    fields: &mut Fields,
    client: &str,
    values: &HashMap<String, Toml>,
    version: &str,
) -> Result<Action, String> {
    const VERBS: [&str; 16] = [
        "open",
        "connect",
        "send",
        "expect",
        "receive",
        "unordered",
        "publish",
        "subscribe",
        "subscribe_refused",
        "unsubscribe",
        "fence",
        "fence_or_close",
        "disconnect",
        "close",
        "expect_close",
        "pause_ms",
    ];
    let mut verbs = VERBS
        .iter()
        .filter(|verb| fields.table.contains_key(**verb));
    let (Some(verb), None) = (verbs.next(), verbs.next()) else {
        return Err(format!("it needs one of {}", VERBS.join(", ")));
    };
    let client_id = format!("{}{client}", values["id"].as_str().unwrap_or_default());
    match *verb {
        "open" => fields.truth("open").map(|()| Action::Open),
        "fence" => fields.truth("fence").map(|()| Action::Fence),
        "fence_or_close" => fields
            .truth("fence_or_close")
            .map(|()| Action::FenceOrClose),
        "disconnect" => fields.truth("disconnect").map(|()| Action::Disconnect),
        "close" => fields.truth("close").map(|()| Action::Close),
        "expect_close" => {
            fields.truth("expect_close")?;
            let not_before_ms = fields.number("not_before_ms")?.unwrap_or(0).into();
            let may_refuse = fields.flag("may_refuse")?.unwrap_or(false);
            Ok(Action::ExpectClose {
                not_before_ms,
                within_s: fields.number("within_s")?,
                may_refuse,
            })
        }
        "pause_ms" => {
            let ms = fields.number("pause_ms")?.unwrap_or(0).into();
            Ok(Action::Pause { ms })
        }
        "connect" => {
            fields.truth("connect")?;
            let session_present = fields.flag("session_present")?.unwrap_or(false);
            let ignore_foreign = fields.flag("ignore_foreign")?.unwrap_or(false);
            let connect = read_packet(Kind::Connect, fields)?.packet;
            Ok(Action::Connect {
                connect: connect_defaults(connect, &client_id, version),
                connack: Packet::new(Kind::Connack)
                    .with("session_present", Value::Flag(session_present))
                    .with("code", Value::Number(0)),
                ignore_foreign,
            })
        }
        "send" => read_send(fields, &client_id, version),
        "expect" | "receive" => read_expected(fields).map(Action::Expect),
        "unordered" => {
            let mut expected = Vec::new();
            for item in fields.tables("unordered")? {
                let mut item = Fields::new(item);
                let optional = item.flag("optional")?.unwrap_or(false);
                let packet = read_expected(&mut item)?;
                expected.push(Expected { optional, ..packet });
                item.finish()?;
            }
            Ok(Action::Unordered(expected))
        }
        "publish" => {
            let topic = fields.take("publish").expect("it is the verb");
            fields.table.insert("topic".to_owned(), topic);
            let packet = read_packet(Kind::Publish, fields)?;
            if packet.id_variable.is_some() {
                return Err("publish takes no variable".into());
            }
            Ok(Action::Publish(packet.packet))
        }
        "subscribe" => {
            let filters = fields.take("subscribe").expect("it is the verb");
            let filters = read_value(filters, Shape::Requests)?;
            let Value::Requests(requests) = &filters else {
                unreachable!("read as such");
            };
            let granted = match fields.take("granted") {
                Some(codes) => read_bytes_list(codes)?,
                None => requests.iter().map(|(_, qos)| *qos).collect(),
            };
            Ok(Action::Subscribe { filters, granted })
        }
        "subscribe_refused" => {
            let filters = fields.take("subscribe_refused").expect("it is the verb");
            let filters = read_value(filters, Shape::Requests)?;
            Ok(Action::SubscribeRefused { filters })
        }
        "unsubscribe" => {
            let filters = fields.take("unsubscribe").expect("it is the verb");
            let filters = read_value(filters, Shape::Filters)?;
            Ok(Action::Unsubscribe { filters })
        }
        _ => unreachable!("every verb has its arm"),
    }
}

fn read_send(fields: &mut Fields, client_id: &str, version: &str) -> Result<Action, String> {
    let name = fields.text("send")?.expect("it is the verb");
    let header = fields
        .number("header")?
        .map(|header| u8::try_from(header).map_err(|_| "header is one byte"))
        .transpose()?;
    let cut = match (
        fields.flag("hold")?.unwrap_or(false),
        fields.number("split")?,
        fields.number("cut")?,
    ) {
        (false, None, None) => Cut::Whole,
        (true, None, None) => Cut::Hold,
        (false, Some(bytes), None) if bytes > 0 => Cut::Every(bytes.into()),
        (false, None, Some(bytes)) => Cut::After(bytes.into()),
        _ => return Err("it has one of hold, split and cut at most".into()),
    };
    let what = if name == "bytes" {
        // With a header, the length between header and body is filled in.
        let bytes = notation(&fields.text("bytes")?.ok_or("it needs the bytes")?)?;
        Sent::Bytes(match header {
            Some(first) => packet::frame(first, &bytes),
            None => bytes,
        })
    } else {
        let kind = Kind::named(&name).ok_or_else(|| format!("there is no packet {name}"))?;
        let extra = match fields.text("extra")? {
            Some(text) => notation(&text)?,
            None => Vec::new(),
        };
        let mut packet = read_packet(kind, fields)?;
        if kind == Kind::Connect {
            packet.packet = connect_defaults(packet.packet, client_id, version);
        }
        Sent::Packet {
            packet,
            header,
            extra,
        }
    };
    Ok(Action::Send(Outgoing { what, cut }))
}

fn read_expected(fields: &mut Fields) -> Result<Expected, String> {
    let (kind, answer) = match fields.take("receive") {
        Some(topic) => {
            fields.table.insert("topic".to_owned(), topic);
            (Kind::Publish, true)
        }
        None => {
            let name = fields.text("expect")?.ok_or("it needs expect or receive")?;
            let kind = Kind::named(&name).ok_or_else(|| format!("there is no packet {name}"))?;
            (kind, false)
        }
    };
    let mut packet = read_packet(kind, fields)?;
    // Flags, QoS and codes that a case leaves out are to be zero.
    for (name, shape) in packet::fields_of(kind) {
        let zero = match (*shape, *name) {
            (Shape::Flag, _) => Value::Flag(false),
            (Shape::Number, "qos" | "code") => Value::Number(0),
            _ => continue,
        };
        packet.packet.fields.entry(name).or_insert(zero);
    }
    Ok(Expected {
        packet,
        answer,
        optional: false,
    })
}

/// What a CONNECT has unless the case says otherwise.
fn connect_defaults(mut packet: Packet, client_id: &str, version: &str) -> Packet {
    let (name, level): (&str, u16) = match version {
        "3.1" => ("MQIsdp", 3),
        _ => ("MQTT", 4),
    };
    let defaults = [
        ("protocol_name", Value::Bytes(name.into())),
        ("protocol_level", Value::Number(level)),
        ("clean_session", Value::Flag(true)),
        ("keep_alive", Value::Number(0)),
        ("client_id", Value::Bytes(client_id.into())),
    ];
    for (name, value) in defaults {
        packet.fields.entry(name).or_insert(value);
    }
    packet
}

/// Takes the fields of a packet of this kind.
fn read_packet(kind: Kind, fields: &mut Fields) -> Result<Numbered, String> {
    let mut packet = Packet::new(kind);
    let mut id_variable = None;
    for (name, shape) in packet::fields_of(kind) {
        let Some(value) = fields.take(name) else {
            continue;
        };
        let variable = value.as_str().and_then(|text| text.strip_prefix('$'));
        if let (&"packet_id", Some(variable)) = (name, variable) {
            id_variable = Some(variable.to_owned());
            continue;
        }
        let value = read_value(value, *shape).map_err(|error| format!("{name}: {error}"))?;
        packet = packet.with(name, value);
    }
    Ok(Numbered {
        packet,
        id_variable,
    })
}

fn read_value(value: Toml, shape: Shape) -> Result<Value, String> {
    let list = |value: Toml| match value {
        Toml::Array(items) => Ok(items),
        other => Err(format!("{} is no list", written(&other))),
    };
    Ok(match shape {
        Shape::Flag => Value::Flag(value.as_bool().ok_or("it is true or false")?),
        Shape::Number => Value::Number(read_number(&value)?),
        Shape::Bytes => Value::Bytes(read_bytes(value)?),
        Shape::Codes => Value::Codes(read_bytes_list(value)?),
        Shape::Filters => Value::Filters(
            list(value)?
                .into_iter()
                .map(read_bytes)
                .collect::<Result<_, _>>()?,
        ),
        Shape::Requests => {
            let mut requests = Vec::new();
            for request in list(value)? {
                let [filter, qos] = <[Toml; 2]>::try_from(list(request)?)
                    .map_err(|_| "a request is a filter and a QoS")?;
                let qos = u8::try_from(read_number(&qos)?).map_err(|_| "a QoS is one byte")?;
                requests.push((read_bytes(filter)?, qos));
            }
            Value::Requests(requests)
        }
    })
}

fn read_number(value: &Toml) -> Result<u16, String> {
    value
        .as_integer()
        .and_then(|number| u16::try_from(number).ok())
        .ok_or_else(|| format!("{} is no number from 0 to 65535", written(value)))
}

fn read_bytes_list(value: Toml) -> Result<Vec<u8>, String> {
    let items = value.as_array().ok_or("it is a list of codes")?;
    items
        .iter()
        .map(|item| {
            let code = item.as_integer().and_then(|code| u8::try_from(code).ok());
            code.ok_or_else(|| format!("{} is no code", written(item)))
        })
        .collect()
}

/// A text, or `{ bytes = "01 'text'" }`, or `{ before = "a", text = "b",
/// count = 3 }`, which is `abbb`.
fn read_bytes(value: Toml) -> Result<Vec<u8>, String> {
    let table = match value {
        Toml::String(text) => return Ok(text.into_bytes()),
        Toml::Integer(number) => return Ok(number.to_string().into_bytes()),
        Toml::Table(table) => table,
        other => {
            return Err(format!(
                "{} is no text and no table of bytes",
                written(&other)
            ));
        }
    };
    let mut fields = Fields::new(table);
    let bytes = match fields.text("bytes")? {
        Some(bytes) => notation(&bytes)?,
        None => {
            let before = fields.text("before")?.unwrap_or_default();
            let text = fields.text("text")?.ok_or("it needs bytes, or a text")?;
            let count = fields.take("count").and_then(|count| count.as_integer());
            let count = count.and_then(|count| usize::try_from(count).ok());
            let count = count.ok_or("count says how often the text comes")?;
            [before.into_bytes(), text.into_bytes().repeat(count)].concat()
        }
    };
    fields.finish()?;
    Ok(bytes)
}

/// Bytes as written in cases: pairs of hexadecimal digits; `'text'`; and
/// `+'text'`, which stands behind its length in two bytes.
fn notation(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let counted = rest.strip_prefix('+');
        if let Some(quoted) = counted.unwrap_or(rest).strip_prefix('\'') {
            let (inner, after) = quoted.split_once('\'').ok_or("a quote is not closed")?;
            match counted {
                Some(_) => packet::put_string(inner.as_bytes(), &mut bytes),
                None => bytes.extend(inner.bytes()),
            }
            rest = after;
        } else {
            let pair = rest
                .get(..2)
                .filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()))
                .ok_or_else(|| format!("{rest:?} does not begin with two hexadecimal digits"))?;
            bytes.push(u8::from_str_radix(pair, 16).expect("two digits make a byte"));
            rest = &rest[2..];
        }
        rest = rest.trim_start();
    }
    Ok(bytes)
}

/// Puts values in the place of their names: `"{n}"` alone becomes the value
/// itself, whatever its type; within a longer text it becomes its text.
fn substitute(value: Toml, values: &HashMap<String, Toml>) -> Result<Toml, String> {
    Ok(match value {
        Toml::String(text) => substitute_text(&text, values)?,
        Toml::Array(items) => Toml::Array(
            items
                .into_iter()
                .map(|item| substitute(item, values))
                .collect::<Result<_, _>>()?,
        ),
        Toml::Table(table) => Toml::Table(
            table
                .into_iter()
                .map(|(name, value)| match substitute_text(&name, values)? {
                    Toml::String(name) => Ok((name, substitute(value, values)?)),
                    other => Err(format!("{} is no name of a field", written(&other))),
                })
                .collect::<Result<_, String>>()?,
        ),
        other => other,
    })
}

fn substitute_text(text: &str, values: &HashMap<String, Toml>) -> Result<Toml, String> {
    let mut put_in = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or("a { without its }")?;
        let value = values
            .get(name)
            .ok_or_else(|| format!("{{{name}}} has no value"))?;
        if before.is_empty() && after.is_empty() && rest.len() == text.len() {
            return Ok(value.clone());
        }
        put_in.push_str(before);
        match value {
            Toml::String(inner) => put_in.push_str(inner),
            other => put_in.push_str(&written(other)),
        }
        rest = after;
    }
    put_in.push_str(rest);
    Ok(Toml::String(put_in))
}

/// A value as it could stand in a file, on one line.
fn written(value: &Toml) -> String {
    match value {
        Toml::String(text) => format!("{text:?}"),
        Toml::Array(items) => {
            let items: Vec<String> = items.iter().map(written).collect();
            format!("[{}]", items.join(", "))
        }
        Toml::Table(table) => {
            let fields: Vec<String> = table
                .iter()
                .map(|(name, value)| format!("{name} = {}", written(value)))
                .collect();
            format!("{{ {} }}", fields.join(", "))
        }
        Toml::Integer(number) => number.to_string(),
        Toml::Float(number) => number.to_string(),
        Toml::Boolean(flag) => flag.to_string(),
        Toml::Datetime(time) => time.to_string(),
    }
}

/// A table of which each field is taken once, and none may be left.
struct Fields {
    table: Table,
}

impl Fields {
    fn new(table: Table) -> Fields {
        Fields { table }
    }

    fn take(&mut self, name: &str) -> Option<Toml> {
        self.table.remove(name)
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        match self.take(name) {
            None => Ok(None),
            Some(Toml::String(text)) => Ok(Some(text)),
            Some(other) => Err(format!("{name} is a text, not {}", written(&other))),
        }
    }

    fn texts(&mut self, name: &str) -> Result<Vec<String>, String> {
        self.list(name, "texts", |item| match item {
            Toml::String(text) => Ok(text),
            other => Err(other),
        })
    }

    fn tables(&mut self, name: &str) -> Result<Vec<Table>, String> {
        self.list(name, "tables", |item| match item {
            Toml::Table(table) => Ok(table),
            other => Err(other),
        })
    }

    /// `item`: the value, or what stands in its place.
    fn list<T>(
        &mut self,
        name: &str,
        of: &str,
        item: impl Fn(Toml) -> Result<T, Toml>,
    ) -> Result<Vec<T>, String> {
        let items = match self.take(name) {
            None => return Ok(Vec::new()),
            Some(Toml::Array(items)) => items,
            Some(other) => return Err(format!("{name} is a list, not {}", written(&other))),
        };
        let wrong = |other| format!("{name} is a list of {of}, not of {}", written(&other));
        items
            .into_iter()
            .map(|value| item(value).map_err(wrong))
            .collect()
    }

    fn flag(&mut self, name: &str) -> Result<Option<bool>, String> {
        match self.take(name) {
            None => Ok(None),
            Some(Toml::Boolean(flag)) => Ok(Some(flag)),
            Some(other) => Err(format!("{name} is true or false, not {}", written(&other))),
        }
    }

    /// A verb that has no value of its own: `fence = true`.
    fn truth(&mut self, name: &str) -> Result<(), String> {
        match self.flag(name)? {
            Some(true) => Ok(()),
            _ => Err(format!("{name} = true is the only way to write it")),
        }
    }

    fn number(&mut self, name: &str) -> Result<Option<u16>, String> {
        self.take(name)
            .map(|value| read_number(&value).map_err(|error| format!("{name}: {error}")))
            .transpose()
    }

    fn finish(self) -> Result<(), String> {
        match self.table.keys().next() {
            None => Ok(()),
            Some(name) => Err(format!("{name} is not known here")),
        }
    }
}

/// `number` in letters and digits, the last `places` of them.
pub fn base36(mut number: u64, places: usize) -> String {
    let mut digits = vec![b'0'; places];
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize];
        number /= 36;
    }
    String::from_utf8(digits).expect("letters and digits are text")
}
