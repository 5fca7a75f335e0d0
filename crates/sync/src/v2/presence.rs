//! Presence in sync (Client-Server API, "Presence").

use std::collections::BTreeMap;

use imbl::OrdMap;
use myelin_core::{RoomNid, UserNid};
use myelin_store::tables::Membership;
use myelin_view::{UserRoom, ephemeral::Presence};
use ruma::presence::PresenceState;

use super::{Changes, Context, Request};
use crate::{Error, Sync, json, json::Object};

/// A user counts as active for so long after the last sign of life.
const CURRENTLY_ACTIVE_MS: u64 = 60_000;
/// How often a sync that changes nothing writes down that its user is alive.
const LAST_ACTIVE_RESOLUTION_MS: u64 = 10_000;
/// Members of one newly joined room whose presence comes with it.
const PRESENCE_OF_ROOM_MAX: usize = 200;

impl Sync {
    /// Syncing makes a user online, unless the client says otherwise.
    pub(crate) async fn note_presence(&self, request: &Request) -> Result<(), Error> {
        if request.set_presence == PresenceState::Offline {
            return Ok(());
        }
        let now_ms = self.view.env.now_ms();
        let user = request.requester.user;
        let held = self.view.ephemeral.presence(user);
        let fresh = held.as_ref().is_some_and(|held| {
            held.state == request.set_presence && now_ms < held.last_active_ms + LAST_ACTIVE_RESOLUTION_MS
        });
        if fresh {
            return Ok(());
        }
        let status = held.and_then(|presence| presence.status_msg);
        self.change_presence(user, request.set_presence.clone(), status).await
    }

    /// Sets presence and wakes those who share a room.
    pub async fn change_presence(
        &self,
        user: UserNid,
        state: PresenceState,
        status_msg: Option<String>,
    ) -> Result<(), Error> {
        let now_ms = self.view.env.now_ms();
        if !self.view.ephemeral.set_presence(user, state, status_msg, now_ms) {
            return Ok(());
        }
        for (room, held) in self.view.user_rooms.load(user).await?.iter() {
            if held.membership == Membership::Join {
                // Only rooms in memory can be woken.
                self.view.rooms.load(*room).await?;
                self.view.feed.wake_room(*room);
            }
        }
        Ok(())
    }

    pub(crate) async fn push_presence(
        &self,
        context: &Context<'_>,
        changes: &Changes,
        body: &mut Object<'_>,
    ) -> Result<bool, Error> {
        let filter = &context.request.filter.presence;
        if !filter.allows_type("m.presence") {
            return Ok(false);
        }
        let mut seen = self.changed_presence(context).await?;
        seen.extend(self.presence_of_new_rooms(context, changes).await?);
        let mut events = Vec::with_capacity(seen.len());
        for (user, presence) in seen {
            let user_id = self.view.interner.user_id(user).await?;
            if filter.allows_sender(&user_id) {
                events.push(presence_event(user_id.as_str(), &presence, context.now_ms));
            }
        }
        let news = !events.is_empty();
        if news {
            body.events("presence", events);
        }
        Ok(news)
    }

    async fn changed_presence(&self, context: &Context<'_>) -> Result<BTreeMap<UserNid, Presence>, Error> {
        let mut seen = BTreeMap::new();
        if context.now_ephemeral <= context.since_ephemeral {
            return Ok(seen);
        }
        let viewer = context.request.requester.user;
        for (user, presence) in self.view.ephemeral.presence_since(context.since_ephemeral) {
            // An initial sync need not hear of those who are not there.
            let silent = context.since.is_none() && presence.state == PresenceState::Offline;
            if !silent && self.may_see_presence(viewer, user).await? {
                seen.insert(user, presence);
            }
        }
        Ok(seen)
    }

    /// Who is there in rooms that the user has just joined: their presence changed before the two met.
    async fn presence_of_new_rooms(
        &self,
        context: &Context<'_>,
        changes: &Changes,
    ) -> Result<BTreeMap<UserNid, Presence>, Error> {
        let mut seen = BTreeMap::new();
        if context.since.is_none() {
            return Ok(seen);
        }
        let joined =
            |room: &RoomNid| changes.rooms.get(room).is_some_and(|held| held.membership == Membership::Join);
        for nid in changes.memberships.keys().filter(|nid| joined(nid)) {
            let Some(room) = self.view.rooms.load(*nid).await? else { continue };
            for user in room.local_joined.iter().take(PRESENCE_OF_ROOM_MAX) {
                let presence = self.view.ephemeral.presence(*user);
                let there = presence.filter(|presence| presence.state != PresenceState::Offline);
                seen.extend(there.map(|presence| (*user, presence)));
            }
        }
        Ok(seen)
    }

    /// Presence is for those who share a room.
    pub async fn may_see_presence(&self, viewer: UserNid, user: UserNid) -> Result<bool, Error> {
        if viewer == user {
            return Ok(true);
        }
        let mine = self.view.user_rooms.load(viewer).await?;
        if !self.view.interner.is_local(user).await? {
            return self.shares_a_room(&mine, user).await;
        }
        let theirs = self.view.user_rooms.load(user).await?;
        let (few, many) = if mine.len() < theirs.len() { (mine, theirs) } else { (theirs, mine) };
        let joined = |room: &UserRoom| room.membership == Membership::Join;
        Ok(few.iter().any(|(nid, room)| joined(room) && many.get(nid).is_some_and(joined)))
    }

    /// Whether a user of another server is in one of these rooms.
    async fn shares_a_room(&self, rooms: &OrdMap<RoomNid, UserRoom>, user: UserNid) -> Result<bool, Error> {
        for (room, _) in rooms.iter().filter(|(_, held)| held.membership == Membership::Join) {
            let room = self.view.rooms.load(*room).await?;
            if room.is_some_and(|room| room.is_joined(user)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The content of an `m.presence` event.
pub fn presence_content(presence: &Presence, now_ms: u64) -> String {
    let idle_ms = now_ms.saturating_sub(presence.last_active_ms);
    let mut out = String::new();
    let mut content = Object::open(&mut out);
    content.string("presence", presence.state.as_str());
    content.number("last_active_ago", idle_ms);
    content
        .bool("currently_active", presence.state == PresenceState::Online && idle_ms < CURRENTLY_ACTIVE_MS);
    if let Some(status) = &presence.status_msg {
        content.string("status_msg", status);
    }
    content.close();
    out
}

fn presence_event(sender: &str, presence: &Presence, now_ms: u64) -> String {
    let content = presence_content(presence, now_ms);
    format!(r#"{{"type":"m.presence","sender":{},"content":{content}}}"#, json::string(sender))
}
