//! Clients and their sessions: in a line each, and one by one in full.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::subscriptions::SubscriptionView;
use super::{Paged, STEPS_MAX, age_ms, at_ms, is_like, known_at_ms, not_found};
use crate::broker::Core;
use crate::broker::steer::SteerError;
use crate::message::{QueueId, SessionId, Time};
use crate::session::{Dropped, Granted, Session, Subscribed, Will};

/// Of each list that a view has in it.
const DETAILS_MAX: usize = 1000;

/// Which clients or sessions are asked for. A text asks for those that have it
/// in theirs; or, with a `*`, are like it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    pub client: Option<&'a str>,
    pub user: Option<&'a str>,
    /// With its port.
    pub address: Option<&'a str>,
    pub listener: Option<&'a str>,
    /// Whether its client is to be there.
    pub connected: Option<bool>,
}

/// A connected client in a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ClientView {
    pub client: String,
    /// null: anonymous.
    pub user: Option<String>,
    /// Where it comes from: `IP:PORT`, or `unix`.
    pub address: Option<String>,
    /// The listener that it came by, as it is configured.
    pub listener: Option<String>,
    /// Below which its topics are; null: it sees all.
    pub mount_point: Option<String>,
    /// Of MQTT: `3.1`, `3.1.1` or `5.0`.
    pub version: &'static str,
    pub connected: bool,
    pub since_ms: u64,
    /// When its last packet came.
    pub last_packet_ms: u64,
    /// 0: none.
    pub keep_alive_secs: u16,
    /// How long its session outlives the connection; null: for ever.
    pub session_expiry_secs: Option<u64>,
    /// Whether its session outlives the broker.
    pub stored: bool,
    pub subscriptions: usize,
    /// QoS 1 and 2 messages that it has not acknowledged.
    pub in_flight_out: usize,
    /// QoS 2 messages of its own that it has not released.
    pub in_flight_in: usize,
    /// Messages that wait for room among those.
    pub queued: usize,
    /// What its messages take of `session_bytes_max`, waiting or in flight.
    pub queued_bytes: usize,
    /// Encoded for it, and not written to its socket yet.
    pub outbox_bytes: usize,
    /// PUBLISHes that came of it, since its session began or the broker started.
    pub messages_in: u64,
    pub bytes_in: u64,
    /// And that went to it.
    pub messages_out: u64,
    pub bytes_out: u64,
}

/// A session in a line, whether its client is there or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SessionView {
    pub client: String,
    /// null: anonymous.
    pub user: Option<String>,
    pub connected: bool,
    /// Where its connection comes from, or the last one did.
    pub address: Option<String>,
    /// Below which its topics are; null: it sees all.
    pub mount_point: Option<String>,
    /// Whether it outlives the broker.
    pub stored: bool,
    /// How long it outlives its connection; null: for ever.
    pub session_expiry_secs: Option<u64>,
    /// null: its client is there.
    pub absent_since_ms: Option<u64>,
    /// When it ends if its client stays away; null: never, or it is there.
    pub expires_at_ms: Option<u64>,
    pub subscriptions: usize,
    /// QoS 1 and 2 messages that its client has not acknowledged; those of a
    /// stored session whose client is away count as queued.
    pub in_flight_out: usize,
    /// QoS 2 messages of its client's own that are not released.
    pub in_flight_in: usize,
    pub queued: usize,
    /// What its messages take of `session_bytes_max`, waiting or in flight.
    pub queued_bytes: usize,
    /// Messages that its client does not get, for any reason.
    pub dropped_messages: u64,
    /// Whether its client leaves a will.
    pub has_will: bool,
}

/// All that is known of a connected client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ClientShown {
    #[serde(flatten)]
    pub client: ClientView,
    #[serde(flatten)]
    pub details: Details,
}

/// All that is known of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SessionShown {
    #[serde(flatten)]
    pub session: SessionView,
    #[serde(flatten)]
    pub details: Details,
}

