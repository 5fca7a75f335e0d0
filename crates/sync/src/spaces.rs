//! Looking at rooms from outside: `/room_summary` and `/hierarchy` (Client-Server API, "Room summary", "Spaces"; Server-
//! Server API, "Spaces").
//!
//! - [`access`]: who may know of a room without being in it. [`summary`]: what is said of it.
//! - [`child`]: the children of a space. [`walk`]: the tree. [`foreign`]: rooms that other servers describe.

mod access;
mod child;
pub mod foreign;
mod summary;
mod walk;

use std::sync::Arc;

use myelin_store::tables::{ALIASES, Membership};
use myelin_view::RoomSnapshot;
use ruma::{OwnedServerName, RoomId, RoomOrAliasId, ServerName};
use serde_json::{Value, json};

use self::access::Outsider;
pub use self::foreign::{Alone, Elsewhere, ForeignRoom, ForeignSpace};
use crate::{Error, Requester, Sync, client_event::membership_name};

const NO_ROOM: &str = "There is no such room, or it is not open to you.";
const DEPTH_MAX: u64 = 50;
const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 200;
/// Rooms of one tree walked for one answer.
const ROOMS_MAX: usize = 5_000;
/// Children of a space that another server is told of.
const CHILDREN_TOLD_MAX: usize = 100;

#[derive(Clone, Debug, Default)]
pub struct HierarchyRequest {
    pub suggested_only: bool,
    pub max_depth: Option<u64>,
    pub limit: Option<u64>,
    pub from: Option<String>,
}

impl Sync {
    /// `GET /room_summary/{roomIdOrAlias}`; `requester` is `None` without a token. A room that is not held here is asked for
    /// elsewhere: at the servers of `via`.
    pub async fn room_summary(
        &self,
        requester: Option<&Requester>,
        room: &RoomOrAliasId,
        via: &[OwnedServerName],
        elsewhere: &dyn Elsewhere,
    ) -> Result<String, Error> {
        let held = self.resolve(room).await?.filter(|room| !room.local_joined.is_empty() || via.is_empty());
        let Some(held) = held else { return self.foreign_summary(requester, room, via, elsewhere).await };
        let user = requester.map(|requester| requester.user);
        if !self.is_open_to(&held, Outsider::User(user)).await? {
            return Err(Error::NotFound(NO_ROOM));
        }
        let mut summary = self.summary_of(&held).await?;
        if let Some(user) = user {
            let membership = held.membership(user).unwrap_or(Membership::Leave);
            summary["membership"] = membership_name(membership).into();
        }
        Ok(summary.to_string())
    }

    async fn foreign_summary(
        &self,
        requester: Option<&Requester>,
        room: &RoomOrAliasId,
        via: &[OwnedServerName],
        elsewhere: &dyn Elsewhere,
    ) -> Result<String, Error> {
        // Only those who have an account here make this server ask others.
        let requester = requester.ok_or(Error::NotFound(NO_ROOM))?;
        let room_id = <&RoomId>::try_from(room).map_err(|_| Error::NotFound(NO_ROOM))?;
        let space = elsewhere.space(room_id, via, false).await.ok_or(Error::NotFound(NO_ROOM))?;
        if !self.is_foreign_open_to(&space.room, requester.user).await? {
            return Err(Error::NotFound(NO_ROOM));
        }
        let mut summary = space.room.summary();
        let membership = self.membership_outside(requester.user, room_id).await?.unwrap_or(Membership::Leave);
        summary["membership"] = membership_name(membership).into();
        Ok(summary.to_string())
    }

    async fn resolve(&self, room: &RoomOrAliasId) -> Result<Option<Arc<RoomSnapshot>>, Error> {
        if let Ok(room_id) = <&RoomId>::try_from(room) {
            return Ok(self.view.room_by_id(room_id).await?);
        }
        match self.view.store.get(&ALIASES, &room.as_str().to_owned()).await? {
            Some(alias) => Ok(self.view.rooms.load(alias.room).await?),
            None => Ok(None),
        }
    }

