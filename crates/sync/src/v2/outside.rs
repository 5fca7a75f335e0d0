//! `rooms.invite`, `rooms.knock` and `rooms.leave` of a sync.

use std::sync::Arc;

use myelin_core::{Position, RoomNid, TimelineOrder, TimelineToken, UserNid};
use myelin_store::tables::{Membership, NOTICE_ROOMS, STRIPPED_STATES};
use myelin_view::{Event, InvitePermission, RoomInfo, RoomSnapshot, UserRoom};
use ruma::events::room::member::MembershipState;

use super::{Changes, Context, state::StateRequest};
use crate::{Error, Sync, client_event::stripped as stripped_event, json::Object, visibility::Seen};

/// State that helps to recognise a room before joining it (Client-Server API, "Stripped state").
const STRIPPED_STATE: [&str; 8] = [
    "m.room.create",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.avatar",
    "m.room.encryption",
    "m.room.name",
    "m.room.topic",
    "m.room.history_visibility",
];

impl Sync {
    pub(crate) async fn push_invited_and_knocked(
        &self,
        context: &Context<'_>,
        changes: &Changes,
        rooms: &mut Object<'_>,
    ) -> Result<(), Error> {
        for (membership, section, state) in
            [(Membership::Invite, "invite", "invite_state"), (Membership::Knock, "knock", "knock_state")]
        {
            let mut text = String::new();
            let mut out = Object::open(&mut text);
            for (nid, held) in rooms_with(context, changes, |m| m == membership) {
                if let Some((info, events)) = self.stripped_room(context, nid, held).await? {
                    let mut entry = out.object(info.room_id.as_str());
                    entry.events(state, events);
                    entry.close();
                }
            }
            let news = !out.is_empty();
            out.close();
            if news {
                rooms.raw(section, &text);
            }
        }
        Ok(())
    }

    /// `None` if the filter or the user does not want to hear of it.
    async fn stripped_room(
        &self,
        context: &Context<'_>,
        nid: RoomNid,
        held: UserRoom,
    ) -> Result<Option<(Arc<RoomInfo>, Vec<String>)>, Error> {
        let Some(info) = self.view.interner.room_info(nid).await? else { return Ok(None) };
        let Some(member) = self.view.events.load(held.event).await? else { return Ok(None) };
        let ignored = self.view.ignored.load(context.request.requester.user).await?;
        let invited = held.membership == Membership::Invite;
        let unwanted = invited
            && (ignored.contains(&member.pdu.sender)
                || self.suppresses_invite(context.request.requester.user, &member).await?);
        if unwanted || !context.request.filter.room.allows_room(&info.room_id) {
            return Ok(None);
        }
        let events = self.recognisable_state(context.request.requester.user, nid, &member).await?;
        Ok(Some((info, events)))
    }

    /// Invites that the user does not want are not shown (Client-Server API, "Invite permission").
    pub(crate) async fn suppresses_invite(&self, user: UserNid, invite: &Event) -> Result<bool, Error> {
        if self.view.invite_permission(user, &invite.pdu.sender).await? == InvitePermission::Allow {
            return Ok(false);
        }
        // The server is heard all the same.
        let notices = self.view.store.get(&NOTICE_ROOMS, &user).await?;
        Ok(notices.is_none_or(|notices| notices.room != invite.room))
    }

    /// From the room, if this server takes part in it; else what came with the invite or the knock.
    pub(crate) async fn recognisable_state(
        &self,
        user: UserNid,
        nid: RoomNid,
        member: &Event,
    ) -> Result<Vec<String>, Error> {
        let room = self.view.rooms.load(nid).await?;
        let stripped = self.view.store.get(&STRIPPED_STATES, &(nid, user)).await?;
        match (room, stripped) {
            (Some(room), None) => self.stripped_state(&room, member).await,
            (Some(room), _) if room.has_server(&self.view.server_name) => {
                self.stripped_state(&room, member).await
            }
            (_, stripped) => {
                let mut events = stripped.map(|record| record.events).unwrap_or_default();
                events.push(stripped_event(member));
                Ok(events)
            }
        }
    }

    /// What an invited or knocking user may know of the room, their own member event last.
    pub(crate) async fn stripped_state(
        &self,
        room: &RoomSnapshot,
        member: &Event,
    ) -> Result<Vec<String>, Error> {
        let mut events = Vec::new();
        for event_type in STRIPPED_STATE {
            let event = self.view.current_state_event(room, event_type, "").await?;
            events.extend(event.map(|event| stripped_event(&event)));
        }
        let sender = member.pdu.sender.as_str();
        let inviter = self.view.current_state_event(room, "m.room.member", sender).await?;
        events.extend(inviter.filter(|event| event.nid != member.nid).map(|event| stripped_event(&event)));
        events.push(stripped_event(member));
        Ok(events)
    }

