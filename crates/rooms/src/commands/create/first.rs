//! The first two events of any room: it is created, and its creator joins.

use std::{collections::BTreeMap, sync::Arc};

use myelin_core::{EventNid, RoomNid};
use myelin_dag::{Names, NewEvent, Parents, Pdu, authorize, build, needs_names};
use myelin_store::{
    NidKind,
    tables::{ROOM_NIDS, ROOMS},
};
use myelin_view::{RoomInfo, RoomSnapshot};
use ruma::{
    OwnedEventId, OwnedRoomId, RoomId, RoomVersionId, ServerName,
    events::{StateEventType, room::member::MembershipState},
    room_version_rules::RoomVersionRules,
};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    Error, Rooms, Sender,
    commands::{check_names, membership::MembershipChange, state_event},
    writer::Draft,
};

/// Length of the random part of a room id, and of an event id where those are random.
const OPAQUE_ID_LENGTH: usize = 18;
/// Rooms that one user creates in the same way in one millisecond.
const SAME_MILLISECOND_MAX: u64 = 1_000;

/// What a room that is not there yet is to be known by. It can be begun from this time and again.
pub(crate) struct Foundation {
    info: Arc<RoomInfo>,
    create: Pdu,
}

impl Foundation {
    pub(crate) fn room_id(&self) -> &RoomId {
        &self.info.room_id
    }
}

impl Rooms {
    pub(crate) async fn found_room(
        &self,
        sender: &Sender,
        version: &RoomVersionId,
        rules: &RoomVersionRules,
        content: Map<String, Value>,
    ) -> Result<Foundation, Error> {
        let room_type = content.get("type").and_then(Value::as_str).map(ToOwned::to_owned);
        let create = self.create_event(sender, version, rules, content).await?;
        let nid = RoomNid(self.view.nids.allocate(NidKind::Room).await?);
        let create_event = EventNid(self.view.nids.allocate(NidKind::Event).await?);
        let room_id = create.room_id.clone();
        let info = RoomInfo {
            nid,
            room_id,
            version: version.clone(),
            rules: rules.clone(),
            room_type,
            create_event,
        };
        let info = Arc::new(info);
        self.view.interner.remember_room(info.clone());
        Ok(Foundation { info, create })
    }

    /// A draft of the new room with its creator in it.
    pub(crate) async fn begin_room(
        &self,
        sender: &Sender,
        foundation: &Foundation,
    ) -> Result<Draft<'_>, Error> {
        let Foundation { info, create } = foundation;
        let mut draft = Draft::new(self, RoomSnapshot::new(info.clone()));
        let room_id = info.room_id.to_string();
        draft.batch.require_absent(&ROOM_NIDS, &room_id);
        draft.batch.put(&ROOM_NIDS, &room_id, &info.nid);
        draft.batch.put(&ROOMS, &info.nid, &info.record());
        draft.place(info.create_event, sender.user, create.clone(), &[], None).await?;
        self.target(&sender.user_id).await?;
        let profile = self.profile(sender.user).await?;
        let content = MembershipChange::default().content(&MembershipState::Join, &profile);
        draft.append_member(sender, &sender.user_id, &content).await?;
        Ok(draft)
    }

    /// Where the room id is the hash of this event, a room that was created with the same words in the same
    /// millisecond has it already: then the event is from the next millisecond.
    async fn create_event(
        &self,
        sender: &Sender,
        version: &RoomVersionId,
        rules: &RoomVersionRules,
        mut content: Map<String, Value>,
    ) -> Result<Pdu, Error> {
        content.insert("room_version".to_owned(), version.as_str().into());
        if rules.authorization.use_room_create_sender {
            content.remove("creator");
        } else {
            content.insert("creator".to_owned(), sender.user_id.as_str().into());
        }
        let event = state_event(sender, "m.room.create", "", &content)?;
        let now_ms = self.view.env.now_ms();
        for at_ms in now_ms..now_ms + SAME_MILLISECOND_MAX {
            let pdu = self.build_create_event(&event, rules, at_ms)?;
            if self.view.interner.lookup_room(&pdu.room_id).await?.is_none() {
                return Ok(pdu);
            }
        }
        Err(Error::Busy)
    }

    fn build_create_event(
        &self,
        event: &NewEvent,
        rules: &RoomVersionRules,
        at_ms: u64,
    ) -> Result<Pdu, Error> {
        let derived = rules.authorization.room_create_event_id_as_room_id;
        let room_id = if derived { None } else { Some(self.random_room_id()?) };
        let names = match needs_names(rules) {
            true => Some(Names {
                event_id: self.random_event_id(&self.view.server_name)?,
                reference_hashes: BTreeMap::new(),
            }),
            false => None,
        };
        let parents = Parents { room_id, depth: 1, names, ..Parents::default() };
        let pdu = build(rules, event.clone(), parents, at_ms, &self.key)?;
        let none = |_: &StateEventType, _: &str| None::<&Pdu>;
        authorize(rules, &pdu, |_| None::<&Pdu>, none)
            .map_err(|rejection| Error::BadJson(format!("'creation_content' is not right: {rejection}.")))?;
        Ok(pdu)
    }

    /// The name of a new event of a user of `server` in versions 1 and 2.
    pub(crate) fn random_event_id(&self, server: &ServerName) -> Result<OwnedEventId, Error> {
        let opaque = self.view.env.random_string(OPAQUE_ID_LENGTH);
        let id = OwnedEventId::try_from(format!("${opaque}:{server}"));
        id.map_err(|error| Error::damaged(format!("the server name makes no event id: {error}")))
    }

    fn random_room_id(&self) -> Result<OwnedRoomId, Error> {
        let opaque = self.view.env.random_string(OPAQUE_ID_LENGTH);
        let id = format!("!{opaque}:{}", self.view.server_name);
        let id = <&RoomId>::try_from(id.as_str()).map(ToOwned::to_owned);
        id.map_err(|error| Error::damaged(format!("the server name makes no room id: {error}")))
    }
}

impl Draft<'_> {
    /// State that a request asks for; its names are the client's.
    pub(crate) async fn append_initial(
        &mut self,
        sender: &Sender,
        event_type: &str,
        state_key: &str,
        content: &(impl Serialize + Sync),
    ) -> Result<(), Error> {
        let event: NewEvent = state_event(sender, event_type, state_key, content)?;
        check_names(&event.event_type, state_key)?;
        self.append(sender, event).await.map(drop)
    }
}
