//! Looking at rooms from outside: `/room_summary` and `/hierarchy` (Client-Server API, "Room summary", "Spaces").

use std::{collections::BTreeSet, sync::Arc};

use myelin_core::{RoomNid, UserNid};
use myelin_dag::client_form::stripped_state;
use myelin_store::tables::{ALIASES, Membership};
use myelin_view::{Event, RoomSnapshot};
use ruma::{OwnedRoomId, RoomId, RoomOrAliasId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Error, Requester, Sync, client_event::membership_name, room_state::load_events};

const NO_ROOM: &str = "There is no such room, or it is not open to you.";
const DEPTH_MAX: u64 = 50;
const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 200;
/// Rooms of one tree walked for one answer.
const ROOMS_MAX: usize = 5_000;
/// `order` of a space child: printable ASCII, at most so long.
const ORDER_SIZE_MAX: usize = 50;

#[derive(Clone, Debug, Default)]
pub struct HierarchyRequest {
    pub suggested_only: bool,
    pub max_depth: Option<u64>,
    pub limit: Option<u64>,
    pub from: Option<String>,
}

/// `allow` of `m.room.join_rules`.
#[derive(Deserialize)]
struct AllowRule {
    room_id: Option<OwnedRoomId>,
}

/// What the join rules say.
struct JoinRules {
    rule: String,
    allowed_rooms: Vec<OwnedRoomId>,
}

