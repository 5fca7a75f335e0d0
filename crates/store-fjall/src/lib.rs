//! The embedded backend: an LSM tree (fjall) in a directory, one process at a time.
//!
//! - All commits go through one writer thread ([`writer`]), which gathers whatever waits into one group: one write,
//!   one fsync, then all answers. A lone batch waits for nobody.
//! - Reads are synchronous and see what is durable; their futures are ready at once.
//! - fjall's `clear()` and its key-value separation are not used: both had recovery bugs.
//!
//! Must not know: what is in the rows.

mod engine;
mod journal;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use bytes::Bytes;
use futures::{
    FutureExt,
    channel::oneshot,
    future::{self, BoxFuture},
};
use myelin_core::Position;
use myelin_store::{
    Error,
    backend::{Backend, CommitFuture, KeyRange, RawBatch, RawRead, Row, ScanDirection},
    tables::TableId,
};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::{
    engine::{Engine, View},
    writer::Writer,
};

/// An open embedded store.
pub struct Fjall {
    /// `None` once closed.
    open: RwLock<Option<Open>>,
    position: watch::Receiver<Position>,
    directory: PathBuf,
}

struct Open {
    engine: Arc<Engine>,
    writer: Writer,
}

impl Fjall {
    /// Opens the store in `directory`, creating it if there is none. Blocks while the journal is replayed.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let engine = Arc::new(Engine::open(directory)?);
        let (announce, position) = watch::channel(engine.last_position()?);
        let writer = Writer::start(engine.clone(), announce)?;
        let open = RwLock::new(Some(Open { engine, writer }));
        Ok(Self { open, position, directory: directory.to_owned() })
    }

    /// Group commits, and so fsyncs, since the store was opened.
    pub fn groups_committed(&self) -> u64 {
        self.open.read().as_ref().map_or(0, |open| open.writer.groups_committed())
    }

    fn view(&self) -> Result<View, Error> {
        self.open.read().as_ref().map(|open| open.engine.view()).ok_or_else(closed)
    }

    fn shut(&self) -> Result<(), Error> {
        let Some(Open { engine, writer }) = self.open.write().take() else { return Ok(()) };
        writer.finish();
        let settled = engine.settle()?;
        if settled && Arc::into_inner(engine).is_some() {
            journal::discard(&self.directory);
        }
        Ok(())
    }
}

impl Drop for Fjall {
    /// The directory is free for the next process when this returns, snapshots aside.
    fn drop(&mut self) {
        if let Some(open) = self.open.get_mut().take() {
            open.writer.finish();
        }
    }
}

fn closed() -> Error {
    Error::Backend("the store is closed".to_owned())
}

impl RawRead for Fjall {
    fn get(&self, table: TableId, key: Vec<u8>) -> BoxFuture<'_, Result<Option<Bytes>, Error>> {
        future::ready(self.view().and_then(|view| view.load(table, &key))).boxed()
    }

    fn multi_get(
        &self,
        table: TableId,
        keys: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Bytes>>, Error>> {
        future::ready(self.view().and_then(|view| view.load_all(table, &keys))).boxed()
    }

    fn scan(
        &self,
        table: TableId,
        range: KeyRange,
        direction: ScanDirection,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Row>, Error>> {
        future::ready(self.view().and_then(|view| view.rows(table, &range, direction, limit))).boxed()
    }
}

impl Backend for Fjall {
    fn submit(&self, batch: RawBatch) -> CommitFuture {
        match &*self.open.read() {
            Some(open) => open.writer.submit(batch),
            None => future::ready(Err(closed().into())).boxed(),
        }
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Box<dyn RawRead>, Error>> {
        future::ready(self.view().map(|view| Box::new(view) as Box<dyn RawRead>)).boxed()
    }

    fn position(&self) -> Position {
        *self.position.borrow()
    }

    fn wait_past(&self, seen: Position) -> BoxFuture<'_, Position> {
        let mut position = self.position.clone();
        async move {
            let reached = position.wait_for(|last| *last > seen).await.ok().map(|last| *last);
            match reached {
                Some(last) => last,
                // Closed: nothing will ever be past it.
                None => future::pending().await,
            }
        }
        .boxed()
    }

    fn compact(&self) -> BoxFuture<'_, Result<(), Error>> {
        let Some(engine) = self.open.read().as_ref().map(|open| open.engine.clone()) else {
            return future::ready(Err(closed())).boxed();
        };
        let (done, result) = oneshot::channel();
        // Takes minutes, so on a thread of its own.
        thread::spawn(move || done.send(engine.compact()).ok());
        result.map(|result| result.unwrap_or_else(|_| Err(closed()))).boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Error>> {
        future::lazy(|_| self.shut()).boxed()
    }
}
