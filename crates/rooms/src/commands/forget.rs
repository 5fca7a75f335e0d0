//! Forgetting a room (Client-Server API, "Leaving rooms"). It changes nothing about the room, only what the user sees.

use myelin_core::RoomNid;
use myelin_store::{
    Batch, CommitError,
    log::LogEntry,
    tables::{Membership, USER_ROOMS},
};
use ruma::RoomId;

use crate::{Error, Rooms, Sender};

const ATTEMPTS_MAX: usize = 5;

impl Rooms {
    /// The user must have left, or been banned. Idempotent.
    pub async fn forget(&self, sender: &Sender, room_id: &RoomId) -> Result<(), Error> {
        let room = self.view.interner.lookup_room(room_id).await?;
        let room = room.ok_or_else(|| Error::unknown_room(room_id))?;
        for _ in 0..ATTEMPTS_MAX {
            match self.try_forget(sender, room_id, room).await {
                Err(Error::Busy) => {}
                done => return done,
            }
        }
        Err(Error::Busy)
    }

    async fn try_forget(&self, sender: &Sender, room_id: &RoomId, room: RoomNid) -> Result<(), Error> {
        let key = (sender.user, room);
        let row = self.view.store.get(&USER_ROOMS, &key).await?;
        let row = row.ok_or_else(|| Error::unknown_room(room_id))?;
        if !matches!(row.value.membership, Membership::Leave | Membership::Ban) {
            return Err(Error::Unknown(format!("User {} is in room {room_id}", sender.user_id)));
        }
        if row.value.forgotten {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.require_equal(&USER_ROOMS, &key, &row);
        let mut forgotten = row;
        forgotten.value.forgotten = true;
        batch.put(&USER_ROOMS, &key, &forgotten);
        batch.log(&LogEntry::Forgotten { user: sender.user, room });
        match self.view.store.commit(batch).await {
            Ok(_) => {
                self.view.user_rooms.forget(sender.user);
                Ok(())
            }
            Err(CommitError::Conflict { .. }) => Err(Error::Busy),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }
}
