//! How long the messages of a room are kept (MSC1763): what `m.room.retention` says, within what the operator allows.

use std::sync::atomic::{AtomicU64, Ordering};

use myelin_core::{Env, StateKeyNid};
use parking_lot::Mutex;

use crate::{Error, RoomSnapshot, View};

const RETENTION: &str = "m.room.retention";
/// While no room has ever had a retention, it is looked up this often whether one has now.
const LOOK_AGAIN_MS: u64 = 2_000;

/// What the operator says. All in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// Of rooms that say nothing; `None`: for ever.
    pub default_ms: Option<u64>,
    /// Rooms that want less get this much.
    pub shortest_ms: Option<u64>,
    /// Rooms that want more, or say nothing, get this much.
    pub longest_ms: Option<u64>,
}

/// Which state event says it, and what the operator does.
pub struct Retention {
    policy: RetentionPolicy,
    key: Mutex<Option<StateKeyNid>>,
    look_again_ms: AtomicU64,
}

impl RetentionPolicy {
    /// `room_ms`: what the room says.
    pub fn lifetime_ms(&self, room_ms: Option<u64>) -> Option<u64> {
        let lifetime_ms = match room_ms {
            Some(room_ms) => Some(room_ms.max(self.shortest_ms.unwrap_or(0))),
            None => self.default_ms,
        };
        match (lifetime_ms, self.longest_ms) {
            (Some(lifetime_ms), Some(longest_ms)) => Some(lifetime_ms.min(longest_ms)),
            (lifetime_ms, longest_ms) => lifetime_ms.or(longest_ms),
        }
    }

    /// Whether messages of rooms that say nothing end.
    pub fn applies_to_all(&self) -> bool {
        self.lifetime_ms(None).is_some()
    }
}

impl Retention {
    pub fn new(policy: RetentionPolicy) -> Self {
        Self { policy, key: Mutex::new(None), look_again_ms: AtomicU64::new(0) }
    }

    pub fn policy(&self) -> &RetentionPolicy {
        &self.policy
    }

    fn is_time_to_look(&self, env: &Env) -> bool {
        let now_ms = env.now_ms();
        let due = self.look_again_ms.load(Ordering::Relaxed) <= now_ms;
        if due {
            self.look_again_ms.store(now_ms + LOOK_AGAIN_MS, Ordering::Relaxed);
        }
        due
    }
}

impl View {
    /// The same view with another policy; before anything stands on it.
    #[must_use]
    pub fn with_retention(self, policy: RetentionPolicy) -> Self {
        Self { retention: std::sync::Arc::new(Retention::new(policy)), ..self }
    }

    /// The number of `m.room.retention`, if any room ever had it.
    pub async fn retention_key(&self) -> Result<Option<StateKeyNid>, Error> {
        let known = *self.retention.key.lock();
        if known.is_some() || !self.retention.is_time_to_look(&self.env) {
            return Ok(known);
        }
        let found = self.interner.lookup_state_key(RETENTION, "").await?;
        *self.retention.key.lock() = found;
        Ok(found)
    }

    /// Messages from before this time (milliseconds since 1970) are gone; `None`: they stay for ever.
    pub async fn expired_before_ms(&self, room: &RoomSnapshot) -> Result<Option<u64>, Error> {
        let event = match self.retention_key().await?.and_then(|key| room.current_state.get(key)) {
            Some(nid) => self.events.load(nid).await?,
            None => None,
        };
        let room_ms = event.and_then(|event| event.pdu.content_field::<u64>("max_lifetime"));
        let lifetime_ms = self.retention.policy.lifetime_ms(room_ms);
        Ok(lifetime_ms.map(|lifetime_ms| self.env.now_ms().saturating_sub(lifetime_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_sets_the_limits() {
        let none = RetentionPolicy::default();
        assert_eq!((none.lifetime_ms(None), none.lifetime_ms(Some(5))), (None, Some(5)));
        let policy = RetentionPolicy { default_ms: Some(50), shortest_ms: Some(10), longest_ms: Some(100) };
        for (room_ms, expected) in [(None, 50), (Some(5), 10), (Some(60), 60), (Some(500), 100)] {
            assert_eq!(policy.lifetime_ms(room_ms), Some(expected), "{room_ms:?}");
        }
        let longest = RetentionPolicy { longest_ms: Some(100), ..none };
        assert_eq!(longest.lifetime_ms(None), Some(100));
        assert!(longest.applies_to_all() && !none.applies_to_all());
    }
}
