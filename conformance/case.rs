//! Cases as they stand in the TOML files, read into steps that can be played.
//!
//! Owns the vocabulary that README.md describes; refuses what it does not
//! know, so that a misspelt field cannot make a case show less than it says.
//! Opens no connection.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value as Toml};

use crate::packet::{self, Kind, Packet, Shape, Value, Version};
use crate::property::{self, Property, Wanted};

/// The protocol versions that cases may be of.
pub const VERSIONS: [&str; 3] = ["3.1", "3.1.1", "5"];

/// The brokers of which cases may note that they fail.
pub const BROKERS: [&str; 1] = ["mosquitto"];

/// One case in one version: what it shows, and what is played, once for each
/// of its rows.
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
    /// What its clients speak unless their CONNECT says another.
    pub version: Version,
    /// Whether it is of what only RotaMQ has.
    pub rotamq_only: bool,
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
    Publish {
        publish: Packet,
        /// Of the first answer.
        code: Value,
    },
    Subscribe {
        subscribe: Packet,
        granted: Vec<u8>,
    },
    Unsubscribe {
        unsubscribe: Packet,
        /// Those of MQTT 5.
        codes: Option<Vec<u8>>,
    },
    /// By a SUBACK with 0x80 or more, or by closing.
    SubscribeRefused {
        subscribe: Packet,
    },
    Fence,
    /// Either will do, and what else comes is skipped; the client is gone then.
    FenceOrClose,
    Disconnect(Packet),
    Close,
    ExpectClose {
        /// Since the client's last bytes.
        not_before_ms: u64,
        /// If not within the time that a step has.
        within_s: Option<u16>,
        /// Whether a CONNACK that refuses may come before.
        may_refuse: bool,
        /// The codes that a DISCONNECT or CONNACK of MQTT 5 may have; any if
        /// there are none.
        codes: Vec<u8>,
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
    let mut names: Vec<(&str, &str)> = cases
        .iter()
        .map(|case| (case.name.as_str(), case.version.as_str()))
        .collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("two cases have the name {}", twice[0].0));
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
    let all_versions = match file.texts("versions")? {
        versions if versions.is_empty() => vec![version.clone()],
        versions => versions,
    };
    let rotamq_only = file.flag("rotamq_only")?.unwrap_or(false);
    let tables = file.tables("case")?;
    file.finish()?;
    for table in tables {
        let name = table.get("name").map(written).unwrap_or_default();
        let in_case = |error| format!("case {name}: {error}");
        let mut fields = Fields::new(table);
        let mut versions = fields.texts("versions").map_err(in_case)?;
        if versions.is_empty() {
            versions.clone_from(&all_versions);
        }
        for played in versions {
            if !VERSIONS.contains(&played.as_str()) {
                return Err(in_case(format!("the version {played} is not known")));
            }
            let id = format!("{run_id}{}", base36(cases.len() as u64, 3));
            let mut fields = Fields::new(fields.table.clone());
            // `shows` is of the file's version; what a case shows of 5 beside
            // it is `shows5`.
            let [own, five] = ["shows", "shows5"].map(|name| fields.texts(name));
            let (own, five) = (own.map_err(in_case)?, five.map_err(in_case)?);
            let shows = match (played == version, played == "5") {
                (true, _) => own,
                (false, true) => five,
                _ => Vec::new(),
            };
            let mut case = load_case(fields, &played, rotamq_only, &id).map_err(in_case)?;
            case.shows = shows;
            cases.push(case);
        }
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
    let known = read_notes(&mut fields, version)?;
    let steps = fields.tables("steps")?;
    let rows = match fields.tables("rows")? {
        rows if rows.is_empty() => vec![Table::new()],
        rows => rows,
    };
    fields.finish()?;
    let mut runs = Vec::new();
    for (number, row) in rows.into_iter().enumerate() {
        let mut row = Fields::new(row);
        if row.text("version")?.is_some_and(|only| only != version) {
            continue;
        }
        let mut known = known.clone();
        known.extend(read_notes(&mut row, version)?);
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
            version: wire_version(version),
            rotamq_only,
            known,
            steps: played,
        });
    }
    if runs.is_empty() {
        return Err(format!("no row is of version {version}"));
    }
    Ok(Case {
        name,
        about,
        shows: Vec::new(),
        version: version.to_owned(),
        rotamq_only,
        runs,
    })
}

