//! A service of the operator's that knows clients: it is asked by HTTP.
//!
//! Owns what it is asked and what its answers mean, which is all that docs say
//! of it. Lets nobody in without an answer. No answer, nor anything of it, is in
//! a log line or an error, but for the names of its keys.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use serde_json::{Map, Value, json};

use super::breaker::Breaker;
use super::passwords::FileError;
use super::remembered::{Question, Remembered};
use super::requests::{self, Reply, RequestError, Requests};
use super::{Answer, Answering, Authenticated, Authenticator, Credentials, is_name};
use crate::access::OwnRights;
use crate::base64;
use crate::config::HttpSettings;
use crate::protocol::Version;

/// What explanations call whoever said what a client may do.
const RIGHTS_SOURCE: &str = "the service's answer";
const YEAR_SECS: u64 = 365 * 24 * 60 * 60;

/// The service, and what it has said lately.
pub struct Service {
    settings: HttpSettings,
    requests: Requests,
    breaker: Breaker,
    remembered: Remembered<(Finding, Instant)>,
}

/// What the service says of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    Allow {
        /// `None`: whoever the client says.
        user: Option<Arc<str>>,
        lasts: Option<Duration>,
        rights: Option<OwnRights>,
    },
    Deny,
    /// The next one is asked.
    Ignore,
}

impl Service {
    /// `None`: there is none.
    ///
    /// # Errors
    /// What is wrong with a file that it needs.
    pub fn open(settings: &HttpSettings) -> Result<Option<Service>, FileError> {
        let Some(address) = &settings.address else {
            return Ok(None);
        };
        let requests = Requests::new(requests::Settings {
            address: address.clone(),
            headers_file: settings.headers_file.clone(),
            ca_file: settings.ca_file.clone(),
            timeout: settings.timeout,
            connections_max: settings.connections_max,
            waiting_max: settings.waiting_max,
        })?;
        let remembered = Remembered::new(settings.cache_entries_max)
            .map_err(|_| FileError("the system gives no random numbers".to_owned()))?;
        Ok(Some(Service {
            breaker: Breaker::new(settings.failures_max, settings.pause),
            settings: settings.clone(),
            requests,
            remembered,
        }))
    }

    /// Reads its files again, and forgets all answers.
    ///
    /// # Errors
    /// What is wrong with a file: then they stay as they were.
    pub fn reload(&self) -> Result<(), FileError> {
        self.remembered.forget();
        self.requests.reload()
    }

    async fn find(&self, credentials: Credentials<'_>) -> Answer {
        let (asked, known) = self.recall(&credentials, Instant::now());
        if let Some(answer) = known {
            return answer;
        }
        let address = self.requests.address().without_query();
        let Some(leave) = self.breaker.leave(Instant::now()) else {
            return Answer::Unavailable("it failed, and is left alone for a while".into());
        };
        let read = |reply: Reply| read_answer(reply.status, &reply.body, self.settings.rights);
        let why = match self.requests.post(|| question(&credentials)).await {
            // The service has not been asked, and the breaker learns nothing.
            Err(RequestError::Busy) => return Answer::Busy,
            Err(RequestError::Failed(why)) => why,
            // What one client brings about does not shut out the others.
            Err(RequestError::Invalid(why)) => return Answer::Unavailable(why.into()),
            Ok(reply) if is_failure(reply.status) => status_of(reply.status),
            Ok(reply) => match read(reply) {
                Ok(finding) => {
                    if leave.succeeded() {
                        tracing::info!(address, "the service answers again");
                    }
                    if let Some(asked) = asked {
                        self.remember(asked, &finding, Instant::now());
                    }
                    return answer(finding, Duration::ZERO, &credentials);
                }
                Err(why) => return Answer::Unavailable(why.into()),
            },
        };
        if leave.failed(Instant::now()) {
            let secs = self.settings.pause.as_secs();
            tracing::error!(
                address,
                why,
                "the service fails, and is not asked for {secs} s"
            );
        }
        Answer::Unavailable(why.into())
    }

