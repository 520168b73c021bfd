//! What a configuration names that is read from files: users, the keys of
//! tokens, how a service is asked, rules.
//!
//! Owns reading all of it before any of it is used, at the start and again.

use std::sync::Arc;

use crate::access::rules::Rules;
use crate::access::{self, Policy};
use crate::authentication::tokens::TokenMethod;
use crate::authentication::{
    Authenticator, Certificates, Chain, Hashing, Method, PasswordFile, Scram, Service, Tokens,
};
use crate::config::{
    AccessSettings, AuthenticationSettings, AuthenticatorKind, Config, KeysAt, Listener,
    TokenSettings,
};

/// What was read.
#[derive(Default)]
pub(crate) struct Known {
    passwords: Option<Arc<PasswordFile>>,
    hashing: Option<Threads>,
    tokens: Option<Arc<Tokens>>,
    service: Option<Arc<Service>>,
    rules: Option<Arc<Rules>>,
}

/// Those that check passwords, and what they were started with.
#[derive(Clone)]
struct Threads {
    threads: usize,
    waiting_max: usize,
    hashing: Arc<Hashing>,
}

/// What cannot be used, and why: a sentence that names the file.
pub(crate) struct Unreadable {
    pub what: &'static str,
    pub why: String,
}

impl Known {
    /// Reads what the configuration names. What stays of `before`: threads, and
    /// keys that were fetched.
    ///
    /// # Errors
    /// All that cannot be used.
    pub fn read(config: &Config, before: &Known) -> Result<Known, Vec<Unreadable>> {
        let mut wrong = Vec::new();
        let mut known = Known::default();
        let settings = &config.authentication;
        match open_passwords(settings, before.hashing.as_ref()) {
            Ok(Some((passwords, threads))) => {
                (known.passwords, known.hashing) = (Some(passwords), Some(threads));
            }
            Ok(None) => {}
            Err(why) => wrong.push(Unreadable {
                what: "the password file stays as it was",
                why,
            }),
        }
        let mut take = |what, why| wrong.push(Unreadable { what, why });
        match open_tokens(&settings.tokens, before.tokens.as_deref()) {
            Ok(tokens) => known.tokens = tokens,
            Err(why) => take("the keys of tokens stay as they were", why),
        }
        match Service::open(&settings.http) {
            Ok(service) => known.service = service.map(Arc::new),
            Err(error) => take(
                "how the HTTP service is asked stays as it was",
                error.to_string(),
            ),
        }
        match rules_of(&config.access) {
            Ok(rules) => known.rules = rules.map(Arc::new),
            Err(why) => take("the access rules stay as they were", why),
        }
        match wrong.is_empty() {
            true => Ok(known),
            false => Err(wrong),
        }
    }

    /// Says in the log what was read; `again`: while the broker runs.
    pub fn log(&self, again: bool) {
        let again = if again { " again" } else { "" };
        if let Some(file) = &self.passwords {
            let users = file.users().len();
            tracing::info!(users, "the password file was read{again}");
        }
        match &self.tokens {
            None => {}
            // It is said when they are there.
            Some(tokens) if tokens.are_fetched() && again.is_empty() => {}
            Some(tokens) if tokens.are_fetched() => {
                tracing::info!("the keys of tokens are fetched again");
            }
            Some(tokens) => {
                tracing::info!(
                    keys = tokens.keys_len(),
                    "the keys of tokens were read{again}"
                );
            }
        }
        if !again.is_empty() {
            if self.service.is_some() {
                tracing::info!("what the HTTP service said before is forgotten");
            }
            if self.rules.is_some() {
                tracing::info!("the access rules were read again, and hold for all from now on");
            }
        }
    }

    pub fn passwords(&self) -> Option<&Arc<PasswordFile>> {
        self.passwords.as_ref()
    }

    pub fn tokens(&self) -> Option<&Arc<Tokens>> {
        self.tokens.as_ref()
    }

