//! The table of options: everything that is said of an option stands in its
//! row, once.
//!
//! A row gives an option's key, what it may be, the field that it sets, and
//! its sentences. The file, the environment, the flags, `config show`,
//! `config/rotamq.toml` and the suggestion for a mistyped key all come from
//! here. Default values are not here: they are those of [`Config::default`].

use super::forms::{
    AddressText, AlgorithmWords, AuthenticatorWords, FieldText, FilePath, FilterText, FilterTexts,
    Flag, FlagOrNone, FolderPath, Form, HostNames, HttpAddressText, HttpPath, KeyText, KeysText,
    Millis, MillisOrNever, MillisOrNone, ModeText, MountText, NetworkTexts, Number, NumberOrNone,
    OriginTexts, PatternText, Secs, SecsOrNever, SocketOrOff, UserName, Word, WordOrNone, words,
};
use super::value::{Shape, Value};
use super::{
    ClientCertificates, ClientUser, Config, Dispatch, Durability, Listener, LogFormat, LogLevel,
    MemberSettings, Overflow, Protocol, QueueSettings, QueueTopic, Redirect, SessionFull,
    TlsVersion, Undecided,
};
use crate::access::rules::Strictness;

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

/// A section of the file, and what is said at its head.
pub(super) struct Section {
    /// Empty: the top of the file.
    pub name: &'static str,
    pub doc: &'static str,
}

pub(super) const SECTIONS: &[Section] = &[
    Section { name: "", doc: "" },
    Section {
        name: "authentication",
        doc: "Who a client is. Each of these that is set is asked in turn, until one knows the \
              client; see docs/authentication.md.",
    },
    Section {
        name: "access",
        doc: "What a client may do. With any of these files nothing is allowed that no rule \
              allows; without, everything is; see docs/access.md.",
    },
    Section {
        name: "store",
        doc: "Where what has to outlive the broker is kept: persistent sessions, queues, retained \
              messages and wills. An acknowledgement means that it is stored.",
    },
    Section {
        name: "limits",
        doc: "What one client, and all of them, may take of the machine. Reaching a limit costs \
              the one who reaches it; see docs/limits.md. A limit is off with 0 where that is \
              said of it, and cannot be switched off otherwise.",
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
        name: "sys",
        doc: "What the broker says of itself to its clients: topics below $SYS/broker/ as mosquitto \
              has them, and some of its own below $SYS/broker/rotamq/; see docs/metrics.md.",
    },
    Section {
        name: "http",
        doc: "The HTTP port: dashboard, API and metrics. It has users of its own, each a viewer, an \
              operator or an admin; the first is made with a token that is logged at the first \
              start.",
    },
    Section {
        name: "log",
        doc: "What is logged, to standard error. Never a line a message, unless level says so.",
    },
];

