//! Starts everything: store, runtime, listeners, timers; and stops it in order.

pub(crate) mod clock;
pub(crate) mod control;
mod http;
mod memory;
mod privileges;
pub(crate) mod storage;

use std::fmt;
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::access;
use crate::access::rules::Rules;
use crate::admin::{Listed, Port};
use crate::authentication::tokens::TokenMethod;
use crate::authentication::{
    Authenticator, Bans, Certificates, Chain, Hashing, Method, PasswordFile, Scram, Service, Tokens,
};
use crate::broker::{Core, Counts, Worker};
use crate::config::{
    AccessSettings, Address, AuthenticationSettings, AuthenticatorKind, Config, KeysAt, Listener,
    Protocol, TokenSettings,
};
use crate::net::{self, Bound, Clock, Entrance, Shared, SocketFile, with_worker};
use crate::protocol::ReasonCode;
use crate::session::Close;
use crate::store::Failed;
use clock::{Calendar, CalendarRecord};
use control::Control;
use http::Http;
use storage::Threads;

/// How long clients may take to be told that the disk failed.
const FAILED_STOP_MAX: Duration = Duration::from_secs(2);
/// How often a stopping broker looks whether all connections are closed.
const STOP_POLL: Duration = Duration::from_millis(5);

/// A running broker, with threads of its own, for use within a program or a
/// test. Dropping it stops it at once; [`Broker::stop`] does so in order.
///
/// ```
/// use std::io::{Read, Write};
///
/// let mut config = rotamq::config::Config::default();
/// config.listeners[0].address = "127.0.0.1:0".parse().unwrap();
/// config.http.address = None;
/// config.store.ephemeral = true;
/// let broker = rotamq::Broker::start(config).unwrap();
///
/// // Any MQTT client will do; this one says CONNECT by hand.
/// let mut client = std::net::TcpStream::connect(broker.address()).unwrap();
/// client.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c").unwrap();
/// let mut connack = [0; 4];
/// client.read_exact(&mut connack).unwrap();
/// assert_eq!(connack, *b"\x20\x02\x00\x00");
/// broker.stop();
/// ```
pub struct Broker {
    addresses: Vec<Address>,
    http: Option<control::Http>,
    // Of each listener.
    entrances: Vec<Arc<Entrance>>,
    // Of Unix sockets; they go before anybody else can want the paths.
    socket_files: Vec<SocketFile>,
    // Its file goes before the folder is anybody's: see `shared`.
    control: Option<Control>,
    _memory: Option<memory::Watch>,
    shared: Arc<Shared>,
    passwords: Option<Arc<PasswordFile>>,
    tokens: Option<Arc<Tokens>>,
    service: Option<Arc<Service>>,
    access: AccessSettings,
    stopping: watch::Sender<bool>,
    storage: Threads,
    // `None` once it was stopped.
    runtime: Option<Runtime>,
}

/// Why a broker could not start: one sentence.
#[derive(Debug)]
pub struct ServeError(String);

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ServeError {}

impl Broker {
    /// Starts to serve on all listeners of `config`, whose values it takes as
    /// they are: bounds, and the guard against letting everybody in from other
    /// machines, are for [`crate::config::Effective::load`].
    ///
    /// # Errors
    /// An address that cannot be listened on; certificates that are not valid;
    /// threads that cannot be made.
    pub fn start(config: Config) -> Result<Broker, ServeError> {
        Broker::start_with(config, Vec::new())
    }

    /// As [`Broker::start`], with methods by which clients may authenticate
    /// (MQTT 5, 4.12): those of the program that the broker is embedded in.
    ///
    /// # Errors
    /// Those of [`Broker::start`].
    pub fn start_with(config: Config, methods: Vec<Arc<dyn Method>>) -> Result<Broker, ServeError> {
        let sockets = bind(&config)?;
        let port = bind_http(&config)?;
        Broker::start_on(start_runtime(&config)?, &config, (sockets, port), methods)
    }

