//! Readers of the log that go on after a restart where they were: each has a cursor under its name (`log_cursors`).
//!
//! Invariant: what one of [`ALL`] has not read is not trimmed from the log.

use myelin_core::Position;

use crate::{
    Batch, CommitError, Direction, Error, Store,
    log::LogEntry,
    tables::{Cursor, LOG, LOG_CURSORS},
};

/// Queues for other servers.
pub const FEDERATION: &str = "federation";
pub const DEVICE_LISTS: &str = "device_lists";
pub const MEMBER_UPKEEP: &str = "member_upkeep";
/// The search index has its cursor beside it, and is made anew if the log does not reach back to it.
pub const ALL: [&str; 3] = [FEDERATION, DEVICE_LISTS, MEMBER_UPKEEP];

/// Log rows read at a time, and the least distance after which an idle cursor is written down.
const PAGE: usize = 1024;
const UNWRITTEN_MAX: u64 = 10_000;

/// Reads the log in order, and notes how far its effects are done.
pub struct LogReader {
    store: Store,
    name: &'static str,
    done: Position,
    written: Position,
}

impl LogReader {
    pub async fn resume(store: &Store, name: &'static str) -> Result<Self, Error> {
        let cursor = store.get(&LOG_CURSORS, &name.to_owned()).await?;
        let done = cursor.map_or(Position::ZERO, |cursor| cursor.position);
        Ok(Self { store: store.clone(), name, done, written: done })
    }

    /// Completes when there is something to read.
    pub async fn wait(&self) {
        self.store.wait_past(self.done).await;
    }

    pub async fn page(&self) -> Result<Vec<(Position, LogEntry)>, Error> {
        let until = self.store.position().next();
        self.store.range(&LOG, &self.done.next(), &until, Direction::Forward, PAGE).await
    }

    /// The effects of a page are done. `any`: there were some, and they should not be repeated.
    pub async fn advance(&mut self, page: &[(Position, LogEntry)], any: bool) -> Result<(), CommitError> {
        self.done = page.last().map_or(self.done, |(position, _)| *position);
        if any || self.done.0 - self.written.0 > UNWRITTEN_MAX {
            let mut batch = Batch::new();
            batch.put(&LOG_CURSORS, &self.name.to_owned(), &Cursor { position: self.done });
            self.store.commit(batch).await?;
            self.written = self.done;
        }
        Ok(())
    }
}
