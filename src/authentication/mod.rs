//! Who a client is.
//!
//! Owns the chain that is asked at CONNECT, and what a method of enhanced
//! authentication is. Knows no packet, and no socket but those on which services
//! of the operator's are asked; decides nothing about rights: those are
//! `access`'s. Nothing here holds a lock while it waits, and
//! no secret of a client's or of a file's is in a log line, an error or what
//! `Debug` shows.

mod bans;
mod breaker;
pub mod certificates;
mod fetching;
mod hashing;
mod method;
pub mod passwords;
mod remembered;
mod requests;
pub mod scram;
pub mod service;
pub mod stored;
pub mod tokens;

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use bans::network_of;
pub use bans::{Ban, Banned, BannedFor, Bans, Connecting, Flapping};
pub use certificates::Certificates;
pub use hashing::Hashing;
pub use method::{Conversation, Method, Step};
pub use passwords::{FileError, PasswordFile};
pub use scram::Scram;
pub use service::Service;
pub use tokens::Tokens;

use crate::access::OwnRights;
use crate::protocol::{ReasonCode, Version};

/// What a client says of itself in its CONNECT, and where it comes from.
// Debug is by hand: it knows the password.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// `None`: it comes by a Unix socket.
    pub address: Option<IpAddr>,
    /// The certificate that it has shown and that TLS has found valid, in DER.
    pub certificate: Option<&'a [u8]>,
    /// Empty: it leaves its client identifier to the broker.
    pub client: &'a str,
    pub user: Option<&'a str>,
    pub password: Option<&'a [u8]>,
    /// The address that it came in by, as it is configured.
    pub listener: &'a str,
    /// `None`: it is not known.
    pub version: Option<Version>,
}

impl Credentials<'_> {
    /// Somebody who says nothing.
    pub const NOBODY: Credentials<'static> = Credentials {
        address: None,
        client: "",
        user: None,
        password: None,
        listener: "",
        certificate: None,
        version: None,
    };
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("address", &self.address)
            .field("has_certificate", &self.certificate.is_some())
            .field("client", &self.client)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// A client whose identity is settled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authenticated {
    /// `None`: anonymous, whatever name it gave.
    pub user: Option<Arc<str>>,
    /// How long that holds, from when it was found out; `None`: for ever.
    pub lasts: Option<Duration>,
    /// What whoever says so says of what it may do; `None`: nothing.
    pub rights: Option<OwnRights>,
}

impl Authenticated {
    /// Somebody, and nobody knows who.
    pub const ANONYMOUS: Authenticated = Authenticated {
        user: None,
        lasts: None,
        rights: None,
    };

    /// This user, for as long as it likes.
    pub fn as_user(name: impl Into<Arc<str>>) -> Authenticated {
        Authenticated {
            user: Some(name.into()),
            ..Authenticated::ANONYMOUS
        }
    }
}

/// What one authenticator says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is this user.
    Yes(Authenticated),
    /// It is not who it says; why, for the log alone.
    No(Cow<'static, str>),
    /// Nothing is known here of such a client: the next one is asked.
    Next,
    /// It cannot be found out now, for too much is being asked.
    Busy,
    /// It cannot be found out now, for whoever knows it does not answer; why,
    /// for the log alone.
    Unavailable(Cow<'static, str>),
}

/// An [`Answer`] that may take a while.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// Somebody who knows clients by what they say in CONNECT.
pub trait Authenticator: Send + Sync {
    /// For the log.
    fn name(&self) -> &'static str;

    /// Dropping the future takes the question back.
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>) -> Answering<'a>;

    /// The rights of its own that a client has of whom it said [`Answer::Next`],
    /// if it was to say what clients may do and nobody else says so.
    fn rights_of_unknown(&self) -> Option<OwnRights> {
        None
    }
}

/// Whether that can be a user's name.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(char::is_control)
}

/// Why a client is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// For the CONNACK, which says no more than that.
    pub reason: ReasonCode,
    /// For the log: who refused it, and why.
    pub why: String,
}

/// All who are asked, one after the other, until one knows.
#[derive(Default)]
pub struct Chain {
    authenticators: Vec<Arc<dyn Authenticator>>,
    // Somebody knows clients by name, if only by a method.
    has_users: bool,
    allow_anonymous: bool,
}

impl Chain {
    /// `allow_anonymous`: who gives no name is let in without one. Where nobody
    /// could know a name, so is everybody.
    pub fn new(authenticators: Vec<Arc<dyn Authenticator>>, allow_anonymous: bool) -> Chain {
        Chain {
            has_users: !authenticators.is_empty(),
            authenticators,
            allow_anonymous,
        }
    }

