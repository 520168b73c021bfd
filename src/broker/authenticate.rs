//! Enhanced authentication (MQTT 5, 4.12): carries a client's conversation
//! with a [`Method`], at CONNECT and again later.

use std::sync::Arc;

use super::door::Door;
use super::link::{Link, Stop, violation};
use super::{Core, Worker};
use crate::authentication::{Conversation, Method, Step};
use crate::message::{Identity, Time};
use crate::protocol::{Auth, Connect, Packet, Properties, PropertiesBuf, Property, ReasonCode};
use crate::session::{Close, Terms};

/// What comes of a CONNECT, or of an AUTH that follows it.
pub enum Admission {
    /// CONNACK is the first thing in the session's outbox.
    Admitted(Link),
    /// The client is asked something first.
    Challenged(Authentication),
}

/// A client that is being asked who it is, before its CONNACK.
pub struct Authentication {
    method: Arc<dyn Method>,
    conversation: Box<dyn Conversation>,
    terms: Terms,
    // By which it came.
    door: Arc<Door>,
    challenge: Vec<u8>,
}

impl Authentication {
    /// The AUTH that asks, encoded [MQTT-4.12.0-2].
    pub fn challenge(&self) -> &[u8] {
        &self.challenge
    }

    /// For the codec: the answer has this form.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }
}

/// A client that has authenticated by a method, and may do so again.
pub(super) struct Enhanced {
    method: Arc<dyn Method>,
    again: Option<Box<dyn Conversation>>,
}

impl Core {
    /// A CONNECT that names a method.
    pub(super) fn begin_authentication(
        &self,
        worker: &mut Worker,
        connect: &Connect<'_>,
        method: &str,
        door: &Arc<Door>,
        now: Time,
    ) -> Result<Admission, Close> {
        let terms = Terms::agree(connect, &door.limits, &door.settings)?;
        let method = Some(method).filter(|name| door.offers(name));
        let method = method.and_then(|name| self.method_named(name));
        let method = method.ok_or_else(|| {
            let why = "this authentication method is not known here";
            Close::new(ReasonCode::BadAuthenticationMethod, why) // [MQTT-4.12.0-1]
        })?;
        let authentication = Authentication {
            conversation: method.begin(),
            method,
            terms,
            door: door.clone(),
            challenge: Vec::new(),
        };
        let data = data_of(connect.properties);
        self.go_on(worker, connect, authentication, data, now)
    }

    fn method_named(&self, name: &str) -> Option<Arc<dyn Method>> {
        let methods = self.methods.read();
        methods.iter().find(|one| one.name() == name).cloned()
    }

    /// What the client answers, before its CONNACK [MQTT-3.1.2-30].
    ///
    /// # Errors
    /// Why it is not let in, for the CONNACK.
    pub fn authenticate(
        &self,
        worker: &mut Worker,
        connect: &Connect<'_>,
        authentication: Authentication,
        answer: &Packet<'_>,
        now: Time,
    ) -> Result<Admission, Close> {
        let admission = match answer {
            Packet::Auth(auth)
                if auth.reason == ReasonCode::ContinueAuthentication // [MQTT-4.12.0-3]
                    && is_of(auth, &authentication.method) =>
            {
                let data = data_of(auth.properties);
                self.go_on(worker, connect, authentication, data, now)
            }
            _ => {
                let why = "before CONNACK a client answers with AUTH, of the method that it named";
                Err(Close::new(ReasonCode::ProtocolError, why))
            }
        };
        self.count_admission(admission)
    }

    fn go_on(
        &self,
        worker: &mut Worker,
        connect: &Connect<'_>,
        mut authentication: Authentication,
        data: &[u8],
        now: Time,
    ) -> Result<Admission, Close> {
        let claimed = Identity {
            user: connect.user_name.map(Arc::from),
            client: crate::message::ClientId::new(connect.client_id),
        };
        match within_bounds(authentication.conversation.step(&claimed, data)) {
            Step::Ask(question) => {
                let (terms, method) = (&authentication.terms, authentication.method.name());
                let reason = ReasonCode::ContinueAuthentication;
                let mut challenge = Vec::new();
                if !put_auth(terms, method, reason, &question, &mut challenge) {
                    return Err(super::link::too_large());
                }
                authentication.challenge = challenge;
                Ok(Admission::Challenged(authentication))
            }
            Step::Accept { who, data } => {
                let method = authentication.method;
                let proof = Some((method.name(), &*data));
                let door = &authentication.door;
                let mut link = self.admit(worker, connect, &who, proof, door, now)?;
                link.enhanced = Some(Box::new(Enhanced {
                    method,
                    again: None,
                }));
                Ok(Admission::Admitted(link))
            }
            Step::Reject => Err(rejected()), // [MQTT-4.12.0-4]
            Step::Later => Err(not_now(ReasonCode::ServerUnavailable)),
        }
    }

