//! Subscriptions.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shares;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::State;
use crate::admin::guard::Viewer;
use crate::admin::page::{Listed, Page, Params};
use crate::admin::problem::{self, Problem};
use crate::broker::look::SubscriptionView;
use crate::topic::{TopicLimits, TopicName};

pub(super) fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(list))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Like {
    /// Those of this client.
    client: Option<String>,
    /// Those whose filters have this in them; or, with a `*`, are like it. It is
    /// compared as text: `+` and `#` stand for themselves.
    filter: Option<String>,
    /// Those that get what is published to this topic, or, of `$queue/NAME`, is
    /// put into queues by it. Queues and share groups are told once, and not each
    /// of their members. Not together with the others.
    topic: Option<String>,
}

/// Subscriptions: of a client, of all, or those that a topic's messages go to.
#[utoipa::path(get, path = "/subscriptions", tag = "subscriptions", params(Page, Like),
    responses((status = 200, body = Listed<SubscriptionView>),
        (status = "default", body = Problem)))]
async fn list(
    _: Viewer,
    Shares(state): Shares<Arc<State>>,
    Params(page): Params<Page>,
    Params(like): Params<Like>,
) -> problem::Result<Listed<SubscriptionView>> {
    let core = &state.shared.core;
    let (after, limit) = (page.after_parsed()?, page.limit()?);
    let found = match (&like.topic, &like.client, &like.filter) {
        (Some(topic), None, None) => {
            let topic = TopicName::parse(topic, TopicLimits::NONE)
                .map_err(|error| Problem::invalid(format!("{topic:?} is no topic: {error}")))?;
            core.list_matching(topic, after, limit)
        }
        (Some(_), ..) => {
            let why = "ask for those of a topic, or for those of a client or filter, not both";
            return Err(Problem::invalid(why));
        }
        (None, client, filter) => {
            core.list_subscriptions(client.as_deref(), filter.as_deref(), after, limit)?
        }
    };
    Ok(Json(found.into()))
}
