//! TLS of a listener: its certificates, checked when they are read, and the
//! handshakes.
//!
//! Owns the files' form and what can be wrong with them, also where a client of
//! ours reads them. What a client's
//! certificate is worth beyond being valid is decided where clients are known.

use std::cell::Cell;
use std::fmt;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime,
};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{
    NoClientAuth, ParsedCertificate, ServerSessionMemoryCache, WebPkiClientVerifier,
};
use tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    CertificateError, Error, InconsistentKeys, RootCertStore, ServerConfig,
};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use super::{Stream, TlsPeer};
use crate::config::{ClientCertificates, Protocol, TlsSettings, TlsVersion};

/// Of a file; revocation lists are the longest.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Sessions that are remembered for clients of TLS 1.2 which take no tickets.
const SESSIONS_MAX: usize = 1024;
/// A certificate that ends so soon is worth a warning.
const DAYS_LEFT_WARNED: u64 = 14;
const DAY_SECS: u64 = 24 * 60 * 60;

/// The certificates of one listener, and those that were read last.
pub struct Tls {
    settings: TlsSettings,
    loaded: RwLock<Loaded>,
}

struct Loaded {
    config: Arc<ServerConfig>,
    // Of its certificates the one that ends first, in seconds since 1970.
    expires: u64,
}

/// What is wrong with the files: one sentence that names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Tls {
    /// The TLS of a listener; `None`: it has none.
    ///
    /// # Errors
    /// A file cannot be read or has not in it what it should, a certificate is
    /// not valid now, or the key is another one's.
    pub fn load(settings: &TlsSettings, protocol: Protocol) -> Result<Option<Tls>, TlsError> {
        let (Some(certificate), Some(key)) = (&settings.certificate, &settings.key) else {
            return Ok(None);
        };
        let loaded = Loaded::read(settings, certificate, key, protocol)?;
        Ok(Some(Tls {
            settings: settings.clone(),
            loaded: RwLock::new(loaded),
        }))
    }

    /// What the files say by now holds for who comes. Connections that are open
    /// stay as they are; none that comes back can go on with a session from
    /// before, or a client whose certificate was revoked meanwhile could.
    pub fn take(&self, read: Tls) {
        *self.loaded.write() = read.loaded.into_inner();
    }

    /// The file of the broker's own certificate.
    pub fn certificate(&self) -> &Path {
        self.settings
            .certificate
            .as_deref()
            .unwrap_or(Path::new(""))
    }

    /// How many whole days the certificates are valid yet.
    pub fn days_left(&self) -> u64 {
        self.loaded.read().expires.saturating_sub(now_secs()) / DAY_SECS
    }

    /// When the first of the certificates ends, in seconds since 1970.
    pub fn expires_at_secs(&self) -> u64 {
        self.loaded.read().expires
    }

    /// Logs how long the certificates are valid yet.
    pub fn log_days_left(&self) {
        let (certificate, days_left) = (self.certificate().display(), self.days_left());
        match days_left {
            ..DAYS_LEFT_WARNED => {
                tracing::warn!(%certificate, days_left, "a certificate ends soon")
            }
            _ => tracing::info!(%certificate, days_left, "certificates read"),
        }
    }

    /// The handshake with a client, a step whenever it has its turn.
    ///
    /// # Errors
    /// The client's fault, or it is gone; it has been told.
    pub async fn accept(
        &self,
        stream: Box<dyn Stream>,
        turns: &Arc<Semaphore>,
    ) -> io::Result<(TlsStream<ReadAhead>, TlsPeer)> {
        let config = self.loaded.read().config.clone();
        let accept = TlsAcceptor::from(config).accept(ReadAhead::new(stream));
        let stream = in_turns(accept, turns).await?;
        let (_, connection) = stream.get_ref();
        let chain = connection.peer_certificates().unwrap_or_default();
        let certificate = chain
            .first()
            .map(|certificate| certificate.clone().into_owned());
        Ok((stream, TlsPeer { certificate }))
    }
}

/// Takes the steps of a handshake, each of which may keep its thread busy for a
/// millisecond, in turns with all other handshakes: between two of them everybody
/// else who has something to do gets to it.
async fn in_turns(
    mut handshake: Accept<ReadAhead>,
    turns: &Arc<Semaphore>,
) -> io::Result<TlsStream<ReadAhead>> {
    loop {
        let turn = turns.clone().acquire_owned().await;
        let step = poll_fn(|cx| Poll::Ready(Pin::new(&mut handshake).poll(cx))).await;
        tokio::spawn(async move {
            // Comes back when the thread has been through what there was to do.
            yield_now().await;
            drop(turn);
        });
        match step {
            Poll::Ready(done) => return done,
            Poll::Pending => woken().await,
        }
    }
}

