//! Who is at the other end of a connection, as far as its transport tells.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::CertificateDer;

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
    pub listener: Arc<str>,
}

impl Peer {
    /// Of a connection that came straight from there.
    pub fn new(address: PeerAddress, listener: Arc<str>) -> Peer {
        Peer {
            address,
            is_local: address.ip().is_none_or(|ip| ip.is_loopback()),
            tls: None,
            listener,
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

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAddress {
    Ip(SocketAddr),
    /// A process of this machine, by a Unix socket.
    Unix,
}

/// A [`PeerAddress`] that takes less room, for as long as the connection lasts;
/// an IPv6 address without scope and flow.
#[derive(Clone, Copy)]
pub struct PackedAddress {
    // Of IPv4 in its mapped form; `None`: by a Unix socket.
    ip: Option<[u8; 16]>,
    port: u16,
}

impl From<PeerAddress> for PackedAddress {
    fn from(address: PeerAddress) -> PackedAddress {
        match address {
            PeerAddress::Ip(address) => {
                let ip = match address.ip() {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                PackedAddress {
                    ip: Some(ip.octets()),
                    port: address.port(),
                }
            }
            PeerAddress::Unix => PackedAddress { ip: None, port: 0 },
        }
    }
}

impl PackedAddress {
    /// `None`: by a Unix socket.
    pub fn socket(self) -> Option<SocketAddr> {
        let ip = IpAddr::from(self.ip?).to_canonical();
        Some(SocketAddr::new(ip, self.port))
    }
}

impl fmt::Display for PackedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.socket().map_or(PeerAddress::Unix, PeerAddress::Ip);
        address.fmt(f)
    }
}

impl PeerAddress {
    /// `None`: by a Unix socket.
    pub fn socket(self) -> Option<SocketAddr> {
        PackedAddress::from(self).socket()
    }

    /// An IPv4 address as itself, also where it comes mapped to IPv6.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            PeerAddress::Ip(address) => Some(address.ip().to_canonical()),
            PeerAddress::Unix => None,
        }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerAddress::Ip(address) => address.fmt(f),
            PeerAddress::Unix => f.write_str("unix"),
        }
    }
}
