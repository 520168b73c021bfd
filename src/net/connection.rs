//! One connection after its CONNECT: read much, handle all, write once.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::pace::Pace;
use super::worker::{Local, READ_MAX};
use super::{Open, PackedAddress, PeerAddress, Shared, with_worker};
use crate::broker::{Link, Shedding, Stop};
use crate::message::Time;
use crate::protocol::{ReasonCode, decode};
use crate::session::{Close, Exchange, Outbox};

/// Turns before other tasks of the thread get theirs.
const TURNS_MAX: usize = 8;
/// The beginning of a packet, of at most so many bytes, is put before what is
/// read next; a longer one is collected where it is.
const TAIL_COPY_MAX: usize = 16 << 10;
/// Answers that the client has not read, in bytes, after which nothing more is
/// read from it.
const ANSWERS_MAX: usize = 64 << 10;
/// Pieces in one write.
const PIECES_MAX: usize = 64;

/// The connection; as a future, it is done when it is closed.
pub struct Connection<S> {
    stream: S,
    peer: PackedAddress,
    shared: Open,
    // `None` once the session has been left.
    link: Option<Link>,
    // The beginning of a packet whose rest has not come yet.
    tail: Vec<u8>,
    // The tail was not looked at yet: it came with the CONNECT, or is for later.
    fresh: bool,
    // `None`: it goes as fast as it can.
    pace: Option<Box<Pace>>,
    writing: Outbox,
    // Bytes of answers that may not be written yet, and how many of them wait
    // for the store.
    answers_len: u32,
    owed_len: u32,
    // A packet came that the session does not know of yet.
    heard: bool,
    left: Option<Left>,
}

