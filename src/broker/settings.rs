//! What the broker is told to do, and is told anew while it runs.
//!
//! Owns which settings hold, and what has to be done when they change: queues
//! get their new plans, rights are looked at again. What a connection has agreed
//! with its client stays (`door`).

use std::sync::Arc;

use super::door::Door;
use super::lists::{self, Plans, Replanned};
use super::{Core, TOPIC_BYTES_MAX, Worker};
use crate::config::{Config, Durability, Limits, QueuesSettings, SessionSettings, SysSettings};
use crate::message::Time;
use crate::queue;
use crate::topic::TopicLimits;

/// What holds for all, whatever they came by.
pub(super) struct Settings {
    /// Of what asks for nothing else.
    pub durability: Durability,
    pub limits: Limits,
    pub topic_limits: TopicLimits,
    pub session: SessionSettings,
    pub queues: QueuesSettings,
    pub sys: SysSettings,
    /// Of share groups.
    pub group: Arc<queue::Settings>,
    /// Of clients that come by no listener.
    pub door: Arc<Door>,
}

impl Settings {
    pub fn new(config: &Config) -> Settings {
        let limits = config.limits.clone();
        Settings {
            durability: config.store.durability,
            topic_limits: TopicLimits {
                bytes_max: limits.topic_bytes_max.min(TOPIC_BYTES_MAX),
                levels_max: limits.topic_levels_max,
            },
            session: config.session.clone(),
            queues: config.queues.clone(),
            sys: config.sys.clone(),
            group: Arc::new(lists::group_settings(&limits)),
            door: Arc::new(Door::of_all(config)),
            limits,
        }
    }

    /// Whether the other's are the same; what is not asked for follows from the
    /// rest.
    fn is_same(&self, other: &Settings) -> bool {
        self.durability == other.durability
            && self.limits == other.limits
            && self.session == other.session
            && self.queues == other.queues
            && self.sys == other.sys
    }
}

impl Core {
    /// These settings hold from now on: for what is asked from now on, for all
    /// queues and share groups, and for those who connect. Connections keep what
    /// they have agreed. Rights are `set_rules`'s, methods of authentication
    /// `set_authentication_methods`'s.
    pub fn reconfigure(&self, worker: &mut Worker, config: &Config, now: Time) {
        let (groups, durability) = (self.group_settings(), self.durability());
        let sys = self.sys_settings().clone();
        self.settings.set(Settings::new(config), Settings::is_same);
        let limits = self.limits();
        let (messages, bytes) = (limits.retained_messages_max, limits.retained_bytes_max);
        self.retained.set_bounds(messages, bytes);
        self.memory
            .set_bytes_max(limits.memory_bytes_max.unwrap_or(0));
        self.recordings.set_bytes_max(limits.traces_bytes_max);
        self.flapping.set(&config.authentication.ban);
        let changed = Replanned {
            before: self.plans.replace(Plans::new(config)),
            groups: Some(self.group_settings()).filter(|now| **now != *groups),
            durability: self.durability() != durability,
        };
        self.replan(worker, &changed, now);
        self.watch_sys(now);
        if *self.sys_settings() != sys {
            self.change_sys(now);
        }
    }

    pub(super) fn topic_limits(&self) -> TopicLimits {
        self.settings.current().topic_limits
    }

    pub(super) fn queues_settings(&self) -> &QueuesSettings {
        &self.settings.current().queues
    }

    pub(super) fn sys_settings(&self) -> &SysSettings {
        &self.settings.current().sys
    }

    pub(super) fn durability(&self) -> Durability {
        self.settings.current().durability
    }

    pub(super) fn group_settings(&self) -> Arc<queue::Settings> {
        self.settings.current().group.clone()
    }
}
