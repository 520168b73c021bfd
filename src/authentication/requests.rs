//! HTTP requests of the broker's own, to services of its operator's.
//!
//! Owns the connections to one service: how many there are, how long an answer
//! may take and how large it may be. Follows no redirect, and knows nothing of
//! what is asked. What a header of the operator's says is in no log line and no
//! error.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue,
    TRANSFER_ENCODING, USER_AGENT,
};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, RwLock};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::passwords::{FileError, read_within};
use crate::config::HttpAddress;

/// The most of an answer's body, and of what is before it, that is read.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;
const HEADERS_FILE_BYTES_MAX: u64 = 1 << 20;
/// Services and what is between close connections that are idle for longer, and
/// not always so that it is seen.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// How a service is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub address: HttpAddress,
    /// Header lines of every request.
    pub headers_file: Option<PathBuf>,
    /// The authorities of its certificate; `None`: the system's.
    pub ca_file: Option<PathBuf>,
    /// From a request's turn to the whole answer; it waits as long for its turn.
    pub timeout: Duration,
    /// Requests at one time, and connections.
    pub connections_max: usize,
    /// Requests that wait for one of these.
    pub waiting_max: usize,
}

/// One service, and the connections to it.
pub struct Requests {
    settings: Settings,
    loaded: RwLock<Arc<Loaded>>,
    turns: Semaphore,
    // Those under way included.
    requests: AtomicUsize,
    // Connections that wait for a request, and since when; the newest is last.
    idle: Mutex<Vec<(SendRequest<Full<Bytes>>, Instant)>>,
}

/// What is read from files.
struct Loaded {
    headers: HeaderMap,
    tls: Option<TlsConnector>,
}

/// What a service says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    /// How long it says that it may be remembered (RFC 9111, 5.2.2.1).
    pub max_age: Option<Duration>,
    pub body: Bytes,
}

/// Why there is no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// Too many others are asking: the service has not heard of it.
    Busy,
    /// The service cannot be reached, or does not answer: why.
    Failed(String),
    /// It answers, and not as a service does: why.
    Invalid(String),
}

impl Requests {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// What is wrong with a file.
    pub fn new(settings: Settings) -> Result<Requests, FileError> {
        let loaded = Loaded::read(&settings)?;
        if settings.address.is_readable_on_the_way() {
            let address = settings.address.without_query();
            tracing::warn!(
                address,
                "whoever is on the way can read and change what is asked there: \
                                      use https://"
            );
        }
        Ok(Requests {
            loaded: RwLock::new(Arc::new(loaded)),
            turns: Semaphore::new(settings.connections_max),
            requests: AtomicUsize::new(0),
            idle: Mutex::new(Vec::new()),
            settings,
        })
    }

    pub fn address(&self) -> &HttpAddress {
        &self.settings.address
    }

    /// Reads the files again; requests from now on go by new connections.
    ///
    /// # Errors
    /// What is wrong with a file; then all stays as it was.
    pub fn reload(&self) -> Result<(), FileError> {
        let loaded = Arc::new(Loaded::read(&self.settings)?);
        *self.loaded.write() = loaded;
        self.idle.lock().clear();
        Ok(())
    }

