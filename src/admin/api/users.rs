//! Logging in, and those who can: users and tokens of the HTTP port.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{DefaultBodyLimit, FromRequestParts, State as Shares};
use axum::http::header::SET_COOKIE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::guard::{Administrator, COOKIE, Viewer, check_ours, cookie};
use crate::admin::page::{Body, Listed, Named};
use crate::admin::problem::{self, Problem};
use crate::admin::server::Client;
use crate::admin::users::{NAME_BYTES_MAX, Role, TokenView, Turn, UserView, UsersError};
use crate::admin::{State, to_the_end};

/// A century.
const EXPIRES_SECS_MAX: u64 = 100 * 365 * 24 * 60 * 60;

/// Of a request of somebody who is not known yet.
const BODY_BYTES_MAX: usize = 4 << 10;

pub(super) fn routes() -> OpenApiRouter<Arc<State>> {
    let for_everybody = OpenApiRouter::new()
        .routes(routes!(set_up))
        .routes(routes!(log_in))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
    for_everybody
        .routes(routes!(log_out))
        .routes(routes!(me))
        .routes(routes!(list_users, add_user))
        .routes(routes!(change_user, remove_user))
        .routes(routes!(list_tokens, add_token))
        .routes(routes!(remove_token))
}

impl From<UsersError> for Problem {
    fn from(error: UsersError) -> Problem {
        match error {
            UsersError::NotFound(why) => Problem::not_found(why),
            UsersError::Exists(why) | UsersError::Conflict(why) => Problem::conflict(why),
            UsersError::Invalid(why) => Problem::invalid(why),
            UsersError::Busy => Problem::unavailable(
                "too many passwords are being checked: try again in a few seconds",
            ),
            UsersError::Failed(why) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, why),
        }
    }
}

/// Who somebody is.
#[derive(Serialize, ToSchema)]
struct Me {
    name: String,
    role: Role,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Setup {
    /// That the log showed when the broker started.
    token: String,
    name: String,
    password: String,
}

/// Makes the first admin.
#[utoipa::path(post, path = "/setup", tag = "logins", request_body = Setup, security(()),
    responses((status = 200, body = Me), (status = "default", body = Problem)))]
async fn set_up(
    Shares(state): Shares<Arc<State>>,
    Welcome(client): Welcome,
    Body(setup): Body<Setup>,
) -> problem::Result<Me> {
    let Setup {
        token,
        name,
        password,
    } = setup;
    if !state.users.is_setup_token(&token) {
        failed(&state, client);
    }
    state.users.set_up(&token, &name, &password).await?;
    tracing::info!(user = name, "the first admin of the HTTP port was made");
    Ok(Json(Me {
        name,
        role: Role::Admin,
    }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Login {
    name: String,
    password: String,
}

/// Logs a browser in.
#[utoipa::path(post, path = "/login", tag = "logins", request_body = Login, security(()),
    responses((status = 200, body = Me), (status = "default", body = Problem)))]
async fn log_in(
    Shares(state): Shares<Arc<State>>,
    Welcome(client): Welcome,
    Body(login): Body<Login>,
) -> Result<Response, Problem> {
    let Login { name, password } = login;
    if name.len() > NAME_BYTES_MAX {
        let why = format!("a name has {NAME_BYTES_MAX} bytes at most");
        return Err(Problem::invalid(why));
    }
    let turn = state.users.turn().await?;
    // Others of this address may have failed meanwhile.
    check_ban(&state, client)?;
    // Who goes before it is told has failed all the same.
    let done = to_the_end(check_login(state, client, turn, name, password));
    done.await
        .unwrap_or_else(|| Err(Problem::unavailable("the broker stops")))
}

async fn check_login(
    state: Arc<State>,
    client: Client,
    turn: Turn,
    name: String,
    password: String,
) -> Result<Response, Problem> {
    let now = state.shared.clock.now();
    let Some((login, role)) = state.users.log_in(turn, &name, &password, now).await else {
        failed(&state, client);
        tracing::info!(user = name, peer = %client.0, "a login by HTTP failed");
        return Err(Problem::unknown(match state.users.wants_setup() {
            true => "there is no user yet: the log shows the token to make the first admin with",
            false => "name or password are wrong",
        }));
    };
    tracing::info!(user = name, peer = %client.0, "logged in by HTTP");
    let cookie = login_cookie(&state, &login);
    Ok(([(SET_COOKIE, cookie)], Json(Me { name, role })).into_response())
}

/// Logs a browser out.
#[utoipa::path(post, path = "/logout", tag = "logins", security(()),
    responses((status = 204), (status = "default", body = Problem)))]