    /// There are users who show by a method who they are: a name that comes
    /// without is nobody's.
    #[must_use]
    pub fn with_methods(mut self) -> Chain {
        self.has_users = true;
        self
    }

    /// Who the client is.
    ///
    /// # Errors
    /// It is not let in.
    pub async fn authenticate(
        &self,
        credentials: Credentials<'_>,
    ) -> Result<Authenticated, Refused> {
        let has_named = credentials.user.is_some() || credentials.password.is_some();
        let refused = |who: &str, why: &str| {
            let reason = match has_named {
                true => ReasonCode::BadUserNameOrPassword,
                false => ReasonCode::NotAuthorized,
            };
            let why = format!("{who}{why}");
            Err(Refused { reason, why })
        };
        let mut rights = None;
        for authenticator in &self.authenticators {
            match authenticator.authenticate(credentials).await {
                Answer::Yes(who) if who.user.is_none() && !self.allow_anonymous => {
                    let why = ": anonymous clients are not allowed";
                    return refused(authenticator.name(), why);
                }
                Answer::Yes(mut who) => {
                    who.rights = who.rights.or(rights);
                    return Ok(who);
                }
                Answer::No(why) => return refused(authenticator.name(), &format!(": {why}")),
                Answer::Next => rights = rights.or_else(|| authenticator.rights_of_unknown()),
                Answer::Busy => {
                    let reason = ReasonCode::ServerBusy;
                    let why = format!("{}: too much is being asked", authenticator.name());
                    return Err(Refused { reason, why });
                }
                Answer::Unavailable(why) => {
                    let reason = ReasonCode::ServerUnavailable;
                    let why = format!("{}: {why}", authenticator.name());
                    return Err(Refused { reason, why });
                }
            }
        }
        // A name that somebody could have known is not somebody's word for it.
        if has_named && self.has_users {
            return refused("", "nobody knows such a client");
        }
        match self.allow_anonymous {
            true => Ok(Authenticated {
                rights,
                ..Authenticated::ANONYMOUS
            }),
            false => refused("", "anonymous clients are not allowed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Waker};

    use super::*;

    /// Gives the same answer to everybody, and counts them.
    struct Saying(Answer, AtomicUsize);

    impl Authenticator for Saying {
        fn name(&self) -> &'static str {
            "saying"
        }

        fn authenticate<'a>(&'a self, _: Credentials<'a>) -> Answering<'a> {
            self.1.fetch_add(1, Ordering::Relaxed);
            Box::pin(std::future::ready(self.0.clone()))
        }
    }

    fn ann() -> Answer {
        Answer::Yes(Authenticated::as_user("ann"))
    }

    /// What a chain of these answers makes of a client, and how many were asked.
    fn ask(
        answers: &[Answer],
        allow_anonymous: bool,
        (user, password): (Option<&str>, Option<&[u8]>),
    ) -> (Result<Option<Arc<str>>, ReasonCode>, usize) {
        let sayings = answers.iter().cloned();
        let sayings: Vec<_> = sayings
            .map(|answer| Arc::new(Saying(answer, AtomicUsize::new(0))))
            .collect();
        let authenticators = sayings.iter().map(|one| one.clone() as Arc<_>).collect();
        let chain = Chain::new(authenticators, allow_anonymous);
        let mut asking = Box::pin(chain.authenticate(Credentials {
            address: Some(Ipv4Addr::LOCALHOST.into()),
            certificate: None,
            client: "c",
            user,
            password,
            ..Credentials::NOBODY
        }));
        let Poll::Ready(found) = asking
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        else {
            panic!("nobody waits");
        };
        let asked = sayings.iter().map(|one| one.1.load(Ordering::Relaxed));
        let found = found.map(|who| who.user).map_err(|refused| refused.reason);
        (found, asked.sum())
    }

    /// Case B17 of docs/security.md.
    #[test]
    fn the_first_who_knows_decides() {
        const NAMED: (Option<&str>, Option<&[u8]>) = (Some("ann"), Some(b"secret"));
        let no = || Answer::No("wrong".into());
        let bad = Err(ReasonCode::BadUserNameOrPassword);
        for (answers, expected, asked) in [
            (vec![ann(), no()], Ok(Some("ann".into())), 1),
            (vec![no(), ann()], bad.clone(), 1),
            (vec![Answer::Next, ann()], Ok(Some("ann".into())), 2),
            (vec![Answer::Next, no()], bad.clone(), 2),
            (vec![Answer::Busy, ann()], Err(ReasonCode::ServerBusy), 1),
            (
                vec![Answer::Unavailable("gone".into()), ann()],
                Err(ReasonCode::ServerUnavailable),
                1,
            ),
            (vec![Answer::Next, Answer::Next], bad, 2),
        ] {
            for allow_anonymous in [false, true] {
                let found = ask(&answers, allow_anonymous, NAMED);
                assert_eq!(found, (expected.clone(), asked), "{answers:?}");
            }
        }
    }

    /// B11 and the like: half a name is no anonymity.
    /// Case B10 of docs/security.md.
    #[test]
    fn who_is_anonymous() {
        let not_authorized = Err(ReasonCode::NotAuthorized);
        let bad = Err(ReasonCode::BadUserNameOrPassword);
        let (nobody, name, token) = (
            (None, None),
            (Some("ann"), None),
            (None, Some(&b"token"[..])),
        );
        for (answers, allow_anonymous, said, expected) in [
            (vec![], true, nobody, Ok(None)),
            (vec![], true, name, Ok(None)),
            (vec![], false, nobody, not_authorized.clone()),
            (vec![], false, name, bad.clone()),
            (vec![Answer::Next], true, nobody, Ok(None)),
            (vec![Answer::Next], true, name, bad.clone()),
            (vec![Answer::Next], true, token, bad.clone()),
            (vec![Answer::Next], false, nobody, not_authorized),
            (vec![Answer::Next], false, token, bad),
        ] {
            let (found, _) = ask(&answers, allow_anonymous, said);
            assert_eq!(found, expected, "{answers:?} {allow_anonymous} {said:?}");
        }
    }

    /// Nobody makes clients anonymous where that is not allowed.
    #[test]
    fn an_anonymous_yes_is_one_where_that_is_allowed() {
        let yes = [Answer::Yes(Authenticated::ANONYMOUS)];
        for (said, refused) in [
            ((None, None), ReasonCode::NotAuthorized),
            ((Some(""), None), ReasonCode::BadUserNameOrPassword),
        ] {
            assert_eq!(ask(&yes, true, said).0, Ok(None));
            assert_eq!(ask(&yes, false, said).0, Err(refused));
        }
    }

    /// Says [`Answer::Next`], and would have said what clients may do.
    struct SayingRights;

    impl Authenticator for SayingRights {
        fn name(&self) -> &'static str {
            "saying rights"
        }

        fn authenticate<'a>(&'a self, _: Credentials<'a>) -> Answering<'a> {
            Box::pin(std::future::ready(Answer::Next))
        }

        fn rights_of_unknown(&self) -> Option<OwnRights> {
            Some(OwnRights::nothing("nobody"))
        }
    }

    /// Of whom nothing is said, though it was asked, has no rights of its own:
    /// that is another thing than none being asked for.
    #[test]
    fn who_is_passed_on_has_no_rights() {
        let nothing = OwnRights::nothing("nobody");
        let own = OwnRights::nothing("ann's");
        let knows = |rights: Option<&OwnRights>| {
            let who = Authenticated {
                rights: rights.cloned(),
                ..Authenticated::as_user("ann")
            };
            Arc::new(Saying(Answer::Yes(who), AtomicUsize::new(0))) as Arc<dyn Authenticator>
        };
        let passes = || Arc::new(SayingRights) as Arc<dyn Authenticator>;
        for (authenticators, expected) in [
            (vec![passes()], Some(&nothing)),
            (vec![passes(), knows(None)], Some(&nothing)),
            (vec![passes(), knows(Some(&own))], Some(&own)),
            (vec![knows(None), passes()], None),
            (vec![], None),
        ] {
            let chain = Chain::new(authenticators, true);
            let mut asking = Box::pin(chain.authenticate(Credentials::NOBODY));
            let polled = asking
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
            let Poll::Ready(Ok(who)) = polled else {
                panic!("nobody waits, and all get in");
            };
            assert_eq!(who.rights.as_ref(), expected);
        }
    }

    /// Case L07 of docs/security.md.
    #[test]
    fn what_is_shown_knows_no_password() {
        let credentials = Credentials {
            address: Some(Ipv4Addr::LOCALHOST.into()),
            certificate: None,
            client: "c",
            user: Some("ann"),
            password: Some(b"canary"),
            ..Credentials::NOBODY
        };
        let shown = format!("{credentials:?}");
        assert!(
            shown.contains("ann") && !shown.contains("canary"),
            "{shown}"
        );
        assert!(!shown.contains("99, 97"), "{shown}");
    }
}
