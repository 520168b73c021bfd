//! One client's socket, with TLS or without.
//!
//! Without, bytes go to the socket and come from it as they are, by buffers that
//! all connections of a thread share. Owns what a full socket has not taken;
//! waits for nothing.

use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;
use socket2::SockRef;
use tokio_rustls::rustls::HandshakeKind;
use tokio_rustls::rustls::client::{ClientConfig, ClientConnection, Resumption};
use tokio_rustls::rustls::pki_types::ServerName;

use crate::cli::tls::{self, TlsArguments};

const INPUT_BYTES: usize = 256 * 1024;
/// What TLS adds to a short message: header, kind and tag of one record.
const RECORD_BYTES: usize = 22;

/// How TLS is spoken, where it is.
#[derive(Clone, Debug)]
pub struct Secure {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Secure {
    /// As the arguments say, with a broker of this name; `resumes`: by the
    /// sessions that it had before, as far as it remembers them.
    ///
    /// # Errors
    /// What is wrong with the files, or the name.
    pub fn new(
        arguments: &TlsArguments,
        host: &str,
        resumes: bool,
    ) -> Result<Option<Secure>, String> {
        let Some(mut config) = arguments.read()? else {
            return Ok(None);
        };
        if !resumes {
            config.resumption = Resumption::disabled();
        }
        Ok(Some(Secure {
            config: Arc::new(config),
            name: tls::server_name(host)?,
        }))
    }

    /// For one client, which remembers its own session, and is not given
    /// another one's.
    pub fn of_one_client(&self, resumes: bool) -> Secure {
        let mut config = ClientConfig::clone(&self.config);
        if resumes {
            config.resumption = Resumption::in_memory_sessions(1);
        }
        Secure {
            config: Arc::new(config),
            name: self.name.clone(),
        }
    }
}

/// Buffers to read into, for all connections of a thread.
pub struct Input {
    raw: Box<[u8]>,
    /// What `raw` says, where it is encrypted.
    plain: Vec<u8>,
}

impl Input {
    pub fn new() -> Input {
        Input {
            raw: vec![0; INPUT_BYTES].into_boxed_slice(),
            plain: Vec::new(),
        }
    }
}

/// What one read has brought.
pub struct Arrived<'a> {
    pub bytes: &'a [u8],
    /// There was room for no more.
    pub is_full: bool,
}

/// The socket of one client.
pub struct Wire {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// What the socket has not taken yet.
    pending: Vec<u8>,
}

impl Wire {
    pub fn new(socket: TcpStream, secure: Option<&Secure>) -> Result<Wire, String> {
        let tls = match secure {
            None => None,
            Some(Secure { config, name }) => {
                let connection = ClientConnection::new(config.clone(), name.clone());
                let mut connection =
                    connection.map_err(|error| format!("cannot set up TLS: {error}"))?;
                // Whoever writes too much is held back by what is pending.
                connection.set_buffer_limit(None);
                Some(Box::new(connection))
            }
        };
        Ok(Wire {
            socket,
            tls,
            pending: Vec::new(),
        })
    }

    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// The bare socket; with TLS it says nothing that anybody understands.
    pub fn into_socket(self) -> TcpStream {
        self.socket
    }

    /// How many bytes wait for the socket, which is full.
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Whether a session of TLS from before was resumed.
    pub fn is_resumed(&self) -> bool {
        let kind = self.tls.as_ref().and_then(|tls| tls.handshake_kind());
        kind == Some(HandshakeKind::Resumed)
    }

    /// Writes, as soon as [`Wire::flush`] is called: the socket may not be
    /// connected yet.
    pub fn queue(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            None => self.pending.extend_from_slice(bytes),
            Some(tls) => encrypt(tls, bytes, &mut self.pending)?,
        }
        Ok(())
    }

    /// Writes, or keeps what the socket does not take.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            None => self.send(bytes),
            Some(tls) => {
                let mut encrypted = Vec::with_capacity(bytes.len() + RECORD_BYTES);
                encrypt(tls, bytes, &mut encrypted)?;
                self.send(&encrypted)
            }
        }
    }

    /// Writes what was kept; `keeps_room`: and has room for as much again.
    pub fn flush(&mut self, keeps_room: bool) -> io::Result<()> {
        let pending = std::mem::take(&mut self.pending);
        self.send(&pending)?;
        if self.pending.is_empty() && keeps_room {
            self.pending = pending;
            self.pending.clear();
        }
        Ok(())
    }

    /// Reads once.
    ///
    /// # Errors
    /// Those of the socket, [`ErrorKind::WouldBlock`] among them, and of TLS,
    /// which [`tls::explain`] knows; [`ErrorKind::UnexpectedEof`]: the other
    /// side has closed.
    pub fn read<'a>(&mut self, input: &'a mut Input) -> io::Result<Arrived<'a>> {
        let Input { raw, plain } = input;
        let read = match self.socket.read(raw)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => read,
        };
        let is_full = read == raw.len();
        let Some(tls) = &mut self.tls else {
            let bytes = &raw[..read];
            return Ok(Arrived { bytes, is_full });
        };
        plain.clear();
        let decrypted = decrypt(tls, &raw[..read], plain);
        if tls.wants_write() {
            // The rest of the handshake, with what was queued behind it; or what
            // was wrong, which is told as far as it goes.
            let written = self.write(&[]);
            decrypted?;
            written?;
        } else {
            decrypted?;
        }
        Ok(Arrived {
            bytes: plain,
            is_full,
        })
    }

    /// The client says nothing more, and TLS says so.
    pub fn end(&mut self) -> io::Result<()> {
        match &mut self.tls {
            None => Ok(()),
            Some(tls) => {
                tls.send_close_notify();
                self.write(&[])
            }
        }
    }

    /// Closes at once and without a word, as if the client had lost its network:
    /// the broker is told of it, and neither side keeps the port.
    pub fn cut(self) -> io::Result<()> {
        SockRef::from(&self.socket).set_linger(Some(Duration::ZERO))
    }

    fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while self.pending.is_empty() && !bytes.is_empty() {
            match self.socket.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // What is still to be read may say why.
                Err(error) if is_closed(&error) => bytes = &[],
                Err(error) => return Err(error),
            }
        }
        self.pending.extend_from_slice(bytes);
        Ok(())
    }
}

/// Whether the other side has closed.
pub fn is_closed(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), ConnectionReset | BrokenPipe | UnexpectedEof)
}

/// Appends what TLS makes of `bytes`, and what else it has to say. Before the
/// handshake is over it keeps them to itself.
fn encrypt(tls: &mut ClientConnection, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    tls.writer().write_all(bytes)?;
    while tls.wants_write() {
        tls.write_tls(out)?;
    }
    Ok(())
}

/// Appends what `input` says, as far as its last whole record.
fn decrypt(tls: &mut ClientConnection, mut input: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
    // After the other side's last word it takes nothing more.
    while !input.is_empty() && tls.read_tls(&mut input)? > 0 {
        let state = tls
            .process_new_packets()
            .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        let mut left = state.plaintext_bytes_to_read();
        let mut reader = tls.reader();
        while left > 0 {
            let chunk = reader.fill_buf()?;
            let taken = chunk.len();
            plain.extend_from_slice(chunk);
            reader.consume(taken);
            left -= taken;
        }
    }
    Ok(())
}
