//! What can be set, as valid values.
//!
//! Owns the options, their defaults and bounds, and how they are read from a
//! file, the environment and the command line. The parts that use them get
//! plain values; none of them asks where a value came from.

mod address;
mod changes;
mod forms;
mod load;
mod options;
mod print;
mod value;

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use crate::access::rules::Strictness;

pub use address::{Address, HttpAddress, Network, NoAddress};
pub use changes::{Applies, Change, ReloadError, Reloaded, Setting, keys_and_when};
pub use load::{ConfigError, Effective, Flags, Origin, Problem, Source, queue_settings};
pub(crate) use load::{FileRef, nearest, syntax_errors};
pub use options::{parse_flag, shape_of};
pub use print::{example, queue_keys};
pub(crate) use value::found;
pub use value::{Shape, Value};

/// All that a broker can be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Worker threads; 0: one a core.
    pub threads: usize,
    /// Who a broker becomes that root starts; `None`: rotamq, if there is such
    /// a user.
    pub user: Option<String>,
    /// Whether clients may connect that give no name; where nobody is known by
    /// name, whoever gives one counts as such too.
    pub allow_anonymous: bool,
    pub listeners: Vec<Listener>,
    pub authentication: AuthenticationSettings,
    pub access: AccessSettings,
    pub store: StoreSettings,
    pub limits: Limits,
    pub session: SessionSettings,
    pub queues: QueuesSettings,
    /// Settings by queue name, the first that fits counts.
    pub queue: Vec<QueueSettings>,
    pub sys: SysSettings,
    pub http: PortSettings,
    pub log: LogSettings,
}

/// One address that is listened on, and how clients are met there.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    pub address: Address,
    pub protocol: Protocol,
    /// What comes in by it is stored at least so, and so are the sessions
    /// connected through it; `None`: it asks for nothing.
    pub durability: Option<Durability>,
    pub tls: TlsSettings,
    /// Who is asked there who a client is, in this order; `None`: all that are
    /// configured.
    pub authentication: Option<Vec<AuthenticatorKind>>,
    /// `None`: as [`Config::allow_anonymous`] says.
    pub allow_anonymous: Option<bool>,
    /// What goes before every topic of its clients, and ends with `/`; `None`:
    /// nothing.
    pub mount_point: Option<String>,
    /// In place of those that hold for all.
    pub limits: ListenerLimits,
    pub websocket: WebSocketSettings,
    /// Proxies: their connections, and no others, begin with a PROXY header
    /// that says who the client is.
    pub proxy_trusted: Vec<Network>,
    /// The permissions of a Unix socket's file.
    pub unix_mode: u32,
    /// Connections that are accepted a second; 0: as many as come.
    pub connections_per_sec_max: u64,
    /// Of all its clients together.
    pub rates: Rates,
}

impl Listener {
    /// Plain MQTT on `address`.
    pub fn new(address: Address) -> Listener {
        Listener {
            address,
            protocol: Protocol::Mqtt,
            durability: None,
            tls: TlsSettings::default(),
            authentication: None,
            allow_anonymous: None,
            mount_point: None,
            limits: ListenerLimits::default(),
            websocket: WebSocketSettings {
                path: "/mqtt".to_owned(),
                origins: Vec::new(),
            },
            proxy_trusted: Vec::new(),
            unix_mode: 0o660,
            connections_per_sec_max: 0,
            rates: Rates::default(),
        }
    }
}

/// Somebody who can be asked who a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthenticatorKind {
    /// Its certificate.
    Certificate,
    /// A JSON Web Token, as password or by the method `JWT`.
    Token,
    /// The password file.
    Password,
    /// The password file's keys, by the method `SCRAM-SHA-256`.
    Scram,
    /// The service that is asked.
    Http,
}

impl AuthenticatorKind {
    /// All, in the order in which they are asked where none is said.
    pub const ALL: [AuthenticatorKind; 5] = [
        AuthenticatorKind::Certificate,
        AuthenticatorKind::Token,
        AuthenticatorKind::Password,
        AuthenticatorKind::Scram,
        AuthenticatorKind::Http,
    ];

