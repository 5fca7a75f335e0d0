use std::sync::Arc;

use futures::future::BoxFuture;
use myelin_core::{Position, limits};

use crate::{
    Batch,
    backend::{Backend, CommitFuture, KeyRange, RawRead, Row, ScanDirection, Write},
    codec::{KeyPart, Value, prefix_end},
    error::{CommitError, Error},
    tables::Table,
};

pub use crate::backend::ScanDirection as Direction;

/// The typed face of a backend. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    backend: Arc<dyn Backend>,
}

/// Typed reads, from the newest committed data (`&Store`) or from a snapshot.
#[derive(Clone, Copy)]
pub struct Read<'a> {
    raw: &'a dyn RawRead,
}

/// A consistent view of all tables at one moment.
pub struct Snapshot {
    pub(crate) raw: Box<dyn RawRead>,
}

impl Snapshot {
    pub fn read(&self) -> Read<'_> {
        Read { raw: &*self.raw }
    }
}

impl Store {
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend }
    }

    /// Reads of the newest committed data; two reads may see two moments.
    pub fn read(&self) -> Read<'_> {
        Read { raw: as_read(&*self.backend) }
    }

    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        Ok(Snapshot { raw: self.backend.snapshot().await? })
    }

    pub async fn get<K: KeyPart, V: Value>(&self, table: &Table<K, V>, key: &K) -> Result<Option<V>, Error> {
        self.read().get(table, key).await
    }

    pub async fn multi_get<K: KeyPart, V: Value>(
        &self,
        table: &Table<K, V>,
        keys: &[K],
    ) -> Result<Vec<Option<V>>, Error> {
        self.read().multi_get(table, keys).await
    }

    /// See [`Read::scan`].
    pub async fn scan<K: KeyPart, V: Value, P: KeyPart>(
        &self,
        table: &Table<K, V>,
        prefix: &P,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(K, V)>, Error> {
        self.read().scan(table, prefix, direction, limit).await
    }

    /// See [`Read::range`].
    pub async fn range<K: KeyPart, V: Value, P: KeyPart>(
        &self,
        table: &Table<K, V>,
        from: &P,
        to: &P,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(K, V)>, Error> {
        self.read().range(table, from, to, direction, limit).await
    }

    /// See [`Read::after`].
    pub async fn after<K: KeyPart, V: Value>(
        &self,
        table: &Table<K, V>,
        key: &K,
        limit: usize,
    ) -> Result<Vec<(K, V)>, Error> {
        self.read().after(table, key, limit).await
    }

    /// Commits a batch. It is enqueued *before this returns*: batches commit in the order of these calls, and
    /// dropping the future cancels nothing. The future completes when the batch is durable.
    pub fn commit(&self, batch: Batch) -> CommitFuture {
        match check_sizes(&batch) {
            Ok(()) => self.backend.submit(batch.raw),
            Err(error) => Box::pin(std::future::ready(Err(CommitError::Store(error)))),
        }
    }

    /// The last durable position.
    pub fn position(&self) -> Position {
        self.backend.position()
    }

    pub fn wait_past(&self, seen: Position) -> BoxFuture<'_, Position> {
        self.backend.wait_past(seen)
    }

    pub async fn close(&self) -> Result<(), Error> {
        self.backend.close().await
    }

    /// The bytes underneath, for maintenance (verify, backup, copy between engines).
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }
}

impl<'a> Read<'a> {
    pub async fn get<K: KeyPart, V: Value>(&self, table: &Table<K, V>, key: &K) -> Result<Option<V>, Error> {
        let found = self.raw.get(table.id, key.to_key().bytes).await?;
        found.map(|bytes| decode_value(table, &bytes)).transpose()
    }

