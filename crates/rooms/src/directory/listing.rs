//! Searching the published rooms (Client-Server API, `GET` and `POST /publicRooms`).
//!
//! Rooms are ordered by size, largest first, and then by number. A paging token names the room at its end of the
//! page, so that pages stay put while rooms come and go.

use std::{cmp::Reverse, str::FromStr};

use myelin_store::tables::PUBLIC_ROOMS;
use myelin_view::RoomSnapshot;
use ruma::{OwnedRoomId, room::JoinRuleKind};
use serde::Serialize;
use serde_json::Value;

use crate::{Error, Rooms};

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 500;
/// Published rooms that are looked at.
const ROOMS_MAX: usize = 100_000;

#[derive(Clone, Debug, Default)]
pub struct PublicRoomsQuery {
    pub limit: Option<usize>,
    pub since: Option<String>,
    pub search_term: Option<String>,
    /// `None` in the list: rooms without a type.
    pub room_types: Option<Vec<Option<String>>>,
}

/// The answer as the specification has it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Page {
    pub chunk: Vec<PublicRoom>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prev_batch: Option<String>,
    pub total_room_count_estimate: usize,
}

#[derive(Clone, Debug, Serialize)]
pub struct PublicRoom {
    pub room_id: OwnedRoomId,
    pub num_joined_members: u64,
    pub world_readable: bool,
    pub guest_can_join: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canonical_alias: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avatar_url: Option<String>,
    pub join_rule: JoinRuleKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_type: Option<String>,
}

/// The order of rooms in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place(Reverse<u64>, u64);

#[derive(Clone, Copy, Debug)]
enum Since {
    After(Place),
    Before(Place),
}

impl Rooms {
    pub async fn public_rooms(&self, query: &PublicRoomsQuery) -> Result<Page, Error> {
        let since = query.since.as_deref().map(Since::from_str).transpose()?;
        let rooms = self.published().await?;
        let total = rooms.len();
        let rooms = self.matching(rooms, query).await?;
        let places: Vec<Place> = rooms.iter().map(|(place, _)| *place).collect();
        let (start, end) = window(&places, since, query.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX));
        Ok(Page {
            next_batch: (end < places.len() && end > 0).then(|| places[end - 1].token('n')),
            prev_batch: (start > 0 && start < places.len()).then(|| places[start].token('p')),
            total_room_count_estimate: total,
            chunk: rooms.into_iter().skip(start).take(end - start).map(|(_, room)| room).collect(),
        })
    }

    async fn published(&self) -> Result<Vec<(Place, std::sync::Arc<RoomSnapshot>)>, Error> {
        let listed = self.view.store.read().all(&PUBLIC_ROOMS, ROOMS_MAX).await?;
        let mut rooms = Vec::with_capacity(listed.len());
        for (nid, ()) in listed {
            let room = self.view.rooms.load(nid).await?;
            rooms.extend(room.map(|room| (Place(Reverse(room.joined_count), nid.0), room)));
        }
        rooms.sort_unstable_by_key(|(place, _)| *place);
        Ok(rooms)
    }

    async fn matching(
        &self,
        rooms: Vec<(Place, std::sync::Arc<RoomSnapshot>)>,
        query: &PublicRoomsQuery,
    ) -> Result<Vec<(Place, PublicRoom)>, Error> {
        let term = query.search_term.as_deref().map(str::to_lowercase).filter(|term| !term.is_empty());
        let mut matching = Vec::new();
        for (place, snapshot) in rooms {
            let of_type = |types: &Vec<Option<String>>| types.contains(&snapshot.info.room_type);
            if !query.room_types.as_ref().is_none_or(of_type) {
                continue;
            }
            let room = self.public_room(&snapshot).await?;
            if term.as_ref().is_none_or(|term| room.mentions(term)) {
                matching.push((place, room));
            }
        }
        Ok(matching)
    }

    async fn public_room(&self, room: &RoomSnapshot) -> Result<PublicRoom, Error> {
        let join_rule = self.state_field(room, "m.room.join_rules", "join_rule").await?;
        Ok(PublicRoom {
            room_id: room.info.room_id.clone(),
            num_joined_members: room.joined_count,
            world_readable: self
                .state_field(room, "m.room.history_visibility", "history_visibility")
                .await?
                .as_deref()
                == Some("world_readable"),
            guest_can_join: self.state_field(room, "m.room.guest_access", "guest_access").await?.as_deref()
                == Some("can_join"),
            name: self.state_field(room, "m.room.name", "name").await?,
            topic: self.state_field(room, "m.room.topic", "topic").await?,
            canonical_alias: self.state_field(room, "m.room.canonical_alias", "alias").await?,
            avatar_url: self.state_field(room, "m.room.avatar", "url").await?,
            join_rule: join_rule.map_or(JoinRuleKind::Invite, JoinRuleKind::from),
            room_type: room.info.room_type.clone(),
        })
    }

    /// A text in the content of a state event; empty ones count as absent.
    async fn state_field(
        &self,
        room: &RoomSnapshot,
        event_type: &str,
        field: &str,
    ) -> Result<Option<String>, Error> {
        let event = self.view.current_state_event(room, event_type, "").await?;
        let value = event.and_then(|event| event.pdu.content_field::<Value>(field));
        Ok(value.as_ref().and_then(Value::as_str).filter(|text| !text.is_empty()).map(ToOwned::to_owned))
    }
}