/// What a session holds, one by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Details {
    /// What is published if the client is lost.
    pub will: Option<WillView>,
    /// Messages that the client does not get, since its session began or the
    /// broker started.
    pub dropped: Dropped,
    /// Towards the client, oldest first; the first 1000.
    pub in_flight_out_list: Vec<InFlightView>,
    /// From the client, by packet id; the first 1000.
    pub in_flight_in_list: Vec<InFlightView>,
    /// By filter; the first 1000: all are in the list of subscriptions.
    pub subscription_list: Vec<SubscriptionView>,
}

/// A will (3.1.2.5), without its payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct WillView {
    pub topic: String,
    pub qos: u8,
    pub retain: bool,
    pub payload_bytes: usize,
    /// How long the client may stay away before it is published.
    pub delay_secs: u64,
    /// When it will be, if the client stays away; null: the client is there.
    pub due_at_ms: Option<u64>,
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct InFlightView {
    pub packet_id: u16,
    pub qos: u8,
    pub state: InFlightState,
    /// How long it has been so; null: since before the broker's start.
    pub age_ms: Option<u64>,
    /// null: nobody keeps the message.
    pub topic: Option<String>,
    /// The queue that it is a job of.
    pub queue: Option<String>,
}

/// What a message on its way waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InFlightState {
    /// To the client: its PUBACK or PUBREC.
    Sent,
    /// To the client, which has it: its PUBCOMP.
    Releasing,
    /// From the client: its PUBREL.
    Received,
}

impl Wanted<'_> {
    fn fits(&self, session: &Session) -> bool {
        let identity = &session.identity;
        let origin = session
            .account()
            .and_then(|account| account.origin.as_ref());
        // Where nothing is asked for, nothing is put together.
        let has_address = || match (self.address, origin) {
            (None, _) => true,
            (Some(_), None) => false,
            (wanted, Some(origin)) => is_like(wanted, &origin.address.to_string()),
        };
        let has_listener = || {
            self.listener.is_none()
                || origin.is_some_and(|origin| is_like(self.listener, origin.listener.as_str()))
        };
        let is_connected = session.is_connected();
        self.connected.is_none_or(|wanted| wanted == is_connected)
            && is_like(self.client, identity.client.as_str())
            && is_like(self.user, identity.user.as_deref().unwrap_or_default())
            && has_address()
            && has_listener()
    }
}

impl Core {
    /// Clients that are connected, in no order that means anything.
    pub fn list_clients(
        &self,
        wanted: Wanted<'_>,
        after: Option<u32>,
        limit: usize,
    ) -> Paged<ClientView, u32> {
        let wanted = Wanted {
            connected: Some(true),
            ..wanted
        };
        self.page_of_sessions(after, limit, |session| {
            wanted.fits(session).then(|| client_view(session))
        })
    }

    /// Sessions, in no order that means anything.
    pub fn list_sessions(
        &self,
        wanted: Wanted<'_>,
        after: Option<u32>,
        limit: usize,
    ) -> Paged<SessionView, u32> {
        self.page_of_sessions(after, limit, |session| {
            wanted.fits(session).then(|| session_view(session))
        })
    }

    /// All that is known of a client.
    ///
    /// # Errors
    /// No such client is connected.
    pub fn show_client(&self, client: &str, now: Time) -> Result<ClientShown, SteerError> {
        let shown = self.session_named(client).and_then(|id| {
            let session = self.sessions.lock(id.0)?;
            let view = (session.is_connected() && !session.has_ended())
                .then(|| (client_view(&session), Held::of(&session)))?;
            drop(session);
            Some((id, view))
        });
        let (id, (view, held)) =
            shown.ok_or_else(|| not_found(format!("no client {client:?} is connected")))?;
        Ok(ClientShown {
            details: self.details(client, id, held, now),
            client: view,
        })
    }

