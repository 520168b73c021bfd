//! RotaMQ: an MQTT broker that is also a work-queue server.
//!
//! To run a broker inside a program or a test, see [`Broker`]. The program of
//! the same name is this library behind a command line.
//!
//! # Reading order
//!
//! A PUBLISH meets the modules in this order; each opens with what it owns and
//! what it never does.
//!
//! | module | owns |
//! |---|---|
//! | [`cli`] | the commands: the broker, clients, what looks at a running broker and steers it, files |
//! | [`config`] | what can be set, as valid values |
//! | [`run`] | starting, changing and stopping everything |
//! | `admin` | the HTTP port: API, dashboard, metrics |
//! | [`logbook`] | the last lines of the log, and its level |
//! | [`net`] | sockets, transports, the async runtime, one task a connection |
//! | [`protocol`] | bytes to packets and back |
//! | [`broker`] | who is there; joins the pure parts |
//! | [`authentication`] | who a client is |
//! | [`access`] | who may do what |
//! | [`router`] | who gets a message: the topic tree, retained messages |
//! | [`queue`] | jobs, turns and leases: work queues and share groups |
//! | [`session`] | one client's conversation: what is in flight, what waits |
//! | [`journal`], [`store`] | what is to be stored; the files that hold it |
//! | [`topic`], [`message`], [`mount`], [`origin`], `pattern`, `slots`, `versions`, `bucket`, `base64`, `process` | the nouns, the forms and the table that all use |
//! | [`tally`] | what is counted of every packet |
//!
//! # Invariants
//!
//! - Dependencies point one way: `main → cli → run → admin → net → broker → {session →
//!   protocol, router, queue, store} → journal, topic, message`. Session,
//!   router, queue and store do not name each other, and nothing names `net`.
//! - Everything but `net`, `run`, `store` and `cli` is pure: no sockets, no
//!   clock, no files but the one that `config` reads. A moment is an argument.
//!   `authentication` reads its own files, and asks services of the operator's.
//! - Locks are taken in this order: the worker's pin, list changes, router,
//!   queue, session, the store's open batch; never two of a kind at once, never
//!   across an await.
//! - A message is acknowledged after everybody who must have it has it, on
//!   disk where that outlives the broker.

#![forbid(unsafe_code)]

pub mod access;
mod admin;
pub mod authentication;
pub mod base64;
pub mod broker;
mod bucket;
pub mod cli;
pub mod config;
pub mod journal;
pub mod logbook;
pub mod message;
pub mod mount;
pub mod net;
pub mod origin;
mod pattern;
mod process;
pub mod protocol;
pub mod queue;
pub mod router;
pub mod run;
pub mod session;
mod slots;
pub mod store;
pub mod tally;
pub mod topic;
mod versions;

pub use run::Broker;
