//! What of the sender is durable: a cursor in the log, and a row for each server that is behind.
//!
//! Invariant: whatever the log has for a server at or before the cursor has been answered by it, or its row says from
//! where on it has not. So healthy traffic costs a write of the cursor now and then, and a crash repeats a little.

use std::{sync::Arc, time::Duration};

use myelin_core::Position;
use myelin_store::{
    Batch, CommitError, Error, Store, readers,
    tables::{Cursor, DESTINATIONS, DestinationRecord, LOG_CURSORS},
};
use ruma::OwnedServerName;

use super::{Sender, State, queue::Destination};

/// How often something is written while something changes.
const INTERVAL: Duration = Duration::from_secs(5);
/// A server that answers, but has not done so for that long, gets a row: the cursor does not wait for it.
const SLOW_MS: u64 = 10_000;
const DESTINATIONS_MAX: usize = 10_000_000;
const RETRY_PAUSE: Duration = Duration::from_secs(5);

type Change = (OwnedServerName, Option<DestinationRecord>);

impl Sender {
    /// Reads what the last process left. Tries until the store lets it.
    pub(super) async fn restore(&self) {
        while let Err(error) = self.read_ledger().await {
            tracing::error!(%error, "the queues for other servers cannot be read; trying again");
            self.view.env.clock.sleep(RETRY_PAUSE).await;
        }
    }

    async fn read_ledger(&self) -> Result<(), Error> {
        let cursor = self.view.store.get(&LOG_CURSORS, &readers::FEDERATION.to_owned()).await?;
        let rows = stored(&self.view.store).await?;
        let sequence = self.view.ephemeral.sequence();
        let state = &mut *self.state.lock();
        state.board_sequence = sequence;
        // A store that has never sent anything begins at its beginning: nothing in it is for others, or it was made
        // before the first run and is short.
        state.dispatched = cursor.map_or(Position::ZERO, |cursor| cursor.position);
        state.written = state.dispatched;
        for (server, record) in rows {
            if self.client.permits(&server) {
                state.destinations.insert(server, Destination::restored(record));
            }
        }
        Ok(())
    }

    /// Runs for ever.
    pub(super) async fn run_ledger(self: Arc<Self>) {
        loop {
            self.ledger_changed.notified().await;
            self.view.env.clock.sleep(INTERVAL).await;
            if let Err(error) = self.write_ledger().await {
                tracing::error!(%error, "the queues for other servers cannot be written; trying again");
                self.ledger_changed.notify_one();
            }
        }
    }

    /// Writes cursor and rows as they are now.
    pub async fn write_ledger(&self) -> Result<(), CommitError> {
        let (cursor, changes) = self.state.lock().ledger(self.view.env.now_ms());
        let advanced = cursor > self.state.lock().written;
        if !advanced && changes.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for (server, record) in &changes {
            match record {
                Some(record) => batch.put(&DESTINATIONS, &server.to_string(), record),
                None => batch.delete(&DESTINATIONS, &server.to_string()),
            }
        }
        if advanced {
            batch.put(&LOG_CURSORS, &readers::FEDERATION.to_owned(), &Cursor { position: cursor });
        }
        self.view.store.commit(batch).await?;
        let state = &mut *self.state.lock();
        state.written = state.written.max(cursor);
        for (server, record) in changes {
            if let Some(destination) = state.destinations.get_mut(&server) {
                destination.recorded = record;
            }
        }
        Ok(())
    }
}

/// The rows of a store, for the sender and for operators of a server that does not run.
pub async fn stored(store: &Store) -> Result<Vec<(OwnedServerName, DestinationRecord)>, Error> {
    let rows = store.read().all(&DESTINATIONS, DESTINATIONS_MAX).await?;
    Ok(rows.into_iter().filter_map(|(name, record)| Some((name.try_into().ok()?, record))).collect())
}

impl State {
    /// Up to where the cursor may go, and the rows that change.
    fn ledger(&self, now_ms: u64) -> (Position, Vec<Change>) {
        let mut cursor = self.dispatched;
        let mut changes = Vec::new();
        for (server, destination) in &self.destinations {
            let Some(oldest) = destination.oldest() else {
                if destination.recorded.is_some() {
                    changes.push((server.clone(), None));
                }
                continue;
            };
            let slow = destination.in_flight && now_ms >= destination.health.last_attempt_ms + SLOW_MS;
            if destination.health.failures == 0 && destination.recorded.is_none() && !slow {
                cursor = cursor.min(Position(oldest.0.saturating_sub(1)));
                continue;
            }
            let record = destination.record();
            if record != destination.recorded {
                changes.push((server.clone(), record));
            }
        }
        (cursor, changes)
    }
}
