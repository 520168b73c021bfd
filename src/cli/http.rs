//! Requests to a broker's HTTP port, and its answers.
//!
//! Owns where the broker is found and with which token, and what a status and a
//! problem document mean to a person and to a script. Knows nothing of what is
//! asked. A token is in no message and no error.

use std::env;
use std::fmt::{Display, Write as _};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::select;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::arguments::{Configured, secret_in};
use super::table::shown;
use super::tls::{self, TlsArguments};
use super::{Failure, Kind, Outcome, client};
use crate::config::HttpAddress;
use crate::run::control;

/// Where requests go, and as whom; not options of the configuration.
const HTTP_VARIABLE: &str = "ROTAMQ_HTTP";
const TOKEN_VARIABLE: &str = "ROTAMQ_HTTP_TOKEN";
/// Before the path of everything.
const API: &str = "/api/v1";
/// For the connection, the handshake of TLS with it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// From the request to the whole answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// A page of messages with all of their payloads is longer than most answers.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Items of a list that one request asks for.
const PAGE_MAX: usize = 1000;

/// Where a broker's HTTP port is, and who asks there.
// Without Debug: it knows the token. Its values go up to `rotamq` itself, which
// has others of these names: so the ids.
#[derive(clap::Args, Clone)]
pub struct HttpArguments {
    /// The broker's HTTP port, as in http://127.0.0.1:18080; else the variable ROTAMQ_HTTP says
    /// it; else the broker is asked that runs here on the data folder
    #[arg(id = "at_http", long = "http", value_name = "URL", global = true)]
    #[arg(value_parser = address)]
    http: Option<HttpAddress>,
    /// Who asks there; other users of this machine may see it: better is --token-file, or the
    /// variable ROTAMQ_HTTP_TOKEN
    #[arg(long, value_name = "TOKEN", global = true)]
    #[arg(conflicts_with = "token_file")]
    token: Option<String>,
    /// Read the token from the first line of this file
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// The data folder of the broker; without it, that of the configuration
    #[arg(id = "at_data", long = "data", value_name = "DIR", global = true)]
    #[arg(conflicts_with = "at_http")]
    data: Option<PathBuf>,
    /// The configuration, which names the data folder; no file is searched for
    #[arg(id = "at_config", long = "config", value_name = "FILE", global = true)]
    #[arg(conflicts_with = "at_http")]
    config: Option<PathBuf>,
}

/// What every command has that works on a running broker.
// Without Debug: it knows the token.
#[derive(clap::Args, Clone)]
pub struct Common {
    /// Print the answer as JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(flatten)]
    http: HttpArguments,
    #[command(flatten)]
    tls: TlsArguments,
}

impl Common {
    /// Whether the HTTP port is told, and the broker is not that of a data folder.
    pub fn is_elsewhere(&self) -> bool {
        let http = &self.http;
        http.http.is_some() || !http.says_where() && http.is_given()
    }

    /// The data folder of a broker on this machine.
    ///
    /// # Errors
    /// The configuration cannot be read.
    pub fn folder(&self) -> Result<PathBuf, Failure> {
        self.http.folder()
    }

    /// Finds the broker and does `work`; ends at once when the process is told
    /// to stop, which is no failure.
    ///
    /// # Errors
    /// There is no broker, or what `work` fails with.
    pub fn run(&self, work: impl AsyncFnOnce(&mut Api) -> Outcome) -> Outcome {
        run(Api::find(&self.http, &self.tls)?, work)
    }

    /// The same for `work` that has to end by itself.
    ///
    /// # Errors
    /// As [`Common::run`].
    pub fn run_to_end(&self, work: impl AsyncFnOnce(&mut Api) -> Outcome) -> Outcome {
        run_to_end(Api::find(&self.http, &self.tls)?, work)
    }
}

/// Does `work`; ends at once when the process is told to stop, which is no
/// failure.
///
/// # Errors
/// What `work` fails with.
pub fn run(api: Api, work: impl AsyncFnOnce(&mut Api) -> Outcome) -> Outcome {
    run_to_end(api, async |api| {
        let mut stopped = pin!(client::stopped()?);
        select! {
            outcome = work(api) => outcome,
            () = &mut stopped => Ok(ExitCode::SUCCESS),
        }
    })
}

