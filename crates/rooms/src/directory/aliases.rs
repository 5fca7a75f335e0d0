//! Room aliases of this server (Client-Server API, "Room aliases").

use myelin_core::{RoomNid, UserNid};
use myelin_store::{
    Batch, CommitError, Direction,
    log::LogEntry,
    tables::{ALIASES, AliasRecord, ROOM_ALIASES},
};
use myelin_view::RoomSnapshot;
use ruma::{OwnedRoomAliasId, OwnedRoomId, RoomAliasId, RoomId, events::TimelineEventType};
use serde_json::{Map, Value, value::to_raw_value};

use super::not_busy;
use crate::{Error, Rooms, Sender, power_levels::PowerLevels};

/// Aliases of one room that are listed.
const ALIASES_MAX: usize = 10_000;

impl Rooms {
    /// The room of an alias; `None` if there is none.
    pub async fn resolve_alias(&self, alias: &RoomAliasId) -> Result<Option<OwnedRoomId>, Error> {
        let Some(found) = self.view.store.get(&ALIASES, &alias.to_string()).await? else { return Ok(None) };
        let info = self.view.interner.room_info(found.room).await?;
        Ok(info.map(|info| info.room_id.clone()))
    }

    pub async fn set_alias(
        &self,
        sender: &Sender,
        alias: &RoomAliasId,
        room_id: &RoomId,
    ) -> Result<(), Error> {
        self.check_local(alias)?;
        let room = self.room(room_id).await?;
        if !sender.admin && !room.is_joined(sender.user) {
            return Err(Error::not_in_room(room_id));
        }
        if self.view.store.get(&ALIASES, &alias.to_string()).await?.is_some() {
            return Err(Error::AliasTaken(alias.to_owned()));
        }
        let mut batch = Batch::new();
        Self::put_alias(&mut batch, alias, room.nid(), sender.user);
        match self.view.store.commit(batch).await {
            Ok(_) => Ok(()),
            Err(CommitError::Conflict { .. }) => Err(Error::AliasTaken(alias.to_owned())),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }

    /// Its creator may delete an alias, who may name the room, and administrators.
    pub async fn delete_alias(&self, sender: &Sender, alias: &RoomAliasId) -> Result<(), Error> {
        let key = alias.to_string();
        let unknown = || Error::NotFound(format!("Room alias {alias} not found."));
        let found = self.view.store.get(&ALIASES, &key).await?.ok_or_else(unknown)?;
        let room = self.view.rooms.load(found.room).await?;
        let mut allowed = sender.admin || found.creator == sender.user;
        if let (false, Some(room)) = (allowed, &room) {
            allowed = self.may_name(sender, room).await?;
        }
        if !allowed {
            return Err(Error::Forbidden(format!("You may not delete the alias {alias}.")));
        }
        let mut batch = Batch::new();
        batch.require_equal(&ALIASES, &key, &found);
        batch.delete(&ALIASES, &key);
        batch.delete(&ROOM_ALIASES, &(found.room, key));
        batch.log(&LogEntry::Directory { room: found.room });
        self.view.store.commit(batch).await.map_err(not_busy)?;
        if let Some(room) = room {
            self.unname(sender, &room, alias).await?;
        }
        Ok(())
    }

    /// The aliases that this server has for a room, to its members, and to everybody if the room is world-readable.
    pub async fn aliases(&self, sender: &Sender, room_id: &RoomId) -> Result<Vec<OwnedRoomAliasId>, Error> {
        let room = self.room(room_id).await.map_err(|_| Error::not_in_room(room_id))?;
        if !room.is_joined(sender.user) && !self.is_world_readable(&room).await? {
            return Err(Error::not_in_room(room_id));
        }
        let aliases = self.aliases_of(room.nid()).await?;
        Ok(aliases.into_iter().filter_map(|alias| alias.try_into().ok()).collect())
    }

    pub(crate) async fn aliases_of(&self, room: RoomNid) -> Result<Vec<String>, Error> {
        let rows = self.view.store.scan(&ROOM_ALIASES, &room, Direction::Forward, ALIASES_MAX).await?;
        Ok(rows.into_iter().map(|((_, alias), ())| alias).collect())
    }

    /// The rows of a new alias.
    pub(crate) fn put_alias(batch: &mut Batch, alias: &RoomAliasId, room: RoomNid, creator: UserNid) {
        let key = alias.to_string();
        batch.require_absent(&ALIASES, &key);
        batch.put(&ALIASES, &key, &AliasRecord { room, creator });
        batch.put(&ROOM_ALIASES, &(room, key), &());
        batch.log(&LogEntry::Directory { room });
    }

    /// `#localpart:this.server`.
    pub(crate) fn local_alias(&self, localpart: &str) -> Result<OwnedRoomAliasId, Error> {
        let refused =
            || Error::InvalidParam(format!("'{localpart}' cannot be the local part of a room alias."));
        let odd = |c: char| c == ':' || c == '#' || c.is_whitespace() || c.is_control();
        if localpart.is_empty() || localpart.contains(odd) {
            return Err(refused());
        }
        format!("#{localpart}:{}", self.view.server_name).try_into().map_err(|_| refused())
    }

    fn check_local(&self, alias: &RoomAliasId) -> Result<(), Error> {
        if alias.server_name() == self.view.server_name {
            return self.local_alias(alias.alias()).map(drop);
        }
        Err(Error::InvalidParam(format!("Aliases of this server end in ':{}'.", self.view.server_name)))
    }

    pub(crate) async fn may_name(&self, sender: &Sender, room: &RoomSnapshot) -> Result<bool, Error> {
        if !room.is_joined(sender.user) {
            return Ok(false);
        }
        let create = self.view.current_state_event(room, "m.room.create", "").await?;
        let Some(create) = create else { return Ok(false) };
        let levels = self.view.current_state_event(room, "m.room.power_levels", "").await?;
        let levels = levels.as_ref().map(|event| &*event.pdu);
        let levels = PowerLevels::new(&room.info.rules.authorization, &create.pdu, levels);
        Ok(levels.may_send(&sender.user_id, &TimelineEventType::RoomCanonicalAlias, Some("")))
    }

    async fn is_world_readable(&self, room: &RoomSnapshot) -> Result<bool, Error> {
        let event = self.view.current_state_event(room, "m.room.history_visibility", "").await?;
        let visibility = event.and_then(|event| event.pdu.content_field::<String>("history_visibility"));
        Ok(visibility.as_deref() == Some("world_readable"))
    }

    /// Takes a deleted alias out of what the room shows, if the deleting user may.
    async fn unname(&self, sender: &Sender, room: &RoomSnapshot, alias: &RoomAliasId) -> Result<(), Error> {
        let event = self.view.current_state_event(room, "m.room.canonical_alias", "").await?;
        let Some(event) = event else { return Ok(()) };
        let content: Map<String, Value> = serde_json::from_str(event.pdu.content.get())?;
        let Some(content) = without(content, alias.as_str()) else { return Ok(()) };
        let kind = TimelineEventType::RoomCanonicalAlias;
        let content = to_raw_value(&content)?;
        match self.send_state(sender, &room.info.room_id, kind, "", &content).await {
            Ok(_) | Err(Error::Forbidden(_) | Error::BadAlias(_) | Error::InvalidParam(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The content without the alias; `None` if it is not in there.
fn without(mut content: Map<String, Value>, alias: &str) -> Option<Map<String, Value>> {
    let mut found = false;
    if content.get("alias").and_then(Value::as_str) == Some(alias) {
        content.remove("alias");
        found = true;
    }
    if let Some(others) = content.get_mut("alt_aliases").and_then(Value::as_array_mut) {
        let before = others.len();
        others.retain(|other| other.as_str() != Some(alias));
        found |= others.len() < before;
    }
    found.then_some(content)
}
