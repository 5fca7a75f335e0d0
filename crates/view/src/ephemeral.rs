//! Typing and presence: state, never messages (DESIGN 2, seeds 000 and 001).
//!
//! Both live in memory only. Every change takes the next number of one ephemeral sequence, which starts from the
//! clock (so it is past every number given out before a restart) and which sync tokens carry.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use myelin_core::{RoomNid, UserNid};
use parking_lot::Mutex;
use ruma::presence::PresenceState;

use crate::Feed;

/// Sequence numbers per millisecond of uptime: no server changes typing state a million times a second.
const NUMBERS_PER_MS: u64 = 1_000;

pub struct Ephemeral {
    state: Mutex<State>,
    feed: Arc<Feed>,
}

struct State {
    sequence: u64,
    typing: HashMap<RoomNid, TypingRoom>,
    presence: HashMap<UserNid, Presence>,
    /// Presence by the sequence number of its last change.
    presence_changes: BTreeMap<u64, UserNid>,
}

#[derive(Default)]
struct TypingRoom {
    changed: u64,
    /// User -> when the typing notification expires, milliseconds since the epoch.
    users: BTreeMap<UserNid, u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Presence {
    pub state: PresenceState,
    pub status_msg: Option<String>,
    pub last_active_ms: u64,
    changed: u64,
}

impl Ephemeral {
    pub fn new(now_ms: u64, feed: Arc<Feed>) -> Self {
        let state = State {
            sequence: now_ms.saturating_mul(NUMBERS_PER_MS),
            typing: HashMap::new(),
            presence: HashMap::new(),
            presence_changes: BTreeMap::new(),
        };
        Self { state: Mutex::new(state), feed }
    }

    /// The number of the last change.
    pub fn sequence(&self) -> u64 {
        self.state.lock().sequence
    }

    /// `expires_ms`: until when the user is shown as typing; `None` stops at once.
    pub fn set_typing(&self, room: RoomNid, user: UserNid, expires_ms: Option<u64>) {
        let changed = self.state.lock().set_typing(room, user, expires_ms);
        if changed {
            self.feed.wake_room(room);
        }
    }

    /// Who types in the room, if that changed after `since`.
    pub fn typing_since(&self, room: RoomNid, since: u64) -> Option<Vec<UserNid>> {
        let state = self.state.lock();
        let typing = state.typing.get(&room)?;
        (typing.changed > since).then(|| typing.users.keys().copied().collect())
    }

    /// The rooms whose typing users changed after `since`.
    pub fn typing_rooms_since(&self, since: u64) -> Vec<RoomNid> {
        let state = self.state.lock();
        if state.sequence <= since {
            return Vec::new();
        }
        state.typing.iter().filter(|(_, t)| t.changed > since).map(|(room, _)| *room).collect()
    }

    /// Stops everybody whose time is over; called once a second.
    pub fn expire_typing(&self, now_ms: u64) {
        let rooms = self.state.lock().expire_typing(now_ms);
        rooms.into_iter().for_each(|room| self.feed.wake_room(room));
    }

    /// Returns whether anything that others see changed; the caller knows whom to wake.
    pub fn set_presence(
        &self,
        user: UserNid,
        state: PresenceState,
        status_msg: Option<String>,
        now_ms: u64,
    ) -> bool {
        self.state.lock().set_presence(user, state, status_msg, now_ms)
    }

    pub fn presence(&self, user: UserNid) -> Option<Presence> {
        self.state.lock().presence.get(&user).cloned()
    }

    /// Users who are shown as present, but gave no sign of life after `deadline_ms`.
    pub fn silent_since(&self, deadline_ms: u64) -> Vec<UserNid> {
        let state = self.state.lock();
        let silent = |p: &Presence| p.state != PresenceState::Offline && p.last_active_ms < deadline_ms;
        state.presence.iter().filter(|(_, p)| silent(p)).map(|(user, _)| *user).collect()
    }

    /// Whose presence changed after `since`, oldest change first.
    pub fn presence_since(&self, since: u64) -> Vec<(UserNid, Presence)> {
        let state = self.state.lock();
        let changed = state.presence_changes.range(since.saturating_add(1)..);
        changed.filter_map(|(_, user)| Some((*user, state.presence.get(user)?.clone()))).collect()
    }
}

impl State {
    fn set_typing(&mut self, room: RoomNid, user: UserNid, expires_ms: Option<u64>) -> bool {
        let typing = self.typing.entry(room).or_default();
        let was = typing.users.contains_key(&user);
        match expires_ms {
            Some(at) => drop(typing.users.insert(user, at)),
            None => drop(typing.users.remove(&user)),
        }
        let changed = was != expires_ms.is_some();
        if changed {
            self.sequence += 1;
            typing.changed = self.sequence;
        }
        changed
    }

    fn expire_typing(&mut self, now_ms: u64) -> Vec<RoomNid> {
        let mut changed = Vec::new();
        for (room, typing) in &mut self.typing {
            let before = typing.users.len();
            typing.users.retain(|_, expires_ms| *expires_ms > now_ms);
            if typing.users.len() != before {
                self.sequence += 1;
                typing.changed = self.sequence;
                changed.push(*room);
            }
        }
        changed
    }

    fn set_presence(
        &mut self,
        user: UserNid,
        state: PresenceState,
        status_msg: Option<String>,
        now_ms: u64,
    ) -> bool {
        let before = self.presence.get(&user);
        let same = before.is_some_and(|p| p.state == state && p.status_msg == status_msg);
        if same {
            if let Some(presence) = self.presence.get_mut(&user) {
                presence.last_active_ms = now_ms;
            }
            return false;
        }
        if let Some(before) = before {
            self.presence_changes.remove(&before.changed);
        }
        self.sequence += 1;
        let changed = self.sequence;
        self.presence_changes.insert(changed, user);
        self.presence.insert(user, Presence { state, status_msg, last_active_ms: now_ms, changed });
        true
    }
}