async fn log_out(
    Shares(state): Shares<Arc<State>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Some(login) = cookie(&headers) else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    check_ours(&headers)?;
    state.users.log_out(login);
    let cookie = login_cookie(&state, "") + "; Max-Age=0";
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response())
}

/// Only this origin's pages send it, no script reads it, and it goes when the
/// browser does.
fn login_cookie(state: &State, login: &str) -> String {
    let secure = match state.tls.is_some() {
        true => "; Secure",
        false => "",
    };
    format!("{COOKIE}={login}; Path=/; HttpOnly; SameSite=Strict{secure}")
}

/// Who asks and is not banned: looked at before anything else of the request is.
struct Welcome(Client);

impl FromRequestParts<Arc<State>> for Welcome {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Welcome, Problem> {
        let client = parts.extensions.get::<Client>().copied();
        let client = client.ok_or_else(|| Problem::forbidden("nobody knows where this is from"))?;
        check_ban(state, client)?;
        Ok(Welcome(client))
    }
}

fn check_ban(state: &State, client: Client) -> Result<(), Problem> {
    let now = state.shared.clock.now();
    let why = if state.bans.is_banned(client.ip(), "", now) {
        "too many logins of this address have failed: it is kept out for a while \
         (authentication.ban_secs), or until an admin lifts the ban"
    } else if (state.shared.bans).is_banned_by_request(client.ip(), now) {
        "an admin has banned this address: another admin can lift the ban"
    } else {
        return Ok(());
    };
    Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, why))
}

fn failed(state: &State, client: Client) {
    let now = state.shared.clock.now();
    if (state.bans).failed(client.ip(), "", now) {
        tracing::warn!(peer = %client.0, "banned from the HTTP port: too many logins failed");
    }
}

/// Who asks.
#[utoipa::path(get, path = "/me", tag = "logins",
    responses((status = 200, body = Me), (status = "default", body = Problem)))]
async fn me(Viewer(who): Viewer) -> Json<Me> {
    Json(Me {
        name: who.name.to_string(),
        role: who.role,
    })
}

/// All users of the HTTP port.
#[utoipa::path(get, path = "/users", tag = "users",
    responses((status = 200, body = Listed<UserView>), (status = "default", body = Problem)))]
async fn list_users(
    _who: Administrator,
    Shares(state): Shares<Arc<State>>,
) -> Json<Listed<UserView>> {
    Json(Listed {
        items: state.users.users(),
        next: None,
    })
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewUser {
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    #[schema(min_length = 8, max_length = 1024)]
    password: String,
    role: Role,
}

/// Adds a user.
#[utoipa::path(post, path = "/users", tag = "users", request_body = NewUser,
    responses((status = 201, body = UserView), (status = "default", body = Problem)))]
async fn add_user(
    Administrator(who): Administrator,
    Shares(state): Shares<Arc<State>>,
    Body(new): Body<NewUser>,
) -> Result<(StatusCode, Json<UserView>), Problem> {
    let NewUser {
        name,
        password,
        role,
    } = new;
    state.users.add_user(&name, &password, role).await?;
    tracing::info!(by = who.name, user = name, %role, "a user of the HTTP port was added");
    Ok((StatusCode::CREATED, Json(UserView { name, role })))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UserChange {
    #[schema(min_length = 8, max_length = 1024)]
    password: Option<String>,
    role: Option<Role>,
}

/// Gives a user another password, another role, or both.
#[utoipa::path(patch, path = "/users/{name}", tag = "users", request_body = UserChange,
    params(("name" = String, Path)),
    responses((status = 204), (status = "default", body = Problem)))]
