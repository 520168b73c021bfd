//! Clients that come to be let in, and then go or stay: each by itself, so that
//! one that is turned away ends nothing.
//!
//! Owns connections until they are let in, and after. Who comes, and comes
//! again, is decided by who dials.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use super::frame::{DISCONNECT, Frame, Scanner};
use super::net::{Sources, Target, explain};
use super::wire::{Input, Secure, Wire, is_closed};
use crate::cli::tls;
use crate::protocol::{self, Packet, ReasonCode, Version};

/// What has become of a client's connection.
#[derive(Debug)]
pub enum Event {
    /// It is let in, so long after it has begun to connect.
    Admitted {
        after: Duration,
        session_present: bool,
        /// A session of TLS from before.
        resumed: bool,
    },
    /// It is not let in now, and may come again; why.
    TurnedAway(String),
    /// It has said goodbye, and the broker has closed.
    Gone,
}

/// What clients do that are let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Send DISCONNECT, and wait for the broker to close: so no port of theirs
    /// rests (TIME_WAIT), but one of the broker's, which needs none.
    Leave,
    Stay,
}

/// The connections of one thread.
pub struct Dialer<'a> {
    target: &'a Target,
    then: Then,
    poll: Poll,
    events: Events,
    dials: Slab<Dial>,
    input: Input,
    sources: Sources,
}

struct Dial {
    /// Whose connection it is, as it was told.
    client: usize,
    wire: Wire,
    scanner: Scanner,
    since: Instant,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Waits for CONNACK.
    Asking,
    In,
    /// Waits for the broker to close.
    Leaving,
}

/// What ends a connection.
enum End {
    Closed,
    TurnedAway(String),
}

impl<'a> Dialer<'a> {
    pub fn new(target: &'a Target, then: Then) -> Result<Dialer<'a>, String> {
        Ok(Dialer {
            target,
            then,
            poll: Poll::new().map_err(|error| format!("cannot poll sockets: {error}"))?,
            events: Events::with_capacity(1024),
            dials: Slab::new(),
            input: Input::new(),
            sources: Sources::new(0),
        })
    }

    /// Begins to connect; what comes of it is appended to `out`, now or by
    /// [`Dialer::poll`]. `client`: what those events are to name. `connect`: its
    /// CONNECT.
    ///
    /// # Errors
    /// This machine's, which are no answer of the broker.
    pub fn dial(
        &mut self,
        client: usize,
        connect: &[u8],
        secure: Option<&Secure>,
        out: &mut Vec<(usize, Event)>,
    ) -> Result<(), String> {
        let address = self.target.address;
        let failed = |error: &io::Error| format!("cannot connect to {address}: {error}");
        let since = Instant::now();
        let socket = match self.sources.connect(address) {
            Ok(socket) => socket,
            Err(error) if is_turning_away(&error) => {
                out.push((client, Event::TurnedAway(failed(&error))));
                return Ok(());
            }
            Err(error) => return Err(failed(&error)),
        };
        let mut wire = Wire::new(socket, secure)?;
        wire.queue(connect).map_err(|error| failed(&error))?;
        let entry = self.dials.vacant_entry();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        let registered = registry.register(wire.socket(), Token(entry.key()), interest);
        registered.map_err(|error| format!("cannot poll sockets: {error}"))?;
        entry.insert(Dial {
            client,
            wire,
            scanner: Scanner::default(),
            since,
            stage: Stage::Asking,
        });
        Ok(())
    }

    /// Waits for what comes until `timeout`; what has become of clients by it is
    /// appended to `out`.
    ///
    /// # Errors
    /// The broker refuses a client for good, loses one that is in, or sends what
    /// is no MQTT.
    pub fn poll(&mut self, timeout: Duration, out: &mut Vec<(usize, Event)>) -> Result<(), String> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            result => result.map_err(|error| format!("cannot poll sockets: {error}"))?,
        }
        for event in &self.events {
            let Token(key) = event.token();
            let dial = &mut self.dials[key];
            let mut end = None;
            if event.is_writable() && dial.wire.pending_bytes() > 0 {
                end = match dial.wire.flush(false) {
                    Ok(()) => None,
                    Err(error) => Some(dial.end(&error, self.target)?),
                };
            }
            if end.is_none() && (event.is_readable() || event.is_error()) {
                end = dial.read(&mut self.input, self.target, self.then, out)?;
            }
            let Some(end) = end else { continue };
            let what = match end {
                End::Closed => Event::Gone,
                End::TurnedAway(why) => Event::TurnedAway(why),
            };
            out.push((dial.client, what));
            self.dials.remove(key);
            self.sources.release();
        }
        Ok(())
    }
}

