//! Enhanced authentication (MQTT 5, 4.12), by a method that only tests have:
//! the client has to say the question backwards.

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
                user: "friend".into(),
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
                        user: user.into(),
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

fn properties(method: &str, data: &[u8]) -> PropertiesBuf {
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
                user: "u".into(),
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
