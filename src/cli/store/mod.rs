//! `rotamq store`: what is in a data folder, a copy of it, and all of it as
//! lines of JSON.
//!
//! Owns what is said of a folder, and who may have it: to look at one nothing
//! is written to it, and no broker has it. Only a backup is asked of the
//! broker that runs on the folder, if one does.

mod lines;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;
use serde::Serialize;
use serde_json::{Value, json};

use self::lines::{Exporter, Importer};
use super::arguments::Configured;
use super::progress::Progress;
use super::{Failure, Outcome, say};
use crate::broker::transfer::{About, Left, Stored, read_all};
use crate::config::StoreSettings;
use crate::journal::ListId;
use crate::run::control::{Answer, AskError, Request, ask};
use crate::store::backup::{Copied, Target, UNFINISHED, copy_closed};
use crate::store::disk::Disk;
use crate::store::frozen::Frozen;
use crate::store::{self, Damage, Report, Settings, Store};

/// A line of an export: a payload of 2^28 bytes in base64, and its message.
const LINE_BYTES_MAX: u64 = 1 << 30;

/// What `rotamq store` is told.
#[derive(clap::Args, Clone, Debug)]
pub struct StoreArguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Verify every record of a data folder, and tell what is there
    ///
    /// Changes nothing in the folder. No broker may run on it: look at a backup
    /// of one that does. Exit code 1 when something is damaged.
    #[command(after_help = "\
Examples:
  rotamq store check
  rotamq store check /backup/monday --json")]
    Check {
        /// The data folder; without it, that of the configuration
        dir: Option<PathBuf>,
        /// Print what is found as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        configured: Configured,
    },
    /// Write everything in a data folder as lines of JSON
    ///
    /// One object a line: sessions, subscriptions, queues, messages, retained
    /// messages. Changes nothing in the folder; no broker may run on it.
    #[command(after_help = "\
Examples:
  rotamq store export rotamq-data > all.jsonl
  rotamq store export --out all.jsonl")]
    Export {
        /// The data folder; without it, that of the configuration
        dir: Option<PathBuf>,
        /// Write to this new file, not to standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        #[command(flatten)]
        configured: Configured,
    },
    /// Fill an empty data folder with what was exported
    #[command(after_help = "\
Examples:
  rotamq store import all.jsonl new-data")]
    Import {
        /// What `rotamq store export` has written; - is standard input
        file: PathBuf,
        /// The data folder, empty or to be made; without it, that of the configuration
        dir: Option<PathBuf>,
        /// Print how much it was as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        configured: Configured,
    },
    /// Copy a data folder, also while a broker runs on it
    ///
    /// A running broker makes the copy itself, as the user that it runs as, and
    /// serves on: all that it has acknowledged by the time of the request is in
    /// it. The copy is a data folder like any other.
    #[command(after_help = "\
Examples:
  rotamq store backup /backup/monday
  rotamq store backup /backup/monday --data /var/lib/rotamq")]
    Backup {
        /// Where the copy goes: a folder that is empty or to be made
        dest: PathBuf,
        /// The data folder; without it, that of the configuration
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Print how much it was as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        configured: Configured,
    },
}

/// What the configuration says of the store, with this folder in place of its own.
fn settings(configured: &Configured, dir: Option<PathBuf>) -> Result<StoreSettings, Failure> {
    let mut settings = configured.load()?.store;
    if let Some(dir) = dir {
        settings.data = dir;
    }
    Ok(settings)
}

/// Checks, exports, imports or copies.
///
/// # Errors
/// Why that could not be done, or not with all that was there.
pub fn run(arguments: StoreArguments) -> Outcome {
    match arguments.command {
        Command::Check {
            dir,
            json,
            configured,
        } => check(&settings(&configured, dir)?, json),
        Command::Export {
            dir,
            out,
            configured,
        } => export(&settings(&configured, dir)?, out.as_deref()),
        Command::Import {
            file,
            dir,
            json,
            configured,
        } => import(&file, &settings(&configured, dir)?, json),
        Command::Backup {
            dest,
            data,
            json,
            configured,
        } => backup(&dest, &settings(&configured, data)?, json),
    }
}

