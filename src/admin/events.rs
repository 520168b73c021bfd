//! What happens, as it happens: server-sent events for dashboards.
//!
//! Owns how many may listen. Costs nothing while nobody does: what is sent is
//! what the history has anyway.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State as Shares;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::stream::{self, Stream};
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::State;
use super::api::shown;
use super::guard::{Standing, Viewer};
use super::history::{Row, names};
use super::problem::Problem;
use super::users::Role;

/// That may listen at a time.
const STREAMS_MAX: usize = 64;

/// Room for those who listen.
pub(crate) struct Events(Arc<Semaphore>);

impl Events {
    pub fn new() -> Events {
        Events(Arc::new(Semaphore::new(STREAMS_MAX)))
    }

    /// A place for one that listens, to whatever.
    ///
    /// # Errors
    /// There is none.
    pub fn enter(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.0.clone().try_acquire_owned().map_err(|_| {
            let why = format!("{STREAMS_MAX} event streams are open already: close one");
            Problem::unavailable(why)
        })
    }
}

pub(super) fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(events))
}

/// A row of the history each second, by name, as the event `sample`; until the
/// broker stops, or who listens may not any more.
#[utoipa::path(get, path = "/events", tag = "history",
    responses((status = 200, body = String, content_type = "text/event-stream"),
        (status = "default", body = Problem)))]
async fn events(
    _who: Viewer,
    standing: Standing,
    Shares(state): Shares<Arc<State>>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let listening = Listening {
        rows: state.history.follow(),
        stopping: state.stopping.clone(),
        _place: state.events.enter()?,
        standing,
    };
    let events = stream::unfold(listening, |mut listening| async move {
        let row = listening.next().await?;
        Some((Ok(sample(&row)), listening))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// Who listens.
struct Listening {
    rows: watch::Receiver<Option<Row>>,
    stopping: watch::Receiver<bool>,
    standing: Standing,
    // Given back when it is gone.
    _place: OwnedSemaphorePermit,
}

impl Listening {
    /// The next row; `None`: there is to be none any more.
    async fn next(&mut self) -> Option<Row> {
        loop {
            tokio::select! {
                changed = self.rows.changed() => changed.ok()?,
                _ = self.stopping.wait_for(|stopping| *stopping) => return None,
                () = self.standing.ended(Role::Viewer) => return None,
            }
            let row = *self.rows.borrow_and_update();
            if row.is_some() {
                return row;
            }
        }
    }
}

fn sample(row: &Row) -> Event {
    let values = row.values.iter().map(|value| shown(*value).into());
    let named = names().map(str::to_owned).zip(values);
    let mut object: Map<String, Value> = named.collect();
    object.insert("at_ms".to_owned(), row.at_ms.into());
    Event::default()
        .event("sample")
        .data(Value::Object(object).to_string())
}