    /// What was said before to the same question, if it holds at this moment; and
    /// by what to remember an answer, if any is.
    fn recall(
        &self,
        credentials: &Credentials<'_>,
        now: Instant,
    ) -> (Option<Question>, Option<Answer>) {
        if self.settings.cache_yes.is_zero() && self.settings.cache_no.is_zero() {
            return (None, None);
        }
        // The text goes at once: it can be six times what the client sent.
        let (asked, known) = self
            .remembered
            .look_up(question(credentials).as_bytes(), now);
        let answer = known.map(|(finding, since)| {
            let age = now.saturating_duration_since(since);
            answer(finding, age, credentials)
        });
        (Some(asked), answer)
    }

    /// An answer holds as long as is configured, and no longer than it says.
    fn remember(&self, asked: Question, finding: &Finding, now: Instant) {
        let holds = match finding {
            Finding::Allow { lasts, .. } => {
                let configured = self.settings.cache_yes;
                lasts.map_or(configured, |lasts| lasts.min(configured))
            }
            Finding::Deny | Finding::Ignore => self.settings.cache_no,
        };
        if !holds.is_zero() {
            let remembered = (finding.clone(), now);
            self.remembered.remember(asked, remembered, now + holds);
        }
    }
}

impl Authenticator for Service {
    fn name(&self) -> &'static str {
        "HTTP service"
    }

    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Answering<'a> {
        Box::pin(self.find(credentials))
    }

    fn rights_of_unknown(&self) -> Option<OwnRights> {
        (self.settings.rights).then(|| OwnRights::nothing(RIGHTS_SOURCE))
    }
}

/// All that the service is told of a client, as JSON.
fn question(credentials: &Credentials<'_>) -> String {
    let mut question = json!({
        "client_id": credentials.client,
        "user": credentials.user,
        "password": null,
        "address": credentials.address,
        "listener": credentials.listener,
        "protocol_version": credentials.version.map(version_name),
    });
    match credentials
        .password
        .map(|said| (said, str::from_utf8(said)))
    {
        None => {}
        Some((_, Ok(text))) => question["password"] = text.into(),
        Some((bytes, Err(_))) => question["password_base64"] = base64::encode(bytes).into(),
    }
    if let Some(certificate) = credentials.certificate {
        let fingerprint = digest::digest(&digest::SHA256, certificate);
        let hex = fingerprint.as_ref().iter();
        let hex: String = hex.map(|byte| format!("{byte:02x}")).collect();
        question["certificate_sha256"] = hex.into();
    }
    question.to_string()
}

fn version_name(version: Version) -> &'static str {
    match version {
        Version::V3_1 => "3.1",
        Version::V3_1_1 => "3.1.1",
        Version::V5 => "5",
    }
}

/// What a finding of some time ago is to the chain.
fn answer(finding: Finding, age: Duration, credentials: &Credentials<'_>) -> Answer {
    let (user, lasts, rights) = match finding {
        Finding::Deny => return Answer::No("it says no".into()),
        Finding::Ignore => return Answer::Next,
        Finding::Allow {
            user,
            lasts,
            rights,
        } => (user, lasts, rights),
    };
    let said = credentials.user.filter(|user| !user.is_empty());
    if user.is_none() && said.is_some_and(|user| !is_name(user)) {
        return Answer::No("the user's name has a control character".into());
    }
    Answer::Yes(Authenticated {
        user: user.or_else(|| said.map(Arc::from)),
        // No answer is remembered for longer than that.
        lasts: lasts.map(|lasts| lasts.saturating_sub(age)),
        rights,
    })
}

/// Whether a status says that the service fails, and not one client's question.
fn is_failure(status: u16) -> bool {
    // Request Timeout, and Too Many Requests.
    matches!(status, 408 | 429 | 500..)
}

fn status_of(status: u16) -> String {
    format!("it answers with status {status}")
}

