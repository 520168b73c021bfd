//! The HTTP port's part of a start: its address is taken early, what it needs is
//! read with the rest, and it is listened on last.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::known::Known;
use super::reload::Running;
use super::{ServeError, control};
use crate::admin::{
    Admitted, Events, History, Listed, Metrics, Operations, Port, State, Users, workbench,
};
use crate::authentication::Bans;
use crate::config::{BanSettings, Config, PortSettings, Protocol, ReloadError, Reloaded, Setting};
use crate::logbook::Logbook;
use crate::net::{Entrance, Tls};

/// Failed logins of one address after which it is banned.
const FAILURES_MAX: u32 = 10;

/// How long answers under way may take when the broker has stopped.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// A port that nobody is let in by yet.
pub(super) struct Http {
    pub address: SocketAddr,
    port: Port,
    settings: PortSettings,
    users: Arc<Users>,
    changing: Changing,
}

/// What of it is read again while it is used.
#[derive(Clone)]
pub(crate) struct Changing {
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
    workbench: Workbench<Arc<Entrance>>,
    bans: Arc<Bans>,
}

/// By which clients of MQTT come in.
#[derive(Clone)]
struct Workbench<E> {
    /// Without a name too, where all listeners let such in.
    usual: E,
    /// Only with one.
    named: E,
}

impl Changing {
    /// By which clients of MQTT come in, without a name if they may and anybody may.
    pub fn workbench(&self, may_be_anonymous: bool) -> Arc<Entrance> {
        match may_be_anonymous {
            true => self.workbench.usual.clone(),
            false => self.workbench.named.clone(),
        }
    }

    /// Reads it again. What is given back is to be used when nothing else is
    /// wrong.
    ///
    /// # Errors
    /// A sentence.
    pub fn read_again(&self, config: &Config, known: &Known) -> Result<Changed, String> {
        let tls = Tls::load(&config.http.tls, Protocol::WebSocket)
            .map_err(|error| format!("certificates stay as they were: [http]: {error}"))?;
        let succeeding = |before, is_open| {
            let listener = workbench(self.address, is_open);
            let chain = known.chain(config, &listener)?;
            Entrance::succeeding(before, config, &listener, chain)
                .map_err(|error| error.to_string())
        };
        let workbench = Workbench {
            usual: succeeding(&self.workbench.usual, config.all_allow_anonymous())?,
            named: succeeding(&self.workbench.named, false)?,
        };
        Ok(Changed { tls, workbench })
    }

    /// This holds for who comes from now on.
    pub fn take(&mut self, changed: Changed, config: &Config) {
        if let (Some(tls), Some(read)) = (&self.tls, changed.tls) {
            tls.take(read);
            tls.log_days_left();
        }
        self.workbench = Workbench {
            usual: Arc::new(changed.workbench.usual),
            named: Arc::new(changed.workbench.named),
        };
        self.bans.set(&ban_settings(config));
    }
}

/// By which names it may be asked for: those of the configuration, and this
/// machine's own.
fn host_names(settings: &PortSettings) -> Vec<String> {
    // A machine that does not tell is asked for by another name.
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let own = own.trim().to_owned();
    let names = settings.host_names.iter().cloned();
    names
        .chain(Some(own).filter(|own| !own.is_empty()))
        .collect()
}

/// When an address is banned from the HTTP port. There is always a bound: its
/// passwords are those of people.
fn ban_settings(config: &Config) -> BanSettings {
    let of_mqtt = &config.authentication.ban;
    let failures = of_mqtt.failures_per_address_max;
    BanSettings {
        failures_per_address_max: match failures {
            0 => FAILURES_MAX,
            failures => failures.min(FAILURES_MAX),
        },
        ..of_mqtt.clone()
    }
}

/// What was read again.
pub(crate) struct Changed {
    tls: Option<Tls>,
    workbench: Workbench<Entrance>,
}

