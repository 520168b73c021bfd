//! Sockets: listening, transports, and one task a connection.
//!
//! The only place with sockets and the async runtime. Knows of MQTT only where
//! a packet begins and ends; what packets mean is `broker`'s. What comes before
//! a client's CONNECT is gone through in `transport`. A PUBLISH is read in
//! `connection`, and is written there, by its receivers' connections, when the
//! broker has put it into their outboxes.
//!
//! Public is what parses bytes from outside, to be tried with any bytes.

mod connection;
mod handshake;
mod listen;
mod peer;
pub mod proxy;
mod tls;
mod transport;
pub mod websocket;
mod worker;

use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant as Moment;

use connection::Connection;
use handshake::{LINGER, within};
use listen::Accepted;
pub(crate) use listen::{Listening, SocketFile};
pub use peer::{Peer, PeerAddress, TlsPeer};
pub(crate) use tls::{read_certificates, read_identity};
pub(crate) use transport::Entrance;
use transport::{Ready, Stream};
pub(crate) use worker::with_worker;

use crate::authentication::{Bans, Chain};
use crate::broker::Core;
use crate::message::Time;

/// After a failed accept, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every connection shares.
pub(crate) struct Shared {
    pub core: Core,
    /// Who is asked who a client is.
    pub chain: Chain,
    /// And who is not asked any more.
    pub bans: Bans,
    pub clock: Clock,
    // One for each thread: see `tls`.
    handshakes: Arc<Semaphore>,
    // Tells this broker from others in the process.
    number: u64,
    connections: AtomicUsize,
    // Turns true when the broker stops.
    stopping: watch::Receiver<bool>,
}

/// The broker's clock: monotonic from when it starts on.
pub(crate) struct Clock {
    start: Instant,
    // What it showed then.
    started: Time,
}

impl Clock {
    /// A clock that showed `started` at `start`.
    pub fn starting(start: Instant, started: Time) -> Clock {
        Clock { start, started }
    }

    pub fn now(&self) -> Time {
        self.started + self.start.elapsed()
    }

    /// The runtime's moment for `time`.
    pub fn instant(&self, time: Time) -> tokio::time::Instant {
        (self.start + time.since(self.started)).into()
    }
}

impl Shared {
    /// `threads`: of the runtime.
    pub fn new(
        core: Core,
        chain: Chain,
        bans: Bans,
        clock: Clock,
        threads: usize,
        stopping: watch::Receiver<bool>,
    ) -> Shared {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        Shared {
            core,
            chain,
            bans,
            clock,
            handshakes: Arc::new(Semaphore::new(threads)),
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            connections: AtomicUsize::new(0),
            stopping,
        }
    }

    /// Open connections, those included that have not sent CONNECT yet.
    pub fn connections_len(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Accepts connections until the broker stops.
pub(crate) async fn accept(listening: Listening, entrance: Arc<Entrance>, shared: Arc<Shared>) {
    let mut stopping = shared.stopping.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listening.accept() => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        match accepted {
            Ok((accepted, address)) => admit(accepted, address, &entrance, &shared),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit(accepted: Accepted, address: PeerAddress, entrance: &Arc<Entrance>, shared: &Arc<Shared>) {
    let open = Open::new(shared);
    if shared.connections_len() > shared.core.limits().connections_max {
        shared.core.counters().connections_refused.increment();
        return tracing::debug!(peer = %address, "refused: there are connections_max connections");
    }
    if let Accepted::Tcp(stream) = &accepted
        // Every write is whole already: nothing to wait for.
        && let Err(error) = stream.set_nodelay(true)
    {
        return tracing::debug!(peer = %address, %error, "the connection is gone already");
    }
    tokio::spawn(Serving::new(accepted, address, entrance.clone(), open));
}

/// One connection, from its first byte to its last. By hand, as an `async fn`
/// keeps room for all of its stages, and an idle connection is to take little.
enum Serving {
    // Boxed: what it needs is given back once the client is in.
    Opening(Pin<Box<dyn Future<Output = Option<Serving>> + Send>>),
    Tcp(Connection<TcpStream>),
    Boxed(Connection<Box<dyn Stream>>),
}

impl Serving {
    fn new(
        accepted: Accepted,
        address: PeerAddress,
        entrance: Arc<Entrance>,
        open: Open,
    ) -> Serving {
        Serving::Opening(Box::pin(async move {
            // One deadline for all that comes before CONNACK: dribbling does
            // not extend it.
            let deadline = Moment::now() + open.core.limits().connect_timeout;
            let ready = entrance.open(accepted, address, &open);
            let (ready, peer) = within(deadline, address, &open, ready).await??;
            match ready {
                Ready::Tcp(stream) => {
                    let connection = connect(stream, peer, &entrance, deadline, open).await;
                    connection.map(Serving::Tcp)
                }
                Ready::Boxed(stream) => {
                    let connection = connect(stream, peer, &entrance, deadline, open).await;
                    connection.map(Serving::Boxed)
                }
            }
        }))
    }
}

/// The connection of a client that is let in.
async fn connect<S: Stream>(
    mut stream: S,
    peer: Peer,
    entrance: &Entrance,
    deadline: Moment,
    open: Open,
) -> Option<Connection<S>> {
    let durability = entrance.durability;
    let admitted = handshake::handshake(&mut stream, &peer, durability, deadline, &open).await;
    let Some((link, rest)) = admitted else {
        // TLS and WebSocket say that they end.
        _ = tokio::time::timeout(LINGER, stream.shutdown()).await;
        return None;
    };
    stream.admit(open.core.limits().packet_bytes_max);
    Some(Connection::new(stream, peer.address, open, link, rest))
}

impl Future for Serving {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut *self {
                Serving::Opening(opening) => match ready!(opening.as_mut().poll(cx)) {
                    Some(serving) => *self = serving,
                    None => return Poll::Ready(()),
                },
                Serving::Tcp(connection) => return Pin::new(connection).poll(cx),
                Serving::Boxed(connection) => return Pin::new(connection).poll(cx),
            }
        }
    }
}

/// Counts a connection as long as it is open.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: &Arc<Shared>) -> Open {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        Open(shared.clone())
    }
}

impl Deref for Open {
    type Target = Arc<Shared>;

    fn deref(&self) -> &Arc<Shared> {
        &self.0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 15,000 idle connections are to take little memory: each has such a
    /// future.
    #[test]
    fn the_future_of_a_connection_is_small() {
        let bytes = size_of::<Serving>();
        println!("a connection's future: {bytes} bytes");
        assert!(bytes <= 320, "{bytes} bytes");
    }
}
