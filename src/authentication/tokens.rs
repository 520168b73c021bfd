//! JSON Web Tokens (RFC 7519): somebody who has a key says, in a signed text,
//! who a client is, and until when.
//!
//! Owns the keys, as their file was when it was last read whole, or as they were
//! fetched last, and what is asked of a token. A key is of one kind, and nothing a token says makes it
//! another: what tokens say of keys themselves (`jku`, `jwk`, `x5c`) counts for
//! nothing. No token is in a log line or an error.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyOperations};
use jsonwebtoken::jwk::{KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, Validation};
use parking_lot::RwLock;
use serde_json::{Map, Value};

use super::fetching::Fetching;
use super::method::{Conversation, Method, Step};
use super::passwords::{FileError, read_within};
use super::requests::{self, RequestError, Requests};
use super::{Answer, Answering, Authenticated, Authenticator, Credentials, is_name};
use crate::access::OwnRights;
use crate::config::{HttpAddress, TokenAlgorithm, TokenSettings};
use crate::message::Identity;

/// As Authentication Method (MQTT 5, 4.12).
pub const METHOD: &str = "JWT";
/// Longer ones are not looked into.
const TOKEN_BYTES_MAX: usize = 16 << 10;
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How long fetching keys may take.
const FETCH_MAX: Duration = Duration::from_secs(5);
/// A token that names no key is tried with each.
const KEYS_MAX: usize = 32;
/// A modulus of 2,048 to 8,192 bits.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// Keys, and what tokens signed with them have to say.
pub struct Tokens {
    source: KeySource,
    settings: TokenSettings,
    keys: RwLock<Arc<[Key]>>,
}

/// Where the keys come from.
enum KeySource {
    File(PathBuf),
    Address(Box<Fetching>),
}

/// One of the file's keys.
struct Key {
    /// `kid`, by which tokens name it.
    id: Option<String>,
    /// Those of the configured ones that it is for; at least one.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl Tokens {
    /// Reads the file of keys at `path`.
    ///
    /// # Errors
    /// It cannot be read, is no key set, or no key in it is for an algorithm
    /// of the settings.
    pub fn open(path: &Path, settings: TokenSettings) -> Result<Tokens, FileError> {
        let keys = read_keys(path, &settings.algorithms)?;
        Ok(Tokens::with_keys(keys, path, settings))
    }

    /// With the keys that a file at `path` has when this is its text.
    ///
    /// # Errors
    /// Those of [`Tokens::open`].
    pub fn parse(text: &str, path: &Path, settings: TokenSettings) -> Result<Tokens, FileError> {
        let keys = parse_keys(text, path, &settings.algorithms)?;
        Ok(Tokens::with_keys(keys, path, settings))
    }

    fn with_keys(keys: Vec<Key>, path: &Path, settings: TokenSettings) -> Tokens {
        Tokens {
            source: KeySource::File(path.to_owned()),
            settings,
            keys: RwLock::new(keys.into()),
        }
    }

    /// Without keys, until [`Tokens::keep_fetching`] has found some there.
    ///
    /// # Errors
    /// The authorities of its certificate cannot be read.
    pub fn fetched_from(
        address: &HttpAddress,
        settings: TokenSettings,
    ) -> Result<Tokens, FileError> {
        let requests = Requests::new(requests::Settings {
            address: address.clone(),
            headers_file: None,
            ca_file: settings.keys_ca_file.clone(),
            timeout: FETCH_MAX,
            connections_max: 1,
            waiting_max: 1,
        })?;
        Ok(Tokens {
            source: KeySource::Address(Box::new(Fetching::new(
                requests,
                settings.keys_pause,
                settings.keys_refresh,
            ))),
            settings,
            keys: RwLock::new(Arc::new([])),
        })
    }

    /// Reads the file again, and says how many keys there are now; or has them
    /// fetched again soon, and says nothing.
    ///
    /// # Errors
    /// Those of [`Tokens::open`]; then all stays as it was.
    pub fn reload(&self) -> Result<Option<usize>, FileError> {
        match &self.source {
            KeySource::File(path) => {
                let keys = read_keys(path, &self.settings.algorithms)?;
                let len = keys.len();
                *self.keys.write() = keys.into();
                Ok(Some(len))
            }
            KeySource::Address(fetching) => {
                fetching.requests.reload()?;
                fetching.soon();
                Ok(None)
            }
        }
    }

    /// The same, with the keys that `before` has, if it has them from there too:
    /// they stay until others are fetched.
    #[must_use]
    pub fn with_keys_of(self, before: &Tokens) -> Tokens {
        if let (KeySource::Address(here), KeySource::Address(there)) =
            (&self.source, &before.source)
            && here.requests.address() == there.requests.address()
            && self.settings.algorithms == before.settings.algorithms
        {
            *self.keys.write() = before.keys.read().clone();
        }
        self
    }

    /// Fetches keys, again and again, if they have an address. `failed` is called
    /// whenever there are none: then those from before stay.
    pub async fn keep_fetching(&self, failed: impl Fn()) {
        let KeySource::Address(fetching) = &self.source else {
            return;
        };
        let address = &*fetching.requests.address().without_query();
        // After a fault of its own it begins again, and not at once.
        fetching.rest_out().await;
        loop {
            fetching.begin();
            let max_age = match self.fetch(&fetching.requests).await {
                Ok((keys, max_age)) => {
                    let count = keys.len();
                    *self.keys.write() = keys.into();
                    tracing::info!(address, keys = count, "the keys of tokens were fetched");
                    Ok(max_age)
                }
                Err(why) => {
                    failed();
                    match self.keys_len() {
                        0 => tracing::error!(
                            address,
                            why,
                            "the keys of tokens cannot be fetched, and all tokens are refused until \
                             they can"
                        ),
                        keys => tracing::error!(
                            address,
                            why,
                            keys,
                            "the keys of tokens cannot be fetched, and stay as they were"
                        ),
                    }
                    Err(())
                }
            };
            let wait = fetching.end(max_age);
            fetching.rest(wait).await;
        }
    }