/// A folder that is only looked at, its store opened.
struct Looked {
    store: Store,
    report: Report,
    log: Files,
    base: Files,
    /// Left by earlier starts.
    damaged: usize,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Files {
    count: usize,
    bytes: u64,
}

fn freeze(dir: &Path, busy: &str) -> Result<Frozen, Failure> {
    let shown = dir.display();
    Frozen::open(dir).map_err(|error| {
        Failure::new(match error.kind() {
            io::ErrorKind::ResourceBusy => {
                format!("a broker runs on the data folder {shown}: {busy}")
            }
            io::ErrorKind::NotFound => format!("there is no data folder {shown}"),
            _ => format!("cannot read the data folder {shown}: {error}"),
        })
    })
}

fn store_settings(settings: &StoreSettings) -> Settings {
    Settings {
        log_bytes_max: settings.log_bytes_max,
        free_bytes_min: settings.free_bytes_min,
    }
}

impl Looked {
    fn at(settings: &StoreSettings) -> Result<Looked, Failure> {
        let (dir, shown) = (&settings.data, settings.data.display());
        let busy = "stop it first, or make a copy with `rotamq store backup` and look at that";
        let frozen = freeze(dir, busy)?;
        let unreadable =
            |error| Failure::new(format!("cannot read the data folder {shown}: {error}"));
        let (mut log, mut base, mut damaged) = (Files::default(), Files::default(), 0);
        for name in frozen.names().map_err(unreadable)? {
            let files = match name.split('-').next() {
                Some("log") => &mut log,
                Some("base") => &mut base,
                Some("damaged") => {
                    damaged += 1;
                    continue;
                }
                _ => continue,
            };
            files.count += 1;
            files.bytes += frozen
                .open(&name)
                .and_then(|file| file.len())
                .map_err(unreadable)?;
        }
        let is_unfinished = frozen.open(UNFINISHED).is_ok();
        if log.count + base.count == 0 && !is_unfinished {
            return Err(Failure::new(format!(
                "there is no store in the folder {shown}"
            )));
        }
        let progress = Progress::of_bytes("verifying", log.bytes + base.bytes);
        let opened = Store::open(Arc::new(frozen), store_settings(settings));
        let (store, mut report) = opened
            .map_err(|error| Failure::new(format!("cannot open the store in {shown}: {error}")))?;
        progress.add(log.bytes);
        let verified = store.verify(&mut |bytes| progress.add(bytes));
        for damage in verified.map_err(unreadable)? {
            let is_known =
                |known: &Damage| (&known.file, &known.range) == (&damage.file, &damage.range);
            if !report.damage.iter().any(is_known) {
                report.damage.push(damage);
            }
        }
        Ok(Looked {
            store,
            report,
            log,
            base,
            damaged,
        })
    }

    /// How far it is with all that there is.
    fn progress(&self, what: &str) -> Progress {
        let progress = Progress::of_many(what);
        progress.expect(self.store.numbers().keys as u64 + self.report.rows);
        progress
    }

