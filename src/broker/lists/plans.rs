//! Which settings a queue has by its name, and what happens to those that are
//! there when the configuration says something else.
//!
//! Owns the tables of the configuration. What a queue was given while the broker
//! runs is in `steering`, and goes on top.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use super::{Kind, keys_of};
use crate::broker::timers::Timer;
use crate::broker::{Core, Worker};
use crate::config::{Config, LastValue, Limits, Overflow, QueueSettings, Undecided};
use crate::message::{QueueId, Time};
use crate::queue::{Rules, Settings};
use crate::topic::{TopicFilter, TopicLimits, TopicName};

/// The settings of all queues, by name.
pub(in crate::broker) struct Plans {
    tables: Vec<Arc<Plan>>,
    /// Of queues that no table names.
    default: Arc<Plan>,
}

impl Plans {
    pub fn new(config: &Config) -> Plans {
        Plans {
            tables: config.queue.iter().cloned().map(Plan::new).collect(),
            default: Plan::new(config.queues.default.clone()),
        }
    }

    /// The `[[queue]]` tables, in their order.
    pub(super) fn tables(&self) -> &[Arc<Plan>] {
        &self.tables
    }

    pub(super) fn default(&self) -> &Arc<Plan> {
        &self.default
    }

    /// The settings for a queue's name, and whether they name it.
    pub(super) fn of(&self, name: TopicFilter<'_>) -> (Arc<Plan>, bool) {
        let topic = TopicName::parse(name.as_str(), TopicLimits::NONE).ok();
        let fits = |plan: &&Arc<Plan>| {
            plan.name == name.as_str()
                || topic.is_some_and(|topic| {
                    TopicFilter::parse(&plan.name, TopicLimits::NONE)
                        .is_ok_and(|pattern| pattern.matches(topic))
                })
        };
        match self.tables.iter().find(fits) {
            Some(plan) => (plan.clone(), true),
            None => (self.default.clone(), false),
        }
    }

    /// Whether a queue has the same settings by both, whatever its name.
    fn is_same(&self, other: &Plans) -> bool {
        let is_same = |(one, other): (&Arc<Plan>, &Arc<Plan>)| one.settings == other.settings;
        let mut pairs = self.tables.iter().zip(&other.tables);
        self.tables.len() == other.tables.len()
            && is_same((&self.default, &other.default))
            && pairs.all(is_same)
    }
}

/// Those that hold.
pub(in crate::broker) struct CurrentPlans(RwLock<Arc<Plans>>);

impl CurrentPlans {
    pub fn new(plans: Plans) -> CurrentPlans {
        CurrentPlans(RwLock::new(Arc::new(plans)))
    }

    pub(super) fn current(&self) -> Arc<Plans> {
        self.0.read().clone()
    }

    /// Those that held until now; `None`: they were the same, and stay.
    pub fn replace(&self, plans: Plans) -> Option<Arc<Plans>> {
        let mut current = self.0.write();
        let is_other = !current.is_same(&plans);
        is_other.then(|| std::mem::replace(&mut *current, Arc::new(plans)))
    }
}

/// What of a configuration has changed for lists that are there.
pub(in crate::broker) struct Replanned {
    /// The plans of before; `None`: they are the same.
    pub before: Option<Arc<Plans>>,
    /// What share groups are told.
    pub groups: Option<Arc<Settings>>,
    /// What is asked of the store where nothing else is said.
    pub durability: bool,
}

impl Core {
    /// Brings all lists up to what the configuration says now, one after the
    /// other, and makes the queues that it names.
    pub(in crate::broker) fn replan(&self, worker: &mut Worker, changed: &Replanned, now: Time) {
        if changed.before.is_some() || changed.groups.is_some() || changed.durability {
            for place in self.lists.places() {
                self.pinned(worker, |worker| {
                    self.replan_list(worker, QueueId(place), changed, now);
                });
                worker.effects.wake_all();
            }
        }
        if changed.before.is_some() {
            self.pinned(worker, |worker| {
                self.create_configured_queues(&mut worker.effects, now);
            });
            worker.effects.wake_all();
        }
    }

