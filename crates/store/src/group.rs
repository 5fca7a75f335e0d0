//! Group commit, as engines share it: what batches taken in order come to. Who is refused, who gets which positions,
//! and the rows that are left to write.

use std::collections::HashMap;

use bytes::Bytes;
use myelin_core::Position;

use crate::{
    backend::{Committed, Precondition, RawBatch, Write},
    codec::KeyPart,
    error::{CommitError, Error},
    tables::{self, LOG, TableId},
};

/// Batches and bytes that share one fsync at most; what is left makes the next group.
pub const GROUP_BATCHES_MAX: usize = 1024;
pub const GROUP_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes that may wait for the writer before batches are refused.
pub const QUEUE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A row's table and key in one: the table id, then the key.
pub fn stored_key(table: TableId, key: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(1 + key.len());
    stored.push(table.0);
    stored.extend_from_slice(key);
    stored
}

/// The outcome of batches taken in order, each seeing those before it.
pub struct Group<F> {
    /// Loads what was committed before the group, by stored key.
    load: F,
    /// Last position used.
    pub position: Position,
    /// Rows by stored key; `None` is a deletion. The last write of a key is the only one.
    pub rows: HashMap<Vec<u8>, Option<Vec<u8>>>,
}

impl<F: Fn(&[u8]) -> Result<Option<Bytes>, Error>> Group<F> {
    pub fn new(position: Position, load: F) -> Self {
        Self { load, position, rows: HashMap::new() }
    }

    /// Takes a batch in, entirely or not at all.
    pub fn add(&mut self, batch: RawBatch) -> Result<Committed, CommitError> {
        for condition in &batch.preconditions {
            if !self.holds(condition)? {
                return Err(CommitError::Conflict { table: tables::name_of(condition.table()) });
            }
        }
        self.position = self.position.max(batch.raise_to.unwrap_or_default());
        let first = self.position.next();
        self.rows.reserve(batch.writes.len() + batch.entries.len());
        for write in batch.writes {
            self.write(write, first);
        }
        for entry in batch.entries {
            self.position = self.position.next();
            self.rows.insert(stored_key(LOG.id, &self.position.to_key().bytes), Some(entry));
        }
        Ok(Committed { first, last: self.position })
    }

    fn holds(&self, condition: &Precondition) -> Result<bool, Error> {
        let key = stored_key(condition.table(), condition.key());
        match self.rows.get(&key) {
            Some(written) => Ok(condition.holds(written.as_deref())),
            None => Ok(condition.holds((self.load)(&key)?.as_deref())),
        }
    }

    fn write(&mut self, write: Write, first: Position) {
        match write {
            Write::Put { table, key, value } => {
                let key = stored_key(table, &key.resolve(first));
                self.rows.insert(key, Some(value.resolve(first)));
            }
            Write::Delete { table, key } => {
                self.rows.insert(stored_key(table, &key), None);
            }
        }
    }
}

impl RawBatch {
    /// Memory that the batch takes up, roughly.
    pub fn bytes(&self) -> usize {
        const ROW_BYTES: usize = 64;
        let conditions = self.preconditions.iter().map(|condition| match condition {
            Precondition::Absent { key, .. } => key.len(),
            Precondition::Equals { key, value, .. } => key.len() + value.len(),
        });
        let writes = self.writes.iter().map(|write| match write {
            Write::Put { key, value, .. } => key.bytes.len() + value.bytes.len(),
            Write::Delete { key, .. } => key.len(),
        });
        let entries = self.entries.iter().map(Vec::len);
        conditions.chain(writes).chain(entries).map(|bytes| bytes + ROW_BYTES).sum()
    }
}
