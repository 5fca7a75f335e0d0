//! The room directory: aliases, and which rooms are published (Client-Server API, "Published room directory").

mod aliases;
pub mod listing;

use myelin_store::{Batch, CommitError, log::LogEntry, tables::PUBLIC_ROOMS};
use ruma::RoomId;

use crate::{Error, Rooms, Sender};

/// Whether the directory lists a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visibility {
    Public,
    #[default]
    Private,
}

impl Rooms {
    pub async fn visibility(&self, room_id: &RoomId) -> Result<Visibility, Error> {
        let room = self.room(room_id).await?;
        let listed = self.view.store.get(&PUBLIC_ROOMS, &room.nid()).await?;
        Ok(if listed.is_some() { Visibility::Public } else { Visibility::Private })
    }

    /// Whoever may name the room may list it; administrators too.
    pub async fn set_visibility(
        &self,
        sender: &Sender,
        room_id: &RoomId,
        visibility: Visibility,
    ) -> Result<(), Error> {
        let room = self.room(room_id).await?;
        if !sender.admin && !self.may_name(sender, &room).await? {
            let reason = "You need to be in the room and to have the power to name it, to list it or not.";
            return Err(Error::Forbidden(reason.to_owned()));
        }
        let mut batch = Batch::new();
        match visibility {
            Visibility::Public => batch.put(&PUBLIC_ROOMS, &room.nid(), &()),
            Visibility::Private => batch.delete(&PUBLIC_ROOMS, &room.nid()),
        }
        batch.log(&LogEntry::Directory { room: room.nid() });
        self.view.store.commit(batch).await.map(drop).map_err(not_busy)
    }
}

fn not_busy(error: CommitError) -> Error {
    match error {
        CommitError::Conflict { .. } => Error::Busy,
        CommitError::Store(error) => error.into(),
    }
}