    /// Asks by GET.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn get(&self) -> Result<Reply, RequestError> {
        self.send(Method::GET, Bytes::new).await
    }

    /// Asks by POST, with JSON, which is not made before it can be sent: many may
    /// wait for that. The question may be asked twice, when the service closes a
    /// connection that was used before.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn post(&self, json: impl FnOnce() -> String) -> Result<Reply, RequestError> {
        self.send(Method::POST, || json().into()).await
    }

    async fn send(
        &self,
        method: Method,
        body: impl FnOnce() -> Bytes,
    ) -> Result<Reply, RequestError> {
        let all_max = self.settings.connections_max + self.settings.waiting_max;
        let Some(_counted) = Counted::below(&self.requests, all_max) else {
            return Err(RequestError::Busy);
        };
        // That others are before it is not the service's failure.
        let turn = timeout(self.settings.timeout, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(RequestError::Busy);
        };
        match timeout(self.settings.timeout, self.exchange(method, body())).await {
            Ok(reply) => reply,
            Err(_) => {
                // The others may be as dead, and cost as long.
                self.idle.lock().clear();
                Err(RequestError::Failed(format!(
                    "no answer within {} ms",
                    self.settings.timeout.as_millis()
                )))
            }
        }
    }

    async fn exchange(&self, method: Method, body: Bytes) -> Result<Reply, RequestError> {
        let loaded = self.loaded.read().clone();
        loop {
            let request = self.request(&loaded, &method, &body);
            let kept = self.take_idle(Instant::now());
            let is_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect(&loaded).await.map_err(RequestError::Failed)?,
            };
            if is_kept && connection.ready().await.is_err() {
                continue; // Closed just now.
            }
            match read_reply(connection.send_request(request)).await {
                // The service may have closed it while it was idle.
                Err(RequestError::Failed(_)) if is_kept => {}
                Err(why) => return Err(why),
                Ok(reply) => {
                    // Those of before a reload are not used any more.
                    if Arc::ptr_eq(&loaded, &self.loaded.read()) {
                        self.idle.lock().push((connection, Instant::now()));
                    }
                    return Ok(reply);
                }
            }
        }
    }

    fn take_idle(&self, now: Instant) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock();
        idle.retain(|(connection, since)| {
            !connection.is_closed() && now.saturating_duration_since(*since) <= IDLE_MAX
        });
        idle.pop().map(|(connection, _)| connection)
    }

    fn request(&self, loaded: &Loaded, method: &Method, body: &Bytes) -> Request<Full<Bytes>> {
        let address = &self.settings.address;
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = method.clone();
        *request.uri_mut() = address.path().parse().unwrap_or_default();
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::from_str(address.authority()) {
            headers.insert(HOST, host);
        }
        let agent = concat!("rotamq/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        let json = HeaderValue::from_static("application/json");
        headers.insert(ACCEPT, json.clone());
        if method == Method::POST {
            headers.insert(CONTENT_TYPE, json);
        }
        for (name, value) in &loaded.headers {
            headers.insert(name, value.clone());
        }
        request
    }

    async fn connect(&self, loaded: &Loaded) -> Result<SendRequest<Full<Bytes>>, String> {
        let address = &self.settings.address;
        let failed = |error: &dyn fmt::Display| format!("cannot connect: {error}");
        let stream = TcpStream::connect((address.host(), address.port())).await;
        let stream = stream.map_err(|error| failed(&error))?;
        stream.set_nodelay(true).map_err(|error| failed(&error))?;
        match &loaded.tls {
            None => shake_hands(stream).await,
            Some(tls) => {
                let name = ServerName::try_from(address.host().to_owned());
                let name = name.map_err(|error| failed(&error))?;
                let stream = tls.connect(name, stream).await;
                shake_hands(stream.map_err(|error| failed(&error))?).await
            }
        }
    }
}

/// HTTP/1.1 on a stream; a task moves its bytes as long as it is used.
async fn shake_hands<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http1::Builder::new()
        .max_buf_size(ANSWER_BYTES_MAX)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to a service has ended");
        }
    });
    Ok(sender)
}

async fn read_reply(
    response: impl Future<Output = hyper::Result<Response<Incoming>>>,
) -> Result<Reply, RequestError> {
    let response = response.await.map_err(|error| match error.is_parse() {
        true => RequestError::Invalid(format!("the answer is no HTTP: {error}")),
        false => RequestError::Failed(error.to_string()),
    })?;
    let (head, body) = response.into_parts();
    let max_age = head.headers.get(CACHE_CONTROL);
    let max_age = max_age.and_then(|value| max_age_of(value.to_str().ok()?));
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| match error.is::<LengthLimitError>() {
        true => RequestError::Invalid(format!("the answer has more than {ANSWER_BYTES_MAX} bytes")),
        false => RequestError::Failed(format!("the answer is cut off: {error}")),
    })?;
    Ok(Reply {
        status: head.status.as_u16(),
        max_age,
        body: body.to_bytes(),
    })
}

/// How long an answer stays right, by its Cache-Control.
fn max_age_of(cache_control: &str) -> Option<Duration> {
    let directives = cache_control.split(',').map(str::trim);
    let mut max_age = None;
    for directive in directives {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => return Some(Duration::ZERO),
            "max-age" => {
                max_age = value
                    .trim_matches('"')
                    .parse()
                    .ok()
                    .map(Duration::from_secs)
            }
            _ => {}
        }
    }
    max_age
}

