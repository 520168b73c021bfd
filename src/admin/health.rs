//! Whether the broker is alive, and whether it is ready: for whoever starts it
//! and sends clients to it. Needs no login.

use std::sync::Arc;

use axum::extract::State as Shares;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::State;
use crate::broker::Shedding;

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
}

/// That this is answered is the answer.
async fn health() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

async fn ready(Shares(state): Shares<Arc<State>>) -> (StatusCode, Json<Ready>) {
    let ready = Ready::of(&state);
    let status = match ready.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(ready))
}

/// Whether clients are to be sent here.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Ready {
    pub ready: bool,
    /// Why not.
    pub reasons: Vec<&'static str>,
}

impl Ready {
    pub fn of(state: &State) -> Ready {
        let core = &state.shared.core;
        let is_stopping = state.shared.is_stopping();
        let listeners_len = state.operations.listeners().len();
        let is_deaf = !is_stopping && state.shared.accepting_len() < listeners_len;
        let reasons = [
            (is_stopping, "the broker stops"),
            (is_deaf, "a listener accepts nobody"),
            (core.store().failure().is_some(), "the disk failed"),
            (core.store().is_low(), "the disk is nearly full"),
            (
                core.memory().shedding() > Shedding::Nothing,
                "memory is short: clients without a session are refused",
            ),
        ];
        let reasons: Vec<_> = reasons
            .into_iter()
            .filter_map(|(holds, why)| holds.then_some(why))
            .collect();
        Ready {
            ready: reasons.is_empty(),
            reasons,
        }
    }
}
