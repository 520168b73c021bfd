//! SCRAM-SHA-256 (RFC 5802, RFC 7677): a client shows that it knows a password
//! without saying it, and the broker that it knows the user.
//!
//! Owns the messages and the proof. The keys are those of the password file;
//! who has none there is asked all the same, and refused at the end, so that
//! nobody learns who has any.

use std::num::NonZeroU32;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand;

use super::Authenticated;
use super::method::{Conversation, Method, Step};
use super::passwords::{PasswordFile, Users};
use super::stored::{KEY_LEN, SALT_LEN, SCRAM_ITERATIONS, ScramKeys, hmac_sha256, sha256};
use crate::base64;
use crate::message::Identity;

/// As Authentication Method (MQTT 5, 4.12).
pub const METHOD: &str = "SCRAM-SHA-256";
/// A client's nonce, in bytes.
const NONCE_MAX: usize = 256;
/// Random bytes of ours in it.
const OWN_NONCE_LEN: usize = 18;

/// The method, by the keys of a password file.
pub struct Scram {
    passwords: Arc<PasswordFile>,
}

impl Scram {
    pub fn new(passwords: Arc<PasswordFile>) -> Scram {
        Scram { passwords }
    }
}

impl Method for Scram {
    fn name(&self) -> &str {
        METHOD
    }

    fn begin(&self) -> Box<dyn Conversation> {
        Box::new(Talk {
            users: self.passwords.users(),
            asked: None,
        })
    }
}

/// One client, and the users as they were when it began.
struct Talk {
    users: Arc<Users>,
    // `None`: it has said nothing yet.
    asked: Option<Challenge>,
}

impl Conversation for Talk {
    fn step(&mut self, _: &Identity, data: &[u8]) -> Step {
        let Ok(text) = std::str::from_utf8(data) else {
            return Step::Reject;
        };
        match self.asked.take() {
            None => {
                let mut random = [0; OWN_NONCE_LEN];
                if rand::fill(&mut random).is_err() {
                    return Step::Reject;
                }
                let nonce = base64::encode(&random);
                match Challenge::first(text, &nonce, &self.users) {
                    Some(challenge) => {
                        let question = challenge.server_first.clone().into_bytes();
                        self.asked = Some(challenge);
                        Step::Ask(question)
                    }
                    None => Step::Reject,
                }
            }
            Some(challenge) => match challenge.finish(text) {
                Some((user, said)) => Step::Accept {
                    who: Authenticated::as_user(user),
                    data: said.into_bytes(),
                },
                None => Step::Reject,
            },
        }
    }
}

/// What a client has been asked, and what its answer is checked with.
pub struct Challenge {
    user: String,
    /// `r=NONCE,s=SALT,i=ITERATIONS`.
    pub server_first: String,
    // As it stood before the first message, in base64.
    channel: String,
    client_first_bare: String,
    nonce: String,
    keys: ScramKeys,
    // Whether the keys are somebody's.
    is_known: bool,
}

impl Challenge {
    /// To a client's first message, `n,,n=USER,r=NONCE`; `own_nonce` is put
    /// behind its nonce. `None`: it asks for what is not here, or is no such
    /// message.
    pub fn first(text: &str, own_nonce: &str, users: &Users) -> Option<Challenge> {
        let (flag, rest) = text.split_once(',')?;
        // p=...: only SCRAM-SHA-256-PLUS binds to a channel. y: so would the
        // client, had we offered it.
        if !matches!(flag, "n" | "y") {
            return None;
        }
        let (authzid, bare) = rest.split_once(',')?;
        let header = &text[..text.len() - bare.len()];
        // m=... is an extension that must not be passed over.
        let (name, rest) = bare.strip_prefix("n=")?.split_once(',')?;
        let nonce = rest.strip_prefix("r=")?;
        let nonce = nonce.split_once(',').map_or(nonce, |(nonce, _)| nonce);
        let is_nonce = |byte: u8| matches!(byte, b'!'..=b'~') && byte != b',';
        if !(1..=NONCE_MAX).contains(&nonce.len()) || !nonce.bytes().all(is_nonce) {
            return None;
        }
        let user = unescaped(name)?;
        // Nobody acts for somebody else here.
        match authzid.strip_prefix("a=") {
            Some(name) if unescaped(name)? != user => return None,
            None if !authzid.is_empty() => return None,
            _ => {}
        }
        let known = users.get(&user).and_then(|stored| stored.scram()).cloned();
        let is_known = known.is_some();
        let keys = known.unwrap_or_else(|| plausible(&user, users));
        let nonce = format!("{nonce}{own_nonce}");
        let salt = base64::encode(&keys.salt);
        Some(Challenge {
            user,
            server_first: format!("r={nonce},s={salt},i={}", keys.iterations),
            channel: base64::encode(header.as_bytes()),
            client_first_bare: bare.to_owned(),
            nonce,
            keys,
            is_known,
        })
    }

