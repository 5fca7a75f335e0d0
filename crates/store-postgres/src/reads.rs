//! Point reads and scans, on a shared connection or in a snapshot.

use std::collections::HashMap;

use bytes::Bytes;
use deadpool_postgres::{ClientWrapper, Object};
use futures::{FutureExt, future::BoxFuture};
use myelin_store::{
    Error,
    backend::{KeyRange, RawRead, Row, ScanDirection},
    tables::TableId,
};
use tokio_postgres::types::ToSql;

use crate::{connect::failed, schema};

type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

async fn query(
    client: &ClientWrapper,
    sql: &str,
    parameters: Parameters<'_>,
) -> Result<Vec<tokio_postgres::Row>, Error> {
    let statement = client.prepare_cached(sql).await.map_err(failed)?;
    client.query(&statement, parameters).await.map_err(failed)
}

fn column(row: &tokio_postgres::Row, at: usize) -> Bytes {
    Bytes::copy_from_slice(row.get(at))
}

pub(crate) async fn load(client: &ClientWrapper, table: TableId, key: &[u8]) -> Result<Option<Bytes>, Error> {
    let sql = format!("SELECT v FROM {} WHERE k = $1", schema::table_of(table)?);
    let rows = query(client, &sql, &[&key]).await?;
    Ok(rows.first().map(|row| column(row, 0)))
}

/// Rows by key.
pub(crate) async fn load_rows(
    client: &ClientWrapper,
    table: TableId,
    keys: &[Vec<u8>],
) -> Result<HashMap<Bytes, Bytes>, Error> {
    let sql = format!("SELECT k, v FROM {} WHERE k = ANY($1)", schema::table_of(table)?);
    let rows = query(client, &sql, &[&keys]).await?;
    Ok(rows.iter().map(|row| (column(row, 0), column(row, 1))).collect())
}

pub(crate) async fn load_all(
    client: &ClientWrapper,
    table: TableId,
    keys: &[Vec<u8>],
) -> Result<Vec<Option<Bytes>>, Error> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let found = load_rows(client, table, keys).await?;
    Ok(keys.iter().map(|key| found.get(&key[..]).cloned()).collect())
}

pub(crate) async fn rows(
    client: &ClientWrapper,
    table: TableId,
    range: &KeyRange,
    direction: ScanDirection,
    limit: usize,
) -> Result<Vec<Row>, Error> {
    let order = match direction {
        ScanDirection::Forward => "ASC",
        ScanDirection::Reverse => "DESC",
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let select = format!("SELECT k, v FROM {} WHERE k >= $1", schema::table_of(table)?);
    let found = match &range.end {
        Some(end) => {
            let sql = format!("{select} AND k < $2 ORDER BY k {order} LIMIT $3");
            query(client, &sql, &[&range.start, end, &limit]).await?
        }
        None => {
            query(client, &format!("{select} ORDER BY k {order} LIMIT $2"), &[&range.start, &limit]).await?
        }
    };
    Ok(found.iter().map(|row| (column(row, 0), column(row, 1))).collect())
}

/// All tables at one moment: a transaction on a connection of its own.
pub(crate) struct Snapshot {
    /// Taken when dropped.
    client: Option<Object>,
    runtime: tokio::runtime::Handle,
}

impl Snapshot {
    pub(crate) async fn begin(client: Object) -> Result<Self, Error> {
        client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(failed)?;
        let snapshot = Self { client: Some(client), runtime: tokio::runtime::Handle::current() };
        // The first query fixes the moment, not BEGIN.
        schema::last_position(snapshot.client()?).await?;
        Ok(snapshot)
    }

    fn client(&self) -> Result<&ClientWrapper, Error> {
        self.client.as_deref().ok_or_else(|| Error::Backend("the snapshot has ended".to_owned()))
    }
}

impl Drop for Snapshot {
    /// The connection goes back to the pool once the transaction has ended.
    fn drop(&mut self) {
        let Some(client) = self.client.take() else { return };
        self.runtime.spawn(async move {
            if client.batch_execute("ROLLBACK").await.is_err() {
                drop(Object::take(client));
            }
        });
    }
}

impl RawRead for Snapshot {
    fn get(&self, table: TableId, key: Vec<u8>) -> BoxFuture<'_, Result<Option<Bytes>, Error>> {
        async move { load(self.client()?, table, &key).await }.boxed()
    }

    fn multi_get(
        &self,
        table: TableId,
        keys: Vec<Vec<u8>>,
    ) -> BoxFuture<'_, Result<Vec<Option<Bytes>>, Error>> {
        async move { load_all(self.client()?, table, &keys).await }.boxed()
    }

    fn scan(
        &self,
        table: TableId,
        range: KeyRange,
        direction: ScanDirection,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Row>, Error>> {
        async move { rows(self.client()?, table, &range, direction, limit).await }.boxed()
    }
}
