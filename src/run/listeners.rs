//! The listeners of a running broker: opened, given other settings, closed.
//!
//! Owns which there are. Who is let in by one, and how, is its [`Entrance`]'s.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::stopping;
use crate::config::{Address, Listener, Protocol};
use crate::net::{self, Bound, Entrance, Listening, Shared, SocketFile};
use crate::protocol::ReasonCode;
use crate::session::Close;

/// How often it is looked whether all connections of a listener that is gone
/// are closed: one may have been about to send its CONNECT.
const GONE_POLL: Duration = Duration::from_millis(50);

/// One that is listened on. Dropped, it is no more; its connections stay.
pub(super) struct OpenListener {
    /// Its settings, with the address as it is configured.
    pub configured: Listener,
    /// With the port that a port of 0 has become.
    pub address: Address,
    entrance: watch::Sender<Arc<Entrance>>,
    // Of a Unix socket; it goes before anybody else can want the path.
    file: Option<SocketFile>,
}

/// One that has its address, and lets nobody in yet.
pub(super) struct Opening {
    listening: Listening,
    opened: OpenListener,
}

impl Opening {
    /// Within a runtime.
    ///
    /// # Errors
    /// The system's.
    pub fn new(
        socket: Bound,
        configured: Listener,
        entrance: Arc<Entrance>,
    ) -> io::Result<Opening> {
        let (listening, address, file) = socket.listen()?;
        Ok(Opening {
            listening,
            opened: OpenListener {
                configured,
                address,
                entrance: watch::Sender::new(entrance),
                file,
            },
        })
    }

    /// Lets clients in from now on.
    pub fn open(self, runtime: &Handle, shared: &Arc<Shared>) -> OpenListener {
        let Opening { listening, opened } = self;
        tracing::info!(
            "listening on {}{}",
            opened.address,
            wrapping(&opened.configured)
        );
        if let Some(tls) = &opened.entrance().tls {
            tls.log_days_left();
        }
        let entrance = opened.entrance.subscribe();
        runtime.spawn(net::accept(listening, entrance, shared.clone()));
        opened
    }
}

impl OpenListener {
    pub fn entrance(&self) -> Arc<Entrance> {
        self.entrance.borrow().clone()
    }

    /// Clients that come from now on find these settings.
    pub fn change(&mut self, configured: Listener, entrance: Arc<Entrance>) {
        if let Some(file) = &self.file
            && configured.unix_mode != self.configured.unix_mode
            && let Err(error) = file.set_mode(configured.unix_mode)
        {
            let address = &self.address;
            tracing::error!(%address, %error, "the permissions of the socket cannot be changed");
        }
        self.configured = configured;
        self.entrance.send_replace(entrance.clone());
        if let Some(tls) = &entrance.tls {
            tls.log_days_left();
        }
    }

    /// Listens no more, and closes its connections.
    pub fn close(self, runtime: &Handle, shared: &Arc<Shared>) {
        let (entrance, address) = (self.entrance(), self.address.clone());
        drop(self);
        tracing::info!("not listening on {address} any more");
        let shared = shared.clone();
        runtime.spawn(async move {
            let why = "the listener that the client came by is gone";
            let close = Close::new(ReasonCode::AdministrativeAction, why);
            while entrance.connections_len() > 0 && !shared.is_stopping() {
                stopping::close_in_slices(&shared, &close, Some(entrance.name())).await;
                tokio::time::sleep(GONE_POLL).await;
            }
        });
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
