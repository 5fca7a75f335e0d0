//! What a storage engine must do, in bytes.

use bytes::Bytes;
use futures::future::BoxFuture;
use myelin_core::{Position, TimelineOrder};

use crate::{
    error::{CommitError, Error},
    tables::TableId,
};

/// A key and its value.
pub type Row = (Bytes, Bytes);

/// Half-open range of keys: `start <= key < end`. `end == None` is the end of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    pub start: Vec<u8>,
    pub end: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanDirection {
    Forward,
    Reverse,
}

/// Point and range reads. Implemented by a backend (newest committed data) and by its snapshots.
pub trait RawRead: Send + Sync + 'static {
    fn get(&self, table: TableId, key: Vec<u8>) -> BoxFuture<'_, Result<Option<Bytes>, Error>>;

    /// One answer per key, in the order of `keys`.
    fn multi_get(
        &self,
        table: TableId,
        keys: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Bytes>>, Error>>;

    /// At most `limit` rows of `range`, from its start (`Forward`) or its end (`Reverse`).
    fn scan(
        &self,
        table: TableId,
        range: KeyRange,
        direction: ScanDirection,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Row>, Error>>;
}

/// Where 8 bytes of a key or value are to be replaced by the position of log entry `entry`, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub offset: u32,
    pub entry: u32,
    /// Flip the sign bit: the bytes hold an order-preserving `i64` ([`myelin_core::TimelineOrder`]).
    pub signed: bool,
}

impl Stamp {
    /// Writes the position of this stamp's entry, given that of the batch's first entry.
    pub fn apply(&self, bytes: &mut [u8], first: Position) {
        let position = Position(first.0 + u64::from(self.entry));
        let value = match self.signed {
            true => (TimelineOrder::from(position).0 as u64) ^ (1 << 63),
            false => position.0,
        };
        let at = self.offset as usize;
        bytes[at..at + 8].copy_from_slice(&value.to_be_bytes());
    }
}

/// Bytes with positions still to be filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamped {
    pub bytes: Vec<u8>,
    pub stamps: Vec<Stamp>,
}

impl Stamped {
    pub fn resolve(mut self, first: Position) -> Vec<u8> {
        for stamp in &self.stamps {
            stamp.apply(&mut self.bytes, first);
        }
        self.bytes
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    Put { table: TableId, key: Stamped, value: Stamped },
    Delete { table: TableId, key: Vec<u8> },
}

/// Checked against what is committed before this batch, atomically with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    Absent { table: TableId, key: Vec<u8> },
    Equals { table: TableId, key: Vec<u8>, value: Vec<u8> },
}

impl Precondition {
    pub fn table(&self) -> TableId {
        match self {
            Self::Absent { table, .. } | Self::Equals { table, .. } => *table,
        }
    }

    pub fn key(&self) -> &[u8] {
        match self {
            Self::Absent { key, .. } | Self::Equals { key, .. } => key,
        }
    }

    pub fn holds(&self, found: Option<&[u8]>) -> bool {
        match self {
            Self::Absent { .. } => found.is_none(),
            Self::Equals { value, .. } => found == Some(value),
        }
    }
}

/// All or nothing: preconditions, then writes in order, then one row in the `log` table per entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawBatch {
    pub preconditions: Vec<Precondition>,
    pub writes: Vec<Write>,
    /// Encoded [`crate::log::LogEntry`] values; entry `i` gets position `first + i` and becomes row
    /// `log[first + i]`.
    pub entries: Vec<Vec<u8>>,
    /// Raises the last position before this batch's entries are numbered: a copy of a store goes on counting where
    /// the original stood. Only copying a store sets it.
    pub raise_to: Option<Position>,
}

/// The positions that a batch's log entries got. With no entries, `first == last.next()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    pub first: Position,
    pub last: Position,
}

pub type CommitFuture = BoxFuture<'static, Result<Committed, CommitError>>;

/// One storage engine.
///
/// Invariants that the conformance suite checks:
/// - `submit` enqueues before it returns: batches of one process commit in the order of their `submit` calls, and a
///   batch sees (in its preconditions) every batch submitted before it. Dropping the future does not cancel it.
/// - The future completes only once the batch is durable. Group commit: all that wait share one fsync; a lone
///   batch waits for nobody.
/// - Positions are dense from 1, and commit order is position order across processes; a reader that sees
///   position `p` sees every commit up to `p`.
/// - After a crash a batch is there entirely or not at all.
pub trait Backend: RawRead {
    fn submit(&self, batch: RawBatch) -> CommitFuture;

    /// A consistent view of all tables at one moment.
    fn snapshot(&self) -> BoxFuture<'_, Result<Box<dyn RawRead>, Error>>;

    /// The last durable position.
    fn position(&self) -> Position;

    /// Completes with [`Backend::position`] once it is past `seen`.
    fn wait_past(&self, seen: Position) -> BoxFuture<'_, Position>;

    /// Gives space of deleted and overwritten rows back to the file system. May take minutes; reads and commits go on.
    fn compact(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Flushes and releases the engine; later calls fail. Idempotent.
    fn close(&self) -> BoxFuture<'_, Result<(), Error>>;
}
