//! The HTTP port's part of a start: its address is taken early, what it needs is
//! read with the rest, and it is listened on last.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use super::known::Known;
use super::reload::Running;
use super::{ServeError, control};
use crate::admin::{
    Admitted, Events, History, Listed, Metrics, Operations, Port, State, Users, workbench,
};
use crate::authentication::Bans;
use crate::config::{Config, PortSettings, Protocol, ReloadError, Reloaded, Setting};
use crate::logbook::Logbook;
use crate::net::{Entrance, Tls};

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
    pub workbench: Arc<Entrance>,
    bans: Arc<Bans>,
}

impl Changing {
    /// Reads it again. What is given back is to be used when nothing else is
    /// wrong.
    ///
    /// # Errors
    /// A sentence.
    pub fn read_again(&self, config: &Config, known: &Known) -> Result<Changed, String> {
        let tls = Tls::load(&config.http.tls, Protocol::WebSocket)
            .map_err(|error| format!("certificates stay as they were: [http]: {error}"))?;
        let listener = workbench(self.address);
        let chain = known.chain(config, &listener)?;
        let entrance = Entrance::succeeding(&self.workbench, config, &listener, chain);
        let entrance = entrance.map_err(|error| error.to_string())?;
        Ok(Changed { tls, entrance })
    }

    /// This holds for who comes from now on.
    pub fn take(&mut self, changed: Changed, config: &Config) {
        if let (Some(tls), Some(read)) = (&self.tls, changed.tls) {
            tls.take(read);
            tls.log_days_left();
        }
        self.workbench = Arc::new(changed.entrance);
        self.bans.set(&config.authentication.ban);
    }
}

/// What was read again.
pub(crate) struct Changed {
    tls: Option<Tls>,
    entrance: Entrance,
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
        let listener = workbench(address);
        let chain = known.chain(config, &listener).map_err(ServeError)?;
        let workbench = Entrance::new(config, &listener, chain);
        let workbench = workbench.map_err(|error| ServeError(error.to_string()))?;
        Ok(Http {
            address,
            port,
            settings: config.http.clone(),
            users: Arc::new(users),
            changing: Changing {
                address,
                tls: tls.map(Arc::new),
                workbench: Arc::new(workbench),
                bans: Arc::new(Bans::new(config.authentication.ban.clone())),
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

    /// Lets clients in. Within a runtime.
    ///
    /// # Errors
    /// The system's.
    pub fn listen(
        self,
        running: &Arc<Running>,
        stopping: watch::Receiver<bool>,
    ) -> Result<(), ServeError> {
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
            metrics: Metrics::new(&self.settings),
            history: History::new(),
            events: Events::new(),
        };
        tokio::spawn(state.metrics.keep_probing());
        running.set_http(self.changing);
        let failed = |error| ServeError(format!("cannot listen on {url}: {error}"));
        self.port
            .listen(Arc::new(state), stopping)
            .map_err(failed)?;
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
        Ok(())
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

    fn workbench(&self) -> Option<Arc<Entrance>> {
        Running::workbench(self)
    }

    fn admitted(&self) -> Admitted {
        Running::admitted(self)
    }
}
