//! The socket by which commands talk to the broker that runs on a data folder:
//! a line of JSON in, a line of JSON out.
//!
//! Owns the socket's file, the two lines, and where a backup goes. What a copy
//! is, is the store's. Only who may read the data folder gets here.

use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

use super::ServeError;
use super::reload::Running;
use crate::admin::Users;
use crate::config::Reloaded;
use crate::net::Shared;
use crate::store::backup::{BackupError, Copied, Target};

const SOCKET: &str = "control.sock";

/// Of a request: a path and some words fit.
const LINE_BYTES_MAX: u64 = 64 << 10;
/// Of an answer: what has changed of a long configuration.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// How long a request may take to come.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The path of a socket has room for 108 bytes, a zero among them.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// What a command asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    /// A copy of the store in a folder that is empty or still to be made; the
    /// path is absolute.
    Backup { to: PathBuf },
    /// The configuration is to be read again.
    Reload,
    /// Where the HTTP port is, and a token for it that soon expires.
    Http,
}

/// What the broker says to that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    BackedUp {
        files: usize,
        bytes: u64,
    },
    Http {
        address: String,
        token: String,
    },
    Reloaded(Reloaded),
    /// Nothing was changed, because of all of this.
    NotReloaded {
        problems: Vec<String>,
    },
    Error(String),
}

/// The broker's end. The socket's file goes with it.
pub(super) struct Control {
    path: PathBuf,
}

impl Control {
    /// Listens in a data folder that is locked by us, so that a socket which
    /// is there is nobody's.
    ///
    /// # Errors
    /// A sentence: the socket cannot be made.
    pub fn start(
        folder: &Path,
        runtime: &tokio::runtime::Runtime,
        shared: &Arc<Shared>,
        (running, http): (Arc<Running>, Option<Http>),
    ) -> Result<Control, ServeError> {
        let path = folder.join(SOCKET);
        let failed = |error| {
            let shown = path.display();
            ServeError(format!("cannot make the socket {shown}: {error}"))
        };
        let listener = listen(folder, &path).map_err(failed)?;
        let control = Control { path: path.clone() };
        let _in_runtime = runtime.enter();
        let listener = tokio::net::UnixListener::from_std(listener).map_err(failed)?;
        let asked = Arc::new(Asked {
            shared: shared.clone(),
            running,
            http,
        });
        runtime.spawn(accept(listener, asked));
        Ok(control)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // The next broker replaces it, if this fails.
        _ = fs::remove_file(&self.path);
    }
}

fn listen(folder: &Path, path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = with_short_path(folder, |path| UnixListener::bind(path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The socket's path, or another one to the same file where it is too long.
fn with_short_path<T>(folder: &Path, with: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = folder.join(SOCKET);
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return with(&path);
    }
    let folder = fs::File::open(folder)?;
    with(&PathBuf::from(format!(
        "/proc/self/fd/{}/{SOCKET}",
        folder.as_raw_fd()
    )))
}

/// What requests are about.
struct Asked {
    shared: Arc<Shared>,
    running: Arc<Running>,
    http: Option<Http>,
}

/// The HTTP port, for commands of this machine.
#[derive(Clone)]
pub(super) struct Http {
    pub address: SocketAddr,
    /// The same for a browser.
    pub url: String,
    pub users: Arc<Users>,
}

async fn accept(listener: tokio::net::UnixListener, asked: Arc<Asked>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, asked.clone()))),
            Err(error) => {
                tracing::warn!(%error, "a command could not connect");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One request, one answer. Who does not wait for it is not told.
async fn serve(mut stream: tokio::net::UnixStream, asked: Arc<Asked>) {
    let mut line = String::new();
    let (from, mut to) = stream.split();
    let mut from = tokio::io::BufReader::new(from.take(LINE_BYTES_MAX));
    let read = tokio::time::timeout(REQUEST_TIMEOUT, from.read_line(&mut line));
    let answer = match read.await {
        Ok(Ok(1..)) => match serde_json::from_str(&line) {
            Ok(request) => answer(request, &asked).await,
            Err(error) => Answer::Error(format!("the request is not understood: {error}")),
        },
        _ => return,
    };
    if let Ok(mut line) = serde_json::to_vec(&answer) {
        line.push(b'\n');
        _ = to.write_all(&line).await;
    }
}

async fn answer(request: Request, asked: &Asked) -> Answer {
    match request {
        Request::Backup { to } => back_up(to, asked.shared.clone()).await,
        Request::Reload => reload(asked.running.clone()).await,
        Request::Http => lend(asked),
    }
}

async fn reload(running: Arc<Running>) -> Answer {
    match tokio::task::spawn_blocking(move || running.reload()).await {
        Ok(Ok(reloaded)) => Answer::Reloaded(reloaded),
        Ok(Err(error)) => Answer::NotReloaded {
            problems: error.problems,
        },
        Err(_) => Answer::Error("the broker stops".to_owned()),
    }
}

/// Who may read the data folder may do everything.
fn lend(asked: &Asked) -> Answer {
    let Some(http) = &asked.http else {
        let why = "this broker has no HTTP port: set http.address, or start it with --http";
        return Answer::Error(why.to_owned());
    };
    match http.users.lend(asked.shared.clock.now()) {
        Some(token) => Answer::Http {
            address: http.url.clone(),
            token,
        },
        None => Answer::Error("the system gives no random bytes".to_owned()),
    }
}

async fn back_up(to: PathBuf, shared: Arc<Shared>) -> Answer {
    let shown = to.display().to_string();
    tracing::info!(to = %shown, "backup begins");
    let backup = tokio::task::spawn_blocking(move || backup(&shared, &to));
    match backup.await {
        Ok(Ok(Copied { files, bytes })) => {
            tracing::info!(to = %shown, files, bytes, "backup done");
            Answer::BackedUp { files, bytes }
        }
        Ok(Err(error)) => {
            tracing::warn!(to = %shown, %error, "no backup was made");
            Answer::Error(error.to_string())
        }
        Err(_) => Answer::Error("the broker stops".to_owned()),
    }
}

fn backup(shared: &Shared, to: &Path) -> Result<Copied, BackupError> {
    let (target, folder) = Target::begin(to)?;
    let copied = shared.core.store().backup(&folder)?;
    target.keep();
    Ok(copied)
}

/// Why a broker could not be asked.
#[derive(Debug)]
pub(crate) enum AskError {
    /// None runs on that folder.
    Nobody,
    /// One does, or did until now.
    Failed(io::Error),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::Nobody => f.write_str("no broker runs on this folder"),
            AskError::Failed(error) => write!(f, "the broker did not answer: {error}"),
        }
    }
}

/// Asks the broker that runs on a data folder, and waits for its answer.
///
/// # Errors
/// There is none, or it does not answer.
pub(crate) fn ask(folder: &Path, request: &Request) -> Result<Answer, AskError> {
    let stream = with_short_path(folder, |path| UnixStream::connect(path));
    let stream = stream.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::Nobody,
        _ => AskError::Failed(error),
    })?;
    ask_on(stream, request).map_err(AskError::Failed)
}

fn ask_on(mut stream: UnixStream, request: &Request) -> io::Result<Answer> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_line(&mut answer)?;
    if answer.is_empty() {
        let what = "it ended before that";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
    }
    Ok(serde_json::from_str(&answer)?)
}
