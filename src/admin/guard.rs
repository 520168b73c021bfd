//! Who asks, and whether a request is for such.
//!
//! A handler that takes one of [`Viewer`], [`Operator`] and [`Administrator`] is
//! for those that have that role at least, and for nobody else. What goes on for
//! long has a [`Standing`] as well, and ends with that.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use tokio::sync::watch;

use super::State;
use super::problem::Problem;
use super::users::Role;

/// The cookie of a browser that is logged in.
pub(super) const COOKIE: &str = "rotamq_login";
/// What requests of a browser carry that change anything: no form and no page of
/// another origin can add it.
const OURS: &str = "x-rotamq-request";
/// How often it is looked whether a login or a token has expired.
const EXPIRY_POLL: Duration = Duration::from_secs(15);

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    /// Of a user or a token.
    pub name: String,
    pub role: Role,
}

/// Finds who asks.
///
/// # Errors
/// Nobody that is known does.
fn who(parts: &Parts, state: &State) -> Result<Who, Problem> {
    let now = state.shared.clock.now();
    if let Some(value) = parts.headers.get(header::AUTHORIZATION) {
        let token = value.to_str().ok().and_then(bearer);
        return token
            .and_then(|token| state.users.of_token(token, now))
            .ok_or_else(|| {
                Problem::unknown("the token is not known, or has expired; it is given as Authorization: Bearer TOKEN")
            });
    }
    let Some(login) = cookie(&parts.headers) else {
        return Err(Problem::unknown(
            "log in, or give a token as Authorization: Bearer TOKEN",
        ));
    };
    let is_change = !matches!(parts.method, Method::GET | Method::HEAD);
    if is_change {
        check_ours(&parts.headers)?;
    }
    (state.users.of_login(login, now))
        .ok_or_else(|| Problem::unknown("the login has expired: log in again"))
}

/// Whether a request that comes with a browser's login is of the dashboard.
///
/// # Errors
/// It may be of another origin's page.
pub(super) fn check_ours(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.contains_key(OURS) {
        true => check_origin(headers),
        false => Err(Problem::forbidden(
            "a request that comes with a browser's login needs the header X-Rotamq-Request",
        )),
    }
}

/// Whether a request is of no other origin's page, as far as its browser says.
///
/// # Errors
/// It is.
pub(super) fn check_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        return Ok(());
    };
    let text = |value: &header::HeaderValue| value.to_str().ok().map(str::to_owned);
    let origin = text(origin).unwrap_or_default();
    let host = headers.get(header::HOST).and_then(text);
    let (_, of_page) = origin.split_once("://").unwrap_or_default();
    match host.is_some_and(|host| host.eq_ignore_ascii_case(of_page)) {
        true => Ok(()),
        false => Err(Problem::forbidden(
            "the page that asks is of another origin than this port: Origin and Host have to name \
             the same, also behind a proxy",
        )),
    }
}

/// Who asks, for as long as an answer takes: a login or a token may be revoked
/// meanwhile, expire, or come to allow less.
pub(crate) struct Standing {
    state: Arc<State>,
    shown: Shown,
    changes: watch::Receiver<()>,
}

enum Shown {
    Token(String),
    Login(String),
    Nothing,
}

impl FromRequestParts<Arc<State>> for Standing {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &Arc<State>,
    ) -> Result<Standing, Self::Rejection> {
        let shown = match parts.headers.get(header::AUTHORIZATION) {
            Some(value) => value.to_str().ok().and_then(bearer).map(str::to_owned),
            None => None,
        };
        let login = || cookie(&parts.headers).map(|login| Shown::Login(login.to_owned()));
        Ok(Standing {
            state: state.clone(),
            shown: shown
                .map(Shown::Token)
                .or_else(login)
                .unwrap_or(Shown::Nothing),
            changes: state.users.changes(),
        })
    }
}

impl Standing {
    fn role(&self) -> Option<Role> {
        let (users, now) = (&self.state.users, self.state.shared.clock.now());
        let who = match &self.shown {
            Shown::Token(token) => users.of_token(token, now),
            Shown::Login(login) => users.still_of_login(login, now),
            Shown::Nothing => None,
        };
        who.map(|who| who.role)
    }

    /// Is done when who asked has this role no more.
    pub async fn ended(&mut self, role: Role) {
        while self.role().is_some_and(|current| current >= role) {
            // Either is reason to look again.
            _ = tokio::time::timeout(EXPIRY_POLL, self.changes.changed()).await;
        }
    }
}

/// RFC 6750, 2.1.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("Bearer")
        .then_some(token.trim())
}

/// What a browser shows that is logged in.
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lists = headers.get_all(header::COOKIE).iter();
    let mut pairs = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(';'));
    pairs.find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE).then_some(value)
    })
}

macro_rules! guards {
    ($($(#[$doc:meta])* $guard:ident needs $role:ident;)*) => {
        $(
            $(#[$doc])*
            pub(crate) struct $guard(pub Who);

            impl FromRequestParts<Arc<State>> for $guard {
                type Rejection = Problem;

                async fn from_request_parts(
                    parts: &mut Parts,
                    state: &Arc<State>,
                ) -> Result<$guard, Problem> {
                    let who = who(parts, state)?;
                    match who.role >= Role::$role {
                        true => Ok($guard(who)),
                        false => Err(Problem::forbidden(format!(
                            "{} has the role {}, and this is for the role {}",
                            who.name,
                            who.role,
                            Role::$role,
                        ))),
                    }
                }
            }
        )*
    };
}

guards! {
    /// Who may see what there is, but no payloads.
    Viewer needs Viewer;
    /// Who may also see payloads, and change what runs.
    Operator needs Operator;
    /// Who may do everything.
    Administrator needs Admin;
}
