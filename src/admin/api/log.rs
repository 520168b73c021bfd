//! The log: its last lines, those that come, and its level.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State as Shares;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::State;
use crate::admin::guard::{Administrator, Standing, Viewer};
use crate::admin::page::{Body, Listed, Page, Params, within};
use crate::admin::problem::{self, Problem};
use crate::admin::users::Role;
use crate::config::LogLevel;
use crate::logbook::{Levels, Line, Logbook, Wanted};

/// Lines that are sent at once to who follows the log.
const SENT_AT_ONCE: usize = 256;
/// Of the last lines, so many at once.
const LAST_MAX: usize = 1000;
/// What who begins to follow the log is sent of what there was, unless it says.
const FOLLOWED_FROM: u64 = 100;
/// For no longer than that another level holds for a while.
const SPAN_SECS_MAX: u64 = 24 * 60 * 60;

pub(super) fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(follow))
        .routes(routes!(level, set_level))
}

/// The log, if it is the broker's own.
fn logbook(state: &State) -> Result<&Arc<Logbook>, Problem> {
    state.operations.logbook().ok_or_else(|| {
        Problem::not_found("this broker runs within another program, which has the log")
    })
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Lines of this level and more severe ones.
    level: Option<LogLevel>,
    /// Lines with this in the message or in a field, whichever case it is in.
    text: Option<String>,
}

impl Which {
    fn wanted(&self) -> Wanted {
        let level = self.level.unwrap_or(LogLevel::Trace);
        Wanted::new(level, self.text.as_deref())
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Last {
    /// So many of the last lines, and no page after them; not with `after` or
    /// `limit`.
    #[param(minimum = 1, maximum = 1000)]
    last: Option<usize>,
}

/// The lines of the log that are kept, the oldest first.
///
/// `log.kept_lines` says how many there are.
#[utoipa::path(get, path = "/log", tag = "log", params(Page, Which, Last),
    responses((status = 200, body = Listed<Line>), (status = "default", body = Problem)))]
async fn list(
    _: Viewer,
    Shares(state): Shares<Arc<State>>,
    Params(page): Params<Page>,
    Params(which): Params<Which>,
    Params(Last { last }): Params<Last>,
) -> problem::Result<Listed<Line>> {
    let (book, wanted) = (logbook(&state)?, which.wanted());
    if let Some(last) = within("last", last, 1..=LAST_MAX)? {
        if page.is_given() {
            let why = "last says all: leave after and limit out, or ask without it";
            return Err(Problem::invalid(why));
        }
        return Ok(Json(Listed {
            items: book.last(&wanted, last),
            next: None,
        }));
    }
    let limit = page.limit()?;
    let after = match page.after() {
        None => 0,
        Some(after) => number(after)?,
    };
    let (items, seen) = book.after(after, &wanted, limit);
    let next = (items.len() == limit).then(|| seen.to_string());
    Ok(Json(Listed { items, next }))
}

/// # Errors
/// It is none of a line.
fn number(text: &str) -> Result<u64, Problem> {
    text.parse()
        .map_err(|_| Problem::invalid("after is the number of a line"))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct From {
    /// Begin behind the line of this number, or with all where that many have not
    /// been logged since the broker started; without it, with the last hundred.
    after: Option<u64>,
}

/// The log, line after line as it comes: events `line`, each a line as JSON.
///
/// Who is too slow misses lines, and sees that by their numbers.
#[utoipa::path(get, path = "/log/events", tag = "log", params(From, Which),
    responses((status = 200, content_type = "text/event-stream", body = Line),
        (status = "default", body = Problem)))]
