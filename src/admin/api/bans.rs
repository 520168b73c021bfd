//! Who is banned, and may not connect for a while.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State as Shares;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::State;
use crate::admin::guard::{Administrator, Viewer};
use crate::admin::page::{Body, Listed, Named, Page, Params};
use crate::admin::problem::{self, Problem};
use crate::authentication::{Ban, Banned, BannedFor};

/// The longest ban: a year.
const SECS_MAX: u64 = 365 * 24 * 60 * 60;

pub(super) fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new()
        .routes(routes!(list, add))
        .routes(routes!(lift_address))
        .routes(routes!(lift_client))
}

/// A ban: of an address, or of a client identifier.
#[derive(Serialize, ToSchema)]
struct BanView {
    /// Of IPv6 it stands for all that share its first 64 bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    /// Of this user's client alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    reason: BanReason,
    until_ms: u64,
}

/// Why somebody is banned.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
enum BanReason {
    /// Too many failures to say who it is.
    Failures,
    /// It connected too often.
    Connects,
    /// Somebody asked for it.
    Request,
}

impl BanView {
    fn new(whom: &Banned, ban: &Ban) -> BanView {
        let (address, client, user) = match whom {
            Banned::Address(address) => (Some(address.to_string()), None, None),
            Banned::Client(client, user) => {
                let user = user.as_deref().map(str::to_owned);
                (None, Some(client.to_string()), user)
            }
        };
        BanView {
            address,
            client,
            user,
            reason: match ban.why {
                BannedFor::Failures => BanReason::Failures,
                BannedFor::Connects => BanReason::Connects,
                BannedFor::Request => BanReason::Request,
            },
            until_ms: ban.until.as_micros() / 1000,
        }
    }
}

/// Whose turn a page ends with, and in which of the two tables: first those who
/// failed or were banned by request, then those who connected too often.
#[derive(Serialize, Deserialize)]
struct Position(bool, Option<IpAddr>, Box<str>, Option<Box<str>>);

impl Position {
    fn of(is_second: bool, whom: &Banned) -> Position {
        match whom {
            Banned::Address(address) => Position(is_second, Some(*address), "".into(), None),
            Banned::Client(client, user) => {
                let user = user.as_deref().map(Box::from);
                Position(is_second, None, client.clone(), user)
            }
        }
    }

    fn whom(self) -> Banned {
        match self.1 {
            Some(address) => Banned::Address(address),
            None => Banned::Client(self.2, self.3.map(Arc::from)),
        }
    }
}

/// Bans that hold.
#[utoipa::path(get, path = "/bans", tag = "bans", params(Page),
    responses((status = 200, body = Listed<BanView>), (status = "default", body = Problem)))]
async fn list(
    _: Viewer,
    Shares(state): Shares<Arc<State>>,
    Params(page): Params<Page>,
) -> problem::Result<Listed<BanView>> {
    let shared = &state.shared;
    let (limit, now) = (page.limit()?, shared.clock.now());
    let after = page.after().map(|after| {
        let position = serde_json::from_str::<Position>(after);
        position.map_err(|_| Page::wrong_after(after))
    });
    let (is_second, after) = match after.transpose()? {
        Some(position) => (position.0, Some(position.whom())),
        None => (false, None),
    };
    // One more than asked for tells whether there are more.
    let mut found = Vec::new();
    if !is_second {
        let bans = shared.bans.list(after.as_ref(), limit + 1, now);
        found.extend(bans.into_iter().map(|(whom, ban)| (false, whom, ban)));
    }
    if found.len() <= limit {
        let after = after.filter(|_| is_second);
        let more = limit + 1 - found.len();
        let bans = shared.core.flapping().list(after.as_ref(), more, now);
        found.extend(bans.into_iter().map(|(whom, ban)| (true, whom, ban)));
    }
    let has_more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| has_more);
    let next = last.map(|(is_second, whom, _)| {
        // Plain values: they are JSON.
        serde_json::to_string(&Position::of(*is_second, whom)).unwrap_or_default()
    });
    let items = found.iter().map(|(_, whom, ban)| BanView::new(whom, ban));
    let items = items.collect();
    Ok(Json(Listed { items, next }))
}

