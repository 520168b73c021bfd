//! The port: connections, TLS, and which handler has a request.
//!
//! Owns how many connections there may be, how long a request may take to come
//! and how long an answer may wait for its reader, so that nobody who cannot log
//! in holds anything up; and by which names the port may be asked for.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State as Shares};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{Request, StatusCode, Uri};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Sleep, sleep, timeout};

use super::problem::Problem;
use super::{State, api, assets, cut, health, history, metrics, workbench};
use crate::config::Address;
use crate::net::{Accepted, Bound, HalfOpen, Listening, PeerAddress, Stream};

/// Open connections; a browser has six.
const CONNECTIONS_MAX: usize = 512;
/// Of one address, so that others get in.
const CONNECTIONS_PER_ADDRESS_MAX: u32 = 128;
/// From the first byte of a request to the last of its head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a head; also what is read ahead.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// Of a body, where nothing else is said.
const BODY_BYTES_MAX: usize = 64 << 10;
/// A peer that has read nothing for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// After a failed accept, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client(pub PeerAddress);

impl Client {
    pub fn ip(self) -> Option<IpAddr> {
        self.0.ip()
    }
}

/// The port, as long as nobody is let in.
pub(crate) struct Port {
    bound: Bound,
    address: SocketAddr,
}

impl Port {
    /// Takes the address.
    ///
    /// # Errors
    /// The system's.
    pub fn new(address: SocketAddr) -> io::Result<Port> {
        let bound = Bound::new(&address.into(), 0)?;
        let address = match bound.address() {
            Address::Tcp(address) => *address,
            Address::Unix(_) => address,
        };
        Ok(Port { bound, address })
    }

    /// With the port that a port of 0 has become.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets clients in, until the port is to close. What is given back is done
    /// when all its connections have ended after that. Within a runtime.
    ///
    /// # Errors
    /// The system's.
    pub fn listen(self, state: Arc<State>) -> io::Result<JoinHandle<()>> {
        let (listening, _, _) = self.bound.listen()?;
        tokio::spawn(history::keep(state.clone(), state.stopping.clone()));
        Ok(tokio::spawn(accept(listening, state)))
    }
}

/// All requests.
fn router(state: Arc<State>) -> Router {
    Router::new()
        .merge(health::routes())
        .merge(metrics::routes())
        .merge(assets::routes())
        .merge(workbench::routes())
        .merge(api::router())
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(state.clone(), check_host))
        .layer(map_response(with_headers))
        .with_state(state)
}

/// Any page can have a name of its own lead to this port, and is then of this
/// origin to its browser: the name is looked at. It has no certificate for that
/// name, and no token.
async fn check_host(
    Shares(state): Shares<Arc<State>>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let is_for_all = ["/health", "/ready"].contains(&request.uri().path());
    let headers = request.headers();
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let is_known = state.tls.is_some()
        || is_for_all
        || headers.contains_key(header::AUTHORIZATION)
        || host.is_none_or(|host| is_own_name(host, &state.host_names));
    if is_known {
        return next.run(request).await;
    }
    let why = format!(
        "nobody asks for this port by the name {:?}: use its address, or set http.host_names",
        cut(host.unwrap_or_default())
    );
    Problem::new(StatusCode::MISDIRECTED_REQUEST, why).into_response()
}

/// Whether `host`, with a port or without, is this machine.
fn is_own_name(host: &str, names: &[String]) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    if bare.unwrap_or(name).parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || names.iter().any(|known| name.eq_ignore_ascii_case(known))
}

async fn not_found(uri: Uri) -> Problem {
    Problem::not_found(format!("there is nothing at {}", uri.path()))
}

async fn wrong_method(uri: Uri) -> Problem {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    Problem::new(status, format!("{} takes other methods", uri.path()))
}

