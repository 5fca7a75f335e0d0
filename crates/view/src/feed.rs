//! The log as it arrives: one task per process tails it, drops what became stale, and wakes who waits.
//!
//! Invariant: an entry is *published* only after its commit is durable and after every cache that it makes stale has
//! been told; readers take [`Feed::caught_up`] as their "now".

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use myelin_core::{EventNid, Position, RoomNid, TimelineOrder, UserNid};
use myelin_store::{Direction, Store, log::LogEntry, tables::LOG};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::{
    Error, RoomViews, Staging, UserRooms,
    waiters::{Waiter, Waiters},
};

/// Entries kept in memory; a reader that is further behind looks at [`Feed::last_change`] or at the tables.
const RECENT_MAX: usize = 32_768;
/// Entries looked through for the events of one room.
const SEARCHED_MAX: usize = 512;
/// Log rows read at a time.
const PAGE: usize = 1024;

/// A log entry reduced to whom it concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recent {
    pub position: Position,
    /// The room whose timeline or receipts changed; `RoomNid::GLOBAL` if none did.
    pub room: RoomNid,
    /// The user who has a new row in `user_stream` (own membership, account data).
    pub user: Option<UserNid>,
    /// The event appended to the timeline of the room; `None` for everything else.
    pub event: Option<EventNid>,
    /// The state of the room may have changed with it.
    pub state: bool,
    /// Whose devices or keys changed.
    pub device_list: Option<UserNid>,
}

pub struct Feed {
    store: Store,
    rooms: Arc<RoomViews>,
    staging: Arc<Staging>,
    user_rooms: Arc<UserRooms>,
    waiters: Arc<Waiters>,
    recent: RwLock<RecentEntries>,
    published: watch::Sender<Position>,
    listeners: RwLock<Vec<Listener>>,
}

type Listener = Box<dyn Fn(Position, &LogEntry) + Send + Sync>;

struct RecentEntries {
    /// Everything in `(floor, published]` is in `entries`.
    floor: Position,
    entries: VecDeque<Recent>,
    /// Since the process started.
    last_change: HashMap<RoomNid, Position>,
    /// Before which position something was filled in that is not among the entries.
    filled_in: HashMap<RoomNid, Position>,
    /// Where the process started.
    start: Position,
}

impl Feed {
    pub(crate) fn new(
        store: Store,
        rooms: Arc<RoomViews>,
        staging: Arc<Staging>,
        user_rooms: Arc<UserRooms>,
    ) -> Self {
        let start = store.position();
        let (entries, last_change, filled_in) = Default::default();
        let recent = RecentEntries { floor: start, entries, last_change, filled_in, start };
        Self {
            store,
            rooms,
            staging,
            user_rooms,
            waiters: Arc::default(),
            recent: RwLock::new(recent),
            published: watch::Sender::new(start),
            listeners: RwLock::default(),
        }
    }

    /// Follows the log for ever. Spawn it once per process. A failing store is retried after `pause`.
    pub async fn run(self: Arc<Self>, clock: Arc<dyn myelin_core::Clock>) {
        const PAUSE: std::time::Duration = std::time::Duration::from_millis(200);
        loop {
            self.store.wait_past(self.published()).await;
            if let Err(error) = self.follow().await {
                tracing::error!(%error, "the log cannot be read; trying again");
                clock.sleep(PAUSE).await;
            }
        }
    }

    /// Called for every entry, in order, before it is published; for caches outside this crate. Must be quick.
    pub fn listen(&self, listener: impl Fn(Position, &LogEntry) + Send + Sync + 'static) {
        self.listeners.write().push(Box::new(listener));
    }

    /// The last position that this process has taken in.
    pub fn published(&self) -> Position {
        *self.published.borrow()
    }

    /// "Now" for a reader: completes once everything that was durable at the call has been taken in.
    pub async fn caught_up(&self) -> Position {
        let target = self.store.position();
        if self.published() < target {
            let mut published = self.published.subscribe();
            // The sender lives as long as self.
            published.wait_for(|p| *p >= target).await.ok();
        }
        self.published()
    }

    /// Completes once something after `seen` has been taken in.
    pub async fn moved_past(&self, seen: Position) {
        // The sender lives as long as self.
        self.published.subscribe().wait_for(|p| *p > seen).await.ok();
    }

    /// What happened in `(since, until]`, oldest first; `None` if that reaches back further than memory does.
    pub fn recent(&self, since: Position, until: Position) -> Option<Vec<Recent>> {
        let recent = self.recent.read();
        if since < recent.floor {
            return None;
        }
        let start = recent.entries.partition_point(|e| e.position <= since);
        Some(recent.entries.range(start..).take_while(|e| e.position <= until).copied().collect())
    }

