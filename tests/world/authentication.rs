//! Enhanced authentication (MQTT 5, 4.12), by a method that only tests have:
//! the client has to say the question backwards.

use std::sync::Mutex;

use super::*;
use rotamq::authentication::{Conversation, Method, Step};
use rotamq::broker::Authentication;
use rotamq::protocol::Auth;

struct Backwards;

impl Method for Backwards {
    fn name(&self) -> &str {
        "BACKWARDS"
    }

    fn begin(&self) -> Box<dyn Conversation> {
        Box::new(Asking { question: None })
    }
}

/// First says who the client is, then asks.
struct Asking {
    question: Option<(String, Vec<u8>)>,
}

impl Conversation for Asking {
    fn step(&mut self, _: &rotamq::message::Identity, data: &[u8]) -> Step {
        match self.question.take() {
            None if data == b"friend" => Step::Accept {
                who: user("friend"),
                data: Vec::new(),
            },
            None => {
                let user = String::from_utf8_lossy(data).into_owned();
                let question = format!("{user}?").into_bytes();
                self.question = Some((user, question.clone()));
                Step::Ask(question)
            }
            Some((user, mut question)) => {
                question.reverse();
                match data == question {
                    true => Step::Accept {
                        who: Authenticated::as_user(user),
                        data: b"welcome".to_vec(),
                    },
                    false => Step::Reject,
                }
            }
        }
    }
}

fn world() -> World {
    let mut world = World::new();
    world.version = Version::V5;
    world.core.add_authentication_method(Arc::new(Backwards));
    world
}

pub(super) fn properties(method: &str, data: &[u8]) -> PropertiesBuf {
    let mut properties = PropertiesBuf::new();
    properties.push(Property::AuthenticationMethod(method));
    if !data.is_empty() {
        properties.push(Property::AuthenticationData(data));
    }
    properties
}

/// CONNECT by that method; what the broker makes of it.
fn connect(world: &mut World, method: &str, data: &[u8]) -> Result<Admission, Close> {
    let properties = properties(method, data);
    let (world, (connect, _)) = world.connect("a").parts();
    let connect = Connect {
        properties: properties.as_properties(),
        ..connect
    };
    world.core.connect(&mut world.worker, &connect, world.now)
}

fn challenged(admission: Result<Admission, Close>) -> Authentication {
    match admission {
        Ok(Admission::Challenged(authentication)) => authentication,
        _ => panic!("a question was expected"),
    }
}

/// What the client is asked.
fn question(authentication: &Authentication) -> (ReasonCode, Vec<String>) {
    let bytes = authentication.challenge();
    match decode(bytes, Version::V5, usize::MAX) {
        Ok(Some((Packet::Auth(auth), _))) => (auth.reason, shown(auth.properties.iter())),
        other => panic!("{other:?}"),
    }
}

fn answer(
    world: &mut World,
    authentication: Authentication,
    packet: &Packet<'_>,
) -> Result<Admission, Close> {
    let (world, (connect, _)) = world.connect("a").parts();
    (world.core).authenticate(
        &mut world.worker,
        &connect,
        authentication,
        packet,
        world.now,
    )
}

fn auth<'a>(reason: ReasonCode, properties: &'a PropertiesBuf) -> Packet<'a> {
    Packet::Auth(Auth {
        reason,
        properties: properties.as_properties(),
    })
}

/// Through both questions.
fn let_in(world: &mut World, user: &str) -> C {
    let authentication = challenged(connect(world, "BACKWARDS", user.as_bytes()));
    let backwards: String = format!("{user}?").chars().rev().collect();
    let properties = properties("BACKWARDS", backwards.as_bytes());
    let packet = auth(ReasonCode::ContinueAuthentication, &properties);
    match answer(world, authentication, &packet) {
        Ok(Admission::Admitted(link)) => world.add(link),
        _ => panic!("it is the right answer"),
    }
}

#[test]
fn a_client_is_asked_before_it_is_let_in() {
    let mut world = world();
    let authentication = challenged(connect(&mut world, "BACKWARDS", b"ann"));
    let asked = [
        Property::AuthenticationMethod("BACKWARDS"),
        Property::AuthenticationData(b"ann?"),
    ];
    assert_eq!(
        question(&authentication),
        (ReasonCode::ContinueAuthentication, shown(asked))
    );
    assert_eq!(world.core.sessions_len(), 0);
    let properties = properties("BACKWARDS", b"?nna");
    let packet = auth(ReasonCode::ContinueAuthentication, &properties);
    let Ok(Admission::Admitted(link)) = answer(&mut world, authentication, &packet) else {
        panic!("it is the right answer");
    };
    assert_eq!(link.identity.user.as_deref(), Some("ann"));
    let a = world.add(link);
    let bytes = std::mem::take(&mut world.clients[a.0].stream);
    let (packet, _) = decode(&bytes, Version::V5, usize::MAX).unwrap().unwrap();
    let Packet::Connack(connack) = packet else {
        panic!("{packet:?}");
    };
    let said = shown(connack.properties.iter());
    let expected = [
        Property::AuthenticationMethod("BACKWARDS"),
        Property::AuthenticationData(b"welcome"),
    ];
    assert!(said.ends_with(&shown(expected)), "{said:?}");
    world.send(a, &Packet::Pingreq);
    assert_eq!(world.receive(a), [Got::Pingresp]);
    world.disconnect(a);
    // Some are let in at once.
    let at_once = connect(&mut world, "BACKWARDS", b"friend");
    assert!(matches!(at_once, Ok(Admission::Admitted(_))));
}