    fn start_on(
        runtime: Runtime,
        config: &Config,
        (sockets, port): (Vec<Bound>, Option<Port>),
        methods: Vec<Arc<dyn Method>>,
    ) -> Result<Broker, ServeError> {
        let passwords = open_passwords(&config.authentication)?;
        let tokens = open_tokens(&config.authentication.tokens)?;
        let service = Service::open(&config.authentication.http);
        let service = service.map_err(|error| ServeError(error.to_string()))?;
        let service = service.map(Arc::new);
        let rules = rules_of(&config.access)?;
        let chain_for = |listener: &Listener| {
            chain_of(
                config,
                listener,
                passwords.as_ref(),
                tokens.as_ref(),
                service.as_ref(),
            )
        };
        let entrance = |listener| {
            let entrance = Entrance::new(config, listener, chain_for(listener)?);
            (entrance.map(Arc::new)).map_err(|error| ServeError(error.to_string()))
        };
        let entrances: Result<Vec<_>, _> = config.listeners.iter().map(entrance).collect();
        let entrances = entrances?;
        let (stopping, stopped) = watch::channel(false);
        // The system's randomness, by way of the standard library's.
        let seed = RandomState::new().hash_one(0);
        let (store, is_whole) = storage::open(&config.store)?;
        let unreadable = |error| ServeError(format!("what is stored cannot be read: {error}"));
        let before = Core::stored_calendar(&store).map_err(unreadable)?;
        let before = before.and_then(|bytes| CalendarRecord::decode(&bytes));
        // Before what is stored is read: as long as that takes, the clock would be
        // behind the next run's otherwise, and what is delayed come too early then.
        let (start, calendar) = Calendar::starting(before);
        let now = calendar.shown();
        let clock = Clock::starting(start, now);
        let mut config = config.clone();
        (config.limits.memory_bytes_max).get_or_insert_with(memory::default_ceiling);
        let config = &config;
        let core = Core::new(config, seed).started(now);
        if let Some(rules) = rules {
            // What a start publishes is asked for too.
            core.set_rules(&mut Worker::new(&core), rules, now);
        }
        let (mut core, restored) = core.with_store(store, is_whole, now).map_err(unreadable)?;
        // Whether the rules are others than in the run before is not known.
        core.bind_all(&mut Worker::new(&core), now);
        if core.store().is_on() {
            core.welcome_back(now, clock.now());
            tracing::info!("restored: {restored}");
        }
        core.begin_sys(clock.now());
        let scram = passwords.iter().map(|file| Scram::new(file.clone()));
        let scram = scram.map(|scram| Arc::new(scram) as _);
        let by_token = tokens.iter().map(|tokens| TokenMethod(tokens.clone()));
        let by_token = by_token.map(|method| Arc::new(method) as _);
        for method in scram.chain(by_token).chain(methods) {
            core.add_authentication_method(method);
        }
        let threads = runtime.metrics().num_workers();
        let bans = Bans::new(config.authentication.ban.clone());
        let shared = Arc::new(Shared::new(core, bans, clock, threads, stopped));
        let storage = Threads::start(&shared, calendar)?;
        let folder = (!config.store.ephemeral).then_some(&*config.store.data);
        let http = match port {
            Some(port) => Some(Http::new(config, port, folder, chain_for)?),
            None => None,
        };
        let control = match folder {
            None => None,
            Some(folder) => {
                let http = http.as_ref().map(Http::for_commands);
                Some(Control::start(folder, &runtime, &shared, http)?)
            }
        };
        let mut addresses = Vec::new();
        let mut socket_files = Vec::new();
        for ((listener, entrance), socket) in config.listeners.iter().zip(&entrances).zip(sockets) {
            let _in_runtime = runtime.enter();
            let failed = |error| cannot_listen(&listener.address, error);
            let (listening, address, file) = socket.listen().map_err(failed)?;
            socket_files.extend(file);
            tracing::info!("listening on {address}{}", wrapping(listener));
            if let Some(tls) = &entrance.tls {
                tls.log_days_left();
            }
            addresses.push(address);
            runtime.spawn(net::accept(listening, entrance.clone(), shared.clone()));
        }
        let http_for_all = http.as_ref().map(Http::for_commands);
        if let Some(http) = http {
            let listeners = config.listeners.iter().zip(&addresses).zip(&entrances);
            let listeners = listeners.map(|((listener, address), entrance)| Listed {
                address: address.clone(),
                protocol: listener.protocol,
                entrance: entrance.clone(),
            });
            let _in_runtime = runtime.enter();
            let passwords = passwords.clone();
            http.listen(
                config,
                &shared,
                listeners.collect(),
                passwords,
                stopping.subscribe(),
            )?;
        }
        let timed = shared.clone();
        runtime.spawn(keep_running("timed work", move || keep_time(timed.clone())));
        let memory = memory::Watch::start(&shared)
            .map_err(|error| ServeError(format!("cannot start threads: {error}")))?;
        if let Some(tokens) = tokens.clone() {
            let shared = shared.clone();
            runtime.spawn(keep_running("fetching keys", move || {
                let (tokens, shared) = (tokens.clone(), shared.clone());
                async move {
                    let failed = || shared.core.counters().keys_not_fetched.increment();
                    tokens.keep_fetching(failed).await;
                }
            }));
        }
        Ok(Broker {
            addresses,
            http: http_for_all,
            entrances,
            socket_files,
            control,
            _memory: memory,
            shared,
            passwords,
            tokens,
            service,
            access: config.access.clone(),
            stopping,
            storage,
            runtime: Some(runtime),
        })
    }

