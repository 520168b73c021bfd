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

use crate::admin::guard::{Administrator, Viewer};
use crate::admin::page::{Body, Listed, Named, Page, Params};
use crate::admin::problem::{self, Problem};
use crate::admin::{State, cut};
use crate::authentication::{Ban, Banned, BannedFor};
use crate::message::Time;

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
    /// What it may not do.
    keeps_from: Vec<KeptFrom>,
    until_ms: u64,
}

/// What a ban keeps somebody from.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum KeptFrom {
    /// From connecting as a client.
    Mqtt,
    /// From logging in at the HTTP port.
    Http,
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
    fn new(table: Table, whom: &Banned, ban: &Ban) -> BanView {
        let is_address = matches!(whom, Banned::Address(_));
        let keeps_from = match table {
            Table::Http => vec![KeptFrom::Http],
            Table::Mqtt if is_address && ban.why == BannedFor::Request => {
                vec![KeptFrom::Mqtt, KeptFrom::Http]
            }
            Table::Mqtt | Table::Flapping => vec![KeptFrom::Mqtt],
        };
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
            keeps_from,
            until_ms: ban.until.as_micros() / 1000,
        }
    }
}

/// Where bans are, in the order in which they are listed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Table {
    /// Clients that failed, and who is banned by request.
    Mqtt,
    /// Clients that connected too often.
    Flapping,
    /// Addresses of which logins failed at the HTTP port.
    Http,
}

impl Table {
    const ALL: [Table; 3] = [Table::Mqtt, Table::Flapping, Table::Http];

    fn list(
        self,
        state: &State,
        after: Option<&Banned>,
        max: usize,
        now: Time,
    ) -> Vec<(Banned, Ban)> {
        let shared = &state.shared;
        match self {
            Table::Mqtt => shared.bans.list(after, max, now),
            Table::Flapping => shared.core.flapping().list(after, max, now),
            Table::Http => state.bans.list(after, max, now),
        }
    }
}

/// Whose turn a page ends with, and in which table.
#[derive(Serialize, Deserialize)]
struct Position(Table, Option<IpAddr>, Box<str>, Option<Box<str>>);

impl Position {
    fn of(table: Table, whom: &Banned) -> Position {
        match whom {
            Banned::Address(address) => Position(table, Some(*address), "".into(), None),
            Banned::Client(client, user) => {
                let user = user.as_deref().map(Box::from);
                Position(table, None, client.clone(), user)
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
    let (limit, now) = (page.limit()?, state.shared.clock.now());
    let after = page.after().map(|after| {
        let position = serde_json::from_str::<Position>(after);
        position.map_err(|_| Page::wrong_after(after))
    });
    let (first, mut after) = match after.transpose()? {
        Some(position) => (position.0, Some(position.whom())),
        None => (Table::Mqtt, None),
    };
    // One more than asked for tells whether there are more.
    let mut found = Vec::new();
    for table in Table::ALL.into_iter().filter(|table| *table >= first) {
        let more = limit + 1 - found.len();
        let bans = table.list(&state, after.take().as_ref(), more, now);
        found.extend(bans.into_iter().map(|(whom, ban)| (table, whom, ban)));
    }
    let has_more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| has_more);
    let next = last.map(|(table, whom, _)| {
        // Plain values: they are JSON.
        serde_json::to_string(&Position::of(*table, whom)).unwrap_or_default()
    });
    let items = found
        .iter()
        .map(|(table, whom, ban)| BanView::new(*table, whom, ban));
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
/// long, and nobody logs in here from such an address. Who is connected or logged
/// in stays so. The broker forgets it when it stops.
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
    let shown = new.address.as_deref().or(new.client.as_deref());
    let shown = cut(shown.unwrap_or_default());
    tracing::warn!(
        by = &*who.name,
        whom = shown,
        seconds = new.seconds,
        "banned"
    );
    let why = BannedFor::Request;
    Ok(Json(BanView::new(Table::Mqtt, &whom, &Ban { why, until })))
}

/// Lets an address in again: as a client, and at the HTTP port.
#[utoipa::path(delete, path = "/bans/address/{address}", tag = "bans",
    params(("address" = String, Path, description = "An IP address.")),
    responses((status = 204), (status = "default", body = Problem)))]
async fn lift_address(
    Administrator(who): Administrator,
    Shares(state): Shares<Arc<State>>,
    Named(address): Named<String>,
) -> Result<StatusCode, Problem> {
    let whom = Banned::address(parse_address(&address)?);
    let now = state.shared.clock.now();
    let of_mqtt = state.shared.bans.lift(&whom, now);
    let of_http = state.bans.lift(&whom, now);
    lifted(&who.name, &address, of_mqtt || of_http)
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
    tracing::warn!(by, whom = cut(whom), "a ban was lifted");
    Ok(StatusCode::NO_CONTENT)
}

fn parse_address(text: &str) -> Result<IpAddr, Problem> {
    text.parse()
        .map_err(|_| Problem::invalid(format!("{text:?} is no IP address")))
}
