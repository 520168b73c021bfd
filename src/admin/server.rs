//! The port: connections, TLS, and which handler has a request.
//!
//! Owns how many connections there may be and how long a request may take to
//! come, so that nobody who cannot log in holds anything up.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{Request, Uri};
use axum::middleware::map_response;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::problem::Problem;
use super::{State, api, assets, health, history, metrics, workbench};
use crate::config::Address;
use crate::net::{Accepted, Bound, Listening, PeerAddress, Stream};

/// Open connections; a browser has six.
const CONNECTIONS_MAX: usize = 512;
/// From the first byte of a request to the last of its head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a head; also what is read ahead.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// Of a body: a payload in base64 fits.
const BODY_BYTES_MAX: usize = 8 << 20;
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

    /// Lets clients in. Within a runtime.
    ///
    /// # Errors
    /// The system's.
    pub fn listen(self, state: Arc<State>, stopping: watch::Receiver<bool>) -> io::Result<()> {
        let (listening, _, _) = self.bound.listen()?;
        tokio::spawn(history::keep(state.clone(), stopping.clone()));
        tokio::spawn(accept(listening, state, stopping));
        Ok(())
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
        .layer(map_response(with_headers))
        .with_state(state)
}

async fn not_found(uri: Uri) -> Problem {
    Problem::not_found(format!("there is nothing at {}", uri.path()))
}

async fn wrong_method(uri: Uri) -> Problem {
    let status = axum::http::StatusCode::METHOD_NOT_ALLOWED;
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

async fn accept(listening: Listening, state: Arc<State>, mut stopping: watch::Receiver<bool>) {
    let router = router(state.clone());
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listening.accept() => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        match accepted {
            Ok((accepted, address)) => {
                let Ok(place) = places.clone().try_acquire_owned() else {
                    tracing::debug!(peer = %address, "HTTP refused: there are {CONNECTIONS_MAX} connections");
                    continue;
                };
                let (router, state) = (router.clone(), state.clone());
                let stopping = stopping.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve(accepted, address, router, &state, stopping).await {
                        tracing::debug!(peer = %address, %error, "HTTP ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection by HTTP could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(
    accepted: Accepted,
    address: PeerAddress,
    router: Router,
    state: &State,
    mut stopping: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut stream: Box<dyn Stream> = match accepted {
        Accepted::Tcp(stream) => {
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
        Accepted::Unix(stream) => Box::new(stream),
    };
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