    /// The events appended to a room in `(since, until]`, oldest first; `None` if `since` is so far back that the
    /// timeline table tells it cheaper.
    pub fn recent_events(
        &self,
        room: RoomNid,
        since: Position,
        until: Position,
    ) -> Option<Vec<(Position, EventNid)>> {
        let recent = self.recent.read();
        let start = recent.entries.partition_point(|e| e.position <= since);
        let filled_in = recent.filled_in.get(&room).is_some_and(|before| since < *before);
        if filled_in || since < recent.floor || recent.entries.len() - start > SEARCHED_MAX {
            return None;
        }
        let entries = recent.entries.range(start..).take_while(|e| e.position <= until);
        let of_room = entries.filter(|e| e.room == room);
        Some(of_room.filter_map(|e| Some((e.position, e.event?))).collect())
    }

    /// How many entries lie in `(since, published]`: to choose between [`Feed::recent`] and asking room by room.
    pub fn distance(&self, since: Position) -> u64 {
        self.published().0.saturating_sub(since.0)
    }

    /// When the timeline or receipts of a room last changed, if that was since [`Feed::start`].
    pub fn last_change(&self, room: RoomNid) -> Option<Position> {
        self.recent.read().last_change.get(&room).copied()
    }

    /// The position at which this process started to follow.
    pub fn start(&self) -> Position {
        self.recent.read().start
    }

    pub fn register(&self, user: UserNid) -> Waiter {
        self.waiters.register(user)
    }

    pub fn waiting(&self) -> usize {
        self.waiters.count()
    }

    /// Something ephemeral (typing, presence) changed for this user.
    pub fn wake_user(&self, user: UserNid) {
        self.waiters.wake(user);
    }

    /// Something ephemeral changed for the joined members of this room.
    pub fn wake_room(&self, room: RoomNid) {
        if let Some(snapshot) = self.rooms.cached(room) {
            self.waiters.wake_members(&snapshot.local_joined);
        }
    }

    /// The process shuts down: every long poll answers now.
    pub fn wake_everybody(&self) {
        self.waiters.wake_everybody();
    }

    async fn follow(&self) -> Result<(), Error> {
        loop {
            let from = self.published();
            let until = self.store.position();
            let rows = self.store.range(&LOG, &from.next(), &until.next(), Direction::Forward, PAGE).await?;
            let Some(last) = rows.last().map(|(position, _)| *position) else { return Ok(()) };
            if rows.first().is_some_and(|(first, _)| *first != from.next()) {
                let slept = "this process slept for longer than the log is kept: start it again";
                return Err(Error::Damaged(slept.to_owned()));
            }
            for (position, entry) in &rows {
                self.take_in(*position, entry);
            }
            self.published.send_replace(last);
            for (_, entry) in &rows {
                if let Err(error) = self.wake(entry).await {
                    // The rows are not looked at again, and whom the others concern is not known: everybody looks.
                    self.waiters.wake_everybody();
                    return Err(error);
                }
            }
        }
    }

    fn take_in(&self, position: Position, entry: &LogEntry) {
        let appended = match entry {
            LogEntry::Event { event, .. } => Some(*event),
            _ => None,
        };
        let (room, user) = match entry {
            LogEntry::Event { room, event, member, head, .. } => {
                self.staging.land(*event, position);
                // What this process commits is in place now; an older snapshot means that another one wrote the room.
                self.rooms.forget_older_than(*room, *head);
                (*room, *member)
            }
            LogEntry::Completed { room } => {
                self.rooms.forget(*room);
                (*room, None)
            }
            LogEntry::Receipt { room, .. } => (*room, None),
            LogEntry::Resolved { room, user } => (*room, *user),
            LogEntry::AccountData { user, .. }
            | LogEntry::Forgotten { user, .. }
            | LogEntry::Outside { user, .. }
            | LogEntry::Signed { user }
            | LogEntry::ThreadSubscription { user } => (RoomNid::GLOBAL, Some(*user)),
            LogEntry::Profile { .. }
            | LogEntry::Account { .. }
            | LogEntry::Directory { .. }
            | LogEntry::ToDevice { .. }
            | LogEntry::DeviceList { .. }
            | LogEntry::Outbox { .. }
            | LogEntry::KeyStock { .. }
            | LogEntry::Sticky { .. }
            | LogEntry::Purged { .. }
            | LogEntry::History { .. } => (RoomNid::GLOBAL, None),
        };
        let state = match entry {
            LogEntry::Event { state_key, .. } => state_key.is_some(),
            LogEntry::Completed { .. } | LogEntry::Resolved { .. } => true,
            _ => false,
        };
        let device_list = match entry {
            LogEntry::DeviceList { user } => Some(*user),
            _ => None,
        };
        if let LogEntry::Event { member: Some(user), .. }
        | LogEntry::Forgotten { user, .. }
        | LogEntry::Outside { user, .. }
        | LogEntry::Resolved { user: Some(user), .. } = entry
        {
            self.user_rooms.forget(*user);
        }
        for listener in &*self.listeners.read() {
            listener(position, entry);
        }
        let mut recent = self.recent.write();
        if let LogEntry::History { room, to, .. } = entry {
            recent.fill_in(*room, *to);
        }
        recent.push(Recent { position, room, user, event: appended, state, device_list });
    }

