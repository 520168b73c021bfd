//! The ledger: what the clients of a load did and saw, a line an event.
//!
//! What a client is about to send is in the ledger first, and so is what it
//! takes as received before it says so. A client can thus be made again from
//! its lines after it was killed at any moment, and nothing is held against
//! the broker that it was not told, or did not tell.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::plan::{ClientNumber, MessageKey, Plan};
use crate::wire::PacketId;

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Since 1970, by the system's clock.
    pub micros: u64,
    pub client: ClientNumber,
    pub event: Event,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// CONNECT is about to be sent.
    Connect,
    ConnAck {
        present: bool,
    },
    /// The connection is gone.
    Lost,
    /// The broker said DISCONNECT, with this reason.
    Dismissed {
        code: u8,
    },
    /// DISCONNECT is about to be sent.
    Leave,
    Subscribe {
        id: PacketId,
        filter: String,
    },
    SubAck {
        id: PacketId,
        code: u8,
    },
    Unsubscribe {
        id: PacketId,
        filter: String,
    },
    UnsubAck {
        id: PacketId,
        code: u8,
    },
    /// A message is about to be sent for the first time. 0 bytes: it clears
    /// what is retained.
    Publish {
        id: PacketId,
        number: u64,
        bytes: usize,
        retain: bool,
        topic: String,
    },
    /// It is about to be sent once more.
    Again {
        id: PacketId,
    },
    PubAck {
        id: PacketId,
        code: u8,
    },
    PubRec {
        id: PacketId,
        code: u8,
    },
    PubComp {
        id: PacketId,
    },
    /// A message came. At QoS 2, one that is not known to be a repetition.
    Got {
        id: PacketId,
        qos: u8,
        message: MessageKey,
    },
    /// A QoS 2 message came again before it was released.
    Repeated {
        id: PacketId,
        message: MessageKey,
    },
    /// What came is about to be acknowledged: PUBACK, or PUBREC.
    Done {
        id: PacketId,
        message: MessageKey,
    },
    /// What came is about to be rejected: it cannot ever be done.
    Reject {
        id: PacketId,
        message: MessageKey,
    },
    /// PUBREL came.
    Released {
        id: PacketId,
    },
    /// What a new subscriber got for this topic.
    Retained {
        topic: String,
        message: Option<MessageKey>,
    },
    /// Something that may not be, in words.
    Wrong {
        what: String,
    },
}

/// Where entries go.
pub struct Ledger {
    file: File,
    unwritten: Vec<u8>,
}

impl Ledger {
    /// A new one, or one that is continued: the plan that it begins with, and
    /// its entries.
    ///
    /// # Errors
    /// If the file cannot be read or written, or holds something else.
    pub fn open(
        path: &Path,
        plan: impl FnOnce() -> Plan,
    ) -> Result<(Ledger, Plan, Vec<Entry>), String> {
        let failed = |error: io::Error| format!("the ledger {}: {error}", path.display());
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(failed)?;
        let text = io::read_to_string(&mut file).map_err(failed)?;
        let mut ledger = Ledger {
            file,
            unwritten: Vec::new(),
        };
        if text.is_empty() {
            let plan = plan();
            let queues = if plan.with_queues {
                "queues"
            } else {
                "no-queues"
            };
            _ = writeln!(
                ledger.unwritten,
                "load {} {} {queues}",
                plan.name, plan.seed
            );
            ledger.write()?;
            return Ok((ledger, plan, Vec::new()));
        }
        // Whoever wrote the last line may have been killed within it. What it
        // tells of was not done then.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        if whole < text.len() {
            ledger.file.set_len(whole as u64).map_err(failed)?;
        }
        let (plan, entries) = read(&text[..whole])
            .map_err(|error| format!("the ledger {}: {error}", path.display()))?;
        Ok((ledger, plan, entries))
    }

    /// Notes it; [`Ledger::write`] has to come before anybody is told of it.
    pub fn append(&mut self, plan: &Plan, client: ClientNumber, event: Event) -> Entry {
        let entry = Entry {
            // Not an earlier moment for several: what came would seem to have
            // come before it was due.
            micros: micros_now(),
            client,
            event,
        };
        let name = &plan.clients[client].name;
        // Writing into memory does not fail.
        _ = writeln!(self.unwritten, "{} {name} {}", entry.micros, entry.event);
        entry
    }

    /// Hands all that was appended to the system, in one write of whole lines.
    ///
    /// # Errors
    /// If the system does not take it.
    pub fn write(&mut self) -> Result<(), String> {
        if !self.unwritten.is_empty() {
            (self.file.write_all(&self.unwritten))
                .map_err(|error| format!("cannot write the ledger: {error}"))?;
            self.unwritten.clear();
        }
        Ok(())
    }
}

/// The plan and the entries of a ledger that nobody writes.
///
/// # Errors
/// If it cannot be read, or holds something else.
pub fn read_file(path: &Path) -> Result<(Plan, Vec<Entry>), String> {
    (fs::read_to_string(path).map_err(|error| error.to_string()))
        .and_then(|text| read(&text))
        .map_err(|error| format!("the ledger {}: {error}", path.display()))
}

