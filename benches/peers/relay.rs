//! A relay that does the least that pub/sub needs: it copies QoS 0 frames to
//! whoever subscribed to exactly their topic.
//!
//! Owns the floor that `benches/compare` measures a broker against: what the
//! system calls, the wake-ups and the copying cost on this machine. Checks
//! nothing, limits nothing, knows no other packet than those that `rotamq bench`
//! sends at QoS 0, and is no broker.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, RwLock};
use tokio::net::{TcpListener, TcpStream};

const READ_BYTES_MAX: usize = 64 << 10;

#[derive(Default)]
struct Outbox {
    bytes: Vec<u8>,
    // Of the connection's task, while it waits.
    waker: Option<Waker>,
}

type Peer = Arc<Mutex<Outbox>>;
type Topics = Arc<RwLock<HashMap<Box<[u8]>, Arc<Vec<Peer>>>>>;

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), None) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: relay ADDRESS:PORT");
        std::process::exit(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(&address).await?;
        let topics = Topics::default();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(Connection::new(stream, topics.clone()).serve());
        }
    })
}

struct Connection {
    stream: TcpStream,
    topics: Topics,
    own: Peer,
    // What is being written, from `written` on.
    writing: Vec<u8>,
    written: usize,
    buffer: Vec<u8>,
    kept: usize,
    // The topic that came last, and who gets it.
    last: (Vec<u8>, Arc<Vec<Peer>>),
}

impl Connection {
    fn new(stream: TcpStream, topics: Topics) -> Connection {
        Connection {
            stream,
            topics,
            own: Peer::default(),
            writing: Vec::new(),
            written: 0,
            buffer: vec![0; READ_BYTES_MAX],
            kept: 0,
            last: Default::default(),
        }
    }

    async fn serve(mut self) {
        let ended = poll_fn(|cx| {
            loop {
                let has_written = self.write(cx)?;
                match self.stream.poll_read_ready(cx)? {
                    Poll::Ready(()) => match self.stream.try_read(&mut self.buffer[self.kept..]) {
                        Ok(0) => return Poll::Ready(Ok::<_, io::Error>(())),
                        Ok(count) => self.handle(self.kept + count)?,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Poll::Ready(Err(error)),
                    },
                    Poll::Pending if has_written => {
                        let mut own = self.own.lock();
                        if own.bytes.is_empty() {
                            own.waker = Some(cx.waker().clone());
                            return Poll::Pending;
                        }
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        _ = ended.await; // A client that is gone.
        let own = self.own;
        for peers in self.topics.write().values_mut() {
            Arc::make_mut(peers).retain(|peer| !Arc::ptr_eq(peer, &own));
        }
    }

    /// Writes all that there is; whether the socket took it.
    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        loop {
            if self.written == self.writing.len() {
                self.writing.clear();
                self.written = 0;
                std::mem::swap(&mut self.own.lock().bytes, &mut self.writing);
                if self.writing.is_empty() {
                    return Ok(true);
                }
            }
            match self.stream.try_write(&self.writing[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.stream.poll_write_ready(cx).is_pending() {
                        return Ok(false);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Handles the whole frames among the first `len` bytes, and keeps the rest.
    fn handle(&mut self, len: usize) -> io::Result<()> {
        let mut from = 0;
        let mut woken: Vec<Peer> = Vec::new();
        while let Some(frame_len) = frame_len(&self.buffer[from..len]) {
            let frame = &self.buffer[from..from + frame_len];
            from += frame_len;
            let body = &frame[frame.len() - remaining_len(frame)..];
            let answer: &[u8] = match frame[0] >> 4 {
                1 if body[6] == 5 => &[0x20, 3, 0, 0, 0],
                1 => &[0x20, 2, 0, 0],
                3 => {
                    let topic = &body[2..2 + usize::from(body[0]) * 256 + usize::from(body[1])];
                    if self.last.0 != topic {
                        let peers = self.topics.read().get(topic).cloned();
                        self.last = (topic.to_vec(), peers.unwrap_or_default());
                    }
                    for peer in self.last.1.iter() {
                        let mut outbox = peer.lock();
                        outbox.bytes.extend_from_slice(frame);
                        if outbox.waker.is_some() && !woken.iter().any(|one| Arc::ptr_eq(one, peer))
                        {
                            woken.push(peer.clone());
                        }
                    }
                    continue;
                }
                8 => {
                    // One filter; MQTT 5 has a byte for the length of no properties.
                    let at = if body[2] == 0 && body[3] == 0 { 3 } else { 2 };
                    let filter_len = usize::from(body[at]) * 256 + usize::from(body[at + 1]);
                    let filter = &body[at + 2..at + 2 + filter_len];
                    let mut topics = self.topics.write();
                    let peers = topics.entry(filter.into()).or_default();
                    Arc::make_mut(peers).push(self.own.clone());
                    match at {
                        2 => &[0x90, 3, body[0], body[1], 0],
                        _ => &[0x90, 4, body[0], body[1], 0, 0],
                    }
                }
                12 => &[0xd0, 0],
                _ => &[],
            };
            self.own.lock().bytes.extend_from_slice(answer);
        }
        for peer in woken {
            if let Some(waker) = peer.lock().waker.take() {
                waker.wake();
            }
        }
        self.buffer.copy_within(from..len, 0);
        self.kept = len - from;
        if self.kept == self.buffer.len() {
            self.buffer.resize(self.kept * 2, 0);
        }
        Ok(())
    }
}

/// How long the frame is that `bytes` begins with, if it is whole.
fn frame_len(bytes: &[u8]) -> Option<usize> {
    let digits = bytes.get(1..)?.iter().position(|byte| *byte < 0x80)? + 1;
    let len = 1 + digits + remaining_len(bytes);
    (bytes.len() >= len).then_some(len)
}

/// The Remaining Length of a frame, whose length is whole.
fn remaining_len(frame: &[u8]) -> usize {
    let mut len = 0;
    for (at, byte) in frame[1..].iter().enumerate() {
        len |= usize::from(byte & 0x7f) << (7 * at);
        if *byte < 0x80 {
            break;
        }
    }
    len
}
