//! After a store was set back to a backup: one-time keys that were claimed since are in it again, and giving one out twice
//! would break the secrecy of what is encrypted with it. Devices notice that they have none in stock, and make new ones.

use myelin_core::UserNid;
use myelin_store::{
    Batch, Error, Store,
    log::LogEntry,
    tables::{KEY_STOCKS, KeyStockRecord, ONE_TIME_KEYS},
};

const PAGE: usize = 1_000;

/// Whether somebody follows the log of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    Yes,
    /// A copy that nobody has opened: its log stays as it is.
    No,
}

/// Drops every one-time key of every device. Fallback keys stay: they are meant to be used more than once, and count as
/// used now. Answers how many keys there were.
pub async fn drop_one_time_keys(store: &Store, followed: Followed) -> Result<u64, Error> {
    let mut dropped = 0;
    loop {
        let rows = store.read().all(&ONE_TIME_KEYS, PAGE).await?;
        let mut batch = Batch::new();
        rows.iter().for_each(|(row, _)| batch.delete(&ONE_TIME_KEYS, row));
        if rows.is_empty() {
            break;
        }
        dropped += rows.len() as u64;
        commit(store, batch).await?;
    }
    let mut after = (UserNid(0), String::new());
    loop {
        let end = (UserNid(u64::MAX), String::new());
        let rows = store.range(&KEY_STOCKS, &after, &end, myelin_store::Direction::Forward, PAGE).await?;
        let mut batch = Batch::new();
        for (device, stock) in &rows {
            batch.put(&KEY_STOCKS, device, &emptied(stock));
            if followed == Followed::Yes {
                batch.log(&LogEntry::KeyStock { user: device.0 });
            }
        }
        let Some(((user, device_id), _)) = rows.last() else { return Ok(dropped) };
        after = (*user, format!("{device_id}\u{0}"));
        commit(store, batch).await?;
    }
}

fn emptied(stock: &KeyStockRecord) -> KeyStockRecord {
    let mut stock = KeyStockRecord { version: stock.version + 1, ..stock.clone() };
    stock.one_time_keys.iter_mut().for_each(|(_, count)| *count = 0);
    stock.fallback_keys.iter_mut().for_each(|key| key.used = true);
    stock
}

async fn commit(store: &Store, batch: Batch) -> Result<(), Error> {
    match store.commit(batch).await {
        Ok(_) => Ok(()),
        Err(myelin_store::CommitError::Store(error)) => Err(error),
        // Invariant: these batches have no preconditions.
        Err(conflict) => Err(Error::Backend(conflict.to_string())),
    }
}
