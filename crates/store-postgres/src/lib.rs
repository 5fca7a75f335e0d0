//! The PostgreSQL backend: one table `(k bytea primary key, v bytea)` per table of the store.
//!
//! - All commits of a process go through one task ([`writer`]) as groups, each group one transaction. Across processes
//!   a transaction begins by locking the row that holds the last position. So groups of all processes run one after
//!   the other, preconditions are checked on what is committed, and commit order is position order by construction.
//!   The price is one writer at a time per database; groups grow with the load, which is what pays for it.
//! - Reads share a few connections and are pipelined; a snapshot has a connection of its own
//!   (`REPEATABLE READ READ ONLY`).
//! - Other processes' commits are heard of by `LISTEN`, and by looking every few seconds ([`follow`]).
//!
//! Must not know: what is in the rows.

mod connect;
mod follow;
mod reads;
mod schema;
mod writer;

use std::sync::Arc;

use bytes::Bytes;
use deadpool_postgres::Pool;
use futures::{
    FutureExt,
    future::{self, BoxFuture},
};
use myelin_core::Position;
use myelin_store::{
    Error,
    backend::{Backend, CommitFuture, KeyRange, RawBatch, RawRead, Row, ScanDirection},
    tables::{self, TableId},
};
use tokio::sync::watch;

use crate::{
    connect::{Readers, failed},
    reads::Snapshot,
    writer::Writer,
};

/// An open store in a PostgreSQL database.
pub struct Postgres {
    pool: Pool,
    readers: Readers,
    writer: Writer,
    position: watch::Receiver<Position>,
    follower: tokio::task::AbortHandle,
}

impl Postgres {
    /// Connects to `postgres://user:password@host:port/database` and creates what is missing there.
    pub async fn open(uri: &str) -> Result<Self, Error> {
        let config = connect::parse(uri)?;
        let pool = connect::pool(config.clone())?;
        let client = connect::client(&pool).await?;
        schema::create(&client).await?;
        let (announce, position) = watch::channel(schema::last_position(&client).await?);
        let announce = Arc::new(announce);
        let runtime = tokio::runtime::Handle::current();
        let follower = runtime.spawn(follow::follow(config, announce.clone())).abort_handle();
        let writer = Writer::start(pool.clone(), announce);
        Ok(Self { readers: Readers::new(pool.clone()), pool, writer, position, follower })
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl RawRead for Postgres {
    fn get(&self, table: TableId, key: Vec<u8>) -> BoxFuture<'_, Result<Option<Bytes>, Error>> {
        async move { reads::load(&*self.readers.next().await?, table, &key).await }.boxed()
    }

    fn multi_get(
        &self,
        table: TableId,
        keys: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Bytes>>, Error>> {
        async move { reads::load_all(&*self.readers.next().await?, table, &keys).await }.boxed()
    }

    fn scan(
        &self,
        table: TableId,
        range: KeyRange,
        direction: ScanDirection,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Row>, Error>> {
        async move { reads::rows(&*self.readers.next().await?, table, &range, direction, limit).await }
            .boxed()
    }
}

impl Backend for Postgres {
    fn submit(&self, batch: RawBatch) -> CommitFuture {
        self.writer.submit(batch)
    }

    fn snapshot(&self) -> BoxFuture<'_, Result<Box<dyn RawRead>, Error>> {
        async move {
            let snapshot = Snapshot::begin(connect::client(&self.pool).await?).await?;
            Ok(Box::new(snapshot) as Box<dyn RawRead>)
        }
        .boxed()
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
        async move {
            let client = connect::client(&self.pool).await?;
            for table in tables::ALL {
                let vacuum = format!("VACUUM (ANALYZE) {}", schema::table_name(table.name));
                client.batch_execute(&vacuum).await.map_err(failed)?;
            }
            Ok(())
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            self.writer.finish().await;
            self.follower.abort();
            self.pool.close();
            self.readers.close();
            Ok(())
        }
        .boxed()
    }
}
