//! Typing and receipts of a room in sync. Both are snapshots: what holds now, if it changed since the token.

use std::collections::BTreeMap;

use myelin_core::{Position, RoomNid, UserNid};
use myelin_store::{
    Direction,
    tables::{RECEIPTS, RECEIPTS_BY_POSITION, ReceiptRecord},
};
use myelin_view::RoomSnapshot;
use serde_json::json;

use super::{Changes, Context};
use crate::{Error, Sync, client_event::small_event};

const RECEIPTS_MAX: usize = 20_000;
const PRIVATE: &str = "m.read.private";

/// (user, receipt type, thread id or "") and the receipt.
pub(crate) type Receipt = ((UserNid, String, String), ReceiptRecord);

impl Sync {
    /// `since == None`: the client knows nothing of the room yet.
    pub(crate) async fn room_ephemeral(
        &self,
        context: &Context<'_>,
        changes: &Changes,
        room: &RoomSnapshot,
        since: Option<Position>,
    ) -> Result<Vec<String>, Error> {
        let filter = &context.request.filter.room.ephemeral;
        let mut events = Vec::new();
        if !filter.allows_room(&room.info.room_id) {
            return Ok(events);
        }
        if filter.allows_type("m.typing") {
            let since = since.map(|_| context.since_ephemeral);
            events.extend(self.typing_event(room.nid(), since).await?);
        }
        let receipts = since.is_none() || changes.may_have_receipts(room.nid());
        if receipts && filter.allows_type("m.receipt") {
            let receipts = self.receipts_since(room.nid(), since, context.now).await?;
            events.extend(self.receipt_event(context.request.requester.user, receipts).await?);
        }
        Ok(events)
    }

    /// Whether the user set a receipt in the interval, on whatever device and whether or not the client asks for receipts.
    pub(super) async fn has_read(
        &self,
        context: &Context<'_>,
        changes: &Changes,
        room: RoomNid,
        since: Option<Position>,
    ) -> Result<bool, Error> {
        let Some(since) = since.filter(|_| changes.may_have_receipts(room)) else { return Ok(false) };
        let (from, to) = ((room, since.next()), (room, context.now.next()));
        let (store, user) = (&self.view.store, context.request.requester.user);
        let refs = store.range(&RECEIPTS_BY_POSITION, &from, &to, Direction::Forward, RECEIPTS_MAX).await?;
        Ok(refs.iter().any(|(_, receipt)| receipt.user == user))
    }

    /// `since == None`: only worth an event if somebody types.
    pub(crate) async fn typing_event(
        &self,
        room: RoomNid,
        since: Option<u64>,
    ) -> Result<Option<String>, Error> {
        let Some(users) = self.view.ephemeral.typing_since(room, since.unwrap_or(0)) else { return Ok(None) };
        if since.is_none() && users.is_empty() {
            return Ok(None);
        }
        let mut ids = Vec::with_capacity(users.len());
        for user in users {
            ids.push(self.view.interner.user_id(user).await?);
        }
        Ok(Some(small_event("m.typing", &json!({ "user_ids": ids }).to_string())))
    }

    pub(crate) async fn receipts_since(
        &self,
        room: RoomNid,
        since: Option<Position>,
        now: Position,
    ) -> Result<Vec<Receipt>, Error> {
        let store = &self.view.store;
        let Some(since) = since else {
            let rows = store.scan(&RECEIPTS, &room, Direction::Forward, RECEIPTS_MAX).await?;
            let rows =
                rows.into_iter().map(|((_, user, kind, thread), row)| ((user, kind, thread), row.value));
            return Ok(rows.collect());
        };
        let (from, to) = ((room, since.next()), (room, now.next()));
        let refs = store.range(&RECEIPTS_BY_POSITION, &from, &to, Direction::Forward, RECEIPTS_MAX).await?;
        if refs.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<_> =
            refs.into_iter().map(|(_, r)| (room, r.user, r.receipt_type, r.thread_id)).collect();
        let rows = store.multi_get(&RECEIPTS, &keys).await?;
        let found = keys.into_iter().zip(rows);
        Ok(found
            .filter_map(|((_, user, kind, thread), row)| Some(((user, kind, thread), row?.value)))
            .collect())
    }

    /// One `m.receipt` event; private receipts only for their owner.
    pub(crate) async fn receipt_event(
        &self,
        viewer: UserNid,
        receipts: Vec<Receipt>,
    ) -> Result<Option<String>, Error> {
        type ByUser = serde_json::Map<String, serde_json::Value>;
        let mut content: BTreeMap<String, BTreeMap<String, ByUser>> = BTreeMap::new();
        for ((user, kind, thread), receipt) in receipts {
            if kind == PRIVATE && user != viewer {
                continue;
            }
            let mut data = json!({ "ts": receipt.ts_ms });
            if !thread.is_empty() {
                data["thread_id"] = thread.into();
            }
            let user_id = self.view.interner.user_id(user).await?.to_string();
            let readers = content.entry(receipt.event_id).or_default().entry(kind).or_default();
            // The event has room for one receipt of a user: the unthreaded one says more (MSC4102).
            let unthreaded = readers.get(&user_id).is_some_and(|held| held.get("thread_id").is_none());
            if !unthreaded {
                readers.insert(user_id, data);
            }
        }
        if content.is_empty() {
            return Ok(None);
        }
        Ok(Some(small_event("m.receipt", &json!(content).to_string())))
    }
}
