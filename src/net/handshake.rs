//! From the first byte of a connection to its CONNACK.

use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Entrance, Peer, PeerAddress, Shared, Stream, with_worker};
use crate::authentication::{Authenticated, Credentials};
use crate::broker::recording::Direction;
use crate::broker::{Admission, Link, method_of};
use crate::protocol::{
    Connack, Connect, DecodeError, Packet, PropertiesBuf, Property, ReasonCode, Version, decode,
    decode_connect, encode,
};
use crate::session::{Close, refusal};

/// How long a refused client may take to read why.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// The client's CONNECT, until `deadline`; the session, and what was read
/// beyond the CONNECT. `None`: refused.
pub async fn handshake<S: Stream>(
    stream: &mut S,
    peer: &Peer,
    entrance: &Entrance,
    deadline: Instant,
    shared: &Shared,
) -> Option<(Link, Vec<u8>)> {
    let connect = read_connect(stream, peer, entrance, shared);
    match within(deadline, peer.address, shared, connect).await? {
        Ok(link) => return Some(link),
        Err(Some(connack)) => refuse(stream, &connack).await,
        Err(None) => {}
    }
    None
}

/// What comes of one part of a connection's beginning; `None`: it takes too
/// long, or the broker stops.
pub(super) async fn within<F: Future>(
    deadline: Instant,
    peer: PeerAddress,
    shared: &Shared,
    part: F,
) -> Option<F::Output> {
    let mut stopping = shared.stopping.clone();
    let done = tokio::select! {
        done = timeout_at(deadline, part) => done,
        _ = stopping.wait_for(|stopping| *stopping) => return None,
    };
    if done.is_err() {
        tracing::debug!(%peer, "closed: not through with CONNECT within connect_timeout_ms");
    }
    done.ok()
}

/// The CONNACK to refuse with, encoded; `None`: close without a word.
type Refusal = Option<Vec<u8>>;

