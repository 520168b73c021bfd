//! MQTT over WebSocket (MQTT 5 and 3.1.1, section 6): a stream of MQTT's bytes
//! on a stream of frames.
//!
//! Owns the upgrade, the answers to Ping and Close, and what it takes to end
//! as the protocol wants. Reading a frame is [`frames`]', the request's rules
//! are [`upgrade`]'s. Frames are read into the reader's own buffer and written
//! from the writer's own pieces: a connection that is idle has no buffer here.

pub mod frames;
pub mod upgrade;

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Instant;

use super::handshake::refuse;
use crate::config::WebSocketSettings;
use frames::{CloseCode, Control, Frames, Head, Opcode};
use upgrade::{HEAD_BYTES_MAX, Refusal, Upgrade, head_len, upgrade};

/// Payload of a frame that is sent; more goes into several.
const FRAME_BYTES_MAX: usize = 64 << 10;
/// What a packet has before its Remaining Length begins to count.
const FIXED_HEADER_BYTES: usize = 5;
/// Pieces in one write, a frame's head included.
const PIECES_MAX: usize = 65;
/// Control frames that a client may send at once, and how often one more:
/// nobody alive needs more, and each is work that no limit of MQTT counts.
const CONTROLS_MAX: u32 = 32;
const CONTROL_INTERVAL: Duration = Duration::from_secs(1);

/// A connection after its upgrade, as a stream of MQTT.
///
/// Whoever writes to it offers bytes that were not taken again before others,
/// as a frame's length is said before its payload.
pub struct WebSocket<S> {
    stream: S,
    frames: Frames,
    // What came with the request, and was not looked at yet.
    begun: Vec<u8>,
    // The head of the frame that is being written, what of it is written, and
    // what of the payload is not.
    head: Head,
    head_done: usize,
    payload_left: usize,
    // The frame that goes out next: an answer to a Ping, or the last one.
    answer: Vec<u8>,
    answer_done: usize,
    // A Pong that waits for it: that of the last Ping (5.5.3).
    pong: Option<Vec<u8>>,
    is_closing: bool,
    // Control frames that may come until one is earned again.
    controls_left: u32,
    controls_since: Instant,
}

/// Waits for the upgrade and grants it, if it is as `settings` has it; and
/// whether a page in a browser asks.
///
/// `packet_bytes_max`: of what may come before [`WebSocket::set_packet_bytes_max`].
///
/// # Errors
/// The client is gone, or has been refused and told why.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    settings: &WebSocketSettings,
    packet_bytes_max: usize,
) -> io::Result<(WebSocket<S>, bool)> {
    let mut bytes = Vec::with_capacity(1024);
    let answered = match read_head(&mut stream, &mut bytes).await? {
        Ok(len) => upgrade(&bytes[..len], settings).map(|upgrade| (upgrade, len)),
        Err(refusal) => Err(refusal),
    };
    let (
        Upgrade {
            answer, of_browser, ..
        },
        len,
    ) = match answered {
        Ok(granted) => granted,
        Err(refusal) => {
            refuse(&mut stream, refusal.answer().as_bytes()).await;
            let what = format!("{}: {}", refusal.status, refusal.why);
            return Err(io::Error::new(ErrorKind::InvalidData, what));
        }
    };
    stream.write_all(answer.as_bytes()).await?;
    stream.flush().await?;
    let begun = bytes.split_off(len);
    Ok((WebSocket::new(stream, begun, packet_bytes_max), of_browser))
}

