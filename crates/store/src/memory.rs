//! The memory backend: for tests and the simulator. Deterministic and runtime-free: a commit happens inside
//! `submit`, its future is ready at once.

use std::{any::Any, sync::Arc};

use bytes::Bytes;
use futures::{
    FutureExt,
    future::{self, BoxFuture},
};
use imbl::OrdMap;
use myelin_core::Position;
use parking_lot::Mutex;

use crate::{
    backend::{
        Backend, CommitFuture, Committed, KeyRange, Precondition, RawBatch, RawRead, Row, ScanDirection,
        Write,
    },
    codec::KeyPart,
    error::{CommitError, Error},
    tables::{self, TableId},
};

type Rows = OrdMap<Bytes, Bytes>;
type Tables = OrdMap<TableId, Rows>;

/// All data, shared by every [`Memory`] opened on it: dropping a `Memory` and opening another one on the same disk
/// is a restart.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    tables: Tables,
    position: Position,
    wakers: Vec<futures::channel::oneshot::Sender<()>>,
    /// What the next submits do instead of committing; for crash tests.
    fault: Option<Fault>,
    /// What lies on the same disk and is no table.
    beside: Option<Box<dyn Any + Send>>,
}

/// An injected failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is written, the commit fails: the machine stopped before the batch reached the disk.
    LoseCommits,
    /// The batch is written, but its caller hears of a failure: the machine stopped before the answer.
    LoseAnswers,
}

#[derive(Clone, Default)]
pub struct Memory {
    disk: MemoryDisk,
}

impl Memory {
    pub fn open(disk: MemoryDisk) -> Self {
        Self { disk }
    }
}

impl MemoryDisk {
    /// From now on (`None`: until now) commits fail as `fault` says.
    pub fn inject(&self, fault: Option<Fault>) {
        self.0.lock().fault = fault;
    }

    /// What lies on the same disk and is no table (files): survives what the disk survives. Made when first asked for; one
    /// thing of one type.
    pub fn beside<T: Clone + Send + 'static>(&self, make: impl FnOnce() -> T) -> T {
        let mut state = self.0.lock();
        let found = state.beside.as_ref().and_then(|beside| beside.downcast_ref::<T>()).cloned();
        found.unwrap_or_else(|| {
            let made = make();
            state.beside = Some(Box::new(made.clone()));
            made
        })
    }

    /// An independent copy of all data, as a backup or a torn-off disk would be.
    pub fn copy(&self) -> Self {
        let state = self.0.lock();
        Self(Arc::new(Mutex::new(State {
            tables: state.tables.clone(),
            position: state.position,
            ..State::default()
        })))
    }
}

