use myelin_core::Position;

use crate::{
    backend::{Precondition, RawBatch, Write},
    codec::{KeyPart, Value},
    log::LogEntry,
    tables::Table,
};

/// One atomic change. Built by the domain, committed by [`crate::Store::commit`].
///
/// Keys and [`crate::codec::AtPosition`] values may hold `Position::of_entry(i)`, the position that the batch's
/// `i`-th log entry will get.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub(crate) raw: RawBatch,
}

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn put<K: KeyPart, V: Value>(&mut self, table: &Table<K, V>, key: &K, value: &V) {
        self.raw.writes.push(Write::Put { table: table.id, key: key.to_key(), value: value.encode() });
    }

    pub fn delete<K: KeyPart, V>(&mut self, table: &Table<K, V>, key: &K) {
        self.raw.writes.push(Write::Delete { table: table.id, key: key.to_key().bytes });
    }

    /// The commit conflicts if the key exists.
    pub fn require_absent<K: KeyPart, V>(&mut self, table: &Table<K, V>, key: &K) {
        self.raw.preconditions.push(Precondition::Absent { table: table.id, key: key.to_key().bytes });
    }

    /// The commit conflicts unless the key has exactly this value.
    pub fn require_equal<K: KeyPart, V: Value>(&mut self, table: &Table<K, V>, key: &K, value: &V) {
        self.raw.preconditions.push(Precondition::Equals {
            table: table.id,
            key: key.to_key().bytes,
            value: value.encode().bytes,
        });
    }

    /// Compare-and-swap precondition: the key is still as it was loaded.
    pub fn require_unchanged<K: KeyPart, V: Value>(
        &mut self,
        table: &Table<K, V>,
        key: &K,
        loaded: Option<&V>,
    ) {
        match loaded {
            Some(value) => self.require_equal(table, key, value),
            None => self.require_absent(table, key),
        }
    }

    /// The placeholder of the position that the next entry will get.
    pub fn next_entry(&self) -> Position {
        Position::of_entry(self.raw.entries.len() as u32)
    }

    /// Appends to the commit log; returns the placeholder of the position that the entry will get.
    pub fn log(&mut self, entry: &LogEntry) -> Position {
        self.raw.entries.push(entry.encode().bytes);
        Position::of_entry((self.raw.entries.len() - 1) as u32)
    }

    pub fn is_empty(&self) -> bool {
        self.raw == RawBatch::default()
    }

    /// Adds all of `other`, whose positions must not refer to its own log entries.
    pub fn extend(&mut self, other: Self) {
        debug_assert!(other.raw.entries.is_empty(), "entry placeholders would point at the wrong entries");
        self.raw.preconditions.extend(other.raw.preconditions);
        self.raw.writes.extend(other.raw.writes);
        self.raw.entries.extend(other.raw.entries);
    }
}