fn run_to_end(mut api: Api, work: impl AsyncFnOnce(&mut Api) -> Outcome) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(work(&mut api));
    // A name that is still looked up is not waited for.
    runtime.shutdown_background();
    outcome
}

/// Parses `http://HOST:PORT`; the scheme may be left out.
fn address(text: &str) -> Result<HttpAddress, String> {
    let whole = match text.contains("://") {
        true => text.to_owned(),
        false => format!("http://{text}"),
    };
    let address: Result<HttpAddress, ()> = whole.parse();
    match address {
        Ok(address) if address.path() == "/" => Ok(address),
        Ok(_) => Err("it has no path: host and port are enough".to_owned()),
        Err(()) => Err("it is as in http://127.0.0.1:18080 or https://mq.example.org".to_owned()),
    }
}

impl HttpArguments {
    /// Whether they say where the HTTP port is, the environment included.
    pub fn is_given(&self) -> bool {
        self.says_where() || env::var_os(HTTP_VARIABLE).is_some()
    }

    /// Whether the arguments alone say it.
    pub fn says_where(&self) -> bool {
        self.http.is_some() || self.data.is_some() || self.config.is_some()
    }

    /// The broker's address, where one is given.
    fn address(&self) -> Result<Option<HttpAddress>, Failure> {
        if self.says_where() {
            return Ok(self.http.clone());
        }
        match variable(HTTP_VARIABLE)? {
            None => Ok(None),
            Some(text) => match address(&text) {
                Ok(address) => Ok(Some(address)),
                Err(why) => Err(Failure::new(format!("{HTTP_VARIABLE}={text}: {why}"))),
            },
        }
    }

    fn token(&self) -> Result<Option<String>, Failure> {
        match (&self.token, &self.token_file) {
            (Some(token), _) => Ok(Some(token.clone())),
            (None, Some(path)) => {
                let token = secret_in(path, "the token")?;
                let text = String::from_utf8(token);
                text.map(Some)
                    .map_err(|_| Failure::new(format!("{}: the token is no text", path.display())))
            }
            (None, None) => variable(TOKEN_VARIABLE),
        }
    }

    fn folder(&self) -> Result<PathBuf, Failure> {
        match &self.data {
            Some(folder) => Ok(folder.clone()),
            None => {
                let configured = Configured {
                    config: self.config.clone(),
                };
                Ok(configured.load()?.store.data)
            }
        }
    }
}

fn variable(name: &str) -> Result<Option<String>, Failure> {
    let value = env::var_os(name).filter(|value| !value.is_empty());
    let text = value.map(|value| value.into_string());
    text.transpose()
        .map_err(|_| Failure::new(format!("{name}: it is no text")))
}

/// What is asked for: a path below the API's, and a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    text: String,
    has_query: bool,
}

impl Route {
    /// These segments, each written so that it stays one.
    pub fn to(segments: &[&str]) -> Route {
        let mut text = API.to_owned();
        for segment in segments {
            text.push('/');
            encode(segment, &mut text);
        }
        let has_query = false;
        Route { text, has_query }
    }

    /// The same with a value in its query.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Display) -> Route {
        self.text.push(if self.has_query { '&' } else { '?' });
        self.has_query = true;
        self.text += name;
        self.text.push('=');
        encode(&value.to_string(), &mut self.text);
        self
    }

    /// The same with a value in its query, if there is one.
    #[must_use]
    pub fn maybe(self, name: &str, value: Option<impl Display>) -> Route {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Percent-encodes all but what stands for itself everywhere (RFC 3986, 2.3).
fn encode(text: &str, to: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                to.push(byte.into());
            }
            // Writing to a String cannot fail.
            byte => _ = write!(to, "%{byte:02X}"),
        }
    }
}

/// A broker that is asked over HTTP, on one connection.
pub struct Api {
    address: HttpAddress,
    token: Option<String>,
    /// Where the broker gives another token when this one is over.
    folder: Option<PathBuf>,
    tls: Option<TlsConnector>,
    /// Whether the authorities are those of a file, and not the system's.
    has_cafile: bool,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// What came back.
struct Reply {
    status: StatusCode,
    body: Bytes,
}

/// A list, or a page of one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    pub items: Vec<Value>,
    /// There are more, after this.
    pub next: Option<Value>,
}