impl Loaded {
    fn read(settings: &Settings) -> Result<Loaded, FileError> {
        let headers = match &settings.headers_file {
            Some(path) => read_headers(path)?,
            None => HeaderMap::new(),
        };
        let tls = match settings.address.is_tls() {
            true => Some(connector(settings.ca_file.as_deref())?),
            false => None,
        };
        Ok(Loaded { headers, tls })
    }
}

/// That verifies certificates, and their names, always.
fn connector(ca_file: Option<&Path>) -> Result<TlsConnector, FileError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let wrong = |why: &dyn fmt::Display| {
                FileError(format!("the authorities {}: {why}", path.display()))
            };
            let certificates =
                CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| wrong(&error))?;
                roots.add(certificate).map_err(|error| wrong(&error))?;
            }
            if roots.is_empty() {
                return Err(wrong(
                    &"have no part that begins -----BEGIN CERTIFICATE-----",
                ));
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let text = "this system names no authorities of certificates: install \
                            ca-certificates, or name a file of them";
                return Err(FileError(text.to_owned()));
            }
        }
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| FileError(format!("TLS cannot be set up: {error}")))?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config).into())
}

fn read_headers(path: &Path) -> Result<HeaderMap, FileError> {
    let shown = path.display();
    let failed = |error| FileError(format!("cannot read {shown}: {error}"));
    let (text, is_open) = read_within(path, HEADERS_FILE_BYTES_MAX).map_err(failed)?;
    if is_open {
        tracing::warn!(path = %shown, "everybody on this machine can read the headers: chmod o-r");
    }
    parse_headers(&text).map_err(|(line, why)| FileError(format!("{shown}:{line}: {why}")))
}

/// `Name: value` a line; lines that are empty or begin with # are for people.
fn parse_headers(text: &str) -> Result<HeaderMap, (usize, &'static str)> {
    let mut headers = HeaderMap::new();
    for (line, text) in (1..).zip(text.lines()) {
        if text.trim().is_empty() || text.starts_with('#') {
            continue;
        }
        let wrong = |why| (line, why);
        let form = wrong("has to be a header line, as in Authorization: Bearer abc");
        let (name, value) = text.split_once(':').ok_or(form)?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| form)?;
        let mut value = HeaderValue::try_from(value.trim()).map_err(|_| form)?;
        if [HOST, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING].contains(&name) {
            return Err(wrong("is a header that the broker writes itself"));
        }
        value.set_sensitive(true);
        if headers.insert(name, value).is_some() {
            return Err(wrong("has the name of a line before it"));
        }
    }
    Ok(headers)
}

/// One of so many at one time.
struct Counted<'c>(&'c AtomicUsize);