/// What an answer of that status says. `takes_rights`: whether it also says what
/// the client may do.
///
/// # Errors
/// It is no answer: why, without what stands in it.
pub fn read_answer(status: u16, body: &[u8], takes_rights: bool) -> Result<Finding, String> {
    let nothing_said = || takes_rights.then(|| OwnRights::nothing(RIGHTS_SOURCE));
    match status {
        200 => {}
        204 => {
            return Ok(Finding::Allow {
                user: None,
                lasts: None,
                rights: nothing_said(),
            });
        }
        401 | 403 => return Ok(Finding::Deny),
        status => return Err(status_of(status)),
    }
    let wrong = |why: &str| format!("its answer {why}");
    let value: Value = serde_json::from_slice(body).map_err(|error| {
        // Not its words, which may be the answer's.
        wrong(&format!(
            "is no JSON from byte {} on",
            place_of(body, &error)
        ))
    })?;
    let keys = value.as_object().ok_or_else(|| wrong("is no object"))?;
    const KNOWN: [&str; 4] = ["result", "user", "lasts_secs", "rights"];
    if let Some(key) = keys.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        let known = KNOWN.join(", ");
        return Err(wrong(&format!(
            "has the key {key:?}, and there are {known}"
        )));
    }
    let form = "needs \"result\", which is \"allow\", \"deny\" or \"ignore\"";
    match keys.get("result").and_then(Value::as_str) {
        Some("allow") => {}
        Some("deny") => return Ok(Finding::Deny),
        Some("ignore") => return Ok(Finding::Ignore),
        _ => return Err(wrong(form)),
    }
    Ok(Finding::Allow {
        user: user_of(keys).map_err(wrong)?,
        lasts: lasts_of(keys).map_err(wrong)?,
        rights: match keys.get("rights") {
            None => nothing_said(),
            Some(_) if !takes_rights => {
                return Err(wrong("has rights, and http_rights is not set"));
            }
            Some(value) => Some(
                OwnRights::parse(RIGHTS_SOURCE, value)
                    .map_err(|why| wrong(&format!("says rights that {why}")))?,
            ),
        },
    })
}

fn user_of(keys: &Map<String, Value>) -> Result<Option<Arc<str>>, &'static str> {
    match keys.get("user") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(user)) if is_name(user) && user.len() <= usize::from(u16::MAX) => {
            Ok(Some(user.as_str().into()))
        }
        Some(_) => Err("has a user that is no name"),
    }
}

fn lasts_of(keys: &Map<String, Value>) -> Result<Option<Duration>, &'static str> {
    match keys.get("lasts_secs") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(secs @ 1..=YEAR_SECS) => Ok(Some(Duration::from_secs(secs))),
            _ => Err("has lasts_secs that are no whole number from 1 to 31536000"),
        },
    }
}

