//! Frames of WebSocket (RFC 6455, 5) as a server sees them, pure: bytes in,
//! the bytes of data frames out.
//!
//! Owns what a client may send, and where in a frame it is. MQTT asks for no
//! messages, only for the bytes of binary frames, whatever their borders
//! \[MQTT-6.0.0-2\]; so nothing is ever collected, and payload is unmasked where
//! it lies.

/// Of a control frame's payload.
const CONTROL_BYTES_MAX: u8 = 125;
/// Two bytes, the longest length, and a mask.
const HEAD_BYTES_MAX: usize = 14;
/// Two bytes and the longest length: a server masks nothing.
const OWN_HEAD_BYTES_MAX: usize = 10;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// What a frame carries: its opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Continuation = 0,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// The code of a Close frame (7.4.1): why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCode(pub u16);

impl CloseCode {
    pub const NORMAL: CloseCode = CloseCode(1000);
    pub const PROTOCOL_ERROR: CloseCode = CloseCode(1002);
    /// Text, which MQTT has no use for.
    pub const UNSUPPORTED: CloseCode = CloseCode(1003);
    pub const NOT_UTF8: CloseCode = CloseCode(1007);
    pub const POLICY: CloseCode = CloseCode(1008);
    pub const TOO_BIG: CloseCode = CloseCode(1009);

