//! Client certificates: who a client is, by the certificate that it has shown.
//!
//! Owns what of a certificate is a user's name. That it is valid, signed by one
//! of the listener's authorities and not revoked, and that the client has its
//! key, TLS has found out before. A certificate whose name is not plain names
//! nobody: authorities sign what they are asked to, and what one program reads
//! as two names, or up to a NUL, another reads otherwise.

use std::fmt::Write;

use x509_parser::asn1_rs::ToDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::{Answer, Answering, Authenticated, Authenticator, Credentials, is_name};
use crate::config::ClientUser;

/// Longer names are nobody's.
const NAME_BYTES_MAX: usize = 1024;

/// The attribute types that have names (RFC 4514, 3, and as OpenSSL writes
/// them); others are written as numbers.
const ATTRIBUTES: [(&str, &str); 11] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.6", "C"),
    ("2.5.4.9", "STREET"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("2.5.4.5", "serialNumber"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// Knows clients by their certificates. Who shows none is somebody else's to
/// know.
pub struct Certificates {
    user: ClientUser,
}

impl Certificates {
    /// `user`: what of a certificate is the name.
    pub fn new(user: ClientUser) -> Certificates {
        Certificates { user }
    }

    fn answer(&self, credentials: Credentials<'_>) -> Answer {
        let Some(certificate) = credentials.certificate else {
            return Answer::Next;
        };
        match user_of(certificate, self.user) {
            Err(why) => Answer::No(why.into()),
            Ok(name) => match credentials.user {
                Some(user) if !user.is_empty() && user != name => {
                    Answer::No("the certificate is another user's".into())
                }
                _ => Answer::Yes(Authenticated::as_user(name)),
            },
        }
    }
}

impl Authenticator for Certificates {
    fn name(&self) -> &'static str {
        "certificate"
    }

    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Answering<'a> {
        Box::pin(std::future::ready(self.answer(credentials)))
    }
}

/// The user whom a certificate in DER names.
///
/// # Errors
/// Why it names nobody, for the log.
pub fn user_of(certificate: &[u8], user: ClientUser) -> Result<String, &'static str> {
    let parsed = X509Certificate::from_der(certificate);
    let (_, certificate) = parsed.map_err(|_| "the certificate cannot be read")?;
    let name = match user {
        ClientUser::CommonName => common_name(certificate.subject())?,
        ClientUser::AlternativeName => alternative_name(&certificate)?,
        ClientUser::DistinguishedName => distinguished_name(certificate.subject())?,
    };
    match is_name(&name) && name.len() <= NAME_BYTES_MAX {
        true => Ok(name),
        false => Err(
            "what names the certificate's user is empty, longer than 1024 bytes, or has a \
             control character",
        ),
    }
}