    async fn fetch(&self, requests: &Requests) -> Result<(Vec<Key>, Option<Duration>), String> {
        let reply = requests.get().await.map_err(|error| match error {
            RequestError::Busy => "it is being fetched".to_owned(),
            RequestError::Failed(why) | RequestError::Invalid(why) => why,
        })?;
        if reply.status != 200 {
            return Err(format!("the answer has status {}", reply.status));
        }
        let text = str::from_utf8(&reply.body).map_err(|_| "the answer is no text".to_owned())?;
        let keys = parse_keys(text, Path::new("the answer"), &self.settings.algorithms);
        let keys = keys.map_err(|error| error.to_string())?;
        Ok((keys, reply.max_age))
    }

    /// Whether a token may be of a key that is published and not known here.
    fn may_be_of_other_key(&self, token: &str) -> bool {
        let keys = self.keys.read().clone();
        let named = jsonwebtoken::decode_header(token).ok();
        let named = named.and_then(|header| header.kid);
        let is_known = |kid: &str| keys.iter().any(|key| key.id.as_deref() == Some(kid));
        keys.is_empty() || named.is_some_and(|kid| !is_known(&kid))
    }

    /// As [`Tokens::check`], but for a key that is not known the keys are fetched
    /// first, if they may be by now.
    async fn find(&self, token: &str, who: (Option<&str>, &str)) -> Answer {
        let checked = self.check(token, who, SystemTime::now());
        let (KeySource::Address(fetching), Err(_)) = (&self.source, &checked) else {
            return checked.map_or_else(Answer::No, Answer::Yes);
        };
        if !self.may_be_of_other_key(token) {
            return checked.map_or_else(Answer::No, Answer::Yes);
        }
        fetching.fetched().await;
        match self.check(token, who, SystemTime::now()) {
            Err(_) if fetching.has_failed() && self.may_be_of_other_key(token) => {
                Answer::Unavailable(
                    "the token's key is not known, and keys cannot be fetched".into(),
                )
            }
            checked => checked.map_or_else(Answer::No, Answer::Yes),
        }
    }

    /// Whether keys come from an address, and not from a file.
    pub fn are_fetched(&self) -> bool {
        matches!(self.source, KeySource::Address(_))
    }

    /// How many keys there are.
    pub fn keys_len(&self) -> usize {
        self.keys.read().len()
    }

    /// Who the bearer of `token` is, at the moment `now`, if it is the client
    /// `client` and, where it gives a name, `user`.
    ///
    /// # Errors
    /// Why it is nobody, for the log alone.
    pub fn check(
        &self,
        token: &str,
        (user, client): (Option<&str>, &str),
        now: SystemTime,
    ) -> Result<Authenticated, Cow<'static, str>> {
        let claims = self.verify(token)?;
        let settings = &self.settings;
        let lasts = self.check_times(&claims, now)?;
        if !settings.issuer.is_empty() && text(&claims, "iss") != Some(&settings.issuer) {
            return Err("the token is another issuer's".into());
        }
        let is_audience = match claims.get("aud") {
            None => settings.audience.is_empty(),
            Some(Value::String(name)) => *name == settings.audience,
            Some(Value::Array(names)) => names.iter().any(|name| *name == *settings.audience),
            Some(_) => false,
        };
        // Who does not say what it is called is nobody's audience.
        if !is_audience || settings.audience.is_empty() && claims.contains_key("aud") {
            return Err("the token is for another audience".into());
        }
        let name = text(&claims, &settings.user_claim).filter(|name| is_name(name));
        let name = name.ok_or("the token names no user")?;
        if user.is_some_and(|user| !user.is_empty() && user != name) {
            return Err("the token is another user's".into());
        }
        let is_client = match claims.get(&settings.client_claim) {
            Some(named) if !settings.client_claim.is_empty() => *named == *client,
            _ => true,
        };
        if !is_client {
            return Err("the token is another client's".into());
        }
        Ok(Authenticated {
            lasts,
            rights: self.rights(&claims)?,
            ..Authenticated::as_user(name)
        })
    }

    /// What the token says of what its user may do, where tokens are to say that:
    /// a token that does not allows nothing.
    fn rights(&self, claims: &Map<String, Value>) -> Result<Option<OwnRights>, String> {
        let claim = &self.settings.rights_claim;
        if claim.is_empty() {
            return Ok(None);
        }
        let source = format!("the token's claim {claim}");
        let rights = match claims.get(claim) {
            Some(value) => OwnRights::parse(&source, value)
                .map_err(|why| format!("the token's rights, its claim {claim}, {why}"))?,
            None => OwnRights::nothing(&source),
        };
        Ok(Some(rights))
    }

    /// The claims of a token that one of the keys has signed.
    fn verify(&self, token: &str) -> Result<Map<String, Value>, &'static str> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err("the token is longer than 16 KiB");
        }
        let header = jsonwebtoken::decode_header(token)
            .map_err(|_| "it is no token of an algorithm that there is")?;
        if header.crit.is_some() {
            return Err("the token asks for an extension"); // RFC 7515, 4.1.11
        }
        let mut validation = Validation::new(header.alg);
        // What claims say is looked at by `check`, which is told the time.
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_aud) = (false, false);
        let keys = self.keys.read().clone();
        let fits = |key: &&Key| {
            let is_named = match (&key.id, &header.kid) {
                (Some(id), Some(named)) => id == named,
                _ => true,
            };
            is_named && key.algorithms.contains(&header.alg)
        };
        for key in keys.iter().filter(fits) {
            match jsonwebtoken::decode(token, &key.key, &validation) {
                Ok(token) => return Ok(token.claims),
                Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => {}
                Err(_) => return Err("the token cannot be read"),
            }
        }
        Err("no key, of those for its algorithm, has signed the token")
    }

    /// How much longer the token is valid; `None`: for ever.
    fn check_times(
        &self,
        claims: &Map<String, Value>,
        now: SystemTime,
    ) -> Result<Option<Duration>, &'static str> {
        let leeway = self.settings.leeway;
        let later =
            |moment: SystemTime| moment.checked_add(leeway).ok_or("the token has no moment");
        if let Some(from) = moment(claims, "nbf")?
            && later(now)? < from
        {
            return Err("the token is not valid yet");
        }
        match moment(claims, "exp")? {
            Some(end) => match later(end)?.duration_since(now) {
                Ok(lasts) if !lasts.is_zero() => Ok(Some(lasts)),
                _ => Err("the token has expired"),
            },
            None if self.settings.require_expiry => Err("the token has no end"),
            None => Ok(None),
        }
    }
}

