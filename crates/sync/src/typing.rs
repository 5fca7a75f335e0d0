//! Typing notifications and presence as clients set them.

use std::{sync::Arc, time::Duration};

use myelin_core::limits;
use myelin_view::ephemeral::Presence;
use ruma::{RoomId, UserId, presence::PresenceState};

use crate::{Error, Requester, Sync};

/// How often typing users are looked at for time-outs (seed 000).
const TYPING_CHECK_MS: u64 = 1_000;
/// A client that names no timeout.
const TYPING_TIMEOUT_MS_DEFAULT: u64 = 30_000;
const STATUS_MSG_SIZE_MAX: usize = 1024;
/// Without a sign of life for so long, an online user is offline.
const PRESENCE_TIMEOUT_MS: u64 = 5 * 60_000;

impl Sync {
    /// `timeout_ms == None` stops typing.
    pub async fn set_typing(
        &self,
        requester: &Requester,
        room_id: &RoomId,
        typing: bool,
        timeout_ms: Option<u64>,
    ) -> Result<(), Error> {
        let room = self.joined_room_of(requester, room_id).await?;
        let timeout = timeout_ms.unwrap_or(TYPING_TIMEOUT_MS_DEFAULT).min(limits::TYPING_TIMEOUT_MS_MAX);
        let expires_ms = typing.then(|| self.view.env.now_ms() + timeout);
        self.view.ephemeral.set_typing(room.nid(), requester.user, expires_ms);
        Ok(())
    }

    /// Makes silent typists stop, and silent users offline. Spawn it once per process.
    pub async fn run_expiry(self: Arc<Self>) {
        while !self.is_draining() {
            self.view.env.clock.sleep(Duration::from_millis(TYPING_CHECK_MS)).await;
            let now_ms = self.view.env.now_ms();
            self.view.ephemeral.expire_typing(now_ms);
            for user in self.view.ephemeral.silent_since(now_ms.saturating_sub(PRESENCE_TIMEOUT_MS)) {
                let status = self.view.ephemeral.presence(user).and_then(|p| p.status_msg);
                if let Err(error) = self.change_presence(user, PresenceState::Offline, status).await {
                    tracing::warn!(%error, "presence could not be changed");
                }
            }
        }
    }

    /// `PUT /presence/{userId}/status`
    pub async fn set_presence(
        &self,
        requester: &Requester,
        state: PresenceState,
        status_msg: Option<String>,
    ) -> Result<(), Error> {
        if status_msg.as_ref().is_some_and(|text| text.len() > STATUS_MSG_SIZE_MAX) {
            return Err(Error::InvalidParam(format!("status_msg has at most {STATUS_MSG_SIZE_MAX} bytes.")));
        }
        self.change_presence(requester.user, state, status_msg).await
    }

    /// `GET /presence/{userId}/status`: only of users who share a room.
    pub async fn presence(&self, requester: &Requester, user_id: &UserId) -> Result<Presence, Error> {
        const HIDDEN: &str = "You share no room with this user.";
        let user = self.view.interner.lookup_user(user_id).await?.ok_or(Error::Forbidden(HIDDEN))?;
        if !self.may_see_presence(requester.user, user).await? {
            return Err(Error::Forbidden(HIDDEN));
        }
        self.view.ephemeral.presence(user).ok_or(Error::NotFound("The presence of this user is not known."))
    }
}
