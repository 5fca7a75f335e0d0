//! Setting state (Client-Server API, "Sending events to a room").

use ruma::{
    OwnedEventId, RoomId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};
use serde_json::{Map, Value, value::RawValue};

use myelin_dag::NewEvent;
use myelin_store::tables::{Membership, SentBy};

use crate::{
    Error, Join, MembershipChange, Rooms, Sender,
    commands::{check_names, id_of},
    writer::{Command, Draft},
};

struct SendState<'a> {
    rooms: &'a Rooms,
    sender: &'a Sender,
    event_type: &'a TimelineEventType,
    state_key: &'a str,
    content: &'a RawValue,
    sent_by: Option<SentBy>,
}

impl Rooms {
    /// Saying again what one has said already gives the same event.
    pub async fn send_state(
        &self,
        sender: &Sender,
        room_id: &RoomId,
        event_type: TimelineEventType,
        state_key: &str,
        content: &RawValue,
    ) -> Result<OwnedEventId, Error> {
        self.send_state_by(sender, room_id, event_type, state_key, content, None).await
    }

    /// As [`Rooms::send_state`], remembering by what it was sent.
    pub(crate) async fn send_state_by(
        &self,
        sender: &Sender,
        room_id: &RoomId,
        event_type: TimelineEventType,
        state_key: &str,
        content: &RawValue,
        sent_by: Option<SentBy>,
    ) -> Result<OwnedEventId, Error> {
        check_names(&event_type, state_key)?;
        match event_type {
            TimelineEventType::RoomMember => self.send_member(sender, room_id, state_key, content).await,
            TimelineEventType::RoomCreate => Err(Error::Forbidden("A room is created once.".to_owned())),
            event_type => {
                let room = self.own_room(room_id).await?;
                self.check_in_room(sender, room).await?;
                self.view.interner.state_key(&event_type.to_string(), state_key).await?;
                let command =
                    SendState { rooms: self, sender, event_type: &event_type, state_key, content, sent_by };
                self.run(room, &command).await
            }
        }
    }

    /// Before a number is given out for a state key: strangers get none.
    async fn check_in_room(&self, sender: &Sender, room: myelin_core::RoomNid) -> Result<(), Error> {
        let Some(snapshot) = self.view.rooms.load(room).await? else { return Ok(()) };
        if snapshot.is_joined(sender.user) {
            return Ok(());
        }
        Err(Error::not_in_room(&snapshot.info.room_id))
    }

    /// A member event goes the way of the membership that it sets.
    async fn send_member(
        &self,
        sender: &Sender,
        room_id: &RoomId,
        state_key: &str,
        content: &RawValue,
    ) -> Result<OwnedEventId, Error> {
        let target = <&UserId>::try_from(state_key)
            .map_err(|_| Error::InvalidParam("The state key of a member event is a user id.".to_owned()))?;
        let content: Map<String, Value> = serde_json::from_str(content.get())?;
        let membership = content.get("membership").and_then(Value::as_str);
        let membership = membership
            .ok_or_else(|| Error::BadJson("The content of a member event has a 'membership'.".to_owned()))?;
        let membership = MembershipState::from(membership);
        let change = MembershipChange { reason: None, content };
        let own = target == sender.user_id;
        match membership {
            MembershipState::Join if own => {
                return self.join(sender, room_id, Join { change, update: true }).await;
            }
            MembershipState::Knock if own => return self.knock(sender, room_id, change).await,
            MembershipState::Join | MembershipState::Knock => {
                return Err(Error::Forbidden("This can be done for oneself only.".to_owned()));
            }
            MembershipState::Invite => return self.invite(sender, room_id, target, change).await,
            MembershipState::Leave if own => self.leave(sender, room_id, change).await?,
            MembershipState::Leave if self.is_banned(room_id, target).await? => {
                self.unban(sender, room_id, target, change).await?;
            }
            MembershipState::Leave => self.kick(sender, room_id, target, change).await?,
            MembershipState::Ban => self.ban(sender, room_id, target, change).await?,
            other => return Err(Error::BadJson(format!("There is no membership '{other}'."))),
        }
        self.member_event_id(room_id, target).await
    }

    async fn is_banned(&self, room_id: &RoomId, target: &UserId) -> Result<bool, Error> {
        let room = self.view.room_by_id(room_id).await?;
        let user = self.view.interner.lookup_user(target).await?;
        Ok(room.zip(user).is_some_and(|(room, user)| room.membership(user) == Some(Membership::Ban)))
    }

    async fn member_event_id(&self, room_id: &RoomId, target: &UserId) -> Result<OwnedEventId, Error> {
        let room = self.room(room_id).await?;
        let event = self.view.current_state_event(&room, "m.room.member", target.as_str()).await?;
        event.map(|event| id_of(&event)).ok_or_else(|| Error::damaged("a member event is missing"))
    }
}

impl Command for SendState<'_> {
    type Output = OwnedEventId;

    async fn act(&self, draft: &mut Draft<'_>) -> Result<OwnedEventId, Error> {
        draft.require_joined(self.sender)?;
        let held = draft.state_event(&self.event_type.to_string(), self.state_key).await?;
        if let Some(held) = &held
            && held.sender == self.sender.user
            && same_json(&held.pdu.content, self.content)
        {
            return Ok(id_of(held));
        }
        if *self.event_type == TimelineEventType::RoomCanonicalAlias {
            let before = held.as_ref().map(|event| &*event.pdu.content);
            self.rooms.check_canonical_alias(draft.room.nid(), self.content, before).await?;
        }
        let event = NewEvent {
            sender: self.sender.user_id.clone(),
            event_type: self.event_type.clone(),
            state_key: Some(self.state_key.to_owned()),
            content: self.content.to_owned(),
            redacts: None,
            sticky_duration_ms: None,
        };
        Ok(id_of(&draft.append_sent(self.sender, event, self.sent_by.clone()).await?))
    }
}

fn same_json(a: &RawValue, b: &RawValue) -> bool {
    let parse = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).ok();
    a.get() == b.get() || parse(a).is_some_and(|a| Some(a) == parse(b))
}