impl Dial {
    /// Reads all that there is.
    fn read(
        &mut self,
        input: &mut Input,
        target: &Target,
        then: Then,
        out: &mut Vec<(usize, Event)>,
    ) -> Result<Option<End>, String> {
        loop {
            let arrived = match self.wire.read(input) {
                Ok(arrived) => arrived,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return self.end(&error, target).map(Some),
            };
            let mut answer = None;
            let is_asking = self.stage == Stage::Asking;
            let properties = target.version == Version::V5;
            self.scanner.scan(arrived.bytes, properties, |frame| {
                if is_asking && answer.is_none() {
                    answer = Some(Answer::of(&frame, target.version)?);
                }
                Ok(())
            })?;
            match answer {
                None => {}
                Some(Answer::No(why)) => return Ok(Some(End::TurnedAway(why))),
                Some(Answer::Yes { session_present }) => {
                    let admitted = Event::Admitted {
                        after: self.since.elapsed(),
                        session_present,
                        resumed: self.wire.is_resumed(),
                    };
                    out.push((self.client, admitted));
                    self.stage = Stage::In;
                    if then == Then::Leave {
                        self.stage = Stage::Leaving;
                        let left = self.wire.write(&DISCONNECT);
                        if let Err(error) = left.and_then(|()| self.wire.end()) {
                            return self.end(&error, target).map(Some);
                        }
                    }
                }
            }
        }
    }

    /// What it means that a socket has failed, or is closed.
    fn end(&self, error: &io::Error, target: &Target) -> Result<End, String> {
        let address = target.address;
        let why = match tls::explain(error) {
            Some(why) => return Err(format!("the broker at {address}: {why}")),
            None if is_closed(error) => "it closed the connection".to_owned(),
            None => error.to_string(),
        };
        match self.stage {
            Stage::Leaving => Ok(End::Closed),
            Stage::Asking if is_turning_away(error) => Ok(End::TurnedAway(format!(
                "the broker at {address} does not let a client in: {why}"
            ))),
            _ => Err(format!("the broker at {address} lost a client: {why}")),
        }
    }
}

/// What the broker says to a CONNECT.
enum Answer {
    Yes { session_present: bool },
    No(String),
}

impl Answer {
    /// # Errors
    /// It refuses for good, or does not answer.
    fn of(frame: &Frame<'_>, version: Version) -> Result<Answer, String> {
        let decoded = match frame {
            Frame::Other(packet) => protocol::decode(packet, version, usize::MAX),
            frame => return Err(format!("the broker answered CONNECT with {frame:?}")),
        };
        let connack = match decoded {
            Ok(Some((Packet::Connack(connack), _))) => connack,
            Ok(other) => return Err(format!("the broker answered CONNECT with {other:?}")),
            Err(error) => return Err(format!("the broker sent a malformed packet: {error}")),
        };
        let why = || {
            let why = explain(connack.reason, connack.properties);
            format!("the broker refused a client: {why}")
        };
        match connack.reason {
            ReasonCode::Success => Ok(Answer::Yes {
                session_present: connack.session_present,
            }),
            ReasonCode::ServerUnavailable
            | ReasonCode::ServerBusy
            | ReasonCode::QuotaExceeded
            | ReasonCode::ConnectionRateExceeded => Ok(Answer::No(why())),
            _ => Err(why()),
        }
    }
}

