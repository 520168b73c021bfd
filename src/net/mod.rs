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
mod half_open;
mod handshake;
mod listen;
mod pace;
mod peer;
pub mod proxy;
mod tls;
mod transport;
pub mod websocket;
mod worker;

use std::future::poll_fn;
use std::num::NonZeroU64;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant as Moment, sleep_until};

use connection::Connection;
pub(crate) use half_open::{HalfOpen, Place};
use handshake::{LINGER, within};
pub(crate) use listen::{Accepted, Bound, Inode, Listening, SocketFile};
use pace::{Pace, Scope, UserScopes};
use peer::PackedAddress;
pub use peer::{Peer, PeerAddress, TlsPeer};
pub(crate) use tls::{Tls, TlsError, read_certificates, read_identity};
use transport::Ready;
pub(crate) use transport::{Entrance, Stream};
use websocket::WebSocket;
pub(crate) use worker::with_worker;

use crate::authentication::Bans;
use crate::broker::Core;
use crate::bucket::Bucket;
use crate::journal::Receipt;
use crate::message::Time;
use crate::store::Failed;

/// After a failed accept, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Of the connections of a second, what may be accepted at once after a rest:
/// a storm is let in steadily from its beginning.
const ACCEPT_BURST: Duration = Duration::from_millis(100);

/// How often who waits for the store looks whether that has failed.
const FAILURE_POLL: Duration = Duration::from_secs(1);