impl Authenticator for Tokens {
    fn name(&self) -> &'static str {
        "tokens"
    }

    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Answering<'a> {
        let token = credentials
            .password
            .and_then(|said| str::from_utf8(said).ok());
        Box::pin(async move {
            match token.filter(|said| is_token(said)) {
                None => Answer::Next,
                Some(token) => {
                    self.find(token, (credentials.user, credentials.client))
                        .await
                }
            }
        })
    }
}

/// Tokens as a method of enhanced authentication: a client that has a new one
/// says so before the old one ends.
pub struct TokenMethod(pub Arc<Tokens>);

impl Method for TokenMethod {
    fn name(&self) -> &str {
        METHOD
    }

    fn begin(&self) -> Box<dyn Conversation> {
        Box::new(TokenMethod(self.0.clone()))
    }
}

impl Conversation for TokenMethod {
    fn step(&mut self, who: &Identity, data: &[u8]) -> Step {
        let said = (who.user.as_deref(), who.client.as_str());
        let found = str::from_utf8(data)
            .map_err(|_| "it is no text".into())
            .and_then(|token| self.0.check(token, said, SystemTime::now()));
        match found {
            Ok(who) => Step::Accept {
                who,
                data: Vec::new(),
            },
            Err(why) => {
                tracing::info!(client = ?who.client, %why, "a token is refused");
                if let KeySource::Address(fetching) = &self.0.source
                    && str::from_utf8(data).is_ok_and(|token| self.0.may_be_of_other_key(token))
                    && (fetching.want() || fetching.has_failed())
                {
                    // Keys cannot be waited for here: who tries again gets in.
                    return Step::Later;
                }
                Step::Reject
            }
        }
    }
}

/// Whether a password is meant as a token: three parts in base64url, of which
/// the first is an object of JSON.
fn is_token(password: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    password.starts_with("ey")
        && password.split('.').count() == 3
        && password.split('.').all(|part| part.bytes().all(is_part))
}

/// A name that can stand in a log.
fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    claims.get(name).and_then(Value::as_str)
}

/// A NumericDate (RFC 7519, 2).
fn moment(claims: &Map<String, Value>, name: &str) -> Result<Option<SystemTime>, &'static str> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let seconds = value.as_f64();
    let since = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let moment = since.and_then(|since| UNIX_EPOCH.checked_add(since));
    moment
        .map(Some)
        .ok_or("the token's exp or nbf is no moment")
}

fn read_keys(path: &Path, algorithms: &[TokenAlgorithm]) -> Result<Vec<Key>, FileError> {
    let failed = |error| FileError(format!("cannot read {}: {error}", path.display()));
    let (text, is_open) = read_within(path, FILE_BYTES_MAX).map_err(failed)?;
    let keys = parse_keys(&text, path, algorithms)?;
    if is_open && keys.iter().any(Key::is_secret) {
        let path = path.display();
        tracing::warn!(%path, "everybody on this machine can read a secret that signs tokens: chmod o-r");
    }
    Ok(keys)
}

/// Keys that are for something else are passed over (RFC 7517, 5).
fn parse_keys(
    text: &str,
    path: &Path,
    algorithms: &[TokenAlgorithm],
) -> Result<Vec<Key>, FileError> {
    let wrong = |what: String| FileError(format!("{}: {what}", path.display()));
    let form = "has to be a JSON Web Key Set, as in {\"keys\": [{\"kty\": \"OKP\", ...}]}";
    if text.trim_start().starts_with("-----BEGIN") {
        return Err(wrong(format!(
            "{form}, and is PEM: docs/authentication.md says how to make one of the other"
        )));
    }
    let set: JwkSet = serde_json::from_str(text).map_err(|error| {
        // What stands there may be a secret.
        FileError(format!("{}:{}: {form}", path.display(), error.line()))
    })?;
    if set.keys.len() > KEYS_MAX {
        return Err(wrong(format!(
            "has {} keys, and {KEYS_MAX} is the most",
            set.keys.len()
        )));
    }
    let mut keys = Vec::new();
    for (index, jwk) in set.keys.iter().enumerate() {
        let key = Key::of(jwk, algorithms);
        keys.extend(key.map_err(|why| wrong(format!("key {}: {why}", index + 1)))?);
    }
    if keys.is_empty() {
        return Err(wrong(
            "has no key for any algorithm of jwt_algorithms".to_owned(),
        ));
    }
    Ok(keys)
}