async fn follow(
    _: Viewer,
    standing: Standing,
    Shares(state): Shares<Arc<State>>,
    Params(from): Params<From>,
    Params(which): Params<Which>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let book = logbook(&state)?.clone();
    // A browser that comes again says what it had last.
    let last = headers.get("last-event-id");
    let last = last.and_then(|last| last.to_str().ok()?.parse().ok());
    let after = last.or(from.after);
    let after = after.unwrap_or_else(|| book.before_last(FOLLOWED_FROM));
    let following = Following {
        watch: book.watch(),
        book,
        after,
        wanted: which.wanted(),
        lines: Vec::new().into_iter(),
        stopping: state.stopping.clone(),
        _place: state.events.enter()?,
        standing,
    };
    let events = stream::unfold(following, |mut following| async move {
        let line = following.next().await?;
        Some((Ok(event(&line)), following))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

fn event(line: &Line) -> Event {
    let event = Event::default().event("line").id(line.number.to_string());
    // A line is JSON as it is.
    event.json_data(line).unwrap_or_default()
}

/// Somebody who reads the log as it comes.
struct Following {
    book: Arc<Logbook>,
    watch: tokio::sync::watch::Receiver<u64>,
    after: u64,
    wanted: Wanted,
    lines: std::vec::IntoIter<Line>,
    stopping: tokio::sync::watch::Receiver<bool>,
    standing: Standing,
    // Given back when it is gone.
    _place: tokio::sync::OwnedSemaphorePermit,
}

impl Following {
    /// `None`: there is to be none any more.
    async fn next(&mut self) -> Option<Line> {
        loop {
            if let Some(line) = self.lines.next() {
                return Some(line);
            }
            // What comes while they are read is not waited for in vain.
            self.watch.borrow_and_update();
            let (lines, seen) = self.book.after(self.after, &self.wanted, SENT_AT_ONCE);
            let is_all = lines.len() < SENT_AT_ONCE;
            (self.lines, self.after) = (lines.into_iter(), seen);
            if self.lines.len() == 0 && is_all {
                tokio::select! {
                    changed = self.watch.changed() => changed.ok()?,
                    _ = self.stopping.wait_for(|stopping| *stopping) => return None,
                    () = self.standing.ended(Role::Viewer) => return None,
                }
            }
        }
    }
}

/// From which level on lines are logged.
#[derive(Serialize, ToSchema)]
struct Level {
    /// The least severe level that is logged.
    level: LogLevel,
    /// Until when, where it holds for a while, in ms since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    until_ms: Option<u64>,
    /// The level that holds then.
    usual: LogLevel,
}

impl std::convert::From<Levels> for Level {
    fn from(levels: Levels) -> Level {
        Level {
            level: levels.current(),
            until_ms: levels.for_now.map(|(_, until)| until),
            usual: levels.usual,
        }
    }
}

/// The level.
#[utoipa::path(get, path = "/log/level", tag = "log",
    responses((status = 200, body = Level), (status = "default", body = Problem)))]
async fn level(_: Viewer, Shares(state): Shares<Arc<State>>) -> problem::Result<Level> {
    Ok(Json(logbook(&state)?.levels().into()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewLevel {
    level: LogLevel,
    /// After so many seconds the usual level holds again; without it, this one is
    /// the usual one until the configuration is read again.
    #[schema(minimum = 1, maximum = 86400)]
    for_secs: Option<u64>,
}

/// Another level, for a while or for good.
#[utoipa::path(put, path = "/log/level", tag = "log", request_body = NewLevel,
    responses((status = 200, body = Level), (status = "default", body = Problem)))]
async fn set_level(
    Administrator(who): Administrator,
    Shares(state): Shares<Arc<State>>,
    Body(new): Body<NewLevel>,
) -> problem::Result<Level> {
    let book = logbook(&state)?;
    match new.for_secs {
        None => book.set_level(new.level),
        Some(secs @ 1..=SPAN_SECS_MAX) => {
            let span = Duration::from_secs(secs);
            let turn = book.set_level_for(new.level, span);
            let book = book.clone();
            tokio::spawn(async move {
                tokio::time::sleep(span).await;
                book.end_turn(turn);
            });
        }
        Some(secs) => {
            let text = format!("for_secs is from 1 to {SPAN_SECS_MAX}, not {secs}");
            return Err(Problem::invalid(text));
        }
    }
    tracing::warn!(by = who.name, level = ?new.level, secs = new.for_secs, "the log has another level");
    Ok(Json(book.levels().into()))
}
