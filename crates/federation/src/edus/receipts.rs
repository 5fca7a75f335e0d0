//! `m.receipt` from other servers: public receipts of their users, threaded ones kept apart.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use futures::FutureExt;
use myelin_core::{RoomNid, UserNid};
use myelin_sync::receipts::NewReceipt;
use myelin_view::RoomSnapshot;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Dropped, Edus, own, parse};

/// Receipts of one EDU.
const RECEIPTS_MAX: usize = 1_000;
const THREAD_ID_SIZE_MAX: usize = 255;
/// A receipt may be here before its event: it is tried again after these times.
const EARLY_RETRIES_S: [u64; 3] = [1, 5, 30];
/// Receipts that wait for their event; more are dropped.
const EARLY_MAX: usize = 1_000;

/// Room -> receipt type -> user -> receipt.
type Receipts = BTreeMap<OwnedRoomId, BTreeMap<String, BTreeMap<OwnedUserId, Receipt>>>;

#[derive(Deserialize)]
struct Receipt {
    event_ids: Vec<OwnedEventId>,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    ts: u64,
    #[serde(default)]
    thread_id: Option<String>,
}

/// A receipt of a user who is in the room.
struct Checked {
    room: RoomNid,
    user: UserNid,
    event_id: OwnedEventId,
    receipt: NewReceipt,
    ts_ms: u64,
}

impl Edus {
    pub(super) async fn receipts(&self, origin: &ServerName, content: &RawValue) -> Result<(), Dropped> {
        let said: Receipts = parse(content)?;
        let count: usize = said.values().flat_map(BTreeMap::values).map(BTreeMap::len).sum();
        if count > RECEIPTS_MAX {
            return Err(Dropped::TooMany(RECEIPTS_MAX));
        }
        let mut dropped = None;
        for (room_id, mut by_type) in said {
            // The only type that is public.
            let Some(by_user) = by_type.remove("m.read") else { continue };
            let room = match self.room(origin, &room_id).await {
                Ok(room) => room,
                Err(Dropped::Failed(error)) => return Err(error.into()),
                Err(reason) => {
                    dropped = Some(reason);
                    continue;
                }
            };
            for (user_id, receipt) in by_user {
                match self.receipt(origin, &room, user_id, receipt).await {
                    Ok(()) => {}
                    Err(Dropped::Failed(error)) => return Err(error.into()),
                    Err(reason) => dropped = Some(reason),
                }
            }
        }
        dropped.map_or(Ok(()), Err)
    }

    async fn receipt(
        &self,
        origin: &ServerName,
        room: &RoomSnapshot,
        user_id: OwnedUserId,
        said: Receipt,
    ) -> Result<(), Dropped> {
        own(origin, &user_id)?;
        let user = self.view.interner.lookup_user(&user_id).await?;
        let user = user.filter(|user| room.is_joined(*user)).ok_or(Dropped::NotInRoom)?;
        let event_id = said.event_ids.into_iter().next().ok_or(Dropped::Empty)?;
        let thread_id = said.data.thread_id.unwrap_or_default();
        if thread_id.len() > THREAD_ID_SIZE_MAX {
            return Err(Dropped::TooMany(THREAD_ID_SIZE_MAX));
        }
        let receipt = NewReceipt { receipt_type: "m.read".to_owned(), thread_id };
        // A clock that is ahead does not put receipts into the future.
        let ts_ms = said.data.ts.min(self.view.env.now_ms());
        let checked = Checked { room: room.nid(), user, event_id, receipt, ts_ms };
        if !self.keep_receipt(&checked).await? {
            self.keep_receipt_later(checked);
        }
        Ok(())
    }

    /// `false`: the event is not here (yet).
    async fn keep_receipt(&self, checked: &Checked) -> Result<bool, Dropped> {
        let event = self.view.events.load_by_id(&checked.event_id).await?;
        let Some(event) = event else { return Ok(false) };
        let Checked { room, user, receipt, ts_ms, .. } = checked;
        Ok(self.sync.take_receipt(*room, *user, &event, receipt, *ts_ms).await?)
    }

    fn keep_receipt_later(&self, checked: Checked) {
        if self.early_receipts.fetch_add(1, Ordering::Relaxed) >= EARLY_MAX {
            self.early_receipts.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let edus = self.clone();
        let waiting = async move {
            for seconds in EARLY_RETRIES_S {
                edus.view.env.clock.sleep(Duration::from_secs(seconds)).await;
                match edus.keep_receipt(&checked).await {
                    Ok(false) => {}
                    Ok(true) => break,
                    Err(error) => tracing::warn!(%error, "a receipt could not be kept"),
                }
            }
            edus.early_receipts.fetch_sub(1, Ordering::Relaxed);
        };
        self.view.env.spawner.spawn("early receipt", waiting.boxed());
    }
}
