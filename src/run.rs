//! Starts everything: store, runtime, listeners, timers; changes it while it runs,
//! and stops it in order.

pub(crate) mod clock;
pub(crate) mod control;
mod http;
mod known;
mod listeners;
mod memory;
mod privileges;
pub(crate) mod reload;
mod stopping;
pub(crate) mod storage;
pub(crate) mod systemd;

use std::fmt;
use std::future::{pending, poll_fn};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::admin::Port;
use crate::authentication::{Bans, Method};
use crate::broker::{Core, Counts, Worker};
use crate::config::{Address, Config, Effective, Listener, ReloadError, Reloaded};
use crate::net::{Bound, Clock, Entrance, Shared, with_worker};
use crate::protocol::ReasonCode;
use crate::session::Close;
use crate::store::Failed;
use clock::{Calendar, CalendarRecord};
use control::Control;
use http::Http;
use known::Known;
pub use memory::give_back_by;
use reload::{Program, Running};
use storage::Threads;

/// How long clients may take to be told that the disk failed.
const FAILED_STOP_MAX: Duration = Duration::from_secs(2);

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
    running: Arc<Running>,
    http: Option<control::Http>,
    // `None`: there is none, or it is closed.
    http_port: Option<http::Open>,
    // Its file goes before the folder is anybody's: see `shared`.
    control: Option<Control>,
    shared: Arc<Shared>,
    stopping: watch::Sender<bool>,
    storage: Threads,
    // `None` once it was stopped.
    runtimes: Option<Runtimes>,
}

/// Who has a timer of its own makes each thread of its runtime ask when that is
/// due whenever it goes to sleep, which it does as often as once a delivery. So
/// what runs on timers has its own, and a slow page holds up no client.
struct Runtimes {
    clients: Runtime,
    /// For timed work, the HTTP port, commands and the service manager.
    housekeeping: Runtime,
}

impl Runtimes {
    fn start(config: &Config) -> Result<Runtimes, ServeError> {
        Ok(Runtimes {
            clients: start_runtime("rotamq", config.threads)?,
            housekeeping: start_runtime("rotamq-keep", 1)?,
        })
    }

