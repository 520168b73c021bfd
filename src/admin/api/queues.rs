//! Queues and their members: all that steering has, by HTTP.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shares;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::State;
use crate::admin::guard::{Operator, Viewer, Who};
use crate::admin::page::{Body, Listed, Named, Page, Params, within};
use crate::admin::problem::{self, Problem};
use crate::broker::steer::{
    Answer, Deleted, Given, Moved, MovedTo, Paused, Peeked, Purged, QueueView, Queues, Request,
    Shown, Tailed, Traced,
};
use crate::journal::Receipt;
use crate::net::with_worker;

pub(super) fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show, create, set, delete))
        .routes(routes!(peek))
        .routes(routes!(purge))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(move_messages))
        .routes(routes!(redrive))
        .routes(routes!(trace))
        .routes(routes!(tail))
}

/// Does it, and has all that it stored on disk before it is told. What is
/// answered is of the kind that was asked for.
async fn steer(state: &State, who: &Who, request: Request) -> problem::Result<Answer> {
    let asked = || serde_json::to_string(&request).unwrap_or_default();
    match request.is_change() {
        true => tracing::info!(by = who.name, request = asked(), "steered"),
        false => tracing::debug!(by = who.name, request = asked(), "looked at"),
    }
    let shared = &state.shared;
    let now = shared.clock.now();
    let (answer, receipt) = with_worker(shared, |local| {
        local.worker.effects.receipt = Receipt::NONE;
        let answer = shared.core.steer(&mut local.worker, &request, now);
        (answer, local.worker.effects.receipt)
    });
    let stored = shared.stored(receipt).await;
    stored.map_err(|failed| Problem::unavailable(format!("the disk failed: {failed}")))?;
    Ok(Json(answer?))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Like {
    /// Only those whose names have this in them; or, with a `*`, are like it.
    name: Option<String>,
}

/// Queues, by name.
#[utoipa::path(get, path = "/queues", tag = "queues", params(Page, Like),
    responses((status = 200, body = Listed<QueueView>), (status = "default", body = Problem)))]
async fn list(
    Viewer(who): Viewer,
    Shares(state): Shares<Arc<State>>,
    Params(page): Params<Page>,
    Params(filter): Params<Like>,
) -> problem::Result<Listed<QueueView>> {
    let request = Request::List {
        name: filter.name,
        after: page.after().map(str::to_owned),
        limit: Some(page.limit()?),
    };
    let Json(Answer::Queues(Queues { queues, next })) = steer(&state, &who, request).await? else {
        unreachable!("a list is answered by queues");
    };
    Ok(Json(Listed {
        items: queues,
        next,
    }))
}

/// All that is known of a queue.
#[utoipa::path(get, path = "/queues/{name}", tag = "queues", params(("name" = String, Path)),
    responses((status = 200, body = Shown), (status = "default", body = Problem)))]
async fn show(
    Viewer(who): Viewer,
    Shares(state): Shares<Arc<State>>,
    Named(queue): Named<String>,
) -> problem::Result<Answer> {
    steer(&state, &who, Request::Show { queue }).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Keys of a `[[queue]]` table; null: as the configuration has it.
    #[serde(default)]
    #[schema(value_type = Object)]
    settings: Map<String, Value>,
}

/// Makes a queue.
#[utoipa::path(put, path = "/queues/{name}", tag = "queues", params(("name" = String, Path)),
    request_body = Settings,
    responses((status = 200, body = Given), (status = "default", body = Problem)))]
async fn create(
    Operator(who): Operator,
    Shares(state): Shares<Arc<State>>,
    Named(queue): Named<String>,
    Body(body): Body<Settings>,
) -> problem::Result<Answer> {
    let request = Request::Create {
        queue,
        settings: body.settings,
    };
    steer(&state, &who, request).await
}

/// Changes settings of a queue.
#[utoipa::path(patch, path = "/queues/{name}", tag = "queues", params(("name" = String, Path)),
    request_body = Settings,
    responses((status = 200, body = Given), (status = "default", body = Problem)))]
async fn set(
    Operator(who): Operator,
    Shares(state): Shares<Arc<State>>,
    Named(queue): Named<String>,
    Body(body): Body<Settings>,
) -> problem::Result<Answer> {
    let request = Request::Set {
        queue,
        settings: body.settings,
    };
    steer(&state, &who, request).await
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Force {
    /// With what it holds, and though it has members.
    #[serde(default)]
    force: bool,
}

/// Deletes a queue.
#[utoipa::path(delete, path = "/queues/{name}", tag = "queues",
    params(("name" = String, Path), Force),
    responses((status = 200, body = Deleted), (status = "default", body = Problem)))]
async fn delete(
    Operator(who): Operator,
    Shares(state): Shares<Arc<State>>,
    Named(queue): Named<String>,
    Params(how): Params<Force>,
) -> problem::Result<Answer> {
    let request = Request::Delete {
        queue,
        force: how.force,
    };
    steer(&state, &who, request).await
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Peek {
    /// Messages, at most.
    #[param(minimum = 1, maximum = 1000, default = 10)]
    count: Option<usize>,
    /// Also those that members have.
    #[serde(default)]
    in_flight: bool,
    /// Of each payload.
    #[param(maximum = 1_048_576, default = 1024)]
    payload_bytes_max: Option<usize>,
}

/// The first messages of a queue, which stay where they are.
#[utoipa::path(get, path = "/queues/{name}/messages", tag = "queues",
    params(("name" = String, Path), Peek),
    responses((status = 200, body = Peeked), (status = "default", body = Problem)))]