    /// By which clients may authenticate; `others`: those of the program that the
    /// broker is embedded in.
    pub fn methods(&self, others: &[Arc<dyn Method>]) -> Vec<Arc<dyn Method>> {
        let scram = self.passwords.iter().map(|file| Scram::new(file.clone()));
        let scram = scram.map(|scram| Arc::new(scram) as _);
        let by_token = self.tokens.iter().map(|tokens| TokenMethod(tokens.clone()));
        let by_token = by_token.map(|method| Arc::new(method) as _);
        scram
            .chain(by_token)
            .chain(others.iter().cloned())
            .collect()
    }

    /// What decides what clients may do.
    pub fn policy(&self, config: &Config) -> Policy {
        Policy {
            rules: self.rules.clone(),
            strictness: config.access.subscriptions,
            takes_own: config.authentication.brings_rights(),
        }
    }

    /// Who is asked at a listener, in its order. A token is known by its form, and
    /// costs no password's hash: it comes before passwords where no order is said.
    ///
    /// # Errors
    /// Somebody is to be asked who could know nobody.
    pub fn chain(&self, config: &Config, listener: &Listener) -> Result<Chain, String> {
        let named = listener.authentication.as_deref();
        let mut authenticators = Vec::new();
        let mut has_methods = false;
        for kind in named.unwrap_or(&AuthenticatorKind::ALL) {
            let authenticator: Option<Arc<dyn Authenticator>> = match kind {
                AuthenticatorKind::Certificate => {
                    (listener.tls.client_user).map(|user| Arc::new(Certificates::new(user)) as _)
                }
                AuthenticatorKind::Token => self.tokens.clone().map(|tokens| tokens as _),
                AuthenticatorKind::Password => self.passwords.clone().map(|file| file as _),
                AuthenticatorKind::Scram => None, // asked by its method
                AuthenticatorKind::Http => self.service.clone().map(|service| service as _),
            };
            let by_method = *kind == AuthenticatorKind::Scram && self.passwords.is_some();
            has_methods |= by_method;
            if named.is_some() && authenticator.is_none() && !by_method {
                let address = &listener.address;
                return Err(format!(
                    "authentication of the listener at {address}: {}",
                    kind.needs()
                ));
            }
            authenticators.extend(authenticator);
        }
        let allow_anonymous = listener.allow_anonymous.unwrap_or(config.allow_anonymous);
        let chain = Chain::new(authenticators, allow_anonymous);
        Ok(match has_methods {
            true => chain.with_methods(),
            false => chain,
        })
    }
}

fn open_passwords(
    settings: &AuthenticationSettings,
    before: Option<&Threads>,
) -> Result<Option<(Arc<PasswordFile>, Threads)>, String> {
    let Some(path) = &settings.password_file else {
        return Ok(None);
    };
    let (threads, waiting_max) = (settings.hashing_threads, settings.hashing_waiting_max);
    let is_same =
        |before: &&Threads| (before.threads, before.waiting_max) == (threads, waiting_max);
    let threads = match before.filter(is_same) {
        Some(before) => before.clone(),
        None => Threads {
            threads,
            waiting_max,
            hashing: Hashing::start(threads, waiting_max)
                .map_err(|error| format!("cannot start threads: {error}"))?
                .into(),
        },
    };
    let file = PasswordFile::open(path, threads.hashing.clone());
    let file = file.map_err(|error| error.to_string())?;
    Ok(Some((Arc::new(file), threads)))
}

fn open_tokens(
    settings: &TokenSettings,
    before: Option<&Tokens>,
) -> Result<Option<Arc<Tokens>>, String> {
    let tokens = match &settings.keys {
        Some(KeysAt::File(path)) => Tokens::open(path, settings.clone()),
        Some(KeysAt::Address(address)) => Tokens::fetched_from(address, settings.clone()),
        None => return Ok(None),
    };
    let tokens = tokens.map_err(|error| error.to_string())?;
    Ok(Some(Arc::new(match before {
        Some(before) => tokens.with_keys_of(before),
        None => tokens,
    })))
}

fn rules_of(settings: &AccessSettings) -> Result<Option<Rules>, String> {
    let (acl, form) = (&settings.acl_file, &settings.rules_file);
    access::read_rules(acl.as_deref(), form.as_deref()).map_err(|error| error.to_string())
}
