//! Traces: recordings of the packets of a client, a user, an address or a topic.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body as Streamed;
use axum::extract::State as Shares;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::State;
use crate::admin::guard::Operator;
use crate::admin::page::{Body, Listed, Named, Page, Params};
use crate::admin::problem::{self, Problem};
use crate::broker::recording::{
    NotStarted, PacketView, RecordingView, Request, State as How, What,
};

const SECONDS_DEFAULT: u64 = 60;
const PACKETS_DEFAULT: usize = 10_000;
/// Packets of a download that are put into words at a time.
const PACKETS_AT_ONCE: usize = 256;

pub(super) fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new()
        .routes(routes!(list, start))
        .routes(routes!(show, forget))
        .routes(routes!(packets))
        .routes(routes!(download))
        .routes(routes!(stop))
}

fn no_trace(id: u64) -> Problem {
    Problem::not_found(format!(
        "there is no trace {id}: it was deleted, or was over for long"
    ))
}

impl From<NotStarted> for Problem {
    fn from(error: NotStarted) -> Problem {
        match error {
            NotStarted::Invalid(why) => Problem::invalid(why),
            NotStarted::Full(why) => Problem::conflict(why),
        }
    }
}

/// One of `client`, `user`, `address` and `topic`: what is recorded.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewTrace {
    /// Packets of the client with this identifier.
    client: Option<String>,
    /// Of all clients of this user.
    user: Option<String>,
    /// Of all clients that connect from this address.
    address: Option<String>,
    /// PUBLISH packets whose topics match this filter, and what acknowledges
    /// them.
    topic: Option<String>,
    /// How long at most.
    #[schema(minimum = 1, maximum = 3600, default = 60)]
    seconds: Option<u64>,
    #[schema(minimum = 1, maximum = 100_000, default = 10_000)]
    packets_max: Option<usize>,
    /// Of memory; not set: an eighth of `limits.traces_bytes_max`.
    #[schema(minimum = 1)]
    bytes_max: Option<usize>,
    /// How much is kept of each payload; 0: nothing.
    #[serde(default)]
    #[schema(default = 0)]
    payload_bytes_max: usize,
}

impl NewTrace {
    fn what(&self) -> Result<What, Problem> {
        let parts = (&self.client, &self.user, &self.address, &self.topic);
        Ok(match parts {
            (Some(id), None, None, None) => What::Client((**id).into()),
            (None, Some(name), None, None) => What::User((**name).into()),
            (None, None, Some(address), None) => {
                let ip: Result<IpAddr, _> = address.parse();
                What::Address(ip.map_err(|_| {
                    Problem::invalid(format!(
                        "{address:?} is no address; one is 192.0.2.7 or 2001:db8::7"
                    ))
                })?)
            }
            (None, None, None, Some(filter)) => What::Topic((**filter).into()),
            _ => {
                return Err(Problem::invalid(
                    "a trace is of one of client, user, address and topic",
                ));
            }
        })
    }
}

/// Begins a trace. One that is over makes room for it, where there is none.
#[utoipa::path(post, path = "/traces", tag = "traces", request_body = NewTrace,
    responses((status = 201, body = RecordingView), (status = "default", body = Problem)))]
async fn start(
    Operator(who): Operator,
    Shares(state): Shares<Arc<State>>,
    Body(new): Body<NewTrace>,
) -> Result<(StatusCode, Json<RecordingView>), Problem> {
    let request = Request {
        what: new.what()?,
        lasts: Duration::from_secs(new.seconds.unwrap_or(SECONDS_DEFAULT)),
        packets_max: new.packets_max.unwrap_or(PACKETS_DEFAULT),
        bytes_max: new.bytes_max,
        payload_bytes_max: new.payload_bytes_max,
    };
    let (core, now) = (&state.shared.core, state.shared.clock.now());
    let view = core.start_recording(request.clone(), now)?;
    tracing::info!(by = &*who.name, id = view.id, ?request, "a trace begins");
    Ok((StatusCode::CREATED, Json(view)))
}

/// What a trace is of.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum TraceKind {
    Client,
    User,
    Address,
    Topic,
}

impl TraceKind {
    fn of(view: &RecordingView) -> TraceKind {
        match (&view.client, &view.user, &view.address) {
            (Some(_), ..) => TraceKind::Client,
            (_, Some(_), _) => TraceKind::User,
            (_, _, Some(_)) => TraceKind::Address,
            _ => TraceKind::Topic,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Filter {
    #[param(inline)]
    kind: Option<TraceKind>,
    #[param(inline)]
    state: Option<How>,
}

/// All traces, the oldest first. Of those that are over, each stays for an hour.
#[utoipa::path(get, path = "/traces", tag = "traces", params(Page, Filter),
    responses((status = 200, body = Listed<RecordingView>), (status = "default", body = Problem)))]
async fn list(
    Operator(_who): Operator,
    Shares(state): Shares<Arc<State>>,
    Params(page): Params<Page>,
    Params(filter): Params<Filter>,
) -> problem::Result<Listed<RecordingView>> {
    let (limit, after) = (page.limit()?, page.after_parsed::<u64>()?);
    let mut items = state
        .shared
        .core
        .recordings()
        .list(state.shared.clock.now());
    items.retain(|view| {
        after.is_none_or(|after| view.id > after)
            && (filter.kind).is_none_or(|kind| kind == TraceKind::of(view))
            && (filter.state).is_none_or(|state| state == view.state)
    });
    Ok(Json(Listed::first(items, limit, |last| {
        last.id.to_string()
    })))
}

/// How a trace goes.
#[utoipa::path(get, path = "/traces/{id}", tag = "traces", params(("id" = u64, Path)),
    responses((status = 200, body = RecordingView), (status = "default", body = Problem)))]
