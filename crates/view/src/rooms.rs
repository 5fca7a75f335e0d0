//! Hot rooms: one immutable snapshot each, replaced as a whole by the writer.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use myelin_core::RoomNid;
use myelin_dag::state_tree::NodeHash;
use myelin_store::{
    Direction, Store,
    tables::{MEMBERS, ROOM_HEADS, RoomHead},
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
    /// Held while a snapshot is compared and replaced, never across an await.
    replace: Mutex<()>,
}

impl RoomViews {
    pub fn new(store: Store, interner: Arc<Interner>, states: Arc<States>) -> Self {
        let cache = Cache::with_weighter(EXPECTED_ROOMS, CACHE_WEIGHT, ByMembers);
        Self { store, interner, states, cache, replace: Mutex::new(()) }
    }

    /// The newest committed snapshot; `None` if there is no such room.
    pub async fn load(&self, room: RoomNid) -> Result<Option<Arc<RoomSnapshot>>, Error> {
        if let Some(snapshot) = self.cache.get(&room) {
            return Ok(Some(snapshot));
        }
        let Some(info) = self.interner.room_info(room).await? else { return Ok(None) };
        let Some(snapshot) = self.read(info).await? else { return Ok(None) };
        self.publish(snapshot.clone());
        Ok(Some(snapshot))
    }

    pub fn cached(&self, room: RoomNid) -> Option<Arc<RoomSnapshot>> {
        self.cache.get(&room)
    }

    /// Makes a *committed* snapshot the one that readers get, unless they already get a newer one.
    pub fn publish(&self, snapshot: Arc<RoomSnapshot>) {
        let _replace = self.replace.lock();
        let newer = |held: Arc<RoomSnapshot>| held.head.version > snapshot.head.version;
        if !self.cache.peek(&snapshot.nid()).is_some_and(newer) {
            self.cache.insert(snapshot.nid(), snapshot);
        }
    }

    /// Another process wrote the room, or a commit failed: load again on next use.
    pub fn forget(&self, room: RoomNid) {
        let _replace = self.replace.lock();
        self.cache.remove(&room);
    }

    /// Reads head, state and members at one moment.
    async fn read(&self, info: Arc<RoomInfo>) -> Result<Option<Arc<RoomSnapshot>>, Error> {
        let snapshot = self.store.snapshot().await?;
        let Some(head) = snapshot.read().get(&ROOM_HEADS, &info.nid).await? else { return Ok(None) };
        let rows = snapshot.read().scan(&MEMBERS, &info.nid, Direction::Forward, MEMBERS_MAX).await?;
        let current_state = self.states.load(NodeHash(head.current_state)).await?;
        let mut room = empty(info, head, current_state);
        for ((_, user), row) in rows {
            let local = self.interner.is_local(user).await?;
            room.set_member(user, local, row.value.membership, row.value.event);
        }
        Ok(Some(Arc::new(room)))
    }
}

fn empty(
    info: Arc<RoomInfo>,
    head: RoomHead,
    current_state: myelin_dag::state_tree::StateTree,
) -> RoomSnapshot {
    RoomSnapshot {
        info,
        head,
        current_state,
        members: OrdMap::new(),
        local_joined: OrdSet::new(),
        joined_count: 0,
        invited_count: 0,
    }
}