    /// What has to be configured for it to know anybody.
    pub fn needs(self) -> &'static str {
        match self {
            AuthenticatorKind::Certificate => "\"certificate\" needs tls_client_user",
            AuthenticatorKind::Token => "\"token\" needs jwt_keys in [authentication]",
            AuthenticatorKind::Password => "\"password\" needs password_file in [authentication]",
            AuthenticatorKind::Scram => "\"scram\" needs password_file in [authentication]",
            AuthenticatorKind::Http => "\"http\" needs http_address in [authentication]",
        }
    }
}

/// Limits of one listener's clients; `None`: as [`Limits`] and
/// [`SessionSettings`] have it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListenerLimits {
    /// Of this listener alone, and within those of all.
    pub connections_max: Option<usize>,
    pub connect_timeout: Option<Duration>,
    pub packet_bytes_max: Option<usize>,
    pub subscriptions_per_client_max: Option<usize>,
    /// 0: what the client asks for.
    pub keep_alive_secs_max: Option<u16>,
}

/// What may come in and go out in a second, of one client or of several
/// together; 0: any amount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// PUBLISH packets of clients.
    pub messages_in: u64,
    /// Bytes of all packets of clients, CONNECT excepted.
    pub bytes_in: u64,
    /// PUBLISH packets to clients.
    pub messages_out: u64,
    /// Bytes of all packets to clients.
    pub bytes_out: u64,
}

impl Rates {
    /// Whether nothing is bounded.
    pub fn is_unbounded(&self) -> bool {
        *self == Rates::default()
    }
}

/// What a listener's clients wrap MQTT in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Nothing.
    Mqtt,
    WebSocket,
}

/// Files in PEM, and what is asked for with them.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsSettings {
    /// The broker's certificate, and after it those that lead to its
    /// authority; `None`: no TLS.
    pub certificate: Option<PathBuf>,
    /// The private key of the first of them.
    pub key: Option<PathBuf>,
    /// The authorities of client certificates.
    pub client_ca: Option<PathBuf>,
    /// `None`: as [`TlsSettings::client_certificates`] says.
    pub client_certificates: Option<ClientCertificates>,
    /// What of its certificate is a client's user name; `None`: nothing is.
    pub client_user: Option<ClientUser>,
    /// Which client certificates are revoked.
    pub crl: Option<PathBuf>,
    pub version_min: TlsVersion,
}

impl Default for TlsSettings {
    fn default() -> TlsSettings {
        TlsSettings {
            certificate: None,
            key: None,
            client_ca: None,
            client_certificates: None,
            client_user: None,
            crl: None,
            version_min: TlsVersion::V1_2,
        }
    }
}

impl TlsSettings {
    /// Who names authorities, and does not say what for, wants to see what they
    /// signed.
    pub fn client_certificates(&self) -> ClientCertificates {
        self.client_certificates.unwrap_or(match self.client_ca {
            Some(_) => ClientCertificates::Required,
            None => ClientCertificates::Off,
        })
    }
}

/// Whether clients are asked for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    Off,
    /// They are asked, and may have none; one that is not valid is refused.
    Optional,
    Required,
}

/// What of a certificate is a user name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientUser {
    /// The one common name of its subject.
    CommonName,
    /// The first e-mail address, DNS name or URI of its subject's alternative
    /// names.
    AlternativeName,
    /// Its whole subject, as RFC 4514 writes it.
    DistinguishedName,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

/// Which WebSocket upgrades are accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct WebSocketSettings {
    /// The path that has to be asked for; empty: any.
    pub path: String,
    /// The origins of web pages that may connect; empty: all. Clients that are
    /// no browsers name none, and are not meant.
    pub origins: Vec<String>,
}

/// How it is found out who a client is.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthenticationSettings {
    /// Users and the hashes of their passwords; `None`: there are no users.
    pub password_file: Option<PathBuf>,
    /// Threads that check passwords; 0: half as many as cores.
    pub hashing_threads: usize,
    /// Clients whose passwords wait to be checked; more are refused.
    pub hashing_waiting_max: usize,
    pub tokens: TokenSettings,
    pub http: HttpSettings,
    pub ban: BanSettings,
}

