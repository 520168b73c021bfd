//! From a file, the environment and flags to one [`Config`], or to all that is
//! wrong with them at once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::options::{self, LISTENER, MEMBER, Opt, QUEUE, QUEUE_NAMING, SECTIONS, Scalar};
use super::value::{Value, found};
use super::{
    Address, AuthenticatorKind, ClientCertificates, Config, HttpAddress, KeysAt, Limits, Listener,
    MemberSettings, Protocol, QueueSettings, TokenAlgorithm,
};
use crate::topic::{TopicFilter, TopicLimits};

/// No file that people write is longer.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Variables of the environment that begin so set options.
const PREFIX: &str = "ROTAMQ_";

/// A configuration, and where each of its values comes from.
#[derive(Clone, Debug)]
pub struct Effective {
    pub config: Config,
    /// By path, as in `limits.inflight_max` or `queue[0].prefetch`; what is
    /// not here is a default.
    origins: BTreeMap<String, Origin>,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    File {
        path: Arc<Path>,
        line: usize,
    },
    /// The variable's name.
    Environment(String),
    /// The flag, as in `--threads`.
    Flag(&'static str),
    /// The option that holds where this one is not set.
    Inherited(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Environment(name) => f.write_str(name),
            Origin::Flag(flag) => f.write_str(flag),
            Origin::Inherited(path) => f.write_str(path),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub origin: Origin,
    /// The key, as in `limits.inflight_max`; empty: the file as a whole.
    pub key: String,
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, self.key.is_empty()) {
            (Origin::File { line: 0, path }, _) => write!(f, "{}: {}", path.display(), self.text),
            (Origin::Environment(_) | Origin::Flag(_), _) | (_, true) => {
                write!(f, "{}: {}", self.origin, self.text)
            }
            (Origin::Default, false) => write!(f, "{}: {}", self.key, self.text),
            _ => {
                let key = self.key.escape_debug();
                write!(f, "{}: {key}: {}", self.origin, self.text)
            }
        }
    }
}

/// All that is wrong with a configuration, at least one thing: those of the
/// file first, by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub problems: Vec<Problem>,
}

/// A line for each problem.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// What the command line says. Flags are stronger than anything else.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--listen`, in place of all other listeners; empty: not given.
    pub listen: Vec<Address>,
    /// Flag, path of its option, and a value that its shape allows.
    pub values: Vec<(&'static str, &'static str, Value)>,
}

/// A file's text, and what it is called in errors.
#[derive(Clone, Debug)]
pub struct Source {
    pub path: Arc<Path>,
    pub text: String,
}

impl Source {
    /// # Errors
    /// The file cannot be read, is longer than 4 MiB, or is not UTF-8.
    pub fn read(path: &Path) -> Result<Source, ConfigError> {
        let failed = |text: String| ConfigError {
            problems: vec![Problem {
                origin: Origin::File {
                    path: path.into(),
                    line: 0,
                },
                key: String::new(),
                text,
            }],
        };
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(|error| failed(format!("cannot read the file: {error}")))?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(failed(format!("is longer than {FILE_BYTES_MAX} bytes")));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let line = line_of(&error.as_bytes()[..valid], valid);
            failed(format!("line {line} is not UTF-8 text"))
        })?;
        Ok(Source {
            path: path.into(),
            text,
        })
    }
}

impl Effective {
    /// Joins all sources: flags before environment before file before default.
    ///
    /// Of the environment only variables that begin with `ROTAMQ_` count.
    ///
    /// # Errors
    /// All that is wrong in any of them, also what another source overrides.
    pub fn load(
        file: Option<&Source>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &Flags,
    ) -> Result<Effective, ConfigError> {
        let mut loading = Loading {
            config: Config::default(),
            origins: BTreeMap::new(),
            problems: Vec::new(),
        };
        let mut arrays = Arrays::default();
        let table;
        if let Some(source) = file {
            let (parsed, errors) = DeTable::parse_recoverable(&source.text);
            if !errors.is_empty() {
                // What is left of a broken file would give false errors.
                return Err(syntax_errors(source, &errors));
            }
            table = parsed;
            arrays = loading.read_scalars(FileRef(source), table.get_ref());
        }
        loading.read_environment(environment);
        for (flag, path, value) in &flags.values {
            loading.set_scalar(path, value.clone(), Origin::Flag(flag));
        }
        if let Some(source) = file {
            loading.read_listeners(FileRef(source), arrays.listener);
            loading.read_queues(FileRef(source), arrays.queue);
        }
        if !flags.listen.is_empty() {
            loading.listen(&flags.listen);
        }
        loading.expect_users();
        loading.check_tokens();
        loading.check_services();
        loading.check_listeners();
        loading.finish()
    }