async fn peek(
    Operator(who): Operator,
    Shares(state): Shares<Arc<State>>,
    Named(queue): Named<String>,
    Params(peek): Params<Peek>,
) -> problem::Result<Answer> {
    let request = Request::Peek {
        queue,
        count: within("count", peek.count, 1..=1000)?,
        in_flight: peek.in_flight,
        payload_bytes_max: within("payload_bytes_max", peek.payload_bytes_max, 0..=1 << 20)?,
    };
    steer(&state, &who, request).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Count {
    /// So many at most, 1,000 if not set.
    #[schema(minimum = 0, maximum = 1000)]
    count: Option<usize>,
}

/// Does away with messages that no member has; as many as `left` says are still
/// there.
#[utoipa::path(post, path = "/queues/{name}/purge", tag = "queues",
    params(("name" = String, Path)), request_body = Count,
    responses((status = 200, body = Purged), (status = "default", body = Problem)))]
async fn purge(
    Operator(who): Operator,
    Shares(state): Shares<Arc<State>>,
    Named(queue): Named<String>,
    Body(body): Body<Count>,
) -> problem::Result<Answer> {
    let request = Request::Purge {
        queue,
        count: within("count", body.count, 0..=1000)?,
    };
    steer(&state, &who, request).await
}

/// Members get nothing until the queue is resumed.
#[utoipa::path(post, path = "/queues/{name}/pause", tag = "queues",
    params(("name" = String, Path)),
    responses((status = 200, body = Paused), (status = "default", body = Problem)))]
async fn pause(
    Operator(who): Operator,
    Shares(state): Shares<Arc<State>>,
    Named(queue): Named<String>,
) -> problem::Result<Answer> {
    steer(&state, &who, Request::Pause { queue }).await
}

/// Members get messages again.
#[utoipa::path(post, path = "/queues/{name}/resume", tag = "queues",
    params(("name" = String, Path)),
    responses((status = 200, body = Paused), (status = "default", body = Problem)))]
async fn resume(
    Operator(who): Operator,
    Shares(state): Shares<Arc<State>>,
    Named(queue): Named<String>,
) -> problem::Result<Answer> {
    steer(&state, &who, Request::Resume { queue }).await
}

#[derive(Deserialize, ToSchema)]
struct MoveTo {
    to: String,
    #[serde(flatten)]
    what: Moved,
}

/// Moves messages that no member has to another queue.
#[utoipa::path(post, path = "/queues/{name}/move", tag = "queues",
    params(("name" = String, Path)), request_body = MoveTo,
    responses((status = 200, body = MovedTo), (status = "default", body = Problem)))]
async fn move_messages(
    Operator(who): Operator,
    Shares(state): Shares<Arc<State>>,
    Named(queue): Named<String>,
    Body(body): Body<MoveTo>,
) -> problem::Result<Answer> {
    let request = Request::Move {
        queue,
        to: body.to,
        what: body.what,
    };
    steer(&state, &who, request).await
}

#[derive(Deserialize, ToSchema)]
struct RedriveTo {
    /// Another queue than their own.
    to: Option<String>,
    #[serde(flatten)]
    what: Moved,
}

/// Moves dead letters of the queue back to it, or to another.
#[utoipa::path(post, path = "/queues/{name}/redrive", tag = "queues",
    params(("name" = String, Path)), request_body = RedriveTo,
    responses((status = 200, body = MovedTo), (status = "default", body = Problem)))]
async fn redrive(
    Operator(who): Operator,
    Shares(state): Shares<Arc<State>>,
    Named(queue): Named<String>,
    Body(body): Body<RedriveTo>,
) -> problem::Result<Answer> {
    let request = Request::Redrive {
        queue,
        to: body.to,
        what: body.what,
    };
    steer(&state, &who, request).await
}

/// What happened to a message.
#[utoipa::path(get, path = "/queues/{name}/messages/{id}/trace", tag = "queues",
    params(("name" = String, Path), ("id" = String, Path)),
    responses((status = 200, body = Traced), (status = "default", body = Problem)))]
async fn trace(
    Viewer(who): Viewer,
    Shares(state): Shares<Arc<State>>,
    Named(names): Named<(String, String)>,
) -> problem::Result<Answer> {
    let (queue, message) = names;
    steer(&state, &who, Request::Trace { queue, message }).await
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Tail {
    /// Events after this one; not set: the last ones.
    after: Option<u64>,
    #[param(minimum = 1, maximum = 1000, default = 100)]
    count: Option<usize>,
}

/// What happened in a queue.
#[utoipa::path(get, path = "/queues/{name}/events", tag = "queues",
    params(("name" = String, Path), Tail),
    responses((status = 200, body = Tailed), (status = "default", body = Problem)))]
async fn tail(
    Viewer(who): Viewer,
    Shares(state): Shares<Arc<State>>,
    Named(queue): Named<String>,
    Params(tail): Params<Tail>,
) -> problem::Result<Answer> {
    let request = Request::Tail {
        queue,
        after: tail.after,
        count: within("count", tail.count, 1..=1000)?,
    };
    steer(&state, &who, request).await
}
