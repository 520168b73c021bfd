//! The rows of [`crate::hostile`], against a broker in one thread.

use serde_json::json;

use crate::hostile::{self, Case, When, cases, smuggled};

use super::*;
use rotamq::protocol::Connack;
use rotamq::session::refusal;

/// A connection of bytes, with which is done what `net` does with them.
#[derive(Default)]
pub(super) struct Bytes {
    /// What has come and is not handled yet.
    came: Vec<u8>,
    client: Option<C>,
    /// What the broker has said, and was not looked at.
    said: Vec<u8>,
    is_closed: bool,
}

impl Bytes {
    /// One read brings this.
    pub fn feed(&mut self, world: &mut World, bytes: &[u8]) {
        if self.is_closed {
            return;
        }
        self.came.extend_from_slice(bytes);
        if self.client.is_none() && !self.open(world) {
            return;
        }
        let client = self.client.expect("it is open");
        let packet_bytes_max = world.core.limits().packet_bytes_max;
        let (done, handled) = world.handle_bytes(client, &self.came, packet_bytes_max);
        self.came.drain(..done);
        world.go_on(client, handled);
        self.listen(world);
    }

    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// The client leaves, if the broker has not closed before.
    pub fn close(self, world: &mut World) {
        if let Some(client) = self.client
            && !self.is_closed
        {
            world.disconnect(client);
        }
    }

    /// Whether the client is let in.
    fn open(&mut self, world: &mut World) -> bool {
        let limits = world.core.limits();
        let bytes_max = limits.connect_packet_bytes_max.min(limits.packet_bytes_max);
        let came = std::mem::take(&mut self.came);
        let refusal = match decode_connect(&came, bytes_max) {
            Ok(None) => {
                self.came = came;
                return false;
            }
            Ok(Some((connect, len))) => match world.let_in(&connect) {
                Ok(client) => {
                    self.client = Some(client);
                    self.came = came[len..].to_vec();
                    return true;
                }
                Err(close) => refusal(&connect, &close, world.core.session_settings()),
            },
            Err(error) => error.connack.map(|version| {
                let connack = Connack {
                    session_present: false,
                    reason: error.reason,
                    properties: Properties::EMPTY,
                };
                let mut bytes = Vec::new();
                encode(&Packet::Connack(connack), version, &mut bytes);
                bytes
            }),
        };
        self.said = refusal.unwrap_or_default();
        self.is_closed = true;
        false
    }

    /// What the broker says reaches the client.
    fn listen(&mut self, world: &mut World) {
        if let Some(client) = self.client {
            self.said.append(&mut world.clients[client.0].stream);
            self.is_closed = !world.is_open(client);
        }
    }
}

/// What the broker has of its clients: sessions, subscriptions, retained
/// messages, queues.
fn state(world: &mut World) -> [usize; 4] {
    let queues = world.steer(json!({"op": "list"}));
    let queues = queues["queues"].as_array().expect("an array").len();
    let core = &world.core;
    [
        core.sessions_len(),
        core.subscriptions_len(),
        core.retained_len(),
        queues,
    ]
}

/// A broker and a pair of clients whom nothing may disturb.
struct Scene {
    world: World,
    singer: C,
    listener: C,
    before: [usize; 4],
    songs: usize,
}

impl Scene {
    fn new(is_stored: bool) -> Scene {
        let mut world = World::new();
        if is_stored {
            world = world.stored(&Twin::new());
        }
        let mut scene = Scene {
            singer: C(0),
            listener: C(0),
            before: [0; 4],
            songs: 0,
            world,
        };
        scene.open();
        scene
    }

    /// The pair comes.
    fn open(&mut self) {
        let world = &mut self.world;
        self.singer = world.connect("singer").go();
        self.listener = world.connect("listener").clean(false).go();
        world.subscribe(self.listener, "canary/#", 1);
        self.before = state(world);
    }

    fn sing(&mut self) {
        self.songs += 1;
        let song = self.songs.to_string();
        self.world.publish(self.singer, "canary", &song, 1);
        assert_eq!(self.world.work(self.listener).payload, song);
        assert_eq!(self.world.receive(self.listener), []);
    }

    /// A connection on which these pieces come, one a read; what is wrong with
    /// what comes of it.
    fn play<'a>(
        &mut self,
        case: &Case,
        version: Version,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Vec<String> {
        let mut complaints = Vec::new();
        let world = &mut self.world;
        let mut bytes = Bytes::default();
        if case.when == When::Later {
            bytes.feed(world, &hostile::connect(version));
            assert!(!bytes.said.is_empty() && !bytes.is_closed);
            bytes.said.clear();
        }
        for piece in pieces {
            bytes.feed(world, piece);
        }
        if bytes.is_closed != case.closes() {
            let what = if case.closes() {
                "stays open"
            } else {
                "is closed"
            };
            complaints.push(format!("{}: it {what}", case.title(version)));
        }
        complaints.extend(case.complaint(version, &bytes.said));
        if !bytes.is_closed {
            let client = bytes.client.expect("a CONNECT");
            if case.expect != hostile::Expect::LetIn {
                assert_eq!(bytes.came, [0_u8; 0], "{}", case.title(version));
            }
            world.disconnect(client);
        }
        let after = state(world);
        if after != self.before {
            let before = self.before;
            complaints.push(format!(
                "{}: {before:?} became {after:?}",
                case.title(version)
            ));
        }
        // Nobody else has a place behind the pair's.
        world.clients.truncate(2);
        let heard = world.receive(self.listener);
        if !heard.is_empty() {
            complaints.push(format!("{}: {heard:?} was heard", case.title(version)));
        }
        complaints
    }
}

/// Where to cut so many bytes in two: everywhere, or at both ends and at some
/// places in between where they are many.
fn cuts(len: usize) -> impl Iterator<Item = usize> {
    const EACH_END: usize = 64;
    let step = (len / 16).max(1);
    (1..len)
        .filter(move |at| len <= 1024 || *at <= EACH_END || len - at <= EACH_END || at % step == 0)
}

/// How the bytes of a row come: one piece is one read.
#[derive(Clone, Copy)]
enum Pieces {
    Whole,
    CutInTwo,
    ByteByByte,
}

fn check(pieces: Pieces) {
    let mut complaints = Vec::new();
    for is_stored in [false, true] {
        let mut scene = Scene::new(is_stored);
        for (case, version) in cases() {
            let mut bytes = case.bytes(version);
            let len = bytes.len();
            if case.closes() {
                bytes.extend(smuggled(version));
            }
            let mut play = |pieces: Vec<&[u8]>| {
                for complaint in scene.play(&case, version, pieces) {
                    if !complaints.contains(&complaint) {
                        complaints.push(complaint);
                    }
                }
            };
            match pieces {
                Pieces::Whole => play(vec![&bytes]),
                Pieces::CutInTwo => {
                    for at in cuts(len) {
                        play(vec![&bytes[..at], &bytes[at..]]);
                    }
                }
                // A megabyte takes as many reads as 64 KiB.
                Pieces::ByteByByte => play(bytes.chunks(len.div_ceil(1 << 16)).collect()),
            }
            scene.sing();
        }
        if is_stored {
            scene.world.restart();
            let left = state(&mut scene.world);
            if left != [1, 1, 0, 0] {
                complaints.push(format!("after a restart there is {left:?}"));
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn hostile_bytes_in_one_read() {
    check(Pieces::Whole);
}

#[test]
fn hostile_bytes_cut_at_every_offset() {
    check(Pieces::CutInTwo);
}

#[test]
fn hostile_bytes_one_by_one() {
    check(Pieces::ByteByByte);
}