impl AuthenticationSettings {
    /// Whether it may also be said there what a client may do.
    pub fn brings_rights(&self) -> bool {
        !self.tokens.rights_claim.is_empty() || self.http.rights
    }
}

/// Which service is asked, by HTTP, who a client is.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpSettings {
    /// `None`: none is.
    pub address: Option<HttpAddress>,
    /// Header lines that every question has, which may be secret.
    pub headers_file: Option<PathBuf>,
    /// The authorities of its certificate, in PEM; `None`: the system's.
    pub ca_file: Option<PathBuf>,
    /// From when the question is asked to the whole answer; it waits as long for
    /// its turn.
    pub timeout: Duration,
    /// Questions that are being asked at one time.
    pub connections_max: usize,
    /// Questions that wait for a turn; more are refused.
    pub waiting_max: usize,
    /// How long a yes is remembered; zero: not at all.
    pub cache_yes: Duration,
    /// Likewise a no, and that it is not known there.
    pub cache_no: Duration,
    /// Answers that are remembered.
    pub cache_entries_max: usize,
    /// Failures in a row after which nothing is asked for a while.
    pub failures_max: u32,
    /// How long then.
    pub pause: Duration,
    /// Whether answers say what a client may do.
    pub rights: bool,
}

/// Which JSON Web Tokens say who a client is.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenSettings {
    /// The keys that they are signed with; `None`: there are no tokens.
    pub keys: Option<KeysAt>,
    /// The authorities of the certificate of where keys are fetched, in PEM;
    /// `None`: the system's.
    pub keys_ca_file: Option<PathBuf>,
    /// How old fetched keys may become before they are fetched again.
    pub keys_refresh: Duration,
    /// From one fetch to the next at least, also when it failed.
    pub keys_pause: Duration,
    /// Those that count, and no others.
    pub algorithms: Vec<TokenAlgorithm>,
    /// The claim that names the user.
    pub user_claim: String,
    /// The claim that names the client identifier, in tokens that have it;
    /// empty: none does.
    pub client_claim: String,
    /// The claim that says what the user may do; empty: none does.
    pub rights_claim: String,
    /// What `iss` has to be; empty: anything, or nothing.
    pub issuer: String,
    /// Whom `aud` has to name; empty: nobody may be named.
    pub audience: String,
    /// How far the clocks of those who sign may be off.
    pub leeway: Duration,
    /// Whether a token has to have an end.
    pub require_expiry: bool,
}

/// Where the keys of tokens are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysAt {
    File(PathBuf),
    Address(HttpAddress),
}

/// How a token is signed (RFC 7518, 3.1; RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenAlgorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// What clients may do. Without either file: everything.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessSettings {
    /// As mosquitto has them.
    pub acl_file: Option<PathBuf>,
    /// Roles, and who has them.
    pub rules_file: Option<PathBuf>,
    /// Which subscriptions are granted.
    pub subscriptions: Strictness,
}

impl Config {
    /// Whether who gives no name is let in by every listener.
    pub fn all_allow_anonymous(&self) -> bool {
        let general = self.allow_anonymous;
        let mut listeners = self.listeners.iter();
        let own = |listener: &Listener| listener.allow_anonymous.unwrap_or(general);
        match self.listeners.is_empty() {
            true => general,
            false => listeners.all(own),
        }
    }
}

/// After how many failures nobody is asked any more who it is.
#[derive(Clone, Debug, PartialEq)]
pub struct BanSettings {
    /// Of one address, or of one IPv6 network of 64 bits; 0: it is never banned.
    pub failures_per_address_max: u32,
    /// Of one client identifier, from wherever; 0: it is never banned.
    pub failures_per_client_max: u32,
    /// Failures count together that are no further apart.
    pub within: Duration,
    /// Connections of one client, a client identifier of one user; 0: any number.
    pub connects_per_client_max: u32,
    /// Connections count together that are no further apart.
    pub connects_within: Duration,
    /// How long a ban lasts.
    pub lasts: Duration,
}

