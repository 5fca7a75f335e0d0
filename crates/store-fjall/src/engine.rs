//! Tables in a few fjall keyspaces, and reads at one moment.

use std::{path::Path, sync::Arc, thread, time::Duration};

use bytes::Bytes;
use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot,
    config::CompressionPolicy,
};
use futures::{
    FutureExt,
    future::{self, BoxFuture},
};
use myelin_core::Position;
use myelin_store::{
    Error,
    backend::{KeyRange, RawRead, Row, ScanDirection},
    codec::{KeyPart, prefix_end},
    group::stored_key,
    tables::{EVENT_NIDS, EVENTS, LOG, STATE_NODES, TableId},
};

const MIB: u64 = 1024 * 1024;

/// Blocks of tables held in memory, whatever the size of the store.
const BLOCK_CACHE_BYTES: u64 = 16 * MIB;
/// fjall's minimum; together with the active journal it bounds what a start after a crash replays.
const SEALED_JOURNAL_BYTES_MAX: u64 = 64 * MIB;
const WORKERS: usize = 2;
/// Together 20 seconds.
const SETTLE_LOOKS_MAX: u32 = 10_000;
const SETTLE_LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// One keyspace per way of growing, not per table: each has its own memtable, files and compaction, and a start opens
/// them all. Rows of tables that share a keyspace are told apart by the table id in front of the key.
///
/// On-disk format: a table never moves to another keyspace.
struct Layout {
    name: &'static str,
    memtable_bytes: u64,
    tables: &'static [TableId],
}

const LAYOUT: [Layout; 4] = [
    // Everything else: mixed sizes, updated in place.
    Layout { name: "rows", memtable_bytes: 12 * MIB, tables: &[] },
    // Large values in the order of their keys: compaction moves files instead of rewriting them.
    Layout { name: "events", memtable_bytes: 12 * MIB, tables: &[EVENTS.id] },
    // Random keys written once: kept away from what compacts cheaply.
    Layout { name: "hashes", memtable_bytes: 8 * MIB, tables: &[EVENT_NIDS.id, STATE_NODES.id] },
    // Small values in the order of their keys.
    Layout { name: "log", memtable_bytes: 4 * MIB, tables: &[LOG.id] },
];

/// An open database.
pub(crate) struct Engine {
    database: Database,
    keyspaces: Keyspaces,
}

#[derive(Clone)]
struct Keyspaces(Arc<[Keyspace; LAYOUT.len()]>);

impl Keyspaces {
    fn of(&self, table: TableId) -> &Keyspace {
        let special = LAYOUT.iter().position(|layout| layout.tables.contains(&table));
        &self.0[special.unwrap_or(0)]
    }
}

impl Engine {
    pub(crate) fn open(directory: &Path) -> Result<Self, Error> {
        let database = Database::builder(directory)
            .cache_size(BLOCK_CACHE_BYTES)
            .max_journaling_size(SEALED_JOURNAL_BYTES_MAX)
            .worker_threads(WORKERS)
            .open()
            .map_err(|error| opening_failed(directory, &error))?;
        let open = |at: usize| database.keyspace(LAYOUT[at].name, || options(&LAYOUT[at]));
        let keyspaces = [open(0), open(1), open(2), open(3)].map(|keyspace| keyspace.map_err(failed));
        let [rows, events, hashes, log] = keyspaces;
        let keyspaces = Keyspaces(Arc::new([rows?, events?, hashes?, log?]));
        Ok(Self { database, keyspaces })
    }

    /// What is durable now.
    pub(crate) fn view(&self) -> View {
        View { snapshot: self.database.snapshot(), keyspaces: self.keyspaces.clone() }
    }

    /// The position of the last log row, which is therefore never deleted, however old the log gets.
    pub(crate) fn last_position(&self) -> Result<Position, Error> {
        let everything = KeyRange { start: Vec::new(), end: None };
        let last = self.view().rows(LOG.id, &everything, ScanDirection::Reverse, 1)?;
        let Some((key, _)) = last.first() else { return Ok(Position::ZERO) };
        Position::decode(&mut &key[..]).map_err(|reason| Error::Corrupt { table: LOG.name, reason })
    }

