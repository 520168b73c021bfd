//! Changes what a running broker is told to do: its configuration is read again.
//!
//! Owns the configuration that holds, and what was made of it. Everything is
//! read and checked before anything is changed: with an error nothing is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::http::Changing;
use super::known::Known;
use super::listeners::{OpenListener, Opening};
use super::systemd::Systemd;
use super::{ServeError, keep_running, memory};
use crate::admin::{Admitted, Listed};
use crate::authentication::{Method, Tokens};
use crate::config::{
    Address, Applies, Config, ConfigError, Effective, Listener, ReloadError, Reloaded, Setting,
};
use crate::logbook::Logbook;
use crate::net::{Bound, Entrance, Shared, with_worker};

/// How long who stops the broker waits for changes that are being made; those that
/// are still being read then are not made.
const CHANGES_MAX: Duration = Duration::from_secs(2);

/// Reads the configuration again, as it was read at the start.
pub(crate) type Load = Box<dyn Fn() -> Result<Effective, ConfigError> + Send + Sync>;

/// What a broker has that a program alone has, not one within another program.
#[derive(Default)]
pub(crate) struct Program {
    /// `None`: the configuration is as it is, but for the files that it names.
    pub load: Option<Load>,
    /// Its log, if that is its own.
    pub logbook: Option<Arc<Logbook>>,
    pub systemd: Option<Systemd>,
    /// It was root's, and cannot take ports below 1024 any more.
    pub has_given_up_root: bool,
}

/// A broker that runs, as far as that can be changed.
pub(crate) struct Running {
    shared: Arc<Shared>,
    runtime: Handle,
    // Of the program that the broker is embedded in.
    methods: Vec<Arc<dyn Method>>,
    program: Program,
    // Locked for as long as changes are read and made.
    changing: Mutex<()>,
    // The broker stops: nothing is changed any more.
    is_closed: AtomicBool,
    // Written for a moment.
    state: RwLock<State>,
}

struct State {
    /// What holds: of the options that need a restart, their values at the start.
    effective: Effective,
    known: Known,
    listeners: Vec<OpenListener>,
    /// `None`: there is no HTTP port, or not yet.
    http: Option<Changing>,
    memory: Option<memory::Watch>,
    // Dropped, it ends.
    fetching: Option<watch::Sender<()>>,
}

/// A listener of the new configuration.
enum Prepared {
    /// It is there, at this place of the old ones.
    Kept(usize, Arc<Entrance>),
    New(Box<Opening>),
}

impl Running {
    /// Lets nobody in yet: see [`Running::open`].
    pub fn new(
        shared: Arc<Shared>,
        runtime: Handle,
        methods: Vec<Arc<dyn Method>>,
        program: Program,
        (effective, known): (Effective, Known),
    ) -> Running {
        Running {
            shared,
            runtime,
            methods,
            program,
            changing: Mutex::new(()),
            is_closed: AtomicBool::new(false),
            state: RwLock::new(State {
                effective,
                known,
                listeners: Vec::new(),
                http: None,
                memory: None,
                fetching: None,
            }),
        }
    }

    /// Begins to serve: listens, looks at the memory, fetches keys.
    ///
    /// # Errors
    /// An address that cannot be listened on; threads that cannot be made.
    pub fn open(&self, listeners: Vec<(Bound, Arc<Entrance>)>) -> Result<(), ServeError> {
        let mut state = self.state.write();
        let state = &mut *state;
        let configured = state.effective.config.listeners.iter();
        for (listener, (socket, entrance)) in configured.zip(listeners) {
            let opening = self.prepare(socket, listener, entrance);
            let opening = opening.map_err(ServeError)?;
            (state.listeners).push(opening.open(&self.runtime, &self.shared));
        }
        self.watch_memory(state)
            .map_err(|error| ServeError(format!("cannot start threads: {error}")))?;
        self.fetch_keys(state);
        Ok(())
    }

    /// Where it listens, in the order of its listeners.
    pub fn addresses(&self) -> Vec<Address> {
        let state = self.state.read();
        let listeners = state.listeners.iter();
        listeners.map(|listener| listener.address.clone()).collect()
    }

    /// Of each listener.
    pub fn entrances(&self) -> Vec<Arc<Entrance>> {
        let state = self.state.read();
        state.listeners.iter().map(OpenListener::entrance).collect()
    }

