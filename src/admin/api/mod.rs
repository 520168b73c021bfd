//! The API, below `/api/v1`: one file a resource, and the description of all of
//! it (OpenAPI), which is made from the handlers themselves.

mod access;
mod bans;
mod clients;
mod configuration;
mod history;
mod log;
mod publish;
mod queues;
mod retained;
mod sessions;
mod status;
mod subscriptions;
mod traces;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder, SecurityRequirement};
use utoipa_axum::router::OpenApiRouter;

use super::guard::COOKIE;
use super::{API, State, events};

pub(super) use history::shown;

/// All resources, and their description at `openapi.json`.
pub(super) fn router() -> Router<Arc<State>> {
    let resources = OpenApiRouter::new()
        .merge(status::routes())
        .merge(users::routes())
        .merge(queues::routes())
        .merge(clients::routes())
        .merge(sessions::routes())
        .merge(subscriptions::routes())
        .merge(retained::routes())
        .merge(publish::routes())
        .merge(bans::routes())
        .merge(access::routes())
        .merge(history::routes())
        .merge(events::routes())
        .merge(configuration::routes())
        .merge(log::routes())
        .merge(traces::routes());
    let described = OpenApiRouter::with_openapi(description()).nest(API, resources);
    let (router, description) = described.split_for_parts();
    // What is described are plain values: they are JSON.
    let text: Arc<str> = description.to_json().unwrap_or_default().into();
    let openapi = move || {
        let text = text.to_string();
        async move {
            let headers = [
                (CONTENT_TYPE, "application/json"),
                (CACHE_CONTROL, "no-cache"),
            ];
            (headers, text).into_response()
        }
    };
    router.route(&format!("{API}/openapi.json"), get(openapi))
}

/// What is said of the API as a whole.
fn description() -> OpenApi {
    const ABOUT: &str = "Looks at a broker, and steers it. Lists come a page at a time: what an \
                         answer has as `next` is the next question's `after`. Errors are problem \
                         documents (RFC 9457).";
    let info = InfoBuilder::new()
        .title("RotaMQ")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT));
    let mut description = OpenApiBuilder::new()
        .info(info)
        .security(Some([
            SecurityRequirement::new("token", [""; 0]),
            SecurityRequirement::new("login", [""; 0]),
        ]))
        .build();
    let components = description.components.get_or_insert_default();
    let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let login = SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(COOKIE)));
    components.add_security_scheme("token", token);
    components.add_security_scheme("login", login);
    description
}