async fn show(
    Operator(_who): Operator,
    Shares(state): Shares<Arc<State>>,
    Named(id): Named<u64>,
) -> problem::Result<RecordingView> {
    let now = state.shared.clock.now();
    let view = state.shared.core.recordings().get(id, now);
    view.map(Json).ok_or_else(|| no_trace(id))
}

/// Packets of a trace, in their order; of one that goes on, those until now.
#[utoipa::path(get, path = "/traces/{id}/packets", tag = "traces",
    params(("id" = u64, Path), Page),
    responses((status = 200, body = Listed<PacketView>), (status = "default", body = Problem)))]
async fn packets(
    Operator(_who): Operator,
    Shares(state): Shares<Arc<State>>,
    Named(id): Named<u64>,
    Params(page): Params<Page>,
) -> problem::Result<Listed<PacketView>> {
    let limit = page.limit()?;
    let after = page.after().map_or(Ok(0), str::parse);
    let after = after.map_err(|_| Problem::invalid("after is the number of a packet"))?;
    let recordings = state.shared.core.recordings();
    // One more tells whether there is a page behind it.
    let found = recordings.packets(id, after, limit + 1);
    let mut items = found.ok_or_else(|| no_trace(id))?;
    let has_more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| has_more);
    let next = next.map(|last| last.number.to_string());
    Ok(Json(Listed { items, next }))
}

/// The packets of a trace as a file: one a line, in JSON. Of one that goes on,
/// those until now.
#[utoipa::path(get, path = "/traces/{id}/download", tag = "traces", params(("id" = u64, Path)),
    responses(
        (status = 200, body = String, content_type = "application/x-ndjson"),
        (status = "default", body = Problem)))]
async fn download(
    Operator(who): Operator,
    Shares(state): Shares<Arc<State>>,
    Named(id): Named<u64>,
) -> Result<Response, Problem> {
    let now = state.shared.clock.now();
    let view = state.shared.core.recordings().get(id, now);
    let end = view.ok_or_else(|| no_trace(id))?.packets;
    tracing::info!(by = &*who.name, id, packets = end, "a trace is downloaded");
    let headers = [
        (CONTENT_TYPE, "application/x-ndjson".to_owned()),
        (
            CONTENT_DISPOSITION,
            format!("attachment; filename=\"trace-{id}.ndjson\""),
        ),
    ];
    let lines = Streamed::from_stream(stream::iter(Lines {
        state,
        id,
        after: 0,
        end,
    }));
    Ok((headers, lines).into_response())
}

/// Packets in lines of JSON, some at a time.
struct Lines {
    state: Arc<State>,
    id: u64,
    after: usize,
    end: usize,
}

impl Iterator for Lines {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<io::Result<Vec<u8>>> {
        let limit = PACKETS_AT_ONCE.min(self.end - self.after);
        if limit == 0 {
            return None;
        }
        let recordings = self.state.shared.core.recordings();
        let Some(packets) = recordings.packets(self.id, self.after as u64, limit) else {
            self.after = self.end;
            let why = "the trace was deleted while it was downloaded";
            return Some(Err(io::Error::other(why)));
        };
        self.after += packets.len();
        let mut lines = Vec::new();
        for packet in packets {
            if let Err(error) = serde_json::to_writer(&mut lines, &packet) {
                return Some(Err(error.into()));
            }
            lines.push(b'\n');
        }
        Some(Ok(lines))
    }
}

/// Ends a trace, which stays.
#[utoipa::path(post, path = "/traces/{id}/stop", tag = "traces", params(("id" = u64, Path)),
    responses((status = 200, body = RecordingView), (status = "default", body = Problem)))]
async fn stop(
    Operator(who): Operator,
    Shares(state): Shares<Arc<State>>,
    Named(id): Named<u64>,
) -> problem::Result<RecordingView> {
    let now = state.shared.clock.now();
    let view = state.shared.core.recordings().stop(id, now);
    let view = view.ok_or_else(|| no_trace(id))?;
    tracing::info!(
        by = &*who.name,
        id,
        packets = view.packets,
        "a trace was stopped"
    );
    Ok(Json(view))
}

/// Deletes a trace, with its packets.
#[utoipa::path(delete, path = "/traces/{id}", tag = "traces", params(("id" = u64, Path)),
    responses((status = 204), (status = "default", body = Problem)))]
async fn forget(
    Operator(who): Operator,
    Shares(state): Shares<Arc<State>>,
    Named(id): Named<u64>,
) -> Result<StatusCode, Problem> {
    let now = state.shared.clock.now();
    if !state.shared.core.recordings().forget(id, now) {
        return Err(no_trace(id));
    }
    tracing::info!(by = &*who.name, id, "a trace was deleted");
    Ok(StatusCode::NO_CONTENT)
}
