//! What handlers read of a request, with problems as everywhere else; and how
//! lists are told, a page at a time.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::{IntoParams, ToSchema};

use super::problem::Problem;
use crate::broker::look::Paged;

const LIMIT_MAX: usize = 1000;
const LIMIT_DEFAULT: usize = 100;
/// From the first byte of a body to the last.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What a list is asked for with.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// Items in the answer, at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// Those after: `next` of the page before.
    after: Option<String>,
}

impl Page {
    /// # Errors
    /// It is out of bounds.
    pub fn limit(&self) -> Result<usize, Problem> {
        let limit = within("limit", self.limit, 1..=LIMIT_MAX)?;
        Ok(limit.unwrap_or(LIMIT_DEFAULT))
    }

    /// Whether anything is said of the page.
    pub fn is_given(&self) -> bool {
        self.limit.is_some() || self.after.is_some()
    }

    pub fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// Where it begins, of a list that tells that as it is written.
    ///
    /// # Errors
    /// It is no `next` of that list.
    pub fn after_parsed<P: FromStr>(&self) -> Result<Option<P>, Problem> {
        let parse = |after: &str| after.parse().map_err(|_| Page::wrong_after(after));
        self.after().map(parse).transpose()
    }

    pub fn wrong_after(after: &str) -> Problem {
        let why = format!("after is what a page before had as next, and not {after:?}");
        Problem::invalid(why)
    }
}

/// A number within its bounds.
///
/// # Errors
/// It is not.
pub(crate) fn within(
    what: &str,
    number: Option<usize>,
    bounds: RangeInclusive<usize>,
) -> Result<Option<usize>, Problem> {
    match number {
        Some(number) if !bounds.contains(&number) => {
            let (min, max) = (bounds.start(), bounds.end());
            let why = format!("{what} is from {min} to {max}, not {number}");
            Err(Problem::invalid(why))
        }
        number => Ok(number),
    }
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Listed<T> {
    pub items: Vec<T>,
    /// What to give as `after` for the page behind it; null: it is the last.
    pub next: Option<String>,
}

impl<T> Listed<T> {
    /// The first of all that there are; `place`: after what the next page is.
    pub fn first(mut items: Vec<T>, limit: usize, place: impl FnOnce(&T) -> String) -> Listed<T> {
        let has_more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| has_more).map(place);
        Listed { items, next }
    }
}

impl<T, P: ToString> From<Paged<T, P>> for Listed<T> {
    fn from(page: Paged<T, P>) -> Listed<T> {
        Listed {
            items: page.items,
            next: page.next.map(|next| next.to_string()),
        }
    }
}

/// The body, in JSON.
pub(crate) struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Body<T>, Problem> {
        let body = timeout(BODY_TIMEOUT, Json::<T>::from_request(request, state)).await;
        let body = body.map_err(|_| {
            let secs = BODY_TIMEOUT.as_secs();
            let why = format!("the body has to come within {secs} s");
            Problem::new(StatusCode::REQUEST_TIMEOUT, why)
        })?;
        body.map(|Json(body)| Body(body))
            .map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))
    }
}

/// What follows the `?`. Parameters that are not known are not looked at.
pub(crate) struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Params<T>, Problem> {
        Query::<T>::try_from_uri(&parts.uri)
            .map(|Query(params)| Params(params))
            .map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))
    }
}

/// What the path names, percent-decoded.
pub(crate) struct Named<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Named<T>, Problem> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(named)| Named(named))
            .map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))
    }
}
