//! Memberships of local users in rooms that this server is not in: an invite or a knock, and its end. The room is known
//! by name only; the member event is held for itself, and what else is known of the room is stripped state.

use std::sync::Arc;

use myelin_core::{EventNid, UserNid};
use myelin_dag::{Names, NewEvent, Parents, Pdu, build, needs_names};
use myelin_store::{
    Batch, CommitError, NidKind,
    codec::AtPosition,
    log::LogEntry,
    tables::{
        EVENT_NIDS, EVENTS, Membership, Placement, ROOM_HEADS, STRIPPED_STATES, StrippedStateRecord,
        USER_ROOMS, USER_STREAM, UserChange, UserRoomRecord, VerdictRecord,
    },
};
use myelin_view::{Event, RoomInfo};
use ruma::{OwnedServerName, RoomId, UserId};

use crate::{Error, Rooms, Sender, writer::member_id};

const ATTEMPTS_MAX: usize = 8;

/// A membership held from outside.
#[derive(Debug, Clone)]
pub struct Outside {
    pub info: Arc<RoomInfo>,
    pub membership: Membership,
    /// The member event.
    pub event: Arc<Event>,
    /// Servers by which the room can be reached.
    pub servers: Vec<OwnedServerName>,
}

impl Rooms {
    /// Whether this server takes part in a room, so that it hears what happens there.
    pub async fn is_resident(&self, room_id: &RoomId) -> Result<bool, Error> {
        let room = self.view.room_by_id(room_id).await?;
        Ok(room.is_some_and(|room| room.has_server(&self.view.server_name)))
    }

    /// The user's invite to or knock on a room that this server is not in.
    pub async fn outside(&self, user_id: &UserId, room_id: &RoomId) -> Result<Option<Outside>, Error> {
        if self.is_resident(room_id).await? {
            return Ok(None);
        }
        let Some(user) = self.view.interner.lookup_user(user_id).await? else { return Ok(None) };
        let Some(info) = self.known_room(room_id).await? else { return Ok(None) };
        let Some(row) = self.view.store.get(&USER_ROOMS, &(user, info.nid)).await? else { return Ok(None) };
        if !matches!(row.value.membership, Membership::Invite | Membership::Knock) {
            return Ok(None);
        }
        let Some(event) = self.view.events.load(row.value.event).await? else { return Ok(None) };
        let stripped = self.view.store.get(&STRIPPED_STATES, &(info.nid, user)).await?;
        let servers = stripped.map(|record| record.servers).unwrap_or_default();
        let servers = servers.into_iter().filter_map(|name| name.try_into().ok()).collect();
        Ok(Some(Outside { info, membership: row.value.membership, event, servers }))
    }

    /// Records what a member event (signed, and not to be judged: nobody here knows the room) says of a local user.
    /// `stripped` is the state to show with it.
    pub async fn put_outside(
        &self,
        info: &RoomInfo,
        pdu: Pdu,
        stripped: Option<StrippedStateRecord>,
    ) -> Result<(), Error> {
        let user_id = member_id(&pdu).filter(|user_id| self.view.is_local(user_id));
        let user_id =
            user_id.ok_or_else(|| Error::InvalidParam("No membership of a local user.".to_owned()))?;
        let membership = pdu.membership().as_ref().map_or(Membership::Leave, Membership::from);
        let user = self.view.interner.user(&user_id).await?;
        let pdu = Arc::new(pdu);
        for _ in 0..ATTEMPTS_MAX {
            let change = OutsideChange { user, membership, stripped: stripped.as_ref() };
            match self.try_put_outside(info, &pdu, &change).await {
                Err(Error::Busy) => {}
                done => return done,
            }
        }
        Err(Error::Busy)
    }

