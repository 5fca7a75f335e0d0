//! `m.typing` from other servers.

use ruma::{OwnedRoomId, OwnedUserId, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Dropped, Edus, own, parse};

/// A user of another server is shown as typing for so long, should no stop come. Servers repeat themselves every 25 to
/// 40 s while somebody types.
const TYPING_TIMEOUT_MS: u64 = 60_000;

#[derive(Deserialize)]
struct Typing {
    room_id: OwnedRoomId,
    user_id: OwnedUserId,
    typing: bool,
}

impl Edus {
    pub(super) async fn typing(&self, origin: &ServerName, content: &RawValue) -> Result<(), Dropped> {
        let said: Typing = parse(content)?;
        own(origin, &said.user_id)?;
        let room = self.room(origin, &said.room_id).await?;
        let user = self.view.interner.lookup_user(&said.user_id).await?;
        let user = user.filter(|user| room.is_joined(*user)).ok_or(Dropped::NotInRoom)?;
        let expires_ms = said.typing.then(|| self.view.env.now_ms() + TYPING_TIMEOUT_MS);
        self.view.ephemeral.set_typing(room.nid(), user, expires_ms);
        Ok(())
    }
}