    pub(super) fn with_origins(config: Config, origins: BTreeMap<String, Origin>) -> Effective {
        Effective { config, origins }
    }

    /// Where the value at `path` comes from, as in `queue[0].prefetch`.
    pub fn origin(&self, path: &str) -> &Origin {
        self.origins.get(path).unwrap_or(&Origin::Default)
    }
}

/// The settings of the queue `name` that is given keys of a `[[queue]]` while
/// the broker runs; what is not among them, or null, is as `base` has it.
///
/// # Errors
/// All that is wrong, in the words that a file would get.
pub fn queue_settings(
    name: &str,
    keys: &serde_json::Map<String, serde_json::Value>,
    base: &QueueSettings,
    limits: &Limits,
) -> Result<QueueSettings, ConfigError> {
    const PATH: &str = "queue[0]";
    let problem = |key: &str, text: String| Problem {
        origin: Origin::Default,
        key: key.to_owned(),
        text,
    };
    let mut text = format!("name = {}\n", Value::Text(name.to_owned()));
    for (key, value) in keys.iter().filter(|(_, value)| !value.is_null()) {
        if key == "name" {
            let text = "is what the queue is called, and is not changed".to_owned();
            return Err(ConfigError {
                problems: vec![problem(key, text)],
            });
        }
        text += &format!("{} = {}\n", toml_key(key), toml_value(value));
    }
    let source = Source {
        path: Path::new("settings").into(),
        text,
    };
    let (table, errors) = DeTable::parse_recoverable(&source.text);
    let mut loading = Loading {
        config: Config {
            limits: limits.clone(),
            ..Config::default()
        },
        origins: BTreeMap::new(),
        problems: Vec::new(),
    };
    let queue = match errors.is_empty() {
        true => loading.read_queue(FileRef(&source), PATH, (table.get_ref(), 1), base.clone()),
        false => return Err(syntax_errors(&source, &errors)),
    };
    if loading.problems.is_empty() {
        return Ok(queue);
    }
    // There is no line to be named.
    let problems = loading.problems.into_iter();
    let problems = problems.map(|found| {
        let key = found.key.strip_prefix(PATH).unwrap_or(&found.key);
        problem(key.trim_start_matches('.'), found.text)
    });
    Err(ConfigError {
        problems: problems.collect(),
    })
}

/// A key as TOML has it: with quotes, if it needs them.
fn toml_key(key: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    match !key.is_empty() && key.bytes().all(is_bare) {
        true => key.to_owned(),
        false => Value::Text(key.to_owned()).to_string(),
    }
}

/// A value of JSON as TOML has it, in one line.
fn toml_value(value: &serde_json::Value) -> String {
    let listed = |items: Vec<String>| items.join(", ");
    match value {
        serde_json::Value::String(text) => Value::Text(text.clone()).to_string(),
        serde_json::Value::Array(items) => {
            format!("[{}]", listed(items.iter().map(toml_value).collect()))
        }
        serde_json::Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(key, value)| format!("{} = {}", toml_key(key), toml_value(value)));
            format!("{{{}}}", listed(fields.collect()))
        }
        // Null has no form: the text is taken as one, and refused.
        serde_json::Value::Null => "\"null\"".to_owned(),
        number_or_flag => number_or_flag.to_string(),
    }
}

/// A table of an array, and the line that opens it.
type Element<'t> = (&'t DeTable<'t>, usize);

/// The arrays of tables of a file, kept until the limits are known.
#[derive(Default)]
struct Arrays<'t> {
    listener: Vec<Element<'t>>,
    queue: Vec<Element<'t>>,
}

/// The file that is read, for its name and lines.
#[derive(Clone, Copy)]
pub(crate) struct FileRef<'s>(pub &'s Source);

