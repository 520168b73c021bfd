//! The request by which an HTTP connection becomes one of WebSocket (RFC 6455,
//! 4), pure: a request's head in, an answer out.

use aws_lc_rs::digest;

use crate::base64;
use crate::config::WebSocketSettings;

/// Of a request: the line and all headers.
pub const HEAD_BYTES_MAX: usize = 8 << 10;
/// Browsers send some twenty.
const HEADERS_MAX: usize = 64;
/// Appended to the client's key (1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Those of MQTT; the first is the one that it asks for \[MQTT-6.0.0-3\].
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// An upgrade that is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The answer, to be sent before the first frame.
    pub answer: String,
    /// Of the answer: what proves that the key was read (RFC 6455, 4.2.2).
    pub accept: String,
    /// Of the answer: what is spoken from then on.
    pub subprotocol: &'static str,
    /// A page in a browser asks: it has named its origin.
    pub of_browser: bool,
}

/// An upgrade that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status, as in `404 Not Found`.
    pub status: &'static str,
    /// For the person who asked.
    pub why: String,
}

impl Refusal {
    fn new(status: &'static str, why: impl Into<String>) -> Refusal {
        Refusal {
            status,
            why: why.into(),
        }
    }

    fn bad(why: impl Into<String>) -> Refusal {
        Refusal::new("400 Bad Request", why)
    }

    /// What is no request by HTTP.
    pub fn no_http() -> Refusal {
        Refusal::bad("this is no HTTP: clients connect here by WebSocket")
    }

    /// A request longer than [`HEAD_BYTES_MAX`].
    pub fn too_long() -> Refusal {
        let status = "431 Request Header Fields Too Large";
        Refusal::new(
            status,
            format!("the request has more than {HEAD_BYTES_MAX} bytes"),
        )
    }

    /// The whole answer.
    pub fn answer(&self) -> String {
        let version = match self.status {
            "426 Upgrade Required" => "Sec-WebSocket-Version: 13\r\n",
            _ => "",
        };
        let (status, why) = (self.status, &self.why);
        format!(
            "HTTP/1.1 {status}\r\n{version}Content-Type: text/plain\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{why}\n",
            why.len() + 1
        )
    }
}

/// Where the head of a request ends, the empty line included. What was looked
/// at before, `seen` bytes, is not looked at again.
pub fn head_len(bytes: &[u8], seen: usize) -> Option<usize> {
    const END: &[u8] = b"\r\n\r\n";
    let from = seen.saturating_sub(END.len() - 1);
    let end = bytes[from..]
        .windows(END.len())
        .position(|window| window == END)?;
    Some(from + end + END.len())
}

/// The answer to a request whose whole head this is.
///
/// # Errors
/// What is wrong with it, or not allowed here.
pub fn upgrade(head: &[u8], settings: &WebSocketSettings) -> Result<Upgrade, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => {
            let status = "431 Request Header Fields Too Large";
            return Err(Refusal::new(
                status,
                format!("there are more than {HEADERS_MAX} headers"),
            ));
        }
        _ => return Err(Refusal::no_http()),
    }
    let is_get = request.method == Some("GET") && request.version == Some(1);
    grant(
        is_get,
        request.path.unwrap_or_default(),
        request.headers,
        settings,
    )
}

/// The same of a request that somebody else has read. `is_get`: by GET of
/// HTTP/1.1; `target`: its path, and what follows.
///
/// # Errors
/// Those of [`upgrade`].
pub fn grant(
    is_get: bool,
    target: &str,
    headers: &[httparse::Header<'_>],
    settings: &WebSocketSettings,
) -> Result<Upgrade, Refusal> {
    let asked = Asked(headers);
    if !is_get || !asked.lists("Upgrade", "websocket") || !asked.lists("Connection", "Upgrade") {
        let at = match settings.path.as_str() {
            "" => "any path",
            path => path,
        };
        return Err(Refusal::bad(format!(
            "this is an MQTT broker: connect by WebSocket, at {at}, with the subprotocol mqtt"
        )));
    }
    let path = target.split(['?', '#']).next().unwrap_or_default();
    if !settings.path.is_empty() && path != settings.path {
        return Err(Refusal::new(
            "404 Not Found",
            format!("clients connect at {}", settings.path),
        ));
    }
    let origin = asked.only("Origin")?;
    if let Some(origin) = origin.filter(|_| !settings.origins.is_empty())
        && !settings
            .origins
            .iter()
            .any(|allowed| origin.eq_ignore_ascii_case(allowed))
    {
        let why = "pages of this origin may not connect: it is not among websocket_origins";
        return Err(Refusal::new("403 Forbidden", why));
    }
    if asked.only("Sec-WebSocket-Version")? != Some("13") {
        let why = "the version of WebSocket that is spoken here is 13";
        return Err(Refusal::new("426 Upgrade Required", why));
    }
    let key = asked.only("Sec-WebSocket-Key")?.unwrap_or_default();
    if base64::decode(key).is_none_or(|key| key.len() != 16) {
        return Err(Refusal::bad(
            "Sec-WebSocket-Key has to be 16 bytes in base64",
        ));
    }
    let offered = |name: &&&str| asked.lists("Sec-WebSocket-Protocol", name);
    let Some(subprotocol) = SUBPROTOCOLS.iter().find(offered) else {
        return Err(Refusal::bad("Sec-WebSocket-Protocol has to list mqtt")); // [MQTT-6.0.0-3]
    };
    let accept = digest::digest(
        &digest::SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}{GUID}").as_bytes(),
    );
    let accept = base64::encode(accept.as_ref());
    Ok(Upgrade {
        // The subprotocol is the one that was chosen [MQTT-6.0.0-4].
        answer: format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
        ),
        accept,
        subprotocol,
        of_browser: origin.is_some(),
    })
}

/// A request's headers.
struct Asked<'h>(&'h [httparse::Header<'h>]);

impl<'h> Asked<'h> {
    fn all(&self, name: &str) -> impl Iterator<Item = &'h str> {
        let named = self
            .0
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| std::str::from_utf8(header.value).unwrap_or_default().trim())
    }

    /// Whether the word is in a list, which may be in several headers.
    fn lists(&self, name: &str, word: &str) -> bool {
        let mut words = self.all(name).flat_map(|list| list.split(','));
        words.any(|listed| listed.trim().eq_ignore_ascii_case(word))
    }

    /// The value of a header that there is one of at most.
    fn only(&self, name: &'static str) -> Result<Option<&'h str>, Refusal> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(Refusal::bad(format!("{name} is there twice"))),
        }
    }
}
