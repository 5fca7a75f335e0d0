//! What is to be told of each room of a window, by what the connection has been told before.

use std::sync::Arc;

use myelin_core::{Position, RoomNid};
use myelin_store::tables::Membership;
use myelin_view::RoomInfo;

use super::{
    connection::{Connection, Held, SentRoom},
    request::{PerRoom, RoomConfig},
    window::{Interest, Window},
};
use crate::{Error, Sync, v2::Changes};

/// A room that there may be something to tell of.
pub(super) struct Task {
    pub room: RoomNid,
    pub info: Arc<RoomInfo>,
    pub interest: Interest,
    /// As what the room was sent before; `None`: never.
    pub before: Option<Arc<RoomConfig>>,
    /// Up to where the client has been told; `None`: nothing yet.
    pub since: Option<Position>,
    /// The client was not told of everything in between while it looked at other rooms.
    pub was_out_of_sight: bool,
}

impl Task {
    /// The client asks for more of the timeline than before.
    pub fn expands_timeline(&self) -> bool {
        let limit = self.interest.config.timeline_limit;
        self.before.as_ref().is_some_and(|before| before.timeline_limit < limit)
    }

    /// Since when an extension is to tell of the room; `None`: from the start.
    pub fn since_of(&self, extension: PerRoom) -> Option<Position> {
        let told = self.before.as_ref().is_some_and(|before| before.extensions.has(extension));
        self.since.filter(|_| told)
    }

    pub fn is_joined(&self) -> bool {
        self.interest.held.membership == Membership::Join
    }
}

impl Sync {
    /// Rooms of the window in which something may be new. The others cost nothing.
    pub(super) async fn tasks(
        &self,
        window: &Window,
        held: &Held,
        changes: &Changes,
    ) -> Result<Vec<Task>, Error> {
        let moved = |room: &RoomNid| changes.changed.contains(room) || changes.memberships.contains_key(room);
        let mut tasks = Vec::new();
        for (room, interest) in &window.rooms {
            let sent = held.connection.rooms.get(room);
            let was_out_of_sight = sent.is_some_and(|sent| sent.until.is_some());
            let same = sent.is_some_and(|sent| sent.config.stands_for(&interest.config));
            if same && !was_out_of_sight && !moved(room) {
                continue;
            }
            let Some(info) = self.view.interner.room_info(*room).await? else { continue };
            let before = sent.map(|sent| sent.config.clone());
            let since = held.told_until(*room);
            let interest = interest.clone();
            tasks.push(Task { room: *room, info, interest, before, since, was_out_of_sight });
        }
        Ok(tasks)
    }
}

/// What the connection will have been told, and whether that differs from what it had.
pub(super) struct Next {
    pub connection: Connection,
    pub differs: bool,
}

impl Next {
    pub fn after(held: &Held) -> Self {
        Self { connection: (*held.connection).clone(), differs: false }
    }

    /// The room was told of up to now. A timeline that was cut short leaves the client with no more than the new limit; one
    /// that was not leaves it with what it had.
    pub fn told(&mut self, task: &Task, limited: bool) {
        let wanted = &task.interest.config;
        let kept = task.before.as_ref().filter(|before| before.stands_for(wanted) && !limited);
        let config = kept.unwrap_or(wanted).clone();
        let same = task.before.as_ref() == Some(&config) && !task.was_out_of_sight;
        if !same {
            self.differs = true;
            self.connection.rooms.insert(task.room, SentRoom { config, until: None });
        }
    }

    /// Something happened in a room that the client knows and does not look at now.
    pub fn missed(&mut self, window: &Window, changes: &Changes, position: Position) {
        for room in changes.changed.iter().chain(changes.memberships.keys()) {
            if window.rooms.contains_key(room) {
                continue;
            }
            if let Some(sent) = self.connection.rooms.get(room).filter(|sent| sent.until.is_none()) {
                let sent = SentRoom { config: sent.config.clone(), until: Some(position) };
                self.connection.rooms.insert(*room, sent);
                self.differs = true;
            }
        }
    }

    /// What the user is out of for good needs no memory.
    pub fn forget(&mut self, still_held: impl Fn(&RoomNid) -> bool) {
        if self.differs {
            let gone: Vec<_> =
                self.connection.rooms.keys().filter(|room| !still_held(room)).copied().collect();
            gone.iter().for_each(|room| drop(self.connection.rooms.remove(room)));
        }
    }
}
