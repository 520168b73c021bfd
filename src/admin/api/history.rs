//! What the last hour was like: of the broker, and of the queues in which most
//! goes on.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State as Shares;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::State;
use crate::admin::guard::Viewer;
use crate::admin::history::{QueueRow, Row, names};
use crate::admin::page::{Listed, Named, Page, Params};
use crate::admin::problem::{self, Problem};
use crate::pattern;

/// The hour that is remembered.
const SECONDS_MAX: u64 = 3600;

pub(super) fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new()
        .routes(routes!(history))
        .routes(routes!(queues))
        .routes(routes!(queue))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Span {
    /// How far back. Up to 300 there is a row for each second, of more one for each
    /// ten.
    #[param(minimum = 1, maximum = 3600, default = 3600)]
    seconds: Option<u64>,
}

#[derive(Serialize, ToSchema)]
struct Rows {
    /// Between two rows.
    step_ms: u64,
    /// Of the values of a row, behind its moment.
    names: Vec<&'static str>,
    /// The oldest first: milliseconds since 1970, then the values; null: not known.
    rows: Vec<Vec<Option<f64>>>,
}

/// The last hour of the broker.
#[utoipa::path(get, path = "/history", tag = "history", params(Span),
    responses((status = 200, body = Rows), (status = "default", body = Problem)))]
async fn history(
    _who: Viewer,
    Shares(state): Shares<Arc<State>>,
    Params(Span { seconds }): Params<Span>,
) -> problem::Result<Rows> {
    let seconds = seconds.unwrap_or(SECONDS_MAX);
    if !(1..=SECONDS_MAX).contains(&seconds) {
        let text = format!("seconds is from 1 to {SECONDS_MAX}, not {seconds}");
        return Err(Problem::invalid(text));
    }
    let (step, rows) = state.history.rows(Duration::from_secs(seconds));
    Ok(Json(Rows {
        step_ms: step.as_millis() as u64,
        names: names().collect(),
        rows: rows.iter().map(numbers).collect(),
    }))
}

/// A row as JSON has it.
fn numbers(row: &Row) -> Vec<Option<f64>> {
    let values = row.values.iter().map(|value| shown(*value));
    std::iter::once(Some(row.at_ms as f64))
        .chain(values)
        .collect()
}

/// To the thousandth; `None`: not known.
pub(in crate::admin) fn shown(value: f64) -> Option<f64> {
    value.is_finite().then(|| (value * 1000.0).round() / 1000.0)
}

/// The last hour of a queue.
#[derive(Serialize, ToSchema)]
struct QueueRows {
    name: String,
    /// `at_ms`, `ready`, `in_flight`, `oldest_secs`.
    names: [&'static str; 4],
    /// The oldest first, one for each ten seconds. None: so much more goes on in
    /// others that this one is not followed.
    rows: Vec<[u64; 4]>,
}

impl QueueRows {
    fn of(state: &State, name: String) -> QueueRows {
        let rows = state.history.queue_rows(&name);
        let row = |(at_ms, row): (u64, QueueRow)| {
            let [ready, in_flight, oldest] = [row.ready, row.in_flight, row.oldest_secs];
            [at_ms, ready.into(), in_flight.into(), oldest.into()]
        };
        QueueRows {
            name,
            names: ["at_ms", "ready", "in_flight", "oldest_secs"],
            rows: rows.into_iter().map(row).collect(),
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Like {
    /// Only those whose names have this in them; or, with a `*`, are like it.
    name: Option<String>,
}

/// The last hour of the queues that are followed, by name: the 200 in which most
/// goes on.
#[utoipa::path(get, path = "/history/queues", tag = "history", params(Page, Like),
    responses((status = 200, body = Listed<QueueRows>), (status = "default", body = Problem)))]
async fn queues(
    _who: Viewer,
    Shares(state): Shares<Arc<State>>,
    Params(page): Params<Page>,
    Params(Like { name }): Params<Like>,
) -> problem::Result<Listed<QueueRows>> {
    let limit = page.limit()?;
    let is_wanted = |queue: &String| {
        page.after().is_none_or(|after| queue.as_str() > after)
            && name.as_deref().is_none_or(|name| match name.contains('*') {
                true => pattern::fits(name, queue),
                false => queue.contains(name),
            })
    };
    let mut found: Vec<String> = state.history.followed();
    found.retain(is_wanted);
    let has_more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().cloned().filter(|_| has_more);
    let items = found.into_iter().map(|name| QueueRows::of(&state, name));
    Ok(Json(Listed {
        items: items.collect(),
        next,
    }))
}

/// The last hour of a queue.
#[utoipa::path(get, path = "/queues/{name}/history", tag = "history",
    params(("name" = String, Path)),
    responses((status = 200, body = QueueRows), (status = "default", body = Problem)))]
async fn queue(
    _who: Viewer,
    Shares(state): Shares<Arc<State>>,
    Named(name): Named<String>,
) -> problem::Result<QueueRows> {
    if !state.shared.core.has_queue(&name) {
        return Err(Problem::not_found(format!("there is no queue {name:?}")));
    }
    Ok(Json(QueueRows::of(&state, name)))
}
