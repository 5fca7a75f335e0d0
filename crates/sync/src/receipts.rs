//! Setting receipts (Client-Server API, "Receipts"). One row per user, type and thread; they only move forward.

use myelin_core::{RoomNid, UserNid};
use myelin_store::{
    Batch, CommitError,
    codec::AtPosition,
    log::LogEntry,
    tables::{RECEIPTS, RECEIPTS_BY_POSITION, ReceiptRecord, ReceiptRef},
};
use ruma::{EventId, RoomId};

use crate::{Error, Requester, Sync};

/// Attempts against others who write the same receipt.
const ATTEMPTS: usize = 8;

/// A receipt of `m.read` or `m.read.private`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewReceipt {
    pub receipt_type: String,
    /// "" for none.
    pub thread_id: String,
}

impl Sync {
    /// Durable when it returns. A receipt for an event older than the one it has changes nothing.
    pub async fn set_receipt(
        &self,
        requester: &Requester,
        room_id: &RoomId,
        event_id: &EventId,
        receipt: &NewReceipt,
    ) -> Result<(), Error> {
        let room = self.joined_room_of(requester, room_id).await?;
        let placed = self.visible_event(requester, room_id, event_id).await?;
        let record = ReceiptRecord {
            event_id: event_id.to_string(),
            order: placed.order.0,
            ts_ms: self.view.env.now_ms(),
        };
        for _ in 0..ATTEMPTS {
            let batch = self.receipt_batch(room.nid(), requester.user, receipt, &record).await?;
            let Some(batch) = batch else { return Ok(()) };
            match self.view.store.commit(batch).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict { .. }) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::Busy)
    }

    /// `None` if there is nothing to change.
    async fn receipt_batch(
        &self,
        room: RoomNid,
        user: UserNid,
        receipt: &NewReceipt,
        record: &ReceiptRecord,
    ) -> Result<Option<Batch>, Error> {
        let key = (room, user, receipt.receipt_type.clone(), receipt.thread_id.clone());
        let held = self.view.store.get(&RECEIPTS, &key).await?;
        if held.as_ref().is_some_and(|held| held.value.order >= record.order) {
            return Ok(None);
        }
        let mut batch = Batch::new();
        batch.require_unchanged(&RECEIPTS, &key, held.as_ref());
        if let Some(held) = &held {
            batch.delete(&RECEIPTS_BY_POSITION, &(room, held.position));
        }
        let position = batch.log(&LogEntry::Receipt { room, user });
        batch.put(&RECEIPTS, &key, &AtPosition { position, value: record.clone() });
        let (_, _, receipt_type, thread_id) = key;
        batch.put(&RECEIPTS_BY_POSITION, &(room, position), &ReceiptRef { user, receipt_type, thread_id });
        Ok(Some(batch))
    }
}
