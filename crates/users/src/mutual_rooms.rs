//! `GET /mutual_rooms`: rooms that two users have in common.

use myelin_core::{RoomNid, UserNid};
use myelin_store::tables::Membership;
use ruma::{OwnedRoomId, UserId};

use crate::{Error, Users};

const PAGE: usize = 100;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MutualRooms {
    /// In order of room id.
    pub joined: Vec<OwnedRoomId>,
    /// Of all pages.
    pub count: usize,
    /// The `from` of the next page.
    pub next_batch: Option<String>,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum MutualRoomsError {
    #[error("you have every room in common with yourself")]
    Oneself,
    #[error("'from' is not a token that this server gave out")]
    Token,
    #[error(transparent)]
    Failed(#[from] Error),
}

impl Users {
    /// `from` is the last room id of the page before.
    pub async fn mutual_rooms(
        &self,
        user: UserNid,
        other: &UserId,
        from: Option<&str>,
    ) -> Result<MutualRooms, MutualRoomsError> {
        if from.is_some_and(|from| !from.starts_with('!')) {
            return Err(MutualRoomsError::Token);
        }
        let Some(other) = self.view.interner.lookup_user(other).await.map_err(Error::from)? else {
            return Ok(MutualRooms::default());
        };
        if other == user {
            return Err(MutualRoomsError::Oneself);
        }
        Ok(page(self.common_rooms(user, other).await?, from))
    }

    pub(crate) async fn joined_rooms(&self, user: UserNid) -> Result<Vec<RoomNid>, Error> {
        let rooms = self.view.user_rooms.load(user).await?;
        let joined = rooms.iter().filter(|(_, room)| room.membership == Membership::Join);
        Ok(joined.map(|(room, _)| *room).collect())
    }

    /// Works for remote users too: it asks the rooms.
    async fn common_rooms(&self, user: UserNid, other: UserNid) -> Result<Vec<OwnedRoomId>, Error> {
        let mut common = Vec::new();
        for room in self.joined_rooms(user).await? {
            let Some(snapshot) = self.view.rooms.load(room).await? else { continue };
            if snapshot.is_joined(other) {
                common.push(snapshot.info.room_id.clone());
            }
        }
        common.sort();
        Ok(common)
    }
}

fn page(rooms: Vec<OwnedRoomId>, from: Option<&str>) -> MutualRooms {
    let count = rooms.len();
    let rest = rooms.into_iter().filter(|room| from.is_none_or(|from| room.as_str() > from));
    let mut joined: Vec<_> = rest.take(PAGE + 1).collect();
    let more = joined.len() > PAGE;
    joined.truncate(PAGE);
    let next_batch = joined.last().filter(|_| more).map(ToString::to_string);
    MutualRooms { joined, count, next_batch }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn pages_join_up() {
        let rooms: Vec<_> =
            (100..350).map(|n| OwnedRoomId::try_from(format!("!{n}:example.org")).unwrap()).collect();
        let (mut seen, mut from) = (Vec::new(), None);
        loop {
            let page = page(rooms.clone(), from.as_deref());
            assert_eq!(page.count, rooms.len());
            seen.extend(page.joined);
            from = page.next_batch;
            if from.is_none() {
                break;
            }
        }
        assert_eq!(seen, rooms);
    }

    #[test]
    fn whom_one_has_no_rooms_in_common_with() {
        let world = World::new();
        world.run(async {
            let alice = world.register("alice").await;
            world.register("bob").await;
            let user = world.users.session(&alice.access_token).await.unwrap().user;
            let mutual = async |other: &str, from: Option<&str>| {
                world.users.mutual_rooms(user, <&UserId>::try_from(other).unwrap(), from).await
            };
            for other in ["@bob:example.org", "@nobody:elsewhere.org"] {
                assert_eq!(mutual(other, None).await.unwrap(), MutualRooms::default());
            }
            let oneself = mutual("@alice:example.org", None).await;
            assert!(matches!(oneself, Err(MutualRoomsError::Oneself)));
            let token = mutual("@bob:example.org", Some("x")).await;
            assert!(matches!(token, Err(MutualRoomsError::Token)));
        });
    }
}
