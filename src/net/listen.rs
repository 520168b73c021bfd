//! Sockets that are listened on: TCP and Unix, and the file of the latter.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, fchmod};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::PeerAddress;
use crate::config::Address;

/// Connections that wait in the kernel to be accepted.
const BACKLOG: i32 = 4096;

/// A socket that is listened on.
pub enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection as it was accepted.
pub enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A socket that has its address. Nobody can connect to one of TCP yet; clients
/// of a Unix socket wait, as it would be taken for a stale one if it refused them.
pub struct Bound {
    socket: Socket,
    address: Address,
    file: Option<SocketFile>,
}

impl Bound {
    /// Takes `address`; `unix_mode` are the permissions of a Unix socket.
    ///
    /// A socket file that nobody listens on is replaced.
    ///
    /// # Errors
    /// The system's: the address is taken, or is not ours to take; or there is
    /// another file than a socket.
    pub fn new(address: &Address, unix_mode: u32) -> io::Result<Bound> {
        match address {
            Address::Tcp(address) => {
                let socket = bind_tcp(*address)?;
                // With the port that a port of 0 has become.
                let address = socket.local_addr()?.as_socket().unwrap_or(*address);
                Ok(Bound {
                    socket,
                    address: address.into(),
                    file: None,
                })
            }
            Address::Unix(path) => Ok(Bound {
                socket: bind_unix(path, unix_mode)?,
                address: address.clone(),
                file: Some(SocketFile(path.clone())),
            }),
        }
    }

    /// With the port that a port of 0 has become.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The file of a Unix socket.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.0.as_path())
    }

    /// Lets clients connect; also says where, and what file is to be removed
    /// with the broker. Within a runtime.
    ///
    /// # Errors
    /// The system's.
    pub fn listen(self) -> io::Result<(Listening, Address, Option<SocketFile>)> {
        let listening = match self.address {
            Address::Tcp(_) => {
                self.socket.listen(BACKLOG)?;
                Listening::Tcp(TcpListener::from_std(self.socket.into())?)
            }
            Address::Unix(_) => Listening::Unix(UnixListener::from_std(self.socket.into())?),
        };
        Ok((listening, self.address, self.file))
    }
}

impl Listening {
    pub async fn accept(&self) -> io::Result<(Accepted, PeerAddress)> {
        match self {
            Listening::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok((Accepted::Tcp(stream), PeerAddress::Ip(address)))
            }
            Listening::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Accepted::Unix(stream), PeerAddress::Unix))
            }
        }
    }
}

/// A file itself, whatever its name leads to later: who may write to the folder
/// cannot have root change another file.
pub struct Inode(fs::File);

impl Inode {
    /// # Errors
    /// The system's; or it is no socket.
    pub fn of_socket(path: &Path) -> io::Result<Inode> {
        let inode = Inode::open(path)?;
        match inode.0.metadata()?.file_type().is_socket() {
            true => Ok(inode),
            false => Err(io::Error::other("another file took the socket's place")),
        }
    }

    /// # Errors
    /// The system's; or it is no folder.
    pub fn of_folder(path: &Path) -> io::Result<Inode> {
        let inode = Inode::open(path)?;
        match inode.0.metadata()?.is_dir() {
            true => Ok(inode),
            false => Err(ErrorKind::NotADirectory.into()),
        }
    }

    fn open(path: &Path) -> io::Result<Inode> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        options.custom_flags(libc::O_PATH | libc::O_NOFOLLOW);
        options.open(path).map(Inode)
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        fs::set_permissions(self.path(), fs::Permissions::from_mode(mode))
    }

    /// # Errors
    /// The system's.
    pub fn set_owner(&self, uid: u32, gid: u32) -> io::Result<()> {
        chown(self.path(), Some(uid), Some(gid))
    }

    // The only name that cannot lead to anything else.
    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}

/// The file of a socket that we listen on; dropping it removes it.
pub struct SocketFile(PathBuf);

impl SocketFile {
    /// Who may write it may connect.
    ///
    /// # Errors
    /// The system's; or it is not there any more.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        Inode::of_socket(&self.0)?.set_mode(mode)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The next broker replaces it, if this fails.
        _ = fs::remove_file(&self.0);
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // Restarting must not wait for old connections to time out.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into()).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied if address.port() < 1024 => io::Error::new(
            ErrorKind::PermissionDenied,
            "ports below 1024 are for root, and for who has the capability CAP_NET_BIND_SERVICE",
        ),
        _ => error,
    })?;
    Ok(socket)
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<Socket> {
    let address = SockAddr::unix(path)?;
    remove_stale(path, &address)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    // The file is made with these permissions, less the process's umask: so
    // nobody else can connect before it has the right ones.
    fchmod(&socket, Mode::from_raw_mode(mode))?;
    socket.bind(&address)?;
    Inode::of_socket(path)?.set_mode(mode)?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Removes the file of a socket that a process left behind which was killed.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(file) if !file.file_type().is_socket() => {
            let what = "there is a file that is no socket";
            return Err(io::Error::new(ErrorKind::AlreadyExists, what));
        }
        Ok(_) => {}
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Whoever listens and has a full backlog is not to be waited for.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
        _ => Err(io::Error::new(
            ErrorKind::AddrInUse,
            "another process listens there",
        )),
    }
}
