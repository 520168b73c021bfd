//! What a file keeps of a password, in each of the forms that are read.
//!
//! Owns the forms and the check of a password against them. The check is slow
//! by intent, and is for `hashing`'s threads. Nothing here is shown by `Debug`.

use std::fmt;
use std::num::NonZeroU32;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, SHA512, digest};
use aws_lc_rs::{hmac, pbkdf2, rand};

use crate::base64;

/// Bounds of what a line may ask for: about a second of one core, and a memory
/// that a broker has.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 64;
const LANES_MAX: u32 = 64;
const ITERATIONS_MAX: u32 = 10_000_000;
/// Of a salt or a hash, in bytes.
const FIELD_MAX: usize = 64;
/// Of new salts, in bytes.
pub const SALT_LEN: usize = 16;
/// What SHA-256 gives, and with it SCRAM's keys, in bytes.
pub const KEY_LEN: usize = 32;
/// Iterations of new SCRAM keys, which each client computes: RFC 7677, 4.
pub const SCRAM_ITERATIONS: u32 = 15_000;

/// What is kept of one password.
pub struct Stored(Form);

enum Form {
    /// `$argon2id$v=19$m=...,t=...,p=...$salt$hash`, as PHC strings are.
    Argon2id {
        params: Params,
        salt: Box<[u8]>,
        hash: Box<[u8]>,
    },
    /// `$6$salt$hash`: mosquitto's, SHA-512 of password and salt.
    Sha512 { salt: Box<[u8]>, hash: Box<[u8]> },
    /// `$7$iterations$salt$hash`: mosquitto's, PBKDF2 with HMAC-SHA-512.
    Pbkdf2 {
        iterations: NonZeroU32,
        salt: Box<[u8]>,
        hash: Box<[u8]>,
    },
    /// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey` (RFC 5803).
    Scram(ScramKeys),
}

/// What lets a server hold its end of SCRAM-SHA-256 (RFC 5802, 3).
#[derive(Clone)]
pub struct ScramKeys {
    pub iterations: NonZeroU32,
    pub salt: Box<[u8]>,
    pub stored_key: [u8; KEY_LEN],
    pub server_key: [u8; KEY_LEN],
}

impl Stored {
    /// Reads one of the forms.
    ///
    /// # Errors
    /// What is wrong, in words that hold nothing of the text.
    pub fn parse(text: &str) -> Result<Stored, &'static str> {
        if let Some(text) = text.strip_prefix("SCRAM-SHA-256$") {
            return parse_scram(text).map(|keys| Stored(Form::Scram(keys)));
        }
        let fields: Vec<&str> = text.split('$').collect();
        let form = match *fields.as_slice() {
            ["", "argon2id", version, params, salt, hash] => {
                if version != "v=19" {
                    return Err("argon2id is read in its version 19 alone: v=19");
                }
                let salt = base64::decode_unpadded(salt);
                let hash = base64::decode_unpadded(hash);
                let (salt, hash) = salt_and_hash(salt, hash)?;
                if salt.len() < argon2::MIN_SALT_LEN {
                    return Err("the salt has to have 8 bytes at least");
                }
                let params = parse_argon2(params, hash.len())?;
                Form::Argon2id { params, salt, hash }
            }
            ["", "6", salt, hash] => {
                let (salt, hash) = salt_and_hash(base64::decode(salt), base64::decode(hash))?;
                if hash.len() != SHA512.output_len() {
                    return Err("a hash of $6$ has 64 bytes");
                }
                Form::Sha512 { salt, hash }
            }
            ["", "7", iterations, salt, hash] => {
                let iterations = parse_iterations(iterations)?;
                let (salt, hash) = salt_and_hash(base64::decode(salt), base64::decode(hash))?;
                Form::Pbkdf2 {
                    iterations,
                    salt,
                    hash,
                }
            }
            _ => {
                return Err(
                    "the password has to be hashed, as $argon2id$..., $7$..., $6$... or \
                     SCRAM-SHA-256$...: rotamq passwd writes such lines",
                );
            }
        };
        Ok(Stored(form))
    }

    /// Whether it is this password. Slow; how slow, is no secret.
    pub fn matches(&self, password: &[u8]) -> bool {
        let mut computed = [0; FIELD_MAX];
        let hash: &[u8] = match &self.0 {
            Form::Argon2id { params, salt, hash } => {
                let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
                let computed = &mut computed[..hash.len()];
                if argon2.hash_password_into(password, salt, computed).is_err() {
                    return false;
                }
                hash
            }
            Form::Sha512 { salt, hash } => {
                let digest = digest(&SHA512, &[password, salt].concat());
                computed.copy_from_slice(digest.as_ref());
                hash
            }
            Form::Pbkdf2 {
                iterations,
                salt,
                hash,
            } => {
                let computed = &mut computed[..hash.len()];
                pbkdf2::derive(
                    pbkdf2::PBKDF2_HMAC_SHA512,
                    *iterations,
                    salt,
                    password,
                    computed,
                );
                hash
            }
            Form::Scram(keys) => {
                let derived = ScramKeys::derive(password, keys.iterations, &keys.salt);
                computed[..KEY_LEN].copy_from_slice(&derived.stored_key);
                &keys.stored_key
            }
        };
        verify_slices_are_equal(&computed[..hash.len()], hash).is_ok()
    }

    /// The keys, where they are kept.
    pub fn scram(&self) -> Option<&ScramKeys> {
        match &self.0 {
            Form::Scram(keys) => Some(keys),
            _ => None,
        }
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stored(..)")
    }
}

