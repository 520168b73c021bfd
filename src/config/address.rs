//! Where a listener listens, the networks that it knows, and where services of
//! the operator's are.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use hyper::Uri;
use hyper::http::uri::Scheme;

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

/// Where a service is that is asked by HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAddress(Uri);

impl HttpAddress {
    /// What it has to be.
    pub const FORM: &str =
        "an address by https:// or http://, as in \"https://auth.example.org/mqtt\"";

    pub fn is_tls(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }

    /// A name, or an IP address, of IPv6 without brackets.
    pub fn host(&self) -> &str {
        let host = self.0.host().unwrap_or_default();
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        bare.unwrap_or(host)
    }

    pub fn port(&self) -> u16 {
        let usual = if self.is_tls() { 443 } else { 80 };
        self.0.port_u16().unwrap_or(usual)
    }

    /// Host and port, as the header Host has them.
    pub fn authority(&self) -> &str {
        self.0
            .authority()
            .map_or("", |authority| authority.as_str())
    }

    /// The path, and what follows it.
    pub fn path(&self) -> &str {
        self.0.path_and_query().map_or("/", |path| path.as_str())
    }

    /// For logs: what follows a `?` may be a secret.
    pub fn without_query(&self) -> String {
        let text = self.0.to_string();
        match text.split_once('?') {
            Some((address, _)) => address.to_owned(),
            None => text,
        }
    }

    /// Whether others than this machine may read what goes there.
    pub fn is_readable_on_the_way(&self) -> bool {
        let is_here = match self.host().parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => self.host() == "localhost",
        };
        !self.is_tls() && !is_here
    }
}

/// `Err`: it is none.
impl FromStr for HttpAddress {
    type Err = ();

    fn from_str(text: &str) -> Result<HttpAddress, ()> {
        let uri: Uri = text.parse().map_err(|_| ())?;
        let is_http = uri
            .scheme()
            .is_some_and(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme));
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let has_host = uri.host().is_some_and(|host| !host.is_empty());
        // `Uri` lets a port be that is none, a user, and what follows a #.
        let has_port = uri.host() == Some(authority) || uri.port_u16().is_some();
        let is_whole = has_port && !authority.contains('@') && !text.contains('#');
        match is_http && has_host && is_whole {
            true => Ok(HttpAddress(uri)),
            false => Err(()),
        }
    }
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
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
