//! TLS as our clients speak it: whose certificates they believe, which one they
//! show, and what is wrong where they and a broker do not come together.
//!
//! Owns the options for it. Has no sockets.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{ClientConfig, WebPkiServerVerifier};
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};

use crate::net::{read_certificates, read_identity};

/// How to speak TLS; without `--cafile`, not at all.
#[derive(clap::Args, Clone, Debug)]
pub struct TlsArguments {
    /// Speak TLS, with a broker whose certificate is signed by an authority in this PEM file
    #[arg(long, value_name = "FILE", global = true)]
    cafile: Option<PathBuf>,
    /// Show the broker the certificate in this PEM file
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        requires = "cafile",
        requires = "key"
    )]
    cert: Option<PathBuf>,
    /// The certificate's key, in PEM
    #[arg(long, value_name = "FILE", global = true, requires = "cert")]
    key: Option<PathBuf>,
    /// Take a broker's certificate for another name than the one that was asked for
    #[arg(long, global = true, requires = "cafile")]
    insecure: bool,
}

impl TlsArguments {
    /// Whether TLS is to be spoken.
    pub fn is_asked_for(&self) -> bool {
        self.cafile.is_some()
    }

    /// Reads the files; `None`: no TLS.
    ///
    /// # Errors
    /// A file cannot be read, or has not in it what it should.
    pub fn read(&self) -> Result<Option<ClientConfig>, String> {
        match &self.cafile {
            Some(cafile) => self.with_roots(roots_in(cafile)?).map(Some),
            None => Ok(None),
        }
    }

    /// The same for a broker that speaks TLS in any case: without `--cafile` the
    /// authorities are the system's.
    ///
    /// # Errors
    /// As [`TlsArguments::read`]; or the system names no authorities.
    pub fn read_for_https(&self) -> Result<ClientConfig, String> {
        if let Some(config) = self.read()? {
            return Ok(config);
        }
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        if let (0, _) = roots.add_parsable_certificates(found.certs) {
            let text = "this system names no authorities of certificates: name a file of them \
                        with --cafile";
            return Err(text.to_owned());
        }
        self.with_roots(roots)
    }

    /// The same for a broker of this machine that has said itself, by its data
    /// folder, where it listens: no other one can be there, so that without
    /// `--cafile` its certificate may be anybody's, and for any name.
    ///
    /// # Errors
    /// As [`TlsArguments::read`].
    pub fn read_for_own(&self) -> Result<ClientConfig, String> {
        if let Some(config) = self.read()? {
            return Ok(config);
        }
        let provider = Arc::new(default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let verifier = Arc::new(AnyCertificate(provider));
        let builder = builder
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        Ok(builder.with_no_client_auth())
    }

    fn with_roots(&self, roots: RootCertStore) -> Result<ClientConfig, String> {
        let provider = Arc::new(default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let verifier = verifier.build().map_err(|error| error.to_string())?;
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match self.insecure {
            false => builder.with_webpki_verifier(verifier),
            true => {
                (builder.dangerous()).with_custom_certificate_verifier(Arc::new(AnyName(verifier)))
            }
        };
        Ok(match (&self.cert, &self.key) {
            (Some(certificate), Some(key)) => {
                let (identity, _) = read_identity(certificate, key, &provider)
                    .map_err(|error| error.to_string())?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
            }
            _ => builder.with_no_client_auth(),
        })
    }
}

fn roots_in(cafile: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    // Of the many that a system has, some may be too old in form.
    let certificates = read_certificates(cafile).map_err(|error| error.to_string())?;
    match roots.add_parsable_certificates(certificates) {
        (0, _) => Err(format!(
            "no certificate in {} can be used as an authority",
            cafile.display()
        )),
        _ => Ok(roots),
    }
}

/// The name that a host's certificate has to be for.
///
/// # Errors
/// No certificate can be for it.
pub fn server_name(host: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(host.to_owned())
        .map_err(|_| format!("{host:?} is no host's name or address, as a certificate has"))
}

/// What TLS has against a connection, and what to do; `None`: it is not TLS that
/// has failed.
pub fn explain(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidCertificate(error) => explain_certificate(error),
        Error::AlertReceived(alert) => explain_alert(*alert),
        Error::InvalidMessage(_) => {
            "what listens there does not speak TLS: leave --cafile out, or ask for another port"
                .to_owned()
        }
        error => format!("TLS failed: {error}"),
    })
}

