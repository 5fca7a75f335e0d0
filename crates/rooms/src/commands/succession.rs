//! Whoever joins a room that has taken another's place brings along the tags of the old one (Client-Server API, "Room
//! upgrades").

use myelin_core::RoomNid;
use myelin_store::{
    codec::AtPosition,
    log::LogEntry,
    tables::{ACCOUNT_DATA, USER_STREAM, UserChange},
};
use ruma::OwnedRoomId;
use serde::Deserialize;

use crate::{Error, Sender, writer::Draft};

const TAGS: &str = "m.tag";

#[derive(Deserialize)]
struct Predecessor {
    room_id: OwnedRoomId,
}

impl Draft<'_> {
    /// Unless the new room has tags already.
    pub(crate) async fn inherit_tags(&mut self, sender: &Sender) -> Result<(), Error> {
        let Some(old) = self.predecessor().await? else { return Ok(()) };
        let store = self.rooms().view.store.clone();
        let new = self.room.nid();
        let key = |room: RoomNid| (sender.user, room, TAGS.to_owned());
        let held = store.multi_get(&ACCOUNT_DATA, &[key(old), key(new)]).await?;
        let [Some(tags), None] = held.as_slice() else { return Ok(()) };
        let entry = LogEntry::AccountData { user: sender.user, room: new, kind: TAGS.to_owned() };
        let position = self.batch.log(&entry);
        self.batch.require_absent(&ACCOUNT_DATA, &key(new));
        self.batch.put(&ACCOUNT_DATA, &key(new), &AtPosition { position, value: tags.value.clone() });
        let change = UserChange::AccountData { room: new, kind: TAGS.to_owned() };
        self.batch.put(&USER_STREAM, &(sender.user, position), &change);
        Ok(())
    }

    async fn predecessor(&self) -> Result<Option<RoomNid>, Error> {
        let create = self.create_event().await?;
        let Some(Predecessor { room_id }) = create.pdu.content_field("predecessor") else { return Ok(None) };
        Ok(self.rooms().view.interner.lookup_room(&room_id).await?)
    }
}
