//! PDUs of rooms that this server is not in: they matter only where they end an invite or a knock of a local user.

use std::time::Duration;

use myelin_dag::checks::RawPdu;
use myelin_rooms::Error;
use ruma::{OwnedEventId, RoomId};
use serde_json::value::RawValue;

use super::{Inbound, verification::wanted};

impl Inbound {
    /// The event that ended one, if this did. Keys are waited for until then.
    pub(super) async fn ended_outside(
        &self,
        room_id: &RoomId,
        raw: &RawValue,
        until_ms: u64,
    ) -> Result<Option<OwnedEventId>, Error> {
        if !raw.get().contains("m.room.member") || self.rooms.is_resident(room_id).await? {
            return Ok(None);
        }
        let Some(info) = self.rooms.known_room(room_id).await? else { return Ok(None) };
        let Ok(formed) = RawPdu(raw).check_format(&info.rules) else { return Ok(None) };
        let user_id =
            formed.claims().state_key.as_deref().and_then(|key| <&ruma::UserId>::try_from(key).ok());
        let Some(user_id) = user_id else { return Ok(None) };
        if self.rooms.outside(user_id, room_id).await?.is_none() {
            return Ok(None);
        }
        let patience = Duration::from_millis(until_ms.saturating_sub(self.view.env.now_ms()));
        self.view.env.timeout(patience, self.keys.bring(&wanted(&formed, &info.rules))).await;
        let verified = self.verify_at_hand(vec![formed], &info.rules).await.pop();
        let Some(Ok(event)) = verified else { return Ok(None) };
        let id = event.pdu().event_id.clone();
        Ok(self.rooms.end_outside(room_id, event.into_pdu()).await?.then_some(id))
    }
}