/// Reads a request's head; its length, of the bytes that were read.
async fn read_head<S: AsyncRead + Unpin>(
    stream: &mut S,
    bytes: &mut Vec<u8>,
) -> io::Result<Result<usize, Refusal>> {
    let mut seen = 0;
    loop {
        if let Some(len) = head_len(bytes, seen) {
            return Ok(match len {
                0..=HEAD_BYTES_MAX => Ok(len),
                _ => Err(Refusal::too_long()),
            });
        }
        // Who speaks something else would be waited for in vain.
        if bytes.first().is_some_and(|byte| !byte.is_ascii_uppercase()) {
            return Ok(Err(Refusal::no_http()));
        }
        if bytes.len() >= HEAD_BYTES_MAX {
            return Ok(Err(Refusal::too_long()));
        }
        seen = bytes.len();
        if stream.read_buf(bytes).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}

impl<S> WebSocket<S> {
    /// After the upgrade; `begun` is what came behind the request.
    pub fn new(stream: S, begun: Vec<u8>, packet_bytes_max: usize) -> WebSocket<S> {
        WebSocket {
            stream,
            frames: Frames::new(packet_bytes_max + FIXED_HEADER_BYTES),
            begun,
            head: Head::default(),
            head_done: 0,
            payload_left: 0,
            answer: Vec::new(),
            answer_done: 0,
            pong: None,
            is_closing: false,
            controls_left: CONTROLS_MAX,
            controls_since: Instant::now(),
        }
    }

    /// Frames and messages may be as long as such a packet.
    pub fn set_packet_bytes_max(&mut self, packet_bytes_max: usize) {
        self.frames
            .set_payload_bytes_max(packet_bytes_max + FIXED_HEADER_BYTES);
    }

    /// Why nothing more is read: the code that the client is closed with.
    pub fn end(&self) -> Option<CloseCode> {
        self.frames.end()
    }

    /// Takes what has been read; how much of it is MQTT's.
    fn decode(&mut self, bytes: &mut [u8]) -> usize {
        let (left, since) = (&mut self.controls_left, &mut self.controls_since);
        let pong = &mut self.pong;
        self.frames.decode(bytes, |control| {
            if *left == 0 {
                let earned = since.elapsed().as_secs() / CONTROL_INTERVAL.as_secs();
                *left = u32::try_from(earned).unwrap_or(u32::MAX).min(CONTROLS_MAX);
                *since = Instant::now();
            }
            *left = left.checked_sub(1).ok_or(CloseCode::POLICY)?;
            if let Control::Ping(payload) = control {
                *pong = Some(payload.to_vec());
            }
            Ok(())
        })
    }
}

impl<S: AsyncWrite + Unpin> WebSocket<S> {
    /// Writes what answers the client's control frames, unless another frame
    /// is not at its end.
    fn poll_answers(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.payload_left == 0 {
            if self.answer_done == self.answer.len() {
                self.answer_done = 0;
                self.answer.clear();
                let Some(pong) = self.pong.take() else {
                    self.answer = Vec::new(); // idle connections own no buffer
                    return Poll::Ready(Ok(()));
                };
                self.put(Opcode::Pong, &pong);
            }
            let rest = &self.answer[self.answer_done..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                count => self.answer_done += count,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// A control frame goes out after the one that does.
    fn put(&mut self, opcode: Opcode, payload: &[u8]) {
        self.answer
            .extend_from_slice(Head::new(opcode, payload.len()).as_bytes());
        self.answer.extend_from_slice(payload);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    /// The end of the stream is the client's Close frame; an error is one of
    /// the client's too.
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match this.frames.end() {
                // What still comes means nothing, but closing with it unread
                // would reset the connection.
                _ if this.is_closing => {}
                None => {}
                Some(CloseCode::NORMAL) => return Poll::Ready(Ok(())),
                Some(CloseCode(code)) => {
                    let what = format!("closed with {code}");
                    return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, what)));
                }
            }
            let free = buffer.initialize_unfilled();
            let read = if this.begun.is_empty() {
                let mut free = ReadBuf::new(free);
                ready!(Pin::new(&mut this.stream).poll_read(cx, &mut free))?;
                free.filled().len()
            } else {
                let mut begun = std::mem::take(&mut this.begun);
                let count = free.len().min(begun.len());
                this.begun = begun.split_off(count);
                free[..count].copy_from_slice(&begun);
                count
            };
            if read == 0 {
                return Poll::Ready(Ok(()));
            }
            let count = this.decode(&mut free[..read]);
            buffer.advance(count);
            // If it takes longer, whoever flushes next goes on with it.
            if let Poll::Ready(Err(error)) = this.poll_answers(cx) {
                return Poll::Ready(Err(error));
            }
            if count > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        offered: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let offered_len: usize = offered.iter().map(|piece| piece.len()).sum();
        if offered_len == 0 {
            return Poll::Ready(Ok(0));
        }
        if this.payload_left == 0 {
            ready!(this.poll_answers(cx))?;
            this.payload_left = offered_len.min(FRAME_BYTES_MAX);
            this.head = Head::new(Opcode::Binary, this.payload_left); // [MQTT-6.0.0-1]
            this.head_done = 0;
        }
        loop {
            let head = &this.head.as_bytes()[this.head_done..];
            let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
            pieces[0] = IoSlice::new(head);
            let mut left = this.payload_left;
            let mut count = 1;
            for (place, piece) in pieces[1..].iter_mut().zip(offered) {
                let len = piece.len().min(left);
                *place = IoSlice::new(&piece[..len]);
                left -= len;
                count += 1;
                if left == 0 {
                    break;
                }
            }
            let pieces = &pieces[usize::from(head.is_empty())..count];
            let stream = Pin::new(&mut this.stream);
            let written = ready!(stream.poll_write_vectored(cx, pieces))?;
            if written == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            let of_head = written.min(head.len());
            this.head_done += of_head;
            if written > of_head {
                this.payload_left -= written - of_head;
                return Poll::Ready(Ok(written - of_head));
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_answers(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    /// Says Close, unless a frame is not whole: the client sees a lost
    /// connection then.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.is_closing, true) {
            this.pong = None;
            let code = this.frames.end().unwrap_or(CloseCode::NORMAL);
            this.frames.stop(code);
            this.put(Opcode::Close, &code.0.to_be_bytes());
        }
        ready!(this.poll_answers(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A transport that takes a few bytes at a time: frames stay whole, and the
    /// answers to Pings stand between them.
    #[tokio::test]
    async fn a_narrow_transport_gets_whole_frames() {
        const BYTES: usize = 300_000;
        for width in [1, 5, 64, 4096] {
            let (broker, client) = tokio::io::duplex(width);
            let (mut from_broker, mut to_broker) = tokio::io::split(client);
            let websocket = WebSocket::new(broker, Vec::new(), 1 << 20);
            let (mut reader, mut writer) = tokio::io::split(websocket);
            let sent: Vec<u8> = (0..BYTES).map(|number| number as u8).collect();
            let pings = async {
                for _ in 0..CONTROLS_MAX {
                    to_broker.write_all(b"\x89\x81\0\0\0\0?").await.unwrap();
                    tokio::task::yield_now().await;
                }
                to_broker.write_all(b"\x82\x81\0\0\0\0!").await.unwrap();
            };
            let read = async {
                let mut read = [0; 8];
                assert_eq!(reader.read(&mut read).await.unwrap(), 1);
                assert_eq!(read[0], b'!');
            };
            let write = async {
                let (first, second) = sent.split_at(BYTES / 3);
                writer.write_all(first).await.unwrap();
                writer.write_all(second).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            let mut raw = Vec::new();
            let receive = from_broker.read_to_end(&mut raw);
            let (_, _, _, received) = tokio::join!(pings, read, write, receive);
            received.unwrap();
            let mut payload = Vec::new();
            let mut rest = &raw[..];
            let mut opcodes = Vec::new();
            while let [first, second, after @ ..] = rest {
                let (len, after) = match (*second, after) {
                    (126, [high, low, after @ ..]) => {
                        (u16::from_be_bytes([*high, *low]).into(), after)
                    }
                    (127, after) => {
                        let (long, after) = after.split_first_chunk().unwrap();
                        (u64::from_be_bytes(*long) as usize, after)
                    }
                    (len, after) => (usize::from(len), after),
                };
                opcodes.push(*first);
                if *first == 0x82 {
                    payload.extend_from_slice(&after[..len]);
                }
                rest = &after[len..];
            }
            assert!(payload == sent, "{width}");
            assert_eq!(opcodes.last(), Some(&0x88));
            assert!(opcodes.contains(&0x8A), "{width}: {opcodes:?}");
        }
    }
}