impl ScramKeys {
    /// RFC 5802, 3.
    pub fn derive(password: &[u8], iterations: NonZeroU32, salt: &[u8]) -> ScramKeys {
        let mut salted = [0; KEY_LEN];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            salt,
            password,
            &mut salted,
        );
        let client_key = hmac_sha256(&salted, b"Client Key");
        ScramKeys {
            iterations,
            salt: salt.into(),
            stored_key: sha256(&client_key),
            server_key: hmac_sha256(&salted, b"Server Key"),
        }
    }
}

/// As RFC 5803 has it.
impl fmt::Display for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [salt, stored, server] =
            [&*self.salt, &self.stored_key, &self.server_key].map(base64::encode);
        write!(
            f,
            "SCRAM-SHA-256${}:{salt}${stored}:{server}",
            self.iterations
        )
    }
}

/// A new line's argon2id hash, with the parameters that OWASP recommends.
///
/// # Errors
/// The system gives no randomness.
pub fn hash_argon2id(password: &[u8]) -> Result<String, &'static str> {
    let params = Params::DEFAULT;
    let salt = new_salt()?;
    let mut hash = [0; Params::DEFAULT_OUTPUT_LEN];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    (argon2.hash_password_into(password, &salt, &mut hash))
        .map_err(|_| "the password cannot be hashed")?;
    let (memory, passes, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
    let [salt, hash] = [&salt[..], &hash].map(base64::encode);
    let (salt, hash) = (salt.trim_end_matches('='), hash.trim_end_matches('='));
    Ok(format!(
        "$argon2id$v=19$m={memory},t={passes},p={lanes}${salt}${hash}"
    ))
}

/// A new line's SCRAM keys.
///
/// # Errors
/// The system gives no randomness.
pub fn hash_scram(password: &[u8], iterations: NonZeroU32) -> Result<String, &'static str> {
    Ok(ScramKeys::derive(password, iterations, &new_salt()?).to_string())
}

/// HMAC of RFC 5802, with the H of RFC 7677.
pub fn hmac_sha256(key: &[u8], text: &[u8]) -> [u8; KEY_LEN] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
    let mut bytes = [0; KEY_LEN];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

/// H of RFC 7677.
pub fn sha256(text: &[u8]) -> [u8; KEY_LEN] {
    let mut bytes = [0; KEY_LEN];
    bytes.copy_from_slice(digest(&SHA256, text).as_ref());
    bytes
}

fn new_salt() -> Result<[u8; SALT_LEN], &'static str> {
    let mut salt = [0; SALT_LEN];
    rand::fill(&mut salt).map_err(|_| "the system gives no random bytes")?;
    Ok(salt)
}

/// `m=19456,t=2,p=1`.
fn parse_argon2(text: &str, hash_len: usize) -> Result<Params, &'static str> {
    const WRONG: &str = "argon2id's parameters have to be m=..., t=... and p=..., with at most \
                         1 GiB of memory, 64 passes and 64 lanes";
    let mut fields = text.split(',');
    let mut field = |name: &str, max: u32| {
        let number = fields.next()?.strip_prefix(name)?.parse().ok()?;
        (number <= max).then_some(number)
    };
    let numbers = (|| {
        Some((
            field("m=", MEMORY_KIB_MAX)?,
            field("t=", PASSES_MAX)?,
            field("p=", LANES_MAX)?,
        ))
    })();
    let (memory, passes, lanes) = numbers.ok_or(WRONG)?;
    if fields.next().is_some() {
        return Err(WRONG);
    }
    Params::new(memory, passes, lanes, Some(hash_len)).map_err(|_| WRONG)
}