    async fn wake(&self, entry: &LogEntry) -> Result<(), Error> {
        match entry {
            LogEntry::Event { room, member, .. } => {
                if let Some(snapshot) = self.rooms.load(*room).await? {
                    self.waiters.wake_members(&snapshot.local_joined);
                }
                if let Some(user) = member {
                    self.waiters.wake(*user);
                }
            }
            // A private receipt wakes others for nothing: rare, and they go back to sleep.
            LogEntry::Receipt { room, .. } | LogEntry::Completed { room } => self.wake_room(*room),
            LogEntry::Resolved { room, user } => {
                self.wake_room(*room);
                user.iter().for_each(|user| self.waiters.wake(*user));
            }
            LogEntry::AccountData { user, .. }
            | LogEntry::Forgotten { user, .. }
            | LogEntry::Outside { user, .. }
            | LogEntry::Account { user }
            | LogEntry::ToDevice { user }
            | LogEntry::Signed { user }
            | LogEntry::ThreadSubscription { user }
            | LogEntry::Profile { user } => self.waiters.wake(*user),
            LogEntry::DeviceList { user } => self.wake_room_mates(*user),
            // Claims are told with whatever else there is to tell.
            LogEntry::Directory { .. }
            | LogEntry::Outbox { .. }
            | LogEntry::KeyStock { .. }
            | LogEntry::Sticky { .. }
            | LogEntry::Purged { .. }
            | LogEntry::History { .. } => {}
        }
        Ok(())
    }

    /// Everybody who shares a room with the user. Rooms that are not hot have nobody who does anything in them: who waits
    /// in no other is told with the next thing that happens.
    fn wake_room_mates(&self, user: UserNid) {
        self.waiters.wake(user);
        if self.waiters.count() > 0 {
            for room in self.rooms.cached_with(user) {
                self.waiters.wake_members(&room.local_joined);
            }
        }
    }
}

impl RecentEntries {
    /// Before all that was held nobody looks here.
    fn fill_in(&mut self, room: RoomNid, to: TimelineOrder) {
        let Some(before) = to.live_from().position().filter(|before| *before > self.floor) else { return };
        let floor = self.floor;
        self.filled_in.retain(|_, before| *before > floor);
        let held = self.filled_in.entry(room).or_default();
        *held = before.max(*held);
    }

    fn push(&mut self, entry: Recent) {
        if entry.room != RoomNid::GLOBAL {
            self.last_change.insert(entry.room, entry.position);
        }
        self.entries.push_back(entry);
        if self.entries.len() > RECENT_MAX
            && let Some(dropped) = self.entries.pop_front()
        {
            self.floor = dropped.position;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use myelin_store::{
        Batch,
        tables::{ROOMS, RoomRecord},
    };
    use myelin_testenv::Sim;

    use super::*;
    use crate::View;

    #[test]
    fn an_entry_that_cannot_be_told_apart_loses_nobody_their_wake_up() {
        let sim = Sim::new(1);
        let store = Store::new(Arc::new(myelin_store::memory::Memory::open(Default::default())));
        let view = View::new(store, sim.env(), ruma::owned_server_name!("example.org"));
        let (room, waiting) = (RoomNid(7), UserNid(3));
        let damaged = RoomRecord {
            room_id: "not a room id".to_owned(),
            room_version: "11".to_owned(),
            room_type: None,
            create_event: EventNid(1),
        };
        let mut batch = Batch::new();
        batch.put(&ROOMS, &room, &damaged);
        let event = EventNid(1);
        batch.log(&LogEntry::Event {
            room,
            event,
            sender: UserNid(4),
            state_key: None,
            member: None,
            head: 1,
            relay: true,
            targeted: Vec::new(),
        });
        batch.log(&LogEntry::Profile { user: waiting });
        let waiter = view.feed.register(waiting);
        sim.block_on(view.store.commit(batch)).expect("committed");

        assert!(sim.block_on(view.feed.follow()).is_err());
        assert_eq!(view.feed.published(), view.store.position());
        assert!(waiter.wait().now_or_never().is_some());
    }
}