    /// `GET /rooms/{roomId}/hierarchy`: the tree in depth-first order. The token says how many rooms came before and what
    /// the first request asked for.
    pub async fn hierarchy(
        &self,
        requester: &Requester,
        room_id: &RoomId,
        request: &HierarchyRequest,
        elsewhere: &dyn Elsewhere,
    ) -> Result<String, Error> {
        let root = self.view.room_by_id(room_id).await?.ok_or(Error::Forbidden(NO_ROOM))?;
        if !self.is_open_to(&root, Outsider::User(Some(requester.user))).await? {
            return Err(Error::Forbidden(NO_ROOM));
        }
        let depth = request.max_depth.unwrap_or(DEPTH_MAX).min(DEPTH_MAX);
        let skip = request.from.as_deref().map_or(Ok(0), |token| {
            skip_of(token, request.suggested_only, depth).ok_or_else(|| {
                let message =
                    "from is not a token of this request: suggested_only and max_depth may not change.";
                Error::InvalidParam(message.to_owned())
            })
        })?;
        let limit = request.limit.map_or(LIMIT_DEFAULT, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let limit = limit.clamp(1, LIMIT_MAX);
        let wanted = walk::Wanted {
            user: requester.user,
            suggested_only: request.suggested_only,
            depth_max: depth,
            count: skip + limit + 1,
        };
        let tree = self.walk_tree(root, &wanted, elsewhere).await?;
        let mut rooms = Vec::new();
        for node in tree.iter().skip(skip).take(limit) {
            rooms.push(self.node(node).await?);
        }
        let mut body = json!({ "rooms": rooms });
        if tree.len() > skip + limit {
            body["next_batch"] = token_of(skip + limit, request.suggested_only, depth).into();
        }
        Ok(body.to_string())
    }

    async fn node(&self, node: &walk::Node) -> Result<Value, Error> {
        let mut summary = match &node.room {
            walk::Room::Here(room) => self.summary_of(room).await?,
            walk::Room::Elsewhere(room) => room.summary(),
        };
        summary["children_state"] = node.children.iter().map(|child| child.state.clone()).collect();
        Ok(summary)
    }

    /// `GET /_matrix/federation/v1/hierarchy/{roomId}`: the room and its children, as far as the asking server could peek into
    /// or join them.
    pub async fn space_for_server(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        suggested_only: bool,
    ) -> Result<String, Error> {
        let asker = Outsider::Server(server);
        let room = self.view.room_by_id(room_id).await?.ok_or(Error::NotFound(NO_ROOM))?;
        if room.local_joined.is_empty() || !self.is_open_to(&room, asker).await? {
            return Err(Error::NotFound(NO_ROOM));
        }
        let children = self.children_of(&room, suggested_only).await?;
        let (mut open, mut closed) = (Vec::new(), Vec::new());
        for child in children.iter().take(CHILDREN_TOLD_MAX) {
            let child = self.view.room_by_id(&child.room_id).await?;
            let Some(child) = child.filter(|child| !child.local_joined.is_empty()) else { continue };
            match self.is_open_to(&child, asker).await? {
                true => open.push(self.summary_of(&child).await?),
                false => closed.push(child.info.room_id.clone()),
            }
        }
        let mut summary = self.summary_of(&room).await?;
        summary["children_state"] = children.into_iter().map(|child| child.state).collect();
        Ok(json!({ "room": summary, "children": open, "inaccessible_children": closed }).to_string())
    }
}

fn token_of(skip: usize, suggested_only: bool, max_depth: u64) -> String {
    format!("h{skip}_{}_{max_depth}", u8::from(suggested_only))
}

/// `None` if the token is not one, or belongs to a request with other parameters.
fn skip_of(token: &str, suggested_only: bool, max_depth: u64) -> Option<usize> {
    let skip = token.strip_prefix('h')?.split('_').next()?.parse().ok()?;
    (skip <= ROOMS_MAX && token == token_of(skip, suggested_only, max_depth)).then_some(skip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_belong_to_their_parameters() {
        let token = token_of(7, true, 3);
        assert_eq!(skip_of(&token, true, 3), Some(7));
        assert_eq!(skip_of(&token, false, 3), None);
        assert_eq!(skip_of(&token, true, 4), None);
        assert_eq!(skip_of("h999999_1_3", true, 3), None);
        assert_eq!(skip_of("nonsense", true, 3), None);
    }
}