    async fn try_put_outside(
        &self,
        info: &RoomInfo,
        pdu: &Arc<Pdu>,
        change: &OutsideChange<'_>,
    ) -> Result<(), Error> {
        let store = &self.view.store;
        let (user, room) = (change.user, info.nid);
        let head = store.get(&ROOM_HEADS, &room).await?;
        if self.is_resident(&info.room_id).await? {
            return Err(Error::BadState("This server is in the room.".to_owned()));
        }
        let before = store.get(&USER_ROOMS, &(user, room)).await?;
        let mut batch = Batch::new();
        batch.require_unchanged(&ROOM_HEADS, &room, head.as_ref());
        batch.require_unchanged(&USER_ROOMS, &(user, room), before.as_ref());
        let event = self.hold(&mut batch, info, pdu).await?;
        let position = batch.log(&LogEntry::Outside { user, room });
        let membership = change.membership;
        let was_joined = before.is_some_and(|row| row.value.was_joined);
        let value = UserRoomRecord { membership, event, forgotten: false, was_joined };
        batch.put(&USER_ROOMS, &(user, room), &AtPosition { position, value });
        batch.put(&USER_STREAM, &(user, position), &UserChange::Membership { room, membership, event });
        match change.stripped {
            Some(record) => batch.put(&STRIPPED_STATES, &(room, user), record),
            None => batch.delete(&STRIPPED_STATES, &(room, user)),
        }
        match store.commit(batch).await {
            Ok(_) => {
                self.view.user_rooms.forget(user);
                Ok(())
            }
            Err(CommitError::Conflict { .. }) => Err(Error::Busy),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }

    /// The event's number; its rows are added unless it is held.
    async fn hold(&self, batch: &mut Batch, info: &RoomInfo, pdu: &Arc<Pdu>) -> Result<EventNid, Error> {
        if let Some(nid) = self.view.interner.lookup_event(&pdu.event_id).await? {
            return Ok(nid);
        }
        let nid = EventNid(self.view.nids.allocate(NidKind::Event).await?);
        let sender = self.view.interner.user(&pdu.sender).await?;
        let state_key = pdu.state_key.as_deref().unwrap_or_default();
        let key = self.view.interner.state_key(&pdu.event_type.to_string(), state_key).await?;
        let verdict = VerdictRecord::Accepted;
        let event = Event::new(nid, info.nid, sender, Some(key), None, verdict, None, pdu.clone());
        let id = pdu.event_id.to_string();
        batch.require_absent(&EVENT_NIDS, &id);
        batch.put(&EVENT_NIDS, &id, &nid);
        batch.put(&EVENTS, &nid, &event.row(Placement::Outside, myelin_core::Position::ZERO));
        Ok(nid)
    }

    /// Takes back an invite from outside: the server of whoever sent it says that the user is out. `false` if there is
    /// nothing that it could end.
    pub async fn end_outside(&self, room_id: &RoomId, pdu: Pdu) -> Result<bool, Error> {
        let ends = matches!(
            pdu.membership().as_ref().map(Membership::from),
            Some(Membership::Leave | Membership::Ban)
        );
        let Some(user_id) = member_id(&pdu).filter(|user_id| ends && self.view.is_local(user_id)) else {
            return Ok(false);
        };
        let Some(outside) = self.outside(&user_id, room_id).await? else { return Ok(false) };
        let inviter = &outside.event.pdu.sender;
        // A knock is answered by somebody of whom only the room knows whether they may.
        let may =
            outside.membership == Membership::Knock || inviter.server_name() == pdu.sender.server_name();
        if !may || pdu.room_id != outside.info.room_id {
            return Ok(false);
        }
        self.put_outside(&outside.info, pdu, None).await?;
        Ok(true)
    }

    /// Whether the user accepts invites at all (Client-Server API, "Invite permission").
    pub async fn refuses_invites(&self, user_id: &UserId, inviter: &UserId) -> Result<bool, Error> {
        let user = self.view.interner.user(user_id).await?;
        self.blocks_invites(user, inviter).await
    }

    /// A leave of the user's own, made here because nobody there can be asked.
    pub async fn leave_outside(
        &self,
        sender: &Sender,
        room_id: &RoomId,
        reason: Option<String>,
    ) -> Result<(), Error> {
        let Some(outside) = self.outside(&sender.user_id, room_id).await? else {
            return Err(Error::not_in_room(room_id));
        };
        let mut content = serde_json::json!({ "membership": "leave" });
        if let Some(reason) = reason {
            content["reason"] = reason.into();
        }
        let user_id = &sender.user_id;
        let event = NewEvent::state(user_id.clone(), "m.room.member", user_id.as_str(), &content)?;
        let (held, rules) = (&outside.event.pdu, &outside.info.rules);
        let parents = Parents {
            room_id: Some(held.room_id.clone()),
            prev_events: vec![held.event_id.clone()],
            auth_events: vec![held.event_id.clone()],
            depth: held.depth.saturating_add(1).min(myelin_core::limits::JSON_INTEGER_MAX.unsigned_abs()),
            names: match needs_names(rules) {
                true => Some(Names {
                    event_id: self.random_event_id(&self.view.server_name)?,
                    reference_hashes: [held.reference(rules)].into(),
                }),
                false => None,
            },
        };
        let pdu = build(rules, event, parents, self.view.env.now_ms(), &self.key)?;
        self.put_outside(&outside.info, pdu, None).await
    }
}

struct OutsideChange<'a> {
    user: UserNid,
    membership: Membership,
    stripped: Option<&'a StrippedStateRecord>,
}
