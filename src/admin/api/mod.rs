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
use serde_json::Value;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder, RefOr, SecurityRequirement};
use utoipa_axum::router::OpenApiRouter;

use super::guard::COOKIE;
use super::problem::PROBLEM;
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
    let (router, mut description) = described.split_for_parts();
    say_what_problems_are(&mut description);
    // What is described are plain values: they are JSON.
    let mut description = serde_json::to_value(&description).unwrap_or_default();
    say_how_large_numbers_are(&mut description);
    let text: Arc<str> = description.to_string().into();
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

/// Problems have a type of content of their own (RFC 9457), whichever handler
/// answers with one.
fn say_what_problems_are(description: &mut OpenApi) {
    let items = description.paths.paths.values_mut();
    let operations = items.flat_map(|item| {
        [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.delete,
            &mut item.patch,
        ]
    });
    for operation in operations.flatten() {
        if let Some(RefOr::T(problem)) = operation.responses.responses.get_mut("default")
            && let Some(content) = problem.content.swap_remove("application/json")
        {
            problem.content.insert(PROBLEM.to_owned(), content);
        }
    }
}

/// Numbers without a sign may be larger than the format `int32` or `int64` says,
/// which is made of their type.
fn say_how_large_numbers_are(description: &mut Value) {
    match description {
        Value::Object(fields) => {
            let is_unsigned = fields.get("minimum").is_some_and(|least| *least == 0);
            let format = fields.get("format").and_then(Value::as_str);
            if is_unsigned && matches!(format, Some("int32" | "int64")) {
                fields.remove("format");
            }
            fields.values_mut().for_each(say_how_large_numbers_are);
        }
        Value::Array(items) => items.iter_mut().for_each(say_how_large_numbers_are),
        _ => {}
    }
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