/// Where what has to outlive the broker is kept, and how surely.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreSettings {
    /// The folder; a relative path is one of the working directory.
    pub data: PathBuf,
    /// Keeps nothing, and makes no folder: for tests and trials.
    pub ephemeral: bool,
    /// Of all that has none of its own.
    pub durability: Durability,
    /// Free space of the folder's file system below which durable messages are
    /// refused, while settling works on; 0: they are never refused for that.
    pub free_bytes_min: u64,
    /// What the log may hold before what is still alive in its oldest part is
    /// moved to the base; also what a start has to read.
    pub log_bytes_max: u64,
}

/// What has been done for a change before it is acknowledged. Of several that
/// apply the strongest counts, which is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Nothing on disk.
    Memory,
    /// Handed to the system, which is told every second to sync.
    Flushed,
    /// On the disk: fdatasync has returned.
    Synced,
}

/// What one client, and all of them, may take of the machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Open connections, those included that have not sent CONNECT yet.
    pub connections_max: usize,
    /// From the first byte to a whole CONNECT; dribbling does not extend it.
    pub connect_timeout: Duration,
    /// A packet before CONNECT is accepted.
    pub connect_packet_bytes_max: usize,
    /// A packet after that.
    pub packet_bytes_max: usize,
    pub client_id_bytes_max: usize,
    /// A topic name or filter; what is beyond 65,528 counts as that.
    pub topic_bytes_max: usize,
    /// One more than a topic's slashes.
    pub topic_levels_max: usize,
    /// Its queues and share groups included.
    pub subscriptions_per_client_max: usize,
    /// Sessions, connected or not.
    pub sessions_max: usize,
    /// Messages of QoS 1 and 2 sent to a client and not acknowledged.
    pub inflight_max: u16,
    /// Messages of QoS 1 and 2 that a client may have on their way here.
    pub receive_max: u16,
    /// Topic aliases of a connection, each way.
    pub topic_aliases_max: u16,
    /// Messages waiting in a session, or in a share group.
    pub session_messages_max: usize,
    /// Of messages kept for a session, waiting or in flight.
    pub session_bytes_max: usize,
    /// Bytes encoded for a client that it has not read; QoS 0 messages beyond
    /// are dropped and counted.
    pub outbox_bytes_max: usize,
    /// PUBLISHes of one connection held back while a queue is full.
    pub held_bytes_max: usize,
    /// How long a PUBLISH is held back before the connection is closed.
    pub held_timeout: Duration,
    /// PUBLISHes of one connection whose acknowledgement waits for the disk;
    /// beyond, the connection is not read.
    pub unacknowledged_in_max: usize,
    /// Retained messages, one a topic.
    pub retained_messages_max: usize,
    /// Of all retained messages.
    pub retained_bytes_max: usize,
    /// Work queues; share groups do not count.
    pub queues_max: usize,
    /// Of each worker thread's cache of topics and their receivers.
    pub match_cache_bytes_max: usize,
    /// Of all recordings of packets; 0: there are none.
    pub traces_bytes_max: usize,
    /// How long stopping may take.
    pub stop_timeout: Duration,
    /// Clients that a stopping broker disconnects a second; 0: all at once.
    pub drain_per_sec: u64,
    /// Connections that all listeners together accept a second; 0: as many as
    /// come. The others wait in the system's backlog.
    pub connections_per_sec_max: u64,
    /// Connections of one address, or of one IPv6 network of 64 bits, that are
    /// not through with CONNECT; 0: any number.
    pub half_open_per_address_max: u32,
    /// Connections of one user; 0: any number.
    pub connections_per_user_max: u32,
    /// Of each connection.
    pub client_rates: Rates,
    /// Of all connections of a user together.
    pub user_rates: Rates,
    /// Resident memory of the process; 0: any amount; `None`: a share of what
    /// the machine, or the process's group, has.
    pub memory_bytes_max: Option<u64>,
}