fn wire_version(version: &str) -> Version {
    match version {
        "5" => Version::V5,
        _ => Version::V3,
    }
}

/// The brokers that are noted to fail in this version, and why: a text, or a
/// table of texts by version.
fn read_notes(fields: &mut Fields, version: &str) -> Result<BTreeMap<String, String>, String> {
    let mut notes = BTreeMap::new();
    for broker in BROKERS {
        let note = match fields.take(broker) {
            Some(Toml::Table(by_version)) => by_version.get(version).cloned(),
            note => note,
        };
        match note {
            None => {}
            Some(Toml::String(note)) => {
                notes.insert(broker.to_owned(), note);
            }
            Some(other) => return Err(format!("{broker} is a text, not {}", written(&other))),
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
    let own_version = fields.text("version")?;
    let version = own_version.as_deref().unwrap_or(version);
    if !VERSIONS.contains(&version) {
        return Err(format!("the version {version} is not known"));
    }
    match *verb {
        "open" => fields.truth("open").map(|()| Action::Open),
        "fence" => fields.truth("fence").map(|()| Action::Fence),
        "fence_or_close" => fields
            .truth("fence_or_close")
            .map(|()| Action::FenceOrClose),
        "disconnect" => {
            fields.truth("disconnect")?;
            let disconnect = read_packet(Kind::Disconnect, fields)?.packet;
            Ok(Action::Disconnect(disconnect))
        }
        "close" => fields.truth("close").map(|()| Action::Close),
        "expect_close" => {
            fields.truth("expect_close")?;
            let not_before_ms = fields.number("not_before_ms")?.unwrap_or(0).into();
            let may_refuse = fields.flag("may_refuse")?.unwrap_or(false);
            let codes = match fields.take("code") {
                None => Vec::new(),
                Some(code @ Toml::Integer(_)) => read_bytes_list(Toml::Array(vec![code]))?,
                Some(codes) => read_bytes_list(codes)?,
            };
            Ok(Action::ExpectClose {
                not_before_ms,
                within_s: fields.number("within_s")?,
                may_refuse,
                codes,
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
            let mut connack = Packet::new(Kind::Connack)
                .with("session_present", Value::Flag(session_present))
                .with("code", Value::Number(0));
            if let Some(wanted) = fields.take("connack") {
                connack = connack.with("properties", read_wanted(wanted)?);
            }
            let connect = read_packet(Kind::Connect, fields)?.packet;
            Ok(Action::Connect {
                connect: connect_defaults(connect, &client_id, version),
                connack,
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
            let code = match fields.take("code") {
                Some(code) => read_value(code, Shape::Code)?,
                None => taken(),
            };
            let packet = read_packet(Kind::Publish, fields)?;
            if packet.id_variable.is_some() {
                return Err("publish takes no variable".into());
            }
            Ok(Action::Publish {
                publish: packet.packet,
                code,
            })
        }
        "subscribe" | "subscribe_refused" => {
            let filters = fields.take(verb).expect("it is the verb");
            let granted = fields.take("granted").map(read_bytes_list).transpose()?;
            fields.table.insert("filters".to_owned(), filters);
            let subscribe = read_packet(Kind::Subscribe, fields)?.packet;
            let Some(Value::Requests(requests)) = subscribe.fields.get("filters") else {
                unreachable!("read as such");
            };
            let asked = requests.iter().map(|(_, options)| options & 3).collect();
            match (*verb, granted) {
                ("subscribe", granted) => Ok(Action::Subscribe {
                    granted: granted.unwrap_or(asked),
                    subscribe,
                }),
                (_, None) => Ok(Action::SubscribeRefused { subscribe }),
                _ => Err("what is refused is not granted".into()),
            }
        }
        "unsubscribe" => {
            let filters = fields.take("unsubscribe").expect("it is the verb");
            let codes = fields.take("codes").map(read_bytes_list).transpose()?;
            fields.table.insert("filters".to_owned(), filters);
            let unsubscribe = read_packet(Kind::Unsubscribe, fields)?.packet;
            Ok(Action::Unsubscribe { unsubscribe, codes })
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
    let properties = fields.take("properties").map(read_wanted).transpose()?;
    let mut packet = read_packet(kind, fields)?;
    if let Some(wanted) = properties {
        packet.packet = packet.packet.with("properties", wanted);
    }
    // Flags, QoS and codes that a case leaves out are to be zero, and a PUBLISH
    // has the properties given and no other.
    for (name, shape) in packet::fields_of(kind) {
        let zero = match (*shape, *name) {
            (Shape::Flag, _) => Value::Flag(false),
            (Shape::Number, "qos") => Value::Number(0),
            (Shape::Code, _) if matches!(kind, Kind::Puback | Kind::Pubrec) => taken(),
            (Shape::Code, _) => Value::Number(0),
            (Shape::Properties, _) if kind == Kind::Publish => Value::Wanted(Vec::new()),
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

/// The codes of an acknowledgement of a message that was taken: perhaps MQTT 5
/// tells that nobody has subscribed to it.
fn taken() -> Value {
    Value::OneOf(vec![0x00, 0x10])
}

/// What a CONNECT has unless the case says otherwise.
///
/// `clean_session` is what it is in 3.1.1, also for MQTT 5, where Clean Start 0
/// is half of it: without it, the session outlives the connection.
fn connect_defaults(mut packet: Packet, client_id: &str, version: &str) -> Packet {
    const AN_HOUR_SECONDS: u32 = 3600;
    let (name, level): (&str, u16) = match version {
        "3.1" => ("MQIsdp", 3),
        "3.1.1" => ("MQTT", 4),
        _ => ("MQTT", 5),
    };
    let clean_session = packet.fields.get("clean_session") != Some(&Value::Flag(false));
    if let Some(clean_start) = packet.fields.remove("clean_start") {
        packet = packet.with("clean_session", clean_start);
    } else if !clean_session && level == 5 {
        let expiry = Property::named("session_expiry_interval").expect("it is in the table");
        let properties = packet.fields.entry("properties");
        if let Value::Properties(properties) = properties.or_insert(Value::Properties(Vec::new()))
            && !properties.iter().any(|(property, _)| *property == expiry)
        {
            properties.push((expiry, property::Value::Number(AN_HOUR_SECONDS)));
        }
    }
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
        Shape::Code => match value {
            Toml::Array(_) => Value::OneOf(read_bytes_list(value)?),
            _ => Value::Number(read_number(&value)?),
        },
        Shape::Properties => read_properties(value)?,
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
                let mut request = list(request)?.into_iter();
                let (Some(filter), Some(qos)) = (request.next(), request.next()) else {
                    return Err("a request is a filter, a QoS, and perhaps options".into());
                };
                let qos = u8::try_from(read_number(&qos)?).map_err(|_| "a QoS is one byte")?;
                let options = request.next().map_or(Ok(0), read_options)?;
                requests.push((read_bytes(filter)?, qos | options));
            }
            Value::Requests(requests)
        }
    })
}

/// The subscription options beside the QoS (3.8.3.1).
fn read_options(value: Toml) -> Result<u8, String> {
    let Toml::Table(table) = value else {
        return Err(format!("{} is no table of options", written(&value)));
    };
    let mut fields = Fields::new(table);
    let no_local = fields.flag("no_local")?.unwrap_or(false);
    let as_published = fields.flag("retain_as_published")?.unwrap_or(false);
    let handling = fields.number("retain_handling")?.unwrap_or(0);
    fields.finish()?;
    Ok(u8::from(no_local) << 2 | u8::from(as_published) << 3 | (handling as u8) << 4)
}

/// Properties by their names, or `{ bytes = "..." }` in their place.
fn read_properties(value: Toml) -> Result<Value, String> {
    let Toml::Table(table) = value else {
        return Err(format!("{} is no table of properties", written(&value)));
    };
    if table.contains_key("bytes") {
        return read_bytes(Toml::Table(table)).map(Value::Bytes);
    }
    let mut properties = Vec::new();
    for (name, value) in table {
        let property = property_named(&name)?;
        for value in read_property(property, value)? {
            if let property::Value::AnyOf(_) = value {
                return Err(format!("{name}: a pair that is sent has two texts"));
            }
            properties.push((property, value));
        }
    }
    Ok(Value::Properties(properties))
}

/// What is wanted of properties: by name a value, `true` for any, `false` for
/// none, `{ from = 1, to = 9 }`, or `"$variable"`.
fn read_wanted(value: Toml) -> Result<Value, String> {
    let Toml::Table(table) = value else {
        return Err(format!("{} is no table of properties", written(&value)));
    };
    let mut wanted = Vec::new();
    for (name, value) in table {
        let property = property_named(&name)?;
        let variable = value.as_str().and_then(|text| text.strip_prefix('$'));
        let of_it = match (&value, variable) {
            (Toml::Boolean(true), _) => Wanted::Present,
            (Toml::Boolean(false), _) => Wanted::Absent,
            (_, Some(variable)) if takes_variable(property) => {
                Wanted::Variable(variable.to_owned())
            }
            (Toml::Table(range), _) if range.contains_key("from") => {
                let bound = |name| range.get(name).and_then(Toml::as_integer);
                let bounds = bound("from").zip(bound("to"));
                let (least, most) = bounds.ok_or("a range is from a number to a number")?;
                let number = |bound| u32::try_from(bound).map_err(|_| "a bound is too large");
                Wanted::From(number(least)?, number(most)?)
            }
            _ => Wanted::Equal(read_property(property, value)?),
        };
        wanted.push((property, of_it));
    }
    Ok(Value::Wanted(wanted))
}

fn property_named(name: &str) -> Result<&'static Property, String> {
    Property::named(name).ok_or_else(|| format!("there is no property {name}"))
}

/// Texts may begin with $ themselves.
fn takes_variable(property: &Property) -> bool {
    use property::Type;
    match property.type_ {
        Type::Text => property.name == "assigned_client_identifier",
        Type::Binary | Type::Pair => false,
        _ => true,
    }
}

/// The values of one property: a number, a text, pairs, or a list of numbers.
fn read_property(property: &Property, value: Toml) -> Result<Vec<property::Value>, String> {
    use property::Type;
    match property.type_ {
        Type::Text | Type::Binary => Ok(vec![property::Value::Bytes(read_bytes(value)?)]),
        Type::Pair => {
            let Toml::Array(pairs) = value else {
                return Err(format!("{} is no list of pairs", written(&value)));
            };
            let read = |pair: Toml| match pair {
                Toml::Array(pair) => match <[Toml; 2]>::try_from(pair) {
                    Ok([name, Toml::Boolean(true)]) => {
                        Ok(property::Value::AnyOf(read_bytes(name)?))
                    }
                    Ok([name, text]) => {
                        Ok(property::Value::Pair(read_bytes(name)?, read_bytes(text)?))
                    }
                    Err(_) => Err("a pair has two texts".to_owned()),
                },
                other => Err(format!("{} is no pair", written(&other))),
            };
            pairs.into_iter().map(read).collect()
        }
        _ => match value {
            Toml::Array(numbers) => numbers.iter().map(read_property_number).collect(),
            number => Ok(vec![read_property_number(&number)?]),
        },
    }
}

/// A number, or `"$variable"`, or `"$variable+1"`.
fn read_property_number(value: &Toml) -> Result<property::Value, String> {
    if let Some(variable) = value.as_str().and_then(|text| text.strip_prefix('$')) {
        let (name, plus) = variable.split_once('+').unwrap_or((variable, "0"));
        let plus = plus.parse().map_err(|_| format!("{plus} is no number"))?;
        return Ok(property::Value::Variable(name.to_owned(), plus));
    }
    value
        .as_integer()
        .and_then(|number| u32::try_from(number).ok())
        .map(property::Value::Number)
        .ok_or_else(|| format!("{} is no number of 32 bits", written(value)))
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