    /// Who it is, and what tells the client that we know it too, if its last
    /// message, `c=CHANNEL,r=NONCE,p=PROOF`, proves that.
    pub fn finish(self, text: &str) -> Option<(String, String)> {
        let (without_proof, proof) = text.rsplit_once(",p=")?;
        let mut attributes = without_proof.split(',');
        let channel = attributes.next()?.strip_prefix("c=")?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        if channel != self.channel || nonce != self.nonce {
            return None;
        }
        let mut client_key = <[u8; KEY_LEN]>::try_from(base64::decode(proof)?).ok()?;
        let said = [&*self.client_first_bare, &*self.server_first, without_proof].join(",");
        let signature = hmac_sha256(&self.keys.stored_key, said.as_bytes());
        for (byte, mask) in client_key.iter_mut().zip(signature) {
            *byte ^= mask;
        }
        let is_proven =
            verify_slices_are_equal(&sha256(&client_key), &self.keys.stored_key).is_ok();
        let signature = hmac_sha256(&self.keys.server_key, said.as_bytes());
        (is_proven && self.is_known)
            .then(|| (self.user, format!("v={}", base64::encode(&signature))))
    }
}

/// Keys for somebody who has none: always the same, as long as the first user
/// who has some keeps them, and of the same form.
fn plausible(user: &str, users: &Users) -> ScramKeys {
    let (secret, iterations, salt_len) = match users.first_scram() {
        Some(first) => (first.server_key, first.iterations, first.salt.len()),
        None => {
            let iterations = NonZeroU32::new(SCRAM_ITERATIONS).unwrap_or(NonZeroU32::MIN);
            ([0; KEY_LEN], iterations, SALT_LEN)
        }
    };
    let of = |what: &str| hmac_sha256(&hmac_sha256(&secret, what.as_bytes()), user.as_bytes());
    let salt = [of("salt"), of("more salt")].concat();
    ScramKeys {
        iterations,
        salt: salt[..salt_len.min(salt.len())].into(),
        stored_key: of("stored key"),
        server_key: of("server key"),
    }
}