async fn change_user(
    Administrator(who): Administrator,
    Shares(state): Shares<Arc<State>>,
    Named(name): Named<String>,
    Body(change): Body<UserChange>,
) -> Result<StatusCode, Problem> {
    let password = change.password.as_deref();
    state
        .users
        .change_user(&name, password, change.role)
        .await?;
    tracing::info!(
        by = who.name,
        user = name,
        "a user of the HTTP port was changed"
    );
    Ok(StatusCode::NO_CONTENT)
}

/// Removes a user.
#[utoipa::path(delete, path = "/users/{name}", tag = "users", params(("name" = String, Path)),
    responses((status = 204), (status = "default", body = Problem)))]
async fn remove_user(
    Administrator(who): Administrator,
    Shares(state): Shares<Arc<State>>,
    Named(name): Named<String>,
) -> Result<StatusCode, Problem> {
    state.users.remove_user(&name).await?;
    tracing::info!(
        by = who.name,
        user = name,
        "a user of the HTTP port was removed"
    );
    Ok(StatusCode::NO_CONTENT)
}

/// All tokens, as far as they may be seen again.
#[utoipa::path(get, path = "/tokens", tag = "users",
    responses((status = 200, body = Listed<TokenView>), (status = "default", body = Problem)))]
async fn list_tokens(
    _who: Administrator,
    Shares(state): Shares<Arc<State>>,
) -> Json<Listed<TokenView>> {
    Json(Listed {
        items: state.users.tokens(),
        next: None,
    })
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewToken {
    /// Whose it is, or what for.
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    role: Role,
    /// Not set: it holds until it is revoked.
    #[schema(minimum = 1, maximum = 3_153_600_000u64)]
    expires_secs: Option<u64>,
}

/// A new token.
#[derive(Serialize, ToSchema)]
struct GivenToken {
    #[serde(flatten)]
    view: TokenView,
    /// Is not shown again.
    token: String,
}

/// Makes a token.
#[utoipa::path(post, path = "/tokens", tag = "users", request_body = NewToken,
    responses((status = 201, body = GivenToken), (status = "default", body = Problem)))]
async fn add_token(
    Administrator(who): Administrator,
    Shares(state): Shares<Arc<State>>,
    Body(new): Body<NewToken>,
) -> Result<(StatusCode, Json<GivenToken>), Problem> {
    let lasts = match new.expires_secs {
        None => None,
        Some(secs @ 1..=EXPIRES_SECS_MAX) => Some(Duration::from_secs(secs)),
        Some(_) => {
            let text = format!("expires_secs is from 1 to {EXPIRES_SECS_MAX}");
            return Err(Problem::invalid(text));
        }
    };
    let now = state.shared.clock.now();
    let (view, token) = (state.users.add_token(&new.name, new.role, lasts, now)).await?;
    tracing::info!(by = who.name, token = new.name, role = %new.role, "a token was made");
    Ok((StatusCode::CREATED, Json(GivenToken { view, token })))
}

/// Revokes a token.
#[utoipa::path(delete, path = "/tokens/{id}", tag = "users", params(("id" = String, Path)),
    responses((status = 204), (status = "default", body = Problem)))]
async fn remove_token(
    Administrator(who): Administrator,
    Shares(state): Shares<Arc<State>>,
    Named(id): Named<String>,
) -> Result<StatusCode, Problem> {
    state.users.remove_token(&id).await?;
    tracing::info!(by = who.name, token = id, "a token was revoked");
    Ok(StatusCode::NO_CONTENT)
}
