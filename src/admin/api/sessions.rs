//! Sessions, whether their clients are there or not.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shares;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::State;
use crate::admin::guard::{Operator, Viewer};
use crate::admin::page::{Listed, Named, Page, Params};
use crate::admin::problem::{self, Problem};
use crate::broker::look::{SessionShown, SessionView, Wanted};
use crate::net::with_worker;

pub(super) fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show, end))
}

/// A text asks for those that have it in theirs; or, with a `*`, are like it.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Like {
    /// Whether their clients are there.
    connected: Option<bool>,
    /// Of their client identifiers.
    client: Option<String>,
    /// Of their users' names.
    user: Option<String>,
    /// Of the addresses that their connections come from, or the last ones did.
    address: Option<String>,
}

/// Sessions, in no order that means anything. A page may have fewer than were
/// asked for, and still be not the last.
#[utoipa::path(get, path = "/sessions", tag = "sessions", params(Page, Like),
    responses((status = 200, body = Listed<SessionView>), (status = "default", body = Problem)))]
async fn list(
    _: Viewer,
    Shares(state): Shares<Arc<State>>,
    Params(page): Params<Page>,
    Params(like): Params<Like>,
) -> problem::Result<Listed<SessionView>> {
    let wanted = Wanted {
        client: like.client.as_deref(),
        user: like.user.as_deref(),
        address: like.address.as_deref(),
        listener: None,
        connected: like.connected,
    };
    let after = page.after_parsed()?;
    let sessions = (state.shared.core).list_sessions(wanted, after, page.limit()?);
    Ok(Json(sessions.into()))
}

/// All that is known of a session.
#[utoipa::path(get, path = "/sessions/{client}", tag = "sessions",
    params(("client" = String, Path, description = "The client identifier.")),
    responses((status = 200, body = SessionShown), (status = "default", body = Problem)))]
async fn show(
    _: Viewer,
    Shares(state): Shares<Arc<State>>,
    Named(client): Named<String>,
) -> problem::Result<SessionShown> {
    let shared = &state.shared;
    Ok(Json(shared.core.show_session(&client, shared.clock.now())?))
}

/// Ends a session: its client's connection is closed, and its subscriptions and
/// messages are gone, on disk too. Its will is published.
#[utoipa::path(delete, path = "/sessions/{client}", tag = "sessions",
    params(("client" = String, Path, description = "The client identifier.")),
    responses((status = 204), (status = "default", body = Problem)))]
async fn end(
    Operator(who): Operator,
    Shares(state): Shares<Arc<State>>,
    Named(client): Named<String>,
) -> Result<StatusCode, Problem> {
    let shared = &state.shared;
    let receipt = with_worker(shared, |local| {
        let now = shared.clock.now();
        (shared.core).end_session(&mut local.worker, &client, now)
    })?;
    tracing::info!(by = &*who.name, client, "a session was ended");
    state.stored(receipt).await?;
    Ok(StatusCode::NO_CONTENT)
}
