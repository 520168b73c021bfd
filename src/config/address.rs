//! Where a listener listens, and the networks that it knows.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// The path of a Unix socket has room for 108 bytes, a zero among them.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// An address that can be listened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Port 0 takes a free one.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// What an address has to be.
    pub const FORM: &str = "an IP address and a port or a Unix socket, as in \"127.0.0.1:1883\", \
                            \"[::1]:1883\" or \"unix:/run/rotamq/mqtt.sock\"";

    /// Whether clients of other machines reach it.
    pub fn is_reachable(&self) -> bool {
        match self {
            Address::Tcp(address) => !address.ip().to_canonical().is_loopback(),
            Address::Unix(_) => false,
        }
    }
}

/// The text says no address: a sentence that says what one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAddress;

impl fmt::Display for NoAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "must be {}", Address::FORM)
    }
}

impl std::error::Error for NoAddress {}

impl FromStr for Address {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Address, NoAddress> {
        match text.strip_prefix("unix:") {
            Some(path) => {
                let fits = (1..=UNIX_PATH_BYTES_MAX).contains(&path.len());
                let is_path = fits && !path.contains('\0');
                is_path.then(|| Address::Unix(path.into())).ok_or(NoAddress)
            }
            None => text.parse().map(Address::Tcp).map_err(|_| NoAddress),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Tcp(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    // At most as many as the address has.
    bits: u32,
}

impl Network {
    /// An IPv4 address counts as itself also where it comes mapped to IPv6.
    pub fn contains(self, address: IpAddr) -> bool {
        let same = |one: u128, other: u128, len: u32| {
            let differing = one ^ other;
            self.bits == 0 || differing >> (len - self.bits) == 0
        };
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                same(own.to_bits().into(), other.to_bits().into(), 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => same(own.to_bits(), other.to_bits(), 128),
            _ => false,
        }
    }
}

/// As in `10.0.0.0/8` or `::1`. `Err`: it is none.
impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Network, ()> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                (address, Some(bits.parse::<u32>().map_err(|_| ())?))
            }
            Some(_) => return Err(()),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| ())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        match bits.unwrap_or(most) {
            bits if bits <= most => Ok(Network { address, bits }),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}
