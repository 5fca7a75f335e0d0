//! Transaction ids (Client-Server API, "Transaction identifiers"): a repeated request gets the first one's answer.
//!
//! The row in the store decides, also between processes. The lock here only spares concurrent repeats a conflict,
//! which would void everything built on them.

use std::{collections::HashMap, sync::Arc};

use myelin_core::{UserNid, limits::TXN_ID_SIZE_MAX};
use myelin_store::tables::{TRANSACTIONS, TransactionRecord};
use myelin_view::Event;
use parking_lot::Mutex;
use ruma::OwnedEventId;
use tokio::sync::OwnedMutexGuard;

use super::Draft;
use crate::{Error, Rooms, Sender, Transaction};

type Key = (UserNid, String, String, String);
type Locks = Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>;

/// Transactions under way.
#[derive(Clone, Default)]
pub struct Transactions(Arc<Locks>);

/// One transaction under way; nobody else in this process is at it.
pub struct UnderWay {
    transactions: Transactions,
    key: Key,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Transactions {
    async fn enter(&self, key: Key) -> UnderWay {
        let lock = self.0.lock().entry(key.clone()).or_default().clone();
        let mut under_way = UnderWay { transactions: self.clone(), key, guard: None };
        under_way.guard = Some(lock.lock_owned().await);
        under_way
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        drop(self.guard.take());
        let mut locks = self.transactions.0.lock();
        if locks.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            locks.remove(&self.key);
        }
    }
}

impl Draft<'_> {
    /// The answer that the same transaction has got meanwhile: the reason why an earlier try may have failed.
    pub(crate) async fn answered(&self, under_way: &UnderWay) -> Result<Option<OwnedEventId>, Error> {
        if self.attempt == 0 {
            return Ok(None);
        }
        let record = self.rooms.view.store.get(&TRANSACTIONS, &under_way.key).await?;
        record.as_ref().map(event_id).transpose()
    }

    /// The row by which a repeat finds this answer; the commit conflicts if there is one already.
    pub(crate) fn record(&mut self, under_way: &UnderWay, event: &Event) {
        let at_ms = self.rooms.view.env.now_ms();
        let record = TransactionRecord { event_id: event.pdu.event_id.to_string(), at_ms };
        self.batch.require_absent(&TRANSACTIONS, &under_way.key);
        self.batch.put(&TRANSACTIONS, &under_way.key, &record);
    }
}

/// Where a request with a transaction id stands.
pub enum Begun {
    New(UnderWay),
    Done(OwnedEventId),
}

impl Rooms {
    /// `scope` is the endpoint with what its path names, the transaction id left out.
    pub(crate) async fn begin(
        &self,
        sender: &Sender,
        transaction: &Transaction,
        scope: String,
    ) -> Result<Begun, Error> {
        if transaction.transaction_id.len() > TXN_ID_SIZE_MAX {
            return Err(Error::InvalidParam(format!(
                "A transaction id has at most {TXN_ID_SIZE_MAX} bytes."
            )));
        }
        let device_id = transaction.device_id.clone();
        let key = (sender.user, device_id, scope, transaction.transaction_id.clone());
        let under_way = self.transactions.enter(key).await;
        match self.view.store.get(&TRANSACTIONS, &under_way.key).await? {
            Some(record) => Ok(Begun::Done(event_id(&record)?)),
            None => Ok(Begun::New(under_way)),
        }
    }
}

fn event_id(record: &TransactionRecord) -> Result<OwnedEventId, Error> {
    let id = OwnedEventId::try_from(record.event_id.as_str());
    id.map_err(|_| Error::damaged(format!("a transaction holds the event id '{}'", record.event_id)))
}