impl Key {
    /// `None`: it is for something else.
    ///
    /// # Errors
    /// What is wrong with it.
    fn of(jwk: &Jwk, algorithms: &[TokenAlgorithm]) -> Result<Option<Key>, &'static str> {
        let common = &jwk.common;
        let is_to_verify = (common.public_key_use.as_ref())
            .is_none_or(|meant| *meant == PublicKeyUse::Signature)
            && (common.key_operations.as_ref())
                .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        let algorithms = algorithms.iter().map(|one| algorithm_of(*one));
        let is_meant = |algorithm: &Algorithm| {
            let named = common.key_algorithm;
            fits(*algorithm, &jwk.algorithm)
                && named.is_none_or(|named| named == KeyAlgorithm::from(*algorithm))
        };
        let mut algorithms: Vec<_> = algorithms.filter(is_meant).collect();
        if !is_to_verify || algorithms.is_empty() {
            return Ok(None);
        }
        let key = DecodingKey::from_jwk(jwk).map_err(|_| "is not in base64url, without padding")?;
        match (&jwk.algorithm, key.kind()) {
            (AlgorithmParameters::OctetKey(_), DecodingKeyKind::SecretOrDer(secret)) => {
                algorithms.retain(|algorithm| secret.len() >= secret_bytes_min(*algorithm));
                if algorithms.is_empty() {
                    // RFC 7518, 3.2
                    return Err(
                        "a secret has to have 32 bytes at least for HS256, 48 for HS384, 64 for \
                         HS512",
                    );
                }
            }
            (_, kind) if !is_public_key(algorithms[0], kind) => {
                return Err("is no valid public key of its kind");
            }
            _ => {}
        }
        Ok(Some(Key {
            id: common.key_id.clone(),
            algorithms,
            key,
        }))
    }

    fn is_secret(&self) -> bool {
        self.key.family() == jsonwebtoken::AlgorithmFamily::Hmac
    }
}

fn algorithm_of(algorithm: TokenAlgorithm) -> Algorithm {
    match algorithm {
        TokenAlgorithm::HS256 => Algorithm::HS256,
        TokenAlgorithm::HS384 => Algorithm::HS384,
        TokenAlgorithm::HS512 => Algorithm::HS512,
        TokenAlgorithm::RS256 => Algorithm::RS256,
        TokenAlgorithm::RS384 => Algorithm::RS384,
        TokenAlgorithm::RS512 => Algorithm::RS512,
        TokenAlgorithm::PS256 => Algorithm::PS256,
        TokenAlgorithm::PS384 => Algorithm::PS384,
        TokenAlgorithm::PS512 => Algorithm::PS512,
        TokenAlgorithm::ES256 => Algorithm::ES256,
        TokenAlgorithm::ES384 => Algorithm::ES384,
        TokenAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}

/// Whether keys of that kind, and of that curve, are for the algorithm.
fn fits(algorithm: Algorithm, key: &AlgorithmParameters) -> bool {
    use Algorithm::{
        ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512,
    };
    match key {
        AlgorithmParameters::OctetKey(_) => matches!(algorithm, HS256 | HS384 | HS512),
        AlgorithmParameters::RSA(_) => {
            matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512)
        }
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => algorithm == ES256,
            EllipticCurve::P384 => algorithm == ES384,
            _ => false,
        },
        AlgorithmParameters::OctetKeyPair(key) => {
            key.curve == EllipticCurve::Ed25519 && algorithm == EdDSA
        }
        _ => false,
    }
}

/// As long as the hash.
fn secret_bytes_min(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::HS512 => 64,
        Algorithm::HS384 => 48,
        _ => 32,
    }
}