    /// What is said of damage, a line each; none: there is none.
    fn wrong(&self, left: Left) -> Vec<String> {
        let damage = self
            .report
            .damage
            .iter()
            .filter(|damage| !damage.unfinished);
        let mut lines: Vec<_> = damage.map(in_words).collect();
        let lost_rows = self.report.lost_rows + left.lost_rows;
        for (count, what) in [
            (lost_rows, "messages that are stored and cannot be read"),
            (
                self.report.lost_records,
                "records of the log that mean nothing to this program",
            ),
            (
                left.unknown as u64,
                "records that mean nothing to this program",
            ),
        ] {
            if count > 0 {
                lines.push(format!("{what}: {count}"));
            }
        }
        lines
    }
}

/// Without where it is copied to: nothing was.
fn in_words(damage: &Damage) -> String {
    let (from, to) = (damage.range.start, damage.range.end);
    format!("{}, bytes {from} to {to}: {}", damage.file, damage.what)
}

/// What a store has.
#[derive(Default)]
struct Counts {
    sessions: usize,
    subscriptions: usize,
    received: usize,
    releasing: usize,
    retained: usize,
    /// Their names, and the messages in them.
    queues: BTreeMap<ListId, (String, usize)>,
    messages: usize,
}

impl Counts {
    fn add(&mut self, stored: &Stored<'_>) {
        match stored {
            Stored::Clock(_) => {}
            Stored::Session(..) => self.sessions += 1,
            Stored::List(list, record) => {
                self.queues.insert(*list, (record.name.clone(), 0));
            }
            Stored::Subscription(..) => self.subscriptions += 1,
            Stored::Received(..) => self.received += 1,
            Stored::Releasing(..) => self.releasing += 1,
            Stored::Remembered(..) => {}
            Stored::Row(row) => match row.about {
                About::Job { queue, .. } => {
                    let name = self.queues.get_mut(&queue);
                    name.into_iter().for_each(|(_, messages)| *messages += 1);
                }
                About::Message { .. } => self.messages += 1,
            },
            Stored::Retained(_) => self.retained += 1,
        }
    }
}

fn check(settings: &StoreSettings, json: bool) -> Outcome {
    let looked = Looked::at(settings)?;
    let progress = looked.progress("reading");
    let mut counts = Counts::default();
    let left = read_all(&looked.store, &mut |stored| {
        counts.add(&stored);
        progress.add(1);
        Ok(())
    });
    drop(progress);
    let left = left.map_err(|error| unreadable(settings, &error))?;
    let wrong = looked.wrong(left);
    say(
        json,
        &found(settings, &looked, &counts, left, &wrong),
        || said(settings, &looked, &counts, left, &wrong),
    )?;
    Ok(match wrong.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn unreadable(settings: &StoreSettings, error: &io::Error) -> Failure {
    let shown = settings.data.display();
    Failure::new(format!("what is stored in {shown} cannot be read: {error}"))
}

/// What [`said`] says.
fn found(
    settings: &StoreSettings,
    looked: &Looked,
    counts: &Counts,
    left: Left,
    wrong: &[String],
) -> Value {
    let queues = counts.queues.values();
    let queues = queues.map(|(name, messages)| json!({ "name": name, "messages": messages }));
    let unfinished = looked.report.damage.iter();
    let unfinished = unfinished.filter(|damage| damage.unfinished);
    json!({
        "folder": settings.data.display().to_string(),
        "form": store::FORM,
        "log": looked.log,
        "base": looked.base,
        "sessions": counts.sessions,
        "subscriptions": counts.subscriptions,
        "messages": counts.messages,
        "packet_ids_in_flight": counts.received + counts.releasing,
        "queues": queues.collect::<Vec<_>>(),
        "retained": counts.retained,
        "orphans": left.orphans,
        "files_set_aside": looked.damaged,
        "unfinished": unfinished.map(in_words).collect::<Vec<_>>(),
        "damage": wrong,
    })
}

fn said(
    settings: &StoreSettings,
    looked: &Looked,
    counts: &Counts,
    left: Left,
    wrong: &[String],
) -> String {
    let mut text = String::new();
    let (log, base) = (looked.log, looked.base);
    let mut line = |what: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        _ = writeln!(text, "{what}");
    };
    line(format_args!(
        "{}: form {}, {} bytes: {} in {} files of the log, {} in {} of the base",
        settings.data.display(),
        store::FORM,
        log.bytes + base.bytes,
        log.bytes,
        log.count,
        base.bytes,
        base.count
    ));
    line(format_args!(
        "sessions: {}, subscriptions: {}, messages: {}, packet ids in flight: {}",
        counts.sessions,
        counts.subscriptions,
        counts.messages,
        counts.received + counts.releasing
    ));
    for (name, messages) in counts.queues.values() {
        line(format_args!("queue {name:?}, messages: {messages}"));
    }
    line(format_args!("retained messages: {}", counts.retained));
    if left.orphans > 0 {
        line(format_args!(
            "messages of sessions or queues that are no more, which the next start removes: {}",
            left.orphans
        ));
    }
    for damage in looked
        .report
        .damage
        .iter()
        .filter(|damage| damage.unfinished)
    {
        line(format_args!("not damage: {}", in_words(damage)));
    }
    if looked.damaged > 0 {
        line(format_args!(
            "files damaged-*, with what earlier starts could not read: {}",
            looked.damaged
        ));
    }
    for wrong in wrong {
        line(format_args!("damage: {wrong}"));
    }
    line(format_args!("damage found: {}", wrong.len()));
    text
}

fn export(settings: &StoreSettings, out: Option<&Path>) -> Outcome {
    let looked = Looked::at(settings)?;
    // Not among the lines, where these are seen.
    let is_seen = out.is_none() && io::stdout().is_terminal();
    let progress = (!is_seen).then(|| looked.progress("writing"));
    let count = || progress.iter().for_each(|progress| progress.add(1));
    let exported = match out {
        Some(path) => {
            let unwritable =
                |error| Failure::new(format!("cannot write {}: {error}", path.display()));
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path);
            let mut file = BufWriter::new(file.map_err(unwritable)?);
            let exported = write_lines(&looked.store, &mut file, &count);
            let synced = file.flush().and_then(|()| file.get_ref().sync_all());
            let exported = exported.and_then(|exported| synced.map(|()| exported));
            if exported.is_err() {
                // Nobody is to take it for all that there was.
                _ = fs::remove_file(path);
            }
            exported.map_err(unwritable)?
        }
        None => {
            let mut stdout = BufWriter::new(io::stdout().lock());
            let exported = write_lines(&looked.store, &mut stdout, &count);
            match exported.and_then(|exported| stdout.flush().map(|()| exported)) {
                // Who reads has seen enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Ok(ExitCode::SUCCESS);
                }
                exported => exported
                    .map_err(|error| Failure::new(format!("cannot export all of it: {error}")))?,
            }
        }
    };
    let wrong = looked.wrong(exported);
    if wrong.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::new(format!(
        "what is damaged is missing in the export:\n{}",
        wrong.join("\n")
    )))
}

