//! Following the log: each entry is handed to the queues of the servers that it concerns.

use std::{sync::Arc, time::Duration};

use myelin_core::Position;
use myelin_store::{
    Batch, Direction,
    log::LogEntry,
    tables::{LOG, OUTBOX},
};
use myelin_view::Error;
use ruma::OwnedServerName;

use super::{Sender, routing::Item};

/// Log rows read at a time; their servers set off after each page.
const PAGE: usize = 512;
const RETRY_PAUSE: Duration = Duration::from_secs(1);

impl Sender {
    /// Runs for ever.
    pub(super) async fn follow(self: Arc<Self>) {
        loop {
            let from = self.state.lock().dispatched;
            self.view.feed.moved_past(from).await;
            if let Err(error) = self.dispatch().await {
                tracing::error!(%error, "the log cannot be read for other servers; trying again");
                self.view.env.clock.sleep(RETRY_PAUSE).await;
            }
        }
    }

    /// Up to what every cache knows of.
    async fn dispatch(self: &Arc<Self>) -> Result<(), Error> {
        let until = self.view.feed.published();
        loop {
            let from = self.state.lock().dispatched;
            let (first, end) = (from.next(), until.next());
            let rows = self.view.store.range(&LOG, &first, &end, Direction::Forward, PAGE).await?;
            let last = rows.last().map_or(until, |(position, _)| *position);
            let mut undeliverable = Batch::new();
            for (position, entry) in rows {
                let item = self.item(position, &entry).await?;
                if let Some(Item::Outbox { server, position }) = &item
                    && !self.client.permits(server)
                {
                    undeliverable.delete(&OUTBOX, &(server.to_string(), *position));
                }
                self.hand_over(position, item);
                for newcomer in self.routing.newcomers(position, &entry).await? {
                    self.hand_over(position, Some(newcomer));
                }
            }
            self.forget_undeliverable(undeliverable).await;
            self.state.lock().dispatched = last;
            self.ledger_changed.notify_one();
            self.start_ready();
            if last >= until {
                return Ok(());
            }
        }
    }

    /// What was put into the outbox for servers that are not spoken to.
    async fn forget_undeliverable(&self, rows: Batch) {
        if !rows.is_empty()
            && let Err(error) = self.view.store.commit(rows).await
        {
            tracing::warn!(%error, "EDUs for servers that are not spoken to stay in the outbox");
        }
    }

    /// An entry that is damaged is passed over: those behind it are not to wait for ever.
    pub(super) async fn item(&self, position: Position, entry: &LogEntry) -> Result<Option<Item>, Error> {
        match self.routing.item(position, entry).await {
            Err(Error::Damaged(what)) => {
                tracing::error!(?position, what, "other servers do not hear of this");
                Ok(None)
            }
            other => other,
        }
    }

    fn hand_over(&self, position: Position, item: Option<Item>) {
        let now_ms = self.view.env.now_ms();
        let state = &mut *self.state.lock();
        state.dispatched = position;
        match &item {
            Some(Item::Pdu { room, targets, besides, .. }) => {
                let known = |target: &&OwnedServerName| room.has_server(target) || besides.contains(target);
                let outside = targets.iter().filter(|target| !known(target));
                for server in room.servers.keys().chain(besides).chain(outside) {
                    let pdu = item.as_ref().and_then(|item| item.pdu_for(server));
                    let Some(pdu) = pdu.filter(|_| *server != *self.view.server_name) else { continue };
                    self.with_destination(state, server, |queue| queue.push_pdu(pdu));
                    state.make_ready(server, now_ms);
                }
            }
            Some(Item::Receipt { receipt, room }) => {
                for server in room.servers.keys().filter(|server| **server != *self.view.server_name) {
                    self.with_destination(state, server, |queue| queue.push_receipt(receipt.clone()));
                    state.make_ready(server, now_ms);
                }
            }
            Some(Item::Outbox { server, position }) => {
                self.with_destination(state, server, |queue| queue.note_outbox(*position));
                state.make_ready(server, now_ms);
            }
            Some(Item::Newcomer { server, pdus }) => {
                let pdus = pdus.clone();
                self.with_destination(state, server, |queue| {
                    pdus.into_iter().for_each(|pdu| queue.push_pdu(pdu))
                });
                state.make_ready(server, now_ms);
            }
            None => {}
        }
    }
}
