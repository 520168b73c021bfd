//! How requests reach a broker: over MQTT, or over HTTP.
//!
//! Owns which of the two it is, and what a request is over HTTP. Whoever asks
//! does not know.

use std::time::Duration;

use hyper::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::mqtt::Asking;
use crate::broker::steer::{Moved, Request};
use crate::cli::Failure;
use crate::cli::http::{Api, Route};

/// A broker that answers requests, one at a time.
pub enum Way<'c> {
    Mqtt(Asking<'c>),
    Http(&'c mut Api),
}

impl Way<'_> {
    /// The answer to a request.
    ///
    /// # Errors
    /// What the broker says is wrong; the connection is lost; there is no
    /// answer in time.
    pub async fn ask<A: DeserializeOwned>(&mut self, request: &Request) -> Result<A, Failure> {
        let answer = match self {
            Way::Mqtt(asking) => asking.ask(request).await?,
            Way::Http(api) => {
                let (method, route, body) = over_http(request);
                let mut answer: Value = api.change(method, &route, body).await?;
                if let Request::List { .. } = request {
                    // Lists are alike there, whatever they are of.
                    answer["queues"] = answer["items"].take();
                }
                answer
            }
        };
        serde_json::from_value(answer).map_err(|error| {
            Failure::new(format!(
                "the broker's answer is not understood: {error}; it may be of another version"
            ))
        })
    }

    /// Waits, and keeps the connection alive meanwhile.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn rest(&mut self, span: Duration) -> Result<(), Failure> {
        match self {
            Way::Mqtt(asking) => asking.rest(span).await,
            Way::Http(_) => {
                sleep(span).await;
                Ok(())
            }
        }
    }
}

/// A request as the API has it.
fn over_http(request: &Request) -> (Method, Route, Option<Value>) {
    let of = |queue: &str| Route::to(&["queues", queue]);
    let below = |queue: &str, what: &str| Route::to(&["queues", queue, what]);
    match request {
        Request::List { name, after, limit } => {
            let route = Route::to(&["queues"]);
            let route = route.maybe("name", name.as_deref());
            let route = route.maybe("after", after.as_deref());
            (Method::GET, route.maybe("limit", *limit), None)
        }
        Request::Show { queue } => (Method::GET, of(queue), None),
        Request::Create { queue, settings } => {
            let body = json!({ "settings": settings });
            (Method::PUT, of(queue), Some(body))
        }
        Request::Set { queue, settings } => {
            let body = json!({ "settings": settings });
            (Method::PATCH, of(queue), Some(body))
        }
        Request::Delete { queue, force } => (Method::DELETE, of(queue).with("force", force), None),
        Request::Peek {
            queue,
            count,
            in_flight,
            payload_bytes_max,
        } => {
            let route = below(queue, "messages").maybe("count", *count);
            let route = route.with("in_flight", in_flight);
            let route = route.maybe("payload_bytes_max", *payload_bytes_max);
            (Method::GET, route, None)
        }
        Request::Purge { queue, count } => {
            let body = json!({ "count": count });
            (Method::POST, below(queue, "purge"), Some(body))
        }
        Request::Pause { queue } => (Method::POST, below(queue, "pause"), None),
        Request::Resume { queue } => (Method::POST, below(queue, "resume"), None),
        Request::Move { queue, to, what } => {
            let body = moved(Some(to), what);
            (Method::POST, below(queue, "move"), Some(body))
        }
        Request::Redrive { queue, to, what } => {
            let body = moved(to.as_deref(), what);
            (Method::POST, below(queue, "redrive"), Some(body))
        }
        Request::Trace { queue, message } => {
            let route = Route::to(&["queues", queue, "messages", message, "trace"]);
            (Method::GET, route, None)
        }
        Request::Tail {
            queue,
            after,
            count,
        } => {
            let route = below(queue, "events").maybe("after", *after);
            (Method::GET, route.maybe("count", *count), None)
        }
    }
}

fn moved(to: Option<&str>, what: &Moved) -> Value {
    let mut body = json!({});
    let given = [
        ("to", to.map(Value::from)),
        ("count", what.count.map(Value::from)),
        ("ids", what.ids.clone().map(Value::from)),
        ("rate", what.rate.map(Value::from)),
    ];
    for (name, value) in given {
        if let Some(value) = value {
            body[name] = value;
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_over_http_says_all_that_was_asked_for() {
        let queue = || "a/b".to_owned();
        let move_some = Moved {
            ids: Some(vec!["1f".to_owned()]),
            ..Moved::default()
        };
        for (request, method, route, body) in [
            (
                Request::List {
                    name: Some("a*".to_owned()),
                    after: None,
                    limit: Some(7),
                },
                Method::GET,
                "?name=a%2A&limit=7",
                None,
            ),
            (
                Request::Delete {
                    queue: queue(),
                    force: true,
                },
                Method::DELETE,
                "/a%2Fb?force=true",
                None,
            ),
            (
                Request::Purge {
                    queue: queue(),
                    count: None,
                },
                Method::POST,
                "/a%2Fb/purge",
                Some(json!({ "count": null })),
            ),
            (
                Request::Redrive {
                    queue: queue(),
                    to: None,
                    what: move_some,
                },
                Method::POST,
                "/a%2Fb/redrive",
                Some(json!({ "ids": ["1f"] })),
            ),
            (
                Request::Tail {
                    queue: queue(),
                    after: Some(3),
                    count: None,
                },
                Method::GET,
                "/a%2Fb/events?after=3",
                None,
            ),
        ] {
            let (asked, to, with) = over_http(&request);
            let expected = format!("/api/v1/queues{route}");
            assert_eq!((asked, to.as_str(), with), (method, &*expected, body));
        }
    }
}
