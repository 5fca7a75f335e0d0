//! The tables in the database.

use deadpool_postgres::Object;
use myelin_core::Position;
use myelin_store::{
    Error,
    tables::{self, TableId},
};

use crate::connect::failed;

/// Serialises the creation of tables by processes that start at the same time ("myelin" in ASCII).
const CREATION_LOCK: i64 = 0x6d79_656c_696e;

pub(crate) fn table_name(name: &str) -> String {
    format!("myelin_{name}")
}

/// The database's table for a table of the store.
pub(crate) fn table_of(id: TableId) -> Result<String, Error> {
    let known = tables::ALL.iter().find(|table| table.id == id);
    known.map(|table| table_name(table.name)).ok_or_else(|| Error::Backend(format!("no table {}", id.0)))
}

/// Creates what is missing; existing tables stay as they are.
pub(crate) async fn create(client: &Object) -> Result<(), Error> {
    let mut statements = format!(
        "BEGIN; SET LOCAL client_min_messages = warning; SELECT pg_advisory_xact_lock({CREATION_LOCK});
         CREATE TABLE IF NOT EXISTS myelin_position (last bigint NOT NULL);
         INSERT INTO myelin_position (last) SELECT 0 WHERE NOT EXISTS (SELECT FROM myelin_position);"
    );
    for table in tables::ALL {
        let name = table_name(table.name);
        statements += &format!("CREATE TABLE IF NOT EXISTS {name} (k bytea PRIMARY KEY, v bytea NOT NULL);");
    }
    statements += "COMMIT";
    client.batch_execute(&statements).await.map_err(failed)
}

pub(crate) async fn last_position(client: &tokio_postgres::Client) -> Result<Position, Error> {
    let row = client.query_one("SELECT last FROM myelin_position", &[]).await.map_err(failed)?;
    Ok(position(row.get(0)))
}

/// PostgreSQL has signed numbers only.
pub(crate) fn position(last: i64) -> Position {
    Position(u64::try_from(last).unwrap_or_default())
}
