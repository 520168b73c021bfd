//! Retained messages.

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
use crate::admin::page::{Listed, Named, Page, Params, within};
use crate::admin::problem::{self, Problem};
use crate::admin::users::Role;
use crate::broker::look::{Cleared, RetainedView};
use crate::net::with_worker;
use crate::topic::{TopicFilter, TopicLimits, TopicName};

/// Of each payload that is shown.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;
const PAYLOAD_BYTES_DEFAULT: usize = 1024;

pub(super) fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new()
        .routes(routes!(list, clear))
        .routes(routes!(show, remove))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Matching {
    /// Those whose topics this topic filter matches; not set: all but those that
    /// begin with `$`.
    filter: Option<String>,
}

impl Matching {
    fn filter(&self) -> Result<TopicFilter<'_>, Problem> {
        let filter = self.filter.as_deref().unwrap_or("#");
        TopicFilter::parse(filter, TopicLimits::NONE)
            .map_err(|error| Problem::invalid(format!("{filter:?} is no topic filter: {error}")))
    }
}

/// # Errors
/// It is no `next` of a page before.
fn topic_after(after: Option<&str>) -> Result<Option<TopicName<'_>>, Problem> {
    let parse = |after| {
        let parsed = TopicName::parse(after, TopicLimits::NONE);
        parsed.map_err(|_| Page::wrong_after(after))
    };
    after.map(parse).transpose()
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Payloads {
    /// So much of each payload, in bytes: for operators. Not set: nothing of it in
    /// a list, and 1,024 of a single message.
    #[param(minimum = 0, maximum = 1_048_576)]
    payload_bytes_max: Option<usize>,
}

impl Payloads {
    /// How much of them is shown; `None`: nothing.
    fn bytes_max(&self, role: Role) -> Result<Option<usize>, Problem> {
        match self.payload_bytes_max {
            Some(_) if role < Role::Operator => Err(Problem::forbidden(
                "payloads are for operators: leave payload_bytes_max out",
            )),
            asked => within("payload_bytes_max", asked, 0..=PAYLOAD_BYTES_MAX),
        }
    }
}

/// Retained messages, in the order of their topics' levels. A page may have
/// fewer than were asked for, and still be not the last.
#[utoipa::path(get, path = "/retained", tag = "retained", params(Page, Matching, Payloads),
    responses((status = 200, body = Listed<RetainedView>), (status = "default", body = Problem)))]
async fn list(
    Viewer(who): Viewer,
    Shares(state): Shares<Arc<State>>,
    Params(page): Params<Page>,
    Params(matching): Params<Matching>,
    Params(payloads): Params<Payloads>,
) -> problem::Result<Listed<RetainedView>> {
    let shared = &state.shared;
    let (filter, limit) = (matching.filter()?, page.limit()?);
    let payload_bytes_max = payloads.bytes_max(who.role)?;
    let (after, now) = (topic_after(page.after())?, shared.clock.now());
    let retained = shared
        .core
        .list_retained(filter, after, limit, payload_bytes_max, now);
    Ok(Json(retained.into()))
}

/// The retained message of a topic; its payload and properties for operators.
#[utoipa::path(get, path = "/retained/{topic}", tag = "retained",
    params(("topic" = String, Path, description = "Percent-encoded, `/` as `%2F`."), Payloads),
    responses((status = 200, body = RetainedView), (status = "default", body = Problem)))]
async fn show(
    Viewer(who): Viewer,
    Shares(state): Shares<Arc<State>>,
    Named(topic): Named<String>,
    Params(payloads): Params<Payloads>,
) -> problem::Result<RetainedView> {
    let shared = &state.shared;
    let usual = (who.role >= Role::Operator).then_some(PAYLOAD_BYTES_DEFAULT);
    let bytes_max = payloads.bytes_max(who.role)?.or(usual);
    let shown = shared
        .core
        .show_retained(&topic, bytes_max, shared.clock.now());
    Ok(Json(shown?))
}

/// Takes the retained message of a topic away. Subscribers are not told.
#[utoipa::path(delete, path = "/retained/{topic}", tag = "retained",
    params(("topic" = String, Path, description = "Percent-encoded, `/` as `%2F`.")),
    responses((status = 204), (status = "default", body = Problem)))]
async fn remove(
    Operator(who): Operator,
    Shares(state): Shares<Arc<State>>,
    Named(topic): Named<String>,
) -> Result<StatusCode, Problem> {
    let shared = &state.shared;
    let receipt = with_worker(shared, |local| {
        let now = shared.clock.now();
        (shared.core).clear_retained(&mut local.worker, &topic, now)
    })?;
    tracing::info!(by = &*who.name, topic, "a retained message was deleted");
    state.stored(receipt).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct All {
    /// A topic filter; `#`: all but those that begin with `$`.
    filter: String,
    /// Those from there on: `next` of the page before.
    after: Option<String>,
}

/// Takes a page of those away that a topic filter matches: 1,000 at most, and
/// perhaps none. Ask again, after `next`, until there is none.
#[utoipa::path(delete, path = "/retained", tag = "retained", params(All),
    responses((status = 200, body = Cleared), (status = "default", body = Problem)))]
async fn clear(
    Operator(who): Operator,
    Shares(state): Shares<Arc<State>>,
    Params(all): Params<All>,
) -> problem::Result<Cleared> {
    let shared = &state.shared;
    let matching = Matching {
        filter: Some(all.filter),
    };
    let filter = matching.filter()?;
    let after = topic_after(all.after.as_deref())?;
    let (cleared, receipt) = with_worker(shared, |local| {
        let now = shared.clock.now();
        (shared.core).clear_retained_page(&mut local.worker, filter, after, now)
    });
    let (by, deleted) = (&*who.name, cleared.deleted);
    tracing::info!(
        by,
        filter = filter.as_str(),
        deleted,
        "retained messages were deleted"
    );
    state.stored(receipt).await?;
    Ok(Json(cleared))
}