/// Either an address or a client identifier.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewBan {
    /// Of IPv6 it stands for all that share its first 64 bits.
    address: Option<String>,
    client: Option<String>,
    #[schema(minimum = 1, maximum = 31_536_000)]
    seconds: u64,
}

/// Bans an address, or a client identifier: who has it may not connect for so
/// long. Who is connected stays so. The broker forgets it when it stops.
#[utoipa::path(post, path = "/bans", tag = "bans", request_body = NewBan,
    responses((status = 200, body = BanView), (status = "default", body = Problem)))]
async fn add(
    Administrator(who): Administrator,
    Shares(state): Shares<Arc<State>>,
    Body(new): Body<NewBan>,
) -> problem::Result<BanView> {
    let whom = match (&new.address, &new.client) {
        (Some(address), None) => Banned::address(parse_address(address)?),
        (None, Some(client)) if !client.is_empty() => Banned::client(client),
        (None, Some(_)) => return Err(Problem::invalid("an empty client identifier is nobody's")),
        _ => return Err(Problem::invalid("name an address or a client, one of both")),
    };
    if !(1..=SECS_MAX).contains(&new.seconds) {
        let why = format!("seconds is from 1 to {SECS_MAX}, not {}", new.seconds);
        return Err(Problem::invalid(why));
    }
    let now = state.shared.clock.now();
    let until = now + Duration::from_secs(new.seconds);
    if !state.shared.bans.ban(whom.clone(), until, now) {
        return Err(Problem::conflict("there are as many bans as there may be"));
    }
    tracing::warn!(by = &*who.name, ?whom, seconds = new.seconds, "banned");
    let why = BannedFor::Request;
    Ok(Json(BanView::new(&whom, &Ban { why, until })))
}

/// Lets an address in again.
#[utoipa::path(delete, path = "/bans/address/{address}", tag = "bans",
    params(("address" = String, Path, description = "An IP address.")),
    responses((status = 204), (status = "default", body = Problem)))]
async fn lift_address(
    Administrator(who): Administrator,
    Shares(state): Shares<Arc<State>>,
    Named(address): Named<String>,
) -> Result<StatusCode, Problem> {
    let whom = Banned::address(parse_address(&address)?);
    let was_banned = state.shared.bans.lift(&whom, state.shared.clock.now());
    lifted(&who.name, &address, was_banned)
}

/// Lets a client identifier in again, whoever uses it.
#[utoipa::path(delete, path = "/bans/client/{client}", tag = "bans",
    params(("client" = String, Path, description = "A client identifier.")),
    responses((status = 204), (status = "default", body = Problem)))]
async fn lift_client(
    Administrator(who): Administrator,
    Shares(state): Shares<Arc<State>>,
    Named(client): Named<String>,
) -> Result<StatusCode, Problem> {
    let (shared, now) = (&state.shared, state.shared.clock.now());
    let had_failed = shared.bans.lift(&Banned::client(&client), now);
    let flapped = shared.core.flapping().lift(&client, now);
    lifted(&who.name, &client, had_failed || flapped)
}

fn lifted(by: &str, whom: &str, was_banned: bool) -> Result<StatusCode, Problem> {
    if !was_banned {
        return Err(Problem::not_found(format!("{whom:?} is not banned")));
    }
    tracing::warn!(by, whom, "a ban was lifted");
    Ok(StatusCode::NO_CONTENT)
}

fn parse_address(text: &str) -> Result<IpAddr, Problem> {
    text.parse()
        .map_err(|_| Problem::invalid(format!("{text:?} is no IP address")))
}
