//! Who may do what: what is in force, and why.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shares;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::access::explain::{Action, Question};
use crate::access::rules::Strictness;
use crate::admin::State;
use crate::admin::guard::Viewer;
use crate::admin::page::{Listed, Page, Params};
use crate::admin::problem::{self, Problem};
use crate::broker::look::is_like;
use crate::message::{ClientId, Identity, Qos};

pub(super) fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new()
        .routes(routes!(show))
        .routes(routes!(explain))
        .routes(routes!(users))
}

/// What is in force.
#[derive(Serialize, ToSchema)]
struct AccessView {
    /// Whether there are rules; without any, who is let in may do everything.
    is_on: bool,
    /// A file like mosquitto's `acl_file`.
    acl_file: Option<String>,
    /// A file of roles.
    rules_file: Option<String>,
    /// Of a subscription of which a part may be read: `filter` gives that part,
    /// `refuse` nothing.
    subscriptions: &'static str,
    /// Whether clients may come with rights of their own, in a token or as a
    /// service says.
    own_rights: bool,
    /// Whether clients may connect that do not say who they are, where the
    /// listener says nothing else.
    allow_anonymous: bool,
    password_file: Option<String>,
}

/// What is in force.
#[utoipa::path(get, path = "/access", tag = "access",
    responses((status = 200, body = AccessView), (status = "default", body = Problem)))]
async fn show(_: Viewer, Shares(state): Shares<Arc<State>>) -> problem::Result<AccessView> {
    let access = state.shared.core.access();
    let admitted = state.operations.admitted();
    let files = &admitted.access;
    let text = |path: &Option<std::path::PathBuf>| {
        let path = path.as_ref();
        path.map(|path| path.display().to_string())
    };
    Ok(Json(AccessView {
        is_on: access.is_on(),
        acl_file: text(&files.acl_file),
        rules_file: text(&files.rules_file),
        subscriptions: match access.strictness() {
            Strictness::Filter => "filter",
            Strictness::Refuse => "refuse",
        },
        own_rights: access.takes_own(),
        allow_anonymous: admitted.allow_anonymous,
        password_file: (admitted.passwords.as_ref()).map(|file| file.path().display().to_string()),
    }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// Not set: anonymous.
    user: Option<String>,
    client: String,
    #[param(inline)]
    action: Action,
    /// The topic, the filter, or the queue's name; `$queue/NAME` is a queue too.
    #[param(min_length = 1)]
    topic: String,
    /// With which it publishes.
    #[serde(default)]
    #[param(minimum = 0, maximum = 2)]
    qos: u8,
    /// Whether what it publishes is to be retained.
    #[serde(default)]
    retain: bool,
}

/// What the rules say.
#[derive(Serialize, ToSchema)]
struct ExplainedView {
    allowed: bool,
    /// The rules that decide, a sentence each.
    because: Vec<String>,
}

/// Whether a client may do something, and which rule decides. Rights that came
/// with a client count while it has a session.
#[utoipa::path(get, path = "/access/explain", tag = "access", params(Asked),
    responses((status = 200, body = ExplainedView), (status = "default", body = Problem)))]
async fn explain(
    _: Viewer,
    Shares(state): Shares<Arc<State>>,
    Params(asked): Params<Asked>,
) -> problem::Result<ExplainedView> {
    let core = &state.shared.core;
    let qos = Qos::from_bits(asked.qos);
    let question = Question {
        action: asked.action,
        topic: &asked.topic,
        qos: qos.ok_or_else(|| Problem::invalid(format!("qos is 0, 1 or 2, not {}", asked.qos)))?,
        retain: asked.retain,
        strictness: core.access().strictness(),
    };
    let who = Identity {
        user: asked.user.filter(|user| !user.is_empty()).map(Arc::from),
        client: ClientId::new(&asked.client),
    };
    let explained = core.explain(&who, &question).map_err(Problem::invalid)?;
    Ok(Json(ExplainedView {
        allowed: explained.is_allowed,
        because: explained.because,
    }))
}

/// A user of the password file.
#[derive(Serialize, ToSchema)]
struct MqttUser {
    name: String,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Like {
    /// Only those whose names have this in them; or, with a `*`, are like it.
    name: Option<String>,
}

/// Users of the password file, by name. Those that tokens, certificates or a
/// service name are not known here.
#[utoipa::path(get, path = "/access/users", tag = "access", params(Page, Like),
    responses((status = 200, body = Listed<MqttUser>), (status = "default", body = Problem)))]
async fn users(
    _: Viewer,
    Shares(state): Shares<Arc<State>>,
    Params(page): Params<Page>,
    Params(filter): Params<Like>,
) -> problem::Result<Listed<MqttUser>> {
    let (limit, after) = (page.limit()?, page.after());
    let users = state
        .operations
        .admitted()
        .passwords
        .map(|file| file.users());
    let names = users.iter().flat_map(|users| users.names());
    let mut names: Vec<_> = names
        .filter(|name| after.is_none_or(|after| *name > after))
        .filter(|name| is_like(filter.name.as_deref(), name))
        .collect();
    names.sort_unstable();
    let page = Listed::first(names, limit, |last| (*last).to_owned());
    let items = page.items.iter().map(|name| MqttUser {
        name: (*name).to_owned(),
    });
    Ok(Json(Listed {
        items: items.collect(),
        next: page.next,
    }))
}
