//! Sockets: listening, and one task a connection.
//!
//! The only place with sockets and the async runtime. Knows of MQTT only where
//! a packet begins and ends; what packets mean is `broker`'s. A PUBLISH is read
//! in `connection`, and is written there, by its receivers' connections, when
//! the broker has put it into their outboxes.

mod connection;
mod handshake;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use connection::Connection;
pub use worker::with_worker;

use crate::authentication::{Bans, Chain};
use crate::broker::Core;
use crate::config::Durability;
use crate::message::Time;

/// Connections that wait in the kernel to be accepted.
const BACKLOG: i32 = 4096;
/// After a failed accept, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every connection shares.
pub struct Shared {
    pub core: Core,
    /// Who is asked who a client is.
    pub chain: Chain,
    /// And who is not asked any more.
    pub bans: Bans,
    pub clock: Clock,
    // Tells this broker from others in the process.
    number: u64,
    connections: AtomicUsize,
    // Turns true when the broker stops.
    stopping: watch::Receiver<bool>,
}

/// The broker's clock: monotonic from when it starts on.
pub struct Clock {
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
    pub fn new(
        core: Core,
        chain: Chain,
        bans: Bans,
        clock: Clock,
        stopping: watch::Receiver<bool>,
    ) -> Shared {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        Shared {
            core,
            chain,
            bans,
            clock,
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

/// Listens on `address`.
///
/// # Errors
/// The system's: the port is taken, or is not ours to take.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    // Restarting must not wait for old connections to time out.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts connections until the broker stops.
///
/// `durability`: what the listener asks for, if for any.
pub async fn accept(listener: TcpListener, durability: Option<Durability>, shared: Arc<Shared>) {
    let mut stopping = shared.stopping.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        match accepted {
            Ok((stream, peer)) => admit(stream, peer, durability, &shared),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit(
    stream: TcpStream,
    peer: SocketAddr,
    durability: Option<Durability>,
    shared: &Arc<Shared>,
) {
    let open = Open::new(shared);
    if shared.connections_len() > shared.core.limits().connections_max {
        shared.core.counters().connections_refused.increment();
        return tracing::debug!(%peer, "refused: there are connections_max connections");
    }
    // Every write is whole already: nothing to wait for.
    if let Err(error) = stream.set_nodelay(true) {
        return tracing::debug!(%peer, %error, "the connection is gone already");
    }
    tokio::spawn(Serving::new(stream, peer, durability, open));
}

/// One connection, from its first byte to its last. By hand, as an `async fn`
/// keeps room for both of its stages, and an idle connection is to take little.
#[expect(clippy::large_enum_variant, reason = "nearly all are open")]
enum Serving {
    // Boxed: what it needs is given back once the client is in.
    Handshake(Pin<Box<dyn Future<Output = Option<Connection<TcpStream>>> + Send>>),
    Open(Connection<TcpStream>),
}

impl Serving {
    fn new(
        mut stream: TcpStream,
        peer: SocketAddr,
        durability: Option<Durability>,
        open: Open,
    ) -> Serving {
        Serving::Handshake(Box::pin(async move {
            let admitted = handshake::handshake(&mut stream, peer, durability, &open).await;
            admitted.map(|(link, rest)| Connection::new(stream, peer, open, link, rest))
        }))
    }
}

impl Future for Serving {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut *self {
                Serving::Handshake(handshake) => match ready!(handshake.as_mut().poll(cx)) {
                    Some(connection) => *self = Serving::Open(connection),
                    None => return Poll::Ready(()),
                },
                Serving::Open(connection) => return Pin::new(connection).poll(cx),
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
