//! The rooms of a local user, from `user_rooms`, dropped when the log says that one of them changed.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use imbl::OrdMap;
use myelin_core::{EventNid, Position, RoomNid, UserNid};
use myelin_store::{
    Direction, Store,
    tables::{Membership, USER_ROOMS},
};
use quick_cache::{Weighter, sync::Cache};

use crate::Error;

/// Sum of room counts over the users kept.
const CACHE_WEIGHT: u64 = 500_000;
const EXPECTED_USERS: usize = 5_000;
const ROOMS_MAX: usize = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserRoom {
    pub membership: Membership,
    /// The member event.
    pub event: EventNid,
    /// When the membership became so.
    pub position: Position,
    pub forgotten: bool,
    pub was_joined: bool,
}

type Rooms = Arc<OrdMap<RoomNid, UserRoom>>;

#[derive(Clone)]
struct ByRooms;

impl Weighter<UserNid, Rooms> for ByRooms {
    fn weight(&self, _: &UserNid, rooms: &Rooms) -> u64 {
        rooms.len() as u64 + 8
    }
}

pub struct UserRooms {
    store: Store,
    cache: Cache<UserNid, Rooms, ByRooms>,
    /// Counts invalidations: a load that one overtook is not kept.
    generation: AtomicU64,
}

impl UserRooms {
    pub fn new(store: Store) -> Self {
        let cache = Cache::with_weighter(EXPECTED_USERS, CACHE_WEIGHT, ByRooms);
        Self { store, cache, generation: AtomicU64::new(0) }
    }

    /// All rooms in which the user has a membership, forgotten ones included. It may be newer than a position read
    /// before: compare [`UserRoom::position`].
    pub async fn load(&self, user: UserNid) -> Result<Rooms, Error> {
        if let Some(rooms) = self.cache.get(&user) {
            return Ok(rooms);
        }
        let generation = self.generation.load(Ordering::SeqCst);
        let rows = self.store.scan(&USER_ROOMS, &user, Direction::Forward, ROOMS_MAX).await?;
        let rooms = rows.into_iter().map(|((_, room), row)| {
            let position = row.position;
            let row = row.value;
            let (membership, event) = (row.membership, row.event);
            (
                room,
                UserRoom {
                    membership,
                    event,
                    position,
                    forgotten: row.forgotten,
                    was_joined: row.was_joined,
                },
            )
        });
        let rooms: Rooms = Arc::new(rooms.collect());
        self.cache.insert(user, rooms.clone());
        if self.generation.load(Ordering::SeqCst) != generation {
            self.cache.remove(&user);
        }
        Ok(rooms)
    }

    pub fn forget(&self, user: UserNid) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.cache.remove(&user);
    }
}
