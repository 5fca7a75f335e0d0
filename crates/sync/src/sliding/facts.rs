//! What filters ask of rooms, so that no room has to be loaded to be passed over.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use myelin_core::{EventNid, RoomNid, UserNid};
use myelin_dag::state_tree::NodeHash;
use myelin_store::{
    Direction,
    log::LogEntry,
    tables::{ACCOUNT_DATA, Membership, ROOM_HEADS, STRIPPED_STATES},
};
use myelin_view::UserRoom;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::RoomId;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Error, Sync};

const ROOMS_MAX: usize = 100_000;
/// Rows of account data looked through for tags.
const ACCOUNT_DATA_MAX: usize = 100_000;
/// Events by which users left rooms: whether they were made to.
const LEAVES_MAX: usize = 50_000;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomFacts {
    pub encrypted: bool,
    pub room_type: Option<String>,
    pub name: Option<String>,
}

pub struct Facts {
    rooms: Cache<RoomNid, Arc<RoomFacts>>,
    /// Counts changes of state: what was read before one is not kept.
    generation: Mutex<u64>,
    /// Whether somebody else ended the membership.
    removals: Cache<EventNid, bool>,
}

#[derive(Deserialize)]
struct Stripped<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    content: &'a RawValue,
}

#[derive(Deserialize)]
struct Tags {
    tags: HashMap<String, serde::de::IgnoredAny>,
}

impl Default for Facts {
    fn default() -> Self {
        Self { rooms: Cache::new(ROOMS_MAX), generation: Mutex::default(), removals: Cache::new(LEAVES_MAX) }
    }
}

impl Facts {
    pub fn take_in(&self, entry: &LogEntry) {
        let room = match entry {
            LogEntry::Event { room, state_key: Some(_), member: None, .. }
            | LogEntry::Completed { room }
            | LogEntry::Resolved { room, .. } => room,
            _ => return,
        };
        let mut generation = self.generation.lock();
        *generation += 1;
        self.rooms.remove(room);
    }

    fn keep(&self, room: RoomNid, facts: &Arc<RoomFacts>, generation: u64) {
        let now = self.generation.lock();
        if *now == generation {
            self.rooms.insert(room, facts.clone());
        }
    }
}

impl Sync {
    pub(super) async fn room_facts(&self, user: UserNid, room: RoomNid) -> Result<Arc<RoomFacts>, Error> {
        if let Some(facts) = self.facts.rooms.get(&room) {
            return Ok(facts);
        }
        let generation = *self.facts.generation.lock();
        let Some(head) = self.view.store.get(&ROOM_HEADS, &room).await? else {
            // Only known from an invite or a knock, which everybody has of their own.
            return self.stripped_facts(user, room).await;
        };
        let state = self.view.states.load(NodeHash(head.current_state)).await?;
        let info = self.view.interner.room_info(room).await?;
        let mut facts =
            RoomFacts { room_type: info.and_then(|info| info.room_type.clone()), ..RoomFacts::default() };
        facts.encrypted = self.state_event_of(&state, "m.room.encryption", "").await?.is_some();
        if let Some(name) = self.state_event_of(&state, "m.room.name", "").await? {
            let event = self.view.events.load(name).await?;
            facts.name = event.and_then(|event| event.pdu.content_field("name"));
        }
        let facts = Arc::new(facts);
        self.facts.keep(room, &facts, generation);
        Ok(facts)
    }

    async fn stripped_facts(&self, user: UserNid, room: RoomNid) -> Result<Arc<RoomFacts>, Error> {
        let stripped = self.view.store.get(&STRIPPED_STATES, &(room, user)).await?;
        let mut facts = RoomFacts::default();
        for event in stripped.iter().flat_map(|record| &record.events) {
            let Ok(event) = serde_json::from_str::<Stripped<'_>>(event) else { continue };
            let field = |name: &str| {
                let content = serde_json::from_str::<serde_json::Value>(event.content.get()).ok()?;
                content.get(name)?.as_str().map(str::to_owned)
            };
            match event.kind.as_str() {
                "m.room.encryption" => facts.encrypted = true,
                "m.room.create" => facts.room_type = field("type"),
                "m.room.name" => facts.name = field("name"),
                _ => {}
            }
        }
        Ok(Arc::new(facts))
    }

    /// Whether somebody else made the user leave.
    pub(super) async fn was_removed(&self, held: &UserRoom) -> Result<bool, Error> {
        match held.membership {
            Membership::Ban => return Ok(held.was_joined),
            Membership::Leave if held.was_joined => {}
            _ => return Ok(false),
        }
        if let Some(removed) = self.facts.removals.get(&held.event) {
            return Ok(removed);
        }
        let event = self.view.events.load(held.event).await?;
        let by_other = |sender: &str, key: Option<&str>| key.is_some_and(|key| key != sender);
        let removed =
            event.is_some_and(|event| by_other(event.pdu.sender.as_str(), event.pdu.state_key.as_deref()));
        let removed = removed && self.membership_before(held.event).await? == Some(Membership::Join);
        self.facts.removals.insert(held.event, removed);
        Ok(removed)
    }

    /// The rooms of the user's `m.direct`.
    pub(super) async fn direct_rooms(&self, user: UserNid) -> Result<HashSet<String>, Error> {
        let key = (user, RoomNid::GLOBAL, "m.direct".to_owned());
        let Some(row) = self.view.store.get(&ACCOUNT_DATA, &key).await? else { return Ok(HashSet::new()) };
        let by_user = serde_json::from_str::<HashMap<String, serde_json::Value>>(&row.value.json);
        let rooms = by_user.unwrap_or_default().into_values().filter_map(|rooms| match rooms {
            serde_json::Value::Array(rooms) => Some(rooms),
            _ => None,
        });
        Ok(rooms.flatten().filter_map(|room| room.as_str().map(str::to_owned)).collect())
    }

    /// The names of the user's tags, by room.
    pub(super) async fn tags_by_room(
        &self,
        user: UserNid,
    ) -> Result<HashMap<RoomNid, HashSet<String>>, Error> {
        let rows = self.view.store.scan(&ACCOUNT_DATA, &user, Direction::Forward, ACCOUNT_DATA_MAX).await?;
        let tags =
            rows.into_iter().filter(|((_, _, kind), _)| kind == "m.tag").filter_map(|((_, room, _), row)| {
                let tags = serde_json::from_str::<Tags>(&row.value.json).ok()?;
                Some((room, tags.tags.into_keys().collect()))
            });
        Ok(tags.collect())
    }

    /// The rooms that a space names directly; none if the user is not in it.
    pub(super) async fn rooms_of_space(&self, user: UserNid, space: &str) -> Result<Vec<String>, Error> {
        let Ok(space) = <&RoomId>::try_from(space) else { return Ok(Vec::new()) };
        let room = self.view.room_by_id(space).await?.filter(|room| room.is_joined(user));
        let Some(room) = room else { return Ok(Vec::new()) };
        let children = self.children_of(&room, false).await?;
        Ok(children.into_iter().map(|child| child.room_id.to_string()).collect())
    }
}