fn is_public_key(algorithm: Algorithm, kind: &DecodingKeyKind) -> bool {
    match (algorithm, kind) {
        (_, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            let components = RsaPublicKeyComponents { n, e };
            let parsed = components.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256);
            MODULUS_BYTES.contains(&n.len()) && parsed.is_ok()
        }
        (Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) => {
            ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).is_ok()
        }
        (Algorithm::ES384, DecodingKeyKind::SecretOrDer(point)) => {
            ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).is_ok()
        }
        (_, DecodingKeyKind::SecretOrDer(point)) => ParsedPublicKey::new(&ED25519, point).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA512,
        RsaEncoding, RsaKeyPair,
    };
    use aws_lc_rs::{hmac, rsa};
    use serde_json::json;

    use super::*;
    use crate::base64;
    use crate::config::Config;

    const ALL: [TokenAlgorithm; 12] = [
        TokenAlgorithm::HS256,
        TokenAlgorithm::HS384,
        TokenAlgorithm::HS512,
        TokenAlgorithm::RS256,
        TokenAlgorithm::RS384,
        TokenAlgorithm::RS512,
        TokenAlgorithm::PS256,
        TokenAlgorithm::PS384,
        TokenAlgorithm::PS512,
        TokenAlgorithm::ES256,
        TokenAlgorithm::ES384,
        TokenAlgorithm::EdDSA,
    ];

    /// The moment at which all of it happens, in seconds.
    const NOW: u64 = 1_300_000_000;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(NOW)
    }

    fn url(bytes: &[u8]) -> String {
        let text = base64::encode(bytes).replace('+', "-").replace('/', "_");
        text.trim_end_matches('=').to_owned()
    }

    /// A token with this header and these claims, letter for letter.
    fn token(header: &str, claims: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
        let signed = format!("{}.{}", url(header.as_bytes()), url(claims.as_bytes()));
        let signature = url(&sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    fn settings() -> TokenSettings {
        TokenSettings {
            algorithms: ALL.to_vec(),
            ..Config::default().authentication.tokens
        }
    }

    fn tokens(keys: &[serde_json::Value], settings: TokenSettings) -> Result<Tokens, String> {
        let text = json!({ "keys": keys }).to_string();
        Tokens::parse(&text, Path::new("f"), settings).map_err(|error| error.to_string())
    }

    const SECRET: [u8; 64] = [7; 64];

    fn secret() -> serde_json::Value {
        json!({"kty": "oct", "k": url(&SECRET)})
    }

    fn hs256(signed: &[u8]) -> Vec<u8> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &SECRET);
        hmac::sign(&key, signed).as_ref().to_vec()
    }

    /// One of Ann's, signed with the secret, with other claims.
    fn anns(others: serde_json::Value) -> String {
        let mut claims = json!({"sub": "ann", "exp": NOW + 60});
        for (name, value) in others.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        token(r#"{"alg":"HS256"}"#, &claims.to_string(), hs256)
    }

    fn check(settings: TokenSettings, token: &str) -> Result<Authenticated, Cow<'static, str>> {
        let tokens = tokens(&[secret()], settings).unwrap();
        tokens.check(token, (None, "c"), now())
    }

    fn ann(secs: u64) -> Result<Authenticated, Cow<'static, str>> {
        Ok(Authenticated {
            lasts: Some(Duration::from_secs(secs)),
            ..Authenticated::as_user("ann")
        })
    }

    /// RFC 7515, A.1 to A.3: the same claims, signed with three keys.
    #[test]
    fn the_examples_of_the_rfc() {
        const CLAIMS: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt\
                              cGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let settings = TokenSettings {
            user_claim: "iss".to_owned(),
            leeway: Duration::ZERO,
            ..settings()
        };
        for (header, key, signature) in [
            (
                "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9",
                json!({
                    "kty": "oct",
                    "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4h\
                          cgUuTwjAzZr1Z9CAow",
                }),
                "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
            ),
            (
                "eyJhbGciOiJSUzI1NiJ9",
                json!({
                    "kty": "RSA",
                    "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw\
                          -4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b3269\
                          0r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS\
                          -UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aG\
                          hyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXp\
                          oQ",
                    "e": "AQAB",
                }),
                "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc\
                 _lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWz\
                 O75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-\
                 eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIh\
                 WkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
            ),
            (
                "eyJhbGciOiJFUzI1NiJ9",
                json!({
                    "kty": "EC",
                    "crv": "P-256",
                    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
                }),
                "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqP\
                 P3-Kg6NU1Q",
            ),
        ] {
            let tokens = tokens(&[key], settings.clone()).unwrap();
            let token = format!("{header}.{CLAIMS}.{signature}");
            let found = tokens.check(&token, (None, "c"), now());
            let joe = Authenticated {
                lasts: Some(Duration::from_secs(819_380)),
                ..Authenticated::as_user("joe")
            };
            assert_eq!(found, Ok(joe), "{header}");
            let end = now() + Duration::from_secs(819_380);
            let found = tokens.check(&token, (None, "c"), end);
            assert_eq!(found, Err("the token has expired".into()));
            // One bit of what is signed, and of the signature.
            for place in [header.len() + 5, token.len() - 20] {
                let mut other = token.clone().into_bytes();
                other[place] = if other[place] == b'A' { b'B' } else { b'A' };
                let other = String::from_utf8(other).unwrap();
                assert!(tokens.check(&other, (None, "c"), now()).is_err());
            }
        }
    }

    fn ec(algorithm: &'static EcdsaSigningAlgorithm) -> (EcdsaKeyPair, serde_json::Value) {
        let pair = EcdsaKeyPair::generate(algorithm).unwrap();
        let point = &pair.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        let curve = if x.len() == 32 { "P-256" } else { "P-384" };
        let key = json!({"kty": "EC", "crv": curve, "x": url(x), "y": url(y)});
        (pair, key)
    }

    fn ed25519() -> (Ed25519KeyPair, serde_json::Value) {
        let pair = Ed25519KeyPair::generate().unwrap();
        let x = url(pair.public_key().as_ref());
        (pair, json!({"kty": "OKP", "crv": "Ed25519", "x": x}))
    }

    fn rsa() -> (RsaKeyPair, serde_json::Value) {
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
        let components = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
        let (n, e) = (url(&components.n), url(&components.e));
        (pair, json!({"kty": "RSA", "n": n, "e": e}))
    }

    fn rsa_sign(pair: &RsaKeyPair, how: &'static dyn RsaEncoding, signed: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; pair.public_modulus_len()];
        let random = SystemRandom::new();
        pair.sign(how, &random, signed, &mut signature).unwrap();
        signature
    }

    /// Each kind of key signs for itself, and for no other algorithm; and each
    /// counts only where it is configured.
    #[test]
    fn keys_of_each_kind_beside_each_other() {
        let random = SystemRandom::new();
        let ((p256, p256_key), (p384, p384_key)) = (
            ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
            ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
        );
        let ((ed, ed_key), (rsa, rsa_key)) = (ed25519(), rsa());
        let keys = [secret(), p256_key, p384_key, ed_key, rsa_key];
        let hs512 = hmac::Key::new(hmac::HMAC_SHA512, &SECRET);
        let ec_sign = |pair: &EcdsaKeyPair, signed: &[u8]| {
            let signature = pair.sign(&random, signed).unwrap();
            signature.as_ref().to_vec()
        };
        type Sign<'a> = Box<dyn Fn(&[u8]) -> Vec<u8> + 'a>;
        let signs: [(&str, Sign<'_>); 7] = [
            ("HS256", Box::new(hs256)),
            (
                "HS512",
                Box::new(|signed| hmac::sign(&hs512, signed).as_ref().to_vec()),
            ),
            ("ES256", Box::new(|signed| ec_sign(&p256, signed))),
            ("ES384", Box::new(|signed| ec_sign(&p384, signed))),
            (
                "EdDSA",
                Box::new(|signed| ed.sign(signed).as_ref().to_vec()),
            ),
            (
                "RS256",
                Box::new(|signed| rsa_sign(&rsa, &RSA_PKCS1_SHA256, signed)),
            ),
            (
                "PS512",
                Box::new(|signed| rsa_sign(&rsa, &RSA_PSS_SHA512, signed)),
            ),
        ];
        let claims = json!({"sub": "ann", "exp": NOW + 60}).to_string();
        let all = tokens(&keys, settings()).unwrap();
        for (algorithm, sign) in &signs {
            for named in ALL.map(|one| format!("{one:?}")) {
                let header = json!({"alg": named}).to_string();
                let token = token(&header, &claims, sign);
                let found = all.check(&token, (Some("ann"), "c"), now());
                assert_eq!(found.is_ok(), named == *algorithm, "{algorithm} as {named}");
            }
            let others = ALL.into_iter();
            let others = others.filter(|one| format!("{one:?}") != *algorithm);
            let but_this = TokenSettings {
                algorithms: others.collect(),
                ..settings()
            };
            let but_this = tokens(&keys, but_this).unwrap();
            let header = json!({"alg": algorithm}).to_string();
            let token = token(&header, &claims, sign);
            assert!(but_this.check(&token, (None, "c"), now()).is_err());
        }
    }

    /// Algorithm confusion: what is public signs nothing.
    #[test]
    fn a_public_key_is_no_secret_and_nothing_is_no_signature() {
        let (pair, key) = rsa();
        let tokens = tokens(std::slice::from_ref(&key), settings()).unwrap();
        let claims = json!({"sub": "ann", "exp": NOW + 60}).to_string();
        let der = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(pair.public_key());
        let der = der.unwrap();
        let modulus = key["n"].as_str().unwrap();
        let text = key.to_string();
        for secret in [der.as_ref(), modulus.as_bytes(), text.as_bytes(), b""] {
            let forged = token(r#"{"alg":"HS256"}"#, &claims, |signed| {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
                hmac::sign(&key, signed).as_ref().to_vec()
            });
            assert!(tokens.check(&forged, (None, "c"), now()).is_err());
        }
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"None"}"#,
            r#"{"alg":""}"#,
            r#"{}"#,
            r#"{"alg":["RS256"]}"#,
            r#"{"alg":"RS256"}"#,
            r#"{"alg":"RS256","alg":"none"}"#,
        ] {
            for signature in [b"".to_vec(), vec![0; 256], hs256(b"x")] {
                let forged = token(header, &claims, |_| signature);
                assert!(tokens.check(&forged, (None, "c"), now()).is_err());
            }
        }
        // A key that it brings along.
        let (own, mut own_key) = ed25519();
        own_key["alg"] = "EdDSA".into();
        let header = json!({"alg": "EdDSA", "jwk": own_key, "jku": "https://example.org"});
        let forged = token(&header.to_string(), &claims, |signed| {
            own.sign(signed).as_ref().to_vec()
        });
        assert!(tokens.check(&forged, (None, "c"), now()).is_err());
    }

    #[test]
    fn when_a_token_is_valid() {
        for (claims, expected) in [
            (json!({}), ann(70)),
            (json!({"exp": NOW}), ann(10)),
            (json!({"exp": NOW - 9}), ann(1)),
            (
                json!({"exp": NOW - 10}),
                Err("the token has expired".into()),
            ),
            (json!({"exp": 0}), Err("the token has expired".into())),
            (json!({"exp": NOW + 1, "nbf": NOW + 10}), ann(11)),
            (
                json!({"nbf": NOW + 11}),
                Err("the token is not valid yet".into()),
            ),
            (json!({"nbf": NOW - 100, "iat": NOW + 100}), ann(70)),
            (json!({"exp": null}), Err("the token has no end".into())),
        ] {
            assert_eq!(
                check(settings(), &anns(claims.clone())),
                expected,
                "{claims}"
            );
        }
        let half = check(settings(), &anns(json!({"exp": NOW as f64 + 0.5})));
        let lasts = Duration::from_millis(10_500);
        assert_eq!(half.unwrap().lasts, Some(lasts));
        for no_moment in [
            json!("1300000060"),
            json!(true),
            json!([]),
            json!(-1),
            json!(1e300),
            json!(u64::MAX),
        ] {
            for name in ["exp", "nbf"] {
                let found = check(settings(), &anns(json!({name: no_moment})));
                assert_eq!(
                    found,
                    Err("the token's exp or nbf is no moment".into()),
                    "{no_moment}"
                );
            }
        }
        let endless = TokenSettings {
            require_expiry: false,
            ..settings()
        };
        let found = check(endless.clone(), &anns(json!({"exp": null})));
        assert_eq!(found, Ok(Authenticated::as_user("ann")));
        assert_eq!(check(endless, &anns(json!({}))), ann(70));
    }

    #[test]
    fn whom_a_token_is_of_and_for() {
        let strict = TokenSettings {
            issuer: "login".to_owned(),
            audience: "mqtt".to_owned(),
            ..settings()
        };
        for (claims, is_right) in [
            (json!({"iss": "login", "aud": "mqtt"}), true),
            (json!({"iss": "login", "aud": ["http", "mqtt"]}), true),
            (json!({"iss": "login", "aud": "http"}), false),
            (json!({"iss": "login", "aud": ["mqtt2", 7]}), false),
            (json!({"iss": "login", "aud": []}), false),
            (json!({"iss": "login", "aud": {"mqtt": 1}}), false),
            (json!({"iss": "login"}), false),
            (json!({"iss": "Login", "aud": "mqtt"}), false),
            (json!({"iss": ["login"], "aud": "mqtt"}), false),
            (json!({"aud": "mqtt"}), false),
        ] {
            let found = check(strict.clone(), &anns(claims.clone()));
            assert_eq!(found.is_ok(), is_right, "{claims}: {found:?}");
        }
        // Who is not told its name is nobody's audience (RFC 7519, 4.1.3).
        for aud in [json!("mqtt"), json!(""), json!([]), json!([""])] {
            let found = check(settings(), &anns(json!({"aud": aud})));
            assert_eq!(found, Err("the token is for another audience".into()));
        }
        for sub in [
            json!(null),
            json!(""),
            json!(7),
            json!(["ann"]),
            json!("a\nb"),
        ] {
            let found = check(settings(), &anns(json!({"sub": sub})));
            assert!(found.is_err(), "{sub}: {found:?}");
        }
    }

    #[test]
    fn the_name_and_the_client_that_come_with_it() {
        let settings = TokenSettings {
            client_claim: "device".to_owned(),
            ..settings()
        };
        let tokens = tokens(&[secret()], settings).unwrap();
        let (any, bound) = (anns(json!({})), anns(json!({"device": "c"})));
        for (token, user, client, expected) in [
            (&any, None, "c", ann(70)),
            (&any, Some(""), "", ann(70)),
            (&any, Some("ann"), "d", ann(70)),
            (
                &any,
                Some("Ann"),
                "c",
                Err("the token is another user's".into()),
            ),
            (&bound, None, "c", ann(70)),
            (
                &bound,
                None,
                "d",
                Err("the token is another client's".into()),
            ),
            (
                &bound,
                None,
                "",
                Err("the token is another client's".into()),
            ),
        ] {
            let found = tokens.check(token, (user, client), now());
            assert_eq!(found, expected, "{user:?} {client}");
        }
        let number = anns(json!({"device": 7}));
        assert!(tokens.check(&number, (None, "7"), now()).is_err());
    }

    /// B16: what is no token, or half a one.
    #[test]
    fn tokens_that_are_none() {
        let tokens = tokens(&[secret()], settings()).unwrap();
        let right = anns(json!({}));
        assert!(tokens.check(&right, (None, "c"), now()).is_ok());
        for len in 0..right.len() {
            assert!(tokens.check(&right[..len], (None, "c"), now()).is_err());
        }
        let (two, _) = right.rsplit_once('.').unwrap();
        for wrong in [
            two.to_owned(),
            format!("{two}."),
            format!("{right}."),
            format!(".{right}"),
            format!("{right}="),
            format!("{right}\n"),
            format!("Bearer {right}"),
            token("[]", "{}", hs256),
            token(r#"{"alg":"HS256","crit":["exp"]}"#, "{}", hs256),
            token(r#"{"alg":"HS256"}"#, "[]", hs256),
            token(r#"{"alg":"HS256"}"#, "ann", hs256),
            token(r#"{"alg":"HS256"}"#, &"[".repeat(9000), hs256),
        ] {
            let found = tokens.check(&wrong, (None, "c"), now());
            assert!(found.is_err(), "{wrong}");
        }
        // Before anything of it is decoded.
        let huge = anns(json!({"x": "y".repeat(TOKEN_BYTES_MAX)}));
        let found = tokens.check(&huge, (None, "c"), now());
        assert_eq!(found, Err("the token is longer than 16 KiB".into()));
    }

    /// As an authenticator: what is no token is somebody else's to know.
    /// Keys that are not here yet are not the client's failure.
    #[test]
    fn without_the_key_a_method_has_it_tried_again() {
        let address = "http://127.0.0.1:1/".parse().expect("it is an address");
        let settings = TokenSettings {
            algorithms: vec![TokenAlgorithm::HS256],
            keys_pause: Duration::from_secs(3600),
            ..settings()
        };
        let tokens = Tokens::fetched_from(&address, settings).expect("it needs no file");
        let method = TokenMethod(Arc::new(tokens));
        let KeySource::Address(fetching) = &method.0.source else {
            panic!("it has an address");
        };
        let who = Identity {
            user: None,
            client: crate::message::ClientId::new("c"),
        };
        let step = |token: &str| method.begin().step(&who, token.as_bytes());
        let claims = serde_json::json!({"sub": "ann", "exp": 4_000_000_000_u64}).to_string();
        let unknown = token(r#"{"alg":"HS256","kid":"other"}"#, &claims, hs256);
        // The first fetch is about to begin, is under way, and has failed.
        assert_eq!(step(&unknown), Step::Later);
        fetching.begin();
        assert_eq!(step(&unknown), Step::Later);
        fetching.end(Err(()));
        assert_eq!(step(&unknown), Step::Later);
        let mut key = secret();
        key["kid"] = "one".into();
        let text = serde_json::json!({ "keys": [key] }).to_string();
        let keys = parse_keys(&text, Path::new("keys"), &[TokenAlgorithm::HS256]);
        *method.0.keys.write() = keys.expect("they are valid").into();
        // A name that is not known may be a new key's, while keys are fetched.
        fetching.begin();
        assert_eq!(step(&unknown), Step::Later);
        let wrong = token(r#"{"alg":"HS256","kid":"one"}"#, "{}", |_| vec![0; 32]);
        assert_eq!(step(&wrong), Step::Reject);
        fetching.end(Ok(None));
        assert_eq!(step(&unknown), Step::Reject);
        let right = token(r#"{"alg":"HS256","kid":"one"}"#, &claims, hs256);
        assert!(matches!(step(&right), Step::Accept { .. }));
    }

    #[test]
    fn a_password_is_no_token() {
        let tokens = tokens(&[secret()], settings()).unwrap();
        let answer = |password: Option<&[u8]>| {
            let asking = tokens.authenticate(Credentials {
                certificate: None,
                address: Some(Ipv4Addr::LOCALHOST.into()),
                client: "c",
                user: Some("ann"),
                password,
                ..Credentials::NOBODY
            });
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.unwrap().block_on(asking)
        };
        for password in [
            &b"secret"[..],
            b"",
            b"a.b.c",
            b"eye",
            b"ey.\xff.",
            b"eyJ.x y.",
        ] {
            assert_eq!(answer(Some(password)), Answer::Next);
        }
        assert_eq!(answer(None), Answer::Next);
        // It is of 2011.
        let expired = anns(json!({}));
        let expected = Answer::No("the token has expired".into());
        assert_eq!(answer(Some(expired.as_bytes())), expected);
        assert!(matches!(answer(Some(b"ey.x.y")), Answer::No(_)));
    }

    #[test]
    fn which_of_the_keys() {
        let other = json!({"kty": "oct", "k": url(&[8; 64]), "kid": "old"});
        let mut named = secret();
        named["kid"] = "new".into();
        let tokens = tokens(&[other, named], settings()).unwrap();
        let claims = json!({"sub": "ann", "exp": NOW + 60}).to_string();
        for (header, is_right) in [
            (r#"{"alg":"HS256","kid":"new"}"#, true),
            (r#"{"alg":"HS256"}"#, true),
            (r#"{"alg":"HS256","kid":"old"}"#, false),
            (r#"{"alg":"HS256","kid":"newer"}"#, false),
        ] {
            let token = token(header, &claims, hs256);
            let found = tokens.check(&token, (None, "c"), now());
            assert_eq!(found.is_ok(), is_right, "{header}: {found:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_keys_is_told() {
        let parse = |text: &str, algorithms: &[TokenAlgorithm]| {
            let settings = TokenSettings {
                algorithms: algorithms.to_vec(),
                ..settings()
            };
            let tokens = Tokens::parse(text, Path::new("the/file"), settings);
            tokens
                .map(|tokens| tokens.keys_len())
                .map_err(|error| error.to_string())
        };
        let form = "has to be a JSON Web Key Set, as in {\"keys\": [{\"kty\": \"OKP\", ...}]}";
        for text in [
            "",
            "canary",
            "[]",
            "{\"kty\": \"canary\"}",
            "{\"keys\": \"canary\"}",
        ] {
            let found = parse(text, &ALL);
            assert!(
                found.clone().is_err_and(|error| error.ends_with(form)),
                "{found:?}"
            );
            assert!(!found.unwrap_err().contains("canary"));
        }
        let pem = parse("-----BEGIN PUBLIC KEY-----\ncanary", &ALL).unwrap_err();
        assert!(
            pem.starts_with("the/file: ") && pem.contains("is PEM"),
            "{pem}"
        );
        let (_, ed) = ed25519();
        let set = |key: serde_json::Value| json!({"keys": [ed, key]}).to_string();
        let none = "the/file: has no key for any algorithm of jwt_algorithms";
        for key in [
            json!({"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}),
            json!({"kty": "oct", "k": url(&SECRET), "use": "enc"}),
            json!({"kty": "oct", "k": url(&SECRET), "key_ops": ["encrypt"]}),
            json!({"kty": "oct", "k": url(&SECRET), "alg": "RS256"}),
            json!({"kty": "new", "alg": "NEW"}),
        ] {
            assert_eq!(parse(&set(key.clone()), &ALL), Ok(1), "{key}");
            let alone = parse(&set(key), &[TokenAlgorithm::HS256]);
            assert_eq!(alone.unwrap_err(), none);
        }
        let short = "the/file: key 2: a secret has to have 32 bytes at least for HS256, 48 for \
                     HS384, 64 for HS512";
        let invalid = "the/file: key 2: is no valid public key of its kind";
        for (key, expected) in [
            (json!({"kty": "oct", "k": url(&[7; 31])}), short),
            (
                json!({"kty": "oct", "k": url(&[7; 47]), "alg": "HS384"}),
                short,
            ),
            (json!({"kty": "oct", "k": ""}), short),
            (
                json!({"kty": "oct", "k": "canary="}),
                "the/file: key 2: is not in base64url, without padding",
            ),
            (
                json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}),
                invalid,
            ),
            (
                json!({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}),
                invalid,
            ),
            (
                json!({"kty": "EC", "crv": "P-384", "x": url(&[1; 48]), "y": url(&[1; 48])}),
                invalid,
            ),
            (
                json!({"kty": "RSA", "n": url(&[255; 128]), "e": "AQAB"}),
                invalid,
            ),
            (json!({"kty": "RSA", "n": "", "e": ""}), invalid),
        ] {
            assert_eq!(
                parse(&set(key.clone()), &ALL).unwrap_err(),
                expected,
                "{key}"
            );
        }
        let many = json!({"keys": vec![ed; KEYS_MAX + 1]}).to_string();
        assert_eq!(
            parse(&many, &ALL).unwrap_err(),
            "the/file: has 33 keys, and 32 is the most"
        );
    }
}
