//! Creating a room (Client-Server API, `POST /createRoom`): all its first events, in one commit.

mod first;
mod initial;
mod power_levels;

use std::collections::BTreeSet;

use myelin_dag::room_version;
use myelin_store::tables::{ALIASES, PUBLIC_ROOMS};
use ruma::{
    OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomVersionId, UserId, events::room::member::MembershipState,
    room_version_rules::RoomVersionRules,
};
use serde_json::{Map, Value, json, value::RawValue};

pub(crate) use self::first::Foundation;
use self::initial::InitialEvents;
pub use self::power_levels::{DEFAULT_LEVEL_OF_TOMBSTONES, named_levels};
use crate::{
    Error, Rooms, Sender, Visibility,
    commands::membership::{MembershipChange, Target},
    writer::Draft,
};

const ATTEMPTS_MAX: usize = 5;
/// Entries of `invite` and of `initial_state`.
const INVITED_MAX: usize = 1_000;
const INITIAL_STATE_MAX: usize = 5_000;

/// What a client wants the room to be; names as in the specification.
#[derive(Clone, Debug, Default)]
pub struct CreateRoom {
    pub visibility: Visibility,
    /// The localpart of the alias.
    pub room_alias_name: Option<String>,
    pub name: Option<String>,
    pub topic: Option<String>,
    pub invite: Vec<OwnedUserId>,
    pub room_version: Option<RoomVersionId>,
    pub creation_content: Map<String, Value>,
    pub initial_state: Vec<InitialState>,
    pub preset: Option<Preset>,
    pub is_direct: bool,
    pub power_level_content_override: Map<String, Value>,
}

#[derive(Clone, Debug)]
pub struct InitialState {
    pub event_type: String,
    pub state_key: String,
    pub content: Box<RawValue>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    PrivateChat,
    PublicChat,
    TrustedPrivateChat,
}

/// A request that has passed the guards.
struct Plan<'a> {
    request: &'a CreateRoom,
    version: RoomVersionId,
    rules: RoomVersionRules,
    preset: Preset,
    alias: Option<OwnedRoomAliasId>,
    invited: Vec<(Target, Map<String, Value>)>,
}

impl Rooms {
    pub async fn create_room(&self, sender: &Sender, request: &CreateRoom) -> Result<OwnedRoomId, Error> {
        for _ in 0..ATTEMPTS_MAX {
            let plan = self.plan(sender, request).await?;
            let draft = self.draft_room(sender, &plan).await.map_err(as_room_state)?;
            let room_id = draft.room.info.room_id.clone();
            match self.settle_new(draft).await {
                // Somebody took the alias, which the next plan sees, or the room id.
                Err(Error::Busy) => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(room_id),
            }
        }
        Err(Error::Busy)
    }

    async fn plan<'a>(&self, sender: &Sender, request: &'a CreateRoom) -> Result<Plan<'a>, Error> {
        let version = request.room_version.clone().unwrap_or(room_version::DEFAULT);
        let rules = room_version::rules(&version)
            .ok_or_else(|| Error::UnsupportedRoomVersion(version.to_string()))?;
        check_count("invite", request.invite.len(), INVITED_MAX)?;
        check_count("initial_state", request.initial_state.len(), INITIAL_STATE_MAX)?;
        let by_visibility = match request.visibility {
            Visibility::Public => Preset::PublicChat,
            Visibility::Private => Preset::PrivateChat,
        };
        let alias = self.free_alias(request.room_alias_name.as_deref()).await?;
        let invited = self.invited(sender, &request.invite).await?;
        let preset = request.preset.unwrap_or(by_visibility);
        Ok(Plan { request, version, rules, preset, alias, invited })
    }

    async fn free_alias(&self, localpart: Option<&str>) -> Result<Option<OwnedRoomAliasId>, Error> {
        let Some(localpart) = localpart else { return Ok(None) };
        let alias = self.local_alias(localpart)?;
        match self.view.store.get(&ALIASES, &alias.to_string()).await? {
            Some(_) => Err(Error::RoomInUse(alias)),
            None => Ok(Some(alias)),
        }
    }

    /// Whom to invite. Who refuses all invites is left out: the room comes about all the same.
    async fn invited(
        &self,
        sender: &Sender,
        invite: &[OwnedUserId],
    ) -> Result<Vec<(Target, Map<String, Value>)>, Error> {
        let mut invited = Vec::with_capacity(invite.len());
        let distinct: BTreeSet<_> = invite.iter().collect();
        for user_id in distinct.into_iter().filter(|user_id| **user_id != sender.user_id) {
            let target = self.target(user_id).await?;
            if !self.blocks_invites(target.user, &sender.user_id).await? {
                let profile = self.profile(target.user).await?;
                invited.push((target, profile));
            }
        }
        Ok(invited)
    }

    async fn draft_room(&self, sender: &Sender, plan: &Plan<'_>) -> Result<Draft<'_>, Error> {
        let content = plan.creation_content()?;
        let foundation = self.found_room(sender, &plan.version, &plan.rules, content).await?;
        let mut draft = self.begin_room(sender, &foundation).await?;
        let mut initial = InitialEvents::new(&plan.request.initial_state);
        let levels = match initial.take("m.room.power_levels", "") {
            Some(content) => content,
            None => plan.power_levels(sender)?,
        };
        draft.append_initial(sender, "m.room.power_levels", "", &levels).await?;
        self.name_room(sender, plan, &mut draft, &mut initial).await?;
        for (event_type, content) in plan.preset.state() {
            if !initial.has(event_type, "") {
                draft.append_initial(sender, event_type, "", &content).await?;
            }
        }
        if plan.request.name.is_some() {
            initial.take("m.room.name", "");
        }
        if plan.request.topic.is_some() {
            initial.take("m.room.topic", "");
        }
        for state in initial.rest() {
            draft.append_initial(sender, &state.event_type, &state.state_key, &state.content).await?;
        }
        plan.describe(sender, &mut draft).await?;
        plan.invite(sender, &mut draft).await?;
        if plan.request.visibility == Visibility::Public {
            let room = draft.room.nid();
            draft.batch.put(&PUBLIC_ROOMS, &room, &());
            draft.batch.log(&myelin_store::log::LogEntry::Directory { room });
        }
        Ok(draft)
    }

    async fn name_room(
        &self,
        sender: &Sender,
        plan: &Plan<'_>,
        draft: &mut Draft<'_>,
        initial: &mut InitialEvents<'_>,
    ) -> Result<(), Error> {
        if let Some(alias) = &plan.alias {
            initial.take("m.room.canonical_alias", "");
            let room = draft.room.nid();
            Self::put_alias(&mut draft.batch, alias, room, sender.user);
            draft.append_initial(sender, "m.room.canonical_alias", "", &json!({ "alias": alias })).await?;
        } else if let Some(content) = initial.get("m.room.canonical_alias", "") {
            self.check_canonical_alias(draft.room.nid(), content, None).await?;
        }
        Ok(())
    }
}

