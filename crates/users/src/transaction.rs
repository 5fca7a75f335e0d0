use myelin_store::{Batch, CommitError, Direction, Store, codec::Value, tables::Table};

use crate::{
    Error,
    token::{self, TokenHash},
};

/// Attempts before giving up: each one fails only because another one succeeded.
const ATTEMPTS_MAX: usize = 16;

/// Loads, decides and commits, again whenever another writer was first. An empty batch is not committed.
///
/// A closure that returns a future, not an async closure: the compiler cannot see that the futures of those are `Send`.
pub(crate) async fn transact<T, E: From<Error>, F: Future<Output = Result<(Batch, T), E>>>(
    store: &Store,
    mut attempt: impl FnMut() -> F,
) -> Result<T, E> {
    for _ in 0..ATTEMPTS_MAX {
        let (batch, outcome) = attempt().await?;
        if batch.is_empty() {
            return Ok(outcome);
        }
        match store.commit(batch).await {
            Ok(_) => return Ok(outcome),
            Err(CommitError::Conflict { .. }) => {}
            Err(CommitError::Store(error)) => return Err(Error::Store(error).into()),
        }
    }
    Err(Error::Contended.into())
}

/// Expired rows deleted per row made: more than one, so that they become fewer.
const SWEPT_MAX: usize = 16;

/// The keys of some rows that have expired, of a table keyed by expiry (`token::expiring_key`).
pub(crate) async fn expired_rows<V: Value>(
    store: &Store,
    table: &Table<TokenHash, V>,
    now_ms: u64,
) -> Result<Vec<TokenHash>, Error> {
    let until = token::expired_before(now_ms.saturating_add(1));
    let rows = store.range(table, &[0_u8; 32], &until, Direction::Forward, SWEPT_MAX).await?;
    Ok(rows.into_iter().map(|(key, _)| key).collect())
}