    /// Whether a client may say it.
    fn may_be_sent(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

/// What came beside data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control<'f> {
    /// To be answered by a Pong of the same payload.
    Ping(&'f [u8]),
    Pong,
}

/// Reads a client's frames.
#[derive(Debug)]
pub struct Frames {
    // Of a message: all of its frames together.
    payload_bytes_max: u64,
    head: [u8; HEAD_BYTES_MAX],
    head_len: u8,
    // The frame whose head is whole: `None`, a head comes next.
    frame: Option<Frame>,
    // Of the message that is not at its end yet.
    message: Option<u64>,
    control: [u8; CONTROL_BYTES_MAX as usize],
    end: Option<CloseCode>,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    is_final: bool,
    len: u64,
    done: u64,
    mask: [u8; 4],
}

impl Frames {
    /// `payload_bytes_max`: of a frame, and of a message.
    pub fn new(payload_bytes_max: usize) -> Frames {
        Frames {
            payload_bytes_max: payload_bytes_max as u64,
            head: [0; HEAD_BYTES_MAX],
            head_len: 0,
            frame: None,
            message: None,
            control: [0; CONTROL_BYTES_MAX as usize],
            end: None,
        }
    }

    /// From the next frame on.
    pub fn set_payload_bytes_max(&mut self, payload_bytes_max: usize) {
        self.payload_bytes_max = payload_bytes_max as u64;
    }

    /// Why nothing more is read: a Close frame came, or something that must
    /// not; the code is the one to close with.
    pub fn end(&self) -> Option<CloseCode> {
        self.end
    }

    /// Ends the reading.
    pub fn stop(&mut self, code: CloseCode) {
        self.end.get_or_insert(code);
    }

    /// Takes all of `bytes`, and puts what they have of data at their
    /// beginning; how many bytes that is. Control frames go to `control`,
    /// which ends the reading by an error.
    pub fn decode(
        &mut self,
        bytes: &mut [u8],
        mut control: impl FnMut(Control<'_>) -> Result<(), CloseCode>,
    ) -> usize {
        let (mut from, mut to) = (0, 0);
        while from < bytes.len() && self.end.is_none() {
            let step = match self.frame {
                None => {
                    from += 1;
                    self.read_head(bytes[from - 1])
                }
                Some(frame) => {
                    let left = usize::try_from(frame.len - frame.done).unwrap_or(usize::MAX);
                    let until = bytes.len().min(from.saturating_add(left));
                    to += self.read_payload(bytes, from..until, to);
                    from = until;
                    Ok(())
                }
            };
            if let Err(code) = step.and_then(|()| self.finish_frame(&mut control)) {
                self.end = Some(code);
            }
        }
        to
    }

    /// The next byte of a head.
    fn read_head(&mut self, byte: u8) -> Result<(), CloseCode> {
        let at = usize::from(self.head_len);
        self.head[at] = byte;
        self.head_len += 1;
        // What a byte says is looked at before the next has come.
        let [first, second, ..] = self.head;
        let opcode = self.check_first(first)?;
        if at == 0 {
            return Ok(());
        }
        if second & MASKED == 0 {
            return Err(CloseCode::PROTOCOL_ERROR); // (5.1)
        }
        let is_control = opcode as u8 >= Opcode::Close as u8;
        let (len_bytes, short) = match second & !MASKED {
            126 => (2, 0),
            127 => (8, 0),
            len => (0, len),
        };
        if is_control && (len_bytes > 0 || first & FIN == 0) {
            return Err(CloseCode::PROTOCOL_ERROR); // (5.5)
        }
        let mask_at = 2 + len_bytes;
        if usize::from(self.head_len) < mask_at + 4 {
            return Ok(());
        }
        let long = self.head[2..mask_at].iter();
        let len = long.fold(u64::from(short), |len, byte| len << 8 | u64::from(*byte));
        if !is_control {
            let message = self.message.unwrap_or(0).saturating_add(len);
            if message > self.payload_bytes_max {
                return Err(CloseCode::TOO_BIG);
            }
            self.message = Some(message);
        }
        let mut mask = [0; 4];
        mask.copy_from_slice(&self.head[mask_at..mask_at + 4]);
        self.head_len = 0;
        self.frame = Some(Frame {
            opcode,
            is_final: first & FIN != 0,
            len,
            done: 0,
            mask,
        });
        Ok(())
    }

    fn check_first(&self, first: u8) -> Result<Opcode, CloseCode> {
        let opcode = match first & 0xF {
            0 => Opcode::Continuation,
            1 => return Err(CloseCode::UNSUPPORTED), // [MQTT-6.0.0-1]
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return Err(CloseCode::PROTOCOL_ERROR),
        };
        let is_in_turn = match opcode {
            Opcode::Continuation => self.message.is_some(),
            Opcode::Binary => self.message.is_none(),
            _ => true,
        };
        match is_in_turn && first & RESERVED == 0 {
            true => Ok(opcode),
            false => Err(CloseCode::PROTOCOL_ERROR),
        }
    }

    /// Unmasks payload of the frame (5.3), and moves it to `to` if it is data;
    /// how much of that there is.
    fn read_payload(
        &mut self,
        bytes: &mut [u8],
        range: std::ops::Range<usize>,
        to: usize,
    ) -> usize {
        let Some(frame) = &mut self.frame else {
            return 0;
        };
        let len = range.len();
        let done = frame.done as usize;
        frame.done += len as u64;
        unmask(&mut bytes[range.clone()], frame.mask, done);
        match frame.opcode {
            Opcode::Continuation | Opcode::Binary => {
                bytes.copy_within(range, to);
                len
            }
            Opcode::Close | Opcode::Ping | Opcode::Pong => {
                self.control[done..done + len].copy_from_slice(&bytes[range]);
                0
            }
        }
    }

    /// If the frame is whole.
    fn finish_frame(
        &mut self,
        control: &mut impl FnMut(Control<'_>) -> Result<(), CloseCode>,
    ) -> Result<(), CloseCode> {
        let Some(frame) = self.frame.take_if(|frame| frame.done == frame.len) else {
            return Ok(());
        };
        let payload = &self.control[..(frame.len as usize).min(self.control.len())];
        match frame.opcode {
            Opcode::Continuation | Opcode::Binary => {
                if frame.is_final {
                    self.message = None;
                }
                Ok(())
            }
            Opcode::Ping => control(Control::Ping(payload)),
            Opcode::Pong => control(Control::Pong),
            Opcode::Close => Err(answer_to(payload)),
        }
    }
}

/// The code by which a Close frame is answered (5.5.1).
fn answer_to(payload: &[u8]) -> CloseCode {
    match payload {
        [] => CloseCode::NORMAL,
        [high, low, reason @ ..] => match CloseCode(u16::from_be_bytes([*high, *low])) {
            code if !code.may_be_sent() => CloseCode::PROTOCOL_ERROR,
            _ if std::str::from_utf8(reason).is_err() => CloseCode::NOT_UTF8,
            code => code,
        },
        [_] => CloseCode::PROTOCOL_ERROR,
    }
}

/// `done`: how many bytes of the payload were before these.
fn unmask(bytes: &mut [u8], mut mask: [u8; 4], done: usize) {
    mask.rotate_left(done % 4);
    let (eights, rest) = bytes.as_chunks_mut::<8>();
    let word = u32::from_ne_bytes(mask);
    let words = u64::from(word) << 32 | u64::from(word);
    for eight in eights {
        *eight = (u64::from_ne_bytes(*eight) ^ words).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

/// The head of a frame that is whole in itself, as a server sends it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head {
    bytes: [u8; OWN_HEAD_BYTES_MAX],
    len: u8,
}

impl Head {
    pub fn new(opcode: Opcode, payload_len: usize) -> Head {
        let mut head = Head::default();
        let long = (payload_len as u64).to_be_bytes();
        let (second, long) = match payload_len {
            0..126 => (payload_len as u8, &long[8..]),
            126..65_536 => (126, &long[6..]),
            _ => (127, &long[..]),
        };
        head.bytes[0] = FIN | opcode as u8;
        head.bytes[1] = second;
        head.bytes[2..2 + long.len()].copy_from_slice(long);
        head.len = 2 + long.len() as u8;
        head
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}
