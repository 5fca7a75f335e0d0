//! A consistent copy of a whole store into an empty one, of the same engine or another.

use myelin_core::Position;

use super::{OnProgress, Progress, pages::Pages};
use crate::{
    Batch, CommitError, Error, Store,
    backend::{RawBatch, RawRead, Row, Stamped, Write},
    codec::KeyPart,
    format::UNFINISHED_COPY,
    tables::{self, FORMAT, LOG, META, META_FORMAT, TableInfo},
};

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// The copy is the original as it was at this position.
    pub position: Position,
    pub rows: u64,
    /// Keys and values.
    pub bytes: u64,
}

/// Copies everything that `from` holds now; it may be written to meanwhile. `to` must be empty. A copy that was not
/// finished does not open as a store.
pub async fn copy(from: &Store, to: &Store, on_progress: OnProgress<'_>) -> Result<Copied, Error> {
    refuse_if_used(to).await?;
    stamp(to, UNFINISHED_COPY, None).await?;
    let snapshot = from.snapshot().await?;
    let newest = snapshot.read().last(&LOG).await?;
    let mut copied =
        Copied { position: newest.map_or(Position::ZERO, |(position, _)| position), ..Copied::default() };
    for (at, table) in tables::ALL.iter().enumerate() {
        let mut report = |rows| {
            let steps = tables::ALL.len();
            on_progress(Progress { step: table.name, step_number: at + 1, steps, rows });
        };
        copy_table(&*snapshot.raw, to, table, &mut copied, &mut report).await?;
    }
    let format = snapshot.read().get(&META, &META_FORMAT.to_owned()).await?;
    let format = format.unwrap_or_else(|| FORMAT.to_string().into_bytes());
    stamp(to, &format, Some(copied.position)).await?;
    Ok(copied)
}

async fn stamp(to: &Store, format: &[u8], raise_to: Option<Position>) -> Result<(), Error> {
    let mut batch = Batch::new();
    batch.put(&META, &META_FORMAT.to_owned(), &format.to_vec());
    batch.raw.raise_to = raise_to;
    to.commit(batch).await.map(drop).map_err(only_store_errors)
}

/// A store is empty if nothing but the stamp of a fresh store is in it.
async fn refuse_if_used(to: &Store) -> Result<(), Error> {
    let snapshot = to.snapshot().await?;
    for table in tables::ALL {
        let rows = Pages::of(table.id).next(&*snapshot.raw).await?.unwrap_or_default();
        if !rows.iter().all(|row| is_stamp(table, row)) {
            return Err(Error::NotEmpty { table: table.name });
        }
    }
    Ok(())
}

fn is_stamp(table: &TableInfo, (key, _): &Row) -> bool {
    table.id == META.id && **key == *META_FORMAT.to_owned().to_key().bytes
}

async fn copy_table(
    from: &dyn RawRead,
    to: &Store,
    table: &TableInfo,
    copied: &mut Copied,
    report: &mut (dyn FnMut(u64) + Send),
) -> Result<(), Error> {
    let mut pages = Pages::of(table.id);
    let before = copied.rows;
    report(0);
    while let Some(rows) = pages.next(from).await? {
        copied.rows += rows.len() as u64;
        copied.bytes += rows.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>();
        let writes = rows.iter().filter(|row| !is_stamp(table, row)).map(|row| put(table, row)).collect();
        let batch = RawBatch { writes, ..RawBatch::default() };
        to.backend().submit(batch).await.map_err(only_store_errors)?;
        report(copied.rows - before);
    }
    Ok(())
}

fn put(table: &TableInfo, (key, value): &Row) -> Write {
    let stamped = |bytes: &[u8]| Stamped { bytes: bytes.to_vec(), stamps: Vec::new() };
    Write::Put { table: table.id, key: stamped(key), value: stamped(value) }
}

/// The batches here have no preconditions.
fn only_store_errors(error: CommitError) -> Error {
    match error {
        CommitError::Store(error) => error,
        CommitError::Conflict { table } => Error::NotEmpty { table },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::executor::block_on;

    use super::*;
    use crate::{
        backend::Backend,
        conformance::sample_entry,
        memory::{Fault, Memory, MemoryDisk},
        tables::{Counter, EVENT_NIDS, NID_COUNTERS},
    };

    fn backend(disk: &MemoryDisk) -> Arc<dyn Backend> {
        Arc::new(Memory::open(disk.clone()))
    }

    fn numbered(n: u64) -> Batch {
        let mut batch = Batch::new();
        batch.put(&NID_COUNTERS, &0, &Counter { next: n });
        batch.put(&EVENT_NIDS, &format!("${n}"), &myelin_core::EventNid(n));
        batch.log(&sample_entry());
        batch
    }

    fn original() -> Store {
        let store = block_on(Store::open(backend(&MemoryDisk::default()))).unwrap();
        for n in 1..=600 {
            block_on(store.commit(numbered(n))).unwrap();
        }
        store
    }

    #[test]
    fn a_copy_made_during_writes_is_one_moment() {
        let store = original();
        let writer = store.clone();
        let mut n = 600;
        // Progress is reported between pages: a write at every report is a write during the copy.
        let mut write = |_: Progress| {
            n += 1;
            drop(writer.commit(numbered(n)));
        };
        let disk = MemoryDisk::default();
        let copied = block_on(copy(&store, &Store::new(backend(&disk)), &mut write)).unwrap();
        assert_eq!(copied.position, Position(600));
        assert!(store.position() > Position(600), "there were writes meanwhile");

        let restored = block_on(Store::open(backend(&disk))).unwrap();
        assert_eq!(restored.position(), Position(600));
        assert_eq!(block_on(restored.get(&NID_COUNTERS, &0)).unwrap(), Some(Counter { next: 600 }));
        assert_eq!(block_on(restored.read().all(&EVENT_NIDS, 9999)).unwrap().len(), 600);
        assert_eq!(block_on(restored.read().all(&LOG, 9999)).unwrap().len(), 600);
        let committed = block_on(restored.commit(numbered(601))).unwrap();
        assert_eq!(committed.first, Position(601), "it goes on where the original stood");
    }

    #[test]
    fn a_used_store_is_not_overwritten() {
        let (from, to) = (original(), original());
        let refused = block_on(copy(&from, &to, &mut |_| {}));
        assert!(matches!(refused, Err(Error::NotEmpty { .. })), "{refused:?}");
    }

    #[test]
    fn an_interrupted_copy_does_not_open() {
        let (from, disk) = (original(), MemoryDisk::default());
        let to_break = disk.clone();
        let mut stop_midway = |progress: Progress| {
            if progress.step == LOG.name {
                to_break.inject(Some(Fault::LoseCommits));
            }
        };
        block_on(copy(&from, &Store::new(backend(&disk)), &mut stop_midway)).expect_err("the target failed");
        disk.inject(None);
        let refused = block_on(Store::open(backend(&disk))).err().expect("unfinished").to_string();
        assert!(refused.contains("interrupted"), "{refused}");
    }
}