impl RawRead for Tables {
    fn get(&self, table: TableId, key: Vec<u8>) -> BoxFuture<'_, Result<Option<Bytes>, Error>> {
        future::ready(Ok(lookup(self, table, &key))).boxed()
    }

    fn multi_get(
        &self,
        table: TableId,
        keys: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Bytes>>, Error>> {
        future::ready(Ok(keys.iter().map(|key| lookup(self, table, key)).collect())).boxed()
    }

    fn scan(
        &self,
        table: TableId,
        range: KeyRange,
        direction: ScanDirection,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Row>, Error>> {
        let rows = self.get(&table).map(|rows| scan_rows(rows, &range, direction, limit));
        future::ready(Ok(rows.unwrap_or_default())).boxed()
    }
}

impl RawRead for Memory {
    fn get(&self, table: TableId, key: Vec<u8>) -> BoxFuture<'_, Result<Option<Bytes>, Error>> {
        let found = lookup(&self.disk.0.lock().tables, table, &key);
        future::ready(Ok(found)).boxed()
    }

    fn multi_get(
        &self,
        table: TableId,
        keys: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Bytes>>, Error>> {
        let state = self.disk.0.lock();
        let found = keys.iter().map(|key| lookup(&state.tables, table, key)).collect();
        future::ready(Ok(found)).boxed()
    }

    fn scan(
        &self,
        table: TableId,
        range: KeyRange,
        direction: ScanDirection,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Row>, Error>> {
        let rows = self.disk.0.lock().tables.get(&table).cloned().unwrap_or_default();
        future::ready(Ok(scan_rows(&rows, &range, direction, limit))).boxed()
    }
}

impl Backend for Memory {
    fn submit(&self, batch: RawBatch) -> CommitFuture {
        future::ready(self.disk.0.lock().commit(batch)).boxed()
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Box<dyn RawRead>, Error>> {
        let tables: Box<dyn RawRead> = Box::new(self.disk.0.lock().tables.clone());
        future::ready(Ok(tables)).boxed()
    }

    fn position(&self) -> Position {
        self.disk.0.lock().position
    }

    fn wait_past(&self, seen: Position) -> BoxFuture<'_, Position> {
        async move {
            loop {
                let wait = {
                    let mut state = self.disk.0.lock();
                    if state.position > seen {
                        return state.position;
                    }
                    let (sender, receiver) = futures::channel::oneshot::channel();
                    state.wakers.retain(|w| !w.is_canceled());
                    state.wakers.push(sender);
                    receiver
                };
                wait.await.ok();
            }
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Error>> {
        future::ready(Ok(())).boxed()
    }
}

impl State {
    fn commit(&mut self, batch: RawBatch) -> Result<Committed, CommitError> {
        if self.fault == Some(Fault::LoseCommits) {
            return Err(Error::Backend("injected: the commit was lost".to_owned()).into());
        }
        self.check(&batch.preconditions)?;
        self.position = self.position.max(batch.raise_to.unwrap_or_default());
        let first = self.position.next();
        for write in batch.writes {
            self.apply(write, first);
        }
        for entry in batch.entries {
            self.position = self.position.next();
            let key = self.position.to_key().bytes;
            self.table(tables::LOG.id).insert(key.into(), entry.into());
        }
        for waker in self.wakers.drain(..) {
            waker.send(()).ok();
        }
        match self.fault {
            Some(_) => Err(Error::Backend("injected: the answer was lost".to_owned()).into()),
            None => Ok(Committed { first, last: self.position }),
        }
    }

    fn check(&self, preconditions: &[Precondition]) -> Result<(), CommitError> {
        for condition in preconditions {
            let found = lookup(&self.tables, condition.table(), condition.key());
            if !condition.holds(found.as_deref()) {
                return Err(CommitError::Conflict { table: tables::name_of(condition.table()) });
            }
        }
        Ok(())
    }

    fn apply(&mut self, write: Write, first: Position) {
        match write {
            Write::Put { table, key, value } => {
                self.table(table).insert(key.resolve(first).into(), value.resolve(first).into());
            }
            Write::Delete { table, key } => {
                self.table(table).remove(&key[..]);
            }
        }
    }

    fn table(&mut self, table: TableId) -> &mut Rows {
        self.tables.entry(table).or_default()
    }
}

fn lookup(tables: &Tables, table: TableId, key: &[u8]) -> Option<Bytes> {
    tables.get(&table)?.get(key).cloned()
}

fn scan_rows(rows: &Rows, range: &KeyRange, direction: ScanDirection, limit: usize) -> Vec<Row> {
    use std::ops::Bound;
    let start = Bound::Included(&range.start[..]);
    let end = range.end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    if range.end.as_ref().is_some_and(|end| *end <= range.start) {
        return Vec::new();
    }
    let found = rows.range::<_, [u8]>((start, end)).map(|(k, v)| (k.clone(), v.clone()));
    match direction {
        ScanDirection::Forward => found.take(limit).collect(),
        ScanDirection::Reverse => found.rev().take(limit).collect(),
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;
    use crate::{
        Batch, Store,
        conformance::{Harness, sample_entry},
        tables::META,
    };

    impl Harness for MemoryDisk {
        fn open(&self) -> BoxFuture<'_, Arc<dyn Backend>> {
            let backend: Arc<dyn Backend> = Arc::new(Memory::open(self.clone()));
            future::ready(backend).boxed()
        }
    }

    fn on_memory(case: impl for<'a> FnOnce(&'a dyn Harness) -> BoxFuture<'a, ()>) {
        block_on(case(&MemoryDisk::default()));
    }

    crate::conformance_suite!(on_memory);

    fn one_row() -> Batch {
        let mut batch = Batch::new();
        batch.put(&META, &"k".to_owned(), &vec![1]);
        batch.log(&sample_entry());
        batch
    }

    #[test]
    fn a_lost_commit_leaves_nothing_and_a_lost_answer_leaves_everything() {
        for (fault, kept) in [(Fault::LoseCommits, false), (Fault::LoseAnswers, true)] {
            let disk = MemoryDisk::default();
            let store = Store::new(Arc::new(Memory::open(disk.clone())));
            disk.inject(Some(fault));
            assert!(block_on(store.commit(one_row())).is_err());
            disk.inject(None);
            let reopened = Store::new(Arc::new(Memory::open(disk)));
            assert_eq!(block_on(reopened.get(&META, &"k".to_owned())).unwrap().is_some(), kept);
            assert_eq!(reopened.position(), Position(u64::from(kept)));
        }
    }

    #[test]
    fn a_copy_is_independent() {
        let disk = MemoryDisk::default();
        let copy = disk.copy();
        block_on(Store::new(Arc::new(Memory::open(disk))).commit(one_row())).unwrap();
        assert_eq!(Store::new(Arc::new(Memory::open(copy))).position(), Position::ZERO);
    }
}
