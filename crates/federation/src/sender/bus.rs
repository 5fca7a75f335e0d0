//! The bus for typing and presence (seed 001): a transaction departs with what holds now, every three seconds where that
//! has changed, or at once when something urgent goes, and then typing rides along.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::future::select;
use myelin_core::{RoomNid, UserNid};
use myelin_store::tables::Membership;
use myelin_view::{Error, RoomSnapshot};
use ruma::{OwnedServerName, ServerName, presence::PresenceState};
use serde_json::{Value, json};

use super::{
    Sender,
    transaction::{self, Told},
};

const SCHEDULE: Duration = Duration::from_secs(3);
/// Without changes the bus looks this often whether somebody has to be told again.
const QUIET_SCHEDULE: Duration = Duration::from_secs(60);
/// Who goes on typing is said to, this often: other servers let it expire after half a minute and more.
const TYPING_REPEAT_MS: u64 = 25_000;
/// The same for who is there: other servers let it expire after half an hour.
const PRESENCE_REPEAT_MS: u64 = 20 * 60_000;

impl Sender {
    /// Runs for ever.
    pub(super) async fn run_bus(self: Arc<Self>) {
        let clock = self.view.env.clock.clone();
        loop {
            let (seen, typing) = {
                let state = self.state.lock();
                (state.board_sequence, !state.board.is_empty())
            };
            if !typing {
                let changed = Box::pin(self.view.ephemeral.changed_past(seen));
                select(changed, clock.sleep(QUIET_SCHEDULE)).await;
            }
            clock.sleep(SCHEDULE).await;
            if let Err(error) = self.tick().await {
                tracing::warn!(%error, "typing and presence could not be read for other servers");
            }
        }
    }

    async fn tick(self: &Arc<Self>) -> Result<(), Error> {
        let since = self.state.lock().board_sequence;
        let until = self.view.ephemeral.sequence();
        for room in self.view.ephemeral.typing_rooms_since(since) {
            if let Some(room) = self.view.rooms.load(room).await? {
                self.post(&room);
            }
        }
        self.repeat_typing().await?;
        if self.presence.outgoing {
            self.post_presence(since).await?;
        }
        self.state.lock().board_sequence = until;
        self.start_ready();
        Ok(())
    }

    /// Brings the board up to date with a room, and the queues of its servers if that changes anything.
    fn post(&self, room: &RoomSnapshot) {
        let typing = self.local_typists(room);
        let state = &mut *self.state.lock();
        let same = match state.board.get(&room.nid()) {
            Some(posted) => *posted == typing,
            None => typing.is_empty(),
        };
        match typing.is_empty() {
            true => drop(state.board.remove(&room.nid())),
            false => drop(state.board.insert(room.nid(), typing.clone())),
        }
        // Who typed between two departures of the bus was never on the board, but may have hitched a ride.
        self.mark(state, room, |queue| !same || queue.may_have_heard_otherwise(room.nid(), &typing));
    }

    fn mark(
        &self,
        state: &mut super::State,
        room: &RoomSnapshot,
        wanted: impl Fn(&super::queue::Destination) -> bool,
    ) {
        let now_ms = self.view.env.now_ms();
        for server in room.servers.keys().filter(|server| **server != *self.view.server_name) {
            let mut marked = false;
            self.with_destination(state, server, |queue| {
                marked = wanted(queue);
                if marked {
                    queue.typing_rooms.insert(room.nid());
                }
            });
            if marked {
                state.make_ready(server, now_ms);
            }
        }
    }

    async fn repeat_typing(&self) -> Result<(), Error> {
        let posted: BTreeSet<_> = self.state.lock().board.keys().copied().collect();
        for nid in posted {
            let Some(room) = self.view.rooms.load(nid).await? else { continue };
            // Whoever left the room meanwhile is not shown as typing any more.
            self.post(&room);
            let long_ago = self.view.env.now_ms().saturating_sub(TYPING_REPEAT_MS);
            let state = &mut *self.state.lock();
            let Some(typing) = state.board.get(&nid).cloned() else { continue };
            self.mark(state, &room, |queue| {
                typing.iter().any(|user| queue.told.get(&(nid, *user)).is_none_or(|at| *at <= long_ago))
            });
        }
        Ok(())
    }

    fn local_typists(&self, room: &RoomSnapshot) -> BTreeSet<UserNid> {
        let typing = self.view.ephemeral.typing_since(room.nid(), 0).unwrap_or_default();
        typing.into_iter().filter(|user| room.local_joined.contains(user)).collect()
    }

