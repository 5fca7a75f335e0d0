//! Server notices (Client-Server API, "Server Notices"): each user has one room in which the server speaks to them. It is
//! made when there is something to say, and its invite cannot be rejected; who has joined may leave, and is invited again
//! with the next notice.

use myelin_core::{RoomNid, UserNid};
use myelin_store::{
    Batch, CommitError,
    tables::{Membership, NOTICE_ROOMS, NoticeRoomRecord},
};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, UserId, events::TimelineEventType};
use serde_json::{Map, Value, json, value::to_raw_value};

use crate::{CreateRoom, Error, MembershipChange, Preset, Rooms, Sender, Transaction};

const TRANSACTION_ID_LENGTH: usize = 24;
/// Whoever is not the server has less than is needed to speak.
const USERS_LEVEL: i64 = -10;

/// What a notice room looks like.
#[derive(Clone, Debug)]
pub struct NoticeRoom {
    pub name: String,
    pub topic: String,
}

/// What is said to whom.
pub struct Notice {
    pub user: UserNid,
    pub user_id: OwnedUserId,
    /// The content of the event: a message with a `msgtype`, mostly.
    pub content: Map<String, Value>,
    /// `None`: every notice is another one.
    pub transaction_id: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Noticed {
    pub event_id: OwnedEventId,
    pub room: RoomNid,
    pub room_id: OwnedRoomId,
}

impl Rooms {
    /// `sender`: the user by whom the server speaks.
    pub async fn send_server_notice(
        &self,
        sender: &Sender,
        notice: &Notice,
        look: &NoticeRoom,
    ) -> Result<Noticed, Error> {
        let (room, room_id) = self.notice_room(sender, notice, look).await?;
        let transaction_id = notice.transaction_id.clone();
        let transaction = Transaction {
            device_id: "server_notices".to_owned(),
            transaction_id: transaction_id
                .unwrap_or_else(|| self.view.env.random_string(TRANSACTION_ID_LENGTH)),
        };
        let content = to_raw_value(&notice.content)?;
        let event_type = TimelineEventType::RoomMessage;
        let event_id = self.send_message(sender, &room_id, event_type, &content, &transaction).await?;
        Ok(Noticed { event_id, room, room_id })
    }

    /// With the user in it, or invited.
    async fn notice_room(
        &self,
        sender: &Sender,
        notice: &Notice,
        look: &NoticeRoom,
    ) -> Result<(RoomNid, OwnedRoomId), Error> {
        let held = self.view.store.get(&NOTICE_ROOMS, &notice.user).await?;
        let room = match held {
            Some(held) => self.view.rooms.load(held.room).await?.filter(|room| room.is_joined(sender.user)),
            None => None,
        };
        if let Some(room) = room {
            let room_id = room.info.room_id.clone();
            let present = matches!(room.membership(notice.user), Some(Membership::Join | Membership::Invite));
            if !present {
                self.invite_to_notices(sender, &room_id, &notice.user_id).await?;
            }
            return Ok((room.nid(), room_id));
        }
        let room_id = self.create_room(sender, &request(sender, look)).await?;
        let room = self.own_room(&room_id).await?;
        // Before the invite: it cannot be rejected from its first moment on.
        self.keep_notice_room(notice.user, held, room).await?;
        self.invite_to_notices(sender, &room_id, &notice.user_id).await?;
        Ok((room, room_id))
    }

    /// The server is not held off by whose invites the user wants.
    async fn invite_to_notices(
        &self,
        sender: &Sender,
        room_id: &ruma::RoomId,
        user_id: &UserId,
    ) -> Result<(), Error> {
        self.invite_regardless(sender, room_id, user_id, MembershipChange::default()).await.map(drop)
    }

    async fn keep_notice_room(
        &self,
        user: UserNid,
        held: Option<NoticeRoomRecord>,
        room: RoomNid,
    ) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.require_unchanged(&NOTICE_ROOMS, &user, held.as_ref());
        batch.put(&NOTICE_ROOMS, &user, &NoticeRoomRecord { room });
        match self.view.store.commit(batch).await {
            Ok(_) => Ok(()),
            Err(CommitError::Conflict { .. }) => Err(Error::Busy),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }

    pub(crate) async fn is_notice_room(&self, user: UserNid, room: RoomNid) -> Result<bool, Error> {
        let held = self.view.store.get(&NOTICE_ROOMS, &user).await?;
        Ok(held.is_some_and(|held| held.room == room))
    }
}

fn request(sender: &Sender, look: &NoticeRoom) -> CreateRoom {
    let mut levels = Map::new();
    levels.insert("users_default".to_owned(), json!(USERS_LEVEL));
    // In rooms of version 12 the creator stands above all levels and is not listed.
    if myelin_dag::room_version::rules(&myelin_dag::room_version::DEFAULT)
        .is_some_and(|rules| !rules.authorization.explicitly_privilege_room_creators)
    {
        levels.insert("users".to_owned(), json!({ sender.user_id.as_str(): 100 }));
    }
    CreateRoom {
        preset: Some(Preset::PrivateChat),
        name: Some(look.name.clone()),
        topic: Some(look.topic.clone()).filter(|topic| !topic.is_empty()),
        power_level_content_override: levels,
        ..CreateRoom::default()
    }
}
