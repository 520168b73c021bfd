//! The PROXY protocol, versions 1 and 2: what a proxy says of the client
//! before it passes the client's bytes on.
//!
//! Owns the header and nothing behind it. [`parse`] is pure and takes any
//! bytes; whether a proxy is to be believed is decided by who calls it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// A header of version 1, its line end included.
const TEXT_BYTES_MAX: usize = 107;
/// A header of version 2: proxies that pass certificates on need some thousand.
pub const HEADER_BYTES_MAX: usize = 4096;

const TEXT_BEGIN: &[u8] = b"PROXY ";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and protocol, length.
const FIXED_BYTES: usize = 16;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The client's address; `None`: the proxy speaks for itself, or for a
    /// client without IP address.
    pub client: Option<SocketAddr>,
    /// The header's length in bytes, at most [`HEADER_BYTES_MAX`].
    pub len: usize,
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// The header at the beginning of `bytes`; `None`: it may become one, and all
/// of `bytes` would be of it.
///
/// # Errors
/// No header begins so.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let begins = |with: &[u8]| {
        let len = bytes.len().min(with.len());
        bytes[..len] == with[..len]
    };
    if begins(SIGNATURE) {
        parse_binary(bytes)
    } else if begins(TEXT_BEGIN) {
        parse_text(bytes)
    } else {
        Err(Malformed("it does not begin as a PROXY header does"))
    }
}

fn parse_text(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let seen = &bytes[..bytes.len().min(TEXT_BYTES_MAX)];
    let Some(end) = seen.windows(2).position(|two| two == b"\r\n") else {
        return match seen.len() {
            TEXT_BYTES_MAX => Err(Malformed("the PROXY line is too long")),
            _ => Ok(None),
        };
    };
    let header = |client| {
        Some(Header {
            client,
            len: end + 2,
        })
    };
    let line =
        std::str::from_utf8(&seen[..end]).map_err(|_| Malformed("the PROXY line is no text"))?;
    let words: Vec<&str> = line.split(' ').collect();
    let client = match words[1..] {
        // What follows means nothing.
        ["UNKNOWN", ..] => return Ok(header(None)),
        ["TCP4", from, to, port, to_port] => text_client::<Ipv4Addr>(from, to, port, to_port),
        ["TCP6", from, to, port, to_port] => text_client::<Ipv6Addr>(from, to, port, to_port),
        _ => None,
    };
    match client {
        Some(client) => Ok(header(Some(client))),
        None => Err(Malformed("the PROXY line says no addresses and ports")),
    }
}

/// The client's address and port, if the proxy's are well written too.
fn text_client<A: FromStr + Into<IpAddr>>(
    from: &str,
    to: &str,
    from_port: &str,
    to_port: &str,
) -> Option<SocketAddr> {
    let port = |text: &str| {
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let is_plain = is_number && (text == "0" || !text.starts_with('0'));
        is_plain.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (from, _) = (from.parse::<A>().ok()?, to.parse::<A>().ok()?);
    let (from_port, _) = (port(from_port)?, port(to_port)?);
    Some(SocketAddr::new(from.into(), from_port))
}

fn parse_binary(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED_BYTES) else {
        return Ok(None);
    };
    let (version, command, family) = (fixed[12] >> 4, fixed[12] & 0xF, fixed[13]);
    let rest_len = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let len = FIXED_BYTES + rest_len;
    // The local command, and the one that speaks for a client.
    if version != 2 || command > 1 {
        return Err(Malformed(
            "the PROXY header has an unknown version or command",
        ));
    }
    if len > HEADER_BYTES_MAX {
        return Err(Malformed("the PROXY header is too long"));
    }
    let Some(rest) = rest.get(..rest_len) else {
        return Ok(None);
    };
    let is_local = command == 0;
    let (client, addresses_len) = match family {
        0x00 => (None, 0),
        0x11 => (binary_client::<4>(rest), 12),
        0x21 => (binary_client::<16>(rest), 36),
        // A Unix socket's, which says nothing of who it was.
        0x31 => (None, 216),
        _ if is_local => (None, 0),
        _ => return Err(Malformed("the PROXY header speaks for no stream")),
    };
    match rest.get(addresses_len..) {
        // Whatever a proxy says of itself means nothing.
        _ if is_local => {}
        // Without a family, whatever follows is of an unknown form.
        Some(_) if family == 0 => {}
        Some(values) if are_whole(values) => {}
        Some(_) => return Err(Malformed("a value in the PROXY header is longer than it")),
        None => return Err(Malformed("the PROXY header is too short for its addresses")),
    }
    let client = client.filter(|_| !is_local);
    Ok(Some(Header { client, len }))
}

/// The first address and port of a block of addresses of `LEN` bytes.
fn binary_client<const LEN: usize>(block: &[u8]) -> Option<SocketAddr>
where
    IpAddr: From<[u8; LEN]>,
{
    let address: [u8; LEN] = *block.first_chunk()?;
    let port = block.get(2 * LEN..)?.first_chunk()?;
    Some(SocketAddr::new(address.into(), u16::from_be_bytes(*port)))
}

/// Whether these are type, length and value, again and again.
fn are_whole(mut values: &[u8]) -> bool {
    while let [_, high, low, rest @ ..] = values {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        match rest.get(len..) {
            Some(rest) => values = rest,
            None => return false,
        }
    }
    values.is_empty()
}

/// Reads the header, and not a byte of what is behind it.
///
/// # Errors
/// The connection is lost, or there is something else.
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Header> {
    let mut header = Vec::new();
    let mut buffer = [0; 512];
    loop {
        let count = stream.peek(&mut buffer).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = header.len();
        header.extend_from_slice(&buffer[..count]);
        let parsed = parse(&header);
        let parsed = parsed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.0))?;
        let len = parsed.map_or(header.len(), |header| header.len);
        stream.read_exact(&mut buffer[..len - before]).await?;
        if let Some(header) = parsed {
            return Ok(header);
        }
    }
}
