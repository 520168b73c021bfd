//! The HTTP port, for those who run the broker: dashboard, API, metrics.
//!
//! Owns the port, who may use it, and how answers look. What is shown and done
//! is the core's: handlers ask [`Shared`], and know nothing that it does not.

mod api;
mod assets;
mod events;
mod guard;
mod health;
mod history;
mod metrics;
mod page;
mod problem;
mod server;
mod users;
mod workbench;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use crate::authentication::{Bans, PasswordFile};
use crate::config::{AccessSettings, Address, Listener, Protocol, ReloadError, Reloaded, Setting};
use crate::journal::Receipt;
use crate::logbook::Logbook;
use crate::message::Time;
use crate::net::{Entrance, Shared, Tls};

pub(crate) use events::Events;
pub(crate) use history::History;
pub(crate) use metrics::Metrics;
use problem::Problem;
pub(crate) use server::Port;
pub(crate) use users::Users;

/// Below which all of the API is.
const API: &str = "/api/v1";

/// What all handlers share.
pub(crate) struct State {
    pub shared: Arc<Shared>,
    /// `None`: what is said here can be read on the way.
    pub tls: Option<Arc<Tls>>,
    pub users: Arc<Users>,
    /// Addresses of which too many logins have failed.
    pub bans: Arc<Bans>,
    pub operations: Arc<dyn Operations>,
    pub started: Time,
    pub metrics: Metrics,
    pub history: History,
    pub events: Events,
    /// Names by which the port may be asked for.
    pub host_names: Vec<String>,
    /// Turns true when the port closes, which it does last.
    pub stopping: watch::Receiver<bool>,
}

impl State {
    /// Waits until what was done is stored: only then it is answered.
    ///
    /// # Errors
    /// It never will be: the disk has failed.
    async fn stored(&self, receipt: Receipt) -> Result<(), Problem> {
        let stored = self.shared.stored(receipt).await;
        stored.map_err(|failed| Problem::unavailable(format!("it is not stored: {failed}")))
    }
}

/// Does something to its end, even if who asked for it is gone meanwhile: a
/// handler is dropped then. What it holds for that time goes into it. `None`: the
/// broker stops.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    tokio::spawn(work).await.ok()
}

/// What whoever has started the broker can do, and the core cannot.
pub(crate) trait Operations: Send + Sync {
    /// Reads the configuration again. Not to be called from an async task.
    ///
    /// # Errors
    /// All that is wrong: then nothing is changed.
    fn reload(&self) -> Result<Reloaded, ReloadError>;

    /// All values that hold, without what may be secret.
    fn settings(&self) -> Vec<Setting>;

    /// The log; `None`: it is that of the program that the broker is within.
    fn logbook(&self) -> Option<&Arc<Logbook>>;

    /// The listeners of MQTT.
    fn listeners(&self) -> Vec<Listed>;

    /// By which clients of MQTT come in at `/mqtt`, without a name if they may and
    /// anybody may; `None`: not yet.
    fn workbench(&self, may_be_anonymous: bool) -> Option<Arc<Entrance>>;

    /// Who may do what among clients of MQTT.
    fn admitted(&self) -> Admitted;
}

/// Where it is said who may do what among clients of MQTT.
pub(crate) struct Admitted {
    pub access: AccessSettings,
    pub allow_anonymous: bool,
    pub passwords: Option<Arc<PasswordFile>>,
}

/// A listener, as the API tells of it.
pub(crate) struct Listed {
    /// With the port that a port of 0 has become.
    pub address: Address,
    pub protocol: Protocol,
    pub entrance: Arc<Entrance>,
}

/// What clients of MQTT find at `/mqtt`: a listener by WebSocket with nothing of
/// its own. TLS is the port's.
pub(crate) fn workbench(address: SocketAddr, allow_anonymous: bool) -> Listener {
    let mut listener = Listener::new(address.into());
    listener.protocol = Protocol::WebSocket;
    listener.allow_anonymous = Some(allow_anonymous);
    listener
}

/// So much of a text of somebody else's as belongs into a line of the log.
fn cut(text: &str) -> &str {
    const LOGGED_BYTES_MAX: usize = 256;
    &text[..text.floor_char_boundary(LOGGED_BYTES_MAX)]
}