    /// Reads again what may be changed while it runs: certificates, the password
    /// file, the keys of tokens, how the HTTP service is asked, and the files of
    /// rules. What is wrong with one is
    /// said in the log, and it stays as it was; so do connections that are open.
    pub fn reload(&self) {
        for tls in self
            .entrances
            .iter()
            .filter_map(|entrance| entrance.tls.as_ref())
        {
            match tls.reload() {
                Ok(()) => tls.log_days_left(),
                Err(error) => tracing::error!("certificates stay as they were: {error}"),
            }
        }
        match self.passwords.as_ref().map(|passwords| passwords.reload()) {
            None => {}
            Some(Ok(users)) => tracing::info!(users, "the password file was read again"),
            Some(Err(error)) => tracing::error!("the password file stays as it was: {error}"),
        }
        match self.tokens.as_ref().map(|tokens| tokens.reload()) {
            None => {}
            Some(Ok(Some(keys))) => tracing::info!(keys, "the keys of tokens were read again"),
            Some(Ok(None)) => tracing::info!("the keys of tokens are fetched again"),
            Some(Err(error)) => tracing::error!("the keys of tokens stay as they were: {error}"),
        }
        match self.service.as_ref().map(|service| service.reload()) {
            None => {}
            Some(Ok(())) => tracing::info!("what the HTTP service said before is forgotten"),
            Some(Err(error)) => {
                tracing::error!("how the HTTP service is asked stays as it was: {error}");
            }
        }
        match rules_of(&self.access) {
            Ok(None) => {}
            Ok(Some(rules)) => {
                let core = &self.shared.core;
                core.set_rules(&mut Worker::new(core), rules, self.shared.clock.now());
                tracing::info!("the access rules were read again, and hold for all from now on");
            }
            Err(ServeError(error)) => {
                tracing::error!("the access rules stay as they were: {error}");
            }
        }
    }

    /// Why the disk failed, if it did: nothing is acknowledged any more that
    /// has to be stored, and the broker had better be stopped.
    pub fn failure(&self) -> Option<Failed> {
        self.shared.core.store().failure()
    }

