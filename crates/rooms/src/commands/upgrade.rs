//! Upgrading a room: a new room takes its place (Client-Server API, "Room upgrades"). Both change in one commit.

use myelin_dag::room_version;
use myelin_store::{
    log::LogEntry,
    tables::{ALIASES, Membership, PUBLIC_ROOMS, ROOM_ALIASES},
};
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, RoomVersionId,
    events::{TimelineEventType, room::power_levels::UserPowerLevel},
    room_version_rules::RoomVersionRules,
};
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;

use crate::{
    Error, Rooms, Sender,
    commands::{
        create::{DEFAULT_LEVEL_OF_TOMBSTONES, Foundation, named_levels},
        state_event,
    },
    writer::{Command, Draft},
};

/// State that goes along as it is. Power levels come last, so that they do not stand in the way of the rest.
const TRANSFERRED: [&str; 10] = [
    "m.room.server_acl",
    "m.room.encryption",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
    "m.room.pinned_events",
    "m.space.parent",
];
/// Bans that go along.
const BANS_MAX: usize = 5_000;

#[derive(Clone, Debug)]
pub struct Upgrade {
    pub new_version: RoomVersionId,
    /// Ignored by room versions without additional creators.
    pub additional_creators: Vec<OwnedUserId>,
}

struct UpgradeCommand<'a> {
    rooms: &'a Rooms,
    sender: &'a Sender,
    upgrade: &'a Upgrade,
    rules: RoomVersionRules,
    /// The old room is told of the new one by its name, which so remains the same when this is tried again.
    foundation: OnceCell<Foundation>,
}

impl Rooms {
    /// Gives the id of the new room.
    pub async fn upgrade(
        &self,
        sender: &Sender,
        room_id: &RoomId,
        upgrade: &Upgrade,
    ) -> Result<OwnedRoomId, Error> {
        let rules = room_version::rules(&upgrade.new_version)
            .ok_or_else(|| Error::UnsupportedRoomVersion(upgrade.new_version.to_string()))?;
        let room = self.own_room(room_id).await?;
        let foundation = OnceCell::new();
        self.run(room, &UpgradeCommand { rooms: self, sender, upgrade, rules, foundation }).await
    }
}

impl Command for UpgradeCommand<'_> {
    type Output = OwnedRoomId;

    async fn act(&self, old: &mut Draft<'_>) -> Result<OwnedRoomId, Error> {
        old.require_joined(self.sender)?;
        self.check_rights(old).await?;
        let foundation = self.foundation.get_or_try_init(|| self.found(old)).await?;
        let mut new = self.rooms.begin_room(self.sender, foundation).await?;
        self.transfer_state(old, &mut new).await?;
        self.transfer_bans(old, &mut new).await?;
        self.transfer_levels(old, &mut new).await?;
        self.move_directory(old, &mut new).await?;
        old.carry(new.seal());
        self.close(old, foundation.room_id()).await?;
        Ok(foundation.room_id().to_owned())
    }
}

