//! The broker at a glance.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shares;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::State;
use crate::admin::guard::Viewer;
use crate::admin::health::Ready;
use crate::admin::problem::Problem;
use crate::broker::{Counts, Shedding};
use crate::config::Protocol;
use crate::process::Resident;

pub(super) fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(status))
}

#[derive(Serialize, ToSchema)]
struct Status {
    version: &'static str,
    started_at_ms: u64,
    now_ms: u64,
    uptime_secs: u64,
    #[serde(flatten)]
    ready: Ready,
    listeners: Vec<ListenerView>,
    /// Open ones, those included that have not sent CONNECT yet.
    connections: usize,
    /// Connected or not.
    sessions: usize,
    /// Those of queues and share groups included.
    subscriptions: usize,
    retained: Retained,
    queues: usize,
    memory: MemoryView,
    store: StoreView,
    /// What was counted since the start: see docs/metrics.md.
    #[schema(value_type = std::collections::BTreeMap<String, u64>)]
    counts: Counts,
}

#[derive(Serialize, ToSchema)]
struct ListenerView {
    /// An IP address and port, or `unix:` and a path.
    address: String,
    /// `mqtt` or `websocket`.
    protocol: &'static str,
    tls: bool,
    connections: usize,
    /// null: it has no certificate.
    certificate_days_left: Option<u64>,
}

#[derive(Serialize, ToSchema)]
struct Retained {
    messages: usize,
    /// Of their payloads and topics.
    bytes: usize,
}

#[derive(Serialize, ToSchema)]
struct MemoryView {
    /// null: the system does not tell.
    resident_bytes: Option<u64>,
    /// null: any amount.
    ceiling_bytes: Option<u64>,
    /// What is shed: `nothing`, `newcomers` or `publishers`.
    shedding: &'static str,
}

#[derive(Serialize, ToSchema)]
struct StoreView {
    /// false: nothing is kept.
    is_on: bool,
    /// Why nothing can be stored any more; null: everything can.
    failure: Option<String>,
    /// The disk is nearly full, and what is new refused.
    is_low: bool,
    bytes: u64,
}

/// The broker at a glance.
#[utoipa::path(get, path = "/status", tag = "status",
    responses((status = 200, body = Status), (status = "default", body = Problem)))]
async fn status(_who: Viewer, Shares(state): Shares<Arc<State>>) -> Json<Status> {
    let (shared, core) = (&state.shared, &state.shared.core);
    let now = shared.clock.now();
    let (messages, bytes) = core.retained_counts();
    let listeners = state.operations.listeners().into_iter();
    let listeners = listeners.map(|listed| ListenerView {
        address: listed.address.to_string(),
        protocol: match listed.protocol {
            Protocol::Mqtt => "mqtt",
            Protocol::WebSocket => "websocket",
        },
        tls: listed.entrance.tls.is_some(),
        connections: listed.entrance.connections_len(),
        certificate_days_left: listed.entrance.tls.as_ref().map(|tls| tls.days_left()),
    });
    Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        started_at_ms: state.started.as_micros() / 1000,
        now_ms: now.as_micros() / 1000,
        uptime_secs: now.since(state.started).as_secs(),
        ready: Ready::of(&state),
        listeners: listeners.collect(),
        connections: shared.connections_len(),
        sessions: core.sessions_len(),
        subscriptions: core.subscriptions_len(),
        retained: Retained { messages, bytes },
        queues: core.queues_len(),
        memory: MemoryView {
            resident_bytes: Resident::open().and_then(|resident| resident.bytes()),
            ceiling_bytes: core.memory().bytes_max(),
            shedding: match core.memory().shedding() {
                Shedding::Nothing => "nothing",
                Shedding::Newcomers => "newcomers",
                Shedding::Publishers => "publishers",
            },
        },
        store: StoreView {
            is_on: core.store().is_on(),
            failure: core.store().failure().map(|failed| failed.to_string()),
            is_low: core.store().is_low(),
            bytes: core.store().disk_bytes(),
        },
        counts: core.counters().read(),
    })
}