fn common_name(subject: &X509Name<'_>) -> Result<String, &'static str> {
    let mut names = subject.iter_common_name();
    match (names.next(), names.next()) {
        (Some(name), None) => text(name).map(str::to_owned),
        (None, _) => Err("the certificate's subject has no common name"),
        (Some(_), Some(_)) => Err("the certificate's subject has several common names"),
    }
}

fn alternative_name(certificate: &X509Certificate<'_>) -> Result<String, &'static str> {
    let names = certificate.subject_alternative_name();
    let names = names.map_err(|_| "the certificate's alternative names cannot be read")?;
    let names = names.map(|names| names.value.general_names.as_slice());
    for name in names.unwrap_or_default() {
        match name {
            GeneralName::RFC822Name(name) | GeneralName::DNSName(name) | GeneralName::URI(name) => {
                return Ok((*name).to_owned());
            }
            GeneralName::Invalid(..) => {
                return Err("one of the certificate's alternative names cannot be read");
            }
            _ => {}
        }
    }
    Err("the certificate has no e-mail address, DNS name or URI among its alternative names")
}

/// As RFC 4514 writes it: the most special part first.
fn distinguished_name(subject: &X509Name<'_>) -> Result<String, &'static str> {
    let mut written = String::new();
    let mut parts: Vec<_> = subject.iter().collect();
    parts.reverse();
    for part in parts {
        let mut before = if written.is_empty() { "" } else { "," };
        for attribute in part.iter() {
            written.push_str(before);
            write_attribute(attribute, &mut written)?;
            before = "+";
        }
    }
    Ok(written)
}

fn write_attribute(
    attribute: &AttributeTypeAndValue<'_>,
    out: &mut String,
) -> Result<(), &'static str> {
    let number = attribute.attr_type().to_id_string();
    let known = ATTRIBUTES.iter().find(|(other, _)| *other == number);
    if let Some((_, name)) = known {
        out.extend([name, "="]);
        write_escaped(text(attribute)?, out);
        return Ok(());
    }
    let value = attribute.attr_value().to_der_vec();
    let value = value.map_err(|_| "the certificate's subject cannot be read")?;
    out.extend([&*number, "=#"]);
    for byte in value {
        _ = write!(out, "{byte:02x}");
    }
    Ok(())
}

/// A value with a backslash before what means something in a name (RFC 4514,
/// 2.4).
fn write_escaped(value: &str, out: &mut String) {
    for (at, character) in value.char_indices() {
        let is_last = at + character.len_utf8() == value.len();
        let is_special = match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => true,
            '#' => at == 0,
            ' ' => at == 0 || is_last,
            _ => false,
        };
        if is_special {
            out.push('\\');
        }
        out.push(character);
    }
}

fn text<'a>(attribute: &'a AttributeTypeAndValue<'_>) -> Result<&'a str, &'static str> {
    let text = attribute.as_str();
    text.map_err(|_| "the certificate's subject has a text that is not UTF-8")
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, KeyPair};
    use rcgen::{SanType, string::TeletexString};

    use super::ClientUser::{AlternativeName, CommonName, DistinguishedName as WholeName};
    use super::*;

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn subject(parts: &[(DnType, &str)]) -> Vec<u8> {
        certificate(|params| {
            for (kind, value) in parts {
                params.distinguished_name.push(kind.clone(), *value);
            }
        })
    }

    fn named(names: Vec<SanType>) -> Vec<u8> {
        certificate(|params| params.subject_alt_names = names)
    }

    #[test]
    fn what_names_a_user() {
        let full = subject(&[
            (DnType::CountryName, "GB"),
            (DnType::OrganizationName, "Fish, Chips + \"Co\""),
            (DnType::CommonName, " #é; "),
        ]);
        assert_eq!(user_of(&full, CommonName).unwrap(), " #é; ");
        assert_eq!(
            user_of(&full, WholeName).unwrap(),
            "CN=\\ #é\\;\\ ,O=Fish\\, Chips \\+ \\\"Co\\\",C=GB"
        );
        let numbered = subject(&[(DnType::CustomDnType(vec![1, 2, 3, 4]), "x")]);
        assert_eq!(user_of(&numbered, WholeName).unwrap(), "1.2.3.4=#0c0178");
        let (mail, dns, uri) = (
            SanType::Rfc822Name("a@example.org".try_into().unwrap()),
            SanType::DnsName("a.example.org".try_into().unwrap()),
            SanType::URI("urn:a".try_into().unwrap()),
        );
        let address = SanType::IpAddress([127, 0, 0, 1].into());
        for (names, user) in [
            (vec![mail.clone(), dns.clone()], "a@example.org"),
            (vec![address.clone(), dns, mail], "a.example.org"),
            (vec![uri], "urn:a"),
        ] {
            assert_eq!(user_of(&named(names), AlternativeName).unwrap(), user);
        }
    }

    /// B08 and its kind: nothing that two programs could read as two names.
    #[test]
    fn what_names_nobody() {
        let cn = |name: &str| subject(&[(DnType::CommonName, name)]);
        let teletex = certificate(|params| {
            let value = TeletexString::try_from("ann").unwrap();
            let value = DnValue::TeletexString(value);
            params.distinguished_name.push(DnType::CommonName, value);
        });
        // A subject with two common names, which no library makes.
        let two = {
            let one = subject(&[(DnType::CommonName, "ann"), (DnType::CountryName, "ben")]);
            let (country, common) = ([0x55, 4, 6], [0x55, 4, 3]);
            let at = one.windows(3).position(|bytes| bytes == country).unwrap();
            let mut two = one.clone();
            two[at..at + 3].copy_from_slice(&common);
            // Of the issuer, which is the same; then of the subject.
            let again = two.windows(3).position(|bytes| bytes == country).unwrap();
            two[again..again + 3].copy_from_slice(&common);
            two
        };
        let bad_name = certificate(|params| {
            let content = vec![0x30, 3, 0x82, 1, 0xFF];
            let extension = CustomExtension::from_oid_content(&[2, 5, 29, 17], content);
            params.custom_extensions = vec![extension];
        });
        let control = "control character";
        for (what, certificate, user, why) in [
            ("nothing", vec![], CommonName, "cannot be read"),
            ("no CN", subject(&[]), CommonName, "no common name"),
            ("an empty CN", cn(""), CommonName, control),
            ("a NUL", cn("ann\0.example.org"), CommonName, control),
            ("a newline", cn("ann\nben"), CommonName, control),
            ("a long CN", cn(&"a".repeat(1025)), CommonName, control),
            ("teletex", teletex.clone(), CommonName, "not UTF-8"),
            ("teletex in the whole", teletex, WholeName, "not UTF-8"),
            ("two CNs", two, CommonName, "several"),
            ("no subject", subject(&[]), WholeName, control),
            ("a NUL in the whole", cn("a\0b"), WholeName, control),
            ("no names", cn("ann"), AlternativeName, "no e-mail address"),
            (
                "only an address",
                named(vec![SanType::IpAddress([127, 0, 0, 1].into())]),
                AlternativeName,
                "no e-mail address",
            ),
            ("a broken name", bad_name, AlternativeName, "cannot be read"),
        ] {
            let refused = user_of(&certificate, user).expect_err(what);
            assert!(refused.contains(why), "{what}: {refused}");
        }
    }

    #[test]
    fn who_shows_a_certificate_is_its_user_and_nobody_else() {
        let ann = subject(&[(DnType::CommonName, "ann")]);
        let by_name = Certificates::new(CommonName);
        let answer = |certificate, user| {
            by_name.answer(Credentials {
                certificate,
                client: "c",
                user,
                password: Some(b"whatever"),
                ..Credentials::NOBODY
            })
        };
        let yes = Answer::Yes(Authenticated::as_user("ann"));
        assert_eq!(answer(Some(&ann), None), yes);
        assert_eq!(answer(Some(&ann), Some("")), yes);
        assert_eq!(answer(Some(&ann), Some("ann")), yes);
        let another = Answer::No("the certificate is another user's".into());
        assert_eq!(answer(Some(&ann), Some("ben")), another);
        assert_eq!(answer(None, Some("ann")), Answer::Next);
    }
}