/// What is said of every answer: it is what it says that it is, belongs into no
/// frame, and tells nobody where its reader came from. Answers are not kept
/// unless they say so.
async fn with_headers(mut response: Response) -> Response {
    const HEADERS: [(HeaderName, &str); 4] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'",
        ));
    response
}

async fn accept(listening: Listening, state: Arc<State>) {
    let router = router(state.clone());
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let of_addresses = Arc::new(HalfOpen::new(CONNECTIONS_PER_ADDRESS_MAX));
    let mut stopping = state.stopping.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listening.accept() => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        match accepted {
            Ok((accepted, address)) => {
                let place = places.clone().try_acquire_owned().ok();
                let of_address = of_addresses.enter(address);
                let (Some(place), Some(of_address)) = (place, of_address) else {
                    tracing::debug!(
                        peer = %address,
                        "HTTP refused: there are {CONNECTIONS_MAX} connections, or \
                         {CONNECTIONS_PER_ADDRESS_MAX} of this address"
                    );
                    continue;
                };
                let (router, state) = (router.clone(), state.clone());
                tokio::spawn(async move {
                    if let Err(error) = serve(accepted, address, router, &state).await {
                        tracing::debug!(peer = %address, %error, "HTTP ended");
                    }
                    drop((place, of_address));
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection by HTTP could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listening);
    _ = places.acquire_many(CONNECTIONS_MAX as u32).await;
}

async fn serve(
    accepted: Accepted,
    address: PeerAddress,
    router: Router,
    state: &State,
) -> io::Result<()> {
    let mut stopping = state.stopping.clone();
    let mut stream: Box<dyn Stream> = match accepted {
        Accepted::Tcp(stream) => {
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
        Accepted::Unix(stream) => Box::new(stream),
    };
    // Below TLS, where a byte that is written is one that was read.
    stream = Box::new(Patient::new(stream, WRITE_TIMEOUT));
    if let Some(tls) = &state.tls {
        let accepted = timeout(TLS_TIMEOUT, tls.accept(stream, state.shared.handshakes()));
        let (encrypted, _) = accepted.await??;
        stream = Box::new(encrypted);
    }
    let handler = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Client(address));
        let answer = handler.call(request);
        async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(BUFFER_BYTES_MAX);
    let connection = http
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = stopping.wait_for(|stopping| *stopping) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    ended.map_err(io::Error::other)
}

/// A stream whose peer has to read now and then, while there is anything for it.
struct Patient {
    stream: Box<dyn Stream>,
    patience: Duration,
    // Since when nothing could be written; `None`: it can.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(stream: Box<dyn Stream>, patience: Duration) -> Patient {
        Patient {
            stream,
            patience,
            stalled: None,
        }
    }

    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(cx));
        let why = "the peer reads nothing";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
    }
}

impl Stream for Patient {}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.judge(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[test]
    fn the_port_is_asked_for_by_its_address_or_a_name_of_its_own() {
        let names = ["mqtt.example.org".to_owned()];
        for own in [
            "127.0.0.1:18080",
            "[::1]:18080",
            "[2001:db8::1]",
            "LOCALHOST:1",
            "a.localhost",
            "MQTT.example.org",
            "mqtt.example.org.:18080",
        ] {
            assert!(is_own_name(own, &names), "{own}");
        }
        for other in [
            "",
            "evil.example:18080",
            "mqtt.example.org.evil.example",
            "127.0.0.1.evil.example",
        ] {
            assert!(!is_own_name(other, &names), "{other}");
        }
    }

    #[test]
    fn who_reads_nothing_is_waited_for_so_long_and_no_longer() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let patience = Duration::from_millis(20);
            let (ours, _theirs) = tokio::net::UnixStream::pair().expect("a pair");
            let mut ours = Patient::new(Box::new(ours), patience);
            let begin = std::time::Instant::now();
            let error = loop {
                if let Err(error) = ours.write_all(&[0; 4096]).await {
                    break error;
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(begin.elapsed() >= patience);
        });
    }
}