    /// All that is known of a session.
    ///
    /// # Errors
    /// There is none of that client.
    pub fn show_session(&self, client: &str, now: Time) -> Result<SessionShown, SteerError> {
        let shown = self.session_named(client).and_then(|id| {
            let session = self.sessions.lock(id.0)?;
            let view =
                (!session.has_ended()).then(|| (session_view(&session), Held::of(&session)))?;
            drop(session);
            Some((id, view))
        });
        let (id, (view, held)) =
            shown.ok_or_else(|| not_found(format!("no client {client:?} has a session")))?;
        Ok(SessionShown {
            details: self.details(client, id, held, now),
            session: view,
        })
    }

    pub(super) fn session_named(&self, client: &str) -> Option<SessionId> {
        self.clients.get(client).map(|entry| *entry.value())
    }

    /// Sessions by their places, which they keep for as long as they are there.
    fn page_of_sessions<T>(
        &self,
        after: Option<u32>,
        limit: usize,
        view: impl Fn(&Session) -> Option<T>,
    ) -> Paged<T, u32> {
        let mut items = Vec::new();
        let first = after.map_or(0, |after| after.saturating_add(1));
        let end = self.sessions.end();
        for slot in first..end {
            if let Some((_, session)) = self.sessions.lock_slot(slot)
                && !session.has_ended()
            {
                items.extend(view(&session));
            }
            let is_full = items.len() >= limit || (slot - first) as usize + 1 >= STEPS_MAX;
            if is_full && slot + 1 < end {
                return Paged {
                    items,
                    next: Some(slot),
                };
            }
        }
        Paged { items, next: None }
    }

    /// What needs other locks than the session's.
    fn details(&self, client: &str, id: SessionId, held: Held, now: Time) -> Details {
        let mut in_flight_out_list = Vec::new();
        for (mut view, since, queue) in held.out {
            view.age_ms = age_ms(since, now);
            view.queue = queue.and_then(|queue| self.name_of_list(queue));
            in_flight_out_list.push(view);
        }
        let in_flight_in_list = held.came.into_iter().map(|(packet_id, at)| InFlightView {
            packet_id,
            qos: 2,
            state: InFlightState::Received,
            age_ms: age_ms(at, now),
            topic: None,
            queue: None,
        });
        let subscriptions = held.subscriptions.into_iter();
        let subscriptions = subscriptions
            .filter_map(|(held, granted)| self.subscription_view(client, id, held, granted));
        let mut subscription_list: Vec<_> = subscriptions.collect();
        subscription_list.sort_unstable_by(|one, other| one.filter.cmp(&other.filter));
        subscription_list.truncate(DETAILS_MAX);
        Details {
            will: held.will,
            dropped: held.dropped,
            in_flight_out_list,
            in_flight_in_list: in_flight_in_list.collect(),
            subscription_list,
        }
    }

    /// `$queue/NAME` or `$share/GROUP/FILTER`.
    pub(super) fn name_of_list(&self, list: QueueId) -> Option<String> {
        Some(self.lists.lock(list.0)?.name().to_owned())
    }
}

/// What a session holds, as long as not all is known of it: names are behind
/// other locks.
struct Held {
    will: Option<WillView>,
    dropped: Dropped,
    out: Vec<(InFlightView, Time, Option<QueueId>)>,
    came: Vec<(u16, Time)>,
    subscriptions: Vec<(Subscribed, Granted)>,
}