    /// Where its first listener on TCP listens.
    ///
    /// # Panics
    /// When it was configured with none.
    pub fn address(&self) -> SocketAddr {
        let mut addresses = self.addresses.iter();
        let found = addresses.find_map(|address| match address {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        });
        found.expect("it listens on TCP")
    }

    /// Where it listens, in the order of its listeners.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Where its HTTP port is, if it has one.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|http| http.address)
    }

    /// A token for it that allows everything, for ten minutes: for the program
    /// that the broker is embedded in.
    pub fn http_token(&self) -> Option<String> {
        (self.http.as_ref()?.users).lend(self.shared.clock.now())
    }

    /// How many whole days the certificates of each listener are valid yet;
    /// `None`: it has no TLS.
    pub fn certificate_days_left(&self) -> Vec<Option<u64>> {
        let tls = self.entrances.iter().map(|entrance| entrance.tls.as_ref());
        tls.map(|tls| tls.map(|tls| tls.days_left())).collect()
    }

    /// What it has counted.
    pub fn counts(&self) -> Counts {
        self.shared.core.counters().read()
    }

    /// Open connections, those included that have not sent CONNECT yet.
    pub fn connections_len(&self) -> usize {
        self.shared.connections_len()
    }

    /// Sessions, connected or not.
    pub fn sessions_len(&self) -> usize {
        self.shared.core.sessions_len()
    }

    /// Subscriptions, those of queues and share groups included.
    pub fn subscriptions_len(&self) -> usize {
        self.shared.core.subscriptions_len()
    }

    /// Retained messages.
    pub fn retained_len(&self) -> usize {
        self.shared.core.retained_len()
    }

    /// Stops accepting, lets every connection write what is on its way, and
    /// closes; returns when all is done or `stop_timeout` has passed. Not to
    /// be called from an async task: it blocks.
    pub fn stop(mut self) {
        let close = match self.failure() {
            None => Close::new(ReasonCode::ServerShuttingDown, "the broker stops"),
            Some(failed) => Close::new(
                ReasonCode::UnspecifiedError,
                format!("the broker's disk failed: {failed}"),
            ),
        };
        let has_failed = self.failure().is_some();
        if let Some(runtime) = self.runtime.take() {
            self.stopping.send_replace(true);
            let shared = self.shared.clone();
            let mut timeout = shared.core.limits().stop_timeout;
            if has_failed {
                timeout = timeout.min(FAILED_STOP_MAX);
            }
            runtime.block_on(async move {
                let mut worker = Worker::new(&shared.core);
                let closed = async {
                    // Again and again: a CONNECT may have been under way.
                    while shared.connections_len() > 0 {
                        shared.core.close_all(&mut worker, &close);
                        tokio::time::sleep(STOP_POLL).await;
                    }
                };
                if tokio::time::timeout(timeout, closed).await.is_err() {
                    let open = shared.connections_len();
                    tracing::warn!(
                        open,
                        "connections cut off: they did not end within stop_timeout_ms"
                    );
                }
            });
            self.control.take();
            self.socket_files.clear();
            runtime.shutdown_background();
            self.storage.stop(&self.shared, !has_failed);
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            self.stopping.send_replace(true);
            runtime.shutdown_background();
            self.storage.stop(&self.shared, false);
        }
    }
}

/// What clients of a listener have to wrap MQTT in, for the log.
fn wrapping(listener: &Listener) -> &'static str {
    match (listener.protocol, listener.tls.certificate.is_some()) {
        (Protocol::Mqtt, false) => "",
        (Protocol::Mqtt, true) => " (TLS)",
        (Protocol::WebSocket, false) => " (WebSocket)",
        (Protocol::WebSocket, true) => " (WebSocket, TLS)",
    }
}