/// What holds for all sessions.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionSettings {
    /// What happens when a session is full.
    pub full: SessionFull,
    /// How long a session of an absent 3.1.1 client is kept.
    pub expiry_default: Duration,
    /// The longest that a client may ask for.
    pub expiry_max: Duration,
    /// The longest keep alive in seconds that a client gets that can be told
    /// so; `None`: what it asks for.
    pub keep_alive_secs_max: Option<NonZeroU16>,
    /// Given to clients that ask for it, with `%c` for the client id; empty:
    /// to none.
    pub response_information: String,
    /// Where clients are sent that this server does not want; empty: nowhere.
    pub server_reference: String,
    pub redirect: Redirect,
    /// Whether payloads that are said to be UTF-8 must be so.
    pub check_payload_format: bool,
    /// Wills that were due when the broker stopped or crashed are published so
    /// long after the start, unless their client is back.
    pub will_restart_grace: Duration,
    /// Whether QoS 0 messages wait for absent clients, as those of QoS 1 do.
    pub store_qos0: bool,
}

/// When clients are sent to the other server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirect {
    /// When this one is full, or stops.
    Overflow,
    /// All of them, for the time being.
    Temporarily,
    /// All of them, for good.
    Permanently,
}

/// What happens to a session that is full when a message comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionFull {
    /// The session is ended.
    End,
    /// The publisher is refused, as by a full queue.
    Refuse,
    /// The oldest waiting message is dropped, and counted.
    DropOldest,
}

/// What holds for all queues.
#[derive(Clone, Debug, PartialEq)]
pub struct QueuesSettings {
    /// Whether subscribing or publishing to a queue creates it.
    pub auto_create: bool,
    /// A queue that nobody configured goes after so long without member and
    /// PUBLISH to it.
    pub auto_delete_after: Duration,
    /// How often each queue's state is published below `$SYS/broker/queues/`,
    /// if anybody wants it; zero: never.
    pub sys_interval: Duration,
    /// Settings of a queue that no `[[queue]]` fits.
    pub default: QueueSettings,
}

/// The settings of a queue, or of all whose names fit a pattern.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueSettings {
    /// A queue's name, or a pattern: a topic filter that names fit as topics
    /// do; a name with wildcards of its own fits by being equal.
    pub name: String,
    /// What feeds the queue beside its name.
    pub filters: Vec<String>,
    /// Jobs that a member may have in its hands.
    pub prefetch: u32,
    /// How long a member may take for a job; `None`: for ever.
    pub ack_timeout: Option<Duration>,
    /// Only the longest-standing member gets jobs.
    pub exclusive: bool,
    /// Which of the members with room has the next turn.
    pub dispatch: Dispatch,
    pub topic: QueueTopic,
    /// Whether members of QoS 0 are let in: what is written to them is done.
    pub qos0_members: bool,
    pub undecided: Undecided,
    /// How long a QoS 2 delivery waits for its member.
    pub undecided_after: Duration,
    /// Deliveries that fail before a job is a dead letter.
    pub deliveries_max: u32,
    /// How long a job rests after its first failure; twice as long after each
    /// further one.
    pub backoff_min: Duration,
    /// But no longer than so.
    pub backoff_max: Duration,
    /// How long a job may wait from when it was put in; `None`: for ever.
    pub ttl: Option<Duration>,
    /// Whether what expires is a dead letter; it is dropped otherwise.
    pub dead_letter_expired: bool,
    /// Of jobs that say none: 0 to 9, the highest first.
    pub priority: u8,
    /// Which level of the topic, from 1 on, is the group of a job that names
    /// none; 0: it is in no group.
    pub group_level: usize,
    /// Groups have turns one after the other, and no order within.
    pub fair: bool,
    /// What of a job makes it replace one that waits.
    pub last_value: LastValue,
    /// How long a `dedup-id` is remembered.
    pub dedup_window: Duration,
    /// Jobs that are not done.
    pub messages_max: usize,
    /// Of these jobs.
    pub bytes_max: usize,
    /// Of the payload of one.
    pub message_bytes_max: usize,
    /// What a full queue does.
    pub overflow: Overflow,
    /// What happened to jobs, remembered for so many events.
    pub trace_events_max: usize,
    /// Of what is put into the queue; `None`: as the store has it.
    pub durability: Option<Durability>,
    /// Settings of members by client id, the first that fits counts.
    pub members: Vec<MemberSettings>,
}