/// Waits until the task is woken, by whatever it has asked to wake it.
async fn woken() {
    let mut has_waited = false;
    poll_fn(|_| match std::mem::replace(&mut has_waited, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

/// What TLS reads from: it asks for 4 KiB at a time, and gets them from a longer
/// read, so that a busy connection needs few system calls.
pub struct ReadAhead {
    stream: Box<dyn Stream>,
    // Of the buffer, what was read and not asked for yet; an idle connection owns
    // none.
    ahead: Range<usize>,
    buffer: Vec<u8>,
}

/// Two records of TLS, or a little less.
const AHEAD_BYTES: usize = 32 << 10;

thread_local! {
    // The buffer that the thread's connections read into, while none holds it.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl ReadAhead {
    fn new(stream: Box<dyn Stream>) -> ReadAhead {
        ReadAhead {
            stream,
            ahead: 0..0,
            buffer: Vec::new(),
        }
    }

    /// Reads once, into the thread's buffer, which stays here if there was
    /// anything to read.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = SPARE.take();
        buffer.resize(AHEAD_BYTES, 0);
        let mut free = ReadBuf::new(&mut buffer);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut free);
        self.ahead = 0..free.filled().len();
        match self.ahead.is_empty() {
            true => SPARE.set(buffer),
            false => self.buffer = buffer,
        }
        read
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            ready!(self.fill(cx))?;
        }
        let Range { start, end } = self.ahead;
        let count = (end - start).min(out.remaining());
        out.put_slice(&self.buffer[start..start + count]);
        self.ahead.start += count;
        if self.ahead.is_empty() && !self.buffer.is_empty() {
            SPARE.set(std::mem::take(&mut self.buffer));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Loaded {
    fn read(
        settings: &TlsSettings,
        certificate: &Path,
        key: &Path,
        protocol: Protocol,
    ) -> Result<Loaded, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (key, expires) = read_identity(certificate, key, &provider)?;
        let verifier = client_verifier(settings, &provider)?;
        let failed = |error: Error| TlsError(format!("TLS cannot be set up: {error}"));
        let versions = match settings.version_min {
            TlsVersion::V1_2 => vec![&TLS13, &TLS12],
            TlsVersion::V1_3 => vec![&TLS13],
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(failed)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(failed)?;
        // A client of MQTT comes back once, not with many connections at once.
        config.send_tls13_tickets = 1;
        // Who offers none of these has offered none that we know, and is told so.
        config.alpn_protocols = vec![match protocol {
            Protocol::Mqtt => b"mqtt".to_vec(),
            Protocol::WebSocket => b"http/1.1".to_vec(),
        }];
        Ok(Loaded {
            config: Arc::new(config),
            expires,
        })
    }
}

fn now_secs() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

fn read_file(what: &str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() as u64 <= FILE_BYTES_MAX => Ok(bytes),
        Ok(_) => Err(TlsError(format!(
            "the {what} {} is longer than {FILE_BYTES_MAX} bytes",
            path.display()
        ))),
        Err(error) => Err(TlsError(format!(
            "cannot read the {what} {}: {error}",
            path.display()
        ))),
    }
}

/// All parts of a kind in a PEM file, at least one.
fn read_parts<P: PemObject>(what: &str, label: &str, path: &Path) -> Result<Vec<P>, TlsError> {
    let bytes = read_file(what, path)?;
    let parts: Result<Vec<P>, pem::Error> = P::pem_slice_iter(&bytes).collect();
    let shown = path.display();
    match parts {
        Ok(parts) if parts.is_empty() => Err(TlsError(format!(
            "the {what} {shown} is no PEM file with a part that begins -----BEGIN {label}-----"
        ))),
        Ok(parts) => Ok(parts),
        Err(error) => Err(TlsError(format!(
            "the {what} {shown} is no PEM file: {error}"
        ))),
    }
}

/// The certificates of a PEM file, at least one.
///
/// # Errors
/// The file cannot be read, or has none.
pub(crate) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    read_parts("certificate", "CERTIFICATE", path)
}

/// A certificate, with those between it and its authority, and its key; and when
/// the first of them ends, in seconds since 1970.
///
/// # Errors
/// A file cannot be read or has not in it what it should, a certificate is not
/// valid now, or the key is another one's.
pub(crate) fn read_identity(
    certificate: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<(CertifiedKey, u64), TlsError> {
    let chain = read_certificates(certificate)?;
    let expires = check_validity(certificate, &chain, provider)?;
    Ok((certified_key(certificate, chain, key, provider)?, expires))
}

/// When the first of the certificates ends, in seconds since 1970; all have
/// begun.
fn check_validity(
    path: &Path,
    chain: &[CertificateDer<'static>],
    provider: &CryptoProvider,
) -> Result<u64, TlsError> {
    let now = now_secs();
    let mut expires = u64::MAX;
    for (index, certificate) in chain.iter().enumerate() {
        let shown = match index {
            0 => format!("the certificate {}", path.display()),
            _ => format!("certificate {} of {}", index + 1, path.display()),
        };
        let Ok(certificate) = ParsedCertificate::try_from(certificate) else {
            return Err(TlsError(format!(
                "{shown} is no certificate of X.509 version 3"
            )));
        };
        let (begins, ends) = validity(&certificate, provider);
        if ends < now {
            let ago = days_or_hours(now - ends);
            return Err(TlsError(format!(
                "{shown} expired {ago} ago: get a new one"
            )));
        }
        if begins > now {
            let until = days_or_hours(begins - now);
            return Err(TlsError(format!(
                "{shown} is not valid yet, but in {until}: is this machine's clock right?"
            )));
        }
        expires = expires.min(ends);
    }
    Ok(expires)
}

/// When a certificate begins and ends to be valid, in seconds since 1970: what
/// its verifier says at the first and at the last of all moments.
fn validity(certificate: &ParsedCertificate<'_>, provider: &CryptoProvider) -> (u64, u64) {
    let verify = |secs| {
        verify_server_cert_signed_by_trust_anchor(
            certificate,
            &RootCertStore::empty(),
            &[],
            UnixTime::since_unix_epoch(Duration::from_secs(secs)),
            provider.signature_verification_algorithms.all,
        )
    };
    let begins = match verify(0) {
        Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
            not_before, ..
        })) => not_before.as_secs(),
        _ => 0,
    };
    let ends = match verify(u64::MAX) {
        Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => {
            not_after.as_secs()
        }
        _ => u64::MAX,
    };
    (begins, ends)
}

