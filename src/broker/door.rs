//! What holds for the clients of one listener, from CONNECT on.

use std::borrow::Cow;
use std::num::NonZeroU16;
use std::sync::Arc;

use crate::authentication::{scram, tokens};
use crate::config::{AuthenticatorKind, Config, Durability, Limits, Listener, SessionSettings};
use crate::mount::Mount;
use crate::protocol::ReasonCode;
use crate::session::Close;

/// The terms of one listener, made once and shared by all its clients.
pub struct Door {
    /// What comes in by it is stored at least so; `None`: it asks for nothing.
    pub(super) durability: Option<Durability>,
    /// As for all, but for what the listener has for itself.
    pub limits: Limits,
    pub settings: SessionSettings,
    /// What of the topics its clients see; `None`: all.
    pub(super) mount: Option<Arc<Mount>>,
    // By which its clients may authenticate (MQTT 5, 4.12); `None`: by any that
    // the broker knows.
    methods: Option<Vec<&'static str>>,
}

impl Door {
    /// Of clients that come by no listener of their own.
    pub fn of_all(config: &Config) -> Door {
        Door {
            durability: None,
            limits: config.limits.clone(),
            settings: config.session.clone(),
            mount: None,
            methods: None,
        }
    }

    pub fn new(config: &Config, listener: &Listener) -> Door {
        let mut door = Door::of_all(config);
        door.durability = listener.durability;
        let mount = listener.mount_point.as_deref().and_then(Mount::new);
        door.mount = mount.map(Arc::new);
        let own = &listener.limits;
        let limits = &mut door.limits;
        for (limit, own) in [
            (&mut limits.packet_bytes_max, own.packet_bytes_max),
            (
                &mut limits.subscriptions_per_client_max,
                own.subscriptions_per_client_max,
            ),
            (&mut limits.connections_max, own.connections_max),
        ] {
            *limit = own.unwrap_or(*limit);
        }
        limits.connect_timeout = own.connect_timeout.unwrap_or(limits.connect_timeout);
        if let Some(secs) = own.keep_alive_secs_max {
            door.settings.keep_alive_secs_max = NonZeroU16::new(secs);
        }
        let kinds = listener.authentication.as_deref();
        door.methods = kinds.map(|kinds| kinds.iter().copied().filter_map(method_of).collect());
        door
    }

    /// The filter that a client means; `None`: it means nothing below the mount
    /// point.
    pub(super) fn enter_filter<'f>(&self, filter: &'f str) -> Option<Cow<'f, str>> {
        match &self.mount {
            None => Some(Cow::Borrowed(filter)),
            Some(mount) => mount.enter_filter(filter).map(Cow::Owned),
        }
    }

    /// Whether its clients may authenticate by that method.
    pub(super) fn offers(&self, method: &str) -> bool {
        let methods = self.methods.as_ref();
        methods.is_none_or(|methods| methods.contains(&method))
    }

    /// The largest packet that is looked at before CONNECT is accepted.
    pub fn connect_packet_bytes_max(&self) -> usize {
        let limits = &self.limits;
        limits.connect_packet_bytes_max.min(limits.packet_bytes_max)
    }
}

/// What a client names that means nothing below its mount point.
pub(super) fn not_below(reason: ReasonCode) -> Close {
    let why = "below a mount point no topic begins with $, but $queue/NAME, $share/GROUP/FILTER, \
               $delayed/SECONDS/TOPIC and $settles/PACKET-ID/TOPIC; nor does a response topic";
    Close::new(reason, why)
}

/// The method of enhanced authentication by which it can be asked.
fn method_of(kind: AuthenticatorKind) -> Option<&'static str> {
    match kind {
        AuthenticatorKind::Scram => Some(scram::METHOD),
        AuthenticatorKind::Token => Some(tokens::METHOD),
        AuthenticatorKind::Certificate | AuthenticatorKind::Password | AuthenticatorKind::Http => {
            None
        }
    }
}
