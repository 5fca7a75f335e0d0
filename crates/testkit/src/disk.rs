//! A simulated disk: commits are queued, flushed together after a while, and only then visible and acknowledged, as
//! group commit does it. A crash loses what is queued but for a prefix, which is there and was never acknowledged.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, channel::oneshot, future::BoxFuture};
use myelin_core::{Env, Position};
use myelin_store::{
    CommitError, Error,
    backend::{Backend, CommitFuture, Committed, KeyRange, RawBatch, RawRead, Row, ScanDirection},
    memory::{Memory, MemoryDisk},
    tables::TableId,
};
use parking_lot::Mutex;

use crate::below;

/// A flush takes up to so many milliseconds.
const FLUSH_MS_MAX: usize = 6;

type Answer = oneshot::Sender<Result<Committed, CommitError>>;

#[derive(Clone)]
pub struct SimDisk {
    platters: MemoryDisk,
    memory: Arc<Memory>,
    queue: Arc<Mutex<Queue>>,
    env: Env,
}

#[derive(Default)]
struct Queue {
    batches: Vec<(RawBatch, Answer)>,
    flushing: bool,
    /// Nothing gets onto the disk.
    stalled: bool,
    off: bool,
}

impl SimDisk {
    pub fn open(platters: MemoryDisk, env: Env) -> Self {
        let memory = Arc::new(Memory::open(platters.clone()));
        Self { platters, memory, queue: Arc::default(), env }
    }

    /// Where media lies: on the same platters.
    pub fn objects(&self) -> myelin_media::Backend {
        self.platters.beside(myelin_media::Backend::memory)
    }

    /// The power goes: some prefix of the queue reached the disk, nobody hears of it.
    pub fn crash(&self) -> MemoryDisk {
        let mut queue = self.queue.lock();
        queue.off = true;
        let survivors = below(&self.env, queue.batches.len() + 1);
        for (batch, _) in queue.batches.drain(..).take(survivors) {
            self.memory.submit(batch).now_or_never();
        }
        self.platters.clone()
    }

    /// Whether commits wait from now on, or go on.
    pub fn stall(&self, stalled: bool) {
        self.queue.lock().stalled = stalled;
        self.flush();
    }

    fn flush_later(&self) {
        let disk = self.clone();
        let wait = Duration::from_millis(below(&self.env, FLUSH_MS_MAX) as u64);
        let flush = async move {
            disk.env.clock.sleep(wait).await;
            disk.flush();
        };
        self.env.spawner.spawn("flush", flush.boxed());
    }

    fn flush(&self) {
        let mut queue = self.queue.lock();
        queue.flushing = false;
        if queue.off || queue.stalled {
            return;
        }
        for (batch, answer) in queue.batches.drain(..) {
            if let Some(result) = self.memory.submit(batch).now_or_never() {
                answer.send(result).ok();
            }
        }
    }
}

impl RawRead for SimDisk {
    fn get(&self, table: TableId, key: Vec<u8>) -> BoxFuture<'_, Result<Option<Bytes>, Error>> {
        self.memory.get(table, key)
    }

    fn multi_get(
        &self,
        table: TableId,
        keys: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Bytes>>, Error>> {
        self.memory.multi_get(table, keys)
    }

    fn scan(
        &self,
        table: TableId,
        range: KeyRange,
        direction: ScanDirection,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Row>, Error>> {
        self.memory.scan(table, range, direction, limit)
    }
}

impl Backend for SimDisk {
    fn submit(&self, batch: RawBatch) -> CommitFuture {
        let (sender, receiver) = oneshot::channel();
        let mut queue = self.queue.lock();
        queue.batches.push((batch, sender));
        if !std::mem::replace(&mut queue.flushing, true) {
            drop(queue);
            self.flush_later();
        }
        let lost = || Err(Error::Backend("the power went".to_owned()).into());
        receiver.map(move |result| result.unwrap_or_else(|_| lost())).boxed()
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Box<dyn RawRead>, Error>> {
        self.memory.snapshot()
    }

    fn position(&self) -> Position {
        self.memory.position()
    }

    fn wait_past(&self, seen: Position) -> BoxFuture<'_, Position> {
        self.memory.wait_past(seen)
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.memory.close()
    }
}