impl Plan<'_> {
    fn creation_content(&self) -> Result<Map<String, Value>, Error> {
        let mut content = self.request.creation_content.clone();
        let trusted = self.preset == Preset::TrustedPrivateChat;
        if trusted && self.rules.authorization.explicitly_privilege_room_creators {
            let creators = content.entry("additional_creators").or_insert_with(|| json!([]));
            let creators = creators
                .as_array_mut()
                .ok_or_else(|| Error::BadJson("'additional_creators' is a list of user ids.".to_owned()))?;
            for (target, _) in &self.invited {
                let user_id: Value = target.user_id.as_str().into();
                if !creators.contains(&user_id) {
                    creators.push(user_id);
                }
            }
        }
        Ok(content)
    }

    async fn describe(&self, sender: &Sender, draft: &mut Draft<'_>) -> Result<(), Error> {
        if let Some(name) = &self.request.name {
            draft.append_initial(sender, "m.room.name", "", &json!({ "name": name })).await?;
        }
        if let Some(topic) = &self.request.topic {
            let content = json!({ "topic": topic, "m.topic": { "m.text": [{ "body": topic }] } });
            draft.append_initial(sender, "m.room.topic", "", &content).await?;
        }
        Ok(())
    }

    async fn invite(&self, sender: &Sender, draft: &mut Draft<'_>) -> Result<(), Error> {
        // The servers of the others sign their invites first, and for that the room has to be there.
        for (target, profile) in &self.invited {
            if !draft.is_local(&target.user_id) {
                continue;
            }
            let mut content = MembershipChange::default().content(&MembershipState::Invite, profile);
            if self.request.is_direct {
                content.insert("is_direct".to_owned(), true.into());
            }
            draft.append_member(sender, &target.user_id, &content).await?;
        }
        Ok(())
    }

    /// Users who are as powerful as the creator, by the power levels.
    fn trusted(&self) -> impl Iterator<Item = &UserId> {
        let trusted = self.preset == Preset::TrustedPrivateChat;
        self.invited.iter().filter(move |_| trusted).map(|(target, _)| &*target.user_id)
    }
}

impl Preset {
    /// State that the preset sets, in the specification's order.
    fn state(self) -> [(&'static str, Value); 3] {
        let (join_rule, guest_access) = match self {
            Self::PublicChat => ("public", "forbidden"),
            Self::PrivateChat | Self::TrustedPrivateChat => ("invite", "can_join"),
        };
        [
            ("m.room.join_rules", json!({ "join_rule": join_rule })),
            ("m.room.history_visibility", json!({ "history_visibility": "shared" })),
            ("m.room.guest_access", json!({ "guest_access": guest_access })),
        ]
    }
}

fn check_count(name: &str, count: usize, max: usize) -> Result<(), Error> {
    if count <= max {
        return Ok(());
    }
    Err(Error::InvalidParam(format!("'{name}' has {count} entries, more than {max}.")))
}

/// A rule of the room that a wish breaks makes the wish the problem, not the person.
fn as_room_state(error: Error) -> Error {
    match error {
        Error::Forbidden(reason) => Error::InvalidRoomState(reason),
        other => other,
    }
}