impl Api {
    /// Where the arguments say, or the environment; else where the broker says
    /// that runs on the data folder. Connects to nothing yet.
    ///
    /// # Errors
    /// No broker runs there, or its HTTP port is off; a file cannot be read.
    pub fn find(arguments: &HttpArguments, tls: &TlsArguments) -> Result<Api, Failure> {
        let mut folder = None;
        let mut token = arguments.token()?;
        let given = arguments.address()?;
        let is_own = given.is_none();
        let address = match given {
            Some(address) => address,
            None => {
                let of_broker = arguments.folder()?;
                let (address, lent) = ask_folder(&of_broker)?;
                if token.is_none() {
                    (token, folder) = (Some(lent), Some(of_broker));
                }
                address
            }
        };
        if !is_own && token.is_some() && address.is_readable_on_the_way() {
            client::warn("whoever is on the way can read the token: use https://");
        }
        let has_cafile = tls.is_asked_for();
        let config = match (address.is_tls(), is_own) {
            (true, true) => Some(tls.read_for_own()?),
            (true, false) => Some(tls.read_for_https()?),
            (false, _) if has_cafile => {
                let text = format!("--cafile is for https://, and this is {address}");
                return Err(Failure::new(text));
            }
            (false, _) => None,
        };
        let tls = config.map(|config| TlsConnector::from(Arc::new(config)));
        Ok(Api {
            address,
            token,
            folder,
            tls,
            has_cafile,
            connection: None,
        })
    }

    /// What is there.
    ///
    /// # Errors
    /// The broker's refusal, or that it cannot be reached.
    pub async fn get<A: DeserializeOwned>(&mut self, route: &Route) -> Result<A, Failure> {
        understood(self.send(Method::GET, route, None).await?)
    }

    /// Changes something; what comes of it.
    ///
    /// # Errors
    /// As [`Api::get`]; if the connection is lost, it may be done.
    pub async fn change<A: DeserializeOwned>(
        &mut self,
        method: Method,
        route: &Route,
        body: Option<Value>,
    ) -> Result<A, Failure> {
        understood(self.send(method, route, body).await?)
    }