/// Whether a broker, or the network before it, says by this that it does not
/// take anybody in now.
fn is_turning_away(error: &io::Error) -> bool {
    is_closed(error)
        || matches!(
            error.kind(),
            ErrorKind::ConnectionRefused | ErrorKind::TimedOut
        )
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::super::net::Client;
    use super::super::tests::job;
    use super::*;
    use crate::message::Qos;

    /// What becomes of one client that is answered so, for its first two events.
    fn dialed(then: Then, answer: &'static [u8]) -> Result<Vec<Event>, String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let line = format!("connect --address {}", listener.local_addr().unwrap());
        let target = job(&line).unwrap().target;
        let broker = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut head = [0; 2];
            socket.read_exact(&mut head).unwrap();
            let mut rest = vec![0; head[1].into()];
            socket.read_exact(&mut rest).unwrap();
            socket.write_all(answer).unwrap();
            let mut goodbye = Vec::new();
            if then == Then::Leave && answer.get(3) == Some(&0) {
                goodbye = vec![0; 2];
                socket.read_exact(&mut goodbye).unwrap();
            }
            // Whose client stays is open until it has been looked at.
            (goodbye, (then == Then::Stay).then_some(socket))
        });
        let client = Client {
            id: "c".into(),
            clean: true,
            filters: Vec::new(),
            qos: Qos::AtMostOnce,
        };
        let mut connect = Vec::new();
        target.append_connect(&client, &mut connect);
        let mut dialer = Dialer::new(&target, then).unwrap();
        let mut seen = Vec::new();
        dialer.dial(7, &connect, None, &mut seen)?;
        loop {
            let is_over = match seen.last() {
                Some((_, Event::TurnedAway(_) | Event::Gone)) => true,
                Some((_, Event::Admitted { .. })) => then == Then::Stay,
                None => false,
            };
            if is_over {
                break;
            }
            dialer.poll(Duration::from_millis(10), &mut seen)?;
        }
        if let Some((_, Event::Gone)) = seen.last() {
            assert_eq!(broker.join().unwrap().0, DISCONNECT);
        }
        assert!(seen.iter().all(|(client, _)| *client == 7));
        Ok(seen.into_iter().map(|(_, event)| event).collect())
    }

    #[test]
    fn who_is_let_in_goes_or_stays() {
        let accepted = &[0x20, 3, 1, 0, 0];
        let seen = dialed(Then::Leave, accepted).unwrap();
        assert!(
            matches!(
                seen[..],
                [
                    Event::Admitted {
                        session_present: true,
                        resumed: false,
                        ..
                    },
                    Event::Gone
                ]
            ),
            "{seen:?}"
        );
        let seen = dialed(Then::Stay, accepted).unwrap();
        assert!(matches!(seen[..], [Event::Admitted { .. }]), "{seen:?}");
    }

    #[test]
    fn who_is_not_let_in_may_come_again_or_not() {
        for (answer, expected) in [
            (&[][..], Ok("it closed the connection")),
            (&[0x20, 3, 0, 0x89, 0], Ok("server busy (0x89)")),
            (&[0x20, 3, 0, 0x9F, 0], Ok("connection rate exceeded")),
            (&[0x20, 3, 0, 0x87, 0], Err("not authorized (0x87)")),
            (&[0xD0, 0], Err("answered CONNECT with Some((Pingresp")),
        ] {
            match (dialed(Then::Leave, answer), expected) {
                (Ok(seen), Ok(words)) => {
                    let [Event::TurnedAway(why)] = &seen[..] else {
                        panic!("{answer:?}: {seen:?}");
                    };
                    assert!(why.contains(words), "{why}");
                }
                (Err(why), Err(words)) => assert!(why.contains(words), "{why}"),
                (seen, _) => panic!("{answer:?}: {seen:?}"),
            }
        }
    }

    #[test]
    fn nobody_who_listens_is_a_reason_to_come_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let line = format!("connect --address {}", listener.local_addr().unwrap());
        drop(listener);
        let target = job(&line).unwrap().target;
        let mut dialer = Dialer::new(&target, Then::Stay).unwrap();
        let mut seen = Vec::new();
        dialer.dial(0, &[], None, &mut seen).unwrap();
        while seen.is_empty() {
            dialer.poll(Duration::from_millis(10), &mut seen).unwrap();
        }
        assert!(matches!(seen[..], [(0, Event::TurnedAway(_))]), "{seen:?}");
    }
}