/// `written` is told of each.
fn write_lines(store: &Store, to: &mut dyn Write, written: &dyn Fn()) -> io::Result<Left> {
    let mut exporter = Exporter::default();
    to.write_all(exporter.begin().as_bytes())?;
    let mut left = read_all(store, &mut |stored| {
        written();
        match exporter.line(&stored) {
            Some(line) => to.write_all(line.as_bytes()),
            None => Ok(()),
        }
    })?;
    left.unknown += exporter.homeless;
    to.write_all(exporter.end().as_bytes())?;
    Ok(left)
}

fn import(file: &Path, settings: &StoreSettings, json: bool) -> Outcome {
    let shown = file.display();
    let unreadable = |error| Failure::new(format!("cannot read {shown}: {error}"));
    let (from, bytes): (Box<dyn Read>, _) = match file.as_os_str() == "-" {
        true => (Box::new(io::stdin()), None),
        false => {
            let file = fs::File::open(file).map_err(unreadable)?;
            let bytes = file.metadata().map_err(unreadable)?.len();
            (Box::new(file), Some(bytes))
        }
    };
    let progress = match bytes {
        Some(bytes) => Progress::of_bytes("importing", bytes),
        None => Progress::counting_bytes("importing"),
    };
    let from = progress.reads(from);
    // Declared first, so that it clears the folder when all else is closed.
    let (target, folder) = Target::begin(&settings.data)?;
    let folder: Arc<dyn Disk> = Arc::new(folder);
    let (store, _) = Store::open(folder.clone(), store_settings(settings))?;
    let unwritable = |error| {
        Failure::new(format!(
            "cannot write to {}: {error}",
            settings.data.display()
        ))
    };
    folder.create(UNFINISHED, 0).map_err(unwritable)?;
    let lines = read_lines(&mut BufReader::new(from), &store)
        .map_err(|error| Failure::new(format!("{shown}: {error}")))?;
    store.close()?;
    folder.remove(UNFINISHED).map_err(unwritable)?;
    target.keep();
    drop(progress);
    let shown = settings.data.display().to_string();
    say(json, &json!({ "lines": lines, "to": shown }), || {
        format!("{lines} lines imported into {shown}.\n")
    })
}

/// How many there were.
fn read_lines(from: &mut impl BufRead, store: &Store) -> Result<u64, String> {
    let mut importer = Importer::new(store);
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let of_line = |error: &str| format!("line {number}: {error}");
        let read = from
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line);
        if read.map_err(|error| of_line(&error.to_string()))? == 0 {
            break;
        }
        if line.last() != Some(&b'\n') && line.len() as u64 == LINE_BYTES_MAX {
            return Err(of_line(&format!("it has more than {LINE_BYTES_MAX} bytes")));
        }
        let text =
            str::from_utf8(&line).map_err(|error| of_line(&format!("it is no UTF-8: {error}")))?;
        importer.line(text).map_err(|error| of_line(&error))?;
    }
    importer.end()
}

fn backup(dest: &Path, settings: &StoreSettings, json: bool) -> Outcome {
    let to = std::path::absolute(dest)?;
    let data = std::path::absolute(&settings.data)?;
    let shown = to.display();
    if to.starts_with(&data) {
        return Err(Failure::new(format!(
            "{shown} is in the data folder itself: give another folder"
        )));
    }
    if to.to_str().is_none() {
        return Err(Failure::new(format!("the path {shown} is no UTF-8")));
    }
    let progress = Progress::waiting("copying");
    let copied = match ask(&data, &Request::Backup { to: to.clone() }) {
        Ok(Answer::BackedUp { files, bytes }) => Copied { files, bytes },
        Ok(Answer::Error(error)) => return Err(Failure::new(error)),
        Ok(_) => return Err(Failure::new("the broker answered something else")),
        Err(AskError::Nobody) => backup_closed(&data, &to, settings)?,
        Err(error) => return Err(Failure::new(format!("{}: {error}", data.display()))),
    };
    drop(progress);
    let Copied { files, bytes } = copied;
    let told = json!({ "files": files, "bytes": bytes, "to": to });
    say(json, &told, || {
        format!("{files} files with {bytes} bytes copied to {shown}.\n")
    })
}

fn backup_closed(data: &Path, to: &Path, settings: &StoreSettings) -> Result<Copied, Failure> {
    let frozen = freeze(data, "it is just starting or stopping, try again")?;
    let (target, folder) = Target::begin(to)?;
    let copied = copy_closed(&frozen, &folder, settings.free_bytes_min)?;
    target.keep();
    Ok(copied)
}
