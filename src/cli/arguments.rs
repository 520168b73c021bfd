//! The arguments that commands share: where to connect, as whom, where the
//! configuration is, and how values are read.
//!
//! Finds what contradicts itself before anything is sent.

use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Failure;
use super::client::open;
use super::property::{self, FIELD_BYTES_MAX, GivenProperties, PropertyArguments};
use super::tls::TlsArguments;
use crate::config::{Config, Effective, Flags, Source};
use crate::message::Qos;
use crate::protocol::{PacketType, Property, Version};
use crate::topic::{TopicFilter, TopicLimits, TopicName};

/// Where to connect, and as whom.
// Without Debug: it knows the password.
#[derive(clap::Args, Clone)]
pub struct ConnectArguments {
    /// The broker's host [default: localhost]
    #[arg(short = 'h', long)]
    host: Option<String>,
    /// The broker's port [default: 1883, and 8883 with --cafile]
    #[arg(short, long)]
    port: Option<u16>,
    /// The broker's Unix socket, in place of host and port
    #[arg(long, value_name = "PATH", conflicts_with_all = ["host", "port"])]
    pub(super) unix: Option<PathBuf>,
    #[command(flatten)]
    pub(super) tls: TlsArguments,
    /// The client identifier; made up if not given
    #[arg(short, long, value_parser = field)]
    pub(super) id: Option<String>,
    /// Make up a client identifier that begins with this
    #[arg(short = 'I', long, value_name = "PREFIX", value_parser = field, conflicts_with = "id")]
    pub(super) id_prefix: Option<String>,
    /// Seconds without a packet after which to ask whether the broker is there; 0: never
    #[arg(short, long, value_name = "SECONDS", default_value_t = 60)]
    pub(super) keepalive: u16,
    /// Resume the session of this client identifier, and leave it on the broker
    #[arg(short = 'c', long, requires = "id")]
    pub(super) disable_clean_session: bool,
    /// How long the broker keeps the session when the connection is gone; ∞: for ever,
    /// as with -c if not given
    #[arg(short = 'x', long, value_name = "SECONDS", value_parser = property::expiry_secs)]
    #[arg(allow_negative_numbers = true)]
    session_expiry: Option<u32>,
    #[command(flatten)]
    properties: PropertyArguments,
    /// The user name
    #[arg(short, long, value_name = "USER", value_parser = field)]
    pub(super) username: Option<String>,
    /// The password, which other users of this machine may see: better is --password-file
    #[arg(short = 'P', long = "pw", value_name = "PASSWORD")]
    #[arg(conflicts_with = "password_file", value_parser = field, allow_hyphen_values = true)]
    password: Option<String>,
    /// Read the password from the first line of this file
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The version of MQTT: 3.1, 3.1.1 or 5
    #[arg(short = 'V', long, value_name = "VERSION", default_value = "5")]
    #[arg(value_parser = version)]
    pub(super) protocol_version: Version,
    /// Tell of each packet on standard error, with its reason codes and properties
    #[arg(short, long)]
    pub(super) debug: bool,
    /// Publish to this topic if the connection is lost
    #[arg(long, value_name = "TOPIC", value_parser = topic_name)]
    pub(super) will_topic: Option<String>,
    /// The message for it; empty if not given
    #[arg(long, value_name = "MESSAGE", requires = "will_topic", value_parser = field)]
    #[arg(allow_hyphen_values = true)]
    pub(super) will_payload: Option<String>,
    /// The quality of service for it: 0, 1 or 2
    #[arg(long, value_name = "QOS", requires = "will_topic", default_value = "0")]
    #[arg(value_parser = qos)]
    pub(super) will_qos: Qos,
    /// Retain it
    #[arg(long, requires = "will_topic")]
    pub(super) will_retain: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::HelpShort)]
    help: Option<bool>,
}

impl ConnectArguments {
    /// Whether something says where to connect over MQTT, or as whom.
    pub fn is_given(&self) -> bool {
        let texts = [&self.host, &self.username, &self.password, &self.id];
        texts.iter().any(|text| text.is_some())
            || self.port.is_some()
            || self.unix.is_some()
            || self.password_file.is_some()
    }

    /// The host that was asked for, or this one.
    pub fn host(&self) -> &str {
        self.host.as_deref().unwrap_or("localhost")
    }

    /// The port that was asked for, or the one that brokers have by custom.
    pub fn port(&self) -> u16 {
        let of_custom = match self.tls.is_asked_for() {
            true => 8883,
            false => 1883,
        };
        self.port.unwrap_or(of_custom)
    }

    /// Where the broker is, in words.
    pub fn place(&self) -> String {
        match &self.unix {
            Some(path) => path.display().to_string(),
            None => format!("{}:{}", self.host(), self.port()),
        }
    }