/// `iterations:salt$StoredKey:ServerKey`.
fn parse_scram(text: &str) -> Result<ScramKeys, &'static str> {
    const WRONG: &str = "SCRAM's keys have to be SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY";
    let (terms, keys) = text.split_once('$').ok_or(WRONG)?;
    let (iterations, salt) = terms.split_once(':').ok_or(WRONG)?;
    let (stored_key, server_key) = keys.split_once(':').ok_or(WRONG)?;
    let salt = base64::decode(salt).filter(|salt| (1..=FIELD_MAX).contains(&salt.len()));
    let key = |text| <[u8; KEY_LEN]>::try_from(base64::decode(text)?).ok();
    Ok(ScramKeys {
        iterations: parse_iterations(iterations)?,
        salt: salt.ok_or(WRONG)?.into(),
        stored_key: key(stored_key).ok_or(WRONG)?,
        server_key: key(server_key).ok_or(WRONG)?,
    })
}

fn parse_iterations(text: &str) -> Result<NonZeroU32, &'static str> {
    let number = text.parse::<NonZeroU32>().ok();
    number
        .filter(|number| number.get() <= ITERATIONS_MAX)
        .ok_or("the iterations have to be a number from 1 to 10,000,000")
}

type Field = Box<[u8]>;

fn salt_and_hash(
    salt: Option<Vec<u8>>,
    hash: Option<Vec<u8>>,
) -> Result<(Field, Field), &'static str> {
    let salt = salt.filter(|salt| (1..=FIELD_MAX).contains(&salt.len()));
    // A shorter one would be found by trying.
    let hash = hash.filter(|hash| (16..=FIELD_MAX).contains(&hash.len()));
    match (salt, hash) {
        (Some(salt), Some(hash)) => Ok((salt.into(), hash.into())),
        _ => Err("salt and hash have to be base64, of 1 to 64 and 16 to 64 bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_lets_nobody_else_in() {
        for password in [&b""[..], b"secret", b"pass\0x", &[0xFF; 65_535]] {
            let iterations = NonZeroU32::new(4096).expect("not zero");
            for text in [hash_argon2id(password), hash_scram(password, iterations)] {
                let text = text.expect("there is randomness");
                let stored = Stored::parse(&text).expect(&text);
                assert!(stored.matches(password), "{text}");
                // B13: what stands behind a zero counts too.
                let longer = [password, b"\0x"].concat();
                assert!(!stored.matches(&longer), "{text}");
                assert!(!stored.matches(b"other"), "{text}");
            }
        }
        assert_ne!(hash_argon2id(b"a"), hash_argon2id(b"a"));
    }

    /// From the reference implementation of argon2, and RFC 7677's example.
    #[test]
    fn forms_that_others_write() {
        for (password, text) in [
            (
                "password",
                "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ\
                 $CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
            ),
            (
                "pencil",
                "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==\
                 $WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=\
                 :wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
            ),
        ] {
            let stored = Stored::parse(text).expect(text);
            assert!(stored.matches(password.as_bytes()), "{text}");
            assert!(!stored.matches(b"passwort"), "{text}");
            if let Some(keys) = stored.scram() {
                assert_eq!(keys.to_string(), text);
            }
            assert!(!format!("{stored:?}").contains('$'));
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_the_secret() {
        let salt = "Y2FuYXJ5Y2FuYXJ5"; // "canarycanary"
        for text in [
            "canary".to_owned(),
            String::new(),
            "$1$canary".to_owned(),
            format!("$6${salt}${salt}"),
            format!("$6${salt}"),
            format!("$7$0${salt}${salt}{salt}"),
            format!("$7$10000001${salt}${salt}{salt}"),
            format!("$7$1${salt}$canary"),
            format!("$argon2i$v=19$m=65536,t=2,p=1${salt}${salt}{salt}"),
            format!("$argon2id$v=16$m=65536,t=2,p=1${salt}${salt}{salt}"),
            format!("$argon2id$v=19$m=4294967295,t=2,p=1${salt}${salt}{salt}"),
            format!("$argon2id$v=19$m=65536,t=2${salt}${salt}{salt}"),
            format!("$argon2id$v=19$m=65536,t=2,p=1,x=1${salt}${salt}{salt}"),
            format!("$argon2id$v=19$m=65536,t=2,p=1$canary${salt}"),
            format!("SCRAM-SHA-256$4096:{salt}${salt}:{salt}"),
            format!("SCRAM-SHA-256$4096:{salt}"),
        ] {
            let error = Stored::parse(&text).expect_err(&text);
            assert!(
                !error.contains("canary") && !error.contains(salt),
                "{error}"
            );
        }
    }
}