/// The settings of the members whose client ids fit a pattern.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberSettings {
    /// A client id in which `*` stands for any text.
    pub client: String,
    /// `None`: as the queue has it.
    pub prefetch: Option<u32>,
    /// `None`: as the queue has it; [`Duration::MAX`]: never.
    pub ack_timeout: Option<Duration>,
}

/// Which of the members that have room gets the next job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dispatch {
    RoundRobin,
    /// The one with the fewest jobs in its hands.
    LeastInflight,
}

/// What becomes of a message for a queue that is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// Its publisher is refused.
    Reject,
    /// It is taken; the oldest that waits is dropped.
    DropOldest,
    /// It is taken; the oldest that waits is a dead letter.
    DeadLetterOldest,
}

/// By what a job replaces another one of its queue that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LastValue {
    /// None does.
    Off,
    /// By their topic.
    Topic,
    /// By the value of the user property of that name; without it, none does.
    Property(String),
}

/// Which topic a member sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueTopic {
    /// `$queue/` and the topic.
    Queue,
    /// The topic that the message was published to.
    Original,
}

/// What becomes of a QoS 2 delivery whose member never said whether it has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecided {
    DeadLetter,
    Redeliver,
}

/// What the broker says of itself below `$SYS`.
#[derive(Clone, Debug, PartialEq)]
pub struct SysSettings {
    /// How often it says what has changed; zero: never.
    pub interval: Duration,
}