    pub(crate) async fn push_left(
        &self,
        context: &Context<'_>,
        changes: &Changes,
        rooms: &mut Object<'_>,
    ) -> Result<(), Error> {
        // An initial sync shows rooms of the past only if asked to.
        if context.since.is_none() && !context.request.filter.room.include_leave {
            return Ok(());
        }
        let mut text = String::new();
        let mut out = Object::open(&mut text);
        let left = |m| matches!(m, Membership::Leave | Membership::Ban);
        for (nid, held) in rooms_with(context, changes, left) {
            // Other devices still have to hear that the room was left before it was forgotten.
            if held.forgotten && context.since.is_none() {
                continue;
            }
            let Some(info) = self.view.interner.room_info(nid).await? else { continue };
            if !context.request.filter.room.allows_room(&info.room_id) {
                continue;
            }
            let member = self.view.events.load(held.event).await?;
            let outside = member.filter(|member| member.order.is_none());
            let json = match (outside, self.view.rooms.load(nid).await?) {
                (Some(member), _) => self.left_outside(context, &member, held).await?,
                (None, Some(room)) => self.left_room(context, changes, &room, held).await?,
                (None, None) => continue,
            };
            out.raw(info.room_id.as_str(), &json);
        }
        let news = !out.is_empty();
        out.close();
        if news {
            rooms.raw("leave", &text);
        }
        Ok(())
    }

    /// A room that this server never was in, or not when the user's membership ended: that end is all there is.
    async fn left_outside(
        &self,
        context: &Context<'_>,
        member: &Event,
        held: UserRoom,
    ) -> Result<String, Error> {
        let seen = Seen { membership: held.membership };
        // State resolution took the user out: that shows in no event.
        let shown = member.pdu.membership() != Some(MembershipState::Join);
        let event = if shown { Some(context.writer.write(member, seen, None).await?) } else { None };
        let mut json = String::with_capacity(256);
        let mut out = Object::open(&mut json);
        let mut timeline = out.object("timeline");
        timeline.array("events", event);
        timeline.bool("limited", false);
        timeline.string("prev_batch", &TimelineToken(held.position.into()).to_string());
        timeline.close();
        out.close();
        Ok(json)
    }

    /// Everything up to and including the event by which the user left.
    async fn left_room(
        &self,
        context: &Context<'_>,
        changes: &Changes,
        room: &RoomSnapshot,
        held: UserRoom,
    ) -> Result<String, Error> {
        let until = TimelineOrder::from(held.position);
        let since = self.left_since(context, changes, room.nid()).await?;
        let mut viewer = self.viewer(context, room).await?;
        let mut timeline = self.timeline(context, room, &mut viewer, since, until).await?;
        timeline.limited |= since.is_none() && context.since.is_some();
        let moved = changes.state_may_have_moved(room.nid());
        let request = StateRequest { room, since, until, timeline: &timeline, moved, members: Vec::new() };
        // Who was never in the room (a declined invite) has no right to its state.
        let state = if held.was_joined {
            self.write_state(context, &request, &mut viewer).await?
        } else {
            Vec::new()
        };
        let mut json = String::with_capacity(256);
        let mut out = Object::open(&mut json);
        out.events(context.request.state_form.key(), state);
        self.push_timeline(context, &timeline, &mut out).await?;
        out.events("account_data", self.room_account_data(context, changes, room, since).await?);
        out.close();
        Ok(json)
    }

    /// From where on the client is to hear of a room that was left: all of it, if the user joined after the token; from
    /// the token, if the user was joined at it; else (an invite declined, a ban lifted) only of the memberships.
    async fn left_since(
        &self,
        context: &Context<'_>,
        changes: &Changes,
        room: RoomNid,
    ) -> Result<Option<Position>, Error> {
        let Some(memberships) = changes.memberships.get(&room) else { return Ok(None) };
        let Some((_, first)) = memberships.first() else { return Ok(None) };
        if let Some(since) = context.since
            && self.was_inside_at(context, room, since).await?
        {
            return Ok(Some(since));
        }
        if memberships.iter().any(|(membership, _)| *membership == Membership::Join) {
            return Ok(None);
        }
        let first = self.view.events.load(*first).await?;
        let order = first.and_then(|event| event.order).and_then(TimelineOrder::position);
        Ok(order.map(|position| Position(position.0.saturating_sub(1))).or(context.since))
    }
}

/// Rooms with such a membership: all of them in an initial sync, else those where it came about since the token.
fn rooms_with(
    context: &Context<'_>,
    changes: &Changes,
    wanted: impl Fn(Membership) -> bool,
) -> Vec<(RoomNid, UserRoom)> {
    let candidates: Vec<_> = match context.since {
        None => changes.rooms.iter().map(|(nid, room)| (*nid, *room)).collect(),
        Some(_) => {
            let of = |nid: &RoomNid| changes.rooms.get(nid).map(|room| (*nid, *room));
            changes.memberships.keys().filter_map(of).collect()
        }
    };
    candidates.into_iter().filter(|(_, room)| wanted(room.membership)).collect()
}
