//! Deletes rows that nobody asks for any more: transaction ids of long ago, sticky events that have ended, the old end of
//! the log ([`log`]).

mod log;

use std::{sync::Arc, time::Duration};

use myelin_core::{EventNid, UserNid};
use myelin_store::{
    Batch, CommitError, Direction,
    tables::{STICKY_EVENTS, TRANSACTIONS},
};

use crate::{Error, Rooms};

/// How long a repeated request gets the answer of the first.
const TRANSACTION_AGE_MS_MAX: u64 = 3 * 24 * 3600 * 1000;
/// Rows read, and deleted, in one commit.
const PAGE: usize = 500;
/// Between two of them, so that it never crowds out what people wait for.
const PAUSE: Duration = Duration::from_millis(100);
const ROUND_PAUSE: Duration = Duration::from_secs(3600);

/// Trims for ever, beginning after the first pause: a start has other things to do.
pub async fn run_trimming(rooms: Arc<Rooms>) {
    let clock = rooms.view.env.clock.clone();
    let mut old_log = log::OldLog::default();
    loop {
        clock.sleep(ROUND_PAUSE).await;
        if let Err(error) = rooms.trim(&mut old_log).await {
            tracing::error!(%error, "old rows cannot be deleted; trying again");
        }
    }
}

impl Rooms {
    async fn trim(&self, old_log: &mut log::OldLog) -> Result<(), Error> {
        self.trim_sticky().await?;
        self.trim_transactions().await?;
        self.trim_log(old_log).await
    }

    async fn trim_sticky(&self) -> Result<(), Error> {
        let (from, to) = ((0, EventNid::NONE), (self.view.env.now_ms(), EventNid::NONE));
        loop {
            let rows = self.view.store.range(&STICKY_EVENTS, &from, &to, Direction::Forward, PAGE).await?;
            let mut batch = Batch::new();
            rows.iter().for_each(|(row, _)| batch.delete(&STICKY_EVENTS, row));
            if !self.trimmed(batch, rows.len()).await? {
                return Ok(());
            }
        }
    }

    async fn trim_transactions(&self) -> Result<(), Error> {
        let old_ms = self.view.env.now_ms().saturating_sub(TRANSACTION_AGE_MS_MAX);
        let end = (UserNid(u64::MAX), String::new(), String::new(), String::new());
        let mut from = (UserNid(0), String::new(), String::new(), String::new());
        loop {
            let rows = self.view.store.range(&TRANSACTIONS, &from, &end, Direction::Forward, PAGE).await?;
            let mut batch = Batch::new();
            let old = rows.iter().filter(|(_, record)| record.at_ms < old_ms);
            old.for_each(|(row, _)| batch.delete(&TRANSACTIONS, row));
            if let Some((last, _)) = rows.last() {
                // The next one after it.
                from = (last.0, last.1.clone(), last.2.clone(), format!("{}\0", last.3));
            }
            if !self.trimmed(batch, rows.len()).await? {
                return Ok(());
            }
        }
    }

    /// Whether there may be more.
    async fn trimmed(&self, batch: Batch, rows: usize) -> Result<bool, Error> {
        if !batch.is_empty() {
            match self.view.store.commit(batch).await {
                Ok(_) | Err(CommitError::Conflict { .. }) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        if rows < PAGE {
            return Ok(false);
        }
        self.view.env.clock.sleep(PAUSE).await;
        Ok(true)
    }
}