    /// Ends all tasks where they wait.
    fn shutdown(self) {
        self.clients.shutdown_background();
        self.housekeeping.shutdown_background();
    }
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
        let sockets = (bind(&config)?, bind_http(&config)?);
        let effective = Effective::of(config);
        let program = Program::default();
        Broker::start_on(
            Runtimes::start(&effective.config)?,
            effective,
            sockets,
            methods,
            program,
        )
    }

    fn start_on(
        runtimes: Runtimes,
        effective: Effective,
        (sockets, port): (Vec<Bound>, Option<Port>),
        methods: Vec<Arc<dyn Method>>,
        program: Program,
    ) -> Result<Broker, ServeError> {
        let config = &effective.config;
        let known = Known::read(config, &Known::default()).map_err(|wrong| {
            let why: Vec<String> = wrong.into_iter().map(|wrong| wrong.why).collect();
            ServeError(why.join("\n"))
        })?;
        known.log(false);
        let entrance = |listener| {
            let chain = known.chain(config, listener).map_err(ServeError)?;
            let entrance = Entrance::new(config, listener, chain);
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
        let core = Core::new(&memory::with_ceiling(config), seed).started(now);
        // What a start publishes is asked for too.
        core.set_policy(&mut Worker::new(&core), known.policy(config), now);
        let (core, restored) = core.with_store(store, is_whole, now).map_err(unreadable)?;
        // Whether the rules are others than in the run before is not known.
        core.bind_all(&mut Worker::new(&core), now);
        if core.store().is_on() {
            core.welcome_back(now, clock.now());
            tracing::info!("restored: {restored}");
        }
        core.begin_sys(clock.now());
        core.set_authentication_methods(known.methods(&methods));
        let clients = runtimes.clients.handle();
        let threads = clients.metrics().num_workers();
        let bans = Bans::new(config.authentication.ban.clone());
        let shared = Arc::new(Shared::new(core, bans, clock, threads, stopped));
        let storage = Threads::start(&shared, calendar)?;
        let folder = (!config.store.ephemeral).then(|| config.store.data.clone());
        let http = match port {
            Some(port) => Some(Http::new(config, port, folder.as_deref(), &known)?),
            None => None,
        };
        let for_commands = http.as_ref().map(Http::for_commands);
        let running = Running::new(
            shared.clone(),
            clients.clone(),
            methods,
            program,
            (effective, known),
        );
        let running = Arc::new(running);
        let housekeeping = &runtimes.housekeeping;
        let control = match folder {
            None => None,
            Some(folder) => {
                let asked = (running.clone(), for_commands.clone());
                Some(Control::start(&folder, housekeeping, &shared, asked)?)
            }
        };
        running.open(sockets.into_iter().zip(entrances).collect())?;
        let http_port = {
            let _in_runtime = housekeeping.enter();
            let listen = |http: Http| http.listen(&running, clients);
            http.map(listen).transpose()?
        };
        let timed = shared.clone();
        housekeeping.spawn(keep_running("timed work", move || keep_time(timed.clone())));
        if let Some(systemd) = running.systemd() {
            let (shared, beats) = (shared.clone(), storage.beats.clone());
            housekeeping.spawn(keep_running("the watchdog", move || {
                systemd.keep_watched(shared.clone(), beats.clone())
            }));
            systemd.ready(&running.status());
        }
        Ok(Broker {
            running,
            http: for_commands,
            http_port,
            control,
            shared,
            stopping,
            storage,
            runtimes: Some(runtimes),
        })
    }

    /// Reads again the files that the configuration names: certificates, the
    /// password file, the keys of tokens, how the HTTP service is asked, and the
    /// files of rules. Connections that are open stay as they were; rules hold for
    /// them too. Not to be called from an async task: it blocks.
    ///
    /// # Errors
    /// All that is wrong with any of them: then nothing is changed.
    pub fn reload(&self) -> Result<Reloaded, ReloadError> {
        self.running.reload()
    }

    /// As [`Broker::reload`], with this configuration from now on. What has
    /// changed, and what of it holds only for a broker that is started with it;
    /// docs/operate.md says which option holds when.
    ///
    /// # Errors
    /// All that is wrong: then nothing is changed.
    pub fn reload_with(&self, config: Config) -> Result<Reloaded, ReloadError> {
        self.running.reload_with(Effective::of(config))
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
        let mut addresses = self.addresses().into_iter();
        let found = addresses.find_map(|address| match address {
            Address::Tcp(address) => Some(address),
            Address::Unix(_) => None,
        });
        found.expect("it listens on TCP")
    }

    /// Where it listens, in the order of its listeners.
    pub fn addresses(&self) -> Vec<Address> {
        self.running.addresses()
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
        let entrances = self.running.entrances();
        let tls = entrances.iter().map(|entrance| entrance.tls.as_ref());
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

    /// Stops accepting, tells all clients to go, at the pace of `drain_per_sec`,
    /// lets every connection write what is on its way, and closes, the HTTP port
    /// last; returns when all is done or `stop_timeout` has passed. Not to be called from an async
    /// task: it blocks.
    pub fn stop(self) {
        self.stop_unless(pending());
    }

    /// The same; when `hurried` is done, connections are cut off at once.
    fn stop_unless(mut self, hurried: impl Future<Output = ()>) {
        let failure = self.failure();
        let close = match &failure {
            None => Close::new(ReasonCode::ServerShuttingDown, "the broker stops"),
            Some(failed) => Close::new(
                ReasonCode::UnspecifiedError,
                format!("the broker's disk failed: {failed}"),
            ),
        };
        if let Some(runtimes) = self.runtimes.take() {
            self.running.end_changes();
            self.stopping.send_replace(true);
            let shared = self.shared.clone();
            let limits = shared.core.limits();
            let (mut timeout, mut per_sec) = (limits.stop_timeout, limits.drain_per_sec);
            if failure.is_some() {
                (timeout, per_sec) = (timeout.min(FAILED_STOP_MAX), 0);
            }
            let http_port = self.http_port.take();
            runtimes.clients.block_on(async {
                let closed = stopping::drain(&shared, &close, per_sec, timeout / 4 * 3);
                let why = tokio::select! {
                    () = closed => None,
                    () = tokio::time::sleep(timeout) => {
                        Some("they did not end within stop_timeout_ms")
                    }
                    () = hurried => Some("the broker was told to stop once more"),
                };
                if let Some(why) = why {
                    let open = shared.connections_len();
                    tracing::warn!(open, "connections cut off: {why}");
                }
                // Until now it said that the broker stops.
                if let Some(port) = http_port {
                    port.close().await;
                }
            });
            self.control.take();
            self.running.close_listeners();
            runtimes.shutdown();
            self.storage.stop(&self.shared, failure.is_none());
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(runtimes) = self.runtimes.take() {
            self.running.end_changes();
            self.stopping.send_replace(true);
            runtimes.shutdown();
            self.storage.stop(&self.shared, false);
        }
    }
}

/// Serves until the process is told to stop, by SIGTERM or SIGINT, or the disk
/// fails: then what has failed. SIGHUP has the configuration read again; a second
/// signal to stop cuts all connections off.
///
/// Who was started by root gives that up once it has its addresses, and before
/// it reads anything: what it may not read at the next SIGHUP is refused now.
///
/// # Errors
/// Those of [`Broker::start`]; and there is no such user.
pub(crate) fn serve(
    effective: Effective,
    mut program: Program,
) -> Result<Option<Failed>, ServeError> {
    let config = &effective.config;
    let runtimes = Runtimes::start(config)?;
    let handle = runtimes.clients.handle().clone();
    // Before anybody can know that there is a broker to be stopped.
    let (mut signals, mut hangup) = {
        let _in_runtime = handle.enter();
        (StopSignals::listen()?, listen_for(SignalKind::hangup())?)
    };
    let (sockets, port) = (bind(config)?, bind_http(config)?);
    program.has_given_up_root = privileges::give_up(config, &sockets)?;
    let sockets = (sockets, port);
    let broker = Broker::start_on(runtimes, effective, sockets, Vec::new(), program)?;
    let running = broker.running.clone();
    let mut failure = broker.storage.failure.clone();
    let failed = handle.block_on(async {
        loop {
            tokio::select! {
                signal = signals.next() => {
                    tracing::info!("stopping: {signal}");
                    return None;
                }
                Ok(failed) = failure.wait_for(Option::is_some) => return failed.clone(),
                Some(()) = hangup.recv() => {
                    // On a thread of its own: it reads files, and signals are heard
                    // meanwhile. What comes of it, it says in the log.
                    let running = running.clone();
                    handle.spawn_blocking(move || _ = running.reload());
                }
            }
        }
    });
    if let Some(failed) = &failed {
        tracing::error!("the disk failed, and nothing more can be stored: {failed}");
    }
    // Before the service manager hears of it: a reload tells it that all is ready.
    running.end_changes();
    if let Some(systemd) = running.systemd() {
        systemd.stopping(match failed {
            None => "disconnecting clients",
            Some(_) => "the disk failed",
        });
    }
    let shared = broker.shared.clone();
    broker.stop_unless(async {
        let signal = signals.next().await;
        tracing::info!("stopping at once: {signal} again");
    });
    // The disk may also fail while the broker stops.
    Ok(failed.or_else(|| shared.core.store().failure()))
}

/// `threads`: 0 for one a core.
fn start_runtime(name: &str, threads: usize) -> Result<Runtime, ServeError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if threads > 0 {
        builder.worker_threads(threads);
    }
    builder.on_thread_park(memory::on_thread_park);
    (builder.enable_all().thread_name(name).build())
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

fn listen_for(kind: SignalKind) -> Result<Signal, ServeError> {
    signal(kind).map_err(|error| ServeError(format!("cannot listen for signals: {error}")))
}

/// By which a process is told to stop.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Listens from now on. Within a runtime.
    fn listen() -> Result<StopSignals, ServeError> {
        Ok(StopSignals {
            terminate: listen_for(SignalKind::terminate())?,
            interrupt: listen_for(SignalKind::interrupt())?,
        })
    }

    /// The name of the next that comes.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
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