/// The HTTP port, for those who run the broker.
#[derive(Clone, Debug, PartialEq)]
pub struct PortSettings {
    /// `None`: there is none.
    pub address: Option<SocketAddr>,
    /// Its certificate and key, if it has any.
    pub tls: TlsSettings,
    /// Whether `/metrics` needs no login.
    pub open_metrics: bool,
    /// Queues that `/metrics` lists by name.
    pub metrics_queues_max: usize,
    /// How long a browser stays logged in in which nobody does anything.
    pub login_expiry: Duration,
    /// Names by which it may be asked for, besides those of this machine.
    pub host_names: Vec<String>,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct LogSettings {
    pub level: LogLevel,
    pub format: LogFormat,
    /// Of its lines, so many of the last are kept in memory; 0: none.
    pub kept_lines: usize,
}

/// The least severe level that is logged; the most severe is the least of them.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// What a line of the log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    /// One JSON object a line.
    Json,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for Config {
    fn default() -> Config {
        Config {
            threads: 0,
            user: None,
            allow_anonymous: true,
            listeners: vec![Listener::new(
                SocketAddr::from(([127, 0, 0, 1], 1883)).into(),
            )],
            authentication: AuthenticationSettings {
                password_file: None,
                hashing_threads: 0,
                hashing_waiting_max: 256,
                tokens: TokenSettings {
                    keys: None,
                    keys_ca_file: None,
                    keys_refresh: Duration::from_secs(60 * 60),
                    keys_pause: Duration::from_secs(10),
                    algorithms: Vec::new(),
                    user_claim: "sub".to_owned(),
                    client_claim: String::new(),
                    rights_claim: String::new(),
                    issuer: String::new(),
                    audience: String::new(),
                    leeway: Duration::from_secs(10),
                    require_expiry: true,
                },
                http: HttpSettings {
                    address: None,
                    headers_file: None,
                    ca_file: None,
                    timeout: Duration::from_secs(3),
                    connections_max: 16,
                    waiting_max: 1024,
                    cache_yes: Duration::ZERO,
                    cache_no: Duration::ZERO,
                    cache_entries_max: 10_000,
                    failures_max: 5,
                    pause: Duration::from_secs(5),
                    rights: false,
                },
                ban: BanSettings {
                    failures_per_address_max: 100,
                    failures_per_client_max: 0,
                    within: Duration::from_secs(60),
                    connects_per_client_max: 1000,
                    connects_within: Duration::from_secs(60),
                    lasts: Duration::from_secs(60),
                },
            },
            access: AccessSettings {
                acl_file: None,
                rules_file: None,
                subscriptions: Strictness::Filter,
            },
            store: StoreSettings::default(),
            limits: Limits::default(),
            session: SessionSettings {
                full: SessionFull::End,
                expiry_default: 7 * DAY,
                expiry_max: 30 * DAY,
                keep_alive_secs_max: None,
                response_information: "response/%c".to_owned(),
                server_reference: String::new(),
                redirect: Redirect::Overflow,
                check_payload_format: false,
                will_restart_grace: Duration::from_secs(30),
                store_qos0: false,
            },
            queues: QueuesSettings {
                auto_create: true,
                auto_delete_after: 7 * DAY,
                sys_interval: Duration::from_secs(10),
                default: QueueSettings::default(),
            },
            queue: Vec::new(),
            sys: SysSettings {
                interval: Duration::from_secs(10),
            },
            http: PortSettings {
                address: Some(SocketAddr::from(([127, 0, 0, 1], 18080))),
                tls: TlsSettings::default(),
                open_metrics: false,
                metrics_queues_max: 1000,
                login_expiry: DAY / 2,
                host_names: Vec::new(),
            },
            log: LogSettings {
                level: LogLevel::Info,
                format: LogFormat::Text,
                kept_lines: 1000,
            },
        }
    }
}

impl Default for StoreSettings {
    fn default() -> StoreSettings {
        StoreSettings {
            data: PathBuf::from("rotamq-data"),
            ephemeral: false,
            durability: Durability::Synced,
            free_bytes_min: 256 << 20,
            log_bytes_max: 128 << 20,
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 100_000,
            connect_timeout: Duration::from_secs(10),
            connect_packet_bytes_max: 64 << 10,
            packet_bytes_max: 1 << 20,
            client_id_bytes_max: 1024,
            topic_bytes_max: 4096,
            topic_levels_max: 128,
            subscriptions_per_client_max: 10_000,
            sessions_max: 1_000_000,
            inflight_max: 100,
            receive_max: 1024,
            topic_aliases_max: 32,
            session_messages_max: 100_000,
            session_bytes_max: 64 << 20,
            outbox_bytes_max: 16 << 20,
            held_bytes_max: 4 << 20,
            held_timeout: Duration::from_secs(10),
            unacknowledged_in_max: 4096,
            retained_messages_max: 10_000_000,
            retained_bytes_max: 4 << 30,
            queues_max: 100_000,
            match_cache_bytes_max: 16 << 20,
            traces_bytes_max: 64 << 20,
            stop_timeout: Duration::from_secs(5),
            drain_per_sec: 0,
            connections_per_sec_max: 0,
            half_open_per_address_max: 20_000,
            connections_per_user_max: 0,
            client_rates: Rates::default(),
            user_rates: Rates::default(),
            memory_bytes_max: None,
        }
    }
}

impl Default for QueueSettings {
    fn default() -> QueueSettings {
        QueueSettings {
            name: String::new(),
            filters: Vec::new(),
            prefetch: 16,
            ack_timeout: Some(Duration::from_secs(60)),
            exclusive: false,
            dispatch: Dispatch::RoundRobin,
            topic: QueueTopic::Queue,
            qos0_members: true,
            undecided: Undecided::DeadLetter,
            undecided_after: DAY,
            deliveries_max: 10,
            backoff_min: Duration::from_secs(1),
            backoff_max: Duration::from_secs(5 * 60),
            ttl: None,
            dead_letter_expired: false,
            priority: 4,
            group_level: 0,
            fair: false,
            last_value: LastValue::Off,
            dedup_window: Duration::from_secs(5 * 60),
            messages_max: 10_000_000,
            bytes_max: 1 << 30,
            message_bytes_max: 256 << 20,
            overflow: Overflow::Reject,
            trace_events_max: 4096,
            durability: None,
            members: Vec::new(),
        }
    }
}
