//! What a group of batches comes to: who is refused, who gets which positions, and the rows that are left to write.

use std::collections::HashMap;

use myelin_core::Position;
use myelin_store::{
    CommitError, Error,
    backend::{Committed, Precondition, RawBatch, Write},
    codec::KeyPart,
    tables::{self, LOG},
};

use crate::engine::{Engine, stored_key};

/// The outcome of batches taken in order, each seeing those before it.
pub(crate) struct Group<'a> {
    engine: &'a Engine,
    /// Last position used.
    pub(crate) position: Position,
    /// Rows by stored key; `None` is a deletion. The last write of a key is the only one: fjall gives a whole group
    /// one sequence number, under which a key can have one value.
    pub(crate) rows: HashMap<Vec<u8>, Option<Vec<u8>>>,
}

impl<'a> Group<'a> {
    pub(crate) fn new(engine: &'a Engine, position: Position) -> Self {
        Self { engine, position, rows: HashMap::new() }
    }

    /// Takes a batch in, entirely or not at all.
    pub(crate) fn add(&mut self, batch: RawBatch) -> Result<Committed, CommitError> {
        for condition in &batch.preconditions {
            if !self.holds(condition)? {
                return Err(CommitError::Conflict { table: tables::name_of(condition.table()) });
            }
        }
        self.position = self.position.max(batch.raise_to.unwrap_or_default());
        let first = self.position.next();
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
            None => Ok(condition.holds(self.engine.load_stored(&key)?.as_deref())),
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
