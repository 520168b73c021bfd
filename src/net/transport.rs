//! From an accepted connection to a stream of MQTT: PROXY header, TLS,
//! WebSocket, as the listener has them.
//!
//! Owns their order and who is believed. Knows nothing of MQTT.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use super::listen::Accepted;
use super::tls::{ReadAhead, Tls, TlsError};
use super::websocket::{self, WebSocket};
use super::{Peer, PeerAddress, Place, Scope, Shared, proxy};
use crate::authentication::Chain;
use crate::broker::Door;
use crate::bucket::Bucket;
use crate::config::{Config, Listener, Network, Protocol, Rates, WebSocketSettings};
use crate::origin::ListenerName;

/// What a connection reads and writes MQTT on.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
    /// The client is in, and may send packets of so many bytes.
    fn admit(&mut self, _packet_bytes_max: usize) {}
}

impl Stream for TcpStream {}
impl Stream for UnixStream {}
impl Stream for TokioIo<Upgraded> {}
impl Stream for TlsStream<ReadAhead> {}

impl Stream for Box<dyn Stream> {
    fn admit(&mut self, packet_bytes_max: usize) {
        (**self).admit(packet_bytes_max);
    }
}

impl Stream for WebSocket<Box<dyn Stream>> {
    fn admit(&mut self, packet_bytes_max: usize) {
        self.set_packet_bytes_max(packet_bytes_max);
    }
}

/// How clients of one listener come in.
pub struct Entrance {
    /// What holds for them from CONNECT on.
    pub door: Arc<Door>,
    /// Who is asked there who a client is.
    pub chain: Chain,
    // Open connections that came by it, whatever its settings were then.
    connections: Arc<AtomicUsize>,
    /// As it is configured.
    address: ListenerName,
    rates: Rates,
    proxy_trusted: Vec<Network>,
    pub tls: Option<Tls>,
    websocket: Option<WebSocketSettings>,
    /// Connections a second; `None`: as many as come.
    pub accepts: Option<Mutex<Bucket>>,
    /// What all its clients share; `None`: they have no rates together.
    pub scope: Option<Arc<Scope>>,
}

/// A stream that is ready for CONNECT: plain TCP as it is, what has more to it
/// in a box.
pub enum Ready {
    Tcp(TcpStream),
    Boxed(Box<dyn Stream>),
}

impl Entrance {
    /// # Errors
    /// What is wrong with the listener's certificates.
    pub fn new(config: &Config, listener: &Listener, chain: Chain) -> Result<Entrance, TlsError> {
        Ok(Entrance {
            door: Arc::new(Door::new(config, listener)),
            chain,
            connections: Arc::default(),
            address: ListenerName::new(listener.address.to_string()),
            rates: listener.rates.clone(),
            proxy_trusted: listener.proxy_trusted.clone(),
            tls: Tls::load(&listener.tls, listener.protocol)?,
            websocket: match listener.protocol {
                Protocol::Mqtt => None,
                Protocol::WebSocket => Some(listener.websocket.clone()),
            },
            accepts: super::accepts(listener.connections_per_sec_max),
            scope: Scope::new(&listener.rates),
        })
    }

    /// The same listener as `before`, with other settings: those who came by it
    /// count here too, and share its rates as long as these are the same.
    ///
    /// # Errors
    /// Those of [`Entrance::new`].
    pub fn succeeding(
        before: &Entrance,
        config: &Config,
        listener: &Listener,
        chain: Chain,
    ) -> Result<Entrance, TlsError> {
        let mut entrance = Entrance::new(config, listener, chain)?;
        entrance.connections = before.connections.clone();
        if entrance.rates == before.rates {
            entrance.scope.clone_from(&before.scope);
        }
        entrance.address.clone_from(&before.address);
        Ok(entrance)
    }

    /// Goes through all that comes before MQTT; `None`: the client did not get
    /// through, and was told so if there was a way to. `place`: among those that
    /// are not through, which clients behind a proxy get when that has said who
    /// they are.
    pub async fn open(
        &self,
        accepted: Accepted,
        address: PeerAddress,
        place: &mut Place,
        shared: &Shared,
    ) -> Option<(Ready, Peer)> {
        let mut peer = self.peer(address);
        let refused = |peer: PeerAddress, what: &str, error: &io::Error| match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                tracing::debug!(%peer, %error, "lost before CONNECT");
            }
            _ => {
                shared.core.counters().connections_refused.increment();
                shared.core.counters().refused_other.increment();
                tracing::info!(%peer, why = %error, "{what}");
            }
        };
        let mut stream: Box<dyn Stream> = match accepted {
            Accepted::Tcp(mut stream) => {
                if self.trusts(address) {
                    match proxy::read(&mut stream).await {
                        Ok(header) => {
                            behind_proxy(&mut peer, &header);
                            *place = super::enter(peer.address, shared)?;
                        }
                        Err(error) => {
                            refused(address, "PROXY header refused", &error);
                            return None;
                        }
                    }
                }
                if self.tls.is_none() && self.websocket.is_none() {
                    return Some((Ready::Tcp(stream), peer));
                }
                Box::new(stream)
            }
            Accepted::Unix(stream) => Box::new(stream),
        };
        if let Some(tls) = &self.tls {
            match tls.accept(stream, &shared.handshakes).await {
                Ok((encrypted, of_tls)) => {
                    peer.tls = Some(of_tls);
                    stream = Box::new(encrypted);
                }
                Err(error) => {
                    refused(peer.address, "TLS refused", &error);
                    return None;
                }
            }
        }
        if let Some(settings) = &self.websocket {
            let bytes_max = self.door.connect_packet_bytes_max();
            match websocket::accept(stream, settings, bytes_max).await {
                Ok((upgraded, of_browser)) => {
                    // A page that somebody on this machine looks at is not that person.
                    peer.is_local &= !of_browser;
                    stream = Box::new(upgraded);
                }
                Err(error) => {
                    refused(peer.address, "WebSocket refused", &error);
                    return None;
                }
            }
        }
        Some((Ready::Boxed(stream), peer))
    }

    /// Whether nothing comes before CONNECT of who comes from there by TCP.
    pub fn is_plain(&self, address: PeerAddress) -> bool {
        self.tls.is_none() && self.websocket.is_none() && !self.trusts(address)
    }

    /// What its connections say that they came by.
    pub fn name(&self) -> &ListenerName {
        &self.address
    }

    /// Who comes from there, before it has said a word.
    pub fn peer(&self, address: PeerAddress) -> Peer {
        Peer::new(address, self.address.clone())
    }

    /// Open connections that came by it, before CONNECT or after.
    pub fn connections_len(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// One connection more.
    pub fn enter(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub fn leave(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether who connects from there is a proxy of ours.
    pub fn trusts(&self, address: PeerAddress) -> bool {
        match address {
            PeerAddress::Ip(address) => {
                let mut networks = self.proxy_trusted.iter();
                networks.any(|network| network.contains(address.ip()))
            }
            PeerAddress::Unix => false,
        }
    }
}

/// The client is whom the proxy says, and nobody of this machine, whatever its
/// address.
fn behind_proxy(peer: &mut Peer, header: &proxy::Header) {
    peer.is_local = false;
    if let Some(client) = header.client {
        peer.address = PeerAddress::Ip(client);
    }
}
