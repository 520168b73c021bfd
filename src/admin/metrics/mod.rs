//! `/metrics`: what the broker counts and measures, for Prometheus.
//!
//! Owns the way from the numbers to the text: `families` says which there are and
//! what each means, `text` writes them, `process` and `probe` find out what nobody
//! else knows. Labels are bounded: there is never a client or a topic among them,
//! and no more queues than `http.metrics_queues_max`.
//!
//! Nothing here is kept up to date between two scrapes but the probe's histogram.

mod families;
mod probe;
mod process;
mod text;

use std::sync::Arc;

use axum::Router;
use axum::extract::State as Shares;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

pub(super) use process::cpu_secs;

use super::State;
use super::guard::Viewer;
use super::problem::Problem;
use crate::config::PortSettings;
use crate::tally::Histogram;

/// What is kept for the next scrape.
pub(crate) struct Metrics {
    // Whether anybody may have them.
    are_open: bool,
    // Queues that are listed by name.
    queues_max: usize,
    // That of the clients of MQTT.
    runtime: Handle,
    /// How late its tasks wake.
    delays: Arc<Histogram>,
    // One at a time goes round all there is.
    turn: Arc<Mutex<()>>,
}

impl Metrics {
    /// `runtime`: that of the clients of MQTT.
    pub fn new(settings: &PortSettings, runtime: &Handle) -> Metrics {
        Metrics {
            runtime: runtime.clone(),
            are_open: settings.open_metrics,
            queues_max: settings.metrics_queues_max,
            delays: Arc::default(),
            turn: Arc::default(),
        }
    }

    /// The task that measures, for as long as the runtime runs. On another one.
    pub fn keep_probing(&self) -> impl Future<Output = ()> + Send + 'static {
        probe::keep_probing(self.runtime.clone(), self.delays.clone())
    }
}

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new().route("/metrics", get(metrics))
}

async fn metrics(
    viewer: Result<Viewer, Problem>,
    Shares(state): Shares<Arc<State>>,
) -> Result<Response, Problem> {
    if !state.metrics.are_open {
        viewer?;
    }
    let runtime = state.metrics.runtime.metrics();
    let (turn, own) = (state.metrics.turn.clone().lock_owned().await, state.clone());
    // With very many sessions it takes a while, which others are not to wait for;
    // who asks may be gone before that.
    let rendering = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        families::render(&own, &runtime)
    });
    let text = rendering.await;
    let text = text.map_err(|_| Problem::unavailable("the broker stops"))?;
    Ok(([(CONTENT_TYPE, text::CONTENT_TYPE)], text).into_response())
}