#[test]
fn who_does_not_answer_right_stays_out() {
    let mut world = world();
    let Err(close) = connect(&mut world, "OTHER", b"ann") else {
        panic!("nobody knows that method");
    };
    assert_eq!(close.reason, ReasonCode::BadAuthenticationMethod);
    let continued = ReasonCode::ContinueAuthentication;
    let wrong = properties("BACKWARDS", b"ann?");
    let other = properties("FORWARDS", b"?nna");
    let right = properties("BACKWARDS", b"?nna");
    for (packet, reason) in [
        (auth(continued, &wrong), ReasonCode::NotAuthorized),
        (auth(continued, &other), ReasonCode::ProtocolError),
        (
            auth(ReasonCode::ReAuthenticate, &right),
            ReasonCode::ProtocolError,
        ),
        (Packet::Pingreq, ReasonCode::ProtocolError),
        (publish("t", "m", 0, 0), ReasonCode::ProtocolError),
    ] {
        let authentication = challenged(connect(&mut world, "BACKWARDS", b"ann"));
        match answer(&mut world, authentication, &packet) {
            Err(close) => assert_eq!(close.reason, reason, "{packet:?}"),
            Ok(_) => panic!("let in with {packet:?}"),
        }
    }
    assert_eq!(world.core.sessions_len(), 0);
    assert_eq!(world.counts().connections_refused, 6);
}

#[test]
fn a_client_proves_itself_again() {
    let mut world = world();
    let a = let_in(&mut world, "ann");
    world.receive(a);
    let begin = properties("BACKWARDS", b"ann");
    let right = properties("BACKWARDS", b"?nna");
    for _ in 0..2 {
        world.send(a, &auth(ReasonCode::ReAuthenticate, &begin));
        assert_eq!(
            world.receive(a),
            [Got::Auth(ReasonCode::ContinueAuthentication)]
        );
        // Others go on meanwhile.
        world.send(a, &Packet::Pingreq);
        assert_eq!(world.receive(a), [Got::Pingresp]);
        world.send(a, &auth(ReasonCode::ContinueAuthentication, &right));
        assert_eq!(world.receive(a), [Got::Auth(ReasonCode::Success)]);
    }
    assert!(world.is_open(a));
}

/// Case F50 of docs/security.md.
#[test]
fn who_fails_to_prove_itself_again_is_out() {
    let (ann, friend) = (
        properties("BACKWARDS", b"ann"),
        properties("BACKWARDS", b"friend"),
    );
    let (wrong, other) = (properties("BACKWARDS", b"ann"), properties("OTHER", b"ann"));
    let (again, continued) = (
        ReasonCode::ReAuthenticate,
        ReasonCode::ContinueAuthentication,
    );
    for (packets, reason) in [
        (
            vec![auth(again, &ann), auth(continued, &wrong)],
            ReasonCode::NotAuthorized,
        ),
        // Somebody else.
        (vec![auth(again, &friend)], ReasonCode::NotAuthorized),
        (vec![auth(again, &other)], ReasonCode::ProtocolError),
        (vec![auth(continued, &ann)], ReasonCode::ProtocolError),
        (
            vec![auth(again, &ann), auth(again, &ann)],
            ReasonCode::ProtocolError,
        ),
        (
            vec![auth(ReasonCode::Success, &ann)],
            ReasonCode::ProtocolError,
        ),
    ] {
        let mut world = world();
        let a = let_in(&mut world, "ann");
        world.send_all(a, &packets);
        assert_eq!(world.told(a), Some(reason), "{packets:?}");
    }
    // Who never named a method.
    let mut world = World::new();
    world.version = Version::V5;
    let a = world.connect("a").go();
    world.send(a, &auth(again, &ann));
    assert_eq!(world.told(a), Some(ReasonCode::ProtocolError));
}

/// A method of which a test says what it does.
struct Saying(Step);

impl Method for Saying {
    fn name(&self) -> &str {
        "SAYING"
    }

    fn begin(&self) -> Box<dyn Conversation> {
        Box::new(Saying(self.0.clone()))
    }
}

impl Conversation for Saying {
    fn step(&mut self, _: &rotamq::message::Identity, _: &[u8]) -> Step {
        self.0.clone()
    }
}