    /// As the HTTP port tells of them.
    pub fn listed(&self) -> Vec<Listed> {
        let state = self.state.read();
        let listeners = state.listeners.iter();
        listeners
            .map(|listener| Listed {
                address: listener.address.clone(),
                protocol: listener.configured.protocol,
                entrance: listener.entrance(),
            })
            .collect()
    }

    /// Where it is said who may do what among clients of MQTT.
    pub fn admitted(&self) -> Admitted {
        let state = self.state.read();
        let config = &state.effective.config;
        Admitted {
            access: config.access.clone(),
            allow_anonymous: config.allow_anonymous,
            passwords: state.known.passwords().cloned(),
        }
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub fn logbook(&self) -> Option<&Arc<Logbook>> {
        self.program.logbook.as_ref()
    }

    /// The HTTP port is there from now on.
    pub fn set_http(&self, http: Changing) {
        self.state.write().http = Some(http);
    }

    /// By which clients of MQTT come in at the HTTP port, if there is one: without
    /// a name if they may and anybody may.
    pub fn workbench(&self, may_be_anonymous: bool) -> Option<Arc<Entrance>> {
        let state = self.state.read();
        (state.http.as_ref()).map(|http| http.workbench(may_be_anonymous))
    }

    /// All values that hold, without what may be secret.
    pub fn settings(&self) -> Vec<Setting> {
        self.state.read().effective.settings()
    }

    /// The broker stops: its configuration is not read again from now on, and what
    /// is being changed is changed when this returns, as long as that takes no time.
    pub fn end_changes(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        drop(self.changing.try_lock_for(CHANGES_MAX));
    }

    /// For as long as changes are read and made: who comes first reads first, and
    /// an older file never wins over a newer one.
    fn begin_changes(&self) -> Result<MutexGuard<'_, ()>, ReloadError> {
        let changing = self.changing.lock();
        self.check_open()?;
        Ok(changing)
    }

    fn check_open(&self) -> Result<(), ReloadError> {
        match self.is_closed.load(Ordering::SeqCst) {
            true => Err(ReloadError {
                problems: vec!["the broker stops; start it again with what is to hold".into()],
            }),
            false => Ok(()),
        }
    }

    /// The files of sockets go before anybody else can want the paths.
    pub fn close_listeners(&self) {
        self.state.write().listeners.clear();
    }

    pub fn systemd(&self) -> Option<Systemd> {
        self.program.systemd
    }

    /// What the service manager is told that is asked how it is.
    pub fn status(&self) -> String {
        let addresses = self.addresses();
        let addresses: Vec<_> = addresses.iter().map(Address::to_string).collect();
        format!("serving on {}", addresses.join(", "))
    }

    /// Reads the configuration again, and all files that it names. Takes as long
    /// as files take to be read: not to be called from an async task.
    ///
    /// # Errors
    /// All that is wrong: then nothing is changed.
    pub fn reload(&self) -> Result<Reloaded, ReloadError> {
        let reloaded = self.begin_changes().and_then(|changing| {
            if let Some(systemd) = self.program.systemd {
                systemd.reloading();
            }
            let effective = match &self.program.load {
                Some(load) => load().map_err(ReloadError::from),
                None => Ok(self.state.read().effective.clone()),
            };
            let reloaded = effective.and_then(|effective| self.take(effective, &changing));
            // Who was told meanwhile that the broker stops is not told otherwise.
            if let Some(systemd) = self.program.systemd
                && self.check_open().is_ok()
            {
                systemd.ready(&self.status());
            }
            reloaded
        });
        log(&reloaded);
        reloaded
    }

    /// As [`Running::reload`], with this configuration.
    ///
    /// # Errors
    /// Those of [`Running::reload`].
    pub fn reload_with(&self, effective: Effective) -> Result<Reloaded, ReloadError> {
        let changing = self.begin_changes();
        let reloaded = changing.and_then(|changing| self.take(effective, &changing));
        log(&reloaded);
        reloaded
    }