/// What every connection shares.
pub(crate) struct Shared {
    pub core: Core,
    /// Who is not asked any more who it is.
    pub bans: Bans,
    pub clock: Clock,
    // One for each thread: see `tls`.
    handshakes: Arc<Semaphore>,
    // Tells this broker from others in the process.
    number: u64,
    connections: AtomicUsize,
    // Listeners of which connections are accepted.
    accepting: AtomicUsize,
    half_open: Arc<HalfOpen>,
    // Of all listeners; `None`: as many as come.
    accepts: RwLock<Option<Mutex<Bucket>>>,
    users: Arc<UserScopes>,
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
        bans: Bans,
        clock: Clock,
        threads: usize,
        stopping: watch::Receiver<bool>,
    ) -> Shared {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let limits = core.limits();
        Shared {
            half_open: Arc::new(HalfOpen::new(limits.half_open_per_address_max)),
            accepts: RwLock::new(accepts(limits.connections_per_sec_max)),
            users: Arc::new(UserScopes::new(limits.user_rates.clone())),
            core,
            bans,
            clock,
            handshakes: Arc::new(Semaphore::new(threads)),
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            connections: AtomicUsize::new(0),
            accepting: AtomicUsize::new(0),
            stopping,
        }
    }

    /// What the core's limits say of connections holds from now on.
    pub fn take_limits(&self) {
        let limits = self.core.limits();
        self.half_open.set_max(limits.half_open_per_address_max);
        *self.accepts.write() = accepts(limits.connections_per_sec_max);
        self.users.set(&limits.user_rates);
    }

    /// Open connections, those included that have not sent CONNECT yet.
    pub fn connections_len(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Listeners of which connections are accepted.
    pub fn accepting_len(&self) -> usize {
        self.accepting.load(Ordering::Relaxed)
    }

    /// Whether the broker is on its way out.
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Waits until that is stored.
    ///
    /// # Errors
    /// It never will be.
    pub async fn stored(&self, receipt: Receipt) -> Result<(), Failed> {
        let store = self.core.store();
        // After a failure nobody is woken.
        let mut look_again = tokio::time::interval(FAILURE_POLL);
        poll_fn(|cx| {
            loop {
                if store.has(receipt) {
                    return Poll::Ready(Ok(()));
                }
                if let Some(failed) = store.failure() {
                    return Poll::Ready(Err(failed));
                }
                if store.wake_at(receipt, cx.waker()) && look_again.poll_tick(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Whose turn it is to take a step of a TLS handshake.
    pub fn handshakes(&self) -> &Arc<Semaphore> {
        &self.handshakes
    }
}

/// So many connections a second; 0: as many as come.
fn accepts(per_sec: u64) -> Option<Mutex<Bucket>> {
    let per_sec = NonZeroU64::new(per_sec)?;
    Some(Mutex::new(Bucket::new(per_sec, ACCEPT_BURST)))
}

/// Accepts connections, by the entrance as it is then, until that is taken away
/// or the broker stops; and no faster than it may: the others wait in the
/// system's backlog.
pub(crate) fn accept(
    listening: Listening,
    entrance: watch::Receiver<Arc<Entrance>>,
    shared: Arc<Shared>,
) -> impl Future<Output = ()> + Send + 'static {
    let accepting = Accepting::new(&shared);
    async move {
        accept_all(listening, entrance, shared).await;
        drop(accepting);
    }
}

/// Counts a listener for as long as its connections are accepted, also if that
/// ends by a fault.
struct Accepting(Arc<Shared>);

impl Accepting {
    fn new(shared: &Arc<Shared>) -> Accepting {
        shared.accepting.fetch_add(1, Ordering::Relaxed);
        Accepting(shared.clone())
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.accepting.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn accept_all(
    listening: Listening,
    mut entrance: watch::Receiver<Arc<Entrance>>,
    shared: Arc<Shared>,
) {
    let mut stopping = shared.stopping.clone();
    let common = |entrance: &mut watch::Receiver<Arc<Entrance>>| {
        Arc::new(Common {
            shared: shared.clone(),
            entrance: entrance.borrow_and_update().clone(),
        })
    };
    let mut current = common(&mut entrance);
    loop {
        let accepted = tokio::select! {
            accepted = listening.accept() => accepted,
            changed = entrance.changed() => match changed {
                Ok(()) => {
                    current = common(&mut entrance);
                    continue;
                }
                Err(_) => return,
            },
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        // Who comes after a change finds it, whichever was noticed first.
        match entrance.has_changed() {
            Ok(true) => current = common(&mut entrance),
            Ok(false) => {}
            Err(_) => return,
        }
        match accepted {
            Ok((accepted, address)) => {
                admit(accepted, address, &current);
                if let Some(next) = next_accept(&current.entrance, &shared) {
                    shared.core.counters().accepts_delayed.increment();
                    tokio::select! {
                        () = sleep_until(next) => {}
                        _ = stopping.wait_for(|stopping| *stopping) => return,
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One was accepted; when the next may be, if not at once.
fn next_accept(entrance: &Entrance, shared: &Shared) -> Option<Moment> {
    let of_all = shared.accepts.read();
    let buckets = [&entrance.accepts, &*of_all];
    if buckets.iter().all(|bucket| bucket.is_none()) {
        return None;
    }
    let now = shared.clock.now();
    let next = (buckets.into_iter().flatten()).map(|bucket| bucket.lock().take(1, now));
    let next = next.max().filter(|next| *next > now)?;
    Some(shared.clock.instant(next))
}

fn admit(accepted: Accepted, address: PeerAddress, common: &Arc<Common>) {
    let (shared, entrance) = (&common.shared, &common.entrance);
    let Some(open) = Open::within_limits(common, address) else {
        return;
    };
    if let Accepted::Tcp(stream) = &accepted
        // Every write is whole already: nothing to wait for.
        && let Err(error) = stream.set_nodelay(true)
    {
        return tracing::debug!(peer = %address, %error, "the connection is gone already");
    }
    // Whom a proxy speaks for, its header says.
    let place = match entrance.trusts(address) {
        true => Place::default(),
        false => match enter(address, shared) {
            Some(place) => place,
            None => return,
        },
    };
    tokio::spawn(Serving::new(accepted, (address, place), open));
}

/// A place among those of its address that are not through with CONNECT.
fn enter(address: PeerAddress, shared: &Shared) -> Option<Place> {
    let place = shared.half_open.enter(address);
    if place.is_none() {
        let counters = shared.core.counters();
        counters.connections_refused.increment();
        counters.refused_half_open.increment();
        tracing::debug!(peer = %address, "refused: half_open_per_address_max of this address are not through with CONNECT");
    }
    place
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
    fn new(accepted: Accepted, (address, mut place): (PeerAddress, Place), open: Open) -> Serving {
        let entrance = open.entrance().clone();
        // One deadline for all that comes before CONNACK: dribbling does not
        // extend it.
        let deadline = Moment::now() + entrance.door.limits.connect_timeout;
        let accepted = match accepted {
            // By itself: what TLS needs room for is many times as much.
            Accepted::Tcp(stream) if entrance.is_plain(address) => {
                let peer = entrance.peer(address);
                return Serving::Opening(Box::pin(async move {
                    let _place = place;
                    let connection = connect(stream, peer, &entrance, deadline, open).await;
                    connection.map(Serving::Tcp)
                }));
            }
            accepted => accepted,
        };
        Serving::Opening(Box::pin(async move {
            let ready = entrance.open(accepted, address, &mut place, &open);
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

/// Serves a client whose stream somebody else has upgraded to WebSocket.
pub(crate) async fn serve_websocket(
    stream: Box<dyn Stream>,
    peer: Peer,
    entrance: &Arc<Entrance>,
    shared: &Arc<Shared>,
) {
    let common = Arc::new(Common {
        shared: shared.clone(),
        entrance: entrance.clone(),
    });
    let Some(open) = Open::within_limits(&common, peer.address) else {
        return;
    };
    let Some(place) = enter(peer.address, shared) else {
        return;
    };
    let deadline = Moment::now() + entrance.door.limits.connect_timeout;
    let bytes_max = entrance.door.connect_packet_bytes_max();
    let stream: Box<dyn Stream> = Box::new(WebSocket::new(stream, Vec::new(), bytes_max));
    if let Some(connection) = connect(stream, peer, entrance, deadline, open).await {
        drop(place);
        connection.await;
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
    let admitted = handshake::handshake(&mut stream, &peer, entrance, deadline, &open).await;
    let Some((link, rest)) = admitted else {
        // TLS and WebSocket say that they end.
        _ = tokio::time::timeout(LINGER, stream.shutdown()).await;
        return None;
    };
    let limits = &entrance.door.limits;
    stream.admit(limits.packet_bytes_max);
    let user = link.identity.user.as_ref();
    let pace = Pace::new(
        Scope::new(&limits.client_rates),
        user.and_then(|user| open.users.of(user)),
        entrance.scope.clone(),
    );
    Some(Connection::new(
        stream,
        peer.address,
        open,
        link,
        rest,
        pace,
    ))
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

/// What the connections of one listener have in common.
struct Common {
    shared: Arc<Shared>,
    entrance: Arc<Entrance>,
}

/// Counts a connection as long as it is open: of the broker, and of the
/// listener that it came by.
struct Open(Arc<Common>);

impl Open {
    fn new(common: &Arc<Common>) -> Open {
        common.shared.connections.fetch_add(1, Ordering::Relaxed);
        common.shared.core.counters().sockets.increment();
        common.entrance.enter();
        Open(common.clone())
    }

    /// The same; `None`: there are as many as there may be.
    fn within_limits(common: &Arc<Common>, peer: PeerAddress) -> Option<Open> {
        let (shared, entrance) = (&common.shared, &common.entrance);
        let open = Open::new(common);
        let is_full = shared.connections_len() > shared.core.limits().connections_max;
        if is_full || entrance.connections_len() > entrance.door.limits.connections_max {
            let counters = shared.core.counters();
            counters.connections_refused.increment();
            counters.refused_other.increment();
            tracing::debug!(%peer, "refused: there are connections_max connections");
            return None;
        }
        Some(open)
    }

    fn entrance(&self) -> &Arc<Entrance> {
        &self.0.entrance
    }
}

impl Deref for Open {
    type Target = Arc<Shared>;

    fn deref(&self) -> &Arc<Shared> {
        &self.0.shared
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.entrance.leave();
        self.0.shared.connections.fetch_sub(1, Ordering::Relaxed);
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
        // With what the runtime puts around it, 384 of the allocator's.
        assert!(bytes <= 288, "{bytes} bytes");
    }
}
