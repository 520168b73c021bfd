//! The store's threads: one commits, one moves and compacts.
//!
//! Owns opening the data folder, and what happens when the disk fails. What is
//! stored, and when, is the store's.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::ServeError;
use super::clock::Calendar;
use super::systemd::Beats;
use crate::config::StoreSettings;
use crate::net::Shared;
use crate::store::disk::Folder;
use crate::store::{Failed, Report, Settings, Store};

/// What is only handed to the system is synced so often; and so often the free
/// space is looked at.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// The time is stored so often.
const CLOCK_EVERY: Duration = Duration::from_secs(60);
/// The thread that moves looks so often whether files are mostly dead.
const COMPACT_EVERY: Duration = Duration::from_secs(1);

/// The data folder, opened, or no store at all; and whether nothing in it was
/// damaged.
///
/// # Errors
/// A sentence for the person who starts the broker.
pub(super) fn open(settings: &StoreSettings) -> Result<(Store, bool), ServeError> {
    if settings.ephemeral {
        return Ok((Store::none(), true));
    }
    let (store, report) = open_folder(settings)?;
    log_report(&report);
    tracing::info!(folder = %settings.data.display(), lists = report.lists, rows = report.rows, "the store is open");
    let is_whole = report.damage.iter().all(|damage| damage.unfinished);
    Ok((store, is_whole))
}

/// As [`open`], without a word in the log.
///
/// # Errors
/// Those of [`open`].
pub(crate) fn open_folder(settings: &StoreSettings) -> Result<(Store, Report), ServeError> {
    let shown = settings.data.display();
    let folder = Folder::open(&settings.data).map_err(|error| match error.kind() {
        io::ErrorKind::ResourceBusy => ServeError(format!(
            "another broker has the data folder {shown}: stop that one, or give this one \
             another folder with --data"
        )),
        io::ErrorKind::PermissionDenied => ServeError(format!(
            "cannot open the data folder {shown}: {error}: it has to belong to the user that the \
             broker runs as"
        )),
        _ => ServeError(format!("cannot open the data folder {shown}: {error}")),
    })?;
    let limits = Settings {
        log_bytes_max: settings.log_bytes_max,
        free_bytes_min: settings.free_bytes_min,
    };
    Store::open(Arc::new(folder), limits)
        .map_err(|error| ServeError(format!("cannot open the store in {shown}: {error}")))
}

/// What could not be read is said by name, count and range.
pub(crate) fn log_report(report: &Report) {
    for damage in &report.damage {
        tracing::error!(
            file = %damage.file,
            range = ?damage.range,
            copied_to = %damage.copied_to,
            "damage in the store: {}",
            damage.what
        );
    }
}

/// The threads.
pub(super) struct Threads {
    threads: Vec<JoinHandle<()>>,
    /// How often the one that commits has gone round.
    pub beats: Arc<Beats>,
    /// Why nothing is stored any more, once that is so.
    pub failure: watch::Receiver<Option<Failed>>,
}

impl Threads {
    /// Starts them, if there is a store.
    ///
    /// # Errors
    /// Threads that cannot be made.
    pub fn start(shared: &Arc<Shared>, calendar: Calendar) -> Result<Threads, ServeError> {
        let (failed, failure) = watch::channel(None);
        let mut threads = Vec::new();
        let beats = Arc::new(Beats::default());
        if shared.core.store().is_on() {
            let failed = Arc::new(failed);
            let start = |name: &str, body: Box<dyn FnOnce() + Send>| {
                let thread = thread::Builder::new().name(name.into()).spawn(body);
                thread.map_err(|error| ServeError(format!("cannot start threads: {error}")))
            };
            let (own, tell, beats) = (shared.clone(), failed.clone(), beats.clone());
            threads.push(start(
                "rotamq-commit",
                Box::new(move || tell_failure(&tell, commit(&own, calendar, &beats))),
            )?);
            let own = shared.clone();
            threads.push(start(
                "rotamq-move",
                Box::new(move || tell_failure(&failed, keep_moving(&own))),
            )?);
        }
        Ok(Threads {
            threads,
            beats,
            failure,
        })
    }

    /// Ends them. `in_order`: all that was said is stored, and that the store
    /// was closed.
    pub fn stop(&mut self, shared: &Shared, in_order: bool) {
        let store = shared.core.store();
        store.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store has panicked");
            }
        }
        if in_order && let Err(failed) = store.close() {
            tracing::error!(%failed, "the store could not be closed in order");
        }
    }
}

fn tell_failure(tell: &watch::Sender<Option<Failed>>, result: Result<(), Failed>) {
    if let Err(failed) = result {
        tell.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(failed);
            first
        });
    }
}

/// Commits what is appended, until the store is to stop.
fn commit(shared: &Shared, mut calendar: Calendar, beats: &Beats) -> Result<(), Failed> {
    let store = shared.core.store();
    let mut last_sync = Instant::now();
    let mut last_clock = Instant::now();
    shared.core.store_calendar(&calendar.record().encode());
    while !store.is_stopped() {
        store.wait(SYNC_EVERY);
        beats.beat();
        let sync = last_sync.elapsed() >= SYNC_EVERY;
        if sync {
            last_sync = Instant::now();
            store.watch_free();
            if last_clock.elapsed() >= CLOCK_EVERY {
                last_clock = Instant::now();
                calendar.look(shared.clock.now());
                shared.core.store_calendar(&calendar.record().encode());
            }
        }
        store.commit(sync)?;
    }
    calendar.look(shared.clock.now());
    shared.core.store_calendar(&calendar.record().encode());
    store.commit(true).map(drop)
}

/// Keeps the log short and the base small, until the store is to stop.
fn keep_moving(shared: &Shared) -> Result<(), Failed> {
    let store = shared.core.store();
    while !store.is_stopped() {
        let more = store.move_oldest()? | store.compact()?;
        if !more {
            store.wait_to_move(COMPACT_EVERY);
        }
    }
    Ok(())
}