/// Where in a text the error is.
fn place_of(body: &[u8], error: &serde_json::Error) -> usize {
    let lines = body.split_inclusive(|byte| *byte == b'\n');
    let before: usize = lines
        .take(error.line().saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    before + error.column()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;
    use crate::config::Config;

    fn allowed(user: Option<&str>, lasts: Option<u64>, rights: Option<OwnRights>) -> Finding {
        Finding::Allow {
            user: user.map(Arc::from),
            lasts: lasts.map(Duration::from_secs),
            rights,
        }
    }

    #[test]
    fn what_answers_mean() {
        let rights = json!({"allow": {"publish": ["a"]}});
        let said = OwnRights::parse(RIGHTS_SOURCE, &rights).expect("they are valid");
        let nothing = OwnRights::nothing(RIGHTS_SOURCE);
        for (status, body, takes_rights, expected) in [
            (
                200,
                json!({"result": "allow"}),
                false,
                allowed(None, None, None),
            ),
            (
                200,
                json!({"result": "allow"}),
                true,
                allowed(None, None, Some(nothing.clone())),
            ),
            (
                200,
                json!({"result": "allow", "user": "ann", "lasts_secs": 60, "rights": rights}),
                true,
                allowed(Some("ann"), Some(60), Some(said)),
            ),
            (200, json!({"result": "deny"}), true, Finding::Deny),
            (
                200,
                json!({"result": "ignore", "user": null}),
                true,
                Finding::Ignore,
            ),
            (204, json!("whatever"), false, allowed(None, None, None)),
            (204, json!(null), true, allowed(None, None, Some(nothing))),
            (401, json!({"result": "allow"}), false, Finding::Deny),
            (403, json!({"result": "allow"}), false, Finding::Deny),
        ] {
            let found = read_answer(status, body.to_string().as_bytes(), takes_rights);
            assert_eq!(found, Ok(expected), "{status} {body} {takes_rights}");
        }
    }

    /// What is no answer lets nobody in, and says nothing of what stood in it.
    #[test]
    fn what_is_no_answer() {
        for (status, body, said) in [
            (201, r#"{"result": "allow"}"#, "it answers with status 201"),
            (302, "", "it answers with status 302"),
            (404, r#"{"result": "allow"}"#, "it answers with status 404"),
            (500, r#"{"result": "allow"}"#, "it answers with status 500"),
            (200, "", "its answer is no JSON from byte 0 on"),
            (200, "allow", "its answer is no JSON from byte 1 on"),
            (
                200,
                "{\"user\":\n\"canary\",}",
                "its answer is no JSON from byte 19 on",
            ),
            (200, "[\"allow\"]", "its answer is no object"),
            (200, "{}", "its answer needs \"result\""),
            (200, r#"{"result": true}"#, "its answer needs \"result\""),
            (200, r#"{"result": "Allow"}"#, "its answer needs \"result\""),
            (
                200,
                r#"{"result": "canary"}"#,
                "its answer needs \"result\"",
            ),
            (
                200,
                r#"{"result": "allow", "right": {}}"#,
                "its answer has the key \"right\"",
            ),
            (
                200,
                r#"{"result": "allow", "user": ""}"#,
                "its answer has a user that is no name",
            ),
            (
                200,
                r#"{"result": "allow", "user": 7}"#,
                "its answer has a user that is no name",
            ),
            (
                200,
                "{\"result\": \"allow\", \"user\": \"a\\nb\"}",
                "its answer has a user",
            ),
            (
                200,
                r#"{"result": "allow", "lasts_secs": 0}"#,
                "its answer has lasts_secs",
            ),
            (
                200,
                r#"{"result": "allow", "lasts_secs": -1}"#,
                "its answer has lasts_secs",
            ),
            (
                200,
                r#"{"result": "allow", "lasts_secs": 1e9}"#,
                "its answer has lasts_secs",
            ),
            (
                200,
                r#"{"result": "allow", "rights": []}"#,
                "its answer says rights that have to be",
            ),
        ] {
            let found = read_answer(status, body.as_bytes(), true);
            let why = found.expect_err(body);
            assert!(why.starts_with(said), "{body}: {why}");
            assert!(!why.contains("canary"), "{why}");
        }
        let rights = br#"{"result": "allow", "rights": {}}"#;
        assert!(read_answer(200, rights, true).is_ok());
        assert!(read_answer(200, rights, false).is_err());
    }

    #[test]
    fn what_is_asked() {
        let ann = Credentials {
            address: Some(Ipv4Addr::LOCALHOST.into()),
            client: "c",
            user: Some("ann"),
            password: Some(b"\"secret"),
            listener: "0.0.0.0:8883",
            certificate: Some(b"abc"),
            version: Some(Version::V5),
        };
        let asked: Value = serde_json::from_str(&question(&ann)).expect("it is JSON");
        let expected = json!({
            "client_id": "c",
            "user": "ann",
            "password": "\"secret",
            "address": "127.0.0.1",
            "listener": "0.0.0.0:8883",
            "protocol_version": "5",
            "certificate_sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        });
        assert_eq!(asked, expected);
        let binary = question(&Credentials {
            password: Some(b"\xff"),
            ..ann
        });
        let binary: Value = serde_json::from_str(&binary).expect("it is JSON");
        assert_eq!(
            (&binary["password"], &binary["password_base64"]),
            (&json!(null), &json!("/w=="))
        );
        let nobody: Value =
            serde_json::from_str(&question(&Credentials::NOBODY)).expect("it is JSON");
        assert_eq!(
            (&nobody["user"], &nobody["address"]),
            (&json!(null), &json!(null))
        );
    }

    fn service(address: &str, change: impl FnOnce(&mut HttpSettings)) -> Service {
        let mut settings = Config::default().authentication.http;
        settings.address = Some(address.parse().expect("it is an address"));
        change(&mut settings);
        let service = Service::open(&settings).expect("it needs no file");
        service.expect("it has an address")
    }

    /// What ran out is asked again, and counts as no refusal.
    #[test]
    fn an_answer_is_remembered_as_long_as_it_lasts() {
        let secs = Duration::from_secs;
        let service = service("http://127.0.0.1:1/", |settings| {
            (settings.cache_yes, settings.cache_no) = (secs(60), secs(30));
        });
        let ann = Credentials {
            user: Some("ann"),
            ..Credentials::NOBODY
        };
        let start = Instant::now();
        let last = Duration::from_millis(1);
        for (finding, holds) in [
            (allowed(None, Some(10), None), secs(10)),
            (allowed(None, Some(100), None), secs(60)),
            (allowed(None, None, None), secs(60)),
            (Finding::Deny, secs(30)),
            (Finding::Ignore, secs(30)),
        ] {
            let (asked, _) = service.recall(&ann, start);
            let asked = asked.expect("answers are remembered");
            service.remember(asked, &finding, start);
            let known = |age| service.recall(&ann, start + age).1;
            let age = holds - last;
            assert_eq!(known(age), Some(answer(finding, age, &ann)));
            assert_eq!(known(holds), None);
            service.remembered.forget();
        }
    }

    /// Answers one request after the other, each on a connection of its own; ends
    /// after the last.
    fn serve(answers: Vec<(u16, &'static str)>) -> (String, std::thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = format!("http://{}/", listener.local_addr().expect("it has one"));
        let serving = std::thread::spawn(move || {
            for (status, body) in answers {
                let (stream, _) = listener.accept().expect("somebody asks");
                let mut reader = BufReader::new(&stream);
                let mut len = 0;
                loop {
                    let mut line = String::new();
                    reader.read_line(&mut line).expect("it is a request");
                    let line = line.trim().to_ascii_lowercase();
                    if let Some(said) = line.strip_prefix("content-length:") {
                        len = said.trim().parse().expect("it is a number");
                    }
                    if line.is_empty() {
                        break;
                    }
                }
                reader.read_exact(&mut vec![0; len]).expect("it is whole");
                let (len, close) = (body.len(), "Connection: close");
                let head = format!("HTTP/1.1 {status} x\r\nContent-Length: {len}\r\n{close}");
                write!(&stream, "{head}\r\n\r\n{body}").expect("it is read");
            }
        });
        (address, serving)
    }

    /// One client that the service cannot answer does not shut out the others; a
    /// service that fails is left alone.
    #[test]
    fn what_one_client_brings_about_is_not_the_services_failure() {
        let own = [
            (400, ""),
            (404, ""),
            (413, ""),
            (422, ""),
            (302, ""),
            (201, r#"{"result": "allow"}"#),
            (200, "no JSON"),
            (200, r#"{"result": "allow", "user": ""}"#),
        ];
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        let left_alone = Answer::Unavailable("it failed, and is left alone for a while".into());
        for status in [408, 429, 500, 503] {
            let (address, serving) = serve([&own[..], &[(status, "")]].concat());
            let service = service(&address, |settings| settings.failures_max = 1);
            let ask = || runtime.block_on(service.authenticate(Credentials::NOBODY));
            for said in own {
                let found = ask();
                assert!(matches!(found, Answer::Unavailable(_)), "{said:?}");
                assert_ne!(found, left_alone, "{said:?}");
            }
            assert_ne!(ask(), left_alone);
            serving.join().expect("it was asked each time");
            assert_eq!(ask(), left_alone, "{status}");
        }
    }

    /// What is remembered does not last longer for it.
    #[test]
    fn who_is_let_in() {
        let secs = Duration::from_secs;
        let named = |user| Credentials {
            user: Some(user),
            ..Credentials::NOBODY
        };
        let yes = |user: Option<&str>, lasts: Option<u64>| {
            Answer::Yes(Authenticated {
                user: user.map(Arc::from),
                lasts: lasts.map(secs),
                rights: None,
            })
        };
        for (finding, age, said, expected) in [
            (
                allowed(None, None, None),
                7,
                named("ann"),
                yes(Some("ann"), None),
            ),
            (
                allowed(Some("eve"), None, None),
                7,
                named("ann"),
                yes(Some("eve"), None),
            ),
            (
                allowed(None, Some(10), None),
                7,
                named("ann"),
                yes(Some("ann"), Some(3)),
            ),
            (allowed(None, None, None), 0, named(""), yes(None, None)),
            (
                allowed(None, None, None),
                0,
                Credentials::NOBODY,
                yes(None, None),
            ),
            (Finding::Ignore, 0, named("ann"), Answer::Next),
        ] {
            assert_eq!(answer(finding, secs(age), &said), expected);
        }
        for (finding, age, said) in [
            (allowed(None, None, None), 0, named("a\nb")),
            (Finding::Deny, 0, named("ann")),
        ] {
            assert!(matches!(answer(finding, secs(age), &said), Answer::No(_)));
        }
    }
}