    fn replan_list(&self, worker: &mut Worker, id: QueueId, changed: &Replanned, now: Time) {
        let changes = self.list_changes.lock();
        let Some(mut list) = self.lists.lock(id.0) else {
            return;
        };
        if changed.durability {
            let durability = self.durability_of(&list);
            list.queue.set_durability(durability);
        }
        let held = match &list.kind {
            Kind::Work(plan) => plan.clone(),
            Kind::Share => {
                if let Some(settings) = &changed.groups {
                    list.queue.set_settings(settings.clone());
                }
                return;
            }
            Kind::Delayed => return list.queue.set_settings(self.delayed_settings()),
        };
        let name = list.queue_name().unwrap_or_default().to_owned();
        let given = list.given.clone();
        drop(list);
        let Ok(filter) = TopicFilter::parse(&name, TopicLimits::NONE) else {
            return;
        };
        let (base, is_named) = self.plan_of(filter);
        let keys = given.as_deref().map(keys_of).unwrap_or_default();
        let (plan, given) = match self.check_given(&name, &keys) {
            Ok((plan, checked)) => (plan, given.map(|_| checked)),
            Err(error) => {
                tracing::error!(
                    queue = name,
                    %error,
                    "settings that the queue was given do not fit the new configuration, which it has alone"
                );
                (base, given)
            }
        };
        if plan.settings != held.settings {
            self.apply(&mut worker.effects, id, (plan, given), false, now);
        }
        let was_named = (changed.before.as_ref()).is_some_and(|before| before.of(filter).1);
        if was_named && !is_named {
            // From now on it goes when nobody uses it.
            let due = now + self.queues_settings().auto_delete_after;
            if let Some(mut list) = self.lists.lock(id.0) {
                list.last_used = now;
            }
            self.schedule(now, due, Timer::Unused(id));
        }
        // What comes of that may make a queue of dead letters.
        drop(changes);
        self.change_list(worker, id, now, |_| ());
    }
}

/// The settings of queues, and what their cores are told by them: a million
/// queues of one table of the configuration have them once.
pub(in crate::broker) struct Plan {
    settings: QueueSettings,
    work: Arc<Settings>,
    dead_letters: Arc<Settings>,
}

impl Plan {
    pub fn new(settings: QueueSettings) -> Arc<Plan> {
        Arc::new(Plan {
            work: Arc::new(core_settings(&settings, false)),
            dead_letters: Arc::new(core_settings(&settings, true)),
            settings,
        })
    }

    /// `dead`: for a queue of dead letters.
    pub(super) fn core(&self, dead: bool) -> Arc<Settings> {
        match dead {
            true => self.dead_letters.clone(),
            false => self.work.clone(),
        }
    }
}

impl Deref for Plan {
    type Target = QueueSettings;

    fn deref(&self) -> &QueueSettings {
        &self.settings
    }
}

/// What a work queue is told; `dead`: one of dead letters, which gives up
/// nothing by itself.
pub(super) fn core_settings(settings: &QueueSettings, dead: bool) -> Settings {
    Settings {
        prefetch: settings.prefetch,
        ack_timeout: settings.ack_timeout,
        undecided: match dead {
            true => Undecided::Redeliver,
            false => settings.undecided,
        },
        undecided_after: settings.undecided_after,
        exclusive: settings.exclusive,
        dispatch: settings.dispatch,
        deliveries_max: match dead {
            true => u32::MAX,
            false => settings.deliveries_max,
        },
        backoff_min: settings.backoff_min,
        backoff_max: settings.backoff_max,
        ttl: settings.ttl.filter(|_| !dead),
        dead_letter_expired: settings.dead_letter_expired && !dead,
        fair: settings.fair,
        last_value: settings.last_value != LastValue::Off && !dead,
        dedup_window: settings.dedup_window,
        overflow: match dead {
            true => Overflow::Reject,
            false => settings.overflow,
        },
        messages_max: settings.messages_max,
        bytes_max: settings.bytes_max,
        trace_events_max: settings.trace_events_max,
        rules: Rules::Work,
    }
}

/// A share group has the bounds of a session.
pub(in crate::broker) fn group_settings(limits: &Limits) -> Settings {
    let unbounded = QueueSettings {
        prefetch: u32::MAX,
        ack_timeout: None,
        undecided_after: Duration::MAX,
        deliveries_max: u32::MAX,
        messages_max: limits.session_messages_max,
        bytes_max: limits.session_bytes_max,
        trace_events_max: 0,
        ..QueueSettings::default()
    };
    Settings {
        rules: Rules::Share,
        ..core_settings(&unbounded, false)
    }
}
