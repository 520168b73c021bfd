//! MQTT over WebSocket at `/mqtt`: how the dashboard is a client.
//!
//! A browser gets here only when it is logged in, and from no page of another
//! origin; which client of MQTT it is then, and what that may do, is asked as at
//! any listener. Who gives no name is let in only if every listener lets such in,
//! and as an operator: viewers see no payloads.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::{Request, State as Shares};
use axum::http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use axum::http::{Method, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::State;
use super::guard::{Standing, Viewer, check_origin};
use super::problem::Problem;
use super::server::Client;
use super::users::Role;
use crate::config::WebSocketSettings;
use crate::net::websocket::upgrade::grant;
use crate::net::{self, PeerAddress, Stream, TlsPeer};

pub(super) fn routes() -> Router<Arc<State>> {
    Router::new().route("/mqtt", get(upgrade))
}

async fn upgrade(
    Viewer(who): Viewer,
    mut standing: Standing,
    Shares(state): Shares<Arc<State>>,
    mut request: Request,
) -> Result<Response, Problem> {
    // Browsers ask nobody whether a page may open a WebSocket here.
    check_origin(request.headers())?;
    if state.shared.is_stopping() {
        return Err(Problem::unavailable("the broker stops"));
    }
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
    let may_be_anonymous = who.role >= Role::Operator;
    let workbench = state.operations.workbench(may_be_anonymous);
    let workbench = workbench.ok_or_else(|| Problem::unavailable("the broker is just starting"))?;
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // It is gone again, if this fails.
        let Ok(upgraded) = upgraded.await else { return };
        let mut peer = workbench.peer(address);
        // A page that somebody on this machine looks at is not that person.
        peer.is_local = false;
        peer.tls = (state.tls.is_some()).then_some(TlsPeer { certificate: None });
        let stream = Box::new(Lasting {
            stream: TokioIo::new(upgraded),
            ended: Some(Box::pin(async move { standing.ended(who.role).await })),
        });
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

/// A connection that is lost when who opened it may not be here any more.
struct Lasting {
    stream: TokioIo<Upgraded>,
    // `None`: it has.
    ended: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Lasting {
    fn has_ended(&mut self, cx: &mut Context<'_>) -> bool {
        let ended = self.ended.as_mut();
        let is_over = ended.is_none_or(|ended| ended.as_mut().poll(cx).is_ready());
        if is_over {
            self.ended = None;
        }
        is_over
    }
}

impl Stream for Lasting {}

impl AsyncRead for Lasting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.has_ended(cx) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Lasting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.has_ended(cx) {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
