//! What changed for a user in `(since, now]`.

use std::collections::{BTreeMap, BTreeSet};

use imbl::OrdMap;
use myelin_core::{EventNid, Position, RoomNid, TimelineOrder, UserNid};
use myelin_store::{
    Direction,
    tables::{CURRENT_STATES, Membership, RECEIPTS_BY_POSITION, TIMELINE, USER_STREAM, UserChange},
};
use myelin_view::{Recent, UserRoom};
use std::sync::Arc;

use super::Context;
use crate::{Error, Sync};

/// Own changes read for one answer.
const OWN_CHANGES_MAX: usize = 1_000_000;
/// Log entries worth looking through before asking each of the user's rooms becomes cheaper.
const LOG_ENTRIES_PER_ROOM: u64 = 4;
const LOG_ENTRIES_MIN: u64 = 64;

pub(crate) struct Changes {
    /// All rooms of the user as of `now`.
    pub rooms: Arc<OrdMap<RoomNid, UserRoom>>,
    /// Joined rooms whose timeline, receipts, typing or account data may have changed.
    pub changed: BTreeSet<RoomNid>,
    /// The user's own memberships in the interval, oldest first.
    pub memberships: BTreeMap<RoomNid, Vec<(Membership, EventNid)>>,
    /// Rooms among them where a receipt was set; `None`: not known, so look.
    receipts: Option<BTreeSet<RoomNid>>,
    /// Types of account data written in the interval, by room.
    pub account_data: BTreeMap<RoomNid, BTreeSet<String>>,
    /// Rooms whose state may have changed; `None`: not known, so look.
    state: Option<BTreeSet<RoomNid>>,
    /// Rooms among them whose state may have changed beside what their events say; `None`: not known, so look.
    moved: Option<BTreeSet<RoomNid>>,
    /// Whose devices or keys changed; `None`: not known, so look.
    pub device_lists: Option<BTreeSet<UserNid>>,
    /// Whose keys the user signed.
    pub signed: BTreeSet<UserNid>,
    /// Rooms of which all members became known.
    pub completed: BTreeSet<RoomNid>,
}

impl Changes {
    pub async fn find(sync: &Sync, context: &mut Context<'_>) -> Result<Self, Error> {
        let mut changes = Self::later(sync, context).await?;
        if context.since.is_none() {
            changes.add_all_joined();
        }
        if context.request.full_state {
            changes.add_all_joined();
        }
        Ok(changes)
    }

    /// What changed since the token; nothing if there is none.
    pub async fn later(sync: &Sync, context: &mut Context<'_>) -> Result<Self, Error> {
        let rooms = rooms_as_of(sync, context, context.request.requester.user).await?;
        let mut changes = Self {
            rooms,
            changed: BTreeSet::new(),
            memberships: BTreeMap::new(),
            receipts: None,
            account_data: BTreeMap::new(),
            state: None,
            moved: None,
            device_lists: None,
            signed: BTreeSet::new(),
            completed: BTreeSet::new(),
        };
        if let Some(since) = context.since {
            changes.add_since(sync, context, since).await?;
        }
        Ok(changes)
    }

    pub fn may_have_receipts(&self, room: RoomNid) -> bool {
        self.receipts.as_ref().is_none_or(|rooms| rooms.contains(&room))
    }

    pub fn state_may_have_changed(&self, room: RoomNid) -> bool {
        self.state.as_ref().is_none_or(|rooms| rooms.contains(&room))
    }

    pub fn state_may_have_moved(&self, room: RoomNid) -> bool {
        self.moved.as_ref().is_none_or(|rooms| rooms.contains(&room))
    }

    fn add_all_joined(&mut self) {
        let joined = self.rooms.iter().filter(|(_, room)| room.membership == Membership::Join);
        self.changed.extend(joined.map(|(nid, _)| *nid));
    }