impl Sync {
    /// `GET /room_summary/{roomIdOrAlias}`; `requester` is `None` without a token.
    pub async fn room_summary(
        &self,
        requester: Option<&Requester>,
        room: &RoomOrAliasId,
    ) -> Result<String, Error> {
        let room = self.resolve(room).await?.ok_or(Error::NotFound(NO_ROOM))?;
        let user = requester.map(|requester| requester.user);
        if !self.is_open_to(&room, user).await? {
            return Err(Error::NotFound(NO_ROOM));
        }
        let mut summary = self.summary_of(&room).await?;
        if let Some(user) = user {
            let membership = room.membership(user).unwrap_or(Membership::Leave);
            summary["membership"] = membership_name(membership).into();
        }
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

    /// Who may know of a room without being in it: the list in the specification of `/hierarchy`.
    async fn is_open_to(&self, room: &RoomSnapshot, user: Option<UserNid>) -> Result<bool, Error> {
        let membership = user.and_then(|user| room.membership(user));
        if matches!(membership, Some(Membership::Join | Membership::Invite | Membership::Knock)) {
            return Ok(true);
        }
        if self.is_world_readable(room).await? {
            return Ok(true);
        }
        let rules = self.join_rules(room).await?;
        match (rules.rule.as_str(), user) {
            ("public" | "knock" | "knock_restricted", _) => Ok(membership != Some(Membership::Ban)),
            ("restricted", Some(user)) => self.is_in_any(user, &rules.allowed_rooms).await,
            _ => Ok(false),
        }
    }

    async fn is_in_any(&self, user: UserNid, rooms: &[OwnedRoomId]) -> Result<bool, Error> {
        for room_id in rooms {
            let room = self.view.room_by_id(room_id).await?;
            if room.is_some_and(|room| room.is_joined(user)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn join_rules(&self, room: &RoomSnapshot) -> Result<JoinRules, Error> {
        let event = self.view.current_state_event(room, "m.room.join_rules", "").await?;
        let rule = event.as_ref().and_then(|e| e.pdu.content_field::<String>("join_rule"));
        let allow = event.and_then(|e| e.pdu.content_field::<Vec<AllowRule>>("allow")).unwrap_or_default();
        Ok(JoinRules {
            rule: rule.unwrap_or_else(|| "invite".to_owned()),
            allowed_rooms: allow.into_iter().filter_map(|allow| allow.room_id).collect(),
        })
    }

    /// The fields of `definitions/room_summary.yaml`.
    async fn summary_of(&self, room: &RoomSnapshot) -> Result<Value, Error> {
        let rules = self.join_rules(room).await?;
        let guests = self.content_text(room, "m.room.guest_access", "guest_access").await?;
        let mut summary = json!({
            "room_id": room.info.room_id,
            "num_joined_members": room.joined_count,
            "join_rule": rules.rule,
            "guest_can_join": guests.as_deref() == Some("can_join"),
            "world_readable": self.is_world_readable(room).await?,
            "room_version": room.info.version,
        });
        for (field, event_type, key) in [
            ("name", "m.room.name", "name"),
            ("topic", "m.room.topic", "topic"),
            ("avatar_url", "m.room.avatar", "url"),
            ("canonical_alias", "m.room.canonical_alias", "alias"),
            ("encryption", "m.room.encryption", "algorithm"),
        ] {
            if let Some(value) = self.content_text(room, event_type, key).await? {
                summary[field] = value.into();
            }
        }
        if let Some(room_type) = &room.info.room_type {
            summary["room_type"] = room_type.as_str().into();
        }
        if !rules.allowed_rooms.is_empty() {
            summary["allowed_room_ids"] = json!(rules.allowed_rooms);
        }
        Ok(summary)
    }

    async fn content_text(
        &self,
        room: &RoomSnapshot,
        event_type: &str,
        field: &str,
    ) -> Result<Option<String>, Error> {
        let event = self.view.current_state_event(room, event_type, "").await?;
        Ok(event.and_then(|e| e.pdu.content_field::<String>(field)).filter(|text| !text.is_empty()))
    }

    /// `GET /rooms/{roomId}/hierarchy`: the tree in depth-first order. The token says how many rooms came before and what
    /// the first request asked for.
    pub async fn hierarchy(
        &self,
        requester: &Requester,
        room_id: &RoomId,
        request: &HierarchyRequest,
    ) -> Result<String, Error> {
        let root = self.view.room_by_id(room_id).await?.ok_or(Error::Forbidden(NO_ROOM))?;
        if !self.is_open_to(&root, Some(requester.user)).await? {
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
        let tree =
            self.walk_tree(requester.user, root, request.suggested_only, depth, skip + limit + 1).await?;
        let mut rooms = Vec::new();
        for (room, children) in tree.iter().skip(skip).take(limit) {
            let mut summary = self.summary_of(room).await?;
            summary["children_state"] = children.iter().map(|child| child_state(child)).collect();
            rooms.push(summary);
        }
        let mut body = json!({ "rooms": rooms });
        if tree.len() > skip + limit {
            body["next_batch"] = token_of(skip + limit, request.suggested_only, depth).into();
        }
        Ok(body.to_string())
    }

    /// Rooms open to the user with their children, at most `count`.
    async fn walk_tree(
        &self,
        user: UserNid,
        root: Arc<RoomSnapshot>,
        suggested_only: bool,
        max_depth: u64,
        count: usize,
    ) -> Result<Vec<(Arc<RoomSnapshot>, Vec<Arc<Event>>)>, Error> {
        let mut stack = vec![(root.info.room_id.clone(), 0)];
        let mut visited: BTreeSet<RoomNid> = BTreeSet::new();
        let mut tree = Vec::new();
        let mut walked = 0;
        while let Some((room_id, depth)) = stack.pop() {
            walked += 1;
            if tree.len() >= count || walked > ROOMS_MAX {
                break;
            }
            let Some(room) = self.view.room_by_id(&room_id).await? else { continue };
            if !visited.insert(room.nid()) || !self.is_open_to(&room, Some(user)).await? {
                continue;
            }
            let children = self.children_of(&room, suggested_only).await?;
            if depth < max_depth {
                let ids = children.iter().rev().filter_map(|child| child.pdu.state_key.as_deref());
                stack.extend(ids.filter_map(|id| Some((OwnedRoomId::try_from(id).ok()?, depth + 1))));
            }
            tree.push((room, children));
        }
        Ok(tree)
    }

    /// Valid `m.space.child` events in the order of the specification ("Ordering of children within a space").
    async fn children_of(&self, room: &RoomSnapshot, suggested_only: bool) -> Result<Vec<Arc<Event>>, Error> {
        if room.info.room_type.as_deref() != Some("m.space") {
            return Ok(Vec::new());
        }
        let (keys, nids): (Vec<_>, Vec<_>) = room.current_state.iter().unzip();
        let names = self.view.interner.state_key_names(&keys).await?;
        let is_child = names.iter().map(|name| name.event_type == "m.space.child");
        let nids: Vec<_> = nids.into_iter().zip(is_child).filter_map(|(n, is)| is.then_some(n)).collect();
        let mut children = load_events(&self.view, &nids).await?;
        children.retain(|event| {
            let via = event.pdu.content_field::<Vec<String>>("via");
            let suggested = event.pdu.content_field::<bool>("suggested") == Some(true);
            via.is_some_and(|via| !via.is_empty()) && (suggested || !suggested_only)
        });
        children.sort_by_cached_key(|event| child_order(event));
        Ok(children)
    }
}

/// Those with a valid `order` first, then by timestamp, then by room id.
fn child_order(child: &Event) -> (bool, String, u64, String) {
    let order = child.pdu.content_field::<String>("order");
    let valid =
        |text: &String| text.len() <= ORDER_SIZE_MAX && text.bytes().all(|b| (0x20..=0x7e).contains(&b));
    let order = order.filter(valid);
    let ts = u64::from(child.pdu.origin_server_ts.get());
    (order.is_none(), order.unwrap_or_default(), ts, child.pdu.state_key.clone().unwrap_or_default())
}

fn child_state(child: &Event) -> Value {
    let mut state: Value = serde_json::from_str(stripped_state(&child.pdu).get()).unwrap_or_default();
    state["origin_server_ts"] = u64::from(child.pdu.origin_server_ts.get()).into();
    state
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