/// A row: key, field, form (with the bounds of a number), sentences.
macro_rules! option {
    ($key:literal, $($field:ident).+: $form:ident<$choice:ident>, $doc:literal) => {
        Opt {
            key: $key,
            shape: Shape::Choice(words::<$choice>),
            doc: $doc,
            get: |table| $form::get(&table.$($field).+),
            set: |table, value| {
                table.$($field).+ = $form::parse(value)?;
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

const PEM: &str = "a PEM file's path, as in \"/etc/rotamq/server.pem\"";
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
/// The largest Remaining Length (2.2.3), less what a longer topic, a packet id
/// and the like may add when a message goes out again.
const PACKET: u64 = 268_435_455 - 65_536;
/// Of messages or connections, a second.
const RATE: u64 = 1_000_000_000;
const DAY_SECS: u64 = 24 * 60 * 60;
const TEN_MINUTES_MS: u64 = 10 * 60 * 1000;
const DAY_MS: u64 = DAY_SECS * 1000;
const TEN_YEARS_SECS: u64 = 10 * 365 * DAY_SECS;

/// The options that are not in an array of tables.
pub(super) const CONFIG: &[Opt<Config>] = &[
    option!("threads", threads: Number(0, 1024),
        "Worker threads. 0: one for each core."),
    option!("user", user: UserName,
        "Who the broker becomes once it has its addresses, if root starts it; all other files it \
         reads as this user. Without this it is rotamq, if there is such a user; if not, it \
         stays root, and warns. \"root\": it stays root."),
    option!("allow_anonymous", allow_anonymous: Flag,
        "Whether clients may connect that give no name. Where there are no users, because \
         [authentication] names none, whoever gives a name is let in without it, and false keeps \
         everybody out; to listen on an address that other machines reach, this has to be set \
         then: by a line here, the environment or a flag, but not by the default. Where there \
         are users, the default is false."),
    option!("authentication.password_file", authentication.password_file: FilePath("a file's path, as in \"/etc/rotamq/passwords\""),
        "A file of users, USER:HASH a line, that rotamq passwd or mosquitto_passwd writes. It is \
         read when the broker starts, and again when it gets SIGHUP."),
    option!("authentication.hashing_threads", authentication.hashing_threads: Number(0, 64),
        "Threads that check passwords. 0: half as many as there are cores."),
    option!("authentication.hashing_waiting_max",
        authentication.hashing_waiting_max: Number(1, 100_000),
        "Clients that wait for their password to be checked, which takes some 20 ms. Beyond it \
         a client is told that the server is busy."),
    option!("authentication.jwt_keys", authentication.tokens.keys: KeysText,
        "A JSON Web Key Set (RFC 7517), in a file or where a login service publishes it. Clients \
         may give a JSON Web Token for a password, signed with one of its keys. A file is read \
         when the broker starts, and again when it gets SIGHUP. From an address keys are fetched \
         at the start, and again and again; those that were fetched last stay when that fails."),
    option!("authentication.jwt_algorithms", authentication.tokens.algorithms: AlgorithmWords,
        "How tokens may be signed; has to be said where there is jwt_keys."),
    option!("authentication.jwt_user_claim", authentication.tokens.user_claim: FieldText,
        "The claim of a token that is the user's name. A client that gives a user name too has \
         to give the same."),
    option!("authentication.jwt_client_claim", authentication.tokens.client_claim: FieldText,
        "The claim that is the client identifier, in tokens that have it: no other client gets \
         in with them. Empty: whose user it is may connect with any."),
    option!("authentication.jwt_rights_claim", authentication.tokens.rights_claim: FieldText,
        "The claim that says what a client may do, as one more role of its own; see \
         docs/access.md. Who brings a token without it may do what the files of [access] allow, \
         and nothing else. Empty: tokens say nothing of that."),
    option!("authentication.jwt_issuer", authentication.tokens.issuer: FieldText,
        "Who has to have issued a token: its claim iss. Empty: anybody with a key."),
    option!("authentication.jwt_audience", authentication.tokens.audience: FieldText,
        "Whom a token has to be meant for, alone or among others: its claim aud. Empty: only \
         tokens without such a claim are taken."),
    option!("authentication.jwt_leeway_secs", authentication.tokens.leeway: Secs(0, 300),
        "How far the clock of whoever issues tokens may be off: they are valid so much earlier \
         and longer."),
    option!("authentication.jwt_require_expiry", authentication.tokens.require_expiry: Flag,
        "Whether a token without end, the claim exp, is refused."),
    option!("authentication.jwt_keys_ca_file", authentication.tokens.keys_ca_file: FilePath(PEM),
        "The authorities of the certificate, where jwt_keys is an address. Not set: those of the system."),
    option!("authentication.jwt_keys_refresh_secs", authentication.tokens.keys_refresh: Secs(1, DAY_SECS),
        "When keys are fetched again at the latest: sooner if the answer says so \
         (Cache-Control: max-age), or when a token names a key that is not known."),
    option!("authentication.jwt_keys_pause_secs", authentication.tokens.keys_pause: Secs(1, DAY_SECS),
        "But not more often than once in so long."),
    option!("authentication.http_address", authentication.http.address: HttpAddressText,
        "A service of yours that is asked, by a POST with JSON, who a client is that nobody else \
         here knows; see docs/authentication.md. While it does not answer nobody gets in whom \
         it would have to know."),
    option!("authentication.http_headers_file", authentication.http.headers_file: FilePath("a file's path, as in \"/etc/rotamq/http_headers\""),
        "A file of header lines that each question has, as in Authorization: Bearer abc. It is \
         read when the broker starts, and again when it gets SIGHUP."),
    option!("authentication.http_ca_file", authentication.http.ca_file: FilePath(PEM),
        "The authorities of the service's certificate. Not set: those of the system."),
    option!("authentication.http_timeout_ms", authentication.http.timeout: Millis(10, TEN_MINUTES_MS),
        "How long a question may take, from when it is asked to its whole answer; it may wait as long \
         for its turn before. At most connect_timeout_ms."),
    option!("authentication.http_connections_max", authentication.http.connections_max: Number(1, 10_000),
        "Questions that are asked at one time, each on a connection of its own."),
    option!("authentication.http_waiting_max", authentication.http.waiting_max: Number(1, 1_000_000),
        "Questions that wait for one of these connections. Beyond it a client is told that the \
         server is busy."),
    option!("authentication.http_cache_yes_secs", authentication.http.cache_yes: Secs(0, DAY_SECS),
        "How long it is remembered that the service knows a client, by all that it was asked. \
         Whom it does not know any more may connect as long. 0: it is asked each time."),
    option!("authentication.http_cache_no_secs", authentication.http.cache_no: Secs(0, DAY_SECS),
        "How long it is remembered that the service refuses a client, or does not know it."),
    option!("authentication.http_cache_entries_max",
        authentication.http.cache_entries_max: Number(1, 10_000_000),
        "Answers that are remembered; beyond it the oldest are forgotten."),
    option!("authentication.http_failures_max", authentication.http.failures_max: Number(1, 1_000_000),
        "So many questions in a row without a valid answer, and the service is not asked for \
         http_pause_secs; then once, and when that is answered, as before."),
    option!("authentication.http_pause_secs", authentication.http.pause: Secs(1, DAY_SECS),
        "How long a service that fails is not asked."),
    option!("authentication.http_rights", authentication.http.rights: Flag,
        "Whether the service also says what a client may do, as one more role of its own; see \
         docs/access.md. Whoever it lets in and says nothing of may do what the files of [access] \
         allow, and nothing else."),
    option!("authentication.failures_per_address_max",
        authentication.ban.failures_per_address_max: Number(0, 1_000_000),
        "So many clients of one address (of IPv6, of one network of 64 bits) that are not who \
         they say, within failures_within_secs, and the address is banned: all who connect from \
         it are refused. 0: never."),
    option!("authentication.failures_per_client_max",
        authentication.ban.failures_per_client_max: Number(0, 1_000_000),
        "The same for one client identifier, whatever address it comes from. Somebody who knows \
         the identifier of a device can shut it out so. 0: never."),
    option!("authentication.failures_within_secs",
        authentication.ban.within: Secs(1, DAY_SECS),
        "Within which time failures count together."),
    option!("authentication.connects_per_client_max",
        authentication.ban.connects_per_client_max: Number(0, 1_000_000),
        "So many connections of one client, which is a client identifier of one user, within \
         connects_within_secs, and the client is banned: as when two devices with one identifier \
         take the session from each other over and over. Only those count that were let in. 0: \
         never."),
    option!("authentication.connects_within_secs",
        authentication.ban.connects_within: Secs(1, DAY_SECS),
        "Within which time they count together."),
    option!("authentication.ban_secs", authentication.ban.lasts: Secs(1, DAY_SECS),
        "How long a ban lasts."),
    option!("access.acl_file", access.acl_file: FilePath("a file's path, as in \"/etc/rotamq/acl\""),
        "Rules as mosquitto's acl_file has them. It is read when the broker starts, and again \
         when it gets SIGHUP; so is rules_file."),
    option!("access.rules_file", access.rules_file: FilePath("a file's path, as in \"/etc/rotamq/rules.toml\""),
        "Roles, and who has them."),
    option!("access.subscriptions", access.subscriptions: Word<Strictness>,
        "Which subscriptions are granted. \"filter\": those that match anything that the client \
         may read, and each message is decided by itself; \"refuse\": those that match nothing \
         else."),
    option!("store.data", store.data: FolderPath,
        "The folder, made if it is missing. A relative path is one of the working directory. Two \
         brokers cannot share it."),
    option!("store.ephemeral", store.ephemeral: Flag,
        "Whether nothing is kept at all, and no folder made: for tests and trials."),
    option!("store.durability", store.durability: Word<Durability>,
        "What has been done for a change before it is acknowledged. \"synced\": it is on the \
         disk, by fdatasync, and a power cut does not undo it; \"flushed\": it was handed to the \
         system, and is synced every second: the broker may crash, the machine may not; \
         \"memory\": nothing is on disk. A [[queue]] may say otherwise for itself, and a \
         [[listener]] ask for more: the strongest that applies counts."),
    option!("store.free_bytes_min", store.free_bytes_min: Number(0, TIB),
        "Bytes that the folder's file system has to have free. Below it durable messages are \
         refused, while settling works on and frees room; above it all goes on by itself. 0: \
         they are never refused for that, and a full disk is a failed one, which stops the \
         broker."),
    option!("store.log_bytes_max", store.log_bytes_max: Number(4 * MIB, 64 * GIB),
        "What the log may hold before what is still alive in its oldest part is moved to the \
         base; also what a start has to read."),
    option!("limits.connections_max", limits.connections_max: Number(1, 10_000_000),
        "Connections at one time, those that have not sent CONNECT included."),
    option!("limits.connect_timeout_ms", limits.connect_timeout: Millis(100, TEN_MINUTES_MS),
        "From the first moment of a connection to its whole CONNECT, and to the last answer of an \
         enhanced authentication; sending it slowly gives no \
         more time."),
    option!("limits.connect_packet_bytes_max", limits.connect_packet_bytes_max: Number(128, PACKET),
        "A packet before CONNECT is accepted."),
    option!("limits.packet_bytes_max", limits.packet_bytes_max: Number(128, PACKET),
        "A packet after that."),
    option!("limits.client_id_bytes_max", limits.client_id_bytes_max: Number(23, 65_535),
        "A client identifier."),
    option!("limits.topic_bytes_max", limits.topic_bytes_max: Number(1, 65_528),
        "A topic name or filter; members of a queue see it with $queue/ before it."),
    option!("limits.topic_levels_max", limits.topic_levels_max: Number(1, 65_535),
        "Levels of a topic name or filter: one more than its slashes."),
    option!("limits.subscriptions_per_client_max",
        limits.subscriptions_per_client_max: Number(1, 10_000_000),
        "Subscriptions of one client, its queues and share groups included."),
    option!("limits.sessions_max", limits.sessions_max: Number(1, 100_000_000),
        "Sessions, whether their clients are connected or not."),
    option!("limits.inflight_max", limits.inflight_max: Number(1, 65_535),
        "Messages of QoS 1 and 2 that were sent to a client and are not yet acknowledged."),
    option!("limits.receive_max", limits.receive_max: Number(1, 65_535),
        "The Receive Maximum that MQTT 5 clients are told. It bounds the QoS 2 messages of a \
         connection that are not released; unacknowledged_in_max bounds those of QoS 1."),
    option!("limits.topic_aliases_max", limits.topic_aliases_max: Number(0, 65_535),
        "Topic aliases of one connection, each way (MQTT 5). 0: none."),
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
    option!("limits.unacknowledged_in_max", limits.unacknowledged_in_max: Number(1, 1_000_000),
        "PUBLISHes of one connection whose acknowledgement waits for the disk. Beyond it the \
         connection is not read."),
    option!("limits.retained_messages_max", limits.retained_messages_max: Number(1, 1_000_000_000),
        "Retained messages."),
    option!("limits.retained_bytes_max", limits.retained_bytes_max: Number(1024, TIB),
        "Bytes of all retained messages."),
    option!("limits.queues_max", limits.queues_max: Number(1, 100_000_000),
        "Queues, dead-letter queues included."),
    option!("limits.match_cache_bytes_max", limits.match_cache_bytes_max: Number(64 << 10, 64 * GIB),
        "What one worker thread remembers of topics and who receives them."),
    option!("limits.traces_bytes_max", limits.traces_bytes_max: Number(0, 64 * GIB),
        "What all traces, as packets of clients are recorded on demand, may take of memory. 0: \
         there are no traces."),
    option!("limits.stop_timeout_ms", limits.stop_timeout: Millis(1, TEN_MINUTES_MS),
        "How long stopping may take for what is in flight."),
    option!("limits.drain_per_sec", limits.drain_per_sec: Number(0, RATE),
        "Clients that are disconnected a second when the broker stops, so that not all of them \
         come to another one at the same moment. Those that are left when three quarters of \
         stop_timeout_ms are over are disconnected then. 0: all at once."),
    option!("limits.connections_per_sec_max", limits.connections_per_sec_max: Number(0, RATE),
        "Connections that are accepted a second; the others wait in the system's backlog. 0: as \
         many as come."),
    option!("limits.half_open_per_address_max",
        limits.half_open_per_address_max: Number(0, 10_000_000),
        "Connections of one address (of IPv6, of one network of 64 bits) that are not through \
         with CONNECT; more are closed at once. Clients behind a proxy count by the address in its \
         header, those of Unix sockets do not. 0: any number."),
    option!("limits.connections_per_user_max",
        limits.connections_per_user_max: Number(0, 10_000_000),
        "Connections of one user. 0: any number. Anonymous clients are nobody's."),
    option!("limits.messages_per_sec_in_max", limits.client_rates.messages_in: Number(0, RATE),
        "Messages that one connection may publish a second: beyond it the broker reads them \
         later, and nothing is lost. A second's worth may come at once. 0: any number."),
    option!("limits.bytes_per_sec_in_max", limits.client_rates.bytes_in: Number(0, TIB),
        "Bytes that are read from one connection a second. 0: any number."),
    option!("limits.messages_per_sec_out_max", limits.client_rates.messages_out: Number(0, RATE),
        "Messages that are written to one connection a second; the others wait as for a client \
         that reads slowly. 0: any number."),
    option!("limits.bytes_per_sec_out_max", limits.client_rates.bytes_out: Number(0, TIB),
        "Bytes that are written to one connection a second. 0: any number."),
    option!("limits.user_messages_per_sec_in_max",
        limits.user_rates.messages_in: Number(0, RATE),
        "The same four of all connections of one user together. Anonymous clients are nobody's."),
    option!("limits.user_bytes_per_sec_in_max", limits.user_rates.bytes_in: Number(0, TIB),
        "Bytes that are read from a user's connections a second. 0: any number."),
    option!("limits.user_messages_per_sec_out_max",
        limits.user_rates.messages_out: Number(0, RATE),
        "Messages that are written to a user's connections a second. 0: any number."),
    option!("limits.user_bytes_per_sec_out_max", limits.user_rates.bytes_out: Number(0, TIB),
        "Bytes that are written to a user's connections a second. 0: any number."),
    option!("limits.memory_bytes_max", limits.memory_bytes_max: NumberOrNone(0, 64 * TIB),
        "The broker's resident memory. From nine tenths of it on, clients without a session here \
         are refused; from all of it on, those who publish are read later and later, and what was \
         acknowledged stays. Without this it is four fifths of what the machine, or the control \
         group, has. 0: any amount."),
    option!("session.full", session.full: Word<SessionFull>,
        "What happens when a message comes to a session that is full. \"end\": the session is \
         ended, and its client finds a new one. \"refuse\": the publisher is refused. \
         \"drop-oldest\": the oldest waiting message is dropped, and counted."),
    option!("session.expiry_default_secs", session.expiry_default: Secs(1, TEN_YEARS_SECS),
        "How long the session of a client that is away is kept, where the client cannot say it: \
         in MQTT 3.1 and 3.1.1."),
    option!("session.expiry_max_secs", session.expiry_max: Secs(0, u32::MAX as u64),
        "The longest that a session is kept whose MQTT 5 client is away; who asks for more is \
         told so. 4294967295: for ever, if asked for."),
    option!("session.keep_alive_secs_max", session.keep_alive_secs_max: NumberOrNone(0, 65_535),
        "The longest keep alive of an MQTT 5 client; who asks for more, or for none, is told to \
         use this. 0: what the client asks for."),
    option!("session.response_information", session.response_information: FieldText,
        "What MQTT 5 clients get that ask for Response Information, by which they make the \
         topics that they want responses on; %c stands for the client identifier. Empty: \
         nothing."),
    option!("session.server_reference", session.server_reference: FieldText,
        "Another server, as in \"mqtt2.example.org:1883\", that MQTT 5 clients are referred to."),
    option!("session.redirect", session.redirect: Word<Redirect>,
        "Which clients are referred there, if server_reference is not empty. \"overflow\": those \
         that find this server full, and all when it stops; \"temporarily\", \"permanently\": all \
         who connect. Clients of 3.1 and 3.1.1 cannot be told, and find the server unavailable."),
    option!("session.check_payload_format", session.check_payload_format: Flag,
        "Whether a message whose Payload Format Indicator says that it is UTF-8 is refused if it \
         is not (MQTT 5)."),
    option!("session.will_restart_grace_secs", session.will_restart_grace: Secs(0, DAY_SECS),
        "Wills that were due when the broker stopped or crashed are published so long after its \
         start, unless the client is back by then."),
    option!("session.store_qos0", session.store_qos0: Flag,
        "Whether messages of QoS 0 wait for a client that is away, as those of QoS 1 do: stored, \
         within the same limits. They are dropped otherwise."),
    option!("queues.auto_create", queues.auto_create: Flag,
        "Whether subscribing or publishing to $queue/NAME creates a queue. Names that begin with \
         a wildcard have to be configured in any case."),
    option!("queues.auto_delete_after_secs", queues.auto_delete_after: Secs(1, TEN_YEARS_SECS),
        "A queue that is not configured is deleted when it has had neither a member nor a \
         PUBLISH to $queue/NAME for so long. What it held is logged and counted."),
    option!("queues.sys_interval_secs", queues.sys_interval: Secs(0, DAY_SECS),
        "How often each queue's numbers are published below $SYS/broker/queues/NAME/, as long as \
         anybody subscribes to them. 0: never."),
    option!("sys.interval_secs", sys.interval: Secs(0, DAY_SECS),
        "How often what has changed is published there, to be retained. 0: never."),
    option!("http.address", http.address: SocketOrOff,
        "Where it is listened on. \"off\": nowhere."),
    option!("http.tls_certificate", http.tls.certificate: FilePath(PEM),
        "Its certificate, as a listener's tls_certificate. Without it passwords and tokens can be \
         read on the way: for addresses that other machines reach, set it."),
    option!("http.tls_key", http.tls.key: FilePath(PEM),
        "The private key of tls_certificate."),
    option!("http.open_metrics", http.open_metrics: Flag,
        "Whether /metrics is for everybody who can connect. Otherwise it needs a token, as the API \
         does."),
    option!("http.metrics_queues_max", http.metrics_queues_max: Number(0, 100_000),
        "Queues that /metrics lists by name: the first by their names, those of dead letters last. The \
         others are told together, as $others."),
    option!("http.login_expiry_secs", http.login_expiry: Secs(60, DAY_SECS * 365),
        "How long a browser stays logged in in which nobody does anything."),
    option!("http.host_names", http.host_names: HostNames,
        "Names by which browsers ask for it where it has no certificate, as behind a proxy that has \
         one, besides IP addresses, localhost and this machine's own name. Others are refused, as \
         any page can have a name of its own lead here."),
    option!("log.level", log.level: Word<LogLevel>,
        "The least severe level that is logged. \"debug\" and \"trace\" log single messages."),
    option!("log.format", log.format: Word<LogFormat>,
        "\"text\" for people, in colour on a terminal; \"json\": an object a line."),
    option!("log.kept_lines", log.kept_lines: Number(0, 1_000_000),
        "The last lines are kept in memory for the dashboard and the API, 4 MiB of them at most. \
         0: none are."),
];

/// What a `[[listener]]` says.
pub(super) const LISTENER: &[Opt<Listener>] = &[
    option!("address", address: AddressText,
        "IP address and port, or unix: and the path of a socket file. Port 0 takes a free one, \
         and logs which."),
    option!("protocol", protocol: Word<Protocol>,
        "What MQTT is wrapped in. \"mqtt\": nothing; \"websocket\": WebSocket, as web pages need \
         it. Either can be inside TLS."),
    option!("durability", durability: WordOrNone<Durability>,
        "What comes in by it is stored at least so, and so are the sessions connected through \
         it; see store.durability. Without this it asks for nothing of its own."),
    option!("tls_certificate", tls.certificate: FilePath(PEM),
        "The broker's certificate, then those between it and its authority's. With it and \
         tls_key all clients have to use TLS, without them none can. The files are read at the \
         start, and again on SIGHUP."),
    option!("tls_key", tls.key: FilePath(PEM),
        "The private key of tls_certificate."),
    option!("tls_client_ca", tls.client_ca: FilePath(PEM),
        "The authorities that sign certificates of clients."),
    option!("tls_client_certificates", tls.client_certificates: WordOrNone<ClientCertificates>,
        "Whether clients are asked for a certificate. \"off\": no; \"optional\": who has none is \
         let in, who shows one that is not valid is not; \"required\": only who has one is let \
         in. Without this it is \"required\" if there is a tls_client_ca, and \"off\" if not."),
    option!("tls_crl", tls.crl: FilePath(PEM),
        "Revocation lists of the authorities in tls_client_ca: clients with a certificate that \
         is on one of them are refused."),
    option!("tls_min_version", tls.version_min: Word<TlsVersion>,
        "The oldest version of TLS that is spoken; older ones than 1.2 never are."),
    option!("tls_client_user", tls.client_user: WordOrNone<ClientUser>,
        "What of a client's certificate is its user name. \"cn\": the common name; \"san\": the \
         first e-mail address, DNS name or URI of the alternative names; \"dn\": the whole \
         subject, as in \"CN=sensor 7,O=Example\". A client that gives a user name too has to give \
         the same. Without this a certificate lets a client connect, and says nothing of who it is."),
    option!("authentication", authentication: AuthenticatorWords,
        "Who is asked there who a client is, one after the other, until one knows it: \
         \"certificate\" is tls_client_user, \"token\" is jwt_keys, \"password\" and \"scram\" are \
         password_file. Whoever is not named is not asked. Without this all are asked that are \
         configured, in that order."),
    option!("allow_anonymous", allow_anonymous: FlagOrNone,
        "In place of the general allow_anonymous. Without either, it is false where \
         there are users: of [authentication], or of tls_client_user."),
    option!("mount_point", mount_point: MountText,
        "Goes before every topic, filter and queue that its clients name, and is taken away from \
         what they get: with \"site1/\" their a/b is everybody else's site1/a/b. They see nothing \
         outside of it, nor $SYS; see docs/transports.md. At most 1024 bytes, without wildcards."),
    option!("connections_max", limits.connections_max: NumberOrNone(1, 10_000_000),
        "Connections that came by it, at one time; limits.connections_max bounds them as well. \
         This one and the next four are for its clients alone, in place of what holds for all."),
    option!("connect_timeout_ms", limits.connect_timeout: MillisOrNone(100, TEN_MINUTES_MS),
        "In place of limits.connect_timeout_ms."),
    option!("packet_bytes_max", limits.packet_bytes_max: NumberOrNone(128, PACKET),
        "In place of limits.packet_bytes_max."),
    option!("subscriptions_per_client_max",
        limits.subscriptions_per_client_max: NumberOrNone(1, 10_000_000),
        "In place of limits.subscriptions_per_client_max."),
    option!("keep_alive_secs_max", limits.keep_alive_secs_max: NumberOrNone(0, 65_535),
        "In place of session.keep_alive_secs_max. 0: what the client asks for."),
    option!("websocket_path", websocket.path: HttpPath,
        "The path of the address by which WebSocket clients connect, as in \
         ws://example.org:8080/mqtt. Others are told 404."),
    option!("websocket_origins", websocket.origins: OriginTexts,
        "The web sites whose pages may connect: others are told 403. None: all. Clients that are \
         no browsers say no origin, and are let in."),
    option!("proxy_trusted", proxy_trusted: NetworkTexts,
        "Where proxies connect from that send a PROXY header (version 1 or 2) before anything \
         else: it is required from these addresses, says who the client is, and is refused from \
         all others."),
    option!("unix_mode", unix_mode: ModeText,
        "The permissions of the socket file at a unix: address: who may write it may connect."),
    option!("connections_per_sec_max", connections_per_sec_max: Number(0, RATE),
        "As limits.connections_per_sec_max, of this listener. 0: as many as that lets in."),
    option!("messages_per_sec_in_max", rates.messages_in: Number(0, RATE),
        "As limits.messages_per_sec_in_max, of all this listener's connections together. 0: any \
         number."),
    option!("bytes_per_sec_in_max", rates.bytes_in: Number(0, TIB),
        "Bytes that are read from them a second. 0: any number."),
    option!("messages_per_sec_out_max", rates.messages_out: Number(0, RATE),
        "Messages that are written to them a second. 0: any number."),
    option!("bytes_per_sec_out_max", rates.bytes_out: Number(0, TIB),
        "Bytes that are written to them a second. 0: any number."),
];

/// What a `[[queue]]` is for.
pub(super) const QUEUE_NAMING: &[Opt<QueueSettings>] = &[
    option!("name", name: FilterText,
        "The queue's name: what follows $queue/. Or a pattern: with the wildcards + and # it \
         stands for all queues whose names fit as topics would, and for the queue of that very \
         name. The first [[queue]] that fits counts."),
    option!("filters", filters: FilterTexts,
        "Topics that feed a queue of a plain name, beside those that its name matches."),
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
    option!("dispatch", dispatch: Word<Dispatch>,
        "Which member has the next turn, of those with room. \"round-robin\": one after the \
         other; \"least-inflight\": the one with the fewest messages in its hands."),
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
    option!("max_deliveries", deliveries_max: Number(1, 1_000_000),
        "A message that failed so often is a dead letter: it was refused, its time passed, or \
         its member's connection was lost."),
    option!("backoff_min_ms", backoff_min: Millis(0, DAY_MS),
        "How long a message rests that was refused, or whose time passed; twice as long after \
         each further time. A part of it is random, so that not all come back at once."),
    option!("backoff_max_secs", backoff_max: Secs(0, DAY_MS / 1000),
        "The longest that a message rests so."),
    option!("ttl_secs", ttl: SecsOrNever(0, TEN_YEARS_SECS),
        "How long a message may wait in the queue. 0: as long as it says itself."),
    option!("dead_letter_expired", dead_letter_expired: Flag,
        "Whether messages whose time has passed are dead letters. They are dropped otherwise, \
         and counted."),
    option!("priority", priority: Number(0, 9),
        "The priority of messages that say none: higher ones come first."),
    option!("group_level", group_level: Number(0, 65_535),
        "Which level of the topic, counted from 1, is the group of a message that says none. \
         Messages of one group are delivered in order, one at a time. 0: they are in no group."),
    option!("fair", fair: Flag,
        "Whether groups take turns instead, so that one with many messages does not hold up the \
         others. Then a group's messages may be with several members."),
    option!("last_value", last_value: KeyText,
        "Keep only the newest message that waits of those with the same \"topic\", or the same \
         user property, as in \"property:device\". Such a queue is in memory whole. Empty: keep \
         all."),
    option!("dedup_window_secs", dedup_window: Secs(1, TEN_YEARS_SECS),
        "A message with a dedup-id that came within this time is acknowledged, and not stored."),
    option!("max_messages", messages_max: Number(1, 10_000_000_000),
        "Messages in a queue."),
    option!("max_bytes", bytes_max: Number(1024, TIB),
        "Bytes of the messages in a queue."),
    option!("max_message_bytes", message_bytes_max: Number(0, 256 << 20),
        "Bytes of one message's payload. Longer ones are refused for good."),
    option!("overflow", overflow: Word<Overflow>,
        "What happens to a message for a full queue. \"reject\": its publisher waits, or is \
         refused; \"drop-oldest\": the oldest that waits is dropped, and counted; \
         \"dead-letter-oldest\": it is a dead letter."),
    option!("trace_events_max", trace_events_max: Number(0, 1_000_000),
        "How many events are remembered for `rotamq queue trace`: that a message was stored, \
         delivered, settled."),
    option!("durability", durability: WordOrNone<Durability>,
        "What has been done for a message that is put in before it is acknowledged: one of the \
         words of store.durability, which holds where this is not set."),
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