/// Whether nobody who is believed has signed the other end's certificate.
pub fn is_of_unknown_authority(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref());
    matches!(
        error,
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer))
    )
}

fn explain_certificate(error: &CertificateError) -> String {
    use CertificateError::*;
    let why = match error {
        UnknownIssuer | BadSignature => {
            "is not signed by an authority in --cafile: is it the right file?".to_owned()
        }
        NotValidForName => {
            "is for another name: ask for the host by its own, or add --insecure".to_owned()
        }
        NotValidForNameContext {
            expected,
            presented,
        } => {
            let names: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
            let names = match &names[..] {
                [] => "no name at all".to_owned(),
                names => names.join(" and "),
            };
            format!(
                "is for {names}, and not for {}: ask for the host by a name that it has, or add \
                 --insecure",
                expected.to_str()
            )
        }
        Expired | ExpiredContext { .. } => "has expired: it needs a new one".to_owned(),
        NotValidYet | NotValidYetContext { .. } => {
            "is not valid yet: is this machine's clock right?".to_owned()
        }
        error => format!("cannot be used: {error}"),
    };
    format!("the broker's certificate {why}")
}

/// `DnsName("localhost")`, as a verifier tells names, without what is around it.
fn bare(name: &str) -> &str {
    let inside = name.split_once('(').map_or(name, |(_, rest)| rest);
    inside.trim_matches(['"', ')'])
}

/// What the broker's end says of ours.
fn explain_alert(alert: AlertDescription) -> String {
    use AlertDescription::*;
    match alert {
        CertificateRequired | NoCertificate => {
            "the broker asks for a certificate of this client: add --cert and --key".to_owned()
        }
        UnknownCA => {
            "the broker does not know the authority that signed this client's certificate, --cert"
                .to_owned()
        }
        CertificateExpired => {
            "the broker says that the certificate in --cert has expired".to_owned()
        }
        CertificateRevoked => "the certificate in --cert is revoked".to_owned(),
        BadCertificate
        | CertificateUnknown
        | UnsupportedCertificate
        | AccessDenied
        | DecryptError => {
            format!("the broker does not take this client's certificate, --cert ({alert:?})")
        }
        ProtocolVersion | HandshakeFailure | InsufficientSecurity => {
            format!(
                "the broker and this client have no version or cipher suite in common ({alert:?})"
            )
        }
        alert => format!("the broker ended TLS: {alert:?}"),
    }
}

/// Believes a certificate that is in order, whoever's it is.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified =
            (self.0).verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // The name is looked at last.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Believes any certificate whose key the other end has.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_wrong_and_what_to_do() {
        let named = CertificateError::NotValidForNameContext {
            expected: server_name("::1").unwrap(),
            presented: vec![
                "DnsName(\"a.b\")".to_owned(),
                "IpAddress(10.0.0.1)".to_owned(),
            ],
        };
        for (error, expected) in [
            (
                Error::InvalidCertificate(named),
                "is for a.b and 10.0.0.1, and not for ::1: ask for the host by a name that it has",
            ),
            (
                Error::InvalidCertificate(CertificateError::UnknownIssuer),
                "is not signed by an authority in --cafile",
            ),
            (
                Error::AlertReceived(AlertDescription::CertificateRequired),
                "add --cert and --key",
            ),
            (
                Error::AlertReceived(AlertDescription::ProtocolVersion),
                "no version or cipher suite in common (ProtocolVersion)",
            ),
        ] {
            let told = explain(&io::Error::new(io::ErrorKind::InvalidData, error));
            let told = told.unwrap_or_default();
            assert!(told.contains(expected), "{told}");
        }
        assert_eq!(explain(&io::ErrorKind::ConnectionReset.into()), None);
    }

    #[test]
    fn what_is_no_name_is_told_before_anybody_is_asked() {
        assert!(server_name("localhost").is_ok() && server_name("127.0.0.1").is_ok());
        assert!(server_name("a b").is_err());
    }
}
