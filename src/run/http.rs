//! The HTTP port's part of a start: its address is taken early, what it needs is
//! read with the rest, and it is listened on last.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use super::{ServeError, control};
use crate::admin::{Events, History, Listed, Metrics, Port, State, Users, workbench};
use crate::authentication::{Bans, Chain, PasswordFile};
use crate::config::{Config, Listener, Protocol};
use crate::net::{Entrance, Shared, Tls};

/// A port that nobody is let in by yet.
pub(super) struct Http {
    pub address: SocketAddr,
    port: Port,
    tls: Option<Tls>,
    users: Arc<Users>,
    workbench: Arc<Entrance>,
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
        chain_for: impl FnOnce(&Listener) -> Result<Chain, ServeError>,
    ) -> Result<Http, ServeError> {
        let address = port.address();
        // HTTP is what clients of WebSocket offer in TLS, too.
        let tls = Tls::load(&config.http.tls, Protocol::WebSocket)
            .map_err(|error| ServeError(format!("[http]: {error}")))?;
        let users = Users::open(folder, config.http.login_expiry).map_err(ServeError)?;
        let listener = workbench(address);
        let chain = chain_for(&listener)?;
        let workbench = Entrance::new(config, &listener, chain);
        let workbench = workbench.map_err(|error| ServeError(error.to_string()))?;
        Ok(Http {
            address,
            port,
            tls,
            users: Arc::new(users),
            workbench: Arc::new(workbench),
        })
    }

    fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
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
        config: &Config,
        shared: &Arc<Shared>,
        listeners: Vec<Listed>,
        passwords: Option<Arc<PasswordFile>>,
        stopping: watch::Receiver<bool>,
    ) -> Result<(), ServeError> {
        let url = self.url();
        if let Some(tls) = &self.tls {
            tls.log_days_left();
        }
        let has_tls = self.tls.is_some();
        let users = self.users.clone();
        let state = State {
            shared: shared.clone(),
            tls: self.tls,
            users: self.users,
            bans: Bans::new(config.authentication.ban.clone()),
            listeners,
            workbench: self.workbench,
            access: config.access.clone(),
            allow_anonymous: config.allow_anonymous,
            passwords,
            started: shared.clock.now(),
            metrics: Metrics::new(&config.http),
            history: History::new(),
            events: Events::new(),
        };
        tokio::spawn(state.metrics.keep_probing());
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