    /// A list, page by page; with `count_max` its first items only.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub async fn list(
        &mut self,
        route: &Route,
        count_max: Option<usize>,
    ) -> Result<Listed, Failure> {
        let mut all = Listed::default();
        loop {
            let left = count_max.map_or(PAGE_MAX, |max| max - all.items.len());
            let mut page = route.clone().with("limit", left.min(PAGE_MAX));
            if let Some(after) = &all.next {
                page = page.with("after", text_of(after));
            }
            let page: Listed = self.get(&page).await?;
            all.items.extend(page.items);
            all.next = page.next;
            let is_enough = count_max.is_some_and(|max| all.items.len() >= max);
            if all.next.is_none() || is_enough {
                return Ok(all);
            }
        }
    }

    async fn send(
        &mut self,
        method: Method,
        route: &Route,
        body: Option<Value>,
    ) -> Result<Value, Failure> {
        let mut reply = self.exchange(&method, route, body.as_ref()).await?;
        if reply.status == StatusCode::UNAUTHORIZED
            && let Some(folder) = &self.folder
        {
            // The token that it gave lives for some minutes.
            let (_, token) = ask_folder(folder)?;
            self.token = Some(token);
            reply = self.exchange(&method, route, body.as_ref()).await?;
        }
        match reply.status.is_success() {
            true if reply.body.is_empty() => Ok(Value::Null),
            true => parsed(&reply.body),
            false => Err(self.refusal(&reply)),
        }
    }

    /// One request and its answer, whatever that says.
    async fn exchange(
        &mut self,
        method: &Method,
        route: &Route,
        body: Option<&Value>,
    ) -> Result<Reply, Failure> {
        loop {
            let (mut connection, is_kept) = match self.connection.take() {
                Some(connection) => (connection, true),
                None => (self.connect().await?, false),
            };
            if is_kept && connection.ready().await.is_err() {
                continue; // Closed while it was idle.
            }
            let request = self.request(method, route, body)?;
            let reply = timeout(ANSWER_TIMEOUT, answer(&mut connection, request)).await;
            let place = self.address.authority();
            match reply {
                Ok(Ok(reply)) => {
                    self.connection = Some(connection);
                    return Ok(reply);
                }
                // What only looks may be asked twice.
                Ok(Err(_)) if is_kept && method == Method::GET => {}
                Ok(Err(why)) => {
                    let text = format!("no answer from {place}: {why}");
                    return Err(Failure::of(Kind::Unavailable, text));
                }
                Err(_) => {
                    let secs = ANSWER_TIMEOUT.as_secs();
                    let text = format!("no answer from {place} within {secs} seconds");
                    return Err(Failure::of(Kind::Unavailable, text));
                }
            }
        }
    }

    fn request(
        &self,
        method: &Method,
        route: &Route,
        body: Option<&Value>,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let agent = concat!("rotamq/", env!("CARGO_PKG_VERSION"));
        let mut request = Request::builder()
            .method(method)
            .uri(route.as_str())
            .header(HOST, self.address.authority())
            .header(USER_AGENT, agent)
            .header(ACCEPT, "application/json");
        if let Some(token) = &self.token {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| Failure::new("the token has characters that no token has"))?;
            bearer.set_sensitive(true);
            request = request.header(AUTHORIZATION, bearer);
        }
        let body = match body {
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        Ok(request.body(Full::new(body))?)
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let place = self.address.authority();
        match timeout(CONNECT_TIMEOUT, self.open()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err((kind, why))) => {
                let text = format!("cannot connect to {place}: {why}");
                Err(Failure::of(kind, text))
            }
            Err(_) => {
                let secs = CONNECT_TIMEOUT.as_secs();
                let text = format!("cannot connect to {place}: no answer within {secs} seconds");
                Err(Failure::of(Kind::Unavailable, text))
            }
        }
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, (Kind, String)> {
        let address = &self.address;
        let lost = |error: io::Error| (Kind::Unavailable, error.to_string());
        let stream = TcpStream::connect((address.host(), address.port())).await;
        let stream = stream.map_err(lost)?;
        stream.set_nodelay(true).map_err(lost)?;
        let failed = |why| (Kind::Failed, why);
        let Some(tls) = &self.tls else {
            return shake_hands(stream).await.map_err(failed);
        };
        let name = tls::server_name(address.host()).map_err(failed)?;
        match tls.connect(name, stream).await {
            Ok(stream) => shake_hands(stream).await.map_err(failed),
            Err(error) if !self.has_cafile && tls::is_of_unknown_authority(&error) => {
                let why = "the broker's certificate is signed by no authority that this system \
                           knows: name a file with it by --cafile";
                Err(failed(why.to_owned()))
            }
            Err(error) => {
                let why = tls::explain(&error);
                Err(failed(why.unwrap_or_else(|| {
                    format!("no handshake of TLS ({error}): is it the right port?")
                })))
            }
        }
    }

    /// A refusal in the broker's words, and of its kind.
    fn refusal(&self, reply: &Reply) -> Failure {
        let text = match (reply.status, &self.token) {
            (StatusCode::UNAUTHORIZED, Some(_)) => {
                "the broker does not know the token, or it has expired".to_owned()
            }
            (StatusCode::UNAUTHORIZED, None) => {
                "the broker has to know who asks: give a token by --token-file or \
                 ROTAMQ_HTTP_TOKEN, or be on its machine and say --data DIR"
                    .to_owned()
            }
            _ => sentences(reply),
        };
        Failure::of(kind(reply.status), text)
    }
}

/// What a status is to a script.
fn kind(status: StatusCode) -> Kind {
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Kind::NotFound,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Kind::Denied,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Kind::Unavailable
        }
        _ => Kind::Failed,
    }
}

/// What a problem document (RFC 9457) says, a sentence a line.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: String,
    detail: String,
    errors: Vec<Value>,
}

fn sentences(reply: &Reply) -> String {
    let problem: Problem = serde_json::from_slice(&reply.body).unwrap_or_default();
    let said = match (problem.detail.is_empty(), problem.title.is_empty()) {
        (false, _) => shown(&problem.detail),
        (true, false) => shown(&problem.title),
        (true, true) => format!("the broker answered {}", reply.status),
    };
    let errors = problem.errors.iter().map(|error| shown(&text_of(error)));
    std::iter::once(said)
        .chain(errors)
        .collect::<Vec<_>>()
        .join("\n")
}

/// A text as it is; anything else as JSON.
pub fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

fn parsed(body: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(body)
        .map_err(|_| Failure::new("what listens there answers, but not as a broker does"))
}

/// The answer as what it has to be.
fn understood<A: DeserializeOwned>(value: Value) -> Result<A, Failure> {
    serde_json::from_value(value).map_err(|error| {
        Failure::new(format!(
            "the broker's answer is not understood: {error}; it may be of another version"
        ))
    })
}