    fn take(
        &self,
        mut effective: Effective,
        _changing: &MutexGuard<'_, ()>,
    ) -> Result<Reloaded, ReloadError> {
        let state = self.state.read();
        let changes = state.effective.changes(&effective).into_iter();
        let (needs_restart, changed) =
            changes.partition(|change| change.applies() == Applies::Restart);
        keep_until_restart(&mut effective.config, &state.effective.config);
        let mut problems = Vec::new();
        let config = &effective.config;
        let known = Known::read(config, &state.known).unwrap_or_else(|wrong| {
            let wrong = wrong.into_iter();
            problems.extend(wrong.map(|wrong| format!("{}: {}", wrong.what, wrong.why)));
            Known::default()
        });
        // Chains would be wrong without who is asked.
        let prepared = match problems.is_empty() {
            true => self.prepare_listeners(config, &known, &state.listeners, &mut problems),
            false => Vec::new(),
        };
        let http = match (&state.http, problems.is_empty()) {
            (Some(http), true) => match http.read_again(config, &known) {
                Ok(changed) => Some(changed),
                Err(problem) => {
                    problems.push(problem);
                    None
                }
            },
            _ => None,
        };
        drop(state);
        if !problems.is_empty() {
            return Err(ReloadError { problems });
        }
        self.check_open()?;

        self.change_core(config, &known);
        let mut state = self.state.write();
        let state = &mut *state;
        if let (Some(http), Some(changed)) = (&mut state.http, http) {
            http.take(changed, config);
        }
        let mut before: Vec<_> = std::mem::take(&mut state.listeners)
            .into_iter()
            .map(Some)
            .collect();
        for (listener, prepared) in config.listeners.iter().zip(prepared) {
            match prepared {
                Prepared::Kept(place, entrance) => {
                    if let Some(mut kept) = before.get_mut(place).and_then(Option::take) {
                        kept.change(listener.clone(), entrance);
                        state.listeners.push(kept);
                    }
                }
                Prepared::New(opening) => {
                    (state.listeners).push(opening.open(&self.runtime, &self.shared));
                }
            }
        }
        for gone in before.into_iter().flatten() {
            gone.close(&self.runtime, &self.shared);
        }
        // Only now all that it says holds.
        known.log(true);
        (state.known, state.effective) = (known, effective);
        if let Err(error) = self.watch_memory(state) {
            tracing::error!(%error, "nobody looks at the memory: there is no thread for it");
        }
        self.fetch_keys(state);
        Ok(Reloaded {
            changed,
            needs_restart,
        })
    }

    /// What the core, and who lets clients in to it, are told anew.
    fn change_core(&self, config: &Config, known: &Known) {
        if let Some(logbook) = &self.program.logbook {
            logbook.set_usual_level(config.log.level);
            logbook.set_lines_max(config.log.kept_lines);
        }
        let (core, now) = (&self.shared.core, self.shared.clock.now());
        core.set_authentication_methods(known.methods(&self.methods));
        let config = memory::with_ceiling(config);
        with_worker(&self.shared, |local| {
            core.set_policy(&mut local.worker, known.policy(&config), now);
            core.reconfigure(&mut local.worker, &config, now);
        });
        self.shared.take_limits();
        self.shared.bans.set(&config.authentication.ban);
    }

    fn prepare_listeners(
        &self,
        config: &Config,
        known: &Known,
        before: &[OpenListener],
        problems: &mut Vec<String>,
    ) -> Vec<Prepared> {
        let mut left: Vec<usize> = (0..before.len()).collect();
        let mut prepared = Vec::new();
        for listener in &config.listeners {
            let address = &listener.address;
            let found = left
                .iter()
                .position(|place| before[*place].configured.address == *address);
            let kept = found.map(|found| left.remove(found));
            match self.prepare_listener(config, known, listener, kept.map(|at| (at, &before[at]))) {
                Ok(listener) => prepared.push(listener),
                Err(problem) => problems.push(problem),
            }
        }
        prepared
    }

    fn prepare_listener(
        &self,
        config: &Config,
        known: &Known,
        listener: &Listener,
        kept: Option<(usize, &OpenListener)>,
    ) -> Result<Prepared, String> {
        let chain = known.chain(config, listener)?;
        let tls = |error| format!("certificates stay as they were: {error}");
        if let Some((place, kept)) = kept {
            let entrance = Entrance::succeeding(&kept.entrance(), config, listener, chain);
            return Ok(Prepared::Kept(place, Arc::new(entrance.map_err(tls)?)));
        }
        let entrance = Entrance::new(config, listener, chain).map_err(tls)?;
        let address = &listener.address;
        let socket = Bound::new(address, listener.unix_mode).map_err(|error| {
            let hint = match (self.program.has_given_up_root, error.kind()) {
                (true, std::io::ErrorKind::PermissionDenied) => {
                    "; the broker was started by root, which it has given up: start it again"
                }
                _ => "",
            };
            format!("cannot listen on {address}: {error}{hint}")
        })?;
        let opening = self.prepare(socket, listener, Arc::new(entrance))?;
        Ok(Prepared::New(Box::new(opening)))
    }

