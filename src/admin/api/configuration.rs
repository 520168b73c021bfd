//! The configuration: what holds, and having it read again.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shares;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::State;
use crate::admin::guard::{Administrator, Viewer};
use crate::admin::page::{Listed, Page, Params};
use crate::admin::problem::{self, Problem};
use crate::broker::look::is_like;
use crate::config::{Reloaded, Setting};

pub(super) fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new()
        .routes(routes!(show))
        .routes(routes!(reload))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Like {
    /// Only those whose keys have this in them; or, with a `*`, are like it.
    key: Option<String>,
}

/// The values that hold, and where each comes from, in the order of the file.
#[utoipa::path(get, path = "/config", tag = "configuration", params(Page, Like),
    responses((status = 200, body = Listed<Setting>), (status = "default", body = Problem)))]
async fn show(
    _: Viewer,
    Shares(state): Shares<Arc<State>>,
    Params(page): Params<Page>,
    Params(filter): Params<Like>,
) -> problem::Result<Listed<Setting>> {
    let limit = page.limit()?;
    let mut items = state.operations.settings();
    if let Some(after) = page.after() {
        let last = items.iter().position(|setting| setting.key == after);
        items.drain(..=last.ok_or_else(|| Page::wrong_after(after))?);
    }
    items.retain(|setting| is_like(filter.key.as_deref(), &setting.key));
    Ok(Json(Listed::first(items, limit, |last| last.key.clone())))
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