impl UpgradeCommand<'_> {
    async fn check_rights(&self, old: &Draft<'_>) -> Result<(), Error> {
        let user = &self.sender.user_id;
        let tombstone = TimelineEventType::RoomTombstone;
        let lacking = old.power_levels(|levels| {
            let needed = levels.to_send(&tombstone, Some(""));
            match levels.of_user(user) {
                UserPowerLevel::Int(has) if has < needed => Some((needed, has)),
                _ => None,
            }
        });
        match lacking.await? {
            None => Ok(()),
            Some((needed, has)) => Err(Error::Forbidden(format!(
                "You need power level {needed} to upgrade this room, you have {has}."
            ))),
        }
    }

    fn privileged(&self) -> bool {
        self.rules.authorization.explicitly_privilege_room_creators
    }

    async fn found(&self, old: &Draft<'_>) -> Result<Foundation, Error> {
        let content = self.creation_content(old).await?;
        self.rooms.found_room(self.sender, &self.upgrade.new_version, &self.rules, content).await
    }

    async fn creation_content(&self, old: &Draft<'_>) -> Result<Map<String, Value>, Error> {
        let held: Map<String, Value> = serde_json::from_str(old.create_event().await?.pdu.content.get())?;
        let kept = |(field, _): &(String, Value)| matches!(field.as_str(), "type" | "m.federate");
        let mut content: Map<String, Value> = held.into_iter().filter(kept).collect();
        let mut predecessor = json!({ "room_id": old.room.info.room_id });
        if !self.privileged()
            && let Some(last) = old.room.head.extremities.first()
        {
            predecessor["event_id"] = old.event(*last).await?.pdu.event_id.as_str().into();
        }
        content.insert("predecessor".to_owned(), predecessor);
        if self.privileged() && !self.upgrade.additional_creators.is_empty() {
            content.insert("additional_creators".to_owned(), json!(self.upgrade.additional_creators));
        }
        Ok(content)
    }

    async fn transfer_state(&self, old: &Draft<'_>, new: &mut Draft<'_>) -> Result<(), Error> {
        for event_type in TRANSFERRED {
            if let Some(event) = old.state_event(event_type, "").await? {
                new.append_initial(self.sender, event_type, "", &event.pdu.content).await?;
            }
        }
        Ok(())
    }

    async fn transfer_bans(&self, old: &Draft<'_>, new: &mut Draft<'_>) -> Result<(), Error> {
        let banned = old.room.members.iter().filter(|(_, (membership, _))| *membership == Membership::Ban);
        for (_, (_, event)) in banned.take(BANS_MAX) {
            let event = old.event(*event).await?;
            let Some(user) = event.pdu.state_key.as_deref().and_then(|id| OwnedUserId::try_from(id).ok())
            else {
                continue;
            };
            let mut content = Map::from_iter([("membership".to_owned(), "ban".into())]);
            if let Some(reason) = event.pdu.content_field::<String>("reason") {
                content.insert("reason".to_owned(), reason.into());
            }
            new.append_member(self.sender, &user, &content).await?;
        }
        Ok(())
    }

    async fn transfer_levels(&self, old: &Draft<'_>, new: &mut Draft<'_>) -> Result<(), Error> {
        let held = old.state_event("m.room.power_levels", "").await?;
        let mut content = held.and_then(|event| event.pdu.integer_levels()).unwrap_or_default();
        let users = content.entry("users").or_insert_with(|| json!({}));
        if let Some(users) = users.as_object_mut() {
            if self.privileged() {
                // Creators are above all levels and must not be named.
                users.remove(self.sender.user_id.as_str());
                self.upgrade.additional_creators.iter().for_each(|user| drop(users.remove(user.as_str())));
            } else if old.room.info.rules.authorization.explicitly_privilege_room_creators {
                users.extend(named_levels(std::iter::once(&*self.sender.user_id)));
            }
        }
        if self.privileged() {
            raise_tombstones(&mut content);
        }
        new.append_initial(self.sender, "m.room.power_levels", "", &content).await
    }

    /// Local aliases and the listing move; what the room shows of its aliases goes along.
    async fn move_directory(&self, old: &Draft<'_>, new: &mut Draft<'_>) -> Result<(), Error> {
        let (from, to) = (old.room.nid(), new.room.nid());
        let store = &self.rooms.view.store;
        for alias in self.rooms.aliases_of(from).await? {
            let Some(mut record) = store.get(&ALIASES, &alias).await? else { continue };
            new.batch.require_equal(&ALIASES, &alias, &record);
            record.room = to;
            new.batch.put(&ALIASES, &alias, &record);
            new.batch.delete(&ROOM_ALIASES, &(from, alias.clone()));
            new.batch.put(&ROOM_ALIASES, &(to, alias), &());
        }
        if store.get(&PUBLIC_ROOMS, &from).await?.is_some() {
            new.batch.delete(&PUBLIC_ROOMS, &from);
            new.batch.put(&PUBLIC_ROOMS, &to, &());
        }
        new.batch.log(&LogEntry::Directory { room: from });
        new.batch.log(&LogEntry::Directory { room: to });
        if let Some(event) = old.state_event("m.room.canonical_alias", "").await? {
            new.append_initial(self.sender, "m.room.canonical_alias", "", &event.pdu.content).await?;
        }
        Ok(())
    }

    async fn close(&self, old: &mut Draft<'_>, new_id: &RoomId) -> Result<(), Error> {
        let content = json!({ "body": "This room has been replaced", "replacement_room": new_id });
        old.append(self.sender, state_event(self.sender, "m.room.tombstone", "", &content)?).await?;
        if old.state_event("m.room.canonical_alias", "").await?.is_some() {
            let event = state_event(self.sender, "m.room.canonical_alias", "", &json!({}))?;
            unless_forbidden(old.append(self.sender, event).await)?;
        }
        self.silence(old).await
    }

    /// Raises what it takes to speak and to invite in the old room, if the user may.
    async fn silence(&self, old: &mut Draft<'_>) -> Result<(), Error> {
        let Some(held) = old.state_event("m.room.power_levels", "").await? else { return Ok(()) };
        let Some(mut content) = held.pdu.integer_levels() else { return Ok(()) };
        let level =
            |content: &Map<String, Value>, field| content.get(field).and_then(Value::as_i64).unwrap_or(0);
        let needed = level(&content, "users_default").saturating_add(1).max(50);
        for field in ["events_default", "invite"] {
            if level(&content, field) < needed {
                content.insert(field.to_owned(), needed.into());
            }
        }
        let event = state_event(self.sender, "m.room.power_levels", "", &content)?;
        unless_forbidden(old.append(self.sender, event).await)
    }
}

/// Tombstones need more than the state default (Client-Server API, `POST /createRoom`).
fn raise_tombstones(content: &mut Map<String, Value>) {
    let events = content.entry("events").or_insert_with(|| json!({}));
    let Some(events) = events.as_object_mut() else { return };
    let level = events.get("m.room.tombstone").and_then(Value::as_i64).unwrap_or(0);
    events.insert("m.room.tombstone".to_owned(), level.max(DEFAULT_LEVEL_OF_TOMBSTONES).into());
}

fn unless_forbidden<T>(result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Ok(_) | Err(Error::Forbidden(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
