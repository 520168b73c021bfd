//! Who asks, and whether a request is for such.
//!
//! A handler that takes one of [`Viewer`], [`Operator`] and [`Administrator`] is
//! for those that have that role at least, and for nobody else.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};

use super::State;
use super::problem::Problem;
use super::users::Role;

/// The cookie of a browser that is logged in.
pub(super) const COOKIE: &str = "rotamq_login";
/// What requests of a browser carry that change anything: no form and no page of
/// another origin can add it.
const OURS: &str = "x-rotamq-request";

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
    if is_change && !parts.headers.contains_key(OURS) {
        return Err(Problem::forbidden(
            "a request that comes with a browser's login needs the header X-Rotamq-Request",
        ));
    }
    (state.users.of_login(login, now))
        .ok_or_else(|| Problem::unknown("the login has expired: log in again"))
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
