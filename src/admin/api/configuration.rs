//! The configuration: what holds, and having it read again.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shares;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::State;
use crate::admin::guard::{Administrator, Viewer};
use crate::admin::problem::{self, Problem};
use crate::config::{Reloaded, Setting};

pub(super) fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new()
        .routes(routes!(show))
        .routes(routes!(reload))
}

/// All values, in the order of the file.
#[derive(Serialize, ToSchema)]
struct Effective {
    items: Vec<Setting>,
}

/// The values that hold, and where each comes from.
#[utoipa::path(get, path = "/config", tag = "configuration",
    responses((status = 200, body = Effective), (status = "default", body = Problem)))]
async fn show(_: Viewer, Shares(state): Shares<Arc<State>>) -> problem::Result<Effective> {
    let items = state.operations.settings();
    Ok(Json(Effective { items }))
}

/// Reads the configuration again, and all files that it names.
///
/// With an error in any of them nothing is changed: the answer is 409, with all
/// that is wrong in `errors`.
#[utoipa::path(post, path = "/reload", tag = "configuration",
    responses((status = 200, body = Reloaded), (status = "default", body = Problem)))]
async fn reload(
    Administrator(who): Administrator,
    Shares(state): Shares<Arc<State>>,
) -> problem::Result<Reloaded> {
    tracing::info!(by = who.name, "the configuration is to be read again");
    let operations = state.operations.clone();
    let reloaded = tokio::task::spawn_blocking(move || operations.reload()).await;
    let reloaded = reloaded.map_err(|_| Problem::unavailable("the broker stops"))?;
    reloaded.map(Json).map_err(|error| {
        Problem::conflict("the configuration is wrong, and nothing is changed")
            .with_errors(error.problems)
    })
}
