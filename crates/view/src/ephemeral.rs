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
use tokio::sync::watch;

use crate::Feed;

/// Sequence numbers per millisecond of uptime: no server changes typing state a million times a second.
const NUMBERS_PER_MS: u64 = 1_000;

pub struct Ephemeral {
    /// Greater than every number given out before this process started.
    first: u64,
    state: Mutex<State>,
    feed: Arc<Feed>,
    /// The number of the last change, for those who wait for the next.
    changes: watch::Sender<u64>,
}

struct State {
    sequence: u64,
    typing: HashMap<RoomNid, TypingRoom>,
    /// Rooms by the sequence number of the last change of who types in them.
    typing_changes: BTreeMap<u64, RoomNid>,
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
    /// Counts as the last sign of life: a user of another server is heard of less often.
    alive_ms: u64,
    changed: u64,
}

impl Ephemeral {
    pub fn new(now_ms: u64, feed: Arc<Feed>) -> Self {
        let state = State {
            sequence: now_ms.saturating_mul(NUMBERS_PER_MS),
            typing: HashMap::new(),
            typing_changes: BTreeMap::new(),
            presence: HashMap::new(),
            presence_changes: BTreeMap::new(),
        };
        let changes = watch::Sender::new(state.sequence);
        Self { first: state.sequence, state: Mutex::new(state), feed, changes }
    }

    /// The number of the last change.
    pub fn sequence(&self) -> u64 {
        self.state.lock().sequence
    }

    /// `expires_ms`: until when the user is shown as typing; `None` stops at once.
    pub fn set_typing(&self, room: RoomNid, user: UserNid, expires_ms: Option<u64>) {
        let changed = self.state.lock().set_typing(room, user, expires_ms);
        if changed {
            self.announce();
            self.feed.wake_room(room);
        }
    }

    /// Whether who typed at `since` is no longer known: the process started later. Nobody who typed then does now,
    /// unless they said so again.
    pub fn has_forgotten(&self, since: u64) -> bool {
        (1..self.first).contains(&since)
    }

    /// Who types in the room, if that changed after `since`.
    pub fn typing_since(&self, room: RoomNid, since: u64) -> Option<Vec<UserNid>> {
        let state = self.state.lock();
        let typing = state.typing.get(&room).filter(|typing| typing.changed > since);
        let users = typing.map(|typing| typing.users.keys().copied().collect());
        users.or_else(|| self.has_forgotten(since).then(Vec::new))
    }

    /// The rooms whose typing users changed after `since`.
    pub fn typing_rooms_since(&self, since: u64) -> Vec<RoomNid> {
        let state = self.state.lock();
        state.typing_changes.range(since.saturating_add(1)..).map(|(_, room)| *room).collect()
    }

    /// Completes once something has changed after `since`, with the number of the last change.
    pub async fn changed_past(&self, since: u64) -> u64 {
        let mut changes = self.changes.subscribe();
        // The sender lives as long as self.
        let changed = changes.wait_for(|sequence| *sequence > since).await;
        changed.map_or(since, |sequence| *sequence)
    }

    /// Stops everybody whose time is over; called once a second.
    pub fn expire_typing(&self, now_ms: u64) {
        let rooms = self.state.lock().expire_typing(now_ms);
        if !rooms.is_empty() {
            self.announce();
        }
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
        self.set_presence_until(user, state, status_msg, now_ms, now_ms)
    }

    /// The same for a user of another server, who counts as silent only some time after `alive_ms`, although last active
    /// at `last_active_ms`.
    pub fn set_presence_until(
        &self,
        user: UserNid,
        state: PresenceState,
        status_msg: Option<String>,
        last_active_ms: u64,
        alive_ms: u64,
    ) -> bool {
        let news = Presence { state, status_msg, last_active_ms, alive_ms, changed: 0 };
        let changed = self.state.lock().set_presence(user, news);
        if changed {
            self.announce();
        }
        changed
    }

    fn announce(&self) {
        let sequence = self.sequence();
        // Two at once may come in either order; the greater number stays.
        self.changes.send_if_modified(|last| {
            let newer = sequence > *last;
            *last = sequence.max(*last);
            newer
        });
    }

    pub fn presence(&self, user: UserNid) -> Option<Presence> {
        self.state.lock().presence.get(&user).cloned()
    }

    /// Users who are shown as present, but gave no sign of life after `deadline_ms`.
    pub fn silent_since(&self, deadline_ms: u64) -> Vec<UserNid> {
        let state = self.state.lock();
        let silent = |p: &Presence| p.state != PresenceState::Offline && p.alive_ms < deadline_ms;
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
            self.note_typing(room);
        }
        changed
    }

    fn expire_typing(&mut self, now_ms: u64) -> Vec<RoomNid> {
        let mut changed = Vec::new();
        for (room, typing) in &mut self.typing {
            let before = typing.users.len();
            typing.users.retain(|_, expires_ms| *expires_ms > now_ms);
            if typing.users.len() != before {
                changed.push(*room);
            }
        }
        changed.sort_unstable();
        changed.iter().for_each(|room| self.note_typing(*room));
        changed
    }

    fn note_typing(&mut self, room: RoomNid) {
        self.sequence += 1;
        let typing = self.typing.entry(room).or_default();
        self.typing_changes.remove(&typing.changed);
        typing.changed = self.sequence;
        self.typing_changes.insert(self.sequence, room);
    }

    fn set_presence(&mut self, user: UserNid, news: Presence) -> bool {
        if let Some(held) = self.presence.get_mut(&user) {
            if held.state == news.state && held.status_msg == news.status_msg {
                (held.last_active_ms, held.alive_ms) = (news.last_active_ms, news.alive_ms);
                return false;
            }
            self.presence_changes.remove(&held.changed);
        }
        self.sequence += 1;
        let changed = self.sequence;
        self.presence_changes.insert(changed, user);
        self.presence.insert(user, Presence { changed, ..news });
        true
    }
}
