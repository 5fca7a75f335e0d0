//! The store port: an ordered key-value core with typed tables, atomic batches with preconditions, and the commit
//! log whose order is the order of positions (DESIGN 1 and 4).
//!
//! - [`backend`]: what an engine must do, in bytes. Engines are leaf crates and make no Matrix decisions.
//! - [`Store`]: the typed face of a backend; all that the domain crates see.
//! - [`group`]: group commit, as engines share it.
//! - [`tables`]: every table, its key and its value, in one place.
//! - [`log`]: what a commit tells its readers.
//! - [`readers`]: who reads it from a durable cursor.
//! - [`outbox`]: what has to arrive at other servers besides events.
//! - [`memory`]: the backend for tests and simulation.
//! - [`maintenance`]: verify, copy (backup, moving between engines).
//! - `conformance` (feature): the one suite that every backend passes.
//!
//! Must not know: events' rules, rooms, accounts, HTTP.

pub mod backend;
mod batch;
pub mod codec;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod error;
mod format;
pub mod group;
pub mod log;
pub mod maintenance;
pub mod memory;
mod nids;
pub mod outbox;
pub mod readers;
mod store;
pub mod tables;

pub use batch::Batch;
pub use error::{CommitError, Error};
pub use nids::{NidAllocator, NidKind};
pub use store::{Direction, Read, Snapshot, Store};