/// Serves until the process is told to stop, by SIGTERM or SIGINT, or the disk
/// fails: then what has failed. SIGHUP has the certificates read again.
///
/// Who was started by root gives that up once it has its addresses, and before
/// it reads anything: what it may not read at the next SIGHUP is refused now.
///
/// # Errors
/// Those of [`Broker::start`]; and there is no such user.
pub fn serve(config: Config) -> Result<Option<Failed>, ServeError> {
    let runtime = start_runtime(&config)?;
    let handle = runtime.handle().clone();
    // Before anybody can know that there is a broker to be stopped.
    let (signal, mut hangup) = {
        let _in_runtime = handle.enter();
        (stop_signal()?, listen_for(SignalKind::hangup())?)
    };
    let sockets = bind(&config)?;
    let port = bind_http(&config)?;
    privileges::give_up(&config, &sockets)?;
    let broker = Broker::start_on(runtime, &config, (sockets, port), Vec::new())?;
    let mut failure = broker.storage.failure.clone();
    let failed = handle.block_on(async {
        let mut signal = pin!(signal);
        loop {
            tokio::select! {
                signal = &mut signal => {
                    tracing::info!("stopping: {signal}");
                    return None;
                }
                Ok(failed) = failure.wait_for(Option::is_some) => return failed.clone(),
                Some(()) = hangup.recv() => broker.reload(),
            }
        }
    });
    if let Some(failed) = &failed {
        tracing::error!("the disk failed, and nothing more can be stored: {failed}");
    }
    let shared = broker.shared.clone();
    broker.stop();
    // The disk may also fail while the broker stops.
    Ok(failed.or_else(|| shared.core.store().failure()))
}

fn start_runtime(config: &Config) -> Result<Runtime, ServeError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if config.threads > 0 {
        builder.worker_threads(config.threads);
    }
    (builder.enable_all().thread_name("rotamq").build())
        .map_err(|error| ServeError(format!("cannot start threads: {error}")))
}

/// Takes the addresses of all listeners.
fn bind(config: &Config) -> Result<Vec<Bound>, ServeError> {
    let bind = |listener: &Listener| {
        Bound::new(&listener.address, listener.unix_mode)
            .map_err(|error| cannot_listen(&listener.address, error))
    };
    config.listeners.iter().map(bind).collect()
}

/// Takes the address of the HTTP port, if there is to be one.
fn bind_http(config: &Config) -> Result<Option<Port>, ServeError> {
    let bind = |address| {
        Port::new(address).map_err(|error| {
            ServeError(format!(
                "cannot listen on {address} for HTTP: {error}; set http.address to another one, \
                 or to \"off\" (by flag: --http)"
            ))
        })
    };
    config.http.address.map(bind).transpose()
}

fn cannot_listen(address: &Address, error: io::Error) -> ServeError {
    ServeError(format!("cannot listen on {address}: {error}"))
}

fn rules_of(settings: &AccessSettings) -> Result<Option<Rules>, ServeError> {
    let (acl, form) = (&settings.acl_file, &settings.rules_file);
    access::read_rules(acl.as_deref(), form.as_deref())
        .map_err(|error| ServeError(error.to_string()))
}

fn open_passwords(
    settings: &AuthenticationSettings,
) -> Result<Option<Arc<PasswordFile>>, ServeError> {
    let Some(path) = &settings.password_file else {
        return Ok(None);
    };
    let hashing = Hashing::start(settings.hashing_threads, settings.hashing_waiting_max)
        .map_err(|error| ServeError(format!("cannot start threads: {error}")))?;
    let file = PasswordFile::open(path, hashing).map_err(|error| ServeError(error.to_string()))?;
    tracing::info!(users = file.users().len(), "the password file was read");
    Ok(Some(Arc::new(file)))
}

