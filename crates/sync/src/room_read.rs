//! Reading single events, state and members of a room (Client-Server API, "Getting events for a room").

use std::sync::Arc;

use myelin_core::{EventNid, TimelineOrder, TimelineToken};
use myelin_dag::StateTree;
use myelin_store::tables::Membership;
use myelin_view::Event;
use ruma::{EventId, RoomId, events::room::member::MembershipState};

use crate::{
    Error, Requester, Sync,
    access::{Access, Readable},
    json::{Object, push_array},
    room_state::{load_events, state_at},
    timeline::Placed,
    visibility::Viewer,
};

const NO_EVENT: &str = "There is no such event, or you may not see it.";
const BEFORE_YOUR_TIME: &str = "You may not see who was in the room then.";
const NO_STATE: &str = "The room has no such state.";

/// Which members `GET /members` is to list.
#[derive(Clone, Debug, Default)]
pub struct MembersRequest {
    pub at: Option<TimelineToken>,
    pub membership: Option<MembershipState>,
    pub not_membership: Option<MembershipState>,
}

impl Sync {
    /// An event of *this* room that the requester may see.
    pub async fn visible_event(
        &self,
        requester: &Requester,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<Placed, Error> {
        let room = self.view.room_by_id(room_id).await?.ok_or(Error::NotFound(NO_EVENT))?;
        let event = self.view.events.load_by_id(event_id).await?.ok_or(Error::NotFound(NO_EVENT))?;
        let mut viewer = Viewer::new(&self.view, &room, requester.user, &requester.user_id).await?;
        let seen = viewer.see(&event).await?.ok_or(Error::NotFound(NO_EVENT))?;
        let order = event.order.ok_or(Error::NotFound(NO_EVENT))?;
        if self.has_forgotten(requester, &room).await? {
            return Err(Error::NotFound(NO_EVENT));
        }
        Ok(Placed { order, event, seen })
    }

    /// `GET /rooms/{roomId}/event/{eventId}`
    pub async fn event(
        &self,
        requester: &Requester,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<String, Error> {
        let placed = self.visible_event(requester, room_id, event_id).await?;
        self.write_placed(requester, &placed).await
    }

    /// With its bundled aggregations.
    pub async fn write_placed(&self, requester: &Requester, placed: &Placed) -> Result<String, Error> {
        let bundle = self.bundle(requester, &placed.event).await?;
        self.room_writer(requester).write(&placed.event, placed.seen, bundle.as_deref()).await
    }

    /// `GET /rooms/{roomId}/state`
    pub async fn state(&self, requester: &Requester, room_id: &RoomId) -> Result<String, Error> {
        let readable = self.whole(self.readable(requester, room_id).await?).await?;
        let state = self.readable_state(&readable).await?;
        let nids: Vec<EventNid> = state.iter().map(|(_, event)| event).collect();
        let events = load_events(&self.view, &nids).await?;
        let mut json = String::with_capacity(events.len() * 512);
        push_array(&mut json, self.write_state_events(requester, &readable, &events).await?);
        Ok(json)
    }

    /// For answers that need all members.
    async fn whole(&self, readable: Readable) -> Result<Readable, Error> {
        let room = self.view.completed(readable.room.clone()).await?;
        Ok(Readable { room, ..readable })
    }

    /// `GET /rooms/{roomId}/state/{eventType}/{stateKey}`: the content, or with `format=event` the event.
    pub async fn state_event(
        &self,
        requester: &Requester,
        room_id: &RoomId,
        event_type: &str,
        state_key: &str,
        whole: bool,
    ) -> Result<String, Error> {
        let readable = self.readable(requester, room_id).await?;
        let mut event = self.readable_state_event(&readable, event_type, state_key).await?;
        if event.is_none() && readable.room.members_omitted && event_type == "m.room.member" {
            let readable = self.whole(self.readable(requester, room_id).await?).await?;
            event = self.readable_state_event(&readable, event_type, state_key).await?;
        }
        let event = event.ok_or(Error::NotFound(NO_STATE))?;
        if !whole {
            return Ok(event.pdu.content.get().to_owned());
        }
        let mut json = self.write_state_events(requester, &readable, &[event]).await?;
        json.pop().ok_or(Error::NotFound(NO_STATE))
    }

    async fn readable_state_event(
        &self,
        readable: &Readable,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Arc<Event>>, Error> {
        let Some(key) = self.view.interner.lookup_state_key(event_type, state_key).await? else {
            return Ok(None);
        };
        match self.readable_state(readable).await?.get(key) {
            Some(nid) => Ok(self.view.events.load(nid).await?),
            None => Ok(None),
        }
    }

    /// `GET /rooms/{roomId}/members`
    pub async fn members(
        &self,
        requester: &Requester,
        room_id: &RoomId,
        request: &MembersRequest,
    ) -> Result<String, Error> {
        let readable = self.whole(self.readable(requester, room_id).await?).await?;
        let nids = match (request.at, readable.access) {
            (None, Access::Joined | Access::Peeking) => self.current_member_events(&readable, request),
            (at, _) => {
                let order = at.map_or(readable.until, |at| at.0.min(readable.until));
                let state = state_at(&self.view, readable.room.nid(), order).await?;
                // What it was when they left is theirs to see, whoever may see what else.
                let as_of_leaving = readable.access == Access::Left && order == readable.until;
                if !as_of_leaving {
                    self.check_sight(requester, &readable, &state, order).await?;
                }
                state.iter().map(|(_, event)| event).collect()
            }
        };
        let mut events = load_events(&self.view, &nids).await?;
        events.retain(|event| request.wants_event(event));
        let chunk = self.write_state_events(requester, &readable, &events).await?;
        let mut json = String::with_capacity(64 + events.len() * 400);
        let mut body = Object::open(&mut json);
        body.array("chunk", chunk);
        body.close();
        Ok(json)
    }

    async fn check_sight(
        &self,
        requester: &Requester,
        readable: &Readable,
        state: &StateTree,
        order: TimelineOrder,
    ) -> Result<(), Error> {
        let mut viewer = Viewer::new(&self.view, &readable.room, requester.user, &requester.user_id).await?;
        match viewer.sees_state(state.root(), order).await? {
            true => Ok(()),
            false => Err(Error::Forbidden(BEFORE_YOUR_TIME)),
        }
    }

    fn current_member_events(&self, readable: &Readable, request: &MembersRequest) -> Vec<EventNid> {
        let wanted = |membership: Membership| request.wants(&MembershipState::from(membership));
        let members = readable.room.members.iter();
        members.filter(|(_, (membership, _))| wanted(*membership)).map(|(_, (_, event))| *event).collect()
    }

    /// `GET /rooms/{roomId}/joined_members`
    pub async fn joined_members(&self, requester: &Requester, room_id: &RoomId) -> Result<String, Error> {
        let room = self.view.completed(self.joined_room_of(requester, room_id).await?).await?;
        let nids: Vec<_> = room.joined().map(|(_, event)| event).collect();
        let events = load_events(&self.view, &nids).await?;
        let mut json = String::with_capacity(64 + events.len() * 128);
        let mut body = Object::open(&mut json);
        let mut joined = body.object("joined");
        for event in events {
            let Some(user_id) = event.pdu.state_key.as_deref() else { continue };
            let mut member = joined.object(user_id);
            for (field, name) in [("displayname", "display_name"), ("avatar_url", "avatar_url")] {
                if let Some(value) = event.pdu.content_field::<String>(field) {
                    member.string(name, &value);
                }
            }
            member.close();
        }
        joined.close();
        body.close();
        Ok(json)
    }

    /// `GET /joined_rooms`
    pub async fn joined_rooms(&self, requester: &Requester) -> Result<Vec<String>, Error> {
        let rooms = self.view.user_rooms.load(requester.user).await?;
        let mut ids = Vec::new();
        for (nid, _) in rooms.iter().filter(|(_, room)| room.membership == Membership::Join) {
            if let Some(info) = self.view.interner.room_info(*nid).await? {
                ids.push(info.room_id.to_string());
            }
        }
        Ok(ids)
    }
}

impl MembersRequest {
    fn wants_event(&self, event: &Event) -> bool {
        let is_member = event.pdu.event_type == ruma::events::TimelineEventType::RoomMember;
        is_member && event.pdu.membership().is_some_and(|membership| self.wants(&membership))
    }

    /// If both are given, one of them is enough.
    fn wants(&self, membership: &MembershipState) -> bool {
        match (&self.membership, &self.not_membership) {
            (None, None) => true,
            (Some(wanted), None) => wanted == membership,
            (None, Some(unwanted)) => unwanted != membership,
            (Some(wanted), Some(unwanted)) => wanted == membership || unwanted != membership,
        }
    }
}