impl Counted<'_> {
    fn below(count: &AtomicUsize, max: usize) -> Option<Counted<'_>> {
        let counted = Counted(count);
        // Dropping it takes it back.
        (count.fetch_add(1, Ordering::Relaxed) < max).then_some(counted)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_an_answer_stays_right() {
        for (header, expected) in [
            ("max-age=60", Some(60)),
            ("public, max-age=3600, must-revalidate", Some(3600)),
            ("Max-Age=\"5\"", Some(5)),
            ("private,max-age=0", Some(0)),
            ("max-age=60, no-store", Some(0)),
            ("no-cache", Some(0)),
            ("max-age=soon", None),
            ("max-age", None),
            ("s-maxage=7", None),
            ("", None),
        ] {
            let found = max_age_of(header);
            assert_eq!(found, expected.map(Duration::from_secs), "{header}");
        }
    }

    /// L07: what is wrong with a line is told without the line.
    #[test]
    fn lines_of_headers() {
        let headers = parse_headers("# secret\n\nAuthorization: Bearer canary\nX-One:\n");
        let headers = headers.expect("they are headers");
        assert_eq!(headers.len(), 2);
        assert_eq!(headers["authorization"], "Bearer canary");
        assert!(!format!("{headers:?}").contains("canary"));
        for (text, line) in [
            ("canary", 1),
            ("a: b\nA: canary", 2),
            ("canary canary: a", 1),
            ("a: canary\u{0}", 1),
            ("Host: canary", 1),
            ("content-length: 7", 1),
        ] {
            let (found, why) = parse_headers(text).expect_err("it is wrong");
            assert_eq!(found, line, "{text}");
            assert!(!why.contains("canary"));
        }
    }

    fn requests(timeout: Duration) -> Requests {
        let settings = Settings {
            address: "http://127.0.0.1:1/".parse().expect("it is an address"),
            headers_file: None,
            ca_file: None,
            timeout,
            connections_max: 1,
            waiting_max: 1,
        };
        Requests::new(settings).expect("it needs no file")
    }

    /// Runs it with time and connections.
    fn run<F: Future>(task: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(task)
    }

    /// Who waits in vain for others to be through has not asked, nor made what it
    /// would have asked.
    #[test]
    fn who_has_no_turn_has_not_asked() {
        let requests = requests(Duration::from_millis(10));
        run(async {
            let turn = requests.turns.acquire().await;
            let asked = requests.post(|| panic!("it is not its turn")).await;
            assert_eq!(asked, Err(RequestError::Busy));
            drop(turn);
            // Nothing listens at port 1.
            let asked = requests.post(String::new).await;
            assert!(matches!(asked, Err(RequestError::Failed(_))), "{asked:?}");
        });
    }

    #[test]
    fn kept_connections_are_not_used_when_they_are_old() {
        let requests = requests(Duration::from_secs(5));
        run(async {
            let (near, _far) = tokio::io::duplex(64);
            let start = Instant::now();
            let keep = |connection| requests.idle.lock().push((connection, start));
            keep(shake_hands(near).await.expect("nothing is said yet"));
            let kept = requests.take_idle(start + IDLE_MAX).expect("it is young");
            keep(kept);
            let old = requests.take_idle(start + IDLE_MAX + Duration::from_millis(1));
            assert!(old.is_none());
            assert!(requests.idle.lock().is_empty());
        });
    }

    /// What does not answer is perhaps dead, and others of its age are too.
    #[test]
    fn after_a_time_out_no_kept_connection_is_used() {
        let requests = requests(Duration::from_millis(10));
        run(async {
            let mut far = Vec::new();
            for _ in 0..2 {
                let (near, other) = tokio::io::duplex(1024);
                let connection = shake_hands(near).await.expect("nothing is said yet");
                requests.idle.lock().push((connection, Instant::now()));
                far.push(other);
            }
            let asked = requests.get().await;
            let said = "no answer within 10 ms".to_owned();
            assert_eq!(asked, Err(RequestError::Failed(said)));
            assert!(requests.idle.lock().is_empty());
        });
    }

    /// A service that answers is there, whatever it says.
    #[test]
    fn what_is_no_answer_is_told_from_none() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let too_long = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {0}\r\n\r\n{1}",
            ANSWER_BYTES_MAX + 1,
            "x".repeat(ANSWER_BYTES_MAX + 1)
        );
        for (said, is_answer) in [
            (&*too_long, true),
            ("220 mail.example ESMTP\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", false),
            ("", false),
        ] {
            let found = run(async {
                let (near, mut far) = tokio::io::duplex(1 << 20);
                let mut connection = shake_hands(near).await.expect("nothing is said yet");
                let reply = connection.send_request(Request::new(Full::default()));
                let says = async {
                    // An answer before the question would be none.
                    _ = far.read(&mut [0; 1024]).await.expect("it is asked");
                    far.write_all(said.as_bytes()).await.expect("it is read");
                    far.shutdown().await.expect("it is read");
                };
                tokio::join!(read_reply(reply), says).0
            });
            match is_answer {
                true => assert!(matches!(found, Err(RequestError::Invalid(_))), "{found:?}"),
                false => assert!(matches!(found, Err(RequestError::Failed(_))), "{found:?}"),
            }
        }
    }

    #[test]
    fn no_more_than_so_many_at_one_time() {
        let count = AtomicUsize::new(0);
        let (one, two) = (Counted::below(&count, 2), Counted::below(&count, 2));
        assert!(one.is_some() && two.is_some() && Counted::below(&count, 2).is_none());
        drop(one);
        assert!(Counted::below(&count, 2).is_some());
    }
}