impl FileRef<'_> {
    pub fn at<T>(self, spanned: &Spanned<T>) -> Origin {
        self.line(self.line_of(spanned))
    }

    pub fn line_of<T>(self, spanned: &Spanned<T>) -> usize {
        line_of(self.0.text.as_bytes(), spanned.span().start)
    }

    pub fn line(self, line: usize) -> Origin {
        Origin::File {
            path: Arc::clone(&self.0.path),
            line,
        }
    }
}

/// What is known so far, and what is wrong so far.
struct Loading {
    config: Config,
    origins: BTreeMap<String, Origin>,
    problems: Vec<Problem>,
}

impl Loading {
    fn problem(&mut self, origin: Origin, key: &str, text: impl Into<String>) {
        self.problems.push(Problem {
            origin,
            key: key.to_owned(),
            text: text.into(),
        });
    }

    /// Sets what the file says outside arrays of tables, which it gives back.
    fn read_scalars<'t>(&mut self, file: FileRef<'_>, root: &'t DeTable<'t>) -> Arrays<'t> {
        let mut arrays = Arrays::default();
        for (key, value) in root {
            let name = key.get_ref().as_ref();
            let is_section = SECTIONS.iter().any(|section| section.name == name);
            match (name, value.get_ref()) {
                ("listener", _) => arrays.listener = self.elements(file, "listener", key, value),
                ("queue", _) => arrays.queue = self.elements(file, "queue", key, value),
                (_, DeValue::Table(table)) if is_section => {
                    for (key, value) in table {
                        let path = format!("{name}.{}", key.get_ref());
                        self.read_scalar(file, &path, key, value);
                    }
                }
                _ if is_section => {
                    let text = format!("must be a table, [{name}], not {}", found(value.get_ref()));
                    self.problem(file.at(key), name, text);
                }
                (_, DeValue::Table(_)) => {
                    let sections = SECTIONS.iter().map(|section| section.name);
                    let sections = sections.chain(["listener", "queue"]);
                    let near = nearest(name, sections.map(str::to_owned));
                    self.problem(
                        file.at(key),
                        name,
                        format!("is no section; the nearest is [{near}]"),
                    );
                }
                _ => self.read_scalar(file, name, key, value),
            }
        }
        arrays
    }

    fn read_scalar<K>(
        &mut self,
        file: FileRef<'_>,
        path: &str,
        key: &Spanned<K>,
        value: &Spanned<DeValue<'_>>,
    ) {
        match Scalar::find(path) {
            Some(scalar) => match scalar.shape().read(value.get_ref()) {
                Ok(value) => self.set_scalar(path, value, file.at(key)),
                Err(text) => self.problem(file.at(key), path, text),
            },
            None => self.problem(file.at(key), path, unknown(path)),
        }
    }

    /// Sets the option at `path` to a value that its shape allows.
    fn set_scalar(&mut self, path: &str, value: Value, origin: Origin) {
        let Some(scalar) = Scalar::find(path) else {
            return self.problem(origin, path, unknown(path));
        };
        let refusal = scalar.shape().refusal(&value.to_string());
        match scalar.set(&mut self.config, value) {
            Some(()) => _ = self.origins.insert(path.to_owned(), origin),
            None => self.problem(origin, path, refusal),
        }
    }

    /// The tables of the array at `path`.
    fn elements<'t, K>(
        &mut self,
        file: FileRef<'_>,
        path: &str,
        key: &Spanned<K>,
        value: &'t Spanned<DeValue<'t>>,
    ) -> Vec<Element<'t>> {
        let mut tables = Vec::new();
        let elements = match value.get_ref() {
            DeValue::Array(elements) => elements.iter().collect(),
            _ => vec![value],
        };
        if elements.is_empty() {
            let text = format!("is empty: leave it out, or write a [[{path}]]");
            self.problem(file.at(key), path, text);
        }
        for element in elements {
            match element.get_ref() {
                DeValue::Table(table) if value.get_ref().is_array() => {
                    tables.push((table, file.line_of(element)));
                }
                other => {
                    let text = format!("must be [[{path}]] tables, not {}", found(other));
                    self.problem(file.at(key), path, text);
                }
            }
        }
        tables
    }

    fn read_environment(&mut self, environment: impl IntoIterator<Item = (OsString, OsString)>) {
        for (name, value) in environment {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            let path = name[PREFIX.len()..].to_lowercase().replace("__", ".");
            let origin = Origin::Environment(name.to_owned());
            let Some(scalar) = Scalar::find(&path) else {
                // Others make names that begin so too, as an orchestrator for
                // a service called rotamq does: ROTAMQ_PORT.
                let mistyped = |known: &str| strsim::damerau_levenshtein(known, &path) <= 2;
                if path.contains('.') || Scalar::all().any(|scalar| mistyped(&scalar.path())) {
                    self.problem(origin, &path, unknown_variable(&path));
                }
                continue;
            };
            let parsed = match value.to_str() {
                Some(text) => scalar.shape().parse(text),
                None => Err(scalar.shape().refusal(&format!("{value:?}"))),
            };
            match parsed {
                Ok(value) => self.set_scalar(&path, value, origin),
                Err(text) => self.problem(origin, &path, text),
            }
        }
    }

    fn read_listeners(&mut self, file: FileRef<'_>, tables: Vec<Element<'_>>) {
        let mut listeners = Vec::new();
        for (index, (table, line)) in tables.into_iter().enumerate() {
            let path = format!("listener[{index}]");
            let mut listener = self.config.listeners[0].clone();
            self.read_table(file, &path, table, &[LISTENER], &mut listener, &[]);
            if self.require(file, &path, table, line, "address") {
                listeners.push(listener);
            }
        }
        if !listeners.is_empty() {
            self.config.listeners = listeners;
        }
    }

    fn read_queues(&mut self, file: FileRef<'_>, tables: Vec<Element<'_>>) {
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        for (index, (table, line)) in tables.into_iter().enumerate() {
            let path = format!("queue[{index}]");
            let base = self.config.queues.default.clone();
            let queue = self.read_queue(file, &path, (table, line), base);
            if let Some(first) = known.get(&queue.name) {
                let text = format!("{:?} has its settings at line {first} already", queue.name);
                self.problem(file.line(line), &format!("{path}.name"), text);
            } else if !queue.name.is_empty() {
                known.insert(queue.name.clone(), line);
            }
            self.config.queue.push(queue);
        }
    }

    /// What one `[[queue]]` says, where it does not hold what `queue` has.
    fn read_queue(
        &mut self,
        file: FileRef<'_>,
        path: &str,
        (table, line): Element<'_>,
        mut queue: QueueSettings,
    ) -> QueueSettings {
        for option in QUEUE {
            let inherited = Origin::Inherited(format!("queues.{}", option.key));
            self.origins
                .insert(format!("{path}.{}", option.key), inherited);
        }
        self.read_table(
            file,
            path,
            table,
            &[QUEUE_NAMING, QUEUE],
            &mut queue,
            &["member"],
        );
        if self.require(file, path, table, line, "name") {
            self.check_queue(path, &queue);
        }
        let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref() == "member") else {
            return queue;
        };
        queue.members.clear();
        let members = self.elements(file, "queue.member", key, value);
        for (index, (table, line)) in members.into_iter().enumerate() {
            let path = format!("{path}.member[{index}]");
            let mut member = MemberSettings {
                client: String::new(),
                prefetch: None,
                ack_timeout: None,
            };
            self.read_table(file, &path, table, &[MEMBER], &mut member, &[]);
            if self.require(file, &path, table, line, "client") {
                self.check_member(&path, &member);
            }
            queue.members.push(member);
        }
        queue
    }

    /// Sets what one table of an array says; keys among `others` are not its.
    fn read_table<T>(
        &mut self,
        file: FileRef<'_>,
        path: &str,
        table: &DeTable<'_>,
        options: &[&'static [Opt<T>]],
        target: &mut T,
        others: &[&str],
    ) {
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let place = format!("{path}.{name}");
            let mut known = options.iter().copied().flatten();
            let Some(option) = known.find(|option| option.key == name) else {
                if !others.contains(&name) {
                    self.problem(file.at(key), &place, unknown(&without_indices(&place)));
                }
                continue;
            };
            let set = option.shape.read(value.get_ref()).and_then(|value| {
                let refusal = option.shape.refusal(&value.to_string());
                (option.set)(target, value).ok_or(refusal)
            });
            match set {
                Ok(()) => _ = self.origins.insert(place, file.at(key)),
                Err(text) => self.problem(file.at(key), &place, text),
            }
        }
    }

    /// Whether the table at `path` has a valid `key`; it is wrong without.
    fn require(
        &mut self,
        file: FileRef<'_>,
        path: &str,
        table: &DeTable<'_>,
        line: usize,
        key: &str,
    ) -> bool {
        if !table.keys().any(|known| known.get_ref() == key) {
            self.problem(file.line(line), path, format!("needs the key {key}"));
        }
        self.origins.contains_key(&format!("{path}.{key}"))
    }

    /// What only the limits can tell of a queue's name and filters.
    fn check_queue(&mut self, path: &str, queue: &QueueSettings) {
        let limits = TopicLimits {
            bytes_max: self.config.limits.topic_bytes_max,
            levels_max: self.config.limits.topic_levels_max,
        };
        let key = format!("{path}.name");
        let plain = queue.name.strip_prefix("$dead/").unwrap_or(&queue.name);
        match TopicFilter::parse(plain, limits) {
            Err(error) => {
                let text = format!("{:?} is no topic filter: {error}", queue.name);
                self.problem(self.source(&key), &key, text);
            }
            Ok(_) if plain.starts_with('$') => {
                let text = format!(
                    "{:?} is no queue's name: the only one that begins with $ is $dead/NAME",
                    queue.name
                );
                self.problem(self.source(&key), &key, text);
            }
            Ok(name) if !name.is_plain() && !queue.filters.is_empty() => {
                let key = format!("{path}.filters");
                let text = format!(
                    "only a queue of a plain name has filters, and {:?} has a wildcard",
                    queue.name
                );
                self.problem(self.source(&key), &key, text);
            }
            Ok(_) => {}
        }
        let key = format!("{path}.filters");
        for filter in &queue.filters {
            if let Err(error) = TopicFilter::parse(filter, limits) {
                let text = format!("{filter:?} is no topic filter: {error}");
                self.problem(self.source(&key), &key, text);
            } else if filter.starts_with("$queue/") || filter.starts_with("$share/") {
                let text =
                    format!("{filter:?} feeds nothing: name the topics that are published to");
                self.problem(self.source(&key), &key, text);
            }
        }
    }

    fn check_member(&mut self, path: &str, member: &MemberSettings) {
        if member.client.is_empty() {
            let key = format!("{path}.client");
            let text = "is empty and fits no client; \"*\" fits all";
            self.problem(self.source(&key), &key, text);
        }
    }

    fn listen(&mut self, addresses: &[Address]) {
        self.origins
            .retain(|path, _| !path.starts_with("listener["));
        self.config.listeners.clear();
        for (index, address) in addresses.iter().enumerate() {
            self.config.listeners.push(Listener::new(address.clone()));
            let path = format!("listener[{index}].address");
            self.origins.insert(path, Origin::Flag("--listen"));
        }
    }

    /// Where there are users, only who says so lets others in.
    fn expect_users(&mut self) {
        let settings = &self.config.authentication;
        let known_by = [
            (
                "authentication.password_file",
                settings.password_file.is_some(),
            ),
            ("authentication.jwt_keys", settings.tokens.keys.is_some()),
            (
                "authentication.http_address",
                settings.http.address.is_some(),
            ),
        ];
        let known_by = known_by.into_iter().find(|(_, is_set)| *is_set);
        if let Some((key, _)) = known_by
            && !self.origins.contains_key("allow_anonymous")
        {
            self.config.allow_anonymous = false;
            let inherited = Origin::Inherited(key.to_owned());
            self.origins.insert("allow_anonymous".to_owned(), inherited);
        }
        // Those whom a certificate names are known at that listener alone.
        let is_said = self.origins.contains_key("allow_anonymous");
        for (index, listener) in self.config.listeners.iter_mut().enumerate() {
            if listener.tls.client_user.is_some() && listener.allow_anonymous.is_none() && !is_said
            {
                listener.allow_anonymous = Some(false);
                let path = format!("listener[{index}]");
                let inherited = Origin::Inherited(format!("{path}.tls_client_user"));
                self.origins
                    .insert(format!("{path}.allow_anonymous"), inherited);
            }
        }
    }

    /// What each token is to be held against has to be said.
    fn check_tokens(&mut self) {
        let tokens = &self.config.authentication.tokens;
        if tokens.keys.is_none() {
            return;
        }
        let has_secret = matches!(tokens.keys, Some(KeysAt::Address(_)))
            && tokens.algorithms.iter().any(|algorithm| {
                use TokenAlgorithm::{HS256, HS384, HS512};
                [HS256, HS384, HS512].contains(algorithm)
            });
        let (says_algorithm, says_user) =
            (!tokens.algorithms.is_empty(), !tokens.user_claim.is_empty());
        if !says_algorithm {
            let key = "authentication.jwt_algorithms";
            let text = "names no algorithm, and jwt_keys is set: name those that tokens are signed \
                        with, as in [\"ES256\"]";
            self.problem(self.source(key), key, text);
        }
        if has_secret {
            let key = "authentication.jwt_algorithms";
            let text = "has one that signs with a secret, and what is published at jwt_keys is \
                        none: name those of public keys, as in [\"ES256\"]";
            self.problem(self.source(key), key, text);
        }
        if !says_user {
            let key = "authentication.jwt_user_claim";
            let text = "is empty, and a token has to name its user: the usual claim is \"sub\"";
            self.problem(self.source(key), key, text);
        }
    }

    /// What is of a service is of one that there is.
    fn check_services(&mut self) {
        let settings = &self.config.authentication;
        let of_http = settings.http.address.as_ref();
        let of_keys = match &settings.tokens.keys {
            Some(KeysAt::Address(address)) => Some(address),
            _ => None,
        };
        let (http, tokens) = (&settings.http, &settings.tokens);
        let is_tls = |address: Option<&HttpAddress>| address.is_some_and(HttpAddress::is_tls);
        let problems = [
            (
                "http_headers_file",
                http.headers_file.is_some() && of_http.is_none(),
                "is of no use without http_address",
            ),
            (
                "http_rights",
                http.rights && of_http.is_none(),
                "is of no use without http_address",
            ),
            (
                "http_ca_file",
                http.ca_file.is_some() && !is_tls(of_http),
                "is of no use without an http_address that begins with https://",
            ),
            (
                "jwt_keys_ca_file",
                tokens.keys_ca_file.is_some() && !is_tls(of_keys),
                "is of no use without jwt_keys that begin with https://",
            ),
        ];
        for (key, is_wrong, text) in problems {
            if is_wrong {
                let key = format!("authentication.{key}");
                self.problem(self.source(&key), &key, text);
            }
        }
        self.check_time_for_services();
    }

    /// Who is closed before the service's time is up never finds out, nor does
    /// the broker, that it fails.
    fn check_time_for_services(&mut self) {
        let http = &self.config.authentication.http;
        if http.address.is_none() {
            return;
        }
        let (limits, millis) = (&self.config.limits, http.timeout.as_millis());
        let is_short = |timeout: Duration| timeout < http.timeout;
        let general = is_short(limits.connect_timeout);
        let listeners = self.config.listeners.iter().enumerate();
        let short = listeners
            .filter(|(_, listener)| (listener.limits.connect_timeout).is_some_and(is_short));
        let short: Vec<_> = short.map(|(index, _)| index).collect();
        if general {
            let key = "authentication.http_timeout_ms";
            let text = format!(
                "is {millis}, more than limits.connect_timeout_ms, after which clients are closed: \
                 lower it, or raise that"
            );
            self.problem(self.source(key), key, text);
        }
        for index in short {
            let key = format!("listener[{index}].connect_timeout_ms");
            let text = format!(
                "is less than authentication.http_timeout_ms, which is {millis}: clients would be \
                 closed before the service has failed"
            );
            self.problem(self.source(&key), &key, text);
        }
    }

    /// No address twice, and none that others reach, where anyone may come
    /// though nobody said so.
    fn check_listeners(&mut self) {
        let is_said = self.origins.contains_key("allow_anonymous");
        let mut seen = Vec::new();
        self.check_http(is_said);
        for (index, listener) in self.config.listeners.clone().into_iter().enumerate() {
            self.check_listener(&format!("listener[{index}]"), &listener);
            let address = listener.address;
            let key = format!("listener[{index}].address");
            let is_any = matches!(&address, Address::Tcp(address) if address.port() == 0);
            if !is_any && seen.contains(&address) {
                let text = format!("{address} is listened on already");
                self.problem(self.source(&key), &key, text);
            }
            let own = listener.allow_anonymous;
            let open = own.is_none() && self.config.allow_anonymous && !is_said;
            if open && address.is_reachable() {
                let text = format!(
                    "other machines reach {address}, and there are no users, so that anyone \
                     could connect: set allow_anonymous = true if that is meant (by flag, \
                     --allow-anonymous), or listen on 127.0.0.1"
                );
                self.problem(self.source(&key), &key, text);
            }
            seen.push(address);
        }
    }

    /// Clients of MQTT come by the HTTP port too: what holds for listeners holds
    /// there.
    fn check_http(&mut self, is_said: bool) {
        let http = &self.config.http;
        let is_open = self.config.allow_anonymous && !is_said;
        let address = http.address.map(Address::Tcp);
        let reachable = address.filter(|address| is_open && address.is_reachable());
        let tls = &http.tls;
        let needs = [
            (
                "http.tls_certificate",
                "needs tls_key",
                &tls.certificate,
                &tls.key,
            ),
            (
                "http.tls_key",
                "needs tls_certificate",
                &tls.key,
                &tls.certificate,
            ),
        ];
        let lonely = needs.map(|(key, text, one, other)| {
            (one.is_some() && other.is_none()).then_some((key, text))
        });
        for (key, text) in lonely.into_iter().flatten() {
            self.problem(self.source(key), key, text);
        }
        if let Some(address) = reachable {
            let key = "http.address";
            let text = format!(
                "other machines reach {address}, where clients of MQTT may come by WebSocket, and \
                 there are no users, so that anyone could connect: set allow_anonymous = true if \
                 that is meant, or listen on 127.0.0.1"
            );
            self.problem(self.source(key), key, text);
        }
    }

    /// What fits together in one `[[listener]]`: nothing that is set is without
    /// effect.
    fn check_listener(&mut self, path: &str, listener: &Listener) {
        let default = Listener::new(listener.address.clone());
        let (tls, no_tls) = (&listener.tls, &default.tls);
        let has_tls = tls.certificate.is_some();
        let asks = tls.client_certificates() != ClientCertificates::Off;
        let is_unix = matches!(listener.address, Address::Unix(_));
        let is_websocket = listener.protocol == Protocol::WebSocket;
        let needs_tls = "needs tls_certificate and tls_key";
        let needs_websocket = "needs protocol = \"websocket\"";
        for (key, is_wrong, text) in [
            (
                "tls_certificate",
                has_tls && tls.key.is_none(),
                "needs tls_key",
            ),
            (
                "tls_key",
                tls.key.is_some() && !has_tls,
                "needs tls_certificate",
            ),
            (
                "tls_client_ca",
                tls.client_ca.is_some() && !has_tls,
                needs_tls,
            ),
            (
                "tls_client_certificates",
                asks && tls.client_ca.is_none(),
                "needs tls_client_ca, with the authorities that sign them",
            ),
            (
                "tls_client_user",
                tls.client_user.is_some() && !asks,
                "needs tls_client_ca, and certificates that are asked for",
            ),
            (
                "tls_crl",
                tls.crl.is_some() && tls.client_ca.is_none(),
                "needs tls_client_ca",
            ),
            (
                "tls_min_version",
                tls.version_min != no_tls.version_min && !has_tls,
                needs_tls,
            ),
            (
                "websocket_path",
                listener.websocket.path != default.websocket.path && !is_websocket,
                needs_websocket,
            ),
            (
                "websocket_origins",
                !listener.websocket.origins.is_empty() && !is_websocket,
                needs_websocket,
            ),
            (
                "proxy_trusted",
                !listener.proxy_trusted.is_empty() && is_unix,
                "is for IP addresses: who connects to a Unix socket has none",
            ),
            (
                "unix_mode",
                listener.unix_mode != default.unix_mode && !is_unix,
                "needs an address that begins with unix:",
            ),
        ] {
            if is_wrong {
                let key = format!("{path}.{key}");
                self.problem(self.source(&key), &key, text);
            }
        }
        let limits = &self.config.limits;
        let levels = |mount: &str| mount.matches('/').count() + 1;
        if let Some(mount) = &listener.mount_point
            && (mount.len() >= limits.topic_bytes_max || levels(mount) > limits.topic_levels_max)
        {
            let key = format!("{path}.mount_point");
            let text = "leaves no room for a topic: see topic_bytes_max, topic_levels_max";
            self.problem(self.source(&key), &key, text);
        }
        self.check_authenticators(path, listener);
    }

    /// Nobody is to be asked who could know nobody, nor twice.
    fn check_authenticators(&mut self, path: &str, listener: &Listener) {
        let key = format!("{path}.authentication");
        let asked = listener.authentication.as_deref().unwrap_or_default();
        for (index, kind) in asked.iter().enumerate() {
            let settings = &self.config.authentication;
            let is_configured = match kind {
                AuthenticatorKind::Certificate => listener.tls.client_user.is_some(),
                AuthenticatorKind::Token => settings.tokens.keys.is_some(),
                AuthenticatorKind::Password | AuthenticatorKind::Scram => {
                    settings.password_file.is_some()
                }
                AuthenticatorKind::Http => settings.http.address.is_some(),
            };
            if !is_configured {
                self.problem(self.source(&key), &key, kind.needs());
            }
            if asked[..index].contains(kind) {
                let text = "names somebody twice, who is asked once";
                self.problem(self.source(&key), &key, text);
            }
        }
    }

    fn source(&self, path: &str) -> Origin {
        self.origins.get(path).cloned().unwrap_or(Origin::Default)
    }

    fn finish(mut self) -> Result<Effective, ConfigError> {
        if self.problems.is_empty() {
            return Ok(Effective {
                config: self.config,
                origins: self.origins,
            });
        }
        self.problems.sort_by_key(|problem| match &problem.origin {
            Origin::File { line, .. } => (0, *line, String::new()),
            Origin::Environment(name) => (1, 0, name.clone()),
            _ => (2, 0, String::new()),
        });
        Err(ConfigError {
            problems: self.problems,
        })
    }
}

