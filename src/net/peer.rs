//! Who is at the other end of a connection, as far as its transport tells.

use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::origin::{ListenerName, Origin};
pub use crate::origin::{PackedAddress, PeerAddress};

/// What the transport knows of a client before its CONNECT.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: PeerAddress,
    /// It runs on the broker's own machine, in nobody else's name: neither
    /// behind a PROXY header, nor as a web page in a browser.
    pub is_local: bool,
    /// `None`: what it sends and gets can be read on the way.
    pub tls: Option<TlsPeer>,
    /// The address that it came in by, as it is configured.
    pub listener: ListenerName,
}

impl Peer {
    /// Of a connection that came straight from there.
    pub fn new(address: PeerAddress, listener: ListenerName) -> Peer {
        Peer {
            address,
            is_local: address.ip().is_none_or(|ip| ip.is_loopback()),
            tls: None,
            listener,
        }
    }

    /// For the core to remember.
    pub fn origin(&self) -> Origin {
        Origin {
            address: self.address.into(),
            listener: self.listener.clone(),
        }
    }
}

/// What TLS tells of a client.
#[derive(Clone, Debug)]
pub struct TlsPeer {
    /// Its certificate in DER, which one of the listener's authorities has
    /// signed and not revoked, and whose key it has; `None`: it showed none.
    pub certificate: Option<CertificateDer<'static>>,
}
