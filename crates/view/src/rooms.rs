//! Hot rooms: one immutable snapshot each, replaced as a whole by the writer.

use std::{collections::HashMap, sync::Arc};

use myelin_core::{RoomNid, UserNid};
use myelin_dag::state_tree::NodeHash;
use myelin_store::{
    Direction, Store,
    tables::{GAPS, MEMBERS, PARTIAL_ROOMS, QUIET_SPANS, ROOM_HEADS, RoomHead},
};
use parking_lot::Mutex;
use quick_cache::{Weighter, sync::Cache};

use crate::{Error, Interner, RoomInfo, RoomSnapshot, States};

/// Sum of member counts of the rooms kept, plus a constant each.
const CACHE_WEIGHT: u64 = 400_000;
const WEIGHT_OF_A_ROOM: u64 = 20;
const EXPECTED_ROOMS: usize = 5_000;
const MEMBERS_MAX: usize = 10_000_000;

#[derive(Clone)]
struct ByMembers;

impl Weighter<RoomNid, Arc<RoomSnapshot>> for ByMembers {
    fn weight(&self, _: &RoomNid, room: &Arc<RoomSnapshot>) -> u64 {
        room.members.len() as u64 + WEIGHT_OF_A_ROOM
    }
}

pub struct RoomViews {
    store: Store,
    interner: Arc<Interner>,
    states: Arc<States>,
    cache: Cache<RoomNid, Arc<RoomSnapshot>, ByMembers>,
    /// Rooms that are being read. Held while a snapshot is compared and replaced, never across an await.
    under_way: Mutex<HashMap<RoomNid, UnderWay>>,
}

/// Readings of one room that have begun and not ended.
#[derive(Default)]
struct UnderWay {
    readings: usize,
    /// How often the room was replaced or forgotten since the first of them began.
    changes: u64,
}

/// One reading. Invariant: what was read before a room was replaced or forgotten never takes its place afterwards.
struct Reading<'a> {
    rooms: &'a RoomViews,
    room: RoomNid,
    /// [`UnderWay::changes`] at the beginning.
    changes: u64,
}

impl RoomViews {
    pub fn new(store: Store, interner: Arc<Interner>, states: Arc<States>) -> Self {
        let cache = Cache::with_weighter(EXPECTED_ROOMS, CACHE_WEIGHT, ByMembers);
        Self { store, interner, states, cache, under_way: Mutex::default() }
    }

    /// The newest committed snapshot; `None` if there is no such room.
    pub async fn load(&self, room: RoomNid) -> Result<Option<Arc<RoomSnapshot>>, Error> {
        if let Some(snapshot) = self.cache.get(&room) {
            return Ok(Some(snapshot));
        }
        let reading = Reading::begin(self, room);
        let Some(info) = self.interner.room_info(room).await? else { return Ok(None) };
        let Some(snapshot) = self.read(info).await? else { return Ok(None) };
        reading.keep(&snapshot);
        Ok(Some(snapshot))
    }

    pub fn cached(&self, room: RoomNid) -> Option<Arc<RoomSnapshot>> {
        self.cache.get(&room)
    }

    /// The hot rooms that a user is joined to.
    pub fn cached_with(&self, user: UserNid) -> Vec<Arc<RoomSnapshot>> {
        self.cache.iter().map(|(_, room)| room).filter(|room| room.is_joined(user)).collect()
    }

    /// Makes a *committed* snapshot the one that readers get, unless they already get a newer one.
    pub fn publish(&self, snapshot: Arc<RoomSnapshot>) {
        let mut under_way = self.under_way.lock();
        note_change(&mut under_way, snapshot.nid());
        self.replace(snapshot);
    }

    /// Another process wrote the room, or a commit failed: load again on next use.
    pub fn forget(&self, room: RoomNid) {
        let mut under_way = self.under_way.lock();
        note_change(&mut under_way, room);
        self.cache.remove(&room);
    }

    /// A commit made `version` the newest head: an older snapshot is loaded again on next use.
    pub fn forget_older_than(&self, room: RoomNid, version: u64) {
        let older = |held: &Arc<RoomSnapshot>| held.head.version < version;
        let mut under_way = self.under_way.lock();
        note_change(&mut under_way, room);
        if self.cache.peek(&room).as_ref().is_some_and(older) {
            self.cache.remove(&room);
        }
    }

    /// Only while `under_way` is held.
    fn replace(&self, snapshot: Arc<RoomSnapshot>) {
        let newer = |held: Arc<RoomSnapshot>| held.head.version > snapshot.head.version;
        if !self.cache.peek(&snapshot.nid()).is_some_and(newer) {
            self.cache.insert(snapshot.nid(), snapshot);
        }
    }