    async fn add_since(&mut self, sync: &Sync, context: &Context<'_>, since: Position) -> Result<(), Error> {
        let feed = &sync.view.feed;
        let user = context.request.requester.user;
        let near = feed.distance(since) <= LOG_ENTRIES_PER_ROOM * self.rooms.len() as u64 + LOG_ENTRIES_MIN;
        let recent = if near { feed.recent(since, context.now) } else { None };
        let mut own = true;
        match recent {
            Some(entries) => {
                own = entries.iter().any(|entry| entry.user == Some(user));
                self.device_lists = Some(entries.iter().filter_map(|entry| entry.device_list).collect());
                let state = entries.iter().filter(|entry| entry.state);
                self.state = Some(state.clone().map(|entry| entry.room).collect());
                let moved = state.filter(|entry| entry.event.is_none());
                self.moved = Some(moved.map(|entry| entry.room).collect());
                let entries = entries.iter().filter(|entry| self.rooms.contains_key(&entry.room));
                let (events, others): (Vec<_>, Vec<_>) = entries.partition(|entry| entry.event.is_some());
                let receipts: BTreeSet<_> = others.iter().map(|entry: &&Recent| entry.room).collect();
                self.changed.extend(events.iter().map(|entry: &&Recent| entry.room));
                self.changed.extend(&receipts);
                self.receipts = Some(receipts);
            }
            None => self.ask_each_room(sync, since).await?,
        }
        if own {
            self.add_own(sync, user, since, context.now).await?;
        }
        let typing = sync.view.ephemeral.typing_rooms_since(context.since_ephemeral);
        self.changed.extend(typing);
        if sync.view.ephemeral.has_forgotten(context.since_ephemeral) {
            self.add_all_joined();
        }
        let rooms = self.rooms.clone();
        self.changed.retain(|nid| rooms.get(nid).is_some_and(|room| room.membership == Membership::Join));
        Ok(())
    }

    /// After a long time away: O(rooms of the user), no matter how much happened elsewhere.
    async fn ask_each_room(&mut self, sync: &Sync, since: Position) -> Result<(), Error> {
        let before_start = since < sync.view.feed.start();
        for room in self.rooms.keys() {
            let changed = match sync.view.feed.last_change(*room) {
                Some(last) => last > since,
                None => before_start && stored_change_after(sync, *room, since).await?,
            };
            if changed {
                self.changed.insert(*room);
            }
        }
        Ok(())
    }

    async fn add_own(
        &mut self,
        sync: &Sync,
        user: UserNid,
        since: Position,
        now: Position,
    ) -> Result<(), Error> {
        let (from, to) = ((user, since.next()), (user, now.next()));
        let store = &sync.view.store;
        let rows = store.range(&USER_STREAM, &from, &to, Direction::Forward, OWN_CHANGES_MAX).await?;
        for (_, change) in rows {
            match change {
                UserChange::Membership { room, membership, event } => {
                    self.memberships.entry(room).or_default().push((membership, event));
                    self.changed.insert(room);
                }
                UserChange::AccountData { room, kind } => {
                    self.account_data.entry(room).or_default().insert(kind);
                    self.changed.insert(room);
                }
                UserChange::Signed { user } => drop(self.signed.insert(user)),
                UserChange::Completed { room } => {
                    self.completed.insert(room);
                    self.changed.insert(room);
                }
            }
        }
        Ok(())
    }
}

/// The user's rooms, not newer than `now`: if a membership was committed meanwhile, `now` moves on to it.
async fn rooms_as_of(
    sync: &Sync,
    context: &mut Context<'_>,
    user: UserNid,
) -> Result<Arc<OrdMap<RoomNid, UserRoom>>, Error> {
    loop {
        let rooms = sync.view.user_rooms.load(user).await?;
        if rooms.values().all(|room| room.position <= context.now) {
            return Ok(rooms);
        }
        context.now = sync.view.feed.caught_up().await;
    }
}

async fn stored_change_after(sync: &Sync, room: RoomNid, since: Position) -> Result<bool, Error> {
    let store = &sync.view.store;
    let (from, to) = ((room, TimelineOrder::from(since.next())), (room, TimelineOrder::MAX));
    if !store.range(&TIMELINE, &from, &to, Direction::Forward, 1).await?.is_empty()
        || !store.range(&CURRENT_STATES, &from, &to, Direction::Forward, 1).await?.is_empty()
    {
        return Ok(true);
    }
    let (from, to) = ((room, since.next()), (room, Position(u64::MAX)));
    Ok(!store.range(&RECEIPTS_BY_POSITION, &from, &to, Direction::Forward, 1).await?.is_empty())
}