    /// What a departing transaction says about typing: rooms marked by the bus, and what has changed since it last
    /// looked.
    pub(super) async fn typing_edus(
        &self,
        server: &ServerName,
        marked: &BTreeSet<RoomNid>,
        places: usize,
        edus: &mut Vec<String>,
    ) -> Result<Vec<Told>, Error> {
        let since = self.state.lock().board_sequence;
        let mut rooms = marked.clone();
        rooms.extend(self.view.ephemeral.typing_rooms_since(since));
        let mut said = Vec::new();
        for nid in rooms {
            let Some(room) = self.view.rooms.load(nid).await? else { continue };
            if !room.has_server(server) {
                continue;
            }
            for told in self.typing_news(server, &room) {
                if said.len() >= places {
                    self.with_destination(&mut self.state.lock(), server, |queue| {
                        queue.typing_rooms.insert(nid);
                    });
                    break;
                }
                let user_id = self.view.interner.user_id(told.user).await?;
                let edu = transaction::typing(room.info.room_id.as_str(), user_id.as_str(), told.typing);
                if let Some(edu) = edu {
                    edus.push(edu);
                    said.push(told);
                }
            }
        }
        Ok(said)
    }

    /// What differs from what the server was told.
    fn typing_news(&self, server: &ServerName, room: &RoomSnapshot) -> Vec<Told> {
        let typing = self.local_typists(room);
        let long_ago = self.view.env.now_ms().saturating_sub(TYPING_REPEAT_MS);
        let state = self.state.lock();
        let Some(queue) = state.destinations.get(server) else { return Vec::new() };
        let nid = room.nid();
        let stopped = queue.told_in(nid).filter(|user| !typing.contains(user));
        let stopped = stopped.map(|user| Told { room: nid, user, typing: false });
        let started =
            typing.iter().filter(|user| queue.told.get(&(nid, **user)).is_none_or(|at| *at <= long_ago));
        let started = started.map(|user| Told { room: nid, user: *user, typing: true });
        stopped.chain(started).collect()
    }

    /// Local users whose presence changed, or was said long ago, for the servers that share a room with them.
    async fn post_presence(&self, since: u64) -> Result<(), Error> {
        let now_ms = self.view.env.now_ms();
        let changed = self.view.ephemeral.presence_since(since);
        let mut users: BTreeSet<_> = changed.into_iter().map(|(user, _)| user).collect();
        let long_ago = now_ms.saturating_sub(PRESENCE_REPEAT_MS);
        let repeated: Vec<_> = {
            let state = self.state.lock();
            let old = state.presence_told.iter().filter(|(_, at)| **at <= long_ago);
            old.map(|(user, _)| *user).collect()
        };
        users.extend(repeated);
        for user in users {
            if !self.view.interner.is_local(user).await? {
                continue;
            }
            let servers = self.servers_of(user).await?;
            let there = self.view.ephemeral.presence(user).is_some_and(|p| p.state != PresenceState::Offline);
            let state = &mut *self.state.lock();
            match there {
                true => drop(state.presence_told.insert(user, now_ms)),
                false => drop(state.presence_told.remove(&user)),
            }
            for server in &servers {
                self.with_destination(state, server, |queue| {
                    queue.presence.insert(user);
                });
                state.make_ready(server, now_ms);
            }
        }
        Ok(())
    }

    async fn servers_of(&self, user: UserNid) -> Result<BTreeSet<OwnedServerName>, Error> {
        let mut servers = BTreeSet::new();
        for (room, held) in &*self.view.user_rooms.load(user).await? {
            if held.membership == Membership::Join
                && let Some(room) = self.view.rooms.load(*room).await?
            {
                servers.extend(room.servers.keys().filter(|s| **s != *self.view.server_name).cloned());
            }
        }
        Ok(servers)
    }

    /// One EDU for all users; returns those who are in it.
    pub(super) async fn presence_edu(
        &self,
        users: &[UserNid],
        edus: &mut Vec<String>,
    ) -> Result<Vec<UserNid>, Error> {
        let now_ms = self.view.env.now_ms();
        let (mut push, mut said) = (Vec::new(), Vec::new());
        for user in users {
            let Some(presence) = self.view.ephemeral.presence(*user) else { continue };
            let user_id = self.view.interner.user_id(*user).await?;
            let content = myelin_sync::v2::presence_content(&presence, now_ms);
            let Ok(mut update) = serde_json::from_str::<Value>(&content) else { continue };
            update["user_id"] = user_id.to_string().into();
            push.push(update);
            said.push(*user);
        }
        if !push.is_empty() {
            edus.extend(transaction::edu("m.presence", &json!({ "push": push }).to_string()));
        }
        Ok(said)
    }
}
