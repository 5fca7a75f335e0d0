//! Setting receipts (Client-Server API, "Receipts"). One row per user, type and thread; they only move forward: those of
//! local users in the timeline here, those of others in time, as their own server has its timeline in another order.

use std::sync::Arc;

use myelin_core::{RoomNid, UserNid};
use myelin_store::{
    Batch, CommitError,
    codec::AtPosition,
    log::LogEntry,
    tables::{RECEIPTS, RECEIPTS_BY_POSITION, ReceiptRecord, ReceiptRef},
};
use myelin_view::Event;
use ruma::{EventId, OwnedEventId, RoomId};

use crate::{Error, Requester, Sync};

/// Attempts against others who write the same receipt.
const ATTEMPTS: usize = 8;
/// The thread of what is in no thread.
const MAIN_THREAD: &str = "main";
/// From a reaction to an edit to the event in a thread.
const RELATION_HOPS_MAX: usize = 3;

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
        self.check_thread(&placed.event, &receipt.thread_id).await?;
        let record = ReceiptRecord {
            event_id: event_id.to_string(),
            order: placed.order.0,
            ts_ms: self.view.env.now_ms(),
        };
        let passed = |held: &ReceiptRecord| held.order >= record.order;
        self.put_receipt(room.nid(), requester.user, receipt, &record, passed).await
    }

    /// A receipt that the user's own server vouches for; durable when it returns. `false`: the event has no place in the
    /// timeline of the room, so the receipt cannot be kept.
    pub async fn take_receipt(
        &self,
        room: RoomNid,
        user: UserNid,
        event: &Event,
        receipt: &NewReceipt,
        ts_ms: u64,
    ) -> Result<bool, Error> {
        let order = event.order.filter(|_| event.room == room && event.accepted());
        let Some(order) = order else { return Ok(false) };
        let record = ReceiptRecord { event_id: event.pdu.event_id.to_string(), order: order.0, ts_ms };
        let passed = |held: &ReceiptRecord| held.event_id == record.event_id || held.ts_ms > record.ts_ms;
        self.put_receipt(room, user, receipt, &record, passed).await?;
        Ok(true)
    }

    async fn put_receipt(
        &self,
        room: RoomNid,
        user: UserNid,
        receipt: &NewReceipt,
        record: &ReceiptRecord,
        passed: impl Fn(&ReceiptRecord) -> bool,
    ) -> Result<(), Error> {
        for _ in 0..ATTEMPTS {
            let batch = self.receipt_batch(room, user, receipt, record, &passed).await?;
            let Some(batch) = batch else { return Ok(()) };
            match self.view.store.commit(batch).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict { .. }) => {}
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        Err(Error::Busy)
    }

    /// The event has to be of the thread of its receipt (Client-Server API, "Threaded read receipts").
    async fn check_thread(&self, event: &Arc<Event>, thread_id: &str) -> Result<(), Error> {
        if thread_id.is_empty() || event.pdu.event_id == thread_id {
            return Ok(());
        }
        let of_event = self.thread_of(event).await?;
        if of_event.as_ref().map_or(MAIN_THREAD, |root| root.as_str()) == thread_id {
            return Ok(());
        }
        Err(Error::InvalidParam("thread_id: the event is not part of this thread.".to_owned()))
    }

    /// The root of the thread that the event is in, itself or by what it relates to.
    async fn thread_of(&self, event: &Arc<Event>) -> Result<Option<OwnedEventId>, Error> {
        let mut event = event.clone();
        for _ in 0..RELATION_HOPS_MAX {
            let Some(relation) = event.pdu.relates_to() else { return Ok(None) };
            if relation.rel_type == "m.thread" {
                return Ok(Some(relation.event_id));
            }
            let related = self.view.events.load_by_id(&relation.event_id).await?;
            let Some(related) = related.filter(|related| related.room == event.room) else { return Ok(None) };
            event = related;
        }
        Ok(None)
    }

    /// Whether an event comes after another one in the timeline; it does if the other is not known.
    pub async fn is_after(&self, event_id: &EventId, other: &EventId) -> Result<bool, Error> {
        let event = self.view.events.load_by_id(event_id).await?.and_then(|event| event.order);
        let other = self.view.events.load_by_id(other).await?.and_then(|event| event.order);
        Ok(other.is_none_or(|other| event.is_some_and(|event| event > other)))
    }

    /// `None` if there is nothing to change.
    async fn receipt_batch(
        &self,
        room: RoomNid,
        user: UserNid,
        receipt: &NewReceipt,
        record: &ReceiptRecord,
        passed: impl Fn(&ReceiptRecord) -> bool,
    ) -> Result<Option<Batch>, Error> {
        let key = (room, user, receipt.receipt_type.clone(), receipt.thread_id.clone());
        let held = self.view.store.get(&RECEIPTS, &key).await?;
        if held.as_ref().is_some_and(|held| passed(&held.value)) {
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
