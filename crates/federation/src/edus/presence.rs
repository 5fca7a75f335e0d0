//! `m.presence` from other servers: of users with whom somebody here shares a room.

use myelin_core::UserNid;
use myelin_store::{Direction, tables::SERVER_ROOMS};
use ruma::{OwnedUserId, ServerName, presence::PresenceState};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Dropped, Edus, own, parse};

/// Users of one EDU.
const USERS_MAX: usize = 500;
/// Rooms shared with a server that are looked at.
const ROOMS_MAX: usize = 10_000;
const STATUS_MSG_SIZE_MAX: usize = 1024;
/// A user of another server counts as alive for so long after the server last spoke of them; five more minutes make
/// them offline. Servers repeat themselves at least every 25 minutes.
const ALIVE_MS: u64 = 25 * 60_000;

#[derive(Deserialize)]
struct Presence {
    push: Vec<Update>,
}

#[derive(Deserialize)]
struct Update {
    user_id: OwnedUserId,
    presence: PresenceState,
    #[serde(default)]
    status_msg: Option<String>,
    #[serde(default)]
    last_active_ago: u64,
}

impl Edus {
    pub(super) async fn presence(&self, origin: &ServerName, content: &RawValue) -> Result<(), Dropped> {
        if !self.presence.incoming {
            return Err(Dropped::Unwanted);
        }
        let said: Presence = parse(content)?;
        if said.push.len() > USERS_MAX {
            return Err(Dropped::TooMany(USERS_MAX));
        }
        let mut dropped = None;
        for update in said.push {
            match self.presence_of(origin, update).await {
                Ok(()) => {}
                Err(Dropped::Failed(error)) => return Err(error.into()),
                Err(reason) => dropped = Some(reason),
            }
        }
        dropped.map_or(Ok(()), Err)
    }

    async fn presence_of(&self, origin: &ServerName, update: Update) -> Result<(), Dropped> {
        own(origin, &update.user_id)?;
        let user = self.view.interner.lookup_user(&update.user_id).await?.ok_or(Dropped::NotInRoom)?;
        let now_ms = self.view.env.now_ms();
        let status = update.status_msg.filter(|text| text.len() <= STATUS_MSG_SIZE_MAX);
        let held = self.view.ephemeral.presence(user);
        let shared = self.shared_rooms(origin, user).await?;
        if shared.is_empty() {
            return Err(Dropped::NotInRoom);
        }
        let last_active_ms = now_ms.saturating_sub(update.last_active_ago);
        let silent_anyway = held.is_none() && update.presence == PresenceState::Offline;
        if silent_anyway {
            return Ok(());
        }
        let ephemeral = &self.view.ephemeral;
        if ephemeral.set_presence_until(user, update.presence, status, last_active_ms, now_ms + ALIVE_MS) {
            shared.into_iter().for_each(|room| self.view.feed.wake_room(room));
        }
        Ok(())
    }

    /// The rooms of a user of `origin` in which somebody from here is.
    async fn shared_rooms(
        &self,
        origin: &ServerName,
        user: UserNid,
    ) -> Result<Vec<myelin_core::RoomNid>, Dropped> {
        let prefix = origin.to_string();
        let rows = self.view.store.scan(&SERVER_ROOMS, &prefix, Direction::Forward, ROOMS_MAX).await?;
        let mut shared = Vec::new();
        for ((_, room), row) in rows {
            if !row.value.joined {
                continue;
            }
            let snapshot = self.view.rooms.load(room).await?;
            if snapshot.is_some_and(|held| held.is_joined(user) && !held.local_joined.is_empty()) {
                shared.push(room);
            }
        }
        Ok(shared)
    }
}