/// The plan and the entries of a ledger's text.
///
/// # Errors
/// The first line that is none of a ledger's.
fn read(text: &str) -> Result<(Plan, Vec<Entry>), String> {
    let mut lines = text.lines().enumerate();
    let (_, first) = lines.next().ok_or("it is empty")?;
    let plan = match first.split(' ').collect::<Vec<_>>()[..] {
        ["load", name, seed, queues @ ("queues" | "no-queues")] => {
            let seed = seed.parse().map_err(|_| format!("{seed:?} is no seed"))?;
            Plan::new(name, seed, queues == "queues")
        }
        _ => {
            return Err(format!(
                "it does not begin as a ledger does, but with {first:?}"
            ));
        }
    };
    let entries = lines
        .map(|(at, line)| {
            entry_of(&plan, line)
                .ok_or_else(|| format!("line {}: {line:?} is none of a ledger's", at + 1))
        })
        .collect::<Result<_, _>>()?;
    Ok((plan, entries))
}

fn entry_of(plan: &Plan, line: &str) -> Option<Entry> {
    let mut words = line.splitn(4, ' ');
    let micros = words.next()?.parse().ok()?;
    let client = plan.client_named(words.next()?)?;
    let verb = words.next()?;
    let rest = words.next().unwrap_or_default();
    let words: Vec<&str> = rest.split(' ').collect();
    let id = |at: usize| words.get(at)?.parse::<PacketId>().ok();
    let code = |at: usize| words.get(at)?.parse::<u8>().ok();
    let text = |at: usize| Some((*words.get(at)?).to_owned());
    let message = |at: usize| {
        Some(MessageKey {
            publisher: words.get(at)?.parse().ok()?,
            number: words.get(at + 1)?.parse().ok()?,
        })
    };
    let event = match verb {
        "connect" => Event::Connect,
        "connack" => Event::ConnAck {
            present: words[0] == "present",
        },
        "lost" => Event::Lost,
        "dismissed" => Event::Dismissed { code: code(0)? },
        "leave" => Event::Leave,
        "subscribe" => Event::Subscribe {
            id: id(0)?,
            filter: text(1)?,
        },
        "suback" => Event::SubAck {
            id: id(0)?,
            code: code(1)?,
        },
        "unsubscribe" => Event::Unsubscribe {
            id: id(0)?,
            filter: text(1)?,
        },
        "unsuback" => Event::UnsubAck {
            id: id(0)?,
            code: code(1)?,
        },
        "publish" => Event::Publish {
            id: id(0)?,
            number: words.get(1)?.parse().ok()?,
            bytes: words.get(2)?.parse().ok()?,
            retain: *words.get(3)? == "retain",
            topic: text(4)?,
        },
        "again" => Event::Again { id: id(0)? },
        "puback" => Event::PubAck {
            id: id(0)?,
            code: code(1)?,
        },
        "pubrec" => Event::PubRec {
            id: id(0)?,
            code: code(1)?,
        },
        "pubcomp" => Event::PubComp { id: id(0)? },
        "got" => Event::Got {
            id: id(0)?,
            qos: code(1)?,
            message: message(2)?,
        },
        "repeated" => Event::Repeated {
            id: id(0)?,
            message: message(1)?,
        },
        "done" => Event::Done {
            id: id(0)?,
            message: message(1)?,
        },
        "reject" => Event::Reject {
            id: id(0)?,
            message: message(1)?,
        },
        "released" => Event::Released { id: id(0)? },
        "retained" => Event::Retained {
            topic: text(0)?,
            message: message(1),
        },
        "wrong" => Event::Wrong {
            what: rest.to_owned(),
        },
        _ => return None,
    };
    Some(Entry {
        micros,
        client,
        event,
    })
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Connect => write!(f, "connect"),
            Event::ConnAck { present: true } => write!(f, "connack present"),
            Event::ConnAck { present: false } => write!(f, "connack new"),
            Event::Lost => write!(f, "lost"),
            Event::Dismissed { code } => write!(f, "dismissed {code}"),
            Event::Leave => write!(f, "leave"),
            Event::Subscribe { id, filter } => write!(f, "subscribe {id} {filter}"),
            Event::SubAck { id, code } => write!(f, "suback {id} {code}"),
            Event::Unsubscribe { id, filter } => write!(f, "unsubscribe {id} {filter}"),
            Event::UnsubAck { id, code } => write!(f, "unsuback {id} {code}"),
            Event::Publish {
                id,
                number,
                bytes,
                retain,
                topic,
            } => {
                let retain = if *retain { "retain" } else { "-" };
                write!(f, "publish {id} {number} {bytes} {retain} {topic}")
            }
            Event::Again { id } => write!(f, "again {id}"),
            Event::PubAck { id, code } => write!(f, "puback {id} {code}"),
            Event::PubRec { id, code } => write!(f, "pubrec {id} {code}"),
            Event::PubComp { id } => write!(f, "pubcomp {id}"),
            Event::Got { id, qos, message } => write!(f, "got {id} {qos} {message}"),
            Event::Repeated { id, message } => write!(f, "repeated {id} {message}"),
            Event::Done { id, message } => write!(f, "done {id} {message}"),
            Event::Reject { id, message } => write!(f, "reject {id} {message}"),
            Event::Released { id } => write!(f, "released {id}"),
            Event::Retained {
                topic,
                message: Some(message),
            } => write!(f, "retained {topic} {message}"),
            Event::Retained {
                topic,
                message: None,
            } => write!(f, "retained {topic}"),
            Event::Wrong { what } => write!(f, "wrong {}", what.replace('\n', " ")),
        }
    }
}

impl fmt::Display for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.publisher, self.number)
    }
}

fn micros_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}
