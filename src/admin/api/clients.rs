//! Connected clients.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shares;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::State;
use crate::admin::guard::{Operator, Viewer};
use crate::admin::page::{Body, Listed, Named, Page, Params};
use crate::admin::problem::{self, Problem};
use crate::broker::look::{ClientShown, ClientView, Wanted};
use crate::net::with_worker;
use crate::protocol::ReasonCode;

pub(super) fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(disconnect))
}

/// A text asks for those that have it in theirs; or, with a `*`, are like it.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Like {
    /// Of their client identifiers.
    client: Option<String>,
    /// Of their users' names.
    user: Option<String>,
    /// Of their addresses, with the port.
    address: Option<String>,
    /// Of the listeners' addresses, as they are configured.
    listener: Option<String>,
}

/// Connected clients, in no order that means anything. A page may have fewer
/// than were asked for, and still be not the last.
#[utoipa::path(get, path = "/clients", tag = "clients", params(Page, Like),
    responses((status = 200, body = Listed<ClientView>), (status = "default", body = Problem)))]
async fn list(
    _: Viewer,
    Shares(state): Shares<Arc<State>>,
    Params(page): Params<Page>,
    Params(like): Params<Like>,
) -> problem::Result<Listed<ClientView>> {
    let wanted = Wanted {
        client: like.client.as_deref(),
        user: like.user.as_deref(),
        address: like.address.as_deref(),
        listener: like.listener.as_deref(),
        connected: None,
    };
    let after = page.after_parsed()?;
    let clients = (state.shared.core).list_clients(wanted, after, page.limit()?);
    Ok(Json(clients.into()))
}

/// All that is known of a connected client.
#[utoipa::path(get, path = "/clients/{client}", tag = "clients",
    params(("client" = String, Path, description = "Its client identifier.")),
    responses((status = 200, body = ClientShown), (status = "default", body = Problem)))]
async fn show(
    _: Viewer,
    Shares(state): Shares<Arc<State>>,
    Named(client): Named<String>,
) -> problem::Result<ClientShown> {
    let shared = &state.shared;
    Ok(Json(shared.core.show_client(&client, shared.clock.now())?))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Disconnect {
    #[serde(default)]
    reason: DisconnectReason,
}

/// What a client of MQTT 5 is told (3.14.2.1).
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum DisconnectReason {
    #[default]
    AdministrativeAction,
    UnspecifiedError,
    NotAuthorized,
    ServerBusy,
    QuotaExceeded,
    MessageRateTooHigh,
    ConnectionRateExceeded,
    /// With `session.server_reference`, if there is one.
    UseAnotherServer,
}

impl DisconnectReason {
    fn code(self) -> ReasonCode {
        match self {
            DisconnectReason::AdministrativeAction => ReasonCode::AdministrativeAction,
            DisconnectReason::UnspecifiedError => ReasonCode::UnspecifiedError,
            DisconnectReason::NotAuthorized => ReasonCode::NotAuthorized,
            DisconnectReason::ServerBusy => ReasonCode::ServerBusy,
            DisconnectReason::QuotaExceeded => ReasonCode::QuotaExceeded,
            DisconnectReason::MessageRateTooHigh => ReasonCode::MessageRateTooHigh,
            DisconnectReason::ConnectionRateExceeded => ReasonCode::ConnectionRateExceeded,
            DisconnectReason::UseAnotherServer => ReasonCode::UseAnotherServer,
        }
    }
}

/// Ends a client's connection. Its session stays, if it outlives that; its will
/// is published. Nothing keeps it from coming again but a ban.
#[utoipa::path(post, path = "/clients/{client}/disconnect", tag = "clients",
    params(("client" = String, Path, description = "Its client identifier.")),
    request_body = Disconnect,
    responses((status = 204), (status = "default", body = Problem)))]
async fn disconnect(
    Operator(who): Operator,
    Shares(state): Shares<Arc<State>>,
    Named(client): Named<String>,
    Body(body): Body<Disconnect>,
) -> Result<StatusCode, Problem> {
    let shared = &state.shared;
    let reason = body.reason.code();
    let receipt = with_worker(shared, |local| {
        let now = shared.clock.now();
        (shared.core).send_away(&mut local.worker, &client, reason, now)
    })?;
    tracing::info!(
        by = &*who.name,
        client,
        ?reason,
        "a client was disconnected"
    );
    state.stored(receipt).await?;
    Ok(StatusCode::NO_CONTENT)
}
