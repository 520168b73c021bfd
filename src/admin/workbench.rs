//! MQTT over WebSocket at `/mqtt`: how the dashboard is a client.
//!
//! A browser gets here only when it is logged in, so that no page of somebody
//! else's can; which client of MQTT it is then, and what that may do, is asked
//! as at any listener.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State as Shares};
use axum::http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use axum::http::{Method, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::TokioIo;

use super::State;
use super::guard::Viewer;
use super::problem::Problem;
use super::server::Client;
use crate::config::WebSocketSettings;
use crate::net::websocket::upgrade::grant;
use crate::net::{self, PeerAddress, TlsPeer};

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new().route("/mqtt", get(upgrade))
}

async fn upgrade(
    _who: Viewer,
    Shares(state): Shares<Arc<State>>,
    mut request: Request,
) -> Result<Response, Problem> {
    let headers: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| httparse::Header {
            name: name.as_str(),
            value: value.as_bytes(),
        })
        .collect();
    let is_get = request.method() == Method::GET && request.version() == Version::HTTP_11;
    let settings = WebSocketSettings {
        path: String::new(),
        origins: Vec::new(),
    };
    let granted = grant(is_get, request.uri().path(), &headers, &settings);
    let granted = granted.map_err(|refusal| {
        let status = refusal.status.get(..3).and_then(|code| code.parse().ok());
        let status = status.and_then(|code| StatusCode::from_u16(code).ok());
        Problem::new(status.unwrap_or(StatusCode::BAD_REQUEST), refusal.why)
    })?;
    let address = request.extensions().get::<Client>();
    let address = address.map_or(PeerAddress::Unix, |client| client.0);
    let workbench = state.operations.workbench();
    let workbench = workbench.ok_or_else(|| Problem::unavailable("the broker is just starting"))?;
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // It is gone again, if this fails.
        let Ok(upgraded) = upgraded.await else { return };
        let mut peer = workbench.peer(address);
        // A page that somebody on this machine looks at is not that person.
        peer.is_local = false;
        peer.tls = (state.tls.is_some()).then_some(TlsPeer { certificate: None });
        let stream = Box::new(TokioIo::new(upgraded));
        net::serve_websocket(stream, peer, &workbench, &state.shared).await;
    });
    let headers = [
        (CONNECTION, "Upgrade"),
        (UPGRADE, "websocket"),
        (SEC_WEBSOCKET_ACCEPT, &granted.accept),
        (SEC_WEBSOCKET_PROTOCOL, granted.subprotocol),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}