    /// The newest value of a key as the writer sees it.
    pub(crate) fn load_stored(&self, stored_key: &[u8]) -> Result<Option<Bytes>, Error> {
        let found = self.keyspaces.of(TableId(stored_key[0])).get(stored_key).map_err(failed)?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// Writes rows (`None`: delete) atomically and durably: one journal write, one fsync. All of them get one
    /// sequence number, under which a key can have one value.
    pub(crate) fn write(
        &self,
        rows: impl IntoIterator<Item = (Vec<u8>, Option<Vec<u8>>)>,
    ) -> Result<(), Error> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (key, value) in rows {
            let keyspace = self.keyspaces.of(TableId(key[0]));
            match value {
                Some(value) => batch.insert(keyspace, key, value),
                None => batch.remove(keyspace, key),
            }
        }
        batch.commit().map_err(failed)
    }

    /// Moves everything out of the journal, so that the next start has little to replay. Gives up after a while: a
    /// disk that is full must not keep a server from stopping, and the journal has it all.
    /// Answers whether all of it is out.
    pub(crate) fn settle(&self) -> Result<bool, Error> {
        for keyspace in self.keyspaces.0.iter() {
            keyspace.rotate_memtable().map_err(failed)?;
        }
        let unsettled = || self.keyspaces.0.iter().any(|keyspace| keyspace.sealed_memtable_count() > 0);
        for _ in 0..SETTLE_LOOKS_MAX {
            if !unsettled() {
                return Ok(true);
            }
            thread::sleep(SETTLE_LOOK_INTERVAL);
        }
        tracing::warn!("the store closes before its journal is worked off; the next start takes longer");
        Ok(false)
    }

    pub(crate) fn compact(&self) -> Result<(), Error> {
        self.settle()?;
        self.keyspaces.0.iter().try_for_each(|keyspace| keyspace.major_compact().map_err(failed))
    }
}

fn options(layout: &Layout) -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(layout.memtable_bytes)
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
}

fn opening_failed(directory: &Path, error: &fjall::Error) -> Error {
    let directory = directory.display();
    Error::Backend(match error {
        fjall::Error::Locked => {
            format!("{directory} is in use by another process: stop the running server first")
        }
        error => format!("cannot open {directory}: {error}"),
    })
}

pub(crate) fn failed(error: fjall::Error) -> Error {
    Error::Backend(match error {
        fjall::Error::Poisoned => {
            "an earlier write failed (is the disk full?); the store stays read-only until it is opened again"
                .to_owned()
        }
        error => error.to_string(),
    })
}

/// All tables at one moment.
pub(crate) struct View {
    snapshot: Snapshot,
    keyspaces: Keyspaces,
}

impl View {
    pub(crate) fn load(&self, table: TableId, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let found = self.snapshot.get(self.keyspaces.of(table), stored_key(table, key)).map_err(failed)?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    pub(crate) fn load_all(&self, table: TableId, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, Error> {
        keys.iter().map(|key| self.load(table, key)).collect()
    }

    pub(crate) fn rows(
        &self,
        table: TableId,
        range: &KeyRange,
        direction: ScanDirection,
        limit: usize,
    ) -> Result<Vec<Row>, Error> {
        if range.end.as_ref().is_some_and(|end| *end <= range.start) {
            return Ok(Vec::new());
        }
        let start = stored_key(table, &range.start);
        let end = match &range.end {
            Some(end) => stored_key(table, end),
            None => prefix_end(&[table.0]).unwrap_or_else(|| vec![u8::MAX; 2]),
        };
        let found = self.snapshot.range(self.keyspaces.of(table), start..end);
        match direction {
            ScanDirection::Forward => found.take(limit).map(to_row).collect(),
            ScanDirection::Reverse => found.rev().take(limit).map(to_row).collect(),
        }
    }
}

fn to_row(found: fjall::Guard) -> Result<Row, Error> {
    let (key, value) = found.into_inner().map_err(failed)?;
    Ok((Bytes::copy_from_slice(&key[1..]), Bytes::copy_from_slice(&value)))
}

impl RawRead for View {
    fn get(&self, table: TableId, key: Vec<u8>) -> BoxFuture<'_, Result<Option<Bytes>, Error>> {
        future::ready(self.load(table, &key)).boxed()
    }

    fn multi_get(
        &self,
        table: TableId,
        keys: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Bytes>>, Error>> {
        future::ready(self.load_all(table, &keys)).boxed()
    }

    fn scan(
        &self,
        table: TableId,
        range: KeyRange,
        direction: ScanDirection,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Row>, Error>> {
        future::ready(self.rows(table, &range, direction, limit)).boxed()
    }
}
