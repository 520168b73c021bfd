//! Why a request was refused, as RFC 9457 has it.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::broker::steer::{Code, SteerError};

/// What a handler answers.
pub(crate) type Result<T> = std::result::Result<Json<T>, Problem>;

/// The type of content of a problem document.
pub(crate) const PROBLEM: &str = "application/problem+json";

/// A problem document. Its type is always the status itself (`about:blank`).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    #[serde(serialize_with = "number")]
    #[schema(value_type = u16, example = 404)]
    pub status: StatusCode,
    /// The status in words.
    pub title: &'static str,
    /// A sentence that says what was wrong, and what would be right.
    pub detail: String,
    /// One by one, where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

fn number<S: serde::Serializer>(
    status: &StatusCode,
    to: S,
) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_u16(status.as_u16())
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Problem {
        Problem {
            status,
            title: status.canonical_reason().unwrap_or("Error"),
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    /// The request is not what it has to be.
    pub fn invalid(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, detail)
    }

    /// Nobody is known by what the request brings.
    pub fn unknown(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNAUTHORIZED, detail)
    }

    /// Who asks may not.
    pub fn forbidden(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, detail)
    }

    /// What is there does not let it be done.
    pub fn conflict(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, detail)
    }

    /// It cannot be done now.
    pub fn unavailable(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// The same, one by one.
    #[must_use]
    pub fn with_errors(self, errors: Vec<String>) -> Problem {
        Problem { errors, ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status;
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
        if status == StatusCode::UNAUTHORIZED {
            // RFC 9110, 11.6.1.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<SteerError> for Problem {
    fn from(error: SteerError) -> Problem {
        let status = match error.code {
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Denied | Code::NotAllowed => StatusCode::FORBIDDEN,
            Code::Exists | Code::NotEmpty => StatusCode::CONFLICT,
            Code::Invalid => StatusCode::BAD_REQUEST,
            Code::Full => StatusCode::INSUFFICIENT_STORAGE,
            Code::Unreadable => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Problem::new(status, error.message)
    }
}