fn open_tokens(settings: &TokenSettings) -> Result<Option<Arc<Tokens>>, ServeError> {
    let tokens = match &settings.keys {
        Some(KeysAt::File(path)) => Tokens::open(path, settings.clone()),
        Some(KeysAt::Address(address)) => Tokens::fetched_from(address, settings.clone()),
        None => return Ok(None),
    };
    let tokens = tokens.map_err(|error| ServeError(error.to_string()))?;
    match &settings.keys {
        Some(KeysAt::Address(_)) => {} // It is said when they are there.
        _ => tracing::info!(keys = tokens.keys_len(), "the keys of tokens were read"),
    }
    Ok(Some(Arc::new(tokens)))
}

/// Who is asked at a listener, in its order. A token is known by its form, and
/// costs no password's hash: it comes before passwords where no order is said.
fn chain_of(
    config: &Config,
    listener: &Listener,
    passwords: Option<&Arc<PasswordFile>>,
    tokens: Option<&Arc<Tokens>>,
    service: Option<&Arc<Service>>,
) -> Result<Chain, ServeError> {
    let named = listener.authentication.as_deref();
    let mut authenticators = Vec::new();
    let mut has_methods = false;
    for kind in named.unwrap_or(&AuthenticatorKind::ALL) {
        let authenticator: Option<Arc<dyn Authenticator>> = match kind {
            AuthenticatorKind::Certificate => {
                (listener.tls.client_user).map(|user| Arc::new(Certificates::new(user)) as _)
            }
            AuthenticatorKind::Token => tokens.map(|tokens| tokens.clone() as _),
            AuthenticatorKind::Password => passwords.map(|file| file.clone() as _),
            AuthenticatorKind::Scram => None, // asked by its method
            AuthenticatorKind::Http => service.map(|service| service.clone() as _),
        };
        let by_method = *kind == AuthenticatorKind::Scram && passwords.is_some();
        has_methods |= by_method;
        if named.is_some() && authenticator.is_none() && !by_method {
            let address = &listener.address;
            let why = format!(
                "authentication of the listener at {address}: {}",
                kind.needs()
            );
            return Err(ServeError(why));
        }
        authenticators.extend(authenticator);
    }
    let allow_anonymous = listener.allow_anonymous.unwrap_or(config.allow_anonymous);
    let chain = Chain::new(authenticators, allow_anonymous);
    Ok(match has_methods {
        true => chain.with_methods(),
        false => chain,
    })
}

fn listen_for(kind: SignalKind) -> Result<Signal, ServeError> {
    signal(kind).map_err(|error| ServeError(format!("cannot listen for signals: {error}")))
}

/// The name of the signal that comes. Listens from the call on.
fn stop_signal() -> Result<impl Future<Output = &'static str>, ServeError> {
    let mut terminate = listen_for(SignalKind::terminate())?;
    let mut interrupt = listen_for(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}

/// Runs a task that is not to end; with a fault of its own it begins again.
async fn keep_running<F>(what: &str, mut task: impl FnMut() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    while let Err(error) = tokio::spawn(task()).await
        && error.is_panic()
    {
        tracing::error!("a fault in {what}, which goes on without what it was at");
    }
}

/// Does what is due, and sleeps until the next is.
async fn keep_time(shared: Arc<Shared>) {
    let mut sleep = Box::pin(tokio::time::sleep(Duration::ZERO));
    poll_fn(|cx| {
        loop {
            let now = shared.clock.now();
            with_worker(&shared, |local| {
                shared.core.handle_timeout(&mut local.worker, now)
            });
            let Some(next) = shared.core.timers().sleep(cx.waker()) else {
                return Poll::<()>::Pending;
            };
            sleep.as_mut().reset(shared.clock.instant(next));
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C17: what is not to end goes on after faults of its own.
    #[test]
    fn a_task_that_is_to_be_kept_running_begins_again_after_a_fault() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let mut runs = 0;
        let kept = keep_running("a test", || {
            runs += 1;
            let run = runs;
            async move { assert!(run > 2, "a fault") }
        });
        runtime.expect("a runtime").block_on(kept);
        assert_eq!(runs, 3);
    }
}