    /// The properties of `packets`, those that the command at hand sends, and
    /// of the will.
    ///
    /// # Errors
    /// They are of no use, or contradict each other or another argument.
    pub fn properties(&self, packets: &[PacketType]) -> Result<GivenProperties, Failure> {
        if self.protocol_version != Version::V5 {
            let has_password = self.password.is_some() || self.password_file.is_some();
            let only_of_5 = [
                ("-x needs", self.session_expiry.is_some()),
                ("-D needs", !self.properties.is_empty()),
                // [MQTT-3.1.2-22]
                (
                    "a password without a user name (-u) needs",
                    has_password && self.username.is_none(),
                ),
            ];
            return match only_of_5.iter().find(|(_, given)| *given) {
                Some((what, _)) => Err(Failure::new(format!("{what} MQTT 5: add -V 5"))),
                None => Ok(GivenProperties::default()),
            };
        }
        let mut given = self.properties.read(packets)?;
        if let Some(secs) = self.session_expiry {
            let expiry = Property::SessionExpiryInterval(secs);
            let pushed = given.push(PacketType::Connect, expiry);
            pushed.map_err(|_| "the session's expiry is given twice, by -x and -D")?;
        } else if self.disable_clean_session {
            // As given by -D; if not, as in 3.1.1.
            _ = given.push(
                PacketType::Connect,
                Property::SessionExpiryInterval(u32::MAX),
            );
        }
        let expiry_secs = given.session_expiry_secs(PacketType::Connect);
        if expiry_secs == u32::MAX && self.id.is_none() {
            let text = "a session that never ends needs a client identifier: add -i";
            return Err(Failure::new(text));
        }
        if expiry_secs == 0 && given.session_expiry_secs(PacketType::Disconnect) != 0 {
            // 3.14.2.2.2
            let text = "DISCONNECT cannot prolong a session that ends with the connection: add -x";
            return Err(Failure::new(text));
        }
        if self.will_topic.is_none() && !given.of(PacketType::Will).is_empty() {
            return Err(Failure::new("-D will needs --will-topic"));
        }
        let of_connect = given.of(PacketType::Connect);
        let has = |wanted: fn(&Property<'_>) -> bool| of_connect.iter().any(|one| wanted(&one));
        if has(|one| matches!(one, Property::AuthenticationData(_)))
            && !has(|one| matches!(one, Property::AuthenticationMethod(_)))
        {
            // 3.1.2.11.10
            return Err(Failure::new(
                "authentication-data needs authentication-method",
            ));
        }
        Ok(given)
    }

    /// What is to prove who the user is.
    pub fn password(&self) -> Result<Option<Vec<u8>>, Failure> {
        match (&self.password, &self.password_file) {
            (Some(password), _) => Ok(Some(password.clone().into_bytes())),
            (None, Some(path)) => secret_in(path, "the password").map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// Where the configuration is.
#[derive(clap::Args, Clone, Debug)]
pub struct Configured {
    /// Read this configuration; no file is searched for
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

impl Configured {
    /// What it says, with the environment.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load(&self) -> Result<Config, Failure> {
        let file = match &self.config {
            Some(path) => Some(Source::read(path)?),
            None => None,
        };
        let effective = Effective::load(file.as_ref(), std::env::vars_os(), &Flags::default())?;
        Ok(effective.config)
    }
}

/// Parses `0`, `1` or `2`.
pub fn qos(text: &str) -> Result<Qos, String> {
    let bits = text.parse().ok();
    bits.and_then(Qos::from_bits)
        .ok_or_else(|| "it is 0, 1 or 2".to_owned())
}

/// Checks what a message is published to.
pub fn topic_name(text: &str) -> Result<String, String> {
    match TopicName::parse(text, TopicLimits::NONE) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Checks what is subscribed to.
pub fn topic_filter(text: &str) -> Result<String, String> {
    match TopicFilter::parse(text, TopicLimits::NONE) {
        Ok(filter) => Ok(filter.as_str().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Parses seconds, such as `0.5`.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.parse().ok();
    number
        .and_then(|secs| Duration::try_from_secs_f64(secs).ok())
        .filter(|span| *span < Duration::from_secs(u32::MAX.into()))
        .ok_or_else(|| "it is a number of seconds, such as 10 or 0.5".to_owned())
}

/// Parses a span with its unit, such as `90s`, `10m`, `2h` or `7d`; without one
/// it is seconds.
pub fn span(text: &str) -> Result<Duration, String> {
    let wrong = || "it is a whole number of seconds, or as in 90s, 10m, 2h or 7d".to_owned();
    let (number, unit_secs) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 3600),
        Some(b'd') => (&text[..text.len() - 1], 86_400),
        _ => (text, 1),
    };
    let secs: u32 = number.parse().map_err(|_| wrong())?;
    let secs = secs.checked_mul(unit_secs).ok_or_else(wrong)?;
    match secs {
        0 => Err(wrong()),
        secs => Ok(Duration::from_secs(secs.into())),
    }
}

/// What a packet can carry as one field.
pub fn field(text: &str) -> Result<String, String> {
    if text.len() > FIELD_BYTES_MAX {
        return Err(format!("it is longer than {FIELD_BYTES_MAX} bytes"));
    }
    Ok(text.to_owned())
}

/// Parses a version of MQTT, also as mosquitto's clients name it.
pub fn version(text: &str) -> Result<Version, String> {
    match text {
        "3.1" | "31" | "mqttv31" => Ok(Version::V3_1),
        "3.1.1" | "311" | "mqttv311" => Ok(Version::V3_1_1),
        "5" | "5.0" | "mqttv5" => Ok(Version::V5),
        _ => Err("it is 3.1, 3.1.1 or 5".to_owned()),
    }
}

/// The first line of a file; `what` it is, for an error.
pub fn secret_in(path: &Path, what: &str) -> Result<Vec<u8>, Failure> {
    let mut secret = Vec::new();
    let file = open(path)?.take(FIELD_BYTES_MAX as u64 + 2);
    io::BufReader::new(file)
        .read_until(b'\n', &mut secret)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))?;
    secret.pop_if(|last| *last == b'\n');
    secret.pop_if(|last| *last == b'\r');
    if secret.len() > FIELD_BYTES_MAX {
        return Err(Failure::new(format!(
            "{what} is longer than {FIELD_BYTES_MAX} bytes"
        )));
    }
    Ok(secret)
}