async fn read_connect<S: Stream>(
    stream: &mut S,
    transport: &Peer,
    entrance: &Entrance,
    shared: &Shared,
) -> Result<(Link, Vec<u8>), Refusal> {
    let peer = transport.address;
    let (core, door) = (&shared.core, &entrance.door);
    let bytes_max = door.connect_packet_bytes_max();
    // Grows with what comes, not with what the client says will come.
    let mut bytes = Vec::with_capacity(256);
    let connect_len = loop {
        match decode_connect(&bytes, bytes_max) {
            Ok(Some((_, len))) => break len,
            Ok(None) => read(stream, peer, &mut bytes, shared).await?,
            Err(error) => {
                core.counters().connections_refused.increment();
                core.counters().refused_other.increment();
                tracing::info!(%peer, why = error.what, "CONNECT refused");
                return Err(refusal_of(&error, shared));
            }
        }
    };
    let mut rest = bytes.split_off(connect_len);
    let Ok(Some((connect, _))) = decode_connect(&bytes, bytes_max) else {
        return Err(None); // It was one just now.
    };
    with_worker(shared, |local| {
        let tally = &local.worker.effects.tally;
        tally.note_received(connect.version, bytes[0], 1);
    });
    record(peer, &connect, (Direction::In, &bytes), shared);
    if (shared.bans).is_banned(peer.ip(), connect.client_id, shared.clock.now()) {
        let counters = core.counters();
        counters.connections_refused.increment();
        counters.refused_banned.increment();
        tracing::debug!(%peer, client = ?connect.client_id, "CONNECT refused: banned");
        let why = "this client, or where it comes from, is banned for a while";
        let close = Close::new(ReasonCode::Banned, why);
        return Err(refusal_to(peer, &connect, &close, shared));
    }
    if let Err(close) = core.check_memory(&connect) {
        tracing::debug!(%peer, client = ?connect.client_id, why = %close.why, "CONNECT refused");
        return Err(refusal_to(peer, &connect, &close, shared));
    }
    let has_method = method_of(&connect).is_some();
    let who = match has_method {
        true => Authenticated::ANONYMOUS, // until the method knows better
        false => authenticate(stream, transport, &connect, &mut rest, entrance, shared).await?,
    };
    let mut admission = with_worker(shared, |local| {
        let now = shared.clock.now();
        core.connect_as(&mut local.worker, &connect, &who, door, now)
    });
    loop {
        let authentication = match admission {
            Ok(Admission::Admitted(mut link)) => {
                link.is_local = transport.is_local;
                core.note_origin(&link, transport.origin());
                tracing::debug!(%peer, client = ?link.identity.client, "connected");
                return Ok((link, rest));
            }
            Ok(Admission::Challenged(authentication)) => authentication,
            Err(close) => {
                let client = connect.client_id;
                // Of its method; or, by mistake, for its will.
                if has_method && close.reason == ReasonCode::NotAuthorized {
                    note_failure(peer, &connect, shared);
                }
                tracing::info!(%peer, ?client, reason = ?close.reason, why = %close.why, "CONNECT refused");
                return Err(refusal_to(peer, &connect, &close, shared));
            }
        };
        let (challenge, wire) = (authentication.challenge(), authentication.terms().wire);
        with_worker(shared, |local| {
            let tally = &local.worker.effects.tally;
            tally.note_answers(wire, challenge);
            tally.note_written(challenge.len());
        });
        record(peer, &connect, (Direction::Out, challenge), shared);
        let sent = send(stream, challenge).await;
        if let Err(error) = sent {
            tracing::debug!(%peer, %error, "lost before CONNACK");
            return Err(None);
        }
        let len = loop {
            match decode(&rest, wire, bytes_max) {
                Ok(Some((_, len))) => break len,
                Ok(None) => read(stream, peer, &mut rest, shared).await?,
                Err(error) => {
                    core.counters().connections_refused.increment();
                    core.counters().refused_other.increment();
                    record(peer, &connect, (Direction::In, &rest), shared);
                    let close = Close::new(error.reason, error.what);
                    return Err(refusal_to(peer, &connect, &close, shared));
                }
            }
        };
        let after = rest.split_off(len);
        let Ok(Some((answer, _))) = decode(&rest, wire, bytes_max) else {
            return Err(None); // It was one just now.
        };
        record(peer, &connect, (Direction::In, &rest), shared);
        if matches!(answer, Packet::Disconnect(_)) {
            tracing::debug!(%peer, "the client left while it was asked who it is");
            return Err(None); // [MQTT-3.1.2-30]
        }
        admission = with_worker(shared, |local| {
            let now = shared.clock.now();
            (local.worker.effects.tally).note_received(wire, rest[0], 1);
            core.authenticate(&mut local.worker, &connect, authentication, &answer, now)
        });
        rest = after;
    }
}

/// Who the client is, by the chain. What it sends meanwhile is kept, so that its
/// end takes the question back.
async fn authenticate<S: Stream>(
    stream: &mut S,
    transport: &Peer,
    connect: &Connect<'_>,
    rest: &mut Vec<u8>,
    entrance: &Entrance,
    shared: &Shared,
) -> Result<Authenticated, Refusal> {
    let (core, peer) = (&shared.core, transport.address);
    let bytes_max = entrance.door.connect_packet_bytes_max();
    let tls = transport.tls.as_ref();
    let certificate = tls.and_then(|tls| tls.certificate.as_deref());
    let credentials = Credentials {
        address: peer.ip(),
        certificate,
        client: connect.client_id,
        user: connect.user_name,
        password: connect.password,
        listener: transport.listener.as_str(),
        version: Some(connect.version),
    };
    let mut asking = pin!(entrance.chain.authenticate(credentials));
    let found = loop {
        tokio::select! {
            biased;
            found = &mut asking => break found,
            more = read(stream, peer, rest, shared), if rest.len() < bytes_max => more?,
        }
    };
    found.map_err(|refused| {
        let counters = core.counters();
        counters.connections_refused.increment();
        match refused.reason {
            ReasonCode::ServerBusy => counters.refused_busy.increment(),
            ReasonCode::ServerUnavailable => counters.refused_unavailable.increment(),
            _ => counters.refused_unknown.increment(),
        }
        if refused.reason == ReasonCode::BadUserNameOrPassword {
            note_failure(peer, connect, shared);
        }
        let (client, reason) = (connect.client_id, refused.reason);
        tracing::info!(%peer, ?client, ?reason, why = %refused.why, "CONNECT refused");
        let close = Close::new(reason, "this client may not connect");
        refusal_to(peer, connect, &close, shared)
    })
}