/// What a file that is no TOML is told, a problem for each place.
pub(crate) fn syntax_errors(source: &Source, errors: &[toml::de::Error]) -> ConfigError {
    let mut problems = Vec::new();
    for error in errors {
        let at = error.span().map_or(source.text.len(), |span| span.start);
        problems.push(Problem {
            origin: FileRef(source).line(line_of(source.text.as_bytes(), at)),
            key: String::new(),
            text: format!("is not TOML: {}", error.message()),
        });
    }
    problems.sort_by_key(|problem| match problem.origin {
        Origin::File { line, .. } => line,
        _ => 0,
    });
    ConfigError { problems }
}

/// The line, counted from 1, of the byte at `at`.
fn line_of(text: &[u8], at: usize) -> usize {
    let before = &text[..at.min(text.len())];
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

/// `queue[0].name` to `queue.name`.
pub(super) fn without_indices(path: &str) -> String {
    let mut text = String::new();
    for part in path.split('.') {
        let name = part.split('[').next().unwrap_or(part);
        text.push_str(if text.is_empty() { "" } else { "." });
        text.push_str(name);
    }
    text
}

fn unknown(path: &str) -> String {
    format!(
        "is no known key; the nearest is {}",
        nearest(path, options::paths())
    )
}

fn unknown_variable(path: &str) -> String {
    if path.starts_with("listener.") || path.starts_with("queue.") {
        return "names a table of an array, which only the file can have".to_owned();
    }
    let near = nearest(path, Scalar::all().map(Scalar::path));
    let name = near.to_uppercase().replace('.', "__");
    format!("is no known option; the nearest is {PREFIX}{name}")
}

/// The path among `known` that `path` was meant to be: the one whose key is
/// most alike, and of those the one whose section is.
pub(crate) fn nearest(path: &str, known: impl Iterator<Item = String>) -> String {
    let split = |path: &str| match path.rsplit_once('.') {
        Some((section, key)) => (section.to_owned(), key.to_owned()),
        None => (String::new(), path.to_owned()),
    };
    let (section, key) = split(path);
    known
        .min_by_key(|known| {
            let (known_section, known_key) = split(known);
            let encloses = section.starts_with(&format!("{known_section}."));
            let sections = strsim::damerau_levenshtein(&known_section, &section);
            let keys = strsim::damerau_levenshtein(&known_key, &key);
            (keys, if encloses { 1 } else { sections })
        })
        .unwrap_or_default()
}