#[test]
fn what_a_method_says_has_to_fit() {
    let long = vec![7; Step::DATA_BYTES_MAX + 1];
    for (step, largest, reason) in [
        (Step::Ask(long.clone()), u32::MAX, ReasonCode::NotAuthorized),
        (
            Step::Accept {
                who: user("u"),
                data: long,
            },
            u32::MAX,
            ReasonCode::NotAuthorized,
        ),
        (Step::Ask(vec![7; 300]), 100, ReasonCode::PacketTooLarge),
    ] {
        let mut world = World::new();
        world.version = Version::V5;
        world.core.add_authentication_method(Arc::new(Saying(step)));
        let connecting = world.connect("a");
        let connecting = connecting.property(Property::AuthenticationMethod("SAYING"));
        let largest = Property::MaximumPacketSize(largest.try_into().unwrap());
        assert_eq!(connecting.property(largest).refused(), reason);
    }
}

/// A user whose token ends then.
fn bearer(name: &str, lasts: Duration) -> Authenticated {
    Authenticated {
        lasts: Some(lasts),
        ..user(name)
    }
}

/// The connection ends as its token does, and the session stays.
/// Case F50 of docs/security.md.
#[test]
fn a_connection_ends_with_its_token() {
    in_each_version(|mut world| {
        let watching = world.connect("w").go();
        world.subscribe(watching, "will", 0);
        // Longer than timers stand for something by themselves.
        for lasts in [secs(20), secs(500)] {
            world.who = bearer("ann", lasts);
            let connecting = world.connect("a").clean(false);
            let a = connecting.will("will", "gone", 0, false).go();
            world.advance(lasts - TICK);
            assert!(world.is_open(a));
            assert_eq!(world.receive(watching), []);
            world.advance(2 * TICK);
            assert!(!world.is_open(a));
            let expected = (world.version == Version::V5).then_some(ReasonCode::NotAuthorized);
            assert_eq!(world.told(a), expected);
            // It is no DISCONNECT of the client's.
            assert_eq!(world.receive(watching).len(), 1);
        }
        assert_eq!(world.counts().connections_outlasted, 2);
        world.who = user("ann");
        let (a, is_present) = world.connect("a").clean(false).go_present();
        assert_eq!(is_present, world.version != Version::V3_1);
        world.advance(secs(1000));
        assert!(world.is_open(a));
    });
}

/// A timer that an earlier connection left is not the next one's.
#[test]
fn each_connection_has_its_own_token() {
    in_each_version(|mut world| {
        world.who = bearer("ann", secs(30));
        world.connect("a").go();
        world.advance(secs(10));
        world.who = bearer("ann", secs(60));
        let a = world.connect("a").go();
        world.advance(secs(59));
        assert!(world.is_open(a));
        world.advance(secs(2));
        assert!(!world.is_open(a));
    });
}

/// By AUTH the client says something that holds longer, or shorter, or for ever.
#[test]
fn who_authenticates_again_may_stay() {
    for (again, is_open_at) in [
        (Some(secs(100)), [true, true, false]),
        (Some(secs(5)), [false, false, false]),
        (None, [true, true, true]),
    ] {
        let steps = Arc::new(Mutex::new(VecDeque::from([
            bearer("ann", secs(30)),
            Authenticated {
                lasts: again,
                ..user("ann")
            },
        ])));
        let mut world = World::new();
        world.version = Version::V5;
        let method = Arc::new(Lasting(steps));
        world.core.add_authentication_method(method);
        let connecting = world.connect("a");
        let a = connecting
            .property(Property::AuthenticationMethod("LASTING"))
            .go();
        world.advance(secs(20));
        let properties = properties("LASTING", b"");
        world.send(a, &auth(ReasonCode::ReAuthenticate, &properties));
        assert_eq!(world.receive(a), [Got::Auth(ReasonCode::Success)]);
        // 30, 110 and 130 seconds after CONNECT.
        for (span, is_open) in [secs(10), secs(80), secs(20)].into_iter().zip(is_open_at) {
            world.advance(span + TICK);
            assert_eq!(world.is_open(a), is_open, "{again:?}");
        }
        let expected = again.map(|_| ReasonCode::NotAuthorized);
        assert_eq!(world.told(a), expected);
    }
}

/// Accepts whom it is told to, one after the other.
#[derive(Clone)]
pub(super) struct Lasting(pub(super) Arc<Mutex<VecDeque<Authenticated>>>);

impl Method for Lasting {
    fn name(&self) -> &str {
        "LASTING"
    }

    fn begin(&self) -> Box<dyn Conversation> {
        Box::new(self.clone())
    }
}

impl Conversation for Lasting {
    fn step(&mut self, _: &rotamq::message::Identity, _: &[u8]) -> Step {
        match self.0.lock().unwrap().pop_front() {
            Some(who) => Step::Accept {
                who,
                data: Vec::new(),
            },
            None => Step::Reject,
        }
    }
}
