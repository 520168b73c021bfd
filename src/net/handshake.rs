//! From the first byte of a connection to its CONNACK.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Shared, with_worker};
use crate::broker::Link;
use crate::protocol::{Connack, Packet, Properties, ReasonCode, Version, decode_connect, encode};

/// How long a refused client may take to read why.
const LINGER: Duration = Duration::from_secs(1);

/// The client's CONNECT, within the time it has; the session, and what was
/// read beyond the CONNECT. `None`: refused.
pub async fn handshake(
    stream: &mut TcpStream,
    peer: SocketAddr,
    shared: &Shared,
) -> Option<(Link, Vec<u8>)> {
    // One deadline for all of it: dribbling does not extend it.
    let limit = shared.core.limits().connect_timeout;
    let mut stopping = shared.stopping.clone();
    let admitted = tokio::select! {
        admitted = timeout(limit, read_connect(stream, peer, shared)) => admitted,
        _ = stopping.wait_for(|stopping| *stopping) => return None,
    };
    match admitted {
        Ok(Ok(link)) => return Some(link),
        Ok(Err(Some((version, reason)))) => refuse(stream, version, reason).await,
        Ok(Err(None)) => {}
        Err(_) => tracing::debug!(%peer, "closed: no whole CONNECT within connect_timeout_ms"),
    }
    None
}

/// The CONNACK to refuse with; `None`: close without a word.
type Refusal = Option<(Version, ReasonCode)>;

async fn read_connect(
    stream: &mut TcpStream,
    peer: SocketAddr,
    shared: &Shared,
) -> Result<(Link, Vec<u8>), Refusal> {
    let limits = shared.core.limits();
    let bytes_max = limits.connect_packet_bytes_max.min(limits.packet_bytes_max);
    // Grows with what comes, not with what the client says will come.
    let mut bytes = Vec::with_capacity(256);
    loop {
        match stream.read_buf(&mut bytes).await {
            Ok(0) => return Err(None),
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%peer, %error, "lost before CONNECT");
                return Err(None);
            }
        }
        let (connect, len) = match decode_connect(&bytes, bytes_max) {
            Ok(Some(connect)) => connect,
            Ok(None) => continue,
            Err(error) => {
                shared.core.counters().connections_refused.increment();
                tracing::info!(%peer, why = error.what, "CONNECT refused");
                // Without a version to say it in, closing has to do [MQTT-3.1.4-1].
                return Err(error.connack.map(|version| (version, error.reason)));
            }
        };
        let now = shared.clock.now();
        let admitted = with_worker(shared, |local| {
            shared.core.connect(&mut local.worker, &connect, now)
        });
        return match admitted {
            Ok(link) => {
                tracing::debug!(%peer, client = ?link.identity.client, "connected");
                Ok((link, bytes.split_off(len)))
            }
            Err(reason) => {
                tracing::info!(%peer, client = ?connect.client_id, ?reason, "CONNECT refused");
                Err(reason
                    .fits_connack(connect.version)
                    .then_some((connect.version, reason)))
            }
        };
    }
}

/// CONNACK, then the end [MQTT-3.2.2-5].
async fn refuse(stream: &mut TcpStream, version: Version, reason: ReasonCode) {
    let connack = Packet::Connack(Connack {
        session_present: false, // [MQTT-3.2.2-4]
        reason,
        properties: Properties::EMPTY,
    });
    let mut bytes = Vec::new();
    encode(&connack, version, &mut bytes);
    // Closing with bytes unread would reset the connection, and the client
    // might never see the CONNACK: what it sent is read until it closes.
    let said = timeout(LINGER, async {
        stream.write_all(&bytes).await?;
        stream.shutdown().await?;
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    });
    if !matches!(said.await, Ok(Ok(()))) {
        tracing::debug!("a refused client was gone, or stayed, before it had read why");
    }
}