impl Http {
    /// Reads what it needs. `folder`: where its users are kept, if they are.
    ///
    /// # Errors
    /// Its certificate, or the file of its users, is not what it should be.
    pub fn new(
        config: &Config,
        port: Port,
        folder: Option<&Path>,
        known: &Known,
    ) -> Result<Http, ServeError> {
        let address = port.address();
        // HTTP is what clients of WebSocket offer in TLS, too.
        let tls = Tls::load(&config.http.tls, Protocol::WebSocket)
            .map_err(|error| ServeError(format!("[http]: {error}")))?;
        let users = Users::open(folder, config.http.login_expiry).map_err(ServeError)?;
        let failed = |error: crate::net::TlsError| ServeError(error.to_string());
        let chain = |listener| known.chain(config, listener).map_err(ServeError);
        let listener = workbench(address, config.all_allow_anonymous());
        let usual = Entrance::new(config, &listener, chain(&listener)?).map_err(failed)?;
        // Both are one listener.
        let listener = workbench(address, false);
        let named = Entrance::succeeding(&usual, config, &listener, chain(&listener)?);
        let workbench = Workbench {
            named: Arc::new(named.map_err(failed)?),
            usual: Arc::new(usual),
        };
        Ok(Http {
            address,
            port,
            settings: config.http.clone(),
            users: Arc::new(users),
            changing: Changing {
                address,
                tls: tls.map(Arc::new),
                workbench,
                bans: Arc::new(Bans::new(ban_settings(config))),
            },
        })
    }

    fn url(&self) -> String {
        let scheme = if self.changing.tls.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.address)
    }

    /// What commands of this machine are told.
    pub fn for_commands(&self) -> control::Http {
        control::Http {
            address: self.address,
            url: self.url(),
            users: self.users.clone(),
        }
    }

    /// Lets people in, within a runtime; `clients`: that of the clients of MQTT.
    ///
    /// # Errors
    /// The system's.
    pub fn listen(self, running: &Arc<Running>, clients: &Handle) -> Result<Open, ServeError> {
        let (closing, stopping) = watch::channel(false);
        let url = self.url();
        if let Some(tls) = &self.changing.tls {
            tls.log_days_left();
        }
        let has_tls = self.changing.tls.is_some();
        let users = self.users.clone();
        let shared = running.shared().clone();
        let state = State {
            started: shared.clock.now(),
            shared,
            tls: self.changing.tls.clone(),
            users: self.users,
            bans: self.changing.bans.clone(),
            operations: running.clone(),
            metrics: Metrics::new(&self.settings, clients),
            history: History::new(),
            events: Events::new(),
            host_names: host_names(&self.settings),
            stopping,
        };
        tokio::spawn(state.metrics.keep_probing());
        running.set_http(self.changing);
        let failed = |error| ServeError(format!("cannot listen on {url}: {error}"));
        let ended = self.port.listen(Arc::new(state)).map_err(failed)?;
        tracing::info!("HTTP: {url}");
        if !has_tls && !self.address.ip().is_loopback() {
            tracing::warn!(
                "passwords and tokens for {url} can be read on the way: set http.tls_certificate"
            );
        }
        if let Some(token) = users.offer_setup() {
            tracing::warn!(
                "nobody can log in at {url} yet: make the first admin at {url}/#/setup/{token}"
            );
        }
        Ok(Open { closing, ended })
    }
}

/// A port that people are let in by.
pub(super) struct Open {
    closing: watch::Sender<bool>,
    ended: JoinHandle<()>,
}

impl Open {
    /// Lets nobody in any more, and waits a moment for answers under way.
    pub async fn close(self) {
        self.closing.send_replace(true);
        _ = tokio::time::timeout(CLOSE_MAX, self.ended).await;
    }
}

impl Operations for Running {
    fn reload(&self) -> Result<Reloaded, ReloadError> {
        Running::reload(self)
    }

    fn settings(&self) -> Vec<Setting> {
        Running::settings(self)
    }

    fn logbook(&self) -> Option<&Arc<Logbook>> {
        Running::logbook(self)
    }

    fn listeners(&self) -> Vec<Listed> {
        Running::listed(self)
    }

    fn workbench(&self, may_be_anonymous: bool) -> Option<Arc<Entrance>> {
        Running::workbench(self, may_be_anonymous)
    }

    fn admitted(&self) -> Admitted {
        Running::admitted(self)
    }
}
