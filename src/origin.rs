//! Where a connection comes from.
//!
//! Owns the forms of an address that the net reads and that sessions keep for
//! people. Nothing is decided here.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAddress {
    Ip(SocketAddr),
    /// A process of this machine, by a Unix socket.
    Unix,
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

/// A [`PeerAddress`] that takes less room, for as long as the connection lasts;
/// an IPv6 address without scope and flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// The address of a listener, as it is configured: one text for all who come by
/// it, and one word for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerName(Arc<Text>);

#[derive(Debug, PartialEq, Eq)]
struct Text(Box<str>);

impl ListenerName {
    pub fn new(address: impl Into<Box<str>>) -> ListenerName {
        ListenerName(Arc::new(Text(address.into())))
    }

    pub fn as_str(&self) -> &str {
        &self.0.0
    }

    /// Whether it is of the same listener: two may have the same address, as those
    /// of port 0 have.
    pub fn is_that_of(&self, other: &ListenerName) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Where a client comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub address: PackedAddress,
    pub listener: ListenerName,
}
