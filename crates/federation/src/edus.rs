//! EDUs from other servers (Server-Server API, "EDUs"): what is ephemeral, and what is durable but not in a room.
//!
//! A server speaks for its own users only; whatever else it says is dropped, and logged at debug level.

mod presence;
mod receipts;
mod typing;

use std::sync::{Arc, atomic::AtomicUsize};

use myelin_sync::Sync;
use myelin_users::Users;
use myelin_view::{RoomSnapshot, View};
use ruma::{OwnedUserId, RoomId, ServerName, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Whether presence is exchanged with other servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresencePolicy {
    pub incoming: bool,
    pub outgoing: bool,
}

impl Default for PresencePolicy {
    fn default() -> Self {
        Self { incoming: true, outgoing: true }
    }
}

/// What was said could not be kept: the transaction has to be refused, so that it comes again.
#[derive(Debug, thiserror::Error)]
pub enum EduError {
    #[error(transparent)]
    View(#[from] myelin_view::Error),
    #[error(transparent)]
    Sync(#[from] myelin_sync::Error),
    #[error(transparent)]
    Users(#[from] myelin_users::Error),
}

/// Why an EDU, or a part of it, has no effect.
#[derive(Debug, thiserror::Error)]
enum Dropped {
    #[error("malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("{0} is a user of another server")]
    ForeignUser(OwnedUserId),
    #[error("the user is not in the room")]
    NotInRoom,
    #[error("this server is not in the room")]
    NotOurRoom,
    #[error("the room's ACL excludes the server")]
    Acl,
    #[error("a receipt for no event")]
    Empty,
    #[error("more than {0} entries")]
    TooMany(usize),
    #[error("not wanted here")]
    Unwanted,
    #[error(transparent)]
    Failed(#[from] EduError),
}

impl From<myelin_view::Error> for Dropped {
    fn from(error: myelin_view::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<myelin_sync::Error> for Dropped {
    fn from(error: myelin_sync::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<myelin_users::Error> for Dropped {
    fn from(error: myelin_users::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<myelin_store::Error> for Dropped {
    fn from(error: myelin_store::Error) -> Self {
        myelin_view::Error::from(error).into()
    }
}

/// Takes in what is ephemeral, and what is durable but not in a room.
#[derive(Clone)]
pub struct Edus {
    view: View,
    users: Arc<Users>,
    sync: Arc<Sync>,
    presence: PresencePolicy,
    /// Receipts that wait for their event.
    early_receipts: Arc<AtomicUsize>,
}

impl Edus {
    pub fn new(view: View, users: Arc<Users>, sync: Arc<Sync>, presence: PresencePolicy) -> Self {
        Self { view, users, sync, presence, early_receipts: Arc::default() }
    }

    /// Takes one EDU in. What is durable is durable when this returns. An error means that this server failed, not that
    /// the EDU is bad.
    pub async fn receive(
        &self,
        origin: &ServerName,
        edu_type: &str,
        content: &RawValue,
    ) -> Result<(), EduError> {
        let taken = match edu_type {
            "m.typing" => self.typing(origin, content).await,
            "m.receipt" => self.receipts(origin, content).await,
            "m.presence" => self.presence(origin, content).await,
            "m.direct_to_device" => Ok(self.users.receive_direct_to_device(origin, content).await?),
            "m.device_list_update" => Ok(self.users.receive_device_list_update(origin, content).await?),
            "m.signing_key_update" => Ok(self.users.receive_signing_key_update(origin, content).await?),
            _ => Err(Dropped::Unwanted),
        };
        match taken {
            Ok(()) => Ok(()),
            Err(Dropped::Failed(error)) => Err(error),
            Err(dropped) => {
                tracing::debug!(%origin, edu_type, %dropped, "an EDU has no effect");
                Ok(())
            }
        }
    }

    /// The room if this server takes part in it and listens to `origin` there.
    async fn room(&self, origin: &ServerName, room_id: &RoomId) -> Result<Arc<RoomSnapshot>, Dropped> {
        let room = self.view.room_by_id(room_id).await?;
        let room = room.filter(|room| !room.local_joined.is_empty()).ok_or(Dropped::NotOurRoom)?;
        match room.has_server(origin) {
            false => Err(Dropped::NotInRoom),
            true if self.view.permits(&room, origin).await? => Ok(room),
            true => Err(Dropped::Acl),
        }
    }
}

fn parse<'a, T: Deserialize<'a>>(content: &'a RawValue) -> Result<T, Dropped> {
    Ok(serde_json::from_str(content.get())?)
}

fn own(origin: &ServerName, user_id: &UserId) -> Result<(), Dropped> {
    if user_id.server_name() == origin { Ok(()) } else { Err(Dropped::ForeignUser(user_id.to_owned())) }
}