fn days_or_hours(secs: u64) -> String {
    match (secs / DAY_SECS, secs / 3600) {
        (0, 0) => "less than an hour".to_owned(),
        (0, 1) => "1 hour".to_owned(),
        (0, hours) => format!("{hours} hours"),
        (1, _) => "1 day".to_owned(),
        (days, _) => format!("{days} days"),
    }
}

fn certified_key(
    certificate: &Path,
    chain: Vec<CertificateDer<'static>>,
    path: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let shown = path.display();
    let bytes = read_file("key", path)?;
    let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        let label = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
        TlsError(match error {
            _ if bytes.windows(label.len()).any(|bytes| bytes == label) => format!(
                "the key {shown} is encrypted, and nobody is asked for its password here: \
                 openssl pkey -in {shown} -out FILE writes it without one"
            ),
            pem::Error::NoItemsFound => {
                format!("the key {shown} is no PEM file with a private key")
            }
            error => format!("the key {shown} is no PEM file: {error}"),
        })
    })?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| {
            TlsError(format!(
                "the key {shown} is of no kind that is known here: {error}"
            ))
        })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(_) => Err(TlsError(format!(
            "the key {shown} does not fit the certificate {}",
            certificate.display()
        ))),
    }
}

fn client_verifier(
    settings: &TlsSettings,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let asks = settings.client_certificates();
    let Some(path) = (settings.client_ca.as_deref()).filter(|_| asks != ClientCertificates::Off)
    else {
        return Ok(Arc::new(NoClientAuth));
    };
    let wrong = |what: &str, path: &Path, error: &dyn fmt::Display| {
        TlsError(format!(
            "the {what} {} cannot be used: {error}",
            path.display()
        ))
    };
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        (roots.add(certificate)).map_err(|error| wrong("certificate", path, &error))?;
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    if let Some(path) = &settings.crl {
        let lists =
            read_parts::<CertificateRevocationListDer>("revocation list", "X509 CRL", path)?;
        // A list that is out of date does not say who was revoked since.
        builder = builder.with_crls(lists).enforce_revocation_expiration();
    }
    if asks == ClientCertificates::Optional {
        builder = builder.allow_unauthenticated();
    }
    let crl = settings.crl.as_deref().unwrap_or(path);
    (builder.build()).map_err(|error| wrong("revocation list", crl, &error))
}