/// A name in which `=2C` stands for a comma and `=3D` for `=`. Of printable
/// ASCII, which SASLprep (RFC 4013) leaves as it is; others have no keys here.
fn unescaped(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut user = parts.next()?.to_owned();
    for part in parts {
        user.push(match part.get(..2)? {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        user += &part[2..];
    }
    let is_plain = user.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    (is_plain && !user.is_empty()).then_some(user)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const PENCIL: &str = "user:SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==\
                          $WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=\
                          :wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    const OWN: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

    fn users(text: &str) -> Users {
        Users::parse(text, Path::new("f")).unwrap()
    }

    /// What a client says last that knows this password.
    fn last(challenge: &Challenge, first: &str, password: &str) -> String {
        let question = &challenge.server_first;
        let mut fields = question.split(',').map(|field| &field[2..]);
        let (nonce, salt, iterations) = (
            fields.next().unwrap(),
            base64::decode(fields.next().unwrap()).unwrap(),
            fields.next().unwrap().parse().unwrap(),
        );
        let header = first.split_inclusive(',').take(2).collect::<String>();
        let channel = base64::encode(header.as_bytes());
        let without_proof = format!("c={channel},r={nonce}");
        let bare = &first[header.len()..];
        let said = format!("{bare},{question},{without_proof}");
        // By the RFC once more, apart from what is tested.
        let mut salted = [0; KEY_LEN];
        aws_lc_rs::pbkdf2::derive(
            aws_lc_rs::pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            &salt,
            password.as_bytes(),
            &mut salted,
        );
        let client_key = hmac_sha256(&salted, b"Client Key");
        let signature = hmac_sha256(&sha256(&client_key), said.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(signature)
            .map(|(a, b)| a ^ b)
            .collect();
        format!("{without_proof},p={}", base64::encode(&proof))
    }

    /// RFC 7677, 3.
    #[test]
    fn the_example_of_the_rfc() {
        let first = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
        let challenge = Challenge::first(first, OWN, &users(PENCIL)).unwrap();
        assert_eq!(
            challenge.server_first,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        let last = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(
            challenge.finish(last),
            Some((
                "user".to_owned(),
                "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=".to_owned()
            ))
        );
    }

    #[test]
    fn who_knows_the_password_and_who_does_not() {
        let users = users(PENCIL);
        for (first, password, is_known) in [
            ("n,,n=user,r=abc", "pencil", true),
            ("y,,n=user,r=abc", "pencil", true),
            ("n,a=user,n=user,r=abc,x=1", "pencil", true),
            ("n,,n=user,r=abc", "pencils", false),
            ("n,,n=nobody,r=abc", "pencil", false),
        ] {
            let challenge = Challenge::first(first, OWN, &users).expect(first);
            let last = last(&challenge, first, password);
            let said = challenge.finish(&last);
            assert_eq!(said.is_some(), is_known, "{first} {password}");
        }
    }

    /// Case B14 of docs/security.md.
    #[test]
    fn whoever_has_no_keys_looks_like_somebody_who_has() {
        let argon2 = "ann:$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ\
                      $CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let (before, after) = (users(PENCIL), users(&format!("{argon2}\n{PENCIL}")));
        let asked = |users: &Users, name: &str| {
            let first = format!("n,,n={name},r=abc");
            let question = Challenge::first(&first, OWN, users).unwrap().server_first;
            assert_eq!(
                question.len(),
                "r=abc,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".len() + OWN.len()
            );
            assert!(question.ends_with(",i=4096"));
            question
        };
        for name in ["nobody", "noone", "ann"] {
            // Each time, and after others have come into the file.
            assert_eq!(asked(&before, name), asked(&before, name));
            assert_eq!(asked(&before, name), asked(&after, name));
            assert_ne!(asked(&before, name), asked(&before, "somebody"));
        }
        // Where nobody has any, too.
        assert!(Challenge::first("n,,n=x,r=abc", OWN, &Users::default()).is_some());
    }

    #[test]
    fn messages_that_are_none() {
        let users = users(PENCIL);
        let long = format!("n,,n=user,r={}", "x".repeat(NONCE_MAX + 1));
        for first in [
            "",
            "n",
            "n,,",
            "n,,n=user",
            "n,,n=user,r=",
            "n,,r=abc,n=user",
            "n,,n=,r=abc",
            "n,,n=us=er,r=abc",
            "n,,n=user=2,r=abc",
            "n,,n=us=2€,r=abc",
            "n,,n=usér,r=abc",
            "n,,n=user,r=a c",
            "n,,m=x,n=user,r=abc",
            "n,a=ann,n=user,r=abc",
            "n,user,n=user,r=abc",
            // Channel binding is another method's.
            "p=tls-server-end-point,,n=user,r=abc",
            "x,,n=user,r=abc",
            &long,
        ] {
            assert!(Challenge::first(first, OWN, &users).is_none(), "{first}");
        }
        let first = "n,,n=user,r=abc";
        let right = |challenge: &Challenge| last(challenge, first, "pencil");
        for spoil in [
            |_: &str| String::new(),
            |text: &str| text.replace("c=biws", "c=eSws"),
            |text: &str| text.replace("r=abc", "r=abd"),
            |text: &str| text.replace(OWN, ""),
            |text: &str| text.replace(",p=", ",q="),
            |text: &str| text.replace(",p=", ",x=1,p="),
            |text: &str| format!("{text},p="),
            |text: &str| format!("{text}AAAA"),
        ] {
            let challenge = Challenge::first(first, OWN, &users).unwrap();
            let spoiled = spoil(&right(&challenge));
            assert!(challenge.finish(&spoiled).is_none(), "{spoiled}");
        }
        let challenge = Challenge::first(first, OWN, &users).unwrap();
        let right = right(&challenge);
        assert!(challenge.finish(&right).is_some());
    }

    #[test]
    fn commas_in_names() {
        for (name, user) in [
            ("a=2Cb", Some("a,b")),
            ("=3D=3D", Some("==")),
            ("=2c", None),
        ] {
            assert_eq!(unescaped(name).as_deref(), user);
        }
    }
}