    /// One answer per key, in the order of `keys`.
    pub async fn multi_get<K: KeyPart, V: Value>(
        &self,
        table: &Table<K, V>,
        keys: &[K],
    ) -> Result<Vec<Option<V>>, Error> {
        let raw = keys.iter().map(|k| k.to_key().bytes).collect();
        let found = self.raw.multi_get(table.id, raw).await?;
        found.into_iter().map(|v| v.map(|bytes| decode_value(table, &bytes)).transpose()).collect()
    }

    /// At most `limit` rows whose key starts with `prefix` (whole leading components of the key).
    pub async fn scan<K: KeyPart, V: Value, P: KeyPart>(
        &self,
        table: &Table<K, V>,
        prefix: &P,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(K, V)>, Error> {
        let start = prefix.to_key().bytes;
        let end = prefix_end(&start);
        self.rows(table, KeyRange { start, end }, direction, limit).await
    }

    /// At most `limit` rows with `from <= key < to`; both may be leading components only.
    pub async fn range<K: KeyPart, V: Value, P: KeyPart>(
        &self,
        table: &Table<K, V>,
        from: &P,
        to: &P,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(K, V)>, Error> {
        let range = KeyRange { start: from.to_key().bytes, end: Some(to.to_key().bytes) };
        self.rows(table, range, direction, limit).await
    }

    /// At most `limit` rows of the whole table.
    pub async fn all<K: KeyPart, V: Value>(
        &self,
        table: &Table<K, V>,
        limit: usize,
    ) -> Result<Vec<(K, V)>, Error> {
        self.rows(table, KeyRange { start: Vec::new(), end: None }, Direction::Forward, limit).await
    }

    /// At most `limit` rows behind `key`: for going through a whole table in pages.
    pub async fn after<K: KeyPart, V: Value>(
        &self,
        table: &Table<K, V>,
        key: &K,
        limit: usize,
    ) -> Result<Vec<(K, V)>, Error> {
        let mut start = key.to_key().bytes;
        start.push(0);
        self.rows(table, KeyRange { start, end: None }, Direction::Forward, limit).await
    }

    /// The row with the greatest key.
    pub async fn last<K: KeyPart, V: Value>(&self, table: &Table<K, V>) -> Result<Option<(K, V)>, Error> {
        let everything = KeyRange { start: Vec::new(), end: None };
        Ok(self.rows(table, everything, Direction::Reverse, 1).await?.pop())
    }

    async fn rows<K: KeyPart, V: Value>(
        &self,
        table: &Table<K, V>,
        range: KeyRange,
        direction: ScanDirection,
        limit: usize,
    ) -> Result<Vec<(K, V)>, Error> {
        let rows = self.raw.scan(table.id, range, direction, limit).await?;
        rows.iter().map(|row| decode_row(table, row)).collect()
    }
}

fn decode_row<K: KeyPart, V: Value>(table: &Table<K, V>, (key, value): &Row) -> Result<(K, V), Error> {
    let key = K::decode(&mut &key[..]).map_err(|reason| Error::Corrupt { table: table.name, reason })?;
    Ok((key, decode_value(table, value)?))
}

fn decode_value<K, V: Value>(table: &Table<K, V>, bytes: &[u8]) -> Result<V, Error> {
    V::decode(bytes).map_err(|reason| Error::Corrupt { table: table.name, reason })
}

fn check_sizes(batch: &Batch) -> Result<(), Error> {
    for write in &batch.raw.writes {
        let (key, value) = match write {
            Write::Put { key, value, .. } => (key.bytes.len(), value.bytes.len()),
            Write::Delete { key, .. } => (key.len(), 0),
        };
        if key > limits::STORE_KEY_SIZE_MAX {
            return Err(Error::TooLarge { what: "key", size: key, limit: limits::STORE_KEY_SIZE_MAX });
        }
        if value > limits::STORE_VALUE_SIZE_MAX {
            return Err(Error::TooLarge { what: "value", size: value, limit: limits::STORE_VALUE_SIZE_MAX });
        }
    }
    Ok(())
}

fn as_read(backend: &dyn Backend) -> &dyn RawRead {
    backend
}