impl PublicRoom {
    fn mentions(&self, term: &str) -> bool {
        let texts = [&self.name, &self.topic, &self.canonical_alias];
        texts.into_iter().flatten().any(|text| text.to_lowercase().contains(term)) || self.room_id == term
    }
}

/// The rooms of the page: from, and up to but not including.
fn window(places: &[Place], since: Option<Since>, limit: usize) -> (usize, usize) {
    match since {
        None => (0, limit.min(places.len())),
        Some(Since::After(place)) => {
            let start = places.partition_point(|other| *other <= place);
            (start, (start + limit).min(places.len()))
        }
        Some(Since::Before(place)) => {
            let end = places.partition_point(|other| *other < place);
            (end.saturating_sub(limit), end)
        }
    }
}

impl Place {
    fn token(self, direction: char) -> String {
        format!("{direction}{}_{}", self.0.0, self.1)
    }
}

impl FromStr for Since {
    type Err = Error;

    fn from_str(token: &str) -> Result<Self, Error> {
        let parse = || {
            let (direction, place) = token.split_at_checked(1)?;
            let (size, nid) = place.split_once('_')?;
            let place = Place(Reverse(size.parse().ok()?), nid.parse().ok()?);
            match direction {
                "n" => Some(Self::After(place)),
                "p" => Some(Self::Before(place)),
                _ => None,
            }
        };
        parse().ok_or_else(|| Error::InvalidParam("This is not a token of the room directory.".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_in_both_directions() {
        let places: Vec<_> = (0..10).map(|n| Place(Reverse(10 - n), n)).collect();
        assert_eq!(window(&places, None, 4), (0, 4));
        assert_eq!(window(&places, Some(Since::After(places[3])), 4), (4, 8));
        assert_eq!(window(&places, Some(Since::After(places[7])), 4), (8, 10));
        assert_eq!(window(&places, Some(Since::Before(places[8])), 4), (4, 8));
        assert_eq!(window(&places, Some(Since::Before(places[2])), 4), (0, 2));
        assert_eq!(window(&places, Some(Since::After(places[9])), 4), (10, 10));
    }

    #[test]
    fn foreign_tokens_are_refused() {
        for token in ["", "n", "n1", "x1_2", "n_", "né_1", "p1_-2"] {
            assert!(token.parse::<Since>().is_err(), "{token}");
        }
    }
}