/// The CONNACK that says no.
fn refusal_to(peer: PeerAddress, connect: &Connect<'_>, close: &Close, shared: &Shared) -> Refusal {
    let connack = refusal(connect, close, shared.core.session_settings())?;
    count_refusal(connect.version, &connack, shared);
    record(peer, connect, (Direction::Out, &connack), shared);
    Some(connack)
}

/// Tells who records of a packet, encoded, that came or goes out before the
/// client is let in.
fn record(peer: PeerAddress, connect: &Connect<'_>, packet: (Direction, &[u8]), shared: &Shared) {
    let core = &shared.core;
    if core.recordings().is_on() {
        core.record_connecting(connect, peer.socket(), packet, shared.clock.now());
    }
}

/// A client is not who it says.
fn note_failure(peer: PeerAddress, connect: &Connect<'_>, shared: &Shared) {
    let (client, now) = (connect.client_id, shared.clock.now());
    if shared.bans.failed(peer.ip(), client, now) {
        shared.core.counters().bans.increment();
        tracing::warn!(%peer, ?client, "banned: too many have failed to say who they are");
    }
}

/// Writes all, and has the transport pass it on.
async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Waits for more bytes.
async fn read<S: Stream>(
    stream: &mut S,
    peer: PeerAddress,
    bytes: &mut Vec<u8>,
    shared: &Shared,
) -> Result<(), Refusal> {
    match stream.read_buf(bytes).await {
        Ok(0) => Err(None),
        Ok(count) => {
            with_worker(shared, |local| local.worker.effects.tally.note_read(count));
            Ok(())
        }
        Err(error) => {
            tracing::debug!(%peer, %error, "lost before CONNACK");
            Err(None)
        }
    }
}

/// Without a version to say it in, closing has to do [MQTT-3.1.4-1].
fn refusal_of(error: &DecodeError, shared: &Shared) -> Refusal {
    let version = error.connack?;
    let mut words = PropertiesBuf::new();
    words.push(Property::ReasonString(error.what));
    let connack = Packet::Connack(Connack {
        session_present: false,
        reason: error.reason,
        properties: words.as_properties(),
    });
    let mut bytes = Vec::new();
    encode(&connack, version, &mut bytes);
    count_refusal(version, &bytes, shared);
    Some(bytes)
}

fn count_refusal(version: Version, connack: &[u8], shared: &Shared) {
    with_worker(shared, |local| {
        let tally = &local.worker.effects.tally;
        tally.note_answers(version, connack);
        tally.note_written(connack.len());
    });
}

/// An answer, then the end: of CONNACK [MQTT-3.2.2-7], in 3.1.1 [MQTT-3.2.2-5].
pub(super) async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, answer: &[u8]) {
    // Closing with bytes unread would reset the connection, and the client
    // might never see the answer: what it sent is read until it closes.
    let said = timeout(LINGER, async {
        stream.write_all(answer).await?;
        stream.shutdown().await?;
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    });
    if !matches!(said.await, Ok(Ok(()))) {
        tracing::debug!("a refused client was gone, or stayed, before it had read why");
    }
}