/// What becomes of the output of a connection that has left its session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// It goes out first.
    Writing,
    /// As much has gone out as could at once.
    Written,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// `rest`: what was read with the CONNECT; `pace`: how fast it may go.
    pub fn new(
        stream: S,
        peer: PeerAddress,
        shared: Open,
        link: Link,
        rest: Vec<u8>,
        mut pace: Option<Box<Pace>>,
    ) -> Connection<S> {
        if let Some(pace) = &mut pace {
            pace.note_rest(rest.len());
        }
        Connection {
            stream,
            peer: peer.into(),
            shared,
            link: Some(link),
            fresh: !rest.is_empty(),
            tail: rest,
            pace,
            writing: Outbox::default(),
            answers_len: 0,
            owed_len: 0,
            heard: false,
            left: None,
        }
    }

    /// As much as can be done now. An error: the connection is to be closed.
    fn turn(
        &mut self,
        local: &mut Local,
        shared: &Shared,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Infallible, Stop>> {
        let core = &shared.core;
        let mut now = shared.clock.now();
        for _ in 0..TURNS_MAX {
            let blocked = self.write(local, cx)?.is_pending();
            let mut idle = true;
            let link = self.link.as_ref().expect("it is given up only at the end");
            let was_resuming = link.is_resuming;
            let may_read = !was_resuming && self.may_read();
            let may_read = may_read && !self.delays_reading(now, cx);
            if !may_read && core.store().is_behind() {
                let store = core.store();
                if !store.wake_at(store.next_receipt(), cx.waker()) {
                    idle = false;
                }
            }
            if may_read && self.read(local, cx, &mut now)?.is_ready() {
                idle = false;
                local.worker.effects.wake_all();
                if local.worker.answers.is_empty() {
                    continue; // Nothing to say, and perhaps more to read.
                }
            }
            let link = self.link.as_mut().expect("it is given up only at the end");
            let worker = &mut local.worker;
            // A read brings no more than a few thousand.
            self.answers_len += worker.answers.len() as u32;
            self.owed_len += worker.owed_len() as u32;
            let waker = idle.then_some(cx.waker());
            let heard = std::mem::take(&mut self.heard);
            match core.exchange(worker, link, &mut self.writing, waker, heard, now) {
                Exchange::Closing(close) => {
                    let stop = Stop::from(close);
                    if self.is_due(&stop) {
                        return Poll::Ready(Err(stop));
                    }
                    // What is on its way goes out as fast as it can, or every
                    // stop would last as long as it may; writing is tried again.
                    idle &= self.pace.take().is_none();
                }
                Exchange::Open { retry, backlog } => {
                    idle &= link.is_resuming == was_resuming;
                    if backlog && core.send_backlog(worker, link.session, now) {
                        idle = false;
                    }
                    if retry {
                        idle = false;
                        core.retry_held(worker, link, now)?;
                        if let Some(close) = core.held_too_long(link, now) {
                            return Poll::Ready(Err(Stop::Closed(close)));
                        }
                    }
                }
            }
            worker.effects.wake_all();
            if self.writing.is_empty() {
                worker.effects.recycle(&mut self.writing);
            }
            if idle && (blocked || self.writing.is_empty()) {
                return Poll::Pending;
            }
        }
        // Answers never stay with the worker, whose next turn is another's.
        let link = self.link.as_mut().expect("it is given up only at the end");
        let heard = std::mem::take(&mut self.heard);
        let exchange = core.exchange(&mut local.worker, link, &mut self.writing, None, heard, now);
        if let Exchange::Closing(close) = exchange {
            let stop = Stop::from(close);
            if self.is_due(&stop) {
                return Poll::Ready(Err(stop));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Who does not read its answers, or has too many on their way to the disk,
    /// is not read from; nor is anybody while the disk is far behind.
    fn may_read(&self) -> bool {
        let owed_max = self.shared.core.limits().unacknowledged_in_max;
        self.answers_len as usize <= ANSWERS_MAX
            && self.owed_len as usize <= owed_max
            && !self.shared.core.store().is_behind()
    }

    /// Whether it is read later: it has had its share, or memory is short.
    #[inline]
    fn delays_reading(&mut self, now: Time, cx: &mut Context<'_>) -> bool {
        self.pace.is_some() && self.keeps_pace(now, cx)
    }

    #[inline(never)]
    fn keeps_pace(&mut self, now: Time, cx: &mut Context<'_>) -> bool {
        let Some(pace) = &mut self.pace else {
            return false;
        };
        let shedding = self.shared.core.memory().shedding();
        let delays = pace.delays_reading(&self.shared.clock, now, shedding, cx);
        // What it has sent is not read: it is not to count as silent for that.
        self.heard |= delays;
        if !delays && shedding < Shedding::Publishers && !pace.has_rates() {
            self.pace = None; // There is memory again.
        }
        delays
    }

    /// Whether there is nothing left to do before this end. When the broker
    /// stops, all that was on its way to the client goes out first.
    fn is_due(&self, stop: &Stop) -> bool {
        *stop != Stop::BrokerStops || self.writing.is_empty()
    }

    /// Reads once and handles what came, at a `now` that is later than when it
    /// was sent: counted from an earlier one, a delay would end too early.
    /// Pending: nothing came.
    fn read(
        &mut self,
        local: &mut Local,
        cx: &mut Context<'_>,
        now: &mut Time,
    ) -> Poll<Result<(), Stop>> {
        if std::mem::take(&mut self.fresh) {
            let rest = std::mem::take(&mut self.tail);
            return Poll::Ready(self.handle_collected(local, rest, *now));
        }
        let collecting = self.tail.len() > TAIL_COPY_MAX;
        let kept = if collecting { 0 } else { self.tail.len() };
        let mut buffer = std::mem::take(&mut local.buffer);
        buffer[..kept].copy_from_slice(&self.tail[..kept]);
        let free_max = match &self.pace {
            None => READ_MAX,
            Some(pace) => pace.read_max(*now),
        };
        let end = READ_MAX.min(kept + free_max);
        let mut free = ReadBuf::new(&mut buffer[kept..end]);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut free);
        let count = free.filled().len();
        if count > 0 {
            *now = self.shared.clock.now();
            local.worker.effects.tally.note_read(count);
            if let Some(pace) = &mut self.pace {
                pace.note_read(count, *now, self.shared.core.counters());
            }
        }
        let now = *now;
        let result = match read {
            Poll::Pending => Poll::Pending,
            // The end of the stream, or of the connection.
            Poll::Ready(read) if read.is_err() || count == 0 => Poll::Ready(Err(Stop::Lost)),
            Poll::Ready(_) if collecting => {
                let mut collected = std::mem::take(&mut self.tail);
                collected.extend_from_slice(&buffer[..count]);
                Poll::Ready(self.handle_collected(local, collected, now))
            }
            Poll::Ready(_) => {
                let bytes = &buffer[..kept + count];
                Poll::Ready(self.handle_packets(local, bytes, now).map(|done| {
                    self.tail.clear();
                    match done == bytes.len() {
                        true => self.tail = Vec::new(), // idle connections own no buffer
                        false => self.tail.extend_from_slice(&bytes[done..]),
                    }
                }))
            }
        };
        local.buffer = buffer;
        result
    }

    /// A large packet that is still being collected, or several.
    fn handle_collected(
        &mut self,
        local: &mut Local,
        mut collected: Vec<u8>,
        now: Time,
    ) -> Result<(), Stop> {
        let done = self.handle_packets(local, &collected, now)?;
        if done > 0 {
            collected = collected.split_off(done);
        }
        self.tail = collected;
        Ok(())
    }

    /// Handles whole packets, as many as it may; how many bytes they were.
    fn handle_packets(
        &mut self,
        local: &mut Local,
        bytes: &[u8],
        now: Time,
    ) -> Result<usize, Stop> {
        if self.pace.is_none() && !self.shared.core.memory().is_slowing() {
            return self.handle_all(local, bytes, now);
        }
        let pace = self.pace.get_or_insert_default();
        let end = pace.handled_max(bytes, now);
        let result = self.handle_all(local, &bytes[..end], now);
        // Who says DISCONNECT behind them has to pay for them too.
        let done = *result.as_ref().unwrap_or(&end);
        self.fresh = end < bytes.len();
        let core = &self.shared.core;
        if let Some(pace) = &mut self.pace {
            let (handled, left) = bytes.split_at(done);
            let shedding = core.memory().shedding();
            pace.note_handled(handled, left, shedding, now, core.counters());
        }
        result
    }

    /// Handles all whole packets; how many bytes they were.
    fn handle_all(&mut self, local: &mut Local, bytes: &[u8], now: Time) -> Result<usize, Stop> {
        let core = &self.shared.core;
        let link = self.link.as_mut().expect("it is given up only at the end");
        let packet_bytes_max = link.door.limits.packet_bytes_max;
        let worker = &mut local.worker;
        if core.recordings().is_on() {
            core.record_received(link, self.peer.socket(), bytes, now);
        }
        core.begin_read(worker);
        let mut done = 0;
        // Packets that begin alike, and are not in the tally yet.
        let (mut first_byte, mut alike) = (0, 0);
        let result = loop {
            match decode(&bytes[done..], link.terms.wire, packet_bytes_max) {
                Ok(None) => break Ok(done),
                // Where it lies: to move it costs 16 instructions.
                Ok(Some((ref packet, len))) => {
                    if bytes[done] != first_byte {
                        let tally = &worker.effects.tally;
                        tally.note_received(link.terms.wire, first_byte, alike);
                        (first_byte, alike) = (bytes[done], 0);
                    }
                    alike = alike.wrapping_add(1);
                    done += len;
                    if let Err(stop) = core.handle(worker, link, packet, now) {
                        break Err(stop);
                    }
                }
                Err(error) => break Err(Stop::Closed(Close::new(error.reason, error.what))),
            }
        };
        let tally = &worker.effects.tally;
        tally.note_received(link.terms.wire, first_byte, alike);
        self.heard |= done > 0; // A whole packet, not some bytes [MQTT-3.1.2-22], in 3.1.1 -24.
        link.note_read(done);
        core.end_read(worker, link, now);
        result
    }

    /// Writes what is being written. Pending: the socket takes no more, or what
    /// is next is not stored yet.
    fn write(&mut self, local: &mut Local, cx: &mut Context<'_>) -> Poll<Result<(), Stop>> {
        while !self.writing.is_empty() {
            let store = self.shared.core.store();
            if let Some(receipt) = self.writing.open_gates(|receipt| store.has(receipt)) {
                match store.wake_at(receipt, cx.waker()) {
                    true => return Poll::Pending,
                    false => continue,
                }
            }
            if self.shared.core.recordings().is_on() {
                self.record_sent();
            }
            match ready!(self.write_pieces(cx)) {
                Ok(count) if count > 0 => {
                    local.worker.effects.tally.note_written(count);
                    self.writing.advance(count);
                }
                _ => return Poll::Ready(Err(Stop::Lost)),
            }
        }
        // TLS and WebSocket may hold back what they took.
        if ready!(Pin::new(&mut self.stream).poll_flush(cx)).is_err() {
            return Poll::Ready(Err(Stop::Lost));
        }
        (self.answers_len, self.owed_len) = (0, 0);
        if let Some(since) = self.writing.take_since() {
            local.note_written(since, &self.shared.clock);
        }
        Poll::Ready(Ok(()))
    }

    /// Tells who records what is about to be written.
    #[cold]
    #[inline(never)]
    fn record_sent(&mut self) {
        if let Some(link) = &mut self.link {
            let (core, now) = (&self.shared.core, self.shared.clock.now());
            core.record_sent(link, self.peer.socket(), &mut self.writing, now);
        }
    }

    fn write_pieces(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.pace.is_some() {
            return self.write_piece(cx);
        }
        let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
        let stream = Pin::new(&mut self.stream);
        match self.writing.pieces(&mut pieces) {
            1 => stream.poll_write(cx, &pieces[0]),
            count => stream.poll_write_vectored(cx, &pieces[..count]),
        }
    }

    /// A piece, or as much of it as may go out now.
    #[inline(never)]
    fn write_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let may_read = self.may_read();
        let Some(pace) = &mut self.pace else {
            return Poll::Ready(Ok(0));
        };
        let now = self.shared.clock.now();
        if pace.delays_writing(&self.shared.clock, now, cx) {
            self.heard |= !may_read; // it would be
            return Poll::Pending;
        }
        let mut pieces = [IoSlice::new(&[])];
        self.writing.pieces(&mut pieces);
        let piece = &pieces[0][..pace.write_max(&pieces[0], now)];
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, piece));
        if let Ok(count) = written {
            pace.note_written(&piece[..count], now, self.shared.core.counters());
        }
        Poll::Ready(written)
    }

    /// Leaves the session. What there is to say goes out first, as far as
    /// that needs no waiting.
    fn leave(&mut self, local: &mut Local, stop: &Stop, cx: &mut Context<'_>) {
        let Some(mut link) = self.link.take() else {
            return;
        };
        // What there is to say is not put off.
        self.pace = None;
        let (core, now) = (&self.shared.core, self.shared.clock.now());
        match stop {
            Stop::Closed(close) => {
                let client = &link.identity.client;
                tracing::info!(?client, peer = %self.peer, reason = ?close.reason, why = %close.why, "closed");
            }
            stop => {
                tracing::debug!(client = ?link.identity.client, peer = %self.peer, ?stop, "closed")
            }
        }
        let worker = &mut local.worker;
        match stop {
            // What is in the outbox was never written: its jobs are somebody else's.
            Stop::Lost => worker.drop_answers(),
            // What was handled before the end is answered.
            _ => drop(core.exchange(worker, &mut link, &mut self.writing, None, false, now)),
        }
        if *stop != Stop::BrokerStops {
            // Whoever waits for the rest asks again on another connection.
            let store = core.store();
            self.writing.open_gates(|receipt| store.has(receipt));
            self.writing.drop_gated();
        }
        if let Some(close) = link.last_word(stop) {
            let (terms, settings) = (&link.terms, core.session_settings());
            // The last packet of the connection [MQTT-3.14.4-1].
            let tally = &local.worker.effects.tally;
            self.writing.append(|out| {
                let from = out.len();
                terms.disconnect(&close, settings, out);
                tally.note_answers(terms.wire, &out[from..]);
            });
        }
        if core.recordings().is_on() && !matches!(stop, Stop::Lost) {
            core.record_sent(&mut link, self.peer.socket(), &mut self.writing, now);
        }
        core.disconnect(&mut local.worker, link, stop, now);
        if !matches!(stop, Stop::Lost) && self.write(local, cx).is_pending() {
            tracing::debug!(peer = %self.peer, "not all that was on its way to the client could be written");
        }
    }

    /// After the session: the socket. A client that is not to blame for the
    /// end gets what was on its way.
    fn finish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let waits = self.left == Some(Left::Writing);
        if waits {
            let shared = self.shared.clone();
            if ready!(with_worker(&shared, |local| self.write(local, cx))).is_err() {
                return Poll::Ready(());
            }
        }
        match Pin::new(&mut self.stream).poll_shutdown(cx) {
            Poll::Pending if waits => return Poll::Pending,
            // Who does not read is not told that TLS or WebSocket end.
            Poll::Pending | Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => {
                tracing::trace!(peer = %self.peer, "the client was gone already")
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Connection<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.left.is_none() {
            let shared = this.shared.clone();
            let left = with_worker(&shared, |local| {
                let Err(stop) = ready!(this.turn(local, &shared, cx));
                this.leave(local, &stop, cx);
                Poll::Ready(match stop {
                    Stop::BrokerStops => Left::Writing,
                    _ => Left::Written,
                })
            });
            this.left = Some(ready!(left));
        }
        this.finish(cx)
    }
}

/// A task that is dropped, as the runtime does when it stops, leaves its
/// session all the same.
impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            let shared = self.shared.clone();
            let stop = Stop::Closed(Close::new(
                ReasonCode::UnspecifiedError,
                "the connection's task ended",
            ));
            with_worker(&shared, |local| {
                shared
                    .core
                    .disconnect(&mut local.worker, link, &stop, shared.clock.now());
            });
        }
    }
}