impl Held {
    fn of(session: &Session) -> Held {
        let sent = session.window.sent().map(|sent| {
            let message = sent.message.as_ref();
            let view = InFlightView {
                packet_id: sent.packet_id.get(),
                qos: sent.qos as u8,
                state: InFlightState::Sent,
                age_ms: None,
                topic: message.map(|message| message.topic().as_str().to_owned()),
                queue: None,
            };
            (view, sent.sent_at, sent.job.map(|job| job.queue))
        });
        let releasing = session.window.releasing().map(|releasing| {
            let view = InFlightView {
                packet_id: releasing.packet_id.get(),
                qos: 2,
                state: InFlightState::Releasing,
                age_ms: None,
                topic: None,
                queue: None,
            };
            (view, releasing.since, None)
        });
        // What the client has already is older than what it has not.
        let out = releasing.chain(sent).take(DETAILS_MAX).collect();
        let arrived = session.arrived();
        let mut came: Vec<_> = arrived.map(|(id, at)| (id.get(), at)).collect();
        came.sort_unstable();
        came.truncate(DETAILS_MAX);
        let subscriptions = session.subscriptions.iter();
        Held {
            will: (session.will.as_deref()).map(|will| will_view(will, session.will_due)),
            dropped: dropped(session),
            out,
            came,
            subscriptions: (subscriptions.map(|(held, granted)| (*held, *granted))).collect(),
        }
    }
}

fn client_view(session: &Session) -> ClientView {
    let (identity, terms) = (&session.identity, &session.terms);
    let account = session.account();
    let origin = account.and_then(|account| account.origin.as_ref());
    ClientView {
        client: identity.client.as_str().to_owned(),
        user: identity.user.as_deref().map(str::to_owned),
        address: origin.map(|origin| origin.address.to_string()),
        listener: origin.map(|origin| origin.listener.as_str().to_owned()),
        mount_point: mount_point(session),
        version: terms.version(),
        connected: session.is_connected(),
        since_ms: account.map_or(0, |account| at_ms(account.connected_at)),
        last_packet_ms: session.last_packet().map_or(0, at_ms),
        keep_alive_secs: terms.keep_alive_secs(),
        session_expiry_secs: secs(terms.session_expiry()),
        stored: session.keeping().is_some(),
        subscriptions: session.subscriptions.len(),
        in_flight_out: session.window.in_use(),
        in_flight_in: session.arrived().len(),
        queued: session.waiting_len(),
        queued_bytes: session.kept_bytes(),
        outbox_bytes: session.outbox_len(),
        messages_in: account.map_or(0, |account| account.messages_in),
        bytes_in: account.map_or(0, |account| account.bytes_in),
        messages_out: account.map_or(0, |account| account.messages_out),
        bytes_out: account.map_or(0, |account| account.bytes_out),
    }
}

fn session_view(session: &Session) -> SessionView {
    let identity = &session.identity;
    let origin = (session.account()).and_then(|account| account.origin.as_ref());
    let is_absent = !session.is_connected();
    let dropped = dropped(session);
    SessionView {
        client: identity.client.as_str().to_owned(),
        user: identity.user.as_deref().map(str::to_owned),
        connected: !is_absent,
        address: origin.map(|origin| origin.address.to_string()),
        mount_point: mount_point(session),
        stored: session.keeping().is_some(),
        session_expiry_secs: secs(session.terms.session_expiry()),
        absent_since_ms: is_absent.then(|| at_ms(session.absent_since)),
        expires_at_ms: known_at_ms(session.expires_at()),
        subscriptions: session.subscriptions.len(),
        in_flight_out: session.window.in_use(),
        in_flight_in: session.arrived().len(),
        queued: session.waiting_len(),
        queued_bytes: session.kept_bytes(),
        dropped_messages: dropped.all(),
        has_will: session.will.is_some(),
    }
}

fn will_view(will: &Will, due: Time) -> WillView {
    WillView {
        topic: (*will.topic).to_owned(),
        qos: will.qos as u8,
        retain: will.retain,
        payload_bytes: will.payload.len(),
        delay_secs: will.delay.as_secs(),
        due_at_ms: known_at_ms(due),
    }
}

fn mount_point(session: &Session) -> Option<String> {
    let mount = session.mount.as_ref();
    mount.map(|mount| mount.as_str().to_owned())
}

fn dropped(session: &Session) -> Dropped {
    let account = session.account();
    account.map_or_else(Dropped::default, |account| account.dropped())
}

/// `None`: for ever.
fn secs(span: Duration) -> Option<u64> {
    (span < Duration::MAX).then_some(span.as_secs())
}