    fn prepare(
        &self,
        socket: Bound,
        listener: &Listener,
        entrance: Arc<Entrance>,
    ) -> Result<Opening, String> {
        let _in_runtime = self.runtime.enter();
        let opening = Opening::new(socket, listener.clone(), entrance);
        opening.map_err(|error| format!("cannot listen on {}: {error}", listener.address))
    }

    /// A thread of its own looks at the memory, if there is a ceiling.
    fn watch_memory(&self, state: &mut State) -> std::io::Result<()> {
        let bytes_max = self.shared.core.memory().bytes_max();
        if state.memory.as_ref().map(memory::Watch::bytes_max) != bytes_max {
            // The old one first.
            state.memory = None;
            state.memory = memory::Watch::start(&self.shared, &self.runtime)?;
        }
        Ok(())
    }

    /// Keys that have an address are fetched again and again.
    fn fetch_keys(&self, state: &mut State) {
        state.fetching = None;
        let tokens = state.known.tokens().filter(|tokens| tokens.are_fetched());
        if let Some(tokens) = tokens.cloned() {
            let (fetching, ended) = watch::channel(());
            self.runtime
                .spawn(fetch(tokens, self.shared.clone(), ended));
            state.fetching = Some(fetching);
        }
    }
}

/// Until whoever began it has `ended` it.
async fn fetch(tokens: Arc<Tokens>, shared: Arc<Shared>, ended: watch::Receiver<()>) {
    keep_running("fetching keys", move || {
        let (tokens, shared, mut ended) = (tokens.clone(), shared.clone(), ended.clone());
        async move {
            let failed = || shared.core.counters().keys_not_fetched.increment();
            tokio::select! {
                () = tokens.keep_fetching(failed) => {}
                _ = ended.changed() => {}
            }
        }
    })
    .await;
}

/// What needs a restart to be another one stays as it was at the start.
fn keep_until_restart(config: &mut Config, before: &Config) {
    config.threads = before.threads;
    config.user.clone_from(&before.user);
    let (store, stored) = (&mut config.store, &before.store);
    store.data.clone_from(&stored.data);
    store.ephemeral = stored.ephemeral;
    store.free_bytes_min = stored.free_bytes_min;
    store.log_bytes_max = stored.log_bytes_max;
    config.limits.match_cache_bytes_max = before.limits.match_cache_bytes_max;
    config.http.clone_from(&before.http);
    config.log.format = before.log.format;
}

fn log(reloaded: &Result<Reloaded, ReloadError>) {
    match reloaded {
        Ok(reloaded) => {
            for change in &reloaded.changed {
                tracing::info!(holds = %change.applies(), "changed: {change}");
            }
            for change in &reloaded.needs_restart {
                tracing::warn!("needs a restart: {change}");
            }
            let (changed, needs_restart) = (reloaded.changed.len(), reloaded.needs_restart.len());
            tracing::info!(changed, needs_restart, "the configuration was read again");
        }
        Err(error) => {
            for problem in &error.problems {
                tracing::error!("nothing is changed: {problem}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Source};

    /// What the table of options says needs a restart is what is kept.
    #[test]
    fn what_needs_a_restart_stays_as_it_was_and_nothing_else() {
        let text = "threads = 3\nuser = 'mqtt'\nallow_anonymous = false\n\
             [store]\ndata = 'elsewhere'\nephemeral = true\nfree_bytes_min = 1\nlog_bytes_max = 4_194_304\n\
             durability = 'memory'\n[limits]\nmatch_cache_bytes_max = 65536\ninflight_max = 7\n\
             [log]\nformat = 'json'\nlevel = 'debug'\n[http]\naddress = 'off'\nopen_metrics = true\n";
        let source = Source {
            path: std::path::Path::new("a.toml").into(),
            text: text.to_owned(),
        };
        let before = Effective::of(Config::default());
        let mut after = Effective::load(Some(&source), [], &Flags::default()).unwrap();
        let said = before.changes(&after);
        assert_eq!(said.len(), text.matches('=').count());
        keep_until_restart(&mut after.config, &before.config);
        let held = before.changes(&after);
        let live = said
            .iter()
            .filter(|change| change.applies() != Applies::Restart);
        assert_eq!(held, live.cloned().collect::<Vec<_>>());
    }
}