/// HTTP/1.1 on a stream; a task moves its bytes as long as it is used.
async fn shake_hands<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(|error| error.to_string())?;
    // Why it ends, the request that it breaks is told.
    tokio::spawn(connection);
    Ok(sender)
}

async fn answer(
    connection: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Reply, String> {
    let response = connection.send_request(request).await;
    let response = response.map_err(|error| match error.is_parse() {
        true => "what listens there speaks no HTTP, or TLS: is it the right port?".to_owned(),
        false => error.to_string(),
    })?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    Ok(Reply {
        status: head.status,
        body: body.map_err(|error| error.to_string())?.to_bytes(),
    })
}

/// Where the broker that runs on a data folder listens, and a token that it
/// gives to who may use that folder.
fn ask_folder(folder: &Path) -> Result<(HttpAddress, String), Failure> {
    let place = folder.display();
    let failed = |kind, text: String| Err(Failure::of(kind, text));
    match control::ask(folder, &control::Request::Http) {
        Ok(control::Answer::Http { address, token }) => match self::address(&address) {
            Ok(address) => Ok((address, token)),
            Err(why) => failed(
                Kind::Failed,
                format!("the broker listens at {address}: {why}"),
            ),
        },
        Ok(control::Answer::Error(why)) => failed(Kind::Unavailable, why),
        Ok(_) => failed(
            Kind::Failed,
            "the broker's answer is not understood".to_owned(),
        ),
        Err(control::AskError::Nobody) => failed(
            Kind::Unavailable,
            format!(
                "no broker runs on the data folder {place}: name its folder with --data, or its \
                 HTTP port with --http"
            ),
        ),
        Err(control::AskError::Failed(error)) if error.kind() == ErrorKind::PermissionDenied => {
            failed(
                Kind::Denied,
                format!(
                    "only the user that the broker runs as may use its data folder {place}: be \
                     that user, or name its HTTP port with --http, and a token"
                ),
            )
        }
        Err(error) => failed(Kind::Unavailable, format!("{place}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        Reply {
            status: StatusCode::from_u16(status).expect("it is a status"),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    #[test]
    fn a_segment_stays_one_and_a_value_its_own() {
        let route = Route::to(&["queues", "$dead/a b%+é", "messages"]);
        let route = route.with("count", 5).maybe("after", None::<&str>);
        let route = route.maybe("name", Some("a&b=#?"));
        let expected =
            "/api/v1/queues/%24dead%2Fa%20b%25%2B%C3%A9/messages?count=5&name=a%26b%3D%23%3F";
        assert_eq!(route.as_str(), expected);
    }

    #[test]
    fn where_a_port_is() {
        for (text, expected) in [
            ("http://127.0.0.1:18080", "http://127.0.0.1:18080/"),
            ("https://mq.example.org/", "https://mq.example.org/"),
            ("[::1]:18080", "http://[::1]:18080/"),
        ] {
            let address = address(text).map(|address| address.to_string());
            assert_eq!(address.as_deref(), Ok(expected));
        }
        for text in ["", "ftp://a", "http://a/b", "http://a:b", "http://a@b"] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_problem_becomes_sentences() {
        for (body, expected) in [
            (
                r#"{"title":"Not Found","detail":"there is no queue \"a\""}"#,
                "there is no queue \"a\"",
            ),
            (r#"{"title":"Conflict"}"#, "Conflict"),
            (
                r#"{"detail":"wrong","errors":["a.b: c",{"key":"d"}]}"#,
                "wrong\na.b: c\n{\"key\":\"d\"}",
            ),
            // It may have been a client's, and is to do nothing to a terminal.
            ("{\"detail\":\"a\\u001b[2Jb\"}", "a\\u{1b}[2Jb"),
            ("<html>", "the broker answered 404 Not Found"),
        ] {
            assert_eq!(sentences(&reply(404, body)), expected);
        }
    }

    #[test]
    fn a_status_is_an_exit_code() {
        let codes = [400, 401, 403, 404, 409, 422, 500, 503].map(|status| {
            let status = StatusCode::from_u16(status).expect("it is a status");
            kind(status) as u8
        });
        assert_eq!(codes, [1, 4, 4, 3, 1, 1, 1, 5]);
    }
}