    /// AUTH on a connection that is accepted: it proves itself again
    /// (4.12.1), while other packets go their ways.
    pub(super) fn handle_auth(
        &self,
        worker: &mut Worker,
        link: &mut Link,
        auth: &Auth<'_>,
        now: Time,
    ) -> Result<(), Stop> {
        let Some(enhanced) = &mut link.enhanced else {
            return Err(violation("an AUTH after a CONNECT without method")); // [MQTT-4.12.0-7]
        };
        if !is_of(auth, &enhanced.method) {
            return Err(violation("an AUTH of another method than CONNECT's")); // [MQTT-4.12.1-1]
        }
        // Who is known by now may be others than when it connected.
        let Some(method) = self.method_named(enhanced.method.name()) else {
            return Err(Stop::Closed(rejected()));
        };
        let mut conversation = match (auth.reason, enhanced.again.take()) {
            (ReasonCode::ReAuthenticate, None) => method.begin(),
            (ReasonCode::ContinueAuthentication, Some(conversation)) => conversation,
            _ => return Err(violation("an AUTH that answers nothing, or begins twice")),
        };
        let step = conversation.step(&link.identity, data_of(auth.properties));
        let (reason, data) = match within_bounds(step) {
            Step::Ask(question) => {
                enhanced.again = Some(conversation);
                (ReasonCode::ContinueAuthentication, question)
            }
            Step::Accept { who, data } if link.identity.user == who.user => {
                let session = self.sessions.lock(link.session.0);
                if let Some(mut session) = session.filter(|one| one.is_link(link.number)) {
                    self.hold_until(&mut session, link.session, who.lasts, now);
                }
                self.take_rights(worker, link, who.rights, now);
                (ReasonCode::Success, data)
            }
            // Somebody else than before is nobody here.
            Step::Accept { .. } | Step::Reject => return Err(Stop::Closed(rejected())), // [MQTT-4.12.1-2]
            // DISCONNECT has no "server unavailable" (3.14.2.1).
            Step::Later => return Err(Stop::Closed(not_now(ReasonCode::ServerBusy))),
        };
        match put_auth(
            &link.terms,
            method.name(),
            reason,
            &data,
            &mut worker.answers,
        ) {
            true => Ok(()),
            false => Err(Stop::Closed(super::link::too_large())),
        }
    }
}

/// The method that a CONNECT names: the client is asked by it, and by nobody
/// else.
pub fn method_of<'a>(connect: &Connect<'a>) -> Option<&'a str> {
    connect
        .properties
        .iter()
        .find_map(|property| match property {
            Property::AuthenticationMethod(name) => Some(name),
            _ => None,
        })
}

fn is_of(auth: &Auth<'_>, method: &Arc<dyn Method>) -> bool {
    let named = Property::AuthenticationMethod(method.name()); // [MQTT-4.12.0-5]
    auth.properties.iter().any(|property| property == named)
}

fn data_of(properties: Properties<'_>) -> &[u8] {
    let data = properties.iter().find_map(|property| match property {
        Property::AuthenticationData(data) => Some(data),
        _ => None,
    });
    data.unwrap_or_default()
}

/// Whether the client takes a packet of its size.
fn put_auth(
    terms: &Terms,
    method: &str,
    reason: ReasonCode,
    data: &[u8],
    out: &mut Vec<u8>,
) -> bool {
    let mut properties = PropertiesBuf::new();
    properties.push(Property::AuthenticationMethod(method));
    if !data.is_empty() {
        properties.push(Property::AuthenticationData(data));
    }
    let auth = Packet::Auth(Auth {
        reason,
        properties: properties.as_properties(),
    });
    terms.append(&auth, out)
}

/// A method that says more than a packet's field can hold has failed.
fn within_bounds(step: Step) -> Step {
    match step {
        Step::Ask(data) | Step::Accept { data, .. } if data.len() > Step::DATA_BYTES_MAX => {
            let bytes = data.len();
            tracing::error!(
                bytes,
                "an authentication method says more than 65,535 bytes"
            );
            Step::Reject
        }
        step => step,
    }
}

fn not_now(reason: ReasonCode) -> Close {
    let why = "who the client is cannot be found out now";
    Close::new(reason, why)
}

fn rejected() -> Close {
    let why = "the authentication has failed";
    Close::new(ReasonCode::NotAuthorized, why)
}