    /// Reads head, state and members at one moment.
    async fn read(&self, info: Arc<RoomInfo>) -> Result<Option<Arc<RoomSnapshot>>, Error> {
        let snapshot = self.store.snapshot().await?;
        let Some(head) = snapshot.read().get(&ROOM_HEADS, &info.nid).await? else { return Ok(None) };
        let rows = snapshot.read().scan(&MEMBERS, &info.nid, Direction::Forward, MEMBERS_MAX).await?;
        let current_state = self.states.load(NodeHash(head.current_state)).await?;
        let mut room = empty(info, head, current_state);
        for ((_, user), row) in rows {
            let user_id = self.interner.user_id(user).await?;
            let local = user_id.server_name() == self.interner.server_name();
            room.set_member(user, user_id.server_name(), local, row.value.membership, row.value.event);
        }
        if let Some(partial) = snapshot.read().get(&PARTIAL_ROOMS, &room.nid()).await? {
            room.expect_servers(partial.servers());
            room.members_omitted = partial.members_omitted;
        }
        let gaps = snapshot.read().scan(&GAPS, &room.nid(), Direction::Reverse, 1).await?;
        room.gap = gaps.first().map(|(_, event)| *event);
        let spans = snapshot.read().scan(&QUIET_SPANS, &room.nid(), Direction::Forward, MEMBERS_MAX).await?;
        room.quiet = spans.into_iter().map(|((_, user, _), span)| (user, span.quiet)).collect();
        Ok(Some(Arc::new(room)))
    }
}

impl<'a> Reading<'a> {
    fn begin(rooms: &'a RoomViews, room: RoomNid) -> Self {
        let mut under_way = rooms.under_way.lock();
        let of_room = under_way.entry(room).or_default();
        of_room.readings += 1;
        Self { rooms, room, changes: of_room.changes }
    }

    /// Makes what was read the snapshot that readers get, unless the room has changed meanwhile.
    fn keep(&self, snapshot: &Arc<RoomSnapshot>) {
        let under_way = self.rooms.under_way.lock();
        if under_way.get(&self.room).is_some_and(|of_room| of_room.changes == self.changes) {
            self.rooms.replace(snapshot.clone());
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut under_way = self.rooms.under_way.lock();
        let Some(of_room) = under_way.get_mut(&self.room) else { return };
        of_room.readings -= 1;
        if of_room.readings == 0 {
            under_way.remove(&self.room);
        }
    }
}

fn note_change(under_way: &mut HashMap<RoomNid, UnderWay>, room: RoomNid) {
    if let Some(of_room) = under_way.get_mut(&room) {
        of_room.changes += 1;
    }
}

fn empty(
    info: Arc<RoomInfo>,
    head: RoomHead,
    current_state: myelin_dag::state_tree::StateTree,
) -> RoomSnapshot {
    RoomSnapshot { head, current_state, ..RoomSnapshot::new(info) }
}

#[cfg(test)]
mod tests {
    use myelin_core::EventNid;
    use myelin_store::{NidAllocator, memory::Memory};
    use ruma::RoomVersionId;

    use super::*;

    const ROOM: RoomNid = RoomNid(7);

    fn rooms() -> RoomViews {
        let store = Store::new(Arc::new(Memory::open(Default::default())));
        let nids = Arc::new(NidAllocator::new(store.clone()));
        let interner = Interner::new(store.clone(), nids, ruma::owned_server_name!("example.org"));
        RoomViews::new(store.clone(), Arc::new(interner), Arc::new(States::new(store)))
    }

    fn snapshot(version: u64) -> Arc<RoomSnapshot> {
        let info = RoomInfo {
            nid: ROOM,
            room_id: ruma::owned_room_id!("!room:example.org"),
            version: RoomVersionId::V11,
            rules: myelin_dag::room_version::rules(&RoomVersionId::V11).expect("version 11"),
            room_type: None,
            create_event: EventNid(1),
        };
        let head = RoomHead {
            version,
            current_state: [0; 16],
            extremities: Vec::new(),
            depth: 1,
            backfilled: 0,
            notified: Default::default(),
        };
        Arc::new(empty(Arc::new(info), head, Default::default()))
    }

    fn held(rooms: &RoomViews) -> Option<u64> {
        rooms.cached(ROOM).map(|room| room.head.version)
    }

    #[test]
    fn what_was_read_is_kept() {
        let rooms = rooms();
        Reading::begin(&rooms, ROOM).keep(&snapshot(1));
        assert_eq!(held(&rooms), Some(1));
        assert!(rooms.under_way.lock().is_empty());
    }

    #[test]
    fn what_was_read_before_the_room_was_forgotten_is_not_kept() {
        let rooms = rooms();
        let early = Reading::begin(&rooms, ROOM);
        rooms.forget(ROOM);
        let late = Reading::begin(&rooms, ROOM);
        early.keep(&snapshot(1));
        assert_eq!(held(&rooms), None);
        late.keep(&snapshot(2));
        assert_eq!(held(&rooms), Some(2));
        drop((early, late));
        assert!(rooms.under_way.lock().is_empty());
    }

    #[test]
    fn what_was_read_before_a_newer_snapshot_came_and_was_evicted_is_not_kept() {
        let rooms = rooms();
        let early = Reading::begin(&rooms, ROOM);
        rooms.publish(snapshot(2));
        rooms.cache.remove(&ROOM);
        early.keep(&snapshot(1));
        assert_eq!(held(&rooms), None);
    }
}
